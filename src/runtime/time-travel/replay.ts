/**
 * Replays: a run's nodes run again, on code as it is now, while its effects give what they gave then. Nothing is stored, and nothing is
 * called but what is asked for.
 *
 * P1. Only nodes run. What the world did (results, failures, answers, moments, cancels, retries) is played back from the ledger, in
 *     its order and at its times.
 * P2. An effect is known again by its node, its type and which of these it is. Its payload may differ: that is reported.
 * P3. A replay of the code that made a run, whose nodes depend on nothing but what they are given, reports nothing.
 */
import type { DriveHost } from "../../kernel/drive-host.ts";
import type { AnyEffect, EffectContext } from "../../kernel/effect.ts";
import { AbstractRuntimeError, checkOptions, invalidOption } from "../../kernel/errors.ts";
import { nearest } from "../../kernel/nearest.ts";
import { issueTexts } from "../../kernel/execute.ts";
import { fold } from "../../kernel/fold.ts";
import { cloneJson, type Json, type JsonObject } from "../../kernel/json.ts";
import { isBuiltIn } from "../../kernel/needs.ts";
import { decodeNext, type LedgerRecord } from "../../kernel/record.ts";
import type { RunState } from "../../kernel/run.ts";
import type { Store } from "../../kernel/store.ts";
import type { Anything } from "../../kernel/typing.ts";
import type { Workflow } from "../../kernel/workflow.ts";
import { otherVars } from "./fork.ts";
import { stateAt } from "./moments.ts";
import { checkWhole } from "../options.ts";
import { definitionIn, Player } from "./player.ts";
import { loadRun } from "../read.ts";
import { Recording } from "./recording.ts";
import type { ReplayDifference } from "./replay-difference.ts";
import { type Run, viewOf } from "../view.ts";

/** Called for an effect instead of what is recorded of it. What it returns is the result; what it throws fails the effect. */
export type ReplayHandler = (payload: Json, context: EffectContext) => unknown;

export type ReplayEffects = Readonly<Record<string, "recorded" | "live" | ReplayHandler | AnyEffect>>;

export interface ReplayOptions {
  /** The code to run. Default: the workflow that the runtime has under the run's workflow id. */
  workflow?: Workflow<Anything, Anything, Anything>;
  /** Replay from after this record. Default: 0, the whole run. */
  fromSeq?: number;
  /** Begin with other vars: a whole, or a function that is given a copy and changes it, or returns others. */
  vars?: object | ((vars: JsonObject) => unknown);
  /**
   * By type of effect: `"recorded"` plays back what it gave (the default), `"live"` calls its handler, once, and a function, or another
   * effect of the type, is called in its place. Also for waits and children, by a function: what it returns is the answer.
   */
  effects?: ReplayEffects;
  /** Stop after so many nodes: changed code may go round for ever. Default: 100,000. */
  maxSteps?: number;
}

/**
 * `ended`: the run came to its end. `recorded`: it came to where the recorded run stands. `unrecorded`: see the differences.
 * `maxSteps`: so many nodes ran.
 */
export type ReplayEnd = "ended" | "recorded" | "unrecorded" | "maxSteps";

export interface Replay {
  end: ReplayEnd;
  /** The run as the replay left it. It is not stored anywhere. */
  run: Run;
  /** How many nodes ran. */
  steps: number;
  /** In the order in which they were met; nodes, what was not used, and the output come last. */
  differences: ReplayDifference[];
}

/** What a replay needs of its runtime. */
interface Replaying {
  readonly host: DriveHost;
  /** @throws WORKFLOW_UNKNOWN */
  unknown(workflowId: string): never;
}

const pageSize = 1_000;

