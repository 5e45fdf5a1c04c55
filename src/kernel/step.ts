/**
 * Pure: what a plan, an outcome, a message or a moment means, as records. Nothing here does anything; `drive` appends the
 * drafts, folds them and carries out what is then open.
 *
 * T1. A draft list always leaves the run in a state that names what moves it next: a node, an executing effect, a wait, a
 *     moment, or an end.
 * T2. An effect that fails for good ends the run, unless an `errorNode` takes it. A member's failure is its group's to judge, once
 *     what still executes in the group has settled: what an effect did is never left unrecorded.
 */
import { lookAgainMs, questionOf, stopped } from "./budget.ts";
import { AbstractRuntimeError, type ErrorData, errorData, nearest } from "./errors.ts";
import { extractRefs } from "./draft.ts";
import { isObject, type Json, type JsonObject, toJson } from "./json.ts";
import { checkResultKey, type Patch } from "./patch.ts";
import type { Effect, StepPlan } from "./plan.ts";
import { type Policy, retryDelay } from "./policy.ts";
import { childId, childKey } from "./child-id.ts";
import { shownError } from "./fold.ts";
import { type Bodies, type ControlAction, controlActions, type Intent, type RecordDraft } from "./record.ts";
import {
  decodeState,
  isEnded,
  isJoined,
  isLeftBehind,
  isWindingUp,
  type OpenEffect,
  payloadOf,
  type RunState,
  type Undoable,
  type WaitState,
  wantsCallOff,
} from "./run.ts";
import type { Mail } from "./message.ts";
import type { CounterChange } from "./transition.ts";
import { asksAboutUncertainty, badInput, builtInWait, uncertainWait, type WaitSpec, waitState } from "./wait.ts";

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

/** What a plan needs to be understood. */
export interface PlanContext {
  runId: string;
  workflowId: string;
  node: string;
  step: number;
  now: number;
  /** The workflow's nodes, by name. */
  nodes: ReadonlyMap<string, unknown>;
  places: ReadonlyMap<object, string>;
  /** The vars after the patch. */
  vars: JsonObject;
  depth?: number;
  /** Whether a type of effect says how it is undone. */
  isUndoable?(type: string): boolean;
  /** Whether there is a slot for an effect. Without one it is recorded and not begun. */
  hasSlot?(type: string, effectId: string, payload: () => Json): boolean;
}

/** @throws NODE_UNKNOWN, NOT_JSON, RESULT_KEY_INVALID, EFFECT_INPUT_INVALID: the plan cannot be carried out and nothing of it is recorded. */
export function planDrafts(plan: StepPlan, patch: Patch, context: PlanContext): RecordDraft[] {
  const changed = patch.length > 0 ? { patch } : {};
  if (plan.completeOutput !== undefined && plan.completeOutput !== null) {
    return [{ kind: "run_completed", data: { ...changed, output: toJson(plan.completeOutput, "output", context.depth) } }];
  }
  if (plan.failure) {
    const { message, code, details } = plan.failure;
    const error = errorData(new AbstractRuntimeError("RUN_FAILED_BY_PLAN", { nodeId: context.node, problem: message }));
    const { stack: _, ...plain } = error;
    return [
      {
        kind: "run_failed",
        data: {
          ...changed,
          error: {
            ...plain,
            message,
            code: code ?? "RUN_FAILED_BY_PLAN",
            ...(details === undefined ? {} : { details: toJson(details, "details", context.depth) }),
          },
        },
      },
    ];
  }
  for (const target of [plan.nextNode, plan.errorNode, plan.timeoutNode]) checkNode(target, context);
  if (!plan.effect) return [{ kind: "step", data: { ...changed, nextNode: plan.nextNode as string } }];

  if (plan.effect.resultKey) checkResultKey(plan.effect.resultKey);
  const drafts = openDrafts(plan.effect, String(context.step), context, {
    ...(plan.effect.resultKey ? { resultKey: plan.effect.resultKey } : {}),
    nextNode: plan.nextNode,
    ...(plan.errorNode === undefined ? {} : { errorNode: plan.errorNode }),
    ...(plan.timeoutNode === undefined ? {} : { timeoutNode: plan.timeoutNode }),
  });
  const first = drafts[0] as RecordDraft;
  return [{ ...first, data: { ...changed, ...first.data } } as RecordDraft, ...drafts.slice(1)];
}

