/**
 * States of large runs that were parked here, for when they go on: a conversation is not read and folded anew for each of its
 * messages. Bounded, and nothing depends on it: a run that went on elsewhere meanwhile has another head, and is loaded.
 */
import type { Restored } from "../kernel/restore.ts";
import type { RunState } from "../kernel/run.ts";

/** What is smaller is loaded as fast as it is looked up. */
const leastSize = 16 * 1024;

export class ParkedStates {
  /** Those parked last are last. */
  readonly #parked = new Map<string, Restored>();
  readonly #mostSize: number;
  #size = 0;

  /** @param mostSize Of all together, in characters of what they would be loaded from. */
  constructor(mostSize: number) {
    this.#mostSize = mostSize;
  }

  keep(restored: Restored): void {
    const { runId } = restored.state;
    this.#drop(runId);
    const size = sizeOf(restored);
    if (size < leastSize || size > this.#mostSize) return;
    this.#parked.set(runId, restored);
    this.#size += size;
    for (const oldest of this.#parked.keys()) {
      if (this.#size <= this.#mostSize) return;
      this.#drop(oldest);
    }
  }

  /** Hash of the last record of a run whose state is here. */
  readonly headOf = (runId: string): string | undefined => this.#parked.get(runId)?.state.head;

  /** The state, for a driver, which changes it: it is not here any more. Undefined when it is not the one at `head`. */
  take(runId: string, head: string): Restored | undefined {
    const found = this.#parked.get(runId);
    this.#drop(runId);
    return found?.state.head === head ? found : undefined;
  }

  /** A copy for readers, which stays as it is. Undefined when it is not the one at `head`. */
  read(runId: string, head: string): RunState | undefined {
    const found = this.#parked.get(runId)?.state;
    if (found?.head !== head) return undefined;
    return { ...found, open: new Map([...found.open].map(([id, effect]) => [id, { ...effect }])) };
  }

  #drop(runId: string): void {
    const found = this.#parked.get(runId);
    if (!found) return;
    this.#parked.delete(runId);
    this.#size -= sizeOf(found);
  }
}

function sizeOf({ checkpoint, tailSize }: Restored): number {
  return checkpoint.size + tailSize;
}
