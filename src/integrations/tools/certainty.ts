/** Calls that may have been carried out already: an earlier attempt was cut off, and nobody knows how far it came. */
import { type EffectContext, type JsonObject, type OnUncertain, wait, type WaitRequest } from "../../index.ts";
import type { ToolCall, ToolResult } from "../tool-call.ts";
import { layerAnswers, layerKey } from "./layer.ts";
import { toolFailure, toolSuccess } from "./result.ts";

const layer = "certainty";

/**
 * What a call comes to that may have been carried out already, or undefined where it is to be carried out.
 *
 * @param onUncertain `fail`: the result is EFFECT_UNCERTAIN. `ask`: a person says whether to carry it out again, or what it gave. `retry`: it is
 *   carried out again.
 */
export function whenUncertain(
  call: ToolCall,
  context: EffectContext,
  onUncertain: OnUncertain,
): ToolResult | WaitRequest | undefined {
  const { idempotencyKey, uncertain } = context;
  const said = layerAnswers(layer, context).at(-1)?.payload as JsonObject | undefined;
  if (said && Object.hasOwn(said, "result")) return toolSuccess(call, said.result ?? null);
  if (!uncertain || onUncertain === "retry") return undefined;
  const { name, callId, arguments: given } = call;
  if (onUncertain === "fail") {
    const problem = "an attempt was cut off before its result was recorded";
    return toolFailure(call, "EFFECT_UNCERTAIN", { effectType: name, idempotencyKey, problem });
  }
  return wait({
    reason: "user",
    again: true,
    waitKey: layerKey(layer, context),
    prompt: `Tool ${JSON.stringify(name)} may or may not have been carried out. Answer {"retry": true} to carry it out again, or {"result": ...} with what it gave.`,
    schema: {
      type: "object",
      properties: { retry: { const: true }, result: {} },
      additionalProperties: false,
      oneOf: [{ required: ["retry"] }, { required: ["result"] }],
    },
    details: { toolCall: { name, callId, arguments: given }, idempotencyKey },
  });
}
