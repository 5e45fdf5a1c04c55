/** Counts of runs. */
import assert from "node:assert/strict";
import type { CountBy } from "../../kernel/query.ts";
import { type Case, failing, finish, minute, park, stored } from "./world.ts";

export const countCases: Record<string, Case> = {
  async "count: how many runs a query finds, whatever its page would be"(world) {
    const tagged = Array.from({ length: 150 }, (_, i) => stored(world.newRun({ tags: i % 3 === 0 ? ["a"] : ["b", "c"] })));
    await world.store.create(tagged);
    await world.parked({ waitKey: "x" });
    const two = await world.held();
    await world.store.commit([two.next([park({ waitKey: "x" }), park({ effectId: "2", waitKey: "x", reason: "user" })])]);
    const { count } = world.store;
    const number = async (...query: Parameters<typeof count>): Promise<number> => {
      const counts = await world.store.count(...query);
      assert.deepEqual(counts, [{ value: null, count: counts[0]?.count }]);
      return counts[0]?.count as number;
    };
    assert.equal(await number({}), 152);
    assert.equal(await number({ limit: 10, order: "due" }), 152);
    assert.equal(await number({ tags: ["b"] }), 100);
    assert.equal(await number({ tags: ["a", "b"] }), 0);
    assert.equal(await number({ waitKey: "x" }), 2);
    assert.equal(await number({ waitReason: "user" }), 1);
    assert.equal(await number({ status: ["waiting", "running"] }), 152);
    assert.equal(await number({ status: [] }), 0);
    assert.equal(await number({ updatedBefore: 0 }), 0);
    assert.equal(await number({ updatedAfter: 0, status: "waiting" }), 2);
  },

  async "count: by group, the largest first; a run counts in each of its groups, and without one under null"(world) {
    const worker = await world.worker();
    await world.held({ workflowId: "a", queue: "q", sessionId: "s", actorId: "ada", tags: ["x", "y"] }, worker);
    await world.parked({ workflowId: "a", sessionId: "s", tags: ["y"], reason: "user" }, worker);
    const ended = await world.held({ workflowId: "b" }, worker);
    const three = await world.held({ workflowId: "a", actorId: "bob" }, worker);
    await world.store.commit([
      ended.next([finish()], { release: true }),
      three.next([
        park({ waitKey: "k" }),
        park({ effectId: "2", waitKey: "l" }),
        park({ effectId: "3", waitKey: "m", reason: "user" }),
      ]),
    ]);
    const expected: Record<CountBy, [value: string | null, count: number][]> = {
      status: [
        ["waiting", 2],
        ["completed", 1],
        ["running", 1],
      ],
      workflowId: [
        ["a", 3],
        ["b", 1],
      ],
      version: [["1", 4]],
      queue: [
        [null, 3],
        ["q", 1],
      ],
      waitReason: [
        ["user", 2],
        [null, 2],
        ["event", 1],
      ],
      tag: [
        ["y", 2],
        [null, 2],
        ["x", 1],
      ],
      sessionId: [
        ["s", 2],
        [null, 2],
      ],
      actorId: [
        [null, 2],
        ["ada", 1],
        ["bob", 1],
      ],
    };
    for (const [by, groups] of Object.entries(expected)) {
      const counts = await world.store.count({}, by as CountBy);
      assert.deepEqual(
        counts,
        groups.map(([value, count]) => ({ value, count })),
        by,
      );
    }
    assert.deepEqual(await world.store.count({ waitReason: "event" }, "waitReason"), [
      { value: "event", count: 1 },
      { value: "user", count: 1 },
    ]);
    assert.deepEqual(await world.store.count({ tags: ["x"] }, "tag"), [
      { value: "x", count: 1 },
      { value: "y", count: 1 },
    ]);
    assert.deepEqual(await world.store.count({ workflowId: ["a", "b"], status: "waiting" }, "workflowId"), [
      { value: "a", count: 2 },
    ]);
    assert.deepEqual(await world.store.count({ workflowId: "none" }, "status"), []);
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
