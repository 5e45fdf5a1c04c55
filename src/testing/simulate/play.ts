/**
 * One seed, from its first start to its last end: processes, store and outside world on one virtual clock.
 *
 * After `calmMs` the world is calm: nothing goes wrong any more, whatever stood still goes on, and every run must end.
 */
import { hash } from "node:crypto";
import { createRuntime, type ListedRun, type Store } from "../../index.ts";
import { memoryStore } from "../../stores/memory/index.ts";
import { testIds } from "../ids.ts";
import { callStore, wrapStore } from "../wrap-store.ts";
import { Calls, type Handler } from "./calls.ts";
import { VirtualTime } from "./clock.ts";
import { checkEnd, type SimulationInvariant } from "./invariants.ts";
import { Observer } from "./observer.ts";
import { type FaultRates, planFaults, type SimulatedFault } from "./plan.ts";
import { randomOf, type SimulationRandom, seedOf } from "./random.ts";
import { Violation } from "./violation.ts";
import { type SimulatedCode, type Surroundings, Worker } from "./worker.ts";
import { type PlannedRun, type SimulatedWait, type StartWith, World } from "./world.ts";
import type { Clock } from "../../kernel/clock.ts";
import { type JsonObject, toJson } from "../../kernel/json.ts";

export interface PlayOptions {
  code: SimulatedCode;
  seed: number;
  /** Ids of the workflows to start. */
  start: readonly string[];
  schedule?: readonly SimulatedFault[];
  faults: FaultRates;
  workers?: number;
  runs?: number;
  vars?: (random: SimulationRandom, run: { seed: number; index: number; workflowId: string }) => object;
  startWith?: (random: SimulationRandom, run: { seed: number; index: number; workflowId: string }) => StartWith;
  answer?: (wait: SimulatedWait, random: SimulationRandom) => unknown;
  handlers: Readonly<Record<string, Handler>>;
  invariants: readonly SimulationInvariant[];
  store?: (options: { clock: Clock }) => Store | Promise<Store>;
  calmMs: number;
  longestMs: number;
  maxEvents: number;
}

export interface Played {
  seed: number;
  violation?: Violation;
  schedule: readonly SimulatedFault[];
  /** One line for everything that happened. */
  trace: readonly string[];
  /** SHA-256 of the trace. */
  hash: string;
  runs: number;
  records: number;
  handlerCalls: number;
  storeCalls: number;
  virtualMs: number;
}

const startAt = Date.UTC(2026, 0, 1);
/** How often it is looked whether anything still moves, in a calm world. */
const lookMs = 15_000;
/** Nothing that is due takes longer, in a calm world. */
const patienceMs = 600_000;
/** Whatever went wrong before has come to its end by then. */
const latestMs = 120_000;
/** Calls of the store for what happens at one moment; a few dozen are usual. */
const mostCalls = 3_000;
/** What is due later than this is not waited for poll by poll. */
const nightMs = 60_000;

/** Plays a seed. From a turn of its own: recorded errors carry stacks, and must not tell who called. */
export function play(options: PlayOptions): Promise<Played> {
  return new Promise((resolve, reject) => {
    setImmediate(() => {
      const game = async (): Promise<Played> => {
        const time = new VirtualTime(startAt);
        const store = await (options.store ?? memoryStore)({ clock: time });
        try {
          return await new Game(options, time, store).play();
        } finally {
          await store.close();
        }
      };
      game().then(
        (played) => resolve(played),
        (error: unknown) => reject(error),
      );
    });
  });
}

class Game {
  readonly #options: PlayOptions;
  readonly #time: VirtualTime;
  readonly #trace: string[] = [];
  readonly #schedule: readonly SimulatedFault[];
  readonly #store: Store;
  readonly #observer: Observer;
  readonly #calls: Calls;
  readonly #workers: Worker[];
  readonly #client: Worker;
  readonly #world: World;
  readonly #planned: readonly PlannedRun[];
  #violation: Violation | undefined;
  #calm = false;
  #downUntil = 0;
  /** When processes begin to be replaced by such of the next version. */
  readonly #deployAt: number;
  #events = 0;

