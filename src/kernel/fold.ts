/**
 * The fold: state + record -> state. Drivers, time travel and verifiers all use this one function, so that a run is
 * exactly what its ledger says (L1).
 *
 * F1. Pure but for ownership: the given state is used up and the next one returned. `vars` and payloads are shared
 *     between states and never changed, unless the caller passes `owned` (see `Folding`).
 * F2. A record's patch is applied first, then what its kind means.
 */
import { AbstractRuntimeError } from "./errors.ts";
import type { Json, JsonObject } from "./json.ts";
import { applyPatch, type Owned, type Patch, setAt } from "./patch.ts";
import { decodeRecord, type Intent, type LedgerRecord, verifyRecord } from "./record.ts";
import { decodeState, isEnded, type OpenEffect, type RunState } from "./run.ts";
import type { Loaded } from "./store.ts";

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
    if (record.kind === "run_started") {
      if (state || record.seq !== 0) throw new RangeError("a run starts with its first record, once");
      return begin(record);
    }
    if (!state || record.seq !== state.seq + 1) throw new RangeError(`it does not follow record ${state?.seq ?? "none"}`);
    if (isEnded(state)) throw new RangeError("the run had ended");
    const patch = (record.data as { patch?: Patch }).patch;
    if (patch) state.vars = applyPatch(state.vars, patch, folding.owned) as JsonObject;
    apply(state, record, folding);
    state.seq = record.seq;
    state.head = record.hash;
    state.updatedAt = record.at;
    return state;
  } catch (error) {
    if (error instanceof AbstractRuntimeError) throw error;
    const problem = error instanceof Error ? error.message : String(error);
    throw new AbstractRuntimeError("RECORD_CORRUPT", { runId: record.runId, seq: record.seq, problem }, error);
  }
}

/** Rebuilds a run's state from what the store holds. @throws RECORD_CORRUPT, FORMAT_NEWER */
export function restore(runId: string, loaded: Pick<Loaded, "checkpoint" | "tail">): { state: RunState; tailBytes: number } {
  let state = loaded.checkpoint ? decodeState(loaded.checkpoint.text) : undefined;
  let tailBytes = 0;
  const folding: Folding = { owned: new Set() };
  for (const stored of loaded.tail) {
    const record = decodeRecord(runId, stored);
    // As checkpoints, records are what was written, or the run does not go on with them.
    const problem = verifyRecord(runId, (state?.seq ?? -1) + 1, state?.head ?? null, stored);
    if (problem !== undefined) throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: stored.seq, problem });
    state = fold(state, record, folding);
    tailBytes += stored.header.length + (stored.body?.length ?? 0);
  }
  if (!state) throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: 0, problem: "it is missing" });
  return { state, tailBytes };
}

function begin(record: LedgerRecord & { kind: "run_started" }): RunState {
  const { workflowId, version, entry, vars, parent, sessionId } = record.data;
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
    open: {},
    ...(parent ? { parent } : {}),
    ...(record.actorId === undefined ? {} : { actorId: record.actorId }),
    ...(sessionId === undefined ? {} : { sessionId }),
    createdAt: record.at,
    updatedAt: record.at,
  };
}

function apply(state: RunState, record: Exclude<LedgerRecord, { kind: "run_started" }>, folding: Folding): void {
  switch (record.kind) {
    case "step":
      return advance(state, record.data.nextNode);
    case "effect_started": {
      const effect = record.data.intent ? open(state, record, record.data.intent, folding) : opened(state, record.effectId);
      effect.attempt = record.attempt ?? 1;
      effect.phase = record.data.intent?.members === undefined ? "executing" : "joining";
      delete effect.retryAt;
      return;
    }
    case "parked": {
      const effect = record.data.intent ? open(state, record, record.data.intent, folding) : opened(state, record.effectId);
      effect.phase = "parked";
      effect.wait = record.data.wait;
      return;
    }
    case "effect_completed": {
      const effect = opened(state, record.effectId);
      return close(state, effect, "collect" in record.data ? collected(effect) : record.data.result, folding);
    }
    case "effect_failed": {
      const { error, retryAt, nextNode, interrupted } = record.data;
      const effect = opened(state, record.effectId);
      if (interrupted) effect.interruptions = (effect.interruptions ?? 0) + 1;
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
      return failed(state, effect, error ?? { name: "Error", message: "failed" }, undefined, nextNode);
    }
    case "control":
      if (record.data.action === "cancel")
        state.cancelling = record.data.reason === undefined ? {} : { reason: record.data.reason };
      else state.paused = record.data.action === "pause";
      return;
    case "run_completed":
      state.output = record.data.output;
      return end(state, "completed");
    case "run_failed":
      state.error = record.data.error;
      return end(state, "failed");
    case "run_cancelled":
      return end(state, "cancelled");
    default:
      throw new RangeError(`its kind "${(record as { kind: string }).kind}" is not known`);
  }
}

