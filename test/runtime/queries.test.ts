// Finding runs: by tags, indexed vars, waits and moments, in pages, and counted.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import {
  askUser,
  complete,
  type CountBy,
  createRuntime,
  defineEffect,
  defineWorkflow,
  fanOut,
  goto,
  type RunQuery,
  type Runtime,
  type Store,
  sleep,
  type,
  waitEvent,
} from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { type TestClock, testClock } from "../../src/testing/index.ts";

const order = defineWorkflow({
  id: "order",
  index: ["order.id", "stage", "order.paid"],
  vars: type<{ order: { id: string | number; paid?: boolean }; stage?: string; answer?: { text: string } }>(),
  entry: "receive",
  nodes: {
    receive: ({ vars }) => {
      vars.stage = "received";
      return goto("ask");
    },
    ask: ({ vars }) => {
      vars.stage = "asked";
      return askUser({ prompt: "Ship?" }, { resultKey: "answer", nextNode: "ship" });
    },
    ship: ({ vars }) => {
      vars.order.paid = true;
      delete vars.stage;
      return complete({ shipped: true });
    },
  },
});

const later = defineWorkflow({
  id: "later",
  entry: "sleep",
  nodes: {
    sleep: () => sleep({ hours: 1 }, { nextNode: "wait" }),
    wait: () => waitEvent("go", { nextNode: "end" }),
    end: () => complete({}),
  },
});

const stores: Record<string, (clock: TestClock) => Promise<Store>> = {
  memory: async (clock) => memoryStore({ clock }),
  sqlite: async (clock) => {
    const directory = mkdtempSync(join(tmpdir(), "queries-"));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    return sqliteStore(join(directory, "runs.db"), { clock });
  },
};

async function open(store: string): Promise<{ runtime: Runtime; clock: TestClock; find(query: RunQuery): Promise<string[]> }> {
  const clock = testClock();
  const opened = await stores[store]!(clock);
  const runtime = await createRuntime({ workflows: [order, later], store: opened, clock, scheduler: false });
  onTestFinished(() => runtime.stop());
  return {
    runtime,
    clock,
    find: async (query) => (await runtime.list({ order: "oldest", ...query })).runs.map(({ runId }) => runId),
  };
}

