// Events from outside: to one run, to many, early, late, twice, too many.
import { all, any, askUser, complete, defineWorkflow, goto, sleep, type StepPlan, subworkflow, waitEvent } from "abstractruntime";
import { expect } from "vitest";
import { everyRun, refusal, scenario, type World } from "./harness.ts";

const to = { resultKey: "got", nextNode: "end" };

/** Waits for `vars.keys`, one after the other, and completes with what came. */
const listener = defineWorkflow({
  id: "listener",
  entry: "next",
  nodes: {
    next: ({ vars }): StepPlan => {
      vars.got = [...(vars.got ?? []), ...("last" in vars ? [vars.last] : [])];
      const key = (vars.keys ?? ["go"])[vars.got.length];
      return key === undefined
        ? (complete(vars.got) as StepPlan)
        : (waitEvent(key, { resultKey: "last", nextNode: "next" }) as StepPlan);
    },
  },
});

/** Asks a person first, so that signals come early. */
const later = defineWorkflow({
  id: "later",
  entry: "ask",
  nodes: {
    ask: () => askUser({ prompt: "?" }, { nextNode: "next" }),
    next: ({ vars }): StepPlan => {
      vars.got = [...(vars.got ?? []), ...("last" in vars ? [vars.last] : [])];
      return vars.got.length === (vars.n ?? 1)
        ? (complete(vars.got) as StepPlan)
        : (waitEvent("go", { resultKey: "last", nextNode: "next" }) as StepPlan);
    },
  },
});

const send = async (world: World, runId: string, key: string, payload?: unknown, options: { id?: string } = {}) => {
  const sent = await world.with((runtime) => runtime.signal(runId, key, payload, options));
  await world.settle();
  return sent;
};
const emit = async (world: World, key: string, payload?: unknown, options: { id?: string; workflowId?: string } = {}) => {
  const count = await world.with((runtime) => runtime.emit(key, payload, options));
  await world.settle();
  return count;
};
const outputs = (world: World) =>
  world.with(async (runtime) =>
    Promise.all((await everyRun(runtime)).map(async ({ runId }) => (await runtime.get(runId)).output ?? null)),
  );

// ---- One run -------------------------------------------------------------------------------------------------------------

scenario("a signal reaches the run that waits for it, with its payload or null", async (world) => {
  await world.use(listener);
  for (const [payload, came] of [
    [{ a: [1] }, { a: [1] }],
    [undefined, null],
    [null, null],
    [0, 0],
    ["", ""],
    [false, false],
  ] as const) {
    const { runId } = await world.run(listener);
    expect(await send(world, runId, "go", payload)).toEqual({ duplicate: false });
    expect(await world.get(runId)).toMatchObject({ status: "completed", output: [came] });
  }
});

scenario("a signal that comes early is kept, and those of other keys do not disturb", async (world) => {
  await world.use(later);
  const { runId } = await world.run(later);
  await send(world, runId, "other", "x");
  await send(world, runId, "go", "early");
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  expect(await world.respond(runId, "on")).toMatchObject({ status: "completed", output: ["early"] });
});

scenario("signals of one key are taken in their order, one by each wait, early or not", async (world) => {
  await world.use({ workflows: [later, listener] });
  const { runId } = await world.run(later, { n: 4 });
  for (const n of [1, 2, 3]) await send(world, runId, "go", n);
  expect((await world.respond(runId, "on")).vars.got).toEqual([1, 2, 3]);
  await send(world, runId, "go", 4);
  expect((await world.get(runId)).output).toEqual([1, 2, 3, 4]);
  // Alternating keys, sent in another order than they are waited for.
  const other = await world.run(listener, { keys: ["a", "b", "a", "b"] });
  for (const [key, payload] of [
    ["b", 1],
    ["b", 2],
    ["a", 3],
    ["a", 4],
  ] as const)
    await send(world, other.runId, key, payload);
  expect((await world.get(other.runId)).output).toEqual([3, 1, 4, 2]);
});

