/** Who drives which run: claims, and what gives a run back. Inside a transaction of the group, see Q1 and Q2 in `index.ts`. */
import type { Clock } from "../../kernel/clock.ts";
import { isEnded } from "../../kernel/run.ts";
import type { Blocked, Capability, Lease } from "../../kernel/transition.ts";
import { isOver } from "../ended.ts";
import type { Wakes } from "../listeners.ts";
import { rateOf, serves } from "../slots.ts";
import { beginsIn, type Due, dueRuns, slotsFor } from "./due.ts";
import type { Lane, Lanes } from "./lanes.ts";
import { blockOf, readable } from "../table-row.ts";
import { drivable, liftable, queuesOf, type Reader, type RunTableRow, workflowsOf } from "./read.ts";
import { type Cached, type Rows, wake } from "./rows.ts";

/** A run that was given to a worker. */
export interface Claimed {
  runId: string;
  lease: Lease;
}

export class Leases {
  readonly #reader: Reader;
  readonly #rows: Rows;
  readonly #lanes: Lanes;
  readonly #wakes: Wakes;
  readonly #clock: Clock;

  constructor(reader: Reader, rows: Rows, lanes: Lanes, wakes: Wakes, clock: Clock) {
    this.#reader = reader;
    this.#rows = rows;
    this.#lanes = lanes;
    this.#wakes = wakes;
    this.#clock = clock;
  }

  renew(workerId: string, ttlMs: number): number {
    const now = this.#clock.now();
    this.#reader
      .prepare("INSERT INTO workers VALUES (?, ?) ON CONFLICT DO UPDATE SET expires_at = excluded.expires_at")
      .run(workerId, now + ttlMs);
    return now;
  }

  /** Whoever holds a run stands in the table, or nobody could tell that it died: one that never renewed counts as expired. */
  know(workerId: string): void {
    this.#reader.prepare("INSERT INTO workers VALUES (?, ?) ON CONFLICT DO NOTHING").run(workerId, this.#clock.now());
  }

