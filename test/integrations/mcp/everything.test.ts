// Servers of others, of the protocol's older revision: those that the protocol's own project publishes.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type McpServerOptions, mcpTools } from "abstractruntime/mcp";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { withApproval } from "abstractruntime/tools";
import { describe, expect, test } from "vitest";
import { compiled } from "../../compile-cache.ts";
import { freePort } from "../../free-port.ts";
import { batch, call, carryOut, open } from "../tools/batch.ts";
import { results, waiting } from "./runs.ts";
import { everything, everythingAt, filesystem, place } from "./servers.ts";

const stdio: McpServerOptions = { name: "everything", command: process.execPath, args: [everything, "stdio"], env: compiled() };

async function onHttp<T>(use: (server: McpServerOptions) => Promise<T>): Promise<T> {
  await using served = await everythingAt(await freePort());
  return await use({ name: "everything", url: served.url });
}

const ways: [string, (use: (server: McpServerOptions) => Promise<void>) => Promise<void>][] = [
  ["stdio", (use) => use(stdio)],
  ["streamable HTTP", onHttp],
];

describe.each(ways)("server-everything over %s", (_, serve) => {
  test("its tools are listed, and calls give texts, structured content, pictures and links", () =>
    serve(async (server) => {
      await using tools = mcpTools(server);
      const names = (await tools.tools()).map(({ name }) => name);
      expect(names).toEqual(expect.arrayContaining(["echo", "get-sum", "trigger-elicitation-request"]));
      const [sum] = (await tools.tools()).filter(({ name }) => name === "get-sum");
      expect(sum).toMatchObject({ description: expect.any(String), parameters: { required: ["a", "b"] } });

      const given = await carryOut(tools, [
        call("echo", { message: "hello" }),
        call("get-sum", { a: 2, b: 3 }),
        call("get-sum", '{"a":2,"b":4}'),
        call("get-structured-content", { location: "Chicago" }),
        call("get-tiny-image"),
        call("get-resource-links", { count: 1 }),
        call("get-sum", { a: "two", b: 3 }),
        call("get-product"),
      ]);
      expect(given.map(({ success }) => success)).toEqual([true, true, true, true, true, true, false, false]);
      expect(given[0]?.output).toBe("Echo: hello");
      expect(given[1]?.output).toBe("The sum of 2 and 3 is 5.");
      expect(given[2]?.output).toBe("The sum of 2 and 4 is 6.");
      expect(given[3]?.output).toEqual({ temperature: 36, conditions: "Light rain / drizzle", humidity: 82 });
      expect(given[4]?.output).toMatchObject([
        { type: "text" },
        { type: "image", mediaType: "image/png", data: expect.stringMatching(/^iVBOR/) },
        { type: "text" },
      ]);
      expect(given[5]?.output).toMatchObject([
        { type: "text" },
        { type: "resource_link", uri: expect.any(String), name: expect.any(String) },
      ]);
      expect(given[6]?.error?.code).toBe("TOOL_ARGUMENTS_INVALID");
      expect(given[7]?.error?.code).toBe("TOOL_UNKNOWN");
    }));

  test("what it asks makes the run wait, and another process makes the call again with the answer", () =>
    serve(async (server) => {
      using at = place();
      const path = join(at.path, "store.db");
      let runId: string;
      {
        await using tools = mcpTools(server);
        await using runtime = await open(tools, { store: await sqliteStore(path) });
        ({ runId } = await runtime.start(batch, {
          vars: { calls: [call("trigger-elicitation-request"), call("echo", { message: "x" })] },
        }));
        const wait = await waiting(runtime, runId);
        expect(wait).toMatchObject({
          reason: "user",
          prompt: expect.stringMatching(/ asks: Please provide inputs for the following fields:$/),
        });
        const unfit = { action: "accept", content: { check: true } };
        await expect(runtime.respond(runId, unfit)).rejects.toMatchObject({ code: "ANSWER_INVALID" });
      }
      await using tools = mcpTools(server);
      await using runtime = await open(tools, { store: await sqliteStore(path) });
      await runtime.respond(runId, { action: "accept", content: { name: "Ann", integer: 7 } });
      const [asked, echoed] = await results(runtime, runId);
      expect(asked).toMatchObject({ success: true, output: expect.stringMatching(/Name: Ann\n- Favorite Integer: 7/) });
      expect(echoed?.output).toBe("Echo: x");
    }));

  test("a page to visit is a question too, and a refusal is an answer", () =>
    serve(async (server) => {
      await using tools = mcpTools(server);
      await using runtime = await open(tools);
      const asked = call("trigger-url-elicitation", { url: "https://example.com/sign-in", message: "Sign in first" });
      const { runId } = await runtime.start(batch, { vars: { calls: [asked] } });
      const wait = await waiting(runtime, runId);
      expect(wait?.prompt).toMatch(/ asks: Sign in first\nhttps:\/\/example\.com\/sign-in$/);
      await runtime.respond(runId, { action: "decline" });
      expect(await results(runtime, runId)).toMatchObject([{ success: true, output: expect.stringContaining("decline") }]);
    }));

  test("two runs that are asked at once each get their own answer", () =>
    serve(async (server) => {
      await using tools = mcpTools(server);
      await using runtime = await open(tools);
      const slow = await runtime.start(batch, {
        vars: { calls: [call("trigger-long-running-operation", { duration: 0.05, steps: 1 })] },
      });
      const runs = await Promise.all(
        ["Ann", "Bob", "Cid"].map(async (name) => {
          const { runId } = await runtime.start(batch, { vars: { calls: [call("trigger-elicitation-request")] } });
          return { name, runId };
        }),
      );
      for (const { name, runId } of runs) {
        await waiting(runtime, runId);
        await runtime.respond(runId, { action: "accept", content: { name } });
      }
      for (const { name, runId } of runs)
        expect((await results(runtime, runId))[0]).toMatchObject({
          success: true,
          output: expect.stringContaining(`Name: ${name}`),
        });
      expect((await results(runtime, slow.runId))[0]?.success).toBe(true);
    }));
});

