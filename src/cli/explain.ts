/** What a run is doing and what moves it on, from the run and the store alone. Shown by `why`, and by whatever leaves a run or changes it. */
import { AbstractRuntimeError, type Run, type Runtime, type Store } from "../index.ts";
import { type Cli, defaultStore, nextCommand } from "./command.ts";
import { explainEffect, movingText } from "./explain-effect.ts";
import { moment, span, when } from "./moment.ts";
import { leftToUndo, openEffectsOf, type OpenEffect } from "./open-effects.ts";
import { hasDied } from "./open-runtime.ts";
import { storeAddress, withoutPassword } from "./open-store.ts";
import { runsOf } from "./runs-of.ts";
import { jsonLine, type Terminal } from "./terminal.ts";
import type { WorkflowFile } from "./workflow-file.ts";

export type Wait = Run["waits"][number];
export type Fields = [name: string, value: string | undefined][];

export interface Explanation {
  run: Run;
  /** One sentence. */
  summary: string;
  fields: Fields;
  /** What to do, each a sentence or a command. */
  next: string[];
  /** The worker that holds the run now. */
  holder?: string;
  /** Its process has died, or its lease has run out. */
  holderIsDead: boolean;
  /** Since when it is so, in milliseconds since 1970. */
  since: number;
  /** What it has under way. */
  effects: OpenEffect[];
}

/** @param file The workflow file that the user named: for the commands to go on with, and for what only the code says. */
export async function explain(cli: Cli, runtime: Runtime, runId: string, file?: WorkflowFile): Promise<Explanation> {
  const run = await runtime.get(runId);
  const loaded = await runtime.store.load(runId);
  const holder = loaded?.lease?.workerId;
  const holderIsDead = holder !== undefined && (hasDied(cli, holder) || (await runtime.store.stats()).workers === 0);
  const ended = run.status === "completed" || run.status === "failed" || run.status === "cancelled";
  const facts: Facts = {
    cli,
    runtime,
    run,
    ...(file ? { file } : {}),
    path: file?.path ?? "FILE",
    now: loaded?.now ?? run.updatedAt,
    holder,
    holderIsDead,
    mail: loaded?.mail ?? [],
    effects: ended ? [] : await openEffectsOf(runtime, run),
    explainRun: (other) => explain(cli, runtime, other, file),
  };
  const { since = run.updatedAt, ...part } = await explainStatus(facts);
  const { effects } = facts;
  return { run, since, ...(holder === undefined ? {} : { holder }), holderIsDead, effects, ...part };
}

export function printExplanation(terminal: Terminal, { summary, fields, next }: Explanation): void {
  terminal.line(summary, "bold");
  terminal.fields(fields);
  next.forEach((step, i) => {
    terminal.line(`${i === 0 ? "Next: " : "      "}${step}`, "green");
  });
}

export interface Facts {
  cli: Cli;
  runtime: Runtime;
  run: Run;
  file?: WorkflowFile;
  /** Of the file, for commands to paste. */
  path: string;
  now: number;
  holder: string | undefined;
  holderIsDead: boolean;
  /** The messages that the run has not taken. */
  mail: NonNullable<Awaited<ReturnType<Store["load"]>>>["mail"];
  effects: OpenEffect[];
  explainRun(runId: string): Promise<Explanation>;
}

type Part = Pick<Explanation, "summary" | "fields" | "next"> & { since?: number };

async function explainStatus(facts: Facts): Promise<Part> {
  const { run, now } = facts;
  if (run.moving) return explainMoving(facts, run.moving);
  if (run.status === "failed") return explainFailed(facts);
  if (run.status === "completed" || run.status === "cancelled") return explainEnded(facts, run.status);
  const part = run.blocked
    ? explainBlocked(facts, run.blocked)
    : run.paused
      ? explainPaused(facts)
      : run.undoing
        ? await explainUndoing(facts)
        : run.cancelling && !run.cancelling.cleaning
          ? explainCancelling(facts)
          : run.seq === 0 && run.wakeAt !== null && run.wakeAt > now
            ? explainDelayed(facts, run.wakeAt)
            : await explainActive(facts);
  const onItsWay = commandsOnTheirWay(facts);
  if (onItsWay) part.fields.push(["On its way", onItsWay]);
  return part;
}

