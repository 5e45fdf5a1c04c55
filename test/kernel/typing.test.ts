// What the compiler refuses and infers. Every `@ts-expect-error` fails the type check when its error goes away.
import type { StandardSchemaV1 } from "@standard-schema/spec";
import { describe, expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { defineEffect, definite, type EffectContext, permanent } from "../../src/kernel/effect.ts";
import { type WaitRequest, wait } from "../../src/kernel/wait-request.ts";
import type { Json } from "../../src/kernel/json.ts";
import { all, any } from "../../src/kernel/group-plans.ts";
import { complete, fail, goto, type StepPlan } from "../../src/kernel/plan.ts";
import { subworkflow } from "../../src/kernel/child-plans.ts";
import { askUser, sleep, waitEvent, waitUntil } from "../../src/kernel/wait-plans.ts";
import type { EffectRequest, Plan, Write } from "../../src/kernel/typing.ts";
import { defineWorkflow, type NodeContext, node, type, type Workflow } from "../../src/kernel/workflow.ts";

interface Receipt {
  receiptId: string;
  cents: number;
}
interface OrderVars {
  topic: string;
  count: number;
  answer?: { text: string };
  order?: { receipt?: Receipt; lines: { sku: string }[] };
  receipts?: Receipt[];
  byName?: Record<string, { text: string }>;
}
const Vars = type<OrderVars>();

const charge = defineEffect("charge", {
  input: z.object({ cents: z.number().int() }),
  run: async ({ cents }, ctx) => ({ receiptId: ctx.idempotencyKey, cents }),
});
const refund = defineEffect("refund", { input: z.object({ receiptId: z.string() }), run: async () => {} });
const done = () => complete();

/** The vars, output and input of a workflow. */
type Parts<W> = W extends Workflow<infer V, infer O, infer I> ? { vars: V; output: O; input: I } : never;
const parts = <W>(_: W): Parts<W> => ({}) as Parts<W>;

describe("nodes", () => {
  test("an unknown entry does not compile", () => {
    expect(() =>
      defineWorkflow({
        id: "w",
        // @ts-expect-error "aks" is not a node
        entry: "aks",
        nodes: { ask: done },
      }),
    ).toThrow('"ask"');
  });

  test("an unknown node does not compile, wherever a plan names it", () => {
    defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      nodes: {
        // @ts-expect-error no node 'typo'
        a: () => goto("typo"),
        // @ts-expect-error no node 'typo'
        b: () => askUser({ prompt: "?" }, { nextNode: "typo" }),
        // @ts-expect-error no node 'typo'
        c: () => askUser({ prompt: "?" }, { nextNode: "a", errorNode: "typo" }),
        // @ts-expect-error no node 'typo'
        d: () => askUser({ prompt: "?", timeoutMs: 5 }, { nextNode: "a", timeoutNode: "typo" }),
        // @ts-expect-error no node 'typo'
        e: ({ vars }) => (vars.count > 1 ? goto("a") : goto("typo")),
        // @ts-expect-error no node 'typo'
        f: async ({ vars }) => {
          if (vars.count > 1) return goto("typo");
          return complete();
        },
        g: {
          // @ts-expect-error no node 'typo'
          run: () => goto("typo"),
        },
        // @ts-expect-error no node 'typo'
        h: () => sleep({ hours: 1 }, { nextNode: "typo" }),
        // @ts-expect-error no node 'typo'
        i: () => all([askUser({ prompt: "?" })], { nextNode: "typo" }),
      },
    });
  });

  test("`to` names nodes and narrows what the node returns", () => {
    const graph = defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      nodes: {
        a: { to: ["b", "c"], title: "First", timeoutMs: 5, run: ({ vars }) => (vars.count > 1 ? goto("b") : goto("c")) },
        // @ts-expect-error 'c' is not in the 'to' of this node
        b: { to: ["a"], run: () => goto("c") },
        // @ts-expect-error 'a' is not in the 'to' of this node
        c: { to: ["b"], run: () => askUser({ prompt: "?" }, { nextNode: "b", errorNode: "a" }) },
        d: { to: [], run: () => complete({ at: "d" }) },
      },
    });
    expect(graph.edges()).toContainEqual({ from: "a", to: "c" });
    expect(() =>
      defineWorkflow({
        id: "w",
        entry: "a",
        nodes: {
          a: {
            // @ts-expect-error no node 'x'
            to: ["a", "x"],
            run: () => goto("a"),
          },
        },
      }),
    ).toThrow("WORKFLOW_INVALID");
    expect(() =>
      defineWorkflow({
        id: "w",
        entry: "a",
        nodes: {
          a: {
            run: () => goto("a"),
            // @ts-expect-error a node has no 'timeout'
            timeout: 5,
          },
        },
      }),
    ).toThrow('"timeoutMs"');
  });

  test("vars are typed, and may be changed, in every form of node", () => {
    defineWorkflow({
      id: "w",
      vars: z.object({ n: z.number(), list: z.array(z.string()).optional() }),
      entry: "a",
      nodes: {
        a: ({ vars }) => {
          expectTypeOf(vars).toEqualTypeOf<{ n: number; list?: string[] | undefined }>();
          vars.n += 1;
          vars.list = ["x"];
          return goto("b");
        },
        b: {
          to: ["c"],
          run: async (run) => {
            expectTypeOf(run.vars.n).toEqualTypeOf<number>();
            expectTypeOf(run.now).toEqualTypeOf<number>();
            run.vars = { n: 1 };
            return goto("c");
          },
        },
        c: ({ vars }) => {
          // @ts-expect-error n is a number
          vars.n = "1";
          // @ts-expect-error there is no m
          vars.m = 1;
          return complete();
        },
      },
    });
  });

  test("a node returns a plan", () => {
    const defineOdd = () =>
      defineWorkflow({
        id: "w",
        vars: Vars,
        entry: "a",
        nodes: {
          // @ts-expect-error a number is no plan
          a: () => 4,
          // @ts-expect-error an effect without a next node is no plan
          b: () => askUser({ prompt: "?" }),
          // @ts-expect-error nothing is no plan
          c: () => {},
        },
      });
    expect(defineOdd).not.toThrow();
  });

  test("nodes in other files are checked in full", () => {
    const decide = node(Vars, ({ vars }) => {
      expectTypeOf(vars).toEqualTypeOf<OrderVars>();
      return vars.count > 1 ? goto("publish") : complete({ published: false });
    });
    const publish = node(Vars, { to: ["decide"], run: async ({ vars }) => complete({ published: true, topic: vars.topic }) });
    const annotated = ({ vars }: NodeContext<OrderVars>) => complete({ count: vars.count });
    const whole = defineWorkflow({ id: "w", vars: Vars, entry: "decide", nodes: { decide, publish, annotated } });
    expectTypeOf(parts(whole).output).toEqualTypeOf<
      { readonly published: false } | { readonly published: true; readonly topic: string } | { readonly count: number }
    >();
    // @ts-expect-error no node 'publish'
    defineWorkflow({ id: "w", vars: Vars, entry: "decide", nodes: { decide } });
    // @ts-expect-error the node is for other vars
    defineWorkflow({ id: "w", vars: type<{ other: string }>(), entry: "annotated", nodes: { annotated } });
    // @ts-expect-error a node returns a plan
    node(Vars, () => 4);
    // @ts-expect-error there is no vars.nope
    node(Vars, ({ vars }) => goto(vars.nope));
  });
});

