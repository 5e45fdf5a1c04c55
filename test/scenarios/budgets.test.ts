// Budgets: what a run and all that it starts may spend, and what becomes of them when it is spent.
import {
  complete,
  defineEffect,
  defineWorkflow,
  definite,
  type EffectContext,
  fanOut,
  type Json,
  overBudget,
  type Spend,
  subworkflow,
  wait,
} from "abstractruntime";
import { expect } from "vitest";
import { refusal, scenario } from "./harness.ts";

interface Call {
  estimate?: Spend;
  actual?: Spend;
  fail?: "definite" | "uncertain";
}

/** An effect that spends what its payload says; `seen` is told of each call that was made, and of what the handler knew. */
function spending() {
  const seen: Pick<EffectContext, "attempt" | "tries" | "answers" | "timedOut" | "uncertain" | "waited">[] = [];
  let tried = 0;
  const call = defineEffect("call", {
    policy: { maxAttempts: 3, backoff: { initialMs: 100, factor: 1, maxMs: 100, jitter: 0 } },
    run: async ({ estimate = { calls: 1 }, actual, fail }: Call, context: EffectContext) => {
      const over = await context.budget.reserve(estimate);
      if (over) return overBudget(over);
      const { attempt, tries, answers, timedOut, uncertain, waited } = context;
      seen.push({ attempt, tries, answers, timedOut, uncertain, ...(waited === undefined ? {} : { waited }) });
      if (actual) context.budget.settle(actual);
      tried += 1;
      if (fail === "definite" && tried === 1) throw definite(new Error("refused"));
      if (fail === "uncertain" && tried === 1) throw new Error("cut off");
      return { limited: context.budget.limits.length > 0 } as Json;
    },
  });
  const one = defineWorkflow({
    id: "one",
    effects: [call],
    entry: "call",
    nodes: {
      call: ({ vars }: any) =>
        call(vars.call ?? {}, { resultKey: "got", nextNode: "end", ...(vars.caught ? { errorNode: "failed" } : {}) }),
      end: ({ vars }: any) => {
        vars.times = (vars.times ?? 1) - 1;
        return vars.times > 0 ? { nextNode: "call" } : complete({ got: vars.got });
      },
      failed: ({ error }: any) => complete({ code: error?.code ?? null, message: error?.message ?? null }),
    },
  } as any) as any;
  const many = defineWorkflow({
    id: "many",
    entry: "fan",
    nodes: {
      fan: ({ vars }: any) => fanOut("one", { items: vars.items }, { resultKey: "got", nextNode: "end" }),
      end: ({ vars }: any) => complete({ got: vars.got }),
    },
  } as any) as any;
  const above = defineWorkflow({
    id: "above",
    entry: "child",
    nodes: {
      child: ({ vars }: any) =>
        subworkflow("one", { vars: vars.child, budget: vars.budget }, { resultKey: "got", nextNode: "end" }),
      end: ({ vars }: any) => complete({ got: vars.got }),
    },
  } as any) as any;
  return { seen, one, many, above, code: { workflows: [one, many, above] } };
}

scenario("what calls did cost is counted, to the last digit, and is less than was reserved", async (world) => {
  const { code, one, seen } = spending();
  await world.use(code);
  const call = { estimate: { tokens: 100, usd: 0.1, calls: 1 }, actual: { tokens: 70, usd: 0.07 } };
  const budget = { tokens: 1_000, usd: 0.31, calls: 3 };
  const runId = await world.start(one, { vars: { call, times: 3 }, budget });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: { limited: true } } });
  expect(await world.with((runtime) => runtime.budgets(runId))).toEqual([
    { scope: runId, name: "tokens", used: 210, limit: 1_000, raised: 0 },
    { scope: runId, name: "usd", used: 0.21, limit: 0.31, raised: 0 },
    { scope: runId, name: "calls", used: 3, limit: 3, raised: 0 },
  ]);
  expect(seen).toHaveLength(3);
});

