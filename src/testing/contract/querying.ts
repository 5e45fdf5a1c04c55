/** Lists of runs: what each filter finds. */
import assert from "node:assert/strict";
import type { RunPage, RunQuery, Scalar } from "../../kernel/query.ts";
import { type Case, finish, goOn, park, type RunOptions, same, stored, type World } from "./world.ts";

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

  async "query: filters by one of several workflows, by version, session and actor"(world) {
    const options: RunOptions[] = [
      { workflowId: "a", sessionId: "s", actorId: "ada" },
      { workflowId: "b", sessionId: "s", actorId: "bob" },
      { workflowId: "c", sessionId: "t", actorId: "ada" },
      { workflowId: "a" },
    ];
    const runs = options.map((one, i) => stored(world.newRun({ runId: String(i), ...one })));
    (runs[3] as (typeof runs)[number]).row.version = "2";
    await world.store.create(runs);
    const find = finder(world);
    assert.deepEqual(await find({ workflowId: ["a", "c"] }), ["0", "2", "3"]);
    assert.deepEqual(await find({ workflowId: ["c", "c", "none"] }), ["2"]);
    assert.deepEqual(await find({ workflowId: [] }), []);
    assert.deepEqual(await find({ workflowId: Array.from({ length: 40 }, (_, i) => (i === 39 ? "b" : `x${i}`)) }), ["1"]);
    assert.deepEqual(await find({ version: "2" }), ["3"]);
    assert.deepEqual(await find({ version: "1", workflowId: "a" }), ["0"]);
    assert.deepEqual(await find({ sessionId: "s" }), ["0", "1"]);
    assert.deepEqual(await find({ actorId: "ada" }), ["0", "2"]);
    assert.deepEqual(await find({ actorId: "ada", sessionId: "t" }), ["2"]);
    assert.deepEqual(await find({ sessionId: "" }), []);
    assert.deepEqual(await find({ actorId: "eve" }), []);
  },

  async "query: filters by all of several tags, which a run has from its beginning and keeps after its end"(world) {
    const plain = await world.held({ runId: "plain" });
    const one = await world.held({ runId: "one", tags: ["vip"] });
    const both = await world.held({ runId: "both", tags: ["vip", "eu", "100 %", "'"] });
    const find = finder(world);
    assert.deepEqual(await find({ tags: ["vip"] }), ["both", "one"]);
    assert.deepEqual(await find({ tags: ["vip", "eu"] }), ["both"]);
    assert.deepEqual(await find({ tags: ["eu", "vip", "eu"] }), ["both"]);
    assert.deepEqual(await find({ tags: ["'", "100 %"] }), ["both"]);
    assert.deepEqual(await find({ tags: ["VIP"] }), []);
    assert.deepEqual(await find({ tags: ["vi"] }), []);
    assert.deepEqual(await find({ tags: ["vip", "us"] }), []);
    assert.deepEqual(await find({ tags: [] }), ["both", "one", "plain"]);
    const child = stored(world.newRun({ runId: "child", tags: ["eu"], parent: { runId: "plain", effectId: "1" } }));
    await world.store.commit([plain.next([goOn()], { start: [child] }), one.next([goOn()]), both.next([finish()])]);
    assert.deepEqual(await find({ tags: ["eu"] }), ["both", "child"]);
    const listed = (await world.store.query({ tags: ["eu"], order: "oldest" })).runs.map(({ tags }) => tags);
    assert.deepEqual(listed, [["vip", "eu", "100 %", "'"], ["eu"]]);
    assert.deepEqual((await world.load("both")).row.tags, ["vip", "eu", "100 %", "'"]);
    assert.equal((await world.load("plain")).row.tags, undefined);
  },

  async "query: filters by indexed vars as they stand now; 1, a text of it and true are three values"(world) {
    const index = ["note", "order.id"];
    const values = [1, "1", true, "true", 1.5, "", "a'b", "\u0000", "é", -1e21] as Scalar[];
    const holders = [];
    for (const [i, id] of values.entries()) holders.push(await world.held({ runId: `r${i}`, index, vars: { order: { id } } }));
    await world.held({ runId: "not indexed", vars: { order: { id: 1 } } });
    await world.held({ runId: "no scalar", index, vars: { order: { id: [1] } } });
    const find = finder(world);
    for (const [i, value] of values.entries()) assert.deepEqual(await find({ vars: { "order.id": value } }), [`r${i}`]);
    for (const value of [0, "11", false, "e\u0301"]) assert.deepEqual(await find({ vars: { "order.id": value } }), []);
    assert.deepEqual(await find({ vars: { "order.id": 1, note: 1 } }), []);
    assert.deepEqual(await find({ vars: { order: 1 } }), []);
    const [first, second] = holders as [(typeof holders)[number], (typeof holders)[number]];
    await world.store.commit([first.next([goOn(5)]), second.next([goOn("5")])]);
    assert.deepEqual(await find({ vars: { note: 5 } }), ["r0"]);
    assert.deepEqual(await find({ vars: { "order.id": 1, note: 5 } }), ["r0"]);
    await world.store.commit([first.next([goOn("5")]), second.next([goOn([5])])]);
    assert.deepEqual(await find({ vars: { note: 5 } }), []);
    assert.deepEqual(await find({ vars: { note: "5" } }), ["r0"]);
    await world.store.commit([first.next([finish()], { release: true })]);
    assert.deepEqual(await find({ vars: { note: "5" }, status: "completed" }), ["r0"]);
    const child = stored(world.newRun({ runId: "child", index, vars: { note: "5" } }));
    await world.store.commit([second.next([goOn(6)], { start: [child] })]);
    assert.deepEqual(await find({ vars: { note: "5" } }), ["child", "r0"]);
    assert.deepEqual(await find({ vars: {} }), ["child", "no scalar", "not indexed", ...values.map((_, i) => `r${i}`)]);
  },

  async "query: a commit that was made already does not bring back indexed vars that have changed since"(world) {
    const holder = await world.held({ runId: "r", index: ["note"], vars: {} });
    const first = holder.next([goOn(1)]);
    await world.store.commit([first]);
    await world.store.commit([holder.next([goOn(2)])]);
    await world.store.commit([first]);
    const find = finder(world);
    assert.deepEqual([await find({ vars: { note: 1 } }), await find({ vars: { note: 2 } })], [[], ["r"]]);
  },
};

/** The ids that a query finds on its first page, sorted. */
function finder(world: World): (query: RunQuery) => Promise<string[]> {
  return async (query) => (await world.store.query(query)).runs.map(({ runId }) => runId).sort();
}
