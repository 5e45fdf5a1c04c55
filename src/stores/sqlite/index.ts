/**
 * The default store: one file, written by SQLite as Node ships it. WAL with `synchronous=FULL`: what was acknowledged survives a
 * power cut. Several processes may open the same file.
 *
 * Q1. Every write goes through the group: one transaction for all calls of a turn, the guards of each call checked in order
 *     against what the calls before it left. A call whose guard fails is skipped alone.
 * Q2. Rows are read once per transaction, changed in memory, and written once at its end.
 * Q3. A locked file is waited for without blocking the event loop; it is never a run's failure.
 * Q4. No read transaction spans an await.
 */
import { statSync } from "node:fs";
import { dirname } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { AbstractRuntimeError, checkOptions } from "../../kernel/errors.ts";
import type { Store } from "../../kernel/store.ts";
import { pathOf, prepareDirectory } from "../directory.ts";
import { isUnbindable, storeError } from "./errors.ts";
import { blockingMs, patiently } from "./patience.ts";
import { migrate } from "./schema.ts";
import { SqliteStore } from "./store.ts";

export { backupSqlite } from "./backup.ts";
export { deadWorkers, hasDied } from "./liveness.ts";

export interface SqliteOptions {
  /** Default: the system's. */
  clock?: Clock;
  /** How long a locked file is waited for, in milliseconds, before STORE_BUSY. Default: 30,000. */
  busyTimeoutMs?: number;
}

/**
 * Opens a store, creating file and directory (mode 0700) where they are missing.
 *
 * @param path A file, or `:memory:`.
 * @throws STORE_UNAVAILABLE, STORE_READ_ONLY, STORE_CORRUPT, STORE_FULL, STORE_BUSY, FORMAT_NEWER
 */
export async function sqliteStore(path: string, options: SqliteOptions = {}): Promise<Store> {
  checkOptions(options, ["clock", "busyTimeoutMs"], "sqliteStore()");
  const file = path === ":memory:" ? path : pathOf(path, "sqlite");
  const name = `sqlite:${path}`;
  const clock = options.clock ?? systemClock;
  const busyTimeoutMs = options.busyTimeoutMs ?? 30_000;
  let database: DatabaseSync | undefined;
  try {
    if (file !== ":memory:") prepareDirectory(dirname(file));
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) throw new Error("it is a directory, and not a file");
    database = new DatabaseSync(file, { timeout: blockingMs });
    const opened = database;
    // Others may be opening the file, too: whatever is asked of it may find it busy.
    const prepare = (): void => {
      checkNode(opened, name);
      migrate(opened, name);
    };
    await patiently(prepare, name, busyTimeoutMs, clock);
    return new SqliteStore(database, file, name, clock, busyTimeoutMs);
  } catch (error) {
    database?.close();
    throw storeError(error, name);
  }
}

/** Older Nodes do not bind `?1`, and would fail at the first claim. */
function checkNode(database: DatabaseSync, store: string): void {
  try {
    database.prepare("SELECT ?1").get(1);
  } catch (error) {
    if (!isUnbindable(error)) throw error;
    const problem = `Node ${process.versions.node} is too old; abstractruntime needs Node 22.20, or 24.7 or newer`;
    throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store, problem }, error);
  }
}
