// Models behind an OpenAI-compatible server: what is sent, what comes back, and what goes wrong on the way.
import { createHash } from "node:crypto";
import type { JsonObject, StreamPart } from "abstractruntime";
import {
  assistantMessage,
  type LlmParams,
  llmCall,
  type LlmResult,
  type Message,
  remoteLlm,
  type RemoteLlmOptions,
} from "abstractruntime/llm";
import { describe, expect, test } from "vitest";
import { freePort } from "../../free-port.ts";
import { OpenAiServer, type Reply } from "../openai-server.ts";
import { after, outputOf, place, providers } from "./place.ts";

const hello = () => llmCall({ prompt: "Hi" }, after);
const weather = {
  name: "weather",
  description: "The weather of a place",
  parameters: { type: "object", properties: { place: { type: "string" } }, required: ["place"] },
};
const talk: Message[] = [
  { role: "system", content: "Be kind." },
  {
    role: "user",
    content: [
      { type: "text", text: "What is this?" },
      { type: "file", mediaType: "image/png", data: "iVBORw0KGgo=" },
    ],
  },
  { role: "assistant", content: [{ type: "tool-call", toolCallId: "c1", toolName: "weather", input: { place: "Ulm" } }] },
  {
    role: "tool",
    content: [{ type: "tool-result", toolCallId: "c1", toolName: "weather", output: { type: "json", value: { c: 3 } } }],
  },
];

