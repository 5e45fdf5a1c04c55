/** A run as it goes to another store, as of one moment. */
import { parseJson } from "../../kernel/json.ts";
import type { OpenWait } from "../../kernel/run.ts";
import type { Blocked } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { Letter } from "../../kernel/message.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import type { Scalar } from "../../kernel/query.ts";
import type { PostgresClient, Row, Statements } from "./connection.ts";
import { encode } from "./encode.ts";
import { intact, type RunTableRow, runRow } from "./read.ts";

/** Inside a transaction that sees one moment. */
export async function copyOf(statements: Statements, client: PostgresClient, runId: string): Promise<RunCopy | undefined> {
  const [row] = await statements.rows<RunTableRow>(client, "SELECT * FROM ~runs WHERE run_id = $1", [encode(runId)]);
  if (!row) return undefined;
  const of = (sql: string): Promise<Row[]> => statements.rows(client, sql, [row.run]);
  const kept = await of("SELECT seq, ordinal, state FROM ~checkpoints WHERE run = $1 ORDER BY seq");
  const waits = await of("SELECT * FROM ~waits WHERE run = $1 ORDER BY effect_id");
  const vars = await of("SELECT path, value FROM ~run_vars WHERE run = $1");
  const artifacts = await of("SELECT id FROM ~artifact_runs WHERE run = $1 ORDER BY id");
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
    letters: letters.map(letterOf),
  }));
}

export function waitOf({ effect_id, wait_key, reason, since, until }: Row): OpenWait {
  return {
    effectId: effect_id as string,
    waitKey: wait_key as string,
    reason: reason as OpenWait["reason"],
    since: since as number,
    ...(until === null ? {} : { until: until as number }),
  };
}

function letterOf({ id, kind, key, payload, recalled, digest, actor_id, at }: Row): Letter {
  return {
    id: id as string,
    kind: kind as Letter["kind"],
    key: key as string,
    ...(actor_id === null ? {} : { actorId: actor_id as string }),
    at: at as number,
    digest: digest as string,
    ...(payload === null
      ? { state: recalled ? ("recalled" as const) : ("taken" as const) }
      : { state: "open" as const, payload: parseJson(payload as string) }),
  };
}
