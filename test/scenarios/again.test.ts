// Handlers that ask and are called again with the answer; effects of one run that exclude each other; handlers that are the runtime's.
import {
  all,
  any,
  askUser,
  complete,
  declareEffect,
  defineEffect,
  defineWorkflow,
  definite,
  goto,
  type Json,
  permanent,
  sleep,
  type StepPlan,
  wait,
  waitEvent,
  type DefinedEffect,
} from "abstractruntime";
import { expect } from "vitest";
import { refusal, scenario } from "./harness.ts";

interface Call {
  attempt: number;
  answers: readonly Json[];
  timedOut: boolean;
  cancelled: boolean;
  uncertain: boolean;
  key: string;
}

/** A workflow of one effect, whose handler is given, and the calls that were made of it. */
function asking(run: (call: Call, signal: AbortSignal) => unknown, request: () => StepPlan | undefined = () => undefined) {
  const calls: Call[] = [];
  const ask = defineEffect("ask", {
    policy: { maxAttempts: 2, backoff: { initialMs: 100, factor: 1, maxMs: 100, jitter: 0 } },
    run: (_: unknown, { attempt, answers: given, timedOut, cancelled, uncertain, idempotencyKey: key, signal }): unknown => {
      const answers = given.map(({ payload }) => payload);
      const call = { attempt, answers, timedOut, cancelled, uncertain, key };
      calls.push(call);
      return run(call, signal) as Json;
    },
  });
  const flow = defineWorkflow({
    id: "asking",
    effects: [ask],
    entry: "ask",
    nodes: {
      ask: () => (request() as never) ?? ask({}, { resultKey: "got", nextNode: "end", errorNode: "failed" }),
      end: ({ vars }) => complete({ got: vars.got }),
      failed: ({ error }) => complete({ error: error?.code ?? error?.message ?? null }),
    },
  });
  return { ask, calls, flow };
}

/** Lets those named through `use`, at the same time as far as they do not exclude each other. */
function door<Result>(use: DefinedEffect<"use", { name: string }, Result>, names: readonly string[]) {
  return defineWorkflow({
    id: "door",
    effects: [use],
    entry: "go",
    nodes: {
      go: () =>
        all(
          names.map((name) => use({ name })),
          { resultKey: "got", nextNode: "end" },
        ) as never,
      end: ({ vars }) => complete({ got: vars.got }),
    },
  });
}

scenario("a handler that asks is called again with each answer, under one idempotency key", async (world) => {
  const { flow, calls } = asking(({ answers }) =>
    answers.length < 2
      ? wait({ reason: "user", prompt: `Question ${answers.length + 1}`, again: true })
      : { heard: answers.map((answer) => (answer as { text: string }).text) },
  );
  await world.use(flow);
  const first = await world.run(flow);
  expect(first).toMatchObject({ status: "waiting", wakeAt: null, waits: [{ prompt: "Question 1", again: true }] });
  const second = await world.respond(first.runId, "one");
  expect(second).toMatchObject({ status: "waiting", waits: [{ prompt: "Question 2" }] });
  // An old answer fits no new question.
  expect(second.waits[0]?.waitKey).not.toBe(first.waits[0]?.waitKey);
  expect(
    await refusal(world.with((runtime) => runtime.resume(first.runId, { waitKey: first.waits[0]!.waitKey, payload: "late" }))),
  ).toMatch(/^ALREADY_ANSWERED/);
  expect(await world.respond(first.runId, "two")).toMatchObject({
    status: "completed",
    output: { got: { heard: ["one", "two"] } },
  });
  expect(calls.map(({ attempt, answers }) => [attempt, answers])).toEqual([
    [1, []],
    [2, [{ text: "one" }]],
    [3, [{ text: "one" }, { text: "two" }]],
  ]);
  expect(new Set(calls.map(({ key }) => key)).size).toBe(1);
  expect(await world.kinds(first.runId)).toEqual([
    "run_started",
    "effect_started 1",
    "parked 1",
    "delivered 1 again",
    "effect_started 1",
    "parked 1",
    "delivered 1 again",
    "effect_started 1",
    "effect_completed 1",
    "run_completed",
  ]);
});

