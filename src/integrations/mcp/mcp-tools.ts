/** The tools of an MCP server as an executor. */
import type { Tool } from "@modelcontextprotocol/client";
import {
  AbstractRuntimeError,
  definite,
  type EffectContext,
  isError,
  type JsonObject,
  permanent,
  schemaProblem,
  type WaitRequest,
} from "../../index.ts";
import {
  argumentsOf,
  beneathLayer,
  type ListingExecutor,
  thrownFailure,
  type ToolCall,
  type ToolDescription,
  toolFailure,
  type ToolResult,
  toolSuccess,
  unknownTool,
  whenUncertain,
} from "../tools/index.ts";
import { Connection } from "./connection.ts";
import { outputOf, textOf } from "./content.ts";
import { answerOf, questionWait } from "./questions.ts";
import { loadSdk } from "./sdk.ts";
import { Secrets } from "./secrets.ts";
import { type McpServerOptions, readServer, type Server } from "./server-options.ts";
import { within } from "../within.ts";

export interface McpTools extends ListingExecutor, AsyncDisposable {
  /** What the server offers now, by the names that calls have here. @throws MCP_UNREACHABLE */
  tools(): Promise<ToolDescription[]>;
  /** Whether its tool only reads; undefined for one that the server has not listed yet. */
  speculative(call: ToolCall): boolean | undefined;
  /**
   * Whether a call may change or destroy something: true unless the server says that the tool only reads, or only adds. For
   * `withApproval(tools, { needsApproval: tools.mayDestroy })`. It is the server's word.
   */
  readonly mayDestroy: (call: ToolCall) => Promise<boolean>;
  /** Ends the connection, and the server's process where it was started here. Calls under way are lost; later ones are refused. */
  close(): Promise<void>;
}

/**
 * An executor of the tools of one MCP server, over stdio or streamable HTTP. It connects when it is first needed, and anew when the server
 * has gone. Needs the package `@modelcontextprotocol/client`.
 *
 * A tool that says of itself that it only reads (`readOnlyHint`) is speculative: its calls run side by side, and again after a crash. A
 * question that a server asks makes the run wait for a person; then the call is made again with the answer.
 *
 * @throws INVALID_OPTION
 */
export function mcpTools(options: McpServerOptions): McpTools {
  return new ServerTools(readServer(options));
}

class ServerTools implements McpTools {
  readonly #server: Server;
  readonly #secrets: Secrets;
  #latest: Connection | undefined;
  /** Of the last list, for who cannot wait for one. */
  #known = new Map<string, Tool>();
  readonly #live = new Set<Connection>();
  #isClosed = false;

  constructor(server: Server) {
    this.#server = server;
    this.#secrets = new Secrets(server);
  }

