/**
 * References to artifacts: bytes that are too large for the ledger, known by their SHA-256. A reference is plain JSON and may stand
 * anywhere in vars, payloads and results. Whatever a record refers to is kept for as long as its run.
 */
import type { ReadableStream } from "node:stream/web";
import { invalidOption } from "./errors.ts";
import { isObject, type Json } from "./json.ts";
import type { Patch } from "./patch.ts";
import type { ArtifactRow } from "./artifact-row.ts";

/** Stands for an artifact in JSON. Only `$artifact` counts; the rest is for whoever looks at it. */
export type ArtifactRef = {
  /** SHA-256 of the bytes: 64 hex digits. */
  $artifact: string;
  contentType?: string;
  sizeBytes?: number;
};

/** What can be put. A text is put as UTF-8; a stream is never held as a whole. */
export type ArtifactContent = string | Uint8Array | ReadableStream<Uint8Array | string> | AsyncIterable<Uint8Array | string>;

export interface PutOptions {
  /** Default: `text/plain; charset=utf-8` for a text, otherwise `application/octet-stream`. */
  contentType?: string;
  /** Names and values to find it by. Default: none. */
  tags?: Readonly<Record<string, string>>;
  /** Keeps it for as long as this run. Default: a day, in which something must refer to it. */
  runId?: string;
  /** What is known under this id has lost its bytes: these take their place. Default: the bytes that are there stay. */
  replace?: boolean;
}

/** What is known of an artifact. */
export interface ArtifactMetadata extends Omit<ArtifactRow, "id" | "blob"> {
  artifactId: string;
}

/** An artifact to read. Each call reads it anew. */
export interface OpenArtifact {
  readonly metadata: ArtifactMetadata & { runIds: string[] };
  /**
   * The bytes as they come. They are compared with the id while they are read: a stream of other bytes ends with ARTIFACT_CORRUPT, at
   * its end, so do not use what it gave before that.
   */
  stream(): ReadableStream<Uint8Array>;
  /** @throws ARTIFACT_CORRUPT, ARTIFACT_MISSING */
  bytes(): Promise<Uint8Array>;
  text(): Promise<string>;
  /** @throws Also INVALID_OPTION when it is not JSON. */
  json(): Promise<Json>;
}

/** Bytes beside the runs, for handlers of effects. */
export interface ArtifactAccess {
  /**
   * Puts bytes, and answers what stands for them in results and vars. The same bytes have the same id, and are kept once.
   *
   * @throws INVALID_OPTION, RUN_NOT_FOUND, and whatever the stream rejects with: nothing is put then.
   */
  put(content: ArtifactContent, options?: PutOptions): Promise<ArtifactRef>;
  /** @throws ARTIFACT_MISSING */
  open(artifact: ArtifactRef | string): Promise<OpenArtifact>;
}

/** What drivers need of artifacts. */
export interface ArtifactKeeper extends ArtifactAccess {
  /** As `put`, kept for `forMs`. */
  putFor(content: ArtifactContent, options: PutOptions, forMs: number): Promise<ArtifactRow>;
  /** Keeps a known artifact for `forMs`, with `runId` for as long as the run. Answers whether it is known. @throws RUN_NOT_FOUND */
  keep(artifactId: string, forMs: number, runId?: string): Promise<boolean>;
}

/** A reference to an artifact that is known by its id. */
export function artifactRef(artifactId: string): ArtifactRef {
  return { $artifact: artifactId };
}

export function isArtifactRef(value: unknown): value is ArtifactRef {
  return isObject(value) && Object.hasOwn(value, "$artifact") && isArtifactId(value.$artifact);
}

/** The tag that names an artifact by the id which it had in the Python package. Its value is "artifact". */
export function pythonTag(pythonId: string): string {
  return `python:${pythonId}`;
}

/** @throws INVALID_OPTION when it is not a reference. */
export function getArtifactId(ref: unknown): string {
  if (isArtifactRef(ref)) return ref.$artifact;
  throw invalidOption("artifact", "an artifact is named by a reference, { $artifact: id }, or by its id: 64 hex digits");
}

/** @throws INVALID_OPTION */
export function artifactIdOf(artifact: ArtifactRef | string): string {
  return isArtifactId(artifact) ? artifact : getArtifactId(artifact);
}

export function isArtifactId(value: unknown): value is string {
  return typeof value === "string" && /^[0-9a-f]{64}$/.test(value);
}

/** Ids of the artifacts that what is encoded in `text` refers to; none when the text has no marker, which costs little. */
export function artifactIdsIn(text: string, data: object): string[] {
  if (!mayRefer(text)) return [];
  const ids = new Set<string>();
  collect(data as Json, ids);
  for (const id of artifactIdsWritten((data as { patch?: Patch }).patch)) ids.add(id);
  return [...ids];
}

/** Ids that a patch writes into objects which are there, and become references with that. */
export function artifactIdsWritten(patch: Patch = []): string[] {
  const ids: string[] = [];
  for (const operation of patch)
    if (operation.path.endsWith("/$artifact") && "value" in operation && isArtifactId(operation.value)) ids.push(operation.value);
  return ids;
}

/** Whether what is encoded in `text` may refer to artifacts. */
export function mayRefer(text: string): boolean {
  return text.includes(marker);
}

/** The end of a member's name, or of a pointer to it. */
const marker = '$artifact"';

function collect(value: Json | undefined, ids: Set<string>): void {
  if (typeof value !== "object" || value === null) return;
  if (isArtifactRef(value)) ids.add(value.$artifact);
  for (const part of Array.isArray(value) ? value : Object.values(value)) collect(part, ids);
}
