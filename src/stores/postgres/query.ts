/** Lists of runs and counts of them. */
import type { OpenWait } from "../../kernel/run.ts";
import type { CountBy, ListedRun, RunCount, RunPage, RunQuery } from "../../kernel/query.ts";
import {
  comparePlaces,
  cursorAt,
  isByCreation,
  isDescending,
  type Order,
  pageSize,
  type Place,
  placeOf,
  sortedCounts,
  pageOf,
} from "../paging.ts";
import { waitOf, listedRun } from "../table-row.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { arrayOf } from "./encode.ts";
import { Filter, filterOf, wakesAt } from "./filters.ts";
import { movingOf, type RunTableRow } from "./read.ts";

type Row = RunTableRow & Place;

/**
 * Where runs stand in an order, by tables that hold them in it. A run that is held changes at each step, so it is not in the index of
 * changes but among those that are held, which are few.
 */
const sources: Record<Order, readonly { from: string; at: string; only: string }[]> = {
  newest: [{ from: "~runs r", at: "r.run", only: "" }],
  oldest: [{ from: "~runs r", at: "r.run", only: "" }],
  updated: [
    { from: "~runs r", at: "r.rested_at", only: "r.rested_at IS NOT NULL" },
    { from: "~runs r", at: "r.updated_at", only: "r.worker_id IS NOT NULL" },
  ],
  // One wait for each run: the one that began first.
  waiting: [
    {
      from: "~waits f JOIN ~runs r ON r.run = f.run",
      at: "f.since",
      only: `NOT EXISTS (SELECT FROM ~waits e WHERE e.run = f.run AND (e.since, e.effect_id) < (f.since, f.effect_id))`,
    },
  ],
  due: [{ from: "~runs r", at: wakesAt, only: "r.wake_at IS NOT NULL AND r.worker_id IS NULL" }],
};

export async function queryRuns(statements: Statements, client: PostgresClient, query: RunQuery): Promise<RunPage> {
  const { order = "newest" } = query;
  const limit = pageSize(query.limit);
  const contents = statements.contentsId;
  const behind = placeOf(query.cursor, order, contents);
  const way = isDescending(order) ? "DESC" : "ASC";
  const follows = isDescending(order) ? "<" : ">";
  const filter = filterOf(query);
  const moment = behind && !isByCreation(order) ? filter.value(behind.at) : "";
  const number = behind ? filter.value(behind.run) : "";
  // One statement, so that it sees one moment: a run that is handed back in between would be missed by both sources of an order.
  const parts = sources[order].map(({ from, at, only }) => {
    const run = at === "f.since" ? "f.run" : "r.run";
    const following = isByCreation(order) ? `${run} ${follows} ${number}` : `(${at}, ${run}) ${follows} (${moment}, ${number})`;
    const sorted = isByCreation(order) ? `${run} ${way}` : `${at} ${way}, ${run} ${way}`;
    return `(SELECT r.*, ${at} AS at FROM ${from} ${filter.where(only, behind ? following : "")} ORDER BY ${sorted} LIMIT ${limit + 1})`;
  });
  const rows = await statements.rows<Row>(client, parts.join(" UNION ALL "), filter.values, true);
  if (parts.length > 1) rows.sort((a, b) => comparePlaces(a, b, order));
  const { page, ...next } = pageOf(rows, limit, (last) => cursorAt(last, order, contents));
  return { runs: await listedRuns(statements, client, page), ...next };
}

const grouped: Record<CountBy, { value: string; join?: string }> = {
  status: { value: "r.status" },
  workflowId: { value: "r.workflow_id" },
  version: { value: "r.version" },
  queue: { value: "r.queue" },
  sessionId: { value: "r.session_id" },
  actorId: { value: "r.actor_id" },
  tag: { value: "t.tag", join: "LEFT JOIN ~run_tags t ON t.run = r.run" },
  waitReason: { value: "w.reason", join: "LEFT JOIN (SELECT DISTINCT run, reason FROM ~waits) w ON w.run = r.run" },
};

/** The largest groups first. */
export async function countRuns(
  statements: Statements,
  client: PostgresClient,
  query: RunQuery,
  by?: CountBy,
): Promise<RunCount[]> {
  const filter = filterOf(query);
  const { value, join = "" } = by === undefined ? { value: "NULL::text" } : grouped[by];
  const sql = `SELECT ${value} AS value, count(*) AS count FROM ~runs r ${join} ${filter.where()} ${by === undefined ? "" : "GROUP BY 1"}`;
  const rows = await statements.rows<RunCount>(client, sql, filter.values, true);
  return sortedCounts(new Map(rows.map((row) => [row.value, row.count])));
}

/** Runs that wait for an event under a key. */
export async function listeners(
  statements: Statements,
  client: PostgresClient,
  key: string,
  { workflowId, limit, cursor }: { workflowId?: string; limit: number; cursor?: string },
): Promise<{ runIds: string[]; next?: string }> {
  const most = pageSize(limit);
  const contents = statements.contentsId;
  const behind = placeOf(cursor, "oldest", contents);
  const filter = new Filter();
  filter.equal("w.wait_key", key);
  filter.is("w.reason = 'event'");
  if (behind) filter.is(`w.run > ${filter.value(behind.run)}`);
  filter.equal("r.workflow_id", workflowId);
  const sql = `SELECT r.run, r.run_id FROM ~waits w JOIN ~runs r ON r.run = w.run ${filter.where()}
    GROUP BY r.run, r.run_id ORDER BY r.run LIMIT ${most + 1}`;
  const rows = await statements.rows<{ run: number; run_id: string }>(client, sql, filter.values, true);
  const { page, ...next } = pageOf(rows, most, ({ run }) => cursorAt({ at: run, run }, "oldest", contents));
  return { runIds: page.map((row) => row.run_id), ...next };
}

/** The waits of a whole page are read together. */
async function listedRuns(statements: Statements, client: PostgresClient, rows: readonly RunTableRow[]): Promise<ListedRun[]> {
  if (rows.length === 0) return [];
  const waits = new Map<number, OpenWait[]>(rows.map(({ run }) => [run, []]));
  const sql = "SELECT * FROM ~waits WHERE run = ANY ($1) ORDER BY run, since, length(effect_id), effect_id";
  const found = await statements.rows(client, sql, [arrayOf([...waits.keys()])]);
  for (const row of found) waits.get(row.run as number)?.push(waitOf(row));
  return rows.map((row) => listedRun(row, waits.get(row.run) as OpenWait[], movingOf(row)));
}
