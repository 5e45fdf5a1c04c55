/**
 * Our records as step records of the Python package. It records attempts of effects and the completion of a run, and nothing else:
 * transitions, answers, commands and failures of runs stand in the run's state alone.
 */
import { collected } from "../kernel/fold.ts";
import { equalJson, type Json } from "../kernel/json.ts";
import { type Intent, type LedgerRecord, sha256 } from "../kernel/record.ts";
import { type OpenEffect, payloadOf, type RunState } from "../kernel/run.ts";
import { pythonWait } from "./export-run.ts";
import { computeIdempotencyKey } from "./keys.ts";
import type { PythonRecord } from "./ledger-file.ts";
import { isPythonObject } from "./shape.ts";
import type { PythonObject } from "./text.ts";
import { pythonTime } from "./time.ts";

/** A record that has no place in a chain yet. */
type Unchained = Omit<PythonRecord, "prev_hash" | "record_hash" | "signature">;

/** What the two lines of an attempt have in common. */
type Attempt = Omit<Unchained, "status" | "result" | "error" | "ended_at">;

export class StepRecords {
  readonly all: (Unchained | PythonObject)[] = [];
  readonly #attempts = new Map<string, Attempt | PythonObject>();

  /** @param waiting The old record of what an imported run waits for, by the effect that stands for it. */
  constructor(waiting?: { effectId: string; record: PythonObject }) {
    if (waiting && isPythonObject(waiting.record)) this.#attempts.set(waiting.effectId, waiting.record);
  }

  /** @param before The state that the record was folded into; it is used up. @param after What that gave. */
  add(record: LedgerRecord, effect: OpenEffect | undefined, after: RunState): void {
    const { effectId = "" } = record;
    switch (record.kind) {
      case "effect_started":
        if (record.attempt !== 0) this.#start(record, record.data.intent, after);
        return;
      case "parked": {
        if (record.data.intent) this.#start(record, record.data.intent, after);
        // A `fan_out` parks as often as it begins children.
        if (record.data.started !== undefined && effect?.wait) return;
        const parked = after.open.get(effectId);
        if (parked) this.#finish(record, "waiting", { wait: pythonWait(after.runId, parked) as unknown as Json });
        return;
      }
      case "effect_completed":
        // Python goes on from a moment without a record.
        if (effect?.phase === "parked" && effect.wait?.reason === "until") return;
        this.#finish(record, "completed", "collect" in record.data ? collected(effect as OpenEffect) : record.data.result);
        return;
      case "effect_failed":
        return this.#finish(record, "failed", null, record.data.error.message || "unknown error");
      case "effect_uncertain":
        return this.#finish(record, "failed", null, record.data.error?.message || record.data.reason);
      case "delivered":
        if (record.data.outcome === "failed") this.#finish(record, "failed", null, record.data.error?.message || "unknown error");
        return;
      case "run_completed":
        this.all.push({
          run_id: record.runId,
          step_id: stepId(record.hash),
          node_id: record.node,
          status: "completed",
          effect: null,
          result: { completed: true },
          error: null,
          started_at: pythonTime(record.at),
          ended_at: pythonTime(record.at),
          actor_id: record.actorId ?? null,
          attempt: 1,
          idempotency_key: null,
        });
    }
  }

  #start(
    { runId, node, at, hash, actorId, attempt, effectId = "" }: LedgerRecord,
    intent: Intent | undefined,
    after: RunState,
  ): void {
    const open = after.open.get(effectId);
    const type = intent?.type ?? open?.type ?? "unknown";
    const payload = open ? payloadOf(open) : (intent?.payload ?? {});
    const { carried } = after;
    // Its records stand in the old ledger: only the state did not have the result yet.
    if (carried?.outcome?.kind === "completed" && carried.type === type && equalJson(carried.payload, payload)) return;
    const begun: Attempt = {
      run_id: runId,
      step_id: stepId(hash),
      node_id: node,
      effect: { type, payload, result_key: intent?.resultKey ?? open?.resultKey ?? null },
      started_at: pythonTime(at),
      actor_id: actorId ?? null,
      attempt: attempt ?? 1,
      idempotency_key: computeIdempotencyKey(runId, node, { type, payload }),
    };
    this.#attempts.set(effectId, begun);
    this.all.push(ordered(begun, "started", null, null, null));
  }

  #finish({ at, effectId = "" }: LedgerRecord, status: PythonRecord["status"], result: Json, error: string | null = null): void {
    const begun = this.#attempts.get(effectId);
    if (begun) this.all.push(ordered(begun, status, result, error, pythonTime(at)));
  }
}

/** Keys in the order in which Python writes them. */
function ordered(
  attempt: Attempt | PythonObject,
  status: PythonRecord["status"],
  result: Json,
  error: string | null,
  endedAt: string | null,
): PythonObject {
  const { run_id, step_id, node_id, effect, started_at, actor_id, attempt: number, idempotency_key } = attempt as PythonObject;
  const made = {
    run_id,
    step_id,
    node_id,
    status,
    effect,
    result,
    error,
    started_at,
    ended_at: endedAt,
    actor_id,
    attempt: number,
    idempotency_key,
  };
  return made as PythonObject;
}

/** The same at each export: a UUID made of the hash of the record that began the attempt. */
function stepId(recordHash: string): string {
  const hex = sha256(`step:${recordHash}`);
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}
