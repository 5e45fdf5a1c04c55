/** A node's turn: it runs on a draft of the vars, and what it decided is recorded. */
import type { ErrorData } from "./errors.ts";
import { isPromise } from "./execute.ts";
import { equalJson } from "./json.ts";
import { type Misfit, nodeMisfit } from "./migrate.ts";
import type { StepPlan } from "./plan.ts";
import type { RecordDraft } from "./record.ts";
import { nodeError, type Ran, runNode } from "./run-node.ts";
import { payloadOf, type RunState } from "./run.ts";
import { planDrafts } from "./plan-drafts.ts";
import type { Blocked } from "./transition.ts";
import type { RunAtHand } from "./run-at-hand.ts";

export function nodeTurn(run: RunAtHand): Blocked | undefined | Promise<Blocked | undefined> {
  const state = run.state;
  const workflow = run.needs.workflow;
  if (!workflow) {
    return run.needs.unknownWorkflow();
  }
  const node = workflow.nodes.get(state.node);
  if (!node) {
    return run.needs.misfit(nodeMisfit(state, workflow) as Misfit);
  }
  const append = (drafts: readonly RecordDraft[], { nodeId }: StepPlan, ifPlain: boolean): boolean => {
    if (run.writer.broken) return true;
    if (!run.append(drafts, nodeId === undefined ? { ifPlain } : { node: nodeId, ifPlain })) return false;
    if (run.state.carried) carryOn(run, run.state.carried);
    return true;
  };
  const finish = (ran: Ran): Blocked | undefined | Promise<undefined> => {
    if (run.writer.broken) return undefined;
    if ("error" in ran) return failNode(run, ran.error);
    try {
      const { plan, patch, vars, places } = ran;
      const missing = plan.effect && run.needs.missing(plan.effect.type, plan.effect.payload);
      if (missing) return missing;
      const drafts = planDrafts(plan, patch, { ...run.place(workflow), places, vars });
      if (append(drafts, plan, true)) return undefined;
      const ready = run.artifacts.drafts(drafts);
      if (!isPromise(ready)) return void append(ready, plan, false);
      run.sendAhead();
      return ready
        .then((prepared) => void append(prepared, plan, false))
        .catch((error: unknown) => failNode(run, nodeError(error, state.node)));
    } catch (error) {
      return failNode(run, nodeError(error, state.node));
    }
  };
  const go = (): Ran | Promise<Ran> =>
    runNode(node, state, run.host, (giveUp) => {
      run.giveUpNode = giveUp;
    });
  const ran = run.trace ? run.trace.step(state.step, state.node).within(go) : go();
  if (!isPromise(ran)) return finish(ran);
  run.sendAhead();
  return ran.then((settled) => {
    run.giveUpNode = undefined;
    return finish(settled);
  });
}

/** The effect that is requested again is not begun again, where it is the very one. */
function carryOn(run: RunAtHand, { type, payload, outcome }: NonNullable<RunState["carried"]>): void {
  const [effect] = run.state.open.values();
  if (effect?.phase !== "executing" || effect.type !== type || !equalJson(payloadOf(effect), payload)) return;
  if (outcome) run.executions.settle(effect.id, outcome);
  else run.inherited.add(effect.id);
}

/** Nothing of the node's draft is recorded, only why the run failed. */
function failNode(run: RunAtHand, error: ErrorData): undefined {
  run.append([{ kind: "run_failed", data: { error } }], { isSmall: true });
}
