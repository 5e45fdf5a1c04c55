/**
 * Drives one claimed run: fold, step, execute, commit, until it waits, ends or is handed back.
 *
 * D1. Whatever a step decides goes through the writer, which folds it at once and sends it as one transition.
 * D2. Output commit: before a non-speculative effect starts, and before `drive` returns, everything appended is durable.
 * D3. Before other code runs asynchronously, the batch is sent: a finished effect is never unrecorded while something else is
 *     awaited. Synchronous steps share a batch until run-ahead reaches its bound; then the event loop gets its turn.
 * D4. When a commit failed, the driver aborts what it executes, starts nothing, and rejects with that error. The run is as the
 *     store has it.
 */
import { beginChild, childWorkflowOf } from "./child.ts";
import type { Clock, Ids } from "./clock.ts";
import type { EffectDefinition, Logger } from "./effect.ts";
import { AbstractRuntimeError, type ErrorData, errorData, nearest } from "./errors.ts";
import { type Execution, execute, interrupted, isPromise, type Limits } from "./execute.ts";
import { builtInEffects } from "./plan.ts";
import { defaultPolicy } from "./policy.ts";
import type { LedgerRecord, RecordDraft } from "./record.ts";
import { nodeError, type Ran, runNode } from "./run-node.ts";
import { isEnded, isJoined, type OpenEffect, payloadOf, type RunState, statusOf } from "./run.ts";
import { dueDrafts, messageDrafts, type Outcome, outcomeDrafts, planDrafts } from "./step.ts";
import type { Blocked, Lease, Loaded, Mail, NewRun, Store } from "./store.ts";
import type { Workflow } from "./workflow.ts";
import { Writer } from "./write.ts";

/** What a driver needs of the process it lives in. */
export interface DriveHost {
  readonly store: Store;
  readonly clock: Clock;
  readonly ids: Ids;
  readonly log: Logger;
  readonly limits: Limits;
  /** Now, by the store's clock. */
  now(): number;
  /** How long drivers have kept the event loop since it last had its turn, in milliseconds. */
  loopBusyMs(): number;
  /** Whether this worker's leases are surely still its own. Asked before every non-speculative effect. */
  holdsLeases(): boolean;
  renewLeases(): Promise<void>;
  /** Names the code of this process, for blocks. */
  readonly fingerprint: string;
  workflow(id: string): Workflow | undefined;
  /** The ids of the workflows that `workflow` knows, for messages. */
  workflowIds?(): readonly string[];
  effect(type: string, workflow: Workflow): EffectDefinition | undefined;
  /** Called when a durable commit has created runs or sent messages to these. */
  reached?(runIds: readonly string[]): void;
  /** Called with records once they are durable. */
  committed?(records: readonly LedgerRecord[]): void;
  /** Replaced only by the benchmark that prices hashing. */
  readonly hashText?: (text: string) => string;
}

export interface DriveResult {
  state: RunState;
  /** `yielded`: the step budget was used up or the runtime stops; the run is ready for whoever comes. */
  end: "ended" | "parked" | "blocked" | "yielded";
  blocked?: Blocked;
}

/** A backoff shorter than this is waited out here; a longer one parks the run. */
const inProcessMs = 1_000;
/** Longest time for a child's vars to be checked. */
const childTimeoutMs = 30_000;
/** How often a driver looks for mail from other processes. */
const mailPollMs = 1_000;
/** Time for a handler to answer an aborted signal before its outcome is called uncertain. */
const cancelGraceMs = 5_000;
const notBegun: Outcome = {
  kind: "failed",
  error: { name: "Error", message: "the run was cancelled before it was begun" },
  retryable: false,
};

export class Driver {
  readonly #host: DriveHost;
  readonly #lease: Lease;
  readonly #workflow: Workflow | undefined;
  readonly #writer: Writer;

  #mail: Mail[];
  #mailSeen: number;
  #mailChanged = true;
  #mailHint = false;
  #lookedAt: number;

