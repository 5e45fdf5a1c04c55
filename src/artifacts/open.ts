/** Reading, with the bytes compared with their id. */
import { createHash } from "node:crypto";
import { ReadableStream } from "node:stream/web";
import type { ArtifactMetadata, OpenArtifact } from "../kernel/artifact.ts";
import { AbstractRuntimeError, isError } from "../kernel/errors.ts";
import { parseJson } from "../kernel/json.ts";
import type { ArtifactRow, BlobStore } from "../kernel/artifact-row.ts";

export function metadataOf({ id, sizeBytes, contentType, tags, createdAt }: ArtifactRow): ArtifactMetadata {
  return { artifactId: id, sizeBytes, contentType, tags, createdAt };
}

export function openArtifact(blobs: BlobStore, artifact: ArtifactRow & { runIds: string[] }): OpenArtifact {
  const { id, sizeBytes, contentType } = artifact;
  const bytes = async (): Promise<Uint8Array> => {
    const all = new Uint8Array(sizeBytes);
    let filled = 0;
    for await (const chunk of checkedBytes(blobs, artifact)) {
      all.set(chunk, filled);
      filled += chunk.length;
    }
    return all;
  };
  const text = async (): Promise<string> => Buffer.from(await bytes()).toString("utf8");
  return {
    metadata: { ...metadataOf(artifact), runIds: artifact.runIds },
    stream: () => ReadableStream.from<Uint8Array>(checkedBytes(blobs, artifact)) as ReadableStream<Uint8Array>,
    bytes,
    text,
    json: async () => {
      const written = await text();
      try {
        return parseJson(written);
      } catch (error) {
        const problem = `artifact ${id} (${contentType}) is not JSON: ${error instanceof Error ? error.message : String(error)}`;
        throw new AbstractRuntimeError("INVALID_OPTION", { option: "artifact", problem }, error);
      }
    },
  };
}

/** After so many bytes the event loop gets its turn: bytes that are near at hand would otherwise come without one. */
const turnBytes = 256 * 1024;

/** @throws ARTIFACT_MISSING; ARTIFACT_CORRUPT, at the end or where there is more than there should be. */
async function* checkedBytes(blobs: BlobStore, { id, sizeBytes, blob }: ArtifactRow): AsyncGenerator<Uint8Array> {
  const hash = createHash("sha256");
  let read = 0;
  let turnAt = turnBytes;
  const corrupt = (problem: string): never => {
    throw new AbstractRuntimeError("ARTIFACT_CORRUPT", { artifactId: id, store: blobs.name, blob, problem });
  };
  try {
    for await (const chunk of blobs.read(blob)) {
      read += chunk.length;
      if (read > sizeBytes) corrupt(`there are more than its ${sizeBytes} bytes`);
      hash.update(chunk);
      yield chunk;
      if (read < turnAt) continue;
      turnAt = read + turnBytes;
      await new Promise((resolve) => setImmediate(resolve));
    }
  } catch (error) {
    if (!isError(error, "ARTIFACT_MISSING")) throw error;
    throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId: id, blob, store: blobs.name }, error);
  }
  if (read < sizeBytes) corrupt(`there are ${read} of its ${sizeBytes} bytes`);
  if (hash.digest("hex") !== id) corrupt("they have another SHA-256");
}
