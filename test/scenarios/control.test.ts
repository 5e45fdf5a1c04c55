// Cancel, pause, unpause and retry, in every state that a run may be in, and the messages of runs that have ended.
import {
  all,
  any,
  askUser,
  complete,
  definite,
  defineEffect,
  defineWorkflow,
  fail,
  fanOut,
  goto,
  join,
  permanent,
  sleep,
  type StepPlan,
  subworkflow,
  wait,
  waitEvent,
} from "abstractruntime";
import { expect } from "vitest";
import { everyRun, refusal, scenario, type World } from "./harness.ts";

const backoff = (initialMs: number) => ({ initialMs, factor: 2, maxMs: 60_000, jitter: 0 });
const to = { resultKey: "got", nextNode: "end" };

/** A workflow of one plan, and an end that gives what it got. */
function flowOf(plan: (vars: any) => any, effects: readonly any[] = [], more: Record<string, any> = {}) {
  const { nodes = {}, ...rest } = more;
  return defineWorkflow({
    id: "flow",
    entry: "go",
    effects,
    nodes: {
      go: ({ vars }: any): StepPlan => plan(vars),
      end: ({ vars }: any) => complete({ got: vars.got ?? null }),
      ...nodes,
    },
    ...rest,
  } as any);
}

const asking = defineWorkflow({
  id: "asking",
  entry: "ask",
  nodes: {
    ask: () => askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "end" }),
    end: ({ vars }) => complete({ said: vars.answer.text }),
  },
});

const childrenOf = (world: World, parentRunId: string) =>
  world.with(async (runtime) => (await runtime.list({ parentRunId, order: "oldest" })).runs);
const statuses = async (world: World) =>
  Object.fromEntries((await world.with(everyRun)).map(({ workflowId, status }) => [workflowId, status]));
const refused = (world: World, call: (runtime: any) => Promise<unknown>) => refusal(world.with(call));

/** An effect whose attempts the test settles, and what became of their signals. */
function held(type = "held", options: Record<string, unknown> = {}) {
  const calls: { settle: (value: unknown) => void; reject: (error: unknown) => void; signal: AbortSignal; key: string }[] = [];
  const effect = defineEffect(type, {
    policy: { maxAttempts: 3, backoff: backoff(5_000) },
    ...options,
    run: (_: any, { signal, idempotencyKey }) =>
      new Promise((settle, reject) => {
        calls.push({ settle, reject, signal, key: idempotencyKey });
      }),
  });
  return { effect, calls };
}

// ---- Cancel ------------------------------------------------------------------------------------------------------------

scenario("cancel ends a run that waits, whatever it waits for", async (world) => {
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 3, backoff: backoff(60_000) },
    run: () => {
      throw definite(new Error("no"));
    },
  });
  for (const plan of [
    () => askUser({ prompt: "?" }, to),
    () => waitEvent("go", to),
    () => sleep(60_000, to),
    () => flaky({}, to),
    () => all([waitEvent("a"), sleep(1_000)], to),
    () => any([waitEvent("a"), all([waitEvent("b")])], to),
  ]) {
    const flow = flowOf(plan, [flaky]);
    await world.use(flow);
    const { runId } = await world.run(flow);
    const run = await world.cancel(runId, { reason: "not needed" });
    expect(run).toMatchObject({ status: "cancelled", cancelling: { reason: "not needed" }, waits: [], wakeAt: null });
    expect(run.error).toBeUndefined();
    expect(run.output).toBeUndefined();
    expect((await world.kinds(runId)).slice(-2)).toEqual(["control cancel", "run_cancelled"]);
    expect(await refused(world, (runtime) => runtime.result(runId))).toMatch(/^RUN_CANCELLED: .*not needed/);
    // What it waited for is nobody's any more.
    expect(await refused(world, (runtime) => runtime.respond(runId, "late"))).toMatch(/^NOT_WAITING/);
    expect(await refused(world, (runtime) => runtime.signal(runId, "go"))).toMatch(/^RUN_ENDED/);
    const { seq } = run;
    await world.advance(120_000);
    expect(await world.get(runId)).toMatchObject({ status: "cancelled", seq });
  }
});

scenario("cancel while an effect executes: its signal aborts, and what it did is recorded", async (world) => {
  for (const [settle, expected] of [
    [(call: any) => call.settle("done"), "effect_completed 1"],
    [(call: any) => call.reject(definite(new Error("stopped in time"))), "effect_failed 1"],
    [(call: any) => call.reject(permanent(new Error("declined"))), "effect_failed 1"],
    [(call: any) => call.reject(call.signal.reason), "effect_uncertain 1"],
  ] as const) {
    const { effect, calls } = held();
    const flow = flowOf(() => effect({}, to), [effect]);
    await world.use(flow);
    const runId = await world.start(flow);
    await world.settle();
    expect(calls[0]?.signal.aborted).toBe(false);
    const run = await world.cancel(runId, { reason: "enough" });
    expect(run).toMatchObject({ status: "running", cancelling: { reason: "enough" } });
    expect(calls[0]?.signal.aborted).toBe(true);
    expect(calls[0]?.signal.reason).toMatchObject({ code: "RUN_CANCELLED" });
    settle(calls[0]);
    await world.settle();
    expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
    expect(await world.kinds(runId)).toEqual(["run_started", "effect_started 1", "control cancel", expected, "run_cancelled"]);
    expect(calls).toHaveLength(1);
  }
});

