/**
 * Stands before the one store and sees every call that reaches it: what was acknowledged, and what is durable. Knows a run from its
 * records alone, and checks with each commit what must never happen in between.
 */
import type { Header, StoredRecord } from "../../kernel/record.ts";
import { decodeRecord, type Intent, type LedgerRecord, type ParentLink } from "../../kernel/record.ts";
import type { WaitState } from "../../kernel/run.ts";
import type { Delivery, Message } from "../../kernel/message.ts";
import type { Loaded, NewRun, QueueLimits, Transition } from "../../kernel/transition.ts";
import type { Store } from "../../kernel/store.ts";
import { callStore, type StoreMethod } from "../wrap-store.ts";
import { Violation } from "./violation.ts";

export type End = "completed" | "failed" | "cancelled";

/** What is durable of a run. */
export interface KnownRun {
  readonly runId: string;
  readonly workflowId: string;
  /** Place in the order of creation, from 0. */
  readonly number: number;
  readonly records: StoredRecord[];
  /** When each of them was committed, by the store's clock. */
  readonly committedAt: number[];
  /** Attempts whose start is durable, as `effectId#attempt`. */
  readonly begun: Set<string>;
  /** The effect that each idempotency key was made for: keys are hashes of the records that opened effects. */
  readonly effectOf: Map<string, string>;
  /** Effects that have ended, and whether for good: those that failed are opened again by a retry of the run. */
  readonly closed: Map<string, "completed" | "failed">;
  /** What opened each effect, by its id. */
  readonly intents: Map<string, Intent>;
  /** What it waits for, by effect. Members of a group that ended without them stay here. */
  readonly waits: Map<string, WaitState>;
  /** The last wait of each effect, whether it still stands or not. */
  readonly lastWaits: Map<string, KnownWait>;
  /** Keys of the waits that messages can end, by effect, as the commits told the store. */
  readonly awaited: Map<string, string>;
  readonly parent?: ParentLink;
  /** Retries of the parent when it was created: those that it begins anew are others. */
  readonly generation: number;
  readonly queue?: string;
  ended?: End;
  /** Each end it had: a run that failed may be tried again. */
  readonly ends: End[];
  /** A retry was acknowledged, and it has not gone on yet. */
  retrying: boolean;
  retries: number;
}

/** A run that writes more goes round for ever. */
const mostRecords = 10_000;

/** A wait that became durable. */
export interface KnownWait {
  run: KnownRun;
  effectId: string;
  wait: WaitState;
  /** What the effect is, and where its plan stands. */
  type: string;
  nodeId: string;
}

export interface ObserverHooks {
  /** A wait is durable, or stands again. */
  parked(wait: KnownWait): void;
  ended(run: KnownRun, end: End): void;
  violated(violation: Violation): void;
}

export class Observer {
  readonly runs: KnownRun[] = [];
  readonly #byId = new Map<string, KnownRun>();
  /** Acknowledged messages, by run and id. */
  readonly acknowledged = new Map<string, Message>();
  /** Messages that commits sent, and that the store has to keep. */
  readonly sent: Message[] = [];
  /** Messages that commits sent, kept or not, as `runId\nid`. */
  readonly told = new Set<string>();
  /** Messages that their senders have withdrawn, as `runId\nid`. */
  readonly recalled = new Set<string>();
  /** Runs that were told to end, which need no slot for that. */
  readonly #cancelled = new Set<string>();
  /** What handlers wrote in transactions that were to be committed, with the last record that was to stand with it. */
  readonly transactions: { runId: string; hash: string; written: readonly string[] }[] = [];
  /** Calls that the store has not answered. */
  pending = 0;
  /** Runs that have not ended. */
  live = 0;
  calls = 0;
  lastCommitAt = 0;
  readonly #store: Store;
  readonly #now: () => number;
  readonly #queues: Readonly<Record<string, QueueLimits>>;
  /** When runs of a queue began, by the store's clock. */
  readonly #begins = new Map<string, number[]>();
  readonly #hooks: ObserverHooks;

