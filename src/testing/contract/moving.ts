/** Runs on their way between stores: fenced here, stored there, and one owner at every moment. */
import assert from "node:assert/strict";
import type { RunCopy } from "../../kernel/moving.ts";
import type { StoredRecord } from "../../kernel/record.ts";
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
  same,
  stored,
  type World,
} from "./world.ts";

const there = { token: "t1", to: "the other store" };

/** Everything of a fenced run. */
async function packed(world: World, runId: string): Promise<{ copy: RunCopy; records: StoredRecord[] }> {
  const copy = await world.store.copyOf(runId);
  assert.ok(copy, `there is no run ${runId}`);
  return { copy, records: await world.store.records(runId, copy.archivedBefore ?? 0, 1_000) };
}

/** Takes a run out of the store and brings it back with another token, in one. */
async function roundTrip(world: World, runIds: readonly string[]): Promise<void> {
  same(await world.store.fence(runIds, there), { refused: [] });
  const all = await Promise.all(runIds.map((runId) => packed(world, runId)));
  assert.deepEqual((await world.store.settle("t1", "left")).sort(), [...runIds].sort());
  for (const { copy, records } of all) {
    await world.store.adopt(copy, { token: "t2", to: "from there" });
    await world.store.adoptRecords(copy.row.runId, "t2", records);
  }
  assert.deepEqual((await world.store.settle("t2", "here")).sort(), [...runIds].sort());
}

/** A run with something of everything. */
async function rich(world: World): Promise<Holder> {
  const artifact = { sizeBytes: 1, contentType: "text/plain", tags: {}, createdAt: world.clock.now(), blob: "b" };
  await world.store.putArtifact({ ...artifact, id: "a".repeat(64) }, { pinMs: minute });
  const holder = await world.held({ actorId: "ada", sessionId: "s", queue: "q", queueKey: "k", priority: 3 });
  const [old, newer] = [holder.next([goOn(1)]), holder.next([goOn("\u0000😀")])];
  await world.store.commit([old]);
  const checkpoint = holder.checkpoint(2);
  await world.store.commit([{ ...newer, checkpoint, artifacts: ["a".repeat(64)], indexed: { "order.id": "7", n: 7 } }]);
  await world.store.deliver([
    message(holder.runId, { id: "taken" }),
    message(holder.runId, { id: "open", key: "later", payload: ["é", "\u0000"], actorId: "bob" }),
    message(holder.runId, { id: "recalled", key: "later" }),
  ]);
  const other = await world.held();
  await world.store.deliver([message(other.runId, { id: "x", recall: { runId: holder.runId, id: "recalled" } })]);
  await world.store.commit([other.next([finish()])]);
  const waits = [
    park({ waitKey: "go" }),
    park({ effectId: "2", waitKey: "w", reason: "until", until: world.clock.now() + minute }),
  ];
  await world.store.commit([holder.next(waits, { take: ["taken"], release: true, mailSeen: 1_000 })]);
  return holder;
}

