import { isDeepStrictEqual } from "node:util";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { create } from "mutative";
import { describe, expect, test, vi } from "vitest";
import { isError } from "../../src/kernel/errors.ts";
import {
  cloneJson,
  equalJson,
  escapeKey,
  getAt,
  type Json,
  type JsonObject,
  parsePointer,
  parseJson,
  toJson,
} from "../../src/kernel/json.ts";
import { applyPatch, diff, type Patch, setAt } from "../../src/kernel/patch.ts";
import { tried } from "../properties.ts";

// Thousands of runs take about a second; a slow machine may need many.
vi.setConfig({ testTimeout: 60_000 });

// --- Material -------------------------------------------------------------------------------------------------------

const hostileKeys = [
  "constructor",
  "length",
  "-",
  "~1",
  "~0",
  "/",
  "",
  "0",
  "toString",
  "hasOwnProperty",
  "prototype",
  "a/b~c",
  "a",
  "b",
];
const anyText = fc.oneof(
  fc.string(),
  // Every UTF-16 unit, so lone surrogates, \u0000 and U+2028 too.
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 4 }).map((units) => String.fromCharCode(...units)),
  fc.constantFrom("\ud800", "\udfff", "\u0000", "\u2028\u2029", "__proto__"),
);
const anyKey = fc
  .oneof({ weight: 4, arbitrary: fc.constantFrom(...hostileKeys) }, { weight: 1, arbitrary: anyText })
  .filter((key) => key !== "__proto__");
const { json: anyJson, object: anyObject } = fc.letrec<{ json: Json; leaf: Json; list: Json[]; object: JsonObject }>((tie) => ({
  json: fc.oneof({ maxDepth: 4, depthSize: "small" }, tie("leaf"), tie("list"), tie("object")),
  leaf: fc.oneof(
    fc.constantFrom<Json>(null, true, false, 0, 1),
    fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => (number === 0 ? 0 : number)),
    anyText,
  ),
  list: fc.array(tie("json"), { maxLength: 5 }),
  object: fc.dictionary(anyKey, tie("json"), { maxKeys: 5, noNullPrototype: true }) as fc.Arbitrary<JsonObject>,
}));

const throughText = <T>(value: T): T => parseJson(JSON.stringify(value)) as T;

/** Exact: prototypes, own keys, and 0 apart from -0, which vitest's toEqual does not compare for keys such as `constructor`. */
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

/** Every container in `value`, as often as it stands there. */
function containers(value: unknown): object[] {
  return typeof value === "object" && value !== null ? [value, ...Object.values(value).flatMap(containers)] : [];
}

