/** What single steps cost: moments noted by the nodes themselves. Steps that wrote a checkpoint are kept apart. */
import type { Store } from "abstractruntime";
import { median } from "./figure.ts";

export class Stamps {
  #moments: number[] = [];
  #checkpoints = new Set<number>();

  clear(): void {
    this.#moments = [];
    this.#checkpoints = new Set();
  }

  /** Called by each node as it begins: ends one step and begins the next. */
  stamp(): void {
    this.#moments.push(performance.now());
  }

  /** Notes which step a checkpoint was written in. */
  watch(store: Store): void {
    const commit = store.commit.bind(store);
    store.commit = (transitions) => {
      if (transitions.some(({ checkpoint }) => checkpoint)) this.#checkpoints.add(this.#moments.length);
      return commit(transitions);
    };
  }

  /** Milliseconds of the steps `[from, to)`, counted from 0, without those that wrote a checkpoint. */
  steps(from: number, to: number): number[] {
    const all: number[] = [];
    for (let step = from; step < Math.min(to, this.#moments.length - 1); step++) {
      if (!this.#checkpoints.has(step + 1)) all.push(this.#duration(step));
    }
    return all;
  }

  checkpointSteps(): number[] {
    return [...this.#checkpoints]
      .filter((count) => count >= 1 && count < this.#moments.length)
      .map((count) => this.#duration(count - 1));
  }

  median(from: number, to: number): number {
    return median(this.steps(from, to));
  }

  #duration(step: number): number {
    return this.#moments[step + 1]! - this.#moments[step]!;
  }
}
