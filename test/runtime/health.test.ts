// What a runtime tells of itself: events once they are durable, and its health.
import { afterEach, expect, test } from "vitest";
import { askUser, complete, createRuntime, defineEffect, defineWorkflow, goto, type Runtime, sleep } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { type Fault, faultyStore, type TestClock, testClock, testIds } from "../../src/testing/index.ts";
import { stopped } from "../scenarios/harness.ts";
import { patient, turns } from "./patient-clock.ts";

const opened: { runtime: Runtime; clock: TestClock }[] = [];
afterEach(async () => {
  for (const { runtime, clock } of opened.splice(0)) await stopped(runtime, clock);
});

const never = new Promise<never>(() => undefined);
const flow = defineWorkflow({
  id: "flow",
  entry: "a",
  nodes: {
    a: ({ vars }) => {
      vars.seen = true;
      return goto("b");
    },
    b: () => askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "c" }),
    c: ({ vars }) => complete(vars),
  },
});

async function open(options: Record<string, any> = {}) {
  const clock = patient(testClock());
  const faults: Fault[] = [];
  const inner = memoryStore({ clock });
  const store = faultyStore(inner, faults);
  const runtime = await createRuntime({ workflows: [flow], store, clock, ids: testIds(3), ...options });
  opened.push({ runtime, clock });
  return { clock, faults, inner, store, runtime };
}

test("every record is told, once and in order, from the run's first", async () => {
  const { runtime, clock } = await open();
  const told: Record<string, number[]> = {};
  runtime.on("record", ({ runId, seq }) => {
    told[runId] ??= [];
    told[runId].push(seq);
  });
  const { runId } = await runtime.start(flow);
  await clock.advance(10);
  await runtime.respond(runId, "yes");
  await clock.advance(10);
  const run = await runtime.run(flow);
  for (const id of [runId, run.runId]) expect(told[id]).toEqual((await runtime.ledger(id)).map(({ seq }) => seq));
});

test("the end of a run is told once, also when its records are committed before its lease is given up", async () => {
  const time = testClock();
  let lateMs = 0;
  // A step that takes long: what is to be written is written at once.
  const slow = defineWorkflow({
    id: "slow",
    entry: "a",
    nodes: {
      a: () => goto("b"),
      b: () => {
        lateMs += 20;
        return complete();
      },
    },
  });
  const clock = { now: () => time.now() + lateMs, setTimer: time.setTimer.bind(time) };
  const { runtime, store } = await open({ workflows: [slow], clock });
  const rows: string[] = [];
  runtime.on("run", ({ status, seq }) => rows.push(`${status} ${seq}`));
  await runtime.run(slow);
  expect(store.calls.filter((call) => call === "commit")).toHaveLength(2);
  expect(rows).toEqual(["running 0", "completed 2"]);
});

test("nothing is told before it is durable, and nothing of a commit that failed", async () => {
  const { runtime, clock, faults, inner } = await open();
  const told: number[] = [];
  const rows: string[] = [];
  const ahead: number[] = [];
  runtime.on("record", ({ runId, seq }) => {
    told.push(seq);
    void inner.load(runId).then((loaded) => {
      if ((loaded?.row.seq ?? -1) < seq) ahead.push(seq);
    });
  });
  runtime.on("run", ({ status, seq }) => rows.push(`${status} ${seq}`));
  let release: () => void = () => undefined;
  faults.push({ kind: "delay", on: "commit", call: 1, until: new Promise<void>((resolve) => (release = resolve)) });
  const { runId } = await runtime.start(flow);
  await turns();
  expect(told.filter((seq) => seq > 0)).toEqual([]);
  release();
  await clock.advance(10);
  expect(told.filter((seq) => seq > 0)).toEqual([1, 2]);
  expect(rows.at(-1)).toBe("waiting 2");
  faults.push({ kind: "fail", on: "commit", call: 1 });
  await runtime.respond(runId, "yes");
  await turns();
  expect(told.filter((seq) => seq > 2)).toEqual([]);
  await clock.advance(5_000);
  expect(told.filter((seq) => seq > 0)).toEqual([1, 2, 3, 4]);
  expect(rows.at(-1)).toBe("completed 4");
  expect(ahead).toEqual([]);
});

test("a listener that throws harms nobody, and one that is taken away hears nothing more", async () => {
  const logged: string[] = [];
  const log = { debug() {}, info() {}, warn() {}, error: (message: string) => void logged.push(message) };
  const { runtime, clock } = await open({ log });
  let heard = 0;
  runtime.on("record", () => {
    throw new Error("ha");
  });
  runtime.on("run", () => {
    throw new Error("ha");
  });
  const count = (): void => {
    heard += 1;
  };
  const [first, second] = [runtime.on("record", count), runtime.on("record", count)];
  const { runId } = await runtime.start(flow);
  await clock.advance(10);
  expect(heard).toBeGreaterThanOrEqual(4);
  expect(logged).toContain('a listener to "record" threw');
  expect(logged).toContain('a listener to "run" threw');
  first();
  first();
  const before = heard;
  await runtime.respond(runId, "yes");
  await clock.advance(10);
  expect(heard - before).toBe(2);
  second();
  expect((await runtime.get(runId)).status).toBe("completed");
});

test("a listener that changes what it is told changes nothing that is stored or done", async () => {
  const { runtime, clock } = await open();
  runtime.on("record", (record) => {
    const { data } = record as any;
    if (data.result) data.result.text = "changed";
    if (data.payload) data.payload.text = "changed";
    for (const operation of data.patch ?? []) operation.value = "changed";
  });
  runtime.on("run", (row) => {
    (row as any).status = "failed";
  });
  const { runId } = await runtime.start(flow);
  await clock.advance(10);
  await runtime.respond(runId, "yes");
  await clock.advance(10);
  expect(await runtime.get(runId)).toMatchObject({ status: "completed", output: { seen: true, answer: { text: "yes" } } });
  expect((await runtime.verify(runId)).problems).toEqual([]);
});

