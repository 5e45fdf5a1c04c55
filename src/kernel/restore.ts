/** A run as a store holds it: its state, from a checkpoint and the records behind it, or from the ledger alone. */
import { AbstractRuntimeError, isError } from "./errors.ts";
import { copiedLength } from "./patch.ts";
import { decodeNext } from "./record.ts";
import { decodeState, type RunState } from "./run.ts";
import type { Loaded } from "./transition.ts";
import type { Store } from "./store.ts";
import { type Folding, fold, sizeOf } from "./fold.ts";

/** A state as a driver goes on from it, with the sizes of what it stands in, in characters. */
export interface Restored {
  state: RunState;
  /** The newest one. Size and ordinal are 0 where there is none. */
  checkpoint: { size: number; ordinal: number };
  /** Of the records behind it. */
  tailSize: number;
  /** At least the size of the vars. */
  varsBound: number;
}

/** Rebuilds a run's state from what the store holds. @throws RECORD_CORRUPT, FORMAT_NEWER, RangeError for a bad checkpoint. */
export function restore(runId: string, loaded: Pick<Loaded, "checkpoint" | "tail">): Restored {
  let state = loaded.checkpoint ? decodeState(loaded.checkpoint.text) : undefined;
  const checkpoint = { size: loaded.checkpoint?.text.length ?? 0, ordinal: loaded.checkpoint?.ordinal ?? 0 };
  let tailSize = 0;
  let varsBound = checkpoint.size;
  const folding: Folding = { owned: new Set() };
  for (const stored of loaded.tail) {
    // As checkpoints, records are what was written, or the run does not go on with them.
    const record = decodeNext(runId, (state?.seq ?? -1) + 1, state?.head ?? null, stored);
    state = fold(state, record, folding);
    tailSize += sizeOf(stored);
    varsBound += sizeOf(stored) + copiedLength(stored.body ?? "");
  }
  if (!state) throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: 0, problem: "it is missing" });
  return { state, checkpoint, tailSize, varsBound };
}

/** As `restore`, from the ledger alone where the checkpoint is bad, which `isBad` is told. @throws RECORD_CORRUPT, FORMAT_NEWER */
export async function restoreRun(
  store: Pick<Store, "records" | "checkpoints">,
  loaded: Loaded,
  at = loaded.row.seq,
  isBad?: (error: unknown) => void,
): Promise<Restored> {
  const { runId } = loaded.row;
  try {
    return restore(runId, loaded);
  } catch (error) {
    if (!loaded.checkpoint || isError(error, "FORMAT_NEWER")) throw error;
    isBad?.(error);
    const { archivedBefore: first = 0 } = loaded;
    const base = first > 0 ? (await store.checkpoints(runId)).find(({ seq }) => seq === first - 1) : undefined;
    const restored = restore(runId, {
      ...(base ? { checkpoint: base } : {}),
      tail: at < first ? [] : await store.records(runId, first, at + 1 - first),
    });
    // The next one follows the bad one: which older ones stay goes by their numbers.
    return { ...restored, checkpoint: { ...restored.checkpoint, ordinal: loaded.checkpoint.ordinal } };
  }
}
