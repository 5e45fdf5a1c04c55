// Moving live runs between stores: everything goes with them, and whatever is cut off leaves exactly one owner.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, onTestFinished, test } from "vitest";
import { createRuntime, defineEffect, defineWorkflow, complete, moveRuns, undoMove, type Store } from "../../src/index.ts";
import { type Fault, faultyStore, testClock } from "../../src/testing/index.ts";
import { charged, type Tree, finishTree, type Kind, opened, runtimeOver, startTree, workflows } from "./moving-tree.ts";
import { codeOf } from "../code-of.ts";

const output = (tree: Tree): unknown => ({
  receipt: { charged: true },
  answers: [{ text: "yes" }, { n: 1 }, { subRunId: tree.childId, output: { child: { n: 3 } } }],
  early: { n: 2 },
  photo: { $artifact: tree.artifact, contentType: expect.any(String), sizeBytes: 20 },
});

/** Which of the tree a worker with the code would be given by a store. */
async function drivableIn(store: Store): Promise<string[]> {
  await store.renew("looker", 60_000);
  const claimed = await store.claim({ workerId: "looker", fingerprint: "looker" }, { limit: 100 });
  await store.retire("looker");
  return claimed.map(({ row }) => row.runId).sort();
}

/** All of the tree is at the target, whole, and finishes there; the source is done with it. */
async function expectMoved(from: Store, to: Store, clock: ReturnType<typeof testClock>, tree: Tree): Promise<void> {
  const ids = [tree.parentId, tree.childId].sort();
  expect(await drivableIn(from)).toEqual([]);
  expect(await drivableIn(to)).toEqual(ids);
  expect([await from.moves(), await to.moves()]).toEqual([[], []]);
  const source = await runtimeOver(from, clock);
  const target = await runtimeOver(to, clock);
  for (const runId of ids) {
    expect(await codeOf(source.signal(runId, "more"))).toBe("RUN_MOVED");
    expect(await codeOf(source.start("order", { runId, vars: {} }))).toBe("RUN_MOVED");
    expect(await target.verify(runId)).toMatchObject({ ok: true });
  }
  expect(await source.emit("early")).toBe(0);
  expect(await source.cancelAll({})).toBe(0);
  expect((await to.query({ tags: ["vip"], vars: { number: 7 } })).runs.map(({ runId }) => runId)).toEqual([tree.parentId]);
  expect(await (await target.artifacts.open(tree.artifact)).text()).toBe("the bytes of a photo");
  expect((await target.snapshots.get("s1"))?.seq).toBeGreaterThan(0);
  // What was sent before is known by its id.
  expect(await target.signal(tree.parentId, "early", { n: 2 }, { id: "early" })).toEqual({ duplicate: true });
  await source.stop();
  await target.stop();
  expect(await finishTree(to, clock, tree)).toEqual(output(tree));
}

const pairs: [Kind, Kind][] = [
  ["memory", "sqlite"],
  ["sqlite", "memory"],
  ["sqlite", "sqlite"],
  ["sqlite", "postgres"],
  ["postgres", "files"],
  ["files", "sqlite"],
];

describe.each(pairs)("from %s to %s", (fromKind, toKind) => {
  test("a tree is moved in mid-flight, and finishes there", async () => {
    const clock = testClock();
    const [from, to] = [await opened(fromKind, clock), await opened(toKind, clock)];
    charged.length = 0;
    const tree = await startTree(from.store, clock);
    const moved = await moveRuns(from.store, to.store, [tree.parentId]);
    expect(moved).toMatchObject({ runIds: [tree.parentId, tree.childId], artifacts: 1 });
    expect(await moveRuns(from.store, to.store, [tree.parentId])).toMatchObject({ runIds: [] });
    await expectMoved(await from.reopen(), await to.reopen(), clock, tree);
    expect(charged).toHaveLength(1);
  });

  test("and back again, also when the source has purged what left", async () => {
    const clock = testClock();
    const [{ store: from }, { store: to }] = [await opened(fromKind, clock), await opened(toKind, clock)];
    const tree = await startTree(from, clock);
    await moveRuns(from, to, [tree.parentId]);
    await moveRuns(to, from, [tree.parentId]);
    expect(await drivableIn(from)).toEqual([tree.parentId, tree.childId].sort());
    await moveRuns(from, to, [tree.parentId], { purge: true });
    expect(await from.load(tree.parentId)).toBeUndefined();
    expect((await from.tombstone(tree.parentId))?.note).toBe(`moved to ${to.name}`);
    const source = await runtimeOver(from, clock);
    expect(await codeOf(source.start("order", { runId: tree.parentId, vars: {} }))).toBe("RUN_PURGED");
    expect(await codeOf(source.signal(tree.parentId, "early"))).toBe("RUN_PURGED");
    await source.stop();
    await moveRuns(to, from, [tree.parentId], { purge: true });
    expect(await finishTree(from, clock, tree)).toEqual(output(tree));
  });
});