// ---- Ended ---------------------------------------------------------------------------------------------------------

function explainEnded({ cli, run, now }: Facts, status: "completed" | "cancelled"): Part {
  return {
    summary: `${named(run)} ${status === "cancelled" ? "was cancelled" : status}.`,
    fields: [
      ["Ended", when(run.updatedAt, now)],
      ["Reason", run.cancelling?.reason],
      ["Output", run.output === undefined ? undefined : short(run.output)],
      ...notUndone(run),
    ],
    next: [nextCommand(cli, status === "completed" ? "show" : "ledger", [run.runId])],
  };
}

async function explainFailed(facts: Facts): Promise<Part> {
  const { cli, run, now, mail, path, holder } = facts;
  const ledger = nextCommand(cli, "ledger", [run.runId]);
  if (mail.some(({ kind, key }) => kind === "control" && key === "retry")) {
    const by = holder === undefined ? "the next worker with its code takes it" : `worker ${holder} takes it`;
    return {
      summary: `${named(run)} failed at node "${run.node}", and is to be tried again.`,
      fields: [
        ["Ended", when(run.updatedAt, now)],
        ["Error", run.error && errorText(run.error)],
        ["On its way", `a retry that is in its mailbox; ${by}`],
      ],
      next: [nextCommand(cli, "run", [path], { id: run.runId })],
    };
  }
  const refused = await retryRefused(facts);
  return {
    summary: `${named(run)} failed at node "${run.node}".`,
    fields: [
      ["Ended", when(run.updatedAt, now)],
      ["Error", run.error && (refused ? withoutRetry(errorText(run.error)) : errorText(run.error))],
      ["Retries", run.retries > 0 ? String(run.retries) : undefined],
      ["Retry", refused === undefined ? "possible: it goes on from where it failed" : `refused: ${refused.why}`],
      ...notUndone(run),
    ],
    next: [
      ledger,
      refused === undefined
        ? `when the cause is mended: ${nextCommand(cli, "retry", [run.runId])}`
        : (refused.next ?? "start a new run if the work is still wanted"),
    ],
  };
}

/** Why a failed run cannot be tried again, as `retry` would find it. */
async function retryRefused({ cli, run, runtime }: Facts): Promise<{ why: string; next?: string } | undefined> {
  if (run.undoing) return { why: "what it had done was undone when it failed" };
  const { parentRunId } = run;
  if (parentRunId === undefined) return undefined;
  const parent = await runtime.store.load(parentRunId);
  const { archivedBefore = 0 } = parent ?? {};
  for (let to = (parent?.row.seq ?? -1) + 1; to > archivedBefore; to -= 500) {
    const from = Math.max(archivedBefore, to - 500);
    const records = await runtime.ledger(parentRunId, { from, limit: to - from });
    const taken = records.some(
      ({ kind, data, at }) =>
        kind === "delivered" &&
        data.messageKind === "child_end" &&
        data.key === `subworkflow:${run.runId}` &&
        at >= run.updatedAt,
    );
    if (taken)
      return {
        why: `its parent ${parentRunId} has taken its end; a retry of the parent starts the child anew`,
        next: nextCommand(cli, "why", [parentRunId]),
      };
    // The parent cannot have heard of the end before it came.
    if ((records[0]?.at ?? 0) < run.updatedAt) return undefined;
  }
  return undefined;
}

function notUndone({ undoFailures = [] }: Run): Fields {
  return undoFailures.map(({ effectId, type, error }): Fields[number] => [
    "Not undone",
    `effect ${effectId}: ${type}: ${errorText(error)}`,
  ]);
}

// ---- Elsewhere -----------------------------------------------------------------------------------------------------

