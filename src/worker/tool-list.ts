/** What tools a worker has, as it says itself. */
import { AbstractRuntimeError, type Json } from "../index.ts";
import type { ToolDescription } from "../integrations/tools/index.ts";
import { isObject } from "../integrations/json-object.ts";
import type { Answer, WorkerClient } from "./worker-client.ts";

/** Asked now and then. While the worker is away, it is what it said last. */
export class ToolList {
  readonly #client: WorkerClient;
  #last: { tools: ToolDescription[]; at: number } | undefined;

  constructor(client: WorkerClient) {
    this.#client = client;
  }

  /** @throws TOOL_WORKER_UNREACHABLE, TOOL_WORKER_REFUSED, TOOL_WORKER_INVALID */
  async now(): Promise<ToolDescription[]> {
    if (this.#last && performance.now() - this.#last.at < freshMs) return this.#last.tools;
    const answer = await this.#client.request("GET", "tools");
    if (answer.kind === "unreachable" && this.#last) return this.#last.tools;
    const tools = toolsIn(answer, this.#client.origin);
    this.#last = { tools, at: performance.now() };
    return tools;
  }
}

const freshMs = 60_000;

function toolsIn(answer: Answer, worker: string): ToolDescription[] {
  if (answer.kind === "unreachable")
    throw new AbstractRuntimeError("TOOL_WORKER_UNREACHABLE", { worker, problem: answer.problem });
  if (answer.kind === "refused")
    throw new AbstractRuntimeError("TOOL_WORKER_REFUSED", { status: answer.status, problem: answer.problem });
  if (answer.kind === "invalid") throw new AbstractRuntimeError("TOOL_WORKER_INVALID", { problem: answer.problem });
  const { body } = answer;
  const tools = isObject(body) ? body.tools : undefined;
  if (!Array.isArray(tools) || !tools.every(isDescription))
    throw new AbstractRuntimeError("TOOL_WORKER_INVALID", { problem: "its list of tools is none" });
  return tools as unknown as ToolDescription[];
}

function isDescription(tool: Json): boolean {
  if (!isObject(tool)) return false;
  const { name, description = "", parameters } = tool;
  return typeof name === "string" && typeof description === "string" && isObject(parameters);
}
