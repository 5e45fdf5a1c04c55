/**
 * What each filter of a query means in SQL: a condition on a row of `runs`, and the sources, each a search of one index, that
 * together hold every run which it lets through.
 */
import type { RunQuery } from "../../kernel/query.ts";
import { type Order, isByCreation } from "../paging.ts";
import { scalarText } from "./indexed.ts";
import { behind } from "../prefix.ts";

export type Value = string | number;

export interface Condition {
  sql: string;
  values: readonly Value[];
}

/** A select of run numbers, as `run`; where it is in the order of a moment, of that moment too, as `at`. */
export interface Source extends Condition {
  /** A run may come more than once. */
  repeats?: true;
}

export interface Filter {
  condition: Condition;
  /** Together they hold each run once. Undefined where there is no index. */
  sources?: readonly Source[];
  /** What its sources are in the order of, each for itself. */
  inOrderOf?: "creation" | "updated" | "due";
  /** Of a span of creation. */
  isSpan?: true;
}

/** A list of values has a source for each, so that each is in order. For longer ones it is left to other filters to find the runs. */
const mostSources = 16;

/** Those first of which a value is likely to be rarer: where many runs fit each, the first one finds them. */
export function filtersOf(query: RunQuery): Filter[] {
  const filters: (Filter | undefined)[] = [
    ...Object.entries(query.vars ?? {}).map(([path, value]) => ofVar(path, scalarText(value))),
    ...(query.tags ?? []).map(ofTag),
    query.waitKey === undefined ? undefined : ofWait(query.waitKey, query.waitReason),
    ofColumn("parent_run_id", "runs_parent", query.parentRunId),
    ofColumn("session_id", "runs_session", query.sessionId),
    ofColumn("worker_id", "runs_held", query.holder),
    query.idPrefix ? ofPrefix(query.idPrefix) : undefined,
    query.blocked ? blocked : undefined,
    ofColumn("actor_id", "runs_actor", query.actorId),
    query.waitKey === undefined && query.waitReason !== undefined ? ofReason(query.waitReason) : undefined,
    ofColumn("queue", "runs_queue", query.queue),
    ofColumn("workflow_id", "runs_workflow", query.workflowId),
    ofColumn("status", "runs_status", query.status),
    ofRange("due", query.dueAfter, query.dueBefore),
    ofRange("updated", query.updatedAfter, query.updatedBefore),
    ofRange("created", query.createdAfter, query.createdBefore),
    query.version === undefined ? undefined : { condition: { sql: "runs.version = ?", values: [query.version] } },
    query.blocked === false ? { condition: { sql: "runs.blocked IS NULL", values: [] } } : undefined,
  ];
  return filters.filter((filter) => filter !== undefined);
}

/** All runs that have a place in an order, in that order. Undefined: the table itself is. */
export function sourcesOf(order: Order): readonly Source[] | undefined {
  if (isByCreation(order)) return undefined;
  if (order === "waiting") return [firstWaits];
  return rangeSources(order as Moment, between(columns[order as Moment], undefined, undefined));
}

/** One wait for each run: the one that began first. */
const firstWaits: Source = {
  sql: `SELECT run, since AS at FROM waits INDEXED BY waits_since WHERE NOT EXISTS (
    SELECT 1 FROM waits AS earlier
    WHERE earlier.run = waits.run AND (earlier.since, earlier.effect_id) < (waits.since, waits.effect_id))`,
  values: [],
};

function ofColumn(column: string, index: string, wanted: string | readonly string[] | undefined): Filter | undefined {
  if (wanted === undefined) return undefined;
  const values = [...new Set([wanted].flat())];
  const sql = `SELECT run FROM runs INDEXED BY ${index} WHERE ${column} = ?`;
  return {
    condition: { sql: `runs.${column} IN (${values.map(() => "?").join(", ")})`, values },
    ...(values.length > mostSources ? {} : { sources: values.map((value) => ({ sql, values: [value] })), inOrderOf: "creation" }),
  };
}

