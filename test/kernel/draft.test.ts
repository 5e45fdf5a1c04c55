import { isDeepStrictEqual } from "node:util";
import fc from "fast-check";
import { describe, expect, test, vi } from "vitest";
import { extractRefs, openDraft } from "../../src/kernel/draft.ts";
import { isError } from "../../src/kernel/errors.ts";
import { getAt, type Json, type JsonObject } from "../../src/kernel/json.ts";
import { applyPatch } from "../../src/kernel/patch.ts";
import { type Ref, resolveRefs } from "../../src/kernel/refs.ts";
import { tried } from "../properties.ts";

// Thousands of runs take about a second; a slow machine may need many.
vi.setConfig({ testTimeout: 60_000 });

type Vars = Record<string, any>;

const throughText = <T>(value: T): T => JSON.parse(JSON.stringify(value));

/** Exact: prototypes, own keys, and 0 apart from -0. */
function expectSame(actual: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(actual, expected)) expect.fail(`${JSON.stringify(actual)} is not ${JSON.stringify(expected)}`);
}

function deepFreeze<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const key of Reflect.ownKeys(value)) deepFreeze((value as Record<PropertyKey, unknown>)[key]);
  }
  return value;
}

function refusal(run: () => unknown): { code: string; path: string; problem?: string } {
  try {
    run();
  } catch (error) {
    if (!isError(error)) throw error;
    return { code: error.code, ...(error.fields as { path: string; problem?: string }) };
  }
  return expect.fail("nothing was refused");
}

/** One step: a node that changes the vars and requests an effect with a payload, up to what the ledger and the fold hold. */
function step(before: JsonObject, node: (vars: Vars, draft: { vars: Vars }) => unknown) {
  const draft = openDraft(deepFreeze(before));
  const payload = node(draft.vars, draft) ?? null;
  const closed = draft.close({ effect: { payload } });
  const extracted = extractRefs(closed.value.effect.payload, closed.places, closed.vars);
  // Through text, as the ledger keeps them.
  const { patch, recorded, refs } = throughText({
    patch: closed.patch,
    recorded: extracted.payload,
    refs: extracted.refs ?? [],
  });
  const after = applyPatch(before, patch);
  expectSame(throughText(closed.vars), after);
  for (const [object, place] of closed.places) expect(getAt(closed.vars, place)).toBe(object);
  return {
    ...closed,
    after,
    recorded,
    refs,
    resolved: resolveRefs(deepFreeze(recorded), refs, deepFreeze(after)),
    sizeBytes: JSON.stringify({ payload: recorded, refs }).length,
  };
}

// --- Random nodes ---------------------------------------------------------------------------------------------------

const hostileKeys = ["~1", "~0", "/", "", "constructor", "toString", "length", "-", "0", "1", "a", "messages", "at", "from"];
const anyKey = fc.constantFrom(...hostileKeys);
const longText = "long ".repeat(300);
const anyLeaf = fc.oneof(
  fc.constantFrom<Json>(null, true, 0, 1, "", "text", longText, `${longText}other`),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => (number === 0 ? 0 : number)),
);
const { json: anyJson } = fc.letrec<{ json: Json; list: Json[]; object: JsonObject }>((tie) => ({
  json: fc.oneof({ maxDepth: 3, depthSize: "small" }, anyLeaf, tie("list"), tie("object")),
  list: fc.array(tie("json"), { maxLength: 4 }),
  object: fc.dictionary(anyKey, tie("json"), { maxKeys: 4, noNullPrototype: true }) as fc.Arbitrary<JsonObject>,
}));
const anyVars = fc
  .record({
    own: fc.dictionary(anyKey, anyJson, { maxKeys: 4, noNullPrototype: true }),
    messages: fc.array(
      fc.record({ role: fc.constantFrom("user", "tool"), parts: fc.array(anyJson, { maxLength: 3 }) }, { noNullPrototype: true }),
      { maxLength: 6 },
    ),
    numbered: fc.dictionary(fc.constantFrom("0", "1", "2"), anyJson, { noNullPrototype: true }),
    text: fc.constantFrom(longText, "short"),
  })
  .map(({ own, ...rest }) => throughText({ ...own, ...rest }) as JsonObject);

