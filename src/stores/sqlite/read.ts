/** Everything the store answers without writing. */
import type { LoadOptions } from "../../kernel/store.ts";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { parseJson } from "../../kernel/json.ts";
import { type StoredRecord, sha256 } from "../../kernel/record.ts";
import type { Blocked, Capability, Loaded } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { Mail } from "../../kernel/message.ts";
import type { Moving } from "../../kernel/moving.ts";
import { archivedError } from "../retention.ts";
import { unpacked } from "./packed.ts";
import { intact as intactRow, type RunColumns, runRow } from "../table-row.ts";
import { firstDue, slotsFor } from "./due.ts";
import { isSqliteError } from "./errors.ts";
import type { Lanes } from "./lanes.ts";
import { seqBits } from "./schema.ts";

/** A row of `runs`, as SQLite gives it. */
export interface RunTableRow extends RunColumns {
  paused: number;
  lane: number;
  /** JSON list of the fingerprints of code that could not go on since the run last moved. */
  tried: string | null;
  moving: string | null;
}

/** Runs whose workflow, one of `?3` or any, and queue, one of `?4`, a worker knows. */
export const known = `(?3 IS NULL OR workflow_id IN (SELECT value FROM json_each(?3)))
  AND (queue IS NULL OR queue IN (SELECT value FROM json_each(?4)))`;

/** Those of which the block gives way to a fingerprint, `?2`. A block that cannot be read is a quarantine. */
export const liftable = `blocked IS NOT NULL AND moving IS NULL AND NOT iif(json_valid(blocked), blocked ->> 'quarantine', 1)
  AND ?2 NOT IN (SELECT value FROM json_each(iif(json_valid(tried), tried, '[]'))) AND ${known}`;

/** Whether a run goes on when it is freed: one that failed does if there is mail, which may want it to be tried again. */
export const drivable = `status IN ('running', 'waiting') OR (status = 'failed' AND EXISTS
  (SELECT 1 FROM mailbox INDEXED BY mailbox_open WHERE mailbox.run = runs.run AND payload IS NOT NULL))`;

export function workflowsOf({ workflows }: Capability): string | null {
  return workflows ? JSON.stringify(workflows) : null;
}

export function queuesOf({ queues }: Capability): string {
  return JSON.stringify(Object.keys(queues ?? {}));
}

export class Reader {
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  readonly #arrayStatements = new Map<string, StatementSync>();
  /** For each kind of claimer, the number of blocks at which none gave way to it: every claim would scan them all otherwise. */
  readonly #nothingToLift = new Map<string, number>();

  #contentsId: string | undefined;

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

  /** One that gives rows as arrays, which costs less than objects. */
  prepareArrays(sql: string): StatementSync {
    let statement = this.#arrayStatements.get(sql);
    if (!statement) {
      statement = this.#database.prepare(sql);
      statement.setReturnArrays(true);
      this.#arrayStatements.set(sql, statement);
    }
    return statement;
  }

  /** One that is not kept: for texts that vary with what is asked. */
  fresh(sql: string): StatementSync {
    return this.#database.prepare(sql);
  }