/** Each call of these is cut off: enough pairs that both sides are a store that lasts. */
describe.each(pairs.slice(0, 2))("cut off, from %s to %s", (fromKind, toKind) => {
  const sides = ["from", "to"] as const;
  for (const side of sides) {
    for (const after of [false, true]) {
      test(`at every call of the ${side} store, ${after ? "its answer lost" : "before it"}: one owner, and the same call completes it`, async () => {
        let cutOff = 0;
        for (let n = 1; ; n++) {
          const clock = testClock();
          const [from, to] = [await opened(fromKind, clock), await opened(toKind, clock)];
          const tree = await startTree(from.store, clock);
          const fault: Fault = { kind: "fail", fromCall: n, after };
          const faulty = { from: from.store, to: to.store };
          faulty[side] = faultyStore(faulty[side], [fault]);
          const code = await codeOf(moveRuns(faulty.from, faulty.to, [tree.parentId]));
          const [source, target] = [await from.reopen(), await to.reopen()];
          if (code !== "ok") {
            expect(code).toBe("STORE_UNAVAILABLE");
            cutOff += 1;
            // Never driven at both, and wherever it is not driven it says what is to be done.
            const [here, there] = [await drivableIn(source), await drivableIn(target)];
            expect([[], [tree.parentId, tree.childId].sort()]).toContainEqual(here);
            expect(here.length > 0 && there.length > 0).toBe(false);
            if (here.length === 0 && there.length === 0)
              expect([...(await source.moves()), ...(await target.moves())]).not.toEqual([]);
            await moveRuns(source, target, [tree.parentId]);
          }
          await expectMoved(source, target, clock, tree);
          if (code === "ok") break;
        }
        expect(cutOff).toBeGreaterThan(5);
      });
    }
  }

  test("at every call, and then taken back: the run goes on where it was, unless it had left", async () => {
    const seen = { back: 0, left: 0 };
    for (const side of sides) {
      for (let n = 1; ; n++) {
        const clock = testClock();
        const [from, to] = [await opened(fromKind, clock), await opened(toKind, clock)];
        const tree = await startTree(from.store, clock);
        const faulty = { from: from.store, to: to.store };
        faulty[side] = faultyStore(faulty[side], [{ kind: "fail", fromCall: n }]);
        if ((await codeOf(moveRuns(faulty.from, faulty.to, [tree.parentId]))) === "ok") break;
        const hasLeft = (await from.store.load(tree.parentId))?.moving?.phase === "left";
        const undone = await codeOf(undoMove(from.store, to.store, [tree.parentId]));
        expect(undone).toBe(hasLeft ? "MOVE_REFUSED" : "ok");
        seen[hasLeft ? "left" : "back"] += 1;
        if (hasLeft) await moveRuns(from.store, to.store, [tree.parentId]);
        else expect(await to.store.load(tree.parentId)).toBeUndefined();
        expect(await finishTree(hasLeft ? to.store : from.store, clock, tree)).toEqual(output(tree));
      }
    }
    expect(seen.back).toBeGreaterThan(5);
    expect(seen.left).toBeGreaterThan(0);
  });
});

test.each(["from", "to"] as const)(
  "from SQLite to Postgres, cut off where the %s store decides: one owner, and the same call completes it",
  async (side) => {
    for (const after of [false, true]) {
      const clock = testClock();
      const [from, to] = [await opened("sqlite", clock), await opened("postgres", clock)];
      const tree = await startTree(from.store, clock);
      const faulty = { from: from.store, to: to.store };
      faulty[side] = faultyStore(faulty[side], [{ kind: "fail", on: "settle", after }]);
      expect(await codeOf(moveRuns(faulty.from, faulty.to, [tree.parentId]))).toBe("STORE_UNAVAILABLE");
      const [source, target] = [await from.reopen(), await to.reopen()];
      expect(await drivableIn(source)).toEqual([]);
      const isDecided = side === "to" && after;
      expect(await drivableIn(target)).toEqual(isDecided ? [tree.parentId, tree.childId].sort() : []);
      await moveRuns(source, target, [tree.parentId]);
      await expectMoved(source, target, clock, tree);
    }
  },
);

