// What a receiver of OTLP is told of runs: whole traces, over resumes in other runtimes and children, and nothing of what was said.
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { trace } from "@opentelemetry/api";
import { afterEach, expect, test } from "vitest";
import {
  all,
  askUser,
  complete,
  createRuntime,
  declareEffect,
  defineEffect,
  defineWorkflow,
  permanent,
  type Runtime,
  subworkflow,
  wait,
} from "../../../src/index.ts";
import { type OpenTelemetryOptions, openTelemetry } from "../../../src/integrations/opentelemetry/index.ts";
import { memoryStore } from "../../../src/stores/memory/index.ts";
import { sqliteStore } from "../../../src/stores/sqlite/index.ts";
import { type ReceivedSpan, startTelemetry, type Telemetry } from "./otlp-receiver.ts";

const places: string[] = [];
afterEach(() => {
  for (const place of places.splice(0)) rmSync(place, { recursive: true, force: true });
});

function databasePath(): string {
  const place = mkdtempSync(join(tmpdir(), "telemetry-"));
  places.push(place);
  return join(place, "runs.db");
}

const secret = "the planted secret";
const asked = { model: "small", messages: [{ role: "user", content: secret }], params: { temperature: 0.5, max_tokens: 100 } };
const answered = {
  content: secret,
  data: null,
  toolCalls: [{ name: "look_up", callId: "c1", arguments: { of: secret } }],
  usage: { inputTokens: 12, outputTokens: 7, totalTokens: 19 },
  model: "small-2026",
  finishReason: "tool-calls",
};

const model = defineEffect("llm_call", { speculative: true, run: async () => answered });
const tool = defineEffect("tool_call", {
  run: ({ name, callId }: any) =>
    name === "broken"
      ? { name, callId, success: false, output: null, error: { code: "TOOL_TIMEOUT", message: secret } }
      : { name, callId, success: true, output: secret, error: null },
});

const llmCall = declareEffect("llm_call");
const toolCall = declareEffect("tool_call");
const child = defineWorkflow({ id: "child", entry: "only", nodes: { only: ({ vars }) => complete(vars.word) } });
const agent = defineWorkflow({
  id: "agent",
  entry: "think",
  effects: [llmCall, toolCall],
  nodes: {
    think: () => llmCall(asked, { resultKey: "answer", nextNode: "act" }),
    act: () =>
      all(
        ["look_up", "broken"].map((name, i) => toolCall({ name, callId: `c${i + 1}`, arguments: { of: secret } })),
        { resultKey: "results", nextNode: "delegate" },
      ),
    delegate: () => subworkflow(child, { vars: { word: secret } }, { resultKey: "given", nextNode: "ask" }),
    ask: () => askUser({ prompt: secret }, { resultKey: "said", nextNode: "end" }),
    end: () => complete("done"),
  },
});

async function open(telemetry: Telemetry, path: string, options: OpenTelemetryOptions = {}): Promise<Runtime> {
  return createRuntime({
    store: await sqliteStore(path),
    workflows: [agent, child],
    effects: [model, tool],
    telemetry: await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter, ...options }),
  });
}

/** The agent's whole life: until it asks in one runtime, and to its end in another. */
async function lifeOfAgent(telemetry: Telemetry, options?: OpenTelemetryOptions): Promise<string> {
  const path = databasePath();
  let runId: string;
  {
    await using runtime = await open(telemetry, path, options);
    ({ runId } = await telemetry.tracer.startActiveSpan("request", async (span) => {
      const started = await runtime.start(agent, { sessionId: "s1" });
      span.end();
      return started;
    }));
    while ((await runtime.get(runId)).node !== "ask" || (await runtime.get(runId)).status !== "waiting")
      await new Promise((resolve) => setImmediate(resolve));
  }
  await using runtime = await open(telemetry, path, options);
  await runtime.respond(runId, secret);
  expect(await runtime.result(runId)).toBe("done");
  return runId;
}

function one(spans: readonly ReceivedSpan[], name: string): ReceivedSpan {
  const found = spans.filter((span) => span.name === name);
  expect(found.map((span) => span.name)).toEqual([name]);
  return found[0] as ReceivedSpan;
}

