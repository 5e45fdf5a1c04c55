/**
 * Pure: what an outcome or a moment means, as records; for plans see `plan-drafts.ts`, for messages `message-drafts.ts`. Nothing here
 * does anything; `drive` appends the drafts, folds them and carries out what is then open.
 *
 * T1. A draft list always leaves the run in a state that names what moves it next: a node, an executing effect, a wait, a
 *     moment, or an end.
 * T2. An effect that fails for good ends the run, unless an `errorNode` takes it. A member's failure is its group's to judge, once
 *     what still executes in the group has settled: what an effect did is never left unrecorded.
 */
import { lookAgainMs, questionOf } from "./budget.ts";
import { AbstractRuntimeError, type ErrorData } from "./errors.ts";
import type { Json } from "./json.ts";
import type { Patch } from "./patch.ts";
import { type Policy, retryDelay } from "./policy.ts";
import type { RecordDraft } from "./record.ts";
import {
  isJoined,
  isLeftBehind,
  isWindingUp,
  type OpenEffect,
  payloadOf,
  type RunState,
  type WaitState,
  wantsCallOff,
} from "./run.ts";
import type { CounterChange } from "./transition.ts";
import { uncertainWait, type WaitSpec, waitState } from "./wait.ts";

/** A speculative effect may be cut off by the end of its process this often; one that ends its process itself must not do so for ever. */
const maxInterruptions = 10;

/** What one attempt of an effect came to. */
export type Outcome = (
  | { kind: "completed"; result: Json }
  | { kind: "waiting"; wait: WaitSpec }
  /** Of a `fan_out`: the children before an index have been begun. */
  | { kind: "started"; started: number; refused: { index: number; error: ErrorData }[]; wait: WaitSpec }
  /** Definitely did not happen, or happened and cannot be used; `retryable: false` ends it at once, `retryAfterMs` is the least delay; `interrupted` costs no attempt. */
  | { kind: "failed"; error: ErrorData; retryable: boolean; retryAfterMs?: number; interrupted?: true }
  /** May have happened. */
  | { kind: "uncertain"; reason: string; error?: ErrorData; interrupted?: true }
) & {
  /** What its record does to counters. */
  counters?: readonly CounterChange[];
};

export const notBegun: Outcome = {
  kind: "failed",
  error: { name: "Error", message: "the run was cancelled before it was begun" },
  retryable: false,
};

/**
 * Drafts for whatever the passing of time, the end of members or a cancel has made due, or none.
 *
 * @param mayJoin Whether nothing of a group executes that must settle before the group ends.
 * @param hasSlot Whether there is a slot for the next attempt of an effect.
 * @param onCancel The node that a cancelled run goes to.
 */
export function dueDrafts(
  state: RunState,
  now: number,
  mayJoin: (group: OpenEffect) => boolean = () => true,
  hasSlot: (type: string, effectId: string, payload: () => Json) => boolean = () => true,
  onCancel?: string,
): RecordDraft[] {
  const windsUp = isWindingUp(state);
  const parting: RecordDraft[] = [];
  for (const effect of state.open.values())
    if (wantsCallOff(effect) && (windsUp || isLeftBehind(state, effect)))
      parting.push({ kind: "effect_started", effectId: effect.id, attempt: effect.attempt + 1, data: {} });
  if (parting.length > 0) return parting;
  if (windsUp) {
    for (const { phase } of state.open.values()) if (phase === "executing") return [];
    return [onCancel === undefined ? endDraft(state, {}) : { kind: "step", data: { nextNode: onCancel, cleanup: true } }];
  }
  if (state.undoing && state.open.size === 0) return (state.undoable?.length ?? 0) > 0 ? [] : [endDraft(state, state.undoing)];
  // Attempts do not depend on each other: all that are due begin together.
  const attempts: RecordDraft[] = [];
  for (const effect of state.open.values()) {
    if (effect.phase === "failed" || isDecided(state, effect)) continue;
    if (isJoined(effect)) {
      if (mayJoin(effect)) return joinDrafts(state, effect);
    } else if (effect.phase === "backing_off" && (effect.retryAt as number) <= now) {
      if (hasSlot(effect.type, effect.id, () => payloadOf(effect)))
        attempts.push({ kind: "effect_started", effectId: effect.id, attempt: effect.attempt + 1, data: {} });
    } else if (effect.wait?.until !== undefined && effect.wait.until <= now) {
      if (effect.wait.onTimeout === "again" && !hasSlot(effect.type, effect.id, () => payloadOf(effect))) continue;
      // Before the attempts: it may end what they are for.
      return passed(effect, effect.wait);
    }
  }
  return attempts;
}

