// One effect: its attempts, its failures, what may or may not have happened, and how long it may take.
import { complete, definite, defineEffect, defineWorkflow, permanent, type StepPlan, wait } from "abstractruntime";
import { expect } from "vitest";
import { z } from "zod";
import { refusal, scenario } from "./harness.ts";

const never = new Promise<never>(() => undefined);

/** A workflow that requests one effect and completes with its result, or with the error that went to its errorNode. */
function single(effect: any, options: { errorNode?: boolean; payload?: unknown } = {}) {
  return defineWorkflow({
    id: "single",
    entry: "go",
    effects: [effect],
    nodes: {
      go: (): StepPlan => ({
        effect: { type: effect.effectType, payload: options.payload ?? {}, resultKey: "got" },
        nextNode: "end",
        ...(options.errorNode ? { errorNode: "caught" } : {}),
      }),
      caught: ({ error }) => complete({ caught: { code: error?.code ?? null, message: error?.message ?? null } }),
      end: ({ vars }) => complete({ got: vars.got }),
    },
  });
}

const backoff = (initialMs: number) => ({ initialMs, factor: 2, maxMs: 60_000, jitter: 0 });

scenario("a definite failure is tried again after a backoff that is waited out in process", async (world) => {
  const attempts: { attempt: number; at: number; key: string; uncertain: boolean }[] = [];
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 3, backoff: backoff(200) },
    run: (_: any, { attempt, idempotencyKey, uncertain, clock }) => {
      attempts.push({ attempt, at: clock.now(), key: idempotencyKey, uncertain });
      if (attempt < 3) throw definite(new Error(`no ${attempt}`));
      return attempt;
    },
  });
  const flow = single(flaky);
  await world.use(flow);
  const start = world.now();
  const runId = await world.start(flow);
  await world.settle();
  await world.advance(199);
  expect(attempts).toHaveLength(1);
  await world.advance(1);
  await world.advance(400);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: 3 } });
  expect(attempts).toMatchObject([
    { attempt: 1, at: start, uncertain: false },
    { attempt: 2, at: start + 200, uncertain: false },
    { attempt: 3, at: start + 600, uncertain: false },
  ]);
  expect(new Set(attempts.map(({ key }) => key)).size).toBe(1);
});

scenario("a longer backoff parks the run, with its moment in the row", async (world) => {
  let attempts = 0;
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 3, backoff: backoff(5_000) },
    run: async () => {
      attempts += 1;
      if (attempts < 3) throw definite(new Error("busy"));
      return "ok";
    },
  });
  const flow = single(flaky);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "waiting", wakeAt: world.now() + 5_000, waits: [] });
  await world.advance(5_000);
  expect(await world.get(run.runId)).toMatchObject({ status: "waiting", wakeAt: world.now() + 10_000 });
  await world.advance(10_000);
  expect(await world.get(run.runId)).toMatchObject({ status: "completed", output: { got: "ok" } });
  expect(attempts).toBe(3);
});

scenario("an error that says how long to wait is followed by no attempt before that", async (world) => {
  const asked: unknown[] = [5_000, 100, -1, Number.NaN, "6000", 7_000];
  const limited = defineEffect("limited", {
    speculative: true,
    policy: { maxAttempts: 10, backoff: { ...backoff(2_000), factor: 1 } },
    run: (_: unknown, { attempt }) => {
      if (attempt > asked.length) return "ok";
      const error = Object.assign(new Error("too many"), { retryAfterMs: asked[attempt - 1] });
      // Whether it certainly has not happened makes no difference here.
      throw attempt % 2 === 0 ? error : definite(error);
    },
  });
  const flow = single(limited);
  await world.use(flow);
  const { runId } = await world.run(flow);
  const delays: number[] = [];
  for (const _ of asked) {
    const ms = ((await world.get(runId)).wakeAt as number) - world.now();
    delays.push(ms);
    await world.advance(ms);
  }
  expect(delays).toEqual([5_000, 2_000, 2_000, 2_000, 2_000, 7_000]);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: "ok" } });
});