/** @throws RUN_NOT_FOUND, SEQ_NOT_FOUND, RECORDS_ARCHIVED, WORKFLOW_UNKNOWN, WORKFLOW_INCOMPATIBLE, VARS_INVALID, INVALID_OPTION */
export async function replayRun({ host, unknown }: Replaying, runId: string, options: ReplayOptions): Promise<Replay> {
  checkOptions(options, ["workflow", "fromSeq", "vars", "effects", "maxSteps"], "replay()");
  checkWhole("maxSteps", options.maxSteps);
  const { fromSeq = 0, effects = {}, maxSteps = 100_000 } = options;
  const { store } = host;
  const { row } = await loadRun(store, runId);
  // Two states of their own: the one is used up by what is recorded, the other by the replay.
  let recorded = await stateAt(store, runId, fromSeq);
  let state = await stateAt(store, runId, fromSeq);
  const workflow = options.workflow ?? host.workflow(state.workflowId) ?? unknown(state.workflowId);
  const records = await recordsBehind(store, state, row.seq);
  let first = 0;
  for (; isAmid(state, records[first]); first++) {
    recorded = fold(recorded, records[first] as LedgerRecord);
    state = fold(state, records[first] as LedgerRecord);
  }
  const recording = new Recording(recorded, records.slice(first));
  checkEffects(effects, recording, workflow, host, runId);
  if (options.vars !== undefined) await changeVars(state, options.vars, workflow, host);
  const { state: played, ...replayed } = await new Player(state, recording, workflow, { effects, maxSteps }, host).play();
  return { ...replayed, run: viewOf(played) };
}

/** Whether this record was decided together with the one before: between the two, no run ever stood. */
function isAmid(state: RunState, record: LedgerRecord | undefined): boolean {
  if (!record) return false;
  if ("intent" in record.data && record.data.intent?.parent !== undefined) return true;
  const hasFailed = [...state.open.values()].some(({ phase, parent }) => phase === "failed" && parent === undefined);
  return hasFailed && (record.kind === "run_failed" || record.kind === "run_cancelled" || record.kind === "undoing");
}

async function recordsBehind(store: Store, { runId, seq, head }: RunState, last: number): Promise<LedgerRecord[]> {
  const records: LedgerRecord[] = [];
  for (let next = seq + 1, prev = head; next <= last; ) {
    const page = await store.records(runId, next, Math.min(pageSize, last + 1 - next));
    if (page.length === 0) throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: next, problem: "it is missing" });
    for (const stored of page) {
      records.push(decodeNext(runId, next, prev, stored));
      prev = stored.hash;
      next += 1;
    }
  }
  return records;
}

function checkEffects(effects: ReplayEffects, recording: Recording, workflow: Workflow, host: DriveHost, runId: string): void {
  const refuse = (problem: string, suggestion?: string): never => {
    throw invalidOption("effects", problem, suggestion);
  };
  const known = new Set([...workflow.effects.keys(), ...recording.effects.map(({ type }) => type)]);
  for (const [type, mode] of Object.entries(effects)) {
    const definition = host.effect(type, workflow);
    if (!known.has(type) && !definition && !isBuiltIn(type))
      refuse(`effects names "${type}", which neither the run nor the workflow has`, nearest(type, known));
    if (typeof mode !== "function" && mode !== "recorded" && mode !== "live")
      refuse(`effects.${type} is "recorded", "live" or a function`, nearest(String(mode), ["recorded", "live"]));
    if (mode === "recorded") continue;
    if (type === "all" || type === "any") refuse(`effects.${type}: name the members of the group instead`);
    const other = definitionIn(mode);
    if (other && other.type !== type) refuse(`effects.${type} is an effect of another type, "${other.type}"`);
    if (other?.declared) refuse(`effects.${type} is an effect without a handler: give one that has it`);
    if (mode !== "live" && !other) continue;
    if (isBuiltIn(type)) refuse(`effects.${type}: a wait or child cannot be live; give a function that answers`);
    const called = other ?? definition;
    if (!called)
      throw new AbstractRuntimeError("EFFECT_UNKNOWN", { effectType: type, runId, declared: workflow.effects.has(type) });
    if (called.transactional)
      refuse(`effects.${type}: a transactional effect writes to the store, and a replay writes nothing; give a function`);
  }
}

async function changeVars(
  state: RunState,
  given: NonNullable<ReplayOptions["vars"]>,
  workflow: Workflow,
  host: DriveHost,
): Promise<void> {
  state.vars = otherVars(state, given, host.limits);
  if (state.version !== String(workflow.version)) return;
  const result = await workflow.varsSchema?.["~standard"].validate(cloneJson(state.vars));
  if (result?.issues)
    throw new AbstractRuntimeError("VARS_INVALID", { workflowId: workflow.id, issues: issueTexts(result.issues) });
}
