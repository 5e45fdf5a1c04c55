/** Runs one node on a draft of the vars: its plan with the patch, or what went wrong. Records nothing. */
import { type Finalised, openDraft } from "./draft.ts";
import { setLongTimer } from "./clock.ts";
import type { DriveHost } from "./drive-host.ts";
import { AbstractRuntimeError, type ErrorData, errorData, isError } from "./errors.ts";
import { isPromise } from "./execute.ts";
import type { StepPlan } from "./plan.ts";
import { readPlan } from "./read-plan.ts";
import type { RunState } from "./run.ts";
import type { NodeContext, NodeDefinition } from "./workflow.ts";

export type Ran = ({ plan: StepPlan } & Omit<Finalised<StepPlan>, "value">) | { error: ErrorData };

const defaultTimeoutMs = 30_000;

/**
 * Never throws or rejects. A node that answers synchronously costs no promise.
 *
 * @param pending Is given, when the node answers later, what makes an end of waiting for it.
 */
export function runNode(
  node: NodeDefinition,
  state: RunState,
  host: DriveHost,
  pending: (giveUp: (reason: unknown) => void) => void,
): Ran | Promise<Ran> {
  const draft = openDraft(state.vars, host.limits.jsonDepth);
  const context: NodeContext<unknown> = {
    get vars() {
      return draft.vars;
    },
    set vars(vars) {
      draft.vars = vars as never;
    },
    runId: state.runId,
    workflowId: state.workflowId,
    nodeId: state.node,
    step: state.step,
    now: host.now(),
    ...(state.error ? { error: state.error } : {}),
    ...(state.actorId === undefined ? {} : { actorId: state.actorId }),
  };
  const failed = (thrown: unknown): Ran => ({ error: nodeError(thrown, state.node) });
  const finish = (returned: unknown): Ran => {
    try {
      const { value: plan, ...rest } = draft.close(readPlan(returned, state.node));
      return { plan, ...rest };
    } catch (error) {
      return failed(error);
    }
  };
  try {
    const returned: unknown = node.run(context as never);
    return isPromise(returned)
      ? inTime(returned, node.timeoutMs ?? defaultTimeoutMs, state.node, host, pending).then(finish, failed)
      : finish(returned);
  } catch (error) {
    return failed(error);
  }
}

/** Our own errors as they are, anybody else's as NODE_FAILED with the stack kept. */
export function nodeError(thrown: unknown, nodeId: string): ErrorData {
  const data = errorData(thrown);
  if (isError(thrown)) return data;
  const problem = data.name === "Error" ? data.message : `${data.name}: ${data.message}`;
  const { name, code, message } = new AbstractRuntimeError("NODE_FAILED", { nodeId, problem });
  return { name, code, message, ...(data.stack === undefined ? {} : { stack: data.stack }) };
}

function inTime<T>(
  promise: PromiseLike<T>,
  timeoutMs: number,
  nodeId: string,
  host: DriveHost,
  pending: (giveUp: (reason: unknown) => void) => void,
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const late = (): void => reject(new AbstractRuntimeError("NODE_TIMEOUT", { nodeId, timeoutMs }));
    // Held: a process whose only work is this node should live to see it fail.
    const timer = setLongTimer(host.clock, late, timeoutMs, true);
    pending((reason) => {
      timer.cancel();
      reject(reason);
    });
    const settled =
      <V>(settle: (value: V) => void) =>
      (value: V): void => {
        timer.cancel();
        settle(value);
      };
    // Once: a lazy thenable starts its work anew for each who subscribes. What its `then` throws is a rejection.
    new Promise<T>((adopt) => adopt(promise)).then(settled(resolve), settled(reject));
  });
}
