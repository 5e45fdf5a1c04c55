// People, events, moments and jobs: what is waited for, what answers, and what becomes of a wait whose time is up.
import {
  askUser,
  complete,
  defineEffect,
  defineWorkflow,
  sleep,
  type StepPlan,
  waitEvent,
  waitUntil,
  wait,
} from "abstractruntime";
import { expect } from "vitest";
import { z } from "zod";
import { refusal, scenario, type World } from "./harness.ts";

const ask = (world: World, runId: string, payload: unknown) => refusal(world.with((runtime) => runtime.respond(runId, payload)));

scenario("a question with choices takes one of them", async (world) => {
  const flow = defineWorkflow({
    id: "choices",
    entry: "ask",
    nodes: {
      ask: () => askUser({ prompt: "Publish?", choices: ["yes", "no"] }, { resultKey: "answer", nextNode: "end" }),
      end: ({ vars }) => complete(vars.answer),
    },
  });
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "waiting", wakeAt: null });
  expect(run.waits).toMatchObject([
    { reason: "user", prompt: "Publish?", choices: ["yes", "no"], allowFreeText: false, since: world.now(), effectId: "1" },
  ]);
  expect(await ask(world, run.runId, "yse")).toMatch(/^ANSWER_INVALID: .*"yse" is not one of: yes, no.*Did you mean "yes"\?/);
  expect(await ask(world, run.runId, { text: 1 })).toMatch(/^ANSWER_INVALID/);
  expect(await ask(world, run.runId, null)).toMatch(/^ANSWER_INVALID/);
  expect(await world.get(run.runId)).toEqual(run);
  const done = await world.respond(run.runId, "yes");
  expect(done).toMatchObject({ status: "completed", output: { text: "yes" } });
  expect(await ask(world, run.runId, "no")).toMatch(/^ALREADY_ANSWERED: .*The first answer stands/);
  expect(
    await refusal(world.with((runtime) => runtime.resume(run.runId, { waitKey: run.waits[0]!.waitKey, payload: "no" }))),
  ).toMatch(/^ALREADY_ANSWERED/);
});

scenario("a second answer before the first is taken is refused", async (world) => {
  const flow = defineWorkflow({
    id: "twice",
    entry: "ask",
    nodes: {
      ask: () => askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "end" }),
      end: ({ vars }) => complete(vars.answer),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.manually(async (runtime) => {
    await runtime.respond(runId, "one");
    expect(await refusal(runtime.respond(runId, "two"))).toMatch(/^ALREADY_ANSWERED/);
  });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { text: "one" } });
});

