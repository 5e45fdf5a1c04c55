/** What changed in a run between two of its records. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { fold } from "../../kernel/fold.ts";
import { cloneJson, type JsonObject } from "../../kernel/json.ts";
import { diff, type Patch } from "../../kernel/patch.ts";
import { decodeNext, type RecordKind } from "../../kernel/record.ts";
import { type OpenEffect, openWaits, type RunState, type RunStatus, statusOf, type WaitState } from "../../kernel/run.ts";
import type { Store } from "../../kernel/store.ts";
import { type RunPoint, seqOf, stateAt } from "./moments.ts";

export interface RunDiff {
  runId: string;
  from: PointInRun;
  to: PointInRun;
  /** The changes that turn the vars at `from` into those at `to` (RFC 6902). */
  vars: Patch;
  /** Waits that were open at `to` and not at `from`. */
  waitsOpened: DiffWait[];
  /** Waits that were open at `from` and not at `to`. */
  waitsClosed: DiffWait[];
  /** The records behind the earlier of the two points, up to the later, by kind. */
  records: Partial<Record<RecordKind, number>>;
}

export interface PointInRun {
  seq: number;
  /** Of that record, in milliseconds since 1970. */
  at: number;
  node: string;
  step: number;
  status: RunStatus;
  version: string;
}

export type DiffWait = WaitState & { effectId: string };

const pageSize = 1_000;

/** @throws As `stateAt`; RECORD_CORRUPT when a record between cannot be read. */
export async function diffRun(store: Store, runId: string, a: RunPoint, b: RunPoint): Promise<RunDiff> {
  const [from, to] = [await seqOf(store, runId, a), await seqOf(store, runId, b)];
  const earlier = looked(await stateAt(store, runId, Math.min(from, to)));
  const { state, records } = await foldOn(store, earlier.state, Math.max(from, to));
  const later = looked(state);
  const [before, after] = from <= to ? [earlier, later] : [later, earlier];
  return {
    runId,
    from: before.point,
    to: after.point,
    vars: cloneJson(diff(before.vars, after.vars) as never),
    waitsOpened: without(after.waits, before.waits),
    waitsClosed: without(before.waits, after.waits),
    records,
  };
}

interface Look {
  state: RunState;
  point: PointInRun;
  vars: JsonObject;
  waits: DiffWait[];
}

/** What is compared, taken before the state is used up by the next record. */
function looked(state: RunState): Look {
  const { seq, updatedAt: at, node, step, version, vars, open } = state;
  const waits = openWaits(state).map(({ effectId }) => ({ ...(open.get(effectId) as OpenEffect).wait, effectId }) as DiffWait);
  return { state, point: { seq, at, node, step, status: statusOf(state), version }, vars, waits };
}

/**
 * Goes on from a state, and counts. Containers that no record touches stay the same objects, so that comparing the vars costs what
 * changed, and elements that only moved within a list are known again.
 */
async function foldOn(store: Store, state: RunState, to: number): Promise<{ state: RunState; records: RunDiff["records"] }> {
  const { runId } = state;
  const folding = { owned: new Set<object>() };
  const records: RunDiff["records"] = {};
  while (state.seq < to) {
    const page = await store.records(runId, state.seq + 1, Math.min(pageSize, to - state.seq));
    if (page.length === 0)
      throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: state.seq + 1, problem: "it is missing" });
    for (const stored of page) {
      const record = decodeNext(runId, state.seq + 1, state.head, stored);
      records[record.kind] = (records[record.kind] ?? 0) + 1;
      state = fold(state, record, folding);
    }
  }
  return { state, records };
}

function without(waits: readonly DiffWait[], others: readonly DiffWait[]): DiffWait[] {
  const key = ({ effectId, waitKey, since }: DiffWait): string => JSON.stringify([effectId, waitKey, since]);
  const known = new Set(others.map(key));
  return waits.filter((wait) => !known.has(key(wait))).map((wait) => cloneJson(wait as never));
}
