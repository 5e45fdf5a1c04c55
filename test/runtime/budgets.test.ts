// Budgets where processes die, stores answer late or never, and runs are moved, forked and refused at the door.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  type EffectContext,
  fanOut,
  isError,
  moveRuns,
  overBudget,
  type Runtime,
  type Spend,
  type Store,
  subworkflow,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { postgresStore } from "abstractruntime/postgres";
import { sqliteStore } from "abstractruntime/sqlite";
import { type Fault, faultyStore, type TestClock, testClock } from "abstractruntime/testing";
import { expect, onTestFinished, test } from "vitest";
import type { Transition } from "../../src/kernel/transition.ts";
import { dropSchema, newSchema, serverUrl } from "../stores/postgres-server.ts";
import { eventually } from "../eventually.ts";

/** Three calls of up to 10 tokens, of which each costs 7. `made` counts them by key and attempt. */
function spender(made: string[] = [], speculative = true) {
  const call = defineEffect("call", {
    speculative,
    policy: { backoff: { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 } },
    run: async (_: unknown, { budget, idempotencyKey, attempt }: EffectContext) => {
      const over = await budget.reserve({ tokens: 10, calls: 1 });
      if (over) return overBudget(over);
      made.push(`${idempotencyKey} ${attempt}`);
      await new Promise((resolve) => setImmediate(resolve));
      budget.settle({ tokens: 7 });
      return null;
    },
  });
  const spender = defineWorkflow({
    id: "spender",
    vars: undefined as any,
    effects: [call],
    entry: "call",
    nodes: {
      call: () => call({}, { nextNode: "next" }),
      next: ({ vars }: any) => {
        vars.n = (vars.n ?? 0) + 1;
        return vars.n < 3 ? { nextNode: "call" } : complete({ n: vars.n });
      },
    },
  } as any) as any;
  return spender;
}

const tokens = async (runtime: Runtime, runId: string) =>
  Object.fromEntries((await runtime.budgets(runId)).map(({ name, used, limit, raised }) => [name, [used, limit, raised]]));

/** Moves the clock until something has settled. */
async function moving<T>(clock: TestClock, promise: Promise<T>): Promise<T> {
  let isOver = false;
  const end = (): void => {
    isOver = true;
  };
  promise.then(end, end);
  while (!isOver) {
    await clock.advance(5);
    await new Promise((resolve) => setImmediate(resolve));
  }
  return promise;
}

async function tickAll(runtime: Runtime, runId: string): Promise<string> {
  return (await runtime.tick(runId)).status;
}

test("whatever call of the store a process dies at, what was spent is counted, and a raise counts once", async () => {
  const budget = { tokens: 25, calls: 100 };
  for (const [after, speculative] of [
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ] as const) {
    let unharmed = false;
    for (let n = 1; !unharmed; n++) {
      const clock = testClock();
      const inner = memoryStore({ clock });
      const made: string[] = [];
      const faults: Fault[] = [];
      const open = (store: Store) => createRuntime({ workflows: [spender(made, speculative)], store, clock, scheduler: false });
      const plan = async (runtime: Runtime): Promise<void> => {
        await runtime.start("spender", { runId: "r", budget });
        let status = await tickAll(runtime, "r");
        // At most two raises are needed, also where attempts that were cut off stay counted.
        for (let answers = 0; status === "waiting" && answers < 2; answers++) {
          await runtime.respond("r", { raise: { tokens: 40 } });
          status = await tickAll(runtime, "r");
        }
      };
      const faulty = faultyStore(inner, faults);
      const first = await open(faulty);
      faults.push({ kind: "fail", call: n, after }, { kind: "fail", fromCall: n + 1 });
      let died = false;
      await moving(clock, plan(first)).catch(() => {
        died = true;
      });
      unharmed = !died;
      // What was open in the process that died stays as it is; its lease runs out.
      await clock.advance(120_000);
      const second = await open(inner);
      await moving(clock, plan(second));
      const run = await second.get("r");
      const where = `${JSON.stringify({ n, after, speculative })}`;
      expect(run, where).toMatchObject({ status: "completed", output: { n: 3 } });
      const raises = (await second.ledger("r")).filter(
        ({ kind, data }) => kind === "delivered" && (data as any).outcome === "again",
      );
      const used = await tokens(second, "r");
      expect(used.tokens?.slice(1)).toEqual([25 + 40 * raises.length, 40 * raises.length]);
      // Three calls, and what was reserved for the one that was cut off.
      const [spent = 0] = used.tokens ?? [];
      expect(made.length, where).toBeLessThanOrEqual(4);
      expect([0, 10], where).toContain(spent - 21);
      expect(used.calls?.[0], where).toBe(3 + (spent - 21) / 10);
      await second.stop();
    }
  }
});