scenario("attempts that are used up fail the run, with the last error and its stack", async (world) => {
  let attempts = 0;
  const failing = defineEffect("failing", {
    policy: { maxAttempts: 2, backoff: backoff(0) },
    run: () => {
      attempts += 1;
      throw definite(new TypeError(`no ${attempts}`));
    },
  });
  const flow = single(failing);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "failed", error: { code: "EFFECT_FAILED" } });
  expect(run.error?.message).toMatch(/effect "failing" failed after 2 attempts: no 2\. .*errorNode/);
  expect(run.error?.stack).toMatch(/effects\.test\.ts/);
  expect(attempts).toBe(2);
});

scenario("a permanent error is not tried again", async (world) => {
  let attempts = 0;
  const declined = defineEffect("declined", {
    run: () => {
      attempts += 1;
      throw permanent(new Error("card declined"));
    },
  });
  const flow = single(declined);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run.error?.message).toMatch(/failed after 1 attempt: card declined/);
  expect(attempts).toBe(1);
});

scenario("an errorNode takes a failure and sees it", async (world) => {
  const failing = defineEffect("failing", { run: () => Promise.reject(permanent(new Error("no"))) });
  const flow = single(failing, { errorNode: true });
  await world.use(flow);
  expect(await world.run(flow)).toMatchObject({ status: "completed", output: { caught: { code: null, message: "no" } } });
});

scenario("a bad payload and a result that is no JSON are not tried again", async (world) => {
  let calls = 0;
  const typed = defineEffect("typed", { input: z.object({ cents: z.number().int() }), run: () => ++calls });
  const strange = defineEffect("strange", { run: (() => ({ when: new Date(0), calls: ++calls })) as any });
  const bad = single(typed, { payload: { cents: "5" } });
  await world.use(bad);
  expect((await world.run(bad)).error).toMatchObject({
    code: "EFFECT_INPUT_INVALID",
    message: expect.stringMatching(/"typed".*cents: /),
  });
  expect(calls).toBe(0);
  const odd = single(strange);
  await world.use(odd);
  expect((await world.run(odd)).error).toMatchObject({ code: "NOT_JSON", message: expect.stringMatching(/result\/when/) });
  expect(calls).toBe(1);
});

scenario("an error that says nothing is uncertain: tried again under the same key", async (world) => {
  const seen: [number, boolean, string][] = [];
  const send = defineEffect("send", {
    policy: { maxAttempts: 3, backoff: backoff(0) },
    run: async (_: any, { attempt, uncertain, idempotencyKey }) => {
      seen.push([attempt, uncertain, idempotencyKey]);
      if (attempt < 3) throw new Error("connection reset");
      return "sent";
    },
  });
  const flow = single(send);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "completed", output: { got: "sent" } });
  expect(seen.map(([attempt, uncertain]) => [attempt, uncertain])).toEqual([
    [1, false],
    [2, true],
    [3, true],
  ]);
  expect(new Set(seen.map(([, , key]) => key)).size).toBe(1);
  const kinds = (await world.with((runtime) => runtime.ledger(run.runId))).map(({ kind }) => kind);
  expect(kinds.filter((kind) => kind === "effect_uncertain")).toHaveLength(2);
});

scenario("uncertain to the last attempt, or uncertain and onUncertain: fail", async (world) => {
  let attempts = 0;
  const run = (): never => {
    attempts += 1;
    throw new Error("reset");
  };
  const often = single(defineEffect("often", { policy: { maxAttempts: 2, backoff: backoff(0) }, run }));
  await world.use(often);
  const failed = await world.run(often);
  expect(failed.error).toMatchObject({
    code: "EFFECT_UNCERTAIN",
    message: expect.stringMatching(/2 attempts, the last: reset.*idempotency key [0-9a-f]{64}/),
  });
  expect(attempts).toBe(2);
  const once = single(defineEffect("once", { onUncertain: "fail", run }), { errorNode: true });
  await world.use(once);
  expect((await world.run(once)).output).toMatchObject({ caught: { code: "EFFECT_UNCERTAIN" } });
  expect(attempts).toBe(3);
});

