/** What a message carries, read at the door. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { Limits } from "../kernel/execute.ts";
import { type Json, toJson } from "../kernel/json.ts";

/**
 * @param name Of the argument. @param what Carries it.
 * @throws NOT_JSON, JSON_TOO_DEEP, TOO_LARGE
 */
export function readPayload(payload: unknown, name: string, what: string, limits: Limits): Json {
  const json = payload === undefined ? null : toJson(payload, name, limits.jsonDepth);
  const sizeBytes = Buffer.byteLength(JSON.stringify(json));
  if (sizeBytes > limits.messageBytes)
    throw new AbstractRuntimeError("TOO_LARGE", { what, sizeBytes, limitBytes: limits.messageBytes });
  return json;
}
