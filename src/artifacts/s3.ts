/** The bytes of artifacts in a bucket of S3, or of anything that speaks its protocol. */
import type { ListObjectsCommandOutput, S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { AbstractRuntimeError, checkOptions, invalidOption } from "../kernel/errors.ts";
import type { BlobStore } from "../kernel/artifact-row.ts";
import { piecesOf } from "../stores/pieces.ts";

export interface S3Options {
  /** A client of yours, which you destroy. Or `clientOptions`. */
  client?: S3Client;
  /** What a client is made with: region, endpoint, credentials ... Default: what the SDK finds in its surroundings. */
  clientOptions?: S3ClientConfig;
  bucket: string;
  /**
   * What all keys begin with, such as `production/artifacts/`. It is for one store alone: a sweep deletes what stands directly under it and
   * is not known to that store.
   */
  prefix: string;
  /** Bytes of a part, from 5 MiB; one is held in memory. A blob has up to 10,000 parts. Default: 5 MiB, for blobs of up to 48 GiB. */
  partSizeBytes?: number;
}

/**
 * For `createRuntime({ artifacts })`. Needs the package `@aws-sdk/client-s3`. The bucket must exist.
 *
 * @throws INVALID_OPTION
 */
export async function s3Blobs(options: S3Options): Promise<BlobStore> {
  checkOptions(options, ["client", "clientOptions", "bucket", "prefix", "partSizeBytes"], "s3Blobs()");
  const { bucket, prefix, client, clientOptions, partSizeBytes = leastPart } = options;
  for (const [option, value] of Object.entries({ bucket, prefix }))
    if (typeof value !== "string" || value === "") refuse(option, `${option} must be text of at least one character`);
  if (client && clientOptions) refuse("clientOptions", "client and clientOptions say the same: give one");
  if (!Number.isSafeInteger(partSizeBytes) || partSizeBytes < leastPart)
    refuse("partSizeBytes", `partSizeBytes must be a whole number from ${leastPart}`);
  const sdk = await loadSdk();
  return new S3Blobs(sdk, client ?? new sdk.S3Client(clientOptions ?? {}), bucket, prefix, partSizeBytes);
}

type Sdk = typeof import("@aws-sdk/client-s3");

/** S3 takes no smaller ones, the last apart. */
const leastPart = 5 * 1024 * 1024;

async function loadSdk(): Promise<Sdk> {
  try {
    return await import("@aws-sdk/client-s3");
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const problem =
      'the package "@aws-sdk/client-s3" is not installed, which s3Blobs() speaks to S3 with: run `npm install @aws-sdk/client-s3`';
    throw new AbstractRuntimeError("INVALID_OPTION", { option: "artifacts", problem }, cause);
  }
}

class S3Blobs implements BlobStore {
  readonly name: string;
  readonly #sdk: Sdk;
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  readonly #partSizeBytes: number;

  constructor(sdk: Sdk, client: S3Client, bucket: string, prefix: string, partSizeBytes: number) {
    this.name = `s3://${bucket}/${prefix}`;
    this.#sdk = sdk;
    this.#client = client;
    this.#bucket = bucket;
    this.#prefix = prefix;
    this.#partSizeBytes = partSizeBytes;
  }

  async write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void> {
    const sdk = this.#sdk;
    const at = this.#at(key);
    const parts: { ETag: string | undefined; PartNumber: number }[] = [];
    let upload: (typeof at & { UploadId: string | undefined }) | undefined;
    try {
      // Each part is sent before the next is filled: one is all that is in memory.
      for await (const part of piecesOf(chunks, this.#partSizeBytes)) {
        if (!upload && part.length < this.#partSizeBytes) {
          await this.#answer(this.#client.send(new sdk.PutObjectCommand({ ...at, Body: part })), key);
          return;
        }
        upload ??= {
          ...at,
          UploadId: (await this.#answer(this.#client.send(new sdk.CreateMultipartUploadCommand(at)), key)).UploadId,
        };
        const PartNumber = parts.length + 1;
        const sent = await this.#answer(this.#client.send(new sdk.UploadPartCommand({ ...upload, PartNumber, Body: part })), key);
        parts.push({ ETag: sent.ETag, PartNumber });
      }
      if (upload)
        await this.#answer(
          this.#client.send(new sdk.CompleteMultipartUploadCommand({ ...upload, MultipartUpload: { Parts: parts } })),
          key,
        );
      else await this.#answer(this.#client.send(new sdk.PutObjectCommand({ ...at, Body: new Uint8Array(0) })), key);
    } catch (error) {
      // What cannot be removed now is listed.
      if (upload) await this.#client.send(new sdk.AbortMultipartUploadCommand(upload)).catch(() => undefined);
      throw error;
    }
  }

  async *read(key: string, { start = 0, end }: { start?: number; end?: number } = {}): AsyncGenerator<Uint8Array> {
    let left = end === undefined ? Number.POSITIVE_INFINITY : end - start;
    if (left <= 0) return;
    const range = start === 0 && end === undefined ? {} : { Range: `bytes=${start}-${end === undefined ? "" : end - 1}` };
    try {
      const { Body: body } = await this.#client.send(new this.#sdk.GetObjectCommand({ ...this.#at(key), ...range }));
      for await (const chunk of body as AsyncIterable<Uint8Array>) {
        // Some servers give more than they were asked for.
        yield chunk.subarray(0, left);
        left -= chunk.length;
        if (left <= 0) return;
      }
    } catch (error) {
      // Nothing stands behind the end.
      if ((error as Error | undefined)?.name !== "InvalidRange") throw this.#problem(error, key);
    }
  }

  async delete(key: string): Promise<void> {
    for await (const { key: one, uploadId } of this.#uploads(this.#prefix + key)) {
      if (one === key)
        await this.#answer(
          this.#client.send(new this.#sdk.AbortMultipartUploadCommand({ ...this.#at(key), UploadId: uploadId })),
          key,
        );
    }
    await this.#answer(this.#client.send(new this.#sdk.DeleteObjectCommand(this.#at(key))), key);
  }

  async *list(): AsyncGenerator<{ key: string; at: number }> {
    for (let last: string | undefined = ""; last !== undefined; ) {
      const asked = new this.#sdk.ListObjectsCommand({ Bucket: this.#bucket, Prefix: this.#prefix, Marker: last });
      const page: ListObjectsCommandOutput = await this.#answer(this.#client.send(asked));
      for (const { Key = "", LastModified } of page.Contents ?? [])
        if (this.#isOurs(Key)) yield { key: Key.slice(this.#prefix.length), at: LastModified?.getTime() ?? Date.now() };
      last = page.IsTruncated ? page.Contents?.at(-1)?.Key : undefined;
    }
    for await (const { key, at } of this.#uploads(this.#prefix)) yield { key, at };
  }

  /** Uploads that have not ended, or never will. They take space, and are not among the objects. */
  async *#uploads(prefix: string): AsyncGenerator<{ key: string; at: number; uploadId: string }> {
    let place: { KeyMarker?: string; UploadIdMarker?: string } | undefined = {};
    while (place) {
      const page = await this.#listUploads({ Bucket: this.#bucket, Prefix: prefix, ...place });
      for (const { Key = "", UploadId = "", Initiated } of page?.Uploads ?? [])
        if (this.#isOurs(Key))
          yield { key: Key.slice(this.#prefix.length), at: Initiated?.getTime() ?? Date.now(), uploadId: UploadId };
      place = page?.IsTruncated
        ? { KeyMarker: page.NextKeyMarker ?? "", UploadIdMarker: page.NextUploadIdMarker ?? "" }
        : undefined;
    }
  }

  async #listUploads(input: ConstructorParameters<Sdk["ListMultipartUploadsCommand"]>[0]) {
    try {
      return await this.#client.send(new this.#sdk.ListMultipartUploadsCommand(input));
    } catch (error) {
      // Some servers that speak the protocol do not have this; they remove such uploads by themselves, or their operator does.
      if ((error as Error | undefined)?.name === "NotImplemented") return undefined;
      throw this.#problem(error);
    }
  }

  /** What stands deeper is not. */
  #isOurs(key: string): boolean {
    return key.length > this.#prefix.length && !key.includes("/", this.#prefix.length);
  }

  /** @throws STORE_UNAVAILABLE, ARTIFACT_MISSING */
  async #answer<T>(call: Promise<T>, key?: string): Promise<T> {
    try {
      return await call;
    } catch (error) {
      throw this.#problem(error, key);
    }
  }

  #at(key: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#prefix + key };
  }

  #problem(error: unknown, key?: string): unknown {
    const { name, message = String(error) } = (error ?? {}) as Partial<Error>;
    if (name === "NoSuchKey" && key !== undefined)
      return new AbstractRuntimeError("ARTIFACT_MISSING", { blob: key, store: this.name }, error);
    const code = (error as NodeJS.ErrnoException | undefined)?.code;
    const problem = [...new Set([name, code, message].filter((part) => part !== undefined && part !== "" && part !== "Error"))];
    return new AbstractRuntimeError("STORE_UNAVAILABLE", { store: this.name, problem: problem.join(": ") }, error);
  }
}

function refuse(option: string, problem: string): never {
  throw invalidOption(option, problem);
}
