/**
 * A record is one line of a run's ledger: a header and a body, each encoded to text once.
 *
 * R1. The header is small and holds no user data. Its exact text is hashed; `prev` is the hash of the header before.
 * R2. The header carries the SHA-256 of the body's exact text. A body can be withheld or destroyed and the chain of
 *     headers still verifies.
 * R3. A body's text starts with a random salt, so that a missing body's content cannot be guessed and tested.
 * R4. Verification hashes stored texts; it never encodes anything again.
 */
import { hash } from "node:crypto";
import type { ScopedBudget } from "./budget.ts";
import { AbstractRuntimeError, type ErrorData } from "./errors.ts";
import { type Json, type JsonObject, parseJson } from "./json.ts";
import type { Patch } from "./patch.ts";
import type { Ref } from "./refs.ts";
import type { WaitState } from "./run.ts";

/** The format of records written by this version. Readers refuse newer ones (FORMAT_NEWER) and read all older ones. */
export const formatVersion = 1;

/** What opens an effect; the same in `effect_started` and in `parked` for effects that are nothing but a wait. */
export interface Intent {
  type: string;
  payload: Json;
  /** Parts of `payload` that stand in the vars instead of being written again. */
  refs?: Ref[];
  resultKey?: string;
  /** Where the run goes on; only on the effect that a node's plan requested, not on members of `all` and `any`. */
  nextNode?: string;
  errorNode?: string;
  timeoutNode?: string;
  /** The `all` or `any` that this effect is a member of, and its place in it. */
  parent?: string;
  index?: number;
  /** How many members an `all` or `any` has, or children a `fan_out`. */
  members?: number;
  /** How many children of a `fan_out` may be under way at a time. */
  window?: number;
  /** Of a group: failures of members are part of the result and end nothing. */
  collect?: true;
  /** Once completed, it is undone should the run fail or be cancelled. */
  undo?: true;
  /** The completed effect that this one undoes. */
  undoes?: string;
}

/** The body of each kind of record. Every body may carry the `patch` of the node that ran just before it. */
export interface Bodies {
  run_started: {
    workflowId: string;
    version: string;
    entry: string;
    vars: JsonObject;
    parent?: ParentLink;
    sessionId?: string;
    queue?: string;
    queueKey?: string;
    priority?: number;
    /** The workflow's `onCancel`, for workers that do not have its code. */
    onCancel?: string;
    tags?: string[];
    /** Dotted paths of the vars that queries find the run by. */
    index?: string[];
    /** What it may spend, and who shares that: its own budget first. */
    budgets?: ScopedBudget[];
  };
  /** The first record of a run that goes on from a state which was made elsewhere, as `plainState` gives it. */
  run_restored: { origin: Origin; state: JsonObject };
  /** A node changed vars and named the next node. `cleanup`: the run was cancelled and goes to its workflow's `onCancel`. */
  step: { patch?: Patch; nextNode: string; cleanup?: true };
  /**
   * An attempt begins. The first record of an effect carries the intent: with attempt 1, or 0 when it is to wait for a slot. Of an effect
   * that waits, it says that the wait is over by its deadline or by a cancel, and that the handler is called again.
   */
  effect_started: { patch?: Patch; intent?: Intent };
  /** `collect`: the result is what the members of a group gave, and is not written again; `closed` are those it does not wait for. */
  effect_completed: { result: Json } | { collect: true; closed?: string[] };
  /**
   * Without `retryAt` the failure is final; with `nextNode` the run goes on there. `interrupted`: the process ended, not the
   * attempt, which does not count.
   */
  effect_failed: { error: ErrorData; retryAt?: number; nextNode?: string; interrupted?: true };
  /** The attempt may or may not have happened. `wait` asks a person; `retryAt` is the next attempt. */
  effect_uncertain: { reason: string; error?: ErrorData; retryAt?: number; wait?: WaitState };
  /** `started`: so many children of a `fan_out` have been begun, but for `refused` ones, whose vars were not accepted. */
  parked: { patch?: Patch; intent?: Intent; wait: WaitState; started?: number; refused?: { index: number; error: ErrorData }[] };
  /** A mailbox message was taken, and what came of it. */
  delivered: {
    messageId: string;
    messageKind: string;
    key: string;
    payload: Json;
    /** `again`: the handler that asked is called again with it. */
    outcome: "result" | "failed" | "retry" | "again" | "member" | "ignored";
    /** With outcome `member`: which child of a `fan_out` this is the end of. */
    index?: number;
    /** What the effect gives, where that is not the payload itself. */
    result?: Json;
    error?: ErrorData;
    nextNode?: string;
  };
  /**
   * `retry`: a run that failed goes on from where it failed. `archived`: the records before seq `before` are kept elsewhere, and not in the
   * store; `hash` is that of the last of them, so that whoever has them can show that they are the ones.
   */
  control: { action: ControlAction; messageId: string; reason?: string; before?: number; hash?: string };
  /** The run goes on under another version of its workflow. */
  migrated: { from: string; to: string; patch?: Patch; nodes?: Record<string, string> };
  /** Nothing new begins: completed effects are undone, last first, and then the run ends as failed, or cancelled with these. */
  undoing: { patch?: Patch; error?: ErrorData; output?: Json };
  run_completed: { patch?: Patch; output: Json };
  run_failed: { patch?: Patch; error: ErrorData };
  /** `output` or `error` are what the nodes from `onCancel` on came to. */
  run_cancelled: { patch?: Patch; reason?: string; output?: Json; error?: ErrorData };
}