test("a server gets the environment that it is given, and what was given in confidence is in no record", async () => {
  process.env.NOT_FOR_SERVERS = "planted-in-this-process";
  const env = {
    API_KEY: "sk-planted-4711",
    DATABASE: "postgres://me:hunter2hunter@db/x",
    REGION: "eu-west-1",
    TOKEN_FILE: 'pw"planted',
  };
  using at = place();
  await using tools = mcpTools({ ...stdio, env: { ...compiled(), ...env } });
  const path = join(at.path, "store.db");
  await using runtime = await open(tools, { store: await sqliteStore(path) });
  const { runId } = await runtime.start(batch, { vars: { calls: [call("get-env")] } });
  const [result] = await results(runtime, runId);
  const seen = JSON.parse(String(result?.output));
  expect(seen).toMatchObject({
    REGION: "eu-west-1",
    API_KEY: "[secret]",
    DATABASE: "postgres://me:[secret]@db/x",
    TOKEN_FILE: "[secret]",
  });
  expect(seen.NOT_FOR_SERVERS).toBeUndefined();
  const stored = JSON.stringify(await runtime.ledger(runId)) + readFileSync(path, "latin1");
  for (const secret of ["sk-planted", "hunter2", "planted-in"]) expect(stored).not.toContain(secret);
  delete process.env.NOT_FOR_SERVERS;
});

test("a server over HTTP that was started anew is connected to anew", async () => {
  const port = await freePort();
  const first = await everythingAt(port);
  await using _ = first;
  await using tools = mcpTools({ name: "everything", url: first.url });
  await using runtime = await open(tools, { effect: { policy: { backoff: { initialMs: 1 } } }, store: await memoryStore() });
  const sum = async (a: number): Promise<unknown> => {
    const { runId } = await runtime.start(batch, { vars: { calls: [call("get-sum", { a, b: 1 })] } });
    return (await results(runtime, runId))[0];
  };
  expect(await sum(1)).toMatchObject({ output: "The sum of 1 and 1 is 2." });
  await first[Symbol.asyncDispose]();
  expect(await sum(2)).toMatchObject({ success: false, error: { code: "MCP_UNREACHABLE" } });
  await using second = await everythingAt(port);
  expect(second.url).toBe(first.url);
  expect(await sum(3)).toMatchObject({ output: "The sum of 3 and 1 is 4." });
});

test("server-filesystem: what may destroy something waits for approval, what only reads does not, and its borders hold", async () => {
  using at = place();
  await using tools = mcpTools({
    name: "files",
    prefix: "fs_",
    command: process.execPath,
    args: [filesystem, at.path],
    env: compiled(),
  });
  expect((await tools.tools()).map(({ name }) => name)).toEqual(expect.arrayContaining(["fs_read_text_file", "fs_write_file"]));
  await using runtime = await open(withApproval(tools, { needsApproval: tools.mayDestroy }));
  const file = join(at.path, "note.txt");
  const calls = [
    call("fs_write_file", { path: file, content: "first" }),
    call("fs_list_directory", { path: at.path }),
    call("fs_read_text_file", { path: "/etc/passwd" }),
    call("fs_create_directory", { path: join(at.path, "made") }),
  ];
  const { runId } = await runtime.start(batch, { vars: { calls } });
  const wait = await waiting(runtime, runId);
  expect(wait?.prompt).toMatch(/^Allow tool "fs_write_file"/);
  expect(existsSync(file)).toBe(false);
  await runtime.respond(runId, { decision: "allow", arguments: { path: file, content: "second" } });
  const [written, listed, refused, made] = await results(runtime, runId);
  expect(written).toMatchObject({ success: true, approval: { decision: "allow" } });
  expect(readFileSync(file, "utf8")).toBe("second");
  expect(listed?.success).toBe(true);
  expect(refused).toMatchObject({ success: false, error: { message: expect.stringContaining("Access denied") } });
  expect(made?.success).toBe(true);
  expect(tools.speculative(call("fs_list_directory"))).toBe(true);
  expect(tools.speculative(call("fs_write_file"))).toBe(false);
  expect(tools.speculative(call("list_directory"))).toBeUndefined();
});