/** What may be stored, told once more in other words. */
function isStorable(value: unknown, above: readonly object[] = []): boolean {
  if (value === null || typeof value === "string" || typeof value === "boolean") return true;
  if (typeof value === "number") return Number.isFinite(value);
  if (typeof value !== "object" || above.includes(value)) return false;
  const inside = [...above, value];
  if (Array.isArray(value)) return Array.from(value).every((element) => isStorable(element, inside));
  return Object.values(value).every((member) => member === undefined || isStorable(member, inside));
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

// --- Random programs on a draft -------------------------------------------------------------------------------------

type Container = Record<string, any>;
interface Step {
  act: number;
  /** Leads to the container that is changed, and to another one, which is moved or aliased into it. */
  to: number[];
  from: number[];
  key: string;
  index: number;
  count: number;
  value: Json;
}

const anyStep: fc.Arbitrary<Step> = fc.record({
  act: fc.nat(99),
  to: fc.array(fc.nat(9), { maxLength: 4 }),
  from: fc.array(fc.nat(9), { maxLength: 4 }),
  key: anyKey,
  index: fc.nat(9),
  count: fc.nat(3),
  value: anyJson,
});
const anyProgram = fc.array(anyStep, { maxLength: 10 });

function walk(root: Container, choices: readonly number[]): { parent?: Container; key: string; container: Container } {
  let found: { parent?: Container; key: string; container: Container } = { key: "", container: root };
  for (const choice of choices) {
    const keys = Object.keys(found.container).filter(
      (key) => typeof found.container[key] === "object" && found.container[key] !== null,
    );
    const key = keys[choice % keys.length];
    if (key === undefined) break;
    found = { parent: found.container, key, container: found.container[key] };
  }
  return found;
}

function run(root: Container, step: Step): void {
  const { parent, key, container } = walk(root, step.to);
  const other = walk(root, step.from);
  const value = throughText(step.value);
  const kindOf = (element: unknown) => `${typeof element}${typeof element === "number" ? element : ""}`;
  const byKind = (a: unknown, b: unknown) => (kindOf(a) < kindOf(b) ? -1 : kindOf(a) > kindOf(b) ? 1 : 0);
  if (Array.isArray(container)) {
    const at = container.length === 0 ? 0 : step.index % container.length;
    const acts: (() => unknown)[] = [
      () => container.push(value),
      () => container.push(value, other.container),
      () => container.pop(),
      () => container.shift(),
      () => container.unshift(value),
      () => container.splice(at, step.count, value),
      () => container.splice(at, step.count),
      () => container.sort(byKind),
      () => container.reverse(),
      () => container.splice(at, 1, other.container),
      () => {
        if (container.length > 0) container[at] = container[container.length - 1];
      },
      () => {
        if (container.length > 0) container[at] = value;
      },
      () => container.push(container.shift() ?? null),
      () => {
        container.length = at;
      },
      () => {
        if (parent) parent[key] = [...container, value];
      },
      () => {
        if (parent) parent[key] = container.filter((_, i) => i !== at);
      },
      () => {
        if (parent) parent[key] = [...container.slice(at), { kept: container[at] ?? null }];
      },
      () => {
        if (container.length > 0 && isStorable(container[at])) container[at] = throughText(container[at]);
      },
      () => {
        if (step.count === 0) container[container.length + (step.index % 2)] = undefined;
      },
    ];
    acts[step.act % acts.length]?.();
    return;
  }
  const members = Object.keys(container);
  const member = members[step.index % members.length] ?? step.key;
  const acts: (() => unknown)[] = [
    () => {
      container[step.key] = value;
    },
    () => {
      container[member] = value;
    },
    () => delete container[member],
    () => {
      container[member] = undefined;
    },
    () => {
      container[step.key] = { kept: undefined, value };
    },
    // An alias, and a move.
    () => {
      container[step.key] = other.container;
    },
    () => {
      container[step.key] = { within: [other.container] };
      if (other.parent && !Array.isArray(other.parent)) delete other.parent[other.key];
    },
    () => {
      if (parent) parent[key] = { ...container, [step.key]: value };
    },
    () => {
      const kept = container[member];
      delete container[member];
      container[member] = kept;
    },
    () => {
      if (container[member] !== undefined && isStorable(container[member])) container[member] = throughText(container[member]);
    },
  ];
  acts[step.act % acts.length]?.();
}

function runProgram(before: JsonObject, program: readonly Step[]): unknown {
  const [draft, finalise] = create({ vars: before as Container });
  for (const step of program) run(draft.vars, step);
  return finalise().vars;
}

// --- P1, P2 ---------------------------------------------------------------------------------------------------------

describe("P1: a patch leads from the state before to the state after", () => {
  test("for random programs on a draft, through JSON text", () => {
    let accepted = 0;
    let refused = 0;
    fc.assert(
      fc.property(anyObject, anyProgram, (vars, program) => {
        const before = deepFreeze(throughText(vars));
        const text = JSON.stringify(before);
        const after = runProgram(before, program);
        if (!isStorable(after)) {
          refused++;
          expect(refusal(() => diff(before, after)).code).toBe("NOT_JSON");
          return;
        }
        accepted++;
        const patch = deepFreeze(throughText(diff(before, after)));
        expectSame(applyPatch(before, patch), throughText(after));
        expectSame(toJson(after, "vars"), throughText(after));
        expect(JSON.stringify(before)).toBe(text);
      }),
      tried(1_250),
    );
    expect(accepted).toBeGreaterThan(refused * 2);
    expect(refused).toBeGreaterThan(5);
  });

  test("for any two values, which share nothing", () => {
    fc.assert(
      fc.property(anyJson, anyJson, (value, other) => {
        const before = deepFreeze({ value });
        const after = deepFreeze({ value: other });
        expectSame(applyPatch(before, deepFreeze(throughText(diff(before, after)))), throughText(after));
      }),
      tried(750),
    );
  });

  test("for equal structures the patch is empty", () => {
    fc.assert(
      fc.property(anyObject, (value) => {
        expect(diff(value, throughText(value))).toEqual([]);
      }),
    );
  });

  test("members that JSON does not see are removed", () => {
    const after = Object.defineProperty({ b: 2 }, "a", { value: 1, enumerable: false });
    expect(toJson(after, "vars")).toEqual({ b: 2 });
    expect(diff({ a: 1 }, after)).toEqual([
      { op: "add", path: "/b", value: 2 },
      { op: "remove", path: "/a" },
    ]);
  });

  test("a getter that changes its mind gives a patch that fits", () => {
    let reads = 0;
    const after = {
      get a() {
        return reads++ % 2 === 0 ? undefined : 2;
      },
    };
    expect(applyPatch({ a: 1 }, diff({ a: 1 }, after))).toEqual({});
  });
});

describe("P2: values are shared, never changed", () => {
  test("a fold that owns its copies equals one that does not, and leaves what it was given alone", () => {
    fc.assert(
      fc.property(
        anyObject,
        fc.array(fc.record({ program: anyProgram, key: anyText, value: anyJson, snapshot: fc.boolean() }), {
          minLength: 1,
          maxLength: 6,
        }),
        (vars, changes) => {
          const start = deepFreeze(throughText(vars));
          const snapshots: { state: Json; text: string }[] = [];
          let plain = start;
          let folded = start;
          let owned = new Set<object>();
          for (const { program, key, value, snapshot } of changes) {
            const after = runProgram(plain, program);
            if (isStorable(after)) {
              const patch = deepFreeze(throughText(diff(plain, after)));
              plain = applyPatch(plain, patch);
              folded = applyPatch(folded, patch, owned);
            }
            if (!key.split(".").includes("__proto__")) {
              const result = deepFreeze(throughText(value));
              plain = setAt(plain, key, result);
              folded = setAt(folded, key, result, owned);
            }
            expectSame(folded, plain);
            const all = containers(folded);
            expect(new Set(all).size, "a container stands in two places").toBe(all.length);
            if (snapshot) {
              snapshots.push({ state: folded, text: JSON.stringify(folded) });
              owned = new Set();
            }
          }
          for (const { state, text } of snapshots) expect(JSON.stringify(state)).toBe(text);
        },
      ),
      tried(375),
    );
  });

  test("one container is copied once by a fold", () => {
    const owned = new Set<object>();
    const first = applyPatch({ list: [] }, [{ op: "add", path: "/list/0", value: 1 }], owned) as JsonObject;
    const second = applyPatch(first, [{ op: "add", path: "/list/1", value: 2 }], owned) as JsonObject;
    expect(second).toBe(first);
    expect(second).toEqual({ list: [1, 2] });
  });

  test("what is not changed stays the same object", () => {
    const before = { a: { x: 1 }, b: { y: [1] } };
    const after = applyPatch(before, [{ op: "replace", path: "/a/x", value: 2 }]) as typeof before;
    expect(after.b).toBe(before.b);
    expect(after.a).not.toBe(before.a);
  });
});

// --- J1 -------------------------------------------------------------------------------------------------------------

const cycle = (make: (self: object) => object): object => {
  const self: Record<string, unknown> = {};
  return Object.assign(self, make(self));
};
const listCycle: unknown[] = [{ beside: 1 }, []];
listCycle.push(listCycle);

/** A value, where in it the refusal points, and what it says. */
const refused: Record<string, [value: unknown, at: string, problem: RegExp]> = {
  "a function": [() => 1, "", /function is not JSON/],
  "a symbol": [Symbol("s"), "", /symbol is not JSON/],
  "a bigint": [1n, "", /bigint is not JSON/],
  NaN: [Number.NaN, "", /^NaN is not a finite number/],
  Infinity: [Number.POSITIVE_INFINITY, "", /^Infinity is not a finite number/],
  "-Infinity": [Number.NEGATIVE_INFINITY, "", /^-Infinity is not a finite number/],
  "a Date": [new Date(0), "", /Date is not plain/],
  "a Date of another realm": [runInNewContext("new Date(0)"), "", /Date is not plain/],
  "a Map": [new Map(), "", /Map is not plain/],
  "a Set": [new Set(), "", /Set is not plain/],
  "a RegExp": [/x/, "", /RegExp is not plain/],
  "an Error": [new TypeError("x"), "", /TypeError is not plain/],
  "a Promise": [Promise.resolve(), "", /Promise is not plain/],
  bytes: [new Uint8Array(2), "", /Uint8Array is not plain/],
  "a boxed text": [Object("text"), "", /String is not plain/],
  "a class instance": [new (class Order {})(), "", /Order is not plain/],
  "a class instance of another realm": [runInNewContext("new (class Order {})()"), "", /Order is not plain/],
  "an object that inherits": [Object.create({ inherited: 1 }), "", /not plain/],
  "an object that inherits from a nameless class": [Object.create({ constructor: null }), "", /class instance is not plain/],
  "a member named by a symbol": [{ [Symbol("s")]: 1 }, "", /named by symbols/],
  "a hole": [[1, ...new Array(1)].concat(new Array(1)), "/1", /undefined|hole/],
  "a hole at the start": [new Array(2), "/0", /hole/],
  "undefined in a list": [[[1, undefined]], "/0/1", /undefined/],
  "a cycle": [cycle((self) => ({ self })), "/self", /contains itself/],
  "a cycle beside other members": [cycle((self) => ({ a: { b: {} }, self })), "/self", /contains itself/],
  "a cycle in a list": [listCycle, "/2", /contains itself/],
  "an indirect cycle": [cycle((self) => ({ a: [{ "b/c": self }] })), "/a/0/b~1c", /contains itself/],
  'an own "__proto__"': [JSON.parse('{"__proto__":{"a":1}}'), "/__proto__", /"__proto__" is not allowed/],
  'an own "__proto__" further inside': [
    JSON.parse('{"~":[{"__proto__":null}]}'),
    "/~0/0/__proto__",
    /"__proto__" is not allowed/,
  ],
};

/** Where a refused value may stand. */
const places: Record<string, (value: unknown) => [at: string, run: () => unknown]> = {
  alone: (value) => ["payload", () => toJson(value, "payload")],
  "in a copied list": (value) => ["payload/x/1", () => toJson({ w: 1, x: [0, value] }, "payload")],
  "in a new member": (value) => ["vars/new", () => diff({ old: 1 }, { old: 1, new: value })],
  "deep in a new member": (value) => ["vars/new/0/a~1b", () => diff({}, { new: [{ "a/b": value }] })],
  "in place of a leaf": (value) => ["vars/old", () => diff({ old: 1 }, { old: value })],
  "in place of an object": (value) => ["vars/old", () => diff({ old: { self: {}, a: [{}] } }, { old: value })],
  "in place of a list": (value) => ["vars/old", () => diff({ old: [[1], 2, []] }, { old: value })],
  "in a changed object": (value) => [
    "vars/~0/constructor",
    () => diff({ "~": { constructor: {} } }, { "~": { constructor: value } }),
  ],
  "in a changed list": (value) => ["vars/list/1", () => diff({ list: [1, {}, 3] }, { list: [1, value, 3] })],
  "at the end of a list": (value) => ["vars/list/2", () => diff({ list: [1, 2] }, { list: [1, 2, value] })],
  "at the start of a list": (value) => ["vars/list/0", () => diff({ list: [1, 2] }, { list: [value, 1, 2] })],
  "as the whole": (value) => ["vars", () => diff({ self: {} }, value)],
};

describe("J1: only plain JSON is stored", () => {
  test.each(Object.entries(refused))("%s is refused with its path, wherever it stands", (_, [value, at, problem]) => {
    for (const [place, put] of Object.entries(places)) {
      const [base, run] = put(value);
      const { code, path, problem: said } = refusal(run);
      expect({ code, path }, place).toEqual({ code: "NOT_JSON", path: base + at });
      expect(said, place).toMatch(problem);
    }
  });

  test("undefined is refused where it cannot be dropped", () => {
    expect(refusal(() => toJson(undefined, "payload"))).toMatchObject({ code: "NOT_JSON", path: "payload" });
    expect(refusal(() => diff({}, undefined))).toMatchObject({ code: "NOT_JSON", path: "vars" });
    expect(refusal(() => diff({ l: [1] }, { l: [undefined] }))).toMatchObject({ code: "NOT_JSON", path: "vars/l/0" });
  });

  test("a hole is found wherever a list changes", () => {
    const list: unknown[] = [1, 2, 3];
    delete list[1];
    expect(refusal(() => diff({ list: [1, 2, 3] }, { list })).path).toBe("vars/list/1");
    list.length = 5;
    expect(refusal(() => diff({ list: [1, 2, 3] }, { list: [1, 2, 3, ...list] })).path).toBe("vars/list/4");
  });

  test("a cycle in a large value is refused without copying it again and again", () => {
    const list: unknown[] = Array.from({ length: 200_000 }, (_, i) => ({ i }));
    list.push(list);
    expect(refusal(() => diff({ list: [] }, { list }))).toMatchObject({ code: "NOT_JSON", path: "vars/list/200000" });
  });

  test("the same object twice is no cycle", () => {
    const shared = { a: 1 };
    expect(toJson([shared, { shared }, shared], "vars")).toEqual([shared, { shared }, shared]);
    expect(diff({}, { a: shared, b: [shared] })).toHaveLength(2);
  });

  test("what is nested too deep is refused with its path, copied or compared", () => {
    const nested = (levels: number, leaf: unknown): any => (levels === 0 ? leaf : { a: nested(levels - 1, leaf) });
    expect(toJson(nested(5, 1), "vars", 5)).toEqual(nested(5, 1));
    for (const before of [{}, nested(3, {}), nested(5, 1), nested(6, 1), { a: [] }]) {
      expect(diff(before, nested(5, 2), "vars", 5).length).toBeGreaterThan(0);
      expect(refusal(() => diff(before, nested(6, 2), "vars", 5))).toEqual({
        code: "JSON_TOO_DEEP",
        path: "vars/a/a/a/a/a",
        limit: 5,
      });
    }
    expect(refusal(() => toJson([[[[[[]]]]]], "p", 5))).toEqual({ code: "JSON_TOO_DEEP", path: "p/0/0/0/0/0", limit: 5 });
    expect(toJson(nested(200, 1), "vars")).toEqual(nested(200, 1));
    expect(refusal(() => toJson(nested(201, 1), "vars"))).toMatchObject({ code: "JSON_TOO_DEEP", limit: 200 });
    expect(refusal(() => toJson(nested(100_000 / 20, 1), "vars")).path.length).toBeLessThan(310);
  });

  test("what is refused is found at any place in any value", () => {
    const bad = Object.values(refused).filter(([, , problem]) => !problem.source.includes("hole"));
    fc.assert(
      fc.property(
        anyJson,
        fc.array(fc.nat(9), { maxLength: 5 }),
        anyKey,
        fc.constantFrom(...bad),
        (value, choices, key, [planted, at]) => {
          const before = deepFreeze(throughText({ value }));
          const after = throughText({ value }) as Container;
          let container = after;
          let path = "vars";
          for (const choice of choices) {
            const inner = Object.keys(container).filter((k) => typeof container[k] === "object" && container[k] !== null);
            const next = inner[choice % inner.length];
            if (next === undefined) break;
            container = container[next];
            path += `/${escapeKey(next)}`;
          }
          const place = Array.isArray(container) ? String(container.length) : key;
          container[place] = planted;
          path += `/${escapeKey(place)}${at}`;
          expect(refusal(() => diff(before, after))).toMatchObject({ code: "NOT_JSON", path });
          expect(refusal(() => toJson(after, "vars"))).toMatchObject({ code: "NOT_JSON", path });
        },
      ),
      tried(500),
    );
  });

  test("what cannot be read is refused with the path of what holds it", () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const thrower = {
      get a() {
        throw new TypeError("not today");
      },
    };
    const unreadable: [value: unknown, problem: RegExp][] = [
      [proxy, /draft of the vars that has ended/],
      [thrower, /cannot be read: not today/],
      [new Proxy([], { get: () => BigInt("x") }), /cannot be read: .*BigInt/],
    ];
    for (const [value, problem] of unreadable) {
      for (const before of [{ x: [1] }, { x: {} }, { x: { a: { b: 1 } } }, { x: 1 }, { x: [[1], { a: 1 }, 3] }] as JsonObject[]) {
        for (const [after, path] of [
          [{ x: value }, "vars/x"],
          [{ x: [[1], value, 3] }, "vars/x/1"],
          [{ x: { a: value } }, "vars/x/a"],
        ] as const) {
          const refused = refusal(() => diff(before, after));
          expect(refused).toMatchObject({ code: "NOT_JSON", path });
          expect(refused.problem).toMatch(problem);
        }
      }
      expect(refusal(() => toJson({ a: [value] }, "payload"))).toMatchObject({ code: "NOT_JSON", path: "payload/a/0" });
    }
  });

  test("only an object can follow an object as the whole", () => {
    for (const after of [[], null, 1, "text"]) {
      expect(refusal(() => diff({ a: 1 }, after))).toMatchObject({ code: "NOT_JSON", path: "vars", problem: /object/ });
    }
  });

  test("members that are undefined are dropped", () => {
    expectSame(toJson({ a: undefined, b: { c: undefined } }, "vars"), { b: {} });
    expect(diff({ a: 1, b: 2 }, { a: undefined, b: 2, c: undefined })).toEqual([{ op: "remove", path: "/a" }]);
    expect(diff({}, { a: undefined })).toEqual([]);
  });

  test("-0 is stored as 0", () => {
    expectSame(toJson([-0, { a: -0 }], "vars"), [0, { a: 0 }]);
    expectSame(applyPatch({ a: 1, b: 0 }, diff({ a: 1, b: 0 }, { a: -0, b: -0, c: [-0] })), { a: 0, b: 0, c: [0] });
  });

  test("plain objects without a prototype or of another realm are accepted and become plain here", () => {
    const bare = Object.assign(Object.create(null), { a: [1] });
    const foreign = runInNewContext('({ a: [1, { b: null }], toString: "x" })');
    expectSame(toJson(bare, "vars"), { a: [1] });
    expectSame(toJson(foreign, "vars"), { a: [1, { b: null }], toString: "x" });
    expectSame(applyPatch({ x: { a: [2] } }, diff({ x: { a: [2] } }, { x: bare, y: foreign })), {
      x: { a: [1] },
      y: { a: [1, { b: null }], toString: "x" },
    });
    expectSame(applyPatch({ x: {} }, diff({ x: {} }, { x: foreign })), { x: { a: [1, { b: null }], toString: "x" } });
  });

  test("any text survives, as a value and as a key", () => {
    for (const text of ["\ud800", "x\udc00y", "\u0000", "\u2028\u2029", "\ufeff", "😀", '"\\\n\t\u007f', "~01", "~~//"]) {
      const after = { [text]: [text], list: [{ [text]: { [text]: text } }] };
      expectSame(applyPatch({ list: [{}] }, throughText(diff({ list: [{}] }, after))), after);
      expect(getAt(after, `/${escapeKey(text)}/0`)).toBe(text);
    }
  });

  test("a copy shares no container with what was given", () => {
    const given = { a: [{}] };
    const stored = toJson(given, "vars");
    expect(containers(stored).some((container) => containers(given).includes(container))).toBe(false);
    const added = diff({}, given)[0] as { value: Json };
    expect(containers(added.value).some((container) => containers(given).includes(container))).toBe(false);
  });
});