function ofVar(path: string, text: string): Filter {
  const values = [path, text];
  return {
    condition: { sql: "EXISTS (SELECT 1 FROM run_vars WHERE run = runs.run AND path = ? AND value = ?)", values },
    sources: [{ sql: "SELECT run FROM run_vars INDEXED BY run_vars_value WHERE path = ? AND value = ?", values }],
    inOrderOf: "creation",
  };
}

function ofTag(tag: string): Filter {
  const values = [tag];
  return {
    condition: { sql: "EXISTS (SELECT 1 FROM run_tags WHERE run = runs.run AND tag = ?)", values },
    sources: [{ sql: "SELECT run FROM run_tags INDEXED BY run_tags_tag WHERE tag = ?", values }],
    inOrderOf: "creation",
  };
}

/** One wait has both. */
function ofWait(key: string, reason: string | undefined): Filter {
  const fits = `wait_key = ?${reason === undefined ? "" : " AND reason = ?"}`;
  const values = reason === undefined ? [key] : [key, reason];
  return {
    condition: { sql: `EXISTS (SELECT 1 FROM waits INDEXED BY waits_key WHERE ${fits} AND run = runs.run)`, values },
    sources: [{ sql: `SELECT run FROM waits INDEXED BY waits_key WHERE ${fits}`, values, repeats: true }],
    inOrderOf: "creation",
  };
}

function ofReason(reason: string): Filter {
  const values = [reason];
  return {
    condition: { sql: "EXISTS (SELECT 1 FROM waits INDEXED BY waits_reason WHERE reason = ? AND run = runs.run)", values },
    sources: [{ sql: "SELECT run FROM waits INDEXED BY waits_reason WHERE reason = ?", values, repeats: true }],
    inOrderOf: "creation",
  };
}

const blocked: Filter = {
  condition: { sql: "runs.blocked IS NOT NULL", values: [] },
  sources: [{ sql: "SELECT run FROM runs INDEXED BY runs_blocked WHERE blocked IS NOT NULL", values: [] }],
  inOrderOf: "creation",
};

function ofPrefix(prefix: string): Filter {
  const { sql, values } = between("run_id", prefix, behind(prefix));
  return {
    condition: { sql: sql.replaceAll("run_id", "runs.run_id"), values },
    sources: [{ sql: `SELECT run FROM runs INDEXED BY sqlite_autoindex_runs_1 WHERE ${sql}`, values }],
  };
}

type Moment = "created" | "updated" | "due";

const columns: Record<Moment, string> = { created: "created_at", updated: "updated_at", due: "wake_at" };

/** By a moment of the row. */
function ofRange(moment: Moment, after: number | undefined, before: number | undefined): Filter | undefined {
  if (after === undefined && before === undefined) return undefined;
  const range = between(columns[moment], after, before);
  const inRows = range.sql.replaceAll(columns[moment], `runs.${columns[moment]}`);
  return {
    condition: { ...range, sql: moment === "due" ? `runs.worker_id IS NULL AND ${inRows}` : inRows },
    sources: rangeSources(moment, range),
    ...(moment === "created" ? { isSpan: true } : { inOrderOf: moment }),
  };
}

/**
 * A run that is held changes at each step, so it is not in the index of changes (an entry would be written again each time) but among
 * the runs that are held, which are few; and it need not say when it wakes, so it is never due.
 */
function rangeSources(moment: Moment, { sql, values }: Condition): Source[] {
  const from = (index: string, whose: string): Source => ({
    sql: `SELECT run, ${columns[moment]} AS at FROM runs INDEXED BY ${index} WHERE ${[whose, sql].filter(Boolean).join(" AND ")}`,
    values,
  });
  if (moment === "created") return [from("runs_created", "")];
  if (moment === "due") return [from("runs_wake", "worker_id IS NULL AND wake_at IS NOT NULL")];
  return [from("runs_updated", "worker_id IS NULL"), from("runs_held", "worker_id IS NOT NULL")];
}

function between(column: string, from: Value | undefined, to: Value | undefined): Condition {
  const [least, below] = [from === undefined ? [] : [from], to === undefined ? [] : [to]];
  const sql = [...least.map(() => `${column} >= ?`), ...below.map(() => `${column} < ?`)].join(" AND ");
  return { sql, values: [...least, ...below] };
}
