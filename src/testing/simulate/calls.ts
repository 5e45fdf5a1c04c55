/**
 * Handlers, made slow and watched. Each call takes virtual time before and after the real handler, so that crashes and freezes meet
 * it in the middle; what is called, when, by whom and how it ended is logged and checked.
 */
import { type EffectContext, type EffectDefinition, isDefinite, isSpeculative } from "../../kernel/effect.ts";
import { isWaitRequest } from "../../kernel/wait-request.ts";
import type { Json } from "../../kernel/json.ts";
import type { SimulatedProcess, VirtualTime } from "./clock.ts";
import type { Observer } from "./observer.ts";
import { randomOf } from "./random.ts";
import { Violation } from "./violation.ts";
import type { Anything } from "../../kernel/typing.ts";
import type { NodeHandler } from "../../kernel/workflow.ts";

/** One call of a handler. */
export interface HandlerCall {
  readonly runId: string;
  readonly effectType: string;
  readonly nodeId: string;
  readonly step: number;
  readonly attempt: number;
  readonly idempotencyKey: string;
  /** The input, as JSON text. */
  readonly payload: string;
  readonly speculative: boolean;
  readonly transactional: boolean;
  readonly onUncertain: EffectDefinition["onUncertain"];
  /** It was to call off what is under way elsewhere. */
  readonly cancelled: boolean;
  readonly worker: number;
  /** Virtual time, in milliseconds since 1970. */
  readonly startedAt: number;
  endedAt?: number;
  /** How it ended: `uncertain` threw without saying that nothing happened. Undefined: its process died first. */
  outcome?: "completed" | "waiting" | "definite" | "uncertain";
  /** What the real handler gave, whether or not anybody heard of it. */
  result?: unknown;
}

export type Handler = EffectDefinition["run"];

export class Calls {
  readonly log: HandlerCall[] = [];
  /** Calls in virtual time whose process lives. */
  readonly open = new Set<HandlerCall>();
  /** Real handlers that were called and have not answered. */
  working = 0;
  readonly #seed: number;
  readonly #time: VirtualTime;
  readonly #observer: Observer;
  readonly #leaseMs: number;
  readonly #trace: (line: string) => void;
  readonly #violated: (violation: Violation) => void;
  readonly #byKey = new Map<string, HandlerCall>();
  readonly #attempts = new Set<string>();
  /** Effects that have ended in a worker, and whose outcome it has not sent, by worker and run. */
  readonly #unsent = new Map<string, HandlerCall>();

  constructor(
    seed: number,
    time: VirtualTime,
    observer: Observer,
    options: { leaseMs: number; trace: (line: string) => void; violated: (violation: Violation) => void },
  ) {
    this.#seed = seed;
    this.#time = time;
    this.#observer = observer;
    this.#leaseMs = options.leaseMs;
    this.#trace = options.trace;
    this.#violated = options.violated;
  }

  /** The definition for one worker, with `handler` in the place of the real one. */
  watched(definition: EffectDefinition, handler: Handler, process: SimulatedProcess, worker: number): EffectDefinition {
    return Object.freeze({
      ...definition,
      run: (input: unknown, context: EffectContext) => this.#call(definition, handler, process, worker, input, context),
    });
  }

