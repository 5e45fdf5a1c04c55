/**
 * The state of a run: what the fold of its ledger gives, and the small row that stores keep of it.
 *
 * One mechanism stands behind single effects, waits, parallel effects, children and recovery: the map of open effects.
 */
import type { ScopedBudget } from "./budget.ts";
import type { ErrorData } from "./errors.ts";
import { isObject, type Json, type JsonObject, member, parseJson } from "./json.ts";
import { formatVersion, type Origin, type ParentLink, sha256 } from "./record.ts";
import { type Ref, resolveRefs } from "./refs.ts";
import type { Outcome } from "./step.ts";
import type { Scalar } from "./query.ts";

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
  /** What is delivered, or the deadline, or a cancel, is for the handler that asked: it is called again. */
  again?: true;
  onTimeout?: "again";
  onCancel?: "again";
  /** It waits for room in the budget of this run: an answer is for the runtime, which raises it. */
  budget?: string;
}

export type Phase = "executing" | "backing_off" | "parked" | "joining" | "failed";

/** What a wait `{ again: true }` of a handler was answered with, and by whom. */
export interface WaitAnswer {
  payload: Json;
  waitKey: string;
  actorId?: string;
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
  /** `joining`: an `all` or `any`, which waits for its members. `failed`: for good; kept until its group or a retry of the run looks at it. */
  phase: Phase;
  /** Of a member whose group failed: what it was when that happened, for a retry. */
  was?: Phase;
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
  /** Attempts made before the run was retried, which do not count. */
  uncounted?: number;
  /** Attempts since then that were cut off by the end of their process, which do not count either. */
  interruptions?: number;
  /** Whether an earlier attempt may have happened. */
  uncertain?: boolean;
  wait?: WaitState;
  /** What its handler's waits were answered with, in order, when it is called again. */
  answers?: WaitAnswer[];
  /** The last of these waits has passed its deadline, or was cut short by a cancel. */
  timedOut?: true;
  parting?: true;
  /** What that wait said in its details. */
  waited?: Json;
  /** That wait was to be cut short by a cancel: until the next one, a cancel calls the handler all the same. */
  leaves?: true;
  /** How often it has looked for room in a budget, in vain, and what it had asked before it looked again. */
  looks?: number;
  asked?: string;
  /** Of a group: how many members there are, how many are still open, and what the ended ones gave, by index. */
  members?: number;
  pending?: number;
  results?: (Json | undefined)[];
  collect?: true;
  /** Of an `any`: the member that gave the result. */
  winner?: number;
  /** Of an `all` or `fan_out` that fails fast: what failed it. */
  failure?: ErrorData;
  /** Of a `fan_out`: how many children may be under way at a time; those before index `started` have been begun, `running` of them have not ended. */
  window?: number;
  started?: number;
  running?: number;
  /** Counts the retries of the run that begin its children anew: under other ids. */
  generation?: number;
  /** The child that was begun by the Python package, under an id of its own; its end is delivered in the form that it has there. */
  childRunId?: string;
  lastError?: ErrorData;
  undo?: true;
  undoes?: string;
}

/** A completed effect that is to be undone should the run fail or be cancelled. */
export interface Undoable {
  effectId: string;
  type: string;
  node: string;
  payload: Json;
  result: Json;
}

