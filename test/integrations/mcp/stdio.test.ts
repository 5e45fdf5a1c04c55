// A server as a child process: it dies, hangs, floods, speaks nonsense, and ends with whoever started it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFileSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { type EffectContext, isError } from "abstractruntime";
import { type McpTools, mcpTools } from "abstractruntime/mcp";
import { sqliteStore } from "abstractruntime/sqlite";
import { testClock } from "abstractruntime/testing";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../../eventually.ts";
import { moved, stopped } from "../../scenarios/harness.ts";
import { batch, call, carryOut, open, resultOf } from "../tools/batch.ts";
import { results, waiting } from "./runs.ts";
import { type Place, place } from "./servers.ts";

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

// Most of the time goes to starting processes: who does nothing to its server shares one.
let shared: Place;
let tools: McpTools;
beforeAll(() => {
  shared = place();
  tools = mcpTools({ ...shared.stdio(), timeoutMs: 5_000 });
});
afterAll(async () => {
  await tools.close();
  shared[Symbol.dispose]();
});

describe("a server that dies in mid-call", () => {
  test("loses the call, which may have happened; the next one gets a new process", async () => {
    using at = place();
    await using tools = mcpTools(at.stdio({ API_KEY: "sk-planted-4711" }));
    const result = await resultOf(tools, call("die"));
    expect(result).toMatchObject({ success: false, output: null, error: { code: "MCP_CALL_LOST" } });
    expect(result.error?.message).toContain("cannot go on with [secret]");
    expect(await resultOf(tools, call("die"))).toMatchObject({ success: true, output: "alive" });
    expect(at.notes()).toEqual(["die", "die"]);
  });

  test("is asked again when the tool only reads", async () => {
    using at = place();
    await using tools = mcpTools(at.stdio());
    const effect = { policy: { backoff: { initialMs: 1 } } };
    expect(await resultOf(tools, call("peek"), { effect })).toMatchObject({ success: true, output: "alive" });
    expect(at.notes()).toEqual(["peek", "peek"]);
  });
});

test("secrets that are numbers, JSON, names, or in what is said of tools are taken out of their places", async () => {
  using at = place();
  const secrets = { API_KEY: "sk-planted-4711", PIN_SECRET: "123456", JSON_SECRET: '{"planted":"4711-4711"}' };
  await using tools = mcpTools(at.stdio(secrets));
  expect(await resultOf(tools, call("pin"))).toMatchObject({
    success: true,
    output: { pin: "[secret]", json: "[secret]", "[secret]": 1 },
  });
  expect(JSON.stringify(await tools.tools())).not.toContain("planted");
});

