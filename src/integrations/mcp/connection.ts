/**
 * One connection to a server, from its handshake to its end. It is not mended: whoever needs a server whose connection has ended connects
 * anew.
 */
import type {
  CallToolResult,
  Client,
  ElicitResult,
  InputRequests,
  InputRequiredResult,
  Tool,
  Transport,
} from "@modelcontextprotocol/client";
import { AbstractRuntimeError, type Clock, definite, type EffectContext, isError, type JsonObject, toJson } from "../../index.ts";
import { Askers, stop } from "./askers.ts";
import { callFailure, errandOf, unreachable } from "./failure.ts";
import { httpTransport } from "./http.ts";
import { deepestSchema, largestList, mostPages } from "./limits.ts";
import type { Again, Elicitation, Question } from "./questions.ts";
import type { Sdk } from "./sdk.ts";
import type { Secrets } from "./secrets.ts";
import type { Server } from "./server-options.ts";
import { endWithThisProcess, kill, stdioTransport } from "./stdio.ts";
import { within } from "../within.ts";

export type Answer = { result: CallToolResult } | { question: Question };

/** Times are kept by the clock of the attempt: the client's own are never to come first. */
const never = 2 ** 31 - 1;
/** A list is asked for again after so long: not every server says when it changes, or can. */
const listMs = 5 * 60_000;
/** A server that only gives state gets it back so many times. */
const mostRounds = 10;
/** How long a server has to answer after a tool of its has not. */
const aliveMs = 10_000;
/** How long a server has to take leave. */
const leaveMs = 1_000;

export class Connection {
  readonly #server: Server;
  readonly #secrets: Secrets;
  readonly #client: Client;
  readonly #transport: Transport;
  readonly #askers = new Askers();
  readonly #lastWords: () => string;
  #lastProblem = "";
  #list: { tools: Promise<Map<string, Tool>>; since: number } | undefined;
  #isOver = false;
  readonly #over = Promise.withResolvers<void>();
  /** Settles as the handshake does. @throws MCP_UNREACHABLE, marked `definite`. */
  readonly ready: Promise<void>;
  readonly #handshake: Promise<void>;
  #closing: Promise<void> | undefined;

