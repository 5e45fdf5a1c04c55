/**
 * A store in which things go wrong where a test wants them to.
 *
 * Crash sweep: run a scenario with `{ kind: "fail", fromCall: n }` for n = 1, 2, 3 ... until it ends unharmed; then with
 * `after: true`; after each, go on with the inner store and check.
 */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { Store } from "../kernel/store.ts";
import { callStore, type StoreMethod, wrapStore } from "./wrap-store.ts";

/** Which calls a fault strikes: all that match every condition given. */
export interface When {
  /** A method, or a test of its name and arguments. Default: every method. A commit in a transaction is a `commit` within a `transact`. */
  on?: FaultyMethod | ((method: FaultyMethod, args: readonly unknown[]) => boolean);
  /** Only the n-th of the calls that `on` matches, from 1. */
  call?: number;
  /** Only the n-th of them and all after it, as when a process has died. */
  fromCall?: number;
  /** Strike when the inner store has done its part, and not before. Default: false. */
  after?: boolean;
}

export type Fault = When &
  (
    | {
        /** The caller sees an error. With `after`, of something that was done: a lost acknowledgement. */
        kind: "fail";
        /** Default: STORE_UNAVAILABLE. */
        error?: unknown;
      }
    /** The call waits for `until`, and calls of the same method wait behind it, in order; with `after`, only the answer waits. */
    | { kind: "delay"; until: Promise<unknown> }
    /** `run` is called and, when it gives a promise, awaited: count, look, or end the process. */
    | { kind: "run"; run: () => void | Promise<void> }
  );

/** The calls that faults strike. */
export type FaultyMethod = StoreMethod | "transact";

export interface FaultyStore extends Store {
  /** The methods called so far, in order. */
  readonly calls: readonly FaultyMethod[];
}

/**
 * Wraps a store. Faults strike in the order of the plan; those that strike before the inner call come before those after it.
 *
 * @param plan Faults. The list is looked at on every call: what is pushed later counts from then on, with its own numbering.
 */
export function faultyStore(inner: Store, plan: readonly Fault[]): FaultyStore {
  const calls: FaultyMethod[] = [];
  const matched = new Map<Fault, number>();
  /** The calls that wait before the inner store, by method. */
  const held = new Map<FaultyMethod, Promise<unknown>>();

  const strikes = (fault: Fault, method: FaultyMethod, args: readonly unknown[]): boolean => {
    const { on, call, fromCall } = fault;
    if (!(typeof on === "function" ? on(method, args) : on === undefined || on === method)) return false;
    const number = (matched.get(fault) ?? 0) + 1;
    matched.set(fault, number);
    return (call === undefined || number === call) && (fromCall === undefined || number >= fromCall);
  };

  const forward = <T>(method: FaultyMethod, args: readonly unknown[], callInner: () => Promise<T>): Promise<T> => {
    calls.push(method);
    const faults = plan.filter((fault) => strikes(fault, method, args));
    const before = faults.filter(({ after }) => !after);
    const after = faults.filter((fault) => fault.after);
    const ahead = held.get(method);
    // Without a fault the inner store is called in the same turn: it may merge the calls of one.
    if (!ahead && before.length === 0) return carryOut(after, callInner());
    const ready = ahead ? ahead.then(() => befall(before)) : befall(before);
    const settled = ready.then(
      () => undefined,
      () => undefined,
    );
    held.set(method, settled);
    settled.then(() => {
      if (held.get(method) === settled) held.delete(method);
    });
    return carryOut(after, ready.then(callInner));
  };

  const befall = async (faults: readonly Fault[]): Promise<void> => {
    for (const fault of faults) {
      if (fault.kind === "fail") {
        throw fault.error ?? new AbstractRuntimeError("STORE_UNAVAILABLE", { store: inner.name, problem: "a test made it fail" });
      }
      await (fault.kind === "delay" ? fault.until : fault.run());
    }
  };

  const carryOut = <T>(faults: readonly Fault[], answer: Promise<T>): Promise<T> =>
    faults.length === 0 ? answer : answer.then(async (value) => befall(faults).then(() => value));

  const transact: Store["transact"] = (work) =>
    forward("transact", [], () =>
      (inner.transact as NonNullable<Store["transact"]>)((client, commit) =>
        work(client, (transitions) => forward("commit", [transitions], () => commit(transitions))),
      ),
    );

  return {
    ...wrapStore(inner, (method, args) => forward(method, args, () => callStore(inner, method, args))),
    ...(inner.within ? { within: (client) => (inner.within as NonNullable<Store["within"]>)(client) } : {}),
    ...(inner.transact ? { transact } : {}),
    hear: (heard) => inner.hear(heard),
    calls,
  };
}
