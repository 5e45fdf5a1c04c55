/** Bytes beside the runs. */
import assert from "node:assert/strict";
import type { BlobStore } from "../../kernel/artifact-row.ts";
import { type Case, refuses, same } from "./world.ts";

export const blobCases: Record<string, Case> = {
  async "write, read: the bytes, whatever pieces they came in"({ store, ids }) {
    const { blobs } = store;
    const bytes = noise(3_000_017, ids.random);
    for (const [key, cuts] of Object.entries({
      whole: [],
      tiny: [0, 1, 1, 2, 700_000, 700_001],
      large: [262_144, 524_288, 1_048_576, 2_097_152],
    })) {
      await blobs.write(key, cut(bytes, cuts));
      assert.equal(Buffer.compare(await readAll(blobs, key), bytes), 0, key);
    }
    await blobs.write("empty", cut(new Uint8Array(0), []));
    assert.equal((await readAll(blobs, "empty")).length, 0);
  },

  async "write: memory that the source uses again is not kept"({ store }) {
    const shared = new Uint8Array(4);
    async function* reused(): AsyncGenerator<Uint8Array> {
      for (const value of [1, 2, 3]) yield shared.fill(value);
      shared.fill(9);
    }
    await store.blobs.write("key", reused());
    assert.deepEqual([...(await readAll(store.blobs, "key"))], [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]);
  },

  async "read: a range, from start up to and without end"({ store, ids }) {
    const { blobs } = store;
    const bytes = noise(1_600_000, ids.random);
    await blobs.write("key", cut(bytes, [5, 1_000_000]));
    const ranges: { start?: number; end?: number }[] = [
      { start: 0, end: 1 },
      { start: 3, end: 7 },
      { start: 1_599_999 },
      { end: 524_288 },
      { start: 524_288, end: 1_048_577 },
      { start: 262_143, end: 262_145 },
      { start: 10, end: 10 },
      { start: 1_600_000 },
      { start: 2_000_000 },
      { start: 1_500_000, end: 9_000_000 },
      {},
    ];
    for (const range of ranges) {
      const { start = 0, end = bytes.length } = range;
      assert.equal(Buffer.compare(await readAll(blobs, "key", range), bytes.subarray(start, end)), 0, JSON.stringify(range));
    }
  },

  async "read: what is not there is ARTIFACT_MISSING"({ store }) {
    await refuses(readAll(store.blobs, "never written"), "ARTIFACT_MISSING");
  },

  async "write: one that fails leaves nothing that can be read, and its source's error; what it left otherwise is listed and can be deleted"({
    store,
    ids,
  }) {
    const { blobs } = store;
    const failure = new Error("the source broke");
    let ended = false;
    async function* broken(): AsyncGenerator<Uint8Array> {
      try {
        yield noise(700_000, ids.random);
        yield noise(700_000, ids.random);
        throw failure;
      } finally {
        ended = true;
      }
    }
    await assert.rejects(blobs.write("key", broken()), failure);
    assert.ok(ended);
    await refuses(readAll(blobs, "key"), "ARTIFACT_MISSING");
    for (const { key } of await listed(blobs)) await blobs.delete(key);
    assert.deepEqual(await listed(blobs), []);
  },

  async "delete: nothing is left; a second call does nothing"({ store, ids }) {
    const { blobs } = store;
    await blobs.write("a", cut(noise(5_000_000, ids.random), []));
    await blobs.write("b", cut(noise(10, ids.random), []));
    await blobs.delete("a");
    await blobs.delete("a");
    await blobs.delete("never written");
    await refuses(readAll(blobs, "a"), "ARTIFACT_MISSING");
    assert.deepEqual(
      (await listed(blobs)).map(({ key }) => key),
      ["b"],
    );
    assert.equal((await readAll(blobs, "b")).length, 10);
  },

  async "delete: a blob that is being read rejects its readers, and does not end early"({ store, ids }) {
    const { blobs } = store;
    const bytes = noise(4_000_000, ids.random);
    await blobs.write("key", cut(bytes, [1_000_000, 2_000_000, 3_000_000]));
    const read: Uint8Array[] = [];
    const reading = (async () => {
      for await (const chunk of blobs.read("key")) {
        if (read.length === 0) await blobs.delete("key");
        read.push(chunk);
      }
    })();
    await reading.then(
      // What was on its way already may arrive, all of it.
      () => assert.equal(Buffer.compare(Buffer.concat(read), bytes), 0),
      async (error: unknown) => refuses(Promise.reject(error), "ARTIFACT_MISSING"),
    );
  },

  async "list: every key, and when it was last written to"({ store, clock, ids }) {
    const { blobs } = store;
    const expected: { key: string; at: number }[] = [];
    for (let i = 0; i < 5; i++) {
      const key = `${i % 2 === 0 ? "even" : "odd"}-${i}`;
      await blobs.write(key, cut(noise(i * 100_000, ids.random), []));
      expected.push({ key, at: clock.now() });
      await clock.advance(1_000);
    }
    same(await listed(blobs), expected);
  },

  async "write, read: side by side, without mixing"({ store, ids }) {
    const { blobs } = store;
    const all = Array.from({ length: 4 }, (_, i) => noise(1_000_000 + i, ids.random));
    await Promise.all(all.map((bytes, i) => blobs.write(`key-${i}`, cut(bytes, [300_000, 600_000]))));
    const read = await Promise.all(all.map((_, i) => readAll(blobs, `key-${i}`)));
    all.forEach((bytes, i) => {
      assert.equal(Buffer.compare(read[i] as Uint8Array, bytes), 0);
    });
  },

  async "reading that is given up leaves the rest alone"({ store, ids }) {
    const { blobs } = store;
    const bytes = noise(2_000_000, ids.random);
    await blobs.write("key", cut(bytes, [1_000_000]));
    for await (const chunk of blobs.read("key")) {
      assert.ok(chunk.length > 0);
      break;
    }
    assert.equal(Buffer.compare(await readAll(blobs, "key"), bytes), 0);
  },

  async "reopen: bytes are there again"(world) {
    const bytes = noise(1_000_000, world.ids.random);
    await world.store.blobs.write("key", cut(bytes, []));
    const store = world.reopen ? await world.reopen() : world.store;
    assert.equal(Buffer.compare(await readAll(store.blobs, "key"), bytes), 0);
  },

  async "closed: every call is refused with STORE_CLOSED"({ store, ids }) {
    const { blobs } = store;
    await blobs.write("key", cut(noise(10, ids.random), []));
    await store.close();
    await refuses(blobs.write("other", cut(noise(10, ids.random), [])), "STORE_CLOSED");
    await refuses(readAll(blobs, "key"), "STORE_CLOSED");
    await refuses(blobs.delete("key"), "STORE_CLOSED");
    await refuses(listed(blobs), "STORE_CLOSED");
  },
};

/** Bytes that do not repeat, so that no part may stand for another. */
function noise(sizeBytes: number, random: () => number): Uint8Array {
  const words = new Uint32Array(Math.ceil(sizeBytes / 4));
  let state = Math.floor(random() * 2 ** 32);
  for (let i = 0; i < words.length; i++) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer, 0, sizeBytes);
}

async function* cut(bytes: Uint8Array, cuts: readonly number[]): AsyncGenerator<Uint8Array> {
  const places = [0, ...cuts, bytes.length];
  for (let i = 1; i < places.length; i++) yield bytes.subarray(places[i - 1], places[i]);
}

async function readAll(blobs: BlobStore, key: string, range?: { start?: number; end?: number }): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of blobs.read(key, range)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function listed(blobs: BlobStore): Promise<{ key: string; at: number }[]> {
  const keys: { key: string; at: number }[] = [];
  for await (const one of blobs.list()) keys.push({ ...one });
  return keys.sort((a, b) => a.at - b.at);
}
