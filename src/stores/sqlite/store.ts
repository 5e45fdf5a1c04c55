/** The store's calls, each one transaction of the group or one look. See Q1 to Q4 in `index.ts`. */
import { existsSync, statSync } from "node:fs";
import type { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError, isError } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { ArtifactQuery, ArtifactRow, BlobStore } from "../../kernel/artifact-row.ts";
import type { Blocked, Capability, CounterChange, Lease, Loaded, NewRun, Transition } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { CountBy, RunCount, RunPage, RunQuery } from "../../kernel/query.ts";
import type { Delivery, Mail, Message } from "../../kernel/message.ts";
import type { RunCopy, Tombstone } from "../../kernel/moving.ts";
import type { SnapshotQuery, SnapshotRow } from "../../kernel/snapshot.ts";
import type { ClaimOptions, LoadOptions, Store, StoreStats } from "../../kernel/store.ts";
import type { StreamChunk, StreamFrom } from "../../kernel/stream.ts";
import { type Applied, Group } from "../group.ts";
import type { Move, MoveUnderWay, Refusal } from "../moving.ts";
import { dropArtifacts, findArtifact, keepArtifact, putArtifact, queryArtifacts, sweepArtifacts } from "./artifacts.ts";
import { SqliteBlobs } from "./blobs.ts";
import { storeError } from "./errors.ts";
import { Lanes } from "./lanes.ts";
import { countRuns, listeners, queryRuns } from "./query.ts";
import { patiently } from "./patience.ts";
import { countersOf, reserve } from "./counters.ts";
import { copyOf, movesUnderWay } from "./moving.ts";
import { Reader } from "./read.ts";
import { tombstoneOf } from "./retention.ts";
import { deleteSnapshot, findSnapshot, querySnapshots, saveSnapshot } from "./snapshots.ts";
import { stats } from "./stats.ts";
import { appendStream, readStream } from "./stream.ts";
import { Transactions } from "./transact.ts";
import { Transaction } from "./transaction.ts";
import { checkClient, Joined } from "./within.ts";
import { Workers } from "./workers.ts";

/** One write, as the group carries it. */
type Call = (transaction: Transaction) => unknown;

/** What a call is refused with before it has written anything. */
const guards = [
  "CONFLICT",
  "RUN_TOO_LONG",
  "ARTIFACT_MISSING",
  "RUN_NOT_FOUND",
  "RUN_EXISTS",
  "RUN_MOVED",
  "RUN_PURGED",
] as const;

export class SqliteStore implements Store {
  readonly name: string;
  readonly blobs: BlobStore;
  readonly #file: string;
  readonly #database: DatabaseSync;
  readonly #clock: Clock;
  readonly #busyTimeoutMs: number;
  readonly #reader: Reader;
  readonly #transaction: Transaction;
  readonly #group: Group<Call>;
  readonly #lanes: Lanes;
  readonly #transactions: Transactions;
  readonly #workers: Workers;
  /** Where users have transactions of their own. */
  readonly #joined = new WeakMap<DatabaseSync, Joined>();
  /** Not in memory, where a second connection would have another database. */
  readonly within?: NonNullable<Store["within"]>;
  readonly transact?: NonNullable<Store["transact"]>;
  #closing: Promise<void> | undefined;

