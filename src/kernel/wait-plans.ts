/** Plans that wait: for a person, an event, or a moment. */
import { type AnswerSchema, jsonSchemaMember, type SchemaResult } from "./answer-schema.ts";
import { checkOptions } from "./errors.ts";
import type { Answer, Requested } from "./typing.ts";
import {
  type PlanOptions,
  type WaitPlanOptions,
  request,
  planOptions,
  requestWait,
  timeoutMember,
  isoText,
  refuse,
} from "./plan.ts";

/**
 * Waits for a person's answer. The result is `{ text }`, one of `choices` where these are given and `allowFreeText` is not true;
 * with a `schema`, it is what the schema describes.
 */
export function askUser<
  const Choice extends string = string,
  const FreeText extends boolean = false,
  Schema extends AnswerSchema | undefined = undefined,
  const Next extends string = never,
  const Key extends string = never,
>(
  question: Question<Choice, FreeText, Schema>,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"ask_user", Answer<Choice, FreeText, Schema>, Next, Key> {
  checkOptions(question, ["prompt", "choices", "allowFreeText", "schema", "waitKey", "timeoutMs", "details"], "askUser()");
  const { schema, timeoutMs, ...rest } = question;
  if (typeof rest.prompt !== "string") refuse("prompt", "askUser() needs a prompt, as text");
  return requestWait("ask_user", { ...rest, ...jsonSchemaMember(schema), ...timeoutMember(timeoutMs) }, options);
}

export interface Question<
  Choice extends string = string,
  FreeText extends boolean = boolean,
  Schema extends AnswerSchema | undefined = AnswerSchema | undefined,
> {
  prompt: string;
  choices?: readonly Choice[];
  /** Whether an answer may be something else than one of `choices`. Default: false with choices, true without. */
  allowFreeText?: FreeText;
  /**
   * What an answer looks like: a Standard Schema or a JSON Schema. Recorded as JSON Schema (draft 2020-12, of the schema's output)
   * where one can be derived, and answers are checked against it; they are not transformed.
   */
  schema?: Schema;
  /** The key to answer under. Default: one made by the runtime, new for every step. */
  waitKey?: string;
  /** Longest wait, in milliseconds, counted by the store's clock. Default: no limit. */
  timeoutMs?: number;
  /** JSON for whoever shows the question. */
  details?: unknown;
}

/**
 * Waits until an event named `key` reaches this run. The result is its payload. Name its type with a schema,
 * `{ key, schema: type<Payment>() }` for one without checks; without a schema it fits any member of the vars.
 */
export function waitEvent<
  Schema extends AnswerSchema | undefined = undefined,
  const Next extends string = never,
  const Key extends string = never,
>(
  event: string | AwaitedEvent<Schema>,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"wait_event", SchemaResult<Schema>, Next, Key> {
  const { key, schema, timeoutMs, details }: AwaitedEvent<Schema> = typeof event === "string" ? { key: event } : event;
  if (typeof event !== "string") checkOptions(event, ["key", "schema", "timeoutMs", "details"], "waitEvent()");
  if (typeof key !== "string" || key === "") refuse("key", "waitEvent() needs a key, as text that is not empty");
  const payload = {
    waitKey: key,
    ...jsonSchemaMember(schema),
    ...timeoutMember(timeoutMs),
    ...(details === undefined ? {} : { details }),
  };
  return requestWait("wait_event", payload, options);
}

export interface AwaitedEvent<Schema extends AnswerSchema | undefined = AnswerSchema | undefined> {
  key: string;
  /** As in `Question`. */
  schema?: Schema;
  /** Longest wait, in milliseconds, counted by the store's clock. Default: no limit. */
  timeoutMs?: number;
  /** JSON for whoever looks at the wait. */
  details?: unknown;
}

/**
 * Waits until a moment: a Date, ISO text (a date, or a time with `Z` or an offset), or milliseconds since 1970.
 *
 * @throws INVALID_OPTION when that is no moment, or not one before the year 10000.
 */
export function waitUntil<const Next extends string = never, const Key extends string = never>(
  moment: Date | string | number,
  options?: PlanOptions<Next, Key>,
): Requested<"wait_until", Ready, Next, Key> {
  return request("wait_until", { until: isoText(moment, "waitUntil()") }, options, planOptions);
}

/**
 * Waits for a while, counted by the store's clock from when the wait is recorded: milliseconds, or a sum of units.
 *
 * @throws INVALID_OPTION when that is negative or not a number.
 */
export function sleep<const Next extends string = never, const Key extends string = never>(
  duration: number | Duration,
  options?: PlanOptions<Next, Key>,
): Requested<"wait_until", Ready, Next, Key> {
  return request("wait_until", { delayMs: durationMs(duration) }, options, planOptions);
}

export interface Duration {
  days?: number;
  hours?: number;
  minutes?: number;
  seconds?: number;
  ms?: number;
}

/** What a wait for a moment gives: the moment, as ISO text in UTC. */
export interface Ready {
  until: string;
  ready: true;
}

const unitMs: Record<keyof Duration, number> = { days: 86_400_000, hours: 3_600_000, minutes: 60_000, seconds: 1_000, ms: 1 };

function durationMs(duration: number | Duration): number {
  let total = 0;
  if (typeof duration === "object" && duration !== null) {
    checkOptions(duration, Object.keys(unitMs), "sleep()");
    for (const unit of Object.keys(unitMs) as (keyof Duration)[]) total += (duration[unit] ?? 0) * unitMs[unit];
  } else total = duration;
  if (!Number.isFinite(total) || total < 0)
    refuse("duration", `sleep() needs a duration of 0 ms or more, and got ${String(total)}`);
  return total;
}
