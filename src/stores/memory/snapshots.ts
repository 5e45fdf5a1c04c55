/** Snapshots: saved, found, removed. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { SnapshotQuery, SnapshotRow } from "../../kernel/snapshot.ts";
import { folded, type SnapshotPlace, snapshotPage, snapshotsBehind, snapshotsNext } from "../snapshot-list.ts";
import type { Contents } from "./contents.ts";

/** @throws RUN_NOT_FOUND, SEQ_NOT_FOUND */
export function saveSnapshot({ runs, snapshots }: Contents, snapshot: SnapshotRow): void {
  const { runId, seq } = snapshot;
  const run = runs.get(runId);
  if (!run) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
  if (seq < 0 || seq > run.row.seq) throw new AbstractRuntimeError("SEQ_NOT_FOUND", { runId, seq, last: run.row.seq });
  snapshots.set(snapshot.snapshotId, copySnapshot(snapshot));
}

export function querySnapshots({ snapshots }: Contents, query: SnapshotQuery): { snapshots: SnapshotRow[]; next?: string } {
  const behind = snapshotsBehind(query);
  const found = [...snapshots.values()]
    .filter((snapshot) => (!behind || order(behind, snapshot) < 0) && matches(snapshot, query))
    .sort(order);
  const page = found.slice(0, snapshotPage(query)).map(copySnapshot);
  return { snapshots: page, ...snapshotsNext(page, found.length) };
}

export function findSnapshot({ snapshots }: Contents, snapshotId: string): SnapshotRow | undefined {
  const found = snapshots.get(snapshotId);
  return found && copySnapshot(found);
}

function copySnapshot(snapshot: SnapshotRow): SnapshotRow {
  return { ...snapshot, tags: [...snapshot.tags] };
}

function order(a: SnapshotPlace, b: SnapshotPlace): number {
  return b.createdAt - a.createdAt || Buffer.compare(Buffer.from(b.snapshotId), Buffer.from(a.snapshotId));
}

function matches(snapshot: SnapshotRow, { runId, workflowId, tag, text }: SnapshotQuery): boolean {
  if (runId !== undefined && snapshot.runId !== runId) return false;
  if (workflowId !== undefined && snapshot.workflowId !== workflowId) return false;
  if (tag && !snapshot.tags.some((one) => folded(one) === folded(tag))) return false;
  if (!text) return true;
  const { name, description = "" } = snapshot;
  return [name, description].some((one) => folded(one).includes(folded(text)));
}
