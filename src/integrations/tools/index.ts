/** `abstractruntime/tools`: tool calls as effects, and what carries them out. */
export { toolCall, toolCalls } from "./calls.ts";
export { toolEffect, type ToolEffectOptions } from "./effect.ts";
export type { ListingExecutor, ToolExecutor } from "./executor.ts";
export { type AiTool, localTools, type PlainTool, type ToolSettings } from "./local.ts";
export { passthroughTools, type PassthroughOptions } from "./passthrough.ts";
export { type ApprovalOptions, callDigest, withApproval } from "./approval.ts";
export { combineTools } from "./combine.ts";
export type { ToolApproval, ToolCall, ToolDescription, ToolResult } from "../tool-call.ts";

// For executors of one's own
export { argumentsOf } from "./input.ts";
export { beneathLayer, layerAnswers, layerKey } from "./layer.ts";
export { thrownFailure, toolFailure, toolSuccess, unknownTool } from "./result.ts";
export { whenUncertain } from "./certainty.ts";
