/** What became of a call that brought no result: whether it was carried out, as far as that can be told. */
import { AbstractRuntimeError, definite, type ErrorCode, isError, permanent } from "../../index.ts";
import type { Elicitation, Question } from "./questions.ts";

/** Errors that say that a request never left, by the code of their cause. */
const unsent = new Set([
  "ECONNREFUSED",
  "ENOTFOUND",
  "EAI_AGAIN",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "UND_ERR_CONNECT_TIMEOUT",
  "NOT_CONNECTED",
]);
/** Statuses of requests that were not looked at, and may be sent again. */
const refusedForNow = new Set([408, 425, 429, 503]);
/** Messages of servers may be anything. */
const longestProblem = 1_000;

/** Where a call failed. */
export interface Place {
  server: string;
  tool: string;
  /** Makes a text fit to be shown. */
  shown(text: string): string;
  /** The connection stands for a session at the server, which may have forgotten it. */
  hasSession: boolean;
}

/** Connecting failed: nothing was carried out. */
export function unreachable(error: unknown, server: string, shown: (text: string) => string): Error {
  if (isError(error)) return error;
  const { status } = error as { status?: unknown };
  const isFinal = (typeof status === "number" && isRefusal(status)) || ["ENOENT", "EACCES"].includes(codeOf(error) ?? "");
  const unreached = new AbstractRuntimeError("MCP_UNREACHABLE", { server, problem: problemOf(error, shown) });
  return isFinal ? permanent(unreached) : definite(unreached);
}

/**
 * A request that was sent, or was to be, as MCP_UNREACHABLE (not carried out), MCP_CALL_FAILED (answered with an error) or MCP_CALL_LOST
 * (nobody knows).
 */
export function callFailure(error: unknown, place: Place): Error {
  if (isError(error)) return error;
  const { server, tool, shown, hasSession } = place;
  const { status } = error as { status?: unknown };
  const code = codeOf(error);
  const problem = problemOf(error, shown);
  if (typeof status === "number") {
    // A session that the server has lost is begun anew.
    if (refusedForNow.has(status) || (hasSession && (status === 404 || status === 400)))
      return definite(new AbstractRuntimeError("MCP_UNREACHABLE", { server, problem }));
    if (isRefusal(status)) return permanent(new AbstractRuntimeError("MCP_UNREACHABLE", { server, problem }));
  }
  if (code !== undefined && unsent.has(code)) return definite(new AbstractRuntimeError("MCP_UNREACHABLE", { server, problem }));
  const answered: ErrorCode =
    typeof (error as { code?: unknown }).code === "number" || code === "INVALID_RESULT" || code === "UNSUPPORTED_RESULT_TYPE"
      ? "MCP_CALL_FAILED"
      : "MCP_CALL_LOST";
  return new AbstractRuntimeError(answered, { server, tool, problem });
}

/** Revisions before 2026-07-28 say by an error that pages are to be visited first. Nothing was carried out. */
export function errandOf(error: unknown): Question | undefined {
  const { code, data } = error as { code?: unknown; data?: { elicitations?: Elicitation[] } };
  const pages = code === -32_042 && Array.isArray(data?.elicitations) ? data.elicitations : [];
  if (pages.length === 0) return undefined;
  return { requests: Object.fromEntries(pages.map((page, i) => [`page${i + 1}`, page])), isErrand: true };
}

function isRefusal(status: number): boolean {
  return status >= 400 && status < 500 && !refusedForNow.has(status);
}

/** The innermost: `fetch` says there what happened. */
function codeOf(error: unknown): string | undefined {
  const { code, cause } = error as { code?: unknown; cause?: unknown };
  const inner = typeof cause === "object" && cause !== null ? codeOf(cause) : undefined;
  return inner ?? (typeof code === "string" ? code : undefined);
}

/** What is said of it, and why: down to the innermost cause. */
function problemOf(error: unknown, shown: (text: string) => string): string {
  const said: string[] = [];
  for (let at = error; typeof at === "object" && at !== null && said.length < 5; at = (at as { cause?: unknown }).cause) {
    const { message, code } = at as { message?: unknown; code?: unknown };
    const words = String(message || code || "");
    if (!said.some((text) => text.includes(words))) said.push(words);
  }
  const text = shown(said.length === 0 ? String(error) : said.join(": "));
  return text.length > longestProblem ? `${text.slice(0, longestProblem).toWellFormed()}...` : text;
}
