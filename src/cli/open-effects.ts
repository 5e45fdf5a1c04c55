/** What a run has under way, read from its ledger: executing, backing off, parked, in groups. For showing; what drives a run is the fold. */
import { type LedgerRecord, parseJson, type Run, type Runtime } from "../index.ts";

type RecordOf<K extends LedgerRecord["kind"]> = Extract<LedgerRecord, { kind: K }>;
type Intent = NonNullable<RecordOf<"effect_started">["data"]["intent"]>;
type WaitState = RecordOf<"parked">["data"]["wait"];
type Phase = "executing" | "backing_off" | "parked" | "joining" | "failed";

export interface OpenEffect extends Intent {
  id: string;
  /** `joining`: an `all`, `any` or `fan_out`, which waits for its members. */
  phase: Phase;
  /** The one that is under way, or that was made last; 0 for what is only a wait. */
  attempt: number;
  /** Since when it is in this phase, in milliseconds since 1970. */
  since: number;
  retryAt?: number;
  wait?: WaitState;
  /** What the last attempt came to. */
  failure?: string;
  /** Of a group or `fan_out`: the members that have ended, by index; what failed in it. */
  ended: Set<number>;
  failed: Set<number>;
  /** Of a `fan_out`: how many children have been begun. */
  started: number;
  /** Of a member whose group failed: what it was then. */
  was?: Phase;
}

interface LeftToUndo {
  effectId: string;
  type: string;
  node: string;
}

const pageSize = 500;

/** In the order in which they were opened. Only the present step has any: whatever moves a run on closes them. */
export async function openEffectsOf(runtime: Runtime, run: Run): Promise<OpenEffect[]> {
  const open = new Map<string, OpenEffect>();
  const records = await recordsOfStep(runtime, run);
  if (run.archivedBefore !== undefined && records[0]?.seq === run.archivedBefore) await beginArchived(open, runtime, run);
  for (const record of records) apply(open, record);
  return [...open.values()].filter(({ phase }) => phase !== "failed");
}

/** The completed effects of a run that are still to be undone, the next one first, of which records are kept. Reads the whole ledger. */
export async function leftToUndo(runtime: Runtime, run: Run): Promise<LeftToUndo[]> {
  const intents = new Map<string, { intent: Intent; node: string }>();
  const left = new Map<string, LeftToUndo>();
  // What a run does to clean up after its cancel stays.
  let cleaning = false;
  for (let from = run.archivedBefore ?? 0; from <= run.seq; from += pageSize) {
    for (const record of await runtime.ledger(run.runId, { from, limit: pageSize })) {
      const { effectId, node } = record;
      if (record.kind === "step" && record.data.cleanup) cleaning = true;
      if (effectId === undefined) continue;
      if ((record.kind === "effect_started" || record.kind === "parked") && record.data.intent)
        intents.set(effectId, { intent: record.data.intent, node });
      const opened = intents.get(effectId);
      if (!opened || !closes(record)) continue;
      const { intent } = opened;
      if (intent.undoes !== undefined) left.delete(intent.undoes);
      else if (intent.undo && !cleaning && record.kind !== "effect_failed")
        left.set(effectId, { effectId, type: intent.type, node: opened.node });
    }
  }
  return [...left.values()].reverse();
}

function closes(record: LedgerRecord): boolean {
  if (record.kind === "effect_completed") return true;
  if (record.kind === "effect_failed") return record.data.retryAt === undefined;
  return record.kind === "delivered" && record.data.outcome === "result";
}

async function recordsOfStep(runtime: Runtime, { runId, seq, step, archivedBefore = 0 }: Run): Promise<LedgerRecord[]> {
  const pages: LedgerRecord[][] = [];
  for (let to = seq + 1; to > archivedBefore; to -= pageSize) {
    const from = Math.max(archivedBefore, to - pageSize);
    const page = await runtime.ledger(runId, { from, limit: to - from });
    pages.unshift(page.filter((record) => record.step === step));
    if (page[0]?.step !== step) break;
  }
  return pages.flat();
}