function checkNode(name: string | undefined, { nodes, workflowId, node }: PlanContext): void {
  if (name === undefined || nodes.has(name)) return;
  const suggestion = nearest(name, nodes.keys());
  throw new AbstractRuntimeError("NODE_UNKNOWN", {
    workflowId,
    nodeId: name,
    by: `node "${node}"`,
    ...(suggestion ? { suggestion } : {}),
  });
}

/** What undoes a completed effect. Where `undo` could not say, that is recorded as its failure. */
export function undoDrafts(entry: Undoable, request: Effect | { error: ErrorData }, context: PlanContext): RecordDraft[] {
  const effectId = `${entry.effectId}.undo`;
  const undoes = { undoes: entry.effectId };
  try {
    // What undoes is not undone itself, as a member of a group neither.
    if (!("error" in request)) return openDrafts(request, effectId, { ...context, isUndoable: () => false }, undoes);
  } catch (error) {
    request = { error: errorData(error) };
  }
  const intent = { type: `undo of ${entry.type}`, payload: {}, ...undoes };
  return [
    { kind: "effect_started", effectId, attempt: 1, data: { intent } },
    { kind: "effect_failed", effectId, attempt: 1, data: { error: request.error } },
  ];
}

/** Opens an effect, and the members of an `all` or `any` with it. Ids are `step`, then `step.index`, then `step.index.index`. */
function openDrafts(effect: Effect, id: string, context: PlanContext, extra: Partial<Intent>): RecordDraft[] {
  if (effect.type === "all" || effect.type === "any") {
    const { effects: members, onFailure } = (effect.payload ?? {}) as { effects?: unknown; onFailure?: unknown };
    if (!Array.isArray(members) || !members.every(isRequest))
      throw badInput(effect.type, "effects must be a list of { type, payload }, without resultKey or nextNode");
    if (effect.type === "any" && members.length === 0) throw badInput(effect.type, "any of no effects never happens");
    const group: RecordDraft = {
      kind: "effect_started",
      effectId: id,
      attempt: 1,
      data: {
        intent: { type: effect.type, payload: {}, members: members.length, ...collecting(effect.type, onFailure), ...extra },
      },
    };
    return [
      group,
      ...members.flatMap((member: Effect, index) => openDrafts(member, `${id}.${index}`, context, { parent: id, index })),
    ];
  }
  const { payload, refs } = extractRefs(effect.payload ?? {}, context.places, context.vars, context.depth);
  const intent: Intent = {
    type: effect.type,
    payload,
    ...(refs ? { refs } : {}),
    ...(context.isUndoable?.(effect.type) ? { undo: true } : {}),
    ...(effect.type === "fan_out" ? fanning(effect.payload) : {}),
    ...extra,
  };
  const request = builtInWait(effect.type, payload, refs !== undefined, effect.payload);
  if (!request) {
    const whole = (): Json => (refs ? toJson(effect.payload, "payload") : payload);
    const attempt = context.hasSlot?.(effect.type, id, whole) === false ? 0 : 1;
    return [{ kind: "effect_started", effectId: id, attempt, data: { intent } }];
  }
  const target = request.resumeToNode;
  if (target !== undefined) checkNode(target, context);
  return [
    {
      kind: "parked",
      effectId: id,
      data: {
        intent: target === undefined || intent.parent !== undefined ? intent : { ...intent, nextNode: target },
        wait: waitState(request, id, context.runId, context.node, context.now),
      },
    },
  ];
}

function collecting(type: string, onFailure: unknown): { collect?: true } {
  if (onFailure === undefined || onFailure === null || (onFailure === "fail" && type !== "any")) return {};
  if (onFailure === "collect" && type !== "any") return { collect: true };
  throw badInput(type, type === "any" ? "any has no onFailure" : 'onFailure is "fail" or "collect"');
}

const mostChildren = 100_000;
const defaultWindow = 500;