  constructor(database: DatabaseSync, file: string, name: string, clock: Clock, busyTimeoutMs: number) {
    this.name = name;
    this.#file = file;
    this.#database = database;
    this.#clock = clock;
    this.#busyTimeoutMs = busyTimeoutMs;
    this.#reader = new Reader(database);
    this.blobs = new SqliteBlobs(name, {
      reader: this.#reader,
      clock,
      write: (action) => this.#write(action),
      read: (action) => this.#read(action),
    });
    this.#lanes = new Lanes(this.#reader);
    this.#transaction = new Transaction(database, name, this.#reader, this.#lanes, clock);
    this.#workers = new Workers(file, this.#reader, this.#lanes, clock);
    this.#group = new Group(clock, (calls) => {
      this.#transaction.forget();
      return this.#transactions.areFree ? this.#apply(calls) : this.#applyInTurn(calls);
    });
    this.#transactions = new Transactions(file, name, clock, busyTimeoutMs, (wakes) => this.#workers.tellQuietly(wakes));
    if (file === ":memory:") return;
    this.within = (client) => this.#within(client);
    this.transact = (work) =>
      this.#closing
        ? Promise.reject(new AbstractRuntimeError("STORE_CLOSED", { store: this.name }))
        : this.#transactions.run(work);
  }

  #within(client: unknown): ReturnType<NonNullable<Store["within"]>> {
    if (this.#closing) throw new AbstractRuntimeError("STORE_CLOSED", { store: this.name });
    checkClient(client, this.#file);
    const joined = this.#joined.get(client) ?? new Joined(client, this.name, this.#clock);
    this.#joined.set(client, joined);
    const call = async <T>(action: (transaction: Transaction) => T): Promise<T> => {
      const answer = joined.call(action);
      joined.afterwards(() => {
        if (!this.#closing) this.#workers.tellEverybody();
      });
      return answer;
    };
    return {
      create: (runs, workerId) => call((transaction) => runs.map((run) => transaction.create(run, workerId))),
      deliver: (messages, limit) => call((transaction) => messages.map((message) => transaction.mailbox.deliver(message, limit))),
      records: async (runId, from, limit) => joined.records(runId, from, limit),
    };
  }

  async renew(workerId: string, ttlMs: number): Promise<number> {
    // The mark first: whoever finds the worker in the table and no mark held takes it for dead.
    this.#guarded(() => this.#workers.hold(workerId));
    return this.#write((transaction) => transaction.leases.renew(workerId, ttlMs));
  }

  async retire(workerId: string): Promise<void> {
    await this.#write((transaction) => transaction.leases.free(workerId));
    this.#workers.letGo(workerId);
  }

  create(runs: readonly NewRun[], workerId?: string): Promise<boolean[]> {
    return this.#write((transaction) => {
      for (const run of runs) transaction.checkNew(run);
      return runs.map((run) => transaction.create(run, workerId));
    });
  }

  commit(transitions: readonly Transition[]): Promise<Mail[][]> {
    return this.#write((transaction) => transaction.commit(transitions), transitions[0]?.runId);
  }

  deliver(messages: readonly Message[], limit?: number): Promise<Delivery[]> {
    return this.#write((transaction) => messages.map((message) => transaction.mailbox.deliver(message, limit)));
  }

  async claim(worker: Capability, options: ClaimOptions): Promise<Loaded[]> {
    if (this.#closing) throw new AbstractRuntimeError("STORE_CLOSED", { store: this.name });
    // Nothing is awaited before the write: it keeps its place among the calls of this turn (Q1).
    const dead = this.#guarded(() => this.#workers.dead(worker.workerId));
    const claimed = await this.#write((transaction) => transaction.leases.claim(worker, options, dead));
    this.#workers.bury(dead);
    const given: Loaded[] = [];
    for (const one of claimed) {
      try {
        const loaded = await this.load(one.runId, { known: options.known?.(one.runId) });
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
    return this.#workers.hear(heard);
  }

  async load(runId: string, options: LoadOptions = {}): Promise<Loaded | undefined> {
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

  async count(query: RunQuery, by?: CountBy): Promise<RunCount[]> {
    return this.#read(() => countRuns(this.#reader, query, by));
  }

  appendStream(chunks: readonly StreamChunk[]): Promise<void> {
    return this.#write((transaction) => appendStream(this.#reader, (runId) => transaction.row(runId), chunks));
  }

  async stream(runId: string, from: readonly StreamFrom[]): Promise<StreamChunk[]> {
    return this.#read(() => readStream(this.#reader, runId, from));
  }

  putArtifact(artifact: ArtifactRow, options: { pinMs: number; runId?: string; replace?: true }): Promise<ArtifactRow> {
    return this.#write((transaction) =>
      putArtifact(this.#reader, rowOf(transaction, options.runId), artifact, options, this.#clock.now()),
    );
  }

  keepArtifact(id: string, options: { pinMs: number; runId?: string }): Promise<ArtifactRow | undefined> {
    return this.#write((transaction) =>
      keepArtifact(this.#reader, rowOf(transaction, options.runId), id, options, this.#clock.now()),
    );
  }

  async artifact(id: string): Promise<(ArtifactRow & { runIds: string[] }) | undefined> {
    return this.#read(() => findArtifact(this.#reader, id));
  }

  async artifacts(query: ArtifactQuery): Promise<{ artifacts: ArtifactRow[]; next?: string }> {
    return this.#read(() => queryArtifacts(this.#reader, query));
  }

  dropArtifacts(runId: string, id?: string): Promise<number> {
    return this.#write((transaction) => dropArtifacts(this.#reader, transaction.row(runId), id));
  }

  sweepArtifacts(limit: number, id?: string): Promise<ArtifactRow[]> {
    return this.#write(() => sweepArtifacts(this.#reader, limit, id, this.#clock.now()));
  }

  saveSnapshot(snapshot: SnapshotRow): Promise<void> {
    return this.#write((transaction) => saveSnapshot(this.#reader, transaction.row(snapshot.runId), snapshot));
  }

  async snapshot(snapshotId: string): Promise<SnapshotRow | undefined> {
    return this.#read(() => findSnapshot(this.#reader, snapshotId));
  }

  async snapshots(query: SnapshotQuery): Promise<{ snapshots: SnapshotRow[]; next?: string }> {
    return this.#read(() => querySnapshots(this.#reader, query));
  }

  deleteSnapshot(snapshotId: string): Promise<boolean> {
    return this.#write(() => deleteSnapshot(this.#reader, snapshotId));
  }

  // ---- Retention and moving ----------------------------------------------------------------------------------------

  purge(
    runIds: readonly string[],
    note?: string,
    heads?: ReadonlyMap<string, string>,
  ): Promise<{ live: string[]; purged: string[] }> {
    return this.#write((transaction) => transaction.purge(runIds, note, heads));
  }

  async tombstone(runId: string): Promise<Tombstone | undefined> {
    return this.#read(() => tombstoneOf(this.#reader, runId));
  }

  fence(runIds: readonly string[], moving: Move): Promise<{ refused: Refusal[] }> {
    return this.#write((transaction) => ({ refused: transaction.moves.fence(runIds, moving) }));
  }

  async copyOf(runId: string): Promise<RunCopy | undefined> {
    return this.#read(() => copyOf(this.#reader, runId));
  }

  adopt(copy: RunCopy, moving: Move): Promise<void> {
    return this.#write((transaction) => transaction.moves.adopt(copy, moving));
  }

  adoptRecords(runId: string, token: string, records: readonly StoredRecord[]): Promise<void> {
    return this.#write((transaction) => transaction.moves.adoptRecords(runId, token, records));
  }

  settle(token: string, to: "left" | "here" | "back"): Promise<string[]> {
    return this.#write((transaction) => transaction.moves.settle(token, to));
  }

  async moves(): Promise<MoveUnderWay[]> {
    return this.#read(() => movesUnderWay(this.#reader));
  }

  reserve(changes: readonly CounterChange[]): Promise<CounterChange | undefined> {
    return this.#write(() => reserve(this.#reader, changes));
  }

  async counters(runId: string): Promise<Record<string, number>> {
    return this.#read(() => countersOf(this.#reader, this.#reader.run(runId)?.run));
  }

  async stats(): Promise<StoreStats> {
    return this.#read(() => ({
      ...stats(this.#reader, this.#lanes, this.#clock.now(), (id) => this.#workers.isAlive(id)),
      ...(this.#file === ":memory:" ? {} : { sizeBytes: this.#sizeBytes() }),
    }));
  }

  close(): Promise<void> {
    this.#closing ??= this.#group.idle().then(() => {
      this.#transactions.close();
      this.#workers.close();
      this.#database.close();
    });
    return this.#closing;
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
    try {
      this.#transactions.checkOutside();
    } catch (error) {
      return Promise.reject(error);
    }
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
          if (guards.some((code) => isError(error, code))) return { error };
          throw error;
        }
      });
      this.#transaction.commitAll();
    } catch (error) {
      this.#transaction.rollback();
      throw error;
    }
    this.#workers.tellQuietly(this.#transaction.wakes);
    return applied;
  }

  /** Behind the transaction of a handler, which holds the file's lock. */
  async #applyInTurn(calls: readonly Call[]): Promise<readonly Applied[]> {
    const endTurn = await this.#transactions.turn();
    try {
      return await this.#apply(calls);
    } finally {
      endTurn();
    }
  }

  #patiently<T>(action: () => T): Promise<T> {
    return patiently(action, this.name, this.#busyTimeoutMs, this.#clock);
  }
}

function rowOf(transaction: Transaction, runId: string | undefined): { run: number } | undefined {
  return runId === undefined ? undefined : transaction.row(runId);
}
