/**
 * A run at hand: what a process has of one that it drives, and how that is written down. What is to be done with it stands in `drive.ts`,
 * with D1 to D5, and in the rooms beside it: `node-turn.ts`, `take-mail.ts`, `attempts.ts`.
 */
import { awaitingChildren, givenUp, startsChildren } from "./child.ts";
import type { DriveHost } from "./drive-host.ts";
import { AbstractRuntimeError } from "./errors.ts";
import { Executions } from "./executions.ts";
import type { Restored } from "./restore.ts";
import { Inbox } from "./inbox.ts";
import { DriveTrace } from "./instrument.ts";
import { Needs } from "./needs.ts";
import { defaultPolicy } from "./policy.ts";
import type { RecordDraft } from "./record.ts";
import { RunArtifacts } from "./run-artifacts.ts";
import { isJoined, isLeftBehind, isWindingUp, type OpenEffect, type RunState, wantsCallOff } from "./run.ts";
import { ending, isDecided, joinDrafts, type Outcome, outcomeDrafts } from "./step.ts";
import type { PlanContext } from "./plan-drafts.ts";
import type { CounterChange, Lease, Loaded } from "./transition.ts";
import type { Mail } from "./message.ts";
import type { Workflow } from "./workflow.ts";
import { type AppendOptions, Writer } from "./write.ts";
import { Turns } from "./turns.ts";

/** Time for a handler to answer an aborted signal before its outcome is called uncertain. */
export const cancelGraceMs = 5_000;

export class RunAtHand {
  readonly host: DriveHost;
  readonly lease: Lease;
  readonly needs: Needs;
  readonly trace: DriveTrace | undefined;
  readonly writer: Writer;
  readonly executions: Executions;
  readonly artifacts: RunArtifacts;
  readonly inbox: Inbox;
  /** Somebody said that the mailbox has something new. */
  mailHint = false;
  /** Attempts that were under way when an earlier driver of this run ended. */
  inherited: Set<string>;
  readonly turns: Turns;
  /** A slot may have become free since effects asked for one. */
  slotFreed = false;
  /** Waits for detached children that were compared with these children: they may have ended before somebody waited. */
  readonly joined = new Set<string>();
  /** When the last end of a child was taken. */
  lastMemberAt = Number.NEGATIVE_INFINITY;
  wake: (() => void) | undefined;
  /** Ends the wait for a node that answers asynchronously. */
  giveUpNode: ((reason: unknown) => void) | undefined;
  stopping = false;
  /** The outcome of a non-speculative effect, or what it did to a budget, is appended and perhaps not durable: no handler runs before it is. */
  owing = false;
  /** What `leaseLapses` said when the lease was surely held. */
  lapses: number;

  /** @param created For a run that is being created in this turn: settles when it is durable. */
  constructor(host: DriveHost, loaded: Loaded & { lease: Lease }, restored: Restored, created?: Promise<unknown>) {
    this.host = host;
    this.lease = loaded.lease;
    this.lapses = host.leaseLapses();
    this.needs = new Needs(host, restored.state);
    this.trace =
      host.instrument && new DriveTrace(host.instrument, restored.state, [...(this.needs.workflow?.effects.keys() ?? [])]);
    this.writer = new Writer(host, loaded.lease, restored, created, this.trace?.parent);
    const slotFreed = (): void => {
      this.slotFreed = true;
      this.wake?.();
    };
    this.artifacts = new RunArtifacts(host, restored.state.runId);
    this.executions = new Executions(host, this.artifacts, () => this.wake?.(), slotFreed, this.trace);
    this.turns = new Turns(this.needs, this.executions, () => host.now());
    this.inbox = new Inbox(loaded.mail);
    this.inherited = executing(restored.state);
  }

  get runId(): string {
    return this.state.runId;
  }

  get state(): RunState {
    return this.writer.state;
  }

  /** Answers whether they were appended. */
  append(drafts: readonly RecordDraft[], as?: AppendOptions): boolean {
    const parents = awaitingChildren(this.state);
    const { undoFailures = [], runId } = this.state;
    const undone = undoFailures.length;
    const appended = this.writer.append(
      drafts.map((draft) => ending(this.state, draft)),
      as,
    );
    if (!appended) return false;
    this.trace?.look(this.state);
    if (parents.length > 0) for (const cancel of givenUp(this.state, parents, drafts)) this.writer.tell(cancel);
    // The run ends all the same, so that somebody has to be told.
    for (const { type, error } of this.state.undoFailures?.slice(undone) ?? [])
      this.host.report?.(`effect "${type}" could not undo what the run had done`, { error: error.message, runId });
    // A new wait may be what an early message was for.
    if (drafts.some(({ kind }) => kind === "parked")) this.inbox.lookAgain();
    for (const { effectId } of drafts) if (effectId !== undefined) this.join(effectId);
    return true;
  }

