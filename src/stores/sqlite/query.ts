/** Lists of runs and counts of them. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { OpenWait, RunStatus } from "../../kernel/run.ts";
import type { ListedRun, RunPage, RunQuery, StoreStats } from "../../kernel/store.ts";
import type { Lanes } from "./lanes.ts";
import { blockOf, type Reader, type RunTableRow, readable, runRow } from "./read.ts";

const defaultPage = 100;
const largestPage = 1_000;

type Value = string | number;

/** The conditions of a query, and the values they stand for. */
class Filter {
  readonly values: Value[] = [];
  readonly #conditions: string[] = [];

  /** Does nothing when there is no value. */
  where(condition: string, value: Value | undefined): void {
    if (value === undefined) return;
    this.#conditions.push(condition);
    this.values.push(value);
  }

  is(condition: string): void {
    this.#conditions.push(condition);
  }

  toString(): string {
    return this.#conditions.length > 0 ? `WHERE ${this.#conditions.join(" AND ")}` : "";
  }
}

export function queryRuns(reader: Reader, query: RunQuery): RunPage {
  const limit = pageSize(query.limit);
  const oldest = query.order === "oldest";
  const filter = new Filter();
  const ofWaits = query.waitReason !== undefined || query.waitKey !== undefined;
  // One wait must fit both.
  filter.where("waits.wait_key = ?", query.waitKey);
  filter.where("waits.reason = ?", query.waitReason);
  const number = query.idPrefix && !ofWaits ? wherePrefix(reader, filter, query.idPrefix) : "runs.run";
  if (query.idPrefix && ofWaits) whereRange(filter, query.idPrefix);
  if (query.status !== undefined)
    filter.where("status IN (SELECT value FROM json_each(?))", JSON.stringify([query.status].flat()));
  filter.where("workflow_id = ?", query.workflowId);
  filter.where("worker_id = ?", query.holder);
  filter.where("parent_run_id = ?", query.parentRunId);
  filter.where("queue = ?", query.queue);
  if (query.blocked !== undefined) filter.is(query.blocked ? "blocked IS NOT NULL" : "blocked IS NULL");
  const place = ofWaits ? "waits.run" : number;
  filter.where(`${place} ${oldest ? ">" : "<"} ?`, cursorOf(query.cursor));
  const from = ofWaits
    ? `waits ${query.waitKey === undefined ? "" : "INDEXED BY waits_key"} CROSS JOIN runs ON runs.run = waits.run`
    : "runs";
  const rows = reader
    .prepare(
      `SELECT runs.* FROM ${from} ${filter} ${ofWaits ? "GROUP BY waits.run" : ""} ORDER BY ${place} ${oldest ? "" : "DESC"} LIMIT ?`,
    )
    .all(...filter.values, limit + 1) as unknown as RunTableRow[];
  const page = rows.slice(0, limit);
  const last = page.at(-1);
  return { runs: listedRuns(reader, page), ...(rows.length > limit && last ? { next: String(last.run) } : {}) };
}

export function listeners(
  reader: Reader,
  key: string,
  { workflowId, limit, cursor }: { workflowId?: string; limit: number; cursor?: string },
): { runIds: string[]; next?: string } {
  const most = pageSize(limit);
  const filter = new Filter();
  filter.where("waits.wait_key = ?", key);
  filter.where("waits.run > ?", cursorOf(cursor));
  filter.where("workflow_id = ?", workflowId);
  const rows = reader
    .prepare(
      `SELECT runs.run, run_id FROM waits INDEXED BY waits_key CROSS JOIN runs ON runs.run = waits.run
       ${filter} AND waits.reason = 'event' GROUP BY waits.run ORDER BY waits.run LIMIT ?`,
    )
    .all(...filter.values, most + 1);
  const page = rows.slice(0, most);
  const last = page.at(-1);
  return { runIds: page.map((row) => row.run_id as string), ...(rows.length > most && last ? { next: String(last.run) } : {}) };
}

