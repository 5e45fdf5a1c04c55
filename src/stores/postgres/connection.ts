/**
 * Statements on connections of a pool. No connection keeps anything from one transaction to the next: no settings, no locks, no
 * temporary tables, so that a pooler may give each transaction another one. Prepared statements are the exception; see `prepare`.
 */
import { AbstractRuntimeError, isError } from "../../kernel/errors.ts";
import { sha256 } from "../../kernel/record.ts";
import { decode } from "./encode.ts";
import { serverNow } from "./moment-sql.ts";

/** What this store needs of a client of `pg`. */
export interface PostgresClient {
  // biome-ignore lint/suspicious/noExplicitAny: what `pg` itself says of its rows and its overloads.
  query(query: any): Promise<{ rows: any[]; command?: string }>;
}

export interface PooledClient extends PostgresClient {
  release(destroy?: boolean): void;
  on(event: "error", listener: (error: Error) => void): unknown;
  off(event: "error", listener: (error: Error) => void): unknown;
}

/** What this store needs of a pool of `pg`. */
export interface PostgresPool {
  readonly options?: { max?: number };
  readonly totalCount?: number;
  readonly idleCount?: number;
  readonly waitingCount?: number;
  connect(): Promise<PooledClient>;
  end(): Promise<void>;
  on(event: "error", listener: (error: Error) => void): unknown;
  off(event: "error", listener: (error: Error) => void): unknown;
}

export type Row = Record<string, unknown>;

/** Names what a schema holds. */
export const identitySql = "SELECT id FROM ~identity";

/** Turns the texts that come from the server into values. Not those of `pg`, which its user may have changed for others. */
const types = {
  getTypeParser(oid: number): (text: string) => unknown {
    // int8, int2, int4, float8
    if (oid === 20 || oid === 21 || oid === 23 || oid === 701) return Number;
    if (oid === 16) return (text) => text === "t";
    if (oid === 17) return (text) => Buffer.from(text.slice(2), "hex");
    return decode;
  },
};

/** The names of tables and functions, by schema. */
export class Sql {
  readonly #schema: string;
  readonly #functions: ReadonlySet<string>;
  readonly #suffix: string;
  readonly #texts = new Map<string, { text: string; name: string }>();

  /** @param suffix Ends the names of functions. */
  constructor(schema: string, functions: Iterable<string>, suffix: string) {
    this.#schema = schema;
    this.#functions = new Set(functions);
    this.#suffix = suffix;
  }

  /** A text with `~name` for tables, functions and `~lock_...`, as the server takes it, and a name for it. */
  of(template: string): { text: string; name: string } {
    let found = this.#texts.get(template);
    if (!found) {
      const text = template.replace(/~(\w+)/g, (_, name: string) => {
        if (name.startsWith("lock_")) return String(lockOf(`${this.#schema} ${name}`));
        return `"${this.#schema}".${this.#functions.has(name) ? `${name}_${this.#suffix}` : name}`;
      });
      found = { text, name: `ar_${sha256(text).slice(0, 20)}` };
      this.#texts.set(template, found);
    }
    return found;
  }
}

/** A 32-bit number for an advisory lock. */
export function lockOf(name: string): number {
  return Number.parseInt(sha256(`abstractruntime ${name}`).slice(0, 8), 16) | 0;
}

/** Statements of one store. `prepared`: whether the server keeps them by name, which saves it parsing and planning. */
export class Statements {
  readonly sql: Sql;
  prepared: boolean;
  /** Names what the schema holds; read when the store is opened. */
  contentsId = "";

  constructor(sql: Sql, prepared: boolean) {
    this.sql = sql;
    this.prepared = prepared;
  }

  /** What `clock` says, or the server. */
  async now(client: PostgresClient, now: number | undefined): Promise<number> {
    if (now !== undefined) return now;
    const sql = `SELECT ${serverNow} AS now`;
    return (await this.rows(client, sql))[0]?.now as number;
  }

  /** @param once Do not keep it: its text varies. */
  async rows<T = Row>(client: PostgresClient, template: string, values: readonly unknown[] = [], once = false): Promise<T[]> {
    const { text, name } = this.sql.of(template);
    const query = { text, values, types, ...(this.prepared && !once ? { name } : {}) };
    return (await client.query(query)).rows as T[];
  }
}

/** A pool of our own. `pg` is loaded only here, since it is an optional peer. */
export async function openPool(connectionString: string, max: number): Promise<PostgresPool> {
  const pg = await driver();
  return new pg.Pool({
    connectionString,
    max,
    connectionTimeoutMillis: 10_000,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    allowExitOnIdle: true,
  });
}

/** The package, as far as it is used here: its own types would have to be installed by whoever compiles against ours. */
interface Driver {
  Pool: new (options: object) => PostgresPool;
  Client: new (options: object) => PostgresClient;
}

export async function driver(): Promise<Driver> {
  try {
    return (await import("pg")).default;
  } catch (cause) {
    if (isError(cause) || (cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    const problem = 'the package "pg" is not installed, which postgresStore() speaks to the server with: run `npm install pg`';
    throw new AbstractRuntimeError("INVALID_OPTION", { option: "connectionString", problem }, cause);
  }
}
