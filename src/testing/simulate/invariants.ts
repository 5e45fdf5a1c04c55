/** What must be true when everything has ended. What must be true of every commit and call is checked by `observer` and `calls`. */
import type { Run, Runtime } from "../../index.ts";
import { equalJson } from "../../kernel/json.ts";
import { decodeRecord, type LedgerRecord } from "../../kernel/record.ts";
import type { Message } from "../../kernel/message.ts";
import type { Store } from "../../kernel/store.ts";
import type { HandlerCall } from "./calls.ts";
import type { KnownRun, Observer } from "./observer.ts";
import { checkStory, takes } from "./stories.ts";
import { Violation } from "./violation.ts";
import type { World } from "./world.ts";

/** How a seed ended, for checks of one's own. */
export interface SimulationEnd {
  seed: number;
  /** All runs, children included, in the order of their creation. */
  runs: Run[];
  /** The ledger of each run, by run id. */
  records: ReadonlyMap<string, readonly LedgerRecord[]>;
  /** All calls of handlers, in order. */
  calls: readonly HandlerCall[];
}

/** A check of one's own: throws, or rejects, when it does not hold. */
export type SimulationInvariant = (end: SimulationEnd) => void | Promise<void>;

export interface Ended {
  seed: number;
  observer: Observer;
  calls: readonly HandlerCall[];
  world: World;
  store: Store;
  /** Over the store itself, without faults. */
  inspector: Runtime;
}

/** @throws Violation */
export async function checkEnd(ended: Ended, users: readonly SimulationInvariant[]): Promise<void> {
  const { observer, store, inspector, calls, world, seed } = ended;
  const records = new Map<string, LedgerRecord[]>();
  const runs: Run[] = [];
  for (const known of observer.runs) {
    const ledger = known.records.map((stored) => decodeRecord(known.runId, stored));
    records.set(known.runId, ledger);
    await checkLedger(known, store, inspector);
    checkStory(known.runId, ledger, known.committedAt);
    runs.push(await inspector.get(known.runId));
  }
  checkChildren(observer, records);
  await checkMessages(observer, store, records);
  const byKey = new Map<string, HandlerCall[]>();
  for (const call of calls) {
    const group = byKey.get(call.idempotencyKey);
    if (group) group.push(call);
    else byKey.set(call.idempotencyKey, [call]);
  }
  for (const [key, made] of byKey) checkCalls(key, made, observer, records);
  checkTransactions(byKey, observer, records);
  for (const { runId, output } of world.told) {
    const run = runs.find((one) => one.runId === runId);
    if (output !== undefined && !equalJson(run?.output ?? null, output))
      throw new Violation("promises-kept", "a caller was told another output than it has", runId);
  }
  await checkNothingHeld(store);
  for (const invariant of users) {
    try {
      await invariant({ seed, runs, records, calls });
    } catch (error) {
      throw error instanceof Violation ? error : new Violation("users", error instanceof Error ? error.message : String(error));
    }
  }
}

/** The store has what was acknowledged, unchanged, and its row is the fold. */
async function checkLedger(known: KnownRun, store: Store, inspector: Runtime): Promise<void> {
  const { runId, records } = known;
  const first = (await store.load(runId))?.archivedBefore ?? 0;
  const stored = await store.records(runId, first, Number.MAX_SAFE_INTEGER);
  for (const [seq, { hash }] of records.entries()) {
    const kept = stored[seq - first];
    if (kept?.hash === hash || seq < first) continue;
    const problem = `record ${seq} was acknowledged, and the store has ${kept ? "another one" : "none"}`;
    throw new Violation("no-transition-twice", problem, runId);
  }
  const { ok, problems } = await inspector.verify(runId);
  if (!ok)
    throw new Violation("ledger-holds", problems.map(({ seq, problem }) => `${seq ?? "row"}: ${problem}`).join("; "), runId);
}

/** Of what a run began and waited for, it took the end, or it has told it that nobody waits any more. */
function checkChildren(observer: Observer, records: ReadonlyMap<string, readonly LedgerRecord[]>): void {
  const begun = new Set<string>();
  for (const { runId, parent, generation } of observer.runs) {
    if (!parent || parent.detached) continue;
    const ledger = records.get(parent.runId) ?? [];
    const name = JSON.stringify([parent.runId, parent.effectId, generation]);
    if (begun.has(name)) throw new Violation("children-belong", `effect ${parent.effectId} has begun two children`, parent.runId);
    begun.add(name);
    const isTaken = ledger.some((record) => isEndOf(record, runId));
    if (isTaken || observer.told.has(`${runId}\ncancel:${parent.runId}`)) continue;
    const problem = `it has ended, and has neither taken the end of child ${runId} nor cancelled it`;
    throw new Violation("children-belong", problem, parent.runId);
  }
}

function isEndOf(record: LedgerRecord, childRunId: string): boolean {
  return (
    record.kind === "delivered" && record.data.messageKind === "child_end" && record.data.key === `subworkflow:${childRunId}`
  );
}

