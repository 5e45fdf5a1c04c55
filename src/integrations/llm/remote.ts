/**
 * A model behind an OpenAI-compatible server, such as AbstractCore's.
 *
 * R1. A key is asked for with each call, sent to the server of `baseUrl` and to nobody else: redirects are not followed.
 * R2. Neither keys nor the values of headers stand in an error, and nothing else that the server sent does but its message. Keys stand in
 *     no answer either.
 * R3. Where a server is to route a request is `params.base_url` alone, checked against the list. No other way into the body leads there.
 * R4. Of what a server sends, no more is taken than an answer can be.
 */
import { AbstractRuntimeError, type EffectContext, type Json, permanent } from "../../index.ts";
import { checkOptions, refuse } from "../options.ts";
import { withoutPeer } from "../peer.ts";
import { readBaseUrl, routeOf } from "./base-url.ts";
import type { LlmClient } from "./client.ts";
import { llmError } from "./llm-error.ts";
import { callModel, type LanguageModel, type ModelAnswer, storable } from "./model.ts";
import { callOptions } from "./prompt.ts";
import { isObject } from "../json-object.ts";
import type { LlmRequest } from "./request.ts";
import { runHeaders } from "./run-headers.ts";
import { Secrets } from "./secrets.ts";
import { within } from "../within.ts";

export interface RemoteLlmOptions {
  /** Up to and with `/v1`. */
  baseUrl: string;
  /** The model for requests that name none. */
  model: string;
  /** Sent as a bearer token, unless it is empty. A function is asked before each call, so that keys can change. It never reaches a record. */
  apiKey?: Secret;
  /** Further headers, such as an `X-AbstractCore-Provider-API-Key`, asked for before each call. Their values never reach a record. */
  headers?: () => Record<string, string> | Promise<Record<string, string>>;
  /**
   * Where `params.base_url` may have requests routed: URLs that allow what is at and below them. Prompts go there, and a key for providers
   * that is among `headers`, so list only what you trust. Default: nowhere.
   */
  allowBaseUrls?: readonly string[];
  /** Whether to say in `X-AbstractCore-` headers which run asks. Default: true. */
  runHeaders?: boolean;
  /** Whether the server takes a JSON Schema for `output`; otherwise it is only told to answer with JSON. Default: true. */
  structuredOutputs?: boolean;
  /** Longest time of a call, in milliseconds. Default: that of the effect's policy. */
  timeoutMs?: number;
  /** `createOpenAICompatible` of the package `@ai-sdk/openai-compatible`, version 2 or 3. Default: the one that is installed. */
  provider?: OpenAICompatible;
}

export type Secret = string | (() => string | Promise<string>);

/** As much of `createOpenAICompatible` as is used. */
export type OpenAICompatible = (settings: {
  name: string;
  baseURL: string;
  includeUsage: boolean;
  supportsStructuredOutputs: boolean;
  fetch: typeof fetch;
  transformRequestBody: (body: Record<string, unknown>) => Record<string, unknown>;
}) => { chatModel(modelId: string): LanguageModel };

const optionNames = [
  "baseUrl",
  "model",
  "apiKey",
  "headers",
  "allowBaseUrls",
  "runHeaders",
  "structuredOutputs",
  "timeoutMs",
  "provider",
];

/** Calls an OpenAI-compatible server. Needs the package `@ai-sdk/openai-compatible`. @throws INVALID_OPTION */
export function remoteLlm(options: RemoteLlmOptions): LlmClient {
  checkOptions(options, optionNames, "remoteLlm()");
  const { model, apiKey, headers, timeoutMs, provider } = options;
  readBaseUrl(options.baseUrl, "baseUrl");
  if (typeof model !== "string" || model === "") refuse("model", "remoteLlm() needs the name of a model");
  if (timeoutMs !== undefined && !(timeoutMs > 0)) refuse("timeoutMs", "timeoutMs must be a number of milliseconds above 0");
  for (const [option, value] of Object.entries({ headers, provider }))
    if (value !== undefined && typeof value !== "function") refuse(option, `${option} must be a function`);
  const isSecret = apiKey === undefined || typeof apiKey === "function" || (typeof apiKey === "string" && apiKey !== "");
  if (!isSecret) refuse("apiKey", "apiKey must be text, or a function that gives it");
  for (const allowed of options.allowBaseUrls ?? []) readBaseUrl(allowed, "allowBaseUrls");
  return new RemoteLlm(options);
}

