// Calls that were cut off and may have been carried out, and calls that count against a budget.
import { createRuntime, type EffectContext, type JsonObject, type OnUncertain, type Run, type Store } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { localTools, passthroughTools, toolEffect, type ToolExecutor, withApproval } from "abstractruntime/tools";
import { afterAll, describe, expect, test } from "vitest";
import { refusal, scenario as onEveryStore, type World } from "../../scenarios/harness.ts";
import { batch, call } from "./batch.ts";
import { keptStore } from "../../kept-store.ts";

const scenario = (name: string, play: (world: World) => Promise<void>): void => onEveryStore(name, play, ["memory", "sqlite"]);
const codeOf = (executor: ToolExecutor) => ({ workflows: [batch], effects: [toolEffect(executor)] });
const outputOf = (run: Run): JsonObject[] => (run.output as unknown as { results: JsonObject[] }).results;

describe("a runtime that stops while a tool is at work", () => {
  const stores: Store[] = [];
  afterAll(async () => {
    for (const store of stores) await store.close();
  });

  /** Stops a runtime in the middle of a call, and answers with what the next one makes of it, and the contexts that the tool saw. */
  async function stopped(settings: { speculative?: boolean; onUncertain?: OnUncertain; needsApproval?: boolean }) {
    const inner = memoryStore();
    stores.push(inner);
    const kept = (): Store => keptStore(inner);
    const seen: EffectContext[] = [];
    let begun = (): void => undefined;
    const atWork = new Promise<void>((resolve) => {
      begun = resolve;
    });
    const first = localTools({
      work: {
        ...settings,
        run: (_, context) =>
          new Promise((_resolve, reject) => {
            seen.push(context);
            context.signal.addEventListener("abort", () => reject(new Error("told to stop")));
            begun();
          }),
      },
    });
    const runtime = await createRuntime({ ...codeOf(first), store: kept() });
    const { runId } = await runtime.start(batch, { vars: { calls: [call("work")] } });
    if (settings.needsApproval) {
      while ((await runtime.get(runId)).waits.length === 0) await new Promise((resolve) => setImmediate(resolve));
      await runtime.respond(runId, { decision: "allow", arguments: { by: "letter" } }, { actorId: "boss" });
    }
    await atWork;
    await runtime.stop({ timeoutMs: 0 });
    const second = localTools({
      work: {
        ...settings,
        run: (_, context) => {
          seen.push(context);
          return "done";
        },
      },
    });
    const next = await createRuntime({ ...codeOf(second), store: kept(), scheduler: false });
    const run = await next.tick(runId);
    const look = { next, runId, run, seen };
    return { ...look, [Symbol.asyncDispose]: () => next.stop() };
  }

  test("has the next one call it again where it only reads", async () => {
    await using end = await stopped({ speculative: true });
    expect(outputOf(end.run)).toMatchObject([{ success: true, output: "done" }]);
    expect(end.seen.map(({ signal }) => signal.aborted)).toEqual([true, false]);
  });

  test("leaves a call that may have been carried out, and is not again", async () => {
    await using end = await stopped({});
    expect(outputOf(end.run)).toMatchObject([{ success: false, output: null, error: { code: "EFFECT_UNCERTAIN" } }]);
    expect(end.seen).toHaveLength(1);
  });

  test("leaves one to be called again under its key", async () => {
    await using end = await stopped({ onUncertain: "retry" });
    expect(outputOf(end.run)).toMatchObject([{ success: true, output: "done" }]);
    expect(end.seen[1]?.uncertain).toBe(true);
    expect(end.seen[1]?.idempotencyKey).toBe(end.seen[0]?.idempotencyKey);
  });

  test("leaves one that a person is asked about, who may know what it gave", async () => {
    await using end = await stopped({ onUncertain: "ask" });
    const { next, runId, run } = end;
    expect(run).toMatchObject({ status: "waiting", waits: [{ reason: "user", details: { toolCall: { name: "work" } } }] });
    for (const wrong of ["yes", {}, { retry: false }, { retry: true, result: 1 }, { results: 1 }])
      expect(await refusal(next.respond(runId, wrong))).toMatch(/^ANSWER_INVALID/);
    await next.respond(runId, { result: { found: 3 } });
    expect(outputOf(await next.tick(runId))).toMatchObject([{ success: true, output: { found: 3 }, error: null }]);
    expect(end.seen).toHaveLength(1);
  });

  test("leaves one that was allowed, and stays so with the arguments that it was allowed with", async () => {
    await using end = await stopped({ onUncertain: "ask", needsApproval: true });
    expect(end.run.waits).toMatchObject([
      { waitKey: expect.stringMatching(/^certainty:/), details: { toolCall: { arguments: { by: "letter" } } } },
    ]);
    await end.next.respond(end.runId, { retry: true });
    const approval = { decision: "allow", actorId: "boss", arguments: { by: "letter" } };
    expect(outputOf(await end.next.tick(end.runId))).toMatchObject([{ success: true, output: "done", approval }]);
    expect(end.seen).toHaveLength(2);
  });

  test("or who has it carried out again", async () => {
    await using end = await stopped({ onUncertain: "ask" });
    await end.next.respond(end.runId, { retry: true });
    expect(outputOf(await end.next.tick(end.runId))).toMatchObject([{ success: true, output: "done" }]);
    expect(end.seen[1]?.uncertain).toBe(false);
  });
});

