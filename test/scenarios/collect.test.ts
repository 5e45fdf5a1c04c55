// Groups that collect failures, what becomes of the losers of a race, and which members a record says were closed.
import {
  all,
  any,
  askUser,
  complete,
  definite,
  defineEffect,
  defineWorkflow,
  fail,
  goto,
  permanent,
  sleep,
  type StepPlan,
  subworkflow,
  waitEvent,
} from "abstractruntime";
import { expect } from "vitest";
import { scenario, type World } from "./harness.ts";

const never = new Promise<never>(() => undefined);
const to = { resultKey: "got", nextNode: "end" };
const collect = { ...to, onFailure: "collect" } as any;

function grouped(plan: (vars: any) => any, effects: readonly any[] = [], nodes: Record<string, any> = {}) {
  return defineWorkflow({
    id: "grouped",
    entry: "go",
    effects,
    nodes: {
      go: ({ vars }: any): StepPlan => plan(vars),
      caught: ({ error }: any) => complete({ caught: error?.message ?? null }),
      end: ({ vars }: any): StepPlan =>
        vars.thenFail ? (fail("in the end") as StepPlan) : (complete({ got: vars.got ?? null }) as StepPlan),
      ...nodes,
    },
  } as any);
}

const good = (type = "good", more: Record<string, unknown> = {}) =>
  defineEffect(type, { run: async ({ n }: { n: number }) => n * 2, ...more } as any) as any;
const bad = defineEffect("bad", { run: async () => Promise.reject(permanent(new Error("declined"))) });

const ledger = (world: World, runId: string) => world.with((runtime) => runtime.ledger(runId));
const kinds = async (world: World, runId: string) =>
  (await ledger(world, runId)).map(({ kind, effectId }) => `${kind} ${effectId ?? ""}`.trim());
const signal = async (world: World, runId: string, key: string, payload?: unknown) => {
  await world.with((runtime) => runtime.signal(runId, key, payload));
  await world.settle();
  return world.get(runId);
};

/** An effect that ends when its signal is aborted, as `then` says. */
function stubborn(then: "done" | "definite" | "uncertain" | "deaf", more: Record<string, unknown> = {}, type = "stubborn") {
  const seen = { calls: 0, aborted: 0, keys: new Set<string>() };
  const effect = defineEffect(type, {
    policy: { maxAttempts: 3, backoff: { initialMs: 10_000, jitter: 0 } },
    run: (_: any, { signal, idempotencyKey }: any) => {
      seen.calls += 1;
      seen.keys.add(idempotencyKey);
      if (then === "deaf") return never;
      return new Promise((resolve, reject) => {
        signal.addEventListener("abort", () => {
          seen.aborted += 1;
          if (then === "done") resolve({ did: seen.calls });
          else reject(then === "definite" ? definite(new Error("stopped in time")) : new Error("cut off"));
        });
      });
    },
    ...more,
  } as any) as any;
  return { effect, seen };
}

// ---- Collect -------------------------------------------------------------------------------------------------------------

scenario("all that collects says of each member how it ended", async (world) => {
  const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: () => fail({ message: "no stock", code: "STOCK" }) } });
  const effect = good();
  const flow = grouped(
    () =>
      all([effect({ n: 1 }), bad({}), askUser({ prompt: "?", timeoutMs: 1_000 }), subworkflow(child, {}), sleep(500)], collect),
    [effect, bad],
  );
  await world.use({ workflows: [flow, child] });
  const runId = await world.start(flow);
  await world.advance(1_000);
  const run = await world.get(runId);
  expect(run).toMatchObject({
    status: "completed",
    output: {
      got: [
        { status: "completed", result: 2 },
        { status: "failed", error: { message: "declined" } },
        { status: "failed", error: { code: "WAIT_TIMEOUT" } },
        { status: "failed", error: { code: "STOCK", message: "no stock" } },
        { status: "completed", result: { ready: true } },
      ],
    },
  });
  expect(JSON.stringify(run.output)).not.toContain("stack");
  expect(run.error).toBeUndefined();
});

scenario("all that collects, of nothing, of failures alone", async (world) => {
  const flow = grouped(
    (vars) =>
      all(
        Array.from({ length: vars.n }, () => bad({})),
        collect,
      ),
    [bad],
  );
  await world.use(flow);
  expect((await world.run(flow, { n: 0 })).output).toEqual({ got: [] });
  expect((await world.run(flow, { n: 2 })).output.got.map(({ status }: any) => status)).toEqual(["failed", "failed"]);
});

