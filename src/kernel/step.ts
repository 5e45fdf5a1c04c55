/**
 * Pure: what a plan, an outcome, a message or a moment means, as records. Nothing here does anything; `drive` appends the
 * drafts, folds them and carries out what is then open.
 *
 * T1. A draft list always leaves the run in a state that names what moves it next: a node, an executing effect, a wait, a
 *     moment, or an end.
 * T2. An effect that fails for good ends its group, the group's group, and at last the run, in one list, unless an
 *     `errorNode` or a group that still hopes takes it.
 */
import { AbstractRuntimeError, type ErrorData, errorData, nearest } from "./errors.ts";
import { extractRefs } from "./draft.ts";
import { isObject, type Json, type JsonObject, toJson } from "./json.ts";
import { checkResultKey, type Patch } from "./patch.ts";
import type { Effect, StepPlan } from "./plan.ts";
import { type Policy, retryDelay } from "./policy.ts";
import { type Bodies, type Intent, type RecordDraft, sha256 } from "./record.ts";
import { isJoined, type OpenEffect, type RunState, type WaitState } from "./run.ts";
import type { Mail } from "./store.ts";
import { asksAboutUncertainty, badInput, builtInWait, uncertainWait, type WaitSpec, waitState } from "./wait.ts";

/** A speculative effect may be cut off by the end of its process this often; one that ends its process itself must not do so for ever. */
const maxInterruptions = 10;

/** What one attempt of an effect came to. */
export type Outcome =
  | { kind: "completed"; result: Json }
  | { kind: "waiting"; wait: WaitSpec }
  /** Definitely did not happen, or happened and cannot be used; `retryable: false` ends it at once; `interrupted` costs no attempt. */
  | { kind: "failed"; error: ErrorData; retryable: boolean; interrupted?: true }
  /** May have happened. */
  | { kind: "uncertain"; reason: string; error?: ErrorData };

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

/** Opens an effect, and the members of an `all` or `any` with it. Ids are `step`, then `step.index`, then `step.index.index`. */
function openDrafts(effect: Effect, id: string, context: PlanContext, extra: Partial<Intent>): RecordDraft[] {
  if (effect.type === "all" || effect.type === "any") {
    const members = (effect.payload as { effects?: unknown } | undefined)?.effects;
    if (!Array.isArray(members) || !members.every(isRequest))
      throw badInput(effect.type, "effects must be a list of { type, payload }, without resultKey or nextNode");
    if (effect.type === "any" && members.length === 0) throw badInput(effect.type, "any of no effects never happens");
    const group: RecordDraft = {
      kind: "effect_started",
      effectId: id,
      attempt: 1,
      data: { intent: { type: effect.type, payload: {}, members: members.length, ...extra } },
    };
    return [
      group,
      ...members.flatMap((member: Effect, index) => openDrafts(member, `${id}.${index}`, context, { parent: id, index })),
    ];
  }
  const { payload, refs } = extractRefs(effect.payload ?? {}, context.places, context.vars, context.depth);
  const intent: Intent = { type: effect.type, payload, ...(refs ? { refs } : {}), ...extra };
  const request = builtInWait(effect.type, payload, refs !== undefined, effect.payload);
  if (!request) return [{ kind: "effect_started", effectId: id, attempt: 1, data: { intent } }];
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

/** A member is a type and a payload: where results go and what comes next is the group's to say. */
function isRequest(value: unknown): value is Effect {
  if (typeof value !== "object" || value === null || typeof (value as Effect).type !== "string") return false;
  return Object.entries(value).every(([key, part]) => key === "type" || key === "payload" || part === undefined || part === null);
}

/** Drafts for whatever the passing of time or the end of members has made due, or none. */
export function dueDrafts(state: RunState, now: number): RecordDraft[] {
  if (state.cancelling) {
    const executing = Object.values(state.open).some(({ phase }) => phase === "executing");
    return executing ? [] : [{ kind: "run_cancelled", data: state.cancelling }];
  }
  for (const id in state.open) {
    const effect = state.open[id] as OpenEffect;
    if (isJoined(effect)) {
      return [{ kind: "effect_completed", effectId: id, data: { collect: true } }];
    } else if (effect.phase === "backing_off" && (effect.retryAt as number) <= now) {
      return [{ kind: "effect_started", effectId: id, attempt: effect.attempt + 1, data: {} }];
    } else if (effect.wait?.until !== undefined && effect.wait.until <= now) {
      return passed(state, effect, effect.wait);
    }
  }
  return [];
}

function passed(state: RunState, effect: OpenEffect, wait: WaitState): RecordDraft[] {
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
  return failDrafts(state, effect, error, error, true);
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
  if (state.cancelling && (outcome.kind === "failed" || outcome.kind === "uncertain")) {
    // What the effect did is recorded; the end that follows is the cancel's.
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
      const wait = waitState(outcome.wait, effectId, state.runId, effect.node, now);
      return [{ kind: "parked", effectId, attempt, data: { wait } }];
    }
    case "failed": {
      const { error, retryable } = outcome;
      const { interruptions = 0 } = effect;
      if (outcome.interrupted && interruptions < maxInterruptions) {
        return [{ kind: "effect_failed", effectId, attempt, data: { error, retryAt: now, interrupted: true } }];
      }
      const delay = retryable ? retryDelay(rules.policy, attempt - interruptions, random) : undefined;
      if (delay !== undefined) return [{ kind: "effect_failed", effectId, attempt, data: { error, retryAt: now + delay } }];
      return failDrafts(state, effect, outcome.error, spent(effect, outcome.error));
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
      const delay = rules.onUncertain === "retry" ? retryDelay(rules.policy, attempt, random) : undefined;
      if (delay !== undefined) return [{ kind: "effect_uncertain", effectId, attempt, data: { ...noted, retryAt: now + delay } }];
      const problem =
        rules.onUncertain === "fail" || attempt === 1 ? outcome.reason : `${attempt} attempts, the last: ${outcome.reason}`;
      const error = plainError(
        new AbstractRuntimeError("EFFECT_UNCERTAIN", { effectType: effect.type, idempotencyKey: effect.key, problem }),
      );
      return [{ kind: "effect_uncertain", effectId, attempt, data: noted }, ...failDrafts(state, effect, error, error)];
    }
  }
}

