/**
 * `ledger_<id>.jsonl`: the step records of one run, a line each.
 *
 * Lines end at a line feed and nowhere else: U+2028, U+2029 and U+0085 stand raw inside them.
 */
import { isUtf8 } from "node:buffer";
import { type ChainReport, verifyLedgerChain } from "./chain.ts";
import { parsePythonJson } from "./parse.ts";
import { isPythonObject } from "./shape.ts";
import { lineText, type PythonJson, type PythonObject } from "./text.ts";

/** A step record; keys as in Python, in the order in which it writes them. */
export interface PythonRecord {
  run_id: string;
  step_id: string;
  node_id: string;
  status: "started" | "completed" | "waiting" | "failed";
  effect: { type: string; payload: PythonJson; result_key: string | null } | null;
  result: PythonJson;
  error: string | null;
  started_at: string;
  ended_at: string | null;
  actor_id: string | null;
  attempt: number;
  idempotency_key: string | null;
  prev_hash: string | null;
  record_hash: string | null;
  signature: string | null;
}

export interface LedgerProblem {
  /** From 1. */
  line: number;
  problem: string;
}

export interface PythonLedger {
  /** Exactly as in the file, where that is text. */
  text: string;
  /** Where it is not: torn in the middle of a character, most often. */
  bytes?: Uint8Array;
  /** The records that can be read. */
  records: PythonObject[];
  /** Lines that cannot be: half a line at the end, most often. */
  problems: LedgerProblem[];
  /** The verdict of the Python package on these records; null when it cannot give one. */
  report: ChainReport | null;
}

/** @param given What the file holds. A line that is not UTF-8 hides no other. */
export function readLedger(given: string | Uint8Array): PythonLedger {
  const text = typeof given === "string" ? given : new TextDecoder("utf-8", { ignoreBOM: true }).decode(given);
  const bytes = typeof given === "string" || isUtf8(given) ? undefined : given;
  const byteLines = bytes && latin1(bytes).split("\n");
  const records: PythonObject[] = [];
  const problems: LedgerProblem[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    try {
      if (byteLines && latin1(Buffer.from(line)) !== byteLines[i]) throw new SyntaxError("it is not UTF-8 text");
      const record = parsePythonJson(line);
      if (!isPythonObject(record)) throw new SyntaxError("it is not an object");
      records.push(record);
    } catch (error) {
      problems.push({ line: i + 1, problem: `it is not a record: ${(error as Error).message}` });
    }
  }
  const read = { text, ...(bytes ? { bytes } : {}), records, problems };
  try {
    return { ...read, report: verifyLedgerChain(records) };
  } catch (error) {
    problems.push({ line: 0, problem: `its chain cannot be verified: ${(error as Error).message}` });
    return { ...read, report: null };
  }
}

/** A character for each byte. */
function latin1({ buffer, byteOffset, byteLength }: Uint8Array): string {
  return Buffer.from(buffer, byteOffset, byteLength).toString("latin1");
}

/** @throws NOT_JSON for text that Python cannot write. */
export function ledgerText(records: readonly unknown[]): string {
  return records.map((record) => `${lineText(record)}\n`).join("");
}
