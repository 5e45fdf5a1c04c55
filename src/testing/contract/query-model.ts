/** What queries find, in the plainest form: for tests that compare a store with it. */
import { indexedOf, type OpenWait, openWaits, type RunRow, rowOf } from "../../kernel/run.ts";
import type { CountBy, RunCount, RunQuery, Scalar } from "../../kernel/query.ts";
import type { Holder } from "./world.ts";

export interface ModelRun {
  /** Place in the order of creation. */
  number: number;
  row: RunRow;
  waits: OpenWait[];
  indexed: Record<string, Scalar>;
  holder: string | undefined;
}

/** A run as it stands after what its holder has committed. */
export function modelOf(number: number, { state, lease }: Holder, isHeld: boolean): ModelRun {
  return {
    number,
    row: rowOf(state),
    waits: openWaits(state),
    indexed: indexedOf(state),
    holder: isHeld ? lease.workerId : undefined,
  };
}

/** What a run is ordered by; undefined when it has no place in that order. */
export function keyOf({ number, row, waits, holder }: ModelRun, order: RunQuery["order"] = "newest"): number | undefined {
  if (order === "updated") return row.updatedAt;
  if (order === "waiting") return waits.length === 0 ? undefined : Math.min(...waits.map(({ since }) => since));
  if (order === "due") return holder === undefined ? (row.wakeAt ?? undefined) : undefined;
  return number;
}

export function isFound(run: ModelRun, query: RunQuery): boolean {
  const { row, waits, indexed, holder } = run;
  const fits = (wanted: unknown, value: unknown): boolean =>
    wanted === undefined || (Array.isArray(wanted) ? wanted.includes(value) : wanted === value);
  const isAfter = (least: number | undefined, at: number | null): boolean => least === undefined || (at !== null && at >= least);
  const isBefore = (end: number | undefined, at: number | null): boolean => end === undefined || (at !== null && at < end);
  const dueAt = holder === undefined ? row.wakeAt : null;
  const asksForWait = query.waitKey !== undefined || query.waitReason !== undefined;
  return [
    keyOf(run, query.order) !== undefined,
    query.idPrefix === undefined || row.runId.startsWith(query.idPrefix),
    fits(query.status, row.status),
    fits(query.workflowId, row.workflowId),
    fits(query.version, row.version),
    fits(query.queue, row.queue),
    fits(query.parentRunId, row.parentRunId),
    fits(query.sessionId, row.sessionId),
    fits(query.actorId, row.actorId),
    fits(query.holder, holder),
    (query.tags ?? []).every((tag) => (row.tags ?? []).includes(tag)),
    Object.entries(query.vars ?? {}).every(([path, value]) => indexed[path] === value),
    !asksForWait || waits.some(({ waitKey, reason }) => fits(query.waitKey, waitKey) && fits(query.waitReason, reason)),
    isAfter(query.createdAfter, row.createdAt) && isBefore(query.createdBefore, row.createdAt),
    isAfter(query.updatedAfter, row.updatedAt) && isBefore(query.updatedBefore, row.updatedAt),
    isAfter(query.dueAfter, dueAt) && isBefore(query.dueBefore, dueAt),
  ].every(Boolean);
}

/** All of them, in order; what stands at one moment, in the order of creation. */
export function foundIn(runs: readonly ModelRun[], query: RunQuery): string[] {
  const { order = "newest" } = query;
  const sign = order === "newest" || order === "updated" ? -1 : 1;
  return runs
    .filter((run) => isFound(run, query))
    .sort((a, b) => sign * ((keyOf(a, order) as number) - (keyOf(b, order) as number) || a.number - b.number))
    .map(({ row }) => row.runId);
}

export function countsIn(runs: readonly ModelRun[], { order: _, ...query }: RunQuery, by?: CountBy): RunCount[] {
  const values = runs.filter((run) => isFound(run, query)).flatMap((run) => groupsOf(run, by));
  if (by === undefined) return [{ value: null, count: values.length }];
  const groups = [...new Set(values)].map((value) => ({ value, count: values.filter((other) => other === value).length }));
  const rank = (value: string | null): string => (value === null ? "1" : `0${value}`);
  return groups.sort((a, b) => b.count - a.count || (rank(a.value) < rank(b.value) ? -1 : 1));
}

function groupsOf({ row, waits }: ModelRun, by: CountBy | undefined): (string | null)[] {
  const values =
    by === undefined
      ? []
      : by === "tag"
        ? (row.tags ?? [])
        : by === "waitReason"
          ? [...new Set(waits.map(({ reason }) => reason))]
          : [row[by] ?? null];
  return values.length > 0 ? [...values] : [null];
}
