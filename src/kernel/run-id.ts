/** Ids of runs, where a caller gives one. */
import { invalidOption } from "./errors.ts";

/** A database would take anything but a text for a failure of its own. @throws INVALID_OPTION */
export function checkRunId(runId: unknown): void {
  if (typeof runId === "string") return;
  const problem = `runId is the id of a run, a text, and not ${runId === null ? "null" : typeof runId}`;
  throw invalidOption("runId", problem);
}
