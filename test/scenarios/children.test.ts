// Subworkflows: children that run, wait, fail, nest, and go their own way.
import { askUser, complete, defineWorkflow, fail, sleep, type StepPlan, subworkflow } from "abstractruntime";
import { expect } from "vitest";
import { everyRun, refusal, scenario, type World } from "./harness.ts";

const childrenOf = (world: World, parentRunId: string) =>
  world.with(async (runtime) => (await runtime.list({ parentRunId, order: "oldest" })).runs);

const asking = defineWorkflow({
  id: "asking",
  entry: "ask",
  nodes: {
    ask: ({ vars }) => askUser({ prompt: `For ${vars.who}?` }, { resultKey: "answer", nextNode: "end" }),
    end: ({ vars }) => complete({ said: vars.answer.text, who: vars.who }),
  },
});

scenario("a parent waits for its child, however long the child waits", async (world) => {
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: ({ vars }) => subworkflow(asking, { vars: { who: vars.who } }, { resultKey: "child", nextNode: "end" }),
      end: ({ vars }) => complete(vars.child),
    },
  });
  await world.use({ workflows: [parent, asking] });
  const runId = await world.start(parent, { vars: { who: "Ada" } });
  await world.settle();
  const run = await world.get(runId);
  const [child] = await childrenOf(world, runId);
  expect(run.waits).toMatchObject([
    {
      reason: "subworkflow",
      waitKey: `subworkflow:${child?.runId}`,
      details: { subRunId: child?.runId, subWorkflowId: "asking" },
    },
  ]);
  expect(child).toMatchObject({ status: "waiting", parentRunId: runId, workflowId: "asking" });
  // Nobody answers for a child.
  expect(await refusal(world.with((runtime) => runtime.respond(runId, "me")))).toMatch(/^NOT_WAITING/);
  await world.respond(child!.runId, "yes");
  expect(await world.get(runId)).toMatchObject({
    status: "completed",
    output: { subRunId: child?.runId, output: { said: "yes", who: "Ada" } },
  });
});

scenario("a child that fails fails its parent, or goes to errorNode", async (world) => {
  const bad = defineWorkflow({ id: "bad", entry: "a", nodes: { a: () => fail({ message: "no stock", code: "STOCK" }) } });
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: ({ vars }): StepPlan => ({
        ...subworkflow(bad, {}, { nextNode: "end" }),
        ...(vars.caught ? { errorNode: "caught" } : {}),
      }),
      caught: ({ error }) => complete({ code: error?.code ?? null, message: error?.message ?? null }),
      end: () => complete(),
    },
  });
  await world.use({ workflows: [parent, bad] });
  const failed = await world.run(parent);
  expect(failed).toMatchObject({ status: "failed" });
  expect(failed.error?.message).toMatch(/no stock/);
  expect(await world.run(parent, { caught: true })).toMatchObject({
    status: "completed",
    output: { code: "STOCK", message: "no stock" },
  });
});

scenario("a detached child goes its own way", async (world) => {
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: () => subworkflow(asking, { vars: { who: "Bob" }, detached: true }, { resultKey: "child", nextNode: "end" }),
      end: ({ vars }) => complete(vars.child),
    },
  });
  await world.use({ workflows: [parent, asking] });
  const run = await world.run(parent);
  const [child] = await childrenOf(world, run.runId);
  expect(run).toMatchObject({ status: "completed", output: { subRunId: child?.runId, async: true } });
  expect(await world.respond(child!.runId, "later")).toMatchObject({ status: "completed" });
});

scenario("a child that nobody knows blocks its parent, and it goes on when somebody does", async (world) => {
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: ({ vars }): StepPlan => {
        vars.times = (vars.times ?? 0) + 1;
        return { effect: { type: "start_subworkflow", payload: { workflow_id: "askign", vars: { who: "x" } } }, nextNode: "end" };
      },
      end: ({ vars }) => complete(vars),
    },
  });
  await world.use({ workflows: [parent, asking] });
  const run = await world.run(parent);
  expect(run).toMatchObject({ status: "running", blocked: { code: "WORKFLOW_UNKNOWN" } });
  expect(run.blocked?.problem).toMatch(/"askign".*Did you mean "asking"\?/);
  const late = defineWorkflow({ id: "askign", entry: "a", nodes: { a: () => complete("here") } });
  await world.use({ workflows: [parent, asking, late] });
  await world.settle();
  expect(await world.get(run.runId)).toMatchObject({ status: "completed", output: { times: 1 } });
});

