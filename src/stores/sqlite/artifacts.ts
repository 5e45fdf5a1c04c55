/** Artifacts: what is known of them, who refers to them, and what nobody does any more. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { ArtifactQuery, ArtifactRow } from "../../kernel/artifact-row.ts";
import { entryBehind, nextAfter } from "../newest-first.ts";
import { pageSize } from "../paging.ts";
import type { Reader } from "./read.ts";

/** How long an artifact is kept, and by whom: `run` is what stands under `runId`. */
interface Keep {
  pinMs: number;
  runId?: string;
}

type RunNumber = { run: number } | undefined;

interface ArtifactTableRow {
  artifact: number;
  id: string;
  size_bytes: number;
  content_type: string;
  tags: string;
  created_at: number;
  blob: string;
}

const columns = "artifact, id, size_bytes, content_type, tags, created_at, blob";

/** @param run As it stands in this transaction. @throws RUN_NOT_FOUND */
export function putArtifact(
  reader: Reader,
  run: RunNumber,
  artifact: ArtifactRow,
  { pinMs, runId, replace }: Keep & { replace?: true },
  now: number,
): ArtifactRow {
  checkRun(run, runId);
  const known = find(reader, artifact.id);
  if (!known) {
    const { id, sizeBytes, contentType, tags, createdAt, blob } = artifact;
    reader
      .prepare(
        `INSERT INTO artifacts (id, size_bytes, content_type, tags, created_at, blob, pinned_until, runs)
         VALUES (?, ?, ?, ?, ?, ?, 0, 0)`,
      )
      .run(id, sizeBytes, contentType, JSON.stringify(tags), createdAt, blob);
  } else {
    const tags = { ...(JSON.parse(known.tags) as Record<string, string>), ...artifact.tags };
    reader
      .prepare("UPDATE artifacts SET tags = ?, blob = ? WHERE artifact = ?")
      .run(JSON.stringify(tags), replace ? artifact.blob : known.blob, known.artifact);
  }
  return keepArtifact(reader, run, artifact.id, { pinMs, runId }, now) as ArtifactRow;
}

/** @throws RUN_NOT_FOUND */
export function keepArtifact(
  reader: Reader,
  run: RunNumber,
  id: string,
  { pinMs, runId }: Keep,
  now: number,
): ArtifactRow | undefined {
  checkRun(run, runId);
  const known = find(reader, id);
  if (!known) return undefined;
  reader
    .prepare("UPDATE artifacts SET pinned_until = ?2 WHERE artifact = ?1 AND pinned_until < ?2")
    .run(known.artifact, now + pinMs);
  if (run) holdArtifacts(reader, run.run, [id]);
  return artifactRow(known);
}

function checkRun(run: RunNumber, runId: string | undefined): void {
  if (runId !== undefined && !run) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
}

/** What a commit refers to must be known. @throws ARTIFACT_MISSING */
export function checkArtifacts(reader: Reader, runId: string, ids: readonly string[] = []): void {
  for (const id of ids) if (!find(reader, id)) throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId: id, runId });
}

/** @param run Its number. */
export function holdArtifacts(reader: Reader, run: number, ids: readonly string[] = []): void {
  for (const id of ids)
    reader.prepare("INSERT OR IGNORE INTO artifact_runs SELECT ?, artifact FROM artifacts WHERE id = ?").run(run, id);
}

/** @param run Its number. */
export function artifactIdsOf(reader: Reader, run: number): string[] {
  return reader
    .prepare("SELECT id FROM artifact_runs CROSS JOIN artifacts USING (artifact) WHERE run = ? ORDER BY artifact")
    .all(run)
    .map(({ id }) => id as string);
}