export interface RunState {
  runId: string;
  workflowId: string;
  /** The version of its workflow that the run is of now. */
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
  /** By id, in the order in which they were opened. */
  open: Map<string, OpenEffect>;
  /** In the order in which they were completed. */
  undoable?: Undoable[];
  /** Keys of the waits that were answered last, newest at the end, so that a late second answer can be told what happened. */
  answered?: string[];
  output?: Json;
  /** Why the run failed, or, while it runs, the failure that led to the present node through `errorNode` or `timeoutNode`. */
  error?: ErrorData;
  /**
   * A cancel was taken: nothing new begins, and when what is executing has settled, the run ends, or goes to its workflow's
   * `onCancel` first (`cleaning`). Stays after the end.
   */
  cancelling?: { reason?: string; cleaning?: true };
  /** Completed effects are being undone, and this is what the run ends with. */
  undoing?: { error?: ErrorData; output?: Json };
  /** What could not be undone. Stays after the end. */
  undoFailures?: { effectId: string; type: string; error: ErrorData }[];
  /** How often the run was tried again after it had failed. */
  retries?: number;
  /** Of a failed run: the vars before the change that its last node made, which a retry runs again. Not stored. */
  beforeFailure?: JsonObject;
  /** The workflow's `onCancel` when the run started. */
  onCancel?: string;
  parent?: ParentLink;
  queue?: string;
  queueKey?: string;
  priority?: number;
  tags?: string[];
  /** Dotted paths of the vars that queries find it by. */
  index?: string[];
  /** What it may spend: its own budget first, then those of the runs above it. */
  budgets?: ScopedBudget[];
  /** Where it goes on from a state that was made elsewhere. */
  origin?: Origin;
  /**
   * What another program had recorded of the effect that the present node requests, and not yet made part of the state: the node runs
   * again, the effect does not. Without an outcome, it may have happened.
   */
  carried?: { type: string; payload: Json; outcome?: Outcome; childRunId?: string };
  /** Records before this seq were archived. */
  archivedBefore?: number;
  actorId?: string;
  sessionId?: string;
  /** The W3C `traceparent` that stands in its records last. */
  trace?: string;
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
  /** The queue whose limits hold for it, and its key within that. As created, like the priority. */
  queue?: string;
  queueKey?: string;
  /** Due runs of higher priority are driven first. */
  priority: number;
  error?: { code?: string; message: string };
  parentRunId?: string;
  tags?: string[];
  actorId?: string;
  sessionId?: string;
  createdAt: number;
  updatedAt: number;
}

export function isEnded(state: { status: RunStatus }): boolean {
  return state.status !== "running" && state.status !== "waiting";
}

/** Whether a group has what it needs, or cannot get it any more: it ends as soon as its members that execute have settled. */
export function isJoined(effect: OpenEffect): boolean {
  if (effect.pending === undefined || effect.phase === "failed") return false;
  return effect.pending === 0 || effect.winner !== undefined || effect.failure !== undefined;
}

/** Children begun by one commit: enough to share its cost, few enough for others to have their turn. */
export const largestBatch = 500;

/** Whether a `fan_out` should begin more children: half of its window is free, or a whole batch. */
export function wantsChildren({ phase, members = 0, window, started = 0, running = 0, failure }: OpenEffect): boolean {
  return (
    window !== undefined &&
    phase !== "failed" &&
    failure === undefined &&
    started < members &&
    running <= Math.max(window / 2, window - largestBatch)
  );
}

/** Whether an open effect must be looked at now, by itself. */
function moves(effect: OpenEffect): boolean {
  return effect.phase === "executing" || isJoined(effect) || wantsChildren(effect);
}

/** Whether a group above it goes on without it, and nothing comes back to it: another has won, or a node takes the failure. */
export function isLeftBehind(state: RunState, { parent }: OpenEffect): boolean {
  const group = parent === undefined ? undefined : state.open.get(parent);
  if (!group) return false;
  return (
    group.winner !== undefined || (group.failure !== undefined && group.errorNode !== undefined) || isLeftBehind(state, group)
  );
}

/** Whether its handler, which waits or is to be tried again, wants to be called once more when nobody waits for it any more. */
export function wantsCallOff({ phase, wait, leaves, parting }: OpenEffect): boolean {
  return !parting && (phase === "parked" || phase === "backing_off") && (leaves || wait?.onCancel === "again") === true;
}

/** What a cancelled run still does takes no answers, until its `onCancel` node or an undo asks for some. */
export function isWindingUp({ cancelling, undoing }: RunState): boolean {
  return cancelling !== undefined && !cancelling.cleaning && undoing === undefined;
}

/** `waiting` when every open effect is parked or backing off, or waits for such members, and there is one. */
export function statusOf(state: RunState): RunStatus {
  if (state.status !== "running") return state.status;
  let any = false;
  for (const effect of state.open.values()) {
    if (moves(effect)) return "running";
    any = true;
  }
  return any ? "waiting" : "running";
}

/** When a run must be driven next: at once while it runs, at its earliest moment while it waits, never by itself when paused or ended. */
export function wakeAtOf(state: RunState): number | null {
  if (isEnded(state) || state.paused) return null;
  if (isWindingUp(state)) return state.updatedAt;
  let earliest: number | null = null;
  let any = false;
  for (const effect of state.open.values()) {
    if (moves(effect)) return state.updatedAt;
    any = true;
    if (effect.phase === "failed") continue;
    const at = effect.phase === "backing_off" ? effect.retryAt : effect.wait?.until;
    if (at !== undefined && (earliest === null || at < earliest)) earliest = at;
  }
  return any ? earliest : state.updatedAt;
}

