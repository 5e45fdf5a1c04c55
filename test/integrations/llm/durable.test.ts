// Model calls of runs: recorded by reference, made again after a crash, shown as they come, and taken over by other modes.
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  askUser,
  complete,
  createRuntime,
  defineWorkflow,
  goto,
  type Json,
  type Run,
  type Runtime,
  type RuntimeOptions,
  type StreamPart,
  subworkflow,
  type,
  type Workflow,
} from "abstractruntime";
import {
  assistantMessage,
  createHybridRuntime,
  createLocalRuntime,
  createRemoteRuntime,
  llmCall,
  llmEffect,
  type LlmEffectOptions,
  type LlmResult,
  type Message,
  remoteLlm,
  toolMessages,
} from "abstractruntime/llm";
import { memoryStore } from "abstractruntime/memory";
import { faultyStore } from "abstractruntime/testing";
import { localTools, toolCall, toolCalls, type ToolResult } from "abstractruntime/tools";
import { MockLanguageModelV4, convertArrayToReadableStream } from "ai/test";
import { sqliteStore } from "abstractruntime/sqlite";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { eventually } from "../../eventually.ts";
import { OpenAiServer, type Reply } from "../openai-server.ts";
import { after, outputOf, place } from "./place.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "llm-durable-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

interface Chat {
  messages: Message[];
  answer?: LlmResult;
}

/** Asks, appends what came, and asks again, `turns` times. */
function chat(turns: number, request: (vars: Chat) => Message[] = ({ messages }) => messages) {
  return defineWorkflow({
    id: "chat",
    vars: type<Chat>(),
    effects: [llmCall],
    entry: "ask",
    nodes: {
      ask: ({ vars }) => llmCall({ messages: request(vars) }, { resultKey: "answer", nextNode: "note" }),
      note: ({ vars }) => {
        vars.messages.push(assistantMessage(vars.answer as LlmResult));
        delete vars.answer;
        if (vars.messages.length >= turns * 2) return complete({ said: vars.messages.length });
        vars.messages.push({ role: "user", content: `Question ${vars.messages.length}` });
        return goto("ask");
      },
    },
  });
}

const first: Message[] = [{ role: "user", content: "Question 0" }];
const requests: [string, (vars: Chat) => Message[], object][] = [
  ["the list itself", ({ messages }) => messages, { at: "/messages", from: "/messages" }],
  [
    "the list and one more",
    ({ messages }) => [...messages, { role: "system", content: "Be short." }],
    { at: "/messages/0", from: "/messages", range: [0, 3] },
  ],
];

test.each(requests)("messages are recorded by reference: %s", async (_, request, ref) => {
  await using server = await OpenAiServer.start(({ body }) => ({ content: `Answer to ${body.messages.length}` }));
  const effects = [llmEffect(remoteLlm({ baseUrl: server.url, model: "small" }))];
  await using runtime = await createRuntime({ workflows: [chat(2, request)], effects, store: memoryStore() });
  const { runId } = await runtime.start("chat", { vars: { messages: first } });
  await runtime.result(runId);

  const intents = (await runtime.ledger(runId)).flatMap(({ kind, data }) =>
    kind === "effect_started" && data.intent ? [data.intent] : [],
  );
  expect(intents[1]?.refs).toEqual([ref]);
  expect(JSON.stringify(intents[1]?.payload)).not.toContain("Question");
  const more = request({ messages: [] });
  expect(server.requests[1]?.body.messages).toMatchObject([
    { role: "user", content: "Question 0" },
    { role: "assistant", content: expect.stringMatching(/^Answer to [12]$/) },
    { role: "user", content: "Question 2" },
    ...more,
  ]);
});