scenario("a run without a budget is not counted", async (world) => {
  const { code, one } = spending();
  await world.use(code);
  const run = await world.run(one, { call: { estimate: { tokens: 1e12 } } });
  expect(run).toMatchObject({ status: "completed", output: { got: { limited: false } } });
  expect(await world.with((runtime) => runtime.budgets(run.runId))).toEqual([]);
});

scenario(
  "over its budget, a run waits for a person, and goes on as if it had not asked when the budget is raised",
  async (world) => {
    const { code, one, seen } = spending();
    await world.use(code);
    const call = { estimate: { tokens: 600 } };
    const runId = await world.start(one, { vars: { call, times: 3 }, budget: { tokens: 1_000, usd: 1 } });
    await world.settle();
    const waiting = await world.get(runId);
    expect(waiting).toMatchObject({
      status: "waiting",
      waits: [
        {
          reason: "user",
          again: true,
          budget: runId,
          details: { scope: runId, name: "tokens", used: 600, limit: 1_000, needed: 600 },
        },
      ],
    });
    expect(waiting.waits[0]?.prompt).toContain("1000 tokens, of which 600 tokens are used");
    expect(waiting.waits[0]?.prompt).toContain('{"raise":{"tokens":200}}');
    for (const answer of [
      "more",
      {},
      { raise: { tokens: -5 } },
      { raise: { cents: 5 } },
      { stop: false },
      { raise: { tokens: 1e300 } },
    ])
      expect(await refusal(world.with((runtime) => runtime.respond(runId, answer)))).toMatch(/^ANSWER_INVALID/);
    // Not enough: it asks again.
    expect(await world.respond(runId, { raise: { tokens: 150 } })).toMatchObject({
      status: "waiting",
      waits: [{ details: { used: 600, limit: 1_150, needed: 600 } }],
    });
    expect(await world.respond(runId, { raise: { tokens: 700, calls: 3 } })).toMatchObject({ status: "completed" });
    expect(seen).toEqual([
      { attempt: 1, tries: 1, answers: [], timedOut: false, uncertain: false },
      { attempt: 3, tries: 1, answers: [], timedOut: false, uncertain: false },
      { attempt: 1, tries: 1, answers: [], timedOut: false, uncertain: false },
    ]);
    expect(await world.with((runtime) => runtime.budgets(runId))).toEqual([
      { scope: runId, name: "tokens", used: 1_800, limit: 1_850, raised: 850 },
      { scope: runId, name: "usd", used: 0, limit: 1, raised: 0 },
    ]);
  },
);

scenario("what waits for a budget looks again by itself, rarer and rarer", async (world) => {
  const { code, one } = spending();
  await world.use(code);
  const runId = await world.start(one, { vars: { times: 2 }, budget: { calls: 1 } });
  await world.settle();
  const looks: number[] = [];
  for (let i = 0; i < 10; i++) {
    const { wakeAt, waits } = await world.get(runId);
    expect(waits).toHaveLength(1);
    looks.push(((wakeAt as number) - world.now()) / 1_000);
    await world.advance((wakeAt as number) - world.now());
    await world.settle();
  }
  expect(looks).toEqual([5, 10, 20, 40, 80, 160, 320, 640, 900, 900]);
  expect(await world.respond(runId, { raise: { calls: 1 } })).toMatchObject({ status: "completed" });
});

scenario("a budget that is not raised stops what asked: an errorNode may go on without it", async (world) => {
  const { code, one } = spending();
  await world.use(code);
  const vars = { call: { estimate: { tokens: 500 } } };
  const runId = await world.start(one, { vars: { ...vars, caught: true }, budget: { tokens: 200 } });
  await world.settle();
  expect((await world.get(runId)).waits[0]?.prompt).toContain("needs 500 tokens, more than all of it");
  expect(await world.respond(runId, { stop: true, reason: "too dear" })).toMatchObject({
    status: "completed",
    output: { code: "BUDGET_EXCEEDED", message: expect.stringContaining("0 tokens of 200 tokens are used (too dear)") },
  });
  const failing = await world.start(one, { vars, budget: { tokens: 200 } });
  await world.settle();
  expect(await world.respond(failing, { stop: true })).toMatchObject({ status: "failed", error: { code: "BUDGET_EXCEEDED" } });
  await world.with((runtime) => runtime.retry(failing));
  await world.settle();
  expect(await world.get(failing)).toMatchObject({ status: "waiting", waits: [{ budget: failing }] });
  expect(await world.respond(failing, { raise: { tokens: 300 } })).toMatchObject({ status: "completed" });
});

