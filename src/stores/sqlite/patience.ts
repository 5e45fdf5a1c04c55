/** How a locked file is waited for. See Q3 in `index.ts`. */
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { isBusy } from "./errors.ts";

/** Blocking waits for a lock are kept this short; longer ones leave the event loop free in between. */
export const blockingMs = 3;

/** Tries again while the file is locked, with growing, random pauses. @throws STORE_BUSY */
export async function patiently<T>(action: () => T, name: string, timeoutMs: number, clock: Clock): Promise<T> {
  let waitedMs = 0;
  for (let tries = 1; ; tries++) {
    try {
      return action();
    } catch (error) {
      if (!isBusy(error)) throw error;
      if (waitedMs >= timeoutMs)
        throw new AbstractRuntimeError("STORE_BUSY", { store: name, waitedMs: Math.round(waitedMs) }, error);
      // Uneven pauses, so that two processes do not meet at the lock again and again.
      const pauseMs = Math.min(20, tries) * (0.5 + Math.random());
      waitedMs += pauseMs + blockingMs;
      await new Promise<void>((wake) => clock.setTimer(wake, pauseMs, true));
    }
  }
}
