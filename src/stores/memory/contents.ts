/** What the store holds, and how it is copied. */
import { cloneJson } from "../../kernel/json.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { RunRow } from "../../kernel/run.ts";
import type { Blocked, Capability, Checkpoint, Mail } from "../../kernel/store.ts";

export class Contents {
  /** In the order of their creation. */
  readonly runs = new Map<string, Run>();
  /** Those of `runs` that have not ended, so that a claim does not look at all that ever was. */
  readonly live = new Set<Run>();
  /** When each worker expires. */
  readonly workers = new Map<string, number>();
  readonly counters = new Map<string, number>();
  lastPosition = 0;
}

export interface Run {
  /** Place in the order of creation, from 1. */
  number: number;
  row: RunRow;
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
}

export function copyRow(row: RunRow): RunRow {
  return { ...row, waits: row.waits.map((wait) => ({ ...wait })), ...(row.error ? { error: { ...row.error } } : {}) };
}

export function mailBehind({ mail }: Run, position: number): Mail[] {
  return [...mail.values()]
    .filter((letter) => letter.position > position)
    .map((letter) => ({ ...letter, payload: cloneJson(letter.payload) }));
}

export function knows({ workflows }: Capability, { row }: Run): boolean {
  return !workflows || workflows.includes(row.workflowId);
}

/** Whether a block gives way to this worker: its code has not been tried. */
export function yieldsTo({ blocked, tried }: Run, { fingerprint }: Capability): boolean {
  return blocked !== undefined && !blocked.quarantine && !tried.has(fingerprint);
}
