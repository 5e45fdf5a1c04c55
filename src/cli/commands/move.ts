import { resolve } from "node:path";
import { isError, type Moved, moveRuns, type Runtime, undoMove } from "../../index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { openStore, storePlace, withoutPassword } from "../open-store.ts";
import { type Problem, problemOf, tell, wrongUse } from "../problem.ts";
import { runsOf } from "../runs-of.ts";
import { counted } from "../counted.ts";

interface MoveOptions {
  from?: string;
  to?: string;
  all?: boolean;
  purge?: boolean;
  undo?: boolean;
}

export const addMove: AddCommand = (program, act) => {
  program
    .command("move")
    .description("move runs, and all that they started, to another store, in mid-flight")
    .argument("[run...]", "ids of the runs, or their beginnings")
    .option("--from <store>", "where they are (default: --store)")
    .option("--to <store>", "where they go")
    .option("--all", "every run of the store")
    .option("--purge", "remove from the first store what has left it")
    .option("--undo", "take back a move that was cut off before the runs had left; without --to, an export or import")
    .addHelpText(
      "after",
      `
Live runs go with their ledgers, mailboxes, artifacts and snapshots. While a run is on its way, what is sent to it is refused with
RUN_MOVED; an effect that was under way is found uncertain by the workers of the other store. A move that was cut off is completed by
the same command. In the first store a run stays as one that has left, driven and reached by nobody, until it is purged.

Examples:
  $ abstractruntime move 3f2a --from sqlite:.abstractruntime/runs.db --to postgres://app@db/app
  $ abstractruntime move --all --to sqlite:runs.db --purge`,
    )
    .action(act(move));
};

async function move(cli: Cli, given: string[], { from = cli.store, to, all, purge, undo }: MoveOptions): Promise<number> {
  if (to === undefined && !undo) throw wrongUse("--to", "it is not said where the runs go", "Name the other store with --to.");
  if (given.length > 0 === (all === true))
    throw wrongUse("RUN", "it is not said which runs are meant", "Name them, or move every run with --all.");
  const source = { ...cli, store: absolute(from, "--from") };
  if (to === undefined)
    return reading(source, async (runtime) =>
      tellBack(cli, await undoMove(runtime.store, undefined, await idsOf(runtime, given)), from),
    );
  const target = absolute(to, "--to");
  if (source.store === target) throw wrongUse("--to", "both stores are the same", "Name another one with --to.");
  return reading(source, async (runtime) => {
    const store = await openStore(target);
    let isInterrupted = false;
    const ignore = cli.terminal.io.onInterrupt(() => {
      isInterrupted = true;
      cli.terminal.note(
        "Stopping when what is under way has moved. Ctrl-C again ends it at once; the same command then completes it.",
      );
    });
    try {
      const runIds = all ? await everyRoot(runtime, store.name) : await idsOf(runtime, given);
      if (undo) return tellBack(cli, await undoMove(runtime.store, store, runIds), from);
      const moved: Moved = { runIds: [], records: 0, artifacts: 0 };
      const problems: Problem[] = [];
      // One tree that cannot be moved does not keep the others here.
      for (const some of all ? runIds.map((runId) => [runId]) : [runIds]) {
        if (isInterrupted) break;
        try {
          const { runIds: ids, records, artifacts } = await moveRuns(runtime.store, store, some, purge ? { purge } : {});
          moved.runIds.push(...ids);
          moved.records += records;
          moved.artifacts += artifacts;
        } catch (error) {
          if (!all || !isError(error) || error.code.startsWith("STORE_")) throw error;
          problems.push(problemOf(error));
        }
      }
      const { runIds: ids, records, artifacts } = moved;
      if (cli.json) cli.terminal.json(all ? { ...moved, problems } : moved);
      else if (ids.length === 0) cli.terminal.line(`Nothing was left to move to ${withoutPassword(to)}.`, "green");
      else
        cli.terminal.line(
          `Moved ${counted(ids.length, "run")} to ${withoutPassword(to)}, with ${counted(records, "record")} and ${counted(artifacts, "artifact")}. They verify there.`,
          "green",
        );
      if (!cli.json) for (const problem of problems) tell(cli.terminal, problem, false);
      if (isInterrupted && all) cli.terminal.note("Interrupted: the same command moves what is left.");
      return isInterrupted && all ? 130 : problems.length > 0 ? 1 : 0;
    } finally {
      ignore();
      await store.close();
    }
  });
}

function tellBack({ terminal, json }: Cli, runIds: string[], from: string): number {
  if (json) terminal.json({ runIds });
  else terminal.line(`${counted(runIds.length, "run")} taken back: ${withoutPassword(from)} drives them on.`, "green");
  return 0;
}

/** What stands in both stores as the name of the other is to mean the same from every directory. */
function absolute(given: string, option: string): string {
  const place = storePlace(given, option);
  return place.kind === "postgres" ? given : `${place.kind}:${resolve(place.path)}`;
}

/** One that has left and was purged is named by its whole id. */
async function idsOf(runtime: Runtime, given: readonly string[]): Promise<string[]> {
  const ids: string[] = [];
  for (const text of given) {
    ids.push(
      await findRun(runtime, text).catch((error: unknown) => {
        if (isError(error, "RUN_NOT_FOUND") || isError(error, "RUN_PURGED")) return text;
        throw error;
      }),
    );
  }
  return ids;
}

/** What has left for a third store is not meant. */
async function everyRoot(runtime: Runtime, to: string): Promise<string[]> {
  const ids: string[] = [];
  for await (const { runId, parentRunId, moving } of runsOf(runtime, { order: "oldest" })) {
    const isElsewhere = moving?.phase === "left" && moving.to !== to;
    if (!isElsewhere && (parentRunId === undefined || !(await runtime.store.load(parentRunId)))) ids.push(runId);
  }
  return ids;
}