function fanning(payload: unknown): Pick<Intent, "members" | "window" | "collect"> {
  const { workflowId, items, onFailure, concurrency = defaultWindow } = (payload ?? {}) as Record<string, unknown>;
  if (typeof workflowId !== "string") throw badInput("fan_out", "workflowId is missing");
  if (!Array.isArray(items)) throw badInput("fan_out", "items must be a list: the vars of each child");
  if (items.length > mostChildren) throw badInput("fan_out", `${items.length} items are more than ${mostChildren}`);
  if (!Number.isInteger(concurrency) || (concurrency as number) < 1)
    throw badInput("fan_out", "concurrency must be a whole number from 1");
  return { members: items.length, window: concurrency as number, ...collecting("fan_out", onFailure) };
}

/** A member is a type and a payload: where results go and what comes next is the group's to say. */
function isRequest(value: unknown): value is Effect {
  if (typeof value !== "object" || value === null || typeof (value as Effect).type !== "string") return false;
  return Object.entries(value).every(([key, part]) => key === "type" || key === "payload" || part === undefined || part === null);
}

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
 * What taking this message means, or undefined when it stays in the mailbox for a later wait.
 *
 * @param refused Why the message cannot be recorded (it is too large): what waited for it fails, and its content is left out.
 */
export function messageDrafts(state: RunState, mail: Mail, refused?: ErrorData): RecordDraft[] | undefined {
  if (mail.kind === "control") return controlDrafts(state, mail);
  if (isEnded(state)) return undefined;
  const effect = waitingFor(state, mail);
  const noted = { messageId: mail.id, messageKind: mail.kind, key: mail.key, payload: refused ? null : mail.payload };
  if (!effect) {
    if (mail.kind === "child_end") {
      const member = memberDrafts(state, mail, noted, refused);
      if (member) return member;
    }
    // An event or a job's result may come before its wait, and the wait that an answer is for may be opened again by a retry. An answer
    // or a child's end without one has nobody left to read it.
    return mail.kind === "event" || mail.kind === "job" || (mail.kind === "answer" && isHeldBack(state, mail.key))
      ? undefined
      : [{ kind: "delivered", data: { ...noted, outcome: "ignored" } }];
  }
  const taken = (data: Omit<Bodies["delivered"], keyof typeof noted> & { payload?: Json }): RecordDraft => ({
    kind: "delivered",
    effectId: effect.id,
    data: { ...noted, ...data },
  });
  const failed = (error: ErrorData): RecordDraft[] =>
    failDrafts(effect, error, spent(effect, error), false, (next) => taken({ outcome: "failed", error, ...next }));
  if (refused) return failed(refused);
  const payload = isObject(mail.payload) ? mail.payload : {};
  if (mail.kind === "child_end") {
    if (payload.status === "completed") {
      const { output = null, ...end } = payload;
      // The output is written once: as the result.
      const child = payload.runId ?? null;
      const result: Json = effect.childRunId === undefined ? { subRunId: child, output } : { sub_run_id: child, output };
      return [taken({ payload: end, outcome: "result", result })];
    }
    return failed(endError(payload));
  }
  if (asksAboutUncertainty(effect)) {
    return [payload.retry === true ? taken({ outcome: "retry" }) : taken({ outcome: "result", result: payload.result ?? null })];
  }
  const stop = effect.wait && stopped(effect.wait, payload);
  if (stop) return failed(plainError(stop));
  return [taken({ outcome: effect.wait?.again ? "again" : "result" })];
}

/** Whether a wait under this key stands in a group that failed, or is about to, or is perhaps about to be there again. */
function isHeldBack({ open }: RunState, key: string): boolean {
  for (const { wait, asked } of open.values()) if ((wait?.waitKey ?? asked) === key) return true;
  return false;
}

function waitingFor(state: RunState, { key, kind }: Mail): OpenEffect | undefined {
  for (const effect of state.open.values()) {
    const { wait, phase } = effect;
    if (wait?.waitKey !== key || phase === "failed" || (kind === "event" && wait.reason !== "event")) continue;
    // What a decided group still waits for is given up: a message is for whoever waits next.
    if (!isDecided(state, effect)) return effect;
  }
  return undefined;
}

