/**
 * What a node returns: a plan, which is plain data. The builders, here and in `wait-plans.ts`, `child-plans.ts` and `group-plans.ts`,
 * only make such data; what the compiler knows of it (the nodes it names, what it writes where, which effects it requests, what it
 * completes with) exists in types alone, so that `defineWorkflow` can check a whole graph. `readPlan` is the door for everything nodes
 * really return.
 */
import { checkOptions, invalidOption } from "./errors.ts";
import { readMoment } from "./moment.ts";
import type { Completable, EmptyOutput, Plan, Requested } from "./typing.ts";

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

/** An error among results. */
export interface ShownError {
  name: string;
  code?: string;
  message: string;
}

export function checkFailure(onFailure: unknown, where: string): void {
  if (onFailure !== undefined && onFailure !== "fail" && onFailure !== "collect")
    refuse("onFailure", `${where}: onFailure is "fail" or "collect"`);
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

export const planOptions = ["resultKey", "nextNode", "errorNode"];
const waitPlanOptions = [...planOptions, "timeoutNode"];

/** As `request`, for waits with a deadline in their payload. */
export function requestWait<Type extends string, Result, Next extends string, Key extends string>(
  type: Type,
  payload: { timeoutMs?: number; [key: string]: unknown },
  options: WaitPlanOptions<Next, Key> | undefined,
): Requested<Type, Result, Next, Key> {
  if (options?.timeoutNode !== undefined && payload.timeoutMs === undefined) {
    refuse("timeoutNode", `effect "${type}" names a timeoutNode and has no timeoutMs, so it would never go there`);
  }
  return request(type, payload, options);
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

export function refuse(option: string, problem: string): never {
  throw invalidOption(option, problem);
}
