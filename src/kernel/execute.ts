/**
 * One attempt of one effect: calls its handler and turns whatever happens into an outcome. Knows nothing of records or
 * stores. A handler that answers synchronously costs no promise.
 */
import type { StandardSchemaV1 } from "@standard-schema/spec";
import type { ArtifactAccess, ArtifactKeeper } from "./artifact.ts";
import { AttemptBudget, type Budget, noBudget } from "./budget.ts";
import { type Clock, setLongTimer, type Timer } from "./clock.ts";
import {
  type EffectContext,
  type EffectDefinition,
  type EffectRun,
  isDefinite,
  isRetryable,
  isSpeculative,
  type Logger,
  permanent,
  retryAfterOf,
  type StreamPart,
} from "./effect.ts";
import { isWaitRequest } from "./wait-request.ts";
import { AbstractRuntimeError, errorData, isError, invalidOption } from "./errors.ts";
import { HandlerArtifacts } from "./handler-artifacts.ts";
import { endingOfAttempt, type Traced, type TraceHeaders } from "./instrument.ts";
import { cloneJson, type Json, type JsonObject, toJson } from "./json.ts";
import { type OpenEffect, payloadOf, type RunState, type WaitAnswer } from "./run.ts";
import { counted, type Outcome } from "./step.ts";
import type { Store } from "./store.ts";
import type { EffectStream, Streams } from "./stream.ts";
import type { CounterChange } from "./transition.ts";

export interface Limits {
  /** Levels of nesting in anything stored. */
  jsonDepth: number;
  /** Bytes of a run's vars, as JSON text. */
  varsBytes: number;
  /** Bytes of one record's body: a patch, a payload, a result. */
  recordBytes: number;
  /** Bytes of a text in a result, or in what a node writes, above which it becomes an artifact. Infinity: never. */
  offloadBytes: number;
  /** Bytes of one message's payload. */
  messageBytes: number;
  /** Messages a run may have waiting, control and ends of children apart. */
  mailboxMessages: number;
  /** Levels of children below a run that nobody started. */
  childDepth: number;
}

export const defaultLimits: Limits = {
  jsonDepth: 200,
  varsBytes: 64 * 1024 * 1024,
  recordBytes: 16 * 1024 * 1024,
  offloadBytes: 256 * 1024,
  messageBytes: 1024 * 1024,
  mailboxMessages: 10_000,
  childDepth: 100,
};

/** An attempt under way. */
export interface Execution {
  /** Settles with the outcome; never rejects. */
  readonly outcome: Outcome | Promise<Outcome>;
  /** What its record does to counters, once the outcome has come in. */
  readonly counters?: (() => readonly CounterChange[]) | undefined;
  /**
   * Aborts the signal, and settles as uncertain when the handler has not answered after `graceMs`. A second call can only shorten
   * that. A handler that has not been called yet is not called any more: the attempt has failed at once.
   */
  abort(reason: unknown, graceMs: number): void;
}

/**
 * Starts an attempt. The vars in `state` are those at the request; later changes are not seen.
 *
 * @param with.transaction For the handler of a transactional effect.
 * @param with.traced Stands for the attempt, where there is telemetry.
 */
export function execute(
  definition: EffectDefinition,
  effect: OpenEffect,
  state: RunState,
  tools: AttemptTools,
  { transaction, traced }: { transaction?: unknown; traced?: Traced | undefined } = {},
): Execution {
  const attempt = new Attempt(definition, effect, state, tools, transaction, traced);
  const outcome = attempt.start();
  if (traced && isPromise(outcome)) void outcome.then((settled) => traced.end(endingOfAttempt(settled)));
  else if (traced) traced.end(endingOfAttempt(outcome as Outcome));
  const counters = state.budgets && (() => attempt.counters());
  return { outcome, counters, abort: (reason, graceMs) => attempt.abort(reason, graceMs) };
}

/** What attempts use of their process. */
interface AttemptTools {
  clock: Clock;
  log: Logger;
  limits: Limits;
  artifacts: ArtifactKeeper;
  streams?: Streams | undefined;
  store: Store;
}

/** Also the handler's context: getters make its costly parts only when they are looked at. */
class Attempt implements EffectContext {
  readonly runId: string;
  readonly nodeId: string;
  readonly step: number;
  readonly attempt: number;
  readonly tries: number;
  readonly idempotencyKey: string;
  readonly uncertain: boolean;
  readonly answers: readonly WaitAnswer[];
  readonly timedOut: boolean;
  readonly waited?: Json;
  readonly cancelled: boolean;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits: Readonly<Limits>;
  readonly transaction: unknown;
  readonly #definition: EffectDefinition;
  readonly #effect: OpenEffect;
  readonly #keeper: ArtifactKeeper;
  readonly #streams: Streams | undefined;
  readonly #traced: Traced | undefined;
  readonly #begunAt: number;
  #stream: EffectStream | undefined;
  #artifacts: HandlerArtifacts | undefined;
  readonly #budget: AttemptBudget | undefined;
  readonly #about: Omit<EffectRun, "runId">;
  #controller: AbortController | undefined;
  #aborted = false;
  /** Until the handler is called, nothing can have happened. */
  #called = false;
  #ended = false;
  #run: EffectRun | undefined;
  #timer: Timer | undefined;
  /** Ends an attempt that is awaited. The first end counts. */
  #end: (outcome: Outcome) => void = () => undefined;

