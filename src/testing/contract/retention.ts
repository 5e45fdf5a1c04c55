/** What is removed, and what is left of it: purged runs, and the archived part of a ledger. */
import assert from "node:assert/strict";
import {
  type Case,
  failing,
  finish,
  foldedOf,
  goOn,
  type Holder,
  message,
  minute,
  outcomes,
  park,
  refuses,
  retried,
  same,
  stored,
  type World,
} from "./world.ts";

/** A run that has ended and is held by nobody. */
async function ended(world: World, runId?: string): Promise<Holder> {
  const holder = await world.held(runId === undefined ? {} : { runId });
  await world.store.commit([holder.next([goOn("a"), finish()], { release: true })]);
  return holder;
}

async function failed(world: World): Promise<Holder> {
  const holder = await world.held();
  await world.store.commit([holder.next([failing()], { release: true })]);
  return holder;
}

const seqsOf = (records: readonly { seq: number }[]): number[] => records.map(({ seq }) => seq);

/** A run of `count` records with checkpoints at every tenth, held. */
async function long(world: World, count: number): Promise<Holder> {
  const holder = await world.held();
  for (let ordinal = 1; holder.state.seq < count; ordinal++) {
    const transition = holder.next(Array.from({ length: 10 }, (_, i) => goOn([ordinal, i])));
    transition.checkpoint = holder.checkpoint(ordinal);
    await world.store.commit([transition]);
  }
  return holder;
}

/** Archives the records of a run before a seq. */
async function archive(world: World, holder: Holder, before: number): Promise<void> {
  const base = foldedOf(await world.load(holder.runId, { at: before - 1 }));
  const checkpoint = { ...world.holder(base, holder.lease).checkpoint(0), seq: before - 1 };
  await world.store.commit([holder.next([goOn(`archived before ${before}`)], { dropBefore: before, checkpoint })]);
}