function open(
  state: RunState,
  record: LedgerRecord & { kind: "effect_started" | "parked" },
  intent: Intent,
  folding: Folding,
): OpenEffect {
  const id = record.effectId;
  if (id === undefined || Object.hasOwn(state.open, id)) throw new RangeError(`effect ${id} is open already`);
  const { members, ...kept } = intent;
  const effect: OpenEffect = {
    ...kept,
    id,
    step: record.step,
    node: record.node,
    key: record.hash,
    attempt: 0,
    phase: "executing",
  };
  if (members !== undefined) {
    effect.pending = members;
    effect.results = [];
  }
  if (intent.refs) {
    effect.base = state.vars;
    if (folding.owned) folding.owned = new Set();
  }
  state.open[id] = effect;
  return effect;
}

function opened(state: RunState, id: string | undefined): OpenEffect {
  const effect = id !== undefined && Object.hasOwn(state.open, id) ? state.open[id] : undefined;
  if (!effect) throw new RangeError(`effect ${id} is not open`);
  return effect;
}

/** An effect ends with a result: a member hands it to its group, the plan's own effect writes it and moves the run on. */
function close(state: RunState, effect: OpenEffect, result: Json, folding: Folding): void {
  const group = effect.parent === undefined ? undefined : opened(state, effect.parent);
  discard(state, effect);
  if (group) {
    (group.results as Json[])[effect.index as number] = result;
    group.pending = (group.pending as number) - 1;
    if (group.type === "any" && group.winner === undefined) group.winner = effect.index as number;
    return;
  }
  if (effect.resultKey !== undefined) state.vars = setAt(state.vars, effect.resultKey, result, folding.owned) as JsonObject;
  advance(state, effect.nextNode as string);
}

function failed(state: RunState, effect: OpenEffect, error: OpenEffect["lastError"], retryAt?: number, nextNode?: string): void {
  if (retryAt !== undefined) {
    if (error) effect.lastError = error;
    return backOff(effect, retryAt);
  }
  const group = effect.parent === undefined ? undefined : opened(state, effect.parent);
  discard(state, effect);
  if (group) {
    group.pending = (group.pending as number) - 1;
    if (error) group.lastError = error;
  }
  if (nextNode !== undefined) {
    advance(state, nextNode);
    if (error) state.error = error;
  }
}

/** Takes an effect out, and with a group the members that were still open. */
function discard(state: RunState, effect: OpenEffect): void {
  delete state.open[effect.id];
  if (effect.pending === undefined) return;
  for (const id in state.open) if (id.startsWith(`${effect.id}.`)) delete state.open[id];
}

function backOff(effect: OpenEffect, retryAt: number): void {
  effect.phase = "backing_off";
  effect.retryAt = retryAt;
  delete effect.wait;
}

/** The run stands at its next node. Whatever the last plan left open is closed by the record that moved it on. */
function advance(state: RunState, node: string): void {
  state.open = {};
  state.node = node;
  state.step += 1;
  delete state.error;
}

function end(state: RunState, status: "completed" | "failed" | "cancelled"): void {
  state.open = {};
  state.status = status;
}

/** What the members of an `all` gave, in order; of an `any`, which one was first and what it gave. */
function collected(effect: OpenEffect): Json {
  const results = effect.results as Json[];
  if (effect.type !== "any") return Array.from(results, (result) => result ?? null);
  const index = effect.winner as number;
  return { index, result: results[index] ?? null };
}
