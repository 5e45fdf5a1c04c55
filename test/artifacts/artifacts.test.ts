// The public surface of artifacts, on the stores that have their bytes with them.
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Readable } from "node:stream";
import { type BlobStore, createRuntime, type Runtime, type Store } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { type TestClock, testClock, testIds } from "abstractruntime/testing";
import { afterEach, describe, expect, test } from "vitest";

const day = 86_400_000;
const stores: Record<string, (clock: TestClock) => Promise<Store>> = {
  memory: async (clock) => memoryStore({ clock }),
  sqlite: (clock) => sqliteStore(":memory:", { clock }),
};

const opened: Runtime[] = [];
afterEach(async () => {
  for (const runtime of opened.splice(0)) await runtime.stop();
});

interface Place {
  runtime: Runtime;
  store: Store;
  clock: TestClock;
}

async function open(kind: string, blobs?: (inner: BlobStore) => BlobStore): Promise<Place> {
  const clock = testClock();
  const store = await (stores[kind] as (clock: TestClock) => Promise<Store>)(clock);
  const artifacts = blobs ? { artifacts: blobs(store.blobs) } : {};
  const runtime = await createRuntime({ store, clock, ids: testIds(), scheduler: false, ...artifacts });
  opened.push(runtime);
  return { runtime, store, clock };
}

function sha256(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

async function keysOf(blobs: BlobStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of blobs.list()) keys.push(key);
  return keys;
}

async function collected(stream: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}