// --- J2 -------------------------------------------------------------------------------------------------------------

describe("J2: no prototype is read or written", () => {
  const prototypes = [Object.prototype, Array.prototype, Function.prototype, Object, Array];
  const picture = () => prototypes.map((prototype) => Object.getOwnPropertyDescriptors(prototype));
  const pollutions = [
    "/__proto__/polluted",
    "/__proto__",
    "/constructor/prototype/polluted",
    "/constructor",
    "/a/__proto__/polluted",
    "/a/constructor/prototype/polluted",
    "/list/__proto__/polluted",
    "/list/constructor/prototype/polluted",
    "/list/length",
    "/list/0/__proto__",
    "/toString/call",
  ];
  const hostileValue = fc.constantFrom<Json>(1, { polluted: true }, JSON.parse('{"__proto__":{"polluted":true}}'), [], {
    constructor: { prototype: {} },
  });
  const hostilePatch = fc.array(
    fc.record({
      op: fc.constantFrom("add", "replace", "remove"),
      path: fc.oneof(
        fc.constantFrom(...pollutions),
        fc
          .array(
            fc.constantFrom(
              "__proto__",
              "constructor",
              "prototype",
              "a",
              "list",
              "0",
              "1",
              "-",
              "length",
              "toString",
              "polluted",
              "",
            ),
            { maxLength: 4 },
          )
          .map((segments) => segments.map((segment) => `/${segment}`).join("")),
      ),
      value: hostileValue,
    }),
    { minLength: 1, maxLength: 6 },
  ) as fc.Arbitrary<Patch>;

  function expectOwnOnly(value: unknown): void {
    if (typeof value !== "object" || value === null) return;
    expect(Object.getPrototypeOf(value)).toBe(Array.isArray(value) ? Array.prototype : Object.prototype);
    expect((value as { polluted?: unknown }).polluted === undefined || Object.hasOwn(value, "polluted")).toBe(true);
    for (const key of Reflect.ownKeys(value)) expectOwnOnly(Object.getOwnPropertyDescriptor(value, key)?.value);
  }

  test("a hostile patch is refused or writes own members", () => {
    const untouched = picture();
    let applied = 0;
    fc.assert(
      fc.property(
        hostilePatch,
        fc.constantFrom(
          '{"a":{},"list":[{},1]}',
          '{"__proto__":{"a":{}},"a":{"__proto__":{}},"list":[[]],"constructor":{"prototype":{}}}',
        ),
        (patch, text) => {
          let result: JsonObject = deepFreeze(JSON.parse(text));
          for (const operation of deepFreeze(patch)) {
            try {
              result = applyPatch(result, [operation]);
              applied++;
            } catch (error) {
              expect(error).toBeInstanceOf(RangeError);
            }
          }
          expectOwnOnly(result);
          const copy = cloneJson(result);
          expectOwnOnly(copy);
          expectSame(copy, result);
          expect(equalJson(copy, result)).toBe(true);
        },
      ),
      tried(750),
    );
    expectSame(picture(), untouched);
    expect(applied).toBeGreaterThan(250);
  });

  test.each([
    "/__proto__",
    "/__proto__/polluted",
    "/a/__proto__/x",
    "/constructor/prototype/polluted",
    "/list/__proto__/x",
    "/list/length",
    "/list/-",
  ])("%s is refused", (path) => {
    for (const op of ["add", "replace"] as const)
      expect(() => applyPatch({ a: {}, list: [1] }, [{ op, path, value: 1 }])).toThrow(RangeError);
    expect(() => applyPatch({ a: {}, list: [1] }, [{ op: "remove", path }])).toThrow(RangeError);
  });

  test("a member named constructor is like any other", () => {
    expectSame(applyPatch({}, [{ op: "add", path: "/constructor", value: { prototype: {} } }]), {
      constructor: { prototype: {} },
    });
  });

  test("inherited members are not there", () => {
    for (const key of ["constructor", "toString", "__proto__", "hasOwnProperty"]) {
      expect(getAt({}, `/${key}`)).toBeUndefined();
      expect(getAt({}, `/${key}/name`)).toBeUndefined();
      expect(() => applyPatch({}, [{ op: "remove", path: `/${key}` }])).toThrow(RangeError);
      expect(equalJson({ [key]: 1 }, { x: 1 })).toBe(false);
      expect(equalJson({ x: 1 }, { [key]: 1 })).toBe(false);
    }
    expect(diff({ constructor: 1 }, {})).toEqual([{ op: "remove", path: "/constructor" }]);
  });

  test("a copy of a damaged value keeps its own __proto__ instead of being given a prototype", () => {
    const copy = cloneJson(JSON.parse('{"__proto__":{"x":1}}'));
    expect(copy.x).toBeUndefined();
    expect(Object.hasOwn(copy, "__proto__")).toBe(true);
  });
});

