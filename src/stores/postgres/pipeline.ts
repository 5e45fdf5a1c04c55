/**
 * Group commit over a network: the calls of one turn of the event loop are applied together, and while they are on their way the
 * next are collected. Several groups are under way at once, but never two that touch the same run.
 *
 * P1. Calls for one run keep their order: what touches a run that an earlier call holds waits for it, and so does what is behind it.
 * P2. A call that touches everything (a claim) waits for all before it, and all behind it wait for it: of those that are made in one
 *     turn, the first wins.
 * P3. A call that found something locked is late: nobody waits for it any more but what touches its runs. Or one locked run would
 *     keep a worker from all its others.
 */
import type { Applied } from "../group.ts";

/** The runs that a call touches; undefined: everything. */
export type Keys = readonly string[] | undefined;

type Apply<Call> = (calls: readonly Call[], late: boolean) => Promise<readonly Applied[]>;

interface Waiting<Call> {
  call: Call;
  keys: Keys;
  /** In a group of its own. */
  alone: boolean;
  late: boolean;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** How a group failed, if not every call is told so: its calls are made one by one, and are late. */
export class Apart extends Error {}

export class Pipeline<Call> {
  readonly #apply: Apply<Call>;
  readonly #width: number;
  readonly #largest: number;
  #queue: Waiting<Call>[] = [];
  /** Runs that calls under way touch, and whether these are late. */
  readonly #held = new Map<string, boolean>();
  #everything = false;
  #underWay = 0;
  #late = 0;
  #groups = 0;
  #scheduled = false;
  #idle: (() => void)[] = [];

  /**
   * @param width Groups under way at once.
   * @param largest Calls in a group.
   */
  constructor(width: number, largest: number, apply: Apply<Call>) {
    this.#width = width;
    this.#largest = largest;
    this.#apply = apply;
  }

  /** @param alone In a group of its own. */
  add<T>(call: Call, keys: Keys, alone = false): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#queue.push({ call, keys, alone, late: false, resolve: resolve as (value: unknown) => void, reject });
      this.#schedule();
    });
  }

  /** Whether a call waits to be sent. */
  get isWaiting(): boolean {
    return this.#queue.length > 0;
  }

  /** Resolves when no call is under way or waits. */
  idle(): Promise<void> {
    if (this.#queue.length === 0 && this.#underWay === 0) return Promise.resolve();
    return new Promise((resolve) => this.#idle.push(resolve));
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      this.#dispatch();
    });
  }

  #dispatch(): void {
    if (this.#everything) return;
    const waiting: Waiting<Call>[] = [];
    /** Runs that those before touch which wait, and whether it is for one that is late. */
    const blocked = new Map<string, boolean>();
    /** Whether there is one before that a call which touches everything waits for. */
    let isKept = this.#underWay > this.#late;
    let isClosed = false;
    let group: Waiting<Call>[] = [];
    const send = (): void => {
      if (group.length > 0) void this.#send(group);
      group = [];
    };
    for (const one of this.#queue) {
      const { keys, alone, late } = one;
      if (isClosed) {
        waiting.push(one);
        continue;
      }
      if (keys === undefined) {
        isClosed = true;
        if (isKept) waiting.push(one);
        else void this.#send([one]);
        continue;
      }
      // What was collected is on its way first, and holds its runs.
      if (alone) send();
      // What was collected is on its way first, and holds its runs.
      if (alone) send();
      const before = keys.map((key) => blocked.get(key) ?? this.#held.get(key)).filter((isLate) => isLate !== undefined);
      const isFull = !alone && group.length === 0 && this.#groups >= this.#width;
      if (before.length > 0 || isFull) {
        const isLate = late || before.includes(true);
        for (const key of keys) blocked.set(key, isLate);
        isKept ||= !isLate;
        waiting.push(one);
        continue;
      }
      isKept ||= !late;
      if (alone) {
        void this.#send([one]);
      } else {
        group.push(one);
        if (group.length >= this.#largest) send();
      }
    }
    send();
    this.#queue = waiting;
  }

  async #send(group: readonly Waiting<Call>[]): Promise<void> {
    const [first] = group as [Waiting<Call>];
    const { late } = first;
    const keys = group.flatMap((one) => one.keys ?? []);
    const isEverything = first.keys === undefined;
    const isGroup = !first.alone && !isEverything;
    for (const key of keys) this.#held.set(key, late);
    this.#everything ||= isEverything;
    this.#underWay += 1;
    if (late) this.#late += 1;
    if (isGroup) this.#groups += 1;
    const calls = group.map(({ call }) => call);
    let settle = (): void => undefined;
    try {
      const applied = await this.#apply(calls, late);
      settle = () => {
        group.forEach(({ resolve, reject }, i) => {
          const result = applied[i] as Applied;
          if ("error" in result) reject(result.error);
          else resolve(result.value);
        });
      };
    } catch (error) {
      const apart = (one: Waiting<Call>): Waiting<Call> => ({ ...one, keys: one.keys ?? [], alone: true, late: true });
      if (error instanceof Apart) this.#queue.unshift(...group.map(apart));
      else
        settle = () => {
          for (const { reject } of group) reject(error);
        };
    }
    for (const key of keys) this.#held.delete(key);
    if (isEverything) this.#everything = false;
    this.#underWay -= 1;
    if (late) this.#late -= 1;
    if (isGroup) this.#groups -= 1;
    settle();
    if (this.#queue.length > 0) this.#schedule();
    else if (this.#underWay === 0) for (const resolve of this.#idle.splice(0)) resolve();
  }
}
