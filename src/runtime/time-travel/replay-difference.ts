/** What a replay tells: how what came out now is compared with what is recorded. */
import { equalJson, type Json, type JsonObject } from "../../kernel/json.ts";
import type { LedgerRecord, RecordDraft, Intent } from "../../kernel/record.ts";
import { isEnded, type RunState, statusOf } from "../../kernel/run.ts";
import { edits } from "./edits.ts";
import { plainError, type RecordedStep, type Recording } from "./recording.ts";
import type { ReplayEnd } from "./replay.ts";
import type { Patch } from "../../kernel/patch.ts";

/** `step` is the number of the node's execution. */
export type ReplayDifference =
  /** A node ran that had not (`replayed`), or had run and did not (`recorded`), or another one in its place. */
  | { kind: "node"; step: number; recorded?: string; replayed?: string }
  /** A node planned something else: another effect, node, or end. */
  | { kind: "plan"; step: number; node: string; recorded: JsonObject; replayed: JsonObject }
  /** A node changed the vars in another way. */
  | { kind: "vars"; step: number; node: string; recorded: Patch; replayed: Patch }
  /** The same effect was requested with another payload. */
  | { kind: "payload"; step: number; node: string; effectType: string; recorded: Json; replayed: Json }
  /** What was called, and not played back, gave something else. Of one that was not recorded, `recorded` is missing. */
  | { kind: "result"; step: number; node: string; effectType: string; recorded?: Came; replayed: Came }
  /** An effect was requested of which nothing is recorded that it could give. The replay has stopped there. */
  | { kind: "unrecorded"; step: number; node: string; effectType: string; payload: Json }
  /** What an effect had given was not asked for. */
  | { kind: "unused"; step: number; node: string; effectType: string }
  /** The run ended with something else, or where it had not. */
  | { kind: "output"; recorded: JsonObject; replayed: JsonObject };

export type Came = { result: Json } | { error: Json };

/** What a node came to: what it is recorded as, the vars after it, and the name that its plan gave the step. */
export interface Made {
  drafts: RecordDraft[];
  vars: JsonObject;
  node?: string;
}

/** Whether a node did what it had done, payloads and output included. */
export function isExactly(recorded: RecordedStep, made: Made, vars: JsonObject): boolean {
  const { records } = recorded;
  const isLike = ({ kind, data }: RecordDraft, i: number): boolean => {
    const record = records[i] as LedgerRecord;
    return kind === record.kind && (kind === "run_failed" || equalJson(requestOf(data), requestOf(record.data)));
  };
  return records.length === made.drafts.length && made.drafts.every(isLike) && isSameChange(recorded, made, vars);
}

/** What a node's record holds but for what it changed, and for what only follows from the rest and the time. */
function requestOf(data: object): JsonObject {
  const { patch: _, wait: __, ...rest } = data as Record<string, Json>;
  return rest;
}

/** Whether vars were changed alike: by the same patch, or from the same to the same. */
export function isSameChange({ records: [plan], before, after }: RecordedStep, made: Made, vars: JsonObject): boolean {
  if (equalJson(patchOf(plan) as never, patchOf(made.drafts[0] as RecordDraft) as never)) return true;
  return equalJson(before, vars) && equalJson(after, made.vars);
}

export function patchOf({ data }: { data: object }): Patch {
  return (data as { patch?: Patch }).patch ?? [];
}

/** A plan as it is compared: what it requests, and where it goes. Payloads and outputs are compared by themselves. */
export function planOf({ kind, data }: Pick<RecordDraft, "kind" | "data">): JsonObject {
  const intent = (data as { intent?: Intent }).intent;
  if (intent) {
    const { type, resultKey, nextNode, errorNode, timeoutNode, members, collect, undo } = intent;
    const plan = { effect: type, resultKey, nextNode, errorNode, timeoutNode, collect, undo };
    return defined({ ...plan, ...(type === "fan_out" ? {} : { members }) });
  }
  if (kind === "step") return { nextNode: (data as { nextNode: string }).nextNode };
  return { ends: kind };
}

function defined(given: Record<string, Json | undefined>): JsonObject {
  return Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)) as JsonObject;
}

/** How a run stands, as it is compared. */
export function endOf(state: RunState): JsonObject {
  const status = statusOf(state);
  if (!isEnded(state)) return { status };
  return defined({ status, output: state.output, error: state.error && plainError(state.error) });
}

/** Nodes that ran in one of the two alone, or others in their place. @param stepsOf The steps of the replay's path. */
export function pathDifferences(
  recording: Recording,
  path: readonly string[],
  stepsOf: readonly number[],
  end: ReplayEnd,
): ReplayDifference[] {
  const found: ReplayDifference[] = [];
  const { steps } = recording;
  const names = steps.map(({ node }) => node);
  for (const { before, after } of edits(names, path)) {
    // Where a replay has stopped, nothing is known of what comes after.
    if (after === undefined && (end === "unrecorded" || end === "maxSteps")) continue;
    found.push({
      kind: "node",
      step: (after === undefined ? steps[before as number]?.step : stepsOf[after]) as number,
      ...(before === undefined ? {} : { recorded: names[before] as string }),
      ...(after === undefined ? {} : { replayed: path[after] as string }),
    });
  }
  return found;
}
