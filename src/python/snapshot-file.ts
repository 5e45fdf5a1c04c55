/** `snapshot_<id>.json`: a named copy of a run's state. */
import { type PythonRun, readRun } from "./run-file.ts";
import { objectOf, objectOrNullAt, textAt, textOrNullAt, textsOrNullAt, Unusable } from "./shape.ts";
import type { PythonJson } from "./text.ts";

export interface PythonSnapshot {
  snapshot_id: string;
  run_id: string;
  step_id: string | null;
  name: string;
  description: string | null;
  tags: string[];
  created_at: string | null;
  updated_at: string | null;
  run_state: PythonRun;
}

/** @throws Unusable */
export function readSnapshot(value: PythonJson): PythonSnapshot {
  const snapshot = objectOf(value, "it");
  const state = objectOrNullAt(snapshot, "run_state");
  if (!state) throw new Unusable("run_state is missing");
  return {
    snapshot_id: textAt(snapshot, "snapshot_id"),
    run_id: textAt(snapshot, "run_id"),
    step_id: textOrNullAt(snapshot, "step_id"),
    name: textOrNullAt(snapshot, "name") ?? "",
    description: textOrNullAt(snapshot, "description"),
    tags: textsOrNullAt(snapshot, "tags") ?? [],
    created_at: textOrNullAt(snapshot, "created_at"),
    updated_at: textOrNullAt(snapshot, "updated_at"),
    run_state: readRun(state),
  };
}
