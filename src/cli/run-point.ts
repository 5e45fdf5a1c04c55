/** Points in a run's ledger, as a person types them. */
import type { RunPoint } from "../index.ts";
import { wrongUse } from "./problem.ts";

/** A number is the seq of a record, anything else a time. */
export function parsePoint(text: string): RunPoint {
  return /^\d+$/.test(text) ? Number(text) : text;
}

/** @throws INVALID_OPTION */
export function parseSeq(text: string, option: string): number {
  const seq = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(seq)) return seq;
  throw wrongUse(option, `${option} "${text}" is not the number of a record`, "Take SEQ from `abstractruntime ledger RUN`.");
}
