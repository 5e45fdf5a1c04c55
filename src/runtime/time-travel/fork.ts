/**
 * Forks: new runs that go on from where another one stood.
 *
 * K1. A fork's first record names the origin's run, and the seq and hash of the record after which it goes on; its state is the fold up to there.
 * K2. A fork shares nothing that acts: no open effect and so no idempotency key, no message, no child, no parent, and nothing to undo
 *     but what it does itself. The budgets that held for its origin hold for it alone, with nothing spent.
 */
import { type Begun, beginRestored, checkTags } from "../../kernel/begin.ts";
import { forkedBudgets } from "../../kernel/budget.ts";
import type { Ids } from "../../kernel/clock.ts";
import { AbstractRuntimeError, checkOptions, invalidOption } from "../../kernel/errors.ts";
import { nearest } from "../../kernel/nearest.ts";
import { issueTexts, type Limits } from "../../kernel/execute.ts";
import { cloneJson, equalJson, isObject, type Json, type JsonObject, toJson } from "../../kernel/json.ts";
import { migration } from "../../kernel/migrate.ts";
import { decodeRecord, type Origin, readHeader } from "../../kernel/record.ts";
import { isEnded, plainState, type RunState } from "../../kernel/run.ts";
import { checkRunId } from "../../kernel/run-id.ts";
import type { Store } from "../../kernel/store.ts";
import type { Workflow } from "../../kernel/workflow.ts";
import { stateAt } from "./moments.ts";
import { loadRun } from "../read.ts";
import { scheduleWorkflowId } from "../schedules/workflow.ts";

export interface ForkOptions {
  /** Go on as the run was after this record. Default: its last one. */
  atSeq?: number;
  /** Other vars: a whole, or a function that is given a copy and changes it, or returns others. Default: those of the run there. */
  vars?: object | ((vars: JsonObject) => unknown);
  /**
   * What to do when the run was in the middle of a step there, with effects or waits open, or when a step had just ended it: `"restart"`
   * goes back to before that step, so that its node runs again. Default: `"refuse"`.
   */
  open?: "refuse" | "restart";
  /** Chosen by the caller, the fork is idempotent. Default: a UUID. */
  runId?: string;
  /** Default: those of the run. */
  tags?: readonly string[];
  /** Who causes the fork. Default: whoever caused the run. */
  actorId?: string;
}

/** What forking needs of its runtime. */
export interface Forking {
  readonly store: Store;
  readonly ids: Ids;
  readonly limits: Limits;
  now(): number;
  workflow(id: string): Workflow | undefined;
  /** Stores a run and tells of it; answers whether it was new. */
  create(begun: Begun): Promise<boolean>;
}

const forkOptions = ["atSeq", "vars", "open", "runId", "tags", "actorId"];

/** @param from What the fork is made of, where that is a snapshot: its code has to be here. */
export async function forkRun(
  host: Forking,
  runId: string,
  options: ForkOptions,
  from?: { snapshotId: string; check(state: RunState): void },
): Promise<{ runId: string }> {
  checkRunId(runId);
  check(options);
  const standing = options.runId === undefined ? undefined : await standingFork(host.store, options.runId);
  // A second call goes on from the same record, wherever its origin has got to meanwhile.
  const again = standing?.origin.runId === runId && options.atSeq === undefined ? { atSeq: standing.origin.seq } : {};
  const state = await pointOf(host.store, runId, { ...options, ...again }, from?.check);
  const begun = await begin(host, state, options, from?.snapshotId);
  const { row } = begun;
  if (await host.create(begun)) return { runId: row.runId };
  const existing = standing ?? (await standingFork(host.store, row.runId));
  // Says why the id is taken, where no run has it.
  if (!existing) await loadRun(host.store, row.runId);
  const isSame =
    existing !== undefined &&
    equalJson(existing.origin, originOf(state, from?.snapshotId)) &&
    equalJson(existing.state, (decodeRecord(row.runId, begun.record).data as { state: JsonObject }).state);
  if (!isSame) throw new AbstractRuntimeError("RUN_EXISTS", { runId: row.runId, problem: "another origin or other vars" });
  return { runId: row.runId };
}

