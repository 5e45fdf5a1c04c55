/** What SQLite says, as our own codes (https://sqlite.org/rescode.html). */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { fileError } from "../file-errors.ts";

interface SqliteError extends Error {
  code: "ERR_SQLITE_ERROR";
  errcode: number;
}

export function isSqliteError(error: unknown): error is SqliteError {
  return error instanceof Error && (error as Partial<SqliteError>).code === "ERR_SQLITE_ERROR";
}

/** The low byte is the primary code, the rest says more. */
function primaryCode(error: SqliteError): number {
  return error.errcode & 0xff;
}

/** Another connection holds the lock: SQLITE_BUSY or SQLITE_LOCKED. */
export function isBusy(error: unknown): boolean {
  return isSqliteError(error) && [5, 6].includes(primaryCode(error));
}

/** A statement has no parameter for a value: SQLITE_RANGE. */
export function isUnbindable(error: unknown): boolean {
  return isSqliteError(error) && primaryCode(error) === 25;
}

export function storeError(error: unknown, store: string): unknown {
  if (error instanceof AbstractRuntimeError) return error;
  if (isSqliteError(error)) {
    switch (primaryCode(error)) {
      case 5:
      case 6:
        return new AbstractRuntimeError("STORE_BUSY", { store, waitedMs: 0 }, error);
      case 8:
        return new AbstractRuntimeError("STORE_READ_ONLY", { store }, error);
      case 13:
        return new AbstractRuntimeError("STORE_FULL", { store }, error);
      case 11:
      case 26:
        return new AbstractRuntimeError("STORE_CORRUPT", { store, problem: error.message }, error);
      default:
        return new AbstractRuntimeError("STORE_UNAVAILABLE", { store, problem: error.message }, error);
    }
  }
  return fileError(error, store);
}