scenario("attempts before an answer count for no policy, and what was uncertain then is not any more", async (world) => {
  const { flow, calls } = asking(({ answers, attempt }) => {
    if (answers.length === 0) {
      if (attempt === 1) throw new Error("cut off");
      return wait({ reason: "user", prompt: "?", again: true });
    }
    if (attempt < 4) throw definite(new Error("not yet"));
    return "done";
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(100);
  await world.respond(runId, "go");
  await world.advance(100);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: "done" } });
  expect(calls.map(({ attempt, uncertain }) => [attempt, uncertain])).toEqual([
    [1, false],
    [2, true],
    [3, false],
    [4, false],
  ]);
});

scenario("a deadline calls the handler again, as often as it asks for it, and an answer still counts", async (world) => {
  const { flow, calls } = asking(({ answers }) =>
    answers.length > 0 ? answers[0] : wait({ reason: "job", again: true, timeoutMs: 1_000, onTimeout: "again" }),
  );
  await world.use(flow);
  const { runId, wakeAt } = await world.run(flow);
  expect(wakeAt).toBe(world.now() + 1_000);
  for (let i = 0; i < 3; i++) await world.advance(1_000);
  const run = await world.get(runId);
  expect(run).toMatchObject({ status: "waiting", wakeAt: world.now() + 1_000 });
  expect(calls.map(({ attempt, timedOut, answers }) => [attempt, timedOut, answers])).toEqual([
    [1, false, []],
    [2, true, []],
    [3, true, []],
    [4, true, []],
  ]);
  expect(await world.resume(runId, run.waits[0]!.waitKey, { finished: true })).toMatchObject({
    status: "completed",
    output: { got: { finished: true } },
  });
  expect(calls.at(-1)).toMatchObject({ attempt: 5, timedOut: false });
});

scenario("without onTimeout the deadline fails the effect", async (world) => {
  const { flow, calls } = asking(() => wait({ reason: "user", prompt: "?", again: true, timeoutMs: 1_000 }));
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { error: "WAIT_TIMEOUT" } });
  expect(calls).toHaveLength(1);
});

scenario("a cancel calls the handler once more where it asked for that, and never again", async (world) => {
  const { flow, calls } = asking(() => wait({ reason: "job", again: true, onCancel: "again" }));
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled", waits: [], wakeAt: null });
  expect(calls.map(({ attempt, cancelled, timedOut }) => [attempt, cancelled, timedOut])).toEqual([
    [1, false, false],
    [2, true, false],
  ]);
  expect((await world.kinds(runId)).slice(-4)).toEqual(["control cancel", "effect_started 1", "parked 1", "run_cancelled"]);
});

scenario("what a handler throws when it is called off changes nothing about the cancel", async (world) => {
  const { flow } = asking(({ cancelled }) => {
    if (cancelled) throw new Error("nobody answers there");
    return wait({ reason: "job", again: true, onCancel: "again" });
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
  expect((await world.kinds(runId)).slice(-4)).toEqual([
    "control cancel",
    "effect_started 1",
    "effect_uncertain 1",
    "run_cancelled",
  ]);
});

scenario("members of a group ask each for themselves", async (world) => {
  const { ask, flow, calls } = asking(
    ({ answers }) => (answers.length === 0 ? wait({ reason: "user", prompt: "?", again: true }) : answers[0]),
    () => all([ask({}), ask({}), askUser({ prompt: "plain?" })], { resultKey: "got", nextNode: "end" }),
  );
  await world.use(flow);
  const { runId, waits } = await world.run(flow);
  expect(waits).toHaveLength(3);
  for (const [i, { waitKey }] of [...waits].reverse().entries()) await world.resume(runId, waitKey, { text: `${i}` });
  expect(await world.get(runId)).toMatchObject({
    status: "completed",
    output: { got: [{ text: "2" }, { text: "1" }, { text: "0" }] },
  });
  expect(calls).toHaveLength(4);
});

scenario("one that asks in an any is closed when another wins", async (world) => {
  const { ask, flow, calls } = asking(
    () => wait({ reason: "user", prompt: "?", again: true }),
    () => any([ask({}), sleep({ ms: 500 }) as never], { resultKey: "got", nextNode: "end" }),
  );
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(500);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: { index: 1 } } });
  expect(calls).toHaveLength(1);
});

