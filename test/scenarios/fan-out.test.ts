// Many children of one effect: windows, failures, deadlines, retries and crashes.
import {
  all,
  any,
  askUser,
  complete,
  createRuntime,
  definite,
  defineEffect,
  defineWorkflow,
  fail,
  fanOut,
  type Runtime,
  sleep,
  type StepPlan,
  waitEvent,
} from "abstractruntime";
import { describe, expect, test } from "vitest";
import { systemClock } from "../../src/kernel/clock.ts";
import { everyRun, scenario, storeKinds, type World } from "./harness.ts";
import { placeOf } from "./places.ts";

const to = { resultKey: "got", nextNode: "end" };

function fanning(plan: (vars: any) => any, effects: readonly any[] = []) {
  return defineWorkflow({
    id: "fanning",
    entry: "go",
    effects,
    nodes: {
      go: ({ vars }): StepPlan => plan(vars),
      caught: ({ error }) => complete({ caught: error?.message ?? null, code: error?.code ?? null }),
      late: () => complete("late"),
      end: ({ vars }) => complete({ got: vars.got }),
    },
  });
}

/** A child that does what its vars say. */
const worker = defineWorkflow({
  id: "worker",
  entry: "go",
  nodes: {
    go: ({ vars }): StepPlan => {
      if (vars.fails) return fail({ message: `no ${vars.n}`, code: "NO" }) as StepPlan;
      if (vars.asks) return askUser({ prompt: `${vars.n}?` }, { resultKey: "answer", nextNode: "end" }) as StepPlan;
      if (vars.sleeps) return sleep(vars.sleeps, { nextNode: "end" }) as StepPlan;
      return complete(vars.n * 10) as StepPlan;
    },
    end: ({ vars }): StepPlan => ({ completeOutput: vars.answer ? `${vars.n} ${vars.answer.text}` : vars.n * 10 }),
  },
});

const childrenOf = (world: World, parentRunId: string) =>
  world.with(async (runtime) => (await runtime.list({ parentRunId, order: "oldest", limit: 1_000 })).runs);
const live = async (world: World, parentRunId: string) =>
  (await childrenOf(world, parentRunId)).filter(({ status }) => status === "running" || status === "waiting");
const varsOf = async (world: World, runId: string) => (await world.get(runId)).vars;

// ---- Plain ---------------------------------------------------------------------------------------------------------------

scenario("fanOut gives the outputs in the order of the items", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items }, to as any));
  await world.use({ workflows: [flow, worker] });
  const run = await world.run(flow, { items: [1, 2, 3].map((n) => ({ n })) });
  const children = await childrenOf(world, run.runId);
  expect(run).toMatchObject({
    status: "completed",
    output: { got: children.map(({ runId }, i) => ({ subRunId: runId, output: (i + 1) * 10 })) },
  });
});

scenario("fanOut: results stand in order, in whatever order the children end", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items }, to as any));
  await world.use({ workflows: [flow, worker] });
  const runId = await world.start(flow, { vars: { items: [3, 1, 2].map((n) => ({ n, sleeps: n * 1_000 })) } });
  for (let i = 0; i < 3; i++) {
    expect((await live(world, runId)).length).toBeLessThanOrEqual(3);
    await world.advance(1_000);
  }
  expect((await world.get(runId)).output.got.map(({ output }: any) => output)).toEqual([30, 10, 20]);
});

scenario("fanOut of nothing is done at once, and of one is a list of one", async (world) => {
  for (const onFailure of ["fail", "collect"] as const) {
    const flow = fanning(({ items }) => fanOut(worker, { items, onFailure }, to as any));
    await world.use({ workflows: [flow, worker] });
    const none = await world.run(flow, { items: [] });
    expect(none).toMatchObject({ status: "completed", output: { got: [] } });
    expect(await childrenOf(world, none.runId)).toEqual([]);
    const one = await world.run(flow, { items: [{ n: 4 }] });
    expect(one).toMatchObject({ status: "completed", output: { got: [{ output: 40 }] } });
    expect(one.output.got).toHaveLength(1);
  }
});

scenario("fanOut without a resultKey, and without concurrency in AbstractRuntime's plain form", async (world) => {
  const flow = fanning(() => ({
    effect: { type: "fan_out", payload: { workflowId: "worker", items: [{ n: 1 }, { n: 2 }] }, resultKey: "got" },
    nextNode: "end",
  }));
  await world.use({ workflows: [flow, worker] });
  expect((await world.run(flow)).output.got.map(({ output }: any) => output)).toEqual([10, 20]);
});

