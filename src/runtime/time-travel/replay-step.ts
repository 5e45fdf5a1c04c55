/** One node of a replay: it runs on the code of now, at the time of then. Large texts stand as references to what was put then. */
import { artifactIdsWritten } from "../../kernel/artifact.ts";
import type { DriveHost } from "../../kernel/drive-host.ts";
import { AbstractRuntimeError, type ErrorData } from "../../kernel/errors.ts";
import { nearest } from "../../kernel/nearest.ts";
import type { Json, JsonObject } from "../../kernel/json.ts";
import { type Look, look, offloadPatch, offloadResult } from "../../kernel/offload.ts";
import { encodeRecord, type RecordDraft } from "../../kernel/record.ts";
import { nodeError, runNode } from "../../kernel/run-node.ts";
import type { RunState } from "../../kernel/run.ts";
import { ending } from "../../kernel/step.ts";
import { type PlanContext, planDrafts } from "../../kernel/plan-drafts.ts";
import type { Workflow } from "../../kernel/workflow.ts";
import { checkSize } from "../../kernel/write.ts";
import type { RecordedStep } from "./recording.ts";
import { type Made, patchOf } from "./replay-difference.ts";

/** Where a replay stands. */
export interface Stand {
  readonly state: RunState;
  readonly workflow: Workflow;
  /** Its time is that of then. */
  readonly host: DriveHost;
  readonly now: number;
}

export async function makeStep(at: Stand, recorded?: RecordedStep): Promise<Made> {
  const state = at.state;
  const { runId, node, step, workflowId } = state;
  const definition = at.workflow.nodes.get(node);
  if (!definition) {
    const suggestion = nearest(node, at.workflow.nodes.keys());
    const problem = `it stands at node "${node}", which the workflow does not have`;
    throw new AbstractRuntimeError("WORKFLOW_INCOMPATIBLE", {
      runId,
      workflowId,
      problem,
      ...(suggestion ? { suggestion } : {}),
    });
  }
  const failed = (error: ErrorData): Made => ({
    drafts: [ending(state, { kind: "run_failed", data: { error } })],
    vars: state.vars,
  });
  const ran = await runNode(definition, state, at.host, () => undefined);
  if ("error" in ran) return failed(ran.error);
  try {
    const { plan, patch, vars, places } = ran;
    const place = { ...placeOf(at, node, step), places, vars };
    const drafts = planDrafts(plan, patch, place).map((draft) => offloaded(draft, at.host.limits.offloadBytes));
    const refusal = refusalOf(at, drafts, recorded);
    if (refusal) return failed(refusal);
    return {
      drafts: drafts.map((draft) => ending(state, draft)),
      vars,
      ...(plan.nodeId === undefined ? {} : { node: plan.nodeId }),
    };
  } catch (error) {
    return failed(nodeError(error, node));
  }
}

/**
 * Why what a node decided cannot be recorded: it refers to an artifact that was not known then (P1), or is too large.
 *
 * @throws TOO_LARGE
 */
function refusalOf(at: Stand, drafts: readonly RecordDraft[], recorded: RecordedStep | undefined): ErrorData | undefined {
  const { runId, seq, head: prev, step, node } = at.state;
  const { error: was } = (recorded?.records[0].data ?? {}) as { error?: ErrorData };
  for (const draft of drafts) {
    const found: Look = { large: false, ids: new Set(artifactIdsWritten(patchOf(draft))), size: 0 };
    look(draft.data as JsonObject, Number.POSITIVE_INFINITY, found);
    if (was?.code === "ARTIFACT_MISSING" && [...(found.ids ?? [])].some((id) => was.message.includes(id))) return was;
    const { recordBytes } = at.host.limits;
    if (found.size * 6 <= recordBytes) continue;
    const { stored } = encodeRecord(draft, { runId, seq: seq + 1, prev, at: at.now, step, node }, at.host.ids.salt());
    checkSize(runId, `a ${draft.kind} record`, stored.body as string, recordBytes);
  }
  return undefined;
}

/** Large texts stand as references to what was put then. Here nothing is put. */
function offloaded(draft: RecordDraft, offloadBytes: number): RecordDraft {
  const patch = patchOf(draft);
  if (patch.length === 0) return draft;
  const { value } = offloadPatch(patch, offloadBytes);
  return { ...draft, data: { ...draft.data, patch: value } } as RecordDraft;
}

export function offloadedResult(result: Json, keepsShape: boolean | undefined, offloadBytes: number): Json {
  const found: Look = { large: false, ids: undefined, size: 0 };
  look(result, offloadBytes, found);
  return offloadResult(result, offloadBytes, found, keepsShape).value;
}

export function placeOf(at: Stand, node: string, step: number): Omit<PlanContext, "places" | "vars"> {
  return {
    runId: at.state.runId,
    workflowId: at.workflow.id,
    node,
    step,
    now: at.now,
    nodes: at.workflow.nodes,
    depth: at.host.limits.jsonDepth,
    isUndoable: (type) => at.host.effect(type, at.workflow)?.undo !== undefined,
  };
}
