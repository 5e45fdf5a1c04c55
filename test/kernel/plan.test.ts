// What builders make, what readPlan takes and refuses, and what definitions are refused at run time.
import { create } from "mutative";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { defineEffect, definite, type EffectDefinition, isDefinite, isRetryable, permanent } from "../../src/kernel/effect.ts";
import { isWaitRequest, wait } from "../../src/kernel/wait-request.ts";
import { all, any } from "../../src/kernel/group-plans.ts";
import { complete, fail, goto } from "../../src/kernel/plan.ts";
import { subworkflow } from "../../src/kernel/child-plans.ts";
import { askUser, sleep, waitEvent, waitUntil } from "../../src/kernel/wait-plans.ts";
import { readPlan } from "../../src/kernel/read-plan.ts";
import { defaultPolicy } from "../../src/kernel/policy.ts";
import { defineWorkflow, node, type } from "../../src/kernel/workflow.ts";

/** The code and message of what `call` throws. */
function refusal(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return `${(error as { code: string }).code} ${(error as Error).message}`;
  }
  return "nothing was refused";
}
const end = () => complete();
/** For what the compiler refuses. */
const loosely = (value: unknown) => value as any;

describe("builders make plain data", () => {
  test("goto, complete and fail", () => {
    expect(goto("b")).toEqual({ nextNode: "b" });
    expect(complete()).toEqual({ completeOutput: {} });
    expect(complete({ done: true })).toEqual({ completeOutput: { done: true } });
    expect(complete(0)).toEqual({ completeOutput: 0 });
    expect(fail("no")).toEqual({ failure: { message: "no" } });
    expect(fail({ message: "no", code: "DECLINED", details: { why: 1 } })).toEqual({
      failure: { message: "no", code: "DECLINED", details: { why: 1 } },
    });
    expect(refusal(() => fail(loosely({ message: "no", detail: 1 })))).toContain('Did you mean "details"?');
  });

  test("a builder gives a request without options, a plan with them", () => {
    expect(askUser({ prompt: "?" })).toEqual({ type: "ask_user", payload: { prompt: "?" } });
    expect(askUser({ prompt: "?" }, { nextNode: "b" })).toEqual({
      effect: { type: "ask_user", payload: { prompt: "?" } },
      nextNode: "b",
    });
    expect(
      askUser(
        { prompt: "?", choices: ["a"], waitKey: "k", timeoutMs: 5, details: { x: 1 } },
        { resultKey: "r", nextNode: "b", errorNode: "c", timeoutNode: "d" },
      ),
    ).toEqual({
      effect: {
        type: "ask_user",
        payload: { prompt: "?", choices: ["a"], waitKey: "k", timeoutMs: 5, details: { x: 1 } },
        resultKey: "r",
      },
      nextNode: "b",
      errorNode: "c",
      timeoutNode: "d",
    });
    expect(refusal(() => askUser({ prompt: "?" }, { nextNode: "b", timeoutNode: "c" }))).toContain("no timeoutMs");
    expect(refusal(() => askUser({ prompt: "?", timeoutMs: -1 }))).toContain("INVALID_OPTION");
    expect(refusal(() => askUser(loosely({ prompt: "?", choice: [] })))).toContain('Did you mean "choices"?');
  });

  test("a schema becomes JSON Schema where it can", () => {
    const schema = z.object({ age: z.number() });
    const { payload } = askUser({ prompt: "?", schema });
    expect(payload).toMatchObject({ schema: { type: "object", properties: { age: { type: "number" } }, required: ["age"] } });
    expect(JSON.parse(JSON.stringify(payload))).toEqual(payload);
    expect(askUser({ prompt: "?", schema: { type: "object" } }).payload).toEqual({ prompt: "?", schema: { type: "object" } });
    expect(askUser({ prompt: "?", schema: type<{ age: number }>() }).payload).toEqual({ prompt: "?" });
    expect(askUser({ prompt: "?", schema: z.string().transform(Number) }).payload).toEqual({ prompt: "?" });
    expect(refusal(() => askUser({ prompt: "?", schema: loosely("object") }))).toContain("INVALID_OPTION");
    expect(refusal(() => askUser({ prompt: "?", schema: { when: new Date(0) } }))).toContain("NOT_JSON");
  });

  test("waitEvent", () => {
    expect(waitEvent("paid")).toEqual({ type: "wait_event", payload: { waitKey: "paid" } });
    expect(waitEvent({ key: "paid", timeoutMs: 5, details: 1 }, { nextNode: "b", timeoutNode: "c" })).toEqual({
      effect: { type: "wait_event", payload: { waitKey: "paid", timeoutMs: 5, details: 1 } },
      nextNode: "b",
      timeoutNode: "c",
    });
    expect(refusal(() => waitEvent(""))).toContain("INVALID_OPTION");
  });

  test("a moment becomes ISO text in UTC, or is refused", () => {
    const until = (moment: Date | string | number) => (waitUntil(moment).payload as { until: string }).until;
    expect(until("2030-02-28")).toBe("2030-02-28T00:00:00.000Z");
    expect(until("2030-01-01T12:00:00+02:00")).toBe("2030-01-01T10:00:00.000Z");
    expect(until("2025-12-13T19:40:52.123456+00:00")).toBe("2025-12-13T19:40:52.123Z");
    expect(until(0)).toBe("1970-01-01T00:00:00.000Z");
    expect(until(new Date(5))).toBe("1970-01-01T00:00:00.005Z");
    expect(until("2028-02-29")).toBe("2028-02-29T00:00:00.000Z");
    for (const bad of ["tomorrow", "2", "2030-02-30", "2030-13-01", "2030-01-01T25:00Z", Number.NaN, new Date("x"), 1e16, null]) {
      expect(refusal(() => waitUntil(loosely(bad)))).toContain("INVALID_OPTION");
    }
    expect(refusal(() => waitUntil("2030-01-01T12:00"))).toContain("no time zone");
  });

  test("sleep adds units up", () => {
    expect(sleep(5)).toEqual({ type: "wait_until", payload: { delayMs: 5 } });
    expect(sleep({ days: 1, hours: 1, minutes: 1, seconds: 1, ms: 1 }).payload).toEqual({ delayMs: 90_061_001 });
    for (const bad of [-1, Number.NaN, Number.POSITIVE_INFINITY, { hours: -1 }, "5"]) {
      expect(refusal(() => sleep(loosely(bad)))).toContain("INVALID_OPTION");
    }
    expect(refusal(() => sleep(loosely({ hour: 1 })))).toContain('Did you mean "hours"?');
  });

  test("subworkflow", () => {
    const child = defineWorkflow({ id: "child", vars: type<{ n: number }>(), entry: "a", nodes: { a: end } });
    expect(subworkflow(child, { vars: { n: 1 } })).toEqual({
      type: "start_subworkflow",
      payload: { workflowId: "child", vars: { n: 1 } },
    });
    expect(subworkflow("child", { detached: true, timeoutMs: 5 }, { nextNode: "b" })).toEqual({
      effect: { type: "start_subworkflow", payload: { workflowId: "child", vars: {}, async: true, timeoutMs: 5 } },
      nextNode: "b",
    });
    expect(refusal(() => subworkflow(loosely({}), {}))).toContain("INVALID_OPTION");
  });

  test("all and any take requests, also of each other", () => {
    const members = [askUser({ prompt: "?" }), all([sleep(1)])] as const;
    const effects = [
      { type: "ask_user", payload: { prompt: "?" } },
      { type: "all", payload: { effects: [{ type: "wait_until", payload: { delayMs: 1 } }] } },
    ];
    expect(all(members)).toEqual({ type: "all", payload: { effects } });
    expect(any(members, { resultKey: "r", nextNode: "b" })).toEqual({
      effect: { type: "any", payload: { effects }, resultKey: "r" },
      nextNode: "b",
    });
    expect(all([])).toEqual({ type: "all", payload: { effects: [] } });
    expect(refusal(() => any([]))).toContain("wait for ever");
    expect(refusal(() => all([loosely(askUser({ prompt: "?" }, { nextNode: "b" }))]))).toContain("without options");
    expect(refusal(() => all([{ type: "x", resultKey: "r" }]))).toContain('"resultKey"');
    expect(refusal(() => all(loosely("x")))).toContain("a list");
  });

  test("payloads are the objects given: they may be drafts", () => {
    const [draft, finalise] = create({ messages: [{ text: "a" }] });
    const ask = defineEffect("llm", { run: () => 1 });
    const plan = readPlan(ask(draft.messages, { nextNode: "b" }), "a");
    expect(plan.effect?.payload).toBe(draft.messages);
    draft.messages.push({ text: "b" });
    expect(plan.effect?.payload).toHaveLength(2);
    finalise();
  });
});

