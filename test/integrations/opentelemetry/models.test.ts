// Model calls and tool calls of this library's own, over a real server of models: one trace, over HTTP, with nothing of what was said.
import { complete, createRuntime, defineWorkflow, type } from "abstractruntime";
import { llmCall, llmEffect, type LlmResult, remoteLlm } from "abstractruntime/llm";
import { memoryStore } from "abstractruntime/memory";
import { openTelemetry } from "abstractruntime/opentelemetry";
import { localTools, toolCall, toolCalls, toolEffect, type ToolResult } from "abstractruntime/tools";
import { remoteTools, serveToolWorker } from "abstractruntime/worker";
import { expect, test } from "vitest";
import { OpenAiServer } from "../openai-server.ts";
import { type ReceivedSpan, startTelemetry } from "./otlp-receiver.ts";

const planted = "Marseille, planted here";
const key = "sk-planted-key";

const agent = defineWorkflow({
  id: "weather agent",
  vars: type<{ asked?: LlmResult; results?: ToolResult[]; answer?: LlmResult }>(),
  entry: "ask",
  effects: [llmCall, toolCall],
  nodes: {
    ask: () =>
      llmCall(
        { model: "big", prompt: planted, system: planted, params: { temperature: 0, stop: "END" } },
        { resultKey: "asked", nextNode: "act" },
      ),
    act: ({ vars }) => toolCalls(vars.asked?.toolCalls ?? [], { resultKey: "results", nextNode: "answer" }),
    answer: () => llmCall({ model: "big", prompt: planted }, { resultKey: "answer", nextNode: "end" }),
    end: () => complete({}),
  },
});

test("a remote model sees the trace context of its attempt, and the trace tells of model and tools", async () => {
  await using telemetry = await startTelemetry();
  await using server = await OpenAiServer.start(
    { status: 503, error: { error: { message: planted } } },
    {
      content: planted,
      toolCalls: [{ id: "c1", name: "weather", arguments: JSON.stringify({ place: planted }) }],
      usage: { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18, prompt_tokens_details: { cached_tokens: 4 } },
    },
    { content: [planted, planted] },
  );
  const client = remoteLlm({ baseUrl: server.url, model: "small", apiKey: key });
  const policy = { backoff: { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 } };
  const tools = localTools({ weather: { speculative: true, run: () => planted } });
  const runtime = await createRuntime({
    store: memoryStore(),
    effects: [llmEffect(client, { policy }), toolEffect(tools)],
    telemetry: await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter }),
  });
  try {
    expect((await runtime.run(agent, { sessionId: "talk" })).status).toBe("completed");
  } finally {
    await runtime.stop();
  }

  const spans = await telemetry.spans();
  const named = (name: string): ReceivedSpan[] => spans.filter((span) => span.name === name);
  const chats = named("chat big");
  expect(chats.map(({ traceId, spanId }) => `00-${traceId}-${spanId}-01`)).toEqual(
    server.requests.map(({ headers }) => headers.traceparent),
  );
  expect(chats.map(({ status, attributes }) => [status.code, attributes["error.type"]])).toEqual([
    [2, "LLM_UNAVAILABLE"],
    [0, undefined],
    [0, undefined],
  ]);
  expect(chats[1]?.attributes).toMatchObject({
    "gen_ai.provider.name": "openaiCompatible",
    "gen_ai.conversation.id": "talk",
    "gen_ai.request.temperature": 0,
    "gen_ai.request.stop_sequences": ["END"],
    "gen_ai.response.model": "big-served",
    "gen_ai.response.finish_reasons": ["tool_call"],
    "gen_ai.usage.input_tokens": 11,
    "gen_ai.usage.output_tokens": 7,
    "gen_ai.usage.cache_read.input_tokens": 4,
  });
  const [run] = named("invoke_workflow weather agent");
  const [act] = named("step act");
  const [tool] = named("execute_tool weather");
  expect(tool).toMatchObject({ parentSpanId: act?.spanId, traceId: run?.traceId, status: { code: 0 } });
  expect(act?.parentSpanId).toBe(run?.spanId);
  expect(new Set(spans.map(({ traceId }) => traceId)).size).toBe(1);
  for (const secret of [planted, key]) expect(telemetry.raw).not.toContain(secret);
});

test("an answer that does not fit was paid for: its tokens are told", async () => {
  await using telemetry = await startTelemetry();
  const usage = { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 };
  await using server = await OpenAiServer.start({ content: "none", usage });
  const asks = defineWorkflow({
    id: "asks",
    entry: "ask",
    effects: [llmCall],
    nodes: {
      ask: () => llmCall({ prompt: "How many?", output: { type: "integer" } }, { nextNode: "end", errorNode: "end" }),
      end: ({ error }) => complete({ told: error?.details ?? null }),
    },
  });
  await using runtime = await createRuntime({
    store: memoryStore(),
    effects: [llmEffect(remoteLlm({ baseUrl: server.url, model: "small" }), { policy: { maxAttempts: 1 } })],
    telemetry: await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter }),
  });
  const { output } = await runtime.run(asks);
  expect(output).toMatchObject({ told: { usage: { inputTokens: 11, outputTokens: 7 } } });
  const [chat] = (await telemetry.spans()).filter(({ name }) => name === "chat");
  expect(chat?.attributes).toMatchObject({ "error.type": "LLM_OUTPUT_INVALID", "gen_ai.usage.output_tokens": 7 });
  const points = await telemetry.points("gen_ai.client.token.usage");
  expect(points.map(({ attributes, sum }) => [attributes["gen_ai.token.type"], sum])).toEqual([
    ["input", 11],
    ["output", 7],
  ]);
});

test("what a tool worker does stands below the attempt that asked it", async () => {
  await using telemetry = await startTelemetry();
  const told = await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter });
  const token = "a-planted-token";
  const worker = await serveToolWorker({
    tools: { weather: { run: () => planted } },
    token,
    store: memoryStore(),
    telemetry: told,
  });
  const asks = defineWorkflow({
    id: "asks",
    vars: type<{ results?: ToolResult[] }>(),
    entry: "act",
    effects: [toolCall],
    nodes: {
      act: () => toolCalls([{ name: "weather", callId: "c1", arguments: {} }], { resultKey: "results", nextNode: "end" }),
      end: ({ vars }) => complete({ success: vars.results?.[0]?.success }),
    },
  });
  const runtime = await createRuntime({
    store: memoryStore(),
    workflows: [asks],
    effects: [toolEffect(remoteTools({ url: worker.url, token, pollMs: 10 }))],
    telemetry: told,
  });
  try {
    const { runId } = await runtime.start(asks);
    expect(await runtime.result(runId, { timeoutMs: 100_000 })).toEqual({ success: true });
  } finally {
    await runtime.stop();
    await worker.close();
  }
  const spans = await telemetry.spans();
  const submitted = spans.find(
    ({ name, attributes }) => name === "execute_tool weather" && attributes["abstractruntime.outcome"] === "waiting",
  );
  const jobs = spans.filter(({ name }) => name.startsWith("invoke_workflow ") && name !== "invoke_workflow asks");
  expect(jobs.map(({ parentSpanId, traceId }) => ({ parentSpanId, traceId }))).toEqual([
    { parentSpanId: submitted?.spanId, traceId: submitted?.traceId },
  ]);
  for (const secret of [planted, token]) expect(telemetry.raw).not.toContain(secret);
});
