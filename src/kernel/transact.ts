/** An effect whose handler writes in a transaction of the store. See D5 in `drive.ts`. */
import type { EffectDefinition } from "./effect.ts";
import { type AbstractRuntimeError, errorData, isError } from "./errors.ts";
import type { Executions } from "./executions.ts";
import type { Mail } from "./message.ts";
import type { OpenEffect, RunState } from "./run.ts";
import { notBegun, type Outcome } from "./step.ts";
import type { Store } from "./store.ts";
import type { Transition } from "./transition.ts";

/** What the transaction needs of the driver whose run it has to itself. */
export interface Transacting {
  readonly store: Store;
  readonly executions: Executions;
  readonly state: RunState;
  /** Ends the wait for something to look at. */
  wake: (() => void) | undefined;
  /** Whether somebody said that the mailbox has something new. */
  readonly hasNews: boolean;
  lookForMail(): Promise<Mail[]>;
  /** Everything appended is durable when this resolves. */
  flush(): Promise<void>;
  /** @throws What a commit failed with. */
  checkWhole(): void;
  /** Whether nobody else can have taken the run since it was surely held. */
  readonly isHeld: boolean;
  /** Appends what the attempt came to. */
  record(effect: OpenEffect, outcome: Outcome): void;
  /** What is appended, for the transaction to commit. */
  handOver(): { transition: Transition; durable(): void };
  cancelled(): AbstractRuntimeError;
}

/**
 * Executes an effect in a transaction of the store, which holds the record of its outcome too (D5). Whatever keeps it from that rolls
 * everything back: then the attempt has failed, and certainly did nothing.
 */
export async function transact(driver: Transacting, effect: OpenEffect, definition: EffectDefinition): Promise<"recorded"> {
  const { store } = driver;
  // What began beside it may have been appended since the barrier.
  await driver.flush();
  const rolledBack = new Error("It was rolled back.");
  let failed: Outcome | undefined;
  const rollBack = (outcome: Outcome): never => {
    failed = outcome;
    throw rolledBack;
  };
  const fail = (error: unknown): never => rollBack({ kind: "failed", error: errorData(error), retryable: false });
  let durable = (): void => undefined;
  let cancelled = false;
  let over = false;
  const transacting = (store.transact as NonNullable<Store["transact"]>)(async (transaction, commit) => {
    driver.checkWhole();
    if (cancelled) rollBack(notBegun);
    // It had to wait for its transaction for longer than the lease lasts: it begins anew, if the run is still ours.
    if (!driver.isHeld) throw rolledBack;
    const outcome = await driver.executions.perform(effect, definition, driver.state, transaction);
    driver.checkWhole();
    if (outcome.kind !== "completed" && outcome.kind !== "waiting") return rollBack(outcome);
    // Asked before anything is appended: the handler may have ended the transaction, and would do so again.
    await commit([]).catch((error: unknown) => {
      throw isError(error, "TRANSACTION_INVALID") ? fail(error) : error;
    });
    try {
      driver.record(effect, outcome);
    } catch (error) {
      return fail(error);
    }
    const handed = driver.handOver();
    durable = handed.durable;
    return commit([handed.transition]);
  }).finally(() => {
    over = true;
    driver.wake?.();
  });
  // Heard of below, unless the driver leaves before.
  transacting.catch(() => undefined);
  while (!over) {
    driver.checkWhole();
    if (driver.hasNews) {
      const mail = await driver.lookForMail();
      cancelled ||= mail.some(({ kind, key }) => kind === "control" && key === "cancel");
      if (cancelled) driver.executions.abort(effect.id, driver.cancelled(), 0);
    } else {
      await new Promise<void>((resolve) => {
        driver.wake = resolve;
      });
    }
  }
  driver.wake = undefined;
  try {
    await transacting;
    durable();
  } catch (error) {
    // Where the store failed, it is not the attempt that did: whoever comes next makes it again.
    if (error !== rolledBack) throw error;
    if (failed) driver.executions.settle(effect.id, failed);
  }
  return "recorded";
}
