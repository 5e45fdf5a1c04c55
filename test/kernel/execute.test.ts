// One attempt of one effect, and one node: whatever they do becomes an outcome.
import { defineEffect, type EffectContext } from "abstractruntime";
import { testClock, testIds } from "abstractruntime/testing";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { beginRun } from "../../src/kernel/begin.ts";
import { setLongTimer } from "../../src/kernel/clock.ts";
import type { DriveHost } from "../../src/kernel/drive-host.ts";
import { AbstractRuntimeError, errorData, isError } from "../../src/kernel/errors.ts";
import { defaultLimits, type Execution, execute } from "../../src/kernel/execute.ts";
import { nodeError, runNode } from "../../src/kernel/run-node.ts";
import type { OpenEffect, RunState } from "../../src/kernel/run.ts";
import { waitState } from "../../src/kernel/wait.ts";
import { defineWorkflow } from "../../src/kernel/workflow.ts";

const day = 86_400_000;
const quiet = () => undefined;
const log = { debug: quiet, info: quiet, warn: quiet, error: quiet };
const state = { runId: "r", workflowId: "w", node: "a", step: 1, vars: {} } as unknown as RunState;
const effect = { id: "1", type: "t", node: "a", step: 1, attempt: 1, key: "k", payload: {} } as unknown as OpenEffect;

function attempt(options: Record<string, unknown>, clock = testClock()): Execution {
  const { definition } = defineEffect("t", options as never);
  return execute(definition, effect, state, { clock, log, limits: defaultLimits, artifacts: {} as never, store: {} as never });
}

function revoked(): object {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
}

/** Can be awaited, and not read otherwise. */
function unreadable(): object {
  return new Proxy(
    {},
    {
      get(_, key) {
        if (key === "then") return undefined;
        throw new Error("no reading");
      },
    },
  );
}

const hostile: [string, () => unknown][] = [
  ["a revoked proxy", revoked],
  ["an unreadable proxy", unreadable],
  ["an error with throwing getters", () => Object.defineProperty(new Error("x"), "message", { get: () => boom() })],
  ["an error with other parts each time", () => Object.defineProperty(new Error("x"), "stack", { get: () => Symbol("s") })],
  ["an object that does not become text", () => ({ toJSON: () => boom(), toString: () => boom() })],
  ["a symbol", () => Symbol("s")],
  ["a bigint", () => 1n],
  ["nothing", () => undefined],
  ["null", () => null],
];

function boom(): never {
  throw new Error("boom");
}

const unhandled: unknown[] = [];
const note = (reason: unknown): void => void unhandled.push(reason);
beforeEach(() => void process.on("unhandledRejection", note));
afterEach(async () => {
  await new Promise((resolve) => setImmediate(resolve));
  process.off("unhandledRejection", note);
  expect(unhandled.splice(0)).toEqual([]);
});

test("a handler that has answered streams and reserves no more", async () => {
  for (const returned of ["now", Promise.resolve("later")]) {
    const calls: string[] = [];
    let kept: EffectContext | undefined;
    const { definition } = defineEffect("t", {
      run: (_, context) => {
        kept = context;
        return returned as string;
      },
    });
    const streams = { open: () => ({ write: () => calls.push("write"), end: async () => undefined }) };
    const store = { reserve: async () => void calls.push("reserve") };
    const limited = { ...state, budgets: [{ scope: "r", limits: { calls: 1 } }] } as RunState;
    const tools = { clock: testClock(), log, limits: defaultLimits, artifacts: {}, store, streams };
    await execute(definition, effect, limited, tools as never).outcome;
    kept?.stream({ type: "text", text: "late" });
    await expect(kept?.budget.reserve({ calls: 1 })).rejects.toThrow("The attempt has ended.");
    expect(calls).toEqual([]);
  }
});

