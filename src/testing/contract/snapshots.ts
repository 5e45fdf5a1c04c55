/** Snapshots: rows beside the runs. */
import assert from "node:assert/strict";
import type { SnapshotQuery, SnapshotRow } from "../../kernel/snapshot.ts";
import { type Case, goOn, type Holder, refuses, same, type World } from "./world.ts";

function snapshotOf({ state }: Holder, options: Partial<SnapshotRow> = {}): SnapshotRow {
  const { runId, workflowId, version, seq, head: hash, node, status } = state;
  const place = { runId, workflowId, version, seq, hash, node, status };
  return { snapshotId: "s1", ...place, name: "first", tags: [], createdAt: 1_000, updatedAt: 1_000, ...options };
}

/** The ids on each page. */
async function pagesOf({ store }: World, query: SnapshotQuery): Promise<string[][]> {
  const pages: string[][] = [];
  let cursor: string | undefined;
  do {
    const page = await store.snapshots({ ...query, ...(cursor === undefined ? {} : { cursor }) });
    pages.push(page.snapshots.map(({ snapshotId }) => snapshotId));
    cursor = page.next;
  } while (cursor !== undefined);
  return pages;
}

export const snapshotCases: Record<string, Case> = {
  async "saveSnapshot: keeps every field, of any record that the run has, and a second one with its id replaces it"(world) {
    const { store } = world;
    const holder = await world.held();
    const first = snapshotOf(holder, { description: 'Äpfel, "quoted"\n😀', tags: ["One", "two", "One"] });
    await store.saveSnapshot(first);
    await store.commit([holder.next([goOn(1), goOn(2)])]);
    const second = snapshotOf(holder, { snapshotId: "s2", status: "waiting", createdAt: 2_000 });
    await store.saveSnapshot(second);
    same(await store.snapshot("s1"), first);
    same(await store.snapshot("s2"), second);
    same(await store.snapshots({}), { snapshots: [second, first] });
    assert.equal(await store.snapshot("s3"), undefined);
    const { description: _, ...changed } = { ...first, name: "changed", tags: ["three"], updatedAt: 3_000 };
    await store.saveSnapshot(changed);
    same(await store.snapshot("s1"), changed);
    same((await store.snapshots({ tag: "one" })).snapshots, []);
    same((await store.snapshots({ text: "apfel" })).snapshots, []);
    same((await store.snapshots({ tag: "three" })).snapshots, [changed]);
  },

  async "saveSnapshot: is a copy, and so is what is answered"(world) {
    const snapshot = snapshotOf(await world.held(), { tags: ["a"] });
    await world.store.saveSnapshot(snapshot);
    snapshot.tags.push("b");
    const found = (await world.store.snapshot("s1")) as SnapshotRow;
    assert.deepEqual(found.tags, ["a"]);
    found.tags.push("c");
    const [listed] = (await world.store.snapshots({})).snapshots;
    listed?.tags.push("d");
    assert.deepEqual((await world.store.snapshot("s1"))?.tags, ["a"]);
  },

  async "saveSnapshot: refuses a run and a record that are not there, and stores nothing"(world) {
    const { store } = world;
    const holder = await world.held();
    await refuses(store.saveSnapshot(snapshotOf(holder, { runId: "nobody" })), "RUN_NOT_FOUND");
    for (const seq of [1, -1]) await refuses(store.saveSnapshot(snapshotOf(holder, { seq })), "SEQ_NOT_FOUND");
    same(await store.snapshots({}), { snapshots: [] });
    // A refusal is of its own call alone.
    const transition = holder.next([goOn()]);
    const [commit, refused, saved] = await Promise.allSettled([
      store.commit([transition]),
      store.saveSnapshot(snapshotOf(holder, { snapshotId: "s2", seq: 2 })),
      store.saveSnapshot(snapshotOf(holder)),
    ]);
    assert.deepEqual([commit?.status, refused?.status, saved?.status], ["fulfilled", "rejected", "fulfilled"]);
    same(await store.snapshots({}), { snapshots: [snapshotOf(holder)] });
  },

  async "saveSnapshot: changes nothing of the run"(world) {
    const holder = await world.parked();
    const before = await world.load(holder.runId);
    await world.store.saveSnapshot(snapshotOf(holder));
    same(await world.load(holder.runId), before);
    await world.store.deleteSnapshot("s1");
    same(await world.load(holder.runId), before);
  },

  async "deleteSnapshot: removes one, and says whether there was one"(world) {
    const holder = await world.held();
    for (const snapshotId of ["s1", "s2"]) await world.store.saveSnapshot(snapshotOf(holder, { snapshotId }));
    assert.equal(await world.store.deleteSnapshot("s1"), true);
    assert.equal(await world.store.deleteSnapshot("s1"), false);
    assert.equal(await world.store.deleteSnapshot("never"), false);
    assert.equal(await world.store.snapshot("s1"), undefined);
    assert.deepEqual(await pagesOf(world, {}), [["s2"]]);
  },

  async "snapshots: filters by run, workflow, tag and text, each and together, tags and texts whatever their case"(world) {
    const { store } = world;
    const one = await world.held({ runId: "one", workflowId: "a" });
    const two = await world.held({ runId: "two", workflowId: "b" });
    const saved: [Holder, Partial<SnapshotRow>][] = [
      [one, { snapshotId: "1", name: "Before Launch", tags: ["Gold", "x"], description: "100% _sure_" }],
      [one, { snapshotId: "2", name: "after launch", tags: ["golden"] }],
      [two, { snapshotId: "3", name: "ÄRGER", tags: ["GOLD", "größe"], description: "Launch" }],
      [two, { snapshotId: "4", name: "", tags: [], description: "gold" }],
      [two, { snapshotId: "5", name: "two lau", description: "nch", tags: ['["gold"]', "a,b"] }],
    ];
    for (const [holder, options] of saved) {
      await world.clock.advance(1);
      await store.saveSnapshot(snapshotOf(holder, { createdAt: world.clock.now(), ...options }));
    }
    const find = async (query: SnapshotQuery): Promise<string> => (await pagesOf(world, query)).flat().join("");
    assert.equal(await find({}), "54321");
    assert.equal(await find({ runId: "one" }), "21");
    assert.equal(await find({ runId: "on" }), "");
    assert.equal(await find({ workflowId: "b" }), "543");
    // Tags are compared as wholes, texts as parts; texts are not looked for in tags.
    assert.equal(await find({ tag: "gold" }), "31");
    assert.equal(await find({ tag: "GRÖSSE" }), "");
    assert.equal(await find({ tag: "GRÖßE" }), "3");
    assert.equal(await find({ tag: "a" }), "");
    assert.equal(await find({ tag: "a,b" }), "5");
    assert.equal(await find({ text: "LAUNCH" }), "321");
    assert.equal(await find({ text: "gold" }), "4");
    assert.equal(await find({ text: "ärger" }), "3");
    assert.equal(await find({ text: "0% _s" }), "1");
    assert.equal(await find({ text: "%" }), "1");
    assert.equal(await find({ text: "_" }), "1");
    assert.equal(await find({ text: "*" }), "");
    assert.equal(await find({ text: "launch", tag: "gold", workflowId: "a" }), "1");
    assert.equal(await find({ text: "launch", tag: "gold", workflowId: "a", runId: "two" }), "");
    // Empty filters are none.
    assert.equal(await find({ tag: "", text: "" }), "54321");
  },

  async "snapshots: newest first, in pages on which each stands once, also of one moment and while others come and go"(world) {
    const { store } = world;
    const holder = await world.held();
    const other = await world.held();
    for (let i = 0; i < 9; i++) {
      const createdAt = [5_000, 4_000, 4_000][i % 3] as number;
      await store.saveSnapshot(snapshotOf(i === 4 ? other : holder, { snapshotId: `${i}`, createdAt }));
    }
    const all = ["6", "3", "0", "8", "7", "5", "4", "2", "1"];
    assert.deepEqual((await pagesOf(world, {})).flat(), all);
    assert.deepEqual(await pagesOf(world, { limit: 4 }), [all.slice(0, 4), all.slice(4, 8), all.slice(8)]);
    assert.deepEqual((await pagesOf(world, { limit: 1 })).flat(), all);
    assert.deepEqual(await pagesOf(world, { limit: 9 }), [all]);
    assert.deepEqual(
      (await pagesOf(world, { limit: 3, runId: holder.runId })).flat(),
      all.filter((id) => id !== "4"),
    );
    const first = await store.snapshots({ limit: 4 });
    await store.saveSnapshot(snapshotOf(holder, { snapshotId: "new", createdAt: 6_000 }));
    await store.saveSnapshot(snapshotOf(holder, { snapshotId: "old", createdAt: 1 }));
    await store.deleteSnapshot("7");
    await store.deleteSnapshot("5");
    const rest = await store.snapshots({ cursor: first.next as string });
    assert.deepEqual(
      rest.snapshots.map(({ snapshotId }) => snapshotId),
      ["4", "2", "1", "old"],
    );
    await refuses(store.snapshots({ cursor: "somewhere" }), "INVALID_OPTION");
    await refuses(store.snapshots({ cursor: '["x",1]' }), "INVALID_OPTION");
  },

  async "snapshots: a page has 100 by default"(world) {
    const holder = await world.held();
    await Promise.all(
      Array.from({ length: 101 }, (_, i) => world.store.saveSnapshot(snapshotOf(holder, { snapshotId: `s${i}` }))),
    );
    const pages = await pagesOf(world, {});
    assert.deepEqual(
      pages.map(({ length }) => length),
      [100, 1],
    );
    assert.equal(new Set(pages.flat()).size, 101);
  },
};
