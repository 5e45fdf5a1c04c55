/** Rebuilds a run from its ledger and compares it with everything the store keeps of it (L1). Reads pages, never the whole ledger. */
import { fold } from "../kernel/fold.ts";
import { equalJson, type Json, parseJson } from "../kernel/json.ts";
import { decodeRecord, verifyRecord } from "../kernel/record.ts";
import { decodeState, encodeState, openWaits, rowOf, type RunState } from "../kernel/run.ts";
import { checkRunId } from "../kernel/run-id.ts";
import type { Store } from "../kernel/store.ts";
import { rowOf as storedRow } from "./runs-of.ts";

export interface Verification {
  runId: string;
  ok: boolean;
  /** Records read. */
  records: number;
  /** Bodies that were withheld or destroyed: the chain of headers is verified, the state after them cannot be rebuilt. */
  withheld: number;
  /** Records before this seq were archived: what is kept is verified from there on, anchored by what the ledger says of them. */
  archivedBefore?: number;
  /** Hash of the last one. */
  head?: string;
  problems: { seq?: number; problem: string }[];
}

const pageSize = 1_000;

/** Undefined when there is no such run. Reads only. */
export async function verifyRun(store: Store, runId: string): Promise<Verification | undefined> {
  checkRunId(runId);
  // A run under way moves on while it is read; everything is compared at one of its records.
  const loaded = await store.load(runId);
  if (!loaded) return undefined;
  const checkpoints = new Map((await store.checkpoints(runId)).map((checkpoint) => [checkpoint.seq, checkpoint.text]));
  const problems: Verification["problems"] = [];
  const { archivedBefore: first = 0 } = loaded;
  const base = first > 0 ? archivedState(checkpoints.get(first - 1), first, problems) : undefined;
  const anchor = base?.head ?? null;
  let anchored = first === 0;
  let state = base;
  let withheld = 0;
  let prev = anchor;
  let next = problems.length > 0 ? loaded.row.seq + 1 : first;
  read: while (next <= loaded.row.seq) {
    const page = await store.records(runId, next, Math.min(pageSize, loaded.row.seq + 1 - next));
    if (page.length === 0) break;
    for (const stored of page) {
      try {
        const problem = verifyRecord(runId, next, prev, stored);
        if (problem !== undefined) problems.push({ seq: next, problem });
        prev = stored.hash;
        if (stored.body === null) withheld += 1;
        if (withheld === 0) {
          const record = decodeRecord(runId, stored);
          state = fold(state, record);
          if (record.kind === "control" && record.data.before === first) anchored ||= record.data.hash === anchor;
        }
      } catch (error) {
        problems.push({ seq: next, problem: messageOf(error) });
        break read;
      }
      const checkpoint = checkpoints.get(next);
      if (checkpoint !== undefined && state && withheld === 0) checkCheckpoint(checkpoint, state, next, problems);
      next += 1;
    }
  }
  if (next <= loaded.row.seq && problems.length === 0) problems.push({ seq: next, problem: "it is missing" });
  if (!anchored && withheld === 0 && problems.length === 0)
    problems.push({ problem: `no record says that those before ${first} were archived as what stands for them` });
  if (state && withheld === 0 && problems.length === 0 && next === loaded.row.seq + 1) {
    // When the run wakes also depends on mail and on who holds it.
    const { wakeAt: _, ...expected } = rowOf(state);
    const { wakeAt: __, ...stored } = loaded.row;
    for (const key of new Set([...Object.keys(expected), ...Object.keys(stored)]) as Set<keyof typeof stored>) {
      if (!equalJson((expected[key] ?? null) as Json, (stored[key] ?? null) as Json)) {
        problems.push({ problem: `the stored row has another ${key} than the ledger gives` });
      }
    }
  }
  await checkWaits(store, state, next, problems);
  if (withheld > 0 && prev !== loaded.row.head && next === loaded.row.seq + 1)
    problems.push({ problem: "the stored row has another head than the ledger" });
  const records = next - first;
  return {
    runId,
    ok: problems.length === 0,
    records,
    withheld,
    ...(first > 0 ? { archivedBefore: first } : {}),
    ...(prev === null ? {} : { head: prev }),
    problems,
  };
}

/** The state that the archived records came to. */
function archivedState(text: string | undefined, first: number, problems: Verification["problems"]): RunState | undefined {
  try {
    if (text === undefined) throw new RangeError(`records before ${first} were archived, and nothing stands for them`);
    return decodeState(text);
  } catch (error) {
    problems.push({ seq: first - 1, problem: messageOf(error) });
    return undefined;
  }
}

/** Waits are kept apart from the row: they are compared unless the run has moved on meanwhile. */
async function checkWaits(
  store: Store,
  state: RunState | undefined,
  next: number,
  problems: Verification["problems"],
): Promise<void> {
  const row = state && problems.length === 0 ? await storedRow(store, state.runId) : undefined;
  // One that has left waits for nothing here.
  if (!state || row?.seq !== next - 1 || row.moving?.phase === "left") return;
  const inOrder = (waits: { effectId: string }[]): Json =>
    [...waits].sort((a, b) => (a.effectId < b.effectId ? -1 : 1)) as unknown as Json;
  if (!equalJson(inOrder(row.waits), inOrder(openWaits(state))))
    problems.push({ problem: "the store has other waits than the ledger gives" });
}

function checkCheckpoint(text: string, state: RunState, seq: number, problems: Verification["problems"]): void {
  try {
    decodeState(text);
    if (!equalJson(contentOf(text), contentOf(encodeState(state))))
      problems.push({ seq, problem: "the checkpoint here is not what the ledger gives" });
  } catch (error) {
    problems.push({ seq, problem: messageOf(error) });
  }
}

/** A checkpoint without its hash. The order of keys depends on where the fold began. */
function contentOf(checkpoint: string): Json {
  return parseJson(checkpoint.slice(65));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
