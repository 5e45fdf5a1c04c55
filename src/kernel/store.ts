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
  | { kind: "full"; limit: number };

export interface NewRun {
  row: RunRow;
  record: StoredRecord;
  /** Earliest moment to drive it. Default: at once. */
  notBefore?: number;
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
  checkpoint?: Checkpoint;
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
  /** 1, 2, 3 ... within the run; decides which old ones are kept. */
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

export interface RunQuery {
  /** Ids that begin with this. */
  idPrefix?: string;
  status?: RunStatus | readonly RunStatus[];
  workflowId?: string;
  waitReason?: WaitReason;
  waitKey?: string;
  parentRunId?: string;
  /** Leased to this worker. */
  holder?: string;
  queue?: string;
  /** Whether it is blocked, quarantined ones included. */
  blocked?: boolean;
  /** Newest first by creation (default), or oldest first. */
  order?: "newest" | "oldest";
  /** Runs per page. Default 100, at most 1,000. */
  limit?: number;
  /** `next` of the page before. */
  cursor?: string;
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
   * Creates runs, all or none. A run that exists is left as it is and answered with `false`. With `workerId`, a created run
   * is leased to that worker, with epoch 1.
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
   * Stores messages; each stands alone. A parked run becomes ready. Checked in this order: no_run, duplicate, not_failed or ended,
   * not_waiting, taken, full. A failed run that is due (it is being retried) takes messages as a live one. Control messages and ends
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
   * `whole`, all records and no checkpoint. Undefined when there is no such run.
   */
  load(runId: string, options?: { at?: number; whole?: boolean }): Promise<Loaded | undefined>;

  /** Records `[from, from + limit)` by seq. */
  records(runId: string, from: number, limit: number): Promise<StoredRecord[]>;

  /** Every checkpoint kept of a run, oldest first; verifiers compare each with the fold. */
  checkpoints(runId: string): Promise<Checkpoint[]>;

  query(query: RunQuery): Promise<RunPage>;

  /** Present value of a counter; 0 when it was never added to. */
  counter(name: string): Promise<number>;

  stats(): Promise<StoreStats>;

  /** Waits for commits under way, then closes. A second call does nothing; other calls reject with STORE_CLOSED. */
  close(): Promise<void>;
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
