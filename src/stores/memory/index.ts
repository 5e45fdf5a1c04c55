/**
 * The store in memory: the contract in its plainest form, to read, to test with, and for work that may end with its process.
 *
 * M1. Every write goes through the group, in the order of the calls, each as one synchronous piece of code: that makes it atomic
 *     (S1) and keeps in order what is sent ahead (S3).
 * M2. A commit checks all its transitions before it writes any.
 * M3. What is stored is copied on its way in and on its way out: nobody else's object is ever part of the store.
 */
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { AbstractRuntimeError, checkOptions } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type {
  Blocked,
  Capability,
  Checkpoint,
  Delivery,
  Lease,
  Loaded,
  Mail,
  Message,
  NewRun,
  RunPage,
  RunQuery,
  Store,
  StoreStats,
  Transition,
} from "../../kernel/store.ts";
import { type Applied, Group } from "../group.ts";
import { Listeners } from "../listeners.ts";
import { Contents } from "./contents.ts";
import { Reader } from "./read.ts";
import { Transaction } from "./transaction.ts";

export interface MemoryOptions {
  /** Default: the system's. */
  clock?: Clock;
}

/**
 * A store that lives in this process and ends with it.
 *
 * @throws INVALID_OPTION
 */
export function memoryStore(options: MemoryOptions = {}): Store {
  checkOptions(options, ["clock"], "memoryStore()");
  return new MemoryStore(options.clock ?? systemClock);
}

/** One write, as the group carries it. */
type Call = (transaction: Transaction) => unknown;

class MemoryStore implements Store {
  readonly name = "memory";
  readonly #clock: Clock;
  readonly #reader: Reader;
  readonly #transaction: Transaction;
  readonly #group: Group<Call>;
  readonly #listeners = new Listeners();
  #closing: Promise<void> | undefined;

  constructor(clock: Clock) {
    const contents = new Contents();
    this.#clock = clock;
    this.#reader = new Reader(contents);
    this.#transaction = new Transaction(contents, clock);
    this.#group = new Group(clock, (calls) => this.#apply(calls));
  }

  renew(workerId: string, ttlMs: number): Promise<number> {
    return this.#write((transaction) => transaction.renew(workerId, ttlMs));
  }

  retire(workerId: string): Promise<void> {
    return this.#write((transaction) => transaction.retire(workerId));
  }

  create(runs: readonly NewRun[], workerId?: string): Promise<boolean[]> {
    return this.#write((transaction) => runs.map((run) => transaction.create(run, workerId)));
  }

  commit(transitions: readonly Transition[]): Promise<Mail[][]> {
    return this.#write((transaction) => transaction.commit(transitions));
  }

  deliver(messages: readonly Message[], limit?: number): Promise<Delivery[]> {
    return this.#write((transaction) => messages.map((message) => transaction.deliver(message, limit)));
  }

  claim(worker: Capability, options: { limit: number; runId?: string }): Promise<Loaded[]> {
    return this.#write((transaction) => transaction.claim(worker, options).map((runId) => this.#load(runId) as Loaded));
  }

  release(runId: string, lease: Lease, options: { blocked?: Blocked; mailSeen?: number }): Promise<void> {
    return this.#write((transaction) => transaction.release(runId, lease, options));
  }

  lift(runId: string): Promise<boolean> {
    return this.#write((transaction) => transaction.lift(runId));
  }

  async nextDue(worker: Capability): Promise<{ at: number | undefined; now: number }> {
    const now = this.#clock.now();
    return { at: this.#open().nextDue(worker, now), now };
  }

  async mail(runId: string, after: number): Promise<Mail[]> {
    return this.#open().mail(runId, after);
  }

  async news(workerId: string, after: number): Promise<{ runIds: string[]; position: number }> {
    return this.#open().news(workerId, after);
  }

  async listeners(
    key: string,
    options: { workflowId?: string; limit: number; cursor?: string },
  ): Promise<{ runIds: string[]; next?: string }> {
    return this.#open().listeners(key, options);
  }

  hear(heard: () => void): () => void {
    return this.#closing ? () => undefined : this.#listeners.add(heard);
  }

  async load(runId: string, options: { at?: number; whole?: boolean } = {}): Promise<Loaded | undefined> {
    this.#open();
    return this.#load(runId, options);
  }

  async records(runId: string, from: number, limit: number): Promise<StoredRecord[]> {
    return this.#open().records(runId, from, limit);
  }

  async checkpoints(runId: string): Promise<Checkpoint[]> {
    return this.#open().checkpoints(runId);
  }

  async query(query: RunQuery): Promise<RunPage> {
    return this.#open().query(query);
  }

  async counter(name: string): Promise<number> {
    return this.#open().counter(name);
  }

  async stats(): Promise<StoreStats> {
    return this.#open().stats(this.#clock.now());
  }

  close(): Promise<void> {
    this.#closing ??= this.#group.idle().then(() => this.#listeners.close());
    return this.#closing;
  }

  #load(runId: string, options: { at?: number; whole?: boolean } = {}): Loaded | undefined {
    return this.#reader.load(runId, this.#clock.now(), options);
  }

  #open(): Reader {
    if (this.#closing) throw this.#closed();
    return this.#reader;
  }

  #write<T>(call: (transaction: Transaction) => T): Promise<T> {
    return this.#closing ? Promise.reject(this.#closed()) : this.#group.add<T>(call);
  }

  /** Calls of one turn are applied together and fail alone. */
  #apply(calls: readonly Call[]): Applied[] {
    this.#transaction.begin();
    const applied = calls.map((call) => {
      try {
        return { value: call(this.#transaction) };
      } catch (error) {
        return { error };
      }
    });
    // A single listener is the one who called.
    if (this.#listeners.count > 1 && this.#transaction.wakes()) this.#listeners.ring();
    return applied;
  }

  #closed(): AbstractRuntimeError<"STORE_CLOSED"> {
    return new AbstractRuntimeError("STORE_CLOSED", { store: this.name });
  }
}
