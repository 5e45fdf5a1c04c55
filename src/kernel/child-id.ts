/** The names of children: derived from what asked for them, so that asking again finds the same ones. */
import { sha256 } from "./record.ts";

/** The id of the child that an effect starts, in the form of a UUID (version 8). A retry of the run starts another one: `generation`. */
export function childId(runId: string, effectId: string, generation = 0): string {
  // As JSON: an id may hold whatever would separate it from the next part.
  const hex = sha256(JSON.stringify([runId, effectId, generation]));
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-8${hex.slice(13, 16)}-a${hex.slice(17, 20)}-${hex.slice(20, 32)}`;
}

/** The key under which a child's end is delivered. */
export function childKey(runId: string): string {
  return `subworkflow:${runId}`;
}

/** The place of a child of a `fan_out`, as the id of an effect that asked for it. */
export function memberId(effectId: string, index: number): string {
  return `${effectId}.${index}`;
}
