/** Tells those who wait for a run in this process that it may have changed. */
import type { Clock } from "../kernel/clock.ts";
import type { Json } from "../kernel/json.ts";

/** Hears of changes of a run from when it was made. */
export interface Change {
  /** Resolves at the first change, or after `ms`. Holds the process open. */
  within(ms: number): Promise<void>;
  /** What the run has given, when it completed here meanwhile. */
  readonly output: Json | undefined;
  forget(): void;
}

export class Changes {
  readonly #clock: Clock;
  readonly #listeners = new Map<string, Set<(output?: Json) => void>>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  of(runId: string): Change {
    let heard = false;
    let given: Json | undefined;
    let wake: (() => void) | undefined;
    const listener = (output?: Json): void => {
      heard = true;
      if (output !== undefined) given = output;
      wake?.();
    };
    const listeners = this.#listeners.get(runId) ?? new Set();
    this.#listeners.set(runId, listeners);
    listeners.add(listener);
    return {
      get output() {
        return given;
      },
      within: (ms) =>
        new Promise((resolve) => {
          const timer = this.#clock.setTimer(() => resolve(), ms, true);
          wake = () => {
            timer.cancel();
            resolve();
          };
          if (heard) wake();
        }),
      forget: () => {
        listeners.delete(listener);
        if (listeners.size === 0 && this.#listeners.get(runId) === listeners) this.#listeners.delete(runId);
      },
    };
  }

  /** @param output What it gave, if it has completed. */
  tell(runId: string, output?: Json): void {
    for (const listener of this.#listeners.get(runId) ?? []) listener(output);
  }

  /** Nothing will be told from now on: whoever waits is to give up. */
  end(): void {
    for (const listeners of this.#listeners.values()) for (const listener of listeners) listener();
  }
}