interface Choice {
  act: number;
  to: number[];
  from: number[];
  key: string;
  index: number;
  count: number;
  value: Json;
}
const anyChoice: fc.Arbitrary<Choice> = fc.record({
  act: fc.nat(99),
  to: fc.array(fc.nat(9), { maxLength: 3 }),
  from: fc.array(fc.nat(9), { maxLength: 3 }),
  key: anyKey,
  index: fc.nat(9),
  count: fc.nat(3),
  value: anyJson,
});

function walk(root: Vars, choices: readonly number[]): { parent?: Vars; key: string; found: Vars } {
  let here: { parent?: Vars; key: string; found: Vars } = { key: "", found: root };
  for (const choice of choices) {
    const keys = Object.keys(here.found).filter((key) => typeof here.found[key] === "object" && here.found[key] !== null);
    const key = keys[choice % keys.length];
    if (key === undefined) break;
    here = { parent: here.found, key, found: here.found[key] };
  }
  return here;
}

function mutate(root: Vars, { act, to, from, key, index, count, value: json }: Choice): void {
  const { parent, key: name, found } = walk(root, to);
  const other = walk(root, from).found;
  const value = throughText(json) as any;
  const replace = (list: unknown[]) => {
    if (parent) parent[name] = list;
  };
  if (Array.isArray(found)) {
    const acts = [
      () => found.push(value),
      () => found.shift(),
      () => found.pop(),
      () => found.unshift(value),
      () => found.splice(index % (found.length + 1), count, value),
      () => found.splice(index % (found.length + 1), count),
      () => found.reverse(),
      () => found.push(other),
      () => found.push(found.shift() ?? null),
      () => replace([...found, value]),
      () => replace(found.filter((_, i) => i % 2 === 0)),
      () => replace(found.slice(-2)),
      () => replace([value, ...found.toReversed(), other]),
      () =>
        replace(found.map((element, i) => (i === index && typeof element === "object" ? { ...element, changed: 1 } : element))),
    ];
    acts[act % acts.length]?.();
    return;
  }
  const keys = Object.keys(found);
  const member = keys[index % keys.length] ?? "a";
  const acts = [
    () => {
      found[key] = value;
    },
    () => {
      found[member] = value;
    },
    () => {
      delete found[member];
    },
    () => {
      found[key] = other;
    },
    () => {
      // A move.
      const moved = found[member];
      delete found[member];
      found[key] = { moved };
    },
    () => {
      if (parent) parent[name] = { ...found, [key]: value };
    },
    () => {
      const kept = found[member];
      delete found[member];
      found[member] = kept;
    },
  ];
  acts[act % acts.length]?.();
}

/** Builds part of a payload: from what stands in the vars, from plain values, and from other parts. */
function build(root: Vars, choices: readonly Choice[], depth = 0): unknown {
  const choice = choices[depth % choices.length];
  if (!choice || depth >= choices.length) return null;
  const { act, to, key, index, count, value } = choice;
  const { found } = walk(root, to);
  const rest = (more = 1) => build(root, choices, depth + more);
  if (Array.isArray(found)) {
    const lists = [
      () => found,
      () => [...found, throughText(value)],
      () => [throughText(value), ...found],
      () => [...found].reverse(),
      () => found.filter((_, i) => i % 2 === index % 2),
      () => found.slice(index % 3),
      () => found.slice(-count),
      () => [...found, ...found],
      () => [rest(), ...found.slice(1), rest(2), ...found.slice(0, 2)],
      () => found.map((element) => ({ element })),
      () => found.map((element) => (typeof element === "object" && element !== null ? { ...element, extra: rest() } : element)),
    ];
    return lists[act % lists.length]?.();
  }
  const others = [
    () => found,
    () => ({ [key]: found, also: { found, rest: rest() } }),
    () => ({ ...found, [key]: rest() }),
    () => Object.values(found),
    () => [found, found, rest()],
    () => [...Object.values(found), found, ...Object.values(found)],
    () => root,
    () => ({ [key]: root, rest: rest() }),
    () => root.text ?? null,
    () => [longText, root.text ?? null, { [key]: longText }, rest()],
    () => throughText(value),
    () => ({ at: "/messages", from: "/messages", range: [0, 1], refs: [{ at: "", from: "" }], [key]: rest() }),
    () => Object.entries(found).flat(),
  ];
  return others[act % others.length]?.();
}

