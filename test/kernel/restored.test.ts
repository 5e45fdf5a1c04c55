// A run that begins with a state made elsewhere: what is carried over, and that it is a run like any other.
import { expect, test } from "vitest";
import { defaultLimits } from "../../src/kernel/execute.ts";
import { beginRestored } from "../../src/kernel/begin.ts";
import { fold } from "../../src/kernel/fold.ts";
import { decodeRecord } from "../../src/kernel/record.ts";
import { decodeState, encodeState, plainState, type RunState } from "../../src/kernel/run.ts";
import { all, askUser, complete, createRuntime, defineEffect, defineWorkflow, goto, wait } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { testClock, testIds } from "../../src/testing/index.ts";

const keys: string[] = [];
const note = defineEffect("note", {
  run: (_, { idempotencyKey }) => {
    keys.push(idempotencyKey);
    return "noted";
  },
});
const workflow = defineWorkflow({
  id: "restored",
  effects: [note],
  entry: "ask",
  nodes: {
    ask: ({ vars }) => {
      vars.asked = true;
      return all([askUser({ prompt: "Well?" }), note({ messages: vars.messages })], { resultKey: "answers", nextNode: "end" });
    },
    end: ({ vars }) => (vars.again ? goto("ask") : complete(vars)),
  },
});

async function open() {
  const clock = testClock();
  const store = memoryStore({ clock });
  return { clock, store, runtime: await createRuntime({ workflows: [workflow], store, clock, scheduler: false }) };
}

async function stateOf(runtime: Awaited<ReturnType<typeof open>>["runtime"], runId: string): Promise<RunState> {
  let state: RunState | undefined;
  for (const stored of await runtime.store.records(runId, 0, 1_000)) state = fold(state, decodeRecord(runId, stored));
  return state as RunState;
}

test("it goes on from the waits that it brings along, and verifies", async () => {
  const world = await open();
  const { runtime, store, clock } = world;
  const first = await runtime.run(workflow, { vars: { messages: ["a", "b"] }, tags: ["x"], sessionId: "s" });
  expect(first.status).toBe("waiting");
  const origin = { kind: "fork" as const, runId: first.runId, seq: first.seq, hash: "0".repeat(64) };
  const plain = plainState(await stateOf(runtime, first.runId));
  expect(plain).not.toHaveProperty("head");
  const begun = beginRestored(
    { runId: "copy", state: plain, origin, actorId: "ada", now: clock.now() },
    testIds(3),
    defaultLimits,
  );
  expect(begun.waits).toMatchObject([{ reason: "user" }]);
  await store.create([begun]);
  const copy = await runtime.get("copy");
  expect(copy).toMatchObject({
    status: "waiting",
    vars: first.vars,
    tags: ["x"],
    sessionId: "s",
    actorId: "ada",
    origin,
    seq: 0,
  });
  expect(await runtime.verify("copy")).toMatchObject({ ok: true, records: 1 });
  await runtime.respond("copy", "yes");
  expect(await runtime.tick("copy")).toMatchObject({ status: "completed", output: { answers: [{ text: "yes" }, "noted"] } });
  expect(await runtime.verify("copy")).toMatchObject({ ok: true });
  // The origin knows nothing of it.
  expect((await runtime.get(first.runId)).status).toBe("waiting");
  await runtime.stop();
});

test("its first record is folded as often as anybody likes, and a checkpoint holds it", async () => {
  const world = await open();
  const { runtime } = world;
  const { runId } = await runtime.run(workflow, { vars: { messages: ["a"] } });
  const state = await stateOf(runtime, runId);
  const origin = { kind: "fork" as const, runId, seq: state.seq, hash: state.head };
  const { record, state: begun } = beginRestored(
    { runId: "copy", state: plainState(state), origin, now: 5 },
    testIds(3),
    defaultLimits,
  );
  const decoded = decodeRecord("copy", record);
  const [one, other] = [fold(undefined, decoded), fold(undefined, decoded)];
  for (const effect of one.open.values()) effect.attempt = 99;
  expect(other).toEqual(begun);
  expect(decodeState(encodeState(other))).toEqual(other);
  expect(other.vars).toEqual(state.vars);
  await runtime.stop();
});

test("a payload that pointed into the vars is written out", async () => {
  const clock = testClock();
  const talk = defineEffect("talk", { run: (_: { messages: string[] }) => wait({ reason: "job" }) });
  const talking = defineWorkflow({
    id: "talk",
    entry: "say",
    effects: [talk],
    nodes: { say: ({ vars }) => talk({ messages: vars.messages }, { resultKey: "said", nextNode: "say" }) },
  });
  const store = memoryStore({ clock });
  const runtime = await createRuntime({ workflows: [talking], store, clock, scheduler: false });
  const messages = ["a long message".repeat(50)];
  const { runId } = await runtime.run(talking, { vars: { messages } });
  const state = await stateOf(runtime, runId);
  const [effect] = [...state.open.values()];
  expect(effect?.refs).toHaveLength(1);
  expect(plainState(state)).toMatchObject({ open: [{ payload: { messages } }] });
  expect((plainState(state).open as object[])[0]).not.toHaveProperty("refs");
  await runtime.stop();
});