scenario("fanOut: what makes no sense fails the run before anything begins", async (world) => {
  const payloads: any[] = [
    { workflowId: "worker", items: [{ n: 1 }], concurrency: 0 },
    { workflowId: "worker", items: [{ n: 1 }], concurrency: 1.5 },
    { workflowId: "worker", items: { length: 1 } },
    { items: [] },
    { workflowId: "worker", items: [], onFailure: "shrug" },
  ];
  for (const payload of payloads) {
    const flow = fanning(() => ({ effect: { type: "fan_out", payload }, nextNode: "end" }));
    await world.use({ workflows: [flow, worker] });
    const run = await world.run(flow);
    expect(run, JSON.stringify(payload)).toMatchObject({ status: "failed" });
    expect(await childrenOf(world, run.runId)).toEqual([]);
  }
});

// ---- The window ----------------------------------------------------------------------------------------------------------

scenario("fanOut never has more children alive than its window", async (world) => {
  for (const concurrency of [1, 2, 3]) {
    const flow = fanning(({ items }) => fanOut(worker, { items, concurrency }, to as any));
    await world.use({ workflows: [flow, worker] });
    const items = Array.from({ length: 7 }, (_, n) => ({ n, asks: true }));
    const { runId } = await world.run(flow, { items });
    let most = 0;
    for (let answered = 0; answered < items.length; answered++) {
      const alive = await live(world, runId);
      expect(alive.length).toBeLessThanOrEqual(concurrency);
      expect(alive.length).toBeGreaterThan(0);
      most = Math.max(most, alive.length);
      // The last of them first: ends come out of order.
      await world.respond(alive.at(-1)!.runId, "ok");
    }
    expect(most).toBe(concurrency);
    const run = await world.get(runId);
    expect(run.status).toBe("completed");
    expect(run.output.got.map(({ output }: any) => output)).toEqual(items.map(({ n }) => `${n} ok`));
    expect(await childrenOf(world, runId)).toHaveLength(7);
  }
});

scenario("fanOut: children that wait cost the parent nothing but its row", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items }, to as any));
  await world.use({ workflows: [flow, worker] });
  const run = await world.run(flow, { items: [1, 2].map((n) => ({ n, asks: true })) });
  expect(run).toMatchObject({ status: "waiting", wakeAt: null });
  await world.advance(10 * 86_400_000);
  const [first, second] = await childrenOf(world, run.runId);
  await world.respond(second!.runId, "yes");
  // It stays in memory a moment for the next end.
  await world.advance(100);
  expect(await world.get(run.runId)).toMatchObject({ status: "waiting", wakeAt: null });
  await world.respond(first!.runId, "no");
  expect((await world.get(run.runId)).output.got.map(({ output }: any) => output)).toEqual(["1 no", "2 yes"]);
});

// ---- Failures ------------------------------------------------------------------------------------------------------------

scenario("fanOut with fail: the first failure cancels the others, and what was not begun never begins", async (world) => {
  const flow = fanning(({ items, caught }) => ({
    ...fanOut(worker, { items, concurrency: 3 }, to as any),
    ...(caught ? { errorNode: "caught" } : {}),
  }));
  await world.use({ workflows: [flow, worker] });
  for (const caught of [false, true]) {
    const items = [0, 1, 2, 3, 4].map((n) => ({ n, asks: n < 3 }));
    const { runId } = await world.run(flow, { items, caught });
    const children = await childrenOf(world, runId);
    expect(children).toHaveLength(3);
    await world.with((runtime) => runtime.cancel(children[1]!.runId, { reason: "enough" }));
    await world.settle();
    const after = await childrenOf(world, runId);
    expect(after.map(({ status }) => status)).toEqual(["cancelled", "cancelled", "cancelled"]);
    const run = await world.get(runId);
    if (caught) expect(run).toMatchObject({ status: "completed", output: { caught: "the subworkflow was cancelled" } });
    else expect(run).toMatchObject({ status: "failed" });
  }
});

