/** Artifacts: what is known of them, who refers to them, and what nobody does any more. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { ArtifactQuery, ArtifactRow } from "../../kernel/artifact-row.ts";
import { entryBehind, nextAfter } from "../newest-first.ts";
import { pageSize } from "../paging.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { decode, decoded, encode, jsonOf } from "./encode.ts";
import { Filter } from "./filters.ts";
import { momentOr } from "./moment-sql.ts";

/** How long an artifact is kept, and by whom. */
interface Keep {
  pinMs: number;
  runId?: string;
}

interface ArtifactTableRow {
  id: string;
  size_bytes: number;
  content_type: string;
  /** A JSON object. */
  tags: string;
  created_at: number;
  blob: string;
}

const columns = `a.id, a.size_bytes, a.content_type, a.created_at, a.blob,
  (SELECT coalesce(json_object_agg(t.name, t.value), '{}')::text FROM ~artifact_tags t WHERE t.id = a.id) AS tags`;

/** In a transaction. @throws RUN_NOT_FOUND */
export async function putArtifact(
  statements: Statements,
  client: PostgresClient,
  now: number | undefined,
  artifact: ArtifactRow,
  { pinMs, runId, replace }: Keep & { replace?: true },
): Promise<ArtifactRow> {
  const run = await runNumber(statements, client, runId);
  const { id, sizeBytes, contentType, tags, createdAt, blob } = artifact;
  const insert = `INSERT INTO ~artifacts AS a (id, size_bytes, content_type, created_at, blob, pinned_until)
    VALUES ($1, $2, $3, $4, $5, 0) ON CONFLICT (id) DO UPDATE SET blob = CASE WHEN $6 THEN excluded.blob ELSE a.blob END`;
  await statements.rows(client, insert, [encode(id), sizeBytes, encode(contentType), createdAt, encode(blob), replace === true]);
  const tag = `INSERT INTO ~artifact_tags SELECT $1, key, value FROM json_each_text($2::json)
    ON CONFLICT (id, name) DO UPDATE SET value = excluded.value`;
  if (Object.keys(tags).length > 0) await statements.rows(client, tag, [encode(id), jsonTags(tags)]);
  return (await keep(statements, client, now, id, run, pinMs)) as ArtifactRow;
}

/** In a transaction. @throws RUN_NOT_FOUND */
export async function keepArtifact(
  statements: Statements,
  client: PostgresClient,
  now: number | undefined,
  id: string,
  { pinMs, runId }: Keep,
): Promise<ArtifactRow | undefined> {
  return keep(statements, client, now, id, await runNumber(statements, client, runId), pinMs);
}

async function keep(
  statements: Statements,
  client: PostgresClient,
  now: number | undefined,
  id: string,
  run: number | undefined,
  pinMs: number,
): Promise<ArtifactRow | undefined> {
  const pin = `UPDATE ~artifacts SET pinned_until = greatest(pinned_until, ${momentOr("$2::bigint")} + $3::bigint) WHERE id = $1`;
  await statements.rows(client, pin, [encode(id), now, pinMs]);
  const hold = "INSERT INTO ~artifact_runs SELECT $1, id FROM ~artifacts WHERE id = $2 ON CONFLICT DO NOTHING";
  if (run !== undefined) await statements.rows(client, hold, [run, encode(id)]);
  const [found] = await statements.rows<ArtifactTableRow>(client, `SELECT ${columns} FROM ~artifacts a WHERE id = $1`, [
    encode(id),
  ]);
  return found && artifactRow(found);
}

/** Locked, so that it is not removed meanwhile. @throws RUN_NOT_FOUND */
async function runNumber(statements: Statements, client: PostgresClient, runId: string | undefined): Promise<number | undefined> {
  if (runId === undefined) return undefined;
  const [row] = await statements.rows(client, "SELECT run FROM ~runs WHERE run_id = $1 FOR UPDATE", [encode(runId)]);
  if (!row) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
  return row.run as number;
}

