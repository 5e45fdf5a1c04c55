/** The calls of the contract, each handed to what carries it out. See G1 to G4 in `index.ts`. */
import { type Clock, systemIds } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
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
import { Listeners } from "../listeners.ts";
import type { Move, MoveUnderWay, Refusal } from "../moving.ts";
import { dropArtifacts, findArtifact, keepArtifact, putArtifact, queryArtifacts, sweepArtifacts } from "./artifacts.ts";
import { type Call, laneOf } from "./calls.ts";
import { Bell, type ListeningClient } from "./bell.ts";
import { PostgresBlobs } from "./blobs.ts";
import { copyOf } from "./copy.ts";
import { countersOf, reserve } from "./counters.ts";
import type { PooledClient, Statements } from "./connection.ts";
import type { Database, Work } from "./database.ts";
import { storeError } from "./errors.ts";
import { Leases } from "./leases.ts";
import { Moves, movesUnderWay } from "./moving.ts";
import { countRuns, listeners, queryRuns } from "./query.ts";
import type { Keys } from "./pipeline.ts";
import { Reader } from "./read.ts";
import { purge, tombstoneOf } from "./retention.ts";
import { deleteSnapshot, findSnapshot, querySnapshots, saveSnapshot } from "./snapshots.ts";
import { stats } from "./stats.ts";
import { appendStream, readStream } from "./stream.ts";
import { Transactions } from "./transactions.ts";
import { type Wakes, Writer } from "./writer.ts";

export class PostgresStore implements Store {
  readonly name: string;
  readonly blobs: BlobStore;
  readonly #statements: Statements;
  readonly #database: Database;
  readonly #clock: Clock | undefined;
  readonly #close: () => Promise<void>;
  readonly #reader: Reader;
  readonly #leases: Leases;
  readonly #writer: Writer;
  readonly #listeners = new Listeners();
  readonly #bell: Bell;
  readonly #transactions: Transactions;
  /** With one connection there is none: the commits that have to go before the handler's would wait for its connection. */
  readonly transact?: NonNullable<Store["transact"]>;
  /** Workers of this store object. */
  readonly #workers = new Set<string>();
  #closing: Promise<void> | undefined;

