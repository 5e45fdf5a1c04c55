/** What `apply` says of each operation, as the contract says it. */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { parseJson } from "../../kernel/json.ts";
import type { RunStatus } from "../../kernel/run.ts";
import type { Delivery, Mail } from "../../kernel/message.ts";
import type { Transition } from "../../kernel/transition.ts";
import { decoded } from "./encode.ts";

export function deliveryOf(result: string, limit = 0): Delivery {
  const rest = result.slice(1);
  switch (result[0]) {
    case "s":
      return { kind: "stored" };
    case "h":
      return { kind: "stored", holder: rest };
    case "d":
      return { kind: "duplicate", same: rest === "1" };
    case "e":
      return { kind: "ended", status: rest as RunStatus };
    case "f":
      return { kind: "not_failed", status: rest as RunStatus };
    case "w":
      return { kind: "not_waiting" };
    case "t":
      return { kind: "taken" };
    case "v":
      return { kind: "moved", to: rest };
    case "F":
      return { kind: "full", limit };
    default:
      return { kind: "no_run" };
  }
}

/** The mail that kept a lease. */
export function unseen(result: string, { runId, row }: Transition): Mail[] {
  if (!result.startsWith("m")) return [];
  return (decoded(result.slice(1)) as MailRow[]).map((mail) => mailOf(mail, runId, row.seq));
}

export type MailRow = [
  position: number,
  id: string,
  kind: string,
  key: string,
  payload: string,
  at: number,
  actorId: string | null,
];

/** @throws RECORD_CORRUPT */
export function mailOf([position, id, kind, key, payload, at, actorId]: MailRow, runId: string, seq: number): Mail {
  try {
    return {
      position,
      id,
      kind: kind as Mail["kind"],
      key,
      payload: parseJson(payload),
      ...(actorId === null ? {} : { actorId }),
      at,
    };
  } catch (error) {
    const problem = `the store holds what cannot be read: ${error instanceof Error ? error.message : String(error)}`;
    throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq, problem }, error);
  }
}
