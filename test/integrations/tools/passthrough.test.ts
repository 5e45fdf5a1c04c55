// Tools that somebody else carries out, and several executors as one.
import { createRuntime, definite, isError, type Json, type JsonObject, type Run, wait } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import {
  combineTools,
  localTools,
  passthroughTools,
  type ToolCall,
  toolEffect,
  type ToolExecutor,
  thrownFailure,
  type ListingExecutor,
  toolSuccess,
  withApproval,
} from "abstractruntime/tools";
import { tool } from "ai";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { refusal, scenario as onEveryStore, type World } from "../../scenarios/harness.ts";
import { batch, call, carryOut, open, resultOf } from "./batch.ts";

const scenario = (name: string, play: (world: World) => Promise<void>): void => onEveryStore(name, play, ["memory", "sqlite"]);
const codeOf = (executor: ToolExecutor) => ({ workflows: [batch], effects: [toolEffect(executor)] });
const outputOf = (run: Run): JsonObject[] => (run.output as unknown as { results: JsonObject[] }).results;
const callOf = ({ details }: Run["waits"][number]) => (details as unknown as { toolCall: ToolCall }).toolCall;

scenario("the run waits with the calls, and whoever looks at it answers with their results", async (world) => {
  await world.use(codeOf(passthroughTools()));
  const asked = await world.run(batch, {
    calls: [call("search", { q: "rain" }, "a"), call("pay", '{"cents": 5', "b"), call("nap", {}, "c")],
  });
  expect(asked.status).toBe("waiting");
  expect(asked.waits.map((wait) => [wait.reason, callOf(wait)])).toEqual([
    ["job", { name: "search", callId: "a", arguments: { q: "rain" } }],
    ["job", { name: "pay", callId: "b", arguments: '{"cents": 5' }],
    ["job", { name: "nap", callId: "c", arguments: {} }],
  ]);
  const [search, pay, nap] = asked.waits.map(({ waitKey }) => waitKey) as [string, string, string];
  await world.resume(asked.runId, nap, { name: "nap", callId: "c", success: true, output: null, error: null });
  await world.resume(asked.runId, search, { output: { found: 3 } });
  expect(
    await refusal(world.with((runtime) => runtime.resume(asked.runId, { waitKey: search, payload: { output: 1 } }))),
  ).toMatch(/^ALREADY_ANSWERED/);
  expect(outputOf(await world.resume(asked.runId, pay, { error: { code: "DECLINED", message: "no money" } }))).toEqual([
    { name: "search", callId: "a", success: true, output: { found: 3 }, error: null },
    { name: "pay", callId: "b", success: false, output: null, error: { code: "DECLINED", message: "no money" } },
    { name: "nap", callId: "c", success: true, output: null, error: null },
  ]);
});

scenario("an answer is made a result, or refused where it is given", async (world) => {
  await world.use(codeOf(passthroughTools()));
  const refused: Json[] = [
    "done",
    {},
    { success: true },
    { output: 1, callId: "other" },
    { output: 1, name: "other" },
    { error: { code: 3 } },
    { error: 5 },
    [1],
  ];
  const taken: [Json, JsonObject][] = [
    [{ output: "x" }, { success: true, output: "x", error: null }],
    [
      { output: 1, error: null },
      { success: true, output: 1, error: null },
    ],
    [{ error: "broken" }, { success: false, output: null, error: { message: "broken" } }],
    [
      { output: "partly", success: false },
      { success: false, output: "partly", error: { message: "it failed" } },
    ],
    [
      { output: "partly", error: "then broken" },
      { success: false, output: "partly", error: { message: "then broken" } },
    ],
  ];
  for (const [answer, result] of taken) {
    const { runId } = await world.run(batch, { calls: [call("t", {}, "a")] });
    for (const wrong of refused)
      expect([wrong, await refusal(world.with((runtime) => runtime.respond(runId, wrong)))]).toEqual([
        wrong,
        expect.stringMatching(/^ANSWER_INVALID/),
      ]);
    expect(outputOf(await world.respond(runId, answer))).toEqual([{ name: "t", callId: "a", ...result }]);
  }
});

scenario("a run that is cancelled waits for no tool", async (world) => {
  await world.use(codeOf(passthroughTools()));
  const { runId } = await world.run(batch, { calls: [call("t")] });
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled", waits: [] });
});

scenario("an output that is too large is a failure of its call", async (world) => {
  await world.use({ workflows: [batch], effects: [toolEffect(passthroughTools(), { maxOutputBytes: 100 })] });
  const { runId } = await world.run(batch, { calls: [call("t")] });
  expect(outputOf(await world.respond(runId, { output: "x".repeat(200) }))).toMatchObject([
    { error: { code: "TOOL_OUTPUT_INVALID" } },
  ]);
});