/**
 * What taking this message means, or undefined when it stays in the mailbox for a later wait.
 *
 * @param refused Why the message cannot be recorded (it is too large): what waited for it fails, and its content is left out.
 */
export function messageDrafts(state: RunState, mail: Mail, refused?: ErrorData): RecordDraft[] | undefined {
  if (mail.kind === "control") return controlDrafts(mail);
  const effect = Object.values(state.open).find(
    ({ wait }) => wait?.waitKey === mail.key && (mail.kind !== "event" || wait.reason === "event"),
  );
  const noted = { messageId: mail.id, messageKind: mail.kind, key: mail.key, payload: refused ? null : mail.payload };
  if (!effect) {
    // A child whose parent died before recording the wait for it: the wait comes once the effect is begun anew.
    if (mail.kind === "child_end" && Object.values(state.open).some((open) => startsChild(state, open, mail.key)))
      return undefined;
    // An event or a job's result may come before its wait. An answer or a child's end without one has nobody left to read it.
    return mail.kind === "event" || mail.kind === "job"
      ? undefined
      : [{ kind: "delivered", data: { ...noted, outcome: "ignored" } }];
  }
  const taken = (data: Omit<Bodies["delivered"], keyof typeof noted> & { payload?: Json }): RecordDraft => ({
    kind: "delivered",
    effectId: effect.id,
    data: { ...noted, ...data },
  });
  const failed = (error: ErrorData): RecordDraft[] =>
    failDrafts(state, effect, error, spent(effect, error), false, (nextNode) =>
      taken({ outcome: "failed", error, ...(nextNode === undefined ? {} : { nextNode }) }),
    );
  if (refused) return failed(refused);
  const payload = isObject(mail.payload) ? mail.payload : {};
  if (mail.kind === "child_end") {
    if (payload.status === "completed") {
      const { output = null, ...end } = payload;
      // The output is written once: as the result.
      return [taken({ payload: end, outcome: "result", result: { subRunId: payload.runId ?? null, output } })];
    }
    return failed(
      (isObject(payload.error)
        ? payload.error
        : { name: "Error", message: `the subworkflow was ${payload.status}` }) as unknown as ErrorData,
    );
  }
  if (asksAboutUncertainty(effect)) {
    return [payload.retry === true ? taken({ outcome: "retry" }) : taken({ outcome: "result", result: payload.result ?? null })];
  }
  return [taken({ outcome: "result" })];
}

/** Whether this effect is starting the child that reports under `key`, and does not wait for it yet. */
function startsChild({ runId }: RunState, { id, type, phase }: OpenEffect, key: string): boolean {
  return type === "start_subworkflow" && phase === "executing" && key === childKey(childId(runId, id));
}

function controlDrafts(mail: Mail): RecordDraft[] {
  const payload = isObject(mail.payload) ? mail.payload : {};
  const reason = typeof payload.reason === "string" ? { reason: payload.reason } : {};
  const action = mail.key === "cancel" || mail.key === "pause" || mail.key === "unpause" ? mail.key : undefined;
  if (!action)
    return [
      {
        kind: "delivered",
        data: { messageId: mail.id, messageKind: mail.kind, key: mail.key, payload: mail.payload, outcome: "ignored" },
      },
    ];
  return [{ kind: "control", data: { action, messageId: mail.id, ...reason } }];
}

/**
 * An effect failed for good: it, the groups above it that cannot hope any more, and the run, unless a node takes it (T2).
 *
 * @param error What happened, as recorded and as shown to `errorNode`.
 * @param final What the run ends with when no node takes it.
 */
function failDrafts(
  state: RunState,
  effect: OpenEffect,
  error: ErrorData,
  final: ErrorData,
  timedOut = false,
  first?: (nextNode: string | undefined) => RecordDraft,
): RecordDraft[] {
  const drafts: RecordDraft[] = [];
  let failing = effect;
  for (;;) {
    const group = failing.parent === undefined ? undefined : (state.open[failing.parent] as OpenEffect);
    const target = group ? undefined : ((timedOut ? failing.timeoutNode : undefined) ?? failing.errorNode);
    const next = target === undefined ? {} : { nextNode: target };
    drafts.push(
      failing === effect && first
        ? first(target)
        : {
            kind: "effect_failed",
            effectId: failing.id,
            ...(failing.attempt > 0 ? { attempt: failing.attempt } : {}),
            data: { error, ...next },
          },
    );
    if (!group) return target === undefined ? [...drafts, { kind: "run_failed", data: { error: final } }] : drafts;
    // An `any` that has its winner only waits to be collected; another one hopes while there are members left.
    if (group.type === "any" && (group.winner !== undefined || (group.pending as number) > 1)) return drafts;
    failing = group;
  }
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

/** The id of the child that an effect starts: derived, so that starting it again finds it. In the form of a UUID (version 8). */
export function childId(runId: string, effectId: string): string {
  const hex = sha256(`${runId}\n${effectId}`);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** The key under which a child's end is delivered to its parent. */
export function childKey(runId: string): string {
  return `subworkflow:${runId}`;
}
