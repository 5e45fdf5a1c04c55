/** Waits: what payloads and handlers ask for, as the state that is recorded. Pure. */
import { childKey } from "./child-id.ts";
import { AbstractRuntimeError, errorData, isError } from "./errors.ts";
import { isObject, type Json, type JsonObject, toJson } from "./json.ts";
import { readMoment } from "./moment.ts";
import type { OpenEffect, RunState, WaitReason, WaitState } from "./run.ts";

/** What a handler or a built-in wait asks for; missing parts are filled in when it is recorded. */
export interface WaitSpec {
  reason: WaitReason;
  waitKey?: string;
  /** The moment awaited (reason `until`): milliseconds since 1970, or ISO 8601 text with an offset. */
  until?: number | string;
  /** Longest wait, in milliseconds. */
  timeoutMs?: number;
  prompt?: string;
  choices?: readonly string[];
  allowFreeText?: boolean;
  schema?: JsonObject;
  details?: unknown;
  again?: true;
  onTimeout?: "again";
  onCancel?: "again";
  /** The run whose budget it waits for. */
  budget?: string;
}

/**
 * Checks a wait and fills it in. Default keys carry the effect's id, and so the step: they never repeat within a run.
 *
 * @throws EFFECT_INPUT_INVALID, NOT_JSON, JSON_TOO_DEEP: never anything else, whatever a handler gave.
 */
export function waitState(request: WaitSpec, effectId: string, runId: string, node: string, now: number): WaitState {
  try {
    const {
      reason,
      waitKey,
      until,
      timeoutMs,
      prompt,
      choices,
      allowFreeText,
      schema,
      details,
      again,
      onTimeout,
      onCancel,
      budget,
    } = request;
    const given = { reason, waitKey, until, timeoutMs, prompt, choices, allowFreeText, schema, details };
    return {
      ...checkedState(given, `:${runId}:${node}:${effectId}`, now),
      ...(again === true ? { again } : {}),
      ...(again === true && onTimeout === "again" ? { onTimeout } : {}),
      ...(again === true && onCancel === "again" ? { onCancel } : {}),
      ...(again === true && typeof budget === "string" ? { budget } : {}),
    };
  } catch (error) {
    throw isError(error) ? error : badInput("wait", `it cannot be read: ${errorData(error).message}`);
  }
}

function checkedState(request: WaitSpec, defaultKey: string, now: number): WaitState {
  const { reason, prompt, allowFreeText, details, timeoutMs } = request;
  if (!(reasons as readonly unknown[]).includes(reason)) throw badInput("wait", `reason is none of ${reasons.join(", ")}`);
  if (request.waitKey !== undefined) checkKey(request.waitKey);
  if (prompt !== undefined && typeof prompt !== "string") throw badInput("wait", `prompt is ${kindOf(prompt)}, not text`);
  // Copied before it is looked at: a list may answer differently when it is read twice.
  const choices = request.choices === undefined ? undefined : Array.isArray(request.choices) ? [...request.choices] : null;
  if (choices === null || choices?.some((choice) => typeof choice !== "string"))
    throw badInput("wait", "choices must be a list of texts");
  if (allowFreeText !== undefined && typeof allowFreeText !== "boolean")
    throw badInput("wait", `allowFreeText is ${kindOf(allowFreeText)}, not true or false`);
  const schema = request.schema === undefined ? undefined : toJson(request.schema, "schema");
  if (schema !== undefined && !isObject(schema)) throw badInput("wait", `schema is ${kindOf(schema)}, not an object`);
  if (timeoutMs !== undefined && !(typeof timeoutMs === "number" && Number.isFinite(timeoutMs) && timeoutMs >= 0))
    throw badInput("wait", "timeoutMs must be a number of milliseconds");
  const until =
    request.until !== undefined ? moment(request.until) : timeoutMs !== undefined ? moment(now + timeoutMs) : undefined;
  if (reason === "until" && until === undefined) throw badInput("wait_until", "until is missing");
  return {
    reason,
    waitKey: request.waitKey ?? reason + defaultKey,
    since: now,
    ...(until === undefined ? {} : { until }),
    ...(prompt === undefined ? {} : { prompt }),
    ...(choices === undefined ? {} : { choices }),
    ...(reason === "user" ? { allowFreeText: allowFreeText ?? choices === undefined } : {}),
    ...(schema === undefined ? {} : { schema }),
    ...(details === undefined ? {} : { details: toJson(details, "details") }),
  };
}

