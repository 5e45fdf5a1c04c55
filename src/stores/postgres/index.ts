/**
 * The store for many machines: one schema of a PostgreSQL database.
 *
 * G1. The calls of a turn are one group, and a group is one round trip: a function on the server checks the guards of each call in
 *     order and writes those that pass. A call whose guard fails is skipped alone.
 * G2. Rows of runs are locked in the order of their ids, before anything is read of them (S5).
 * G3. A lost connection, a restarted server and a transaction that stands in the way are waited for; they are no run's failure. What
 *     may have been carried out is made again in a way that it is carried out once (S2, S4).
 * G4. Nothing is kept on a connection between transactions, so that a pooler may stand in between.
 */
import type { Clock } from "../../kernel/clock.ts";
import { checkOptions, invalidOption } from "../../kernel/errors.ts";
import type { Store } from "../../kernel/store.ts";
import type { ListeningClient } from "./bell.ts";
import { driver, identitySql, openPool, type PostgresPool, Statements } from "./connection.ts";
import { Database } from "./database.ts";
import { isStarting, storeError } from "./errors.ts";
import { migrate, sqlFor } from "./schema.ts";
import { PostgresStore } from "./store.ts";

export type { PostgresClient, PostgresPool } from "./connection.ts";

export interface PostgresOptions {
  /** Where the database is, such as `postgres://user:password@host:5432/database`. Either this or `pool`. */
  connectionString?: string;
  /** A pool of `pg`, which the store uses and does not end. */
  pool?: PostgresPool;
  /** The schema that holds the tables; it is made where it is missing. Default: "abstractruntime". */
  schema?: string;
  /** Connections of a pool of its own. Transactional effects need two. Default: 10. */
  connections?: number;
  /**
   * Where to listen for what other processes say, which needs a connection to the server itself: behind a pooler, name the server.
   * Default: as the others. `false`: nowhere; what others do is then found by looking.
   */
  listen?: string | false;
  /** Whether statements are prepared. `false` for a pooler that does not know them (PgBouncer before 1.21). Default: true. */
  prepare?: boolean;
  /** How long a lost connection or a locked run is waited for, in milliseconds, before STORE_UNAVAILABLE or STORE_BUSY. Default: 30,000. */
  busyTimeoutMs?: number;
  /** The clock that runs are scheduled by. Default: the server's. */
  clock?: Clock;
}

/**
 * Opens a store.
 *
 * @throws STORE_UNAVAILABLE, STORE_CORRUPT, FORMAT_NEWER, INVALID_OPTION
 */
export async function postgresStore(options: PostgresOptions): Promise<Store> {
  if (typeof options !== "object")
    throw invalidOption("connectionString", "its options are an object: postgresStore({ connectionString })");
  const known = ["connectionString", "pool", "schema", "connections", "listen", "prepare", "busyTimeoutMs", "clock"];
  checkOptions(options, known, "postgresStore()");
  const { connectionString, schema = "abstractruntime", connections = 10, listen, prepare = true, clock } = options;
  if ((connectionString === undefined) === (options.pool === undefined))
    throw invalidOption("connectionString", "postgresStore() takes either a connectionString or a pool");
  if (options.pool !== undefined && (typeof options.pool?.connect !== "function" || typeof options.pool.on !== "function"))
    throw invalidOption("pool", "pool must be a pool of `pg`");
  if (!/^[a-z_][a-z0-9_]{0,62}$/i.test(schema))
    throw invalidOption(
      "schema",
      `"${schema}" cannot be the name of a schema here: use letters, digits and underscores, at most 63`,
    );
  const name = `${connectionString === undefined ? "postgres" : withoutPassword(connectionString)} (schema ${schema})`;
  const pool = options.pool ?? (await openPool(connectionString as string, connections));
  // A connection that is lost while nobody uses it: the next use opens another.
  const ignored = (): void => undefined;
  pool.on("error", ignored);
  const close = async (): Promise<void> => {
    if (options.pool === undefined) await pool.end();
    else pool.off("error", ignored);
  };
  const statements = new Statements(sqlFor(schema), prepare);
  const database = new Database(pool, name, options.busyTimeoutMs ?? 30_000, statements);
  try {
    // A wrong address is told at once. A server that is starting is waited for.
    await database.run(
      async (client) => {
        await migrate(client, statements.sql, schema, name);
        // Not prepared: a pooler is noticed by the first call.
        statements.contentsId = (await statements.rows(client, identitySql, [], true))[0]?.id as string;
      },
      (error) => !isStarting(error),
    );
  } catch (error) {
    database.close();
    await close();
    throw storeError(error, name);
  }
  const connect = listen === false ? undefined : listeningClient(listen ?? connectionString, pool);
  return new PostgresStore(name, schema, statements, database, clock, connect, close);
}

/** Whether a schema has a store in it. Makes nothing. @throws What the driver says when the server cannot be asked. */
export async function hasStore({
  connectionString,
  schema = "abstractruntime",
}: {
  connectionString: string;
  schema?: string;
}): Promise<boolean> {
  const pool = await openPool(connectionString, 1);
  try {
    const client = await pool.connect();
    const { rows } = await client
      .query({ text: "SELECT to_regclass(quote_ident($1) || '.migrations') IS NOT NULL AS found", values: [schema] })
      .finally(() => client.release());
    return rows[0].found;
  } finally {
    await pool.end();
  }
}

/** What makes the connection that listens; undefined where none can be made. */
function listeningClient(connectionString: string | undefined, pool: PostgresPool): (() => Promise<ListeningClient>) | undefined {
  if (connectionString !== undefined)
    return async () => new (await driver()).Client({ connectionString, keepAlive: true }) as unknown as ListeningClient;
  const { Client, options } = pool as { Client?: new (options: unknown) => ListeningClient; options?: unknown };
  return Client && options ? async () => new Client(options) : undefined;
}

function withoutPassword(connectionString: string): string {
  try {
    const url = new URL(connectionString);
    return `postgres://${url.host}${url.pathname}`;
  } catch {
    return "postgres";
  }
}
