/** What is sent to a run, and what becomes of it. */
import { isObject, type Json } from "./json.ts";
import { sha256 } from "./record.ts";
import type { RunStatus } from "./run.ts";

export type MessageKind = "answer" | "event" | "job" | "child_end" | "control";

/** What is sent to a run. */
export interface Message {
  /** Unique within its run, for good: a second message with the same id is a duplicate. */
  id: string;
  runId: string;
  kind: MessageKind;
  /** The wait key it answers or the event it names; of a control message, the action. */
  key: string;
  payload: Json;
  /** Who sends it; stands in the record of its delivery. Not part of its content. */
  actorId?: string;
  /** Deliver only while this effect of the run is parked on a wait with the message's key; `true`: while some wait of the run has it. */
  ifWaiting?: string | true;
  /** Deliver only to a run that has failed, which is thereby ready again. */
  ifFailed?: true;
  /**
   * Deliver only when this message has not been taken by its run. It is withdrawn with the delivery, and its id stays known. One that
   * was never stored counts as withdrawn.
   */
  recall?: { runId: string; id: string };
}

/** A message as its run sees it. */
export interface Mail extends Omit<Message, "runId" | "ifWaiting" | "ifFailed" | "recall"> {
  /** Place in the order of arrival, within the store. */
  position: number;
  at: number;
}

/** A message as the mailbox keeps it for good. */
export interface Letter {
  id: string;
  kind: MessageKind;
  key: string;
  actorId?: string;
  at: number;
  digest: string;
  state: "open" | "taken" | "recalled";
  /** Of one that is open. */
  payload?: Json;
}

export type Delivery =
  /** `holder`: the worker driving the run now, which should look into its mailbox. */
  | { kind: "stored"; holder?: string }
  /** The id is known; `same` tells whether the content was equal. */
  | { kind: "duplicate"; same: boolean }
  | { kind: "no_run" }
  | { kind: "ended"; status: RunStatus }
  | { kind: "not_waiting" }
  /** Of a message with `ifFailed`. */
  | { kind: "not_failed"; status: RunStatus }
  /** The message to be recalled was taken. */
  | { kind: "taken" }
  | { kind: "full"; limit: number }
  /** The run is being moved to another store, or has left for it. */
  | { kind: "moved"; to: string };

/** A full mailbox must not keep a run from being cancelled, nor a parent from its children's ends. */
export function countsTowardsLimit(kind: MessageKind): boolean {
  return kind !== "control" && kind !== "child_end";
}

/** The same for messages of the same content; the order of keys does not count. */
export function messageDigest({ kind, key, payload }: Pick<Message, "kind" | "key" | "payload">): string {
  const sorted = (value: object): object => Object.fromEntries(Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1)));
  return sha256(JSON.stringify([kind, key, payload], (_, value: Json) => (isObject(value) ? sorted(value) : value)));
}
