/** Runs on their way between two stores, and what is left of those that went. */
import type { Checkpoint } from "./checkpoint.ts";
import type { Letter } from "./message.ts";
import type { Scalar } from "./query.ts";
import type { OpenWait, RunRow, RunStatus } from "./run.ts";
import type { Blocked } from "./transition.ts";

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
  counters?: Record<string, number>;
  /** All that ever came, those taken included, in order. */
  letters: Letter[];
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
  /** Of one that had left for another store: counted on by every fence, it tells what was copied before that. */
  epoch?: number;
  /** Why, and where an archive of it is. */
  note?: string;
}
