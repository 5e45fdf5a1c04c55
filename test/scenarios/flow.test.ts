// The graph itself: nodes, vars, results, plans as data, and what becomes of runs when their code changes.
import { askUser, complete, defineEffect, defineWorkflow, fail, goto, sleep, type StepPlan, waitEvent } from "abstractruntime";
import { expect } from "vitest";
import { everyRun, moved, refusal, scenario } from "./harness.ts";

const echo = (seen: unknown[] = []) =>
  defineEffect("echo", {
    speculative: true,
    run: (input: any) => {
      seen.push(input);
      return { said: input.say ?? null };
    },
  });

scenario("nodes one after the other", async (world) => {
  const seen: unknown[] = [];
  const flow = defineWorkflow({
    id: "linear",
    entry: "a",
    effects: [echo(seen)],
    nodes: {
      a: ({ vars }) => {
        vars.list = ["a"];
        return goto("b");
      },
      b: ({ vars }): StepPlan => {
        vars.list.push("b");
        return { effect: { type: "echo", payload: { say: vars.list }, resultKey: "told" }, nextNode: "c" };
      },
      c: async ({ vars, step, nodeId }) => {
        vars.list.push("c");
        return complete({ list: vars.list, told: vars.told, step, nodeId });
      },
    },
  });
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "completed", node: "c", wakeAt: null });
  expect(run.output).toEqual({ list: ["a", "b", "c"], told: { said: ["a", "b"] }, step: 3, nodeId: "c" });
  expect(seen).toEqual([{ say: ["a", "b"] }]);
  const kinds = (await world.with((runtime) => runtime.ledger(run.runId))).map(({ kind }) => kind);
  expect(kinds).toEqual(["run_started", "step", "effect_started", "effect_completed", "run_completed"]);
});

scenario("a branch is taken by what the vars say", async (world) => {
  const flow = defineWorkflow({
    id: "branch",
    entry: "decide",
    nodes: {
      decide: ({ vars }) => (vars.n > 1 ? goto("many") : goto("few")),
      many: () => complete("many"),
      few: () => fail({ message: "too few", code: "FEW", details: { wanted: 2 } }),
    },
  });
  await world.use(flow);
  expect(await world.run(flow, { n: 2 })).toMatchObject({ status: "completed", output: "many" });
  expect(await world.run(flow, { n: 1 })).toMatchObject({
    status: "failed",
    error: { code: "FEW", message: "too few", details: { wanted: 2 } },
  });
});

scenario("a loop executes its effect in every turn, equal payloads or not", async (world) => {
  let count = 0;
  const keys = new Set<string>();
  const next = defineEffect("next", {
    run: (_: any, context) => {
      keys.add(context.idempotencyKey);
      count += 1;
      return count;
    },
  });
  const flow = defineWorkflow({
    id: "loop",
    entry: "turn",
    effects: [next],
    nodes: {
      turn: ({ vars }) => {
        vars.got ??= [];
        if (vars.last !== undefined) vars.got.push(vars.last);
        return vars.got.length === 5 ? complete(vars.got) : next({ same: true }, { resultKey: "last", nextNode: "turn" });
      },
    },
  });
  await world.use(flow);
  expect(await world.run(flow)).toMatchObject({ status: "completed", output: [1, 2, 3, 4, 5] });
  expect(count).toBe(5);
  expect(keys.size).toBe(5);
});

scenario("results are written under dotted keys", async (world) => {
  const flow = defineWorkflow({
    id: "dotted",
    entry: "deep",
    effects: [echo()],
    nodes: {
      deep: (): StepPlan => ({
        effect: { type: "echo", payload: { say: 1 }, resultKey: "order.lines.first" },
        nextNode: "replace",
      }),
      replace: (): StepPlan => ({ effect: { type: "echo", payload: { say: 2 }, resultKey: "text.inner" }, nextNode: "odd" }),
      odd: (): StepPlan => ({ effect: { type: "echo", payload: { say: 3 }, resultKey: "a..constructor" }, nextNode: "end" }),
      end: ({ vars }) => complete(vars),
    },
  });
  await world.use(flow);
  const run = await world.run(flow, { order: { id: 7, lines: { last: 0 } }, text: "text" });
  expect(run.output).toEqual({
    order: { id: 7, lines: { last: 0, first: { said: 1 } } },
    text: { inner: { said: 2 } },
    a: { "": { constructor: { said: 3 } } },
  });
});

