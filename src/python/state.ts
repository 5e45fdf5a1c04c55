/**
 * A run of the Python package as a state of ours: where it stands, what it waits for, what it gave. Nothing is stored here.
 *
 * P1. What the run waits for is one parked effect, under the same wait key. Its result goes to the same `result_key`, and the run then
 *     goes on at `resume_to_node`, or runs its node again where that is empty.
 * P2. An awaited child is found under its old id, and its end is delivered as Python delivers it: `{ sub_run_id, output }`.
 * P3. Answers are not checked against `choices`: Python never did, and its programs answer in their own form.
 * P4. Whoever waited for a moment gets no result, as there: only the node changes.
 */
import { childKey } from "../kernel/child-id.ts";
import { isObject, type Json, type JsonObject, toJson } from "../kernel/json.ts";
import { checkResultKey } from "../kernel/patch.ts";
import { type ParentLink, sha256 } from "../kernel/record.ts";
import type { OpenEffect, RunState, WaitState } from "../kernel/run.ts";
import { toNative } from "./native.ts";
import { type PythonRun, type PythonWait, readWait } from "./run-file.ts";
import { isPythonObject, Unusable } from "./shape.ts";
import type { PythonJson, PythonObject } from "./text.ts";
import { microsOf, momentOf } from "./time.ts";

export interface Surroundings {
  /** The version of the workflow that the run goes on under. */
  version: string;
  parent?: ParentLink;
  /** Whether a run with this id is there, or comes along, and will tell this one of its end: it is its child. */
  tells(runId: string): boolean;
  /** The run with this id, where it comes along. */
  run(runId: string): PythonRun | undefined;
  now: number;
  jsonDepth: number;
  /** Is told what is not as it was. */
  note(problem: string): void;
}

/** As `plainState` of the kernel gives it. */
export type ImportedState = Omit<RunState, "runId" | "seq" | "head" | "updatedAt" | "open"> & { open: OpenEffect[] };

/** @throws Unusable, NOT_JSON, JSON_TOO_DEEP, RESULT_KEY_INVALID */
export function importedState(saved: PythonRun, records: readonly PythonObject[], around: Surroundings): ImportedState {
  const run = awake(saved, records);
  const { workflow_id: workflowId, actor_id: actorId } = run;
  checkNames(run);
  const native = nativeIn(around);
  const step = stepsIn(records) + (run.status === "running" ? 1 : 0);
  const state: ImportedState = {
    workflowId,
    version: around.version,
    status: run.status === "waiting" ? "running" : run.status,
    paused: false,
    node: run.current_node,
    step: Math.max(1, step),
    vars: native(run.vars, "vars") as JsonObject,
    open: [],
    createdAt: momentOf(run.created_at ?? "") ?? around.now,
    ...(actorId === null || actorId === "" ? {} : { actorId }),
    ...(around.parent ? { parent: around.parent } : {}),
  };
  if (run.status === "completed") state.output = native(run.output, "output");
  if (run.status === "failed") state.error = { name: "Error", message: run.error ?? "failed" };
  if (run.status === "cancelled") state.cancelling = run.error === null ? {} : { reason: run.error };
  if (run.status === "waiting") {
    if (!run.waiting) throw new Unusable("it waits, and does not say for what");
    state.open.push(openEffect(run, run.waiting, records, state.step, around));
  }
  const carried = run.status === "running" ? carriedOf(run, records.at(-1), around) : undefined;
  if (carried) state.carried = carried;
  return state;
}

/** Found out here: a store would give up on the whole import. */
function checkNames({ run_id, workflow_id, current_node, actor_id, parent_run_id, waiting }: PythonRun): void {
  const resume_to_node = waiting?.resume_to_node;
  const names = { run_id, workflow_id, current_node, actor_id, parent_run_id, resume_to_node };
  for (const [name, text] of Object.entries(names)) checkName(name, text ?? "");
}

/** Stores find runs by these: in indexes, which take no long texts, and as text that can be encoded. */
function checkName(name: string, text: string): void {
  if (!text.isWellFormed()) throw new Unusable(`${name} has half of a surrogate pair`);
  if (text.length > longestName) throw new Unusable(`${name} is longer than ${longestName} characters`);
}

/** As of what is started here. */
const longestName = 500;

function nativeIn({ jsonDepth, note }: Surroundings): (value: PythonJson, path: string) => Json {
  return (value, path) =>
    toJson(
      toNative(value, `/${path}`, (at, lexeme) => note(`${at} is ${lexeme}, which JavaScript has no number for`)),
      path,
      jsonDepth,
    );
}