  async execute(call: ToolCall, given: EffectContext): Promise<ToolResult | WaitRequest> {
    // What a person said that it gave, if that was asked.
    const said = given.uncertain ? undefined : whenUncertain(call, given, "fail");
    if (said) return said;
    try {
      const { connection, tools } = await within(given.signal, this.#reach());
      const tool = tools.get(this.#nameOf(call));
      const doubt = tool && isReadOnly(tool) ? undefined : whenUncertain(call, given, this.#server.onUncertain);
      if (doubt) return doubt;
      if (!tool) return unknownTool(call, this.#namesOf(tools));
      const read = await readArguments(call, tool);
      if ("problem" in read) return toolFailure(call, "TOOL_ARGUMENTS_INVALID", { tool: call.name, problem: read.problem });
      return await this.#call(connection, tool, read.value, call, beneathLayer("certainty", given));
    } catch (error) {
      given.signal.throwIfAborted();
      const isHarmless = this.speculative(call) === true;
      // Carrying it out again harms nobody, so it is as if it had not happened.
      if (isHarmless && isError(error, "MCP_CALL_LOST")) throw definite(error);
      // Of this attempt it says that nothing was carried out, and of the one that was cut off it cannot.
      if (!isHarmless && given.uncertain && isError(error, "MCP_UNREACHABLE"))
        throw definite(this.#lost(call, `an attempt was cut off, and now: ${error.fields.problem}`));
      if ((error as { definite?: unknown }).definite === true) throw error;
      return thrownFailure(call, error);
    }
  }

  async check(call: ToolCall): Promise<ToolResult | undefined> {
    const { tools } = await this.#reach();
    const tool = tools.get(this.#nameOf(call));
    if (!tool) return unknownTool(call, this.#namesOf(tools));
    const read = await readArguments(call, tool);
    return "problem" in read
      ? toolFailure(call, "TOOL_ARGUMENTS_INVALID", { tool: call.name, problem: read.problem })
      : undefined;
  }

  speculative(call: ToolCall): boolean | undefined {
    const tool = this.#known.get(this.#nameOf(call));
    return tool && isReadOnly(tool);
  }

  /** As with tools of this process: those that do something, one at a time. */
  exclusive(call: ToolCall): string | undefined {
    return this.speculative(call) === true ? undefined : "tools";
  }

  async tools(): Promise<ToolDescription[]> {
    const { tools } = await this.#reach();
    return [...tools.values()].map(({ name, description, inputSchema }) => ({
      name: this.#server.prefix + name,
      ...(description === undefined ? {} : { description: this.#secrets.scrub(description) }),
      parameters: this.#secrets.scrubJson(inputSchema as JsonObject),
    }));
  }

  readonly mayDestroy = async (call: ToolCall): Promise<boolean> => {
    const { tools } = await this.#reach();
    const tool = tools.get(this.#nameOf(call));
    return !tool || (!isReadOnly(tool) && tool.annotations?.destructiveHint !== false);
  };

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#live].map((connection) => connection.close()));
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #call(
    connection: Connection,
    tool: Tool,
    value: JsonObject,
    call: ToolCall,
    context: EffectContext,
  ): Promise<ToolResult | WaitRequest> {
    const again = answerOf(context);
    const refusal = again?.isErrand && Object.values(again.answers).find(({ action }) => action !== "accept");
    if (refusal)
      return thrownFailure(call, new Error(`the person who was asked for what the tool needs chose to ${refusal.action}`));
    const answer = await connection.call(tool, value, again, context);
    if ("question" in answer) return questionWait(this.#server.name, call, answer.question, again?.told ?? [], this.#secrets);
    const { result } = answer;
    const output = await outputOf(result, context, this.#secrets);
    if (result.isError !== true) return toolSuccess(call, output);
    const message = this.#secrets.scrub(textOf(result)) || "the tool failed, and said nothing of why";
    // Texts are in the message already.
    return { ...thrownFailure(call, new Error(message)), output: typeof output === "string" ? null : output };
  }

  async #reach(): Promise<{ connection: Connection; tools: Map<string, Tool> }> {
    const connection = await this.#connected();
    const tools = await connection.tools();
    this.#known = tools;
    return { connection, tools };
  }

  async #connected(): Promise<Connection> {
    const sdk = await loadSdk();
    if (this.#isClosed) {
      const problem = "these tools were closed";
      throw permanent(new AbstractRuntimeError("MCP_UNREACHABLE", { server: this.#server.name, problem }));
    }
    if (!this.#latest || this.#latest.isOver) {
      const connection = new Connection(sdk, this.#server, this.#secrets);
      this.#latest = connection;
      this.#live.add(connection);
      connection.over.then(() => this.#live.delete(connection));
    }
    const connection = this.#latest;
    await connection.ready;
    return connection;
  }

  #lost({ name: tool }: ToolCall, problem: string): AbstractRuntimeError {
    return new AbstractRuntimeError("MCP_CALL_LOST", { server: this.#server.name, tool, problem });
  }

  /** As the server calls it. */
  #nameOf({ name }: ToolCall): string {
    const { prefix } = this.#server;
    return name.startsWith(prefix) ? name.slice(prefix.length) : "";
  }

  #namesOf(tools: Map<string, Tool>): string[] {
    return [...tools.keys()].map((name) => this.#server.prefix + name);
  }
}

function isReadOnly({ annotations }: Tool): boolean {
  return annotations?.readOnlyHint === true;
}

async function readArguments(call: ToolCall, { inputSchema }: Tool): Promise<{ value: JsonObject } | { problem: string }> {
  const given = argumentsOf(call);
  if ("problem" in given) return given;
  const problem = await schemaProblem(inputSchema, given.value);
  return problem === undefined ? { value: given.value as JsonObject } : { problem };
}
