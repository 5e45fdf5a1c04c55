/** Transactions that are not of the store alone: the user's own, and those that the handler of an effect is given. */
import { AbstractRuntimeError, isError, invalidOption } from "../../kernel/errors.ts";
import type { Mail } from "../../kernel/message.ts";
import type { NewRun, Transition } from "../../kernel/transition.ts";
import type { Store } from "../../kernel/store.ts";
import type { Applied } from "../group.ts";
import type { Call } from "./calls.ts";
import { identitySql, type PooledClient, type PostgresClient, type PostgresPool, type Statements } from "./connection.ts";
import type { Database } from "./database.ts";
import { codeOf, isDisconnected, storeError } from "./errors.ts";
import type { Reader } from "./read.ts";
import type { Wakes, Writer } from "./writer.ts";

type Work<T> = (client: unknown, commit: (transitions: readonly Transition[]) => Promise<Mail[][]>) => Promise<T>;

export class Transactions {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #writer: Writer;
  readonly #reader: Reader;
  readonly #name: string;
  readonly #told: (wakes: Wakes) => void;
  /** In the user's transaction: told when, and if, it commits. */
  readonly #tellWithin: (client: PostgresClient, wakes: Wakes) => Promise<void>;
  /** Clients that are known to be of this database. */
  readonly #known = new WeakSet<PostgresClient>();
  /** The last call on each client. Their savepoints have one name: one call after the other. */
  readonly #last = new WeakMap<PostgresClient, Promise<unknown>>();
  readonly #open = new Set<PooledClient>();
  /** Handlers that have a connection, or are getting one; and those that wait for one of them to end. */
  #taken = 0;
  readonly #waiting: (() => void)[] = [];
  #isClosed = false;

  constructor(
    database: Database,
    statements: Statements,
    writer: Writer,
    reader: Reader,
    name: string,
    told: (wakes: Wakes) => void,
    tellWithin: (client: PostgresClient, wakes: Wakes) => Promise<void>,
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#writer = writer;
    this.#reader = reader;
    this.#name = name;
    this.#told = told;
    this.#tellWithin = tellWithin;
  }

  /** As `within` of the store. @throws INVALID_OPTION */
  within(client: unknown): ReturnType<NonNullable<Store["within"]>> {
    if (!isClient(client)) throw invalid("transaction must be a client of `pg` on which a transaction was begun");
    if (isPool(client)) throw invalid("transaction is a pool: begin it on a client that pool.connect() gives, and pass that");
    // It would keep the first query until somebody connects it. (`pg` has no public word for that.)
    if ((client as { _connected?: boolean })._connected === false)
      throw invalid("transaction is a client that is not connected: await client.connect(), and begin");
    return {
      create: (runs: readonly NewRun[], workerId?: string) => this.#join(client, { kind: "create", runs, workerId }),
      deliver: (messages, limit) => this.#join(client, { kind: "deliver", messages, limit }),
      records: (runId, from, limit) => this.#guarded(client, () => this.#reader.records(client, runId, from, limit)),
    };
  }

