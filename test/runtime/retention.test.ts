// What is removed and what is kept: purged and archived runs, and the archived part of a ledger.
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import {
  complete,
  createRuntime,
  defineWorkflow,
  fail,
  goto,
  type Runtime,
  type Store,
  subworkflow,
  waitEvent,
} from "../../src/index.ts";
import { faultyStore, type TestClock, testClock } from "../../src/testing/index.ts";
import { type Kind, opened, runtimeOver, startTree } from "./moving-tree.ts";
import { deafStore } from "../kept-store.ts";

/** Short days: workers renew their leases all the time. */
const day = 60_000;
const quick = defineWorkflow({
  id: "quick",
  entry: "end",
  nodes: { end: ({ vars }) => (vars.fails ? fail("it was asked to") : complete(vars.output ?? {})) },
});
const asks = defineWorkflow({
  id: "asks",
  entry: "ask",
  nodes: { ask: () => waitEvent("go", { nextNode: "end" }), end: () => complete() },
});
const spawner = defineWorkflow({
  id: "spawner",
  entry: "go",
  nodes: {
    go: ({ vars }) => subworkflow(vars.waits ? asks : quick, { vars: {}, detached: true }, { nextNode: "end" }),
    end: () => complete(),
  },
});
/** Adds to a list until it is told to stop: a ledger that grows. */
const counter = defineWorkflow({
  id: "counter",
  entry: "count",
  nodes: {
    count: ({ vars }) => {
      vars.n = (vars.n ?? 0) + 1;
      vars.note = "some text ".repeat(20);
      return vars.n % 50 === 0 ? waitEvent("more", { nextNode: "count" }) : goto("count");
    },
  },
});
const workflows = [quick, asks, spawner, counter];

let directory: string;
let clock: TestClock;
beforeEach(() => {
  clock = testClock();
  directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
});

async function runtimeOn(kind: Kind): Promise<Runtime> {
  const { store } = await opened(kind, clock);
  const runtime = await createRuntime({ workflows, store, clock, scheduler: false });
  onTestFinished(() => runtime.stop());
  return runtime;
}

/** One of several over a store, which outlives them. */
async function runtimeOf(store: Store): Promise<Runtime> {
  const kept = deafStore(store);
  const runtime = await createRuntime({ workflows, store: kept, clock, scheduler: false });
  onTestFinished(() => runtime.stop());
  return runtime;
}

async function idsOf(runtime: Runtime): Promise<string[]> {
  return (await runtime.list({ limit: 1_000 })).runs.map(({ runId }) => runId).sort();
}