/** A run that is over, but for what it has to undo. */
function endDraft(state: RunState, came: { patch?: Patch; output?: Json; error?: ErrorData }): RecordDraft {
  if (!state.undoing && (state.undoable?.length ?? 0) > 0) return { kind: "undoing", data: came };
  if (state.cancelling) {
    const { reason } = state.cancelling;
    return { kind: "run_cancelled", data: { ...(reason === undefined ? {} : { reason }), ...came } };
  }
  if (came.error === undefined) throw new RangeError("a run that is undone was cancelled or failed");
  return { kind: "run_failed", data: { ...came, error: came.error } };
}

/** The end that a draft means in this state: a run that was cancelled ends as cancelled, and one with something to undo not yet. */
export function ending(state: RunState, draft: RecordDraft): RecordDraft {
  if (draft.kind === "run_failed" && !state.undoing) return endDraft(state, draft.data);
  return draft.kind === "run_completed" && state.cancelling ? endDraft(state, draft.data) : draft;
}

/** A group that `isJoined` gives its result, or fails. */
export function joinDrafts(state: RunState, group: OpenEffect): RecordDraft[] {
  const { id, type, winner, failure } = group;
  const succeeds = type === "any" ? winner !== undefined : failure === undefined;
  if (succeeds) {
    const closed: string[] = [];
    for (const member of state.open.values())
      if (member.id.startsWith(`${id}.`) && member.phase !== "failed") closed.push(member.id);
    return [{ kind: "effect_completed", effectId: id, data: { collect: true, ...(closed.length > 0 ? { closed } : {}) } }];
  }
  const error = failure ?? group.lastError ?? { name: "Error", message: "no member is left" };
  return failDrafts(group, error, finalError(state, group, error));
}

/** What the run ends with for a group: the member that failed it is named. */
function finalError(state: RunState, effect: OpenEffect, error: ErrorData): ErrorData {
  for (const member of state.open.values()) {
    if (member.parent === effect.id && member.phase === "failed" && member.lastError?.message === error.message)
      return finalError(state, member, error);
  }
  return spent(effect, error);
}

/** Whether a group above this effect has its end already, and only waits for what executes. */
export function isDecided(state: RunState, { parent }: OpenEffect): boolean {
  const group = parent === undefined ? undefined : state.open.get(parent);
  return group !== undefined && (isJoined(group) || isDecided(state, group));
}

/** The moment of a wait has passed: what it waited for, or its deadline. */
export function passed(effect: OpenEffect, wait: WaitState): RecordDraft[] {
  if (wait.onTimeout === "again") return [{ kind: "effect_started", effectId: effect.id, attempt: effect.attempt + 1, data: {} }];
  if (wait.reason === "until") {
    return [
      {
        kind: "effect_completed",
        effectId: effect.id,
        data: { result: { until: new Date(wait.until as number).toISOString(), ready: true } },
      },
    ];
  }
  const error = plainError(
    new AbstractRuntimeError("WAIT_TIMEOUT", { waitKey: wait.waitKey, timeoutMs: (wait.until as number) - wait.since }),
  );
  return failDrafts(effect, error, error, true);
}