scenario("onUncertain: ask puts the question to a person, who says retry or what it gave", async (world) => {
  const seen: [number, boolean][] = [];
  const charge = defineEffect("charge", {
    onUncertain: "ask",
    run: (_: any, { attempt, uncertain }) => {
      seen.push([attempt, uncertain]);
      if (attempt < 3) throw new Error("timeout");
      return "charged";
    },
  });
  const flow = single(charge);
  await world.use(flow);
  const [retried, told] = [await world.run(flow), await world.run(flow)];
  expect(retried.waits).toMatchObject([
    { reason: "user", prompt: expect.stringMatching(/"charge" may or may not have happened \(timeout\)/) },
  ]);
  for (const wrong of ["retry", {}, { retry: false }, { retry: true, result: 1 }, null]) {
    expect(await refusal(world.with((runtime) => runtime.respond(retried.runId, wrong)))).toMatch(
      /^ANSWER_INVALID: .*"retry": true/,
    );
  }
  const asked = await world.respond(retried.runId, { retry: true });
  expect(asked).toMatchObject({ status: "waiting" });
  expect(asked.waits[0]?.waitKey).not.toBe(retried.waits[0]?.waitKey);
  expect(await world.respond(retried.runId, { retry: true })).toMatchObject({ status: "completed", output: { got: "charged" } });
  expect(await world.respond(told.runId, { result: { id: "ch_1" } })).toMatchObject({ output: { got: { id: "ch_1" } } });
  expect(seen).toEqual([
    [1, false],
    [1, false],
    [2, true],
    [3, true],
  ]);
});

scenario("an attempt after an uncertain one may ask a person something else", async (world) => {
  const review = defineEffect("review", {
    policy: { backoff: backoff(0) },
    run: (_: any, { attempt }) => {
      if (attempt === 1) throw new Error("reset");
      return wait({ reason: "user", prompt: "Good?", choices: ["yes", "no"] });
    },
  });
  const flow = single(review);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run.waits).toMatchObject([{ prompt: "Good?" }]);
  expect(await refusal(world.with((runtime) => runtime.respond(run.runId, { retry: true })))).toMatch(
    /^ANSWER_INVALID: .*yes, no/,
  );
  expect(await world.respond(run.runId, "yes")).toMatchObject({ status: "completed", output: { got: { text: "yes" } } });
});

scenario("an attempt that a dead process left open is uncertain, unless it is speculative", async (world) => {
  for (const [speculative, onUncertain] of [
    [true, "retry"],
    [false, "retry"],
    [false, "ask"],
  ] as const) {
    const seen: [number, boolean][] = [];
    const slow = defineEffect("slow", {
      speculative,
      onUncertain,
      policy: { backoff: backoff(0) },
      run: (_: any, { attempt, uncertain }) => {
        seen.push([attempt, uncertain]);
        return attempt === 1 ? never : "done";
      },
    });
    const flow = single(slow);
    await world.use(flow);
    const runId = await world.start(flow);
    await world.settle();
    expect(seen).toEqual([[1, false]]);
    await world.crash();
    await world.settle();
    if (onUncertain === "ask") {
      expect((await world.get(runId)).waits[0]?.prompt).toMatch(/ended before its outcome was recorded/);
      await world.respond(runId, { retry: true });
    }
    expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: "done" } });
    expect(seen).toEqual([
      [1, false],
      [2, !speculative],
    ]);
  }
});

scenario("an attempt that takes too long is aborted; progress() keeps it alive", async (world) => {
  const aborted: unknown[] = [];
  const late: boolean[] = [];
  let progress: () => void = () => undefined;
  let finish: (value: string) => void = () => undefined;
  const slow = defineEffect("slow", {
    speculative: true,
    policy: { maxAttempts: 2, backoff: backoff(0), timeoutMs: 10_000 },
    run: (_: any, context) => {
      if (context.attempt === 1) {
        return new Promise<string>(() => {
          context.clock.setTimer(() => late.push(context.signal.aborted), 10_001);
        });
      }
      context.signal.addEventListener("abort", () => aborted.push(context.signal.reason));
      progress = () => context.progress("still here");
      return new Promise<string>((resolve) => {
        finish = resolve;
      });
    },
  });
  const flow = single(slow);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.advance(9_999);
  expect(await world.get(runId)).toMatchObject({ status: "running" });
  await world.advance(1);
  for (let i = 0; i < 4; i++) {
    await world.advance(9_000);
    progress();
  }
  expect(aborted).toEqual([]);
  finish("at last");
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: "at last" } });
  expect(late).toEqual([true]);
});

