/**
 * One call of a language model of the AI SDK, by the specification that all its providers implement. No library stands between: a
 * delta costs what the model itself needs for it, and there are no attempts but the runtime's.
 */
import { hash, randomUUID } from "node:crypto";
import { type Json, type JsonObject, parseJson, type StreamPart, toJson } from "../../index.ts";
import type { ToolCall } from "../tool-call.ts";
import { type ReasoningPart, type TextPart, type ToolCallPart, toolCallPart } from "./message.ts";
import { within } from "../within.ts";
import type { CallOptions } from "./prompt.ts";
import type { LlmResult, Usage } from "./result.ts";
import { Secrets } from "./secrets.ts";

/** A `LanguageModelV3` or `LanguageModelV4`: what the providers of `ai` 6 and 7 make. */
export interface LanguageModel {
  readonly specificationVersion: string;
  readonly provider: string;
  readonly modelId: string;
  doGenerate(options: never): PromiseLike<object>;
  doStream(options: never): PromiseLike<{ stream: ReadableStream<unknown> }>;
}

export type ModelAnswer = Omit<LlmResult, "data">;

/**
 * @param emit Is given the parts as they come; without it nothing is streamed.
 * @param secrets Stand in no answer.
 */
export async function callModel(
  model: LanguageModel,
  options: CallOptions & { abortSignal: AbortSignal },
  emit: ((part: StreamPart) => void) | undefined,
  secrets = new Secrets(),
): Promise<ModelAnswer> {
  const { abortSignal } = options;
  if (!emit) {
    const answer = new Answer(model, undefined);
    answer.add((await within(abortSignal, Promise.resolve(model.doGenerate(options as never)))) as Generated);
    return secrets.cutAnswer(answer.result());
  }
  let said = "";
  const parts = secrets.cutParts((part) => {
    if (part.type === "text") said += part.text;
    emit(part);
  });
  const answer = new Answer(model, parts.emit);
  const begun = Promise.resolve(model.doStream({ ...options, includeRawChunks: true } as never));
  const { stream } = await within(abortSignal, begun).catch((error: unknown) => {
    // Should it begin all the same, nobody listens.
    begun.then((late) => late.stream.cancel()).catch(() => undefined);
    throw error;
  });
  const reader = (stream as ReadableStream<Event>).getReader();
  // The connection is let go of. What the stream says to that is no news.
  const leave = (): void => void reader.cancel().catch(() => undefined);
  // A model may not look at its signal.
  abortSignal.addEventListener("abort", leave);
  try {
    if (abortSignal.aborted) leave();
    for (let read = await reader.read(); !read.done; read = await reader.read()) answer.take(read.value);
    abortSignal.throwIfAborted();
  } catch (error) {
    leave();
    throw error;
  } finally {
    abortSignal.removeEventListener("abort", leave);
  }
  const result = secrets.cutAnswer(answer.result());
  parts.end();
  return { ...result, textHash: hash("sha256", said, "hex") };
}

interface Ended {
  finishReason: { unified: string; raw?: string | undefined };
  usage?: ModelUsage | null;
}

/** By the specification all of it is there. An answer is none the worse where it is not. */
interface ModelUsage {
  inputTokens?: { total?: number; cacheRead?: number } | null;
  outputTokens?: { total?: number; reasoning?: number } | null;
}

interface Marks {
  providerMetadata?: JsonObject;
}

/** What a call gives at once. */
interface Generated extends Ended {
  content: Content[];
  response?: { modelId?: string; body?: unknown };
}

type Content =
  | ({ type: "text" | "reasoning"; text: string } & Marks)
  | ({ type: "tool-call"; toolCallId: string; toolName: string; input: string; providerExecuted?: boolean } & Marks);

