/** Results of tool calls, made fit to be recorded and to be shown to a model. */
import {
  AbstractRuntimeError,
  type ArtifactRef,
  type EffectContext,
  type ErrorCode,
  type ErrorFields,
  isArtifactRef,
  isError,
  isWaitRequest,
  type Json,
  nearest,
  parseJson,
  toJson,
} from "../../index.ts";
import type { ToolCall, ToolResult } from "../tool-call.ts";

/** Longer messages of errors are cut. */
const longestMessage = 2_000;

export function toolSuccess({ name, callId }: ToolCall, output: Json): ToolResult {
  return { name, callId, success: true, output, error: null };
}

/** A failure with a code of this library. */
export function toolFailure<Code extends ErrorCode>(call: ToolCall, code: Code, fields: ErrorFields<Code>): ToolResult {
  return thrownFailure(call, new AbstractRuntimeError(code, fields));
}

export function unknownTool(call: ToolCall, known: readonly string[]): ToolResult {
  const suggestion = nearest(call.name, known);
  return toolFailure(call, "TOOL_UNKNOWN", { tool: cut(call.name), known, ...(suggestion ? { suggestion } : {}) });
}

/** What was thrown, as a failure: its message and code. Where it came from is nothing that a model should see. */
export function thrownFailure({ name, callId }: ToolCall, thrown: unknown): ToolResult {
  return { name, callId, success: false, output: null, error: shown(thrown) };
}

/** Whether what was thrown says that nothing has happened, and that another attempt makes sense. */
export function mayTryAgain(thrown: unknown): boolean {
  try {
    const { definite, retryable } = thrown as { definite?: unknown; retryable?: unknown };
    return definite === true && retryable !== false;
  } catch {
    // What was thrown may be hostile: it then says nothing.
    return false;
  }
}

/** Bounded, whatever it is: what was thrown may be hostile. */
function shown(thrown: unknown): { code?: string; message: string } {
  try {
    if (isError(thrown)) return { code: thrown.code, message: cut(thrown.problem) };
    if (typeof thrown !== "object" || thrown === null) return { message: cut(String(thrown)) };
    const { code, message, name } = thrown as { code?: unknown; message?: unknown; name?: unknown };
    const said = typeof message === "string" && message !== "" ? message : thrown instanceof Error ? String(name) : undefined;
    return { ...(typeof code === "string" ? { code: cut(code) } : {}), message: cut(said ?? JSON.stringify(thrown)) };
  } catch {
    return { message: `a value was thrown that cannot be read (${typeof thrown})` };
  }
}

function cut(text: string): string {
  return text.length > longestMessage ? `${text.slice(0, longestMessage).toWellFormed()}...` : text;
}

/** What an executor gave, if it can be recorded: otherwise the failure that it is. */
export async function recordable(
  call: ToolCall,
  given: ToolResult,
  maxOutputBytes: number,
  context: Pick<EffectContext, "artifacts" | "limits">,
): Promise<ToolResult> {
  const approval = given?.approval === undefined ? {} : { approval: given.approval };
  try {
    const { success, output, error } = given;
    const { name, callId } = call;
    const problem = error ? shown(error) : success === true ? null : { message: "it gave no result" };
    const made = { name, callId, success: success === true, output: jsonOf(output, maxOutputBytes), error: problem, ...approval };
    const result = toJson(made, "result", depthOf(context));
    await openReferences(result, context);
    return result as unknown as ToolResult;
  } catch (thrown) {
    const { message } = shown(thrown);
    return { ...toolFailure(call, "TOOL_OUTPUT_INVALID", { tool: call.name, problem: message }), ...approval };
  }
}

/** It is recorded within something else: a list of results, a conversation. */
export function depthOf({ limits }: Pick<EffectContext, "limits">): number {
  return Math.floor(limits.jsonDepth / 2);
}

/** What only looks like a reference to an artifact could not be recorded. @throws ARTIFACT_MISSING */
export async function openReferences(value: Json, context: Pick<EffectContext, "artifacts">): Promise<void> {
  for (const reference of referencesIn(value)) await context.artifacts.open(reference);
}

/**
 * A result with its output among the artifacts, where the ledger would otherwise take it for one as a whole, and nobody would find whose
 * result it is. A text that is too long is put there by the ledger itself.
 */
export async function withOutputPut(result: ToolResult, { artifacts, limits }: EffectContext): Promise<ToolResult> {
  const { output } = result;
  const { offloadBytes } = limits;
  const isPutWhole =
    Buffer.byteLength(JSON.stringify(result)) > offloadBytes &&
    !hasLongText(output, offloadBytes) &&
    referencesIn(output).length === 0;
  if (!isPutWhole) return result;
  return { ...result, output: await artifacts.put(JSON.stringify(output), { contentType: "application/json" }) };
}

function hasLongText(value: Json, bytes: number): boolean {
  if (typeof value === "string") return Buffer.byteLength(value) > bytes;
  return typeof value === "object" && value !== null && Object.values(value).some((part) => hasLongText(part, bytes));
}

export function referencesIn(value: Json): ArtifactRef[] {
  if (typeof value !== "object" || value === null) return [];
  const inner = Object.values(value).flatMap(referencesIn);
  return isArtifactRef(value) ? [value, ...inner] : inner;
}

/**
 * What a tool gave, as JSON.stringify takes it: a Date is its text, what has no JSON is left out.
 *
 * @throws What it cannot take, or that it is too large.
 */
function jsonOf(output: unknown, maxBytes: number): Json {
  if (isWaitRequest(output)) throw new Error("it is a wait, and tools do not wait: an executor may");
  const text = JSON.stringify(output) ?? "null";
  const sizeBytes = Buffer.byteLength(text);
  if (sizeBytes > maxBytes) throw new Error(`it takes ${sizeBytes} bytes, and the limit is ${maxBytes}`);
  return parseJson(text);
}
