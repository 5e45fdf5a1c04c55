import type { AddCommand, Cli } from "./command.ts";
import { explain } from "./explain.ts";
import { findRun } from "./find-run.ts";
import { moment } from "./moment.ts";
import { reading } from "./open-runtime.ts";

export const addShow: AddCommand = (program, act) => {
  program
    .command("show")
    .description("show a run: where it stands, its vars, what it waits for, its output")
    .argument("<run>", "id of the run, or its beginning")
    .addHelpText("after", "\nExamples:\n  $ abstractruntime show 3f2a\n  $ abstractruntime show 3f2a --json")
    .action(act(show));
};

async function show(cli: Cli, given: string): Promise<number> {
  const { run, holder, fields, next } = await reading(cli, async (runtime) =>
    explain(cli, runtime, await findRun(runtime, given)),
  );
  const { terminal } = cli;
  if (cli.json) {
    terminal.json(run);
    return 0;
  }
  terminal.line(`Run ${run.runId}`, "bold");
  terminal.fields([
    ["Workflow", `${run.workflowId} (version ${run.version})`],
    ["Status", run.paused ? `${run.status} (paused)` : run.status],
    ["Node", `${run.node} (step ${run.step})`],
    ["Records", String(run.seq + 1)],
    ["Created", moment(run.createdAt)],
    ["Updated", moment(run.updatedAt)],
    ["Holder", holder],
    ["Parent", run.parentRunId],
    ["Actor", run.actorId],
    ["Session", run.sessionId],
  ]);
  // What `why` says of a run that has ended stands above and below.
  if (run.status === "running" || run.status === "waiting") {
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
