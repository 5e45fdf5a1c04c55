import type { BudgetUse, Runtime, RunStatus } from "../../index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { explain } from "../explain.ts";
import { statusText } from "../explain-effect.ts";
import { findRun } from "../find-run.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";

export const addShow: AddCommand = (program, act) => {
  program
    .command("show")
    .description("show a run: where it stands, its vars, what it waits for, its output")
    .argument("<run>", "id of the run, or its beginning")
    .addHelpText("after", "\nExamples:\n  $ abstractruntime show 3f2a\n  $ abstractruntime show 3f2a --json")
    .action(act(show));
};

async function show(cli: Cli, given: string): Promise<number> {
  const { run, holder, fields, next, children, budgets } = await reading(cli, async (runtime) => {
    const runId = await findRun(runtime, given);
    const [children, budgets] = await Promise.all([countChildren(runtime, runId), runtime.budgets(runId)]);
    return { ...(await explain(cli, runtime, runId)), children, budgets };
  });
  const { terminal } = cli;
  if (cli.json) {
    terminal.json({ ...run, children, budgets });
    return 0;
  }
  const parts = Object.entries(children.byStatus).map(([status, runs]) => `${runs} ${status}`);
  terminal.line(`Run ${run.runId}`, "bold");
  terminal.fields([
    ["Workflow", `${run.workflowId} (version ${run.version})`],
    ["Status", statusText(run)],
    ["Node", `${run.node} (step ${run.step})`],
    ["Records", String(run.seq + 1)],
    ["Archived", run.archivedBefore === undefined ? undefined : `records before ${run.archivedBefore}`],
    ["Tags", run.tags.length === 0 ? undefined : run.tags.join(", ")],
    ["From", run.origin?.kind === "fork" ? `record ${run.origin.seq} of run ${run.origin.runId}` : undefined],
    ["Created", moment(run.createdAt)],
    ["Updated", moment(run.updatedAt)],
    ["Holder", holder],
    ["Queue", run.queue === undefined ? undefined : `${run.queue}${run.queueKey === undefined ? "" : ` (key ${run.queueKey})`}`],
    ["Priority", run.priority === 0 ? undefined : String(run.priority)],
    ["Retries", run.retries === 0 ? undefined : String(run.retries)],
    ["Cancelled", run.cancelling && `asked for${run.cancelling.reason === undefined ? "" : `: ${run.cancelling.reason}`}`],
    ["Undoing", run.undoing && (isEnded(run.status) ? "what it had done was undone" : "what it had done is being undone")],
    ...(run.undoFailures ?? []).map(({ effectId, type, error }): [string, string] => [
      "Not undone",
      `effect ${effectId}: ${type}: ${error.message}`,
    ]),
    ["Children", children.total === 0 ? undefined : `${children.total} (${parts.join(", ")})`],
    ...budgets.map((use): [string, string] => ["Budget", budgetText(use, run.runId)]),
    ["Parent", run.parentRunId],
    ["Actor", run.actorId],
    ["Session", run.sessionId],
  ]);
  // What `why` says of a run that has ended stands above and below.
  if (!isEnded(run.status)) {
    terminal.line();
    terminal.fields(fields);
    for (const step of next) terminal.line(`  Next: ${step}`, "green");
  }
  terminal.line();
  terminal.line("Vars", "bold");
  terminal.value(run.vars, "  ");
  if (run.output !== undefined) {
    terminal.line("Output", "bold");
    terminal.value(run.output, "  ");
  }
  if (run.error) {
    terminal.line("Error", "bold");
    terminal.block(run.error.stack ?? `${run.error.name}: ${run.error.message}`, "  ");
  }
  return 0;
}

function budgetText({ scope, name, used, limit }: BudgetUse, runId: string): string {
  return `${used} of ${limit} ${name}${scope === runId ? "" : ` (of run ${scope})`}`;
}

interface Children {
  total: number;
  byStatus: Partial<Record<RunStatus, number>>;
}

async function countChildren(runtime: Runtime, parentRunId: string): Promise<Children> {
  const counts = await runtime.count({ parentRunId }, { by: "status" });
  return {
    total: counts.reduce((sum, { count }) => sum + count, 0),
    byStatus: Object.fromEntries(counts.map(({ value, count }) => [value, count])),
  };
}

function isEnded(status: RunStatus): boolean {
  return status === "completed" || status === "failed" || status === "cancelled";
}
