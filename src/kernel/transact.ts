/** An effect whose handler writes in a transaction of the store. See D5 in `drive.ts`. */
import type { EffectDefinition } from "./effect.ts";
import { errorData, isError } from "./errors.ts";
import type { OpenEffect } from "./run.ts";
import { notBegun, type Outcome } from "./step.ts";
import type { Store } from "./store.ts";
import type { RunAtHand } from "./run-at-hand.ts";

/**
 * Executes an effect in a transaction of the store, which holds the record of its outcome too (D5). Whatever keeps it from that rolls
 * everything back: then the attempt has failed, and certainly did nothing.
 */
export async function transact(run: RunAtHand, effect: OpenEffect, definition: EffectDefinition): Promise<"recorded"> {
  const { store } = run.host;
  // What began beside it may have been appended since the barrier.
  await run.flush();
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
    run.checkWhole();
    if (cancelled) rollBack(notBegun);
    // It had to wait for its transaction for longer than the lease lasts: it begins anew, if the run is still ours.
    if (!run.isHeld) throw rolledBack;
    const outcome = await run.executions.perform(effect, definition, run.state, transaction);
    run.checkWhole();
    if (outcome.kind !== "completed" && outcome.kind !== "waiting") return rollBack(outcome);
    // Asked before anything is appended: the handler may have ended the transaction, and would do so again.
    await commit([]).catch((error: unknown) => {
      throw isError(error, "TRANSACTION_INVALID") ? fail(error) : error;
    });
    try {
      run.recordOutcome(effect, outcome);
    } catch (error) {
      return fail(error);
    }
    const handed = run.writer.handOver({ release: false, mailSeen: run.inbox.seen });
    durable = handed.durable;
    return commit([handed.transition]);
  }).finally(() => {
    over = true;
    run.wake?.();
  });
  // Heard of below, unless the driver leaves before.
  transacting.catch(() => undefined);
  while (!over) {
    run.checkWhole();
    if (run.mailHint) {
      const mail = await run.lookForMail();
      cancelled ||= mail.some(({ kind, key }) => kind === "control" && key === "cancel");
      if (cancelled) run.executions.abort(effect.id, run.cancelled(), 0);
    } else {
      await new Promise<void>((resolve) => {
        run.wake = resolve;
      });
    }
  }
  run.wake = undefined;
  try {
    await transacting;
    durable();
  } catch (error) {
    // Where the store failed, it is not the attempt that did: whoever comes next makes it again.
    if (error !== rolledBack) throw error;
    if (failed) run.executions.settle(effect.id, failed);
  }
  return "recorded";
}
