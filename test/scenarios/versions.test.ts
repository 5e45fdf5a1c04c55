// Runs of one version under the code of another: migrations, what does not fit, deploys, and what can be known beforehand.
import {
  all,
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  definite,
  goto,
  sleep,
  type StepPlan,
  subworkflow,
  waitEvent,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { testClock, testIds } from "abstractruntime/testing";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { callStore, wrapStore } from "../../src/testing/wrap-store.ts";
import { refusal, scenario } from "./harness.ts";

/** Waits at `ask` and then gives its vars; `more` is what a version has on top. */
function versionOf(version: number | string | undefined, more: Record<string, any> = {}) {
  const { nodes, ...rest } = more;
  return defineWorkflow({
    id: "order",
    ...(version === undefined ? {} : { version }),
    entry: "ask",
    nodes: nodes ?? {
      ask: () => waitEvent("go", { resultKey: "got", nextNode: "end" }),
      end: ({ vars }: any) => complete({ ...vars, version: version ?? 1 }),
    },
    ...rest,
  } as any);
}

scenario("vars are migrated by a function, in place or by what it returns", async (world) => {
  for (const migrate of [
    (vars: any) => {
      vars.cents = vars.euros * 100;
      delete vars.euros;
    },
    ({ euros, ...vars }: any) => ({ ...vars, cents: euros * 100 }),
  ]) {
    const old = versionOf(1);
    await world.use(old);
    const { runId } = await world.run(old, { euros: 5 });
    await world.use(versionOf(2, { migrations: { 1: migrate }, vars: z.object({ cents: z.number(), got: z.any().optional() }) }));
    const run = await world.signal(runId, "go", 1);
    expect(run).toMatchObject({ status: "completed", version: "2", output: { cents: 500, got: 1, version: 2 } });
    expect(run.output).not.toHaveProperty("euros");
    expect(await world.kinds(runId)).toContain("migrated");
  }
});

scenario("a chain of migrations is one record, over versions that are skipped", async (world) => {
  const old = versionOf(1);
  await world.use(old);
  const { runId } = await world.run(old, { trail: [] });
  const add = (name: string) => (vars: any) => void vars.trail.push(name);
  await world.use(versionOf(4, { migrations: { 1: add("1>2"), 2: { vars: add("2>4"), to: 4 }, 3: { vars: add("3>4") } } }));
  expect(await world.signal(runId, "go")).toMatchObject({ version: "4", output: { trail: ["1>2", "2>4"] } });
  expect((await world.kinds(runId)).filter((kind) => kind === "migrated")).toHaveLength(1);
});

scenario("versions that are texts", async (world) => {
  const old = versionOf("spring");
  await world.use(old);
  const { runId } = await world.run(old, { n: 1 });
  await world.use(
    versionOf("autumn", {
      migrations: {
        spring: { to: "summer", vars: (vars: any) => ({ ...vars, n: vars.n + 1 }) },
        summer: { to: "autumn", vars: (vars: any) => ({ ...vars, n: vars.n * 10 }) },
      },
    }),
  );
  expect(await world.signal(runId, "go")).toMatchObject({ version: "autumn", output: { n: 20 } });
});

scenario("without a migration a run goes on where its nodes and vars fit", async (world) => {
  const old = versionOf(undefined);
  await world.use(old);
  const { runId } = await world.run(old, { n: 1 });
  await world.use(versionOf(7));
  expect(await world.signal(runId, "go")).toMatchObject({ status: "completed", version: "7", output: { n: 1, version: 7 } });
});

scenario("renamed nodes: where the run stands, and where what is open leads", async (world) => {
  const failing = defineEffect("failing", {
    policy: { maxAttempts: 2, backoff: { initialMs: 5_000, jitter: 0 } },
    run: () => {
      throw definite(new Error("no"));
    },
  });
  const old = versionOf(1, {
    effects: [failing],
    nodes: {
      pick: ({ vars }: any): StepPlan =>
        vars.how === "error"
          ? { ...failing({}, { nextNode: "a" }), errorNode: "b" }
          : { ...askUser({ prompt: "?", timeoutMs: 60_000 }, { nextNode: "a" } as any), timeoutNode: "c" },
      a: () => complete("old a"),
      b: () => complete("old b"),
      c: () => complete("old c"),
    },
    entry: "pick",
  });
  const renamed = versionOf(3, {
    effects: [failing],
    migrations: { 1: { nodes: { a: "x", b: "y" } }, 2: { nodes: { x: "a2", y: "b2", c: "c2" } } },
    nodes: {
      pick: () => complete("never"),
      a2: () => complete("a2"),
      b2: ({ error }: any) => complete(`b2 ${error?.message}`),
      c2: () => complete("c2"),
    },
    entry: "pick",
  });
  await world.use(old);
  const [answered, late, wrong] = [await world.run(old), await world.run(old), await world.run(old, { how: "error" })];
  await world.use(renamed);
  expect(await world.respond(answered.runId, "yes")).toMatchObject({ output: "a2" });
  await world.advance(60_000);
  expect(await world.get(late.runId)).toMatchObject({ output: "c2" });
  expect(await world.get(wrong.runId)).toMatchObject({ output: "b2 no" });
});

scenario("a rename swaps nodes, and takes names that objects have", async (world) => {
  const old = versionOf(1, {
    entry: "go",
    nodes: {
      go: ({ vars }: any) => waitEvent("k", { nextNode: vars.to }),
      a: () => complete("old a"),
      b: () => complete("old b"),
    },
  });
  await world.use(old);
  const [a, b] = [await world.run(old, { to: "a" }), await world.run(old, { to: "b" })];
  const swapped = versionOf(3, {
    entry: "go",
    migrations: { 1: { nodes: { a: "b", b: "constructor" } }, 2: {} },
    nodes: { go: () => complete(), b: () => complete("new b"), constructor: () => complete("constructor") },
  });
  await world.use(swapped);
  expect((await world.signal(a.runId, "k")).output).toBe("new b");
  expect((await world.signal(b.runId, "k")).output).toBe("constructor");
});

scenario("a node that is gone leaves the run in place, until code comes that has it", async (world) => {
  const old = versionOf(1, {
    entry: "ask",
    nodes: { ask: () => waitEvent("go", { nextNode: "ship" }), ship: () => goto("end"), end: () => complete("shipped") },
  });
  await world.use(old);
  const { runId, seq } = await world.run(old);
  const gone = versionOf(2, { entry: "ask", nodes: { ask: () => complete(), shipp: () => complete("wrong") } });
  await world.use(gone);
  await world.with((runtime) => runtime.signal(runId, "go"));
  await world.settle();
  const run = await world.get(runId);
  expect(run).toMatchObject({
    status: expect.stringMatching(/running|waiting/),
    version: "1",
    blocked: { code: "WORKFLOW_INCOMPATIBLE" },
  });
  expect(run.blocked?.problem).toMatch(/"ship".*Did you mean "shipp"\?/);
  expect(await refusal(world.with((runtime) => runtime.result(runId)))).toMatch(/^RUN_BLOCKED: .*WORKFLOW_INCOMPATIBLE/);
  // The message was taken or is kept; nothing else moved, however long it takes.
  expect(run.seq - seq).toBeLessThanOrEqual(1);
  await world.advance(60_000);
  expect((await world.get(runId)).seq).toBe(run.seq);
  await world.use(versionOf(2, { entry: "ask", nodes: { ask: () => complete(), ship: () => complete("shipped by 2") } }));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", version: "2", output: "shipped by 2" });
});

scenario("an older worker leaves a newer run alone", async (world) => {
  const newer = versionOf(2);
  await world.use(newer);
  const { runId } = await world.run(newer, { n: 2 });
  await world.use(versionOf(1));
  const run = await world.signal(runId, "go", "x");
  expect(run).toMatchObject({
    version: "2",
    blocked: { code: "WORKFLOW_INCOMPATIBLE", problem: expect.stringMatching(/older/) },
  });
  await world.use(newer);
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { n: 2, got: "x", version: 2 } });
});