scenario("a failed run that is retried has its answers still", async (world) => {
  let broken = true;
  const { ask, flow, calls } = asking(
    ({ answers }) => {
      if (answers.length === 0) return wait({ reason: "user", prompt: "?", again: true });
      if (broken) throw definite(new Error("broken"));
      return answers[0];
    },
    () => ask({}, { resultKey: "got", nextNode: "end" }),
  );
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.respond(runId, "yes");
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({ status: "failed" });
  broken = false;
  expect(await world.retry(runId)).toMatchObject({ status: "completed", output: { got: { text: "yes" } } });
  expect(calls.map(({ answers }) => answers.length)).toEqual([0, 1, 1, 1]);
});

scenario("of effects that exclude each other one executes at a time, in order, and others beside them", async (world) => {
  const running = new Set<string>();
  const order: string[] = [];
  let most = 0;
  const use = defineEffect("use", {
    exclusive: (payload) => (payload as { door?: string }).door,
    run: async ({ name }: { name: string; door?: string }, { clock }) => {
      running.add(name);
      most = Math.max(most, running.size);
      order.push(name);
      await new Promise<void>((resolve) => clock.setTimer(resolve, 100, true));
      running.delete(name);
      return name;
    },
  });
  const flow = defineWorkflow({
    id: "doors",
    effects: [use],
    entry: "go",
    nodes: {
      go: () =>
        all(
          [
            use({ name: "a1", door: "a" }),
            use({ name: "free" }),
            use({ name: "a2", door: "a" }),
            use({ name: "b1", door: "b" }),
            use({ name: "a3", door: "a" }),
          ],
          {
            resultKey: "got",
            nextNode: "end",
          },
        ),
      end: ({ vars }) => complete({ got: vars.got }),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  for (let i = 0; i < 3; i++) {
    expect([...running].filter((name) => name.startsWith("a"))).toHaveLength(1);
    await world.advance(100);
  }
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: ["a1", "free", "a2", "b1", "a3"] } });
  expect(order).toEqual(["a1", "free", "b1", "a2", "a3"]);
  expect(most).toBe(3);
});