/** What a stream gives, as far as it is looked at. */
type Event =
  | ({ type: "text-start" | "reasoning-start" | "text-end" | "reasoning-end"; id: string } & Marks)
  | ({ type: "text-delta" | "reasoning-delta"; id: string; delta: string } & Marks)
  | { type: "tool-input-start"; id: string; toolName: string }
  | { type: "tool-input-delta"; id: string; delta: string }
  | (Content & { type: "tool-call" })
  | { type: "response-metadata"; modelId?: string }
  | { type: "raw"; rawValue?: unknown }
  | ({ type: "finish" } & Ended)
  | { type: "error"; error: unknown };

type Block = TextPart | ReasoningPart | ToolCallPart;

/** What has come of an answer so far. */
class Answer {
  #model: string;
  readonly #provider: string;
  readonly #emit: ((part: StreamPart) => void) | undefined;
  readonly #blocks: Block[] = [];
  /** Of texts and thoughts that are coming, by their ids. */
  readonly #open = new Map<string, TextPart | ReasoningPart>();
  /** The names of the tools whose arguments are coming, by the ids of the calls. */
  readonly #tools = new Map<string, string>();
  /** The calls whose arguments came in parts. */
  readonly #streamed = new Set<string>();
  readonly #toolCalls: ToolCall[] = [];
  /** Its server takes none of its thoughts back. */
  #keepsThoughts = false;
  #end: Ended | undefined;

  constructor({ modelId, provider }: LanguageModel, emit: ((part: StreamPart) => void) | undefined) {
    this.#model = modelId;
    this.#provider = provider;
    this.#emit = emit;
  }

  add({ content, response, ...end }: Generated): void {
    for (const part of content) {
      if (part.type === "tool-call") {
        if (!part.providerExecuted) this.#toolCall(part);
      } else if (part.type === "text" || part.type === "reasoning")
        this.#blocks.push(marked({ type: part.type, text: part.text }, part));
    }
    this.#model = response?.modelId || this.#model;
    this.#lookAt(response?.body, "message");
    this.#end = end;
  }

  take(event: Event): void {
    switch (event.type) {
      case "text-delta":
      case "reasoning-delta": {
        const type = event.type === "text-delta" ? "text" : "reasoning";
        const block = this.#block(type, event);
        block.text += event.delta;
        if (event.delta !== "") this.#emit?.({ type, text: event.delta });
        return;
      }
      case "text-start":
      case "reasoning-start":
        this.#block(event.type === "text-start" ? "text" : "reasoning", event);
        return;
      case "text-end":
      case "reasoning-end": {
        const type = event.type === "text-end" ? "text" : "reasoning";
        this.#block(type, event);
        this.#open.delete(keyOf(type, event));
        return;
      }
      case "tool-input-start":
        this.#tools.set(event.id, event.toolName);
        return;
      case "tool-input-delta":
        if (event.delta === "") return;
        this.#streamed.add(event.id);
        this.#emit?.({ type: "tool-call", callId: event.id, name: this.#tools.get(event.id) ?? "", text: event.delta });
        return;
      case "tool-call":
        // The provider's own tools ran there, and are nobody's to run here.
        if (event.providerExecuted) return;
        this.#toolCall(event);
        return;
      case "response-metadata":
        this.#model = event.modelId || this.#model;
        return;
      case "raw":
        this.#lookAt(event.rawValue, "delta");
        return;
      case "finish":
        this.#end = event;
        return;
      case "error":
        throw event.error;
    }
  }