export function dropArtifacts(reader: Reader, run: RunNumber, id?: string): number {
  if (!run) return 0;
  const { changes } =
    id === undefined
      ? reader.prepare("DELETE FROM artifact_runs WHERE run = ?").run(run.run)
      : reader
          .prepare("DELETE FROM artifact_runs WHERE run = ? AND artifact = (SELECT artifact FROM artifacts WHERE id = ?)")
          .run(run.run, id);
  return Number(changes);
}

export function sweepArtifacts(reader: Reader, limit: number, id: string | undefined, now: number): ArtifactRow[] {
  const rows =
    id === undefined
      ? reader
          .prepare(
            `SELECT ${columns} FROM artifacts INDEXED BY artifacts_loose WHERE runs = 0 AND pinned_until <= ? ORDER BY pinned_until LIMIT ?`,
          )
          .all(now, limit)
      : reader.prepare(`SELECT ${columns} FROM artifacts WHERE id = ? AND runs = 0 LIMIT ?`).all(id, limit);
  const swept = rows as unknown as ArtifactTableRow[];
  for (const { artifact } of swept) reader.prepare("DELETE FROM artifacts WHERE artifact = ?").run(artifact);
  return swept.map(artifactRow);
}

export function findArtifact(reader: Reader, id: string): (ArtifactRow & { runIds: string[] }) | undefined {
  const found = find(reader, id);
  if (!found) return undefined;
  const holders = reader
    .prepare(
      "SELECT run_id FROM artifact_runs INDEXED BY artifact_runs_artifact CROSS JOIN runs USING (run) WHERE artifact = ? ORDER BY run",
    )
    .all(found.artifact);
  return { ...artifactRow(found), runIds: holders.map(({ run_id }) => run_id as string) };
}

export function queryArtifacts(reader: Reader, query: ArtifactQuery): { artifacts: ArtifactRow[]; next?: string } {
  const limit = pageSize(query.limit);
  const behind = entryBehind(query.cursor, "artifacts");
  const { runId, tags, blobs } = query;
  const conditions = [
    runId !== undefined &&
      "artifact IN (SELECT artifact FROM artifact_runs WHERE run = (SELECT run FROM runs WHERE run_id = $runId))",
    blobs && "blob IN (SELECT value FROM json_each($blobs))",
    // Rows of the list are asked for each tag that is wanted: a tag is no path, whatever its name is.
    tags &&
      `NOT EXISTS (SELECT 1 FROM json_each($tags) AS wanted WHERE NOT EXISTS (
         SELECT 1 FROM json_each(artifacts.tags) AS has WHERE has.key = wanted.key AND has.value = wanted.value))`,
    behind && "(created_at, id) < ($createdAt, $id)",
  ].filter((condition) => typeof condition === "string");
  const rows = reader
    .prepare(
      `SELECT ${columns} FROM artifacts ${conditions.length > 0 ? `WHERE ${conditions.join(" AND ")}` : ""}
       ORDER BY created_at DESC, id DESC LIMIT $limit`,
    )
    .all({
      ...(runId === undefined ? {} : { runId }),
      ...(blobs ? { blobs: JSON.stringify(blobs) } : {}),
      ...(tags ? { tags: JSON.stringify(tags) } : {}),
      ...(behind ? { createdAt: behind.createdAt, id: behind.id } : {}),
      limit: limit + 1,
    }) as unknown as ArtifactTableRow[];
  const page = rows.slice(0, limit).map(artifactRow);
  return { artifacts: page, ...nextAfter(page.at(-1), rows.length > page.length) };
}

function find(reader: Reader, id: string): ArtifactTableRow | undefined {
  return reader.prepare(`SELECT ${columns} FROM artifacts WHERE id = ?`).get(id) as unknown as ArtifactTableRow | undefined;
}

function artifactRow({ id, size_bytes, content_type, tags, created_at, blob }: ArtifactTableRow): ArtifactRow {
  return {
    id,
    sizeBytes: size_bytes,
    contentType: content_type,
    tags: JSON.parse(tags) as Record<string, string>,
    createdAt: created_at,
    blob,
  };
}
