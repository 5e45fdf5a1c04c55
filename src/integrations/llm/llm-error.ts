/**
 * What went wrong with a model call, in our words: which class it is, how long to wait, and the provider's message without any
 * secret. Of the error that was thrown nothing else is kept: it holds the prompt, and what the server sent.
 */
import { AbstractRuntimeError, definite, isError, permanent } from "../../index.ts";
import type { Secrets } from "./secrets.ts";

interface CallDetails {
  model: string;
  /** Never to stand in a text. */
  secrets: Secrets;
  /** Milliseconds since 1970, for a Retry-After that is a date. */
  now: number;
}

export function llmError(thrown: unknown, details: CallDetails): Error {
  try {
    return errorOf(thrown, details);
  } catch {
    // A thrown value may be hostile: a getter that throws, a number that is none.
    return new AbstractRuntimeError("LLM_UNAVAILABLE", { model: details.model, problem: "what was thrown cannot be read" });
  }
}

function errorOf(thrown: unknown, { model, secrets, now }: CallDetails): Error {
  if (isError(thrown)) return thrown;
  const { status, headers, name, hasRefused } = partsOf(thrown);
  const problem = secrets.cut(messageOf(thrown)).slice(0, longestProblem);
  const fields = { model, problem, ...(status === undefined ? {} : { status }) };
  if (isFinal(status, name)) return permanent(new AbstractRuntimeError("LLM_REFUSED", fields));
  const retryAfterMs = retryAfter(headers, now);
  const unavailable = new AbstractRuntimeError("LLM_UNAVAILABLE", fields);
  // A server that refuses has done nothing, which budgets are told; after any other failure, tokens may have been spent.
  const failure = hasRefused ? definite(unavailable) : unavailable;
  return Object.assign(failure, retryAfterMs === undefined ? {} : { retryAfterMs });
}

const longestProblem = 500;
/** A server that asks for more is asked again all the same. */
const longestWaitMs = 3_600_000;

/** Timeouts, conflicts, "too early" and "too many" pass; what else is wrong with the request stays wrong. */
const passing: readonly number[] = [408, 409, 425, 429];

/** Of these, what a server says before it has begun: it is too early, too busy, or has too much to do. */
const refusing: readonly number[] = [409, 425, 429, 503, 529];

/** Errors of the AI SDK that no server has sent: a missing key, a prompt that the model does not take. */
const ofTheRequest = /^AI_(LoadAPIKey|LoadSetting|UnsupportedFunctionality|InvalidPrompt|InvalidArgument|NoSuchModel)Error$/;

function isFinal(status: number | undefined, name: string): boolean {
  if (ofTheRequest.test(name)) return true;
  return status !== undefined && status >= 300 && status < 500 && !passing.includes(status);
}

interface Thrown {
  status?: number;
  headers?: Record<string, string>;
  name: string;
  /** With a status, not in mid-stream, and not because it took too long or broke; or nobody could be connected to. */
  hasRefused: boolean;
}

/** Of an error of the AI SDK, or of what a server sent in mid-stream: `{ message, code }`. */
function partsOf(thrown: unknown): Thrown {
  if (typeof thrown !== "object" || thrown === null) return { name: "", hasRefused: false };
  const { statusCode, code, responseHeaders, name } = thrown as Record<string, unknown>;
  // A number, or the text of one: servers differ.
  const status = [Number(statusCode), Number(code)].find((value) => value >= 300 && value < 600);
  return {
    name: typeof name === "string" ? name : "",
    hasRefused: (status !== undefined && status === statusCode && refusing.includes(status)) || wasNotSent(thrown),
    ...(status === undefined ? {} : { status }),
    ...(typeof responseHeaders === "object" && responseHeaders !== null
      ? { headers: responseHeaders as Record<string, string> }
      : {}),
  };
}

/** Nobody listens there, or there is no such place. */
const unconnected: readonly unknown[] = ["ECONNREFUSED", "ENOTFOUND", "EAI_AGAIN", "UND_ERR_CONNECT_TIMEOUT"];

function wasNotSent(thrown: unknown, depth = 0): boolean {
  if (typeof thrown !== "object" || thrown === null || depth > 4) return false;
  const { code, cause } = thrown as Record<string, unknown>;
  return unconnected.includes(code) || wasNotSent(cause, depth + 1);
}

function messageOf(thrown: unknown): string {
  if (typeof thrown === "string") return thrown;
  if (typeof thrown !== "object" || thrown === null) return String(thrown);
  const { message, responseBody, cause } = thrown as { message?: unknown; responseBody?: unknown; cause?: unknown };
  const text = typeof message === "string" && message !== "" ? message : "no message";
  // A page instead of JSON: the status text alone says little.
  const more =
    typeof responseBody === "string" && !text.includes(" ") ? responseBody : cause instanceof Error ? cause.message : "";
  return more === "" || text.includes(more) ? text : `${text}: ${more}`;
}

function retryAfter(headers: Record<string, string> | undefined, now: number): number | undefined {
  if (!headers) return undefined;
  const ms = Number(headers["retry-after-ms"] ?? Number.NaN);
  const after = headers["retry-after"];
  const asked =
    ms > 0 || after === undefined ? ms : /^\s*\d+(\.\d+)?\s*$/.test(after) ? Number(after) * 1000 : until(after, headers, now);
  return asked > 0 ? Math.min(asked, longestWaitMs) : undefined;
}

/** A date is by the server's clock, which says its time too. */
function until(date: string, headers: Record<string, string>, now: number): number {
  const serverNow = Date.parse(headers.date ?? "");
  return Date.parse(date) - (Number.isNaN(serverNow) ? now : serverNow);
}