describe("readPlan", () => {
  const read = (value: unknown) => readPlan(value, "here");
  const problem = (value: unknown) => refusal(() => read(value));

  test("gives a plan back in one spelling", () => {
    const effect = { type: "x", payload: { a: 1 }, resultKey: "r" };
    expect(read(goto("b"))).toEqual({ nextNode: "b" });
    expect(read({ effect, nextNode: "b", errorNode: "c", timeoutNode: "d", nodeId: "e" })).toEqual({
      effect,
      nextNode: "b",
      errorNode: "c",
      timeoutNode: "d",
      nodeId: "e",
    });
    expect(read({ effect: { type: "x" }, nextNode: "b" }).effect).toEqual({ type: "x", payload: {} });
    expect(read({ effect: { type: "x", payload: null }, nextNode: "b" }).effect).toEqual({ type: "x", payload: null });
    expect(
      read({ node_id: "n", effect: { type: "x", payload: {}, result_key: "r" }, next_node: "b", complete_output: null }),
    ).toEqual({ nodeId: "n", effect: { type: "x", payload: {}, resultKey: "r" }, nextNode: "b" });
    expect(read({ failure: { message: "no", details: null } })).toEqual({ failure: { message: "no" } });
  });

  test("changes and freezes nothing", () => {
    const given = Object.freeze({ effect: Object.freeze({ type: "x", payload: {} }), nextNode: "b", completeOutput: undefined });
    read(given);
    const plain = { effect: { type: "x", payload: {} }, nextNode: "b" };
    read(plain);
    expect(Object.isFrozen(plain) || Object.isFrozen(plain.effect)).toBe(false);
  });

  test("every output but null completes, and wins over an effect", () => {
    for (const output of [{}, [], "", 0, false, { a: 1 }])
      expect(read({ completeOutput: output })).toEqual({ completeOutput: output });
    expect(read({ completeOutput: {}, effect: { type: "x" }, nextNode: "b", nodeId: "n" })).toEqual({
      nodeId: "n",
      completeOutput: {},
    });
    expect(problem(complete(null as never))).toContain("completeOutput is null");
  });

  test("refuses what is no plan, saying what to do", () => {
    expect(problem(undefined)).toContain(
      'PLAN_INVALID PLAN_INVALID: node "here" returned a plan that cannot be carried out: it is undefined',
    );
    for (const odd of [null, 4, "b", [], () => 1]) expect(problem(odd)).toContain("PLAN_INVALID");
    expect(problem({})).toContain("neither where to go");
    expect(problem(askUser({ prompt: "?" }))).toContain("an effect alone");
    expect(problem(wait({ reason: "job" }))).toContain("for effect handlers");
    expect(problem({ nextnode: "b" })).toContain('Did you mean "nextNode"?');
    expect(problem({ effect: { type: "x", resultkey: "r" }, nextNode: "b" })).toContain(
      '"effect.resultkey" is not part of a plan',
    );
    expect(problem({ nextNode: "b", next_node: "c" })).toContain("two spellings");
    expect(problem({ nextNode: 4 })).toContain("nextNode is a number, not text");
    expect(problem({ nextNode: "" })).toContain("nextNode is empty");
    expect(problem({ effect: { type: "x" } })).toContain('effect "x" has no nextNode');
    expect(problem({ effect: {}, nextNode: "b" })).toContain("no type");
    expect(problem({ effect: "x", nextNode: "b" })).toContain("PLAN_INVALID");
    expect(problem({ nextNode: "b", errorNode: "c" })).toContain("errorNode belongs to an effect");
    expect(problem({ failure: { message: "no" }, nextNode: "b" })).toContain("fails the run and also");
    expect(problem({ failure: { message: "no" }, completeOutput: {} })).toContain("both completes and fails");
    expect(problem({ failure: {} })).toContain("no message");
    expect(problem({ failure: "no" })).toContain("PLAN_INVALID");
    expect(problem({ effect: { type: "x", resultKey: "a.__proto__.b" }, nextNode: "b" })).toContain("RESULT_KEY_INVALID");
    // A result that is a mere id would become a reference of which no record tells.
    for (const resultKey of ["$artifact", "a.$artifact"])
      expect(problem({ effect: { type: "x", resultKey }, nextNode: "b" })).toContain("RESULT_KEY_INVALID");
    expect(problem({ effect: { type: "x", resultKey: "a.x$artifact" }, nextNode: "b" })).not.toContain("RESULT_KEY_INVALID");
    expect(problem({ effect: { type: "x", resultKey: "" }, nextNode: "b" })).toContain("effect.resultKey is empty");
    expect(problem(JSON.parse('{"__proto__": 1, "nextNode": "b"}'))).toContain('"__proto__" is not part of a plan');
  });
});