scenario("migrations that fail leave the run as it was", async (world) => {
  const old = versionOf(1);
  for (const [migrate, problem] of [
    [
      () => {
        throw new Error("cannot");
      },
      /from version 1 failed: cannot/,
    ],
    [async (vars: any) => vars, /asynchronous/],
    [() => 7, /not an object|failed/],
    [() => null, /not an object|failed/],
    [() => [], /not an object|failed/],
    [(vars: any) => ({ ...vars, when: new Date(0) }), /failed: .*Date/],
    [() => ({ n: "text" }), /do not fit the schema: n: /],
    [
      (vars: any) => {
        vars.n = "half";
        throw new Error("after a change");
      },
      /after a change/,
    ],
  ] as const) {
    await world.use(old);
    const { runId } = await world.run(old, { n: 1 });
    await world.use(versionOf(2, { migrations: { 1: migrate }, vars: z.object({ n: z.number(), got: z.any().optional() }) }));
    const run = await world.signal(runId, "go", 1);
    expect(run).toMatchObject({ version: "1", vars: { n: 1 }, blocked: { code: "WORKFLOW_INCOMPATIBLE" } });
    expect(run.blocked?.problem).toMatch(problem);
    // Mended code has another version of itself, or none: an operator lifts the block.
    await world.use(versionOf(2, { migrations: { 1: (vars: any) => vars } }));
    await world.with(({ store }) => store.lift(runId));
    await world.settle();
    expect(await world.get(runId)).toMatchObject({ status: "completed", output: { n: 1, got: 1 } });
  }
});