scenario("an effect that waits lets the next of those it excludes begin", async (world) => {
  const order: string[] = [];
  const use = defineEffect("use", {
    exclusive: () => "one",
    run: ({ name }: { name: string }, { answers }): unknown => {
      order.push(`${name}${answers.length}`);
      return name === "first" && answers.length === 0 ? wait({ reason: "user", prompt: "?", again: true }) : name;
    },
  });
  const flow = door(use, ["first", "second"]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(order).toEqual(["first0", "second0"]);
  expect(await world.respond(runId, "now")).toMatchObject({ status: "completed", output: { got: ["first", "second"] } });
  expect(order).toEqual(["first0", "second0", "first1"]);
});

scenario("an effect that is to be tried again has not settled: those that it excludes wait on, over restarts", async (world) => {
  const order: string[] = [];
  const use = defineEffect("use", {
    exclusive: () => "one",
    policy: { backoff: { initialMs: 30_000, jitter: 0 } },
    run: ({ name }: { name: string }) => {
      order.push(name);
      if (order.length === 1) throw definite(new Error("busy"));
      return name;
    },
  });
  const flow = door(use, ["a", "b", "c"]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(order).toEqual(["a"]);
  await world.advance(29_000);
  expect(order).toEqual(["a"]);
  await world.advance(2_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed" });
  expect(order).toEqual(["a", "a", "b", "c"]);
});

scenario("what is speculative may be said by the payload", async (world) => {
  const kinds: string[] = [];
  const read = defineEffect("file", {
    speculative: (payload) => (payload as { mode: string }).mode === "read",
    policy: { maxAttempts: 2, backoff: { initialMs: 0, factor: 1, maxMs: 0, jitter: 0 } },
    onUncertain: "fail",
    run: ({ mode }: { mode: string }, { attempt }) => {
      kinds.push(`${mode} ${attempt}`);
      if (attempt === 1) throw new Error("cut off");
      return mode;
    },
  });
  const flow = defineWorkflow({
    id: "files",
    effects: [read],
    entry: "go",
    nodes: {
      go: () =>
        all([read({ mode: "read" }), read({ mode: "write" })], { onFailure: "collect", resultKey: "got", nextNode: "end" }),
      end: ({ vars }) => complete({ got: vars.got }),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.get(runId)).toMatchObject({
    status: "completed",
    output: {
      got: [
        { status: "completed", result: "read" },
        { status: "failed", error: { code: "EFFECT_UNCERTAIN" } },
      ],
    },
  });
  expect(kinds.sort()).toEqual(["read 1", "read 2", "write 1"]);
});

scenario("a declared effect is carried out by the runtime's handler, and waits for one", async (world) => {
  const ask = declareEffect<"model", { prompt: string }, { text: string }>("model");
  const flow = defineWorkflow({
    id: "declares",
    effects: [ask],
    entry: "go",
    nodes: { go: () => ask({ prompt: "hello" }, { resultKey: "got", nextNode: "end" }), end: ({ vars }) => complete(vars.got) },
  });
  const handler = (text: string) =>
    defineEffect("model", { run: ({ prompt }: { prompt: string }) => ({ text: `${text} ${prompt}` }) });
  await world.use(flow);
  const blocked = await world.run(flow);
  expect(blocked).toMatchObject({ blocked: { code: "EFFECT_UNKNOWN" } });
  await world.use({ workflows: [flow], effects: [handler("here:")] });
  await world.settle();
  expect(await world.get(blocked.runId)).toMatchObject({ status: "completed", output: { text: "here: hello" } });
});

scenario("a cancel calls off what is under way elsewhere, also between two looks at it", async (world) => {
  const calls: unknown[] = [];
  const job = defineEffect("job", {
    policy: { maxAttempts: 5, backoff: { initialMs: 60_000, factor: 1, maxMs: 60_000, jitter: 0 } },
    run: (_: unknown, { cancelled, timedOut, waited, signal }): unknown => {
      calls.push([cancelled ? "off" : "on", waited ?? null]);
      if (cancelled) return null;
      const hangs = new Promise((_, reject) => signal.addEventListener("abort", () => reject(definite(new Error("cut off")))));
      if (timedOut) return calls.length === 2 ? Promise.reject(definite(new Error("unreachable"))) : hangs;
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
    nodes: { go: () => job({}, { resultKey: "got", nextNode: "end" }), end: () => complete() },
  });
  await world.use(flow);
  for (const isLooking of [false, true]) {
    calls.length = 0;
    const { runId } = await world.run(flow);
    await world.advance(1_000);
    // The first look failed, and the next one is an age away, or under way.
    if (isLooking) await world.advance(60_000);
    expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
    const looks = isLooking ? 2 : 1;
    expect(calls).toEqual([["on", null], ...Array.from({ length: looks }, () => ["on", { id: 7 }]), ["off", { id: 7 }]]);
  }
});

scenario("what a group goes on without is called off first", async (world) => {
  // A look is due at the very moment at which the group fails.
  const job = () => wait({ reason: "job", again: true, timeoutMs: 500, onTimeout: "again", onCancel: "again" });
  const groups = (ask: any) => [
    any([all([ask({}), ask({})]), waitEvent("go"), ask({})], { nextNode: "end" }),
    // It fails fast, and nothing comes back to it.
    all([ask({}), waitEvent({ key: "go", timeoutMs: 500 }), ask({})], { nextNode: "end", errorNode: "failed" }),
  ];
  for (const [i, left] of [3, 2].entries()) {
    let ends: (() => void) | undefined;
    const { ask, flow, calls } = asking(
      ({ cancelled }) => {
        if (!cancelled) return job();
        if (i === 0) throw new Error("nobody answers there");
        return new Promise((resolve) => {
          ends = () => resolve(null);
        });
      },
      () => groups(ask)[i],
    );
    await world.use(flow);
    const { runId } = await world.run(flow);
    if (i === 0) await world.signal(runId, "go");
    else await world.advance(500);
    // It is waited for, as long as for an effect that is told to stop.
    if (i === 1) {
      expect(await world.get(runId)).toMatchObject({ status: "running" });
      ends?.();
      await world.advance(5_000);
    }
    expect(await world.get(runId)).toMatchObject({ status: "completed", output: i === 0 ? {} : { error: "WAIT_TIMEOUT" } });
    expect(calls.map(({ cancelled }) => cancelled)).toEqual([...Array(left).fill(false), ...Array(left).fill(true)]);
  }
});

scenario("where its handler is gone, what a group goes on without is given up", async (world) => {
  const job = declareEffect("job");
  const handler = defineEffect("job", { run: () => wait({ reason: "job", again: true, onCancel: "again" }) });
  const flow = defineWorkflow({
    id: "flow",
    effects: [job],
    entry: "go",
    nodes: { go: () => any([job({}), waitEvent("go")], { nextNode: "end" }), end: () => complete() },
  });
  await world.use({ workflows: [flow], effects: [handler] });
  const { runId } = await world.run(flow);
  await world.use(flow);
  expect(await world.signal(runId, "go")).toMatchObject({ status: "completed" });
});

scenario("a process without the code leaves what is to be called off to one that has it", async (world) => {
  for (const how of ["cancelled", "completed"]) {
    const { ask, flow, calls } = asking(
      () => wait({ reason: "job", again: true, onCancel: "again" }),
      () => (how === "completed" ? any([ask({}), waitEvent("go")], { nextNode: "end" }) : undefined),
    );
    await world.use(flow);
    const { runId } = await world.run(flow);
    await world.use(defineWorkflow({ id: "other", entry: "a", nodes: { a: () => complete() } }));
    if (how === "cancelled") await world.with((runtime) => runtime.cancel(runId));
    else {
      await world.with((runtime) => runtime.signal(runId, "go"));
      // What is asked of a run is carried out by any process, which takes the mail before it, too.
      await world.pause(runId);
      await world.unpause(runId);
    }
    await world.settle();
    expect(["running", "waiting"]).toContain((await world.get(runId)).status);
    await world.use(flow);
    await world.settle();
    expect(await world.get(runId)).toMatchObject({ status: how });
    expect(calls.map(({ cancelled }) => cancelled)).toEqual([false, true]);
  }
});

scenario("a process that dies while it calls off leaves that to the next, which does not do so for ever", async (world) => {
  const groups = { cancel: undefined, any: (ask: any) => any([ask({}), waitEvent("go")], { nextNode: "end" }) };
  for (const [how, request] of Object.entries(groups)) {
    let deaths = 2;
    const { ask, flow, calls } = asking(
      ({ cancelled }) => {
        if (!cancelled) return wait({ reason: "job", again: true, onCancel: "again" });
        return deaths > 0 ? new Promise(() => undefined) : null;
      },
      () => request?.(ask),
    );
    await world.use(flow);
    const { runId } = await world.run(flow);
    const send = (to: string): Promise<unknown> =>
      world.with<unknown>((runtime) => (how === "cancel" ? runtime.cancel(to) : runtime.signal(to, "go")));
    await send(runId);
    await world.settle();
    while (deaths > 0) {
      await world.crash();
      deaths -= 1;
      if (how === "any" && deaths > 0) {
        // Whoever comes next may not have the code.
        await world.use(defineWorkflow({ id: "other", entry: "a", nodes: { a: () => complete() } }));
        await world.pause(runId);
        await world.unpause(runId);
        await world.use(flow);
      }
      await world.settle();
    }
    expect((await world.get(runId)).status).toBe(how === "cancel" ? "cancelled" : "completed");
    expect(calls.map(({ cancelled }) => cancelled)).toEqual([false, true, true, true]);
    expect(new Set(calls.map(({ key }) => key)).size).toBe(1);

    // Where each death costs a millisecond.
    if (world.kind !== "memory") continue;
    const other = await world.run(flow);
    deaths = Number.POSITIVE_INFINITY;
    await send(other.runId);
    await world.settle();
    for (let died = 0; died < 15; died++) {
      await world.crash();
      await world.settle();
    }
    await world.advance(40_000);
    expect((await world.get(other.runId)).status).toBe(how === "cancel" ? "cancelled" : "completed");
  }
});

scenario("what waits in a group that failed is not called again by a cancel", async (world) => {
  const { ask, flow, calls } = asking(
    () => wait({ reason: "job", again: true, onCancel: "again" }),
    () =>
      all([all([ask({}), broken({})]), askUser({ prompt: "?" })], { onFailure: "collect", resultKey: "got", nextNode: "end" }),
  );
  const broken = defineEffect("broken", {
    run: (): null => {
      throw permanent(new Error("broken"));
    },
  });
  await world.use({ workflows: [flow], effects: [broken] });
  const { runId } = await world.run(flow);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
  expect(calls).toHaveLength(1);
});

scenario("a failed run that is retried still knows what its last wait said", async (world) => {
  const seen: unknown[] = [];
  const job = defineEffect("job", {
    run: (_: unknown, { waited }): unknown => {
      seen.push(waited ?? null);
      return waited ?? wait({ reason: "job", again: true, timeoutMs: 1_000, details: { id: 7 } });
    },
  });
  const flow = defineWorkflow({
    id: "job",
    effects: [job],
    entry: "go",
    nodes: { go: () => job({}, { resultKey: "got", nextNode: "end" }), end: ({ vars }) => complete({ got: vars.got }) },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({ status: "failed", error: { code: "WAIT_TIMEOUT" } });
  expect(await world.retry(runId)).toMatchObject({ status: "completed", output: { got: { id: 7 } } });
  expect(seen).toEqual([null, { id: 7 }]);
});

scenario("who asks for more time than there is gets a year", async (world) => {
  const { flow } = asking(() => {
    throw Object.assign(new Error("later"), { definite: true, retryAfterMs: Number.MAX_VALUE });
  });
  await world.use(flow);
  expect(await world.run(flow)).toMatchObject({ status: "waiting", wakeAt: world.now() + 365 * 24 * 3_600_000 });
});

scenario("a payload of which cannot be said whether it is speculative is not", async (world) => {
  const read = defineEffect("read", {
    speculative: (payload) => (payload as { file: { mode: string } }).file.mode === "read",
    onUncertain: "fail",
    run: (): null => {
      throw new Error("cut off");
    },
  });
  const flow = defineWorkflow({
    id: "read",
    effects: [read],
    entry: "go",
    nodes: {
      go: () => read({}, { nextNode: "end", errorNode: "end" }),
      end: ({ error }) => complete({ error: error?.code ?? null }),
    },
  });
  await world.use(flow);
  expect(await world.run(flow)).toMatchObject({ status: "completed", output: { error: "EFFECT_UNCERTAIN" } });
});

scenario("a long backoff of one lets the next of those it excludes begin, and costs nothing meanwhile", async (world) => {
  const order: string[] = [];
  const use = defineEffect("use", {
    exclusive: () => "one",
    run: ({ name }: { name: string }, { attempt }): string => {
      order.push(`${name}${attempt}`);
      if (name === "first" && attempt === 1) throw Object.assign(new Error("later"), { definite: true, retryAfterMs: 3_600_000 });
      return name;
    },
  });
  const flow = door(use, ["first", "second"]);
  await world.use(flow);
  const { runId, status, wakeAt } = await world.run(flow);
  expect({ status, wakeAt }).toEqual({ status: "waiting", wakeAt: world.now() + 3_600_000 });
  expect(order).toEqual(["first1", "second1"]);
  await world.advance(3_600_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: ["first", "second"] } });
});

scenario("what is asked about a payload changes nothing of it", async (world) => {
  const spoils = (payload: Json): void => void (payload as { list: number[] }).list.reverse();
  const look = defineEffect("look", {
    speculative: (payload) => {
      spoils(payload);
      return true;
    },
    exclusive: (payload) => {
      spoils(payload);
      return "one";
    },
    run: ({ list }: { list: number[] }) => [...list],
  });
  const flow = defineWorkflow({
    id: "look",
    effects: [look],
    entry: "fill",
    nodes: {
      fill: ({ vars }) => {
        vars.list = [1, 2, 3];
        return goto("go");
      },
      go: ({ vars }) => all([look({ list: vars.list }), look({ list: vars.list })], { resultKey: "seen", nextNode: "end" }),
      end: ({ vars }) => complete({ list: vars.list, seen: vars.seen }),
    },
  });
  await world.use(flow);
  const list = [1, 2, 3];
  expect(await world.run(flow)).toMatchObject({ status: "completed", output: { list, seen: [list, list] } });
});
