/**
 * Every scenario runs on each store, and on each in three ways:
 *
 * - plainly: one runtime drives it in the background;
 * - restarted: every node is driven by a new runtime over the store, and the one before was stopped with no time to drain;
 * - abandoned: likewise, but the one before just vanishes, as in a crash: its store calls fail from then on.
 *
 * Afterwards every run of the store is verified, is looked at after each of its records, and has something that moves it on.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import {
  type AnyEffect,
  type Clock,
  createRuntime,
  type Limits,
  type ListedRun,
  type Run,
  type Runtime,
  type StartOptions,
  type StoredRecord,
  type Store,
  type Timer,
  type Workflow,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { type Fault, faultyStore, type TestClock, testClock, testIds } from "abstractruntime/testing";
import { describe, expect, test } from "vitest";
import { fold } from "../../src/kernel/fold.ts";
import type { Checkpoint, Loaded } from "../../src/kernel/store.ts";
import { viewOf } from "../../src/runtime/view.ts";

export const storeKinds = ["memory", "sqlite"] as const;
export type StoreKind = (typeof storeKinds)[number];
export const modes = ["plainly", "restarted", "abandoned"] as const;
export type Mode = (typeof modes)[number];

export interface Code {
  workflows?: readonly Workflow[];
  effects?: readonly AnyEffect[];
  limits?: Partial<Limits>;
}

export function scenario(name: string, play: (world: World) => Promise<void>): void {
  describe(name, () => {
    for (const kind of storeKinds) {
      for (const mode of modes) {
        test(`on ${kind}, ${mode}`, { timeout: 30_000 }, async () => {
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
  readonly clock: TestClock;
  /** What runtimes and stores read: `clock`, less what it was turned back by. */
  readonly shown: Clock;
  turnedBackMs = 0;
  /** Whether the store has died as `killAt` said. */
  killed = false;
  #killAt: { commits: number; after: boolean } | undefined;
  /** Runs whose verification is expected to fail. */
  readonly damaged = new Set<string>();
  readonly #directory = mkdtempSync(join(tmpdir(), "scenario-"));
  readonly #ids = testIds(7);
  #memory: Store | undefined;
  #code: Code = {};
  #open: Opened | undefined;
  #ticking: { done: boolean; error?: unknown } | undefined;
  #calls = 0;
  /** For the memory store, whose contents nobody can reach: what is read instead of a record or checkpoint. */
  readonly #tampered = new Map<string, (text: StoredRecord) => StoredRecord>();
  readonly #badCheckpoints = new Set<string>();
  readonly #mends: (() => void)[] = [];

  constructor(kind: StoreKind, mode: Mode) {
    this.kind = kind;
    this.mode = mode;
    this.clock = testClock();
    this.shown = {
      now: () => this.clock.now() - this.turnedBackMs,
      setTimer: (callback, delayMs, hold) => this.clock.setTimer(callback, delayMs, hold),
    };
  }

  get path(): string {
    return join(this.#directory, "runs.db");
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
    const tamper = (record: StoredRecord): StoredRecord => ({ ...record, ...change(record) });
    if (this.kind === "memory") {
      this.#tampered.set(`${runId} ${seq}`, tamper);
      this.#mends.push(() => this.#tampered.clear());
      return;
    }
    this.#sql((database) => {
      const id = (database.prepare("SELECT run FROM runs WHERE run_id = ?").get(runId) as { run: number }).run * 2 ** 26 + seq;
      const stored = database.prepare("SELECT header, body FROM records WHERE id = ?").get(id) as unknown as StoredRecord;
      const { header, body } = tamper({ seq, hash: "", header: stored.header, body: stored.body });
      const update = (database: DatabaseSync, values: Pick<StoredRecord, "header" | "body">) =>
        database.prepare("UPDATE records SET header = ?, body = ? WHERE id = ?").run(values.header, values.body, id);
      update(database, { header, body });
      this.#mends.push(() => this.#sql((again) => update(again, stored)));
    });
  }

  /** Changes every stored checkpoint of a run. Answers how many there are. */
  async damageCheckpoints(runId: string): Promise<number> {
    const { length } = await this.with((runtime) => runtime.store.checkpoints(runId));
    await this.drop();
    if (this.kind === "memory") this.#badCheckpoints.add(runId);
    else
      this.#sql((database) =>
        database
          .prepare(
            "UPDATE checkpoints SET state = replace(state, '\"node\"', '\"nude\"') WHERE id / 67108864 = (SELECT run FROM runs WHERE run_id = ?)",
          )
          .run(runId),
      );
    return length;
  }

  /** Undoes every damage to records. */
  async mend(): Promise<void> {
    await this.drop();
    for (const mend of this.#mends.splice(0)) mend();
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
      await checkHistory(opened.runtime, runId);
      expectMovable(row);
    }
  }

  async close(): Promise<void> {
    this.#ticking = undefined;
    if (this.#open) await this.#vanish();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #opened(options: { scheduler?: boolean } = {}): Promise<Opened> {
    if (this.#open) return this.#open;
    const inner = await this.#store();
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
    const store = faultyStore(this.#tamper(inner), faults);
    if (this.kind === "memory") store.close = async () => undefined;
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

  async #store(): Promise<Store> {
    if (this.kind === "sqlite") return sqliteStore(this.path, { clock: this.shown });
    this.#memory ??= memoryStore({ clock: this.shown });
    return this.#memory;
  }

  /** Ticks the first run that is due, and that is not stuck in this process. */
  async #tickNext(stuck: Set<string>): Promise<boolean> {
    const { runtime } = await this.#opened();
    const due = (await everyRun(runtime)).find(
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
    if (this.kind === "memory") {
      // What a mark of life says at once where processes share a host.
      await opened.inner.retire(opened.workerId);
      return;
    }
    await opened.inner.close();
    // The system took the lock away; the file stays.
    const marks = `${this.path}-workers`;
    if (!existsSync(marks)) mkdirSync(marks);
    writeFileSync(join(marks, encodeURIComponent(opened.workerId)), "");
  }

  async #quiet(): Promise<void> {
    for (let calm = 0, before = -1; calm < 8; ) {
      await new Promise((resolve) => setImmediate(resolve));
      calm = this.#calls === before ? calm + 1 : 0;
      before = this.#calls;
    }
  }

  #sql(change: (database: DatabaseSync) => unknown): void {
    const database = new DatabaseSync(this.path);
    try {
      change(database);
    } finally {
      database.close();
    }
  }

  #tamper(store: Store): Store {
    if (this.kind !== "memory") return store;
    const record = (runId: string) => (stored: StoredRecord) => this.#tampered.get(`${runId} ${stored.seq}`)?.(stored) ?? stored;
    const checkpoint = (runId: string, text: Checkpoint): Checkpoint =>
      this.#badCheckpoints.has(runId) ? { ...text, text: text.text.replace('"node"', '"nude"') } : text;
    const loaded = (load: Loaded): Loaded => ({
      ...load,
      ...(load.checkpoint ? { checkpoint: checkpoint(load.row.runId, load.checkpoint) } : {}),
      tail: load.tail.map(record(load.row.runId)),
    });
    return new Proxy(store, {
      get(target, name) {
        const method = Reflect.get(target, name);
        if (typeof method !== "function") return method;
        const call = method.bind(target);
        if (name === "load")
          return async (...args: unknown[]) => {
            const found = await call(...args);
            return found && loaded(found);
          };
        if (name === "claim") return async (...args: unknown[]) => (await call(...args)).map(loaded);
        if (name === "records")
          return async (runId: string, ...args: unknown[]) => (await call(runId, ...args)).map(record(runId));
        if (name === "checkpoints")
          return async (runId: string) => (await call(runId)).map((text: Checkpoint) => checkpoint(runId, text));
        return call;
      },
    });
  }
}

/** Stops a runtime at once; its timers are the test's, and move only when the test moves them. */
export async function stopped(runtime: Runtime, clock: TestClock): Promise<void> {
  await moved(runtime.stop({ timeoutMs: 0 }), clock, 0);
}

/** What `promise` gives, moving time by `stepMs` again and again until it does. */
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
  for (let turns = 0; !done; turns++) {
    if (turns > 20_000) throw new Error("It does not settle, whatever the time.");
    await clock.advance(stepMs);
  }
  return promise;
}

export async function everyRun(runtime: Runtime): Promise<ListedRun[]> {
  const runs: ListedRun[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = await runtime.list({ order: "oldest", limit: 50, ...(cursor === undefined ? {} : { cursor }) });
    runs.push(...page.runs);
    if (page.next === undefined) return runs;
    cursor = page.next;
  }
}

/** The state at every record, as the store answers it, is the fold of the records up to there. */
async function checkHistory(runtime: Runtime, runId: string): Promise<void> {
  let state: ReturnType<typeof fold> | undefined;
  const records = await runtime.ledger(runId);
  const sampled = records.length > 200 ? Math.ceil(records.length / 50) : 1;
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
