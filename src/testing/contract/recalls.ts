/** Messages that are taken back before they were taken, and those that cannot be. */
import assert from "node:assert/strict";
import { type Case, finish, goOn, message, outcomes, refuses, taken } from "./world.ts";

export const recallCases: Record<string, Case> = {
  async "recall: a message that was not taken is withdrawn as the other is stored"(world) {
    const [from, to] = [await world.parked(), await world.parked()];
    await world.store.deliver([message(from.runId), message(from.runId, { id: "stays" })]);
    const recalling = message(to.runId, { id: "instead", recall: { runId: from.runId, id: "m1" } });
    assert.deepEqual(await world.store.deliver([recalling]), [{ kind: "stored" }]);
    assert.deepEqual(
      (await world.load(from.runId)).mail.map(({ id }) => id),
      ["stays"],
    );
    assert.deepEqual(
      (await world.load(to.runId)).mail.map(({ id }) => id),
      ["instead"],
    );
    assert.deepEqual(await world.store.deliver([recalling]), [{ kind: "duplicate", same: true }]);
  },

  async "recall: of a message that was taken, nothing is stored"(world) {
    const holder = await world.held();
    const to = await world.parked();
    const sent = message(holder.runId);
    await world.store.deliver([sent]);
    await world.store.commit([holder.next([goOn()], { take: ["m1"] })]);
    const recalling = message(to.runId, { id: "instead", recall: { runId: holder.runId, id: "m1" } });
    assert.deepEqual(await world.store.deliver([recalling]), [{ kind: "taken" }]);
    assert.deepEqual((await world.load(to.runId)).mail, []);
    assert.deepEqual(await world.claimable(), []);
    const { recall: _, ...plain } = recalling;
    assert.deepEqual(await world.store.deliver([plain]), [{ kind: "stored" }]);
  },

  async "recall: what was never stored, or was withdrawn before, does not stand in the way"(world) {
    const [from, to] = [await world.parked(), await world.parked()];
    await world.store.deliver([message(from.runId)]);
    const recalls = [
      { runId: "nowhere", id: "m1" },
      { runId: from.runId, id: "never" },
      ...Array(2).fill({ runId: from.runId, id: "m1" }),
    ];
    const answers = await world.store.deliver(recalls.map((recall, i) => message(to.runId, { id: `r${i}`, recall })));
    assert.deepEqual(
      answers,
      recalls.map(() => ({ kind: "stored" })),
    );
  },

  async "recall: nothing is withdrawn when the other is not stored"(world) {
    const from = await world.parked();
    const [waiting, ended, full] = [await world.parked(), await world.held(), await world.parked()];
    await world.store.commit([ended.next([finish()], { release: true })]);
    await world.store.deliver([message(from.runId), message(full.runId)]);
    const recall = { runId: from.runId, id: "m1" };
    const answers = await world.store.deliver(
      [
        message("nowhere", { id: "r", recall }),
        message(waiting.runId, { id: "r", recall, ifWaiting: "7" }),
        message(waiting.runId, { id: "r", recall, ifFailed: true }),
        message(ended.runId, { id: "r", recall }),
        message(full.runId, { id: "r", recall }),
      ],
      1,
    );
    assert.deepEqual(
      answers.map(({ kind }) => kind),
      ["no_run", "not_waiting", "not_failed", "ended", "full"],
    );
    assert.equal((await world.store.mail(from.runId, 0)).length, 1);
  },

  async "recall: the id of a withdrawn message stays known, and its room in the mailbox is free again"(world) {
    const [from, to] = [await world.parked(), await world.parked()];
    await world.store.deliver([message(from.runId)], 1);
    const recall = { runId: from.runId, id: "m1" };
    const [, , room] = await world.store.deliver(
      [message(from.runId, { id: "no room" }), message(to.runId, { id: "r", recall }), message(from.runId, { id: "room" })],
      1,
    );
    assert.deepEqual(room, { kind: "stored" });
    assert.deepEqual(await world.store.deliver([message(from.runId), message(from.runId, { payload: "other" })]), [
      { kind: "duplicate", same: true },
      { kind: "duplicate", same: false },
    ]);
  },

  async "recall: of one taken and one recalled in one turn, the first wins"(world) {
    for (const first of ["take", "recall"]) {
      const holder = await world.held();
      const to = await world.parked();
      await world.store.deliver([message(holder.runId)]);
      const taking = holder.next([goOn()], { take: ["m1"] });
      const acts = [
        () => world.store.commit([taking]),
        () => world.store.deliver([message(to.runId, { id: "r", recall: { runId: holder.runId, id: "m1" } })]),
      ];
      if (first === "recall") acts.reverse();
      const codes = await outcomes(acts.map((act) => act()));
      assert.deepEqual(codes, first === "take" ? ["ok", "ok"] : ["ok", "CONFLICT"]);
      assert.equal((await world.load(to.runId)).mail.length, first === "take" ? 0 : 1);
    }
  },

  async "S4: a commit that takes what is not there is a conflict and writes nothing: recalled, taken before, or never sent"(
    world,
  ) {
    const holder = await world.held();
    const to = await world.parked();
    const { runId } = holder;
    const ids = ["recalled", "taken before"];
    await world.store.deliver([...ids, "there"].map((id) => message(runId, { id })));
    await world.store.commit([holder.next([goOn()], { take: ["taken before"] })]);
    await world.store.deliver([message(to.runId, { recall: { runId, id: "recalled" } })]);
    for (const id of [...ids, "never sent"]) {
      const late = holder.twin().next([goOn()], { take: ["there", id], counters: [{ runId: holder.runId, name: "c", add: 1 }] });
      await refuses(world.store.commit([late]), "CONFLICT");
    }
    assert.equal((await world.load(runId)).row.seq, 1);
    assert.deepEqual(await world.store.counters(holder.runId), {});
    await world.store.commit([holder.next([goOn()], { take: ["there"] })]);
  },

  async "S2: a commit that stands already succeeds again, although what it took is not there any more"(world) {
    const parked = await world.parked();
    const sent = message(parked.runId);
    await world.store.deliver([sent]);
    const holder = await world.takeOver(parked);
    const taking = holder.next([taken(sent)], { take: ["m1"] });
    await world.store.commit([taking]);
    assert.deepEqual(await world.store.commit([taking]), [[]]);
  },
};
