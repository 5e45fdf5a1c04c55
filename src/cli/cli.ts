/**
 * The command line. A command is a function from what it was given to an exit code: 0 done, 1 what was asked for failed, 2 wrong
 * use, 130 interrupted. With `--json`, stdout holds one JSON value and nothing else (`ledger`, `watch`, `worker`: one to a line), problems included.
 */
import { readFileSync } from "node:fs";
import { Command, CommanderError } from "commander";
import { type Act, type AddCommand, type Cli, defaultStore } from "./command.ts";
import { addArchive } from "./commands/archive.ts";
import { addArtifacts } from "./commands/artifacts.ts";
import { addBackup } from "./commands/backup.ts";
import { addCancel } from "./commands/cancel.ts";
import { addCheck } from "./commands/check.ts";
import { addDiff } from "./commands/diff.ts";
import { addEmit } from "./commands/emit.ts";
import { addExport } from "./commands/export.ts";
import { addFork } from "./commands/fork.ts";
import { addGraph } from "./commands/graph.ts";
import { addHealth } from "./commands/health.ts";
import { addImport } from "./commands/import.ts";
import { addLedger } from "./commands/ledger.ts";
import { addLs } from "./commands/ls.ts";
import { addMove } from "./commands/move.ts";
import { addPause } from "./commands/pause.ts";
import { Advised, exitCodeOf, problemOf, tell } from "./problem.ts";
import { addReplay } from "./commands/replay.ts";
import { addPurge } from "./commands/purge.ts";
import { addRespond } from "./commands/respond.ts";
import { addRetry } from "./commands/retry.ts";
import { addRun } from "./commands/run.ts";
import { addSchedules } from "./commands/schedules.ts";
import { addShow } from "./commands/show.ts";
import { addSignal } from "./commands/signal.ts";
import { addSnapshot } from "./commands/snapshot.ts";
import { addState } from "./commands/state.ts";
import { type Io, processIo, Terminal } from "./terminal.ts";
import { addTree } from "./commands/tree.ts";
import { addUnpause } from "./commands/unpause.ts";
import { addVerify } from "./commands/verify.ts";
import { addWatch } from "./commands/watch.ts";
import { addWhy } from "./commands/why.ts";
import { addToolWorker } from "./commands/tool-worker.ts";
import { addWorker } from "./commands/worker.ts";

const commands: readonly AddCommand[] = [
  addRun,
  addWorker,
  addToolWorker,
  addLs,
  addShow,
  addWhy,
  addWatch,
  addTree,
  addRespond,
  addSignal,
  addEmit,
  addCancel,
  addPause,
  addUnpause,
  addRetry,
  addSchedules,
  addLedger,
  addState,
  addDiff,
  addFork,
  addReplay,
  addSnapshot,
  addVerify,
  addImport,
  addExport,
  addMove,
  addArchive,
  addPurge,
  addBackup,
  addArtifacts,
  addHealth,
  addCheck,
  addGraph,
];

/** Carries out one command and answers with its exit code. Never rejects. */
export async function main(argv: readonly string[], io: Io = processIo()): Promise<number> {
  const terminal = new Terminal(io);
  let exitCode = 0;
  const act: Act =
    (run) =>
    async (...args) => {
      const given = (args.at(-1) as Command).optsWithGlobals<{ store: string; json?: boolean; debug?: boolean }>();
      const cli: Cli = { terminal, store: given.store, json: given.json === true, debug: given.debug === true };
      exitCode = await run(cli, ...(args.slice(0, -1) as never));
    };
  const program = makeProgram(terminal);
  for (const add of commands) add(program, act);
  try {
    await program.parseAsync(argv, { from: "user" });
    // What could not be written is reported in a later turn.
    await new Promise((resolve) => setImmediate(resolve));
    return terminal.broken ? 1 : exitCode;
  } catch (error) {
    // Help and version were asked for and printed.
    if (error instanceof CommanderError && error.exitCode === 0) return 0;
    // No command at all: commander has printed the help.
    if (error instanceof CommanderError && error.code === "commander.help") return 2;
    const command = program.commands.find((known) => argv.includes(known.name()))?.name();
    const problem = problemOf(error, command, program.opts<{ store: string }>().store);
    tell(terminal, problem, argv.includes("--json"));
    if (argv.includes("--debug")) terminal.note(stackOf(error instanceof Advised ? error.error : error));
    return exitCodeOf(problem);
  }
}

function makeProgram(terminal: Terminal): Command {
  return new Command("abstractruntime")
    .description(
      "Durable workflows: runs that pause for hours or months, survive crashes, and keep a ledger that can be verified.",
    )
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "print this help")
    .helpCommand(false)
    .option("--store <kind:place>", "where the runs are kept", defaultStore)
    .option("--json", "print JSON, problems included, and ask nothing")
    .option("--debug", "print stacks and debugging messages")
    .configureHelp({ showGlobalOptions: true })
    .configureOutput({
      writeOut: (text) => terminal.help(text),
      writeErr: (text) => terminal.note(text.trimEnd()),
      // Told by `tell`, like every other problem.
      outputError: () => {},
      getOutHelpWidth: () => terminal.io.columns ?? 80,
      getErrHelpWidth: () => terminal.io.columns ?? 80,
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    })
    .exitOverride()
    .addHelpText(
      "after",
      `
Examples:
  $ abstractruntime run approval.ts --vars '{"topic":"Durability"}'
  $ abstractruntime ls --status waiting
  $ abstractruntime why 3f2a
  $ abstractruntime respond 3f2a yes --file approval.ts

RUN is the id of a run, or its first characters (at least 4).
Exit codes: 0 done, 1 what was asked for failed, 2 wrong use, 130 interrupted.
With --json, stdout holds one JSON value (ledger, watch, worker: one to a line); a problem is {"error": {"code", "message", "hint", "fields"}}.`,
    );
}

function version(): string {
  return (JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string }).version;
}

function stackOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause === undefined ? `${error.stack}` : `${error.stack}\nCaused by: ${stackOf(error.cause)}`;
}