scenario("a child whose vars its schema refuses fails the effect", async (world) => {
  const { z } = await import("zod");
  const strict = defineWorkflow({ id: "strict", vars: z.object({ n: z.number() }), entry: "a", nodes: { a: () => complete() } });
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: { go: () => subworkflow("strict", { vars: { n: "five" } }, { nextNode: "end" }), end: () => complete() },
  });
  await world.use({ workflows: [parent, strict] });
  const run = await world.run(parent);
  expect(run).toMatchObject({ status: "failed", error: { code: "VARS_INVALID" } });
  expect(await childrenOf(world, run.runId)).toEqual([]);
});

scenario("children nest, and each end travels up", async (world) => {
  const leaf = asking;
  const nest = (id: string, child: any) =>
    defineWorkflow({
      id,
      entry: "go",
      nodes: {
        go: ({ vars }) => subworkflow(child, { vars: { who: `${vars.who}/${id}` } }, { resultKey: "child", nextNode: "end" }),
        end: ({ vars }) => complete({ [id]: vars.child.output }),
      },
    });
  const third = nest("third", leaf);
  const second = nest("second", third);
  const first = nest("first", second);
  await world.use({ workflows: [first, second, third, leaf] });
  const run = await world.run(first, { who: "me" });
  const runs = await world.with(everyRun);
  expect(runs.map(({ workflowId, status }) => `${workflowId} ${status}`)).toEqual([
    "first waiting",
    "second waiting",
    "third waiting",
    "asking waiting",
  ]);
  await world.respond(runs[3]!.runId, "hello");
  expect(await world.get(run.runId)).toMatchObject({
    status: "completed",
    output: { first: { second: { third: { said: "hello", who: "me/first/second/third" } } } },
  });
});

scenario("a loop starts a new child in every turn", async (world) => {
  const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: ({ runId }) => complete(runId) } });
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: ({ vars }): StepPlan => {
        vars.ids = [...(vars.ids ?? []), ...(vars.child ? [vars.child.output] : [])];
        return vars.ids.length === 3
          ? complete(new Set(vars.ids).size)
          : subworkflow(child, { vars: {} }, { resultKey: "child", nextNode: "go" });
      },
    },
  });
  await world.use({ workflows: [parent, child] });
  const run = await world.run(parent);
  expect(run).toMatchObject({ status: "completed", output: 3 });
  expect(await childrenOf(world, run.runId)).toHaveLength(3);
});

scenario("a parent need not wait for ever, and a child that nobody waits for is cancelled", async (world) => {
  const slow = defineWorkflow({
    id: "slow",
    entry: "a",
    nodes: { a: () => sleep(9_000, { nextNode: "b" }), b: () => complete(1) },
  });
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: () => subworkflow(slow, { timeoutMs: 3_000 }, { nextNode: "end", timeoutNode: "late" }),
      late: () => askUser({ prompt: "Wait?" }, { nextNode: "end" }),
      end: () => complete("end"),
    },
  });
  await world.use({ workflows: [parent, slow] });
  const run = await world.run(parent);
  await world.advance(3_000);
  expect(await world.get(run.runId)).toMatchObject({ status: "waiting", node: "late" });
  const [child] = await childrenOf(world, run.runId);
  expect(child).toMatchObject({ status: "cancelled" });
  expect(await world.respond(run.runId, "no")).toMatchObject({ status: "completed", output: "end" });
});

scenario("a child's output may be as large as a record", async (world) => {
  const limits = { recordBytes: 20_000 };
  const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: ({ vars }) => complete("x".repeat(vars.size)) } });
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: ({ vars }) => subworkflow(child, { vars: { size: vars.size } }, { resultKey: "child", nextNode: "end" }),
      end: ({ vars }) => complete(vars.child.output.length),
    },
  });
  await world.use({ workflows: [parent, child], limits });
  expect(await world.run(parent, { size: 15_000 })).toMatchObject({ status: "completed", output: 15_000 });
  // With what surrounds it, this one is too large for the parent's record alone.
  const run = await world.run(parent, { size: 19_900 });
  expect((await childrenOf(world, run.runId))[0]).toMatchObject({ status: "completed" });
  expect(run).toMatchObject({ status: "failed", error: { code: "TOO_LARGE" } });
});