test.each([
  ["a member __proto__", '{"__proto__":{"x":1}}'],
  ["a number that is none", '{"n":1e999}'],
  ["too many levels", `{"n":${"[".repeat(150)}${"]".repeat(150)}}`],
  ["an artifact that nobody has", `{"file":{"$artifact":"${"ab".repeat(32)}"}}`],
])("arguments that could not be recorded (%s) fail no run", async (_, given) => {
  for (const executor of [passthroughTools(), withApproval(passthroughTools(), { needsApproval: true })]) {
    await using runtime = await createRuntime({ ...codeOf(executor), store: memoryStore(), scheduler: false });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("take", given, "t")] } });
    const asked = await runtime.tick(runId);
    expect(asked).toMatchObject({ status: "waiting", waits: [{ details: { toolCall: { name: "take", arguments: given } } }] });
    if (asked.waits[0]?.reason === "user") {
      await runtime.respond(runId, { decision: "allow", arguments: given });
      await runtime.tick(runId);
    }
    await runtime.respond(runId, { output: "taken" });
    expect(outputOf(await runtime.tick(runId))).toMatchObject([{ success: true, output: "taken" }]);
  }
  const local = withApproval(localTools({ take: { run: () => "taken" } }), { needsApproval: true });
  await using runtime = await createRuntime({ ...codeOf(local), store: memoryStore(), scheduler: false });
  const { runId } = await runtime.start(batch, { vars: { calls: [call("take", given)] } });
  const run = await runtime.tick(runId);
  if (run.status === "waiting") await runtime.respond(runId, "allow");
  expect(await runtime.tick(runId)).toMatchObject({ status: "completed" });
});

test("a tool without a function of its own is passed through, with arguments that fit", async () => {
  const executor = localTools({
    plain: { input: z.object({ n: z.number() }) },
    seven: tool({ inputSchema: z.object({ n: z.number() }), outputSchema: z.string() }),
  });
  await using runtime = await open(executor);
  const { runId } = await runtime.start(batch, {
    vars: { calls: [call("plain", { n: "x" }), call("plain", { n: 1 }, "p"), call("seven", { n: 2 }, "s")] },
  });
  let run = await runtime.get(runId);
  while (run.waits.length < 2) {
    await new Promise((resolve) => setImmediate(resolve));
    run = await runtime.get(runId);
  }
  expect(run.waits.map((wait) => callOf(wait).callId)).toEqual(["p", "s"]);
  for (const wait of run.waits)
    await runtime.resume(runId, { waitKey: wait.waitKey, payload: { output: callOf(wait).arguments } });
  expect(await runtime.result(runId)).toMatchObject({
    results: [{ error: { code: "TOOL_ARGUMENTS_INVALID" } }, { output: { n: 1 } }, { output: { n: 2 } }],
  });
});