scenario("vars that do not fit the new schema block the run, with what is wrong", async (world) => {
  const old = versionOf(1);
  await world.use(old);
  const { runId } = await world.run(old, { n: "one" });
  await world.use(versionOf(2, { vars: z.object({ n: z.number() }) }));
  expect((await world.signal(runId, "go")).blocked?.problem).toMatch(/do not fit the schema: n: /);
  await world.use(versionOf(3, { vars: z.object({ n: z.number() }), migrations: { 1: { vars: () => ({ n: 1 }), to: 3 } } }));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { n: 1, version: 3 } });
});

scenario("a run that does not fit is cancelled without its code, and a run whose workflow is nowhere", async (world) => {
  const old = versionOf(1, { entry: "a", nodes: { a: () => sleep(1_000, { nextNode: "b" }), b: () => complete() } });
  await world.use(old);
  const [blocked, waiting, foreign] = [await world.run(old), await world.run(old), await world.run(old)];
  await world.use(versionOf(2, { entry: "x", nodes: { x: () => complete() } }));
  await world.advance(1_000);
  expect((await world.get(blocked.runId)).blocked).toMatchObject({ code: "WORKFLOW_INCOMPATIBLE" });
  for (const { runId } of [blocked, waiting]) {
    const run = await world.cancel(runId);
    expect(run).toMatchObject({ status: "cancelled", version: "1" });
    expect(run.blocked).toBeUndefined();
  }
  await world.use(defineWorkflow({ id: "other", entry: "a", nodes: { a: () => complete() } }));
  // Where nothing drives by itself, somebody has to: by name.
  await world.with((runtime) => runtime.cancel(foreign.runId));
  await world.settle();
  if (world.mode !== "plainly") await world.manually((runtime) => runtime.tick(foreign.runId)).catch(() => undefined);
  expect(await world.get(foreign.runId)).toMatchObject({ status: "cancelled" });
});

scenario("a cancelled run whose onCancel node is not here waits for it", async (world) => {
  const old = versionOf(1, {
    entry: "a",
    onCancel: "clean",
    nodes: { a: () => askUser({ prompt: "?" }, { nextNode: "clean" }), clean: () => complete("cleaned") },
  });
  await world.use(old);
  const { runId } = await world.run(old);
  await world.use(defineWorkflow({ id: "other", entry: "a", nodes: { a: () => complete() } }));
  await world.with((runtime) => runtime.cancel(runId));
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  await world.use(old);
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "cancelled", output: "cleaned" });
});

