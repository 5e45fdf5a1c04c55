/** Whether the run that a start has found is the one that it would have made: ids of one's own make a start that may be made again. */
import type { Begun } from "../kernel/begin.ts";
import type { ScopedBudget } from "../kernel/budget.ts";
import { AbstractRuntimeError, isError } from "../kernel/errors.ts";
import { equalJson, type Json } from "../kernel/json.ts";
import { decodeRecord } from "../kernel/record.ts";
import type { Store } from "../kernel/store.ts";
import { missing } from "./read.ts";
import { rowOf } from "./runs-of.ts";

/**
 * Of a run whose first records were archived, vars are not compared.
 *
 * @throws RUN_EXISTS unless the stored run began like this one; RUN_MOVED, RUN_PURGED
 */
export async function checkSame(store: Store, begun: Begun, from: Pick<Store, "records"> = store): Promise<void> {
  const { runId } = begun.row;
  const row = await rowOf(store, runId);
  if (row?.moving) throw new AbstractRuntimeError("RUN_MOVED", { runId, to: row.moving.to, phase: row.moving.phase });
  const [stored] = await from.records(runId, 0, 1).catch((error: unknown) => {
    if (!isError(error, "RECORDS_ARCHIVED")) throw error;
    return ["archived" as const];
  });
  if (stored === "archived" && row?.workflowId === begun.row.workflowId) return;
  if (stored === "archived") throw new AbstractRuntimeError("RUN_EXISTS", { runId, problem: `workflow "${row?.workflowId}"` });
  if (!stored) throw await missing(store, runId);
  const first = decodeRecord(runId, stored);
  if (first.kind === "run_restored")
    throw new AbstractRuntimeError("RUN_EXISTS", {
      runId,
      problem: "a state that was made elsewhere: it was forked or imported",
    });
  if (first.kind !== "run_started")
    throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq: 0, problem: "the run does not begin with its start" });
  if (first.data.workflowId !== begun.state.workflowId)
    throw new AbstractRuntimeError("RUN_EXISTS", { runId, problem: `workflow "${first.data.workflowId}"` });
  if (!equalJson(first.data.vars, begun.state.vars))
    throw new AbstractRuntimeError("RUN_EXISTS", { runId, problem: "other vars" });
  if (!equalJson(budgetOf(first.data), budgetOf(begun.state)))
    throw new AbstractRuntimeError("RUN_EXISTS", { runId, problem: "another budget" });
}

function budgetOf({ budgets = [] }: { budgets?: readonly ScopedBudget[] }): Json {
  return budgets.map(({ scope, limits }) => ({ scope, limits: { ...limits } }));
}
