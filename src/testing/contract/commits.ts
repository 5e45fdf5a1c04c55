/** Commits: all or none, in order, once. */
import assert from "node:assert/strict";
import type { Transition } from "../../kernel/transition.ts";
import { type Case, finish, goOn, message, minute, outcomes, park, refuses, same, stored, taken, type World } from "./world.ts";

/** All that a commit may change, of these runs. */
async function everything({ store }: World, runIds: readonly string[]): Promise<unknown> {
  return [
    await Promise.all(runIds.map((runId) => store.load(runId, { whole: true }))),
    await Promise.all(runIds.map((runId) => store.checkpoints(runId))),
    await Promise.all(runIds.map((runId) => store.counters(runId))),
  ];
}

/** A transition with something of everything, and what stands after it. */
async function rich(world: World): Promise<{ transition: Transition; runIds: string[] }> {
  const other = await world.parked();
  const parked = await world.parked();
  const mail = message(parked.runId);
  await world.store.deliver([mail]);
  const holder = await world.takeOver(parked);
  const child = stored(world.newRun({ parent: { runId: parked.runId, effectId: "1" } }));
  const transition = holder.next([taken(mail), goOn("rich")], {
    take: ["m1"],
    send: [message(other.runId, { id: "from rich" })],
    start: [child],
    counters: [
      { runId: other.runId, name: "made", add: 1 },
      { runId: parked.runId, name: "made", add: 2 },
    ],
  });
  transition.checkpoint = holder.checkpoint(1);
  return { transition, runIds: [parked.runId, other.runId, child.row.runId] };
}

