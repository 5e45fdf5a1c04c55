/** The rows that a transaction changes: read once, changed in memory, written once at its end (Q2). */
import type { RunRow } from "../../kernel/run.ts";
import type { Reader } from "./read.ts";

/** What a transaction needs to know of a run. */
export interface Cached {
  readonly run: number;
  readonly run_id: string;
  readonly queue: string | null;
  readonly epoch: number;
  readonly moving: string | null;
  version: string;
  status: RunRow["status"];
  paused: number;
  node: string;
  step: number;
  seq: number;
  head: string;
  wake_at: number | null;
  error: string | null;
  worker_id: string | null;
  blocked: string | null;
  tried: string | null;
  updated_at: number;
  changed: boolean;
  /** As it stands in the table: what a step leaves as it is. */
  was: Still;
}

type Still = Pick<Cached, "version" | "status" | "paused" | "wake_at" | "error" | "worker_id" | "blocked" | "tried">;

/** In the order of `RowArray`. */
const columns =
  "run, queue, epoch, moving, version, status, paused, node, step, seq, head, wake_at, error, worker_id, blocked, tried, updated_at";

type RowArray = [
  number,
  string | null,
  number,
  string | null,
  string,
  RunRow["status"],
  number,
  string,
  number,
  number,
  string,
  number | null,
  string | null,
  string | null,
  string | null,
  string | null,
  number,
];

export class Rows {
  readonly #reader: Reader;
  readonly #rows = new Map<string, Cached | undefined>();

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  get(runId: string): Cached | undefined {
    if (this.#rows.has(runId)) return this.#rows.get(runId);
    const row = this.#read(runId);
    this.#rows.set(runId, row);
    return row;
  }

  /** It is read again when it is asked for. */
  forget(runId: string): void {
    this.#rows.delete(runId);
  }

  clear(): void {
    this.#rows.clear();
  }

  /** What asks the tables needs what was changed to stand there; and what it changes itself is not here. */
  flush(): void {
    if (this.#rows.size === 0) return;
    this.write();
    this.#rows.clear();
  }

  #read(runId: string): Cached | undefined {
    const row = this.#reader.prepareArrays(`SELECT ${columns} FROM runs WHERE run_id = ?`).get(runId) as RowArray | undefined;
    if (!row) return undefined;
    const [
      run,
      queue,
      epoch,
      moving,
      version,
      status,
      paused,
      node,
      step,
      seq,
      head,
      wake_at,
      error,
      worker_id,
      blocked,
      tried,
      updated_at,
    ] = row;
    const was = { version, status, paused, wake_at, error, worker_id, blocked, tried };
    // Written out: a spread costs as much as the rest of it, for each row of each transaction.
    return {
      run,
      run_id: runId,
      queue,
      epoch,
      moving,
      version,
      status,
      paused,
      node,
      step,
      seq,
      head,
      wake_at,
      error,
      worker_id,
      blocked,
      tried,
      updated_at,
      changed: false,
      was,
    };
  }

  /**
   * SQLite writes the entry of an index again whenever its column is set, changed or not. A run that is driven on changes nothing
   * that is indexed, so those columns are left out then: half the pages of a step.
   */
  write(): void {
    for (const row of this.#rows.values()) if (row?.changed) this.#write(row);
  }

  #write(row: Cached): void {
    const { run, version, status, paused, node, step, seq, head, wake_at, error, worker_id, blocked, tried, updated_at } = row;
    row.changed = false;
    if (!hasMoved(row)) {
      this.#reader
        .prepare("UPDATE runs SET node = ?, step = ?, seq = ?, head = ?, updated_at = ? WHERE run = ?")
        .run(node, step, seq, head, updated_at, run);
      return;
    }
    this.#reader
      .prepare(
        `UPDATE runs SET version = ?, status = ?, paused = ?, node = ?, step = ?, seq = ?, head = ?, wake_at = ?, error = ?,
           worker_id = ?, blocked = ?, tried = ?, updated_at = ? WHERE run = ?`,
      )
      .run(version, status, paused, node, step, seq, head, wake_at, error, worker_id, blocked, tried, updated_at, run);
    row.was = { version, status, paused, wake_at, error, worker_id, blocked, tried };
  }
}

/** Whether something has changed that a step leaves as it is. While a run is held nobody looks at when it wakes. */
function hasMoved(row: Cached): boolean {
  const { was } = row;
  return (
    row.status !== was.status ||
    row.worker_id !== was.worker_id ||
    (row.worker_id === null && row.wake_at !== was.wake_at) ||
    row.paused !== was.paused ||
    row.blocked !== was.blocked ||
    row.tried !== was.tried ||
    row.error !== was.error ||
    row.version !== was.version
  );
}

/** Where a run stands in line was decided when it was created: queue and priority stay. */
export function update(row: Cached, to: RunRow): void {
  row.version = to.version;
  row.status = to.status;
  row.paused = to.paused ? 1 : 0;
  row.node = to.node;
  row.step = to.step;
  row.seq = to.seq;
  row.head = to.head;
  row.wake_at = to.wakeAt;
  row.error = to.error ? JSON.stringify(to.error) : null;
  row.updated_at = to.updatedAt;
  row.changed = true;
}

/** A run whose holder did not finish with it goes on at once, and keeps its place if it has been due for longer. */
export function wake(row: Cached, now: number): void {
  if (row.wake_at !== null && row.wake_at <= now) return;
  row.wake_at = now;
  row.changed = true;
}
