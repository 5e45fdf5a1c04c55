// People who decide about tool calls. Holds A1-A3 of approval.ts, over restarts and crashes.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRuntime, type Json, type JsonObject, type Run, type Runtime } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { testClock } from "abstractruntime/testing";
import {
  combineTools,
  localTools,
  passthroughTools,
  type ToolCall,
  toolEffect,
  type ToolExecutor,
  toolSuccess,
  withApproval,
} from "abstractruntime/tools";
import { tool } from "ai";
import * as version6 from "ai-v6";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import { moved, refusal, scenario as onEveryStore, stopped, type StoreKind, type World } from "../../scenarios/harness.ts";
import { batch, call, carryOut } from "./batch.ts";

const kinds: readonly StoreKind[] = ["memory", "sqlite"];
const scenario = (name: string, play: (world: World) => Promise<void>): void => onEveryStore(name, play, kinds);

/** Tools that remember what they were called with. */
function remembering() {
  const sent: unknown[] = [];
  const mail = z.object({ to: z.string().includes("@"), text: z.string() });
  const executor = localTools({
    send: { input: mail, needsApproval: true, run: (input: { to: string; text: string }) => `sent ${sent.push(input)}` },
    read: { run: () => "three letters", speculative: true },
  });
  return { sent, executor };
}

const letter = { to: "ann@example.org", text: "Hello" };
const digestOf = (name: string, given: Json): string =>
  createHash("sha256")
    .update(JSON.stringify([name, given]))
    .digest("hex");
const codeOf = (executor: ToolExecutor) => ({ workflows: [batch], effects: [toolEffect(executor)] });
const begin = (world: World, calls: ToolCall[]): Promise<Run> => world.run(batch, { calls });
const outputOf = (run: Run): JsonObject[] => (run.output as unknown as { results: JsonObject[] }).results;

scenario("the run waits with the call and its digest, and goes on when it is allowed", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const asked = await begin(world, [call("send", letter, "m1"), call("read", {}, "r1")]);
  const digest = digestOf("send", letter);
  expect(asked).toMatchObject({
    status: "waiting",
    waits: [
      {
        reason: "user",
        choices: ["allow", "deny"],
        prompt: 'Allow tool "send" with {"to":"ann@example.org","text":"Hello"}?',
        details: { toolCall: { name: "send", callId: "m1", arguments: letter }, digest },
      },
    ],
  });
  expect(sent).toEqual([]);
  await world.with((runtime) => runtime.respond(asked.runId, { decision: "allow", digest }, { actorId: "boss" }));
  await world.settle();
  const run = await world.get(asked.runId);
  expect(outputOf(run)).toEqual([
    {
      name: "send",
      callId: "m1",
      success: true,
      output: "sent 1",
      error: null,
      approval: { decision: "allow", actorId: "boss" },
    },
    { name: "read", callId: "r1", success: true, output: "three letters", error: null },
  ]);
  const delivered = (await world.with((runtime) => runtime.ledger(asked.runId))).filter(({ kind }) => kind === "delivered");
  expect(delivered).toMatchObject([{ actorId: "boss", data: { outcome: "again" } }]);
  expect(sent).toEqual([letter]);
});

scenario("a call that is denied is not carried out, and its result says why", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const { runId } = await begin(world, [call("send", letter, "m1")]);
  const run = await world.respond(runId, { decision: "deny", reason: "not on a Sunday" });
  expect(outputOf(run)).toEqual([
    {
      name: "send",
      callId: "m1",
      success: false,
      output: null,
      error: { code: "TOOL_DENIED", message: 'the call of tool "send" was denied: not on a Sunday. Nothing was carried out.' },
      approval: { decision: "deny", reason: "not on a Sunday" },
    },
  ]);
  expect(sent).toEqual([]);
});

scenario("a plain text decides, too", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const first = await begin(world, [call("send", letter)]);
  expect(outputOf(await world.respond(first.runId, "allow"))).toMatchObject([{ success: true }]);
  const second = await begin(world, [call("send", letter)]);
  expect(outputOf(await world.respond(second.runId, "deny"))).toMatchObject([{ error: { code: "TOOL_DENIED" } }]);
  expect(sent).toHaveLength(1);
});

