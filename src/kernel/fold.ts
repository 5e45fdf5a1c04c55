/**
 * The fold: state + record -> state. Drivers, time travel and verifiers all use this one function, so that a run is
 * exactly what its ledger says (L1).
 *
 * F1. Pure but for ownership: the given state is used up and the next one returned. `vars` and payloads are shared
 *     between states and never changed, unless the caller passes `owned` (see `Folding`).
 * F2. A record's patch is applied first, then what its kind means.
 */
import { childKey } from "./child-id.ts";
import { AbstractRuntimeError, type ErrorData } from "./errors.ts";
import type { Json, JsonObject } from "./json.ts";
import { applyPatch, type Owned, type Patch, setAt } from "./patch.ts";
import type { Intent, LedgerRecord, StoredRecord } from "./record.ts";
import {
  fromPlain,
  isEnded,
  isLeftBehind,
  isWindingUp,
  type OpenEffect,
  payloadOf,
  type RunState,
  type WaitAnswer,
} from "./run.ts";
import type { Restored } from "./restore.ts";

/**
 * What a sequence of folds shares. With `owned`, each container of the vars is copied once per sequence instead of once
 * per record, which is what makes loading a long tail cheap. Vars that an open effect refers to are let go of.
 */
export interface Folding {
  owned?: Owned;
}

/** Enough for the waits of a step or two; a late answer to an older one is told that nothing waits under its key. */
const rememberedAnswers = 16;

/** @throws RECORD_CORRUPT when the record cannot follow this state. */
export function fold(state: RunState | undefined, record: LedgerRecord, folding: Folding = {}): RunState {
  try {
    if (record.kind === "run_started" || record.kind === "run_restored") {
      if (state || record.seq !== 0) throw new RangeError("a run starts with its first record, once");
      return record.kind === "run_started" ? begin(record) : restored(record);
    }
    if (!state || record.seq !== state.seq + 1) throw new RangeError(`it does not follow record ${state?.seq ?? "none"}`);
    if (isEnded(state) && !mayFollowFailure(state, record)) throw new RangeError("the run had ended");
    const patch = (record.data as { patch?: Patch }).patch;
    if (patch && record.kind === "run_failed") {
      state.beforeFailure = state.vars;
      if (folding.owned) folding.owned = new Set();
    }
    if (patch) state.vars = applyPatch(state.vars, patch, folding.owned) as JsonObject;
    apply(state, record, folding);
    state.seq = record.seq;
    state.head = record.hash;
    state.updatedAt = record.at;
    if (record.trace !== undefined) state.trace = record.trace;
    return state;
  } catch (error) {
    if (error instanceof AbstractRuntimeError) throw error;
    const problem = error instanceof Error ? error.message : String(error);
    throw new AbstractRuntimeError("RECORD_CORRUPT", { runId: record.runId, seq: record.seq, problem }, error);
  }
}

/** A run of which there is nothing but its first record. */
export function firstRestored(state: RunState, record: StoredRecord): Restored {
  return { state, checkpoint: { size: 0, ordinal: 0 }, tailSize: sizeOf(record), varsBound: sizeOf(record) };
}

export function sizeOf({ header, body }: StoredRecord): number {
  return header.length + (body?.length ?? 0);
}

/** A run that failed may be tried again; whatever else reaches it is noted. */
function mayFollowFailure({ status }: RunState, { kind, data }: LedgerRecord): boolean {
  return (
    status === "failed" &&
    ((kind === "control" && data.action === "retry") || (kind === "delivered" && data.outcome === "ignored"))
  );
}

function begin(record: LedgerRecord & { kind: "run_started" }): RunState {
  const { workflowId, version, entry, vars, parent, sessionId, queue, queueKey, priority, onCancel, tags, index, budgets } =
    record.data;
  return {
    runId: record.runId,
    workflowId,
    version,
    status: "running",
    paused: false,
    node: entry,
    step: 1,
    seq: 0,
    head: record.hash,
    vars,
    open: new Map(),
    ...(parent ? { parent } : {}),
    ...(queue === undefined ? {} : { queue }),
    ...(queueKey === undefined ? {} : { queueKey }),
    ...(priority === undefined ? {} : { priority }),
    ...(onCancel === undefined ? {} : { onCancel }),
    ...(tags ? { tags } : {}),
    ...(index ? { index } : {}),
    ...(budgets ? { budgets } : {}),
    ...(record.actorId === undefined ? {} : { actorId: record.actorId }),
    ...(sessionId === undefined ? {} : { sessionId }),
    ...(record.trace === undefined ? {} : { trace: record.trace }),
    createdAt: record.at,
    updatedAt: record.at,
  };
}

