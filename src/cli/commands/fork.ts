import type { ForkOptions, Runtime } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { driveHere } from "../drive-here.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { parseObject } from "./run.ts";
import { parseSeq } from "../run-point.ts";
import { loadWorkflowFile } from "../workflow-file.ts";

/** What a new run made of another one is given, here and in `snapshot restore`. */
export interface ForkFlags {
  vars?: string;
  restart?: boolean;
  id?: string;
  tag?: string[];
  file?: string;
}

export const addFork: AddCommand = (program, act) => {
  program
    .command("fork")
    .description("start a new run that goes on from where another one stood")
    .argument("<run>", "id of the run, or its beginning")
    .option("--at <seq>", "go on as it was after this record (default: the last one)")
    .option("--vars <json>", "begin with these vars, as a JSON object (default: those of the run there)")
    .option("--restart", "where a step was under way, or had just ended the run, run its node again")
    .option("--id <run-id>", "id of the new run; forking twice finds the first (default: a new one)")
    .option("--tag <tag...>", "tags of the new run (default: those of the run)")
    .option("--file <file>", "workflow file: the run is checked against its code, and driven on here")
    .addHelpText(
      "after",
      `
The other run stays as it is. The new one names the record that it comes from, and does nothing again that was recorded before it.
Without --file it is stored, and the next worker with the workflow's code goes on with it.

Examples:
  $ abstractruntime fork 3f2a --at 12
  $ abstractruntime fork 3f2a --restart --vars '{"topic":"Forks"}' --file approval.ts`,
    )
    .action(act(fork));
};

async function fork(cli: Cli, given: string, flags: ForkFlags & { at?: string }): Promise<number> {
  const atSeq = flags.at === undefined ? {} : { atSeq: parseSeq(flags.at, "--at") };
  return makeRun(cli, flags, async (runtime, options) => runtime.fork(await findRun(runtime, given), { ...options, ...atSeq }));
}

/** Makes a run of another one, and drives it here where its code is given. */
export async function makeRun(
  cli: Cli,
  { vars, restart, id, tag, file }: ForkFlags,
  make: (runtime: Runtime, options: ForkOptions) => Promise<{ runId: string }>,
): Promise<number> {
  const options: ForkOptions = {
    ...(vars === undefined ? {} : { vars: parseObject(vars) }),
    ...(restart ? { open: "restart" } : {}),
    ...(id === undefined ? {} : { runId: id }),
    ...(tag === undefined ? {} : { tags: tag }),
  };
  if (file !== undefined) {
    const code = await loadWorkflowFile(file);
    return driveHere(cli, code, {}, async (runtime) => {
      const { runId } = await make(runtime, options);
      if (!cli.json) cli.terminal.note(`Run ${runId}`, "dim");
      return runId;
    });
  }
  const { runId, workflowId, origin } = await reading(cli, async (runtime) => runtime.get((await make(runtime, options)).runId));
  const next = nextCommand(cli, "run", ["FILE"], { id: runId });
  if (cli.json) {
    cli.terminal.json({ runId, workflowId, origin, next });
    return 0;
  }
  const from = origin?.kind === "fork" ? ` It goes on from record ${origin.seq} of run ${origin.runId}.` : "";
  cli.terminal.line(`Run ${runId} is stored.${from}`, "green");
  cli.terminal.line(`A worker with the code of workflow "${workflowId}" goes on with it. To go on here: ${next}`);
  return 0;
}
