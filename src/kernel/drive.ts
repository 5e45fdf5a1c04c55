/**
 * Drives one claimed run: fold, step, execute, commit, until it waits, ends or is handed back.
 *
 * D1. Whatever a step decides goes through the writer, which folds it at once and sends it as one transition.
 * D2. Output commit: before a non-speculative effect starts, and before `drive` returns, everything appended is durable.
 * D3. Before other code runs asynchronously, the batch is sent: a finished effect is never unrecorded while something else is
 *     awaited. Synchronous steps share a batch until run-ahead reaches its bound; then the event loop gets its turn.
 * D4. When a commit failed, the driver aborts what it executes, starts nothing, and rejects with that error. The run is as the
 *     store has it.
 * D5. While a transactional effect executes, nothing of its run is appended: the next commit is that of its transaction, with what the
 *     handler wrote there. What other effects come to meanwhile is recorded behind it.
 */
import { raisedBy } from "./budget.ts";
import { awaitingChildren, endedBefore, givenUp, startsChildren } from "./child.ts";
import type { DriveHost } from "./drive-host.ts";
import type { EffectDefinition } from "./effect.ts";
import { AbstractRuntimeError, type ErrorData, errorData, isError } from "./errors.ts";
import { isPromise } from "./execute.ts";
import { Executions } from "./executions.ts";
import { type Restored, restoreRun } from "./fold.ts";
import { Inbox } from "./inbox.ts";
import { DriveTrace, endingOf } from "./instrument.ts";
import { equalJson, isObject, type Json } from "./json.ts";
import { migration, type Misfit, nodeMisfit } from "./migrate.ts";
import { Needs } from "./needs.ts";
import type { StepPlan } from "./plan.ts";
import { defaultPolicy } from "./policy.ts";
import type { RecordDraft } from "./record.ts";
import { RunArtifacts } from "./run-artifacts.ts";
import { nodeError, type Ran, runNode } from "./run-node.ts";
import {
  isEnded,
  isJoined,
  isLeftBehind,
  isWindingUp,
  type OpenEffect,
  payloadOf,
  type RunState,
  statusOf,
  type Undoable,
  wantsCallOff,
} from "./run.ts";
import { dueDrafts, ending, isDecided, joinDrafts, type Outcome, outcomeDrafts } from "./step.ts";
import { messageDrafts } from "./message-drafts.ts";
import { type PlanContext, planDrafts, undoDrafts } from "./plan-drafts.ts";
import type { Blocked, CounterChange, Lease, Loaded } from "./transition.ts";
import type { Mail } from "./message.ts";
import type { Workflow } from "./workflow.ts";
import { type AppendOptions, Writer } from "./write.ts";
import { transact, type Transacting } from "./transact.ts";
import { nextMoment, soonest, type Timing } from "./soon.ts";
import { Turns } from "./turns.ts";
import { dueEffects } from "./due-effects.ts";
import { undoRequest } from "./undo.ts";

export interface DriveResult {
  state: RunState;
  /** `yielded`: the step budget was used up or the runtime stops; the run is ready for whoever comes. */
  end: "ended" | "parked" | "blocked" | "yielded";
  blocked?: Blocked;
}

/** Time for a handler to answer an aborted signal before its outcome is called uncertain. */
const cancelGraceMs = 5_000;
export class Driver {
  readonly #host: DriveHost;
  readonly #lease: Lease;
  readonly #needs: Needs;
  readonly #trace: DriveTrace | undefined;
  readonly #writer: Writer;
  readonly #executions: Executions;
  readonly #artifacts: RunArtifacts;
  readonly #inbox: Inbox;
  /** Somebody said that the mailbox has something new. */
  #mailHint = false;

