/** Rows of runs that are new to the store: created here, or come from another. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { OpenWait, RunRow } from "../../kernel/run.ts";
import { insertTags } from "./indexed.ts";
import type { Lanes } from "./lanes.ts";
import type { Reader } from "./read.ts";
import { lastRun } from "./schema.ts";

interface Begin {
  wakeAt: number | null;
  workerId: string | null;
  epoch: number;
}

/** Answers its number. @throws STORE_UNAVAILABLE */
export function insertRun(reader: Reader, lanes: Lanes, store: string, row: RunRow, { wakeAt, workerId, epoch }: Begin): number {
  const { workflowId, priority } = row;
  const queue = row.queue ?? null;
  const lane = lanes.of({ workflowId, queue, priority, begun: queue !== null && epoch > 0 });
  const { lastInsertRowid } = reader
    .prepare(
      `INSERT INTO runs (run_id, workflow_id, version, status, paused, node, step, seq, head, wake_at, error, lane, queue, queue_key,
         priority, worker_id, epoch, parent_run_id, tags, actor_id, session_id, created_at, updated_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
    )
    .run(
      row.runId,
      workflowId,
      row.version,
      row.status,
      row.paused ? 1 : 0,
      row.node,
      row.step,
      row.seq,
      row.head,
      wakeAt,
      row.error ? JSON.stringify(row.error) : null,
      lane,
      queue,
      row.queueKey ?? null,
      priority,
      workerId,
      epoch,
      row.parentRunId ?? null,
      row.tags ? JSON.stringify(row.tags) : null,
      row.actorId ?? null,
      row.sessionId ?? null,
      row.createdAt,
      row.updatedAt,
    );
  const run = Number(lastInsertRowid);
  if (run > lastRun)
    throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store, problem: "it has no number left for a new run" });
  if (row.tags) insertTags(reader, run, row.tags);
  return run;
}

export function insertWaits(reader: Reader, run: number, waits: readonly OpenWait[]): void {
  for (const { effectId, waitKey, reason, since, until } of waits) {
    reader
      .prepare("INSERT OR REPLACE INTO waits VALUES (?, ?, ?, ?, ?, ?)")
      .run(run, effectId, waitKey, reason, since, until ?? null);
  }
}