/** @param isAlive Whether a worker lives whose lease has not run out. */
export function stats(
  reader: Reader,
  lanes: Lanes,
  now: number,
  isAlive: (workerId: string) => boolean,
): Omit<StoreStats, "sizeBytes"> {
  const byStatus: Partial<Record<RunStatus, number>> = {};
  let runs = 0;
  for (const { status, count } of reader.prepare("SELECT status, count(*) AS count FROM runs GROUP BY status").all()) {
    byStatus[status as RunStatus] = count as number;
    runs += count as number;
  }
  const inLane = reader.prepare(
    `SELECT count(*) AS count, min(wake_at) AS oldest FROM runs INDEXED BY runs_due
     WHERE lane = ? AND wake_at <= ? AND worker_id IS NULL AND blocked IS NULL`,
  );
  const queues: StoreStats["queues"] = {};
  let due = 0;
  let oldestDueAt = Number.POSITIVE_INFINITY;
  for (const { lane, queue } of lanes.all()) {
    const { count, oldest } = inLane.get(lane, now) as { count: number; oldest: number | null };
    if (oldest === null) continue;
    if (queue === null) {
      due += count;
      oldestDueAt = Math.min(oldestDueAt, oldest);
    } else {
      const before = queues[queue];
      queues[queue] = { due: (before?.due ?? 0) + count, oldestDueAt: Math.min(before?.oldestDueAt ?? oldest, oldest) };
    }
  }
  // A block that cannot be read is a quarantine.
  const { blocked, quarantined } = reader
    .prepare(
      `SELECT count(*) AS blocked, total(iif(json_valid(blocked), blocked ->> 'quarantine', 1)) AS quarantined
       FROM runs INDEXED BY runs_blocked WHERE blocked IS NOT NULL`,
    )
    .get() as { blocked: number; quarantined: number };
  const leased = reader.prepare("SELECT worker_id FROM workers WHERE expires_at > ?").all(now);
  const workers = leased.filter((row) => isAlive(row.worker_id as string)).length;
  return {
    runs,
    byStatus,
    due,
    ...(due > 0 ? { oldestDueAt } : {}),
    queues,
    blocked,
    quarantined,
    workers,
  };
}

/**
 * Ids with a prefix are a range of the index of ids. A page is in the order of creation, though: where few fit they are found by
 * the index and sorted, and the plus keeps SQLite from walking all runs in that order; where many fit, that walk soon has a page.
 */
function wherePrefix(reader: Reader, filter: Filter, prefix: string): string {
  const range = new Filter();
  whereRange(range, prefix);
  const { fit } = reader
    .prepare(`SELECT count(*) AS fit FROM (SELECT 1 FROM runs ${range} LIMIT ${largestPage})`)
    .get(...range.values) as { fit: number };
  const isFew = fit < largestPage;
  whereRange(filter, prefix, isFew ? "run_id" : "+run_id");
  return isFew ? "+runs.run" : "runs.run";
}

function whereRange(filter: Filter, prefix: string, column = "run_id"): void {
  filter.where(`${column} >= ?`, prefix);
  filter.where(`${column} < ?`, behind(prefix));
}

/** The least text behind all that begin with a prefix, in SQLite's order, which is that of code points; undefined when there is none. */
function behind(prefix: string): string | undefined {
  const points = [...prefix].map((character) => character.codePointAt(0) as number);
  while (points.at(-1) === 0x10ffff) points.pop();
  const last = points.pop();
  if (last === undefined) return undefined;
  // What stands between is no character.
  return String.fromCodePoint(...points, last + 1 === 0xd800 ? 0xe000 : last + 1);
}

function pageSize(limit = defaultPage): number {
  return Math.max(1, Math.min(limit, largestPage));
}

function cursorOf(cursor: string | undefined): number | undefined {
  if (cursor === undefined) return undefined;
  const number = Number(cursor);
  if (Number.isSafeInteger(number)) return number;
  const problem = `cursor "${cursor}" was not made by this store`;
  throw new AbstractRuntimeError("INVALID_OPTION", { option: "cursor", problem });
}

/** The waits of a whole page are read together. */
function listedRuns(reader: Reader, rows: readonly RunTableRow[]): ListedRun[] {
  const waits = new Map<number, OpenWait[]>(rows.map(({ run }) => [run, []]));
  const found = reader
    .prepare(
      "SELECT * FROM waits WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, since, length(effect_id), effect_id",
    )
    .all(JSON.stringify([...waits.keys()]));
  for (const { run, effect_id, wait_key, reason, since, until } of found) {
    waits.get(run as number)?.push({
      effectId: effect_id as string,
      waitKey: wait_key as string,
      reason: reason as OpenWait["reason"],
      since: since as number,
      ...(until === null ? {} : { until: until as number }),
    });
  }
  return rows.map((row) => listedRun(row, waits.get(row.run) as OpenWait[]));
}

/** A page is not lost for one damaged row: what cannot be read is left out, and `load` says what is wrong. */
function listedRun(row: RunTableRow, waits: OpenWait[]): ListedRun {
  const error = readable(row.error) === undefined ? null : row.error;
  return {
    ...runRow({ ...row, error }),
    waits,
    ...(row.blocked === null ? {} : { blocked: blockOf(row.blocked) }),
    ...(row.worker_id === null ? {} : { holder: row.worker_id }),
  };
}
