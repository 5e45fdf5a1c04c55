/** A clock that stands still until a test moves it. */
import type { Clock, Timer } from "../kernel/clock.ts";

export interface TestClock extends Clock {
  /**
   * Moves time forward and calls the timers that fall due, in the order of their moments, each at its own moment. Before and after
   * each of them the event loop gets a turn, so that a timer set or cancelled by what the last one caused counts. Calls made
   * before the first has ended follow one another. Rejects with what a callback throws; the time stays where it threw.
   */
  advance(ms: number): Promise<void>;
  /** Timers that are set and have not been called, next first. */
  readonly pending: readonly PendingTimer[];
}

export interface PendingTimer {
  at: number;
  /** Whether it would hold the process open. */
  hold: boolean;
}

export interface TestClockOptions {
  /** Says whether nothing real is under way, such as a question to a database, that is to be over before time moves. Default: nothing is. */
  isQuiet?: () => boolean;
}

/** @param start The first moment. Default: 1 January 2026, 00:00 UTC. */
export function testClock(start = Date.UTC(2026, 0, 1), options: TestClockOptions = {}): TestClock {
  return new ManualClock(start, options.isQuiet ?? alwaysQuiet);
}

interface SetTimer extends PendingTimer {
  callback: () => void;
}

const alwaysQuiet = (): boolean => true;
/** So many turns bring whatever needs nobody else; after them a server or a disk is waited for, without taking the processor from it. */
const ownTurns = 100;
/** Real time, since a busy machine takes any number of turns until a server has answered. */
const longestWaitMs = 3_000;

/** As in `Clock`: a longer delay is cut to this. */
const longestTimer = 2 ** 31 - 1;

class ManualClock implements TestClock {
  #now: number;
  /** In the order in which they were set. */
  readonly #timers = new Set<SetTimer>();
  #advancing: Promise<void> = Promise.resolve();

  readonly #isQuiet: () => boolean;

  constructor(start: number, isQuiet: () => boolean) {
    this.#now = start;
    this.#isQuiet = isQuiet;
  }

  now(): number {
    return this.#now;
  }

  setTimer(callback: () => void, delayMs: number, hold = false): Timer {
    const timer: SetTimer = { at: this.#now + Math.max(0, Math.min(delayMs, longestTimer)), hold, callback };
    this.#timers.add(timer);
    return { cancel: () => void this.#timers.delete(timer) };
  }

  get pending(): readonly PendingTimer[] {
    return this.#inOrder().map(({ at, hold }) => ({ at, hold }));
  }

  advance(ms: number): Promise<void> {
    if (!(ms >= 0)) return Promise.reject(new RangeError(`A clock goes forward: advance(${ms})`));
    const advanced = this.#advancing.then(() => this.#advanceTo(this.#now + ms));
    this.#advancing = advanced.catch(() => undefined);
    return advanced;
  }

  async #advanceTo(end: number): Promise<void> {
    await this.#turn();
    for (let next = this.#inOrder()[0]; next && next.at <= end; next = this.#inOrder()[0]) {
      this.#timers.delete(next);
      this.#now = next.at;
      next.callback();
      await this.#turn();
    }
    this.#now = end;
  }

  /** What is under way may itself wait for time to move, so it is not waited for without end. */
  async #turn(): Promise<void> {
    // Nothing can be under way that this would wait for.
    if (this.#isQuiet === alwaysQuiet) return turn();
    let calm = 0;
    let until = Number.POSITIVE_INFINITY;
    for (let turns = 0; calm < 2 && performance.now() < until; turns++) {
      if (turns === ownTurns) until = performance.now() + longestWaitMs;
      await (turns > ownTurns && calm === 0 ? moment() : turn());
      calm = this.#isQuiet() ? calm + 1 : 0;
    }
  }

  /** Sorting is stable: of two timers for one moment, the one set first is called first. */
  #inOrder(): SetTimer[] {
    return [...this.#timers].sort((a, b) => a.at - b.at);
  }
}

/** Two turns: an immediate set by code that an immediate resumed runs as well, which is what one group commit takes. */
async function turn(): Promise<void> {
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
}

function moment(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1));
}