describe.each(Object.keys(stores))("on %s", (kind) => {
  test("what is put is opened as text, bytes, JSON or a stream, whatever it came as", async () => {
    const { runtime, store } = await open(kind);
    const { artifacts } = runtime;
    const text = JSON.stringify({ a: "ä\u0000".repeat(200_000) });
    const bytes = Buffer.from(text);
    async function* generated(): AsyncGenerator<Uint8Array | string> {
      yield bytes.subarray(0, 10);
      yield "";
      yield bytes.subarray(10);
    }
    const contents = [
      text,
      bytes,
      new Uint8Array(bytes),
      Readable.from([bytes.subarray(0, 1), bytes.subarray(1)]),
      new Blob([bytes]).stream() as never,
      generated(),
    ];
    for (const content of contents) {
      const ref = await artifacts.put(content);
      expect(ref).toMatchObject({ $artifact: sha256(bytes), sizeBytes: bytes.length });
      expect(JSON.parse(JSON.stringify(ref))).toEqual(ref);
    }
    // The same bytes are kept once, as they were put first.
    expect(await keysOf(store.blobs)).toHaveLength(1);
    const found = await artifacts.open(sha256(bytes));
    expect(found.metadata).toMatchObject({ contentType: "text/plain; charset=utf-8", sizeBytes: bytes.length, runIds: [] });
    expect(await found.text()).toBe(text);
    expect(Buffer.compare(await found.bytes(), bytes)).toBe(0);
    expect(await found.json()).toEqual(JSON.parse(text));
    expect(Buffer.compare(await collected(found.stream()), bytes)).toBe(0);
    expect(Buffer.compare(await collected(found.stream()), bytes)).toBe(0);
  });

  test("nothing is an artifact, too", async () => {
    const { runtime } = await open(kind);
    const ref = await runtime.artifacts.put(new Uint8Array(0), { contentType: "image/png" });
    expect(ref).toEqual({ $artifact: sha256(""), contentType: "image/png", sizeBytes: 0 });
    expect(await (await runtime.artifacts.open(ref)).text()).toBe("");
  });

  test("a stream that breaks off puts nothing, and its error is the answer", async () => {
    const { runtime, store } = await open(kind);
    const failure = new Error("the line is dead");
    async function* broken(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(1_000_000);
      throw failure;
    }
    await expect(runtime.artifacts.put(broken())).rejects.toBe(failure);
    async function* wrong(): AsyncGenerator<never> {
      yield 7 as never;
    }
    await expect(runtime.artifacts.put(wrong())).rejects.toMatchObject({ code: "INVALID_OPTION" });
    expect(await runtime.artifacts.listAll()).toEqual([]);
    expect(await keysOf(store.blobs)).toEqual([]);
  });

  test("wrong options are refused by name, before anything is put", async () => {
    const { runtime, store } = await open(kind);
    const { artifacts } = runtime;
    const refused: [Promise<unknown>, string | RegExp][] = [
      [artifacts.put("x", { contenttype: "text/plain" } as never), 'Did you mean "contentType"?'],
      [artifacts.put("x", { contentType: "text/plain\r\nX: y" }), "contentType is a media type"],
      [artifacts.put("x", { contentType: "" }), "contentType is a media type"],
      [artifacts.put("x", { tags: { a: 1 } as never }), "tags are up to 64"],
      [artifacts.put("x", { tags: { a: "\ud800" } }), "tags are up to 64"],
      [artifacts.put("x", { tags: { a: "x".repeat(501) } }), "tags are up to 64"],
      [artifacts.put("x", { tags: JSON.parse('{"__proto__":"x"}') }), "tags are up to 64"],
      [artifacts.put("x", { runId: null as never }), "runId is the id of a run"],
      [artifacts.delete("0".repeat(64), { runId: 7 as never }), "runId is the id of a run"],
      [artifacts.deleteByRun(undefined as never), "runId is the id of a run"],
      [artifacts.listByRun(undefined as never), "runId is the id of a run"],
      [artifacts.put(null as never, { contentType: "a/b" }), "content is a text"],
      [artifacts.put(7 as never), "content is a text"],
      [artifacts.put(null as never), "content is a text"],
      [artifacts.put({} as never), "content is a text"],
      [artifacts.open("../x"), "64 hex digits"],
      [artifacts.open({ $artifact: "x" }), "64 hex digits"],
      [artifacts.exists(""), "64 hex digits"],
    ];
    for (const [promise, problem] of refused) await expect(promise).rejects.toThrow(problem);
    await expect(artifacts.put("x", { runId: "nobody" })).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
    await expect(artifacts.put("x", { runId: "nobody", tags: { a: "b" } })).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
    expect(await keysOf(store.blobs)).toEqual([]);
  });

  test("bytes that are not there, or others, are refused when they are read, and mended by putting them again", async () => {
    const text = "x".repeat(2_000_000);
    let damage: (bytes: Buffer) => Buffer | undefined = (bytes) => bytes;
    const { runtime, store } = await open(kind, (inner) => ({
      name: "damaged",
      write: (key, chunks) => inner.write(key, chunks),
      async *read(key) {
        const bytes = damage(await collected(inner.read(key)));
        if (!bytes) yield* inner.read("no such key");
        else for (let at = 0; at < bytes.length; at += 300_000) yield bytes.subarray(at, at + 300_000);
      },
      delete: (key) => inner.delete(key),
      list: () => inner.list(),
    }));
    const ref = await runtime.artifacts.put(text);
    const found = await runtime.artifacts.open(ref);
    const changed = Buffer.from(`${text.slice(0, -1)}y`);
    for (const wrong of [changed, changed.subarray(0, 1_999_999), Buffer.concat([changed, changed]), Buffer.alloc(0)]) {
      damage = () => wrong;
      await expect(found.bytes()).rejects.toMatchObject({ code: "ARTIFACT_CORRUPT" });
      await expect(found.text()).rejects.toMatchObject({ code: "ARTIFACT_CORRUPT" });
      await expect(collected(found.stream())).rejects.toMatchObject({ code: "ARTIFACT_CORRUPT" });
      await expect(runtime.artifacts.loadText(ref.$artifact)).rejects.toMatchObject({ code: "ARTIFACT_CORRUPT" });
    }
    damage = () => undefined;
    const missing = { code: "ARTIFACT_MISSING", fields: { artifactId: ref.$artifact, store: "damaged" } };
    await expect(found.bytes()).rejects.toMatchObject(missing);
    damage = (bytes) => bytes;
    // Without `replace`, what is known stays.
    const [before] = await keysOf(store.blobs);
    await runtime.artifacts.put(text);
    expect(await keysOf(store.blobs)).toEqual([before]);
    await runtime.artifacts.put(text, { replace: true });
    const after = await keysOf(store.blobs);
    expect(after).toHaveLength(1);
    expect(after).not.toEqual([before]);
    expect(await (await runtime.artifacts.open(ref)).text()).toBe(text);
  });

  test("an artifact that nobody put is ARTIFACT_MISSING", async () => {
    const { runtime } = await open(kind);
    await expect(runtime.artifacts.open(sha256("never put"))).rejects.toMatchObject({ code: "ARTIFACT_MISSING" });
  });

  test("json: what is not JSON says so, and hostile keys stay what they are", async () => {
    const { runtime } = await open(kind);
    const image = await runtime.artifacts.open(await runtime.artifacts.put("not json", { contentType: "image/png" }));
    await expect(image.json()).rejects.toThrow(/\(image\/png\) is not JSON/);
    const hostile = '{"constructor":{"prototype":1},"\\u005f_proto__x":2}';
    const { artifactId } = await runtime.artifacts.storeText(hostile);
    expect(await runtime.artifacts.loadJson(artifactId)).toEqual(JSON.parse(hostile));
  });

  test("the operations of AbstractRuntime's ArtifactStore", async () => {
    const { runtime, clock } = await open(kind);
    const { artifacts } = runtime;
    const bytes = await artifacts.store(new Uint8Array([1, 2]), { tags: { of: "x" } });
    expect(bytes).toEqual({
      artifactId: sha256(new Uint8Array([1, 2])),
      contentType: "application/octet-stream",
      sizeBytes: 2,
      tags: { of: "x" },
      createdAt: clock.now(),
    });
    await clock.advance(1);
    const text = await artifacts.storeText("grüße");
    await clock.advance(1);
    const json = await artifacts.storeJson({ b: 1, a: ["é"] });
    expect([text.contentType, json.contentType]).toEqual(["text/plain", "application/json"]);
    // Keys are not sorted, nor is anything escaped.
    expect(await artifacts.loadText(json.artifactId)).toBe('{"b":1,"a":["é"]}');
    expect(await artifacts.loadJson(json.artifactId)).toEqual({ b: 1, a: ["é"] });
    expect(await artifacts.load(bytes.artifactId)).toMatchObject({ metadata: bytes, content: new Uint8Array([1, 2]) });
    expect(await artifacts.getMetadata(text.artifactId)).toEqual({ ...text, runIds: [] });
    const unknown = sha256("never put");
    const found = [
      artifacts.load(unknown),
      artifacts.loadText(unknown),
      artifacts.loadJson(unknown),
      artifacts.getMetadata(unknown),
    ];
    expect(await Promise.all(found)).toEqual([null, null, null, null]);
    expect([await artifacts.exists(text.artifactId), await artifacts.exists(unknown)]).toEqual([true, false]);
    expect(await artifacts.listAll()).toEqual([json, text, bytes]);
    expect(await artifacts.listAll({ limit: 2 })).toEqual([json, text]);
    expect(await artifacts.listAll({ tags: { of: "x" } })).toEqual([bytes]);
    expect(await artifacts.resolveArtifact({ $artifact: text.artifactId })).toMatchObject({ metadata: text });
    for (const ref of [null, "x", { $artifact: 1 }, { $artifact: unknown }, [text.artifactId]])
      expect(await artifacts.resolveArtifact(ref)).toBeNull();
    await expect(artifacts.storeJson({ at: new Date(0) })).rejects.toMatchObject({ code: "NOT_JSON" });
    expect([await artifacts.delete(bytes.artifactId), await artifacts.delete(bytes.artifactId)]).toEqual([true, false]);
    expect(await artifacts.load(bytes.artifactId)).toBeNull();
  });

  test("a sweep takes what nobody refers to after a day, and what unfinished puts left", async () => {
    const { runtime, store, clock } = await open(kind);
    const { artifacts } = runtime;
    await artifacts.put("old");
    const leftover = store.blobs.write(
      "leftover",
      (async function* () {
        yield new Uint8Array(700_000);
        throw new Error("the process ended");
      })(),
    );
    await expect(leftover).rejects.toThrow("the process ended");
    await clock.advance(day / 2);
    await artifacts.put("new");
    await clock.advance(day / 2 - 1);
    expect(await artifacts.sweep()).toEqual({ artifacts: 0, sizeBytes: 0, leftovers: 0 });
    await clock.advance(2);
    expect(await artifacts.sweep()).toEqual({ artifacts: 1, sizeBytes: 3, leftovers: 1 });
    expect(await artifacts.sweep()).toEqual({ artifacts: 0, sizeBytes: 0, leftovers: 0 });
    expect((await artifacts.listAll()).map(({ artifactId }) => artifactId)).toEqual([sha256("new")]);
    expect(await keysOf(store.blobs)).toHaveLength(1);
  });

  test("a put that takes longer than a day is not swept from under it", async () => {
    const { runtime, clock } = await open(kind);
    async function* slow(): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(600_000);
      await clock.advance(2 * day);
      expect(await runtime.artifacts.sweep()).toEqual({ artifacts: 0, sizeBytes: 0, leftovers: 0 });
      yield new Uint8Array(600_000);
    }
    const ref = await runtime.artifacts.put(slow());
    expect(await (await runtime.artifacts.open(ref)).bytes()).toHaveLength(1_200_000);
  });

  test("puts and sweeps at the same time: what was put can be opened", async () => {
    const { runtime, clock } = await open(kind);
    const { artifacts } = runtime;
    for (let round = 0; round < 10; round++) {
      const puts = Array.from({ length: 8 }, (_, i) =>
        artifacts.put(`text ${i % 3}`, i % 2 === 0 ? {} : { tags: { n: String(i) } }),
      );
      const sweeps = [artifacts.sweep(), artifacts.sweep()];
      const refs = await Promise.all(puts);
      await Promise.all(sweeps);
      for (const ref of refs) expect(await (await artifacts.open(ref)).text()).toMatch(/^text \d$/);
      await clock.advance(day + 1);
    }
    await artifacts.sweep();
    expect(await artifacts.listAll()).toEqual([]);
  });
});

