/** `run_<id>.json`: the state of one run. Keys as in Python, and in the order in which it writes them. */
import type { WaitReason } from "../kernel/run.ts";
import { objectOf, objectOrNullAt, oneOf, textAt, textOrNullAt } from "./shape.ts";
import type { PythonJson, PythonObject } from "./text.ts";

export interface PythonRun {
  run_id: string;
  workflow_id: string;
  status: PythonStatus;
  current_node: string;
  vars: PythonObject;
  waiting: PythonWait | null;
  output: PythonJson;
  error: string | null;
  created_at: string | null;
  updated_at: string | null;
  actor_id: string | null;
  parent_run_id: string | null;
}

export interface PythonWait {
  reason: WaitReason;
  wait_key: string | null;
  until: string | null;
  resume_to_node: string | null;
  result_key: string | null;
  prompt: string | null;
  choices: PythonJson[] | null;
  allow_free_text: boolean;
  details: PythonObject | null;
}

const statuses = ["running", "waiting", "completed", "failed", "cancelled"] as const;
export type PythonStatus = (typeof statuses)[number];
const reasons = ["event", "until", "user", "job", "subworkflow"] as const satisfies readonly WaitReason[];

/** @throws Unusable where the Python package would not read it either, or could not go on with it. */
export function readRun(value: PythonJson): PythonRun {
  const run = objectOf(value, "it");
  const waiting = objectOrNullAt(run, "waiting");
  return {
    run_id: textAt(run, "run_id"),
    workflow_id: textAt(run, "workflow_id"),
    status: oneOf(textAt(run, "status"), "status", statuses),
    current_node: textAt(run, "current_node"),
    vars: objectOrNullAt(run, "vars") ?? {},
    waiting: waiting && readWait(waiting),
    output: run.output ?? null,
    error: textOrNullAt(run, "error"),
    created_at: textOrNullAt(run, "created_at"),
    updated_at: textOrNullAt(run, "updated_at"),
    actor_id: textOrNullAt(run, "actor_id"),
    parent_run_id: textOrNullAt(run, "parent_run_id"),
  };
}

/** @throws Unusable */
export function readWait(wait: PythonObject): PythonWait {
  return {
    reason: oneOf(textAt(wait, "reason"), "the reason of the wait", reasons),
    wait_key: textOrNullAt(wait, "wait_key"),
    until: textOrNullAt(wait, "until"),
    resume_to_node: textOrNullAt(wait, "resume_to_node"),
    result_key: textOrNullAt(wait, "result_key"),
    prompt: textOrNullAt(wait, "prompt"),
    choices: Array.isArray(wait.choices) ? wait.choices : null,
    allow_free_text: wait.allow_free_text !== false,
    details: objectOrNullAt(wait, "details"),
  };
}