export const movingCases: Record<string, Case> = {
  async "fence: the lease is void and nobody drives the run"(world) {
    const worker = await world.worker();
    const holder = await world.held({}, worker);
    same(await world.store.fence([holder.runId], there), { refused: [] });
    const { moving, lease, row } = await world.load(holder.runId);
    same([moving, lease, row.wakeAt], [{ ...there, phase: "leaving" }, undefined, null]);
    assert.deepEqual(await outcomes([world.store.commit([holder.next([goOn()])])]), ["CONFLICT"]);
    await world.store.release(holder.runId, holder.lease, {});
    await world.store.retire(worker.workerId);
    await world.clock.advance(10 * minute);
    assert.deepEqual(await world.claimable(), []);
    same(await world.store.claim(await world.worker(), { limit: 1, runId: holder.runId }), []);
    assert.equal((await world.store.nextDue(await world.worker())).at, undefined);
    same((await world.store.query({})).runs[0]?.moving, { ...there, phase: "leaving" });
    same(await world.store.moves(), [{ ...there, phase: "leaving", runIds: [holder.runId] }]);
  },

  async "fence: what is sent to a moving run is refused and says where it goes; what was sent is known"(world) {
    const { runId } = await world.parked();
    await world.store.deliver([message(runId)]);
    await world.store.fence([runId], there);
    const cancel = message(runId, { id: "c", kind: "control", key: "cancel" });
    same(await world.store.deliver([message(runId), message(runId, { id: "m2" }), cancel]), [
      { kind: "duplicate", same: true },
      { kind: "moved", to: there.to },
      { kind: "moved", to: there.to },
    ]);
    const other = await world.parked();
    const recalling = message(other.runId, { id: "r", recall: { runId, id: "m1" } });
    same(await world.store.deliver([recalling]), [{ kind: "moved", to: there.to }]);
    assert.equal((await world.store.mail(runId, 0)).length, 1);
  },

  async "fence: all or none; answers those in the way"(world) {
    const [one, two] = [await world.parked(), await world.parked()];
    const refused = async (...runIds: string[]): Promise<string[]> =>
      (await world.store.fence(runIds, { token: "t2", to: "x" })).refused.map(({ runId }) => runId);
    await world.store.fence([two.runId], there);
    assert.deepEqual(await refused(one.runId, "nowhere"), ["nowhere"]);
    assert.deepEqual(await refused(one.runId, two.runId), [two.runId]);
    assert.equal((await world.load(one.runId)).moving, undefined);
    same(await world.store.fence([two.runId], there), { refused: [] });
    await world.store.settle("t1", "left");
    assert.deepEqual(await refused(two.runId), [two.runId]);
  },

  async "fence: a tree stays together"(world) {
    const parent = await world.held();
    const child = world.newRun({ parent: { runId: parent.runId, effectId: "1" } });
    await world.store.commit([parent.next([goOn()], { start: [child] })]);
    const ids = [parent.runId, child.row.runId];
    for (const alone of ids) {
      const { refused } = await world.store.fence([alone], there);
      assert.equal(refused.length, 1);
      for (const runId of ids) assert.equal((await world.load(runId)).moving, undefined);
    }
    same(await world.store.fence(ids, there), { refused: [] });
    await world.store.settle("t1", "left");
    // Of a tree that has left, what comes back alone is alone here.
    const { copy, records } = await packed(world, child.row.runId);
    await world.store.adopt(copy, { token: "t2", to: "x" });
    await world.store.adoptRecords(child.row.runId, "t2", records);
    await world.store.settle("t2", "here");
    same(await world.store.fence([child.row.runId], { token: "t3", to: "x" }), { refused: [] });
  },

  async "fence: a second call with the same token does nothing, also when it has left"(world) {
    const { runId } = await world.parked();
    await world.store.fence([runId], there);
    const before = await world.store.copyOf(runId);
    same(await world.store.fence([runId], there), { refused: [] });
    same(await world.store.copyOf(runId), before);
    await world.store.settle("t1", "left");
    same(await world.store.fence([runId], there), { refused: [] });
    assert.equal((await world.load(runId)).moving?.phase, "left");
  },

  async "settle back: a leaving run goes on, at its moment, or at once when it has mail or was running"(world) {
    const until = world.clock.now() + minute;
    const waiting = await world.parked({ reason: "until", until });
    const [running, mailed, quiet] = [await world.held(), await world.parked(), await world.parked()];
    await world.store.deliver([message(mailed.runId)]);
    const ids = [waiting, running, mailed, quiet].map(({ runId }) => runId);
    await world.store.fence(ids, there);
    assert.deepEqual((await world.store.settle("t1", "back")).sort(), [...ids].sort());
    same(await world.store.settle("t1", "back"), []);
    same(await world.store.moves(), []);
    assert.equal((await world.load(waiting.runId)).row.wakeAt, until);
    assert.deepEqual((await world.claimable()).sort(), [running.runId, mailed.runId].sort());
    await world.clock.advance(minute);
    // With those whose claimers' time is over.
    assert.deepEqual((await world.claimable()).sort(), [running.runId, mailed.runId, waiting.runId].sort());
    same(await world.store.deliver([message(quiet.runId)]), [{ kind: "stored" }]);
    assert.deepEqual(await outcomes([world.store.commit([running.next([goOn()])])]), ["CONFLICT"]);
  },

  async "settle left: final; the run is nobody's here, and says where it is until it is purged"(world) {
    const { runId } = await world.parked();
    await world.store.fence([runId], there);
    same(await world.store.settle("t1", "left"), [runId]);
    for (const to of ["left", "back", "here"] as const) same(await world.store.settle("t1", to), []);
    same(await world.store.moves(), []);
    same((await world.load(runId)).moving, { ...there, phase: "left" });
    same(await world.store.query({ waitKey: "go" }), { runs: [] });
    same(await world.store.listeners("go", { limit: 10 }), { runIds: [] });
    same(await world.store.deliver([message(runId)]), [{ kind: "moved", to: there.to }]);
    const { state: _, ...again } = world.newRun({ runId });
    assert.deepEqual(await world.store.create([again]), [false]);
    assert.equal(await world.store.lift(runId), false);
    assert.deepEqual(await world.claimable(), []);
    same(await world.store.purge([runId]), { live: [], purged: [runId] });
    const tombstone = await world.store.tombstone(runId);
    assert.deepEqual([tombstone?.status, tombstone?.note], ["waiting", "moved to the other store"]);
  },

  async "purge: a run on its way is live"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next([finish()])]);
    await world.store.fence([holder.runId], there);
    same((await world.store.purge([holder.runId])).live, [holder.runId]);
    const { copy, records } = await packed(world, holder.runId);
    await world.store.settle("t1", "left");
    await world.store.adopt(copy, { token: "t2", to: "x" });
    await world.store.adoptRecords(holder.runId, "t2", records);
    same((await world.store.purge([holder.runId])).live, [holder.runId]);
  },

  async "adopt: what comes back is what left, and goes on"(world) {
    const holder = await rich(world);
    const { runId } = holder;
    const before = await world.load(runId);
    const checkpoints = await world.store.checkpoints(runId);
    const listed = (await world.store.query({ idPrefix: runId })).runs;
    await roundTrip(world, [runId]);
    const after = await world.load(runId);
    const { mail: mailBefore, row: rowBefore, ...restBefore } = before;
    const { mail: mailAfter, row: rowAfter, ...restAfter } = after;
    same(restAfter, restBefore);
    same({ ...rowAfter, wakeAt: null }, { ...rowBefore, wakeAt: null });
    const content = (mail: typeof mailBefore): unknown[] => mail.map(({ position: _, ...letter }) => letter);
    same(content(mailAfter), content(mailBefore));
    same(await world.store.checkpoints(runId), checkpoints.slice(-1));
    same((await world.store.query({ idPrefix: runId })).runs[0]?.waits, listed[0]?.waits);
    same((await world.store.query({ vars: { "order.id": "7", n: 7 } })).runs.length, 1);
    assert.deepEqual((await world.store.artifact("a".repeat(64)))?.runIds, [runId]);
    same(foldedOf(after), holder.state);
    // What was ever sent is known, and in its state.
    same(
      await world.store.deliver(
        ["taken", "open", "recalled"].map((id) => message(runId, { id, key: id === "taken" ? "go" : "later" })),
      ),
      [
        { kind: "duplicate", same: true },
        { kind: "duplicate", same: false },
        { kind: "duplicate", same: true },
      ],
    );
    const taker = await world.worker({ queues: { q: {} } });
    const [claimed] = await world.store.claim(taker, { limit: 9 });
    assert.equal(claimed?.row.runId, runId);
    assert.ok((claimed?.lease?.epoch ?? 0) > holder.lease.epoch + 1);
    const next = holder.twin(claimed?.lease);
    assert.deepEqual(await outcomes([world.store.commit([next.next([goOn()], { take: ["recalled"] })])]), ["CONFLICT"]);
    const last = holder.twin(claimed?.lease);
    await world.store.commit([last.next([goOn(), finish()], { take: ["open"] })]);
    same(foldedOf(await world.load(runId)), last.state);
  },

  async "adopt: until it is here it is nobody's; a second call replaces the first"(world) {
    const holder = await rich(world);
    await world.store.fence([holder.runId], there);
    const { copy, records } = await packed(world, holder.runId);
    await world.store.settle("t1", "left");
    const arriving = { token: "t2", to: "there" };
    await world.store.adopt({ ...copy, letters: copy.letters.slice(0, 1), waits: [] }, arriving);
    await world.store.adoptRecords(holder.runId, "t2", records.slice(0, 2));
    await world.store.adoptRecords(holder.runId, "t2", records.slice(0, 3));
    await refuses(world.store.settle("t2", "here"), "CONFLICT");
    await world.store.adopt(copy, arriving);
    same(await world.store.records(holder.runId, 0, 10), []);
    await refuses(world.store.adoptRecords(holder.runId, "t2", records.slice(1)), "CONFLICT");
    await refuses(world.store.adoptRecords(holder.runId, "t1", records), "CONFLICT");
    await world.store.adoptRecords(holder.runId, "t2", records);
    await world.store.adoptRecords(holder.runId, "t2", records);
    same((await world.load(holder.runId)).moving, { ...arriving, phase: "arriving" });
    same(await world.store.moves(), [{ ...arriving, phase: "arriving", runIds: [holder.runId] }]);
    same(await world.store.deliver([message(holder.runId, { id: "new" })]), [{ kind: "moved", to: "there" }]);
    await world.clock.advance(10 * minute);
    assert.deepEqual(await world.claimable({ queues: { q: {} } }), []);
    same((await world.store.fence([holder.runId], { token: "t3", to: "x" })).refused.length, 1);
    same(await world.store.settle("t2", "here"), [holder.runId]);
    same(await world.store.settle("t2", "here"), []);
    same(await world.store.records(holder.runId, 0, 100), records);
    assert.deepEqual(await world.claimable({ queues: { q: {} } }), [holder.runId]);
  },

  async "adopt: never over another run, nor by another move"(world) {
    const holder = await world.parked();
    await refuses(world.store.adopt((await packed(world, holder.runId)).copy, there), "RUN_EXISTS");
    await world.store.fence([holder.runId], there);
    const { copy } = await packed(world, holder.runId);
    await refuses(world.store.adopt(copy, there), "RUN_EXISTS");
    await world.store.settle("t1", "left");
    await world.store.adopt(copy, { token: "t2", to: "x" });
    await refuses(world.store.adopt(copy, { token: "t3", to: "x" }), "RUN_EXISTS");
    same((await world.load(holder.runId)).moving?.token, "t2");
  },

  async "adopt: taken back, nothing of it is left, and its id stays taken where it had been"(world) {
    const holder = await rich(world);
    await world.store.fence([holder.runId], there);
    const { copy, records } = await packed(world, holder.runId);
    await world.store.settle("t1", "left");
    await world.store.adopt(copy, { token: "t2", to: "x" });
    await world.store.adoptRecords(holder.runId, "t2", records);
    same(await world.store.settle("t2", "back"), [holder.runId]);
    same(await world.store.settle("t2", "back"), []);
    assert.equal(await world.store.load(holder.runId), undefined);
    same(await world.store.records(holder.runId, 0, 10), []);
    assert.deepEqual((await world.store.artifact("a".repeat(64)))?.runIds, []);
    assert.equal((await world.store.tombstone(holder.runId))?.note, "moved to the other store");
    await world.store.adopt(copy, { token: "t4", to: "x" });
    await world.store.adoptRecords(holder.runId, "t4", records);
    await world.store.settle("t4", "here");
    assert.equal(await world.store.tombstone(holder.runId), undefined);
    same(foldedOf(await world.load(holder.runId)), holder.state);
  },

  async "adopt: a copy from before the run left is refused where it was purged, though nothing was recorded since"(world) {
    const holder = await world.parked();
    const { copy: older, records } = await packed(world, holder.runId);
    await world.store.fence([holder.runId], there);
    const { copy } = await packed(world, holder.runId);
    await world.store.settle("t1", "left");
    same((await world.store.purge([holder.runId])).purged, [holder.runId]);
    await refuses(world.store.adopt(older, { token: "t2", to: "x" }), "RUN_PURGED");
    await world.store.adopt(copy, { token: "t2", to: "x" });
    await world.store.adoptRecords(holder.runId, "t2", records);
    same(await world.store.settle("t2", "here"), [holder.runId]);
  },

  async "adopt: an older copy never stands in for what was done since"(world) {
    const holder = await world.held();
    const { copy: older } = await packed(world, holder.runId);
    await world.store.commit([holder.next([finish()])]);
    await world.store.purge([holder.runId]);
    await refuses(world.store.adopt(older, there), "RUN_PURGED");
    const other = await world.parked();
    const { copy } = await packed(world, other.runId);
    const next = await world.takeOver(other);
    await world.store.commit([next.next([goOn()])]);
    await world.store.fence([other.runId], there);
    await world.store.settle("t1", "left");
    await refuses(world.store.adopt(copy, { token: "t2", to: "x" }), "RUN_MOVED");
    const forked = { ...copy, row: { ...copy.row, seq: next.state.seq, head: "f".repeat(64) } };
    await refuses(world.store.adopt(forked, { token: "t2", to: "x" }), "RUN_MOVED");
    // Nothing was recorded since, and yet it is another store's since.
    const third = await world.parked();
    const { copy: same } = await packed(world, third.runId);
    await world.store.fence([third.runId], { token: "t5", to: "x" });
    await world.store.settle("t5", "left");
    await refuses(world.store.adopt(same, { token: "t2", to: "x" }), "RUN_MOVED");
  },

  async "adopt: an artifact that is not known here refuses it"(world) {
    const holder = await world.parked();
    await world.store.fence([holder.runId], there);
    const { copy } = await packed(world, holder.runId);
    await world.store.settle("t1", "left");
    await refuses(world.store.adopt({ ...copy, artifacts: ["b".repeat(64)] }, { token: "t2", to: "x" }), "ARTIFACT_MISSING");
    assert.equal((await world.load(holder.runId)).moving?.phase, "left");
  },

  async "moving: runs that have ended, failed or are blocked stay so"(world) {
    const over = await world.held();
    await world.store.commit([over.next([finish({ done: true })])]);
    const down = await world.held();
    await world.store.commit([down.next([failing()], { release: true })]);
    const stuck = await world.held();
    const blocked = { code: "EFFECT_UNKNOWN", problem: "no code", fingerprint: "code 1", quarantine: false };
    await world.store.release(stuck.runId, stuck.lease, { blocked });
    await roundTrip(world, [over.runId, down.runId, stuck.runId]);
    assert.deepEqual(await world.claimable(), []);
    same((await world.load(stuck.runId)).blocked, blocked);
    assert.deepEqual(await world.claimable({ fingerprint: "code 2" }), [stuck.runId]);
    same(await world.store.deliver([message(over.runId)]), [{ kind: "ended", status: "completed" }]);
    await world.store.deliver([message(down.runId, { kind: "control", key: "retry", ifFailed: true })]);
    assert.deepEqual(await world.claimable(), [down.runId]);
  },

  async "moving: a fenced run that is blocked is lifted by nobody"(world) {
    const stuck = await world.held();
    const blocked = { code: "EFFECT_UNKNOWN", problem: "no code", fingerprint: "code 1", quarantine: false };
    await world.store.release(stuck.runId, stuck.lease, { blocked });
    await world.store.fence([stuck.runId], there);
    assert.equal(await world.store.lift(stuck.runId), false);
    assert.deepEqual(await world.claimable({ fingerprint: "code 2" }), []);
    const other = await world.worker({ fingerprint: "code 3" });
    same(await world.store.claim(other, { limit: 1, runId: stuck.runId }), []);
    assert.equal((await world.store.nextDue(await world.worker({ fingerprint: "code 4" }))).at, undefined);
    await world.store.settle("t1", "back");
    assert.deepEqual(await world.claimable({ fingerprint: "code 5" }), [stuck.runId]);
  },

  async "moving: a ledger of which the older part was archived"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next(Array.from({ length: 9 }, (_, i) => goOn(i)))]);
    const base = foldedOf(await world.load(holder.runId, { at: 4 }));
    const checkpoint = world.holder(base, holder.lease).checkpoint(0);
    await world.store.commit([holder.next([goOn("archived")], { dropBefore: 5, checkpoint, release: true })]);
    const later = await world.takeOver(holder);
    const transition = later.next([goOn("later")]);
    await world.store.commit([{ ...transition, checkpoint: later.checkpoint(1), release: true }]);
    await roundTrip(world, [holder.runId]);
    const loaded = await world.load(holder.runId);
    assert.equal(loaded.archivedBefore, 5);
    assert.deepEqual(
      (await world.store.checkpoints(holder.runId)).map(({ seq, ordinal }) => [seq, ordinal]),
      [
        [4, 0],
        [11, 1],
      ],
    );
    await refuses(world.store.records(holder.runId, 0, 1), "RECORDS_ARCHIVED");
    same(foldedOf(loaded), later.state);
    same(foldedOf(await world.load(holder.runId, { at: 7 })).seq, 7);
  },

  async "moving: a copy of a run that is driven is of one moment"(world) {
    const holder = await world.held();
    await world.store.deliver([message(holder.runId)]);
    const first = await packed(world, holder.runId);
    await world.store.commit([holder.next([goOn(1)], { take: ["m1"] })]);
    assert.deepEqual(
      first.copy.letters.map(({ id, state }) => [id, state]),
      [["m1", "open"]],
    );
    const second = await world.store.copyOf(holder.runId);
    assert.deepEqual([second?.row.seq, second?.letters[0]?.state], [1, "taken"]);
    assert.equal(await world.store.copyOf("nowhere"), undefined);
  },

  async "fence: beside messages and commits, each is in the copy or was refused"(world) {
    for (let round = 0; round < 12; round++) {
      const [sentTo, held] = [await world.parked({ waitKey: `k${round}` }), await world.held()];
      const child = world.newRun({ parent: { runId: held.runId, effectId: "1" } });
      const messages = Array.from({ length: 8 }, (_, i) => message(sentTo.runId, { id: `m${i}` }));
      const deliveries = messages.map((one) => world.store.deliver([one]));
      const commits = [
        world.store.commit([held.next([goOn(1)])]),
        world.store.commit([held.next([goOn(2)], { start: [child] })]),
      ];
      const fences = [[sentTo.runId], [held.runId]].map((ids) => world.store.fence(ids, { token: `t${round}`, to: "x" }));
      const late = world.store.deliver([message(sentTo.runId, { id: "late" })]);
      const kinds = (await Promise.all([...deliveries, late])).map(([delivery]) => delivery?.kind);
      const came = await outcomes(commits);
      const [first, second] = await Promise.all(fences);
      assert.deepEqual(first?.refused, []);
      const letters = (await world.store.copyOf(sentTo.runId))?.letters.map(({ id }) => id) ?? [];
      const stored = [...messages.map(({ id }) => id), "late"].filter((_, i) => kinds[i] === "stored");
      assert.deepEqual([...letters].sort(), [...stored].sort());
      assert.ok(kinds.every((kind) => kind === "stored" || kind === "moved"));
      const { row, moving } = await world.load(held.runId);
      assert.equal(row.seq, came.filter((one) => one === "ok").length);
      // With a child, the fence came too late for the parent alone.
      const hasChild = (await world.store.load(child.row.runId)) !== undefined;
      assert.equal(hasChild, came[1] === "ok");
      assert.equal(second?.refused.length === 0, !hasChild);
      assert.equal(moving !== undefined, !hasChild);
    }
  },

  async "moving: many at once, beside runs that stay"(world) {
    const ids = Array.from({ length: 40 }, (_, i) => `run ${String(i).padStart(2, "0")}`);
    await world.store.create(ids.map((runId) => stored(world.newRun({ runId }))));
    const moved = ids.filter((_, i) => i % 2 === 0);
    await roundTrip(world, moved);
    assert.deepEqual((await world.claimable()).sort(), ids);
  },
};