describe("defineEffect", () => {
  const run = () => 1;

  test("keeps the definition, with defaults", () => {
    const refund = defineEffect("refund", { run });
    const input = z.object({ n: z.number() });
    const charge = defineEffect("charge", {
      input,
      policy: { maxAttempts: 5 },
      onUncertain: "ask",
      run,
      title: "Charge",
    });
    expect(charge.effectType).toBe("charge");
    expect(charge.definition).toEqual({
      type: "charge",
      input,
      output: undefined,
      policy: { ...defaultPolicy, maxAttempts: 5 },
      onUncertain: "ask",
      speculative: false,
      transactional: false,
      keepsShape: false,
      run,
      title: "Charge",
    } satisfies EffectDefinition);
    expect(refund.definition).toMatchObject({ onUncertain: "retry", speculative: false, policy: defaultPolicy });
    expect(charge({ n: 1 })).toEqual({ type: "charge", payload: { n: 1 } });
    expect(charge({ n: 1 }, { nextNode: "b", timeoutNode: "c" })).toEqual({
      effect: { type: "charge", payload: { n: 1 } },
      nextNode: "b",
      timeoutNode: "c",
    });
    expect(refund(undefined)).toEqual({ type: "refund", payload: {} });
    const { definition } = defineEffect("book", { transactional: true, policy: { maxAttempts: 9 }, run });
    expect(definition).toMatchObject({ transactional: true, policy: { maxAttempts: 9, timeoutMs: 10_000 } });
    expect(() => Object.assign(charge, { effectType: "other" })).toThrow(TypeError);
  });

  test("refuses what it does not know", () => {
    const define = (definition: object, name: unknown = "x") =>
      refusal(() => defineEffect(name as string, definition as { run: () => 1 }));
    expect(define({ run }, "")).toContain("INVALID_OPTION");
    expect(define({ run }, "all")).toContain("built in");
    expect(define({})).toContain("run function");
    expect(define({ run, retries: 3 })).toContain('Unknown option "retries"');
    expect(define({ run, timeoutMs: 3 })).toContain('Unknown option "timeoutMs"');
    expect(define({ run, polcy: {} })).toContain('Did you mean "policy"?');
    expect(define({ run, onUncertain: "retyr" })).toContain('Did you mean "retry"?');
    expect(define({ run, transactional: "yes" })).toContain("transactional is true or false");
    expect(define({ run, transactional: true, speculative: true })).toContain("transactional or speculative, not both");
    expect(define({ run, transactional: true, onUncertain: "ask" })).toContain("is never uncertain");
    expect(define({ run, input: { type: "object" } })).toContain("input is a Standard Schema");
    expect(define({ run, speculative: 1 })).toContain("true, false, or a function");
    for (const policy of [
      { maxAttempts: 0 },
      { maxAttempts: 1.5 },
      { backoff: { factor: 0.5 } },
      { backoff: { jitter: 2 } },
      { timeoutMs: -1 },
    ]) {
      expect(define({ run, policy })).toContain("INVALID_OPTION");
    }
  });

  test("wait makes data that is known by its brand", () => {
    const request = wait({ reason: "user", prompt: "?", schema: z.string(), timeoutMs: 5 });
    expect(isWaitRequest(request)).toBe(true);
    expect(request).toMatchObject({ reason: "user", prompt: "?", schema: { type: "string" }, timeoutMs: 5 });
    expect(wait({ reason: "until", until: "2030-01-01" }).until).toBe("2030-01-01T00:00:00.000Z");
    for (const other of [null, undefined, 1, {}, { reason: "user" }, JSON.parse(JSON.stringify(request))]) {
      expect(isWaitRequest(other)).toBe(false);
    }
    expect(refusal(() => wait({ reason: "until" }))).toContain("needs the moment");
    expect(refusal(() => wait({ reason: "job", until: 5 }))).toContain("timeoutMs");
    expect(refusal(() => wait({ reason: "jop" as "job" }))).toContain('Did you mean "job"?');
    expect(refusal(() => wait(loosely({ reason: "job", waitkey: "k" })))).toContain('Did you mean "waitKey"?');
  });

  test("errors are marked definite and permanent", () => {
    const error = new RangeError("declined");
    expect([isDefinite(error), isRetryable(error)]).toEqual([false, true]);
    expect(definite(error)).toBe(error);
    expect([isDefinite(error), isRetryable(error)]).toEqual([true, true]);
    expect(permanent(error)).toBe(error);
    expect([isDefinite(error), isRetryable(error)]).toEqual([true, false]);
    const frozen = Object.freeze(new Error("frozen"));
    expect(isDefinite(definite(frozen))).toBe(true);
    expect(definite(frozen).cause).toBe(frozen);
    expect(permanent("text").message).toBe("text");
    class Declined extends Error {
      retryable = false;
      definite = true;
    }
    expect([isDefinite(new Declined()), isRetryable(new Declined())]).toEqual([true, false]);
    const hostile = {
      get definite() {
        throw new Error("hostile");
      },
    };
    expect([isDefinite(hostile), isDefinite(null), isRetryable(undefined)]).toEqual([false, false, true]);
  });
});