scenario("a cancelled run goes to onCancel, though the code has lost the node that it was to go on at", async (world) => {
  const clean = () => complete("cleaned");
  const nodes = { a: () => sleep(1_000, { nextNode: "gone" }), gone: () => complete(), clean };
  const old = versionOf(1, { entry: "a", onCancel: "clean", nodes });
  await world.use(old);
  const [blocked, waiting] = [await world.run(old), await world.run(old)];
  await world.use(versionOf(2, { entry: "clean", onCancel: "clean", nodes: { clean } }));
  await world.advance(1_000);
  expect((await world.get(blocked.runId)).blocked).toMatchObject({ code: "WORKFLOW_INCOMPATIBLE" });
  for (const { runId } of [blocked, waiting])
    expect(await world.cancel(runId)).toMatchObject({ status: "cancelled", version: "2", output: "cleaned" });
});

scenario("check() tells which runs this code would break, and changes none", async (world) => {
  const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: () => complete() } });
  const pay = defineEffect("pay", {
    policy: { maxAttempts: 2, backoff: { initialMs: 3_600_000, maxMs: 3_600_000, jitter: 0 } },
    run: () => {
      throw definite(new Error("later"));
    },
  });
  const make = (id: string, version: number, nodes: any, more: any = {}) =>
    defineWorkflow({ id, version, entry: "a", nodes, ...more } as any);
  const end = () => complete();
  const old = {
    fine: make("fine", 1, { a: () => waitEvent("k", { nextNode: "end" }), end }),
    next: make("next", 1, { a: () => waitEvent("k", { nextNode: "gone" }), gone: end }),
    stands: make("stands", 1, { a: () => goto("end"), end }),
    effect: make("effect", 1, { a: () => ({ effect: { type: "pay", payload: {} }, nextNode: "end" }), end }),
    member: make("member", 1, {
      a: () => ({ ...all([{ type: "pay", payload: {} }, waitEvent("k")] as any, { nextNode: "end" } as any) }),
      end,
    }),
    parent: make("parent", 1, { a: () => subworkflow(child, {}, { nextNode: "end" }), end }),
    version: make("version", 5, { a: () => waitEvent("k", { nextNode: "end" }), end }),
    vars: make("vars", 1, { a: () => waitEvent("k", { nextNode: "end" }), end }),
    strange: make("strange", 1, { a: () => waitEvent("k", { nextNode: "end" }), end }),
    over: make("over", 1, { a: end }),
  };
  await world.use({ workflows: [...Object.values(old), child], effects: [pay] });
  const ids: Record<string, string> = {};
  for (const [name, workflow] of Object.entries(old)) {
    if (name === "stands" || name === "parent") continue;
    ids[name] = (await world.run(workflow, { n: "text" })).runId;
  }
  // These two are looked at before anything of them ran.
  for (const name of ["stands", "parent"] as const)
    ids[name] = await world.manually(async (runtime) => {
      const { runId } = await runtime.start(old[name]);
      if (name === "parent") {
        // One step: the child is requested, and not begun.
        await runtime.tick(runId, { maxSteps: 0 });
      }
      return runId;
    });
  const fresh = [
    make("fine", 2, { a: end, end }),
    make("next", 1, { a: end, gon: end }),
    make("stands", 1, { aa: end }, { entry: "aa" }),
    make("effect", 1, { a: end, end }),
    make("member", 1, { a: end, end }),
    make("parent", 1, { a: end, end }),
    make("version", 4, { a: end, end }),
    make("vars", 2, { a: end, end }, { vars: z.object({ n: z.number() }) }),
    make("over", 9, { x: end }, { entry: "x" }),
  ];
  const before = await world.manually((runtime) => runtime.list({ order: "oldest" }));
  await world.use({ workflows: fresh });
  const report = await world.manually((runtime) => runtime.check());
  expect(report.others).toEqual({ strange: 1 });
  expect(report.checked).toBe(8);
  const found = Object.fromEntries(report.incompatible.map((entry) => [entry.workflowId, entry]));
  expect(Object.keys(found).toSorted()).toEqual(["effect", "member", "next", "stands", "vars", "version"]);
  expect(found.next).toMatchObject({
    runId: ids.next,
    version: "1",
    code: "WORKFLOW_INCOMPATIBLE",
    problem: expect.stringMatching(/"gone"/),
  });
  expect(found.stands).toMatchObject({ code: "WORKFLOW_INCOMPATIBLE", problem: expect.stringMatching(/stands at node "a"/) });
  expect(found.effect).toMatchObject({ code: "EFFECT_UNKNOWN", problem: expect.stringMatching(/"pay"/) });
  expect(found.member).toMatchObject({ code: "EFFECT_UNKNOWN" });
  expect(found.version).toMatchObject({ version: "5", problem: expect.stringMatching(/older/) });
  expect(found.vars).toMatchObject({ problem: expect.stringMatching(/n: /) });
  expect(await world.manually((runtime) => runtime.list({ order: "oldest" }))).toEqual(before);
  // What it says is what a worker does.
  await world.signal(ids.next!, "k");
  expect((await world.get(ids.next!)).blocked).toMatchObject({ code: found.next!.code });
});

