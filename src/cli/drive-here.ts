/** Driving a run in this process, for as long as it moves by itself; Ctrl-C hands it back. Shared by `run` and `respond --file`. */
import { isError, type QueueLimits, type Run, type Runtime } from "../index.ts";
import { ask } from "./ask.ts";
import { type Cli, nextCommand } from "./command.ts";
import { explain, failureOf, printExplanation } from "./explain.ts";
import { childOf } from "./explain-effect.ts";
import { openRuntime } from "./open-runtime.ts";
import { problemOf, tell } from "./problem.ts";
import { questionsOf } from "./question.ts";
import type { WorkflowFile } from "./workflow-file.ts";

interface DriveOptions {
  /** Stay until the run ends, whatever it waits for. */
  wait?: boolean;
  /** Ask the person here when it waits for one. */
  interactive?: boolean;
}

/** What goes on by itself sooner than this is waited for here. */
export const patienceMs = 10_000;

/** @param begin Starts or wakes the run, and says which. */
export async function driveHere(
  cli: Cli,
  file: WorkflowFile,
  options: DriveOptions,
  begin: (runtime: Runtime) => Promise<string>,
): Promise<number> {
  const { terminal } = cli;
  const broken = Promise.withResolvers<never>();
  const interrupt = Promise.withResolvers<"interrupted">();
  broken.promise.catch(() => {}); // Heard by whoever races it below.
  let runId: string | undefined;
  const queues: Record<string, QueueLimits> = { ...file.queues };
  const runtime = await openRuntime(cli, {
    workflows: file.workflows,
    effects: file.effects,
    telemetry: file.telemetry,
    scheduler: true,
    // An export that is no object is refused as what it is.
    queues: file.queues === undefined || isObject(file.queues) ? queues : file.queues,
    failed: (error, ofRun) => {
      if ((runId !== undefined && ofRun === runId) || (isError(error) && error.code.startsWith("STORE_"))) broken.reject(error);
    },
  });
  const ignore = terminal.io.onInterrupt(() => {
    terminal.note("Stopping: what is under way gets up to 10 seconds to finish. Ctrl-C again leaves at once.");
    interrupt.resolve("interrupted");
  });
  try {
    const here: Here = { cli, runtime, file, queues, unserved: new Set() };
    runId = await begin(runtime);
    for (;;) {
      const settling = settle(here, runId, options);
      settling.catch(() => {}); // When interrupted, it ends by finding the runtime stopped.
      const run = await Promise.race([settling, interrupt.promise, broken.promise]);
      if (run === "interrupted") return await leave(cli, runtime, runId, file);
      if (options.interactive && (await answered(cli, runtime, run))) continue;
      return await report(cli, runtime, run, file);
    }
  } finally {
    const slow = setTimeout(
      () => terminal.note("Other runs of these workflows are under way here; they get up to 10 seconds to finish."),
      1_000,
    );
    await runtime.stop();
    clearTimeout(slow);
    ignore();
  }
}

/** Asks until an answer is taken. False when there is nothing to ask, or the person does not want to answer. */
async function answered(cli: Cli, runtime: Runtime, run: Run): Promise<boolean> {
  const [question] = questionsOf(run);
  if (question?.reason !== "user") return false;
  for (;;) {
    const answer = await ask(cli.terminal, question);
    if (!answer) return false;
    try {
      await runtime.resume(run.runId, { waitKey: question.waitKey, payload: answer.payload });
      return true;
    } catch (error) {
      // Somebody else was faster: what they answered is as good.
      if (isError(error, "ALREADY_ANSWERED") || isError(error, "NOT_WAITING")) return true;
      if (!isError(error, "ANSWER_INVALID")) throw error;
      tell(cli.terminal, problemOf(error), false);
    }
  }
}

async function leave(cli: Cli, runtime: Runtime, runId: string, file: WorkflowFile): Promise<number> {
  await runtime.stop();
  const next = nextCommand(cli, "run", [file.path], { id: runId });
  if (cli.json) cli.terminal.json({ interrupted: true, runId, next });
  else cli.terminal.note(`Run ${runId} keeps everything that it has done. It goes on with:\n  ${next}`);
  return 130;
}

async function report(cli: Cli, runtime: Runtime, run: Run, file: WorkflowFile): Promise<number> {
  const { terminal } = cli;
  const failure = failureOf(run);
  if (cli.json) {
    terminal.json(run);
  } else if (run.status === "completed") {
    terminal.line(`Run ${run.runId} completed.`, "green");
    terminal.value(run.output ?? null);
  } else if (failure) {
    const told = problemOf(failure);
    tell(
      terminal,
      run.status === "failed" ? { ...told, hint: `See \`${nextCommand(cli, "ledger", [run.runId])}\`.` } : told,
      false,
    );
    for (const { effectId, type, error } of run.undoFailures ?? [])
      terminal.note(`Not undone: effect ${effectId}: ${type}: ${error.message}`);
  } else {
    printExplanation(terminal, await explain(cli, runtime, run.runId, file));
  }
  return failure ? 1 : 0;
}

