/**
 * What a store writes, and the same writes without the store.
 *
 * B1. While a trace is on, every statement of this process that changes a row is noted, with its values and in its transaction.
 *     What only reads, and what changes nothing, is left out; so are transactions that are then empty.
 * B2. A replay carries out exactly those statements, prepared once, in exactly those transactions, in a new database with the
 *     schema and the pragmas of the store's own `migrate`. It neither encodes, nor hashes, nor reads.
 * B3. Texts of records are not kept while the clock runs, since keeping them would cost the measured side its garbage
 *     collection: the key is noted, and the row is read from the database afterwards.
 */
import { DatabaseSync, type SQLInputValue, StatementSync } from "node:sqlite";
import { migrate } from "../src/stores/sqlite/schema.ts";

interface Write {
  sql: string;
  values: SQLInputValue[];
}

export type Writes = readonly (readonly Write[])[];

export interface Trace {
  /** @returns Transactions, oldest first. Records are still to be read: see `fill`. */
  stop(): Writes;
}

const recordInsert = /^\s*INSERT INTO records VALUES/i;
const changing = /^\s*(INSERT|UPDATE|DELETE|REPLACE)/i;
const methods = ["run", "get", "all"] as const;

interface Statement {
  sql: string;
  kind: "record" | "change" | "control";
}

/** Starts to note. One trace at a time. */
export function trace(): Trace {
  const transactions: Write[][] = [];
  let open: Write[] | undefined;
  const control = (sql: string): void => {
    if (/^\s*BEGIN/i.test(sql)) open = [];
    else if (/^\s*COMMIT/i.test(sql)) {
      if (open && open.length > 0) transactions.push(open);
      open = undefined;
    } else if (/^\s*ROLLBACK/i.test(sql)) open = undefined;
  };
  const kinds = new WeakMap<StatementSync, Statement>();
  const about = (statement: StatementSync): Statement => {
    let known = kinds.get(statement);
    if (!known) {
      const sql = statement.sourceSQL;
      known = { sql, kind: recordInsert.test(sql) ? "record" : changing.test(sql) ? "change" : "control" };
      kinds.set(statement, known);
    }
    return known;
  };

  const original = { run: StatementSync.prototype.run, get: StatementSync.prototype.get, all: StatementSync.prototype.all };
  const exec = DatabaseSync.prototype.exec;
  for (const method of methods) {
    const bare = original[method] as (this: StatementSync, ...values: SQLInputValue[]) => unknown;
    StatementSync.prototype[method] = function (this: StatementSync, ...values: SQLInputValue[]): never {
      const result = bare.apply(this, values);
      const { sql, kind } = about(this);
      if (kind === "control") {
        if (method === "run") control(sql);
      } else if (method !== "run" || (result as { changes: number }).changes > 0) {
        const write = { sql, values: kind === "record" ? [values[0] as SQLInputValue] : values };
        // Outside a transaction a statement is one of its own.
        if (open) open.push(write);
        else transactions.push([write]);
      }
      return result as never;
    } as never;
  }
  DatabaseSync.prototype.exec = function (this: DatabaseSync, sql: string): void {
    exec.call(this, sql);
    // A mark of life locks a file of its own, exclusively, and writes nothing.
    if (!/EXCLUSIVE/.test(sql)) control(sql);
  };
  return {
    stop() {
      Object.assign(StatementSync.prototype, original);
      DatabaseSync.prototype.exec = exec;
      return transactions;
    },
  };
}

/** Reads the texts of the records noted from the file they were written to. */
export function fill(writes: Writes, file: string): void {
  const database = new DatabaseSync(file, { readOnly: true });
  const select = database.prepare("SELECT * FROM records WHERE id = ?");
  for (const write of writes.flat()) {
    if (!recordInsert.test(write.sql)) continue;
    const row = select.get(write.values[0] as SQLInputValue);
    if (!row) throw new Error(`Record ${write.values[0]} was written and is not there.`);
    write.values = Object.values(row);
  }
  database.close();
}

export interface Replayed {
  ms: number;
  /** Of the processor, all threads together. */
  cpu: number;
  /** Milliseconds of each transaction; only where they were asked for. */
  each: number[];
}

/** Carries out phases of writes in a new file. Only this loop is timed, each phase for itself. */
export function replay(phases: readonly Writes[], file: string, each = false): Replayed[] {
  const database = new DatabaseSync(file);
  migrate(database, file);
  const statements = new Map<string, StatementSync>();
  const prepared = phases.map((writes) =>
    writes.map((transaction) =>
      transaction.map(({ sql, values }) => {
        const statement = statements.get(sql) ?? database.prepare(sql);
        statements.set(sql, statement);
        return { statement, values };
      }),
    ),
  );
  const begin = database.prepare("BEGIN IMMEDIATE");
  const commit = database.prepare("COMMIT");
  const replayed = prepared.map((transactions) => {
    const times: number[] = [];
    const used = cpuMs();
    const start = performance.now();
    for (const writes of transactions) {
      const began = each ? performance.now() : 0;
      begin.run();
      for (const { statement, values } of writes) statement.run(...values);
      commit.run();
      if (each) times.push(performance.now() - began);
    }
    return { ms: performance.now() - start, cpu: cpuMs() - used, each: times };
  });
  database.close();
  return replayed;
}

/** Milliseconds of processor time that this process has used, all threads together. */
export function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
}
