/** What a runtime makes of the process it lives in: a default store, a log that cannot throw, and how busy the event loop is. */
import type { Clock } from "../kernel/clock.ts";
import type { Logger } from "../kernel/effect.ts";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { Store } from "../kernel/store.ts";

export async function defaultStore(clock: Clock | undefined): Promise<Store> {
  const path = ".abstractruntime/runs.db";
  try {
    const { sqliteStore } = await import("../stores/sqlite/index.ts");
    return await sqliteStore(path, clock ? { clock } : {});
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_UNKNOWN_BUILTIN_MODULE") throw error;
    const problem = `Node ${process.versions.node} has no SQLite; abstractruntime needs Node 22.20, or 24.7 or newer`;
    throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: `sqlite:${path}`, problem }, error);
  }
}

export const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/** A logger that throws is the host's mistake, and must not end what it was told of. */
export function guarded(log: Logger): Logger {
  const safely =
    (level: keyof Logger) =>
    (message: string, fields?: Record<string, unknown>): void => {
      try {
        log[level](message, fields);
      } catch {
        // There is nobody left to tell.
      }
    };
  return { debug: safely("debug"), info: safely("info"), warn: safely("warn"), error: safely("error") };
}

/** How long the event loop has been kept since it last had its turn. */
export function loopBusyMs(clock: Clock): () => number {
  let since: number | undefined;
  return () => {
    const now = clock.now();
    if (since === undefined) {
      since = now;
      setImmediate(() => {
        since = undefined;
      });
    }
    return now - since;
  };
}
