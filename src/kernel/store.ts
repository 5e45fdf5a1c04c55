/**
 * The contract of a store. Its methods are whole state transitions, never table access; each is atomic and, but for `reserve`, safe to
 * call twice. `storeContract` in `abstractruntime/testing` is this page as tests.
 *
 * S1. A commit is all or none, guarded by the run's `seq`, its lease and its epoch. There is no state without its records.
 * S2. A commit whose records stand already with the same hashes succeeds, whatever the epoch: a lost acknowledgement is not
 *     a conflict.
 * S3. Calls for one run may be made before the first has settled. Their order is kept; one that fails fails those behind it.
 * S4. A message is stored before it is acknowledged, taken by exactly one commit, and known by its id for as long as its run.
 * S5. No wake-up is lost: whoever parks a run and whoever delivers to it each see the other's side, in either order.
 * S6. The store owns the scheduling clock.
 */
import type { ArtifactQuery, ArtifactRow, BlobStore } from "./artifact-row.ts";
import type { Checkpoint } from "./checkpoint.ts";
import type { Delivery, Mail, Message } from "./message.ts";
import type { Moving, RunCopy, Tombstone } from "./moving.ts";
import type { CountBy, RunCount, RunPage, RunQuery } from "./query.ts";
import type { StoredRecord } from "./record.ts";
import type { RunStatus } from "./run.ts";
import type { SnapshotQuery, SnapshotRow } from "./snapshot.ts";
import type { StreamChunk, StreamFrom } from "./stream.ts";
import type { Blocked, Capability, CounterChange, Lease, Loaded, NewRun, Transition } from "./transition.ts";

export interface StoreStats {
  runs: number;
  byStatus: Partial<Record<RunStatus, number>>;
  /** Due now and held by nobody, in no queue. Blocked runs are not counted. */
  due: number;
  /** Since when the first of them is due. */
  oldestDueAt?: number;
  /** Due now and held by nobody, by the queue they stand in: they may wait for a slot. */
  queues: Record<string, { due: number; oldestDueAt: number }>;
  /** Blocked, and of these quarantined. */
  blocked: number;
  quarantined: number;
  /** Workers whose leases have not run out. */
  workers: number;
  /** Bytes in files or memory that belong to the store, where it can tell. */
  sizeBytes?: number;
}

export interface ClaimOptions {
  limit: number;
  runId?: string;
  /** `known` of each load, by run. */
  known?: (runId: string) => string | undefined;
}

export interface LoadOptions {
  at?: number;
  whole?: boolean;
  /** The head of a state that the caller has: where the run still stands there, checkpoint and tail are left out. */
  known?: string | undefined;
}

export interface Store {
  /** Names the store in messages, such as `sqlite:PATH`. */
  readonly name: string;

  /** Makes a worker known for `ttlMs`; all its leases live as long as it. A second call renews. Returns the store's now. */
  renew(workerId: string, ttlMs: number): Promise<number>;

  /** Ends a worker; runs it still holds are free at once. A second call does nothing. */
  retire(workerId: string): Promise<void>;

  /**
   * Creates runs, all or none. A run that exists, or did and was purged, is left as it is and answered with `false`. With `workerId`, a created run
   * is leased to that worker, with epoch 1. When it is driven first, `beginsAt` says.
   */
  create(runs: readonly NewRun[], workerId?: string): Promise<boolean[]>;

  /**
   * Commits transitions, all or none (S1-S3). Answers, in order, the mail that kept a lease from being released.
   *
   * The end of a run hands its lease back, but for a run that failed: it may be tried again, so its holder releases it (S5).
   *
   * @throws CONFLICT when a run's `seq` moved, its lease was lost, or a message is not there to be taken.
   */
  commit(transitions: readonly Transition[]): Promise<Mail[][]>;

  /**
   * Stores messages; each stands alone. A parked run becomes ready. Checked in this order: no_run, duplicate, moved (also when the
   * message recalls one of a run that is moving), not_failed or ended, not_waiting, taken, full. A failed run that is due (it is being retried) takes messages as a live one. Control messages and ends
   * of children are never `full`, nor is the first message that an open wait has the key of.
   */
  deliver(messages: readonly Message[], limit?: number): Promise<Delivery[]>;

  /**
   * Leases up to `limit` runs that are due (or the one named, due or not) and free, orphans of dead workers included, and
   * loads them: higher priorities first, then those due longest. Limits of queues hold for the one named too. A run leased to the
   * same worker already is not given again.
   */
  claim(worker: Capability, options: ClaimOptions): Promise<Loaded[]>;

  /**
   * Hands a lease back without a commit: ready again at once, or blocked; a run that failed is ready only if it has mail. Does nothing
   * when the lease was lost.
   */
  release(runId: string, lease: Lease, options: { blocked?: Blocked; mailSeen?: number }): Promise<void>;

