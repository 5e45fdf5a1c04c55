/** The store's writes in a transaction that was begun elsewhere, on another connection to the same file. */
import { realpathSync } from "node:fs";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError, invalidOption } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { Wakes } from "../listeners.ts";
import { storeError } from "./errors.ts";
import { Lanes } from "./lanes.ts";
import { Reader } from "./read.ts";
import { Transaction } from "./transaction.ts";

const longestWatchMs = 1_000;

export class Joined {
  readonly #client: DatabaseSync;
  readonly #name: string;
  readonly #reader: Reader;
  readonly #lanes: Lanes;
  readonly #transaction: Transaction;
  readonly #clock: Clock;
  #isWatched = false;

  constructor(client: DatabaseSync, name: string, clock: Clock) {
    this.#client = client;
    this.#name = name;
    this.#clock = clock;
    this.#reader = new Reader(asWeRead(client));
    this.#lanes = new Lanes(this.#reader);
    this.#transaction = new Transaction(client, name, this.#reader, this.#lanes, clock);
  }

  /** What the last call did that somebody may want to hear of, once it is committed. */
  get wakes(): Wakes {
    return this.#transaction.wakes;
  }

  /** All or none by itself: whoever commits in spite of its failure commits nothing of it. @throws TRANSACTION_INVALID */
  call<T>(action: (transaction: Transaction) => T): T {
    checkUnderWay(this.#client);
    // What was seen in an earlier transaction may have been rolled back.
    this.#reader.rolledBack();
    this.#lanes.rolledBack();
    this.#transaction.join();
    try {
      this.#reader.prepare("SAVEPOINT abstractruntime").run();
      try {
        const answer = action(this.#transaction);
        this.#transaction.writeRows();
        return answer;
      } catch (error) {
        // A full disk, say, has ended the transaction as a whole.
        if (this.#client.isTransaction) this.#reader.prepare("ROLLBACK TO abstractruntime").run();
        throw error;
      } finally {
        if (this.#client.isTransaction) this.#reader.prepare("RELEASE abstractruntime").run();
      }
    } catch (error) {
      throw storeError(error, this.#name);
    }
  }

  /**
   * Calls `tell` once when the transaction is over. Only the user's connection knows when that is, so it is asked: in the next turn of
   * the loop, and then less and less often. In a long one nobody is told, and whoever looks now and then finds what there is.
   */
  afterwards(tell: () => void): void {
    if (this.#isWatched) return;
    this.#isWatched = true;
    let pauseMs = 1;
    const look = (): void => {
      const isOver = !this.#client.isOpen || !this.#client.isTransaction;
      if (!isOver && pauseMs < longestWatchMs) {
        pauseMs *= 2;
        this.#clock.setTimer(look, pauseMs);
        return;
      }
      this.#isWatched = false;
      if (isOver) tell();
    };
    setImmediate(look);
  }

  records(runId: string, from: number, limit: number): StoredRecord[] {
    checkUnderWay(this.#client);
    return this.#reader.records(runId, from, limit);
  }
}

/** @throws INVALID_OPTION, TRANSACTION_INVALID */
export function checkClient(client: unknown, file: string): asserts client is DatabaseSync {
  const refuse = (problem: string): never => {
    throw invalidOption("transaction", problem);
  };
  if (!(client instanceof DatabaseSync))
    return refuse("transaction must be a DatabaseSync of node:sqlite, opened on the file of the store");
  checkUnderWay(client);
  const place = client.location();
  if (place === null || realpathSync(place) !== realpathSync(file))
    return refuse(`transaction is on ${place ?? "a database in memory"}, and the runs are kept in ${file}`);
}

/** @throws TRANSACTION_INVALID */
function checkUnderWay(client: DatabaseSync): void {
  if (client.isOpen && client.isTransaction) return;
  const problem = client.isOpen ? "there is no transaction under way on the connection given" : "the connection given is closed";
  throw new AbstractRuntimeError("TRANSACTION_INVALID", { problem });
}

/** His connection may give rows in other forms than ours. */
function asWeRead(client: DatabaseSync): DatabaseSync {
  const prepare = (sql: string): StatementSync => {
    const statement = client.prepare(sql);
    statement.setReadBigInts(false);
    statement.setReturnArrays(false);
    return statement;
  };
  return { prepare } as DatabaseSync;
}
