/** What the store holds, and how it is copied. */
import { randomInt } from "node:crypto";
import { cloneJson } from "../../kernel/json.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { OpenWait, RunRow } from "../../kernel/run.ts";
import type { Blocked, Capability } from "../../kernel/transition.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import type { Letter, Mail } from "../../kernel/message.ts";
import type { Moving, Tombstone } from "../../kernel/moving.ts";
import type { Scalar } from "../../kernel/query.ts";
import type { SnapshotRow } from "../../kernel/snapshot.ts";
import type { StreamChunk } from "../../kernel/stream.ts";
import { isOver } from "../ended.ts";
import { type SlotCounts, serves } from "../slots.ts";
import type { KeptArtifact } from "./artifacts.ts";

/**
 * Makes what contents are made of. The files store has it made so that a journal learns of every change: a table or ledger that is
 * made otherwise is not kept there, and neither is a change to a run that `Contents.changed` does not name.
 */
export interface Making {
  table<V>(): Map<string, V>;
  ledger(runId: string): Ledger;
}

/** The records of a run, by seq. */
export interface Ledger {
  /** Of the record with this seq; undefined when it is not there. */
  hashOf(seq: number): string | undefined;
  push(record: StoredRecord): void;
  /** Copies of the records `[from, to)`. */
  slice(from: number, to: number): StoredRecord[];
  /** Seq of the first that is kept: those before it were archived. */
  readonly first: number;
  /** Seq of the next. */
  readonly next: number;
  /** Removes those before a seq. Of a ledger that is empty, the next has that seq. */
  drop(before: number): void;
}

export class Contents {
  readonly make: Making;
  /** In the order of their creation. */
  readonly runs = new Map<string, Run>();
  /** Those of `runs` that may be driven again, so that a claim does not look at all that ever was. */
  readonly live = new Set<Run>();
  /** When each worker expires. */
  readonly workers = new Map<string, number>();
  /** When runs of a queue with a rate began, oldest first. */
  readonly begins: Map<string, number[]>;
  readonly snapshots: Map<string, SnapshotRow>;
  readonly tombstones: Map<string, Tombstone>;
  readonly artifacts: Map<string, KeptArtifact>;
  lastPosition = 0;
  /** Tells these contents from others, whose cursors are none here. */
  id = randomInt(2 ** 47);
  /** Number of the run that was created last. */
  lastNumber = 0;
  /** Runs that were changed by the calls of this turn, removed ones included. */
  readonly changed = new Set<Run>();

  constructor(make: Making = inMemory) {
    this.make = make;
    this.begins = make.table();
    this.snapshots = make.table();
    this.tombstones = make.table();
    this.artifacts = make.table();
  }

  /** Adds a run that was created now, or is loaded: behind all that were. */
  add(run: Run): void {
    this.runs.set(run.row.runId, run);
    this.lastNumber = Math.max(this.lastNumber, run.number);
    if (!isOver(run.row) && !run.moving) this.live.add(run);
  }

  slotCounts(): SlotCounts {
    const held = (queue: string): Run[] => [...this.live].filter((run) => run.holder !== undefined && run.row.queue === queue);
    const begins = (queue: string): number[] => this.begins.get(queue) ?? [];
    return {
      held: (queue) => held(queue).length,
      heldOf: (queue, queueKey) => held(queue).filter(({ row }) => row.queueKey === queueKey).length,
      begunAfter: (queue, moment) => begins(queue).filter((at) => at > moment).length,
      nthLastBegin: (queue, n) => begins(queue).at(-n),
    };
  }
}

export interface Run {
  /** Place in the order of creation, from 1. */
  number: number;
  row: RunRow;
  /** By effect. */
  waits: Map<string, OpenWait>;
  /** Indexed vars, by path. */
  indexed: Map<string, Scalar>;
  epoch: number;
  /** The worker it is leased to. */
  holder?: string;
  blocked?: Blocked;
  /** Fingerprints of the code that could not go on since the run last moved: it is not handed around among them for ever (L7). */
  tried: Set<string>;
  records: Ledger;
  /** Oldest first. */
  checkpoints: Checkpoint[];
  /** Messages not taken, by id, in order of arrival. */
  mail: Map<string, Mail>;
  /** How many of `mail` count towards the limit. */
  mailCount: number;
  /** All messages that ever came, by id, in order: a duplicate is known after its message was taken. */
  known: Map<string, Omit<Letter, "state" | "payload">>;
  /** Ids of messages that were withdrawn by their sender before they were taken. */
  recalled: Map<string, true>;
  /** Ids of the artifacts that it refers to. */
  artifacts: Map<string, true>;
  counters: Map<string, number>;
  /** Chunks of its streams, by where they stand. */
  streams: Map<string, StreamChunk>;
  /** Moving, it is not among the live; `wakeAt` is when it would wake. */
  moving?: (Moving & { wakeAt: number | null }) | undefined;
}

/** A run of which nothing is known but its row. */
export function newRun(row: RunRow, number: number, make: Making): Run {
  return {
    number,
    row,
    epoch: 0,
    waits: make.table(),
    indexed: make.table(),
    records: make.ledger(row.runId),
    checkpoints: [],
    mail: make.table(),
    mailCount: 0,
    known: make.table(),
    recalled: make.table(),
    artifacts: make.table(),
    counters: make.table(),
    streams: make.table(),
    tried: new Set(),
  };
}

const inMemory: Making = {
  table: () => new Map(),
  ledger: () => {
    const records: StoredRecord[] = [];
    let first = 0;
    return {
      hashOf: (seq) => records[seq - first]?.hash,
      push: (record) => void records.push({ ...record }),
      slice: (from, to) => records.slice(Math.max(0, from - first), Math.max(0, to - first)).map((record) => ({ ...record })),
      get first() {
        return first;
      },
      get next() {
        return first + records.length;
      },
      drop: (before) => {
        records.splice(0, Math.max(0, before - first));
        first = Math.max(first, before);
      },
    };
  },
};

export function copyRow(row: RunRow): RunRow {
  return { ...row, ...(row.error ? { error: { ...row.error } } : {}), ...(row.tags ? { tags: [...row.tags] } : {}) };
}

export function mailBehind({ mail }: Run, position: number): Mail[] {
  return [...mail.values()]
    .filter((letter) => letter.position > position)
    .map((letter) => ({ ...letter, payload: cloneJson(letter.payload) }));
}

/** Whether a worker has the workflow of a run and serves its queue. */
export function knows(worker: Capability, { row }: Run): boolean {
  return (!worker.workflows || worker.workflows.includes(row.workflowId)) && serves(worker, row.queue);
}

/** Whether a block gives way to this worker: its code has not been tried. */
export function yieldsTo({ blocked, tried }: Run, { fingerprint }: Capability): boolean {
  return blocked !== undefined && !blocked.quarantine && !tried.has(fingerprint);
}
