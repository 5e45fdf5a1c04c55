/** `artifacts/<id>.meta`: what is known of the bytes in `artifacts/<id>.bin`. */
import { isLosslessNumber } from "lossless-json";
import { isPythonObject, objectOf, textAt, textOrNullAt, Unusable } from "./shape.ts";
import type { PythonJson } from "./text.ts";

export interface PythonArtifactMetadata {
  artifact_id: string;
  content_type: string;
  size_bytes: number;
  created_at: string | null;
  run_id: string | null;
  tags: Record<string, string>;
}

/** Ids are file names: letters, digits, `-` and `_`. */
export function isArtifactId(id: string): boolean {
  return /^[A-Za-z0-9_-]+$/.test(id);
}

/** @throws Unusable */
export function readArtifactMetadata(value: PythonJson): PythonArtifactMetadata {
  const metadata = objectOf(value, "it");
  const size = metadata.size_bytes;
  const sizeBytes = isLosslessNumber(size) ? Number(size.value) : Number.NaN;
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0) throw new Unusable("size_bytes is no number of bytes");
  const tags = metadata.tags ?? {};
  if (!isPythonObject(tags) || !Object.values(tags).every((tag) => typeof tag === "string"))
    throw new Unusable("tags are not texts by name");
  return {
    artifact_id: textAt(metadata, "artifact_id"),
    content_type: textOrNullAt(metadata, "content_type") ?? "application/octet-stream",
    size_bytes: sizeBytes,
    created_at: textOrNullAt(metadata, "created_at"),
    run_id: textOrNullAt(metadata, "run_id"),
    tags: tags as Record<string, string>,
  };
}