describe.each(["memory", "sqlite"] as const)("on %s", (kind) => {
  test("purge: by age, status, tags and workflow; live runs stay; a dry run only tells", async () => {
    const runtime = await runtimeOn(kind);
    await runtime.run(quick, { runId: "old", tags: ["a"] });
    await runtime.run(quick, { runId: "old failed", vars: { fails: true }, tags: ["a", "b"] });
    await runtime.run(asks, { runId: "live", tags: ["a"] });
    await clock.advance(10 * day);
    await runtime.run(quick, { runId: "new", tags: ["a"] });
    const all = await idsOf(runtime);
    const aged = { olderThanMs: 5 * day };
    expect(await runtime.purge({ ...aged, dryRun: true })).toMatchObject({ runs: 2, trees: 2, kept: 0, dryRun: true });
    expect(await idsOf(runtime)).toEqual(all);
    expect(await runtime.purge({ ...aged, status: "failed", tags: ["a", "c"] })).toMatchObject({ runs: 0 });
    expect(await runtime.purge({ ...aged, workflowId: "asks" })).toMatchObject({ runs: 0 });
    expect((await runtime.purge({ ...aged, status: "failed", tags: ["a", "b"] })).runIds).toEqual(["old failed"]);
    expect((await runtime.purge({ endedBefore: new Date(clock.now() - day) })).runIds).toEqual(["old"]);
    expect(await idsOf(runtime)).toEqual(["live", "new"]);
    expect(await runtime.purge({ runIds: ["live", "new", "nowhere"] })).toMatchObject({ runs: 1, kept: 1, runIds: ["new"] });
    await expect(runtime.get("new")).rejects.toMatchObject({ code: "RUN_PURGED" });
    await expect(runtime.verify("new")).rejects.toMatchObject({ code: "RUN_PURGED" });
    await expect(runtime.tree("new")).rejects.toMatchObject({ code: "RUN_PURGED" });
    await expect(runtime.start(quick, { runId: "new" })).rejects.toMatchObject({ code: "RUN_PURGED" });
    await runtime.signal("live", "go");
    await runtime.tick("live");
    expect((await runtime.purge({ status: "completed" })).runIds).toEqual(["live"]);
  });

  test("purge: many at once, and one that is tried again meanwhile stays alone", async () => {
    const runtime = await runtimeOn(kind);
    const ids = Array.from({ length: 450 }, (_, i) => `run ${String(i).padStart(3, "0")}`);
    for (const runId of ids) await runtime.run(quick, { runId, vars: { fails: true } });
    const { purge } = runtime.store;
    let calls = 0;
    runtime.store.purge = async (...args) => {
      calls += 1;
      // Between the look and the removal.
      if (calls === 2) await runtime.retry("run 300");
      return purge.apply(runtime.store, args);
    };
    expect(await runtime.purge({ status: "failed" })).toMatchObject({ runs: 449, trees: 449, kept: 1 });
    expect(calls).toBe(2 + 200 + 1);
    expect(await idsOf(runtime)).toEqual(["run 300"]);
  });

  test("purge: a tree goes as a whole, or stays", async () => {
    const runtime = await runtimeOn(kind);
    await runtime.run(spawner, { runId: "done" });
    await runtime.run(spawner, { runId: "child lives", vars: { waits: true } });
    for (const { runId } of (await runtime.list({ status: "running" })).runs) await runtime.tick(runId);
    const childOf = async (parentRunId: string) => (await runtime.list({ parentRunId })).runs[0]?.runId as string;
    const [ended, live] = [await childOf("done"), await childOf("child lives")];
    expect(await runtime.purge({ runIds: [ended] })).toMatchObject({ runs: 0, kept: 1 });
    expect(await runtime.purge({ workflowId: "quick" })).toMatchObject({ runs: 0 });
    expect(await runtime.purge({ status: "completed" })).toMatchObject({ runs: 2, trees: 1, kept: 1, runIds: ["done"] });
    expect(await idsOf(runtime)).toEqual(["child lives", live].sort());
  });

  test("purge: runs of a schedule go by themselves while it lives, but for one that it waits for", async () => {
    const runtime = await runtimeOn(kind);
    await runtime.schedules.create({ id: "hourly", workflow: quick, everyMs: day, overlap: "queue" });
    const drive = async (): Promise<void> => {
      for (let i = 0; i < 3; i++)
        for (const { runId } of (await runtime.list({ status: ["running", "waiting"] })).runs)
          await runtime.tick(runId).catch(() => undefined);
    };
    await drive();
    for (let i = 0; i < 5; i++) {
      await clock.advance(day);
      await drive();
    }
    const of = async (): Promise<number> => (await runtime.list({ parentRunId: "schedule:hourly" })).runs.length;
    expect(await of()).toBe(5);
    expect(await runtime.purge({ status: "completed", olderThanMs: 1.5 * day, dryRun: true })).toMatchObject({
      runs: 3,
      kept: 0,
    });
    expect(await runtime.purge({ status: "completed", olderThanMs: 1.5 * day })).toMatchObject({ runs: 3, trees: 3, kept: 0 });
    expect(await of()).toBe(2);
    await clock.advance(day);
    await drive();
    expect(await of()).toBe(3);
    expect(await runtime.schedules.get("hourly")).not.toHaveProperty("lastError");
    // Nor is there a second one that nobody knows of.
    await expect(runtime.fork("schedule:hourly", { open: "restart" })).rejects.toMatchObject({ code: "FORK_REFUSED" });
    // Over, it is a tree like any other.
    await runtime.cancel("schedule:hourly");
    await runtime.tick("schedule:hourly");
    expect(await runtime.purge({ olderThanMs: 0, dryRun: true })).toMatchObject({ runs: 0 });
    await clock.advance(1);
    expect(await runtime.purge({ olderThanMs: 0 })).toMatchObject({ runs: 4, trees: 1 });
    // Its id can be used again, also when the one before is purged later.
    const hourly = { id: "hourly", workflow: quick, everyMs: day };
    await expect(runtime.schedules.get("hourly")).rejects.toMatchObject({ code: "SCHEDULE_NOT_FOUND" });
    for (const generation of [2, 3, 4]) {
      const { runId } = await runtime.schedules.create(hourly);
      expect(runId).toBe(`schedule:hourly~${generation}`);
      await clock.advance(1);
      await runtime.purge({ olderThanMs: 0 });
      expect(await runtime.schedules.get("hourly")).toMatchObject({ runId, status: "active" });
      expect(await runtime.schedules.create(hourly)).toMatchObject({ runId });
      await runtime.schedules.delete("hourly");
      await runtime.tick(runId);
      if (generation === 3) await runtime.schedules.delete("hourly");
    }
  });

  test("purge: what makes no sense is refused", async () => {
    const runtime = await runtimeOn(kind);
    const refused = (query: object) => expect(runtime.purge(query as never)).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await refused({});
    await refused({ dryRun: true });
    await refused({ status: "running" });
    await refused({ olderThanMs: -1 });
    await refused({ endedBefore: "yesterday" });
    await refused({ olderThan: 5 });
    // What has left lives elsewhere: a copy of it could not be imported, nor anything else of the same file.
    const to = join(directory, "left.jsonl");
    await expect(runtime.archive({ left: true, to })).rejects.toMatchObject({ code: "INVALID_OPTION" });
  });

  test("archive: written, removed, and imported again as it was", async () => {
    const runtime = await runtimeOn(kind);
    await runtime.run(spawner, { runId: "done" });
    for (const { runId } of (await runtime.list({ status: "running" })).runs) await runtime.tick(runId);
    await runtime.run(asks, { runId: "live" });
    const all = await idsOf(runtime);
    const ledger = await runtime.ledger("done");
    const file = join(directory, "old.jsonl");
    expect(await runtime.archive({ status: "completed", to: file, dryRun: true })).toMatchObject({ runs: 2, dryRun: true });
    expect(existsSync(file)).toBe(false);
    expect(await runtime.archive({ status: "completed", to: file })).toMatchObject({ runs: 2, trees: 1, file });
    expect(await idsOf(runtime)).toEqual(["live"]);
    expect((await runtime.store.tombstone("done"))?.note).toBe(`archived in ${file}`);
    await expect(runtime.get("done")).rejects.toThrow(file);
    expect(await runtime.archive({ status: "completed", to: join(directory, "none.jsonl") })).toMatchObject({ runs: 0 });
    expect(existsSync(join(directory, "none.jsonl"))).toBe(false);
    expect((await runtime.import(file)).runIds[0]).toBe("done");
    expect(await idsOf(runtime)).toEqual(all);
    expect(await runtime.ledger("done")).toEqual(ledger);
    expect((await runtime.verify("done")).ok).toBe(true);
    expect(await runtime.store.tombstone("done")).toBeUndefined();
  });

  test("archive: a file that exists is not replaced, and nothing is removed", async () => {
    const runtime = await runtimeOn(kind);
    await runtime.run(quick, { runId: "done" });
    const file = join(directory, "mine.txt");
    writeFileSync(file, "mine");
    await expect(runtime.archive({ status: "completed", to: file })).rejects.toMatchObject({ code: "INVALID_OPTION" });
    await expect(runtime.archive({ status: "completed", to: join(directory, "no", "such") })).rejects.toMatchObject({
      code: "INVALID_OPTION",
    });
    expect(readFileSync(file, "utf8")).toBe("mine");
    expect(await idsOf(runtime)).toEqual(["done"]);
  });

  test("archiveLedger: the older part goes to a file, the run records it and goes on, and all verifies", async () => {
    const runtime = await runtimeOn(kind);
    const runId = "long";
    await runtime.run(counter, { runId });
    const whole = await runtime.ledger(runId);
    const states = [await runtime.stateAt(runId, 30), await runtime.get(runId)];
    const file = join(directory, "ledger.jsonl");
    const archived = await runtime.archiveLedger(runId, { before: 20, to: file });
    expect(archived).toMatchObject({ runId, first: 0, before: 20, file, hash: whole[19]?.hash });
    // Told, and not yet taken.
    expect((await runtime.ledger(runId)).length).toBe(whole.length);
    await runtime.tick(runId);
    const kept = await runtime.ledger(runId);
    expect(kept.slice(0, -1)).toEqual(whole.slice(20));
    expect(kept.at(-1)).toMatchObject({ kind: "control", data: { action: "archived", before: 20, hash: whole[19]?.hash } });
    expect(await runtime.verify(runId)).toMatchObject({ problems: [], ok: true, archivedBefore: 20, records: kept.length });
    expect((await runtime.get(runId)).archivedBefore).toBe(20);
    expect(await runtime.stateAt(runId, 30)).toEqual(states[0]);
    await expect(runtime.stateAt(runId, 5)).rejects.toMatchObject({ code: "RECORDS_ARCHIVED" });
    await expect(runtime.ledger(runId, { from: 0 })).rejects.toMatchObject({ code: "RECORDS_ARCHIVED" });
    // The same start finds it still.
    expect(await runtime.start(counter, { runId })).toEqual({ runId });
    await expect(runtime.start(quick, { runId })).rejects.toMatchObject({ code: "RUN_EXISTS" });
    // It goes on, and is archived again, further.
    for (let i = 0; i < 8; i++) {
      await runtime.signal(runId, "more");
      await runtime.tick(runId);
    }
    const { seq } = await runtime.get(runId);
    await runtime.archiveLedger(runId, { before: seq - 10, to: join(directory, "more.jsonl") });
    await runtime.tick(runId);
    expect(await runtime.verify(runId)).toMatchObject({ ok: true, archivedBefore: seq - 10 });
    expect((await runtime.get(runId)).vars.n).toBe(450);
    expect((await runtime.get(runId)).seq).toBe(seq + 1);
    const lines = readFileSync(join(directory, "more.jsonl"), "utf8").trim().split("\n");
    expect(lines).toHaveLength(seq - 10 - 20 + 2);
    await runtime.cancel(runId);
    await runtime.tick(runId);
    expect((await runtime.verify(runId)).ok).toBe(true);
    expect((await runtime.purge({ runIds: [runId] })).runs).toBe(1);
  });

  test("archiveLedger: what cannot be archived is refused, and an archive of what is archived already is ignored", async () => {
    const runtime = await runtimeOn(kind);
    const { seq } = await runtime.run(counter, { runId: "long" });
    const to = (name: string) => join(directory, name);
    for (const before of [0, -1, seq + 1, 1.5, Number.NaN])
      await expect(runtime.archiveLedger("long", { before, to: to("x") })).rejects.toMatchObject({ code: "INVALID_OPTION" });
    expect(existsSync(to("x"))).toBe(false);
    await runtime.run(quick, { runId: "done" });
    await expect(runtime.archiveLedger("done", { before: 1, to: to("x") })).rejects.toMatchObject({ code: "RUN_ENDED" });
    await expect(runtime.archiveLedger("nowhere", { before: 1, to: to("x") })).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
    // Two on their way: the second says what the first has done already.
    await runtime.archiveLedger("long", { before: 40, to: to("a") });
    await runtime.archiveLedger("long", { before: 10, to: to("b") });
    await runtime.tick("long");
    const records = await runtime.ledger("long");
    expect(records.slice(-2).map(({ kind, data }) => [kind, (data as { outcome?: string }).outcome])).toEqual([
      ["control", undefined],
      ["delivered", "ignored"],
    ]);
    expect(await runtime.verify("long")).toMatchObject({ ok: true, archivedBefore: 40 });
  });

  test("a fork of a run with an archived ledger is whole, and is archived by itself", async () => {
    const runtime = await runtimeOn(kind);
    await runtime.run(counter, { runId: "long" });
    await runtime.archiveLedger("long", { before: 20, to: join(directory, "a") });
    await runtime.signal("long", "more");
    await runtime.tick("long");
    const { runId } = await runtime.fork("long", { atSeq: 60 });
    expect((await runtime.get(runId)).archivedBefore).toBeUndefined();
    await runtime.tick(runId);
    await runtime.archiveLedger(runId, { before: 10, to: join(directory, "b") });
    await runtime.tick(runId);
    expect(await runtime.verify(runId)).toMatchObject({ ok: true, archivedBefore: 10 });
    await expect(runtime.fork("long", { atSeq: 5 })).rejects.toMatchObject({ code: "RECORDS_ARCHIVED" });
  });
});

