/** The surface: what a program does with runs. Everything here is a transition of the store or a question to it. */
import { Artifacts } from "../artifacts/artifacts.ts";
import { type Begun, beginRun } from "../kernel/begin.ts";
import { type BudgetUse, usesOf } from "../kernel/budget.ts";
import { systemClock, systemIds } from "../kernel/clock.ts";
import type { DriveHost } from "../kernel/drive-host.ts";
import { AbstractRuntimeError, checkOptions, invalidOption } from "../kernel/errors.ts";
import { defaultLimits } from "../kernel/execute.ts";
import type { Json } from "../kernel/json.ts";
import { decodeRecord, type LedgerRecord } from "../kernel/record.ts";
import { isEnded, type RunRow, type RunState, type RunStatus } from "../kernel/run.ts";
import type { Capability, Loaded, NewRun, QueueLimits } from "../kernel/transition.ts";
import type { CountBy, RunCount, RunPage, RunQuery } from "../kernel/query.ts";
import type { Store } from "../kernel/store.ts";
import type { Anything } from "../kernel/typing.ts";
import type { Workflow } from "../kernel/workflow.ts";
import { type ArchivedLedger, writeLedger } from "./moving/archive-ledger.ts";
import { respondMessage, resumeMessage } from "./answer.ts";
import type { Place } from "./moving/carry.ts";
import { Changes } from "./changes.ts";
import { type CheckReport, checkRuns } from "./check.ts";
import { checkCountBy, checkQuery } from "./check-query.ts";
import { Code } from "./code.ts";
import { Events, type RuntimeEvents } from "./events.ts";
import { diffRun, type RunDiff } from "./time-travel/diff.ts";
import { type Exported, exportRuns } from "./moving/export-runs.ts";
import { type Imported, importRuns } from "./moving/import-runs.ts";
import { type Forking, type ForkOptions, forkRun } from "./time-travel/fork.ts";
import { readTraceparent } from "../kernel/instrument.ts";
import { GuardedInstrument } from "./guarded-instrument.ts";
import { type Health, healthOf, stateOfStore } from "./health.ts";
import {
  checkNumber,
  checkWhole,
  readOptions,
  readStart,
  type RuntimeOptions,
  type StartOptions,
  checkQueue,
} from "./options.ts";
import { type RunPoint, stateAt } from "./time-travel/moments.ts";
import { isRetried, isBare, loadRun, missing, stateOf } from "./read.ts";
import { type Replay, type ReplayOptions, replayRun } from "./time-travel/replay.ts";
import { archiveRuns, type Purged, type PurgeQuery, purgeRuns } from "./moving/retention.ts";
import { Schedules } from "./schedules/schedules.ts";
import { Scheduler, type SchedulerOptions } from "./scheduler.ts";
import { type Sender, sendAnswer, sendArchived, sendControl, sendRetry, sendSignal, sendToAll, sentBy } from "./send.ts";
import { EffectSlots } from "./slots.ts";
import { Snapshots } from "./time-travel/snapshots.ts";
import { LiveStreams } from "./streams.ts";
import { defaultStore, guarded, loopBusyMs, silent } from "./surroundings.ts";
import { checkTransactional, placeOf } from "./transaction.ts";
import { type RunTree, treeOf } from "./tree.ts";
import { type Verification, verifyRun } from "./verify.ts";
import { type Run, viewOf } from "./view.ts";
import { type Cursor, type WatchItem, watchRun } from "./watch.ts";
import { readCursor } from "./watch-cursor.ts";
import { checkSame } from "./same-start.ts";
import { resultOf, restingRun, checkUnclaimed, type Waiting } from "./result.ts";
import { toEach, applyHere, live, type Here } from "./each.ts";

/** The run, with vars and output in the workflow's types. */
export type RunOf<W> = W extends Workflow<infer Vars, infer Output, Anything> ? Run<Vars, Output> : Run;
type InputOf<W> = W extends Workflow<Anything, Anything, infer Input> ? Input : Anything;

/** How long a run that fans out stays in memory for the next end of a child, before it is parked. */
const lingerMs = 50;
const defaultDrainMs = 10_000;

/**
 * Opens a runtime over a store. It drives due runs in the background until it is stopped.
 *
 * @throws INVALID_OPTION, WORKFLOW_INVALID, and what opening the store rejects with.
 */
