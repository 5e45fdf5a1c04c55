// Artifacts in a bucket, against a real server that speaks S3.
import { createHash, randomBytes } from "node:crypto";
import { AbortMultipartUploadCommand, CreateMultipartUploadCommand, PutObjectCommand } from "@aws-sdk/client-s3";
import { type BlobStore, createRuntime } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { s3Blobs } from "abstractruntime/s3";
import { testClock, testIds } from "abstractruntime/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { blobCases } from "../../src/testing/contract/blobs.ts";
import { World } from "../../src/testing/contract/world.ts";
import { startS3 } from "./s3-server.ts";

let s3: Awaited<ReturnType<typeof startS3>>;
let strict: Awaited<ReturnType<typeof startS3>>;
beforeAll(async () => {
  [s3, strict] = await Promise.all([startS3(), startS3(true)]);
});
afterAll(async () => {
  await Promise.all([s3.close(), strict.close()]);
});

let prefixes = 0;
function open(options: Partial<Parameters<typeof s3Blobs>[0]> = {}): Promise<BlobStore> {
  prefixes += 1;
  return s3Blobs({
    client: s3.client(),
    bucket: "test",
    prefix: `test-${prefixes}/`,
    partSizeBytes: 5 * 1024 * 1024,
    ...options,
  });
}

