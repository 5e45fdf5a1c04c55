/** A request in the words of the AI SDK's language model specification, versions 3 and 4. */
import type { Json, JsonObject } from "../../index.ts";
import type { FilePart, Message, Part } from "./message.ts";
import { isObject } from "../json-object.ts";
import type { LlmRequest } from "./request.ts";

/** What `doStream` and `doGenerate` take, as far as it is used here. */
export interface CallOptions {
  prompt: object[];
  [option: string]: unknown;
}

export function callOptions(request: LlmRequest, specification: string): CallOptions {
  const { params, system, tools, toolChoice, output } = request;
  const { stop } = params;
  const options: Record<string, unknown> = {
    prompt: [
      ...(system === undefined ? [] : [{ role: "system", content: system }]),
      ...request.messages.map((message) => promptMessage(message, specification)),
    ],
    maxOutputTokens: params.max_tokens,
    temperature: params.temperature,
    stopSequences: typeof stop === "string" ? [stop] : stop,
    topP: params.top_p,
    topK: params.top_k,
    presencePenalty: params.presence_penalty,
    frequencyPenalty: params.frequency_penalty,
    seed: params.seed,
    providerOptions: params.provider_options,
    responseFormat: output && { type: "json", schema: output, name: "answer" },
    tools: tools?.map(({ name, description, parameters }) => ({
      type: "function",
      name,
      description,
      inputSchema: inputSchema(parameters),
    })),
    toolChoice:
      toolChoice && (typeof toolChoice === "string" ? { type: toolChoice } : { type: "tool", toolName: toolChoice.name }),
  };
  // What is null is not sent, and zero is.
  for (const [name, value] of Object.entries(options)) if (value == null) delete options[name];
  return options as CallOptions;
}

/**
 * For one tool without arguments that does not say so in full, OpenAI refuses the whole request. Of a schema that says its arguments in
 * another way, Google's provider would then send nothing.
 */
function inputSchema(parameters: JsonObject): JsonObject {
  if (["$ref", "allOf", "anyOf", "oneOf"].some((keyword) => Object.hasOwn(parameters, keyword))) return parameters;
  return { type: "object", properties: {}, ...parameters };
}

function promptMessage(message: Message, specification: string): object {
  const { role, content, providerOptions } = message;
  const marks = providerOptions ? { providerOptions } : {};
  if (role === "system") return { role, content, ...marks };
  const parts: readonly Part[] = typeof content === "string" ? [{ type: "text", text: content }] : content;
  // Providers refuse texts without a character, which is what a model says that only asks for tools.
  const said = parts.filter((part) => part.type !== "text" || part.text !== "" || part.providerOptions);
  return { role, content: said.map((part) => promptPart(part, specification)), ...marks };
}

function promptPart(part: Part, specification: string): object {
  if (part.type === "file") return { ...part, data: fileData(part, specification) };
  // Providers refuse arguments that are not an object; what was wrong with them stands in the tool's result.
  if (part.type === "tool-call" && !isObject(part.input)) return { ...part, input: {} satisfies Json };
  return part;
}

function fileData({ data }: FilePart, specification: string): unknown {
  const url = /^https?:\/\//i.test(data) ? new URL(data) : undefined;
  const bytes = data.replace(/^data:[^,]*;base64,/i, "");
  if (specification === "v3") return url ?? bytes;
  return url ? { type: "url", url } : { type: "data", data: bytes };
}
