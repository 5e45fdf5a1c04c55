/** Replays of changed code: exactly what came out differently is told, nothing is stored, and nothing is called. */
import {
  all,
  any,
  artifactRef,
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  definite,
  goto,
  permanent,
  type ReplayOptions,
  type Runtime,
  sleep,
  type Store,
  waitEvent,
  waitUntil,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { testClock, testIds } from "abstractruntime/testing";
import { afterEach, expect, test } from "vitest";
import { z } from "zod";
import { edits } from "../../src/runtime/time-travel/edits.ts";

const opened: Runtime[] = [];
afterEach(async () => {
  for (const runtime of opened.splice(0)) await runtime.stop();
});

const calls: unknown[] = [];
const model = defineEffect("llm_call", {
  policy: { maxAttempts: 3, backoff: { initialMs: 10 } },
  run: async (payload: any, { attempt }): Promise<any> => {
    calls.push(payload);
    if (payload.prompt === "flaky" && attempt < 3) throw definite(new Error("overloaded"));
    if (payload.prompt === "broken") throw permanent(new Error("no such model"));
    return `answer to ${payload.prompt}`;
  },
});

type Changes = Partial<Record<"draft" | "check" | "ask" | "publish", (context: any) => any>> & {
  extra?: Record<string, (context: any) => any>;
};

/** The workflow of yesterday, or one in which nodes are other ones. */
function letter({ extra = {}, ...changed }: Changes = {}) {
  return defineWorkflow({
    id: "letter",
    entry: "draft",
    effects: [model],
    nodes: {
      draft: ({ vars }: any) => {
        vars.tries = (vars.tries ?? 0) + 1;
        return model({ prompt: `about ${vars.topic}` }, { resultKey: "text", nextNode: "check" });
      },
      check: ({ vars }: any) => model({ prompt: `check ${vars.text}` }, { resultKey: "verdict", nextNode: "ask" }),
      ask: ({ vars }: any) => askUser({ prompt: `Publish ${vars.text}?` }, { resultKey: "answer", nextNode: "publish" }),
      publish: ({ vars }: any) => complete({ text: vars.text, answer: vars.answer.text }),
      ...changed,
      ...extra,
    } as any,
  } as any) as any;
}

async function open(workflows: any[] = [letter()]) {
  calls.length = 0;
  const clock = testClock();
  const store = memoryStore({ clock });
  const runtime = await createRuntime({ store, clock, ids: testIds(5), workflows, scheduler: false });
  opened.push(runtime);
  /** Drives over everything that passes with time. */
  const drive = async (runId: string): Promise<void> => {
    for (let i = 0; i < 50; i++) {
      let driven = false;
      const ticking = runtime.tick(runId).finally(() => (driven = true));
      while (!driven) await clock.advance(5);
      const run = await ticking;
      if (run.wakeAt === null) return;
      if (run.wakeAt > clock.now()) await clock.advance(run.wakeAt - clock.now());
    }
  };
  return { runtime, clock, store, drive };
}

/** A letter that was written and published, on `runtime`. */
async function written({ runtime, drive }: Awaited<ReturnType<typeof open>>, topic = "rain"): Promise<string> {
  const { runId } = await runtime.start("letter", { vars: { topic } });
  await drive(runId);
  await runtime.respond(runId, "yes");
  await drive(runId);
  calls.length = 0;
  return runId;
}

test("the code that made a run replays it: no difference, no call, nothing written", async () => {
  const world = await open();
  const runId = await written(world);
  const before = JSON.stringify([(await world.store.query({})).runs, await world.store.records(runId, 0, 100)]);
  const writes: string[] = [];
  for (const method of ["create", "commit", "deliver", "claim", "release", "saveSnapshot"] as const satisfies (keyof Store)[]) {
    const inner = world.store[method] as (...args: any[]) => any;
    (world.store as any)[method] = (...args: any[]) => {
      writes.push(method);
      return inner.apply(world.store, args);
    };
  }
  const replay = await world.runtime.replay(runId);
  expect(replay).toMatchObject({ end: "ended", steps: 4, differences: [] });
  const { wakeAt: _, ...run } = await world.runtime.get(runId);
  expect(replay.run).toMatchObject({ status: "completed", output: run.output, vars: run.vars, step: run.step });
  expect(calls).toEqual([]);
  expect(writes).toEqual([]);
  expect(JSON.stringify([(await world.store.query({})).runs, await world.store.records(runId, 0, 100)])).toBe(before);
});

test("a node that requests with another payload gives that difference alone, and goes on with what was recorded", async () => {
  const world = await open();
  const runId = await written(world);
  const changed = letter({
    check: ({ vars }) => model({ prompt: `check twice: ${vars.text}` }, { resultKey: "verdict", nextNode: "ask" }),
  });
  const replay = await world.runtime.replay(runId, { workflow: changed });
  expect(replay.differences).toEqual([
    {
      kind: "payload",
      step: 2,
      node: "check",
      effectType: "llm_call",
      recorded: { prompt: "check answer to about rain" },
      replayed: { prompt: "check twice: answer to about rain" },
    },
  ]);
  expect(replay).toMatchObject({ end: "ended", run: { output: { text: "answer to about rain", answer: "yes" } } });
  expect(calls).toEqual([]);
});

test("a node that changes the vars otherwise, and an output that comes of it", async () => {
  const world = await open();
  const runId = await written(world);
  const changed = letter({
    publish: ({ vars }) => {
      vars.published = true;
      return complete({ text: vars.text, answer: vars.answer.text, tries: vars.tries });
    },
  });
  const { differences } = await world.runtime.replay(runId, { workflow: changed });
  const output = { text: "answer to about rain", answer: "yes" };
  expect(differences).toEqual([
    {
      kind: "vars",
      step: 4,
      node: "publish",
      recorded: [],
      replayed: [{ op: "add", path: "/published", value: true }],
    },
    {
      kind: "output",
      recorded: { status: "completed", output },
      replayed: { status: "completed", output: { ...output, tries: 1 } },
    },
  ]);
});

test("a node that is put between, one that is left out, and one that takes another's place", async () => {
  const world = await open();
  const runId = await written(world);
  const between = letter({
    check: () => goto("think"),
    extra: { think: ({ vars }) => model({ prompt: `check ${vars.text}` }, { resultKey: "verdict", nextNode: "ask" }) },
  });
  const first = await world.runtime.replay(runId, { workflow: between });
  // What was recorded of `check` is not taken for what `think` asks.
  expect(first.end).toBe("unrecorded");
  expect(first.differences.map(({ kind }) => kind)).toEqual(["plan", "unrecorded", "node"]);
  expect(first.differences.at(-1)).toEqual({ kind: "node", step: 3, recorded: "ask", replayed: "think" });
  const pure = letter({
    draft: ({ vars }) => {
      vars.tries = (vars.tries ?? 0) + 1;
      return model({ prompt: `about ${vars.topic}` }, { resultKey: "text", nextNode: "trim" });
    },
    extra: { trim: () => goto("check") },
  });
  expect((await world.runtime.replay(runId, { workflow: pure })).differences).toEqual([
    {
      kind: "plan",
      step: 1,
      node: "draft",
      recorded: { effect: "llm_call", resultKey: "text", nextNode: "check" },
      replayed: { effect: "llm_call", resultKey: "text", nextNode: "trim" },
    },
    { kind: "node", step: 2, replayed: "trim" },
  ]);
  const without = letter({
    draft: ({ vars }) => {
      vars.tries = (vars.tries ?? 0) + 1;
      return model({ prompt: `about ${vars.topic}` }, { resultKey: "text", nextNode: "ask" });
    },
  });
  const short = await world.runtime.replay(runId, { workflow: without });
  expect(short.differences).toEqual([
    expect.objectContaining({ kind: "plan", node: "draft" }),
    { kind: "node", step: 2, recorded: "check" },
    { kind: "unused", step: 2, node: "check", effectType: "llm_call" },
  ]);
  expect(short.run.status).toBe("completed");
});

test("another model: a function in the effect's place, whose results are compared with those of then", async () => {
  const world = await open();
  const runId = await written(world);
  const asked: unknown[] = [];
  const keys: string[] = [];
  const replay = await world.runtime.replay(runId, {
    effects: {
      llm_call: (payload: any, { nodeId, idempotencyKey }) => {
        asked.push([nodeId, payload.prompt]);
        keys.push(idempotencyKey);
        return nodeId === "draft" ? "better" : "answer to check answer to about rain";
      },
    },
  });
  expect(asked).toEqual([
    ["draft", "about rain"],
    ["check", "check better"],
  ]);
  expect(replay.differences).toEqual([
    {
      kind: "result",
      step: 1,
      node: "draft",
      effectType: "llm_call",
      recorded: { result: "answer to about rain" },
      replayed: { result: "better" },
    },
    expect.objectContaining({ kind: "payload", node: "check", replayed: { prompt: "check better" } }),
    expect.objectContaining({ kind: "payload", node: "ask", effectType: "ask_user" }),
    expect.objectContaining({ kind: "output", replayed: { status: "completed", output: { text: "better", answer: "yes" } } }),
  ]);
  expect(calls).toEqual([]);
  // An effect of the replay never has the key of one that was carried out.
  const recorded = new Set((await world.runtime.ledger(runId)).map(({ hash }) => hash));
  expect(keys).toHaveLength(2);
  expect(keys.some((key) => recorded.has(key))).toBe(false);
});

test("live: the handler is called, once, under a key of its own; others are played back", async () => {
  const world = await open();
  const runId = await written(world);
  const replay = await world.runtime.replay(runId, { effects: { llm_call: "live" } });
  expect(calls).toEqual([{ prompt: "about rain" }, { prompt: "check answer to about rain" }]);
  expect(replay.differences).toEqual([]);
  expect(replay.end).toBe("ended");
});

test("live: what a handler streams is shown to nobody, and what it spends is nobody's budget", async () => {
  const talking = defineEffect("llm_call", {
    run: async (_: unknown, { stream, budget }): Promise<string> => {
      stream({ type: "text", text: "hello" });
      if (await budget.reserve({ calls: 1 })) return "too dear";
      return "hello";
    },
  });
  const talk = defineWorkflow({
    id: "talk",
    entry: "say",
    effects: [talking],
    nodes: {
      say: () => talking({}, { resultKey: "said", nextNode: "end" }),
      end: ({ vars }) => complete(vars.said as string),
    },
  });
  const world = await open([talk]);
  const { runId } = await world.runtime.start(talk, { budget: { calls: 1 } });
  await world.drive(runId);
  const spent = await world.runtime.budgets(runId);
  // In another process than the one that drove the run, as when a new model is tried.
  const other = await createRuntime({ store: world.store, clock: world.clock, workflows: [talk], scheduler: false });
  opened.push(other);
  expect(await other.replay(runId, { effects: { llm_call: "live" } })).toMatchObject({ end: "ended", differences: [] });
  expect(await world.runtime.budgets(runId)).toEqual(spent);
});

test("a function that throws fails the effect, and the answer of a person may be another one", async () => {
  const world = await open();
  const runId = await written(world);
  const failed = await world.runtime.replay(runId, {
    effects: {
      llm_call: () => {
        throw new Error("no credit");
      },
    },
  });
  expect(failed.run.status).toBe("failed");
  expect(failed.run.error?.message).toContain("no credit");
  expect(failed.differences[0]).toMatchObject({ kind: "result", replayed: { error: { name: "Error", message: "no credit" } } });
  const no = await world.runtime.replay(runId, { effects: { ask_user: () => ({ text: "no" }) } });
  expect(no.differences).toEqual([
    expect.objectContaining({
      kind: "result",
      node: "ask",
      recorded: { result: { text: "yes" } },
      replayed: { result: { text: "no" } },
    }),
    expect.objectContaining({
      kind: "output",
      replayed: { status: "completed", output: { text: "answer to about rain", answer: "no" } },
    }),
  ]);
});

test("an effect that nothing is recorded of stops the replay, or is called when that is asked for", async () => {
  const world = await open();
  const runId = await written(world);
  const more = letter({
    publish: ({ vars }: any) =>
      vars.title ? complete({ title: vars.title }) : model({ prompt: "a title" }, { resultKey: "title", nextNode: "publish" }),
  });
  const stopped = await world.runtime.replay(runId, { workflow: more });
  expect(stopped).toMatchObject({ end: "unrecorded", run: { status: "running", node: "publish" } });
  expect(stopped.differences).toEqual([
    expect.objectContaining({ kind: "plan", node: "publish", recorded: { ends: "run_completed" } }),
    { kind: "unrecorded", step: 4, node: "publish", effectType: "llm_call", payload: { prompt: "a title" } },
  ]);
  expect(calls).toEqual([]);
  const live = await world.runtime.replay(runId, { workflow: more, effects: { llm_call: "live" } });
  expect(live).toMatchObject({ end: "ended", run: { output: { title: "answer to a title" } } });
  expect(live.differences.find(({ kind }) => kind === "result")).toEqual({
    kind: "result",
    step: 4,
    node: "publish",
    effectType: "llm_call",
    replayed: { result: "answer to a title" },
  });
});

test("failures, retries and what they led to are played back; another errorNode takes them elsewhere", async () => {
  const flow = (target: string) =>
    defineWorkflow({
      id: "flow",
      entry: "flaky",
      effects: [model],
      nodes: {
        flaky: () => model({ prompt: "flaky" }, { resultKey: "flaky", nextNode: "broken" }),
        broken: () => model({ prompt: "broken" }, { resultKey: "broken", nextNode: "done", errorNode: target } as any),
        mended: ({ vars, error }: any) => complete({ flaky: vars.flaky, error: error.message }),
        other: ({ error }: any) => complete({ other: error.message }),
        done: () => complete(),
      },
    } as any) as any;
  const world = await open([flow("mended")]);
  const { runId } = await world.runtime.start("flow");
  await world.drive(runId);
  expect(await world.runtime.result(runId)).toEqual({ flaky: "answer to flaky", error: "no such model" });
  calls.length = 0;
  expect(await world.runtime.replay(runId)).toMatchObject({ end: "ended", differences: [] });
  const { differences } = await world.runtime.replay(runId, { workflow: flow("other") });
  expect(differences.map(({ kind }) => kind)).toEqual(["plan", "node", "output"]);
  expect(differences[1]).toEqual({ kind: "node", step: 3, recorded: "mended", replayed: "other" });
  expect(differences[2]).toMatchObject({ replayed: { output: { other: "no such model" } } });
  expect(calls).toEqual([]);
});

test("groups: members are known by their order, and the first of them is the one that was first", async () => {
  const group = (last: string) =>
    defineWorkflow({
      id: "group",
      entry: "both",
      effects: [model],
      nodes: {
        both: () => all([model({ prompt: "one" }), model({ prompt: last })], { resultKey: "both", nextNode: "race" }),
        race: () => any([waitEvent("slow"), waitEvent("quick"), sleep(60_000)], { resultKey: "first", nextNode: "done" }),
        done: ({ vars }: any) => complete({ both: vars.both, first: vars.first }),
      },
    } as any) as any;
  const world = await open([group("two")]);
  const { runId } = await world.runtime.start("group");
  let driven = false;
  const ticking = world.runtime.tick(runId).finally(() => (driven = true));
  while (!driven) await world.clock.advance(1);
  await ticking;
  await world.runtime.signal(runId, "quick", "q");
  await world.runtime.tick(runId);
  expect((await world.runtime.get(runId)).output).toMatchObject({ first: { index: 1, result: "q" } });
  expect((await world.runtime.replay(runId)).differences).toEqual([]);
  expect((await world.runtime.replay(runId, { workflow: group("three") })).differences).toEqual([
    expect.objectContaining({ kind: "payload", recorded: { prompt: "two" }, replayed: { prompt: "three" } }),
  ]);
});

test("time is that of the recording: now, moments, deadlines", async () => {
  const slow = defineWorkflow({
    id: "slow",
    entry: "begin",
    nodes: {
      begin: ({ vars, now }: any) => {
        vars.begun = now;
        return waitUntil(new Date(now + 86_400_000), { resultKey: "woke", nextNode: "wait" });
      },
      wait: () => waitEvent({ key: "never", timeoutMs: 5_000 }, { resultKey: "event", nextNode: "done", timeoutNode: "late" }),
      late: ({ vars, now }: any) => complete({ took: now - vars.begun, woke: vars.woke }),
      done: () => complete(),
    },
  } as any) as any;
  const world = await open([slow]);
  const { runId } = await world.runtime.start("slow");
  await world.drive(runId);
  expect((await world.runtime.get(runId)).output).toMatchObject({ took: 86_405_000 });
  await world.clock.advance(1_000_000);
  expect(await world.runtime.replay(runId)).toMatchObject({
    end: "ended",
    differences: [],
    run: { output: { took: 86_405_000 } },
  });
});

test("a run under way is replayed as far as it has come", async () => {
  const world = await open();
  const { runId } = await world.runtime.start("letter", { vars: { topic: "snow" } });
  await world.drive(runId);
  const replay = await world.runtime.replay(runId);
  expect(replay).toMatchObject({ end: "recorded", differences: [], run: { status: "waiting", node: "ask" } });
  // As far as it had come, and then another way.
  const early = letter({ ask: ({ vars }) => complete({ text: vars.text }) });
  expect((await world.runtime.replay(runId, { workflow: early })).differences).toEqual([
    expect.objectContaining({ kind: "plan", node: "ask" }),
    {
      kind: "output",
      recorded: { status: "waiting" },
      replayed: { status: "completed", output: { text: "answer to about snow" } },
    },
  ]);
});

test("from a record in the middle, with other vars", async () => {
  const world = await open();
  const runId = await written(world);
  const ledger = await world.runtime.ledger(runId);
  const fromSeq = ledger.findIndex(({ kind }) => kind === "effect_completed");
  const replay = await world.runtime.replay(runId, { fromSeq, vars: (vars: any) => ({ ...vars, text: "mine" }) });
  expect(replay.steps).toBe(3);
  expect(replay.differences.map(({ kind }) => kind)).toEqual(["payload", "payload", "output"]);
  expect(replay.run.output).toEqual({ text: "mine", answer: "yes" });
  expect((await world.runtime.replay(runId, { vars: { topic: "sun" } })).differences[0]).toMatchObject({
    kind: "payload",
    replayed: { prompt: "about sun" },
  });
});

test("a fork is replayed like any run, and so is a run that was cancelled, or retried", async () => {
  const world = await open();
  const runId = await written(world);
  const fork = await world.runtime.fork(runId, { open: "restart" });
  await world.drive(fork.runId);
  expect(await world.runtime.replay(fork.runId)).toMatchObject({ end: "ended", differences: [], steps: 1 });
  const cancelled = await world.runtime.start("letter", { vars: { topic: "hail" } });
  await world.drive(cancelled.runId);
  await world.runtime.cancel(cancelled.runId, { reason: "enough" });
  await world.drive(cancelled.runId);
  expect(await world.runtime.replay(cancelled.runId)).toMatchObject({
    differences: [],
    run: { status: "cancelled", cancelling: { reason: "enough" } },
  });
});

test("large texts stand for themselves, as they did then", async () => {
  const large = "x".repeat(300_000);
  const wide = defineWorkflow({
    id: "wide",
    entry: "write",
    effects: [model],
    nodes: {
      write: ({ vars }: any) => {
        vars.text = large;
        return model({ prompt: "y".repeat(300_000) }, { resultKey: "answer", nextNode: "done" });
      },
      done: ({ vars }: any) => complete({ text: vars.text, answer: vars.answer }),
    },
  } as any) as any;
  const world = await open([wide]);
  const { runId } = await world.runtime.start("wide");
  await world.drive(runId);
  const { output } = await world.runtime.get(runId);
  expect(Object.keys((output as any).text)).toContain("$artifact");
  const { artifacts } = await world.store.artifacts({});
  expect(artifacts).toHaveLength(2);
  const replay = await world.runtime.replay(runId, { effects: { llm_call: "live" } });
  expect(replay).toMatchObject({ end: "ended", differences: [], run: { output } });
  expect((await world.store.artifacts({})).artifacts).toEqual(artifacts);
});

test("changed code that goes round for ever is stopped", async () => {
  const world = await open();
  const runId = await written(world);
  const round = letter({ publish: () => goto("publish") });
  const replay = await world.runtime.replay(runId, { workflow: round, maxSteps: 2_500 });
  expect(replay).toMatchObject({ end: "maxSteps", steps: 2_500 });
});

test("a code of another version migrates the run first, or is refused", async () => {
  const versioned = (version: number, migrations?: any) =>
    defineWorkflow({
      id: "versioned",
      version,
      ...(migrations ? { migrations } : {}),
      vars: z.object({ [version === 1 ? "name" : "names"]: version === 1 ? z.string() : z.array(z.string()) }) as any,
      entry: "one",
      nodes: {
        one: () => goto("two"),
        two: ({ vars }: any) => complete({ names: vars.names ?? [vars.name] }),
      },
    } as any) as any;
  const world = await open([versioned(1)]);
  const { runId } = await world.runtime.start("versioned", { vars: { name: "Ada" } });
  await world.drive(runId);
  const refused = await world.runtime.replay(runId, { workflow: versioned(2) }).catch((error) => error);
  expect(refused.code).toBe("WORKFLOW_INCOMPATIBLE");
  const migrated = versioned(2, { 1: (vars: any) => ({ names: [vars.name] }) });
  const replay = await world.runtime.replay(runId, { workflow: migrated });
  expect(replay).toMatchObject({ differences: [], run: { version: "2", output: { names: ["Ada"] } } });
  const gone = await world.runtime
    .replay(runId, { workflow: defineWorkflow({ id: "versioned", entry: "x", nodes: { x: () => complete() } }) as any })
    .catch((error) => error);
  expect(gone.code).toBe("WORKFLOW_INCOMPATIBLE");
});

test("an effect may be called like something that every object has", async () => {
  const named = defineEffect("constructor", { run: () => "made" });
  const odd = defineWorkflow({
    id: "odd",
    entry: "make",
    effects: [named],
    nodes: { make: () => named({}, { resultKey: "made", nextNode: "done" }), done: ({ vars }: any) => complete(vars.made) },
  } as any) as any;
  const world = await open([odd]);
  const { runId } = await world.runtime.start("odd");
  await world.drive(runId);
  expect(await world.runtime.replay(runId)).toMatchObject({ end: "ended", differences: [] });
});

test("what a replay is given is checked", async () => {
  const world = await open();
  const runId = await written(world);
  const refused = async (options: object): Promise<[string, string]> => {
    const error = await world.runtime.replay(runId, options as ReplayOptions).catch((thrown) => thrown);
    return [error.code, error.fields?.suggestion ?? ""];
  };
  expect(await refused({ form: 1 })).toEqual(["INVALID_OPTION", ""]);
  expect(await refused({ effects: { llm_cal: "live" } })).toEqual(["INVALID_OPTION", "llm_call"]);
  expect(await refused({ effects: { llm_call: "lives" } })).toEqual(["INVALID_OPTION", "live"]);
  expect(await refused({ effects: { ask_user: "live" } })).toEqual(["INVALID_OPTION", ""]);
  expect(await refused({ effects: { all: () => [] } })).toEqual(["INVALID_OPTION", ""]);
  expect(await refused({ fromSeq: 100 })).toEqual(["SEQ_NOT_FOUND", ""]);
  expect(await refused({ maxSteps: 0 })).toEqual(["INVALID_OPTION", ""]);
  expect(await refused({ vars: [1] })).toEqual(["NOT_JSON", ""]);
  expect((await world.runtime.replay("nobody").catch((error) => error)).code).toBe("RUN_NOT_FOUND");
  const bare = await createRuntime({ store: world.store, scheduler: false });
  expect((await bare.replay(runId).catch((error) => error)).code).toBe("WORKFLOW_UNKNOWN");
  // The code may come with the call.
  expect((await bare.replay(runId, { workflow: letter() })).differences).toEqual([]);
});

test("what could not be recorded then cannot be recorded in a replay", async () => {
  const much = Array.from({ length: 4_000 }, () => "y".repeat(50));
  const never = artifactRef("a".repeat(64));
  const decisions: Record<string, (vars: any) => any> = {
    "too large a patch": (vars) => {
      vars.much = much;
      return goto("end");
    },
    "too large a text of escapes": (vars) => {
      vars.much = "\u0001".repeat(30_000);
      return goto("end");
    },
    "too large a payload": () => model({ much }, { nextNode: "end" }),
    "too large a member's payload": () => all([model({ prompt: "a" }), model({ much })], { nextNode: "end" }),
    "too large an output": () => complete(much),
    "an unknown artifact in the vars": (vars) => {
      vars.made = never;
      return goto("end");
    },
    "an unknown artifact, piece by piece": (vars) => {
      vars.piece.$artifact = never.$artifact;
      return goto("end");
    },
    "an unknown artifact in the output": () => complete({ never }),
  };
  const decides = defineWorkflow({
    id: "decides",
    entry: "decide",
    effects: [model],
    nodes: { decide: ({ vars }: any) => decisions[vars.what]?.(vars), end: () => complete() },
  } as any) as any;
  const runtime = await createRuntime({
    store: memoryStore(),
    scheduler: false,
    workflows: [decides],
    limits: { recordBytes: 150_000 },
  });
  opened.push(runtime);
  for (const what of Object.keys(decisions)) {
    const run = await runtime.run(decides, { vars: { what, piece: {} } });
    expect([what, run.status]).toEqual([what, "failed"]);
    expect(run.error?.code).toBe(what.includes("large") ? "TOO_LARGE" : "ARTIFACT_MISSING");
    const { end, differences, run: replayed } = await runtime.replay(run.runId);
    expect({ what, end, differences }).toEqual({ what, end: "ended", differences: [] });
    expect(replayed.error?.message).toBe(run.error?.message);
  }
});

test("edits: as few as possible, what takes a place beside what it replaces", () => {
  const of = (before: string, after: string) =>
    edits([...before], [...after])
      .map(
        ({ before: was, after: is }) => `${was === undefined ? "" : `-${before[was]}`}${is === undefined ? "" : `+${after[is]}`}`,
      )
      .join(" ");
  expect(of("abc", "abc")).toBe("");
  expect(of("", "ab")).toBe("+a +b");
  expect(of("ab", "")).toBe("-a -b");
  expect(of("abcd", "abxcd")).toBe("+x");
  expect(of("abcd", "abd")).toBe("-c");
  expect(of("abcd", "axcd")).toBe("-b+x");
  expect(of("ababab", "axbabab")).toBe("+x");
  expect(of("abcdef", "acbdxf")).toBe("-b +b -e+x");
});
