// Models of this process: the providers of ai 6 (specification v3) and ai 7 (v4), with what their libraries wrap around them.
import { createHash } from "node:crypto";
import { extractReasoningMiddleware as reasoning7, wrapLanguageModel as wrap7 } from "ai";
import { MockLanguageModelV4, convertArrayToReadableStream } from "ai/test";
import { extractReasoningMiddleware as reasoning6, wrapLanguageModel as wrap6 } from "ai-v6";
import { MockLanguageModelV3 } from "ai-v6/test";
import type { StreamPart, EffectContext } from "abstractruntime";
import {
  assistantMessage,
  type LanguageModel,
  llmCall,
  type LlmRequest,
  type LlmResult,
  localLlm,
  type Message,
} from "abstractruntime/llm";
import { describe, expect, test } from "vitest";
import { Secrets } from "../../../src/integrations/llm/secrets.ts";
import { after, outputOf, place } from "./place.ts";

const usage = { inputTokens: { total: 3 }, outputTokens: { total: 4 } };
const finish = { type: "finish", usage, finishReason: { unified: "stop", raw: "stop" } };
const specifications = [
  { name: "ai 6", Model: MockLanguageModelV3, wrap: wrap6, reasoning: reasoning6 },
  { name: "ai 7", Model: MockLanguageModelV4, wrap: wrap7, reasoning: reasoning7 },
] as unknown as {
  name: string;
  Model: new (
    options: object,
  ) => LanguageModel & { doStreamCalls: Record<string, unknown>[]; doGenerateCalls: Record<string, unknown>[] };
  wrap: (options: object) => LanguageModel;
  reasoning: (options: object) => object;
}[];

