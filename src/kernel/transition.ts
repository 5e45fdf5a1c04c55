/** What a driver takes from a store and gives to it: a loaded run, a lease, a transition. */
import type { Checkpoint } from "./checkpoint.ts";
import type { Mail, Message } from "./message.ts";
import type { Moving } from "./moving.ts";
import type { Scalar } from "./query.ts";
import type { StoredRecord } from "./record.ts";
import type { OpenWait, RunRow } from "./run.ts";

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
  /** Additions to counters, of any runs, whatever their limits: what was spent is spent. */
  counters?: CounterChange[];
}

/** A number that belongs to a run, and goes where it goes; others add to it too. What is used of a budget is one. */
export interface CounterChange {
  runId: string;
  name: string;
  add: number;
  /** For `reserve`: the value after adding must not be above it. */
  limit?: number;
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

/** When a new run wakes: at once or at `notBefore` where it begins running, and otherwise as its row says. */
export function beginsAt({ row, notBefore }: NewRun, now: number): number | null {
  return row.status === "running" && row.wakeAt !== null ? (notBefore ?? now) : row.wakeAt;
}
