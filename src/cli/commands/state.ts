import type { AddCommand, Cli } from "../command.ts";
import { statusText } from "../explain-effect.ts";
import { findRun } from "../find-run.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import { parsePoint } from "../run-point.ts";

export const addState: AddCommand = (program, act) => {
  program
    .command("state")
    .description("show a run as it was after a record, or at a time")
    .argument("<run>", "id of the run, or its beginning")
    .option(
      "--at <seq|time>",
      "number of a record, or a time with its zone, such as 2026-01-31T09:00:00Z (default: the last record)",
    )
    .addHelpText(
      "after",
      "\nExamples:\n  $ abstractruntime state 3f2a --at 12\n  $ abstractruntime state 3f2a --at 2026-01-31T09:00:00Z --json",
    )
    .action(act(state));
};

async function state(cli: Cli, given: string, { at }: { at?: string }): Promise<number> {
  const run = await reading(cli, async (runtime) => {
    const runId = await findRun(runtime, given);
    return runtime.stateAt(runId, at === undefined ? (await runtime.get(runId)).seq : parsePoint(at));
  });
  const { terminal } = cli;
  if (cli.json) {
    terminal.json(run);
    return 0;
  }
  terminal.line(`Run ${run.runId} after record ${run.seq}`, "bold");
  terminal.fields([
    ["At", moment(run.updatedAt)],
    ["Workflow", `${run.workflowId} (version ${run.version})`],
    ["Status", statusText(run)],
    ["Node", `${run.node} (step ${run.step})`],
    ...run.waits.map(({ reason, waitKey, prompt }): [string, string] => ["Waits for", `${reason}: ${prompt ?? waitKey}`]),
  ]);
  terminal.line("Vars", "bold");
  terminal.value(run.vars, "  ");
  if (run.output !== undefined) {
    terminal.line("Output", "bold");
    terminal.value(run.output, "  ");
  }
  if (run.error) terminal.fields([["Error", `${run.error.code ?? run.error.name}: ${run.error.message}`]]);
  return 0;
}