test("a crash between the answer and its record repeats the call, and nothing else", async () => {
  await using server = await OpenAiServer.start({ content: "first" }, { content: "second" });
  const path = join(directory, "runs.db");
  const effects = [llmEffect(remoteLlm({ baseUrl: server.url, model: "small" }))];
  const open = (store: RuntimeOptions["store"]) => createRuntime({ workflows: [chat(1)], effects, store: store as never });
  const dead = { kind: "fail", on: (method: string) => method !== "close" && server.requests.length > 0 } as const;
  const before = await open(faultyStore(await sqliteStore(path), [dead]));
  const { runId } = await before.start("chat", { vars: { messages: first } });
  await server.heard(1);
  await server.requests[0]?.over;
  await before.stop().catch(() => undefined);

  await using runtime = await open(await sqliteStore(path));
  expect(await runtime.result(runId)).toEqual({ said: 2 });
  expect((await runtime.get(runId)).vars).toMatchObject({ messages: [{}, { content: "second" }] });
  expect(server.requests).toHaveLength(2);
  const keys = server.requests.map(
    ({ headers }) => JSON.parse(headers["x-abstractcore-trace-metadata"] as string).idempotency_key,
  );
  expect(keys[0]).toBe(keys[1]);
  expect(await runtime.verify(runId)).toMatchObject({ ok: true });
});

test("whoever watches sees the tokens, a reset where an attempt broke, and what the record holds", async () => {
  await using server = await OpenAiServer.start(
    { content: ["lost ", "words"], cut: 2 },
    { reasoning: "Hm.", content: ["Hel", "lo ", "there"] },
  );
  const policy = { backoff: { initialMs: 1, jitter: 0 } };
  const effects = [llmEffect(remoteLlm({ baseUrl: server.url, model: "small" }), { policy })];
  await using runtime = await createRuntime({ workflows: [chat(1)], effects, store: memoryStore() });
  const { runId } = await runtime.start("chat", { vars: { messages: first } });
  let parts: StreamPart[] = [];
  let resets = 0;
  let result: LlmResult | undefined;
  for await (const item of runtime.watch(runId)) {
    if (item.kind === "stream") parts.push(item.part);
    else if (item.kind === "reset") {
      resets++;
      parts = [];
    } else if (item.record.kind === "effect_completed")
      result = (item.record.data as { result: Json }).result as unknown as LlmResult;
  }
  const textOf = (type: string) => parts.flatMap((part) => (part.type === type ? [part.text] : [])).join("");
  expect(resets).toBe(1);
  expect([textOf("reasoning"), textOf("text")]).toEqual(["Hm.", "Hello there"]);
  expect(result).toMatchObject({ content: "Hello there", textHash: createHash("sha256").update(textOf("text")).digest("hex") });
});

test("a child says whose it is, in the session of its parent", async () => {
  await using server = await OpenAiServer.start({});
  const child = chat(1);
  const parent = defineWorkflow({
    id: "parent",
    entry: "begin",
    nodes: {
      begin: () => subworkflow(child, { vars: { messages: first } }, { nextNode: "end" }),
      end: () => complete(),
    },
  });
  const effects = [llmEffect(remoteLlm({ baseUrl: server.url, model: "small" }))];
  await using runtime = await createRuntime({ workflows: [parent, child], effects, store: memoryStore() });
  await runtime.start(parent, { runId: "p1", sessionId: "s1", actorId: "ada" });
  await runtime.result("p1");
  const headers = server.requests[0]?.headers;
  expect(headers).toMatchObject({
    "x-abstractcore-parent-run-id": "p1",
    "x-abstractcore-session-id": "s1",
    "x-abstractcore-actor-id": "ada",
  });
  expect(headers?.["x-abstractcore-run-id"]).not.toBe("p1");
});

