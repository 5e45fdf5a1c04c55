/** The surface: what a program does with runs. Everything here is a transition of the store or a question to it. */
import { hash } from "node:crypto";
import { type Begun, beginRun } from "../kernel/begin.ts";
import { type Clock, type Ids, systemClock, systemIds } from "../kernel/clock.ts";
import type { DriveHost } from "../kernel/drive.ts";
import { type AnyEffect, type EffectDefinition, isDefinedEffect, type Logger } from "../kernel/effect.ts";
import { AbstractRuntimeError, checkOptions, nearest } from "../kernel/errors.ts";
import { defaultLimits, type Limits } from "../kernel/execute.ts";
import { restore } from "../kernel/fold.ts";
import { equalJson, type Json } from "../kernel/json.ts";
import type { Anything } from "../kernel/typing.ts";
import { decodeRecord, formatVersion, type LedgerRecord } from "../kernel/record.ts";
import { isEnded, type RunState } from "../kernel/run.ts";
import type { Capability, Loaded, Message, RunPage, RunQuery, Store } from "../kernel/store.ts";
import type { Workflow } from "../kernel/workflow.ts";
import { notWaiting, respondMessage, resumeMessage } from "./answer.ts";
import { Scheduler, schedulerDefaults, type SchedulerOptions } from "./scheduler.ts";
import { type Verification, verifyRun } from "./verify.ts";
import { type Run, viewOf } from "./view.ts";

export interface RuntimeOptions {
  /** The workflows whose runs this process may drive. */
  workflows?: readonly Workflow[];
  /** Effects for all workflows; a workflow's own of the same type go before. */
  effects?: readonly AnyEffect[];
  /** Default: SQLite in `./.abstractruntime/runs.db`. The runtime closes it when it stops. */
  store?: Store;
  /** Drives due runs by itself. Default: true; false for `tick`. */
  scheduler?: boolean | SchedulerOptions;
  limits?: Partial<Limits>;
  /** Where the runtime reports what is nobody's exception. Default: nowhere. */
  log?: Logger;
  clock?: Clock;
  ids?: Ids;
}

export interface StartOptions<Vars = Anything> {
  /** What the workflow's schema takes. Default: `{}`. */
  vars?: Vars;
  /** Chosen by the caller, the start is idempotent: a second one with the same workflow and vars finds the run. Default: a UUID. */
  runId?: string;
  /** Who causes the run; stands in every record. */
  actorId?: string;
  sessionId?: string;
}

/** The run, with vars and output in the workflow's types. */
export type RunOf<W> = W extends Workflow<infer Vars, infer Output, Anything> ? Run<Vars, Output> : Run;
type InputOf<W> = W extends Workflow<Anything, Anything, infer Input> ? Input : Anything;

const optionNames = ["workflows", "effects", "store", "scheduler", "limits", "log", "clock", "ids"];
const startNames = ["vars", "runId", "actorId", "sessionId"];
const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };
const defaultDrainMs = 10_000;

/**
 * Opens a runtime over a store. It drives due runs in the background until it is stopped.
 *
 * @throws INVALID_OPTION, WORKFLOW_INVALID, and what opening the store rejects with.
 */
export async function createRuntime(options: RuntimeOptions = {}): Promise<Runtime> {
  checkOptions(options, optionNames, "createRuntime()");
  const settings = typeof options.scheduler === "object" ? options.scheduler : {};
  checkOptions(settings, Object.keys(schedulerDefaults), "createRuntime({ scheduler })");
  checkOptions(options.limits ?? {}, Object.keys(defaultLimits), "createRuntime({ limits })");
  for (const [name, value] of Object.entries({ ...settings, ...options.limits })) checkNumber(name, value, 1);
  if (!Number.isInteger(settings.concurrency ?? 1)) {
    throw new AbstractRuntimeError("INVALID_OPTION", {
      option: "concurrency",
      problem: "concurrency must be a whole number from 1",
    });
  }
  const store = options.store ?? (await defaultStore(options.clock));
  try {
    const runtime = new Runtime(store, options, { ...schedulerDefaults, ...settings });
    await runtime.open();
    return runtime;
  } catch (error) {
    await store.close();
    throw error;
  }
}

