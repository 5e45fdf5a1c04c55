/** From `--store` to a runtime, and back: what is opened here is closed here. */
import { resolve } from "node:path";
import { inspect } from "node:util";
import {
  AbstractRuntimeError,
  type AnyEffect,
  createRuntime,
  type Instrument,
  isError,
  type Logger,
  type QueueLimits,
  type Runtime,
  type SchedulerOptions,
  type Store,
  type Workflow,
} from "../index.ts";
import { deadWorkers as deadWorkersOf, hasDied as workerHasDied } from "../stores/sqlite/index.ts";
import { type Cli, nextCommand } from "./command.ts";
import { openStore, storeExists, storePlace, withoutPassword } from "./open-store.ts";
import { Advised } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Whether the process of a worker is known to have died: at once, and not when its lease runs out. */
export function hasDied(cli: Cli, workerId: string): boolean {
  const place = storePlace(cli.store);
  return place.kind === "sqlite" && workerHasDied(resolve(place.path), workerId);
}

/** The workers that have died and were not yet cleared away: no other has looked for runs since. */
export function deadWorkers(cli: Cli): string[] {
  const place = storePlace(cli.store);
  return place.kind === "sqlite" ? deadWorkersOf(resolve(place.path)) : [];
}

/** @throws STORE_UNAVAILABLE when there is no store: whoever only looks must not make one. */
export async function requireStore(cli: Cli): Promise<void> {
  if (await storeExists(cli.store)) return;
  const missing = { files: "directory", sqlite: "file", postgres: "schema with a store in it" }[storePlace(cli.store).kind];
  throw new Advised(
    new AbstractRuntimeError("STORE_UNAVAILABLE", {
      store: withoutPassword(cli.store),
      problem: `there is no such ${missing}`,
    }),
    `Start a first run with \`${nextCommand(cli, "run", ["FILE"])}\`, or name another store with --store.`,
  );
}

/** For looking, and for what is no more than a message: drives nothing. */
export function reading<T>(cli: Cli, use: (runtime: Runtime) => Promise<T>, code: Code = {}): Promise<T> {
  return using(cli, { workflows: code.workflows ?? [], effects: code.effects ?? [], scheduler: false }, use);
}

/** For commands to runs, which a worker without any code may carry out. @param queues Of the runs: it claims none in another queue. */
export function commanding<T>(cli: Cli, queues: Iterable<string>, use: (runtime: Runtime) => Promise<T>): Promise<T> {
  // Without limits: a run that is cancelled needs no slot.
  return using(cli, { scheduler: false, queues: Object.fromEntries([...queues].map((queue) => [queue, {}])) }, use);
}

async function using<T>(cli: Cli, options: OpenOptions, use: (runtime: Runtime) => Promise<T>): Promise<T> {
  await requireStore(cli);
  const runtime = await openRuntime(cli, options);
  try {
    return await use(runtime);
  } finally {
    await runtime.stop();
  }
}

interface Code {
  workflows?: readonly Workflow[];
  effects?: readonly AnyEffect[];
}

interface OpenOptions extends Code {
  scheduler: boolean | SchedulerOptions;
  /** Makes it a worker, also without a scheduler: it may claim runs by name. */
  queues?: Readonly<Record<string, QueueLimits>>;
  telemetry?: Instrument | undefined;
  failed?: Failed;
}

/** Opens a runtime over the store, which it creates where it is missing. Whoever calls stops it. */
export async function openRuntime(
  cli: Cli,
  { workflows = [], effects = [], scheduler, queues, telemetry, failed }: OpenOptions,
): Promise<Runtime> {
  const store = await openStore(cli.store);
  // The runtime closes the store, also when it cannot be made.
  return createRuntime({
    store: scheduler || queues ? store : withoutWorker(store),
    workflows,
    effects,
    ...(queues ? { queues } : {}),
    ...(telemetry === undefined ? {} : { telemetry }),
    scheduler,
    log: logger(cli.terminal, cli.debug, failed),
  });
}

/** Whoever drives nothing is no worker: nothing is written to say that it lives. */
function withoutWorker(store: Store): Store {
  const quiet: Partial<Store> = { renew: async () => Date.now(), retire: async () => {} };
  return new Proxy(store, {
    get(target, key: keyof Store) {
      const member = quiet[key] ?? target[key];
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

/** Hears of what keeps a run, or all of them, from being driven. */
type Failed = (error: unknown, runId: unknown) => void;

export function logger(terminal: Terminal, debug: boolean, failed: Failed = () => {}): Logger {
  const note =
    (level: string) =>
    (message: string, fields: Record<string, unknown> = {}): void => {
      const { error, ...rest } = fields;
      // Its run was handed back because this process stops: that was asked for.
      if (isError(error, "RUNTIME_STOPPED") && !debug) return;
      // A text is told of a run that goes on all the same, such as what became of an undo.
      if (error instanceof Error && level === "error") failed(error, rest.runId);
      const why = error instanceof Error ? [error.message] : typeof error === "string" ? [error] : [];
      const more = Object.entries(rest).map(
        ([name, value]) =>
          `${name}=${typeof value === "string" ? value : inspect(value, { breakLength: Number.POSITIVE_INFINITY })}`,
      );
      terminal.note(`${level}: ${[message, ...why, ...more].join("  ")}`, level === "error" ? "red" : "dim");
    };
  return { debug: debug ? note("debug") : () => {}, info: note("info"), warn: note("warning"), error: note("error") };
}
