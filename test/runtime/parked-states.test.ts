// States of large parked runs stay in memory, within a size, and never where another worker went on.
import { describe, expect, test } from "vitest";
import {
  askUser,
  complete,
  createRuntime,
  defineWorkflow,
  type Runtime,
  type SchedulerOptions,
  type Store,
} from "../../src/index.ts";
import type { Loaded } from "../../src/kernel/transition.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { type TestClock, testClock } from "../../src/testing/index.ts";

/** Asks `vars.turns` times, and notes each answer behind a long text. */
const chat = defineWorkflow({
  id: "chat",
  entry: "listen",
  nodes: {
    listen: ({ vars }) => {
      if (vars.said !== undefined) vars.heard.push(vars.said.text);
      return vars.heard.length === vars.turns
        ? complete({ heard: vars.heard })
        : askUser({ prompt: "?" }, { resultKey: "said", nextNode: "listen" });
    },
  },
});
const kilobyte = 1_024;
const vars = { turns: 3, heard: [], text: "x".repeat(100 * kilobyte) };

interface Place extends AsyncDisposable {
  runtime: Runtime;
  clock: TestClock;
  /** What claims gave, in order. */
  claimed: Loaded[];
  answer(runId: string, text: string): Promise<void>;
}

async function open(store: Store, options: SchedulerOptions = {}): Promise<Place> {
  const clock = testClock();
  const claimed: Loaded[] = [];
  const claim: Store["claim"] = async (...args) => {
    const given = await store.claim(...args);
    claimed.push(...given);
    return given;
  };
  const seen = new Proxy(store, {
    get: (_, name) => {
      if (name === "claim") return claim;
      if (name === "close") return async () => undefined;
      const value = store[name as keyof Store];
      return typeof value === "function" ? value.bind(store) : value;
    },
  });
  const runtime = await createRuntime({ store: seen, workflows: [chat], clock, scheduler: options });
  const answer = async (runId: string, text: string): Promise<void> => {
    await runtime.respond(runId, text);
    await clock.advance(2_000);
  };
  return { runtime, clock, claimed, answer, [Symbol.asyncDispose]: () => runtime.stop() };
}

function isBare({ checkpoint, tail }: Loaded): boolean {
  return checkpoint === undefined && tail.length === 0;
}

test("a large run goes on from the state it parked with, and is what its ledger says", async () => {
  await using at = await open(memoryStore());
  const { runId } = await at.runtime.run(chat, { vars });
  for (const text of ["one", "two", "three"]) await at.answer(runId, text);
  expect(at.claimed.map(isBare)).toEqual([true, true, true]);
  expect((await at.runtime.get(runId)).output).toEqual({ heard: ["one", "two", "three"] });
  expect(await at.runtime.verify(runId)).toMatchObject({ ok: true });
});

test("a small run is loaded", async () => {
  await using at = await open(memoryStore());
  const { runId } = await at.runtime.run(chat, { vars: { ...vars, text: "" } });
  await at.answer(runId, "one");
  expect(at.claimed.map(isBare)).toEqual([false]);
});

test("a run that went on elsewhere is loaded as it stands there", async () => {
  const store = memoryStore();
  await using here = await open(store);
  const { runId } = await here.runtime.run(chat, { vars });
  {
    await using elsewhere = await open(store);
    await elsewhere.answer(runId, "one");
  }
  expect((await here.runtime.get(runId)).vars.heard).toEqual(["one"]);
  await here.answer(runId, "two");
  await here.answer(runId, "three");
  expect(here.claimed.map(isBare)).toEqual([false, true]);
  expect((await here.runtime.get(runId)).output).toEqual({ heard: ["one", "two", "three"] });
});

test("who waits for a result reads the state when the run has moved, and not again and again", async () => {
  const store = memoryStore();
  await using here = await open(store, { stateCacheSize: 0 });
  const { runId } = await here.runtime.run(chat, { vars: { ...vars, turns: 1 } });
  const load = store.load.bind(store);
  const read: boolean[] = [];
  store.load = async (...args) => {
    const loaded = await load(...args);
    if (loaded) read.push(!isBare(loaded));
    return loaded;
  };
  const result = here.runtime.result(runId);
  await here.clock.advance(10_000);
  expect(read.length).toBeGreaterThan(5);
  expect(read.filter(Boolean)).toHaveLength(1);
  await using elsewhere = await open(store);
  await elsewhere.answer(runId, "one");
  await here.clock.advance(2_000);
  expect(await result).toEqual({ heard: ["one"] });
});

describe("the states kept", () => {
  test("are no larger together than is allowed: the oldest gives way", async () => {
    await using at = await open(memoryStore(), { stateCacheSize: 250 * kilobyte });
    const runIds = [];
    for (const _ of [1, 2, 3]) runIds.push((await at.runtime.run(chat, { vars })).runId);
    for (const runId of runIds.toReversed()) await at.answer(runId, "one");
    expect(at.claimed.map(isBare)).toEqual([true, true, false]);
  });

  test("are none where that is asked for", async () => {
    await using at = await open(memoryStore(), { stateCacheSize: 0 });
    const { runId } = await at.runtime.run(chat, { vars });
    await at.answer(runId, "one");
    expect(at.claimed.map(isBare)).toEqual([false]);
    await expect(open(memoryStore(), { stateCacheSize: -1 })).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("are not changed by who was shown them", async () => {
    await using at = await open(memoryStore());
    const run = await at.runtime.run(chat, { vars });
    (run.vars.heard as string[]).push("never said");
    ((await at.runtime.get(run.runId)).vars.heard as string[]).push("nor this");
    await at.answer(run.runId, "one");
    expect((await at.runtime.get(run.runId)).vars.heard).toEqual(["one"]);
    expect(await at.runtime.verify(run.runId)).toMatchObject({ ok: true });
  });

  test("one that gives way while its run is being claimed is loaded after all", async () => {
    const store = memoryStore();
    await using at = await open(store, { stateCacheSize: 150 * kilobyte });
    const { runId } = await at.runtime.run(chat, { vars });
    const claim = store.claim.bind(store);
    store.claim = async (worker, options) => {
      const given = await claim(worker, options);
      store.claim = claim;
      // Another run parks meanwhile, and is larger.
      if (given.length > 0) await at.runtime.run(chat, { vars });
      return given;
    };
    await at.answer(runId, "one");
    expect(at.claimed.map(isBare)).toEqual([true]);
    expect((await at.runtime.get(runId)).vars.heard).toEqual(["one"]);
  });
});
