/** Bytes as files, one a key. A file that is not whole has another name, so that nobody reads it. */
import { join } from "node:path";
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { BlobStore } from "../../kernel/artifact-row.ts";
import { fileError } from "../file-errors.ts";
import { type FileSystem, isMissing, syncDirectory } from "./journal.ts";
import { idOf, nameOf } from "./names.ts";

/** Ends the names of files that are being written, or were when the process ended. No encoded key has a dot. */
const unfinished = ".part";
const chunkBytes = 262_144;

export class FileBlobs implements BlobStore {
  readonly name: string;
  readonly #directory: string;
  readonly #fs: FileSystem;
  readonly #clock: Clock;
  readonly #checkOpen: () => void;

  /** @param checkOpen Throws when the store is closed. */
  constructor(name: string, directory: string, fs: FileSystem, clock: Clock, checkOpen: () => void) {
    this.name = name;
    this.#directory = directory;
    this.#fs = fs;
    this.#clock = clock;
    this.#checkOpen = checkOpen;
  }

  async write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    this.#checkOpen();
    const { promises, mkdirSync } = this.#fs;
    const part = this.#path(key) + unfinished;
    const file = await this.#guarded(() => {
      mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
      return promises.open(part, "w", 0o600);
    });
    // The store's clock decides when it was written, as it decides what is old (S6).
    const stamp = (): Promise<void> => file.utimes(this.#clock.now() / 1_000, this.#clock.now() / 1_000);
    try {
      await this.#guarded(stamp);
      for await (const chunk of chunks) {
        this.#checkOpen();
        await this.#guarded(async () => {
          await file.writeFile(chunk);
          await stamp();
        });
      }
      await this.#guarded(() => file.sync());
    } finally {
      await file.close();
    }
    await this.#guarded(async () => {
      await promises.rename(part, this.#path(key));
      syncDirectory(this.#fs, this.#directory);
    });
  }

  async *read(key: string, { start = 0, end = Number.POSITIVE_INFINITY } = {}): AsyncGenerator<Uint8Array> {
    this.#checkOpen();
    const file = await this.#found(() => this.#fs.promises.open(this.#path(key), "r"));
    if (!file) throw new AbstractRuntimeError("ARTIFACT_MISSING", { blob: key, store: this.name });
    try {
      for (let at = start; at < end; ) {
        this.#checkOpen();
        const chunk = new Uint8Array(Math.min(chunkBytes, end - at));
        const { bytesRead } = await this.#guarded(() => file.read(chunk, 0, chunk.length, at));
        if (bytesRead === 0) return;
        at += bytesRead;
        yield chunk.subarray(0, bytesRead);
      }
    } finally {
      await file.close();
    }
  }

  async delete(key: string): Promise<void> {
    this.#checkOpen();
    for (const path of [this.#path(key), this.#path(key) + unfinished])
      await this.#guarded(() => this.#fs.promises.rm(path, { force: true }));
  }

  async *list(): AsyncGenerator<{ key: string; at: number }> {
    this.#checkOpen();
    const names = await this.#found(() => this.#fs.promises.readdir(this.#directory));
    const seen = new Set<string>();
    for (const name of names ?? []) {
      const key = idOf(name.endsWith(unfinished) ? name.slice(0, -unfinished.length) : name);
      if (key === undefined || seen.has(key)) continue;
      seen.add(key);
      this.#checkOpen();
      const found = await this.#found(() => this.#fs.promises.stat(join(this.#directory, name)));
      if (found) yield { key, at: Math.round(found.mtimeMs) };
    }
  }

  #path(key: string): string {
    return join(this.#directory, nameOf(key));
  }

  async #guarded<T>(action: () => Promise<T>): Promise<T> {
    try {
      return await action();
    } catch (error) {
      throw fileError(error, this.name);
    }
  }

  /** As `guarded`, of what may not be there: undefined then. */
  #found<T>(action: () => Promise<T>): Promise<T | undefined> {
    return this.#guarded(async () => {
      try {
        return await action();
      } catch (error) {
        if (isMissing(error)) return undefined;
        throw error;
      }
    });
  }
}
