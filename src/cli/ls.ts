import { isError, type ListedRun, nearest, type Runtime, type RunStatus } from "../index.ts";
import { type AddCommand, type Cli, nextCommand } from "./command.ts";
import { statusText } from "./explain-effect.ts";
import { moment } from "./moment.ts";
import { reading } from "./open-runtime.ts";
import { wrongUse } from "./problem.ts";

interface LsOptions {
  status?: string;
  workflow?: string;
  queue?: string;
  blocked?: boolean;
  limit: string;
}

const statuses: readonly RunStatus[] = ["running", "waiting", "completed", "failed", "cancelled"];

export const addLs: AddCommand = (program, act) => {
  program
    .command("ls")
    .description("list runs, newest first")
    .option("--status <status>", `only those ${statuses.join(", ")}`)
    .option("--workflow <id>", "only those of this workflow")
    .option("--queue <name>", "only those in this queue")
    .option("--blocked", "only those that no worker could go on with, quarantined ones included")
    .option("--limit <number>", "at most so many", "20")
    .addHelpText(
      "after",
      "\nExamples:\n  $ abstractruntime ls --status waiting\n  $ abstractruntime ls --blocked\n  $ abstractruntime ls --workflow approval --limit 100 --json",
    )
    .action(act(ls));
};

type Shown = ListedRun & { cancelling?: true; undoing?: true };

async function ls(cli: Cli, { status, workflow, queue, blocked, limit }: LsOptions): Promise<number> {
  const wanted = parseLimit(limit);
  if (status !== undefined) checkStatus(status);
  const { runs, more } = await reading(cli, async (runtime) => {
    const found: Shown[] = [];
    let next: string | undefined;
    do {
      const page = await runtime.list({
        limit: Math.min(1_000, wanted - found.length),
        ...(status === undefined ? {} : { status: status as RunStatus }),
        ...(workflow === undefined ? {} : { workflowId: workflow }),
        ...(queue === undefined ? {} : { queue }),
        ...(blocked ? { blocked } : {}),
        ...(next === undefined ? {} : { cursor: next }),
      });
      for (const run of page.runs) found.push({ ...run, ...(await endingOf(runtime, run)) });
      next = page.next;
    } while (next !== undefined && found.length < wanted);
    return { runs: found, more: next !== undefined };
  });
  const { terminal } = cli;
  if (cli.json) {
    terminal.json({ runs, more });
  } else if (runs.length === 0) {
    const all = status === undefined && workflow === undefined && queue === undefined && !blocked;
    terminal.note(
      all
        ? `There are no runs yet. Start one with \`${nextCommand(cli, "run", ["FILE"])}\`.`
        : `No runs like that. See all with \`${nextCommand(cli, "ls", [])}\`.`,
    );
  } else {
    const inQueues = runs.some((run) => run.queue !== undefined);
    const head = ["RUN", "WORKFLOW", "STATUS", "NODE", "WAITS FOR", ...(inQueues ? ["QUEUE"] : []), "UPDATED (UTC)"];
    terminal.table(
      head,
      runs.map((run) => rowOf(run, inQueues)),
      inQueues ? [1, 2, 3, 4, 5] : [1, 2, 3, 4],
    );
    const again = { status, workflow, queue, blocked: blocked ? (true as const) : undefined, limit: String(wanted * 10) };
    if (more) terminal.note(`There are more: ${nextCommand(cli, "ls", [], again)}`);
  }
  return 0;
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

function rowOf(run: Shown, inQueues: boolean): string[] {
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
    ...(inQueues ? [run.queue ?? ""] : []),
    moment(run.updatedAt).slice(0, 19),
  ];
}

export function parseLimit(text: string): number {
  const limit = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(limit) && limit >= 1) return limit;
  throw wrongUse("--limit", `--limit "${text}" is not a whole number from 1`, "Write it like --limit 100.");
}

/** @throws INVALID_OPTION */
export function checkStatus(status: string): void {
  if ((statuses as readonly string[]).includes(status)) return;
  const suggestion = nearest(status, statuses);
  throw wrongUse(
    "--status",
    `--status "${status}" is unknown (known: ${statuses.join(", ")})`,
    suggestion ? `Did you mean "${suggestion}"?` : "Use one of these.",
  );
}
