/**
 * The effects of one run that execute in this process, and what they came to.
 *
 * E1. An attempt is under way from `begin` until its outcome is taken. An outcome that came in stays here until it is recorded.
 * E2. An attempt is recorded only once it has a slot; what is recorded and not called by the end of the process would be uncertain.
 *     Where there is none, `slotFreed` is called once there may be one.
 */
import { beginChild, beginChildren, type Begins } from "./child.ts";
import type { DriveHost } from "./drive-host.ts";
import { type EffectDefinition, isSpeculative } from "./effect.ts";
import { AbstractRuntimeError, errorData } from "./errors.ts";
import { type Execution, execute, isPromise } from "./execute.ts";
import { type DriveTrace, endingOfAttempt, readTraceparent } from "./instrument.ts";
import { type OpenEffect, payloadOf, type RunState } from "./run.ts";
import type { RunArtifacts } from "./run-artifacts.ts";
import type { Outcome } from "./step.ts";
import type { NewRun } from "./transition.ts";

/** Slots of one type of effect in this process. */
export interface Slots {
  /** What gives the slot back, or undefined when there is none; `free` is then called once there may be one. */
  take(type: string, free: () => void): (() => void) | undefined;
}

/** What an attempt came to, and the children that begin with its record. */
export interface Settled {
  id: string;
  outcome: Outcome;
  children: readonly NewRun[];
}

/** Longest time for the vars of children to be checked. */
const childTimeoutMs = 30_000;

export class Executions {
  readonly #host: DriveHost;
  readonly #artifacts: RunArtifacts;
  readonly #wake: () => void;
  readonly #slotFreed: () => void;
  readonly #trace: DriveTrace | undefined;
  readonly #underWay = new Map<string, Execution & { since: number }>();
  readonly #settled: Settled[] = [];
  /** Slots, by the effect that has them. */
  readonly #slots = new Map<string, () => void>();

  /** @param wake Called when an outcome has come in. @param slotFreed Called when there may be a slot for what asked in vain. */
  constructor(host: DriveHost, artifacts: RunArtifacts, wake: () => void, slotFreed: () => void, trace?: DriveTrace) {
    this.#trace = trace;
    this.#host = host;
    this.#artifacts = artifacts;
    this.#wake = wake;
    this.#slotFreed = slotFreed;
  }

  get size(): number {
    return this.#underWay.size;
  }

  /** What is under way, and since when. */
  get underWay(): { id: string; since: number }[] {
    return [...this.#underWay].map(([id, { since }]) => ({ id, since }));
  }

  /** Whether outcomes wait to be recorded. */
  get hasSettled(): boolean {
    return this.#settled.length > 0;
  }

  /** Whether an attempt of this effect is under way, or its outcome is not recorded yet. */
  has(id: string): boolean {
    return this.#underWay.has(id) || this.#settled.some((settled) => settled.id === id);
  }

  /** The next outcome to record. */
  take(): Settled | undefined {
    return this.#settled.shift();
  }

  /** An outcome that no handler gave. */
  settle(id: string, outcome: Outcome): void {
    this.#settled.push({ id, outcome, children: [] });
  }

  /** Whether this effect has a slot, or gets one now (E2). */
  hasSlot(type: string, id: string): boolean {
    if (!this.#host.slots || this.#slots.has(id)) return true;
    const giveBack = this.#host.slots.take(type, this.#slotFreed);
    if (giveBack) this.#slots.set(id, giveBack);
    return giveBack !== undefined;
  }

  /** Starts an attempt; a handler that answers synchronously has its outcome at once. */
  begin(effect: OpenEffect, definition: EffectDefinition | undefined, state: RunState): void {
    if (!definition) return this.#beginChildren(effect, state);
    const giveBack = this.#slots.get(effect.id) ?? nothing;
    this.#slots.delete(effect.id);
    const execution = execute(definition, effect, state, this.#host, { traced: this.#trace?.attempt(effect) });
    const ready = (given: Outcome): Outcome | Promise<Outcome> =>
      this.#artifacts.outcome(given, {
        isSpeculative: isSpeculative(definition, () => payloadOf(effect)),
        keepsShape: definition.keepsShape,
      });
    const { outcome: given } = execution;
    const outcome = isPromise(given) ? given.then(ready) : ready(given);
    if (isPromise(outcome)) {
      this.#await(
        effect.id,
        execution,
        outcome.then((settled) => ({ outcome: counting(execution, settled), children: [] })),
        giveBack,
      );
    } else {
      giveBack();
      this.settle(effect.id, counting(execution, outcome));
    }
  }