export class RemoteLlm implements LlmClient {
  readonly #options: RemoteLlmOptions;
  /** By the names of the models. Making one costs more than using it. */
  readonly #models = new Map<string, LanguageModel>();

  constructor(options: RemoteLlmOptions) {
    this.#options = options;
  }

  get model(): string {
    return this.#options.model;
  }

  /** @throws INVALID_OPTION when its package is not installed. */
  async ready(): Promise<void> {
    if (!this.#options.provider) await installed();
  }

  async generate(request: LlmRequest, context: EffectContext): Promise<ModelAnswer> {
    const { base_url, ...params } = request.params;
    const name = request.model ?? this.#options.model;
    const route = base_url ? this.#route(base_url) : "";
    const secrets = new Secrets();
    const limit = this.#limit(context);
    try {
      const headers = await within(limit.signal, this.#headers(context, secrets));
      const model = await this.#model(name, route);
      const asked = callOptions({ ...request, params: withTopK(params) }, model.specificationVersion);
      const emit = request.stream ? context.stream : undefined;
      return await callModel(model, { ...asked, headers, abortSignal: limit.signal }, emit, secrets);
    } catch (error) {
      throw llmError(limit.passed ?? error, { model: name, secrets, now: context.clock.now() });
    } finally {
      limit.end();
    }
  }

  #route(text: string): string {
    const found = routeOf(text, this.#options.allowBaseUrls ?? []);
    if ("route" in found) return found.route;
    // Where one holds a password or a key, it is there.
    const baseUrl = text.replace(/\/\/[^/]*@|[?#].*$/gs, "***").slice(0, 200);
    throw permanent(new AbstractRuntimeError("LLM_BASE_URL_REFUSED", { baseUrl, problem: found.problem }));
  }

  /** @param secrets Is told what must not be repeated, also when something else fails. */
  async #headers(context: EffectContext, secrets: Secrets): Promise<Record<string, string>> {
    const { apiKey, headers, runHeaders: areSent = true } = this.#options;
    // What surrounds a value is not sent: a key out of a file often ends in a new line.
    const key = textOf(typeof apiKey === "function" ? await apiKey() : (apiKey ?? ""), "apiKey()").trim();
    secrets.add(key, true);
    const further = (await headers?.()) ?? {};
    for (const [name, value] of Object.entries(further))
      secrets.add(textOf(value, `headers(), for ${name},`).trim(), ofKeys.test(name));
    return {
      ...(areSent ? runHeaders(context) : {}),
      ...context.traceHeaders(),
      ...(key === "" ? {} : { Authorization: `Bearer ${key}` }),
      ...further,
    };
  }

  async #model(name: string, route: string): Promise<LanguageModel> {
    const known = route === "" ? this.#models.get(name) : undefined;
    if (known) return known;
    const { baseUrl, structuredOutputs = true, provider = await installed() } = this.#options;
    const made = provider({
      name: "openaiCompatible",
      baseURL: baseUrl.replace(/\/+$/, ""),
      includeUsage: true,
      supportsStructuredOutputs: structuredOutputs,
      fetch: carefulFetch,
      transformRequestBody: ({ base_url: _, ...body }) => (route === "" ? body : { ...body, base_url: route }),
    }).chatModel(name);
    // The name comes from runs: a list of them without end would be kept for ever.
    if (route === "" && this.#models.size < mostModels) this.#models.set(name, made);
    return made;
  }

  #limit({ clock, signal }: EffectContext): { signal: AbortSignal; readonly passed: Error | undefined; end(): void } {
    const { timeoutMs } = this.#options;
    if (timeoutMs === undefined) return { signal, passed: undefined, end: () => undefined };
    const late = new AbortController();
    const timer = clock.setTimer(() => late.abort(new Error(`there was no whole answer within ${timeoutMs} ms`)), timeoutMs);
    return {
      signal: AbortSignal.any([signal, late.signal]),
      get passed() {
        return late.signal.reason as Error | undefined;
      },
      end: () => timer.cancel(),
    };
  }
}

const mostModels = 100;

/** Headers whose values are keys by their names. */
const ofKeys = /\bauth(?:oriz|ent|\b)|key|token|secret|cookie|password|credential/i;

function textOf(given: unknown, where: string): string {
  if (typeof given !== "string") throw new Error(`${where} gave ${given === null ? "null" : typeof given} and no text`);
  return given;
}

/** The package knows no `top_k`, and servers do. */
function withTopK({ top_k, ...params }: LlmRequest["params"]): LlmRequest["params"] {
  if (top_k == null) return params;
  const { openaiCompatible, ...others } = params.provider_options ?? {};
  const more = isObject(openaiCompatible) ? openaiCompatible : {};
  return { ...params, provider_options: { ...others, openaiCompatible: { top_k, ...more } } };
}

/** More than any model says at once. What is sent without end would take all memory. */
const largestAnswer = 64 * 1024 * 1024;

const carefulFetch: typeof fetch = async (url, init) => {
  const { body, ...response } = partsOf(await fetch(url, { ...init, redirect: "manual" }));
  if (response.status >= 300 && response.status < 400) {
    await body?.cancel();
    throw Object.assign(new Error("the server redirects, which is not followed: name the right baseUrl"), {
      statusCode: response.status,
    });
  }
  const whole = new Response(body?.pipeThrough(limited()) ?? null, response);
  if (response.status !== 200 || !response.headers.get("content-type")?.startsWith("application/json")) return whole;
  const text = await whole.text();
  const said = storable(text);
  throwSaid(said);
  // Not every server streams.
  return new Response((asksForStream(init?.body) ? eventOf(said) : undefined) ?? text, response);
};

function asksForStream(body: unknown): boolean {
  // Looked for first, since it may be large.
  return typeof body === "string" && body.includes('"stream":true') && JSON.parse(body).stream === true;
}

/** A whole answer as the one event of a stream. */
function eventOf(said: Json | undefined): string | undefined {
  if (!isObject(said) || !Array.isArray(said.choices)) return undefined;
  const choices = said.choices.map((choice) => (isObject(choice) ? { ...choice, delta: choice.message } : choice));
  return `data: ${JSON.stringify({ ...said, choices })}\n\n`;
}

function partsOf({ body, status, statusText, headers }: Response) {
  return { body, status, statusText, headers };
}

function limited(): TransformStream<Uint8Array, Uint8Array> {
  let left = largestAnswer;
  return new TransformStream({
    transform(chunk, controller) {
      left -= chunk.byteLength;
      if (left < 0) controller.error(new Error(`the answer takes more than ${largestAnswer} bytes`));
      else controller.enqueue(chunk);
    },
  });
}

/** Some servers say with a status of 200 that they have failed, also where a stream was asked for, and then nobody would look at it. */
function throwSaid(said: Json | undefined): void {
  const error = isObject(said) && !("choices" in said) ? said.error : undefined;
  if (error == null) return;
  const { message, code } = isObject(error) ? error : { message: error };
  throw Object.assign(new Error(typeof message === "string" ? message : JSON.stringify(error)), { code });
}

async function installed(): Promise<OpenAICompatible> {
  try {
    const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
    return createOpenAICompatible as unknown as OpenAICompatible;
  } catch (cause) {
    throw withoutPeer(cause, ["@ai-sdk/openai-compatible"], "provider", "remoteLlm() speaks to its server with it");
  }
}
