/**
 * Group commit: the calls of one turn of the event loop are applied together, in the order they were made. Shared by the stores.
 *
 * G1. Calls wait for the end of the loop's turn, so that whatever it brings is merged. One caller in sequence has nobody to wait
 *     for: its calls are applied when the present microtasks have run, which saves a turn of the loop for each.
 * G2. The loop gets its turn at least every 5 ms, so timers and I/O live beside any amount of steps.
 */

import type { Clock } from "../kernel/clock.ts";

const longestMs = 5;
/** So many batches of a single call each, all from one caller, make it a sequence. */
const sequence = 3;

interface Waiting<Call> {
  call: Call;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** What became of one call. */
export type Applied = { value: unknown } | { error: unknown };

export class Group<Call> {
  readonly #apply: (calls: readonly Call[]) => readonly Applied[] | Promise<readonly Applied[]>;
  readonly #clock: Clock;
  #queue: Waiting<Call>[] = [];
  #scheduled = false;
  #idle: (() => void)[] = [];
  #lastCaller: string | undefined;
  #alone = 0;
  #turnAt = 0;

  /** @param apply Applies calls together and answers for each, in order. A rejection is the answer for all of them. */
  constructor(clock: Clock, apply: (calls: readonly Call[]) => readonly Applied[] | Promise<readonly Applied[]>) {
    this.#clock = clock;
    this.#apply = apply;
  }

  /** @param caller Tells calls of one caller in sequence from those of many. Default: one of many. */
  add<T>(call: Call, caller?: string): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ call, resolve: resolve as (value: unknown) => void, reject });
      if (caller === undefined || caller !== this.#lastCaller) this.#alone = 0;
      this.#lastCaller = caller;
      if (this.#scheduled) return;
      this.#scheduled = true;
      this.#schedule();
    });
  }

  #schedule(): void {
    if (this.#alone >= sequence && this.#clock.now() - this.#turnAt < longestMs) {
      // Behind all microtasks that are due now; still before timers and I/O.
      process.nextTick(() => void this.#run());
    } else {
      setImmediate(() => {
        this.#turnAt = this.#clock.now();
        void this.#run();
      });
    }
  }

  /** Resolves when no call is under way. */
  idle(): Promise<void> {
    if (!this.#scheduled) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  async #run(): Promise<void> {
    const batch = this.#queue;
    this.#queue = [];
    this.#alone = batch.length === 1 ? this.#alone + 1 : 0;
    try {
      const applying = this.#apply(batch.map(({ call }) => call));
      const applied = applying instanceof Promise ? await applying : applying;
      batch.forEach(({ resolve, reject }, i) => {
        const result = applied[i] as Applied;
        if ("error" in result) reject(result.error);
        else resolve(result.value);
      });
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
    if (this.#queue.length > 0) this.#schedule();
    else {
      this.#scheduled = false;
      for (const resolve of this.#idle.splice(0)) resolve();
    }
  }
}
