/** Which live runs the code of this process would break, found without changing any of them. */
import type { EffectDefinition } from "../kernel/effect.ts";
import { AbstractRuntimeError, errorData, isError, nearest } from "../kernel/errors.ts";
import { migration, type Misfit, nodeMisfit } from "../kernel/migrate.ts";
import { childWorkflowOf } from "../kernel/child.ts";
import { builtInEffects } from "../kernel/plan.ts";
import { payloadOf, type RunState, wantsChildren } from "../kernel/run.ts";
import type { Store } from "../kernel/store.ts";
import type { Workflow } from "../kernel/workflow.ts";
import { runsOf } from "./runs-of.ts";

/** A live run that this code could not drive on. */
export interface Incompatibility {
  runId: string;
  workflowId: string;
  /** The version that the run is of. */
  version: string;
  node: string;
  /** What a worker with this code would block it with, or find damaged. */
  code: string;
  problem: string;
}

export interface CheckReport {
  /** Live runs of the workflows of this process that were looked at. */
  checked: number;
  incompatible: Incompatibility[];
  /** Live runs of other workflows, by workflow: not judged. */
  others: Record<string, number>;
}

/** The code of the process. */
interface Code {
  workflow(id: string): Workflow | undefined;
  effect(type: string, workflow: Workflow): EffectDefinition | undefined;
}

export async function checkRuns(store: Store, code: Code, stateOf: (runId: string) => Promise<RunState>): Promise<CheckReport> {
  const report: CheckReport = { checked: 0, incompatible: [], others: {} };
  const live = { status: ["running", "waiting"], order: "oldest" } as const;
  for await (const { runId, workflowId, version, node } of runsOf(store, live)) {
    const workflow = code.workflow(workflowId);
    if (!workflow) {
      report.others[workflowId] = (report.others[workflowId] ?? 0) + 1;
      continue;
    }
    report.checked += 1;
    const found = await problemOf(runId, workflow, code, stateOf);
    if (found) report.incompatible.push({ runId, workflowId, version, node, ...found });
  }
  return report;
}

async function problemOf(
  runId: string,
  workflow: Workflow,
  code: Code,
  stateOf: (runId: string) => Promise<RunState>,
): Promise<{ code: string; problem: string } | undefined> {
  try {
    const state = await stateOf(runId);
    const misfit = await misfitOf(state, workflow);
    if (misfit) return said(new AbstractRuntimeError("WORKFLOW_INCOMPATIBLE", { runId, workflowId: workflow.id, ...misfit }));
    return missingCode(state, workflow, code);
  } catch (error) {
    if (isError(error, "RECORD_CORRUPT") || isError(error, "FORMAT_NEWER")) return said(error);
    throw error;
  }
}

async function misfitOf(state: RunState, workflow: Workflow): Promise<Misfit | undefined> {
  // No node runs any more.
  if (state.undoing) return undefined;
  if (state.version === String(workflow.version)) return nodeMisfit(state, workflow);
  const migrated = await migration(state, workflow);
  return "kind" in migrated ? undefined : migrated;
}

/** What is still to be executed, undone or begun, and has no handler or workflow here. */
function missingCode(state: RunState, workflow: Workflow, code: Code): { code: string; problem: string } | undefined {
  const { runId } = state;
  const types = new Set(state.undoable?.map(({ type }) => type));
  for (const effect of state.open.values()) {
    const isToCome = effect.phase === "executing" || effect.phase === "backing_off";
    if (effect.type === "start_subworkflow" ? isToCome : wantsChildren(effect)) {
      const workflowId = childWorkflowOf(payloadOf(effect));
      if (workflowId !== undefined && !code.workflow(workflowId))
        return said(new AbstractRuntimeError("WORKFLOW_UNKNOWN", { workflowId, known: [workflow.id] }));
    } else if (isToCome || effect.attempt > 0) types.add(effect.type);
  }
  for (const effectType of types) {
    if ((builtInEffects as readonly string[]).includes(effectType) || code.effect(effectType, workflow)) continue;
    const suggestion = nearest(effectType, workflow.effects.keys());
    return said(new AbstractRuntimeError("EFFECT_UNKNOWN", { effectType, runId, ...(suggestion ? { suggestion } : {}) }));
  }
  return undefined;
}

function said(error: AbstractRuntimeError): { code: string; problem: string } {
  return { code: error.code, problem: error.problem || errorData(error).message };
}
