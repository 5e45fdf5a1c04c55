/**
 * The contract of a store. Its methods are whole state transitions, never table access; each is atomic and safe to call
 * twice. `storeContract` in `abstractruntime/testing` is this page as tests.
 *
 * S1. A commit is all or none, guarded by the run's `seq`, its lease and its epoch. There is no state without its records.
 * S2. A commit whose records stand already with the same hashes succeeds, whatever the epoch: a lost acknowledgement is not
 *     a conflict.
 * S3. Calls for one run may be made before the first has settled. Their order is kept; one that fails fails those behind it.
 * S4. A message is stored before it is acknowledged, taken by exactly one commit, and known by its id for as long as its run.
 * S5. No wake-up is lost: whoever parks a run and whoever delivers to it each see the other's side, in either order.
 * S6. The store owns the scheduling clock.
 */
import { isObject, type Json } from "./json.ts";
import { type StoredRecord, sha256 } from "./record.ts";
import type { OpenWait, RunRow, RunStatus, WaitReason } from "./run.ts";

export type MessageKind = "answer" | "event" | "job" | "child_end" | "control";

/** What is sent to a run. */
export interface Message {
  /** Unique within its run, for good: a second message with the same id is a duplicate. */
  id: string;
  runId: string;
  kind: MessageKind;
  /** The wait key it answers or the event it names; of a control message, the action. */
  key: string;
  payload: Json;
  /** Who sends it; stands in the record of its delivery. Not part of its content. */
  actorId?: string;
  /** Deliver only while this effect of the run is parked on a wait; `true`: while some wait of the run has the message's key. */
  ifWaiting?: string | true;
  /** Deliver only to a run that has failed, which is thereby ready again. */
  ifFailed?: true;
  /**
   * Deliver only when this message has not been taken by its run. It is withdrawn with the delivery, and its id stays known. One that
   * was never stored counts as withdrawn.
   */
  recall?: { runId: string; id: string };
}

/** A message as its run sees it. */
export interface Mail extends Omit<Message, "runId" | "ifWaiting" | "ifFailed" | "recall"> {
  /** Place in the order of arrival, within the store. */
  position: number;
  at: number;
}

export type Delivery =
  /** `holder`: the worker driving the run now, which should look into its mailbox. */
  | { kind: "stored"; holder?: string }
  /** The id is known; `same` tells whether the content was equal. */
  | { kind: "duplicate"; same: boolean }
  | { kind: "no_run" }
  | { kind: "ended"; status: RunStatus }
  | { kind: "not_waiting" }
  /** Of a message with `ifFailed`. */
  | { kind: "not_failed"; status: RunStatus }
  /** The message to be recalled was taken. */
  | { kind: "taken" }
  | { kind: "full"; limit: number }
  /** The run is being moved to another store, or has left for it. */
  | { kind: "moved"; to: string };

/** What queries find runs by: a scalar of the vars, at a dotted path that the workflow names in `index`. */
export type Scalar = string | number | boolean;

export interface NewRun {
  row: RunRow;
  record: StoredRecord;
  /** Earliest moment to drive it. Default: at once. */
  notBefore?: number;
  /** Waits it begins with, where it goes on from a state made elsewhere. */
  waits?: OpenWait[];
  /** Indexed vars, by path. */
  indexed?: Record<string, Scalar>;
  /** Ids of the artifacts that its first record refers to. As in a transition. */
  artifacts?: string[];
}

/** Holding a run: only the holder may commit to it. A new epoch makes every earlier holder a stranger. */
export interface Lease {
  workerId: string;
  epoch: number;
}