scenario("signals sent at once keep their order", async (world) => {
  await world.use(later);
  const { runId } = await world.run(later, { n: 20 });
  await world.with((runtime) => Promise.all(Array.from({ length: 20 }, (_, n) => runtime.signal(runId, "go", n))));
  await world.settle();
  expect((await world.respond(runId, "on")).output).toEqual(Array.from({ length: 20 }, (_, n) => n));
});

scenario("one signal ends one of two waits for one key, and a second the other", async (world) => {
  const flow = defineWorkflow({
    id: "two",
    entry: "go",
    nodes: { go: () => all([waitEvent("k"), waitEvent("k")], to as any) as any, end: ({ vars }) => complete(vars.got) },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await send(world, runId, "k", 1);
  expect(await world.get(runId)).toMatchObject({ status: "waiting", waits: [{ waitKey: "k" }] });
  await send(world, runId, "k", 2);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: [1, 2] });
});

scenario("the same signal twice is one, taken or not, and says so; other content under its id is refused", async (world) => {
  await world.use({ workflows: [later, listener] });
  const { runId } = await world.run(later, { n: 2 });
  const id = "order-17";
  expect(await send(world, runId, "go", { a: 1, b: 2 }, { id })).toEqual({ duplicate: false });
  expect(await send(world, runId, "go", { b: 2, a: 1 }, { id })).toEqual({ duplicate: true });
  const refused = (payload: unknown, key = "go") => refusal(world.with((runtime) => runtime.signal(runId, key, payload, { id })));
  expect(await refused({ a: 1, b: 3 })).toMatch(/^MESSAGE_ID_REUSED/);
  expect(await refused({ a: 1, b: 2 }, "other")).toMatch(/^MESSAGE_ID_REUSED/);
  await world.respond(runId, "on");
  expect(await world.get(runId)).toMatchObject({ status: "waiting", vars: { got: [{ a: 1, b: 2 }] } });
  // Taken by now: known all the same.
  expect(await send(world, runId, "go", { a: 1, b: 2 }, { id })).toEqual({ duplicate: true });
  expect(await refused(null)).toMatch(/^MESSAGE_ID_REUSED/);
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  await send(world, runId, "go", 2, { id: "order-18" });
  expect(await world.get(runId)).toMatchObject({ status: "completed" });
  // Ended by now.
  expect(await send(world, runId, "go", { a: 1, b: 2 }, { id })).toEqual({ duplicate: true });
  // An id stands for one run's message.
  const other = await world.run(listener);
  expect(await send(world, other.runId, "go", 9, { id })).toEqual({ duplicate: false });
});

scenario("a signal and an event for many under one id do not meet", async (world) => {
  await world.use(listener);
  const { runId } = await world.run(listener, { keys: ["go", "go"] });
  expect(await emit(world, "go", 1, { id: "x" })).toBe(1);
  expect(await send(world, runId, "go", 2, { id: "x" })).toEqual({ duplicate: false });
  expect((await world.get(runId)).output).toEqual([1, 2]);
});

scenario("a signal to a run that has ended, or that is not there, is refused", async (world) => {
  await world.use({ workflows: [listener, later] });
  const done = await world.run(listener, { keys: [] });
  const cancelled = await world.run(listener);
  await world.with((runtime) => runtime.cancel(cancelled.runId));
  await world.settle();
  for (const runId of [done.runId, cancelled.runId])
    expect(await refusal(world.with((runtime) => runtime.signal(runId, "go")))).toMatch(/^RUN_ENDED/);
  expect(await refusal(world.with((runtime) => runtime.signal("nobody", "go")))).toMatch(/^RUN_NOT_FOUND/);
});