scenario("changed arguments are checked, asked for again where they do not fit, and recorded", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const { runId } = await begin(world, [call("send", letter)]);
  const again = await world.respond(runId, { decision: "allow", arguments: { to: "nobody", text: "Hi" } });
  expect(again.status).toBe("waiting");
  expect(again.waits[0]?.prompt).toMatch(/^The changed arguments were refused: .*to: .* Allow tool "send"/);
  expect(again.waits[0]?.details).toMatchObject({ toolCall: { arguments: letter }, problem: expect.any(String) });
  const run = await world.respond(runId, {
    decision: "allow",
    arguments: { to: "bob@example.org", text: "Hi" },
    reason: "wrong man",
  });
  const changed = { to: "bob@example.org", text: "Hi" };
  expect(outputOf(run)).toMatchObject([
    { success: true, output: "sent 1", approval: { decision: "allow", reason: "wrong man", arguments: changed } },
  ]);
  expect(sent).toEqual([changed]);
});

scenario("of several decisions the last one counts, though an earlier one would fit by now", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const { runId } = await begin(world, [call("send", letter)]);
  await world.respond(runId, { decision: "allow", arguments: { to: "nobody", text: "Hi" } });
  // The new code takes what the old one refused.
  await world.use(codeOf(localTools({ send: { run: (input) => sent.push(input) } })));
  expect(outputOf(await world.respond(runId, "deny"))).toMatchObject([{ error: { code: "TOOL_DENIED" } }]);
  expect(sent).toEqual([]);
});

test("what looks at a call, or carries it out, changes neither what is shown nor what is recorded", async () => {
  const seen: Json[] = [];
  const run = (input: unknown): string => {
    const given = input as JsonObject;
    seen.push({ ...given });
    given.cents = 999_999;
    return "paid";
  };
  const look = ({ arguments: given }: ToolCall): boolean => {
    (given as JsonObject).cents = 1;
    return true;
  };
  const executor = withApproval(localTools({ pay: { run } }), { needsApproval: look });
  await using runtime = await createRuntime({ ...codeOf(executor), store: memoryStore(), scheduler: false });
  const decided = async (answer: unknown): Promise<[Run, JsonObject | undefined]> => {
    const { runId } = await runtime.start(batch, { vars: { calls: [call("pay", { cents: 5_000 })] } });
    const asked = await runtime.tick(runId);
    await runtime.respond(runId, answer as never);
    return [asked, outputOf(await runtime.tick(runId))[0]];
  };
  const [asked] = await decided("allow");
  expect(asked.waits).toMatchObject([
    { prompt: 'Allow tool "pay" with {"cents":5000}?', details: { toolCall: { arguments: { cents: 5_000 } } } },
  ]);
  const [, changed] = await decided({ decision: "allow", arguments: { cents: 5 } });
  expect(changed).toMatchObject({ approval: { arguments: { cents: 5 } } });
  const [, text] = await decided({ decision: "allow", arguments: '{"cents":6}' });
  expect(text).toMatchObject({ approval: { arguments: { cents: 6 } } });
  expect(seen).toEqual([{ cents: 5_000 }, { cents: 5 }, { cents: 6 }]);
});

test("a long text in the arguments hides nothing that stands behind it", async () => {
  const { executor } = remembering();
  await using runtime = await createRuntime({ ...codeOf(executor), store: memoryStore(), scheduler: false });
  const { runId } = await runtime.start(batch, {
    vars: { calls: [call("send", { text: "x".repeat(5_000), to: "eve@example.org" })] },
  });
  const { waits } = await runtime.tick(runId);
  expect(waits[0]?.prompt).toMatch(
    /^Allow tool "send" with \{"text":"x{100}\.\.\. \(4900 more characters\)","to":"eve@example.org"\}\?$/,
  );
});

test("whoever carries a call out does not say that somebody allowed it", async () => {
  const approval = { decision: "allow", actorId: "boss" } as const;
  const executor: ToolExecutor = { execute: async (asked) => ({ ...toolSuccess(asked, 1), approval }) };
  expect(await carryOut(executor, [call("pay")])).toEqual([expect.not.objectContaining({ approval })]);
});

scenario("what is no decision about this call is refused, and the run waits on", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const { runId } = await begin(world, [call("send", letter)]);
  const refused = [
    "maybe",
    "",
    { decision: "allow", digest: digestOf("send", { ...letter, to: "eve@example.org" }) },
    { decision: "yes" },
    { text: "deny", decision: "allow" },
    { text: "allow", decision: "allow" },
    { decision: "allow", reason: 3 },
    { decision: "allow", argument: {} },
    { arguments: letter },
    { reason: "none" },
    {},
    null,
    ["allow"],
  ];
  for (const answer of refused)
    expect([answer, await refusal(world.with((runtime) => runtime.respond(runId, answer as never)))]).toEqual([
      answer,
      expect.stringMatching(/^ANSWER_INVALID/),
    ]);
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  expect(outputOf(await world.respond(runId, "allow"))).toMatchObject([{ success: true }]);
  expect(sent).toHaveLength(1);
});

