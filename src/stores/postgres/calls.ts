/** What is asked of the store, as it goes through the pipeline. */
import type { RunRow } from "../../kernel/run.ts";
import type { Blocked, Lease, NewRun, Transition } from "../../kernel/transition.ts";
import type { Message } from "../../kernel/message.ts";
import type { LaneName } from "./lanes.ts";

export type Call =
  | { kind: "create"; runs: readonly NewRun[]; workerId?: string }
  | { kind: "commit"; transitions: readonly Transition[]; problem?: string }
  | { kind: "deliver"; messages: readonly Message[]; limit?: number }
  | { kind: "release"; runId: string; lease: Lease; blocked?: Blocked; mailSeen?: number }
  | { kind: "lift"; runId: string };

/** What a run's records may be numbered up to. */
export const lastSeq = 2 ** 31 - 1;

/** The runs that a call reads or changes. */
export function runsOf(call: Call): string[] {
  const ofMessage = ({ runId, recall }: Message): string[] => (recall ? [runId, recall.runId] : [runId]);
  switch (call.kind) {
    case "create":
      return call.runs.map(({ row }) => row.runId);
    case "commit":
      return call.transitions.flatMap(({ runId, start, send }) => {
        if (start.length === 0 && send.length === 0) return [runId];
        return [runId, ...start.map(({ row }) => row.runId), ...send.flatMap(ofMessage)];
      });
    case "deliver":
      return call.messages.flatMap(ofMessage);
    default:
      return [call.runId];
  }
}

function newRunsOf(call: Call): readonly NewRun[] {
  if (call.kind === "create") return call.runs;
  return call.kind === "commit" ? call.transitions.flatMap(({ start }) => start) : [];
}

/** The lane of each run that the calls create. */
export function lanesOf(calls: readonly Call[]): LaneName[] {
  return calls.flatMap((call) =>
    newRunsOf(call).map(({ row }) => laneOf(row, call.kind === "create" && call.workerId !== undefined)),
  );
}

export function laneOf(row: RunRow, isHeld: boolean): LaneName {
  const queue = row.queue ?? null;
  return { workflowId: row.workflowId, queue, priority: row.priority, begun: queue !== null && isHeld };
}
