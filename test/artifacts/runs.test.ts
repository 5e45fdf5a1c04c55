// Runs that refer to artifacts: what they refer to is kept, what is not known is refused, and what is too large becomes one.
import { createHash } from "node:crypto";
import {
  artifactRef,
  type AnyEffect,
  askUser,
  type BlobStore,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  getArtifactId,
  goto,
  isArtifactRef,
  type Limits,
  type Runtime,
  type Store,
  subworkflow,
  waitEvent,
  type Workflow,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { faultyStore, type TestClock, testClock, testIds } from "abstractruntime/testing";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { tried } from "../properties.ts";
import { deafStore } from "../kept-store.ts";

const day = 86_400_000;
const limit = 256 * 1024;
const stores: Record<string, (clock: TestClock) => Promise<Store>> = {
  memory: async (clock) => memoryStore({ clock }),
  sqlite: (clock) => sqliteStore(":memory:", { clock }),
};

const opened: Runtime[] = [];
afterEach(async () => {
  for (const runtime of opened.splice(0)) await runtime.stop();
});

interface Options {
  workflows?: readonly Workflow[];
  effects?: readonly AnyEffect[];
  limits?: Partial<Limits>;
  artifacts?: BlobStore;
}

async function open(kind: string, options: Options = {}, wrap = (store: Store): Store => store) {
  const clock = testClock();
  const store = wrap(await (stores[kind] as (clock: TestClock) => Promise<Store>)(clock));
  const runtime = await createRuntime({ store, clock, ids: testIds(), scheduler: false, ...options });
  opened.push(runtime);
  return { runtime, store, clock };
}

function sha256(content: string): string {
  return createHash("sha256").update(content).digest("hex");
}

const unknown = artifactRef(sha256("never put"));

describe.each(Object.keys(stores))("on %s", (kind) => {
  test("what a run was started with is kept for as long as the run", async () => {
    const waiting = defineWorkflow({
      id: "w",
      entry: "ask",
      nodes: { ask: () => askUser({ prompt: "?" }, { nextNode: "end" }), end: () => complete() },
    });
    const { runtime, clock } = await open(kind, { workflows: [waiting] });
    const ref = await runtime.artifacts.put("a document");
    const { runId } = await runtime.start(waiting, { vars: { deep: [{ ref }] } });
    await clock.advance(2 * day);
    expect(await runtime.artifacts.sweep()).toMatchObject({ artifacts: 0 });
    expect(await (await runtime.artifacts.open(ref)).text()).toBe("a document");
    expect(await runtime.artifacts.listByRun(runId)).toMatchObject([{ artifactId: ref.$artifact }]);
    expect(await runtime.artifacts.deleteByRun(runId)).toBe(1);
    expect(await runtime.artifacts.sweep()).toMatchObject({ artifacts: 1 });
  });

  test("a start that refers to what is not known is refused, and no run is made", async () => {
    const plain = defineWorkflow({ id: "w", entry: "end", nodes: { end: () => complete() } });
    const { runtime } = await open(kind, { workflows: [plain] });
    const refused = { code: "ARTIFACT_MISSING", fields: { artifactId: unknown.$artifact } };
    await expect(runtime.start(plain, { vars: { ref: unknown } })).rejects.toMatchObject(refused);
    await expect(runtime.run(plain, { vars: { ref: unknown } })).rejects.toMatchObject(refused);
    expect((await runtime.list()).runs).toEqual([]);
  });

  test("what merely looks like a reference means nothing", async () => {
    const plain = defineWorkflow({ id: "w", entry: "end", nodes: { end: ({ vars }) => complete(vars) } });
    const { runtime } = await open(kind, { workflows: [plain] });
    const { $artifact: id } = unknown;
    const lookalikes = [
      '{"$artifact"',
      `{"$artifact":"${id}"}`,
      { $artifact: id.slice(1) },
      { $artifact: 7 },
      { $artifact: null },
      { $artifact: [id] },
      { artifact: id },
      { x$artifact: id },
      { path: "/$artifact", value: id },
      { $artifact: id.toUpperCase().replace(/\d/g, "A") },
    ];
    const { status, output } = await runtime.run(plain, { vars: { lookalikes } });
    expect([status, output]).toEqual(["completed", { lookalikes }]);
  });

  test("a node that writes a reference to what is not known fails, and says which", async () => {
    const writes = defineWorkflow({
      id: "w",
      entry: "write",
      nodes: {
        write: ({ vars }) => {
          if (vars.how === "in an object") vars.ref = unknown;
          else if (vars.how === "into an object") vars.old.$artifact = unknown.$artifact;
          return vars.how === "output" ? complete({ ref: unknown }) : goto("end");
        },
        end: () => complete(),
      },
    });
    const { runtime } = await open(kind, { workflows: [writes] });
    for (const how of ["in an object", "into an object", "output"]) {
      const run = await runtime.run(writes, { vars: { how, old: {} } });
      expect(run.status).toBe("failed");
      expect(run.error).toMatchObject({ code: "ARTIFACT_MISSING" });
      expect(run.error?.message).toContain(unknown.$artifact);
      expect((await runtime.verify(run.runId)).ok).toBe(true);
    }
  });

  test("a handler puts and returns a reference; the next one opens it", async () => {
    const render = defineEffect("render", {
      run: async (_, { artifacts }) => ({ page: await artifacts.put(Buffer.from("pixels"), { contentType: "image/png" }) }),
    });
    const measure = defineEffect("measure", {
      run: async (payload: any, { artifacts: { open } }) => (await (await open(payload.page)).bytes()).length,
    });
    const workflow = defineWorkflow({
      id: "w",
      effects: [render, measure],
      entry: "render",
      nodes: {
        render: () => render({}, { resultKey: "made", nextNode: "measure" }),
        measure: ({ vars }) => measure(vars.made, { resultKey: "size", nextNode: "end" }),
        end: ({ vars }) => complete(vars),
      },
    });
    const { runtime, clock } = await open(kind, { workflows: [workflow] });
    const { runId, output } = await runtime.run(workflow);
    expect(output).toEqual({ made: { page: { $artifact: sha256("pixels"), contentType: "image/png", sizeBytes: 6 } }, size: 6 });
    await clock.advance(3 * day);
    await runtime.artifacts.sweep();
    expect(await runtime.artifacts.listByRun(runId)).toHaveLength(1);
  });

  test("a handler that ends while its runtime stops still puts and opens, and what it gives is offloaded", async () => {
    const clock = testClock();
    const shared = await (stores[kind] as (clock: TestClock) => Promise<Store>)(clock);
    const kept = deafStore(shared);
    const gate = Promise.withResolvers<void>();
    const begun = Promise.withResolvers<void>();
    const slow = defineEffect("slow", {
      run: async (_, { artifacts }) => {
        begun.resolve();
        await gate.promise;
        const ref = await artifacts.put("late");
        return { ref, text: await (await artifacts.open(ref)).text(), large: "x".repeat(limit + 1) };
      },
    });
    const workflow = defineWorkflow({
      id: "w",
      effects: [slow],
      entry: "go",
      nodes: { go: () => slow({}, { resultKey: "made", nextNode: "end" }), end: () => complete() },
    });
    const runtime = await createRuntime({ workflows: [workflow], store: kept, clock, ids: testIds() });
    const { runId } = await runtime.start(workflow);
    await begun.promise;
    const stopped = runtime.stop();
    gate.resolve();
    await stopped;
    await expect(runtime.artifacts.put("x")).rejects.toMatchObject({ code: "RUNTIME_STOPPED" });
    const next = await createRuntime({ workflows: [workflow], store: shared, clock, ids: testIds(2), scheduler: false });
    opened.push(next);
    expect((await next.get(runId)).vars).toMatchObject({
      made: { ref: { $artifact: sha256("late") }, text: "late", large: { sizeBytes: limit + 1 } },
    });
  });

  test("a handler that takes days and shows that it lives does not lose what it put", async () => {
    let clock: TestClock;
    let runtime: Runtime;
    const slow = defineEffect("slow", {
      policy: { timeoutMs: 3_600_000 },
      run: async (_, { artifacts, progress }) => {
        const ref = await artifacts.put("early");
        for (let hours = 0; hours < 60; hours++) {
          progress();
          await clock.advance(3_000_000);
          if (hours % 20 === 0) await runtime.artifacts.sweep();
        }
        return ref;
      },
    });
    const workflow = defineWorkflow({
      id: "w",
      effects: [slow],
      entry: "go",
      nodes: { go: () => slow({}, { resultKey: "ref", nextNode: "end" }), end: ({ vars }) => complete(vars.ref) },
    });
    ({ runtime, clock } = await open(kind, { workflows: [workflow] }));
    const run = await runtime.run(workflow);
    expect(run.error).toBeUndefined();
    expect(await (await runtime.artifacts.open(run.output as never)).text()).toBe("early");
  });

  test("an effect whose result refers to nothing has failed; one that may be run again is", async () => {
    let attempts = 0;
    const once = defineEffect("once", { run: () => ({ ref: unknown }) });
    const again = defineEffect("again", {
      speculative: true,
      policy: { backoff: { initialMs: 0 } },
      run: async (_, { artifacts }) => {
        attempts += 1;
        return attempts === 1 ? unknown : artifacts.put("x");
      },
    });
    const workflow = defineWorkflow({
      id: "w",
      effects: [once, again],
      entry: "again",
      nodes: {
        again: () => again({}, { resultKey: "ref", nextNode: "once" }),
        once: () => once({}, { nextNode: "end", errorNode: "end" }),
        end: ({ vars }) => complete(vars),
      },
    });
    const { runtime } = await open(kind, { workflows: [workflow] });
    const { output } = await runtime.run(workflow);
    expect(attempts).toBe(2);
    expect(output).toMatchObject({ ref: { $artifact: sha256("x") } });
    const failed = (await runtime.ledger((await runtime.list()).runs[0]?.runId as string)).filter(
      ({ kind: one }) => one === "effect_failed",
    );
    expect(failed.map(({ data }) => (data as any).error.code)).toEqual(["ARTIFACT_MISSING", "ARTIFACT_MISSING"]);
  });

  test("answers and signals: what they refer to is kept for the run, and what is not known is refused at the door", async () => {
    const workflow = defineWorkflow({
      id: "w",
      entry: "ask",
      nodes: {
        ask: () => askUser({ prompt: "?" }, { resultKey: "answer", nextNode: "wait" }),
        wait: () => waitEvent("file", { resultKey: "file", nextNode: "end" }),
        end: ({ vars }) => complete(vars),
      },
    });
    const { runtime, clock } = await open(kind, { workflows: [workflow] });
    const { runId } = await runtime.run(workflow);
    const refused = { code: "ARTIFACT_MISSING", fields: { artifactId: unknown.$artifact, runId } };
    await expect(runtime.respond(runId, { text: "x", ref: unknown })).rejects.toMatchObject(refused);
    await expect(runtime.signal(runId, "file", unknown)).rejects.toMatchObject(refused);
    const ref = await runtime.artifacts.put("early");
    await runtime.signal(runId, "file", { ref });
    // It lies in the mailbox for longer than a pin lasts.
    await clock.advance(3 * day);
    await runtime.artifacts.sweep();
    await runtime.respond(runId, { text: "x" });
    const run = await runtime.tick(runId);
    expect(run.output).toMatchObject({ file: { ref } });
    expect(await (await runtime.artifacts.open(ref)).text()).toBe("early");
  });

  test("a message that refers to what was deleted meanwhile fails what waited for it, and the run goes on", async () => {
    const workflow = defineWorkflow({
      id: "w",
      entry: "wait",
      nodes: {
        wait: () => waitEvent("file", { resultKey: "file", nextNode: "end", errorNode: "sorry" }),
        end: () => complete("got it"),
        sorry: () => complete("sorry"),
      },
    });
    const { runtime } = await open(kind, { workflows: [workflow] });
    const { runId } = await runtime.run(workflow);
    const ref = await runtime.artifacts.put("early");
    await runtime.signal(runId, "file", { ref });
    await runtime.artifacts.deleteByRun(runId);
    await runtime.artifacts.delete(ref.$artifact);
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed", output: "sorry" });
    expect((await runtime.verify(runId)).ok).toBe(true);
  });

  test("a pin that runs out before the commit: the run is blocked, does not spin, and goes on when the bytes are there again", async () => {
    const workflow = defineWorkflow({
      id: "w",
      entry: "start",
      nodes: {
        start: () => askUser({ prompt: "?" }, { nextNode: "write" }),
        write: ({ vars }) => {
          vars.ref = artifactRef(sha256("a document"));
          return goto("end");
        },
        end: ({ vars }) => complete(vars.ref),
      },
    });
    let inner: Store | undefined;
    let strikes = 0;
    const plan = [
      {
        kind: "run" as const,
        on: (method: string, args: readonly unknown[]) =>
          method === "commit" && (args[0] as { artifacts?: unknown }[]).some(({ artifacts }) => artifacts),
        run: async () => {
          strikes += 1;
          if (strikes < 3) await inner?.sweepArtifacts(1, sha256("a document"));
        },
      },
    ];
    const { runtime, store } = await open(kind, { workflows: [workflow] }, (store) => {
      inner = store;
      return faultyStore(store, plan);
    });
    const { runId } = await runtime.run(workflow);
    await runtime.artifacts.put("a document");
    await runtime.respond(runId, { text: "go" });
    const before = await store.load(runId);
    const blocked = await runtime.tick(runId);
    expect(blocked.blocked).toMatchObject({ code: "ARTIFACT_MISSING" });
    expect(blocked.blocked?.problem).toContain("Put the same bytes again");
    expect((await runtime.verify(runId)).ok).toBe(true);
    // The answer was taken; nothing of what the node decided is recorded.
    expect((await store.load(runId))?.row).toMatchObject({ seq: (before?.row.seq ?? 0) + 1, node: "write" });
    // Nobody is given it.
    const struck = strikes;
    await expect(runtime.tick(runId)).rejects.toMatchObject({ code: "RUN_BLOCKED" });
    expect(strikes).toBe(struck);
    strikes = 10;
    await runtime.artifacts.put("a document");
    await store.lift(runId);
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed", output: artifactRef(sha256("a document")) });
  });

  test("children take over what their vars refer to, and parents what their children gave", async () => {
    const child = defineWorkflow({
      id: "child",
      entry: "end",
      nodes: { end: ({ vars }) => complete({ given: vars.ref, made: vars.made }) },
    });
    const parent = defineWorkflow({
      id: "parent",
      entry: "go",
      nodes: {
        go: ({ vars }) => subworkflow(child, { vars: { ref: vars.ref } }, { resultKey: "done", nextNode: "end" }),
        end: ({ vars }) => complete(vars.done),
      },
    });
    const { runtime, clock } = await open(kind, { workflows: [parent, child] });
    const ref = await runtime.artifacts.put("a document");
    const { runId } = await runtime.start(parent, { vars: { ref } });
    for (let i = 0; i < 5 && (await runtime.get(runId)).status !== "completed"; i++)
      for (const run of (await runtime.list({ status: ["running", "waiting"] })).runs) await runtime.tick(run.runId);
    expect((await runtime.get(runId)).output).toMatchObject({ output: { given: ref } });
    const { runIds } = (await runtime.artifacts.open(ref)).metadata;
    expect(runIds).toHaveLength(2);
    await clock.advance(2 * day);
    for (const id of runIds.filter((one) => one !== runId)) await runtime.artifacts.deleteByRun(id);
    await runtime.artifacts.sweep();
    expect(await runtime.artifacts.exists(ref.$artifact)).toBe(true);
  });

  test("letting go of one run never takes the bytes of another", async () => {
    const workflow = defineWorkflow({
      id: "w",
      entry: "ask",
      nodes: { ask: () => askUser({ prompt: "?" }, { nextNode: "end" }), end: () => complete() },
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({ run: fc.nat(3), text: fc.nat(4), act: fc.constantFrom("put", "start", "drop", "delete", "sweep", "wait") }),
          { maxLength: 40 },
        ),
        async (steps) => {
          const { runtime, clock } = await open(kind, { workflows: [workflow] });
          const held = new Map<string, Set<string>>();
          for (const { run, text, act } of steps) {
            const content = `text ${text}`;
            const ids = [...held.keys()];
            const runId = ids[run % Math.max(1, ids.length)];
            if (act === "start") {
              const ref = await runtime.artifacts.put(content);
              held.set((await runtime.start(workflow, { vars: { ref } })).runId, new Set([content]));
            } else if (act === "put" && runId !== undefined) {
              await runtime.artifacts.put(content, { runId });
              held.get(runId)?.add(content);
            } else if (act === "drop" && runId !== undefined) {
              await runtime.artifacts.deleteByRun(runId);
              held.get(runId)?.clear();
            } else if (act === "delete") await runtime.artifacts.delete(sha256(content));
            else if (act === "sweep") await runtime.artifacts.sweep();
            else if (act === "wait") await clock.advance(day);
            for (const contents of held.values())
              for (const one of contents) expect(await runtime.artifacts.loadText(sha256(one))).toBe(one);
          }
          await clock.advance(2 * day);
          await runtime.artifacts.sweep();
          const kept = new Set([...held.values()].flatMap((contents) => [...contents]));
          expect((await runtime.artifacts.listAll()).map(({ artifactId }) => artifactId).sort()).toEqual(
            [...kept].map(sha256).sort(),
          );
          await runtime.stop();
        },
      ),
      tried(10),
    );
  });
});

