/** Bytes in memory. */
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { BlobStore } from "../../kernel/artifact-row.ts";

interface Blob {
  chunks: Uint8Array[];
  at: number;
  /** Whether all of it is here. */
  isWhole: boolean;
}

export class MemoryBlobs implements BlobStore {
  readonly name: string;
  readonly #clock: Clock;
  readonly #checkOpen: () => void;
  readonly #blobs = new Map<string, Blob>();

  /** @param checkOpen Throws when the store is closed. */
  constructor(name: string, clock: Clock, checkOpen: () => void) {
    this.name = name;
    this.#clock = clock;
    this.#checkOpen = checkOpen;
  }

  async write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    this.#checkOpen();
    const blob: Blob = { chunks: [], at: this.#clock.now(), isWhole: false };
    this.#blobs.set(key, blob);
    for await (const chunk of chunks) {
      this.#checkOpen();
      // A copy: whoever gives it may use its memory again.
      blob.chunks.push(Uint8Array.from(chunk));
      blob.at = this.#clock.now();
    }
    if (this.#blobs.get(key) !== blob) throw this.#missing(key);
    blob.isWhole = true;
  }

  async *read(key: string, { start = 0, end = Number.POSITIVE_INFINITY } = {}): AsyncGenerator<Uint8Array> {
    this.#checkOpen();
    const blob = this.#blobs.get(key);
    if (!blob?.isWhole) throw this.#missing(key);
    let at = 0;
    for (const chunk of blob.chunks) {
      this.#checkOpen();
      if (this.#blobs.get(key) !== blob) throw this.#missing(key);
      const part = chunk.slice(Math.max(0, start - at), Math.max(0, end - at));
      at += chunk.length;
      if (part.length > 0) yield part;
    }
  }

  async delete(key: string): Promise<void> {
    this.#checkOpen();
    this.#blobs.delete(key);
  }

  async *list(): AsyncGenerator<{ key: string; at: number }> {
    this.#checkOpen();
    for (const [key, { at }] of [...this.#blobs]) yield { key, at };
  }

  #missing(key: string): AbstractRuntimeError<"ARTIFACT_MISSING"> {
    return new AbstractRuntimeError("ARTIFACT_MISSING", { blob: key, store: this.name });
  }
}
