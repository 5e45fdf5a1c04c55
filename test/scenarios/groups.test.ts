// Several effects at once: all and any, of members that run, wait, sleep and start children.
import {
  all,
  any,
  askUser,
  complete,
  definite,
  defineEffect,
  defineWorkflow,
  permanent,
  sleep,
  type StepPlan,
  subworkflow,
  waitEvent,
} from "abstractruntime";
import { expect } from "vitest";
import { scenario, type World } from "./harness.ts";

const never = new Promise<never>(() => undefined);

function grouped(plan: (vars: any) => any, effects: readonly any[] = [], id = "grouped") {
  return defineWorkflow({
    id,
    entry: "go",
    effects,
    nodes: {
      go: ({ vars }): StepPlan => plan(vars),
      caught: ({ error }) => complete({ caught: error?.message ?? null }),
      end: ({ vars }) => complete({ got: vars.got }),
    },
  });
}
const to = { resultKey: "got", nextNode: "end" };

const double = () => {
  const seen: number[] = [];
  const effect = defineEffect("double", {
    run: async ({ n }: { n: number }) => {
      seen.push(n);
      return n * 2;
    },
  });
  return { effect, seen };
};

const kinds = async (world: World, runId: string) =>
  (await world.with((runtime) => runtime.ledger(runId))).map(({ kind, effectId }) => `${kind} ${effectId ?? ""}`.trim());

scenario("all: mixed members, and their results in order", async (world) => {
  const { effect, seen } = double();
  const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: ({ vars }) => complete({ was: vars.n }) } });
  const flow = grouped(
    () =>
      all(
        [
          effect({ n: 1 }),
          askUser({ prompt: "?", waitKey: "ask" }),
          sleep(1_000),
          waitEvent("event"),
          subworkflow(child, { vars: { n: 5 } }),
          effect({ n: 2 }),
        ],
        to,
      ),
    [effect],
  );
  await world.use({ workflows: [flow, child] });
  const run = await world.run(flow);
  expect(run.status).toBe("waiting");
  expect(run.waits.map(({ reason }) => reason)).toEqual(["user", "until", "event"]);
  await world.resume(run.runId, "event", [1]);
  await world.respond(run.runId, "yes");
  await world.advance(1_000);
  const done = await world.get(run.runId);
  expect(done).toMatchObject({ status: "completed" });
  expect(done.output.got).toMatchObject([2, { text: "yes" }, { ready: true }, [1], { output: { was: 5 } }, 4]);
  expect(seen.toSorted()).toEqual([1, 2]);
});

scenario("all of nothing is done at once", async (world) => {
  const flow = grouped(() => all([], to));
  await world.use(flow);
  expect((await world.run(flow)).output).toEqual({ got: [] });
});

scenario("all: one member that fails for good fails the group at once", async (world) => {
  const aborted: unknown[] = [];
  const slow = defineEffect("slow", {
    run: (_: any, { signal }) => {
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          aborted.push(1);
          reject(signal.reason);
        });
      });
    },
  });
  const bad = defineEffect("bad", { run: async () => Promise.reject(permanent(new Error("declined"))) });
  const plan = (vars: any) => ({
    ...all([slow({}), bad({}), askUser({ prompt: "?" })], to as any),
    ...(vars.caught ? { errorNode: "caught" } : {}),
  });
  const flow = grouped(plan, [slow, bad]);
  await world.use(flow);
  const failed = await world.run(flow);
  expect(failed).toMatchObject({ status: "failed", waits: [], error: { code: "EFFECT_FAILED" } });
  expect(failed.error?.message).toMatch(/"bad".*declined/);
  expect(await world.run(flow, { caught: true })).toMatchObject({ status: "completed", output: { caught: "declined" } });
  expect(aborted).toHaveLength(2);
});

scenario("all: members retry on their own, in process and parked", async (world) => {
  const calls: Record<string, number> = {};
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 3, backoff: { initialMs: 400, factor: 10, jitter: 0 } },
    run: ({ id }: { id: string }, { attempt }) => {
      calls[id] = (calls[id] ?? 0) + 1;
      if (attempt < (id === "a" ? 2 : 3)) throw definite(new Error("no"));
      return `${id}${attempt}`;
    },
  });
  const flow = grouped(() => all([flaky({ id: "a" }), flaky({ id: "b" }), askUser({ prompt: "?" })], to), [flaky]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.advance(400);
  expect(calls).toEqual({ a: 2, b: 2 });
  await world.respond(runId, "yes");
  expect(await world.get(runId)).toMatchObject({ status: "waiting", wakeAt: world.now() + 4_000 });
  await world.advance(4_000);
  expect((await world.get(runId)).output).toEqual({ got: ["a2", "b3", { text: "yes" }] });
  expect(calls).toEqual({ a: 2, b: 3 });
});

