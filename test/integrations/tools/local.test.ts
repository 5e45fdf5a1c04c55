// Tools of this process: what they are given, what comes of them, and what a model is told when they fail.
import { defineWorkflow, definite, permanent, complete, type EffectContext, wait } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { testClock } from "abstractruntime/testing";
import { localTools, toolCall, toolCalls, toolEffect, type ToolResult } from "abstractruntime/tools";
import { dynamicTool, jsonSchema, tool } from "ai";
import * as version6 from "ai-v6";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import * as zod3 from "zod/v3";
import { moved, stopped } from "../../scenarios/harness.ts";
import { batch, call, carryOut, open, resultOf } from "./batch.ts";

const city = { type: "object", properties: { city: { type: "string" } }, required: ["city"] } as const;

describe("a tool is written", () => {
  const forms = {
    "in our form with a Standard Schema": {
      input: z.object({ city: z.string() }),
      run: ({ city }: { city: string }) => city.length,
    },
    "in our form with JSON Schema": { input: city, run: (input: { city: string }) => input.city.length },
    "with tool() of version 7": tool({ inputSchema: z.object({ city: z.string() }), execute: ({ city }) => city.length }),
    "with tool() of version 7 and jsonSchema()": tool({
      inputSchema: jsonSchema<{ city: string }>(city),
      execute: async ({ city }) => city.length,
    }),
    "with dynamicTool()": dynamicTool({
      description: "",
      inputSchema: jsonSchema(city),
      execute: async (input) => (input as { city: string }).city.length,
    }),
    "with tool() of version 6": version6.tool({
      inputSchema: z.object({ city: z.string() }),
      execute: ({ city }) => city.length,
    }),
    "with tool() of version 6 and jsonSchema()": version6.tool({
      inputSchema: version6.jsonSchema<{ city: string }>(city),
      execute: async ({ city }) => city.length,
    }),
    "with tool() of version 6 and zod 3": version6.tool({
      inputSchema: zod3.z.object({ city: zod3.z.string() }),
      execute: ({ city }) => city.length,
    }),
    "with a schema made later": tool({
      inputSchema: () => jsonSchema<{ city: string }>(city),
      execute: async ({ city }) => city.length,
    }),
    "as a generator, whose last piece counts": tool({
      inputSchema: z.object({ city: z.string() }),
      async *execute({ city }) {
        yield 0;
        yield city.length;
      },
    }),
  };

  test.each(Object.entries(forms))("%s: it gets arguments that fit, and only those", async (_, form) => {
    const executor = localTools({ length: form });
    const [fits, text, wrong, missing] = await carryOut(executor, [
      call("length", { city: "Rome" }, "a"),
      call("length", '{"city":"Ulm"}', "b"),
      call("length", { city: 1 }, "c"),
      call("length", {}, "d"),
    ]);
    expect(fits).toEqual({ name: "length", callId: "a", success: true, output: 4, error: null });
    expect(text).toMatchObject({ callId: "b", success: true, output: 3 });
    for (const refused of [wrong, missing]) {
      expect(refused).toMatchObject({ success: false, output: null, error: { code: "TOOL_ARGUMENTS_INVALID" } });
      expect(refused?.error?.message).toContain("city");
    }
    const [described] = await executor.tools();
    expect(described).toMatchObject({ name: "length", parameters: { type: "object", properties: { city: { type: "string" } } } });
  });

  test("its input has the type of its schema", () => {
    localTools({
      right: { input: z.object({ n: z.number() }), run: ({ n }) => n.toFixed() },
      // @ts-expect-error: a number is no text
      wrong: { input: z.object({ n: z.number() }), run: ({ n }) => n.toUpperCase() },
      other: { run: (_, context) => context.idempotencyKey },
      asks: { input: z.object({ n: z.number() }), needsApproval: ({ n }) => n > 3, run: ({ n }) => n },
      // @ts-expect-error: a number has no length
      asksWrongly: { input: z.object({ n: z.number() }), needsApproval: ({ n }) => n.length > 3, run: ({ n }) => n },
    });
  });

  test("what a schema makes of the arguments is what it gets", async () => {
    const input = z.object({ n: z.coerce.number().default(7) });
    const executor = localTools({ twice: { input, run: ({ n }) => n * 2 } });
    expect(
      await carryOut(executor, [call("twice", { n: "4" }), call("twice", {}), call("twice", ""), call("twice", null)]),
    ).toMatchObject([{ output: 8 }, { output: 14 }, { output: 14 }, { output: 14 }]);
  });

  test("an AI SDK tool gets its call's id, a signal and the idempotency key", async () => {
    const seen: unknown[] = [];
    const note = async (_: unknown, options: object) => {
      const { abortSignal, ...rest } = options as { abortSignal: AbortSignal };
      seen.push({ ...rest, aborted: abortSignal.aborted });
    };
    const executor = localTools({
      six: version6.tool({ inputSchema: z.object({}), execute: note }),
      seven: tool({ inputSchema: z.object({}), execute: note }),
    });
    await carryOut(executor, [call("six", {}, "s"), call("seven", {}, "t")]);
    const context = { idempotencyKey: expect.any(String), runId: expect.any(String) };
    expect(seen).toEqual(
      ["s", "t"].map((toolCallId) => ({ toolCallId, messages: [], aborted: false, context, experimental_context: context })),
    );
  });

  const refused: [string, unknown, RegExp][] = [
    [
      "an unknown setting",
      { nap: { run: () => 1, speculativ: true } },
      /Unknown option "speculativ".*Did you mean "speculative"/,
    ],
    ["no schema where one is expected", { nap: { input: 3, run: () => 1 } }, /the schema of tool "nap" is none/],
    ["the parameters of an old AI SDK", { nap: { parameters: {}, execute: () => 1 } }, /Unknown option "parameters"/],
    ["a function alone", { nap: () => 1 }, /tool "nap" is none/],
    [
      "a tool of the provider",
      { nap: { type: "provider", inputSchema: {}, id: "a.b", args: {} } },
      /carried out by the model's provider/,
    ],
    ["a timeout of nothing", { nap: { run: () => 1, timeoutMs: 0 } }, /timeoutMs is a number/],
    ["an unknown uncertainty", { nap: { run: () => 1, onUncertain: "maybe" } }, /onUncertain is/],
    ["speculative as a text", { nap: { run: () => 1, speculative: "yes" } }, /speculative is true or false/],
    ["approval as a text", { nap: { run: () => 1, needsApproval: "yes" } }, /needsApproval is true, false/],
  ];
  test.each(refused)("%s is refused when the tools are made", (_, tools, problem) => {
    expect(() => localTools(tools as never)).toThrow(problem);
  });

  test("defaults are refused likewise", () => {
    expect(() => localTools({}, { timeout: 3 } as never)).toThrow(/Unknown option "timeout" in localTools/);
    expect(() => toolEffect({} as never)).toThrow(/needs an executor/);
    expect(() => toolEffect(localTools({}), { policy: { maxAttempts: 0 } })).toThrow(/maxAttempts/);
    expect(() => toolEffect(localTools({}), { maxOutputBytes: -1 })).toThrow(/maxOutputBytes/);
  });

  test("one whose schema nothing can describe is told of when models are to be told", async () => {
    const input = { "~standard": { version: 1, vendor: "odd", validate: (value: unknown) => ({ value }) } } as never;
    const executor = localTools({ odd: { input, run: () => 1 } });
    expect(await resultOf(executor, call("odd"))).toMatchObject({ success: true });
    await expect(executor.tools()).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });
});