  /** What ends a member may end its group: at once, so that the first to end is the first to count in the groups above it, too. */
  join(effectId: string): void {
    // What a cancelled run comes to is decided when nothing executes any more.
    if (isWindingUp(this.state)) return;
    const parent = this.state.open.get(effectId.slice(0, Math.max(0, effectId.lastIndexOf("."))));
    for (const group of [this.state.open.get(effectId), parent]) {
      if (group && isJoined(group) && !isDecided(this.state, group) && this.mayJoin(group))
        return void this.append(joinDrafts(this.state, group));
    }
  }

  /**
   * Whether nothing of a group executes any more that must not be lost sight of. A member that may have done something is told to
   * stop, and what it did is recorded first; one that is speculative, or has not been called, is dropped with the group. What is under
   * way elsewhere is called off first.
   */
  mayJoin(group: OpenEffect): boolean {
    let may = true;
    for (const effect of this.state.open.values()) {
      const { id, phase, leaves, parting } = effect;
      if (!id.startsWith(`${group.id}.`)) continue;
      const isCalledOff = (parting || leaves || wantsCallOff(effect)) && isLeftBehind(this.state, effect);
      if (isCalledOff && wantsCallOff(effect)) may = false;
      if (phase !== "executing" || !(isCalledOff || this.needs.isExternal(effect))) continue;
      if (!isCalledOff && !this.executions.has(id) && !this.inherited.has(id)) continue;
      this.executions.abort(id, new Error("The effect was given up: the others of its group are done."), cancelGraceMs);
      may = false;
    }
    return may;
  }

  /** What is appended goes out before other code is awaited (D3). A failure is met at the loop's next turn. */
  sendAhead(): void {
    if (!this.writer.unsent) return;
    this.writer.send({ release: false, mailSeen: this.inbox.seen }).catch(() => this.wake?.());
  }

  /** Everything appended is durable when this resolves (D2). */
  async flush(): Promise<void> {
    this.sendAhead();
    await this.writer.settled();
  }

  async lookForMail(): Promise<Mail[]> {
    this.mailHint = false;
    const mail = await this.host.store.mail(this.runId, this.inbox.seen);
    this.inbox.add(mail);
    return mail;
  }

  place(workflow: Workflow): Omit<PlanContext, "places" | "vars"> {
    const { runId, node, step } = this.state;
    return {
      runId,
      workflowId: workflow.id,
      node,
      step,
      now: this.host.now(),
      nodes: workflow.nodes,
      depth: this.host.limits.jsonDepth,
      hasSlot: (type, id, payload) => this.turns.has(this.state, type, id, payload),
      isUndoable: (type) => this.host.effect(type, workflow)?.undo !== undefined,
    };
  }

  cancelled(): AbstractRuntimeError {
    return new AbstractRuntimeError("RUN_CANCELLED", { runId: this.runId });
  }

  get isHeld(): boolean {
    return this.host.holdsLeases() && this.host.leaseLapses() === this.lapses;
  }

  checkWhole(): void {
    if (this.writer.broken) throw this.writer.broken.error;
  }

  recordOutcome(effect: OpenEffect, outcome: Outcome, as?: { isSmall: true }): void {
    const { policy = defaultPolicy, onUncertain = "retry" } = this.needs.definition(effect.type) ?? {};
    const rules = { policy, onUncertain };
    this.append(outcomeDrafts(this.state, effect, outcome, rules, this.host.now(), this.host.ids.random()), as);
    if (outcome.counters) this.count(outcome.counters);
  }

  /** What the next handler reserves is compared with counters that stand in the store. */
  count(changes: readonly CounterChange[]): void {
    if (changes.length === 0) return;
    this.writer.count(changes);
    this.owing = true;
  }
}

export function executing({ open }: RunState): Set<string> {
  const ids = new Set<string>();
  for (const { id, phase, type } of open.values()) if (phase === "executing" && !startsChildren(type)) ids.add(id);
  return ids;
}
