/** Runs that are removed, and what is left of them. In transactions; rows of runs are locked in the order of their ids. */
import type { Tombstone } from "../../kernel/moving.ts";
import { hasLivedOn } from "../ended.ts";
import { epochLeft, mayGo, tombstoneRow, whereTo } from "../retention.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { arrayOf, encode } from "./encode.ts";
import { movingOf, type RunTableRow } from "./read.ts";
import { serverNow } from "./moment-sql.ts";

/** Locks runs and reads them. */
export function lockRuns(statements: Statements, client: PostgresClient, runIds: Iterable<string>): Promise<RunTableRow[]> {
  const sql = "SELECT * FROM ~runs WHERE run_id = ANY ($1::text[]) ORDER BY run_id FOR UPDATE";
  return statements.rows<RunTableRow>(client, sql, [arrayOf([...new Set(runIds)])]);
}

/** @param again Those that an earlier attempt may have removed, whose answer was lost, are counted as purged. */
export async function purge(
  statements: Statements,
  client: PostgresClient,
  now: number | undefined,
  runIds: readonly string[],
  note: string | undefined,
  again: boolean,
  heads?: ReadonlyMap<string, string>,
): Promise<{ live: string[]; purged: string[] }> {
  const runs = await lockRuns(statements, client, runIds);
  const byId = new Map(runs.map((run) => [run.run_id, run]));
  const asked = [...new Set(runIds)];
  const live = asked.filter((runId) => {
    const run = byId.get(runId);
    return run && (!mayGo(standing(run)) || hasLivedOn({ runId, head: run.head }, heads));
  });
  if (live.length > 0) return { live, purged: [] };
  for (const run of runs) await bury(statements, client, now, run, note);
  const gone = again ? "SELECT run_id FROM ~tombstones WHERE run_id = ANY ($1::text[])" : undefined;
  const buried = gone ? await statements.rows(client, gone, [arrayOf(asked)]) : [];
  const purged = new Set([...byId.keys(), ...buried.map(({ run_id }) => run_id as string)]);
  return { live: [], purged: asked.filter((runId) => purged.has(runId)) };
}

function standing(run: RunTableRow): Parameters<typeof mayGo>[0] {
  return { status: run.status, wakeAt: run.wake_at, isHeld: run.worker_id !== null, moving: movingOf(run) };
}

export async function bury(
  statements: Statements,
  client: PostgresClient,
  now: number | undefined,
  run: RunTableRow,
  note = whereTo(movingOf(run)),
): Promise<void> {
  const sql = `INSERT INTO ~tombstones SELECT run_id, workflow_id, status, head, seq, updated_at,
      coalesce($2::bigint, ${serverNow}), $3, $4 FROM ~runs WHERE run = $1
    ON CONFLICT (run_id) DO UPDATE SET workflow_id = excluded.workflow_id, status = excluded.status, head = excluded.head,
      seq = excluded.seq, ended_at = excluded.ended_at, purged_at = excluded.purged_at, note = excluded.note, epoch = excluded.epoch`;
  const epoch = epochLeft({ epoch: run.epoch, moving: movingOf(run) });
  await statements.rows(client, sql, [run.run, now, note === undefined ? null : encode(note), epoch ?? null]);
  await remove(statements, client, run);
}

/** All that is a run's but its snapshots goes. */
export async function remove(statements: Statements, client: PostgresClient, { run }: Pick<RunTableRow, "run">): Promise<void> {
  for (const table of [
    "records",
    "checkpoints",
    "mailbox",
    "waits",
    "streams",
    "counters",
    "artifact_runs",
    "run_tags",
    "run_vars",
    "runs",
  ])
    await statements.rows(client, `DELETE FROM ~${table} WHERE run = $1`, [run]);
}

export async function tombstoneOf(statements: Statements, client: PostgresClient, runId: string): Promise<Tombstone | undefined> {
  const [row] = await statements.rows(client, "SELECT * FROM ~tombstones WHERE run_id = $1", [encode(runId)]);
  return row && tombstoneRow(row, runId);
}