async function defaultStore(clock: Clock | undefined): Promise<Store> {
  const path = ".abstractruntime/runs.db";
  try {
    const { sqliteStore } = await import("../stores/sqlite/index.ts");
    return await sqliteStore(path, clock ? { clock } : {});
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ERR_UNKNOWN_BUILTIN_MODULE") throw error;
    const problem = `Node ${process.versions.node} has no SQLite; abstractruntime needs Node 22.18 or newer`;
    throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: `sqlite:${path}`, problem }, error);
  }
}

export class Runtime implements AsyncDisposable {
  readonly store: Store;
  readonly #workflows = new Map<string, Workflow>();
  readonly #effects = new Map<string, EffectDefinition>();
  readonly #scheduler: Scheduler;
  readonly #host: DriveHost;
  readonly #background: boolean;
  readonly #listeners = new Set<(runId: string) => void>();
  /** The fingerprint, until another workflow comes. */
  #named: string | undefined;
  #stopping: Promise<void> | undefined;

  constructor(store: Store, options: RuntimeOptions, settings: Required<SchedulerOptions>) {
    this.store = store;
    for (const workflow of options.workflows ?? []) {
      if (!isWorkflow(workflow))
        throw new AbstractRuntimeError("INVALID_OPTION", {
          option: "workflows",
          problem: "workflows holds something that defineWorkflow did not make",
        });
      this.#register(workflow);
    }
    for (const effect of options.effects ?? []) {
      if (!isDefinedEffect(effect))
        throw new AbstractRuntimeError("INVALID_OPTION", {
          option: "effects",
          problem: "effects holds something that defineEffect did not make",
        });
      this.#effects.set(effect.definition.type, effect.definition);
    }
    const clock = options.clock ?? systemClock;
    const fingerprint = (): string => this.#fingerprint();
    this.#host = {
      store,
      clock,
      ids: options.ids ?? systemIds,
      log: guarded(options.log ?? silent),
      limits: { ...defaultLimits, ...options.limits },
      get fingerprint() {
        return fingerprint();
      },
      now: () => this.#scheduler.now(),
      loopBusyMs: loopBusyMs(clock),
      holdsLeases: () => this.#scheduler.holdsLeases(),
      renewLeases: () => this.#scheduler.renew(),
      workflow: (id) => this.#workflows.get(id),
      workflowIds: () => [...this.#workflows.keys()],
      effect: (type, workflow) => workflow.effects.get(type) ?? this.#effects.get(type),
      reached: (runIds) => this.#scheduler.reached(runIds),
      committed: (records) => {
        for (const record of records) if (record.kind.startsWith("run_")) this.#notify(record.runId);
      },
    };
    this.#background = options.scheduler !== false;
    const workflows = this.#workflows;
    const worker: Capability = {
      workerId: this.#host.ids.id(),
      // Asked for at each claim: a workflow that a start brought along is driven from then on.
      get workflows() {
        return [...workflows.keys()];
      },
      get fingerprint() {
        return fingerprint();
      },
    };
    this.#scheduler = new Scheduler(this.#host, worker, settings, this.#background);
  }

  async open(): Promise<void> {
    await this.#scheduler.start();
  }

  /**
   * Creates a run. It is durable when this resolves; a scheduler drives it. With a `runId` of your own a second call finds the
   * run that the first one created.
   *
   * @throws WORKFLOW_UNKNOWN, VARS_INVALID, NOT_JSON, TOO_LARGE, RUN_EXISTS (the id stands for another workflow or other vars).
   */
  async start<W extends Workflow<Anything, Anything, Anything>>(
    workflow: W | string,
    options: StartOptions<InputOf<W>> = {},
  ): Promise<{ runId: string }> {
    const begun = await this.#begin(workflow, options);
    const [created] = await this.store.create([begun]);
    if (!created) await this.#checkSame(begun);
    this.#scheduler.look();
    return { runId: begun.row.runId };
  }