describe.each(Object.keys(stores))("on %s", (name) => {
  test("a run is found by the vars that its workflow indexes, as they stand now, also when it has ended", async () => {
    const { runtime, find } = await open(name);
    await runtime.run(order, { runId: "1", vars: { order: { id: 17 } } });
    await runtime.run(order, { runId: "2", vars: { order: { id: "17", paid: false } } });
    expect(await find({ vars: { "order.id": 17 } })).toEqual(["1"]);
    expect(await find({ vars: { "order.id": "17" } })).toEqual(["2"]);
    expect(await find({ vars: { stage: "received" } })).toEqual([]);
    expect(await find({ vars: { stage: "asked" } })).toEqual(["1", "2"]);
    expect(await find({ vars: { stage: "asked", "order.paid": false } })).toEqual(["2"]);
    await runtime.respond("2", "yes");
    await runtime.tick("2");
    expect(await find({ vars: { stage: "asked" } })).toEqual(["1"]);
    expect(await find({ vars: { "order.paid": true, "order.id": "17" }, status: "completed" })).toEqual(["2"]);
    expect(await find({ vars: { "order.paid": false } })).toEqual([]);
    // What is not indexed is not found by.
    expect(await find({ vars: { "answer.text": "yes" } })).toEqual([]);
  });

  test("tags come with the start, are shown, and stay", async () => {
    const { runtime, find } = await open(name);
    await runtime.run(order, { runId: "1", vars: { order: { id: 1 } }, tags: ["vip", "eu", "vip"] });
    await runtime.start(later, { runId: "2", tags: ["eu"] });
    expect(await find({ tags: ["eu"] })).toEqual(["1", "2"]);
    expect(await find({ tags: ["eu", "vip"] })).toEqual(["1"]);
    expect((await runtime.get("1")).tags).toEqual(["vip", "eu"]);
    expect((await runtime.list({ tags: ["vip"] })).runs[0]?.tags).toEqual(["vip", "eu"]);
    await runtime.respond("1", "yes");
    await runtime.tick("1");
    expect(await find({ tags: ["vip"], status: "completed" })).toEqual(["1"]);
    expect((await runtime.verify("1")).ok).toBe(true);
    expect(await runtime.cancelAll({ tags: ["eu"] })).toBe(1);
  });

  test("the longest waiting question first; what is due in the next hour; what has not moved since", async () => {
    const { runtime, clock, find } = await open(name);
    const start = clock.now();
    await runtime.start(order, { runId: "first", vars: { order: { id: 1 } } });
    await runtime.run(later, { runId: "sleeper" });
    await clock.advance(60_000);
    await runtime.run(order, { runId: "second", vars: { order: { id: 2 } } });
    await clock.advance(60_000);
    await runtime.tick("first");
    expect(await find({ waitReason: "user", order: "waiting" })).toEqual(["second", "first"]);
    expect(await find({ order: "waiting" })).toEqual(["sleeper", "second", "first"]);
    expect(await find({ order: "due" })).toEqual(["sleeper"]);
    expect(await find({ dueBefore: start + 3_600_000 })).toEqual([]);
    expect(await find({ dueBefore: start + 3_600_001 })).toEqual(["sleeper"]);
    expect(await find({ updatedBefore: start + 60_000 })).toEqual(["sleeper"]);
    expect(await find({ order: "updated" })).toEqual(["first", "second", "sleeper"]);
    expect(await find({ createdAfter: start + 1 })).toEqual(["second"]);
    await clock.advance(3_600_000);
    await runtime.tick("sleeper");
    expect(await find({ order: "due" })).toEqual([]);
    expect(await find({ waitKey: "go", waitReason: "event" })).toEqual(["sleeper"]);
    expect(await find({ order: "waiting" })).toEqual(["second", "first", "sleeper"]);
  });

  test("a page says that there is more, and the next one goes on, whatever happened in between", async () => {
    const { runtime } = await open(name);
    for (let i = 0; i < 7; i++) await runtime.start(later, { runId: String(i) });
    const first = await runtime.list({ limit: 3, order: "oldest" });
    expect(first.next).toEqual(expect.any(String));
    await runtime.start(later, { runId: "7" });
    await runtime.tick("1");
    const second = await runtime.list({ limit: 3, order: "oldest", cursor: first.next! });
    const third = await runtime.list({ limit: 3, order: "oldest", cursor: second.next! });
    expect([first, second, third].flatMap(({ runs }) => runs.map(({ runId }) => runId))).toEqual([..."01234567"]);
    expect(third.next).toBeUndefined();
    await expect(runtime.list({ cursor: first.next! })).rejects.toThrow(/the cursor is of the order "oldest"/);
  });

  test("counts: of a query, and by group", async () => {
    const { runtime } = await open(name);
    for (let i = 0; i < 5; i++)
      await runtime.run(order, { vars: { order: { id: i } }, tags: i % 2 ? ["odd"] : ["even", "also"], actorId: `a${i % 2}` });
    await runtime.start(later);
    expect(await runtime.count()).toBe(6);
    expect(await runtime.count({ vars: { "order.id": 3 } })).toBe(1);
    expect(await runtime.count({ tags: ["none"] })).toBe(0);
    expect(await runtime.count({}, { by: "status" })).toEqual([
      { value: "waiting", count: 5 },
      { value: "running", count: 1 },
    ]);
    expect(await runtime.count({ workflowId: "order" }, { by: "tag" })).toEqual([
      { value: "also", count: 3 },
      { value: "even", count: 3 },
      { value: "odd", count: 2 },
    ]);
    expect(await runtime.count({}, { by: "waitReason" })).toEqual([
      { value: "user", count: 5 },
      { value: null, count: 1 },
    ]);
  });
});

test("children and speculative steps are indexed too", async () => {
  const child = defineWorkflow({
    id: "child",
    index: ["n"],
    vars: type<{ n: number }>(),
    entry: "end",
    nodes: { end: () => complete({}) },
  });
  const add = defineEffect("add", { speculative: true, run: ({ n }: { n: number }) => n + 1 });
  const parent = defineWorkflow({
    id: "parent",
    index: ["n"],
    effects: [add],
    vars: type<{ n: number }>(),
    entry: "count",
    nodes: {
      count: ({ vars }) => (vars.n >= 300 ? goto("fan") : add({ n: vars.n }, { resultKey: "n", nextNode: "count" })),
      fan: () => fanOut(child, { items: [1, 2, 3].map((n) => ({ n })) }, { nextNode: "end" }),
      end: () => complete({}),
    },
  });
  const clock = testClock();
  const store = await stores.sqlite!(clock);
  await using runtime = await createRuntime({ workflows: [parent, child], store, clock, scheduler: false });
  const { runId } = await runtime.run(parent, { vars: { n: 0 } });
  const find = async (query: RunQuery) => (await runtime.list(query)).runs.map((run) => run.runId);
  expect(await find({ vars: { n: 300 } })).toEqual([runId]);
  expect(await find({ vars: { n: 299 } })).toEqual([]);
  expect(await runtime.count({ vars: { n: 2 }, parentRunId: runId, workflowId: "child" })).toBe(1);
});

