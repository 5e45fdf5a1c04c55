/** A workflow that carries out the tool calls it is given, and completes with their results. */
import { complete, createRuntime, defineWorkflow, type Json, type RuntimeOptions, type Store, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import {
  type ToolCall,
  toolCall,
  toolCalls,
  toolEffect,
  type ToolEffectOptions,
  type ToolExecutor,
  type ToolResult,
} from "abstractruntime/tools";

export const batch = defineWorkflow({
  id: "batch",
  vars: type<{ calls: ToolCall[]; results?: ToolResult[] }>(),
  effects: [toolCall],
  entry: "call",
  nodes: {
    call: ({ vars }) => toolCalls(vars.calls, { resultKey: "results", nextNode: "end" }),
    end: ({ vars }) => complete({ results: vars.results ?? [] }),
  },
});

let made = 0;

export function call(name: string, given: Json = {}, callId = `call_${++made}`): ToolCall {
  return { name, callId, arguments: given };
}

export interface Opened {
  store?: Store;
  effect?: ToolEffectOptions;
  runtime?: Partial<RuntimeOptions>;
}

export async function open(executor: ToolExecutor, { store, effect, runtime }: Opened = {}) {
  return createRuntime({
    workflows: [batch],
    effects: [toolEffect(executor, effect)],
    store: store ?? (await memoryStore()),
    ...runtime,
  });
}

/** What calls come to that nobody is asked about. */
export async function carryOut(executor: ToolExecutor, calls: readonly ToolCall[], opened: Opened = {}): Promise<ToolResult[]> {
  await using runtime = await open(executor, opened);
  const { runId } = await runtime.start(batch, { vars: { calls: [...calls] } });
  const output = await runtime.result(runId, { timeoutMs: 100_000 });
  return (output as unknown as { results: ToolResult[] }).results;
}

export async function resultOf(executor: ToolExecutor, asked: ToolCall, opened: Opened = {}): Promise<ToolResult> {
  const [result] = await carryOut(executor, [asked], opened);
  return result as ToolResult;
}
