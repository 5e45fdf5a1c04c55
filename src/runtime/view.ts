/** A run as users see it: a copy of its state, with what the store knows beside it. */
import type { ErrorData } from "../kernel/errors.ts";
import { cloneJson, type Json, type JsonObject } from "../kernel/json.ts";
import { isEnded, type RunState, type RunStatus, statusOf, type WaitState, wakeAtOf } from "../kernel/run.ts";
import type { Origin } from "../kernel/record.ts";
import type { Blocked } from "../kernel/transition.ts";
import type { Moving } from "../kernel/moving.ts";

export interface Run<Vars = JsonObject, Output = Json> {
  readonly runId: string;
  readonly workflowId: string;
  readonly version: string;
  readonly status: RunStatus;
  readonly paused: boolean;
  /** The node that runs next, or whose effects are open. */
  readonly node: string;
  readonly step: number;
  readonly vars: Vars;
  /** What it waits for; more than one where `all` or `any` opened several. */
  readonly waits: readonly (WaitState & { effectId: string })[];
  /** When status is `completed`. */
  readonly output?: Output;
  /** When status is `failed`. */
  readonly error?: ErrorData;
  /** Why no worker drives it, though it has not ended. */
  readonly blocked?: Blocked;
  /** It is on its way between two stores, or has left this one: nobody drives it here. */
  readonly moving?: Moving;
  /** When it goes on by itself, in milliseconds since 1970; null when only a message can move it. */
  readonly wakeAt: number | null;
  readonly seq: number;
  /** Records before this seq were archived: the ledger here begins with it. */
  readonly archivedBefore?: number;
  /** A cancel was asked for; `cleaning` while the nodes from the workflow's `onCancel` on run. Stays after the end. */
  readonly cancelling?: { readonly reason?: string; readonly cleaning?: true };
  /** What it had done is being undone, or was before it ended. */
  readonly undoing?: { readonly error?: ErrorData; readonly output?: Json };
  /** What could not be undone. */
  readonly undoFailures?: readonly { readonly effectId: string; readonly type: string; readonly error: ErrorData }[];
  /** How often it was tried again after it had failed. */
  readonly retries: number;
  readonly queue?: string;
  readonly queueKey?: string;
  readonly priority: number;
  readonly tags: readonly string[];
  /** Where it goes on from a state that was made elsewhere. */
  readonly origin?: Origin;
  readonly parentRunId?: string;
  readonly actorId?: string;
  readonly sessionId?: string;
  readonly createdAt: number;
  readonly updatedAt: number;
}

export function viewOf(state: RunState, blocked?: Blocked, wakeAt: number | null = wakeAtOf(state)): Run {
  const open = isEnded(state) ? [] : [...state.open.values()];
  const waits = open.flatMap(({ id, wait, phase }) =>
    wait && phase !== "failed" ? [{ ...cloneJson(wait as unknown as JsonObject), effectId: id } as never] : [],
  );
  return {
    runId: state.runId,
    workflowId: state.workflowId,
    version: state.version,
    status: statusOf(state),
    paused: state.paused,
    node: state.node,
    step: state.step,
    vars: cloneJson(state.vars),
    waits,
    ...(state.output === undefined ? {} : { output: cloneJson(state.output) }),
    ...(state.status === "failed" && state.error ? { error: { ...state.error } } : {}),
    ...(blocked ? { blocked } : {}),
    wakeAt,
    seq: state.seq,
    ...(state.archivedBefore === undefined ? {} : { archivedBefore: state.archivedBefore }),
    ...(state.cancelling ? { cancelling: { ...state.cancelling } } : {}),
    ...(state.undoing ? { undoing: { ...state.undoing } } : {}),
    ...(state.undoFailures ? { undoFailures: [...state.undoFailures] } : {}),
    retries: state.retries ?? 0,
    ...(state.queue === undefined ? {} : { queue: state.queue }),
    ...(state.queueKey === undefined ? {} : { queueKey: state.queueKey }),
    priority: state.priority ?? 0,
    tags: [...(state.tags ?? [])],
    ...(state.origin ? { origin: { ...state.origin } } : {}),
    ...(state.parent ? { parentRunId: state.parent.runId } : {}),
    ...(state.actorId === undefined ? {} : { actorId: state.actorId }),
    ...(state.sessionId === undefined ? {} : { sessionId: state.sessionId }),
    createdAt: state.createdAt,
    updatedAt: state.updatedAt,
  };
}