scenario("fanOut with fail: a child that fails is the failure", async (world) => {
  const flow = fanning(({ items }) => ({ ...fanOut(worker, { items }, to as any), errorNode: "caught" }));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, {
    items: [
      { n: 0, asks: true },
      { n: 1, fails: true },
      { n: 2, fails: true },
    ],
  });
  expect(await world.get(runId)).toMatchObject({
    status: "completed",
    output: { caught: expect.stringMatching(/^no [12]$/), code: "NO" },
  });
  expect((await childrenOf(world, runId)).map(({ status }) => status)).toEqual([
    "cancelled",
    expect.anything(),
    expect.anything(),
  ]);
  expect(await live(world, runId)).toEqual([]);
});

scenario("fanOut with collect says of each child how it ended", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items, onFailure: "collect" }, to as any));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, { items: [{ n: 0 }, { n: 1, fails: true }, { n: 2, asks: true }, { n: 3 }] });
  const children = await childrenOf(world, runId);
  expect((await world.get(runId)).status).toBe("waiting");
  await world.with((runtime) => runtime.cancel(children[2]!.runId, { reason: "enough" }));
  await world.settle();
  const ids = children.map((child) => child.runId);
  expect(await world.get(runId)).toMatchObject({
    status: "completed",
    output: {
      got: [
        { status: "completed", subRunId: ids[0], output: 0 },
        { status: "failed", subRunId: ids[1], error: { code: "NO", message: "no 1" } },
        { status: "cancelled", subRunId: ids[2], error: { message: "the subworkflow was cancelled" } },
        { status: "completed", subRunId: ids[3], output: 30 },
      ],
    },
  });
});

scenario("fanOut with collect goes on when every child fails, through a window of one", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items, onFailure: "collect", concurrency: 1 }, to as any));
  await world.use({ workflows: [flow, worker] });
  const run = await world.run(flow, { items: [0, 1, 2].map((n) => ({ n, fails: true })) });
  expect(run.output.got.map(({ status, error }: any) => `${status} ${error.message}`)).toEqual([
    "failed no 0",
    "failed no 1",
    "failed no 2",
  ]);
});

scenario(
  "fanOut: vars that one child's schema refuses fail the effect, and children begun before are cancelled",
  async (world) => {
    const { z } = await import("zod");
    const strict = defineWorkflow({
      id: "strict",
      vars: z.object({ n: z.number() }),
      entry: "a",
      nodes: { a: () => askUser({ prompt: "?" }, { nextNode: "b" }), b: () => complete() },
    });
    const flow = fanning(({ items, concurrency }) =>
      fanOut("strict", { items, concurrency }, { ...to, errorNode: "caught" } as any),
    );
    await world.use({ workflows: [flow, strict] });
    const items = [{ n: 0 }, { n: 1 }, { n: "two" }];
    const whole = await world.run(flow, { items, concurrency: 3 });
    expect(whole).toMatchObject({ status: "completed", output: { code: "VARS_INVALID" } });
    expect(await childrenOf(world, whole.runId)).toEqual([]);
    // The bad item's turn comes only later.
    const run = await world.run(flow, { items, concurrency: 2 });
    expect(run.status).toBe("waiting");
    await world.respond((await childrenOf(world, run.runId))[0]!.runId, "ok");
    expect(await world.get(run.runId)).toMatchObject({ status: "completed", output: { code: "VARS_INVALID" } });
    expect(await live(world, run.runId)).toEqual([]);
  },
);

scenario("fanOut with collect: vars that a schema refuses are one child's failure", async (world) => {
  const { z } = await import("zod");
  const strict = defineWorkflow({
    id: "strict",
    vars: z.object({ n: z.number() }),
    entry: "a",
    nodes: { a: ({ vars }) => complete(vars.n) },
  });
  const flow = fanning(({ items }) => fanOut("strict", { items, onFailure: "collect" }, to as any));
  await world.use({ workflows: [flow, strict] });
  const run = await world.run(flow, { items: [{ n: 0 }, { n: "one" }, { n: 2 }] });
  expect(run).toMatchObject({
    status: "completed",
    output: {
      got: [
        { status: "completed", output: 0 },
        { status: "failed", error: { code: "VARS_INVALID" } },
        { status: "completed", output: 2 },
      ],
    },
  });
});

