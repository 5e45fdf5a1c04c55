/** What may be moved, and what may stand where: rules of moving that the stores share. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { Moving, RunCopy, Tombstone } from "../kernel/moving.ts";
import { purgedError } from "./retention.ts";

/** One move: a token on both sides, and the name of the other store. */
export type Move = Pick<Moving, "token" | "to">;

export interface Refusal {
  runId: string;
  problem: string;
}

export type MoveUnderWay = Moving & { runIds: string[] };

/** Why a run may not be fenced with a token, as far as it stands for itself. */
export function fenceObstacle(run: { moving?: Moving | undefined } | undefined, token: string): string | undefined {
  if (!run) return "there is no such run";
  const { moving } = run;
  if (!moving || (moving.token === token && moving.phase !== "arriving")) return undefined;
  if (moving.phase === "left") return `it has moved to ${moving.to}`;
  return `another move of it is under way, ${moving.phase === "leaving" ? "to" : "here from"} ${moving.to}`;
}

/** Trees stay together. */
export const withoutParent = (parentRunId: string): string => `its parent ${parentRunId} is not moved with it`;
export const leftBehind = (parentRunId: string): string => `its parent ${parentRunId} is to be moved without it`;

/** The phases that a decision is about. */
export const phasesOf: Readonly<Record<"left" | "here" | "back", readonly Moving["phase"][]>> = {
  left: ["leaving"],
  here: ["arriving"],
  back: ["leaving", "arriving"],
};

/** Whether a copy of a run is older than what is known of it here: it would do again what was done since. */
function isOlder(copy: { seq: number; head: string }, known: { seq: number; head: string } | undefined): boolean {
  return known !== undefined && (copy.seq < known.seq || (copy.seq === known.seq && copy.head !== known.head));
}

/**
 * Whether a copy was made before the run left here, or before it was purged. Where another store has had it since, its last record may be
 * the same, so that the epoch tells, which is counted on by every fence.
 */
function isFromBefore(copy: RunCopy, left: { seq: number; head: string; epoch: number }): boolean {
  return isOlder(copy.row, left) || copy.epoch < left.epoch;
}

/** A store has numbers for so many records of a run. @throws RUN_TOO_LONG */
export function checkLength({ row: { runId, seq } }: RunCopy, limit: number): void {
  if (seq > limit) throw new AbstractRuntimeError("RUN_TOO_LONG", { runId, limit });
}

/**
 * Whether a copy may stand in the place of what is known here of its run. The copies of a move that is made again may.
 *
 * @throws RUN_EXISTS, RUN_MOVED, RUN_PURGED
 */
export function checkAdoption(
  copy: RunCopy,
  token: string,
  present: { seq: number; head: string; epoch: number; moving: Moving | undefined } | undefined,
  tombstone: Tombstone | undefined,
): void {
  const { runId } = copy.row;
  const moving = present?.moving;
  const hasLeft = moving?.phase === "left";
  if (present && !hasLeft && (moving?.token !== token || moving.phase !== "arriving")) throw existsHere(runId);
  if (present && hasLeft && isFromBefore(copy, present))
    throw new AbstractRuntimeError("RUN_MOVED", { runId, to: moving.to, phase: "left" });
  if (tombstone && isFromBefore(copy, { epoch: 0, ...tombstone })) throw purgedError(tombstone);
}

export function existsHere(runId: string): AbstractRuntimeError<"RUN_EXISTS"> {
  return new AbstractRuntimeError("RUN_EXISTS", { runId, problem: "a ledger of its own in this store" });
}

/** @param next Seq of the record that is to come. @param last That of the last one of its run. @throws CONFLICT */
export function checkFollows(runId: string, records: readonly { seq: number }[], next: number, last: number): void {
  for (const [i, { seq }] of records.entries())
    if (seq !== next + i || seq > last) throw conflict(runId, `record ${seq} does not follow record ${next + i - 1}`);
}

/** @throws CONFLICT */
export function checkArriving<Run>(
  runId: string,
  _run: Run | undefined,
  moving: Moving | undefined,
  token: string,
): asserts _run is Run {
  if (moving?.token !== token || moving.phase !== "arriving") throw conflict(runId, "it is not arriving by this move");
}

/** @throws CONFLICT when a run that is to be here has not arrived whole. */
export function checkWhole(runId: string, next: number, last: number): void {
  if (next !== last + 1) throw conflict(runId, `record ${next} has not arrived`);
}

function conflict(runId: string, problem: string): AbstractRuntimeError<"CONFLICT"> {
  return new AbstractRuntimeError("CONFLICT", { runId, problem });
}

/** Moves, of the runs that are on their way. */
export function movesOf(runs: Iterable<{ runId: string; moving: Moving | undefined }>): MoveUnderWay[] {
  const found = new Map<string, MoveUnderWay>();
  for (const { runId, moving } of runs) {
    if (!moving || moving.phase === "left") continue;
    const { token, to, phase } = moving;
    const move = found.get(token) ?? { token, to, phase, runIds: [] };
    move.runIds.push(runId);
    found.set(token, move);
  }
  return [...found.values()];
}
