/** Requests to a tool worker: bounded in time and size, without redirects, and with the token in no error. */
import { type Json, type JsonObject, parseJson } from "../index.ts";
import { refuse } from "../integrations/options.ts";
import { isObject } from "../integrations/json-object.ts";
import { isLoopback } from "../integrations/address.ts";
import { Cutter, formsOf } from "../integrations/secrets.ts";
import { isToken, readError } from "./contract.ts";
import { boundedBytes } from "./bounded-bytes.ts";

export interface WorkerClientOptions {
  /** Where the worker is, such as `https://tools.example.com`; what stands behind the host is kept. */
  url: string;
  /** What the worker was started with. A function is called for each request. It is recorded nowhere. */
  token: string | (() => string | Promise<string>);
  /** Lets the token go over plain HTTP to another machine. Default: false. */
  insecure?: boolean;
  /** Longest time for one request, in milliseconds. Default: 10,000. */
  requestTimeoutMs?: number;
  /** Longest answer. Default: 16 MiB. */
  maxResponseBytes?: number;
  /** Default: the global one. For certificates and proxies of one's own. */
  fetch?: typeof fetch;
}

export type Answer =
  | { kind: "given"; body: Json }
  /** No answer, or one that says "later". */
  | { kind: "unreachable"; problem: string; retryAfterMs?: number }
  /** `isPage`: with what is no JSON, as whatever stands before a worker answers while it is away. */
  | { kind: "refused"; status: number; code?: string; problem: string; isPage: boolean }
  | { kind: "invalid"; problem: string };

/** What is worth asking again: timeouts, too early, too many, and faults of the server. */
const passing = (status: number): boolean => status === 408 || status === 425 || status === 429 || status >= 500;

/** One that asks for more is asked again all the same. */
const longestWaitMs = 60 * 60_000;

export class WorkerClient {
  /** Without a path, for messages. */
  readonly origin: string;
  readonly #base: URL;
  readonly #options: WorkerClientOptions;

  /** @throws INVALID_OPTION */
  constructor(options: WorkerClientOptions) {
    const base = URL.parse(options.url);
    if (!base || !["http:", "https:"].includes(base.protocol)) refuse("url", "url must be an http or https address");
    if (base.username !== "" || base.password !== "") refuse("url", "url must hold no user name and no password: use token");
    if (base.protocol === "http:" && !isLoopback(base.hostname) && options.insecure !== true)
      refuse("url", `the token would go over the network unencrypted, to ${base.host}: use https, or say insecure: true`);
    if (typeof options.token !== "function" && !isToken(options.token))
      refuse("token", "token must be text that a header can hold, or a function that gives it");
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    base.search = base.hash = "";
    this.#base = base;
    this.origin = base.origin;
    this.#options = options;
  }

  /** Never rejects. @param path Below `v1/`. */
  async request(
    method: "GET" | "POST" | "DELETE",
    path: string,
    more: { body?: JsonObject; headers?: Readonly<Record<string, string>> } = {},
  ): Promise<Answer> {
    const { token, requestTimeoutMs = 10_000, maxResponseBytes = 16 * 1024 * 1024, fetch: send = fetch } = this.#options;
    let secret = "";
    try {
      secret = typeof token === "function" ? await token() : token;
      if (!isToken(secret))
        return { kind: "refused", status: 401, problem: "it was not asked: the token is none that can be sent", isPage: false };
      const response = await send(new URL(`v1/${path}`, this.#base), {
        method,
        headers: {
          ...more.headers,
          authorization: `Bearer ${secret}`,
          accept: "application/json",
          ...(more.body === undefined ? {} : { "content-type": "application/json" }),
        },
        ...(more.body === undefined ? {} : { body: JSON.stringify(more.body) }),
        // A redirect would take the token along.
        redirect: "manual",
        signal: AbortSignal.timeout(requestTimeoutMs),
      });
      const text = (await boundedBytes(response, maxResponseBytes))?.toString();
      return understood(response, text, secret);
    } catch (error) {
      return { kind: "unreachable", problem: withoutText(reasonOf(error, requestTimeoutMs), secret) };
    }
  }
}

/** @param secret A server may send back what it was sent, and so may a tool. */
function understood({ status, headers }: Response, text: string | undefined, secret: string): Answer {
  if (text === undefined) return { kind: "invalid", problem: "it is larger than maxResponseBytes" };
  if (passing(status)) {
    const seconds = Number(headers.get("retry-after") ?? Number.NaN);
    return {
      kind: "unreachable",
      problem: `it answered HTTP ${status}`,
      ...(seconds >= 0 ? { retryAfterMs: Math.min(seconds * 1_000, longestWaitMs) } : {}),
    };
  }
  if (status >= 300 && status < 400) return { kind: "invalid", problem: `a redirect (HTTP ${status}), which is not followed` };
  if (status >= 400) {
    const body = jsonIn(text);
    // Before it is cut: half of a secret would not be found.
    const error = isObject(body) && isObject(body.error) ? withoutText(body.error, secret) : {};
    const { code, message } = readError(error);
    const isPage = body === undefined && text !== "";
    return { kind: "refused", status, ...(code === undefined ? {} : { code }), problem: message, isPage };
  }
  const body = jsonIn(text);
  if (body !== undefined) return { kind: "given", body: secret.length < leastSecret ? body : withoutText(body, secret) };
  const type = withoutText(headers.get("content-type") ?? "of no type", secret);
  return { kind: "invalid", problem: `it is not JSON (HTTP ${status}, ${type})` };
}

function jsonIn(text: string): Json | undefined {
  try {
    return parseJson(text);
  } catch {
    return undefined; // It is not JSON, which the caller says in its own words.
  }
}

/** The connection's own words are behind a `fetch failed`. */
function reasonOf(error: unknown, timeoutMs: number): string {
  if (error instanceof Error && error.name === "TimeoutError") return `no answer within ${timeoutMs} ms`;
  const cause = error instanceof Error && error.cause instanceof Error ? error.cause : error;
  return cause instanceof Error ? cause.message || String((cause as NodeJS.ErrnoException).code ?? cause.name) : String(cause);
}

/** Shorter ones may stand in a text by chance, which is then left as it is. */
const leastSecret = 16;

function withoutText<Value extends Json>(value: Value, secret: string): Value {
  return new Cutter(formsOf(secret)).cutIn(value);
}