describe("one failing tool does not fail the others", () => {
  const executor = localTools({
    works: { run: () => "fine" },
    throws: {
      run: () => {
        throw Object.assign(new Error("no such file"), { code: "ENOENT", stack: "secret path" });
      },
    },
    rejects: { run: async () => Promise.reject(new TypeError("")) },
    text: { run: () => Promise.reject("plain text") },
    nothing: { run: () => Promise.reject(undefined) },
    object: { run: () => Promise.reject({ status: 500, body: "down" }) },
    hostile: {
      run: () =>
        Promise.reject(
          new Proxy(
            {},
            {
              get: () => {
                throw new Error("hostile");
              },
            },
          ),
        ),
    },
    long: { run: () => Promise.reject(new Error("x".repeat(100_000))) },
  });
  const errors: [string, object][] = [
    ["throws", { code: "ENOENT", message: "no such file" }],
    ["rejects", { message: "TypeError" }],
    ["text", { message: "plain text" }],
    ["nothing", { message: "undefined" }],
    ["object", { message: '{"status":500,"body":"down"}' }],
    ["hostile", { message: "a value was thrown that cannot be read (object)" }],
    ["long", { message: `${"x".repeat(2_000)}...` }],
  ];

  test("each has its result, in the order of the calls", async () => {
    const results = await carryOut(executor, [...errors.map(([name]) => call(name)), call("works")]);
    expect(results.slice(0, -1).map(({ name, success, output, error }) => [name, success, output, error])).toEqual(
      errors.map(([name, error]) => [name, false, null, error]),
    );
    expect(results.at(-1)).toMatchObject({ success: true, output: "fine" });
  });

  test("an unknown tool is named, with the nearest one", async () => {
    const [near, far, proto, inherited] = await carryOut(executor, [
      call("work"),
      call("zzz"),
      call("__proto__"),
      call("constructor"),
    ]);
    expect(near).toMatchObject({ name: "work", success: false, error: { code: "TOOL_UNKNOWN" } });
    expect(near?.error?.message).toContain('Did you mean "works"?');
    expect(far?.error?.message).toContain("The tools are: works, throws");
    for (const other of [proto, inherited]) expect(other).toMatchObject({ success: false, error: { code: "TOOL_UNKNOWN" } });
  });

  test("tools may be named as parts of every object are", async () => {
    const named = Object.fromEntries(["__proto__", "constructor", "toString"].map((name) => [name, { run: () => name }]));
    const tools = Object.create(null) as typeof named;
    for (const name of Object.keys(named)) Object.defineProperty(tools, name, { value: named[name], enumerable: true });
    const results = await carryOut(localTools(tools), [call("__proto__"), call("constructor"), call("toString")]);
    expect(results.map(({ output }) => output)).toEqual(["__proto__", "constructor", "toString"]);
  });

  test.each([
    ["broken JSON", '{"city": "Ro'],
    ["a list", [1]],
    ["a number", 3],
    ["text that is no JSON", "Rome"],
  ])("arguments that are %s are refused before the tool sees them", async (_, given) => {
    let calls = 0;
    const length = { input: z.object({ city: z.string() }), run: () => (calls += 1) };
    expect(await resultOf(localTools({ length }), call("length", given))).toMatchObject({
      success: false,
      error: { code: "TOOL_ARGUMENTS_INVALID", message: expect.stringContaining('the arguments of tool "length" do not fit') },
    });
    expect(calls).toBe(0);
  });

  const inner = { type: "object", properties: { x: { $ref: "#/$defs/a" } } };
  const nested = JSON.parse(`${'{"x":'.repeat(60)}{}${"}".repeat(60)}`);
  test.each([
    [
      "a pattern that backtracks",
      { type: "object", properties: { text: { type: "string", pattern: "^(a+)+$" } } },
      { text: `${"a".repeat(60)}!` },
    ],
    ["a schema within itself, twice at each level", { $ref: "#/$defs/a", $defs: { a: { allOf: [inner, inner] } } }, nested],
    [
      "many things that are to be unique",
      { type: "array", uniqueItems: true, items: {} },
      Array.from({ length: 30_000 }, (_, i) => ({ i })),
    ],
    [
      "many values to choose from for each of many",
      { type: "array", items: { enum: Array.from({ length: 50_000 }, (_, i) => ({ i })) } },
      Array.from({ length: 5_000 }, (_, i) => ({ i: -i - 1 })),
    ],
  ])("a JSON Schema with %s is cut off, and its tool is not called", async (what, schema, given) => {
    const inputs = [
      { input: schema, run: () => "called" },
      tool({ inputSchema: jsonSchema(schema as never), execute: async () => "called" }),
    ];
    // Each takes a second; tools of the AI SDK go the same way.
    for (const guarded of what === "a pattern that backtracks" ? inputs : inputs.slice(0, 1)) {
      expect(await resultOf(localTools({ guarded }), call("guarded", given as never))).toMatchObject({
        success: false,
        error: { code: "TOOL_ARGUMENTS_INVALID", message: expect.stringContaining("cannot be checked") },
      });
    }
  });
});

