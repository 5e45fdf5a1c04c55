// A server over streamable HTTP: its keys, its refusals, and answers that break off.
import type { ServerResponse } from "node:http";
import type { EffectContext } from "abstractruntime";
import { type HeaderSource, mcpTools } from "abstractruntime/mcp";
import { testClock } from "abstractruntime/testing";
import { describe, expect, test } from "vitest";
import { eventually } from "../../eventually.ts";
import { freePort } from "../../free-port.ts";
import { moved, stopped } from "../../scenarios/harness.ts";
import { batch, call, carryOut, open, resultOf } from "../tools/batch.ts";
import { place, serve } from "./servers.ts";

const isCall = (body: string, tool: string): boolean => body.includes('"tools/call"') && body.includes(`"name":"${tool}"`);
const refuse = (response: ServerResponse, status: number, text: string): true => {
  response.writeHead(status, { "content-type": "text/plain" }).end(text);
  return true;
};
const quick = { effect: { policy: { backoff: { initialMs: 1 } } } };

test("calls over HTTP, with headers that are asked for anew each time and sent to that server alone", async () => {
  let key = 0;
  const headers: HeaderSource = async () => ({ authorization: `Bearer planted-key-${++key}` });
  await using elsewhere = await serve();
  await using served = await serve((_, response, body) => {
    if (!isCall(body, "fail")) return false;
    response.writeHead(307, { location: elsewhere.url }).end();
    return true;
  });
  await using tools = mcpTools({ name: "far", url: served.url, headers });
  const [echoed, redirected] = await carryOut(tools, [call("echo", { said: "hi" }), call("fail")], quick);
  expect(echoed).toMatchObject({ success: true, output: "hi" });
  expect(redirected).toMatchObject({ success: false, error: { code: "MCP_CALL_LOST" } });
  expect(elsewhere.requests).toEqual([]);
  const sent = served.requests.map(({ authorization }) => authorization);
  expect(new Set(sent).size).toBe(sent.length);
  expect(sent.length).toBeGreaterThan(2);
});

describe("a server that refuses", () => {
  test("a key is not asked again", async () => {
    await using served = await serve((_, response) => refuse(response, 401, "who are you?"));
    await using tools = mcpTools({ name: "far", url: served.url, headers: { authorization: "Bearer planted-key" } });
    const result = await resultOf(tools, call("echo"), quick);
    expect(result).toMatchObject({ success: false, error: { code: "MCP_UNREACHABLE", message: expect.stringContaining("401") } });
    const { length } = served.requests;
    await expect(tools.tools()).rejects.toMatchObject({ code: "MCP_UNREACHABLE" });
    // One connection for each: nothing was tried again.
    expect(served.requests).toHaveLength(2 * length);
  });

  test("a key in mid-session, and repeats it: what it says of the key is nowhere", async () => {
    await using served = await serve(
      (request, response, body) => isCall(body, "echo") && refuse(response, 401, `no such key: ${request.headers.authorization}`),
    );
    await using tools = mcpTools({ name: "far", url: served.url, headers: () => ({ authorization: "Bearer planted-key" }) });
    const result = await resultOf(tools, call("echo", { said: "x" }), quick);
    expect(result).toMatchObject({
      error: { code: "MCP_UNREACHABLE", message: expect.stringContaining("no such key: [secret]") },
    });
    expect(served.requests.filter(({ body }) => isCall(body, "echo"))).toHaveLength(1);
  });

  test.each([408, 425, 429, 503])("for now (%i) is asked again, a tool that does something too", async (status) => {
    using at = place();
    let left = 2;
    await using served = await serve(
      (_, response, body) => isCall(body, "count") && left-- > 0 && refuse(response, status, "later"),
      `${at.path}/log`,
    );
    await using tools = mcpTools({ name: "far", url: served.url });
    expect(await resultOf(tools, call("count"), quick)).toMatchObject({ success: true, output: "1" });
    expect(at.notes()).toEqual(["count"]);
  });

  test.each([403, 404, 422])("for good (%i) is not asked again", async (status) => {
    let calls = 0;
    await using served = await serve(
      (_, response, body) => isCall(body, "echo") && ++calls > 0 && refuse(response, status, "never"),
    );
    await using tools = mcpTools({ name: "far", url: served.url });
    expect(await resultOf(tools, call("echo", { said: "x" }), quick)).toMatchObject({ error: { code: "MCP_UNREACHABLE" } });
    expect(calls).toBe(1);
  });

  test("because of a fault of its own (500): the call may have happened, and only a tool that reads is called again", async () => {
    let calls = 0;
    await using served = await serve(
      (_, response, body) => (isCall(body, "count") || (isCall(body, "echo") && calls++ === 0)) && refuse(response, 500, "oops"),
    );
    await using tools = mcpTools({ name: "far", url: served.url });
    const [count, echo] = await carryOut(tools, [call("count"), call("echo", { said: "x" })], quick);
    expect(count).toMatchObject({ success: false, error: { code: "MCP_CALL_LOST" } });
    expect(echo).toMatchObject({ success: true, output: "x" });
  });
});

