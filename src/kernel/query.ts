/** What runs are asked for by, and what comes back. */
import type { Moving } from "./moving.ts";
import type { OpenWait, RunRow, RunStatus, WaitReason } from "./run.ts";
import type { Blocked } from "./transition.ts";

/** What queries find runs by: a scalar of the vars, at a dotted path that the workflow names in `index`. */
export type Scalar = string | number | boolean;

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
