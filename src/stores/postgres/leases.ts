/** Who drives which run: claims, and what ends a worker. Each is one statement, in a transaction of its own. */
import type { Blocked, Capability, Lease } from "../../kernel/transition.ts";
import type { PostgresClient, Row, Statements } from "./connection.ts";
import { arrayOf, encode } from "./encode.ts";
import { textsOf } from "./read.ts";
import { serverNow } from "./moment-sql.ts";

/** A run that was given to a worker. */
export interface Claimed {
  runId: string;
  lease: Lease;
}

export class Leases {
  readonly #statements: Statements;
  readonly #now: () => number | undefined;
  /** For each kind of claimer, the number of blocks at which none gave way to it: every claim would look at them all otherwise. */
  readonly #nothingToLift = new Map<string, number>();
  /** Claims that were given up without an answer, by worker: what they may have leased is freed by the next one. */
  readonly #unanswered = new Map<string, Set<string>>();

  constructor(statements: Statements, now: () => number | undefined) {
    this.#statements = statements;
    this.#now = now;
  }

  async renew(client: PostgresClient, workerId: string, ttlMs: number): Promise<number> {
    const sql = `INSERT INTO ~workers AS w VALUES ($1, coalesce($2, ${serverNow}) + $3)
      ON CONFLICT (worker_id) DO UPDATE SET expires_at = excluded.expires_at RETURNING w.expires_at - $3 AS moment`;
    const [row] = await this.#statements.rows(client, sql, [encode(workerId), this.#now(), ttlMs]);
    return row?.moment as number;
  }

  /** Answers whether it held anything. */
  async retire(client: PostgresClient, workerId: string): Promise<boolean> {
    const [row] = await this.#statements.rows(client, "SELECT freed FROM ~free($1, $2, NULL, true)", [
      this.#now(),
      encode(workerId),
    ]);
    this.#unanswered.delete(workerId);
    return (row?.freed as number) > 0;
  }

  /** @param claim Names this claim: made again after its answer was lost, it gives what it gave. */
  async claim(
    client: PostgresClient,
    worker: Capability,
    { limit, runId }: { limit: number; runId?: string },
    claim: string,
  ): Promise<{ claimed: Claimed[]; ready: boolean }> {
    const lost = [...(this.#unanswered.get(worker.workerId) ?? [])];
    const sql = `SELECT array_to_json(run_ids)::text AS run_ids, array_to_json(epochs)::text AS epochs, ready, block_count
      FROM ~claim($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`;
    const [row] = await this.#statements.rows(client, sql, [
      ...this.#claimer(worker),
      Math.min(limit, 100_000),
      runId === undefined ? null : encode(runId),
      claim,
      lost.length > 0 ? arrayOf(lost) : null,
    ]);
    for (const one of lost) this.#unanswered.get(worker.workerId)?.delete(one);
    this.#nothingToLift.set(kindOf(worker), row?.block_count as number);
    const epochs = JSON.parse(row?.epochs as string) as number[];
    const claimed = textsOf(row?.run_ids).map((runId, i) => ({
      runId,
      lease: { workerId: worker.workerId, epoch: epochs[i] as number },
    }));
    return { claimed, ready: row?.ready as boolean };
  }

  /** Nobody knows whether this claim was carried out. */
  forget(workerId: string, claim: string): void {
    const unanswered = this.#unanswered.get(workerId) ?? new Set();
    this.#unanswered.set(workerId, unanswered.add(claim));
  }

  async nextDue(client: PostgresClient, worker: Capability): Promise<{ at: number | undefined; now: number }> {
    const sql = "SELECT due, moment, block_count FROM ~next_due($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    const [row] = await this.#statements.rows<{ due: number | null; moment: number }>(client, sql, this.#claimer(worker));
    return { at: row?.due ?? undefined, now: row?.moment as number };
  }

  /** Takes runs that cannot be read out of the way. Nothing of them is read for that. */
  async quarantine(client: PostgresClient, { runId, lease }: Claimed, problem: string, fingerprint: string): Promise<Row[]> {
    const blocked: Blocked = { code: "RECORD_CORRUPT", problem, fingerprint, quarantine: true };
    const sql = `UPDATE ~runs SET worker_id = NULL, rested_at = updated_at, blocked = $1, quarantined = true, tried = ARRAY[$2::text]
      WHERE run_id = $3 AND worker_id = $4 AND epoch = $5`;
    const values = [JSON.stringify(blocked), encode(fingerprint), encode(runId), encode(lease.workerId), lease.epoch];
    return this.#statements.rows(client, sql, values);
  }

  /** The arguments that `claim` and `next_due` have in common. */
  #claimer(worker: Capability): unknown[] {
    const { workerId, fingerprint, workflows, queues = {} } = worker;
    const names = Object.keys(queues);
    const limits = names.map((name) => queues[name]);
    return [
      this.#now(),
      encode(workerId),
      encode(fingerprint),
      workflows ? arrayOf(workflows) : null,
      this.#nothingToLift.get(kindOf(worker)) ?? -1,
      arrayOf(names),
      arrayOf(limits.map((limit) => limit?.concurrency)),
      arrayOf(limits.map((limit) => limit?.keyConcurrency)),
      arrayOf(limits.map((limit) => limit?.rateLimit?.limit)),
      arrayOf(limits.map((limit) => limit?.rateLimit?.periodMs)),
    ];
  }
}

function kindOf({ fingerprint, workflows, queues }: Capability): string {
  return JSON.stringify([fingerprint, workflows, Object.keys(queues ?? {})]);
}
