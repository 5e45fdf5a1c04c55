/** The hash chain over a ledger: each record names the hash of the one before. */
import { isLosslessNumber } from "lossless-json";
import { sha256 } from "../kernel/record.ts";
import { canonicalJson, canonicalJsonAscii, type PythonJson, type PythonObject } from "./text.ts";

/** One thing that is wrong with a chain. Keys as in Python. */
export type ChainError =
  | { index: number; type: "prev_hash_mismatch"; expected_prev_hash: PythonJson; actual_prev_hash: PythonJson }
  | { index: number; type: "missing_record_hash" }
  | { index: number; type: "record_hash_mismatch"; stored: PythonJson; computed: string };

/** What `verify_ledger_chain` says. Keys as in Python. */
export interface ChainReport {
  ok: boolean;
  count: number;
  errors: ChainError[];
  /** Index of the first bad record. When that is 0 and others are bad too, the next bad one: so says the original. */
  first_bad_index: number | null;
  /** Stored hash of the last record. */
  head_hash: PythonJson;
  /** Stored hash of the last record that was looked at. */
  computed_head_hash: PythonJson;
}

/** SHA-256 of a record's canonical text, without its hash and signature, behind `prevHash`. @throws NOT_JSON for text that Python cannot hash. */
export function computeRecordHash(record: PythonObject, prevHash: PythonJson): string {
  const { record_hash: _, signature: __, ...hashed } = record;
  return sha256(canonicalJson({ ...hashed, prev_hash: prevHash }));
}

/** Verifies a ledger, with the verdicts of the Python package. A cut tail, a chain rewritten as a whole, and signatures are not noticed. */
export function verifyLedgerChain(records: readonly PythonObject[]): ChainReport {
  const errors: ChainError[] = [];
  let firstBad: number | null = null;
  let previous: PythonJson = null;
  const bad = (error: ChainError): void => {
    errors.push(error);
    firstBad = firstBad || error.index;
  };
  for (const [index, record] of records.entries()) {
    const actual = record.prev_hash ?? null;
    // Half of a surrogate pair can be compared, though not hashed.
    if (canonicalJsonAscii(actual) !== canonicalJsonAscii(previous))
      bad({ index, type: "prev_hash_mismatch", expected_prev_hash: previous, actual_prev_hash: actual });
    const stored = record.record_hash ?? null;
    // What follows a record without a hash cannot be verified.
    if (isFalse(stored)) {
      bad({ index, type: "missing_record_hash" });
      break;
    }
    const computed = computeRecordHash(record, actual);
    if (computed !== stored) bad({ index, type: "record_hash_mismatch", stored, computed });
    previous = stored;
  }
  return {
    ok: errors.length === 0,
    count: records.length,
    errors,
    first_bad_index: firstBad,
    head_hash: records.at(-1)?.record_hash ?? null,
    computed_head_hash: previous,
  };
}

/** What Python takes for false. NaN is not among it. */
function isFalse(value: PythonJson): boolean {
  if (typeof value === "number") return value === 0;
  if (typeof value !== "object" || value === null) return !value;
  if (Array.isArray(value)) return value.length === 0;
  return isLosslessNumber(value) ? Number(value.value) === 0 : Object.keys(value).length === 0;
}
