// spend(): a call within the budgets of its run.
import {
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  definite,
  type EffectContext,
  type Spend,
  wait,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { testClock } from "abstractruntime/testing";
import { expect, onTestFinished, test } from "vitest";
import { spend } from "../../src/integrations/budget.ts";

/** A run of one effect that spends in this way, as far as it goes. */
async function spending(
  run: (context: EffectContext, clock: ReturnType<typeof testClock>) => unknown,
  budget: Spend | undefined,
) {
  const clock = testClock();
  const effect = defineEffect("e", {
    policy: { maxAttempts: 2, backoff: { initialMs: 0, factor: 1, maxMs: 0, jitter: 0 } },
    run: async (_: unknown, context: EffectContext) => (await run(context, clock)) as never,
  });
  const flow = defineWorkflow({
    id: "flow",
    effects: [effect],
    entry: "a",
    nodes: { a: () => (effect as any)({}, { nextNode: "b", resultKey: "got" }), b: ({ vars }: any) => complete(vars) },
  } as any) as any;
  const runtime = await createRuntime({ workflows: [flow], store: memoryStore({ clock }), clock, scheduler: false });
  onTestFinished(() => runtime.stop());
  await runtime.start(flow, { runId: "r", ...(budget ? { budget } : {}) });
  const tick = async () => {
    let isOver = false;
    const ticking = runtime.tick("r").finally(() => {
      isOver = true;
    });
    while (!isOver) {
      // For retries. Calls take no time of their own.
      await clock.advance(0);
      await new Promise((resolve) => setImmediate(resolve));
    }
    return ticking;
  };
  const used = async () => Object.fromEntries((await runtime.budgets("r")).map(({ name, used }) => [name, used]));
  return { runtime, clock, tick, used };
}

const budget = { tokens: 100, usd: 1, calls: 2, wallMs: 1_000 };

test("a call is reserved as estimated, and counted as it was", async () => {
  const { tick, used } = await spending(
    (context, clock) =>
      spend(
        context,
        { tokens: 50, usd: 0.5, calls: 1 },
        async () => {
          await clock.advance(40);
          return { tokens: 30 };
        },
        ({ tokens }) => ({ tokens }),
      ),
    budget,
  );
  expect(await tick()).toMatchObject({ status: "completed", output: { got: { tokens: 30 } } });
  expect(await used()).toEqual({ tokens: 30, usd: 0.5, calls: 1, wallMs: 40 });
});

test("without a budget it is the call and nothing else", async () => {
  const { tick, used } = await spending((context) => spend(context, { tokens: 1e30 }, () => "got"), undefined);
  expect(await tick()).toMatchObject({ status: "completed", output: { got: "got" } });
  expect(await used()).toEqual({});
});

test("over budget, nothing is called until a person answers", async () => {
  let called = 0;
  const { tick, used, runtime } = await spending((context) => spend(context, { tokens: 150, calls: 1 }, () => ++called), budget);
  expect(await tick()).toMatchObject({ status: "waiting", waits: [{ budget: "r", details: { name: "tokens", needed: 150 } }] });
  expect(called).toBe(0);
  expect(await used()).toEqual({ tokens: 0, usd: 0, calls: 0, wallMs: 0 });
  await runtime.respond("r", { raise: { tokens: 50 } });
  expect(await tick()).toMatchObject({ status: "completed", output: { got: 1 } });
  expect(await used()).toEqual({ tokens: 150, usd: 0, calls: 1, wallMs: 0 });
});

test("no time left is over budget too", async () => {
  const { tick } = await spending(
    (context, clock) =>
      spend(context, { calls: 1 }, () => clock.advance(2_000).then(() => Promise.reject(definite(new Error("again"))))),
    budget,
  );
  expect(await tick()).toMatchObject({ status: "waiting", waits: [{ details: { name: "wallMs", used: 2_000, limit: 1_000 } }] });
});

test("a call that hangs has taken all the time until its attempt is given up", async () => {
  const hangs = async (context: EffectContext, clock: ReturnType<typeof testClock>) =>
    spend(context, { calls: 1 }, () => {
      void clock.advance(600_000);
      return new Promise<never>(() => undefined);
    });
  const { tick, used } = await spending(hangs, budget);
  expect(await tick()).toMatchObject({ status: "waiting", waits: [{ details: { name: "wallMs", used: 600_000 } }] });
  expect(await used()).toMatchObject({ calls: 1, wallMs: 600_000 });
});

test("what certainly did not happen costs no tokens; what may have happened stays reserved", async () => {
  for (const [error, expected] of [
    [definite(new Error("refused")), { tokens: 10, usd: 0, calls: 2, wallMs: 0 }],
    [new Error("cut off"), { tokens: 20, usd: 0, calls: 2, wallMs: 0 }],
  ] as const) {
    let tried = 0;
    const { tick, used } = await spending(
      (context) =>
        spend(context, { tokens: 10, calls: 1 }, () => {
          tried += 1;
          if (tried === 1) throw error;
          return "got";
        }),
      budget,
    );
    expect(await tick()).toMatchObject({ status: "completed" });
    expect(await used()).toEqual(expected);
  }
});

test("a call that waits and goes on is one call, and its time counts", async () => {
  const { tick, used, runtime } = await spending(
    (context, clock) =>
      spend(context, { calls: 1 }, async () => {
        await clock.advance(5);
        return context.answers.length < 3 ? wait({ reason: "user", prompt: "?", again: true }) : "got";
      }),
    { calls: 1, wallMs: 1_000 },
  );
  for (let i = 0; i < 3; i++) {
    expect(await tick()).toMatchObject({ status: "waiting", waits: [{ prompt: "?" }] });
    await runtime.respond("r", "go on");
  }
  expect(await tick()).toMatchObject({ status: "completed", output: { got: "got" } });
  expect(await used()).toEqual({ calls: 1, wallMs: 20 });
});