describe("an answer that does not come", () => {
  const cut = (response: ServerResponse): true => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.write(": here it comes\n\n", () => response.destroy());
    return true;
  };

  test("because its stream broke off: the call may have happened", async () => {
    await using served = await serve((_, response, body) => isCall(body, "count") && cut(response));
    await using tools = mcpTools({ name: "far", url: served.url });
    expect(await resultOf(tools, call("count"))).toMatchObject({ success: false, error: { code: "MCP_CALL_LOST" } });
    expect(await resultOf(tools, call("echo", { said: "still there" }))).toMatchObject({ output: "still there" });
  });

  test("because its stream ended without one", async () => {
    await using served = await serve((_, response, body) => {
      if (!isCall(body, "count")) return false;
      response.writeHead(200, { "content-type": "text/event-stream" }).end("");
      return true;
    });
    await using tools = mcpTools({ name: "far", url: served.url });
    expect(await resultOf(tools, call("count"))).toMatchObject({ error: { code: "MCP_CALL_LOST" } });
  });

  test("because the connection was reset", async () => {
    await using served = await serve((request, _, body) => {
      if (!isCall(body, "count")) return false;
      request.socket.resetAndDestroy();
      return true;
    });
    await using tools = mcpTools({ name: "far", url: served.url });
    expect(await resultOf(tools, call("count"))).toMatchObject({ error: { code: "MCP_CALL_LOST" } });
  });

  test("because the server hangs: the request is given up after its time", async () => {
    let closed = false;
    await using served = await serve((_, response, body) => {
      if (!isCall(body, "count")) return false;
      response.on("close", () => {
        closed = true;
      });
      return true;
    });
    const clock = testClock();
    await using tools = mcpTools({ name: "far", url: served.url, timeoutMs: 5_000 });
    await tools.tools();
    const runtime = await open(tools, { runtime: { clock } });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("count")] } });
    await eventually(() => served.requests.some(({ body }) => isCall(body, "count")));
    const output = await moved(runtime.result(runId), clock, 1_000);
    expect(output).toMatchObject({ results: [{ success: false, error: { code: "TOOL_TIMEOUT" } }] });
    await eventually(() => closed);
    await stopped(runtime, clock);
  });

  test.each([
    ["application/json", (part: string) => part],
    ["text/event-stream", (part: string) => `data: ${part}\n`],
  ])("because it is too large (%s)", async (contentType, line) => {
    await using served = await serve((_, response, body) => {
      if (!isCall(body, "count")) return false;
      response.writeHead(200, { "content-type": contentType });
      const more = (): void => {
        if (!response.destroyed) response.write(line("x".repeat(1_000_000)), more);
      };
      more();
      return true;
    });
    await using tools = mcpTools({ name: "far", url: served.url });
    expect(await resultOf(tools, call("count"))).toMatchObject({ success: false, error: { code: "MCP_CALL_LOST" } });
  });

  test("because it is no answer", async () => {
    await using served = await serve((_, response, body) => {
      if (!isCall(body, "count")) return false;
      response.writeHead(200, { "content-type": "application/json" }).end('{"jsonrpc":"2.0","id":"other"');
      return true;
    });
    await using tools = mcpTools({ name: "far", url: served.url });
    expect(await resultOf(tools, call("count"))).toMatchObject({ error: { code: "MCP_CALL_LOST" } });
  });
});

test("nobody listens: nothing was carried out, and it is tried again until the policy says so", async () => {
  await using tools = mcpTools({ name: "far", url: `http://127.0.0.1:${await freePort()}/mcp` });
  expect(await resultOf(tools, call("count"), quick)).toMatchObject({
    success: false,
    error: { code: "MCP_UNREACHABLE", message: expect.stringContaining("ECONNREFUSED") },
  });
});

test("a tool that failed has its own message and no code, and one that threw likewise", async () => {
  await using served = await serve();
  await using tools = mcpTools({ name: "far", url: served.url });
  const [failed, threw] = await carryOut(tools, [call("fail"), call("complain")]);
  expect(failed).toMatchObject({ success: false, output: null, error: { message: "no such order" } });
  expect(failed?.error?.code).toBeUndefined();
  expect(threw).toMatchObject({ success: false, error: { message: expect.stringContaining("bad key") } });
});

test("the trace that a call belongs to goes along", async () => {
  await using served = await serve();
  await using tools = mcpTools({ name: "far", url: served.url });
  const traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  const signal = new AbortController().signal;
  const context = { signal, answers: [], clock: testClock(), traceHeaders: () => ({ traceparent }), progress() {} };
  await tools.execute(call("echo", { said: "x" }), context as unknown as EffectContext);
  const sent = served.requests.map(({ body }) => JSON.parse(body)).find(({ method }) => method === "tools/call");
  expect(sent.params._meta.traceparent).toBe(traceparent);
});

test("many calls at once share a connection", async () => {
  await using served = await serve();
  await using tools = mcpTools({ name: "far", url: served.url });
  const given = await carryOut(
    tools,
    Array.from({ length: 50 }, (_, i) => call("echo", { said: String(i) })),
  );
  expect(given.map(({ output }) => output)).toEqual(Array.from({ length: 50 }, (_, i) => String(i)));
  expect(served.requests.filter(({ body }) => body.includes("tools/list"))).toHaveLength(1);
});