  /** Attempts that were under way when an earlier driver of this run ended. */
  #inherited: Set<string>;
  readonly #turns: Turns;
  /** A slot may have become free since effects asked for one. */
  #slotFreed = false;
  /** Waits for detached children that were compared with these children: they may have ended before somebody waited. */
  readonly #joined = new Set<string>();
  /** When the last end of a child was taken. */
  #lastMemberAt = Number.NEGATIVE_INFINITY;
  #wake: (() => void) | undefined;
  /** Ends the wait for a node that answers asynchronously. */
  #giveUpNode: ((reason: unknown) => void) | undefined;
  #stopping = false;
  /** The outcome of a non-speculative effect, or what it did to a budget, is appended and perhaps not durable: no handler runs before it is. */
  #owing = false;
  /** What `leaseLapses` said when the lease was surely held. */
  #lapses: number;

  /** @param created For a run that is being created in this turn: settles when it is durable. */
  constructor(host: DriveHost, loaded: Loaded & { lease: Lease }, restored: Restored, created?: Promise<unknown>) {
    this.#host = host;
    this.#lease = loaded.lease;
    this.#lapses = host.leaseLapses();
    this.#needs = new Needs(host, restored.state);
    this.#trace =
      host.instrument && new DriveTrace(host.instrument, restored.state, [...(this.#needs.workflow?.effects.keys() ?? [])]);
    this.#writer = new Writer(host, loaded.lease, restored, created, this.#trace?.parent);
    const slotFreed = (): void => {
      this.#slotFreed = true;
      this.#wake?.();
    };
    this.#artifacts = new RunArtifacts(host, restored.state.runId);
    this.#executions = new Executions(host, this.#artifacts, () => this.#wake?.(), slotFreed, this.#trace);
    this.#turns = new Turns(this.#needs, this.#executions, () => host.now());
    this.#inbox = new Inbox(loaded.mail);
    this.#inherited = executing(restored.state);
  }

  get #state(): RunState {
    return this.#writer.state;
  }

  get runId(): string {
    return this.#state.runId;
  }

  /** What another driver of this run, once it is parked, can go on from. */
  get restored(): Restored {
    return this.#writer.restored;
  }

  /** Effects that execute here now, and since when, for whoever asks what this process does. */
  get executing(): { effect: OpenEffect; since: number }[] {
    return this.#executions.underWay.flatMap(({ id, since }) => {
      const effect = this.#state.open.get(id);
      return effect ? [{ effect, since }] : [];
    });
  }

  /** Says that the mailbox has something new. */
  nudge(): void {
    this.#mailHint = true;
    this.#wake?.();
  }

  /** Asks the driver to hand the run back once what is executing has settled. */
  stop(): void {
    this.#stopping = true;
    this.#wake?.();
  }

  /** Gives up what is executing, unrecorded: whoever comes next finds it uncertain. */
  abort(reason: unknown): void {
    this.#writer.break(reason);
    this.#executions.abortAll(() => reason, 0);
    this.#giveUpNode?.(reason);
    this.#wake?.();
  }

