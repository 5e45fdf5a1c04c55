/**
 * Bytes as rows of the same file. Each few of them are a transaction of their own, through the group: the event loop and the other writers of
 * the file live beside a blob of any size.
 */
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { BlobStore } from "../../kernel/artifact-row.ts";
import { piecesOf } from "../pieces.ts";
import type { Reader } from "./read.ts";

/** Small, so that a reader's memory stays small: what was read is garbage until V8 has allocated enough to look for it. */
const rowBytes = 32 * 1024;
/** One transaction: a few milliseconds. */
const pieceBytes = 8 * rowBytes;
/** Rows have one integer key, `blob * 2^22 + number`: 128 GiB to a blob. */
const numberBits = 2 ** 22;
/** So many rows are removed by one transaction. */
const removedAtOnce = 128;
const listedAtOnce = 1_000;

export interface BlobAccess {
  reader: Reader;
  clock: Clock;
  /** Runs in a transaction of the group. */
  write<T>(action: () => T): Promise<T>;
  read<T>(action: () => T): Promise<T>;
}

export class SqliteBlobs implements BlobStore {
  readonly name: string;
  readonly #access: BlobAccess;

  constructor(name: string, access: BlobAccess) {
    this.name = name;
    this.#access = access;
  }

  async write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const { reader, clock, write } = this.#access;
    const blob = await write(() => {
      const { lastInsertRowid } = reader.prepare("INSERT INTO blobs (key, at) VALUES (?, ?)").run(key, clock.now());
      return Number(lastInsertRowid);
    });
    let number = 0;
    let sizeBytes = 0;
    for await (const piece of piecesOf(chunks, pieceBytes)) {
      if (number >= numberBits) throw this.#full(key);
      const first = blob * numberBits + number;
      await write(() => {
        this.#touch(blob, key, null);
        const insert = reader.prepare("INSERT INTO blob_chunks VALUES (?, ?)");
        for (let at = 0; at < piece.length; at += rowBytes) insert.run(first + at / rowBytes, piece.subarray(at, at + rowBytes));
      });
      number += pieceBytes / rowBytes;
      sizeBytes += piece.length;
    }
    await write(() => this.#touch(blob, key, sizeBytes));
  }

  async *read(key: string, { start = 0, end = Number.POSITIVE_INFINITY } = {}): AsyncGenerator<Uint8Array> {
    const { reader, read } = this.#access;
    const found = await read(() => reader.prepare("SELECT blob, size_bytes FROM blobs WHERE key = ?").get(key));
    if (typeof found?.size_bytes !== "number") throw this.#missing(key);
    const stop = Math.min(end, found.size_bytes);
    const base = (found.blob as number) * numberBits;
    for (let at = start; at < stop; ) {
      const number = Math.floor(at / rowBytes);
      const row = await read(() => reader.prepare("SELECT bytes FROM blob_chunks WHERE id = ?").get(base + number));
      if (!row) throw this.#missing(key);
      const from = at - number * rowBytes;
      const part = (row.bytes as Uint8Array).subarray(from, Math.min(rowBytes, stop - number * rowBytes));
      if (part.length === 0) throw this.#missing(key);
      at += part.length;
      yield part;
    }
  }

  async delete(key: string): Promise<void> {
    const { reader, write } = this.#access;
    // First the blob cannot be read, then its pieces go, and its key last: what is left by a crash is listed, and removed by another call.
    const blob = await write(() => {
      const found = reader.prepare("SELECT blob FROM blobs WHERE key = ?").get(key);
      if (found) reader.prepare("UPDATE blobs SET size_bytes = NULL WHERE blob = ?").run(found.blob as number);
      return found?.blob as number | undefined;
    });
    if (blob === undefined) return;
    const removeSome = (): number =>
      Number(
        reader
          .prepare("DELETE FROM blob_chunks WHERE id IN (SELECT id FROM blob_chunks WHERE id BETWEEN ? AND ? LIMIT ?)")
          .run(blob * numberBits, blob * numberBits + numberBits - 1, removedAtOnce).changes,
      );
    for (let removed = removedAtOnce; removed === removedAtOnce; ) removed = await write(removeSome);
    await write(() => reader.prepare("DELETE FROM blobs WHERE blob = ?").run(blob));
  }

  async *list(): AsyncGenerator<{ key: string; at: number }> {
    const { reader, read } = this.#access;
    for (let last = 0, more = true; more; ) {
      const rows = await read(() =>
        reader.prepare("SELECT blob, key, at FROM blobs WHERE blob > ? ORDER BY blob LIMIT ?").all(last, listedAtOnce),
      );
      for (const { key, at } of rows) yield { key: key as string, at: at as number };
      last = (rows.at(-1)?.blob as number | undefined) ?? last;
      more = rows.length === listedAtOnce;
    }
  }

  /** @throws ARTIFACT_MISSING when it was deleted meanwhile. */
  #touch(blob: number, key: string, sizeBytes: number | null): void {
    const { reader, clock } = this.#access;
    const { changes } = reader
      .prepare("UPDATE blobs SET at = ?, size_bytes = ? WHERE blob = ?")
      .run(clock.now(), sizeBytes, blob);
    if (changes === 0) throw this.#missing(key);
  }

  #missing(key: string): AbstractRuntimeError<"ARTIFACT_MISSING"> {
    return new AbstractRuntimeError("ARTIFACT_MISSING", { blob: key, store: this.name });
  }

  #full(key: string): AbstractRuntimeError<"TOO_LARGE"> {
    const limitBytes = numberBits * rowBytes;
    return new AbstractRuntimeError("TOO_LARGE", { what: `blob ${key}`, sizeBytes: limitBytes + 1, limitBytes });
  }
}
