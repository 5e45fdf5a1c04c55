/** One call that says whether everything moves, and if not, what is in the way. */
import type { StoreStats } from "../kernel/store.ts";
import type { RuntimeProblem } from "./events.ts";

export interface Health {
  /** The store answers, this worker's lease holds, nothing is quarantined, and nothing has been due for longer than it may be. */
  ok: boolean;
  /** In words, everything that keeps `ok` from being true. */
  problems: string[];
  workerId: string;
  /** Milliseconds since 1970, by the store's clock. */
  now: number;
  /** Until when this worker counts as alive without renewing. */
  leaseUntil: number;
  store: {
    name: string;
    reachable: boolean;
    /** What the store holds; absent while it cannot be reached. */
    stats?: StoreStats;
    /** For how long the first of the due runs has been due, in milliseconds. */
    overdueMs: number;
  };
  /** Runs driven here now, and how many may be. */
  driving: number;
  concurrency: number;
  /** What executes here, the oldest first; at most 100. An effect that calls `progress()` may stand here for ever, and is seen here. */
  executing: { runId: string; effectId: string; type: string; attempt: number; forMs: number }[];
  counters: Counters;
  /** The last problems, newest first; at most 20. */
  errors: RuntimeProblem[];
}

/** Since this runtime was made. */
export interface Counters {
  /** Looks for due runs. */
  looks: number;
  claimed: number;
  parked: number;
  completed: number;
  failed: number;
  cancelled: number;
  blocked: number;
  /** Runs that could not be driven on, and looks that failed. */
  errors: number;
}

export const lastErrors = 20;
export const mostExecuting = 100;

export function problemsOf(health: Omit<Health, "ok" | "problems">, overdueMs: number, background: boolean): string[] {
  const { stats } = health.store;
  const problems: string[] = [];
  if (!health.store.reachable) problems.push(`the store ${health.store.name} cannot be reached`);
  if (health.leaseUntil <= health.now) problems.push("this worker's lease has run out: it may not go on with its runs");
  if (stats && stats.quarantined > 0) problems.push(`${stats.quarantined} damaged runs are quarantined`);
  if (stats && stats.blocked > stats.quarantined)
    problems.push(`${stats.blocked - stats.quarantined} runs are blocked: no worker that came by has their code`);
  if (stats && health.store.overdueMs > overdueMs)
    problems.push(
      `${stats.due} runs are due and not driven, the first for ${Math.round(health.store.overdueMs / 1000)} s${background ? "" : " (this runtime drives none by itself)"}`,
    );
  return problems;
}
