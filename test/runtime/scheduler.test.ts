// How the scheduler shares what there is, and what it does while its store is away.
import { afterEach, expect, test } from "vitest";
import {
  any,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  type Runtime,
  sleep,
  type Store,
  waitEvent,
} from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { type Fault, faultyStore, type TestClock, testClock, testIds } from "../../src/testing/index.ts";
import { callStore, wrapStore } from "../../src/testing/wrap-store.ts";
import { stopped } from "../scenarios/harness.ts";
import { patient, turns } from "./patient-clock.ts";

const opened: { runtime: Runtime; clock: TestClock }[] = [];
afterEach(async () => {
  for (const { runtime, clock } of opened.splice(0)) await stopped(runtime, clock);
});

async function open(options: Record<string, any>) {
  const clock = patient(testClock());
  const faults: Fault[] = [];
  const store = faultyStore(memoryStore({ clock }), faults);
  const runtime = await createRuntime({ store, clock, ids: testIds(3), ...options });
  opened.push({ runtime, clock });
  return { clock, faults, store, runtime };
}

function slots(plan: (call: any) => any = (call) => call({}, { resultKey: "got", nextNode: "b" })) {
  const calls: { runId: string; settle: (value: unknown) => void; signal: AbortSignal }[] = [];
  const limited = defineEffect("limited", {
    run: (_: any, { runId, signal }) =>
      new Promise((settle, reject) => {
        calls.push({ runId, settle, signal });
        signal.addEventListener("abort", () => reject(signal.reason));
      }),
  });
  const flow = defineWorkflow({
    id: "flow",
    entry: "a",
    effects: [limited],
    nodes: { a: () => plan(limited), b: () => complete() },
  } as any);
  return { calls, flow };
}

test("no more effects of a type execute than may, and those that wait begin in turn", async () => {
  const { calls, flow } = slots();
  const { runtime, clock } = await open({ workflows: [flow], scheduler: { effectConcurrency: { limited: 2 } } });
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) ids.push((await runtime.start(flow)).runId);
  await clock.advance(10);
  for (let done = 0; done < 5; done++) {
    expect(calls).toHaveLength(Math.min(5, done + 2));
    calls[done]?.settle(done);
    await clock.advance(0);
  }
  await clock.advance(10);
  expect(calls.map(({ runId }) => runId)).toEqual(ids);
  for (const runId of ids) expect((await runtime.get(runId)).status).toBe("completed");
});

test("a run that is cancelled while it waits for a slot leaves its place to the next", async () => {
  const { calls, flow } = slots();
  const { runtime, clock } = await open({ workflows: [flow], scheduler: { effectConcurrency: { limited: 1 } } });
  const [first, second, third] = [await runtime.start(flow), await runtime.start(flow), await runtime.start(flow)];
  await clock.advance(10);
  expect(calls).toHaveLength(1);
  await runtime.cancel(second!.runId);
  await clock.advance(10);
  expect((await runtime.get(second!.runId)).status).toBe("cancelled");
  calls[0]?.settle(1);
  await clock.advance(60_000);
  expect((await runtime.get(first!.runId)).status).toBe("completed");
  expect(calls.map(({ runId }) => runId)).toEqual([first!.runId, third!.runId]);
  calls[1]?.settle(2);
  await clock.advance(10);
  expect((await runtime.get(third!.runId)).status).toBe("completed");
});

test("so does a member whose group was won by another, and an attempt that is cancelled gives its slot back", async () => {
  const { calls, flow } = slots((limited) => any([limited({}), waitEvent("win")], { resultKey: "got", nextNode: "b" }));
  const { runtime, clock } = await open({ workflows: [flow], scheduler: { effectConcurrency: { limited: 1 } } });
  const [first, second, third] = [await runtime.start(flow), await runtime.start(flow), await runtime.start(flow)];
  await clock.advance(10);
  await runtime.signal(second!.runId, "win");
  await clock.advance(10);
  expect((await runtime.get(second!.runId)).status).toBe("completed");
  await runtime.cancel(first!.runId);
  await clock.advance(60_000);
  expect((await runtime.get(first!.runId)).status).toBe("cancelled");
  expect(calls.map(({ runId }) => runId)).toEqual([first!.runId, third!.runId]);
});