// --- The other functions --------------------------------------------------------------------------------------------

describe("a patch that does not fit", () => {
  test.each<[string, JsonObject, Patch]>([
    ["names an element behind the end", { l: [1] }, [{ op: "replace", path: "/l/1", value: 1 }]],
    ["adds behind the end", { l: [1] }, [{ op: "add", path: "/l/2", value: 1 }]],
    ["has another spelling of an index", { l: [1, 2] }, [{ op: "remove", path: "/l/01" }]],
    ["has a negative index", { l: [1, 2] }, [{ op: "remove", path: "/l/-1" }]],
    ["has no index", { l: [1, 2] }, [{ op: "replace", path: "/l/x/y", value: 1 }]],
    ["replaces a member that is not there", {}, [{ op: "replace", path: "/a", value: 1 }]],
    ["leads through a text", { a: "text" }, [{ op: "add", path: "/a/0", value: 1 }]],
    ["leads through nothing", {}, [{ op: "add", path: "/a/b", value: 1 }]],
    ["leads into a leaf", { a: 1 }, [{ op: "add", path: "/a/b", value: 1 }]],
    ["removes the whole", {}, [{ op: "remove", path: "" }]],
    ["replaces the whole", {}, [{ op: "replace", path: "", value: {} }]],
    ["has an unknown operation", { a: 1, l: [1] }, [{ op: "move", path: "/a", from: "/b" } as any]],
    ["has an unknown operation on a list", { l: [1] }, [{ op: "test", path: "/l/0", value: 1 } as any]],
    ["has no operation", { a: 1 }, [{ path: "/a", value: 1 } as any]],
    ["has no value", { a: 1 }, [{ op: "replace", path: "/a" } as any]],
    ["has no value for a list", { l: [1] }, [{ op: "add", path: "/l/0" } as any]],
    [
      "goes on behind the end",
      { l: [1, 2] },
      [
        { op: "remove", path: "/l/1" },
        { op: "remove", path: "/l/1" },
      ],
    ],
    ["has a path that is no pointer", { vars: 1, ars: 2 }, [{ op: "remove", path: "vars" }]],
  ])("is refused when it %s", (_, root, patch) => {
    expect(() => applyPatch(deepFreeze(root), patch)).toThrow(RangeError);
  });
});

