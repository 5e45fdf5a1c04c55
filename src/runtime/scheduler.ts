/**
 * Claims runs that are due, drives them, and keeps this worker's lease alive. One timer for all waiting runs; none of them is in
 * memory while it waits (L5).
 */
import type { Timer } from "../kernel/clock.ts";
import { Driver, type DriveResult } from "../kernel/drive.ts";
import type { DriveHost } from "../kernel/drive-host.ts";
import { AbstractRuntimeError, isError } from "../kernel/errors.ts";
import { firstRestored } from "../kernel/fold.ts";
import { type Restored, restoreRun } from "../kernel/restore.ts";
import type { Begun } from "../kernel/begin.ts";
import type { RunRow } from "../kernel/run.ts";
import type { Capability, Lease, Loaded } from "../kernel/transition.ts";
import type { Counters } from "./health.ts";
import { ParkedStates } from "./parked-states.ts";
import { isBare, loadRun } from "./read.ts";
import { runsOf } from "./runs-of.ts";
import { within } from "./within.ts";

/** Is told what is nobody's exception. */
type Report = (message: string, fields: { error?: unknown; runId?: string }) => void;

export interface SchedulerOptions {
  /** Longest time between two looks into the store, in milliseconds: the safety net under wake-ups. Default: 1,000. */
  pollMs?: number;
  /** Runs driven at the same time. Default: 100. */
  concurrency?: number;
  /** How long this worker counts as alive without renewing, in milliseconds. Default: 30,000. */
  leaseMs?: number;
  /** Effects of a type that execute at the same time in this process, by type. Default: no limit. */
  effectConcurrency?: Readonly<Record<string, number>>;
  /**
   * Size of the states of parked runs that stay in memory, so that a long conversation goes on without being read again, in
   * characters of JSON. The oldest give way. Default: 32 Mi; 0: none.
   */
  stateCacheSize?: number;
}

export const schedulerDefaults: Required<SchedulerOptions> = {
  pollMs: 1_000,
  concurrency: 100,
  leaseMs: 30_000,
  effectConcurrency: {},
  stateCacheSize: 32 * 1024 * 1024,
};

/** How long the last calls of a runtime that stops may take, in milliseconds: a store that does not answer must not keep the process. */
const lastCallsMs = 5_000;

/** Longest pause between two looks while the store cannot be reached. */
const longestPauseMs = 5_000;

/** `epoch` is known once the run is. */
interface Holding {
  runId: string;
  epoch?: number;
  settled: Promise<unknown>;
}

interface Driving {
  driver: Driver;
  done: Promise<DriveResult>;
}

export class Scheduler {
  readonly #host: DriveHost;
  readonly #worker: Capability;
  readonly #options: Required<SchedulerOptions>;
  readonly #background: boolean;
  readonly #driving = new Map<string, Driving>();
  /** What is under way with runs that are, or may be, leased to this worker: from before the call that leases one to its last commit. */
  readonly #held = new Set<Holding>();
  /** Leases of runs that could not be driven on. They are handed back after a rest, or they would fail in a hot loop. */
  readonly #failed = new Map<string, { lease: Lease; rested: boolean }>();
  /** A call failed that may have leased runs to this worker all the same. Nobody would drive them. */
  #adrift = false;
  readonly #report: Report;
  readonly parked: ParkedStates;
  readonly counters: Counters = {
    looks: 0,
    claimed: 0,
    parked: 0,
    completed: 0,
    failed: 0,
    cancelled: 0,
    blocked: 0,
    errors: 0,
  };
  /** Looks that failed since one succeeded. */
  #failures = 0;
  /** Looks, one after the other, that found something due and were given nothing. */
  #inVain = 0;
  /** Since when the store refuses what is asked of it. */
  failing: { since: number; problem: string; code?: string } | undefined;
  /** Position of the last message of the store that drivers were told of. */
  #newsSeen = 0;
  #newsTimer: Timer | undefined;
  #unhear: () => void = () => undefined;
  /** Called when the store has said that something may have happened. */
  heard: () => void = () => undefined;
  #timer: Timer | undefined;
  #renewal: Timer | undefined;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #stopped = false;
  #retired = false;
  /** What the store's clock is ahead of this process's. */
  #clockOffset = 0;
  /** What the store told last: what it gave as due then is due here, whatever this process's clock says. */
  #storeNow = Number.NEGATIVE_INFINITY;
  /** By this process's time that is never set back, counted from before the call; and by the store's clock. */
  #leaseUntil = 0;
  #storeLeaseUntil = 0;
  /** How often the leases had run out when they were renewed. Another worker may have taken any of the runs, and lost it again. */
  lapses = 0;