function explainMoving({ cli, run, now }: Facts, { phase, to }: NonNullable<Run["moving"]>): Part {
  const there = storeAddress(to);
  const here = withoutPassword(cli.store);
  const [from, target] = phase === "arriving" ? [there, here] : [here, there];
  const again = nextCommand({ ...cli, store: defaultStore }, "move", [run.runId], { from, to: target });
  return {
    summary: `${named(run)} ${phase === "left" ? "has" : "is"} ${movingText({ phase, to })}, with all that it started.`,
    fields: [
      ["Status", run.status],
      ["Since", when(run.updatedAt, now)],
      [
        "Woken by",
        phase === "left" ? "the workers of the store that it is in" : "nothing, until its move is completed or taken back",
      ],
    ],
    next:
      phase === "left"
        ? to.startsWith("file:")
          ? [`import it where it is to go on: ${nextCommand({ ...cli, store: "STORE" }, "import", [to.slice("file:".length)])}`]
          : [`look at it there: ${nextCommand({ ...cli, store: there }, "why", [run.runId])}`]
        : to.startsWith("file:")
          ? ["the same export or import again", `to take it back: ${nextCommand(cli, "move", [run.runId], { undo: true })}`]
          : [`${again}`, `to take it back: ${again} --undo`],
  };
}

// ---- Standing still ------------------------------------------------------------------------------------------------

function explainBlocked({ cli, run, path, now }: Facts, { code, problem, quarantine }: NonNullable<Run["blocked"]>): Part {
  const goOn = nextCommand(cli, "run", [path], { id: run.runId });
  const mend: Record<string, string> = {
    WORKFLOW_UNKNOWN: `run it with the file that exports ${/workflow "[^"]*"/.exec(problem)?.[0] ?? `workflow "${run.workflowId}"`}: ${goOn}`,
    EFFECT_UNKNOWN: `put the effect among the workflow's effects, or its handler into the file's export \`effects\`, then ${goOn}`,
    WORKFLOW_INCOMPATIBLE: `add what is missing, or a migration; see \`${nextCommand(cli, "check", [path])}\`; then ${goOn}`,
    ARTIFACT_MISSING: `put the same bytes again with runtime.artifacts.put(), then ${nextCommand(cli, "verify", [run.runId], { lift: true })}`,
    FORMAT_NEWER: "upgrade abstractruntime; the run is unchanged and goes on under the newer version.",
  };
  const during = run.undoing ? ", while it is being undone" : run.cancelling ? ", while it is being cancelled" : "";
  return {
    summary: `${named(run)} is ${quarantine ? "quarantined" : "blocked"} at node "${run.node}"${during}.`,
    fields: [
      ["Code", code],
      ["Problem", problem],
      ["Since", when(run.updatedAt, now)],
      ["Woken by", quarantine ? "nothing: it was found damaged, and waits for you" : "a worker with other code"],
    ],
    next: quarantine
      ? [nextCommand(cli, "verify", [run.runId]), `when it verifies: ${nextCommand(cli, "verify", [run.runId], { lift: true })}`]
      : [mend[code] ?? goOn],
  };
}

function explainPaused(facts: Facts): Part {
  const { cli, run, path, now, mail, holder, holderIsDead, effects } = facts;
  const isLetGo = mail.some(({ kind, key }) => kind === "control" && key === "unpause");
  const settling = holder === undefined || holderIsDead ? [] : effects.filter(({ phase }) => phase === "executing");
  const waits = run.waits.map(({ reason, waitKey }) => (reason === "subworkflow" ? "the end of a run" : waitKey)).join(", ");
  return {
    summary: `${named(run)} is paused at node "${run.node}".`,
    fields: [
      ["Since", when(run.updatedAt, now)],
      ["Holder", holder === undefined ? undefined : holderText(facts)],
      ["Settles", settling.length > 0 ? settling.map(({ type }) => `effect "${type}"`).join(", ") : undefined],
      ["Waits", waits === "" ? undefined : `${waits} (what arrives is kept, and taken afterwards)`],
      ["Woken by", isLetGo ? undefined : "an unpause; nothing else moves it, but a cancel"],
    ],
    next: [isLetGo ? nextCommand(cli, "run", [path], { id: run.runId }) : nextCommand(cli, "unpause", [run.runId])],
  };
}