export const controlActions = ["pause", "unpause", "cancel", "retry", "archived"] as const;
export type ControlAction = (typeof controlActions)[number];

/** Where the state of a restored run comes from. */
export type Origin =
  /** Another run of this kind, as it stood after the record named. */
  | { kind: "fork"; runId: string; seq: number; hash: string; snapshotId?: string }
  /** A run of the Python package AbstractRuntime 0.0.1: its ledger had so many records, and this was the hash of the last. */
  | { kind: "python"; records: number; head: string | null; [detail: string]: Json };

/** What a child knows of the run that started it. */
export interface ParentLink {
  runId: string;
  effectId: string;
  /** 1 for the child of a run that nobody started, and so on. */
  depth: number;
  /** Nobody waits for its end unless a `join` does. */
  detached?: true;
}

export type RecordKind = keyof Bodies;

/** The header, as an object. Keys stand in this order in its text. */
export interface Header<K extends RecordKind = RecordKind> {
  v: number;
  runId: string;
  seq: number;
  /** Hash of the previous header's text; null in a run's first record. */
  prev: string | null;
  /** When it happened: milliseconds since 1970, by the store's clock. */
  at: number;
  kind: K;
  /** Number of the node execution that this belongs to, from 1. Never renumbered. */
  step: number;
  node: string;
  effectId?: string;
  attempt?: number;
  actorId?: string;
  /** The W3C `traceparent` under which it was written, where there is telemetry: in the first record of each drive, and of a run. */
  trace?: string;
  /** SHA-256 of the body's text. */
  body: string;
}

/** A record as stores keep it: exact texts. `body` is null when it was withheld or destroyed. */
export interface StoredRecord {
  seq: number;
  /** SHA-256 of `header`, 64 hex digits. */
  hash: string;
  header: string;
  body: string | null;
}

/** A record, read. Discriminated by `kind`. */
export type LedgerRecord = { [K in RecordKind]: Omit<Header<K>, "body"> & { hash: string; data: Bodies[K] } }[RecordKind];

/** What a step decides to record, before it has a place in the chain. */
export type RecordDraft = {
  [K in RecordKind]: { kind: K; effectId?: string; attempt?: number; data: Bodies[K] };
}[RecordKind];

/** Where in its run a record stands. */
export interface Place {
  runId: string;
  seq: number;
  prev: string | null;
  at: number;
  step: number;
  node: string;
  actorId?: string;
  trace?: string;
}

export function sha256(text: string): string {
  return hash("sha256", text, "hex");
}