test("a run with a model call, tools, a child and a resume elsewhere is told of as one story", async () => {
  await using telemetry = await startTelemetry();
  const runId = await lifeOfAgent(telemetry);
  const spans = await telemetry.spans();
  const childOf = (span: ReceivedSpan, parent: ReceivedSpan): void => {
    expect({ of: span.name, traceId: span.traceId, parent: span.parentSpanId }).toEqual({
      of: span.name,
      traceId: parent.traceId,
      parent: parent.spanId,
    });
  };

  // The first drive is the request's child; the others begin traces of their own and link to the one before. The run stays for its
  // child, or is parked until that has ended.
  const drives = spans.filter(({ name }) => name === "invoke_workflow agent");
  const [first, last] = [drives[0], drives.at(-1)] as [ReceivedSpan, ReceivedSpan];
  const waitsOf = drives.map(({ attributes }) => attributes["abstractruntime.wait.reason"]);
  expect(waitsOf.filter((reason) => reason !== "subworkflow")).toEqual(["user", undefined]);
  childOf(first, one(spans, "request"));
  expect(first.links).toEqual([]);
  for (const [i, later] of drives.slice(1).entries()) {
    const { traceId, spanId } = drives[i] as ReceivedSpan;
    expect(later.parentSpanId).toBeUndefined();
    expect(later.traceId).not.toBe(traceId);
    expect(later.links).toEqual([{ traceId, spanId, attributes: { "abstractruntime.link": "resumes" } }]);
  }
  expect(first.attributes).toEqual({
    "abstractruntime.run.id": runId,
    "abstractruntime.workflow.id": "agent",
    "abstractruntime.workflow.version": "1",
    "abstractruntime.outcome": "parked",
    "abstractruntime.wait.reason": waitsOf[0],
    "gen_ai.operation.name": "invoke_workflow",
    "gen_ai.workflow.name": "agent",
    "gen_ai.conversation.id": "s1",
  });
  expect(last.attributes).toMatchObject({ "abstractruntime.outcome": "completed" });
  expect(last.status).toEqual({ code: 0 });

  const steps = ["think", "act", "delegate"].map((node) => one(spans, `step ${node}`));
  for (const step of steps) childOf(step, first);
  const [think, act, delegate] = steps as [ReceivedSpan, ReceivedSpan, ReceivedSpan];
  expect(think.attributes).toEqual({
    "abstractruntime.run.id": runId,
    "abstractruntime.node": "think",
    "abstractruntime.step": 1,
    "abstractruntime.outcome": "completed",
  });
  childOf(one(spans, "step end"), last);

  const chat = one(spans, "chat small");
  childOf(chat, think);
  expect(chat.kind).toBe(3);
  expect(chat.attributes).toEqual({
    "abstractruntime.run.id": runId,
    "abstractruntime.effect.id": expect.any(String),
    "abstractruntime.effect.type": "llm_call",
    "abstractruntime.effect.attempt": 1,
    "abstractruntime.outcome": "completed",
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "_OTHER",
    "gen_ai.conversation.id": "s1",
    "gen_ai.request.model": "small",
    "gen_ai.request.temperature": 0.5,
    "gen_ai.request.max_tokens": 100,
    "gen_ai.response.model": "small-2026",
    "gen_ai.response.finish_reasons": ["tool_call"],
    "gen_ai.usage.input_tokens": 12,
    "gen_ai.usage.output_tokens": 7,
  });

  const lookUp = one(spans, "execute_tool look_up");
  childOf(lookUp, act);
  expect(lookUp.kind).toBe(1);
  expect(lookUp.status).toEqual({ code: 0 });
  expect(lookUp.attributes).toMatchObject({
    "gen_ai.operation.name": "execute_tool",
    "gen_ai.tool.name": "look_up",
    "gen_ai.tool.call.id": "c1",
    "gen_ai.tool.type": "function",
  });
  // A tool that answers with a failure fails neither its effect nor its step, and still shows.
  const broken = one(spans, "execute_tool broken");
  childOf(broken, act);
  expect(broken.status).toEqual({ code: 2 });
  expect(broken.attributes).toMatchObject({ "error.type": "TOOL_TIMEOUT", "abstractruntime.outcome": "completed" });
  expect(act.status).toEqual({ code: 0 });

  // The child is the attempt's that started it.
  const starts = one(spans, "effect start_subworkflow");
  childOf(starts, delegate);
  expect(starts.kind).toBe(4);
  const childRun = one(spans, "run child");
  childOf(childRun, starts);
  expect(childRun.attributes).toMatchObject({ "abstractruntime.run.parent_id": runId });
  childOf(one(spans, "step only"), childRun);

  // Everything that began was told the end of, once.
  expect(new Set(spans.map(({ spanId }) => spanId)).size).toBe(spans.length);
  for (const { parentSpanId } of spans) if (parentSpanId) expect(spans.some(({ spanId }) => spanId === parentSpanId)).toBe(true);
  // And nothing of what was said.
  expect(telemetry.raw).not.toContain(secret);
});

