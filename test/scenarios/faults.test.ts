// What goes wrong around a run: nodes that throw or never settle, damaged records, newer formats.
import { askUser, complete, defineEffect, defineWorkflow, goto, sleep, waitEvent } from "abstractruntime";
import { expect } from "vitest";
import { refusal, scenario } from "./harness.ts";

const never = new Promise<never>(() => undefined);

function nodeOf(run: any, more: Record<string, any> = {}) {
  return defineWorkflow({ id: "odd", entry: "a", nodes: { a: run, ...more, end: () => complete() } } as any);
}

scenario("a node that throws fails its run, with node, message and stack, and without its changes", async (world) => {
  for (const run of [
    ({ vars }: any) => {
      vars.touched = true;
      throw new TypeError("oops");
    },
    async ({ vars }: any) => {
      vars.touched = true;
      await null;
      throw new TypeError("oops");
    },
  ]) {
    const flow = nodeOf(run);
    await world.use(flow);
    const failed = await world.run(flow, { n: 1 });
    expect(failed).toMatchObject({ status: "failed", vars: { n: 1 }, node: "a", error: { code: "NODE_FAILED" } });
    expect(failed.error?.message).toMatch(/^NODE_FAILED: node "a" threw: TypeError: oops/);
    expect(failed.error?.stack).toMatch(/faults\.test\.ts/);
  }
});

scenario("a node that never settles fails when its time is over", async (world) => {
  const flow = nodeOf({ run: () => never, timeoutMs: 2_000 });
  await world.use(flow);
  const runId = await world.start(flow);
  await world.advance(1_999);
  expect(await world.get(runId)).toMatchObject({ status: "running" });
  await world.advance(1);
  expect(await world.get(runId)).toMatchObject({ status: "failed", error: { code: "NODE_TIMEOUT" } });
  const patient = nodeOf(() => never);
  await world.use(patient);
  const other = await world.start(patient);
  await world.advance(30_000);
  expect((await world.get(other)).error?.message).toMatch(/"a" did not return within 30000 ms/);
});

scenario("a runtime stops although a node never settles, and the node runs again elsewhere", async (world) => {
  let runs = 0;
  const flow = nodeOf(() => (++runs === 1 ? never : goto("end")));
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  const before = world.now();
  await (world.mode === "abandoned" ? world.crash() : world.drop());
  expect(world.now()).toBe(before);
  if (world.mode === "restarted") world.forget();
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed" });
  expect(runs).toBe(2);
});

scenario("nonsense is refused as a plan", async (world) => {
  for (const [returned, code, message] of [
    [undefined, "PLAN_INVALID", /it is undefined, not a plan/],
    [null, "PLAN_INVALID", /it is null/],
    ["end", "PLAN_INVALID", /a string/],
    [[], "PLAN_INVALID", /a list/],
    [{}, "PLAN_INVALID", /neither where to go/],
    [{ nextNode: "" }, "PLAN_INVALID", /nextNode is empty/],
    [{ nextNode: "edn" }, "NODE_UNKNOWN", /node "a" names node "edn".*Did you mean "end"\?/],
    [{ nextnode: "end" }, "PLAN_INVALID", /"nextnode" is not part of a plan.*Did you mean "nextNode"\?/],
    [{ effect: { type: "ask_user", payload: {} }, nextNode: "end" }, "EFFECT_INPUT_INVALID", /prompt is missing/],
    [
      { effect: { type: "wait_until", payload: { until: "tomorrow" } }, nextNode: "end" },
      "EFFECT_INPUT_INVALID",
      /"tomorrow" is not a date or a time/,
    ],
    [
      { effect: { type: "wait_until", payload: { until: "2026-01-01T00:00:00" } }, nextNode: "end" },
      "EFFECT_INPUT_INVALID",
      /offset/,
    ],
    [{ effect: { type: "wait_until", payload: { until: "2026-02-31" } }, nextNode: "end" }, "EFFECT_INPUT_INVALID", /2026-02-31/],
    [{ effect: { type: "wait_event", payload: {} }, nextNode: "end" }, "EFFECT_INPUT_INVALID", /waitKey is missing/],
    [
      { effect: { type: "wait_event", payload: { waitKey: "k" }, resultKey: "a.__proto__.b" }, nextNode: "end" },
      "RESULT_KEY_INVALID",
      /prototype/,
    ],
    [{ effect: { type: "any", payload: { effects: [] } }, nextNode: "end" }, "EFFECT_INPUT_INVALID", /never happens/],
    [{ completeOutput: { when: new Date(0) } }, "NOT_JSON", /output\/when.*Date/],
    [{ completeOutput: () => 1 }, "NOT_JSON", /output/],
    [{ completeOutput: Number.NaN }, "NOT_JSON", /finite/],
  ] as const) {
    const flow = nodeOf(() => returned);
    await world.use(flow);
    const { status, error } = await world.run(flow);
    expect({ status, code: error?.code, message: error?.message }).toEqual({
      status: "failed",
      code,
      message: expect.stringMatching(message),
    });
  }
});

scenario("vars that are no JSON fail the run, and nothing of them is recorded", async (world) => {
  const cycle: any = { list: [] };
  cycle.list.push(cycle);
  for (const [value, message] of [
    [new Date(0), /vars\/it.*Date/],
    [() => 1, /vars\/it/],
    [Number.POSITIVE_INFINITY, /finite/],
    [[1, undefined], /vars\/it\/1/],
    // biome-ignore lint/suspicious/noSparseArray: a hole is what is tested
    [[1, , 2], /hole/],
    [cycle, /contains itself/],
    [JSON.parse('{"__proto__": {"x": 1}}'), /__proto__/],
    [new Map(), /Map/],
    [10n, /bigint/],
  ] as const) {
    const flow = nodeOf(({ vars }: any) => {
      vars.it = value;
      return goto("end");
    });
    await world.use(flow);
    const run = await world.run(flow, { kept: 1 });
    expect(run).toMatchObject({ status: "failed", error: { code: "NOT_JSON" }, vars: { kept: 1 } });
    expect(Object.keys(run.vars)).toEqual(["kept"]);
    expect(run.error?.message).toMatch(message);
  }
});

