/**
 * The store in memory: the contract in its plainest form, to read, to test with, and for work that may end with its process.
 *
 * M1. Every write goes through the group, in the order of the calls, each as one synchronous piece of code: that makes it atomic
 *     (S1) and keeps in order what is sent ahead (S3).
 * M2. A commit checks all its transitions before it writes any.
 * M3. What is stored is copied on its way in and on its way out: nobody else's object is ever part of the store.
 * M4. With a keeper, as in the files store, nothing is answered before it is kept; what could not be kept has not happened.
 */
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { AbstractRuntimeError, checkOptions, isError } from "../../kernel/errors.ts";
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
import { Listeners } from "../listeners.ts";
import type { Move, MoveUnderWay, Refusal } from "../moving.ts";
import { dropArtifacts, findArtifact, keepArtifact, putArtifact, queryArtifacts, sweepArtifacts } from "./artifacts.ts";
import { MemoryBlobs } from "./blobs.ts";
import { Contents, type Run } from "./contents.ts";
import { copyOf, moves } from "./moving.ts";
import { Reader } from "./read.ts";
import { findSnapshot, querySnapshots, saveSnapshot } from "./snapshots.ts";
import { appendStream, readStream } from "./stream.ts";
import { Transaction } from "./transaction.ts";

export interface MemoryOptions {
  /** Default: the system's. */
  clock?: Clock;
}

/**
 * A store that lives in this process and ends with it.
 *
 * @throws INVALID_OPTION
 */
export function memoryStore(options: MemoryOptions = {}): Store {
  checkOptions(options, ["clock"], "memoryStore()");
  return new MemoryStore("memory", options.clock ?? systemClock);
}

/** Makes a store last beyond its process. */
export interface Keeper {
  /** Default: in memory. */
  readonly blobs?: BlobStore;
  /** What is kept. Asked again after a turn that could not be kept. */
  contents(): Contents;
  /** Called before a turn. @throws When nothing can be kept at present, so that the turn need not be tried. */
  ready(): void;
  /** Keeps what a turn has changed. @throws When it was not kept. */
  keep(contents: Contents): void;
  sizeBytes(): number;
  /** Called when all calls have settled. */
  close(): void | Promise<void>;
}

/** One write, as the group carries it. */
type Call = (transaction: Transaction) => unknown;

export class MemoryStore implements Store {
  readonly name: string;
  readonly blobs: BlobStore;
  readonly #clock: Clock;
  readonly #keeper: Keeper | undefined;
  #contents: Contents;
  #reader: Reader;
  #transaction: Transaction;
  /** Whether the contents are not what was kept. */
  #stale = false;
  readonly #group: Group<Call>;
  readonly #listeners = new Listeners();
  #closing: Promise<void> | undefined;

