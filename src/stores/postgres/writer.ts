/** What changes runs: calls in groups, in order, and the claims between them. See G1 to G3 in `index.ts`. */
import { isError } from "../../kernel/errors.ts";
import type { Transition } from "../../kernel/transition.ts";
import type { Applied } from "../group.ts";
import { applyParameters } from "./apply-parameters.ts";
import { Batch } from "./batch.ts";
import { type Call, lanesOf, runsOf } from "./calls.ts";
import type { PostgresClient, Statements } from "./connection.ts";
import type { Database, IsFinal } from "./database.ts";
import { isLocked, storeError } from "./errors.ts";
import { type LaneName, Lanes } from "./lanes.ts";
import { Apart, type Keys, Pipeline } from "./pipeline.ts";
import { textsOf } from "./read.ts";
import { stepOf } from "./step-sql.ts";

/** What calls did that somebody may want to hear of. */
export interface Wakes {
  /** A run was created, made due, or may have a slot. */
  ready: boolean;
  /** Workers that hold runs for which messages were stored. */
  holders: readonly string[];
}

/** A call on its way, and how many groups had settled when it was made; work of another kind, in its turn; or a hold on runs. */
type Sent = { call: Call; stamp: number } | { task: (isFinal: IsFinal) => Promise<unknown> } | { hold: () => Promise<void> };

/** Two, so that one is collected and answered while the other is written. More only wait for each other's log. */
const width = 2;
const largestGroup = 64;

const applySql = `SELECT array_to_json(results)::text AS results, ready, array_to_json(holders)::text AS holders
  FROM ~apply(${applyParameters.map((_, i) => `$${i + 1}`).join(", ")})`;

export class Writer {
  readonly #database: Database;
  readonly #statements: Statements;
  readonly #name: string;
  readonly #now: () => number | undefined;
  readonly #told: (wakes: Wakes) => void;
  readonly #lanes = new Lanes();
  readonly #pipeline: Pipeline<Sent>;
  /** Leases whose commits failed, and when: what was sent before that was known fails, too (S3). */
  readonly #broken = new Map<string, number>();
  #settled = 0;

  constructor(
    database: Database,
    statements: Statements,
    name: string,
    now: () => number | undefined,
    told: (wakes: Wakes) => void,
  ) {
    this.#database = database;
    this.#statements = statements;
    this.#name = name;
    this.#now = now;
    this.#told = told;
    this.#pipeline = new Pipeline<Sent>(width, largestGroup, (sent, late) => this.#send(sent, late));
  }

  add<T>(call: Call): Promise<T> {
    return this.#pipeline.add<T>({ call, stamp: this.#settled }, runsOf(call));
  }

  /** Does something in its turn among the calls for these runs; undefined: among all. */
  inTurn<T>(runIds: Keys, task: (isFinal: IsFinal) => Promise<T>): Promise<T> {
    return this.#pipeline.add<T>({ task }, runIds, true);
  }

  /** Keeps the calls made after it from the runs that these touch, once those made before it have settled. Answers with what ends it. */
  hold(calls: readonly Call[]): Promise<() => void> {
    return new Promise((begun, failed) => {
      const hold = (): Promise<void> => new Promise((end) => begun(end));
      this.#pipeline.add({ hold }, calls.flatMap(runsOf), true).catch(failed);
    });
  }

  idle(): Promise<void> {
    return this.#pipeline.idle();
  }

  /** Applies calls in whatever transaction the client is in. */
  async apply(
    client: PostgresClient,
    calls: readonly Call[],
    again: boolean,
    lanes = this.#lanes,
  ): Promise<{ applied: Applied[]; wakes: Wakes }> {
    const batch = new Batch(calls, lanes);
    const [row] = await this.#statements.rows(client, applySql, batch.values(this.#now(), again));
    const wakes = { ready: row?.ready as boolean, holders: textsOf(row?.holders) };
    return { applied: batch.answers(textsOf(row?.results)), wakes };
  }

  get lanes(): Lanes {
    return this.#lanes;
  }