test("archiving that is cut off at any call is whole or has not happened, and the run goes on", async () => {
  for (const after of [false, true]) {
    for (let n = 1; ; n++) {
      const { store } = await opened("sqlite", clock);
      const runtime = await runtimeOf(store);
      await runtime.run(counter, { runId: "long" });
      const to = join(directory, `${after} ${n}`);
      const faulty = await runtimeOf(faultyStore(store, [{ kind: "fail", fromCall: n + 2, after }]));
      const cut = await faulty
        .archiveLedger("long", { before: 30, to })
        .then(() => faulty.tick("long"))
        .then(
          () => false,
          () => true,
        );
      // Its process has died.
      const { lease } = (await store.load("long")) ?? {};
      if (lease) await store.retire(lease.workerId);
      await runtime.tick("long");
      const { ok, archivedBefore } = await runtime.verify("long");
      expect(ok).toBe(true);
      if (archivedBefore === undefined) {
        // Its sender did not hear that it was sent: it tries again, with another file.
        await runtime.archiveLedger("long", { before: 30, to: `${to} again` });
        await runtime.tick("long");
      }
      expect(await runtime.verify("long")).toMatchObject({ ok: true, archivedBefore: 30 });
      await runtime.signal("long", "more");
      await runtime.tick("long");
      expect(await runtime.verify("long")).toMatchObject({ ok: true, archivedBefore: 30 });
      if (!cut) break;
      expect(n).toBeLessThan(50);
    }
  }
});