describe("a tool that does not answer", () => {
  const times = (word: string): number => shared.notes().filter((noted) => noted === word).length;

  test("fails after its time, and is told to stop", async () => {
    const clock = testClock();
    await tools.tools();
    const runtime = await open(tools, { runtime: { clock } });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("hang")] } });
    await eventually(() => shared.notes().includes("hang"));
    const output = await moved(runtime.result(runId), clock, 1_000);
    expect(output).toMatchObject({ results: [{ success: false, error: { code: "TOOL_TIMEOUT" } }] });
    await eventually(() => shared.notes().includes("aborted"));
    await stopped(runtime, clock);
    expect(await resultOf(tools, call("echo", { said: "still there" }))).toMatchObject({ output: "still there" });
  });

  test("because its server hangs as a whole: that one is killed, and the next call gets another", async () => {
    using at = place();
    const clock = testClock();
    await using tools = mcpTools({ ...at.stdio(), timeoutMs: 5_000 });
    const { output: pid } = await resultOf(tools, call("pid"));
    const runtime = await open(tools, { runtime: { clock } });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("freeze")] } });
    await eventually(() => at.notes().includes("freeze"));
    expect(await moved(runtime.result(runId), clock, 1_000)).toMatchObject({ results: [{ error: { code: "TOOL_TIMEOUT" } }] });
    expect(isAlive(Number(pid))).toBe(true);
    await clock.advance(10_000);
    await eventually(() => !isAlive(Number(pid)));
    await stopped(runtime, clock);
    expect(await resultOf(tools, call("echo", { said: "another" }))).toMatchObject({ output: "another" });
  });

  test("is told to stop when its run is cancelled", async () => {
    await using runtime = await open(tools);
    const { runId } = await runtime.start(batch, { vars: { calls: [call("hang")] } });
    await eventually(() => times("hang") === 2);
    await runtime.cancel(runId);
    await eventually(() => times("aborted") === 2);
    await eventually(async () => (await runtime.get(runId)).status === "cancelled");
  });

  test("keeps its call alive with progress, which the host hears of", async () => {
    const clock = testClock();
    const heard: string[] = [];
    const info = (step: string): void => {
      heard.push(step);
      // All of them together are longer than a call may be silent.
      void clock.advance(700).then(() => appendFileSync(join(shared.path, "log"), `heard ${step}\n`));
    };
    const log = { debug: () => {}, info, warn: () => {}, error: () => {} };
    await tools.tools();
    const runtime = await open(tools, { runtime: { clock, log } });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("work", { steps: 8 })] } });
    expect(await moved(runtime.result(runId), clock, 0)).toMatchObject({ results: [{ success: true, output: "done" }] });
    expect(heard).toEqual([1, 2, 3, 4, 5, 6, 7, 8].map((step) => `step ${step}`));
    await stopped(runtime, clock);
  });
});

test("a call that was cut off by a crash is made again only if its tool only reads", async () => {
  using at = place();
  await using tools = mcpTools(at.stdio());
  const interrupted = { uncertain: true, signal: new AbortController().signal, answers: [], idempotencyKey: "k1" };
  const context = { ...interrupted, clock: testClock(), traceHeaders: () => ({}), progress() {} } as unknown as EffectContext;
  // Nothing is known of the server yet, as after a restart.
  expect(tools.speculative(call("echo"))).toBeUndefined();
  expect(await tools.execute(call("echo", { said: "again" }), context)).toMatchObject({ output: "again" });
  expect(await tools.execute(call("count"), context)).toMatchObject({ success: false, error: { code: "EFFECT_UNCERTAIN" } });
  expect(at.notes()).toEqual([]);
  await using gone = mcpTools({ name: "gone", command: "/nowhere/server" });
  await expect(gone.execute(call("count"), context)).rejects.toMatchObject({ code: "MCP_CALL_LOST", definite: true });
  await using retrying = mcpTools({ ...at.stdio(), onUncertain: "retry" });
  expect(await retrying.execute(call("count"), context)).toMatchObject({ output: "1" });
});

test("a call that its runtime was stopped in is not made again by the next one", async () => {
  using at = place();
  await using tools = mcpTools(at.stdio());
  const path = join(at.path, "store.db");
  const first = await open(tools, { store: await sqliteStore(path) });
  const { runId } = await first.start(batch, { vars: { calls: [call("hang"), call("echo", { said: "x" })] } });
  await eventually(() => at.notes().includes("hang"));
  await first.stop({ timeoutMs: 0 });
  await using second = await open(tools, { store: await sqliteStore(path) });
  const output = await second.result(runId, { timeoutMs: 100_000 });
  expect(output).toMatchObject({ results: [{ error: { code: "EFFECT_UNCERTAIN" } }, { output: "x" }] });
  expect(at.notes()).toEqual(["hang", "aborted"]);
});

