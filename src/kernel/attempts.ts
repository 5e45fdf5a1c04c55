/** Attempts of effects: which begin, behind the barrier (D2), and what they came to. */
import type { EffectDefinition } from "./effect.ts";
import { errorData } from "./errors.ts";
import type { OpenEffect } from "./run.ts";
import type { Blocked } from "./transition.ts";
import { transact } from "./transact.ts";
import { dueEffects } from "./due-effects.ts";
import type { RunAtHand } from "./run-at-hand.ts";

/**
 * Starts every effect that is to execute and does not yet, behind the barrier (D2) unless all are speculative. A synchronous
 * speculative one has its outcome at once. `resting` leaves what an earlier driver began for later. Says when it has recorded an
 * outcome itself.
 */
export function startExecutions(
  run: RunAtHand,
  resting: boolean,
): Blocked | undefined | Promise<Blocked | "recorded" | undefined> {
  // What closed them may have been a moment or a message as well as an outcome.
  run.executions.dropClosed(run.state.open);
  const due = dueEffects(run.state, run.needs, run.executions, run.inherited, resting);
  if (!due || "code" in due) return due;
  if (run.executions.hasSettled || due.effects.length === 0) return undefined;
  if (!due.areExternal && !run.owing) return begin(run, due.effects);
  return barrier(run).then(() => begin(run, due.effects));
}

/** Before anything leaves the process: all is durable, and the run is surely still ours (D2). */
async function barrier(run: RunAtHand): Promise<void> {
  await run.flush();
  run.owing = false;
  if (run.isHeld) return;
  // This process was away for longer than its lease. An empty commit tells whether somebody has taken the run.
  await run.host.renewLeases();
  run.lapses = run.host.leaseLapses();
  await run.writer.send({ release: false, mailSeen: run.inbox.seen });
}

/** One that is transactional begins when the others have, and has the run to itself (D5). */
function begin(run: RunAtHand, effects: readonly OpenEffect[]): undefined | Promise<"recorded"> {
  let transactional: [OpenEffect, EffectDefinition] | undefined;
  for (const effect of effects) {
    const definition = run.needs.definition(effect.type);
    if (definition?.transactional) transactional ??= [effect, definition];
    else run.executions.begin(effect, definition, run.state);
  }
  if (run.executions.size > 0) run.sendAhead();
  // What has settled already is recorded first.
  return transactional && !run.executions.hasSettled ? transact(run, ...transactional) : undefined;
}

/** Records the next outcome that came in. Answers whether there was one. */
export function takeOutcome(run: RunAtHand): boolean {
  const next = run.executions.take();
  if (!next) return false;
  const effect = run.state.open.get(next.id);
  // Closed meanwhile, by a faster member of an `any` or by the end of the run.
  if (!effect || !awaitsOutcome(effect)) return true;
  if (run.needs.isExternal(effect)) run.owing = true;
  try {
    run.recordOutcome(effect, next.outcome);
    for (const child of next.children) run.writer.start(child);
  } catch (error) {
    // What it gave cannot be recorded: too large, or a wait that makes no sense.
    const { counters = [] } = next.outcome;
    run.recordOutcome(effect, { kind: "failed", error: errorData(error), retryable: false, counters }, { isSmall: true });
  }
  return true;
}

function awaitsOutcome({ phase, window, type, wait }: OpenEffect): boolean {
  return (
    phase === "executing" ||
    (window !== undefined && phase === "joining") ||
    (type === "join" && wait !== undefined && phase === "parked")
  );
}
