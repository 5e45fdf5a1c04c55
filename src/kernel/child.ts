/** Subworkflows: a child begins in the commit that records it, under an id derived from the effect that asked for it. */
import { type Begun, beginRun } from "./begin.ts";
import { childId, childKey, memberId } from "./child-id.ts";
import type { DriveHost } from "./drive-host.ts";
import { AbstractRuntimeError, type ErrorCode, type ErrorData, errorData, isError } from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { restoreRun } from "./restore.ts";
import type { QueueOptions } from "./child-plans.ts";
import type { ParentLink, RecordDraft } from "./record.ts";
import { isEnded, largestBatch, type OpenEffect, payloadOf, type RunState } from "./run.ts";
import type { Spend } from "./spend.ts";
import type { Outcome } from "./step.ts";
import type { Message } from "./message.ts";
import type { NewRun } from "./transition.ts";
import type { Store } from "./store.ts";
import type { Workflow } from "./workflow.ts";

/** An outcome, and the children that begin with its record. */
export interface Begins {
  outcome: Outcome;
  children: NewRun[];
}

/** What `start_subworkflow` comes to. Asking again gives the same child. Payload keys may be in AbstractRuntime's snake_case. */
export async function beginChild(effect: OpenEffect, parent: RunState, host: DriveHost, trace?: string): Promise<Begins> {
  const payload = payloadOf(effect);
  const read = (camel: string, snake: string): Json | undefined =>
    isObject(payload) ? (payload[camel] ?? payload[snake]) : undefined;
  return failing(async () => {
    const workflow = childWorkflow(effect, payload, host);
    const runId = childId(parent.runId, effect.id, effect.generation);
    const detached = read("async", "detached") === true;
    const child = await begin(workflow, runId, read("vars", "vars") ?? {}, payload, effect.id, parent, host, detached, trace);
    if (detached) return { outcome: { kind: "completed", result: { subRunId: runId, async: true } }, children: [child] };
    const timeoutMs = read("timeoutMs", "timeout_ms");
    const details = { subRunId: runId, subWorkflowId: workflow.id };
    const wait = {
      reason: "subworkflow" as const,
      waitKey: childKey(runId),
      details,
      ...(typeof timeoutMs === "number" ? { timeoutMs } : {}),
    };
    return { outcome: { kind: "waiting", wait }, children: [child] };
  });
}

/** The next children of a `fan_out`: so many that its window is full. */
export async function beginChildren(effect: OpenEffect, parent: RunState, host: DriveHost, trace?: string): Promise<Begins> {
  const payload = payloadOf(effect) as JsonObject;
  return failing(async () => {
    const workflow = childWorkflow(effect, payload, host);
    const { members = 0, window = 0, running = 0, results = [], generation } = effect;
    const items = payload.items as Json[];
    const children: NewRun[] = [];
    const refused: { index: number; error: ErrorData }[] = [];
    let started = effect.started ?? 0;
    for (
      ;
      started < members && running + children.length < window && children.length + refused.length < largestBatch;
      started++
    ) {
      if (results[started] !== undefined) continue;
      const id = memberId(effect.id, started);
      const runId = childId(parent.runId, id, generation);
      try {
        children.push(await begin(workflow, runId, items[started] as Json, payload, id, parent, host, false, trace));
      } catch (error) {
        // Where failures are among the results, so is a child that cannot begin.
        if (!effect.collect) throw named(error, started);
        const { stack: _, ...plain } = errorData(error);
        refused.push({ index: started, error: plain });
      }
    }
    const { timeoutMs } = payload;
    const wait = {
      reason: "subworkflow" as const,
      details: { subWorkflowId: workflow.id, children: members },
      ...(typeof timeoutMs === "number" ? { timeoutMs } : {}),
    };
    return { outcome: { kind: "started", started, refused, wait }, children };
  });
}

/** Of many items, the one that was refused. */
function named(error: unknown, index: number): unknown {
  if (!isError(error, "VARS_INVALID")) return error;
  const { workflowId, issues } = error.fields;
  return new AbstractRuntimeError(
    "VARS_INVALID",
    { workflowId, issues: issues.map((issue) => `items[${index}]: ${issue}`) },
    error,
  );
}

function begin(
  workflow: Workflow,
  runId: string,
  vars: Json,
  options: Json,
  effectId: string,
  parent: RunState,
  host: DriveHost,
  detached: boolean,
  trace: string | undefined,
): Promise<NewRun> | NewRun {
  const depth = (parent.parent?.depth ?? 0) + 1;
  if (depth > host.limits.childDepth)
    throw new AbstractRuntimeError("CHILD_TOO_DEEP", { runId: parent.runId, depth, limit: host.limits.childDepth });
  const { queue, queueKey, priority, budget } = options as QueueOptions & { budget?: Spend };
  const link: ParentLink = { runId: parent.runId, effectId, depth, ...(detached ? { detached: true } : {}) };
  const begun = beginRun(
    workflow,
    {
      runId,
      vars,
      parent: link,
      now: host.now(),
      ...(trace === undefined ? {} : { trace }),
      ...(parent.actorId === undefined ? {} : { actorId: parent.actorId }),
      ...(parent.sessionId === undefined ? {} : { sessionId: parent.sessionId }),
      ...(queue === undefined ? {} : { queue }),
      ...(queueKey === undefined ? {} : { queueKey }),
      ...(priority === undefined ? {} : { priority }),
      ...(budget === undefined ? {} : { budget }),
      ...(parent.budgets ? { budgets: parent.budgets } : {}),
    },
    host.ids,
    host.limits,
  );
  return begun instanceof Promise ? begun.then(withoutState) : withoutState(begun);
}

