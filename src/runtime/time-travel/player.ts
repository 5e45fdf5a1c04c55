/**
 * Plays a recording to a run's nodes. See P1 to P3 in `replay.ts`.
 *
 * Of what is open, that goes on first whose next event was first in the recording; nodes run as soon as nothing is open.
 */
import type { DriveHost } from "../../kernel/drive-host.ts";
import type { AnyEffect, EffectDefinition } from "../../kernel/effect.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { execute } from "../../kernel/execute.ts";
import { fold } from "../../kernel/fold.ts";
import { cloneJson, equalJson, type Json } from "../../kernel/json.ts";
import { migration } from "../../kernel/migrate.ts";
import { defaultPolicy } from "../../kernel/policy.ts";
import { encodeRecord, type LedgerRecord, type RecordDraft } from "../../kernel/record.ts";
import { isEnded, isJoined, isWindingUp, type OpenEffect, payloadOf, type RunState } from "../../kernel/run.ts";
import { dueDrafts, ending, isDecided, joinDrafts, type Outcome, passed } from "../../kernel/step.ts";
import { undoDrafts } from "../../kernel/plan-drafts.ts";
import type { Workflow } from "../../kernel/workflow.ts";
import { plainError, type RecordedCommand, type RecordedEffect, type RecordedStep, type Recording } from "./recording.ts";
import type { ReplayEffects, ReplayEnd, ReplayHandler } from "./replay.ts";
import {
  type Came,
  endOf,
  isExactly,
  isSameChange,
  type Made,
  patchOf,
  planOf,
  type ReplayDifference,
  pathDifferences,
} from "./replay-difference.ts";
import { makeStep, offloadedResult, placeOf, type Stand } from "./replay-step.ts";
import { isOver, playedDrafts, failedDrafts, outcomeOf } from "./playback.ts";
import { undoOf } from "../../kernel/undo.ts";

/** Nodes that run in one turn of the event loop. */
const stepsPerTurn = 1_000;

/** An effect of the replay: what it is played back from. */
interface Played {
  recorded?: RecordedEffect;
  /** Events that were played. */
  done: number;
  /** Its own handler was called. */
  called?: true;
}

/** What may happen next: at which place of the recording, and how. */
interface Move {
  seq: number;
  make(): void | Promise<void>;
}

export class Player {
  #state: RunState;
  readonly #recording: Recording;
  readonly #workflow: Workflow;
  readonly #effects: ReadonlyMap<string, ReplayEffects[string]>;
  readonly #maxSteps: number;
  readonly #host: DriveHost;
  readonly #differences: ReplayDifference[] = [];
  #now: number;
  /** Effects of the replay, by id: its open ones. */
  readonly #played = new Map<string, Played>();
  /** What is left to be played, by node, and by node and type. */
  readonly #stepsLeft: Map<string, RecordedStep[]>;
  readonly #effectsLeft: Map<string, RecordedEffect[]>;
  readonly #commands: RecordedCommand[];
  readonly #path: string[] = [];
  readonly #steps: number[] = [];
  #stepsPlayed = 0;
  #taken = 0;
  /** Seq of the last record that was played. */
  #at: number;

  constructor(
    state: RunState,
    recording: Recording,
    workflow: Workflow,
    { effects, maxSteps }: { effects: ReplayEffects; maxSteps: number },
    host: DriveHost,
  ) {
    this.#maxSteps = maxSteps;
    this.#state = state;
    this.#recording = recording;
    this.#workflow = workflow;
    this.#effects = new Map(Object.entries(effects));
    this.#now = state.updatedAt;
    this.#at = state.seq;
    // What a handler streams is no part of the run: nobody is shown it.
    const { streams: _, ...unwatched } = host;
    // Nodes are told the time of then; nothing here asks for the time of now.
    this.#host = { ...unwatched, now: () => this.#now, holdsLeases: () => true, fingerprint: "" };
    this.#commands = [...recording.commands];
    this.#stepsLeft = Map.groupBy(recording.steps, ({ node }) => node);
    const openAtStart = new Set<RecordedEffect>();
    for (const id of state.open.keys()) {
      const recorded = recording.openAtStart(id) as RecordedEffect;
      openAtStart.add(recorded);
      this.#played.set(id, { recorded, done: 0 });
    }
    const later = recording.effects.filter((effect) => !openAtStart.has(effect));
    this.#effectsLeft = Map.groupBy(later, ({ node, type }) => keyOf(node, type));
  }

