/** Keys and ids that the Python package derives from contents. */
import { hash } from "node:crypto";
import { sha256 } from "../kernel/record.ts";
import { canonicalJsonAscii } from "./text.ts";

/** The key of an effect: equal effects at the same node of a run have the same one. Its `resultKey` is not part of it. */
export function computeIdempotencyKey(runId: string, nodeId: string, effect: { type: string; payload?: unknown }): string {
  const { type, payload = {} } = effect;
  const text = canonicalJsonAscii({ run_id: runId, node_id: nodeId, effect_type: type, effect_payload: payload });
  return sha256(text).slice(0, 32);
}

/** The id that bytes have when none is given. */
export function computeArtifactId(content: Uint8Array): string {
  return hash("sha256", content, "hex").slice(0, 32);
}