function check(options: ForkOptions): void {
  checkOptions(options, forkOptions, "fork()");
  const { open = "refuse", runId, actorId } = options;
  if (open !== "refuse" && open !== "restart") {
    const suggestion = nearest(String(open), ["refuse", "restart"]);
    const problem = `open is "refuse" or "restart", not "${String(open)}"`;
    throw invalidOption("open", problem, suggestion);
  }
  if (runId !== undefined && (typeof runId !== "string" || runId === "" || runId.length > 200))
    throw invalidOption("runId", "runId must be text of 1 to 200 characters");
  if (actorId !== undefined && typeof actorId !== "string") throw invalidOption("actorId", "actorId must be text");
  checkTags(options.tags);
}

/** What the fork that has this id began with. */
async function standingFork(
  store: Store,
  runId: string,
): Promise<{ origin: Origin & { kind: "fork" }; state: JsonObject } | undefined> {
  const loaded = await store.load(runId);
  const [stored] = loaded && !loaded.archivedBefore ? await store.records(runId, 0, 1) : [];
  const first = stored && decodeRecord(runId, stored);
  if (first?.kind !== "run_restored" || first.data.origin.kind !== "fork") return undefined;
  return { origin: first.data.origin, state: first.data.state };
}

// ---- Where it goes on ------------------------------------------------------------------------------------------------

/** The state that a fork goes on from. @throws SEQ_NOT_FOUND, RECORDS_ARCHIVED, FORK_OPEN_EFFECTS, FORK_REFUSED */
async function pointOf(
  store: Store,
  runId: string,
  { atSeq, open }: ForkOptions,
  checkState?: (state: RunState) => void,
): Promise<RunState> {
  const state = await stateAt(store, runId, atSeq ?? (await loadRun(store, runId)).row.seq);
  checkState?.(state);
  const { seq, status } = state;
  const refuse = (problem: string): never => {
    throw new AbstractRuntimeError("FORK_REFUSED", { runId, seq, problem });
  };
  // It would fire beside the schedule, under an id that nobody knows a schedule by.
  if (state.workflowId === scheduleWorkflowId) refuse("it is a schedule: make another one with schedules.create()");
  if (state.undoing) refuse("what it had done was being undone there, or had been");
  if (state.cancelling) refuse("it was being cancelled there, or had been");
  if (!isEnded(state) && state.open.size === 0) return state;
  if (open === "restart" && state.origin?.kind === "python" && state.origin.step === state.step) return runAgain(state);
  if (open === "restart") return stateAt(store, runId, (await beginOfStep(store, state)) - 1);
  if (isEnded(state)) return refuse(`it had ended there (${status}); open: "restart" runs the step again that ended it`);
  const effects = [...state.open.values()].map(({ id, type, wait }) => `${type} (${id}${wait ? `, ${wait.waitKey}` : ""})`);
  throw new AbstractRuntimeError("FORK_OPEN_EFFECTS", { runId, seq, effects });
}

/** The step was begun by the Python package: its node runs again on the vars that it had left. */
function runAgain({ output: _, error: __, ...state }: RunState): RunState {
  return { ...state, status: "running", open: new Map() };
}

const pageSize = 1_000;

/** The record of the node whose effects are open, or that ended the run. @throws FORK_REFUSED, RECORDS_ARCHIVED */
async function beginOfStep(store: Store, state: RunState): Promise<number> {
  const { runId, seq } = state;
  // The first effect that is open stands for its group: it was opened by the node's own record.
  const [effect] = state.open.values();
  const { archivedBefore = 0 } = await loadRun(store, runId);
  for (let to = seq + 1; to > archivedBefore; to -= pageSize) {
    const from = Math.max(archivedBefore, to - pageSize);
    const page = await store.records(runId, from, to - from);
    const found = page.findLast((stored) =>
      effect ? stored.hash === effect.key : readHeader(runId, stored).kind.startsWith("run_"),
    );
    if (found && found.seq > 0) return found.seq;
  }
  if (archivedBefore > 0)
    throw new AbstractRuntimeError("RECORDS_ARCHIVED", { runId, seq: archivedBefore - 1, before: archivedBefore });
  throw new AbstractRuntimeError("FORK_REFUSED", { runId, seq, problem: "the step it was in began before its ledger here" });
}

