/** Messages that a run takes, and the ends of children that nobody told it of. */
import { raisedBy } from "./budget.ts";
import { endedBefore } from "./child.ts";
import { AbstractRuntimeError, errorData } from "./errors.ts";
import { isObject } from "./json.ts";
import type { RecordDraft } from "./record.ts";
import { isEnded, isWindingUp, payloadOf } from "./run.ts";
import { messageDrafts } from "./message-drafts.ts";
import type { Mail } from "./message.ts";
import { type RunAtHand, executing } from "./run-at-hand.ts";

/** Takes a message if it means something now. While paused or being cancelled, only control is taken. */
export function takeMail(run: RunAtHand, mail: Mail): boolean {
  if (isEnded(run.state) && run.state.status !== "failed") return false;
  const waits = (run.state.paused || isWindingUp(run.state)) && mail.kind !== "control";
  const drafts = waits ? undefined : messageDrafts(run.state, mail, run.artifacts.refusal(mail.id));
  if (!drafts) return false;
  run.writer.take(mail.id);
  if (mail.kind === "child_end") {
    run.lastMemberAt = run.host.now();
    // One message may be for several waits: the others are compared with the child again.
    for (const { id, wait } of run.state.open.values()) if (wait?.waitKey === mail.key) run.joined.delete(id);
  }
  appendTaken(run, mail, drafts);
  if (mail.kind === "control" && mail.key === "retry") recover(run);
  const { payload } = mail;
  for (const { kind, data } of drafts)
    if (kind === "control" && data.before !== undefined && isObject(payload))
      run.writer.archive(data.before, payload.base as string);
  return true;
}

/** A run that is retried is as one that was just claimed. */
function recover(run: RunAtHand): void {
  run.executions.forget();
  run.inherited = executing(run.state);
  run.joined.clear();
}

/** A message that cannot be recorded fails what waited for it; kept, it would stop the run at every attempt to go on. */
function appendTaken(run: RunAtHand, mail: Mail, drafts: readonly RecordDraft[]): void {
  const sender = mail.actorId === undefined ? {} : { actorId: mail.actorId };
  const raised = run.state.budgets ? raisedBy(run.state, mail, drafts) : [];
  try {
    run.append(drafts, sender);
    run.count(raised);
  } catch (error) {
    if (!(error instanceof AbstractRuntimeError)) throw error;
    run.append(messageDrafts(run.state, mail, errorData(error)) ?? [], { ...sender, isSmall: true });
  }
}

/**
 * A detached child may have ended before this run waited for it, when nobody was to be told. So each wait for one is compared with
 * its child once it is durable, and before the run is let go: from then on the child's end finds the wait. Answers whether
 * something came of it.
 */
export async function findEnded(run: RunAtHand): Promise<boolean> {
  // Also when the process stops: whoever is next has no reason to look.
  if (isWindingUp(run.state)) return false;
  const waits = [...run.state.open.values()].filter(
    ({ id, type, phase }) => type === "join" && phase === "parked" && !run.joined.has(id),
  );
  if (waits.length === 0) return false;
  await run.flush();
  for (const effect of waits) {
    run.joined.add(effect.id);
    const { subRunId = "" } = payloadOf(effect) as { subRunId?: string };
    const outcome = await endedBefore(run.host.store, run.runId, subRunId);
    if (outcome) run.executions.settle(effect.id, outcome);
  }
  return true;
}
