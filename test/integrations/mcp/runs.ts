// What tests look at in runs of the workflow `batch`.
import type { Json, JsonObject, Runtime } from "abstractruntime";
import type { ToolResult } from "abstractruntime/tools";
import { eventually } from "../../eventually.ts";

/** The wait that a run comes to, or the one whose prompt ends so. */
export async function waiting(
  runtime: Runtime,
  runId: string,
  prompt?: string,
): Promise<{ prompt?: string; schema?: JsonObject; details?: Json }> {
  return eventually(async () => {
    const [wait] = (await runtime.get(runId)).waits;
    return prompt === undefined || wait?.prompt?.endsWith(prompt) ? wait : undefined;
  });
}

export async function results(runtime: Runtime, runId: string): Promise<ToolResult[]> {
  const output = await runtime.result(runId, { timeoutMs: 100_000 });
  return (output as unknown as { results: ToolResult[] }).results;
}
