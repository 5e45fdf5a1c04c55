/** Which live runs the code of this process would break, found without changing any of them. */
import type { DriveHost } from "../kernel/drive-host.ts";
import { isError } from "../kernel/errors.ts";
import { migration, type Misfit, nodeMisfit } from "../kernel/migrate.ts";
import { startsChildren } from "../kernel/child.ts";
import { Needs } from "../kernel/needs.ts";
import { payloadOf, type RunState, wantsChildren } from "../kernel/run.ts";
import type { Blocked } from "../kernel/transition.ts";
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

export async function checkRuns(
  store: Store,
  host: DriveHost,
  stateOf: (runId: string) => Promise<RunState>,
): Promise<CheckReport> {
  const report: CheckReport = { checked: 0, incompatible: [], others: {} };
  const live = { status: ["running", "waiting"], order: "oldest" } as const;
  for await (const { runId, workflowId, version, node, moving } of runsOf(store, live)) {
    // Not this store's to drive.
    if (moving) continue;
    const workflow = host.workflow(workflowId);
    if (!workflow) {
      report.others[workflowId] = (report.others[workflowId] ?? 0) + 1;
      continue;
    }
    report.checked += 1;
    const found = await problemOf(runId, workflow, host, stateOf);
    if (found) report.incompatible.push({ runId, workflowId, version, node, ...found });
  }
  return report;
}

async function problemOf(
  runId: string,
  workflow: Workflow,
  host: DriveHost,
  stateOf: (runId: string) => Promise<RunState>,
): Promise<{ code: string; problem: string } | undefined> {
  try {
    const state = await stateOf(runId);
    const needs = new Needs(host, state);
    const misfit = await misfitOf(state, workflow);
    const blocked = misfit ? needs.misfit(misfit) : missingCode(state, needs);
    return blocked && { code: blocked.code, problem: blocked.problem };
  } catch (error) {
    if (isError(error, "RECORD_CORRUPT") || isError(error, "FORMAT_NEWER")) return { code: error.code, problem: error.problem };
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

/** What is still to be executed, undone or begun, and has no handler or workflow here: what a driver would block the run with. */
function missingCode(state: RunState, needs: Needs): Blocked | undefined {
  for (const { type } of state.undoable ?? []) {
    const missing = needs.missing(type, undefined);
    if (missing) return missing;
  }
  for (const effect of state.open.values()) {
    const isToCome = effect.phase === "executing" || effect.phase === "backing_off";
    // What a handler waits for may be tried again; children that have begun need nothing of this run.
    const isNeeded = startsChildren(effect.type) ? isToCome || wantsChildren(effect) : isToCome || effect.attempt > 0;
    const missing = isNeeded ? needs.missing(effect.type, payloadOf(effect)) : undefined;
    if (missing) return missing;
  }
  return undefined;
}
