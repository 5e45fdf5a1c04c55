/**
 * Work on a connection of the pool, made again while that may help: when another transaction stood in the way, when the connection
 * was lost, when the server restarts. It is never a run's failure.
 */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { lockTimeoutMs } from "./apply-parameters.ts";
import type { PooledClient, PostgresPool, Statements } from "./connection.ts";
import { isDisconnected, isInTheWay, isUnprepared } from "./errors.ts";

/** @param again Whether an earlier attempt may have been carried out, and only its answer was lost. */
export type Work<T> = (client: PooledClient, again: boolean) => Promise<T>;

/** Whether it is not worth another try; `again` as in `Work`. */
export type IsFinal = (error: unknown, again: boolean) => boolean;

const longestPauseMs = 1_000;
/** A connection that was used goes back to the pool when nobody has wanted it for so long: taking it out costs as much as a step. */
const keptMs = 20;

export class Database {
  readonly #pool: PostgresPool;
  readonly #name: string;
  readonly #timeoutMs: number;
  readonly #statements: Statements;
  /** The connection that was used last, until it goes back. */
  #kept: PooledClient | undefined;
  #wasWanted = false;
  #returning: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(pool: PostgresPool, name: string, timeoutMs: number, statements: Statements) {
    this.#pool = pool;
    this.#name = name;
    this.#timeoutMs = timeoutMs;
    this.#statements = statements;
  }

  /** @throws STORE_BUSY, STORE_UNAVAILABLE when it took too long, and what `work` throws. */
  async run<T>(work: Work<T>, isFinal: IsFinal = () => false): Promise<T> {
    const startedAt = performance.now();
    let again = false;
    for (let tries = 1; ; tries++) {
      try {
        return await this.once((client) => work(client, again));
      } catch (error) {
        const isLost = isDisconnected(error);
        if (isFinal(error, again) || !(isLost || isInTheWay(error) || isUnprepared(error))) throw error;
        again ||= isLost;
        if (isUnprepared(error)) this.#statements.prepared = false;
        const waitedMs = Math.round(performance.now() - startedAt);
        if (waitedMs >= this.#timeoutMs) throw this.#gaveUp(error, isLost, waitedMs);
        // Uneven pauses, so that two processes do not meet again and again.
        if (!isUnprepared(error)) await pause(Math.min(longestPauseMs, 2 ** tries * (isLost ? 10 : 1)) * (0.5 + Math.random()));
      }
    }
  }

  async once<T>(work: (client: PooledClient) => Promise<T>): Promise<T> {
    const client = this.#takeKept() ?? (await this.connect());
    let isBroken = false;
    try {
      return await work(client);
    } catch (error) {
      isBroken = isDisconnected(error);
      throw error;
    } finally {
      if (isBroken || this.#kept || this.#isClosed || this.#isWaitedFor) this.giveBack(client, isBroken);
      else this.#keep(client);
    }
  }

  #takeKept(): PooledClient | undefined {
    const client = this.#kept;
    this.#kept = undefined;
    this.#wasWanted = true;
    return client;
  }

  #keep(client: PooledClient): void {
    this.#kept = client;
    this.#returning ??= setTimeout(() => this.#return(), keptMs).unref();
  }

  #return(): void {
    this.#returning = undefined;
    if (!this.#kept) return;
    if (this.#wasWanted && !this.#isWaitedFor) {
      this.#wasWanted = false;
      this.#keep(this.#kept);
      return;
    }
    this.giveBack(this.#kept, false);
    this.#kept = undefined;
  }

  /** Before the pool is ended, which waits for what was taken out of it. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#returning);
    if (this.#kept) this.giveBack(this.#kept, false);
    this.#kept = undefined;
  }

  /** Takes a client out of the pool. What is lost while no statement is under way is told by the next one. */
  async connect(): Promise<PooledClient> {
    const client = await this.#pool.connect();
    client.on("error", ignore);
    return client;
  }

  /** Whether somebody waits for a connection: a call of ours, or whoever else uses the pool. */
  get #isWaitedFor(): boolean {
    return (this.#pool.waitingCount ?? 0) > 0;
  }

  /** Whether a connection would have to be waited for. */
  get isFull(): boolean {
    const { idleCount, totalCount, options } = this.#pool;
    if (this.#kept || idleCount === undefined || totalCount === undefined) return false;
    return idleCount === 0 && totalCount >= (options?.max ?? 10);
  }

  /** How many connections there are at most. */
  get most(): number {
    return this.#pool.options?.max ?? 10;
  }

  /** How many may be taken for long at the same time: the others stay for what is short. */
  get mostTaken(): number {
    return Math.max(1, this.most - 2);
  }

  giveBack(client: PooledClient, destroy: boolean): void {
    client.off("error", ignore);
    // Until its socket is closed it may still say that it was lost.
    if (destroy) client.on("error", ignore);
    client.release(destroy);
  }

  /** Several statements, all or none. */
  transaction<T>(work: Work<T>, isFinal?: IsFinal): Promise<T> {
    return this.#transaction(`BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = ${lockTimeoutMs}`, work, isFinal);
  }

  /** Several statements that read, as of one moment. */
  atOnce<T>(work: Work<T>): Promise<T> {
    return this.#transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", work);
  }

  #transaction<T>(begin: string, work: Work<T>, isFinal?: IsFinal): Promise<T> {
    return this.run(async (client, again) => {
      await client.query(begin);
      try {
        const answer = await work(client, again);
        await client.query("COMMIT");
        return answer;
      } catch (error) {
        if (!isDisconnected(error)) await client.query("ROLLBACK");
        throw error;
      }
    }, isFinal);
  }

  #gaveUp(error: unknown, isLost: boolean, waitedMs: number): AbstractRuntimeError {
    if (!isLost) return new AbstractRuntimeError("STORE_BUSY", { store: this.#name, waitedMs }, error);
    const problem = `${error instanceof Error ? error.message : String(error)}; it was tried for ${waitedMs} ms`;
    return new AbstractRuntimeError("STORE_UNAVAILABLE", { store: this.#name, problem }, error);
  }
}

const ignore = (): void => undefined;

/** By the system's clock, whatever clock the store has: what is waited for is a server, which keeps its own time. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