scenario("fanOut that takes too long cancels its children and goes to timeoutNode", async (world) => {
  const flow = fanning(({ items }) =>
    fanOut(worker, { items, concurrency: 2, timeoutMs: 5_000 }, { ...to, timeoutNode: "late" } as any),
  );
  await world.use({ workflows: [flow, worker] });
  const items = [{ n: 0, sleeps: 2_000 }, { n: 1, asks: true }, { n: 2, sleeps: 2_000 }, { n: 3, asks: true }, { n: 4 }];
  const runId = await world.start(flow, { vars: { items } });
  await world.advance(2_000);
  // The deadline counts from the beginning, whatever was begun since.
  expect((await world.get(runId)).waits).toMatchObject([{ reason: "subworkflow", until: world.now() + 3_000 }]);
  await world.advance(2_999);
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  await world.advance(1);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: "late" });
  expect(await live(world, runId)).toEqual([]);
});

// ---- In groups -----------------------------------------------------------------------------------------------------------

scenario("fanOut in an all, beside others, and two at once", async (world) => {
  const flow = fanning(({ items }) =>
    all(
      [fanOut(worker, { items, concurrency: 2 }), askUser({ prompt: "?" }), fanOut(worker, { items: items.slice(0, 1) })],
      to as any,
    ),
  );
  await world.use({ workflows: [flow, worker] });
  const run = await world.run(flow, { items: [1, 2, 3, 4, 5].map((n) => ({ n })) });
  expect(run.waits.map(({ reason }) => reason)).toEqual(["user"]);
  const done = await world.respond(run.runId, "yes");
  expect(done.status).toBe("completed");
  const [many, answer, one] = done.output.got;
  expect(many.map(({ output }: any) => output)).toEqual([10, 20, 30, 40, 50]);
  expect(answer).toEqual({ text: "yes" });
  expect(one.map(({ output }: any) => output)).toEqual([10]);
});

scenario("fanOut in an any: when another wins, its children are cancelled", async (world) => {
  const flow = fanning(({ items }) => any([fanOut(worker, { items, concurrency: 2 }), waitEvent("stop")], to as any));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, { items: [1, 2, 3].map((n) => ({ n, asks: true })) });
  expect(await live(world, runId)).toHaveLength(2);
  await world.with((runtime) => runtime.signal(runId, "stop", "now"));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: { index: 1, result: "now" } } });
  expect(await live(world, runId)).toEqual([]);
  expect(await childrenOf(world, runId)).toHaveLength(2);
});

scenario("fanOut in an any: it wins, and one that fails is out of the race", async (world) => {
  const flow = fanning(() =>
    any(
      [
        fanOut(worker, {
          items: [
            { n: 1, fails: true },
            { n: 5, asks: true },
          ],
        }),
        fanOut(worker, { items: [{ n: 2, sleeps: 1_000 }, { n: 3 }] }),
      ],
      to as any,
    ),
  );
  await world.use({ workflows: [flow, worker] });
  const runId = await world.start(flow);
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({
    status: "completed",
    output: { got: { index: 1, result: [{ output: 20 }, { output: 30 }] } },
  });
  expect(await live(world, runId)).toEqual([]);
});

scenario("fanOut in an all that collects is one failure among the results", async (world) => {
  const flow = fanning(() =>
    all(
      [
        fanOut(worker, {
          items: [
            { n: 1, fails: true },
            { n: 2, asks: true },
          ],
        }),
        fanOut(worker, { items: [{ n: 3 }] }),
      ],
      {
        ...to,
        onFailure: "collect",
      } as any,
    ),
  );
  await world.use({ workflows: [flow, worker] });
  const run = await world.run(flow);
  expect(run).toMatchObject({
    status: "completed",
    output: {
      got: [
        { status: "failed", error: { code: "NO" } },
        { status: "completed", result: [{ output: 30 }] },
      ],
    },
  });
  expect(await live(world, run.runId)).toEqual([]);
});

scenario("cancelling the parent cancels the children of its fanOut", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items, concurrency: 2 }, to as any));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, { items: [1, 2, 3].map((n) => ({ n, asks: true })) });
  await world.with((runtime) => runtime.cancel(runId));
  await world.settle();
  const runs = await world.with(everyRun);
  expect(runs.map(({ status }) => status)).toEqual(["cancelled", "cancelled", "cancelled"]);
});

scenario("a paused parent begins no more children, and takes their ends when it goes on", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items, concurrency: 2 }, to as any));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, { items: [1, 2, 3, 4].map((n) => ({ n, asks: true })) });
  await world.with((runtime) => runtime.pause(runId));
  await world.settle();
  for (const { runId: child } of await live(world, runId)) await world.respond(child, "ok");
  expect(await childrenOf(world, runId)).toHaveLength(2);
  expect(await world.get(runId)).toMatchObject({ paused: true });
  await world.with((runtime) => runtime.unpause(runId));
  await world.settle();
  expect(await live(world, runId)).toHaveLength(2);
  for (const { runId: child } of await live(world, runId)) await world.respond(child, "ok");
  expect((await world.get(runId)).output.got.map(({ output }: any) => output)).toEqual(["1 ok", "2 ok", "3 ok", "4 ok"]);
});