test("what is sent while a run is on its way is refused so that it can be sent again, and nothing is lost", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }] = [await opened("sqlite", clock), await opened("sqlite", clock)];
  const tree = await startTree(from, clock);
  const source = await runtimeOver(from, clock);
  const codes = new Set<string>();
  const send = async (): Promise<void> => {
    codes.add(await codeOf(source.signal(tree.parentId, "other", { n: 4 }, { id: "other" })));
    codes.add(await codeOf(source.cancel(tree.childId)));
    codes.add(await codeOf(source.emit("go")));
  };
  const meddled = faultyStore(to, [{ kind: "run", on: "adoptRecords", run: send }]);
  await moveRuns(from, meddled, [tree.parentId]);
  expect([...codes]).toEqual(["RUN_MOVED"]);
  await source.stop();
  const target = await runtimeOver(to, clock);
  expect(await target.signal(tree.parentId, "other", { n: 4 }, { id: "other" })).toEqual({ duplicate: false });
  await target.stop();
  expect(await finishTree(to, clock, tree)).toEqual(output(tree));
});

test("moved by several at once, it arrives once", async () => {
  const clock = testClock();
  for (let round = 0; round < 5; round++) {
    const [{ store: from }, { store: to }] = [await opened("sqlite", clock), await opened("sqlite", clock)];
    const tree = await startTree(from, clock);
    const codes = await Promise.all([1, 2, 3].map(() => codeOf(moveRuns(from, to, [tree.parentId]))));
    for (const code of codes) expect(["ok", "CONFLICT", "MOVE_REFUSED", "RUN_EXISTS"]).toContain(code);
    await moveRuns(from, to, [tree.parentId]);
    await expectMoved(from, to, clock, tree);
  }
});

test("a worker that drives a run loses it, and what it was doing is uncertain at the target, under the same key", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }] = [await opened("sqlite", clock), await opened("memory", clock)];
  const attempts: { key: string; uncertain: boolean; where: string }[] = [];
  let release: (() => void) | undefined;
  const workflowFor = (where: string) => {
    const pay = defineEffect("pay", {
      run: async (_, { idempotencyKey, uncertain, signal }) => {
        attempts.push({ key: idempotencyKey, uncertain, where });
        if (where === "target") return { paid: true };
        return new Promise<{ paid: unknown }>((resolve, reject) => {
          signal.addEventListener("abort", () => reject(signal.reason));
          release = () => resolve({ paid: "too late" });
        });
      },
    });
    return defineWorkflow({
      id: "payment",
      effects: [pay],
      entry: "pay",
      nodes: { pay: () => pay({}, { resultKey: "receipt", nextNode: "end" }), end: ({ vars }) => complete(vars.receipt) },
    });
  };
  const source = await createRuntime({ workflows: [workflowFor("source")], store: from, clock });
  const { runId } = await source.start("payment");
  while (!release) await clock.advance(10);
  await moveRuns(from, to, [runId]);
  release();
  await clock.advance(10);
  expect((await from.load(runId))?.moving?.phase).toBe("left");
  await expect(source.result(runId)).rejects.toMatchObject({ code: "RUN_MOVED" });
  const target = await createRuntime({ workflows: [workflowFor("target")], store: to, clock });
  for (let i = 0; (await target.get(runId)).status !== "completed" && i < 100; i++) await clock.advance(1_000);
  expect((await target.get(runId)).output).toEqual({ paid: true });
  expect(attempts.map(({ where, uncertain }) => [where, uncertain])).toEqual([
    ["source", false],
    ["target", true],
  ]);
  expect(new Set(attempts.map(({ key }) => key)).size).toBe(1);
  expect((await target.verify(runId)).ok).toBe(true);
  await source.stop();
  await target.stop();
});

test("a child is not moved without its tree, nor a run that another has the id of", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }] = [await opened("sqlite", clock), await opened("memory", clock)];
  const tree = await startTree(from, clock);
  await expect(moveRuns(from, to, [tree.childId])).rejects.toMatchObject({
    code: "MOVE_REFUSED",
    fields: { problem: expect.stringContaining(tree.parentId) },
  });
  await expect(moveRuns(from, to, ["nowhere"])).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
  await expect(moveRuns(from, from, [tree.parentId])).rejects.toMatchObject({ code: "INVALID_OPTION" });
  await startTree(to, clock);
  expect(await codeOf(moveRuns(from, to, [tree.parentId]))).toBe("RUN_EXISTS");
  // Both named is the tree named.
  const empty = (await opened("memory", clock)).store;
  expect((await moveRuns(from, empty, [tree.childId, tree.parentId])).runIds).toEqual([tree.parentId, tree.childId]);
  expect(await finishTree(empty, clock, tree)).toEqual(output(tree));
  expect(await codeOf(moveRuns(from, to, [tree.parentId]))).toBe("RUN_MOVED");
});

