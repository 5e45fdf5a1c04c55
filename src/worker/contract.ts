/**
 * The HTTP contract of tool jobs: what stands in requests and answers, in snake_case as AbstractRuntime has planned it. Nothing that
 * came over the network is used before it was read here.
 */
import { AbstractRuntimeError, type Json, type JsonObject, parseJson } from "../index.ts";
import type { ToolCall, ToolResult } from "../integrations/tools/index.ts";
import { isObject } from "../integrations/json-object.ts";

/** `POST /v1/tool_jobs`: `{ run_id, tool_calls, metadata?, callback_url? }`. */
export interface JobRequest {
  /** The run that asks, in its own store. */
  runId: string;
  calls: ToolCall[];
  /** Given back with the callback, and looked at by nobody else. */
  metadata?: JsonObject;
  callbackUrl?: string;
}

export type JobStatus = "pending" | "running" | "completed" | "failed" | "cancelled";

/** `GET /v1/tool_jobs/{id}`: `{ job_id, run_id, status, result?: { mode: "executed", results }, error?: { code, message } }`. */
export interface Job {
  jobId: string;
  runId: string;
  status: JobStatus;
  /** When it is completed: one for each call, in their order. */
  results?: ToolResult[];
  /** When it has failed. */
  error?: { code?: string; message: string };
}

const statuses: readonly unknown[] = ["pending", "running", "completed", "failed", "cancelled"] satisfies JobStatus[];
const longestName = 500;
const longestUrl = 2_000;

export function requestBody({ runId, calls, metadata, callbackUrl }: JobRequest): JsonObject {
  return {
    run_id: runId,
    tool_calls: calls.map((call) => ({ name: call.name, call_id: call.callId, arguments: call.arguments })),
    ...(metadata === undefined ? {} : { metadata }),
    ...(callbackUrl === undefined ? {} : { callback_url: callbackUrl }),
  };
}

/** @throws TOOL_JOB_INVALID */
export function readRequest(text: string): JobRequest {
  const body = objectIn(text);
  if (!body) throw invalid("the body is not a JSON object");
  // Of clients in other languages, many write null for what they leave out.
  const { run_id: runId, tool_calls: calls } = body;
  const [metadata, callbackUrl] = [body.metadata ?? undefined, body.callback_url ?? undefined];
  if (!isName(runId)) throw invalid(`run_id must be text of 1 to ${longestName} characters`);
  if (!Array.isArray(calls) || calls.length === 0) throw invalid("tool_calls must be a list of at least one call");
  if (metadata !== undefined && !isObject(metadata)) throw invalid("metadata must be an object");
  if (callbackUrl !== undefined && (typeof callbackUrl !== "string" || callbackUrl.length > longestUrl))
    throw invalid(`callback_url must be text of at most ${longestUrl} characters`);
  return {
    runId,
    calls: calls.map(readCall),
    ...(metadata === undefined ? {} : { metadata }),
    ...(callbackUrl === undefined ? {} : { callbackUrl }),
  };
}

function readCall(call: Json, index: number): ToolCall {
  const where = `tool_calls[${index}]`;
  if (!isObject(call)) throw invalid(`${where} is not an object`);
  const { name } = call;
  const callId = call.call_id ?? `call_${index + 1}`;
  if (!isName(name)) throw invalid(`${where}.name must be text of 1 to ${longestName} characters`);
  if (!isName(callId)) throw invalid(`${where}.call_id must be text of 1 to ${longestName} characters`);
  return { name, callId, arguments: call.arguments ?? {} };
}

export function jobBody({ jobId, runId, status, results, error }: Job): JsonObject {
  return {
    job_id: jobId,
    run_id: runId,
    status,
    ...(results === undefined ? {} : { result: { mode: "executed", results: results.map(resultBody) } }),
    ...(error === undefined ? {} : { error: { ...error } as JsonObject }),
  };
}

function resultBody({ name, callId, success, output, error }: ToolResult): JsonObject {
  return { name, call_id: callId, success, output, error: error as JsonObject | null };
}

/** A job as a worker tells of it. */
export interface ToldJob extends Omit<Job, "runId" | "results"> {
  /** Undefined for what is none. */
  results?: (ToolResult | undefined)[];
}

/**
 * The job that a worker tells of, or what is wrong with what it said.
 *
 * @param asked What it was asked for: AbstractRuntime's contract wants neither a job's id nor a tool's name repeated.
 */
export function readJob(body: Json, asked?: { jobId: string; tool: string }): ToldJob | string {
  if (!isObject(body)) return "it is not a JSON object";
  const { status = "pending", result, error } = body;
  const jobId = body.job_id ?? asked?.jobId;
  if (!isName(jobId)) return "it names no job";
  if (!statuses.includes(status)) return `job ${jobId} has no status that is known`;
  const results = isObject(result) ? result.results : undefined;
  if (status === "completed" && !Array.isArray(results)) return `job ${jobId} is completed, and has no results`;
  const failure = readFailure(error);
  return {
    jobId,
    status: status as JobStatus,
    ...(Array.isArray(results) ? { results: results.map((one) => readResult(one, asked?.tool)) } : {}),
    ...(failure ? { error: failure } : {}),
  };
}

function readResult(result: Json, tool: string | undefined): ToolResult | undefined {
  if (!isObject(result)) return undefined;
  const { call_id: callId, success, output = null } = result;
  const name = result.name ?? tool;
  if (typeof name !== "string" || typeof callId !== "string" || typeof success !== "boolean") return undefined;
  const error = readFailure(result.error);
  return error === false ? undefined : { name, callId, success, output, error };
}

/** An error as an object, or as its text alone; null where there is none, false for what is none. */
function readFailure(error: Json | undefined): ReturnType<typeof readError> | null | false {
  if (error === undefined || error === null) return null;
  if (typeof error === "string") return readError({ message: error });
  return isObject(error) && readError(error);
}

/** An error as far as it can be read. Texts are bounded: nobody has checked who wrote them. */
export function readError({ code, message }: JsonObject): { code?: string; message: string } {
  return {
    ...(typeof code === "string" ? { code: cut(code) } : {}),
    message: typeof message === "string" ? cut(message) : "it gives no reason",
  };
}

/** What a text holds, when that is a JSON object. */
export function objectIn(text: string): JsonObject | undefined {
  try {
    const value = parseJson(text);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined; // It is not JSON, which the caller says in its own words.
  }
}

/** Whether a header can hold it, which a text with a line break at its end cannot. */
export function isToken(value: unknown): value is string {
  return typeof value === "string" && /^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(value);
}

/** Keys of the waits of calls. Callbacks wake no others: who may submit a job may name any. */
export const waitKeyPrefix = "tool_job:";

function isName(value: Json | undefined): value is string {
  // Half a character stands in no address.
  return typeof value === "string" && value !== "" && value.length <= longestName && value.isWellFormed();
}

function cut(text: string): string {
  return text.length > longestName ? `${text.slice(0, longestName)}...` : text;
}

function invalid(problem: string): AbstractRuntimeError {
  return new AbstractRuntimeError("TOOL_JOB_INVALID", { problem });
}