function restored({ runId, at, hash, actorId, data }: LedgerRecord & { kind: "run_restored" }): RunState {
  const state = fromPlain(data.state, { runId, seq: 0, head: hash, updatedAt: at });
  state.origin = data.origin;
  if (actorId !== undefined) state.actorId = actorId;
  return state;
}

function apply(state: RunState, record: Exclude<LedgerRecord, { kind: "run_started" | "run_restored" }>, folding: Folding): void {
  switch (record.kind) {
    case "step":
      if (record.data.cleanup) state.cancelling = { ...state.cancelling, cleaning: true };
      return advance(state, record.data.nextNode);
    case "effect_started": {
      const effect = record.data.intent ? open(state, record, record.data.intent, folding) : opened(state, record.effectId);
      if (!record.data.intent && (isWindingUp(state) || isLeftBehind(state, effect))) calledOff(effect);
      else if (effect.wait?.budget !== undefined) looksAgain(effect);
      else if (effect.wait) timedOut(effect);
      effect.attempt = record.attempt ?? 1;
      effect.phase = effect.members === undefined ? "executing" : "joining";
      delete effect.retryAt;
      if (effect.attempt === 0) backOff(effect, record.at);
      return;
    }
    case "parked": {
      const { intent, wait, started, refused = [] } = record.data;
      const effect = intent ? open(state, record, intent, folding) : opened(state, record.effectId);
      effect.wait = wait;
      delete effect.asked;
      if (wait.budget === undefined) {
        delete effect.looks;
        delete effect.leaves;
      }
      if (started === undefined) effect.phase = "parked";
      else begun(effect, started, refused);
      const carried = state.carried?.childRunId;
      if (carried !== undefined && wait.waitKey === childKey(carried)) effect.childRunId = carried;
      return;
    }
    case "effect_completed": {
      const effect = opened(state, record.effectId);
      return close(state, effect, "collect" in record.data ? collected(effect) : record.data.result, folding);
    }
    case "effect_failed": {
      const { error, retryAt, nextNode, interrupted } = record.data;
      const effect = opened(state, record.effectId);
      if (interrupted) {
        effect.interruptions = (effect.interruptions ?? 0) + 1;
        delete effect.parting;
      }
      return failed(state, effect, error, retryAt, nextNode);
    }
    case "effect_uncertain": {
      const effect = opened(state, record.effectId);
      effect.uncertain = true;
      if (record.data.error) effect.lastError = record.data.error;
      if (record.data.wait) {
        effect.phase = "parked";
        effect.wait = record.data.wait;
      } else if (record.data.retryAt !== undefined) backOff(effect, record.data.retryAt);
      return;
    }
    case "delivered": {
      const { outcome, payload, result, error, nextNode, messageKind, key } = record.data;
      if (outcome === "ignored") return;
      if (messageKind === "answer") state.answered = [...(state.answered ?? []), key].slice(-rememberedAnswers);
      const effect = opened(state, record.effectId);
      if (outcome === "result") return close(state, effect, result === undefined ? payload : result, folding);
      if (outcome === "retry") return backOff(effect, record.at);
      if (outcome === "again" && effect.wait?.budget !== undefined) {
        looksAgain(effect);
        delete effect.looks;
        delete effect.asked;
        return backOff(effect, record.at);
      }
      if (outcome === "again") {
        answered(effect, { payload, waitKey: key, ...(record.actorId === undefined ? {} : { actorId: record.actorId }) });
        return backOff(effect, record.at);
      }
      if (outcome === "member") return memberEnded(effect, record.data.index as number, result, error);
      return failed(state, effect, error ?? { name: "Error", message: "failed" }, undefined, nextNode);
    }
    case "control":
      return control(state, record);
    case "migrated": {
      state.version = record.data.to;
      rename(state, record.data.nodes ?? {});
      return;
    }
    case "undoing": {
      const { error, output } = record.data;
      state.undoing = { ...(error ? { error } : {}), ...(output === undefined ? {} : { output }) };
      state.open = new Map();
      return;
    }
    case "run_completed":
      state.output = record.data.output;
      return end(state, "completed");
    case "run_failed":
      state.error = record.data.error;
      // What is open stays, for a retry. Without one, nobody looks at it again.
      state.status = "failed";
      return;
    case "run_cancelled":
      if (record.data.output !== undefined) state.output = record.data.output;
      if (record.data.error) state.error = record.data.error;
      return end(state, "cancelled");
    default:
      throw new RangeError(`its kind "${(record as { kind: string }).kind}" is not known`);
  }
}

