/** The simulator over the examples and random workflows; and the simulator itself: what it repeats, what it finds, how small it makes it. */
import { complete, defineEffect, defineWorkflow, type Store, waitEvent, type Workflow } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { simulate, type SimulateOptions } from "abstractruntime/testing";
import { describe, expect, test } from "vitest";
import type { Message } from "../../src/kernel/message.ts";
import type { Transition } from "../../src/kernel/transition.ts";
import { minimise } from "../../src/testing/simulate/minimise.ts";
import { simulated } from "./workflows.ts";

/** Where they are not 25: most where most is random, fewer where a seed has many runs. `npm run simulate` tries any number. */
const seedsOf: Record<string, number> = {
  random: 100,
  asking: 40,
  transacting: 25,
  upgraded: 25,
  scheduled: 5,
  frugal: 15,
};
const factor = Number(process.env.SIMULATE_RUNS ?? 1);

describe("under faults, every promise holds", () => {
  for (const [name, { code, options }] of Object.entries(simulated)) {
    test(
      `of workflow "${name}"`,
      async () => {
        const count = (seedsOf[name] ?? 25) * factor;
        const report = await simulate(code, { ...options, seeds: { from: 1, count } });
        expect(report.problem).toBeUndefined();
        expect(report.seeds).toBe(count);
      },
      180_000 * factor,
    );
  }
});

test("one seed is one history, to the byte", async () => {
  const seeds = Array.from({ length: 15 }, (_, i) => i + 1_000);
  const { code, options } = simulated.random!;
  const [first, second] = [await simulate(code, { ...options, seeds }), await simulate(code, { ...options, seeds })];
  expect(first.totals.handlerCalls).toBeGreaterThan(50);
  expect(second.hashes).toEqual(first.hashes);
  expect(second.totals).toEqual(first.totals);
  expect(new Set(first.hashes.values()).size).toBe(seeds.length);
});

test("seeds differ in what goes wrong, and without faults nothing does", async () => {
  const { code, options } = simulated.letter!;
  const wild = await simulate(code, { ...options, seeds: 20 });
  expect(wild.totals.faults).toBeGreaterThan(20);
  const calm = await simulate(code, { ...options, faults: false, seeds: 20 });
  expect(calm.totals.faults).toBe(0);
  expect(calm.problem).toBeUndefined();
});

// ---- Broken stores and workflows are found ---------------------------------------------------------------------------

const send = defineEffect("send", { onUncertain: "fail", run: () => "sent" });
const twice = defineWorkflow({
  id: "twice",
  entry: "first",
  effects: [send],
  nodes: {
    first: () => waitEvent("go", { resultKey: "first", nextNode: "send" }),
    send: () => send({ to: "Ada" }, { resultKey: "sent", nextNode: "second", errorNode: "second" }),
    second: () => waitEvent("go", { resultKey: "second", nextNode: "done" }),
    done: ({ vars }) => complete({ first: vars.first, second: vars.second }),
  },
}) as Workflow;

/** The memory store, with a method or two changed. */
function broken(change: (inner: Store) => Partial<Store>): SimulateOptions {
  return {
    store: ({ clock }) => {
      const inner = memoryStore({ clock });
      const changed = change(inner);
      return new Proxy(inner, {
        get(target, name) {
          const method = Reflect.get(changed, name) ?? Reflect.get(target, name);
          return typeof method === "function" ? method.bind(target) : method;
        },
      });
    },
  };
}

async function found(options: SimulateOptions) {
  const { ok, failures, problem } = await simulate(twice, { seeds: 400, ...options });
  expect({ ok, failures: failures.length }).toEqual({ ok: false, failures: 1 });
  const [failure] = failures;
  expect(failure!.repeatable).toBe(true);
  expect(problem).toContain(`seeds: [${failure!.seed}]`);
  // As the report says: the schedule alone breaks it again, in the same way.
  const again = await simulate(twice, { ...options, seeds: [failure!.seed], schedule: failure!.schedule, minimise: false });
  expect(again.failures[0]).toMatchObject({ invariant: failure!.invariant, problem: failure!.problem });
  expect(again.failures[0]!.trace).toEqual(failure!.trace);
  return failure!;
}