function apply(open: Map<string, OpenEffect>, record: LedgerRecord): void {
  if (record.kind === "run_restored") return begin(open, record);
  if (record.kind === "undoing") return open.clear();
  if (record.kind === "control" && record.data.action === "retry") return reopen(open, record.at);
  const { effectId, at } = record;
  if (effectId === undefined) return;
  if ((record.kind === "effect_started" || record.kind === "parked") && record.data.intent)
    open.set(effectId, {
      ...record.data.intent,
      id: effectId,
      phase: "executing",
      attempt: 0,
      since: at,
      ended: new Set(),
      failed: new Set(),
      started: 0,
    });
  const effect = open.get(effectId);
  if (!effect) return;
  const enter = (phase: Phase): void => {
    effect.phase = phase;
    effect.since = at;
  };
  const backOff = (retryAt: number): void => {
    enter("backing_off");
    effect.retryAt = retryAt;
    delete effect.wait;
  };
  switch (record.kind) {
    case "effect_started":
      effect.attempt = record.attempt ?? 1;
      return enter(effect.members === undefined ? "executing" : "joining");
    case "parked":
      effect.wait = record.data.wait;
      if (record.data.started === undefined) return enter("parked");
      effect.started = record.data.started;
      return;
    case "effect_completed":
      return close(open, effect);
    case "effect_failed":
      effect.failure = record.data.error.message;
      return record.data.retryAt === undefined ? fail(open, effect) : backOff(record.data.retryAt);
    case "effect_uncertain":
      effect.failure = record.data.reason;
      if (record.data.wait) {
        effect.wait = record.data.wait;
        return enter("parked");
      }
      return record.data.retryAt === undefined ? undefined : backOff(record.data.retryAt);
    case "delivered": {
      const { outcome, index = -1, result, error } = record.data;
      if (outcome === "result") return close(open, effect);
      if (outcome === "failed") return fail(open, effect);
      if (outcome === "retry" || outcome === "again") return backOff(at);
      if (outcome !== "member") return;
      effect.ended.add(index);
      const status = typeof result === "object" && result !== null && "status" in result ? result.status : "completed";
      if (error || (effect.collect && status !== "completed")) effect.failed.add(index);
      return;
    }
    default:
  }
}

/** A run that was brought in may begin with a wait. */
function begin(open: Map<string, OpenEffect>, { data, at }: RecordOf<"run_restored">): void {
  beginWith(open, data.state.open as unknown as Restored[], at);
}

/** What was opened by records that are archived stands in the checkpoint that they came to. */
async function beginArchived(open: Map<string, OpenEffect>, runtime: Runtime, { runId, archivedBefore = 0 }: Run): Promise<void> {
  const checkpoints = await runtime.store.checkpoints(runId);
  const text = checkpoints.find(({ seq }) => seq === archivedBefore - 1)?.text;
  if (text === undefined) return;
  const state = parseJson(text.slice(text.indexOf("\n") + 1)) as unknown as { open: Restored[]; updatedAt: number };
  beginWith(open, state.open, state.updatedAt);
}

type Restored = Omit<OpenEffect, "since" | "ended" | "failed" | "started">;

function beginWith(open: Map<string, OpenEffect>, effects: readonly Restored[], at: number): void {
  for (const effect of effects)
    open.set(effect.id, { ...effect, since: effect.wait?.since ?? at, ended: new Set(), failed: new Set(), started: 0 });
}

function close(open: Map<string, OpenEffect>, effect: OpenEffect): void {
  open.delete(effect.id);
  for (const id of open.keys()) if (id.startsWith(`${effect.id}.`)) open.delete(id);
  groupOf(open, effect)?.ended.add(effect.index ?? -1);
}

function fail(open: Map<string, OpenEffect>, effect: OpenEffect): void {
  effect.phase = "failed";
  for (const member of open.values()) {
    if (!member.id.startsWith(`${effect.id}.`) || member.phase === "failed") continue;
    member.was = member.phase;
    member.phase = "failed";
  }
  const group = groupOf(open, effect);
  group?.ended.add(effect.index ?? -1);
  group?.failed.add(effect.index ?? -1);
}

function groupOf(open: Map<string, OpenEffect>, { parent }: OpenEffect): OpenEffect | undefined {
  return parent === undefined ? undefined : open.get(parent);
}

/** The run was tried again: what had failed in it is open once more, but for members whose failures are part of a result. */
function reopen(open: Map<string, OpenEffect>, at: number): void {
  for (const effect of open.values()) {
    const group = groupOf(open, effect);
    if (effect.phase !== "failed" || (group?.collect && !effect.was)) continue;
    effect.phase = effect.was ?? phaseAnew(effect);
    effect.since = at;
    if (effect.phase === "backing_off") effect.retryAt = at;
    delete effect.was;
    group?.ended.delete(effect.index ?? -1);
    group?.failed.delete(effect.index ?? -1);
    if (effect.window === undefined) continue;
    // The children that were under way were cancelled when the run failed.
    effect.started = 0;
    delete effect.wait;
    if (effect.collect) continue;
    for (const index of effect.failed) effect.ended.delete(index);
    effect.failed.clear();
  }
}

function phaseAnew({ members, type, attempt, wait }: OpenEffect): Phase {
  if (members !== undefined) return "joining";
  if (type === "start_subworkflow") return "executing";
  return attempt === 0 && wait ? "parked" : "backing_off";
}
