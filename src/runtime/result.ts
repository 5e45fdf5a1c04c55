/** Waiting for a run in this process: until it has ended, or rests; and why one that is not driven here is not. */
import type { DriveHost } from "../kernel/drive-host.ts";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { cloneJson, type Json } from "../kernel/json.ts";
import { isEnded } from "../kernel/run.ts";
import type { Moving } from "../kernel/moving.ts";
import type { Store } from "../kernel/store.ts";
import type { Changes } from "./changes.ts";
import { blockedError, isRetried, isBare, loadRun, outcomeOf, stateOf } from "./read.ts";
import type { Run } from "./view.ts";

export interface Waiting {
  readonly host: DriveHost;
  readonly changes: Changes;
  /** @throws RUNTIME_STOPPED */
  checkRunning(): void;
}

/** @throws As `Runtime.result`. */
export async function resultOf({ host, changes, checkRunning }: Waiting, runId: string, timeoutMs?: number): Promise<Json> {
  const { clock } = host;
  const deadline = timeoutMs === undefined ? Number.POSITIVE_INFINITY : clock.now() + timeoutMs;
  let known: string | undefined;
  for (let waitMs = 20; ; waitMs = Math.min(1_000, waitMs * 2)) {
    const changed = changes.of(runId);
    try {
      checkRunning();
      // While it stands where it stood, its state is not read.
      const loaded = await loadRun(host.store, runId, { known });
      known = loaded.row.head;
      const isArriving = loaded.moving?.phase === "arriving";
      if (isEnded(loaded.row) && !isRetried(loaded) && !isArriving) {
        const whole = isBare(loaded) ? await loadRun(host.store, runId) : loaded;
        return outcomeOf(await stateOf(host.store, whole));
      }
      if (loaded.moving?.phase === "left") throw new AbstractRuntimeError("RUN_MOVED", { runId, ...moveOf(loaded.moving) });
      if (loaded.blocked && (loaded.blocked.quarantine || loaded.blocked.fingerprint === host.fingerprint))
        throw blockedError(runId, loaded);
      const leftMs = deadline - clock.now();
      if (leftMs <= 0)
        throw new AbstractRuntimeError("RESULT_TIMEOUT", {
          runId,
          timeoutMs: timeoutMs as number,
          status: loaded.row.status,
        });
      // Another process may end the run, so the store is asked now and then; ends in this one are heard of at once.
      await changed.within(Math.min(waitMs, leftMs));
      // Completed for good, and durable: there is nothing in the store that would say more.
      if (changed.output !== undefined) return cloneJson(changed.output);
    } finally {
      changed.forget();
    }
  }
}

/** Waits until a run waits or has ended. @param get Looks at it. */
export async function restingRun(changes: Changes, pollMs: number, runId: string, get: () => Promise<Run>): Promise<Run> {
  for (;;) {
    const changed = changes.of(runId);
    try {
      const run = await get();
      if (run.status !== "running" || run.blocked) return run;
      await changed.within(pollMs);
    } finally {
      changed.forget();
    }
  }
}

/** Why a run could not be claimed. @throws RUN_MOVED, RUN_BLOCKED, RUN_QUARANTINED, RUN_BUSY, unless it has ended meanwhile. */
export async function checkUnclaimed(store: Store, runId: string): Promise<void> {
  const loaded = await loadRun(store, runId);
  if (loaded.moving) throw new AbstractRuntimeError("RUN_MOVED", { runId, ...moveOf(loaded.moving) });
  if (loaded.blocked) throw blockedError(runId, loaded);
  if (loaded.lease && !isEnded(loaded.row))
    throw new AbstractRuntimeError("RUN_BUSY", { runId, workerId: loaded.lease.workerId });
}

function moveOf({ to, phase }: Moving): Pick<Moving, "to" | "phase"> {
  return { to, phase };
}
