// The metrics, as a receiver of OTLP gets them.
import { expect, test } from "vitest";
import { complete, createRuntime, defineEffect, defineWorkflow, goto, sleep, wait, waitEvent } from "../../../src/index.ts";
import { openTelemetry } from "../../../src/integrations/opentelemetry/index.ts";
import { memoryStore } from "../../../src/stores/memory/index.ts";
import { testClock } from "../../../src/testing/index.ts";
import { startTelemetry } from "./otlp-receiver.ts";

const waits = defineWorkflow({
  id: "waits",
  entry: "go",
  nodes: { go: () => waitEvent("go", { nextNode: "end" }), end: () => complete({}) },
});
const sleeps = defineWorkflow({
  id: "sleeps",
  entry: "go",
  nodes: { go: () => sleep({ days: 7 }, { nextNode: "end" }), end: () => complete({}) },
});
const two = defineWorkflow({ id: "two", entry: "a", nodes: { a: () => goto("b"), b: () => complete({}) } });
const unknown = defineWorkflow({
  id: "unknown",
  entry: "a",
  nodes: { a: () => ({ effect: { type: "nobody_has_it", payload: {} }, nextNode: "b" }) as never, b: () => complete({}) },
});

test("gauges say how things stand in the store when they are collected", async () => {
  await using telemetry = await startTelemetry();
  const clock = testClock();
  const store = memoryStore({ clock });
  await using runtime = await createRuntime({
    store,
    clock,
    workflows: [waits, sleeps, two, unknown],
    queues: { slow: {} },
    scheduler: false,
    telemetry: await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter, stuckAfterMs: 60_000 }),
  });
  const started = async (workflow: typeof waits, options = {}): Promise<string> => {
    const { runId } = await runtime.start(workflow as never, options);
    return runId;
  };
  for (const workflow of [waits, waits, sleeps, two, unknown]) await runtime.tick(await started(workflow as never));
  await clock.advance(50_000);
  await runtime.tick(await started(waits));
  await started(two as never, { queue: "slow" });
  await clock.advance(20_000);
  await started(two as never);
  await clock.advance(5_000);

  const byOf = async (name: string, key: string): Promise<Record<string, number>> =>
    Object.fromEntries((await telemetry.points(name)).map(({ attributes, value }) => [attributes[key] ?? "", value]));
  expect(await byOf("abstractruntime.runs", "abstractruntime.run.status")).toEqual({
    running: 3,
    waiting: 4,
    completed: 1,
    failed: 0,
    cancelled: 0,
  });
  expect(await byOf("abstractruntime.queue.age", "abstractruntime.queue")).toEqual({ "": 5, slow: 25 });
  // The third run that waits for an event has done so for 25 s only.
  expect(await byOf("abstractruntime.waits.stuck", "abstractruntime.wait.reason")).toEqual({
    event: 2,
    until: 1,
    user: 0,
    job: 0,
    subworkflow: 0,
  });
  expect(await byOf("abstractruntime.runs.blocked", "abstractruntime.blocked.by")).toEqual({ code: 1, damage: 0 });
});

test("histograms say how long steps took, how much a commit held, and what models were given and gave", async () => {
  await using telemetry = await startTelemetry();
  const model = defineEffect("llm_call", {
    speculative: true,
    run: (_: unknown, { attempt }): any => {
      // Nobody was asked anything: there was no room in a budget, say.
      if (attempt === 1) return wait({ reason: "user", again: true, prompt: "More?" });
      if (attempt === 2) throw Object.assign(new Error("busy"), { definite: true, code: "LLM_BUSY" });
      return { content: "", model: "m-1", usage: { inputTokens: 12, outputTokens: 7 } };
    },
  });
  const asks = defineWorkflow({
    id: "asks",
    entry: "ask",
    effects: [model],
    nodes: { ask: () => model({ model: "m" }, { nextNode: "end" }), end: () => complete({}) },
  });
  await using runtime = await createRuntime({
    store: memoryStore(),
    telemetry: await openTelemetry({ tracer: telemetry.tracer, meter: telemetry.meter }),
  });
  const { runId } = await runtime.run(asks);
  await runtime.respond(runId, "yes");
  await runtime.result(runId);
  expect((await runtime.run(two)).status).toBe("completed");

  const points = async (name: string) =>
    (await telemetry.points(name)).map(({ attributes, count, sum }) => ({ ...attributes, count, sum }));
  const steps = await points("abstractruntime.step.duration");
  expect(steps).toHaveLength(5);
  expect(steps).toContainEqual({
    "abstractruntime.workflow.id": "asks",
    "abstractruntime.node": "ask",
    "abstractruntime.outcome": "completed",
    count: 1,
    sum: expect.any(Number),
  });
  // The attempt that failed was made again after 200 ms.
  const [asked] = steps.filter(
    (step: any) => step["abstractruntime.node"] === "ask" && step["abstractruntime.outcome"] === "completed",
  );
  expect(asked?.sum).toBeGreaterThan(0.1);

  const [commits] = await points("abstractruntime.commit.records");
  // All records but the first of each run, which creates it.
  const records = (await runtime.list()).runs.reduce((sum, { seq }) => sum + seq, 0);
  expect(commits?.sum).toBe(records);
  expect(commits?.count).toBeGreaterThan(1);

  const call = { "gen_ai.operation.name": "chat", "gen_ai.provider.name": "_OTHER", "gen_ai.request.model": "m" };
  const answered = { ...call, "gen_ai.response.model": "m-1", count: 1 };
  expect(await points("gen_ai.client.token.usage")).toEqual([
    { ...answered, "gen_ai.token.type": "input", sum: 12 },
    { ...answered, "gen_ai.token.type": "output", sum: 7 },
  ]);
  expect(await points("gen_ai.client.operation.duration")).toEqual([
    { ...call, "error.type": "LLM_BUSY", count: 1, sum: expect.any(Number) },
    { ...answered, sum: expect.any(Number) },
  ]);
});
