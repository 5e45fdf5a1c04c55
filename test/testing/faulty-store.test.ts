import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, test } from "vitest";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { type Fault, faultyStore, storeContract } from "../../src/testing/index.ts";

storeContract(
  "faulty store without faults",
  async ({ clock }) => {
    const inner = memoryStore({ clock });
    return { store: faultyStore(inner, []), close: () => inner.close() };
  },
  { describe, it },
);

const codes = async (promises: Promise<unknown>[]): Promise<string[]> =>
  (await Promise.allSettled(promises)).map((one) =>
    one.status === "fulfilled" ? "ok" : (one.reason.code ?? one.reason.message),
  );

function open(...plan: Fault[]) {
  const inner = memoryStore();
  return { inner, store: faultyStore(inner, plan) };
}

test("the n-th call of all fails, before it is done", async () => {
  const { inner, store } = open({ kind: "fail", call: 2 });
  expect(await codes([store.counters("c"), store.renew("w", 1_000), store.renew("w", 1_000)])).toEqual([
    "ok",
    "STORE_UNAVAILABLE",
    "ok",
  ]);
  expect(store.calls).toEqual(["counters", "renew", "renew"]);
  await inner.close();
});

test("a call that is lost after it was done is done", async () => {
  const counts: number[] = [];
  const { inner, store } = open({ kind: "fail", on: "renew", call: 1, after: true, error: new Error("lost") });
  const innerRenew = inner.renew.bind(inner);
  inner.renew = async (workerId, ttlMs) => {
    counts.push(ttlMs);
    return innerRenew(workerId, ttlMs);
  };
  expect(await codes([store.renew("w", 1), store.stats(), store.renew("w", 2)])).toEqual(["lost", "ok", "ok"]);
  expect(counts).toEqual([1, 2]);
  await inner.close();
});

test("a dead process makes no more calls", async () => {
  const { inner, store } = open({ kind: "fail", fromCall: 2 });
  expect(await codes([store.stats(), store.stats(), store.stats(), store.close()])).toEqual([
    "ok",
    "STORE_UNAVAILABLE",
    "STORE_UNAVAILABLE",
    "STORE_UNAVAILABLE",
  ]);
  await inner.close();
});

test("a fault strikes by method and arguments", async () => {
  const { inner, store } = open({ kind: "fail", on: (method, [name]) => method === "counters" && name === "bad" });
  expect(await codes([store.counters("good"), store.counters("bad"), store.counters("bad"), store.stats()])).toEqual([
    "ok",
    "STORE_UNAVAILABLE",
    "STORE_UNAVAILABLE",
    "ok",
  ]);
  await inner.close();
});

test("a delayed call holds back those of its method, in order, and no others", async () => {
  const gate = Promise.withResolvers<void>();
  const { inner, store } = open({ kind: "delay", on: "counters", call: 1, until: gate.promise });
  const order: string[] = [];
  const note = (name: string) => () => order.push(name);
  const calls = [store.counters("a").then(note("a")), store.counters("b").then(note("b")), store.stats().then(note("stats"))];
  await store.renew("w", 1_000);
  expect(order).toEqual(["stats"]);
  gate.resolve();
  await Promise.all(calls);
  await store.counters("c").then(note("c"));
  expect(order).toEqual(["stats", "a", "b", "c"]);
  await inner.close();
});

test("a delayed answer is of something done", async () => {
  const gate = Promise.withResolvers<void>();
  const { inner, store } = open({ kind: "delay", on: "renew", after: true, until: gate.promise });
  const answer = store.renew("w", 1_000).then(() => "answered");
  await inner.stats();
  expect(await Promise.race([answer, inner.renew("x", 1).then(() => "not yet")])).toBe("not yet");
  gate.resolve();
  expect(await answer).toBe("answered");
  await inner.close();
});

test("a function runs before or after the call, and what is put into the plan later counts", async () => {
  const log: string[] = [];
  const plan: Fault[] = [{ kind: "run", on: "stats", run: () => void log.push("before") }];
  const inner = memoryStore();
  const store = faultyStore(inner, plan);
  const first = store.stats();
  expect(log).toEqual(["before"]);
  await first;
  plan.push({ kind: "run", on: "stats", call: 1, after: true, run: async () => void log.push("after") });
  await store.stats();
  await store.stats();
  expect(log).toEqual(["before", "before", "after", "before"]);
  await inner.close();
});

test("a transaction and the commit in it are two calls, and a store without transactions stays one", async () => {
  const directory = mkdtempSync(join(tmpdir(), "faulty-"));
  const inner = await sqliteStore(join(directory, "runs.db"));
  const plan: Fault[] = [];
  const store = faultyStore(inner, plan);
  const attempt = () => store.transact?.(async (_, commit) => commit([])) as Promise<unknown>;
  expect(await codes([attempt()])).toEqual(["ok"]);
  plan.push({ kind: "fail", on: "transact", call: 1 }, { kind: "fail", on: "commit", call: 1 });
  // The first before anything is begun, the second in the middle: both undo everything.
  expect(await codes([attempt()])).toEqual(["STORE_UNAVAILABLE"]);
  expect(await codes([attempt()])).toEqual(["STORE_UNAVAILABLE"]);
  plan.push({ kind: "fail", on: "transact", call: 1, after: true, error: new Error("lost") });
  expect(await codes([attempt(), attempt()])).toEqual(["lost", "ok"]);
  expect(store.calls).toEqual([
    "transact",
    "commit",
    "transact",
    "transact",
    "commit",
    "transact",
    "transact",
    "commit",
    "commit",
  ]);
  await inner.close();
  rmSync(directory, { recursive: true });
  const { inner: memory, store: without } = open();
  expect([without.within, without.transact]).toEqual([undefined, undefined]);
  await memory.close();
});
