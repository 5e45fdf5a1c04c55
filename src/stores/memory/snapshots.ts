/** Snapshots: saved, found, removed. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { SnapshotQuery, SnapshotRow } from "../../kernel/snapshot.ts";
import { compareEntries, entryBehind, entryOf, folded, nextAfter } from "../newest-first.ts";
import { pageSize } from "../paging.ts";
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
  const behind = entryBehind(query.cursor, "snapshots");
  const found = [...snapshots.values()]
    .filter((snapshot) => (!behind || compareEntries(behind, entryOf(snapshot)) < 0) && matches(snapshot, query))
    .sort((a, b) => compareEntries(entryOf(a), entryOf(b)));
  const page = found.slice(0, pageSize(query.limit)).map(copySnapshot);
  const last = page.at(-1);
  return { snapshots: page, ...nextAfter(last && entryOf(last), found.length > page.length) };
}

export function findSnapshot({ snapshots }: Contents, snapshotId: string): SnapshotRow | undefined {
  const found = snapshots.get(snapshotId);
  return found && copySnapshot(found);
}

function copySnapshot(snapshot: SnapshotRow): SnapshotRow {
  return { ...snapshot, tags: [...snapshot.tags] };
}

function matches(snapshot: SnapshotRow, { runId, workflowId, tag, text }: SnapshotQuery): boolean {
  if (runId !== undefined && snapshot.runId !== runId) return false;
  if (workflowId !== undefined && snapshot.workflowId !== workflowId) return false;
  if (tag && !snapshot.tags.some((one) => folded(one) === folded(tag))) return false;
  if (!text) return true;
  const { name, description = "" } = snapshot;
  return [name, description].some((one) => folded(one).includes(folded(text)));
}
