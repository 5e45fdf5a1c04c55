/** Everything the store answers without writing, but for lists. */
import { type AbstractRuntimeError, isError } from "../../kernel/errors.ts";
import { type StoredRecord, sha256 } from "../../kernel/record.ts";
import type { Blocked, Loaded } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { Mail } from "../../kernel/message.ts";
import type { Moving } from "../../kernel/moving.ts";
import { archivedError } from "../retention.ts";
import { intact, type RunColumns, runRow } from "../table-row.ts";
import { type MailRow, mailOf } from "./answers.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { arrayOf, decoded, encode } from "./encode.ts";

/** A row of `runs`. */
export interface RunTableRow extends RunColumns {
  paused: boolean;
  moving_token: string | null;
  moving_phase: Moving["phase"] | null;
  moving_to: string | null;
  moving_wake_at: number | null;
}

/** A run, or why it cannot be read. */
type LoadedOrNot = { runId: string } & ({ loaded: Loaded } | { error: AbstractRuntimeError<"RECORD_CORRUPT"> });

interface Part {
  what: "run" | "checkpoint" | "record" | "mail";
  of_run: string;
  seq: number;
  a: string;
  b: string | null;
}

const latest = 2 ** 31 - 1;

export class Reader {
  readonly #statements: Statements;

  constructor(statements: Statements) {
    this.#statements = statements;
  }

  /** Runs that exist, in the order in which they are asked for. @param options.known Heads, of whichever run. */
  async load(
    client: PostgresClient,
    now: number | undefined,
    runIds: readonly string[],
    { at = latest, whole = false, known = [] }: { at?: number; whole?: boolean; known?: readonly string[] } = {},
  ): Promise<LoadedOrNot[]> {
    const values = [now, arrayOf(runIds), Math.min(at, latest), whole, arrayOf(known)];
    const parts = new Map<string, Part[]>();
    for (const part of await this.#statements.rows<Part>(client, "SELECT * FROM ~load($1, $2, $3, $4, $5)", values)) {
      const ofRun = parts.get(part.of_run);
      if (ofRun) ofRun.push(part);
      else parts.set(part.of_run, [part]);
    }
    return runIds.flatMap((runId) => {
      const ofRun = parts.get(runId);
      if (!ofRun) return [];
      try {
        return { runId, loaded: intact(runId, ofRun[0]?.seq ?? 0, () => loadedOf(runId, ofRun, at, known)) };
      } catch (error) {
        if (isError(error, "RECORDS_ARCHIVED")) throw error;
        return { runId, error: error as AbstractRuntimeError<"RECORD_CORRUPT"> };
      }
    });
  }

  async records(client: PostgresClient, runId: string, from: number, limit: number): Promise<StoredRecord[]> {
    if (limit <= 0) return [];
    const sql = `SELECT r.archived_before, d.seq, d.header, d.body FROM ~runs r
      LEFT JOIN ~records d ON d.run = r.run AND d.seq BETWEEN $2 AND $3 WHERE r.run_id = $1 ORDER BY d.seq`;
    const to = Math.min(from + limit - 1, latest);
    const rows = await this.#statements.rows(client, sql, [encode(runId), Math.max(from, 0), to]);
    const before = (rows[0]?.archived_before as number | null | undefined) ?? 0;
    if (from < before) throw archivedError(runId, from, before);
    return rows
      .filter(({ seq }) => seq !== null)
      .map(({ seq, header, body }) => recordOf(seq as number, header as string, body as string | null));
  }

  async checkpoints(client: PostgresClient, runId: string): Promise<Checkpoint[]> {
    const sql = `SELECT c.seq, c.ordinal, c.state FROM ~runs r JOIN ~checkpoints c ON c.run = r.run
      WHERE r.run_id = $1 ORDER BY c.seq`;
    const rows = await this.#statements.rows<{ seq: number; ordinal: number; state: string }>(client, sql, [encode(runId)]);
    return rows.map(({ seq, ordinal, state }) => ({ seq, ordinal, text: state }));
  }

  async mail(client: PostgresClient, runId: string, after: number): Promise<Mail[]> {
    const sql = `SELECT r.seq, m.position, m.id, m.kind, m.key, m.payload, m.at, m.actor_id FROM ~runs r JOIN ~mailbox m ON m.run = r.run
      WHERE r.run_id = $1 AND m.position > $2 AND m.payload IS NOT NULL ORDER BY m.position`;
    const rows = await this.#statements.rows(client, sql, [encode(runId), after]);
    return rows.map((row) =>
      mailOf([row.position, row.id, row.kind, row.key, row.payload, row.at, row.actor_id] as MailRow, runId, row.seq as number),
    );
  }

  async news(client: PostgresClient, workerId: string, after: number): Promise<{ runIds: string[]; position: number }> {
    const sql = "SELECT array_to_json(run_ids)::text AS run_ids, last FROM ~news($1, $2)";
    const [row] = await this.#statements.rows(client, sql, [encode(workerId), after]);
    return { runIds: textsOf(row?.run_ids), position: row?.last as number };
  }
}

/** Texts that came as one JSON array. */
export function textsOf(json: unknown): string[] {
  return decoded(json as string) as string[];
}

function recordOf(seq: number, header: string, body: string | null): StoredRecord {
  // The hash is not stored: it is a function of the header, whose text is.
  return { seq, hash: sha256(header), header, body };
}

function loadedOf(runId: string, parts: readonly Part[], at: number, known: readonly string[]): Loaded {
  const [first] = parts as [Part];
  const row = decoded(first.a) as RunTableRow;
  const checkpoint = parts.find(({ what }) => what === "checkpoint");
  const before = row.archived_before ?? 0;
  const last = Math.min(at, row.seq);
  if (!checkpoint && last < before && !known.includes(row.head)) throw archivedError(runId, last, before);
  return {
    row: runRow(row),
    ...(checkpoint ? { checkpoint: { seq: checkpoint.seq, ordinal: Number(checkpoint.b), text: checkpoint.a } } : {}),
    tail: parts.filter(({ what }) => what === "record").map(({ seq, a, b }) => recordOf(seq, a, b)),
    mail: parts.filter(({ what }) => what === "mail").map(({ a }) => mailOf(decoded(a) as MailRow, runId, row.seq)),
    ...(row.worker_id === null ? {} : { lease: { workerId: row.worker_id, epoch: row.epoch } }),
    ...(row.archived_before === null ? {} : { archivedBefore: row.archived_before }),
    ...(row.moving_token === null ? {} : { moving: movingOf(row) as Moving }),
    ...(row.blocked === null ? {} : { blocked: JSON.parse(row.blocked) as Blocked }),
    now: Number(first.b),
  };
}

export function movingOf({ moving_token, moving_phase, moving_to }: RunTableRow): Moving | undefined {
  if (moving_token === null) return undefined;
  return { token: moving_token, phase: moving_phase as Moving["phase"], to: moving_to as string };
}