test("an artifact keeps its tags: more than one put can give, and where its bytes were known before", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }, { store: last }] = [
    await opened("memory", clock),
    await opened("sqlite", clock),
    await opened("memory", clock),
  ];
  const [source, target, end] = [await runtimeOver(from, clock), await runtimeOver(to, clock), await runtimeOver(last, clock)];
  const tagged: Record<string, string> = Object.fromEntries(Array.from({ length: 80 }, (_, i) => [`t${i}`, `${i}`]));
  for (const part of [0, 40])
    await source.artifacts.put("often", { tags: Object.fromEntries(Object.entries(tagged).slice(part, part + 40)) });
  const [often, known] = [await source.artifacts.put("often"), await source.artifacts.put("known", { tags: { by: "source" } })];
  await target.artifacts.put("known", { tags: { here: "yes" } });
  await source.start("child", { runId: "r", vars: { often, known } });
  await moveRuns(from, to, ["r"]);
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-tags-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  await target.export(["r"], join(directory, "r.jsonl"), { fence: true });
  await end.import(join(directory, "r.jsonl"));
  for (const runtime of [target, end]) {
    expect((await runtime.artifacts.open(often)).metadata.tags).toEqual(tagged);
    expect((await runtime.artifacts.open(known)).metadata.tags).toEqual({ by: "source", here: "yes" });
    await runtime.stop();
  }
  await source.stop();
});

test("a schedule that has left is not made again beside the one that fires", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }] = [await opened("memory", clock), await opened("memory", clock)];
  const runtime = await runtimeOver(from, clock);
  const daily = { id: "daily", workflow: "child", everyMs: 86_400_000 };
  await runtime.schedules.create(daily);
  await moveRuns(from, to, ["schedule:daily"]);
  const { schedules } = runtime;
  for (const call of [() => schedules.create(daily), () => schedules.get("daily"), () => schedules.trigger("daily")])
    expect(await codeOf(call())).toBe("RUN_MOVED");
  expect(await schedules.list()).toEqual([]);
  const there = await runtimeOver(to, clock);
  expect((await there.schedules.create(daily)).status).toBe("active");
  // Nor where nothing but its tombstone is left, for as long as that is all that is known of it.
  await moveRuns(to, from, ["schedule:daily"], { purge: true });
  expect((await schedules.get("daily")).status).toBe("active");
  expect(await codeOf(there.schedules.create(daily))).toBe("RUN_PURGED");
  expect(await codeOf(there.schedules.get("daily"))).toBe("SCHEDULE_NOT_FOUND");
  await runtime.stop();
});

test("a run that is damaged stays where it is", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }] = [await opened("memory", clock), await opened("sqlite", clock)];
  const tree = await startTree(from, clock);
  const damaged = faultyStore(from, []);
  const { records } = damaged;
  damaged.records = async (runId, first, limit) =>
    (await records(runId, first, limit)).map((record) =>
      record.seq === 2 ? { ...record, body: (record.body as string).replace("salt", "sold") } : record,
    );
  await expect(moveRuns(damaged, to, [tree.parentId])).rejects.toMatchObject({ code: "MOVE_REFUSED" });
  expect(await to.load(tree.parentId)).toBeUndefined();
  expect([await from.moves(), await to.moves()]).toEqual([[], []]);
  expect(await finishTree(from, clock, tree)).toEqual(output(tree));
});

test("an artifact whose bytes are damaged keeps its run where it is", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }] = [await opened("sqlite", clock), await opened("sqlite", clock)];
  const tree = await startTree(from, clock);
  const artifact = await from.artifact(tree.artifact);
  await from.blobs.delete(artifact?.blob as string);
  expect(await codeOf(moveRuns(from, to, [tree.parentId]))).toBe("ARTIFACT_MISSING");
  expect(await finishTree(from, clock, tree)).toEqual(output(tree));
});

test("a move under way is seen: in health, in lists, in what refuses", async () => {
  const clock = testClock();
  const [{ store: from }, { store: to }] = [await opened("sqlite", clock), await opened("sqlite", clock)];
  const tree = await startTree(from, clock);
  const cut = faultyStore(to, [{ kind: "fail", on: "adoptRecords" }]);
  expect(await codeOf(moveRuns(from, cut, [tree.parentId]))).toBe("STORE_UNAVAILABLE");
  const source = await createRuntime({ workflows, store: from, clock });
  const health = await source.health();
  expect(health.ok).toBe(false);
  expect(health.problems.join()).toContain(`2 runs are on the way to ${to.name}`);
  expect(health.store.moves?.[0]?.runIds.sort()).toEqual([tree.parentId, tree.childId].sort());
  expect((await source.get(tree.parentId)).moving).toMatchObject({ phase: "leaving", to: to.name });
  const third = (await opened("memory", clock)).store;
  expect(await codeOf(moveRuns(from, third, [tree.parentId]))).toBe("RUN_MOVED");
  await source.stop();
});