describe("results", () => {
  const Question = { prompt: "?" };

  test("a result key that is not in the vars does not compile", () => {
    defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      effects: [charge],
      nodes: {
        a: () => askUser(Question, { resultKey: "answer", nextNode: "a" }),
        b: () => charge({ cents: 5 }, { resultKey: "order.receipt", nextNode: "a" }),
        c: () => askUser(Question, { resultKey: "byName.ada", nextNode: "a" }),
        // @ts-expect-error 'nope' is not in the vars
        d: () => askUser(Question, { resultKey: "nope", nextNode: "a" }),
        // @ts-expect-error 'order.nope' is not in the vars
        e: () => charge({ cents: 5 }, { resultKey: "order.nope", nextNode: "a" }),
        // @ts-expect-error result keys cannot name elements of lists
        f: () => charge({ cents: 5 }, { resultKey: "receipts.0", nextNode: "a" }),
        // @ts-expect-error a text has no members to write
        g: () => sleep(1, { resultKey: "topic.length", nextNode: "a" }),
        h: ({ vars }) => askUser(Question, { resultKey: vars.topic, nextNode: "a" }),
        i: ({ vars }) => askUser(Question, { resultKey: `byName.${vars.topic}`, nextNode: "a" }),
        // @ts-expect-error one of the two does not fit
        j: ({ vars }) => askUser(Question, { resultKey: vars.count ? "answer" : "count", nextNode: "a" }),
      },
    });
  });

  test("a result that does not fit the vars does not compile", () => {
    defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      effects: [charge],
      nodes: {
        // @ts-expect-error an answer is not a number
        a: () => askUser(Question, { resultKey: "count", nextNode: "a" }),
        // @ts-expect-error an answer is not a receipt
        b: () => askUser(Question, { resultKey: "order.receipt", nextNode: "a" }),
        // @ts-expect-error one branch does not fit
        c: async ({ vars }) => {
          if (vars.count) return complete();
          return charge({ cents: 5 }, { resultKey: "answer", nextNode: "a" });
        },
        // @ts-expect-error the order has lines
        d: () => charge({ cents: 5 }, { resultKey: "order", nextNode: "a" }),
      },
    });
  });

  test("without a schema everything is allowed", () => {
    const loose = defineWorkflow({
      id: "w",
      entry: "a",
      effects: [charge],
      nodes: {
        a: ({ vars }) => charge({ cents: vars.anything.at.all }, { resultKey: "a.b.c", nextNode: "b" }),
        b: (run) => complete({ x: run.vars.a.b as number }),
      },
    });
    expectTypeOf(parts(loose)).toEqualTypeOf<{
      vars: Record<string, any>;
      output: { readonly x: number };
      input: Record<string, any>;
    }>();
  });

  test("answers have the type of the question", () => {
    expectTypeOf(askUser({ prompt: "?" })).toEqualTypeOf<EffectRequest<"ask_user", { text: string }>>();
    expectTypeOf(askUser({ prompt: "?", choices: ["yes", "no"] })).toEqualTypeOf<
      EffectRequest<"ask_user", { text: "yes" | "no" }>
    >();
    expectTypeOf(askUser({ prompt: "?", choices: ["yes", "no"], allowFreeText: true })).toEqualTypeOf<
      EffectRequest<"ask_user", { text: string }>
    >();
    expectTypeOf(askUser({ prompt: "?", choices: [] as string[] })).toEqualTypeOf<EffectRequest<"ask_user", { text: string }>>();
    expectTypeOf(askUser({ prompt: "?", schema: z.object({ age: z.number() }) })).toEqualTypeOf<
      EffectRequest<"ask_user", { age: number }>
    >();
    expectTypeOf(askUser({ prompt: "?", schema: { type: "object" } })).toEqualTypeOf<EffectRequest<"ask_user", any>>();
    expectTypeOf(
      askUser({ prompt: "?", choices: ["yes"] }, { resultKey: "answer.x", nextNode: "b", errorNode: "c" }),
    ).toEqualTypeOf<Plan<"b" | "c", Write<"answer.x", { text: "yes" }>, "ask_user">>();
    expectTypeOf(waitEvent("paid")).toEqualTypeOf<EffectRequest<"wait_event", any>>();
    expectTypeOf(waitEvent({ key: "paid", schema: type<Receipt>() })).toEqualTypeOf<EffectRequest<"wait_event", Receipt>>();
    expectTypeOf(waitUntil("2030-01-01")).toEqualTypeOf<EffectRequest<"wait_until", { until: string; ready: true }>>();
    // @ts-expect-error the prompt is missing
    expect(() => askUser({ choices: ["yes"] })).toThrow("INVALID_OPTION");
    // @ts-expect-error resultkey is misspelt
    expect(() => askUser({ prompt: "?" }, { resultkey: "answer", nextNode: "a" })).toThrow('"resultKey"');
    // @ts-expect-error nextNode is missing
    askUser({ prompt: "?" }, { resultKey: "answer" });
    // @ts-expect-error a moment has no deadline
    expect(() => sleep(5, { nextNode: "a", timeoutNode: "b" })).toThrow("INVALID_OPTION");
  });

  test("an event without a schema fits any member; with one it is checked", () => {
    defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      nodes: {
        a: () => waitEvent("paid", { resultKey: "order.receipt", nextNode: "a" }),
        b: () => waitEvent({ key: "paid", schema: type<Receipt>() }, { resultKey: "order.receipt", nextNode: "a" }),
        // @ts-expect-error a receipt is not a number
        c: () => waitEvent({ key: "paid", schema: type<Receipt>() }, { resultKey: "count", nextNode: "a" }),
      },
    });
  });

  test("all gives a tuple, any gives the first with its index", () => {
    const both = all([charge({ cents: 5 }), askUser({ prompt: "?" })]);
    expectTypeOf(both).toEqualTypeOf<EffectRequest<"all" | "charge" | "ask_user", [Receipt, { text: string }]>>();
    const list = all([1, 2].map((cents) => charge({ cents })));
    expectTypeOf(list).toEqualTypeOf<EffectRequest<"all" | "charge", Receipt[]>>();
    const first = any([charge({ cents: 5 }), all([sleep(5)])]);
    expectTypeOf(first).toEqualTypeOf<
      EffectRequest<
        "any" | "charge" | "all" | "wait_until",
        { index: 0; result: Receipt } | { index: 1; result: [{ until: string; ready: true }] }
      >
    >();
    expectTypeOf(any([1, 2].map((cents) => charge({ cents })))).toEqualTypeOf<
      EffectRequest<"any" | "charge", { index: number; result: Receipt }>
    >();
    expectTypeOf(all([{ type: "x", payload: {} }])).toEqualTypeOf<EffectRequest<"all", [any]>>();
    // @ts-expect-error a member is called without options
    expect(() => all([charge({ cents: 5 }, { nextNode: "a" })])).toThrow("INVALID_OPTION");
    defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      effects: [charge],
      nodes: {
        a: ({ vars }) => all(vars.order?.lines.map(() => charge({ cents: 1 })) ?? [], { resultKey: "receipts", nextNode: "b" }),
        // @ts-expect-error a list of answers is not a list of receipts
        b: () => all([askUser({ prompt: "?" })], { resultKey: "receipts", nextNode: "a" }),
        c: () => any([charge({ cents: 5 }), sleep({ days: 1 })], { nextNode: "a" }),
      },
    });
  });
});

