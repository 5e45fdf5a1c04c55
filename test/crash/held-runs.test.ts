// A run that is leased to a living worker is driven, or soon free again: nothing is held by nobody.
import { createRuntime, defineEffect, defineWorkflow, complete, type Store } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { expect, test } from "vitest";
import { type Fault, faultyStore } from "../../src/testing/faulty-store.ts";
import { eventually } from "../eventually.ts";
import { fastClock } from "./workload.ts";
import { keptStore } from "../kept-store.ts";

const clock = fastClock(100);
const plain = defineWorkflow({ id: "plain", entry: "a", nodes: { a: () => complete({ done: true }) } });

test("a damaged run is set aside even when the store fails at that moment", async () => {
  const inner = memoryStore({ clock });
  const faults: Fault[] = [{ kind: "fail", on: "release", call: 1 }];
  const damaged: Store = {
    ...faultyStore(inner, []),
    claim: async (...given) =>
      (await inner.claim(...given)).map((loaded) => ({
        ...loaded,
        tail: loaded.tail.map((record) => ({ ...record, header: "{" })),
      })),
  };
  await using runtime = await createRuntime({ store: faultyStore(damaged, faults), clock, workflows: [plain] });
  await runtime.start(plain, { runId: "damaged" });
  const { blocked, holder } = await eventually(async () => (await runtime.list()).runs.find((run) => run.blocked));
  expect([blocked?.code, blocked?.quarantine, holder]).toEqual(["RECORD_CORRUPT", true, undefined]);
});

test("a tick whose claim lost its answer may be repeated", async () => {
  const faults: Fault[] = [{ kind: "fail", on: "claim", call: 1, after: true }];
  const store = faultyStore(memoryStore({ clock }), faults);
  await using runtime = await createRuntime({ store, clock, workflows: [plain], scheduler: false });
  await runtime.start(plain, { runId: "ticked" });
  await expect(runtime.tick("ticked")).rejects.toThrow("STORE_UNAVAILABLE");
  expect((await runtime.tick("ticked")).status).toBe("completed");
});

test("no more runs are driven at a time than the scheduler's concurrency", async () => {
  let now = 0;
  let most = 0;
  const count = defineEffect("count", {
    run: async () => {
      now += 1;
      most = Math.max(most, now);
      await new Promise((resolve) => setImmediate(resolve));
      now -= 1;
    },
  });
  const counted = defineWorkflow({
    id: "counted",
    effects: [count],
    entry: "a",
    nodes: { a: () => count({}, { nextNode: "b" }), b: () => complete({}) },
  });
  const options = { store: memoryStore({ clock }), clock, workflows: [counted] };
  const kept: Store = keptStore(options.store);
  {
    await using starter = await createRuntime({ ...options, store: kept, scheduler: false });
    for (let n = 0; n < 20; n++) await starter.start(counted);
  }
  await using runtime = await createRuntime({ ...options, scheduler: { concurrency: 3 } });
  await eventually(async () => (await runtime.list({ status: "completed" })).runs.length === 20);
  expect(most).toBe(3);
});

test("a runtime stopped while runs begin waits for them, and leaves none held", async () => {
  const store = memoryStore({ clock });
  const kept: Store = keptStore(store);
  const first = await createRuntime({ store: kept, clock, workflows: [plain] });
  const begun = Promise.allSettled(Array.from({ length: 5 }, (_, n) => first.run(plain, { runId: `begun ${n}` })));
  await Promise.resolve();
  await first.stop();
  const codes = (await begun).map((settled) => (settled.status === "fulfilled" ? settled.value.status : settled.reason.code));
  for (const code of codes) expect(["completed", "running", "RUNTIME_STOPPED", "STORE_CLOSED"]).toContain(code);
  const { runs } = await store.query({});
  expect(runs.filter(({ holder }) => holder !== undefined)).toEqual([]);
  await using second = await createRuntime({ store, clock, workflows: [plain] });
  for (const { runId } of runs) expect(await second.result(runId)).toEqual({ done: true });
});
