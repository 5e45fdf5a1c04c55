/** A run that has failed may be tried again: its holder hands it back as carefully as one that parks. */
import assert from "node:assert/strict";
import type { Blocked } from "../../kernel/transition.ts";
import type { Message } from "../../kernel/message.ts";
import {
  type Case,
  failing,
  finish,
  goOn,
  type Holder,
  idsOf,
  message,
  minute,
  park,
  refuses,
  retried,
  same,
  taken,
  type World,
} from "./world.ts";

const retry = (runId: string, options: Partial<Message> = {}): Message =>
  message(runId, { id: "retry", kind: "control", key: "retry", payload: {}, ifFailed: true, ...options });

/** A run that failed and is leased to nobody. */
async function failed(world: World): Promise<Holder> {
  const holder = await world.held();
  await world.store.commit([holder.next([failing()], { release: true })]);
  return holder;
}

export const failureCases: Record<string, Case> = {
  async "failed: the run stays with its holder until it is released, and is then nobody's and never due"(world) {
    const holder = await world.held();
    assert.deepEqual(await world.store.commit([holder.next([failing()])]), [[]]);
    same((await world.load(holder.runId)).lease, holder.lease);
    assert.deepEqual(await world.store.commit([holder.next([], { release: true })]), [[]]);
    const { lease, row } = await world.load(holder.runId);
    same([lease, row.status, row.wakeAt], [undefined, "failed", null]);
    const worker = await world.worker();
    assert.deepEqual(await world.store.claim(worker, { limit: 10 }), []);
    assert.deepEqual(await world.store.claim(worker, { limit: 1, runId: holder.runId }), []);
    assert.equal((await world.store.nextDue(worker)).at, undefined);
  },

  async "S5: mail that its holder has not looked at keeps the lease of a run that failed, with or behind the failure"(world) {
    for (const together of [true, false]) {
      const holder = await world.held();
      await world.store.deliver([message(holder.runId)]);
      const end = holder.next([failing()], { release: together });
      const [unseen = []] = await world.store.commit(together ? [end] : [end, (await world.held()).next([goOn()])]);
      const [mail = []] = together ? [unseen] : await world.store.commit([holder.next([], { release: true })]);
      assert.deepEqual(
        mail.map(({ id }) => id),
        ["m1"],
      );
      same((await world.load(holder.runId)).lease, holder.lease);
      assert.deepEqual(await world.store.commit([holder.next([], { release: true, mailSeen: mail[0]?.position ?? 0 })]), [[]]);
      same((await world.load(holder.runId)).lease, undefined);
    }
  },

  async "S5: a wish to try again and the release of the failed run, in either order, leave somebody who knows"(world) {
    for (const first of ["wish", "release"]) {
      for (const awaited of [false, true]) {
        const holder = await world.held();
        const { runId } = holder;
        await world.store.commit([holder.next([failing()])]);
        const release = holder.next([], { release: true });
        let unseen: string[] = [];
        const acts = [
          () => world.store.deliver([retry(runId)]),
          async () => {
            unseen = (await world.store.commit([release])).flat().map(({ id }) => id);
          },
        ];
        if (first === "release") acts.reverse();
        if (awaited) for (const act of acts) await act();
        else await Promise.all(acts.map((act) => act()));
        const { lease, mail } = await world.load(runId);
        assert.deepEqual(
          mail.map(({ id }) => id),
          ["retry"],
        );
        if (lease) {
          assert.deepEqual(unseen, ["retry"]);
          await world.store.commit([holder.next([retried()], { take: ["retry"] })]);
        } else assert.deepEqual(await world.claimable(), [runId]);
      }
    }
  },

  async "deliver: with ifFailed only to a run that has failed; others are told what it is"(world) {
    const [running, parked, ended] = [await world.held(), await world.parked(), await world.held()];
    await world.store.commit([ended.next([finish()], { release: true })]);
    const [over, left] = [await failed(world), await failed(world)];
    const answers = await world.store.deliver([
      retry("nowhere"),
      ...[running, parked, ended, over].map(({ runId }) => retry(runId)),
      retry(over.runId),
      // It is about to go on, and takes what is sent to it; the other is not.
      message(over.runId, { id: "an event" }),
      message(left.runId, { id: "an event" }),
    ]);
    assert.deepEqual(answers, [
      { kind: "no_run" },
      { kind: "not_failed", status: "running" },
      { kind: "not_failed", status: "waiting" },
      { kind: "not_failed", status: "completed" },
      { kind: "stored" },
      { kind: "duplicate", same: true },
      { kind: "stored" },
      { kind: "ended", status: "failed" },
    ]);
    for (const { runId } of [running, parked, ended]) assert.equal((await world.load(runId)).mail.length, 0);
  },

  async "deliver: with ifFailed, the run is due at once, and given by name, too"(world) {
    const [first, second] = [await failed(world), await failed(world)];
    const worker = await world.worker();
    await world.store.deliver([retry(first.runId), retry(second.runId)]);
    assert.equal((await world.store.nextDue(worker)).at, world.clock.now());
    const [named] = await world.store.claim(worker, { limit: 1, runId: second.runId });
    same([named?.row.status, named?.mail.map(({ id }) => id)], ["failed", ["retry"]]);
    assert.deepEqual(idsOf(await world.store.claim(worker, { limit: 10 })), [first.runId]);
  },

  async "deliver: with ifFailed, tells of the holder that has not let go yet"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next([failing()])]);
    assert.deepEqual(await world.store.deliver([retry(holder.runId)]), [{ kind: "stored", holder: holder.lease.workerId }]);
  },

  async "failed: a commit brings it back, and it runs, waits and ends as any other"(world) {
    const before = await failed(world);
    const { runId } = before;
    await world.store.deliver([retry(runId)]);
    const holder = await world.takeOver(before);
    await world.store.commit([holder.next([retried(), goOn()], { take: ["retry"] })]);
    assert.equal((await world.load(runId)).row.status, "running");
    await world.store.commit([holder.next([park({ waitKey: "go" })], { release: true, mailSeen: Number.MAX_SAFE_INTEGER })]);
    assert.deepEqual(await world.claimable(), []);
    const answer = message(runId);
    assert.deepEqual(await world.store.deliver([answer]), [{ kind: "stored" }]);
    const last = await world.takeOver(holder);
    await world.store.commit([last.next([taken(answer), finish()], { take: ["m1"] })]);
    same((await world.load(runId)).lease, undefined);
    assert.deepEqual(await world.store.deliver([retry(runId, { id: "again" })]), [{ kind: "not_failed", status: "completed" }]);
  },

  async "failed: a driver that finds nothing to do lets go, and the run is not due again"(world) {
    const before = await failed(world);
    await world.store.deliver([retry(before.runId)]);
    const holder = await world.takeOver(before);
    await world.store.commit([holder.next([], { release: true, take: ["retry"], mailSeen: Number.MAX_SAFE_INTEGER })]);
    assert.deepEqual(await world.claimable(), []);
    assert.deepEqual(await world.store.deliver([retry(before.runId, { id: "again" })]), [{ kind: "stored" }]);
    assert.deepEqual(await world.claimable(), [before.runId]);
  },

  async "failed: when its holder dies, it is looked at again if there is mail; without, it is not"(world) {
    const worker = await world.worker();
    const [wanted, forgotten] = [await world.held({}, worker), await world.held({}, worker)];
    await world.store.commit([wanted, forgotten].map((holder) => holder.next([failing()])));
    await world.store.deliver([retry(wanted.runId)]);
    await world.clock.advance(minute);
    assert.deepEqual(await world.claimable(), [wanted.runId]);
    same((await world.load(forgotten.runId)).lease, undefined);
    assert.deepEqual(await world.store.claim(await world.worker(), { limit: 1, runId: forgotten.runId }), []);
    const late = wanted.next([retried()], { take: ["retry"] });
    await refuses(world.store.commit([late]), "CONFLICT");
  },

  async "failed: a release without a commit leaves it due if there is mail; without, it is not"(world) {
    const [wanted, forgotten] = [await world.held(), await world.held()];
    await world.store.commit([wanted, forgotten].map((holder) => holder.next([failing()])));
    await world.store.deliver([retry(wanted.runId)]);
    for (const { runId, lease } of [wanted, forgotten]) await world.store.release(runId, lease, {});
    assert.deepEqual(await world.claimable(), [wanted.runId]);
  },

  async "failed: code that cannot try it again blocks it as any other"(world) {
    const before = await failed(world);
    await world.store.deliver([retry(before.runId)]);
    const holder = await world.takeOver(before);
    const blocked: Blocked = { code: "WORKFLOW_UNKNOWN", problem: "", fingerprint: "code 1", quarantine: false };
    await world.store.release(before.runId, holder.lease, { blocked, mailSeen: Number.MAX_SAFE_INTEGER });
    assert.deepEqual(await world.claimable(), []);
    assert.deepEqual(await world.claimable({ fingerprint: "code 2" }), [before.runId]);
  },
};