scenario("all that collects lets the others run to their ends when one has failed", async (world) => {
  const flow = grouped(() => all([bad({}), waitEvent("x")], collect), [bad]);
  await world.use(flow);
  const { runId, status, waits } = await world.run(flow);
  expect(status).toBe("waiting");
  expect(waits).toHaveLength(1);
  expect((await signal(world, runId, "x", 7)).output.got).toMatchObject([
    { status: "failed" },
    { status: "completed", result: 7 },
  ]);
});

scenario("groups that collect nest: each judges its own members", async (world) => {
  const plain = { type: "all", payload: { effects: [] as any[] } };
  const inner = (effects: any[], onFailure?: string): any => ({
    ...plain,
    payload: { effects, ...(onFailure ? { onFailure } : {}) },
  });
  const effect = good();
  const flow = grouped(
    () =>
      all(
        [
          // Fails fast, and is one failure of the outer one.
          inner([bad({}), waitEvent("lost")]),
          // Collects, and so completes.
          inner([bad({}), effect({ n: 2 })], "collect"),
          any([bad({}), effect({ n: 3 })]),
          any([bad({}), bad({})]),
        ],
        collect,
      ),
    [bad, effect],
  );
  await world.use(flow);
  const run = await world.run(flow);
  expect(run.status).toBe("completed");
  expect(run.output.got).toMatchObject([
    { status: "failed", error: { message: "declined" } },
    { status: "completed", result: [{ status: "failed" }, { status: "completed", result: 4 }] },
    { status: "completed", result: { index: 1, result: 6 } },
    { status: "failed", error: { message: "declined" } },
  ]);
});

scenario("a group that collects inside one that fails fast", async (world) => {
  const flow = grouped(
    (vars) => ({
      ...all(
        [{ type: "all", payload: { effects: [bad({}), waitEvent("x")], onFailure: "collect" } } as any, waitEvent("y")],
        to as any,
      ),
      ...(vars.caught ? { errorNode: "caught" } : {}),
    }),
    [bad],
  );
  await world.use(flow);
  const { runId } = await world.run(flow);
  await signal(world, runId, "y", 1);
  expect((await signal(world, runId, "x", 2)).output.got).toMatchObject([[{ status: "failed" }, { result: 2 }], 1]);
});

scenario("a collected member that fails and is retried is a failure only when it is for good", async (world) => {
  let calls = 0;
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 3, backoff: { initialMs: 5_000, factor: 1, jitter: 0 } },
    run: async () => {
      calls += 1;
      throw definite(new Error(`no ${calls}`));
    },
  });
  const flow = grouped(() => all([flaky({}), sleep(1_000)], collect), [flaky]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.advance(5_000);
  await world.advance(4_999);
  expect((await world.get(runId)).status).toBe("waiting");
  await world.advance(1);
  expect((await world.get(runId)).output.got).toMatchObject([
    { status: "failed", error: { message: "no 3" } },
    { status: "completed" },
  ]);
  expect(calls).toBe(3);
});

scenario("plain plans may collect; any may not, and an unknown word is refused", async (world) => {
  const plan = (type: string, onFailure: unknown): any => ({
    effect: { type, payload: { effects: [{ type: "wait_until", payload: { delayMs: 0 } }], onFailure }, resultKey: "got" },
    nextNode: "end",
  });
  for (const [type, onFailure, ends] of [
    ["all", "collect", "completed"],
    ["all", "fail", "completed"],
    ["all", null, "completed"],
    ["all", "shrug", "failed"],
    ["any", "collect", "failed"],
  ] as const) {
    const flow = grouped(() => plan(type, onFailure));
    await world.use(flow);
    const runId = await world.start(flow);
    await world.advance(1);
    expect((await world.get(runId)).status, `${type} ${onFailure}`).toBe(ends);
  }
});

// ---- Losers --------------------------------------------------------------------------------------------------------------

