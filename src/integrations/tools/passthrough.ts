/** Tools that somebody else carries out: the run waits, and whoever looks at it answers with the results. */
import { type JsonObject, wait } from "../../index.ts";
import { checkOptions } from "../options.ts";
import type { ToolCall, ToolDescription, ToolResult } from "../tool-call.ts";
import type { ToolExecutor } from "./executor.ts";
import { thrownFailure, toolSuccess } from "./result.ts";

export interface PassthroughOptions {
  /** What models are told. Default: nothing, and a tool of any name is passed through. */
  tools?: readonly ToolDescription[];
}

/**
 * An executor that carries nothing out. Each call is a wait of its own, with the call in its `details.toolCall`; it is answered by
 * `runtime.resume(runId, { waitKey, payload })` with `{ output }`, `{ error }` or a whole result.
 */
export function passthroughTools(options: PassthroughOptions = {}): ToolExecutor {
  checkOptions(options, ["tools"], "passthroughTools()");
  const { tools } = options;
  return {
    ...(tools === undefined ? {} : { tools: () => tools }),
    async execute(call, { answers }) {
      const answer = answers.at(-1);
      if (answer) return resultOf(call, answer.payload as JsonObject);
      const { name, callId, arguments: given } = call;
      return wait({
        reason: "job",
        again: true,
        prompt: `Carry out tool ${JSON.stringify(name)} and answer with {"output": ...} or {"error": "..."}`,
        schema: answerSchema(call),
        details: { toolCall: { name, callId, arguments: given } },
      });
    },
  };
}

/** A result of another call is refused where it is given. */
function answerSchema({ name, callId }: ToolCall): JsonObject {
  return {
    type: "object",
    properties: {
      name: { const: name },
      callId: { const: callId },
      success: { type: "boolean" },
      error: {
        anyOf: [
          { type: ["string", "null"] },
          { type: "object", properties: { code: { type: "string" }, message: { type: "string" } }, required: ["message"] },
        ],
      },
    },
    anyOf: [{ required: ["output"] }, { required: ["error"] }],
  };
}

function resultOf(call: ToolCall, { success, output = null, error = null }: JsonObject): ToolResult {
  if (error === null && success !== false) return toolSuccess(call, output);
  return { ...thrownFailure(call, error ?? "it failed"), output };
}
