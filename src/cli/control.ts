/** What `cancel`, `pause`, `unpause` and `retry` have in common: which runs are meant, the question before many, and what came of it. */
import type { Command } from "commander";
import { isError, type ListedRun, type RunQuery, type Runtime, type RunStatus } from "../index.ts";
import { confirmed } from "./ask.ts";
import { type Act, type Cli, nextCommand } from "./command.ts";
import { explain, printExplanation } from "./explain.ts";
import { statusText } from "./explain-effect.ts";
import { findRun } from "./find-run.ts";
import { checkStatus } from "./ls-query.ts";
import { commanding, reading } from "./open-runtime.ts";
import { type Problem, problemOf, tell, wrongUse } from "./problem.ts";
import { runsOf } from "./runs-of.ts";

export interface Control {
  name: "cancel" | "pause" | "unpause" | "retry";
  description: string;
  /** The statuses of the runs that it is for. */
  statuses: readonly RunStatus[];
  /** Where nobody drives the run, a worker without its code carries it out: this command does, at once. */
  appliesHere?: true;
  /** Children are told too, by the run. */
  spreads?: true;
  /** Takes `--reason`. */
  reason?: true;
  help: string;
  examples: readonly string[];
  send(runtime: Runtime, runId: string, reason: string | undefined): Promise<void>;
}

interface ControlOptions {
  workflow?: string;
  status?: string;
  queue?: string;
  reason?: string;
  yes?: boolean;
}

type Target = Pick<ListedRun, "runId" | "workflowId" | "queue">;
/** What became of one run. */
type Came = { runId: string; workflowId: string } & (
  | { status: RunStatus; paused: boolean; cancelling: boolean; blocked?: string; text: string }
  | { problem: Problem }
);

/** A worker that lives looks at least once in this time, unless it has much to do. */
const momentMs = 1_500;
/** Runs that are sent to at the same time. */
const atOnce = 50;

export function addControl(program: Command, act: Act, control: Control): void {
  const { name, statuses } = control;
  const command = program
    .command(name)
    .description(control.description)
    .argument("[runs...]", "ids of runs, or their beginnings")
    .option("--workflow <id>", "instead of ids: the runs of this workflow")
    .option("--status <status>", `instead of ids: the runs that are ${statuses.join(" or ")}`)
    .option("--queue <name>", "instead of ids: the runs in this queue")
    .option("--yes", "do not ask before many runs are told");
  if (control.reason) command.option("--reason <text>", "why; stands in their ledgers");
  const examples = control.examples.map((example) => `  $ abstractruntime ${name} ${example}`).join("\n");
  command
    .addHelpText("after", `\n${control.help}\n\nExamples:\n${examples}`)
    .action(act((cli, given: string[], options: ControlOptions) => carryOut(cli, control, given, options)));
}

async function carryOut(cli: Cli, control: Control, given: string[], options: ControlOptions): Promise<number> {
  checkUse(control, given, options);
  const { targets, attended } = await reading(cli, async (runtime) => ({
    targets: await (given.length > 0 ? named(runtime, given) : matching(runtime, control, options)),
    // Asked before this command is one itself.
    attended: (await runtime.store.stats()).workers > 0,
  }));
  const { terminal } = cli;
  if (targets.length === 0) {
    if (cli.json) terminal.json({ runs: [] });
    else terminal.note(`No runs like that. See all with \`${nextCommand(cli, "ls", [])}\`.`);
    return 0;
  }
  const asks = given.length === 0 && !options.yes && !cli.json && terminal.io.isTTY;
  if (asks && !(await confirmed(terminal, `${capital(control.name)} ${count(targets.length)}?`))) {
    terminal.note("Nothing was changed.");
    return 130;
  }
  const open = (use: (runtime: Runtime) => Promise<void>): Promise<void> =>
    control.appliesHere ? commanding(cli, queuesOf(targets), use) : reading(cli, use);
  const all: Came[] = [];
  await open(async (runtime) => {
    for (let from = 0; from < targets.length; from += atOnce) {
      const batch = targets.slice(from, from + atOnce);
      all.push(
        ...(await Promise.all(
          batch.map((target) => one(runtime, control, target, { ...options, attended, many: targets.length > 1 })),
        )),
      );
    }
  });
  if (control.spreads) await spread(cli, targets, attended);
  // What a query found may have moved on since; what was named was meant.
  const came = given.length > 0 ? all : all.filter((run) => !("problem" in run) || !moved.includes(run.problem.code));
  return reading(cli, (runtime) => report(cli, control, runtime, came));
}

/** Children that are told by their parents' cancels are cancelled here too, where nobody drives them: level by level. */
async function spread(cli: Cli, cancelled: readonly Target[], attended: boolean): Promise<void> {
  for (let level = cancelled; level.length > 0; ) {
    const parents = level;
    const told = await reading(cli, async (runtime) => {
      const found: Target[] = [];
      for (const { runId } of parents)
        for await (const child of runsOf(runtime, { parentRunId: runId, status: ["running", "waiting"] }))
          if (await isTold(runtime, child)) found.push(child);
      return found;
    });
    await commanding(cli, queuesOf(told), async (runtime) => {
      await Promise.all(told.map(({ runId }) => applyHere(runtime, runId, attended)));
    });
    level = told;
  }
}

async function isTold(runtime: Runtime, { runId }: Target): Promise<boolean> {
  const loaded = await runtime.store.load(runId);
  return loaded?.lease === undefined && loaded?.mail.some(({ kind, key }) => kind === "control" && key === "cancel") === true;
}

function queuesOf(targets: readonly Target[]): Set<string> {
  return new Set(targets.flatMap(({ queue }) => queue ?? []));
}