function control(state: RunState, { at, data }: LedgerRecord & { kind: "control" }): void {
  const { action, reason } = data;
  if (action === "archived") state.archivedBefore = data.before as number;
  else if (action === "cancel") {
    state.cancelling ??= reason === undefined ? {} : { reason };
    state.paused = false;
  } else if (action === "retry") retry(state, at);
  else state.paused = action === "pause";
}

/** A failed run goes on: its node is run again, or what it had open is tried again, but for members that were completed. */
function retry(state: RunState, at: number): void {
  if (state.status !== "failed") throw new RangeError("only a run that has failed is tried again");
  state.status = "running";
  state.retries = (state.retries ?? 0) + 1;
  delete state.error;
  if (state.beforeFailure) state.vars = state.beforeFailure;
  delete state.beforeFailure;
  if (state.open.size === 0) state.step += 1;
  const settled = (effect: OpenEffect): boolean =>
    effect.phase === "failed" &&
    effect.was === undefined &&
    effect.parent !== undefined &&
    state.open.get(effect.parent)?.collect === true;
  const stoodMs = at - state.updatedAt;
  for (const effect of state.open.values()) if (!settled(effect)) reopen(effect, at, stoodMs);
  for (const group of state.open.values()) {
    if (group.pending === undefined || group.window !== undefined) continue;
    group.pending = [...state.open.values()].filter(({ parent, phase }) => parent === group.id && phase !== "failed").length;
  }
}

/** @param stoodMs For how long the run stood failed: deadlines do not run meanwhile. */
function reopen(effect: OpenEffect, at: number, stoodMs: number): void {
  if (effect.was) effect.phase = effect.was;
  delete effect.was;
  const { phase, wait } = effect;
  delete effect.failure;
  if (effect.window !== undefined) {
    // The children that were under way were cancelled when the run failed: others take their places.
    effect.phase = "joining";
    effect.generation = (effect.generation ?? 0) + 1;
    effect.started = 0;
    effect.running = 0;
    effect.pending = (effect.members as number) - (effect.results as Json[]).filter((result) => result !== undefined).length;
    delete effect.wait;
  } else if (effect.members !== undefined) effect.phase = "joining";
  else if (effect.type === "start_subworkflow" && (phase === "failed" || phase === "parked")) {
    effect.phase = "executing";
    effect.generation = (effect.generation ?? 0) + 1;
    delete effect.childRunId;
    delete effect.wait;
  } else if (phase === "failed" && effect.attempt === 0 && wait) {
    effect.phase = "parked";
    effect.wait = { ...wait, since: at, ...(wait.until === undefined ? {} : { until: at + wait.until - wait.since }) };
  } else if (phase === "parked" && wait?.until !== undefined && wait.reason !== "until") {
    effect.wait = { ...wait, until: wait.until + stoodMs };
  } else if (phase === "failed") {
    effect.uncounted = effect.attempt;
    delete effect.interruptions;
    waitOver(effect);
    backOff(effect, at);
  }
}

