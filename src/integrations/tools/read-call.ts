/** A call's arguments as JSON where they came as a text, as models give them. */
import { type EffectContext, toJson } from "../../index.ts";
import type { ToolCall } from "../tool-call.ts";
import { argumentsOf } from "./input.ts";
import { depthOf, openReferences } from "./result.ts";

/** What cannot be read, or could not be recorded where the call is shown to somebody, stays a text. */
export async function withArgumentsRead(call: ToolCall, context: Pick<EffectContext, "artifacts" | "limits">): Promise<ToolCall> {
  const read = argumentsOf(call);
  if ("problem" in read) return call;
  if (typeof call.arguments !== "string") return { ...call, arguments: read.value };
  try {
    await openReferences(toJson(read.value, "arguments", depthOf(context)), context);
    return { ...call, arguments: read.value };
  } catch {
    return call;
  }
}
