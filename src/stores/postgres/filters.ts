/** What each filter of a query means in SQL: a condition on a row of `runs`, called `r`. Which index finds the runs is for the planner. */
import type { RunQuery } from "../../kernel/query.ts";
import { arrayOf, encode } from "./encode.ts";
import { behind } from "../prefix.ts";

/** Conditions, and the values that stand in them. */
export class Filter {
  readonly values: unknown[] = [];
  readonly #conditions: string[] = [];

  /** The place of a value in the statement. */
  value(value: string | number): string {
    this.values.push(typeof value === "string" ? encode(value) : value);
    return `$${this.values.length}`;
  }

  list(values: readonly string[]): string {
    this.values.push(arrayOf(values));
    return `$${this.values.length}`;
  }

  is(condition: string): void {
    this.#conditions.push(condition);
  }

  /** Equal to a value, or to one of several. */
  equal(column: string, wanted: string | readonly string[] | undefined): void {
    if (wanted === undefined) return;
    this.is(typeof wanted === "string" ? `${column} = ${this.value(wanted)}` : `${column} = ANY (${this.list(wanted)}::text[])`);
  }

  between(column: string, after: number | undefined, before: number | undefined): void {
    if (after !== undefined) this.is(`${column} >= ${this.value(whole(after))}`);
    if (before !== undefined) this.is(`${column} < ${this.value(whole(before))}`);
  }

  where(...also: readonly string[]): string {
    const all = [...this.#conditions, ...also.filter((condition) => condition !== "")];
    return all.length > 0 ? `WHERE ${all.join(" AND ")}` : "";
  }
}

/** Where whole moments from this one on begin, as a number that the database has. */
function whole(moment: number): number {
  return Math.max(Number.MIN_SAFE_INTEGER, Math.min(Math.ceil(moment), Number.MAX_SAFE_INTEGER));
}

/** As its index has it. */
export const wakesAt = "(r.wake_at + 0)";

export function filterOf(query: RunQuery): Filter {
  const filter = new Filter();
  for (const [path, value] of Object.entries(query.vars ?? {}))
    filter.is(
      `EXISTS (SELECT FROM ~run_vars v WHERE v.run = r.run AND v.path = ${filter.value(path)}
        AND v.value = ${filter.value(JSON.stringify(value))})`,
    );
  for (const tag of query.tags ?? [])
    filter.is(`EXISTS (SELECT FROM ~run_tags t WHERE t.run = r.run AND t.tag = ${filter.value(tag)})`);
  const { waitKey, waitReason, idPrefix } = query;
  // One wait has both.
  const ofWait = [
    waitKey === undefined ? "" : ` AND w.wait_key = ${filter.value(waitKey)}`,
    waitReason === undefined ? "" : ` AND w.reason = ${filter.value(waitReason)}`,
  ].join("");
  if (ofWait !== "") filter.is(`EXISTS (SELECT FROM ~waits w WHERE w.run = r.run${ofWait})`);
  if (idPrefix) {
    filter.is(`r.run_id >= ${filter.value(idPrefix)}`);
    const end = behind(encode(idPrefix));
    if (end !== undefined) filter.is(`r.run_id < ${filter.value(end)}`);
  }
  filter.equal("r.status", query.status);
  filter.equal("r.workflow_id", query.workflowId);
  filter.equal("r.version", query.version);
  filter.equal("r.queue", query.queue);
  filter.equal("r.parent_run_id", query.parentRunId);
  filter.equal("r.session_id", query.sessionId);
  filter.equal("r.actor_id", query.actorId);
  filter.equal("r.worker_id", query.holder);
  filter.between("r.created_at", query.createdAfter, query.createdBefore);
  filter.between("r.updated_at", query.updatedAfter, query.updatedBefore);
  filter.between(wakesAt, query.dueAfter, query.dueBefore);
  // A run that is held need not say when it wakes.
  if (query.dueAfter !== undefined || query.dueBefore !== undefined) filter.is("r.worker_id IS NULL AND r.wake_at IS NOT NULL");
  if (query.blocked !== undefined) filter.is(query.blocked ? "r.blocked IS NOT NULL" : "r.blocked IS NULL");
  return filter;
}