test("content is captured when it is asked for, in the form of the conventions, and redacted", async () => {
  await using telemetry = await startTelemetry();
  await lifeOfAgent(telemetry, { captureContent: true });
  const spans = await telemetry.spans();
  const chat = one(spans, "chat small").attributes;
  expect(JSON.parse(chat["gen_ai.input.messages"] as string)).toEqual([
    { role: "user", parts: [{ type: "text", content: secret }] },
  ]);
  expect(JSON.parse(chat["gen_ai.output.messages"] as string)).toEqual([
    {
      role: "assistant",
      parts: [
        { type: "text", content: secret },
        { type: "tool_call", id: "c1", name: "look_up", arguments: { of: secret } },
      ],
      finish_reason: "tool_call",
    },
  ]);
  const tool = one(spans, "execute_tool look_up").attributes;
  expect(tool["gen_ai.tool.call.arguments"]).toBe(JSON.stringify({ of: secret }));
  expect(tool["gen_ai.tool.call.result"]).toBe(secret);

  await using redacted = await startTelemetry();
  const hide = (attribute: string, value: unknown): unknown =>
    attribute === "gen_ai.tool.call.result" ? undefined : JSON.stringify(value).replaceAll(secret, "[hidden]");
  await lifeOfAgent(redacted, { captureContent: true, redact: hide });
  const shown = await redacted.spans();
  expect(redacted.raw).not.toContain(secret);
  expect(one(shown, "chat small").attributes["gen_ai.input.messages"]).toContain("[hidden]");
  expect(one(shown, "execute_tool look_up").attributes).not.toHaveProperty("gen_ai.tool.call.result");
});

test("what fails has the status of an error, with its code, and its message only with captureContent", async () => {
  const refuse = defineEffect("refuse", {
    run: (): null => {
      throw permanent(Object.assign(new Error(secret), { code: "CARD_DECLINED" }));
    },
  });
  const failing = defineWorkflow({
    id: "failing",
    entry: "pay",
    effects: [refuse],
    nodes: { pay: () => refuse({}, { nextNode: "end" }), end: () => complete({}) },
  });
  for (const captureContent of [false, true]) {
    await using telemetry = await startTelemetry();
    const { tracer, meter } = telemetry;
    await using runtime = await createRuntime({
      store: memoryStore(),
      telemetry: await openTelemetry({ tracer, meter, captureContent }),
    });
    expect((await runtime.run(failing)).status).toBe("failed");
    const spans = await telemetry.spans();
    for (const [name, type] of [
      ["effect refuse", "CARD_DECLINED"],
      ["step pay", "EFFECT_FAILED"],
      ["run failing", "EFFECT_FAILED"],
    ] as const) {
      const { attributes, status } = one(spans, name);
      expect(attributes).toMatchObject({ "error.type": type, "abstractruntime.outcome": "failed" });
      expect(status).toEqual({ code: 2, ...(captureContent ? { message: expect.stringContaining(secret) } : {}) });
    }
    if (!captureContent) expect(telemetry.raw).not.toContain(secret);
  }
});

test("what stands where a code or a name should is no error.type", async () => {
  const odd = defineEffect("odd", {
    run: ({ as }: any): null => {
      throw permanent(Object.assign(new Error("no"), { [as]: secret }));
    },
  });
  const wrong = defineEffect("tool_call", {
    run: ({ name, callId }: any) => ({ name, callId, success: false, output: null, error: { code: secret, message: "" } }),
  });
  const failing = defineWorkflow({
    id: "failing",
    entry: "tool",
    effects: [odd, wrong],
    nodes: {
      tool: () => wrong({ name: "t", callId: "c" }, { nextNode: "code" }),
      code: () => odd({ as: "code" }, { nextNode: "name", errorNode: "name" }),
      name: () => odd({ as: "name" }, { nextNode: "name", errorNode: "end" }),
      end: () => complete({}),
    },
  });
  await using telemetry = await startTelemetry();
  const { tracer, meter } = telemetry;
  await using runtime = await createRuntime({ store: memoryStore(), telemetry: await openTelemetry({ tracer, meter }) });
  expect((await runtime.run(failing)).status).toBe("completed");
  const types = (await telemetry.spans()).map(({ attributes }) => attributes["error.type"]).filter((type) => type);
  expect(types).toEqual(["_OTHER", "_OTHER", "_OTHER"]);
  expect(telemetry.raw).not.toContain(secret);
});

