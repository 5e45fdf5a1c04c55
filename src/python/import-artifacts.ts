/** Artifacts of the Python package. Ours have other ids: the old one is kept as a tag, and references in vars find it by that. */
import { isArtifactTag, mostTags } from "../artifacts/artifacts.ts";
import { pythonTag } from "../kernel/artifact.ts";
import { isObject, type Json } from "../kernel/json.ts";
import type { ArtifactKeeper } from "../kernel/artifact.ts";
import { problemOf } from "./blame.ts";
import { openPlain, type PythonDirectory } from "./directory.ts";

export interface ImportedArtifact {
  /** As in `{"$artifact": ...}`. */
  pythonId: string;
  /** SHA-256 of the bytes. */
  id: string;
  sizeBytes: number;
}

/** The tag that holds a part of the old metadata which the artifact here does not have. */
export function metadataTag(pythonId: string, key: string): string {
  return `${pythonTag(pythonId)}:${key}`;
}

/** Until somebody deletes them: what Python stored for no run is held by none here. */
const forEverMs = 100 * 365 * 86_400_000;

export async function importArtifacts(artifacts: ArtifactKeeper, found: PythonDirectory): Promise<ImportedArtifact[]> {
  const imported: ImportedArtifact[] = [];
  const report = (name: string, problem: string): void => {
    found.problems.push({ file: `artifacts/${name}`, code: "PYTHON_FILE_INVALID", problem });
  };
  for (const [pythonId, { metadata, path }] of found.artifacts) {
    try {
      const { run_id, created_at, content_type } = metadata;
      const parts = Object.entries({ run_id, created_at, content_type }).filter(([, value]) => value !== null);
      const ours: [string, unknown][] = [
        [pythonTag(pythonId), "artifact"],
        ...parts.map(([key, value]): [string, unknown] => [metadataTag(pythonId, key), value]),
      ];
      const theirs = Object.entries(metadata.tags);
      // Ours are what references are found by, and they say what an artifact was.
      const free = theirs.filter(([name]) => !name.startsWith(pythonTag("")));
      const kept = [...ours, ...free].filter(isArtifactTag).slice(0, mostTags);
      const tags = Object.fromEntries(kept) as Record<string, string>;
      // The bytes count for more than what they are found by.
      const left = ours.length + theirs.length - kept.length;
      if (left > 0)
        report(`${pythonId}.meta`, `${left} of its texts are too long, too many, or named as ours are, to be kept as tags`);
      // Any text was one there.
      const contentType = /^[\x20-\x7e]{1,255}$/.test(metadata.content_type) ? metadata.content_type : "application/octet-stream";
      const { id, sizeBytes } = await artifacts.putFor(chunksOf(path), { contentType, tags }, forEverMs);
      imported.push({ pythonId, id, sizeBytes });
    } catch (error) {
      report(`${pythonId}.bin`, problemOf(error));
    }
  }
  return imported;
}

/** Ids of ours. */
export interface ArtifactIndex {
  byOldId: Map<string, string>;
  /** Those that Python had stored for it. */
  byRun: Map<string, string[]>;
}

export function indexOf(artifacts: readonly ImportedArtifact[], found: PythonDirectory): ArtifactIndex {
  const index: ArtifactIndex = { byOldId: new Map(), byRun: new Map() };
  for (const { pythonId, id } of artifacts) {
    index.byOldId.set(pythonId, id);
    const runId = found.artifacts.get(pythonId)?.metadata.run_id;
    if (!runId) continue;
    const stored = index.byRun.get(runId) ?? [];
    stored.push(id);
    index.byRun.set(runId, stored);
  }
  return index;
}

/** The ids of ours that a state refers to by their old ones, or that were stored for its run. */
export function artifactsOf(runId: string, state: Json, { byOldId, byRun }: ArtifactIndex): string[] {
  const ids = [...(byRun.get(runId) ?? [])];
  const walk = (value: Json): void => {
    if (Array.isArray(value)) value.forEach(walk);
    else if (isObject(value)) {
      const { $artifact: reference } = value;
      const id = typeof reference === "string" ? byOldId.get(reference) : undefined;
      if (id !== undefined) ids.push(id);
      Object.values(value).forEach(walk);
    }
  };
  if (byOldId.size > 0) walk(state);
  return ids;
}

async function* chunksOf(path: string): AsyncIterable<Uint8Array> {
  const file = await openPlain(path);
  try {
    for (;;) {
      const { bytesRead, buffer } = await file.read(Buffer.allocUnsafe(65_536), 0, 65_536);
      if (bytesRead === 0) return;
      yield buffer.subarray(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