/** What the store is given. */
function withoutState({ state: _, ...run }: Begun): NewRun {
  return run;
}

async function failing(action: () => Promise<Begins>): Promise<Begins> {
  try {
    return await action();
  } catch (error) {
    return { outcome: { kind: "failed", error: errorData(error), retryable: false }, children: [] };
  }
}

function childWorkflow(effect: OpenEffect, payload: Json, host: DriveHost): Workflow {
  const workflowId = childWorkflowOf(payload);
  if (workflowId === undefined)
    throw new AbstractRuntimeError("EFFECT_INPUT_INVALID", { effectType: effect.type, issues: ["workflowId is missing"] });
  const workflow = host.workflow(workflowId);
  if (!workflow) throw new AbstractRuntimeError("WORKFLOW_UNKNOWN", { workflowId, known: [] });
  return workflow;
}

/** The effects that wait for children of theirs, which are to be told when nobody waits any more. */
export function awaitingChildren({ open }: RunState): readonly OpenEffect[] {
  let found: OpenEffect[] | undefined;
  for (const effect of open.values()) {
    const { type, wait, phase } = effect;
    if (wait?.reason !== "subworkflow" || type === "join" || phase === "failed") continue;
    found ??= [];
    found.push(effect);
  }
  return found ?? none;
}
const none: readonly OpenEffect[] = [];

/**
 * The cancels for children that nobody waits for any more: they were begun for this.
 *
 * @param parents What waited for children before the drafts were folded into the state.
 */
export function givenUp(state: RunState, parents: readonly OpenEffect[], drafts: readonly RecordDraft[]): Message[] {
  const { runId, open, status } = state;
  const ended = isEnded(state);
  const reason = `run ${runId}, which started it, ${ended ? `has ended (${status})` : "does not wait for it any more"}`;
  return parents.flatMap((effect) => {
    if (open.get(effect.id) === effect && effect.phase !== "failed" && !ended) return [];
    const wasTaken = ({ kind, effectId, data }: RecordDraft): boolean =>
      kind === "delivered" && effectId === effect.id && data.messageKind === "child_end";
    if (effect.window === undefined && drafts.some(wasTaken)) return [];
    return childrenOf(state, effect).map(
      (child): Message => ({ id: `cancel:${runId}`, runId: child, kind: "control", key: "cancel", payload: { reason } }),
    );
  });
}

/** The children of an effect that have not ended, as far as their parent knows. */
function childrenOf(
  { runId }: RunState,
  { id, window, started = 0, results = [], generation, childRunId }: OpenEffect,
): string[] {
  if (window === undefined) return [childRunId ?? childId(runId, id, generation)];
  const children: string[] = [];
  for (let i = 0; i < started; i++) if (results[i] === undefined) children.push(childId(runId, memberId(id, i), generation));
  return children;
}

/**
 * What a wait for a detached child comes to when that child ended before: its parent was not told, as it did not wait. Undefined while
 * the child goes on.
 */
export async function endedBefore(store: Store, parentRunId: string, subRunId: string): Promise<Outcome | undefined> {
  const failed = (error: ErrorData): Outcome => ({ kind: "failed", error, retryable: false });
  try {
    const child = await store.load(subRunId);
    if (child?.row.parentRunId !== parentRunId) throw new AbstractRuntimeError("CHILD_UNKNOWN", { runId: parentRunId, subRunId });
    // One that is about to be tried again will end once more.
    if (!isEnded(child.row) || (child.row.status === "failed" && child.row.wakeAt !== null)) return undefined;
    const { status, output = null, error } = (await restoreRun(store, child)).state;
    if (status === "completed") return { kind: "completed", result: { subRunId, output } };
    return failed(status === "failed" && error ? error : { name: "Error", message: `the subworkflow was ${status}` });
  } catch (error) {
    // There is no such child, or it cannot be read: this run goes on with that.
    if (!["CHILD_UNKNOWN", "RECORD_CORRUPT", "FORMAT_NEWER"].some((code) => isError(error, code as ErrorCode))) throw error;
    return failed(errorData(error));
  }
}

/** What the end of a child tells its parent, in the child's last commit. The parent of a detached one hears of it only while it waits. */
export function endMessage(state: RunState): Message | undefined {
  const { status, output, error, cancelling, parent, retries = 0 } = state;
  if (!parent) return undefined;
  const payload: Record<string, unknown> = { runId: state.runId, effectId: parent.effectId, status };
  if (status === "completed") payload.output = output;
  if (status === "failed" && error)
    payload.error = { name: error.name, ...(error.code ? { code: error.code } : {}), message: error.message };
  if (cancelling?.reason !== undefined) payload.reason = cancelling.reason;
  return {
    id: endMessageId(state.runId, retries),
    runId: parent.runId,
    kind: "child_end",
    key: childKey(state.runId),
    payload: payload as Json,
    ...(parent.detached ? { ifWaiting: true } : {}),
  };
}

/** A child that was tried again ends once more, and says so under another id. */
export function endMessageId(runId: string, retries: number): string {
  return retries === 0 ? `end:${runId}` : `end:${runId}:${retries}`;
}

/** Whether an effect starts children that it waits for, or one that it does not. */
export function startsChildren(type: string): boolean {
  return type === "start_subworkflow" || type === "fan_out";
}

/** The workflow that a payload of `start_subworkflow` or `fan_out` names, or undefined where it names none. */
export function childWorkflowOf(payload: unknown): string | undefined {
  if (!isObject(payload)) return undefined;
  const workflowId = payload.workflowId ?? payload.workflow_id;
  return typeof workflowId === "string" ? workflowId : undefined;
}
