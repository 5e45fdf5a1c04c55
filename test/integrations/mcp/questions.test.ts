// What servers of revision 2026-07-28 ask: their calls end with `input_required`, and are made again.
import { join } from "node:path";
import { mcpTools } from "abstractruntime/mcp";
import { sqliteStore } from "abstractruntime/sqlite";
import { toolEffect, withApproval } from "abstractruntime/tools";
import { createRuntime } from "abstractruntime";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { batch, call, open, resultOf } from "../tools/batch.ts";
import { results, waiting } from "./runs.ts";
import { type Place, place, serve, type Served } from "./servers.ts";

let at: Place;
let far: Served;
beforeAll(async () => {
  at = place();
  far = await serve(undefined, join(at.path, "log"));
});
afterAll(async () => {
  await far[Symbol.asyncDispose]();
  at[Symbol.dispose]();
});
const accept = (content: Record<string, string>) => ({ action: "accept", content });

describe.each([
  ["stdio", () => at.stdio()],
  ["streamable HTTP", () => ({ name: "far", url: far.url })],
])("over %s", (way, server) => {
  test("a tool that asks twice: each answer in a process of its own, and the server remembers nothing", async () => {
    const path = join(at.path, `${way}.db`);
    const asked = call("ask", { greeting: "Hello" });
    let runId = "";
    const step = async (answer: object | undefined, prompt: string) => {
      await using tools = mcpTools(server());
      await using runtime = await open(tools, { store: await sqliteStore(path) });
      if (answer) await runtime.respond(runId, answer);
      else ({ runId } = await runtime.start(batch, { vars: { calls: [asked] } }));
      return await (prompt === "" ? results(runtime, runId) : waiting(runtime, runId, prompt));
    };
    const first = await step(undefined, "Who is it?");
    expect(first).toMatchObject({ reason: "user", details: { mcp: { requestState: "nobody yet" } } });
    const second = await step(accept({ name: "Ann" }), "Which colour?");
    expect(second).toMatchObject({ details: { mcp: { requestState: "Ann" } } });
    expect(await step(accept({ colour: "red" }), "")).toMatchObject([{ success: true, output: "Hello, Ann in red" }]);
  });

  test("what does not fit the form is refused, and a person may decline", async () => {
    await using tools = mcpTools(server());
    await using runtime = await open(tools);
    const { runId } = await runtime.start(batch, { vars: { calls: [call("ask", { greeting: "Hello" })] } });
    await waiting(runtime, runId);
    for (const unfit of [
      "Ann",
      { action: "accept" },
      { action: "accept", content: {} },
      { action: "later" },
      accept({ name: 1 as never }),
    ])
      await expect(runtime.respond(runId, unfit)).rejects.toMatchObject({ code: "ANSWER_INVALID" });
    await runtime.respond(runId, { action: "decline" });
    expect(await results(runtime, runId)).toMatchObject([{ success: true, output: "nobody to greet" }]);
  });
});

describe("a server", () => {
  const server = () => ({ name: "far", url: far.url });

  test("asks for two things at once", async () => {
    await using tools = mcpTools(server());
    await using runtime = await open(tools);
    const { runId } = await runtime.start(batch, { vars: { calls: [call("form")] } });
    const wait = await waiting(runtime, runId);
    expect(wait.prompt).toBe('MCP server "far" asks: Sign in\nhttps://example.com/sign-in\n\nYour name?');
    await expect(runtime.respond(runId, { action: "accept" })).rejects.toMatchObject({ code: "ANSWER_INVALID" });
    await runtime.respond(runId, { page: { action: "accept" }, name: { action: "decline" } });
    expect(await results(runtime, runId)).toMatchObject([{ output: "accept decline" }]);
  });

  test("that gives nothing but state gets it back, but not for ever", async () => {
    await using tools = mcpTools(server());
    expect(await resultOf(tools, call("patience"))).toMatchObject({ success: true, output: "after ..." });
    expect(await resultOf(tools, call("impatience"))).toMatchObject({
      success: false,
      error: { code: "MCP_CALL_FAILED", message: expect.stringContaining("called again 10 times") },
    });
  });

  test("may not make a record of a novel, or of its own key", async () => {
    await using tools = mcpTools(server());
    expect(await resultOf(tools, call("novel"))).toMatchObject({ error: { code: "MCP_CALL_FAILED" } });
    await using near = mcpTools(at.stdio({ API_KEY: "sk-planted-4711" }));
    const leaked = await resultOf(near, call("leak"));
    expect(leaked).toMatchObject({ error: { code: "MCP_CALL_FAILED", message: expect.stringContaining("holds a secret") } });
    expect(JSON.stringify(leaked)).not.toContain("planted");
    await using runtime = await open(near);
    const { runId } = await runtime.start(batch, { vars: { calls: [call("confide")] } });
    expect((await waiting(runtime, runId)).prompt).toBe('MCP server "test" asks: May I use [secret]?');
    expect(JSON.stringify(await runtime.ledger(runId))).not.toContain("planted");
  });

  test("may not name artifacts that nobody has", async () => {
    await using tools = mcpTools(server());
    expect(await resultOf(tools, call("forge"))).toMatchObject({ success: false, error: { code: "MCP_CALL_FAILED" } });
  });
});

test("an approval, and then a question: each gets its own answers", async () => {
  await using tools = mcpTools({ name: "far", url: far.url });
  await using runtime = await createRuntime({
    workflows: [batch],
    effects: [toolEffect(withApproval(tools, { needsApproval: true }))],
    store: await sqliteStore(join(at.path, "approval.db")),
  });
  const { runId } = await runtime.start(batch, { vars: { calls: [call("ask", { greeting: "Hello" })] } });
  expect((await waiting(runtime, runId)).prompt).toMatch(/^Allow tool "ask"/);
  await runtime.respond(runId, { decision: "allow", arguments: { greeting: "Welcome" } });
  await waiting(runtime, runId, "Who is it?");
  await runtime.respond(runId, accept({ name: "Ann" }));
  await waiting(runtime, runId, "Which colour?");
  await runtime.respond(runId, accept({ colour: "red" }));
  expect(await results(runtime, runId)).toMatchObject([{ output: "Welcome, Ann in red", approval: { decision: "allow" } }]);
});