  /** @param dead Workers whose processes are known to have died. */
  claim(worker: Capability, { limit, runId }: { limit: number; runId?: string }, dead: readonly string[]): Claimed[] {
    this.#rows.flush();
    const now = this.#clock.now();
    const expired = this.#reader.prepare("SELECT worker_id FROM workers WHERE expires_at <= ?").all(now);
    for (const id of new Set([...expired.map((row) => row.worker_id as string), ...dead]))
      if (id !== worker.workerId) this.free(id);
    this.know(worker.workerId);
    this.#liftFor(worker);
    const due = runId === undefined ? this.#due(worker, now, limit) : this.#named(worker, runId, now);
    return due.map((one) => ({ runId: one.runId, lease: this.#lease(one, worker, now) }));
  }

  #due(worker: Capability, now: number, limit: number): Due[] {
    const lanes = this.#lanes.known(worker);
    return lanes.length === 0 ? [] : dueRuns(lanes, this.#reader, slotsFor(worker, this.#reader, now), now, limit);
  }

  /** The run named, if it is free and its queue has a slot. */
  #named(worker: Capability, runId: string, now: number): Due[] {
    const row = this.#reader.run(runId);
    // One that failed is given while somebody wants it to be tried again.
    if (!row || row.worker_id !== null || row.moving !== null || isOver(row) || (isEnded(row) && row.wake_at === null)) return [];
    const lane: Lane = {
      lane: row.lane,
      workflowId: row.workflow_id,
      queue: row.queue,
      priority: row.priority,
      begun: row.epoch > 0,
    };
    const [queue, queueKey] = [row.queue ?? undefined, row.queue_key ?? undefined];
    const slots = slotsFor(worker, this.#reader, now);
    if (!serves(worker, queue) || !slots.isOpen(queue, beginsIn(lane)) || !slots.hasSlot(queue, queueKey)) return [];
    if (row.blocked !== null) {
      if (blockOf(row.blocked).quarantine || tried(row).includes(worker.fingerprint)) return [];
      this.#reader.prepare("UPDATE runs SET blocked = NULL WHERE run = ?").run(row.run);
    }
    return [{ run: row.run, runId, queueKey, wakeAt: row.wake_at ?? now, lane }];
  }

  #lease({ run, lane }: Due, worker: Capability, now: number): Lease {
    const { workerId } = worker;
    const { queue } = lane;
    const begins = queue !== null && beginsIn(lane);
    const sql = `UPDATE runs SET worker_id = ?, epoch = epoch + 1${begins ? ", lane = ?" : ""} WHERE run = ? RETURNING epoch`;
    const values = begins ? [this.#lanes.of({ ...lane, begun: true }), run] : [run];
    const { epoch } = this.#reader.prepare(sql).get(workerId, ...values) as { epoch: number };
    const rate = begins ? rateOf(worker, queue) : undefined;
    if (rate) {
      this.#reader.prepare("DELETE FROM begins WHERE queue = ? AND at <= ?").run(queue, now - rate.periodMs);
      this.#reader.prepare("INSERT INTO begins VALUES (?, ?, ?)").run(queue, now, run);
    }
    return { workerId, epoch };
  }

  /** Ends a worker and frees what it holds. Mail may have come while it was held, so every freed run is looked at once. */
  free(workerId: string): void {
    this.#rows.flush();
    const freed = this.#reader
      .prepare(
        `UPDATE runs INDEXED BY runs_held SET worker_id = NULL,
           wake_at = iif(${drivable}, min(coalesce(wake_at, ?1), ?1), NULL) WHERE worker_id = ?2 RETURNING queue`,
      )
      .all(this.#clock.now(), workerId);
    for (const { queue } of freed) {
      this.#wakes.ready = true;
      if (queue !== null) this.#wakes.freed.add(queue as string);
    }
    this.#reader.prepare("DELETE FROM workers WHERE worker_id = ?").run(workerId);
  }

  release(runId: string, lease: Lease, { blocked, mailSeen }: { blocked?: Blocked; mailSeen?: number }): void {
    const row = this.#rows.get(runId);
    if (!row || row.worker_id !== lease.workerId || row.epoch !== lease.epoch) return;
    this.handBack(row);
    // Mail that the holder has not seen may be what the run needs, a cancel say: it is looked at before the run is blocked (S5).
    const unseen = mailSeen !== undefined && this.#reader.hasMail(row, mailSeen);
    if (blocked && (blocked.quarantine || !unseen)) {
      row.blocked = JSON.stringify(blocked);
      row.tried = JSON.stringify([...tried(row), blocked.fingerprint]);
      this.#reader.prepare("UPDATE blocks SET count = count + 1").run();
      return;
    }
    // One that failed goes on only if there is mail which may want that.
    if (isEnded(row) && !this.#reader.hasMail(row, mailSeen ?? 0)) row.wake_at = null;
    else {
      wake(row, this.#clock.now());
      this.#wakes.ready = true;
    }
  }

  /** The lease is given up; with it, a slot of the run's queue. */
  handBack(row: Cached): void {
    row.worker_id = null;
    row.changed = true;
    if (row.queue !== null) this.#wakes.freed.add(row.queue);
  }

  lift(runId: string): boolean {
    const row = this.#rows.get(runId);
    if (!row || row.blocked === null || row.moving !== null) return false;
    row.blocked = null;
    row.tried = null;
    row.changed = true;
    wake(row, this.#clock.now());
    this.#wakes.ready = true;
    return true;
  }

  /** Takes a run that cannot be read out of the way. Nothing of it is read for that. */
  quarantine({ runId, lease }: Claimed, problem: string, fingerprint: string): void {
    this.#rows.flush();
    const blocked: Blocked = { code: "RECORD_CORRUPT", problem, fingerprint, quarantine: true };
    this.#reader
      .prepare("UPDATE runs SET worker_id = NULL, blocked = ?, tried = ? WHERE run_id = ? AND worker_id = ? AND epoch = ?")
      .run(JSON.stringify(blocked), JSON.stringify([fingerprint]), runId, lease.workerId, lease.epoch);
  }

  /** Blocked runs get another chance with other code. */
  #liftFor(worker: Capability): void {
    const sql = `UPDATE runs INDEXED BY runs_blocked SET blocked = NULL, wake_at = min(coalesce(wake_at, ?1), ?1) WHERE ${liftable}`;
    this.#reader.lifting(
      worker,
      () => {
        const { changes } = this.#reader
          .prepare(sql)
          .run(this.#clock.now(), worker.fingerprint, workflowsOf(worker), queuesOf(worker));
        if (changes !== 0) this.#wakes.ready = true;
      },
      () => false,
    );
  }
}

function tried(row: Pick<RunTableRow, "tried">): string[] {
  return (readable(row.tried) as string[] | undefined) ?? [];
}
