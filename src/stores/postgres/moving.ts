/** Runs on their way between two stores. In transactions; rows of runs are locked in the order of their ids. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { Moving, RunCopy } from "../../kernel/moving.ts";
import { isOver } from "../ended.ts";
import {
  checkLength,
  checkAdoption,
  checkArriving,
  checkFollows,
  checkWhole,
  fenceObstacle,
  movesOf,
  leftBehind,
  type Move,
  type MoveUnderWay,
  phasesOf,
  type Refusal,
  withoutParent,
  existsHere,
} from "../moving.ts";
import { lastSeq, laneOf } from "./calls.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { arrayOf, encode, jsonOf } from "./encode.ts";
import { codeOf } from "./errors.ts";
import type { Lanes } from "./lanes.ts";
import { movingOf, type RunTableRow } from "./read.ts";
import { bury, lockRuns, remove, tombstoneOf } from "./retention.ts";

/** In one transaction. */
export class Moves {
  readonly #statements: Statements;
  readonly #client: PostgresClient;
  readonly #now: number;
  /** Whether a run was made due, or a slot free. */
  ready = false;

  constructor(statements: Statements, client: PostgresClient, now: number) {
    this.#statements = statements;
    this.#client = client;
    this.#now = now;
  }

  async fence(runIds: readonly string[], { token, to }: Move): Promise<Refusal[]> {
    const among = new Set(runIds);
    const runs = new Map((await this.#lock(among)).map((run) => [run.run_id, run]));
    const parents = [...runs.values()].flatMap(({ parent_run_id }) => parent_run_id ?? []);
    const relatives = await this.#rows<RunTableRow>(
      `SELECT * FROM ~runs WHERE run_id = ANY ($1::text[]) UNION SELECT * FROM ~runs WHERE parent_run_id = ANY ($2::text[]) ORDER BY run`,
      [arrayOf(parents), arrayOf([...among])],
    );
    const stays = (run: RunTableRow): boolean => !among.has(run.run_id) && movingOf(run)?.phase !== "left";
    const refused: Refusal[] = [];
    for (const runId of among) {
      const run = runs.get(runId);
      const parentRunId = run?.parent_run_id ?? undefined;
      const obstacle = fenceObstacle(run && { moving: movingOf(run) }, token);
      if (obstacle !== undefined) refused.push({ runId, problem: obstacle });
      else if (parentRunId !== undefined && relatives.some((other) => other.run_id === parentRunId && stays(other)))
        refused.push({ runId, problem: withoutParent(parentRunId) });
      for (const child of relatives)
        if (child.parent_run_id === runId && stays(child)) refused.push({ runId: child.run_id, problem: leftBehind(runId) });
    }
    if (refused.length > 0) return refused;
    // Whoever held one is a stranger, here and at the other store.
    const sql = `UPDATE ~runs SET worker_id = NULL, rested_at = updated_at, epoch = epoch + 1, wake_at = NULL, moving_token = $2, moving_phase = 'leaving',
        moving_to = $3, moving_wake_at = CASE WHEN worker_id IS NULL THEN wake_at
          WHEN status IN ('running', 'waiting') OR (status = 'failed' AND EXISTS
            (SELECT FROM ~mailbox m WHERE m.run = runs.run AND m.payload IS NOT NULL)) THEN least(wake_at, $4::bigint) END
      WHERE run_id = ANY ($1::text[]) AND moving_token IS NULL`;
    await this.#rows(sql, [arrayOf([...among]), encode(token), encode(to), this.#now]);
    this.ready = [...runs.values()].some(({ worker_id, queue }) => worker_id !== null && queue !== null);
    return refused;
  }

  /** @throws RUN_EXISTS, RUN_MOVED, RUN_PURGED, RUN_TOO_LONG, ARTIFACT_MISSING */
  async adopt(copy: RunCopy, { token, to }: Move, lanes: Lanes): Promise<void> {
    const { row } = copy;
    const { runId } = row;
    const [present] = await this.#lock([runId]);
    const moving = present && movingOf(present);
    const tombstone = await tombstoneOf(this.#statements, this.#client, runId);
    checkAdoption(copy, token, present && { ...present, moving }, tombstone);
    checkLength(copy, lastSeq);
    await this.#checkArtifacts(runId, copy.artifacts);
    if (present && moving?.phase === "left") await bury(this.#statements, this.#client, this.#now, present);
    else if (present) await remove(this.#statements, this.#client, present);
    await this.#insert(copy, { token, to }, lanes);
  }

  async #checkArtifacts(runId: string, ids: readonly string[]): Promise<void> {
    if (ids.length === 0) return;
    const sql = "SELECT id FROM ~artifacts WHERE id = ANY ($1::text[]) ORDER BY id FOR UPDATE";
    const known = new Set((await this.#rows(sql, [arrayOf(ids)])).map(({ id }) => id));
    for (const artifactId of ids)
      if (!known.has(artifactId)) throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId, runId });
  }

  async #insert(copy: RunCopy, { token, to }: Move, lanes: Lanes): Promise<void> {
    const { row, blocked } = copy;
    const lane = lanes.of(laneOf(row, copy.epoch > 0));
    const columns: Record<string, unknown> = {
      run_id: row.runId,
      workflow_id: row.workflowId,
      version: row.version,
      status: row.status,
      paused: row.paused,
      node: row.node,
      step: row.step,
      seq: row.seq,
      head: row.head,
      lane,
      queue: row.queue,
      queue_key: row.queueKey,
      priority: row.priority,
      error: row.error && JSON.stringify(row.error),
      epoch: copy.epoch,
      blocked: blocked && JSON.stringify(blocked),
      quarantined: blocked?.quarantine ?? false,
      tried: blocked && [blocked.fingerprint],
      archived_before: copy.archivedBefore,
      moving_token: token,
      moving_phase: "arriving",
      moving_to: to,
      moving_wake_at: row.wakeAt,
      parent_run_id: row.parentRunId,
      tags: row.tags && JSON.stringify(row.tags),
      actor_id: row.actorId,
      session_id: row.sessionId,
      created_at: row.createdAt,
      updated_at: row.updatedAt,
      rested_at: row.updatedAt,
    };
    const names = Object.keys(columns).join(", ");
    const insert = `INSERT INTO ~runs (run, ${names}) SELECT nextval('~run_numbers'), ${names}
      FROM json_populate_record(NULL::~runs, $1::json) RETURNING run`;
    const [{ run } = {}] = await this.#rows(insert, [jsonOf(columns)]).catch((error: unknown) => {
      // Created since we looked.
      throw codeOf(error) === "23505" ? existsHere(row.runId) : error;
    });
    const given: [table: string, columns: string, types: string, rows: unknown[]][] = [
      ["run_tags", "tag", "tag text", (row.tags ?? []).map((tag) => ({ tag }))],
      [
        "run_vars",
        "path, value",
        "path text, value text",
        Object.entries(copy.indexed).map(([path, value]) => ({ path, value: JSON.stringify(value) })),
      ],
      [
        "waits",
        "effect_id, wait_key, reason, since, until",
        "effect_id text, wait_key text, reason text, since bigint, until bigint",
        copy.waits.map(({ effectId, waitKey, ...wait }) => ({ effect_id: effectId, wait_key: waitKey, ...wait })),
      ],
      [
        "checkpoints",
        "seq, ordinal, state",
        "seq int, ordinal int, state text",
        copy.checkpoints.map(({ text, ...c }) => ({ ...c, state: text })),
      ],
      [
        "counters",
        "name, value",
        "name text, value double precision",
        Object.entries(copy.counters ?? {}).map(([name, value]) => ({ name, value })),
      ],
      ["artifact_runs", "id", "id text", [...new Set(copy.artifacts)].map((id) => ({ id }))],
      [
        "mailbox",
        "id, kind, key, payload, recalled, digest, actor_id, at",
        "n int, id text, kind text, key text, payload text, recalled boolean, digest text, actor_id text, at bigint",
        copy.letters.map(({ state, payload = null, actorId, ...letter }, n) => ({
          n,
          ...letter,
          actor_id: actorId,
          payload: state === "open" ? JSON.stringify(payload) : null,
          recalled: state === "recalled",
        })),
      ],
    ];
    for (const [table, names, types, rows] of given) {
      if (rows.length === 0) continue;
      const order = table === "mailbox" ? "ORDER BY n" : "";
      const sql = `INSERT INTO ~${table} (run, ${names}) SELECT $1, ${names} FROM json_to_recordset($2::json) AS g (${types}) ${order}
        ${table === "run_tags" ? "ON CONFLICT DO NOTHING" : ""}`;
      await this.#rows(sql, [run, jsonOf(rows)]);
    }
  }

