/** Runs that are removed, and what is left of them. Inside a transaction of the group, see Q1 and Q2 in `index.ts`. */
import type { Tombstone } from "../../kernel/moving.ts";
import { hasLivedOn } from "../ended.ts";
import { epochLeft, mayGo, tombstoneRow, whereTo } from "../retention.ts";
import { dropArtifacts } from "./artifacts.ts";
import { forgetIndexed } from "./indexed.ts";
import { movingOf, type Reader, type RunTableRow } from "./read.ts";
import { seqBits } from "./schema.ts";

export function purge(
  reader: Reader,
  runIds: readonly string[],
  note: string | undefined,
  now: number,
  heads?: ReadonlyMap<string, string>,
): { live: string[]; purged: string[] } {
  const runs = [...new Set(runIds)].map((runId) => reader.run(runId)).filter((run) => run !== undefined);
  const idsOf = (some: readonly RunTableRow[]): string[] => some.map(({ run_id }) => run_id);
  const live = runs.filter((run) => !mayGo(standing(run)) || hasLivedOn({ runId: run.run_id, head: run.head }, heads));
  if (live.length > 0) return { live: idsOf(live), purged: [] };
  for (const run of runs) bury(reader, run, now, note);
  return { live: [], purged: idsOf(runs) };
}

function standing(run: RunTableRow): Parameters<typeof mayGo>[0] {
  return { status: run.status, wakeAt: run.wake_at, isHeld: run.worker_id !== null, moving: movingOf(run) };
}

export function bury(reader: Reader, run: RunTableRow, now: number, note = whereTo(movingOf(run))): void {
  const { run_id, workflow_id, status, head, seq, updated_at } = run;
  const epoch = epochLeft({ epoch: run.epoch, moving: movingOf(run) });
  reader
    .prepare("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)")
    .run(run_id, workflow_id, status, head, seq, updated_at, now, note ?? null, epoch ?? null);
  remove(reader, run);
}

/** All that is a run's but its snapshots goes. */
export function remove(reader: Reader, { run, queue }: Pick<RunTableRow, "run" | "queue">): void {
  const [first, last] = [run * seqBits, run * seqBits + seqBits - 1];
  reader.prepare("DELETE FROM records WHERE id BETWEEN ? AND ?").run(first, last);
  reader.prepare("DELETE FROM checkpoints WHERE id BETWEEN ? AND ?").run(first, last);
  reader.prepare("DELETE FROM mailbox WHERE run = ?").run(run);
  reader.prepare("DELETE FROM waits WHERE run = ?").run(run);
  reader.prepare("DELETE FROM streams WHERE run = ?").run(run);
  reader.prepare("DELETE FROM counters WHERE run = ?").run(run);
  dropArtifacts(reader, { run });
  forgetIndexed(reader, run);
  reader.prepare("DELETE FROM runs WHERE run = ?").run(run);
  // That it began still counts, and its number may be given to another.
  if (queue !== null) reader.prepare("UPDATE OR IGNORE begins SET run = -run WHERE queue = ? AND run = ?").run(queue, run);
}

export function tombstoneOf(reader: Reader, runId: string): Tombstone | undefined {
  const row = reader.prepare("SELECT * FROM tombstones WHERE run_id = ?").get(runId);
  return row && tombstoneRow(row, runId);
}
