/** What the store has, in numbers. */
import type { RunStatus } from "../../kernel/run.ts";
import type { StoreStats } from "../../kernel/store.ts";
import type { Lanes } from "./lanes.ts";
import type { Reader } from "./read.ts";

/** @param isAlive Whether a worker lives whose lease has not run out. */
export function stats(
  reader: Reader,
  lanes: Lanes,
  now: number,
  isAlive: (workerId: string) => boolean,
): Omit<StoreStats, "sizeBytes"> {
  const byStatus: Partial<Record<RunStatus, number>> = {};
  let runs = 0;
  for (const { status, count } of reader.prepare("SELECT status, count(*) AS count FROM runs GROUP BY status").all()) {
    byStatus[status as RunStatus] = count as number;
    runs += count as number;
  }
  const inLane = reader.prepare(
    `SELECT count(*) AS count, min(wake_at) AS oldest FROM runs INDEXED BY runs_due
     WHERE lane = ? AND wake_at <= ? AND worker_id IS NULL AND blocked IS NULL`,
  );
  const queues: StoreStats["queues"] = {};
  let due = 0;
  let oldestDueAt = Number.POSITIVE_INFINITY;
  for (const { lane, queue } of lanes.all()) {
    const { count, oldest } = inLane.get(lane, now) as { count: number; oldest: number | null };
    if (oldest === null) continue;
    if (queue === null) {
      due += count;
      oldestDueAt = Math.min(oldestDueAt, oldest);
    } else {
      const before = queues[queue];
      queues[queue] = { due: (before?.due ?? 0) + count, oldestDueAt: Math.min(before?.oldestDueAt ?? oldest, oldest) };
    }
  }
  // A block that cannot be read is a quarantine.
  const { blocked, quarantined } = reader
    .prepare(
      `SELECT count(*) AS blocked, total(iif(json_valid(blocked), blocked ->> 'quarantine', 1)) AS quarantined
       FROM runs INDEXED BY runs_blocked WHERE blocked IS NOT NULL`,
    )
    .get() as { blocked: number; quarantined: number };
  const leased = reader.prepare("SELECT worker_id FROM workers WHERE expires_at > ?").all(now);
  const workers = leased.filter((row) => isAlive(row.worker_id as string)).length;
  return {
    runs,
    byStatus,
    due,
    ...(due > 0 ? { oldestDueAt } : {}),
    queues,
    blocked,
    quarantined,
    workers,
  };
}