// ---- References ----------------------------------------------------------------------------------------------------------

scenario("fanOut: items that stand in the vars are not written again", async (world) => {
  const text = "x".repeat(5_000);
  const big = defineWorkflow({ id: "big", entry: "a", nodes: { a: ({ vars }) => complete(vars.text.length + vars.n) } });
  for (const pick of [(items: any[]) => items, (items: any[]) => items.slice(1), (items: any[]) => items.toReversed()]) {
    const flow = fanning((vars) => {
      vars.touched = true;
      return fanOut(big, { items: pick(vars.items), concurrency: 3 }, to as any);
    });
    await world.use({ workflows: [flow, big] });
    const items = Array.from({ length: 10 }, (_, n) => ({ n, text }));
    const run = await world.run(flow, { items });
    expect(run.output.got.map(({ output }: any) => output)).toEqual(pick(items).map(({ n }) => 5_000 + n));
    const stored = await world.with((runtime) => runtime.store.records(run.runId, 0, 1_000));
    const bytes = stored.slice(1).reduce((sum, { header, body }) => sum + header.length + (body?.length ?? 0), 0);
    expect(bytes).toBeLessThan(5_000 * 3);
  }
});

// ---- Crashes and retries -------------------------------------------------------------------------------------------------

/** Kills the process at its n-th commit, for every n, before and after; `look` judges what came of each run. */
async function sweep(
  world: World,
  begin: () => Promise<string>,
  look: (runId: string, killed: boolean) => Promise<void>,
  go: () => Promise<void> = async () => undefined,
): Promise<void> {
  for (const after of [false, true]) {
    for (let commits = 1; ; commits += world.stride) {
      if (commits > 60) throw new Error("It never ends unharmed.");
      const runId = await begin();
      world.killAt(commits, after);
      await Promise.resolve(world.settle()).catch((error) => {
        if (!world.killed) throw error;
      });
      const { killed } = world;
      world.killAt(Number.POSITIVE_INFINITY, false);
      await world.crash();
      await world.advance(2_000);
      await go();
      await look(runId, killed);
      if (!killed) break;
    }
  }
}

scenario("fanOut: a crash at any commit starts every child once, and each does its work under one key", async (world) => {
  let keys: Record<string, Set<string>> = {};
  const work = defineEffect("work", {
    run: async ({ n }: { n: number }, { runId, idempotencyKey }) => {
      keys[runId] = (keys[runId] ?? new Set()).add(idempotencyKey);
      return n + 1;
    },
  });
  const child = defineWorkflow({
    id: "child",
    entry: "a",
    effects: [work],
    nodes: {
      a: ({ vars }) => work({ n: vars.n as number }, { resultKey: "out", nextNode: "b" }),
      b: ({ vars }) => complete(vars.out),
    },
  });
  const flow = fanning(({ items }) => fanOut(child, { items, concurrency: 2 }, to as any));
  await world.use({ workflows: [flow, child] });
  await sweep(
    world,
    async () => {
      keys = {};
      return world.manually(
        async (runtime) => (await runtime.start(flow, { vars: { items: [{ n: 0 }, { n: 1 }, { n: 2 }] } })).runId,
      );
    },
    async (runId) => {
      const run = await world.get(runId);
      expect(run.status).toBe("completed");
      expect(run.output.got.map(({ output }: any) => output)).toEqual([1, 2, 3]);
      const children = await childrenOf(world, runId);
      expect(children.map(({ status }) => status)).toEqual(["completed", "completed", "completed"]);
      expect(Object.keys(keys).toSorted()).toEqual(children.map((each) => each.runId).toSorted());
      for (const known of Object.values(keys)) expect(known.size).toBe(1);
      const ends = await world.with((runtime) => runtime.ledger(runId));
      expect(ends.filter(({ kind }) => kind === "delivered")).toHaveLength(3);
    },
  );
});