describe("effects", () => {
  test("an effect that the workflow does not declare does not compile", () => {
    defineWorkflow({
      id: "w",
      entry: "a",
      effects: [refund],
      nodes: {
        // @ts-expect-error 'charge' is not in the effects
        a: () => charge({ cents: 5 }, { nextNode: "b" }),
        // @ts-expect-error 'charge' is not in the effects
        b: () => all([charge({ cents: 5 }), refund({ receiptId: "r" })], { nextNode: "a" }),
        c: () => refund({ receiptId: "r" }, { nextNode: "d" }),
        d: () => ({ effect: { type: "charge", payload: { cents: 5 } }, nextNode: "a" }),
      },
    });
    // @ts-expect-error 'charge' is not in the effects, which are none
    defineWorkflow({ id: "w", entry: "a", nodes: { a: () => charge({ cents: 5 }, { nextNode: "a" }) } });
  });

  test("payloads are checked, before parsing", () => {
    // @ts-expect-error cents is a number
    charge({ cents: "5" });
    // @ts-expect-error there is no cent
    charge({ cent: 5 }, { nextNode: "a" });
    const defaulted = defineEffect("defaulted", {
      input: z.object({ n: z.number().default(1), when: z.coerce.date() }),
      run: ({ n, when }) => {
        expectTypeOf(n).toEqualTypeOf<number>();
        expectTypeOf(when).toEqualTypeOf<Date>();
        return when.toISOString();
      },
    });
    expectTypeOf(defaulted({ when: "2030-01-01" })).toEqualTypeOf<EffectRequest<"defaulted", string>>();
  });

  test("without schemas, payload and result come from run", () => {
    const typed = defineEffect("typed", { run: (input: { n: number }, ctx) => [input.n, ctx.attempt] });
    expectTypeOf(typed({ n: 1 })).toEqualTypeOf<EffectRequest<"typed", number[]>>();
    // @ts-expect-error n is missing
    typed({});
    const bare = defineEffect("bare", {
      run: async (input, ctx) => {
        expectTypeOf(input).toEqualTypeOf<unknown>();
        expectTypeOf(ctx).toEqualTypeOf<EffectContext>();
      },
    });
    expectTypeOf(bare({})).toEqualTypeOf<EffectRequest<"bare", null>>();
  });

  test("an output schema says what the result is, and holds run to it", () => {
    const job = defineEffect("job", {
      output: z.object({ state: z.enum(["ok", "bad"]), note: z.string().default("") }),
      run: async () => ({ state: "ok" as const }),
    });
    expectTypeOf(job({})).toEqualTypeOf<EffectRequest<"job", { state: "ok" | "bad"; note: string }>>();
    const waits = defineEffect("waits", { output: type<Receipt>(), run: async () => wait({ reason: "job", waitKey: "k" }) });
    expectTypeOf(waits({})).toEqualTypeOf<EffectRequest<"waits", Receipt>>();
    // @ts-expect-error `fine` is not one of the states
    defineEffect("wrong", { output: z.object({ state: z.enum(["ok", "bad"]) }), run: async () => ({ state: "fine" }) });
  });

  test("a handler that waits gives what it waits for", () => {
    expectTypeOf(wait({ reason: "user", choices: ["a", "b"] })).toEqualTypeOf<WaitRequest<{ text: "a" | "b" }>>();
    expectTypeOf(wait({ reason: "job" })).toEqualTypeOf<WaitRequest<any>>();
    expectTypeOf(wait({ reason: "job", schema: z.object({ n: z.number() }) })).toEqualTypeOf<WaitRequest<{ n: number }>>();
    const sometimes = defineEffect("sometimes", {
      run: async (input: { now: boolean }) =>
        input.now ? { n: 1 } : wait({ reason: "event", schema: type<{ later: string }>() }),
    });
    expectTypeOf(sometimes({ now: true })).toEqualTypeOf<EffectRequest<"sometimes", { n: number } | { later: string }>>();
    const job = defineEffect("job", { run: () => wait({ reason: "job" }) });
    expectTypeOf(job({})).toEqualTypeOf<EffectRequest<"job", any>>();
  });

  test("what is not JSON does not compile", () => {
    // @ts-expect-error result.at is a Date
    defineEffect("a", { run: async () => ({ at: new Date(0) }) });
    // @ts-expect-error result is a Map
    defineEffect("b", { run: () => new Map() });
    // @ts-expect-error payload.m is a bigint
    defineEffect("c", { input: z.object({ m: z.bigint() }), run: () => 1 });
    // @ts-expect-error result.m is a bigint
    defineEffect("d", { output: z.object({ m: z.bigint() }), run: () => ({ m: 1n }) });
    interface Tree {
      name: string;
      children?: Tree[];
    }
    const tree = defineEffect("tree", { run: async (): Promise<Tree | undefined> => ({ name: "root" }) });
    expectTypeOf(tree({})).toEqualTypeOf<EffectRequest<"tree", Tree | null>>();
  });

  test("options are checked", () => {
    defineEffect("a", { policy: { maxAttempts: 2, backoff: { initialMs: 5 } }, onUncertain: "ask", run: () => 1 });
    // @ts-expect-error maxAttempt is misspelt
    expect(() => defineEffect("a", { policy: { maxAttempt: 2 }, run: () => 1 })).toThrow('"maxAttempts"');
    // @ts-expect-error "repeat" is not a choice
    expect(() => defineEffect("a", { onUncertain: "repeat", run: () => 1 })).toThrow("INVALID_OPTION");
    expectTypeOf(definite(new RangeError("x"))).toEqualTypeOf<RangeError>();
    expectTypeOf(permanent("x")).toEqualTypeOf<Error>();
  });
});

