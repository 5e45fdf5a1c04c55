import { parseJson, type Runtime, type Workflow } from "../../index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { driveHere, patienceMs } from "../drive-here.ts";
import { wrongUse } from "../problem.ts";
import { chooseWorkflow, loadWorkflowFile, type WorkflowFile } from "../workflow-file.ts";

interface RunOptions {
  vars?: string;
  budget?: string;
  workflow?: string;
  id?: string;
  wait?: boolean;
  interactive?: boolean;
}

export const addRun: AddCommand = (program, act) => {
  program
    .command("run")
    .description(
      "start a run of a workflow and drive it until it waits or ends; with --id of a run that exists, drive that one on",
    )
    .argument("<file>", "module (.ts, .js) that exports the workflow")
    .option("--vars <json>", "variables that the run begins with, as a JSON object (default: {})")
    .option("--budget <json>", "what the run and all that it starts may spend: tokens, usd, calls, wallMs (default: no limits)")
    .option("--workflow <id>", "which workflow, where the file exports several")
    .option("--id <run-id>", "id of the run; starting it twice finds the first (default: a new one)")
    .option("--wait", "stay until the run ends, whatever it waits for")
    .option("--interactive", "ask here, at once, when the run waits for a person")
    .addHelpText(
      "after",
      `
Without --wait the command leaves when nothing moves the run within ${patienceMs / 1_000} seconds; the run is then a row in the store.
Runs of the file's workflows that are due go on as well while the command runs. Queues are served as the file's export "queues" says;
without it, and where no other worker lives, their runs are driven one at a time.
Ctrl-C lets what is under way finish and hands the run back; a second one leaves at once. Nothing is lost by either.

Examples:
  $ abstractruntime run approval.ts --vars '{"topic":"Durability"}'
  $ abstractruntime run approval.ts --interactive
  $ abstractruntime run timer.ts --id 3f2a41d0-6c1e-4b8e-9c55-0d9f6f0d8c11 --wait`,
    )
    .action(act(run));
};

async function run(cli: Cli, path: string, options: RunOptions): Promise<number> {
  const vars = options.vars === undefined ? undefined : parseObject(options.vars);
  const budget = options.budget === undefined ? undefined : parseObject(options.budget, "--budget", '{"tokens":100000}');
  if (options.interactive && (cli.json || !cli.terminal.io.isTTY)) {
    throw wrongUse(
      "--interactive",
      "--interactive needs a terminal, and no --json",
      "Leave it out, and answer with `abstractruntime respond RUN ANSWER`.",
    );
  }
  const file = await loadWorkflowFile(path);
  const chosen = options.workflow === undefined && options.id !== undefined ? undefined : chooseWorkflow(file, options.workflow);
  return driveHere(cli, file, options, async (runtime) => {
    if (
      options.id !== undefined &&
      vars === undefined &&
      budget === undefined &&
      (await goesOn(runtime, file, options.id, chosen))
    )
      return options.id;
    const workflow = chosen ?? chooseWorkflow(file, undefined);
    const { runId } = await runtime.start(workflow, {
      ...(vars === undefined ? {} : { vars }),
      ...(budget === undefined ? {} : { budget }),
      ...(options.id === undefined ? {} : { runId: options.id }),
    });
    // At once, since what follows may take long.
    if (!cli.json) cli.terminal.note(`Run ${runId} of workflow "${workflow.id}"`, "dim");
    return runId;
  });
}

/** Whether the run exists, so that it only needs driving: the scheduler takes it when it is due. */
async function goesOn(runtime: Runtime, file: WorkflowFile, runId: string, chosen: Workflow | undefined): Promise<boolean> {
  const loaded = await runtime.store.load(runId);
  if (!loaded) return false;
  const { workflowId } = loaded.row;
  const fits = chosen ? chosen.id === workflowId : file.workflows.some(({ id }) => id === workflowId);
  if (!fits) {
    const known = file.workflows.map(({ id }) => id).join(", ");
    throw wrongUse(
      "--id",
      `run ${runId} is one of workflow "${workflowId}", and ${chosen ? `--workflow says "${chosen.id}"` : `${file.path} exports ${known}`}`,
      "Name the file that exports its workflow, or another --id.",
    );
  }
  return true;
}

/** @throws INVALID_OPTION */
export function parseObject(text: string, option = "--vars", example = '{"topic":"Durability"}'): object {
  const hint = `Write it as one word for the shell: ${option} '${example}'.`;
  let given: unknown;
  try {
    given = parseJson(text);
  } catch (error) {
    throw wrongUse(option, `${option} is not JSON: ${(error as Error).message}`, hint);
  }
  if (typeof given !== "object" || given === null || Array.isArray(given))
    throw wrongUse(option, `${option} is not a JSON object`, hint);
  return given;
}