scenario("free text, a schema, and choices with free text", async (world) => {
  const flow = defineWorkflow({
    id: "answers",
    entry: "name",
    nodes: {
      name: () => askUser({ prompt: "Name?" }, { resultKey: "name", nextNode: "colour" }),
      colour: () =>
        askUser({ prompt: "Colour?", choices: ["red"], allowFreeText: true }, { resultKey: "colour", nextNode: "total" }),
      total: () =>
        askUser(
          { prompt: "Total?", schema: z.object({ cents: z.number().int().positive(), note: z.string().regex(/^[a-z]*$/) }) },
          { resultKey: "total", nextNode: "end" },
        ),
      end: ({ vars }) => complete(vars),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.respond(runId, "Ada");
  await world.respond(runId, "blue");
  for (const wrong of ["text", {}, { cents: 1.5, note: "" }, { cents: -1, note: "" }, { cents: 1, note: "UP" }]) {
    expect(await ask(world, runId, wrong)).toMatch(/^ANSWER_INVALID: .*The run still waits; answer again/);
  }
  expect(await world.respond(runId, { cents: 5, note: "ok" })).toMatchObject({
    status: "completed",
    output: { name: { text: "Ada" }, colour: { text: "blue" }, total: { cents: 5, note: "ok" } },
  });
});

scenario("the same question in a loop has a new key each time", async (world) => {
  const flow = defineWorkflow({
    id: "again",
    entry: "ask",
    nodes: {
      ask: ({ vars }) => {
        if (vars.answer) vars.all = [...(vars.all ?? []), vars.answer.text];
        return vars.answer?.text === "stop"
          ? complete(vars.all)
          : askUser({ prompt: "More?" }, { resultKey: "answer", nextNode: "ask" });
      },
    },
  });
  await world.use(flow);
  const run = await world.run(flow);
  const keys = [run.waits[0]!.waitKey];
  keys.push((await world.respond(run.runId, "a")).waits[0]!.waitKey);
  expect(await refusal(world.with((runtime) => runtime.resume(run.runId, { waitKey: keys[0]!, payload: "late" })))).toMatch(
    /^ALREADY_ANSWERED/,
  );
  keys.push((await world.resume(run.runId, keys[1]!, "b")).waits[0]!.waitKey);
  expect(new Set(keys).size).toBe(3);
  expect((await world.respond(run.runId, "stop")).output).toEqual(["a", "b", "stop"]);
});

scenario("an event is answered by resume, and a wrong key is refused", async (world) => {
  const flow = defineWorkflow({
    id: "event",
    entry: "wait",
    nodes: {
      wait: () => waitEvent({ key: "payment", schema: z.object({ cents: z.number() }) }, { resultKey: "paid", nextNode: "end" }),
      end: ({ vars }) => complete(vars.paid),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  const resume = (waitKey: string, payload: unknown) =>
    refusal(world.with((runtime) => runtime.resume(runId, { waitKey, payload })));
  expect(await resume("paymnet", { cents: 1 })).toMatch(/^WAIT_KEY_MISMATCH: .*waits under: payment.*Did you mean "payment"\?/);
  expect(await resume("payment", "a text stays a text")).toMatch(/^ANSWER_INVALID/);
  expect(await world.resume(runId, "payment", { cents: 5 })).toMatchObject({ status: "completed", output: { cents: 5 } });
});

scenario("an event or a job that comes early is kept for its wait", async (world) => {
  const flow = defineWorkflow({
    id: "early",
    entry: "sleep",
    nodes: {
      sleep: () => sleep(1_000, { nextNode: "wait" }),
      wait: () => waitEvent("go", { resultKey: "event", nextNode: "end" }),
      end: ({ vars }) => complete(vars.event),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.with((runtime) => runtime.store.deliver([{ id: "m1", runId, kind: "event", key: "go", payload: { n: 1 } }]));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "waiting", node: "sleep" });
  await world.advance(1_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { n: 1 } });
});

scenario("sleep and waitUntil go on when their moment has come", async (world) => {
  const flow = defineWorkflow({
    id: "moments",
    entry: "nap",
    nodes: {
      nap: () => sleep({ hours: 1, seconds: 30 }, { resultKey: "nap", nextNode: "date" }),
      date: () => waitUntil("2026-02-01T09:00:00+02:00", { resultKey: "date", nextNode: "past" }),
      past: () => waitUntil(new Date(0), { resultKey: "past", nextNode: "plain" }),
      plain: (): StepPlan => ({
        effect: { type: "wait_until", payload: { until: world.now() + 5 }, resultKey: "plain" },
        nextNode: "end",
      }),
      end: ({ vars }) => complete(vars),
    },
  });
  await world.use(flow);
  const start = world.now();
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "waiting", node: "nap", wakeAt: start + 3_630_000 });
  await world.advance(3_629_999);
  expect(await world.get(run.runId)).toMatchObject({ status: "waiting", node: "nap" });
  await world.advance(1);
  const until = Date.UTC(2026, 1, 1, 7);
  expect(await world.get(run.runId)).toMatchObject({ node: "date", wakeAt: until });
  // Nobody answers a moment.
  expect(await ask(world, run.runId, "now")).toMatch(/^NOT_WAITING/);
  await world.advance(until - world.now());
  expect(await world.get(run.runId)).toMatchObject({ node: "plain" });
  await world.advance(5);
  const ready = (at: number) => ({ until: new Date(at).toISOString(), ready: true });
  expect((await world.get(run.runId)).output).toEqual({
    nap: ready(start + 3_630_000),
    date: ready(until),
    past: ready(0),
    plain: ready(until + 5),
  });
});

scenario("fractions of a millisecond and moments far away are moments too", async (world) => {
  const flow = defineWorkflow({
    id: "fractions",
    entry: "a",
    nodes: {
      a: () => sleep(0.4, { nextNode: "b" }),
      b: (): StepPlan => ({ effect: { type: "wait_until", payload: { until: world.now() + 1.5 } }, nextNode: "c" }),
      c: () => askUser({ prompt: "?", timeoutMs: 2.25 }, { nextNode: "d", timeoutNode: "d" }),
      d: (): StepPlan => ({
        effect: { type: "ask_user", payload: { prompt: "?", timeout_ms: 1e300 }, resultKey: "far" },
        nextNode: "e",
      }),
      e: ({ vars }) => complete(vars.far),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  for (let i = 0; i < 8; i++) await world.advance(1);
  const run = await world.get(runId);
  expect(run.status === "failed" ? run.error : run.status).toMatchObject({ code: "EFFECT_INPUT_INVALID" });
});

scenario("a deadline goes to its timeoutNode, which sees why", async (world) => {
  const flow = defineWorkflow({
    id: "deadline",
    entry: "ask",
    nodes: {
      ask: () => askUser({ prompt: "?", timeoutMs: 5_000 }, { resultKey: "answer", nextNode: "end", timeoutNode: "late" }),
      late: ({ error, vars }) => complete({ late: true, code: error?.code ?? null, answer: vars.answer ?? null }),
      end: () => complete({ late: false }),
    },
  });
  await world.use(flow);
  const [late, inTime] = [await world.run(flow), await world.run(flow)];
  expect(late).toMatchObject({ status: "waiting", wakeAt: world.now() + 5_000 });
  await world.respond(inTime.runId, "yes");
  await world.advance(5_000);
  expect(await world.get(late.runId)).toMatchObject({
    status: "completed",
    output: { late: true, code: "WAIT_TIMEOUT", answer: null },
  });
  expect(await world.get(inTime.runId)).toMatchObject({ status: "completed", output: { late: false } });
  expect(await ask(world, late.runId, "yes")).toMatch(/^NOT_WAITING/);
});

scenario("a deadline without a node fails the run, or goes to errorNode", async (world) => {
  const flow = defineWorkflow({
    id: "deadlines",
    entry: "ask",
    nodes: {
      ask: ({ vars }): StepPlan => ({
        ...waitEvent({ key: "go", timeoutMs: 100 }, { nextNode: "end" }),
        ...(vars.caught ? { errorNode: "caught" } : {}),
      }),
      caught: ({ error }) => complete(error?.code ?? null),
      end: () => complete(),
    },
  });
  await world.use(flow);
  const [fails, caught] = [await world.run(flow), await world.run(flow, { caught: true })];
  await world.advance(100);
  expect(await world.get(fails.runId)).toMatchObject({ status: "failed", error: { code: "WAIT_TIMEOUT" } });
  expect((await world.get(fails.runId)).error?.message).toMatch(/"go" within 100 ms.*timeoutNode/);
  expect(await world.get(caught.runId)).toMatchObject({ status: "completed", output: "WAIT_TIMEOUT" });
});

scenario("an answer that came before its deadline counts, however late it is taken", async (world) => {
  const flow = defineWorkflow({
    id: "race",
    entry: "ask",
    nodes: {
      ask: () => askUser({ prompt: "?", timeoutMs: 1_000 }, { resultKey: "answer", nextNode: "end", timeoutNode: "late" }),
      late: () => complete("late"),
      end: ({ vars }) => complete(vars.answer.text),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.manually((runtime) => runtime.respond(runId, "just in time"));
  await world.clock.advance(2_000);
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: "just in time" });
});

scenario("a handler may wait for a job, and for a person", async (world) => {
  let calls = 0;
  const render = defineEffect("render", {
    run: ({ film }: { film: string }, { idempotencyKey }) => {
      calls += 1;
      return wait({ reason: "job", details: { film, ticket: idempotencyKey.slice(0, 8) }, timeoutMs: 60_000 });
    },
  });
  const review = defineEffect("review", {
    run: async () => wait({ reason: "user", prompt: "Good?", choices: ["yes", "no"], waitKey: "review" }),
  });
  const flow = defineWorkflow({
    id: "handler-waits",
    entry: "render",
    effects: [render, review],
    nodes: {
      render: () => render({ film: "x" }, { resultKey: "rendered", nextNode: "review", timeoutNode: "late" }),
      review: () => review({}, { resultKey: "reviewed", nextNode: "end" }),
      late: () => complete("late"),
      end: ({ vars }) => complete(vars),
    },
  });
  await world.use(flow);
  const [run, late] = [await world.run(flow), await world.run(flow)];
  expect(run.waits).toMatchObject([{ reason: "job", details: { film: "x" }, until: world.now() + 60_000 }]);
  expect(await world.respond(run.runId, { frames: 24 })).toMatchObject({ status: "waiting", node: "review" });
  expect(await ask(world, run.runId, "maybe")).toMatch(/^ANSWER_INVALID/);
  expect(await world.resume(run.runId, "review", "yes")).toMatchObject({
    status: "completed",
    output: { rendered: { frames: 24 }, reviewed: { text: "yes" } },
  });
  await world.advance(60_000);
  expect(await world.get(late.runId)).toMatchObject({ status: "completed", output: "late" });
  expect(calls).toBe(2);
});

scenario("a clock that jumps backwards delays, and nothing is lost or done twice", async (world) => {
  let count = 0;
  const work = defineEffect("work", { run: () => ++count });
  const flow = defineWorkflow({
    id: "backwards",
    entry: "nap",
    effects: [work],
    nodes: {
      nap: ({ vars }) => {
        vars.naps = (vars.naps ?? 0) + 1;
        return sleep(10_000, { nextNode: "work" });
      },
      work: () => work({}, { resultKey: "count", nextNode: "next" }),
      next: ({ vars }): StepPlan => (vars.naps < 3 ? { nextNode: "nap" } : { completeOutput: vars }),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(6_000);
  world.turnedBackMs = 3_600_000;
  await world.advance(4_000);
  expect(await world.get(runId)).toMatchObject({ status: "waiting", vars: { naps: 1 } });
  await world.advance(3_600_000);
  expect(await world.get(runId)).toMatchObject({ status: "waiting", vars: { naps: 2, count: 1 } });
  world.turnedBackMs += 5_000;
  await world.advance(15_000);
  expect(await world.get(runId)).toMatchObject({ status: "waiting", vars: { naps: 3, count: 2 } });
  await world.advance(10_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { naps: 3, count: 3 } });
});