describe.each(providers)("$version", ({ provider }) => {
  const client = (server: OpenAiServer, options: Partial<RemoteLlmOptions> = {}) =>
    remoteLlm({ baseUrl: server.url, model: "small", provider, ...options });

  test.each([true, false])("an answer is one result, streamed: %s", async (stream) => {
    const reply: Reply = {
      content: ["Let me ", "see."],
      reasoning: ["Hm", "m."],
      toolCalls: [
        { id: "c1", name: "weather", arguments: ['{"place":', '"Ulm"}'] },
        { id: "c2", name: "weather", arguments: "{broken" },
        { id: "c3", name: "weather", arguments: '{"__proto__": 1}' },
      ],
      usage: {
        prompt_tokens: 11,
        completion_tokens: 7,
        total_tokens: 18,
        prompt_tokens_details: { cached_tokens: 4 },
        completion_tokens_details: { reasoning_tokens: 2 },
      },
    };
    await using server = await OpenAiServer.start(reply);
    const plan = () => llmCall({ messages: talk, tools: [weather] }, after);
    await using here = await place(client(server), plan, { stream });
    const run = await here.ask();
    const text = "Let me see.";

    expect(outputOf(run).got).toEqual({
      content: text,
      data: null,
      toolCalls: [
        { name: "weather", callId: "c1", arguments: { place: "Ulm" } },
        { name: "weather", callId: "c2", arguments: "{broken" },
        { name: "weather", callId: "c3", arguments: '{"__proto__": 1}' },
      ],
      usage: { inputTokens: 11, outputTokens: 7, totalTokens: 18, reasoningTokens: 2, cachedInputTokens: 4 },
      model: "small-served",
      provider: "openaiCompatible.chat",
      finishReason: "tool-calls",
      reasoning: "Hmm.",
      ...(stream ? { textHash: createHash("sha256").update(text).digest("hex") } : {}),
      parts: expect.arrayContaining([{ type: "reasoning", text: "Hmm." }]),
    });
    expect(server.requests.map(({ body }) => Boolean(body.stream))).toEqual([stream]);
  });

  // Some servers refuse a request without the thoughts that led to tool calls, and others one with them.
  test.each([
    ["reasoning_content", true, "Hm."],
    ["reasoning_content", false, "Hm."],
    ["reasoning", true, undefined],
    ["reasoning", false, undefined],
  ])("thoughts that came as %s (streamed: %s) go back with the calls as %j", async (member, stream, back) => {
    const call = { index: 0, id: "c1", type: "function", function: { name: "weather", arguments: "{}" } };
    const said = { role: "assistant", [member]: "Hm.", tool_calls: [call] };
    const choice = { index: 0, [stream ? "delta" : "message"]: said, finish_reason: "tool_calls" };
    const answer = JSON.stringify({ id: "1", created: 1, model: "m", choices: [choice] });
    await using server = await OpenAiServer.start({ raw: stream ? `data: ${answer}\n\ndata: [DONE]\n\n` : answer });
    await using here = await place(client(server), hello, { stream });
    const got = outputOf(await here.ask()).got as unknown as LlmResult;
    expect(got).toMatchObject({ reasoning: "Hm.", toolCalls: [{ callId: "c1" }] });
    const messages: Message[] = [{ role: "user", content: "Hi" }, assistantMessage(got)];
    await using again = await place(client(server), () => llmCall({ messages }, after), { stream });
    await again.ask();
    expect(server.requests[1]?.body.messages[1].reasoning_content).toBe(back);
    expect(server.requests[1]?.body.messages[1].tool_calls).toMatchObject([{ id: "c1" }]);
  });

  test("the request says what the payload says, zero too and null not", async () => {
    await using server = await OpenAiServer.start({});
    const params: LlmParams = { temperature: 0, max_tokens: 50, top_p: 0.5, stop: "END", seed: 0, frequency_penalty: null };
    const plan = () =>
      llmCall(
        { model: "large", system: "Short.", messages: talk, tools: [weather], toolChoice: { name: "weather" }, params },
        after,
      );
    await using here = await place(client(server), plan);
    await here.ask();

    const [{ body, path }] = server.requests as [(typeof server.requests)[0]];
    expect(path).toBe("/v1/chat/completions");
    expect(body).toMatchObject({
      model: "large",
      temperature: 0,
      max_tokens: 50,
      top_p: 0.5,
      stop: ["END"],
      seed: 0,
      tools: [{ type: "function", function: weather }],
      tool_choice: { type: "function", function: { name: "weather" } },
      messages: [
        { role: "system", content: "Short." },
        { role: "system", content: "Be kind." },
        {
          role: "user",
          content: [
            { type: "text", text: "What is this?" },
            { type: "image_url", image_url: { url: "data:image/png;base64,iVBORw0KGgo=" } },
          ],
        },
        { role: "assistant", tool_calls: [{ id: "c1", function: { name: "weather", arguments: '{"place":"Ulm"}' } }] },
        { role: "tool", tool_call_id: "c1", content: '{"c":3}' },
      ],
    });
    expect(body).not.toHaveProperty("frequency_penalty");
    expect(body).not.toHaveProperty("base_url");
  });

  test.each<[given: JsonObject, sent: JsonObject]>([
    [{}, { type: "object", properties: {} }],
    [{ type: "object" }, { type: "object", properties: {} }],
    [{ anyOf: [weather.parameters] }, { anyOf: [weather.parameters] }],
  ])(
    "a tool without arguments says so in full, as servers want it, and no other is said to be one: %j",
    async (parameters, sent) => {
      await using server = await OpenAiServer.start({});
      await using here = await place(client(server), () =>
        llmCall({ prompt: "Hi", tools: [{ name: "now", parameters }] }, after),
      );
      await here.ask();
      expect(server.requests[0]?.body.tools[0].function.parameters).toEqual(sent);
    },
  );

  test("headers say which run asks, and the key is asked for with each call", async () => {
    await using server = await OpenAiServer.start({ status: 503 }, {});
    let asked = 0;
    const options = {
      apiKey: () => `key-number-${++asked}`,
      headers: async () => ({ "X-AbstractCore-Provider-API-Key": "other-secret" }),
    };
    await using here = await place(client(server, options), hello);
    const { runId } = await here.ask({ sessionId: "s 1", actorId: "Zoë", runId: "r1" });
    await here.retry(runId);

    const [first, second] = server.requests.map(({ headers }) => headers);
    expect(first).toMatchObject({
      authorization: "Bearer key-number-1",
      "x-abstractcore-provider-api-key": "other-secret",
      "x-abstractcore-session-id": "s%201",
      "x-abstractcore-run-id": "r1",
      "x-abstractcore-actor-id": "Zo%C3%AB",
    });
    expect(first).not.toHaveProperty("x-abstractcore-parent-run-id");
    expect(JSON.parse(second?.["x-abstractcore-trace-metadata"] as string)).toMatchObject({
      workflow_id: "asking",
      node_id: "ask",
      step: 1,
      attempt: 2,
    });
    expect(second?.authorization).toBe("Bearer key-number-2");
  });

  test("without runHeaders nothing says which run asks", async () => {
    await using server = await OpenAiServer.start({});
    await using here = await place(client(server, { runHeaders: false }), hello);
    await here.ask();
    expect(Object.keys(server.requests[0]?.headers ?? {}).filter((name) => name.startsWith("x-abstractcore"))).toEqual([]);
  });

  test("base_url goes to the top of the body where the list allows it", async () => {
    await using server = await OpenAiServer.start({});
    const params = { base_url: "http://gpu-1:1234/v1", temperature: 1 };
    await using here = await place(client(server, { allowBaseUrls: ["http://gpu-1:1234"] }), () =>
      llmCall({ prompt: "Hi", params }, after),
    );
    await here.ask();
    expect(server.requests.map(({ body }) => body.base_url)).toEqual(["http://gpu-1:1234/v1"]);
  });

  test("base_url comes into the body in no other way", async () => {
    await using server = await OpenAiServer.start({});
    const evil = { base_url: "http://evil.example" };
    const provider_options = { openaiCompatible: evil, "openai-compatible": evil, remote: evil };
    await using here = await place(client(server), () => llmCall({ prompt: "Hi", params: { provider_options } }, after));
    await here.ask();
    expect(server.requests).toHaveLength(1);
    expect(server.requests[0]?.text).not.toContain("evil");
  });

  test.each([400, 401, 403, 404, 422, 307])("status %i is not tried again", async (status) => {
    const headers = { location: "http://127.0.0.1:9/elsewhere" };
    await using server = await OpenAiServer.start({ status, headers, error: { error: { message: "that is wrong" } } });
    await using here = await place(client(server, { apiKey: "secret-key" }), hello);
    const output = outputOf(await here.ask());
    expect(output.code).toBe("LLM_REFUSED");
    expect(output.message).toContain(status === 307 ? "redirects" : `(${status}): that is wrong`);
    expect(server.requests).toHaveLength(1);
  });

  test.each([408, 409, 425, 429, 500, 503])("status %i is tried again, as often as the policy says", async (status) => {
    await using server = await OpenAiServer.start({ status, error: { error: { message: "not now" } } });
    await using here = await place(client(server), hello, { policy: { maxAttempts: 2 } });
    const { runId } = await here.ask();
    expect(await here.retry(runId)).toBe(1_001);
    expect(outputOf(await here.runtime.get(runId))).toMatchObject({
      code: "LLM_UNAVAILABLE",
      message: expect.stringContaining(`(${status}): not now`),
    });
    expect(server.requests).toHaveLength(2);
  });

  test.each([
    ["seconds", { "retry-after": "7" }, 7_000],
    ["milliseconds", { "retry-after-ms": "2500" }, 2_500],
    [
      "a date, by the server's clock",
      { "retry-after": "Fri, 02 Jan 2032 10:00:30 GMT", date: "Fri, 02 Jan 2032 10:00:00 GMT" },
      30_000,
    ],
    ["longer than is bearable", { "retry-after": "999999" }, 3_600_000],
    ["nonsense", { "retry-after": "soon" }, 1_001],
    ["less than the policy's backoff", { "retry-after": "0" }, 1_001],
  ])("Retry-After in %s", async (_, headers, delayMs) => {
    await using server = await OpenAiServer.start({ status: 429, headers }, { content: "there" });
    await using here = await place(client(server), hello);
    const { runId } = await here.ask();
    expect(await here.retry(runId)).toBe(delayMs);
    expect(outputOf(await here.runtime.get(runId)).got).toMatchObject({ content: "there" });
  });

  const broken: [string, Reply, boolean][] = [
    ["the connection is reset before the answer", { cut: "before" }, true],
    ["the connection breaks in mid-stream", { content: ["one ", "two ", "three"], cut: 2 }, true],
    ["the stream ends without a finish", { content: ["one ", "two"], cut: "politely" }, true],
    ["the server fails in mid-stream", { content: ["a", "b"], midError: { after: 1, error: { message: "overloaded" } } }, true],
    ["an event is no JSON", { raw: 'data: {"choices": [{"delta\n\ndata: [DONE]\n\n' }, true],
    ["a page comes instead of events", { raw: "<html>Bad gateway</html>" }, true],
    ["the finish is that of a provider that failed", { content: "half", finishReason: "error" }, true],
    ["so is that of a whole answer", { content: "half", finishReason: "error" }, false],
    ["the server has broken it off itself", { content: "half", finishReason: "abort" }, true],
    ["the body is no JSON", { raw: '{"choices": [{"mess' }, false],
    ["the body is of another shape", { raw: '{"hello": "world"}' }, false],
    ["there is no choice", { raw: '{"choices": []}' }, false],
  ];
  test.each(broken)("%s: tried again, and nothing of it is a result", async (_, reply, stream) => {
    await using server = await OpenAiServer.start(reply, { content: "whole" });
    await using here = await place(client(server), hello, { stream });
    const { runId, wakeAt } = await here.ask();
    expect(wakeAt).not.toBeNull();
    await here.retry(runId);
    expect(outputOf(await here.runtime.get(runId)).got).toMatchObject({ content: "whole" });
    const results = (await here.runtime.ledger(runId)).filter(({ kind }) => kind === "effect_completed");
    expect(results).toHaveLength(1);
  });

  test.each([true, false])("a server that says with status 200 that it has failed is heard, streamed: %s", async (stream) => {
    const failed = JSON.stringify({ error: { message: "model not loaded", code: 503 } });
    await using server = await OpenAiServer.start({ json: failed });
    await using here = await place(client(server), hello, { stream, policy: { maxAttempts: 1 } });
    expect(outputOf(await here.ask()).message).toContain("(503): model not loaded");
    server.script({ json: '{"error":"too many users"}' });
    expect(outputOf(await here.ask()).message).toContain("too many users");
  });

  test("a server that answers at once where a stream was asked for is heard, too", async () => {
    const call = { id: "c1", type: "function", function: { name: "weather", arguments: '{"place":"Ulm"}' } };
    const message = { role: "assistant", content: "Let me see.", reasoning_content: "Hm.", tool_calls: [call] };
    const usage = { prompt_tokens: 3, completion_tokens: 4 };
    const json = JSON.stringify({ model: "m", usage, choices: [{ index: 0, message, finish_reason: "tool_calls" }] });
    await using server = await OpenAiServer.start({ json });
    await using here = await place(client(server), hello);
    expect(outputOf(await here.ask()).got).toMatchObject({
      content: "Let me see.",
      toolCalls: [{ name: "weather", callId: "c1", arguments: { place: "Ulm" } }],
      usage: { inputTokens: 3, outputTokens: 4 },
      finishReason: "tool-calls",
      reasoning: "Hm.",
    });
    expect(server.requests).toHaveLength(1);
    // Or streams, and does not say so.
    const event = { choices: [{ index: 0, delta: { content: "Hello" }, finish_reason: "stop" }] };
    server.script({ json: `data: ${JSON.stringify(event)}\n\ndata: [DONE]\n\n` });
    expect(outputOf(await here.ask()).got).toMatchObject({ content: "Hello" });
  });

  test.each<[string, Reply]>([
    ["one event", { raw: `data: {"id": "${"x".repeat(80 * 1024 * 1024)}` }],
    ["an error", { status: 500, error: "x".repeat(80 * 1024 * 1024) }],
  ])("%s without end is cut off", async (_, reply) => {
    await using server = await OpenAiServer.start(reply);
    await using here = await place(client(server), hello, { policy: { maxAttempts: 1 } });
    const { code, message } = outputOf(await here.ask());
    expect({ code, message }).toMatchObject({
      code: "LLM_UNAVAILABLE",
      message: expect.stringContaining("more than 67108864 bytes"),
    });
    expect(await server.requests[0]?.over).toEqual({ left: true });
  });

  test("a call without arguments is shown, and one without an id or a count is one all the same", async () => {
    const delta = (delta: object, finish_reason: string | null = null) =>
      `data: ${JSON.stringify({ choices: [{ delta, finish_reason }] })}\n\n`;
    const call = (index: number, more: object) => ({
      tool_calls: [{ index, function: { name: "look", arguments: "" }, ...more }],
    });
    const usage = { prompt_tokens: null, completion_tokens: 0, total_tokens: null };
    const raw = [
      delta(call(0, { id: "c1" })),
      delta(call(1, { id: "c1" })),
      delta(call(2, {})),
      delta({}, "tool_calls"),
      `data: ${JSON.stringify({ choices: [], usage })}\n\n`,
    ].join("");
    await using server = await OpenAiServer.start({ raw });
    await using here = await place(client(server), hello);
    const run = await here.ask();
    const { toolCalls, usage: counted } = outputOf(run).got as unknown as LlmResult;
    const ids = toolCalls.map(({ callId }) => callId);
    expect(toolCalls).toEqual(ids.map((callId) => ({ name: "look", callId, arguments: {} })));
    expect(new Set(ids).size).toBe(3);
    // So that a budget counts the estimate, and not nothing.
    expect(counted).toBeNull();
    const shown: StreamPart[] = [];
    for await (const item of here.runtime.watch(run.runId)) if (item.kind === "stream") shown.push(item.part);
    expect(shown).toEqual(ids.map((callId) => ({ type: "tool-call", callId, name: "look", text: "{}" })));
  });

  test("top_k is sent, beside what else a provider takes", async () => {
    await using server = await OpenAiServer.start({});
    const params = { top_k: 0, provider_options: { openaiCompatible: { min_p: 0.1 }, other: { x: 1 } } };
    await using here = await place(client(server), () => llmCall({ prompt: "Hi", params }, after));
    await here.ask();
    expect(server.requests[0]?.body).toMatchObject({ top_k: 0, min_p: 0.1 });
    expect(server.requests[0]?.text).not.toContain("base_url");
  });

  test("nobody listens at the address", async () => {
    const unreachable = remoteLlm({ baseUrl: `http://127.0.0.1:${await freePort()}/v1`, model: "small", provider });
    await using here = await place(unreachable, hello, { policy: { maxAttempts: 1 } });
    expect(outputOf(await here.ask())).toMatchObject({
      code: "LLM_UNAVAILABLE",
      message: expect.stringContaining("ECONNREFUSED"),
    });
  });

  test("a call that takes too long is aborted and tried again", async () => {
    const never = new Promise(() => undefined);
    await using server = await OpenAiServer.start({ content: ["one", "two"], hold: never }, { content: "quick" });
    await using here = await place(client(server, { timeoutMs: 5_000 }), hello);
    const asked = here.ask();
    await server.heard(1);
    await here.clock.advance(5_000);
    const { runId } = await asked;
    expect(await server.requests[0]?.over).toEqual({ left: true });
    await here.retry(runId);
    const failed = (await here.runtime.ledger(runId)).find(({ kind }) => kind === "effect_failed");
    expect(failed?.data).toMatchObject({
      error: { code: "LLM_UNAVAILABLE", message: expect.stringContaining("within 5000 ms") },
    });
  });

  test("a key that does not come is waited for no longer than for an answer", async () => {
    const asked = Promise.withResolvers<void>();
    const apiKey = () => {
      asked.resolve();
      return new Promise<string>(() => undefined);
    };
    await using server = await OpenAiServer.start({});
    await using here = await place(client(server, { timeoutMs: 5_000, apiKey }), hello, { policy: { maxAttempts: 1 } });
    const asking = here.ask();
    await asked.promise;
    await here.clock.advance(5_000);
    expect(outputOf(await asking)).toMatchObject({
      code: "LLM_UNAVAILABLE",
      message: expect.stringContaining("within 5000 ms"),
    });
    expect(server.requests).toEqual([]);
  });

  test.each(["before the first token", "in mid-stream"])("cancelling the run aborts the request %s", async (when) => {
    const never = new Promise(() => undefined);
    await using server = await OpenAiServer.start(
      when === "in mid-stream" ? { content: ["one", "two"], hold: never } : { after: never },
    );
    await using here = await place(client(server), hello, { scheduler: true });
    const { runId } = await here.runtime.start("asking");
    await server.heard(1);
    await here.runtime.cancel(runId);
    expect(await server.requests[0]?.over).toEqual({ left: true });
    await expect(here.runtime.result(runId)).rejects.toMatchObject({ code: "RUN_CANCELLED" });
    expect(server.requests).toHaveLength(1);
  });

  test("50 calls at once", async () => {
    const all = Promise.withResolvers<void>();
    await using server = await OpenAiServer.start(({ body }) => ({
      content: body.messages[0].content.split(""),
      after: all.promise,
    }));
    const plan = () => llmCall({ messages: [{ role: "user", content: "same" }] }, after);
    await using here = await place(client(server), plan, { scheduler: true });
    const runs = await Promise.all(Array.from({ length: 50 }, () => here.runtime.start("asking")));
    await server.heard(50);
    all.resolve();
    const outputs = await Promise.all(runs.map(({ runId }) => here.runtime.result(runId)));
    expect(outputs.every((output) => (output as { got: { content: string } }).got.content === "same")).toBe(true);
    expect(server.requests).toHaveLength(50);
  });
});

