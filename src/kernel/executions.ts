/**
 * The effects of one run that execute in this process, and what they came to.
 *
 * E1. An attempt is under way from `begin` until its outcome is taken. An outcome that came in stays here until it is recorded.
 * E2. An effect whose type has no free slot is not begun; `wake` is called once there is one.
 */
import { beginChild, beginChildren, type Begins } from "./child.ts";
import type { DriveHost } from "./drive.ts";
import type { EffectDefinition } from "./effect.ts";
import { AbstractRuntimeError, errorData } from "./errors.ts";
import { type Execution, execute, isPromise } from "./execute.ts";
import type { OpenEffect, RunState } from "./run.ts";
import type { Outcome } from "./step.ts";
import type { NewRun } from "./store.ts";

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
  readonly #wake: () => void;
  readonly #underWay = new Map<string, Execution & { since: number }>();
  readonly #settled: Settled[] = [];

  constructor(host: DriveHost, wake: () => void) {
    this.#host = host;
    this.#wake = wake;
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

  /** Starts an attempt; a handler that answers synchronously has its outcome at once. Answers false when there is no slot for it (E2). */
  begin(effect: OpenEffect, definition: EffectDefinition | undefined, state: RunState): boolean {
    if (!definition) {
      this.#beginChildren(effect, state);
      return true;
    }
    const giveBack = this.#host.slots ? this.#host.slots.take(effect.type, this.#wake) : nothing;
    if (!giveBack) return false;
    const execution = execute(definition, effect, state, this.#host);
    const { outcome } = execution;
    if (isPromise(outcome)) {
      this.#await(
        effect.id,
        execution,
        outcome.then((settled) => ({ outcome: settled, children: [] })),
        giveBack,
      );
    } else {
      giveBack();
      this.settle(effect.id, outcome);
    }
    return true;
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
    const begun = Promise.race([begin(effect, state, this.#host), cutOff]);
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

function nothing(): void {}