scenario("of two answers at once, one counts", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const { runId } = await begin(world, [call("send", letter)]);
  const ends = await world.with((runtime) =>
    Promise.allSettled([runtime.respond(runId, { decision: "deny", reason: "first" }), runtime.respond(runId, "allow")]),
  );
  expect(ends.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  await world.settle();
  const [result] = outputOf(await world.get(runId));
  expect(result?.success).toBe(ends[1]?.status === "fulfilled");
  expect(sent).toHaveLength(ends[1]?.status === "fulfilled" ? 1 : 0);
  expect(await refusal(world.with((runtime) => runtime.respond(runId, "allow")))).toMatch(
    /^(NOT_WAITING|RUN_ENDED|ALREADY_ANSWERED)/,
  );
});

scenario("each of several calls is decided by itself", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const calls = [1, 2, 3].map((n) => call("send", { ...letter, text: String(n) }, `m${n}`));
  const asked = await begin(world, calls);
  expect(await refusal(world.with((runtime) => runtime.respond(asked.runId, "allow")))).toMatch(/^WAIT_AMBIGUOUS/);
  const keys = asked.waits.map(({ waitKey }) => waitKey);
  expect(new Set(keys).size).toBe(3);
  await world.resume(asked.runId, keys[2]!, "allow");
  await world.resume(asked.runId, keys[0]!, { decision: "deny" });
  const run = await world.resume(asked.runId, keys[1]!, { decision: "allow" });
  expect(outputOf(run).map(({ callId, success }) => [callId, success])).toEqual([
    ["m1", false],
    ["m2", true],
    ["m3", true],
  ]);
  expect((sent as { text: string }[]).map(({ text }) => text)).toEqual(["3", "2"]);
});

scenario("a run that is cancelled while somebody decides carries nothing out", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const { runId } = await begin(world, [call("send", letter)]);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled", waits: [] });
  expect(await refusal(world.with((runtime) => runtime.respond(runId, "allow")))).toMatch(/^(NOT_WAITING|RUN_ENDED)/);
  expect(sent).toEqual([]);
});

scenario("a decision holds whatever the code has become meanwhile", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const denied = await begin(world, [call("send", letter)]);
  const allowed = await begin(world, [call("send", letter)]);
  // The new code asks nobody.
  await world.use(codeOf(localTools({ send: { run: (input) => sent.push(input) } })));
  expect(outputOf(await world.respond(denied.runId, "deny"))).toMatchObject([{ success: false, error: { code: "TOOL_DENIED" } }]);
  expect(outputOf(await world.respond(allowed.runId, "allow"))).toMatchObject([{ success: true }]);
  expect(sent).toEqual([letter]);
});

scenario("a tool that is gone when its call is allowed is an unknown one", async (world) => {
  const { executor, sent } = remembering();
  await world.use(codeOf(executor));
  const { runId } = await begin(world, [call("send", letter)]);
  await world.use(codeOf(withApproval(localTools({ read: { run: () => 1 } }), { needsApproval: true })));
  expect(outputOf(await world.respond(runId, "allow"))).toMatchObject([{ success: false, error: { code: "TOOL_UNKNOWN" } }]);
  expect(sent).toEqual([]);
});

scenario("nobody is asked about a call that cannot be carried out", async (world) => {
  const { executor } = remembering();
  await world.use(codeOf(withApproval(executor, { needsApproval: true })));
  const run = await begin(world, [call("send", { to: "nobody" }), call("nap"), call("send", '{"to": "a')]);
  expect(outputOf(run).map(({ error }) => (error as JsonObject).code)).toEqual([
    "TOOL_ARGUMENTS_INVALID",
    "TOOL_UNKNOWN",
    "TOOL_ARGUMENTS_INVALID",
  ]);
});

scenario("a call of a tool elsewhere is decided first, and then waits for its result", async (world) => {
  await world.use(codeOf(withApproval(passthroughTools(), { needsApproval: ["pay"] })));
  const asked = await begin(world, [call("pay", { cents: 5 }, "p")]);
  expect(asked.waits).toMatchObject([{ reason: "user" }]);
  const waiting = await world.respond(asked.runId, { decision: "allow", arguments: { cents: 4 } });
  expect(waiting.waits).toMatchObject([
    { reason: "job", details: { toolCall: { name: "pay", callId: "p", arguments: { cents: 4 } } } },
  ]);
  const run = await world.resume(asked.runId, waiting.waits[0]!.waitKey, { output: "paid" });
  expect(outputOf(run)).toEqual([
    {
      name: "pay",
      callId: "p",
      success: true,
      output: "paid",
      error: null,
      approval: { decision: "allow", arguments: { cents: 4 } },
    },
  ]);
});