test("a store that fails for a moment at a reservation fails the attempt and nothing else: it is made again", async () => {
  const clock = testClock();
  const faults: Fault[] = [{ kind: "fail", on: "reserve", call: 2 }];
  const made: string[] = [];
  const store = faultyStore(memoryStore({ clock }), faults);
  await using runtime = await createRuntime({ workflows: [spender(made)], store, clock, scheduler: false });
  await runtime.start("spender", { runId: "r", budget: { tokens: 100 } });
  await moving(clock, runtime.tick("r"));
  expect((await runtime.get("r")).status).toBe("completed");
  expect(made).toHaveLength(3);
  expect(await tokens(runtime, "r")).toEqual({ tokens: [21, 100, 0] });
});

test("two runtimes over two stores of one Postgres schema give no more than there is", async () => {
  const schema = newSchema();
  onTestFinished(async () => void (await dropSchema(schema)));
  const made: string[] = [];
  const fan = defineWorkflow({
    id: "fan",
    entry: "a",
    nodes: {
      a: () => fanOut("spender", { items: Array.from({ length: 20 }, () => ({})) }, { nextNode: "b" }),
      b: () => complete({}),
    },
  } as any) as any;
  const open = async () =>
    createRuntime({
      workflows: [spender(made), fan],
      store: await postgresStore({ connectionString: serverUrl(), schema, connections: 4 }),
      scheduler: { concurrency: 20 },
    });
  await using one = await open();
  await using two = await open();
  const { runId } = await one.start(fan, { budget: { calls: 33, tokens: 100_000 } });
  const settled = async (): Promise<boolean> => {
    const { runs } = await two.list({ parentRunId: runId, limit: 100 });
    return runs.length === 20 && runs.every(({ status }) => status === "waiting" || status === "completed");
  };
  await eventually(settled);
  expect(made).toHaveLength(33);
  expect(await tokens(two, runId)).toEqual({ calls: [33, 33, 0], tokens: [231, 100_000, 0] });
  const { runs } = await two.list({ parentRunId: runId, status: "waiting", limit: 100 });
  for (const child of runs) await one.respond(child.runId, { raise: { calls: 3 } }).catch(isTooLate);
  expect((await two.result(runId, { timeoutMs: 100_000 })) ?? "done").toBeDefined();
  expect(made).toHaveLength(60);
  expect((await tokens(one, runId)).tokens).toEqual([420, 100_000, 0]);
});

/** It has looked again by itself, and found room. */
function isTooLate(error: unknown): void {
  if (!isError(error, "NOT_WAITING") && !isError(error, "ALREADY_ANSWERED") && !isError(error, "RUN_ENDED")) throw error;
}

test("what was used goes where a run goes: to another store, into a file and back, and with it when it is purged", async () => {
  const clock = testClock();
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const [from, to] = [await sqliteStore(join(directory, "a.db"), { clock }), memoryStore({ clock })];
  const open = (store: Store) => createRuntime({ workflows: [spender()], store, clock, scheduler: false });
  const source = await open(from);
  await source.start("spender", { runId: "r", budget: { tokens: 20 } });
  expect(await tickAll(source, "r")).toBe("waiting");
  expect(await tokens(source, "r")).toEqual({ tokens: [14, 20, 0] });
  await moveRuns(from, to, ["r"]);
  const target = await open(to);
  expect(await tokens(target, "r")).toEqual({ tokens: [14, 20, 0] });
  await target.respond("r", { raise: { tokens: 4 } });
  expect(await tickAll(target, "r")).toBe("completed");
  expect(await tokens(target, "r")).toEqual({ tokens: [21, 24, 4] });
  const file = join(directory, "runs.jsonl");
  await target.export(["r"], file);
  await target.purge({ runIds: ["r"] });
  expect(await to.counters("r")).toEqual({});
  await target.import(file);
  expect(await tokens(target, "r")).toEqual({ tokens: [21, 24, 4] });
  await Promise.all([source.stop(), target.stop()]);
});