test("each attempt has a span, and a request of its handler carries that span's context", async () => {
  const headers: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    headers.push(request.headers.traceparent as string | undefined);
    response.writeHead(headers.length === 1 ? 500 : 200).end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  try {
    await using telemetry = await startTelemetry();
    let active: string | undefined;
    const remote = defineEffect("remote", {
      policy: { backoff: { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 } },
      speculative: true,
      run: async (_: unknown, context) => {
        active = trace.getActiveSpan()?.spanContext().spanId;
        const { ok, status } = await fetch(url, { headers: context.traceHeaders() });
        if (!ok) throw new Error(`status ${status}`);
        return null;
      },
    });
    const remoteWorkflow = defineWorkflow({
      id: "remote",
      entry: "go",
      effects: [remote],
      nodes: { go: () => remote({}, { nextNode: "end" }), end: () => complete({}) },
    });
    await using runtime = await createRuntime({
      store: memoryStore(),
      telemetry: await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter }),
    });
    expect((await runtime.run(remoteWorkflow)).status).toBe("completed");
    const attempts = (await telemetry.spans()).filter(({ name }) => name === "effect remote");
    expect(attempts.map(({ traceId, spanId }) => `00-${traceId}-${spanId}-01`)).toEqual(headers);
    expect(attempts.map(({ attributes, status }) => [attributes["abstractruntime.effect.attempt"], status.code])).toEqual([
      [1, 2],
      [2, 0],
    ]);
    expect(active).toBe(attempts[1]?.spanId);

    await using silent = await createRuntime({ store: memoryStore() });
    headers.length = 0;
    headers.push("one before");
    await silent.run(remoteWorkflow);
    expect(headers.at(-1)).toBeUndefined();
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

test("an effect that waits and is called again has a span in each drive, and a run is the child of the request given", async () => {
  await using telemetry = await startTelemetry();
  const approve = defineEffect("approve", {
    run: (_: unknown, { answers }) =>
      answers.length === 0 ? wait({ reason: "user", again: true }) : { said: answers[0]?.payload },
  });
  const approving = defineWorkflow({
    id: "approving",
    entry: "ask",
    effects: [approve],
    nodes: { ask: () => approve({}, { nextNode: "end" }), end: () => complete({}) },
  });
  const runtime = await createRuntime({
    store: memoryStore(),
    telemetry: await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter }),
  });
  const traceId = "0af7651916cd43dd8448eb211c80319c";
  const { runId } = await runtime.run(approving, { trace: `00-${traceId}-b7ad6b7169203331-01` });
  await runtime.respond(runId, { text: "yes" });
  await runtime.result(runId);
  // W3C: what cannot be read is as nothing.
  const { runId: other } = await runtime.run(approving, { trace: `00-${"0".repeat(32)}-b7ad6b7169203331-01` });
  await runtime.stop();

  const spans = await telemetry.spans();
  const drives = spans.filter(({ name }) => name === "run approving");
  const [first, second, third] = drives as [ReceivedSpan, ReceivedSpan, ReceivedSpan];
  expect(drives.map(({ parentSpanId }) => parentSpanId)).toEqual(["b7ad6b7169203331", undefined, undefined]);
  expect(first.traceId).toBe(traceId);
  expect(second.links).toMatchObject([{ traceId, spanId: first.spanId }]);
  expect(third).toMatchObject({ links: [], attributes: { "abstractruntime.run.id": other } });
  const told = spans
    .filter(({ name, attributes }) => name === "effect approve" && attributes["abstractruntime.run.id"] === runId)
    .map(({ parentSpanId, traceId: of, attributes }) => {
      const step = spans.find(({ spanId }) => spanId === parentSpanId);
      return [attributes["abstractruntime.effect.attempt"], attributes["abstractruntime.outcome"], step?.name, of];
    });
  expect(told).toEqual([
    [1, "waiting", "step ask", traceId],
    [2, "completed", "step ask", second.traceId],
  ]);
});
