/**
 * Artifacts: bytes beside the runs, known by their SHA-256.
 *
 * A1. Bytes are written first, under a key that is never used again, then the artifact is made known. What is left of a put that
 *     did not come to its end is a blob that nobody knows; a sweep finds it.
 * A2. An artifact is kept while a run refers to it, and for a day after it was put: in that time the commit comes that refers to it.
 *     A commit that refers to one which is not known is refused.
 * A3. An artifact is forgotten before its bytes are deleted, and put again it gets other bytes: no one is led to bytes that are going.
 */
import { createHash } from "node:crypto";
import {
  type ArtifactAccess,
  type ArtifactContent,
  artifactIdOf,
  type ArtifactMetadata,
  type ArtifactRef,
  isArtifactRef,
  type OpenArtifact,
  pythonTag,
  type PutOptions,
} from "../kernel/artifact.ts";
import type { Ids } from "../kernel/clock.ts";
import { AbstractRuntimeError, checkOptions, isError, invalidOption } from "../kernel/errors.ts";
import { type Json, toJson } from "../kernel/json.ts";
import { checkRunId } from "../kernel/run-id.ts";
import type { ArtifactRow, BlobStore } from "../kernel/artifact-row.ts";
import type { Store } from "../kernel/store.ts";
import { bytesOf, chunksOf, defaultContentType } from "./content.ts";
import { metadataOf, openArtifact } from "./open.ts";
import { type Swept, sweep } from "./sweep.ts";

/** How long what was put is kept for something to refer to it. */
export const pinMs = 24 * 60 * 60 * 1_000;

interface ArtifactsHost {
  readonly store: Store;
  readonly blobs: BlobStore;
  readonly ids: Ids;
  /** Now, by the store's clock. */
  now(): number;
  jsonDepth: number;
  /** Is told what nobody else would hear of. */
  report(message: string, fields: { error: unknown }): void;
  /** @throws RUNTIME_STOPPED */
  checkRunning(): void;
}

/** An artifact, as a whole. */
export interface LoadedArtifact {
  metadata: ArtifactMetadata;
  content: Uint8Array;
}

export class Artifacts implements ArtifactAccess {
  readonly #host: ArtifactsHost;
  /** Keys that this process is writing: a sweep leaves them alone, however long it takes. */
  readonly #writing = new Set<string>();

  constructor(host: ArtifactsHost) {
    this.#host = host;
  }

  async put(content: ArtifactContent, options: PutOptions = {}): Promise<ArtifactRef> {
    this.#host.checkRunning();
    const { id, contentType, sizeBytes } = await this.putFor(content, options, pinMs);
    return { $artifact: id, contentType, sizeBytes };
  }

  async open(artifact: ArtifactRef | string): Promise<OpenArtifact> {
    const id = artifactIdOf(await this.#named(artifact));
    const found = await this.#host.store.artifact(id);
    if (!found) throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId: id });
    return openArtifact(this.#host.blobs, found);
  }

  // ---- The operations of AbstractRuntime's ArtifactStore ------------------------------------------------------------

  /** As `put`; answers what is known of the artifact. */
  async store(content: ArtifactContent, options: PutOptions = {}): Promise<ArtifactMetadata> {
    this.#host.checkRunning();
    return metadataOf(await this.putFor(content, options, pinMs));
  }

  async storeText(text: string, options: PutOptions = {}): Promise<ArtifactMetadata> {
    if (typeof text !== "string") throw invalidOption("text", "text must be text");
    return this.store(text, { contentType: "text/plain", ...options });
  }

