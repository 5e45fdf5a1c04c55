/**
 * Transactions for the handlers of effects, on a second connection to the file.
 *
 * SQLite lets one connection write at a time. So in one process they come one after the other, and the store's own writes take turns
 * with them: they go before the next one, or many handlers would keep them waiting for ever. Between processes the file's lock decides.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { DatabaseSync } from "node:sqlite";
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { Mail } from "../../kernel/message.ts";
import type { Transition } from "../../kernel/transition.ts";
import type { Wakes } from "../listeners.ts";
import { isBusy, storeError } from "./errors.ts";
import { blockingMs, patiently } from "./patience.ts";
import { setDurable } from "./schema.ts";
import { Joined } from "./within.ts";

type Work<T> = (client: DatabaseSync, commit: (transitions: readonly Transition[]) => Promise<Mail[][]>) => Promise<T>;

interface Connection {
  database: DatabaseSync;
  joined: Joined;
}

export class Transactions {
  readonly #file: string;
  readonly #name: string;
  readonly #clock: Clock;
  readonly #busyTimeoutMs: number;
  readonly #committed: (wakes: Wakes) => void;
  readonly #turns = new Turns();
  /** What runs inside it was called by the handler of a transaction. */
  readonly #inside = new AsyncLocalStorage<{ over: boolean }>();
  #connection: Connection | undefined;
  #closed = false;

  constructor(file: string, name: string, clock: Clock, busyTimeoutMs: number, committed: (wakes: Wakes) => void) {
    this.#file = file;
    this.#name = name;
    this.#clock = clock;
    this.#busyTimeoutMs = busyTimeoutMs;
    this.#committed = committed;
  }

  /** As `transact` of the store. */
  async run<T>(work: Work<T>): Promise<T> {
    const endTurn = (await this.#turns.take()) as () => void;
    const inside = { over: false };
    try {
      return await this.#run((client, commit) => this.#inside.run(inside, () => work(client, commit)));
    } finally {
      inside.over = true;
      endTurn();
    }
  }

  async #run<T>(work: Work<T>): Promise<T> {
    const { database, joined } = this.#guarded(() => this.#open());
    try {
      await patiently(() => this.#exec(database, "BEGIN IMMEDIATE"), this.#name, this.#busyTimeoutMs, this.#clock);
      joined.wakes.clear();
      this.#exec(database, mark);
      const answer = await work(database, async (transitions) => {
        this.#checkOpen();
        if (!isMarked(database))
          throw new AbstractRuntimeError("TRANSACTION_INVALID", {
            problem: "the handler has ended the transaction that it was given, which is the runtime's to end",
          });
        return transitions.length === 0 ? [] : joined.call((transaction) => transaction.commit(transitions));
      });
      this.#exec(database, "COMMIT");
      this.#committed(joined.wakes);
      return answer;
    } catch (error) {
      // Never used again: a handler that was given up may still write with it.
      this.#connection = undefined;
      if (database.isOpen && database.isTransaction) database.exec("ROLLBACK");
      if (database.isOpen) database.close();
      throw error;
    }
  }

  /** Whether there is none, so that nobody has to wait for a turn. */
  get areFree(): boolean {
    return this.#turns.areFree;
  }

  /** A turn for the store's own writes. Answers with what ends it. @throws STORE_BUSY */
  async turn(): Promise<() => void> {
    const endTurn = await this.#turns.take({ timeoutMs: this.#busyTimeoutMs, clock: this.#clock });
    if (!endTurn) throw new AbstractRuntimeError("STORE_BUSY", { store: this.#name, waitedMs: this.#busyTimeoutMs });
    return endTurn;
  }

  /** @throws TRANSACTION_INVALID where the handler of a transaction would wait for its own lock. */
  checkOutside(): void {
    const inside = this.#inside.getStore();
    if (!inside || inside.over) return;
    const problem =
      "the handler of a transactional effect called the runtime without `transaction: ctx.transaction`: on SQLite, the call would wait for the handler's own lock";
    throw new AbstractRuntimeError("TRANSACTION_INVALID", { problem });
  }

  /** What is under way is rolled back. */
  close(): void {
    this.#closed = true;
    if (this.#connection?.database.isOpen) this.#connection.database.close();
  }

  #open(): Connection {
    this.#checkOpen();
    if (!this.#connection) {
      const database = new DatabaseSync(this.#file, { timeout: blockingMs });
      setDurable(database);
      this.#connection = { database, joined: new Joined(database, this.#name, this.#clock) };
    }
    return this.#connection;
  }

  #exec(database: DatabaseSync, sql: string): void {
    this.#checkOpen();
    this.#guarded(() => database.exec(sql));
  }

  /** A lock is for `patiently` to wait for. */
  #guarded<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw isBusy(error) ? error : storeError(error, this.#name);
    }
  }

  #checkOpen(): void {
    if (this.#closed) throw new AbstractRuntimeError("STORE_CLOSED", { store: this.#name });
  }
}

/** Stands in the transaction, so that another one, which a handler has begun in its place, is told from it. */
const mark = "SAVEPOINT abstractruntime_handler";

function isMarked(database: DatabaseSync): boolean {
  try {
    database.exec(`RELEASE abstractruntime_handler; ${mark}`);
    return true;
  } catch {
    // There is no such savepoint, or no transaction.
    return false;
  }
}

/** One at a time. */
class Turns {
  #isTaken = false;
  readonly #waiting: (() => void)[] = [];

  get areFree(): boolean {
    return !this.#isTaken;
  }

  /** Answers with what ends the turn. @param first Goes before the others, and is given up after a time: it then answers undefined. */
  async take(first?: { timeoutMs: number; clock: Clock }): Promise<(() => void) | undefined> {
    if (this.#isTaken && !(await this.#wait(first))) return undefined;
    this.#isTaken = true;
    return () => {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#isTaken = false;
    };
  }

  #wait(first: { timeoutMs: number; clock: Clock } | undefined): Promise<boolean> {
    return new Promise((resolve) => {
      if (!first) return void this.#waiting.push(() => resolve(true));
      const begin = (): void => {
        timer.cancel();
        resolve(true);
      };
      const timer = first.clock.setTimer(
        () => {
          this.#waiting.splice(this.#waiting.indexOf(begin), 1);
          resolve(false);
        },
        first.timeoutMs,
        true,
      );
      this.#waiting.unshift(begin);
    });
  }
}
