/** One process at a time: an exclusive lock on a file of its own, by SQLite, which locks alike on every platform. The system frees it when the process dies. */
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { isBusy } from "../sqlite/errors.ts";

/**
 * Takes the lock and answers with what lets go of it. The file stays: were it removed, one process could lock the file that is gone and
 * another the new one.
 *
 * @throws STORE_LOCKED
 */
export function lock(directory: string, store: string): () => void {
  const database = new DatabaseSync(join(directory, "lock"), { timeout: 0 });
  try {
    database.exec("BEGIN EXCLUSIVE");
  } catch (error) {
    database.close();
    throw isBusy(error) ? new AbstractRuntimeError("STORE_LOCKED", { store }, error) : error;
  }
  return () => {
    if (database.isOpen) database.close();
  };
}