  /** @throws CONFLICT */
  async adoptRecords(runId: string, token: string, given: readonly StoredRecord[]): Promise<void> {
    const [run] = await this.#lock([runId]);
    const moving = run && movingOf(run);
    checkArriving(runId, run, moving, token);
    const sql = "SELECT seq, header FROM ~records WHERE run = $1 AND seq = ANY ($2::int[])";
    const here = await this.#rows(sql, [run.run, arrayOf(given.map(({ seq }) => seq))]);
    const headers = new Map(here.map(({ seq, header }) => [seq as number, header as string]));
    const records = given.filter(({ seq, header }) => headers.get(seq) !== header);
    const next = await this.#nextSeq(run);
    checkFollows(runId, records, next, run.seq);
    const insert = "INSERT INTO ~records SELECT $1, u.* FROM unnest($2::int[], $3::text[], $4::text[]) u";
    const columns = [records.map((r) => r.seq), records.map((r) => r.header), records.map((r) => r.body)];
    await this.#rows(insert, [run.run, ...columns.map((column) => arrayOf(column))]);
  }

  async #nextSeq({ run, archived_before }: RunTableRow): Promise<number> {
    const [row] = await this.#rows("SELECT max(seq) AS last FROM ~records WHERE run = $1", [run]);
    return typeof row?.last === "number" ? row.last + 1 : (archived_before ?? 0);
  }

  /** @throws CONFLICT when a run that is to be here has not arrived whole. */
  async settle(token: string, to: keyof typeof phasesOf): Promise<string[]> {
    const sql = "SELECT * FROM ~runs WHERE moving_token = $1 ORDER BY run_id FOR UPDATE";
    const runs = await this.#rows<RunTableRow>(sql, [encode(token)]);
    const decided = runs.filter(({ moving_phase }) => phasesOf[to].includes(moving_phase as Moving["phase"]));
    for (const run of to === "here" ? decided : []) checkWhole(run.run_id, await this.#nextSeq(run), run.seq);
    for (const run of decided) {
      if (to === "left") await this.#leave(run);
      else if (to === "back" && run.moving_phase === "arriving") await remove(this.#statements, this.#client, run);
      else await this.#goOn(run);
    }
    return decided.sort((a, b) => a.run - b.run).map(({ run_id }) => run_id);
  }

  async #leave({ run }: RunTableRow): Promise<void> {
    await this.#rows("UPDATE ~runs SET moving_phase = 'left' WHERE run = $1", [run]);
    await this.#rows("DELETE FROM ~waits WHERE run = $1", [run]);
  }

  /** A run is this store's from now on. */
  async #goOn(row: RunTableRow): Promise<void> {
    const { run, moving_wake_at: wakeAt } = row;
    const now = this.#now;
    const [mail] = await this.#rows("SELECT 1 AS one FROM ~mailbox WHERE run = $1 AND payload IS NOT NULL LIMIT 1", [run]);
    const wakesAt = isOver(row) ? null : mail ? Math.min(wakeAt ?? now, now) : wakeAt;
    const sql = `UPDATE ~runs SET moving_token = NULL, moving_phase = NULL, moving_to = NULL, moving_wake_at = NULL, wake_at = $2
      WHERE run = $1`;
    await this.#rows(sql, [run, wakesAt]);
    await this.#rows("DELETE FROM ~tombstones WHERE run_id = $1", [encode(row.run_id)]);
    // A block that nobody's code has been compared with since.
    if (row.blocked !== null) await this.#rows("UPDATE ~blocks SET count = count + 1", []);
    if (wakesAt !== null) this.ready = true;
  }

  #lock(runIds: Iterable<string>): Promise<RunTableRow[]> {
    return lockRuns(this.#statements, this.#client, runIds);
  }

  #rows<T = Record<string, unknown>>(sql: string, values: readonly unknown[]): Promise<T[]> {
    return this.#statements.rows<T>(this.#client, sql, values);
  }
}

export async function movesUnderWay(statements: Statements, client: PostgresClient): Promise<MoveUnderWay[]> {
  const sql = "SELECT * FROM ~runs WHERE moving_token IS NOT NULL AND moving_phase <> 'left' ORDER BY run";
  const rows = await statements.rows<RunTableRow>(client, sql);
  return movesOf(rows.map((row) => ({ runId: row.run_id, moving: movingOf(row) })));
}