// ---- Waiting for it ------------------------------------------------------------------------------------------------

/** What a run is driven with. */
interface Here {
  cli: Cli;
  runtime: Runtime;
  file: WorkflowFile;
  /** Those that this process serves. One that is added is served from the next look on. */
  queues: Record<string, QueueLimits>;
  /** Queues in which the run or one that it waits for stands, and which this process does not serve. */
  unserved: Set<string>;
}

/** The run, once it has ended, is blocked, or does not go on by itself soon. */
async function settle(here: Here, runId: string, { wait = false }: DriveOptions): Promise<Run> {
  const { runtime, unserved } = here;
  let told = 0;
  for (let pollMs = 5; ; pollMs = Math.min(200, pollMs * 2)) {
    unserved.clear();
    const moves = await movesOn(here, runId);
    const stuck = !moves && unserved.size > 0;
    if (stuck && told < unserved.size) tellUnserved(here);
    told = Math.max(told, unserved.size);
    const stays = moves || (wait && !(stuck && (await isAlone(runtime))));
    if ((await stops(runtime, runId, stays ? pollMs : 0)) || !stays) return runtime.get(runId);
  }
}

/** Whether no other worker lives that could serve what this one does not. */
async function isAlone(runtime: Runtime): Promise<boolean> {
  return (await runtime.store.stats()).workers <= 1;
}

function tellUnserved({ cli, file, unserved }: Here): void {
  const names = [...unserved].map((name) => `"${name}"`).join(", ");
  const missing = Object.fromEntries([...unserved].map((name) => [name, {}]));
  const how = file.queues
    ? `name it in the \`queues\` that ${file.path} exports`
    : `${file.path} may export it: export const queues = ${JSON.stringify(missing)}`;
  cli.terminal.note(`Waits in queue ${names}, which is not served here. To serve it, ${how}.`, "dim");
}

/**
 * Whether runs of a queue are driven here. Without a word about queues in the file, and with no worker about that may know their
 * limits, they are, one at a time: no concurrency that somebody set is passed by that.
 */
async function serves({ runtime, file, queues, unserved }: Here, queue: string): Promise<boolean> {
  if (Object.hasOwn(queues, queue)) return true;
  if (file.queues === undefined && (await isAlone(runtime))) {
    queues[queue] = { concurrency: 1 };
    return true;
  }
  unserved.add(queue);
  return false;
}

/** Whether a run that has not ended goes on without anybody doing anything: held, due soon, or waiting for a child that does. */
async function movesOn(here: Here, runId: string): Promise<boolean> {
  const { runtime, file } = here;
  const loaded = await runtime.store.load(runId);
  if (!loaded) return false;
  const { row, lease, blocked, now, mail } = loaded;
  const asked = (command: string): boolean => mail.some(({ kind, key }) => kind === "control" && key === command);
  if (row.status === "completed" || row.status === "cancelled" || (row.status === "failed" && !asked("retry"))) return false;
  if (lease) return true;
  if (row.paused && !asked("unpause") && !asked("cancel")) return false;
  if (!file.workflows.some(({ id }) => id === row.workflowId)) return false;
  if (blocked && (await stops(runtime, runId, 0))) return false;
  const isSoon = row.wakeAt !== null && row.wakeAt - now <= patienceMs;
  // What waits for something else needs no worker yet.
  if (row.queue !== undefined && (isSoon || row.status === "running") && !(await serves(here, row.queue))) return false;
  if (isSoon) return true;
  if (row.status !== "waiting") return false;
  const run = await runtime.get(runId);
  for (const wait of run.waits) {
    if (wait.reason !== "subworkflow") continue;
    for (const childId of await awaitedChildren(runtime, wait, runId)) if (await movesOn(here, childId)) return true;
  }
  return false;
}

/** The run that a wait is for; of a `fan_out`, the children that have not ended. */
async function awaitedChildren(runtime: Runtime, wait: Run["waits"][number], parentRunId: string): Promise<string[]> {
  const childId = childOf(wait);
  if (childId !== undefined) return [childId];
  const { runs } = await runtime.list({ parentRunId, status: ["running", "waiting"], limit: 1_000 });
  return runs.map(({ runId }) => runId);
}

/** Whether a run ends, or turns out to be blocked for this process too, within a time. Ends are heard of at once. */
async function stops(runtime: Runtime, runId: string, timeoutMs: number): Promise<boolean> {
  try {
    await runtime.result(runId, { timeoutMs });
    return true;
  } catch (error) {
    if (isError(error, "RESULT_TIMEOUT")) return false;
    if (
      isError(error, "RUN_FAILED") ||
      isError(error, "RUN_CANCELLED") ||
      isError(error, "RUN_BLOCKED") ||
      isError(error, "RUN_QUARANTINED")
    )
      return true;
    throw error;
  }
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