scenario("a timeout of an effect that may have happened is uncertain, and its error names what to do", async (world) => {
  let signal: AbortSignal | undefined;
  const slow = defineEffect("slow", {
    onUncertain: "fail",
    policy: { timeoutMs: 10_000 },
    run: (_: any, context) => {
      signal = context.signal;
      return never;
    },
  });
  const flow = single(slow);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.advance(10_000);
  const { status, error } = await world.get(runId);
  expect({ status, code: error?.code }).toEqual({ status: "failed", code: "EFFECT_UNCERTAIN" });
  expect(error?.message).toMatch(/did not settle within 10000 ms/);
  expect(signal?.aborted).toBe(true);
});

scenario("what executes is told to stop when the code for its sibling's next attempt is not here", async (world) => {
  const reasons: string[] = [];
  const flaky = (type: string, initialMs: number) =>
    defineEffect(type, {
      policy: { backoff: backoff(initialMs) },
      run: (_: any, { attempt, signal }) => {
        if (attempt === 1) throw definite(new Error("no"));
        if (attempt > 2 || type === "b") return type;
        signal.addEventListener("abort", () => reasons.push(String(signal.reason)));
        return never;
      },
    });
  const [a, b] = [flaky("a", 5_000), flaky("b", 6_000)];
  const flow = defineWorkflow({
    id: "siblings",
    entry: "go",
    nodes: {
      go: (): StepPlan => ({
        effect: { type: "all", payload: { effects: [{ type: "a" }, { type: "b" }] }, resultKey: "got" },
        nextNode: "end",
      }),
      end: ({ vars }) => complete(vars.got),
    },
  });
  await world.use({ workflows: [flow], effects: [a, b] });
  const { runId } = await world.run(flow);
  await world.use({ workflows: [flow], effects: [a] });
  await world.advance(5_000);
  await world.advance(1_000);
  expect((await world.get(runId)).blocked).toMatchObject({ code: "EFFECT_UNKNOWN" });
  expect(reasons).toHaveLength(1);
  await world.use({ workflows: [flow], effects: [a, b] });
  await world.advance(20_000);
  await world.advance(20_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: ["a", "b"] });
});

scenario("a handler's copies are its own", async (world) => {
  const seen: unknown[] = [];
  const greedy = defineEffect("greedy", {
    policy: { maxAttempts: 2, backoff: backoff(0) },
    run: (input: any, { run, attempt }) => {
      seen.push(structuredClone(input));
      input.list.push("changed");
      (run.vars as any).list.push("changed");
      if (attempt === 1) throw definite(new Error("again"));
      return input;
    },
  });
  const flow = defineWorkflow({
    id: "copies",
    entry: "a",
    effects: [greedy],
    nodes: {
      a: ({ vars }) => greedy({ list: vars.list }, { resultKey: "got", nextNode: "b" }),
      b: ({ vars }) => complete(vars),
    },
  });
  await world.use(flow);
  expect((await world.run(flow, { list: [{ id: 1 }] })).output).toEqual({
    list: [{ id: 1 }],
    got: { list: [{ id: 1 }, "changed"] },
  });
  expect(seen).toEqual([{ list: [{ id: 1 }] }, { list: [{ id: 1 }] }]);
});

scenario("handlers that throw strange things", async (world) => {
  const hostile = Object.defineProperty({}, "message", {
    get() {
      throw new Error("ha");
    },
    enumerable: true,
  });
  for (const thrown of [undefined, null, "text", 7, { code: 1 }, hostile, Object.create(null)]) {
    const odd = defineEffect("odd", {
      policy: { maxAttempts: 1 },
      run: () => {
        throw thrown;
      },
    });
    const flow = single(odd);
    await world.use(flow);
    expect((await world.run(flow)).error).toMatchObject({ code: "EFFECT_UNCERTAIN" });
  }
});

scenario(
  "an effect that throws when it is asked what it excludes, or whether it is harmless, goes on all the same",
  async (world) => {
    for (const option of ["exclusive", "speculative"]) {
      const broken = defineEffect("broken", {
        policy: { maxAttempts: 3, backoff: backoff(2_000) },
        [option]: () => {
          throw new Error("ha");
        },
        run: async (_, { attempt }) => {
          if (attempt < 3) throw definite(new Error("not yet"));
          return attempt;
        },
      });
      const flow = single(broken);
      await world.use(flow);
      const { runId } = await world.run(flow);
      await world.advance(2_000);
      await world.advance(4_000);
      expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: 3 } });
    }
  },
);