export async function dropArtifacts(statements: Statements, client: PostgresClient, runId: string, id?: string): Promise<number> {
  const sql = `DELETE FROM ~artifact_runs WHERE run = (SELECT run FROM ~runs WHERE run_id = $1) AND ($2::text IS NULL OR id = $2) RETURNING id`;
  return (await statements.rows(client, sql, [encode(runId), id === undefined ? null : encode(id)])).length;
}

/** In a transaction. What somebody is about to refer to is locked, and left. */
export async function sweepArtifacts(
  statements: Statements,
  client: PostgresClient,
  now: number | undefined,
  limit: number,
  id?: string,
): Promise<ArtifactRow[]> {
  const which = id === undefined ? `a.pinned_until <= ${momentOr("$1::bigint")}` : "a.id = $1";
  const sql = `SELECT ${columns} FROM ~artifacts a WHERE a.runs = 0 AND ${which} ORDER BY a.pinned_until LIMIT $2 FOR UPDATE OF a SKIP LOCKED`;
  const swept = await statements.rows<ArtifactTableRow>(client, sql, [id === undefined ? now : encode(id), limit]);
  const json = jsonOf(swept.map((row) => row.id));
  const those = "id IN (SELECT json_array_elements_text($1::json))";
  await statements.rows(client, `DELETE FROM ~artifact_tags WHERE ${those}`, [json]);
  await statements.rows(client, `DELETE FROM ~artifacts WHERE ${those}`, [json]);
  return swept.map(artifactRow);
}

export async function findArtifact(
  statements: Statements,
  client: PostgresClient,
  id: string,
): Promise<(ArtifactRow & { runIds: string[] }) | undefined> {
  const sql = `SELECT ${columns}, (SELECT coalesce(json_agg(r.run_id ORDER BY r.run), '[]')::text FROM ~artifact_runs h
    JOIN ~runs r ON r.run = h.run WHERE h.id = a.id) AS run_ids FROM ~artifacts a WHERE a.id = $1`;
  const [found] = await statements.rows<ArtifactTableRow & { run_ids: string }>(client, sql, [encode(id)]);
  return found && { ...artifactRow(found), runIds: decoded(found.run_ids) as string[] };
}

export async function queryArtifacts(
  statements: Statements,
  client: PostgresClient,
  query: ArtifactQuery,
): Promise<{ artifacts: ArtifactRow[]; next?: string }> {
  const limit = pageSize(query.limit);
  const behind = entryBehind(query.cursor, "artifacts");
  const filter = new Filter();
  const { runId, tags = {}, blobs } = query;
  if (runId !== undefined)
    filter.is(
      `a.id IN (SELECT h.id FROM ~artifact_runs h WHERE h.run = (SELECT run FROM ~runs WHERE run_id = ${filter.value(runId)}))`,
    );
  if (blobs) filter.equal("a.blob", blobs);
  for (const [name, value] of Object.entries(tags))
    filter.is(
      `EXISTS (SELECT FROM ~artifact_tags t WHERE t.id = a.id AND t.name = ${filter.value(name)} AND t.value = ${filter.value(value)})`,
    );
  if (behind) filter.is(`(a.created_at, a.id) < (${filter.value(behind.createdAt)}, ${filter.value(behind.id)})`);
  const sql = `SELECT ${columns} FROM ~artifacts a ${filter.where()} ORDER BY a.created_at DESC, a.id DESC LIMIT ${limit + 1}`;
  const rows = await statements.rows<ArtifactTableRow>(client, sql, filter.values, true);
  const page = rows.slice(0, limit).map(artifactRow);
  return { artifacts: page, ...nextAfter(page.at(-1), rows.length > page.length) };
}

/** Names, too, may hold what Postgres does not take. */
function jsonTags(tags: Readonly<Record<string, string>>): string {
  return jsonOf(Object.fromEntries(Object.entries(tags).map(([name, value]) => [encode(name), value])));
}

function artifactRow({ id, size_bytes, content_type, tags, created_at, blob }: ArtifactTableRow): ArtifactRow {
  const named = Object.entries(decoded(tags) as Record<string, string>).map(([name, value]) => [decode(name), value]);
  return {
    id,
    sizeBytes: size_bytes,
    contentType: content_type,
    tags: Object.fromEntries(named),
    createdAt: created_at,
    blob,
  };
}
