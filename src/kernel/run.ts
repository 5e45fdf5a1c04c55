/**
 * The state of a run: what the fold of its ledger gives, and the small row that stores keep of it.
 *
 * One mechanism stands behind single effects, waits, parallel effects, children and recovery: the map of open effects.
 */
import type { ErrorData } from "./errors.ts";
import { type Json, type JsonObject, parseJson } from "./json.ts";
import { formatVersion, sha256 } from "./record.ts";
import { type Ref, resolveRefs } from "./refs.ts";

export type RunStatus = "running" | "waiting" | "completed" | "failed" | "cancelled";

export type WaitReason = "event" | "until" | "user" | "job" | "subworkflow";

/** What an effect waits for. Held by the run until something is delivered or the moment comes. */
export interface WaitState {
  reason: WaitReason;
  /** What a message must name. Unique to the step by default, so that an old answer never fits a new question. */
  waitKey: string;
  /** Since when, in milliseconds since 1970. */
  since: number;
  /** For reason `until` the moment awaited, otherwise the deadline; milliseconds since 1970. */
  until?: number;
  prompt?: string;
  choices?: string[];
  /** Whether a text outside `choices` may be answered. Default: only when there are no choices. */
  allowFreeText?: boolean;
  /** JSON Schema of the answer, so that any process can check one. */
  schema?: JsonObject;
  details?: Json;
}

/** An effect that was requested and has not ended. */
export interface OpenEffect {
  id: string;
  type: string;
  step: number;
  node: string;
  /** Idempotency key: hash of the record that opened it. The same for every attempt, never used for another payload. */
  key: string;
  /** Attempts begun. 0 for an effect that is only a wait. */
  attempt: number;
  /** `joining`: an `all` or `any`, which waits for its members. */
  phase: "executing" | "backing_off" | "parked" | "joining";
  payload: Json;
  refs?: Ref[];
  /** The vars that `refs` point into: those at the moment of the request. Not stored. */
  base?: JsonObject;
  resultKey?: string;
  nextNode?: string;
  errorNode?: string;
  timeoutNode?: string;
  parent?: string;
  index?: number;
  /** When the next attempt is due, in milliseconds since 1970. */
  retryAt?: number;
  /** Attempts that only their process's end cut off; they do not count. */
  interruptions?: number;
  /** Whether an earlier attempt may have happened. */
  uncertain?: boolean;
  wait?: WaitState;
  /** Of an `all` or `any`: members still open, and what the ended ones gave, by index. */
  pending?: number;
  results?: (Json | null)[];
  /** Of an `any`: the member that gave the result. */
  winner?: number;
  lastError?: ErrorData;
}

export interface RunState {
  runId: string;
  workflowId: string;
  /** Version of the workflow that started the run. */
  version: string;
  /** `waiting` is derived: see `statusOf`. */
  status: Exclude<RunStatus, "waiting">;
  paused: boolean;
  /** The node that runs next, or whose effects are open. */
  node: string;
  /** Number of that node's execution, from 1. */
  step: number;
  /** Of the last record. */
  seq: number;
  /** Hash of the last record. */
  head: string;
  vars: JsonObject;
  open: Record<string, OpenEffect>;
  /** Keys of the waits that were answered last, newest at the end, so that a late second answer can be told what happened. */
  answered?: string[];
  output?: Json;
  /** Why the run failed, or, while it runs, the failure that led to the present node through `errorNode` or `timeoutNode`. */
  error?: ErrorData;
  /** A cancel was taken: nothing new begins, and the run ends when what is executing has settled. Stays after the end. */
  cancelling?: { reason?: string };
  parent?: { runId: string; effectId: string };
  actorId?: string;
  sessionId?: string;
  createdAt: number;
  updatedAt: number;
}

/** A wait, as the store indexes it. */
export interface OpenWait {
  effectId: string;
  waitKey: string;
  reason: WaitReason;
  since: number;
  until?: number;
}

/** The row of a run: small, no vars, a cache of the fold (L1). */
export interface RunRow {
  runId: string;
  workflowId: string;
  version: string;
  status: RunStatus;
  paused: boolean;
  node: string;
  step: number;
  seq: number;
  head: string;
  /** When the run must be driven next, whatever is delivered; null when only a message can move it, or when it ended. */
  wakeAt: number | null;
  waits: OpenWait[];
  error?: { code?: string; message: string };
  parentRunId?: string;
  actorId?: string;
  sessionId?: string;
  createdAt: number;
  updatedAt: number;
}

