/** One transaction of the group: creating and committing, with leases and mailbox beside it. See Q1 and Q2 in `index.ts`. */
import type { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { isEnded } from "../../kernel/run.ts";
import {
  type Checkpoint,
  checkpointsToDrop,
  type CounterChange,
  type Mail,
  type NewRun,
  type Transition,
} from "../../kernel/store.ts";
import { isOver } from "../ended.ts";
import { Wakes } from "../listeners.ts";
import type { Lanes } from "./lanes.ts";
import { Leases } from "./leases.ts";
import { Mailbox } from "./mailbox.ts";
import type { Reader } from "./read.ts";
import { type Cached, Rows, update } from "./rows.ts";
import { lastRun, lastSeq, seqBits } from "./schema.ts";

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
    this.mailbox = new Mailbox(reader, this.#rows, this.wakes, clock);
  }

  /** Before the calls of a turn are applied, together or one by one. */
  forget(): void {
    if (this.#broken.size > 0) this.#broken = new Set();
  }

  begin(): void {
    this.#brokenNow = new Set(this.#broken);
    this.#rows.clear();
    this.mailbox.begin();
    this.wakes.clear();
    this.#reader.prepare("BEGIN IMMEDIATE").run();
  }

  commitAll(): void {
    this.#rows.write();
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

  create({ row, record, notBefore }: NewRun, workerId?: string): boolean {
    if (this.#rows.get(row.runId)) return false;
    if (workerId === undefined) this.wakes.ready = true;
    else this.leases.know(workerId);
    const { workflowId, priority } = row;
    const queue = row.queue ?? null;
    const lane = this.#lanes.of({ workflowId, queue, priority, begun: queue !== null && workerId !== undefined });
    const { lastInsertRowid } = this.#reader
      .prepare(
        `INSERT INTO runs (run_id, workflow_id, version, status, paused, node, step, seq, head, wake_at, lane, queue, queue_key,
           priority, worker_id, epoch, parent_run_id, actor_id, session_id, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        row.runId,
        workflowId,
        row.version,
        row.status,
        row.paused ? 1 : 0,
        row.node,
        row.step,
        row.seq,
        row.head,
        notBefore ?? this.#clock.now(),
        lane,
        queue,
        row.queueKey ?? null,
        priority,
        workerId ?? null,
        workerId === undefined ? 0 : 1,
        row.parentRunId ?? null,
        row.actorId ?? null,
        row.sessionId ?? null,
        row.createdAt,
        row.updatedAt,
      );
    this.#rows.forget(row.runId);
    if (Number(lastInsertRowid) > lastRun)
      throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: this.#name, problem: "it has no number left for a new run" });
    this.#reader
      .prepare("INSERT INTO records VALUES (?, ?, ?)")
      .run(Number(lastInsertRowid) * seqBits + record.seq, record.header, record.body);
    return true;
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
    const counters = transitions.flatMap((transition, i) => (replayed[i] ? [] : (transition.counters ?? [])));
    this.#checkCounters(counters, transitions[0]?.runId ?? "");
    for (const { name, add } of counters) {
      this.#reader
        .prepare("INSERT INTO counters VALUES (?, ?) ON CONFLICT DO UPDATE SET value = value + excluded.value")
        .run(name, add);
    }
    return transitions.map((transition, i) => (replayed[i] ? this.#repeat(transition) : this.#apply(transition)));
  }

  /** Whether the transition stands already (S2). @throws CONFLICT */
  #check({ runId, after, records, lease, release, take, send, start, counters = [] }: Transition): boolean {
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

  #checkCounters(changes: readonly CounterChange[], runId: string): void {
    if (changes.length === 0) return;
    const sums = new Map<string, number>();
    for (const { name, add, limit } of changes) {
      const value = (sums.get(name) ?? this.#reader.counter(name)) + add;
      sums.set(name, value);
      if (limit !== undefined && value > limit) throw conflict(runId, `counter "${name}" would pass its limit of ${limit}`);
    }
  }

  #apply(transition: Transition): Mail[] {
    const row = this.#rows.get(transition.runId) as Cached;
    const base = row.run * seqBits;
    const insert = this.#reader.prepare("INSERT INTO records VALUES (?, ?, ?)");
    for (const { seq, header, body } of transition.records) insert.run(base + seq, header, body);
    if (transition.checkpoint) this.#checkpoint(base, transition.checkpoint);
    if (transition.take.length > 0) this.mailbox.take(row.run, transition.take);
    if (transition.waits) this.#waits(row.run, transition.waits);
    update(row, transition.row);
    for (const child of transition.start) this.create(child);
    for (const message of transition.send) this.mailbox.deliver(message);
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
    for (const { effectId, waitKey, reason, since, until } of open) {
      this.#reader
        .prepare("INSERT OR REPLACE INTO waits VALUES (?, ?, ?, ?, ?, ?)")
        .run(run, effectId, waitKey, reason, since, until ?? null);
    }
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

  #checkpoint(base: number, { seq, ordinal, text }: Checkpoint): void {
    this.#reader.prepare("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)").run(base + seq, ordinal, text);
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
