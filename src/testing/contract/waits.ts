/** Waits: opened and closed by commits, found by their keys. */
import assert from "node:assert/strict";
import type { Delivery } from "../../kernel/message.ts";
import {
  type Case,
  failing,
  finish,
  goOn,
  message,
  minute,
  outcomes,
  park,
  refuses,
  same,
  stored,
  taken,
  type World,
} from "./world.ts";

async function waitsOf(world: World, runId: string): Promise<string[]> {
  const { runs } = await world.store.query({ idPrefix: runId });
  return (runs[0]?.waits ?? []).map(({ effectId, waitKey }) => `${effectId}: ${waitKey}`).sort();
}

export const waitCases: Record<string, Case> = {
  async "waits: stand from the commit that opened them to the one that closed them, as they were opened"(world) {
    const holder = await world.held();
    const { runId } = holder;
    const opening = holder.next([park({ effectId: "1", waitKey: "a" }), park({ effectId: "2", waitKey: "b", until: minute })]);
    await world.store.commit([opening]);
    const { runs } = await world.store.query({});
    same(runs[0]?.waits, opening.waits?.open);
    await world.store.commit([holder.next([goOn()], { waits: undefined })]);
    assert.deepEqual(await waitsOf(world, runId), ["1: a", "2: b"]);
    await world.store.commit([holder.next([goOn()], { waits: { open: [], close: ["1"] } })]);
    assert.deepEqual(await waitsOf(world, runId), ["2: b"]);
    same((await world.store.query({ waitKey: "a" })).runs, []);
  },

  async "waits: an effect whose wait is closed and opened by one commit waits anew"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next([park({ waitKey: "a" })])]);
    const open = [{ effectId: "1", waitKey: "b", reason: "user" as const, since: 5, until: 9 }];
    await world.store.commit([holder.next([goOn()], { waits: { close: ["1"], open } })]);
    same((await world.store.query({})).runs[0]?.waits, open);
  },

  async "waits: closing what does not wait does nothing"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next([park({ waitKey: "a" })], { waits: { open: [], close: ["7"] } })]);
    assert.deepEqual(await waitsOf(world, holder.runId), []);
  },

  async "waits: those of each run on a page are its own"(world) {
    const runIds = ["w1", "w2", "w3"];
    for (const runId of runIds) await world.parked({ runId, waitKey: `of ${runId}` });
    const { runs } = await world.store.query({ order: "oldest" });
    assert.deepEqual(
      runs.map(({ waits }) => waits.map(({ waitKey }) => waitKey)),
      runIds.map((runId) => [`of ${runId}`]),
    );
  },

  async "waits: a run that has ended waits for nothing, closed or not"(world) {
    const cancelled = { kind: "run_cancelled", data: {} } as const;
    for (const end of [finish(), failing(), cancelled]) {
      const holder = await world.held();
      await world.store.commit([holder.next([park({ waitKey: "a" })])]);
      await world.store.commit([holder.next([end], { waits: undefined, release: true })]);
      assert.deepEqual(await waitsOf(world, holder.runId), []);
    }
    assert.deepEqual(await world.store.listeners("a", { limit: 10 }), { runIds: [] });
  },

  async "S1: a commit that is refused opens and closes none"(world) {
    const holder = await world.held();
    await world.store.commit([holder.next([park({ waitKey: "a" })])]);
    const waits = { open: [{ effectId: "2", waitKey: "b", reason: "event" as const, since: 0 }], close: ["1"] };
    await refuses(world.store.commit([holder.twin().next([goOn()], { waits, take: ["never"] })]), "CONFLICT");
    assert.deepEqual(await waitsOf(world, holder.runId), ["1: a"]);
  },

  async "S2: a commit that stands already does not open again what was closed since"(world) {
    const holder = await world.held();
    const opening = holder.next([park({ waitKey: "a" })]);
    await world.store.commit([opening]);
    const answer = message(holder.runId, { key: "a" });
    await world.store.deliver([answer]);
    await world.store.commit([holder.next([taken(answer)], { take: ["m1"] })]);
    await world.store.commit([opening]);
    assert.deepEqual(await waitsOf(world, holder.runId), []);
  },

  async "deliver: with ifWaiting: true only while some wait of the run has the key of the message"(world) {
    const holder = await world.held();
    const other = await world.parked({ waitKey: "c" });
    await world.store.commit([holder.next([park({ effectId: "1", waitKey: "a" }), park({ effectId: "2", waitKey: "b" })])]);
    const send = async (key: string): Promise<Delivery["kind"] | undefined> =>
      (await world.store.deliver([message(holder.runId, { id: key, key, ifWaiting: true })]))[0]?.kind;
    assert.deepEqual([await send("c"), await send("b"), await send("a")], ["not_waiting", "stored", "stored"]);
    const answer = message(holder.runId, { id: "b", key: "b" });
    // Seen together with the write, in either order.
    const late = message(holder.runId, { id: "late", key: "b", ifWaiting: true });
    const [, [sent]] = await Promise.all([
      world.store.commit([holder.next([taken(answer, "2")], { take: ["b"] })]),
      world.store.deliver([late]),
    ]);
    assert.deepEqual(sent, { kind: "not_waiting" });
    assert.equal(await send("b"), "duplicate");
    const asked = message(other.runId, { id: "x", key: "c", ifWaiting: true });
    assert.deepEqual(await world.store.deliver([asked, { ...asked, id: "y", key: "C" }]), [
      { kind: "stored" },
      { kind: "not_waiting" },
    ]);
    assert.deepEqual(await outcomes([world.store.deliver([{ ...asked, runId: "nowhere" }])]), ["ok"]);
  },

  async "listeners: runs that wait for an event under the key, each once, in the order of their creation"(world) {
    const worker = await world.worker();
    await world.parked({ runId: "z", waitKey: "e" }, worker);
    await world.parked({ runId: "a question", waitKey: "e", reason: "user" }, worker);
    const twice = await world.held({ runId: "m", workflowId: "other" }, worker);
    await world.store.commit([twice.next([park({ effectId: "1", waitKey: "e" }), park({ effectId: "2", waitKey: "e" })])]);
    await world.parked({ runId: "another key", waitKey: "f" }, worker);
    await world.parked({ runId: "a", waitKey: "e" }, worker);
    assert.deepEqual(await world.store.listeners("e", { limit: 10 }), { runIds: ["z", "m", "a"] });
    assert.deepEqual(await world.store.listeners("e", { limit: 10, workflowId: "other" }), { runIds: ["m"] });
    assert.deepEqual(await world.store.listeners("E", { limit: 10 }), { runIds: [] });
  },

  async "listeners: come in pages; who begins to listen meanwhile is found at the end"(world) {
    const worker = await world.worker();
    for (const runId of ["1", "2", "3"]) await world.parked({ runId, waitKey: "e" }, worker);
    const first = await world.store.listeners("e", { limit: 2 });
    assert.deepEqual(first.runIds, ["1", "2"]);
    await world.parked({ runId: "4", waitKey: "e" }, worker);
    const second = await world.store.listeners("e", { limit: 2, cursor: first.next });
    assert.deepEqual(second, { runIds: ["3", "4"] });
    assert.deepEqual((await world.store.listeners("e", { limit: 3, workflowId: "work" })).runIds, ["1", "2", "3"]);
  },

  async "listeners: a page has at most 1,000"(world) {
    const worker = await world.worker();
    const runs = Array.from({ length: 1_001 }, () => world.newRun());
    await world.store.create(
      runs.map((run) => stored(run)),
      worker.workerId,
    );
    await world.store.commit(
      runs.map(({ state }) => world.holder(state, { workerId: worker.workerId, epoch: 1 }).next([park({ waitKey: "e" })])),
    );
    const first = await world.store.listeners("e", { limit: 5_000 });
    const second = await world.store.listeners("e", { limit: 5_000, cursor: first.next });
    assert.deepEqual(
      [...first.runIds, ...second.runIds],
      runs.map(({ row }) => row.runId),
    );
    assert.equal(first.runIds.length, 1_000);
    assert.equal(second.next, undefined);
  },
};
