/** Who comes first, and who must wait for a slot: priorities and the limits of queues. */
import assert from "node:assert/strict";
import type { Capability, QueueLimits } from "../../kernel/transition.ts";
import {
  type Case,
  finish,
  foldedOf,
  type Holder,
  idsOf,
  message,
  minute,
  park,
  type RunOptions,
  stored,
  type World,
} from "./world.ts";

/** Creates runs, by id, in this order; all are due at once. */
async function create(world: World, runs: Record<string, RunOptions>): Promise<void> {
  await world.store.create(Object.entries(runs).map(([runId, options]) => stored(world.newRun({ runId, ...options }))));
}

/** What a worker is given, by id. */
async function given(world: World, worker: Capability, limit = 100): Promise<string[]> {
  return idsOf(await world.store.claim(worker, { limit }));
}

function serving(world: World, limits: QueueLimits, queue = "q"): Promise<Capability> {
  return world.worker({ queues: { [queue]: limits } });
}

/** Whoever holds this run, as its driver. */
async function holderOf(world: World, runId: string): Promise<Holder> {
  const loaded = await world.load(runId);
  assert.ok(loaded.lease, `nobody holds ${runId}`);
  return world.holder(foldedOf(loaded), loaded.lease);
}

async function parkIt(world: World, runId: string): Promise<void> {
  const holder = await holderOf(world, runId);
  await world.store.commit([holder.next([park({ waitKey: "go" })], { release: true, mailSeen: Number.MAX_SAFE_INTEGER })]);
}

async function end(world: World, runId: string): Promise<void> {
  await world.store.commit([(await holderOf(world, runId)).next([finish()], { release: true })]);
}

async function moment(world: World, worker: Capability): Promise<number | undefined> {
  return (await world.store.nextDue(worker)).at;
}