test("a fork has a budget of its own: all that held for its origin, and nothing is spent", async () => {
  const clock = testClock();
  const above = defineWorkflow({
    id: "above",
    entry: "a",
    nodes: {
      a: () => subworkflow("spender", { budget: { tokens: 20 } }, { nextNode: "b" }),
      b: () => complete({}),
    },
  } as any) as any;
  await using runtime = await createRuntime({
    workflows: [spender(), above],
    store: memoryStore({ clock }),
    clock,
    scheduler: false,
  });
  await runtime.start(above, { runId: "p", budget: { tokens: 100, calls: 9 } });
  await runtime.tick("p");
  const [child] = (await runtime.list({ parentRunId: "p" })).runs;
  expect(await tickAll(runtime, child!.runId)).toBe("waiting");
  const fork = await runtime.fork(child!.runId, { open: "restart" });
  expect(await tokens(runtime, fork.runId)).toEqual({ tokens: [0, 20, 0], calls: [0, 9, 0] });
  expect(new Set((await runtime.budgets(fork.runId)).map(({ scope }) => scope))).toEqual(new Set([fork.runId]));
  expect(await tickAll(runtime, fork.runId)).toBe("completed");
  expect(await tokens(runtime, fork.runId)).toEqual({ tokens: [7, 20, 0], calls: [1, 9, 0] });
  expect((await tokens(runtime, "p")).tokens).toEqual([14, 100, 0]);
});

test("the store is asked nothing where nothing is limited, and one thing a call where something is", async () => {
  const clock = testClock();
  const store = faultyStore(memoryStore({ clock }), []);
  await using runtime = await createRuntime({ workflows: [spender()], store, clock, scheduler: false });
  await runtime.start("spender", { runId: "free" });
  await runtime.start("spender", { runId: "other", budget: { usd: 1 } });
  await runtime.start("spender", { runId: "limited", budget: { tokens: 100 } });
  const calls: Record<string, string[]> = {};
  for (const runId of ["free", "other", "limited"]) {
    const before = store.calls.length;
    expect(await tickAll(runtime, runId)).toBe("completed");
    calls[runId] = store.calls.slice(before);
  }
  expect(calls.free).not.toContain("reserve");
  expect(calls.other).toEqual(calls.free);
  expect(calls.limited?.filter((name) => name !== "reserve")).toEqual(calls.free);
  expect(calls.limited?.filter((name) => name === "reserve")).toHaveLength(3);
});

test("an estimate that was too high keeps nobody waiting: the next call sees what the one before did cost", async () => {
  const clock = testClock();
  await using runtime = await createRuntime({ workflows: [spender()], store: memoryStore({ clock }), clock, scheduler: false });
  await runtime.start("spender", { runId: "r", budget: { tokens: 24 } });
  expect(await tickAll(runtime, "r")).toBe("completed");
  expect(await tokens(runtime, "r")).toEqual({ tokens: [21, 24, 0] });
});

test("an answer that was taken while the effect looks again by itself is not lost", async () => {
  const clock = testClock();
  const inner = memoryStore({ clock });
  let answer: (() => Promise<unknown>) | undefined;
  const store = new Proxy(inner, {
    get(target, name) {
      const method = Reflect.get(target, name);
      if (typeof method !== "function") return method;
      if (name !== "commit") return method.bind(target);
      return async (transitions: readonly Transition[]) => {
        // The look has begun, and nobody but its driver knows.
        const looks = transitions.some(({ records }) => records.some(({ header }) => header.includes('"effect_started"')));
        const given = looks ? answer : undefined;
        if (given) answer = undefined;
        await given?.();
        return target.commit(transitions);
      };
    },
  });
  await using runtime = await createRuntime({ workflows: [spender()], store, clock });
  await runtime.start("spender", { runId: "r", budget: { tokens: 7 } });
  await moving(clock, expect.poll(async () => (await runtime.get("r")).status).toBe("waiting"));
  answer = () => runtime.respond("r", { raise: { tokens: 100 } });
  expect(await moving(clock, runtime.result("r"))).toEqual({ n: 3 });
  expect(answer).toBeUndefined();
  expect(await tokens(runtime, "r")).toEqual({ tokens: [21, 107, 100] });
});

test("a start is the same only with the same budget", async () => {
  const clock = testClock();
  await using runtime = await createRuntime({ workflows: [spender()], store: memoryStore({ clock }), clock, scheduler: false });
  await runtime.start("spender", { runId: "r", budget: { tokens: 5, usd: 1 } });
  expect(await runtime.start("spender", { runId: "r", budget: { usd: 1, tokens: 5 } })).toEqual({ runId: "r" });
  for (const budget of [undefined, { tokens: 6, usd: 1 }, { tokens: 5 }])
    await expect(runtime.start("spender", { runId: "r", ...(budget ? { budget } : {}) })).rejects.toThrow(
      /RUN_EXISTS.*another budget/,
    );
});

