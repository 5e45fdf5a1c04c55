/** What the tests of model calls have in common: the packages in both versions, and runtimes that ask a model once and record what came. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import {
  type AnyEffect,
  complete,
  createRuntime,
  defineWorkflow,
  type Json,
  type Logger,
  type Run,
  type Runtime,
  type RuntimeOptions,
  type StepPlan,
  type Store,
} from "abstractruntime";
import { llmCall, llmEffect, type LlmEffectOptions, type LlmClient, type OpenAICompatible } from "abstractruntime/llm";
import { memoryStore } from "abstractruntime/memory";
import { type TestClock, testClock } from "abstractruntime/testing";
import { createOpenAICompatible as createOpenAICompatible2 } from "openai-compatible-v2";

/** The model specification that each version of the package speaks. */
export const providers = [
  { version: "@ai-sdk/openai-compatible 2 (v3)", provider: createOpenAICompatible2 as unknown as OpenAICompatible },
  { version: "@ai-sdk/openai-compatible 3 (v4)", provider: createOpenAICompatible as unknown as OpenAICompatible },
];

/** A workflow of one plan, which ends with what came of it. */
export function asking(plan: () => StepPlan) {
  return defineWorkflow({
    id: "asking",
    effects: [llmCall],
    entry: "ask",
    nodes: {
      ask: () => plan() as never,
      end: ({ vars }) => complete({ got: vars.got }),
      failed: ({ error }) => complete({ code: error?.code ?? null, message: error?.message ?? null }),
    },
  });
}

/** Where the result goes, and what failed. */
export const after = { resultKey: "got", nextNode: "end", errorNode: "failed" };

export interface Place extends AsyncDisposable {
  runtime: Runtime;
  store: Store;
  clock: TestClock;
  /** Everything that was logged, as text, with all that errors hold. */
  logged: string[];
  /** Starts a run of the one workflow and drives it until it ends or has to wait, for a retry too. */
  ask(options?: { actorId?: string; sessionId?: string; runId?: string }): Promise<Run>;
  /** Moves time to the next attempt of a run. Answers the milliseconds until it. */
  retry(runId: string): Promise<number>;
}

export async function place(
  client: LlmClient,
  plan: () => StepPlan,
  options: LlmEffectOptions & Partial<RuntimeOptions> = {},
): Promise<Place> {
  const { policy, stream = true, ...rest } = options;
  // A driver waits itself for what is due within a second of the clock that stands still.
  const effect: AnyEffect = llmEffect(client, { policy: { ...policy, backoff: { initialMs: 1_001, jitter: 0 } }, stream });
  const clock = testClock();
  const store = rest.store ?? memoryStore({ clock });
  const logged: string[] = [];
  const log = (message: string, fields?: unknown): void => void logged.push(`${message} ${inspected(fields)}`);
  const logger: Logger = { debug: log, info: log, warn: log, error: log };
  const flow = asking(plan);
  const runtime = await createRuntime({
    workflows: [flow],
    effects: [effect],
    clock,
    scheduler: false,
    log: logger,
    ...rest,
    store,
  });
  return {
    runtime,
    store,
    clock,
    logged,
    async ask(start = {}) {
      const { runId } = await runtime.start(flow, start);
      return runtime.tick(runId);
    },
    async retry(runId) {
      const { wakeAt } = await runtime.get(runId);
      const ms = (wakeAt as number) - clock.now();
      await clock.advance(ms);
      await runtime.tick(runId);
      return ms;
    },
    async [Symbol.asyncDispose]() {
      await runtime.stop();
    },
  };
}

function inspected(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) =>
    part instanceof Error ? { ...part, message: part.message, stack: part.stack, cause: part.cause } : part,
  );
}

export function outputOf(run: Run): Record<string, Json> {
  return run.output as Record<string, Json>;
}
