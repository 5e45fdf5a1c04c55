/** What may be moved, and what may stand where: rules of moving that the stores share. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { Moving, RunCopy } from "../kernel/moving.ts";

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
export function isOlder(copy: { seq: number; head: string }, known: { seq: number; head: string } | undefined): boolean {
  return known !== undefined && (copy.seq < known.seq || (copy.seq === known.seq && copy.head !== known.head));
}

/**
 * Whether a copy was made before the run left here: another store has it since. Its last record may be the same, so that the epoch tells,
 * which is counted on by every fence.
 */
export function isFromBefore(copy: RunCopy, left: { seq: number; head: string; epoch: number }): boolean {
  return isOlder(copy.row, left) || copy.epoch < left.epoch;
}

/** A store has numbers for so many records of a run. @throws RUN_TOO_LONG */
export function checkLength({ row: { runId, seq } }: RunCopy, limit: number): void {
  if (seq > limit) throw new AbstractRuntimeError("RUN_TOO_LONG", { runId, limit });
}
