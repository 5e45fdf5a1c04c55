/** Runs as the store has them. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { restoreRun } from "../kernel/restore.ts";
import type { Json } from "../kernel/json.ts";
import type { RunState } from "../kernel/run.ts";
import { checkRunId } from "../kernel/run-id.ts";
import type { Loaded } from "../kernel/transition.ts";
import type { LoadOptions, Store } from "../kernel/store.ts";
import { rowOf } from "./runs-of.ts";

/** @throws RUN_NOT_FOUND, RUN_PURGED */
export async function loadRun(store: Store, runId: string, options: LoadOptions = {}): Promise<Loaded> {
  checkRunId(runId);
  const loaded = await store.load(runId, options);
  if (!loaded) throw await missing(store, runId);
  return loaded;
}

/** Whether a run was loaded without its state, which the caller said it had. */
export function isBare({ checkpoint, tail }: Loaded): boolean {
  return checkpoint === undefined && tail.length === 0;
}

/** Why a run is not there. */
export async function missing(store: Pick<Store, "tombstone">, runId: string): Promise<AbstractRuntimeError> {
  const tombstone = await store.tombstone(runId);
  if (!tombstone) return new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
  const { purgedAt, note } = tombstone;
  return new AbstractRuntimeError("RUN_PURGED", { runId, purgedAt, ...(note === undefined ? {} : { note }) });
}

/** Why a run takes nothing at present. One that has settled since it refused is told as it was then. */
export async function elsewhere(store: Store, runId: string, to: string): Promise<AbstractRuntimeError<"RUN_MOVED">> {
  const row = await rowOf(store, runId);
  return new AbstractRuntimeError("RUN_MOVED", { runId, to, phase: row?.moving?.phase ?? "leaving" });
}

/**
 * The state; a bad checkpoint is no reason to refuse an answer.
 *
 * @throws RECORD_CORRUPT, FORMAT_NEWER, RUN_MOVED: it is arriving, and not all of its records are here yet.
 */
export async function stateOf(store: Store, loaded: Loaded, at = loaded.row.seq): Promise<RunState> {
  const { row, moving } = loaded;
  let problem: unknown;
  try {
    const { state } = await restoreRun(store, loaded, at);
    // The row comes first: of the rest, what has come so far may be the run as it was long before it ended.
    if (moving?.phase !== "arriving" || state.seq === at) return state;
  } catch (error) {
    if (moving?.phase !== "arriving") throw error;
    problem = error;
  }
  throw new AbstractRuntimeError("RUN_MOVED", { runId: row.runId, to: moving.to, phase: moving.phase }, problem);
}

/** What a run gave. @throws RUN_FAILED, RUN_CANCELLED */
export function outcomeOf(state: RunState): Json {
  const { runId } = state;
  if (state.status === "failed")
    throw new AbstractRuntimeError("RUN_FAILED", { runId, problem: state.error?.message ?? "" }, state.error);
  if (state.status === "cancelled")
    throw new AbstractRuntimeError("RUN_CANCELLED", {
      runId,
      ...(state.cancelling?.reason === undefined ? {} : { reason: state.cancelling.reason }),
    });
  return state.output ?? null;
}

/** Why a run does not go on. */
export function blockedError(runId: string, { blocked }: Loaded): AbstractRuntimeError {
  const { code, problem, quarantine } = blocked as NonNullable<Loaded["blocked"]>;
  return quarantine
    ? new AbstractRuntimeError("RUN_QUARANTINED", { runId, problem })
    : new AbstractRuntimeError("RUN_BLOCKED", { runId, code, problem });
}

/** Whether a failed run is about to go on. */
export function isRetried({ row, mail }: Loaded): boolean {
  return row.status === "failed" && mail.some(({ kind, key }) => kind === "control" && key === "retry");
}