describe("vars", () => {
  test("vars that are not JSON do not compile", () => {
    const nodes = { a: done };
    // @ts-expect-error vars.at is a Date
    defineWorkflow({ id: "w", vars: z.object({ at: z.date() }), entry: "a", nodes });
    // @ts-expect-error vars.deep.list[].f is a function
    defineWorkflow({ id: "w", vars: type<{ deep: { list?: { f(): void }[] } }>(), entry: "a", nodes });
    // @ts-expect-error vars.m is a Map
    defineWorkflow({ id: "w", vars: z.object({ m: z.map(z.string(), z.string()).optional() }), entry: "a", nodes });
    // @ts-expect-error vars.n is a bigint
    defineWorkflow({ id: "w", vars: type<{ n: bigint | string }>(), entry: "a", nodes });
    // @ts-expect-error vars.list[] may be undefined
    defineWorkflow({ id: "w", vars: type<{ list: (string | undefined)[] }>(), entry: "a", nodes });
    defineWorkflow({
      id: "w",
      vars: type<{ anything: unknown; list: unknown[]; tree: Tree; json: z.core.util.JSONType }>(),
      entry: "a",
      nodes,
    });
    defineWorkflow({ id: "w", vars: z.object({ j: z.json(), at: z.iso.datetime() }), entry: "a", nodes });
  });

  interface Tree {
    value?: number;
    left?: Tree;
    right?: Tree;
  }

  test("input and output of the schema are kept apart", () => {
    const w = defineWorkflow({ id: "w", vars: z.object({ n: z.number().default(1) }), entry: "a", nodes: { a: done } });
    expectTypeOf(parts(w).vars).toEqualTypeOf<{ n: number }>();
    expectTypeOf(parts(w).input).toEqualTypeOf<{ n?: number | undefined }>();
    expectTypeOf(type<OrderVars>()).toEqualTypeOf<StandardSchemaV1<OrderVars, OrderVars>>();
  });
});