/** One run's part of a commit. */
export interface Transition {
  runId: string;
  lease: Lease;
  /** Standing behind the last record that was committed: the first record here has `seq = after + 1`. */
  after: number;
  records: StoredRecord[];
  row: RunRow;
  /**
   * Waits opened, and the effects whose waits were closed, since the last commit: what still waits is not written again (L4). An
   * effect in both waits anew.
   */
  waits?: { open: OpenWait[]; close: string[] };
  /** Indexed vars that changed, by path; null: it has none any more. */
  indexed?: Record<string, Scalar | null>;
  /** Ids of the artifacts that the records here refer to: kept for as long as the run. One that is not known fails the commit with ARTIFACT_MISSING. */
  artifacts?: string[];
  checkpoint?: Checkpoint;
  /**
   * Records before this seq are removed with this commit, and the checkpoints that stand before its last one: they were archived. The
   * checkpoint given with it stands for them: it has ordinal 0, so that it is never thinned out, and seq `dropBefore - 1`. What is
   * removed is anchored by the hash that a record here holds.
   */
  dropBefore?: number;
  /** Ids of messages taken. One that is not in the mailbox fails the commit: it was taken, or recalled by its sender. */
  take: string[];
  /** Messages to other runs, such as a child's end to its parent. */
  send: Message[];
  /** Children. One that exists already is left as it is. */
  start: NewRun[];
  /**
   * Hand the lease back with this commit. Refused, without failing the commit, when mail has arrived behind `mailSeen`: it is
   * then returned, and the holder goes on (S5).
   */
  release: boolean;
  /** Position of the last message the holder has looked at. */
  mailSeen: number;
  /** Conditional additions: the commit fails with CONFLICT when one would pass its limit. */
  counters?: CounterChange[];
}

/** A number that runs share, such as a budget. */
export interface CounterChange {
  name: string;
  add: number;
  /** The value after adding must not be above it. */
  limit?: number;
}

export interface Checkpoint {
  seq: number;
  /** 1, 2, 3 ... within the run; decides which old ones are kept. 0: of the one that stands for what was archived. */
  ordinal: number;
  text: string;
}

/** What a driver or reader starts from. */
export interface Loaded {
  row: RunRow;
  checkpoint?: Checkpoint;
  /** Records behind the checkpoint, in order. */
  tail: StoredRecord[];
  /** Messages not taken, in order of arrival. */
  mail: Mail[];
  lease?: Lease;
  /** Records before this seq were archived and removed. */
  archivedBefore?: number;
  /** It is not this store's to drive. */
  moving?: Moving;
  /** A run that the last claimers could not advance. */
  blocked?: Blocked;
  /** The store's now. */
  now: number;
}

/**
 * Why no worker drives a live run. A quarantine stays until an operator lifts it. Any other block gives way to a worker whose code
 * has not been tried since the run last moved.
 */
export interface Blocked {
  code: string;
  problem: string;
  /** The code that could not go on. */
  fingerprint: string;
  quarantine: boolean;
}

/** What a worker can do. */
export interface Capability {
  workerId: string;
  /** Ids of the workflows it has; undefined: any. */
  workflows?: readonly string[];
  /** Names its code; a run blocked under another fingerprint is tried again. */
  fingerprint: string;
  /** The queues it serves and their limits. A run in another queue is not given to it. */
  queues?: Readonly<Record<string, QueueLimits>>;
}

/** Counted over all workers of the store. A run that is held has a slot; parked, it has none. */
export interface QueueLimits {
  /** Runs held at the same time. Default: no limit. */
  concurrency?: number;
  /** Runs of one `queueKey` held at the same time. Default: no limit. */
  keyConcurrency?: number;
  /** At most `limit` runs begin (are claimed for the first time) in any `periodMs` milliseconds, on which all workers agree. Default: no limit. */
  rateLimit?: { limit: number; periodMs: number };
}