/** Whether JSON text would keep it: no cycles, nothing undefined in lists. Runs on plain values only. */
function isStorable(value: unknown, above: readonly object[] = []): boolean {
  if (typeof value !== "object" || value === null) return value !== undefined;
  if (above.includes(value)) return false;
  const inside = [...above, value];
  if (Array.isArray(value)) return Array.from(value).every((element) => isStorable(element, inside));
  return Object.values(value).every((member) => member === undefined || isStorable(member, inside));
}

describe("long texts are copied, where they stand until then", () => {
  const long = "what a model answered ".repeat(40);
  const patchOf = (before: JsonObject, node: (vars: Vars) => void) => step(before, node).patch;

  test("from a result into a message, with the result removed", () => {
    const patch = patchOf({ result: { content: long }, messages: [] }, (vars) => {
      vars.messages.push({ role: "assistant", content: vars.result.content });
      delete vars.result;
    });
    expect(patch).toEqual([
      { op: "add", path: "/messages/0", value: { role: "assistant", content: "" } },
      { op: "copy", from: "/result/content", path: "/messages/0/content" },
      { op: "remove", path: "/result" },
    ]);
  });

  test("into a member of the vars, over what stood there", () => {
    const copied = patchOf({ a: long, b: "old" }, (vars) => {
      vars.b = vars.a;
    });
    expect(copied).toEqual([{ op: "copy", from: "/a", path: "/b" }]);
  });

  test("not from what the same patch has changed, not into lists, not when they are short", () => {
    const swapped = patchOf({ a: long, b: `${long}!` }, (vars) => {
      [vars.a, vars.b] = [vars.b, vars.a];
    });
    expect(swapped).toEqual([
      { op: "copy", from: "/b", path: "/a" },
      { op: "replace", path: "/b", value: long },
    ]);
    expect(patchOf({ a: long, list: [] }, (vars) => void vars.list.push(vars.a))).toEqual([
      { op: "add", path: "/list/0", value: long },
    ]);
    const short = patchOf({ a: "short" }, (vars) => {
      vars.b = vars.a;
    });
    expect(short).toEqual([{ op: "add", path: "/b", value: "short" }]);
  });

  test("a patch that copies what is no text is refused", () => {
    for (const from of ["/nothing", "/list", "/__proto__", "/list/length"])
      expect(() => applyPatch({ list: [] }, [{ op: "copy", from, path: "/b" }])).toThrow(RangeError);
    expect(() => applyPatch({ a: long }, [{ op: "copy", from: "/a", path: "/__proto__" }])).toThrow(RangeError);
    expect(() => applyPatch({ a: long, list: [1] }, [{ op: "copy", from: "/a", path: "/list/0" }])).toThrow(RangeError);
  });
});