scenario("a handler that does not answer its signal is given five seconds, and is then uncertain", async (world) => {
  const { effect, calls } = held();
  const flow = flowOf(() => effect({}, to), [effect]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.cancel(runId);
  await world.advance(4_999);
  expect(await world.get(runId)).toMatchObject({ status: "running" });
  // A second cancel does not give it more time.
  await world.cancel(runId);
  await world.advance(1);
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
  expect((await world.kinds(runId)).slice(-3)).toEqual(["control cancel", "effect_uncertain 1", "run_cancelled"]);
  // Too late for anybody.
  calls[0]?.settle("late");
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
});

scenario("what a dead process left executing is recorded as uncertain before the cancel ends the run", async (world) => {
  const { effect, calls } = held();
  const flow = flowOf(() => effect({}, to), [effect]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.crash();
  await world.manually((runtime) => runtime.cancel(runId));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
  expect((await world.kinds(runId)).slice(-3)).toEqual(["control cancel", "effect_uncertain 1", "run_cancelled"]);
  expect(calls).toHaveLength(1);
});

scenario("cancel before the run began: no node runs", async (world) => {
  let ran = 0;
  const flow = flowOf(() => {
    ran += 1;
    return goto("end");
  });
  await world.use(flow);
  const runId = await world.start(flow, { delayMs: 60_000 });
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
  await world.advance(60_000);
  const now = await world.manually(async (runtime) => {
    const started = await runtime.start(flow);
    await runtime.cancel(started.runId);
    return started.runId;
  });
  await world.settle();
  expect(await world.get(now)).toMatchObject({ status: "cancelled", step: 1 });
  expect(await world.kinds(now)).toEqual(["run_started", "control cancel", "run_cancelled"]);
  expect(ran).toBe(0);
});

scenario("a second cancel does nothing, and ended runs say so", async (world) => {
  const flow = flowOf((vars) => (vars.fails ? fail("no") : vars.asks ? askUser({ prompt: "?" }, to) : goto("end")));
  await world.use(flow);
  const cancelled = await world.run(flow, { asks: true });
  await world.manually(async (runtime) => {
    await runtime.cancel(cancelled.runId, { reason: "first" });
    await runtime.cancel(cancelled.runId, { reason: "second" });
  });
  await world.settle();
  const { seq } = await world.get(cancelled.runId);
  expect(await world.cancel(cancelled.runId, { reason: "third" })).toMatchObject({
    status: "cancelled",
    cancelling: { reason: "first" },
    seq,
  });
  const completed = await world.run(flow);
  const failed = await world.run(flow, { fails: true });
  for (const { runId } of [completed, failed]) {
    expect(await refused(world, (runtime) => runtime.cancel(runId))).toMatch(/^RUN_ENDED/);
  }
  for (const { runId } of [completed, failed, cancelled]) {
    const before = await world.get(runId);
    expect(await refused(world, (runtime) => runtime.pause(runId))).toMatch(/^RUN_ENDED/);
    expect(await refused(world, (runtime) => runtime.unpause(runId))).toMatch(/^RUN_ENDED/);
    expect(await refused(world, (runtime) => runtime.signal(runId, "k"))).toMatch(/^RUN_ENDED/);
    expect(await refused(world, (runtime) => runtime.respond(runId, "k"))).toMatch(/^NOT_WAITING|^ALREADY_ANSWERED/);
    expect(await world.get(runId)).toEqual(before);
  }
  for (const call of ["cancel", "pause", "unpause", "retry"]) {
    expect(await refused(world, (runtime) => runtime[call]("nobody"))).toMatch(/^RUN_NOT_FOUND/);
  }
});

scenario("cancel while paused ends the run at once", async (world) => {
  const flow = flowOf(() => askUser({ prompt: "?" }, to), [], { nodes: { clean: () => complete("clean") }, onCancel: "clean" });
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.pause(runId)).toMatchObject({ paused: true, wakeAt: null });
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled", paused: false, output: "clean" });
});

scenario("cancel and pause at once, in either order", async (world) => {
  const flow = flowOf(() => askUser({ prompt: "?" }, to));
  await world.use(flow);
  for (const calls of [
    ["cancel", "pause"],
    ["pause", "cancel"],
    ["pause", "cancel", "unpause"],
    ["cancel", "unpause", "pause"],
  ] as const) {
    const { runId } = await world.run(flow);
    await world.manually(async (runtime) => {
      for (const call of calls) await runtime[call](runId);
    });
    await world.settle();
    expect(await world.get(runId)).toMatchObject({ status: "cancelled", waits: [] });
  }
});

scenario("an answer that came before the cancel counts; one behind it does not", async (world) => {
  const flow = flowOf(() => askUser({ prompt: "?" }, to), [], {
    nodes: { clean: ({ vars }: any) => complete({ answer: vars.got ?? null }) },
    onCancel: "clean",
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.manually(async (runtime) => {
    await runtime.cancel(runId);
    await runtime.respond(runId, "late").catch(() => undefined);
  });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled", output: { answer: null } });
  const other = await world.run(flow);
  await world.manually(async (runtime) => {
    await runtime.respond(other.runId, "early");
    await runtime.cancel(other.runId);
  });
  await world.settle();
  // Whether the next node ran before the cancel was seen is not promised; the end is.
  const { status, output } = await world.get(other.runId);
  expect(status === "cancelled" ? output : "completed").toSatisfy(
    (got: any) => got === "completed" || got.answer?.text === "early",
  );
});

scenario("cancel while backing off in process, and while parked in backoff: no further attempt", async (world) => {
  for (const initialMs of [500, 5_000]) {
    let attempts = 0;
    const flaky = defineEffect("flaky", {
      policy: { maxAttempts: 5, backoff: backoff(initialMs) },
      run: () => {
        attempts += 1;
        throw definite(new Error("no"));
      },
    });
    const flow = flowOf(() => flaky({}, to), [flaky]);
    await world.use(flow);
    const runId = await world.start(flow);
    await world.settle();
    expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
    await world.advance(60_000);
    expect(attempts).toBe(1);
  }
});

scenario("cancel while a decided group waits for its executing losers", async (world) => {
  const { effect, calls } = held();
  const flow = flowOf(() => any([effect({}), waitEvent("win")], to), [effect]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.signal(runId, "win", 1);
  expect(calls[0]?.signal.aborted).toBe(true);
  expect(await world.get(runId)).toMatchObject({ status: "running" });
  await world.cancel(runId);
  calls[0]?.settle("it happened");
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
  expect(await world.kinds(runId)).toContain("effect_completed 1.0");
});

scenario("cancel while several members execute: each outcome is recorded", async (world) => {
  const { effect, calls } = held();
  const flow = flowOf(() => all([effect({ n: 1 }), effect({ n: 2 }), effect({ n: 3 }), askUser({ prompt: "?" })], to), [effect]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.cancel(runId);
  expect(calls.map(({ signal }) => signal.aborted)).toEqual([true, true, true]);
  calls[1]?.settle("two");
  calls[0]?.reject(permanent(new Error("one")));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "running" });
  await world.advance(5_000);
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
  const kinds = await world.kinds(runId);
  for (const kind of ["effect_completed 1.1", "effect_failed 1.0", "effect_uncertain 1.2"]) {
    expect(kinds.filter((recorded) => recorded === kind)).toHaveLength(1);
  }
});

scenario("cancel while a node runs asynchronously: its plan is not begun", async (world) => {
  let release: () => void = () => undefined;
  let executed = 0;
  const pay = defineEffect("pay", { run: async () => ++executed });
  const flow = flowOf(async () => {
    await new Promise<void>((resolve) => {
      release = resolve;
    });
    return pay({}, to);
  }, [pay]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.with((runtime) => runtime.cancel(runId));
  release();
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
  expect(executed).toBe(0);
});

scenario("an onCancel node may ask, wait and execute; the run is cancelled and its output kept", async (world) => {
  const done: string[] = [];
  const tidy = defineEffect("tidy", {
    policy: { maxAttempts: 3, backoff: backoff(5_000) },
    run: ({ what }: { what: string }, { attempt }) => {
      if (attempt === 1) throw definite(new Error("busy"));
      done.push(what);
      return what;
    },
  });
  const flow = flowOf(() => askUser({ prompt: "Work?" }, to), [tidy], {
    onCancel: "clean",
    nodes: {
      clean: ({ vars }: any) => {
        vars.cleaning = true;
        return tidy({ what: "files" }, { resultKey: "tidied", nextNode: "ask" });
      },
      ask: () => askUser({ prompt: "Really gone?" }, { resultKey: "gone", nextNode: "nap" }),
      nap: () => sleep(1_000, { nextNode: "cleaned" }),
      cleaned: ({ vars }: any) => complete({ tidied: vars.tidied, gone: vars.gone.text }),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  const cleaning = await world.cancel(runId, { reason: "r" });
  expect(cleaning).toMatchObject({ status: "waiting", cancelling: { reason: "r", cleaning: true }, vars: { cleaning: true } });
  await world.advance(5_000);
  // Cancelled once more, it goes on cleaning.
  expect(await world.cancel(runId)).toMatchObject({ status: "waiting", waits: [{ prompt: "Really gone?" }] });
  await world.respond(runId, "yes");
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({
    status: "cancelled",
    output: { tidied: "files", gone: "yes" },
    cancelling: { reason: "r", cleaning: true },
  });
  expect(done).toEqual(["files"]);
  expect(await refused(world, (runtime) => runtime.result(runId))).toMatch(/^RUN_CANCELLED/);
});

scenario(
  "an onCancel node that fails, by plan, by throwing, by its effect: the run is cancelled and its error kept",
  async (world) => {
    const broken = defineEffect("broken", {
      run: () => {
        throw permanent(new Error("cannot"));
      },
    });
    for (const [clean, message] of [
      [() => fail({ message: "by plan", code: "MINE" }), /by plan/],
      [
        () => {
          throw new Error("thrown");
        },
        /thrown/,
      ],
      [() => broken({}, { nextNode: "end" }), /cannot/],
      [() => ({ nextNode: "nowhere" }), /nowhere/],
    ] as const) {
      const flow = flowOf(() => askUser({ prompt: "?" }, to), [broken], { onCancel: "clean", nodes: { clean } });
      await world.use(flow);
      const { runId } = await world.run(flow);
      const run = await world.cancel(runId);
      expect(run).toMatchObject({ status: "cancelled", cancelling: { cleaning: true } });
      const last = (await world.with((runtime) => runtime.ledger(runId))).at(-1);
      expect(last).toMatchObject({ kind: "run_cancelled", data: { error: { message: expect.stringMatching(message) } } });
      expect(await refused(world, (runtime) => runtime.retry(runId))).toMatch(/^NOT_FAILED/);
    }
  },
);

scenario("cancel goes down to children of children; a detached one lives on", async (world) => {
  const cleaning = defineWorkflow({
    id: "cleaning",
    entry: "ask",
    onCancel: "clean",
    nodes: { ask: () => askUser({ prompt: "?" }, { nextNode: "clean" }), clean: () => complete("clean") },
  });
  const middle = flowOf(() => all([subworkflow(cleaning, {}), subworkflow(asking, {})], to), [], { id: "middle" });
  const free = defineWorkflow({
    id: "free",
    entry: "ask",
    nodes: { ask: () => askUser({ prompt: "?" }, { nextNode: "end" }), end: () => complete("free") },
  });
  const top = flowOf(() => subworkflow(free, { detached: true }, { nextNode: "work" }), [], {
    id: "top",
    nodes: { work: () => subworkflow(middle, {}, to) },
  });
  await world.use({ workflows: [top, middle, cleaning, asking, free] });
  const { runId } = await world.run(top);
  expect(Object.keys(await statuses(world))).toHaveLength(5);
  expect(await world.cancel(runId, { reason: "all of it" })).toMatchObject({ status: "cancelled" });
  expect(await statuses(world)).toEqual({
    top: "cancelled",
    middle: "cancelled",
    cleaning: "cancelled",
    asking: "cancelled",
    free: "waiting",
  });
  const [child] = (await world.with(everyRun)).filter(({ workflowId }) => workflowId === "free");
  expect(await world.respond(child!.runId, "go on")).toMatchObject({ status: "completed" });
});

scenario("cancel of a fanOut cancels its children, and begins no others", async (world) => {
  const flow = flowOf(() => fanOut(asking, { items: [{}, {}, {}, {}, {}], concurrency: 2 }, to));
  await world.use({ workflows: [flow, asking] });
  const { runId } = await world.run(flow);
  expect(await childrenOf(world, runId)).toHaveLength(2);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
  await world.advance(10_000);
  expect((await childrenOf(world, runId)).map(({ status }) => status)).toEqual(["cancelled", "cancelled"]);
});

scenario("a child that is cancelled fails its parent's effect, or is a result among others", async (world) => {
  const parent = flowOf(() => ({ ...subworkflow(asking, {}, to as any), errorNode: "caught" }), [], {
    nodes: { caught: ({ error }: any) => complete({ caught: error.message }) },
  });
  await world.use({ workflows: [parent, asking] });
  const run = await world.run(parent);
  const [child] = await childrenOf(world, run.runId);
  await world.cancel(child!.runId);
  expect(await world.get(run.runId)).toMatchObject({
    status: "completed",
    output: { caught: expect.stringMatching(/cancelled/) },
  });
  const fan = flowOf(() => fanOut(asking, { items: [{}, {}], onFailure: "collect" }, to), [], { id: "fan" });
  await world.use({ workflows: [fan, asking] });
  const fanned = await world.run(fan);
  const [first, second] = await childrenOf(world, fanned.runId);
  await world.cancel(first!.runId);
  await world.respond(second!.runId, "yes");
  expect((await world.get(fanned.runId)).output.got).toMatchObject([
    { status: "cancelled", subRunId: first!.runId },
    { status: "completed", output: { said: "yes" } },
  ]);
});

// ---- Pause ---------------------------------------------------------------------------------------------------------------

scenario("nothing begins while paused, and deadlines that passed count afterwards", async (world) => {
  let ran = 0;
  const flow = flowOf(() => sleep(1_000, { nextNode: "work" }), [], {
    nodes: {
      work: () => {
        ran += 1;
        return { ...askUser({ prompt: "?", timeoutMs: 2_000 }, to as any), timeoutNode: "late" };
      },
      late: () => complete("late"),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.pause(runId, { reason: "lunch" })).toMatchObject({ status: "waiting", paused: true, wakeAt: null });
  await world.advance(60_000);
  expect(await world.get(runId)).toMatchObject({ paused: true, node: "go" });
  expect(ran).toBe(0);
  expect(await world.unpause(runId)).toMatchObject({ paused: false, node: "work" });
  expect(ran).toBe(1);
  await world.pause(runId);
  await world.advance(2_000);
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  expect(await world.unpause(runId)).toMatchObject({ status: "completed", output: "late" });
});

scenario("pause before a run began, twice, and unpause of what is not paused", async (world) => {
  let ran = 0;
  const flow = flowOf(() => {
    ran += 1;
    return askUser({ prompt: "?" }, to);
  });
  await world.use(flow);
  const runId = await world.manually(async (runtime) => {
    const started = await runtime.start(flow);
    await runtime.pause(started.runId);
    return started.runId;
  });
  await world.settle();
  await world.advance(10_000);
  expect(await world.get(runId)).toMatchObject({ paused: true, node: "go", wakeAt: null });
  expect(await world.pause(runId)).toMatchObject({ paused: true });
  expect(ran).toBe(0);
  expect(await world.unpause(runId)).toMatchObject({ paused: false, status: "waiting" });
  expect(await world.unpause(runId)).toMatchObject({ paused: false, status: "waiting" });
  expect(await world.respond(runId, "a")).toMatchObject({ status: "completed" });
  expect(ran).toBe(1);
});

scenario("while paused an effect under way settles, is recorded, and nothing follows", async (world) => {
  const { effect, calls } = held();
  let after = 0;
  const flow = flowOf(() => effect({}, { resultKey: "got", nextNode: "after" }), [effect], {
    nodes: {
      after: () => {
        after += 1;
        return goto("end");
      },
    },
  });
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  expect(await world.pause(runId)).toMatchObject({ paused: true });
  expect(calls[0]?.signal.aborted).toBe(false);
  calls[0]?.settle("done");
  await world.settle();
  await world.advance(60_000);
  expect(await world.get(runId)).toMatchObject({ paused: true, node: "after", vars: { got: "done" } });
  expect(after).toBe(0);
  expect(await world.unpause(runId)).toMatchObject({ status: "completed", output: { got: "done" } });
});

scenario("a failure while paused: the next attempt waits for the unpause", async (world) => {
  const { effect, calls } = held("held", { policy: { maxAttempts: 3, backoff: backoff(500) } });
  const flow = flowOf(() => effect({}, to), [effect]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.pause(runId);
  calls[0]?.reject(definite(new Error("no")));
  await world.settle();
  await world.advance(60_000);
  expect(calls).toHaveLength(1);
  await world.with((runtime) => runtime.unpause(runId));
  await world.settle();
  expect(calls).toHaveLength(2);
  calls[1]?.settle("ok");
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: "ok" } });
});

scenario("answers and events given while paused are taken after unpause, in order", async (world) => {
  const flow = flowOf(() => askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "first" }), [], {
    nodes: {
      first: () => waitEvent("k", { resultKey: "one", nextNode: "second" }),
      second: () => waitEvent("k", { resultKey: "two", nextNode: "third" }),
      third: ({ vars }: any) => complete({ answer: vars.answer.text, one: vars.one, two: vars.two }),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.pause(runId);
  await world.signal(runId, "k", 1, { id: "a" });
  expect(await world.respond(runId, "yes")).toMatchObject({ paused: true, waits: [{ prompt: "?" }] });
  await world.signal(runId, "k", 2, { id: "b" });
  expect(await refused(world, (runtime) => runtime.respond(runId, "again"))).toMatch(/^ALREADY_ANSWERED/);
  const { seq } = await world.get(runId);
  await world.advance(10_000);
  expect((await world.get(runId)).seq).toBe(seq);
  expect(await world.unpause(runId)).toMatchObject({ status: "completed", output: { answer: "yes", one: 1, two: 2 } });
});

scenario("a paused parent takes its child's end after the unpause", async (world) => {
  const parent = flowOf(() => subworkflow(asking, {}, to));
  await world.use({ workflows: [parent, asking] });
  const { runId } = await world.run(parent);
  await world.pause(runId);
  const [child] = await childrenOf(world, runId);
  await world.respond(child!.runId, "yes");
  expect(await world.get(runId)).toMatchObject({ paused: true, status: "waiting" });
  expect(await world.unpause(runId)).toMatchObject({ status: "completed", output: { got: { output: { said: "yes" } } } });
});

// ---- Retry ---------------------------------------------------------------------------------------------------------------

scenario("retry of a failed effect: the same key, fresh attempts", async (world) => {
  const calls: { attempt: number; key: string }[] = [];
  let broken = true;
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 2, backoff: backoff(5_000) },
    run: (_: any, { attempt, idempotencyKey }) => {
      calls.push({ attempt, key: idempotencyKey });
      if (broken) throw definite(new Error("down"));
      return attempt;
    },
  });
  const flow = flowOf(() => flaky({}, to), [flaky]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(5_000);
  expect(await world.get(runId)).toMatchObject({ status: "failed", retries: 0 });
  expect(calls).toHaveLength(2);
  expect(await world.retry(runId)).toMatchObject({ status: "waiting", retries: 1 });
  await world.advance(5_000);
  // Two fresh attempts were made, and failed.
  expect(await world.get(runId)).toMatchObject({ status: "failed", retries: 1, error: { code: "EFFECT_FAILED" } });
  expect(calls).toHaveLength(4);
  broken = false;
  const run = await world.retry(runId);
  expect(run).toMatchObject({ status: "completed", retries: 2 });
  expect(run.error).toBeUndefined();
  expect(calls.map(({ attempt }) => attempt)).toEqual([1, 2, 3, 4, 5]);
  expect(new Set(calls.map(({ key }) => key)).size).toBe(1);
  expect(await refused(world, (runtime) => runtime.retry(runId))).toMatch(/^NOT_FAILED/);
});

scenario("retry of a permanent, of an uncertain, and of an exhausted failure", async (world) => {
  for (const [onUncertain, error] of [
    ["retry", permanent(new Error("declined"))],
    ["fail", new Error("reset")],
    ["retry", new Error("reset")],
  ] as const) {
    const seen: boolean[] = [];
    const pay = defineEffect("pay", {
      onUncertain,
      policy: { maxAttempts: 1 },
      run: (_: any, { attempt, uncertain }) => {
        seen.push(uncertain);
        if (attempt === 1) throw error;
        return "paid";
      },
    });
    const flow = flowOf(() => pay({}, to), [pay]);
    await world.use(flow);
    const { runId, status } = await world.run(flow);
    expect(status).toBe("failed");
    expect(await world.retry(runId)).toMatchObject({ status: "completed", output: { got: "paid" } });
    expect(seen).toEqual([false, error.message === "reset"]);
  }
});

scenario("retry of a node that threw, or planned to fail, runs it on the vars before", async (world) => {
  for (const kind of ["throws", "fails", "nonsense"] as const) {
    let runs = 0;
    const flow = flowOf(() => waitEvent("go", { resultKey: "got", nextNode: "work" }), [], {
      nodes: {
        work: ({ vars, step }: any) => {
          runs += 1;
          vars.count = (vars.count ?? 0) + 1;
          vars.steps = [...(vars.steps ?? []), step];
          if (runs === 3) return complete({ count: vars.count, steps: vars.steps, got: vars.got });
          if (kind === "throws") throw new Error("oops");
          return kind === "fails" ? fail({ message: "no" }) : { nextNode: "nowhere" };
        },
      },
    });
    await world.use(flow);
    const { runId } = await world.run(flow);
    expect(await world.signal(runId, "go", 1)).toMatchObject({ status: "failed" });
    expect(await world.retry(runId)).toMatchObject({ status: "failed", retries: 1 });
    // Each execution of a node has a number of its own.
    expect(await world.retry(runId)).toMatchObject({ status: "completed", output: { count: 1, steps: [4], got: 1 } });
    expect(runs).toBe(3);
  }
});

scenario("members completed before the failure are not done again", async (world) => {
  const done: string[] = [];
  let broken = true;
  const work = defineEffect("work", {
    run: async ({ name }: { name: string }) => {
      done.push(name);
      if (name === "bad" && broken) throw permanent(new Error("bad"));
      return name;
    },
  });
  const flow = flowOf(
    () => all([work({ name: "a" }), askUser({ prompt: "?" }), work({ name: "bad" }), work({ name: "b" })], to),
    [work],
  );
  await world.use(flow);
  const { runId, status } = await world.run(flow);
  expect(status).toBe("failed");
  broken = false;
  const run = await world.retry(runId);
  expect(run).toMatchObject({ status: "waiting", waits: [{ prompt: "?" }] });
  expect(await world.respond(runId, "yes")).toMatchObject({
    status: "completed",
    output: { got: ["a", { text: "yes" }, "bad", "b"] },
  });
  expect(done.filter((name) => name === "bad")).toHaveLength(2);
  expect(done.filter((name) => name === "a").length).toBe(1);
  expect(done.filter((name) => name === "b").length).toBeLessThanOrEqual(2);
});

scenario("retry of nested groups goes on with every member that was open", async (world) => {
  let broken = true;
  const bad = defineEffect("bad", {
    run: () => {
      if (broken) throw permanent(new Error("bad"));
      return "good";
    },
  });
  const inner = (members: any[]) => [
    ["all", all(members)],
    ["collecting all", all(members, { onFailure: "collect" } as any)],
    ["any", any(members)],
  ];
  for (const [name, group] of inner([waitEvent("x"), waitEvent("y")]) as [string, any][]) {
    broken = true;
    const flow = flowOf(() => all([group, waitEvent("z"), bad({})], to), [bad]);
    await world.use(flow);
    const { runId, status } = await world.run(flow);
    expect(status).toBe("failed");
    broken = false;
    const retried = await world.retry(runId);
    expect(
      retried.waits.map(({ waitKey }) => waitKey),
      `waits after the retry, with an inner ${name}`,
    ).toEqual(["x", "y", "z"]);
    await world.signal(runId, "z", "Z");
    await world.signal(runId, "x", "X");
    const last = name === "any" ? await world.get(runId) : await world.signal(runId, "y", "Y");
    expect(last).toMatchObject({ status: "completed" });
    const expected = {
      all: ["X", "Y"],
      "collecting all": [
        { status: "completed", result: "X" },
        { status: "completed", result: "Y" },
      ],
      any: { index: 0, result: "X" },
    };
    expect(last.output.got).toEqual([expected[name as "all"], "Z", "good"]);
  }
});

scenario("retry of an any whose members all failed tries each again", async (world) => {
  let broken = true;
  const tried: string[] = [];
  const work = defineEffect("work", {
    run: ({ name }: { name: string }) => {
      tried.push(name);
      if (broken || name === "a") throw permanent(new Error(name));
      return name;
    },
  });
  const flow = flowOf(() => any([work({ name: "a" }), work({ name: "b" })], to), [work]);
  await world.use(flow);
  const { runId, status } = await world.run(flow);
  expect(status).toBe("failed");
  broken = false;
  expect(await world.retry(runId)).toMatchObject({ status: "completed", output: { got: { index: 1, result: "b" } } });
  expect(tried).toEqual(["a", "b", "a", "b"]);
});

scenario("a wait that timed out waits anew after a retry, as long as before", async (world) => {
  for (const plan of [
    () => askUser({ prompt: "?", timeoutMs: 2_000 }, to),
    () => waitEvent({ key: "k", timeoutMs: 2_000 }, to),
  ]) {
    const flow = flowOf(plan);
    await world.use(flow);
    const { runId } = await world.run(flow);
    await world.advance(2_000);
    expect(await world.get(runId)).toMatchObject({ status: "failed", error: { code: "WAIT_TIMEOUT" } });
    await world.advance(60_000);
    expect(await world.retry(runId)).toMatchObject({ status: "waiting", wakeAt: world.now() + 2_000 });
    await world.advance(1_999);
    const { waits } = await world.get(runId);
    expect(await world.resume(runId, waits[0]!.waitKey, "yes")).toMatchObject({ status: "completed" });
  }
});

scenario("a handler's wait that timed out is asked for again", async (world) => {
  let calls = 0;
  const job = defineEffect("job", {
    run: () => {
      calls += 1;
      return wait({ reason: "job", waitKey: "job", timeoutMs: 1_000 });
    },
  });
  const flow = flowOf(() => job({}, to), [job]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({ status: "failed" });
  expect(await world.retry(runId)).toMatchObject({ status: "waiting", waits: [{ waitKey: "job" }] });
  expect(await world.resume(runId, "job", 7)).toMatchObject({ status: "completed", output: { got: 7 } });
  expect(calls).toBe(2);
});

scenario("a failed child is started anew by a retry of its parent, and cannot be retried itself", async (world) => {
  let broken = true;
  const child = defineWorkflow({
    id: "child",
    entry: "a",
    nodes: { a: () => (broken ? fail("broken") : complete("mended")) },
  });
  const parent = flowOf(() => subworkflow(child, {}, to));
  await world.use({ workflows: [parent, child] });
  const { runId, status } = await world.run(parent);
  expect(status).toBe("failed");
  const [first] = await childrenOf(world, runId);
  expect(await refused(world, (runtime) => runtime.retry(first!.runId))).toMatch(/^RETRY_REFUSED: .*retry of the parent/);
  broken = false;
  const run = await world.retry(runId);
  expect(run).toMatchObject({ status: "completed", output: { got: { output: "mended" } } });
  const children = await childrenOf(world, runId);
  expect(children.map((row) => row.status)).toEqual(["failed", "completed"]);
  expect(run.output.got.subRunId).toBe(children[1]!.runId);
  expect(await refused(world, (runtime) => runtime.retry(first!.runId))).toMatch(/^RETRY_REFUSED/);
});

scenario("a failed child may be retried until its parent has taken its end", async (world) => {
  let broken = true;
  const child = defineWorkflow({
    id: "child",
    entry: "a",
    nodes: { a: () => (broken ? fail("broken") : complete("mended")) },
  });
  const parent = flowOf(() => subworkflow(child, {}, to));
  await world.use({ workflows: [parent, child] });
  const { runId } = await world.manually(async (runtime) => {
    const started = await runtime.start(parent);
    await runtime.tick(started.runId);
    const [row] = (await runtime.list({ parentRunId: started.runId })).runs;
    expect((await runtime.tick(row!.runId)).status).toBe("failed");
    broken = false;
    await runtime.retry(row!.runId);
    await runtime.retry(row!.runId);
    return started;
  });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: { output: "mended" } } });
  expect(await childrenOf(world, runId)).toHaveLength(1);
});

scenario("children of a failed parent are cancelled, and begun anew by its retry", async (world) => {
  let broken = true;
  const bad = defineEffect("bad", {
    run: () => {
      if (broken) throw permanent(new Error("bad"));
      return "good";
    },
  });
  const flow = flowOf(() => all([subworkflow(asking, {}), bad({})], to), [bad]);
  await world.use({ workflows: [flow, asking] });
  const { runId, status } = await world.run(flow);
  expect(status).toBe("failed");
  for (const { status: end } of await childrenOf(world, runId)) expect(end).toBe("cancelled");
  broken = false;
  expect(await world.retry(runId)).toMatchObject({ status: "waiting" });
  const child = (await childrenOf(world, runId)).find((row) => row.status === "waiting");
  await world.respond(child!.runId, "yes");
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: [{ output: { said: "yes" } }, "good"] } });
});

scenario("retry of a fanOut keeps what came and starts the others anew", async (world) => {
  let broken = true;
  const ran: number[] = [];
  const child = defineWorkflow({
    id: "child",
    entry: "a",
    nodes: {
      a: ({ vars }: any) => {
        ran.push(vars.n);
        return vars.n === 2 && broken ? fail("two") : complete(vars.n * 10);
      },
    },
  });
  const flow = flowOf(() => fanOut(child, { items: [{ n: 0 }, { n: 1 }, { n: 2 }, { n: 3 }], concurrency: 1 }, to));
  await world.use({ workflows: [flow, child] });
  const { runId, status, error } = await world.run(flow);
  expect(status).toBe("failed");
  expect(error?.message).toMatch(/two/);
  expect(ran).toEqual([0, 1, 2]);
  broken = false;
  const run = await world.retry(runId);
  expect(run).toMatchObject({ status: "completed" });
  expect(run.output.got.map(({ output }: any) => output)).toEqual([0, 10, 20, 30]);
  expect(ran).toEqual([0, 1, 2, 2, 3]);
});

scenario("a join of a child that failed, retried, fails again rather than wait for ever", async (world) => {
  const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: () => fail("broken") } });
  const flow = flowOf(() => subworkflow(child, { detached: true }, { resultKey: "child", nextNode: "join" }), [], {
    nodes: { join: ({ vars }: any) => join(vars.child.subRunId, to) },
  });
  await world.use({ workflows: [flow, child] });
  const { runId, status } = await world.run(flow);
  expect(status).toBe("failed");
  expect(await world.retry(runId)).toMatchObject({
    status: "failed",
    retries: 1,
    error: { message: expect.stringMatching(/broken/) },
  });
});

