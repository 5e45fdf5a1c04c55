// Detached children, waiting for their ends all the same, and the trees that children make.
import {
  all,
  any,
  askUser,
  complete,
  defineWorkflow,
  fail,
  goto,
  join,
  sleep,
  type StepPlan,
  subworkflow,
  waitEvent,
} from "abstractruntime";
import { expect } from "vitest";
import { everyRun, refusal, scenario, type World } from "./harness.ts";

const to = { resultKey: "got", nextNode: "end" };

/** Ends at once, fails, or asks first, as its vars say. */
const child = defineWorkflow({
  id: "child",
  entry: "go",
  nodes: {
    go: ({ vars }): StepPlan => {
      if (vars.fails) return fail({ message: "no stock", code: "STOCK" }) as StepPlan;
      if (vars.asks) return askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "end" }) as StepPlan;
      return complete("done") as StepPlan;
    },
    end: ({ vars }): StepPlan =>
      vars.answer.text === "fail"
        ? (fail({ message: "told so", code: "TOLD" }) as StepPlan)
        : (complete(vars.answer.text) as StepPlan),
  },
});

/** Starts a detached child with `vars.child`, waits for an event when `vars.waits` says so, and then does what `plan` says. */
function joining(plan: (subRunId: string, vars: any) => any, nodes: Record<string, any> = {}) {
  return defineWorkflow({
    id: "joining",
    entry: "go",
    nodes: {
      go: ({ vars }: any) =>
        subworkflow(child, { vars: vars.child ?? {}, detached: true }, { resultKey: "begun", nextNode: "middle" }),
      middle: ({ vars }: any): StepPlan =>
        vars.waits ? (waitEvent("join", { nextNode: "join" }) as StepPlan) : (goto("join") as StepPlan),
      join: ({ vars }: any): StepPlan => plan(vars.begun.subRunId, vars),
      caught: ({ error }: any) => complete({ caught: error?.message ?? null, code: error?.code ?? null }),
      late: () => complete("late"),
      end: ({ vars }: any) => complete({ got: vars.got }),
      ...nodes,
    },
  } as any);
}

const childOf = async (world: World, parentRunId: string) =>
  (await world.with((runtime) => runtime.list({ parentRunId, order: "oldest" }))).runs[0]!;
const delivered = async (world: World, runId: string) =>
  (await world.with((runtime) => runtime.ledger(runId))).filter(({ kind }) => kind === "delivered");
const signal = async (world: World, runId: string, key: string, payload?: unknown) => {
  await world.with((runtime) => runtime.signal(runId, key, payload));
  await world.settle();
  return world.get(runId);
};

// ---- One child -----------------------------------------------------------------------------------------------------------

scenario("join waits for the end of a detached child", async (world) => {
  const flow = joining((id) => join(id, to as any));
  await world.use({ workflows: [flow, child] });
  const run = await world.run(flow, { child: { asks: true } });
  const { runId } = await childOf(world, run.runId);
  expect(run).toMatchObject({
    status: "waiting",
    wakeAt: null,
    waits: [{ reason: "subworkflow", details: { subRunId: runId } }],
  });
  await world.respond(runId, "hello");
  expect(await world.get(run.runId)).toMatchObject({
    status: "completed",
    output: { got: { subRunId: runId, output: "hello" } },
  });
});

scenario(
  "join finds a child that ended long ago, and its end sent nothing to a parent that did not wait for it",
  async (world) => {
    const flow = joining((id) => join({ subRunId: id }, to as any));
    await world.use({ workflows: [flow, child] });
    const { runId } = await world.run(flow, { waits: true });
    await world.advance(86_400_000);
    expect(await childOf(world, runId)).toMatchObject({ status: "completed" });
    expect(await delivered(world, runId)).toEqual([]);
    expect(await world.with(async (runtime) => (await runtime.store.load(runId))?.mail)).toEqual([]);
    expect(await signal(world, runId, "join")).toMatchObject({ status: "completed", output: { got: { output: "done" } } });
  },
);

scenario("a parent that never joins hears nothing of its detached child", async (world) => {
  const flow = joining(() => waitEvent("on", to as any));
  await world.use({ workflows: [flow, child] });
  const { runId } = await world.run(flow, { child: { asks: true } });
  await world.respond((await childOf(world, runId)).runId, "x");
  expect(await delivered(world, runId)).toEqual([]);
  const { seq } = await world.get(runId);
  await signal(world, runId, "on", 1);
  // The event is what comes next.
  const records = await world.with((runtime) => runtime.ledger(runId, { from: seq + 1 }));
  expect(records.map(({ kind, data }: any) => `${kind} ${data.messageKind ?? ""}`.trim())).toEqual([
    "delivered event",
    "run_completed",
  ]);
});