describe("what a node meant is what is recorded", () => {
  test("for random changes and payloads", () => {
    let refused = 0;
    let referred = 0;
    let ranges = 0;
    fc.assert(
      fc.property(
        anyVars,
        fc.array(anyChoice, { maxLength: 6 }),
        fc.array(anyChoice, { minLength: 1, maxLength: 4 }),
        (before, changes, parts) => {
          const node = (vars: Vars) => {
            for (const choice of changes) mutate(vars, choice);
            return build(vars, parts);
          };
          // The same node on plain objects tells what was meant.
          const model = throughText(before);
          const meant = node(model);
          if (!isStorable(model) || !isStorable(meant)) {
            refused++;
            expect(refusal(() => step(before, node)).code).toBe("NOT_JSON");
            return;
          }
          const { after, resolved, refs } = step(before, node);
          expectSame(after, throughText(model));
          expectSame(resolved, throughText(meant));
          if (refs.length > 0) referred++;
          if (refs.some(({ range }) => range)) ranges++;
        },
      ),
      tried(1_250),
    );
    expect(referred).toBeGreaterThan(500);
    expect(ranges).toBeGreaterThan(50);
    expect(refused).toBeGreaterThan(2);
    expect(refused).toBeLessThan(1_000);
  });

  test("for payloads that look like references, or hold null", () => {
    const list = [{ n: 1 }, { n: 2 }, { n: 3 }];
    const lookalike = { at: "/list", from: "/list", range: [0, 2], $ref: "#/list", refs: [{ at: "", from: "/list" }] };
    const { resolved, refs } = step({ list, lookalike }, (vars) => [null, { ...lookalike }, ...vars.list, null, lookalike]);
    expectSame(resolved, [null, lookalike, ...list, null, lookalike]);
    expect(refs).toEqual([{ at: "/2", from: "/list", range: [0, 3] }]);
  });

  test("for drafts under hostile and numeric-looking keys", () => {
    const lists = {
      "": [{ n: 1 }],
      "~1": { "/": [{ n: 2 }, { n: 3 }] },
      "0": { a: 1 },
      "1": { a: 2 },
      constructor: { length: { x: 1 } },
    };
    const { resolved, refs } = step({ lists } as JsonObject, ({ lists }) => [
      ...lists[""],
      ...lists["~1"]["/"],
      lists[0],
      lists[1],
      lists.constructor,
      lists.constructor.length,
    ]);
    expectSame(resolved, [{ n: 1 }, { n: 2 }, { n: 3 }, { a: 1 }, { a: 2 }, { length: { x: 1 } }, { x: 1 }]);
    expect(refs.map(({ from }) => from)).toEqual([
      "/lists//0",
      "/lists/~01/~1",
      "/lists/0",
      "/lists/1",
      "/lists/constructor",
      "/lists/constructor/length",
    ]);
  });

  test("for the vars as a whole, as the payload and within it", () => {
    expect(step({ a: [1] }, (vars) => vars)).toMatchObject({ refs: [{ at: "", from: "" }], resolved: { a: [1] } });
    const grown = step({ a: [{ n: 1 }] }, (vars) => {
      vars.a.push({ n: 2 });
      return { vars, first: vars.a[0] };
    });
    expect(grown).toMatchObject({
      recorded: { vars: null, first: null },
      resolved: { vars: { a: [{ n: 1 }, { n: 2 }] }, first: { n: 1 } },
    });
  });

  test("for long texts, which are found by what they say", () => {
    const { resolved, refs } = step({ text: longText, "a/b": `${longText}2`, deep: { text: `${longText}3` } }, (vars) => {
      vars.added = `${longText}4`;
      return { same: longText, list: [vars["a/b"], vars.deep.text, `${longText}4`], short: "short" };
    });
    expectSame(resolved, { same: longText, list: [`${longText}2`, `${longText}3`, `${longText}4`], short: "short" });
    expect(refs).toEqual([
      { at: "/same", from: "/text" },
      { at: "/list/0", from: "/a~1b" },
      { at: "/list/2", from: "/added" },
    ]);
  });
});

// --- Size -----------------------------------------------------------------------------------------------------------

