/** A ledger that goes on: behind the old lines, the new ones. */
import { computeRecordHash } from "./chain.ts";
import { ledgerText, type PythonLedger } from "./ledger-file.ts";
import type { PythonJson, PythonObject } from "./text.ts";

interface Continued {
  text: string;
  /** Hash of the last record; null without one. */
  head: PythonJson;
  count: number;
  /** How many of them are old. */
  oldCount: number;
}

/** The old lines and the new ones. Lines that cannot be read would keep Python from reading any: they are left out. */
export function continueChain(old: PythonLedger, added: readonly PythonObject[], notes: string[]): Continued {
  const { text: oldText, records, problems } = old;
  const unreadable = new Set(problems.map(({ line }) => line));
  if (unreadable.size > 0) notes.push(`${unreadable.size} lines of its old ledger cannot be read and are left out`);
  const lines = oldText.split("\n").filter((line, i) => line.trim() !== "" && !unreadable.has(i + 1));
  const last = records.at(-1)?.record_hash ?? null;
  // A ledger that was kept without a chain goes on without one.
  const isChained = records.length === 0 || last !== null;
  let head: PythonJson = last;
  const linked = added.map((record) => {
    if (!isChained) return { ...record, prev_hash: null, record_hash: null, signature: null };
    const prev_hash = head;
    head = computeRecordHash(record, prev_hash);
    return { ...record, prev_hash, record_hash: head, signature: null };
  });
  const text =
    unreadable.size === 0 && (oldText === "" || oldText.endsWith("\n")) ? oldText : lines.map((line) => `${line}\n`).join("");
  return { text: text + ledgerText(linked), head, count: records.length + added.length, oldCount: records.length };
}