describe("setAt", () => {
  test("puts a value under a dotted key, making objects on the way", () => {
    expectSame(setAt({}, "a", 1), { a: 1 });
    expectSame(setAt({ order: { id: 1 } }, "order.receipt", [2]), { order: { id: 1, receipt: [2] } });
    expectSame(setAt({}, "a.b.c", null), { a: { b: { c: null } } });
  });

  test("takes an empty part as a key", () => {
    expectSame(setAt({}, "", 1), { "": 1 });
    expectSame(setAt({}, ".a.", 1), { "": { a: { "": 1 } } });
    expectSame(setAt({ "": { "": 1 } }, ".", 2), { "": { "": 2 } });
  });

  test("replaces whatever is not an object on the way", () => {
    for (const there of [[1, 2], "text", 7, null, true]) {
      expectSame(setAt({ a: there }, "a.0", 1), { a: { "0": 1 } });
      expectSame(setAt({ a: there }, "a.length.b", 1), { a: { length: { b: 1 } } });
    }
    expectSame(setAt({ a: { b: 1 } }, "a", []), { a: [] });
  });

  test("does not reach what is inherited", () => {
    expectSame(setAt({}, "constructor.prototype.polluted", 1), { constructor: { prototype: { polluted: 1 } } });
    expectSame(setAt({}, "toString", 1), { toString: 1 });
    expectSame(setAt({}, "a.hasOwnProperty.x", 1), { a: { hasOwnProperty: { x: 1 } } });
    expect((Object.prototype as any).polluted).toBeUndefined();
    for (const key of ["__proto__", "__proto__.x", "a.__proto__", "a.__proto__.b"]) {
      expect(() => setAt({}, key, 1)).toThrow(
        expect.objectContaining({ code: "RESULT_KEY_INVALID", fields: expect.objectContaining({ key }) }),
      );
    }
    expectSame(setAt({}, "__proto__x", 1), { __proto__x: 1 });
  });

  test("is found again by its pointer, and everything else stays the same object", () => {
    const parts = fc.array(fc.constantFrom("", "constructor", "length", "0", "toString", "a", "b", "~", "/"), {
      minLength: 1,
      maxLength: 4,
    });
    fc.assert(
      fc.property(anyObject, parts, anyJson, (vars, path, value) => {
        const root = deepFreeze(throughText(vars));
        const stored = deepFreeze(throughText(value));
        const result = setAt(root, path.join("."), stored) as JsonObject;
        expect(getAt(result, path.map((part) => `/${escapeKey(part)}`).join(""))).toBe(stored);
        for (const key of Object.keys(root)) if (key !== path[0]) expect(result[key]).toBe(root[key]);
        expect(Object.keys(result).length - Object.keys(root).length).toBe(Object.hasOwn(root, path[0]!) ? 0 : 1);
      }),
      tried(250),
    );
  });

  test("a value set twice is not changed through either place", () => {
    const owned = new Set<object>();
    const value = { n: 1 };
    let state = setAt({}, "a", value, owned);
    state = setAt(state, "b", value, owned);
    state = setAt(state, "a.n", 2, owned);
    expectSame(state, { a: { n: 2 }, b: { n: 1 } });
    expectSame(value, { n: 1 });
  });
});

