/** Plans of child runs: one, many, and the end of one that was begun before. */
import { checkOptions } from "./errors.ts";
import { readBudget, type Spend } from "./spend.ts";
import type { Anything, Requested } from "./typing.ts";
import type { Workflow } from "./workflow.ts";
import { type WaitPlanOptions, type ShownError, checkFailure, requestWait, timeoutMember, refuse } from "./plan.ts";

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
