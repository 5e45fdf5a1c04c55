/** What may be removed, and what is said of it afterwards: rules that the stores share. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { isEnded, type RunStatus } from "../kernel/run.ts";
import type { Moving, Tombstone } from "../kernel/moving.ts";
import { isRetried } from "./ended.ts";

/** Whether nothing is to come of a run any more: it ended or left, and nobody holds it or is about to try it again. */
export function mayGo(run: { status: RunStatus; wakeAt: number | null; isHeld: boolean; moving: Moving | undefined }): boolean {
  if (run.moving) return run.moving.phase === "left";
  return !run.isHeld && isEnded(run) && !isRetried(run);
}

/** The epoch that a tombstone keeps. */
export function epochLeft({ epoch, moving }: { epoch: number; moving?: Moving | undefined }): number | undefined {
  return moving?.phase === "left" ? epoch : undefined;
}

/** The note of a tombstone, where none is given. */
export function whereTo(moving: Moving | undefined): string | undefined {
  return moving && `moved to ${moving.to}`;
}

export function purgedError({ runId, purgedAt, note }: Tombstone): AbstractRuntimeError<"RUN_PURGED"> {
  return new AbstractRuntimeError("RUN_PURGED", { runId, purgedAt, ...(note === undefined ? {} : { note }) });
}

export function archivedError(runId: string, seq: number, before: number): AbstractRuntimeError<"RECORDS_ARCHIVED"> {
  return new AbstractRuntimeError("RECORDS_ARCHIVED", { runId, seq, before });
}

/** A row of `tombstones`, as a database gives it. */
export function tombstoneRow(row: Record<string, unknown>, runId: string): Tombstone {
  return {
    runId,
    workflowId: row.workflow_id as string,
    status: row.status as RunStatus,
    head: row.head as string,
    seq: row.seq as number,
    endedAt: row.ended_at as number,
    purgedAt: row.purged_at as number,
    ...(row.epoch === null ? {} : { epoch: row.epoch as number }),
    ...(row.note === null ? {} : { note: row.note as string }),
  };
}