describe("reading", () => {
  test("getAt finds every value at its pointer", () => {
    const check = (root: Json, value: Json, pointer: string): void => {
      expect(getAt(root, pointer)).toBe(value);
      if (typeof value !== "object" || value === null) return;
      for (const [key, member] of Object.entries(value)) check(root, member, `${pointer}/${escapeKey(key)}`);
    };
    fc.assert(fc.property(anyJson, (value) => check(value, value, "")));
  });

  test("getAt finds nothing where nothing stands", () => {
    const root = { list: [1, 2], text: "abc", none: null };
    for (const pointer of [
      "/x",
      "/list/2",
      "/list/-",
      "/list/01",
      "/list/length",
      "/list/push",
      "/text/0",
      "/text/length",
      "/none/x",
      "/x/y/z",
      "/",
    ]) {
      expect(getAt(root, pointer), pointer).toBeUndefined();
    }
  });

  test("a pointer and its keys tell the same", () => {
    fc.assert(
      fc.property(fc.array(anyKey), (keys) => {
        expect(parsePointer(keys.map((key) => `/${escapeKey(key)}`).join(""))).toEqual(keys);
      }),
      tried(250),
    );
    expect(parsePointer("")).toEqual([]);
    expect(parsePointer("/")).toEqual([""]);
    expect(parsePointer("/~01/~10")).toEqual(["~1", "/0"]);
    expect(() => parsePointer("a/b")).toThrow(RangeError);
  });

  test("equalJson is structural equality", () => {
    fc.assert(
      fc.property(anyObject, anyProgram, (value, program) => {
        const one = throughText(value);
        const other = runProgram(one, program);
        if (!isStorable(other)) return;
        const stored = throughText(other) as Json;
        expect(equalJson(one, stored)).toBe(isDeepStrictEqual(one, stored));
        expect(equalJson(stored, one)).toBe(isDeepStrictEqual(one, stored));
        expect(equalJson(stored, throughText(stored))).toBe(true);
      }),
      tried(250),
    );
    expect(equalJson({ a: 1, b: 2 }, { b: 2, a: 1 })).toBe(true);
    expect(equalJson([], {})).toBe(false);
    expect(equalJson(JSON.parse('{"__proto__":{}}'), { x: {} })).toBe(false);
    expect(equalJson({}, null)).toBe(false);
    expect(equalJson([1], [1, 2])).toBe(false);
    expect(equalJson({ a: 1 }, { b: 1 })).toBe(false);
    expect(equalJson(undefined, undefined)).toBe(true);
    expect(equalJson(undefined, null)).toBe(false);
  });

  test("cloneJson is equal and shares no container", () => {
    fc.assert(
      fc.property(anyJson, (value) => {
        const copy = cloneJson(value);
        expectSame(copy, value);
        const given = new Set(containers(value));
        expect(containers(copy).some((container) => given.has(container))).toBe(false);
      }),
    );
    expect(cloneJson(undefined)).toBeUndefined();
  });
});

