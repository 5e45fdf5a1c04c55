import type { AddCommand, Cli } from "./command.ts";
import { explain, printExplanation } from "./explain.ts";
import { findRun } from "./find-run.ts";
import { reading } from "./open-runtime.ts";

export const addWhy: AddCommand = (program, act) => {
  program
    .command("why")
    .description("say what a run waits for, since when, what wakes it, and what to do")
    .argument("<run>", "id of the run, or its beginning")
    .addHelpText("after", "\nExamples:\n  $ abstractruntime why 3f2a\n  $ abstractruntime why 3f2a --json")
    .action(act(why));
};

async function why(cli: Cli, given: string): Promise<number> {
  const explanation = await reading(cli, async (runtime) => explain(cli, runtime, await findRun(runtime, given)));
  if (!cli.json) {
    printExplanation(cli.terminal, explanation);
    return 0;
  }
  const { run, summary, fields, next, since, holder } = explanation;
  const { runId, workflowId, status, paused, node, waits, wakeAt, blocked, error } = run;
  cli.terminal.json({
    runId,
    workflowId,
    status,
    paused,
    node,
    summary,
    since,
    wakeAt,
    waits,
    holder,
    blocked,
    error,
    fields: fields.filter(([name, value]) => name !== "" && value !== undefined),
    next,
  });
  return 0;
}
