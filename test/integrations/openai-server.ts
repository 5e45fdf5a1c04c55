/**
 * An OpenAI-compatible server for tests, on a port of the system's choice: real HTTP, with JSON or server-sent events as the request asks.
 * What it answers is said by a script, a reply for each request; the last one is for all further requests.
 */
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { once } from "node:events";

export interface Reply {
  /** Anything but 200 is answered with `error` as the body, and nothing else of the reply. Default: 200. */
  status?: number;
  headers?: Record<string, string>;
  /** A text is the body as it is. Default: `{ error: { message: "no" } }`. */
  error?: unknown;
  /** The deltas, where it streams. Default: "Hello." */
  content?: string | readonly string[];
  reasoning?: string | readonly string[];
  /** `arguments` as text, or as deltas. */
  toolCalls?: readonly { id: string; name: string; arguments: string | readonly string[] }[];
  finishReason?: string;
  usage?: object | null;
  model?: string;
  /** The body as it is, with status 200. */
  raw?: string;
  /** As `raw`, and as JSON also where a stream was asked for. */
  json?: string;
  /** The connection is cut: before the answer, after so many events, or "politely", with an end where the finish should be. */
  cut?: "before" | number | "politely";
  /** Sent after so many events, as servers do that fail in mid-stream. */
  midError?: { after: number; error: unknown };
  /** The answer begins only when this settles. */
  after?: Promise<unknown>;
  /** After the first event nothing comes until this settles. */
  hold?: Promise<unknown>;
}

export interface Seen {
  path: string;
  headers: IncomingHttpHeaders;
  body: any;
  text: string;
  /** Resolves when the answer is over: whether the client left before its end. */
  over: Promise<{ left: boolean }>;
}

export type Script = Reply | ((seen: Seen, index: number) => Reply | Promise<Reply>);

export class OpenAiServer implements AsyncDisposable {
  readonly requests: Seen[] = [];
  readonly #server = createServer((request, response) => void this.#answer(request, response).catch(() => response.destroy()));
  readonly #heard: (() => void)[] = [];
  #script: readonly Script[] = [{}];
  #next = 0;

  static async start(...script: Script[]): Promise<OpenAiServer> {
    const server = new OpenAiServer();
    if (script.length > 0) server.script(...script);
    server.#server.listen(0, "127.0.0.1");
    await once(server.#server, "listening");
    return server;
  }

  /** Up to and with `/v1`. */
  get url(): string {
    return `${this.origin}/v1`;
  }

  get origin(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  script(...script: Script[]): void {
    this.#script = script;
    this.#next = 0;
  }

  /** Resolves when so many requests have come in all. */
  async heard(count: number): Promise<void> {
    while (this.requests.length < count) await new Promise<void>((resolve) => this.#heard.push(resolve));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections();
    this.#server.close();
    await once(this.#server, "close");
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { promise: over, resolve } = Promise.withResolvers<{ left: boolean }>();
    response.on("close", () => resolve({ left: !response.writableFinished }));
    let text = "";
    for await (const chunk of request.setEncoding("utf8")) text += chunk;
    const seen: Seen = {
      path: request.url ?? "",
      headers: request.headers,
      body: text === "" ? undefined : JSON.parse(text),
      text,
      over,
    };
    const index = this.#next++;
    const scripted = this.#script[Math.min(index, this.#script.length - 1)] as Script;
    this.requests.push(seen);
    for (const hear of this.#heard.splice(0)) hear();
    const reply = typeof scripted === "function" ? await scripted(seen, index) : scripted;
    await reply.after;
    if (reply.cut === "before") return void response.destroy();
    for (const [name, value] of Object.entries(reply.headers ?? {})) response.setHeader(name, value);
    if (reply.status !== undefined && reply.status !== 200) {
      const body = reply.error ?? { error: { message: "no" } };
      response.writeHead(reply.status, { "content-type": "application/json" });
      response.end(typeof body === "string" ? body : JSON.stringify(body));
    } else if (reply.raw !== undefined || reply.json !== undefined) {
      const isStream = seen.body?.stream && reply.json === undefined;
      response.setHeader("content-type", isStream ? "text/event-stream" : "application/json");
      response.end(reply.raw ?? reply.json);
    } else if (seen.body?.stream) await stream(response, seen, reply);
    else {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(whole(seen, reply)));
    }
  }
}

const usual = { prompt_tokens: 11, completion_tokens: 7, total_tokens: 18 };

function deltasOf(text: string | readonly string[] | undefined): readonly string[] {
  return text === undefined ? [] : typeof text === "string" ? [text] : text;
}

function partsOf({ content, reasoning, toolCalls = [], finishReason, usage = usual, model }: Reply, seen: Seen) {
  return {
    content: deltasOf(content ?? (toolCalls.length > 0 ? undefined : "Hello.")),
    reasoning: deltasOf(reasoning),
    toolCalls,
    finish: finishReason ?? (toolCalls.length > 0 ? "tool_calls" : "stop"),
    usage,
    head: { id: "chat-1", created: 1, model: model ?? `${seen.body?.model}-served` },
  };
}

function whole(seen: Seen, reply: Reply): object {
  const { content, reasoning, toolCalls, finish, usage, head } = partsOf(reply, seen);
  const message = {
    role: "assistant",
    content: content.length > 0 ? content.join("") : null,
    ...(reasoning.length > 0 ? { reasoning_content: reasoning.join("") } : {}),
    ...(toolCalls.length > 0
      ? {
          tool_calls: toolCalls.map(({ id, name, arguments: input }) => ({
            id,
            type: "function",
            function: { name, arguments: deltasOf(input).join("") },
          })),
        }
      : {}),
  };
  return {
    ...head,
    object: "chat.completion",
    choices: [{ index: 0, message, finish_reason: finish }],
    ...(usage ? { usage } : {}),
  };
}

async function stream(response: ServerResponse, seen: Seen, reply: Reply): Promise<void> {
  response.writeHead(200, { "content-type": "text/event-stream" });
  const { content, reasoning, toolCalls, finish, usage, head } = partsOf(reply, seen);
  const choice = (delta: object, finish_reason: string | null = null) => ({
    ...head,
    choices: [{ index: 0, delta, finish_reason }],
  });
  const events: object[] = [
    ...reasoning.map((text) => choice({ reasoning_content: text })),
    ...content.map((text) => choice({ role: "assistant", content: text })),
    ...toolCalls.flatMap(({ id, name, arguments: input }, index) => [
      choice({ tool_calls: [{ index, id, type: "function", function: { name, arguments: "" } }] }),
      ...deltasOf(input).map((text) => choice({ tool_calls: [{ index, function: { arguments: text } }] })),
    ]),
  ];
  if (reply.cut !== "politely") {
    events.push(choice({}, finish));
    if (usage) events.push({ ...head, choices: [], usage });
  }
  for (const [i, event] of events.entries()) {
    if (reply.midError?.after === i) response.write(`data: ${JSON.stringify({ error: reply.midError.error })}\n\n`);
    if (reply.cut === i) {
      // What was written is on its way before the connection breaks.
      await new Promise((resolve) => response.write(":\n\n", resolve));
      return void response.destroy();
    }
    response.write(`data: ${JSON.stringify(event)}\n\n`);
    if (i === 0) await reply.hold;
  }
  response.end("data: [DONE]\n\n");
}
