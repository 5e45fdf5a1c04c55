/** A conversation as plain JSON, in the shape of the AI SDK's `ModelMessage`, and what results become in it. */
import type { Json, JsonObject } from "../../index.ts";
import type { ToolResult } from "../tool-call.ts";
import type { LlmResult } from "./result.ts";

export type Message = Marked &
  (
    | { role: "system"; content: string }
    | { role: "user"; content: string | (TextPart | FilePart)[] }
    | { role: "assistant"; content: string | (TextPart | FilePart | ReasoningPart | ToolCallPart)[] }
    | { role: "tool"; content: ToolResultPart[] }
  );

export type Part = TextPart | FilePart | ReasoningPart | ToolCallPart | ToolResultPart;

/** What is for a provider alone, by its name: where to cache, or what it wants back as it gave it, such as the signature of a thought. */
type Marked = {
  providerOptions?: JsonObject;
};

export interface TextPart extends Marked {
  type: "text";
  text: string;
}

export interface FilePart extends Marked {
  type: "file";
  /** Base64, also as a `data:` URL, or an http(s) URL that the provider is to fetch. */
  data: string;
  /** Such as `image/png`. */
  mediaType: string;
  filename?: string;
}

export interface ReasoningPart extends Marked {
  type: "reasoning";
  text: string;
}

export interface ToolCallPart extends Marked {
  type: "tool-call";
  toolCallId: string;
  toolName: string;
  input: Json;
}

export interface ToolResultPart extends Marked {
  type: "tool-result";
  toolCallId: string;
  toolName: string;
  output: { type: "text" | "error-text"; value: string } | { type: "json" | "error-json"; value: Json };
}

/** What the model said, to append to the conversation. */
export function assistantMessage({ content, toolCalls, parts }: LlmResult<unknown>): Message & { role: "assistant" } {
  if (parts) return { role: "assistant", content: parts };
  if (toolCalls.length === 0) return { role: "assistant", content: content ?? "" };
  return {
    role: "assistant",
    content: [
      ...(content ? [{ type: "text" as const, text: content }] : []),
      ...toolCalls.map(({ callId, name, arguments: input }) => toolCallPart(callId, name, input)),
    ],
  };
}

export function toolCallPart(toolCallId: string, toolName: string, input: Json): ToolCallPart {
  return { type: "tool-call", toolCallId, toolName, input };
}

/** What tools gave, to append after the message that asked for them. A list, so that no results append nothing. */
export function toolMessages(results: readonly ToolResult[]): (Message & { role: "tool" })[] {
  if (results.length === 0) return [];
  const content = results.map(
    ({ callId, name, success, output, error }): ToolResultPart => ({
      type: "tool-result",
      toolCallId: callId,
      toolName: name,
      output: success
        ? typeof output === "string"
          ? { type: "text", value: output }
          : { type: "json", value: output }
        : { type: "error-text", value: error?.message ?? "the tool failed" },
    }),
  );
  return [{ role: "tool", content }];
}