test("stopping the runtime aborts the request, and costs the call no attempt", async () => {
  const never = new Promise(() => undefined);
  await using server = await OpenAiServer.start({ content: ["one", "two"], hold: never }, { content: "whole" });
  const path = join(directory, "runs.db");
  const effects = [llmEffect(remoteLlm({ baseUrl: server.url, model: "small" }), { policy: { maxAttempts: 1 } })];
  const open = async () => createRuntime({ workflows: [chat(1)], effects, store: await sqliteStore(path) });
  const before = await open();
  const { runId } = await before.start("chat", { vars: { messages: first } });
  await server.heard(1);
  await before.stop({ timeoutMs: 0 });
  expect(await server.requests[0]?.over).toEqual({ left: true });
  await using runtime = await open();
  expect(await runtime.result(runId)).toEqual({ said: 2 });
  expect(server.requests).toHaveLength(2);
});

test("a text that is too long for the ledger reaches the model whole", async () => {
  const long = "long text ".repeat(40_000);
  await using server = await OpenAiServer.start({ content: long }, { content: "short" });
  const effects = [llmEffect(remoteLlm({ baseUrl: server.url, model: "small" }))];
  await using runtime = await createRuntime({ workflows: [chat(2)], effects, store: memoryStore() });
  const { runId } = await runtime.start("chat", { vars: { messages: first } });
  await runtime.result(runId);
  expect(JSON.stringify(await runtime.ledger(runId)).length).toBeLessThan(50_000);
  expect(server.requests[1]?.body.messages[1].content).toBe(long);
});

test("nodes find the tool calls of an answer, however many these are", async () => {
  const page = "page ".repeat(6_000);
  const toolCalls = Array.from({ length: 12 }, (_, i) => ({ id: `c${i}`, name: "look", arguments: JSON.stringify({ page }) }));
  await using server = await OpenAiServer.start({ toolCalls });
  await using here = await place(remoteLlm({ baseUrl: server.url, model: "small" }), () => llmCall({ prompt: "Hi" }, after));
  const { got } = outputOf(await here.ask()) as unknown as { got: LlmResult };
  expect(got.toolCalls.map((call) => call.arguments)).toEqual(toolCalls.map(() => ({ page })));
});

describe("a payload that makes no sense is refused before anything is sent", () => {
  const payloads: [object, string][] = [
    [{}, "neither a prompt nor a message"],
    [{ prompt: "" }, "neither a prompt nor a message"],
    [{ messages: [] }, "neither a prompt nor a message"],
    [{ prompt: "Hi", messages: [{ role: "user", content: "Hi" }] }, "give one"],
    [{ prompt: "Hi", sytem: "x" }, "did you mean system?"],
    [{ prompt: "Hi", params: { max_token: 5 } }, "did you mean max_tokens?"],
    [{ prompt: "Hi", params: { temperature: "hot" } }, "params.temperature is not number"],
    [{ prompt: "Hi", tools: [{ name: "x" }] }, "tools.0"],
    [{ prompt: "Hi", toolChoice: "maybe" }, "toolChoice"],
    [{ messages: [{ role: "robot", content: "Hi" }] }, "messages.0"],
    [{ messages: [{ role: "__proto__", content: "Hi" }] }, "messages.0"],
    [{ messages: [{ role: "user", content: [{ type: "tool-call" }] }] }, "messages.0.content.0"],
    [{ messages: [{ role: "tool", content: "done" }] }, "messages.0.content"],
    [{ messages: [{ role: "user", content: "Hi", providerOptions: "cache" }] }, "messages.0.providerOptions"],
    [{ messages: "Hi" }, "messages is not a list"],
    [
      { messages: [{ role: "user", content: [{ type: "file", data: "http://[", mediaType: "image/png" }] }] },
      "messages.0.content.0",
    ],
  ];
  test.each(payloads)("%j", async (payload, problem) => {
    await using server = await OpenAiServer.start({});
    // As another version, or Python, may have recorded it.
    const plan = () => ({ effect: { type: "llm_call", payload, resultKey: "got" }, nextNode: "end", errorNode: "failed" });
    await using here = await place(remoteLlm({ baseUrl: server.url, model: "small" }), plan);
    const output = outputOf(await here.ask());
    expect(output.code).toBe("EFFECT_INPUT_INVALID");
    expect(output.message).toContain(problem);
    expect(server.requests).toEqual([]);
  });

  test("what is no option is refused where it is written", () => {
    expect(() => llmCall({ promt: "Hi" } as never)).toThrow(/Did you mean "prompt"/);
    expect(() => llmCall(null as never)).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
  });
});

