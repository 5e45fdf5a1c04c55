import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { applyHere } from "../control.ts";
import { findRun } from "../find-run.ts";
import { commanding, reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";
import { addRetentionOptions, isWanted, queryOf, type RetentionOptions, tellPurged } from "./purge.ts";

interface ArchiveOptions extends RetentionOptions {
  to?: string;
  before?: string;
}

export const addArchive: AddCommand = (program, act) => {
  addRetentionOptions(
    program
      .command("archive")
      .description("write runs that have ended to a file, and remove them; or the older part of the ledger of a live run")
      .argument("[run...]", "ids of the runs, or their beginnings"),
  )
    .option("--to <file>", "the file, which must not exist")
    .option("--before <seq>", "of one live run: only its records before this one")
    .addHelpText(
      "after",
      `
As purge, with the runs in a file, from which \`abstractruntime import FILE\` brings them back. Nothing is removed before the file is on
the disk. With --before, the run itself records what was archived, with its hash, and goes on; what is kept still verifies.

Examples:
  $ abstractruntime archive --older-than 30d --to runs-2026-01.jsonl
  $ abstractruntime archive 3f2a --before 100000 --to ledger-3f2a.jsonl`,
    )
    .action(act(archive));
};

async function archive(cli: Cli, given: string[], { to, before, ...options }: ArchiveOptions): Promise<number> {
  if (to === undefined) throw wrongUse("--to", "it is not said where the runs go", "Name a file with --to.");
  if (before !== undefined) return archiveLedger(cli, given, before, to);
  return reading(cli, async (runtime) => {
    const query = { ...(await queryOf(runtime, given, options)), to };
    const { dryRun = false } = options;
    if (!dryRun && !(await isWanted(cli, options, await runtime.archive({ ...query, dryRun: true })))) return 130;
    return tellPurged(cli, await runtime.archive({ ...query, dryRun }));
  });
}

async function archiveLedger(cli: Cli, given: readonly string[], text: string, to: string): Promise<number> {
  if (given.length !== 1) throw wrongUse("RUN", "--before is for one run", "Name it, and give --before and --to.");
  if (!/^\d+$/.test(text))
    throw wrongUse("--before", `--before "${text}" is not the number of a record`, "Write it like --before 1000.");
  const { run, attended } = await reading(cli, async (runtime) => ({
    run: await runtime.get(await findRun(runtime, given[0] as string)),
    attended: (await runtime.store.stats()).workers > 0,
  }));
  return commanding(cli, run.queue === undefined ? [] : [run.queue], async (runtime) => {
    const archived = await runtime.archiveLedger(run.runId, { before: Number(text), to });
    await applyHere(runtime, run.runId, attended);
    const isTaken = (await runtime.get(run.runId)).archivedBefore === archived.before;
    if (cli.json) cli.terminal.json({ ...archived, taken: isTaken });
    else {
      const { first, hash } = archived;
      cli.terminal.line(`Records ${first} to ${archived.before - 1} of run ${run.runId} are in ${to}.`, "green");
      cli.terminal.fields([["Hash of the last", hash]]);
      if (!isTaken)
        cli.terminal.line(
          `The run has been told, and lets go of them when its worker looks: ${nextCommand(cli, "why", [run.runId])}`,
        );
    }
    return 0;
  });
}
