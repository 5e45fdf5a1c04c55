/** What a runtime and a start are given, checked at the door. */
import type { Clock, Ids } from "../kernel/clock.ts";
import type { AnyEffect, Logger } from "../kernel/effect.ts";
import { checkOptions, invalidOption } from "../kernel/errors.ts";
import { nearest } from "../kernel/nearest.ts";
import { defaultLimits, type Limits } from "../kernel/execute.ts";
import type { Instrument } from "../kernel/instrument.ts";
import { readMoment } from "../kernel/moment.ts";
import type { QueueOptions } from "../kernel/child-plans.ts";
import type { BlobStore } from "../kernel/artifact-row.ts";
import type { QueueLimits } from "../kernel/transition.ts";
import type { Spend } from "../kernel/spend.ts";
import type { Store } from "../kernel/store.ts";
import type { Anything } from "../kernel/typing.ts";
import type { Workflow } from "../kernel/workflow.ts";
import { schedulerDefaults, type SchedulerOptions } from "./scheduler.ts";

export interface RuntimeOptions {
  /** The workflows whose runs this process may drive. */
  workflows?: readonly Workflow[];
  /** Effects for all workflows; a workflow's own of the same type go before. */
  effects?: readonly AnyEffect[];
  /** Default: SQLite in `./.abstractruntime/runs.db`. The runtime closes it when it stops. */
  store?: Store;
  /** Where the bytes of artifacts go, such as `s3Blobs(...)`. Default: into the store. */
  artifacts?: BlobStore;
  /** Drives due runs by itself. Default: true; false for `tick`. */
  scheduler?: boolean | SchedulerOptions;
  /** The queues that runs may stand in, and their limits, which hold over all processes: give them all the same. A run in another queue is not driven here. */
  queues?: Readonly<Record<string, QueueLimits>>;
  limits?: Partial<Limits>;
  /** Where the runtime reports what is nobody's exception. Default: nowhere. */
  log?: Logger;
  /** Is told what runs do while they do it, such as `await openTelemetry()` makes. Default: nobody. */
  telemetry?: Instrument;
  clock?: Clock;
  ids?: Ids;
}

export interface StartOptions<Vars = Anything> extends QueueOptions {
  /** What the workflow's schema takes. Default: `{}`. */
  vars?: Vars;
  /** Chosen by the caller, the start is idempotent: a second one with the same workflow and vars finds the run. Default: a UUID. */
  runId?: string;
  /** Who causes the run; stands in every record. */
  actorId?: string;
  sessionId?: string;
  /** Up to 64 short texts that queries find the run by. They stay as they are. */
  tags?: readonly string[];
  /** What the run and all that it starts may spend on calls of models and tools, together. When it is used up, they wait for a person. Default: no limit. */
  budget?: Spend;
  /** The W3C `traceparent` of the request that starts it, for telemetry. Default: that of the code that calls. A text that is none is left out. */
  trace?: string;
  /** Not before so many milliseconds from now, by the store's clock. Default: at once. */
  delayMs?: number;
  /** Not before this moment: a Date, ISO text or milliseconds since 1970. */
  startAt?: Date | string | number;
  /**
   * A transaction that you have begun, as the client of the store's database (`DatabaseSync` on SQLite, pg's client on Postgres): the run
   * exists exactly if you commit it.
   */
  transaction?: unknown;
}

/** A lease is renewed three times while it lasts. */
const leastLeaseMs = 100;
const optionNames = [
  "workflows",
  "effects",
  "store",
  "artifacts",
  "scheduler",
  "queues",
  "limits",
  "log",
  "telemetry",
  "clock",
  "ids",
];

/** The scheduler's settings, with defaults. @throws INVALID_OPTION */
export function readOptions(options: RuntimeOptions): Required<SchedulerOptions> {
  checkOptions(options, optionNames, "createRuntime()");
  const { scheduler = true, artifacts, store } = options;
  if (store !== undefined && typeof (store as Partial<Store> | null)?.claim !== "function")
    throw invalidOption(
      "store",
      (store as unknown) instanceof Promise
        ? "store is a promise: write `store: await sqliteStore(...)`"
        : "store is what memoryStore(), await sqliteStore(path), await filesStore(directory) or await postgresStore(...) gives",
    );
  if (artifacts !== undefined && typeof (artifacts as Partial<BlobStore> | null)?.write !== "function")
    throw invalidOption("artifacts", "artifacts is a place for bytes, such as s3Blobs(...) makes");
  if (options.telemetry !== undefined && typeof (options.telemetry as Partial<Instrument> | null)?.begin !== "function")
    throw invalidOption("telemetry", "telemetry is an instrument, such as `await openTelemetry()` makes");
  if (typeof scheduler !== "boolean" && (typeof scheduler !== "object" || scheduler === null))
    throw invalidOption("scheduler", "scheduler is true, false or its settings");
  const settings = typeof scheduler === "object" ? scheduler : {};
  checkOptions(settings, Object.keys(schedulerDefaults), "createRuntime({ scheduler })");
  checkOptions(options.limits ?? {}, Object.keys(defaultLimits), "createRuntime({ limits })");
  const { effectConcurrency = {}, stateCacheSize, ...numbers } = settings;
  if (typeof effectConcurrency !== "object" || effectConcurrency === null)
    throw invalidOption(
      "effectConcurrency",
      "effectConcurrency is an object: the type of an effect, and how many of it execute at the same time",
    );
  for (const [name, value] of Object.entries({ ...numbers, ...options.limits })) checkNumber(name, value, 1);
  for (const [type, value] of Object.entries(effectConcurrency)) checkWhole(`effectConcurrency.${type}`, value);
  checkQueues(options.queues);
  checkNumber("leaseMs", settings.leaseMs, leastLeaseMs);
  checkWhole("concurrency", settings.concurrency);
  checkNumber("stateCacheSize", stateCacheSize, 0);
  return { ...schedulerDefaults, ...settings };
}