describe("output", () => {
  test("it is the union of what the nodes complete with", () => {
    const w = defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      nodes: {
        a: ({ vars }) => (vars.count ? goto("b") : complete({ published: false })),
        b: async ({ vars }) => {
          if (vars.answer) return fail("no");
          if (vars.order) return complete("short");
          return complete({ published: true, topic: vars.topic });
        },
        c: { run: () => complete() },
        d: () => ({ completeOutput: { plain: 1 } }),
        e: () => askUser({ prompt: "?" }, { nextNode: "a" }),
      },
    });
    expectTypeOf(parts(w).output).toEqualTypeOf<
      | { readonly published: false }
      | { readonly published: true; readonly topic: string }
      | "short"
      | Record<never, never>
      | { plain: number }
    >();
  });

  test("it is JSON, and not null", () => {
    // @ts-expect-error output.at is a Date
    complete({ at: new Date(0) });
    // @ts-expect-error null would not complete the run
    complete(null);
    // What a tool gave, and other unions, complete it.
    const given = "text" as Json;
    complete(given);
    complete(given ?? "nothing");
    const either = { a: 1 } as string | { a: number } | undefined;
    expectTypeOf(complete(either)).toEqualTypeOf<Plan<never, never, never, string | { a: number } | Record<never, never>>>();
    complete(undefined);
    complete([1, "a", null]);
  });
});