scenario("a detached child goes on when its parent is cancelled", async (world) => {
  const flow = joining((id) => join(id, to as any));
  await world.use({ workflows: [flow, child] });
  const { runId } = await world.run(flow, { child: { asks: true } });
  await world.with((runtime) => runtime.cancel(runId));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
  const { runId: childId, status } = await childOf(world, runId);
  expect(status).toBe("waiting");
  expect(await world.respond(childId, "still here")).toMatchObject({ status: "completed" });
});

scenario("join of a child that failed or was cancelled fails, before and after", async (world) => {
  const flow = joining((id) => ({ ...join(id, to as any), errorNode: "caught" }));
  await world.use({ workflows: [flow, child] });
  // Already failed.
  expect(await world.run(flow, { child: { fails: true } })).toMatchObject({
    status: "completed",
    output: { caught: "no stock", code: "STOCK" },
  });
  const early = await world.run(flow, { child: { fails: true }, waits: true });
  expect(await signal(world, early.runId, "join")).toMatchObject({ status: "completed", output: { code: "STOCK" } });
  // Fails later.
  const later = await world.run(flow, { child: { asks: true } });
  await world.respond((await childOf(world, later.runId)).runId, "fail");
  expect(await world.get(later.runId)).toMatchObject({ status: "completed", output: { code: "TOLD" } });
  // Cancelled, before and after.
  for (const waits of [true, false]) {
    const run = await world.run(flow, { child: { asks: true }, waits });
    const { runId: childId } = await childOf(world, run.runId);
    await world.with((runtime) => runtime.cancel(childId));
    await world.settle();
    if (waits) await signal(world, run.runId, "join");
    expect(await world.get(run.runId)).toMatchObject({
      status: "completed",
      output: { caught: "the subworkflow was cancelled" },
    });
  }
});

scenario("join without an errorNode ends the run with the child's failure", async (world) => {
  const flow = joining((id) => join(id, to as any));
  await world.use({ workflows: [flow, child] });
  const run = await world.run(flow, { child: { fails: true } });
  expect(run).toMatchObject({ status: "failed" });
  expect(run.error?.message).toMatch(/no stock/);
});

scenario("join of a run that is no child of this one is refused: strangers, nobody, itself, a grandchild", async (world) => {
  const flow = joining((_, vars) => ({
    ...join(vars.other === "self" ? vars.self : vars.other, to as any),
    errorNode: "caught",
  }));
  const between = defineWorkflow({
    id: "between",
    entry: "go",
    nodes: {
      go: () => subworkflow(child, { vars: {} }, { resultKey: "got", nextNode: "end" }),
      end: ({ vars }) => complete(vars.got.subRunId),
    },
  });
  const above = defineWorkflow({
    id: "above",
    entry: "go",
    nodes: {
      go: () => subworkflow("between", { vars: {} }, { resultKey: "got", nextNode: "join" }),
      join: ({ vars }): any => ({ ...join(vars.got.output, { nextNode: "end" }), errorNode: "caught" }),
      caught: ({ error }) => complete({ code: error?.code ?? null }),
      end: () => complete("joined"),
    },
  });
  await world.use({ workflows: [flow, child, between, above] });
  const stranger = await world.run(child);
  expect(stranger.status).toBe("completed");
  for (const other of [stranger.runId, "nobody"]) {
    expect(await world.run(flow, { other })).toMatchObject({ status: "completed", output: { code: "CHILD_UNKNOWN" } });
  }
  const self = await world.start(flow, { runId: "me", vars: { other: "me" } });
  await world.settle();
  expect(await world.get(self)).toMatchObject({ status: "completed", output: { code: "CHILD_UNKNOWN" } });
  expect(await world.run(above)).toMatchObject({ status: "completed", output: { code: "CHILD_UNKNOWN" } });
});

scenario("join need not wait for ever, and the child goes on", async (world) => {
  const flow = joining((id) => join({ subRunId: id, timeoutMs: 3_000 }, { ...to, timeoutNode: "late" } as any));
  await world.use({ workflows: [flow, child] });
  const { runId } = await world.run(flow, { child: { asks: true } });
  await world.advance(2_999);
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  await world.advance(1);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: "late" });
  const { runId: childId } = await childOf(world, runId);
  expect(await world.respond(childId, "late too")).toMatchObject({ status: "completed", output: "late too" });
});

// ---- In groups and again -------------------------------------------------------------------------------------------------