  /** All that is read sees one moment, whatever other processes write meanwhile. */
  atOnce<T>(read: () => T): T {
    if (this.#database.isTransaction) return read();
    this.prepare("BEGIN").run();
    try {
      return read();
    } finally {
      if (this.#database.isTransaction) this.prepare("ROLLBACK").run();
    }
  }

  /** Names what the file holds: it goes with every copy of it. */
  contentsId(): string {
    this.#contentsId ??= (this.prepare("SELECT id FROM identity").get() as { id: string }).id;
    return this.#contentsId;
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
  load(runId: string, now: number, options: LoadOptions): Loaded | undefined {
    return intact(runId, 0, () => {
      const row = this.run(runId);
      return row && intact(runId, row.seq, () => this.#load(row, now, options));
    });
  }

  #load(row: RunTableRow, now: number, { at, whole = false, known }: LoadOptions): Loaded {
    const base = row.run * seqBits;
    const last = base + Math.min(at ?? row.seq, row.seq);
    const isKnown = row.head === known;
    const checkpoint =
      whole || isKnown
        ? undefined
        : this.prepare("SELECT id, ordinal, state FROM checkpoints WHERE id BETWEEN ? AND ? ORDER BY id DESC LIMIT 1").get(
            base,
            last,
          );
    const first = base + (row.archived_before ?? 0);
    if (!checkpoint && !isKnown && last < first) throw archivedError(row.run_id, last - base, first - base);
    const from = checkpoint ? (checkpoint.id as number) + 1 : first;
    return {
      row: runRow(row),
      ...(checkpoint
        ? {
            checkpoint: {
              seq: (checkpoint.id as number) - base,
              ordinal: checkpoint.ordinal as number,
              text: unpacked(checkpoint.state as string | Uint8Array),
            },
          }
        : {}),
      tail: isKnown ? [] : this.#recordsBetween(base, from, last),
      mail: this.mailOf(row, 0),
      ...(row.worker_id === null ? {} : { lease: { workerId: row.worker_id, epoch: row.epoch } }),
      ...(row.archived_before === null ? {} : { archivedBefore: row.archived_before }),
      ...(row.moving === null ? {} : { moving: movingOf(row) as Moving }),
      ...(row.blocked === null ? {} : { blocked: JSON.parse(row.blocked) as Blocked }),
      now,
    };
  }

  records(runId: string, from: number, limit: number): StoredRecord[] {
    const run = this.run(runId);
    if (!run || limit <= 0) return [];
    if (from < (run.archived_before ?? 0)) throw archivedError(runId, from, run.archived_before as number);
    const base = run.run * seqBits;
    return this.#recordsBetween(base, base + from, base + Math.min(from + limit - 1, run.seq));
  }

  #recordsBetween(base: number, from: number, to: number): StoredRecord[] {
    const rows = this.prepareArrays("SELECT id, header, body FROM records WHERE id BETWEEN ? AND ? ORDER BY id").all(from, to);
    return (rows as unknown as [number, string, string | Uint8Array | null][]).map(([id, header, body]) => ({
      seq: id - base,
      // Not stored: it is a function of the header, whose text is.
      hash: sha256(header),
      header,
      body: unpacked(body),
    }));
  }

  checkpoints(runId: string): Checkpoint[] {
    const run = this.run(runId);
    if (!run) return [];
    const base = run.run * seqBits;
    return this.prepare("SELECT id, ordinal, state FROM checkpoints WHERE id BETWEEN ? AND ? ORDER BY id")
      .all(base, base + seqBits - 1)
      .map(({ id, ordinal, state }) => ({
        seq: (id as number) - base,
        ordinal: ordinal as number,
        text: unpacked(state as string | Uint8Array),
      }));
  }

  mail(runId: string, after: number): Mail[] {
    const run = this.run(runId);
    return run ? this.mailOf(run, after) : [];
  }

  hasMail({ run }: Pick<RunTableRow, "run">, after: number): boolean {
    return (
      this.prepare(
        "SELECT 1 FROM mailbox INDEXED BY mailbox_open WHERE run = ? AND position > ? AND payload IS NOT NULL LIMIT 1",
      ).get(run, after) !== undefined
    );
  }

  /** @throws RECORD_CORRUPT */
  mailOf({ run, run_id, seq }: Pick<RunTableRow, "run" | "run_id" | "seq">, after: number): Mail[] {
    return this.prepare(
      "SELECT position, id, kind, key, payload, actor_id, at FROM mailbox INDEXED BY mailbox_open WHERE run = ? AND position > ? AND payload IS NOT NULL ORDER BY position",
    )
      .all(run, after)
      .map(({ position, id, kind, key, payload, actor_id, at }) => ({
        position: position as number,
        id: id as string,
        kind: kind as Mail["kind"],
        key: key as string,
        payload: intact(run_id, seq, () => parseJson(payload as string)),
        ...(actor_id === null ? {} : { actorId: actor_id as string }),
        at: at as number,
      }));
  }

  news(workerId: string, after: number): { runIds: string[]; position: number } {
    const { last } = this.prepare("SELECT max(position) AS last FROM mailbox").get() as { last: number | null };
    const position = last ?? 0;
    if (position <= after) return { runIds: [], position };
    // What came since is little when somebody looks often; what is held is little in any case.
    const rows =
      position - after <= 1_000
        ? this.prepare(
            `SELECT DISTINCT run_id FROM mailbox CROSS JOIN runs ON runs.run = mailbox.run
             WHERE position > ? AND payload IS NOT NULL AND worker_id = ?`,
          ).all(after, workerId)
        : this.prepare(
            `SELECT run_id FROM runs INDEXED BY runs_held WHERE worker_id = ?2 AND EXISTS (
               SELECT 1 FROM mailbox INDEXED BY mailbox_open WHERE mailbox.run = runs.run AND position > ?1 AND payload IS NOT NULL)`,
          ).all(after, workerId);
    return { runIds: rows.map((row) => row.run_id as string), position };
  }

  /** When `claim` would give this worker something: a run is due, a holder expires, or a block gives way to it. */
  nextDue(worker: Capability, lanes: Lanes, now: number): number | undefined {
    const { workerId, fingerprint } = worker;
    const due = firstDue(lanes.known(worker), this, slotsFor(worker, this, now), now);
    // A run that a dead worker holds in a queue is of use for its slot, too.
    const expiring = this.prepare(
      `SELECT max(?1, min(expires_at)) AS at FROM workers WHERE worker_id <> ?2 AND EXISTS (
         SELECT 1 FROM runs INDEXED BY runs_held WHERE runs.worker_id = workers.worker_id
           AND (${known} OR queue IN (SELECT value FROM json_each(?4))))`,
    ).get(now, workerId, workflowsOf(worker), queuesOf(worker));
    const lifted = this.lifting(
      worker,
      () =>
        this.prepare(`SELECT ?1 AS at FROM runs INDEXED BY runs_blocked WHERE ${liftable} LIMIT 1`).get(
          now,
          fingerprint,
          workflowsOf(worker),
          queuesOf(worker),
        ),
      (found) => found !== undefined,
    );
    const moments = [due, expiring?.at, lifted?.at].filter((at) => typeof at === "number");
    return moments.length === 0 ? undefined : Math.min(...moments);
  }

  /** Looks for blocks that give way to a worker, unless nothing was blocked since none was left. `left`: whether some are left. */
  lifting<T>(worker: Capability, look: () => T, left: (found: T) => boolean): T | undefined {
    const claimer = JSON.stringify([worker.fingerprint, workflowsOf(worker), queuesOf(worker)]);
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
}

export function movingOf({ moving }: Pick<RunTableRow, "moving">): Moving | undefined {
  if (moving === null) return undefined;
  const { token, phase, to } = JSON.parse(moving) as Moving;
  return { token, phase, to };
}

/** As of every database; what SQLite itself complains of is no damage to one run. @throws RECORD_CORRUPT */
export function intact<T>(runId: string, seq: number, read: () => T): T {
  return intactRow(runId, seq, read, isSqliteError);
}
