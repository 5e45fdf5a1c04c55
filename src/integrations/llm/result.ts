/** What a model call gives, whichever client made it. */
import type { ToolCall } from "../tool-call.ts";
import type { FilePart, ReasoningPart, TextPart, ToolCallPart } from "./message.ts";

export interface LlmResult<Data = null> {
  /** The text, or null when there is none. */
  content: string | null;
  /** What `output` asked for, checked against it. */
  data: Data;
  toolCalls: ToolCall[];
  /** Null when the provider said nothing of it. */
  usage: Usage | null;
  /** The model that answered, by the provider's name for it. */
  model: string | null;
  /** Who serves that model, by the AI SDK's name for it, such as `openai.chat`. */
  provider?: string;
  /** `stop`, `length`, `content-filter`, `tool-calls`, `other`. */
  finishReason: string | null;
  reasoning?: string;
  /** SHA-256, as hex, of the streamed parts of type `text` put together. Only where it streamed. */
  textHash?: string;
  /** The answer part by part, where the provider wants some of it back as it gave it. `assistantMessage` uses it. */
  parts?: (TextPart | FilePart | ReasoningPart | ToolCallPart)[];
}

/** In tokens. */
export interface Usage {
  inputTokens: number;
  outputTokens: number;
  totalTokens: number;
  reasoningTokens?: number;
  cachedInputTokens?: number;
}
