/**
 * The default store: one file, written by SQLite as Node ships it. WAL with `synchronous=FULL`: what was acknowledged survives a
 * power cut. Several processes may open the same file.
 *
 * Q1. Every write goes through the group: one transaction for all calls of a turn, the guards of each call checked in order
 *     against what the calls before it left. A call whose guard fails is skipped alone.
 * Q2. Rows are read once per transaction, changed in memory, and written once at its end.
 * Q3. A locked file is waited for without blocking the event loop; it is never a run's failure.
 * Q4. No read transaction spans an await.
 */
import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { AbstractRuntimeError, checkOptions, isError } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type {
  Blocked,
  Capability,
  Checkpoint,
  Delivery,
  Lease,
  Loaded,
  Mail,
  Message,
  NewRun,
  RunPage,
  RunQuery,
  Store,
  StoreStats,
  Transition,
} from "../../kernel/store.ts";
import { type Applied, Group } from "../group.ts";
import { Listeners } from "../listeners.ts";
import { Bell, sharedBell } from "./bell.ts";
import { isAwaited } from "./due.ts";
import { isBusy, storeError } from "./errors.ts";
import { Lanes } from "./lanes.ts";
import { dropMark, holdMark, isDead, type Mark, markName, markPath, marksOf } from "./liveness.ts";
import { listeners, queryRuns, stats } from "./query.ts";
import { Reader } from "./read.ts";
import { migrate } from "./schema.ts";
import { Transaction } from "./transaction.ts";

export { deadWorkers, hasDied } from "./liveness.ts";

export interface SqliteOptions {
  /** Default: the system's. */
  clock?: Clock;
  /** How long a locked file is waited for, in milliseconds, before STORE_BUSY. Default: 30,000. */
  busyTimeoutMs?: number;
}

/** One write, as the group carries it. */
type Call = (transaction: Transaction) => unknown;

/** Blocking waits for a lock are kept this short; longer ones leave the event loop free in between. */
const blockingMs = 3;
/** Whether there are other workers is looked up at most so often. */
const othersMs = 100;

/**
 * Opens a store, creating file and directory (mode 0700) where they are missing.
 *
 * @param path A file, or `:memory:`.
 * @throws STORE_UNAVAILABLE, STORE_READ_ONLY, STORE_CORRUPT, STORE_FULL, STORE_BUSY, FORMAT_NEWER
 */
export async function sqliteStore(path: string, options: SqliteOptions = {}): Promise<Store> {
  checkOptions(options, ["clock", "busyTimeoutMs"], "sqliteStore()");
  const file = path === ":memory:" ? path : resolve(path);
  const name = `sqlite:${path}`;
  const clock = options.clock ?? systemClock;
  const busyTimeoutMs = options.busyTimeoutMs ?? 30_000;
  let database: DatabaseSync | undefined;
  try {
    if (file !== ":memory:") prepareDirectory(dirname(file));
    database = new DatabaseSync(file, { timeout: blockingMs });
    const opened = database;
    await patiently(() => migrate(opened, name), name, busyTimeoutMs, clock);
    return new SqliteStore(database, file, name, clock, busyTimeoutMs);
  } catch (error) {
    database?.close();
    throw storeError(error, name);
  }
}

/** A new directory is for its owner only; the conventional one also keeps itself out of version control. */
function prepareDirectory(directory: string): void {
  if (existsSync(directory)) return;
  // One by one: where a directory cannot be made at all, such as in /proc, a recursive mkdir tries for ever.
  const missing = [directory];
  for (let parent = dirname(directory); !existsSync(parent); parent = dirname(parent)) missing.push(parent);
  for (const path of missing.reverse()) mkdirSync(path, { mode: 0o700 });
  chmodSync(directory, 0o700);
  if (directory.endsWith(".abstractruntime")) writeFileSync(`${directory}/.gitignore`, "*\n");
}