export const commitCases: Record<string, Case> = {
  async "S1: a commit brings records, row, checkpoint, children, mail taken and sent, and counters at once"(world) {
    const { transition, runIds } = await rich(world);
    const [runId, otherId, childId] = runIds as [string, string, string];
    assert.deepEqual(await world.store.commit([transition]), [[]]);
    const run = await world.load(runId, { whole: true });
    same(run.row, transition.row);
    same(run.tail.slice(-2), transition.records);
    same(run.mail, []);
    same(await world.store.checkpoints(runId), [transition.checkpoint]);
    const other = await world.load(otherId);
    same(
      other.mail.map(({ id, payload }) => [id, payload]),
      [["from rich", { n: 1 }]],
    );
    same((await world.load(childId)).tail, [transition.start[0]?.record]);
    assert.deepEqual([await world.store.counters(otherId), await world.store.counters(runId)], [{ made: 1 }, { made: 2 }]);
    // The child is leased to nobody, and what the message woke is ready: both are given.
    assert.deepEqual((await world.claimable()).sort(), [otherId, childId].sort());
  },

  async "S1: when one transition of a call is refused, nothing of the call is written, wherever it stands"(world) {
    for (const place of ["first", "last"]) {
      const { transition, runIds } = await rich(world);
      const late = await world.held();
      const refused = late.twin({ ...late.lease, epoch: 99 }).next([goOn()]);
      const before = await everything(world, [...runIds, late.runId]);
      await refuses(world.store.commit(place === "first" ? [refused, transition] : [transition, refused]), "CONFLICT");
      same(await everything(world, [...runIds, late.runId]), before);
    }
  },

  async "S1: several runs are committed together"(world) {
    const holders = [await world.held(), await world.held(), await world.held()];
    const transitions = holders.map((holder) => holder.next([goOn(), goOn()]));
    assert.deepEqual(await world.store.commit(transitions), [[], [], []]);
    for (const { runId, row, records } of transitions) {
      const loaded = await world.load(runId);
      same(loaded.row, row);
      same(loaded.tail.slice(1), records);
    }
  },

  async "S1: a run that does not exist is a conflict"(world) {
    const holder = await world.held();
    await refuses(world.store.commit([{ ...holder.next([goOn()]), runId: "nowhere" }]), "CONFLICT");
  },

  async "S1: a moved seq is a conflict"(world) {
    const holder = await world.held();
    const twin = holder.twin();
    await world.store.commit([holder.next([goOn("mine")])]);
    await refuses(world.store.commit([twin.next([goOn("other")])]), "CONFLICT");
    holder.next([goOn("never sent")]);
    await refuses(world.store.commit([holder.next([goOn("behind a gap")])]), "CONFLICT");
    assert.equal((await world.load(holder.runId)).row.seq, 1);
  },

  async "S1: only the worker and the epoch of the lease may commit"(world) {
    const holder = await world.held();
    for (const lease of [
      { ...holder.lease, workerId: "other" },
      { ...holder.lease, epoch: holder.lease.epoch - 1 },
      { ...holder.lease, epoch: holder.lease.epoch + 1 },
    ]) {
      await refuses(world.store.commit([holder.twin(lease).next([goOn()])]), "CONFLICT");
    }
    await world.store.commit([holder.next([goOn()])]);
  },

  async "S1: a late worker cannot commit"(world) {
    const late = await world.held();
    await world.clock.advance(minute);
    const next = await world.takeOver(late);
    await refuses(world.store.commit([late.twin().next([goOn("late")])]), "CONFLICT");
    const step = next.next([goOn("in time")]);
    await world.store.commit([step]);
    await refuses(world.store.commit([late.twin().next([goOn("late")])]), "CONFLICT");
    same((await world.load(late.runId)).tail.slice(1), step.records);
  },

  async "S1: an expired worker whose run nobody has claimed may still commit"(world) {
    const holder = await world.held();
    await world.clock.advance(minute + 1);
    await world.store.commit([holder.next([goOn()])]);
  },

  async "S1: a run that is leased to nobody takes no commit"(world) {
    const holder = await world.parked();
    await refuses(world.store.commit([holder.next([goOn()])]), "CONFLICT");
  },

  async "S2: a commit whose records stand succeeds and changes nothing"(world) {
    const { transition, runIds } = await rich(world);
    await world.store.commit([transition]);
    const before = await everything(world, runIds);
    assert.deepEqual(await world.store.commit([transition]), [[]]);
    same(await everything(world, runIds), before);
  },

  async "S2: also when it is repeated in the same turn"(world) {
    const { transition, runIds } = await rich(world);
    assert.deepEqual(await Promise.all([world.store.commit([transition]), world.store.commit([transition])]), [[[]], [[]]]);
    const [loaded] = (await everything(world, runIds)) as [{ row: { seq: number } }[]];
    assert.equal(loaded[0]?.row.seq, transition.row.seq);
    assert.deepEqual(await world.store.counters(runIds[1] as string), { made: 1 });
  },

  async "S2: also when the run has moved on, under a later epoch"(world) {
    const holder = await world.held();
    const counters = [{ runId: holder.runId, name: "made", add: 1 }];
    const step = holder.next([goOn("lost acknowledgement")], { release: true, counters });
    await world.store.commit([step]);
    await world.store.commit([step]);
    const next = await world.takeOver(holder);
    await world.store.commit([next.next([goOn("later")])]);
    const before = await everything(world, [holder.runId]);
    assert.deepEqual(await world.store.commit([step]), [[]]);
    same(await everything(world, [holder.runId]), before);
    await world.store.commit([next.next([goOn("goes on")])]);
  },

  async "S2: also when the run has ended since"(world) {
    const holder = await world.held();
    const step = holder.next([goOn()]);
    const end = holder.next([finish()], { release: true });
    await world.store.commit([step]);
    await world.store.commit([end]);
    assert.deepEqual(await world.store.commit([step]), [[]]);
    assert.deepEqual(await world.store.commit([end]), [[]]);
    assert.equal((await world.load(holder.runId)).row.status, "completed");
  },

  async "S2: records of which only some stand are a conflict"(world) {
    const holder = await world.held();
    const first = holder.next([goOn()]);
    const second = holder.next([goOn()]);
    await world.store.commit([first]);
    await refuses(world.store.commit([{ ...second, after: 0, records: [...first.records, ...second.records] }]), "CONFLICT");
    await world.store.commit([second]);
  },

  async "S2: a bare release whose lease is handed back already succeeds, until another worker has it"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next([park({ waitKey: "go" })])]);
    const release = holder.next([], { release: true });
    assert.deepEqual(await world.store.commit([release]), [[]]);
    assert.deepEqual(await world.store.commit([release]), [[]]);
    const next = await world.takeOver(holder);
    await refuses(world.store.commit([release]), "CONFLICT");
    await world.store.release(next.runId, next.lease, {});
    await refuses(world.store.commit([release]), "CONFLICT");
  },

  async "S2 S5: a release that mail had refused is refused with the same mail when it is repeated"(world) {
    const holder = await world.held();
    await world.store.deliver([message(holder.runId)]);
    const parking = holder.next([park({ waitKey: "go" })], { release: true });
    const [mail] = await world.store.commit([parking]);
    assert.equal(mail?.length, 1);
    assert.deepEqual(await world.store.commit([parking]), [mail]);
    same((await world.load(holder.runId)).lease, holder.lease);
  },

  async "S3: commits for one run may be sent ahead; their order is kept"(world) {
    const holder = await world.held();
    const transitions: Transition[] = [];
    for (let i = 0; i < 20; i++) {
      const transition = holder.next([goOn(i), goOn(`and ${i}`)]);
      if (i % 5 === 4) transition.checkpoint = holder.checkpoint((i + 1) / 5);
      transitions.push(transition);
    }
    await Promise.all(transitions.map((transition) => world.store.commit([transition])));
    const { row, tail } = await world.load(holder.runId, { whole: true });
    same(row, transitions.at(-1)?.row);
    same(
      tail.slice(1),
      transitions.flatMap(({ records }) => records),
    );
  },

  async "S3: one that fails fails those behind it, and not those before it"(world) {
    const holder = await world.held();
    const transitions = [
      holder.next([goOn(1)]),
      holder.next([goOn(2)], { take: ["never"] }),
      holder.next([goOn(3)]),
      holder.next([finish()], { release: true }),
    ];
    const codes = await outcomes(transitions.map((transition) => world.store.commit([transition])));
    assert.deepEqual(codes, ["ok", "CONFLICT", "CONFLICT", "CONFLICT"]);
    const { row, lease } = await world.load(holder.runId);
    same([row, lease], [transitions[0]?.row, holder.lease]);
  },

  async "S3: also when the one that fails has no records, so that seq alone would not tell"(world) {
    const holder = await world.held();
    const child = stored(world.newRun());
    const codes = await outcomes([
      world.store.commit([holder.next([], { start: [child], take: ["never"] })]),
      world.store.commit([holder.next([goOn()])]),
    ]);
    assert.deepEqual(codes, ["CONFLICT", "CONFLICT"]);
    assert.equal((await world.load(holder.runId)).row.seq, 0);
  },

  async "S3: calls of one turn fail alone"(world) {
    const [good, bad, other] = [await world.held(), await world.held(), await world.held()];
    const codes = await outcomes([
      world.store.commit([good.next([goOn()])]),
      world.store.commit([bad.twin({ ...bad.lease, epoch: 99 }).next([goOn()])]),
      world.store.commit([bad.next([goOn()])]),
      world.store.commit([other.next([goOn()])]),
    ]);
    assert.deepEqual(codes, ["ok", "CONFLICT", "ok", "ok"]);
    for (const { runId } of [good, bad, other]) assert.equal((await world.load(runId)).row.seq, 1);
  },

  async "S3: a holder that was refused goes on once it knows: a later turn is not bound"(world) {
    const holder = await world.held();
    const twin = holder.twin();
    await refuses(world.store.commit([holder.next([goOn()], { take: ["never"] })]), "CONFLICT");
    await world.store.commit([twin.next([goOn()])]);
  },

  async "release: hands the lease back with the commit; the row's wakeAt counts from then on"(world) {
    const until = world.clock.now() + 500;
    const holder = await world.held();
    assert.deepEqual(
      await world.store.commit([holder.next([park({ waitKey: "go", reason: "until", until })], { release: true })]),
      [[]],
    );
    const { lease, row } = await world.load(holder.runId);
    same([lease, row.wakeAt], [undefined, until]);
    assert.deepEqual(await world.claimable(), []);
  },

  async "release: without it the lease stays"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next([park({ waitKey: "go" })])]);
    same((await world.load(holder.runId)).lease, holder.lease);
  },

  async "release: the lease of a run that has ended is handed back, asked for or not, whatever mail there is"(world) {
    for (const release of [true, false]) {
      const holder = await world.held();
      await world.store.deliver([message(holder.runId)]);
      assert.deepEqual(await world.store.commit([holder.next([finish()], { release })]), [[]]);
      const { lease, row } = await world.load(holder.runId);
      same([lease, row.status, row.wakeAt], [undefined, "completed", null]);
    }
    await world.clock.advance(2 * minute);
    assert.deepEqual(await world.claimable(), []);
    assert.equal((await world.store.nextDue(await world.worker())).at, undefined);
  },

  async "start: a child is leased to nobody and due at once, or at its notBefore"(world) {
    const holder = await world.held();
    const parent = { runId: holder.runId, effectId: "1" };
    const [child, later] = [world.newRun({ parent }), world.newRun({ parent })];
    await world.store.commit([holder.next([goOn()], { start: [stored(child), stored(later, world.clock.now() + 10)] })]);
    same((await world.load(child.row.runId)).lease, undefined);
    assert.deepEqual(await world.claimable(), [child.row.runId]);
    await world.clock.advance(10);
    assert.deepEqual(await world.claimable(), [later.row.runId]);
  },

  async "start: a child that exists is left as it is"(world) {
    const child = await world.held({ runId: "child" });
    await world.store.commit([child.next([goOn("has worked")])]);
    const holder = await world.held();
    const before = await everything(world, ["child"]);
    await world.store.commit([holder.next([goOn()], { start: [stored(world.newRun({ runId: "child" }))] })]);
    same(await everything(world, ["child"]), before);
  },

  async "what was given is not part of the store: changing it afterwards changes nothing"(world) {
    const { transition, runIds } = await rich(world);
    await world.store.commit([transition]);
    const before = await everything(world, runIds);
    const copy = structuredClone(before);
    transition.row.node = "changed";
    transition.waits?.close.push("x");
    for (const record of transition.records) record.header = "changed";
    for (const child of transition.start) child.row.status = "failed";
    for (const sent of transition.send) sent.payload = "changed";
    if (transition.checkpoint) transition.checkpoint.text = "changed";
    same(await everything(world, runIds), before);
    const [[loaded]] = before as [{ row: { node: string }; tail: { header: string }[] }[]];
    assert.ok(loaded);
    loaded.row.node = "changed";
    for (const record of loaded.tail) record.header = "changed";
    same(await everything(world, runIds), copy);
  },
};