/** Filters are ANDed. Times are milliseconds since 1970; `after` is inclusive, `before` exclusive. */
export interface RunQuery {
  /** Ids that begin with this. */
  idPrefix?: string;
  status?: RunStatus | readonly RunStatus[];
  workflowId?: string | readonly string[];
  version?: string;
  queue?: string;
  /** With `waitKey`, one wait that has both. */
  waitReason?: WaitReason;
  waitKey?: string;
  /** All of these. */
  tags?: readonly string[];
  parentRunId?: string;
  sessionId?: string;
  actorId?: string;
  createdAfter?: number;
  createdBefore?: number;
  updatedAfter?: number;
  updatedBefore?: number;
  /** By `wakeAt`, of runs that nobody holds: while a run is held, its row need not say when it wakes. */
  dueAfter?: number;
  dueBefore?: number;
  /** Indexed vars, by path: all of these. */
  vars?: Readonly<Record<string, Scalar>>;
  /** Leased to this worker. */
  holder?: string;
  /** Whether it is blocked, quarantined ones included. */
  blocked?: boolean;
  /**
   * By creation (the order in which the store got them), `newest` (default) or `oldest` first; `updated`: last changed first;
   * `waiting`: only runs that wait, by the begin of their oldest wait, oldest first; `due`: only runs with a wake time that nobody
   * holds, earliest first.
   */
  order?: "newest" | "oldest" | "updated" | "waiting" | "due";
  /** Runs per page. Default 100, at most 1,000. */
  limit?: number;
  /**
   * `next` of the page before, of the same order; another is refused with INVALID_OPTION. A run that stays where it is in that order
   * is found exactly once, whatever is written between the pages.
   */
  cursor?: string;
}

/** What runs can be counted by. A run with several waits or tags counts in each of its groups; one with none, under null. */
export type CountBy = "status" | "workflowId" | "version" | "queue" | "waitReason" | "tag" | "sessionId" | "actorId";

export interface RunCount {
  /** Of the group; null for runs that have no such value. */
  value: string | null;
  count: number;
}

export interface RunPage {
  runs: ListedRun[];
  /** Given when there are more. */
  next?: string;
}

export interface ListedRun extends RunRow {
  waits: OpenWait[];
  blocked?: Blocked;
  holder?: string;
  moving?: Moving;
}

/** What is known of a blob. Its id is the SHA-256 of its bytes, 64 hex digits, which is what makes two puts of the same bytes one. */
export interface ArtifactRow {
  id: string;
  sizeBytes: number;
  contentType: string;
  tags: Record<string, string>;
  createdAt: number;
  /** The key of its bytes in the blob store. Never used for other bytes, so that what is swept and what is put again cannot meet. */
  blob: string;
}

export interface ArtifactQuery {
  runId?: string;
  /** All of these. */
  tags?: Readonly<Record<string, string>>;
  /** Those whose bytes stand under one of these keys. */
  blobs?: readonly string[];
  limit?: number;
  cursor?: string;
}

/** Bytes by key. Keys are made by the caller and used once. */
export interface BlobStore {
  readonly name: string;
  /** Durable when it resolves. A write that failed leaves nothing that can be read; what it left otherwise is listed. */
  write(key: string, chunks: AsyncIterable<Uint8Array>): Promise<void>;
  /**
   * The bytes `[start, end)`. A blob that is deleted meanwhile rejects; it never ends early.
   *
   * @throws ARTIFACT_MISSING
   */
  read(key: string, range?: { start?: number; end?: number }): AsyncIterable<Uint8Array>;
  /** A second call does nothing. */
  delete(key: string): Promise<void>;
  /** Every key, also of writes that are under way or did not finish, and when it was last written to. */
  list(): AsyncIterable<{ key: string; at: number }>;
}

/** A bookmark of a run at one of its records: the state is the fold up to there, so that it costs a row. */
export interface SnapshotRow {
  snapshotId: string;
  runId: string;
  workflowId: string;
  version: string;
  seq: number;
  /** Hash of that record. */
  hash: string;
  node: string;
  status: RunStatus;
  name: string;
  description?: string;
  tags: string[];
  createdAt: number;
  updatedAt: number;
}

export interface SnapshotQuery {
  runId?: string;
  workflowId?: string;
  /** One of its tags, whatever the case. */
  tag?: string;
  /** Part of its name or description, whatever the case. */
  text?: string;
  limit?: number;
  cursor?: string;
}

/** What is left of a run that was purged: its id stays taken, so that nothing which it did is done again under it. */
export interface Tombstone {
  runId: string;
  workflowId: string;
  status: RunStatus;
  /** Hash and seq of its last record. */
  head: string;
  seq: number;
  endedAt: number;
  purgedAt: number;
  /** Why, and where an archive of it is. */
  note?: string;
}

