/** A state of ours as a run file of the Python package. */
import { childId } from "../kernel/child-id.ts";
import { isObject, type Json } from "../kernel/json.ts";
import { type OpenEffect, payloadOf, type RunState, statusOf } from "../kernel/run.ts";
import { toPython } from "./native.ts";
import type { PythonRun, PythonWait } from "./run-file.ts";
import { Unusable } from "./shape.ts";
import type { PythonObject } from "./text.ts";
import { pythonTime } from "./time.ts";

/**
 * @param old The run as it was imported: what is as it was keeps its spelling.
 * @param note Is told what Python has no word for.
 * @throws Unusable when Python could not go on from there.
 */
export function pythonRun(state: RunState, old: PythonRun | undefined, note: (problem: string) => void): PythonRun {
  const status = statusOf(state);
  const open = [...state.open.values()].filter(({ phase }) => phase !== "failed");
  const live = status === "running" || status === "waiting";
  if (live && (state.undoing || state.cancelling))
    throw new Unusable("it is being cancelled or undone, which Python cannot go on with");
  if (live && (open.length > 1 || open.some(({ members }) => members !== undefined)))
    throw new Unusable("it waits for several things at once, which a run of Python cannot");
  if (live && state.paused) note("it is paused here; Python does not know that, and goes on");
  const [effect] = live ? open : [];
  if (effect?.wait?.again)
    throw new Unusable(`effect "${effect.type}" waits to be called again, and Python would take the answer for its result`);
  const waiting = effect?.phase === "parked" ? pythonWait(state.runId, effect) : null;
  if (effect?.phase === "parked" && effect.wait?.until !== undefined && effect.wait.reason !== "until")
    note("its wait has a deadline here, which Python does not know");
  if (effect && !waiting) note(`effect "${effect.type}" was under way: Python runs it again, from its first attempt`);
  // The old wait, where it is still the same one: it says what there was no place for here.
  const isOld = effect !== undefined && effect.step === stepOfImport(state) && state.retries === undefined;
  return {
    run_id: state.runId,
    workflow_id: state.workflowId,
    status: waiting ? "waiting" : live ? "running" : (status as PythonRun["status"]),
    current_node: effect?.node ?? state.node,
    vars: toPython(state.vars, old?.vars) as PythonObject,
    waiting: waiting && isOld && old?.waiting ? old.waiting : waiting,
    output: status === "completed" ? toPython(state.output ?? {}, old?.output) : null,
    error: errorOf(state),
    created_at: old?.created_at ?? pythonTime(state.createdAt),
    updated_at: pythonTime(state.updatedAt),
    actor_id: state.actorId ?? null,
    parent_run_id: state.parent?.runId ?? null,
  };
}

function stepOfImport({ origin }: RunState): number | undefined {
  return origin?.kind === "python" ? (origin.step as number) : undefined;
}

function errorOf({ status, error, cancelling }: RunState): string | null {
  if (status === "failed") return error?.message ?? "failed";
  return status === "cancelled" ? (cancelling?.reason ?? "Cancelled") : null;
}

/** What a parked effect waits for. */
export function pythonWait(runId: string, effect: OpenEffect): PythonWait {
  const { wait, nextNode, resultKey } = effect;
  if (!wait) throw new Unusable("it waits, and does not say for what");
  const { reason, waitKey, until, prompt, choices, allowFreeText, details } = wait;
  return {
    reason,
    // Only its moment ends it.
    wait_key: reason === "until" ? null : waitKey,
    until: reason === "until" && until !== undefined ? pythonTime(until) : null,
    resume_to_node: nextNode ?? null,
    result_key: resultKey ?? null,
    prompt: prompt ?? null,
    choices: choices ?? null,
    allow_free_text: reason === "user" ? allowFreeText !== false : true,
    details: reason === "subworkflow" ? childDetails(runId, effect, details) : ((details ?? null) as PythonObject | null),
  };
}

/** By these, Python's helper finds the run that a child's output is for. */
function childDetails(runId: string, effect: OpenEffect, details: Json | undefined): PythonObject {
  const read = (...keys: string[]): Json => {
    for (const source of [details, payloadOf(effect)])
      for (const key of keys) if (isObject(source) && typeof source[key] === "string") return source[key];
    return null;
  };
  return {
    sub_run_id: effect.childRunId ?? read("sub_run_id", "subRunId") ?? childId(runId, effect.id, effect.generation),
    sub_workflow_id: read("sub_workflow_id", "subWorkflowId", "workflow_id", "workflowId"),
    sub_waiting: (isObject(details) ? details.sub_waiting : undefined) ?? null,
  };
}
