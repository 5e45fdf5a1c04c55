/** The first record of a run: its vars checked, its row and its ledger begun together. */
import { artifactIdsIn } from "./artifact.ts";
import { budgetsOf, type ScopedBudget } from "./budget.ts";
import type { Ids } from "./clock.ts";
import { AbstractRuntimeError, invalidOption } from "./errors.ts";
import { isPromise, issueTexts, type Limits } from "./execute.ts";
import { fold } from "./fold.ts";
import { isObject, type JsonObject, toJson } from "./json.ts";
import { encodeRecord, type LedgerRecord, type Origin, type ParentLink, type StoredRecord } from "./record.ts";
import { fromPlain, indexedOf, openWaits, rowOf, type RunState } from "./run.ts";
import { readBudget, type Spend } from "./spend.ts";
import type { NewRun } from "./transition.ts";
import type { Workflow } from "./workflow.ts";

export interface BeginOptions {
  runId: string;
  vars?: unknown;
  actorId?: string;
  sessionId?: string;
  parent?: ParentLink;
  queue?: string;
  queueKey?: string;
  priority?: number;
  /** Short texts that queries find the run by. */
  tags?: readonly string[];
  /** Its own budget, and those of the runs above it. */
  budget?: Spend;
  budgets?: readonly ScopedBudget[];
  /** The W3C `traceparent` of what starts it. */
  trace?: string;
  /** Earliest moment to drive it, in milliseconds since 1970. Default: at once. */
  notBefore?: number;
  now: number;
}

export interface Begun extends NewRun {
  state: RunState;
}

/**
 * A new run of `workflow`, standing at its entry. Nothing is stored yet.
 *
 * @throws INVALID_OPTION when an id is no well-formed text; VARS_INVALID when the workflow's schema refuses the vars; NOT_JSON, JSON_TOO_DEEP, TOO_LARGE.
 */
export function beginRun(workflow: Workflow, options: BeginOptions, ids: Ids, limits: Limits): Begun | Promise<Begun> {
  const { runId, actorId, sessionId, queue, queueKey, priority = 0 } = options;
  for (const [option, text] of Object.entries({ runId, workflowId: workflow.id, actorId, sessionId, queue, queueKey }))
    checkText(option, text);
  if (!Number.isInteger(priority) || Math.abs(priority) > highestPriority) {
    const problem = `priority is a whole number from -${highestPriority} to ${highestPriority}, not ${String(priority)}`;
    throw invalidOption("priority", problem);
  }
  checkTags(options.tags);
  if (queueKey !== undefined && queue === undefined) throw invalidOption("queueKey", "queueKey is given and no queue");
  const given = options.vars === undefined ? {} : options.vars;
  const validated = workflow.varsSchema?.["~standard"].validate(given);
  const begin = (result: Awaited<NonNullable<typeof validated>> | undefined): Begun => {
    if (result?.issues) {
      throw new AbstractRuntimeError("VARS_INVALID", { workflowId: workflow.id, issues: issueTexts(result.issues) });
    }
    return encode(workflow, result ? result.value : given, options, ids, limits);
  };
  return isPromise(validated) ? Promise.resolve(validated).then(begin) : begin(validated);
}

/** Few enough that stores may keep due runs apart by priority. */
const highestPriority = 100;

/** What a run is found by stands in indexes, which take no long texts. */
const longestText = 500;

/** Half of a surrogate pair is no character: a store keeps another text for it, under which the run would never be found. */
function checkText(option: string, text: unknown): void {
  if (typeof text === "string" && text.length > longestText)
    throw invalidOption(option, `${option} is longer than ${longestText} characters`);
  if (text === undefined || (typeof text === "string" && text.isWellFormed())) return;
  const problem = typeof text === "string" ? `${JSON.stringify(text)}, which has half of a surrogate pair` : `a ${typeof text}`;
  throw invalidOption(option, `${option} is ${problem}, not well-formed text`);
}