describe("a payload made of the vars is recorded by reference", () => {
  const message = (i: number) => ({ role: "user", content: `${i} `.padEnd(2_000, "x") });
  const messages = Array.from({ length: 500 }, (_, i) => message(i));
  const m = message(500);
  const shapes: [string, (vars: Vars) => unknown][] = [
    ["the list", (vars) => vars.messages],
    ["the list in an object", (vars) => ({ model: "m", messages: vars.messages })],
    ["the list and one more", (vars) => [...vars.messages, m]],
    ["a slice of its end", (vars) => vars.messages.slice(-20)],
    ["a system message and the list", (vars) => [{ role: "system", content: "Be brief." }, ...vars.messages]],
    ["a system message, a slice and one more", (vars) => [{ role: "system" }, ...vars.messages.slice(-20), m]],
    [
      "the list after a push",
      (vars) => {
        vars.messages.push({ role: "user" });
        return [...vars.messages];
      },
    ],
    [
      "the list after shift and push",
      (vars) => {
        vars.messages.shift();
        vars.messages.push({ role: "user" });
        return { messages: [{ role: "system" }, ...vars.messages] };
      },
    ],
    [
      "the list after it was replaced by its end",
      (vars) => {
        vars.messages = [...vars.messages.slice(-50), { role: "user" }];
        return { messages: vars.messages };
      },
    ],
    [
      "the list after it was filtered",
      (vars) => {
        vars.messages = vars.messages.filter((_: unknown, i: number) => i % 2 === 0);
        return vars.messages.slice(-20);
      },
    ],
    ["all but one", (vars) => vars.messages.toSpliced(250, 1)],
    ["the list, one element changed for this call", (vars) => vars.messages.with(3, { ...vars.messages[3], content: "cut" })],
    [
      "parts of an element that moved",
      (vars) => {
        vars.messages.unshift({ role: "user" });
        return { one: vars.deep[1].inner, all: vars.deep, last: vars.messages.at(-1) };
      },
    ],
  ];
  test.each(shapes)("%s", (_, node) => {
    const before = { messages, deep: [{ inner: [1] }, { inner: [2] }] };
    const { refs, sizeBytes, resolved } = step(before, node);
    expect(refs.length).toBeGreaterThan(0);
    expect(refs.length).toBeLessThan(4);
    expect(sizeBytes).toBeLessThan(3_000);
    expectSame(resolved, throughText(node(throughText(before))));
  });

  test("many references cost no more than a pass", () => {
    const before = { list: Array.from({ length: 50_000 }, (_, i) => ({ i })), numbered: {} as JsonObject };
    for (let i = 0; i < 20_000; i++) before.numbered[i] = { i };
    const node = (vars: Vars) => [
      vars.list.toReversed(),
      Object.values(vars.numbered),
      vars.list.filter((_: unknown, i: number) => i % 3),
    ];
    const { resolved, refs } = step(before, node);
    expect(refs).toHaveLength(50_000 + 20_000 + 16_667);
    expectSame(resolved, node(before));
  });
});

// --- Plans and drafts -----------------------------------------------------------------------------------------------

describe("a plan", () => {
  test("may be frozen, and is not changed", () => {
    const plan = (vars: Vars) => Object.freeze({ list: Object.freeze([vars.a, Object.freeze({ again: vars.a })]) });
    const { resolved, refs } = step({ a: { x: 1 } }, (vars) => {
      vars.a.x = 2;
      return plan(vars);
    });
    expectSame(resolved, { list: [{ x: 2 }, { again: { x: 2 } }] });
    expect(refs).toHaveLength(2);
  });

  test("may be used again, and hold one object in several places", () => {
    const shared = { tools: [{ name: "search" }] };
    const payload = { shared, also: [shared, shared.tools], list: [] as unknown[] };
    for (const n of [1, 2]) {
      payload.list = [];
      const { resolved } = step({ n, a: [{ n }] }, (vars) => {
        payload.list.push(vars.a[0]);
        return payload;
      });
      expectSame(resolved, { shared, also: [shared, shared.tools], list: [{ n }] });
    }
    expect(payload.shared).toBe(shared);
    expectSame(shared, { tools: [{ name: "search" }] });
  });

  test("may hold a draft across an await", async () => {
    const draft = openDraft(deepFreeze({ list: [{ n: 1 }, { n: 2 }] }));
    const vars = draft.vars as Vars;
    const payload = { list: vars.list, second: vars.list[1] };
    await Promise.resolve();
    vars.list[1].n = 3;
    vars.list.shift();
    const { value, places, vars: after } = draft.close({ payload });
    const { payload: recorded, refs } = extractRefs(value.payload, places, after);
    expect(refs).toEqual([
      { at: "/list", from: "/list" },
      { at: "/second", from: "/list/0" },
    ]);
    expectSame(resolveRefs(recorded, refs ?? [], after), { list: [{ n: 3 }], second: { n: 3 } });
  });

  test("may hold what was moved within the vars, or taken out of them", () => {
    const { resolved, after } = step({ queue: [{ n: 1 }, { n: 2 }], done: [], gone: { n: 3 } }, (vars) => {
      const next = vars.queue.shift();
      vars.done.push(next);
      vars.current = next;
      next.n = 10;
      const { gone } = vars;
      delete vars.gone;
      return { next, gone, done: vars.done, current: vars.current, queue: vars.queue };
    });
    expectSame(after, { queue: [{ n: 2 }], done: [{ n: 10 }], current: { n: 10 } });
    expectSame(resolved, { next: { n: 10 }, gone: { n: 3 }, done: [{ n: 10 }], current: { n: 10 }, queue: [{ n: 2 }] });
  });

  test("may hold drafts in an object without a prototype", () => {
    const { resolved, refs } = step({ a: { x: 1 } }, (vars) => Object.assign(Object.create(null), { a: vars.a }));
    expectSame(resolved, { a: { x: 1 } });
    expect(refs).toHaveLength(1);
  });

  test("that holds no part of the vars has no references", () => {
    const { refs, recorded, places } = step({ a: { x: 1 } }, () => ({ a: { x: 1 } }));
    expectSame({ refs, recorded, places: places.size }, { refs: [], recorded: { a: { x: 1 } }, places: 0 });
  });
});

