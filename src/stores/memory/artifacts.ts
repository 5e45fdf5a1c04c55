/** Artifacts: what is known of them, who refers to them, and what nobody does any more. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { ArtifactQuery, ArtifactRow } from "../../kernel/artifact-row.ts";
import { compareEntries, entryBehind, nextAfter } from "../newest-first.ts";
import { pageSize } from "../paging.ts";
import type { Contents } from "./contents.ts";

/** An artifact as it is kept. */
export interface KeptArtifact extends ArtifactRow {
  pinnedUntil: number;
}

/** How long an artifact is kept, and by whom. */
interface Keep {
  pinMs: number;
  runId?: string;
}

/** @throws RUN_NOT_FOUND */
export function putArtifact(
  contents: Contents,
  artifact: ArtifactRow,
  { pinMs, runId, replace }: Keep & { replace?: true },
  now: number,
): ArtifactRow {
  checkRun(contents, runId);
  const known = contents.artifacts.get(artifact.id);
  const stands = known ? { ...known, tags: { ...known.tags, ...artifact.tags } } : { ...artifact, pinnedUntil: 0 };
  if (replace) stands.blob = artifact.blob;
  return keep(contents, stands, { pinMs, runId }, now);
}

/** @throws RUN_NOT_FOUND */
export function keepArtifact(contents: Contents, id: string, options: Keep, now: number): ArtifactRow | undefined {
  checkRun(contents, options.runId);
  const known = contents.artifacts.get(id);
  return known && keep(contents, known, options, now);
}

function checkRun({ runs }: Contents, runId: string | undefined): void {
  if (runId !== undefined && !runs.has(runId)) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
}

function keep(contents: Contents, artifact: KeptArtifact, { pinMs, runId }: Keep, now: number): ArtifactRow {
  const kept = { ...artifact, pinnedUntil: Math.max(artifact.pinnedUntil, now + pinMs) };
  contents.artifacts.set(kept.id, kept);
  if (runId !== undefined) holdArtifacts(contents, runId, [kept.id]);
  return copyArtifact(kept);
}

/** What a commit refers to must be known. @throws ARTIFACT_MISSING */
export function checkArtifacts({ artifacts }: Contents, runId: string, ids: readonly string[] = []): void {
  for (const id of ids) if (!artifacts.has(id)) throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId: id, runId });
}

export function holdArtifacts({ runs, changed }: Contents, runId: string, ids: readonly string[] = []): void {
  const run = runs.get(runId);
  if (!run || ids.length === 0) return;
  for (const id of ids) run.artifacts.set(id, true);
  changed.add(run);
}

export function dropArtifacts({ runs, changed }: Contents, runId: string, id?: string): number {
  const run = runs.get(runId);
  const dropped = run ? [...run.artifacts.keys()].filter((one) => one === (id ?? one)) : [];
  if (!run || dropped.length === 0) return 0;
  for (const one of dropped) run.artifacts.delete(one);
  changed.add(run);
  return dropped.length;
}

export function sweepArtifacts(contents: Contents, limit: number, id: string | undefined, now: number): ArtifactRow[] {
  const { artifacts, runs } = contents;
  const held = new Set([...runs.values()].flatMap((run) => [...run.artifacts.keys()]));
  const isWanted = (artifact: KeptArtifact): boolean => (id === undefined ? artifact.pinnedUntil <= now : artifact.id === id);
  const swept = [...artifacts.values()].filter((one) => isWanted(one) && !held.has(one.id)).slice(0, limit);
  for (const one of swept) artifacts.delete(one.id);
  return swept.map(copyArtifact);
}

export function findArtifact({ artifacts, runs }: Contents, id: string): (ArtifactRow & { runIds: string[] }) | undefined {
  const found = artifacts.get(id);
  const holders = [...runs.values()].filter((run) => run.artifacts.has(id));
  return found && { ...copyArtifact(found), runIds: holders.map(({ row }) => row.runId) };
}

export function queryArtifacts(contents: Contents, query: ArtifactQuery): { artifacts: ArtifactRow[]; next?: string } {
  const behind = entryBehind(query.cursor, "artifacts");
  const found = [...contents.artifacts.values()]
    .filter((artifact) => (!behind || compareEntries(behind, artifact) < 0) && matches(contents, artifact, query))
    .sort(compareEntries);
  const page = found.slice(0, pageSize(query.limit)).map(copyArtifact);
  return { artifacts: page, ...nextAfter(page.at(-1), found.length > page.length) };
}

function matches(
  { runs }: Contents,
  { id, tags, blob }: ArtifactRow,
  { runId, tags: wanted = {}, blobs }: ArtifactQuery,
): boolean {
  if (runId !== undefined && !runs.get(runId)?.artifacts.has(id)) return false;
  if (blobs && !blobs.includes(blob)) return false;
  return Object.entries(wanted).every(([name, value]) => Object.hasOwn(tags, name) && tags[name] === value);
}

function copyArtifact({ pinnedUntil: _, ...artifact }: KeptArtifact): ArtifactRow {
  return { ...artifact, tags: { ...artifact.tags } };
}
