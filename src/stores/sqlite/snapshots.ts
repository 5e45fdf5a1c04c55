/** Snapshots: saved, found, removed. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { SnapshotQuery, SnapshotRow } from "../../kernel/snapshot.ts";
import { entryBehind, entryOf, folded, nextAfter } from "../newest-first.ts";
import { pageSize } from "../paging.ts";
import type { Reader } from "./read.ts";

/** @param run As it stands in this transaction. @throws RUN_NOT_FOUND, SEQ_NOT_FOUND */
export function saveSnapshot(reader: Reader, run: { seq: number } | undefined, snapshot: SnapshotRow): void {
  const { snapshotId, runId, workflowId, seq, createdAt, tags, name, description = "" } = snapshot;
  if (!run) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
  if (seq < 0 || seq > run.seq) throw new AbstractRuntimeError("SEQ_NOT_FOUND", { runId, seq, last: run.seq });
  reader
    .prepare("INSERT OR REPLACE INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?)")
    .run(
      snapshotId,
      runId,
      workflowId,
      createdAt,
      JSON.stringify(tags.map(folded)),
      folded(name),
      folded(description),
      JSON.stringify(snapshot),
    );
}

export function findSnapshot(reader: Reader, snapshotId: string): SnapshotRow | undefined {
  const found = reader.prepare("SELECT row FROM snapshots WHERE snapshot_id = ?").get(snapshotId);
  return found && snapshotOf(found.row);
}

export function querySnapshots(reader: Reader, query: SnapshotQuery): { snapshots: SnapshotRow[]; next?: string } {
  const limit = pageSize(query.limit);
  const behind = entryBehind(query.cursor, "snapshots");
  const { runId, workflowId, tag, text } = query;
  const conditions = [
    runId !== undefined && "run_id = $runId",
    workflowId !== undefined && "workflow_id = $workflowId",
    tag && "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = $tag)",
    text && "(instr(name, $text) > 0 OR instr(description, $text) > 0)",
    behind && "(created_at, snapshot_id) < ($createdAt, $snapshotId)",
  ].filter((condition) => typeof condition === "string" && condition !== "");
  const rows = reader
    .prepare(
      `SELECT row FROM snapshots ${conditions.length > 0 ? `WHERE ${conditions.join(" AND ")}` : ""}
       ORDER BY created_at DESC, snapshot_id DESC LIMIT $limit`,
    )
    .all({
      ...(runId === undefined ? {} : { runId }),
      ...(workflowId === undefined ? {} : { workflowId }),
      ...(tag ? { tag: folded(tag) } : {}),
      ...(text ? { text: folded(text) } : {}),
      ...(behind ? { createdAt: behind.createdAt, snapshotId: behind.id } : {}),
      limit: limit + 1,
    });
  const page = rows.slice(0, limit).map(({ row }) => snapshotOf(row));
  const last = page.at(-1);
  return { snapshots: page, ...nextAfter(last && entryOf(last), rows.length > page.length) };
}

export function deleteSnapshot(reader: Reader, snapshotId: string): boolean {
  return reader.prepare("DELETE FROM snapshots WHERE snapshot_id = ?").run(snapshotId).changes > 0;
}

function snapshotOf(row: unknown): SnapshotRow {
  return JSON.parse(row as string) as SnapshotRow;
}
