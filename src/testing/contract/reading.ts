/** Loading, records, checkpoints, queries: what was stored comes back, exactly. */
import assert from "node:assert/strict";
import type { Json, JsonObject } from "../../kernel/json.ts";
import { decodeRecord, sha256, verifyRecord } from "../../kernel/record.ts";
import { rowOf, type RunState } from "../../kernel/run.ts";
import { checkpointsToDrop } from "../../kernel/checkpoint.ts";
import { type Case, foldedOf, goOn, type Holder, message, park, same, stored, type World } from "./world.ts";

/** Texts that have broken stores, for JSON values; in records and payloads they stand escaped. */
const hostileValues: readonly string[] = [
  "",
  "\u0000",
  "a\u0000b",
  "\ud800 alone \udfff",
  "\ufeff\u2028\u2029\r\n\t\u0008\u007f\u0085",
  "😀 👩‍👩‍👧‍👦 e\u0301 é ﷽ \u202e",
  `'"\`; DROP TABLE runs; -- $1 ?1 :x @y %s %_ \\ \\u0000 \\" {{}} \${x}`,
  "null",
  " 1e400 ",
];

/** Texts for ids, keys and names, which stand there as they are. */
const hostileNames: readonly string[] = [
  `'"\`; DROP TABLE runs; -- $1 ?1 :x @y %_ \\ \\u0000`,
  "../../../etc/passwd",
  "😀 e\u0301 é \u202e\ufeff\u2028\r\n\t",
  "CON",
  "case",
  "CASE",
  "1",
  "01",
  "1.0",
  "__proto__",
  "toString",
];

/** A run with ten records. */
async function written(world: World): Promise<Holder> {
  const holder = await world.held();
  await world.store.commit([holder.next(Array.from({ length: 9 }, (_, i) => goOn(i + 1)))]);
  return holder;
}

const seqsOf = (records: readonly { seq: number }[]): number[] => records.map(({ seq }) => seq);
const range = (from: number, to: number): number[] => Array.from({ length: Math.max(0, to - from) }, (_, i) => from + i);