  /** What `apply` needs to know before it. */
  async prepare(client: PostgresClient, calls: readonly Call[]): Promise<void> {
    await this.knowLanes(client, lanesOf(calls));
  }

  async knowLanes(client: PostgresClient, lanes: readonly LaneName[]): Promise<void> {
    const unknown = this.#unknown(lanes);
    if (unknown.length > 0) await this.#lanes.know(this.#statements, client, unknown);
  }

  /**
   * The same for a transaction that is not ours: on a connection of our own, since what is made is for all, whatever becomes of it. Taken
   * only where need be: those who have transactions may have all the others of the pool.
   */
  async prepareApart(client: PostgresClient, calls: readonly Call[]): Promise<Lanes> {
    const unknown = this.#unknown(lanesOf(calls));
    if (unknown.length === 0) return this.#lanes;
    if (!this.#database.isFull) {
      await this.#database.run((own) => this.prepare(own, calls));
      return this.#lanes;
    }
    // Those who have the others may wait for the same. What is made in a transaction that may be rolled back is not known to be there.
    const lanes = new Lanes(this.#lanes);
    await lanes.know(this.#statements, client, unknown);
    return lanes;
  }

  #unknown(lanes: readonly LaneName[]): LaneName[] {
    return lanes.filter((lane) => this.#lanes.of(lane) === undefined);
  }

  async #send(sent: readonly Sent[], late: boolean): Promise<readonly Applied[]> {
    const [first] = sent;
    if (first && "hold" in first) {
      await first.hold();
      return [{ value: undefined }];
    }
    if (first && "task" in first) {
      try {
        return [{ value: await first.task(isFinalOf(late)) }];
      } catch (error) {
        if (!late && isLocked(error)) throw new Apart();
        return [{ error: storeError(error, this.#name) }];
      }
    }
    const calls = sent.map((one) => this.#bound(one as Extract<Sent, { call: Call }>));
    const applied = await this.#applied(calls, late);
    this.#settled += 1;
    for (const [i, call] of calls.entries()) if (call.kind === "commit" && "error" in (applied[i] as Applied)) this.#break(call);
    if (!this.#pipeline.isWaiting) this.#broken.clear();
    return applied;
  }

  async #applied(calls: readonly Call[], late: boolean): Promise<readonly Applied[]> {
    const isGroup = calls.length > 1;
    try {
      if (!isGroup && (await this.#stepped(calls[0] as Call, late))) return [{ value: [[]] }];
      const { applied, wakes } = await this.#database.run(async (client, again) => {
        await this.prepare(client, calls);
        return this.apply(client, calls, again);
      }, isFinalOf(late));
      this.#told(wakes);
      return applied;
    } catch (error) {
      if (!isError(error) && (isGroup || (!late && isLocked(error)))) throw new Apart();
      const told = storeError(error, this.#name);
      return calls.map(() => ({ error: told }));
    }
  }

  /** Whether a call was a mere step, and is done. */
  async #stepped(call: Call, late: boolean): Promise<boolean> {
    const step = stepOf(call);
    if (!step) return false;
    const [row] = await this.#database.run((client) => this.#statements.rows(client, step.sql, step.values), isFinalOf(late));
    return row?.done === true;
  }

  #bound({ call, stamp }: { call: Call; stamp: number }): Call {
    if (this.#broken.size === 0 || call.kind !== "commit") return call;
    const isBroken = call.transitions.some((transition) => (this.#broken.get(leaseKey(transition)) ?? 0) > stamp);
    return isBroken ? { ...call, problem: "the commit before it failed" } : call;
  }

  #break({ transitions }: Call & { kind: "commit" }): void {
    for (const transition of transitions) this.#broken.set(leaseKey(transition), this.#settled);
  }
}

/** What is locked is waited for by calls that are late: the others need not wait for it, too. */
function isFinalOf(late: boolean): IsFinal {
  return (error, again) => !late && !again && isLocked(error);
}

function leaseKey({ runId, lease }: Transition): string {
  return JSON.stringify([runId, lease.workerId, lease.epoch]);
}
