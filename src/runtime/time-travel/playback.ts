/** What is recorded of an effect, as it concerns the effect of a replay. */
import type { ErrorData } from "../../kernel/errors.ts";
import { cloneJson, type Json } from "../../kernel/json.ts";
import { defaultPolicy } from "../../kernel/policy.ts";
import type { LedgerRecord, RecordDraft } from "../../kernel/record.ts";
import { isJoined, type OpenEffect, payloadOf } from "../../kernel/run.ts";
import { joinDrafts, type Outcome, outcomeDrafts, passed } from "../../kernel/step.ts";
import type { Stand } from "./replay-step.ts";

/** Whether an event has nothing to do here: its attempt is under way already, or it is of a child that there is not. */
export function isOver(effect: OpenEffect, event: LedgerRecord): boolean {
  if (event.kind === "effect_started") return effect.phase === "executing" && effect.attempt >= (event.attempt ?? 1);
  if (event.kind !== "delivered" || event.data.outcome !== "member") return false;
  const index = event.data.index as number;
  return index >= (effect.members ?? 0) || effect.results?.[index] !== undefined;
}

/** What is recorded, as it concerns the effect of now: where it goes from there is the present plan's to say. */
export function playedDrafts(at: Stand, effect: OpenEffect, event: LedgerRecord): RecordDraft[] {
  const { id: effectId, wait } = effect;
  const attempt = event.attempt === undefined ? {} : { attempt: event.attempt };
  switch (event.kind) {
    case "effect_started":
      return [{ kind: "effect_started", effectId, ...attempt, data: {} }];
    case "parked": {
      const { started } = event.data;
      const most = Math.min(started ?? 0, effect.members ?? 0);
      return [
        { kind: "parked", effectId, ...attempt, data: { ...event.data, ...(started === undefined ? {} : { started: most }) } },
      ];
    }
    case "effect_uncertain":
      return [{ kind: "effect_uncertain", effectId, ...attempt, data: event.data }];
    case "effect_failed": {
      const { error, retryAt } = event.data;
      if (retryAt !== undefined) return [{ kind: "effect_failed", effectId, ...attempt, data: event.data }];
      if (isJoined(effect)) return joinDrafts(at.state, effect);
      if (error.code === "WAIT_TIMEOUT" && wait?.until !== undefined && wait.reason !== "until") return passed(effect, wait);
      return failedDrafts(at, effect, error);
    }
    case "effect_completed":
      if ("collect" in event.data) return joinDrafts(at.state, effect);
      if (wait?.reason === "until") return passed(effect, wait);
      return [{ kind: "effect_completed", effectId, ...attempt, data: { result: playedBack(at, effect, event.data.result) } }];
    case "delivered": {
      const { nextNode: _, ...data } = event.data;
      if (data.outcome === "failed") return failedDrafts(at, effect, data.error ?? { name: "Error", message: "failed" });
      return [{ kind: "delivered", effectId, data }];
    }
    default:
      throw new RangeError(`a ${event.kind} record is none of an effect`);
  }
}

export function failedDrafts(at: Stand, effect: OpenEffect, error: ErrorData): RecordDraft[] {
  return outcomeOf(at, effect, { kind: "failed", error, retryable: false });
}

export function outcomeOf(at: Stand, effect: OpenEffect, outcome: Outcome): RecordDraft[] {
  return outcomeDrafts(at.state, effect, outcome, { policy: defaultPolicy, onUncertain: "fail" }, at.now, 0);
}

function playedBack(at: Stand, effect: OpenEffect, result: Json): Json {
  const definition = at.host.effect(effect.type, at.workflow);
  return definition?.playedBack ? definition.playedBack(cloneJson(result), cloneJson(payloadOf(effect))) : result;
}