/** How often a node was executed, as far as the ledger says: transitions without an effect are not in it. */
function stepsIn(records: readonly PythonObject[]): number {
  return records.filter(({ status, attempt, effect }) => effect === null || (status === "started" && numberOf(attempt) === 1))
    .length;
}

/**
 * The program died between a record and the state that it led to. Python looks into the ledger and takes the result from there; an
 * attempt without an outcome it makes again, where ours is told that it may have happened.
 */
function carriedOf(run: PythonRun, last: PythonObject | undefined, around: Surroundings): ImportedState["carried"] {
  if (!last || !isAhead(run, last)) return undefined;
  const { effect, status, result = null } = last;
  if (!isPythonObject(effect) || typeof effect.type !== "string") return undefined;
  const native = nativeIn({ ...around, note: () => undefined });
  const known = { type: effect.type, payload: requested(effect.type, native(effect.payload ?? {}, "payload")) };
  if (status === "started") return known;
  if (status === "completed" && result !== null)
    return { ...known, outcome: { kind: "completed", result: native(result, "result") } };
  const waiting = waitOf(last);
  if (!waiting) return undefined;
  const childRunId = waiting.reason === "subworkflow" ? awaitedChild(waiting) : undefined;
  if (childRunId !== undefined && !around.tells(childRunId)) return undefined;
  const child = childRunId === undefined ? undefined : around.run(childRunId);
  const { since: _, ...wait } = waitState({ ...run, waiting }, waiting, 0, childRunId, around);
  const waits = { ...known, outcome: { kind: "waiting" as const, wait }, ...(childRunId === undefined ? {} : { childRunId }) };
  if (!child || child.status === "running" || child.status === "waiting") return waits;
  // It ended while nobody waited, and will not end again.
  if (child.status === "completed")
    return {
      ...known,
      outcome: { kind: "completed", result: { sub_run_id: child.run_id, output: native(child.output, "output") } },
    };
  const error = { name: "Error", message: child.error ?? `the subworkflow was ${child.status}` };
  return { ...known, outcome: { kind: "failed", error, retryable: false } };
}

/** The payload as a node of ours requests it. */
function requested(type: string, payload: Json): Json {
  if (type !== "start_subworkflow" || !isObject(payload)) return payload;
  const { workflow_id: workflowId = payload.workflowId ?? null, vars, async: detached } = payload;
  return { workflowId, vars: vars ?? {}, ...(detached === true ? { async: true } : {}) };
}

/** Whether the state of a run does not have yet what the last record of its ledger says. Its node may have given another name in its plan. */
function isAhead(run: PythonRun, last: PythonObject): boolean {
  const at = microsOf(last.status === "started" ? last.started_at : last.ended_at);
  const saved = microsOf(run.updated_at);
  if (at === undefined || saved === undefined) return false;
  // Behind an attempt that began stands its outcome, whatever a coarse clock says of when the run was saved.
  return at > saved || (at === saved && last.status === "started");
}

/** The run, where the moment that it waited for had come: Python saves that with the step behind it only, and may have died in that. */
function awake(run: PythonRun, records: readonly PythonObject[]): PythonRun {
  const { status, waiting } = run;
  const last = records.at(-1);
  if (status !== "waiting" || waiting?.reason !== "until" || !last || !isAhead(run, last)) return run;
  if (waitOf(last)?.until === waiting.until) return run;
  return { ...run, status: "running", waiting: null, current_node: waiting.resume_to_node || run.current_node };
}

/** What a record says that its effect waits for. */
function waitOf({ status, result = null }: PythonObject): PythonWait | undefined {
  if (status !== "waiting" || !isPythonObject(result) || !isPythonObject(result.wait)) return undefined;
  try {
    return readWait(result.wait);
  } catch (error) {
    // The state of the run is whole, and says what it needs.
    if (error instanceof Unusable) return undefined;
    throw error;
  }
}

/** The child that a run waits for, or was about to wait for. */
export function awaitedOf(saved: PythonRun, records: readonly PythonObject[]): string | undefined {
  const run = awake(saved, records);
  const last = records.at(-1);
  const isCarried = run.status === "running" && last !== undefined && isAhead(run, last);
  const waiting = run.status === "waiting" ? run.waiting : isCarried ? waitOf(last) : undefined;
  return waiting?.reason === "subworkflow" ? awaitedChild(waiting) : undefined;
}

function numberOf(value: PythonJson | undefined): number {
  return Number(String((value as { value?: unknown } | null)?.value ?? value));
}

