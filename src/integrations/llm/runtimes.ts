/**
 * The three ways to run an agent. They take what `createRuntime` takes, and differ in where models and tools are: the workflows are
 * the same, and a run may go on under another of them.
 */
import { type AnyEffect, createRuntime, type Runtime, type RuntimeOptions } from "../../index.ts";
import { refuse } from "../options.ts";
import { passthroughTools, type ToolEffectOptions, type ToolExecutor, toolEffect } from "../tools/index.ts";
import type { LlmClient } from "./client.ts";
import { type LlmEffectOptions, llmEffect } from "./llm-effect.ts";
import { isModel, type LocalLlmOptions, localLlm } from "./local.ts";
import type { LanguageModel } from "./model.ts";
import { RemoteLlm, type RemoteLlmOptions, remoteLlm } from "./remote.ts";

interface ModeOptions<Llm> extends RuntimeOptions {
  llm: Llm | LlmClient;
  /** Settings of the `llm_call` effect. */
  llmEffect?: LlmEffectOptions;
  /** Settings of the `tool_call` effect. */
  toolEffect?: ToolEffectOptions;
}

export interface LocalRuntimeOptions extends ModeOptions<LanguageModel | LocalLlmOptions> {
  /** Default: none, and a run that asks for a tool is blocked until a process has it. */
  tools?: ToolExecutor;
}

export interface RemoteRuntimeOptions extends ModeOptions<RemoteLlmOptions> {
  /** Default: `passthroughTools()`, whose calls wait for whoever carries them out. */
  tools?: ToolExecutor;
}

export interface HybridRuntimeOptions extends ModeOptions<RemoteLlmOptions> {
  /** Default: as for `createLocalRuntime`. */
  tools?: ToolExecutor;
}

/** Models and tools of this process. @throws As `createRuntime`, `localLlm`, `llmEffect` and `toolEffect`. */
export async function createLocalRuntime({ llm, ...options }: LocalRuntimeOptions): Promise<Runtime> {
  const client = isClient(llm) ? llm : localLlm(isModel(llm) ? { models: llm } : (llm as LocalLlmOptions));
  return open(client, options);
}

/** A model behind a server; tools are nobody's business here, unless `tools` says whose. @throws As `createLocalRuntime`. */
export async function createRemoteRuntime({ llm, tools, ...options }: RemoteRuntimeOptions): Promise<Runtime> {
  return open(isClient(llm) ? llm : remoteLlm(llm as RemoteLlmOptions), { ...options, tools: tools ?? passthroughTools() });
}

/** A model behind a server, and tools of this process. @throws As `createLocalRuntime`. */
export async function createHybridRuntime({ llm, ...options }: HybridRuntimeOptions): Promise<Runtime> {
  return open(isClient(llm) ? llm : remoteLlm(llm as RemoteLlmOptions), options);
}

type Opened = Omit<ModeOptions<never>, "llm"> & { tools?: ToolExecutor };

async function open(
  client: LlmClient,
  { llmEffect: model, toolEffect: tool, tools, effects = [], ...options }: Opened,
): Promise<Runtime> {
  const made: AnyEffect[] = [llmEffect(client, model)];
  if (tools) made.push(toolEffect(tools, tool));
  // A package that is missing is this process's fault, and no run is to fail for it.
  if (client instanceof RemoteLlm) await client.ready();
  return createRuntime({ ...options, effects: [...made, ...effects] });
}

function isClient(llm: unknown): llm is LlmClient {
  if (typeof llm !== "object" || llm === null)
    refuse("llm", "llm is a language model, what localLlm() or remoteLlm() takes, or a client");
  return typeof (llm as Partial<LlmClient>).generate === "function";
}