scenario("two joins of one child both hear of its end", async (world) => {
  const flow = flowOf(() => subworkflow(asking, { detached: true }, { resultKey: "child", nextNode: "one" }), [], {
    nodes: {
      one: ({ vars }: any) => join(vars.child.subRunId, { resultKey: "one", nextNode: "two" }),
      two: ({ vars }: any) => join(vars.child.subRunId, { resultKey: "two", nextNode: "three" }),
      three: ({ vars }: any) => complete({ one: vars.one.output, two: vars.two.output }),
    },
  });
  await world.use({ workflows: [flow, asking] });
  const { runId } = await world.run(flow);
  const [child] = await childrenOf(world, runId);
  await world.respond(child!.runId, "yes");
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { one: { said: "yes" }, two: { said: "yes" } } });
});

scenario("a second retry before the run went on does nothing; one after it failed again does", async (world) => {
  let runs = 0;
  const flow = flowOf(() => {
    runs += 1;
    throw new Error("always");
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.manually(async (runtime) => {
    await runtime.retry(runId);
    await runtime.retry(runId);
  });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "failed", retries: 1 });
  expect(runs).toBe(2);
  expect(await world.retry(runId)).toMatchObject({ status: "failed", retries: 2 });
  expect(runs).toBe(3);
});