  readonly #executions = new Map<string, Execution>();
  #outcomes: { id: string; outcome: Outcome }[] = [];
  /** Children ready to begin with the record of their effect's outcome. */
  readonly #children = new Map<string, NewRun>();
  /** Attempts that were under way when an earlier driver of this run ended. */
  readonly #inherited: Set<string>;
  #wake: (() => void) | undefined;
  /** Ends the wait for a node that answers asynchronously. */
  #giveUpNode: ((reason: unknown) => void) | undefined;
  #stopping = false;
  /** The outcome of a non-speculative effect is appended and perhaps not durable: no handler runs before it is. */
  #owing = false;

  /** @param created For a run that is being created in this turn: settles when it is durable. */
  constructor(
    host: DriveHost,
    loaded: Loaded & { lease: Lease },
    restored: { state: RunState; tailBytes: number },
    created?: Promise<unknown>,
  ) {
    this.#host = host;
    this.#lease = loaded.lease;
    this.#writer = new Writer(host, loaded, restored, created);
    this.#workflow = host.workflow(restored.state.workflowId);
    this.#mail = [...loaded.mail];
    this.#lookedAt = host.now();
    this.#mailSeen = loaded.mail.at(-1)?.position ?? 0;
    this.#inherited = new Set(Object.values(restored.state.open).flatMap(({ id, phase }) => (phase === "executing" ? [id] : [])));
  }