describe("several executors as one", () => {
  const reads = localTools({ read: { description: "Reads", run: () => "read", speculative: true }, both: { run: () => 1 } });
  const writes = localTools({ write: { run: () => "written" } });

  test("a call goes to the one that has its tool", async () => {
    const executor = combineTools(reads, writes);
    expect((await executor.tools()).map(({ name }) => name)).toEqual(["read", "both", "write"]);
    const results = await carryOut(executor, [call("write"), call("read"), call("rite")]);
    expect(results.map(({ output, error }) => [output, error?.code])).toEqual([
      ["written", undefined],
      ["read", undefined],
      [null, "TOOL_UNKNOWN"],
    ]);
    expect(results[2]?.error?.message).toContain('Did you mean "write"?');
    const of = (name: string) => [executor.speculative?.(call(name)), executor.exclusive?.(call(name))];
    expect([of("read"), of("write"), of("nap")]).toEqual([
      [true, undefined],
      [false, "tools"],
      [undefined, undefined],
    ]);
  });

  test("what no other has is passed through, where that stands last", async () => {
    const executor = combineTools(reads, passthroughTools());
    expect(executor.tools).toBeUndefined();
    await using runtime = await createRuntime({ ...codeOf(executor), store: await memoryStore(), scheduler: false });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("read"), call("fly", {}, "f")] } });
    const run = await runtime.tick(runId);
    expect(run.waits.map(callOf)).toEqual([{ name: "fly", callId: "f", arguments: {} }]);
    expect(() => combineTools(passthroughTools(), reads)).toThrow(/stands last/);
    expect(() => combineTools()).toThrow(/needs executors/);
  });

  test("a call of one that is away goes to no other, which says by now that the tool is its own", async () => {
    let isAway = false;
    const theirs = localTools({ pay: { run: () => "theirs", needsApproval: true } });
    const away: ListingExecutor = {
      ...theirs,
      tools: () => (isAway ? Promise.reject(new Error("away")) : theirs.tools()),
      execute: async (asked, context) => (isAway ? thrownFailure(asked, new Error("away")) : theirs.execute(asked, context)),
    };
    const all = localTools({ free: { run: () => "free" }, pay: { run: () => "stolen" } });
    const other = { ...all, tools: async () => (await all.tools()).filter(({ name }) => isAway || name === "free") };
    const executor = combineTools(away, other);
    expect(await resultOf(executor, call("free"))).toMatchObject({ output: "free" });
    isAway = true;
    await using runtime = await createRuntime({ ...codeOf(executor), store: memoryStore(), scheduler: false });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("pay")] } });
    expect((await runtime.tick(runId)).status).toBe("waiting");
    await runtime.respond(runId, "allow");
    expect(outputOf(await runtime.tick(runId))).toMatchObject([{ success: false, error: { message: "away" } }]);
  });

  test("two tools of one name are refused when models are to be told", async () => {
    await expect(combineTools(reads, localTools({ both: { run: () => 2 } })).tools()).rejects.toThrow(
      /two executors have a tool "both"/,
    );
  });

  test("each decides who is asked about its tools", async () => {
    const executor = combineTools(reads, localTools({ drop: { run: () => 1, needsApproval: true } }));
    expect(await Promise.all(["read", "drop", "nap"].map((name) => executor.needsApproval?.(call(name))))).toEqual([
      false,
      true,
      false,
    ]);
  });

  test("one that cannot say which tools it has fails the calls that only it could have", async () => {
    const dead: ToolExecutor = {
      tools: () => Promise.reject(new Error("no connection")),
      execute: () => Promise.reject(new Error("no connection for a call")),
    };
    const executor = combineTools(reads, dead);
    expect(await resultOf(executor, call("read"))).toMatchObject({ success: true });
    for (const some of [executor, combineTools(dead, reads), combineTools(dead, passthroughTools())])
      expect(await resultOf(some, call("far"))).toMatchObject({ success: false, error: { message: "no connection for a call" } });
    expect(await resultOf(combineTools(dead, reads), call("read"))).toMatchObject({ success: true });
    await expect(executor.tools?.()).rejects.toSatisfy((error) => !isError(error));
  });
});

describe("an executor of one's own", () => {
  test("may be tried again, and ask", async () => {
    const seen: [number, number][] = [];
    const executor: ToolExecutor = {
      async execute(asked, { tries, answers }) {
        seen.push([tries, answers.length]);
        if (answers.length === 1) return toolSuccess(asked, answers[0]?.payload ?? null);
        if (tries < 3) throw definite(new Error("not yet"));
        return wait({ reason: "user", prompt: "What does it give?", again: true });
      },
    };
    await using runtime = await createRuntime({
      workflows: [batch],
      effects: [toolEffect(executor, { policy: { backoff: { initialMs: 0 } } })],
      store: await memoryStore(),
      scheduler: false,
    });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("t")] } });
    expect(await runtime.tick(runId)).toMatchObject({ status: "waiting", waits: [{ prompt: "What does it give?" }] });
    await runtime.respond(runId, "that");
    expect(outputOf(await runtime.tick(runId))).toMatchObject([{ success: true, output: { text: "that" } }]);
    expect(seen).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
      [1, 1],
    ]);
  });

  test("whose wait would be the result fails its call", async () => {
    const executor: ToolExecutor = { execute: async () => wait({ reason: "user", prompt: "?" }) };
    expect(await resultOf(executor, call("t"))).toMatchObject({
      success: false,
      error: { message: expect.stringContaining("again: true") },
    });
  });
});

test("an executor that gives nonsense fails its call, not the run", async () => {
  const nonsense = (given: unknown): ToolExecutor => ({ execute: async () => given as never });
  for (const given of [undefined, null, 3, "text", {}, { success: "yes" }, { reason: "user" }, { success: false, error: 3 }])
    expect(await resultOf(nonsense(given), call("t", {}, "a"))).toMatchObject({
      name: "t",
      callId: "a",
      success: false,
      error: { message: expect.any(String) },
    });
  expect(
    await resultOf(
      {
        execute: () => {
          throw new Error("at once");
        },
      },
      call("t"),
    ),
  ).toMatchObject({ success: false, error: { message: "at once" } });
});