  /** @throws NOT_JSON, JSON_TOO_DEEP */
  async storeJson(value: unknown, options: PutOptions = {}): Promise<ArtifactMetadata> {
    const text = JSON.stringify(toJson(value, "value", this.#host.jsonDepth));
    return this.store(text, { contentType: "application/json", ...options });
  }

  /** The artifact with its bytes; null when it is not known. @throws ARTIFACT_CORRUPT, ARTIFACT_MISSING when the bytes are gone. */
  async load(artifactId: string): Promise<LoadedArtifact | null> {
    const opened = await this.#find(artifactId);
    return opened && { metadata: opened.metadata, content: await opened.bytes() };
  }

  async loadText(artifactId: string): Promise<string | null> {
    return (await this.#find(artifactId))?.text() ?? null;
  }

  /** @throws INVALID_OPTION when it is not JSON. */
  async loadJson(artifactId: string): Promise<Json> {
    return (await this.#find(artifactId))?.json() ?? null;
  }

  /** With the runs that refer to it; null when it is not known. */
  async getMetadata(artifactId: string): Promise<OpenArtifact["metadata"] | null> {
    return (await this.#find(artifactId))?.metadata ?? null;
  }

  async exists(artifactId: string): Promise<boolean> {
    return (await this.#find(artifactId)) !== null;
  }

  /**
   * Lets go of an artifact and answers whether something was let go of: with `runId`, of that run's hold on it; without, of the artifact
   * itself, which is deleted at once unless a run refers to it. The bytes that a run refers to stay.
   */
  async delete(artifactId: string, options: { runId?: string } = {}): Promise<boolean> {
    this.#host.checkRunning();
    checkOptions(options, ["runId"], "artifacts.delete()");
    const { store, blobs } = this.#host;
    const id = artifactIdOf(artifactId);
    if (options.runId !== undefined) {
      checkRunId(options.runId);
      return (await store.dropArtifacts(options.runId, id)) > 0;
    }
    const [forgotten] = await store.sweepArtifacts(1, id);
    if (forgotten) await blobs.delete(forgotten.blob);
    return forgotten !== undefined;
  }

  /** Lets go of all that a run refers to, and answers how many that were. What no other run refers to goes with the next sweep. */
  async deleteByRun(runId: string): Promise<number> {
    this.#host.checkRunning();
    checkRunId(runId);
    return this.#host.store.dropArtifacts(runId);
  }

  /** Newest first. */
  async listByRun(runId: string): Promise<ArtifactMetadata[]> {
    checkRunId(runId);
    return this.#list({ runId }, Number.POSITIVE_INFINITY);
  }

  /** Newest first. @param options.tags All of these. @param options.limit Default 1,000. */
  async listAll(options: { limit?: number; tags?: Readonly<Record<string, string>> } = {}): Promise<ArtifactMetadata[]> {
    checkOptions(options, ["limit", "tags"], "artifacts.listAll()");
    const { limit = 1_000, tags } = options;
    if (limit !== Number.POSITIVE_INFINITY && !(Number.isSafeInteger(limit) && limit >= 1))
      throw invalidOption("limit", "limit is a whole number from 1");
    return this.#list(tags ? { tags: checkTags(tags) } : {}, limit);
  }

  /** The artifact that a value refers to; null when it is no reference, or the artifact is not known. */
  async resolveArtifact(ref: unknown): Promise<LoadedArtifact | null> {
    const named = await this.#named(ref);
    return isArtifactRef(named) ? this.load(named.$artifact) : null;
  }

  // ---- Keeping and forgetting ---------------------------------------------------------------------------------------

  /**
   * Deletes what no run refers to and was put more than a day ago, and the bytes that unfinished puts left. Run it now and then, from
   * one process: `abstractruntime artifacts sweep` does.
   */
  async sweep(): Promise<Swept> {
    this.#host.checkRunning();
    return sweep(this.#host, pinMs, this.#writing);
  }

  /** Keeps a known artifact for `forMs`, with `runId` for as long as the run. Answers whether it is known. @throws RUN_NOT_FOUND */
  async keep(artifactId: string, forMs: number, runId?: string): Promise<boolean> {
    const options = { pinMs: forMs, ...(runId === undefined ? {} : { runId }) };
    return (await this.#host.store.keepArtifact(artifactId, options)) !== undefined;
  }

  /** As `put`, kept for `forMs`; also while the runtime stops, when effects under way may end. */
  async putFor(content: ArtifactContent, options: PutOptions, forMs: number): Promise<ArtifactRow> {
    checkOptions(options, ["contentType", "tags", "runId", "replace"], "artifacts.put()");
    const usual = defaultContentType(content);
    const { contentType = usual, runId, replace } = options;
    const tags = checkTags(options.tags);
    checkContentType(contentType);
    if (runId !== undefined) checkRunId(runId);
    const keep = { pinMs: forMs, ...(runId === undefined ? {} : { runId }) };
    const { store, ids } = this.#host;
    const bytes = bytesOf(content);
    if (bytes && !options.tags && !replace) {
      const known = await store.keepArtifact(createHash("sha256").update(bytes).digest("hex"), keep);
      if (known) return known;
    }
    const blob = ids.id();
    this.#writing.add(blob);
    try {
      const { id, sizeBytes } = await this.#write(blob, bytes ?? content);
      const artifact = { id, sizeBytes, contentType, tags, createdAt: Math.floor(this.#host.now()), blob };
      const before = replace ? await store.artifact(id) : undefined;
      const stands = await this.#makeKnown(artifact, { ...keep, ...(replace ? { replace } : {}) });
      const superseded = replace ? before?.blob : blob;
      if (superseded !== undefined && superseded !== stands.blob) await this.#remove(superseded);
      return stands;
    } finally {
      this.#writing.delete(blob);
    }
  }

  async #write(blob: string, content: ArtifactContent): Promise<{ id: string; sizeBytes: number }> {
    const hash = createHash("sha256");
    let sizeBytes = 0;
    const hashed = async function* (): AsyncGenerator<Uint8Array> {
      for await (const chunk of chunksOf(content)) {
        hash.update(chunk);
        sizeBytes += chunk.length;
        yield chunk;
      }
    };
    try {
      await this.#host.blobs.write(blob, hashed());
    } catch (error) {
      await this.#remove(blob);
      throw error;
    }
    return { id: hash.digest("hex"), sizeBytes };
  }

  async #makeKnown(artifact: ArtifactRow, options: { pinMs: number; runId?: string; replace?: true }): Promise<ArtifactRow> {
    try {
      return await this.#host.store.putArtifact(artifact, options);
    } catch (error) {
      // After any other failure it may be known all the same, and its bytes stay.
      if (isError(error, "RUN_NOT_FOUND")) await this.#remove(artifact.blob);
      throw error;
    }
  }

  /** A blob that is not needed. What cannot be removed now is found by a sweep. */
  async #remove(blob: string): Promise<void> {
    try {
      await this.#host.blobs.delete(blob);
    } catch (error) {
      this.#host.report("bytes that are not needed could not be deleted; a sweep will find them", { error });
    }
  }

  async #find(artifactId: string): Promise<OpenArtifact | null> {
    this.#host.checkRunning();
    const found = await this.#host.store.artifact(artifactIdOf(await this.#named(artifactId)));
    return found ? openArtifact(this.#host.blobs, found) : null;
  }

  /** Ids that the Python package gave stand for ours, in references too: an import has left them as tags. */
  async #named<T>(artifact: T): Promise<T | ArtifactRef> {
    const given: unknown =
      typeof artifact === "string" ? artifact : (artifact as { $artifact?: unknown } | null | undefined)?.$artifact;
    if (typeof given !== "string" || !/^[\w-]{1,200}$/.test(given) || isArtifactRef({ $artifact: given })) return artifact;
    const page = await this.#host.store.artifacts({ tags: { [pythonTag(given)]: "artifact" }, limit: 1 });
    return page.artifacts[0] ? { $artifact: page.artifacts[0].id } : artifact;
  }

  async #list(query: { runId?: string; tags?: Readonly<Record<string, string>> }, limit: number): Promise<ArtifactMetadata[]> {
    this.#host.checkRunning();
    const found: ArtifactMetadata[] = [];
    for (let cursor: string | undefined, more = true; more && found.length < limit; more = cursor !== undefined) {
      const asked = { ...query, limit: Math.min(1_000, limit - found.length), ...(cursor === undefined ? {} : { cursor }) };
      const page = await this.#host.store.artifacts(asked);
      found.push(...page.artifacts.map(metadataOf));
      cursor = page.next;
    }
    return found;
  }
}

function checkContentType(contentType: unknown): void {
  const isType = typeof contentType === "string" && contentType.length <= 255 && /^[\x20-\x7e]+$/.test(contentType);
  if (isType) return;
  const problem = "contentType is a media type such as image/png: up to 255 characters of ASCII";
  throw invalidOption("contentType", problem);
}

export const mostTags = 64;

/** Whether a store takes it: name and text stand in an index, which takes no long ones. */
export function isArtifactTag([name, value]: [name: string, value: unknown]): boolean {
  const isText = (text: unknown, longest: number): boolean =>
    typeof text === "string" && text.length <= longest && text.isWellFormed();
  return name !== "" && name !== "__proto__" && isText(name, 200) && isText(value, 500);
}

function checkTags(tags: Readonly<Record<string, string>> = {}): Record<string, string> {
  const isPlain = typeof tags === "object" && tags !== null && !Array.isArray(tags);
  const entries = isPlain ? Object.entries(tags) : [];
  if (isPlain && entries.length <= mostTags && entries.every(isArtifactTag)) return { ...tags };
  const problem = `tags are up to ${mostTags} names of 1 to 200 characters with texts of up to 500`;
  throw invalidOption("tags", problem);
}