// --- Size -----------------------------------------------------------------------------------------------------------

describe("a patch is as small as the change", () => {
  const messages = (count: number) => Array.from({ length: count }, (_, i) => ({ role: "user", text: `message ${i}` }));
  const added = { role: "assistant", text: "new" };
  const changes: [string, (vars: any) => void][] = [
    ["push", (vars) => vars.list.push(added)],
    ["pop", (vars) => vars.list.pop()],
    ["shift", (vars) => vars.list.shift()],
    ["unshift", (vars) => vars.list.unshift(added)],
    [
      "spread-append",
      (vars) => {
        vars.list = [...vars.list, added];
      },
    ],
    ["removal from the middle", (vars) => vars.list.splice(3, 1)],
    [
      "removal by filter",
      (vars) => {
        vars.list = vars.list.filter((_: unknown, i: number) => i !== 4);
      },
    ],
    ["insertion in the middle", (vars) => vars.list.splice(3, 0, added)],
    [
      "change of one leaf",
      (vars) => {
        vars.list[5].text = "other";
      },
    ],
    [
      "change of one leaf deep inside",
      (vars) => {
        vars.deep.a[0].b.c = 2;
      },
    ],
    [
      "change through a spread object",
      (vars) => {
        vars.deep = { ...vars.deep, more: 1 };
      },
    ],
    [
      "clearing of a list",
      (vars) => {
        vars.list = [];
      },
    ],
  ];

  test.each(changes)("one operation of a size of its own for a %s", (_, change) => {
    const sizes = [10, 10_000].map((length) => {
      const before = { list: messages(length), deep: { a: [{ b: { c: 1, d: messages(9) } }] } };
      const [draft, finalise] = create(before);
      change(draft);
      const after = finalise();
      const patch = diff(before, after);
      expect(patch).toHaveLength(1);
      expectSame(applyPatch(before, patch), throughText(after));
      return JSON.stringify(patch).length;
    });
    // Only the index in the path may grow.
    expect(sizes[1]! - sizes[0]!).toBeLessThanOrEqual(4);
    expect(sizes[1]).toBeLessThan(120);
  });

  // What a handful of operations costs, whatever the length of the list and of its elements.
  const several: [string, operations: number, (list: any[]) => unknown][] = [
    [
      "shift and push",
      2,
      (list) => {
        list.shift();
        list.push(added);
      },
    ],
    ["sliding window by slice and spread", 2, (list) => [...list.slice(1), added]],
    ["slice of all but the first two", 2, (list) => list.slice(2)],
    ["filter", 3, (list) => list.filter((_, i) => i !== 2 && i !== 5 && i !== 8)],
    ["insertion of several", 3, (list) => [...list.slice(0, 5), added, added, added, ...list.slice(5)]],
    [
      "insertion in two places",
      2,
      (list) => {
        list.splice(7, 0, added);
        list.splice(2, 0, added);
      },
    ],
    [
      "change of one leaf, a shift and a push",
      3,
      (list) => {
        list[4].text = "other";
        list.shift();
        list.push(added);
      },
    ],
    [
      "change of one leaf after a shift",
      2,
      (list) => {
        list.shift();
        list[4].text = "other";
      },
    ],
    [
      "change of the element beside those cut off",
      3,
      (list) => {
        list.splice(0, 2);
        list[0].text = "other";
      },
    ],
    [
      "change of the element in front of those cut off",
      3,
      (list) => {
        list.splice(6, 2);
        list[5].text = "other";
      },
    ],
    [
      "change of the last element and a push",
      2,
      (list) => {
        list.at(-1).text = "other";
        list.push(added);
      },
    ],
    [
      "change of the first element and an unshift",
      2,
      (list) => {
        list[0].text = "other";
        list.unshift(added);
      },
    ],
    [
      "change of one leaf and a filter elsewhere",
      2,
      (list) => list.filter((_, i) => i !== 2).with(6, { ...list[7], text: "other" }),
    ],
    ["move to the front", 2, (list) => [list[6], ...list.toSpliced(6, 1)]],
    ["move to the end", 2, (list) => [...list.slice(1), list[0]]],
    ["exchange of two", 2, (list) => list.with(2, list[7]).with(7, list[2])],
    [
      "removal, an insertion, a replacement and a push",
      4,
      (list) => {
        list.splice(1, 1);
        list.splice(4, 0, added);
        list[7] = { n: 1 };
        list.push(added);
      },
    ],
  ];

  test.each(several)("few operations for a %s", (name, operations, change) => {
    for (const [count, length] of [
      [10, 300],
      [5_000, 2],
    ] as const) {
      const before = { list: messages(count).map((message, i) => ({ ...message, long: `${i}`.padEnd(length), nested: { i } })) };
      const [draft, finalise] = create<any>(before);
      const replaced = change(draft.list);
      if (replaced) draft.list = replaced;
      const after = finalise();
      const patch = diff(before, after);
      expect(patch).toHaveLength(operations);
      expectSame(applyPatch(before, throughText(patch)), throughText(after));
      // A moved element is written again; nothing else is.
      expect(JSON.stringify(patch).length).toBeLessThan(operations * (110 + (/move|exchange/.test(name) ? length : 0)));
    }
  });

  const whole: [string, (list: any[]) => any[]][] = [
    ["reversed", (list) => list.reverse()],
    ["sorted by another key", (list) => list.toSorted((a, b) => (a.text.at(-1) < b.text.at(-1) ? -1 : 1))],
    ["cleared", () => []],
    ["made anew", (list) => list.map(({ text }) => ({ other: text }))],
    ["cut down to its last two", (list) => list.slice(-2)],
  ];

  test.each(whole)("one operation for a list that is %s", (_, change) => {
    const before = { a: { list: messages(100) } };
    const after = { a: { list: change([...before.a.list]) } };
    expect(diff(before, after)).toEqual([{ op: "replace", path: "/a/list", value: after.a.list }]);
  });

  test("what is shorter is written: the removals or what remains", () => {
    const cut = (length: number) => {
      const before = { list: Array.from({ length: 500 }, (_, i) => `${i}`.padEnd(length)) };
      const after = { list: before.list.slice(-50) };
      const patch = diff(before, after);
      expectSame(applyPatch(before, patch), after);
      return patch;
    };
    expect(cut(2_000)).toHaveLength(450);
    expect(JSON.stringify(cut(2_000)).length).toBeLessThan(17_000);
    expect(cut(20)).toHaveLength(1);
  });

  test("no patch is longer than its lists written whole", () => {
    const elements = fc.array(fc.constantFrom<Json>(1, 2, "a", { x: 1 }, { x: 2, y: [1] }, [], [3]), { maxLength: 12 });
    fc.assert(
      fc.property(elements, elements, (a, b) => {
        const patch = diff({ list: a }, { list: b });
        expectSame(applyPatch({ list: a }, throughText(patch)), { list: b });
        const replaced = JSON.stringify([{ op: "replace", path: "/list", value: b }]);
        expect(JSON.stringify(patch).length).toBeLessThanOrEqual(replaced.length + 10);
      }),
      tried(750),
    );
  });

  test("what is kept of a list is the most that can be", () => {
    const distinct = fc.uniqueArray(fc.nat(12), { maxLength: 8 });
    fc.assert(
      fc.property(distinct, distinct, (a, b) => {
        // Long enough that removals and additions are always shorter than the whole.
        const element = (n: number) => String(n).padEnd(500);
        const patch = diff({ list: a.map(element) }, { list: b.map(element) });
        const longest = (i: number, j: number): number =>
          i === a.length || j === b.length
            ? 0
            : a[i] === b[j]
              ? 1 + longest(i + 1, j + 1)
              : Math.max(longest(i + 1, j), longest(i, j + 1));
        const written = patch.filter(({ op }) => op !== "remove").length;
        if (patch[0]?.path !== "/list") expect(written).toBe(b.length - longest(0, 0));
      }),
      tried(250),
    );
  });

  // Without a pass over the list per operation; quadratic, each of these would take minutes.
  describe("200,000 elements", () => {
    const list = Array.from({ length: 200_000 }, (_, i) => ({ i, text: "a text that is longer than a removal's path is" }));
    const cases: [string, operations: number, any[]][] = [
      ["cut in half from the front", 100_000, list.slice(100_000)],
      ["cut in half from the back", 100_000, list.slice(0, 100_000)],
      ["every second one removed", 100_000, list.filter((_, i) => i % 2 === 0)],
      ["every second one changed", 100_000, list.map((element, i) => (i % 2 === 0 ? { ...element, i: -1 } : element))],
      [
        "every fourth one replaced by a leaf, another changed",
        100_000,
        list.map((element, i) => (i % 4 === 0 ? i : i % 4 === 1 ? { ...element, i: -1 } : element)),
      ],
      ["one inserted before every fourth", 50_000, list.flatMap((element, i) => (i % 4 === 0 ? [{ n: i }, element] : [element]))],
      ["cut in half, changed, grown", 100_002, [...list.slice(100_000).with(50_000, { ...list[150_000]!, i: -1 }), { i: -2 }]],
      ["reversed", 1, list.toReversed()],
      ["cleared", 1, []],
      ["rotated", 2, [...list.slice(1), list[0]]],
      ["of which only the last 50 stay", 1, list.slice(-50)],
    ];
    test.each(cases)("%s", (_, operations, after) => {
      const patch = diff({ list }, { list: after });
      expect(patch).toHaveLength(operations);
      const result = applyPatch({ list }, patch).list as Json[];
      expect(result).toHaveLength(after.length);
      expectSame(result, after);
    });

    test("a list that is one long hole is refused at once", () => {
      const hole: unknown[] = [];
      hole[1_000_000_000] = 1;
      expect(refusal(() => diff({ list }, { list: hole })).path).toMatch(/^vars\/list\/\d+$/);
      expect(refusal(() => diff({ list: [] }, { list: hole })).path).toBe("vars/list/0");
      expect(refusal(() => toJson(hole, "vars")).path).toBe("vars/0");
    });
  });

  test("a list of primitives shifts and grows by one operation", () => {
    const list = Array.from({ length: 1_000 }, (_, i) => i);
    expect(diff({ list }, { list: list.slice(1) })).toEqual([{ op: "remove", path: "/list/0" }]);
    expect(diff({ list }, { list: [-1, ...list] })).toEqual([{ op: "add", path: "/list/0", value: -1 }]);
    expect(diff({ list: [1, 1, 1] }, { list: [1, 1] })).toHaveLength(1);
  });

  test("nothing happened, nothing written", () => {
    const before = { list: messages(3), o: { a: 1 } };
    const [draft, finalise] = create(before);
    draft.list.reverse();
    draft.list.reverse();
    draft.o = { ...draft.o };
    draft.list = [...draft.list];
    expect(diff(before, finalise())).toEqual([]);
  });
});

describe("parseJson", () => {
  test("reads keys with escapes right, whatever keys were met before", () => {
    const keys = ["\\", "ab\\", "C:\\", "C:\\temp", "\u0000", "\ud800", "\n", '"', "ab\n", "$", "$0", "a:b", ":", '":', "\\\\"];
    for (const first of keys) {
      parseJson(JSON.stringify({ [first]: 1 }));
      for (const second of keys) {
        const value = { a: [{ [second]: { [first]: second } }], "\\$0": "\\:", [second]: first };
        expect(parseJson(JSON.stringify(value))).toStrictEqual(value);
        expect(parseJson(JSON.stringify(value, null, 2).replaceAll(/":(?= )/g, '" :'))).toStrictEqual(value);
      }
    }
  });

  test("takes long texts, and texts made to be slow, in linear time", () => {
    const long = { 'a"b': "x\n".repeat(4_000_000), $: "$".repeat(1_000_000) };
    expect(parseJson(JSON.stringify(long))).toStrictEqual(long);
  });

  test("refuses what is not JSON", () => {
    for (const text of ["", "{", '{"\\', '{"\\n":', '{"\\x":1}', '{"a\\n":1}}'])
      expect(() => parseJson(text)).toThrow(SyntaxError);
  });
});
