/** Artifacts of exported runs, under the ids that Python gave them, or else ours. */
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { ArtifactMetadata } from "../kernel/artifact.ts";
import { pythonTag } from "../kernel/artifact.ts";
import { isArtifactId } from "./artifact-file.ts";
import type { ExportSource } from "./export.ts";
import { metadataTag } from "./import-artifacts.ts";
import { fileTag } from "./import.ts";
import { replaceFile } from "./replace-file.ts";
import { fileText } from "./text.ts";
import { pythonTime } from "./time.ts";

/** Answers the ids that they have in the directory. */
export async function exportArtifacts(
  { artifacts }: ExportSource,
  runIds: readonly string[],
  directory: string,
): Promise<string[]> {
  const written = new Set<string>();
  for (const runId of runIds) {
    for (const metadata of await artifacts.listByRun(runId)) {
      // The files of an import are written as files.
      if (metadata.tags[fileTag] !== undefined) continue;
      for (const id of idsOf(metadata)) {
        if (written.has(id)) continue;
        written.add(id);
        await mkdir(join(directory, "artifacts"), { recursive: true });
        const path = join(directory, "artifacts", id);
        const opened = await artifacts.open(metadata.artifactId);
        await replaceFile(`${path}.bin`, opened.stream());
        await replaceFile(`${path}.meta`, fileText(pythonMetadata(id, runId, metadata)));
      }
    }
  }
  return [...written];
}

const prefix = pythonTag("");

function idsOf({ artifactId, tags }: ArtifactMetadata): string[] {
  const old = Object.entries(tags).flatMap(([tag, value]) =>
    value === "artifact" && tag.startsWith(prefix) && !tag.slice(prefix.length).includes(":") ? [tag.slice(prefix.length)] : [],
  );
  // Whoever puts an artifact chooses its tags.
  const named = old.filter(isArtifactId);
  return named.length > 0 ? named : [artifactId];
}

function pythonMetadata(id: string, runId: string, { contentType, sizeBytes, createdAt, tags }: ArtifactMetadata) {
  const isOld = tags[pythonTag(id)] === "artifact";
  return {
    artifact_id: id,
    content_type: tags[metadataTag(id, "content_type")] ?? contentType,
    size_bytes: sizeBytes,
    created_at: tags[metadataTag(id, "created_at")] ?? pythonTime(createdAt),
    run_id: isOld ? (tags[metadataTag(id, "run_id")] ?? null) : runId,
    tags: Object.fromEntries(Object.entries(tags).filter(([tag]) => !tag.startsWith(prefix))),
  };
}
