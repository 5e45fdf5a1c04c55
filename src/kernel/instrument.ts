/**
 * Telling others what drivers do, while they do it: the one door for telemetry. Nothing depends on what stands behind it, and none of
 * it is true before the records are (an exception to L3).
 */
import type { ErrorData } from "./errors.ts";
import type { Json } from "./json.ts";
import { isEnded, type OpenEffect, payloadOf, type RunState, type WaitReason } from "./run.ts";
import type { Outcome } from "./step.ts";

/** Its methods are called in the middle of things: they answer at once. One that throws is reported once, and changes nothing. */
export interface Instrument {
  /** Where the code that is running now stands, for a run that it starts. */
  here(): TraceHeaders;
  begin(what: Activity, within?: Traced): Traced;
  /** A commit of a run became durable, with so many records. */
  committed(records: number): void;
  /** A runtime has opened, and can be asked how things stand. Answers with what is called when it stops. */
  watch(state: StoreState): () => void;
}

/** What stands for something that goes on. */
export interface Traced {
  /** For whoever is called because of it, in another process too. */
  headers(): TraceHeaders;
  /** Runs `action` so that what it calls finds itself within this. */
  within<T>(action: () => T): T;
  end(how: Ending): void;
}

/** A trace context as W3C says it: `traceparent`, perhaps `tracestate`. Empty without telemetry. */
export type TraceHeaders = Readonly<Record<string, string>>;

export type Activity = { run: TracedRun } & (
  | {
      /** This process drives the run, until it ends, waits or is handed back. */
      kind: "drive";
      /** The `traceparent` of what started the run, when it has no other records yet; of the drive before, when it has. */
      trace?: string;
      isFirst: boolean;
    }
  /** A node runs, and what it requests. Also what an earlier drive had left open of it. */
  | { kind: "step"; node: string; step: number }
  | {
      kind: "attempt";
      effectId: string;
      effectType: string;
      attempt: number;
      payload(): Json;
    }
);

export interface TracedRun {
  runId: string;
  workflowId: string;
  version: string;
  /** Types of the effects that the workflow lists. */
  effectTypes: readonly string[];
  parentRunId?: string;
  sessionId?: string;
}

export interface Ending {
  /**
   * Of a drive: the run's status at its end, `parked`, `blocked`, `yielded` or `broken`. Of a step: `completed`, `failed`, or as the
   * drive. Of an attempt: the kind of its outcome.
   */
  outcome: string;
  error?: ErrorData;
  /** What an attempt gave. */
  result?: Json;
  /** What is waited for. */
  waitReason?: WaitReason;
}

/** Answers of the store, undefined where it has none in time. */
export interface StoreState {
  now(): number;
  stats(): Promise<StoreNumbers | undefined>;
  /** How many runs wait to which nothing has come for so long, by what they wait for. */
  waiting(forMs: number): Promise<{ value: string | null; count: number }[] | undefined>;
}

interface StoreNumbers {
  byStatus: Readonly<Record<string, number>>;
  oldestDueAt?: number;
  queues: Readonly<Record<string, { oldestDueAt: number }>>;
  blocked: number;
  quarantined: number;
}

/** What one drive tells. */
export class DriveTrace {
  readonly #instrument: Instrument;
  readonly #run: TracedRun;
  readonly #drive: Traced;
  /** The step that is under way. */
  #step: { number: number; traced: Traced } | undefined;

  constructor(instrument: Instrument, state: RunState, effectTypes: readonly string[]) {
    const { runId, workflowId, version, parent, sessionId, trace, seq } = state;
    this.#instrument = instrument;
    this.#run = {
      runId,
      workflowId,
      version,
      effectTypes,
      ...(parent ? { parentRunId: parent.runId } : {}),
      ...(sessionId === undefined ? {} : { sessionId }),
    };
    this.#drive = instrument.begin({
      kind: "drive",
      run: this.#run,
      isFirst: seq === 0,
      ...(trace === undefined ? {} : { trace }),
    });
  }

  /** What the first record of the drive is to carry. */
  get parent(): string | undefined {
    return readTraceparent(this.#drive.headers().traceparent);
  }

  within<T>(action: () => T): T {
    return this.#drive.within(action);
  }

  step(number: number, node: string): Traced {
    if (this.#step?.number === number) return this.#step.traced;
    this.#endStep({ outcome: "completed" });
    const traced = this.#instrument.begin({ kind: "step", run: this.#run, node, step: number }, this.#drive);
    this.#step = { number, traced };
    return traced;
  }

  attempt(effect: OpenEffect): Traced {
    const { id: effectId, type: effectType, attempt, step, node } = effect;
    const what = { kind: "attempt", run: this.#run, effectId, effectType, attempt, payload: () => payloadOf(effect) } as const;
    return this.#instrument.begin(what, this.step(step, node));
  }

  /** Something was recorded: the step may be over. */
  look(state: RunState): void {
    if (!this.#step) return;
    if (isEnded(state)) this.#endStep(endingOf(state));
    else if (state.step !== this.#step.number) this.#endStep({ outcome: "completed" });
  }

  end(how: Ending): void {
    this.#endStep(how);
    this.#drive.end(how);
  }

  #endStep(how: Ending): void {
    this.#step?.traced.end(how);
    this.#step = undefined;
  }
}

/** How a drive came to its end. */
export function endingOf(state: RunState, end = "ended", error?: ErrorData): Ending {
  if (end === "ended")
    return { outcome: state.status, ...(state.status === "failed" && state.error ? { error: state.error } : {}) };
  const wait = end === "parked" ? [...state.open.values()].find((effect) => effect.wait)?.wait : undefined;
  return { outcome: end, ...(error ? { error } : {}), ...(wait ? { waitReason: wait.reason } : {}) };
}

export function endingOfAttempt(outcome: Outcome): Ending {
  const { kind } = outcome;
  if (kind === "completed") return { outcome: kind, result: outcome.result };
  if (kind === "waiting" || kind === "started") return { outcome: kind, waitReason: outcome.wait.reason };
  return {
    outcome: kind,
    error: outcome.error ?? { name: "Error", message: outcome.kind === "uncertain" ? outcome.reason : "" },
  };
}

/** A `traceparent` of the version that is known, or undefined: W3C says to go on as if there were none. */
export function readTraceparent(text: unknown): string | undefined {
  return typeof text === "string" && traceparent.test(text) ? text : undefined;
}
const traceparent = /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/;
