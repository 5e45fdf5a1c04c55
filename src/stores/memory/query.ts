/** Lists of runs and counts of them. */
import type { CountBy, ListedRun, RunCount, RunPage, RunQuery } from "../../kernel/query.ts";
import type { Moving } from "../../kernel/moving.ts";
import { comparePlaces, cursorAt, type Order, pageSize, type Place, placeOf, sortedCounts, pageOf } from "../paging.ts";
import { type Contents, copyRow, type Run } from "./contents.ts";

export function queryRuns(contents: Contents, query: RunQuery): RunPage {
  const { order = "newest" } = query;
  const behind = placeOf(query.cursor, order, String(contents.id));
  const follows = (place: Place): boolean => behind === undefined || comparePlaces(place, behind, order) > 0;
  const found = [...contents.runs.values()]
    .flatMap((run) => {
      const place = placeIn(order, run);
      return place && follows(place) && matches(run, query) ? [{ run, place }] : [];
    })
    .sort((a, b) => comparePlaces(a.place, b.place, order));
  const { page, ...next } = pageOf(found, pageSize(query.limit), ({ place }) => cursorAt(place, order, String(contents.id)));
  return { runs: page.map(({ run }) => listed(run)), ...next };
}

export function countRuns(contents: Contents, query: RunQuery, by?: CountBy): RunCount[] {
  const groups = new Map<string | null, number>(by === undefined ? [[null, 0]] : []);
  for (const run of contents.runs.values()) {
    if (!matches(run, query)) continue;
    const values = by === undefined ? [] : valuesOf(run, by);
    for (const value of values.length > 0 ? new Set(values) : [null]) groups.set(value, (groups.get(value) ?? 0) + 1);
  }
  return sortedCounts(groups);
}

/** Undefined when the run has no place in an order. */
function placeIn(order: Order, { number, row, waits, holder }: Run): Place | undefined {
  switch (order) {
    case "newest":
    case "oldest":
      return { at: number, run: number };
    case "updated":
      return { at: row.updatedAt, run: number };
    case "waiting":
      return waits.size === 0 ? undefined : { at: Math.min(...[...waits.values()].map(({ since }) => since)), run: number };
    case "due":
      return row.wakeAt === null || holder !== undefined ? undefined : { at: row.wakeAt, run: number };
  }
}

function matches(run: Run, query: RunQuery): boolean {
  const { row, holder, indexed } = run;
  const is = (wanted: string | readonly string[] | undefined, value: string | undefined): boolean =>
    wanted === undefined || (value !== undefined && [wanted].flat().includes(value));
  const isIn = (value: number | null, after: number | undefined, before: number | undefined): boolean =>
    (after === undefined && before === undefined) ||
    (value !== null && value >= (after ?? value) && value < (before ?? Number.POSITIVE_INFINITY));
  return (
    row.runId.startsWith(query.idPrefix ?? "") &&
    is(query.status, row.status) &&
    is(query.workflowId, row.workflowId) &&
    is(query.version, row.version) &&
    is(query.queue, row.queue) &&
    is(query.parentRunId, row.parentRunId) &&
    is(query.sessionId, row.sessionId) &&
    is(query.actorId, row.actorId) &&
    is(query.holder, holder) &&
    (query.blocked === undefined || query.blocked === (run.blocked !== undefined)) &&
    (query.tags ?? []).every((tag) => row.tags?.includes(tag)) &&
    Object.entries(query.vars ?? {}).every(([path, value]) => indexed.get(path) === value) &&
    isIn(row.createdAt, query.createdAfter, query.createdBefore) &&
    isIn(row.updatedAt, query.updatedAfter, query.updatedBefore) &&
    // While a run is held, its row need not say when it wakes.
    isIn(holder === undefined ? row.wakeAt : null, query.dueAfter, query.dueBefore) &&
    hasWait(run, query)
  );
}

/** One and the same wait has both the reason and the key that are asked for. */
function hasWait({ waits }: Run, { waitReason, waitKey }: RunQuery): boolean {
  if (waitReason === undefined && waitKey === undefined) return true;
  return [...waits.values()].some(
    (wait) => wait.reason === (waitReason ?? wait.reason) && wait.waitKey === (waitKey ?? wait.waitKey),
  );
}

function valuesOf({ row, waits }: Run, by: CountBy): readonly string[] {
  if (by === "tag") return row.tags ?? [];
  if (by === "waitReason") return [...waits.values()].map(({ reason }) => reason);
  const value = row[by];
  return value === undefined ? [] : [value];
}

function listed({ row, waits, blocked, holder, moving }: Run): ListedRun {
  return {
    ...copyRow(row),
    waits: [...waits.values()].map((wait) => ({ ...wait })),
    ...(blocked ? { blocked: { ...blocked } } : {}),
    ...(holder === undefined ? {} : { holder }),
    ...(moving ? { moving: movingOf(moving) } : {}),
  };
}

export function movingOf({ token, phase, to }: Moving): Moving {
  return { token, phase, to };
}
