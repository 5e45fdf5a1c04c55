/** What a runtime tells whoever listens: after it is durable, never before (L3). */
import { isError, invalidOption } from "../kernel/errors.ts";
import { nearest } from "../kernel/nearest.ts";
import type { Logger } from "../kernel/effect.ts";
import { isPromise } from "../kernel/execute.ts";
import type { LedgerRecord } from "../kernel/record.ts";
import type { RunRow } from "../kernel/run.ts";

/** What is listened to, and what listeners are given. */
export interface RuntimeEvents {
  /** A record that this process wrote. */
  record: LedgerRecord;
  /** The row of a run that this process moved: after every commit of it. */
  run: RunRow;
  /** Something that is nobody's exception: a store that cannot be asked, a run that could not be driven on. */
  error: RuntimeProblem;
}

export interface RuntimeProblem {
  /** Milliseconds since 1970. */
  at: number;
  message: string;
  error?: unknown;
  /** The code of `error`, where it is one of ours. */
  code?: string;
  runId?: string;
}

type Listener<Name extends keyof RuntimeEvents> = (event: RuntimeEvents[Name]) => void;

export class Events {
  readonly #log: Logger;
  /** The last problems, newest first. */
  readonly problems: RuntimeProblem[] = [];
  readonly #listeners = new Map<keyof RuntimeEvents, Set<(event: never) => void>>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** @throws INVALID_OPTION */
  on<Name extends keyof RuntimeEvents>(event: Name, listener: Listener<Name>): () => void {
    if (!eventNames.includes(event)) {
      const suggestion = nearest(String(event), eventNames);
      const problem = `there is no event "${String(event)}"; there are ${eventNames.join(", ")}`;
      throw invalidOption("event", problem, suggestion);
    }
    if (typeof listener !== "function") throw invalidOption("listener", "listener must be a function");
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners);
    // A function of our own: the same listener may be given twice, and each is taken away alone.
    const entry = (given: never): void => listener(given as RuntimeEvents[Name]);
    listeners.add(entry);
    return () => void listeners.delete(entry);
  }

  /** A listener that throws is told to the log, and keeps nobody else from hearing. */
  emit<Name extends keyof RuntimeEvents>(name: Name, event: RuntimeEvents[Name]): void {
    for (const listener of this.#listeners.get(name) ?? []) {
      try {
        const returned = listener(event as never) as unknown;
        if (isPromise(returned)) returned.then(undefined, (error: unknown) => this.#threw(name, error));
      } catch (error) {
        this.#threw(name, error);
      }
    }
  }

  /** Something that is nobody's exception. */
  report(at: number, message: string, fields: { error?: unknown; runId?: string }): void {
    const problem = problemOf(at, message, fields);
    this.problems.unshift(problem);
    this.problems.length = Math.min(this.problems.length, lastProblems);
    this.#log.error(message, fields);
    this.emit("error", problem);
  }

  #threw(name: string, error: unknown): void {
    this.#log.error(`a listener to "${name}" threw`, { error });
  }

  hears(name: keyof RuntimeEvents): boolean {
    return (this.#listeners.get(name)?.size ?? 0) > 0;
  }
}

const lastProblems = 20;

const eventNames: readonly (keyof RuntimeEvents)[] = ["record", "run", "error"];

function problemOf(at: number, message: string, { error, runId }: { error?: unknown; runId?: unknown }): RuntimeProblem {
  return {
    at,
    message,
    ...(error === undefined ? {} : { error }),
    ...(isError(error) ? { code: error.code } : {}),
    ...(typeof runId === "string" ? { runId } : {}),
  };
}