function explainDelayed({ cli, run, now, path }: Facts, at: number): Part {
  return {
    summary: `${named(run)} has not begun.`,
    fields: [
      ["Waits for", `its start: ${moment(at)}`],
      ["Since", when(run.createdAt, now)],
      ["Queue", run.queue],
      [
        "Woken by",
        `itself, at ${when(at, now)}, where a worker has its code${run.queue === undefined ? "" : " and serves its queue"}`,
      ],
    ],
    next: [nextCommand(cli, "run", [path], { id: run.runId, wait: true })],
  };
}

// ---- Ending --------------------------------------------------------------------------------------------------------

function explainCancelling(facts: Facts): Part {
  const { cli, run, now, holder, holderIsDead, effects } = facts;
  const settling = effects.filter(({ phase }) => phase === "executing");
  return {
    summary: `${named(run)} is being cancelled, at node "${run.node}".`,
    fields: [
      ["Reason", run.cancelling?.reason],
      ["Settles", settling.length > 0 ? `${settling.map(({ type }) => `effect "${type}"`).join(", ")}, told to stop` : undefined],
      ["Holder", holderText(facts)],
      ["Since", when(run.updatedAt, now)],
    ],
    next: holder === undefined || holderIsDead ? [nextCommand(cli, "cancel", [run.runId])] : ["nothing: it ends by itself."],
  };
}

async function explainUndoing(facts: Facts): Promise<Part> {
  const { runtime, run } = facts;
  const left = await leftToUndo(runtime, run);
  const end = run.cancelling ? "cancelled" : "failed";
  const active = await explainActive(facts);
  return {
    ...active,
    summary: `${named(run)} ends as ${end}; before that, what it had done is being undone.`,
    fields: [
      ["Error", run.undoing?.error && errorText(run.undoing.error)],
      ["Reason", run.cancelling?.reason],
      ...left.map(({ effectId, type, node }, i): Fields[number] => [
        i === 0 ? "Undone next" : "Then",
        `effect ${effectId}: ${type}, of node "${node}"`,
      ]),
      ...notUndone(run),
      ...active.fields,
    ],
  };
}

// ---- Moving, or waiting --------------------------------------------------------------------------------------------

async function explainActive(facts: Facts): Promise<Part> {
  const { cli, run, path, file, now, holder, holderIsDead, effects } = facts;
  const isDue = holder === undefined && run.wakeAt !== null && run.wakeAt <= now;
  const isRunning = run.status === "running";
  const fields: Fields = [];
  const next: string[] = [];
  for (const effect of effects) {
    const story = await explainEffect(facts, effect);
    if (fields.length > 0 && story.fields.length > 0) fields.push(["", ""]);
    fields.push(...story.fields);
    next.push(...story.next);
  }
  if (isRunning || isDue || holder !== undefined) {
    if (fields.length > 0) fields.push(["", ""]);
    fields.push(["Holder", holderText(facts)]);
    if (isRunning) fields.push(["Since", when(isDue ? Math.max(run.updatedAt, run.wakeAt ?? 0) : run.updatedAt, now)]);
    if (isDue && run.wakeAt !== null && !isRunning) fields.push(["Due", `for ${span(now - run.wakeAt)}`]);
    if (isDue && run.queue !== undefined) fields.push(["Queue", await queueText(facts, run.queue)]);
  }
  const goOn = nextCommand(cli, "run", [path], { id: run.runId });
  const isQueued = isDue && run.queue !== undefined;
  // It then drives such runs one at a time.
  if (isQueued && !file?.queues && (await facts.runtime.store.stats()).workers === 0) next.unshift(goOn);
  if (isDue && run.queue !== undefined)
    next.unshift(`start a worker that serves its queue: createRuntime({ queues: ${JSON.stringify({ [run.queue]: {} })} })`);
  else if (isDue || holderIsDead) next.unshift(goOn);
  else if (isRunning) next.push(`if that worker is dead: ${goOn}`);
  const onlyBackoff = effects.length > 0 && effects.every(({ phase }) => phase === "backing_off");
  const doing = isRunning ? "is running, at" : "waits at";
  const cleaning = run.cancelling?.cleaning ? ", cleaning up after a cancel" : "";
  return {
    summary: `${named(run)} ${doing} node "${run.node}"${onlyBackoff ? " to try an effect again" : ""}${cleaning}.`,
    ...(isRunning ? {} : { since: Math.min(run.updatedAt, ...effects.map(({ since }) => since)) }),
    fields: run.cancelling?.reason === undefined || run.undoing ? fields : [["Reason", run.cancelling.reason], ...fields],
    // Two waits for moments need the same worker.
    next: [...new Set(next)],
  };
}

