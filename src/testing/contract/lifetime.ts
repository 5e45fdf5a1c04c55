/** Opening, closing, and what is left when the store is opened again. */
import assert from "node:assert/strict";
import type { Store } from "../../kernel/store.ts";
import { type Case, goOn, message, minute, refuses, same, stored } from "./world.ts";

export const lifetimeCases: Record<string, Case> = {
  async "close: waits for what is under way, then every call is refused with STORE_CLOSED; a second close does nothing"(world) {
    const { store } = world;
    const worker = await world.worker();
    const holder = await world.held({}, worker);
    const { runId, lease } = holder;
    const underWay = [store.commit([holder.next([goOn()])]), store.commit([holder.next([goOn()])])];
    const closing = store.close();
    await Promise.all([...underWay, closing]);
    await store.close();
    const calls: Promise<unknown>[] = [
      store.renew(worker.workerId, minute),
      store.retire(worker.workerId),
      store.create([stored(world.newRun())]),
      store.commit([holder.next([goOn()])]),
      store.deliver([message(runId)]),
      store.claim(worker, { limit: 1 }),
      store.release(runId, lease, {}),
      store.lift(runId),
      store.nextDue(worker),
      store.mail(runId, 0),
      store.news(worker.workerId, 0),
      store.listeners("go", { limit: 1 }),
      store.load(runId),
      store.records(runId, 0, 1),
      store.checkpoints(runId),
      store.query({}),
      store.count({}),
      store.putArtifact({ id: "a", sizeBytes: 0, contentType: "text/plain", tags: {}, createdAt: 0, blob: "b" }, { pinMs: 0 }),
      store.keepArtifact("a", { pinMs: 0 }),
      store.artifact("a"),
      store.artifacts({}),
      store.dropArtifacts(runId),
      store.sweepArtifacts(1),
      store.reserve([{ runId, name: "c", add: 1 }]),
      store.counters(runId),
      store.stats(),
    ];
    await Promise.all(calls.map((call) => refuses(call, "STORE_CLOSED")));
    store.hear(() => undefined)();
  },

  async "reopen: everything is there again: leases, workers, mail and its ids, blocks, counters, checkpoints, moments"(world) {
    const before = world.store;
    const worker = await world.worker();
    const holder = await world.held({ vars: { big: "x".repeat(100_000) } }, worker);
    const [old, fresh] = [message(holder.runId, { id: "old" }), message(holder.runId, { id: "fresh" })];
    const parked = await world.parked({ reason: "until", until: world.clock.now() + 500 });
    await before.deliver([old, fresh]);
    const transition = holder.next([goOn(), goOn()], { take: ["old"], counters: [{ runId: holder.runId, name: "c", add: 2 }] });
    transition.checkpoint = holder.checkpoint(1);
    await before.commit([transition]);
    const blockedRun = await world.held();
    const blocked = { code: "X", problem: "a\u0000 problem", fingerprint: "code 1", quarantine: true };
    await before.release(blockedRun.runId, blockedRun.lease, { blocked });
    const runIds = [holder.runId, parked.runId, blockedRun.runId];
    const everything = async (store: Store): Promise<unknown> => [
      await Promise.all(runIds.map((runId) => store.load(runId, { whole: true }))),
      await Promise.all(runIds.map((runId) => store.checkpoints(runId))),
      await store.query({}),
      await store.counters(holder.runId),
      await store.nextDue(worker),
    ];
    const expected = await everything(before);

    const store = world.reopen ? await world.reopen() : before;
    // A store may take the workers of a closed one for dead, until they renew.
    await store.renew(worker.workerId, minute);

    same(await everything(store), expected);
    if (store !== before) await refuses(before.stats(), "STORE_CLOSED");
    const answers = await store.deliver([old, { ...fresh, payload: "other" }]);
    assert.deepEqual(answers, [
      { kind: "duplicate", same: true },
      { kind: "duplicate", same: false },
    ]);
    assert.deepEqual(await store.commit([transition]), [[]]);
    await store.commit([holder.next([goOn()])]);
    await store.deliver([message(holder.runId, { id: "newest" })]);
    const positions = (await store.mail(holder.runId, 0)).map(({ position }) => position);
    assert.ok((positions[0] ?? 0) < (positions[1] ?? 0));
    await world.clock.advance(500);
    const due = await store.claim({ workerId: "other", fingerprint: "code 1" }, { limit: 10 });
    assert.deepEqual(
      due.map(({ row }) => row.runId),
      [parked.runId],
    );
  },
};