scenario("twenty children at once never pass the budget of their tree, and one raise lets all go on", async (world) => {
  const { code, many, seen } = spending();
  await world.use(code);
  const runId = await world.start(many, { vars: { items: Array.from({ length: 20 }, () => ({})) }, budget: { calls: 7 } });
  await world.settle();
  expect(seen).toHaveLength(7);
  expect(await world.with((runtime) => runtime.budgets(runId))).toMatchObject([{ used: 7, limit: 7 }]);
  const { runs } = await world.with((runtime) => runtime.list({ parentRunId: runId, status: "waiting" }));
  expect(runs).toHaveLength(13);
  const [first] = runs as [(typeof runs)[0]];
  expect(await world.with((runtime) => runtime.budgets(first.runId))).toEqual([
    { scope: runId, name: "calls", used: 7, limit: 7, raised: 0 },
  ]);
  await world.respond(first.runId, { raise: { calls: 12 } });
  await world.advance(5_000);
  await world.settle();
  expect(seen).toHaveLength(19);
  await world.advance(10_000);
  await world.settle();
  expect(seen).toHaveLength(19);
  const [last] = (await world.with((runtime) => runtime.list({ parentRunId: runId, status: "waiting" }))).runs;
  await world.respond(last!.runId, { raise: { calls: 5 } });
  expect(await world.get(runId)).toMatchObject({ status: "completed" });
  expect(await world.with((runtime) => runtime.budgets(runId))).toMatchObject([{ used: 20, limit: 24, raised: 17 }]);
});

scenario("a child with a budget of its own waits for that one, and spends from both", async (world) => {
  const { code, above } = spending();
  await world.use(code);
  const child = { times: 3, call: { estimate: { tokens: 100 }, actual: { tokens: 60 } } };
  const runId = await world.start(above, { vars: { child, budget: { tokens: 150 } }, budget: { tokens: 1_000 } });
  await world.settle();
  const [run] = (await world.with((runtime) => runtime.list({ parentRunId: runId }))).runs;
  const childId = run!.runId;
  expect(await world.get(childId)).toMatchObject({ status: "waiting", waits: [{ budget: childId }] });
  await world.respond(childId, { raise: { tokens: 100 } });
  expect(await world.get(runId)).toMatchObject({ status: "completed" });
  expect(await world.with((runtime) => runtime.budgets(childId))).toEqual([
    { scope: childId, name: "tokens", used: 180, limit: 250, raised: 100 },
    { scope: runId, name: "tokens", used: 180, limit: 1_000, raised: 0 },
  ]);
});

scenario("a wait for a budget forgets nothing: what was uncertain or tried before it still is", async (world) => {
  const { code, one, seen } = spending();
  await world.use(code);
  const call = { estimate: { calls: 1 }, fail: "uncertain" };
  const runId = await world.start(one, { vars: { call }, budget: { calls: 1 } });
  await world.settle();
  await world.advance(100);
  await world.settle();
  // The attempt that was cut off stays counted.
  expect(await world.get(runId)).toMatchObject({ status: "waiting", waits: [{ details: { used: 1, needed: 1 } }] });
  expect(await world.respond(runId, { raise: { calls: 1 } })).toMatchObject({ status: "completed" });
  expect(seen).toEqual([
    { attempt: 1, tries: 1, answers: [], timedOut: false, uncertain: false },
    { attempt: 3, tries: 2, answers: [], timedOut: false, uncertain: true },
  ]);
});

scenario("a run that waits for a budget can be cancelled", async (world) => {
  const { code, one, seen } = spending();
  await world.use(code);
  const runId = await world.start(one, { budget: { calls: 0 } });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  await world.with((runtime) => runtime.cancel(runId));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
  expect(seen).toEqual([]);
});

