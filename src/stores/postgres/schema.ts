/**
 * How a schema comes to have its tables. Each migration is recorded with the transaction that made it, under a lock, so that none
 * is ever half done, and any number of processes may open a new store at once. A schema with a higher number was written by newer
 * code and is refused. Functions are code, not data: each text has its own name, and workers of two versions share a store.
 */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { sha256 } from "../../kernel/record.ts";
import { applySql } from "./apply-sql.ts";
import { claimSql } from "./claim-sql.ts";
import { nextDueSql } from "./due-sql.ts";
import { freeSql, newsSql } from "./free-sql.ts";
import { lockOf, type PostgresClient, Sql } from "./connection.ts";
import { reserveSql } from "./counters.ts";
import { loadSql } from "./load-sql.ts";
import { stepSql } from "./step-sql.ts";
import { migrations } from "./tables.ts";

/** By name. */
const functions: Readonly<Record<string, string>> = {
  free: freeSql,
  claim: claimSql,
  next_due: nextDueSql,
  news: newsSql,
  load: loadSql,
  apply: applySql,
  step: stepSql,
  reserve: reserveSql,
};

const suffix = sha256(Object.values(functions).join("\n")).slice(0, 12);

export function sqlFor(schema: string): Sql {
  return new Sql(schema, Object.keys(functions), suffix);
}

interface Found {
  schema_exists: boolean;
  others: number;
  version: number | null;
  functions: boolean;
  isolation: string;
}

/** Brings a schema to its present form. @throws FORMAT_NEWER, STORE_CORRUPT */
export async function migrate(client: PostgresClient, sql: Sql, schema: string, name: string): Promise<void> {
  const found = await look(client, sql, schema);
  if (found.isolation !== "read committed") {
    const problem = `transactions of its role are "${found.isolation}" by default, and it needs "read committed": ALTER ROLE ... SET default_transaction_isolation`;
    throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: name, problem });
  }
  if (isPresent(found, name)) return;
  await client.query("BEGIN");
  try {
    await client.query(`SELECT pg_advisory_xact_lock(${lockOf("migrations")}, ${lockOf(schema)})`);
    // Read again under the lock: another process may have migrated meanwhile.
    const locked = await look(client, sql, schema);
    if (!isPresent(locked, name)) {
      if (!locked.schema_exists) await client.query(`CREATE SCHEMA "${schema}"`);
      const known = locked.version ?? 0;
      if (locked.version === null)
        await client.query(
          sql.of("CREATE TABLE ~migrations (version int PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())").text,
        );
      for (let version = known; version < migrations.length; version++) {
        await client.query(sql.of(migrations[version] as string).text);
        await client.query(sql.of(`INSERT INTO ~migrations (version) VALUES (${version + 1})`).text);
      }
      if (!locked.functions) for (const text of Object.values(functions)) await client.query(sql.of(text).text);
    }
    await client.query("COMMIT");
  } catch (error) {
    await client.query("ROLLBACK").catch(() => undefined);
    throw error;
  }
}

function isPresent({ others, version, functions, schema_exists }: Found, name: string): boolean {
  if (version !== null && version > migrations.length)
    throw new AbstractRuntimeError("FORMAT_NEWER", { what: `the store ${name}`, found: version, known: migrations.length });
  if (version === null && schema_exists && others > 0) {
    const problem = "its schema has tables, but no record of how they were made; choose another `schema`, or restore this one";
    throw new AbstractRuntimeError("STORE_CORRUPT", { store: name, problem });
  }
  return version === migrations.length && functions;
}

async function look(client: PostgresClient, sql: Sql, schema: string): Promise<Found> {
  const { rows } = await client.query({
    text: `SELECT to_regnamespace('"${schema}"') IS NOT NULL AS schema_exists,
      (SELECT count(*)::int FROM pg_class c WHERE c.relnamespace = to_regnamespace('"${schema}"') AND c.relkind IN ('r', 'p')) AS others,
      to_regclass('"${schema}".migrations') IS NOT NULL AS recorded,
      (SELECT count(*)::int FROM pg_proc p WHERE p.pronamespace = to_regnamespace('"${schema}"') AND p.proname = ANY ($1)) AS functions,
      current_setting('transaction_isolation') AS isolation`,
    values: [Object.keys(functions).map((name) => `${name}_${suffix}`)],
  });
  const [row] = rows;
  let version: number | null = null;
  if (row.recorded) {
    const { rows: versions } = await client.query({ text: sql.of("SELECT max(version) AS version FROM ~migrations").text });
    version = versions[0].version;
  }
  return { ...row, version, functions: row.functions === Object.keys(functions).length };
}
