/**
 * Lists of runs and counts of them.
 *
 * How a list is found:
 * D1. When the index of some filter has few entries that fit, exactly those runs are looked at, and sorted. Of several filters it is the
 *     one with the fewest: that is counted, not guessed.
 * D2. When many fit each filter, runs are walked through in the order that is asked for, which soon fills a page: by the index of a
 *     filter that is in that order, or else by that of the order itself.
 * D3. Of a span of creation, a walk leaps over what was created before or after it.
 *
 * So what may take long is a page of few runs that each of several filters, alone, finds among many.
 */
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
import { type Condition, type Filter, filtersOf, type Source, sourcesOf, type Value } from "./filters.ts";
import { listedRun, waitOf } from "../table-row.ts";
import { movingOf, type Reader, type RunTableRow } from "./read.ts";

/** So many runs are looked at and sorted in a few milliseconds; where more fit, a page of a walk looks at about as many at most. */
const few = 4_096;
/** Rows of a walk after which it is asked where the next run of the span stands. */
const windowSize = 8_192;

/** A row of the table, and where it stands in the order that is asked for. */
type Row = RunTableRow & Place;

/** One page to be found, `limit` including the run that tells that there are more. */
interface Asked {
  filters: readonly Filter[];
  order: Order;
  behind: Place | undefined;
  limit: number;
}

export function queryRuns(reader: Reader, query: RunQuery): RunPage {
  const { order = "newest" } = query;
  const limit = pageSize(query.limit);
  const behind = placeOf(query.cursor, order, reader.contentsId());
  // At one moment: a run that is handed back in between would be missed by both of the indexes that it may stand in.
  return reader.atOnce(() => {
    const rows = find(reader, { filters: filtersOf(query), order, behind, limit: limit + 1 });
    const { page, ...next } = pageOf(rows, limit, (last) => cursorAt(last, order, reader.contentsId()));
    return { runs: listedRuns(reader, page), ...next };
  });
}

/** The largest groups first. */
export function countRuns(reader: Reader, query: RunQuery, by?: CountBy): RunCount[] {
  const filters = filtersOf(query);
  const { sources = [undefined] } = rarest(reader, filters)?.filter ?? {};
  const groups = new Map<string | null, number>(by === undefined ? [[null, 0]] : []);
  reader.atOnce(() => {
    for (const source of sources) {
      for (const { value, count } of countFrom(reader, source, filters, by)) groups.set(value, (groups.get(value) ?? 0) + count);
    }
  });
  return sortedCounts(groups);
}

/** Runs that wait for an event under a key. */
export function listeners(
  reader: Reader,
  key: string,
  { workflowId, limit, cursor }: { workflowId?: string; limit: number; cursor?: string },
): { runIds: string[]; next?: string } {
  const most = pageSize(limit);
  const behind = placeOf(cursor, "oldest", reader.contentsId());
  const rows = reader
    .prepare(
      `SELECT runs.run, run_id FROM waits INDEXED BY waits_key CROSS JOIN runs ON runs.run = waits.run
       WHERE wait_key = ? AND waits.run > ? AND (?3 IS NULL OR workflow_id = ?3) AND waits.reason = 'event'
       GROUP BY waits.run ORDER BY waits.run LIMIT ?`,
    )
    .all(key, behind?.run ?? 0, workflowId ?? null, most + 1);
  const cursorOf = ({ run }: { run?: unknown }): string =>
    cursorAt({ at: run as number, run: run as number }, "oldest", reader.contentsId());
  const { page, ...next } = pageOf(rows, most, cursorOf);
  return { runIds: page.map((row) => row.run_id as string), ...next };
}

// ---- Which index ---------------------------------------------------------------------------------------------------