test("the file of an archived ledger is no run to import", async () => {
  const runtime = await runtimeOn("memory");
  await runtime.run(counter, { runId: "long" });
  await runtime.archiveLedger("long", { before: 20, to: join(directory, "a") });
  await expect(runtime.import(join(directory, "a"))).rejects.toMatchObject({ code: "PORTABLE_INVALID" });
  expect(await idsOf(runtime)).toEqual(["long"]);
});

test("a ledger whose archived part is not what the run says does not verify", async () => {
  const runtime = await runtimeOn("memory");
  await runtime.run(counter, { runId: "long" });
  await runtime.archiveLedger("long", { before: 20, to: join(directory, "a") });
  await runtime.tick("long");
  const { checkpoints } = runtime.store;
  const [base] = await runtime.store.checkpoints("long");
  runtime.store.checkpoints = async () => [];
  expect((await runtime.verify("long")).problems[0]?.problem).toContain("nothing stands for them");
  runtime.store.checkpoints = async () => [{ ...base, text: `${base?.text} ` } as never];
  expect((await runtime.verify("long")).ok).toBe(false);
  runtime.store.checkpoints = checkpoints;
});

test("what has left is purged by itself", async () => {
  const [{ store: from }, { store: to }] = [await opened("sqlite", clock), await opened("memory", clock)];
  const tree = await startTree(from, clock);
  const { moveRuns } = await import("../../src/index.ts");
  await moveRuns(from, to, [tree.parentId]);
  const runtime = await runtimeOver(from, clock);
  expect(await runtime.purge({ olderThanMs: 0 })).toMatchObject({ runs: 0 });
  expect(await runtime.purge({ left: true })).toMatchObject({ runs: 2, trees: 1 });
  await runtime.stop();
});