/** A wait as the store indexes it. */
export function openWait({ id, wait }: OpenEffect): OpenWait {
  const { waitKey, reason, since, until } = wait as WaitState;
  return { effectId: id, waitKey, reason, since, ...(until === undefined ? {} : { until }) };
}

/** The waits that messages can end. A run that has ended has none, even if a retry would open them again. */
export function openWaits(state: RunState): OpenWait[] {
  return isEnded(state)
    ? []
    : [...state.open.values()].flatMap((effect) => (effect.wait && effect.phase !== "failed" ? [openWait(effect)] : []));
}

export function rowOf(state: RunState): RunRow {
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
    queue: state.queue,
    queueKey: state.queueKey,
    priority: state.priority ?? 0,
    error: failure && { ...(failure.code ? { code: failure.code } : {}), message: failure.message.slice(0, 500) },
    parentRunId: state.parent?.runId,
    tags: state.tags,
    actorId: state.actorId,
    sessionId: state.sessionId,
    createdAt: state.createdAt,
    updatedAt: state.updatedAt,
  };
}

/** Longer texts are not indexed. */
export const longestIndexed = 500;

/** The indexed vars of a run, by path. What is no scalar, or too long, is not found by queries. */
export function indexedOf({ index = [], vars }: Pick<RunState, "index" | "vars">): Record<string, Scalar> {
  const indexed: Record<string, Scalar> = {};
  for (const path of index) {
    let value: Json | undefined = vars;
    for (const key of path.split(".")) value = isObject(value) || Array.isArray(value) ? member(value, key) : undefined;
    const isIndexed =
      typeof value === "number" ||
      typeof value === "boolean" ||
      (typeof value === "string" && value.length <= longestIndexed && value.isWellFormed());
    if (isIndexed) indexed[path] = value as Scalar;
  }
  return indexed;
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
  const open: OpenEffect[] = [];
  for (const effect of state.open.values()) {
    const { base, refs, ...kept } = effect;
    open.push(refs && base === state.vars ? { ...kept, refs } : { ...kept, payload: payloadOf(effect) });
  }
  const text = JSON.stringify({ v: formatVersion, ...state, open, beforeFailure: undefined });
  return `${sha256(text)}\n${text}`;
}

/** @throws RangeError when the text is not what was written: the state is then rebuilt from the ledger. */
export function decodeState(checkpoint: string): RunState {
  const text = checkpoint.slice(65);
  if (sha256(text) !== checkpoint.slice(0, 64)) throw new RangeError("The checkpoint does not match its hash.");
  const { v, ...state } = parseJson(text) as unknown as EncodedState & { v: number };
  if (v > formatVersion) throw new RangeError(`The checkpoint has format ${v}; this version reads up to ${formatVersion}.`);
  return decoded(state);
}

type EncodedState = Omit<RunState, "open"> & { open: OpenEffect[] };

/** A state as data, for a run that goes on from it elsewhere: without its place in a ledger, payloads written out. */
export function plainState(state: RunState): JsonObject {
  const { runId: _, seq: __, head: ___, updatedAt: ____, beforeFailure: _____, archivedBefore: ______, ...rest } = state;
  const { trace: _______, ...kept } = rest;
  const open = [...state.open.values()].map(({ base: _, refs: __, ...effect }) => effect);
  for (const effect of open) effect.payload = payloadOf(state.open.get(effect.id) as OpenEffect);
  return parseJson(JSON.stringify({ ...kept, open })) as JsonObject;
}

/** What `plainState` gave, at the place of a run's first record. */
export function fromPlain(plain: JsonObject, place: Pick<RunState, "runId" | "seq" | "head" | "updatedAt">): RunState {
  const { open, createdAt, ...state } = structuredClone(plain) as unknown as EncodedState;
  return decoded({ ...state, open, ...place, createdAt: createdAt ?? place.updatedAt });
}

function decoded({ open, ...state }: EncodedState): RunState {
  for (const effect of open) {
    if (effect.refs) effect.base = state.vars;
    // JSON has no holes: what is not there yet is written as null.
    if (effect.results) effect.results = effect.results.map((result) => result ?? undefined);
  }
  return { ...state, open: new Map(open.map((effect) => [effect.id, effect])) };
}