function find(reader: Reader, asked: Asked): Row[] {
  const { filters, order } = asked;
  const isInOrder = ({ inOrderOf }: Filter): boolean => inOrderOf === (isByCreation(order) ? "creation" : order);
  const [first, ...others] = filters.filter(({ sources }) => sources);
  // Alone and in order, it is right whatever it holds.
  const driver = first && others.length === 0 && isInOrder(first) ? { filter: first, isRare: false } : rarest(reader, filters);
  if (driver?.isRare) return select(reader, asked, driver.filter.sources, isInOrder(driver.filter));
  const walked = filters.find(isInOrder)?.sources ?? sourcesOf(order);
  if (walked) return select(reader, asked, walked, true);
  const span = filters.find(({ isSpan }) => isSpan)?.sources?.[0];
  return span ? leap(reader, asked, span) : select(reader, asked, undefined, true);
}

/** The filter whose index has the fewest entries that fit, counted up to `few`; of equals, the first. */
function rarest(reader: Reader, filters: readonly Filter[]): { filter: Filter; isRare: boolean } | undefined {
  let found: { filter: Filter; entries: number } | undefined;
  for (const filter of filters) {
    if (!filter.sources) continue;
    const most = found?.entries ?? few;
    let entries = 0;
    for (const { sql, values } of filter.sources) {
      const left = most - entries;
      if (left <= 0) break;
      const { n } = reader.prepare(`SELECT count(*) AS n FROM (${sql} LIMIT ?)`).get(...values, left) as { n: number };
      entries += n;
    }
    if (!found || entries < most) found = { filter, entries };
  }
  return found && { filter: found.filter, isRare: found.entries < few };
}

/** @param sources Default: the table itself. @param inOrder Whether they give their runs in the order that is asked for. */
function select(reader: Reader, asked: Asked, sources: readonly Source[] | undefined, inOrder: boolean): Row[] {
  const { order, limit } = asked;
  const rows = (sources ?? [undefined]).flatMap((source) => selectFrom(reader, asked, source, inOrder));
  return rows.length <= limit && (sources?.length ?? 1) === 1
    ? rows
    : rows.sort((a, b) => comparePlaces(a, b, order)).slice(0, limit);
}

function selectFrom(reader: Reader, asked: Asked, source: Source | undefined, inOrder: boolean, also: Condition[] = []): Row[] {
  const { filters, order, behind, limit } = asked;
  const run = source ? "found.run" : "runs.run";
  const at = isByCreation(order) ? run : inOrder ? "found.at" : moments[order as keyof typeof moments];
  const [follows, way] = isDescending(order) ? ["<", "DESC"] : [">", ""];
  const conditions = [...filters.map(({ condition }) => condition), ...also];
  if (order === "waiting") conditions.push({ sql: "EXISTS (SELECT 1 FROM waits WHERE run = runs.run)", values: [] });
  if (order === "due") conditions.push({ sql: "runs.wake_at IS NOT NULL AND runs.worker_id IS NULL", values: [] });
  if (behind && isByCreation(order)) conditions.push({ sql: `${run} ${follows} ?`, values: [behind.run] });
  else if (behind) conditions.push({ sql: `(${at}, ${run}) ${follows} (?, ?)`, values: [behind.at, behind.run] });
  const where = conditions.length > 0 ? `WHERE ${conditions.map(({ sql }) => sql).join(" AND ")}` : "";
  const values: Value[] = [...(source?.values ?? []), ...conditions.flatMap(({ values }) => values), limit];
  return reader
    .fresh(
      `SELECT runs.*, ${at} AS at FROM ${from(source)} ${where} ${source?.repeats ? `GROUP BY ${run}` : ""}
       ORDER BY ${isByCreation(order) ? "" : `${at} ${way}, `}${run} ${way} LIMIT ?`,
    )
    .all(...values) as unknown as Row[];
}

/** What orders are by, of a run that was found otherwise than in that order. */
const moments = {
  updated: "runs.updated_at",
  waiting: "(SELECT min(since) FROM waits WHERE run = runs.run)",
  due: "runs.wake_at",
};

/** A row is looked up by its number alone: which index finds the numbers is decided here, and not by SQLite. */
function from(source: Source | undefined): string {
  return source ? `(${source.sql}) AS found CROSS JOIN runs NOT INDEXED ON runs.run = found.run` : "runs NOT INDEXED";
}