scenario("what a handler asks once there is room is another question", async (world) => {
  const ask = defineEffect("ask", {
    run: async (_: unknown, { answers, budget }: EffectContext): Promise<unknown> => {
      if (answers.length > 0) return answers[0]?.payload;
      const over = await budget.reserve({ calls: 1 });
      return over ? overBudget(over) : wait({ reason: "user", prompt: "really?", again: true });
    },
  });
  const flow = defineWorkflow({
    id: "asks",
    effects: [ask],
    entry: "ask",
    nodes: { ask: () => ask({}, { resultKey: "got", nextNode: "end" }), end: ({ vars }) => complete({ got: vars.got }) },
  });
  await world.use(flow);
  const runId = await world.start(flow, { budget: { calls: 0 } });
  await world.settle();
  const [over] = (await world.get(runId)).waits;
  // Another run of the same budget had taken more than it needed.
  await world.with((runtime) => runtime.store.reserve([{ runId, name: "calls", add: -1 }]));
  await world.advance(5_000);
  const [question] = (await world.get(runId)).waits;
  expect(question).toMatchObject({ prompt: "really?" });
  expect(question?.waitKey).not.toBe(over?.waitKey);
  const late = world.with((runtime) => runtime.resume(runId, { waitKey: over!.waitKey, payload: { raise: { calls: 1 } } }));
  expect(await refusal(late)).toMatch(/^NOT_WAITING|^WAIT_/);
  expect(await world.respond(runId, "yes")).toMatchObject({ status: "completed", output: { got: { text: "yes" } } });
});

scenario("an answer raises no other budget than the one that it was asked for", async (world) => {
  const { code, above } = spending();
  await world.use(code);
  const child = { call: { estimate: { calls: 2, tokens: 20 } } };
  const runId = await world.start(above, {
    vars: { child, budget: { calls: 5, tokens: 10 } },
    budget: { calls: 1, tokens: 100 },
  });
  await world.settle();
  const waiting = async () => (await world.with((runtime) => runtime.list({ parentRunId: runId }))).runs[0]!;
  const { runId: childId } = await waiting();
  const [own] = (await world.get(childId)).waits;
  expect(own).toMatchObject({ budget: childId, details: { name: "tokens" } });
  await world.with((runtime) => runtime.store.reserve([{ runId: childId, name: "tokens", add: -10 }]));
  await world.advance(5_000);
  const [above1] = (await world.get(childId)).waits;
  expect(above1).toMatchObject({ budget: runId, details: { name: "calls" } });
  const late = world.with((runtime) => runtime.resume(childId, { waitKey: own!.waitKey, payload: { raise: { tokens: 10 } } }));
  expect(await refusal(late)).toMatch(/^WAIT_/);
  expect(await world.respond(childId, { raise: { calls: 1 } })).toMatchObject({ status: "completed" });
});

scenario("a cancel calls off what is under way elsewhere, also while its handler waits for a budget", async (world) => {
  const calls: unknown[] = [];
  const job = defineEffect("job", {
    run: async (_: unknown, { budget, cancelled, timedOut, waited }: EffectContext): Promise<unknown> => {
      calls.push([cancelled ? "off" : "on", timedOut, waited ?? null]);
      if (cancelled) return null;
      const over = timedOut ? await budget.reserve({ wallMs: 1 }) : undefined;
      if (over) return overBudget(over);
      return wait({
        reason: "job",
        again: true,
        timeoutMs: 1_000,
        onTimeout: "again",
        onCancel: "again",
        details: { id: 7 },
      });
    },
  });
  const flow = defineWorkflow({
    id: "job",
    effects: [job],
    entry: "go",
    nodes: { go: () => job({}, { nextNode: "end" }), end: () => complete({}) },
  });
  await world.use(flow);
  const runId = await world.start(flow, { budget: { wallMs: 0 } });
  await world.settle();
  await world.advance(1_000);
  expect((await world.get(runId)).waits).toMatchObject([{ budget: runId }]);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
  expect(calls).toEqual([
    ["on", false, null],
    ["on", true, { id: 7 }],
    ["off", true, { id: 7 }],
  ]);
});