describe("the vars of a draft", () => {
  test("may be replaced as a whole, frozen too", () => {
    for (const seal of [Object.freeze, (value: Vars) => value]) {
      const { after, patch, resolved, refs } = step({ list: [{ n: 1 }], old: 1 }, (vars, draft) => {
        draft.vars = seal({ list: vars.list, sub: seal({ first: vars.list[0] }) });
        draft.vars.list.push({ n: 2 });
        return draft.vars;
      });
      expectSame(after, { list: [{ n: 1 }, { n: 2 }], sub: { first: { n: 1 } } });
      expectSame(resolved, after);
      expect(patch).toHaveLength(3);
      expect(refs.length).toBeGreaterThan(0);
    }
  });

  test("must stay an object", () => {
    for (const value of [[], null, 1, undefined]) {
      const draft = openDraft({ a: 1 });
      draft.vars = value as never;
      expect(refusal(() => draft.close({}))).toMatchObject({ code: "NOT_JSON", path: "vars" });
    }
  });

  test("give a patch, and what it leads to is the state: a key taken out and put back changes nothing", () => {
    const { patch, vars, after } = step({ a: { x: 1 }, b: 2 }, (vars) => {
      const { a } = vars;
      delete vars.a;
      vars.a = a;
    });
    expect(patch).toEqual([]);
    expect(Object.keys(vars)).toEqual(["b", "a"]);
    expect(Object.keys(after)).toEqual(["a", "b"]);
  });

  test("are not changed through objects that the node keeps", () => {
    const kept = { list: [1] };
    const before = { a: { x: 1 } };
    const { after, patch } = step(before, (vars) => {
      vars.kept = kept;
      return kept;
    });
    kept.list.push(2);
    expectSame(after, { a: { x: 1 }, kept: { list: [1] } });
    expectSame(applyPatch(before, patch), after);
    expectSame(before, { a: { x: 1 } });
  });
});

// --- Refusals -------------------------------------------------------------------------------------------------------

/** A draft as a node would keep it beyond its step. */
function endedDraft(): unknown {
  const draft = openDraft({ a: { x: 1 } });
  const kept = draft.vars.a;
  draft.close({});
  return kept;
}