  /** All or none by itself: whoever commits in spite of its failure commits nothing of it. */
  #join<T>(client: PostgresClient, call: Call): Promise<T> {
    return this.#guarded(client, async () => {
      const lanes = await this.#writer.prepareApart(client, [call]);
      const { applied, wakes } = await this.#writer.apply(client, [call], false, lanes);
      const value = answerOf<T>(applied);
      if (wakes.ready || wakes.holders.length > 0) await this.#tellWithin(client, wakes);
      return value;
    });
  }

  #guarded<T>(client: PostgresClient, work: () => Promise<T>): Promise<T> {
    const last = this.#last.get(client) ?? Promise.resolve();
    const next = last.then(() => this.#inSavepoint(client, work));
    const settled = next.catch(() => undefined);
    this.#last.set(client, settled);
    return next;
  }

  /** @throws TRANSACTION_INVALID */
  async #inSavepoint<T>(client: PostgresClient, work: () => Promise<T>): Promise<T> {
    try {
      await client.query("SAVEPOINT abstractruntime");
    } catch (error) {
      if (codeOf(error) === "25P01") throw ended("there is no transaction under way on the client given", error);
      if (codeOf(error) === "25P02") throw ended("the transaction on the client given has failed: roll it back", error);
      throw storeError(error, this.#name);
    }
    try {
      await this.#check(client);
      const answer = await work();
      await client.query("RELEASE SAVEPOINT abstractruntime");
      return answer;
    } catch (error) {
      if (!isDisconnected(error)) await client.query("ROLLBACK TO SAVEPOINT abstractruntime; RELEASE SAVEPOINT abstractruntime");
      throw storeError(error, this.#name);
    }
  }

  /** @throws INVALID_OPTION */
  async #check(client: PostgresClient): Promise<void> {
    if (this.#known.has(client)) return;
    const elsewhere = "transaction is on another database than the one in which the runs are kept";
    try {
      const [there] = await this.#statements.rows(client, identitySql, [], true);
      if (there?.id !== this.#statements.contentsId) throw invalid(elsewhere);
    } catch (error) {
      if (["42P01", "3F000"].includes(codeOf(error))) throw invalid(elsewhere);
      throw error;
    }
    this.#known.add(client);
  }

  /** As `transact` of the store. No more of them at a time than leave connections for the store's own calls, which they wait for. */
  async transact<T>(work: Work<T>): Promise<T> {
    if (this.#taken < this.#database.mostTaken) this.#taken += 1;
    else await new Promise<void>((given) => this.#waiting.push(given));
    try {
      return await this.#transact(work);
    } finally {
      const next = this.#waiting.shift();
      if (next) next();
      else this.#taken -= 1;
    }
  }

  async #transact<T>(work: Work<T>): Promise<T> {
    if (this.#isClosed) throw new AbstractRuntimeError("STORE_CLOSED", { store: this.#name });
    const { client, xid } = await this.#begin();
    this.#open.add(client);
    let isLost = false;
    const lost = (): void => {
      isLost = true;
    };
    client.on("error", lost);
    const committed: Committed = { transitions: [], wakes: undefined, release: undefined };
    let isDone = false;
    try {
      const answer = await work(client, (transitions) => this.#commit(client, xid, transitions, committed));
      await this.#end(client, committed);
      isDone = true;
      if (committed.wakes) this.#told(committed.wakes);
      return answer;
    } catch (error) {
      if (!isError(error) && (isLost || isDisconnected(error))) throw storeError(error, this.#name);
      throw error;
    } finally {
      committed.release?.();
      client.off("error", lost);
      // Not used again unless all went well: a handler that was given up may still write with it.
      if (this.#open.delete(client)) this.#database.giveBack(client, !isDone);
    }
  }

  #begin(): Promise<{ client: PooledClient; xid: string }> {
    return this.#database.run(async () => {
      const client = await this.#database.connect();
      try {
        await client.query("BEGIN ISOLATION LEVEL READ COMMITTED");
        const { rows } = await client.query("SELECT pg_current_xact_id()::text AS xid");
        return { client, xid: rows[0].xid as string };
      } catch (error) {
        this.#database.giveBack(client, true);
        throw error;
      }
    });
  }

  /** @throws TRANSACTION_INVALID when the handler has ended the transaction itself, or a statement of his failed in it. */
  async #commit(client: PooledClient, xid: string, transitions: readonly Transition[], committed: Committed): Promise<Mail[][]> {
    try {
      const { rows } = await client.query("SELECT pg_current_xact_id_if_assigned()::text AS xid");
      if (rows[0].xid !== xid)
        throw ended("the handler has ended the transaction that it was given, which is the runtime's to end");
      if (transitions.length === 0) return [];
      const calls: Call[] = [{ kind: "commit", transitions }];
      // Behind the commits of its run that are under way, and before those made after it.
      committed.release = await this.#writer.hold(calls);
      const lanes = await this.#writer.prepareApart(client, calls);
      const { applied, wakes } = await this.#writer.apply(client, calls, false, lanes);
      committed.wakes = wakes;
      committed.transitions = transitions;
      return answerOf(applied);
    } catch (error) {
      if (codeOf(error) === "25P02")
        throw ended("a statement of the handler failed in the transaction that it was given, so that it cannot go on", error);
      throw storeError(error, this.#name);
    }
  }

  /** An answer that was lost leaves open whether all of it stands or nothing: its records tell (S2). */
  async #end(client: PooledClient, { transitions }: Committed): Promise<void> {
    try {
      const { command } = await client.query("COMMIT");
      if (command === "ROLLBACK") throw ended("a statement failed in the transaction behind the commit, which was rolled back");
    } catch (error) {
      if (!isDisconnected(error) || transitions.length === 0 || !(await this.#stand(transitions))) throw error;
    }
  }

  async #stand(transitions: readonly Transition[]): Promise<boolean> {
    for (const { runId, records } of transitions) {
      const [first] = records;
      if (!first) continue;
      const stored = await this.#database.run((client) => this.#reader.records(client, runId, first.seq, records.length));
      if (!records.every(({ header }, i) => stored[i]?.header === header)) return false;
    }
    return transitions.some(({ records }) => records.length > 0);
  }

  /** What is under way is rolled back. */
  close(): void {
    this.#isClosed = true;
    for (const client of this.#open) {
      this.#open.delete(client);
      this.#database.giveBack(client, true);
    }
  }
}

interface Committed {
  transitions: readonly Transition[];
  wakes: Wakes | undefined;
  /** Lets the calls go that were made for its runs meanwhile. */
  release: (() => void) | undefined;
}

function isClient(client: unknown): client is PostgresClient {
  return typeof client === "object" && client !== null && typeof (client as Partial<PostgresClient>).query === "function";
}

function isPool(client: PostgresClient): boolean {
  return typeof (client as Partial<PostgresPool>).idleCount === "number";
}

function answerOf<T>([applied]: readonly Applied[]): T {
  if (applied && "error" in applied) throw applied.error;
  return (applied as { value: T }).value;
}

function ended(problem: string, cause?: unknown): AbstractRuntimeError<"TRANSACTION_INVALID"> {
  return new AbstractRuntimeError("TRANSACTION_INVALID", { problem }, cause);
}

function invalid(problem: string): AbstractRuntimeError<"INVALID_OPTION"> {
  return invalidOption("transaction", problem);
}
