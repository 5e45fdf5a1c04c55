/** What the store holds, and how it is copied. */
import { cloneJson } from "../../kernel/json.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { OpenWait, RunRow } from "../../kernel/run.ts";
import type { Blocked, Capability, Checkpoint, Mail } from "../../kernel/store.ts";
import { type SlotCounts, serves } from "../slots.ts";

export class Contents {
  /** In the order of their creation. */
  readonly runs = new Map<string, Run>();
  /** Those of `runs` that may be driven again, so that a claim does not look at all that ever was. */
  readonly live = new Set<Run>();
  /** When each worker expires. */
  readonly workers = new Map<string, number>();
  readonly counters = new Map<string, number>();
  /** When runs of a queue with a rate began, oldest first. */
  readonly begins = new Map<string, number[]>();
  lastPosition = 0;

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
  epoch: number;
  /** The worker it is leased to. */
  holder?: string;
  blocked?: Blocked;
  /** Fingerprints of the code that could not go on since the run last moved: it is not handed around among them for ever (L7). */
  tried: Set<string>;
  /** By seq. */
  records: StoredRecord[];
  /** Oldest first. */
  checkpoints: Checkpoint[];
  /** Messages not taken, by id, in order of arrival. */
  mail: Map<string, Mail>;
  /** How many of `mail` count towards the limit. */
  mailCount: number;
  /** Digests of all messages that ever came, by id: a duplicate is known after its message was taken. */
  known: Map<string, string>;
  /** Ids of messages that were withdrawn by their sender before they were taken. */
  recalled: Set<string>;
}

export function copyRow(row: RunRow): RunRow {
  return { ...row, ...(row.error ? { error: { ...row.error } } : {}) };
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