for (const what of ["a store", "claims and commits"]) {
  test(`while ${what} fails for 30 s it is asked ever less often, and all runs end afterwards`, async () => {
    let executed = 0;
    const work = defineEffect("work", { run: async () => ++executed });
    const flow = defineWorkflow({
      id: "flow",
      entry: "a",
      effects: [work],
      nodes: {
        a: () => sleep(5_000, { nextNode: "b" }),
        b: () => work({}, { resultKey: "got", nextNode: "c" }),
        c: () => complete(),
      },
    });
    const { runtime, clock, faults, store } = await open({ workflows: [flow] });
    const ids: string[] = [];
    for (let i = 0; i < 10; i++) ids.push((await runtime.start(flow)).runId);
    await clock.advance(1_000);
    const [calls, looks] = [store.calls.length, (await runtime.health()).counters.looks];
    faults.push({ kind: "fail", on: (method) => what === "a store" || method === "claim" || method === "commit" });
    await clock.advance(30_000);
    expect(store.calls.length - calls).toBeLessThan(60);
    expect((await runtime.health()).counters.looks - looks).toBeLessThan(12);
    faults.splice(0);
    await clock.advance(60_000);
    for (const runId of ids) expect((await runtime.get(runId)).status).toBe("completed");
    expect(executed).toBe(10);
    expect(await runtime.health()).toMatchObject({ ok: true });
  });
}

test("runs under way when the store goes away end once, when it is back", async () => {
  const executed: Record<string, number> = {};
  const work = defineEffect("work", {
    policy: { backoff: { initialMs: 10, jitter: 0 } },
    run: (_: any, { runId, clock }) =>
      new Promise<string>((resolve) => {
        executed[runId] = (executed[runId] ?? 0) + 1;
        clock.setTimer(() => resolve("done"), 3_000);
      }),
  });
  const flow = defineWorkflow({
    id: "flow",
    entry: "a",
    effects: [work],
    nodes: { a: () => work({}, { resultKey: "got", nextNode: "b" }), b: () => complete() },
  });
  const { runtime, clock, faults, store } = await open({ workflows: [flow] });
  const ids: string[] = [];
  for (let i = 0; i < 5; i++) ids.push((await runtime.start(flow)).runId);
  await clock.advance(1_000);
  const calls = store.calls.length;
  faults.push({ kind: "fail" });
  await clock.advance(30_000);
  expect(store.calls.length - calls).toBeLessThan(100);
  faults.splice(0);
  await clock.advance(120_000);
  for (const runId of ids) {
    expect(await runtime.get(runId)).toMatchObject({ status: "completed" });
    expect(executed[runId]).toBeLessThanOrEqual(2);
  }
});

test("an idle scheduler looks once in its poll, and a moment that comes wakes it in time", async () => {
  const flow = defineWorkflow({
    id: "flow",
    entry: "a",
    nodes: { a: () => sleep(90_500, { nextNode: "b" }), b: () => complete() },
  });
  const { runtime, clock } = await open({ workflows: [flow], scheduler: { pollMs: 10_000 } });
  const { runId } = await runtime.start(flow);
  await clock.advance(500);
  const { looks } = (await runtime.health()).counters;
  await clock.advance(89_999);
  expect((await runtime.get(runId)).status).toBe("waiting");
  expect((await runtime.health()).counters.looks - looks).toBeLessThanOrEqual(10);
  await clock.advance(1);
  await clock.advance(0);
  expect((await runtime.get(runId)).status).toBe("completed");
});