  constructor(
    name: string,
    schema: string,
    statements: Statements,
    database: Database,
    clock: Clock | undefined,
    connect: (() => Promise<ListeningClient>) | undefined,
    close: () => Promise<void>,
  ) {
    this.name = name;
    this.#statements = statements;
    this.#database = database;
    this.#clock = clock;
    this.#close = close;
    const now = (): number | undefined => this.#clock?.now();
    this.#reader = new Reader(statements);
    this.#leases = new Leases(statements, now);
    this.#writer = new Writer(database, statements, name, now, (wakes) => this.#tell(wakes));
    const heard = (): void => this.#listeners.ring();
    this.#bell = new Bell(`abstractruntime ${schema}`, systemIds.id(), statements, database, connect, this.#workers, heard);
    this.blobs = new PostgresBlobs(name, { statements, now, run: (work) => this.#read(work) });
    this.#transactions = new Transactions(
      database,
      statements,
      this.#writer,
      this.#reader,
      name,
      (wakes) => this.#tell(wakes),
      (client, wakes) => this.#bell.ringWithin(client, wakes),
    );
    if (database.most > 1)
      this.transact = async (work) => {
        if (this.#closing) throw this.#closed();
        return this.#transactions.transact(work);
      };
  }

  renew(workerId: string, ttlMs: number): Promise<number> {
    // Waits for nothing: a run that is locked must not cost a worker all its leases.
    return this.#inTurn([], (client) => this.#leases.renew(client, workerId, ttlMs), workerId);
  }

  async retire(workerId: string): Promise<void> {
    const freed = await this.#inTurn(undefined, (client) => this.#leases.retire(client, workerId));
    this.#workers.delete(workerId);
    this.#tell({ ready: freed, holders: [] });
  }

  async create(runs: readonly NewRun[], workerId?: string): Promise<boolean[]> {
    if (workerId !== undefined) this.#workers.add(workerId);
    return this.#write({ kind: "create", runs, workerId });
  }

  commit(transitions: readonly Transition[]): Promise<Mail[][]> {
    return this.#write({ kind: "commit", transitions });
  }

  deliver(messages: readonly Message[], limit?: number): Promise<Delivery[]> {
    return this.#write({ kind: "deliver", messages, limit });
  }

  async claim(worker: Capability, options: ClaimOptions): Promise<Loaded[]> {
    const claim = systemIds.id();
    const attempt = this.#inTurn(undefined, (client) => this.#leases.claim(client, worker, options, claim), worker.workerId);
    const { claimed, ready } = await attempt.catch((error) => {
      this.#leases.forget(worker.workerId, claim);
      throw error;
    });
    this.#tell({ ready, holders: [] });
    if (claimed.length === 0) return [];
    const given: Loaded[] = [];
    try {
      const runIds = claimed.map(({ runId }) => runId);
      const known = runIds.flatMap((runId) => options.known?.(runId) ?? []);
      const found = await this.#read((client) => this.#reader.load(client, this.#clock?.now(), runIds, { known }));
      for (const one of found) {
        if ("loaded" in one) given.push(one.loaded);
        else {
          // One damaged run must not keep the others from being driven.
          const damaged = claimed.find(({ runId }) => runId === one.runId);
          if (damaged)
            await this.#inTurn(undefined, (client) =>
              this.#leases.quarantine(client, damaged, one.error.problem, worker.fingerprint),
            );
        }
      }
    } catch (error) {
      // Nobody drives what was not given, so it is not kept.
      this.#leases.forget(worker.workerId, claim);
      throw error;
    }
    return given;
  }

  release(runId: string, lease: Lease, options: { blocked?: Blocked; mailSeen?: number }): Promise<void> {
    return this.#write({ kind: "release", runId, lease, ...options });
  }

  lift(runId: string): Promise<boolean> {
    return this.#write({ kind: "lift", runId });
  }

  nextDue(worker: Capability): Promise<{ at: number | undefined; now: number }> {
    return this.#read((client) => this.#leases.nextDue(client, worker));
  }

  mail(runId: string, after: number): Promise<Mail[]> {
    return this.#read((client) => this.#reader.mail(client, runId, after));
  }

  news(workerId: string, after: number): Promise<{ runIds: string[]; position: number }> {
    return this.#read((client) => this.#reader.news(client, workerId, after));
  }

  listeners(
    key: string,
    options: { workflowId?: string; limit: number; cursor?: string },
  ): Promise<{ runIds: string[]; next?: string }> {
    return this.#read((client) => listeners(this.#statements, client, key, options));
  }

  hear(heard: () => void): () => void {
    if (this.#closing) return () => undefined;
    const stop = this.#listeners.add(heard);
    this.#bell.listen();
    return () => {
      stop();
      if (this.#listeners.count === 0) this.#bell.stop();
    };
  }

  async load(runId: string, { known, ...options }: LoadOptions = {}): Promise<Loaded | undefined> {
    const heads = known === undefined ? [] : [known];
    const [found] = await this.#read((client) =>
      this.#reader.load(client, this.#clock?.now(), [runId], { ...options, known: heads }),
    );
    if (found && "error" in found) throw found.error;
    return found?.loaded;
  }

  records(runId: string, from: number, limit: number): Promise<StoredRecord[]> {
    return this.#read((client) => this.#reader.records(client, runId, from, limit));
  }

  checkpoints(runId: string): Promise<Checkpoint[]> {
    return this.#read((client) => this.#reader.checkpoints(client, runId));
  }

  query(query: RunQuery): Promise<RunPage> {
    return this.#read((client) => queryRuns(this.#statements, client, query));
  }

  count(query: RunQuery, by?: CountBy): Promise<RunCount[]> {
    return this.#read((client) => countRuns(this.#statements, client, query, by));
  }

  appendStream(chunks: readonly StreamChunk[]): Promise<void> {
    return this.#change([], (client) => appendStream(this.#statements, client, chunks));
  }

  stream(runId: string, from: readonly StreamFrom[]): Promise<StreamChunk[]> {
    return this.#read((client) => readStream(this.#statements, client, runId, from));
  }

  // ---- Artifacts and snapshots -------------------------------------------------------------------------------------

  putArtifact(artifact: ArtifactRow, options: { pinMs: number; runId?: string; replace?: true }): Promise<ArtifactRow> {
    return this.#change(listed(options.runId), (client) =>
      putArtifact(this.#statements, client, this.#clock?.now(), artifact, options),
    );
  }

  keepArtifact(id: string, options: { pinMs: number; runId?: string }): Promise<ArtifactRow | undefined> {
    return this.#change(listed(options.runId), (client) =>
      keepArtifact(this.#statements, client, this.#clock?.now(), id, options),
    );
  }

  artifact(id: string): Promise<(ArtifactRow & { runIds: string[] }) | undefined> {
    return this.#read((client) => findArtifact(this.#statements, client, id));
  }

  artifacts(query: ArtifactQuery): Promise<{ artifacts: ArtifactRow[]; next?: string }> {
    return this.#read((client) => queryArtifacts(this.#statements, client, query));
  }

  dropArtifacts(runId: string, id?: string): Promise<number> {
    return this.#change([runId], (client) => dropArtifacts(this.#statements, client, runId, id));
  }

  sweepArtifacts(limit: number, id?: string): Promise<ArtifactRow[]> {
    return this.#change(undefined, (client) => sweepArtifacts(this.#statements, client, this.#clock?.now(), limit, id));
  }

  saveSnapshot(snapshot: SnapshotRow): Promise<void> {
    return this.#change([snapshot.runId], (client) => saveSnapshot(this.#statements, client, snapshot));
  }

  snapshot(snapshotId: string): Promise<SnapshotRow | undefined> {
    return this.#read((client) => findSnapshot(this.#statements, client, snapshotId));
  }

  snapshots(query: SnapshotQuery): Promise<{ snapshots: SnapshotRow[]; next?: string }> {
    return this.#read((client) => querySnapshots(this.#statements, client, query));
  }

  deleteSnapshot(snapshotId: string): Promise<boolean> {
    return this.#change([], (client) => deleteSnapshot(this.#statements, client, snapshotId));
  }

  // ---- Retention and moving ----------------------------------------------------------------------------------------

  purge(
    runIds: readonly string[],
    note?: string,
    heads?: ReadonlyMap<string, string>,
  ): Promise<{ live: string[]; purged: string[] }> {
    return this.#change(runIds, (client, again) =>
      purge(this.#statements, client, this.#clock?.now(), runIds, note, again, heads),
    );
  }

  tombstone(runId: string): Promise<Tombstone | undefined> {
    return this.#read((client) => tombstoneOf(this.#statements, client, runId));
  }

  async fence(runIds: readonly string[], moving: Move): Promise<{ refused: Refusal[] }> {
    return { refused: await this.#move(runIds, (moves) => moves.fence(runIds, moving)) };
  }

  async copyOf(runId: string): Promise<RunCopy | undefined> {
    if (this.#closing) throw this.#closed();
    return this.#told(this.#database.atOnce((client) => copyOf(this.#statements, client, runId)));
  }

  async adopt(copy: RunCopy, moving: Move): Promise<void> {
    await this.#read((client) => this.#writer.knowLanes(client, [laneOf(copy.row, copy.epoch > 0)]));
    return this.#move([copy.row.runId], (moves) => moves.adopt(copy, moving, this.#writer.lanes));
  }

  adoptRecords(runId: string, token: string, records: readonly StoredRecord[]): Promise<void> {
    return this.#move([runId], (moves) => moves.adoptRecords(runId, token, records));
  }

  settle(token: string, to: "left" | "here" | "back"): Promise<string[]> {
    return this.#move(undefined, (moves) => moves.settle(token, to));
  }

  moves(): Promise<MoveUnderWay[]> {
    return this.#read((client) => movesUnderWay(this.#statements, client));
  }

  // ---- The user's own transactions ---------------------------------------------------------------------------------

  within(client: unknown): ReturnType<NonNullable<Store["within"]>> {
    if (this.#closing) throw this.#closed();
    return this.#transactions.within(client);
  }

  /** Not in turn: it waits for no run. */
  reserve(changes: readonly CounterChange[]): Promise<CounterChange | undefined> {
    return this.#read((client) => reserve(this.#statements, client, changes));
  }

  counters(runId: string): Promise<Record<string, number>> {
    return this.#read((client) => countersOf(this.#statements, client, runId));
  }

  stats(): Promise<StoreStats> {
    return this.#read((client) => stats(this.#statements, client, this.#clock?.now()));
  }

  close(): Promise<void> {
    this.#closing ??= this.#writer.idle().then(async () => {
      this.#transactions.close();
      this.#listeners.close();
      await this.#bell.close();
      this.#database.close();
      await this.#close();
    });
    return this.#closing;
  }

  /** A single listener is the one who called. */
  #tell(wakes: Wakes): void {
    if (!wakes.ready && wakes.holders.length === 0) return;
    if (this.#listeners.count > 1) this.#listeners.ring();
    this.#bell.ring(wakes);
  }

  #write<T>(call: Call): Promise<T> {
    return this.#closing ? Promise.reject(this.#closed()) : this.#writer.add<T>(call);
  }

  async #inTurn<T>(runIds: Keys, work: Work<T>, workerId?: string): Promise<T> {
    if (this.#closing) throw this.#closed();
    if (workerId !== undefined) this.#workers.add(workerId);
    return this.#writer.inTurn(runIds, (isFinal) => this.#database.run(work, isFinal));
  }

  async #read<T>(read: (client: PooledClient) => Promise<T>): Promise<T> {
    if (this.#closing) throw this.#closed();
    return this.#told(this.#database.run(read));
  }

  /** Several statements that change something, all or none, in their turn among the calls for these runs; undefined: among all. */
  async #change<T>(runIds: Keys, change: Work<T>): Promise<T> {
    if (this.#closing) throw this.#closed();
    return this.#writer.inTurn(runIds, (isFinal) => this.#database.transaction(change, isFinal));
  }

  async #move<T>(runIds: Keys, act: (moves: Moves) => Promise<T>): Promise<T> {
    let ready = false;
    const answer = await this.#change(runIds, async (client) => {
      const moves = new Moves(this.#statements, client, await this.#statements.now(client, this.#clock?.now()));
      const answer = await act(moves);
      ready = moves.ready;
      return answer;
    });
    this.#tell({ ready, holders: [] });
    return answer;
  }

  async #told<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      throw storeError(error, this.name);
    }
  }

  #closed(): AbstractRuntimeError<"STORE_CLOSED"> {
    return new AbstractRuntimeError("STORE_CLOSED", { store: this.name });
  }
}

function listed(runId: string | undefined): string[] {
  return runId === undefined ? [] : [runId];
}
