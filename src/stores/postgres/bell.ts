/**
 * How processes tell each other that there may be something to do: LISTEN on a connection of its own, and NOTIFY outside the groups,
 * since the server lets only one notifying transaction commit at a time. A hint, and no more: when the connection is lost, or a pooler
 * stands in between, nobody hears anything, and everybody still looks now and then.
 *
 * B1. A run that is ready is for one worker, and all of them hear of it: each looks after a while of its own within a span that grows with
 *     their number. So the first looks as soon with a thousand as with three, and the looks of all are no more in a second.
 * B2. Nobody rings for what is ready while the looks after the last ring are still to come, from wherever that came. A ring that is heard
 *     tells of everything that was ready before it.
 */
import { sha256 } from "../../kernel/record.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import type { Database } from "./database.ts";
import { arrayOf } from "./encode.ts";
import type { Wakes } from "./writer.ts";

/** A client of `pg` that is not in a pool. */
export interface ListeningClient extends PostgresClient {
  connect(): Promise<unknown>;
  end(): Promise<void>;
  on(event: "notification", listener: (message: { payload?: string }) => void): unknown;
  on(event: "error" | "end", listener: () => void): unknown;
  ref?(): void;
  unref?(): void;
}

interface Ring {
  /** The store object that rings, which need not hear itself. */
  from: string;
  ready: boolean;
  holders: string[];
  /** How many workers there are. */
  workers?: number;
}

/** What each worker more than two adds to the span in which they look. */
const spanMs = 4;
/** By then everybody looks without being told. */
const longestSpanMs = 1_000;
/** Whether there are other workers is looked up at most so often while there are none. */
const othersMs = 200;
const longestPauseMs = 30_000;
/** More names would not fit into a notification, which takes less than 8,000 bytes: then everybody looks. */
const mostNameBytes = 7_000;
/** Longest name of a channel, in bytes. */
const longestChannel = 63;

export class Bell {
  readonly #channel: string;
  readonly #from: string;
  readonly #statements: Statements;
  readonly #database: Database;
  readonly #connect: (() => Promise<ListeningClient>) | undefined;
  readonly #own: ReadonlySet<string>;
  readonly #heard: () => void;
  #client: ListeningClient | undefined;
  #retry: NodeJS.Timeout | undefined;
  #isListening = false;
  /** Counts how often it was stopped. */
  #listening = 0;
  #tries = 0;
  /** What is to be told when the ringing under way is done. */
  #next: Ring | undefined;
  #ringing = false;
  #aloneAt = Number.NEGATIVE_INFINITY;
  /** When it was last rung for what is ready, here or elsewhere, and the span in which all look after that. */
  #readyAt = Number.NEGATIVE_INFINITY;
  #spanMs = 0;
  /** Ends the pause before the next ring. */
  #goOn: () => void = () => undefined;
  /** The look that is to come. */
  #look: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** @param own Workers of this store object. */
  constructor(
    channel: string,
    from: string,
    statements: Statements,
    database: Database,
    connect: (() => Promise<ListeningClient>) | undefined,
    own: ReadonlySet<string>,
    heard: () => void,
  ) {
    // A name that is too long would be cut where it is listened at, and refused where it is rung.
    this.#channel = channel.length <= longestChannel ? channel : `abstractruntime ${sha256(channel).slice(0, 40)}`;
    this.#from = from;
    this.#statements = statements;
    this.#database = database;
    this.#connect = connect;
    this.#own = own;
    this.#heard = heard;
  }