test("another process may answer, while none runs that has the tools", async () => {
  const directory = mkdtempSync(join(tmpdir(), "approval-"));
  try {
    const path = join(directory, "runs.db");
    const { executor, sent } = remembering();
    const within = async <T>(use: (runtime: Runtime) => Promise<T>): Promise<T> => {
      await using runtime = await createRuntime({ ...codeOf(executor), store: await sqliteStore(path), scheduler: false });
      return await use(runtime);
    };
    const { runId } = await within(async (runtime) => {
      const started = await runtime.start(batch, { vars: { calls: [call("send", letter)] } });
      await runtime.tick(started.runId);
      return started;
    });
    const respond = (...words: string[]) => {
      const argv = [...process.execArgv, "src/cli/main.ts", "respond", runId, ...words, "--store", `sqlite:${path}`];
      const { status, stdout, stderr } = spawnSync(process.execPath, argv, { encoding: "utf8", timeout: 150_000 });
      return { status, said: stdout + stderr };
    };
    const digest = digestOf("send", { ...letter, to: "eve@example.org" });
    const refused = respond(JSON.stringify({ decision: "allow", digest }));
    expect(refused).toMatchObject({ said: expect.stringContaining("ANSWER_INVALID") });
    expect(refused.status).not.toBe(0);
    expect(respond("allow")).toMatchObject({ status: 0 });
    expect(outputOf(await within((runtime) => runtime.tick(runId)))).toMatchObject([{ success: true, output: "sent 1" }]);
    expect(sent).toEqual([letter]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
});

describe("who is asked", () => {
  const asks = async (executor: ToolExecutor, asked: ToolCall): Promise<boolean> => {
    await using runtime = await createRuntime({
      ...codeOf(executor),
      store: memoryStore(),
      scheduler: false,
    });
    const { runId } = await runtime.start(batch, { vars: { calls: [asked] } });
    const run = await runtime.tick(runId);
    return run.status === "waiting";
  };
  const delete_ = { run: () => "deleted" };

  test("is told by a function of the call, by names, or for all", async () => {
    const plain = localTools({ delete: delete_, other: delete_ });
    const large = withApproval(plain, { needsApproval: async ({ arguments: given }) => (given as { n: number }).n > 3 });
    expect(await asks(large, call("delete", { n: 4 }))).toBe(true);
    expect(await asks(large, call("delete", { n: 3 }))).toBe(false);
    const named = withApproval(plain, { needsApproval: ["delete"] });
    expect(await asks(named, call("delete"))).toBe(true);
    expect(await asks(named, call("other"))).toBe(false);
    expect(await asks(withApproval(plain, { needsApproval: true }), call("other"))).toBe(true);
  });

  test("while a server is away, no name can be checked: what one may be a misspelling of is not carried out, and all else is", async () => {
    const plain = localTools({ delete: delete_, other: delete_ });
    const server: ToolExecutor = {
      tools: () => Promise.reject(new Error("away")),
      execute: async (asked) => toolSuccess(asked, "removed"),
    };
    for (const needsApproval of [["remove"], ["delte"]]) {
      const named = withApproval(combineTools(plain, server), { needsApproval });
      const [other, deleted] = await carryOut(named, [call("other"), call("delete")]);
      expect(other).toMatchObject({ success: true, output: "deleted" });
      if (needsApproval[0] === "delte") expect(deleted).toMatchObject({ success: false, error: { message: "away" } });
    }
  });

  test.each([
    ["our form", { input: z.object({ n: z.coerce.number() }), needsApproval: ({ n }: { n: number }) => n > 3, run: () => 1 }],
    [
      "version 6",
      version6.tool({ inputSchema: z.object({ n: z.coerce.number() }), needsApproval: async ({ n }) => n > 3, execute: () => 1 }),
    ],
    ["version 7", tool({ inputSchema: z.object({ n: z.coerce.number() }), needsApproval: ({ n }) => n > 3, execute: () => 1 })],
  ])("is told by a tool in the form of %s, of the input that it would get", async (_, form) => {
    const executor = localTools({ take: form as never });
    expect(await asks(executor, call("take", { n: "4" }))).toBe(true);
    expect(await asks(executor, call("take", { n: "3" }))).toBe(false);
  });

  test.each([
    ["as JSON", { n: 4 }],
    ["as a text", '{"n":4}'],
    ["as a broken text", '{"n":4'],
    ["as a text in a text", JSON.stringify('{"n":4}')],
  ])("is told alike of arguments that come %s", async (_, given) => {
    const needsApproval = ({ arguments: seen }: ToolCall) => ((seen as { n?: number }).n ?? 0) > 3;
    expect(await asks(withApproval(passthroughTools(), { needsApproval }), call("take", given))).toBe(true);
    const input = z.object({ n: z.number() });
    const local = localTools({ take: { input, needsApproval: ({ n }) => n > 3, run: () => "taken" } });
    const isRight = !JSON.stringify(given).endsWith('4"') && !JSON.stringify(given).includes("\\\\");
    for (const executor of [local, withApproval(localTools({ take: { input, run: () => "taken" } }), { needsApproval })]) {
      expect(await asks(executor, call("take", given))).toBe(isRight);
      if (!isRight)
        expect(await carryOut(executor, [call("take", given)])).toMatchObject([{ error: { code: "TOOL_ARGUMENTS_INVALID" } }]);
    }
  });

  test("when the function that tells throws, nothing is carried out", async () => {
    let calls = 0;
    const executor = localTools({
      take: {
        needsApproval: () => {
          throw new Error("cannot tell");
        },
        run: () => (calls += 1),
      },
    });
    expect(await carryOut(executor, [call("take")])).toMatchObject([{ success: false, error: { message: "cannot tell" } }]);
    expect(calls).toBe(0);
  });

  test.each(["needsApproval", "check"] as const)("when %s never says so, the call comes to an end", async (method) => {
    const clock = testClock();
    const asked = { needsApproval: () => true, [method]: () => new Promise<never>(() => undefined) };
    const executor: ToolExecutor = { execute: async (given) => toolSuccess(given, "deleted"), ...asked };
    const effects = [toolEffect(executor, { policy: { timeoutMs: 1_000, backoff: { initialMs: 10 } } })];
    const runtime = await createRuntime({ workflows: [batch], effects, clock, store: await memoryStore({ clock }) });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("delete")] } });
    expect(await moved(runtime.result(runId), clock, 500)).toMatchObject({
      results: [{ success: false, error: { code: "EFFECT_UNCERTAIN" } }],
    });
    await stopped(runtime, clock);
  });

  test.each([[undefined], [false], ["delete"], [{}]])("%o is refused", (needsApproval) => {
    expect(() => withApproval(localTools({}), { needsApproval } as never)).toThrow(/needsApproval is true, a list of names/);
  });
});