test("a run that is claimed while the runtime stops is handed back, with nothing begun", async () => {
  const clock = testClock();
  const inner = memoryStore({ clock });
  const claimed = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  const store = wrapStore(inner, async (method, args) => {
    // Looked into below.
    if (method === "close") return;
    const answer = await callStore(inner, method, args);
    if (method === "claim" && (answer as unknown[]).length > 0) {
      claimed.resolve();
      await gate.promise;
    }
    return answer;
  });
  const { calls, flow } = slots();
  const runtime = await createRuntime({ store, clock, ids: testIds(3), workflows: [flow] });
  const { runId } = await runtime.start(flow);
  await claimed.promise;
  const stopping = stopped(runtime, clock);
  gate.resolve();
  await stopping;
  // An intent without a call would be found uncertain, by whoever comes next.
  expect((await inner.records(runId, 0, 100)).map(({ header }) => JSON.parse(header).kind)).toEqual(["run_started"]);
  expect(calls).toHaveLength(0);
  expect((await inner.load(runId))?.lease).toBeUndefined();
  await inner.close();
});

test("an effect that outlasts the drain of stop() is given up, which is no error", async () => {
  const errors: unknown[] = [];
  const ignore = (): void => undefined;
  const log = { debug: ignore, info: ignore, warn: ignore, error: (...said: unknown[]) => errors.push(said) };
  const { calls, flow } = slots();
  const { runtime, clock } = await open({ workflows: [flow], log });
  const problems: unknown[] = [];
  runtime.on("error", (problem) => problems.push(problem));
  await runtime.start(flow);
  await clock.advance(0);
  await stopped(runtime, clock);
  expect(calls.map(({ signal }) => signal.aborted)).toEqual([true]);
  expect([...errors, ...problems]).toEqual([]);
});

test("a handler that waited for its transaction for longer than the lease lasts is called once the run is surely held again", async () => {
  const clock = testClock();
  let suspendedMs = 0;
  const late = { ...clock, now: () => clock.now() + suspendedMs, setTimer: clock.setTimer.bind(clock) };
  const inner = memoryStore({ clock: late });
  const said: string[] = [];
  const gate = Promise.withResolvers<void>();
  const store: Store = {
    ...wrapStore(inner, (method, args) => {
      if (method === "renew" || (method === "commit" && suspendedMs > 0)) said.push(method);
      return callStore(inner, method, args);
    }),
    transact: async (work) => {
      said.push("begin");
      await gate.promise;
      return work({}, (transitions) => inner.commit(transitions));
    },
  };
  const book = defineEffect("book", { transactional: true, run: () => void said.push("handler") });
  const flow = defineWorkflow({
    id: "flow",
    entry: "a",
    effects: [book],
    nodes: { a: () => book({}, { nextNode: "b" }), b: () => complete() },
  });
  const runtime = await createRuntime({ store, clock: late, ids: testIds(3), workflows: [flow] });
  opened.push({ runtime, clock });
  const { runId } = await runtime.start(flow);
  await turns(40);
  suspendedMs = 60_000;
  gate.resolve();
  await turns(40);
  expect(said).toEqual(["renew", "begin", "renew", "commit", "begin", "handler", "commit"]);
  expect((await runtime.get(runId)).status).toBe("completed");
});

test("what is due and given to nobody, since another has it locked, is not asked for in a hot loop", async () => {
  const clock = patient(testClock());
  const inner = memoryStore({ clock });
  let claims = 0;
  const store = wrapStore(inner, (method, args) => {
    if (method === "nextDue") return Promise.resolve({ at: clock.now(), now: clock.now() });
    if (method !== "claim") return callStore(inner, method, args);
    claims += 1;
    return Promise.resolve([]);
  });
  const runtime = await createRuntime({ store, clock, ids: testIds(3), workflows: [] });
  opened.push({ runtime, clock });
  for (let ms = 0; ms < 2_000; ms += 50) await clock.advance(50);
  expect(claims).toBeGreaterThan(5);
  expect(claims).toBeLessThan(20);
});