scenario("any: the first wins and the others are closed", async (world) => {
  const flow = grouped(() => any([waitEvent("a"), waitEvent("b"), sleep(60_000)], to));
  await world.use(flow);
  const run = await world.run(flow);
  expect(await world.resume(run.runId, "b", "B")).toMatchObject({
    status: "completed",
    output: { got: { index: 1, result: "B" } },
  });
  await world.advance(60_000);
  expect(await kinds(world, run.runId)).toEqual([
    "run_started",
    "effect_started 1",
    "parked 1.0",
    "parked 1.1",
    "parked 1.2",
    "delivered 1.1",
    "effect_completed 1",
    "run_completed",
  ]);
});

scenario("any: a result beats what still executes, which is aborted", async (world) => {
  let aborted = 0;
  const slow = defineEffect("slow", {
    run: (_: any, { signal }) => {
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          aborted += 1;
          reject(signal.reason);
        });
      });
    },
  });
  const fast = defineEffect("fast", { run: async () => "fast" });
  const flow = grouped(() => any([slow({}), fast({})], to), [slow, fast]);
  await world.use(flow);
  expect((await world.run(flow)).output).toEqual({ got: { index: 1, result: "fast" } });
  expect(aborted).toBe(1);
});

scenario("any: a sleep is a deadline for what executes, and the run goes on once that has answered", async (world) => {
  let aborted = 0;
  const slow = defineEffect("slow", {
    run: (_: any, { signal }) => {
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          aborted += 1;
          reject(signal.reason);
        });
      });
    },
  });
  const { effect, seen } = double();
  const flow = defineWorkflow({
    id: "timed",
    entry: "go",
    effects: [slow, effect],
    nodes: {
      go: () => any([slow({}), sleep(2_000)], { resultKey: "got", nextNode: "after" }),
      after: () => effect({ n: 4 }, { resultKey: "after", nextNode: "end" }),
      end: ({ vars }) => complete({ index: vars.got.index, after: vars.after }),
    },
  });
  await world.use(flow);
  const runId = await world.start(flow);
  await world.advance(1_999);
  expect(await world.get(runId)).toMatchObject({ status: "running" });
  await world.advance(1);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { index: 1, after: 8 } });
  expect(aborted).toBe(1);
  expect(seen).toEqual([4]);
});

scenario("any: what does not answer its abort is given 5 s, and recorded as uncertain", async (world) => {
  const deaf = defineEffect("deaf", { run: () => never });
  const flow = grouped(() => any([deaf({}), sleep(2_000)], to), [deaf]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.advance(2_000);
  await world.advance(4_999);
  expect(await world.get(runId)).toMatchObject({ status: "running" });
  await world.advance(1);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: { index: 1 } } });
  const kinds = (await world.with((runtime) => runtime.ledger(runId))).map(({ kind, effectId }) => `${kind} ${effectId ?? ""}`);
  expect(kinds).toContain("effect_uncertain 1.0");
});

scenario("any: an answer ends the wait for what executes", async (world) => {
  let aborted = 0;
  const slow = defineEffect("slow", {
    run: (_: any, { signal }) => {
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          aborted += 1;
          reject(signal.reason);
        });
      });
    },
  });
  const flow = grouped(() => any([slow({}), askUser({ prompt: "Stop?" })], to), [slow]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.with(async (runtime) => runtime.respond(runId, "stop"));
  // Where nobody drives in the background, the tick under way looks into the mailbox when it is nudged or when time passes.
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { got: { index: 1, result: { text: "stop" } } } });
  expect(aborted).toBe(1);
});

scenario("any: fails when all of its members have failed, with the last error", async (world) => {
  const bad = defineEffect("bad", {
    run: ({ n }: { n: number }) => {
      throw permanent(new Error(`no ${n}`));
    },
  });
  const flow = grouped(() => any([bad({ n: 1 }), waitEvent({ key: "go", timeoutMs: 500 }), bad({ n: 2 })], to), [bad]);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "waiting" });
  await world.advance(500);
  expect(await world.get(run.runId)).toMatchObject({ status: "failed", error: { code: "WAIT_TIMEOUT" } });
});

scenario("any: what fails after the first result is no harm", async (world) => {
  const { effect } = double();
  const bad = defineEffect("bad", { run: () => Promise.reject(permanent(new Error("no"))) });
  const flow = grouped(
    (vars) => (vars.nested ? all([any([effect({ n: 1 }), bad({})])], to) : any([effect({ n: 1 }), bad({})], to)),
    [effect, bad],
  );
  await world.use(flow);
  expect((await world.run(flow)).output).toEqual({ got: { index: 0, result: 2 } });
  expect((await world.run(flow, { nested: true })).output).toEqual({ got: [{ index: 0, result: 2 }] });
});

