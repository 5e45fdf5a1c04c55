/** What a simulation is looking for. */

/** The promises that are checked. `users` is a check of one's own. */
export type InvariantName =
  /** Every run ends once the world is calm. */
  | "every-run-ends"
  /** Nobody asks the store again and again for what does not change. */
  | "no-busy-loop"
  /** Records are gapless and never change; nothing is closed or advanced twice. */
  | "no-transition-twice"
  /** No message is taken twice. */
  | "no-message-twice"
  /** What was acknowledged is taken, or still in the mailbox. */
  | "no-message-lost"
  /** Handlers are called as their effects declare. */
  | "effects-keep-their-kind"
  /** Completed effects of a run that failed or was cancelled are undone, last first; those of another one are not. */
  | "undone-in-order"
  /** A cancelled run ends as cancelled, by way of its `onCancel`; a paused one begins nothing. */
  | "control-is-obeyed"
  /** No wait ends before its moment, nor is its deadline passed over. */
  | "deadlines-are-kept"
  /** Whoever waits for a child takes its end or cancels it; nobody's child is begun twice, or too many at a time. */
  | "children-belong"
  /** No more runs of a queue are held, and no more begin, than may. */
  | "queues-keep-limits"
  /** Ledger, row and checkpoints agree. */
  | "ledger-holds"
  /** What a caller was told is true of the store. */
  | "promises-kept"
  /** No lease, slot or count is left over. */
  | "nothing-held"
  | "users";

export class Violation extends Error {
  readonly invariant: InvariantName;
  readonly runId?: string;

  constructor(invariant: InvariantName, problem: string, runId?: string) {
    super(runId === undefined ? problem : `run ${runId}: ${problem}`);
    this.invariant = invariant;
    this.runId = runId;
  }
}
