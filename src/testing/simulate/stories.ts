/** What must be true of one ledger from its first record to its last, read without the fold: nothing of the kernel's own mind is asked. */
import type { Intent, LedgerRecord } from "../../kernel/record.ts";
import type { WaitState } from "../../kernel/run.ts";
import { closes } from "./observer.ts";
import { type InvariantName, Violation } from "./violation.ts";

/** A deadline that passed is recorded within this, whatever goes wrong and however busy the workers are; milliseconds. */
const slackMs = 3_600_000;

/**
 * @param committedAt When each record was committed: what it says itself is as wrong as the clock of its worker was.
 * @throws Violation
 */
export function checkStory(runId: string, ledger: readonly LedgerRecord[], committedAt: readonly number[]): void {
  const story = new Story(runId, committedAt);
  for (const record of ledger) story.read(record);
}

/** The message that a record takes. */
export function takes(record: LedgerRecord): string | undefined {
  return record.kind === "delivered" || record.kind === "control" ? record.data.messageId : undefined;
}

class Story {
  readonly #runId: string;
  readonly #committedAt: readonly number[];
  readonly #taken = new Set<string>();
  readonly #left = new Set<number>();
  readonly #intents = new Map<string, Intent>();
  /** Until when each wait lasts, by effect. */
  readonly #waits = new Map<string, WaitState & { until: number }>();
  /** Completed effects that are to be undone, in the order of their completion. */
  readonly #undoable: string[] = [];
  #onCancel: string | undefined;
  #paused = false;
  #wasPaused = false;
  #queued = false;
  #cancelled = false;
  #cleaning = false;
  #undoing = false;

  constructor(runId: string, committedAt: readonly number[]) {
    this.#runId = runId;
    this.#committedAt = committedAt;
  }

  read(record: LedgerRecord): void {
    this.#checkOnce(record);
    this.#checkControl(record);
    this.#checkWaits(record);
    this.#checkUndo(record);
  }

  #wrong(invariant: InvariantName, { seq, kind }: LedgerRecord, problem: string): never {
    throw new Violation(invariant, `record ${seq} (${kind}) ${problem}`, this.#runId);
  }

  /** No message is taken twice, and no step is left twice. That no effect is closed twice is seen by the observer. */
  #checkOnce(record: LedgerRecord): void {
    const messageId = takes(record);
    if (messageId !== undefined) {
      if (this.#taken.has(messageId)) this.#wrong("no-message-twice", record, `takes message ${messageId} a second time`);
      this.#taken.add(messageId);
    }
    if (!leavesStep(record)) return;
    if (this.#left.has(record.step)) this.#wrong("no-transition-twice", record, `leaves step ${record.step} a second time`);
    this.#left.add(record.step);
  }

  #checkControl(record: LedgerRecord): void {
    switch (record.kind) {
      case "run_started":
        this.#onCancel = record.data.onCancel;
        this.#queued = record.data.queue !== undefined;
        return;
      case "control": {
        const { action } = record.data;
        if (action === "cancel") {
          this.#cancelled = true;
          this.#paused = false;
        } else if (action !== "retry") {
          this.#paused = action === "pause";
          this.#wasPaused = true;
        }
        return;
      }
      case "step":
        if (record.data.cleanup) this.#cleaning = true;
        if (this.#paused) this.#wrong("control-is-obeyed", record, "goes on while the run is paused");
        return;
      case "effect_started":
        if (this.#paused) this.#wrong("control-is-obeyed", record, "begins something while the run is paused");
        return;
      case "run_completed":
      case "run_failed":
        if (this.#cancelled) this.#wrong("control-is-obeyed", record, "ends a run that was cancelled as something else");
        return;
      case "run_cancelled":
        if (!this.#cancelled) this.#wrong("control-is-obeyed", record, "ends a run as cancelled that nobody has cancelled");
        if (this.#onCancel !== undefined && !this.#cleaning && !this.#undoing)
          this.#wrong("control-is-obeyed", record, `leaves out its node for that, "${this.#onCancel}"`);
    }
  }

  #checkWaits(record: LedgerRecord): void {
    const { kind, data, effectId, at } = record;
    // A retry lets waits begin anew, for as long as at first.
    if (kind === "control" && data.action === "retry") this.#waits.clear();
    if (effectId === undefined) return;
    const waited = this.#waits.get(effectId);
    if (waited && closes(record)) {
      const { until, reason, waitKey } = waited;
      // A child may have failed with one of its own.
      const isTimeout =
        kind === "effect_failed" && data.error.code === "WAIT_TIMEOUT" && data.error.message.includes(`"${waitKey}"`);
      if ((isTimeout || reason === "until") && at < until)
        this.#wrong("deadlines-are-kept", record, `ends a wait ${until - at} ms before its moment`);
      const lateMs = (this.#committedAt[record.seq] ?? at) - until;
      if (lateMs > slackMs && !this.#wasPaused && !this.#queued)
        this.#wrong("deadlines-are-kept", record, `ends a wait ${lateMs} ms after its moment`);
      this.#waits.delete(effectId);
    }
    const wait = kind === "parked" || kind === "effect_uncertain" ? data.wait : undefined;
    if (wait?.until !== undefined) this.#waits.set(effectId, { ...wait, until: wait.until });
    else if (wait || kind === "effect_started") this.#waits.delete(effectId);
  }

  #checkUndo(record: LedgerRecord): void {
    const { kind, data, effectId } = record;
    const wrong = (problem: string): never => this.#wrong("undone-in-order", record, problem);
    if (kind === "undoing") this.#undoing = true;
    if (kind === "run_completed" && this.#undoing) wrong("completes a run whose effects are being undone");
    if ((kind === "run_failed" || kind === "run_cancelled") && this.#undoable.length > 0)
      wrong(`ends it, and completed effects are not undone: ${this.#undoable.join(", ")}`);
    if (effectId === undefined) return;
    const opened = (kind === "effect_started" || kind === "parked") && data.intent;
    if (opened) {
      this.#intents.set(effectId, opened);
      if (opened.undoes !== undefined) {
        if (!this.#undoing) wrong(`undoes effect ${opened.undoes} of a run that goes on`);
        if (this.#undoable.at(-1) !== opened.undoes)
          wrong(`undoes effect ${opened.undoes}, and next would be ${this.#undoable.at(-1) ?? "none"}`);
      }
    }
    const how = closes(record);
    if (!how) return;
    const undoes = this.#intents.get(effectId)?.undoes;
    if (undoes !== undefined) {
      if (this.#undoable.pop() !== undoes) wrong(`ends the undo of effect ${undoes}, which was not begun`);
    } else if (how === "completed" && !this.#cleaning && !this.#undoing && this.#intents.get(effectId)?.undo)
      this.#undoable.push(effectId);
  }
}

/** A step is left by its own record, or by the end of the effect that its plan requested. */
function leavesStep(record: LedgerRecord): boolean {
  if (record.kind === "step") return true;
  const how = closes(record);
  if (!how || record.effectId?.includes(".")) return false;
  return how === "completed" || ((record.data as { nextNode?: string }).nextNode ?? undefined) !== undefined;
}