function endError(end: JsonObject): ErrorData {
  return (isObject(end.error)
    ? end.error
    : { name: "Error", message: `the subworkflow was ${end.status}` }) as unknown as ErrorData;
}

/** The end of a child of a `fan_out`, or undefined when the child is of none that is open. */
function memberDrafts(
  state: RunState,
  mail: Mail,
  noted: Pick<Bodies["delivered"], "messageId" | "messageKind" | "key" | "payload">,
  refused: ErrorData | undefined,
): RecordDraft[] | undefined {
  const end = isObject(mail.payload) ? mail.payload : {};
  const { effectId, status, runId: subRunId = null, output = null } = end;
  if (typeof effectId !== "string") return undefined;
  const fan = state.open.get(effectId.slice(0, Math.max(0, effectId.lastIndexOf("."))));
  const index = Number(effectId.slice(effectId.lastIndexOf(".") + 1));
  const isMember =
    fan?.window !== undefined &&
    fan.phase !== "failed" &&
    index < (fan.started ?? 0) &&
    fan.results?.[index] === undefined &&
    mail.key === childKey(childId(state.runId, effectId, fan.generation));
  if (!isMember) return undefined;
  const succeeded = status === "completed" && !refused;
  const error = refused ?? (succeeded ? undefined : endError(end));
  const { output: _, ...payload } = end;
  const result: Json | undefined = !fan.collect
    ? succeeded
      ? { subRunId, output }
      : undefined
    : succeeded
      ? { status: "completed", subRunId, output }
      : { status: status === "cancelled" ? "cancelled" : "failed", subRunId, error: shownError(error as ErrorData) };
  return [
    {
      kind: "delivered",
      effectId: fan.id,
      data: {
        ...noted,
        payload: refused ? null : payload,
        outcome: "member",
        index,
        ...(result === undefined ? {} : { result }),
        ...(result === undefined && error ? { error } : {}),
      },
    },
  ];
}

function controlDrafts(state: RunState, { id, kind, key, payload }: Mail): RecordDraft[] {
  const reason = isObject(payload) && typeof payload.reason === "string" ? { reason: payload.reason } : {};
  const place = key === "archived" ? archivedPlace(state, payload) : {};
  if (isControl(key) && applies(state, key) && place)
    return [{ kind: "control", data: { action: key, messageId: id, ...reason, ...place } }];
  // The state that came with an archive is of no use to anybody.
  const kept = key === "archived" ? null : payload;
  return [{ kind: "delivered", data: { messageId: id, messageKind: kind, key, payload: kept, outcome: "ignored" } }];
}

/** What was archived, if that is of this ledger and new; `base` is the state that it came to, as a checkpoint. */
function archivedPlace(state: RunState, payload: Json): { before: number; hash: string } | undefined {
  const { before, hash, base } = isObject(payload) ? payload : {};
  if (typeof before !== "number" || typeof hash !== "string" || typeof base !== "string") return undefined;
  if (before <= (state.archivedBefore ?? 0) || before > state.seq) return undefined;
  try {
    const { seq, head } = decodeState(base);
    return seq === before - 1 && head === hash ? { before, hash } : undefined;
  } catch {
    // It is no checkpoint: the message is recorded as ignored.
    return undefined;
  }
}

function isControl(key: string): key is ControlAction {
  return (controlActions as readonly string[]).includes(key);
}

/** Whether a command changes anything. What was undone cannot be tried again from where it failed. */
function applies(state: RunState, action: ControlAction): boolean {
  if (action === "retry") return state.status === "failed" && !state.undoing;
  return !isEnded(state) && (action === "cancel" ? !state.cancelling : !isWindingUp(state));
}

/**
 * An effect failed for good. A member's failure is its group's to judge; otherwise a node takes it, or the run fails (T2).
 *
 * @param error What happened, as recorded and as shown to `errorNode`.
 * @param final What the run ends with when no node takes it.
 * @param first Makes the record that closes the effect. Default: `effect_failed`.
 */
function failDrafts(
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
function spent(effect: OpenEffect, error: ErrorData): ErrorData {
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
function plainError(error: AbstractRuntimeError): ErrorData {
  return { name: error.name, code: error.code, message: error.message };
}