describe("offloading", () => {
  const big = "ä".repeat(limit / 2 + 1);
  const small = "ä".repeat(limit / 2);

  test("a single large text in a result or in what a node writes stands as a reference; everything else stays", async () => {
    const give = defineEffect("give", { run: () => ({ list: [{ text: big }, small, 7], text: "x" }) });
    const workflow = defineWorkflow({
      id: "w",
      effects: [give],
      entry: "give",
      nodes: {
        give: () => give({}, { resultKey: "given", nextNode: "write" }),
        write: ({ vars }) => {
          vars.written = { deep: [`${big}!`] };
          vars.small = small;
          return goto("end");
        },
        end: ({ vars }) =>
          complete({ given: isArtifactRef(vars.given.list[0].text), written: isArtifactRef(vars.written.deep[0]) }),
      },
    });
    const { runtime, clock } = await open("sqlite", { workflows: [workflow] });
    const { runId, output } = await runtime.run(workflow);
    expect(output).toEqual({ given: true, written: true });
    const ref = (text: string) => ({
      $artifact: sha256(text),
      contentType: "text/plain; charset=utf-8",
      sizeBytes: Buffer.byteLength(text),
    });
    const { vars } = await runtime.get(runId);
    expect(vars).toEqual({
      given: { list: [{ text: ref(big) }, small, 7], text: "x" },
      written: { deep: [ref(`${big}!`)] },
      small,
    });
    await clock.advance(2 * day);
    await runtime.artifacts.sweep();
    expect(await (await runtime.artifacts.open((vars as any).given.list[0].text)).text()).toBe(big);
    expect(await runtime.artifacts.loadText(getArtifactId((vars as any).written.deep[0]))).toBe(`${big}!`);
    expect((await runtime.verify(runId)).ok).toBe(true);
  });

  test("a result that is too large without a large text becomes a reference as a whole, unless it holds references or keeps its shape", async () => {
    const rows = Array.from({ length: 20_000 }, (_, i) => ({ name: `row ${i}` }));
    const plain = defineEffect("plain", { run: () => rows });
    const shaped = defineEffect("shaped", { keepsShape: true, run: () => ({ rows, text: big }) });
    const holding = defineEffect("holding", { run: async (_, { artifacts }) => ({ rows, ref: await artifacts.put("x") }) });
    const workflow = defineWorkflow({
      id: "w",
      effects: [plain, shaped, holding],
      entry: "a",
      nodes: {
        a: () => plain({}, { resultKey: "plain", nextNode: "b" }),
        b: () => holding({}, { resultKey: "holding", nextNode: "c" }),
        c: () => shaped({}, { resultKey: "shaped", nextNode: "end" }),
        end: () => complete(),
      },
    });
    const { runtime } = await open("sqlite", { workflows: [workflow] });
    const { vars } = (await runtime.run(workflow)) as any;
    expect(vars.plain).toMatchObject({ contentType: "application/json" });
    expect(await (await runtime.artifacts.open(vars.plain)).json()).toEqual(rows);
    expect(vars.holding).toEqual({ rows, ref: expect.objectContaining({ $artifact: sha256("x") }) });
    expect(vars.shaped).toEqual({ rows, text: expect.objectContaining({ $artifact: sha256(big) }) });
  });

  test("limits.offloadBytes moves the limit, and Infinity turns it off", async () => {
    const give = defineEffect("give", { run: () => ({ text: big, short: "0123456789x" }) });
    const workflow = defineWorkflow({
      id: "w",
      effects: [give],
      entry: "a",
      nodes: { a: () => give({}, { resultKey: "given", nextNode: "end" }), end: ({ vars }) => complete(vars.given) },
    });
    const off = await open("memory", { workflows: [workflow], limits: { offloadBytes: Number.POSITIVE_INFINITY } });
    expect((await off.runtime.run(workflow)).output).toEqual({ text: big, short: "0123456789x" });
    expect(await off.runtime.artifacts.listAll()).toEqual([]);
    const low = await open("memory", { workflows: [workflow], limits: { offloadBytes: 10 } });
    expect((await low.runtime.run(workflow)).output).toMatchObject({ text: { sizeBytes: limit + 2 }, short: { sizeBytes: 11 } });
  });

  test("where nothing can be put, it is recorded as it is, and somebody is told", async () => {
    const give = defineEffect("give", { run: () => big });
    const workflow = defineWorkflow({
      id: "w",
      effects: [give],
      entry: "a",
      nodes: { a: () => give({}, { resultKey: "given", nextNode: "end" }), end: ({ vars }) => complete(vars.given) },
    });
    const broken: BlobStore = {
      name: "broken",
      write: async () => {
        throw new Error("no route to host");
      },
      async *read() {},
      delete: async () => undefined,
      async *list() {},
    };
    const { runtime } = await open("memory", { workflows: [workflow], artifacts: broken });
    expect((await runtime.run(workflow)).output).toBe(big);
    expect((await runtime.health()).errors[0]).toMatchObject({ message: expect.stringContaining("could not be put") });
  });
});