scenario("a signal that is no signal is refused before anything is stored", async (world) => {
  await world.use({ workflows: [listener], limits: { messageBytes: 100 } });
  const { runId } = await world.run(listener);
  const refused = (key: any, payload?: any, options?: any) =>
    refusal(world.with((runtime) => runtime.signal(runId, key, payload, options)));
  expect(await refused("")).toMatch(/^INVALID_OPTION/);
  expect(await refused(7)).toMatch(/^INVALID_OPTION/);
  expect(await refused("k".repeat(501))).toMatch(/^INVALID_OPTION/);
  expect(await refused("\ud800")).toMatch(/^INVALID_OPTION/);
  expect(await refused("go", null, { id: "" })).toMatch(/^INVALID_OPTION/);
  expect(await refused("go", null, { ids: "x" })).toMatch(/^INVALID_OPTION.*Did you mean "id"/);
  expect(await refused("go", () => 1)).toMatch(/^NOT_JSON/);
  expect(await refused("go", "x".repeat(100))).toMatch(/^TOO_LARGE/);
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  expect(await send(world, runId, "go", "x".repeat(98))).toEqual({ duplicate: false });
});

scenario("a signal does not answer a person's question under its key, nor a job", async (world) => {
  const flow = defineWorkflow({
    id: "asks",
    entry: "go",
    nodes: { go: () => askUser({ prompt: "?", waitKey: "k" }, to as any) as any, end: ({ vars }) => complete(vars.got) },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await send(world, runId, "k", { text: "forged" });
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  expect(await world.respond(runId, "mine")).toMatchObject({ status: "completed", output: { text: "mine" } });
});

scenario("a full mailbox takes no more signals, but a cancel and the ends of children", async (world) => {
  const child = defineWorkflow({
    id: "child",
    entry: "a",
    nodes: { a: () => askUser({ prompt: "?" }, { nextNode: "b" }), b: () => complete("end") },
  });
  const flow = defineWorkflow({
    id: "flow",
    entry: "go",
    nodes: { go: () => subworkflow(child, {}, to as any) as any, end: ({ vars }) => complete(vars.got.output) },
  });
  await world.use({ workflows: [flow, child, listener], limits: { mailboxMessages: 2 } });
  const { runId } = await world.run(flow);
  await send(world, runId, "early", 1, { id: "1" });
  await send(world, runId, "early", 2);
  expect(await refusal(world.with((runtime) => runtime.signal(runId, "early", 3)))).toMatch(/^MAILBOX_FULL.*2/);
  // One that is there already is not refused for want of room.
  expect(await send(world, runId, "early", 1, { id: "1" })).toEqual({ duplicate: true });
  const { runs } = await world.with((runtime) => runtime.list({ parentRunId: runId }));
  await world.with((runtime) => runtime.pause(runId));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ paused: true });
  await world.with((runtime) => runtime.unpause(runId));
  await world.respond(runs[0]!.runId, "x");
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: "end" });
  // Room again as soon as one is taken.
  const other = await world.run(listener, { keys: ["go", "go", "go"] });
  await world.manually(async (runtime) => {
    await runtime.signal(other.runId, "go", 1);
    await runtime.signal(other.runId, "go", 2);
    expect(await refusal(runtime.signal(other.runId, "go", 3))).toMatch(/^MAILBOX_FULL/);
  });
  await world.settle();
  await send(world, other.runId, "go", 3);
  expect((await world.get(other.runId)).output).toEqual([1, 2, 3]);
  // A cancel gets through a full one.
  const last = await world.run(listener);
  await send(world, last.runId, "a");
  await send(world, last.runId, "b");
  await world.with((runtime) => runtime.cancel(last.runId));
  await world.settle();
  expect(await world.get(last.runId)).toMatchObject({ status: "cancelled" });
});

scenario("a signal to a paused run is kept, and taken when it goes on", async (world) => {
  await world.use(listener);
  const { runId } = await world.run(listener, { keys: ["go", "go"] });
  await world.with((runtime) => runtime.pause(runId));
  await world.settle();
  await send(world, runId, "go", 1);
  await send(world, runId, "go", 2);
  expect(await world.get(runId)).toMatchObject({ status: "waiting", paused: true, wakeAt: null });
  await world.with((runtime) => runtime.unpause(runId));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: [1, 2] });
});

