/** From what a person types to a run. */
import { AbstractRuntimeError, isError, type Runtime, nearest } from "../index.ts";
import { wrongUse } from "./problem.ts";

const leastCharacters = 4;
const shown = 5;
/** How many recent runs are compared with what may be a slip of the keyboard. */
const recentRuns = 1_000;

/**
 * The id of the run that `given` names: its id, or the beginning of one that no other run shares.
 *
 * @throws RUN_NOT_FOUND, RUN_PURGED, INVALID_OPTION when several runs begin so.
 */
export async function findRun(runtime: Runtime, given: string): Promise<string> {
  if (await exists(runtime, given)) return given;
  const { runs } = given === "" ? { runs: [] } : await runtime.list({ idPrefix: given, limit: shown + 1 });
  const [only, another] = runs;
  if (!only) throw await notFound(runtime, given);
  if (given.length < leastCharacters) {
    throw wrongUse(
      "RUN",
      `"${given}" is too short for the beginning of a run id`,
      `Give at least ${leastCharacters} characters of it.`,
    );
  }
  if (!another) return only.runId;
  const ids = runs.slice(0, shown).map(({ runId }) => runId);
  throw wrongUse(
    "RUN",
    `"${given}" is the beginning of several run ids: ${ids.join(", ")}${runs.length > shown ? ", ..." : ""}`,
    "Give more of the id.",
  );
}

async function exists({ store }: Runtime, runId: string): Promise<boolean> {
  try {
    return (await store.records(runId, 0, 1)).length > 0;
  } catch (error) {
    if (isError(error, "RECORDS_ARCHIVED")) return true;
    throw error;
  }
}

async function notFound(runtime: Runtime, given: string): Promise<Error> {
  const tombstone = await runtime.store.tombstone(given);
  if (tombstone) {
    const { purgedAt, note } = tombstone;
    return new AbstractRuntimeError("RUN_PURGED", { runId: given, purgedAt, ...(note === undefined ? {} : { note }) });
  }
  if (given.length < leastCharacters) return new AbstractRuntimeError("RUN_NOT_FOUND", { runId: given });
  const { runs } = await runtime.list({ limit: recentRuns });
  // What was typed may be only a beginning: it is compared with beginnings too.
  const ids = runs.map(({ runId }) => runId);
  const known = new Map([...ids.map((id) => [id, id] as const), ...ids.map((id) => [id.slice(0, given.length), id] as const)]);
  const near = nearest(given, known.keys());
  const suggestion = near === undefined ? undefined : known.get(near);
  return new AbstractRuntimeError("RUN_NOT_FOUND", { runId: given, ...(suggestion === undefined ? {} : { suggestion }) });
}
