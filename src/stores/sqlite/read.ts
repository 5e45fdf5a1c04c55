/** Everything the store answers without writing. */
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { parseJson } from "../../kernel/json.ts";
import { type StoredRecord, sha256 } from "../../kernel/record.ts";
import type { RunRow, RunStatus } from "../../kernel/run.ts";
import type { Blocked, Capability, Checkpoint, ListedRun, Loaded, Mail, RunPage, RunQuery } from "../../kernel/store.ts";
import { isSqliteError } from "./errors.ts";
import { seqBits } from "./schema.ts";

/** A row of `runs`, as SQLite gives it. */
export interface RunTableRow {
  run: number;
  run_id: string;
  workflow_id: string;
  version: string;
  status: RunStatus;
  paused: number;
  node: string;
  step: number;
  seq: number;
  head: string;
  wake_at: number | null;
  waits: string;
  error: string | null;
  worker_id: string | null;
  epoch: number;
  blocked: string | null;
  /** JSON list of the fingerprints of code that could not go on since the run last moved. */
  tried: string | null;
  parent_run_id: string | null;
  actor_id: string | null;
  session_id: string | null;
  created_at: number;
  updated_at: number;
}

/** The runs whose block gives way to a fingerprint, `?2`. A block that cannot be read is a quarantine. */
export const liftable = `blocked IS NOT NULL AND NOT iif(json_valid(blocked), blocked ->> 'quarantine', 1)
  AND ?2 NOT IN (SELECT value FROM json_each(iif(json_valid(tried), tried, '[]')))`;

export class Reader {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  /** For each kind of claimer, the number of blocks at which none gave way to it: every claim would scan them all otherwise. */
  readonly #nothingToLift = new Map<string, number>();

  constructor(database: DatabaseSync) {
    this.#database = database;
  }

  /** A prepared statement, made once. Only for texts that do not vary with data. */
  prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  run(runId: string): RunTableRow | undefined {
    return this.prepare("SELECT * FROM runs WHERE run_id = ?").get(runId) as unknown as RunTableRow | undefined;
  }

  workers(): string[] {
    return this.prepare("SELECT worker_id FROM workers")
      .all()
      .map((row) => row.worker_id as string);
  }

  /** @throws RECORD_CORRUPT */
  load(runId: string, now: number, options: { at?: number; whole?: boolean }): Loaded | undefined {
    return intact(runId, 0, () => {
      const row = this.run(runId);
      return row && intact(runId, row.seq, () => this.#load(row, now, options));
    });
  }

  #load(row: RunTableRow, now: number, { at, whole = false }: { at?: number; whole?: boolean }): Loaded {
    const base = row.run * seqBits;
    const last = base + Math.min(at ?? row.seq, row.seq);
    const checkpoint = whole
      ? undefined
      : this.prepare("SELECT id, ordinal, state FROM checkpoints WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1").get(
          base,
          last,
        );
    const from = checkpoint ? (checkpoint.id as number) + 1 : base;
    return {
      row: runRow(row),
      ...(checkpoint
        ? {
            checkpoint: {
              seq: (checkpoint.id as number) - base,
              ordinal: checkpoint.ordinal as number,
              text: checkpoint.state as string,
            },
          }
        : {}),
      tail: this.#recordsBetween(base, from, last),
      mail: this.mailOf(row, 0),
      ...(row.worker_id === null ? {} : { lease: { workerId: row.worker_id, epoch: row.epoch } }),
      ...(row.blocked === null ? {} : { blocked: JSON.parse(row.blocked) as Blocked }),
      now,
    };
  }

  records(runId: string, from: number, limit: number): StoredRecord[] {
    const run = this.run(runId);
    if (!run || limit <= 0) return [];
    const base = run.run * seqBits;
    return this.#recordsBetween(base, base + from, base + Math.min(from + limit - 1, run.seq));
  }