describe.each(specifications)("models of $name", ({ Model, wrap, reasoning }) => {
  /** Gives these parts of a stream, and `content` where it is asked for all at once. */
  const model = (parts: object[], options: object = {}) =>
    new Model({
      provider: "test.chat",
      modelId: "tiny",
      doStream: async () => ({ stream: convertArrayToReadableStream(parts) }),
      ...options,
    });

  test("deltas are streamed as they come, and add up to the result", async () => {
    const parts = [
      { type: "stream-start", warnings: [] },
      { type: "response-metadata", modelId: "tiny-2" },
      { type: "reasoning-start", id: "0" },
      { type: "reasoning-delta", id: "0", delta: "Hm." },
      { type: "reasoning-end", id: "0" },
      { type: "text-start", id: "0" },
      { type: "text-delta", id: "0", delta: "Hel" },
      { type: "text-delta", id: "0", delta: "" },
      { type: "text-delta", id: "0", delta: "lo" },
      { type: "text-end", id: "0" },
      { type: "tool-input-start", id: "c1", toolName: "look" },
      { type: "tool-input-delta", id: "c1", delta: '{"at":' },
      { type: "tool-input-delta", id: "c1", delta: "1}" },
      { type: "tool-input-end", id: "c1" },
      { type: "tool-call", toolCallId: "c1", toolName: "look", input: '{"at":1}' },
      { type: "tool-call", toolCallId: "c2", toolName: "wait", input: "" },
      { type: "tool-call", toolCallId: "c3", toolName: "theirs", input: "{}", providerExecuted: true },
      { type: "text-start", id: "0" },
      { type: "text-delta", id: "0", delta: " there" },
      finish,
    ];
    const streamed: StreamPart[] = [];
    const context = {
      signal: new AbortController().signal,
      clock: { now: () => 0 },
      stream: (part: StreamPart) => streamed.push(part),
    } as unknown as EffectContext;
    const request: LlmRequest = { messages: [{ role: "user", content: "Hi" }], params: {}, stream: true };
    const result = await localLlm({ models: model(parts) }).generate(request, context);

    expect(streamed).toEqual([
      { type: "reasoning", text: "Hm." },
      { type: "text", text: "Hel" },
      { type: "text", text: "lo" },
      { type: "tool-call", callId: "c1", name: "look", text: '{"at":' },
      { type: "tool-call", callId: "c1", name: "look", text: "1}" },
      { type: "tool-call", callId: "c2", name: "wait", text: "{}" },
      { type: "text", text: " there" },
    ]);
    expect(result).toEqual({
      content: "Hello there",
      toolCalls: [
        { name: "look", callId: "c1", arguments: { at: 1 } },
        { name: "wait", callId: "c2", arguments: {} },
      ],
      usage: { inputTokens: 3, outputTokens: 4, totalTokens: 7 },
      model: "tiny-2",
      provider: "test.chat",
      finishReason: "stop",
      reasoning: "Hm.",
      textHash: createHash("sha256").update("Hello there").digest("hex"),
      // With thoughts that led to tool calls: there are providers that want them back.
      parts: [
        { type: "reasoning", text: "Hm." },
        { type: "text", text: "Hello" },
        { type: "tool-call", toolCallId: "c1", toolName: "look", input: { at: 1 } },
        { type: "tool-call", toolCallId: "c2", toolName: "wait", input: {} },
        { type: "text", text: " there" },
      ],
    });
  });

  test("calls without an id are calls of their own, shown and recorded under the same one", async () => {
    const call = { type: "tool-call", toolCallId: "", toolName: "look", input: "{}" };
    await using here = await place(localLlm({ models: model([call, call, finish]) }), () => llmCall({ prompt: "Hi" }, after));
    const run = await here.ask();
    const { toolCalls } = outputOf(run).got as unknown as LlmResult;
    const ids = toolCalls.map(({ callId }) => callId);
    expect(new Set([...ids, ""]).size).toBe(3);
    const shown: unknown[] = [];
    for await (const item of here.runtime.watch(run.runId)) if (item.kind === "stream") shown.push(item.part.callId);
    expect(shown).toEqual(ids);
  });

  test.each([undefined, null, {}, { inputTokens: null, outputTokens: { total: Number.NaN } }])(
    "an answer is one that was not counted rightly: %j",
    async (counted) => {
      const parts = [
        { type: "text-delta", id: "0", delta: "Hi" },
        { ...finish, usage: counted },
      ];
      await using here = await place(localLlm({ models: model(parts) }), () => llmCall({ prompt: "Hi" }, after));
      expect(outputOf(await here.ask()).got).toMatchObject({ content: "Hi", usage: null });
    },
  );

  test("what messages are marked with reaches the provider, such as where to cache", async () => {
    const tiny = model([finish]);
    const providerOptions = { anthropic: { cacheControl: { type: "ephemeral" } } };
    const output = { type: "text" as const, value: "done" };
    const messages: Message[] = [
      { role: "system", content: "Be kind.", providerOptions },
      { role: "user", content: "Hi", providerOptions },
      { role: "assistant", content: [{ type: "tool-call", toolCallId: "c", toolName: "look", input: {} }], providerOptions },
      { role: "tool", content: [{ type: "tool-result", toolCallId: "c", toolName: "look", output }], providerOptions },
    ];
    await using here = await place(localLlm({ models: tiny }), () => llmCall({ messages }, after));
    await here.ask();
    expect(tiny.doStreamCalls[0]?.prompt).toEqual([
      messages[0],
      { role: "user", content: [{ type: "text", text: "Hi" }], providerOptions },
      messages[2],
      messages[3],
    ]);
  });

  test("what a provider signed goes back to it as it was", async () => {
    const signed = { google: { thoughtSignature: "c2ln" } };
    const parts = [
      { type: "reasoning-start", id: "0" },
      { type: "reasoning-delta", id: "0", delta: "Hm." },
      { type: "reasoning-end", id: "0", providerMetadata: { anthropic: { signature: "x" } } },
      { type: "tool-call", toolCallId: "c1", toolName: "look", input: "{}", providerMetadata: signed },
      finish,
    ];
    const tiny = model(parts);
    await using here = await place(localLlm({ models: tiny }), () => llmCall({ prompt: "Hi" }, after));
    const { got } = outputOf(await here.ask());
    const message = assistantMessage(got as never);
    expect(message).toEqual({
      role: "assistant",
      content: [
        { type: "reasoning", text: "Hm.", providerOptions: { anthropic: { signature: "x" } } },
        { type: "tool-call", toolCallId: "c1", toolName: "look", input: {}, providerOptions: signed },
      ],
    });
    await using again = await place(localLlm({ models: tiny }), () => llmCall({ messages: [message] }, after));
    await again.ask();
    expect(tiny.doStreamCalls[1]?.prompt).toEqual([message]);
  });

  test("a model that the SDK has wrapped in middleware works, at once too", async () => {
    const content = [{ type: "text", text: "<think>Hm.</think>Hello" }];
    const inner = model([], { doGenerate: async () => ({ content, usage, finishReason: finish.finishReason, warnings: [] }) });
    const wrapped = wrap({ model: inner, middleware: reasoning({ tagName: "think" }) });
    await using here = await place(localLlm({ models: wrapped }), () => llmCall({ prompt: "Hi" }, after), { stream: false });
    expect(outputOf(await here.ask()).got).toMatchObject({ content: "Hello", reasoning: "Hm.", model: "tiny" });
  });

  test("files are data or an address, in the specification's own form", async () => {
    const tiny = model([finish]);
    const file = { type: "file" as const, mediaType: "image/png" };
    const content = [
      { ...file, data: "iVBORw0KGgo=" },
      { ...file, data: "data:image/png;base64,iVBORw0KGgo=" },
      { ...file, data: "https://example.org/a.png" },
    ];
    await using here = await place(localLlm({ models: tiny }), () => llmCall({ messages: [{ role: "user", content }] }, after));
    await here.ask();
    const url = new URL("https://example.org/a.png");
    const data =
      tiny.specificationVersion === "v3"
        ? ["iVBORw0KGgo=", "iVBORw0KGgo=", url]
        : [
            { type: "data", data: "iVBORw0KGgo=" },
            { type: "data", data: "iVBORw0KGgo=" },
            { type: "url", url },
          ];
    expect(tiny.doStreamCalls[0]?.prompt).toEqual([{ role: "user", content: data.map((each) => ({ ...file, data: each })) }]);
  });

  const text = { type: "text-delta", id: "0", delta: "half" };
  test.each([
    ["ends without a finish", [text]],
    ["says that it failed", [text, { type: "error", error: new Error("overloaded") }, finish]],
    ["finishes with an error", [text, { ...finish, finishReason: { unified: "error", raw: undefined } }]],
    ["was interrupted", [text, { ...finish, finishReason: { unified: "interrupted", raw: undefined } }]],
  ])("nothing of a stream is a result that %s", async (_, parts) => {
    await using here = await place(localLlm({ models: model(parts) }), () => llmCall({ prompt: "Hi" }, after), {
      policy: { maxAttempts: 1 },
    });
    const { runId, output } = await here.ask();
    expect(output).toMatchObject({ code: "LLM_UNAVAILABLE" });
    expect(JSON.stringify(await here.runtime.ledger(runId))).not.toContain("half");
  });

  test("the hash is of the text as it was streamed, also where texts come mixed", async () => {
    const parts = ["1", "reasoning 1", "1"].map((id, i) => ({ type: "text-delta", id, delta: "ABC"[i] }));
    const thought = { type: "reasoning-delta", id: "1", delta: "Hm." };
    await using here = await place(localLlm({ models: model([...parts, thought, finish]) }), () =>
      llmCall({ prompt: "Hi" }, after),
    );
    expect(outputOf(await here.ask()).got).toMatchObject({
      content: "ACB",
      reasoning: "Hm.",
      textHash: createHash("sha256").update("ABC").digest("hex"),
    });
  });

  test.each(["speaks", "is silent"])("a model that ignores its signal and %s is left at once", async (how) => {
    const left = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const stream = () =>
      new ReadableStream({
        async pull(controller) {
          begun.resolve();
          await new Promise((resolve) => setImmediate(resolve));
          controller.enqueue(text);
          if (how === "is silent") await new Promise(() => undefined);
        },
        cancel: () => left.resolve(),
      });
    const deaf = model([], { doStream: async () => ({ stream: stream() }) });
    await using here = await place(localLlm({ models: deaf }), () => llmCall({ prompt: "Hi" }, after), { scheduler: true });
    const { runId } = await here.runtime.start("asking");
    await begun.promise;
    await here.runtime.cancel(runId);
    await left.promise;
    // The clock stands still: nobody waits for it.
    await expect(here.runtime.result(runId)).rejects.toMatchObject({ code: "RUN_CANCELLED" });
  });

  test.each([true, false])(
    "a model that ignores its signal and does not even begin is left at once, streamed: %s",
    async (stream) => {
      const begun = Promise.withResolvers<void>();
      const never = () => {
        begun.resolve();
        return new Promise(() => undefined);
      };
      const deaf = model([], { doStream: never, doGenerate: never });
      await using here = await place(localLlm({ models: deaf }), () => llmCall({ prompt: "Hi" }, after), {
        scheduler: true,
        stream,
      });
      const { runId } = await here.runtime.start("asking");
      await begun.promise;
      await here.runtime.cancel(runId);
      await expect(here.runtime.result(runId)).rejects.toMatchObject({ code: "RUN_CANCELLED" });
    },
  );

  test("what a provider noted about a thought may look like an artifact", async () => {
    const providerMetadata = { test: { $artifact: "0".repeat(64) } };
    const parts = [{ type: "reasoning-delta", id: "0", delta: "Hm.", providerMetadata }, finish];
    await using here = await place(localLlm({ models: model(parts) }), () => llmCall({ prompt: "Hi" }, after), {
      policy: { maxAttempts: 1 },
    });
    expect(outputOf(await here.ask()).code).toBe("LLM_OUTPUT_INVALID");
  });

  test("a text without a character is not sent", async () => {
    const tiny = model([finish]);
    const messages: Message[] = [
      { role: "assistant", content: "" },
      { role: "user", content: [{ type: "text", text: "" }] },
    ];
    await using here = await place(localLlm({ models: tiny }), () => llmCall({ messages }, after));
    await here.ask();
    expect(tiny.doStreamCalls[0]?.prompt).toEqual([
      { role: "assistant", content: [] },
      { role: "user", content: [] },
    ]);
  });

  test("arguments that were no JSON go back as an object, which providers insist on", async () => {
    const tiny = model([finish]);
    const message = assistantMessage({
      content: null,
      data: null,
      toolCalls: [{ name: "look", callId: "c1", arguments: "{broken" }],
      usage: null,
      model: null,
      finishReason: null,
    });
    await using here = await place(localLlm({ models: tiny }), () => llmCall({ messages: [message] }, after));
    await here.ask();
    expect(tiny.doStreamCalls[0]?.prompt).toMatchObject([{ content: [{ toolCallId: "c1", input: {} }] }]);
  });

  test("a model is found by its name, and base_url means nothing here", async () => {
    const [one, two] = [model([finish]), model([finish])];
    const client = localLlm({ models: { one, two }, default: "one" });
    const params = { base_url: "http://elsewhere" };
    await using here = await place(client, () => llmCall({ model: "two", prompt: "Hi", params }, after));
    await here.ask();
    expect([one.doStreamCalls.length, two.doStreamCalls.length]).toEqual([0, 1]);
    expect(JSON.stringify(two.doStreamCalls)).not.toContain("elsewhere");
  });

  test.each(["tow", "__proto__", "constructor"])("a model named %s, which is not there, is not asked for again", async (name) => {
    const client = localLlm({ models: { one: model([]), two: model([]) } });
    await using here = await place(client, () => llmCall({ model: name, prompt: "Hi" }, after));
    const { code, message } = outputOf(await here.ask());
    expect(code).toBe("LLM_MODEL_UNKNOWN");
    expect(message).toContain(name === "tow" ? 'Did you mean "two"?' : "known: one, two");
  });

  test.each([
    ["a bug of the provider's", new TypeError("x is not a function"), "LLM_UNAVAILABLE", 2],
    ["a key that is missing", Object.assign(new Error("no key"), { name: "AI_LoadAPIKeyError" }), "LLM_REFUSED", 1],
    ["a thrown text", "sk-abcdefghijklmnop is wrong", "LLM_UNAVAILABLE", 2],
    [
      "other keys",
      "gsk_abcdefghijklmnop, xai-abcdefghijklmnop, hf_abcdefghijklmnop, key=AIzaabcdefghijklmnop",
      "LLM_UNAVAILABLE",
      2,
    ],
    ["nothing", undefined, "LLM_UNAVAILABLE", 2],
  ])("%s", async (_, thrown, code, attempts) => {
    let calls = 0;
    const failing = model([], {
      doStream: async () => {
        calls++;
        throw thrown;
      },
    });
    await using here = await place(localLlm({ models: failing }), () => llmCall({ prompt: "Hi" }, after), {
      policy: { maxAttempts: 2 },
    });
    const { runId, status } = await here.ask();
    if (status === "waiting") await here.retry(runId);
    const output = outputOf(await here.runtime.get(runId));
    expect(output.code).toBe(code);
    expect(output.message).not.toContain("abcdef");
    expect(calls).toBe(attempts);
  });
});

test("names that only begin as keys do are told", () => {
  const problem = "xai-grok-4-fast and pplx-70b-online are unknown to hf_hub_download()";
  expect(new Secrets().cut(problem)).toBe(problem);
});

test("models of both versions fit the type", () => {
  const models: Record<string, LanguageModel> = { six: new MockLanguageModelV3(), seven: new MockLanguageModelV4() };
  expect(localLlm({ models })).toHaveProperty("generate");
});

test.each([
  [{}, "models"],
  [{ models: {} }, "models"],
  [{ models: "openai/gpt" }, "models"],
  [{ models: { a: {} } }, "models"],
  [{ models: { a: { specificationVersion: "v2", doStream() {}, doGenerate() {} } } }, "models"],
  [{ models: { a: new MockLanguageModelV4() }, default: "b" }, "default"],
  [{ model: new MockLanguageModelV4() }, "model"],
])("localLlm(%#) is refused", (options, option) => {
  expect(() => localLlm(options as never)).toThrow(expect.objectContaining({ fields: expect.objectContaining({ option }) }));
});