scenario("vars may be replaced as a whole", async (world) => {
  const flow = defineWorkflow({
    id: "replace",
    entry: "a",
    nodes: {
      a: (run) => {
        run.vars = { only: [run.vars.old, { kept: true }] };
        return goto("b");
      },
      b: (run) => {
        run.vars = { ...run.vars, more: run.vars.only.length };
        run.vars.only.unshift("first");
        return goto("c");
      },
      c: ({ vars }) => complete(vars),
    },
  });
  await world.use(flow);
  expect((await world.run(flow, { old: 1, gone: 2 })).output).toEqual({ only: ["first", 1, { kept: true }], more: 2 });
});

scenario("plans as plain data, in both spellings", async (world) => {
  const flow = defineWorkflow({
    id: "plain",
    entry: "camel",
    effects: [echo()],
    nodes: {
      camel: () => ({ nodeId: "first", effect: { type: "echo", payload: { say: 1 }, resultKey: "one" }, nextNode: "snake" }),
      snake: (() => ({
        node_id: "second",
        effect: { type: "echo", payload: { say: 2 }, result_key: "two" },
        next_node: "ask",
      })) as any,
      ask: (() => ({
        effect: { type: "ask_user", payload: { prompt: "?", choices: ["y"], allow_free_text: true }, result_key: "answer" },
        next_node: "nothing",
      })) as any,
      nothing: (() => ({ next_node: "end", effect: null, complete_output: null })) as any,
      end: (({ vars }: any) => ({ completeOutput: vars })) as any,
    },
  });
  const empty = defineWorkflow({
    id: "empty",
    entry: "a",
    nodes: { a: (() => ({ complete_output: {}, effect: { type: "echo" } })) as any },
  });
  await world.use({ workflows: [flow, empty] });
  const run = await world.run(flow);
  expect(run.waits).toMatchObject([{ reason: "user", prompt: "?", choices: ["y"], allowFreeText: true }]);
  expect((await world.respond(run.runId, "n")).output).toEqual({ one: { said: 1 }, two: { said: 2 }, answer: { text: "n" } });
  const recorded = (await world.with((runtime) => runtime.ledger(run.runId))).map(({ node, kind }) => `${node} ${kind}`);
  expect(recorded.slice(1, 5)).toEqual([
    "first effect_started",
    "first effect_completed",
    "second effect_started",
    "second effect_completed",
  ]);
  expect(await world.run(empty)).toMatchObject({ status: "completed", output: {} });
});

scenario("a node sees the recorded time, its step and its actor", async (world) => {
  const flow = defineWorkflow({
    id: "context",
    entry: "a",
    nodes: {
      a: ({ now, runId, workflowId, step, nodeId, actorId }) =>
        complete({ now, runId, workflowId, step, nodeId, actorId: actorId ?? null }),
    },
  });
  await world.use(flow);
  const { runId } = await world.with((runtime) => runtime.start(flow, { actorId: "ada", sessionId: "s1", runId: "mine" }));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({
    output: { now: world.now(), runId: "mine", workflowId: "context", step: 1, nodeId: "a", actorId: "ada" },
    actorId: "ada",
    sessionId: "s1",
  });
  for (const { actorId, at } of await world.with((runtime) => runtime.ledger(runId))) {
    expect({ actorId, at }).toEqual({ actorId: "ada", at: world.now() });
  }
});

