/** What rows of a database say, in the words of the contract. Shared by the stores that have tables. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { parseJson } from "../kernel/json.ts";
import type { OpenWait, RunRow, RunStatus } from "../kernel/run.ts";
import type { Letter } from "../kernel/message.ts";
import type { Moving } from "../kernel/moving.ts";
import type { ListedRun } from "../kernel/query.ts";
import type { Blocked } from "../kernel/transition.ts";

/** A row as a driver gives it. */
export type Row = Record<string, unknown>;

/** What every table of runs has. */
export interface RunColumns {
  run: number;
  run_id: string;
  workflow_id: string;
  version: string;
  status: RunStatus;
  paused: number | boolean;
  node: string;
  step: number;
  seq: number;
  head: string;
  wake_at: number | null;
  queue: string | null;
  queue_key: string | null;
  priority: number;
  error: string | null;
  worker_id: string | null;
  epoch: number;
  blocked: string | null;
  archived_before: number | null;
  /** JSON list. */
  tags: string | null;
  parent_run_id: string | null;
  actor_id: string | null;
  session_id: string | null;
  created_at: number;
  updated_at: number;
}

export function runRow(row: RunColumns): RunRow {
  return {
    runId: row.run_id,
    workflowId: row.workflow_id,
    version: row.version,
    status: row.status,
    paused: Boolean(row.paused),
    node: row.node,
    step: row.step,
    seq: row.seq,
    head: row.head,
    wakeAt: row.wake_at,
    ...(row.queue === null ? {} : { queue: row.queue }),
    ...(row.queue_key === null ? {} : { queueKey: row.queue_key }),
    priority: row.priority,
    ...(row.error === null ? {} : { error: JSON.parse(row.error) }),
    ...(row.parent_run_id === null ? {} : { parentRunId: row.parent_run_id }),
    ...(row.tags === null ? {} : { tags: JSON.parse(row.tags) }),
    ...(row.actor_id === null ? {} : { actorId: row.actor_id }),
    ...(row.session_id === null ? {} : { sessionId: row.session_id }),
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
}

/** A page is not lost for one damaged row: what cannot be read is left out, and `load` says what is wrong. */
export function listedRun(row: RunColumns, waits: OpenWait[], moving: Moving | undefined): ListedRun {
  const error = readable(row.error) === undefined ? null : row.error;
  const tags = readable(row.tags) === undefined ? null : row.tags;
  return {
    ...runRow({ ...row, error, tags }),
    waits,
    ...(row.blocked === null ? {} : { blocked: blockOf(row.blocked) }),
    ...(moving ? { moving } : {}),
    ...(row.worker_id === null ? {} : { holder: row.worker_id }),
  };
}

export function waitOf({ effect_id, wait_key, reason, since, until }: Row): OpenWait {
  return {
    effectId: effect_id as string,
    waitKey: wait_key as string,
    reason: reason as OpenWait["reason"],
    since: since as number,
    ...(until === null ? {} : { until: until as number }),
  };
}

export function letterOf({ id, kind, key, payload, recalled, digest, actor_id, at }: Row): Letter {
  return {
    id: id as string,
    kind: kind as Letter["kind"],
    key: key as string,
    ...(actor_id === null ? {} : { actorId: actor_id as string }),
    at: at as number,
    digest: digest as string,
    ...(payload === null
      ? { state: recalled ? ("recalled" as const) : ("taken" as const) }
      : { state: "open" as const, payload: parseJson(payload as string) }),
  };
}

/** A block that cannot be read keeps its run from being driven all the same. */
export function blockOf(text: string): Blocked {
  const problem = "what the store says of its block cannot be read";
  return (readable(text) as Blocked | undefined) ?? { code: "RECORD_CORRUPT", problem, fingerprint: "", quarantine: true };
}

/** Undefined when it is not JSON. */
export function readable(text: string | null): unknown {
  try {
    return text === null ? undefined : JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Reads something of one run. What the database gives and we cannot read is damage to that run alone. @throws RECORD_CORRUPT */
export function intact<T>(runId: string, seq: number, read: () => T, isOfTheStore: (error: unknown) => boolean = () => false): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof AbstractRuntimeError || isOfTheStore(error)) throw error;
    const problem = `the store holds what cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq, problem }, error);
  }
}