scenario("join in all and any", async (world) => {
  const both = joining((id) => all([join(id), askUser({ prompt: "?", waitKey: "own" })], to as any));
  await world.use({ workflows: [both, child] });
  const first = await world.run(both, { child: { asks: true } });
  await world.respond((await childOf(world, first.runId)).runId, "c");
  expect(await world.respond(first.runId, "p")).toMatchObject({ output: { got: [{ output: "c" }, { text: "p" }] } });
  // Ended already.
  const second = await world.run(both);
  expect(await world.respond(second.runId, "p")).toMatchObject({ output: { got: [{ output: "done" }, { text: "p" }] } });

  const race = joining((id) => any([join(id), waitEvent("own"), sleep(5_000)], to as any));
  await world.use({ workflows: [race, child] });
  expect(await world.run(race)).toMatchObject({ output: { got: { index: 0, result: { output: "done" } } } });
  const slow = await world.run(race, { child: { asks: true } });
  await signal(world, slow.runId, "own", "e");
  expect(await world.get(slow.runId)).toMatchObject({ output: { got: { index: 1, result: "e" } } });
  // It was not begun for this wait, and lives on.
  expect(await childOf(world, slow.runId)).toMatchObject({ status: "waiting" });
});

scenario("join in an any of two children: the first to end wins, and a failed one is out", async (world) => {
  const two = defineWorkflow({
    id: "two",
    entry: "a",
    nodes: {
      a: ({ vars }) => subworkflow(child, { vars: vars.first, detached: true }, { resultKey: "one", nextNode: "b" }),
      b: ({ vars }) => subworkflow(child, { vars: vars.second, detached: true }, { resultKey: "two", nextNode: "race" }),
      race: ({ vars }): any => any([join(vars.one.subRunId), join(vars.two.subRunId)], to as any),
      end: ({ vars }) => complete(vars.got),
    },
  });
  await world.use({ workflows: [two, child] });
  expect(await world.run(two, { first: { asks: true }, second: {} })).toMatchObject({ output: { index: 1 } });
  const run = await world.run(two, { first: { fails: true }, second: { asks: true } });
  expect(run.status).toBe("waiting");
  const { runs } = await world.with((runtime) => runtime.list({ parentRunId: run.runId, order: "oldest" }));
  await world.respond(runs[1]!.runId, "second");
  expect(await world.get(run.runId)).toMatchObject({ output: { index: 1, result: { output: "second" } } });
});

scenario("join in an all that collects", async (world) => {
  const flow = joining((id) => all([join(id), join("nobody")], { ...to, onFailure: "collect" } as any));
  await world.use({ workflows: [flow, child] });
  expect(await world.run(flow, { child: { fails: true } })).toMatchObject({
    status: "completed",
    output: {
      got: [
        { status: "failed", error: { code: "STOCK" } },
        { status: "failed", error: { code: "CHILD_UNKNOWN" } },
      ],
    },
  });
});

scenario("join twice, one after the other, finds the same end twice", async (world) => {
  for (const vars of [{}, { child: { asks: true } }, { child: { fails: true } }] as any[]) {
    const flow = joining((id) => ({ ...join(id, { resultKey: "first", nextNode: "again" } as any), errorNode: "again" }), {
      again: ({ vars }: any) => ({ ...join(vars.begun.subRunId, to as any), errorNode: "caught" }),
    });
    await world.use({ workflows: [flow, child] });
    const run = await world.run(flow, vars);
    if (vars.child?.asks) await world.respond((await childOf(world, run.runId)).runId, "x");
    const done = await world.get(run.runId);
    expect(done.status).toBe("completed");
    if (!vars.child?.fails) expect(done.output.got).toEqual(done.vars.first);
    else expect(done.output).toMatchObject({ code: "STOCK" });
  }
});

scenario("join twice at once gives both the end", async (world) => {
  for (const asks of [false, true]) {
    const flow = joining((id) => all([join(id), join(id)], to as any));
    await world.use({ workflows: [flow, child] });
    const run = await world.run(flow, { child: { asks } });
    if (asks) await world.respond((await childOf(world, run.runId)).runId, "x");
    const done = await world.get(run.runId);
    expect(done.status).toBe("completed");
    expect(done.output.got[0]).toEqual(done.output.got[1]);
  }
});

