/** Everything the store answers without writing. */
import type { StoredRecord } from "../../kernel/record.ts";
import type { RunStatus } from "../../kernel/run.ts";
import type { Capability, Loaded } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { CountBy, RunCount, RunPage, RunQuery } from "../../kernel/query.ts";
import type { Mail } from "../../kernel/message.ts";
import type { LoadOptions, StoreStats } from "../../kernel/store.ts";
import { archivedError } from "../retention.ts";
import { Slots, serves } from "../slots.ts";
import { type Contents, copyRow, knows, mailBehind, type Run, yieldsTo } from "./contents.ts";
import { countRuns, movingOf, queryRuns } from "./query.ts";

export class Reader {
  readonly #contents: Contents;

  constructor(contents: Contents) {
    this.#contents = contents;
  }

  load(runId: string, now: number, { at = Number.POSITIVE_INFINITY, whole = false, known }: LoadOptions): Loaded | undefined {
    const run = this.#contents.runs.get(runId);
    if (!run) return undefined;
    const isKnown = run.row.head === known;
    const checkpoint = whole || isKnown ? undefined : run.checkpoints.findLast(({ seq }) => seq <= at);
    const { first } = run.records;
    if (!checkpoint && !isKnown && at < first) throw archivedError(runId, at, first);
    return {
      row: copyRow(run.row),
      ...(checkpoint ? { checkpoint: { ...checkpoint } } : {}),
      tail: isKnown ? [] : run.records.slice(checkpoint ? checkpoint.seq + 1 : 0, at + 1),
      mail: mailBehind(run, 0),
      ...(run.holder === undefined ? {} : { lease: { workerId: run.holder, epoch: run.epoch } }),
      ...(first > 0 ? { archivedBefore: first } : {}),
      ...(run.moving ? { moving: movingOf(run.moving) } : {}),
      ...(run.blocked ? { blocked: { ...run.blocked } } : {}),
      now,
    };
  }

  records(runId: string, from: number, limit: number): StoredRecord[] {
    const records = this.#contents.runs.get(runId)?.records;
    if (!records || limit <= 0) return [];
    if (from < records.first) throw archivedError(runId, from, records.first);
    return records.slice(from, from + limit);
  }

  checkpoints(runId: string): Checkpoint[] {
    return (this.#contents.runs.get(runId)?.checkpoints ?? []).map((checkpoint) => ({ ...checkpoint }));
  }

  mail(runId: string, after: number): Mail[] {
    const run = this.#contents.runs.get(runId);
    return run ? mailBehind(run, after) : [];
  }

  news(workerId: string, after: number): { runIds: string[]; position: number } {
    const got = [...this.#contents.live].filter((run) => run.holder === workerId && mailBehind(run, after).length > 0);
    return { runIds: got.map(({ row }) => row.runId), position: this.#contents.lastPosition };
  }

  listeners(
    key: string,
    { workflowId, limit, cursor }: { workflowId?: string; limit: number; cursor?: string },
  ): { runIds: string[]; next?: string } {
    const { runs, next } = this.query({ waitReason: "event", waitKey: key, workflowId, limit, cursor, order: "oldest" });
    return { runIds: runs.map(({ runId }) => runId), ...(next === undefined ? {} : { next }) };
  }

  nextDue(worker: Capability, now: number): number | undefined {
    const slots = new Slots(worker, this.#contents.slotCounts(), now);
    const moments = [...this.#contents.live]
      .map((run) => this.#dueAt(run, worker, slots, now))
      .filter((moment) => moment !== undefined);
    return moments.length === 0 ? undefined : moments.reduce((earliest, moment) => Math.min(earliest, moment));
  }

  /** When `claim` would give this run to `worker`, or give it another for the slot of this one. */
  #dueAt(run: Run, worker: Capability, slots: Slots, now: number): number | undefined {
    const { blocked, holder, epoch, row } = run;
    const { queue, queueKey, wakeAt } = row;
    if (holder !== undefined) {
      const isOfUse = knows(worker, run) || (queue !== undefined && serves(worker, queue));
      return isOfUse && holder !== worker.workerId ? Math.max(now, this.#contents.workers.get(holder) ?? now) : undefined;
    }
    if (!knows(worker, run)) return undefined;
    if (blocked) return yieldsTo(run, worker) ? now : undefined;
    const opensAt = slots.opensAt(queue, epoch === 0);
    if (wakeAt === null || opensAt === undefined || !slots.hasSlot(queue, queueKey)) return undefined;
    return opensAt > now ? Math.max(wakeAt, opensAt) : wakeAt;
  }

  query(query: RunQuery): RunPage {
    return queryRuns(this.#contents, query);
  }

  count(query: RunQuery, by?: CountBy): RunCount[] {
    return countRuns(this.#contents, query, by);
  }

  counters(runId: string): Record<string, number> {
    return Object.fromEntries([...(this.#contents.runs.get(runId)?.counters ?? [])].filter(([, value]) => value !== 0));
  }

  stats(now: number): StoreStats {
    const runs = [...this.#contents.runs.values()];
    const byStatus: Partial<Record<RunStatus, number>> = {};
    for (const { row } of runs) byStatus[row.status] = (byStatus[row.status] ?? 0) + 1;
    const isDue = ({ row, holder, blocked }: Run): boolean => row.wakeAt !== null && row.wakeAt <= now && !holder && !blocked;
    const queues: StoreStats["queues"] = {};
    let due = 0;
    let oldestDueAt = Number.POSITIVE_INFINITY;
    for (const { row } of runs.filter(isDue)) {
      const at = row.wakeAt as number;
      if (row.queue === undefined) {
        due += 1;
        oldestDueAt = Math.min(oldestDueAt, at);
      } else {
        const before = queues[row.queue];
        queues[row.queue] = { due: (before?.due ?? 0) + 1, oldestDueAt: Math.min(before?.oldestDueAt ?? at, at) };
      }
    }
    return {
      runs: runs.length,
      byStatus,
      due,
      ...(due > 0 ? { oldestDueAt } : {}),
      queues,
      blocked: runs.filter(({ blocked }) => blocked).length,
      quarantined: runs.filter(({ blocked }) => blocked?.quarantine).length,
      workers: [...this.#contents.workers.values()].filter((expiresAt) => expiresAt > now).length,
    };
  }
}
