/** Workers, leases, claims, blocks: who drives a run, and when. */
import assert from "node:assert/strict";
import type { Blocked } from "../../kernel/transition.ts";
import { type Case, finish, goOn, idsOf, message, minute, outcomes, refuses, same, stored } from "./world.ts";

const blocked: Blocked = { code: "WORKFLOW_UNKNOWN", problem: "no such workflow", fingerprint: "code 1", quarantine: false };

export const workerCases: Record<string, Case> = {
  async "S6: renew, nextDue, load and claim tell the now of the store's clock"(world) {
    const run = world.newRun();
    await world.store.create([stored(run)]);
    await world.clock.advance(7);
    const worker = { workerId: "w", fingerprint: "code 1" };
    assert.equal(await world.store.renew("w", minute), world.clock.now());
    assert.equal((await world.store.nextDue(worker)).now, world.clock.now());
    assert.equal((await world.load(run.row.runId)).now, world.clock.now());
    const [loaded] = await world.store.claim(worker, { limit: 1 });
    assert.equal(loaded?.now, world.clock.now());
  },

  async "create: a claimer gets the run with all that it needs to drive it"(world) {
    const run = world.newRun({ vars: { topic: "x" }, actorId: "ada", sessionId: "s" });
    assert.deepEqual(await world.store.create([stored(run)]), [true]);
    const worker = await world.worker();
    const [loaded, ...others] = await world.store.claim(worker, { limit: 10 });
    assert.equal(others.length, 0);
    assert.ok(loaded?.lease);
    assert.equal(loaded.lease.workerId, worker.workerId);
    same({ ...loaded, lease: undefined }, { row: run.row, tail: [run.record], mail: [], now: world.clock.now() });
  },

  async "create: a run that exists is left as it is and answered with false"(world) {
    const first = world.newRun({ runId: "one", vars: { a: 1 } });
    const other = world.newRun({ runId: "two" });
    await world.store.create([stored(first)]);
    assert.deepEqual(await world.store.create([stored(world.newRun({ runId: "one", vars: { a: 2 } })), stored(other)]), [
      false,
      true,
    ]);
    same((await world.load("one")).tail, [first.record]);
    same((await world.load("two")).tail, [other.record]);
  },

  async "create: of two equal runs in one call, or in one turn, the first is created"(world) {
    const run = stored(world.newRun());
    assert.deepEqual(await world.store.create([run, run]), [true, false]);
    const next = stored(world.newRun());
    assert.deepEqual(await Promise.all([world.store.create([next]), world.store.create([next])]), [[true], [false]]);
  },

  async "create: with a worker, the run is leased to it with epoch 1"(world) {
    const holder = await world.held();
    same((await world.load(holder.runId)).lease, holder.lease);
    assert.deepEqual(await world.claimable(), []);
    await world.store.commit([holder.next([goOn()])]);
  },

  async "create: notBefore is the earliest moment at which the run is claimed"(world) {
    const run = world.newRun();
    await world.store.create([stored(run, world.clock.now() + 100)]);
    await world.clock.advance(99);
    assert.deepEqual(await world.claimable(), []);
    await world.clock.advance(1);
    assert.deepEqual(await world.claimable(), [run.row.runId]);
  },

  async "claim: due runs are given earliest first, up to the limit, the others later"(world) {
    const now = world.clock.now();
    const at = (runId: string, moment: number) => stored(world.newRun({ runId }), now + moment);
    await world.store.create([at("third", 30), at("first", 10), at("second", 20), at("not yet", 50)]);
    await world.clock.advance(40);
    assert.deepEqual(idsOf(await world.store.claim(await world.worker(), { limit: 2 })), ["first", "second"]);
    assert.deepEqual(idsOf(await world.store.claim(await world.worker(), { limit: 2 })), ["third"]);
  },

  async "claim: a run is given once, also when workers ask in one turn"(world) {
    const runs = Array.from({ length: 6 }, () => stored(world.newRun()));
    await world.store.create(runs);
    const workers = [await world.worker(), await world.worker(), await world.worker()];
    const claims = await Promise.all(workers.map((worker) => world.store.claim(worker, { limit: 4 })));
    const given = claims.flatMap(idsOf);
    assert.equal(new Set(given).size, given.length);
    assert.deepEqual(given.sort(), runs.map(({ row }) => row.runId).sort());
  },

  async "claim: a run that the same worker holds is not given to it again"(world) {
    const worker = await world.worker();
    const holder = await world.held({}, worker);
    assert.deepEqual(await world.store.claim(worker, { limit: 10 }), []);
    assert.deepEqual(await world.store.claim(worker, { limit: 1, runId: holder.runId }), []);
  },

  async "claim: nor when it has expired: it asks, so it lives, and may be driving the run"(world) {
    const worker = await world.worker();
    const holder = await world.held({}, worker);
    await world.clock.advance(minute);
    assert.deepEqual(await world.store.claim(worker, { limit: 10 }), []);
    assert.deepEqual(await world.store.claim(worker, { limit: 1, runId: holder.runId }), []);
    await world.store.commit([holder.next([goOn()])]);
  },

  async "claim: every claim adds one to the run's epoch"(world) {
    const run = world.newRun();
    await world.store.create([stored(run)]);
    const worker = await world.worker();
    const epochs: number[] = [];
    for (let i = 0; i < 3; i++) {
      const [loaded] = await world.store.claim(worker, { limit: 1 });
      assert.ok(loaded?.lease);
      epochs.push(loaded.lease.epoch);
      await world.store.release(run.row.runId, loaded.lease, {});
    }
    const [first = 0] = epochs;
    assert.deepEqual(epochs, [first, first + 1, first + 2]);
  },

  async "claim: only runs of the workflows named are given; without names, any"(world) {
    const [a, b, c] = ["a", "b", "c"].map((workflowId) => stored(world.newRun({ runId: `run of ${workflowId}`, workflowId })));
    assert.ok(a && b && c);
    await world.store.create([a, b, c]);
    assert.deepEqual(await world.claimable({ workflows: [] }), []);
    assert.deepEqual((await world.claimable({ workflows: ["c", "a", "x"] })).sort(), ["run of a", "run of c"]);
    assert.deepEqual(await world.claimable(), ["run of b"]);
  },

  async "claim: a run that is named is given whether it is due or not"(world) {
    const holder = await world.parked();
    assert.deepEqual(await world.claimable(), []);
    const worker = await world.worker();
    assert.deepEqual(idsOf(await world.store.claim(worker, { limit: 1, runId: holder.runId })), [holder.runId]);
  },

  async "claim: a run that is named is not given when it does not exist, has ended, or is held by a live worker"(world) {
    const held = await world.held();
    const ended = await world.held();
    await world.store.commit([ended.next([finish()], { release: true })]);
    const worker = await world.worker();
    for (const runId of ["nowhere", held.runId, ended.runId])
      assert.deepEqual(await world.store.claim(worker, { limit: 1, runId }), []);
  },

  async "claim: a waiting run is given when its moment comes"(world) {
    const until = world.clock.now() + 100;
    const holder = await world.parked({ reason: "until", until });
    await world.clock.advance(99);
    assert.deepEqual(await world.claimable(), []);
    await world.clock.advance(1);
    assert.deepEqual(await world.claimable(), [holder.runId]);
  },

  async "claim: orphans of a worker that has expired are given, with what was committed and their mail"(world) {
    const worker = await world.worker();
    const holder = await world.held({}, worker);
    const step = holder.next([goOn()]);
    await world.store.commit([step]);
    await world.store.deliver([message(holder.runId)]);
    await world.clock.advance(minute - 1);
    assert.deepEqual(await world.claimable(), []);
    await world.clock.advance(1);
    const next = await world.worker();
    const [loaded] = await world.store.claim(next, { limit: 10 });
    assert.ok(loaded?.lease);
    same(loaded.tail.at(-1), step.records[0]);
    assert.deepEqual(
      loaded.mail.map(({ id }) => id),
      ["m1"],
    );
    assert.equal(loaded.lease.workerId, next.workerId);
    assert.ok(loaded.lease.epoch > holder.lease.epoch);
  },

  async "claim: the orphan of a worker that has expired is given by name, too"(world) {
    const holder = await world.held();
    await world.clock.advance(minute);
    await world.takeOver(holder);
  },

  async "claim: an orphan that waits for a message alone is given, too: mail may have come while it was held"(world) {
    const parked = await world.parked();
    const holder = await world.takeOver(parked);
    await world.store.deliver([message(parked.runId)]);
    await world.clock.advance(minute);
    assert.deepEqual(await world.claimable(), [holder.runId]);
  },

  async "claim: what a worker holds that was never made known is an orphan"(world) {
    const run = world.newRun();
    await world.store.create([stored(run)], "never renewed");
    assert.deepEqual(await world.claimable(), [run.row.runId]);
  },

  async "renew: all leases of the worker live as long as it does"(world) {
    const worker = await world.worker();
    const holders = [await world.held({}, worker), await world.held({}, worker)];
    await world.clock.advance(minute - 1);
    await world.store.renew(worker.workerId, minute);
    await world.clock.advance(minute - 1);
    assert.deepEqual(await world.claimable(), []);
    await world.store.commit(holders.map((holder) => holder.next([goOn()])));
  },

  async "retire: what the worker held is free at once, parked or not; a second call does nothing"(world) {
    const worker = await world.worker();
    const running = await world.held({}, worker);
    const waiting = await world.takeOver(await world.parked(), worker);
    await world.store.retire(worker.workerId);
    await world.store.retire(worker.workerId);
    await world.store.retire("nobody");
    assert.deepEqual((await world.claimable()).sort(), [running.runId, waiting.runId].sort());
    await refuses(world.store.commit([running.next([goOn()])]), "CONFLICT");
  },

  async "retire: the worker is known no longer, so that what it is still given is free"(world) {
    const worker = await world.worker();
    await world.store.retire(worker.workerId);
    const holder = await world.held({}, worker);
    assert.deepEqual(await world.claimable(), [holder.runId]);
  },

  async "release: the run is ready at once, for another worker"(world) {
    const parked = await world.parked();
    const holder = await world.takeOver(parked);
    await world.store.release(holder.runId, holder.lease, {});
    assert.equal((await world.load(holder.runId)).lease, undefined);
    assert.deepEqual(await world.claimable(), [holder.runId]);
  },

  async "release: does nothing when the lease was lost, nor a second time"(world) {
    const holder = await world.held();
    await world.store.release("nowhere", holder.lease, {});
    await world.store.release(holder.runId, { ...holder.lease, epoch: 99 }, { blocked });
    await world.store.release(holder.runId, { ...holder.lease, workerId: "other" }, { blocked });
    same((await world.load(holder.runId)).lease, holder.lease);
    await world.store.release(holder.runId, holder.lease, {});
    const next = await world.takeOver(holder);
    await world.store.release(holder.runId, holder.lease, { blocked });
    const loaded = await world.load(holder.runId);
    same([loaded.lease, loaded.blocked], [next.lease, undefined]);
  },

  async "release: a blocked run says why, and is not given to a worker with the same code"(world) {
    const holder = await world.held();
    await world.store.release(holder.runId, holder.lease, { blocked });
    const loaded = await world.load(holder.runId);
    same([loaded.blocked, loaded.lease], [blocked, undefined]);
    same((await world.store.query({})).runs[0]?.blocked, blocked);
    assert.deepEqual(await world.claimable(), []);
    const worker = await world.worker();
    assert.deepEqual(await world.store.claim(worker, { limit: 1, runId: holder.runId }), []);
    await world.store.deliver([message(holder.runId)]);
    assert.deepEqual(await world.claimable(), []);
  },

  async "release: a worker with other code lifts the block, if the workflow is one of its own"(world) {
    const holder = await world.parked();
    const second = await world.takeOver(holder);
    await world.store.release(holder.runId, second.lease, { blocked });
    assert.deepEqual(await world.claimable({ fingerprint: "code 2", workflows: ["other"] }), []);
    same((await world.load(holder.runId)).blocked, blocked);
    assert.deepEqual(await world.claimable({ fingerprint: "code 2", workflows: ["work"] }), [holder.runId]);
    assert.equal((await world.load(holder.runId)).blocked, undefined);
  },

  async "release: code that was tried is not tried again before the run has moved or an operator lifts the block (L7)"(world) {
    const holder = await world.held();
    await world.store.release(holder.runId, holder.lease, { blocked });
    const other = await world.worker({ fingerprint: "code 2" });
    const second = await world.takeOver(holder, other);
    await world.store.release(holder.runId, second.lease, { blocked: { ...blocked, fingerprint: "code 2" } });
    for (const fingerprint of ["code 1", "code 2"]) assert.deepEqual(await world.claimable({ fingerprint }), []);
    assert.equal((await world.store.nextDue(other)).at, undefined);
    assert.equal(await world.store.lift(holder.runId), true);
    const third = await world.takeOver(holder);
    await world.store.commit([third.next([goOn()])]);
    await world.store.release(holder.runId, third.lease, { blocked });
    assert.deepEqual(await world.claimable({ fingerprint: "code 2" }), [holder.runId]);
  },

  async "release: a worker with other code that names a blocked run gets it"(world) {
    const holder = await world.held();
    await world.store.release(holder.runId, holder.lease, { blocked });
    await world.takeOver(holder, await world.worker({ fingerprint: "code 2" }));
    assert.equal((await world.load(holder.runId)).blocked, undefined);
  },

  async "release: a quarantine stays, whatever code comes"(world) {
    const holder = await world.held();
    const quarantine = { ...blocked, quarantine: true };
    await world.store.deliver([message(holder.runId)]);
    await world.store.release(holder.runId, holder.lease, { blocked: quarantine, mailSeen: 0 });
    const worker = await world.worker({ fingerprint: "code 2" });
    assert.deepEqual(await world.store.claim(worker, { limit: 10 }), []);
    assert.deepEqual(await world.store.claim(worker, { limit: 1, runId: holder.runId }), []);
    same((await world.load(holder.runId)).blocked, quarantine);
  },

  async "release: with mail that the holder has not looked at, the run is ready and not blocked"(world) {
    const holder = await world.held();
    await world.store.deliver([message(holder.runId, { kind: "control", key: "cancel" })]);
    await world.store.release(holder.runId, holder.lease, { blocked, mailSeen: 0 });
    const worker = await world.worker();
    const [loaded] = await world.store.claim(worker, { limit: 1 });
    assert.ok(loaded?.lease);
    await world.store.release(holder.runId, loaded.lease, { blocked, mailSeen: loaded.mail.at(-1)?.position ?? 0 });
    assert.deepEqual(await world.claimable(), []);
  },

  async "deliver: a control message lifts a block, and what code was tried; a quarantine stays"(world) {
    const control = (runId: string, id: string) =>
      world.store.deliver([message(runId, { id, kind: "control", key: "cancel", payload: {} })]);
    const holder = await world.held();
    await world.store.release(holder.runId, holder.lease, { blocked });
    const second = await world.takeOver(holder, await world.worker({ fingerprint: "code 2" }));
    await world.store.release(holder.runId, second.lease, { blocked: { ...blocked, fingerprint: "code 2" } });
    const worker = await world.worker();
    assert.equal((await world.store.nextDue(worker)).at, undefined);
    assert.deepEqual(await control(holder.runId, "c1"), [{ kind: "stored" }]);
    assert.equal((await world.load(holder.runId)).blocked, undefined);
    assert.equal((await world.store.nextDue(worker)).at, world.clock.now());
    const third = await world.takeOver(holder, worker);
    await world.store.release(holder.runId, third.lease, { blocked, mailSeen: Number.MAX_SAFE_INTEGER });
    assert.deepEqual(await world.claimable({ fingerprint: "code 2" }), [holder.runId]);

    const other = await world.held();
    const quarantine = { ...blocked, quarantine: true };
    await world.store.release(other.runId, other.lease, { blocked: quarantine });
    assert.deepEqual(await control(other.runId, "c1"), [{ kind: "stored" }]);
    same((await world.load(other.runId)).blocked, quarantine);
    assert.deepEqual(await world.claimable(), []);
  },

  async "release: code that found nothing to lift finds what is blocked later"(world) {
    const worker = await world.worker({ fingerprint: "code 2" });
    for (let i = 0; i < 3; i++) {
      assert.deepEqual(await world.store.claim(worker, { limit: 10 }), []);
      assert.equal((await world.store.nextDue(worker)).at, undefined);
      const holder = await world.held();
      await world.store.release(holder.runId, holder.lease, { blocked });
      assert.equal((await world.store.nextDue(worker)).at, world.clock.now());
      assert.deepEqual(idsOf(await world.store.claim(worker, { limit: 10 })), [holder.runId]);
    }
  },

  async "lift: a block or quarantine goes and the run is ready; answers whether there was one"(world) {
    for (const quarantine of [false, true]) {
      const holder = await world.takeOver(await world.parked());
      assert.equal(await world.store.lift(holder.runId), false);
      await world.store.release(holder.runId, holder.lease, { blocked: { ...blocked, quarantine } });
      assert.equal(await world.store.lift(holder.runId), true);
      assert.equal(await world.store.lift(holder.runId), false);
      assert.deepEqual(await world.claimable(), [holder.runId]);
    }
    assert.equal(await world.store.lift("nowhere"), false);
  },

  async "nextDue: the earliest moment at which claim would find something"(world) {
    const worker = await world.worker();
    const next = async () => (await world.store.nextDue(worker)).at;
    assert.equal(await next(), undefined);
    await world.parked();
    assert.equal(await next(), undefined);
    const now = world.clock.now();
    await world.store.create([stored(world.newRun(), now + 300), stored(world.newRun(), now + 200)]);
    assert.equal(await next(), now + 200);
    await world.clock.advance(250);
    assert.ok(((await next()) ?? Number.POSITIVE_INFINITY) <= world.clock.now());
    await world.store.claim(worker, { limit: 10 });
    assert.equal(await next(), now + 300);
  },

  async "nextDue: only runs of the worker's workflows count"(world) {
    await world.store.create([stored(world.newRun({ workflowId: "other" }))]);
    assert.equal((await world.store.nextDue(await world.worker({ workflows: ["work"] }))).at, undefined);
    assert.equal((await world.store.nextDue(await world.worker({ workflows: ["other"] }))).at, world.clock.now());
  },

  async "nextDue: what another worker holds is due when that worker expires"(world) {
    await world.held();
    const expiresAt = world.clock.now() + minute;
    await world.clock.advance(10);
    const worker = await world.worker();
    assert.equal((await world.store.nextDue(worker)).at, expiresAt);
    await world.clock.advance(minute - 5);
    assert.ok(((await world.store.nextDue(worker)).at ?? Number.POSITIVE_INFINITY) <= world.clock.now());
  },

  async "nextDue: a blocked run is due for other code, and for the same code or in quarantine it is not"(world) {
    for (const quarantine of [true, false]) {
      const holder = await world.held();
      await world.store.release(holder.runId, holder.lease, { blocked: { ...blocked, quarantine } });
      assert.equal((await world.store.nextDue(await world.worker())).at, undefined);
      const { at } = await world.store.nextDue(await world.worker({ fingerprint: "code 2" }));
      if (quarantine) assert.equal(at, undefined);
      else assert.ok(at !== undefined && at <= world.clock.now());
    }
  },

  async "S1: of a commit and a takeover in one turn, the first to be made wins"(world) {
    const early = await world.held();
    const late = await world.held();
    await world.clock.advance(minute);
    const worker = await world.worker();
    const codes = await outcomes([
      world.store.commit([early.next([goOn()])]),
      world.store.claim(worker, { limit: 10 }),
      world.store.commit([late.next([goOn()])]),
    ]);
    assert.deepEqual(codes, ["ok", "ok", "CONFLICT"]);
    assert.equal((await world.load(early.runId)).row.seq, 1);
    assert.equal((await world.load(late.runId)).row.seq, 0);
  },
};
