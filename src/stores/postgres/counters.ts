/** Counters of runs. */
import type { CounterChange } from "../../kernel/transition.ts";
import { lockTimeoutMs } from "./apply-parameters.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import { arrayOf, decode, encode } from "./encode.ts";

/** Adds all, or answers the number of the first for which there is no room, from 1. Those of runs that are not here are not kept. */
export const reserveSql = `
CREATE FUNCTION ~reserve (n_run text[], n_name text[], n_add double precision[], n_limit double precision[])
RETURNS int LANGUAGE plpgsql SET enable_seqscan = off SET lock_timeout = '${lockTimeoutMs}ms'
AS $reserve$
#variable_conflict use_column
DECLARE
  numbers bigint[] := ARRAY(SELECT (SELECT run FROM ~runs WHERE run_id = u.id) FROM unnest(n_run) WITH ORDINALITY u(id, n) ORDER BY u.n);
  refused int;
BEGIN
  INSERT INTO ~counters SELECT u.run, u.name, 0 FROM unnest(numbers, n_name) u(run, name)
    WHERE u.run IS NOT NULL ORDER BY u.run, u.name ON CONFLICT DO NOTHING;
  -- In order, so that nobody waits crosswise. What is locked here is seen below as it was left by whoever had it before.
  PERFORM FROM ~counters c JOIN unnest(numbers, n_name) u(run, name) ON c.run = u.run AND c.name = u.name
    ORDER BY c.run, c.name FOR UPDATE OF c;
  SELECT min(u.n) INTO refused
    FROM unnest(numbers, n_name, n_add, n_limit) WITH ORDINALITY u(run, name, change, highest, n)
    JOIN ~counters c ON c.run = u.run AND c.name = u.name WHERE c.value + u.change > u.highest;
  IF refused IS NULL THEN
    UPDATE ~counters c SET value = c.value + u.change FROM unnest(numbers, n_name, n_add) u(run, name, change)
      WHERE c.run = u.run AND c.name = u.name;
  END IF;
  RETURN refused;
END
$reserve$`;

/** Answers what there is no room for, or undefined when all was added. */
export async function reserve(
  statements: Statements,
  client: PostgresClient,
  changes: readonly CounterChange[],
): Promise<CounterChange | undefined> {
  const columns = [
    changes.map(({ runId }) => runId),
    changes.map(({ name }) => name),
    changes.map(({ add }) => add),
    changes.map(({ limit }) => limit),
  ];
  const sql = "SELECT ~reserve($1, $2, $3, $4) AS refused";
  const [row] = await statements.rows(client, sql, columns.map(arrayOf));
  return typeof row?.refused === "number" ? changes[row.refused - 1] : undefined;
}

export async function countersOf(statements: Statements, client: PostgresClient, runId: string): Promise<Record<string, number>> {
  const sql = "SELECT name, value FROM ~counters JOIN ~runs USING (run) WHERE run_id = $1 AND value <> 0 ORDER BY name";
  const rows = await statements.rows(client, sql, [encode(runId)]);
  return Object.fromEntries(rows.map(({ name, value }) => [decode(name as string), value as number]));
}
