/**
 * What a node returns: a plan, which is plain data. The builders below only make such data; what the compiler knows of
 * it (the nodes it names, what it writes where, which effects it requests, what it completes with) exists in types
 * alone, so that `defineWorkflow` can check a whole graph. `readPlan` is the door for everything nodes really return.
 */
import { type AnswerSchema, jsonSchemaMember, type SchemaResult } from "./answer-schema.ts";
import { AbstractRuntimeError, checkOptions } from "./errors.ts";
import { readMoment } from "./moment.ts";
import { isPlainObject } from "./read-plan.ts";
import { readBudget, type Spend } from "./spend.ts";
import type { Answer, Anything, Completable, EffectsOf, EmptyOutput, FirstOf, Plan, Requested, ResultOf } from "./typing.ts";
import type { Workflow } from "./workflow.ts";

/** A request for something outside the run. `payload` is JSON; `resultKey` is the dotted path in the vars that takes the result. */
export interface Effect {
  type: string;
  payload?: unknown;
  resultKey?: string;
}

/**
 * What a node wants: exactly one of completion (`completeOutput`, neither undefined nor null), failure, an effect with
 * the node after it, or the next node alone. A completion wins over an effect beside it.
 */
export interface StepPlan {
  /** The name to record the step under. Default: the node that returned the plan. */
  nodeId?: string;
  effect?: Effect;
  nextNode?: string;
  /** Any JSON but null; `{}` completes too. */
  completeOutput?: unknown;
  failure?: Failure;
  /** Where the run goes when the effect has failed for good; that node sees `error`. Default: the run fails. */
  errorNode?: string;
  /** Where the run goes when the deadline of a wait passes. Default: the wait fails with WAIT_TIMEOUT. */
  timeoutNode?: string;
}

/** Why a run ends as failed. `details` is JSON. */
export interface Failure {
  message: string;
  code?: string;
  details?: unknown;
}

/** Where the run goes after an effect, and what takes its result. */
export interface PlanOptions<Next extends string = string, Key extends string = string> {
  /** Dotted path in the vars that takes the result; objects are made on the way. Default: the result is recorded, not written. */
  resultKey?: Key;
  nextNode: Next;
  errorNode?: Next;
}

/** As `PlanOptions`, for effects that may wait. */
export interface WaitPlanOptions<Next extends string = string, Key extends string = string> extends PlanOptions<Next, Key> {
  timeoutNode?: Next;
}

/** The effects that the runtime itself carries out. */
export const builtInEffects = [
  "ask_user",
  "wait_event",
  "wait_until",
  "start_subworkflow",
  "fan_out",
  "join",
  "all",
  "any",
] as const;
export type BuiltInEffect = (typeof builtInEffects)[number];

/** Goes on at another node, without an effect. */
export function goto<const Next extends string>(nextNode: Next): Plan<Next> {
  return { nextNode } as StepPlan as Plan<Next>;
}

/**
 * Ends the run with `output`, which is JSON. Without one, or with undefined, the output is `{}`. null would mean "not done" in the
 * plan's data, so it is refused: by the compiler, and with PLAN_INVALID.
 */
export function complete(): Plan<never, never, never, EmptyOutput>;
// Not an optional parameter: of a union, such as `Json`, the compiler would infer one kind of output only.
export function complete<const Output>(
  output: Completable<Output>,
): Plan<never, never, never, Output extends undefined ? EmptyOutput : Output>;
export function complete(output?: unknown): Plan<never, never, never, never> {
  return { completeOutput: output === undefined ? {} : output } as StepPlan as Plan<never, never, never, never>;
}

/** Ends the run as failed, with RUN_FAILED_BY_PLAN unless `code` says otherwise. `details` is JSON and kept with the error. */
export function fail(failure: string | Failure): Plan<never> {
  if (typeof failure !== "string") checkOptions(failure, ["message", "code", "details"], "fail()");
  return { failure: typeof failure === "string" ? { message: failure } : { ...failure } } as StepPlan as Plan<never>;
}

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