scenario("any: a loser that executes is told to stop, and what it did is recorded before the group ends", async (world) => {
  for (const [then, kind] of [
    ["done", "effect_completed 1.0"],
    ["definite", "effect_failed 1.0"],
    ["uncertain", "effect_uncertain 1.0"],
  ] as const) {
    const { effect, seen } = stubborn(then);
    const flow = grouped(() => any([effect({}), waitEvent("stop")], to as any), [effect]);
    await world.use(flow);
    const runId = await world.start(flow);
    await world.settle();
    const run = await signal(world, runId, "stop", "now");
    expect(run, then).toMatchObject({ status: "completed", output: { got: { index: 1, result: "now" } } });
    expect(seen).toMatchObject({ calls: 1, aborted: 1 });
    const records = await kinds(world, runId);
    expect(records.indexOf(kind), `${then}: ${records.join(", ")}`).toBeGreaterThan(0);
    expect(records.indexOf(kind)).toBeLessThan(records.indexOf("effect_completed 1"));
  }
});

scenario("all: when one fails, a member that executes is told to stop, recorded, and not tried again", async (world) => {
  for (const then of ["done", "definite", "uncertain"] as const) {
    const { effect, seen } = stubborn(then);
    const flow = grouped(
      () => ({ ...all([effect({}), askUser({ prompt: "?", timeoutMs: 1_000 })], to as any), errorNode: "caught" }),
      [effect],
    );
    await world.use(flow);
    const runId = await world.start(flow);
    await world.settle();
    await world.advance(1_000);
    await world.advance(60_000);
    expect(await world.get(runId)).toMatchObject({
      status: "completed",
      output: { caught: expect.stringMatching(/WAIT_TIMEOUT/) },
    });
    expect(seen).toMatchObject({ calls: 1, aborted: 1 });
  }
});

scenario(
  "any: the loser that completes all the same does not take the place of the winner, and is undone when the run fails",
  async (world) => {
    const undone: unknown[] = [];
    const undo = defineEffect("undo", { run: async (what: any) => void undone.push(what.result) });
    const { effect } = stubborn("done", { undo });
    const flow = grouped(() => any([effect({}), waitEvent("stop")], to as any), [effect, undo]);
    await world.use(flow);
    for (const thenFail of [false, true]) {
      const runId = await world.start(flow, { vars: { thenFail } });
      await world.settle();
      const run = await signal(world, runId, "stop", "now");
      expect(run.status).toBe(thenFail ? "failed" : "completed");
      expect(run.vars.got).toEqual({ index: 1, result: "now" });
      expect(undone).toHaveLength(thenFail ? 1 : 0);
    }
  },
);

scenario("all: a member that was completed before another failed is undone when nobody takes the failure", async (world) => {
  const undone: number[] = [];
  const undo = defineEffect("undo", { run: async ({ result }: any) => void undone.push(result) });
  const effect = good("booked", { undo });
  const flow = grouped(
    (vars) => ({
      ...all([effect({ n: 1 }), effect({ n: 2 }), askUser({ prompt: "?", timeoutMs: 1_000 })], to as any),
      ...(vars.caught ? { errorNode: "caught" } : {}),
    }),
    [effect, undo],
  );
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({ status: "failed" });
  expect(undone.toSorted()).toEqual([2, 4]);
  undone.length = 0;
  // Where a node takes the failure, the run goes on with what it has.
  const caught = await world.start(flow, { vars: { caught: true } });
  await world.settle();
  await world.advance(1_000);
  expect(await world.get(caught)).toMatchObject({ status: "completed" });
  expect(undone).toEqual([]);
});

scenario("any: a loser that an earlier process began is found out about before the group ends", async (world) => {
  const { effect, seen } = stubborn("deaf");
  const flow = grouped(() => any([effect({}), waitEvent("stop")], to as any), [effect]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  expect(seen.calls).toBe(1);
  await world.crash();
  await world.manually((runtime) => runtime.signal(runId, "stop", "now"));
  await world.settle();
  await world.advance(5_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: { index: 1, result: "now" } } });
  expect(await kinds(world, runId)).toContain("effect_uncertain 1.0");
  expect(seen.calls).toBe(1);
});

scenario("any: a loser that backs off is not tried again, and a speculative one is dropped", async (world) => {
  let calls = 0;
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 5, backoff: { initialMs: 60_000, jitter: 0 } },
    run: async () => {
      calls += 1;
      throw definite(new Error("not yet"));
    },
  });
  const { effect: reading, seen } = stubborn("deaf", { speculative: true }, "reading");
  const flow = grouped(() => any([flaky({}), reading({}), waitEvent("stop")], to as any), [flaky, reading]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  expect(await signal(world, runId, "stop", 1)).toMatchObject({ status: "completed", output: { got: { index: 2 } } });
  await world.advance(120_000);
  expect(calls).toBe(1);
  expect(seen.calls).toBe(1);
});

