/** Looking back, comparing, forking. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  all,
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  definite,
  goto,
  join as joinChild,
  type Runtime,
  type RuntimeOptions,
  sleep,
  subworkflow,
  waitEvent,
} from "abstractruntime";
import { testClock, testIds } from "abstractruntime/testing";
import { afterEach, describe, expect, test } from "vitest";
import { z } from "zod";
import { decodeRecord } from "../../src/kernel/record.ts";
import { type Place, placeOf, type StoreKind, storeKinds } from "../scenarios/places.ts";

const opened: Runtime[] = [];
const places: Place[] = [];
const directories: string[] = [];
afterEach(async () => {
  for (const runtime of opened.splice(0)) await runtime.stop();
  for (const place of places.splice(0)) await place.remove();
  for (const directory of directories.splice(0)) rmSync(directory, { recursive: true });
});

async function open(kind: StoreKind, options: Partial<RuntimeOptions> = {}) {
  const clock = testClock();
  const place = await placeOf(kind);
  places.push(place);
  const store = await place.open(clock);
  const runtime = await createRuntime({ store, clock, ids: testIds(3), scheduler: false, ...options });
  opened.push(runtime);
  return { runtime, clock, store };
}

const calls: string[] = [];
const charge = defineEffect("charge", {
  policy: { maxAttempts: 1 },
  undo: ({ result }: any) => refund({ of: result }),
  run: ({ cents }: { cents: number }, { idempotencyKey }) => {
    calls.push(idempotencyKey);
    if (cents < 0) throw definite(new Error("nothing to charge"));
    return `receipt ${cents}`;
  },
});
const refund = defineEffect("refund", {
  run: ({ of }: { of: string }) => {
    calls.push(`refund of ${of}`);
    return "refunded";
  },
});

const order = defineWorkflow({
  id: "order",
  vars: z.object({
    cents: z.number(),
    items: z.array(z.object({ name: z.string() })).default([]),
    total: z.number().optional(),
    receipt: z.string().optional(),
    answer: z.any().optional(),
  }),
  entry: "count",
  effects: [charge, refund],
  nodes: {
    count: ({ vars }) => {
      vars.total = vars.cents * 2;
      return goto("pay");
    },
    pay: ({ vars }) => charge({ cents: vars.total as number }, { resultKey: "receipt", nextNode: "ask" }) as any,
    ask: ({ vars }) => {
      vars.items.push({ name: "asked" });
      return askUser({ prompt: "Ship?" }, { resultKey: "answer", nextNode: "done" }) as any;
    },
    done: ({ vars }) => complete({ receipt: vars.receipt, answer: vars.answer?.text }),
  },
});

for (const kind of storeKinds) {
  describe(`on ${kind}`, () => {
    test("a run is looked at after a record, and at a time", async () => {
      const { runtime, clock } = await open(kind, { workflows: [order] });
      const startedAt = clock.now();
      const { runId } = await runtime.start(order, { vars: { cents: 1, items: [] } });
      await clock.advance(1_000);
      await runtime.tick(runId);
      await clock.advance(60_000);
      await runtime.respond(runId, "yes");
      await clock.advance(1_000);
      await runtime.tick(runId);
      const ledger = await runtime.ledger(runId);
      for (const [seq, record] of ledger.entries()) expect((await runtime.stateAt(runId, seq)).seq).toBe(record.seq);
      const at = async (point: number | Date | string) => (await runtime.stateAt(runId, point)).seq;
      expect(await at(new Date(startedAt))).toBe(0);
      expect(await at(new Date(startedAt + 999))).toBe(0);
      // Of several records of one moment, the last.
      const parked = ledger.findLastIndex(({ kind: of }) => of === "parked");
      expect(await at(new Date(startedAt + 1_000))).toBe(parked);
      expect(await at(new Date(startedAt + 61_999).toISOString())).toBe(parked);
      expect(await at(new Date(startedAt + 62_000))).toBe(ledger.length - 1);
      expect(await at(new Date(startedAt + 10_000_000))).toBe(ledger.length - 1);
      expect((await runtime.stateAt(runId, new Date(startedAt + 61_999))).waits).toHaveLength(1);
      const refused = async (point: any) => (await runtime.stateAt(runId, point).catch((error) => error)).code;
      expect(await refused(new Date(startedAt - 1))).toBe("BEFORE_START");
      expect(await refused(-1)).toBe("SEQ_NOT_FOUND");
      expect(await refused(1.5)).toBe("SEQ_NOT_FOUND");
      expect(await refused(ledger.length)).toBe("SEQ_NOT_FOUND");
      expect(await refused("2026-01-01T00:00:00")).toBe("INVALID_OPTION");
      expect(await refused("yesterday")).toBe("INVALID_OPTION");
      expect(await refused({})).toBe("INVALID_OPTION");
      expect((await runtime.stateAt("nobody", 0).catch((error) => error)).code).toBe("RUN_NOT_FOUND");
    });

    test("a time is found in a long ledger without reading it", async () => {
      const loop = defineWorkflow({
        id: "loop",
        entry: "turn",
        nodes: {
          turn: ({ vars }) => {
            vars.n = (vars.n ?? 0) + 1;
            return vars.n < 1_500 ? goto("turn") : complete();
          },
        },
      });
      const { runtime, clock, store } = await open(kind, { workflows: [loop] });
      const startedAt = clock.now();
      const { runId } = await runtime.start(loop);
      for (let i = 0; i < 15; i++) {
        await clock.advance(100);
        await runtime.tick(runId, { maxSteps: 100 });
      }
      const { records } = store;
      let read = 0;
      store.records = async (...args) => {
        const found = await records.apply(store, args);
        read += found.length;
        return found;
      };
      expect((await runtime.stateAt(runId, new Date(startedAt + 750))).vars.n).toBe(700);
      expect(read).toBeLessThan(20);
    });

    test("two points are compared: vars, place, waits, and the records between", async () => {
      const { runtime, clock } = await open(kind, { workflows: [order] });
      const { runId } = await runtime.start(order, { vars: { cents: 1, items: [{ name: "a" }, { name: "b" }] } });
      await runtime.tick(runId);
      const asked = await runtime.get(runId);
      const diff = await runtime.diff(runId, 0, asked.seq);
      expect(diff.vars).toEqual([
        { op: "add", path: "/items/2", value: { name: "asked" } },
        { op: "add", path: "/total", value: 2 },
        { op: "add", path: "/receipt", value: "receipt 2" },
      ]);
      expect(diff.from).toMatchObject({ seq: 0, node: "count", step: 1, status: "running", at: clock.now() });
      expect(diff.to).toMatchObject({ seq: asked.seq, node: "ask", step: 3, status: "waiting" });
      expect(diff.waitsOpened).toEqual(asked.waits);
      expect(diff.waitsClosed).toEqual([]);
      expect(diff.records).toEqual({ step: 1, effect_started: 1, effect_completed: 1, parked: 1 });
      await runtime.respond(runId, "yes");
      await runtime.tick(runId);
      const ended = await runtime.get(runId);
      const back = await runtime.diff(runId, ended.seq, 0);
      expect(back.vars).toContainEqual({ op: "remove", path: "/items/2" });
      expect([back.from.status, back.to.status]).toEqual(["completed", "running"]);
      const closing = await runtime.diff(runId, asked.seq, ended.seq);
      expect(closing.waitsClosed).toEqual(asked.waits);
      expect(closing.records).toEqual({ delivered: 1, run_completed: 1 });
      const none = await runtime.diff(runId, 2, 2);
      expect([none.vars, none.records, none.waitsOpened]).toEqual([[], {}, []]);
      expect((await runtime.diff(runId, 0, 99).catch((error) => error)).code).toBe("SEQ_NOT_FOUND");
      // What is answered is a copy.
      (diff.vars[0] as any).value.name = "changed";
      expect((await runtime.stateAt(runId, asked.seq)).vars.items).toEqual([{ name: "a" }, { name: "b" }, { name: "asked" }]);
    });

    test("a fork goes on from any record between two steps, with its origin's vars or others, and its origin stays as it is", async () => {
      calls.length = 0;
      const { runtime } = await open(kind, { workflows: [order] });
      const { runId } = await runtime.start(order, {
        vars: { cents: 1, items: [] },
        tags: ["gold"],
        sessionId: "s",
        actorId: "ann",
        priority: 5,
      });
      await runtime.tick(runId);
      const before = await runtime.ledger(runId);
      const step = before.findIndex(({ kind: of }) => of === "step");
      const fork = await runtime.fork(runId, { atSeq: step });
      const forked = await runtime.get(fork.runId);
      const { runId: _, seq: __, origin, createdAt: ___, updatedAt: ____, wakeAt: _____, ...rest } = forked;
      expect(origin).toEqual({ kind: "fork", runId, seq: step, hash: before[step]!.hash });
      const { runId: a, seq: b, createdAt: c, updatedAt: d, wakeAt: e, ...expected } = await runtime.stateAt(runId, step);
      expect(rest).toEqual(expected);
      expect([rest.tags, rest.sessionId, rest.actorId, rest.priority]).toEqual([["gold"], "s", "ann", 5]);
      const other = await runtime.fork(runId, {
        atSeq: step,
        vars: (vars) => {
          vars.total = 1_000;
        },
        tags: ["blue"],
        actorId: "bob",
      });
      for (const one of [fork, other]) {
        await runtime.tick(one.runId);
        await runtime.respond(one.runId, "no");
        await runtime.tick(one.runId);
        expect(await runtime.verify(one.runId)).toMatchObject({ ok: true });
      }
      expect(await runtime.result(fork.runId)).toEqual({ receipt: "receipt 2", answer: "no" });
      expect(await runtime.result(other.runId)).toEqual({ receipt: "receipt 1000", answer: "no" });
      expect(await runtime.get(other.runId)).toMatchObject({ tags: ["blue"], actorId: "bob" });
      expect((await runtime.ledger(other.runId)).map(({ actorId }) => actorId)).toContain("bob");
      expect(await runtime.ledger(runId)).toEqual(before);
      expect((await runtime.get(runId)).status).toBe("waiting");
      // Three runs charged: each under a key of its own.
      expect(calls).toHaveLength(3);
      expect(new Set(calls).size).toBe(3);
      expect((await runtime.tree(runId)).children).toEqual([]);
      // A fork of a fork names the fork.
      const again = await runtime.fork(fork.runId, { atSeq: 0 });
      expect((await runtime.get(again.runId)).origin).toMatchObject({ runId: fork.runId, seq: 0 });
      expect((await runtime.get(again.runId)).vars).toEqual(expected.vars);
    });

    test("effects that are open are refused, or their step runs again from its node", async () => {
      calls.length = 0;
      const { runtime } = await open(kind, { workflows: [order] });
      const { runId } = await runtime.start(order, { vars: { cents: 1, items: [] } });
      await runtime.tick(runId);
      const ledger = await runtime.ledger(runId);
      const refused = await runtime.fork(runId).catch((error) => error);
      expect(refused.code).toBe("FORK_OPEN_EFFECTS");
      expect(refused.fields).toMatchObject({ runId, seq: ledger.length - 1 });
      expect(refused.message).toContain("ask_user");
      // The wait was opened by the last record: the fork goes on from the one before it, with the vars before the node changed them.
      const waiting = await runtime.fork(runId, { open: "restart" });
      const run = await runtime.get(waiting.runId);
      expect(run.origin).toMatchObject({ seq: ledger.length - 2, hash: ledger.at(-2)!.hash });
      expect([run.node, run.vars.items, run.waits]).toEqual(["ask", [], []]);
      await runtime.tick(waiting.runId);
      const [own] = (await runtime.get(waiting.runId)).waits;
      const [origins] = (await runtime.get(runId)).waits;
      expect(own!.waitKey).not.toBe(origins!.waitKey);
      expect((await runtime.get(waiting.runId)).vars.items).toEqual([{ name: "asked" }]);
      // In the middle of an effect.
      const started = ledger.findIndex(({ kind: of }) => of === "effect_started");
      expect((await runtime.fork(runId, { atSeq: started }).catch((error) => error)).code).toBe("FORK_OPEN_EFFECTS");
      const paying = await runtime.fork(runId, { atSeq: started, open: "restart" });
      expect((await runtime.get(paying.runId)).node).toBe("pay");
      await runtime.tick(paying.runId);
      expect(new Set(calls).size).toBe(2);
      // Where nothing is open, "restart" changes nothing.
      const between = await runtime.fork(runId, { atSeq: started - 1, open: "restart" });
      expect((await runtime.get(between.runId)).origin).toMatchObject({ seq: started - 1 });
    });

    test("a group, with members that have ended and some that have not, is restarted as a whole", async () => {
      const group = defineWorkflow({
        id: "group",
        entry: "both",
        effects: [charge, refund],
        nodes: {
          both: ({ vars }) => {
            vars.tries = (vars.tries ?? 0) + 1;
            return all([charge({ cents: 5 }), waitEvent("go")], { resultKey: "both", nextNode: "done" });
          },
          done: ({ vars }) => complete({ both: vars.both, tries: vars.tries }),
        },
      });
      const { runtime } = await open(kind, { workflows: [group] });
      const { runId } = await runtime.start(group);
      await runtime.tick(runId);
      const { runId: fork } = await runtime.fork(runId, { open: "restart" });
      expect(await runtime.get(fork)).toMatchObject({ vars: {}, node: "both" });
      await runtime.tick(fork);
      await runtime.signal(fork, "go", "forked");
      await runtime.tick(fork);
      expect(await runtime.result(fork)).toEqual({ both: ["receipt 5", "forked"], tries: 1 });
    });

    test("an ended run is forked before its end, or by running the step again that ended it", async () => {
      const { runtime } = await open(kind, { workflows: [order] });
      const { runId } = await runtime.start(order, { vars: { cents: -1, items: [] } });
      await runtime.tick(runId);
      expect((await runtime.get(runId)).status).toBe("failed");
      expect((await runtime.fork(runId).catch((error) => error)).code).toBe("FORK_REFUSED");
      // The effect failed: its node runs again, on vars that are mended.
      const mended = await runtime.fork(runId, { open: "restart", vars: (vars: any) => ({ ...vars, total: 7 }) });
      await runtime.tick(mended.runId);
      await runtime.respond(mended.runId, "yes");
      await runtime.tick(mended.runId);
      expect(await runtime.result(mended.runId)).toEqual({ receipt: "receipt 7", answer: "yes" });
      // Completed: the node that completed it.
      const done = await runtime.fork(mended.runId, { open: "restart" });
      expect((await runtime.get(done.runId)).node).toBe("done");
      await runtime.tick(done.runId);
      expect(await runtime.result(done.runId)).toEqual({ receipt: "receipt 7", answer: "yes" });
      // A node that threw.
      const throwing = defineWorkflow({
        id: "throwing",
        entry: "one",
        nodes: {
          one: ({ vars }) => {
            vars.one = true;
            return goto("two");
          },
          two: ({ vars }) => {
            vars.two = true;
            throw new Error("no");
          },
        },
      });
      const thrown = await runtime.run(throwing);
      expect(thrown.status).toBe("failed");
      const { runId: fork } = await runtime.fork(thrown.runId, { open: "restart" });
      expect(await runtime.get(fork)).toMatchObject({ node: "two", vars: { one: true } });
    });

    test("a run that is cancelled or undone is not forked there, but before", async () => {
      calls.length = 0;
      const saga = defineWorkflow({
        id: "saga",
        entry: "pay",
        effects: [charge, refund],
        nodes: {
          pay: () => charge({ cents: 3 }, { resultKey: "receipt", nextNode: "wait" }),
          wait: () => waitEvent("go", { resultKey: "go", nextNode: "fails" }),
          fails: () => {
            throw new Error("no");
          },
        },
      });
      const { runtime } = await open(kind, { workflows: [saga, order] });
      const { runId } = await runtime.start(saga);
      await runtime.tick(runId);
      const { runId: fork } = await runtime.fork(runId, { open: "restart" });
      await runtime.signal(runId, "go");
      await runtime.tick(runId);
      expect((await runtime.get(runId)).status).toBe("failed");
      expect(calls.filter((call) => call.startsWith("refund"))).toEqual(["refund of receipt 3"]);
      for (const open of ["refuse", "restart"] as const)
        expect((await runtime.fork(runId, { open }).catch((error) => error)).code).toBe("FORK_REFUSED");
      // What the origin had charged is the origin's to undo.
      await runtime.tick(fork);
      await runtime.signal(fork, "go");
      await runtime.tick(fork);
      expect((await runtime.get(fork)).status).toBe("failed");
      expect(calls.filter((call) => call.startsWith("refund"))).toHaveLength(1);
      const cancelled = await runtime.start(order, { vars: { cents: 1, items: [] } });
      await runtime.tick(cancelled.runId);
      await runtime.cancel(cancelled.runId);
      await runtime.tick(cancelled.runId);
      expect((await runtime.fork(cancelled.runId, { open: "restart" }).catch((error) => error)).code).toBe("FORK_REFUSED");
      expect((await runtime.fork(cancelled.runId, { atSeq: 1 })).runId).toBeTypeOf("string");
    });

    test("a fork with an id of one's own is made once", async () => {
      const { runtime } = await open(kind, { workflows: [order] });
      const { runId } = await runtime.start(order, { vars: { cents: 1, items: [] } });
      await runtime.tick(runId, { maxSteps: 1 });
      const { seq } = await runtime.get(runId);
      const refused = (options: object) => runtime.fork(runId, { runId: "mine", ...options }).catch((error) => error.code);
      expect(await runtime.fork(runId, { runId: "mine" })).toEqual({ runId: "mine" });
      // Its origin has moved on, and so has the fork.
      await runtime.tick(runId);
      await runtime.tick("mine");
      expect(await runtime.fork(runId, { runId: "mine" })).toEqual({ runId: "mine" });
      expect(await runtime.fork(runId, { runId: "mine", atSeq: seq })).toEqual({ runId: "mine" });
      expect(await refused({ atSeq: 0 })).toBe("RUN_EXISTS");
      expect(await refused({ vars: { cents: 5, items: [] } })).toBe("RUN_EXISTS");
      expect(await refused({ runId, atSeq: seq })).toBe("RUN_EXISTS");
      expect((await runtime.start(order, { vars: { cents: 1, items: [] }, runId: "mine" }).catch((error) => error)).code).toBe(
        "RUN_EXISTS",
      );
      const many = await Promise.all(Array.from({ length: 5 }, () => runtime.fork(runId, { runId: "many", atSeq: 1 })));
      expect(new Set(many.map((one) => one.runId)).size).toBe(1);
      expect(await runtime.ledger("many")).toHaveLength(1);
    });

    test("what a fork is given is checked, and nothing is started", async () => {
      const { runtime, store } = await open(kind, { workflows: [order] });
      const { runId } = await runtime.start(order, { vars: { cents: 1, items: [] } });
      const refused = async (options: any) => (await runtime.fork(runId, options).catch((error) => error)).code;
      expect(await refused({ atseq: 1 })).toBe("INVALID_OPTION");
      expect(await refused({ open: "resume" })).toBe("INVALID_OPTION");
      expect(await refused({ runId: "" })).toBe("INVALID_OPTION");
      expect(await refused({ tags: "gold" })).toBe("INVALID_OPTION");
      expect(await refused({ actorId: 5 })).toBe("INVALID_OPTION");
      expect(await refused({ atSeq: 1 })).toBe("SEQ_NOT_FOUND");
      expect(await refused({ vars: { cents: "1" } })).toBe("VARS_INVALID");
      expect(await refused({ vars: [] })).toBe("NOT_JSON");
      expect(await refused({ vars: { cents: 1, items: [], answer: () => 1 } })).toBe("NOT_JSON");
      expect((await runtime.fork("nobody").catch((error) => error)).code).toBe("RUN_NOT_FOUND");
      expect((await store.query({})).runs).toHaveLength(1);
    });

    test("a fork of a child is a run of its own", async () => {
      const child = defineWorkflow({
        id: "child",
        entry: "wait",
        nodes: {
          wait: () => waitEvent("go", { resultKey: "go", nextNode: "done" }),
          done: ({ vars }) => complete(vars.go),
        },
      });
      const parent = defineWorkflow({
        id: "parent",
        entry: "start",
        nodes: {
          start: () => subworkflow("child", {}, { resultKey: "child", nextNode: "done" }),
          done: ({ vars }) => complete(vars.child),
        },
      });
      const { runtime } = await open(kind, { workflows: [parent, child] });
      const { runId } = await runtime.start(parent);
      await runtime.tick(runId);
      const [{ run }] = (await runtime.tree(runId)).children as any;
      await runtime.tick(run.runId);
      const { runId: fork } = await runtime.fork(run.runId, { open: "restart" });
      expect((await runtime.get(fork)).parentRunId).toBeUndefined();
      await runtime.tick(fork);
      await runtime.signal(fork, "go", 1);
      await runtime.tick(fork);
      expect(await runtime.result(fork)).toBe(1);
      expect((await runtime.get(runId)).status).toBe("waiting");
      expect((await runtime.tree(runId)).children).toHaveLength(1);
      // The parent's fork starts a child of its own.
      const { runId: other } = await runtime.fork(runId, { open: "restart" });
      await runtime.tick(other);
      const [own] = (await runtime.tree(other)).children as any;
      expect(own.run.runId).not.toBe(run.runId);
    });

    test("a child that the origin began is not the fork's to join", async () => {
      const child = defineWorkflow({ id: "child", entry: "done", nodes: { done: () => complete(1) } });
      const parent = defineWorkflow({
        id: "parent",
        entry: "start",
        nodes: {
          start: () => subworkflow("child", { detached: true }, { resultKey: "child", nextNode: "join" }),
          join: ({ vars }) => joinChild((vars.child as any).subRunId, { resultKey: "end", nextNode: "done" }),
          done: ({ vars }) => complete(vars.end),
        },
      });
      const { runtime } = await open(kind, { workflows: [parent, child] });
      const { runId } = await runtime.start(parent);
      await runtime.tick(runId, { maxSteps: 1 });
      const { runId: fork } = await runtime.fork(runId);
      await runtime.tick(fork);
      expect((await runtime.get(fork)).error?.code).toBe("CHILD_UNKNOWN");
    });

    test("a paused run's fork goes on, and one that sleeps sleeps anew", async () => {
      const nap = defineWorkflow({
        id: "nap",
        entry: "one",
        nodes: {
          one: () => goto("rest"),
          rest: () => sleep(1_000, { resultKey: "woke", nextNode: "done" }),
          done: () => complete("rested"),
        },
      });
      const { runtime, clock } = await open(kind, { workflows: [nap] });
      const { runId } = await runtime.start(nap);
      await runtime.tick(runId, { maxSteps: 1 });
      await runtime.pause(runId);
      await runtime.tick(runId);
      expect((await runtime.get(runId)).paused).toBe(true);
      const { runId: fork } = await runtime.fork(runId);
      await clock.advance(5_000);
      await runtime.tick(fork);
      expect(await runtime.get(fork)).toMatchObject({ paused: false, status: "waiting", wakeAt: clock.now() + 1_000 });
      await clock.advance(1_000);
      await runtime.tick(fork);
      expect(await runtime.result(fork)).toBe("rested");
    });

    test("where old records were archived, what is kept is looked at, and the rest says so", async () => {
      const { runtime, clock } = await open(kind, { workflows: [order] });
      const startedAt = clock.now();
      const { runId } = await runtime.start(order, { vars: { cents: 1, items: [] } });
      const early = await runtime.snapshots.create(runId, { name: "early" });
      await clock.advance(1_000);
      await runtime.tick(runId);
      const late = await runtime.snapshots.create(runId, { name: "late", seq: 3 });
      const before = await runtime.stateAt(runId, 3);
      const directory = mkdtempSync(join(tmpdir(), "time-travel-"));
      directories.push(directory);
      await runtime.archiveLedger(runId, { before: 3, to: join(directory, "old.jsonl") });
      await runtime.tick(runId);
      for (const call of [
        () => runtime.stateAt(runId, 0),
        () => runtime.stateAt(runId, new Date(startedAt)),
        () => runtime.diff(runId, 0, 3),
        () => runtime.fork(runId, { atSeq: 1 }),
        () => runtime.replay(runId),
        () => runtime.snapshots.get(early.snapshotId),
        () => runtime.snapshots.restore(early.snapshotId),
      ])
        expect((await call().catch((error: any) => error)).code).toBe("RECORDS_ARCHIVED");
      expect(await runtime.stateAt(runId, 3)).toEqual(before);
      expect((await runtime.stateAt(runId, new Date(startedAt + 1_000))).seq).toBeGreaterThan(3);
      expect((await runtime.snapshots.get(late.snapshotId)).run).toEqual(before);
      const { runId: fork } = await runtime.fork(runId, { open: "restart" });
      expect((await runtime.get(fork)).origin).toMatchObject({ seq: 3 });
      await runtime.respond(runId, "yes");
      await runtime.tick(runId);
      expect(await runtime.replay(runId, { fromSeq: 3 })).toMatchObject({ end: "ended", differences: [] });
      // A fork has a ledger of its own, from its beginning.
      expect((await runtime.ledger(fork)).map(({ kind: of }) => of)).toEqual(["run_restored"]);
      expect(await runtime.verify(fork)).toMatchObject({ ok: true });
    });

    test("a fork's state is the fold of its own ledger, wherever the origin stood", async () => {
      const { runtime, store } = await open(kind, { workflows: [order] });
      const { runId } = await runtime.start(order, { vars: { cents: 1, items: [] } });
      await runtime.tick(runId);
      await runtime.respond(runId, "yes");
      await runtime.tick(runId);
      const { seq } = await runtime.get(runId);
      for (let atSeq = 0; atSeq <= seq; atSeq++) {
        const { runId: fork } = await runtime.fork(runId, { atSeq, open: "restart" });
        const run = await runtime.get(fork);
        expect(run.seq).toBe(0);
        expect(run.waits).toEqual([]);
        const { seq: from, hash } = run.origin as any;
        expect(from).toBeLessThanOrEqual(atSeq);
        expect(decodeRecord(runId, (await store.records(runId, from, 1))[0]!).hash).toBe(hash);
        expect(run.vars).toEqual((await runtime.stateAt(runId, from)).vars);
        await runtime.tick(fork);
        if ((await runtime.get(fork)).status === "waiting") {
          await runtime.respond(fork, "yes");
          await runtime.tick(fork);
        }
        expect(await runtime.result(fork)).toEqual({ receipt: "receipt 2", answer: "yes" });
        expect(await runtime.verify(fork)).toMatchObject({ ok: true });
      }
    });
  });
}
