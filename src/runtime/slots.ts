/** How many effects of one type execute at the same time in this process. */
import type { Slots } from "../kernel/executions.ts";

export class EffectSlots implements Slots {
  readonly #limits: ReadonlyMap<string, number>;
  readonly #taken = new Map<string, number>();
  /** Who waits for a slot, by type, in the order in which they asked. */
  readonly #waiting = new Map<string, Set<() => void>>();

  constructor(limits: Readonly<Record<string, number>>) {
    this.#limits = new Map(Object.entries(limits));
  }

  take(type: string, free: () => void): (() => void) | undefined {
    const limit = this.#limits.get(type);
    if (limit === undefined) return unlimited;
    const taken = this.#taken.get(type) ?? 0;
    const waiting = this.#waiting.get(type) ?? new Set();
    this.#waiting.set(type, waiting);
    if (taken >= limit) {
      waiting.add(free);
      return undefined;
    }
    waiting.delete(free);
    this.#taken.set(type, taken + 1);
    let given = false;
    return () => {
      if (given) return;
      given = true;
      this.#taken.set(type, (this.#taken.get(type) as number) - 1);
      // All of them, in order: the first may not want it any more, and could not pass it on.
      const asked = [...waiting];
      waiting.clear();
      for (const ask of asked) ask();
    };
  }
}

function unlimited(): void {}