describe("a process that dies", () => {
  scenario("anywhere while a call is decided leaves one question, and one letter", async (world) => {
    const ends = new Set<string>();
    for (const after of [false, true])
      for (let commits = 1; commits <= 6; commits++) {
        const { executor, sent } = remembering();
        await world.use(codeOf(executor));
        const { runId } = await world.with((runtime) => runtime.start(batch, { vars: { calls: [call("send", letter)] } }));
        world.killAt(commits, after);
        await goOn(world);
        if ((await world.get(runId)).status === "waiting") await answer(world, runId);
        await goOn(world);
        if ((await world.get(runId)).status === "waiting") await answer(world, runId);
        await goOn(world);
        const run = await world.get(runId);
        expect([commits, after, run.status]).toEqual([commits, after, "completed"]);
        const [result] = outputOf(run);
        if (result?.success === true) expect(sent).toHaveLength(1);
        // Cut off when it was about to be sent, or just after, it is not sent again, and the result says that it may have been.
        else {
          expect(result).toMatchObject({ error: { code: "EFFECT_UNCERTAIN" }, approval: { decision: "allow" } });
          expect(sent.length).toBeLessThan(2);
        }
        ends.add(`${result?.success}`);
        world.disarm();
      }
    expect([...ends].sort()).toEqual(["false", "true"]);
  });

  /** Whatever the dead process was doing, the next one takes over. */
  async function goOn(world: World): Promise<void> {
    for (let turns = 0; turns < 3; turns++) {
      await world.settle().catch(() => undefined);
      if (world.killed) await world.crash();
      await world.advance(1_000);
    }
  }

  async function answer(world: World, runId: string): Promise<void> {
    await world.with((runtime) => runtime.respond(runId, "allow")).catch(() => undefined);
    if (world.killed) await world.crash();
  }
});
