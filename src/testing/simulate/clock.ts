/**
 * Virtual time, and the processes that live in it.
 *
 * V1. Time moves only from one due callback to the next, and only when nothing can go on without it.
 * V2. Code of a process runs in a callback of its timers or in an answer to one of its calls, and both come through `enter`: so a
 *     frozen process does nothing, and a dead one never does anything again.
 */
import type { Clock, Timer } from "../../kernel/clock.ts";

interface Entry {
  at: number;
  order: number;
  callback: (() => void) | undefined;
}

/** One queue of moments for all processes, the outside world and the store. */
export class VirtualTime implements Clock {
  #now: number;
  #order = 0;
  /** A binary heap: the next one first. */
  readonly #heap: Entry[] = [];

  constructor(start: number) {
    this.#now = start;
  }

  now(): number {
    return this.#now;
  }

  setTimer(callback: () => void, delayMs: number): Timer {
    // Whole milliseconds, as the system counts them.
    return this.at(this.#now + Math.max(0, Math.ceil(delayMs)), callback);
  }

  at(moment: number, callback: () => void): Timer {
    const entry: Entry = { at: Math.max(moment, this.#now), order: this.#order++, callback };
    this.#push(entry);
    return {
      cancel() {
        entry.callback = undefined;
      },
    };
  }

  /** When the next callback is due, or undefined. */
  nextAt(): number | undefined {
    while (this.#heap[0] && !this.#heap[0].callback) this.#pop();
    return this.#heap[0]?.at;
  }

  /** Moves to the next moment and calls what is due there first. */
  fire(): void {
    if (this.nextAt() === undefined) return;
    const { at, callback } = this.#pop();
    this.#now = at;
    callback?.();
  }

  /** Skips ahead: whatever was set for the time between fires afterwards. */
  jumpTo(moment: number): void {
    this.#now = Math.max(this.#now, moment);
    // In order, a list is a heap; and those that meet at the same moment now keep their order.
    this.#heap.sort((a, b) => (before(a, b) ? -1 : 1));
    for (const entry of this.#heap) {
      entry.at = Math.max(entry.at, this.#now);
      entry.order = this.#order++;
    }
  }

  #push(entry: Entry): void {
    const heap = this.#heap;
    let i = heap.push(entry) - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!before(entry, heap[parent] as Entry)) break;
      heap[i] = heap[parent] as Entry;
      i = parent;
    }
    heap[i] = entry;
  }

  #pop(): Entry {
    const heap = this.#heap;
    const first = heap[0] as Entry;
    const last = heap.pop() as Entry;
    if (heap.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && before(heap[child + 1] as Entry, heap[child] as Entry)) child += 1;
      if (!before(heap[child] as Entry, last)) break;
      heap[i] = heap[child] as Entry;
      i = child;
    }
    heap[i] = last;
    return first;
  }
}

function before(a: Entry, b: Entry): boolean {
  return a.at < b.at || (a.at === b.at && a.order < b.order);
}

/** What a crash and a freeze strike: everything that runs in one process. It shows a clock of its own. */
export class SimulatedProcess implements Clock {
  readonly #time: VirtualTime;
  #late: (() => void)[] = [];
  #frozen = false;
  alive = true;
  /** How far its wall clock is ahead of the store's, in milliseconds. Timers do not jump with it. */
  offsetMs: number;
  /** How often its wall clock was set back, and how often it had been when it last renewed its lease. */
  setBacks = 0;
  setBacksAtRenewal = 0;

  constructor(time: VirtualTime, offsetMs = 0) {
    this.#time = time;
    this.offsetMs = offsetMs;
  }

  now(): number {
    return this.#time.now() + this.offsetMs;
  }

  setTimer(callback: () => void, delayMs: number): Timer {
    let cancelled = false;
    const timer = this.#time.setTimer(() => this.enter(() => !cancelled && callback()), Math.min(delayMs, longestTimer));
    return {
      cancel() {
        cancelled = true;
        timer.cancel();
      },
    };
  }

  get frozen(): boolean {
    return this.#frozen;
  }

  /** Runs code of this process: now, when it thaws, or never. */
  enter(code: () => void): void {
    if (!this.alive) return;
    if (this.#frozen) this.#late.push(code);
    else code();
  }

  freeze(): void {
    this.#frozen = true;
  }

  /** What came late comes one after the other, each in a turn of its own. */
  thaw(): void {
    this.#frozen = false;
    for (const code of this.#late.splice(0)) this.#time.setTimer(() => this.enter(code), 0);
  }

  die(): void {
    this.alive = false;
    this.#late = [];
  }
}

/** As in `Clock`: a longer delay is cut to this. */
const longestTimer = 2 ** 31 - 1;