class SqliteStore implements Store {
  readonly name: string;
  readonly #file: string;
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #busyTimeoutMs: number;
  readonly #reader: Reader;
  readonly #transaction: Transaction;
  readonly #group: Group<Call>;
  readonly #lanes: Lanes;
  readonly #marks = new Map<string, Mark>();
  readonly #listeners = new Listeners();
  readonly #bell: Bell;
  /** Whether there were workers of other store objects, when that was looked up. */
  #others = { exist: false, at: Number.NEGATIVE_INFINITY };
  #closing: Promise<void> | undefined;

  constructor(database: DatabaseSync, file: string, name: string, clock: Clock, busyTimeoutMs: number) {
    this.name = name;
    this.#file = file;
    this.#database = database;
    this.#clock = clock;
    this.#busyTimeoutMs = busyTimeoutMs;
    this.#reader = new Reader(database);
    this.#lanes = new Lanes(this.#reader);
    this.#transaction = new Transaction(database, name, this.#reader, this.#lanes, clock);
    const isOwn = (name: string): boolean => [...this.#marks.keys()].some((workerId) => markName(workerId) === name);
    this.#bell = new Bell(marksOf(file), isOwn, () => this.#listeners.ring());
    this.#group = new Group(clock, (calls) => {
      this.#transaction.forget();
      return this.#apply(calls);
    });
  }

  async renew(workerId: string, ttlMs: number): Promise<number> {
    // The mark first: whoever finds the worker in the table and no mark held takes it for dead.
    if (this.#file !== ":memory:" && !this.#marks.has(workerId))
      this.#marks.set(
        workerId,
        this.#guarded(() => holdMark(markPath(this.#file, workerId))),
      );
    return this.#write((transaction) => transaction.leases.renew(workerId, ttlMs));
  }

  async retire(workerId: string): Promise<void> {
    await this.#write((transaction) => transaction.leases.free(workerId));
    this.#marks.get(workerId)?.release();
    this.#marks.delete(workerId);
  }

  create(runs: readonly NewRun[], workerId?: string): Promise<boolean[]> {
    return this.#write((transaction) => runs.map((run) => transaction.create(run, workerId)));
  }

  commit(transitions: readonly Transition[]): Promise<Mail[][]> {
    return this.#write((transaction) => transaction.commit(transitions), transitions[0]?.runId);
  }

  deliver(messages: readonly Message[], limit?: number): Promise<Delivery[]> {
    return this.#write((transaction) => messages.map((message) => transaction.mailbox.deliver(message, limit)));
  }

  async claim(worker: Capability, options: { limit: number; runId?: string }): Promise<Loaded[]> {
    if (this.#closing) throw new AbstractRuntimeError("STORE_CLOSED", { store: this.name });
    // Nothing is awaited before the write: it keeps its place among the calls of this turn (Q1).
    const dead = this.#guarded(() => this.#deadWorkers(worker.workerId));
    const claimed = await this.#write((transaction) => transaction.leases.claim(worker, options, dead));
    for (const id of dead) dropMark(markPath(this.#file, id));
    const given: Loaded[] = [];
    for (const one of claimed) {
      try {
        const loaded = await this.load(one.runId);
        if (loaded) given.push(loaded);
      } catch (error) {
        if (!isError(error, "RECORD_CORRUPT") && !isError(error, "STORE_CORRUPT")) {
          // Nobody drives what was not given, so it is not kept.
          await this.#write((transaction) => {
            for (const { runId, lease } of claimed) transaction.leases.release(runId, lease, {});
          });
          throw error;
        }
        // One damaged run must not keep the others from being driven.
        await this.#write((transaction) => transaction.leases.quarantine(one, error.problem, worker.fingerprint));
      }
    }
    return given;
  }

  release(runId: string, lease: Lease, options: { blocked?: Blocked; mailSeen?: number }): Promise<void> {
    return this.#write((transaction) => transaction.leases.release(runId, lease, options));
  }

  lift(runId: string): Promise<boolean> {
    return this.#write((transaction) => transaction.leases.lift(runId));
  }

  async nextDue(worker: Capability): Promise<{ at: number | undefined; now: number }> {
    return this.#read(() => {
      const now = this.#clock.now();
      return { at: this.#reader.nextDue(worker, this.#lanes, now), now };
    });
  }

  async mail(runId: string, after: number): Promise<Mail[]> {
    return this.#read(() => this.#reader.mail(runId, after));
  }

  async news(workerId: string, after: number): Promise<{ runIds: string[]; position: number }> {
    return this.#read(() => this.#reader.news(workerId, after));
  }

  async listeners(
    key: string,
    options: { workflowId?: string; limit: number; cursor?: string },
  ): Promise<{ runIds: string[]; next?: string }> {
    return this.#read(() => listeners(this.#reader, key, options));
  }

  hear(heard: () => void): () => void {
    if (this.#closing) return () => undefined;
    const stop = this.#listeners.add(heard);
    if (this.#file !== ":memory:") this.#bell.listen();
    return () => {
      stop();
      if (this.#listeners.count === 0) this.#bell.close();
    };
  }

  async load(runId: string, options: { at?: number; whole?: boolean } = {}): Promise<Loaded | undefined> {
    return this.#read(() => this.#reader.load(runId, this.#clock.now(), options));
  }

  async records(runId: string, from: number, limit: number): Promise<StoredRecord[]> {
    return this.#read(() => this.#reader.records(runId, from, limit));
  }

  async checkpoints(runId: string): Promise<Checkpoint[]> {
    return this.#read(() => this.#reader.checkpoints(runId));
  }

  async query(query: RunQuery): Promise<RunPage> {
    return this.#read(() => queryRuns(this.#reader, query));
  }

  async counter(name: string): Promise<number> {
    return this.#read(() => this.#reader.counter(name));
  }

  async stats(): Promise<StoreStats> {
    return this.#read(() => ({
      ...stats(this.#reader, this.#lanes, this.#clock.now(), (id) => this.#isAlive(id)),
      ...(this.#file === ":memory:" ? {} : { sizeBytes: this.#sizeBytes() }),
    }));
  }

  close(): Promise<void> {
    this.#closing ??= this.#group.idle().then(() => {
      this.#listeners.close();
      this.#bell.close();
      for (const mark of this.#marks.values()) mark.release();
      this.#database.close();
    });
    return this.#closing;
  }

  #deadWorkers(claimer: string): string[] {
    if (this.#file === ":memory:") return [];
    try {
      const others = this.#otherWorkers().filter((id) => id !== claimer);
      return others.filter((id) => isDead(markPath(this.#file, id)));
    } catch (error) {
      // Momentarily locked: a later claim will tell, or the lease.
      if (isBusy(error)) return [];
      throw error;
    }
  }

  /** As far as the marks tell. */
  #isAlive(workerId: string): boolean {
    return this.#file === ":memory:" || this.#marks.has(workerId) || !isDead(markPath(this.#file, workerId));
  }

  /** Workers of other store objects, most likely in other processes. */
  #otherWorkers(): string[] {
    const others = this.#reader.workers().filter((id) => !this.#marks.has(id));
    this.#others = { exist: others.length > 0, at: this.#clock.now() };
    return others;
  }

  /** Tells listeners what the batch just committed may mean to them. Whoever is alone with the store pays nothing for this. */
  #tell(): void {
    const { ready, holders, freed } = this.#transaction.wakes;
    if (!ready && holders.size === 0 && freed.size === 0) return;
    // A single listener is the one who called.
    const isHeardHere = this.#listeners.count > 1;
    if (!isHeardHere && !this.#hasOthers()) return;
    const isDue = ready || (freed.size > 0 && isAwaited(freed, this.#lanes, this.#reader, this.#clock.now()));
    if (isHeardHere && (isDue || holders.size > 0)) this.#listeners.ring();
    if (!this.#others.exist || !(isDue || [...holders].some((id) => !this.#marks.has(id)))) return;
    const [workerId] = this.#marks.keys();
    this.#bell.ring(workerId === undefined ? sharedBell : markName(workerId), this.#clock.now());
  }

  #hasOthers(): boolean {
    if (this.#file === ":memory:") return false;
    const now = this.#clock.now();
    // Also when the clock was set back.
    if (!(now - this.#others.at >= 0 && now - this.#others.at < othersMs)) this.#otherWorkers();
    return this.#others.exist;
  }

  #sizeBytes(): number {
    return [this.#file, `${this.#file}-wal`].reduce((sum, file) => sum + (existsSync(file) ? statSync(file).size : 0), 0);
  }

  /** @throws STORE_CLOSED, STORE_BUSY, STORE_CORRUPT, STORE_UNAVAILABLE */
  async #read<T>(read: () => T): Promise<T> {
    try {
      return await this.#patiently(() => {
        if (this.#closing) throw new AbstractRuntimeError("STORE_CLOSED", { store: this.name });
        return read();
      });
    } catch (error) {
      throw storeError(error, this.name);
    }
  }

  #guarded<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw storeError(error, this.name);
    }
  }

  #write<T>(call: (transaction: Transaction) => T, caller?: string): Promise<T> {
    if (this.#closing) return Promise.reject(new AbstractRuntimeError("STORE_CLOSED", { store: this.name }));
    return this.#group.add<T>(call, caller);
  }

  /** Applies the calls of a turn in one transaction (Q1); when that fails for another reason than a guard, one by one. */
  async #apply(calls: readonly Call[]): Promise<readonly Applied[]> {
    try {
      return await this.#patiently(() => this.#together(calls));
    } catch (error) {
      if (calls.length === 1) {
        this.#transaction.settle();
        return [{ error: storeError(error, this.name) }];
      }
    }
    const applied: Applied[] = [];
    for (const call of calls) applied.push(...(await this.#apply([call])));
    return applied;
  }

  #together(calls: readonly Call[]): Applied[] {
    let applied: Applied[];
    this.#transaction.begin();
    try {
      applied = calls.map((call): Applied => {
        try {
          return { value: call(this.#transaction) };
        } catch (error) {
          // A guard speaks before its call has written anything. Whatever else is thrown may have come in the middle.
          if (isError(error, "CONFLICT") || isError(error, "RUN_TOO_LONG")) return { error };
          throw error;
        }
      });
      this.#transaction.commitAll();
    } catch (error) {
      this.#transaction.rollback();
      throw error;
    }
    try {
      this.#tell();
    } catch {
      // What was written stands; that nobody was told of it is made up for by looking.
    }
    return applied;
  }

  #patiently<T>(action: () => T): Promise<T> {
    return patiently(action, this.name, this.#busyTimeoutMs, this.#clock);
  }
}

/** Tries again while the file is locked, with growing, random pauses (Q3). @throws STORE_BUSY */
async function patiently<T>(action: () => T, name: string, timeoutMs: number, clock: Clock): Promise<T> {
  let waitedMs = 0;
  for (let tries = 1; ; tries++) {
    try {
      return action();
    } catch (error) {
      if (!isBusy(error)) throw error;
      if (waitedMs >= timeoutMs)
        throw new AbstractRuntimeError("STORE_BUSY", { store: name, waitedMs: Math.round(waitedMs) }, error);
      // Uneven pauses, so that two processes do not meet at the lock again and again.
      const pauseMs = Math.min(20, tries) * (0.5 + Math.random());
      waitedMs += pauseMs + blockingMs;
      await new Promise<void>((wake) => clock.setTimer(wake, pauseMs, true));
    }
  }
}