describe("child workflows", () => {
  const child = defineWorkflow({
    id: "child",
    vars: z.object({ cents: z.number(), note: z.string().default("") }),
    entry: "a",
    nodes: { a: ({ vars }) => complete({ doubled: vars.cents * 2, list: ["a"] }) },
  });

  test("vars and output are those of the child", () => {
    expectTypeOf(subworkflow(child, { vars: { cents: 1 } })).toEqualTypeOf<
      EffectRequest<
        "start_subworkflow",
        { subRunId: string; output: { readonly doubled: number; readonly list: readonly ["a"] } }
      >
    >();
    expectTypeOf(subworkflow(child, { vars: { cents: 1 }, detached: true })).toEqualTypeOf<
      EffectRequest<"start_subworkflow", { subRunId: string; async: true }>
    >();
    // @ts-expect-error cents is a number
    subworkflow(child, { vars: { cents: "1" } });
    // @ts-expect-error vars are needed
    subworkflow(child, {});
    expectTypeOf(subworkflow("child", { vars: { whatever: 1 } })).toEqualTypeOf<
      EffectRequest<"start_subworkflow", { subRunId: string; output: any }>
    >();
    defineWorkflow({
      id: "parent",
      vars: type<{ made?: { subRunId: string; output: { doubled: number; list: string[] } }; n?: number }>(),
      entry: "a",
      nodes: {
        a: () => subworkflow(child, { vars: { cents: 1 } }, { resultKey: "made", nextNode: "a" }),
        // @ts-expect-error the child's result is not a number
        b: () => subworkflow(child, { vars: { cents: 1 } }, { resultKey: "n", nextNode: "a" }),
      },
    });
  });

  test("a workflow that starts itself is declared with its type", () => {
    type FactorialVars = { n: number; sub?: { subRunId: string; output: { value: number } } };
    const factorial: Workflow<FactorialVars, { value: number }> = defineWorkflow({
      id: "factorial",
      vars: type<FactorialVars>(),
      entry: "start",
      nodes: {
        start: ({ vars }) =>
          vars.n <= 1
            ? complete({ value: 1 })
            : subworkflow(factorial, { vars: { n: vars.n - 1 } }, { resultKey: "sub", nextNode: "end" }),
        end: ({ vars }) => complete({ value: vars.n * (vars.sub?.output.value ?? 1) }),
      },
    });
    expectTypeOf(parts(factorial).output).toEqualTypeOf<{ value: number }>();
    // @ts-expect-error the output is not what was declared
    const wrong: Workflow<{ n: number }, { value: string }> = defineWorkflow({
      id: "wrong",
      vars: type<{ n: number }>(),
      entry: "a",
      nodes: { a: () => complete({ value: 1 }) },
    });
    expect([factorial.id, wrong.id]).toEqual(["factorial", "wrong"]);
  });
});