scenario("retry is for failed runs alone", async (world) => {
  const flow = flowOf((vars) => (vars.asks ? askUser({ prompt: "?" }, to) : goto("end")));
  await world.use(flow);
  const [waiting, completed, cancelled] = [
    await world.run(flow, { asks: true }),
    await world.run(flow),
    await world.run(flow, { asks: true }),
  ];
  await world.cancel(cancelled.runId);
  for (const { runId } of [waiting, completed, cancelled]) {
    expect(await refused(world, (runtime) => runtime.retry(runId))).toMatch(/^NOT_FAILED/);
  }
});

scenario("tick drives a failed run on, once it is to be retried", async (world) => {
  let broken = true;
  const flow = flowOf(() => (broken ? fail("broken") : goto("end")));
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.manually(async (runtime) => {
    broken = false;
    await runtime.retry(runId);
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed", retries: 1 });
  });
});

scenario("result waits for the end of a run that is to be retried", async (world) => {
  let broken = true;
  const flow = flowOf(() => (broken ? fail("broken") : goto("end")));
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.manually(async (runtime) => {
    broken = false;
    await runtime.retry(runId);
    let got: unknown = "nothing yet";
    const result = runtime.result(runId).then(
      (output) => {
        got = output;
      },
      (error) => {
        got = error;
      },
    );
    for (let i = 0; i < 20; i++) await new Promise((resolve) => setImmediate(resolve));
    expect(got).toBe("nothing yet");
    await runtime.tick(runId);
    await world.clock.advance(2_000);
    await result;
    expect(got).toEqual({ got: null });
  });
});

