/**
 * Whose turn it is: an effect begins when there is a slot for its type in this process, and no other one of its run executes that
 * excludes it.
 */
import type { Executions } from "./executions.ts";
import { cloneJson, type Json } from "./json.ts";
import type { Needs } from "./needs.ts";
import { payloadOf, type RunState } from "./run.ts";

/** So long a backoff keeps those behind it from beginning that it excludes. */
const orderMs = 60_000;

export class Turns {
  readonly #needs: Needs;
  readonly #executions: Executions;
  /** Those of `exclusive` effects that are about to be recorded as begun, or keep others from that, by what they exclude. */
  readonly #planned = new Map<string, string>();
  readonly #queued = new Set<string>();
  readonly #now: () => number;

  constructor(needs: Needs, executions: Executions, now: () => number) {
    this.#needs = needs;
    this.#executions = executions;
    this.#now = now;
  }

  /** Effects that were refused since `lookAgain`. */
  get queued(): ReadonlySet<string> {
    return this.#queued;
  }

  /** What was given a turn is recorded by now, and those that got none are to ask again. */
  lookAgain(): void {
    this.#queued.clear();
    this.#planned.clear();
  }

  /** Whether an effect may begin now. */
  has(state: RunState, type: string, id: string, payload: () => Json): boolean {
    const has = this.#has(state, type, id, payload);
    if (!has) this.#queued.add(id);
    return has;
  }

  #has({ open }: RunState, type: string, id: string, payload: () => Json): boolean {
    const { exclusive } = this.#needs.definition(type) ?? {};
    const text = exclusive?.(cloneJson(payload()));
    if (exclusive === undefined || text === undefined) return this.#executions.hasSlot(type, id);
    const key = JSON.stringify([type, text]);
    const planned = this.#planned.get(key);
    if (planned !== undefined && planned !== id) return false;
    let isBefore = true;
    for (const other of open.values()) {
      if (other.id === id) isBefore = false;
      if (other.id === id || other.type !== type) continue;
      // One before it that is to be tried again has not settled; where that takes long, the run is not held here for it.
      const isNext = isBefore && other.attempt > 0 && (other.retryAt ?? Number.POSITIVE_INFINITY) <= this.#now() + orderMs;
      const excludes = other.phase === "executing" || (other.phase === "backing_off" && isNext);
      if (!excludes || exclusive(cloneJson(payloadOf(other))) !== text) continue;
      // Those behind it need not look again.
      this.#planned.set(key, other.id);
      return false;
    }
    if (!this.#executions.hasSlot(type, id)) return false;
    this.#planned.set(key, id);
    return true;
  }
}