export async function createRuntime(options: RuntimeOptions = {}): Promise<Runtime> {
  const settings = readOptions(options);
  const store = options.store ?? (await defaultStore(options.clock));
  try {
    const runtime = new Runtime(store, options, settings);
    await runtime.open();
    return runtime;
  } catch (error) {
    await store.close();
    throw error;
  }
}

export class Runtime implements AsyncDisposable {
  readonly store: Store;
  /** Bytes beside the runs. */
  readonly artifacts: Artifacts;
  /** Runs that start by the calendar. */
  readonly schedules: Schedules;
  /** Bookmarks of runs. */
  readonly snapshots: Snapshots;
  readonly #code: Code;
  readonly #scheduler: Scheduler;
  readonly #host: DriveHost;
  readonly #background: boolean;
  readonly #events: Events;
  readonly #sender: Sender;
  readonly #queues: Readonly<Record<string, QueueLimits>>;
  readonly #options: Required<SchedulerOptions>;
  readonly #changes: Changes;
  readonly #streams: LiveStreams;
  readonly #forking: Forking;
  readonly #place: Place;
  #stopping: Promise<void> | undefined;
  #unwatch: () => void = () => undefined;

  constructor(store: Store, options: RuntimeOptions, settings: Required<SchedulerOptions>) {
    this.store = store;
    this.#options = settings;
    this.#queues = options.queues ?? {};
    const log = guarded(options.log ?? silent);
    this.#events = new Events(log);
    const code = new Code(options.workflows ?? [], options.effects ?? []);
    this.#code = code;
    checkTransactional(store, code.effects);
    const clock = options.clock ?? systemClock;
    this.#changes = new Changes(clock);
    const ids = options.ids ?? systemIds;
    const limits = { ...defaultLimits, ...options.limits };
    this.artifacts = new Artifacts({
      store,
      blobs: options.artifacts ?? store.blobs,
      ids,
      now: () => this.#scheduler.now(),
      jsonDepth: limits.jsonDepth,
      report: (message, fields) => this.#host.report?.(message, fields),
      checkRunning: () => this.#checkRunning(),
    });
    this.#streams = new LiveStreams({ store, clock, report: (message, fields) => this.#host.report?.(message, fields) });
    this.#host = {
      store,
      clock,
      ids,
      log,
      limits,
      artifacts: this.artifacts,
      streams: this.#streams,
      get fingerprint() {
        return code.fingerprint;
      },
      now: () => this.#scheduler.now(),
      loopBusyMs: loopBusyMs(clock),
      holdsLeases: () => this.#scheduler.holdsLeases(),
      leaseLapses: () => this.#scheduler.lapses,
      renewLeases: () => this.#scheduler.renew(),
      workflow: (id) => code.workflow(id),
      workflowIds: () => code.knownIds,
      effect: (type, workflow) => code.effect(type, workflow),
      ...(Object.keys(settings.effectConcurrency).length > 0 ? { slots: new EffectSlots(settings.effectConcurrency) } : {}),
      lingerMs: options.scheduler === false ? 0 : lingerMs,
      reached: (runIds) => this.#scheduler.reached(runIds),
      report: (message, fields) => this.#events.report(clock.now(), message, fields),
      started: (runs) => this.#started(runs),
      committed: (records, row) => this.#committed(records, row),
      ...(options.telemetry
        ? { instrument: new GuardedInstrument(options.telemetry, (message, fields) => this.#host.report?.(message, fields)) }
        : {}),
    };
    this.#place = { store, blobs: options.artifacts ?? store.blobs };
    this.#background = options.scheduler !== false;
    const worker: Capability = {
      workerId: this.#host.ids.id(),
      // Asked for at each claim: a workflow that a start brought along is driven from then on.
      get workflows() {
        return code.workflowIds;
      },
      get fingerprint() {
        return code.fingerprint;
      },
      queues: this.#queues,
    };
    this.#scheduler = new Scheduler(this.#host, worker, settings, this.#background);
    this.#scheduler.heard = () => this.#streams.heard();
    this.#sender = { host: this.#host, delivered: (runId, holder) => this.#scheduler.delivered(runId, holder) };
    this.schedules = new Schedules({
      store,
      now: this.#host.now,
      id: () => this.#host.ids.id(),
      workflow: (id) => code.workflow(id) ?? code.unknown(id),
      checkVars: async (workflow, vars) => {
        await beginRun(workflow, { runId: "a check", vars, now: this.#host.now() }, this.#host.ids, this.#host.limits);
      },
      start: (workflow, options) => this.start(workflow, options),
      find: async (runId) => {
        this.#checkRunning();
        const loaded = await this.store.load(runId);
        return loaded && { loaded, state: await stateOf(this.store, loaded) };
      },
      control: (runId, action) => this[action](runId),
    });
    this.#forking = {
      store,
      ids: this.#host.ids,
      limits: this.#host.limits,
      now: this.#host.now,
      workflow: (id) => code.workflow(id),
      create: async (begun) => {
        const [created] = await store.create([begun]);
        if (created) this.#started([begun]);
        this.#scheduler.look();
        return created === true;
      },
    };
    const open = (): Store => {
      this.#checkRunning();
      return store;
    };
    this.snapshots = new Snapshots({ store: open, forking: this.#forking });
  }

  async open(): Promise<void> {
    await this.#scheduler.start();
    const { instrument, clock, now } = this.#host;
    if (instrument) this.#unwatch = instrument.watch(stateOfStore(this.store, clock, now));
  }

  /**
   * Creates a run. It is durable when this resolves; a scheduler drives it. With a `runId` of your own a second call finds the
   * run that the first one created.
   *
   * With `transaction`, it is durable once you have committed; nobody hears of it before.
   *
   * @throws WORKFLOW_UNKNOWN, VARS_INVALID, NOT_JSON, TOO_LARGE, RUN_EXISTS (the id stands for another workflow or other vars),
   *   RUN_PURGED, RUN_MOVED, TRANSACTION_UNSUPPORTED, TRANSACTION_INVALID.
   */
  async start<W extends Workflow<Anything, Anything, Anything>>(
    workflow: W | string,
    options: StartOptions<InputOf<W>> = {},
  ): Promise<{ runId: string }> {
    const begun = await this.#begin(workflow, options);
    await this.#create(begun, options.transaction);
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
    if (options.transaction !== undefined)
      throw invalidOption(
        "transaction",
        "run() drives the run at once, before a transaction of yours can have committed: use start()",
      );
    const begun = await this.#begin(workflow, options);
    const { runId } = begun.row;
    // Whoever is to wait, for a slot or a moment, is driven when its turn comes.
    if (begun.row.queue !== undefined || begun.notBefore !== undefined) {
      await this.#create(begun);
      if (this.#background) {
        const get = (): Promise<Run> => this.get(runId);
        return (await this.#holding(() => restingRun(this.#changes, this.#options.pollMs, runId, get))) as RunOf<W>;
      }
      if (begun.notBefore === undefined) await this.#holding(() => this.#scheduler.claim(runId));
      return (await this.get(runId)) as RunOf<W>;
    }
    return this.#holding(async () => {
      const result = await this.#scheduler.begin(begun, options.runId !== undefined, () => this.#started([begun]));
      if (result === false) {
        await checkSame(this.store, begun);
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
      throw invalidOption("tick", "tick() is for runtimes made with scheduler: false; this one drives runs by itself");
    checkNumber("maxSteps", options.maxSteps, 0);
    this.#checkRunning();
    const loaded = await loadRun(this.store, runId);
    if (isEnded(loaded.row) && !isRetried(loaded)) return this.get(runId);
    const result = await this.#holding(() => this.#scheduler.claim(runId, options.maxSteps));
    return result ? viewOf(result.state, result.blocked) : this.#undriven(runId);
  }

  /**
   * Answers the one open question of a run; where it asks nobody, the one open event or job. A text answers a question as `{ text }`. The answer is durable when this resolves;
   * the run goes on where a worker has its code.
   *
   * @param options.transaction As of `start`: the answer counts exactly if you commit.
   * @param options.actorId Who answers; stands in the record. Default: whoever caused the run. So for all messages below.
   * @throws RUN_NOT_FOUND, RUN_PURGED, RUN_MOVED, NOT_WAITING, WAIT_AMBIGUOUS, ANSWER_INVALID, ALREADY_ANSWERED, TOO_LARGE, NOT_JSON
   */
  async respond(runId: string, payload: unknown, options: { actorId?: string; transaction?: unknown } = {}): Promise<void> {
    checkOptions(options, ["actorId", "transaction"], "respond()");
    const from = sentBy(options.actorId);
    const { state, loaded } = await this.#restored(runId);
    const message = await respondMessage(state, loaded.mail, payload, this.#host.limits);
    await sendAnswer(this.#sender, { ...message, ...from }, options.transaction, async () => (await this.#restored(runId)).state);
  }

  /** Answers the wait named. As `respond`. @throws Also WAIT_KEY_MISMATCH. */
  async resume(
    runId: string,
    answer: { waitKey: string; payload?: unknown; actorId?: string; transaction?: unknown },
  ): Promise<void> {
    checkOptions(answer, ["waitKey", "payload", "actorId", "transaction"], "resume()");
    const from = sentBy(answer.actorId);
    const { state, loaded } = await this.#restored(runId);
    const message = await resumeMessage(state, loaded.mail, answer.waitKey, answer.payload ?? null, this.#host.limits);
    await sendAnswer(this.#sender, { ...message, ...from }, answer.transaction, async () => (await this.#restored(runId)).state);
  }

  // ---- Messages ----------------------------------------------------------------------------------------------------

  /**
   * Sends an event to one run. It is durable when this resolves, kept until the run waits for it, and taken once. A second call
   * with the same `id` and content does nothing and says `duplicate`.
   *
   * @param payload JSON. Default: null.
   * @param options.id Stands for this event, so that it may be sent again. Default: a new one.
   * @param options.transaction As of `start`: the event is sent exactly if you commit.
   * @throws RUN_NOT_FOUND, RUN_PURGED, RUN_MOVED (send it again), RUN_ENDED, MAILBOX_FULL, MESSAGE_ID_REUSED (another content under the
   *   same id), TOO_LARGE, NOT_JSON
   */
  async signal(
    runId: string,
    key: string,
    payload?: unknown,
    options: { id?: string; actorId?: string; transaction?: unknown } = {},
  ): Promise<{ duplicate: boolean }> {
    this.#checkRunning();
    checkOptions(options, ["id", "actorId", "transaction"], "signal()");
    return sendSignal(this.#sender, runId, key, payload, options);
  }

  /**
   * Sends an event to every run that waits for it now, and answers how many that are. It is not kept for others. With an `id`, a
   * call that was cut off may be made again: every run takes the event once, and those reached before are counted again while
   * they have not taken it.
   *
   * @param options.workflowId Only to runs of this workflow.
   * @throws MAILBOX_FULL, MESSAGE_ID_REUSED, RUN_MOVED: after all other runs were reached. TOO_LARGE, NOT_JSON
   */
  async emit(
    key: string,
    payload?: unknown,
    options: { id?: string; workflowId?: string; actorId?: string } = {},
  ): Promise<number> {
    this.#checkRunning();
    checkOptions(options, ["id", "workflowId", "actorId"], "emit()");
    return sendToAll(this.#sender, key, payload, options);
  }

  /**
   * Ends a run as cancelled: what executes is told to stop and its outcome recorded, the workflow's `onCancel` nodes run, completed
   * effects are undone, and children that it waits for are cancelled. Resolves when the request is durable; `result` tells
   * when it is done. A second call does nothing.
   *
   * @throws RUN_NOT_FOUND, RUN_ENDED (it completed or failed)
   */
  async cancel(runId: string, options: { reason?: string; actorId?: string } = {}): Promise<void> {
    this.#checkRunning();
    checkOptions(options, ["reason", "actorId"], "cancel()");
    await sendControl(this.#sender, runId, "cancel", options);
    await applyHere(this.#here, runId, true);
  }

  /** Lets the step under way end, and nothing new begin, until `unpause`. Deadlines that pass meanwhile count afterwards. @throws RUN_NOT_FOUND, RUN_ENDED */
  async pause(runId: string, options: { reason?: string; actorId?: string } = {}): Promise<void> {
    this.#checkRunning();
    checkOptions(options, ["reason", "actorId"], "pause()");
    await sendControl(this.#sender, runId, "pause", options);
  }

  /** Lets a paused run go on. Does nothing to one that is not paused. @throws RUN_NOT_FOUND, RUN_ENDED */
  async unpause(runId: string, options: { actorId?: string } = {}): Promise<void> {
    this.#checkRunning();
    checkOptions(options, ["actorId"], "unpause()");
    await sendControl(this.#sender, runId, "unpause", options);
  }

  /**
   * Lets a failed run go on from where it failed: the effect that failed is tried again under its idempotency key, with all its
   * attempts; a node that threw runs again on the vars before it. What was completed is not done again. A second call before the run
   * went on does nothing.
   *
   * @throws RUN_NOT_FOUND, NOT_FAILED, RETRY_REFUSED (its parent took its end, or what it had done was undone)
   */
  async retry(runId: string, options: { actorId?: string } = {}): Promise<void> {
    checkOptions(options, ["actorId"], "retry()");
    const { state } = await this.#restored(runId);
    await sendRetry(this.#sender, state, options.actorId);
  }

  /** Cancels every live run of a query, and answers how many were told. */
  cancelAll(query: RunQuery, options: { reason?: string; actorId?: string } = {}): Promise<number> {
    checkOptions(options, ["reason", "actorId"], "cancelAll()");
    return this.#toEach(query, live, (runId) => this.cancel(runId, options));
  }

  pauseAll(query: RunQuery): Promise<number> {
    return this.#toEach(query, live, (runId) => this.pause(runId));
  }

  unpauseAll(query: RunQuery): Promise<number> {
    return this.#toEach(query, live, (runId) => this.unpause(runId));
  }

  /** Retries every failed run of a query, and answers how many were told. Those that refuse it are left as they are. */
  retryAll(query: RunQuery): Promise<number> {
    return this.#toEach(query, ["failed"], (runId) => this.retry(runId));
  }

  // ---- Looking -----------------------------------------------------------------------------------------------------

  /**
   * Calls `listener` with what happens here, once it is durable. Returns what makes it stop.
   *
   * @throws INVALID_OPTION
   */
  on<Name extends keyof RuntimeEvents>(event: Name, listener: (event: RuntimeEvents[Name]) => void): () => void {
    return this.#events.on(event, listener);
  }

  /**
   * A run as it happens, from the beginning or from behind a cursor: its records once they are durable, and what its effects stream, at
   * once and as provisional. It ends behind the record that ends the run, and holds the process open until then, or until it is left.
   *
   * What an attempt streamed comes before the record of its outcome. Of all but the last two steps that streamed nothing is kept:
   * their records have the whole. Each iteration is a reader of its own.
   *
   * @param options.after The cursor of the last item that was seen, in this process or another one.
   * @param options.signal Ends it: the iteration rejects with the signal's reason.
   * @throws INVALID_OPTION. The iteration: RUN_NOT_FOUND, RUN_PURGED, RUN_MOVED, RECORDS_ARCHIVED, RUNTIME_STOPPED, INVALID_OPTION (the
   *   cursor is not of this run)
   */
  watch(runId: string, options: { after?: Cursor | undefined; signal?: AbortSignal | undefined } = {}): AsyncIterable<WatchItem> {
    checkOptions(options, ["after", "signal"], "watch()");
    const host = {
      store: this.store,
      clock: this.#host.clock,
      streams: this.#streams,
      isDriven: (id: string) => this.#scheduler.driving(id) !== undefined,
      checkRunning: () => this.#checkRunning(),
    };
    return watchRun(host, runId, options.after === undefined ? undefined : readCursor(options.after), options.signal);
  }

  /** Whether everything moves, and what is in the way. Never rejects for a store that cannot be reached. */
  async health(): Promise<Health> {
    this.#checkRunning();
    return healthOf({
      store: this.store,
      clock: this.#host.clock,
      scheduler: this.#scheduler,
      options: this.#options,
      errors: this.#events.problems,
      background: this.#background,
      served: Object.keys(this.#queues),
    });
  }

  /** A run with its children, and theirs, breadth first, `limit` of them in all (default 10,000). @throws RUN_NOT_FOUND, RUN_PURGED */
  async tree(runId: string, options: { limit?: number } = {}): Promise<RunTree> {
    this.#checkRunning();
    checkOptions(options, ["limit"], "tree()");
    checkWhole("limit", options.limit);
    return treeOf(this.store, runId, options.limit ?? 10_000);
  }

  /**
   * What is used of the budgets that hold for a run, its own first: what was spent, and what is reserved for calls under way or was for
   * calls that were cut off. Empty when it has none.
   *
   * @throws RUN_NOT_FOUND, RUN_PURGED
   */
  async budgets(runId: string): Promise<BudgetUse[]> {
    const { budgets = [] } = (await this.#restored(runId)).state;
    const uses = budgets.map(async ({ scope }) => usesOf(budgets, scope, await this.store.counters(scope)));
    return (await Promise.all(uses)).flat();
  }

  /** Which live runs the code of this runtime could not drive on: what to ask before it is deployed. Reads only. */
  async check(): Promise<CheckReport> {
    this.#checkRunning();
    return checkRuns(this.store, this.#host, async (runId) => (await this.#restored(runId)).state);
  }

  /** The run as it is stored. @throws RUN_NOT_FOUND, RECORD_CORRUPT, FORMAT_NEWER */
  async get(runId: string): Promise<Run> {
    const { state, loaded } = await this.#restored(runId);
    // While a run is held, its row need not say when it wakes.
    const run = loaded.lease ? viewOf(state, loaded.blocked) : viewOf(state, loaded.blocked, loaded.row.wakeAt);
    return loaded.moving ? { ...run, moving: { ...loaded.moving } } : run;
  }

  /**
   * Rows of runs, newest first or in another `order`. A page has 100 unless `limit` says otherwise, 1,000 at most; where there are more it
   * has `next`, which as `cursor` gives the next page.
   *
   * @throws INVALID_OPTION
   */
  async list(query: RunQuery = {}): Promise<RunPage> {
    this.#checkRunning();
    checkQuery(query, "list()");
    return this.store.query(query);
  }

  /**
   * How many runs a query finds; with `by`, in each group, the largest first. A run with several tags or waits counts in each of its
   * groups, one with none under null.
   *
   * @throws INVALID_OPTION
   */
  async count(query: RunQuery, options: { by: CountBy }): Promise<RunCount[]>;
  async count(query?: RunQuery, options?: { by?: undefined }): Promise<number>;
  async count(query: RunQuery = {}, options: { by?: CountBy | undefined } = {}): Promise<number | RunCount[]> {
    this.#checkRunning();
    checkQuery(query, "count()");
    checkOptions(options, ["by"], "count()");
    checkCountBy(options.by);
    const counts = await this.store.count(query, options.by);
    return options.by === undefined ? (counts[0]?.count ?? 0) : counts;
  }

  /**
   * The records of a run, oldest first; all that are kept, unless `from` and `limit` say otherwise.
   *
   * @throws RUN_NOT_FOUND, RECORD_CORRUPT, RECORDS_ARCHIVED
   */
  async ledger(runId: string, options: { from?: number; limit?: number } = {}): Promise<LedgerRecord[]> {
    this.#checkRunning();
    checkOptions(options, ["from", "limit"], "ledger()");
    const { archivedBefore = 0 } = await loadRun(this.store, runId);
    const stored = await this.store.records(runId, options.from ?? archivedBefore, options.limit ?? Number.MAX_SAFE_INTEGER);
    return stored.map((record) => decodeRecord(runId, record));
  }

  /**
   * The run as it was.
   *
   * @param point After the record with this seq; or a Date, or ISO text with a time zone: after the last record at or before that time.
   * @throws RUN_NOT_FOUND, SEQ_NOT_FOUND, BEFORE_START, RECORDS_ARCHIVED, INVALID_OPTION
   */
  async stateAt(runId: string, point: RunPoint): Promise<Run> {
    this.#checkRunning();
    return viewOf(await stateAt(this.store, runId, point));
  }

  /** What changed between two points of a run, named as in `stateAt`, in either order. @throws As `stateAt`. */
  async diff(runId: string, from: RunPoint, to: RunPoint): Promise<RunDiff> {
    this.#checkRunning();
    return diffRun(this.store, runId, from, to);
  }

  /**
   * Starts a new run that goes on from where this one stood, with other vars if wanted. The origin stays as it is. With a `runId` of
   * your own a second call finds the fork that the first one made.
   *
   * @throws RUN_NOT_FOUND, SEQ_NOT_FOUND, RECORDS_ARCHIVED, FORK_OPEN_EFFECTS, FORK_REFUSED (it was ended, being cancelled or undone
   *   there), WORKFLOW_INCOMPATIBLE, VARS_INVALID, NOT_JSON, TOO_LARGE, RUN_EXISTS, INVALID_OPTION
   */
  async fork(runId: string, options: ForkOptions = {}): Promise<{ runId: string }> {
    this.#checkRunning();
    return forkRun(this.#forking, runId, options);
  }

  /**
   * Runs a run's nodes again, on the code of now or on a `workflow` given, while its effects give what they gave then; tells what came
   * out differently. Nothing is stored, and nothing is called but effects that are asked for as `live` or with a function.
   *
   * @throws RUN_NOT_FOUND, SEQ_NOT_FOUND, RECORDS_ARCHIVED, WORKFLOW_UNKNOWN, WORKFLOW_INCOMPATIBLE, EFFECT_UNKNOWN, VARS_INVALID,
   *   NOT_JSON, INVALID_OPTION
   */
  async replay(runId: string, options: ReplayOptions = {}): Promise<Replay> {
    this.#checkRunning();
    return replayRun({ host: this.#host, unknown: (id) => this.#code.unknown(id) }, runId, options);
  }

  /**
   * Waits for a run to end and answers with its output. Holds the process open.
   *
   * @param options.timeoutMs Longest wait. Default: no limit.
   * @throws RUN_FAILED, RUN_CANCELLED, RUN_BLOCKED, RUN_QUARANTINED, RESULT_TIMEOUT, RUN_NOT_FOUND, RUN_PURGED, RUN_MOVED (it has left)
   */
  async result<Output = Json>(runId: string, options: { timeoutMs?: number } = {}): Promise<Output> {
    checkOptions(options, ["timeoutMs"], "result()");
    checkNumber("timeoutMs", options.timeoutMs, 0);
    return (await resultOf(this.#waiting, runId, options.timeoutMs)) as Output;
  }

  // ---- Keeping and removing ----------------------------------------------------------------------------------------

  /**
   * Removes trees of runs (a run and all that it started) that have ended, with all that is theirs but snapshots. Their ids stay taken.
   * A tree of which a run is live, or ended later than asked for, is left as it is and counted.
   *
   * @throws INVALID_OPTION
   */
  async purge(query: PurgeQuery): Promise<Purged> {
    this.#checkRunning();
    return purgeRuns(this.store, query, this.#scheduler.now());
  }

  /**
   * As `purge`, with the runs written to a file first, from which `import` brings them back.
   *
   * @param query.to The file, which must not exist.
   * @throws INVALID_OPTION, ARTIFACT_MISSING, ARTIFACT_CORRUPT: nothing is removed then.
   */
  async archive(query: PurgeQuery & { to: string }): Promise<Purged> {
    this.#checkRunning();
    return archiveRuns(this.#place, query, this.#scheduler.now(), this.#host.ids);
  }

  /**
   * Writes the records of a live run before a seq to a file, and tells the run, which lets go of them: it records that, with the hash of
   * the last of them. Resolves when the file is on the disk and the run has been told; a second call with the same `before` and another
   * file writes that one too, while they are still there.
   *
   * @param options.before Seq of the first record to be kept.
   * @param options.to The file, which must not exist.
   * @throws RUN_NOT_FOUND, RUN_ENDED, RUN_MOVED, INVALID_OPTION, RECORD_CORRUPT: nothing is archived then.
   */
  async archiveLedger(runId: string, options: { before: number; to: string }): Promise<ArchivedLedger> {
    this.#checkRunning();
    checkOptions(options, ["before", "to"], "archiveLedger()");
    const { archived, message } = await writeLedger(this.store, runId, options, this.#host.ids);
    await sendArchived(this.#sender, message);
    await applyHere(this.#here, runId);
    return archived;
  }

  /**
   * Writes whole trees of runs to a file: copies, each as it stood at one of its records. With `fence` they leave this store for the
   * file, and are imported elsewhere as what they are; a second call completes one that was cut off.
   *
   * @param runIds First runs of trees.
   * @throws RUN_NOT_FOUND, RUN_PURGED, RUN_MOVED, MOVE_REFUSED, INVALID_OPTION (the file exists), ARTIFACT_MISSING, ARTIFACT_CORRUPT
   */
  async export(runIds: readonly string[], file: string, options: { fence?: boolean } = {}): Promise<Exported> {
    this.#checkRunning();
    checkOptions(options, ["fence"], "export()");
    return exportRuns(this.#place, runIds, file, options);
  }

  /**
   * Stores the runs of a file: all of them, or none. Live runs are taken only from a file that they left their store for.
   *
   * @throws PORTABLE_INVALID, FORMAT_NEWER, RUN_EXISTS, RUN_PURGED, RUN_MOVED, MOVE_REFUSED: nothing of the file is there then.
   */
  async import(file: string): Promise<Imported> {
    this.#checkRunning();
    const imported = await importRuns(this.#place, file);
    this.#scheduler.look();
    return imported;
  }

  /** Compares ledger, checkpoints and row of a run. Reads only. @throws RUN_NOT_FOUND */
  async verify(runId: string): Promise<Verification> {
    this.#checkRunning();
    const verification = await verifyRun(this.store, runId);
    if (!verification) throw await missing(this.store, runId);
    return verification;
  }

  /**
   * Claims nothing more, lets effects under way settle for up to `timeoutMs` (default 10 s), hands runs back and closes the store. A
   * second call waits for the first.
   */
  stop(options: { timeoutMs?: number } = {}): Promise<void> {
    this.#stopping ??= this.#scheduler.stop(options.timeoutMs ?? defaultDrainMs).finally(() => {
      this.#changes.end();
      this.#streams.end();
      this.#unwatch();
      // What cannot be closed is the host's to hear of, and no reason to fail whatever it did before.
      return this.store.close().catch((error: unknown) => this.#host.report?.("the store could not be closed", { error }));
    });
    return this.#stopping;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #toEach(query: RunQuery, statuses: readonly RunStatus[], act: (runId: string) => Promise<void>): Promise<number> {
    this.#checkRunning();
    return toEach(this.store, query, statuses, act);
  }

  /** A run that could not be claimed: why, or how it ended. */
  async #undriven(runId: string): Promise<Run> {
    await checkUnclaimed(this.store, runId);
    return this.get(runId);
  }

  get #here(): Here {
    return { host: this.#host, scheduler: this.#scheduler, isBackground: this.#background };
  }

  get #waiting(): Waiting {
    return { host: this.#host, changes: this.#changes, checkRunning: () => this.#checkRunning() };
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
    const now = this.#scheduler.now();
    const notBefore = readStart(options, now);
    const workflow = this.#code.take(given);
    checkTransactional(this.store, workflow.effects.values());
    const { runId, delayMs: _, startAt: __, transaction: ___, trace: asked, ...rest } = options;
    if (rest.queue !== undefined) checkQueue(rest.queue, this.#queues);
    const { instrument } = this.#host;
    const trace = instrument && readTraceparent(asked ?? instrument.here().traceparent);
    return beginRun(
      workflow,
      {
        ...rest,
        runId: runId ?? this.#host.ids.id(),
        now,
        ...(notBefore === undefined ? {} : { notBefore }),
        ...(trace === undefined ? {} : { trace }),
      },
      this.#host.ids,
      this.#host.limits,
    );
  }

  async #create(begun: Begun, transaction?: unknown): Promise<void> {
    const place = placeOf(this.store, transaction, "start({ transaction })");
    const [created] = await place.create([begun]);
    if (!created) await checkSame(this.store, begun, place);
    // Until it is committed there is nothing to tell of; then the store tells of it.
    if (transaction !== undefined) return;
    if (created) this.#started([begun]);
    this.#scheduler.look();
  }

  async #restored(runId: string): Promise<{ state: RunState; loaded: Loaded }> {
    this.#checkRunning();
    const { parked } = this.#scheduler;
    const known = await loadRun(this.store, runId, { known: parked.headOf(runId) });
    const state = parked.read(runId, known.row.head);
    if (state) return { state, loaded: known };
    // A driver took it meanwhile.
    const loaded = isBare(known) ? await loadRun(this.store, runId) : known;
    return { state: await stateOf(this.store, loaded), loaded };
  }

  #checkRunning(): void {
    if (this.#stopping) throw new AbstractRuntimeError("RUNTIME_STOPPED", {});
  }

  #started(runs: readonly NewRun[]): void {
    if (this.#events.hears("record"))
      for (const { row, record } of runs) this.#events.emit("record", decodeRecord(row.runId, record));
    if (this.#events.hears("run")) for (const { row } of runs) this.#events.emit("run", { ...row });
  }

  #committed(records: readonly LedgerRecord[], row: RunRow): void {
    this.#scheduler.wrote();
    this.#streams.committed(records, row);
    for (const record of records) {
      // A copy: what is shown is shared with the live state.
      if (this.#events.hears("record")) this.#events.emit("record", structuredClone(record));
      if (record.kind.startsWith("run_") || record.kind === "parked")
        this.#changes.tell(record.runId, record.kind === "run_completed" ? record.data.output : undefined);
    }
    // A lease that is given up by itself says nothing new of the run.
    if (records.length > 0 && this.#events.hears("run")) this.#events.emit("run", { ...row });
  }
}
