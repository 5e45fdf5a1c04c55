/** Subworkflows: a child begins in the commit that records it, under an id derived from the effect that asked for it. */
import { beginRun } from "./begin.ts";
import type { DriveHost } from "./drive.ts";
import { AbstractRuntimeError, errorData } from "./errors.ts";
import { isObject, type Json } from "./json.ts";
import { type OpenEffect, payloadOf, type RunState } from "./run.ts";
import { childId, childKey, type Outcome } from "./step.ts";
import type { NewRun } from "./store.ts";

/** What `start_subworkflow` comes to. Asking again gives the same child. Payload keys may be in AbstractRuntime's snake_case. */
export async function beginChild(
  effect: OpenEffect,
  parent: RunState,
  host: DriveHost,
): Promise<{ outcome: Outcome; child?: NewRun }> {
  const payload = payloadOf(effect);
  const read = (camel: string, snake: string): Json | undefined =>
    isObject(payload) ? (payload[camel] ?? payload[snake]) : undefined;
  const workflowId = childWorkflowOf(payload);
  try {
    if (workflowId === undefined)
      throw new AbstractRuntimeError("EFFECT_INPUT_INVALID", { effectType: effect.type, issues: ["workflowId is missing"] });
    const workflow = host.workflow(workflowId);
    if (!workflow) throw new AbstractRuntimeError("WORKFLOW_UNKNOWN", { workflowId, known: [] });
    const runId = childId(parent.runId, effect.id);
    const { row, record } = await beginRun(
      workflow,
      {
        runId,
        vars: read("vars", "vars") ?? {},
        parent: { runId: parent.runId, effectId: effect.id },
        now: host.now(),
        ...(parent.actorId === undefined ? {} : { actorId: parent.actorId }),
        ...(parent.sessionId === undefined ? {} : { sessionId: parent.sessionId }),
      },
      host.ids,
      host.limits,
    );
    const child = { row, record };
    if (read("async", "detached") === true)
      return { outcome: { kind: "completed", result: { subRunId: runId, async: true } }, child };
    const timeoutMs = read("timeoutMs", "timeout_ms");
    const details = { subRunId: runId, subWorkflowId: workflowId };
    const wait = {
      reason: "subworkflow" as const,
      waitKey: childKey(runId),
      details,
      ...(typeof timeoutMs === "number" ? { timeoutMs } : {}),
    };
    return { outcome: { kind: "waiting", wait }, child };
  } catch (error) {
    return { outcome: { kind: "failed", error: errorData(error), retryable: false } };
  }
}

/** The workflow that a payload of `start_subworkflow` names, or undefined where it names none. */
export function childWorkflowOf(payload: unknown): string | undefined {
  if (!isObject(payload)) return undefined;
  const workflowId = payload.workflowId ?? payload.workflow_id;
  return typeof workflowId === "string" ? workflowId : undefined;
}