  constructor(sdk: Sdk, server: Server, secrets: Secrets) {
    this.#server = server;
    this.#secrets = secrets;
    this.#client = new sdk.client.Client(
      { name: "abstractruntime", version: "1" },
      {
        capabilities: { elicitation: { form: {}, url: {} } },
        versionNegotiation: { mode: "auto", probe: { timeoutMs: Math.ceil(server.connectTimeoutMs / 3) } },
        inputRequired: { autoFulfill: false },
        listChanged: { tools: { autoRefresh: false, debounceMs: 0, onChanged: () => (this.#list = undefined) } },
      },
    );
    this.#client.setRequestHandler(
      "elicitation/create",
      ({ params }) => this.#askers.answer(params as Elicitation) as Promise<ElicitResult>,
    );
    let ended = (): void => undefined;
    if (server.url === undefined) {
      const { transport, lastWords } = stdioTransport(sdk, server, secrets);
      this.#transport = transport;
      this.#lastWords = lastWords;
      ended = endWithThisProcess(transport);
    } else {
      this.#transport = httpTransport(sdk, server, secrets, () => this.#askers.streamEnded());
      this.#lastWords = () => "";
    }
    this.#client.onclose = () => {
      this.#isOver = true;
      ended();
      this.#over.resolve();
    };
    this.#client.onerror = ({ name, message }) => {
      // What the client says of messages that are none is a page of JSON.
      this.#lastProblem = name.includes("Zod") ? "it sent something that is no message of the protocol" : message;
    };
    const start = this.#transport.start.bind(this.#transport);
    // Nothing is started for a connection that was closed while it came to be.
    this.#transport.start = async () => (this.#isOver ? Promise.reject(new Error("it was closed")) : start());
    this.#handshake = this.#client.connect(this.#transport, { timeout: server.connectTimeoutMs });
    this.ready = this.#connected();
    this.ready.catch(() => undefined);
  }

  /** Whether it takes no more calls. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Resolves when nothing of it is left. */
  get over(): Promise<void> {
    return this.#over.promise;
  }

  /** By name, as the server calls them. @throws MCP_UNREACHABLE, marked `definite`. */
  tools(): Promise<Map<string, Tool>> {
    const now = performance.now();
    if (this.#list && now - this.#list.since < listMs) return this.#list.tools;
    const list = { tools: this.#listed(), since: now };
    this.#list = list;
    list.tools.catch(() => {
      if (this.#list === list) this.#list = undefined;
    });
    return list.tools;
  }

  /**
   * Calls a tool once. What a server of an older revision asks meanwhile is answered as far as it was told before; otherwise the call is
   * broken off for it.
   *
   * @throws MCP_UNREACHABLE (marked `definite`), MCP_CALL_FAILED, MCP_CALL_LOST, TOOL_TIMEOUT; anything, when `context.signal` has aborted.
   */
  async call(tool: Tool, given: JsonObject, again: Again | undefined, context: EffectContext): Promise<Answer> {
    const { name, timeoutMs } = this.#server;
    const call = await this.#askers.begin(again?.told ?? [], context.signal);
    let timer = context.clock.setTimer(() => stop(call, "late"), timeoutMs);
    const onprogress = ({ message }: { message?: string }): void => {
      timer.cancel();
      timer = context.clock.setTimer(() => stop(call, "late"), timeoutMs);
      context.progress(message === undefined ? undefined : this.#shown(message));
    };
    const onAbort = (): void => stop(call, "aborted");
    context.signal.addEventListener("abort", onAbort);
    try {
      // Servers of older revisions ask again, and are told then.
      const isTold = again !== undefined && this.#client.getProtocolEra() === "modern";
      let state = isTold ? { inputResponses: again.answers, requestState: again.requestState } : {};
      for (let round = 1; ; round++) {
        if (!this.#client.transport)
          throw definite(new AbstractRuntimeError("MCP_UNREACHABLE", { server: name, problem: "its connection has ended" }));
        const params = { name: tool.name, arguments: given, _meta: { ...context.traceHeaders() }, ...state };
        const options = { signal: call.controller.signal, timeout: never, onprogress, allowInputRequired: true };
        // Without its output schema, which the client would compile: a pattern in it could stop this process.
        const toolDefinition = { ...tool, outputSchema: undefined };
        const result = (await this.#askers.in(call, () => this.#client.callTool(params, { ...options, toolDefinition }))) as
          | CallToolResult
          | InputRequiredResult;
        this.#lastProblem = "";
        if (!isInputRequired(result)) return { result };
        const { inputRequests = {}, requestState } = result;
        if (Object.keys(inputRequests).length > 0) return { question: this.#questionOf(tool.name, inputRequests, requestState) };
        if (round === mostRounds) throw this.#failed(tool.name, `it asked to be called again ${mostRounds} times`);
        state = { inputResponses: {}, requestState };
      }
    } catch (error) {
      context.signal.throwIfAborted();
      if (call.stopped === "asked") return { question: { requests: { question: call.question as Elicitation } } };
      if (call.stopped === "late") {
        this.#checkAlive(context.clock);
        throw new AbstractRuntimeError("TOOL_TIMEOUT", { tool: tool.name, timeoutMs });
      }
      if (call.stopped === "ambiguous") {
        this.#askers.ended(call);
        return await this.call(tool, given, again, context);
      }
      if (call.stopped === "ended") throw this.#lost(tool.name, "the stream of its answer ended without one");
      const errand = errandOf(error);
      if (errand) return { question: errand };
      const hasSession = this.#transport.sessionId !== undefined;
      const failure = callFailure(error, { server: name, tool: tool.name, shown: this.#explained, hasSession });
      if (!isError(failure, "MCP_CALL_FAILED")) this.retire();
      throw failure;
    } finally {
      timer.cancel();
      context.signal.removeEventListener("abort", onAbort);
      this.#askers.ended(call);
    }
  }

  /** It may be the tool alone that does not answer. A server that does not say either which tools it has is given up. */
  #checkAlive(clock: Clock): void {
    this.#list = undefined;
    const timer = clock.setTimer(() => {
      this.retire();
      kill(this.#transport);
    }, aliveMs);
    this.tools().then(
      () => timer.cancel(),
      () => timer.cancel(),
    );
  }

  /** Takes no more calls; ends when those under way have ended. */
  retire(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#askers.idle().then(() => this.close());
  }

  /** Ends the server's process, or takes leave of a server that runs elsewhere. */
  close(): Promise<void> {
    this.#isOver = true;
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const leave = (this.#transport as { terminateSession?: () => Promise<void> }).terminateSession?.bind(this.#transport);
    // A server that has gone, or does not answer, forgets by itself.
    if (leave) await Promise.race([leave().catch(() => undefined), elapsed(leaveMs)]);
    await this.#transport.close().catch(() => undefined);
    await this.#handshake.catch(() => undefined);
    await this.#client.close().catch(() => undefined);
    this.#over.resolve();
  }

  async #connected(): Promise<void> {
    const { name, connectTimeoutMs } = this.#server;
    try {
      // The handshake has its own timeout, but a server may also hang where nobody counts.
      await within(AbortSignal.timeout(connectTimeoutMs), this.#handshake);
    } catch (error) {
      const isLate = (error as Error).name === "TimeoutError";
      const failure = unreachable(isLate ? new Error("it did not get ready in time") : error, name, this.#explained);
      // Nobody waits for a process to end that never was a server.
      kill(this.#transport);
      void this.close();
      throw failure;
    }
  }

  async #listed(): Promise<Map<string, Tool>> {
    try {
      // The client would print a message.
      const tools = this.#client.getServerCapabilities()?.tools ? await this.#pages() : [];
      return new Map(tools.map((tool) => [tool.name, this.#listable(tool)]));
    } catch (error) {
      this.retire();
      throw unreachable(error, this.#server.name, this.#explained);
    }
  }

  /** Page by page, since the client would take all of them, whatever their size. */
  async #pages(): Promise<Tool[]> {
    const tools: Tool[] = [];
    let cursor: string | undefined;
    for (let page = 1, size = 0; page <= mostPages; page++) {
      const params = cursor === undefined ? {} : { params: { cursor } };
      const listed = await this.#client.request({ method: "tools/list", ...params }, { timeout: this.#server.connectTimeoutMs });
      size += JSON.stringify(listed.tools).length;
      if (size > largestList)
        throw new Error(`its list of tools has more than ${largestList} characters, which is what is allowed`);
      tools.push(...listed.tools);
      // Some never say that a page was the last one.
      if (listed.nextCursor === undefined || listed.nextCursor === cursor) return tools;
      cursor = listed.nextCursor;
    }
    throw new Error(`its list of tools has more than ${mostPages} pages`);
  }

  /** Models are told of it, and that is recorded. @throws Where it cannot be. */
  #listable(tool: Tool): Tool {
    const { name, description, inputSchema } = tool;
    const told = this.#secrets.scrubJson({ name, description: description ?? "", inputSchema } as JsonObject);
    const refuse = (problem: string): never => {
      throw new Error(`tool ${JSON.stringify(told.name)} of its list cannot be told to models: ${problem}`);
    };
    // Without its name, it could not be called.
    if (told.name !== name) refuse("its name holds a secret");
    if (JSON.stringify(told).includes('"$artifact"')) refuse("it names an artifact");
    try {
      toJson(told, "tool", deepestSchema);
    } catch (error) {
      refuse((error as Error).message);
    }
    return { ...tool, ...told, ...(description === undefined ? { description } : {}) } as Tool;
  }

  #questionOf(tool: string, inputRequests: InputRequests, requestState: string | undefined): Question {
    const requests = Object.entries(inputRequests).map(([key, { method, params }]): [string, Elicitation] => {
      if (method !== "elicitation/create") throw this.#failed(tool, `it asks for ${method}, which this client does not offer`);
      return [key, params as Elicitation];
    });
    return { requests: Object.fromEntries(requests), ...(requestState === undefined ? {} : { requestState }) };
  }

  #failed(tool: string, problem: string): Error {
    return new AbstractRuntimeError("MCP_CALL_FAILED", { server: this.#server.name, tool, problem: this.#shown(problem) });
  }

  #lost(tool: string, problem: string): Error {
    return new AbstractRuntimeError("MCP_CALL_LOST", { server: this.#server.name, tool, problem });
  }

  readonly #shown = (text: string): string => this.#secrets.scrub(text);

  /** With what else is known of why it failed. */
  readonly #explained = (problem: string): string => {
    const words = [this.#lastProblem, this.#lastWords()].filter((text) => text !== "" && !problem.includes(text));
    return this.#shown(words.length === 0 ? problem : `${problem} (last heard of it: ${words.join("; ")})`);
  };
}

function isInputRequired(result: CallToolResult | InputRequiredResult): result is InputRequiredResult {
  return (result as { resultType?: unknown }).resultType === "input_required";
}

function elapsed(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
