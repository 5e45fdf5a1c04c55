/** Points in a run's ledger, named by a seq or by a time. */
import { AbstractRuntimeError, invalidOption } from "../../kernel/errors.ts";
import { readMoment } from "../../kernel/moment.ts";
import { readHeader } from "../../kernel/record.ts";
import type { RunState } from "../../kernel/run.ts";
import type { Store } from "../../kernel/store.ts";
import { loadRun, stateOf } from "../read.ts";

/**
 * After a record of the run: a number is its seq; a Date, or ISO text with a time zone, stands for the last record at or before that
 * time.
 */
export type RunPoint = number | Date | string;

/** The run as it was at a point. @throws RUN_NOT_FOUND, SEQ_NOT_FOUND, BEFORE_START, RECORDS_ARCHIVED, INVALID_OPTION */
export async function stateAt(store: Store, runId: string, point: RunPoint): Promise<RunState> {
  const seq = await seqOf(store, runId, point);
  return stateOf(store, await loadRun(store, runId, { at: seq }), seq);
}

/** The seq of a point. @throws As `stateAt`. */
export async function seqOf(store: Store, runId: string, point: RunPoint): Promise<number> {
  const { row, archivedBefore = 0 } = await loadRun(store, runId);
  if (typeof point !== "number") return seqAtTime(store, runId, timeOf(point), archivedBefore, row.seq);
  if (Number.isInteger(point) && point >= 0 && point <= row.seq) return point;
  throw new AbstractRuntimeError("SEQ_NOT_FOUND", { runId, seq: point, last: row.seq });
}

function timeOf(point: Date | string): number {
  const at = readMoment(point);
  if (typeof at === "number") return at;
  throw invalidOption("at", `a point of a run is a seq or a time: ${at}`);
}

/** By halves: one record is read for each doubling of the ledger. */
async function seqAtTime(store: Store, runId: string, time: number, first: number, last: number): Promise<number> {
  let low = first;
  let high = last;
  const startedAt = await timeOfRecord(store, runId, first);
  if (time < startedAt) {
    if (first > 0) throw new AbstractRuntimeError("RECORDS_ARCHIVED", { runId, seq: first - 1, before: first });
    throw new AbstractRuntimeError("BEFORE_START", { runId, at: time, startedAt });
  }
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if ((await timeOfRecord(store, runId, middle)) <= time) low = middle;
    else high = middle - 1;
  }
  return low;
}

async function timeOfRecord(store: Store, runId: string, seq: number): Promise<number> {
  const [stored] = await store.records(runId, seq, 1);
  if (!stored) throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq, problem: "it is missing" });
  return readHeader(runId, stored).at;
}
