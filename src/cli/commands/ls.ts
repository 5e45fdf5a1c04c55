import { isError, type ListedRun, type Runtime } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { statusText } from "../explain-effect.ts";
import { addQueryOptions, groupOf, type LsOptions, parseLimit, queryOf } from "../ls-query.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";

export const addLs: AddCommand = (program, act) => {
  addQueryOptions(program.command("ls").description("list runs, newest first, or count them"))
    .addHelpText(
      "after",
      `
A TIME is a day or moment in ISO 8601 form, or a span: 2h is two hours ago, and of --due-... in two hours. Units: ms, s, m, h, d, w.
A var is found by where its workflow names its path in \`index\`. 17 is a number; for the text write --var 'order.id="17"'.

Examples:
  $ abstractruntime ls --reason user --order waiting
  $ abstractruntime ls --status failed --created-after 1d --count workflow
  $ abstractruntime ls --tag vip --var order.id=17 --json
  $ abstractruntime ls --blocked`,
    )
    .action(act(ls));
};

type Shown = ListedRun & { cancelling?: true; undoing?: true };

async function ls(cli: Cli, options: LsOptions): Promise<number> {
  const now = Date.now();
  const query = queryOf(options, now);
  if (options.count !== undefined) return count(cli, options, options.count);
  const { cursor, all } = options;
  const wanted = all ? Number.POSITIVE_INFINITY : parseLimit(options.limit);
  const { runs, next } = await reading(cli, async (runtime) => {
    const found: Shown[] = [];
    let next = cursor;
    do {
      const limit = Math.min(1_000, wanted - found.length);
      const page = await runtime.list({ ...query, limit, ...(next === undefined ? {} : { cursor: next }) });
      for (const run of page.runs) found.push({ ...run, ...(await endingOf(runtime, run)) });
      next = page.next;
    } while (next !== undefined && found.length < wanted);
    return { runs: found, next };
  });
  const { terminal } = cli;
  if (cli.json) {
    terminal.json({ runs, more: next !== undefined, ...(next === undefined ? {} : { next }) });
  } else if (runs.length === 0) {
    tellNone(cli, options);
  } else {
    const inQueues = runs.some((run) => run.queue !== undefined);
    const isTagged = runs.some((run) => run.tags !== undefined);
    const [column, at] = lastColumn(options);
    const head = [
      "RUN",
      "WORKFLOW",
      "STATUS",
      "NODE",
      "WAITS FOR",
      ...(inQueues ? ["QUEUE"] : []),
      ...(isTagged ? ["TAGS"] : []),
      column,
    ];
    const rows = runs.map((run) => [
      ...rowOf(run),
      ...(inQueues ? [run.queue ?? ""] : []),
      ...(isTagged ? [run.tags?.join(", ") ?? ""] : []),
      moment(at(run) ?? 0).slice(0, 19),
    ]);
    terminal.table(head, rows, head.map((_, i) => i).slice(1, -1));
    if (next !== undefined)
      terminal.note(`There are more: ${nextCommand(cli, "ls", [], { ...again(options, now), cursor: next })}`);
  }
  return 0;
}

async function count(cli: Cli, options: LsOptions, wanted: string | true): Promise<number> {
  const { terminal } = cli;
  const by = groupOf(wanted);
  if (options.cursor !== undefined) throw wrongUse("--cursor", "--count has no pages", "Leave --cursor out.");
  const query = queryOf(options, Date.now());
  if (by === undefined) {
    const found = await reading(cli, (runtime) => runtime.count(query));
    if (cli.json) terminal.json({ count: found });
    else terminal.line(String(found));
    return 0;
  }
  const counts = await reading(cli, (runtime) => runtime.count(query, { by }));
  if (cli.json) terminal.json({ by, counts });
  else if (counts.length === 0) tellNone(cli, options);
  else {
    const rows = counts.map(({ value, count }) => [value ?? "(none)", String(count)]);
    terminal.table([String(wanted).toUpperCase(), "RUNS"], rows, [0]);
  }
  return 0;
}

function tellNone(cli: Cli, options: LsOptions): void {
  const { limit: _, order: __, all: ___, count: ____, ...filters } = options;
  const { terminal } = cli;
  if (Object.keys(filters).length === 0)
    return terminal.note(`There are no runs yet. Start one with \`${nextCommand(cli, "run", ["FILE"])}\`.`);
  terminal.note(`No runs like that. See all with \`${nextCommand(cli, "ls", [])}\`.`);
  if (options.var)
    terminal.note("Runs are found by vars that their workflow names in `index`, and that are a text, a number, true or false.");
}

/** The moment that the order is about. */
function lastColumn({ order }: LsOptions): [head: string, at: (run: ListedRun) => number | null] {
  if (order === "due") return ["DUE (UTC)", ({ wakeAt }) => wakeAt];
  if (order === "waiting") return ["WAITS SINCE (UTC)", ({ waits }) => Math.min(...waits.map(({ since }) => since))];
  return ["UPDATED (UTC)", ({ updatedAt }) => updatedAt];
}

/** The same options for the next page. A span would mean another moment then. */
function again(options: LsOptions, now: number): Record<string, string | readonly string[] | true | undefined> {
  const { createdAfter, createdBefore, updatedAfter, updatedBefore, dueAfter, dueBefore } = queryOf(options, now);
  const iso = (at: number | undefined): string | undefined => (at === undefined ? undefined : new Date(at).toISOString());
  return {
    status: options.status,
    workflow: options.workflow,
    "workflow-version": options.workflowVersion,
    queue: options.queue,
    tag: options.tag,
    var: options.var,
    session: options.session,
    actor: options.actor,
    parent: options.parent,
    reason: options.reason,
    "wait-key": options.waitKey,
    "created-after": iso(createdAfter),
    "created-before": iso(createdBefore),
    "updated-after": iso(updatedAfter),
    "updated-before": iso(updatedBefore),
    "due-after": iso(dueAfter),
    "due-before": iso(dueBefore),
    blocked: options.blocked ? true : undefined,
    order: options.order === "newest" ? undefined : options.order,
    limit: options.limit === "20" ? undefined : options.limit,
  };
}

/** Stands in the run's state alone, which is read of those that are held, due or blocked: most of those that are about to end are. */
async function endingOf(
  runtime: Runtime,
  { runId, status, holder, wakeAt, blocked }: ListedRun,
): Promise<Pick<Shown, "cancelling" | "undoing">> {
  if (status !== "running" && status !== "waiting") return {};
  if (holder === undefined && !blocked && (wakeAt === null || wakeAt > Date.now())) return {};
  try {
    const { cancelling, undoing } = await runtime.get(runId);
    return { ...(cancelling ? { cancelling: true } : {}), ...(undoing ? { undoing: true } : {}) };
  } catch (error) {
    // A damaged run is listed with what can be said of it.
    if (isError(error, "RECORD_CORRUPT") || isError(error, "FORMAT_NEWER") || isError(error, "RUN_NOT_FOUND")) return {};
    throw error;
  }
}

function rowOf(run: Shown): string[] {
  const waits = run.waits.map(({ reason, waitKey, until }) =>
    reason === "until" && until !== undefined ? `until ${moment(until)}` : reason === "event" ? `event ${waitKey}` : reason,
  );
  const { cancelling, undoing, ...rest } = run;
  return [
    run.runId,
    run.workflowId,
    statusText({ ...rest, ...(cancelling ? { cancelling: {} } : {}), ...(undoing ? { undoing: {} } : {}) }),
    run.node,
    waits.join(", ") || (run.error ? (run.error.code ?? run.error.message) : ""),
  ];
}