const typesOf = {
  user: "ask_user",
  event: "wait_event",
  until: "wait_until",
  job: "tool_calls",
  subworkflow: "start_subworkflow",
} as const;

function openEffect(
  run: PythonRun,
  waiting: PythonWait,
  records: readonly PythonObject[],
  step: number,
  around: Surroundings,
): OpenEffect {
  const { run_id: runId, current_node: node } = run;
  const record = records.findLast(({ status }) => status === "waiting");
  const effect = isPythonObject(record?.effect) ? record.effect : undefined;
  const type = typeof effect?.type === "string" ? effect.type : typesOf[waiting.reason];
  const isBareWait = type === "ask_user" || type === "wait_event" || type === "wait_until";
  const payload = nativeIn({ ...around, note: () => undefined })(effect?.payload ?? {}, "payload");
  const childRunId = waiting.reason === "subworkflow" ? awaitedChild(waiting) : undefined;
  const wait = waitState(run, waiting, step, childRunId, around);
  const resultKey = wait.reason === "until" ? null : waiting.result_key;
  if (resultKey) checkResultKey(resultKey);
  return {
    id: String(step),
    type,
    step,
    node,
    key: keyOf(record) ?? sha256(JSON.stringify([runId, step])),
    attempt: isBareWait ? 0 : Math.max(1, numberOf(record?.attempt) || 1),
    phase: "parked",
    payload: isObject(payload) ? payload : {},
    nextNode: waiting.resume_to_node || node,
    wait,
    ...(resultKey ? { resultKey } : {}),
    ...(childRunId === undefined ? {} : { childRunId }),
  };
}

/** The key that Python gave an attempt: 32 hex digits, or what a policy of its user made. The answer to the wait gets an id made of it. */
function keyOf(record: PythonObject | undefined): string | undefined {
  const key = record?.idempotency_key;
  return typeof key === "string" && key.isWellFormed() && key.length <= 200 ? key : undefined;
}

/** The child that a wait is for. */
function awaitedChild({ details, wait_key }: PythonWait): string | undefined {
  if (typeof details?.sub_run_id === "string") return details.sub_run_id;
  return wait_key?.startsWith(childKey("")) ? wait_key.slice(childKey("").length) : undefined;
}

function waitState(
  run: PythonRun,
  waiting: PythonWait,
  step: number,
  childRunId: string | undefined,
  around: Surroundings,
): WaitState {
  const { prompt, choices, until, wait_key: key } = waiting;
  let { reason } = waiting;
  // Whatever becomes of its child: whether a run can come in is asked before that is known.
  checkName("wait_key", key ?? "");
  checkName("sub_run_id", childRunId ?? "");
  const at = until === null ? undefined : momentOf(until);
  if (reason === "until" && at === undefined) {
    // Python compares texts: such a moment may have come, and otherwise comes in its own time, or never.
    if (until && new Date(around.now).toISOString() >= until) return { ...bareWait(run, step, around), until: around.now };
    around.note(
      `it waits until ${JSON.stringify(until)}, which is no moment: now it waits for an event or an answer under its key`,
    );
    reason = "event";
  }
  if (reason === "subworkflow" && (childRunId === undefined || !around.tells(childRunId))) {
    const problem = `the child that it waits for, ${childRunId}, is not there, or not its own`;
    around.note(`${problem}: now it waits for an event or an answer under its key`);
    reason = "event";
  }
  const waitKey = reason === "subworkflow" ? childKey(childRunId as string) : key || defaultKey(run, step);
  const details =
    waiting.details === null ? undefined : nativeIn({ ...around, note: () => undefined })(waiting.details, "details");
  return {
    reason,
    waitKey,
    since: momentOf(run.updated_at ?? "") ?? around.now,
    ...(reason === "until" ? { until: at as number } : {}),
    ...(prompt === null ? {} : { prompt }),
    ...(choices?.every((choice) => typeof choice === "string") ? { choices } : {}),
    ...(reason === "user" || choices ? { allowFreeText: true } : {}),
    ...(details === undefined ? {} : { details }),
  };
}

function bareWait(run: PythonRun, step: number, { now }: Surroundings): WaitState {
  return { reason: "until", waitKey: defaultKey(run, step), since: momentOf(run.updated_at ?? "") ?? now };
}

function defaultKey({ run_id: runId, current_node: node, waiting }: PythonRun, step: number): string {
  return `${waiting?.reason}:${runId}:${node}:${step}`;
}