/** Gives a draft its place in the chain and its two texts. `hashText` is replaced only by the benchmark that prices hashing. */
export function encodeRecord(
  draft: RecordDraft,
  place: Place,
  salt: string,
  hashText: (text: string) => string = sha256,
): { record: LedgerRecord; stored: StoredRecord } {
  // Composed rather than spread into one object: the data is encoded as it stands, without a copy.
  const encoded = JSON.stringify(draft.data);
  const body = encoded === "{}" ? `{"salt":"${salt}"}` : `{"salt":"${salt}",${encoded.slice(1)}`;
  const header: Header = {
    v: formatVersion,
    runId: place.runId,
    seq: place.seq,
    prev: place.prev,
    at: place.at,
    kind: draft.kind,
    step: place.step,
    node: place.node,
    effectId: draft.effectId,
    attempt: draft.attempt,
    actorId: place.actorId,
    trace: place.trace,
    body: hashText(body),
  };
  const text = JSON.stringify(header);
  const recordHash = hashText(text);
  return {
    record: { ...header, hash: recordHash, data: draft.data } as unknown as LedgerRecord,
    stored: { seq: place.seq, hash: recordHash, header: text, body },
  };
}

/**
 * Reads a stored record without verifying its hashes (see `decodeNext` and `verifyRecord`).
 *
 * @throws RECORD_CORRUPT when a text cannot be read, FORMAT_NEWER when a newer version wrote it.
 */
export function decodeRecord(runId: string, stored: StoredRecord): LedgerRecord {
  return withBody(runId, stored, readHeader(runId, stored));
}

/**
 * Reads a stored record that is to follow a header with hash `prev`, and verifies that it does. Each text is parsed once.
 *
 * @throws As `decodeRecord`; also RECORD_CORRUPT when it is not what was written there.
 */
export function decodeNext(runId: string, seq: number, prev: string | null, stored: StoredRecord): LedgerRecord {
  const header = readHeader(runId, stored);
  const record = withBody(runId, stored, header);
  const problem =
    sha256(stored.header) === stored.hash ? misplaced(runId, seq, prev, stored, header) : "its header does not match its hash";
  if (problem !== undefined) throw corrupt(runId, stored.seq, problem);
  return record;
}

/** The header alone: its body may have been withheld. @throws RECORD_CORRUPT, FORMAT_NEWER */
export function readHeader(runId: string, stored: StoredRecord): Header {
  const header = readText(runId, stored.seq, "header", stored.header) as unknown as Header;
  if (typeof header.v !== "number") throw corrupt(runId, stored.seq, "its header has no format version");
  if (header.v > formatVersion) {
    throw new AbstractRuntimeError("FORMAT_NEWER", {
      what: `record ${stored.seq} of run ${runId}`,
      found: header.v,
      known: formatVersion,
    });
  }
  if (header.runId !== runId || header.seq !== stored.seq) {
    throw corrupt(runId, stored.seq, `its header says it is record ${header.seq} of run ${header.runId}`);
  }
  return header;
}

function withBody(runId: string, stored: StoredRecord, header: Header): LedgerRecord {
  if (stored.body === null) throw corrupt(runId, stored.seq, "its body was withheld, so the state after it cannot be built");
  const { salt: _, ...data } = readText(runId, stored.seq, "body", stored.body);
  return { ...header, hash: stored.hash, data } as unknown as LedgerRecord;
}

/**
 * What is wrong with a stored record that should follow a header with hash `prev`, or undefined when nothing is.
 * A withheld body is not a fault.
 */
export function verifyRecord(runId: string, seq: number, prev: string | null, stored: StoredRecord): string | undefined {
  if (sha256(stored.header) !== stored.hash) return "its header does not match its hash";
  return misplaced(runId, seq, prev, stored, readText(runId, seq, "header", stored.header) as unknown as Header);
}

function misplaced(runId: string, seq: number, prev: string | null, stored: StoredRecord, header: Header): string | undefined {
  if (header.seq !== seq || stored.seq !== seq) return `record ${header.seq} stands where record ${seq} should`;
  if (header.runId !== runId) return `it belongs to run ${header.runId}`;
  if (header.prev !== prev) return "it does not follow the record before it";
  if (stored.body !== null && sha256(stored.body) !== header.body) return "its body does not match its header";
  return undefined;
}

function readText(runId: string, seq: number, part: string, text: string): JsonObject {
  try {
    const value = parseJson(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch (error) {
    throw corrupt(runId, seq, `its ${part} is not JSON`, error);
  }
  throw corrupt(runId, seq, `its ${part} is not an object`);
}

function corrupt(runId: string, seq: number, problem: string, cause?: unknown): AbstractRuntimeError<"RECORD_CORRUPT"> {
  return new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq, problem }, cause);
}
