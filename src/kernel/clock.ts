/**
 * Time, ids and randomness: the one door to nondeterminism. Kernel, drivers and stores take these from here, so
 * that tests move time instead of waiting for it and a seed repeats a whole run.
 */
import { randomBytes, randomUUID } from "node:crypto";

/** What `setTimer` gives back. */
export interface Timer {
  cancel(): void;
}

export interface Clock {
  /** Milliseconds since 1970 (UTC). */
  now(): number;
  /** Milliseconds since some moment, by a clock that is never set back. Default: `now`. */
  elapsed?(): number;
  /**
   * Calls `callback` once, `delayMs` from now. Does not hold the process open unless `hold` is true. Delays above
   * 2^31 - 1 ms, which Node would fire at once, are cut to that; callers look at the time again when called.
   */
  setTimer(callback: () => void, delayMs: number, hold?: boolean): Timer;
}

export interface Ids {
  /** A new run, worker or message id: a version-4 UUID. */
  id(): string;
  /** 22 characters of base64url: 132 bits that make a record's body impossible to guess. */
  salt(): string;
  /** A number in [0, 1), for jitter. */
  random(): number;
}

const longestTimer = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  setTimer(callback, delayMs, hold = false) {
    const timer = setTimeout(callback, Math.max(0, Math.min(delayMs, longestTimer)));
    if (!hold) timer.unref();
    return { cancel: () => clearTimeout(timer) };
  },
};

/** As `clock.setTimer`, with delays of any length: a longer one than a timer takes is waited out in parts. */
export function setLongTimer(clock: Clock, callback: () => void, delayMs: number, hold = false): Timer {
  if (!(delayMs > longestTimer)) return clock.setTimer(callback, delayMs, hold);
  const wait = (leftMs: number): Timer =>
    leftMs > longestTimer
      ? clock.setTimer(
          () => {
            timer = wait(leftMs - longestTimer);
          },
          longestTimer,
          hold,
        )
      : clock.setTimer(callback, leftMs, hold);
  let timer = wait(delayMs);
  return { cancel: () => timer.cancel() };
}

const saltCharacters = 22;
let pool = "";
let used = 0;

export const systemIds: Ids = {
  id: () => randomUUID(),
  // One call to the system gives many salts: a call for each would cost as much as hashing the record.
  salt() {
    if (used + saltCharacters > pool.length) {
      pool = randomBytes(16_500).toString("base64url");
      used = 0;
    }
    used += saltCharacters;
    return pool.slice(used - saltCharacters, used);
  },
  random: () => Math.random(),
};
