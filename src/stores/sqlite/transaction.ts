/** Everything the store writes, inside one transaction of the group. See Q1 and Q2 in `index.ts`. */
import type { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { isEnded, type OpenWait, type RunRow } from "../../kernel/run.ts";
import {
  type Blocked,
  type Capability,
  type Checkpoint,
  checkpointsToDrop,
  type CounterChange,
  countsTowardsLimit,
  type Delivery,
  type Lease,
  type Mail,
  type Message,
  messageDigest,
  type NewRun,
  type Transition,
} from "../../kernel/store.ts";
import { blockOf, intact, liftable, type Reader, type RunTableRow, readable } from "./read.ts";
import { lastRun, lastSeq, seqBits } from "./schema.ts";

/** A run that was given to a worker. */
export interface Claimed {
  runId: string;
  lease: Lease;
}

type Cached = RunTableRow & { changed: boolean; indexed: string };

export class Transaction {
  readonly #database: DatabaseSync;
  readonly #name: string;
  readonly #reader: Reader;
  readonly #clock: Clock;
  readonly #rows = new Map<string, Cached | undefined>();
  /** The leases whose commits failed among the calls of this turn: what was sent behind such a commit fails too (S3). */
  #broken: ReadonlySet<string> = new Set();
  /** The same with those of this attempt, which may be rolled back and made again. */
  #brokenNow = new Set<string>();
  /** Mail that counts towards the limit, by run: counted once, however much is delivered. */
  readonly #mailCounts = new Map<number, number>();

  constructor(database: DatabaseSync, name: string, reader: Reader, clock: Clock) {
    this.#database = database;
    this.#name = name;
    this.#reader = reader;
    this.#clock = clock;
  }

  /** Before the calls of a turn are applied, together or one by one. */
  forget(): void {
    this.#broken = new Set();
  }

  begin(): void {
    this.#brokenNow = new Set(this.#broken);
    this.#rows.clear();
    this.#mailCounts.clear();
    this.#reader.prepare("BEGIN IMMEDIATE").run();
  }

  commitAll(): void {
    this.#writeRows();
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
    if (this.#database.isTransaction) this.#reader.prepare("ROLLBACK").run();
  }

  renew(workerId: string, ttlMs: number): number {
    const now = this.#clock.now();
    this.#reader
      .prepare("INSERT INTO workers VALUES (?, ?) ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at")
      .run(workerId, now + ttlMs);
    return now;
  }

  retire(workerId: string): void {
    this.#free(workerId);
  }

  create(run: NewRun, workerId?: string): boolean {
    if (this.#row(run.row.runId)) return false;
    if (workerId !== undefined) this.#known(workerId);
    const { row, record, notBefore } = run;
    const { lastInsertRowid } = this.#reader
      .prepare(
        `INSERT INTO runs (run_id, workflow_id, version, status, paused, node, step, seq, head, wake_at, waits, worker_id, epoch,
           parent_run_id, actor_id, session_id, created_at, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, '[]', ?, ?, ?, ?, ?, ?, ?)`,
      )
      .run(
        row.runId,
        row.workflowId,
        row.version,
        row.status,
        row.paused ? 1 : 0,
        row.node,
        row.step,
        row.seq,
        row.head,
        notBefore ?? row.wakeAt,
        workerId ?? null,
        workerId === undefined ? 0 : 1,
        row.parentRunId ?? null,
        row.actorId ?? null,
        row.sessionId ?? null,
        row.createdAt,
        row.updatedAt,
      );
    this.#rows.delete(row.runId);
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
      if (this.#brokenNow.has(leaseKey(transition))) throw conflict(runId, "the commit before it failed");
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

  deliver(message: Message, limit?: number): Delivery {
    const row = this.#row(message.runId);
    if (!row) return { kind: "no_run" };
    const digest = messageDigest(message);
    const known = this.#reader.prepare("SELECT digest FROM mailbox WHERE run = ? AND id = ?").get(row.run, message.id);
    if (known) return { kind: "duplicate", same: known.digest === digest };
    if (isEnded(row)) return { kind: "ended", status: row.status };
    if (
      message.ifWaiting !== undefined &&
      !intact(row.run_id, row.seq, () => JSON.parse(row.waits) as OpenWait[]).some(
        ({ effectId }) => effectId === message.ifWaiting,
      )
    ) {
      return { kind: "not_waiting" };
    }
    if (countsTowardsLimit(message.kind)) {
      if (limit !== undefined && this.#mailCount(row.run) >= limit) return { kind: "full", limit };
      const count = this.#mailCounts.get(row.run);
      if (count !== undefined) this.#mailCounts.set(row.run, count + 1);
    }
    const now = this.#clock.now();
    this.#reader
      .prepare("INSERT INTO mailbox (run, id, kind, key, payload, digest, at) VALUES (?, ?, ?, ?, ?, ?, ?)")
      .run(row.run, message.id, message.kind, message.key, JSON.stringify(message.payload), digest, now);
    if (row.worker_id !== null) return { kind: "stored", holder: row.worker_id };
    // A cancel, say, needs none of the code that is missing.
    if (message.kind === "control" && row.blocked !== null && !blockOf(row.blocked).quarantine) {
      row.blocked = null;
      row.tried = null;
      row.changed = true;
    }
    if (row.wake_at === null || row.wake_at > now) {
      row.wake_at = now;
      row.changed = true;
    }
    return { kind: "stored" };
  }

  #mailCount(run: number): number {
    let count = this.#mailCounts.get(run);
    if (count === undefined) {
      const sql = `SELECT count(*) AS count FROM mailbox INDEXED BY mailbox_open
        WHERE run = ? AND payload IS NOT NULL AND kind NOT IN ('control', 'child_end')`;
      count = this.#reader.prepare(sql).get(run)?.count as number;
      this.#mailCounts.set(run, count);
    }
    return count;
  }

  /** @param dead Workers whose processes are known to have died. */
  claim(worker: Capability, { limit, runId }: { limit: number; runId?: string }, dead: readonly string[]): Claimed[] {
    // What follows asks the tables, so the rows changed by calls before this one must stand there.
    this.#writeRows();
    this.#rows.clear();
    const now = this.#clock.now();
    const expired = this.#reader.prepare("SELECT worker_id FROM workers WHERE expires_at <= ?").all(now);
    for (const id of new Set([...expired.map((row) => row.worker_id as string), ...dead]))
      if (id !== worker.workerId) this.#free(id);
    this.#known(worker.workerId);
    this.#liftFor(worker);
    const claimed = runId === undefined ? this.#due(worker, now, limit) : this.#named(worker, runId);
    const lease = this.#reader.prepare("UPDATE runs SET worker_id = ?, epoch = epoch + 1 WHERE run_id = ? RETURNING epoch");
    return claimed.map((id) => {
      const { epoch } = lease.get(worker.workerId, id) as { epoch: number };
      return { runId: id, lease: { workerId: worker.workerId, epoch } };
    });
  }

  /** Takes a run that cannot be read out of the way. Nothing of it is read for that. */
  quarantine({ runId, lease }: Claimed, problem: string, fingerprint: string): void {
    this.#writeRows();
    this.#rows.clear();
    const blocked: Blocked = { code: "RECORD_CORRUPT", problem, fingerprint, quarantine: true };
    this.#reader
      .prepare("UPDATE runs SET worker_id = NULL, blocked = ?, tried = ? WHERE run_id = ? AND worker_id = ? AND epoch = ?")
      .run(JSON.stringify(blocked), JSON.stringify([fingerprint]), runId, lease.workerId, lease.epoch);
  }

  release(runId: string, lease: Lease, { blocked, mailSeen }: { blocked?: Blocked; mailSeen?: number }): void {
    const row = this.#row(runId);
    if (!row || row.worker_id !== lease.workerId || row.epoch !== lease.epoch) return;
    row.worker_id = null;
    row.changed = true;
    // Mail that the holder has not seen may be what the run needs, a cancel say: it is looked at before the run is blocked (S5).
    const unseen = mailSeen !== undefined && this.#reader.hasMail(row, mailSeen);
    if (blocked && (blocked.quarantine || !unseen)) {
      row.blocked = JSON.stringify(blocked);
      row.tried = JSON.stringify([...tried(row), blocked.fingerprint]);
      this.#reader.prepare("UPDATE blocks SET count = count + 1").run();
    } else row.wake_at = isEnded(row) ? null : this.#clock.now();
  }

  lift(runId: string): boolean {
    const row = this.#row(runId);
    if (!row || row.blocked === null) return false;
    row.blocked = null;
    row.tried = null;
    row.wake_at = isEnded(row) ? null : this.#clock.now();
    row.changed = true;
    return true;
  }

  // ---- Commit ------------------------------------------------------------------------------------------------------

  /** Whether the transition stands already (S2). @throws CONFLICT */
  #check({ runId, after, records, lease, release, take, send, start, counters = [] }: Transition): boolean {
    const row = this.#row(runId);
    if (!row) throw conflict(runId, "it does not exist");
    // Before everything else: a lost acknowledgement is not a conflict, even if the run has moved on since (S2).
    if (records.length > 0 && row.seq > after && this.#stands(row, records)) return true;
    if (row.seq !== after) throw conflict(runId, `its last record is ${row.seq}, not ${after}`);
    if (row.worker_id === lease.workerId && row.epoch === lease.epoch) {
      if (after + records.length > lastSeq) throw new AbstractRuntimeError("RUN_TOO_LONG", { runId, limit: lastSeq });
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

  #stands(row: RunTableRow, records: Transition["records"]): boolean {
    const statement = this.#reader.prepare("SELECT header FROM records WHERE id = ?");
    return records.every(({ seq, header }) => statement.get(row.run * seqBits + seq)?.header === header);
  }

  #checkCounters(changes: readonly CounterChange[], runId: string): void {
    const sums = new Map<string, number>();
    for (const { name, add, limit } of changes) {
      const value = (sums.get(name) ?? this.#reader.counter(name)) + add;
      sums.set(name, value);
      if (limit !== undefined && value > limit) throw conflict(runId, `counter "${name}" would pass its limit of ${limit}`);
    }
  }

  #apply(transition: Transition): Mail[] {
    const row = this.#row(transition.runId) as Cached;
    const base = row.run * seqBits;
    const insert = this.#reader.prepare("INSERT INTO records VALUES (?, ?, ?)");
    for (const { seq, header, body } of transition.records) insert.run(base + seq, header, body);
    if (transition.checkpoint) this.#checkpoint(base, transition.checkpoint);
    if (transition.take.length > 0) this.#mailCounts.delete(row.run);
    for (const id of transition.take)
      this.#reader.prepare("UPDATE mailbox SET payload = NULL WHERE run = ? AND id = ?").run(row.run, id);
    update(row, transition.row);
    for (const child of transition.start) this.create(child);
    for (const message of transition.send) this.deliver(message);
    if (transition.records.length > 0) row.tried = null;
    if (isEnded(row)) row.worker_id = null;
    return transition.release ? this.#handBack(row, transition.mailSeen) : [];
  }

  /**
   * What stands is not written again. Its answer is given again, though: a holder that never heard of the mail which kept its
   * lease would take the run for released, and nobody would drive it.
   */
  #repeat({ runId, lease, records, release, mailSeen }: Transition): Mail[] {
    const row = this.#row(runId) as Cached;
    const isHeld = row.worker_id === lease.workerId && row.epoch === lease.epoch;
    return release && isHeld && row.seq === records.at(-1)?.seq ? this.#handBack(row, mailSeen) : [];
  }

  /** Gives up the lease, unless there is mail that the holder has not looked at. */
  #handBack(row: Cached, mailSeen: number): Mail[] {
    const unseen = isEnded(row) ? [] : this.#reader.mailOf(row, mailSeen);
    if (unseen.length === 0) row.worker_id = null;
    row.changed = true;
    return unseen;
  }

  #checkpoint(base: number, { seq, ordinal, text }: Checkpoint): void {
    this.#reader.prepare("INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?)").run(base + seq, ordinal, text);
    const drop = checkpointsToDrop(ordinal);
    if (drop.length === 0) return;
    this.#reader
      .prepare("DELETE FROM checkpoints WHERE id BETWEEN ? AND ? AND ordinal IN (SELECT value FROM json_each(?))")
      .run(base, base + seqBits - 1, JSON.stringify(drop));
  }

  // ---- Claims ------------------------------------------------------------------------------------------------------

  /** Whoever holds a run stands in the table, or nobody could tell that it died: one that never renewed counts as expired. */
  #known(workerId: string): void {
    this.#reader.prepare("INSERT INTO workers VALUES (?, ?) ON CONFLICT DO NOTHING").run(workerId, this.#clock.now());
  }

  /** Frees what a worker holds. Mail may have come while it was held, so every freed run is looked at once. */
  #free(workerId: string): void {
    this.#writeRows();
    this.#rows.clear();
    const now = this.#clock.now();
    this.#reader
      .prepare(
        `UPDATE runs SET worker_id = NULL, wake_at = iif(status IN ('running', 'waiting'), min(coalesce(wake_at, ?1), ?1), NULL)
         WHERE worker_id = ?2`,
      )
      .run(now, workerId);
    this.#reader.prepare("DELETE FROM workers WHERE worker_id = ?").run(workerId);
  }

  /** Blocked runs get another chance with other code. */
  #liftFor(worker: Capability): void {
    const { fingerprint, workflows } = worker;
    const known = workflows ? "AND workflow_id IN (SELECT value FROM json_each(?3))" : "";
    const sql = `UPDATE runs INDEXED BY runs_blocked SET blocked = NULL, wake_at = ?1 WHERE ${liftable} ${known}`;
    const list = workflows ? [JSON.stringify(workflows)] : [];
    this.#reader.lifting(
      worker,
      () => this.#reader.prepare(sql).run(this.#clock.now(), fingerprint, ...list),
      () => false,
    );
  }

  #due({ workflows }: Capability, now: number, limit: number): string[] {
    const known = workflows ? "AND workflow_id IN (SELECT value FROM json_each(?))" : "";
    return this.#reader
      .prepare(
        `SELECT run_id FROM runs INDEXED BY runs_due WHERE wake_at <= ? AND worker_id IS NULL AND blocked IS NULL ${known} ORDER BY wake_at LIMIT ?`,
      )
      .all(now, ...(workflows ? [JSON.stringify(workflows)] : []), limit)
      .map((row) => row.run_id as string);
  }

  #named({ fingerprint }: Capability, runId: string): string[] {
    const row = this.#reader.run(runId);
    if (!row || isEnded(row) || row.worker_id !== null) return [];
    if (row.blocked === null) return [runId];
    if (blockOf(row.blocked).quarantine || tried(row).includes(fingerprint)) return [];
    this.#reader.prepare("UPDATE runs SET blocked = NULL WHERE run_id = ?").run(runId);
    return [runId];
  }

  // ---- Rows --------------------------------------------------------------------------------------------------------

  #row(runId: string): Cached | undefined {
    if (!this.#rows.has(runId)) {
      const row = this.#reader.run(runId);
      this.#rows.set(runId, row && { ...row, changed: false, indexed: indexed(row) });
    }
    return this.#rows.get(runId);
  }

  /**
   * SQLite writes the entry of an index again whenever its column is set, changed or not. A run that is driven on changes nothing
   * that is indexed, so those columns are left out then: half the pages of a step.
   */
  #writeRows(): void {
    const step = this.#reader.prepare(
      "UPDATE runs SET node = ?, step = ?, seq = ?, head = ?, waits = ?, updated_at = ? WHERE run = ?",
    );
    const whole = this.#reader.prepare(
      `UPDATE runs SET version = ?, status = ?, paused = ?, node = ?, step = ?, seq = ?, head = ?, wake_at = ?, waits = ?, error = ?,
         worker_id = ?, blocked = ?, tried = ?, updated_at = ? WHERE run = ?`,
    );
    for (const row of this.#rows.values()) {
      if (!row?.changed) continue;
      const {
        run,
        version,
        status,
        paused,
        node,
        step: number,
        seq,
        head,
        wake_at,
        waits,
        error,
        worker_id,
        blocked,
        tried,
        updated_at,
      } = row;
      if (indexed(row) === row.indexed) step.run(node, number, seq, head, waits, updated_at, run);
      else
        whole.run(
          version,
          status,
          paused,
          node,
          number,
          seq,
          head,
          wake_at,
          waits,
          error,
          worker_id,
          blocked,
          tried,
          updated_at,
          run,
        );
      row.changed = false;
      row.indexed = indexed(row);
    }
  }
}

/** Everything that `step` above leaves out, as one text to compare. While a run is held nobody looks at when it wakes. */
function indexed({ version, status, paused, wake_at, error, worker_id, blocked, tried }: RunTableRow): string {
  return JSON.stringify([version, status, paused, worker_id === null ? wake_at : null, error, worker_id, blocked, tried]);
}

function update(row: Cached, to: RunRow): void {
  row.version = to.version;
  row.status = to.status;
  row.paused = to.paused ? 1 : 0;
  row.node = to.node;
  row.step = to.step;
  row.seq = to.seq;
  row.head = to.head;
  row.wake_at = to.wakeAt;
  row.waits = to.waits.length === 0 ? "[]" : JSON.stringify(to.waits);
  row.error = to.error ? JSON.stringify(to.error) : null;
  row.updated_at = to.updatedAt;
  row.changed = true;
}

function conflict(runId: string, problem: string): AbstractRuntimeError<"CONFLICT"> {
  return new AbstractRuntimeError("CONFLICT", { runId, problem });
}

function tried(row: RunTableRow): string[] {
  return (readable(row.tried) as string[] | undefined) ?? [];
}

function leaseKey({ runId, lease }: Transition): string {
  return JSON.stringify([runId, lease.workerId, lease.epoch]);
}
