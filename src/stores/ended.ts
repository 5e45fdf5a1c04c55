/** Two kinds of end: a run that failed may be tried again, the others are over. Shared by the stores. */
import type { RunStatus } from "../kernel/run.ts";

export function isOver({ status }: { status: RunStatus }): boolean {
  return status === "completed" || status === "cancelled";
}

/** Whether a failed run is about to go on: it is due, by a retry. What is sent to it then is for the time after. */
export function isRetried({ status, wakeAt }: { status: RunStatus; wakeAt: number | null }): boolean {
  return status === "failed" && wakeAt !== null;
}

/** Whether a run's last record is not the one that somebody knows, by id, for its last. */
export function hasLivedOn({ runId, head }: { runId: string; head: string }, heads?: ReadonlyMap<string, string>): boolean {
  return (heads?.get(runId) ?? head) !== head;
}