/**
 * A run on its way between two stores. `leaving`: still here, driven and reached by nobody. `left`: the other store's. `arriving`:
 * copied to here, and the other's until that one says `left`. One and the same `token` on both sides.
 */
export interface Moving {
  token: string;
  phase: "leaving" | "left" | "arriving";
  /** Names the other store. */
  to: string;
}

/** Everything of a run but its records, snapshots and artifacts. */
export interface RunCopy {
  row: RunRow;
  epoch: number;
  waits: OpenWait[];
  indexed: Record<string, Scalar>;
  /** Oldest first: the one that stands for what was archived, where something was, and the newest. */
  checkpoints: Checkpoint[];
  archivedBefore?: number;
  blocked?: Blocked;
  /** Ids of the artifacts that it refers to. */
  artifacts: string[];
  /** All that ever came, those taken included, in order. */
  letters: Letter[];
}

/** A message as the mailbox keeps it for good. */
export interface Letter {
  id: string;
  kind: MessageKind;
  key: string;
  actorId?: string;
  at: number;
  digest: string;
  state: "open" | "taken" | "recalled";
  /** Of one that is open. */
  payload?: Json;
}

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
   * @throws CONFLICT when a run's `seq` moved, its lease was lost, a message is not there to be taken, or a counter is at its limit.
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
  claim(worker: Capability, options: { limit: number; runId?: string }): Promise<Loaded[]>;

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
  load(runId: string, options?: { at?: number; whole?: boolean }): Promise<Loaded | undefined>;

  /** Records `[from, from + limit)` by seq. @throws RECORDS_ARCHIVED when the first of them was archived. */
  records(runId: string, from: number, limit: number): Promise<StoredRecord[]>;

  /** Every checkpoint kept of a run, oldest first; verifiers compare each with the fold. */
  checkpoints(runId: string): Promise<Checkpoint[]>;

  query(query: RunQuery): Promise<RunPage>;

  /** How many runs a query finds, by group, the largest first; `order`, `limit` and `cursor` do not count. Without `by`, one count with value null. */
  count(query: RunQuery, by?: CountBy): Promise<RunCount[]>;

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

  /** Present value of a counter; 0 when it was never added to. */
  counter(name: string): Promise<number>;

  stats(): Promise<StoreStats>;

  /** Waits for commits under way, then closes. A second call does nothing; other calls reject with STORE_CLOSED. */
  close(): Promise<void>;
}

/** When a new run wakes: at once or at `notBefore` where it begins running, and otherwise as its row says. */
export function beginsAt({ row, notBefore }: NewRun, now: number): number | null {
  return row.status === "running" && row.wakeAt !== null ? (notBefore ?? now) : row.wakeAt;
}

/** A full mailbox must not keep a run from being cancelled, nor a parent from its children's ends. */
export function countsTowardsLimit(kind: MessageKind): boolean {
  return kind !== "control" && kind !== "child_end";
}

/** The same for messages of the same content; the order of keys does not count. */
export function messageDigest({ kind, key, payload }: Pick<Message, "kind" | "key" | "payload">): string {
  const sorted = (value: object): object => Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
  return sha256(JSON.stringify([kind, key, payload], (_, value: Json) => (isObject(value) ? sorted(value) : value)));
}

/** The smallest checkpoint interval, in bytes of records. */
const leastInterval = 65_536;

/** Whether a checkpoint is due: a state of size S is written again only after max(S, 64 KiB) of records (L4). */
export function checkpointDue(bytesSince: number, lastSize: number): boolean {
  return bytesSince >= Math.max(lastSize, leastInterval);
}

/**
 * Which older checkpoints to drop when number `ordinal` is written. One whose ordinal is divisible by 2^k, and by no higher power,
 * stays for 2^(k+1) further ones: one or two are kept of each age, so that looking far back stays cheap.
 */
export function checkpointsToDrop(ordinal: number): number[] {
  const drop: number[] = [];
  for (let k = 0; 2 ** (k + 1) < ordinal; k++) {
    const old = ordinal - 2 ** (k + 1);
    if (old % 2 ** k === 0 && (old / 2 ** k) % 2 === 1) drop.push(old);
  }
  return drop;
}