  get #state(): RunState {
    return this.#writer.state;
  }

  get runId(): string {
    return this.#state.runId;
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
    this.#abortExecutions(reason, 0);
    this.#giveUpNode?.(reason);
    this.#wake?.();
  }

  /**
   * Drives until the run ends, waits, is blocked, or `maxSteps` nodes have run.
   *
   * @throws CONFLICT when the run is no longer this worker's; any error of the store.
   */
  async drive(maxSteps = Number.POSITIVE_INFINITY): Promise<DriveResult> {
    let stepsLeft = maxSteps;
    try {
      for (;;) {
        if (this.#writer.broken) throw this.#writer.broken.error;
        if (this.#writer.full) await this.#flush();
        if (this.#mailHint || this.#host.now() - this.#lookedAt >= mailPollMs) await this.#readMail();
        this.#takeMail();
        if (this.#takeOutcome()) continue;
        if (isEnded(this.#state)) break;
        const tooLarge = this.#writer.varsProblem();
        if (tooLarge) {
          this.#append([tooLarge], { isSmall: true });
          continue;
        }
        if (this.#state.cancelling)
          this.#abortExecutions(new AbstractRuntimeError("RUN_CANCELLED", { runId: this.runId }), cancelGraceMs);
        // Paused or stopping, the step under way is finished and nothing new begins.
        const resting = this.#state.paused || this.#stopping;
        if (!resting || this.#state.cancelling) {
          const blocked = this.#unknownRetry();
          if (blocked) return await this.#block(blocked);
          const due = dueDrafts(this.#state, this.#host.now());
          if (due.length > 0) {
            this.#append(due);
            continue;
          }
        }
        const started = this.#startExecutions(resting);
        const blocked = isPromise(started) ? await started : started;
        if (blocked) return await this.#block(blocked);
        if (this.#outcomes.length > 0 || this.#writer.broken) continue;
        if (this.#executions.size > 0 || this.#soon() !== undefined) {
          await this.#pause();
          continue;
        }
        if (resting || this.#state.cancelling || hasOpen(this.#state)) {
          if (!this.#state.paused && statusOf(this.#state) === "running") return await this.#yield();
          if (await this.#park()) return { state: this.#state, end: "parked" };
          continue;
        }
        if (stepsLeft <= 0) return await this.#yield();
        stepsLeft -= 1;
        const ran = this.#runNode();
        const stuck = isPromise(ran) ? await ran : ran;
        if (stuck) return await this.#block(stuck);
      }
      this.#abortExecutions(new AbstractRuntimeError("RUN_CANCELLED", { runId: this.runId }), 0);
      await this.#writer.send({ release: true, mailSeen: this.#mailSeen });
      return { state: this.#state, end: "ended" };
    } catch (error) {
      this.#writer.break(error);
      this.#abortExecutions(error, 0);
      throw error;
    }
  }

  // ---- Records and commits (D1-D3) ---------------------------------------------------------------------------------

  #append(drafts: readonly RecordDraft[], as?: { node?: string; isSmall?: boolean }): void {
    this.#writer.append(drafts, as);
    // A new wait may be what an early message was for.
    if (drafts.some(({ kind }) => kind === "parked")) this.#mailChanged = true;
    for (const { effectId } of drafts) if (effectId !== undefined) this.#join(effectId);
  }

  /** What ends a member may end its group: at once, so that the first to end is the first to count in the groups above it, too. */
  #join(memberId: string): void {
    const groupId = memberId.slice(0, Math.max(0, memberId.lastIndexOf(".")));
    const group = this.#state.open[groupId];
    if (group && isJoined(group)) this.#append([{ kind: "effect_completed", effectId: groupId, data: { collect: true } }]);
  }

  /** What is appended goes out before other code is awaited (D3). A failure is met at the loop's next turn. */
  #sendAhead(): void {
    if (!this.#writer.unsent) return;
    this.#writer.send({ release: false, mailSeen: this.#mailSeen }).catch(() => this.#wake?.());
  }

  /** Everything appended is durable when this resolves (D2). */
  async #flush(): Promise<void> {
    this.#sendAhead();
    await this.#writer.settled();
  }

  // ---- Ways to leave -----------------------------------------------------------------------------------------------

  /** Whether the run could be parked. Mail that came meanwhile keeps it here (S5). */
  async #park(): Promise<boolean> {
    const mail = await this.#writer.send({ release: true, mailSeen: this.#mailSeen });
    this.#addMail(mail);
    return mail.length === 0;
  }

  async #yield(): Promise<DriveResult> {
    await this.#flush();
    await this.#host.store.release(this.runId, this.#lease, {});
    return { state: this.#state, end: "yielded" };
  }

  async #block(blocked: Blocked): Promise<DriveResult> {
    // A member that still executes is given up: another worker may begin it again as soon as the lease is handed back.
    this.#abortExecutions(new Error("The run was blocked: another of its effects has no handler here."), 0);
    await this.#flush();
    await this.#host.store.release(this.runId, this.#lease, { blocked, mailSeen: this.#mailSeen });
    return { state: this.#state, end: "blocked", blocked };
  }

  // ---- Mail --------------------------------------------------------------------------------------------------------

  async #readMail(): Promise<void> {
    this.#mailHint = false;
    this.#lookedAt = this.#host.now();
    this.#sendAhead();
    this.#addMail(await this.#host.store.mail(this.runId, this.#mailSeen));
  }

  #addMail(mail: readonly Mail[]): void {
    if (mail.length === 0) return;
    this.#mail.push(...mail);
    this.#mailSeen = (mail.at(-1) as Mail).position;
    this.#mailChanged = true;
  }

  /** Takes every message that means something now. While paused, only control is taken. */
  #takeMail(): void {
    if (!this.#mailChanged) return;
    this.#mailChanged = false;
    for (let i = 0; i < this.#mail.length && !isEnded(this.#state); ) {
      const mail = this.#mail[i] as Mail;
      const waits = (this.#state.paused || this.#state.cancelling) && mail.kind !== "control";
      const drafts = waits ? undefined : messageDrafts(this.#state, mail);
      if (!drafts) {
        i += 1;
        continue;
      }
      this.#mail.splice(i, 1);
      this.#writer.take(mail.id);
      this.#appendTaken(mail, drafts);
      // What was taken may have opened the way for an earlier message.
      i = 0;
    }
  }

  /** A message that cannot be recorded fails what waited for it; kept, it would stop the run at every attempt to go on. */
  #appendTaken(mail: Mail, drafts: readonly RecordDraft[]): void {
    try {
      this.#append(drafts);
    } catch (error) {
      if (!(error instanceof AbstractRuntimeError)) throw error;
      this.#append(messageDrafts(this.#state, mail, errorData(error)) ?? [], { isSmall: true });
    }
  }

  // ---- Nodes -------------------------------------------------------------------------------------------------------

  #runNode(): Blocked | undefined | Promise<Blocked | undefined> {
    const state = this.#state;
    const workflow = this.#workflow;
    if (!workflow) {
      return this.#unknownWorkflow(state.workflowId);
    }
    const node = workflow.nodes.get(state.node);
    if (!node) {
      const suggestion = nearest(state.node, workflow.nodes.keys());
      const problem = `it stands at node "${state.node}", which the workflow does not have`;
      return this.#blocked(
        new AbstractRuntimeError("WORKFLOW_INCOMPATIBLE", {
          runId: state.runId,
          workflowId: workflow.id,
          problem,
          ...(suggestion ? { suggestion } : {}),
        }),
      );
    }
    const finish = (ran: Ran): Blocked | undefined => {
      if (this.#writer.broken) return undefined;
      if ("error" in ran) return this.#fail(ran.error);
      try {
        const { plan, patch, vars, places } = ran;
        const missing = plan.effect && this.#missing(plan.effect.type, plan.effect.payload, workflow);
        if (missing) return missing;
        const { runId, node, step } = state;
        const place = { runId, workflowId: workflow.id, node, step, now: this.#host.now(), nodes: workflow.nodes };
        const drafts = planDrafts(plan, patch, { ...place, places, vars, depth: this.#host.limits.jsonDepth });
        this.#append(drafts, plan.nodeId === undefined ? {} : { node: plan.nodeId });
      } catch (error) {
        return this.#fail(nodeError(error, state.node));
      }
      return undefined;
    };
    const ran = runNode(node, state, this.#host, (giveUp) => {
      this.#giveUpNode = giveUp;
    });
    if (!isPromise(ran)) return finish(ran);
    this.#sendAhead();
    return ran.then((settled) => {
      this.#giveUpNode = undefined;
      return finish(settled);
    });
  }

  /** Nothing of the node's draft is recorded, only why the run failed. */
  #fail(error: ErrorData): undefined {
    this.#append([{ kind: "run_failed", data: { error } }], { isSmall: true });
  }

  // ---- Effects -----------------------------------------------------------------------------------------------------

  /**
   * Starts every effect that is to execute and does not yet, behind the barrier (D2) unless all are speculative. A synchronous
   * speculative one has its outcome at once. `resting` leaves what an earlier driver began for later.
   */
  #startExecutions(resting: boolean): Blocked | undefined | Promise<Blocked | undefined> {
    // What closed them may have been a moment or a message as well as an outcome.
    this.#dropClosed();
    const due: OpenEffect[] = [];
    let external = this.#owing;
    for (const id in this.#state.open) {
      const effect = this.#state.open[id] as OpenEffect;
      if (effect.phase !== "executing" || this.#executions.has(id)) continue;
      const definition = this.#definition(effect.type);
      if (this.#state.cancelling) {
        this.#outcomes.push({ id, outcome: this.#inherited.delete(id) ? interrupted(definition) : notBegun });
      } else if (!definition && !isBuiltIn(effect.type)) {
        return resting ? undefined : this.#unknownEffect(effect.type);
      } else if (this.#inherited.has(id) && effect.type === "start_subworkflow" && this.#workflow) {
        const missing = this.#missing(effect.type, payloadOf(effect), this.#workflow);
        if (missing) return resting ? undefined : missing;
        due.push(effect);
      } else if (this.#inherited.has(id) && definition) {
        if (resting) continue;
        this.#inherited.delete(id);
        this.#outcomes.push({ id, outcome: interrupted(definition) });
      } else {
        // Starting a child again finds the one that was started, so a built-in effect is simply begun anew.
        due.push(effect);
        external ||= definition?.speculative === false;
      }
    }
    if (this.#outcomes.length > 0 || due.length === 0) return undefined;
    if (!external) return this.#begin(due);
    return this.#barrier().then(() => this.#begin(due));
  }

  /** Before anything leaves the process: all is durable, and the run is surely still ours (D2). */
  async #barrier(): Promise<void> {
    await this.#flush();
    this.#owing = false;
    if (this.#host.holdsLeases()) return;
    // This process was away for longer than its lease. An empty commit tells whether somebody has taken the run.
    await this.#host.renewLeases();
    await this.#writer.send({ release: false, mailSeen: this.#mailSeen });
  }

  #begin(effects: readonly OpenEffect[]): undefined {
    for (const effect of effects) {
      const definition = this.#definition(effect.type);
      const execution = definition ? execute(definition, effect, this.#state, this.#host) : this.#startChild(effect);
      const { outcome } = execution;
      if (!isPromise(outcome)) {
        this.#outcomes.push({ id: effect.id, outcome });
        continue;
      }
      this.#executions.set(effect.id, execution);
      void outcome.then((settled) => {
        // A later attempt of the same effect, or none, may stand here by now.
        if (this.#executions.get(effect.id) !== execution) return;
        this.#executions.delete(effect.id);
        this.#outcomes.push({ id: effect.id, outcome: settled });
        this.#wake?.();
      });
    }
    if (this.#executions.size > 0) this.#sendAhead();
    return undefined;
  }

  #definition(type: string): EffectDefinition | undefined {
    return this.#workflow && this.#host.effect(type, this.#workflow);
  }

  /** What a request needs and this process does not have, members included: a handler, or the workflow of a child. */
  #missing(type: string, payload: unknown, workflow: Workflow): Blocked | undefined {
    if (type === "all" || type === "any") {
      const members = (payload as { effects?: unknown } | undefined)?.effects;
      if (!Array.isArray(members)) return undefined;
      for (const member of members) {
        const missing = typeof member?.type === "string" ? this.#missing(member.type, member.payload, workflow) : undefined;
        if (missing) return missing;
      }
      return undefined;
    }
    if (type === "start_subworkflow") {
      const childWorkflowId = childWorkflowOf(payload);
      return childWorkflowId === undefined || this.#host.workflow(childWorkflowId)
        ? undefined
        : this.#unknownWorkflow(childWorkflowId);
    }
    return isBuiltIn(type) || this.#host.effect(type, workflow) ? undefined : this.#unknownEffect(type);
  }

  /** A backoff is over and the code for the next attempt is not here: the run is blocked before the attempt is recorded. */
  #unknownRetry(): Blocked | undefined {
    const now = this.#host.now();
    for (const id in this.#state.open) {
      const { phase, retryAt, type } = this.#state.open[id] as OpenEffect;
      if (phase === "backing_off" && (retryAt as number) <= now && !isBuiltIn(type) && !this.#definition(type))
        return this.#unknownEffect(type);
    }
    return undefined;
  }

  /** Records the next outcome that came in. Answers whether there was one. */
  #takeOutcome(): boolean {
    const next = this.#outcomes.shift();
    if (!next) return false;
    const effect = this.#state.open[next.id];
    // Closed meanwhile, by a faster member of an `any` or by the end of the run.
    if (effect?.phase !== "executing") {
      this.#children.delete(next.id);
      return true;
    }
    const definition = this.#definition(effect.type);
    if (definition?.speculative === false) this.#owing = true;
    const rules = { policy: definition?.policy ?? defaultPolicy, onUncertain: definition?.onUncertain ?? ("retry" as const) };
    const record = (outcome: Outcome, as?: { isSmall: true }): void =>
      this.#append(outcomeDrafts(this.#state, effect, outcome, rules, this.#host.now(), this.#host.ids.random()), as);
    const child = this.#children.get(next.id);
    this.#children.delete(next.id);
    try {
      record(next.outcome);
      if (child) this.#writer.start(child);
    } catch (error) {
      // What it gave cannot be recorded: too large, or a wait that makes no sense.
      record({ kind: "failed", error: errorData(error), retryable: false }, { isSmall: true });
    }
    return true;
  }

  /** Aborts what executes for an effect that is no longer open. */
  #dropClosed(): void {
    for (const [id, execution] of this.#executions) {
      if (Object.hasOwn(this.#state.open, id)) continue;
      this.#executions.delete(id);
      execution.abort(new Error("The effect was given up: the run went on without it."), 0);
    }
  }

  #abortExecutions(reason: unknown, graceMs: number): void {
    for (const execution of this.#executions.values()) execution.abort(reason, graceMs);
  }

  #startChild(effect: OpenEffect): Execution {
    let settle: (outcome: Outcome) => void = () => undefined;
    const cutOff = new Promise<Outcome>((resolve) => {
      settle = resolve;
    });
    const abort = (reason: unknown): void => settle({ kind: "failed", error: errorData(reason), retryable: false });
    // The child's schema may be asynchronous, and may never answer.
    const late = (): void =>
      abort(new AbstractRuntimeError("EFFECT_TIMEOUT", { effectType: effect.type, timeoutMs: childTimeoutMs }));
    const timer = this.#host.clock.setTimer(late, childTimeoutMs, true);
    const begun = beginChild(effect, this.#state, this.#host).then(({ outcome, child }) => {
      if (child) this.#children.set(effect.id, child);
      return outcome;
    });
    return { outcome: Promise.race([begun, cutOff]).finally(() => timer.cancel()), abort };
  }

  // ---- Waiting in process ------------------------------------------------------------------------------------------

  /** The next moment that is worth waiting for here rather than parking. */
  #soon(): number | undefined {
    if (this.#stopping || this.#state.paused || this.#state.cancelling) return undefined;
    const now = this.#host.now();
    let soon: number | undefined;
    for (const id in this.#state.open) {
      const { phase, retryAt } = this.#state.open[id] as OpenEffect;
      if (
        phase === "backing_off" &&
        (retryAt as number) - now < inProcessMs &&
        (soon === undefined || (retryAt as number) < soon)
      )
        soon = retryAt;
    }
    return soon;
  }

  /** Waits for an outcome, a message, or the next moment. What is appended goes out first (D3). */
  async #pause(): Promise<void> {
    this.#sendAhead();
    const now = this.#host.now();
    let next: number | undefined;
    if (!this.#stopping && !this.#state.paused && !this.#state.cancelling) {
      for (const id in this.#state.open) {
        const { phase, retryAt, wait } = this.#state.open[id] as OpenEffect;
        const at = phase === "backing_off" ? retryAt : wait?.until;
        if (at !== undefined && (next === undefined || at < next)) next = at;
      }
    }
    const isExecuting = this.#executions.size > 0;
    // What another process delivers is heard of by looking: nothing else would wake this driver before the effect settles.
    if (isExecuting) next = Math.min(next ?? Number.POSITIVE_INFINITY, now + mailPollMs);
    if (this.#outcomes.length > 0 || this.#mailHint || this.#writer.broken) return;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        timer?.cancel();
        this.#wake = undefined;
        resolve();
      };
      const passed = (): void => {
        this.#mailHint = isExecuting;
        wake();
      };
      // A backoff holds the process; an effect that executes does so itself, or does not want to.
      const timer = next === undefined ? undefined : this.#host.clock.setTimer(passed, next - now, !isExecuting);
      this.#wake = wake;
    });
  }

  #unknownEffect(effectType: string): Blocked {
    const known = this.#workflow ? [...this.#workflow.effects.keys()] : [];
    const suggestion = nearest(effectType, [...known, ...builtInEffects]);
    return this.#blocked(
      new AbstractRuntimeError("EFFECT_UNKNOWN", { effectType, runId: this.runId, ...(suggestion ? { suggestion } : {}) }),
    );
  }

  #unknownWorkflow(workflowId: string): Blocked {
    const known = this.#host.workflowIds?.() ?? [];
    const suggestion = nearest(workflowId, known);
    return this.#blocked(
      new AbstractRuntimeError("WORKFLOW_UNKNOWN", { workflowId, known, ...(suggestion ? { suggestion } : {}) }),
    );
  }

  #blocked(error: AbstractRuntimeError): Blocked {
    return {
      code: error.code,
      problem: error.problem,
      fingerprint: this.#host.fingerprint,
      quarantine: false,
    };
  }
}

function hasOpen(state: RunState): boolean {
  for (const _ in state.open) return true;
  return false;
}

function isBuiltIn(type: string): boolean {
  return (builtInEffects as readonly string[]).includes(type);
}