  /** Lifts a block or quarantine; the run is ready. Answers whether there was one. */
  lift(runId: string): Promise<boolean>;

  /** Earliest moment at which `claim` would find something, or undefined. What waits for a slot to become free has no moment; a moment may pass in vain. */
  nextDue(worker: Capability): Promise<{ at: number | undefined; now: number }>;

  /** Mail behind a position, for a holder that was told to look. */
  mail(runId: string, after: number): Promise<Mail[]>;

  /** Which of the runs that a worker holds got mail behind a position, and the position of the last message of the store. */
  news(workerId: string, after: number): Promise<{ runIds: string[]; position: number }>;

  /** Runs that wait for an event under a key, in the order of their creation, in pages. */
  listeners(
    key: string,
    options: { workflowId?: string; limit: number; cursor?: string },
  ): Promise<{ runIds: string[]; next?: string }>;

  /**
   * Calls `heard` when somebody else, in another process or through this object, may have made a run due or sent something to a run
   * held here. A hint: it may come late, in vain, or not at all, so whoever hears it also looks now and then. A listener that is alone
   * is not told of calls through its own object. Answers with what makes it stop.
   */
  hear(heard: () => void): () => void;

  /**
   * A run as it stands; with `at`, from the newest checkpoint at or before that record, with the tail up to it; with
   * `whole`, all records that are kept and no checkpoint. Undefined when there is no such run.
   *
   * @throws RECORDS_ARCHIVED when `at` stands before what is kept.
   */
  load(runId: string, options?: LoadOptions): Promise<Loaded | undefined>;

  /** Records `[from, from + limit)` by seq. @throws RECORDS_ARCHIVED when the first of them was archived. */
  records(runId: string, from: number, limit: number): Promise<StoredRecord[]>;

  /** Every checkpoint kept of a run, oldest first; verifiers compare each with the fold. */
  checkpoints(runId: string): Promise<Checkpoint[]>;

  query(query: RunQuery): Promise<RunPage>;

  /** How many runs a query finds, by group, the largest first; `order`, `limit` and `cursor` do not count. Without `by`, one count with value null. */
  count(query: RunQuery, by?: CountBy): Promise<RunCount[]>;

  // ---- Streams ----------------------------------------------------------------------------------------------------

  /**
   * Keeps chunks of streams. No lease guards them: they are provisional, and those of an attempt are its own. One that stands already
   * (same run, effect, attempt and offset) is left as it is, and one of an unknown run is dropped. Of each run, those of the last two
   * steps that streamed are kept. They go with their run when it is purged, and move nowhere.
   */
  appendStream(chunks: readonly StreamChunk[]): Promise<void>;

  /**
   * The chunks of these attempts that reach beyond these offsets: in the order of the attempts given, and of each by offset. At most a
   * page of them; there are no more when it is empty.
   */
  stream(runId: string, from: readonly StreamFrom[]): Promise<StreamChunk[]>;

  // ---- Artifacts ---------------------------------------------------------------------------------------------------

  /** Bytes beside the runs; a runtime may be given another place for them. */
  readonly blobs: BlobStore;

  /**
   * Makes an artifact known and keeps it for at least `pinMs`, in which a commit must refer to it; with `runId`, for as long as that run.
   * Answers what stands: when it was known already, the artifact with the blob it has, its tags joined with the new ones. With
   * `replace`, it has the blob given from now on: the one before was damaged.
   *
   * @throws RUN_NOT_FOUND
   */
  putArtifact(artifact: ArtifactRow, options: { pinMs: number; runId?: string; replace?: true }): Promise<ArtifactRow>;

  /** Keeps a known artifact as `putArtifact` does. Undefined when it is not known. @throws RUN_NOT_FOUND */
  keepArtifact(id: string, options: { pinMs: number; runId?: string }): Promise<ArtifactRow | undefined>;

  artifact(id: string): Promise<(ArtifactRow & { runIds: string[] }) | undefined>;

  /** Newest first, and of one moment by id, backwards. */
  artifacts(query: ArtifactQuery): Promise<{ artifacts: ArtifactRow[]; next?: string }>;

  /** Lets go of a run's hold on artifacts (all of them without `id`), and answers how many it had. The bytes of another run stay. */
  dropArtifacts(runId: string, id?: string): Promise<number>;

  /**
   * Forgets up to `limit` artifacts that no run refers to and whose pins have run out, and answers them: their blobs are then deleted.
   * With `id`, only that one, whether its pin has run out or not.
   */
  sweepArtifacts(limit: number, id?: string): Promise<ArtifactRow[]>;

  // ---- Snapshots ---------------------------------------------------------------------------------------------------

  /** Stores or replaces by id. @throws RUN_NOT_FOUND, SEQ_NOT_FOUND */
  saveSnapshot(snapshot: SnapshotRow): Promise<void>;

  snapshot(snapshotId: string): Promise<SnapshotRow | undefined>;