export function isEnded(state: { status: RunStatus }): boolean {
  return state.status !== "running" && state.status !== "waiting";
}

/** Whether an `all` or `any` has what it needs: its result is then collected at once. */
export function isJoined(effect: OpenEffect): boolean {
  return effect.phase === "joining" && (effect.type === "any" ? effect.winner !== undefined : effect.pending === 0);
}

/** `waiting` when every open effect is parked or backing off, or waits for such members, and there is one. */
export function statusOf(state: RunState): RunStatus {
  if (state.status !== "running") return state.status;
  let any = false;
  for (const id in state.open) {
    const effect = state.open[id] as OpenEffect;
    if (effect.phase === "executing" || isJoined(effect)) return "running";
    any = true;
  }
  return any ? "waiting" : "running";
}

/** When a run must be driven next: at once while it runs, at its earliest moment while it waits, never by itself when paused or ended. */
export function wakeAtOf(state: RunState): number | null {
  if (isEnded(state) || (state.paused && !state.cancelling)) return null;
  if (state.cancelling) return state.updatedAt;
  let earliest: number | null = null;
  let any = false;
  for (const id in state.open) {
    const effect = state.open[id] as OpenEffect;
    if (effect.phase === "executing" || isJoined(effect)) return state.updatedAt;
    any = true;
    const at = effect.phase === "backing_off" ? effect.retryAt : effect.wait?.until;
    if (at !== undefined && (earliest === null || at < earliest)) earliest = at;
  }
  return any ? earliest : state.updatedAt;
}

export function rowOf(state: RunState): RunRow {
  const waits: OpenWait[] = [];
  for (const id in state.open) {
    const { wait } = state.open[id] as OpenEffect;
    if (wait) {
      const { waitKey, reason, since, until } = wait;
      waits.push({ effectId: id, waitKey, reason, since, ...(until === undefined ? {} : { until }) });
    }
  }
  const failure = state.status === "failed" ? state.error : undefined;
  return {
    runId: state.runId,
    workflowId: state.workflowId,
    version: state.version,
    status: statusOf(state),
    paused: state.paused,
    node: state.node,
    step: state.step,
    seq: state.seq,
    head: state.head,
    wakeAt: wakeAtOf(state),
    waits,
    error: failure && { ...(failure.code ? { code: failure.code } : {}), message: failure.message.slice(0, 500) },
    parentRunId: state.parent?.runId,
    actorId: state.actorId,
    sessionId: state.sessionId,
    createdAt: state.createdAt,
    updatedAt: state.updatedAt,
  };
}

/** The payload of an open effect, with its references filled in. Shared with the vars: copy it before handing it out. */
export function payloadOf(effect: OpenEffect): Json {
  return effect.refs && effect.base ? resolveRefs(effect.payload, effect.refs, effect.base) : effect.payload;
}

/**
 * A checkpoint: the state as text, behind the hash of that text. Payloads keep their references, which point into the vars beside
 * them: those do not change while an effect is open. A payload of which that is not true is written whole.
 */
export function encodeState(state: RunState): string {
  const open: Record<string, OpenEffect> = {};
  for (const id in state.open) {
    const { base, refs, ...effect } = state.open[id] as OpenEffect;
    if (refs && base === state.vars) open[id] = { ...effect, refs };
    else open[id] = { ...effect, payload: payloadOf(state.open[id] as OpenEffect) };
  }
  const text = JSON.stringify({ v: formatVersion, ...state, open });
  return `${sha256(text)}\n${text}`;
}

/** @throws RangeError when the text is not what was written: the state is then rebuilt from the ledger. */
export function decodeState(checkpoint: string): RunState {
  const text = checkpoint.slice(65);
  if (sha256(text) !== checkpoint.slice(0, 64)) throw new RangeError("The checkpoint does not match its hash.");
  const { v, ...state } = parseJson(text) as unknown as RunState & { v: number };
  if (v > formatVersion) throw new RangeError(`The checkpoint has format ${v}; this version reads up to ${formatVersion}.`);
  for (const effect of Object.values(state.open)) if (effect.refs) effect.base = state.vars;
  return state;
}
