/** What spans of model and tool calls say of them, out of payload and result. Whatever is not as expected is left out. */
import type { Attributes } from "@opentelemetry/api";
import type { ErrorData, Json, JsonObject } from "../../index.ts";
import { finishReasonOf, inputMessages, outputMessages, partsOf, toolDefinitions } from "./content.ts";
import { isObject } from "../json-object.ts";
import {
  attributes as a,
  type ContentAttribute,
  contentAttributes as c,
  operations,
  other,
  providers,
  spanNames,
} from "./conventions.ts";

/** How the attempts of one type of effect are shown. */
export interface Shown {
  name: string;
  /** Known before the call. */
  before: Attributes;
  /** Known when it gave a result. */
  after(result: Json): Attributes;
  /** Known although it failed. */
  afterFailure?(error: ErrorData): Attributes;
  content(result: Json | undefined): Partial<Record<ContentAttribute, unknown>>;
  /** What a result says that means failure. */
  errorType?(result: Json): string | undefined;
}

/** Of the two types that models and tools are called by; undefined for all others. */
export function shownAttempt(effectType: string, payload: () => Json): Shown | undefined {
  if (effectType === "llm_call") return modelCall(objectOf(payload()));
  return effectType === "tool_call" ? toolCall(objectOf(payload())) : undefined;
}

function modelCall(payload: JsonObject): Shown {
  const model = textOf(payload.model);
  const params = objectOf(payload.params);
  const stop = typeof params.stop === "string" ? [params.stop] : params.stop;
  return {
    name: spanNames.chat(model),
    before: {
      [a.operation]: operations.chat,
      [a.provider]: other,
      [a.requestModel]: model,
      [a.outputType]: isObject(payload.output) ? "json" : undefined,
      [a.temperature]: numberOf(params.temperature),
      [a.maxTokens]: numberOf(params.max_tokens),
      [a.topP]: numberOf(params.top_p),
      [a.topK]: numberOf(params.top_k),
      [a.seed]: numberOf(params.seed),
      [a.frequencyPenalty]: numberOf(params.frequency_penalty),
      [a.presencePenalty]: numberOf(params.presence_penalty),
      [a.stopSequences]: Array.isArray(stop) ? stop.filter((text) => typeof text === "string") : undefined,
    },
    after(result) {
      const { model: answered, provider, finishReason, usage } = objectOf(result);
      return {
        [a.provider]: providerOf(textOf(provider)),
        [a.responseModel]: textOf(answered),
        [a.finishReasons]: typeof finishReason === "string" ? [finishReasonOf(textOf(finishReason))] : undefined,
        ...tokensOf(usage),
      };
    },
    afterFailure: ({ details }) => tokensOf(objectOf(details).usage),
    content: (result) => ({
      [c.inputMessages]: inputMessages(payload),
      ...(payload.system == null ? {} : { [c.systemInstructions]: partsOf(payload.system) }),
      ...(Array.isArray(payload.tools) ? { [c.toolDefinitions]: toolDefinitions(payload.tools) } : {}),
      ...(result === undefined ? {} : { [c.outputMessages]: outputMessages(objectOf(result)) }),
    }),
  };
}

function tokensOf(usage: Json | undefined): Attributes {
  const tokens = objectOf(usage);
  return {
    [a.inputTokens]: numberOf(tokens.inputTokens),
    [a.outputTokens]: numberOf(tokens.outputTokens),
    [a.cachedInputTokens]: numberOf(tokens.cachedInputTokens),
    [a.reasoningTokens]: numberOf(tokens.reasoningTokens),
  };
}

function toolCall({ name, callId, arguments: given }: JsonObject): Shown {
  const tool = textOf(name) ?? "";
  return {
    name: spanNames.executeTool(tool),
    before: {
      [a.operation]: operations.tool,
      [a.toolName]: tool,
      [a.toolCallId]: textOf(callId),
      [a.toolType]: "function",
    },
    after: () => ({}),
    content: (result) => ({
      [c.toolArguments]: given,
      ...(result === undefined ? {} : { [c.toolResult]: objectOf(result).output ?? objectOf(result).error }),
    }),
    errorType(result) {
      const { success, error } = objectOf(result);
      return success === false ? (textOf(objectOf(error).code) ?? other) : undefined;
    },
  };
}

const longestName = 100;

/** The AI SDK says `openai.chat` where the conventions say `openai`. */
function providerOf(name: string | undefined): string {
  if (!name) return other;
  const known = Object.keys(providers).find((start) => name === start || name.startsWith(`${start}.`));
  return known === undefined ? (name.split(".")[0] as string) : (providers[known] as string);
}

function objectOf(value: Json | undefined): JsonObject {
  return isObject(value) ? value : {};
}

/** A name or an id. What models and servers made up may be as long as they like: cut, so that it fills no index. */
function textOf(value: Json | undefined): string | undefined {
  return typeof value === "string" ? value.slice(0, longestName) : undefined;
}

function numberOf(value: Json | undefined): number | undefined {
  return typeof value === "number" ? value : undefined;
}
