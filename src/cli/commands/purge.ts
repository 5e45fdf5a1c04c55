import type { Command } from "commander";
import type { Purged, PurgeQuery, Runtime } from "../../index.ts";
import { confirmed } from "../ask.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { findRun } from "../find-run.ts";
import { momentFrom } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";

export interface RetentionOptions {
  olderThan?: string;
  endedBefore?: string;
  status?: string[];
  workflow?: string;
  tag?: string[];
  left?: boolean;
  dryRun?: boolean;
  yes?: boolean;
}

export const addPurge: AddCommand = (program, act) => {
  addRetentionOptions(
    program
      .command("purge")
      .description("remove runs that have ended, for good")
      .argument("[run...]", "ids of the runs, or their beginnings"),
  )
    .option("--left", "remove runs that have left for another store, and nothing else")
    .addHelpText(
      "after",
      `
A run goes with all that it started, or stays while one of them is live. What is left is its id, which stays taken, and the hash of its
last record. Its snapshots stay, and say that it was purged. To keep the runs in a file, use \`abstractruntime archive\`.

Examples:
  $ abstractruntime purge --older-than 30d --dry-run
  $ abstractruntime purge --older-than 30d --status completed --yes
  $ abstractruntime purge 3f2a`,
    )
    .action(act(purge));
};

const collect = (value: string, before: string[] = []): string[] => [...before, value];

export function addRetentionOptions(command: Command): Command {
  return command
    .option("--older-than <span>", "only those that ended so long ago, such as 30d")
    .option("--ended-before <time>", "only those that ended before this time")
    .option("--status <status>", "only those completed, failed or cancelled", collect)
    .option("--workflow <id>", "only those of this workflow")
    .option("--tag <tag>", "only those with this tag; of several, with all", collect)
    .option("--dry-run", "say what would be removed, and remove nothing")
    .option("--yes", "ask nothing");
}

async function purge(cli: Cli, given: string[], options: RetentionOptions): Promise<number> {
  return reading(cli, async (runtime) => {
    const query = await queryOf(runtime, given, options);
    const { dryRun = false } = options;
    if (!dryRun && !(await isWanted(cli, options, await runtime.purge({ ...query, dryRun: true })))) return 130;
    return tellPurged(cli, await runtime.purge({ ...query, dryRun }));
  });
}

/** @throws INVALID_OPTION */
export async function queryOf(runtime: Runtime, given: readonly string[], options: RetentionOptions): Promise<PurgeQuery> {
  const { olderThan, endedBefore, status, workflow, tag, left } = options;
  const runIds: string[] = [];
  for (const text of given) runIds.push(await findRun(runtime, text));
  const now = Date.now();
  const read = (option: string, text: string): number => {
    const at = momentFrom(text, now, "ago");
    if (typeof at === "string")
      throw wrongUse(option, `${option}: ${at}`, `Write it like ${option} 30d, or a day like 2026-01-31.`);
    return at;
  };
  return {
    ...(olderThan === undefined ? {} : { olderThanMs: Math.max(0, now - read("--older-than", olderThan)) }),
    ...(endedBefore === undefined ? {} : { endedBefore: read("--ended-before", endedBefore) }),
    ...(status === undefined ? {} : { status: status as NonNullable<PurgeQuery["status"]> }),
    ...(workflow === undefined ? {} : { workflowId: workflow }),
    ...(tag === undefined ? {} : { tags: tag }),
    ...(left ? { left } : {}),
    ...(given.length > 0 ? { runIds } : {}),
  };
}

/** Removing many is asked for where somebody can answer. */
export async function isWanted({ terminal, json }: Cli, { yes }: RetentionOptions, { runs }: Purged): Promise<boolean> {
  if (yes || json || runs === 0 || !terminal.io.isTTY) return true;
  if (await confirmed(terminal, `Remove ${count(runs)} for good?`)) return true;
  terminal.note("Nothing was removed.");
  return false;
}

export function tellPurged(cli: Cli, purged: Purged): number {
  const { terminal, json } = cli;
  const { runs, trees, kept, runIds, dryRun, file } = purged;
  if (json) {
    terminal.json(purged);
    return 0;
  }
  const what = `${count(runs)}${trees < runs ? ` of ${trees === 1 ? "one tree" : `${trees} trees`}` : ""}`;
  terminal.line(
    dryRun ? `${what} would be removed.` : `${what} removed${file === undefined ? "" : `, and kept in ${file}`}.`,
    dryRun ? "yellow" : "green",
  );
  const shown = runIds.slice(0, 20);
  for (const runId of shown) terminal.line(`  ${runId}`);
  if (trees > shown.length) terminal.line(`  ... and ${trees - shown.length} more`);
  if (kept > 0)
    terminal.line(
      `${kept} ${kept === 1 ? "tree that fits stays: one of its runs is" : "trees that fit stay: one of their runs is"} live, or ended later. See ${nextCommand(cli, "tree", ["RUN"])}`,
    );
  return 0;
}

export function count(runs: number): string {
  return runs === 1 ? "1 run" : `${runs} runs`;
}
