/**
 * What a ledger says of a run, in the form in which a replay asks: which nodes ran, what each effect came to, and when, and what was
 * commanded.
 */
import { fold } from "../../kernel/fold.ts";
import type { Json, JsonObject } from "../../kernel/json.ts";
import type { LedgerRecord } from "../../kernel/record.ts";
import { isEnded, isWindingUp, type OpenEffect, payloadOf, type RunState } from "../../kernel/run.ts";

/** A node's execution. */
export interface RecordedStep {
  node: string;
  step: number;
  /** What its plan gave: one record, or of a group one for each member, too. */
  records: [LedgerRecord, ...LedgerRecord[]];
  /** When the record before was written: the node ran between the two. */
  since: number;
  /** The vars before it ran, and after what it changed. */
  before: JsonObject;
  after: JsonObject;
}

export interface RecordedEffect {
  id: string;
  type: string;
  node: string;
  step: number;
  payload: Json;
  /** What happened to it after it was requested, in order: attempts, failures, waits, answers, its end. */
  events: LedgerRecord[];
  /** What it gave or failed with, when it has ended. */
  end?: { seq: number; result: Json } | { seq: number; error: Json };
  /** Whether it is open, without an end, at the end of what is recorded. */
  isOpen: boolean;
}

/** What somebody told the run; `behind` is the last record before that a replay plays. */
export interface RecordedCommand {
  record: LedgerRecord;
  behind: number;
}

export class Recording {
  readonly steps: RecordedStep[] = [];
  /** In the order in which they were requested. */
  readonly effects: RecordedEffect[] = [];
  /** Cancels and retries; and the end of a run whose vars had grown too large, which no node decided. */
  readonly commands: RecordedCommand[] = [];
  /** The run at the end of what is recorded. */
  readonly state: RunState;
  readonly #open = new Map<string, RecordedEffect>();
  /** Seq of the last step, event or command. */
  last: number;
  /** How often the run was taken on by itself, and not by any of these: towards its end, when it was cancelled or undone. */
  taken = 0;

  /** @param state Is used up. */
  constructor(state: RunState, records: Iterable<LedgerRecord>) {
    this.last = state.seq;
    // What is open at the beginning has events to come, too.
    for (const effect of state.open.values()) this.#request(effect);
    for (const record of records) {
      const isPlan = isOfNode(state, record);
      const { vars: before, node, updatedAt: since } = state;
      this.#note(record, state);
      if (isTakenOn(state, record)) this.taken += 1;
      state = fold(state, record);
      if (isPlan) {
        const patched = (record.data as { patch?: unknown }).patch !== undefined;
        const after = patched ? state.vars : before;
        this.steps.push({ node, step: record.step, records: [record], since, before, after });
        this.last = record.seq;
      }
      if ("intent" in record.data && record.data.intent) {
        this.#request(state.open.get(record.effectId as string) as OpenEffect);
        if (isPlan) continue;
        const last = this.steps.at(-1);
        if (last?.records.at(-1)?.seq === record.seq - 1 && record.data.intent.parent !== undefined) last.records.push(record);
        this.last = record.seq;
      }
    }
    this.state = state;
    for (const [id, effect] of this.#open) effect.isOpen = !isEnded(state) && state.open.has(id) && !effect.end;
  }

  /** The effect that was open under this id where the recording begins. */
  openAtStart(id: string): RecordedEffect | undefined {
    return this.effects.find((effect) => effect.id === id);
  }

  #request(effect: OpenEffect): void {
    const { id, type, node, step } = effect;
    // The state changes the effect itself, and never its payload.
    const requested = { ...effect };
    const recorded: RecordedEffect = {
      id,
      type,
      node,
      step,
      get payload() {
        return payloadOf(requested);
      },
      events: [],
      isOpen: false,
    };
    this.effects.push(recorded);
    this.#open.set(id, recorded);
  }

  #note(record: LedgerRecord, state: RunState): void {
    const isRetry = record.kind === "control" && record.data.action === "retry";
    // What failed goes on.
    if (isRetry) for (const effect of this.#open.values()) delete effect.end;
    if (isRetry || (record.kind === "control" && record.data.action === "cancel") || isTooLarge(state, record)) {
      this.commands.push({ record, behind: this.last });
      this.last = record.seq;
    }
    const effect = record.effectId === undefined ? undefined : this.#open.get(record.effectId);
    if (!effect || ("intent" in record.data && record.data.intent)) return;
    if (record.kind === "delivered" && record.data.outcome === "ignored") return;
    effect.events.push(record);
    this.last = record.seq;
    const end = endOf(record, state);
    if (end) effect.end = { seq: record.seq, ...end };
  }
}

/** Whether a node's plan gave this record, which is to follow `state`. */
function isOfNode(state: RunState, record: LedgerRecord): boolean {
  switch (record.kind) {
    case "step":
      return !record.data.cleanup;
    case "effect_started":
    case "parked": {
      const { intent } = record.data;
      return intent !== undefined && intent.parent === undefined && intent.undoes === undefined;
    }
    case "run_completed":
      return true;
    case "run_failed":
    case "run_cancelled":
    case "undoing":
      return !state.undoing && state.open.size === 0 && !isWindingUp(state) && !isTooLarge(state, record);
    default:
      return false;
  }
}

/** Whether a record only follows from the state before: a run that was cancelled or is undone goes towards its end. */
function isTakenOn(state: RunState, { kind, data }: LedgerRecord): boolean {
  if ("intent" in data && data.intent) return data.intent.undoes !== undefined && data.intent.parent === undefined;
  const ends = kind === "run_cancelled" || kind === "run_failed" || kind === "undoing";
  return (ends || kind === "step") && (isWindingUp(state) || (state.undoing !== undefined && state.open.size === 0));
}

/** The driver's own check of the vars, before a node runs. */
function isTooLarge(state: RunState, { kind, data }: LedgerRecord): boolean {
  const error = kind === "run_failed" || kind === "undoing" ? data.error : undefined;
  return state.open.size === 0 && error?.code === "TOO_LARGE" && error.message.includes(`the vars of run ${state.runId}`);
}

/** What this record gives as the end of its effect, if it is that. */
function endOf(record: LedgerRecord, state: RunState): { result: Json } | { error: Json } | undefined {
  const effect = state.open.get(record.effectId as string);
  switch (record.kind) {
    case "effect_completed": {
      if (!("collect" in record.data)) return { result: record.data.result };
      const { type, members = 0, results = [], winner } = effect as OpenEffect;
      if (type === "any") return { result: { index: winner ?? null, result: results[winner as number] ?? null } };
      return { result: Array.from({ length: members }, (_, i) => results[i] ?? null) };
    }
    case "effect_failed":
      return record.data.retryAt === undefined ? { error: plainError(record.data.error) } : undefined;
    case "delivered": {
      const { outcome, payload, result, error } = record.data;
      if (outcome === "result") return { result: result === undefined ? payload : result };
      return outcome === "failed" ? { error: plainError(error ?? { name: "Error", message: "failed" }) } : undefined;
    }
    default:
      return undefined;
  }
}

/** An error as it is compared: without its stack. */
export function plainError({ name, code, message }: { name: string; code?: string; message: string }): JsonObject {
  return { name, ...(code === undefined ? {} : { code }), message };
}