  constructor(
    definition: EffectDefinition,
    effect: OpenEffect,
    state: RunState,
    { clock, log, limits, artifacts, streams, store }: AttemptTools,
    transaction: unknown,
    traced: Traced | undefined,
  ) {
    this.#traced = traced;
    this.clock = clock;
    this.log = log;
    this.limits = limits;
    this.#keeper = artifacts;
    this.transaction = transaction;
    this.#definition = definition;
    this.#effect = effect;
    this.#about = {
      workflowId: state.workflowId,
      vars: state.vars,
      ...(state.actorId === undefined ? {} : { actorId: state.actorId }),
      ...(state.sessionId === undefined ? {} : { sessionId: state.sessionId }),
      ...(state.parent === undefined ? {} : { parentRunId: state.parent.runId }),
    };
    this.runId = state.runId;
    this.nodeId = effect.node;
    this.step = effect.step;
    this.attempt = effect.attempt;
    this.tries = counted(effect);
    this.idempotencyKey = effect.key;
    this.uncertain = effect.uncertain === true;
    this.answers = (effect.answers ?? []).map((answer) => ({ ...answer, payload: cloneJson(answer.payload) }));
    this.timedOut = effect.timedOut === true;
    if (effect.waited !== undefined) this.waited = cloneJson(effect.waited);
    this.cancelled = effect.parting === true;
    this.#streams = streams;
    this.#begunAt = state.seq;
    this.#budget = state.budgets && new AttemptBudget(state.budgets, store, clock, () => this.#checkAlive());
  }

  get signal(): AbortSignal {
    this.#controller ??= new AbortController();
    return this.#controller.signal;
  }

  get artifacts(): ArtifactAccess {
    this.#artifacts ??= new HandlerArtifacts(this.#keeper, this.clock, this.#definition.policy.timeoutMs);
    return this.#artifacts;
  }

  get budget(): Budget {
    return this.#budget ?? noBudget;
  }

  counters(): readonly CounterChange[] {
    return this.#budget?.changes() ?? [];
  }

  get run(): EffectRun {
    if (this.#run) return this.#run;
    const { vars, ...about } = this.#about;
    let copy: JsonObject | undefined;
    this.#run = {
      runId: this.runId,
      ...about,
      get vars() {
        copy ??= cloneJson(vars);
        return copy;
      },
    };
    return this.#run;
  }

  /** A field, so that it may be taken apart from its context. */
  readonly progress = (note?: string): void => {
    if (note !== undefined) this.log.info(note, { runId: this.runId, effect: this.#definition.type });
    this.#artifacts?.renew();
    // An attempt that was told to stop cannot keep itself alive.
    if (this.#timer && !this.#aborted && !this.#ended) this.#watch();
  };

  /** A field, as `progress`. */
  readonly stream = (part: StreamPart): void => {
    if (this.#ended || this.#aborted) return;
    const { runId, step, attempt } = this;
    this.#stream ??= this.#streams?.open({ runId, effectId: this.#effect.id, step, attempt }, this.#begunAt);
    this.#stream?.write(part);
  };

  /** A field, as `progress`. */
  readonly traceHeaders = (): TraceHeaders => this.#traced?.headers() ?? {};

  start(): Outcome | Promise<Outcome> {
    const outcome = this.#start();
    if (isPromise(outcome)) return outcome.then((settled) => this.#shown(settled));
    // What its handler does with its context later is of no attempt any more.
    this.#ended = true;
    return this.#stream ? this.#shown(outcome) : outcome;
  }

  /** What was streamed is durable before the outcome that it led to; but for a transaction, behind which other writes have to wait. */
  #shown(outcome: Outcome): Outcome | Promise<Outcome> {
    const ended = this.#stream?.end();
    return ended && this.transaction === undefined ? ended.then(() => outcome) : outcome;
  }

  #start(): Outcome | Promise<Outcome> {
    try {
      const input = this.#input();
      return isPromise(input) ? this.#settle(adopted(input).then((parsed) => this.#handle(parsed))) : this.#call(input);
    } catch (error) {
      return this.#thrown(error);
    }
  }

  abort(reason: unknown, graceMs: number): void {
    if (this.#aborted && graceMs > 0) return;
    this.#aborted = true;
    this.#controller ??= new AbortController();
    this.#controller.abort(reason);
    this.#timer?.cancel();
    if (!this.#called) this.#end(this.#unclear(reason));
    else if (!this.#ended) this.#timer = this.clock.setTimer(() => this.#end(this.#unclear(reason)), graceMs);
  }

  #checkAlive(): void {
    this.#controller?.signal.throwIfAborted();
    if (this.#ended) throw new Error("The attempt has ended.");
    if (this.transaction === undefined) return;
    // The store would wait for this transaction, and it for the store.
    const problem = `effect "${this.#definition.type}" is transactional and cannot reserve: let another effect do so before it`;
    throw permanent(invalidOption("transactional", problem));
  }

  #call(input: unknown): Outcome | Promise<Outcome> {
    const returned = this.#handle(input);
    return isPromise(returned) ? this.#settle(returned) : this.#returned(returned);
  }

  #handle(input: unknown): unknown {
    // Its time was over, or it was aborted, while a schema looked at its input.
    if (this.#ended) return undefined;
    this.#called = true;
    const run = (): unknown => this.#definition.run(input, this);
    return this.#traced ? this.#traced.within(run) : run();
  }

  /** Each attempt gets a copy of its own: a handler that changes its payload changes nothing else. */
  #input(): unknown {
    const payload = cloneJson(payloadOf(this.#effect));
    const schema = this.#definition.input;
    if (!schema) return payload;
    const validated = schema["~standard"].validate(payload);
    const value = (result: Awaited<typeof validated>): unknown => {
      if (!result.issues) return result.value;
      throw new AbstractRuntimeError("EFFECT_INPUT_INVALID", {
        effectType: this.#definition.type,
        issues: issueTexts(result.issues),
      });
    };
    return isPromise(validated) ? adopted(validated).then(value) : value(validated);
  }

  /** The first of: the handler's answer, its timeout, an abort. */
  #settle(promise: PromiseLike<unknown>): Promise<Outcome> {
    return new Promise((resolve) => {
      this.#end = (outcome) => {
        if (this.#ended) return;
        this.#ended = true;
        this.#timer?.cancel();
        resolve(outcome);
      };
      this.#watch();
      adopted(promise).then(
        (value) => this.#end(this.#returned(value)),
        (error: unknown) => this.#end(this.#thrown(error)),
      );
    });
  }

  #watch(): void {
    this.#timer?.cancel();
    const { timeoutMs } = this.#definition.policy;
    const late = (): void => {
      const error = new AbstractRuntimeError("EFFECT_TIMEOUT", { effectType: this.#definition.type, timeoutMs });
      // Made if need be: a handler may look at its signal only later.
      this.#controller ??= new AbortController();
      this.#controller.abort(error);
      this.#end(this.#unclear(error));
    };
    this.#timer = setLongTimer(this.clock, late, timeoutMs);
  }

  #returned(value: unknown): Outcome {
    try {
      if (isWaitRequest(value)) return { kind: "waiting", wait: value as never };
      return { kind: "completed", result: value === undefined ? null : toJson(value, "result", this.limits.jsonDepth) };
    } catch (error) {
      // It happened, and what it gave cannot be stored: another attempt would do it twice for nothing.
      return { kind: "failed", error: errorData(error), retryable: false };
    }
  }

  #thrown(error: unknown): Outcome {
    if (isError(error, "EFFECT_INPUT_INVALID")) {
      return { kind: "failed", error: errorData(error), retryable: false };
    }
    return isDefinite(error) ? failedBy(error) : this.#unclear(error);
  }

  /** Uncertain, unless the handler was not called, or may always be run again. */
  #unclear(error: unknown): Outcome {
    const data = errorData(error);
    if (mayRunAgain(this.#definition, this.#effect) || !this.#called) return failedBy(error, data);
    if (!isRetryable(error)) return { kind: "failed", error: data, retryable: false };
    return { kind: "uncertain", reason: data.message, error: data };
  }
}

function failedBy(error: unknown, data = errorData(error)): Outcome {
  const retryAfterMs = retryAfterOf(error);
  return { kind: "failed", error: data, retryable: isRetryable(error), ...(retryAfterMs === undefined ? {} : { retryAfterMs }) };
}

/** Speculative, or rolled back with its transaction. */
function mayRunAgain(definition: EffectDefinition, effect: OpenEffect): boolean {
  return definition.transactional || isSpeculative(definition, () => payloadOf(effect));
}

/** What recovery makes of an attempt that was under way when its process ended. */
export function interrupted(definition: EffectDefinition | undefined, effect: OpenEffect): Outcome {
  const reason = "the process that carried it out ended before its outcome was recorded";
  return definition && mayRunAgain(definition, effect)
    ? { kind: "failed", error: { name: "Error", message: reason }, retryable: true, interrupted: true }
    : { kind: "uncertain", reason, interrupted: true };
}

/** A promise for what `promise` gives, subscribed to once. What its `then` throws is a rejection. */
function adopted<T>(promise: PromiseLike<T>): Promise<T> {
  return new Promise((resolve) => resolve(promise));
}

export function isPromise<T>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof value === "object" && value !== null && typeof (value as { then?: unknown }).then === "function";
}

/** What a schema found, a line each: `order.total: expected number`. */
export function issueTexts(issues: readonly StandardSchemaV1.Issue[]): string[] {
  return issues.map(({ message, path = [] }) => {
    const at = path.map((segment) => String(typeof segment === "object" ? segment.key : segment)).join(".");
    return at === "" ? message : `${at}: ${message}`;
  });
}
