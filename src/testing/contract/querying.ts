/** Lists of runs, and counts of them. */
import assert from "node:assert/strict";
import type { RunPage, RunQuery } from "../../kernel/store.ts";
import { type Case, failing, finish, minute, park, same, stored } from "./world.ts";

export const queryCases: Record<string, Case> = {
  async "query: filters by status, workflow, wait and parent, each and together"(world) {
    const parent = await world.parked({ runId: "parent", workflowId: "a", waitKey: "x", reason: "subworkflow" });
    await world.parked({
      runId: "child",
      workflowId: "b",
      waitKey: "x",
      reason: "user",
      parent: { runId: parent.runId, effectId: "1" },
    });
    await world.held({ runId: "running", workflowId: "a" });
    const ended = await world.held({ runId: "ended", workflowId: "b" });
    await world.store.commit([ended.next([finish()], { release: true })]);
    const both = await world.held({ runId: "both", workflowId: "c" });
    await world.store.commit([
      both.next([park({ waitKey: "y", reason: "user" }), park({ effectId: "2", waitKey: "z", reason: "event" })]),
    ]);
    const find = async (query: RunQuery): Promise<string[]> =>
      (await world.store.query(query)).runs.map(({ runId }) => runId).sort();
    assert.deepEqual(await find({}), ["both", "child", "ended", "parent", "running"]);
    assert.deepEqual(await find({ status: "waiting" }), ["both", "child", "parent"]);
    assert.deepEqual(await find({ status: ["completed", "running"] }), ["ended", "running"]);
    assert.deepEqual(await find({ status: [] }), []);
    assert.deepEqual(await find({ workflowId: "a" }), ["parent", "running"]);
    assert.deepEqual(await find({ holder: both.lease.workerId, workflowId: "c" }), ["both"]);
    assert.deepEqual(await find({ holder: "nobody" }), []);
    assert.deepEqual(await find({ waitKey: "x" }), ["child", "parent"]);
    assert.deepEqual(await find({ waitKey: "z" }), ["both"]);
    assert.deepEqual(await find({ waitReason: "user" }), ["both", "child"]);
    assert.deepEqual(await find({ waitReason: "user", waitKey: "x" }), ["child"]);
    assert.deepEqual(await find({ waitReason: "user", waitKey: "z" }), []);
    assert.deepEqual(await find({ parentRunId: "parent" }), ["child"]);
    assert.deepEqual(await find({ status: "waiting", workflowId: "b", waitReason: "user", parentRunId: "parent" }), ["child"]);
    assert.deepEqual(await find({ status: "running", workflowId: "b" }), []);
  },

  async "query: tells of each run its row and who holds it"(world) {
    const holder = await world.held();
    same(await world.store.query({}), {
      runs: [{ ...(await world.load(holder.runId)).row, waits: [], holder: holder.lease.workerId }],
    });
  },

  async "query: newest first, or oldest first; a page tells how to get the next one"(world) {
    const runIds = ["1", "2", "3", "4", "5", "6", "7"];
    for (const runId of runIds) {
      await world.store.create([stored(world.newRun({ runId }))]);
      await world.clock.advance(1);
    }
    const pages = async (query: RunQuery): Promise<string[][]> => {
      const found: string[][] = [];
      let page: RunPage | undefined;
      do {
        page = await world.store.query({ ...query, cursor: page?.next });
        found.push(page.runs.map(({ runId }) => runId));
      } while (page.next !== undefined);
      return found;
    };
    assert.deepEqual(await pages({ limit: 3 }), [["7", "6", "5"], ["4", "3", "2"], ["1"]]);
    assert.deepEqual(await pages({ limit: 3, order: "oldest" }), [["1", "2", "3"], ["4", "5", "6"], ["7"]]);
    assert.deepEqual(await pages({ limit: 7 }), [[...runIds].reverse()]);
    assert.deepEqual(await pages({ order: "newest", limit: 4, workflowId: "work" }), [
      ["7", "6", "5", "4"],
      ["3", "2", "1"],
    ]);
    const first = await world.store.query({ limit: 2 });
    await world.store.create([stored(world.newRun({ runId: "8" }))]);
    const second = await world.store.query({ limit: 2, cursor: first.next });
    assert.deepEqual(
      second.runs.map(({ runId }) => runId),
      ["5", "4"],
    );
  },

  async "query: runs created at one moment are all on some page, once"(world) {
    const runs = Array.from({ length: 9 }, () => stored(world.newRun()));
    await world.store.create(runs);
    const found: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await world.store.query({ limit: 2, cursor });
      found.push(...page.runs.map(({ runId }) => runId));
      cursor = page.next;
    } while (cursor !== undefined);
    assert.deepEqual(found.sort(), runs.map(({ row }) => row.runId).sort());
  },

  async "query: a page has 100 runs by default, and at most 1,000"(world) {
    await world.store.create(Array.from({ length: 1_001 }, () => stored(world.newRun())));
    const byDefault = await world.store.query({});
    assert.deepEqual([byDefault.runs.length, byDefault.next !== undefined], [100, true]);
    const most = await world.store.query({ limit: 5_000 });
    assert.deepEqual([most.runs.length, most.next !== undefined], [1_000, true]);
    const rest = await world.store.query({ limit: 5_000, cursor: most.next });
    assert.deepEqual([rest.runs.length, rest.next], [1, undefined]);
  },

  async "query: filters by queue, and by whether a run is blocked"(world) {
    const block = { code: "X", problem: "", fingerprint: "code 1", quarantine: false };
    const plain = await world.held({ runId: "plain" });
    await world.held({ runId: "in a", queue: "a" });
    const blocked = await world.held({ runId: "blocked in a", queue: "a" });
    const quarantined = await world.held({ runId: "quarantined in b", queue: "b" });
    await world.store.release(blocked.runId, blocked.lease, { blocked: block });
    await world.store.release(quarantined.runId, quarantined.lease, { blocked: { ...block, quarantine: true } });
    const find = async (query: RunQuery): Promise<string[]> =>
      (await world.store.query({ order: "oldest", ...query })).runs.map(({ runId }) => runId);
    assert.deepEqual(await find({ queue: "a" }), ["in a", "blocked in a"]);
    assert.deepEqual(await find({ queue: "c" }), []);
    assert.deepEqual(await find({ blocked: true }), ["blocked in a", "quarantined in b"]);
    assert.deepEqual(await find({ blocked: false }), [plain.runId, "in a"]);
    assert.deepEqual(await find({ blocked: false, queue: "a" }), ["in a"]);
  },

  async "query: filters by the beginning of the id, in pages, whatever characters stand there"(world) {
    const runIds = ["a", "ab", "a%", "a_b", "abc", "A", "b", "ab\u{10ffff}x", "ab\ud7ff", "ab\ue000", "é", "e\u0301", "*", ""];
    await world.store.create(runIds.map((runId) => stored(world.newRun({ runId }))));
    const find = async (idPrefix: string, order: "oldest" | "newest"): Promise<string[]> => {
      const found: string[] = [];
      let cursor: string | undefined;
      do {
        const page: RunPage = await world.store.query({ idPrefix, order, limit: 2, cursor });
        found.push(...page.runs.map(({ runId }) => runId));
        cursor = page.next;
      } while (cursor !== undefined);
      return found;
    };
    for (const prefix of ["", "a", "ab", "a%", "a_", "A", "ab\u{10ffff}", "ab\ud7ff", "\u{10ffff}", "e", "é", "*", "nothing"]) {
      const expected = runIds.filter((runId) => runId.startsWith(prefix));
      assert.deepEqual(await find(prefix, "oldest"), expected, prefix);
      assert.deepEqual(await find(prefix, "newest"), expected.reverse(), prefix);
    }
    await world.parked({ runId: "abd", waitKey: "x" });
    await world.parked({ runId: "c", waitKey: "x" });
    same(
      (await world.store.query({ idPrefix: "ab", waitKey: "x" })).runs.map(({ runId }) => runId),
      ["abd"],
    );
  },

  async "query: filters by the beginning of the id also when more have it than a page holds"(world) {
    const many = Array.from({ length: 1_100 }, (_, i) =>
      stored(world.newRun({ runId: `${i % 11 === 0 ? "other" : "same"} ${i}` })),
    );
    await world.store.create(many);
    const expected = many.map(({ row }) => row.runId).filter((runId) => runId.startsWith("same"));
    const first = await world.store.query({ idPrefix: "same", limit: 600, order: "oldest" });
    const second = await world.store.query({ idPrefix: "same", limit: 600, order: "oldest", cursor: first.next });
    assert.deepEqual(
      [...first.runs, ...second.runs].map(({ runId }) => runId),
      expected,
    );
    assert.equal(second.next, undefined);
    const all = await world.store.create([stored(world.newRun({ runId: "same again" }))]);
    assert.deepEqual(all, [true]);
    assert.deepEqual(
      (await world.store.query({ idPrefix: "same", limit: 2 })).runs.map(({ runId }) => runId),
      ["same again", "same 1099"],
    );
  },

  async "stats: counts runs by status, what is due and since when, what is blocked, and live workers"(world) {
    const { sizeBytes: _, ...none } = await world.store.stats();
    assert.deepEqual(none, { runs: 0, byStatus: {}, due: 0, queues: {}, blocked: 0, quarantined: 0, workers: 0 });
    const now = world.clock.now();
    const worker = await world.worker();
    await world.parked({}, worker);
    await world.held({}, worker);
    const [ended, failed] = [await world.held({}, worker), await world.held({}, worker)];
    await world.store.commit(
      [ended, failed].map((holder, i) => holder.next([i === 0 ? finish() : failing()], { release: true })),
    );
    const block = { code: "X", problem: "", fingerprint: "code 1", quarantine: false };
    for (const quarantine of [false, true]) {
      const holder = await world.held({}, worker);
      await world.store.release(holder.runId, holder.lease, { blocked: { ...block, quarantine } });
    }
    await world.store.create([
      stored(world.newRun({ workflowId: "unknown" }), now + 5),
      stored(world.newRun({ queue: "nobody's", priority: 3 }), now + 7),
      stored(world.newRun(), now + 9),
    ]);
    await world.clock.advance(7);
    const { sizeBytes: __, ...stats } = await world.store.stats();
    assert.deepEqual(stats, {
      runs: 9,
      byStatus: { waiting: 1, running: 6, completed: 1, failed: 1 },
      due: 1,
      oldestDueAt: now + 5,
      queues: { "nobody's": { due: 1, oldestDueAt: now + 7 } },
      blocked: 2,
      quarantined: 1,
      workers: 1,
    });
    await world.clock.advance(minute);
    assert.equal((await world.store.stats()).workers, 0);
  },
};