test("a run that is cancelled while a tool is at work tells it, and has no result", async () => {
  let aborted = (_: unknown): void => undefined;
  const told = new Promise((resolve) => {
    aborted = resolve;
  });
  let begun = (): void => undefined;
  const atWork = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const executor = localTools({
    work: {
      run: (_, { signal }) => {
        begun();
        return new Promise((_resolve, reject) => {
          signal.addEventListener("abort", () => {
            aborted(signal.reason);
            reject(signal.reason);
          });
        });
      },
    },
  });
  await using runtime = await createRuntime({ ...codeOf(executor), store: memoryStore() });
  const { runId } = await runtime.start(batch, { vars: { calls: [call("work"), call("work")] } });
  await atWork;
  await runtime.cancel(runId);
  await told;
  expect(await refusal(runtime.result(runId))).toMatch(/^RUN_CANCELLED/);
  expect((await runtime.ledger(runId)).filter(({ kind }) => kind === "effect_completed")).toEqual([]);
});

scenario("a call counts against the budget when it is carried out, once", async (world) => {
  let done = 0;
  const local = localTools({
    work: { run: () => (done += 1) },
    ask: { run: () => (done += 1), needsApproval: true },
  });
  await world.use(codeOf(local));
  const calls = [call("ask", {}, "denied"), call("work"), call("ask", {}, "allowed"), call("work")];
  const runId = await world.start(batch, { vars: { calls }, budget: { calls: 2 } });
  await world.settle();
  const asked = await world.get(runId);
  const approvals = asked.waits.filter(({ waitKey }) => waitKey.startsWith("approval:"));
  expect(approvals).toHaveLength(2);
  expect(done).toBe(2);
  await world.resume(runId, approvals[0]!.waitKey, "deny");
  // There is no room for the other.
  const over = await world.resume(runId, approvals[1]!.waitKey, "allow");
  expect(over).toMatchObject({ status: "waiting", waits: [{ reason: "user" }] });
  expect(done).toBe(2);
  const run = await world.respond(runId, { raise: { calls: 1 } });
  expect(run.status).toBe("completed");
  expect(outputOf(run).map(({ callId, success }) => [callId, success])).toEqual([
    ["denied", false],
    [expect.any(String), true],
    ["allowed", true],
    [expect.any(String), true],
  ]);
  expect(done).toBe(3);
});

scenario("a call that waits elsewhere counts once", async (world) => {
  await world.use(codeOf(withApproval(passthroughTools(), { needsApproval: ["pay"] })));
  const runId = await world.start(batch, { vars: { calls: [call("pay")] }, budget: { calls: 1 } });
  await world.settle();
  await world.respond(runId, "allow");
  const run = await world.respond(runId, { output: "paid" });
  expect(outputOf(run)).toMatchObject([{ success: true, output: "paid", approval: { decision: "allow" } }]);
});