  /**
   * Starts a run and drives it here until it waits or ends; then everything is durable. Finding a run under the `runId` given, it
   * waits for that one instead.
   *
   * @throws As `start`; also RUN_BUSY when another worker drives the run found.
   */
  async run<W extends Workflow<Anything, Anything, Anything>>(
    workflow: W | string,
    options: StartOptions<InputOf<W>> = {},
  ): Promise<RunOf<W>> {
    const begun = await this.#begin(workflow, options);
    const { runId } = begun.row;
    return this.#holding(async () => {
      const result = await this.#scheduler.begin(begun, options.runId !== undefined);
      if (result === false) {
        await this.#checkSame(begun);
        const driven = await (this.#scheduler.driving(runId) ?? this.#scheduler.claim(runId));
        return (driven ? await this.get(runId) : await this.#undriven(runId)) as RunOf<W>;
      }
      return (result ? viewOf(result.state, result.blocked) : await this.get(runId)) as RunOf<W>;
    });
  }

  /**
   * Drives a run here until it waits, ends, or `maxSteps` nodes have run (default: no limit). Only with `scheduler: false`. An
   * ended run is returned unchanged.
   *
   * @throws INVALID_OPTION with a scheduler, RUN_NOT_FOUND, RUN_BUSY, RUN_BLOCKED, RUN_QUARANTINED
   */
  async tick(runId: string, options: { maxSteps?: number } = {}): Promise<Run> {
    checkOptions(options, ["maxSteps"], "tick()");
    if (this.#background)
      throw new AbstractRuntimeError("INVALID_OPTION", {
        option: "tick",
        problem: "tick() is for runtimes made with scheduler: false; this one drives runs by itself",
      });
    checkNumber("maxSteps", options.maxSteps, 0);
    this.#checkRunning();
    if (isEnded((await this.#load(runId)).row)) return this.get(runId);
    const result = await this.#holding(() => this.#scheduler.claim(runId, options.maxSteps));
    return result ? viewOf(result.state, result.blocked) : this.#undriven(runId);
  }

  /**
   * Answers the one open question of a run; where it asks nobody, the one open event or job. A text answers a question as `{ text }`. The answer is durable when this resolves;
   * the run goes on where a worker has its code.
   *
   * @throws RUN_NOT_FOUND, NOT_WAITING, WAIT_AMBIGUOUS, ANSWER_INVALID, ALREADY_ANSWERED, TOO_LARGE, NOT_JSON
   */
  async respond(runId: string, payload: unknown): Promise<void> {
    const { state, loaded } = await this.#restored(runId);
    await this.#deliver(respondMessage(state, loaded.mail, payload, this.#host.limits));
  }

  /** Answers the wait named. As `respond`. @throws Also WAIT_KEY_MISMATCH. */
  async resume(runId: string, answer: { waitKey: string; payload?: unknown }): Promise<void> {
    checkOptions(answer, ["waitKey", "payload"], "resume()");
    const { state, loaded } = await this.#restored(runId);
    await this.#deliver(resumeMessage(state, loaded.mail, answer.waitKey, answer.payload ?? null, this.#host.limits));
  }

  /** The run as it is stored. @throws RUN_NOT_FOUND, RECORD_CORRUPT, FORMAT_NEWER */
  async get(runId: string): Promise<Run> {
    const { state, loaded } = await this.#restored(runId);
    return viewOf(state, loaded.blocked, loaded.row.wakeAt);
  }

  /** Rows of runs, newest first; a page says when there are more. */
  list(query: RunQuery = {}): Promise<RunPage> {
    checkOptions(
      query,
      ["status", "workflowId", "waitReason", "waitKey", "parentRunId", "holder", "order", "limit", "cursor"],
      "list()",
    );
    return this.store.query(query);
  }

  /** The records of a run, oldest first; all of them unless `from` and `limit` say otherwise. @throws RUN_NOT_FOUND, RECORD_CORRUPT */
  async ledger(runId: string, options: { from?: number; limit?: number } = {}): Promise<LedgerRecord[]> {
    checkOptions(options, ["from", "limit"], "ledger()");
    await this.#load(runId);
    const stored = await this.store.records(runId, options.from ?? 0, options.limit ?? Number.MAX_SAFE_INTEGER);
    return stored.map((record) => decodeRecord(runId, record));
  }

  /** The run as it was after record `seq`. @throws RUN_NOT_FOUND, SEQ_NOT_FOUND */
  async stateAt(runId: string, seq: number): Promise<Run> {
    const loaded = await this.#load(runId, seq);
    if (!Number.isInteger(seq) || seq < 0 || seq > loaded.row.seq)
      throw new AbstractRuntimeError("SEQ_NOT_FOUND", { runId, seq, last: loaded.row.seq });
    return viewOf(await this.#stateOf(loaded, seq));
  }

  /**
   * Waits for a run to end and answers with its output. Holds the process open.
   *
   * @param options.timeoutMs Longest wait. Default: no limit.
   * @throws RUN_FAILED, RUN_CANCELLED, RUN_BLOCKED, RUN_QUARANTINED, RESULT_TIMEOUT, RUN_NOT_FOUND
   */
  async result<Output = Json>(runId: string, options: { timeoutMs?: number } = {}): Promise<Output> {
    checkOptions(options, ["timeoutMs"], "result()");
    checkNumber("timeoutMs", options.timeoutMs, 0);
    const { clock } = this.#host;
    const deadline = options.timeoutMs === undefined ? Number.POSITIVE_INFINITY : clock.now() + options.timeoutMs;
    for (let waitMs = 20; ; waitMs = Math.min(1_000, waitMs * 2)) {
      const changed = this.#changed(runId);
      try {
        const loaded = await this.#load(runId);
        if (isEnded(loaded.row)) return outcomeOf(await this.#stateOf(loaded)) as Output;
        if (loaded.blocked && (loaded.blocked.quarantine || loaded.blocked.fingerprint === this.#host.fingerprint))
          throw blockedError(runId, loaded);
        this.#checkRunning();
        const leftMs = deadline - clock.now();
        if (leftMs <= 0)
          throw new AbstractRuntimeError("RESULT_TIMEOUT", {
            runId,
            timeoutMs: options.timeoutMs as number,
            status: loaded.row.status,
          });
        // Another process may end the run, so the store is asked now and then; ends in this one are heard of at once.
        await changed.within(Math.min(waitMs, leftMs));
      } finally {
        changed.forget();
      }
    }
  }

  /** Compares ledger, checkpoints and row of a run. Reads only. @throws RUN_NOT_FOUND */
  async verify(runId: string): Promise<Verification> {
    const verification = await verifyRun(this.store, runId);
    if (!verification) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
    return verification;
  }

  /**
   * Claims nothing more, lets effects under way settle for up to `timeoutMs` (default 10 s), hands runs back and closes the store. A
   * second call waits for the first.
   */
  stop(options: { timeoutMs?: number } = {}): Promise<void> {
    this.#stopping ??= this.#scheduler.stop(options.timeoutMs ?? defaultDrainMs).finally(() => {
      for (const listener of this.#listeners) listener("");
      return this.store.close();
    });
    return this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  /** A run that could not be claimed: why, or how it ended. */
  async #undriven(runId: string): Promise<Run> {
    const loaded = await this.#load(runId);
    if (loaded.blocked) throw blockedError(runId, loaded);
    if (loaded.lease && !isEnded(loaded.row))
      throw new AbstractRuntimeError("RUN_BUSY", { runId, workerId: loaded.lease.workerId });
    return this.get(runId);
  }

  /** Keeps the process open while somebody awaits a run that is driven here: its timeouts are to come. */
  async #holding<T>(action: () => Promise<T>): Promise<T> {
    const hold = this.#host.clock.setTimer(() => undefined, Number.MAX_SAFE_INTEGER, true);
    try {
      return await action();
    } finally {
      hold.cancel();
    }
  }

  // ---- Starting ----------------------------------------------------------------------------------------------------

  async #begin(given: Workflow | string, options: StartOptions): Promise<Begun> {
    this.#checkRunning();
    checkOptions(options, startNames, "start()");
    const id = typeof given === "string" ? given : given?.id;
    const workflow = this.#workflows.get(id) ?? (isWorkflow(given) ? this.#register(given) : undefined);
    if (!workflow) {
      const known = [...this.#workflows.keys()];
      const suggestion = nearest(String(id), known);
      throw new AbstractRuntimeError("WORKFLOW_UNKNOWN", {
        workflowId: String(id),
        known,
        ...(suggestion ? { suggestion } : {}),
      });
    }
    const { runId, ...rest } = options;
    for (const option of ["actorId", "sessionId"] as const) {
      if (rest[option] !== undefined && typeof rest[option] !== "string")
        throw new AbstractRuntimeError("INVALID_OPTION", { option, problem: `${option} must be text` });
    }
    if (runId !== undefined && (typeof runId !== "string" || runId === "" || runId.length > 200)) {
      throw new AbstractRuntimeError("INVALID_OPTION", { option: "runId", problem: "runId must be text of 1 to 200 characters" });
    }
    return beginRun(
      workflow,
      { ...rest, runId: runId ?? this.#host.ids.id(), now: this.#scheduler.now() },
      this.#host.ids,
      this.#host.limits,
    );
  }

  /** @throws RUN_EXISTS unless the stored run began like this one. */
  async #checkSame(begun: Begun): Promise<void> {
    const { runId } = begun.row;
    const [stored] = await this.store.records(runId, 0, 1);
    if (!stored) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
    const first = decodeRecord(runId, stored);
    if (first.kind !== "run_started")
      throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: 0, problem: "the run does not begin with its start" });
    if (first.data.workflowId !== begun.state.workflowId)
      throw new AbstractRuntimeError("RUN_EXISTS", { runId, problem: `workflow "${first.data.workflowId}"` });
    if (!equalJson(first.data.vars, begun.state.vars))
      throw new AbstractRuntimeError("RUN_EXISTS", { runId, problem: "other vars" });
  }

  #register(workflow: Workflow): Workflow {
    const known = this.#workflows.get(workflow.id);
    if (known && known !== workflow) {
      throw new AbstractRuntimeError("WORKFLOW_INVALID", { workflowId: workflow.id, problem: "two workflows have this id" });
    }
    this.#workflows.set(workflow.id, workflow);
    this.#named = undefined;
    return workflow;
  }

  /** Names the code of this process: other names, other abilities. A version that reads newer records has another one. */
  #fingerprint(): string {
    if (this.#named !== undefined) return this.#named;
    const workflows = [...this.#workflows.values()].map(({ id, version, nodes, effects }) => [
      id,
      version,
      [...nodes.keys()].sort(),
      [...effects.keys()].sort(),
    ]);
    this.#named = hash("sha256", JSON.stringify([formatVersion, workflows.sort(), [...this.#effects.keys()].sort()])).slice(
      0,
      16,
    );
    return this.#named;
  }

  async #deliver(answer: Message): Promise<void> {
    const { runId, key: waitKey } = answer;
    const [delivery] = await this.store.deliver([answer], this.#host.limits.mailboxMessages);
    switch (delivery?.kind) {
      case "stored":
        return this.#scheduler.delivered(runId, delivery.holder);
      case "duplicate":
        throw new AbstractRuntimeError("ALREADY_ANSWERED", { runId, waitKey });
      case "full":
        throw new AbstractRuntimeError("MAILBOX_FULL", { runId, limit: delivery.limit });
      default: {
        // It moved on between the look and the delivery.
        const { state } = await this.#restored(runId);
        throw notWaiting(state, state.answered?.includes(waitKey) ? waitKey : undefined);
      }
    }
  }

  // ---- Reading -----------------------------------------------------------------------------------------------------

  async #load(runId: string, at?: number): Promise<Loaded> {
    const loaded = await this.store.load(runId, at === undefined ? {} : { at });
    if (!loaded) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
    return loaded;
  }