  #recordsBetween(base: number, from: number, to: number): StoredRecord[] {
    return this.prepare("SELECT id, header, body FROM records WHERE id BETWEEN ? AND ? ORDER BY id")
      .all(from, to)
      .map(({ id, header, body }) => ({
        seq: (id as number) - base,
        // Not stored: it is a function of the header, whose text is.
        hash: sha256(header as string),
        header: header as string,
        body: body as string | null,
      }));
  }

  checkpoints(runId: string): Checkpoint[] {
    const run = this.run(runId);
    if (!run) return [];
    const base = run.run * seqBits;
    return this.prepare("SELECT id, ordinal, state FROM checkpoints WHERE id BETWEEN ? AND ? ORDER BY id")
      .all(base, base + seqBits - 1)
      .map(({ id, ordinal, state }) => ({ seq: (id as number) - base, ordinal: ordinal as number, text: state as string }));
  }

  mail(runId: string, after: number): Mail[] {
    const run = this.run(runId);
    return run ? this.mailOf(run, after) : [];
  }

  hasMail({ run }: RunTableRow, after: number): boolean {
    return (
      this.prepare(
        "SELECT 1 FROM mailbox INDEXED BY mailbox_open WHERE run = ? AND position > ? AND payload IS NOT NULL LIMIT 1",
      ).get(run, after) !== undefined
    );
  }

  /** @throws RECORD_CORRUPT */
  mailOf({ run, run_id, seq }: RunTableRow, after: number): Mail[] {
    return this.prepare(
      "SELECT position, id, kind, key, payload, at FROM mailbox INDEXED BY mailbox_open WHERE run = ? AND position > ? AND payload IS NOT NULL ORDER BY position",
    )
      .all(run, after)
      .map(({ position, id, kind, key, payload, at }) => ({
        position: position as number,
        id: id as string,
        kind: kind as Mail["kind"],
        key: key as string,
        payload: intact(run_id, seq, () => parseJson(payload as string)),
        at: at as number,
      }));
  }

  /** When `claim` would give this worker something: a run is due, a holder expires, or a block gives way to it. */
  nextDue(worker: Capability, now: number): number | undefined {
    const { workerId, workflows, fingerprint } = worker;
    const known = workflows ? "AND workflow_id IN (SELECT value FROM json_each(?))" : "";
    const list = workflows ? [JSON.stringify(workflows)] : [];
    const due = this.prepare(
      `SELECT wake_at AS at FROM runs INDEXED BY runs_due
       WHERE wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL ${known} ORDER BY wake_at LIMIT 1`,
    ).get(...list);
    const expiring = this.prepare(
      `SELECT max(?, min(expires_at)) AS at FROM workers
       WHERE worker_id <> ? AND EXISTS (SELECT 1 FROM runs INDEXED BY runs_held WHERE runs.worker_id = workers.worker_id ${known})`,
    ).get(now, workerId, ...list);
    const lifted = this.lifting(
      worker,
      () =>
        this.prepare(`SELECT ?1 AS at FROM runs INDEXED BY runs_blocked WHERE ${liftable} ${known} LIMIT 1`).get(
          now,
          fingerprint,
          ...list,
        ),
      (found) => found !== undefined,
    );
    const moments = [due?.at, expiring?.at, lifted?.at].filter((at) => typeof at === "number");
    return moments.length === 0 ? undefined : Math.min(...moments);
  }

  /** Looks for blocks that give way to a worker, unless nothing was blocked since none was left. `left`: whether some are left. */
  lifting<T>({ fingerprint, workflows }: Capability, look: () => T, left: (found: T) => boolean): T | undefined {
    const claimer = JSON.stringify([fingerprint, workflows]);
    const { count } = this.prepare("SELECT count FROM blocks").get() as { count: number };
    if (this.#nothingToLift.get(claimer) === count) return undefined;
    const found = look();
    if (!left(found)) this.#nothingToLift.set(claimer, count);
    return found;
  }

  /** Forgets what was seen in a transaction that was rolled back: its numbers of blocks will be given to others. */
  rolledBack(): void {
    this.#nothingToLift.clear();
  }

  query(query: RunQuery): RunPage {
    const limit = Math.max(0, Math.min(query.limit ?? 100, 1_000));
    const oldest = query.order === "oldest";
    const conditions: string[] = [];
    const values: (string | number)[] = [];
    const where = (condition: string, value: string | number): void => {
      conditions.push(condition);
      values.push(value);
    };
    if (query.status !== undefined) where("status IN (SELECT value FROM json_each(?))", JSON.stringify([query.status].flat()));
    if (query.workflowId !== undefined) where("workflow_id = ?", query.workflowId);
    if (query.holder !== undefined) where("worker_id = ?", query.holder);
    if (query.parentRunId !== undefined) where("parent_run_id = ?", query.parentRunId);
    if (query.waitReason !== undefined || query.waitKey !== undefined) {
      // One wait must fit both.
      where(
        `EXISTS (SELECT 1 FROM json_each(iif(json_valid(waits), waits, '[]')) AS wait, json_each(?) AS wanted
                 WHERE wait.value ->> 'reason' = coalesce(wanted.value ->> 'reason', wait.value ->> 'reason')
                   AND wait.value ->> 'waitKey' = coalesce(wanted.value ->> 'waitKey', wait.value ->> 'waitKey'))`,
        JSON.stringify([{ reason: query.waitReason, waitKey: query.waitKey }]),
      );
    }
    if (query.cursor !== undefined) {
      const cursor = Number(query.cursor);
      if (!Number.isSafeInteger(cursor)) {
        throw new AbstractRuntimeError("INVALID_OPTION", {
          option: "cursor",
          problem: `cursor "${query.cursor}" was not made by this store`,
        });
      }
      where(oldest ? "run > ?" : "run < ?", cursor);
    }
    const filter = conditions.length > 0 ? `WHERE ${conditions.join(" AND ")}` : "";
    const rows = this.prepare(`SELECT * FROM runs ${filter} ORDER BY run ${oldest ? "" : "DESC"} LIMIT ?`).all(
      ...values,
      limit + 1,
    ) as unknown as RunTableRow[];
    const page = rows.slice(0, limit);
    const last = page.at(-1);
    return { runs: page.map(listedRun), ...(rows.length > limit && last ? { next: String(last.run) } : {}) };
  }

  counter(name: string): number {
    return (this.prepare("SELECT value FROM counters WHERE name = ?").get(name)?.value as number | undefined) ?? 0;
  }

  stats(): { runs: number; waiting: number } {
    const { runs } = this.prepare("SELECT count(*) AS runs FROM runs").get() as { runs: number };
    const { waiting } = this.prepare("SELECT count(*) AS waiting FROM runs WHERE status = 'waiting'").get() as {
      waiting: number;
    };
    return { runs, waiting };
  }
}

