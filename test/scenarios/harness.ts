/**
 * Every scenario runs on each store, and in three ways:
 *
 * - plainly: one runtime drives it in the background;
 * - restarted: every node is driven by a new runtime over the store, and the one before was stopped with no time to drain;
 * - abandoned: likewise, but the one before just vanishes, as in a crash: its store calls fail from then on.
 *
 * Afterwards every run of the store is verified, is looked at after each of its records, and has something that moves it on.
 */
import {
  type AnyEffect,
  type Clock,
  createRuntime,
  type Limits,
  type ListedRun,
  type Run,
  type RunQuery,
  type Runtime,
  schemaProblem,
  type StartOptions,
  type StoredRecord,
  type Store,
  type Timer,
  type Workflow,
} from "abstractruntime";
import { type Fault, faultyStore, type TestClock, testClock, testIds } from "abstractruntime/testing";
import { describe, expect, test } from "vitest";
import { fold } from "../../src/kernel/fold.ts";
import { viewOf } from "../../src/runtime/view.ts";
import { type UserDatabase, userDatabase } from "../stores/user-database.ts";
import { type Place, placeOf, type StoreKind, storeKinds } from "./places.ts";

// Checks of schemas import a package for the first of them, and no store call tells that something is under way meanwhile.
await schemaProblem({}, null);

export { type StoreKind, storeKinds } from "./places.ts";
export const modes = ["plainly", "restarted", "abandoned"] as const;
export type Mode = (typeof modes)[number];

export interface Code {
  workflows?: readonly Workflow[];
  effects?: readonly AnyEffect[];
  limits?: Partial<Limits>;
}

/** @param kinds Of stores; all but where a scenario is about what only some have. */
export function scenario(name: string, play: (world: World) => Promise<void>, kinds: readonly StoreKind[] = storeKinds): void {
  describe(name, () => {
    for (const kind of kinds) {
      for (const mode of modesOn(kind, name)) {
        test(`on ${kind}, ${mode}`, async () => {
          const world = new World(kind, mode);
          try {
            await play(world);
            await world.check();
          } finally {
            await world.close();
          }
        });
      }
    }
  });
}

/** On a disk or a server everything takes its time: with `npm run scenarios` as much is done there as in memory. */
const isThorough = (kind: StoreKind): boolean => process.env.SCENARIOS === "all" || kind === "memory";

/** The ways in which a scenario is played: elsewhere than in memory one of them, which it keeps; on a server mostly the shortest. */
function modesOn(kind: StoreKind, name: string): readonly Mode[] {
  if (isThorough(kind)) return modes;
  let sum = kind.length;
  for (const character of name) sum += character.codePointAt(0) as number;
  if (kind === "postgres" && sum % 2 === 0) return ["plainly"];
  return [modes[sum % modes.length] as Mode];
}

/** A runtime that is open, with what it takes to make an end of it. */
interface Opened {
  runtime: Runtime;
  workerId: string;
  /** The store below the wrapper. */
  inner: Store;
  faults: Fault[];
  timers: Set<Timer>;
}

export class World {
  readonly kind: StoreKind;
  readonly mode: Mode;
  /** Of so many points at which a sweep could let the process die, one. */
  readonly stride: number;
  readonly clock: TestClock;
  /** What runtimes and stores read: `clock`, less what it was turned back by. */
  readonly shown: Clock;
  turnedBackMs = 0;
  /** Whether the store has died as `killAt` said. */
  killed = false;
  #killAt: { commits: number; after: boolean } | undefined;
  /** Runs whose verification is expected to fail. */
  readonly damaged = new Set<string>();
  #place: Promise<Place> | undefined;
  readonly #ids = testIds(7);
  #code: Code = {};
  #open: Opened | undefined;
  #ticking: { done: boolean; error?: unknown } | undefined;
  #calls = 0;
  /** Calls that the store has not answered, and questions to tables of the user. */
  readonly #pending = new Pending();
  readonly #mends: (() => Promise<void>)[] = [];