  /**
   * Drives until the run ends, waits, is blocked, or `maxSteps` nodes have run.
   *
   * @throws CONFLICT when the run is no longer this worker's; any error of the store.
   */
  async drive(maxSteps = Number.POSITIVE_INFINITY): Promise<DriveResult> {
    try {
      if (!this.#trace) return await this.#drive(maxSteps);
      const result = await this.#trace.within(() => this.#drive(maxSteps));
      const { code, problem } = result.blocked ?? {};
      this.#trace.end(endingOf(result.state, result.end, code ? { name: "Error", code, message: problem ?? "" } : undefined));
      return result;
    } catch (error) {
      this.#trace?.end({ outcome: "broken", error: errorData(error) });
      throw error;
    } finally {
      this.#executions.leave();
    }
  }

  async #drive(maxSteps: number): Promise<DriveResult> {
    let stepsLeft = maxSteps;
    try {
      for (;;) {
        if (this.#writer.broken) throw this.#writer.broken.error;
        if (this.#writer.full) await this.#flush();
        if (this.#mailHint) await this.#readMail();
        const vetting = this.#artifacts.vet(this.#inbox.fresh());
        if (vetting) {
          this.#sendAhead();
          await vetting;
        }
        this.#inbox.offer((mail) => this.#take(mail));
        if (this.#takeOutcome()) continue;
        if (isEnded(this.#state)) {
          if (await this.#end()) return { state: this.#state, end: "ended" };
          continue;
        }
        const tooLarge = this.#state.undoing ? undefined : this.#writer.varsProblem();
        if (tooLarge) {
          this.#append([tooLarge], { isSmall: true });
          continue;
        }
        const windsUp = isWindingUp(this.#state);
        if (windsUp) this.#executions.abortAll(() => this.#cancelled(), cancelGraceMs);
        // Paused or stopping, the step under way is finished and nothing new begins.
        const resting = this.#state.paused || this.#stopping;
        this.#turns.lookAgain();
        if (windsUp || (!resting && (hasOpen(this.#state) || this.#state.undoing))) {
          const blocked = this.#needs.unknownRetry(this.#state, this.#host.now());
          if (blocked) return await this.#block(blocked);
          const due = this.#due();
          if (this.#needsCode(due)) {
            const missing = await this.#prepare();
            if (missing) return await this.#block(missing);
            // Under another version, other nodes may be due.
            continue;
          }
          if (due.length > 0) {
            // An end holds what was recorded before, and nothing else.
            this.#append(due, { isSmall: this.#state.undoing !== undefined });
            continue;
          }
          const undo = this.#state.open.size === 0 ? this.#state.undoable?.at(-1) : undefined;
          if (this.#state.undoing && undo) {
            const stuck = this.#undo(undo);
            if (stuck) return await this.#block(stuck);
            continue;
          }
        }
        const started = this.#startExecutions(resting);
        const blocked = isPromise(started) ? await started : started;
        if (blocked === "recorded") continue;
        if (blocked) return await this.#block(blocked);
        if (this.#executions.hasSettled || this.#writer.broken) continue;
        if (hasOpen(this.#state) && (await this.#findEnded())) continue;
        // One may have come in meanwhile.
        if (this.#executions.hasSettled) continue;
        if (this.#executions.size > 0 || this.#turns.queued.size > 0 || this.#soon() !== undefined) {
          await this.#pause();
          continue;
        }
        if (resting || windsUp || hasOpen(this.#state)) {
          if (!this.#state.paused && statusOf(this.#state) === "running") return await this.#yield();
          if (await this.#park()) return { state: this.#state, end: "parked" };
          continue;
        }
        if (this.#outdated()) {
          const misfit = await this.#prepare();
          if (misfit) return await this.#block(misfit);
        }
        if (stepsLeft <= 0) return await this.#yield();
        stepsLeft -= 1;
        const ran = this.#runNode();
        const stuck = isPromise(ran) ? await ran : ran;
        if (stuck) return await this.#block(stuck);
      }
    } catch (error) {
      this.#writer.break(error);
      this.#executions.abortAll(() => error, 0);
      // What was sent behind a commit that failed fails too, and may be heard of first.
      const first = this.#writer.broken?.error;
      if (isError(first, "ARTIFACT_MISSING")) return this.#unkept(first);
      throw error;
    }
  }

  /**
   * A commit was refused because an artifact was forgotten since it was looked at. Driven again at once, the run would most likely come
   * to the same end, again and again: so it stays as it was before the commit, until somebody has put the artifact again.
   */
  async #unkept({ code, problem }: AbstractRuntimeError): Promise<DriveResult> {
    const { store, fingerprint } = this.#host;
    const blocked = { code, problem, fingerprint, quarantine: false };
    await store.release(this.runId, this.#lease, { blocked, mailSeen: this.#inbox.seen });
    const loaded = await store.load(this.runId);
    const state = loaded ? (await restoreRun(store, loaded)).state : this.#state;
    return { state, end: "blocked", blocked };
  }

  #due(): RecordDraft[] {
    this.#slotFreed = false;
    const mayJoin = (group: OpenEffect): boolean => this.#mayJoin(group);
    const hasTurn = (type: string, id: string, payload: () => Json): boolean => this.#turns.has(this.#state, type, id, payload);
    return dueDrafts(this.#state, this.#host.now(), mayJoin, hasTurn, this.#onCancel());
  }

  // ---- Records and commits (D1-D3) ---------------------------------------------------------------------------------

  /** Answers whether they were appended. */
  #append(drafts: readonly RecordDraft[], as?: AppendOptions): boolean {
    const parents = awaitingChildren(this.#state);
    const { undoFailures = [], runId } = this.#state;
    const undone = undoFailures.length;
    const appended = this.#writer.append(
      drafts.map((draft) => ending(this.#state, draft)),
      as,
    );
    if (!appended) return false;
    this.#trace?.look(this.#state);
    if (parents.length > 0) for (const cancel of givenUp(this.#state, parents, drafts)) this.#writer.tell(cancel);
    // The run ends all the same, so that somebody has to be told.
    for (const { type, error } of this.#state.undoFailures?.slice(undone) ?? [])
      this.#host.report?.(`effect "${type}" could not undo what the run had done`, { error: error.message, runId });
    // A new wait may be what an early message was for.
    if (drafts.some(({ kind }) => kind === "parked")) this.#inbox.lookAgain();
    for (const { effectId } of drafts) if (effectId !== undefined) this.#join(effectId);
    return true;
  }

  /** What ends a member may end its group: at once, so that the first to end is the first to count in the groups above it, too. */
  #join(effectId: string): void {
    // What a cancelled run comes to is decided when nothing executes any more.
    if (isWindingUp(this.#state)) return;
    const parent = this.#state.open.get(effectId.slice(0, Math.max(0, effectId.lastIndexOf("."))));
    for (const group of [this.#state.open.get(effectId), parent]) {
      if (group && isJoined(group) && !isDecided(this.#state, group) && this.#mayJoin(group))
        return void this.#append(joinDrafts(this.#state, group));
    }
  }

  /**
   * Whether nothing of a group executes any more that must not be lost sight of. A member that may have done something is told to
   * stop, and what it did is recorded first; one that is speculative, or has not been called, is dropped with the group. What is under
   * way elsewhere is called off first.
   */
  #mayJoin(group: OpenEffect): boolean {
    let may = true;
    for (const effect of this.#state.open.values()) {
      const { id, phase, leaves, parting } = effect;
      if (!id.startsWith(`${group.id}.`)) continue;
      const isCalledOff = parting || leaves || wantsCallOff(effect) ? isLeftBehind(this.#state, effect) : false;
      if (isCalledOff && wantsCallOff(effect)) may = false;
      if (phase !== "executing" || !(isCalledOff || this.#needs.isExternal(effect))) continue;
      if (!isCalledOff && !this.#executions.has(id) && !this.#inherited.has(id)) continue;
      this.#executions.abort(id, new Error("The effect was given up: the others of its group are done."), cancelGraceMs);
      may = false;
    }
    return may;
  }

  /** What is appended goes out before other code is awaited (D3). A failure is met at the loop's next turn. */
  #sendAhead(): void {
    if (!this.#writer.unsent) return;
    this.#writer.send({ release: false, mailSeen: this.#inbox.seen }).catch(() => this.#wake?.());
  }

  /** Everything appended is durable when this resolves (D2). */
  async #flush(): Promise<void> {
    this.#sendAhead();
    await this.#writer.settled();
  }

  // ---- Ways to leave -----------------------------------------------------------------------------------------------

  /** Whether the end is durable and nothing came that lets the run go on: a retry, of one that failed. */
  async #end(): Promise<boolean> {
    this.#executions.abortAll(() => this.#cancelled(), 0);
    return this.#park();
  }

  /** Whether the run could be parked. Mail that came meanwhile keeps it here (S5). */
  async #park(): Promise<boolean> {
    const mail = await this.#writer.send({ release: true, mailSeen: this.#inbox.seen });
    this.#inbox.add(mail);
    return mail.length === 0;
  }

  async #yield(): Promise<DriveResult> {
    await this.#flush();
    await this.#host.store.release(this.runId, this.#lease, {});
    return { state: this.#state, end: "yielded" };
  }

  async #block(blocked: Blocked): Promise<DriveResult> {
    // A member that still executes is given up: another worker may begin it again as soon as the lease is handed back.
    this.#executions.abortAll(() => new Error("The run was blocked: another of its effects has no handler here."), 0);
    await this.#flush();
    await this.#host.store.release(this.runId, this.#lease, { blocked, mailSeen: this.#inbox.seen });
    return { state: this.#state, end: "blocked", blocked };
  }

  // ---- Mail --------------------------------------------------------------------------------------------------------

  async #readMail(): Promise<void> {
    this.#sendAhead();
    await this.#lookForMail();
  }

  async #lookForMail(): Promise<Mail[]> {
    this.#mailHint = false;
    const mail = await this.#host.store.mail(this.runId, this.#inbox.seen);
    this.#inbox.add(mail);
    return mail;
  }

  /** Takes a message if it means something now. While paused or being cancelled, only control is taken. */
  #take(mail: Mail): boolean {
    if (isEnded(this.#state) && this.#state.status !== "failed") return false;
    const waits = (this.#state.paused || isWindingUp(this.#state)) && mail.kind !== "control";
    const drafts = waits ? undefined : messageDrafts(this.#state, mail, this.#artifacts.refusal(mail.id));
    if (!drafts) return false;
    this.#writer.take(mail.id);
    if (mail.kind === "child_end") {
      this.#lastMemberAt = this.#host.now();
      // One message may be for several waits: the others are compared with the child again.
      for (const { id, wait } of this.#state.open.values()) if (wait?.waitKey === mail.key) this.#joined.delete(id);
    }
    this.#appendTaken(mail, drafts);
    if (mail.kind === "control" && mail.key === "retry") this.#recover();
    const { payload } = mail;
    for (const { kind, data } of drafts)
      if (kind === "control" && data.before !== undefined && isObject(payload))
        this.#writer.archive(data.before, payload.base as string);
    return true;
  }

  /** A run that is retried is as one that was just claimed. */
  #recover(): void {
    this.#executions.forget();
    this.#inherited = executing(this.#state);
    this.#joined.clear();
  }

  /** A message that cannot be recorded fails what waited for it; kept, it would stop the run at every attempt to go on. */
  #appendTaken(mail: Mail, drafts: readonly RecordDraft[]): void {
    const sender = mail.actorId === undefined ? {} : { actorId: mail.actorId };
    const raised = this.#state.budgets ? raisedBy(this.#state, mail, drafts) : [];
    try {
      this.#append(drafts, sender);
      this.#count(raised);
    } catch (error) {
      if (!(error instanceof AbstractRuntimeError)) throw error;
      this.#append(messageDrafts(this.#state, mail, errorData(error)) ?? [], { ...sender, isSmall: true });
    }
  }

  /**
   * A detached child may have ended before this run waited for it, when nobody was to be told. So each wait for one is compared with
   * its child once it is durable, and before the run is let go: from then on the child's end finds the wait. Answers whether
   * something came of it.
   */
  async #findEnded(): Promise<boolean> {
    // Also when the process stops: whoever is next has no reason to look.
    if (isWindingUp(this.#state)) return false;
    const waits = [...this.#state.open.values()].filter(
      ({ id, type, phase }) => type === "join" && phase === "parked" && !this.#joined.has(id),
    );
    if (waits.length === 0) return false;
    await this.#flush();
    for (const effect of waits) {
      this.#joined.add(effect.id);
      const { subRunId = "" } = payloadOf(effect) as { subRunId?: string };
      const outcome = await endedBefore(this.#host.store, this.runId, subRunId);
      if (outcome) this.#executions.settle(effect.id, outcome);
    }
    return true;
  }

  // ---- Nodes -------------------------------------------------------------------------------------------------------

  #runNode(): Blocked | undefined | Promise<Blocked | undefined> {
    const state = this.#state;
    const workflow = this.#needs.workflow;
    if (!workflow) {
      return this.#needs.unknownWorkflow();
    }
    const node = workflow.nodes.get(state.node);
    if (!node) {
      return this.#needs.misfit(nodeMisfit(state, workflow) as Misfit);
    }
    const append = (drafts: readonly RecordDraft[], { nodeId }: StepPlan, ifPlain: boolean): boolean => {
      if (this.#writer.broken) return true;
      if (!this.#append(drafts, nodeId === undefined ? { ifPlain } : { node: nodeId, ifPlain })) return false;
      if (this.#state.carried) this.#carryOn(this.#state.carried);
      return true;
    };
    const finish = (ran: Ran): Blocked | undefined | Promise<undefined> => {
      if (this.#writer.broken) return undefined;
      if ("error" in ran) return this.#fail(ran.error);
      try {
        const { plan, patch, vars, places } = ran;
        const missing = plan.effect && this.#needs.missing(plan.effect.type, plan.effect.payload);
        if (missing) return missing;
        const drafts = planDrafts(plan, patch, { ...this.#place(workflow), places, vars });
        if (append(drafts, plan, true)) return undefined;
        const ready = this.#artifacts.drafts(drafts);
        if (!isPromise(ready)) return void append(ready, plan, false);
        this.#sendAhead();
        return ready
          .then((prepared) => void append(prepared, plan, false))
          .catch((error: unknown) => this.#fail(nodeError(error, state.node)));
      } catch (error) {
        return this.#fail(nodeError(error, state.node));
      }
    };
    const run = (): Ran | Promise<Ran> =>
      runNode(node, state, this.#host, (giveUp) => {
        this.#giveUpNode = giveUp;
      });
    const ran = this.#trace ? this.#trace.step(state.step, state.node).within(run) : run();
    if (!isPromise(ran)) return finish(ran);
    this.#sendAhead();
    return ran.then((settled) => {
      this.#giveUpNode = undefined;
      return finish(settled);
    });
  }

  /** The effect that is requested again is not begun again, where it is the very one. */
  #carryOn({ type, payload, outcome }: NonNullable<RunState["carried"]>): void {
    const [effect] = this.#state.open.values();
    if (effect?.phase !== "executing" || effect.type !== type || !equalJson(payloadOf(effect), payload)) return;
    if (outcome) this.#executions.settle(effect.id, outcome);
    else this.#inherited.add(effect.id);
  }

  #place(workflow: Workflow): Omit<PlanContext, "places" | "vars"> {
    const { runId, node, step } = this.#state;
    return {
      runId,
      workflowId: workflow.id,
      node,
      step,
      now: this.#host.now(),
      nodes: workflow.nodes,
      depth: this.#host.limits.jsonDepth,
      hasSlot: (type, id, payload) => this.#turns.has(this.#state, type, id, payload),
      isUndoable: (type) => this.#host.effect(type, workflow)?.undo !== undefined,
    };
  }

  /** Nothing of the node's draft is recorded, only why the run failed. */
  #fail(error: ErrorData): undefined {
    this.#append([{ kind: "run_failed", data: { error } }], { isSmall: true });
  }

  // ---- Versions, cancel and undo -----------------------------------------------------------------------------------

  #outdated(): boolean {
    return this.#needs.workflow !== undefined && String(this.#needs.workflow.version) !== this.#state.version;
  }

  /**
   * Whether what is due is a node, to which only the workflow's code of the run's version leads, or what a cancelled run calls off,
   * which takes its code of any version. What is open is of the old version until it has ended, and so are the results that it writes.
   */
  #needsCode([first]: readonly RecordDraft[]): boolean {
    if (first?.kind === "effect_started" && isWindingUp(this.#state)) return !this.#needs.workflow;
    return first?.kind === "step" && (this.#outdated() || !this.#needs.workflow);
  }

  /** Brings the run to this version of its workflow, or says why it has to wait for another one. */
  async #prepare(): Promise<Blocked | undefined> {
    const workflow = this.#needs.workflow;
    if (!workflow) return this.#needs.unknownWorkflow();
    if (!this.#outdated()) return undefined;
    this.#sendAhead();
    const migrated = await migration(this.#state, workflow, this.#host.limits.jsonDepth);
    if (!("kind" in migrated)) return this.#needs.misfit(migrated);
    try {
      this.#append([migrated]);
      return undefined;
    } catch (error) {
      return this.#needs.misfit({ problem: `what its migration changes cannot be recorded: ${errorData(error).message}` });
    }
  }

  #onCancel(): string | undefined {
    // Without its code, it is only known that there is such a node: the run then waits for the code.
    return this.#needs.workflow ? this.#needs.workflow.onCancel : this.#state.onCancel;
  }

  #undo(entry: Undoable): Blocked | undefined {
    const { workflow } = this.#needs;
    if (!workflow) return this.#needs.unknownWorkflow();
    const { blocked, request } = undoRequest(entry, this.#needs);
    if (blocked) return blocked;
    const { vars } = this.#state;
    const context = { ...this.#place(workflow), node: entry.node, places: new Map(), vars };
    try {
      this.#append(undoDrafts(entry, request, context));
    } catch (error) {
      // It cannot be recorded: too large.
      this.#append(undoDrafts(entry, { error: errorData(error) }, context), { isSmall: true });
    }
    return undefined;
  }

  #cancelled(): AbstractRuntimeError {
    return new AbstractRuntimeError("RUN_CANCELLED", { runId: this.runId });
  }

  // ---- Effects -----------------------------------------------------------------------------------------------------

  /**
   * Starts every effect that is to execute and does not yet, behind the barrier (D2) unless all are speculative. A synchronous
   * speculative one has its outcome at once. `resting` leaves what an earlier driver began for later. Says when it has recorded an
   * outcome itself.
   */
  #startExecutions(resting: boolean): Blocked | undefined | Promise<Blocked | "recorded" | undefined> {
    // What closed them may have been a moment or a message as well as an outcome.
    this.#executions.dropClosed(this.#state.open);
    const due = dueEffects(this.#state, this.#needs, this.#executions, this.#inherited, resting);
    if (!due || "code" in due) return due;
    if (this.#executions.hasSettled || due.effects.length === 0) return undefined;
    if (!due.areExternal && !this.#owing) return this.#begin(due.effects);
    return this.#barrier().then(() => this.#begin(due.effects));
  }

  /** Before anything leaves the process: all is durable, and the run is surely still ours (D2). */
  async #barrier(): Promise<void> {
    await this.#flush();
    this.#owing = false;
    if (this.#isHeld) return;
    // This process was away for longer than its lease. An empty commit tells whether somebody has taken the run.
    await this.#host.renewLeases();
    this.#lapses = this.#host.leaseLapses();
    await this.#writer.send({ release: false, mailSeen: this.#inbox.seen });
  }

  get #isHeld(): boolean {
    return this.#host.holdsLeases() && this.#host.leaseLapses() === this.#lapses;
  }

  /** One that is transactional begins when the others have, and has the run to itself (D5). */
  #begin(effects: readonly OpenEffect[]): undefined | Promise<"recorded"> {
    let transactional: [OpenEffect, EffectDefinition] | undefined;
    for (const effect of effects) {
      const definition = this.#needs.definition(effect.type);
      if (definition?.transactional) transactional ??= [effect, definition];
      else this.#executions.begin(effect, definition, this.#state);
    }
    if (this.#executions.size > 0) this.#sendAhead();
    // What has settled already is recorded first.
    return transactional && !this.#executions.hasSettled ? transact(this.#transacting, ...transactional) : undefined;
  }

  /** D5. */
  get #transacting(): Transacting {
    const driver = this;
    return {
      store: this.#host.store,
      executions: this.#executions,
      get state() {
        return driver.#state;
      },
      get hasNews() {
        return driver.#mailHint;
      },
      get wake() {
        return driver.#wake;
      },
      set wake(wake) {
        driver.#wake = wake;
      },
      lookForMail: () => this.#lookForMail(),
      flush: () => this.#flush(),
      checkWhole: () => this.#checkWhole(),
      get isHeld() {
        return driver.#isHeld;
      },
      record: (effect, outcome) => this.#recordOutcome(effect, outcome),
      handOver: () => this.#writer.handOver({ release: false, mailSeen: this.#inbox.seen }),
      cancelled: () => this.#cancelled(),
    };
  }

  #checkWhole(): void {
    if (this.#writer.broken) throw this.#writer.broken.error;
  }

  /** Records the next outcome that came in. Answers whether there was one. */
  #takeOutcome(): boolean {
    const next = this.#executions.take();
    if (!next) return false;
    const effect = this.#state.open.get(next.id);
    // Closed meanwhile, by a faster member of an `any` or by the end of the run.
    if (!effect || !awaitsOutcome(effect)) return true;
    if (this.#needs.isExternal(effect)) this.#owing = true;
    try {
      this.#recordOutcome(effect, next.outcome);
      for (const child of next.children) this.#writer.start(child);
    } catch (error) {
      // What it gave cannot be recorded: too large, or a wait that makes no sense.
      const { counters = [] } = next.outcome;
      this.#recordOutcome(effect, { kind: "failed", error: errorData(error), retryable: false, counters }, { isSmall: true });
    }
    return true;
  }

  #recordOutcome(effect: OpenEffect, outcome: Outcome, as?: { isSmall: true }): void {
    const { policy = defaultPolicy, onUncertain = "retry" } = this.#needs.definition(effect.type) ?? {};
    const rules = { policy, onUncertain };
    this.#append(outcomeDrafts(this.#state, effect, outcome, rules, this.#host.now(), this.#host.ids.random()), as);
    if (outcome.counters) this.#count(outcome.counters);
  }

  /** What the next handler reserves is compared with counters that stand in the store. */
  #count(changes: readonly CounterChange[]): void {
    if (changes.length === 0) return;
    this.#writer.count(changes);
    this.#owing = true;
  }

  // ---- Waiting in process ------------------------------------------------------------------------------------------

  /** The next moment that is worth waiting for here rather than parking. */
  #soon(): number | undefined {
    if (this.#stopping || this.#state.paused || isWindingUp(this.#state)) return undefined;
    return soonest(this.#state, this.#timing);
  }

  get #timing(): Timing {
    const lingersUntil = this.#lastMemberAt + (this.#host.lingerMs ?? 0);
    return { now: this.#host.now(), lingersUntil, lackSlots: this.#turns.queued };
  }

  /** Waits for an outcome, a message, or the next moment. What is appended goes out first (D3). */
  async #pause(): Promise<void> {
    this.#sendAhead();
    const now = this.#host.now();
    const isResting = this.#stopping || this.#state.paused || isWindingUp(this.#state);
    const next = isResting ? undefined : nextMoment(this.#state, this.#timing);
    if (this.#executions.hasSettled || this.#mailHint || this.#slotFreed || this.#writer.broken) {
      this.#slotFreed = false;
      return;
    }
    const isExecuting = this.#executions.size > 0;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        timer?.cancel();
        this.#wake = undefined;
        resolve();
      };
      // A backoff holds the process; an effect that executes does so itself, or does not want to.
      const timer = next === undefined ? undefined : this.#host.clock.setTimer(wake, next - now, !isExecuting);
      this.#wake = wake;
    });
  }
}

function hasOpen(state: RunState): boolean {
  return state.open.size > 0;
}

function executing({ open }: RunState): Set<string> {
  const ids = new Set<string>();
  for (const { id, phase, type } of open.values()) if (phase === "executing" && !startsChildren(type)) ids.add(id);
  return ids;
}

function awaitsOutcome({ phase, window, type, wait }: OpenEffect): boolean {
  return (
    phase === "executing" ||
    (window !== undefined && phase === "joining") ||
    (type === "join" && wait !== undefined && phase === "parked")
  );
}
