/**
 * Archiving the older part of the ledger of a long-lived run: it is written to a file, and then the run itself records that, with the
 * hash of the last record that went, and lets go of it in the same commit. What is kept is verified from there on.
 */
import { resolve } from "node:path";
import type { Ids } from "../../kernel/clock.ts";
import { AbstractRuntimeError, invalidOption } from "../../kernel/errors.ts";
import { fold, type Folding } from "../../kernel/fold.ts";
import { decodeNext } from "../../kernel/record.ts";
import { decodeState, encodeState, isEnded, type RunState } from "../../kernel/run.ts";
import type { Loaded } from "../../kernel/transition.ts";
import type { Message } from "../../kernel/message.ts";
import type { Store } from "../../kernel/store.ts";
import { recordsOf } from "./carry.ts";
import { type PortableEntry, writePortable } from "./portable.ts";
import { loadRun } from "../read.ts";

export interface ArchivedLedger {
  runId: string;
  /** Records `[first, before)` stand in the file. */
  first: number;
  before: number;
  /** Of the last of them. */
  hash: string;
  file: string;
}

/** Writes the file. Answers the message that the run is to take. @throws RUN_NOT_FOUND, RUN_ENDED, RUN_MOVED, INVALID_OPTION, RECORD_CORRUPT */
export async function writeLedger(
  store: Store,
  runId: string,
  { before, to: file }: { before: number; to: string },
  ids: Ids,
): Promise<{ archived: ArchivedLedger; message: Message }> {
  const loaded = await loadRun(store, runId);
  const { row, moving, archivedBefore: first = 0 } = loaded;
  if (moving) throw new AbstractRuntimeError("RUN_MOVED", { runId, to: moving.to, phase: moving.phase });
  if (isEnded(row)) throw new AbstractRuntimeError("RUN_ENDED", { runId, status: row.status });
  if (!Number.isSafeInteger(before) || before <= first || before > row.seq) {
    const problem = `before is the seq of the first record to be kept, from ${first + 1} to ${row.seq}, not ${String(before)}`;
    throw invalidOption("before", problem);
  }
  const last = (await store.records(runId, before - 1, 1))[0];
  if (!last) throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: before - 1, problem: "it is missing" });
  const reader = new LedgerReader(store, loaded, before);
  const { hash } = last;
  await writePortable(
    file,
    { id: ids.id(), kind: "ledger", from: store.name, ledger: { runId, first, before, hash } },
    reader.entries(),
  );
  const message: Message = {
    id: `archived:${before}`,
    runId,
    kind: "control",
    key: "archived",
    payload: { before, hash, base: encodeState(reader.state as RunState) },
  };
  return { archived: { runId, first, before, hash, file: resolve(file) }, message };
}

/** Gives the records before a seq, and folds them on their way: what cannot be folded is not archived. */
class LedgerReader {
  state: RunState | undefined;
  readonly #store: Store;
  readonly #loaded: Loaded;
  readonly #before: number;

  constructor(store: Store, loaded: Loaded, before: number) {
    this.#store = store;
    this.#loaded = loaded;
    this.#before = before;
  }

  async *entries(): AsyncGenerator<PortableEntry> {
    const { row, archivedBefore: first = 0 } = this.#loaded;
    const { runId } = row;
    const base = first > 0 ? (await this.#store.checkpoints(runId)).find(({ seq }) => seq === first - 1) : undefined;
    this.state = base && decodeState(base.text);
    const folding: Folding = { owned: new Set() };
    const part = { row: { ...row, seq: this.#before - 1 }, ...(first > 0 ? { archivedBefore: first } : {}) };
    for await (const page of recordsOf(this.#store, part)) {
      for (const record of page) {
        const next = decodeNext(runId, record.seq, this.state?.head ?? null, record);
        this.state = fold(this.state, next, folding);
        yield { record };
      }
    }
  }
}