scenario("check() finds a child that nobody here knows, and an effect that nobody can undo", async (world) => {
  const child = defineWorkflow({ id: "child", entry: "a", nodes: { a: () => complete() } });
  const unbook = defineEffect("unbook", { run: (_: any) => 1 });
  const book = defineEffect("book", { undo: unbook as any, run: async (_: any) => 1 });
  const end = () => complete();
  const parent = (effects: any[]) =>
    defineWorkflow({
      id: "parent",
      entry: "a",
      effects,
      nodes: { a: () => book({}, { nextNode: "b" }), b: () => subworkflow("child", {}, { nextNode: "end" }), end },
    } as any);
  await world.use({ workflows: [parent([book])] });
  const run = await world.run(parent([book]));
  expect(run.blocked).toMatchObject({ code: "WORKFLOW_UNKNOWN" });
  await world.use({ workflows: [parent([])] });
  expect((await world.manually((runtime) => runtime.check())).incompatible).toMatchObject([
    { runId: run.runId, code: "EFFECT_UNKNOWN" },
  ]);
  await world.use({ workflows: [parent([book]), child] });
  expect((await world.manually((runtime) => runtime.check())).incompatible).toEqual([]);
  await world.settle();
  expect(await world.get(run.runId)).toMatchObject({ status: "completed" });
});

