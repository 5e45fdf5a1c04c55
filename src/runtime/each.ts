/** What is done to many runs at once: to every one of a query, or to a run and its children. */
import type { DriveHost } from "../kernel/drive-host.ts";
import { isError } from "../kernel/errors.ts";
import { isEnded, type RunStatus } from "../kernel/run.ts";
import type { RunQuery } from "../kernel/query.ts";
import type { Store } from "../kernel/store.ts";
import { loadRun } from "./read.ts";
import { runsOf } from "./runs-of.ts";
import { checkQuery } from "./check-query.ts";
import type { Scheduler } from "./scheduler.ts";

/** Messages stored by one transaction. */
const pageSize = 500;

/** Statuses of runs that have not ended. */
export const live: readonly RunStatus[] = ["running", "waiting"];

/** What says that a run is not any more what a query found. */
const moved = ["RUN_ENDED", "RUN_NOT_FOUND", "RUN_PURGED", "NOT_FAILED", "RETRY_REFUSED"] as const;

/**
 * Does something to every run of a query that has one of these statuses, and answers to how many. Those that are not any more what was
 * found are left.
 *
 * @throws INVALID_OPTION
 */
export async function toEach(
  store: Store,
  query: RunQuery,
  statuses: readonly RunStatus[],
  act: (runId: string) => Promise<void>,
): Promise<number> {
  // A `limit` would be no limit here.
  checkQuery(query, "a query for all of its runs", "all");
  const asked = query.status === undefined ? statuses : [query.status].flat().filter((status) => statuses.includes(status));
  if (asked.length === 0) return 0;
  return forEach(store, { ...query, status: asked }, async (runId) => {
    try {
      await act(runId);
      return true;
    } catch (error) {
      // It moved on between the look and the message, or is not here any more.
      if (moved.some((code) => isError(error, code))) return false;
      if (isError(error, "RUN_MOVED") && error.fields.phase === "left") return false;
      throw error;
    }
  });
}

/** Does something to every run of a query, page by page. Answers to how many. */
async function forEach(store: Store, query: RunQuery, act: (runId: string) => Promise<boolean>): Promise<number> {
  let count = 0;
  let batch: string[] = [];
  const actOnBatch = async (): Promise<void> => {
    const acted = await Promise.all(batch.map(act));
    count += acted.filter((done) => done).length;
    batch = [];
  };
  for await (const { runId } of runsOf(store, { ...query, order: "oldest" })) {
    batch.push(runId);
    if (batch.length === pageSize) await actOnBatch();
  }
  await actOnBatch();
  return count;
}

export interface Here {
  readonly host: DriveHost;
  readonly scheduler: Scheduler;
  /** Whether due runs are driven by themselves. */
  readonly isBackground: boolean;
}

/**
 * What only takes a worker, and not the workflow's code, is done here when this process does not have it; with the run's children. A run
 * that is cancelled needs no slot of its queue, so it does not wait for one.
 */
export async function applyHere(here: Here, runId: string, isCancelled = false): Promise<void> {
  const { host, scheduler, isBackground } = here;
  const { row, lease } = await loadRun(host.store, runId);
  const isDrivenHere = host.workflow(row.workflowId) !== undefined && !(isCancelled && row.queue !== undefined);
  if (!isBackground || lease || isEnded(row) || isDrivenHere) return;
  await scheduler.apply(row);
  await forEach(host.store, { parentRunId: runId, status: live }, async (child) => {
    const { mail } = await loadRun(host.store, child);
    const isCancelledToo = mail.some(({ kind, key }) => kind === "control" && key === "cancel");
    if (isCancelledToo) await applyHere(here, child, true);
    return isCancelledToo;
  });
}