describe("a server that cannot be used", () => {
  test.each([
    ["there is no such program", { command: "/nowhere/server" }, /ENOENT/],
    [
      "it ends at once",
      { command: process.execPath, args: ["-e", "console.error('no licence for sk-planted-4711'); process.exit(1)"] },
      /no licence for \[secret\]/,
    ],
    [
      "it never gets ready",
      { command: process.execPath, args: [join(import.meta.dirname, "server.ts")], env: { LATE: "yes" }, connectTimeoutMs: 300 },
      /MCP server "bad"/,
    ],
    [
      "it speaks no MCP",
      { command: process.execPath, args: ["-e", "setInterval(() => console.log('Welcome!'), 5)"], connectTimeoutMs: 300 },
      /no message of the protocol|not get ready|timed out/,
    ],
  ])("%s: the result says so, and nothing is left of it", async (_, server, problem) => {
    await using tools = mcpTools({ name: "bad", env: { API_KEY: "sk-planted-4711" }, ...server });
    const result = await resultOf(tools, call("echo"), { effect: { policy: { maxAttempts: 1 } } });
    expect(result).toMatchObject({ success: false, error: { code: "MCP_UNREACHABLE", message: expect.stringMatching(problem) } });
    expect(JSON.stringify(result)).not.toContain("planted");
    await expect(tools.tools()).rejects.toMatchObject({ code: "MCP_UNREACHABLE" });
  });

  test("its tools were closed", async () => {
    using at = place();
    const tools = mcpTools(at.stdio());
    await tools.close();
    expect(await resultOf(tools, call("echo"))).toMatchObject({ success: false, error: { code: "MCP_UNREACHABLE" } });
  });
});

