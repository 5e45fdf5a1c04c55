/** Runs that are removed, and what is left of them. */
import type { Tombstone } from "../../kernel/moving.ts";
import { hasLivedOn } from "../ended.ts";
import { epochLeft, mayGo, whereTo } from "../retention.ts";
import type { Contents, Run } from "./contents.ts";

export function purge(
  contents: Contents,
  runIds: readonly string[],
  note: string | undefined,
  now: number,
  heads?: ReadonlyMap<string, string>,
): { live: string[]; purged: string[] } {
  const runs = [...new Set(runIds)].map((runId) => contents.runs.get(runId)).filter((run) => run !== undefined);
  const idsOf = (some: readonly Run[]): string[] => some.map(({ row }) => row.runId);
  const live = runs.filter(
    (run) => !mayGo({ ...run.row, isHeld: run.holder !== undefined, moving: run.moving }) || hasLivedOn(run.row, heads),
  );
  if (live.length > 0) return { live: idsOf(live), purged: [] };
  for (const run of runs) bury(contents, run, now, note);
  return { live: [], purged: idsOf(runs) };
}

export function bury(contents: Contents, run: Run, now: number, note = whereTo(run.moving)): void {
  const { runId, workflowId, status, head, seq, updatedAt } = run.row;
  const tombstone: Tombstone = { runId, workflowId, status, head, seq, endedAt: updatedAt, purgedAt: now };
  const epoch = epochLeft(run);
  contents.tombstones.set(runId, {
    ...tombstone,
    ...(epoch === undefined ? {} : { epoch }),
    ...(note === undefined ? {} : { note }),
  });
  remove(contents, run);
}

/** All that is a run's but its snapshots goes. */
export function remove(contents: Contents, run: Run): void {
  contents.runs.delete(run.row.runId);
  contents.live.delete(run);
  contents.changed.add(run);
}
