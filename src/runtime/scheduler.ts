/**
 * Claims runs that are due, drives them, and keeps this worker's lease alive. One timer for all waiting runs; none of them is in
 * memory while it waits (L5).
 */
import type { Timer } from "../kernel/clock.ts";
import { Driver, type DriveHost, type DriveResult } from "../kernel/drive.ts";
import { AbstractRuntimeError, isError } from "../kernel/errors.ts";
import { restore } from "../kernel/fold.ts";
import type { Begun } from "../kernel/begin.ts";
import type { RunState } from "../kernel/run.ts";
import type { Capability, Lease, Loaded } from "../kernel/store.ts";

export interface SchedulerOptions {
  /** Longest time between two looks into the store, in milliseconds: the safety net under wake-ups. Default: 1,000. */
  pollMs?: number;
  /** Runs driven at the same time. Default: 100. */
  concurrency?: number;
  /** How long this worker counts as alive without renewing, in milliseconds. Default: 30,000. */
  leaseMs?: number;
}

export const schedulerDefaults: Required<SchedulerOptions> = { pollMs: 1_000, concurrency: 100, leaseMs: 30_000 };

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
  readonly #held = new Set<{ runId: string; settled: Promise<unknown> }>();
  /** Leases of runs that could not be driven on, and when to hand them back: not at once, or they would fail in a hot loop. */
  readonly #failed = new Map<string, { lease: Lease; at: number }>();
  /** A call failed that may have leased runs to this worker all the same. Nobody would drive them. */
  #adrift = false;
  #timer: Timer | undefined;
  #renewal: Timer | undefined;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #stopped = false;
  #retired = false;
  #clockOffset = 0;
  #leaseUntil = 0;

  /** @param background Whether due runs are claimed by itself; otherwise only what is handed over is driven. */
  constructor(host: DriveHost, worker: Capability, options: Required<SchedulerOptions>, background: boolean) {
    this.#host = host;
    this.#worker = worker;
    this.#options = options;
    this.#background = background;
  }

  get workerId(): string {
    return this.#worker.workerId;
  }

  /** By the store's clock. */
  now(): number {
    return this.#host.clock.now() + this.#clockOffset;
  }

  holdsLeases(): boolean {
    return this.#host.clock.now() < this.#leaseUntil;
  }

  async start(): Promise<void> {
    await this.renew();
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

  /** Claims one run, due or not, and drives it. Undefined when it cannot be claimed. */
  async claim(runId: string, maxSteps?: number): Promise<DriveResult | undefined> {
    if (this.#adrift) await this.#findAdrift();
    return this.#hold(runId, async () => {
      const [loaded] = await this.#leasing(this.#host.store.claim(this.#worker, { limit: 1, runId }));
      return loaded && this.#drive(loaded, maxSteps);
    });
  }

  /**
   * Creates a run and drives it. The first steps may share the transaction that creates it; nothing leaves the process before it is
   * durable. With `mayExist`, a run that exists is left alone and the answer is false.
   */
  begin(begun: Begun, mayExist: boolean): Promise<DriveResult | undefined | false> {
    return this.#hold(begun.row.runId, async () => {
      const creating = this.#leasing(this.#host.store.create([begun], this.workerId));
      // Awaited below in every case, but not before the first steps have run.
      creating.catch(() => undefined);
      if (mayExist && !(await creating)[0]) return false;
      const lease = { workerId: this.workerId, epoch: 1 };
      const loaded: Loaded = { row: begun.row, tail: [begun.record], mail: [], lease, now: this.now() };
      try {
        return await this.#drive(loaded, undefined, { state: begun.state, created: creating });
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
    begun?: { state: RunState; created: Promise<unknown> },
  ): Promise<DriveResult | undefined> {
    const lease = loaded.lease as Lease;
    const { runId } = loaded.row;
    try {
      const restored = begun ? { state: begun.state, tailBytes: 0 } : await this.#restore(loaded, lease);
      if (!restored) return undefined;
      const driver = new Driver(this.#host, { ...loaded, lease }, restored, begun?.created);
      const done = driver.drive(maxSteps);
      this.#driving.set(runId, { driver, done });
      if (this.#stopped) driver.stop();
      return await done;
    } catch (error) {
      if (this.#background) this.#failed.set(runId, { lease, at: this.#host.clock.now() + this.#options.pollMs });
      else {
        await this.#leasing(this.#handBack(runId, lease)).catch((unreached: unknown) =>
          this.#host.log.error("a lease could not be handed back", { runId, error: unreached }),
        );
      }
      throw error;
    } finally {
      this.#driving.delete(runId);
    }
  }

  #hold<T>(runId: string, action: () => Promise<T>): Promise<T> {
    const settled = action();
    const entry = { runId, settled };
    this.#held.add(entry);
    return settled.finally(() => {
      this.#held.delete(entry);
      if (this.#held.size < this.#options.concurrency) this.look();
    });
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
    await this.#looking;
    for (const { driver } of this.#driving.values()) driver.stop();
    const settled = this.#settled();
    let deadline: Timer | undefined;
    const late = new Promise<void>((resolve) => {
      deadline = this.#host.clock.setTimer(resolve, timeoutMs, true);
    });
    await Promise.race([settled, late]);
    deadline?.cancel();
    for (const { driver } of this.#driving.values()) driver.abort(new AbstractRuntimeError("RUNTIME_STOPPED", {}));
    await settled;
    this.#retired = true;
    this.#renewal?.cancel();
    await this.#host.store.retire(this.workerId);
  }

  /** When nothing is under way with any run, begun while this waited or not. */
  async #settled(): Promise<void> {
    while (this.#held.size > 0) await Promise.allSettled([...this.#held].map(({ settled }) => settled));
  }

  /** The state, rebuilt from the ledger when the checkpoint is bad. What cannot be rebuilt is set aside, alone (L7). */
  async #restore(loaded: Loaded, lease: Lease): Promise<ReturnType<typeof restore> | undefined> {
    const { runId } = loaded.row;
    try {
      try {
        return restore(runId, loaded);
      } catch (error) {
        if (!loaded.checkpoint || isError(error, "FORMAT_NEWER")) throw error;
        this.#host.log.warn("a checkpoint cannot be read; the run is rebuilt from its ledger", { runId, error });
        const whole = await this.#host.store.load(runId, { whole: true });
        return whole && restore(runId, whole);
      }
    } catch (error) {
      const newer = isError(error, "FORMAT_NEWER");
      if (!newer && !isError(error, "RECORD_CORRUPT")) throw error;
      this.#host.log.error(newer ? "a run was written by newer code" : "a run is damaged and was quarantined", { runId, error });
      const blocked = { code: error.code, problem: error.problem, fingerprint: this.#host.fingerprint, quarantine: !newer };
      await this.#host.store.release(runId, lease, { blocked });
      return undefined;
    }
  }

  async #claimDue(): Promise<void> {
    try {
      if (this.#adrift) await this.#findAdrift();
      for (const [runId, { lease, at }] of this.#failed) if (at <= this.#host.clock.now()) await this.#handBack(runId, lease);
      for (;;) {
        const limit = this.#options.concurrency - this.#held.size;
        if (limit <= 0 || this.#stopped) return;
        const claimed = await this.#leasing(this.#host.store.claim(this.#worker, { limit }));
        for (const loaded of claimed) {
          const { runId } = loaded.row;
          this.#hold(runId, () => this.#drive(loaded)).catch((error: unknown) =>
            this.#host.log.error("a run could not be driven on", { runId, error }),
          );
        }
        if (claimed.length < limit) break;
      }
      const { at, now } = await this.#host.store.nextDue(this.#worker);
      const delayMs = at === undefined ? this.#options.pollMs : Math.min(this.#options.pollMs, Math.max(0, at - now));
      this.#schedule(delayMs);
    } catch (error) {
      this.#host.log.error("the store could not be asked for due runs", { error });
      this.#schedule(this.#options.pollMs);
    }
  }

  #schedule(delayMs: number): void {
    if (!this.#stopped) this.#timer = this.#host.clock.setTimer(() => this.look(), delayMs);
  }

  /** Hands back what is leased to this worker without its knowledge. */
  async #findAdrift(): Promise<void> {
    const { store } = this.#host;
    this.#adrift = false;
    try {
      for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
        const page = await store.query({ holder: this.workerId, limit: 1_000, ...(cursor === undefined ? {} : { cursor }) });
        for (const { runId } of page.runs) {
          if (this.#knows(runId)) continue;
          const lease = (await store.load(runId))?.lease;
          if (lease?.workerId === this.workerId && !this.#knows(runId)) await store.release(runId, lease, {});
        }
        cursor = page.next;
      }
    } catch (error) {
      this.#adrift = true;
      throw error;
    }
  }

  #knows(runId: string): boolean {
    return this.#failed.has(runId) || [...this.#held].some((held) => held.runId === runId);
  }

  /** Does nothing when the lease was lost. */
  async #handBack(runId: string, lease: Lease): Promise<void> {
    await this.#host.store.release(runId, lease, {});
    this.#failed.delete(runId);
  }

  /** @throws What the store rejects with. */
  async renew(): Promise<void> {
    const before = this.#host.clock.now();
    const now = await this.#host.store.renew(this.workerId, this.#options.leaseMs);
    this.#clockOffset = now - this.#host.clock.now();
    // Counted from before the call: the store's own count began later.
    this.#leaseUntil = before + this.#options.leaseMs;
  }

  #keepRenewing(): void {
    this.#renewal = this.#host.clock.setTimer(async () => {
      try {
        await this.renew();
      } catch (error) {
        this.#host.log.error("the worker's lease could not be renewed", { error });
        // Others may have taken the runs: what executes for them is to stop.
        const lost = (runId: string) =>
          new AbstractRuntimeError("CONFLICT", { runId, problem: "the lease of its worker ran out" });
        if (!this.holdsLeases()) for (const [runId, { driver }] of this.#driving) driver.abort(lost(runId));
      }
      if (!this.#retired) this.#keepRenewing();
    }, this.#options.leaseMs / 3);
  }
}