scenario("any in all, and all in any", async (world) => {
  const { effect } = double();
  const inner = grouped(
    () => all([any([waitEvent("a"), sleep(1_000)]), all([effect({ n: 1 }), waitEvent("b")]), any([effect({ n: 3 })])], to),
    [effect],
    "any-in-all",
  );
  const outer = grouped(
    () => any([all([waitEvent("a"), waitEvent("b")]), all([waitEvent("c"), effect({ n: 2 })])], to),
    [effect],
    "all-in-any",
  );
  await world.use({ workflows: [inner, outer] });
  const one = await world.run(inner);
  await world.resume(one.runId, "b", "B");
  expect(await world.get(one.runId)).toMatchObject({ status: "waiting" });
  await world.advance(1_000);
  expect((await world.get(one.runId)).output.got).toMatchObject([
    { index: 1, result: { ready: true } },
    [2, "B"],
    { index: 0, result: 6 },
  ]);

  const two = await world.run(outer);
  await world.resume(two.runId, "a", "A");
  expect(await world.resume(two.runId, "c", "C")).toMatchObject({
    status: "completed",
    output: { got: { index: 1, result: ["C", 4] } },
  });
});

scenario("a failure inside nested groups ends what cannot hope any more", async (world) => {
  const bad = defineEffect("bad", { run: () => Promise.reject(permanent(new Error("no"))) });
  const hopes = grouped(() => any([all([bad({}), waitEvent("a")]), waitEvent("b")], to), [bad], "hopes");
  const fails = grouped(() => all([any([bad({})]), waitEvent("b")], to), [bad], "fails");
  await world.use({ workflows: [hopes, fails] });
  const run = await world.run(hopes);
  expect(run.waits.map(({ waitKey }) => waitKey)).toEqual(["b"]);
  expect((await world.resume(run.runId, "b", 1)).output).toEqual({ got: { index: 1, result: 1 } });
  expect(await world.run(fails)).toMatchObject({ status: "failed", error: { code: "EFFECT_FAILED" } });
});

scenario("members that a dead process left open are all recovered", async (world) => {
  const seen: string[] = [];
  const work = defineEffect("work", {
    speculative: true,
    policy: { backoff: { initialMs: 0, jitter: 0 } },
    run: ({ id }: { id: string }, { attempt }) => {
      seen.push(`${id}${attempt}`);
      return id !== "quick" && attempt === 1 ? never : Promise.resolve(id);
    },
  });
  const flow = grouped(
    () => all([work({ id: "a" }), work({ id: "quick" }), work({ id: "b" }), askUser({ prompt: "?" })], to),
    [work],
  );
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.crash();
  await world.settle();
  expect(await world.respond(runId, "ok")).toMatchObject({ output: { got: ["a", "quick", "b", { text: "ok" }] } });
  expect(seen.toSorted()).toEqual(["a1", "a2", "b1", "b2", "quick1"]);
});

scenario("members in plain data, and members that are none", async (world) => {
  const { effect } = double();
  const plain = (payload: unknown) =>
    grouped(() => ({ effect: { type: "all", payload, resultKey: "got" }, nextNode: "end" }), [effect]);
  const good = plain({
    effects: [
      { type: "double", payload: { n: 2 } },
      { type: "wait_event", payload: { wait_key: "go" } },
    ],
  });
  await world.use(good);
  const run = await world.run(good);
  expect((await world.resume(run.runId, "go", 1)).output).toEqual({ got: [4, 1] });
  for (const payload of [
    {},
    { effects: "double" },
    { effects: [{ payload: {} }] },
    { effects: [null] },
    // Where a member's result goes is the group's to say.
    { effects: [{ type: "double", payload: { n: 1 }, resultKey: "x" }] },
    { effects: [{ type: "double", payload: { n: 1 }, nextNode: "end" }] },
  ]) {
    const bad = plain(payload);
    await world.use(bad);
    expect(await world.run(bad)).toMatchObject({ status: "failed", error: { code: "EFFECT_INPUT_INVALID" } });
  }
});

// Found by the model under seed 47514: the second outcome of one turn overtook the first, which had an `any` of its own to end.
scenario("any in any: the first outcome counts in the groups above it before the second is looked at", async (world) => {
  const { effect } = double();
  const flow = grouped(() => any([any([effect({ n: 1 }), askUser({ prompt: "?" })]), effect({ n: 2 })], to), [effect]);
  await world.use(flow);
  expect((await world.run(flow)).output).toEqual({ got: { index: 0, result: { index: 0, result: 2 } } });
});