scenario("a signal at the very moment of a deadline: one of them wins, and the run goes on once", async (world) => {
  const flow = defineWorkflow({
    id: "deadline",
    entry: "go",
    nodes: {
      go: () => waitEvent({ key: "go", timeoutMs: 1_000 }, { ...to, timeoutNode: "late" } as any) as any,
      late: () => complete("late"),
      end: ({ vars }) => complete(vars.got),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.drop();
  await world.clock.advance(1_000);
  await world.manually((runtime) => runtime.signal(runId, "go", "in time?"));
  await world.settle();
  const run = await world.get(runId);
  expect(run.status).toBe("completed");
  expect(["late", "in time?"]).toContain(run.output);
});

// ---- Many runs -----------------------------------------------------------------------------------------------------------

scenario("emit reaches every run that waits for the event, counts them, and is not kept for others", async (world) => {
  const other = defineWorkflow({
    id: "other",
    entry: "go",
    nodes: { go: () => waitEvent("go", to as any) as any, end: ({ vars }) => complete(`other ${vars.got}`) },
  });
  await world.use({ workflows: [listener, later, other] });
  for (let i = 0; i < 3; i++) await world.run(listener);
  await world.run(other);
  await world.run(later);
  await world.run(listener, { keys: ["elsewhere"] });
  await world.run(listener, { keys: [] });
  expect(await emit(world, "nowhere", 1)).toBe(0);
  expect(await emit(world, "go", 7, { workflowId: "other" })).toBe(1);
  expect(await emit(world, "go", 8)).toBe(3);
  expect(await emit(world, "go", 9)).toBe(0);
  expect(await outputs(world)).toEqual([[8], [8], [8], "other 7", null, null, []]);
  // It came before that wait.
  const asked = (await world.with(everyRun)).find(({ workflowId }) => workflowId === "later")!;
  await world.respond(asked.runId, "on");
  expect(await world.get(asked.runId)).toMatchObject({ status: "waiting", waits: [{ waitKey: "go" }] });
});

scenario("emit reaches waits in groups, and paused runs, which take it later", async (world) => {
  const race = defineWorkflow({
    id: "race",
    entry: "go",
    nodes: {
      go: () => any([sleep(60_000), all([waitEvent("go"), waitEvent("go")])], to as any) as any,
      end: ({ vars }) => complete(vars.got),
    },
  });
  await world.use({ workflows: [race, listener] });
  const { runId } = await world.run(race);
  const paused = await world.run(listener);
  await world.with((runtime) => runtime.pause(paused.runId));
  await world.settle();
  expect(await emit(world, "go", 1)).toBe(2);
  // Its first one is not taken yet.
  await emit(world, "go", 2);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { index: 1, result: [1, 2] } });
  await world.with((runtime) => runtime.unpause(paused.runId));
  await world.settle();
  expect(await world.get(paused.runId)).toMatchObject({ status: "completed", output: [1] });
});

scenario("emit under the same id goes on where a crash stopped it, and nobody takes it twice", async (world) => {
  await world.use(listener);
  const runIds: string[] = [];
  for (let i = 0; i < 4; i++) runIds.push((await world.run(listener, { keys: ["go", "go"] })).runId);
  // As after a crash in the middle: two of them were reached, and one has even taken it.
  await world.manually(async (runtime) => {
    const reached = runIds
      .slice(0, 2)
      .map((runId) => ({ id: "emit:e", runId, kind: "event" as const, key: "go", payload: 1, ifWaiting: true as const }));
    await runtime.store.deliver(reached);
    await runtime.tick(runIds[0]!);
    // The first waits again, for its second event, and has had this one.
    expect(await runtime.emit("go", 1, { id: "e" })).toBe(4);
  });
  await world.settle();
  for (const runId of runIds) expect(await world.get(runId)).toMatchObject({ status: "waiting", vars: { got: [1] } });
  expect(await emit(world, "go", 1, { id: "e" })).toBe(4);
  expect(await refusal(world.with((runtime) => runtime.emit("go", 2, { id: "e" })))).toMatch(/^MESSAGE_ID_REUSED/);
  expect(await emit(world, "go", 2, { id: "f" })).toBe(4);
  for (const runId of runIds) expect((await world.get(runId)).output).toEqual([1, 2]);
});

scenario("emit reaches a run whose mailbox is full, too: it waits for this", async (world) => {
  await world.use({ workflows: [listener], limits: { mailboxMessages: 1 } });
  const full = await world.run(listener);
  const free = await world.run(listener);
  await send(world, full.runId, "elsewhere");
  expect(await refusal(world.with((runtime) => runtime.signal(full.runId, "elsewhere again")))).toMatch(/^MAILBOX_FULL/);
  expect(await emit(world, "go", 1)).toBe(2);
  for (const { runId } of [full, free]) expect(await world.get(runId)).toMatchObject({ status: "completed", output: [1] });
});

scenario("emit pages through more runs than one transaction takes", async (world) => {
  if (world.mode !== "plainly") return;
  await world.use(listener);
  await world.with((runtime) => Promise.all(Array.from({ length: 1_203 }, () => runtime.start(listener))));
  await world.settle();
  expect(await emit(world, "go", 1)).toBe(1_203);
  const { byStatus } = await world.with((runtime) => runtime.store.stats());
  expect(byStatus).toEqual({ completed: 1_203 });
  // Checked here: one by one it takes long.
  world.check = async () => undefined;
});

// ---- Races ---------------------------------------------------------------------------------------------------------------

scenario("any of event, sleep and question: each can win, and the others are closed", async (world) => {
  const flow = defineWorkflow({
    id: "race",
    entry: "go",
    nodes: {
      go: () => any([waitEvent("e"), sleep(5_000), askUser({ prompt: "?" })], to as any) as any,
      end: ({ vars }) => complete(vars.got),
    },
  });
  await world.use(flow);
  const wins: ((runId: string) => Promise<unknown>)[] = [
    (runId) => send(world, runId, "e", { n: 1 }),
    () => world.advance(5_000),
    (runId) => world.respond(runId, "me"),
  ];
  const results = [{ n: 1 }, { ready: true }, { text: "me" }];
  for (const [index, win] of wins.entries()) {
    const { runId } = await world.run(flow);
    await win(runId);
    expect(await world.get(runId)).toMatchObject({ status: "completed", output: { index, result: results[index] }, waits: [] });
    expect(await refusal(world.with((runtime) => runtime.signal(runId, "e")))).toMatch(/^RUN_ENDED/);
    expect(await refusal(world.with((runtime) => runtime.respond(runId, "late")))).toMatch(/^(NOT_WAITING|ALREADY_ANSWERED)/);
    expect(await emit(world, "e")).toBe(0);
  }
});

scenario("any: an event that lost its race stays for a later wait for it", async (world) => {
  const flow = defineWorkflow({
    id: "race",
    entry: "go",
    nodes: {
      go: () => any([waitEvent("a"), waitEvent("b")], { resultKey: "first", nextNode: "more" } as any) as any,
      more: () => goto("again"),
      again: () => waitEvent("b", to as any) as any,
      end: ({ vars }) => complete([vars.first, vars.got]),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.manually(async (runtime) => {
    await runtime.signal(runId, "a", 1);
    await runtime.signal(runId, "b", 2);
  });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: [{ index: 0, result: 1 }, 2] });
});

scenario("a crash at any commit loses no signal and takes none twice", async (world) => {
  await world.use(listener);
  for (const after of [false, true]) {
    for (let commits = 1; ; commits += world.stride) {
      if (commits > 60) throw new Error("It never ends unharmed.");
      const runId = await world.manually(
        async (runtime) => (await runtime.start(listener, { vars: { keys: ["a", "b", "a"] } })).runId,
      );
      await world.manually(async (runtime) => {
        await runtime.signal(runId, "a", 1);
        await runtime.signal(runId, "a", 2);
        await runtime.signal(runId, "b", 3);
      });
      world.killAt(commits, after);
      await Promise.resolve(world.settle()).catch((error) => {
        if (!world.killed) throw error;
      });
      const { killed } = world;
      world.killAt(Number.POSITIVE_INFINITY, false);
      await world.crash();
      await world.advance(2_000);
      expect(await world.get(runId)).toMatchObject({ status: "completed", output: [1, 3, 2] });
      if (!killed) break;
    }
  }
});
