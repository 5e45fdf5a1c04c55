/** Everything the store answers without writing. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { Capability, Checkpoint, ListedRun, Loaded, Mail, RunPage, RunQuery, StoreStats } from "../../kernel/store.ts";
import { type Contents, copyRow, knows, mailBehind, type Run, yieldsTo } from "./contents.ts";

const defaultPage = 100;
const largestPage = 1_000;

export class Reader {
  readonly #contents: Contents;

  constructor(contents: Contents) {
    this.#contents = contents;
  }

  load(
    runId: string,
    now: number,
    { at = Number.POSITIVE_INFINITY, whole = false }: { at?: number; whole?: boolean },
  ): Loaded | undefined {
    const run = this.#contents.runs.get(runId);
    if (!run) return undefined;
    const checkpoint = whole ? undefined : run.checkpoints.findLast(({ seq }) => seq <= at);
    return {
      row: copyRow(run.row),
      ...(checkpoint ? { checkpoint: { ...checkpoint } } : {}),
      tail: copyRecords(run, checkpoint ? checkpoint.seq + 1 : 0, at + 1),
      mail: mailBehind(run, 0),
      ...(run.holder === undefined ? {} : { lease: { workerId: run.holder, epoch: run.epoch } }),
      ...(run.blocked ? { blocked: { ...run.blocked } } : {}),
      now,
    };
  }

  records(runId: string, from: number, limit: number): StoredRecord[] {
    const run = this.#contents.runs.get(runId);
    return run ? copyRecords(run, from, from + limit) : [];
  }

  checkpoints(runId: string): Checkpoint[] {
    return (this.#contents.runs.get(runId)?.checkpoints ?? []).map((checkpoint) => ({ ...checkpoint }));
  }

  mail(runId: string, after: number): Mail[] {
    const run = this.#contents.runs.get(runId);
    return run ? mailBehind(run, after) : [];
  }

  nextDue(worker: Capability, now: number): number | undefined {
    const moments = [...this.#contents.live]
      .filter((run) => knows(worker, run))
      .map((run) => this.#dueAt(run, worker, now))
      .filter((moment) => moment !== null);
    return moments.length === 0 ? undefined : moments.reduce((earliest, moment) => Math.min(earliest, moment));
  }

  /** When `claim` would give this run to `worker`. */
  #dueAt(run: Run, worker: Capability, now: number): number | null {
    if (run.blocked) return yieldsTo(run, worker) ? now : null;
    if (run.holder === undefined) return run.row.wakeAt;
    return run.holder === worker.workerId ? null : Math.max(now, this.#contents.workers.get(run.holder) ?? now);
  }

  query({ order = "newest", limit = defaultPage, cursor, ...filters }: RunQuery): RunPage {
    const behind = cursor === undefined ? undefined : Number(cursor);
    if (Number.isNaN(behind))
      throw new AbstractRuntimeError("INVALID_OPTION", {
        option: "cursor",
        problem: `"${cursor}" is not a cursor of this store`,
      });
    const follows = ({ number }: Run): boolean =>
      behind === undefined || (order === "newest" ? number < behind : number > behind);
    const runs = [...this.#contents.runs.values()].filter((run) => follows(run) && matches(run, filters));
    if (order === "newest") runs.reverse();
    const page = runs.slice(0, Math.max(1, Math.min(limit, largestPage)));
    const last = page.at(-1);
    return { runs: page.map(listed), ...(last && runs.length > page.length ? { next: String(last.number) } : {}) };
  }

  counter(name: string): number {
    return this.#contents.counters.get(name) ?? 0;
  }

  stats(): StoreStats {
    const waiting = [...this.#contents.live].filter(({ row }) => row.status === "waiting").length;
    return { runs: this.#contents.runs.size, waiting };
  }
}

function copyRecords({ records }: Run, from: number, to: number): StoredRecord[] {
  return records.slice(Math.max(0, from), Math.max(0, to)).map((record) => ({ ...record }));
}

/** A wait matches when one and the same has both the reason and the key that are asked for. */
function matches({ row, ...run }: Run, { status, workflowId, waitReason, waitKey, parentRunId, holder }: RunQuery): boolean {
  if (status !== undefined && !(typeof status === "string" ? [status] : status).includes(row.status)) return false;
  if (workflowId !== undefined && row.workflowId !== workflowId) return false;
  if (holder !== undefined && run.holder !== holder) return false;
  if (parentRunId !== undefined && row.parentRunId !== parentRunId) return false;
  if (waitReason === undefined && waitKey === undefined) return true;
  return row.waits.some((wait) => wait.reason === (waitReason ?? wait.reason) && wait.waitKey === (waitKey ?? wait.waitKey));
}

function listed({ row, blocked, holder }: Run): ListedRun {
  return { ...copyRow(row), ...(blocked ? { blocked: { ...blocked } } : {}), ...(holder === undefined ? {} : { holder }) };
}