// ---- What it begins with ---------------------------------------------------------------------------------------------

async function begin(host: Forking, state: RunState, options: ForkOptions, snapshotId: string | undefined): Promise<Begun> {
  const vars = options.vars === undefined ? state.vars : otherVars(state, options.vars, host.limits);
  await checkFits(host, { ...state, vars }, options.vars !== undefined, snapshotId !== undefined);
  // What belongs to the origin alone is left out (K2).
  const {
    parent: _parent,
    undoable: _undoable,
    answered: _answered,
    retries: _retries,
    undoFailures: _undoFailures,
    createdAt: _createdAt,
    origin: _origin,
    carried: _carried,
    ...kept
  } = plainState({ ...state, vars });
  const { runId = host.ids.id(), tags, actorId } = options;
  const budgets = state.budgets && forkedBudgets(runId, state.budgets);
  return beginRestored(
    {
      runId,
      state: {
        ...kept,
        ...(budgets ? { budgets: budgets as unknown as Json } : {}),
        paused: false,
        ...(tags === undefined ? {} : { tags: [...new Set(tags)] }),
      },
      origin: originOf(state, snapshotId),
      now: host.now(),
      ...(actorId === undefined ? {} : { actorId }),
    },
    host.ids,
    host.limits,
  );
}

function originOf({ runId, seq, head: hash }: RunState, snapshotId: string | undefined): Origin {
  return { kind: "fork", runId, seq, hash, ...(snapshotId === undefined ? {} : { snapshotId }) };
}

/** @throws NOT_JSON, JSON_TOO_DEEP, INVALID_OPTION */
export function otherVars(state: RunState, given: object | ((vars: JsonObject) => unknown), limits: Limits): JsonObject {
  let made: unknown = given;
  if (typeof given === "function") {
    const copy = cloneJson(state.vars);
    // One that changes the vars in place need not return them.
    made = (given as (vars: JsonObject) => unknown)(copy) ?? copy;
  }
  const vars = toJson(made, "vars", limits.jsonDepth);
  if (isObject(vars)) return vars;
  throw new AbstractRuntimeError("NOT_JSON", { path: "vars", problem: "the vars of a run are an object" });
}

/**
 * Whether the code that is here could go on from this state, if need be by its migrations. Where it is not here, whoever drives the
 * fork finds out.
 *
 * @throws WORKFLOW_INCOMPATIBLE; VARS_INVALID for vars that were given.
 */
async function checkFits(host: Forking, state: RunState, varsGiven: boolean, needsCode: boolean): Promise<void> {
  const { runId, workflowId } = state;
  const workflow = host.workflow(workflowId);
  if (!workflow) {
    if (!needsCode) return;
    throw new AbstractRuntimeError("WORKFLOW_INCOMPATIBLE", {
      runId,
      workflowId,
      problem: "this runtime does not have that workflow",
    });
  }
  if (varsGiven && state.version === String(workflow.version)) {
    const result = await workflow.varsSchema?.["~standard"].validate(cloneJson(state.vars));
    if (result?.issues) throw new AbstractRuntimeError("VARS_INVALID", { workflowId, issues: issueTexts(result.issues) });
  }
  const migrated = await migration(state, workflow, host.limits.jsonDepth);
  if (!("kind" in migrated)) throw new AbstractRuntimeError("WORKFLOW_INCOMPATIBLE", { runId, workflowId, ...migrated });
}
