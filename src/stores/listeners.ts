/** Who wants to hear that there may be something to do. Shared by the stores. */

/** What a batch of writes did that somebody may want to hear of. */
export class Wakes {
  /** A run was created, or made due. */
  ready = false;
  /** Workers that hold runs for which messages were stored. */
  readonly holders = new Set<string>();
  /** Queues of runs that were handed back: what waits for a slot may have one. */
  readonly freed = new Set<string>();

  clear(): void {
    this.ready = false;
    if (this.holders.size > 0) this.holders.clear();
    if (this.freed.size > 0) this.freed.clear();
  }
}

export class Listeners {
  readonly #listeners = new Set<{ heard: () => void }>();
  #ringing: NodeJS.Immediate | undefined;

  get count(): number {
    return this.#listeners.size;
  }

  /** Answers with what makes it stop. */
  add(heard: () => void): () => void {
    const listener = { heard };
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Tells everybody, once in a turn of the loop. */
  ring(): void {
    if (this.#listeners.size === 0) return;
    this.#ringing ??= setImmediate(() => {
      this.#ringing = undefined;
      for (const { heard } of [...this.#listeners]) heard();
    });
  }

  close(): void {
    clearImmediate(this.#ringing);
    this.#listeners.clear();
  }
}