scenario("nested: what executes deep inside a loser is recorded, too", async (world) => {
  const { effect, seen } = stubborn("done");
  const flow = grouped(
    () => any([all([any([effect({}), waitEvent("never")]), waitEvent("never too")]), waitEvent("stop")], to as any),
    [effect],
  );
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  expect(await signal(world, runId, "stop", 1)).toMatchObject({ status: "completed", output: { got: { index: 1, result: 1 } } });
  expect(seen).toMatchObject({ calls: 1, aborted: 1 });
  const records = await kinds(world, runId);
  expect(records).toContain("effect_completed 1.0.0.0");
});

scenario("two executing members that end in one turn: one wins, and both are recorded", async (world) => {
  const release: (() => void)[] = [];
  const effect = defineEffect("gate", {
    run: ({ n }: { n: number }) => new Promise<number>((resolve) => release.push(() => resolve(n))),
  });
  const flow = grouped(() => any([effect({ n: 0 }), effect({ n: 1 })], to as any), [effect]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  for (const open of release) open();
  await world.settle();
  const run = await world.get(runId);
  expect(run).toMatchObject({ status: "completed", output: { got: { index: 0, result: 0 } } });
  const records = await kinds(world, runId);
  expect(records.filter((kind) => kind.startsWith("effect_completed"))).toEqual([
    "effect_completed 1.0",
    "effect_completed 1.1",
    "effect_completed 1",
  ]);
});

// ---- What was closed -----------------------------------------------------------------------------------------------------

scenario("the record that ends an any names the members it closed", async (world) => {
  const flow = grouped(
    () => any([waitEvent("a"), all([waitEvent("b"), waitEvent("c")]), sleep(60_000), bad({})], to as any),
    [bad],
  );
  await world.use(flow);
  const { runId } = await world.run(flow);
  await signal(world, runId, "b", 1);
  await signal(world, runId, "a", 1);
  const end = (await ledger(world, runId)).find(({ kind, effectId }) => kind === "effect_completed" && effectId === "1");
  // Not 1.1.0, which was done, nor 1.3, which had failed.
  expect(end?.data).toMatchObject({ collect: true, closed: ["1.1", "1.1.1", "1.2"] });
});

scenario("the record that ends an all names none", async (world) => {
  const flow = grouped(() => all([waitEvent("a"), bad({})], collect), [bad]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  await signal(world, runId, "a", 1);
  const end = (await ledger(world, runId)).find(({ kind, effectId }) => kind === "effect_completed" && effectId === "1");
  expect(end?.data).toEqual({ collect: true });
});

// ---- Crashes -------------------------------------------------------------------------------------------------------------

scenario("a crash at any commit: a race and a collecting group come to the same end", async (world) => {
  let keys = new Set<string>();
  const effect = defineEffect("counted", {
    run: async ({ n }: { n: number }, { idempotencyKey }) => {
      keys.add(idempotencyKey);
      return n;
    },
  });
  const race: any = any([waitEvent("a"), effect({ n: 2 })]);
  const flow = grouped(() => all([race, bad({}), effect({ n: 1 })], { ...collect, nextNode: "more" }), [effect, bad], {
    more: () => goto("end"),
  });
  await world.use(flow);
  for (const after of [false, true]) {
    for (let commits = 1; ; commits += world.stride) {
      if (commits > 60) throw new Error("It never ends unharmed.");
      keys = new Set();
      const runId = await world.manually(async (runtime) => (await runtime.start(flow)).runId);
      world.killAt(commits, after);
      await Promise.resolve(world.settle()).catch((error) => {
        if (!world.killed) throw error;
      });
      const { killed } = world;
      world.killAt(Number.POSITIVE_INFINITY, false);
      await world.crash();
      await world.advance(2_000);
      expect(await world.get(runId)).toMatchObject({
        status: "completed",
        output: {
          got: [
            { status: "completed", result: { index: 1, result: 2 } },
            { status: "failed", error: {} },
            { status: "completed", result: 1 },
          ],
        },
      });
      expect(keys.size).toBe(2);
      if (!killed) break;
    }
  }
});