/** @throws INVALID_OPTION */
export function checkTags(tags: unknown, option = "tags"): void {
  if (tags === undefined) return;
  const isTag = (tag: unknown): boolean => typeof tag === "string" && tag !== "" && tag.length <= 200 && tag.isWellFormed();
  if (Array.isArray(tags) && tags.length <= mostTags && tags.every(isTag)) return;
  const problem = `${option} is a list of up to ${mostTags} well-formed texts of 1 to 200 characters`;
  throw invalidOption(option, problem);
}

const mostTags = 64;

export interface RestoreOptions {
  runId: string;
  /** What `plainState` gave, perhaps changed. */
  state: JsonObject;
  origin: Origin;
  actorId?: string;
  now: number;
}

/**
 * A run that goes on from a state which was made elsewhere. Nothing is stored yet.
 *
 * @throws TOO_LARGE, INVALID_OPTION
 */
export function beginRestored({ runId, state: plain, origin, actorId, now }: RestoreOptions, ids: Ids, limits: Limits): Begun {
  checkText("runId", runId);
  checkText("actorId", actorId);
  const place = fromPlain(plain, { runId, seq: 0, head: "", updatedAt: now });
  const { record, stored } = encodeRecord(
    { kind: "run_restored", data: { origin, state: plain } },
    { runId, seq: 0, prev: null, at: now, step: place.step, node: place.node, actorId: actorId ?? place.actorId },
    ids.salt(),
  );
  checkSize(runId, stored, limits);
  const state = fold(undefined, record);
  const waits = openWaits(state);
  return { ...newRun(state, record, stored), ...(waits.length > 0 ? { waits } : {}) };
}

function newRun(state: RunState, { data }: LedgerRecord, record: StoredRecord): Begun {
  const indexed = indexedOf(state);
  const artifacts = artifactIdsIn(record.body as string, data);
  return {
    row: rowOf(state),
    record,
    state,
    ...(Object.keys(indexed).length > 0 ? { indexed } : {}),
    ...(artifacts.length > 0 ? { artifacts } : {}),
  };
}

function checkSize(runId: string, { body }: StoredRecord, limits: Limits): void {
  const sizeBytes = Buffer.byteLength(body as string);
  if (sizeBytes <= limits.varsBytes) return;
  throw new AbstractRuntimeError("TOO_LARGE", { what: `the vars of run ${runId}`, sizeBytes, limitBytes: limits.varsBytes });
}

function encode(workflow: Workflow, value: unknown, options: BeginOptions, ids: Ids, limits: Limits): Begun {
  const vars = toJson(value, "vars", limits.jsonDepth);
  if (!isObject(vars)) throw new AbstractRuntimeError("NOT_JSON", { path: "vars", problem: "the vars of a run are an object" });
  const { runId, actorId, sessionId, parent, queue, queueKey, priority = 0, tags = [], trace, notBefore, now } = options;
  const budgets = budgetsOf(runId, readBudget(options.budget, "the start of a run"), options.budgets);
  const { record, stored } = encodeRecord(
    {
      kind: "run_started",
      data: {
        workflowId: workflow.id,
        version: String(workflow.version),
        entry: workflow.entry,
        vars: vars as JsonObject,
        ...(parent ? { parent } : {}),
        ...(sessionId === undefined ? {} : { sessionId }),
        ...(queue === undefined ? {} : { queue }),
        ...(queueKey === undefined ? {} : { queueKey }),
        ...(priority === 0 ? {} : { priority }),
        ...(workflow.onCancel === undefined ? {} : { onCancel: workflow.onCancel }),
        ...(tags.length > 0 ? { tags: [...new Set(tags)] } : {}),
        ...(workflow.index.length > 0 ? { index: [...workflow.index] } : {}),
        ...(budgets.length > 0 ? { budgets } : {}),
      },
    },
    { runId, seq: 0, prev: null, at: now, step: 1, node: workflow.entry, actorId, trace },
    ids.salt(),
  );
  checkSize(runId, stored, limits);
  return { ...newRun(fold(undefined, record), record, stored), ...(notBefore === undefined ? {} : { notBefore }) };
}