async function checkMessages(
  observer: Observer,
  store: Store,
  records: ReadonlyMap<string, readonly LedgerRecord[]>,
): Promise<void> {
  const taken = new Map<string, Set<string | undefined>>();
  for (const [runId, ledger] of records) taken.set(runId, new Set(ledger.map(takes)));
  const boxes = new Map<string, Set<string>>();
  for (const message of [...observer.acknowledged.values(), ...observer.sent]) {
    const { id, runId } = message;
    if (taken.get(runId)?.has(id) || observer.recalled.has(`${runId}\n${id}`)) continue;
    let box = boxes.get(runId);
    if (!box) {
      box = new Set((await store.load(runId))?.mail.map((mail) => mail.id));
      boxes.set(runId, box);
    }
    if (!box.has(id))
      throw new Violation(
        "no-message-lost",
        `${described(message)} was acknowledged, and is neither taken nor in the mailbox`,
        runId,
      );
  }
}

function described({ id, kind, key }: Message): string {
  return `message ${id} (${kind} "${key}")`;
}

/** What a transactional effect wrote stands as often as an outcome of it is recorded. */
function checkTransactions(
  byKey: ReadonlyMap<string, readonly HandlerCall[]>,
  observer: Observer,
  records: ReadonlyMap<string, readonly LedgerRecord[]>,
): void {
  const hashes = new Set(observer.runs.flatMap((run) => run.records.map(({ hash }) => hash)));
  const written = observer.transactions.filter(({ hash }) => hashes.has(hash)).flatMap((transaction) => transaction.written);
  for (const [key, [call]] of byKey) {
    if (!call?.transactional) continue;
    const { runId, effectType } = call;
    const effectId = observer.get(runId)?.effectOf.get(key);
    const ledger = records.get(runId) ?? [];
    const opened = ledger.findIndex(({ hash }) => hash === key);
    const isOutcome = ({ kind, attempt }: LedgerRecord): boolean =>
      attempt !== undefined && (kind === "effect_completed" || kind === "parked");
    const outcomes = ledger.filter((record) => record.seq > opened && record.effectId === effectId && isOutcome(record)).length;
    const times = written.filter((one) => one === key).length;
    if (times !== outcomes)
      throw new Violation(
        "effects-keep-their-kind",
        `effect "${effectType}": what it wrote in transactions stands ${times} times, and ${outcomes} outcomes do`,
        runId,
      );
  }
}

/** Of one idempotency key. */
function checkCalls(
  key: string,
  calls: readonly HandlerCall[],
  observer: Observer,
  records: ReadonlyMap<string, readonly LedgerRecord[]>,
): void {
  const [first] = calls as [HandlerCall];
  const { runId, effectType, speculative, onUncertain } = first;
  const wrong = (problem: string): never => {
    throw new Violation("effects-keep-their-kind", `effect "${effectType}": ${problem}`, runId);
  };
  const run = observer.get(runId);
  const effectId = run?.effectOf.get(key);
  // A speculative effect may have run ahead of a commit that never came.
  if (speculative) return;
  if (effectId === undefined) return wrong("its handler was called, and no record requests it");
  const opened = run?.records.findIndex(({ hash }) => hash === key) ?? 0;
  const mine = (records.get(runId) ?? []).slice(opened).filter((record) => record.effectId === effectId || isRetry(record));
  const end = mine.findIndex((record, i) => i > 0 && "intent" in record.data && record.data.intent !== undefined);
  const history = end < 0 ? mine : mine.slice(0, end);
  const attempts = history.filter(({ kind }) => kind === "effect_started").length;
  const called = new Set(calls.map(({ attempt }) => attempt)).size;
  if (called > attempts) wrong(`its handler was called for ${called} attempts, and ${attempts} are recorded`);
  if (onUncertain === "retry") return;
  for (const [i, call] of calls.entries()) {
    const next = calls[i + 1];
    // A definite failure that was recorded as one may be tried again; anything else only where somebody said so. A call that calls off is
    // no other attempt at it.
    if (!next || next.cancelled) return;
    const between = history.filter(
      (record) => record.seq > startOf(history, call.attempt) && record.seq < startOf(history, next.attempt),
    );
    const allowed = between.some(
      (record) =>
        isRetry(record) ||
        (record.kind === "delivered" && record.data.outcome === "retry") ||
        (record.kind === "parked" && call.outcome === "waiting") ||
        (record.kind === "effect_failed" && !record.data.interrupted && call.outcome === "definite"),
    );
    if (!allowed)
      wrong(
        `(onUncertain: "${onUncertain}") attempt ${next.attempt} was called though attempt ${call.attempt} may have happened`,
      );
  }
}

/** Whoever has a failed run tried again says so of the effect that failed it, too. */
function isRetry(record: LedgerRecord): boolean {
  return record.kind === "control" && record.data.action === "retry";
}

function startOf(history: readonly LedgerRecord[], attempt: number): number {
  return history.find((record) => record.kind === "effect_started" && (record.attempt ?? 1) === attempt)?.seq ?? -1;
}

async function checkNothingHeld(store: Store): Promise<void> {
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page = await store.query({ limit: 1_000, ...(cursor === undefined ? {} : { cursor }) });
    const held = page.runs.find(({ holder }) => holder !== undefined);
    if (held) throw new Violation("nothing-held", `it has ended and is leased to ${held.holder}`, held.runId);
    cursor = page.next;
  }
}
