/** A run as it goes to another store, as of one moment. */
import type { Blocked } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import type { Scalar } from "../../kernel/query.ts";
import type { PostgresClient, Row, Statements } from "./connection.ts";
import { decode, encode } from "./encode.ts";
import { intact, runRow, letterOf, waitOf } from "../table-row.ts";
import type { RunTableRow } from "./read.ts";

/** Inside a transaction that sees one moment. */
export async function copyOf(statements: Statements, client: PostgresClient, runId: string): Promise<RunCopy | undefined> {
  const [row] = await statements.rows<RunTableRow>(client, "SELECT * FROM ~runs WHERE run_id = $1", [encode(runId)]);
  if (!row) return undefined;
  const of = (sql: string): Promise<Row[]> => statements.rows(client, sql, [row.run]);
  const kept = await of("SELECT seq, ordinal, state FROM ~checkpoints WHERE run = $1 ORDER BY seq");
  const waits = await of("SELECT * FROM ~waits WHERE run = $1 ORDER BY effect_id");
  const vars = await of("SELECT path, value FROM ~run_vars WHERE run = $1");
  const artifacts = await of("SELECT id FROM ~artifact_runs WHERE run = $1 ORDER BY id");
  const counters = await of("SELECT name, value FROM ~counters WHERE run = $1 ORDER BY name");
  const letters = await of("SELECT * FROM ~mailbox WHERE run = $1 ORDER BY position");
  return intact(runId, row.seq, () => ({
    row: { ...runRow(row), wakeAt: row.moving_token === null ? row.wake_at : row.moving_wake_at },
    epoch: row.epoch,
    waits: waits.map(waitOf),
    indexed: Object.fromEntries(vars.map(({ path, value }) => [path as string, JSON.parse(value as string) as Scalar])),
    checkpoints: kept
      .map(({ seq, ordinal, state }) => ({ seq, ordinal, text: state }) as Checkpoint)
      .filter(({ ordinal }, i) => ordinal === 0 || i === kept.length - 1),
    ...(row.archived_before === null ? {} : { archivedBefore: row.archived_before }),
    ...(row.blocked === null ? {} : { blocked: JSON.parse(row.blocked) as Blocked }),
    artifacts: artifacts.map(({ id }) => id as string),
    ...(counters.length > 0
      ? { counters: Object.fromEntries(counters.map(({ name, value }) => [decode(name as string), value as number])) }
      : {}),
    letters: letters.map(letterOf),
  }));
}
