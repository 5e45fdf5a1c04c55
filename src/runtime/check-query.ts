/** What runs are asked for by, checked at the door: a slip must not find nothing, or everything. */
import { checkTags } from "../kernel/begin.ts";
import { type AbstractRuntimeError, checkOptions, invalidOption } from "../kernel/errors.ts";
import { nearest } from "../kernel/nearest.ts";
import { isObject } from "../kernel/json.ts";
import { longestIndexed, type RunStatus, type WaitReason } from "../kernel/run.ts";
import type { CountBy, RunQuery } from "../kernel/query.ts";
import { checkWhole } from "./options.ts";

const statuses: readonly RunStatus[] = ["running", "waiting", "completed", "failed", "cancelled"];
const reasons: readonly WaitReason[] = ["event", "until", "user", "job", "subworkflow"];
const orders = ["newest", "oldest", "updated", "waiting", "due"] as const;
const groups: readonly CountBy[] = ["status", "workflowId", "version", "queue", "waitReason", "tag", "sessionId", "actorId"];
const texts = ["idPrefix", "version", "queue", "waitKey", "parentRunId", "sessionId", "actorId", "holder", "cursor"] as const;
const spans = ["created", "updated", "due"] as const;
const mostListed = 1_000;

const names: readonly string[] = [
  ...texts,
  ...spans.flatMap((span) => [`${span}After`, `${span}Before`]),
  "status",
  "workflowId",
  "waitReason",
  "tags",
  "vars",
  "blocked",
  "order",
  "limit",
];

/** What only a page has. */
const ofPages: readonly string[] = ["order", "limit", "cursor"];

/** @param of Whether one page is asked for, or every run. @throws INVALID_OPTION */
export function checkQuery(query: RunQuery, where: string, of: "page" | "all" = "page"): void {
  checkOptions(query, of === "page" ? names : names.filter((name) => !ofPages.includes(name)), where);
  for (const option of texts) {
    const value: unknown = query[option];
    if (value !== undefined && !isText(value)) throw invalid(option, `${option} is a well-formed text`);
  }
  for (const span of spans) checkSpan(span, query[`${span}After`], query[`${span}Before`]);
  const { status, workflowId, waitReason, vars, blocked, order } = query;
  for (const one of listOf("status", status)) checkOneOf("status", one, statuses);
  for (const one of listOf("workflowId", workflowId))
    if (!isText(one)) throw invalid("workflowId", "workflowId is a well-formed text, or a list of them");
  if (waitReason !== undefined) checkOneOf("waitReason", waitReason, reasons);
  if (order !== undefined) checkOneOf("order", order, orders);
  if (blocked !== undefined && typeof blocked !== "boolean") throw invalid("blocked", "blocked is true or false");
  checkTags(query.tags);
  if (vars !== undefined) checkVars(vars);
  checkWhole("limit", query.limit);
}

/** @throws INVALID_OPTION */
export function checkCountBy(by: unknown): void {
  if (by !== undefined) checkOneOf("by", by, groups);
}

function checkSpan(span: (typeof spans)[number], after: unknown, before: unknown): void {
  for (const [option, at] of [[`${span}After`, after] as const, [`${span}Before`, before] as const]) {
    if (at === undefined || Number.isFinite(at)) continue;
    const given = at instanceof Date ? ": a Date has it as getTime()" : "";
    throw invalid(option, `${option} is a moment, in milliseconds since 1970${given}`);
  }
  if (after !== undefined && before !== undefined && (after as number) >= (before as number))
    throw invalid(`${span}Before`, `${span}Before is not after ${span}After, so that no run can be found`);
}

function checkVars(vars: unknown): void {
  if (!isObject(vars)) throw invalid("vars", "vars is an object: paths that the workflow names in `index`, and their values");
  for (const [path, value] of Object.entries(vars)) {
    const option = `vars["${path.slice(0, 64)}"]`;
    const isScalar = typeof value === "string" || typeof value === "boolean" || Number.isFinite(value);
    if (!isScalar) throw invalid(option, `${option} is a text, a number, true or false: nothing else is indexed`);
    if (typeof value === "string" && value.length > longestIndexed)
      throw invalid(option, `${option} is longer than ${longestIndexed} characters, and such texts are not indexed`);
  }
}

/** Half of a surrogate pair is no character: one store would find it within others, and another would not. */
function isText(given: unknown): boolean {
  return typeof given === "string" && given.isWellFormed();
}

function listOf(option: string, given: unknown): readonly unknown[] {
  const list: readonly unknown[] = given === undefined ? [] : Array.isArray(given) ? given : [given];
  if (list.length > mostListed) throw invalid(option, `${option} lists more than ${mostListed} values`);
  return list;
}

function checkOneOf(option: string, given: unknown, known: readonly string[]): void {
  if (known.includes(given as string)) return;
  const suggestion = nearest(String(given), known);
  throw invalid(option, `${option} is one of ${known.join(", ")}, not "${String(given).slice(0, 64)}"`, suggestion);
}

function invalid(option: string, problem: string, suggestion?: string): AbstractRuntimeError<"INVALID_OPTION"> {
  return invalidOption(option, problem, suggestion);
}