describe("an output", () => {
  const circle: { self?: unknown } = {};
  circle.self = circle;
  const deep = JSON.parse(`${"[".repeat(400)}${"]".repeat(400)}`);
  test.each([
    ["undefined is null", undefined, null],
    ["a Date is its text", { at: new Date(0) }, { at: "1970-01-01T00:00:00.000Z" }],
    [
      "an instance is its members",
      new (class Point {
        x = 1;
      })(),
      { x: 1 },
    ],
    ["a key with an escape stays as it is", { "C:\\": 1, "C:\\temp": 2 }, { "C:\\": 1, "C:\\temp": 2 }],
  ])("%s", async (_, output, recorded) => {
    expect(await resultOf(localTools({ give: { run: () => output } }), call("give"))).toMatchObject({
      success: true,
      output: recorded,
    });
  });

  test.each([
    ["a circle", circle, /circular/i],
    ["a bigint", 3n, /BigInt/],
    ["one with __proto__", JSON.parse('{"__proto__": 1}'), /__proto__/],
    ["one nested too deeply", deep, /nested deeper/],
    ["one that is too large", "x".repeat(2_000_000), /takes 2000002 bytes, and the limit is 1048576/],
    [
      "one that throws when read",
      {
        toJSON: () => {
          throw new Error("no reading");
        },
      },
      /no reading/,
    ],
  ])("%s is a failure that says that the tool was carried out", async (_, output, problem) => {
    const result = await resultOf(localTools({ give: { run: () => output } }), call("give"));
    expect(result).toMatchObject({ success: false, output: null, error: { code: "TOOL_OUTPUT_INVALID" } });
    expect(result.error?.message).toMatch(problem);
    expect(result.error?.message).toMatch(/It was carried out/);
  });

  test("may refer to artifacts that there are, and only to those", async () => {
    const executor = localTools({
      draw: { run: async (_, { artifacts }) => ({ image: await artifacts.put("<svg/>") }) },
      lie: { run: () => [{ deep: { $artifact: "a".repeat(64) } }] },
    });
    const [drawn, lied] = await carryOut(executor, [call("draw"), call("lie")]);
    expect(drawn).toMatchObject({ success: true, output: { image: { sizeBytes: 6 } } });
    expect(lied).toMatchObject({ success: false, output: null, error: { code: "TOOL_OUTPUT_INVALID" } });
  });

  test("that is too large for the ledger stands beside it, and its result keeps its shape", async () => {
    const rows = Array.from({ length: 5_000 }, (_, n) => ({ n, text: "x".repeat(50) }));
    const executor = localTools({ query: { run: () => rows } });
    await using runtime = await open(executor);
    const { runId } = await runtime.start(batch, { vars: { calls: [call("query", {}, "q")] } });
    const { results } = (await runtime.result(runId)) as unknown as { results: ToolResult[] };
    expect(results).toEqual([
      {
        name: "query",
        callId: "q",
        success: true,
        output: { $artifact: expect.any(String), contentType: "application/json", sizeBytes: JSON.stringify(rows).length },
        error: null,
      },
    ]);
    expect(await (await runtime.artifacts.open(results[0]?.output as never)).json()).toEqual(rows);
    const runtimeOptions = { limits: { offloadBytes: Number.POSITIVE_INFINITY } };
    expect(await resultOf(executor, call("query"), { runtime: runtimeOptions })).toMatchObject({ output: rows });
    // A single text is replaced by itself.
    const page = localTools({ page: { run: () => ({ title: "Rain", text: "x".repeat(300_000) }) } });
    expect(await resultOf(page, call("page"))).toMatchObject({ output: { title: "Rain", text: { sizeBytes: 300_000 } } });
  });

  test.each([
    [20, {}],
    [150, { limits: { jsonDepth: 200 } }],
    [15, { limits: { jsonDepth: 20 } }],
  ])("of %i levels is recorded, or refused, but fails no run", async (levels, runtime) => {
    const output = JSON.parse("[".repeat(levels) + "]".repeat(levels));
    const result = await resultOf(localTools({ give: { run: () => output } }), call("give"), { runtime });
    expect(result).toMatchObject(levels === 20 ? { success: true, output } : { error: { code: "TOOL_OUTPUT_INVALID" } });
  });

  test("is not a wait: only executors wait", async () => {
    const result = await resultOf(localTools({ ask: { run: () => wait({ reason: "user", again: true }) } }), call("ask"));
    expect(result).toMatchObject({ success: false, error: { code: "TOOL_OUTPUT_INVALID" } });
  });

  test("has the limit that its tool says, or that all have", async () => {
    const tools = { small: { run: () => "x".repeat(50), maxOutputBytes: 40 }, free: { run: () => "x".repeat(50) } };
    expect((await carryOut(localTools(tools), [call("small"), call("free")])).map(({ success }) => success)).toEqual([
      false,
      true,
    ]);
    expect(await resultOf(localTools(tools), call("free"), { effect: { maxOutputBytes: 40 } })).toMatchObject({ success: false });
  });
});