describe("an input schema that takes its time", () => {
  function slow() {
    let answer!: (result: unknown) => void;
    let refuse!: (error: unknown) => void;
    const validated = new Promise((resolve, reject) => {
      answer = resolve;
      refuse = reject;
    });
    const input = { "~standard": { version: 1, vendor: "test", validate: () => validated } };
    let calls = 0;
    const run = () => {
      calls += 1;
      return calls;
    };
    return { options: { input, run, policy: { timeoutMs: 100 } }, answer, refuse, calls: () => calls };
  }

  test("the handler is called with what it gives", async () => {
    const { options, answer } = slow();
    const { outcome } = attempt(options);
    answer({ value: {} });
    expect(await outcome).toEqual({ kind: "completed", result: 1 });
  });

  test("after the timeout the handler is not called, and the failure is definite", async () => {
    const { options, answer, calls } = slow();
    const clock = testClock();
    const { outcome } = attempt(options, clock);
    await clock.advance(100);
    expect(await outcome).toMatchObject({ kind: "failed", retryable: true, error: { code: "EFFECT_TIMEOUT" } });
    answer({ value: {} });
    await clock.advance(1);
    expect(calls()).toBe(0);
    expect(clock.pending).toEqual([]);
  });

  test("after an abort the handler is not called, and the failure is definite and waits for nothing", async () => {
    const { options, answer, calls } = slow();
    const clock = testClock();
    const { outcome, abort } = attempt(options, clock);
    abort(new Error("cancelled"), 5_000);
    answer({ value: {} });
    expect(await outcome).toMatchObject({ kind: "failed", retryable: true, error: { message: "cancelled" } });
    expect(calls()).toBe(0);
    expect(clock.pending).toEqual([]);
  });

  test("what it throws is definite: nothing has happened", async () => {
    const { options, refuse } = slow();
    const { outcome } = attempt(options);
    refuse(new Error("no connection"));
    expect(await outcome).toMatchObject({ kind: "failed", retryable: true, error: { message: "no connection" } });
    const input = { "~standard": { version: 1, vendor: "test", validate: boom } };
    expect(attempt({ input, run: () => 1 }).outcome).toMatchObject({ kind: "failed", retryable: true });
  });

  test("once the handler was called, a timeout is uncertain, and a late progress sets no timer", async () => {
    const { options, answer } = slow();
    const clock = testClock();
    let context: EffectContext | undefined;
    const run = (_: unknown, given: EffectContext) => {
      context = given;
      return new Promise(() => undefined);
    };
    const { outcome } = attempt({ ...options, run }, clock);
    answer({ value: {} });
    await clock.advance(100);
    expect(await outcome).toMatchObject({ kind: "uncertain" });
    context?.progress();
    expect(clock.pending).toEqual([]);
  });
});

describe("whatever a handler gives or throws is an outcome", () => {
  test.each(hostile)("%s", async (_, make) => {
    const thrower = () => {
      throw make();
    };
    for (const run of [thrower, () => Promise.reject(make()), async () => thrower()]) {
      expect(await attempt({ run }).outcome).toMatchObject({ kind: "uncertain", error: { name: expect.any(String) } });
      expect(await attempt({ run, speculative: true }).outcome).toMatchObject({ kind: "failed", retryable: true });
    }
    for (const run of [make, async () => make()]) {
      expect(["completed", "failed", "uncertain"]).toContain((await attempt({ run }).outcome).kind);
    }
  });

  test("a thenable whose `then` throws, or cannot be read", async () => {
    // biome-ignore lint/suspicious/noThenProperty: that is what is tested
    const throws = () => ({ then: boom });
    expect(await attempt({ run: throws }).outcome).toMatchObject({ kind: "uncertain", reason: "boom" });
    // biome-ignore lint/suspicious/noThenProperty: that is what is tested
    const getter = () => Object.defineProperty({}, "then", { get: boom });
    expect(await attempt({ run: getter }).outcome).toMatchObject({ kind: "uncertain", reason: "boom" });
  });

  test("a lazy thenable is subscribed to once, by an effect and by a node", async () => {
    let subscribed = 0;
    const lazy = (value: unknown) => ({
      // biome-ignore lint/suspicious/noThenProperty: that is what is tested
      then(resolve: (value: unknown) => void) {
        subscribed += 1;
        resolve(value);
      },
    });
    const clock = testClock();
    expect(await attempt({ run: () => lazy(7) }, clock).outcome).toEqual({ kind: "completed", result: 7 });
    expect(subscribed).toBe(1);
    expect(await node(() => lazy({ completeOutput: {} }), clock)).toMatchObject({ plan: { completeOutput: {} } });
    expect(subscribed).toBe(2);
    expect(clock.pending).toEqual([]);
  });
});

function node(run: () => unknown, clock = testClock(), timeoutMs?: number) {
  const host = { clock, limits: defaultLimits, now: () => clock.now() } as unknown as DriveHost;
  return runNode({ run, ...(timeoutMs === undefined ? {} : { timeoutMs }) } as never, state, host, () => undefined);
}

describe("whatever a node gives or throws is a plan or an error", () => {
  test.each(hostile)("%s", async (_, make) => {
    const thrower = () => {
      throw make();
    };
    for (const run of [thrower, () => Promise.reject(make())])
      expect(await node(run)).toMatchObject({ error: { code: "NODE_FAILED" } });
    for (const run of [make, async () => make()]) expect(await node(run)).toHaveProperty("error.message");
  });

  test("a thenable whose `then` throws", async () => {
    // biome-ignore lint/suspicious/noThenProperty: that is what is tested
    expect(await node(() => ({ then: boom }))).toMatchObject({ error: { code: "NODE_FAILED" } });
  });
});

