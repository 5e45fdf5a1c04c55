/** Mailboxes: everything that wakes a run is a message to it or its wake time. */
import assert from "node:assert/strict";
import type { Delivery, Message } from "../../kernel/message.ts";
import { type Case, finish, goOn, type Holder, message, minute, park, refuses, same, stored, taken } from "./world.ts";

export const mailboxCases: Record<string, Case> = {
  async "S4: a message is in the mailbox when it is acknowledged, with the moment of its arrival"(world) {
    const holder = await world.parked();
    await world.clock.advance(3);
    const sent = message(holder.runId, { payload: { deep: [1, { a: null }] } });
    assert.deepEqual(await world.store.deliver([sent]), [{ kind: "stored" }]);
    const { mail } = await world.load(holder.runId);
    assert.equal(mail.length, 1);
    const { id, kind, key, payload } = sent;
    same(mail, [{ id, kind, key, payload, position: mail[0]?.position, at: world.clock.now() }]);
    same(await world.store.mail(holder.runId, 0), mail);
  },

  async "S4: a message keeps who sent it, which is no part of its content"(world) {
    const { runId } = await world.parked();
    const sent = message(runId, { actorId: "ada" });
    await world.store.deliver([sent]);
    assert.deepEqual(await world.store.deliver([{ ...sent, actorId: "bob" }]), [{ kind: "duplicate", same: true }]);
    assert.deepEqual(
      (await world.store.mail(runId, 0)).map(({ actorId }) => actorId),
      ["ada"],
    );
    assert.equal((await world.load(runId)).mail[0]?.actorId, "ada");
  },

  async "S4: messages keep the order of their arrival, across calls and runs"(world) {
    const [a, b] = [await world.parked(), await world.parked()];
    const send = (...ids: [Holder, string][]) => world.store.deliver(ids.map(([{ runId }, id]) => message(runId, { id })));
    await Promise.all([send([a, "z"], [b, "z"], [a, "y"]), send([a, "x"], [b, "y"])]);
    await send([a, "w"]);
    const [mailA, mailB] = [await world.store.mail(a.runId, 0), await world.store.mail(b.runId, 0)];
    assert.deepEqual(
      mailA.map(({ id }) => id),
      ["z", "y", "x", "w"],
    );
    assert.deepEqual(
      mailB.map(({ id }) => id),
      ["z", "y"],
    );
    const inOrder = [mailA[0], mailB[0], mailA[1], mailA[2], mailB[1], mailA[3]].map((mail) => mail?.position ?? 0);
    assert.deepEqual(
      inOrder,
      [...inOrder].sort((x, y) => x - y),
    );
    assert.equal(new Set(inOrder).size, inOrder.length);
    assert.ok(inOrder.every((position) => position > 0));
  },

  async "S4: a payload is the store's own: changing what was given, or what came back, changes nothing"(world) {
    const { runId } = await world.parked();
    const [given, expected] = [{ list: [1, { deep: true }] }, { list: [1, { deep: true }] }];
    await world.store.deliver([message(runId, { payload: given })]);
    given.list.push(2);
    for (let i = 0; i < 2; i++) {
      const payload = (await world.store.mail(runId, 0))[0]?.payload as typeof given;
      assert.deepEqual(payload, expected);
      payload.list.push(3);
    }
  },

  async "mail: gives what stands behind a position"(world) {
    const { runId } = await world.held();
    await world.store.deliver(["a", "b", "c"].map((id) => message(runId, { id })));
    const [first, second, third] = await world.store.mail(runId, 0);
    same(await world.store.mail(runId, first?.position ?? 0), [second, third]);
    same(await world.store.mail(runId, third?.position ?? 0), []);
    same(await world.store.mail("nowhere", 0), []);
  },

  async "deliver: each message stands alone, and is answered in its place"(world) {
    const [live, ended] = [await world.parked(), await world.held()];
    await world.store.commit([ended.next([finish()], { release: true })]);
    const answers = await world.store.deliver([
      message("nowhere"),
      message(live.runId),
      message(ended.runId),
      message(live.runId),
      message(live.runId, { id: "m2" }),
    ]);
    assert.deepEqual(answers, [
      { kind: "no_run" },
      { kind: "stored" },
      { kind: "ended", status: "completed" },
      { kind: "duplicate", same: true },
      { kind: "stored" },
    ]);
    assert.deepEqual(
      (await world.load(live.runId)).mail.map(({ id }) => id),
      ["m1", "m2"],
    );
    assert.deepEqual(await world.store.deliver([]), []);
  },

  async "S4: a second message with the same id is a duplicate; the answer tells whether the content was the same"(world) {
    const { runId } = await world.parked();
    const first = message(runId, { payload: { a: 1, b: { c: [1, 2], d: "x" } } });
    await world.store.deliver([first]);
    const again = async (change: Partial<Message>): Promise<Delivery | undefined> =>
      (await world.store.deliver([{ ...first, ...change }]))[0];
    assert.deepEqual(await again({}), { kind: "duplicate", same: true });
    assert.deepEqual(await again({ payload: { b: { d: "x", c: [1, 2] }, a: 1 } }), { kind: "duplicate", same: true });
    assert.deepEqual(await again({ payload: { a: 1, b: { c: [2, 1], d: "x" } } }), { kind: "duplicate", same: false });
    assert.deepEqual(await again({ payload: null }), { kind: "duplicate", same: false });
    assert.deepEqual(await again({ key: "other" }), { kind: "duplicate", same: false });
    assert.deepEqual(await again({ kind: "answer" }), { kind: "duplicate", same: false });
    same(
      (await world.load(runId)).mail.map(({ payload }) => payload),
      [first.payload],
    );
  },

  async "S4: an id is known within its run only"(world) {
    const [a, b] = [await world.parked(), await world.parked()];
    assert.deepEqual(await world.store.deliver([message(a.runId), message(b.runId)]), [{ kind: "stored" }, { kind: "stored" }]);
  },

  async "S4: an id stays known when its message was taken, and when its run has ended"(world) {
    const parked = await world.parked();
    const sent = message(parked.runId);
    await world.store.deliver([sent]);
    const holder = await world.takeOver(parked);
    await world.store.commit([holder.next([taken(sent), goOn()], { take: ["m1"] })]);
    const again = () => world.store.deliver([sent, { ...sent, payload: "other" }]);
    const known = [
      { kind: "duplicate", same: true },
      { kind: "duplicate", same: false },
    ];
    assert.deepEqual(await again(), known);
    same((await world.load(parked.runId)).mail, []);
    await world.store.commit([holder.next([finish()], { release: true })]);
    assert.deepEqual(await again(), known);
    assert.deepEqual(await world.store.deliver([{ ...sent, id: "m2" }]), [{ kind: "ended", status: "completed" }]);
  },

  async "S4: a message is taken by exactly one commit"(world) {
    const parked = await world.parked();
    const sent = message(parked.runId);
    await world.store.deliver([sent, { ...sent, id: "m2" }]);
    const late = await world.takeOver(parked);
    await world.clock.advance(minute);
    const holder = await world.takeOver(parked);
    await refuses(world.store.commit([late.next([taken(sent)], { take: ["m1"] })]), "CONFLICT");
    assert.deepEqual(
      (await world.load(parked.runId)).mail.map(({ id }) => id),
      ["m1", "m2"],
    );
    await world.store.commit([holder.next([taken(sent)], { take: ["m1"] })]);
    assert.deepEqual(
      (await world.store.mail(parked.runId, 0)).map(({ id }) => id),
      ["m2"],
    );
  },

  async "S4: a message that comes early is kept"(world) {
    const holder = await world.held();
    await world.store.deliver([message(holder.runId)]);
    holder.mailSeen = (await world.store.mail(holder.runId, 0))[0]?.position ?? 0;
    assert.deepEqual(await world.store.commit([holder.next([park({ waitKey: "other" })], { release: true })]), [[]]);
    assert.deepEqual(await world.claimable(), []);
    assert.equal((await world.load(holder.runId)).mail.length, 1);
  },

  async "deliver: a full mailbox takes no more, until something was taken"(world) {
    const parked = await world.parked();
    const send = async (id: string): Promise<Delivery | undefined> =>
      (await world.store.deliver([message(parked.runId, { id })], 2))[0];
    assert.deepEqual(
      [await send("a"), await send("b"), await send("c")],
      [{ kind: "stored" }, { kind: "stored" }, { kind: "full", limit: 2 }],
    );
    assert.deepEqual(await send("a"), { kind: "duplicate", same: true });
    const holder = await world.takeOver(parked);
    await world.store.commit([holder.next([taken(message(parked.runId, { id: "a" }))], { take: ["a"], release: false })]);
    assert.equal((await send("c"))?.kind, "stored");
    assert.deepEqual(await send("d"), { kind: "full", limit: 2 });
    assert.equal((await world.store.deliver([message(parked.runId, { id: "without a limit" })]))[0]?.kind, "stored");
  },

  async "deliver: control messages and ends of children are never too many, and leave the room to the others"(world) {
    const { runId } = await world.parked();
    const exempt = (["control", "child_end"] as const).flatMap((kind) =>
      [1, 2, 3].map((n) => message(runId, { id: `${kind} ${n}`, kind })),
    );
    const answers = await world.store.deliver(
      [...exempt, message(runId), ...exempt.map((one) => ({ ...one, id: `${one.id} again` }))],
      1,
    );
    assert.deepEqual(new Set(answers.map(({ kind }) => kind)), new Set(["stored"]));
    assert.deepEqual(await world.store.deliver([message(runId, { id: "m2" })], 1), [{ kind: "full", limit: 1 }]);
  },

  async "deliver: with ifWaiting only while that effect waits, seen together with the write"(world) {
    const parked = await world.parked({ effectId: "7" });
    const send = async (id: string, ifWaiting: string): Promise<Delivery | undefined> =>
      (await world.store.deliver([message(parked.runId, { id, ifWaiting })]))[0];
    assert.deepEqual(await send("a", "8"), { kind: "not_waiting" });
    // It waits for something else by now.
    const before = message(parked.runId, { id: "a", key: "went", ifWaiting: "7" });
    assert.deepEqual(await world.store.deliver([before]), [{ kind: "not_waiting" }]);
    assert.deepEqual(await send("a", "7"), { kind: "stored" });
    const holder = await world.takeOver(parked);
    const answered = world.store.commit([holder.next([taken(message(parked.runId, { id: "a" }), "7")], { take: ["a"] })]);
    const late = send("b", "7");
    await answered;
    assert.deepEqual(await late, { kind: "not_waiting" });
    assert.deepEqual(await send("a", "7"), { kind: "duplicate", same: true });
    assert.equal((await world.load(parked.runId)).mail.length, 0);
  },

  async "deliver: tells who drives the run, and nobody when nobody does"(world) {
    const holder = await world.held();
    assert.deepEqual(await world.store.deliver([message(holder.runId)]), [{ kind: "stored", holder: holder.lease.workerId }]);
    await world.store.release(holder.runId, holder.lease, {});
    assert.deepEqual(await world.store.deliver([message(holder.runId, { id: "m2" })]), [{ kind: "stored" }]);
  },

  async "deliver: a parked run becomes ready, at once"(world) {
    const never = await world.parked();
    const later = await world.parked({ reason: "until", until: world.clock.now() + minute });
    assert.deepEqual(await world.claimable(), []);
    await world.store.deliver([message(never.runId), message(later.runId)]);
    assert.deepEqual((await world.claimable()).sort(), [never.runId, later.runId].sort());
  },

  async "deliver: a run that is due already keeps its place"(world) {
    const now = world.clock.now();
    const [first, second] = [stored(world.newRun(), now + 1), stored(world.newRun(), now + 2)];
    await world.store.create([first, second]);
    await world.clock.advance(10);
    await world.store.deliver([message(first.row.runId)]);
    assert.deepEqual(await world.claimable(), [first.row.runId, second.row.runId]);
  },

  async "deliver: to a run that is held, leaves its wakeAt"(world) {
    const parked = await world.parked();
    const holder = await world.takeOver(parked);
    await world.store.deliver([message(parked.runId)]);
    assert.equal((await world.load(parked.runId)).row.wakeAt, null);
    same((await world.load(parked.runId)).lease, holder.lease);
  },

  async "deliver: moves neither seq nor lease, so that the holder's next commit stands"(world) {
    const holder = await world.held();
    const step = holder.next([goOn()]);
    await world.store.deliver([message(holder.runId)]);
    await world.store.commit([step]);
  },

  async "send: a child's end reaches its parent in the child's last commit, and wakes it"(world) {
    const parent = await world.parked();
    const child = await world.held({ parent: { runId: parent.runId, effectId: "1" } });
    const end = message(parent.runId, { id: `end:${child.runId}`, kind: "child_end" });
    await world.store.commit([child.next([finish()], { release: true, send: [end] })]);
    const next = await world.worker();
    const [loaded] = await world.store.claim(next, { limit: 10 });
    assert.equal(loaded?.row.runId, parent.runId);
    same(
      loaded.mail.map(({ id, kind, payload }) => [id, kind, payload]),
      [[end.id, "child_end", end.payload]],
    );
  },

  async "send: a target that has ended or does not exist, or knows the id, does not fail the commit"(world) {
    const ended = await world.held();
    await world.store.commit([ended.next([finish()], { release: true })]);
    const known = await world.parked();
    await world.store.deliver([message(known.runId)]);
    const holder = await world.held();
    const send = ["nowhere", ended.runId, known.runId].map((runId) => message(runId, { payload: "other" }));
    assert.deepEqual(await world.store.commit([holder.next([goOn()], { send })]), [[]]);
    same(
      (await world.load(known.runId)).mail.map(({ payload }) => payload),
      [{ n: 1 }],
    );
    same((await world.load(ended.runId)).mail, []);
  },

  async "send: reaches a run that is parked, or started, in the same call"(world) {
    const [from, to] = [await world.held(), await world.held()];
    const child = world.newRun();
    await world.store.commit([
      to.next([park({ waitKey: "go" })], { release: true }),
      from.next([goOn()], { start: [stored(child)], send: [message(to.runId), message(child.row.runId)] }),
    ]);
    assert.equal((await world.load(child.row.runId)).mail.length, 1);
    assert.deepEqual((await world.claimable()).sort(), [to.runId, child.row.runId].sort());
  },
};
