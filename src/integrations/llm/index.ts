/** `abstractruntime/llm`: model calls as effects. */
export { llmCall } from "./llm-call.ts";
export type { LlmCallOptions } from "./llm-call.ts";
export { assistantMessage, toolMessages } from "./message.ts";
export type { FilePart, Message, Part, ReasoningPart, TextPart, ToolCallPart, ToolResultPart } from "./message.ts";
export type { LlmParams, LlmRequest, ToolChoice } from "./request.ts";
export type { LlmResult, Usage } from "./result.ts";

// Clients
export { localLlm } from "./local.ts";
export type { LocalLlmOptions } from "./local.ts";
export { remoteLlm } from "./remote.ts";
export type { OpenAICompatible, RemoteLlmOptions, Secret } from "./remote.ts";
export type { LanguageModel } from "./model.ts";
export type { LlmClient } from "./client.ts";
export { llmEffect } from "./llm-effect.ts";
export type { LlmEffectOptions } from "./llm-effect.ts";
export type { Prices } from "./cost.ts";

// What they share with tools
export type { ToolCall, ToolDescription, ToolResult } from "../tool-call.ts";

// Runtimes that have both
export { createHybridRuntime, createLocalRuntime, createRemoteRuntime } from "./runtimes.ts";
export type { HybridRuntimeOptions, LocalRuntimeOptions, RemoteRuntimeOptions } from "./runtimes.ts";