scenario("what is sent right after a retry finds a run that goes on", async (world) => {
  for (const call of ["cancel", "pause", "signal"] as const) {
    let broken = true;
    const flow = flowOf(() => (broken ? fail("broken") : waitEvent("k", to)));
    await world.use(flow);
    const { runId } = await world.run(flow);
    broken = false;
    await world.manually(async (runtime) => {
      await runtime.retry(runId);
      // The retry is durable: from now on the run lives.
      await (call === "signal" ? runtime.signal(runId, "k", 1) : runtime[call](runId));
    });
    await world.settle();
    expect(await world.get(runId)).toMatchObject(
      call === "cancel" ? { status: "cancelled" } : call === "pause" ? { paused: true } : { status: "completed" },
    );
  }
});

scenario("a run that failed while paused is retried, and goes on after unpause", async (world) => {
  const { effect, calls } = held();
  const flow = flowOf(() => effect({}, to), [effect]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.pause(runId);
  calls[0]?.reject(permanent(new Error("no")));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "failed" });
  await world.retry(runId);
  if ((await world.get(runId)).paused) {
    expect(calls).toHaveLength(1);
    await world.unpause(runId);
  }
  expect(calls).toHaveLength(2);
  calls[1]?.settle("ok");
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed" });
});

scenario("a sibling's deadline that passed while the run stood failed waits anew, too", async (world) => {
  let broken = true;
  const bad = defineEffect("bad", {
    run: () => {
      if (broken) throw permanent(new Error("bad"));
      return "good";
    },
  });
  const flow = flowOf(() => all([askUser({ prompt: "?", timeoutMs: 10_000 }), bad({})], to), [bad]);
  await world.use(flow);
  const { runId, status } = await world.run(flow);
  expect(status).toBe("failed");
  await world.advance(60_000);
  broken = false;
  expect(await world.retry(runId)).toMatchObject({ status: "waiting", waits: [{ prompt: "?" }] });
});

