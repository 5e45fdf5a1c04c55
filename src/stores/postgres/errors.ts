/** What Postgres and the network say, as our own codes (https://www.postgresql.org/docs/current/errcodes-appendix.html). */
import { AbstractRuntimeError } from "../../kernel/errors.ts";

export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" ? code : "";
}

const isSqlState = (code: string): boolean => /^[0-9A-Z]{5}$/.test(code) && !/^E[A-Z]{4}$/.test(code);

/** Another transaction stood in the way; made again, the same may succeed. */
export function isInTheWay(error: unknown): boolean {
  // serialization_failure, deadlock_detected, lock_not_available
  return ["40001", "40P01", "55P03"].includes(codeOf(error));
}

/** Locked by another transaction for longer than is waited at once. */
export function isLocked(error: unknown): boolean {
  return codeOf(error) === "55P03";
}

/** A statement that was prepared is not there, or is there already: a pooler gave the connection to others in between. */
export function isUnprepared(error: unknown): boolean {
  return ["26000", "42P05"].includes(codeOf(error));
}

/** The connection was lost, or the server is going down, starting or full: whether a statement was carried out is not known. */
export function isDisconnected(error: unknown): boolean {
  if (error instanceof AbstractRuntimeError) return false;
  const code = codeOf(error);
  // Also closed by the server since it was idle for too long, alone or in a transaction.
  if (code.startsWith("08") || ["57P01", "57P02", "57P03", "53300", "57P05", "25P03"].includes(code)) return true;
  if (isSqlState(code)) return false;
  const network = ["ECONNRESET", "ECONNREFUSED", "EPIPE", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH", "EAI_AGAIN", "ENOTFOUND"];
  if (network.includes(code)) return true;
  // The driver has no codes for these.
  return (
    error instanceof Error && /^(Connection terminated|Client has encountered a connection error|timeout e)/.test(error.message)
  );
}

/** What a server that was just started says, or one that has no place left: worth another try also when a store is opened. */
export function isStarting(error: unknown): boolean {
  return ["57P03", "53300", "57P01", "57P02"].includes(codeOf(error));
}

export function storeError(error: unknown, store: string): unknown {
  if (error instanceof AbstractRuntimeError) return error;
  const code = codeOf(error);
  const said = error instanceof Error && error.message !== "" ? error.message : String(code || error);
  const unavailable = (problem: string) => new AbstractRuntimeError("STORE_UNAVAILABLE", { store, problem }, error);
  switch (code) {
    case "55P03":
    case "40001":
    case "40P01":
      return new AbstractRuntimeError("STORE_BUSY", { store, waitedMs: 0 }, error);
    case "25006":
      return new AbstractRuntimeError("STORE_READ_ONLY", { store }, error);
    case "53100":
      return new AbstractRuntimeError("STORE_FULL", { store }, error);
    case "XX001":
    case "XX002":
      return new AbstractRuntimeError("STORE_CORRUPT", { store, problem: said }, error);
    case "42P01":
    case "42883":
    case "3F000":
      return new AbstractRuntimeError("STORE_CORRUPT", { store, problem: `${said}; its schema was changed or dropped` }, error);
    case "42501":
      return unavailable(
        `${said}; its role needs CREATE on the database, or on a schema that is there, to open it first, and USAGE and all rights on what is in it then`,
      );
    case "28P01":
    case "28000":
      return unavailable(`${said}; check user and password of the connection string`);
    case "3D000":
      return unavailable(`${said}; create the database, or correct its name in the connection string`);
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return unavailable(`${said}; check the host of the connection string`);
    case "ERR_INVALID_URL":
      return unavailable("its connection string is no URL; in a password, write / as %2F, and other special characters alike");
    case "ECONNREFUSED":
      return unavailable(`${said}; no server listens there: check host and port of the connection string`);
    default:
      return unavailable(said);
  }
}