test("what is no budget is refused at the door, and named", async () => {
  const clock = testClock();
  await using runtime = await createRuntime({ workflows: [spender()], store: memoryStore({ clock }), clock, scheduler: false });
  const bad: [unknown, RegExp][] = [
    [{ tokens: -1 }, /budget.tokens is a number from 0 to 1000000000000000, not -1/],
    [{ tokens: Number.NaN }, /budget.tokens .* not NaN/],
    [{ usd: Number.POSITIVE_INFINITY }, /budget.usd is a number from 0 to 1000000, not Infinity/],
    [{ usd: 1e12 }, /budget.usd/],
    [{ calls: "5" }, /budget.calls/],
    [{ token: 5 }, /Unknown option "token".*Did you mean "tokens"/],
    [{}, /budget limits nothing/],
    [[], /budget is an object/],
    [null, /budget is an object/],
    [5, /budget is an object/],
  ];
  for (const [budget, problem] of bad) {
    await expect(runtime.start("spender", { budget: budget as Spend })).rejects.toThrow(problem);
    await expect(runtime.start("spender", { budget: budget as Spend })).rejects.toThrow("INVALID_OPTION");
  }
  expect(() => subworkflow("spender", { budget: { tokens: -1 } })).toThrow("INVALID_OPTION");
  expect(() => fanOut("spender", { items: [], budget: { usd: Number.NaN } })).toThrow("INVALID_OPTION");
});

test("a handler that reserves what is no amount fails at once, and one that settles such has its result", async () => {
  const clock = testClock();
  const open = async (run: (input: unknown, context: EffectContext) => Promise<unknown>) => {
    const effect = defineEffect("e", { run: run as never });
    const flow = defineWorkflow({
      id: "flow",
      effects: [effect],
      entry: "a",
      nodes: { a: () => (effect as any)({}, { nextNode: "b", resultKey: "got" }), b: ({ vars }: any) => complete(vars) },
    } as any) as any;
    const runtime = await createRuntime({ workflows: [flow], store: memoryStore({ clock }), clock, scheduler: false });
    onTestFinished(() => runtime.stop());
    await runtime.start(flow, { runId: "r", budget: { tokens: 100, usd: 1 } });
    await runtime.tick("r");
    return runtime;
  };
  const bad = await open(async (_, { budget }) => void (await budget.reserve({ tokens: -5 })));
  expect(await bad.get("r")).toMatchObject({ status: "failed", error: { code: "INVALID_OPTION" } });
  const settled = await open(async (_, { budget }) => {
    await budget.reserve({ tokens: 10, usd: 0.5 });
    budget.settle({ tokens: Number.NaN, usd: -3, nonsense: 5 } as Spend);
    return "kept";
  });
  expect(await settled.get("r")).toMatchObject({ status: "completed", output: { got: "kept" } });
  expect(await tokens(settled, "r")).toEqual({ tokens: [10, 100, 0], usd: [0.5, 1, 0] });
  // More than was reserved, and more than there is: what was spent is spent.
  const dear = await open(async (_, { budget }) => {
    await budget.reserve({ tokens: 10 });
    await budget.reserve({ tokens: 10 });
    budget.settle({ tokens: 250, usd: 0.000_000_001 });
    return null;
  });
  expect(await tokens(dear, "r")).toEqual({ tokens: [250, 100, 0], usd: [0.000_000_001, 1, 0] });
});

test("what an attempt reserves after its end is refused", async () => {
  const clock = testClock();
  let late: (() => Promise<unknown>) | undefined;
  const effect = defineEffect("e", {
    run: async (_: unknown, { budget }: EffectContext) => {
      late = () => budget.reserve({ calls: 1 });
      return null;
    },
  });
  const flow = defineWorkflow({
    id: "flow",
    effects: [effect],
    entry: "a",
    nodes: { a: () => effect({}, { nextNode: "b" }), b: () => complete({}) },
  });
  await using runtime = await createRuntime({ workflows: [flow], store: memoryStore({ clock }), clock, scheduler: false });
  await runtime.start(flow, { runId: "r", budget: { calls: 5 } });
  await runtime.tick("r");
  await expect(late?.()).rejects.toThrow("The attempt has ended");
  expect(await tokens(runtime, "r")).toEqual({ calls: [0, 5, 0] });
});

test("a transactional effect is told at once that it cannot reserve: the store would wait for it, and it for the store", async () => {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const effect = defineEffect("e", {
    transactional: true,
    run: async (_: unknown, { budget }: EffectContext) => void (await budget.reserve({ calls: 1 })),
  });
  const flow = defineWorkflow({
    id: "flow",
    effects: [effect],
    entry: "a",
    nodes: { a: () => effect({}, { nextNode: "b" }), b: () => complete({}) },
  });
  const clock = testClock();
  const store = await sqliteStore(join(directory, "a.db"), { clock });
  await using runtime = await createRuntime({ workflows: [flow], store, clock, scheduler: false });
  await runtime.start(flow, { runId: "r", budget: { calls: 5 } });
  const run = await runtime.tick("r");
  expect(run).toMatchObject({
    status: "failed",
    error: { code: "INVALID_OPTION", message: expect.stringContaining("cannot reserve") },
  });
});
