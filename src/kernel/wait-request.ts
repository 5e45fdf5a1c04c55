/** What a handler returns when its result comes later: a wait, as data. */
import { type AnswerSchema, jsonSchemaOf, type SchemaResult } from "./answer-schema.ts";
import { checkOptions, invalidOption } from "./errors.ts";
import { nearest } from "./nearest.ts";
import type { Json } from "./json.ts";
import { isoText, timeoutMember } from "./plan.ts";
import type { Ready } from "./wait-plans.ts";
import type { WaitReason } from "./run.ts";
import type { Answer, Anything } from "./typing.ts";

/** Looked up in the registry of symbols, so that two copies of this package know each other's. */
const waitBrand: unique symbol = Symbol.for("abstractruntime.wait") as never;
declare const awaited: unique symbol;

/** What a handler returns when the result comes later. Made by `wait`. */
export interface WaitRequest<Result = Anything> extends WaitData {
  readonly [waitBrand]: true;
  /** Exists in types only. */
  readonly [awaited]?: Result;
}

/** A wait as data: `until` is ISO text in UTC, `schema` is JSON Schema. */
interface WaitData {
  readonly reason: WaitReason;
  readonly waitKey?: string;
  readonly until?: string;
  readonly prompt?: string;
  readonly choices?: readonly string[];
  readonly allowFreeText?: boolean;
  readonly schema?: Json;
  readonly details?: Json;
  readonly timeoutMs?: number;
  readonly again?: true;
  readonly onTimeout?: "again";
  readonly onCancel?: "again";
  /** Of a wait that `overBudget` made: the run whose budget it is. */
  readonly budget?: string;
}

/**
 * For handlers to return: the effect waits, and what is delivered is its result. Costs nothing while it waits, over restarts too. With
 * `again`, what is delivered is not the result: the handler is called again, and finds it in `context.answers`.
 *
 * @throws INVALID_OPTION
 */
export function wait<
  const Reason extends WaitReason,
  const Choice extends string = string,
  const FreeText extends boolean = false,
  Schema extends AnswerSchema | undefined = undefined,
>(request: WaitOptions<Reason, Choice, FreeText, Schema>): WaitRequest<WaitResult<Reason, Choice, FreeText, Schema>> {
  checkOptions(request, waitKeys, "wait()");
  const { reason, until, schema, timeoutMs, again, ...rest } = request;
  for (const option of ["onTimeout", "onCancel"] as const)
    if (rest[option] !== undefined && (rest[option] !== "again" || again !== true))
      refuse(option, `wait({ ${option} }) can be "again", together with again: true`);
  if (again !== undefined && typeof again !== "boolean") refuse("again", "wait(): again is true or false");
  if (!reasons.includes(reason)) {
    refuse("reason", `wait() needs a reason: ${reasons.join(", ")}`, nearest(String(reason), reasons));
  }
  if (reason === "until" && until === undefined) refuse("until", 'wait({ reason: "until" }) needs the moment, as until');
  if (reason !== "until" && until !== undefined)
    refuse("until", `wait({ reason: "${reason}" }) has no until; its longest wait is timeoutMs`);
  const json = jsonSchemaOf(schema);
  return {
    [waitBrand]: true,
    reason,
    ...rest,
    ...(again ? { again } : {}),
    ...(until === undefined ? {} : { until: isoText(until, "wait()") }),
    ...(json === undefined ? {} : { schema: json }),
    ...timeoutMember(timeoutMs),
  } as Anything;
}

export interface WaitOptions<Reason extends WaitReason, Choice extends string, FreeText extends boolean, Schema> {
  /** `job`: work that somebody else does and reports. */
  reason: Reason;
  /** What a message must name. Default: one made by the runtime, new for every step. */
  waitKey?: string;
  /** For reason `until`: a Date, ISO text or milliseconds since 1970. */
  until?: Date | string | number;
  prompt?: string;
  choices?: readonly Choice[];
  /** Whether an answer may be something else than one of `choices`. Default: false with choices, true without. */
  allowFreeText?: FreeText;
  /** What the answer looks like: a Standard Schema or a JSON Schema. */
  schema?: Schema;
  /** JSON for whoever looks at the wait. */
  details?: unknown;
  /** Longest wait, in milliseconds, counted by the store's clock. Default: no limit. */
  timeoutMs?: number;
  /** The handler is called again with what was delivered, as another attempt that counts for no policy. Default: false. */
  again?: boolean;
  /** With `again`: it is called again when `timeoutMs` has passed. Default: the effect fails with WAIT_TIMEOUT. */
  onTimeout?: "again";
  /** With `again`: it is called once more when the run is cancelled meanwhile, or goes on without this member of a group, and has 5 s to call off what it began. Default: it is not. */
  onCancel?: "again";
}

/** Whether a handler returned `wait(...)`. Everything else it returns is a result. */
export function isWaitRequest(value: unknown): value is WaitRequest {
  return typeof value === "object" && value !== null && (value as Record<symbol, unknown>)[waitBrand] === true;
}

const reasons: readonly string[] = ["event", "until", "user", "job", "subworkflow"] satisfies WaitReason[];
const waitKeys = [
  "reason",
  "waitKey",
  "until",
  "prompt",
  "choices",
  "allowFreeText",
  "schema",
  "details",
  "timeoutMs",
  "again",
  "onTimeout",
  "onCancel",
];

type WaitResult<Reason, Choice extends string, FreeText extends boolean, Schema> = [Schema] extends [undefined]
  ? Reason extends "until"
    ? Ready
    : Reason extends "user"
      ? Answer<Choice, FreeText, undefined>
      : Anything
  : SchemaResult<Schema>;

function refuse(option: string, problem: string, suggestion?: string): never {
  throw invalidOption(option, problem, suggestion);
}