export const retentionCases: Record<string, Case> = {
  async "purge: an ended run goes with all that is its own; its tombstone stays"(world) {
    const holder = await world.parked({ runId: "gone", actorId: "ada" });
    await world.store.deliver([message("gone"), message("gone", { id: "m2", key: "other" })]);
    const last = await world.takeOver(holder);
    await world.store.commit([last.next([goOn(), finish()], { take: ["m1"] })]);
    const { row } = await world.load("gone");
    await world.clock.advance(minute);
    same(await world.store.purge(["gone"], "kept in a file"), { live: [], purged: ["gone"] });
    assert.equal(await world.store.load("gone"), undefined);
    same(await world.store.records("gone", 0, 10), []);
    same(await world.store.checkpoints("gone"), []);
    same(await world.store.mail("gone", 0), []);
    same(await world.store.query({}), { runs: [] });
    assert.equal(await world.store.copyOf("gone"), undefined);
    assert.equal((await world.store.stats()).runs, 0);
    same(await world.store.tombstone("gone"), {
      runId: "gone",
      workflowId: "work",
      status: "completed",
      head: row.head,
      seq: row.seq,
      endedAt: row.updatedAt,
      purgedAt: world.clock.now(),
      note: "kept in a file",
    });
  },

  async "purge: all or none; live runs are answered, and nothing is removed then"(world) {
    const done = await ended(world);
    const [running, waiting] = [await world.held(), await world.parked()];
    const created = world.newRun();
    await world.store.create([stored(created)]);
    const stillHeld = await world.held();
    await world.store.commit([stillHeld.next([failing()])]);
    const tried = await failed(world);
    await world.store.deliver([message(tried.runId, { kind: "control", key: "retry", ifFailed: true })]);
    const live = [running.runId, waiting.runId, created.row.runId, stillHeld.runId, tried.runId];
    for (const runId of live) same(await world.store.purge([done.runId, runId]), { live: [runId], purged: [] });
    const answer = await world.store.purge([done.runId, ...live]);
    assert.deepEqual([...answer.live].sort(), [...live].sort());
    for (const runId of [done.runId, ...live]) {
      assert.ok(await world.store.load(runId));
      assert.equal(await world.store.tombstone(runId), undefined);
    }
  },

  async "purge: a run that has lived on since somebody looked stays"(world) {
    const [one, other] = [await failed(world), await failed(world)];
    const heads = new Map([one, other].map(({ runId, state }) => [runId, state.head]));
    await world.store.deliver([message(other.runId, { kind: "control", key: "retry", ifFailed: true })]);
    const again = await world.takeOver(other);
    await world.store.commit([again.next([retried(), failing()], { take: ["m1"], release: true })]);
    const ids = [one.runId, other.runId];
    same(await world.store.purge(ids, undefined, heads), { live: [other.runId], purged: [] });
    heads.set(other.runId, again.state.head);
    same(await world.store.purge(ids, undefined, heads), { live: [], purged: ids });
  },

  async "purge: a run that failed goes, unless it is retried meanwhile"(world) {
    const [first, second] = [await failed(world), await failed(world)];
    same(await world.store.purge([first.runId]), { live: [], purged: [first.runId] });
    await world.store.deliver([message(second.runId, { kind: "control", key: "retry", ifFailed: true })]);
    const again = await world.takeOver(second);
    same((await world.store.purge([second.runId])).live, [second.runId]);
    await world.store.commit([again.next([retried()], { take: ["m1"] })]);
    same((await world.store.purge([second.runId])).live, [second.runId]);
    await world.store.commit([again.next([finish()])]);
    same((await world.store.purge([second.runId])).purged, [second.runId]);
  },

  async "purge: unknown ids and a second call do nothing; the first tombstone stays"(world) {
    const { runId } = await ended(world);
    same(await world.store.purge(["nowhere", runId, runId], "first"), { live: [], purged: [runId] });
    await world.clock.advance(minute);
    same(await world.store.purge([runId], "second"), { live: [], purged: [] });
    assert.equal((await world.store.tombstone(runId))?.note, "first");
    assert.equal(await world.store.tombstone("nowhere"), undefined);
  },

  async "purge: the id stays taken, for starts, children and messages"(world) {
    await ended(world, "taken");
    await world.store.purge(["taken"]);
    const { state: _, ...again } = world.newRun({ runId: "taken" });
    assert.deepEqual(await world.store.create([again]), [false]);
    const parent = await world.held();
    await world.store.commit([parent.next([goOn()], { start: [again] })]);
    assert.equal(await world.store.load("taken"), undefined);
    assert.deepEqual(await world.store.deliver([message("taken")]), [{ kind: "no_run" }]);
  },

  async "purge: other runs keep what is theirs, and a new run inherits nothing"(world) {
    const [one, two, three] = [await ended(world), await world.parked(), await ended(world)];
    const before = await world.load(two.runId);
    await world.store.purge([one.runId, three.runId]);
    same(await world.load(two.runId), before);
    const next = await world.parked({ waitKey: "next" });
    same(seqsOf((await world.load(next.runId, { whole: true })).tail), [0, 1]);
    same(await world.store.checkpoints(next.runId), []);
    const { runs } = await world.store.query({ order: "oldest" });
    assert.deepEqual(
      runs.map(({ runId }) => runId),
      [two.runId, next.runId],
    );
    same((await world.store.query({ waitKey: "go" })).runs.length, 1);
  },

  async "purge: that a run of a queue began still counts for its rate"(world) {
    const queues = { q: { rateLimit: { limit: 2, periodMs: minute } } };
    const worker = await world.worker({ queues });
    const begin = async (runId: string): Promise<string[]> => {
      await world.store.create([stored(world.newRun({ runId, queue: "q" }))]);
      const claimed = await world.store.claim(worker, { limit: 10 });
      for (const { row, lease } of claimed) {
        const holder = world.holder(foldedOf(await world.load(row.runId)), lease as NonNullable<typeof lease>);
        await world.store.commit([holder.next([finish()])]);
        await world.store.purge([row.runId]);
      }
      return claimed.map(({ row }) => row.runId);
    };
    assert.deepEqual([await begin("a"), await begin("b"), await begin("c")], [["a"], ["b"], []]);
    await world.clock.advance(minute);
    assert.deepEqual(await begin("d"), ["c", "d"]);
  },

  async "purge: artifacts are let go, and snapshots stay"(world) {
    const holder = await world.held();
    const artifact = { sizeBytes: 1, contentType: "text/plain", tags: {}, createdAt: world.clock.now(), blob: "b" };
    const id = "a".repeat(64);
    await world.store.putArtifact({ ...artifact, id }, { pinMs: 0 });
    await world.store.commit([holder.next([goOn(), finish()], { artifacts: [id] })]);
    const { row } = await world.load(holder.runId);
    const { runId, workflowId, version, seq, head: hash, node, status } = row;
    const now = world.clock.now();
    const snapshot = { snapshotId: "s", runId, workflowId, version, seq, hash, node, status, name: "n", tags: [] };
    await world.store.saveSnapshot({ ...snapshot, createdAt: now, updatedAt: now });
    assert.deepEqual((await world.store.artifact(id))?.runIds, [runId]);
    await world.store.purge([runId]);
    assert.deepEqual((await world.store.artifact(id))?.runIds, []);
    assert.equal((await world.store.snapshot("s"))?.runId, runId);
    assert.equal((await world.store.snapshots({ runId })).snapshots.length, 1);
  },

  async "archiving: older records go with the commit, and the run loads from what stands for them"(world) {
    const holder = await long(world, 50);
    const kept = await world.store.records(holder.runId, 25, 100);
    await archive(world, holder, 25);
    const loaded = await world.load(holder.runId);
    assert.equal(loaded.archivedBefore, 25);
    same(foldedOf(loaded), holder.state);
    same((await world.store.records(holder.runId, 25, 100)).slice(0, -1), kept);
    for (const [from, limit] of [
      [0, 1],
      [24, 10],
      [0, 1_000],
    ] as const)
      await refuses(world.store.records(holder.runId, from, limit), "RECORDS_ARCHIVED");
    same(await world.store.records(holder.runId, 0, 0), []);
    const whole = await world.load(holder.runId, { whole: true });
    assert.equal(whole.checkpoint, undefined);
    assert.deepEqual(
      seqsOf(whole.tail),
      Array.from({ length: holder.state.seq - 24 }, (_, i) => 25 + i),
    );
    const checkpoints = await world.store.checkpoints(holder.runId);
    assert.deepEqual([checkpoints[0]?.seq, checkpoints[0]?.ordinal], [24, 0]);
    assert.ok(checkpoints.every(({ seq }) => seq >= 24));
  },

  async "archiving: each record that is kept can still be looked at, none before"(world) {
    const holder = await long(world, 40);
    const before = await Promise.all([24, 25, 33].map((at) => world.load(holder.runId, { at })));
    await archive(world, holder, 25);
    for (const was of before) {
      const at = was.tail.at(-1)?.seq ?? (was.checkpoint?.seq as number);
      same(foldedOf(await world.load(holder.runId, { at })), foldedOf(was));
    }
    for (const at of [0, 10, 23]) await refuses(world.store.load(holder.runId, { at }), "RECORDS_ARCHIVED");
  },

  async "archiving: again, further on; what stood for the older part goes"(world) {
    const holder = await long(world, 60);
    await archive(world, holder, 25);
    await archive(world, holder, 45);
    assert.equal((await world.load(holder.runId)).archivedBefore, 45);
    const checkpoints = await world.store.checkpoints(holder.runId);
    assert.deepEqual([checkpoints[0]?.seq, checkpoints[0]?.ordinal], [44, 0]);
    same(foldedOf(await world.load(holder.runId)), holder.state);
    // The last record, too, may be archived; what stands for it is then all there is to load from.
    await archive(world, holder, holder.state.seq + 1);
    same(foldedOf(await world.load(holder.runId)), holder.state);
  },

  async "archiving: later checkpoints never thin out what stands for the archived part"(world) {
    const holder = await long(world, 20);
    await archive(world, holder, 15);
    for (let ordinal = 3; ordinal < 40; ordinal++) {
      const transition = holder.next([goOn(ordinal)]);
      transition.checkpoint = holder.checkpoint(ordinal);
      await world.store.commit([transition]);
    }
    assert.equal((await world.store.checkpoints(holder.runId))[0]?.seq, 14);
    assert.equal(foldedOf(await world.load(holder.runId, { at: 14 })).seq, 14);
  },

  async "archiving: a commit that fails removes nothing"(world) {
    const holder = await long(world, 20);
    const stranger = holder.twin({ workerId: "nobody", epoch: 7 });
    const base = foldedOf(await world.load(holder.runId, { at: 9 }));
    const checkpoint = world.holder(base, holder.lease).checkpoint(0);
    const commit = world.store.commit([stranger.next([goOn()], { dropBefore: 10, checkpoint })]);
    assert.deepEqual(await outcomes([commit]), ["CONFLICT"]);
    assert.equal((await world.store.records(holder.runId, 0, 5)).length, 5);
    assert.equal((await world.load(holder.runId)).archivedBefore, undefined);
  },

  async "archiving: a parked run goes on from there, and is purged whole"(world) {
    const holder = await long(world, 20);
    await archive(world, holder, 15);
    await world.store.commit([holder.next([park({ waitKey: "go" })], { release: true })]);
    await world.store.deliver([message(holder.runId)]);
    const next = await world.takeOver(holder);
    await world.store.commit([next.next([goOn(), finish()], { take: ["m1"] })]);
    same((await world.store.purge([holder.runId])).purged, [holder.runId]);
    same(await world.store.records(holder.runId, 0, 1), []);
  },
};