scenario("a chat is recorded by reference, and the handler sees all of it", async (world) => {
  const text = (turn: number) => `${turn} `.padEnd(1_000, "x");
  const sizes: number[] = [];
  const model = defineEffect("model", {
    speculative: true,
    run: ({ messages }: { messages: { text: string }[] }) => {
      sizes.push(messages.length);
      expect(messages.map((message) => message.text)).toEqual(messages.map((_, i) => text(i)));
      return { text: text(messages.length) };
    },
  });
  const turns = 30;
  const flow = defineWorkflow({
    id: "chat",
    entry: "ask",
    effects: [model],
    nodes: {
      ask: ({ vars }) => {
        vars.messages ??= [];
        if (vars.reply) vars.messages.push(vars.reply);
        if (vars.messages.length >= turns * 2) return complete(vars.messages.length);
        vars.messages.push({ text: text(vars.messages.length) });
        return model({ messages: vars.messages }, { resultKey: "reply", nextNode: "ask" });
      },
    },
  });
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "completed", output: turns * 2 });
  expect(sizes).toEqual(Array.from({ length: turns }, (_, i) => 2 * i + 1));
  const stored = await world.with((runtime) => runtime.store.records(run.runId, 0, 10_000));
  const bytes = (from: number, to: number) =>
    stored.slice(from, to).reduce((sum, { header, body }) => sum + header.length + (body?.length ?? 0), 0);
  const half = Math.floor(stored.length / 2);
  expect(bytes(half, stored.length)).toBeLessThan(1.2 * bytes(0, half));
  // Each message is written twice at most (as a result, then as what the next node made of it), never again.
  expect(bytes(0, stored.length)).toBeLessThan(turns * 2 * 3_000);
});

scenario("a payload refers to the vars of its request, not to later ones", async (world) => {
  const seen: unknown[] = [];
  const work = defineEffect("work", {
    policy: { maxAttempts: 3, backoff: { initialMs: 5_000, jitter: 0 } },
    run: (input: any, { attempt, run }) => {
      seen.push(input, (run.vars as any).items);
      if (attempt < 3) throw Object.assign(new Error("no"), { definite: true });
      return "done";
    },
  });
  const flow = defineWorkflow({
    id: "refs",
    entry: "a",
    effects: [work],
    nodes: {
      a: ({ vars }) =>
        work({ part: vars.items.slice(1), extra: [...vars.items, { id: 9 }] }, { resultKey: "items", nextNode: "b" }),
      b: ({ vars }) => complete(vars.items),
    },
  });
  await world.use(flow);
  const items = [{ id: 1 }, { id: 2 }, { id: 3 }];
  const run = await world.run(flow, { items });
  await world.advance(5_000);
  await world.advance(10_000);
  expect(await world.get(run.runId)).toMatchObject({ status: "completed", output: "done" });
  const payload = { part: items.slice(1), extra: [...items, { id: 9 }] };
  expect(seen).toEqual([payload, items, payload, items, payload, items]);
});

scenario("a start is idempotent for its run id", async (world) => {
  let times = 0;
  const count = defineEffect("count", {
    run: () => {
      times += 1;
      return times;
    },
  });
  const flow = defineWorkflow({
    id: "once",
    entry: "a",
    effects: [count],
    nodes: { a: () => count({}, { nextNode: "b" }), b: () => sleep(1_000, { nextNode: "c" }), c: () => complete() },
  });
  const other = defineWorkflow({ id: "other", entry: "a", nodes: { a: () => complete() } });
  await world.use({ workflows: [flow, other] });
  const start = (workflow: any, vars: unknown) => world.start(workflow, { runId: "order-1", vars });
  expect(await start(flow, { a: 1, b: 2 })).toBe("order-1");
  expect(await start(flow, { b: 2, a: 1 })).toBe("order-1");
  await world.settle();
  expect(await start(flow, { a: 1, b: 2 })).toBe("order-1");
  expect(await refusal(start(flow, { a: 1 }))).toMatch(/^RUN_EXISTS: .*other vars.*Choose another runId/);
  expect(await refusal(start(other, { a: 1, b: 2 }))).toMatch(/^RUN_EXISTS: .*workflow "once"/);
  await world.advance(1_000);
  expect(await start(flow, { a: 1, b: 2 })).toBe("order-1");
  expect(await world.get("order-1")).toMatchObject({ status: "completed" });
  expect(times).toBe(1);
});