test("bytes that were changed or lost in the SQLite file are found when they are read, and the other artifacts are whole", async () => {
  const directory = mkdtempSync(join(tmpdir(), "artifacts-test-"));
  const path = join(directory, "runs.db");
  const runtime = await createRuntime({ store: await sqliteStore(path), scheduler: false });
  const put = (text: string) => runtime.artifacts.put(text.repeat(100_000));
  const [changed, cut, gone, whole] = await Promise.all([put("change"), put("cut"), put("gone"), put("whole")]);
  const database = new DatabaseSync(path);
  const rowOf = (id: string) =>
    database
      .prepare("SELECT blobs.blob * 4194304 AS first FROM artifacts JOIN blobs ON key = artifacts.blob WHERE id = ?")
      .get(id)?.first as number;
  const { bytes } = database.prepare("SELECT bytes FROM blob_chunks WHERE id = ?").get(rowOf(changed.$artifact) + 3) as {
    bytes: Uint8Array;
  };
  bytes[5]! ^= 1;
  database.prepare("UPDATE blob_chunks SET bytes = ? WHERE id = ?").run(bytes, rowOf(changed.$artifact) + 3);
  database.prepare("DELETE FROM blob_chunks WHERE id = ?").run(rowOf(cut.$artifact) + 2);
  database.prepare("DELETE FROM blobs WHERE blob = ?").run(rowOf(gone.$artifact) / 4194304);
  database.close();
  const read = async (ref: { $artifact: string }) => (await runtime.artifacts.open(ref)).bytes();
  await expect(read(changed)).rejects.toMatchObject({ code: "ARTIFACT_CORRUPT", fields: { artifactId: changed.$artifact } });
  await expect(read(cut)).rejects.toMatchObject({ code: "ARTIFACT_MISSING", fields: { artifactId: cut.$artifact } });
  await expect(read(gone)).rejects.toMatchObject({ code: "ARTIFACT_MISSING", fields: { artifactId: gone.$artifact } });
  expect(Buffer.from(await read(whole)).toString()).toBe("whole".repeat(100_000));
  for (const text of ["change", "cut", "gone"]) {
    const ref = await runtime.artifacts.put(text.repeat(100_000), { replace: true });
    expect(Buffer.from(await read(ref)).toString()).toBe(text.repeat(100_000));
  }
  await runtime.stop();
  rmSync(directory, { recursive: true });
});