scenario("join again after a join that was given up, of a child that ended in between, or just then", async (world) => {
  const flow = joining((id) => any([join(id), waitEvent("skip")], { nextNode: "rest" } as any), {
    rest: () => waitEvent("again", { nextNode: "second" } as any),
    second: ({ vars }: any) => join(vars.begun.subRunId, to as any),
  });
  await world.use({ workflows: [flow, child] });
  const between = await world.run(flow, { child: { asks: true } });
  await signal(world, between.runId, "skip");
  await world.respond((await childOf(world, between.runId)).runId, "b");
  expect(await signal(world, between.runId, "again")).toMatchObject({ status: "completed", output: { got: { output: "b" } } });
  // Both messages are there before the parent is driven: the event came first.
  const both = await world.run(flow, { child: { asks: true } });
  const { runId: childId } = await childOf(world, both.runId);
  await world.manually(async (runtime) => {
    await runtime.signal(both.runId, "skip");
    await runtime.respond(childId, "j");
    await runtime.tick(childId);
  });
  await world.settle();
  expect(await signal(world, both.runId, "again")).toMatchObject({ status: "completed", output: { got: { output: "j" } } });
});

scenario("a detached child that failed, was retried and then completed gives its new end", async (world) => {
  let broken = true;
  const flaky = defineWorkflow({
    id: "flaky",
    entry: "go",
    nodes: { go: (): StepPlan => (broken ? (fail("broken") as StepPlan) : (complete("mended") as StepPlan)) },
  });
  const flow = defineWorkflow({
    id: "flow",
    entry: "go",
    nodes: {
      go: () => subworkflow(flaky, { detached: true }, { resultKey: "begun", nextNode: "rest" }),
      rest: () => waitEvent("join", { nextNode: "join" }),
      join: ({ vars }) => join(vars.begun.subRunId, to as any) as any,
      end: ({ vars }) => complete(vars.got),
    },
  });
  broken = true;
  await world.use({ workflows: [flow, flaky] });
  const { runId } = await world.run(flow);
  const { runId: childId } = await childOf(world, runId);
  broken = false;
  await world.with((runtime) => runtime.retry(childId));
  await world.settle();
  expect(await world.get(childId)).toMatchObject({ status: "completed" });
  expect(await signal(world, runId, "join")).toMatchObject({ status: "completed", output: { output: "mended" } });
});

// ---- Crashes -------------------------------------------------------------------------------------------------------------

scenario("join: a crash at any commit loses no end, whether the child ends before, after or meanwhile", async (world) => {
  const flow = joining((id) => join(id, to as any));
  await world.use({ workflows: [flow, child] });
  for (const asks of [false, true]) {
    for (const after of [false, true]) {
      for (let commits = 1; ; commits += world.stride) {
        if (commits > 60) throw new Error("It never ends unharmed.");
        const runId = await world.manually(async (runtime) => (await runtime.start(flow, { vars: { child: { asks } } })).runId);
        world.killAt(commits, after);
        const go = async () => {
          await world.settle();
          if (!asks || world.killed) return;
          const { runId: childId } = await childOf(world, runId);
          await world.respond(childId, "yes");
        };
        await go().catch((error) => {
          if (!world.killed) throw error;
        });
        const { killed } = world;
        world.killAt(Number.POSITIVE_INFINITY, false);
        await world.crash();
        await world.advance(2_000);
        const begun = await childOf(world, runId);
        if (begun.status === "waiting") await world.respond(begun.runId, "yes");
        const run = await world.get(runId);
        expect(run, `${asks} ${after} ${commits}`).toMatchObject({
          status: "completed",
          output: { got: { output: asks ? "yes" : "done" } },
        });
        expect(await delivered(world, runId)).toHaveLength(1);
        if (!killed) break;
      }
    }
  }
});

scenario("join: parking and looking for the end, with a crash between them", async (world) => {
  const flow = joining((id) => join(id, to as any));
  await world.use({ workflows: [flow, child] });
  const { runId } = await world.run(flow, { waits: true });
  for (let commits = 1; commits < 6; commits++) {
    // Each time another one, since the last has ended.
    const again = commits === 1 ? runId : (await world.run(flow, { waits: true })).runId;
    await world.manually((runtime) => runtime.signal(again, "join"));
    world.killAt(commits, true);
    await Promise.resolve(world.settle()).catch((error) => {
      if (!world.killed) throw error;
    });
    world.killAt(Number.POSITIVE_INFINITY, false);
    await world.crash();
    await world.advance(2_000);
    expect(await world.get(again)).toMatchObject({ status: "completed", output: { got: { output: "done" } } });
  }
});

// ---- Trees ---------------------------------------------------------------------------------------------------------------

