// What the compiler knows of groups, children, undo and versions. Every `@ts-expect-error` fails the type check when its error goes away.
import { describe, expect, expectTypeOf, test } from "vitest";
import { z } from "zod";
import { defineEffect } from "../../src/kernel/effect.ts";
import { all } from "../../src/kernel/group-plans.ts";
import { complete, type ShownError } from "../../src/kernel/plan.ts";
import { fanOut, join, subworkflow } from "../../src/kernel/child-plans.ts";
import { askUser } from "../../src/kernel/wait-plans.ts";
import { defineWorkflow, type } from "../../src/kernel/workflow.ts";

interface Receipt {
  id: string;
  cents: number;
}
const refund = defineEffect("refund", {
  input: type<{ payload: { cents: number }; result: Receipt }>(),
  run: async ({ result }) => result.id,
});
const charge = defineEffect("charge", {
  input: z.object({ cents: z.number() }),
  run: async ({ cents }) => ({ id: "r", cents }),
  undo: refund,
});
const child = defineWorkflow({
  id: "child",
  vars: type<{ n: number }>(),
  entry: "a",
  nodes: { a: ({ vars }) => complete({ doubled: vars.n * 2 }) },
});

describe("fanOut and join", () => {
  test("items are the child's vars, and results fit the vars they are written to", () => {
    const flow = defineWorkflow({
      id: "fan",
      vars: type<{ list?: { subRunId: string; output: { doubled: number } }[] }>(),
      entry: "a",
      nodes: {
        a: () => fanOut(child, { items: [{ n: 1 }] }, { resultKey: "list", nextNode: "b" }),
        b: ({ vars }) => complete(vars.list?.length ?? 0),
      },
    });
    expectTypeOf(flow).not.toBeAny();
    // @ts-expect-error an item is no { n: number }
    fanOut(child, { items: [{ m: 1 }] });
    defineWorkflow({
      id: "fan",
      vars: type<{ list?: string[] }>(),
      entry: "a",
      nodes: {
        // @ts-expect-error the results are no texts
        a: () => fanOut(child, { items: [] }, { resultKey: "list", nextNode: "b" }),
        b: () => complete(),
      },
    });
  });

  test("with collect, the results say how each child ended", () => {
    defineWorkflow({
      id: "fan",
      vars: type<{
        list?: (
          | { status: "completed"; subRunId: string; output: { doubled: number } }
          | { status: "failed" | "cancelled"; subRunId: string | null; error: ShownError }
        )[];
      }>(),
      entry: "a",
      nodes: {
        a: () => fanOut(child, { items: [{ n: 1 }], onFailure: "collect" }, { resultKey: "list", nextNode: "b" }),
        b: () => complete(),
      },
    });
    // @ts-expect-error there is no such way to fail
    expect(() => fanOut(child, { items: [], onFailure: "ignore" })).toThrow(/onFailure is "fail" or "collect"/);
    // @ts-expect-error a misspelt option
    expect(() => fanOut(child, { items: [], concurency: 2 })).toThrow(/Did you mean "concurrency"/);
    expect(() => fanOut(child, { items: 5 as never })).toThrow(/needs items/);
    expect(() => join("")).toThrow(/join\(\) needs the id/);
  });
});

describe("all with collect", () => {
  test("each result says how its member ended", () => {
    defineWorkflow({
      id: "w",
      vars: type<{
        got?: [
          { status: "completed"; result: Receipt } | { status: "failed"; error: ShownError },
          { status: "completed"; result: { text: string } } | { status: "failed"; error: ShownError },
        ];
      }>(),
      entry: "a",
      effects: [charge],
      nodes: {
        a: () => all([charge({ cents: 1 }), askUser({ prompt: "?" })], { onFailure: "collect", resultKey: "got", nextNode: "b" }),
        b: () => complete(),
      },
    });
    // A member of another group is made without nextNode, and may still collect.
    all([all([charge({ cents: 1 })], { onFailure: "collect" })], { nextNode: "b" });
  });
});

describe("undo", () => {
  test("is given what was done", () => {
    defineEffect("reserve", {
      input: type<{ sku: string }>(),
      run: async ({ sku }) => ({ reservation: sku }),
      undo: ({ payload, result }) => {
        expectTypeOf(payload).toEqualTypeOf<{ sku: string }>();
        expectTypeOf(result).toEqualTypeOf<{ reservation: string }>();
        return charge({ cents: 1 });
      },
    });
    defineEffect("wrong", {
      input: type<{ sku: string }>(),
      run: async ({ sku }) => ({ reservation: sku }),
      // @ts-expect-error refund undoes a charge
      undo: refund,
    });
    expect(() => defineEffect("bad", { run: () => 1, undo: 5 as never })).toThrow(/undo is an effect/);
  });

  test("comes along with the effect that it undoes", () => {
    const flow = defineWorkflow({ id: "w", entry: "a", effects: [charge], nodes: { a: () => complete() } });
    expect([...flow.effects.keys()]).toEqual(["charge", "refund"]);
  });
});

describe("onCancel and migrations", () => {
  test("name nodes that exist, and lead to the present version", () => {
    const nodes = { a: () => complete(), bye: () => complete() };
    defineWorkflow({ id: "w", entry: "a", onCancel: "bye", nodes });
    expect(() =>
      defineWorkflow({
        id: "w",
        entry: "a",
        // @ts-expect-error there is no such node
        onCancel: "byes",
        nodes: { a: () => complete(), bye: () => complete() },
      }),
    ).toThrow('Did you mean "bye"');
    const at3 = (migrations: any) => () => defineWorkflow({ id: "w", version: 3, entry: "a", nodes, migrations });
    at3({ 1: (vars: any) => vars, 2: { nodes: { old: "a" } } })();
    expect(at3({ 1: (vars: any) => vars })).toThrow("ends at version 2, not at 3");
    expect(at3({ 3: (vars: any) => vars })).toThrow("leaves the present version");
    expect(at3({ 2: { nodes: { old: "byes" } } })).toThrow('Did you mean "bye"');
    expect(at3({ x: (vars: any) => vars })).toThrow("does not say where to");
    at3({ x: { to: 3 } })();
    expect(at3({ 2: 5 })).toThrow("neither a function nor");
  });
});

test("a subworkflow may stand in a queue", () => {
  expect(subworkflow(child, { vars: { n: 1 }, queue: "mail", priority: 5 })).toMatchObject({
    type: "start_subworkflow",
    payload: { queue: "mail", priority: 5 },
  });
});
