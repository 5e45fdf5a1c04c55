/**
 * What the limits of queues leave free, as one claim uses it up. Shared by the stores, which do the counting.
 *
 * A run that is held is a slot in use. The lease itself is the counter: nothing is added or taken away beside it, so that no slot
 * can leak, whatever dies.
 */
import type { Capability, QueueLimits } from "../kernel/transition.ts";

export interface SlotCounts {
  /** Runs of the queue that are held. */
  held(queue: string): number;
  /** Those of one key. */
  heldOf(queue: string, queueKey: string): number;
  /** How many began after a moment. */
  begunAfter(queue: string, moment: number): number;
  /** When the n-th last began. */
  nthLastBegin(queue: string, n: number): number | undefined;
}

export class Slots {
  readonly #queues: Capability["queues"];
  readonly #counts: SlotCounts;
  readonly #now: number;
  /** Counted once for a claim, and then kept by `take`. */
  readonly #held = new Map<string, number>();
  readonly #heldOf = new Map<string, number>();
  readonly #begun = new Map<string, number>();

  constructor({ queues }: Capability, counts: SlotCounts, now: number) {
    this.#queues = queues;
    this.#counts = counts;
    this.#now = now;
  }

  /** Whether the queue takes one more, leaving its keys aside. `begins`: whether it was never claimed before. */
  isOpen(queue: string | undefined, begins: boolean): boolean {
    return this.opensAt(queue, begins) === this.#now;
  }

  /** When the queue takes one more: now, when its rate allows it, or undefined while it has no slot or is not served. */
  opensAt(queue: string | undefined, begins: boolean): number | undefined {
    if (queue === undefined) return this.#now;
    const limits = limitsOf(this.#queues, queue);
    if (!limits) return undefined;
    const { concurrency, rateLimit } = limits;
    if (concurrency !== undefined && this.#count(this.#held, queue, () => this.#counts.held(queue)) >= concurrency)
      return undefined;
    if (!begins || !rateLimit) return this.#now;
    const { limit, periodMs } = rateLimit;
    const begun = this.#count(this.#begun, queue, () => this.#counts.begunAfter(queue, this.#now - periodMs));
    if (begun < limit) return this.#now;
    const leaves = limit < 1 ? undefined : this.#counts.nthLastBegin(queue, limit);
    // Those that began in this very claim are not counted by the store yet, so it may not find as many.
    return limit < 1 ? undefined : Math.max(this.#now + 1, (leaves ?? this.#now) + periodMs);
  }

  /** Whether a key of the queue has a slot. */
  hasSlot(queue: string | undefined, queueKey: string | undefined): boolean {
    return this.freeOf(queue, queueKey) > 0;
  }

  /** How many more of the key may be held. */
  freeOf(queue: string | undefined, queueKey: string | undefined): number {
    if (queue === undefined || queueKey === undefined) return Number.POSITIVE_INFINITY;
    const keyConcurrency = limitsOf(this.#queues, queue)?.keyConcurrency;
    if (keyConcurrency === undefined) return Number.POSITIVE_INFINITY;
    const held = this.#count(this.#heldOf, JSON.stringify([queue, queueKey]), () => this.#counts.heldOf(queue, queueKey));
    return keyConcurrency - held;
  }

  /** Uses up what a run needs. */
  take(queue: string | undefined, queueKey: string | undefined, begins: boolean): void {
    if (queue === undefined) return;
    add(this.#held, queue);
    if (queueKey !== undefined) add(this.#heldOf, JSON.stringify([queue, queueKey]));
    if (begins) add(this.#begun, queue);
  }

  #count(counted: Map<string, number>, key: string, count: () => number): number {
    const value = counted.get(key) ?? count();
    counted.set(key, value);
    return value;
  }
}

/** Only what was counted is kept up: a limit is asked about before it is used, so what was never counted has none. */
function add(counted: Map<string, number>, key: string): void {
  const value = counted.get(key);
  if (value !== undefined) counted.set(key, value + 1);
}

/** Whether a worker serves the queue of a run, if it has one. */
export function serves({ queues }: Capability, queue: string | null | undefined): boolean {
  return queue === undefined || queue === null || limitsOf(queues, queue) !== undefined;
}

/** The rate at which runs of a queue may begin: their beginnings must be remembered for its period. */
export function rateOf({ queues }: Capability, queue: string | null | undefined): QueueLimits["rateLimit"] {
  return queue === undefined || queue === null ? undefined : limitsOf(queues, queue)?.rateLimit;
}

/** A queue may be called `toString`. */
function limitsOf(queues: Capability["queues"], queue: string): QueueLimits | undefined {
  return queues && Object.hasOwn(queues, queue) ? queues[queue] : undefined;
}