describe("a tool that hangs", () => {
  test("has its time, is told to stop, and does not keep the others", async () => {
    const clock = testClock();
    const signals: AbortSignal[] = [];
    const executor = localTools(
      {
        hang: {
          timeoutMs: 5_000,
          run: (_, { signal }) => {
            signals.push(signal);
            return new Promise(() => undefined);
          },
        },
        quick: { run: () => "done" },
      },
      { parallel: true },
    );
    const runtime = await open(executor, { runtime: { clock }, store: await memoryStore({ clock }) });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("hang", {}, "h"), call("quick")] } });
    await clock.advance(4_999);
    expect(signals.map(({ aborted }) => aborted)).toEqual([false]);
    await clock.advance(1);
    const { results } = (await moved(runtime.result(runId), clock, 10)) as { results: ToolResult[] };
    expect(results).toMatchObject([
      {
        callId: "h",
        success: false,
        error: {
          code: "TOOL_TIMEOUT",
          message: 'tool "hang" did not answer within 5000 ms. It may have done its work all the same.',
        },
      },
      { success: true, output: "done" },
    ]);
    expect(signals.map(({ aborted }) => aborted)).toEqual([true]);
    await stopped(runtime, clock);
  });

  test("in its schema has no more time than its tool", async () => {
    const clock = testClock();
    const input = z.object({}).refine(() => new Promise<boolean>(() => undefined));
    const runtime = await open(localTools({ look: { timeoutMs: 1_000, input, run: () => "never" } }), {
      runtime: { clock },
      store: await memoryStore({ clock }),
    });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("look")] } });
    expect(await moved(runtime.result(runId), clock, 500)).toMatchObject({ results: [{ error: { code: "TOOL_TIMEOUT" } }] });
    expect(clock.now()).toBeLessThan(testClock().now() + 10_000);
    await stopped(runtime, clock);
  });

  test("is not asked for more pieces", async () => {
    const clock = testClock();
    let isClosed = false;
    const executor = localTools({
      drip: {
        timeoutMs: 1_000,
        run: async function* (_, context) {
          try {
            for (;;) {
              await new Promise<void>((resolve) => void context.clock.setTimer(resolve, 400));
              yield "drop";
            }
          } finally {
            isClosed = true;
          }
        },
      },
    });
    const runtime = await open(executor, { runtime: { clock }, store: await memoryStore({ clock }) });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("drip")] } });
    expect(await moved(runtime.result(runId), clock, 100)).toMatchObject({ results: [{ error: { code: "TOOL_TIMEOUT" } }] });
    await clock.advance(400);
    expect(isClosed).toBe(true);
    await stopped(runtime, clock);
  });

  test("goes on while it reports progress", async () => {
    const clock = testClock();
    const work = async (context: EffectContext): Promise<string> => {
      for (let i = 0; i < 4; i++) {
        await new Promise<void>((resolve) => void context.clock.setTimer(resolve, 800));
        context.progress();
      }
      return "slowly";
    };
    const runtime = await open(localTools({ slow: { timeoutMs: 1_000, run: (_, context) => work(context) } }), {
      runtime: { clock },
      store: await memoryStore({ clock }),
    });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("slow")] } });
    await clock.advance(3_300);
    expect(await moved(runtime.result(runId), clock, 10)).toMatchObject({ results: [{ success: true, output: "slowly" }] });
    expect(clock.pending.filter(({ at }) => at <= clock.now() + 1_000 && at > clock.now() + 900)).toEqual([]);
    await stopped(runtime, clock);
  });
});