  constructor(kind: StoreKind, mode: Mode) {
    this.kind = kind;
    this.mode = mode;
    this.stride = isThorough(kind) ? 1 : kind === "postgres" ? 5 : 3;
    this.clock = testClock(undefined, { isQuiet: () => this.#pending.calls === 0 });
    this.shown = {
      now: () => this.clock.now() - this.turnedBackMs,
      setTimer: (callback, delayMs, hold) => this.clock.setTimer(callback, delayMs, hold),
    };
  }

  now(): number {
    return this.shown.now();
  }

  /** The code of the runtimes from now on. A runtime under way is replaced. */
  async use(code: Code | Workflow): Promise<void> {
    await this.drop();
    this.#code = "nodes" in code ? { workflows: [code] } : code;
  }

  async start(workflow: Workflow<any, any, any> | string, options: StartOptions = {}): Promise<string> {
    const { runId } = await this.with((runtime) => runtime.start(workflow, options));
    return runId;
  }

  /** Starts a run and lets it go as far as it can now. */
  async run(workflow: Workflow<any, any, any>, vars: Record<string, unknown> = {}): Promise<Run<any, any>> {
    const runId = await this.start(workflow, { vars });
    await this.settle();
    return this.get(runId);
  }

  get(runId: string): Promise<Run<any, any>> {
    return this.with((runtime) => runtime.get(runId));
  }

  async respond(runId: string, payload: unknown): Promise<Run<any, any>> {
    await this.with((runtime) => runtime.respond(runId, payload));
    await this.settle();
    return this.get(runId);
  }

  async resume(runId: string, waitKey: string, payload?: unknown): Promise<Run<any, any>> {
    await this.with((runtime) => runtime.resume(runId, payload === undefined ? { waitKey } : { waitKey, payload }));
    await this.settle();
    return this.get(runId);
  }

  async signal(runId: string, key: string, payload?: unknown, options: { id?: string } = {}): Promise<Run<any, any>> {
    await this.with((runtime) => runtime.signal(runId, key, payload, options));
    await this.settle();
    return this.get(runId);
  }

  async cancel(runId: string, options: { reason?: string } = {}): Promise<Run<any, any>> {
    await this.with((runtime) => runtime.cancel(runId, options));
    await this.settle();
    return this.get(runId);
  }

  async pause(runId: string, options: { reason?: string } = {}): Promise<Run<any, any>> {
    await this.with((runtime) => runtime.pause(runId, options));
    await this.settle();
    return this.get(runId);
  }

  async unpause(runId: string): Promise<Run<any, any>> {
    await this.with((runtime) => runtime.unpause(runId));
    await this.settle();
    return this.get(runId);
  }

  async retry(runId: string): Promise<Run<any, any>> {
    await this.with((runtime) => runtime.retry(runId));
    await this.settle();
    return this.get(runId);
  }

  /** The kinds of a run's records, each with its effect; of what came from outside, with what was done. */
  async kinds(runId: string): Promise<string[]> {
    const records = await this.with((runtime) => runtime.ledger(runId));
    return records.map((record) => {
      const told = record.kind === "control" ? record.data.action : record.kind === "delivered" ? record.data.outcome : "";
      return [record.kind, record.effectId, told].filter(Boolean).join(" ");
    });
  }

  /** Moves time, and lets everything go as far as it can then. */
  async advance(ms: number): Promise<void> {
    await this.settle();
    // Nobody waits through days of polling; whatever is alive looks again afterwards.
    if (ms > 600_000 && !this.#ticking) await this.drop();
    await this.clock.advance(ms);
    await this.settle();
  }

  /** The tables of the user, beside the runs. */
  async database(): Promise<UserDatabase> {
    const place = await this.#placed();
    // Whoever comes first makes the store.
    await this.drop();
    await (await place.open(this.shown)).close();
    return userDatabase(place.address as string, (answer) => counted(this.#pending, answer));
  }

  /** One question to a runtime: the one under way, or another one made for it. */
  async with<T>(ask: (runtime: Runtime) => Promise<T>): Promise<T> {
    const opened = await this.#opened();
    try {
      return await ask(opened.runtime);
    } finally {
      if (this.mode !== "plainly" && !this.#ticking) await this.drop();
    }
  }

  /** As `with`, of a runtime that drives nothing by itself. */
  async manually<T>(ask: (runtime: Runtime) => Promise<T>): Promise<T> {
    await this.drop();
    const { runtime } = await this.#opened({ scheduler: false });
    try {
      return await ask(runtime);
    } finally {
      await this.drop();
    }
  }

  /** Lets runs go on until nothing moves without time, a message, or a handler's answer. */
  async settle(): Promise<void> {
    if (this.mode === "plainly") {
      await this.#opened();
      return this.#quiet();
    }
    const stuck = new Set<string>();
    for (let ticks = 0; ; ticks++) {
      if (ticks > 5_000) throw new Error("It does not settle: a run is due again and again.");
      if (!this.#ticking && !(await this.#tickNext(stuck))) return this.drop();
      await this.#quiet();
      if (!this.#ticking?.done) return;
      const { error } = this.#ticking;
      this.#ticking = undefined;
      if (error) throw error;
      await this.drop();
    }
  }

  /** The process dies at its n-th commit from now: that one fails, before or after it was done, and so does every later call. */
  killAt(commits: number, after: boolean): void {
    this.killed = false;
    this.#killAt = { commits, after };
  }

  /** No death that `killAt` announced is to come any more. */
  disarm(): void {
    this.#killAt = undefined;
  }

  /** The process ends here and now, whatever it was doing; its host knows. */
  async crash(): Promise<void> {
    this.#ticking = undefined;
    await this.#vanish();
    this.killed = false;
  }

  /** Forgets the tick under way, whose runtime was stopped. */
  forget(): void {
    this.#ticking = undefined;
  }

  /** Ends the runtime under way, as the mode says. */
  async drop(): Promise<void> {
    if (!this.#open) return;
    if (this.mode === "abandoned") return this.#vanish();
    const { runtime } = this.#open;
    this.#open = undefined;
    await stopped(runtime, this.clock);
  }

  /** Changes a stored record behind the store's back. */
  async damage(runId: string, seq: number, change: (record: StoredRecord) => Partial<StoredRecord>): Promise<void> {
    await this.drop();
    const place = await this.#placed();
    this.#mends.push(await place.damage(runId, seq, (record) => ({ ...record, ...change(record) })));
  }

  /** Changes every stored checkpoint of a run. Answers how many there are. */
  async damageCheckpoints(runId: string): Promise<number> {
    const { length } = await this.with((runtime) => runtime.store.checkpoints(runId));
    await this.drop();
    await (await this.#placed()).damageCheckpoints(runId);
    return length;
  }

  /** Undoes every damage to records. */
  async mend(): Promise<void> {
    await this.drop();
    for (const mend of this.#mends.splice(0)) await mend();
  }

  async check(): Promise<void> {
    await this.drop();
    this.#ticking = undefined;
    const opened = await this.#opened({ scheduler: false });
    for (const row of await everyRun(opened.runtime)) {
      const { runId } = row;
      const verification = await opened.runtime.verify(runId);
      if (this.damaged.has(runId)) {
        expect(verification.ok, `verification of the damaged run ${runId}`).toBe(false);
        continue;
      }
      expect(verification.problems).toEqual([]);
      expect(verification.ok).toBe(true);
      await checkHistory(opened.runtime, runId, isThorough(this.kind) ? 200 : 12);
      expectMovable(row);
    }
  }

  async close(): Promise<void> {
    this.#ticking = undefined;
    if (this.#open) await this.#vanish();
    await (await this.#place)?.remove();
  }

  async #opened(options: { scheduler?: boolean } = {}): Promise<Opened> {
    if (this.#open) return this.#open;
    const place = await this.#placed();
    const inner = await place.open(this.shown);
    let workerId = "";
    const watch: Fault = {
      kind: "fail",
      on: (method, args) => {
        this.#calls += 1;
        if (method === "renew") workerId = args[0] as string;
        return false;
      },
    };
    const dies = (after: boolean) => (method: string) => {
      if (method !== "commit" || this.#killAt?.after !== after) return false;
      this.#killAt.commits -= 1;
      if (this.#killAt.commits > 0) return false;
      this.#killAt = undefined;
      this.killed = true;
      return true;
    };
    const faults: Fault[] = [
      watch,
      { kind: "fail", on: () => this.killed },
      { kind: "fail", on: dies(false) },
      { kind: "fail", on: dies(true), after: true },
    ];
    const store = faultyStore(watched(inner, this.#pending), faults);
    const timers = new Set<Timer>();
    const clock: Clock = {
      now: this.shown.now,
      setTimer: (callback, delayMs, hold) => {
        const timer = this.shown.setTimer(callback, delayMs, hold);
        timers.add(timer);
        return timer;
      },
    };
    const runtime = await createRuntime({
      ...this.#code,
      store,
      clock,
      ids: this.#ids,
      scheduler: options.scheduler ?? this.mode === "plainly",
    });
    this.#open = { runtime, workerId, inner, faults, timers };
    return this.#open;
  }

  #placed(): Promise<Place> {
    this.#place ??= placeOf(this.kind);
    return this.#place;
  }

  /** Ticks the first run that is due, and that is not stuck in this process. */
  async #tickNext(stuck: Set<string>): Promise<boolean> {
    const { runtime } = await this.#opened();
    const due = (await everyRun(runtime, { status: ["running", "waiting", "failed"] })).find(
      (run) => run.wakeAt !== null && run.wakeAt <= this.now() && !stuck.has(run.runId) && !run.blocked?.quarantine,
    );
    if (!due) return false;
    const ticking: { done: boolean; error?: unknown } = { done: false };
    this.#ticking = ticking;
    runtime
      .tick(due.runId, { maxSteps: 1 })
      .then(
        (run) => void (run.blocked && stuck.add(due.runId)),
        (error: unknown) => {
          const { code } = error as { code?: string };
          if (code === "RUN_BLOCKED" || code === "RUN_QUARANTINED") stuck.add(due.runId);
          else ticking.error = error;
        },
      )
      .finally(() => {
        ticking.done = true;
      });
    return true;
  }

  async #vanish(): Promise<void> {
    const opened = this.#open;
    if (!opened) return;
    this.#open = undefined;
    opened.faults.push({ kind: "fail" });
    for (const timer of opened.timers) timer.cancel();
    await (await this.#placed()).vanish(opened.inner, opened.workerId);
  }

  async #quiet(): Promise<void> {
    for (let calm = 0, before = -1; calm < 8; ) {
      await new Promise((resolve) => setImmediate(resolve));
      // A server takes its time to answer.
      if (this.#pending.calls > 0) await this.#pending.changed;
      calm = this.#calls === before && this.#pending.calls === 0 ? calm + 1 : 0;
      before = this.#calls;
    }
  }
}

/** A store that counts the calls which it has not answered. */
function watched(store: Store, pending: Pending): Store {
  const watch = <T>(answer: Promise<T>): Promise<T> => counted(pending, answer);
  return new Proxy(store, {
    get(target, name) {
      const method = Reflect.get(target, name);
      if (typeof method !== "function") return method;
      const call = method.bind(target);
      if (name === "transact")
        // While the handler works, it is not the store that is waited for.
        return (work: Parameters<NonNullable<Store["transact"]>>[0]) =>
          watch(
            call(async (client: unknown, commit: Store["commit"]) => {
              pending.calls -= 1;
              try {
                return await work(client, (transitions) => watch(commit(transitions)));
              } finally {
                pending.calls += 1;
              }
            }),
          );
      if (name === "within") return (client: unknown) => watched(call(client), pending);
      return (...args: unknown[]) => {
        const answer = call(...args);
        return answer instanceof Promise ? watch(answer) : answer;
      };
    },
  });
}

/** How many calls are under way. */
class Pending {
  #calls = 0;
  #answered = Promise.withResolvers<void>();

  get calls(): number {
    return this.#calls;
  }

  set calls(calls: number) {
    this.#calls = calls;
    this.#answered.resolve();
    this.#answered = Promise.withResolvers();
  }

  /** Resolves when there is one more or one less. */
  get changed(): Promise<void> {
    return this.#answered.promise;
  }
}

async function counted<T>(pending: Pending, answer: Promise<T>): Promise<T> {
  pending.calls += 1;
  try {
    return await answer;
  } finally {
    pending.calls -= 1;
  }
}

/** Stops a runtime at once; its timers are the test's, and move only when the test moves them. */
export async function stopped(runtime: Runtime, clock: TestClock): Promise<void> {
  await moved(runtime.stop({ timeoutMs: 0 }), clock, 0);
}

/** What `promise` gives, moving time by `stepMs` again and again until it does; another process may have its part in it. */
export async function moved<T>(promise: Promise<T>, clock: TestClock, stepMs: number): Promise<T> {
  let done = false;
  promise.then(
    () => {
      done = true;
    },
    () => {
      done = true;
    },
  );
  for (const until = performance.now() + 120_000; !done; ) {
    if (performance.now() > until) throw new Error("It does not settle, whatever the time.");
    await clock.advance(stepMs);
  }
  return promise;
}

export async function everyRun(runtime: Runtime, query: RunQuery = {}): Promise<ListedRun[]> {
  const runs: ListedRun[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await runtime.list({ ...query, order: "oldest", limit: 50, ...(cursor === undefined ? {} : { cursor }) });
    runs.push(...page.runs);
    if (page.next === undefined) return runs;
    cursor = page.next;
  }
}

/** The state at every record, as the store answers it, is the fold of the records up to there; of longer ledgers at some of them. */
async function checkHistory(runtime: Runtime, runId: string, longest: number): Promise<void> {
  let state: ReturnType<typeof fold> | undefined;
  const records = await runtime.ledger(runId);
  const sampled = records.length > longest ? Math.ceil((4 * records.length) / longest) : 1;
  for (const record of records) {
    state = fold(state, record);
    if (record.seq % sampled === 0) expect(await runtime.stateAt(runId, record.seq)).toEqual(viewOf(state));
  }
}

/** No run is left with nobody and nothing to move it on. */
export function expectMovable(row: ListedRun): void {
  if (["completed", "failed", "cancelled"].includes(row.status)) return expect(row.wakeAt).toBeNull();
  const named =
    row.wakeAt !== null || row.paused || row.waits.some(({ reason }) => reason !== "until") || row.blocked !== undefined;
  expect(named, `run ${row.runId} is ${row.status} and nothing moves it on`).toBe(true);
  expect(row.holder).toBeUndefined();
}

/** The code and message of what `promise` rejects with. */
export async function refusal(promise: Promise<unknown> | (() => unknown)): Promise<string> {
  try {
    await (typeof promise === "function" ? promise() : promise);
  } catch (error) {
    return (error as Error).message;
  }
  return "nothing was refused";
}
