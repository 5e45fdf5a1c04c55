/** From `--store` to a runtime, and back: what is opened here is closed here. */
import { statSync } from "node:fs";
import { resolve } from "node:path";
import { inspect } from "node:util";
import {
  AbstractRuntimeError,
  createRuntime,
  isError,
  type Logger,
  type QueueLimits,
  type Runtime,
  type Store,
  type Workflow,
  nearest,
} from "../index.ts";
import { deadWorkers as deadWorkersOf, hasDied as workerHasDied, sqliteStore } from "../stores/sqlite/index.ts";
import { type Cli, nextCommand } from "./command.ts";
import { Advised, wrongUse } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

const kinds = ["sqlite"];

/** The path of a SQLite store. @throws INVALID_OPTION */
export function storePath(given: string): string {
  const [, kind, path] = /^([a-z]{2,}):(.*)$/is.exec(given) ?? [];
  const refuse = (problem: string, hint: string): never => {
    throw wrongUse("--store", problem, hint);
  };
  if (kind === undefined || path === undefined)
    return refuse(`--store "${given}" does not say which kind of store it is`, `Did you mean "sqlite:${given}"?`);
  if (!kinds.includes(kind)) {
    const suggestion = nearest(kind, kinds);
    return refuse(
      `--store "${given}" names an unknown kind of store, "${kind}" (known: ${kinds.join(", ")})`,
      suggestion ? `Did you mean "${suggestion}:${path}"?` : "Write it as sqlite:PATH.",
    );
  }
  if (path === "" || path === ":memory:")
    return refuse(`--store "${given}" names no file`, "Write it as sqlite:PATH; a store in memory would end with this command.");
  return path;
}

/** Whether the process of a worker is known to have died: at once, and not when its lease runs out. */
export function hasDied(cli: Cli, workerId: string): boolean {
  return workerHasDied(resolve(storePath(cli.store)), workerId);
}

/** The workers that have died and were not yet cleared away: no other has looked for runs since. */
export function deadWorkers(cli: Cli): string[] {
  return deadWorkersOf(resolve(storePath(cli.store)));
}

/** @throws STORE_UNAVAILABLE when there is no store: whoever only looks must not make one. */
export function requireStore(cli: Cli): void {
  try {
    statSync(storePath(cli.store));
    return;
  } catch (error) {
    // A directory that may not be entered is met when the store is opened, with its own words.
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") return;
  }
  throw new Advised(
    new AbstractRuntimeError("STORE_UNAVAILABLE", { store: cli.store, problem: "there is no such file" }),
    `Start a first run with \`${nextCommand(cli, "run", ["FILE"])}\`, or name another store with --store.`,
  );
}

/** For looking, and for what is no more than a message: drives nothing. */
export function reading<T>(cli: Cli, use: (runtime: Runtime) => Promise<T>, workflows: readonly Workflow[] = []): Promise<T> {
  return using(cli, { workflows, scheduler: false }, use);
}

/** For commands to runs, which a worker without any code may carry out. @param queues Of the runs: it claims none in another queue. */
export function commanding<T>(cli: Cli, queues: Iterable<string>, use: (runtime: Runtime) => Promise<T>): Promise<T> {
  // Without limits: a run that is cancelled needs no slot.
  return using(cli, { scheduler: false, queues: Object.fromEntries([...queues].map((queue) => [queue, {}])) }, use);
}

async function using<T>(cli: Cli, options: OpenOptions, use: (runtime: Runtime) => Promise<T>): Promise<T> {
  requireStore(cli);
  const runtime = await openRuntime(cli, options);
  try {
    return await use(runtime);
  } finally {
    await runtime.stop();
  }
}

interface OpenOptions {
  workflows?: readonly Workflow[];
  scheduler: boolean;
  /** Makes it a worker, also without a scheduler: it may claim runs by name. */
  queues?: Readonly<Record<string, QueueLimits>>;
  failed?: Failed;
}

/** Opens a runtime over the store, which it creates where it is missing. Whoever calls stops it. */
export async function openRuntime(cli: Cli, { workflows = [], scheduler, queues, failed }: OpenOptions): Promise<Runtime> {
  const store = await sqliteStore(storePath(cli.store));
  // The runtime closes the store, also when it cannot be made.
  return createRuntime({
    store: scheduler || queues ? store : withoutWorker(store),
    workflows,
    ...(queues ? { queues } : {}),
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

function logger(terminal: Terminal, debug: boolean, failed: Failed = () => {}): Logger {
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