/** Walks through what was created in a span. Nearly all of it stands together, but a run that came from another store stands anywhere. */
function leap(reader: Reader, asked: Asked, { sql, values }: Source): Row[] {
  const newest = asked.order === "newest";
  const [end, follows, within, step] = newest ? ["max", "<", ">=", -1] : ["min", ">", "<=", 1];
  const next = reader.prepare(`SELECT ${end}(run) AS run FROM (${sql}) WHERE run ${follows} ?`);
  const rows: Row[] = [];
  let behind = asked.behind?.run;
  // Behind a cursor, the next ones are near.
  for (let isNear = behind !== undefined; rows.length < asked.limit; isNear = false) {
    if (!isNear) {
      const { run } = next.get(...values, behind ?? (newest ? Number.MAX_SAFE_INTEGER : 0)) as { run: number | null };
      if (run === null) break;
      behind = run - step;
    }
    const from = behind as number;
    const last = from + step * windowSize;
    const window = { ...asked, behind: { at: from, run: from }, limit: asked.limit - rows.length };
    rows.push(...selectFrom(reader, window, undefined, true, [{ sql: `runs.run ${within} ?`, values: [last] }]));
    behind = last;
  }
  return rows;
}

// ---- Counts --------------------------------------------------------------------------------------------------------

const grouped: Record<CountBy, { value: string; join?: string; repeats?: true }> = {
  status: { value: "runs.status" },
  workflowId: { value: "runs.workflow_id" },
  version: { value: "runs.version" },
  queue: { value: "runs.queue" },
  sessionId: { value: "runs.session_id" },
  actorId: { value: "runs.actor_id" },
  tag: { value: "run_tags.tag", join: "LEFT JOIN run_tags ON run_tags.run = runs.run" },
  waitReason: { value: "waits.reason", join: "LEFT JOIN waits ON waits.run = runs.run", repeats: true },
};

function countFrom(
  reader: Reader,
  source: Source | undefined,
  filters: readonly Filter[],
  by: CountBy | undefined,
): { value: string | null; count: number }[] {
  const group = by === undefined ? { value: "NULL" } : grouped[by];
  const { value, join = "", repeats = false } = group as (typeof grouped)[CountBy];
  // A filter that is alone has said all in its index.
  const isWhole = filters.length === 1 && source !== undefined && by === undefined;
  const [table, run] = isWhole ? [`(${source.sql}) AS found`, "found.run"] : [source ? from(source) : "runs", "runs.run"];
  const conditions = isWhole ? [] : filters.map(({ condition }) => condition);
  const where = conditions.length > 0 ? `WHERE ${conditions.map(({ sql }) => sql).join(" AND ")}` : "";
  const sql = `SELECT ${value} AS value, count(${source?.repeats || repeats ? `DISTINCT ${run}` : "*"}) AS count
    FROM ${table} ${join} ${where} ${by === undefined ? "" : "GROUP BY 1"}`;
  const values = [...(source?.values ?? []), ...conditions.flatMap(({ values }) => values)];
  return reader.fresh(sql).all(...values) as { value: string | null; count: number }[];
}

// ---- What is told of a run -----------------------------------------------------------------------------------------

/** The waits of a whole page are read together. */
function listedRuns(reader: Reader, rows: readonly RunTableRow[]): ListedRun[] {
  const waits = new Map<number, OpenWait[]>(rows.map(({ run }) => [run, []]));
  const found = reader
    .prepare(
      "SELECT * FROM waits WHERE run IN (SELECT value FROM json_each(?)) ORDER BY run, since, length(effect_id), effect_id",
    )
    .all(JSON.stringify([...waits.keys()]));
  for (const row of found) waits.get(row.run as number)?.push(waitOf(row));
  return rows.map((row) => listedRun(row, waits.get(row.run) as OpenWait[], movingOf(row)));
}
