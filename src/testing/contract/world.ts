/** What each test of the contract is given: a store of its own, and runs whose ledgers are real. */
import assert from "node:assert/strict";
import { beginRun, type Begun } from "../../kernel/begin.ts";
import type { Clock, Ids } from "../../kernel/clock.ts";
import { type ErrorCode, isError } from "../../kernel/errors.ts";
import { defaultLimits } from "../../kernel/execute.ts";
import { fold } from "../../kernel/fold.ts";
import { restore } from "../../kernel/restore.ts";
import type { Json, JsonObject } from "../../kernel/json.ts";
import { complete, goto } from "../../kernel/plan.ts";
import { encodeRecord, type RecordDraft } from "../../kernel/record.ts";
import { encodeState, indexedOf, openWaits, rowOf, type RunState, type WaitReason } from "../../kernel/run.ts";
import type { Capability, Lease, Loaded, NewRun, Transition } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { Message } from "../../kernel/message.ts";
import type { LoadOptions, Store } from "../../kernel/store.ts";
import { defineWorkflow } from "../../kernel/workflow.ts";
import type { TestClock } from "../clock.ts";
import { testIds } from "../ids.ts";

export type Case = (world: World) => Promise<void>;

export interface RunOptions {
  runId?: string;
  workflowId?: string;
  vars?: JsonObject;
  parent?: { runId: string; effectId: string };
  queue?: string;
  queueKey?: string;
  priority?: number;
  tags?: string[];
  /** Paths of the vars that queries find it by. */
  index?: string[];
  actorId?: string;
  sessionId?: string;
}

export class World {
  readonly store: Store;
  readonly clock: TestClock;
  readonly ids: Ids = testIds();
  /** Closes the store and opens it again; undefined where it cannot be, or is reopened all the time. */
  readonly reopen: (() => Promise<Store>) | undefined;

  /** Whether the store is reopened all the time. */
  readonly isRestless: boolean;

  constructor(store: Store, clock: TestClock, reopen: (() => Promise<Store>) | undefined, isRestless = false) {
    this.store = store;
    this.clock = clock;
    this.reopen = reopen;
    this.isRestless = isRestless;
  }

  /** A run that is not stored yet. */
  newRun({ runId = this.ids.id(), workflowId = "work", parent, index, ...options }: RunOptions = {}): Begun {
    const workflow = defineWorkflow({
      id: workflowId,
      entry: "work",
      ...(index ? { index } : {}),
      nodes: { work: () => goto("rest"), rest: () => complete() },
    });
    const link = parent ? { parent: { ...parent, depth: 1 } } : {};
    return beginRun(workflow, { runId, ...options, ...link, now: this.clock.now() }, this.ids, defaultLimits) as Begun;
  }

  /** A worker that is known for a minute. */
  async worker(options: Partial<Capability> = {}): Promise<Capability> {
    const worker = { workerId: this.ids.id(), fingerprint: "code 1", ...options };
    await this.store.renew(worker.workerId, minute);
    return worker;
  }

  /** A stored run, leased to a worker, and what that worker does with it. */
  async held(options: RunOptions = {}, worker?: Capability): Promise<Holder> {
    const { workerId } = worker ?? (await this.worker());
    const { state, ...run } = this.newRun(options);
    assert.deepEqual(await this.store.create([run], workerId), [true]);
    return this.holder(state, { workerId, epoch: 1 });
  }

  holder(state: RunState, lease: Lease): Holder {
    return new Holder(state, lease, this.clock, this.ids);
  }

  /** A stored run that waits under the key "go" and is leased to nobody. */
  async parked(options: RunOptions & Partial<Parking> = {}, worker?: Capability): Promise<Holder> {
    const { waitKey = "go", reason, until, effectId, ...run } = options;
    const holder = await this.held(run, worker);
    await this.store.commit([holder.next([park({ waitKey, reason, until, effectId })], { release: true })]);
    return holder;
  }

  /** Claims one run by name and goes on with it as its new holder. */
  async takeOver(holder: Holder, worker?: Capability): Promise<Holder> {
    const [loaded] = await this.store.claim(worker ?? (await this.worker()), { limit: 1, runId: holder.runId });
    assert.ok(loaded?.lease, `run ${holder.runId} was not given to the claimer`);
    return holder.twin(loaded.lease);
  }

  /** The ids of the runs that a new worker gets. */
  async claimable(options: Partial<Capability> = {}): Promise<string[]> {
    return idsOf(await this.store.claim(await this.worker(options), { limit: 1_000 }));
  }

  async load(runId: string, options?: LoadOptions): Promise<Loaded> {
    const loaded = await this.store.load(runId, options);
    assert.ok(loaded, `there is no run ${runId}`);
    return loaded;
  }
}

export const minute = 60_000;

/** Makes transitions as a driver would: real records, and the row that is their fold. */
export class Holder {
  readonly lease: Lease;
  state: RunState;
  mailSeen = 0;
  readonly #clock: Clock;
  readonly #ids: Ids;