  constructor(store: Store, now: () => number, queues: Readonly<Record<string, QueueLimits>>, hooks: ObserverHooks) {
    this.#store = store;
    this.#now = now;
    this.#queues = queues;
    this.#hooks = hooks;
    this.lastCommitAt = now();
  }

  get(runId: string): KnownRun | undefined {
    return this.#byId.get(runId);
  }

  async call(method: StoreMethod, args: readonly unknown[]): Promise<unknown> {
    this.calls += 1;
    this.pending += 1;
    try {
      const answer = await callStore(this.#store, method, args);
      try {
        this.#note(method, args, answer);
        if (method === "claim" || method === "create") await this.#checkQueues();
      } catch (error) {
        if (!(error instanceof Violation)) throw error;
        this.#hooks.violated(error);
      }
      return answer;
    } finally {
      this.pending -= 1;
    }
  }

  #note(method: StoreMethod, args: readonly unknown[], answer: unknown): void {
    if (method === "create") {
      for (const [i, run] of (args[0] as NewRun[]).entries()) {
        if (!(answer as boolean[])[i]) continue;
        this.#created(run, true);
        if (args[1] !== undefined) this.#begun(run.row.queue);
      }
    } else if (method === "claim") {
      for (const { row, lease } of answer as Loaded[])
        if (lease?.epoch === 1 && !this.#cancelled.has(row.runId)) this.#begun(row.queue);
    } else if (method === "commit") {
      for (const transition of args[0] as Transition[]) this.#committed(transition);
    } else if (method === "deliver") {
      for (const [i, message] of (args[0] as Message[]).entries()) {
        if ((answer as Delivery[])[i]?.kind === "stored") this.#stored(message);
      }
    }
  }

  #created({ row, record }: NewRun, mustBeNew: boolean): void {
    if (this.#byId.has(row.runId)) {
      if (mustBeNew) throw new Violation("no-transition-twice", "the store created it a second time", row.runId);
      return;
    }
    const first = decodeRecord(row.runId, record);
    const parent = first.kind === "run_started" ? first.data.parent : undefined;
    const run: KnownRun = {
      runId: row.runId,
      workflowId: row.workflowId,
      number: this.runs.length,
      records: [],
      committedAt: [],
      begun: new Set(),
      effectOf: new Map(),
      closed: new Map(),
      intents: new Map(),
      waits: new Map(),
      lastWaits: new Map(),
      awaited: new Map(),
      ends: [],
      ...(parent ? { parent } : {}),
      ...(row.queue === undefined ? {} : { queue: row.queue }),
      generation: (parent && this.#byId.get(parent.runId)?.retries) ?? 0,
      retrying: false,
      retries: 0,
    };
    if (parent) this.#checkWindow(run, parent);
    this.#byId.set(row.runId, run);
    this.runs.push(run);
    this.live += 1;
    this.#recorded(run, record);
  }

  #stored(message: Message): void {
    const key = `${message.runId}\n${message.id}`;
    if (this.acknowledged.has(key))
      throw new Violation("no-message-twice", `the store acknowledged message ${message.id} as new a second time`, message.runId);
    this.acknowledged.set(key, message);
    this.#noteCancel(message);
    if (message.recall) this.recalled.add(`${message.recall.runId}\n${message.recall.id}`);
    const run = this.#byId.get(message.runId);
    if (!message.ifFailed || run?.ended !== "failed" || run.retrying) return;
    run.retrying = true;
    this.live += 1;
  }