describe("budgets", () => {
  const llm = (server: OpenAiServer) => remoteLlm({ baseUrl: server.url, model: "small" });
  const prices = { small: { inputPerMillion: 1_000, outputPerMillion: 10_000 } };

  test("a call is settled at what the provider says it took", async () => {
    await using server = await OpenAiServer.start({ status: 503 }, { content: "done" });
    const policy = { backoff: { initialMs: 1, jitter: 0 } };
    const effects = [llmEffect(llm(server), { prices, policy })];
    await using runtime = await createRuntime({ workflows: [chat(1)], effects, store: memoryStore() });
    const budget = { tokens: 10_000, usd: 100, calls: 5 };
    const { runId } = await runtime.start("chat", { vars: { messages: first }, budget });
    await runtime.result(runId);
    const used = Object.fromEntries((await runtime.budgets(runId)).map((use) => [use.name, use.used]));
    // Of the attempt that was refused, only that it was made.
    expect(used).toEqual({ tokens: 18, usd: 0.081, calls: 2 });
  });

  test.each<[Reply, number]>([
    [{ status: 429 }, 0],
    [{ status: 503 }, 0],
    [{ status: 500 }, 2_001],
    [{ status: 504 }, 2_001],
    [{ content: ["a", "b"], cut: 1 }, 2_001],
    [{ content: "done", usage: null }, 2_001],
  ])("what may have been spent stays counted: %j", async (reply, tokens) => {
    await using server = await OpenAiServer.start(reply);
    const effects = [llmEffect(llm(server), { policy: { maxAttempts: 1 } })];
    await using runtime = await createRuntime({ workflows: [chat(1)], effects, store: memoryStore() });
    const messages: Message[] = [{ role: "user", content: "?" }];
    const { runId } = await runtime.start("chat", { vars: { messages }, budget: { tokens: 10_000 } });
    await runtime.result(runId).catch(() => undefined);
    const [{ used } = { used: -1 }] = await runtime.budgets(runId);
    expect(Math.round(used / 10)).toBe(Math.round(tokens / 10));
  });

  test("one in dollars that no call would count towards calls nobody", async () => {
    await using server = await OpenAiServer.start({ content: "done" });
    const asked = async (options: LlmEffectOptions) => {
      const effects = [llmEffect(llm(server), options)];
      await using runtime = await createRuntime({ workflows: [chat(1)], effects, store: memoryStore() });
      return await runtime.run("chat", { vars: { messages: first }, budget: { usd: 1 } });
    };
    expect(await asked({})).toMatchObject({ status: "failed", error: { code: "INVALID_OPTION" } });
    expect(server.requests).toHaveLength(0);
    expect(await asked({ prices: {} })).toMatchObject({ status: "completed" });
  });

  test("a server that nobody could connect to has taken nothing", async () => {
    const gone = await OpenAiServer.start();
    const client = llm(gone);
    await gone[Symbol.asyncDispose]();
    const effects = [llmEffect(client, { policy: { maxAttempts: 1 } })];
    await using runtime = await createRuntime({ workflows: [chat(1)], effects, store: memoryStore() });
    const { runId } = await runtime.start("chat", { vars: { messages: first }, budget: { tokens: 10_000 } });
    await expect(runtime.result(runId)).rejects.toMatchObject({ code: "RUN_FAILED" });
    expect(await runtime.budgets(runId)).toMatchObject([{ used: 0 }]);
  });

  test("what there is no room for is not sent, and waits for a person", async () => {
    await using server = await OpenAiServer.start({ content: "done" });
    await using runtime = await createRuntime({ workflows: [chat(1)], effects: [llmEffect(llm(server))], store: memoryStore() });
    const { runId } = await runtime.start("chat", { vars: { messages: first }, budget: { tokens: 100 } });
    await waitsOf(runtime, runId);
    expect(server.requests).toEqual([]);
    await runtime.respond(runId, { raise: { tokens: 10_000 } });
    await runtime.result(runId);
    expect(server.requests).toHaveLength(1);
  });
});