describe("plans as plain objects", () => {
  test("they compile; names are checked where their type is known", () => {
    const given = (): StepPlan => ({ nextNode: "anywhere" });
    const w = defineWorkflow({
      id: "w",
      vars: Vars,
      entry: "a",
      nodes: {
        a: () => ({ nextNode: "b" }),
        b: () => ({ effect: { type: "ask_user", payload: {} }, nextNode: "c" }),
        c: () => ({ completeOutput: {} }),
        d: () => ({ nextNode: "typo" }),
        // @ts-expect-error no node 'typo'
        e: () => ({ nextNode: "typo" }) as const,
        f: ({ vars }) => (vars.count ? { nextNode: "a" } : complete({ done: true })),
        // @ts-expect-error no node 'typo'
        g: ({ vars }) => (vars.count ? { nextNode: "a" } : goto("typo")),
        h: () => ({ effect: { type: "ask_user", payload: {}, resultKey: "x" }, nextNode: "decide", errorNode: "a" }),
        i: { to: ["a"], run: () => ({ nextNode: "a" }) },
        j: () => ({ failure: { message: "no" } }),
      },
    });
    expect(w.nodes.size).toBe(10);
    const widened = defineWorkflow({ id: "w", entry: "a", nodes: { a: given } });
    expectTypeOf(parts(widened).output).toEqualTypeOf<unknown>();
  });
});

test("a workflow of any type is a Workflow", () => {
  const every: Workflow[] = [defineWorkflow({ id: "w", vars: Vars, entry: "a", nodes: { a: done } })];
  expect(every[0]?.entry).toBe("a");
});