describe("what is broken is found, and the schedule made small", () => {
  test("a store that takes the same message twice for two", async () => {
    const withoutDedup = broken((inner) => ({
      deliver: async (messages: readonly Message[], limit?: number) => {
        const deliveries = await inner.deliver(messages, limit);
        for (const [i, message] of messages.entries()) {
          if (deliveries[i]?.kind !== "duplicate") continue;
          [deliveries[i]] = (await inner.deliver([{ ...message, id: `${message.id} again` }], limit)) as [never];
        }
        return deliveries;
      },
    }));
    const failure = await found({ ...withoutDedup, faults: { clock: false } });
    expect(failure.invariant).toBe("no-message-twice");
    expect(failure.schedule.length).toBeLessThanOrEqual(2);
    expect(failure.originalSchedule.length).toBeGreaterThan(failure.schedule.length);
    expect(failure.message).toMatch(/message \d is sent once more|acknowledgement is lost/);
  });

  test("a store that leaves taken messages in the mailbox", async () => {
    const withoutTake = broken((inner) => ({
      commit: (transitions: readonly Transition[]) =>
        inner.commit(transitions.map((transition) => ({ ...transition, take: [] }))),
    }));
    const failure = await found(withoutTake);
    expect(failure).toMatchObject({ invariant: "no-message-twice", schedule: [] });
    expect(failure.message).toContain("It takes no fault at all.");
  });

  test("a store that acknowledges messages and loses them", async () => {
    let calls = 0;
    const forgetful = broken((inner) => {
      calls = 0;
      return {
        deliver: async (messages: readonly Message[], limit?: number) => {
          calls += 1;
          return calls % 4 === 0 ? messages.map(() => ({ kind: "stored" as const })) : inner.deliver(messages, limit);
        },
      };
    });
    const failure = await found(forgetful);
    expect(["every-run-ends", "no-message-lost"]).toContain(failure.invariant);
  });

  test("a store that acknowledges commits and loses them", async () => {
    const forgetful = broken((inner) => {
      let calls = 0;
      return {
        commit: async (transitions: readonly Transition[]) => {
          calls += 1;
          return calls % 3 === 0 ? transitions.map(() => []) : inner.commit(transitions);
        },
      };
    });
    expect((await found(forgetful)).invariant).toBe("no-transition-twice");
  });

  test("a promise of one's own that crashes break", async () => {
    const failure = await found({
      invariants: ({ runs }) => {
        for (const { runId, status, vars } of runs) {
          if (status === "completed" && vars.sent !== "sent") throw new Error(`run ${runId} has not sent its letter`);
        }
      },
      faults: { crash: 3, delay: false, clock: false, fail: false, freeze: false, down: false, control: false, messages: false },
    });
    expect(failure).toMatchObject({ invariant: "users", problem: expect.stringContaining("has not sent its letter") });
    expect(failure.schedule).toHaveLength(1);
    expect(failure.schedule[0]!.fault).toMatch(/^crash-/);
    expect(failure.message).toMatch(/worker \d dies (before|after) its store call \d+ is carried out/);
  });

  test("a run that goes round for ever", async () => {
    const round = defineWorkflow({
      id: "round",
      entry: "a",
      nodes: { a: { to: ["a"], run: () => ({ effect: { type: "wait_until", payload: { delayMs: 10 } }, nextNode: "a" }) } },
    });
    const { failures } = await simulate(round, { seeds: 1, faults: false, maxEvents: 500 });
    expect(failures[0]).toMatchObject({
      invariant: "every-run-ends",
      problem: expect.stringContaining("not over after 501 events"),
    });
  });
});

test("what the simulator is given is checked", async () => {
  await expect(simulate(twice, { seed: 1 } as never)).rejects.toThrow('Did you mean "seeds"?');
  await expect(simulate(twice, { faults: { crashes: 1 } as never })).rejects.toThrow('Did you mean "crash"?');
});

test("minimising leaves nothing out that matters, and everything else", async () => {
  const list = Array.from({ length: 20 }, (_, i) => i);
  let tests = 0;
  const needs = (wanted: number[]) => async (part: readonly number[]) => {
    tests += 1;
    return wanted.every((one) => part.includes(one));
  };
  expect(await minimise(list, needs([3, 11, 19]))).toEqual([3, 11, 19]);
  expect(await minimise(list, needs([7]))).toEqual([7]);
  expect(await minimise(list, needs([]))).toEqual([]);
  expect(tests).toBeLessThan(150);
});