export function runRow(row: RunTableRow): RunRow {
  return {
    runId: row.run_id,
    workflowId: row.workflow_id,
    version: row.version,
    status: row.status,
    paused: row.paused === 1,
    node: row.node,
    step: row.step,
    seq: row.seq,
    head: row.head,
    wakeAt: row.wake_at,
    waits: JSON.parse(row.waits),
    ...(row.error === null ? {} : { error: JSON.parse(row.error) }),
    ...(row.parent_run_id === null ? {} : { parentRunId: row.parent_run_id }),
    ...(row.actor_id === null ? {} : { actorId: row.actor_id }),
    ...(row.session_id === null ? {} : { sessionId: row.session_id }),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** A page is not lost for one damaged row: what cannot be read is left out, and `load` says what is wrong. */
function listedRun(row: RunTableRow): ListedRun {
  const waits = readable(row.waits) === undefined ? "[]" : row.waits;
  const error = readable(row.error) === undefined ? null : row.error;
  return {
    ...runRow({ ...row, waits, error }),
    ...(row.blocked === null ? {} : { blocked: blockOf(row.blocked) }),
    ...(row.worker_id === null ? {} : { holder: row.worker_id }),
  };
}

/** A block that cannot be read keeps its run from being driven all the same. */
export function blockOf(text: string): Blocked {
  const problem = "what the store says of its block cannot be read";
  return (readable(text) as Blocked | undefined) ?? { code: "RECORD_CORRUPT", problem, fingerprint: "", quarantine: true };
}

/** Undefined when it is not JSON. */
export function readable(text: string | null): unknown {
  try {
    return text === null ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Reads something of one run. What SQLite gives and we cannot read is damage to that run alone. @throws RECORD_CORRUPT */
export function intact<T>(runId: string, seq: number, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof AbstractRuntimeError || isSqliteError(error)) throw error;
    const problem = `the store holds what cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq, problem }, error);
  }
}