  constructor(state: RunState, lease: Lease, clock: Clock, ids: Ids) {
    this.state = state;
    this.lease = lease;
    this.#clock = clock;
    this.#ids = ids;
  }

  get runId(): string {
    return this.state.runId;
  }

  /** Another holder that knows as much as this one and goes its own way from here. */
  twin(lease: Lease = this.lease): Holder {
    const twin = new Holder(structuredClone(this.state), lease, this.#clock, this.#ids);
    twin.mailSeen = this.mailSeen;
    return twin;
  }

  /** The next transition. The holder goes on as if it were committed. */
  next(drafts: readonly RecordDraft[], options: Partial<Transition> = {}): Transition {
    const { runId, seq: after } = this.state;
    const waited = new Set(openWaits(this.state).map(({ effectId }) => effectId));
    const before = indexedOf(this.state);
    const records = drafts.map((draft) => {
      const { seq, head, step, node, actorId } = this.state;
      const place = { runId, seq: seq + 1, prev: head, at: this.#clock.now(), step, node, actorId };
      const { record, stored } = encodeRecord(draft, place, this.#ids.salt());
      this.state = fold(this.state, record);
      return stored;
    });
    const row = structuredClone(rowOf(this.state));
    const waiting = openWaits(this.state);
    const open = waiting.filter(({ effectId }) => !waited.delete(effectId));
    const waits = open.length > 0 || waited.size > 0 ? { waits: { open, close: [...waited] } } : {};
    const now = indexedOf(this.state);
    const changed = Object.keys({ ...before, ...now }).filter((path) => before[path] !== now[path]);
    const indexed = Object.fromEntries(changed.map((path) => [path, now[path] ?? null]));
    return {
      runId,
      lease: { ...this.lease },
      after,
      records,
      row,
      ...waits,
      ...(changed.length > 0 ? { indexed } : {}),
      take: [],
      send: [],
      start: [],
      release: false,
      mailSeen: this.mailSeen,
      ...options,
    };
  }

  /** A checkpoint of where the holder stands. */
  checkpoint(ordinal: number): Checkpoint {
    return { seq: this.state.seq, ordinal, text: encodeState(this.state) };
  }
}

/** A node ran: it wrote `note` into the vars and goes on. */
export function goOn(note: Json = null): RecordDraft {
  return { kind: "step", data: { patch: [{ op: "add", path: "/note", value: note }], nextNode: "work" } };
}

interface Parking {
  effectId?: string;
  waitKey: string;
  reason?: WaitReason;
  since?: number;
  until?: number;
}

export function park({ effectId = "1", waitKey, reason = "event", since = 0, until }: Parking): RecordDraft {
  const wait = { reason, waitKey, since, ...(until === undefined ? {} : { until }) };
  return { kind: "parked", effectId, data: { intent: { type: "wait_event", payload: null, nextNode: "work" }, wait } };
}

/** A message was taken; the wait is over. */
export function taken(message: Pick<Message, "id" | "kind" | "key" | "payload">, effectId = "1"): RecordDraft {
  const { id, kind, key, payload } = message;
  return { kind: "delivered", effectId, data: { messageId: id, messageKind: kind, key, payload, outcome: "result" } };
}

export function finish(output: Json = {}): RecordDraft {
  return { kind: "run_completed", data: { output } };
}

export function failing(): RecordDraft {
  return { kind: "run_failed", data: { error: { name: "Error", message: "failed" } } };
}

/** A failed run is tried again. */
export function retried(): RecordDraft {
  return { kind: "control", data: { action: "retry", messageId: "retry" } };
}

export function message(runId: string, options: Partial<Message> = {}): Message {
  return { id: "m1", runId, kind: "event", key: "go", payload: { n: 1 }, ...options };
}

export function idsOf(loaded: readonly Loaded[]): string[] {
  return loaded.map(({ row }) => row.runId);
}

export function foldedOf(loaded: Loaded): RunState {
  return restore(loaded.row.runId, loaded).state;
}

/** What `create` takes, without the state that `newRun` gives beside it. */
export function stored({ row, record, indexed }: NewRun, notBefore?: number): NewRun {
  return { row, record, ...(indexed ? { indexed } : {}), ...(notBefore === undefined ? {} : { notBefore }) };
}

/** Equal as data: a member that is undefined counts as missing. */
export function same(actual: unknown, expected: unknown, message?: string): void {
  assert.deepEqual(plain(actual), plain(expected), message);
}

function plain(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .map(([key, member]) => [key, plain(member)]),
  );
}

export async function refuses(promise: Promise<unknown>, code: ErrorCode): Promise<void> {
  await assert.rejects(promise, (error) => {
    assert.ok(isError(error, code), `expected ${code}, got ${String(error)}`);
    return true;
  });
}

/** Awaits all; the codes of those that were rejected, "ok" for the others. */
export async function outcomes(promises: readonly Promise<unknown>[]): Promise<string[]> {
  const settled = await Promise.allSettled(promises);
  return settled.map((one) =>
    one.status === "fulfilled" ? "ok" : ((one.reason as { code?: string }).code ?? String(one.reason)),
  );
}
