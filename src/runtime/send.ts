/** Messages from outside: signals, events for many, and commands. Each is durable when its promise resolves, and known by its id. */
import type { DriveHost } from "../kernel/drive-host.ts";
import { AbstractRuntimeError, invalidOption } from "../kernel/errors.ts";
import type { JsonObject } from "../kernel/json.ts";
import type { ControlAction } from "../kernel/record.ts";
import { type RunState, statusOf } from "../kernel/run.ts";
import type { Delivery, Message } from "../kernel/message.ts";
import type { Store } from "../kernel/store.ts";
import { endMessageId } from "../kernel/child.ts";
import { elsewhere, missing } from "./read.ts";
import { keepReferred } from "./referred.ts";
import { placeOf } from "./transaction.ts";
import { notWaiting } from "./answer.ts";
import { readPayload } from "./payload.ts";

/** Where messages go out. */
export interface Sender {
  readonly host: DriveHost;
  /** A message was stored: whoever drives the run should hear of it. */
  delivered(runId: string, holder: string | undefined): void;
}

/** Messages stored by one transaction. */
const pageSize = 500;

/** @throws RUN_NOT_FOUND, RUN_ENDED, MAILBOX_FULL, MESSAGE_ID_REUSED, ARTIFACT_MISSING, TOO_LARGE, NOT_JSON, INVALID_OPTION */
export async function sendSignal(
  sender: Sender,
  runId: string,
  key: string,
  payload: unknown,
  { id, actorId, transaction }: { id?: string; actorId?: string; transaction?: unknown },
): Promise<{ duplicate: boolean }> {
  const { store, ids, limits } = sender.host;
  checkName("key", key);
  if (id !== undefined) checkName("id", id);
  const messageId = `signal:${id ?? ids.id()}`;
  const content = readPayload(payload, "payload", `signal "${key}"`, limits);
  await keepReferred(sender.host, [runId], content, transaction);
  const message: Message = { id: messageId, runId, kind: "event", key, payload: content, ...sentBy(actorId) };
  const place = placeOf(store, transaction, "signal({ transaction })");
  const [delivery] = await place.deliver([message], limits.mailboxMessages);
  switch (delivery?.kind) {
    case "stored":
      // Until it is committed there is nothing to tell of; then the store tells of it.
      if (transaction === undefined) sender.delivered(runId, delivery.holder);
      return { duplicate: false };
    case "duplicate":
      if (!delivery.same) throw new AbstractRuntimeError("MESSAGE_ID_REUSED", { runId, id: id as string });
      return { duplicate: true };
    default:
      throw await refusal(sender.host.store, runId, delivery);
  }
}

/** Pages through the runs that wait for an event. What was reached before a crash is known by the id, and counted again. */
export async function sendToAll(
  sender: Sender,
  key: string,
  payload: unknown,
  { id, workflowId, actorId }: { id?: string; workflowId?: string; actorId?: string },
): Promise<number> {
  const { store, ids, limits } = sender.host;
  checkName("key", key);
  if (id !== undefined) checkName("id", id);
  const content = readPayload(payload, "payload", `event "${key}"`, limits);
  const messageId = `emit:${id ?? ids.id()}`;
  const from = sentBy(actorId);
  let reached = 0;
  let refused: AbstractRuntimeError | undefined;
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page = await store.listeners(key, {
      limit: pageSize,
      ...(workflowId === undefined ? {} : { workflowId }),
      ...(cursor === undefined ? {} : { cursor }),
    });
    cursor = page.next;
    const messages = page.runIds.map(
      (runId): Message => ({ id: messageId, runId, kind: "event", key, payload: content, ifWaiting: true, ...from }),
    );
    if (messages.length === 0) continue;
    await keepReferred(sender.host, page.runIds, content);
    const deliveries = await store.deliver(messages, limits.mailboxMessages);
    deliveries.forEach((delivery, i) => {
      const runId = page.runIds[i] as string;
      if (delivery.kind === "duplicate" && !delivery.same)
        refused ??= new AbstractRuntimeError("MESSAGE_ID_REUSED", { runId, id: id as string });
      else if (delivery.kind === "duplicate") reached += 1;
      else if (delivery.kind === "full") refused ??= new AbstractRuntimeError("MAILBOX_FULL", { runId, limit: delivery.limit });
      else if (delivery.kind === "moved")
        refused ??= new AbstractRuntimeError("RUN_MOVED", { runId, to: delivery.to, phase: "leaving" });
      else if (delivery.kind === "stored") {
        reached += 1;
        sender.delivered(runId, delivery.holder);
      }
    });
  }
  // All the others were reached: sent again with the same id, it finds those that are left.
  if (refused) throw refused;
  return reached;
}

/**
 * The answer to a wait.
 *
 * @param stateNow The run as it is once the answer was refused: it moved on between the look and the delivery.
 * @throws ALREADY_ANSWERED, NOT_WAITING, MAILBOX_FULL, RUN_MOVED
 */
