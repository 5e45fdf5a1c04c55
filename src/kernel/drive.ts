/**
 * Drives one claimed run: fold, step, execute, commit, until it waits, ends or is handed back. What it has of the run, and writes of it,
 * stands in `run-at-hand.ts`.
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
import type { DriveHost } from "./drive-host.ts";
import { type AbstractRuntimeError, errorData, isError } from "./errors.ts";
import { isPromise } from "./execute.ts";
import { type Restored, restoreRun } from "./restore.ts";
import { endingOf } from "./instrument.ts";
import type { Json } from "./json.ts";
import { migration } from "./migrate.ts";
import type { RecordDraft } from "./record.ts";
import { isEnded, isWindingUp, type OpenEffect, type RunState, statusOf, type Undoable } from "./run.ts";
import { dueDrafts } from "./step.ts";
import { undoDrafts } from "./plan-drafts.ts";
import type { Blocked, Lease, Loaded } from "./transition.ts";
import { nextMoment, soonest, type Timing } from "./soon.ts";
import { undoRequest } from "./undo.ts";
import { RunAtHand, cancelGraceMs } from "./run-at-hand.ts";
import { nodeTurn } from "./node-turn.ts";
import { takeMail, findEnded } from "./take-mail.ts";
import { startExecutions, takeOutcome } from "./attempts.ts";

export interface DriveResult {
  state: RunState;
  /** `yielded`: the step budget was used up or the runtime stops; the run is ready for whoever comes. */
  end: "ended" | "parked" | "blocked" | "yielded";
  blocked?: Blocked;
}

export class Driver {
  readonly #run: RunAtHand;

  /** @param created For a run that is being created in this turn: settles when it is durable. */
  constructor(host: DriveHost, loaded: Loaded & { lease: Lease }, restored: Restored, created?: Promise<unknown>) {
    this.#run = new RunAtHand(host, loaded, restored, created);
  }

  get runId(): string {
    return this.#run.runId;
  }

  /** What another driver of this run, once it is parked, can go on from. */
  get restored(): Restored {
    return this.#run.writer.restored;
  }

  /** Effects that execute here now, and since when, for whoever asks what this process does. */
  get executing(): { effect: OpenEffect; since: number }[] {
    const run = this.#run;
    return run.executions.underWay.flatMap(({ id, since }) => {
      const effect = run.state.open.get(id);
      return effect ? [{ effect, since }] : [];
    });
  }

  /** Says that the mailbox has something new. */
  nudge(): void {
    const run = this.#run;
    run.mailHint = true;
    run.wake?.();
  }

  /** Asks the driver to hand the run back once what is executing has settled. */
  stop(): void {
    const run = this.#run;
    run.stopping = true;
    run.wake?.();
  }

  /** Gives up what is executing, unrecorded: whoever comes next finds it uncertain. */
  abort(reason: unknown): void {
    const run = this.#run;
    run.writer.break(reason);
    run.executions.abortAll(() => reason, 0);
    run.giveUpNode?.(reason);
    run.wake?.();
  }