  async #restored(runId: string): Promise<{ state: RunState; loaded: Loaded }> {
    this.#checkRunning();
    const loaded = await this.#load(runId);
    return { state: await this.#stateOf(loaded), loaded };
  }

  /** A bad checkpoint is no reason to refuse an answer: the ledger has everything. */
  async #stateOf(loaded: Loaded, at?: number): Promise<RunState> {
    const { runId } = loaded.row;
    try {
      return restore(runId, loaded).state;
    } catch (error) {
      if (!loaded.checkpoint) throw error;
      const tail = await this.store.records(runId, 0, (at ?? loaded.row.seq) + 1);
      return restore(runId, { tail }).state;
    }
  }

  #checkRunning(): void {
    if (this.#stopping) throw new AbstractRuntimeError("RUNTIME_STOPPED", {});
  }

  #notify(runId: string): void {
    for (const listener of this.#listeners) listener(runId);
  }

  /** Hears of changes of a run from now on. */
  #changed(runId: string): { within(ms: number): Promise<void>; forget(): void } {
    let heard = false;
    let wake: (() => void) | undefined;
    const listener = (changed: string): void => {
      if (changed !== runId && changed !== "") return;
      heard = true;
      wake?.();
    };
    this.#listeners.add(listener);
    return {
      within: (ms) =>
        new Promise((resolve) => {
          const timer = this.#host.clock.setTimer(() => resolve(), ms, true);
          wake = () => {
            timer.cancel();
            resolve();
          };
          if (heard) wake();
        }),
      forget: () => void this.#listeners.delete(listener),
    };
  }
}