describe("what is asked is checked", () => {
  // What plain JavaScript passes is any.
  const wrong: [query: any, said: RegExp][] = [
    [{ workflow: "order" }, /Unknown option "workflow" in list\(\).*workflowId/],
    [{ tag: ["x"] }, /Unknown option "tag" in list\(\).*"tags"/],
    [{ updateAfter: 1 }, /Did you mean "updatedAfter"/],
    [{ status: "wating" }, /status is one of .*, not "wating"\. Did you mean "waiting"/],
    [{ status: ["waiting", 5] }, /status is one of .*, not "5"/],
    [{ waitReason: "users" }, /waitReason is one of .*Did you mean "user"/],
    [{ order: "newst" }, /order is one of newest, .*Did you mean "newest"/],
    [{ workflowId: 5 }, /workflowId is a well-formed text, or a list of them/],
    [{ workflowId: [null] }, /workflowId is a well-formed text, or a list of them/],
    [{ sessionId: 5 }, /sessionId is a well-formed text/],
    [{ idPrefix: ["a"] }, /idPrefix is a well-formed text/],
    [{ idPrefix: "\ud83d" }, /idPrefix is a well-formed text/],
    [{ cursor: 7 }, /cursor is a well-formed text/],
    [{ cursor: "7" }, /"7" is no cursor/],
    [{ createdAfter: "yesterday" }, /createdAfter is a moment, in milliseconds since 1970/],
    [{ dueBefore: new Date(0) }, /dueBefore is a moment.*getTime\(\)/],
    [{ updatedAfter: Number.NaN }, /updatedAfter is a moment/],
    [{ createdAfter: 5, createdBefore: 5 }, /createdBefore is not after createdAfter/],
    [{ blocked: "yes" }, /blocked is true or false/],
    [{ tags: "vip" }, /tags is a list/],
    [{ tags: [5] }, /tags is a list/],
    [{ tags: [""] }, /tags is a list/],
    [{ vars: "order.id" }, /vars is an object/],
    [{ vars: [1] }, /vars is an object/],
    [{ vars: { "order.id": null } }, /vars\["order\.id"\] is a text, a number, true or false/],
    [{ vars: { "order.id": { $gt: 5 } } }, /nothing else is indexed/],
    [{ vars: { a: Number.POSITIVE_INFINITY } }, /nothing else is indexed/],
    [{ vars: { a: "x".repeat(501) } }, /longer than 500 characters/],
    [{ limit: 0 }, /limit must be a whole number from 1/],
    [{ limit: "10" }, /limit must be a whole number from 1/],
    [{ workflowId: Array.from({ length: 1_001 }, String) }, /more than 1000 values/],
  ];

  test.each(wrong)("%j", async (query, said) => {
    const { runtime } = await open("memory");
    for (const call of [() => runtime.list(query), () => runtime.count(query)]) {
      const error = await call().then(
        () => undefined,
        (thrown) => thrown,
      );
      if (error === undefined) {
        // A count has no pages.
        expect(query).toHaveProperty("cursor");
        continue;
      }
      expect(error.code).toBe("INVALID_OPTION");
      expect(error.message.replace("count()", "list()")).toMatch(said);
    }
  });

  test("a group that there is not, and a page of a command for all", async () => {
    const { runtime } = await open("memory");
    await expect(runtime.count({}, { by: "stat" as CountBy })).rejects.toThrow(/by is one of status, .*, not "stat"/);
    await expect(runtime.count({}, { bye: 1 } as never)).rejects.toThrow(/Unknown option "bye" in count\(\)/);
    for (const call of [runtime.cancelAll({ limit: 5 }), runtime.pauseAll({ cursor: "x" }), runtime.retryAll({ order: "due" })])
      await expect(call).rejects.toThrow(/INVALID_OPTION: Unknown option "(limit|cursor|order)"/);
  });

  test("tags at the start, and the index of a workflow", async () => {
    const { runtime } = await open("memory");
    for (const tags of ["vip", [""], ["x".repeat(201)], [5], ["\ud800"], Array.from({ length: 65 }, String)] as never[])
      await expect(runtime.start(later, { tags })).rejects.toMatchObject({ code: "INVALID_OPTION", fields: { option: "tags" } });
    expect(await runtime.count()).toBe(0);
  });
});
