/** Bookmarks of runs: made, found, looked at, gone on from. */
import { askUser, complete, createRuntime, defineWorkflow, goto, type Runtime, type Store } from "abstractruntime";
import { testClock, testIds } from "abstractruntime/testing";
import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { type Place, placeOf, storeKinds } from "../scenarios/places.ts";

const opened: Runtime[] = [];
const places: Place[] = [];
afterEach(async () => {
  for (const runtime of opened.splice(0)) await runtime.stop();
  for (const place of places.splice(0)) await place.remove();
});

function story(options: { nodes?: object; vars?: any; version?: number; migrations?: any } = {}) {
  const { nodes = {}, vars = z.object({ draft: z.string().optional(), answer: z.any().optional() }), ...rest } = options;
  return defineWorkflow({
    id: "story",
    vars,
    entry: "write",
    nodes: {
      write: ({ vars: story }: any) => {
        story.draft = "once";
        return goto("ask");
      },
      ask: () => askUser({ prompt: "Good?" }, { resultKey: "answer", nextNode: "done" }),
      done: ({ vars: story }: any) => complete({ draft: story.draft, answer: story.answer?.text }),
      ...nodes,
    },
    ...rest,
  } as any) as any;
}

for (const kind of storeKinds) {
  describe(`on ${kind}`, () => {
    const open = async (workflows: any[] = [story()]) => {
      const clock = testClock();
      const place = await placeOf(kind);
      places.push(place);
      const store = await place.open(clock);
      const runtime = await createRuntime({ store, clock, ids: testIds(9), workflows, scheduler: false });
      opened.push(runtime);
      const { runId } = await runtime.start("story", { tags: ["run tag"] });
      await runtime.tick(runId);
      return { clock, store, runtime, runId };
    };
    /** Another runtime over the same store, with other code. */
    const withCode = async (store: Store, workflows: any[]): Promise<Runtime> =>
      createRuntime({ store, workflows, scheduler: false });

    test("a snapshot marks a record; what it shows is the run as it was there, whatever becomes of the run", async () => {
      const { runtime, clock, runId } = await open();
      const asked = await runtime.get(runId);
      const made = await runtime.snapshots.create(runId, {
        name: "Asked",
        description: "before the answer",
        tags: ["Gold", "Gold"],
      });
      expect(made).toEqual({
        snapshotId: expect.any(String),
        runId,
        workflowId: "story",
        version: "1",
        seq: asked.seq,
        hash: (await runtime.ledger(runId)).at(-1)!.hash,
        node: "ask",
        status: "waiting",
        name: "Asked",
        description: "before the answer",
        tags: ["Gold"],
        createdAt: clock.now(),
        updatedAt: clock.now(),
      });
      await clock.advance(1_000);
      await runtime.respond(runId, "yes");
      await runtime.tick(runId);
      const { run, ...row } = await runtime.snapshots.get(made.snapshotId);
      expect(row).toEqual(made);
      expect(run).toMatchObject({ status: "waiting", node: "ask", seq: asked.seq, vars: asked.vars });
      // Of an earlier record, and of the last one.
      const first = await runtime.snapshots.create(runId, { name: "start", seq: 0 });
      expect(first).toMatchObject({ seq: 0, node: "write", status: "running", createdAt: clock.now() });
      const last = await runtime.snapshots.create(runId, { name: "end" });
      expect(last).toMatchObject({ status: "completed", seq: (await runtime.get(runId)).seq });
      expect((await runtime.snapshots.get(last.snapshotId)).run.output).toEqual({ draft: "once", answer: "yes" });
      expect(await runtime.verify(runId)).toMatchObject({ ok: true });
    });

    test("one with the id of another replaces it, and keeps when it was made", async () => {
      const { runtime, clock, runId } = await open();
      const first = await runtime.snapshots.create(runId, { name: "one", tags: ["a"], snapshotId: "mine" });
      await clock.advance(5_000);
      const second = await runtime.snapshots.create(runId, { name: "two", seq: 0, snapshotId: "mine" });
      expect([second.createdAt, second.updatedAt]).toEqual([first.createdAt, clock.now()]);
      expect((await runtime.snapshots.list()).snapshots).toEqual([second]);
      expect(await runtime.snapshots.delete("mine")).toBe(true);
      expect(await runtime.snapshots.delete("mine")).toBe(false);
      expect((await runtime.snapshots.get("mine").catch((error) => error)).code).toBe("SNAPSHOT_NOT_FOUND");
    });

    test("they are listed newest first, by run, tag and text, in pages", async () => {
      const { runtime, clock, runId } = await open();
      for (const [i, tags] of [["Gold"], ["golden"], ["GOLD", "x"]].entries()) {
        await clock.advance(1);
        await runtime.snapshots.create(runId, { name: `Story ${i}`, ...(i === 1 ? { description: "The Ending" } : {}), tags });
      }
      const { runId: other } = await runtime.start("story");
      await runtime.snapshots.create(other, { name: "another" });
      const names = async (query: object) => (await runtime.snapshots.list(query)).snapshots.map(({ name }) => name);
      expect(await names({ runId })).toEqual(["Story 2", "Story 1", "Story 0"]);
      expect(await names({ tag: "gold" })).toEqual(["Story 2", "Story 0"]);
      expect(await names({ text: "ending" })).toEqual(["Story 1"]);
      expect(await names({ text: "story", tag: "gold", runId })).toEqual(["Story 2", "Story 0"]);
      expect(await names({ tag: "", text: "" })).toHaveLength(4);
      expect(await names({ workflowId: "other" })).toEqual([]);
      const page = await runtime.snapshots.list({ runId, limit: 2 });
      expect(page.snapshots).toHaveLength(2);
      expect(await names({ runId, cursor: page.next })).toEqual(["Story 0"]);
    });

    test("restored, it is a fork that names it; the run that it marks stays as it is", async () => {
      const { runtime, runId } = await open();
      const { snapshotId, seq } = await runtime.snapshots.create(runId, { name: "written", seq: 1 });
      await runtime.respond(runId, "yes");
      await runtime.tick(runId);
      const before = await runtime.ledger(runId);
      const { runId: restored } = await runtime.snapshots.restore(snapshotId, {
        vars: (vars: any) => ({ ...vars, draft: "twice" }),
      });
      const run = await runtime.get(restored);
      expect(run.origin).toEqual({ kind: "fork", runId, seq, hash: before[1]!.hash, snapshotId });
      expect(run.tags).toEqual(["run tag"]);
      await runtime.tick(restored);
      await runtime.respond(restored, "no");
      await runtime.tick(restored);
      expect(await runtime.result(restored)).toEqual({ draft: "twice", answer: "no" });
      expect(await runtime.ledger(runId)).toEqual(before);
      // With an id of one's own, once; and its tags are those given.
      for (let i = 0; i < 2; i++)
        expect(await runtime.snapshots.restore(snapshotId, { runId: "mine", tags: ["t"] })).toEqual({ runId: "mine" });
      expect(await runtime.get("mine")).toMatchObject({ tags: ["t"], seq: 0 });
      expect((await runtime.snapshots.restore(snapshotId, { runId: "mine" }).catch((error) => error)).code).toBe("RUN_EXISTS");
      expect((await runtime.fork(runId, { runId: "mine", atSeq: 1 }).catch((error) => error)).code).toBe("RUN_EXISTS");
    });

    test("one that was made in the middle of a step is restored by running the step again", async () => {
      const { runtime, runId } = await open();
      const { snapshotId } = await runtime.snapshots.create(runId, { name: "asked" });
      expect((await runtime.snapshots.restore(snapshotId).catch((error) => error)).code).toBe("FORK_OPEN_EFFECTS");
      const { runId: restored } = await runtime.snapshots.restore(snapshotId, { open: "restart" });
      await runtime.tick(restored);
      expect(await runtime.get(restored)).toMatchObject({ status: "waiting", node: "ask" });
    });

    test("one of other code is refused, unless a migration leads from there", async () => {
      const { runtime, store, runId } = await open();
      const { snapshotId } = await runtime.snapshots.create(runId, { name: "written", seq: 1 });
      const refused = async (workflows: any[]) => {
        const other = await withCode(store, workflows);
        const error = await other.snapshots.restore(snapshotId).catch((thrown) => thrown);
        return [error.code, error.message];
      };
      const runs = (await store.query({})).runs.length;
      const gone = await refused([]);
      expect(gone).toEqual(["WORKFLOW_INCOMPATIBLE", expect.stringContaining("does not have that workflow")]);
      const nodes = { write: () => goto("asks"), asks: () => complete() };
      const without = defineWorkflow({ id: "story", entry: "write", nodes } as any) as any;
      expect(await refused([without])).toEqual(["WORKFLOW_INCOMPATIBLE", expect.stringContaining('Did you mean "asks"')]);
      const strict = z.object({ title: z.string() });
      expect((await refused([story({ vars: strict })]))[0]).toBe("WORKFLOW_INCOMPATIBLE");
      expect((await refused([story({ vars: strict, version: 2 })]))[0]).toBe("WORKFLOW_INCOMPATIBLE");
      expect((await store.query({})).runs).toHaveLength(runs);
      const migrated = await withCode(store, [
        story({ vars: strict, version: 2, migrations: { 1: (vars: any) => ({ title: vars.draft }) } }),
      ]);
      const { runId: restored } = await migrated.snapshots.restore(snapshotId);
      await migrated.tick(restored);
      expect(await migrated.get(restored)).toMatchObject({ version: "2", vars: { title: "once" }, status: "waiting" });
    });

    test("of a purged run it is still listed, and says what became of the run", async () => {
      const { runtime, store, runId } = await open();
      const { snapshotId } = await runtime.snapshots.create(runId, { name: "end" });
      await runtime.cancel(runId);
      await runtime.tick(runId);
      expect((await store.purge([runId], "too old")).purged).toEqual([runId]);
      const { runId: other } = await runtime.start("story");
      expect((await runtime.snapshots.list({ runId })).snapshots).toHaveLength(1);
      for (const call of [
        () => runtime.snapshots.get(snapshotId),
        () => runtime.snapshots.restore(snapshotId, { open: "restart" }),
        () => runtime.snapshots.create(runId, { name: "again" }),
        () => runtime.fork(runId),
        () => runtime.fork(other, { runId }),
        () => runtime.replay(runId),
        () => runtime.diff(runId, 0, 1),
        () => runtime.stateAt(runId, 0),
      ]) {
        const error = await call().catch((thrown: any) => thrown);
        expect(error.code).toBe("RUN_PURGED");
        expect(error.message).toContain("too old");
      }
      expect(await runtime.snapshots.delete(snapshotId)).toBe(true);
    });

    test("where the record is not the one that was marked, nothing is shown and nothing goes on", async () => {
      const { runtime, store, runId } = await open();
      const made = await runtime.snapshots.create(runId, { name: "written", seq: 1 });
      await store.saveSnapshot({ ...made, tags: [], hash: "0".repeat(64) });
      for (const call of [() => runtime.snapshots.get(made.snapshotId), () => runtime.snapshots.restore(made.snapshotId)]) {
        const error = await call().catch((thrown: any) => thrown);
        expect([error.code, error.fields.seq]).toEqual(["RECORD_CORRUPT", 1]);
      }
      expect((await store.query({})).runs).toHaveLength(1);
    });

    test("what they are given is checked", async () => {
      const { runtime, runId } = await open();
      const refused = async (call: Promise<unknown>) => ((await call.catch((error) => error)) as any).code;
      const create = (options: any) => refused(runtime.snapshots.create(runId, options));
      for (const options of [
        {},
        { name: "" },
        { name: "x".repeat(201) },
        { name: "\ud800" },
        { name: "a\0b" },
        { name: "a", description: 5 },
        { name: "a", tags: "a" },
        { name: "a", tags: [""] },
        { name: "a", snapshotId: "" },
        { name: "a", tag: ["x"] },
      ])
        expect(await create(options)).toBe("INVALID_OPTION");
      expect(await create({ name: "a", seq: 99 })).toBe("SEQ_NOT_FOUND");
      expect(await refused(runtime.snapshots.create("nobody", { name: "a" }))).toBe("RUN_NOT_FOUND");
      expect(await refused(runtime.snapshots.list({ tags: "a" } as any))).toBe("INVALID_OPTION");
      expect(await refused(runtime.snapshots.list({ limit: 0 }))).toBe("INVALID_OPTION");
      expect(await refused(runtime.snapshots.list({ cursor: "x" }))).toBe("INVALID_OPTION");
      for (const query of [{ tag: 5 }, { text: ["a"] }, { runId: null }, { text: "\ud83d" }] as any[])
        expect(await refused(runtime.snapshots.list(query))).toBe("INVALID_OPTION");
      expect(await refused(runtime.snapshots.restore("nothing"))).toBe("SNAPSHOT_NOT_FOUND");
      const { snapshotId } = await runtime.snapshots.create(runId, { name: "a", seq: 1 });
      expect(await refused(runtime.snapshots.restore(snapshotId, { atSeq: 0 } as any))).toBe("INVALID_OPTION");
      expect(await refused(runtime.snapshots.restore(snapshotId, { vars: { draft: 5 } }))).toBe("VARS_INVALID");
      expect((await runtime.snapshots.list()).snapshots).toHaveLength(1);
      await runtime.stop();
      expect(await refused(runtime.snapshots.list())).toBe("RUNTIME_STOPPED");
      expect(await refused(runtime.snapshots.delete(snapshotId))).toBe("RUNTIME_STOPPED");
    });
  });
}