test.each(hostile)("error data is made of %s, and it is not ours", (_, make) => {
  expect(errorData(make())).toMatchObject({ name: expect.any(String), message: expect.any(String) });
  expect(JSON.parse(JSON.stringify(errorData(make())))).toEqual(errorData(make()));
  expect(isError(make())).toBe(false);
  expect(nodeError(make(), "a").code).toBe("NODE_FAILED");
});

describe("a wait is checked before it is recorded", () => {
  const half = "\ud83d";
  const wrong: [string, unknown][] = [
    ["no wait", null],
    ["an unknown reason", { reason: "never" }],
    ["no reason", {}],
    ["a key that is a number", { reason: "job", waitKey: 42 }],
    ["an empty key", { reason: "job", waitKey: "" }],
    ["a long key", { reason: "job", waitKey: "k".repeat(501) }],
    ["half a character", { reason: "job", waitKey: `order ${half}` }],
    ["a prompt that is none", { reason: "user", prompt: 1n }],
    ["choices that are no list", { reason: "user", choices: 5 }],
    ["choices that are one text", { reason: "user", choices: "ab" }],
    ["a choice that is no text", { reason: "user", choices: ["a", 1] }],
    ["allowFreeText that is a text", { reason: "user", allowFreeText: "yes" }],
    ["a schema that is a text", { reason: "user", schema: "string" }],
    ["a schema that is a list", { reason: "user", schema: [] }],
    ["an endless timeout", { reason: "job", timeoutMs: Number.POSITIVE_INFINITY }],
    ["a timeout in the past", { reason: "job", timeoutMs: -1 }],
    ["a timeout that is a text", { reason: "job", timeoutMs: "5" }],
    ["no moment", { reason: "until" }],
    ["a moment that is none", { reason: "until", until: {} }],
    ["an unreadable wait", unreadable()],
    ["a revoked wait", revoked()],
    ["revoked choices", { reason: "user", choices: revoked() }],
    ["a revoked moment", { reason: "until", until: revoked() }],
  ];

  test.each(wrong)("%s", (_, request) => {
    expect(() => waitState(request as never, "1", "r", "a", 0)).toThrow(
      expect.objectContaining({ code: "EFFECT_INPUT_INVALID" }) as never,
    );
  });

  test.each([{ schema: revoked() }, { details: revoked() }, { details: 1n }])("what cannot be stored", (part) => {
    expect(() => waitState({ reason: "user", ...part } as never, "1", "r", "a", 0)).toThrow(AbstractRuntimeError);
  });

  test("a key may have 500 characters of any kind", () => {
    for (const waitKey of ["k".repeat(500), "order\u0000 7", "🙂"])
      expect(waitState({ reason: "job", waitKey }, "1", "r", "a", 0)).toMatchObject({ waitKey });
  });
});

test("the ids of a run are well-formed text", () => {
  const workflow = defineWorkflow({ id: "w", entry: "a", nodes: { a: () => ({ completeOutput: {} }) } } as never) as never;
  const begin = (more: object) => beginRun(workflow, { runId: "r", now: 0, ...more } as never, testIds(), defaultLimits);
  expect(begin({ actorId: "🙂", sessionId: "s\u0000" })).toMatchObject({ row: { runId: "r" } });
  const long = "s".repeat(501);
  for (const more of [
    { runId: "r\ud83d" },
    { actorId: "\udc00" },
    { sessionId: "\ud83d s" },
    { actorId: 7 },
    { sessionId: long },
  ])
    expect(() => begin(more), JSON.stringify(more)).toThrow(/INVALID_OPTION/);
});

describe("a timeout longer than a timer takes", () => {
  test("of an effect", async () => {
    const clock = testClock();
    let ended = false;
    const { outcome } = attempt({ policy: { timeoutMs: 60 * day }, run: () => new Promise(() => undefined) }, clock);
    void Promise.resolve(outcome).then(() => {
      ended = true;
    });
    await clock.advance(60 * day - 1);
    expect(ended).toBe(false);
    await clock.advance(1);
    expect(await outcome).toMatchObject({ kind: "uncertain", error: { code: "EFFECT_TIMEOUT" } });
  });

  test("of a node, which holds the process all the while", async () => {
    const clock = testClock();
    const ran = node(() => new Promise(() => undefined), clock, 60 * day);
    await clock.advance(59 * day);
    expect(clock.pending).toEqual([{ at: clock.now() + day, hold: true }]);
    await clock.advance(day);
    expect(await ran).toMatchObject({ error: { code: "NODE_TIMEOUT" } });
  });

  test("is cancelled in whichever part it stands", async () => {
    const clock = testClock();
    const timer = setLongTimer(clock, boom, 60 * day);
    await clock.advance(30 * day);
    timer.cancel();
    expect(clock.pending).toEqual([]);
  });
});