/** Messages are matched with their waits by key, in stores that keep well-formed text only. */
function checkKey(key: unknown): void {
  if (typeof key !== "string") throw badInput("wait", `waitKey is ${kindOf(key)}, not text`);
  if (key === "" || key.length > longestKey)
    throw badInput("wait", `waitKey has ${key.length} characters, not 1 to ${longestKey}`);
  if (!key.isWellFormed()) throw badInput("wait", "waitKey has half of a surrogate pair, which is not text");
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

const longestKey = 500;
const reasons = ["event", "until", "user", "job", "subworkflow"] as const satisfies readonly WaitReason[];

/** The wait behind `ask_user`, `wait_event`, `wait_until` or `join`. Payload keys may be in AbstractRuntime's snake_case. */
export function builtInWait(
  type: string,
  recorded: Json,
  hasRefs: boolean,
  given: unknown,
): (WaitSpec & { resumeToNode?: string }) | undefined {
  if (type !== "ask_user" && type !== "wait_event" && type !== "wait_until" && type !== "join") return undefined;
  const whole = hasRefs ? toJson(given, "payload") : recorded;
  if (!isObject(whole)) throw badInput(type, "the payload must be an object");
  const read = (camel: string, snake = camel.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)): Json | undefined =>
    Object.hasOwn(whole, camel) ? whole[camel] : Object.hasOwn(whole, snake) ? whole[snake] : undefined;
  const text = (key: string): string | undefined => {
    const value = read(key);
    return value === undefined || value === null ? undefined : typeof value === "string" ? value : JSON.stringify(value);
  };
  const timeoutMs = read("timeoutMs") ?? undefined;
  if (timeoutMs !== undefined && !(typeof timeoutMs === "number" && timeoutMs >= 0))
    throw badInput(type, "timeoutMs must be a number of milliseconds");
  const schema = read("schema");
  const common = {
    ...(timeoutMs === undefined ? {} : { timeoutMs }),
    ...(isObject(schema) ? { schema } : {}),
    ...(read("details") === undefined ? {} : { details: read("details") }),
    ...(text("resumeToNode") === undefined ? {} : { resumeToNode: text("resumeToNode") as string }),
    ...(text("waitKey") === undefined ? {} : { waitKey: text("waitKey") as string }),
  };
  if (type === "join") {
    const subRunId = read("subRunId");
    if (typeof subRunId !== "string" || subRunId === "") throw badInput(type, "subRunId is missing");
    return { reason: "subworkflow", ...common, waitKey: childKey(subRunId), details: { subRunId } };
  }
  if (type === "wait_event") {
    if (common.waitKey === undefined) throw badInput(type, "waitKey is missing");
    return { reason: "event", ...common };
  }
  if (type === "ask_user") {
    const prompt = text("prompt");
    if (prompt === undefined) throw badInput(type, "prompt is missing");
    const choices = read("choices");
    if (
      choices !== undefined &&
      choices !== null &&
      !(Array.isArray(choices) && choices.every((choice) => typeof choice === "string"))
    ) {
      throw badInput(type, "choices must be a list of texts");
    }
    const free = read("allowFreeText");
    return {
      reason: "user",
      prompt,
      ...(Array.isArray(choices) ? { choices: choices as string[] } : {}),
      ...(typeof free === "boolean" ? { allowFreeText: free } : {}),
      ...common,
    };
  }
  const delayMs = read("delayMs") ?? undefined;
  const until = read("until") ?? undefined;
  if (delayMs !== undefined) {
    if (typeof delayMs !== "number" || delayMs < 0) throw badInput(type, "delayMs must be a number of milliseconds");
    return { reason: "until", ...common, timeoutMs: delayMs };
  }
  if (typeof until !== "string" && typeof until !== "number") throw badInput(type, "until is missing");
  return { reason: "until", ...common, until };
}

/** The question put to a person when `onUncertain` is `ask`. */
export function uncertainWait(state: RunState, effect: OpenEffect, reason: string, now: number): WaitState {
  return {
    reason: "user",
    waitKey: `uncertain:${state.runId}:${effect.id}:${effect.attempt}`,
    since: now,
    prompt: `Effect "${effect.type}" may or may not have happened (${reason}). Answer {"retry": true} to try again, or {"result": ...} with what it gave.`,
    allowFreeText: false,
    details: { uncertain: true, effectType: effect.type, idempotencyKey: effect.key, attempt: effect.attempt },
  };
}

/** Whether a wait is the question that `onUncertain: "ask"` puts. A later attempt may ask a person something of its own. */
export function asksAboutUncertainty({ id, attempt, uncertain, wait }: OpenEffect): boolean {
  return uncertain === true && wait?.waitKey.startsWith("uncertain:") === true && wait.waitKey.endsWith(`:${id}:${attempt}`);
}

function moment(value: number | string): number {
  if (typeof value !== "number" && typeof value !== "string")
    throw badInput("wait_until", `until is ${kindOf(value)}, not a moment`);
  const at = readMoment(value);
  if (typeof at === "number") return at;
  throw badInput("wait_until", `until: ${at}`);
}

export function badInput(effectType: string, problem: string): AbstractRuntimeError<"EFFECT_INPUT_INVALID"> {
  return new AbstractRuntimeError("EFFECT_INPUT_INVALID", { effectType, issues: [problem] });
}