  /** A node for one worker: one that answers asynchronously takes a while, and finds all outcomes before it recorded or on their way. */
  watchedNode(run: NodeHandler<Anything>, process: SimulatedProcess, worker: number): NodeHandler<Anything> {
    return (context) => {
      const answer = run(context);
      if (!(answer instanceof Promise)) return answer;
      // Whoever waits for it hears of it later.
      answer.catch(() => undefined);
      const { runId, nodeId, step } = context;
      const ms = randomOf(this.#seed, "node", runId, step).int(1, 200);
      const owed = this.#unsent.get(`${worker} ${runId}`);
      return new Promise((resolve) => {
        process.setTimer(() => {
          if (owed && this.#unsent.get(`${worker} ${runId}`) === owed)
            this.#violated(
              new Violation(
                "effects-keep-their-kind",
                `effect "${owed.effectType}" has ended, and that is not recorded while node "${nodeId}" is awaited`,
                runId,
              ),
            );
          resolve(answer);
        }, ms);
      });
    };
  }

  /** A worker sends what it has decided about runs. */
  sent(worker: number, transitions: readonly { runId: string; records: readonly unknown[] }[]): void {
    for (const { runId, records } of transitions) if (records.length > 0) this.#unsent.delete(`${worker} ${runId}`);
  }

  /** Forgets what a process that died was doing. */
  abandon(worker: number): void {
    for (const name of this.#unsent.keys()) if (name.startsWith(`${worker} `)) this.#unsent.delete(name);
    for (const call of this.open) if (call.worker === worker) this.open.delete(call);
  }

  #call(
    definition: EffectDefinition,
    handler: Handler,
    process: SimulatedProcess,
    worker: number,
    input: unknown,
    context: EffectContext,
  ): unknown {
    // What runs on in the turn in which its process dies reaches nobody.
    if (!process.alive) return new Promise(() => undefined);
    const { runId, nodeId, step, attempt, idempotencyKey, cancelled } = context;
    const call: HandlerCall = {
      runId,
      nodeId,
      step,
      attempt,
      idempotencyKey,
      effectType: definition.type,
      payload: JSON.stringify(input) ?? "undefined",
      speculative: isSpeculative(definition, () => input as Json),
      transactional: definition.transactional,
      onUncertain: definition.onUncertain,
      cancelled,
      worker,
      startedAt: this.#time.now(),
    };
    this.log.push(call);
    this.#trace(`worker ${worker} calls ${call.effectType} of ${runId} step ${step} attempt ${attempt}`);
    try {
      this.#check(call, process);
    } catch (error) {
      this.#violated(error as Violation);
    }
    const random = randomOf(this.#seed, "call", runId, step, call.effectType, call.payload, attempt);
    const settled = (outcome: HandlerCall["outcome"]): void => {
      call.outcome = outcome;
      call.endedAt = this.#time.now();
      this.open.delete(call);
      // What a group or a deadline has given up need not be recorded.
      const isAwaited = !context.signal.aborted && !this.#observer.get(runId)?.effectOf.get(idempotencyKey)?.includes(".");
      if (!call.speculative && outcome !== "waiting" && isAwaited) this.#unsent.set(`${worker} ${runId}`, call);
      this.#trace(`worker ${worker} ${outcome} ${call.effectType} of ${runId} step ${step} attempt ${attempt}`);
    };
    const returned = (value: unknown): unknown => {
      if (!isWaitRequest(value)) call.result = value ?? null;
      settled(isWaitRequest(value) ? "waiting" : "completed");
      return value;
    };
    const threw = (error: unknown): never => {
      settled(isDefinite(error) ? "definite" : "uncertain");
      throw error;
    };
    this.open.add(call);
    if (context.transaction !== undefined) (context.transaction as string[]).push(idempotencyKey);
    if (random.chance(0.3)) return this.#directly(() => handler(input, context), returned, threw);
    const [beforeMs, afterMs] = [this.#duration(random.next(), random.next()), this.#duration(random.next(), random.next())];
    return new Promise((resolve, reject) => {
      const fulfil = (value: unknown): void => resolve(returned(value));
      const refuse = (error: unknown): void => {
        try {
          threw(error);
        } catch (thrown) {
          reject(thrown);
        }
      };
      let stopped = false;
      const answer = (settle: () => void): void => {
        if (afterMs === 0) process.enter(() => !stopped && settle());
        else process.setTimer(() => !stopped && settle(), afterMs);
      };
      const work = (): void => {
        if (stopped) return;
        this.working += 1;
        new Promise((adopt) => adopt(handler(input, context))).then(
          (value) => {
            this.working -= 1;
            // It has happened, whether or not the process lives to tell.
            if (!isWaitRequest(value)) call.result = value ?? null;
            answer(() => fulfil(value));
          },
          (error: unknown) => {
            this.working -= 1;
            answer(() => refuse(error));
          },
        );
      };
      process.setTimer(work, beforeMs);
      // Half of the handlers heed their signal.
      if (random.chance(0.5)) {
        context.signal.addEventListener("abort", () => {
          if (stopped || call.outcome) return;
          stopped = true;
          refuse(context.signal.reason);
        });
      }
    });
  }

  #directly(handle: () => unknown, returned: (value: unknown) => unknown, threw: (error: unknown) => never): unknown {
    try {
      const value = handle();
      if (!(value instanceof Promise)) return returned(value);
      this.working += 1;
      const done = (): void => {
        this.working -= 1;
      };
      return value.finally(done).then(returned, threw);
    } catch (error) {
      return threw(error);
    }
  }

  /** Mostly short; one in ten up to one and a half times as long as a worker's lease. */
  #duration(kind: number, share: number): number {
    if (kind < 0.3) return 0;
    return kind < 0.9 ? Math.floor(share * 400) : Math.floor(share * this.#leaseMs * 1.5);
  }

  #check(call: HandlerCall, process: SimulatedProcess): void {
    const { runId, effectType, idempotencyKey, attempt, payload, speculative } = call;
    const wrong = (problem: string): never => {
      throw new Violation("effects-keep-their-kind", `effect "${effectType}", attempt ${attempt}: ${problem}`, runId);
    };
    const first = this.#byKey.get(idempotencyKey);
    if (!first) this.#byKey.set(idempotencyKey, call);
    else if (first.runId !== runId) wrong(`its idempotency key was used by run ${first.runId}`);
    else if (first.effectType !== effectType) wrong(`its idempotency key was used by effect "${first.effectType}"`);
    else if (first.payload !== payload) wrong(`its idempotency key was used with payload ${first.payload}, and now ${payload}`);
    if (speculative) return;
    const run = this.#observer.get(runId);
    const effectId = run?.effectOf.get(idempotencyKey);
    if (!run || effectId === undefined) return wrong("its handler was called before the record that requests it was durable");
    if (!run.begun.has(`${effectId}#${attempt}`)) wrong("its handler was called before the start of the attempt was durable");
    const name = `${idempotencyKey}#${attempt}`;
    if (this.#attempts.has(name)) wrong("its handler was called twice for one attempt");
    this.#attempts.add(name);
    // How long a lease lasts is read from the wall clock: set back before the next renewal, it lets a lost lease look held.
    if (process.setBacks > process.setBacksAtRenewal) return;
    if (run.ended) wrong(`its handler was called after the run had ${run.ended}`);
    if (run.closed.has(effectId)) wrong("its handler was called after the effect had ended");
  }
}