/**
 * Starts a child run and waits for its end; with `detached: true` goes on at once. A child that fails fails this effect.
 *
 * @param child A workflow, or the id of one: then vars and output are not checked. A workflow that starts itself is
 *   named by its id, or declared with its type: `const tree: Workflow<Vars, Output> = defineWorkflow(...)`.
 */
export function subworkflow<
  Input = Anything,
  Output = Anything,
  const Detached extends boolean = false,
  const Next extends string = never,
  const Key extends string = never,
>(
  child: string | Workflow<Anything, Output, Input>,
  start: ChildStart<NoInfer<Input>, Detached>,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"start_subworkflow", ChildResult<Output, Detached>, Next, Key> {
  checkOptions(start, ["vars", "detached", "timeoutMs", "budget", "queue", "queueKey", "priority"], "subworkflow()");
  readBudget(start.budget, "subworkflow()");
  const { vars, detached, timeoutMs, ...queued } = start;
  const payload = {
    workflowId: idOf(child, "subworkflow()"),
    vars: vars === undefined ? {} : vars,
    ...(detached ? { async: true } : {}),
    ...timeoutMember(timeoutMs),
    ...queued,
  };
  return requestWait("start_subworkflow", payload, options);
}

/**
 * Starts a child run for each item and waits for all of them, with the list of what they gave in the order of the items. At most
 * `concurrency` of them are under way at a time.
 *
 * @param child As in `subworkflow`.
 */
export function fanOut<
  Input = Anything,
  Output = Anything,
  const OnFailure extends "fail" | "collect" = "fail",
  const Next extends string = never,
  const Key extends string = never,
>(
  child: string | Workflow<Anything, Output, Input>,
  fan: FanOut<NoInfer<Input>, OnFailure>,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"fan_out", FannedOut<Output, OnFailure>[], Next, Key> {
  checkOptions(fan, ["items", "onFailure", "concurrency", "timeoutMs", "budget", "queue", "queueKey", "priority"], "fanOut()");
  readBudget(fan.budget, "fanOut()");
  const { items, timeoutMs, ...rest } = fan;
  if (!Array.isArray(items)) refuse("items", "fanOut() needs items: a list of the vars of its children");
  checkFailure(rest.onFailure, "fanOut()");
  return requestWait("fan_out", { workflowId: idOf(child, "fanOut()"), items, ...timeoutMember(timeoutMs), ...rest }, options);
}

export interface FanOut<Input, OnFailure extends "fail" | "collect" = "fail" | "collect"> extends QueueOptions {
  /** The vars of each child. At most 100,000. */
  items: readonly Input[];
  /** `fail`: the first child that fails or is cancelled fails the effect, and the others are cancelled. `collect`: failures are among the results. Default: `fail`. */
  onFailure?: OnFailure;
  /** Children under way at a time. Default: 500. */
  concurrency?: number;
  /** Longest wait for all ends, in milliseconds. Default: no limit. */
  timeoutMs?: number;
  /** What each child may spend, beside what this run and those above it may. Default: no limit of its own. */
  budget?: Spend;
}

export type FannedOut<Output, OnFailure extends "fail" | "collect"> = "fail" extends OnFailure
  ? { subRunId: string; output: Output }
  :
      | { status: "completed"; subRunId: string; output: Output }
      /** `subRunId` is null where the child could not begin: its vars were refused. */
      | { status: "failed" | "cancelled"; subRunId: string | null; error: ShownError };

/** An error among results. */
export interface ShownError {
  name: string;
  code?: string;
  message: string;
}

/**
 * Waits for the end of a child that this run started detached. One that failed or was cancelled fails this effect; a child that ended
 * long ago is found all the same.
 */
export function join<Output = Anything, const Next extends string = never, const Key extends string = never>(
  child: string | Joined<Output>,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"join", { subRunId: string; output: Output }, Next, Key> {
  const { subRunId, timeoutMs } = typeof child === "string" ? { subRunId: child } : child;
  if (typeof child !== "string") checkOptions(child, ["subRunId", "workflow", "timeoutMs"], "join()");
  if (typeof subRunId !== "string" || subRunId === "") refuse("subRunId", "join() needs the id of a child run");
  return requestWait("join", { subRunId, ...timeoutMember(timeoutMs) }, options);
}

export interface Joined<Output> {
  /** What `subworkflow` gave for the detached child. */
  subRunId: string;
  /** The child's workflow: only its type is used, for that of the output. */
  workflow?: Workflow<Anything, Output, Anything>;
  /** Longest wait, in milliseconds. Default: no limit. */
  timeoutMs?: number;
}

function idOf(child: unknown, where: string): string {
  const id = typeof child === "string" ? child : (child as Workflow | undefined)?.id;
  return typeof id === "string" && id !== "" ? id : refuse("child", `${where} needs a workflow or the id of one`);
}

function checkFailure(onFailure: unknown, where: string): void {
  if (onFailure !== undefined && onFailure !== "fail" && onFailure !== "collect")
    refuse("onFailure", `${where}: onFailure is "fail" or "collect"`);
}

/** In which queue a run stands, and before whom. */
export interface QueueOptions {
  /** A queue of `createRuntime({ queues })`. Default: none, and so no limit. */
  queue?: string;
  /** Whose run it is, for limits per key: a tenant, say. */
  queueKey?: string;
  /** Whole number from -100 to 100; due runs of higher priority are driven first. Default: 0. */
  priority?: number;
}

/** How a child starts. `vars` may be left out when the child needs none. */
export type ChildStart<Input, Detached extends boolean = boolean> = {
  /** Goes on at once; the child's end is not reported. Default: false. */
  detached?: Detached;
  /** Longest wait for the child's end, in milliseconds. Default: no limit. */
  timeoutMs?: number;
  /** What the child may spend, beside what this run and those above it may. Default: no limit of its own. */
  budget?: Spend;
} & QueueOptions &
  (Record<never, never> extends Input ? { vars?: Input } : { vars: Input });

export type ChildResult<Output, Detached extends boolean> = true extends Detached
  ? { subRunId: string; async: true }
  : { subRunId: string; output: Output };

/**
 * Requests several effects at once and goes on when all are done, with the list of their results. Members are made by
 * the builders, called without options: `all([charge({ cents: 5 }), askUser({ prompt: "Sure?" })], { nextNode: "ship" })`.
 * With `onFailure: "collect"` a member that fails ends nothing: the results say of each how it ended.
 */
export function all<
  const Members extends readonly Effect[],
  const OnFailure extends "fail" | "collect" = "fail",
  const Next extends string = never,
  const Key extends string = never,
>(
  members: Members,
  options?: Partial<WaitPlanOptions<Next, Key>> & AllOptions<OnFailure>,
): Requested<
  "all" | EffectsOf<Members[number]>,
  { -readonly [I in keyof Members]: "fail" extends OnFailure ? ResultOf<Members[I]> : Settled<ResultOf<Members[I]>> },
  Next,
  Key
> {
  const { onFailure, ...rest } = options ?? {};
  checkFailure(onFailure, "all()");
  const payload = { effects: checkMembers(members, "all()"), ...(onFailure === undefined ? {} : { onFailure }) };
  return request("all", payload, Object.keys(rest).length === 0 ? undefined : (rest as WaitPlanOptions<Next, Key>));
}

export interface AllOptions<OnFailure extends "fail" | "collect" = "fail" | "collect"> {
  /** `fail`: the first failure fails the whole. `collect`: failures are among the results. Default: `fail`. */
  onFailure?: OnFailure;
}

/** A result of `all` with `onFailure: "collect"`. */
export type Settled<Result> = { status: "completed"; result: Result } | { status: "failed"; error: ShownError };

/**
 * Requests several effects at once and goes on with the first one done: `{ index, result }`. The others are given up.
 *
 * @throws INVALID_OPTION for an empty list, which would wait for ever.
 */
export function any<const Members extends readonly Effect[], const Next extends string = never, const Key extends string = never>(
  members: Members,
  options?: WaitPlanOptions<Next, Key>,
): Requested<"any" | EffectsOf<Members[number]>, FirstOf<Members>, Next, Key> {
  const effects = checkMembers(members, "any()");
  if (effects.length === 0) refuse("members", "any() with an empty list would wait for ever");
  return request("any", { effects }, options);
}

/** An effect request, or with options a plan: what every builder returns. */
export function request<Type extends string, Result, Next extends string, Key extends string>(
  type: Type,
  payload: unknown,
  options: WaitPlanOptions<Next, Key> | undefined,
  knownOptions: readonly string[] = waitPlanOptions,
): Requested<Type, Result, Next, Key> {
  type Made = Requested<Type, Result, Next, Key>;
  if (options === undefined) return { type, payload } as Effect as Made;
  checkOptions(options, knownOptions, `the options of effect "${type}"`);
  const { resultKey, nextNode, errorNode, timeoutNode } = options;
  const plan: StepPlan = { effect: resultKey === undefined ? { type, payload } : { type, payload, resultKey }, nextNode };
  if (errorNode !== undefined) plan.errorNode = errorNode;
  if (timeoutNode !== undefined) plan.timeoutNode = timeoutNode;
  return plan as Made;
}

const planOptions = ["resultKey", "nextNode", "errorNode"];
const waitPlanOptions = [...planOptions, "timeoutNode"];

/** As `request`, for waits with a deadline in their payload. */
function requestWait<Type extends string, Result, Next extends string, Key extends string>(
  type: Type,
  payload: { timeoutMs?: number; [key: string]: unknown },
  options: WaitPlanOptions<Next, Key> | undefined,
): Requested<Type, Result, Next, Key> {
  if (options?.timeoutNode !== undefined && payload.timeoutMs === undefined) {
    refuse("timeoutNode", `effect "${type}" names a timeoutNode and has no timeoutMs, so it would never go there`);
  }
  return request(type, payload, options);
}

function checkMembers(members: readonly Effect[], where: string): Effect[] {
  if (!Array.isArray(members)) refuse("members", `${where} needs a list of effects`);
  return members.map((member: unknown, i) => {
    if (isPlainObject(member) && ("nextNode" in member || "effect" in member)) {
      refuse(`members/${i}`, `member ${i} of ${where} is a plan; call its builder without options`);
    }
    if (!isPlainObject(member) || typeof member.type !== "string")
      refuse(`members/${i}`, `member ${i} of ${where} is not an effect`);
    checkOptions(member, ["type", "payload"], `member ${i} of ${where}`);
    return { type: member.type, payload: member.payload === undefined ? {} : member.payload };
  });
}

export function timeoutMember(timeoutMs: number | undefined): { timeoutMs?: number } {
  if (timeoutMs === undefined) return {};
  if (!Number.isFinite(timeoutMs) || timeoutMs <= 0)
    refuse("timeoutMs", `timeoutMs is ${timeoutMs}, not a number of milliseconds above 0`);
  return { timeoutMs };
}

/** A moment as ISO text in UTC. @throws INVALID_OPTION */
export function isoText(moment: Date | string | number, where: string): string {
  const at = readMoment(moment);
  return typeof at === "number" ? new Date(at).toISOString() : refuse("until", `${where}: ${at}`);
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

function refuse(option: string, problem: string): never {
  throw new AbstractRuntimeError("INVALID_OPTION", { option, problem });
}