describe("nonsense", () => {
  test("between messages is passed over", async () => {
    expect(await resultOf(tools, call("garbage"))).toMatchObject({ success: true, output: "it went on" });
  });

  test("a message that is too large ends the connection, and the next call gets a new one", async () => {
    using at = place();
    await using tools = mcpTools(at.stdio());
    expect(await resultOf(tools, call("flood", { bytes: 11 * 1024 * 1024 }))).toMatchObject({
      success: false,
      error: { code: "MCP_CALL_LOST", message: expect.stringContaining("exceeded maximum size") },
    });
    expect(await resultOf(tools, call("echo", { said: "well" }))).toMatchObject({ output: "well" });
  });

  test("a text that is too long for a result becomes an artifact, and so do large pictures and files", async () => {
    await using runtime = await open(tools);
    const calls = [call("flood", { bytes: 2_000_000 }), call("media", { bytes: 100_000 }), call("media", { bytes: 10 })];
    const { runId } = await runtime.start(batch, { vars: { calls } });
    const { results } = (await runtime.result(runId)) as unknown as { results: { output: unknown }[] };
    const ref = (contentType: string, sizeBytes: number) => ({
      artifact: { $artifact: expect.any(String), contentType, sizeBytes },
    });
    expect(results[0]?.output).toEqual([{ type: "text", ...ref("text/plain; charset=utf-8", 2_000_000) }]);
    expect(results[1]?.output).toEqual([
      { type: "text", text: "look" },
      { type: "image", mediaType: "image/png", ...ref("image/png", 100_000) },
      { type: "audio", mediaType: "audio/wav", ...ref("audio/wav", 100_000) },
      { type: "resource", uri: "file:///a.bin", mediaType: "application/zip", ...ref("application/zip", 100_000) },
      { type: "resource", uri: "file:///a.txt", mediaType: "text/plain", text: "inside" },
      { type: "resource_link", uri: "file:///b.txt", name: "b", mediaType: "text/plain", sizeBytes: 3 },
    ]);
    // Where nothing is to become one, as at a worker, pictures stay whole.
    const whole = { runtime: { limits: { offloadBytes: Number.POSITIVE_INFINITY } } };
    const [, image] = (await resultOf(tools, call("media", { bytes: 100_000 }), whole)).output as object[];
    expect(image).toMatchObject({ data: Buffer.alloc(100_000, 1).toString("base64") });
    expect(results[2]?.output).toMatchObject([{}, { data: Buffer.alloc(10, 1).toString("base64") }, {}, {}, {}, {}]);
  });

  test("patterns that would backtrack for ever do not run for ever", async () => {
    const [input, output] = await carryOut(tools, [call("slow-input", { word: `${"a".repeat(50)}!` }), call("slow-output")]);
    expect(input).toMatchObject({ success: false, error: { code: "TOOL_ARGUMENTS_INVALID" } });
    expect(output).toMatchObject({ success: true, output: { word: expect.any(String) } });
  });

  test("a hostile server's names and answers harm nobody", async () => {
    using at = place();
    const script = join(at.path, "hostile.mjs");
    writeFileSync(script, hostile);
    await using tools = mcpTools({ name: "hostile", command: process.execPath, args: [script] });
    expect((await tools.tools()).map(({ name }) => name)).toEqual(["__proto__", "constructor", "no-result", "polluted", "deep"]);
    const given = await carryOut(tools, [
      call("__proto__"),
      call("constructor"),
      call("toString"),
      call("no-result"),
      call("polluted"),
      call("deep"),
    ]);
    expect(given.map(({ success, error }) => (success ? true : error?.code))).toEqual([
      true,
      true,
      "TOOL_UNKNOWN",
      "MCP_CALL_FAILED",
      true,
      "TOOL_OUTPUT_INVALID",
    ]);
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});

test("a server of an older revision that wants a page visited first is called again when somebody has, and not when nobody will", async () => {
  using at = place();
  const script = join(at.path, "pages.mjs");
  const pages = [{ mode: "url", elicitationId: "1", message: "Sign in", url: "https://example.com/sign-in" }];
  writeFileSync(
    script,
    hostile.replace(
      "say({ id, result: text })",
      `say(calls++ === 0 || params.name === "constructor"
      ? { id, error: { code: -32042, message: "sign in first", data: { elicitations: ${JSON.stringify(pages)} } } }
      : { id, result: text })`,
    ),
  );
  await using pagesTools = mcpTools({ name: "pages", command: process.execPath, args: [script] });
  await using runtime = await open(pagesTools);
  const { runId } = await runtime.start(batch, { vars: { calls: [call("__proto__")] } });
  expect((await waiting(runtime, runId)).prompt).toBe('MCP server "pages" asks: Sign in\nhttps://example.com/sign-in');
  await runtime.respond(runId, { action: "accept" });
  expect(await results(runtime, runId)).toMatchObject([{ success: true, output: "own" }]);
  const refused = await runtime.start(batch, { vars: { calls: [call("constructor")] } });
  await waiting(runtime, refused.runId);
  await runtime.respond(refused.runId, { action: "decline" });
  expect(await results(runtime, refused.runId)).toMatchObject([
    { success: false, error: { message: expect.stringContaining("chose to decline") } },
  ]);
});

/** Speaks the older revision by hand. */
const hostile = `
import { createInterface } from "node:readline";
let calls = 0;
const say = (message) => process.stdout.write(JSON.stringify({ jsonrpc: "2.0", ...message }) + "\\n");
const tools = ["__proto__", "constructor", "no-result", "polluted", "deep"].map((name) => ({ name, inputSchema: { type: "object" } }));
const text = { content: [{ type: "text", text: "own" }] };
const deep = "[".repeat(1000) + "]".repeat(1000);
for await (const line of createInterface({ input: process.stdin })) {
  const { id, method, params } = JSON.parse(line);
  if (method === "initialize") say({ id, result: { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo: { name: "hostile", version: "1" } } });
  else if (method === "tools/list") say({ id, result: { tools } });
  else if (method !== "tools/call") { if (id !== undefined) say({ id, error: { code: -32601, message: "no such method" } }); }
  else if (params.name === "no-result") say({ id, result: { content: "everything" } });
  else if (params.name === "polluted") process.stdout.write('{"jsonrpc":"2.0","id":' + id + ',"result":{"content":[],"structuredContent":{"__proto__":{"polluted":true}}}}\\n');
  else if (params.name === "deep") process.stdout.write('{"jsonrpc":"2.0","id":' + id + ',"result":{"content":[],"structuredContent":{"a":' + deep + '}}}\\n');
  else say({ id, result: text });
}
`;

test("a list that has changed is asked for again", async () => {
  using at = place();
  await using tools = mcpTools(at.stdio());
  expect(await resultOf(tools, call("grown"))).toMatchObject({ error: { code: "TOOL_UNKNOWN" } });
  await resultOf(tools, call("grow"));
  await eventually(async () => (await tools.tools()).some(({ name }) => name === "grown"));
  expect(await resultOf(tools, call("grown"))).toMatchObject({ output: "new" });
});

test("tools that only read run side by side, and those that do something one after the other", async () => {
  await tools.tools();
  expect([tools.exclusive?.(call("echo")), tools.exclusive?.(call("count"))]).toEqual([undefined, "tools"]);
  expect([
    await tools.mayDestroy(call("echo")),
    await tools.mayDestroy(call("add")),
    await tools.mayDestroy(call("count")),
  ]).toEqual([false, false, true]);
  const given = await carryOut(tools, [call("count"), call("count"), call("count")]);
  expect(given.map(({ output }) => output)).toEqual(["1", "2", "3"]);
});

describe("the process of a server ends", () => {
  test("with its tools", async () => {
    using at = place();
    const tools = mcpTools(at.stdio());
    const { output } = await resultOf(tools, call("pid"));
    expect(isAlive(Number(output))).toBe(true);
    await tools.close();
    await eventually(() => !isAlive(Number(output)));
  });

  test("with its tools that are closed while it is still being started", async () => {
    using at = place();
    const tools = mcpTools({ ...at.stdio({ LATE: "yes" }) });
    const listed = tools.tools().catch((error: unknown) => error);
    await new Promise((done) => setImmediate(done));
    await tools.close();
    expect(isError(await listed, "MCP_UNREACHABLE")).toBe(true);
  });

  const program = (end: string): string => `
import { mcpTools } from ${JSON.stringify(resolve("src/integrations/mcp/index.ts"))};
const tools = mcpTools(JSON.parse(process.argv[2]));
const context = { signal: new AbortController().signal, answers: [], clock: { setTimer: () => ({ cancel() {} }) }, traceHeaders: () => ({}), progress() {} };
const { output } = await tools.execute({ name: "pid", callId: "1", arguments: {} }, context);
console.log(output);
${end}
`;

  test.concurrent.each([
    ["process.exit()", "process.exit();"],
    ["SIGKILL", 'process.kill(process.pid, "SIGKILL");'],
  ])("when the program ends by %s", async (_, end) => {
    using at = place();
    const script = join(at.path, "program.ts");
    writeFileSync(script, program(end));
    const child = spawn(process.execPath, [...process.execArgv, script, JSON.stringify(at.stdio())], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    let out = "";
    child.stdout.on("data", (chunk: Buffer) => {
      out += chunk;
    });
    await once(child, "close");
    expect(Number(out)).toBeGreaterThan(0);
    await eventually(() => !isAlive(Number(out)));
  });
});

test.each([
  [{ name: "x" }, "command"],
  [{ name: "x", command: "a", url: "http://x" }, "command"],
  [{ name: "", command: "a" }, "name"],
  [{ name: "x", url: "ftp://x" }, "url"],
  [{ name: "x", url: "http://x", env: {} }, "env"],
  [{ name: "x", command: "a", env: { A: 1 } }, "env"],
  [{ name: "x", command: "a", args: "b" }, "args"],
  [{ name: "x", command: "a", timeout: 5 }, "timeout"],
  [{ name: "x", command: "a", timeoutMs: 0 }, "timeoutMs"],
  [{ name: "x", command: "a", onUncertain: "maybe" }, "onUncertain"],
])("%j is refused for its %s", (options, option) => {
  expect(() => mcpTools(options as never)).toThrow(
    expect.objectContaining({ code: "INVALID_OPTION", fields: expect.objectContaining({ option }) }),
  );
});