test("problems are told to listeners and kept for health, newest first and not for ever", async () => {
  const { runtime, clock, faults } = await open();
  const problems: any[] = [];
  runtime.on("error", (problem) => problems.push(problem));
  const down: Fault = { kind: "fail", on: "claim" };
  faults.push(down);
  await clock.advance(3_600_000);
  faults.splice(0);
  expect(problems.length).toBeGreaterThan(20);
  expect(problems[0]).toMatchObject({ message: expect.stringMatching(/due runs/), code: "STORE_UNAVAILABLE" });
  const { errors, counters } = await runtime.health();
  expect(errors).toHaveLength(20);
  expect(errors[0]).toEqual(problems.at(-1));
  expect(counters.errors).toBe(problems.length);
});

test("on() refuses what it does not know", async () => {
  const { runtime } = await open();
  expect(() => runtime.on("records" as any, () => undefined)).toThrow(/INVALID_OPTION.*Did you mean "record"\?/);
  expect(() => runtime.on("record", 7 as any)).toThrow(/INVALID_OPTION/);
});

test("all is well, and the counters count", async () => {
  const { runtime, clock } = await open();
  const { runId } = await runtime.start(flow);
  await clock.advance(10);
  await runtime.respond(runId, "yes");
  await clock.advance(10);
  const health = await runtime.health();
  expect(health).toMatchObject({ ok: true, problems: [], driving: 0, executing: [], errors: [], concurrency: 100 });
  expect(health.store).toMatchObject({ reachable: true, overdueMs: 0 });
  expect(health.counters).toMatchObject({ parked: 1, completed: 1, failed: 0, errors: 0 });
  expect(health.leaseUntil).toBeGreaterThan(health.now);
});

test("runs that are due and not driven are a problem", async () => {
  const { runtime, clock } = await open({ scheduler: false });
  await runtime.start(flow);
  expect(await runtime.health()).toMatchObject({ ok: true });
  await clock.advance(20_000);
  const health = await runtime.health();
  expect(health.ok).toBe(false);
  expect(health.store.overdueMs).toBe(20_000);
  expect(health.problems).toEqual([
    expect.stringMatching(/^1 run is due and not driven, the first for 20 s \(this runtime drives none/),
  ]);
});

test("blocked and quarantined runs are problems", async () => {
  const missing = defineWorkflow({
    id: "missing",
    entry: "a",
    nodes: { a: (): any => ({ effect: { type: "nobody", payload: {} }, nextNode: "b" }), b: () => complete() },
  });
  const { runtime, clock, inner } = await open({ workflows: [flow, missing] });
  await runtime.start(missing);
  await clock.advance(10);
  let health = await runtime.health();
  expect(health).toMatchObject({ ok: false, problems: [expect.stringMatching(/^1 run is blocked/)], counters: { blocked: 1 } });
  const { runId } = await runtime.start(flow);
  await clock.advance(10);
  // As a worker does with a run that it finds damaged.
  await inner.renew("other", 60_000);
  const [claimed] = await inner.claim({ workerId: "other", workflows: ["flow"], fingerprint: "x" }, { limit: 1, runId });
  const blocked = { code: "RECORD_CORRUPT", problem: "p", fingerprint: "x", quarantine: true };
  await inner.release(runId, claimed!.lease!, { blocked });
  health = await runtime.health();
  expect(health.problems).toEqual([
    expect.stringMatching(/^1 run is damaged, and quarantined/),
    expect.stringMatching(/^1 run is blocked/),
  ]);
});

test("a store that is down is a problem, and no rejection", async () => {
  const { runtime, faults, clock } = await open();
  faults.push({ kind: "fail" });
  expect(await runtime.health()).toMatchObject({ ok: false, store: { reachable: false, overdueMs: 0 } });
  await clock.advance(40_000);
  const health = await runtime.health();
  expect(health.store.stats).toBeUndefined();
  expect(health.problems).toEqual([
    expect.stringMatching(/cannot be reached/),
    expect.stringMatching(/has refused work for 40 s: STORE_UNAVAILABLE/),
    expect.stringMatching(/lease has run out/),
  ]);
  faults.splice(0);
  await clock.advance(40_000);
  expect(await runtime.health()).toMatchObject({ ok: true, store: { reachable: true } });
});

test("what executes is listed, the oldest first, also what keeps itself alive for ever", async () => {
  const slow = defineEffect("slow", {
    policy: { timeoutMs: 60_000 },
    run: (_: any, { clock, progress, signal }) => {
      const again = (): void => {
        progress();
        if (!signal.aborted) clock.setTimer(again, 30_000);
      };
      again();
      return never;
    },
  });
  const works = defineWorkflow({
    id: "works",
    entry: "a",
    effects: [slow],
    nodes: { a: () => slow({}, { nextNode: "b" }), b: () => sleep(1, { nextNode: "c" }), c: () => complete() },
  });
  const { runtime, clock } = await open({ workflows: [works] });
  const first = await runtime.start(works);
  await clock.advance(0);
  await clock.advance(3_600_000);
  const second = await runtime.start(works);
  await clock.advance(0);
  await clock.advance(60_000);
  expect((await runtime.health()).executing).toMatchObject([
    { runId: first.runId, type: "slow", attempt: 1, effectId: "1", forMs: 3_660_000 },
    { runId: second.runId, forMs: 60_000 },
  ]);
});
