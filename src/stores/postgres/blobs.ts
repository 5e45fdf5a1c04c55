/** Bytes as rows, in pieces: no statement carries a blob of any size. Each piece is a transaction of its own. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { BlobStore } from "../../kernel/artifact-row.ts";
import { piecesOf } from "../pieces.ts";
import type { PooledClient, Row, Statements } from "./connection.ts";
import { encode } from "./encode.ts";
import { momentOr } from "./moment-sql.ts";

/** One piece is sent in a few milliseconds. */
export const pieceBytes = 512 * 1024;
const listedAtOnce = 1_000;
const removedAtOnce = 64;

export interface BlobAccess {
  statements: Statements;
  now(): number | undefined;
  run<T>(work: (client: PooledClient) => Promise<T>): Promise<T>;
}

const moment = momentOr("$2::bigint");

export class PostgresBlobs implements BlobStore {
  readonly name: string;
  readonly #access: BlobAccess;

  constructor(name: string, access: BlobAccess) {
    this.name = name;
    this.#access = access;
  }

  async write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    // Begun again when the answer was lost: what was not finished is nobody's.
    const begin = `INSERT INTO ~blobs AS b (key, at) VALUES ($1, ${moment})
      ON CONFLICT (key) DO UPDATE SET at = excluded.at WHERE b.size_bytes IS NULL RETURNING b.blob`;
    const [begun] = await this.#rows(begin, [encode(key), this.#access.now()]);
    const blob = begun?.blob as number | undefined;
    if (blob === undefined) throw new Error(`The key ${key} was used before.`);
    let number = 0;
    let sizeBytes = 0;
    for await (const piece of piecesOf(chunks, pieceBytes)) {
      const put = `WITH b AS (UPDATE ~blobs SET at = ${moment} WHERE blob = $1 RETURNING blob)
        INSERT INTO ~blob_chunks SELECT b.blob, $3::bigint, $4::bytea FROM b
        ON CONFLICT (blob, number) DO UPDATE SET bytes = excluded.bytes RETURNING blob`;
      const [row] = await this.#rows(put, [blob, this.#access.now(), number, Buffer.from(piece)]);
      if (!row) throw this.#missing(key);
      number += 1;
      sizeBytes += piece.length;
    }
    const end = `UPDATE ~blobs SET at = ${moment}, size_bytes = $3 WHERE blob = $1 RETURNING blob`;
    const [row] = await this.#rows(end, [blob, this.#access.now(), sizeBytes]);
    if (!row) throw this.#missing(key);
  }

  async *read(key: string, { start = 0, end = Number.POSITIVE_INFINITY } = {}): AsyncGenerator<Uint8Array> {
    const [found] = await this.#rows("SELECT blob, size_bytes FROM ~blobs WHERE key = $1", [encode(key)]);
    if (typeof found?.size_bytes !== "number") throw this.#missing(key);
    const stop = Math.min(end, found.size_bytes);
    for (let at = start; at < stop; ) {
      const number = Math.floor(at / pieceBytes);
      const from = at - number * pieceBytes;
      // Only the part that is asked for.
      const sql = "SELECT substring(bytes FROM $3::int FOR $4::int) AS bytes FROM ~blob_chunks WHERE blob = $1 AND number = $2";
      const length = Math.min(pieceBytes, stop - number * pieceBytes) - from;
      const [row] = await this.#rows(sql, [found.blob, number, from + 1, length]);
      const part = row?.bytes as Uint8Array | undefined;
      if (!part?.length) throw this.#missing(key);
      at += part.length;
      yield part;
    }
  }

  async delete(key: string): Promise<void> {
    // First the blob cannot be read, then its pieces go, and its key last: what is left by a crash is listed, and removed by another call.
    const [found] = await this.#rows("UPDATE ~blobs SET size_bytes = NULL WHERE key = $1 RETURNING blob", [encode(key)]);
    if (!found) return;
    const remove = `DELETE FROM ~blob_chunks WHERE blob = $1 AND number IN (
      SELECT number FROM ~blob_chunks WHERE blob = $1 LIMIT ${removedAtOnce}) RETURNING number`;
    while ((await this.#rows(remove, [found.blob])).length === removedAtOnce);
    await this.#rows("DELETE FROM ~blobs WHERE blob = $1", [found.blob]);
  }

  async *list(): AsyncGenerator<{ key: string; at: number }> {
    for (let last = 0, more = true; more; ) {
      const sql = `SELECT blob, key, at FROM ~blobs WHERE blob > $1 ORDER BY blob LIMIT ${listedAtOnce}`;
      const rows = await this.#rows(sql, [last]);
      for (const { key, at } of rows) yield { key: key as string, at: at as number };
      last = (rows.at(-1)?.blob as number | undefined) ?? last;
      more = rows.length === listedAtOnce;
    }
  }

  #rows(sql: string, values: readonly unknown[]): Promise<Row[]> {
    return this.#access.run((client) => this.#access.statements.rows(client, sql, values));
  }

  #missing(key: string): AbstractRuntimeError<"ARTIFACT_MISSING"> {
    return new AbstractRuntimeError("ARTIFACT_MISSING", { blob: key, store: this.name });
  }
}
