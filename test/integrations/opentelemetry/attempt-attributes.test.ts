// What spans say of a model call or a tool call, out of payloads and results of any shape.
import { expect, test } from "vitest";
import { type Shown, shownAttempt } from "../../../src/integrations/opentelemetry/attempt-attributes.ts";
import type { Json } from "../../../src/index.ts";

function shown(type: string, payload: Json): Shown {
  return shownAttempt(type, () => payload) as Shown;
}

test("the AI SDK's names of providers become those of the conventions", () => {
  const providerOf = (provider: string) => shown("llm_call", {}).after({ provider })["gen_ai.provider.name"];
  const named = {
    "openai.responses": "openai",
    "anthropic.messages": "anthropic",
    "google.vertex.chat": "gcp.vertex_ai",
    "google.generative-ai": "gcp.gemini",
    "amazon-bedrock": "aws.bedrock",
    "azure.chat": "azure.ai.openai",
    "mistral.chat": "mistral_ai",
    "xai.chat": "x_ai",
    "my own.chat": "my own",
    "": "_OTHER",
  };
  expect(Object.fromEntries(Object.keys(named).map((name) => [name, providerOf(name)]))).toEqual(named);
});

test("messages of all roles and parts have the form of the conventions", () => {
  const payload: Json = {
    system: "Be kind.",
    messages: [
      {
        role: "user",
        content: [
          { type: "text", text: "What is this?" },
          { type: "file", mediaType: "image/png", data: "iVBORw0KGgo=" },
        ],
      },
      {
        role: "assistant",
        content: [
          { type: "reasoning", text: "Hm." },
          { type: "tool-call", toolCallId: "c1", toolName: "look", input: { at: "it" } },
        ],
      },
      {
        role: "tool",
        content: [{ type: "tool-result", toolCallId: "c1", toolName: "look", output: { type: "json", value: { is: "a cat" } } }],
      },
    ],
    tools: [{ name: "look", parameters: { type: "object" } }],
  };
  const result = { content: "A cat.", reasoning: "Clear.", toolCalls: [], finishReason: "stop" };
  expect(shown("llm_call", payload).content(result)).toEqual({
    "gen_ai.system_instructions": [{ type: "text", content: "Be kind." }],
    "gen_ai.tool.definitions": [{ type: "function", name: "look", parameters: { type: "object" } }],
    "gen_ai.input.messages": [
      {
        role: "user",
        parts: [
          { type: "text", content: "What is this?" },
          { type: "blob", mime_type: "image/png", modality: "image", content: "iVBORw0KGgo=" },
        ],
      },
      {
        role: "assistant",
        parts: [
          { type: "reasoning", content: "Hm." },
          { type: "tool_call", id: "c1", name: "look", arguments: { at: "it" } },
        ],
      },
      { role: "tool", parts: [{ type: "tool_call_response", id: "c1", response: { is: "a cat" } }] },
    ],
    "gen_ai.output.messages": [
      {
        role: "assistant",
        parts: [
          { type: "reasoning", content: "Clear." },
          { type: "text", content: "A cat." },
        ],
        finish_reason: "stop",
      },
    ],
  });
  // An attempt that failed has no output.
  expect(shown("llm_call", payload).content(undefined)).not.toHaveProperty("gen_ai.output.messages");
});

test("payloads and results that are not what they should be are told of as far as they are", () => {
  const odd: Json[] = [null, 7, "text", [], [null], {}, { params: 7, messages: [7, null], tools: {}, name: {}, usage: [] }];
  for (const type of ["llm_call", "tool_call"])
    for (const payload of odd)
      for (const result of odd) {
        const { name, before, after, content, errorType } = shown(type, payload);
        expect(name.length).toBeGreaterThan(3);
        for (const value of Object.values({ ...before, ...after(result) }))
          expect(["undefined", "string", "number"]).toContain(Array.isArray(value) ? typeof value[0] : typeof value);
        expect(() => JSON.stringify(content(result))).not.toThrow();
        expect(errorType?.(result)).toBeUndefined();
      }
  // A name that a model made up does not fill the index of a backend.
  expect(shown("tool_call", { name: "x".repeat(10_000) }).name.length).toBeLessThan(130);
  const long = "x".repeat(10_000);
  const said = { provider: long, model: long, finishReason: long };
  for (const { before, after } of [shown("tool_call", { callId: long }), shown("llm_call", { model: long })])
    expect(JSON.stringify({ ...before, ...after(said) }).length).toBeLessThan(2_000);
  expect(shown("tool_call", {}).errorType?.({ success: false, error: {} })).toBe("_OTHER");
});
