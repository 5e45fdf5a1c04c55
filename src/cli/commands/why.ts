import type { AddCommand, Cli } from "../command.ts";
import { explain, printExplanation } from "../explain.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { loadWorkflowFile } from "../workflow-file.ts";

export const addWhy: AddCommand = (program, act) => {
  program
    .command("why")
    .description("say what a run waits for, since when, what wakes it, and what to do")
    .argument("<run>", "id of the run, or its beginning")
    .option("--file <file>", "workflow file, for what only the code says, such as how many attempts there may be")
    .addHelpText(
      "after",
      "\nExamples:\n  $ abstractruntime why 3f2a\n  $ abstractruntime why 3f2a --file approval.ts\n  $ abstractruntime why 3f2a --json",
    )
    .action(act(why));
};

async function why(cli: Cli, given: string, { file: path }: { file?: string }): Promise<number> {
  const file = path === undefined ? undefined : await loadWorkflowFile(path);
  const explanation = await reading(cli, async (runtime) => explain(cli, runtime, await findRun(runtime, given), file));
  if (!cli.json) {
    printExplanation(cli.terminal, explanation);
    return 0;
  }
  const { run, summary, fields, next, since, holder, holderIsDead, effects } = explanation;
  const { runId, workflowId, status, paused, node, waits, wakeAt, blocked, error, cancelling, undoing, undoFailures, queue } =
    run;
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
    effects: effects.map(({ id, type, phase, attempt, retryAt, failure }) => ({ id, type, phase, attempt, retryAt, failure })),
    holder,
    ...(holder === undefined ? {} : { holderIsDead }),
    queue,
    blocked,
    cancelling,
    undoing,
    undoFailures,
    error,
    fields: fields.filter(([name, value]) => name !== "" && value !== undefined),
    next,
  });
  return 0;
}