  /** A second call does nothing. */
  listen(): void {
    if (this.#isListening || !this.#connect) return;
    this.#isListening = true;
    this.#tries = 0;
    void this.#open();
  }

  async #open(): Promise<void> {
    const listening = this.#listening;
    let client: ListeningClient | undefined;
    try {
      client = await (this.#connect as () => Promise<ListeningClient>)();
      const lost = (): void => {
        if (this.#client === client) this.#again();
      };
      client.on("error", lost);
      client.on("end", lost);
      client.on("notification", ({ payload }) => this.#hear(payload ?? ""));
      await client.connect();
      // It was stopped meanwhile, and maybe begun anew.
      if (listening !== this.#listening) return void (await client.end());
      this.#client = client;
      client.unref?.();
      await client.query({ text: `LISTEN "${this.#channel}"` });
      // While the connection was lost something may have been said.
      if (this.#tries > 0) this.#heard();
      this.#tries = 0;
    } catch {
      await client?.end().catch(() => undefined);
      if (listening === this.#listening) this.#again();
    }
  }

  #again(): void {
    this.#client = undefined;
    if (!this.#isListening || this.#retry) return;
    this.#tries += 1;
    const pauseMs = Math.min(longestPauseMs, 50 * 2 ** this.#tries) * (0.5 + Math.random());
    this.#retry = setTimeout(() => {
      this.#retry = undefined;
      void this.#open();
    }, pauseMs);
    this.#retry.unref();
  }

  #hear(payload: string): void {
    let ring: Ring;
    try {
      ring = JSON.parse(payload) as Ring;
    } catch {
      return this.#heard();
    }
    if (ring.from === this.#from) return;
    if (ring.ready) this.#hearReady(ring);
    if (ring.holders.some((id) => this.#own.has(id))) this.#heard();
  }

  #hearReady({ workers = 0 }: Ring): void {
    this.#rangReady(workers);
    // It tells of ours, too (B2).
    if (this.#next) this.#next.ready = false;
    this.#goOn();
    if (this.#spanMs === 0) return this.#heard();
    this.#look ??= setTimeout(() => {
      this.#look = undefined;
      this.#heard();
    }, Math.random() * this.#spanMs).unref();
  }

  #rangReady(workers: number): void {
    this.#readyAt = performance.now();
    this.#spanMs = Math.min(longestSpanMs, Math.max(0, workers - 2) * spanMs);
  }

  /** In a transaction of the user's: told when it commits, also to this store object. */
  async ringWithin(client: PostgresClient, { ready, holders }: Wakes): Promise<void> {
    const isMany = isTooMuch(holders);
    const ring: Ring = { from: "", ready: ready || isMany, holders: isMany ? [] : [...holders] };
    await this.#statements.rows(client, "SELECT pg_notify($1, $2)", [this.#channel, JSON.stringify(ring)]);
  }

  /** Tells other processes, unless there are none. What comes while one is on its way is told together after it. */
  ring({ ready, holders }: Wakes): void {
    const others = holders.filter((id) => !this.#own.has(id));
    if (!ready && others.length === 0) return;
    if (performance.now() - this.#aloneAt < othersMs) return;
    const names = [...new Set([...(this.#next?.holders ?? []), ...others])];
    const isMany = isTooMuch(names);
    const isReady = ready || isMany || (this.#next?.ready ?? false);
    this.#next = { from: this.#from, ready: isReady, holders: isMany ? [] : names };
    if (!this.#ringing) void this.#ring();
    else if (others.length > 0) this.#goOn();
  }

  async #ring(): Promise<void> {
    this.#ringing = true;
    while (this.#next) {
      await this.#pause();
      const ring = this.#next;
      this.#next = undefined;
      if (!ring.ready && ring.holders.length === 0) continue;
      try {
        const workers = await this.#database.once((client) => this.#notify(client, ring));
        if (workers === 0) this.#aloneAt = performance.now();
        if (ring.ready) this.#rangReady(workers);
      } catch {
        // Nobody hears of it; see above.
      }
    }
    this.#ringing = false;
    for (const resolve of this.#quiet.splice(0)) resolve();
  }

  /** Until half of the looks after the last ring are done (B2); uneven, so that of many who wait one rings for all. */
  #pause(): Promise<void> {
    const restMs = this.#readyAt + this.#spanMs * (0.5 + 0.5 * Math.random()) - performance.now();
    if (restMs <= 0 || this.#isClosed || (this.#next?.holders.length ?? 0) > 0) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, restMs).unref();
      this.#goOn = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Answers how many others there are. A hint need not be on the disk: nobody waits for that. */
  async #notify(client: PostgresClient, ring: Ring): Promise<number> {
    const sql = `SELECT w.workers, w.others, CASE WHEN w.others > 0 THEN set_config('synchronous_commit', 'off', true) END,
        CASE WHEN w.others > 0 THEN pg_notify($1, $2 || w.workers || '}') END
      FROM (SELECT count(*) AS workers, count(*) FILTER (WHERE NOT worker_id = ANY ($3::text[])) AS others FROM ~workers) w`;
    const told = `${JSON.stringify(ring).slice(0, -1)},"workers":`;
    const [row] = await this.#statements.rows(client, sql, [this.#channel, told, arrayOf([...this.#own])]);
    return row?.others === 0 ? 0 : (row?.workers as number);
  }

  readonly #quiet: (() => void)[] = [];

  /** Resolves when nothing is on its way any more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    this.stop();
    this.#goOn();
    if (this.#ringing) await new Promise<void>((resolve) => this.#quiet.push(resolve));
    await this.#ended;
  }

  #ended: Promise<void> = Promise.resolve();

  stop(): void {
    this.#isListening = false;
    this.#listening += 1;
    clearTimeout(this.#look);
    this.#look = undefined;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    const client = this.#client;
    this.#client = undefined;
    // Its end is waited for.
    client?.ref?.();
    if (client) this.#ended = client.end().catch(() => undefined);
  }
}

function isTooMuch(names: readonly string[]): boolean {
  return Buffer.byteLength(JSON.stringify(names)) > mostNameBytes;
}
