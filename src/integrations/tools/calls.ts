/** Tool calls, as workflows request them. */
import {
  AbstractRuntimeError,
  all,
  declareEffect,
  type DefinedEffect,
  type Effect,
  type PlanOptions,
  type Requested,
} from "../../index.ts";
import type { ToolCall, ToolResult } from "../tool-call.ts";

/** One tool call, as an effect: what workflows list in their `effects`. Who carries it out is the runtime's to say. */
export const toolCall: DefinedEffect<"tool_call", ToolCall, ToolResult> = declareEffect("tool_call");

/**
 * Requests tool calls, as models give them, and goes on with their results, in the same order. Each call is an effect of its own, so
 * what has its result is not carried out again, whatever happens to the others. Of calls with one `callId` the first is carried out.
 *
 * @throws INVALID_OPTION when these are not calls.
 */
export function toolCalls<const Next extends string = never, const Key extends string = never>(
  calls: readonly ToolCall[],
  options?: PlanOptions<Next, Key>,
): Requested<"all" | "tool_call", ToolResult[], Next, Key> {
  if (!Array.isArray(calls)) refuse("toolCalls() needs a list of calls, as models give them");
  const seen = new Set<string>();
  const members = calls.map((call: ToolCall, i): Effect => {
    if (typeof call?.name !== "string" || typeof call.callId !== "string")
      refuse(`call ${i} of toolCalls() is not { name, callId, arguments }`);
    const { name, callId, arguments: given = {} } = call;
    const isDuplicate = seen.has(callId);
    seen.add(callId);
    return toolCall({ name, callId, arguments: given, ...(isDuplicate ? { duplicate: true } : {}) });
  });
  return all(members, options) as never;
}

function refuse(problem: string): never {
  throw new AbstractRuntimeError("INVALID_OPTION", { option: "calls", problem });
}
