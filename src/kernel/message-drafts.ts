/** What taking a message means, as records. Pure, as `step.ts`. */
import { stopped } from "./budget.ts";
import type { ErrorData } from "./errors.ts";
import { isObject, type Json, type JsonObject } from "./json.ts";
import { childId, childKey } from "./child-id.ts";
import { shownError } from "./fold.ts";
import { type Bodies, type ControlAction, controlActions, type RecordDraft } from "./record.ts";
import { decodeState, isEnded, isWindingUp, type OpenEffect, type RunState } from "./run.ts";
import type { Mail } from "./message.ts";
import { asksAboutUncertainty } from "./wait.ts";
import { isDecided, failDrafts, spent, plainError } from "./step.ts";

/**
 * What taking this message means, or undefined when it stays in the mailbox for a later wait.
 *
 * @param refused Why the message cannot be recorded (it is too large): what waited for it fails, and its content is left out.
 */
export function messageDrafts(state: RunState, mail: Mail, refused?: ErrorData): RecordDraft[] | undefined {
  if (mail.kind === "control") return controlDrafts(state, mail);
  if (isEnded(state)) return undefined;
  const effect = waitingFor(state, mail);
  const noted = { messageId: mail.id, messageKind: mail.kind, key: mail.key, payload: refused ? null : mail.payload };
  if (!effect) {
    if (mail.kind === "child_end") {
      const member = memberDrafts(state, mail, noted, refused);
      if (member) return member;
    }
    // An event or a job's result may come before its wait, and the wait that an answer is for may be opened again by a retry. An answer
    // or a child's end without one has nobody left to read it.
    return mail.kind === "event" || mail.kind === "job" || (mail.kind === "answer" && isHeldBack(state, mail.key))
      ? undefined
      : [{ kind: "delivered", data: { ...noted, outcome: "ignored" } }];
  }
  const taken = (data: Omit<Bodies["delivered"], keyof typeof noted> & { payload?: Json }): RecordDraft => ({
    kind: "delivered",
    effectId: effect.id,
    data: { ...noted, ...data },
  });
  const failed = (error: ErrorData): RecordDraft[] =>
    failDrafts(effect, error, spent(effect, error), false, (next) => taken({ outcome: "failed", error, ...next }));
  if (refused) return failed(refused);
  const payload = isObject(mail.payload) ? mail.payload : {};
  if (mail.kind === "child_end") {
    if (payload.status === "completed") {
      const { output = null, ...end } = payload;
      // The output is written once: as the result.
      const child = payload.runId ?? null;
      const result: Json = effect.childRunId === undefined ? { subRunId: child, output } : { sub_run_id: child, output };
      return [taken({ payload: end, outcome: "result", result })];
    }
    return failed(endError(payload));
  }
  if (asksAboutUncertainty(effect)) {
    return [payload.retry === true ? taken({ outcome: "retry" }) : taken({ outcome: "result", result: payload.result ?? null })];
  }
  const stop = effect.wait && stopped(effect.wait, payload);
  if (stop) return failed(plainError(stop));
  return [taken({ outcome: effect.wait?.again ? "again" : "result" })];
}

/** Whether a wait under this key stands in a group that failed, or is about to, or is perhaps about to be there again. */
function isHeldBack({ open }: RunState, key: string): boolean {
  for (const { wait, asked } of open.values()) if ((wait?.waitKey ?? asked) === key) return true;
  return false;
}

function waitingFor(state: RunState, { key, kind }: Mail): OpenEffect | undefined {
  for (const effect of state.open.values()) {
    const { wait, phase } = effect;
    if (wait?.waitKey !== key || phase === "failed" || (kind === "event" && wait.reason !== "event")) continue;
    // What a decided group still waits for is given up: a message is for whoever waits next.
    if (!isDecided(state, effect)) return effect;
  }
  return undefined;
}

function endError(end: JsonObject): ErrorData {
  return (isObject(end.error)
    ? end.error
    : { name: "Error", message: `the subworkflow was ${end.status}` }) as unknown as ErrorData;
}

/** The end of a child of a `fan_out`, or undefined when the child is of none that is open. */
function memberDrafts(
  state: RunState,
  mail: Mail,
  noted: Pick<Bodies["delivered"], "messageId" | "messageKind" | "key" | "payload">,
  refused: ErrorData | undefined,
): RecordDraft[] | undefined {
  const end = isObject(mail.payload) ? mail.payload : {};
  const { effectId, status, runId: subRunId = null, output = null } = end;
  if (typeof effectId !== "string") return undefined;
  const fan = state.open.get(effectId.slice(0, Math.max(0, effectId.lastIndexOf("."))));
  const index = Number(effectId.slice(effectId.lastIndexOf(".") + 1));
  const isMember =
    fan?.window !== undefined &&
    fan.phase !== "failed" &&
    index < (fan.started ?? 0) &&
    fan.results?.[index] === undefined &&
    mail.key === childKey(childId(state.runId, effectId, fan.generation));
  if (!isMember) return undefined;
  const succeeded = status === "completed" && !refused;
  const error = refused ?? (succeeded ? undefined : endError(end));
  const { output: _, ...payload } = end;
  const result: Json | undefined = !fan.collect
    ? succeeded
      ? { subRunId, output }
      : undefined
    : succeeded
      ? { status: "completed", subRunId, output }
      : { status: status === "cancelled" ? "cancelled" : "failed", subRunId, error: shownError(error as ErrorData) };
  return [
    {
      kind: "delivered",
      effectId: fan.id,
      data: {
        ...noted,
        payload: refused ? null : payload,
        outcome: "member",
        index,
        ...(result === undefined ? {} : { result }),
        ...(result === undefined && error ? { error } : {}),
      },
    },
  ];
}

function controlDrafts(state: RunState, { id, kind, key, payload }: Mail): RecordDraft[] {
  const reason = isObject(payload) && typeof payload.reason === "string" ? { reason: payload.reason } : {};
  const place = key === "archived" ? archivedPlace(state, payload) : {};
  if (isControl(key) && applies(state, key) && place)
    return [{ kind: "control", data: { action: key, messageId: id, ...reason, ...place } }];
  // The state that came with an archive is of no use to anybody.
  const kept = key === "archived" ? null : payload;
  return [{ kind: "delivered", data: { messageId: id, messageKind: kind, key, payload: kept, outcome: "ignored" } }];
}

/** What was archived, if that is of this ledger and new; `base` is the state that it came to, as a checkpoint. */
function archivedPlace(state: RunState, payload: Json): { before: number; hash: string } | undefined {
  const { before, hash, base } = isObject(payload) ? payload : {};
  if (typeof before !== "number" || typeof hash !== "string" || typeof base !== "string") return undefined;
  if (before <= (state.archivedBefore ?? 0) || before > state.seq) return undefined;
  try {
    const { seq, head } = decodeState(base);
    return seq === before - 1 && head === hash ? { before, hash } : undefined;
  } catch {
    // It is no checkpoint: the message is recorded as ignored.
    return undefined;
  }
}

function isControl(key: string): key is ControlAction {
  return (controlActions as readonly string[]).includes(key);
}

/** Whether a command changes anything. What was undone cannot be tried again from where it failed. */
function applies(state: RunState, action: ControlAction): boolean {
  if (action === "retry") return state.status === "failed" && !state.undoing;
  return !isEnded(state) && (action === "cancel" ? !state.cancelling : !isWindingUp(state));
}