scenario("fanOut: a crash at any commit while one child fails leaves no child behind", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items, concurrency: 2 }, { ...to, errorNode: "caught" } as any));
  await world.use({ workflows: [flow, worker] });
  await sweep(
    world,
    () =>
      world.manually(
        async (runtime) =>
          (await runtime.start(flow, { vars: { items: [{ n: 0, asks: true }, { n: 1, fails: true }, { n: 2 }] } })).runId,
      ),
    async (runId) => {
      expect(await world.get(runId)).toMatchObject({ status: "completed", output: { caught: "no 1" } });
      expect((await childrenOf(world, runId)).map(({ status }) => status)).toEqual(["cancelled", "failed"]);
    },
  );
});

scenario("retry of a run whose fanOut failed: completed children stay, the others are begun under new ids", async (world) => {
  let broken = true;
  const calls: number[] = [];
  const work = defineEffect("work", {
    policy: { maxAttempts: 1 },
    run: async ({ n }: { n: number }) => {
      calls.push(n);
      if (n === 1 && broken) throw definite(new Error("broken"));
      return n;
    },
  });
  const child = defineWorkflow({
    id: "child",
    entry: "a",
    effects: [work],
    nodes: {
      a: ({ vars }) => work({ n: vars.n as number }, { resultKey: "out", nextNode: "b" }),
      b: ({ vars }): StepPlan =>
        vars.n === 2 ? (waitEvent("go", { nextNode: "c" }) as StepPlan) : (complete(vars.out) as StepPlan),
      c: ({ vars }) => complete(vars.out),
    },
  });
  const flow = fanning(({ items }) => fanOut(child, { items, concurrency: 2 }, to as any));
  await world.use({ workflows: [flow, child] });
  // The window of two holds 0 and 1; 2 and 3 come after both ended, or never.
  const run = await world.run(flow, { items: [{ n: 0 }, { n: 1 }, { n: 2 }, { n: 3 }] });
  expect(run.status).toBe("failed");
  const before = await childrenOf(world, run.runId);
  const kept = before.filter(({ status }) => status === "completed").map(({ runId }) => runId);
  broken = false;
  await world.with((runtime) => runtime.retry(run.runId));
  await world.settle();
  const waiting = (await live(world, run.runId))[0]!;
  await world.with((runtime) => runtime.signal(waiting.runId, "go"));
  await world.settle();
  const done = await world.get(run.runId);
  expect(done).toMatchObject({ status: "completed", retries: 1 });
  expect(done.output.got.map(({ output }: any) => output)).toEqual([0, 1, 2, 3]);
  const ids = done.output.got.map(({ subRunId }: any) => subRunId);
  const taken = (await world.with((runtime) => runtime.ledger(run.runId))).filter(
    (record) => record.kind === "delivered" && record.data.outcome === "member",
  );
  // Whoever's end was taken before the failure was not begun again.
  const early = taken.filter(({ seq }) => seq < run.seq).flatMap(({ data }: any) => (data.result ? [data.result.subRunId] : []));
  for (const id of early) {
    expect(kept).toContain(id);
    expect(ids).toContain(id);
  }
  const failed = before.find(({ status }) => status === "failed")!;
  expect(ids).not.toContain(failed.runId);
  expect(calls.filter((n) => n === 0)).toHaveLength(early.length === 0 ? 2 : 1);
  expect(await live(world, run.runId)).toEqual([]);
});

scenario("retry of a fanOut is not misled by late ends of the children before it", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items }, to as any));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, {
    items: [
      { n: 0, asks: true },
      { n: 1, asks: true },
    ],
  });
  const [first, second] = await childrenOf(world, runId);
  // One is cancelled, which fails the run; the other answers while nobody drives anything.
  await world.manually(async (runtime) => {
    await runtime.cancel(first!.runId);
    await runtime.tick(first!.runId);
    await runtime.respond(second!.runId, "old");
    await runtime.tick(second!.runId);
    await runtime.tick(runId);
    expect((await runtime.get(runId)).status).toBe("failed");
    await runtime.retry(runId);
  });
  await world.settle();
  const alive = await live(world, runId);
  for (const child of alive) await world.respond(child.runId, "new");
  const done = await world.get(runId);
  expect(done.status).toBe("completed");
  expect(done.output.got.map(({ output }: any) => output)).toEqual(["0 new", alive.length === 2 ? "1 new" : "1 old"]);
  for (const { subRunId } of done.output.got) expect(subRunId).not.toBe(first!.runId);
});