describe("defineWorkflow", () => {
  const define = (definition: object) =>
    refusal(() => defineWorkflow({ id: "w", entry: "a", nodes: { a: end }, ...definition } as never));

  test("gives maps, edges and defaults", () => {
    const charge = defineEffect("charge", { run: () => 1 });
    const run = () => goto("b");
    const w = defineWorkflow({
      id: "w",
      version: 2,
      title: "W",
      vars: type<{ n: number }>(),
      entry: "a",
      nodes: {
        a: { to: ["b", "b"], run, title: "A", timeoutMs: 5 },
        b: node(type<{ n: number }>(), { to: ["a", "b"], run }),
        c: end,
      },
      effects: [charge, charge],
    });
    expect([w.id, w.version, w.title, w.entry]).toEqual(["w", 2, "W", "a"]);
    expect(w.nodes.get("a")).toEqual({ run, to: ["b"], title: "A", timeoutMs: 5 });
    expect(w.nodes.get("c")?.run).toBe(end);
    expect(w.edges()).toEqual([
      { from: "a", to: "b" },
      { from: "b", to: "a" },
      { from: "b", to: "b" },
    ]);
    expect(w.effects.get("charge")).toBe(charge.definition);
    expect(w.varsSchema?.["~standard"].vendor).toBe("abstractruntime");
    const small = defineWorkflow({ id: "w", entry: "constructor", nodes: { constructor: end } });
    expect([small.version, small.edges(), small.effects.size, small.varsSchema]).toEqual([1, [], 0, undefined]);
  });

  test("refuses what cannot work, naming the nearest", () => {
    expect(define({ id: "" })).toContain("WORKFLOW_INVALID");
    expect(define({ id: "x".repeat(201) })).toContain("200 characters");
    expect(define({ entry: "publsh", nodes: { publish: end } })).toContain('Did you mean "publish"?');
    expect(define({ entry: "constructor" })).toContain('"constructor" is not a node');
    expect(define({ node: {} })).toContain(
      'INVALID_OPTION INVALID_OPTION: Unknown option "node" in defineWorkflow(). Did you mean "nodes"?',
    );
    expect(define({ nodes: {} })).toContain("no nodes");
    expect(define({ nodes: undefined })).toContain("WORKFLOW_INVALID");
    expect(define({ nodes: { a: end, "": end } })).toContain("WORKFLOW_INVALID");
    expect(define({ nodes: { a: 4 } })).toContain('node "a" is neither a function nor');
    expect(define({ nodes: { a: {} } })).toContain("no run function");
    expect(define({ nodes: { a: { run: end, timeout: 4 } } })).toContain('Did you mean "timeoutMs"?');
    expect(define({ nodes: { a: { run: end, timeoutMs: 0 } } })).toContain("timeoutMs");
    expect(define({ nodes: { a: { run: end, to: "a" } } })).toContain("list of node names");
    expect(define({ nodes: { a: { run: end, to: ["publsh"] }, publish: end } })).toContain('Did you mean "publish"?');
    expect(define({ nodes: { a: defineEffect("x", { run: end }) } })).toContain("effect");
    expect(define({ effects: [end] })).toContain("effects[0] was not made by defineEffect");
    expect(define({ effects: {} })).toContain("a list");
    expect(define({ effects: [defineEffect("x", { run: end }), defineEffect("x", { run: end })] })).toContain(
      'two definitions of "x"',
    );
    expect(define({ vars: { type: "object" } })).toContain("Standard Schema");
    expect(define({ version: 0 })).toContain("version");
    expect(refusal(() => defineWorkflow(undefined as never))).toContain("INVALID_OPTION");
  });

  test("type<T>() lets every value pass", () => {
    expect(type<string>()["~standard"].validate(4)).toEqual({ value: 4 });
  });
});
