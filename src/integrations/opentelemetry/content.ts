/** What models and tools are given and give, in the form that the conventions ask for. Only with `captureContent`. */
import type { Json, JsonObject } from "../../index.ts";
import { isObject } from "../json-object.ts";

/** A message as the conventions have it. */
interface Message {
  role: string;
  parts: JsonObject[];
}

/** Of a payload of `llm_call`: what was said so far. */
export function inputMessages({ prompt, messages }: JsonObject): Message[] {
  if (prompt !== undefined && prompt !== null) return [{ role: "user", parts: partsOf(prompt) }];
  return (Array.isArray(messages) ? messages : [])
    .filter(isObject)
    .map(({ role, content }) => ({ role: String(role), parts: partsOf(content ?? null) }));
}

/** Of a result of `llm_call`: the one answer. */
export function outputMessages({
  content,
  reasoning,
  toolCalls,
  finishReason,
}: JsonObject): (Message & { finish_reason: string })[] {
  const parts: JsonObject[] = [];
  if (typeof reasoning === "string") parts.push({ type: "reasoning", content: reasoning });
  if (content !== undefined && content !== null) parts.push(...partsOf(content));
  for (const call of Array.isArray(toolCalls) ? toolCalls.filter(isObject) : [])
    parts.push({ type: "tool_call", id: call.callId ?? null, name: call.name ?? "", arguments: call.arguments ?? null });
  return [{ role: "assistant", parts, finish_reason: finishReasonOf(finishReason) }];
}

/** `tool-calls` and `content-filter` are `tool_call` and `content_filter` there. */
export function finishReasonOf(reason: Json | undefined): string {
  if (reason === "tool-calls") return "tool_call";
  return typeof reason === "string" ? reason.replaceAll("-", "_") : "stop";
}

export function toolDefinitions(tools: Json | undefined): JsonObject[] {
  return (Array.isArray(tools) ? tools : []).filter(isObject).map((tool) => ({ type: "function", ...tool }));
}

export function partsOf(content: Json): JsonObject[] {
  if (!Array.isArray(content)) return [{ type: "text", content }];
  return content.filter(isObject).map((part): JsonObject => {
    const { type, text, toolCallId = null, toolName = "" } = part;
    if (type === "tool-call") return { type: "tool_call", id: toolCallId, name: toolName, arguments: part.input ?? null };
    if (type === "tool-result") return { type: "tool_call_response", id: toolCallId, response: outputOf(part.output) };
    if (type === "file")
      return { type: "blob", mime_type: part.mediaType ?? null, modality: modalityOf(part.mediaType), content: part.data ?? "" };
    return { type: typeof type === "string" ? type : "text", content: text ?? null };
  });
}

function modalityOf(mediaType: Json | undefined): string {
  return typeof mediaType === "string" ? (mediaType.split("/")[0] as string) : "document";
}

/** `{ type, value }` of the AI SDK. */
function outputOf(output: Json | undefined): Json {
  return isObject(output) && output.value !== undefined ? output.value : (output ?? null);
}