  /**
   * Drives until the run ends, waits, is blocked, or `maxSteps` nodes have run.
   *
   * @throws CONFLICT when the run is no longer this worker's; any error of the store.
   */
  async drive(maxSteps = Number.POSITIVE_INFINITY): Promise<DriveResult> {
    const run = this.#run;
    try {
      if (!run.trace) return await this.#drive(maxSteps);
      const result = await run.trace.within(() => this.#drive(maxSteps));
      const { code, problem } = result.blocked ?? {};
      run.trace.end(endingOf(result.state, result.end, code ? { name: "Error", code, message: problem ?? "" } : undefined));
      return result;
    } catch (error) {
      run.trace?.end({ outcome: "broken", error: errorData(error) });
      throw error;
    } finally {
      run.executions.leave();
    }
  }

  async #drive(maxSteps: number): Promise<DriveResult> {
    const run = this.#run;
    let stepsLeft = maxSteps;
    try {
      for (;;) {
        if (run.writer.broken) throw run.writer.broken.error;
        if (run.writer.full) await run.flush();
        if (run.mailHint) await this.#readMail();
        const vetting = run.artifacts.vet(run.inbox.fresh());
        if (vetting) {
          run.sendAhead();
          await vetting;
        }
        run.inbox.offer((mail) => takeMail(run, mail));
        if (takeOutcome(run)) continue;
        if (isEnded(run.state)) {
          if (await this.#end()) return { state: run.state, end: "ended" };
          continue;
        }
        const tooLarge = run.state.undoing ? undefined : run.writer.varsProblem();
        if (tooLarge) {
          run.append([tooLarge], { isSmall: true });
          continue;
        }
        const windsUp = isWindingUp(run.state);
        if (windsUp) run.executions.abortAll(() => run.cancelled(), cancelGraceMs);
        // Paused or stopping, the step under way is finished and nothing new begins.
        const resting = run.state.paused || run.stopping;
        run.turns.lookAgain();
        if (windsUp || (!resting && (hasOpen(run.state) || run.state.undoing))) {
          const blocked = run.needs.unknownRetry(run.state, run.host.now());
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
            run.append(due, { isSmall: run.state.undoing !== undefined });
            continue;
          }
          const undo = run.state.open.size === 0 ? run.state.undoable?.at(-1) : undefined;
          if (run.state.undoing && undo) {
            const stuck = this.#undo(undo);
            if (stuck) return await this.#block(stuck);
            continue;
          }
        }
        const started = startExecutions(run, resting);
        const blocked = isPromise(started) ? await started : started;
        if (blocked === "recorded") continue;
        if (blocked) return await this.#block(blocked);
        if (run.executions.hasSettled || run.writer.broken) continue;
        if (hasOpen(run.state) && (await findEnded(run))) continue;
        // One may have come in meanwhile.
        if (run.executions.hasSettled) continue;
        if (run.executions.size > 0 || run.turns.queued.size > 0 || this.#soon() !== undefined) {
          await this.#pause();
          continue;
        }
        if (resting || windsUp || hasOpen(run.state)) {
          if (!run.state.paused && statusOf(run.state) === "running") return await this.#yield();
          if (await this.#park()) return { state: run.state, end: "parked" };
          continue;
        }
        if (this.#outdated()) {
          const misfit = await this.#prepare();
          if (misfit) return await this.#block(misfit);
        }
        if (stepsLeft <= 0) return await this.#yield();
        stepsLeft -= 1;
        const ran = nodeTurn(run);
        const stuck = isPromise(ran) ? await ran : ran;
        if (stuck) return await this.#block(stuck);
      }
    } catch (error) {
      run.writer.break(error);
      run.executions.abortAll(() => error, 0);
      // What was sent behind a commit that failed fails too, and may be heard of first.
      const first = run.writer.broken?.error;
      if (isError(first, "ARTIFACT_MISSING")) return this.#unkept(first);
      throw error;
    }
  }

  /**
   * A commit was refused because an artifact was forgotten since it was looked at. Driven again at once, the run would most likely come
   * to the same end, again and again: so it stays as it was before the commit, until somebody has put the artifact again.
   */
  async #unkept({ code, problem }: AbstractRuntimeError): Promise<DriveResult> {
    const run = this.#run;
    const { store, fingerprint } = run.host;
    const blocked = { code, problem, fingerprint, quarantine: false };
    await store.release(run.runId, run.lease, { blocked, mailSeen: run.inbox.seen });
    const loaded = await store.load(run.runId);
    const state = loaded ? (await restoreRun(store, loaded)).state : run.state;
    return { state, end: "blocked", blocked };
  }

  #due(): RecordDraft[] {
    const run = this.#run;
    run.slotFreed = false;
    const mayJoin = (group: OpenEffect): boolean => run.mayJoin(group);
    const hasTurn = (type: string, id: string, payload: () => Json): boolean => run.turns.has(run.state, type, id, payload);
    return dueDrafts(run.state, run.host.now(), mayJoin, hasTurn, this.#onCancel());
  }

  // ---- Ways to leave -------------------------------------------------------------------------------------------------