  /** @param background Whether due runs are claimed by itself; otherwise only what is handed over is driven. */
  constructor(host: DriveHost, worker: Capability, options: Required<SchedulerOptions>, background: boolean) {
    this.#host = host;
    this.#report = (message, fields) => {
      this.counters.errors += 1;
      this.#noteFailure(fields.error);
      host.report?.(message, fields);
    };
    this.#worker = worker;
    this.#options = options;
    this.#background = background;
    this.parked = new ParkedStates(options.stateCacheSize);
  }

  /** A commit succeeded. */
  wrote(): void {
    this.failing = undefined;
    if (this.#failures > 0) this.look();
  }

  #noteFailure(error: unknown): void {
    // A conflict is the store's right answer.
    if (error === undefined || (isError(error) && !error.code.startsWith("STORE_"))) return;
    const since = this.failing?.since ?? this.now();
    const { problem, message } = error as Partial<AbstractRuntimeError>;
    this.failing = { since, problem: problem ?? message ?? String(error), ...(isError(error) ? { code: error.code } : {}) };
  }

  get workerId(): string {
    return this.#worker.workerId;
  }

  /** By the store's clock. */
  now(): number {
    return Math.max(this.#host.clock.now() + this.#clockOffset, this.#storeNow);
  }

  /** By both clocks: one that is never set back may stand still while the machine sleeps, and the store's is known by its answers. */
  holdsLeases(): boolean {
    return this.#elapsed() < this.#leaseUntil && this.now() < this.#storeLeaseUntil;
  }

  #elapsed(): number {
    const { clock } = this.#host;
    return clock.elapsed ? clock.elapsed() : clock.now();
  }

  /** Keeps what is ahead of what within the bounds that a call gives: the store told `now` between its sending and its answer. */
  #told(now: number, sentAt: number): void {
    const answeredAt = this.#host.clock.now();
    this.#clockOffset = Math.min(Math.max(this.#clockOffset, now - answeredAt), now - sentAt);
    this.#storeNow = now;
  }

  get leaseUntil(): number {
    return this.#storeLeaseUntil;
  }

  /** What is driven here, and what executes for it. */
  get drivers(): Driver[] {
    return [...this.#driving.values()].map(({ driver }) => driver);
  }

  async start(): Promise<void> {
    await this.renew();
    this.#newsSeen = (await this.#host.store.news(this.workerId, Number.MAX_SAFE_INTEGER)).position;
    this.#unhear = this.#host.store.hear(() => {
      if (this.#driving.size > 0) void this.#readNews();
      this.look();
      this.heard();
    });
    this.#keepRenewing();
    if (this.#background) this.look();
  }

  /** Looks for due runs soon. Calls while it looks are one more look. */
  look(): void {
    if (this.#stopped || !this.#background) return;
    if (this.#looking) {
      this.#lookAgain = true;
      return;
    }
    this.#timer?.cancel();
    this.#looking = this.#claimDue().finally(() => {
      this.#looking = undefined;
      if (!this.#lookAgain) return;
      this.#lookAgain = false;
      this.look();
    });
  }

  /** A message was stored: whoever holds the run should hear of it. */
  delivered(runId: string, holder: string | undefined): void {
    if (holder === this.workerId) this.#driving.get(runId)?.driver.nudge();
    else if (holder === undefined) this.look();
  }

  /** Runs were created or sent something by a commit of this process. */
  reached(runIds: readonly string[]): void {
    for (const runId of runIds) this.#driving.get(runId)?.driver.nudge();
    this.look();
  }

  /** What is being driven here now, or undefined. Settles when the run ends, waits or is handed back. */
  driving(runId: string): Promise<unknown> | undefined {
    return [...this.#held].find((held) => held.runId === runId)?.settled;
  }

  /**
   * Claims one run, due or not, and drives it. Undefined when it cannot be claimed.
   *
   * @param worker Default: this worker as it is.
   */
  async claim(runId: string, maxSteps?: number, worker: Capability = this.#worker): Promise<DriveResult | undefined> {
    if (this.#adrift) await this.#findAdrift();
    return this.#hold(runId, undefined, async (entry) => {
      const [loaded] = await this.#claim({ limit: 1, runId }, worker);
      entry.epoch = loaded?.lease?.epoch ?? 0;
      return loaded && this.#drive(loaded, maxSteps);
    });
  }

  /** Carries out what was asked of a run and takes none of its code, nor a slot of its queue. */
  async apply({ runId, queue }: RunRow): Promise<void> {
    const { workerId, fingerprint } = this.#worker;
    await this.claim(runId, 0, { workerId, fingerprint, ...(queue === undefined ? {} : { queues: { [queue]: {} } }) });
  }

  /**
   * Creates a run and drives it. The first steps may share the transaction that creates it; nothing leaves the process before it is
   * durable. With `mayExist`, a run that exists is left alone and the answer is false.
   */
  begin(begun: Begun, mayExist: boolean, created: () => void): Promise<DriveResult | undefined | false> {
    return this.#hold(begun.row.runId, 1, async () => {
      const creating = this.#leasing(
        // Told before the steps that share its transaction.
        this.#host.store.create([begun], this.workerId).then((answer) => {
          if (answer[0]) created();
          return answer;
        }),
      );
      // Awaited below in every case, but not before the first steps have run.
      creating.catch(() => undefined);
      if (mayExist && !(await creating)[0]) return false;
      const lease = { workerId: this.workerId, epoch: 1 };
      const loaded: Loaded = { row: begun.row, tail: [begun.record], mail: [], lease, now: this.now() };
      try {
        return await this.#drive(loaded, undefined, { ...begun, created: creating });
      } finally {
        // Where the run could not be created, that is what the caller should hear of.
        await creating;
      }
    });
  }

  /** Drives a run that is leased to this worker. */
  async #drive(
    loaded: Loaded,
    maxSteps?: number,
    begun?: Begun & { created: Promise<unknown> },
  ): Promise<DriveResult | undefined> {
    const lease = loaded.lease as Lease;
    const { runId } = loaded.row;
    try {
      const restored = begun ? firstRestored(begun.state, begun.record) : await this.#restore(loaded, lease);
      if (!restored) return undefined;
      const driver = new Driver(this.#host, { ...loaded, lease }, restored, begun?.created);
      // Claimed while this was stopping: nothing of it begins.
      if (this.#stopped) driver.stop();
      const done = driver.drive(maxSteps);
      this.#driving.set(runId, { driver, done });
      this.#newsTimer ??= this.#host.clock.setTimer(() => this.#keepReadingNews(), this.#options.pollMs);
      const result = await done;
      if (result.end === "parked") this.parked.keep(driver.restored);
      this.#count(result);
      return result;
    } catch (error) {
      if (this.#background) this.#rest(runId, lease);
      else {
        await this.#leasing(this.#handBack(runId, lease)).catch((unreached: unknown) =>
          this.#report("a lease could not be handed back", { runId, error: unreached }),
        );
      }
      throw error;
    } finally {
      this.#driving.delete(runId);
    }
  }

  /** By a timer, which goes on when a clock is set back. */
  #rest(runId: string, lease: Lease): void {
    const entry = { lease, rested: false };
    this.#failed.set(runId, entry);
    this.#host.clock.setTimer(() => {
      entry.rested = true;
      this.look();
    }, this.#options.pollMs);
  }

  #count({ end, state }: DriveResult): void {
    if (end === "ended" && state.status !== "running") this.counters[state.status] += 1;
    else if (end === "parked" || end === "blocked") this.counters[end] += 1;
  }

  /** Messages from other processes are heard of by looking, all at once: nothing else would wake a driver before its effect settles. */
  #keepReadingNews(): void {
    this.#newsTimer = undefined;
    if (this.#driving.size === 0 || this.#retired) return;
    void this.#readNews();
    this.#newsTimer = this.#host.clock.setTimer(() => this.#keepReadingNews(), this.#options.pollMs);
  }

  async #readNews(): Promise<void> {
    try {
      const { runIds, position } = await this.#host.store.news(this.workerId, this.#newsSeen);
      this.#newsSeen = Math.max(this.#newsSeen, position);
      for (const runId of runIds) this.#driving.get(runId)?.driver.nudge();
    } catch (error) {
      if (!this.#retired) this.#report("the store could not be asked for news", { error });
    }
  }

  #hold<T>(runId: string, epoch: number | undefined, action: (entry: Holding) => Promise<T>): Promise<T> {
    const entry: Holding = { runId, settled: Promise.resolve(), ...(epoch === undefined ? {} : { epoch }) };
    this.#held.add(entry);
    const settled = action(entry);
    entry.settled = settled;
    return settled.finally(() => {
      this.#held.delete(entry);
      if (this.#held.size < this.#options.concurrency) this.look();
    });
  }

  async #claim(options: { limit: number; runId?: string }, worker = this.#worker): Promise<Loaded[]> {
    // A worker that counts as dead would be given runs that any other may take from it again at once.
    if (!this.holdsLeases()) await this.renew();
    const sentAt = this.#host.clock.now();
    const claimed = await this.#leasing(this.#host.store.claim(worker, { ...options, known: this.parked.headOf }));
    for (const { now } of claimed) this.#told(now, sentAt);
    this.counters.claimed += claimed.length;
    return claimed;
  }

  async #leasing<T>(call: Promise<T>): Promise<T> {
    try {
      return await call;
    } catch (error) {
      this.#adrift = true;
      throw error;
    }
  }

  /**
   * Claims nothing more, lets what is executing settle for up to `timeoutMs`, gives up the rest, and hands all leases back.
   */
  async stop(timeoutMs: number): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    for (const { driver } of this.#driving.values()) driver.stop();
    await within(this.#host.clock, timeoutMs, this.#quiet());
    for (const { driver } of this.#driving.values()) driver.abort(new AbstractRuntimeError("RUNTIME_STOPPED", {}));
    await within(this.#host.clock, lastCallsMs, this.#settled());
    this.#retired = true;
    this.#unhear();
    this.#newsTimer?.cancel();
    this.#renewal?.cancel();
    // A lease that cannot be handed back runs out by itself.
    const retired = this.#host.store
      .retire(this.workerId)
      .catch((error: unknown) => this.#report("the leases could not be handed back", { error }));
    await within(this.#host.clock, lastCallsMs, retired);
  }

  /** When nothing is under way, what a look still claimed included. */
  async #quiet(): Promise<void> {
    await this.#looking;
    await this.#settled();
  }

  /** When nothing is under way with any run, begun while this waited or not. */
  async #settled(): Promise<void> {
    while (this.#held.size > 0) await Promise.allSettled([...this.#held].map(({ settled }) => settled));
  }

  /** The state, rebuilt from the ledger when the checkpoint is bad. What cannot be rebuilt is set aside, alone (L7). */
  async #restore(given: Loaded, lease: Lease): Promise<Restored | undefined> {
    const { runId, head } = given.row;
    const parked = this.parked.take(runId, head);
    if (parked) return parked;
    try {
      // It gave way while this was being claimed.
      const loaded = isBare(given) ? await loadRun(this.#host.store, runId) : given;
      return await restoreRun(this.#host.store, loaded, loaded.row.seq, (error) =>
        this.#host.log.warn("a checkpoint cannot be read; the run is rebuilt from its ledger", { runId, error }),
      );
    } catch (error) {
      const newer = isError(error, "FORMAT_NEWER");
      if (!newer && !isError(error, "RECORD_CORRUPT")) throw error;
      this.#report(newer ? "a run was written by newer code" : "a run is damaged and was quarantined", { runId, error });
      const blocked = { code: error.code, problem: error.problem, fingerprint: this.#host.fingerprint, quarantine: !newer };
      await this.#host.store.release(runId, lease, { blocked });
      return undefined;
    }
  }

  async #claimDue(): Promise<void> {
    this.counters.looks += 1;
    try {
      if (this.#adrift) await this.#findAdrift();
      for (const [runId, { lease, rested }] of this.#failed) if (rested) await this.#handBack(runId, lease);
      let given = 0;
      for (;;) {
        const limit = this.#options.concurrency - this.#held.size;
        if (limit <= 0 || this.#stopped) return;
        const claimed = await this.#claim({ limit });
        given += claimed.length;
        for (const loaded of claimed) {
          const { runId } = loaded.row;
          this.#hold(runId, loaded.lease?.epoch, () => this.#drive(loaded)).catch((error: unknown) => {
            // Given up by `stop`, as its caller asked for: whoever is next goes on with it.
            if (!isError(error, "RUNTIME_STOPPED")) this.#report("a run could not be driven on", { runId, error });
          });
        }
        if (claimed.length < limit) break;
      }
      const sentAt = this.#host.clock.now();
      const { at, now } = await this.#host.store.nextDue(this.#worker);
      this.#told(now, sentAt);
      // Due, and given to nobody here: another worker is taking it, or a transaction stands in the way. Not asked for in a hot loop.
      this.#inVain = given === 0 && at !== undefined && at <= now ? this.#inVain + 1 : 0;
      const restMs = this.#inVain > 1 ? 2 ** this.#inVain : 0;
      const delayMs = at === undefined ? this.#options.pollMs : Math.min(this.#options.pollMs, Math.max(restMs, at - now));
      this.#failures = 0;
      // Nothing is held here that could not be written.
      if (this.#driving.size === 0 && this.#failed.size === 0) this.failing = undefined;
      this.#schedule(delayMs);
    } catch (error) {
      this.#report("the store could not be asked for due runs", { error });
      this.#schedule(this.#backoffMs());
    }
  }

  /** Longer with each failure, and never quite the same: many workers wait for the same store. */
  #backoffMs(): number {
    this.#failures += 1;
    const { pollMs } = this.#options;
    const longest = Math.max(pollMs, longestPauseMs);
    return Math.min(longest, pollMs * 2 ** (this.#failures - 1)) * (0.7 + 0.3 * this.#host.ids.random());
  }

  #schedule(delayMs: number): void {
    if (!this.#stopped) this.#timer = this.#host.clock.setTimer(() => this.look(), delayMs);
  }

  /** Hands back what is leased to this worker without its knowledge. */
  async #findAdrift(): Promise<void> {
    const { store } = this.#host;
    this.#adrift = false;
    try {
      for await (const { runId } of runsOf(store, { holder: this.workerId })) {
        const lease = (await store.load(runId))?.lease;
        if (lease?.workerId === this.workerId && !this.#knows(runId, lease.epoch)) await store.release(runId, lease, {});
      }
    } catch (error) {
      this.#adrift = true;
      throw error;
    }
  }

  /** Whether this lease is being used here, or is kept for a while. One that a claim under way may be about is looked at again later. */
  #knows(runId: string, epoch: number): boolean {
    if (this.#failed.get(runId)?.lease.epoch === epoch) return true;
    const held = [...this.#held].filter((entry) => entry.runId === runId);
    const isPending = held.some((entry) => entry.epoch === undefined);
    if (isPending) this.#adrift = true;
    return isPending || held.some((entry) => entry.epoch === epoch);
  }

  /** Does nothing when the lease was lost. */
  async #handBack(runId: string, lease: Lease): Promise<void> {
    await this.#host.store.release(runId, lease, {});
    this.#failed.delete(runId);
  }

  /** @throws What the store rejects with. */
  async renew(): Promise<void> {
    const before = this.#host.clock.now();
    const started = this.#elapsed();
    const lapsed = this.#leaseUntil > 0 && !this.holdsLeases();
    const now = await this.#host.store.renew(this.workerId, this.#options.leaseMs);
    if (lapsed || (this.#storeLeaseUntil > 0 && now >= this.#storeLeaseUntil)) this.lapses += 1;
    this.#told(now, before);
    // Counted from before the call: the store's own count began later.
    this.#leaseUntil = started + this.#options.leaseMs;
    this.#storeLeaseUntil = now + this.#options.leaseMs;
  }

  #keepRenewing(): void {
    this.#renewal = this.#host.clock.setTimer(async () => {
      try {
        await this.renew();
        this.wrote();
        // Renewed for ever, a lease that nobody here knows of would keep its run from everybody.
        if (this.#adrift) await this.#findAdrift();
      } catch (error) {
        this.#report("the worker's lease could not be renewed", { error });
        // Others may have taken the runs: what executes for them is to stop.
        const lost = (runId: string) =>
          new AbstractRuntimeError("CONFLICT", { runId, problem: "the lease of its worker ran out" });
        if (!this.holdsLeases()) for (const [runId, { driver }] of this.#driving) driver.abort(lost(runId));
      }
      if (!this.#retired) this.#keepRenewing();
    }, this.#options.leaseMs / 3);
  }
}