scenario("a retried run may be cancelled, and one that is cancelled may not be retried", async (world) => {
  const flow = flowOf((vars) => {
    vars.tries = (vars.tries ?? 0) + 1;
    return { ...askUser({ prompt: "?", timeoutMs: 1_000 }, to as any) };
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(1_000);
  expect(await world.retry(runId)).toMatchObject({ status: "waiting" });
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
  expect(await refused(world, (runtime) => runtime.retry(runId))).toMatch(/^NOT_FAILED/);
});

scenario("a crash at any commit of a retry leaves one retry", async (world) => {
  for (const after of [false, true]) {
    for (let commits = 1; commits <= 4; commits++) {
      let attempts = 0;
      const work = defineEffect("work", {
        policy: { maxAttempts: 1 },
        speculative: true,
        run: async () => {
          attempts += 1;
          if (attempts === 1) throw permanent(new Error("no"));
          return attempts;
        },
      });
      const flow = flowOf(() => work({}, { resultKey: "got", nextNode: "more" }), [work], {
        nodes: { more: () => work({}, to) },
      });
      await world.use(flow);
      const { runId, status } = await world.run(flow);
      expect(status).toBe("failed");
      await world.manually((runtime) => runtime.retry(runId));
      world.killAt(commits, after);
      await world.settle().catch((error) => {
        if (!world.killed) throw error;
      });
      await world.crash();
      world.disarm();
      await world.advance(2_000);
      expect(await world.get(runId)).toMatchObject({ status: "completed", retries: 1 });
    }
  }
});

scenario("a crash at any commit of a cancel leaves nobody behind, and cleans up once", async (world) => {
  for (const after of [false, true]) {
    for (let commits = 1; commits <= 8; commits += world.stride) {
      const keys: string[] = [];
      const tidy = defineEffect("tidy", {
        policy: { maxAttempts: 10, backoff: backoff(10) },
        run: async (_: any, { idempotencyKey }) => void keys.push(idempotencyKey),
      });
      const flow = flowOf(() => all([subworkflow(asking, {}), fanOut(asking, { items: [{}, {}] }), waitEvent("k")], to), [tidy], {
        onCancel: "clean",
        nodes: { clean: () => tidy({}, { nextNode: "end" }) },
      });
      await world.use({ workflows: [flow, asking] });
      const { runId } = await world.run(flow);
      await world.manually((runtime) => runtime.cancel(runId));
      world.killAt(commits, after);
      await world.settle().catch((error) => {
        if (!world.killed) throw error;
      });
      world.disarm();
      await world.crash();
      for (let i = 0; i < 3; i++) await world.advance(1_000);
      const where = `commit ${commits}, ${after ? "after" : "before"}`;
      expect(await world.get(runId), where).toMatchObject({ status: "cancelled", output: { got: null } });
      expect(
        (await childrenOf(world, runId)).map(({ status }) => status),
        where,
      ).toEqual(["cancelled", "cancelled", "cancelled"]);
      expect(new Set(keys).size, where).toBe(1);
      expect(keys.length, where).toBeLessThanOrEqual(2);
      expect(
        (await world.kinds(runId)).filter((kind) => kind === "control cancel"),
        where,
      ).toHaveLength(1);
    }
  }
});

scenario("retry and cancel of parents and children in every order end every run", async (world) => {
  let broken = true;
  const child = defineWorkflow({
    id: "child",
    entry: "a",
    nodes: { a: () => (broken ? fail("broken") : waitEvent("k", { nextNode: "b" })), b: () => complete("b") },
  } as any);
  const parent = flowOf(() => subworkflow(child, {}, to));
  await world.use({ workflows: [parent, child] });
  for (const order of [
    ["retry child", "cancel parent"],
    ["cancel parent", "retry child"],
    ["retry child", "cancel child"],
  ]) {
    broken = true;
    const runId = await world.manually(async (runtime) => {
      const started = await runtime.start(parent);
      await runtime.tick(started.runId);
      const [row] = (await runtime.list({ parentRunId: started.runId })).runs;
      await runtime.tick(row!.runId);
      broken = false;
      for (const call of order) {
        const id = call.endsWith("child") ? row!.runId : started.runId;
        await (call.startsWith("retry") ? runtime.retry(id) : runtime.cancel(id));
      }
      return started.runId;
    });
    await world.settle();
    await world.advance(1_000);
    const [row] = await childrenOf(world, runId);
    const { status } = await world.get(runId);
    expect([status, row!.status], order.join(", ")).toEqual(
      order[1] === "cancel child" ? ["failed", "cancelled"] : ["cancelled", "cancelled"],
    );
  }
});

// ---- Many at once --------------------------------------------------------------------------------------------------------

scenario("the bulk forms reach every run of a query that can be told, and count them", async (world) => {
  let broken = true;
  const flow = flowOf((vars) => (vars.fails && broken ? fail("no") : vars.asks ? askUser({ prompt: "?" }, to) : goto("end")));
  const other = flowOf(() => askUser({ prompt: "?" }, to), [], { id: "other" });
  await world.use({ workflows: [flow, other] });
  for (let i = 0; i < 3; i++) await world.run(flow, { asks: true });
  for (let i = 0; i < 2; i++) await world.run(flow, { fails: true });
  await world.run(flow);
  const apart = await world.run(other);
  const bulk = async (call: (runtime: any) => Promise<number>) => {
    const count = await world.with(call);
    await world.settle();
    return count;
  };
  expect(await bulk((runtime) => runtime.pauseAll({ workflowId: "flow" }))).toBe(3);
  expect((await world.with(everyRun)).filter(({ paused }) => paused)).toHaveLength(3);
  expect(await bulk((runtime) => runtime.unpauseAll({ workflowId: "flow" }))).toBe(3);
  expect(await bulk((runtime) => runtime.retryAll({}))).toBe(2);
  broken = false;
  expect(await bulk((runtime) => runtime.retryAll({ workflowId: "flow" }))).toBe(2);
  expect(await bulk((runtime) => runtime.retryAll({ workflowId: "flow" }))).toBe(0);
  expect(await bulk((runtime) => runtime.cancelAll({ workflowId: "flow", status: "completed" }))).toBe(0);
  expect(await bulk((runtime) => runtime.cancelAll({ workflowId: "flow" }, { reason: "all" }))).toBe(3);
  const runs = await world.with(everyRun);
  expect(runs.filter(({ status }) => status === "cancelled")).toHaveLength(3);
  expect(await world.get(apart.runId)).toMatchObject({ status: "waiting" });
  expect(await refusal(world.with(async (runtime) => runtime.cancelAll({ workflow: "flow" } as any)))).toMatch(
    /^INVALID_OPTION: .*workflowId/,
  );
});

scenario("options of the wrong kind are refused, and nothing is sent", async (world) => {
  const flow = flowOf(() => askUser({ prompt: "?" }, to));
  await world.use(flow);
  const { runId } = await world.run(flow);
  for (const call of [
    (runtime: any) => runtime.cancel(runId, { raeson: "x" }),
    (runtime: any) => runtime.cancel(runId, { reason: 7 }),
    (runtime: any) => runtime.pause(runId, { reason: {} }),
    (runtime: any) => runtime.signal(runId, "", 1),
    (runtime: any) => runtime.signal(runId, "k", 1, { id: "" }),
    (runtime: any) => runtime.signal(runId, "\ud800", 1),
  ]) {
    expect(await refused(world, call)).toMatch(/^INVALID_OPTION/);
  }
  expect(await refused(world, (runtime) => runtime.signal(runId, "k", new Date(0)))).toMatch(/^NOT_JSON/);
  expect(await world.cancel(runId, { reason: "x".repeat(100_000) })).toMatchObject({ status: "cancelled" });
});