  /** Executes an attempt in a transaction, and answers with its outcome, which the caller records. */
  async perform(effect: OpenEffect, definition: EffectDefinition, state: RunState, transaction: unknown): Promise<Outcome> {
    const giveBack = this.#slots.get(effect.id) ?? nothing;
    this.#slots.delete(effect.id);
    const attempt = { transaction, traced: this.#trace?.attempt(effect) };
    const entry = { ...execute(definition, effect, state, this.#host, attempt), since: this.#host.clock.now() };
    this.#underWay.set(effect.id, entry);
    try {
      return counting(entry, await this.#artifacts.outcome(await entry.outcome, { isSpeculative: true, isTransactional: true }));
    } finally {
      giveBack();
      if (this.#underWay.get(effect.id) === entry) this.#underWay.delete(effect.id);
    }
  }

  /** The driver leaves: slots of what was not begun are given back. */
  leave(): void {
    for (const giveBack of this.#slots.values()) giveBack();
    this.#slots.clear();
  }

  /** What came in late, or is under way, is of the time before: nothing of it is recorded any more. */
  forget(): void {
    this.#settled.length = 0;
    this.#underWay.clear();
  }

  abort(id: string, reason: unknown, graceMs: number): void {
    this.#underWay.get(id)?.abort(reason, graceMs);
  }

  abortAll(reason: () => unknown, graceMs: number): void {
    if (this.#underWay.size === 0) return;
    const given = reason();
    for (const execution of this.#underWay.values()) execution.abort(given, graceMs);
  }

  /** Aborts what executes for effects that are not open any more. */
  dropClosed(open: ReadonlyMap<string, OpenEffect>): void {
    for (const [id, execution] of this.#underWay) {
      const effect = open.get(id);
      if (effect && effect.phase !== "failed") continue;
      this.#underWay.delete(id);
      execution.abort(new Error("The effect was given up: the run went on without it."), 0);
    }
    for (const [id, giveBack] of this.#slots) {
      if (open.get(id)?.phase === "executing") continue;
      this.#slots.delete(id);
      giveBack();
    }
  }

  #beginChildren(effect: OpenEffect, state: RunState): void {
    let settle: (begun: Begins) => void = () => undefined;
    const cutOff = new Promise<Begins>((resolve) => {
      settle = resolve;
    });
    const abort = (reason: unknown): void =>
      settle({ outcome: { kind: "failed", error: errorData(reason), retryable: false }, children: [] });
    // A child's schema may be asynchronous, and may never answer.
    const late = (): void =>
      abort(new AbstractRuntimeError("EFFECT_TIMEOUT", { effectType: effect.type, timeoutMs: childTimeoutMs }));
    const timer = this.#host.clock.setTimer(late, childTimeoutMs, true);
    const begin = effect.window === undefined ? beginChild : beginChildren;
    const traced = this.#trace?.attempt(effect);
    const begun = Promise.race([begin(effect, state, this.#host, readTraceparent(traced?.headers().traceparent)), cutOff]);
    if (traced) void begun.then(({ outcome }) => traced.end(endingOfAttempt(outcome)));
    this.#await(effect.id, { outcome: begun.then(({ outcome }) => outcome), abort }, begun, () => timer.cancel());
  }

  #await(id: string, execution: Execution, settled: Promise<Begins>, over: () => void): void {
    const entry = { ...execution, since: this.#host.clock.now() };
    this.#underWay.set(id, entry);
    void settled.then(({ outcome, children }) => {
      over();
      // A later attempt of the same effect, or none, may stand here by now.
      if (this.#underWay.get(id) !== entry) return;
      this.#underWay.delete(id);
      this.#settled.push({ id, outcome, children });
      this.#wake();
    });
  }
}

function counting({ counters }: Execution, outcome: Outcome): Outcome {
  const changes = counters?.() ?? [];
  return changes.length > 0 ? { ...outcome, counters: changes } : outcome;
}

function nothing(): void {}
