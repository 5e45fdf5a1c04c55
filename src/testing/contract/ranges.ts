/** Lists of runs by when they were created, changed, or are due. */
import assert from "node:assert/strict";
import type { RunQuery } from "../../kernel/query.ts";
import { type Case, finish, goOn, type Holder, message, stored, type World } from "./world.ts";

export const rangeCases: Record<string, Case> = {
  async "query: by when they were created, from a moment on and before another"(world) {
    const start = world.clock.now();
    for (const runId of ["0", "1", "2", "3"]) {
      await world.held({ runId });
      await world.clock.advance(10);
    }
    const find = finder(world);
    assert.deepEqual(await find({ createdAfter: start + 10 }), ["1", "2", "3"]);
    assert.deepEqual(await find({ createdAfter: start + 11 }), ["2", "3"]);
    assert.deepEqual(await find({ createdBefore: start + 10 }), ["0"]);
    assert.deepEqual(await find({ createdAfter: start + 10, createdBefore: start + 30 }), ["1", "2"]);
    assert.deepEqual(await find({ createdAfter: start + 10, createdBefore: start + 10 }), []);
    assert.deepEqual(await find({ createdAfter: 0, createdBefore: Number.MAX_SAFE_INTEGER }), ["0", "1", "2", "3"]);
    assert.deepEqual(await find({ createdAfter: 0, status: "waiting" }), []);
  },

  async "query: by when they were created, also runs that were stored in another order, in pages of either order"(world) {
    const at = [5, 40, 10, 30, 20, 35].map((ms) => world.clock.now() + ms);
    const runs = at.map((createdAt, i) => {
      const run = stored(world.newRun({ runId: String(i) }));
      return { ...run, row: { ...run.row, createdAt } };
    });
    await world.store.create(runs);
    const span = { createdAfter: world.clock.now() + 10, createdBefore: world.clock.now() + 35 };
    for (const limit of [1, 2, 5]) {
      assert.deepEqual(await pages(world, { ...span, order: "oldest", limit }), ["2", "3", "4"]);
      assert.deepEqual(await pages(world, { ...span, order: "newest", limit }), ["4", "3", "2"]);
    }
  },

  async "query: by when they were created, of hundreds a span in the middle and what came late from elsewhere"(world) {
    const start = world.clock.now();
    const count = 1_200;
    const many = Array.from({ length: count }, (_, i) => {
      const run = stored(world.newRun({ runId: `${i}` }));
      // Nearly in order, as clocks are; and some that came from another store.
      const createdAt = start + (i % 100 === 99 ? count / 2 : i + (i % 3));
      return { ...run, row: { ...run.row, createdAt } };
    });
    await world.store.create(many);
    const span = { createdAfter: start + count / 4, createdBefore: start + (count / 8) * 7 };
    const expected = many
      .filter(({ row }) => row.createdAt >= span.createdAfter && row.createdAt < span.createdBefore)
      .map(({ row }) => row.runId);
    assert.deepEqual(await pages(world, { ...span, order: "oldest", limit: 300 }), expected);
    assert.deepEqual(await pages(world, { ...span, order: "newest", limit: 300 }), expected.toReversed());
    assert.deepEqual(await world.store.count(span), [{ value: null, count: expected.length }]);
  },

  async "query: by when they were changed last, held or not"(world) {
    const start = world.clock.now();
    const holders: Holder[] = [];
    for (const runId of ["0", "1", "2", "3"]) holders.push(await world.held({ runId }));
    const [, first, second, third] = holders as [Holder, Holder, Holder, Holder];
    await world.clock.advance(10);
    await world.store.commit([first.next([goOn()]), second.next([goOn()], { release: true })]);
    await world.clock.advance(10);
    await world.store.commit([third.next([finish()], { release: true })]);
    const find = finder(world);
    assert.deepEqual(await find({ updatedBefore: start + 10 }), ["0"]);
    assert.deepEqual(await find({ updatedAfter: start + 10 }), ["1", "2", "3"]);
    assert.deepEqual(await find({ updatedAfter: start + 10, updatedBefore: start + 20 }), ["1", "2"]);
    assert.deepEqual(await find({ updatedAfter: start + 20 }), ["3"]);
    // What is only claimed has not changed.
    await world.takeOver(second);
    assert.deepEqual(await find({ updatedAfter: start + 10, updatedBefore: start + 20 }), ["1", "2"]);
    await world.store.commit([first.next([goOn()])]);
    assert.deepEqual(await find({ updatedAfter: start + 10, updatedBefore: start + 20 }), ["2"]);
    assert.deepEqual(await find({ updatedAfter: start + 20, status: "running" }), ["1"]);
  },

  async "query: a moment may be a fraction, or beyond all that there are"(world) {
    const start = world.clock.now();
    for (const runId of ["0", "1"]) {
      await world.held({ runId });
      await world.clock.advance(1);
    }
    const find = finder(world);
    assert.deepEqual(await find({ createdAfter: start + 0.5 }), ["1"]);
    assert.deepEqual(await find({ createdBefore: start + 0.5 }), ["0"]);
    assert.deepEqual(await find({ updatedAfter: start - 0.5, updatedBefore: start + 1.5 }), ["0", "1"]);
    for (const far of [1e21, Number.MAX_VALUE]) {
      assert.deepEqual(await find({ createdAfter: -far, createdBefore: far }), ["0", "1"]);
      assert.deepEqual(await find({ createdAfter: far }), []);
      assert.deepEqual(await world.store.count({ updatedBefore: -far }), [{ value: null, count: 0 }]);
    }
  },

  async "query: by when they are due, while nobody holds them"(world) {
    const now = world.clock.now();
    await world.store.create([stored(world.newRun({ runId: "now" })), stored(world.newRun({ runId: "later" }), now + 50)]);
    const timed = await world.parked({ runId: "timed", waitKey: "x", until: now + 20 });
    await world.parked({ runId: "untimed", waitKey: "x" });
    await world.held({ runId: "held" });
    const find = finder(world);
    assert.deepEqual(await find({ dueAfter: 0 }), ["later", "now", "timed"]);
    assert.deepEqual(await find({ dueBefore: now + 20 }), ["now"]);
    assert.deepEqual(await find({ dueAfter: now + 20, dueBefore: now + 50 }), ["timed"]);
    await world.takeOver(timed);
    assert.deepEqual(await find({ dueAfter: now + 20, dueBefore: now + 50 }), []);
    await world.clock.advance(5);
    await world.store.deliver([message("untimed")]);
    assert.deepEqual(await find({ dueAfter: now + 1, dueBefore: now + 10 }), ["untimed"]);
  },
};

function finder(world: World): (query: RunQuery) => Promise<string[]> {
  return async (query) => (await world.store.query(query)).runs.map(({ runId }) => runId).sort();
}

async function pages(world: World, query: RunQuery): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page = await world.store.query({ ...query, ...(cursor === undefined ? {} : { cursor }) });
    found.push(...page.runs.map(({ runId }) => runId));
    cursor = page.next;
  }
  return found;
}