const startNames = [
  "vars",
  "runId",
  "actorId",
  "sessionId",
  "queue",
  "queueKey",
  "priority",
  "tags",
  "budget",
  "trace",
  "delayMs",
  "startAt",
  "transaction",
];

/** Checks all but the vars and the queue. Answers the earliest moment to drive the run, where that is after `now`. @throws INVALID_OPTION */
export function readStart(options: StartOptions, now: number): number | undefined {
  checkOptions(options, startNames, "start()");
  const { runId, delayMs, startAt } = options;
  checkNumber("delayMs", delayMs, 0);
  for (const option of ["actorId", "sessionId"] as const) {
    if (options[option] !== undefined && typeof options[option] !== "string")
      throw invalidOption(option, `${option} must be text`);
  }
  if (runId !== undefined && (typeof runId !== "string" || runId === "" || runId.length > 200)) {
    throw invalidOption("runId", "runId must be text of 1 to 200 characters");
  }
  if (delayMs !== undefined && startAt !== undefined)
    throw invalidOption("startAt", "delayMs and startAt say the same: give one");
  if (delayMs !== undefined) momentOf(now + delayMs, "delayMs");
  const notBefore = Math.ceil(Math.max(now, now + (delayMs ?? 0), startAt === undefined ? now : momentOf(startAt)));
  return notBefore > now ? notBefore : undefined;
}

function momentOf(given: Date | string | number, option = "startAt"): number {
  const at = readMoment(given);
  if (typeof at === "number") return at;
  throw invalidOption(option, `${option}: ${at}`);
}

function checkQueues(queues: RuntimeOptions["queues"]): void {
  if (queues !== undefined && (typeof queues !== "object" || queues === null || Array.isArray(queues)))
    throw invalidOption("queues", "queues is an object of limits, by queue");
  for (const [name, limits] of Object.entries(queues ?? {})) {
    const where = `the queue "${name}"`;
    if (typeof limits !== "object" || limits === null) throw invalidOption(name, `${where} is an object of limits`);
    checkOptions(limits, ["concurrency", "keyConcurrency", "rateLimit"], where);
    checkWhole(`queues.${name}.concurrency`, limits.concurrency);
    checkWhole(`queues.${name}.keyConcurrency`, limits.keyConcurrency);
    if (limits.rateLimit === undefined) continue;
    if (typeof limits.rateLimit !== "object" || limits.rateLimit === null)
      throw invalidOption(name, `the rateLimit of ${where} is { limit, periodMs }`);
    checkOptions(limits.rateLimit, ["limit", "periodMs"], `the rateLimit of ${where}`);
    checkWhole(`queues.${name}.rateLimit.limit`, limits.rateLimit.limit ?? Number.NaN);
    checkNumber(`queues.${name}.rateLimit.periodMs`, limits.rateLimit.periodMs ?? Number.NaN, 1);
  }
}

/** @throws INVALID_OPTION */
export function checkQueue(queue: string, queues: NonNullable<RuntimeOptions["queues"]>): void {
  const known = Object.keys(queues);
  if (known.includes(queue)) return;
  const suggestion = nearest(String(queue), known);
  const problem = `there is no queue "${String(queue)}" (known: ${known.join(", ") || "none"}): name it in createRuntime({ queues })`;
  throw invalidOption("queue", problem, suggestion);
}

/** @throws INVALID_OPTION */
export function checkWhole(option: string, value: number | undefined): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= 1)) return;
  throw invalidOption(option, `${option} must be a whole number from 1`);
}

/** @throws INVALID_OPTION */
export function checkNumber(option: string, value: unknown, least: number): void {
  if (value === undefined || (typeof value === "number" && value >= least)) return;
  throw invalidOption(option, `${option} must be a number from ${least}`);
}