scenario("result() answers for every end, and times out while there is none", async (world) => {
  const flow = defineWorkflow({
    id: "ends",
    entry: "a",
    nodes: {
      a: ({ vars }) =>
        vars.how === "fails" ? fail("no luck") : vars.how === "waits" ? waitEvent("go", { nextNode: "b" }) : complete({ ok: 1 }),
      b: () => complete(),
    },
  });
  await world.use(flow);
  const [good, bad, waiting] = [
    await world.run(flow),
    await world.run(flow, { how: "fails" }),
    await world.run(flow, { how: "waits" }),
  ];
  const result = (runId: string) => world.with((runtime) => moved(runtime.result(runId, { timeoutMs: 50 }), world.clock, 10));
  expect(await result(good.runId)).toEqual({ ok: 1 });
  expect(await refusal(result(bad.runId))).toMatch(/^RUN_FAILED: .*no luck/);
  expect(await refusal(result(waiting.runId))).toMatch(/^RESULT_TIMEOUT: .*50 ms \(status waiting\)/);
  expect(await refusal(result("nobody"))).toMatch(/^RUN_NOT_FOUND/);
});

scenario("an ended run is returned unchanged by a tick", async (world) => {
  const flow = defineWorkflow({ id: "done", entry: "a", nodes: { a: ({ vars }) => (vars.bad ? fail("x") : complete(1)) } });
  await world.use(flow);
  for (const vars of [{}, { bad: true }]) {
    const run = await world.run(flow, vars);
    await world.manually(async (runtime) => {
      expect(await runtime.tick(run.runId)).toEqual(run);
      expect(await runtime.tick(run.runId, { maxSteps: 0 })).toEqual(run);
    });
  }
});

scenario("runs are listed in pages", async (world) => {
  const flow = defineWorkflow({
    id: "many",
    entry: "a",
    nodes: {
      a: ({ vars }) => (vars.n % 2 ? complete(vars.n) : askUser({ prompt: "?", waitKey: `k${vars.n}` }, { nextNode: "b" })),
      b: () => complete(),
    },
  });
  await world.use(flow);
  const ids: string[] = [];
  for (let n = 0; n < 7; n++) ids.push(await world.start(flow, { vars: { n } }));
  await world.settle();
  const pages = async (query: object): Promise<string[][]> =>
    world.with(async (runtime) => {
      const found: string[][] = [];
      for (let cursor: string | undefined; ; ) {
        const page = await runtime.list({ ...query, limit: 3, ...(cursor === undefined ? {} : { cursor }) });
        found.push(page.runs.map(({ runId }) => runId));
        if (page.next === undefined) return found;
        cursor = page.next;
      }
    });
  const at = (...places: number[]) => places.map((place) => ids[place]);
  expect(await pages({})).toEqual([at(6, 5, 4), at(3, 2, 1), at(0)]);
  expect(await pages({ order: "oldest" })).toEqual([at(0, 1, 2), at(3, 4, 5), at(6)]);
  expect(await pages({ status: "completed" })).toEqual([at(5, 3, 1)]);
  expect(await pages({ status: ["waiting", "completed"], workflowId: "many" })).toHaveLength(3);
  expect(await pages({ waitReason: "user", order: "oldest" })).toEqual([at(0, 2, 4), at(6)]);
  expect(await pages({ waitKey: "k4" })).toEqual([at(4)]);
  expect(await pages({ workflowId: "none" })).toEqual([[]]);
});

