/** What a plan means, as records: the end it names, the node it goes to, or the effect it opens. Pure, as `step.ts`. */
import { AbstractRuntimeError, type ErrorData, errorData } from "./errors.ts";
import { nearest } from "./nearest.ts";
import { extractRefs } from "./draft.ts";
import { type Json, type JsonObject, toJson } from "./json.ts";
import { checkResultKey, type Patch } from "./patch.ts";
import type { Effect, StepPlan } from "./plan.ts";
import type { Intent, RecordDraft } from "./record.ts";
import type { Undoable } from "./run.ts";
import { badInput, builtInWait, waitState } from "./wait.ts";

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