  #committed(transition: Transition): void {
    const { runId, records, start, send, waits } = transition;
    const run = this.#byId.get(runId);
    if (!run) throw new Violation("no-transition-twice", "a commit for it succeeded before it was created", runId);
    let isNew = false;
    for (const record of records) isNew = this.#recorded(run, record) || isNew;
    if (!isNew) return;
    this.lastCommitAt = this.#now();
    for (const effectId of waits?.close ?? []) run.awaited.delete(effectId);
    for (const { effectId, waitKey } of waits?.open ?? []) run.awaited.set(effectId, waitKey);
    if (run.ended) run.awaited.clear();
    else if (records.some(({ header }) => header.includes('"kind":"control"'))) this.#standAgain(run, transition);
    for (const child of start) this.#created(child, false);
    for (const message of send) this.#sentWith(message);
  }

  #noteCancel({ runId, kind, key }: Message): void {
    if (kind === "control" && key === "cancel") this.#cancelled.add(runId);
  }

  /** A message that a commit sends is kept as one that is delivered: not by a run that has ended, nor where it waits in vain. */
  #sentWith(message: Message): void {
    const { runId, id, key, ifWaiting } = message;
    this.told.add(`${runId}\n${id}`);
    this.#noteCancel(message);
    const target = this.#byId.get(runId);
    if (!target || target.ended) return;
    if (ifWaiting === true && ![...target.awaited.values()].includes(key)) return;
    if (typeof ifWaiting === "string" && !target.awaited.has(ifWaiting)) return;
    this.sent.push(message);
  }

  /** A retry lets waits stand again that no new record opens. */
  #standAgain(run: KnownRun, { records, waits }: Transition): void {
    const parked = new Set(records.map(({ header }) => JSON.parse(header) as Header).map(({ effectId }) => effectId));
    for (const { effectId } of waits?.open ?? []) {
      const known = run.lastWaits.get(effectId);
      if (!known || parked.has(effectId)) continue;
      run.waits.set(effectId, known.wait);
      this.#hooks.parked(known);
    }
  }

  /** Answers whether it is a record that was not there. */
  #recorded(run: KnownRun, stored: StoredRecord): boolean {
    const { runId, records } = run;
    const before = records[stored.seq];
    if (before) {
      if (before.hash === stored.hash) return false;
      throw new Violation("no-transition-twice", `two commits of record ${stored.seq} succeeded, with different content`, runId);
    }
    if (stored.seq !== records.length)
      throw new Violation("no-transition-twice", `record ${stored.seq} was committed behind record ${records.length - 1}`, runId);
    const header = JSON.parse(stored.header) as Header;
    const { kind, effectId, attempt } = header;
    const goesOn = run.ended === "failed" && (kind === "control" || kind === "delivered");
    if (run.ended && !goesOn)
      throw new Violation("no-transition-twice", `record ${stored.seq} was committed after its end`, runId);
    if (records.length > mostRecords)
      throw new Violation("every-run-ends", `it has written ${mostRecords} records, and goes on`, runId);
    // A copy: what the committer does with its own afterwards is not what was stored.
    records.push({ ...stored });
    run.committedAt.push(this.#now());
    if (run.ended) this.#afterFailure(run, decodeRecord(runId, stored));
    else if (kind.startsWith("run_") && kind !== "run_started") {
      run.ended = kind.slice(4) as End;
      run.ends.push(run.ended);
      this.live -= 1;
      this.#hooks.ended(run, run.ended);
    } else if (effectId !== undefined) this.#effect(run, effectId, attempt, decodeRecord(runId, stored));
    return true;
  }

  /** Of a run that failed: it is tried again, or a message is put aside. */
  #afterFailure(run: KnownRun, { kind, data, seq }: LedgerRecord): void {
    if (kind === "control" && data.action === "retry") {
      if (!run.retrying) this.live += 1;
      run.retrying = false;
      run.retries += 1;
      delete run.ended;
      for (const [effectId, how] of run.closed) if (how === "failed") run.closed.delete(effectId);
    } else if (kind === "delivered" && data.outcome === "ignored") {
      if (data.messageKind !== "control" || data.key !== "retry" || !run.retrying) return;
      run.retrying = false;
      this.live -= 1;
    } else throw new Violation("no-transition-twice", `record ${seq} (${kind}) was committed after its failure`, run.runId);
  }

  #begun(queue: string | undefined): void {
    const rate = queue === undefined ? undefined : this.#queues[queue]?.rateLimit;
    if (queue === undefined || !rate) return;
    const now = this.#now();
    const begins = [...(this.#begins.get(queue) ?? []), now].filter((at) => at > now - rate.periodMs);
    this.#begins.set(queue, begins);
    if (begins.length > rate.limit)
      throw new Violation(
        "queues-keep-limits",
        `${begins.length} runs of queue "${queue}" began within ${rate.periodMs} ms, and ${rate.limit} may`,
      );
  }

  /** What a store says is held is at no moment more than may be. */
  async #checkQueues(): Promise<void> {
    for (const [queue, { concurrency = Number.POSITIVE_INFINITY, keyConcurrency = Number.POSITIVE_INFINITY }] of Object.entries(
      this.#queues,
    )) {
      const { runs } = await this.#store.query({ queue, limit: 1_000 });
      const held = runs.filter(({ runId, holder }) => holder !== undefined && !this.#cancelled.has(runId));
      const keys = new Map<string, number>();
      for (const { queueKey } of held) if (queueKey !== undefined) keys.set(queueKey, (keys.get(queueKey) ?? 0) + 1);
      if (held.length > concurrency)
        throw new Violation("queues-keep-limits", `${held.length} runs of queue "${queue}" are held, and ${concurrency} may be`);
      for (const [key, count] of keys) {
        if (count > keyConcurrency)
          throw new Violation(
            "queues-keep-limits",
            `${count} runs of queue "${queue}" with key "${key}" are held, and ${keyConcurrency} may be`,
          );
      }
    }
  }

  /** A `fan_out` has at most so many children under way at a time. */
  #checkWindow(child: KnownRun, { runId, effectId }: ParentLink): void {
    const fanId = effectId.slice(0, Math.max(0, effectId.lastIndexOf(".")));
    const window = this.#byId.get(runId)?.intents.get(fanId)?.window;
    if (window === undefined) return;
    const isSister = ({ parent, ended, generation }: KnownRun): boolean =>
      parent?.runId === runId && parent.effectId.startsWith(`${fanId}.`) && !ended && generation === child.generation;
    const others = this.runs.filter(isSister).length;
    if (others >= window)
      throw new Violation("children-belong", `fan-out ${fanId} has begun child ${others + 1} of ${window} at a time`, runId);
  }

  #effect(run: KnownRun, effectId: string, attempt: number | undefined, record: LedgerRecord): void {
    const intent = record.kind === "effect_started" || record.kind === "parked" ? record.data.intent : undefined;
    if (intent) {
      run.effectOf.set(record.hash, effectId);
      run.intents.set(effectId, intent);
    }
    run.waits.delete(effectId);
    if (record.kind === "effect_started") run.begun.add(`${effectId}#${attempt ?? 1}`);
    const how = closes(record);
    if (how) {
      if (run.closed.has(effectId))
        throw new Violation("no-transition-twice", `record ${record.seq} closes effect ${effectId} a second time`, run.runId);
      run.closed.set(effectId, how);
    }
    const wait = record.kind === "parked" || record.kind === "effect_uncertain" ? record.data.wait : undefined;
    if (wait) {
      const known = { run, effectId, wait, type: run.intents.get(effectId)?.type ?? "", nodeId: record.node };
      run.waits.set(effectId, wait);
      run.lastWaits.set(effectId, known);
      this.#hooks.parked(known);
    }
  }
}

/** Whether a record ends its effect, and how. */
export function closes(record: LedgerRecord): "completed" | "failed" | undefined {
  switch (record.kind) {
    case "effect_completed":
      return "completed";
    case "effect_failed":
      return record.data.retryAt === undefined ? "failed" : undefined;
    case "delivered":
      if (record.data.outcome === "failed") return "failed";
      return record.data.outcome === "result" ? "completed" : undefined;
    default:
      return undefined;
  }
}
