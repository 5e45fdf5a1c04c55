/** The handler of tool calls: one attempt of one call, with whichever executor the runtime was given. */
import {
  type DefinedEffect,
  defineEffect,
  type EffectContext,
  isWaitRequest,
  type Json,
  type PolicyOptions,
  type WaitRequest,
} from "../../index.ts";
import { spend } from "../budget.ts";
import { isObject } from "../json-object.ts";
import { checkOptions, refuse } from "../options.ts";
import type { ToolApproval, ToolCall, ToolResult } from "../tool-call.ts";
import { approvals, decide } from "./approval.ts";
import type { ToolExecutor } from "./executor.ts";
import { withArgumentsRead } from "./read-call.ts";
import { beneathLayer } from "./layer.ts";
import { mayTryAgain, recordable, thrownFailure, toolFailure, withOutputPut } from "./result.ts";

export interface ToolEffectOptions {
  /**
   * Attempts and backoff for what an executor or tool throws as `definite`, and the longest time of one attempt. Default: 3 attempts,
   * an hour each; tools have timeouts of their own.
   */
  policy?: PolicyOptions;
  /** Bytes of one output as JSON. Default: 1 MiB. */
  maxOutputBytes?: number;
}

const hourMs = 3_600_000;
const mebibyte = 1024 * 1024;

/**
 * The effect that carries out tool calls with `executor`, for `createRuntime({ effects: [toolEffect(executor)] })`.
 *
 * @throws INVALID_OPTION
 */
export function toolEffect(
  executor: ToolExecutor,
  options: ToolEffectOptions = {},
): DefinedEffect<"tool_call", ToolCall, ToolResult> {
  checkOptions(options, ["policy", "maxOutputBytes"], "toolEffect()");
  const { policy = {}, maxOutputBytes = mebibyte } = options;
  if (typeof executor?.execute !== "function")
    refuse("executor", "toolEffect() needs an executor, such as localTools({ ... }) makes");
  if (!(maxOutputBytes > 0)) refuse("maxOutputBytes", "maxOutputBytes is a number of bytes above 0");
  const { maxAttempts = 3 } = policy;
  if (!(Number.isInteger(maxAttempts) && maxAttempts >= 1))
    refuse("maxAttempts", "toolEffect(): policy.maxAttempts is a whole number from 1");
  const made = defineEffect("tool_call", {
    // What the last attempt comes to is a result: this handler counts them, and not the driver.
    policy: { timeoutMs: hourMs, ...policy, maxAttempts: Number.MAX_SAFE_INTEGER },
    speculative: (payload) => executor.speculative?.(callOf(payload)) === true,
    exclusive: (payload) => executor.exclusive?.(callOf(payload)),
    // Another model that asks for the same has other ids.
    playedBack: (recorded, payload) => {
      const { name, callId } = callOf(payload as Json);
      return isObject(recorded) ? { ...recorded, name, callId } : recorded;
    },
    run: async (payload: Json, context): Promise<ToolResult | WaitRequest> => {
      // Whoever looks at the arguments from here on finds what the tool would find.
      const call = await withArgumentsRead(callOf(payload), context);
      const problem = problemOf(payload);
      if (problem !== undefined) return toolFailure(call, "TOOL_CALL_INVALID", { problem });
      const given = await executed(executor, call, context, maxAttempts);
      return isWaitRequest(given) ? given : withOutputPut(await recordable(call, given, maxOutputBytes, context), context);
    },
  });
  return made as unknown as DefinedEffect<"tool_call", ToolCall, ToolResult>;
}

/** Payloads may be anybody's: a plan may be written without `toolCalls`. */
function callOf(payload: Json): ToolCall {
  const { name, callId, arguments: given = {} } = (payload ?? {}) as unknown as Partial<ToolCall>;
  const textOf = (value: unknown): string => (typeof value === "string" ? value : "");
  return { name: textOf(name), callId: textOf(callId), arguments: given };
}

function problemOf(payload: Json): string | undefined {
  const { name, callId, duplicate } = (payload ?? {}) as { [member: string]: Json };
  if (typeof name !== "string" || typeof callId !== "string")
    return "it is not { name, callId, arguments }, with name and callId as texts";
  return duplicate === true ? `an earlier call of the same turn has the same callId, "${callId}"` : undefined;
}

/** What one attempt comes to: what people decide about goes before it. */
async function executed(
  executor: ToolExecutor,
  call: ToolCall,
  context: EffectContext,
  maxAttempts: number,
): Promise<ToolResult | WaitRequest> {
  let decided: { approval?: ToolApproval } = {};
  try {
    // One that ends its process every time, or never comes to its end, must come to an end itself.
    const isSpent = context.tries > maxAttempts;
    const decision = await decide(executor, call, context, isSpent);
    if (isWaitRequest(decision)) return decision;
    decided = decision;
    const { decision: said, reason, arguments: given = call.arguments } = decided.approval ?? {};
    if (said === "deny")
      return { ...toolFailure(call, "TOOL_DENIED", { tool: call.name, ...(reason ? { reason } : {}) }), ...decided };
    if (isSpent) return { ...cutOff(call, context), ...decided };
    const beneath = beneathLayer(approvals, context);
    // A copy: what a tool does to its arguments is not what was decided.
    const copy = { ...call, arguments: structuredClone(given) };
    const result = await spend(beneath, { calls: 1 }, () => executor.execute(copy, beneath));
    // Of decisions, what was decided here is known, and nothing that an executor says.
    if (!isWaitRequest(result)) return { ...result, approval: undefined, ...decided } as ToolResult;
    if (result.again) return result;
    // The answer itself would be the result then, whatever it is.
    return { ...thrownFailure(call, new Error("its executor returned a wait without again: true")), ...decided };
  } catch (error) {
    if (context.signal.aborted || (mayTryAgain(error) && context.tries < maxAttempts)) throw error;
    return { ...thrownFailure(call, error), ...decided };
  }
}

function cutOff(call: ToolCall, { tries, idempotencyKey }: EffectContext): ToolResult {
  const problem = `each of ${tries - 1} attempts was cut off before its result was recorded`;
  return toolFailure(call, "EFFECT_UNCERTAIN", { effectType: call.name, idempotencyKey, problem });
}
