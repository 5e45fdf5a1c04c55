import { type Run, nearest } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { eventPayload } from "../payload.ts";

export const addSignal: AddCommand = (program, act) => {
  program
    .command("signal")
    .description("send an event to one run, which takes it now or when it waits for it")
    .argument("<run>", "id of the run, or its beginning")
    .argument("<key>", "name of the event")
    .argument("[payload]", "JSON, or text (default: null)")
    .option("--id <id>", "stands for this event, so that sending it again does nothing (default: a new one)")
    .addHelpText(
      "after",
      `
The event is stored, and taken once. The next worker with the workflow's code goes on with the run.

Examples:
  $ abstractruntime signal 3f2a payment
  $ abstractruntime signal 3f2a payment '{"amount":5}' --id invoice-77`,
    )
    .action(act(signal));
};

async function signal(cli: Cli, given: string, key: string, typed: string | undefined, { id }: { id?: string }): Promise<number> {
  const payload = eventPayload(typed);
  return reading(cli, async (runtime) => {
    const runId = await findRun(runtime, given);
    const run = await runtime.get(runId);
    const { duplicate } = await runtime.signal(runId, key, payload, id === undefined ? {} : { id });
    const { terminal } = cli;
    const awaited = eventsOf(run).includes(key);
    const next = nextCommand(cli, "run", ["FILE"], { id: runId });
    if (cli.json) {
      terminal.json({ runId, key, duplicate, awaited, next });
      return 0;
    }
    terminal.line(
      duplicate ? `Run ${runId} has had this event: nothing was sent.` : `The event "${key}" is stored for run ${runId}.`,
      "green",
    );
    if (duplicate) return 0;
    if (awaited) {
      terminal.line(`A worker with the code of workflow "${run.workflowId}" goes on with it. To go on here: ${next}`);
      return 0;
    }
    const near = nearest(key, eventsOf(run));
    terminal.line(
      `The run does not wait for it now, and keeps it until it does.${near === undefined ? "" : ` It waits for "${near}": did you mean that?`}`,
    );
    return 0;
  });
}

function eventsOf({ waits }: Run): string[] {
  return waits.filter(({ reason }) => reason === "event").map(({ waitKey }) => waitKey);
}