export const queueCases: Record<string, Case> = {
  async "priority: higher first, then those due longest, then in the order of creation, over all workflows"(world) {
    const now = world.clock.now();
    const at = (runId: string, due: number, options: RunOptions = {}) => stored(world.newRun({ runId, ...options }), now + due);
    await world.store.create([
      at("low", 1, { priority: -5 }),
      at("late", 9),
      at("a", 5, { workflowId: "other" }),
      at("b", 5),
      at("c", 5, { workflowId: "other" }),
      at("high", 9, { priority: 2, workflowId: "third" }),
      at("early", 3, { workflowId: "third" }),
      at("highest", 9, { priority: 100 }),
    ]);
    await world.clock.advance(10);
    const worker = await world.worker();
    assert.deepEqual(await given(world, worker, 4), ["highest", "high", "early", "a"]);
    assert.deepEqual(await given(world, worker, 3), ["b", "c", "late"]);
    assert.deepEqual(await given(world, worker, 3), ["low"]);
  },

  async "priority: what is not due yet waits, however high it is"(world) {
    await world.store.create([
      stored(world.newRun({ runId: "high", priority: 9 }), world.clock.now() + 5),
      stored(world.newRun({ runId: "low" })),
    ]);
    const worker = await world.worker();
    assert.equal(await moment(world, worker), world.clock.now());
    assert.deepEqual(await given(world, worker), ["low"]);
    assert.equal(await moment(world, worker), world.clock.now() + 5);
  },

  async "claim: many that are due, of many workflows, are given in order, each once, in claims of any size"(world) {
    const now = world.clock.now();
    const runs = Array.from({ length: 120 }, (_, i) => ({
      runId: `run ${i}`,
      due: now - ((i * 7) % 40),
      options: { workflowId: `w${i % 5}`, priority: i % 3, ...(i % 4 === 0 ? { queue: "q", queueKey: `k${i % 3}` } : {}) },
    }));
    await world.store.create(runs.map(({ runId, due, options }) => stored(world.newRun({ runId, ...options }), due)));
    const expected = [...runs].sort((a, b) => b.options.priority - a.options.priority || a.due - b.due).map(({ runId }) => runId);
    const worker = await serving(world, { concurrency: 1_000, keyConcurrency: 1_000 });
    const claimed: string[] = [];
    for (const limit of [1, 2, 50, 3, 200]) claimed.push(...(await given(world, worker, limit)));
    assert.deepEqual(claimed, expected);
  },

  async "queues: a run in a queue is given only to a worker that serves it, by name or not"(world) {
    await create(world, { plain: {}, queued: { queue: "q" }, other: { queue: "toString" } });
    const none = await world.worker();
    assert.equal(await moment(world, none), world.clock.now());
    assert.deepEqual(await given(world, none), ["plain"]);
    assert.equal(await moment(world, none), undefined);
    assert.deepEqual(await world.store.claim(none, { limit: 1, runId: "queued" }), []);
    const worker = await serving(world, {});
    assert.deepEqual(idsOf(await world.store.claim(worker, { limit: 1, runId: "queued" })), ["queued"]);
    // When the worker expires that holds the run without a queue.
    assert.equal(await moment(world, worker), world.clock.now() + minute);
    assert.deepEqual(await given(world, await serving(world, {}, "toString")), ["other"]);
  },

  async "queues: a block does not give way to a worker that does not serve the queue"(world) {
    const block = { code: "X", problem: "", fingerprint: "code 1", quarantine: false };
    const holder = await world.held({ queue: "q" });
    await world.store.release(holder.runId, holder.lease, { blocked: block });
    const none = await world.worker({ fingerprint: "code 2" });
    assert.equal(await moment(world, none), undefined);
    assert.deepEqual(await given(world, none), []);
    assert.deepEqual(await world.store.claim(none, { limit: 1, runId: holder.runId }), []);
    assert.equal((await world.load(holder.runId)).blocked?.code, "X");
    const worker = await world.worker({ fingerprint: "code 2", queues: { q: {} } });
    assert.equal(await moment(world, worker), world.clock.now());
    assert.deepEqual(await given(world, worker), [holder.runId]);
  },

  async "concurrency: so many are held at the same time, over all workers, and no more"(world) {
    await create(world, {
      a: { queue: "q" },
      b: { queue: "q", workflowId: "other" },
      c: { queue: "q", priority: 1 },
      d: { queue: "q" },
    });
    await create(world, { plain: {} });
    const [one, two] = [await serving(world, { concurrency: 2 }), await serving(world, { concurrency: 2 })];
    assert.deepEqual(await given(world, one, 1), ["c"]);
    assert.deepEqual(await given(world, two), ["a", "plain"]);
    assert.equal(await moment(world, one), (await world.store.nextDue(two)).now + minute);
    assert.deepEqual(await given(world, one), []);
    assert.deepEqual(await world.store.claim(one, { limit: 1, runId: "b" }), []);
    // A run that is parked, or has ended, has no slot.
    await parkIt(world, "c");
    assert.equal(await moment(world, one), world.clock.now());
    assert.deepEqual(await given(world, one), ["b"]);
    await end(world, "a");
    assert.deepEqual(idsOf(await world.store.claim(two, { limit: 1, runId: "d" })), ["d"]);
    // And must have one again to go on.
    await world.store.deliver([message("c")]);
    assert.deepEqual(await given(world, two), []);
    await end(world, "d");
    assert.deepEqual(await given(world, two), ["c"]);
  },

  async "concurrency: claims of one turn count together"(world) {
    await create(world, Object.fromEntries(["a", "b", "c", "d"].map((runId) => [runId, { queue: "q" }])));
    const workers = await Promise.all([1, 2, 3].map(() => serving(world, { concurrency: 3 })));
    const claims = await Promise.all(workers.map((worker) => given(world, worker, 2)));
    assert.deepEqual(claims, [["a", "b"], ["c"], []]);
  },

  async "concurrency: of 0 stops a queue; what waits for a slot has no moment"(world) {
    await create(world, { a: { queue: "q" } });
    const worker = await serving(world, { concurrency: 0 });
    assert.deepEqual(await given(world, worker), []);
    assert.equal(await moment(world, worker), undefined);
  },

  async "concurrency: the slots of a worker that has died are free with its runs"(world) {
    await create(world, { a: { queue: "q", workflowId: "other" }, b: { queue: "q" } });
    const dying = await serving(world, { concurrency: 1 });
    assert.deepEqual(await given(world, dying), ["a"]);
    await world.clock.advance(10);
    const worker = await world.worker({ queues: { q: { concurrency: 1 } }, workflows: ["work"] });
    assert.deepEqual(await given(world, worker), []);
    // It does not know the workflow of the run that is held, and waits for its slot all the same.
    assert.equal(await moment(world, worker), world.clock.now() + minute - 10);
    await world.clock.advance(minute - 10);
    assert.deepEqual(await given(world, worker), ["b"]);
  },

  async "concurrency: a release without a commit, and a retired worker, give slots back"(world) {
    await create(world, { a: { queue: "q" } });
    const worker = await serving(world, { concurrency: 1 });
    for (let i = 0; i < 3; i++) {
      assert.deepEqual(await given(world, worker), ["a"]);
      const { lease } = await holderOf(world, "a");
      if (i === 1) await world.store.retire(worker.workerId);
      else await world.store.release("a", lease, {});
    }
    assert.deepEqual(await given(world, worker), ["a"]);
  },

  async "keyConcurrency: so many of a key, those without a key unlimited; full keys hold up nobody else"(world) {
    await create(
      world,
      Object.fromEntries(
        ["a1", "a2", "a3", "-1", "b1", "b2", "-2", "a4", "c1"].map((runId) => [
          runId,
          { queue: "q", ...(runId.startsWith("-") ? {} : { queueKey: runId[0] }) },
        ]),
      ),
    );
    const worker = await serving(world, { keyConcurrency: 1 });
    assert.deepEqual(await given(world, worker, 3), ["a1", "-1", "b1"]);
    assert.equal(await moment(world, worker), world.clock.now());
    assert.deepEqual(await given(world, worker), ["-2", "c1"]);
    assert.deepEqual(await given(world, worker), []);
    assert.equal(await moment(world, worker), undefined);
    assert.deepEqual(await world.store.claim(worker, { limit: 1, runId: "a2" }), []);
    await end(world, "a1");
    assert.deepEqual(await given(world, worker), ["a2"]);
    await parkIt(world, "b1");
    assert.deepEqual(idsOf(await world.store.claim(worker, { limit: 1, runId: "b2" })), ["b2"]);
    await world.store.deliver([message("b1")]);
    assert.deepEqual(await given(world, worker), []);
  },

  async "keyConcurrency: beside concurrency, both hold; another queue's keys are its own"(world) {
    const keyed = (queue: string, queueKey: string): RunOptions => ({ queue, queueKey });
    await create(world, {
      a1: keyed("q", "a"),
      a2: keyed("q", "a"),
      a3: keyed("q", "a"),
      b1: keyed("q", "b"),
      x: keyed("p", "a"),
    });
    const worker = await world.worker({ queues: { q: { concurrency: 3, keyConcurrency: 2 }, p: { keyConcurrency: 1 } } });
    assert.deepEqual(await given(world, worker), ["a1", "a2", "b1", "x"]);
    await end(world, "b1");
    assert.deepEqual(await given(world, worker), []);
    await end(world, "a1");
    assert.deepEqual(await given(world, worker), ["a3"]);
  },

  async "keyConcurrency: those behind many of a full key are found, in order"(world) {
    const many = (key: string, count: number): [string, RunOptions][] =>
      Array.from({ length: count }, (_, i) => [`${key}${i}`, { queue: "q", queueKey: key }]);
    await create(
      world,
      Object.fromEntries([
        ...many("a", 600),
        ["-0", { queue: "q" }],
        ...many("b", 300),
        ["-1", { queue: "q" }],
        ...many("c", 3),
        ...many("d", 1),
      ]),
    );
    const worker = await serving(world, { keyConcurrency: 2 });
    assert.deepEqual(await given(world, worker, 6), ["a0", "a1", "-0", "b0", "b1", "-1"]);
    assert.equal(await moment(world, worker), world.clock.now());
    assert.deepEqual(await given(world, worker, 2), ["c0", "c1"]);
    assert.deepEqual(await given(world, worker), ["d0"]);
    assert.equal(await moment(world, worker), undefined);
    await end(world, "b0");
    assert.deepEqual(await given(world, worker), ["b2"]);
    await end(world, "a0");
    assert.deepEqual(await given(world, worker, 1), ["a2"]);
  },

  async "rateLimit: so many begin in any period, wherever it starts"(world) {
    await create(world, Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`r${i}`, { queue: "q" }])));
    const worker = await serving(world, { rateLimit: { limit: 3, periodMs: 100 } });
    const start = world.clock.now();
    assert.deepEqual(await given(world, worker, 1), ["r0"]);
    await world.clock.advance(60);
    const other = await serving(world, { rateLimit: { limit: 3, periodMs: 100 } });
    assert.deepEqual(await given(world, other), ["r1", "r2"]);
    assert.equal(await moment(world, worker), start + 100);
    assert.deepEqual(await world.store.claim(worker, { limit: 1, runId: "r3" }), []);
    await world.clock.advance(39);
    assert.deepEqual(await given(world, worker), []);
    await world.clock.advance(1);
    assert.deepEqual(await given(world, worker), ["r3"]);
    assert.equal(await moment(world, worker), start + 160);
    await world.clock.advance(60);
    assert.deepEqual(idsOf(await world.store.claim(worker, { limit: 1, runId: "r8" })), ["r8"]);
    assert.deepEqual(await given(world, worker), ["r4"]);
    assert.equal(await moment(world, worker), start + 200);
    await world.clock.advance(1_000);
    assert.deepEqual(await given(world, worker), ["r5", "r6", "r7"]);
  },

  async "rateLimit: runs that have begun go on whenever they are due"(world) {
    await create(world, Object.fromEntries(["a", "b", "c", "d"].map((runId) => [runId, { queue: "q" }])));
    const worker = await serving(world, { rateLimit: { limit: 2, periodMs: 1_000 } });
    assert.deepEqual(await given(world, worker), ["a", "b"]);
    await parkIt(world, "a");
    await parkIt(world, "b");
    await world.store.deliver([message("b"), message("a")]);
    assert.equal(await moment(world, worker), world.clock.now());
    assert.deepEqual(idsOf(await world.store.claim(worker, { limit: 1, runId: "b" })), ["b"]);
    assert.deepEqual(await given(world, worker), ["a"]);
    assert.equal(await moment(world, worker), world.clock.now() + 1_000);
    await world.clock.advance(1_000);
    assert.deepEqual((await given(world, worker)).sort(), ["c", "d"]);
  },

  async "rateLimit: of 0 lets none begin, and has no moment; a run that is not due yet begins when it is"(world) {
    const now = world.clock.now();
    await world.store.create([
      stored(world.newRun({ runId: "a", queue: "q" }), now + 300),
      stored(world.newRun({ runId: "b", queue: "q" })),
    ]);
    const never = await serving(world, { rateLimit: { limit: 0, periodMs: 10 } });
    assert.deepEqual(await given(world, never), []);
    assert.equal(await moment(world, never), undefined);
    const worker = await serving(world, { rateLimit: { limit: 1, periodMs: 100 } });
    assert.deepEqual(await given(world, worker), ["b"]);
    assert.equal(await moment(world, worker), now + 300);
  },
};