  constructor(name: string, clock: Clock, keeper?: Keeper) {
    this.name = name;
    this.#clock = clock;
    this.#keeper = keeper;
    this.blobs = keeper?.blobs ?? new MemoryBlobs(name, clock, () => void this.#open());
    this.#contents = keeper?.contents() ?? new Contents();
    this.#reader = new Reader(this.#contents);
    this.#transaction = new Transaction(this.#contents, clock);
    this.#group = new Group(clock, (calls) => this.#apply(calls));
  }

  renew(workerId: string, ttlMs: number): Promise<number> {
    return this.#write((transaction) => transaction.renew(workerId, ttlMs));
  }

  retire(workerId: string): Promise<void> {
    return this.#write((transaction) => transaction.retire(workerId));
  }

  create(runs: readonly NewRun[], workerId?: string): Promise<boolean[]> {
    return this.#write((transaction) => {
      for (const run of runs) transaction.checkNew(run);
      return runs.map((run) => transaction.create(run, workerId));
    });
  }

  commit(transitions: readonly Transition[]): Promise<Mail[][]> {
    return this.#write((transaction) => transaction.commit(transitions));
  }

  deliver(messages: readonly Message[], limit?: number): Promise<Delivery[]> {
    return this.#write((transaction) => messages.map((message) => transaction.deliver(message, limit)));
  }

  claim(worker: Capability, options: ClaimOptions): Promise<Loaded[]> {
    return this.#write((transaction) =>
      transaction.claim(worker, options).flatMap((runId) => this.#given(transaction, runId, worker, options.known?.(runId))),
    );
  }

  release(runId: string, lease: Lease, options: { blocked?: Blocked; mailSeen?: number }): Promise<void> {
    return this.#write((transaction) => transaction.release(runId, lease, options));
  }

  lift(runId: string): Promise<boolean> {
    return this.#write((transaction) => transaction.lift(runId));
  }

  async nextDue(worker: Capability): Promise<{ at: number | undefined; now: number }> {
    const now = this.#clock.now();
    return { at: this.#open().nextDue(worker, now), now };
  }

  async mail(runId: string, after: number): Promise<Mail[]> {
    return this.#open().mail(runId, after);
  }

  async news(workerId: string, after: number): Promise<{ runIds: string[]; position: number }> {
    return this.#open().news(workerId, after);
  }

  async listeners(
    key: string,
    options: { workflowId?: string; limit: number; cursor?: string },
  ): Promise<{ runIds: string[]; next?: string }> {
    return this.#open().listeners(key, options);
  }

  hear(heard: () => void): () => void {
    return this.#closing ? () => undefined : this.#listeners.add(heard);
  }

  async load(runId: string, options: LoadOptions = {}): Promise<Loaded | undefined> {
    this.#open();
    return this.#load(runId, options);
  }

  async records(runId: string, from: number, limit: number): Promise<StoredRecord[]> {
    return this.#open().records(runId, from, limit);
  }

  async checkpoints(runId: string): Promise<Checkpoint[]> {
    return this.#open().checkpoints(runId);
  }

  async count(query: RunQuery, by?: CountBy): Promise<RunCount[]> {
    return this.#open().count(query, by);
  }

  async query(query: RunQuery): Promise<RunPage> {
    return this.#open().query(query);
  }

  appendStream(chunks: readonly StreamChunk[]): Promise<void> {
    return this.#write(() => appendStream(this.#contents, chunks));
  }

  async stream(runId: string, from: readonly StreamFrom[]): Promise<StreamChunk[]> {
    this.#open();
    return readStream(this.#contents, runId, from);
  }

  putArtifact(artifact: ArtifactRow, options: { pinMs: number; runId?: string; replace?: true }): Promise<ArtifactRow> {
    return this.#write(() => putArtifact(this.#contents, artifact, options, this.#clock.now()));
  }

  keepArtifact(id: string, options: { pinMs: number; runId?: string }): Promise<ArtifactRow | undefined> {
    return this.#write(() => keepArtifact(this.#contents, id, options, this.#clock.now()));
  }

  async artifact(id: string): Promise<(ArtifactRow & { runIds: string[] }) | undefined> {
    this.#open();
    return findArtifact(this.#contents, id);
  }

  async artifacts(query: ArtifactQuery): Promise<{ artifacts: ArtifactRow[]; next?: string }> {
    this.#open();
    return queryArtifacts(this.#contents, query);
  }

  dropArtifacts(runId: string, id?: string): Promise<number> {
    return this.#write(() => dropArtifacts(this.#contents, runId, id));
  }

  sweepArtifacts(limit: number, id?: string): Promise<ArtifactRow[]> {
    return this.#write(() => sweepArtifacts(this.#contents, limit, id, this.#clock.now()));
  }

  saveSnapshot(snapshot: SnapshotRow): Promise<void> {
    return this.#write(() => saveSnapshot(this.#contents, snapshot));
  }

  async snapshot(snapshotId: string): Promise<SnapshotRow | undefined> {
    this.#open();
    return findSnapshot(this.#contents, snapshotId);
  }

  async snapshots(query: SnapshotQuery): Promise<{ snapshots: SnapshotRow[]; next?: string }> {
    this.#open();
    return querySnapshots(this.#contents, query);
  }

  deleteSnapshot(snapshotId: string): Promise<boolean> {
    return this.#write(() => this.#contents.snapshots.delete(snapshotId));
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
    this.#open();
    const found = this.#contents.tombstones.get(runId);
    return found && { ...found };
  }

  fence(runIds: readonly string[], moving: Move): Promise<{ refused: Refusal[] }> {
    return this.#write((transaction) => ({ refused: transaction.fence(runIds, moving) }));
  }

  async copyOf(runId: string): Promise<RunCopy | undefined> {
    this.#open();
    return copyOf(this.#contents, runId);
  }

  adopt(copy: RunCopy, moving: Move): Promise<void> {
    return this.#write((transaction) => transaction.adopt(copy, moving));
  }

  adoptRecords(runId: string, token: string, records: readonly StoredRecord[]): Promise<void> {
    return this.#write((transaction) => transaction.adoptRecords(runId, token, records));
  }

  settle(token: string, to: "left" | "here" | "back"): Promise<string[]> {
    return this.#write((transaction) => transaction.settle(token, to));
  }

  async moves(): Promise<MoveUnderWay[]> {
    this.#open();
    return moves(this.#contents);
  }

  reserve(changes: readonly CounterChange[]): Promise<CounterChange | undefined> {
    return this.#write((transaction) => transaction.reserve(changes));
  }

  async counters(runId: string): Promise<Record<string, number>> {
    return this.#open().counters(runId);
  }

  async stats(): Promise<StoreStats> {
    const stats = this.#open().stats(this.#clock.now());
    return this.#keeper ? { ...stats, sizeBytes: this.#keeper.sizeBytes() } : stats;
  }

  close(): Promise<void> {
    this.#closing ??= this.#group.idle().then(() => {
      this.#listeners.close();
      return this.#keeper?.close();
    });
    return this.#closing;
  }

  /** A claimed run as its claimer gets it. One damaged run must not keep the others from being driven. */
  #given(transaction: Transaction, runId: string, { workerId, fingerprint }: Capability, known: string | undefined): Loaded[] {
    try {
      return [this.#load(runId, { known }) as Loaded];
    } catch (error) {
      if (!isError(error, "RECORD_CORRUPT")) throw error;
      const { epoch } = this.#contents.runs.get(runId) as Run;
      const blocked = { code: error.code, problem: error.problem, fingerprint, quarantine: true };
      transaction.release(runId, { workerId, epoch }, { blocked });
      return [];
    }
  }

  #load(runId: string, options: LoadOptions = {}): Loaded | undefined {
    return this.#reader.load(runId, this.#clock.now(), options);
  }

  #open(): Reader {
    if (this.#closing) throw this.#closed();
    this.#refresh();
    return this.#reader;
  }

  /** Goes back to what was kept. */
  #refresh(): void {
    if (!this.#stale) return;
    const { workers } = this.#contents;
    this.#contents = (this.#keeper as Keeper).contents();
    for (const [workerId, expiresAt] of workers) this.#contents.workers.set(workerId, expiresAt);
    this.#reader = new Reader(this.#contents);
    this.#transaction = new Transaction(this.#contents, this.#clock);
    this.#stale = false;
  }

  #write<T>(call: (transaction: Transaction) => T): Promise<T> {
    return this.#closing ? Promise.reject(this.#closed()) : this.#group.add<T>(call);
  }

  /** Calls of one turn are applied together and fail alone; but what cannot be kept fails them all (M4). */
  #apply(calls: readonly Call[]): Applied[] {
    this.#keeper?.ready();
    this.#refresh();
    this.#transaction.begin();
    this.#stale = this.#keeper !== undefined;
    const applied = calls.map((call) => {
      try {
        return { value: call(this.#transaction) };
      } catch (error) {
        // A guard speaks before its call has written anything. Whatever else is thrown may have come in the middle.
        if (this.#keeper && (!isError(error) || error.code.startsWith("STORE_"))) throw error;
        return { error };
      }
    });
    this.#keeper?.keep(this.#contents);
    this.#stale = false;
    // A single listener is the one who called.
    if (this.#listeners.count > 1 && this.#transaction.wakes()) this.#listeners.ring();
    return applied;
  }

  #closed(): AbstractRuntimeError<"STORE_CLOSED"> {
    return new AbstractRuntimeError("STORE_CLOSED", { store: this.name });
  }
}
