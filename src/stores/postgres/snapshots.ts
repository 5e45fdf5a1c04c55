/** Snapshots: saved, found, removed. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { SnapshotQuery, SnapshotRow } from "../../kernel/snapshot.ts";
import { entryBehind, entryOf, folded, nextAfter } from "../newest-first.ts";
import { pageSize } from "../paging.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { arrayOf, encode } from "./encode.ts";
import { Filter } from "./filters.ts";

/** One statement, so that the run is there with it. @throws RUN_NOT_FOUND, SEQ_NOT_FOUND */
export async function saveSnapshot(statements: Statements, client: PostgresClient, snapshot: SnapshotRow): Promise<void> {
  const { snapshotId, runId, workflowId, seq, createdAt, tags, name, description = "" } = snapshot;
  const sql = `WITH run AS (SELECT seq FROM ~runs WHERE run_id = $2 FOR SHARE),
    saved AS (INSERT INTO ~snapshots SELECT $1, $2, $3, $4, $5::text[], $6, $7, $8 FROM run WHERE $9 BETWEEN 0 AND run.seq
      ON CONFLICT (snapshot_id) DO UPDATE SET run_id = excluded.run_id, workflow_id = excluded.workflow_id,
        created_at = excluded.created_at, tags = excluded.tags, name = excluded.name, description = excluded.description,
        whole = excluded.whole RETURNING 1)
    SELECT seq, (SELECT count(*) FROM saved) AS saved FROM run`;
  const [row] = await statements.rows(client, sql, [
    encode(snapshotId),
    encode(runId),
    encode(workflowId),
    createdAt,
    arrayOf(tags.map(folded)),
    encode(folded(name)),
    encode(folded(description)),
    JSON.stringify(snapshot),
    seq,
  ]);
  if (!row) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
  if (row.saved === 0) throw new AbstractRuntimeError("SEQ_NOT_FOUND", { runId, seq, last: row.seq as number });
}

export async function findSnapshot(
  statements: Statements,
  client: PostgresClient,
  snapshotId: string,
): Promise<SnapshotRow | undefined> {
  const [found] = await statements.rows(client, "SELECT whole FROM ~snapshots WHERE snapshot_id = $1", [encode(snapshotId)]);
  return found && snapshotOf(found.whole);
}

export async function querySnapshots(
  statements: Statements,
  client: PostgresClient,
  query: SnapshotQuery,
): Promise<{ snapshots: SnapshotRow[]; next?: string }> {
  const limit = pageSize(query.limit);
  const behind = entryBehind(query.cursor, "snapshots");
  const filter = new Filter();
  filter.equal("run_id", query.runId);
  filter.equal("workflow_id", query.workflowId);
  if (query.tag) filter.is(`${filter.value(folded(query.tag))} = ANY (tags)`);
  if (query.text) {
    const text = filter.value(folded(query.text));
    filter.is(`(strpos(name, ${text}) > 0 OR strpos(description, ${text}) > 0)`);
  }
  if (behind) filter.is(`(created_at, snapshot_id) < (${filter.value(behind.createdAt)}, ${filter.value(behind.id)})`);
  const sql = `SELECT whole FROM ~snapshots ${filter.where()} ORDER BY created_at DESC, snapshot_id DESC LIMIT ${limit + 1}`;
  const rows = await statements.rows(client, sql, filter.values, true);
  const page = rows.slice(0, limit).map(({ whole }) => snapshotOf(whole));
  const last = page.at(-1);
  return { snapshots: page, ...nextAfter(last && entryOf(last), rows.length > page.length) };
}

export async function deleteSnapshot(statements: Statements, client: PostgresClient, snapshotId: string): Promise<boolean> {
  const sql = "DELETE FROM ~snapshots WHERE snapshot_id = $1 RETURNING 1 AS one";
  return (await statements.rows(client, sql, [encode(snapshotId)])).length > 0;
}

function snapshotOf(whole: unknown): SnapshotRow {
  return JSON.parse(whole as string) as SnapshotRow;
}