describe("what cannot be recorded is refused with its path", () => {
  const list = [{ n: 1 }, { n: 2 }, { n: 3 }];

  test("a cycle in a payload", () => {
    const cycle: Vars = { beside: [{ big: longText }] };
    cycle.inner = [{ cycle }, { cycle }];
    const message = { code: "NOT_JSON", problem: "it contains itself" };
    expect(refusal(() => step({ list }, () => cycle))).toMatchObject({ ...message, path: "payload/inner/0/cycle" });
    expect(refusal(() => step({ list }, (vars) => ({ vars, cycle })))).toMatchObject({
      ...message,
      path: "payload/cycle/inner/0/cycle",
    });
    const wide: unknown[] = Array.from({ length: 100_000 }, (_, i) => ({ i }));
    wide.push(wide);
    expect(refusal(() => step({ list }, (vars) => [...vars.list, wide]))).toMatchObject({ ...message, path: "payload/3/100000" });
  });

  test("the vars within themselves", () => {
    const inVars = (vars: Vars) => {
      vars.self = { vars };
    };
    expect(refusal(() => step({ list }, inVars))).toMatchObject({ code: "NOT_JSON", path: "vars/self/vars" });
  });

  test("what is behind a range is named as in the payload", () => {
    for (const [bad, problem] of [
      [new Date(0), /Date/],
      [undefined, /undefined/],
      [() => 1, /function/],
      [Number.NaN, /NaN/],
    ] as const) {
      const { path, problem: said } = refusal(() => step({ list }, (vars) => ({ messages: [...vars.list, { a: [bad] }] })));
      expect(path).toBe("payload/messages/3/a/0");
      expect(said).toMatch(problem);
    }
  });

  test("what is nested too deep", () => {
    const nested = (levels: number): Json => {
      let value: Json = 1;
      for (let i = 0; i < levels; i++) value = [value];
      return value;
    };
    for (const levels of [201, 5_000, 200_000]) {
      for (const node of [
        () => nested(levels),
        (vars: Vars) => [vars.list, nested(levels)],
        (vars: Vars) => {
          vars.deep = nested(levels);
        },
        (vars: Vars) => {
          vars.deep = [vars.list, nested(levels)];
        },
      ]) {
        expect(refusal(() => step({ list }, node)).code).toBe("JSON_TOO_DEEP");
      }
    }
    // A draft at the last level that is allowed.
    const { resolved } = step({ list }, (vars) => {
      let value: unknown = vars.list[0];
      for (let i = 0; i < 199; i++) value = [value];
      return value;
    });
    expect(JSON.stringify(resolved)).toContain('{"n":1}');
  });

  test('an own "__proto__"', () => {
    const hostile = JSON.parse('{"a":{"__proto__":{"polluted":true}}}');
    const expected = { code: "NOT_JSON", problem: expect.stringContaining("__proto__") };
    expect(refusal(() => step({ list }, () => hostile))).toMatchObject({ ...expected, path: "payload/a/__proto__" });
    expect(refusal(() => step({ list }, (vars) => [...vars.list, hostile]))).toMatchObject({
      ...expected,
      path: "payload/3/a/__proto__",
    });
    const inVars = (vars: Vars) => {
      vars.x = { hostile, list: vars.list };
    };
    expect(refusal(() => step({ list }, inVars))).toMatchObject({ ...expected, path: "vars/x/hostile/a/__proto__" });
    expect((Object.prototype as Vars).polluted).toBeUndefined();
  });

  test("members named by symbols, class instances", () => {
    for (const bad of [{ [Symbol("s")]: 1, n: 1 }, new (class Order {})()]) {
      for (const node of [() => ({ bad }), (vars: Vars) => ({ bad, list: vars.list })]) {
        expect(refusal(() => step({ list }, node))).toMatchObject({ code: "NOT_JSON", path: "payload/bad" });
      }
    }
  });

  test("a list that is one long hole", () => {
    const hole: unknown[] = [];
    hole[1_000_000_000] = 1;
    expect(refusal(() => step({ list }, () => ({ hole })))).toMatchObject({ code: "NOT_JSON", path: "payload/hole/0" });
    expect(refusal(() => step({ list }, (vars) => [vars.list, hole]))).toMatchObject({ code: "NOT_JSON", path: "payload/1/0" });
  });

  test("a draft kept from an earlier step", () => {
    const ended = { code: "NOT_JSON", problem: expect.stringMatching(/draft of the vars that has ended/) };
    expect(refusal(() => step({ list }, () => ({ a: [endedDraft()] })))).toMatchObject({
      ...ended,
      path: "plan/effect/payload/a/0",
    });
    expect(refusal(() => step({ list }, (vars) => ({ list: vars.list, a: endedDraft() })))).toMatchObject({
      ...ended,
      path: "plan/effect/payload/a",
    });
    const within = (vars: Vars) => {
      vars.list[1].x = { kept: [endedDraft()] };
    };
    expect(refusal(() => step({ list }, within))).toMatchObject({ ...ended, path: "vars/list/1/x/kept/0" });
    const whole = (vars: Vars, draft: { vars: Vars }) => {
      draft.vars = { ...vars, kept: endedDraft() };
    };
    expect(refusal(() => step({ list }, whole))).toMatchObject({ ...ended, path: "vars/kept" });
  });

  test("a draft in a frozen part of the vars, which mutative does not look into", () => {
    const frozen = (vars: Vars) => {
      vars.copy = Object.freeze([vars.list[0]]);
    };
    const { path, problem } = refusal(() => step({ list }, frozen));
    expect(path).toBe("vars/copy/0");
    expect(problem).toMatch(/frozen/);
  });

  test("a getter that throws", () => {
    const thrower = {
      get a() {
        throw new TypeError("not today");
      },
    };
    const unreadable = { code: "NOT_JSON", problem: "it cannot be read: not today" };
    expect(refusal(() => step({ list }, () => ({ thrower })))).toMatchObject({
      ...unreadable,
      path: "plan/effect/payload/thrower",
    });
    const within = (vars: Vars) => {
      vars.x = [{ thrower }];
    };
    expect(refusal(() => step({ list }, within))).toMatchObject({ ...unreadable, path: "vars/x/0/thrower" });
    const behind = (vars: Vars) => {
      vars.x = { thrower, list: vars.list };
    };
    expect(refusal(() => step({ list }, behind))).toMatchObject({ ...unreadable, path: "vars/x/thrower" });
  });
});