function holderText({ holder, holderIsDead, run }: Facts): string {
  if (holder === undefined) {
    const serving = run.queue === undefined ? "" : " that serves its queue, when it has a free slot,";
    return `none: it is due, and the next worker with its code${serving} takes it`;
  }
  return holderIsDead
    ? `${workerText(holder)}, which is dead: the next worker with its code takes the run over`
    : workerText(holder);
}

function workerText(holder: string): string {
  return `worker ${holder}`;
}

async function queueText({ runtime, run }: Facts, queue: string): Promise<string> {
  let held = 0;
  let ahead = 0;
  for await (const other of runsOf(runtime, { queue, status: ["running", "waiting"] })) {
    if (other.holder !== undefined) held += 1;
    else if (isAhead(other, run)) ahead += 1;
  }
  const key = run.queueKey === undefined ? "" : `, key "${run.queueKey}"`;
  const priority = run.priority === 0 ? "" : `, priority ${run.priority}`;
  return `"${queue}"${key}${priority}: ${held} of its runs are held, and ${ahead} are due before this one; its limits stand in the code of its workers`;
}

function isAhead(other: Awaited<ReturnType<Runtime["list"]>>["runs"][number], { runId, priority, wakeAt }: Run): boolean {
  if (other.runId === runId || other.blocked || other.wakeAt === null || wakeAt === null) return false;
  return other.priority === priority ? other.wakeAt < wakeAt : other.priority > priority && other.wakeAt <= wakeAt;
}

function commandsOnTheirWay({ mail, holder }: Facts): string | undefined {
  const names: Record<string, string> = {
    cancel: "a cancel",
    pause: "a pause",
    unpause: "an unpause",
    archived: "an archive of its older records",
  };
  const commands = mail.flatMap(({ kind, key }) => (kind === "control" && names[key] ? [names[key]] : []));
  if (commands.length === 0) return undefined;
  return `${commands.join(", ")}; ${holder === undefined ? "the next worker" : `worker ${holder}`} takes it`;
}

// ---- Errors --------------------------------------------------------------------------------------------------------

/** What stands in the way of a run that ended badly or is blocked, as an error; undefined when nothing does. */
export function failureOf(run: Run): AbstractRuntimeError | undefined {
  const { runId } = run;
  if (run.status === "failed")
    return new AbstractRuntimeError("RUN_FAILED", { runId, problem: run.error?.message ?? "" }, run.error);
  if (run.status === "cancelled") {
    const reason = run.cancelling?.reason;
    return new AbstractRuntimeError("RUN_CANCELLED", { runId, ...(reason === undefined ? {} : { reason }) });
  }
  if (!run.blocked || run.status === "completed") return undefined;
  const { code, problem, quarantine } = run.blocked;
  return quarantine
    ? new AbstractRuntimeError("RUN_QUARANTINED", { runId, problem })
    : new AbstractRuntimeError("RUN_BLOCKED", { runId, code, problem });
}

/** The advice of an error is as old as the error. */
function withoutRetry(text: string): string {
  return text.replace(/(?:;| and) retry\(runId\)[^.]*(?=\.|$)/, "");
}

function errorText({ code, name, message }: NonNullable<Run["error"]>): string {
  const kind = code ?? name;
  return message.startsWith(`${kind}: `) ? message : `${kind}: ${message}`;
}

function named(run: Run): string {
  return `Run ${run.runId} of workflow "${run.workflowId}"`;
}

function short(value: unknown): string {
  const text = jsonLine(value);
  return text.length > 500 ? `${text.slice(0, 500)}...` : text;
}