describe("base_url", () => {
  const allowed = ["https://models.example/v1", "http://gpu-1:1234"];
  const answers = (base_url: string) => llmCall({ prompt: "Hi", params: { base_url } }, after);

  test.each([
    "https://models.example",
    "https://models.example/v10",
    "https://models.example/v1/../admin",
    "https://models.example/v1/%2e%2e/admin",
    "https://models.example.evil.example/v1",
    "https://models.example@evil.example/v1",
    "https://user:pass@models.example/v1",
    "http://models.example/v1",
    "http://gpu-1:1235/",
    "https://models.example/v1?to=evil",
    // Other programs read these as a way to evil.example.
    "https://models.example\\v1\\@evil.example/v1",
    "http://gpu-1:1234\\@evil.example/",
    "https://models.example/v1/..;/admin",
    "https://models.example/v1/%252e%252e/admin",
    "https://mod\tels.example/v1",
    " https://models.example/v1",
    "https://models.example./v1",
    "http://[::ffff:1.2.3.4]:1234",
    "file:///etc/passwd",
    "//models.example/v1",
    "not a url",
  ])("%s is refused, and nothing is sent", async (url) => {
    await using server = await OpenAiServer.start({});
    const client = remoteLlm({ baseUrl: server.url, model: "small", allowBaseUrls: allowed });
    await using here = await place(client, () => answers(url));
    const { code, message } = outputOf(await here.ask());
    expect(code).toBe("LLM_BASE_URL_REFUSED");
    expect(message).not.toMatch(/user:pass|to=evil/);
    expect(server.requests).toEqual([]);
  });

  test.each([
    ["https://models.example/v1", "https://models.example/v1"],
    ["https://MODELS.example/v1/deep/", "https://models.example/v1/deep/"],
    ["https://models.example:443/v1", "https://models.example/v1"],
    ["https://models.example/admin/../v1", "https://models.example/v1"],
    ["https:models.example/v1", "https://models.example/v1"],
    ["http://@gpu-1:1234?", "http://gpu-1:1234"],
    ["http://[0::1]:80", "http://[::1]"],
  ])("%s is allowed, and sent as it was understood", async (url, sent) => {
    await using server = await OpenAiServer.start({});
    const allowBaseUrls = [...allowed, "http://[::1]"];
    for (const { provider } of providers) {
      const client = remoteLlm({ baseUrl: server.url, model: "small", allowBaseUrls, provider });
      await using here = await place(client, () => answers(url));
      await here.ask();
    }
    expect(server.requests.map(({ body }) => body.base_url)).toEqual([sent, sent]);
  });
});

test.each([
  [{ model: "m" }, "baseUrl"],
  [{ baseUrl: "ftp://x", model: "m" }, "baseUrl"],
  [{ baseUrl: "https://key@host/v1", model: "m" }, "baseUrl"],
  [{ baseUrl: "http://host/v1" }, "model"],
  [{ baseUrl: "http://host/v1", model: "m", apiKey: 5 }, "apiKey"],
  [{ baseUrl: "http://host/v1", model: "m", headers: {} }, "headers"],
  [{ baseUrl: "http://host/v1", model: "m", timeoutMs: 0 }, "timeoutMs"],
  [{ baseUrl: "http://host/v1", model: "m", allowBaseUrls: ["*"] }, "allowBaseUrls"],
  [{ baseURL: "http://host/v1", model: "m" }, "baseURL"],
])("remoteLlm(%j) is refused for its %s", (options, option) => {
  expect(() => remoteLlm(options as never)).toThrow(
    expect.objectContaining({ code: "INVALID_OPTION", fields: expect.objectContaining({ option }) }),
  );
});