function isWorkflow(value: unknown): value is Workflow {
  const { id, nodes, effects } = (typeof value === "object" && value !== null ? value : {}) as Partial<Workflow>;
  return typeof id === "string" && nodes instanceof Map && effects instanceof Map;
}

/** @throws INVALID_OPTION */
/** A logger that throws is the host's mistake, and must not end what it was told of. */
function guarded(log: Logger): Logger {
  const safely =
    (level: keyof Logger) =>
    (message: string, fields?: Record<string, unknown>): void => {
      try {
        log[level](message, fields);
      } catch {
        // There is nobody left to tell.
      }
    };
  return { debug: safely("debug"), info: safely("info"), warn: safely("warn"), error: safely("error") };
}

/** How long the event loop has been kept since it last had its turn. */
function loopBusyMs(clock: Clock): () => number {
  let since: number | undefined;
  return () => {
    const now = clock.now();
    if (since === undefined) {
      since = now;
      setImmediate(() => {
        since = undefined;
      });
    }
    return now - since;
  };
}

function checkNumber(option: string, value: unknown, least: number): void {
  if (value === undefined || (typeof value === "number" && value >= least)) return;
  throw new AbstractRuntimeError("INVALID_OPTION", { option, problem: `${option} must be a number from ${least}` });
}

function outcomeOf(state: RunState): Json {
  const { runId } = state;
  if (state.status === "failed")
    throw new AbstractRuntimeError("RUN_FAILED", { runId, problem: state.error?.message ?? "" }, state.error);
  if (state.status === "cancelled")
    throw new AbstractRuntimeError("RUN_CANCELLED", {
      runId,
      ...(state.cancelling?.reason === undefined ? {} : { reason: state.cancelling.reason }),
    });
  return state.output ?? null;
}

function blockedError(runId: string, { blocked }: Loaded): AbstractRuntimeError {
  const { code, problem, quarantine } = blocked as NonNullable<Loaded["blocked"]>;
  return quarantine
    ? new AbstractRuntimeError("RUN_QUARANTINED", { runId, problem })
    : new AbstractRuntimeError("RUN_BLOCKED", { runId, code, problem });
}