test("a message list full of nonsense is refused in few words", async () => {
  await using server = await OpenAiServer.start({});
  const messages = Array.from({ length: 100_000 }, () => 5) as never;
  await using here = await place(remoteLlm({ baseUrl: server.url, model: "small" }), () => llmCall({ messages }, after));
  const { code, message } = outputOf(await here.ask());
  expect(code).toBe("EFFECT_INPUT_INVALID");
  expect((message as string).length).toBeLessThan(2_000);
});

test("an artifact that the model made up fails the call, not the run's record", async () => {
  const nowhere = { $artifact: "0".repeat(64) };
  await using server = await OpenAiServer.start({
    toolCalls: [{ id: "c1", name: "look", arguments: JSON.stringify({ at: nowhere }) }],
  });
  await using here = await place(remoteLlm({ baseUrl: server.url, model: "small" }), () => llmCall({ prompt: "Hi" }, after), {
    policy: { maxAttempts: 1 },
  });
  expect(outputOf(await here.ask())).toMatchObject({ code: "LLM_OUTPUT_INVALID", message: expect.stringContaining("artifact") });
});

interface Agent extends Chat {
  results?: ToolResult[];
}

/** Looks a number up with a tool, asks a person whether to go on, and lets the model say what it has found. */
const agent: Workflow = defineWorkflow({
  id: "agent",
  vars: type<Agent>(),
  effects: [llmCall, toolCall],
  entry: "think",
  nodes: {
    think: ({ vars }) => llmCall({ messages: vars.messages, tools: [look] }, { resultKey: "answer", nextNode: "act" }),
    act: ({ vars }) => {
      const { toolCalls: calls, content } = vars.answer as LlmResult;
      vars.messages.push(assistantMessage(vars.answer as LlmResult));
      return calls.length === 0 ? complete({ content }) : toolCalls(calls, { resultKey: "results", nextNode: "pause" });
    },
    pause: ({ vars }) => {
      vars.messages.push(...toolMessages(vars.results as ToolResult[]));
      return askUser({ prompt: "Go on?" }, { nextNode: "think" });
    },
  },
});
/** The waits of a run, when it has come to one. */
function waitsOf(runtime: Runtime, runId: string): Promise<Run["waits"]> {
  return eventually(async () => {
    const { waits } = await runtime.get(runId);
    return waits.length > 0 && waits;
  });
}

const look = { name: "look", parameters: { type: "object", properties: { at: { type: "number" } } } };
const tools = () => localTools({ look: { description: "Looks", input: z.object({ at: z.number() }), run: ({ at }) => at * 2 } });

test("a run begun by a remote runtime, whose tools the host carries out, is ended by a local one", async () => {
  await using server = await OpenAiServer.start({ toolCalls: [{ id: "c1", name: "look", arguments: '{"at":21}' }] });
  const path = join(directory, "runs.db");
  const llm = { baseUrl: server.url, model: "small" };
  const remote = await createRemoteRuntime({ workflows: [agent], store: await sqliteStore(path), llm });
  const { runId } = await remote.start(agent, { vars: { messages: first } });
  const [open] = await waitsOf(remote, runId);
  expect(open).toMatchObject({ reason: "job", details: { toolCall: { name: "look", callId: "c1", arguments: { at: 21 } } } });
  await remote.resume(runId, { waitKey: open?.waitKey as string, payload: { output: 42 } });
  await eventually(async () => (await remote.get(runId)).waits.some(({ prompt }) => prompt === "Go on?"));
  await remote.stop();

  const finish = { type: "finish", usage: { inputTokens: {}, outputTokens: {} }, finishReason: { unified: "stop", raw: "stop" } };
  const model = new MockLanguageModelV4({
    doStream: async () =>
      ({ stream: convertArrayToReadableStream([{ type: "text-delta", id: "0", delta: "It is 42." }, finish]) }) as never,
  });
  await using local = await createLocalRuntime({
    workflows: [agent],
    store: await sqliteStore(path),
    llm: model,
    tools: tools(),
  });
  await local.respond(runId, "yes");
  expect(await local.result(runId)).toEqual({ content: "It is 42." });
  expect(model.doStreamCalls[0]?.prompt.at(-1)).toMatchObject({
    role: "tool",
    content: [{ output: { type: "json", value: 42 } }],
  });
});