  /** Whether the end is durable and nothing came that lets the run go on: a retry, of one that failed. */
  async #end(): Promise<boolean> {
    const run = this.#run;
    run.executions.abortAll(() => run.cancelled(), 0);
    return this.#park();
  }

  /** Whether the run could be parked. Mail that came meanwhile keeps it here (S5). */
  async #park(): Promise<boolean> {
    const run = this.#run;
    const mail = await run.writer.send({ release: true, mailSeen: run.inbox.seen });
    run.inbox.add(mail);
    return mail.length === 0;
  }

  async #yield(): Promise<DriveResult> {
    const run = this.#run;
    await run.flush();
    await run.host.store.release(run.runId, run.lease, {});
    return { state: run.state, end: "yielded" };
  }

  async #block(blocked: Blocked): Promise<DriveResult> {
    const run = this.#run;
    // A member that still executes is given up: another worker may begin it again as soon as the lease is handed back.
    run.executions.abortAll(() => new Error("The run was blocked: another of its effects has no handler here."), 0);
    await run.flush();
    await run.host.store.release(run.runId, run.lease, { blocked, mailSeen: run.inbox.seen });
    return { state: run.state, end: "blocked", blocked };
  }

  async #readMail(): Promise<void> {
    const run = this.#run;
    run.sendAhead();
    await run.lookForMail();
  }

  // ---- Versions, cancel and undo -------------------------------------------------------------------------------------

  #outdated(): boolean {
    const run = this.#run;
    return run.needs.workflow !== undefined && String(run.needs.workflow.version) !== run.state.version;
  }

  /**
   * Whether what is due is a node, to which only the workflow's code of the run's version leads, or an attempt, which takes its code of
   * any version. What is open is of the old version until it has ended, and so are the results that it writes.
   */
  #needsCode([first]: readonly RecordDraft[]): boolean {
    const run = this.#run;
    if (first?.kind === "effect_started") return !run.needs.workflow;
    return first?.kind === "step" && (this.#outdated() || !run.needs.workflow);
  }

  /** Brings the run to this version of its workflow, or says why it has to wait for another one. */
  async #prepare(): Promise<Blocked | undefined> {
    const run = this.#run;
    const workflow = run.needs.workflow;
    if (!workflow) return run.needs.unknownWorkflow();
    if (!this.#outdated()) return undefined;
    run.sendAhead();
    const migrated = await migration(run.state, workflow, run.host.limits.jsonDepth);
    if (!("kind" in migrated)) return run.needs.misfit(migrated);
    try {
      run.append([migrated]);
      return undefined;
    } catch (error) {
      return run.needs.misfit({ problem: `what its migration changes cannot be recorded: ${errorData(error).message}` });
    }
  }

  #onCancel(): string | undefined {
    const run = this.#run;
    // Without its code, it is only known that there is such a node: the run then waits for the code.
    return run.needs.workflow ? run.needs.workflow.onCancel : run.state.onCancel;
  }

  #undo(entry: Undoable): Blocked | undefined {
    const run = this.#run;
    const { workflow } = run.needs;
    if (!workflow) return run.needs.unknownWorkflow();
    const { blocked, request } = undoRequest(entry, run.needs);
    if (blocked) return blocked;
    const { vars } = run.state;
    const context = { ...run.place(workflow), node: entry.node, places: new Map(), vars };
    try {
      run.append(undoDrafts(entry, request, context));
    } catch (error) {
      // It cannot be recorded: too large.
      run.append(undoDrafts(entry, { error: errorData(error) }, context), { isSmall: true });
    }
    return undefined;
  }

  // ---- Waiting in process --------------------------------------------------------------------------------------------

  /** The next moment that is worth waiting for here rather than parking. */
  #soon(): number | undefined {
    const run = this.#run;
    if (run.stopping || run.state.paused || isWindingUp(run.state)) return undefined;
    return soonest(run.state, this.#timing);
  }

  get #timing(): Timing {
    const run = this.#run;
    const lingersUntil = run.lastMemberAt + (run.host.lingerMs ?? 0);
    return { now: run.host.now(), lingersUntil, lackSlots: run.turns.queued };
  }

  /** Waits for an outcome, a message, or the next moment. What is appended goes out first (D3). */
  async #pause(): Promise<void> {
    const run = this.#run;
    run.sendAhead();
    const now = run.host.now();
    const isResting = run.stopping || run.state.paused || isWindingUp(run.state);
    const next = isResting ? undefined : nextMoment(run.state, this.#timing);
    if (run.executions.hasSettled || run.mailHint || run.slotFreed || run.writer.broken) {
      run.slotFreed = false;
      return;
    }
    const isExecuting = run.executions.size > 0;
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        timer?.cancel();
        run.wake = undefined;
        resolve();
      };
      // A backoff holds the process; an effect that executes does so itself, or does not want to.
      const timer = next === undefined ? undefined : run.host.clock.setTimer(wake, next - now, !isExecuting);
      run.wake = wake;
    });
  }
}

function hasOpen(state: RunState): boolean {
  return state.open.size > 0;
}