  /** Newest first. */
  snapshots(query: SnapshotQuery): Promise<{ snapshots: SnapshotRow[]; next?: string }>;

  /** Answers whether there was one. */
  deleteSnapshot(snapshotId: string): Promise<boolean>;

  // ---- Retention and moving ----------------------------------------------------------------------------------------

  /**
   * Removes ended runs (completed, cancelled, failed and not being retried) and runs that have `left`, all or none, with all that is
   * theirs but their snapshots, and leaves tombstones. Answers those that are live, held or moving, and removes nothing then. Unknown ids
   * are left out. Of a run that has left, the note says where to, unless another is given. With `heads`, a run whose last record is not
   * the one given for it has lived on, and counts as live.
   */
  purge(
    runIds: readonly string[],
    note?: string,
    heads?: ReadonlyMap<string, string>,
  ): Promise<{ live: string[]; purged: string[] }>;

  tombstone(runId: string): Promise<Tombstone | undefined>;

  /**
   * Fences runs, all or none: their leases are void, nobody claims them, and nothing is delivered to them. A second call with the same
   * token does nothing. Answers the runs that are in the way, and then fences none: unknown, moving with another token, or with a parent
   * or a child in this store that is not among them (ones that have left do not count): a tree stays together, so that what
   * its members send each other is never lost.
   */
  fence(
    runIds: readonly string[],
    moving: { token: string; to: string },
  ): Promise<{ refused: { runId: string; problem: string }[] }>;

  /** Everything of a run but its records, as of one moment; `wakeAt` of the row as it was before it was fenced. */
  copyOf(runId: string): Promise<RunCopy | undefined>;

  /**
   * Stores a run from elsewhere as `arriving`; what a former call with the same token stored is replaced. Its records follow by
   * `adoptRecords`, in order, a second call with the same records doing nothing. One that has left comes back in its own place, unless the copy was made before it left. It
   * may also stand where it was purged, if it is not older than it was then: its tombstone goes when it is `here`.
   *
   * @throws RUN_EXISTS, RUN_PURGED (the copy is older), ARTIFACT_MISSING (it is not known here); CONFLICT for records that do not follow.
   */
  adopt(copy: RunCopy, moving: { token: string; to: string }): Promise<void>;
  adoptRecords(runId: string, token: string, records: readonly StoredRecord[]): Promise<void>;

  /**
   * Decides for all runs with a token: `left` (leaving ones are the other store's for good, and wait for nothing here any more), `here` (arriving ones are this store's from now
   * on, and due at once where they have mail or were running), `back` (leaving ones stay, and go on in the same way, arriving ones are
   * removed). A second call does nothing. Answers the ids of those that were decided.
   */
  settle(token: string, to: "left" | "here" | "back"): Promise<string[]>;

  /** Moves that are under way, by token. */
  moves(): Promise<{ token: string; to: string; phase: Moving["phase"]; runIds: string[] }[]>;

  // ---- The user's own transactions: stores on a database ------------------------------------------------------------

  /**
   * The same calls inside a transaction that the user has begun on `client`: they stand exactly if it commits. Each is all or none, also
   * where he commits in spite of its failure. Whoever is to hear of them is told after the commit, and not before.
   *
   * @throws INVALID_OPTION when `client` is nothing of this store, TRANSACTION_INVALID when there is no transaction on it.
   */
  within?(client: unknown): Pick<Store, "create" | "deliver" | "records">;

  /**
   * Runs `work` in a transaction of its own, once; what it writes with `client` and what it commits with `commit` stand together or not
   * at all. `commit` is called with transitions once, as the last thing, and may be called without any before, to ask whether the
   * transaction stands.
   *
   * When `work` rejects, everything is rolled back and the answer is its rejection; STORE_UNAVAILABLE where the connection was lost. `client` is
   * not used again then: a `work` that was given up may still write with it.
   *
   * @throws Of `commit`: TRANSACTION_INVALID when `work` has ended the transaction itself, or cannot go on in it.
   */
  transact?<T>(
    work: (client: unknown, commit: (transitions: readonly Transition[]) => Promise<Mail[][]>) => Promise<T>,
  ): Promise<T>;

  // ---- Counters ----------------------------------------------------------------------------------------------------

  /**
   * Adds to counters, all or none: not when one of them would be above its limit then. Answers the first of these, or undefined when
   * all was added. A counter is named once in a call; one of a run that is not here is not kept, and has no limit. This call alone is not
   * safe to repeat: what got no answer may have been added.
   */
  reserve(changes: readonly CounterChange[]): Promise<CounterChange | undefined>;

  /** The counters of a run that are not 0. */
  counters(runId: string): Promise<Record<string, number>>;

  stats(): Promise<StoreStats>;

  /** Waits for commits under way, then closes. A second call does nothing; other calls reject with STORE_CLOSED. */
  close(): Promise<void>;
}
