/** A copy of a store in use. */
import { randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { backup, DatabaseSync } from "node:sqlite";
import { AbstractRuntimeError, invalidOption } from "../../kernel/errors.ts";
import { storeError } from "./errors.ts";

/** All pages in one go: a copy in parts begins anew with every write of another process, and under load would never end. */
const allPages = 2 ** 30;

/**
 * Copies a store to a file while others write to it: the copy is the store as it stood at one moment, with whole commits only. Workers
 * are not held up. The file has its name once it is complete and on the disk.
 *
 * A copy has the runs as they were. Opened while the original still lives, its workers do again what those of the original do.
 *
 * @throws INVALID_OPTION (the file exists, or cannot be made), STORE_UNAVAILABLE, STORE_CORRUPT, STORE_FULL, STORE_READ_ONLY
 */
export async function backupSqlite(path: string, to: string): Promise<void> {
  const [from, target] = [resolve(path), resolve(to)];
  const name = `sqlite:${path}`;
  if (existsSync(target)) throw taken(to);
  if (!existsSync(from)) throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: name, problem: "there is no such file" });
  // Of its own, since another may make a copy under the same name at this moment.
  const part = `${target}.${randomUUID()}.part`;
  try {
    await (await open(part, "wx", 0o600)).close();
  } catch (error) {
    const problem = `${to} cannot be written: ${(error as Error).message}`;
    throw new AbstractRuntimeError("INVALID_OPTION", { option: "to", problem }, error);
  }
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(from, { readOnly: true });
    await backup(database, part, { rate: allPages });
    alone(part);
    await sync(part, "r+");
    if (existsSync(target)) throw taken(to);
    await rename(part, target);
    if (process.platform !== "win32") await sync(dirname(target), "r");
  } catch (error) {
    await rm(part, { force: true });
    throw storeError(error, name);
  } finally {
    database?.close();
  }
}

function taken(to: string): AbstractRuntimeError<"INVALID_OPTION"> {
  return invalidOption("to", `${to} exists, and is not replaced: name another file`);
}

/** Everything in one file, and not in a log beside it. */
function alone(file: string): void {
  const copy = new DatabaseSync(file);
  try {
    copy.exec("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE");
  } finally {
    copy.close();
  }
}

async function sync(path: string, flags: string): Promise<void> {
  const handle = await open(path, flags);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