describe("attempts", () => {
  test("what a tool throws as definite is tried again, and what the last attempt throws is its result", async () => {
    const attempts: Record<string, number> = {};
    const failing = (name: string, error: () => Error) => () => {
      attempts[name] = (attempts[name] ?? 0) + 1;
      if (name === "mends" && attempts[name] === 2) return "mended";
      throw error();
    };
    const executor = localTools({
      busy: { run: failing("busy", () => definite(new Error("busy"))) },
      mends: { run: failing("mends", () => definite(new Error("busy"))) },
      never: { run: failing("never", () => permanent(new Error("never"))) },
      plain: { run: failing("plain", () => new Error("plain")) },
    });
    const policy = { maxAttempts: 4, backoff: { initialMs: 0 } };
    const names = ["busy", "mends", "never", "plain"];
    const results = await carryOut(
      executor,
      names.map((name) => call(name)),
      { effect: { policy } },
    );
    expect(attempts).toEqual({ busy: 4, mends: 2, never: 1, plain: 1 });
    expect(results.map(({ success, output, error }) => [success, output, error?.message])).toEqual([
      [false, null, "busy"],
      [true, "mended", undefined],
      [false, null, "never"],
      [false, null, "plain"],
    ]);
  });
});

describe("calls of one turn", () => {
  /** Tools that are let go by hand, and what of them was under way together. */
  function watched(names: Record<string, object>) {
    const log: string[] = [];
    const run = (name: string) => async () => {
      log.push(`${name} begins`);
      await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setImmediate(resolve));
      log.push(`${name} ends`);
      return name;
    };
    return {
      log,
      executor: localTools(
        Object.fromEntries(Object.entries(names).map(([name, settings]) => [name, { ...settings, run: run(name) }])),
      ),
    };
  }

  test("are carried out one at a time, in order, where a tool may change things", async () => {
    const { log, executor } = watched({ a: {}, b: {}, c: {} });
    const results = await carryOut(executor, [call("a"), call("b"), call("c")]);
    expect(log).toEqual(["a begins", "a ends", "b begins", "b ends", "c begins", "c ends"]);
    expect(results.map(({ output }) => output)).toEqual(["a", "b", "c"]);
  });

  test("stay in their order when one is to be tried again", async () => {
    const log: string[] = [];
    const make = (): string => {
      log.push("make");
      if (log.length === 1) throw definite(new Error("busy"));
      return "made";
    };
    const executor = localTools({
      make: { run: make },
      fill: { run: () => log.push("fill") },
      read: { run: () => log.push("read"), speculative: true },
    });
    await carryOut(executor, [call("make"), call("fill"), call("read")]);
    expect(log).toEqual(["make", "read", "make", "fill"]);
  });

  test("are carried out together where they only read, or say that they may be", async () => {
    const { log, executor } = watched({
      read: { speculative: true },
      free: { parallel: true },
      alone: { speculative: true, parallel: false },
      write: {},
    });
    await carryOut(executor, [call("read"), call("free"), call("read"), call("alone"), call("write")]);
    expect(log.slice(0, 4).sort()).toEqual(["alone begins", "free begins", "read begins", "read begins"]);
    expect(log.indexOf("write begins")).toBeGreaterThan(log.indexOf("alone ends"));
  });

  test("may be none", async () => {
    expect(await carryOut(localTools({}), [])).toEqual([]);
  });

  test("may be two hundred", async () => {
    const executor = localTools({
      square: { input: z.object({ n: z.number() }), run: ({ n }) => n * n, speculative: true },
      step: { run: () => 1 },
    });
    const many = Array.from({ length: 200 }, (_, n) => (n % 4 === 0 ? call("step") : call("square", { n })));
    const results = await carryOut(executor, many);
    expect(results.map(({ callId, output }) => [callId, output])).toEqual(
      many.map(({ callId }, n) => [callId, n % 4 === 0 ? 1 : n * n]),
    );
  });

  test("of one callId, only the first is carried out", async () => {
    let calls = 0;
    const executor = localTools({ pay: { run: () => (calls += 1) } });
    const [first, second] = await carryOut(executor, [call("pay", {}, "same"), call("pay", {}, "same")]);
    expect(first).toMatchObject({ success: true, output: 1 });
    expect(second).toMatchObject({ callId: "same", success: false, error: { code: "TOOL_CALL_INVALID" } });
    expect(calls).toBe(1);
  });

  test("that are none are refused where they are planned", () => {
    expect(() => toolCalls("calls" as never)).toThrow(/needs a list of calls/);
    expect(() => toolCalls([{ name: 3 }] as never)).toThrow(/call 0 of toolCalls\(\) is not/);
    expect(() => toolCalls([null] as never)).toThrow(/call 0 of toolCalls\(\) is not/);
  });

  test("that were planned by hand and are none have that as their result", async () => {
    const payloads = [null, 3, [], { name: { toString: 1 } }, { name: "works" }];
    const byHand = defineWorkflow({
      id: "by-hand",
      effects: [toolCall],
      entry: "call",
      nodes: {
        call: () =>
          ({
            effect: {
              type: "all",
              payload: { effects: payloads.map((payload) => ({ type: "tool_call", payload })) },
              resultKey: "results",
            },
            nextNode: "end",
          }) as never,
        end: ({ vars }) => complete({ results: vars.results }),
      },
    });
    await using runtime = await open(localTools({ works: { run: () => 1 } }), {
      runtime: { workflows: [byHand] },
      store: await memoryStore(),
    });
    const { runId } = await runtime.start(byHand);
    const { results } = (await runtime.result(runId)) as { results: ToolResult[] };
    expect(results.map(({ error }) => error?.code)).toEqual(payloads.map(() => "TOOL_CALL_INVALID"));
  });
});

test("what is recorded of a call is its name, its id and its arguments, and its result once", async () => {
  await using runtime = await open(localTools({ add: { input: z.object({ a: z.number() }), run: ({ a }) => a + 1 } }));
  const { runId } = await runtime.start(batch, { vars: { calls: [call("add", { a: 1 }, "one")] } });
  await runtime.result(runId);
  const records = await runtime.ledger(runId);
  const result = { name: "add", callId: "one", success: true, output: 2, error: null };
  expect(records.filter(({ effectId }) => effectId === "1.0").map(({ kind, data }) => [kind, data])).toMatchObject([
    ["effect_started", { intent: { type: "tool_call", payload: { name: "add", callId: "one" } } }],
    ["effect_completed", { result }],
  ]);
});