scenario("a retry that fails again may be retried again, and every generation has its own ids", async (world) => {
  const flow = fanning(({ items }) => fanOut(worker, { items }, to as any));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, { items: [{ n: 0, asks: true }, { n: 1 }] });
  const seen = new Set<string>();
  for (let round = 0; round < 3; round++) {
    const [child] = await live(world, runId);
    expect(seen.has(child!.runId)).toBe(false);
    seen.add(child!.runId);
    await world.with((runtime) => runtime.cancel(child!.runId));
    await world.settle();
    expect(await world.get(runId)).toMatchObject({ status: "failed" });
    await world.with((runtime) => runtime.retry(runId));
    await world.settle();
  }
  const [child] = await live(world, runId);
  await world.respond(child!.runId, "at last");
  expect((await world.get(runId)).output.got.map(({ output }: any) => output)).toEqual(["0 at last", 10]);
});

scenario("a fanOut over a workflow that nobody has blocks the run, which goes on when it arrives", async (world) => {
  let times = 0;
  const flow = fanning(({ items }) => {
    times += 1;
    return fanOut("worker", { items }, to as any);
  });
  await world.use(flow);
  const run = await world.run(flow, { items: [{ n: 1 }] });
  expect(run).toMatchObject({ status: "running", blocked: { code: "WORKFLOW_UNKNOWN" } });
  await world.use({ workflows: [flow, worker] });
  await world.settle();
  expect(await world.get(run.runId)).toMatchObject({ status: "completed", output: { got: [{ output: 10 }] } });
  expect(times).toBeGreaterThan(0);
});

scenario("a fanOut whose workflow goes missing half-way is blocked, and goes on when it is back", async (world) => {
  const flow = fanning(({ items }) => fanOut("worker", { items, concurrency: 1 }, to as any));
  await world.use({ workflows: [flow, worker] });
  const { runId } = await world.run(flow, { items: [{ n: 1, asks: true }, { n: 2 }] });
  const [child] = await live(world, runId);
  await world.with((runtime) => runtime.respond(child!.runId, "ok"));
  await world.manually((runtime) => runtime.tick(child!.runId));
  await world.use(flow);
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "running", blocked: { code: "WORKFLOW_UNKNOWN" } });
  await world.use({ workflows: [flow, worker] });
  await world.settle();
  expect((await world.get(runId)).output.got.map(({ output }: any) => output)).toEqual(["1 ok", 20]);
});

scenario("fanOut of fanOuts", async (world) => {
  const inner = defineWorkflow({
    id: "inner",
    entry: "go",
    nodes: {
      go: ({ vars }) => fanOut(worker, { items: [{ n: vars.n }, { n: vars.n + 1 }] }, { resultKey: "got", nextNode: "end" }),
      end: ({ vars }) => complete(vars.got.map(({ output }: any) => output)),
    },
  });
  const flow = fanning(({ items }) => fanOut(inner, { items, concurrency: 1 }, to as any));
  await world.use({ workflows: [flow, inner, worker] });
  const run = await world.run(flow, { items: [{ n: 1 }, { n: 5 }] });
  expect(run.output.got.map(({ output }: any) => output)).toEqual([
    [10, 20],
    [50, 60],
  ]);
  expect(await varsOf(world, run.runId)).toMatchObject({ items: [{ n: 1 }, { n: 5 }] });
});

describe("fanOut of many children", () => {
  for (const kind of storeKinds) {
    const count = kind === "memory" || kind === "sqlite" || process.env.SCENARIOS === "all" ? 2_000 : 400;
    for (const onFailure of ["fail", "collect"] as const) {
      test(`on ${kind}, ${onFailure}: all are done, in order, by one process`, async () => {
        const place = await placeOf(kind);
        const flow = fanning(({ items }) => fanOut(worker, { items, onFailure }, to as any));
        const store = await place.open(systemClock);
        const runtime: Runtime = await createRuntime({ workflows: [flow, worker], store });
        try {
          const { runId } = await runtime.start(flow, { vars: { items: Array.from({ length: count }, (_, n) => ({ n })) } });
          const output: any = await runtime.result(runId);
          expect(output.got.map(({ output }: any) => output)).toEqual(Array.from({ length: count }, (_, n) => n * 10));
          const { byStatus } = await store.stats();
          expect(byStatus).toEqual({ completed: count + 1 });
        } finally {
          await runtime.stop();
          await place.remove();
        }
      });
    }
  }
});