function rename(state: RunState, nodes: Record<string, string>): void {
  const renamed = <Name extends string | undefined>(name: Name): Name =>
    (name !== undefined && Object.hasOwn(nodes, name) ? nodes[name] : name) as Name;
  state.node = renamed(state.node);
  for (const effect of state.open.values()) {
    effect.node = renamed(effect.node);
    for (const key of ["nextNode", "errorNode", "timeoutNode"] as const) {
      const name = renamed(effect[key]);
      if (name !== undefined) effect[key] = name;
    }
  }
}

function open(
  state: RunState,
  record: LedgerRecord & { kind: "effect_started" | "parked" },
  intent: Intent,
  folding: Folding,
): OpenEffect {
  const id = record.effectId;
  if (id === undefined || state.open.has(id)) throw new RangeError(`effect ${id} is open already`);
  const effect: OpenEffect = {
    ...intent,
    id,
    step: record.step,
    node: record.node,
    key: record.hash,
    attempt: 0,
    phase: "executing",
  };
  if (intent.members !== undefined) {
    effect.pending = intent.members;
    effect.results = [];
  }
  if (intent.refs) {
    effect.base = state.vars;
    if (folding.owned) folding.owned = new Set();
  }
  state.open.set(id, effect);
  return effect;
}

function opened(state: RunState, id: string | undefined): OpenEffect {
  const effect = id === undefined ? undefined : state.open.get(id);
  if (!effect || effect.phase === "failed") throw new RangeError(`effect ${id} is not open`);
  return effect;
}

/** An effect ends with a result: a member hands it to its group, the plan's own effect writes it and moves the run on. */
function close(state: RunState, effect: OpenEffect, result: Json, folding: Folding): void {
  const group = effect.parent === undefined ? undefined : opened(state, effect.parent);
  discard(state, effect);
  if (effect.undoes !== undefined) return undone(state, effect.undoes);
  if (effect.undo && !state.cancelling?.cleaning) {
    const { id, type, node } = effect;
    // Vars are shared with what is to be undone from now on, and so may not be changed in place.
    if (effect.refs && folding.owned) folding.owned = new Set();
    state.undoable ??= [];
    state.undoable.push({ effectId: id, type, node, payload: payloadOf(effect), result });
  }
  if (group) {
    (group.results as Json[])[effect.index as number] = group.collect ? { status: "completed", result } : result;
    group.pending = (group.pending as number) - 1;
    if (group.type === "any" && group.winner === undefined) group.winner = effect.index as number;
    return;
  }
  if (effect.resultKey !== undefined) state.vars = setAt(state.vars, effect.resultKey, result, folding.owned) as JsonObject;
  advance(state, effect.nextNode as string);
}

function failed(state: RunState, effect: OpenEffect, error: ErrorData, retryAt?: number, nextNode?: string): void {
  if (retryAt !== undefined) {
    effect.lastError = error;
    return backOff(effect, retryAt);
  }
  if (effect.undoes !== undefined) {
    discard(state, effect);
    undone(state, effect.undoes);
    state.undoFailures = [...(state.undoFailures ?? []), { effectId: effect.undoes, type: effect.type, error }];
    return;
  }
  const group = effect.parent === undefined ? undefined : opened(state, effect.parent);
  if (group) {
    group.pending = (group.pending as number) - 1;
    group.lastError = error;
    if (group.collect) (group.results as Json[])[effect.index as number] = { status: "failed", error: shownError(error) };
    else if (group.type !== "any") group.failure ??= error;
  }
  if (nextNode === undefined) {
    effect.lastError = error;
    delete effect.retryAt;
    stopMembers(state, effect);
    effect.phase = "failed";
    return;
  }
  discard(state, effect);
  advance(state, nextNode);
  state.error = error;
}

/** What a failed group had open moves no more, unless the run is retried. */
function stopMembers(state: RunState, group: OpenEffect): void {
  if (group.members === undefined) return;
  for (const member of state.open.values()) {
    if (!member.id.startsWith(`${group.id}.`) || member.phase === "failed") continue;
    member.was = member.phase;
    member.phase = "failed";
  }
}