test("a hybrid runtime has the model there and the tools here", async () => {
  await using server = await OpenAiServer.start(
    { toolCalls: [{ id: "c1", name: "look", arguments: '{"at":21}' }] },
    { content: "It is 42." },
  );
  const llm = { baseUrl: server.url, model: "small" };
  await using runtime = await createHybridRuntime({
    workflows: [agent],
    store: memoryStore(),
    llm,
    tools: tools(),
    llmEffect: { stream: false },
  });
  const { runId } = await runtime.start(agent, { vars: { messages: first } });
  await waitsOf(runtime, runId);
  await runtime.respond(runId, "yes");
  expect(await runtime.result(runId)).toEqual({ content: "It is 42." });
  expect(server.requests[1]?.body.messages.at(-1)).toEqual({ role: "tool", tool_call_id: "c1", content: "42" });
  expect(server.requests[1]?.body.stream).toBeFalsy();
});

test("another model is tried against a run: what tools gave answers the calls that it makes, under its own ids", async () => {
  const say = { content: "It is 42." };
  await using server = await OpenAiServer.start({ toolCalls: [{ id: "c1", name: "look", arguments: '{"at":21}' }] }, say);
  const llm = { baseUrl: server.url, model: "small" };
  await using runtime = await createHybridRuntime({ workflows: [agent], store: memoryStore(), llm, tools: tools() });
  const { runId } = await runtime.start(agent, { vars: { messages: first } });
  await waitsOf(runtime, runId);
  await runtime.respond(runId, "yes");
  await runtime.result(runId);

  server.script({ toolCalls: [{ id: "other", name: "look", arguments: '{"at":20}' }] }, say);
  const large = llmEffect(remoteLlm({ ...llm, model: "large" }));
  const replay = await runtime.replay(runId, { effects: { llm_call: large } });
  expect(replay).toMatchObject({ end: "ended", run: { output: { content: "It is 42." } } });
  expect(server.requests.at(-1)?.body.model).toBe("large");
  expect(server.requests.at(-1)?.body.messages.slice(1)).toMatchObject([
    { tool_calls: [{ id: "other", function: { arguments: '{"at":20}' } }] },
    { role: "tool", tool_call_id: "other", content: "42" },
  ]);
  for (const wrong of [toolCall, llmCall])
    await expect(runtime.replay(runId, { effects: { llm_call: wrong as never } })).rejects.toMatchObject({
      code: "INVALID_OPTION",
    });
});

test("what no runtime can be made of is refused", async () => {
  const refused = { code: "INVALID_OPTION" };
  await expect(createLocalRuntime({ llm: {} as never, store: memoryStore() })).rejects.toMatchObject(refused);
  await expect(createLocalRuntime({ llm: null as never, store: memoryStore() })).rejects.toMatchObject(refused);
  await expect(createRemoteRuntime({ llm: { baseUrl: "x", model: "y" }, store: memoryStore() })).rejects.toMatchObject(refused);
  expect(() => llmEffect({} as never)).toThrow(expect.objectContaining(refused));
  expect(() => llmEffect({ generate: async () => null as never }, { polcy: {} } as never)).toThrow(/Did you mean "policy"/);
});