async function* cut(bytes: Uint8Array, size: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

async function collected(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function keysOf(blobs: BlobStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of blobs.list()) keys.push(key);
  return keys.sort();
}

describe("the contract of blobs", () => {
  // What is said of a store's own bytes: they are closed with it, and dated by its clock.
  const ofStores = ["closed: every call", "list: every key, and when"];
  const cases = Object.entries(blobCases).filter(([sentence]) => !ofStores.some((one) => sentence.startsWith(one)));
  test.each(cases)("%s", async (_, hold) => {
    const clock = testClock();
    const blobs = await open();
    const inner = memoryStore({ clock });
    // A proxy: the methods of a store are its class's.
    const store = new Proxy(inner, { get: (_, name) => (name === "blobs" ? blobs : Reflect.get(inner, name).bind(inner)) });
    await hold(new World(store, clock, undefined));
    await inner.close();
  });
});

test("large blobs go up in parts, and come down whole or in part", async () => {
  const blobs = await open();
  const bytes = randomBytes(23_000_001);
  await blobs.write("large", cut(bytes, 333_333));
  expect(Buffer.compare(await collected(blobs.read("large")), bytes)).toBe(0);
  const part = await collected(blobs.read("large", { start: 5_242_879, end: 10_485_761 }));
  expect(Buffer.compare(part, bytes.subarray(5_242_879, 10_485_761))).toBe(0);
});

test("list: when each was written, and nothing that stands deeper or elsewhere", async () => {
  const blobs = await open();
  const before = Date.now() - 1_000;
  await blobs.write("key", cut(new Uint8Array(10), 10));
  const client = s3.client();
  const prefix = blobs.name.slice("s3://test/".length);
  for (const Key of [`${prefix}deeper/other`, "elsewhere"])
    await client.send(new PutObjectCommand({ Bucket: "test", Key, Body: "x" }));
  const listed: { key: string; at: number }[] = [];
  for await (const one of blobs.list()) listed.push(one);
  expect(listed.map(({ key }) => key)).toEqual(["key"]);
  expect(listed[0]?.at).toBeGreaterThan(before);
  expect(listed[0]?.at).toBeLessThan(Date.now() + 1_000);
});

test("list: all of many pages", async () => {
  const blobs = await open();
  const keys = Array.from({ length: 1_003 }, (_, i) => `key-${String(i).padStart(4, "0")}`);
  for (let at = 0; at < keys.length; at += 50)
    await Promise.all(keys.slice(at, at + 50).map((key) => blobs.write(key, cut(new Uint8Array(1), 1))));
  expect(await keysOf(blobs)).toEqual(keys);
});

test("an upload that did not end is listed and deleted, where the server can tell", async () => {
  const client = s3.client();
  const begun = await client.send(new CreateMultipartUploadCommand({ Bucket: "test", Key: "uploads/left" }));
  // This server does not list uploads, nor end them: what a server that does would answer is put in its place.
  const aborted: unknown[] = [];
  const through = new Proxy(client, {
    get(_, name) {
      if (name !== "send") return Reflect.get(client, name);
      return (command: { constructor: { name: string }; input: { Prefix?: string } }) => {
        if (command instanceof AbortMultipartUploadCommand) return Promise.resolve(aborted.push(command.input));
        if (command.constructor.name !== "ListMultipartUploadsCommand") return client.send(command as never);
        const Uploads = [{ Key: "uploads/left", UploadId: begun.UploadId, Initiated: new Date(5) }];
        return Promise.resolve("uploads/left".startsWith(command.input.Prefix ?? "") && aborted.length === 0 ? { Uploads } : {});
      };
    },
  });
  const blobs = await open({ client: through, prefix: "uploads/" });
  expect(await keysOf(blobs)).toEqual(["left"]);
  await blobs.delete("left");
  expect(aborted).toEqual([{ Bucket: "test", Key: "uploads/left", UploadId: begun.UploadId }]);
  expect(await keysOf(blobs)).toEqual([]);
});

describe("what goes wrong", () => {
  const calls: [string, (blobs: BlobStore) => Promise<unknown>][] = [
    ["write", (blobs) => blobs.write("x", cut(new Uint8Array(10), 10))],
    ["a large write", (blobs) => blobs.write("x", cut(new Uint8Array(11_000_000), 1_000_000))],
    ["read", (blobs) => collected(blobs.read("x"))],
    ["delete", (blobs) => blobs.delete("x")],
    ["list", (blobs) => keysOf(blobs)],
  ];

  test.each(calls)("%s: a bucket that is not there", async (_, call) => {
    await expect(call(await open({ bucket: "none" }))).rejects.toMatchObject({
      code: "STORE_UNAVAILABLE",
      message: expect.stringContaining("NoSuchBucket"),
    });
  });

  test.each(calls)("%s: a key that nobody knows, and a wrong secret", async (_, call) => {
    const stranger = s3.client({ accessKeyId: "STRANGER", secretAccessKey: "S3RVER" });
    await expect(call(await open({ client: stranger }))).rejects.toMatchObject({
      code: "STORE_UNAVAILABLE",
      message: expect.stringContaining("InvalidAccessKeyId"),
    });
    const wrong = strict.client({ accessKeyId: "S3RVER", secretAccessKey: "wrong" });
    await expect(call(await open({ client: wrong }))).rejects.toMatchObject({
      code: "STORE_UNAVAILABLE",
      message: expect.stringContaining("SignatureDoesNotMatch"),
    });
  });

  test.each(calls)("%s: a server that is gone", async (_, call) => {
    const gone = await startS3();
    const blobs = await open({ client: gone.client() });
    await gone.close();
    await expect(call(blobs)).rejects.toMatchObject({
      code: "STORE_UNAVAILABLE",
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });

  test("a line that breaks in the middle of an upload, or of a download", async () => {
    const own = await startS3();
    const blobs = await open({ client: own.client() });
    async function* broken(): AsyncGenerator<Uint8Array> {
      for (let i = 0; i < 12; i++) {
        if (i === 11) {
          own.server.closeAllConnections();
          own.server.close();
        }
        yield new Uint8Array(1_000_000);
      }
    }
    await blobs.write("whole", cut(randomBytes(20_000_000), 1_000_000));
    const reading = blobs.read("whole")[Symbol.asyncIterator]();
    expect((await reading.next()).value.length).toBeGreaterThan(0);
    await expect(blobs.write("half", broken())).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    await expect(
      (async () => {
        for (let next = await reading.next(); !next.done; next = await reading.next());
      })(),
    ).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    await own.close().catch(() => undefined);
  });

  test("wrong options", async () => {
    for (const [options, problem] of [
      [{ buckett: "x" }, 'Did you mean "bucket"?'],
      [{ bucket: "" }, "bucket must be text"],
      [{ prefix: "" }, "prefix must be text"],
      [{ clientOptions: {} }, "give one"],
      [{ partSizeBytes: 1_000 }, "partSizeBytes must be a whole number"],
    ] as const)
      await expect(open(options as never)).rejects.toThrow(problem);
    const wrong = createRuntime({ store: memoryStore(), artifacts: {} as never });
    await expect(wrong).rejects.toThrow("artifacts is a place for bytes");
  });
});

test("a runtime puts, opens and sweeps artifacts there", async () => {
  const blobs = await open();
  const clock = testClock(Date.now());
  const store = memoryStore({ clock });
  const runtime = await createRuntime({ store, clock, ids: testIds(), scheduler: false, artifacts: blobs });
  const bytes = randomBytes(12_000_000);
  const ref = await runtime.artifacts.put(cut(bytes, 100_000), { contentType: "video/mp4" });
  expect(ref.$artifact).toBe(createHash("sha256").update(bytes).digest("hex"));
  await runtime.artifacts.put(cut(bytes, 70_000));
  expect(await keysOf(blobs)).toHaveLength(1);
  expect(Buffer.compare(await (await runtime.artifacts.open(ref)).bytes(), bytes)).toBe(0);
  for await (const { key } of store.blobs.list()) expect.fail(`${key} is in the store`);
  await blobs.write("leftover", cut(bytes, 100_000));
  await clock.advance(2 * 86_400_000);
  expect(await runtime.artifacts.sweep()).toEqual({ artifacts: 1, sizeBytes: bytes.length, leftovers: 1 });
  expect(await keysOf(blobs)).toEqual([]);
  await runtime.stop();
});