scenario("a run whose node is gone is blocked, and goes on by itself when it is back", async (world) => {
  const node = { wait: (): StepPlan => waitEvent("go", { nextNode: "later" }) };
  const before = defineWorkflow({ id: "change", entry: "wait", nodes: { ...node, later: () => complete("old") } });
  const without = defineWorkflow({ id: "change", entry: "wait", nodes: { ...node, latr: () => complete("typo") } });
  const again = defineWorkflow({ id: "change", version: 2, entry: "wait", nodes: { ...node, later: () => complete("new") } });
  await world.use(before);
  const { runId } = await world.run(before);
  await world.use(without);
  const blocked = await world.resume(runId, "go", 1);
  expect(blocked).toMatchObject({
    status: "running",
    node: "later",
    blocked: { code: "WORKFLOW_INCOMPATIBLE", quarantine: false },
  });
  expect(blocked.blocked?.problem).toMatch(/"later".*Did you mean "latr"\?/);
  expect(await refusal(world.with((runtime) => moved(runtime.result(runId), world.clock, 10)))).toMatch(
    /^RUN_BLOCKED: .*WORKFLOW_INCOMPATIBLE/,
  );
  await world.use(again);
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: "new" });
});

scenario("an effect that nobody knows blocks the run, and it goes on when somebody does", async (world) => {
  let runs = 0;
  const flow = defineWorkflow({
    id: "unknown",
    entry: "a",
    nodes: {
      a: ({ vars }): StepPlan => {
        vars.seen = (vars.seen ?? 0) + 1;
        return { effect: { type: "chrage", payload: {}, resultKey: "got" }, nextNode: "b" };
      },
      b: ({ vars }) => complete(vars),
    },
  });
  const effect = (type: string) => defineEffect(type, { run: () => ++runs });
  await world.use({ workflows: [flow], effects: [effect("charge")] });
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "running", vars: {}, seq: 0, blocked: { code: "EFFECT_UNKNOWN" } });
  expect(run.blocked?.problem).toMatch(/"chrage".*Register it/);
  await world.use({ workflows: [flow], effects: [effect("charge"), effect("chrage")] });
  await world.settle();
  expect(await world.get(run.runId)).toMatchObject({ status: "completed", output: { seen: 1, got: 1 } });
  expect(runs).toBe(1);
});

scenario("the state at every record is what the nodes saw", async (world) => {
  const seen: unknown[] = [];
  const flow = defineWorkflow({
    id: "history",
    entry: "turn",
    nodes: {
      turn: ({ vars }) => {
        vars.turns = [...(vars.turns ?? []), { n: (vars.turns ?? []).length, "a/b~c": true }];
        if (vars.turns.length > 3) vars.turns.shift();
        vars[`key ${vars.turns.at(-1).n}`] = null;
        vars.count = (vars.count ?? 0) + 1;
        seen[vars.count] = JSON.parse(JSON.stringify(vars));
        return vars.count === 12 ? complete(vars.count) : goto("turn");
      },
    },
  });
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "completed", output: 12 });
  await world.with(async (runtime) => {
    for (let seq = 1; seq <= 12; seq++) expect((await runtime.stateAt(run.runId, seq)).vars).toEqual(seen[seq]);
    for (const seq of [-1, 13, 1.5, Number.NaN]) expect(await refusal(runtime.stateAt(run.runId, seq))).toMatch(/^SEQ_NOT_FOUND/);
  });
});

scenario("a step budget of none executes nothing", async (world) => {
  if (world.mode === "plainly") return;
  const flow = defineWorkflow({ id: "none", entry: "a", nodes: { a: () => complete() } });
  await world.use(flow);
  const runId = await world.start(flow);
  expect(await world.with((runtime) => runtime.tick(runId, { maxSteps: 0 }))).toMatchObject({ status: "running", seq: 0 });
  await world.settle();
  expect(await world.with(everyRun)).toMatchObject([{ status: "completed" }]);
});