  async play(): Promise<{ end: ReplayEnd; state: RunState; steps: number; differences: ReplayDifference[] }> {
    await this.#migrate();
    const end = await this.#play();
    this.#compareWhole(end);
    return { end, state: this.#state, steps: this.#path.length, differences: this.#differences };
  }

  async #play(): Promise<ReplayEnd> {
    for (;;) {
      const state = this.#state;
      if (isEnded(state)) {
        if (!this.#retry()) return "ended";
      } else if (isWindingUp(state)) {
        if (!(await this.#windUp())) return "recorded";
      } else if (state.undoing && state.open.size === 0) {
        if (!this.#takesOn()) return "recorded";
        this.#undo();
      } else if (state.open.size > 0) {
        const stopped = await this.#move();
        if (stopped) return stopped;
      } else if (!this.#command(this.#stepsLeft.get(state.node)?.[0]?.records[0].seq ?? 0)) {
        if (this.#isAtEnd()) return "recorded";
        if (this.#path.length >= this.#maxSteps) return "maxSteps";
        await this.#step();
      }
    }
  }

  /** The replay stands where the recorded run does, which has not ended. */
  #isAtEnd(): boolean {
    const { state, steps } = this.#recording;
    return !isEnded(state) && state.open.size === 0 && this.#stepsPlayed === steps.length && state.node === this.#state.node;
  }

  // ---- Records -----------------------------------------------------------------------------------------------------

  #append(drafts: readonly RecordDraft[], node?: string): void {
    const state = this.#state;
    const { runId, step } = state;
    const placed = drafts.map((draft) => {
      const { effectId } = draft;
      const given = node ?? (effectId === undefined ? undefined : state.open.get(effectId)?.node) ?? state.node;
      return { draft: ending(state, draft), node: given };
    });
    for (const { draft, node } of placed) {
      const place = {
        runId,
        seq: this.#state.seq + 1,
        prev: this.#state.head,
        at: this.#now,
        step,
        node,
      };
      const { record } = encodeRecord(draft, place, this.#host.ids.salt());
      this.#state = fold(this.#state, record);
      if ("intent" in draft.data && draft.data.intent)
        this.#requested(this.#state.open.get(draft.effectId as string) as OpenEffect);
    }
    if (this.#played.size === this.#state.open.size) return;
    for (const [id, { recorded, done }] of this.#played) {
      if (this.#state.open.has(id)) continue;
      this.#played.delete(id);
      // An undo that could not be requested failed at once, then as now.
      if (done === 0 && recorded?.end && drafts.at(-1)?.effectId === id) this.#at = recorded.end.seq;
    }
  }

  /** Finds what is recorded of an effect (P2). */
  #requested(effect: OpenEffect): void {
    const recorded = this.#effectsLeft.get(keyOf(effect.node, effect.type))?.shift();
    this.#played.set(effect.id, { ...(recorded ? { recorded } : {}), done: 0 });
    if (!recorded || effect.type === "all" || effect.type === "any") return;
    const { step, node, type: effectType } = effect;
    const replayed = payloadOf(effect);
    if (equalJson(recorded.payload, replayed)) return;
    this.#differ({ kind: "payload", step, node, effectType, recorded: recorded.payload, replayed });
  }

  #differ(difference: ReplayDifference): void {
    this.#differences.push(cloneJson(difference as never));
  }

  /** A run of another version goes on under this one from the start. */
  async #migrate(): Promise<void> {
    const { runId, workflowId, version } = this.#state;
    if (version === String(this.#workflow.version)) return;
    const migrated = await migration(this.#state, this.#workflow, this.#host.limits.jsonDepth);
    if (!("kind" in migrated)) throw new AbstractRuntimeError("WORKFLOW_INCOMPATIBLE", { runId, workflowId, ...migrated });
    this.#append([migrated]);
  }

  // ---- Nodes -------------------------------------------------------------------------------------------------------

  async #step(): Promise<void> {
    const { node: name, step } = this.#state;
    const recorded = this.#stepsLeft.get(name)?.shift();
    const at = recorded?.records[0].at ?? this.#now;
    let made = await this.#make(at, recorded);
    // A node was told the time when it began: perhaps a millisecond before its record was written.
    if (recorded && at > recorded.since && !isExactly(recorded, made, this.#state.vars)) {
      const earlier = await this.#make(at - 1, recorded);
      if (isExactly(recorded, earlier, this.#state.vars)) made = earlier;
      this.#now = at;
    }
    this.#path.push(name);
    this.#steps.push(step);
    if (recorded) {
      this.#stepsPlayed += 1;
      this.#at = (recorded.records.at(-1) as LedgerRecord).seq;
      this.#compare(recorded, made, name, step);
    }
    this.#append(made.drafts, made.node);
    // A workflow that goes round without an effect must not keep the process from everything else.
    if (this.#path.length % stepsPerTurn === 0) await new Promise((resolve) => setImmediate(resolve));
  }

  #make(now: number, recorded?: RecordedStep): Promise<Made> {
    this.#now = now;
    return makeStep(this.#stand, recorded);
  }

  get #stand(): Stand {
    return { state: this.#state, workflow: this.#workflow, host: this.#host, now: this.#now };
  }

  #compare(recorded: RecordedStep, made: Made, node: string, step: number): void {
    const [was, is] = [recorded.records[0], made.drafts[0] as RecordDraft];
    if (!equalJson(planOf(was), planOf(is)))
      this.#differ({ kind: "plan", step, node, recorded: planOf(was), replayed: planOf(is) });
    if (!isSameChange(recorded, made, this.#state.vars))
      this.#differ({ kind: "vars", step, node, recorded: patchOf(was), replayed: patchOf(is) });
  }

  // ---- What the world did (P1) -------------------------------------------------------------------------------------

  /** Lets the next thing happen to what is open, or says why nothing can. */
  async #move(): Promise<ReplayEnd | undefined> {
    const move = this.#next(() => true);
    if (this.#command(move?.seq ?? Number.POSITIVE_INFINITY)) return undefined;
    if (move) {
      await move.make();
      return undefined;
    }
    const stuck = [...this.#state.open.values()].filter((effect) => this.#isStuck(effect));
    for (const effect of stuck) {
      const { step, node, type: effectType } = effect;
      this.#differ({ kind: "unrecorded", step, node, effectType, payload: payloadOf(effect) });
    }
    return stuck.length > 0 ? "unrecorded" : "recorded";
  }

  /** Whether nothing that could happen to an effect is recorded, though the recorded run went on, or never had it. */
  #isStuck({ id, type, phase }: OpenEffect): boolean {
    if (phase === "failed" || type === "all" || type === "any") return false;
    const recorded = this.#played.get(id)?.recorded;
    return !recorded?.isOpen;
  }

  #next(which: (effect: OpenEffect) => boolean): Move | undefined {
    let first: Move | undefined;
    for (const effect of this.#state.open.values()) {
      if (effect.phase === "failed" || !which(effect)) continue;
      const move = this.#moveOf(effect);
      if (move && (!first || move.seq < first.seq)) first = move;
    }
    return first;
  }

  #moveOf(effect: OpenEffect): Move | undefined {
    const played = this.#played.get(effect.id) as Played;
    const { recorded } = played;
    const join = (): void => this.#append(joinDrafts(this.#state, effect));
    const joins = isJoined(effect) && !isDecided(this.#state, effect);
    const isGroup = effect.type === "all" || effect.type === "any";
    if (isGroup && !joins) return undefined;
    const mode = this.#effects.get(effect.type) ?? "recorded";
    if (mode !== "recorded" && !played.called && effect.phase !== "backing_off") {
      const last = recorded?.end?.seq ?? Number.POSITIVE_INFINITY;
      return { seq: last, make: () => this.#call(effect, played, mode) };
    }
    const events = recorded?.events ?? [];
    while (played.done < events.length && isOver(effect, events[played.done] as LedgerRecord)) played.done += 1;
    const event = events[played.done];
    if (event) {
      // Members are gathered first.
      const isJoin = event.kind === "effect_completed" && "collect" in event.data;
      return isJoin && !joins ? undefined : { seq: event.seq, make: () => this.#playBack(effect, played, event) };
    }
    // The recorded run has come no further with it.
    if (recorded?.isOpen) return undefined;
    // One that is recorded waited then for a member to settle, until it was given up with the whole.
    if (joins) return { seq: recorded ? Number.POSITIVE_INFINITY : -1, make: join };
    const { wait } = effect;
    if (wait?.reason !== "until") return undefined;
    // Time is the replay's own to pass.
    const pass = (): void => {
      this.#now = Math.max(this.#now, wait.until as number);
      this.#append(passed(effect, wait));
    };
    return { seq: Number.POSITIVE_INFINITY, make: pass };
  }

  #playBack(effect: OpenEffect, played: Played, event: LedgerRecord): void {
    played.done += 1;
    this.#at = event.seq;
    this.#now = event.at;
    this.#append(playedDrafts(this.#stand, effect, event));
  }

  /** Calls a handler instead of playing back. It has one attempt. */
  async #call(effect: OpenEffect, played: Played, mode: "live" | ReplayHandler | AnyEffect): Promise<void> {
    played.called = true;
    const { recorded } = played;
    const defined = this.#host.effect(effect.type, this.#workflow);
    const given = mode === "live" ? defined : (definitionIn(mode) ?? handlerOf(effect.type, mode as ReplayHandler));
    // What it spends here is not the run's to count.
    const { budgets: _, ...state } = this.#state;
    const made = await execute(given as EffectDefinition, effect, state, this.#host).outcome;
    const outcome: Outcome =
      made.kind === "completed"
        ? { ...made, result: offloadedResult(made.result, defined?.keepsShape, this.#host.limits.offloadBytes) }
        : made;
    if (recorded?.end) this.#at = Math.max(this.#at, recorded.end.seq);
    if (outcome.kind === "waiting") {
      // What was awaited then is awaited now: the answer is played back.
      played.done = (recorded?.events.findLastIndex(({ kind }) => kind === "parked") ?? -1) + 1;
      return this.#append(outcomeOf(this.#stand, effect, outcome));
    }
    const error =
      "error" in outcome && outcome.error ? outcome.error : { name: "Error", message: "it is not known what happened" };
    const came: Came = outcome.kind === "completed" ? { result: outcome.result } : { error: plainError(error) };
    const was = recorded?.end && ("result" in recorded.end ? { result: recorded.end.result } : { error: recorded.end.error });
    if (!equalJson(was as Json | undefined, came as Json)) {
      const { step, node, type: effectType } = effect;
      this.#differ({ kind: "result", step, node, effectType, ...(was ? { recorded: was } : {}), replayed: came });
    }
    const drafts: RecordDraft[] =
      outcome.kind === "completed"
        ? [{ kind: "effect_completed", effectId: effect.id, data: { result: outcome.result } }]
        : failedDrafts(this.#stand, effect, error);
    this.#append(drafts);
  }

  /** Plays the next command when it stands before a record, or right behind what was played. Answers whether there was one. */
  #command(before: number): boolean {
    const [command] = this.#commands;
    if (!command) return false;
    const { record, behind } = command;
    const isNext = behind === this.#at;
    if (record.seq >= before && !isNext) return false;
    this.#commands.shift();
    // A retry is for a run that has failed; and whether the vars had grown too large is true of those of then.
    const isOver = record.kind === "control" ? record.data.action === "retry" : !isNext;
    if (!isOver) this.#obey(record);
    return true;
  }

  /** Whether the run, which has failed, was tried again then. */
  #retry(): boolean {
    const [command] = this.#commands;
    if (this.#state.status !== "failed" || this.#state.undoing || command?.behind !== this.#at) return false;
    if (command.record.kind !== "control" || command.record.data.action !== "retry") return false;
    this.#commands.shift();
    this.#obey(command.record);
    return true;
  }

  #obey({ kind, data, seq, at }: LedgerRecord): void {
    this.#at = seq;
    this.#now = at;
    this.#append([{ kind, data } as RecordDraft]);
  }

  /** Whether the run goes on by itself: not where the recorded one has come no further. */
  #takesOn(): boolean {
    const { state, last, taken } = this.#recording;
    if (!isEnded(state) && this.#at === last && this.#taken === taken) return false;
    this.#taken += 1;
    return true;
  }

  /** The run is being cancelled: what executes settles, then it ends or goes to its `onCancel`. Answers whether it could go on. */
  async #windUp(): Promise<boolean> {
    const executes = ({ phase }: OpenEffect): boolean => phase === "executing";
    const move = this.#next(executes);
    if (move) await move.make();
    if (move) return true;
    const open = [...this.#state.open.values()].find(executes);
    if (open && this.#played.get(open.id)?.recorded?.isOpen) return false;
    const error = { name: "Error", message: "the run was cancelled" };
    if (open) this.#append(failedDrafts(this.#stand, open, error));
    else if (this.#takesOn()) this.#append(dueDrafts(this.#state, this.#now, undefined, undefined, this.#workflow.onCancel));
    else return false;
    return true;
  }

  #undo(): void {
    const entry = this.#state.undoable?.at(-1);
    if (!entry) return this.#append(dueDrafts(this.#state, this.#now));
    const request = undoOf(entry, this.#host.effect(entry.type, this.#workflow));
    const { vars, step } = this.#state;
    this.#append(undoDrafts(entry, request, { ...placeOf(this.#stand, entry.node, step), places: new Map(), vars }));
  }

  // ---- The whole ---------------------------------------------------------------------------------------------------

  #compareWhole(end: ReplayEnd): void {
    for (const difference of pathDifferences(this.#recording, this.#path, this.#steps, end)) this.#differ(difference);
    if (end !== "unrecorded" && end !== "maxSteps") {
      const left = new Set([...this.#effectsLeft.values()].flat());
      for (const effect of this.#recording.effects) {
        const { type: effectType, node, step } = effect;
        if (effect.end && effectType !== "all" && effectType !== "any" && left.has(effect))
          this.#differ({ kind: "unused", step, node, effectType });
      }
    }
    const [recorded, replayed] = [endOf(this.#recording.state), endOf(this.#state)];
    if (end === "ended" && !equalJson(recorded, replayed)) this.#differ({ kind: "output", recorded, replayed });
  }
}

/** Of another effect that is to be called. */
export function definitionIn(mode: ReplayEffects[string]): EffectDefinition | undefined {
  return typeof mode === "function" ? (mode as Partial<AnyEffect>).definition : undefined;
}

function handlerOf(type: string, run: ReplayHandler): EffectDefinition {
  return {
    type,
    policy: defaultPolicy,
    onUncertain: "fail",
    speculative: true,
    transactional: false,
    run: (payload, context) => run(payload as Json, context),
  };
}

function keyOf(node: string, type: string): string {
  return JSON.stringify([node, type]);
}