describe("a rolling deploy", () => {
  test("old and new code on one store each finish their runs, and neither harms the other's", async () => {
    const clock = testClock();
    const shared = memoryStore({ clock });
    const calls: Record<string, number> = {};
    const kept = wrapStore(shared, async (method, args) => {
      calls[method] = (calls[method] ?? 0) + 1;
      return method === "close" ? undefined : callStore(shared, method, args);
    });
    const nodes = (version: number, more: Record<string, any>) => ({
      ask: () => waitEvent("go", { resultKey: "got", nextNode: "end" }),
      end: ({ vars }: any) => complete({ by: version, vars }),
      ...more,
    });
    const v1 = versionOf(1, {
      nodes: nodes(1, { legacy: () => waitEvent("go", { nextNode: "end1" }), end1: () => complete("legacy") }),
      entry: "ask",
    });
    const v2 = versionOf(2, {
      entry: "ask",
      nodes: nodes(2, { fresh: () => waitEvent("go", { nextNode: "end2" }), end2: () => complete("fresh") }),
      migrations: { 1: (vars: any) => ({ ...vars, migrated: true }) },
    });
    const open = (workflow: any) => createRuntime({ workflows: [workflow], store: kept, clock, ids: testIds(workflow.version) });
    const old = await open(v1);
    const start = async (runtime: any, n: number) => (await runtime.start("order", { vars: { n } })).runId as string;
    const fromOld = [await start(old, 1), await start(old, 2)];
    await clock.advance(10);
    const fresh = await open(v2);
    const fromNew = [await start(fresh, 3), await start(fresh, 4)];
    await clock.advance(2_000);
    for (const runId of [...fromOld, ...fromNew]) await old.signal(runId, "go", "x");
    await clock.advance(60_000);
    for (const runId of fromOld) {
      const run = await fresh.get(runId);
      expect(run.status).toBe("completed");
      expect(["1", "2"]).toContain(run.version);
      // By either, and wholly: no run was begun by the new code and ended by the old.
      expect((run.output as any).by).toBe(Number(run.version));
      expect((run.output as any).vars.migrated).toBe(run.version === "2" ? true : undefined);
    }
    for (const runId of fromNew)
      expect(await fresh.get(runId)).toMatchObject({ status: "completed", version: "2", output: { by: 2 } });
    expect((await fresh.health()).ok).toBe(true);
    await old.stop();
    await fresh.stop();
    await shared.close();
  });

  test("runs that neither code can drive are not fought over", async () => {
    const clock = testClock();
    const shared = memoryStore({ clock });
    let claims = 0;
    const kept = wrapStore(shared, async (method, args) => {
      if (method === "close") return undefined;
      const answer = await callStore(shared, method, args);
      if (method === "claim") claims += (answer as unknown[]).length;
      return answer;
    });
    const first = versionOf(1);
    const open = (workflow: any, seed: number) =>
      createRuntime({ workflows: [workflow], store: kept, clock, ids: testIds(seed) });
    const starter = await open(first, 1);
    const { runId } = await starter.start("order");
    await clock.advance(10);
    await starter.stop();
    const a = await open(versionOf(2, { entry: "x", nodes: { x: () => complete() } }), 2);
    const b = await open(versionOf(3, { entry: "y", nodes: { y: () => complete() } }), 3);
    await a.signal(runId, "go");
    claims = 0;
    await clock.advance(60_000);
    expect((await a.get(runId)).blocked).toMatchObject({ code: "WORKFLOW_INCOMPATIBLE" });
    expect(claims).toBeLessThanOrEqual(4);
    expect((await a.health()).problems.join()).toMatch(/1 run is blocked/);
    await a.stop();
    await b.stop();
    await shared.close();
  });
});

describe("migrations that cannot work are refused when the workflow is defined", () => {
  const nodes = { a: () => complete(), ship: () => complete() };
  for (const [name, given, message] of [
    ["no object", 7, /migrations is an object/],
    ["null", null, /migrations is an object/],
    ["neither a function nor an object", { 1: 7 }, /from version 1 is neither a function nor/],
    ["an unknown key", { 1: { var: () => ({}) } }, /"var".*Did you mean "vars"\?/],
    ["vars that are no function", { 1: { vars: {} } }, /vars is a function/],
    ["a text without to", { spring: (vars: any) => vars }, /does not say where to/],
    ["the present version", { 3: (vars: any) => vars }, /leaves the present version/],
    ["a gap", { 1: (vars: any) => vars }, /from version 1 ends at version 2, not at 3/],
    ["beyond the present version", { 1: { to: 4 } }, /ends at version 4, not at 3/],
    ["a circle", { 1: { to: 2 }, 2: { to: 1 } }, /from version 1 ends at version/],
    ["a node that is not there", { 2: { nodes: { old: "shipp" } } }, /renames a node to "shipp".*Did you mean "ship"\?/],
    ["names that are no texts", { 2: { nodes: { old: 7 } } }, /renames a node|nodes/],
    ["nodes that are no object", { 2: { nodes: "abc" } }, /nodes/],
    ["a list of nodes", { 2: { nodes: ["a"] } }, /nodes/],
    ["to that is no version", { 2: { to: {} } }, /to|ends at/],
    ["a list", [() => ({})], /migrations/],
  ] as const) {
    test(name, () => {
      let refused = "nothing was refused";
      try {
        defineWorkflow({ id: "w", version: 3, entry: "a", nodes, migrations: given as any });
      } catch (error) {
        refused = (error as Error).message;
      }
      expect(refused).toMatch(message);
    });
  }

  test("those that can work are not", () => {
    const made = defineWorkflow({
      id: "w",
      version: 3,
      entry: "a",
      nodes,
      migrations: { 1: (vars) => vars, 2: { nodes: { old: "a" } }, beta: { to: 2 } },
    });
    expect([...made.migrations.keys()]).toEqual(["1", "2", "beta"]);
  });
});