export const readingCases: Record<string, Case> = {
  async "load: what does not exist is undefined"(world) {
    assert.equal(await world.store.load("nowhere"), undefined);
    assert.equal(await world.store.load("nowhere", { whole: true }), undefined);
    same(await world.store.records("nowhere", 0, 10), []);
    same(await world.store.checkpoints("nowhere"), []);
  },

  async "load: gives the newest checkpoint and the records behind it"(world) {
    const holder = await written(world);
    const transition = holder.next([goOn("with a checkpoint")]);
    transition.checkpoint = holder.checkpoint(1);
    await world.store.commit([transition]);
    const atCheckpoint = await world.load(holder.runId);
    same([atCheckpoint.checkpoint, atCheckpoint.tail], [transition.checkpoint, []]);
    const behind = holder.next([goOn("behind it"), goOn("too")]);
    await world.store.commit([behind]);
    const loaded = await world.load(holder.runId);
    same([loaded.checkpoint, loaded.tail, loaded.row], [transition.checkpoint, behind.records, behind.row]);
    same(foldedOf(loaded), holder.state);
  },

  async "load: a checkpoint may stand behind some of its commit's records only"(world) {
    const holder = await world.held();
    const first = holder.next([goOn(1)]);
    const checkpoint = holder.checkpoint(1);
    const second = holder.next([goOn(2)]);
    await world.store.commit([{ ...second, after: 0, records: [...first.records, ...second.records], checkpoint }]);
    const loaded = await world.load(holder.runId);
    same([loaded.checkpoint, loaded.tail], [checkpoint, second.records]);
  },

  async "load: with `whole`, gives all records and no checkpoint"(world) {
    const holder = await written(world);
    const transition = holder.next([goOn()]);
    transition.checkpoint = holder.checkpoint(1);
    await world.store.commit([transition]);
    const whole = await world.load(holder.runId, { whole: true });
    assert.equal(whole.checkpoint, undefined);
    assert.deepEqual(seqsOf(whole.tail), range(0, 11));
    assert.deepEqual(seqsOf((await world.load(holder.runId, { whole: true, at: 4 })).tail), range(0, 5));
  },

  async "load: with `at`, gives the run as it stood, from the newest checkpoint at or before that record"(world) {
    const holder = await world.held();
    const states: RunState[] = [structuredClone(holder.state)];
    for (let ordinal = 1; ordinal <= 3; ordinal++) {
      for (let i = 0; i < 3; i++) {
        const transition = holder.next([goOn([ordinal, i])]);
        if (i === 1) transition.checkpoint = holder.checkpoint(ordinal);
        await world.store.commit([transition]);
        states.push(structuredClone(holder.state));
      }
    }
    for (const [at, state] of states.entries()) {
      const loaded = await world.load(holder.runId, { at });
      // The first of the three was dropped when the third was written.
      const checkpointSeq = [8, 5].find((seq) => seq <= at);
      assert.equal(loaded.checkpoint?.seq, checkpointSeq);
      assert.deepEqual(seqsOf(loaded.tail), range(checkpointSeq === undefined ? 0 : checkpointSeq + 1, at + 1));
      same(foldedOf(loaded), state);
    }
    same(await world.load(holder.runId, { at: 1_000 }), await world.load(holder.runId));
  },

  async "load: of a run whose last record has the hash `known`, everything but checkpoint and tail"(world) {
    const holder = await written(world);
    const { head } = (await world.load(holder.runId)).row;
    const { checkpoint: _, ...loaded } = await world.load(holder.runId);
    same(await world.load(holder.runId, { known: head }), { ...loaded, tail: [] });
    await world.store.commit([holder.next([goOn()], { release: true })]);
    same(await world.load(holder.runId, { known: head }), await world.load(holder.runId));
    const known = (runId: string) => (runId === holder.runId ? holder.state.head : undefined);
    const [claimed] = await world.store.claim(await world.worker(), { limit: 1, runId: holder.runId, known });
    same([claimed?.row.seq, claimed?.checkpoint, claimed?.tail], [holder.state.seq, undefined, []]);
    assert.ok(claimed?.lease);
  },

  async "records: gives those from `from`, at most `limit`, by seq"(world) {
    const { runId } = await written(world);
    const seqs = async (from: number, limit: number): Promise<number[]> => seqsOf(await world.store.records(runId, from, limit));
    assert.deepEqual(await seqs(0, 100), range(0, 10));
    assert.deepEqual(await seqs(3, 4), range(3, 7));
    assert.deepEqual(await seqs(8, 4), [8, 9]);
    assert.deepEqual(await seqs(10, 4), []);
    assert.deepEqual(await seqs(3, 0), []);
  },

  async "checkpoints: old ones are thinned out, and those kept are given, oldest first"(world) {
    const holder = await world.held();
    const other = await world.held();
    const untouched = other.next([goOn()]);
    untouched.checkpoint = other.checkpoint(1);
    await world.store.commit([untouched]);
    const kept = new Set<number>();
    const commits: Promise<unknown>[] = [];
    for (let ordinal = 1; ordinal <= 40; ordinal++) {
      const transition = holder.next([goOn(ordinal)]);
      transition.checkpoint = holder.checkpoint(ordinal);
      for (const dropped of checkpointsToDrop(ordinal)) kept.delete(dropped);
      kept.add(ordinal);
      commits.push(world.store.commit([transition]));
      // Some alone, some together with others.
      if (ordinal % 3 === 0) await Promise.all(commits);
    }
    await Promise.all(commits);
    const checkpoints = await world.store.checkpoints(holder.runId);
    assert.deepEqual(
      checkpoints.map(({ ordinal }) => ordinal),
      [...kept],
    );
    assert.ok(kept.size < 20);
    assert.deepEqual(seqsOf(checkpoints), [...kept]);
    same(await world.store.checkpoints(other.runId), [untouched.checkpoint]);
    for (const at of [1, 20, 39]) {
      const loaded = await world.load(holder.runId, { at });
      assert.equal(
        loaded.checkpoint?.seq,
        [...kept].findLast((seq) => seq <= at),
      );
      assert.equal(foldedOf(loaded).vars.note, at);
    }
  },

  async "rows: come back with everything in them"(world) {
    const parent = await world.parked();
    const holder = await world.held({
      parent: { runId: parent.runId, effectId: "1" },
      actorId: "ada",
      sessionId: "s",
      queue: "toString",
      queueKey: "ada's",
      priority: -3,
      vars: { a: 1 },
    });
    const waits = [
      park({ waitKey: "go" }),
      park({ effectId: "2", waitKey: "go", reason: "until", until: world.clock.now() + 9 }),
    ];
    const transition = holder.next(waits, { release: true });
    const row = { ...transition.row, paused: true, version: "v 1", error: { code: "X", message: "cut in half: \ud83d" } };
    await world.store.commit([{ ...transition, row }]);
    same((await world.load(holder.runId)).row, row);
    same((await world.store.query({ waitReason: "until" })).runs, [{ ...row, waits: transition.waits?.open }]);
    const last = await world.takeOver(holder, await world.worker({ queues: { toString: {} } }));
    const failed = last.next([{ kind: "run_failed", data: { error: { name: "Error", message: "a\u0000b" } } }]);
    await world.store.commit([failed]);
    same((await world.load(holder.runId)).row, failed.row);
    same(failed.row, rowOf(last.state));
  },

  async "records: hostile texts come back exactly, and verify"(world) {
    const long = `${"long ".repeat(100_000)}\u0000😀`;
    const vars: JsonObject = Object.fromEntries(
      [...hostileValues, long].map((value, i) => [`${i} ${value.slice(0, 100)}`, value]),
    );
    const holder = await world.held({ vars });
    const transition = holder.next([goOn([...hostileValues, long]), ...hostileValues.map((value) => goOn({ [value]: value }))]);
    transition.checkpoint = holder.checkpoint(1);
    await world.store.commit([transition]);
    const { tail } = await world.load(holder.runId, { whole: true });
    same(tail.slice(1), transition.records);
    let prev: string | null = null;
    for (const record of tail) {
      assert.equal(verifyRecord(holder.runId, record.seq, prev, record), undefined);
      prev = record.hash;
    }
    const [first] = tail;
    assert.ok(first);
    same((decodeRecord(holder.runId, first).data as { vars: Json }).vars, vars);
    same(await world.store.checkpoints(holder.runId), [transition.checkpoint]);
    same(foldedOf(await world.load(holder.runId)), holder.state);
  },

  async "records: texts are kept as they were written, not as another encoder would write them; a withheld body stays so"(world) {
    const run = world.newRun();
    const header = run.record.header.replaceAll(":", " :  ").replace("work", "w\\u006frk");
    const spaced = { seq: 0, hash: sha256(header), header, body: null };
    await world.store.create([{ row: run.row, record: spaced }]);
    same(await world.store.records(run.row.runId, 0, 1), [spaced]);
    const holder = await world.held();
    const transition = holder.next([goOn("destroyed")]);
    const [record] = transition.records;
    assert.ok(record);
    record.body = null;
    await world.store.commit([transition]);
    same((await world.load(holder.runId)).tail.slice(1), [record]);
  },

  async "messages: hostile payloads come back exactly"(world) {
    const { runId } = await world.parked();
    const long = "long 😀 ".repeat(50_000);
    const payloads: Json[] = [
      ...hostileValues,
      long,
      null,
      false,
      0,
      -1.5e-300,
      [],
      {},
      { "": [[]], "\u0000": "\ud800", __proto: 1 },
    ];
    const messages = payloads.map((payload, i) => message(runId, { id: `m${i}`, payload }));
    await world.store.deliver(messages);
    same(
      (await world.store.mail(runId, 0)).map(({ payload }) => payload),
      payloads,
    );
    const again = await world.store.deliver(messages);
    same(
      again,
      payloads.map(() => ({ kind: "duplicate", same: true })),
    );
  },

  async "names: hostile ids, keys and names come back exactly, and none is taken for another"(world) {
    const worker = await world.worker({ workerId: hostileNames[0] ?? "", fingerprint: hostileNames[2] ?? "" });
    await world.store.create(hostileNames.map((name) => stored(world.newRun({ runId: name, workflowId: name }))));
    for (const name of hostileNames) {
      const answers = await world.store.deliver(hostileNames.map((id) => message(name, { id, key: id })));
      assert.deepEqual(new Set(answers.map(({ kind }) => kind)), new Set(["stored"]));
    }
    const claimed = await world.store.claim({ ...worker, workflows: hostileNames }, { limit: 100 });
    assert.deepEqual(claimed.map(({ row }) => row.runId).sort(), [...hostileNames].sort());
    for (const { row, mail, lease } of claimed) {
      assert.equal(row.workflowId, row.runId);
      assert.equal(lease?.workerId, worker.workerId);
      assert.deepEqual(
        mail.map(({ id, key }) => [id, key]),
        hostileNames.map((name) => [name, name]),
      );
      same(
        (await world.store.query({ workflowId: row.workflowId })).runs.map(({ runId }) => runId),
        [row.runId],
      );
    }
    const holder = await world.held();
    await world.store.commit([
      holder.next([park({ waitKey: hostileNames[0] ?? "" })], {
        counters: hostileNames.map((name, i) => ({ runId: holder.runId, name, add: i + 1 })),
      }),
    ]);
    const counters = await world.store.counters(holder.runId);
    for (const [i, name] of hostileNames.entries()) assert.equal(counters[name], i + 1);
    same(
      (await world.store.query({ waitKey: hostileNames[0] })).runs.map(({ runId }) => runId),
      [holder.runId],
    );
  },
};