/** What an attempt's outcome means. `now` and `random` decide when the next attempt is due. */
export function outcomeDrafts(
  state: RunState,
  effect: OpenEffect,
  outcome: Outcome,
  rules: { policy: Policy; onUncertain: "retry" | "fail" | "ask" },
  now: number,
  random: number,
): RecordDraft[] {
  const effectId = effect.id;
  const { attempt } = effect;
  if ((outcome.kind === "failed" || outcome.kind === "uncertain") && (isWindingUp(state) || isDecided(state, effect))) {
    // Whoever calls off does so again, unless that is what ends the process.
    if (outcome.interrupted && effect.parting && (effect.interruptions ?? 0) < maxInterruptions) {
      const error = outcome.kind === "failed" ? outcome.error : { name: "Error", message: outcome.reason };
      return [{ kind: "effect_failed", effectId, attempt, data: { error, retryAt: now, interrupted: true } }];
    }
    // What the effect did is recorded; the end that follows is the cancel's, or the group's.
    return outcome.kind === "failed"
      ? [{ kind: "effect_failed", effectId, attempt, data: { error: outcome.error, retryAt: now } }]
      : [
          {
            kind: "effect_uncertain",
            effectId,
            attempt,
            data: { reason: outcome.reason, ...(outcome.error ? { error: outcome.error } : {}), retryAt: now },
          },
        ];
  }
  switch (outcome.kind) {
    case "completed":
      return [{ kind: "effect_completed", effectId, attempt, data: { result: outcome.result } }];
    case "waiting": {
      // A handler may ask again and again: each of its questions has a key of its own, which stays while it only looks again.
      const { budget } = outcome.wait;
      const looks = budget === undefined ? 0 : (effect.looks ?? 0);
      const question = budget === undefined ? "" : questionOf(state, budget, outcome.wait.details);
      const unique = outcome.wait.again ? `${effectId}:${attempt - looks}${question}` : effectId;
      const asked = budget === undefined ? outcome.wait : { ...outcome.wait, timeoutMs: lookAgainMs(looks) };
      const wait = waitState(asked, unique, state.runId, effect.node, now);
      return [{ kind: "parked", effectId, attempt, data: { wait } }];
    }
    case "started": {
      const wait = effect.wait ?? waitState(outcome.wait, effectId, state.runId, effect.node, now);
      const refused = outcome.refused.length > 0 ? { refused: outcome.refused } : {};
      return [{ kind: "parked", effectId, attempt, data: { wait, started: outcome.started, ...refused } }];
    }
    case "failed": {
      const { error, retryable, retryAfterMs } = outcome;
      const { interruptions = 0 } = effect;
      if (outcome.interrupted && interruptions < maxInterruptions) {
        return [{ kind: "effect_failed", effectId, attempt, data: { error, retryAt: now, interrupted: true } }];
      }
      const delay = retryable ? retryDelay(rules.policy, counted(effect), random, retryAfterMs) : undefined;
      if (delay !== undefined) return [{ kind: "effect_failed", effectId, attempt, data: { error, retryAt: now + delay } }];
      return failDrafts(effect, outcome.error, spent(effect, outcome.error));
    }
    case "uncertain": {
      const noted = { reason: outcome.reason, ...(outcome.error ? { error: outcome.error } : {}) };
      if (rules.onUncertain === "ask") {
        return [
          {
            kind: "effect_uncertain",
            effectId,
            attempt,
            data: { ...noted, wait: uncertainWait(state, effect, outcome.reason, now) },
          },
        ];
      }
      const delay = rules.onUncertain === "retry" ? retryDelay(rules.policy, counted(effect), random) : undefined;
      if (delay !== undefined) return [{ kind: "effect_uncertain", effectId, attempt, data: { ...noted, retryAt: now + delay } }];
      const problem =
        rules.onUncertain === "fail" || attempt === 1 ? outcome.reason : `${attempt} attempts, the last: ${outcome.reason}`;
      const error = plainError(
        new AbstractRuntimeError("EFFECT_UNCERTAIN", { effectType: effect.type, idempotencyKey: effect.key, problem }),
      );
      return [{ kind: "effect_uncertain", effectId, attempt, data: noted }, ...failDrafts(effect, error, error)];
    }
  }
}

/** Attempts that count for the policy. */
export function counted({ attempt, uncounted = 0, interruptions = 0 }: OpenEffect): number {
  return attempt - uncounted - interruptions;
}

/**
 * An effect failed for good. A member's failure is its group's to judge; otherwise a node takes it, or the run fails (T2).
 *
 * @param error What happened, as recorded and as shown to `errorNode`.
 * @param final What the run ends with when no node takes it.
 * @param first Makes the record that closes the effect. Default: `effect_failed`.
 */
export function failDrafts(
  effect: OpenEffect,
  error: ErrorData,
  final: ErrorData,
  timedOut = false,
  first?: (next: { nextNode?: string }) => RecordDraft,
): RecordDraft[] {
  const isInner = effect.parent !== undefined || effect.undoes !== undefined;
  const target = isInner ? undefined : ((timedOut ? effect.timeoutNode : undefined) ?? effect.errorNode);
  const next = target === undefined ? {} : { nextNode: target };
  const attempt = effect.attempt > 0 ? { attempt: effect.attempt } : {};
  const closing: RecordDraft = first?.(next) ?? {
    kind: "effect_failed",
    effectId: effect.id,
    ...attempt,
    data: { error, ...next },
  };
  return isInner || target !== undefined ? [closing] : [closing, { kind: "run_failed", data: { error: final } }];
}

/** The run's error when an effect failed for good: ours as it is, anybody else's wrapped with the effect's name. */
export function spent(effect: OpenEffect, error: ErrorData): ErrorData {
  if (error.name === "AbstractRuntimeError") return error;
  const wrapped = plainError(
    new AbstractRuntimeError("EFFECT_FAILED", {
      effectType: effect.type,
      attempts: Math.max(1, effect.attempt),
      problem: error.message,
    }),
  );
  return error.stack === undefined ? wrapped : { ...wrapped, stack: error.stack };
}

/** Our own errors as data, without a stack: the code is the address. */
export function plainError(error: AbstractRuntimeError): ErrorData {
  return { name: error.name, code: error.code, message: error.message };
}