scenario("a damaged record sets its run aside, alone", async (world) => {
  const flow = defineWorkflow({
    id: "waiting",
    entry: "a",
    nodes: {
      a: ({ vars }) => {
        vars.cents = 500;
        return waitEvent("go", { nextNode: "b" });
      },
      b: ({ vars }) => complete(vars.cents),
    },
  });
  await world.use(flow);
  const deliver = (runId: string) =>
    world.manually(async ({ store }) => void (await store.deliver([{ id: "m", runId, kind: "event", key: "go", payload: 1 }])));
  for (const change of [
    // Still JSON, and a lie.
    (body: string) => body.replace("500", "900"),
    (body: string) => body.slice(0, -5),
    (body: string) => body.replace('"op"', '"po"'),
    () => "",
  ]) {
    const [bad, good] = [await world.run(flow), await world.run(flow)];
    await world.damage(bad.runId, 1, ({ body }) => ({ body: change(body as string) }));
    world.damaged.add(bad.runId);
    await deliver(bad.runId);
    await deliver(good.runId);
    await world.settle();
    const row = (runId: string) => world.with(async ({ store }) => (await store.load(runId))!);
    expect((await row(bad.runId)).blocked).toMatchObject({ code: "RECORD_CORRUPT", quarantine: true });
    expect((await row(bad.runId)).row).toMatchObject({ status: "waiting", seq: 1 });
    expect(await world.get(good.runId)).toMatchObject({ status: "completed", output: 500 });
    expect(await refusal(world.manually((runtime) => runtime.tick(bad.runId)))).toMatch(
      /^RUN_QUARANTINED: .*record 1 .*verify RUN/,
    );
    expect(await refusal(world.with((runtime) => runtime.result(bad.runId)))).toMatch(/^RUN_QUARANTINED/);
    expect(await refusal(world.with((runtime) => runtime.get(bad.runId)))).toMatch(/^RECORD_CORRUPT/);
    // Other code does not lift a quarantine; an operator does, after mending.
    await world.mend();
    expect(await refusal(world.manually((runtime) => runtime.tick(bad.runId)))).toMatch(/^RUN_QUARANTINED/);
    expect(await world.with(({ store }) => store.lift(bad.runId))).toBe(true);
    world.damaged.delete(bad.runId);
    await world.advance(1_000);
    expect(await world.get(bad.runId)).toMatchObject({ status: "completed", output: 500 });
  }
});

scenario("a damaged checkpoint is rebuilt from the ledger", async (world) => {
  const flow = defineWorkflow({
    id: "long",
    entry: "a",
    nodes: {
      a: ({ vars }) => {
        vars.lines = [...(vars.lines ?? []), "x".repeat(4_000)];
        return vars.lines.length < 50 ? goto("a") : askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "b" });
      },
      b: ({ vars }) =>
        vars.answer.text === "on"
          ? askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "b" })
          : complete({ lines: vars.lines.length, answer: vars.answer }),
    },
  });
  await world.use(flow);
  const run = await world.run(flow);
  const damaged = await world.damageCheckpoints(run.runId);
  expect(damaged).toBeGreaterThan(0);
  world.damaged.add(run.runId);
  expect(await world.get(run.runId)).toEqual(run);
  expect((await world.with((runtime) => runtime.stateAt(run.runId, 49))).vars.lines).toHaveLength(49);
  await world.respond(run.runId, "on");
  // A good one is written at once, and has the next number.
  const checkpoints = await world.with(({ store }) => store.checkpoints(run.runId));
  expect(checkpoints.at(-1)?.ordinal).toBe(damaged + 1);
  expect(await world.respond(run.runId, "go")).toMatchObject({
    status: "completed",
    output: { lines: 50, answer: { text: "go" } },
  });
  const { problems } = await world.with((runtime) => runtime.verify(run.runId));
  expect(problems.map(({ problem }) => problem).join()).toMatch(/checkpoint/);
});

scenario("a record of a newer format blocks its run until newer code comes", async (world) => {
  const flow = defineWorkflow({
    id: "newer",
    entry: "a",
    nodes: { a: () => sleep(1_000, { nextNode: "b" }), b: () => complete() },
  });
  await world.use(flow);
  const run = await world.run(flow);
  await world.damage(run.runId, 1, ({ header }) => ({ header: header.replace('"v":1', '"v":2') }));
  world.damaged.add(run.runId);
  await world.advance(1_000);
  const { blocked } = (await world.with(({ store }) => store.load(run.runId)))!;
  expect(blocked).toMatchObject({ code: "FORMAT_NEWER", quarantine: false });
  expect(blocked?.problem).toMatch(/has format 2; this version reads up to 1\. Upgrade/);
  expect(await refusal(world.manually((runtime) => runtime.tick(run.runId)))).toMatch(/^RUN_BLOCKED: .*FORMAT_NEWER/);
  // As if the code were newer: it reads the record, and its name is another.
  await world.mend();
  world.damaged.delete(run.runId);
  await world.use({ workflows: [flow], effects: [defineEffect("new", { run: () => 1 })] });
  await world.settle();
  expect(await world.get(run.runId)).toMatchObject({ status: "completed" });
});