  constructor(options: PlayOptions, time: VirtualTime, store: Store) {
    this.#options = options;
    this.#time = time;
    this.#store = store;
    const { seed, code, calmMs } = options;
    const random = randomOf(seed, "world");
    const leaseMs = random.pick([5_000, 10_000, 30_000]);
    const pollMs = random.pick([1_000, 2_000, 5_000]);
    const latencyMs = random.chance(0.5) ? 0 : random.pick([3, 50]);
    const concurrency = random.chance(0.2) ? 1 : 100;
    const workers = options.workers ?? random.int(1, 3);
    const runs = options.runs ?? random.int(1, 4);
    this.#schedule =
      options.schedule ?? planFaults(seed, { workers, runs, leaseMs, untilMs: calmMs * 0.7, rates: options.faults });
    this.#deployAt = startAt + Math.floor(randomOf(seed, "deploy").next() ** 2 * calmMs * 0.7);
    const trace = (line: string): void => void this.#trace.push(`${this.#time.now() - startAt} ${line}`);
    const violated = (violation: Violation): void => {
      if (!this.#violation) trace(`violation of ${violation.invariant}: ${violation.message}`);
      this.#violation ??= violation;
    };
    this.#observer = new Observer(this.#store, () => this.#time.now(), code.queues ?? {}, {
      parked: (wait) => this.#world.waits(wait),
      ended: (run, end) => this.#world.ended(run, end),
      violated,
    });
    this.#calls = new Calls(seed, this.#time, this.#observer, { leaseMs, trace, violated });
    const around: Surroundings = {
      seed,
      time: this.#time,
      observer: this.#observer,
      calls: this.#calls,
      code: () => (code.next && time.now() >= this.#deployAt ? code.next : code),
      handlers: options.handlers,
      scheduler: { leaseMs, pollMs, concurrency },
      latencyMs,
      schedule: this.#schedule,
      blobs: this.#store.blobs,
      hear: (heard) => this.#store.hear(heard),
      faulty: () => !this.#calm,
      storeIsDown: () => !this.#calm && this.#time.now() < this.#downUntil,
      trace,
      violated,
    };
    this.#workers = Array.from({ length: workers }, (_, i) => new Worker(i, around));
    this.#client = new Worker("client", around);
    this.#planned = this.#planRuns(runs);
    this.#world = new World({
      seed,
      time: this.#time,
      observer: this.#observer,
      calls: this.#calls.log,
      workers: this.#workers,
      client: this.#client,
      runs: this.#planned,
      schedule: this.#schedule,
      ...(options.answer ? { answer: options.answer } : {}),
      isCalm: () => this.#calm,
      trace,
      violated,
    });
  }

  async play(): Promise<Played> {
    try {
      for (const worker of [this.#client, ...this.#workers]) worker.start();
      await this.#settle();
      this.#planFaults();
      this.#planDeploy();
      this.#world.begin();
      this.#time.at(startAt + this.#options.calmMs, () => this.#calmDown());
      while (!this.#violation && !this.#isOver()) await this.#step();
      if (!this.#violation) await this.#end();
    } catch (error) {
      this.#violation ??=
        error instanceof Violation ? error : new Violation("every-run-ends", `the simulation failed: ${(error as Error).stack}`);
    }
    // Whatever is still under way holds on to nothing but this game.
    for (const worker of [this.#client, ...this.#workers]) worker.process.die();
    return {
      seed: this.#options.seed,
      ...(this.#violation ? { violation: this.#violation } : {}),
      schedule: this.#schedule,
      trace: this.#trace,
      hash: hash("sha256", this.#trace.join("\n")),
      runs: this.#observer.runs.length,
      records: this.#observer.runs.reduce((sum, { records }) => sum + records.length, 0),
      handlerCalls: this.#calls.log.length,
      storeCalls: this.#observer.calls,
      virtualMs: this.#time.now() - startAt,
    };
  }

  #planRuns(count: number): PlannedRun[] {
    const { seed, start, vars, startWith } = this.#options;
    return Array.from({ length: count }, (_, index) => {
      const random = randomOf(seed, "run", index);
      const workflowId = start[index % start.length] as string;
      const given = vars?.(random, { seed, index, workflowId }) ?? {};
      const startMs = Math.floor(random.next() ** 2 * 5_000);
      const options = startWith?.(random, { seed, index, workflowId }) ?? {};
      return { runId: `run-${index}`, workflowId, vars: toJson(given, "vars") as JsonObject, options, startMs };
    });
  }

  #planFaults(): void {
    for (const fault of this.#schedule) {
      if (!("at" in fault)) continue;
      const during = (act: () => void): void => void this.#time.at(startAt + fault.at, () => !this.#calm && act());
      if (fault.fault === "store-down") {
        during(() => {
          this.#downUntil = Math.max(this.#downUntil, this.#time.now() + fault.ms);
        });
      } else if (fault.fault === "freeze") {
        during(() => this.#workers[fault.worker]?.freeze(fault.ms));
      } else if (fault.fault === "clock-jump") {
        during(() => {
          const process = this.#workers[fault.worker]?.process;
          if (!process) return;
          process.offsetMs += fault.ms;
          if (fault.ms < 0) process.setBacks += 1;
          this.#note(`the clock of worker ${fault.worker} jumps by ${fault.ms}`);
        });
      }
    }
  }

  /** One process after the other ends and comes back: meanwhile both versions are there. */
  #planDeploy(): void {
    const { code, seed, calmMs } = this.#options;
    if (!code.next) return;
    const random = randomOf(seed, "deploys");
    for (const worker of [this.#client, ...this.#workers])
      this.#time.at(Math.min(this.#deployAt + random.int(0, 10_000), startAt + calmMs - 1), () => !this.#calm && worker.crash(0));
  }

  #note(line: string): void {
    this.#trace.push(`${this.#time.now() - startAt} ${line}`);
  }

  /** Nothing goes wrong from now on. Whatever is dead comes back, and what stands still goes on. */
  #calmDown(): void {
    if (this.#calm) return;
    this.#calm = true;
    this.#note("calm");
    for (const worker of this.#workers) {
      if (!worker.process.alive) worker.start();
      else if (worker.process.frozen) worker.process.thaw();
    }
    this.#time.setTimer(() => this.#world.endPauses(), latestMs);
    const look = (): void => {
      this.#look().catch((error: unknown) => {
        this.#violation ??=
          error instanceof Violation
            ? error
            : new Violation("every-run-ends", `the simulation failed: ${(error as Error).stack}`);
      });
      this.#time.setTimer(look, lookMs);
    };
    this.#time.setTimer(look, lookMs);
  }

  #isOver(): boolean {
    const { live } = this.#observer;
    return live === 0 && this.#world.busy === 0 && this.#planned.every(({ runId }) => this.#observer.get(runId));
  }

  async #step(): Promise<void> {
    this.#events += 1;
    const next = this.#time.nextAt();
    if (next === undefined) throw new Violation("every-run-ends", await this.#stuck("nothing is due any more"));
    if (next > startAt + this.#options.longestMs)
      throw new Violation("every-run-ends", await this.#stuck(`it is not over after ${this.#options.longestMs} ms`));
    if (this.#events > this.#options.maxEvents)
      throw new Violation("every-run-ends", await this.#stuck(`it is not over after ${this.#events} events`));
    this.#time.fire();
    await this.#settle();
  }

  /**
   * Until nothing can go on without time. Promises are settled when the event loop turns; the store needs turns of its own; a real
   * handler that awaits something gets a few.
   */
  async #settle(): Promise<void> {
    let spare = 20;
    const before = this.#observer.calls;
    do {
      await turn();
      // They would fill the log, and what they ask for would not change. A store of disks and servers takes its time for each.
      if (this.#observer.calls - before > mostCalls)
        throw new Violation(
          "no-busy-loop",
          await this.#stuck(`after ${mostCalls} calls of the store at one moment it still goes on`),
        );
      if (this.#violation) return;
    } while (this.#observer.pending > 0 || (this.#calls.working > 0 && spare-- > 0));
  }

  /** In a calm world: whether anything still moves, and how far off the next thing is. */
  async #look(): Promise<void> {
    const { lastCommitAt, live } = this.#observer;
    const now = this.#time.now();
    // A handler that never answers keeps nobody up for ever.
    const isWorking = [...this.#calls.open].some(({ startedAt }) => now - startedAt < patienceMs);
    if (live === 0 || isWorking || now - lastCommitAt < lookMs) return;
    const rows = await this.#liveRows();
    const dueAt = rows.reduce(
      (least, { wakeAt }) => Math.min(least, wakeAt ?? Number.POSITIVE_INFINITY),
      Number.POSITIVE_INFINITY,
    );
    const idleMs = now - Math.max(lastCommitAt, startAt + this.#options.calmMs);
    if (idleMs > patienceMs && (dueAt < now - patienceMs || (dueAt === Number.POSITIVE_INFINITY && this.#world.busy === 0)))
      throw new Violation("every-run-ends", await this.#stuck("nothing moves any more"));
    if (this.#world.busy === 0 && dueAt > now + nightMs && dueAt < Number.POSITIVE_INFINITY)
      await this.#sleepUntil(dueAt - 5_000);
  }

  /** All processes end and others come when there is something to do: nobody waits through a month of polling. */
  async #sleepUntil(moment: number): Promise<void> {
    if (moment > startAt + this.#options.longestMs)
      throw new Violation("every-run-ends", await this.#stuck("what it waits for is too far off"));
    this.#note(`night until ${moment - startAt}`);
    for (const worker of this.#workers) worker.crash();
    // Their leases run out in between.
    this.#time.jumpTo(moment);
    for (const worker of this.#workers) worker.start();
  }

  async #liveRows(): Promise<ListedRun[]> {
    const { runs } = await this.#store.query({ status: ["running", "waiting", "failed"], limit: 1_000 });
    return runs.filter(({ status, wakeAt }) => status !== "failed" || wakeAt !== null);
  }

  async #stuck(what: string): Promise<string> {
    const now = this.#time.now();
    const rows = await this.#liveRows();
    const lines = rows.map(({ runId, status, node, wakeAt, blocked, holder, paused }) => {
      const wait = [...(this.#observer.get(runId)?.waits.values() ?? [])].map(({ reason, waitKey }) => `${reason} "${waitKey}"`);
      const parts = [
        `${status}${paused ? ", paused" : ""} at node "${node}"`,
        wait.length > 0 ? `waits for ${wait.join(", ")}` : "waits for nothing",
        wakeAt === null ? "never due" : `due ${wakeAt <= now ? `since ${now - wakeAt} ms` : `in ${wakeAt - now} ms`}`,
        holder === undefined ? "held by nobody" : `held by ${holder}`,
        ...(blocked ? [`blocked: ${blocked.code}`] : []),
      ];
      return `run ${runId} is ${parts.join("; ")}`;
    });
    const calls = [...this.#calls.open].map(
      ({ effectType, runId }) => `a call of "${effectType}" for run ${runId} has not ended`,
    );
    return [
      what,
      ...lines,
      ...calls,
      ...(this.#world.busy > 0 ? [`the outside world has ${this.#world.busy} things to do`] : []),
    ].join(". ");
  }

  /** Everything has ended: what stood still goes on, to find that it is too late; then the processes stop, and all is checked. */
  async #end(): Promise<void> {
    this.#calmDown();
    const until = this.#time.now() + 2_000;
    while (!this.#violation && (this.#time.nextAt() ?? until) < until) await this.#step();
    let stopping = 0;
    for (const worker of [this.#client, ...this.#workers]) {
      if (!worker.runtime) continue;
      stopping += 1;
      worker.runtime.stop({ timeoutMs: 1_000 }).then(
        () => {
          stopping -= 1;
        },
        (error: unknown) => {
          stopping -= 1;
          this.#violation ??= new Violation("promises-kept", `stop() was refused: ${(error as Error).message}`);
        },
      );
    }
    await this.#settle();
    while (stopping > 0 && !this.#violation) await this.#step();
    if (this.#violation) return;
    const { time, store, observer } = { time: this.#time, store: this.#store, observer: this.#observer };
    const inspector = await createRuntime({
      workflows: this.#options.code.workflows,
      store: {
        ...wrapStore({ name: "simulated", blobs: store.blobs }, async (method, args) =>
          method === "close" ? undefined : callStore(store, method, args),
        ),
        transact: () => Promise.reject(new RangeError("nothing is driven here")),
      },
      scheduler: false,
      clock: time,
      ids: testIds(seedOf(this.#options.seed, "inspector")),
    });
    try {
      const { seed, invariants } = this.#options;
      await checkEnd({ seed, observer, calls: this.#calls.log, world: this.#world, store, inspector }, invariants);
    } finally {
      await inspector.stop({ timeoutMs: 0 });
    }
  }
}

/** A turn of the event loop. */
function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}