describe("a damaged reference is refused", () => {
  const vars = { list: [{ n: 1 }, { n: 2 }], text: "text", object: { a: [1] } };
  const payload = { a: null, list: [null, { b: null }, 3], leaf: "x" };
  test.each<[string, Ref[]]>([
    ["leads nowhere in the vars", [{ at: "/a", from: "/none" }]],
    ["leads to what is inherited", [{ at: "/a", from: "/constructor" }]],
    ["leads to a prototype", [{ at: "/a", from: "/__proto__" }]],
    ["leads behind the end of a list", [{ at: "/a", from: "/list/2" }]],
    ["is no pointer", [{ at: "/a", from: "list" }]],
    ["stands at what is no pointer", [{ at: "a", from: "/list" }]],
    ["stands where nothing is", [{ at: "/none", from: "/list" }]],
    ["stands at what is inherited", [{ at: "/toString", from: "/list" }]],
    ["stands at a prototype", [{ at: "/__proto__", from: "/object" }]],
    ["stands within a prototype", [{ at: "/__proto__/polluted", from: "/object" }]],
    ["stands behind the end of a list", [{ at: "/list/3", from: "/text" }]],
    ["stands at a list's length", [{ at: "/list/length", from: "/text" }]],
    ["stands at another spelling of an index", [{ at: "/list/00", from: "/text" }]],
    ["stands at no index", [{ at: "/list/-", from: "/text" }]],
    ["stands within a leaf", [{ at: "/leaf/0", from: "/text" }]],
    [
      "stands where another one does",
      [
        { at: "/a", from: "/text" },
        { at: "/a", from: "/list" },
      ],
    ],
    [
      "stands within another one",
      [
        { at: "/a", from: "/object" },
        { at: "/a/b", from: "/list" },
      ],
    ],
    ["has a range that ends too late", [{ at: "/list/0", from: "/list", range: [0, 3] }]],
    ["has a range that starts too early", [{ at: "/list/0", from: "/list", range: [-1, 1] }]],
    ["has a range that ends before it starts", [{ at: "/list/0", from: "/list", range: [2, 1] }]],
    ["has a range between elements", [{ at: "/list/0", from: "/list", range: [0, 1.5] }]],
    ["has a range of what is no list", [{ at: "/list/0", from: "/text", range: [0, 1] }]],
    ["has a range outside a list", [{ at: "/a", from: "/list", range: [0, 1] }]],
    ["has a range for the whole", [{ at: "", from: "/list", range: [0, 1] }]],
  ])("when it %s", (_, refs) => {
    expect(() => resolveRefs(deepFreeze(payload), refs, deepFreeze(vars))).toThrow(RangeError);
    expect((Object.prototype as Vars).polluted).toBeUndefined();
  });

  test("and a sound one shares what it fills in", () => {
    const refs: Ref[] = [
      { at: "/a", from: "/object" },
      { at: "/list/0", from: "/list", range: [0, 2] },
      { at: "/list/1/b", from: "/text" },
    ];
    const resolved = resolveRefs(deepFreeze(payload), refs, deepFreeze(vars)) as Vars;
    expectSame(resolved, { a: { a: [1] }, list: [{ n: 1 }, { n: 2 }, { b: "text" }, 3], leaf: "x" });
    expect(resolved.a).toBe(vars.object);
    expect(resolveRefs(payload, [], vars)).toBe(payload);
    expect(resolveRefs([null], [{ at: "/0", from: "/list", range: [1, 1] }], vars)).toEqual([]);
  });
});
