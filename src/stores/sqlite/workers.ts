/**
 * The workers over one file, of this store object and of others: whether they live, and how they tell each other that something was
 * written. One that lives holds its mark (`liveness.ts`); whoever listens hears the bell (`bell.ts`).
 */
import type { Clock } from "../../kernel/clock.ts";
import { Listeners, type Wakes } from "../listeners.ts";
import { Bell, sharedBell } from "./bell.ts";
import { isAwaited } from "./due.ts";
import { isBusy } from "./errors.ts";
import type { Lanes } from "./lanes.ts";
import { dropMark, holdMark, isDead, type Mark, markName, markPath, marksOf } from "./liveness.ts";
import type { Reader } from "./read.ts";

/** Whether there are other workers is looked up at most so often. */
const othersMs = 100;

export class Workers {
  readonly #file: string;
  readonly #reader: Reader;
  readonly #lanes: Lanes;
  readonly #clock: Clock;
  /** Of the workers of this store object. */
  readonly #marks = new Map<string, Mark>();
  readonly #listeners = new Listeners();
  readonly #bell: Bell;
  /** Whether there were workers of other store objects, when that was looked up. */
  #others = { exist: false, at: Number.NEGATIVE_INFINITY };

  constructor(file: string, reader: Reader, lanes: Lanes, clock: Clock) {
    this.#file = file;
    this.#reader = reader;
    this.#lanes = lanes;
    this.#clock = clock;
    const isOwn = (name: string): boolean => [...this.#marks.keys()].some((workerId) => markName(workerId) === name);
    this.#bell = new Bell(marksOf(file), isOwn, () => this.#listeners.ring());
  }

  /** A worker of this store object lives from now on. */
  hold(workerId: string): void {
    if (this.#file === ":memory:" || this.#marks.has(workerId)) return;
    this.#marks.set(workerId, holdMark(markPath(this.#file, workerId)));
  }

  letGo(workerId: string): void {
    this.#marks.get(workerId)?.release();
    this.#marks.delete(workerId);
  }

  /** Calls with what was written here and elsewhere, until it is told to stop. */
  hear(heard: () => void): () => void {
    const stop = this.#listeners.add(heard);
    if (this.#file !== ":memory:") this.#bell.listen();
    return () => {
      stop();
      if (this.#listeners.count === 0) this.#bell.close();
    };
  }

  close(): void {
    this.#listeners.close();
    this.#bell.close();
    for (const mark of this.#marks.values()) mark.release();
  }

  /** What dead workers held was taken from them. */
  bury(dead: readonly string[]): void {
    for (const id of dead) dropMark(markPath(this.#file, id));
  }

  /** Workers of other store objects whose process is dead, but for the one that asks. */
  dead(claimer: string): string[] {
    if (this.#file === ":memory:") return [];
    try {
      const others = this.#otherWorkers().filter((id) => id !== claimer);
      return others.filter((id) => isDead(markPath(this.#file, id)));
    } catch (error) {
      // Momentarily locked: a later claim will tell, or the lease.
      if (isBusy(error)) return [];
      throw error;
    }
  }

  /** As far as the marks tell. */
  isAlive(workerId: string): boolean {
    return this.#file === ":memory:" || this.#marks.has(workerId) || !isDead(markPath(this.#file, workerId));
  }

  /** Workers of other store objects, most likely in other processes. */
  #otherWorkers(): string[] {
    const others = this.#reader.workers().filter((id) => !this.#marks.has(id));
    this.#others = { exist: others.length > 0, at: this.#clock.now() };
    return others;
  }

  /** Tells listeners what the batch just committed may mean to them. Whoever is alone with the store pays nothing for this. */
  #tell(wakes: Wakes): void {
    const { ready, holders, freed } = wakes;
    if (!ready && holders.size === 0 && freed.size === 0) return;
    // A single listener is the one who called.
    const isHeardHere = this.#listeners.count > 1;
    if (!isHeardHere && !this.#hasOthers()) return;
    const isDue = ready || (freed.size > 0 && isAwaited(freed, this.#lanes, this.#reader, this.#clock.now()));
    if (isHeardHere && (isDue || holders.size > 0)) this.#listeners.ring();
    if (this.#others.exist && (isDue || [...holders].some((id) => !this.#marks.has(id)))) this.#ringBell();
  }

  /** What was written stands; that nobody was told of it is made up for by looking. */
  tellQuietly(wakes: Wakes): void {
    try {
      this.#tell(wakes);
    } catch {
      // See above.
    }
  }

  /** After a transaction of the user's: what came of it is not known, and whoever wrote in it was told nothing before. */
  tellEverybody(): void {
    this.#listeners.ring();
    try {
      if (this.#hasOthers()) this.#ringBell();
    } catch {
      // As with `tellQuietly`.
    }
  }

  #ringBell(): void {
    const [workerId] = this.#marks.keys();
    this.#bell.ring(workerId === undefined ? sharedBell : markName(workerId), this.#clock.now());
  }

  #hasOthers(): boolean {
    if (this.#file === ":memory:") return false;
    const now = this.#clock.now();
    // Also when the clock was set back.
    if (!(now - this.#others.at >= 0 && now - this.#others.at < othersMs)) this.#otherWorkers();
    return this.#others.exist;
  }
}
