/** One transaction of the group: creating and committing, with leases and mailbox beside it. See Q1 and Q2 in `index.ts`. */
import type { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { isEnded } from "../../kernel/run.ts";
import { beginsAt, type NewRun, type Transition } from "../../kernel/transition.ts";
import { type Checkpoint, checkpointsToDrop } from "../../kernel/checkpoint.ts";
import type { Mail } from "../../kernel/message.ts";
import { isOver } from "../ended.ts";
import { Wakes } from "../listeners.ts";
import { checkArtifacts, holdArtifacts } from "./artifacts.ts";
import { addToCounters } from "./counters.ts";
import { insertRun, insertWaits } from "./insert.ts";
import { writeIndexed } from "./indexed.ts";
import type { Lanes } from "./lanes.ts";
import { Leases } from "./leases.ts";
import { packed } from "./packed.ts";
import { Mailbox } from "./mailbox.ts";
import { Moves } from "./moving.ts";
import type { Reader } from "./read.ts";
import { purge } from "./retention.ts";
import { type Cached, Rows, update } from "./rows.ts";
import { lastSeq, seqBits } from "./schema.ts";

export class Transaction {
  readonly leases: Leases;
  readonly mailbox: Mailbox;
  /** What was done since `begin` that somebody may want to hear of. */
  readonly wakes = new Wakes();
  readonly #database: DatabaseSync;
  readonly #name: string;
  readonly #reader: Reader;
  readonly #lanes: Lanes;
  readonly #clock: Clock;
  readonly #rows: Rows;
  readonly #moves: Moves;
  /** The leases whose commits failed among the calls of this turn: what was sent behind such a commit fails too (S3). */
  #broken: ReadonlySet<string> = new Set();
  /** The same with those of this attempt, which may be rolled back and made again. */
  #brokenNow = new Set<string>();

  constructor(database: DatabaseSync, name: string, reader: Reader, lanes: Lanes, clock: Clock) {
    this.#database = database;
    this.#name = name;
    this.#reader = reader;
    this.#lanes = lanes;
    this.#clock = clock;
    this.#rows = new Rows(reader);
    this.leases = new Leases(reader, this.#rows, lanes, this.wakes, clock);
    this.#moves = new Moves(reader, lanes, this.wakes, clock, name);
    this.mailbox = new Mailbox(reader, this.#rows, this.wakes, clock);
  }

  /** Before the calls of a turn are applied, together or one by one. */
  forget(): void {
    if (this.#broken.size > 0) this.#broken = new Set();
  }

  begin(): void {
    this.join();
    this.#reader.prepare("BEGIN IMMEDIATE").run();
  }

  /** Begins in a transaction that stands already. */
  join(): void {
    this.#brokenNow = new Set(this.#broken);
    this.#rows.clear();
    this.mailbox.begin();
    this.wakes.clear();
  }

  writeRows(): void {
    this.#rows.write();
  }

  commitAll(): void {
    this.writeRows();
    this.#reader.prepare("COMMIT").run();
    this.settle();
  }

  /** This attempt was the last: what failed in it stays failed for the calls behind it. */
  settle(): void {
    this.#broken = this.#brokenNow;
  }

  rollback(): void {
    this.#rows.clear();
    this.#reader.rolledBack();
    this.#lanes.rolledBack();
    if (this.#database.isTransaction) this.#reader.prepare("ROLLBACK").run();
  }

  /** @throws ARTIFACT_MISSING */
  checkNew({ row, artifacts }: NewRun): void {
    if (artifacts && !this.#exists(row.runId)) checkArtifacts(this.#reader, row.runId, artifacts);
  }

  create(begun: NewRun, workerId?: string): boolean {
    const { row, record, waits, indexed } = begun;
    if (this.#exists(row.runId)) return false;
    if (workerId === undefined) this.wakes.ready = true;
    else this.leases.know(workerId);
    const run = insertRun(this.#reader, this.#lanes, this.#name, row, {
      wakeAt: beginsAt(begun, this.#clock.now()),
      workerId: workerId ?? null,
      epoch: workerId === undefined ? 0 : 1,
    });
    this.#rows.forget(row.runId);
    holdArtifacts(this.#reader, run, begun.artifacts);
    this.#reader
      .prepare("INSERT INTO records VALUES (?, ?, ?)")
      .run(run * seqBits + record.seq, record.header, packed(record.body));
    if (waits) insertWaits(this.#reader, run, waits);
    if (indexed) writeIndexed(this.#reader, run, indexed);
    return true;
  }

  /** What was purged leaves its id taken. */
  #exists(runId: string): boolean {
    if (this.#rows.get(runId)) return true;
    return this.#reader.prepare("SELECT 1 FROM tombstones WHERE run_id = ?").get(runId) !== undefined;
  }

  /** Everything that changes the tables by itself needs what the calls before it have changed to stand there. */
  get moves(): Moves {
    this.#rows.flush();
    return this.#moves;
  }

  purge(
    runIds: readonly string[],
    note: string | undefined,
    heads: ReadonlyMap<string, string> | undefined,
  ): { live: string[]; purged: string[] } {
    this.#rows.flush();
    return purge(this.#reader, runIds, note, this.#clock.now(), heads);
  }

  /** A run as it stands in this transaction. */
  row(runId: string): Readonly<Cached> | undefined {
    return this.#rows.get(runId);
  }

  commit(transitions: readonly Transition[]): Mail[][] {
    try {
      return this.#commit(transitions);
    } catch (error) {
      for (const transition of transitions) this.#brokenNow.add(leaseKey(transition));
      throw error;
    }
  }

  #commit(transitions: readonly Transition[]): Mail[][] {
    const runIds = new Set<string>();
    const replayed = transitions.map((transition) => {
      const { runId } = transition;
      if (this.#brokenNow.size > 0 && this.#brokenNow.has(leaseKey(transition)))
        throw conflict(runId, "the commit before it failed");
      // The second would be checked against a state that the first is about to change.
      if (runIds.has(runId)) throw conflict(runId, "one commit names it twice");
      runIds.add(runId);
      return this.#check(transition);
    });
    return transitions.map((transition, i) => (replayed[i] ? this.#repeat(transition) : this.#apply(transition)));
  }

  /** Whether the transition stands already (S2). @throws CONFLICT */
  #check({ runId, after, records, lease, release, take, send, start, counters = [], artifacts }: Transition): boolean {
    const row = this.#rows.get(runId);
    if (!row) throw conflict(runId, "it does not exist");
    // Before everything else: a lost acknowledgement is not a conflict, even if the run has moved on since (S2).
    if (records.length > 0 && row.seq > after && this.#stands(row, records)) return true;
    if (row.seq !== after) throw conflict(runId, `its last record is ${row.seq}, not ${after}`);
    if (row.worker_id === lease.workerId && row.epoch === lease.epoch) {
      if (after + records.length > lastSeq) throw new AbstractRuntimeError("RUN_TOO_LONG", { runId, limit: lastSeq });
      for (const id of take) {
        const obstacle = this.mailbox.obstacle(row.run, id);
        if (obstacle !== undefined) throw conflict(runId, obstacle);
      }
      checkArtifacts(this.#reader, runId, artifacts);
      for (const child of start) this.checkNew(child);
      return false;
    }
    // Nothing but a release, of a run that is released: the acknowledgement was lost here, too.
    const isBare = release && [records, take, send, start, counters].every(({ length }) => length === 0);
    if (isBare && row.worker_id === null && row.epoch === lease.epoch) return true;
    throw conflict(
      runId,
      row.worker_id === null ? "its lease was given up" : `it is leased to worker ${row.worker_id}, epoch ${row.epoch}`,
    );
  }

  #stands(row: Cached, records: Transition["records"]): boolean {
    const statement = this.#reader.prepare("SELECT header FROM records WHERE id = ?");
    return records.every(({ seq, header }) => statement.get(row.run * seqBits + seq)?.header === header);
  }

  #apply(transition: Transition): Mail[] {
    const row = this.#rows.get(transition.runId) as Cached;
    const base = row.run * seqBits;
    const insert = this.#reader.prepare("INSERT INTO records VALUES (?, ?, ?)");
    for (const { seq, header, body } of transition.records) insert.run(base + seq, header, packed(body));
    if (transition.dropBefore !== undefined) this.#archive(row.run, transition.dropBefore);
    if (transition.checkpoint) this.#checkpoint(base, transition.checkpoint);
    if (transition.take.length > 0) this.mailbox.take(row.run, transition.take);
    if (transition.waits) this.#waits(row.run, transition.waits);
    if (transition.indexed) writeIndexed(this.#reader, row.run, transition.indexed);
    holdArtifacts(this.#reader, row.run, transition.artifacts);
    update(row, transition.row);
    for (const child of transition.start) this.create(child);
    for (const message of transition.send) this.mailbox.deliver(message);
    if (transition.counters) addToCounters(this.#reader, transition.counters);
    if (transition.records.length > 0) row.tried = null;
    if (isEnded(row)) this.#reader.prepare("DELETE FROM waits WHERE run = ?").run(row.run);
    if (isOver(row)) {
      this.leases.handBack(row);
      return [];
    }
    return transition.release ? this.#release(row, transition.mailSeen) : [];
  }

  /** Closed first: an effect may wait again. */
  #waits(run: number, { open, close }: NonNullable<Transition["waits"]>): void {
    for (const effectId of close) this.#reader.prepare("DELETE FROM waits WHERE run = ? AND effect_id = ?").run(run, effectId);
    insertWaits(this.#reader, run, open);
  }

  /**
   * What stands is not written again. Its answer is given again, though: a holder that never heard of the mail which kept its
   * lease would take the run for released, and nobody would drive it.
   */
  #repeat({ runId, lease, records, release, mailSeen }: Transition): Mail[] {
    const row = this.#rows.get(runId) as Cached;
    const isHeld = row.worker_id === lease.workerId && row.epoch === lease.epoch;
    return release && isHeld && row.seq === records.at(-1)?.seq ? this.#release(row, mailSeen) : [];
  }

  /** Gives up the lease, unless there is mail that the holder has not looked at. */
  #release(row: Cached, mailSeen: number): Mail[] {
    const unseen = this.#reader.mailOf(row, mailSeen);
    if (unseen.length > 0) return unseen;
    this.leases.handBack(row);
    if (row.wake_at !== null && row.wake_at <= this.#clock.now()) this.wakes.ready = true;
    return [];
  }

  #archive(run: number, before: number): void {
    const [first, kept] = [run * seqBits, run * seqBits + before];
    this.#reader.prepare("DELETE FROM records WHERE id >= ? AND id < ?").run(first, kept);
    this.#reader.prepare("DELETE FROM checkpoints WHERE id >= ? AND id < ?").run(first, kept);
    this.#reader.prepare("UPDATE runs SET archived_before = ? WHERE run = ?").run(before, run);
  }

  #checkpoint(base: number, { seq, ordinal, text }: Checkpoint): void {
    this.#reader.prepare("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)").run(base + seq, ordinal, packed(text));
    const drop = checkpointsToDrop(ordinal);
    if (drop.length === 0) return;
    this.#reader
      .prepare("DELETE FROM checkpoints WHERE id BETWEEN ? AND ? AND ordinal IN (SELECT value FROM json_each(?))")
      .run(base, base + seqBits - 1, JSON.stringify(drop));
  }
}

function conflict(runId: string, problem: string): AbstractRuntimeError<"CONFLICT"> {
  return new AbstractRuntimeError("CONFLICT", { runId, problem });
}

function leaseKey({ runId, lease }: Transition): string {
  return JSON.stringify([runId, lease.workerId, lease.epoch]);
}
