/** A database of the user's, in which a store keeps its runs: a SQLite file, or a Postgres database. */
import { DatabaseSync } from "node:sqlite";
import type { Clock, Store } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import type { Client } from "pg";

export type Row = Record<string, unknown>;

/** Sees every question and its answer. */
type Watch = <T>(answer: Promise<T>) => Promise<T>;

export class UserDatabase implements AsyncDisposable {
  readonly client: DatabaseSync | Client;
  readonly #schema: string;
  readonly #watch: Watch;

  constructor(client: DatabaseSync | Client, schema: string, watch: Watch) {
    this.client = client;
    this.#schema = schema;
    this.#watch = watch;
  }

  /** A table stands in the text as `~name`, a value as `$1`. */
  query(text: string, ...values: (string | number)[]): Promise<Row[]> {
    return this.on(this.client, text, ...values);
  }

  /** On whatever a handler was given. */
  on(client: unknown, text: string, ...values: (string | number)[]): Promise<Row[]> {
    return this.#watch(query(client, text.replaceAll("~", this.#schema), values));
  }

  async begin(): Promise<void> {
    await this.query(this.client instanceof DatabaseSync ? "BEGIN IMMEDIATE" : "BEGIN");
  }

  async commit(): Promise<void> {
    await this.query("COMMIT");
  }

  async rollback(): Promise<void> {
    await this.query("ROLLBACK");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.client instanceof DatabaseSync) this.client.close();
    else await this.client.end();
  }
}

/** @param address As `--store` takes it. The tables are in the schema that it names. */
export async function userDatabase(address: string, watch: Watch = (answer) => answer): Promise<UserDatabase> {
  if (address.startsWith("sqlite:")) return new UserDatabase(new DatabaseSync(address.slice("sqlite:".length)), "", watch);
  const { default: pg } = await import("pg");
  const { connectionString, schema } = placeOf(address);
  const client = new pg.Client({ connectionString });
  // A test may end the server; what is asked then says so.
  client.on("error", () => undefined);
  await client.connect();
  return new UserDatabase(client, schema === undefined ? "" : `"${schema}".`, watch);
}

async function query(client: unknown, text: string, values: (string | number)[]): Promise<Row[]> {
  if (!(client instanceof DatabaseSync)) return (await (client as Client).query(text, values)).rows as Row[];
  const rows = client.prepare(text.replace(/\$(\d)/g, "?$1")).all(...values);
  return rows.map((row) => ({ ...row }));
}

/** The store in it. */
export async function storeAt(address: string, options: { clock?: Clock } = {}): Promise<Store> {
  if (address.startsWith("sqlite:")) return sqliteStore(address.slice("sqlite:".length), options);
  const { postgresStore } = await import("abstractruntime/postgres");
  return postgresStore({ ...placeOf(address), ...options });
}

function placeOf(address: string): { connectionString: string; schema?: string } {
  const url = new URL(address);
  const schema = url.searchParams.get("schema");
  url.searchParams.delete("schema");
  return { connectionString: url.href, ...(schema === null ? {} : { schema }) };
}
