/** One call that says whether everything moves, and if not, what is in the way. */
import type { StoreState } from "../kernel/instrument.ts";
import type { Moving } from "../kernel/moving.ts";
import type { StoreStats, Store } from "../kernel/store.ts";
import type { Clock } from "../kernel/clock.ts";
import type { RuntimeProblem } from "./events.ts";
import type { Scheduler, SchedulerOptions } from "./scheduler.ts";
import { within } from "./within.ts";

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
    /** For how long the first of the due runs that stand in no queue has been due, in milliseconds. */
    overdueMs: number;
    /** Moves under way between this store and another; absent when there are none. */
    moves?: { token: string; to: string; phase: Moving["phase"]; runIds: string[] }[];
    /** Since when writes or looks fail, and why the last one did; absent while they succeed. */
    failing?: { since: number; problem: string; code?: string };
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

const mostExecuting = 100;

/** How long the store may take to answer, in milliseconds. */
const longestAnswerMs = 5_000;

/** A run that has been due for so many polls is overdue. */
const overduePolls = 5;

/** What health is told of. */
interface Watched {
  store: Store;
  clock: Clock;
  scheduler: Scheduler;
  options: Required<SchedulerOptions>;
  errors: readonly RuntimeProblem[];
  /** Whether runs are driven in the background. */
  background: boolean;
  /** The queues that this process serves. */
  served: readonly string[];
}

export async function healthOf({ store, clock, scheduler, options, errors, background, served }: Watched): Promise<Health> {
  const stats = await within(
    clock,
    longestAnswerMs,
    store.stats().catch(() => undefined),
  );
  const now = scheduler.now();
  const executing = scheduler.drivers
    .flatMap((driver) =>
      driver.executing.map(({ effect: { id, type, attempt }, since }) => ({
        runId: driver.runId,
        effectId: id,
        type,
        attempt,
        forMs: clock.now() - since,
      })),
    )
    .sort((a, b) => b.forMs - a.forMs)
    .slice(0, mostExecuting);
  const moves = await within(
    clock,
    longestAnswerMs,
    store.moves().catch(() => undefined),
  );
  const health = {
    workerId: scheduler.workerId,
    now,
    leaseUntil: scheduler.leaseUntil,
    store: {
      name: store.name,
      reachable: stats !== undefined,
      ...(moves && moves.length > 0 ? { moves } : {}),
      ...(stats ? { stats } : {}),
      ...(scheduler.failing ? { failing: { ...scheduler.failing } } : {}),
      overdueMs: stats?.oldestDueAt === undefined ? 0 : Math.max(0, now - stats.oldestDueAt),
    },
    driving: scheduler.drivers.length,
    concurrency: options.concurrency,
    executing,
    counters: { ...scheduler.counters },
    errors: [...errors],
  };
  const problems = problemsOf(health, overduePolls * options.pollMs, background, served);
  return { ok: problems.length === 0, problems, ...health };
}

/** @param served The queues that this process serves. */
function problemsOf(
  health: Omit<Health, "ok" | "problems">,
  overdueMs: number,
  background: boolean,
  served: readonly string[],
): string[] {
  const { stats, failing } = health.store;
  const problems: string[] = [];
  if (!health.store.reachable) problems.push(`the store ${health.store.name} cannot be reached, or does not answer`);
  if (failing) {
    const seconds = Math.max(0, Math.round((health.now - failing.since) / 1000));
    problems.push(
      `the store ${health.store.name} has refused work for ${seconds} s: ${failing.code ?? "Error"}: ${failing.problem}`,
    );
  }
  for (const [queue, { due, oldestDueAt }] of Object.entries(stats?.queues ?? {})) {
    if (served.includes(queue) || health.now - oldestDueAt <= overdueMs) continue;
    problems.push(`${runsAre(due)} due in queue "${queue}", which this process does not serve`);
  }
  for (const { to, phase, runIds } of health.store.moves ?? [])
    problems.push(
      `${runsAre(runIds.length)} on the way ${phase === "leaving" ? "to" : "here from"} ${to}, and driven by nobody until \`abstractruntime move\` with these stores has completed`,
    );
  if (health.leaseUntil <= health.now) problems.push("this worker's lease has run out: it may not go on with its runs");
  if (stats && stats.quarantined > 0) problems.push(`${runsAre(stats.quarantined)} damaged, and quarantined`);
  if (stats && stats.blocked > stats.quarantined)
    problems.push(`${runsAre(stats.blocked - stats.quarantined)} blocked: no worker that came by has the code`);
  if (stats && health.store.overdueMs > overdueMs)
    problems.push(
      `${runsAre(stats.due)} due and not driven, the first for ${Math.round(health.store.overdueMs / 1000)} s${background ? "" : " (this runtime drives none by itself)"}`,
    );
  return problems;
}

/** What telemetry asks a store for, now and then: answers in time, or none. */
export function stateOfStore(store: Store, clock: Clock, now: () => number): StoreState {
  const inTime = <T>(asked: Promise<T>): Promise<T | undefined> =>
    within(
      clock,
      longestAnswerMs,
      asked.catch(() => undefined),
    );
  return {
    now,
    stats: () => inTime(store.stats()),
    waiting: (forMs) => inTime(store.count({ status: "waiting", updatedBefore: now() - forMs }, "waitReason")),
  };
}

/** For what else processes see of runs, too. */
export function runsAre(runs: number): string {
  return runs === 1 ? "1 run is" : `${runs} runs are`;
}