export async function sendAnswer(
  { host, delivered }: Sender,
  answer: Message,
  transaction: unknown,
  stateNow: () => Promise<RunState>,
): Promise<void> {
  const { runId, key: waitKey } = answer;
  await keepReferred(host, [runId], answer.payload, transaction);
  const place = placeOf(host.store, transaction, "respond({ transaction })");
  const [delivery] = await place.deliver([answer], host.limits.mailboxMessages);
  if (delivery?.kind === "stored") return transaction === undefined ? delivered(runId, delivery.holder) : undefined;
  if (delivery?.kind === "duplicate") throw new AbstractRuntimeError("ALREADY_ANSWERED", { runId, waitKey });
  if (delivery?.kind === "full" || delivery?.kind === "moved") throw await refusal(host.store, runId, delivery);
  const state = await stateNow();
  throw notWaiting(state, state.answered?.includes(waitKey) ? waitKey : undefined);
}

/** A command to a live run. @throws RUN_NOT_FOUND, RUN_ENDED */
export async function sendControl(
  sender: Sender,
  runId: string,
  action: Exclude<ControlAction, "retry" | "archived">,
  { reason, actorId }: { reason?: string; actorId?: string } = {},
): Promise<void> {
  const message = { ...control(sender, runId, action, reason), ...sentBy(actorId) };
  const [delivery] = await sender.host.store.deliver([message]);
  if (delivery?.kind === "stored") return sender.delivered(runId, delivery.holder);
  if (delivery?.kind === "duplicate") return;
  if (action === "cancel" && delivery?.kind === "ended" && delivery.status === "cancelled") return;
  throw await refusal(sender.host.store, runId, delivery);
}

/** What was archived, for its run to record. @throws RUN_NOT_FOUND, RUN_ENDED, RUN_MOVED */
export async function sendArchived(sender: Sender, message: Message): Promise<void> {
  const [delivery] = await sender.host.store.deliver([message]);
  if (delivery?.kind === "stored") return sender.delivered(message.runId, delivery.holder);
  if (delivery?.kind !== "duplicate") throw await refusal(sender.host.store, message.runId, delivery);
}

/** Lets a failed run go on. @throws RUN_NOT_FOUND, NOT_FAILED, RETRY_REFUSED */
export async function sendRetry(sender: Sender, state: RunState, actorId: string | undefined): Promise<void> {
  const { runId, parent, retries = 0 } = state;
  if (state.status !== "failed") throw new AbstractRuntimeError("NOT_FAILED", { runId, status: statusOf(state) });
  if (state.undoing)
    throw new AbstractRuntimeError("RETRY_REFUSED", { runId, problem: "what it had done was undone when it failed" });
  const message: Message = {
    id: `retry:${retries + 1}`,
    runId,
    kind: "control",
    key: "retry",
    payload: {},
    ifFailed: true,
    ...sentBy(actorId),
    ...(parent ? { recall: { runId: parent.runId, id: endMessageId(runId, retries) } } : {}),
  };
  const [delivery] = await sender.host.store.deliver([message]);
  if (delivery?.kind === "stored") return sender.delivered(runId, delivery.holder);
  if (delivery?.kind === "duplicate") return;
  if (delivery?.kind === "taken") {
    const problem = `its parent ${parent?.runId} has taken its end; a retry of the parent starts the child anew`;
    throw new AbstractRuntimeError("RETRY_REFUSED", { runId, problem });
  }
  if (delivery?.kind === "not_failed") throw new AbstractRuntimeError("NOT_FAILED", { runId, status: delivery.status });
  throw await refusal(sender.host.store, runId, delivery);
}

/** Who sends a message. @throws INVALID_OPTION */
export function sentBy(actorId: string | undefined): { actorId?: string } {
  if (actorId === undefined) return {};
  checkName("actorId", actorId);
  return { actorId };
}

function control({ host }: Sender, runId: string, action: ControlAction, reason: string | undefined): Message {
  if (reason !== undefined && typeof reason !== "string") throw invalidOption("reason", "reason must be text");
  // A run is cancelled once; it may be paused many times.
  const id = action === "cancel" ? "cancel" : `${action}:${host.ids.id()}`;
  const payload: JsonObject = reason === undefined ? {} : { reason: readPayload(reason, "payload", "reason", host.limits) };
  return { id, runId, kind: "control", key: action, payload };
}

async function refusal(store: Store, runId: string, delivery: Delivery | undefined): Promise<AbstractRuntimeError> {
  switch (delivery?.kind) {
    case "ended":
      return new AbstractRuntimeError("RUN_ENDED", { runId, status: delivery.status });
    case "full":
      return new AbstractRuntimeError("MAILBOX_FULL", { runId, limit: delivery.limit });
    case "moved":
      return elsewhere(store, runId, delivery.to);
    default:
      return missing(store, runId);
  }
}

/** Ids and keys are matched in stores that keep well-formed text only. */
function checkName(option: string, text: unknown): void {
  if (typeof text === "string" && text !== "" && text.length <= 500 && text.isWellFormed()) return;
  const problem = `${option} must be well-formed text of 1 to 500 characters`;
  throw invalidOption(option, problem);
}
