/** A run that asks for tools, on a clock that stands still until the test moves it. */
import { complete, createRuntime, defineWorkflow, type Runtime, type Store, type } from "../../src/index.ts";
import {
  type ListingExecutor,
  toolCall,
  type ToolCall,
  toolCalls,
  toolEffect,
  type ToolExecutor,
  type ToolResult,
} from "../../src/integrations/tools/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { type TestClock, testClock } from "../../src/testing/index.ts";
import { remoteTools, type RemoteToolsOptions } from "../../src/worker/index.ts";

export const asking = defineWorkflow({
  id: "asking",
  vars: type<{ calls: ToolCall[]; results?: ToolResult[] }>(),
  effects: [toolCall],
  entry: "ask",
  nodes: {
    ask: ({ vars }) => toolCalls(vars.calls, { resultKey: "results", nextNode: "done" }),
    done: ({ vars }) => complete(vars.results ?? []),
  },
});

export interface Asker extends AsyncDisposable {
  runtime: Runtime;
  clock: TestClock;
  store: Store;
}

/** @param change What stands around the executor. @param scheduler Default: runs are driven by `tick` alone. */
export async function asker(
  options: RemoteToolsOptions,
  {
    store,
    clock = testClock(),
    scheduler = false,
    change = (executor) => executor,
  }: { store?: Store; clock?: TestClock; scheduler?: boolean; change?: (executor: ListingExecutor) => ToolExecutor } = {},
): Promise<Asker> {
  const kept = store ?? memoryStore({ clock });
  const runtime = await createRuntime({
    store: kept,
    workflows: [asking],
    effects: [toolEffect(change(remoteTools(options)))],
    scheduler,
    clock,
  });
  return { runtime, clock, store: kept, [Symbol.asyncDispose]: () => runtime.stop() };
}

export const call = (name: string, given: ToolCall["arguments"] = {}, callId = "c1"): ToolCall => ({
  name,
  callId,
  arguments: given,
});

/** Moves the clock to whatever the run waits for next, and drives it there. */
export async function look({ runtime, clock }: Asker, runId = "asks"): Promise<Awaited<ReturnType<Runtime["get"]>>> {
  const { wakeAt } = await runtime.get(runId);
  await clock.advance(Math.max(0, (wakeAt ?? clock.now()) - clock.now()));
  return runtime.tick(runId);
}
