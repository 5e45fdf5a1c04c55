/** What a model is asked: the payload of `llm_call`, which may come from any process and any year, checked before each attempt. */
import { isArtifactRef, type Json, type JsonObject, type JsonSchema, nearest } from "../../index.ts";
import type { ToolDescription } from "../tool-call.ts";
import { isObject } from "../json-object.ts";
import type { Message } from "./message.ts";

/** Settings, by their names in the OpenAI API. Those that are null are not sent. */
export interface LlmParams {
  temperature?: number | null;
  max_tokens?: number | null;
  top_p?: number | null;
  top_k?: number | null;
  stop?: string | string[] | null;
  seed?: number | null;
  frequency_penalty?: number | null;
  presence_penalty?: number | null;
  /** Where an AbstractCore server is to send the request on to; `remoteLlm` has the list of what is allowed. A local client ignores it. */
  base_url?: string | null;
  /** What else a provider takes, by the provider's name, as the AI SDK's `providerOptions`. */
  provider_options?: JsonObject | null;
}

export type ToolChoice = "auto" | "none" | "required" | { name: string };

export interface LlmRequest {
  /** Default: the client's. */
  model?: string;
  /** At least one; a prompt is one message of the user. */
  messages: Message[];
  /** Goes before all messages. */
  system?: string;
  tools?: ToolDescription[];
  toolChoice?: ToolChoice;
  params: LlmParams;
  /** What the answer must be. */
  output?: JsonSchema;
  /** Whether `context.stream` is to be given the parts of the answer. */
  stream: boolean;
}

export const llmCallKeys = ["model", "prompt", "messages", "system", "tools", "toolChoice", "params", "output"];

/** Of a payload that is nonsense, more would be too much to read, or to record. */
const mostProblems = 10;

type Kind = "text" | "number" | "texts" | "object";
export const paramKinds: Record<keyof LlmParams, readonly Kind[]> = {
  temperature: ["number"],
  max_tokens: ["number"],
  top_p: ["number"],
  top_k: ["number"],
  stop: ["text", "texts"],
  seed: ["number"],
  frequency_penalty: ["number"],
  presence_penalty: ["number"],
  base_url: ["text"],
  provider_options: ["object"],
};

/** A request from a recorded payload, and what is wrong with it. */
export function readRequest(payload: Json): { request: Omit<LlmRequest, "stream">; problems: string[] } {
  const problems: string[] = [];
  const given = isObject(payload) ? payload : {};
  const demand = (holds: boolean, problem: string): void => {
    if (!holds && problems.length < mostProblems) problems.push(problem);
  };
  checkNames(given, llmCallKeys, "", problems);
  const { model, prompt, system, tools, toolChoice, params, output } = given;
  const messages = Array.isArray(given.messages) ? given.messages : [];
  demand(model == null || typeof model === "string", "model is not text");
  demand(system == null || isText(system), "system is not text");
  demand(given.messages == null || Array.isArray(given.messages), "messages is not a list");
  demand(prompt == null || isText(prompt), "prompt is not text");
  demand(prompt == null || messages.length === 0, "prompt and messages say the same: give one");
  demand((prompt != null && prompt !== "") || messages.length > 0, "there is neither a prompt nor a message");
  demand(output == null || isObject(output), "output is not a JSON Schema");
  for (const [i, message] of messages.entries()) checkMessage(message, `messages.${i}`, demand);
  demand(tools == null || Array.isArray(tools), "tools is not a list");
  for (const [i, tool] of (Array.isArray(tools) ? tools : []).entries()) {
    demand(
      isObject(tool) && typeof tool.name === "string" && tool.name !== "" && isObject(tool.parameters),
      `tools.${i} is not { name, description?, parameters }`,
    );
  }
  demand(
    toolChoice == null ||
      toolChoice === "auto" ||
      toolChoice === "none" ||
      toolChoice === "required" ||
      (isObject(toolChoice) && typeof toolChoice.name === "string"),
    'toolChoice is not "auto", "none", "required" or { name }',
  );
  demand(params == null || isObject(params), "params is not an object");
  const settings = isObject(params) ? params : {};
  checkNames(settings, Object.keys(paramKinds), "params.", problems);
  for (const [name, kinds] of Object.entries(paramKinds)) {
    const value = settings[name];
    demand(value == null || kinds.some((kind) => is(kind, value)), `params.${name} is not ${kinds.join(" or ")}`);
  }
  const request = {
    ...(model == null ? {} : { model }),
    messages: prompt == null ? messages : [{ role: "user", content: prompt }],
    ...(system == null ? {} : { system }),
    ...(tools == null ? {} : { tools }),
    ...(toolChoice == null ? {} : { toolChoice }),
    params: settings,
    ...(output == null ? {} : { output }),
  };
  return { request: request as unknown as Omit<LlmRequest, "stream">, problems };
}

function checkNames(given: JsonObject, known: readonly string[], where: string, problems: string[]): void {
  for (const key of Object.keys(given)) {
    if (known.includes(key)) continue;
    const suggestion = nearest(key, known);
    problems.push(`${where}${key} is not known${suggestion ? `; did you mean ${suggestion}?` : ""}`);
  }
}

type Demand = (holds: boolean, problem: string) => void;

/** Which parts may stand in the messages of a role, where these may be parts. */
const partsOf: Record<string, readonly string[]> = {
  system: [],
  user: ["text", "file"],
  assistant: ["text", "file", "reasoning", "tool-call"],
  tool: ["tool-result"],
};

function checkMessage(message: Json, at: string, demand: Demand): void {
  const role = isObject(message) && typeof message.role === "string" ? message.role : "";
  const allowed = Object.hasOwn(partsOf, role) ? (partsOf[role] as readonly string[]) : undefined;
  if (!isObject(message) || !allowed) return demand(false, `${at} has no role of ${Object.keys(partsOf).join(", ")}`);
  const { content, providerOptions } = message;
  demand(providerOptions == null || isObject(providerOptions), `${at}.providerOptions is not an object`);
  if (!Array.isArray(content))
    return demand(isText(content) && role !== "tool", `${at}.content is not what ${role} messages have`);
  demand(allowed.length > 0, `${at}.content is not text`);
  for (const [i, part] of content.entries()) {
    const type = isObject(part) && typeof part.type === "string" ? part.type : "";
    demand(allowed.includes(type) && isPart(part as JsonObject), `${at}.content.${i} is no ${allowed.join(", ")} part`);
  }
}

function isPart({ type, text, data, mediaType, toolCallId, toolName, input, output }: JsonObject): boolean {
  if (type === "text" || type === "reasoning") return isText(text);
  if (type === "file") return isText(data) && !isBadUrl(data) && typeof mediaType === "string";
  if (typeof toolCallId !== "string" || typeof toolName !== "string") return false;
  return type === "tool-call" ? input !== undefined : isObject(output) && typeof output.type === "string";
}

function isBadUrl(data: Json | undefined): boolean {
  return typeof data === "string" && /^https?:\/\//i.test(data) && !URL.canParse(data);
}

/** A long text stands as a reference to an artifact where the runtime has put it. */
function isText(value: Json | undefined): boolean {
  return typeof value === "string" || isArtifactRef(value);
}

function is(kind: Kind, value: Json): boolean {
  if (kind === "texts") return Array.isArray(value) && value.every((text) => typeof text === "string");
  return kind === "text" ? typeof value === "string" : kind === "number" ? typeof value === "number" : isObject(value);
}