  result(): ModelAnswer {
    const end = this.#end;
    if (!end) throw new Error("the answer broke off before its end");
    const { unified, raw } = end.finishReason;
    if (failures.includes(unified) || failures.includes(raw ?? "")) throw new Error(`the answer ended with "${raw ?? unified}"`);
    const text = this.#textOf("text");
    const reasoning = this.#textOf("reasoning");
    const usage = usageOf(end.usage);
    const blocks = this.#blocks.filter((block) => block.type === "tool-call" || block.text !== "" || block.providerOptions);
    const isMarked = blocks.some(({ type, providerOptions }) => type !== "text" && providerOptions);
    const hasThoughts = this.#toolCalls.length > 0 && reasoning !== "";
    const mustReturn = isMarked || (hasThoughts && !this.#keepsThoughts);
    return {
      content: text === "" ? null : text,
      toolCalls: this.#toolCalls,
      usage,
      model: this.#model,
      provider: this.#provider,
      finishReason: unified,
      ...(reasoning === "" ? {} : { reasoning }),
      ...(mustReturn ? { parts: blocks } : {}),
    };
  }

  /**
   * At what an OpenAI-compatible server sent. Those that call thoughts `reasoning_content` want them back with the calls that they led to,
   * and some refuse the next request without them; of those that call them `reasoning`, some refuse a request with them.
   */
  #lookAt(body: unknown, member: "message" | "delta"): void {
    const { choices } = (body ?? {}) as { choices?: { [member]?: { reasoning?: unknown; reasoning_content?: unknown } }[] };
    const said = choices?.[0]?.[member];
    if (said?.reasoning && !said.reasoning_content) this.#keepsThoughts = true;
  }

  #block(type: "text" | "reasoning", event: { id: string } & Marks): TextPart | ReasoningPart {
    const key = keyOf(type, event);
    const block = this.#open.get(key) ?? this.#begin(key, { type, text: "" });
    if (event.providerMetadata) marked(block, event);
    return block;
  }

  #begin(key: string, block: TextPart | ReasoningPart): TextPart | ReasoningPart {
    this.#open.set(key, block);
    this.#blocks.push(block);
    return block;
  }

  #toolCall(call: Content & { type: "tool-call" }): void {
    const { toolName: name, toolCallId, input } = call;
    // Small servers give none, and results are told apart by it.
    const callId = toolCallId || randomUUID();
    if (!this.#streamed.has(toolCallId)) this.#emit?.({ type: "tool-call", callId, name, text: input || "{}" });
    const args = argumentsOf(input);
    this.#toolCalls.push({ name, callId, arguments: args });
    this.#blocks.push(marked(toolCallPart(callId, name, args), call));
  }

  #textOf(type: "text" | "reasoning"): string {
    let text = "";
    for (const block of this.#blocks) if (block.type === type) text += block.text;
    return text;
  }
}

/** Finishes of what is no whole answer: of the specification, and those of servers, OpenRouter's and vLLM's, that it knows as `other`. */
const failures: readonly string[] = ["error", "interrupted", "abort"];

/** A text and a thought may have the same id. */
function keyOf(type: "text" | "reasoning", { id }: { id: string }): string {
  return `${type} ${id}`;
}

function marked<Part extends Block>(part: Part, { providerMetadata }: Marks): Part {
  if (providerMetadata && Object.keys(providerMetadata).length > 0) part.providerOptions = providerMetadata;
  return part;
}

/** As JSON, or as the text that it is: whoever runs the tool says what is wrong with it. */
function argumentsOf(input: string): Json {
  if (input.trim() === "") return {};
  return storable(input) ?? input;
}

/** Less than a run may nest, since it stands within messages within vars. */
const deepest = 100;

/** Parsed JSON, or undefined where the text is none that could be recorded. */
export function storable(text: string): Json | undefined {
  try {
    return toJson(parseJson(text), "value", deepest);
  } catch {
    return undefined;
  }
}

function usageOf(counted: ModelUsage | null | undefined): Usage | null {
  const { inputTokens, outputTokens } = counted ?? {};
  const input = inputTokens?.total || 0;
  const output = outputTokens?.total || 0;
  // Zeros are what libraries make of it where a server did not count.
  if (input === 0 && output === 0) return null;
  return {
    inputTokens: input,
    outputTokens: output,
    totalTokens: input + output,
    ...(outputTokens?.reasoning ? { reasoningTokens: outputTokens.reasoning } : {}),
    ...(inputTokens?.cacheRead ? { cachedInputTokens: inputTokens.cacheRead } : {}),
  };
}