function checkUse({ name, statuses }: Control, given: readonly string[], { workflow, status, queue }: ControlOptions): void {
  const isQuery = workflow !== undefined || status !== undefined || queue !== undefined;
  if (given.length === 0 && !isQuery)
    throw wrongUse(
      "RUN",
      "it is not said which runs are meant",
      `Name them, \`abstractruntime ${name} RUN\`, or describe them with --workflow, --status or --queue.`,
    );
  if (given.length > 0 && isQuery)
    throw wrongUse("RUN", "runs are both named and described", "Give ids, or --workflow, --status and --queue.");
  if (status === undefined) return;
  checkStatus(status);
  if (!statuses.includes(status as RunStatus))
    throw wrongUse("--status", `${name} is not for runs that are ${status}`, `Use --status ${statuses.join(" or --status ")}.`);
}

/** All of them, or nothing is done: a slip in one id is mended before anything has changed. */
async function named(runtime: Runtime, given: readonly string[]): Promise<Target[]> {
  const runIds = new Set<string>();
  for (const text of given) runIds.add(await findRun(runtime, text));
  const targets: Target[] = [];
  for (const runId of runIds) targets.push((await runtime.store.load(runId))?.row ?? { runId, workflowId: "?" });
  return targets;
}

async function matching(runtime: Runtime, { statuses }: Control, { workflow, status, queue }: ControlOptions): Promise<Target[]> {
  const targets: Target[] = [];
  const query: RunQuery = {
    status: status === undefined ? statuses : (status as RunStatus),
    order: "oldest",
    ...(workflow === undefined ? {} : { workflowId: workflow }),
    ...(queue === undefined ? {} : { queue }),
  };
  // What has left is another store's to tell.
  for await (const run of runsOf(runtime, query)) if (run.moving?.phase !== "left") targets.push(run);
  return targets;
}

/** @param options.many Then a refusal stands beside what became of the others. */
async function one(
  runtime: Runtime,
  control: Control,
  { runId, workflowId }: Target,
  { reason, attended, many }: { reason?: string; attended: boolean; many: boolean },
): Promise<Came> {
  try {
    await control.send(runtime, runId, reason);
    if (control.appliesHere) await applyHere(runtime, runId, attended);
    const run = await runtime.get(runId);
    const { status, paused, cancelling, blocked } = run;
    return {
      runId,
      workflowId,
      status,
      paused,
      cancelling: cancelling !== undefined,
      ...(blocked ? { blocked: blocked.code } : {}),
      text: statusText(run),
    };
  } catch (error) {
    if (!many || !isError(error) || error.code.startsWith("STORE_")) throw error;
    return { runId, workflowId, problem: problemOf(error) };
  }
}

/**
 * Whoever holds the run hears of the command; where nobody does, no worker may ever come.
 *
 * @param attended A worker lives: it is given the time to take the command first. Where the run's code is needed, that is left to it.
 */
export async function applyHere(runtime: Runtime, runId: string, attended = false): Promise<void> {
  if (attended && (await isTaken(runtime, runId))) return;
  const wasBlocked = (await runtime.store.load(runId))?.blocked !== undefined;
  try {
    await runtime.tick(runId, { maxSteps: 0 });
  } catch (error) {
    if (!left.some((code) => isError(error, code))) throw error;
  }
  if (!attended || wasBlocked) return;
  // That this command has no code says nothing of the workers.
  const { blocked } = (await runtime.store.load(runId)) ?? {};
  if (blocked && !blocked.quarantine && blocked.code === "WORKFLOW_UNKNOWN") await runtime.store.lift(runId);
}

/** Whether a worker takes the commands to a run within a moment, or holds the run. */
async function isTaken(runtime: Runtime, runId: string): Promise<boolean> {
  for (let waitedMs = 0; ; waitedMs += momentMs / 20) {
    const loaded = await runtime.store.load(runId);
    if (!loaded?.mail.some(({ kind }) => kind === "control")) return true;
    if (waitedMs >= momentMs) return loaded.lease !== undefined;
    await new Promise((resolve) => setTimeout(resolve, momentMs / 20));
  }
}

/** What the command is then left to: a worker that holds the run or has its code, or a person who lifts a quarantine. */
const left = ["RUN_BUSY", "RUN_BLOCKED", "RUN_QUARANTINED", "CONFLICT"] as const;
/** What says that a run is not any more what a query found. */
const moved: readonly string[] = ["RUN_ENDED", "RUN_NOT_FOUND", "NOT_FAILED", "RETRY_REFUSED"];

async function report(cli: Cli, control: Control, runtime: Runtime, came: readonly Came[]): Promise<number> {
  const { terminal } = cli;
  const refused = came.filter((run) => "problem" in run);
  const told = came.length - refused.length;
  const [first] = came;
  if (cli.json) {
    terminal.json({
      runs: came.map((run) => {
        if ("problem" in run) return { runId: run.runId, workflowId: run.workflowId, error: run.problem };
        const { text: _, ...rest } = run;
        return rest;
      }),
    });
  } else if (came.length === 1 && first && told === 1) {
    printExplanation(terminal, await explain(cli, runtime, first.runId));
  } else {
    terminal.line(`${capital(control.name)} sent to ${count(told)}.`, "green");
    if (told > 0)
      terminal.table(
        ["RUN", "WORKFLOW", "NOW"],
        came.flatMap((run) => ("problem" in run ? [] : [[run.runId, run.workflowId, run.text]])),
        [1, 2],
      );
    for (const run of refused) tell(terminal, run.problem, false);
  }
  return refused.length > 0 ? 1 : 0;
}

function count(runs: number): string {
  return `${runs} run${runs === 1 ? "" : "s"}`;
}

function capital(name: string): string {
  return name.charAt(0).toUpperCase() + name.slice(1);
}
