import { type ListedRun, type RunStatus, nearest } from "../index.ts";
import { type AddCommand, type Cli, nextCommand } from "./command.ts";
import { moment } from "./moment.ts";
import { reading } from "./open-runtime.ts";
import { wrongUse } from "./problem.ts";

interface LsOptions {
  status?: string;
  workflow?: string;
  limit: string;
}

const statuses: readonly RunStatus[] = ["running", "waiting", "completed", "failed", "cancelled"];

export const addLs: AddCommand = (program, act) => {
  program
    .command("ls")
    .description("list runs, newest first")
    .option("--status <status>", `only those ${statuses.join(", ")}`)
    .option("--workflow <id>", "only those of this workflow")
    .option("--limit <number>", "at most so many", "20")
    .addHelpText(
      "after",
      "\nExamples:\n  $ abstractruntime ls --status waiting\n  $ abstractruntime ls --workflow approval --limit 100 --json",
    )
    .action(act(ls));
};

async function ls(cli: Cli, { status, workflow, limit }: LsOptions): Promise<number> {
  const wanted = parseLimit(limit);
  if (status !== undefined) checkStatus(status);
  const { runs, more } = await reading(cli, async (runtime) => {
    const found: ListedRun[] = [];
    let next: string | undefined;
    do {
      const page = await runtime.list({
        limit: Math.min(1_000, wanted - found.length),
        ...(status === undefined ? {} : { status: status as RunStatus }),
        ...(workflow === undefined ? {} : { workflowId: workflow }),
        ...(next === undefined ? {} : { cursor: next }),
      });
      found.push(...page.runs);
      next = page.next;
    } while (next !== undefined && found.length < wanted);
    return { runs: found, more: next !== undefined };
  });
  const { terminal } = cli;
  if (cli.json) {
    terminal.json({ runs, more });
  } else if (runs.length === 0) {
    const all = status === undefined && workflow === undefined;
    terminal.note(
      all
        ? `There are no runs yet. Start one with \`${nextCommand(cli, "run", ["FILE"])}\`.`
        : `No runs like that. See all with \`${nextCommand(cli, "ls", [])}\`.`,
    );
  } else {
    terminal.table(["RUN", "WORKFLOW", "STATUS", "NODE", "WAITS FOR", "UPDATED (UTC)"], runs.map(rowOf), [1, 2, 3, 4]);
    if (more) terminal.note(`There are more: ${nextCommand(cli, "ls", [], { status, workflow, limit: String(wanted * 10) })}`);
  }
  return 0;
}

function rowOf(run: ListedRun): string[] {
  const beside = [
    ...(run.paused ? ["paused"] : []),
    ...(run.blocked ? [`${run.blocked.quarantine ? "quarantined" : "blocked"}: ${run.blocked.code}`] : []),
  ];
  const waits = run.waits.map(({ reason, waitKey, until }) =>
    reason === "until" && until !== undefined ? `until ${moment(until)}` : reason === "event" ? `event ${waitKey}` : reason,
  );
  return [
    run.runId,
    run.workflowId,
    beside.length > 0 ? `${run.status} (${beside.join(", ")})` : run.status,
    run.node,
    waits.join(", ") || (run.error ? (run.error.code ?? run.error.message) : ""),
    moment(run.updatedAt).slice(0, 19),
  ];
}

function parseLimit(text: string): number {
  const limit = Number(text);
  if (/^\d+$/.test(text) && Number.isSafeInteger(limit) && limit >= 1) return limit;
  throw wrongUse("--limit", `--limit "${text}" is not a whole number from 1`, "Write it like --limit 100.");
}

function checkStatus(status: string): void {
  if ((statuses as readonly string[]).includes(status)) return;
  const suggestion = nearest(status, statuses);
  throw wrongUse(
    "--status",
    `--status "${status}" is unknown (known: ${statuses.join(", ")})`,
    suggestion ? `Did you mean "${suggestion}"?` : "Use one of these.",
  );
}
