/** Headers by which an AbstractCore server knows which run asks. */
import type { EffectContext } from "../../index.ts";

export function runHeaders({ runId, run, nodeId, step, attempt, idempotencyKey }: EffectContext): Record<string, string> {
  const { sessionId, parentRunId, actorId, workflowId } = run;
  const trace = { workflow_id: workflowId, node_id: nodeId, step, attempt, idempotency_key: idempotencyKey };
  const values = {
    "X-AbstractCore-Session-Id": sessionId,
    "X-AbstractCore-Run-Id": runId,
    "X-AbstractCore-Parent-Run-Id": parentRunId,
    "X-AbstractCore-Actor-Id": actorId,
  };
  const headers: Record<string, string> = { "X-AbstractCore-Trace-Metadata": asciiJson(trace) };
  for (const [name, value] of Object.entries(values)) if (value !== undefined) headers[name] = headerText(value);
  return headers;
}

/** Ids are any text, and headers take few characters: others are percent-encoded. */
function headerText(text: string): string {
  return /^[\x21-\x7e]*$/.test(text) ? text : encodeURIComponent(text.toWellFormed());
}

function asciiJson(value: object): string {
  return JSON.stringify(value).replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
