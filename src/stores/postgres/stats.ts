/** What the store has, in numbers. */
import type { RunStatus } from "../../kernel/run.ts";
import type { StoreStats } from "../../kernel/store.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { momentOr } from "./moment-sql.ts";

const moment = momentOr("$1");

export async function stats(statements: Statements, client: PostgresClient, now: number | undefined): Promise<StoreStats> {
  const byStatus: Partial<Record<RunStatus, number>> = {};
  let runs = 0;
  const counted = await statements.rows(client, "SELECT status, count(*) AS count FROM ~runs GROUP BY status");
  for (const { status, count } of counted) {
    byStatus[status as RunStatus] = count as number;
    runs += count as number;
  }
  const lanes = `SELECT l.queue, sum(d.count)::bigint AS count, min(d.oldest) AS oldest FROM ~lanes l CROSS JOIN LATERAL (
      SELECT count(*) AS count, min(wake_at) AS oldest FROM ~runs
      WHERE lane = l.lane AND wake_at <= ${moment} AND wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL) d
    WHERE d.count > 0 GROUP BY l.queue`;
  const queues: StoreStats["queues"] = {};
  const due: Pick<StoreStats, "due" | "oldestDueAt"> = { due: 0 };
  for (const { queue, count, oldest } of await statements.rows(client, lanes, [now])) {
    if (queue !== null) queues[queue as string] = { due: count as number, oldestDueAt: oldest as number };
    else Object.assign(due, { due: count, oldestDueAt: oldest });
  }
  const sql = `SELECT (SELECT count(*) FROM ~runs WHERE blocked IS NOT NULL) AS blocked,
      (SELECT count(*) FROM ~runs WHERE blocked IS NOT NULL AND quarantined) AS quarantined,
      (SELECT count(*) FROM ~workers WHERE expires_at > ${moment}) AS workers,
      (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
        WHERE relkind = 'r' AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = '~runs'::regclass)) AS size`;
  const [row] = await statements.rows(client, sql, [now]);
  return {
    runs,
    byStatus,
    ...due,
    queues,
    blocked: row?.blocked as number,
    quarantined: row?.quarantined as number,
    workers: row?.workers as number,
    sizeBytes: row?.size as number,
  };
}
