/**
 * Group commit: the calls of one turn of the event loop are applied together, in the order they were made. Shared by the
 * stores. A caller hears of its call only after the loop has had its turn, so timers and I/O live beside any amount of steps.
 */

interface Waiting<Call> {
  call: Call;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** What became of one call. */
export type Applied = { value: unknown } | { error: unknown };

export class Group<Call> {
  readonly #apply: (calls: readonly Call[]) => readonly Applied[] | Promise<readonly Applied[]>;
  #queue: Waiting<Call>[] = [];
  #scheduled = false;
  #idle: (() => void)[] = [];

  /** @param apply Applies calls together and answers for each, in order. A rejection is the answer for all of them. */
  constructor(apply: (calls: readonly Call[]) => readonly Applied[] | Promise<readonly Applied[]>) {
    this.#apply = apply;
  }

  add<T>(call: Call): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ call, resolve: resolve as (value: unknown) => void, reject });
      if (this.#scheduled) return;
      this.#scheduled = true;
      setImmediate(() => void this.#run());
    });
  }

  /** Resolves when no call is under way. */
  idle(): Promise<void> {
    if (!this.#scheduled) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  async #run(): Promise<void> {
    const batch = this.#queue;
    this.#queue = [];
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
    if (this.#queue.length > 0) setImmediate(() => void this.#run());
    else {
      this.#scheduled = false;
      for (const resolve of this.#idle.splice(0)) resolve();
    }
  }
}