/** Children of a `fan_out` up to an index have been begun; those that ended before a retry of the run are left out. */
function begun(effect: OpenEffect, started: number, refused: readonly { index: number; error: ErrorData }[]): void {
  const results = effect.results as Json[];
  for (const { index, error } of refused) {
    results[index] = { status: "failed", subRunId: null, error: shownError(error) };
    effect.pending = (effect.pending as number) - 1;
  }
  let running = effect.running ?? 0;
  for (let i = effect.started ?? 0; i < started; i++) if (results[i] === undefined) running += 1;
  effect.started = started;
  effect.running = running;
}

/** A child of a `fan_out` ended. Where it failed the whole, its place stays free for a retry. */
function memberEnded(effect: OpenEffect, index: number, result: Json | undefined, error: ErrorData | undefined): void {
  effect.pending = (effect.pending as number) - 1;
  effect.running = (effect.running as number) - 1;
  if (result !== undefined) (effect.results as Json[])[index] = result;
  else effect.failure ??= error ?? { name: "Error", message: "failed" };
}

/** A wait of its handler's was answered. What it has asked for was not under way: the attempts so far count for nothing. */
function answered(effect: OpenEffect, answer: WaitAnswer): void {
  effect.answers = [...(effect.answers ?? []), answer];
  effect.uncounted = effect.attempt;
  delete effect.interruptions;
  delete effect.timedOut;
  waitOver(effect);
}

/** A wait of its handler's has passed its deadline. */
function timedOut(effect: OpenEffect): void {
  effect.uncounted = effect.attempt;
  delete effect.interruptions;
  waitOver(effect);
  effect.timedOut = true;
}

/** Nobody waits for it any more: its handler is called once more. What was cut off stays counted, so that this has an end. */
function calledOff(effect: OpenEffect): void {
  effect.uncounted = effect.attempt - (effect.interruptions ?? 0);
  effect.parting = true;
  if (effect.wait) waitOver(effect);
}

/** A handler that waited for a budget is called again as if it had not asked: nothing of its own was answered, or begun. */
function looksAgain(effect: OpenEffect): void {
  effect.uncounted = (effect.uncounted ?? 0) + 1;
  effect.looks = (effect.looks ?? 0) + 1;
  if (effect.wait) effect.asked = effect.wait.waitKey;
  delete effect.wait;
}

/** Its details are what the handler left to itself. A wait for a budget, or of the runtime's own, leaves nothing. */
function waitOver(effect: OpenEffect): void {
  const { wait } = effect;
  delete effect.wait;
  if (!wait?.again || wait.budget !== undefined) return;
  // The attempt that asked has said what it did.
  delete effect.uncertain;
  if (wait.details === undefined) delete effect.waited;
  else effect.waited = wait.details;
  if (wait.onCancel === "again") effect.leaves = true;
}

function undone(state: RunState, effectId: string): void {
  const at = state.undoable?.findLastIndex((entry) => entry.effectId === effectId) ?? -1;
  if (at >= 0) state.undoable?.splice(at, 1);
}

/** Takes an effect out, and with a group the members that were still open. */
function discard(state: RunState, effect: OpenEffect): void {
  state.open.delete(effect.id);
  if (effect.pending === undefined) return;
  for (const id of state.open.keys()) if (id.startsWith(`${effect.id}.`)) state.open.delete(id);
}

function backOff(effect: OpenEffect, retryAt: number): void {
  effect.phase = "backing_off";
  effect.retryAt = retryAt;
  delete effect.wait;
}

/** The run stands at its next node. Whatever the last plan left open is closed by the record that moved it on. */
function advance(state: RunState, node: string): void {
  if (state.open.size > 0) state.open = new Map();
  state.node = node;
  state.step += 1;
  delete state.error;
  delete state.carried;
}

function end(state: RunState, status: "completed" | "cancelled"): void {
  state.open = new Map();
  state.status = status;
}

/** What the members of a group gave, in order; of an `any`, which one was first and what it gave. */
export function collected(effect: OpenEffect): Json {
  const results = effect.results as Json[];
  if (effect.type !== "any") return Array.from({ length: effect.members as number }, (_, i) => results[i] ?? null);
  const index = effect.winner as number;
  return { index, result: results[index] ?? null };
}

/** An error among results: what a program can use, and no stack. */
export function shownError({ name, code, message }: ErrorData): JsonObject {
  return { name, ...(code === undefined ? {} : { code }), message };
}
