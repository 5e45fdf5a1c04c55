// Runs moved to and fro between two stores, again and again, while workers on both drive them and messages come in.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import {
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  isError,
  moveRuns,
  type Runtime,
  subworkflow,
  waitEvent,
} from "../../src/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import type { Loaded } from "../../src/kernel/transition.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { testClock } from "../../src/testing/index.ts";
import { randomOf } from "../../src/testing/simulate/random.ts";
import { callStore, wrapStore } from "../../src/testing/wrap-store.ts";

/** What the outside world was told, by idempotency key. */
const done = new Map<string, number>();

const work = defineEffect("work", {
  policy: { maxAttempts: 1_000, backoff: { initialMs: 1, factor: 1, maxMs: 1, jitter: 0 } },
  run: async (_, { idempotencyKey }) => {
    await new Promise((resolve) => setImmediate(resolve));
    done.set(idempotencyKey, (done.get(idempotencyKey) ?? 0) + 1);
    return { key: idempotencyKey };
  },
});
const child = defineWorkflow({
  id: "child",
  effects: [work],
  entry: "work",
  nodes: { work: () => work({}, { resultKey: "r", nextNode: "end" }), end: ({ vars }) => complete(vars.r) },
});
const roamer = defineWorkflow({
  id: "roamer",
  effects: [work],
  entry: "work",
  nodes: {
    work: ({ vars }) => {
      if (vars.r) vars.keys = [...(vars.keys ?? []), vars.r.key];
      delete vars.r;
      return (vars.keys ?? []).length < 4
        ? work({}, { resultKey: "r", nextNode: "listen" })
        : complete({ keys: vars.keys, heard: vars.heard, children: vars.children });
    },
    listen: () => waitEvent("news", { resultKey: "news", nextNode: "note" }),
    note: ({ vars }) => {
      vars.heard = [...(vars.heard ?? []), vars.news.n];
      return subworkflow(child, { vars: {} }, { resultKey: "child", nextNode: "count" });
    },
    count: ({ vars }) => {
      vars.children = [...(vars.children ?? []), vars.child.output.key];
      return { nextNode: "work" };
    },
  },
});

test("moved at random while they are driven, runs do everything once, take every message once, and verify", async () => {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const random = randomOf(1, "moving to and fro");
  const paths = ["a.db", "b.db"].map((name) => join(directory, name));
  const runtimes: Runtime[] = [];
  for (const path of paths)
    runtimes.push(await createRuntime({ workflows: [roamer, child], store: await sqliteStore(path), scheduler: { pollMs: 20 } }));
  const [a, b] = runtimes as [Runtime, Runtime];
  const ids = Array.from({ length: 6 }, (_, i) => `run ${i}`);
  for (const runId of ids) await a.start(roamer, { runId });

  let finished = false;
  /** Where a run is: moves under way are waited for. */
  const anywhere = async <T>(act: (runtime: Runtime) => Promise<T>): Promise<T> => {
    for (;;) {
      for (const runtime of runtimes) {
        try {
          return await act(runtime);
        } catch (error) {
          if (!isError(error, "RUN_MOVED") && !isError(error, "RUN_NOT_FOUND") && !isError(error, "RUN_PURGED")) throw error;
        }
      }
      await new Promise((resolve) => setImmediate(resolve));
    }
  };
  const sending = Promise.all(
    ids.map(async (runId) => {
      for (let n = 0; n < 4; n++) await anywhere((runtime) => runtime.signal(runId, "news", { n }, { id: `${n}` }));
    }),
  );
  let moved = 0;
  const moving = (async () => {
    for (let i = 0; !finished; i++) {
      const runId = random.pick(ids);
      const [from, to] = i % 2 === 0 ? [a, b] : [b, a];
      try {
        moved += (await moveRuns(from.store, to.store, [runId], { purge: random.chance(0.5) })).runIds.length;
      } catch (error) {
        const isElsewhere = ["RUN_NOT_FOUND", "RUN_MOVED", "RUN_PURGED"].some((code) => isError(error, code as "RUN_MOVED"));
        if (!isElsewhere) throw error;
      }
    }
  })();
  await sending;
  const results: { keys: string[]; heard: number[]; children: string[] }[] = [];
  for (const runId of ids) {
    results.push(await anywhere((runtime) => runtime.result(runId)));
  }
  finished = true;
  await moving;
  expect(moved).toBeGreaterThan(10);
  const keys = results.flatMap((result) => [...result.keys, ...result.children]);
  expect(new Set(keys).size).toBe(6 * 8);
  expect([...done.keys()].sort()).toEqual([...keys].sort());
  for (const { heard } of results) expect(heard).toEqual([0, 1, 2, 3]);
  // Every run has one owner, whole, with its children.
  const owned: string[] = [];
  for (const runtime of runtimes) {
    expect(await runtime.store.moves()).toEqual([]);
    for (const run of (await runtime.list({ limit: 1_000 })).runs) {
      expect(await runtime.verify(run.runId)).toMatchObject({ ok: true });
      if (!run.moving) owned.push(run.runId);
    }
  }
  expect(new Set(owned).size).toBe(owned.length);
  expect(owned.length).toBe(6 + 6 * 4);
  for (const runtime of runtimes) await runtime.stop();
});

test("of a run that ended and is arriving nobody is told an end before all of it is here", async () => {
  const clock = testClock();
  const counter = defineWorkflow({
    id: "counter",
    entry: "count",
    nodes: {
      count: ({ vars }) => {
        vars.n = (vars.n ?? 0) + 1;
        return { nextNode: vars.n < 40 ? "count" : "end" };
      },
      end: ({ vars }) => complete({ n: vars.n }),
    },
  });
  const [from, inner] = [memoryStore({ clock }), memoryStore({ clock })];
  const source = await createRuntime({ workflows: [counter], store: from, clock });
  const target = await createRuntime({ workflows: [counter], store: inner, clock });
  const { runId } = await source.run(counter);
  const seen: unknown[] = [];
  const results: Promise<unknown>[] = [];
  const to = wrapStore(inner, async (method, args) => {
    const done = await callStore(inner, method, args);
    if (method === "adopt" || method === "adoptRecords") {
      const { row, moving } = (await inner.load(runId)) as Loaded;
      seen.push([
        row.status,
        moving?.phase,
        await target.get(runId).then(
          ({ output }) => output,
          (error) => error.code,
        ),
      ]);
      results.push(target.result(runId));
    }
    return done;
  });
  await moveRuns(from, to, [runId]);
  expect(seen.length).toBeGreaterThan(2);
  // Before the last page it is not known how the run stands, and then it is.
  expect(seen.slice(0, -1)).toEqual(seen.slice(1).map(() => ["completed", "arriving", "RUN_MOVED"]));
  await clock.advance(1_000);
  expect(await Promise.all(results)).toEqual(seen.map(() => ({ n: 40 })));
  await source.stop();
  await target.stop();
});