scenario("a workflow that starts itself for ever is stopped at the depth limit", async (world) => {
  const deep = defineWorkflow({
    id: "deep",
    entry: "go",
    nodes: {
      go: ({ vars }): StepPlan => ({
        ...(subworkflow("deep", { vars: { n: (vars.n ?? 0) + 1 } }, { resultKey: "got", nextNode: "end" }) as StepPlan),
        errorNode: "caught",
      }),
      caught: ({ vars, error }) => complete({ depth: vars.n ?? 0, code: error?.code ?? null }),
      end: ({ vars }) => complete(vars.got.output),
    },
  });
  await world.use({ workflows: [deep], limits: { childDepth: 4 } });
  const run = await world.run(deep);
  expect(run).toMatchObject({ status: "completed", output: { depth: 4, code: "CHILD_TOO_DEEP" } });
  expect(await world.with(everyRun)).toHaveLength(5);
});

scenario("the depth limit holds for detached children, too", async (world) => {
  const deep = defineWorkflow({
    id: "deep",
    entry: "go",
    nodes: {
      go: ({ vars }) => subworkflow("deep", { vars: { n: (vars.n ?? 0) + 1 }, detached: true }, { nextNode: "end" }),
      end: () => complete(),
    },
  });
  await world.use({ workflows: [deep], limits: { childDepth: 3 } });
  await world.run(deep);
  expect((await world.with(everyRun)).map(({ status, error }) => error?.code ?? status)).toEqual([
    "completed",
    "completed",
    "completed",
    "CHILD_TOO_DEEP",
  ]);
});

scenario("tree() shows a run with everything below it", async (world) => {
  const top = defineWorkflow({
    id: "top",
    entry: "a",
    nodes: {
      a: () => subworkflow("joining", { vars: { child: { asks: true } }, detached: true }, { nextNode: "b" }),
      b: () => subworkflow(child, { vars: {} }, { nextNode: "c" }),
      c: () => complete(),
    },
  });
  const flow = joining((id) => join(id, to as any));
  await world.use({ workflows: [top, flow, child] });
  const { runId } = await world.run(top);
  const shape = ({ run, children }: any): any => [run.workflowId, run.status, children.map(shape)];
  expect(shape(await world.with((runtime) => runtime.tree(runId)))).toEqual([
    "top",
    "completed",
    [
      ["joining", "waiting", [["child", "waiting", []]]],
      ["child", "completed", []],
    ],
  ]);
  const cut = await world.with((runtime) => runtime.tree(runId, { limit: 2 }));
  expect(cut).toMatchObject({ children: [{ run: { workflowId: "joining" }, children: [] }], more: true });
  const exact = await world.with((runtime) => runtime.tree(runId, { limit: 4 }));
  expect(JSON.stringify(exact)).not.toContain("more");
  expect(await refusal(world.with((runtime) => runtime.tree("nobody")))).toMatch(/^RUN_NOT_FOUND/);
});

scenario("tree() of a run whose id begins others finds the run itself", async (world) => {
  await world.use(child);
  for (const runId of ["abc", "ab", "a"]) await world.start(child, { runId });
  await world.settle();
  expect((await world.with((runtime) => runtime.tree("a"))).run.runId).toBe("a");
});

// ---- AbstractRuntime's form ------------------------------------------------------------------------------------------------

scenario("start_subworkflow in AbstractRuntime's words, awaited and async", async (world) => {
  const plain = defineWorkflow({
    id: "plain",
    entry: "go",
    nodes: {
      go: ({ vars }): StepPlan => ({
        nodeId: "go",
        effect: {
          type: "start_subworkflow",
          payload: { workflow_id: "child", vars: vars.child ?? {}, ...(vars.async === undefined ? {} : { async: vars.async }) },
          resultKey: "deep.got",
        },
        nextNode: "end",
      }),
      end: ({ vars }) => complete(vars.deep.got),
    },
  });
  await world.use({ workflows: [plain, child] });
  for (const vars of [{}, { async: false }] as any[]) {
    const run = await world.run(plain, vars);
    expect(run).toMatchObject({ status: "completed", output: { output: "done" } });
    expect(run.output.subRunId).toBe((await childOf(world, run.runId)).runId);
  }
  const run = await world.run(plain, { async: true, child: { asks: true } });
  expect(run.output).toEqual({ subRunId: (await childOf(world, run.runId)).runId, async: true });
  expect(await world.respond(run.output.subRunId, "x")).toMatchObject({ status: "completed" });
  const failed = await world.run(plain, { child: { fails: true } });
  expect(failed).toMatchObject({ status: "failed" });
  const empty = defineWorkflow({
    id: "empty",
    entry: "go",
    nodes: { go: (): StepPlan => ({ effect: { type: "start_subworkflow", payload: {} }, nextNode: "go" }) },
  });
  await world.use(empty);
  expect(await world.run(empty)).toMatchObject({ status: "failed", error: { code: "EFFECT_INPUT_INVALID" } });
});
