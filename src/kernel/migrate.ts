/** How a run goes on under another version of its workflow, or why it cannot. Reads the run, changes nothing. */
import { openDraft } from "./draft.ts";
import { errorData } from "./errors.ts";
import { nearest } from "./nearest.ts";
import { isPromise, issueTexts } from "./execute.ts";
import { isObject, type JsonObject } from "./json.ts";
import type { RecordDraft } from "./record.ts";
import { isWindingUp, type RunState } from "./run.ts";
import type { Workflow } from "./workflow.ts";

/** Why a run cannot go on under this code. */
export interface Misfit {
  problem: string;
  suggestion?: string;
}

/**
 * The record that brings a run to the version of this workflow. Where there is no migration for its version, it goes on as it is, if
 * its nodes exist and its vars fit the schema.
 */
export async function migration(state: RunState, workflow: Workflow, depth?: number): Promise<RecordDraft | Misfit> {
  const to = String(workflow.version);
  const { migrations } = workflow;
  if (isNewer(state.version, to))
    return { problem: `it is of version ${state.version}, and this code is version ${to}, which is older` };
  const draft = openDraft(state.vars, depth);
  const nodes: Record<string, string> = {};
  try {
    let version = state.version;
    for (let step = migrations.get(version); step; step = migrations.get(version)) {
      if (step.vars) {
        const made = step.vars(draft.vars);
        if (isPromise(made))
          return { problem: `the migration from version ${version} is asynchronous; it has to return the new vars` };
        // One that changes the vars in place need not return them.
        if (made !== undefined) draft.vars = made as never;
      }
      for (const [name, present] of Object.entries(nodes))
        nodes[name] = Object.hasOwn(step.nodes, present) ? (step.nodes[present] as string) : present;
      for (const [name, renamed] of Object.entries(step.nodes)) {
        if (!Object.hasOwn(nodes, name)) nodes[name] = renamed;
      }
      version = step.to;
    }
    const { patch, vars } = draft.close(undefined);
    const misfit = nodeMisfit(state, workflow, nodes) ?? (await varsMisfit(vars, workflow));
    if (misfit) return misfit;
    return {
      kind: "migrated",
      data: {
        from: state.version,
        to,
        ...(patch.length > 0 ? { patch } : {}),
        ...(Object.keys(nodes).length > 0 ? { nodes } : {}),
      },
    };
  } catch (error) {
    return { problem: `the migration from version ${state.version} failed: ${errorData(error).message}` };
  }
}

/** A node that the run stands at, or may go to from what it has open, and that the workflow does not have. */
export function nodeMisfit(
  state: RunState,
  workflow: Workflow,
  nodes: Readonly<Record<string, string>> = {},
): Misfit | undefined {
  // What is cancelled goes to none of them any more.
  if (isWindingUp(state)) return undefined;
  const effects = [...state.open.values()];
  // While an effect is open its node has run, and where it goes counts.
  const standsAt = effects.length === 0 ? [state.node] : [];
  const targets = effects.flatMap(({ nextNode, errorNode, timeoutNode }) => [nextNode, errorNode, timeoutNode]);
  for (const target of [...standsAt, ...targets]) {
    if (target === undefined) continue;
    const name = Object.hasOwn(nodes, target) ? (nodes[target] as string) : target;
    if (workflow.nodes.has(name)) continue;
    const suggestion = nearest(name, workflow.nodes.keys());
    const how = effects.length === 0 ? "stands at" : "is to go on at";
    return { problem: `it ${how} node "${name}", which the workflow does not have`, ...(suggestion ? { suggestion } : {}) };
  }
  return undefined;
}

async function varsMisfit(vars: JsonObject, workflow: Workflow): Promise<Misfit | undefined> {
  if (!isObject(vars)) return { problem: "the migrated vars are not an object" };
  const result = await workflow.varsSchema?.["~standard"].validate(vars);
  return result?.issues ? { problem: `its vars do not fit the schema: ${issueTexts(result.issues).join("; ")}` } : undefined;
}

function isNewer(version: string, than: string): boolean {
  return /^\d+$/.test(version) && /^\d+$/.test(than) && Number(version) > Number(than);
}
