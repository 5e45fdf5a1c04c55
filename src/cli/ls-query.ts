/** What `ls` is asked for, as a query. */
import type { Command } from "commander";
import { type CountBy, nearest, type RunQuery, type RunStatus } from "../index.ts";
import { momentFrom } from "./moment.ts";
import { wrongUse } from "./problem.ts";

export interface LsOptions {
  status?: string;
  workflow?: string;
  workflowVersion?: string;
  queue?: string;
  tag?: string[];
  session?: string;
  actor?: string;
  waitKey?: string;
  reason?: string;
  parent?: string;
  createdAfter?: string;
  createdBefore?: string;
  updatedAfter?: string;
  updatedBefore?: string;
  dueAfter?: string;
  dueBefore?: string;
  var?: string[];
  blocked?: boolean;
  order?: string;
  limit: string;
  cursor?: string;
  all?: boolean;
  count?: string | true;
}

export const statuses: readonly RunStatus[] = ["running", "waiting", "completed", "failed", "cancelled"];
const reasons = ["event", "until", "user", "job", "subworkflow"] as const;
const orders = ["newest", "oldest", "updated", "waiting", "due"] as const;
const groups: Readonly<Record<string, CountBy>> = {
  status: "status",
  workflow: "workflowId",
  version: "version",
  queue: "queue",
  reason: "waitReason",
  tag: "tag",
  session: "sessionId",
  actor: "actorId",
};

const collect = (value: string, before: string[] = []): string[] => [...before, value];

export function addQueryOptions(command: Command): Command {
  return command
    .option("--status <status>", `only those ${statuses.join(", ")}`)
    .option("--workflow <id>", "only those of this workflow")
    .option("--workflow-version <version>", "only those of this version of their workflow")
    .option("--queue <name>", "only those in this queue")
    .option("--tag <tag>", "only those with this tag; of several, with all", collect)
    .option("--var <path=value>", "only those with this value of an indexed var; of several, with all", collect)
    .option("--session <id>", "only those of this session")
    .option("--actor <id>", "only those that this actor caused")
    .option("--parent <run>", "only those that this run started")
    .option("--reason <reason>", `only those that wait for: ${reasons.join(", ")}`)
    .option("--wait-key <key>", "only those that wait under this key; with --reason, one wait that has both")
    .option("--created-after <time>", "only those created at this time or later")
    .option("--created-before <time>", "only those created before this time")
    .option("--updated-after <time>", "only those changed at this time or later")
    .option("--updated-before <time>", "only those not changed since this time")
    .option("--due-after <time>", "only those that wake at this time or later")
    .option("--due-before <time>", "only those that wake before this time")
    .option("--blocked", "only those that no worker could go on with, quarantined ones included")
    .option(
      "--order <order>",
      "newest, oldest, updated (last changed first), waiting (longest first) or due (next first)",
      "newest",
    )
    .option("--limit <number>", "at most so many", "20")
    .option("--cursor <cursor>", "go on behind the page that said so")
    .option("--all", "all of them, however many")
    .option("--count [by]", `how many instead of which; by ${Object.keys(groups).join(", ")}`);
}

/** But for limit and cursor. @throws INVALID_OPTION */
export function queryOf(options: LsOptions, now: number): RunQuery {
  const {
    status,
    workflow,
    workflowVersion: version,
    queue,
    tag,
    session,
    actor,
    waitKey,
    reason,
    parent,
    blocked,
    order,
  } = options;
  if (status !== undefined) checkStatus(status);
  const given: { [Name in keyof RunQuery]: RunQuery[Name] | undefined } = {
    status: status as RunStatus | undefined,
    workflowId: workflow,
    version,
    queue,
    tags: tag,
    sessionId: session,
    actorId: actor,
    waitKey,
    waitReason: reason === undefined ? undefined : oneOf("--reason", reason, reasons),
    parentRunId: parent,
    createdAfter: momentOf("--created-after", options.createdAfter, now, "ago"),
    createdBefore: momentOf("--created-before", options.createdBefore, now, "ago"),
    updatedAfter: momentOf("--updated-after", options.updatedAfter, now, "ago"),
    updatedBefore: momentOf("--updated-before", options.updatedBefore, now, "ago"),
    dueAfter: momentOf("--due-after", options.dueAfter, now, "ahead"),
    dueBefore: momentOf("--due-before", options.dueBefore, now, "ahead"),
    vars: options.var && Object.fromEntries(options.var.map(varOf)),
    blocked: blocked || undefined,
    order: order === undefined ? undefined : oneOf("--order", order, orders),
  };
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as RunQuery;
}

/** Undefined for one count of all. @throws INVALID_OPTION */
export function groupOf(count: string | true): CountBy | undefined {
  return count === true ? undefined : groups[oneOf("--count", count, Object.keys(groups))];
}

/** @throws INVALID_OPTION */
export function checkStatus(status: string): void {
  oneOf("--status", status, statuses);
}

export function parseLimit(text: string): number {
  const limit = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(limit) && limit >= 1) return limit;
  throw wrongUse("--limit", `--limit "${text}" is not a whole number from 1`, "Write it like --limit 100.");
}

function oneOf<T extends string>(option: string, given: string, known: readonly T[]): T {
  if ((known as readonly string[]).includes(given)) return given as T;
  const suggestion = nearest(given, known);
  throw wrongUse(
    option,
    `${option} "${given}" is unknown (known: ${known.join(", ")})`,
    suggestion ? `Did you mean "${suggestion}"?` : "Use one of these.",
  );
}

function momentOf(option: string, text: string | undefined, now: number, way: "ago" | "ahead"): number | undefined {
  if (text === undefined) return undefined;
  const at = momentFrom(text, now, way);
  if (typeof at === "number") return at;
  const example = way === "ago" ? "2h for two hours ago" : "2h for in two hours";
  throw wrongUse(option, `${option} ${at}`, `Write it like 2026-01-31T09:00:00Z, 2026-01-31, or ${example}.`);
}

/** A value that is JSON is meant as such: 17 is a number, "17" in quotes a text. */
function varOf(text: string): [path: string, value: string | number | boolean] {
  const end = text.indexOf("=");
  if (end < 1) throw wrongUse("--var", `--var "${text}" is no path and value`, "Write it like --var order.id=17.");
  const [path, value] = [text.slice(0, end), text.slice(end + 1)];
  try {
    const parsed: unknown = JSON.parse(value);
    if (typeof parsed === "string" || typeof parsed === "number" || typeof parsed === "boolean") return [path, parsed];
  } catch {
    // A text as it stands.
  }
  return [path, value];
}
