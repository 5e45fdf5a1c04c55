/**
 * A mark that says this process lives, and that the system takes away when it dies: an exclusive lock on a file of its own,
 * by SQLite, which locks alike on every platform. Other processes on the host learn of a death at once instead of after
 * the lease.
 */
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";

export interface Mark {
  /** Lets go. A second call does nothing. */
  release(): void;
}

/** Beside the store: one file a worker. */
export function marksOf(storePath: string): string {
  return `${storePath}-workers`;
}

export function markPath(storePath: string, workerId: string): string {
  return join(marksOf(storePath), markName(workerId));
}

/** Worker ids are ours (UUIDs), and encoded all the same. */
export function markName(workerId: string): string {
  return encodeURIComponent(workerId);
}

export function holdMark(path: string): Mark {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const database = new DatabaseSync(path);
  database.exec("BEGIN EXCLUSIVE");
  return {
    release() {
      if (!database.isOpen) return;
      database.close();
      rmSync(path, { force: true });
    },
  };
}

/** Removes what a dead worker left. Where that fails the file stays, which harms nobody. */
export function dropMark(path: string): void {
  try {
    rmSync(path, { force: true });
  } catch {
    // Another process may be looking at it: on Windows an open file is not removed.
  }
}

/**
 * Whether the process that held the mark is dead: nobody holds it, or it is gone. All users of the store are on this host, since
 * a WAL is shared memory. False when it cannot be told: the lease will tell.
 */
export function isDead(path: string): boolean {
  if (!existsSync(path)) return true;
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: 0 });
    database.exec("BEGIN EXCLUSIVE");
    return true;
  } catch {
    // Locked: it lives. Or unreadable.
    return false;
  } finally {
    database?.close();
  }
}

/** Whether the process of a worker of this store is known to have died: at once, and not when its lease runs out. */
export function hasDied(storePath: string, workerId: string): boolean {
  return isDead(markPath(storePath, workerId));
}

/** The workers that have died and were not yet cleared away: no other has looked for runs since. */
export function deadWorkers(storePath: string): string[] {
  if (!existsSync(marksOf(storePath))) return [];
  // Bells begin with a plus, which no encoded id has.
  const names = readdirSync(marksOf(storePath)).filter((name) => !name.startsWith("+") && !name.endsWith("-journal"));
  return names.map(decodeURIComponent).filter((workerId) => hasDied(storePath, workerId));
}
