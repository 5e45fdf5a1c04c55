/** Counters of runs: reserved up to a limit, and changed by commits. */
import assert from "node:assert/strict";
import type { CounterChange } from "../../kernel/transition.ts";
import { type Case, finish, goOn, same } from "./world.ts";

export const counterCases: Record<string, Case> = {
  async "counters: additions of a commit are kept, negative and broken ones too, of any run that is here"(world) {
    const [holder, other] = [await world.held(), await world.parked()];
    assert.deepEqual(await world.store.counters(holder.runId), {});
    await world.store.commit([holder.next([goOn()], { counters: [{ runId: holder.runId, name: "c", add: 2 }] })]);
    await world.store.commit([holder.next([goOn()], { counters: [{ runId: holder.runId, name: "c", add: 0.5 }] })]);
    const counters = [
      { runId: other.runId, name: "c", add: 7 },
      { runId: holder.runId, name: "c", add: -1 },
      { runId: "nowhere", name: "c", add: 1 },
      { runId: holder.runId, name: "d", add: 1 },
    ];
    await world.store.commit([holder.next([goOn()], { counters })]);
    assert.deepEqual(await world.store.counters(holder.runId), { c: 1.5, d: 1 });
    assert.deepEqual(await world.store.counters(other.runId), { c: 7 });
    assert.deepEqual(await world.store.counters("nowhere"), {});
  },

  async "counters: one may be named twice in a commit, and by the commits of one turn"(world) {
    const holders = [await world.held(), await world.held(), await world.held()];
    const [{ runId }] = holders as [(typeof holders)[0]];
    const once = { runId, name: "c", add: 1 };
    await Promise.all(holders.map((holder) => world.store.commit([holder.next([goOn()], { counters: [once, once] })])));
    assert.deepEqual(await world.store.counters(runId), { c: 6 });
  },

  async "counters: a commit changes them whatever their limits: what was spent is spent"(world) {
    const holder = await world.held();
    const change = { runId: holder.runId, name: "c", add: 3, limit: 1 };
    await world.store.commit([holder.next([goOn()], { counters: [change] })]);
    assert.deepEqual(await world.store.counters(holder.runId), { c: 3 });
  },

  async "reserve: a value may reach its limit; what would pass it is answered, and nothing is added"(world) {
    const [{ runId }, other] = [await world.parked(), await world.parked()];
    const reserve = (...changes: CounterChange[]) => world.store.reserve(changes);
    assert.equal(await reserve({ runId, name: "c", add: 3, limit: 3 }), undefined);
    const passing = { runId, name: "c", add: 1, limit: 3 };
    const all = [{ runId: other.runId, name: "c", add: 1, limit: 1 }, { runId, name: "d", add: 1 }, passing];
    same(await reserve(...all, { runId, name: "e", add: 1, limit: 0 }), passing);
    assert.deepEqual([await world.store.counters(runId), await world.store.counters(other.runId)], [{ c: 3 }, {}]);
    assert.equal(await reserve({ runId, name: "c", add: -2, limit: 3 }), undefined);
    assert.equal(await reserve(passing, { runId: other.runId, name: "c", add: 1, limit: 1 }), undefined);
    assert.deepEqual([await world.store.counters(runId), await world.store.counters(other.runId)], [{ c: 2 }, { c: 1 }]);
    assert.equal(await reserve({ runId, name: "c", add: -2 }), undefined);
    assert.deepEqual(await world.store.counters(runId), {});
    same(await reserve({ runId, name: "huge", add: 9e15, limit: 9e15 - 1 }), { runId, name: "huge", add: 9e15, limit: 9e15 - 1 });
  },

  async "reserve: of a run that is not here, nothing is kept and nothing refused"(world) {
    const { runId } = await world.parked();
    const changes = [
      { runId: "nowhere", name: "c", add: 5, limit: 1 },
      { runId, name: "c", add: 1, limit: 1 },
    ];
    assert.equal(await world.store.reserve(changes), undefined);
    assert.deepEqual([await world.store.counters(runId), await world.store.counters("nowhere")], [{ c: 1 }, {}]);
  },

  async "reserve: at once, no more is given than there is, whatever else is counted beside it"(world) {
    const [a, b] = [await world.parked(), await world.parked()];
    const holder = await world.held();
    const reserving = Array.from({ length: 40 }, (_, i) => {
      const changes = [a, b].map(({ runId }) => ({ runId, name: "c", add: 3, limit: 60 }));
      return world.store.reserve(i % 2 === 0 ? changes : changes.reverse());
    });
    const counters = [b, a].map(({ runId }) => ({ runId, name: "c", add: 0.5 }));
    const committing = Array.from({ length: 5 }, () => world.store.commit([holder.next([goOn()], { counters })]));
    const answers = await Promise.all(reserving);
    await Promise.all(committing);
    const given = answers.filter((answer) => answer === undefined).length;
    assert.ok(given >= 19 && given <= 20, `${given} were given`);
    for (const { runId } of [a, b]) assert.deepEqual(await world.store.counters(runId), { c: given * 3 + 2.5 });
  },

  async "counters go with their run when it is purged, and its id has none afterwards"(world) {
    const holder = await world.held();
    const { runId } = holder;
    await world.store.reserve([{ runId, name: "c", add: 3, limit: 3 }]);
    await world.store.commit([holder.next([finish()])]);
    assert.deepEqual(await world.store.counters(runId), { c: 3 });
    await world.store.purge([runId]);
    assert.deepEqual(await world.store.counters(runId), {});
    // Where a row is used again, it is as new.
    const next = await world.parked();
    assert.deepEqual(await world.store.counters(next.runId), {});
  },

  async "counters move with their run"(world) {
    const { runId } = await world.parked();
    await world.store.reserve([
      { runId, name: "c", add: 3 },
      { runId, name: "__proto__", add: 1 },
    ]);
    const move = { token: "t", to: "elsewhere" };
    await world.store.fence([runId], move);
    const copy = await world.store.copyOf(runId);
    assert.ok(copy);
    assert.deepEqual(Object.entries(copy.counters ?? {}).sort(), [
      ["__proto__", 1],
      ["c", 3],
    ]);
    await world.store.settle("t", "left");
    // It comes back from there, where more was spent.
    const records = await world.store.records(runId, 0, 100);
    await world.store.adopt({ ...copy, counters: { c: 5 } }, { token: "back", to: "elsewhere" });
    await world.store.adoptRecords(runId, "back", records);
    await world.store.settle("back", "here");
    assert.deepEqual(await world.store.counters(runId), { c: 5 });
  },
};
