/**
 * Pure: what is too large for the ledger, and what stands for it there. A single text above the limit is replaced by a reference, in
 * results and in what nodes write; a result that is too large without any such text, as a whole. The rest is never replaced.
 */
import { type ArtifactRef, isArtifactId } from "./artifact.ts";
import { isObject, type Json } from "./json.ts";
import type { Patch } from "./patch.ts";
import { sha256 } from "./record.ts";

/** What has to be put before `value` is recorded. */
export interface Offloaded<T> {
  value: T;
  /** By the references that stand for them now. */
  texts: [ArtifactRef, string][];
}

export const textType = "text/plain; charset=utf-8";
const jsonType = "application/json";

/** What a look at a value has found. */
export interface Look {
  /** Whether some text is above the limit. */
  large: boolean;
  /** Artifacts that are referred to. */
  ids: Set<string> | undefined;
  /** At least a sixth of the bytes of its JSON text (a control character takes six), and at most about all of them. */
  size: number;
}

/** Looks for what would have to be offloaded or referred to. Asked for every result, so it makes nothing. */
export function look(value: Json | undefined, limitBytes: number, found: Look): void {
  if (typeof value === "string") {
    found.size += value.length + 2;
    found.large ||= isAbove(value, limitBytes);
  } else if (typeof value !== "object" || value === null) {
    found.size += 2;
  } else if (Array.isArray(value)) {
    for (const part of value) look(part, limitBytes, found);
    found.size += value.length;
  } else {
    // What is to be recorded is plain: it has no members but its own.
    for (const key in value) {
      const part = value[key];
      look(part, limitBytes, found);
      found.size += key.length + 3;
      if (key === "$artifact" && isArtifactId(part)) found.ids = (found.ids ?? new Set()).add(part);
    }
  }
}

/**
 * @param found By `look`, with the same limit.
 * @param keepsShape Whether nothing but texts is replaced.
 */
export function offloadResult(result: Json, limitBytes: number, found: Look, keepsShape = false): Offloaded<Json> {
  const texts: Offloaded<Json>["texts"] = [];
  const value = found.large ? withoutLarge(result, limitBytes, texts) : result;
  // What a reference inside of it leads to would be kept by nobody, were it replaced as a whole.
  const mayReplace = !keepsShape && texts.length === 0 && !found.ids && typeof value === "object" && found.size * 6 > limitBytes;
  const text = mayReplace ? JSON.stringify(value) : "";
  if (!isAbove(text, limitBytes)) return { value, texts };
  const ref = refTo(text, jsonType);
  return { value: ref, texts: [[ref, text]] };
}

export function offloadPatch(patch: Patch, limitBytes: number): Offloaded<Patch> {
  const texts: Offloaded<Patch>["texts"] = [];
  const value = patch.map((operation) =>
    "value" in operation ? { ...operation, value: withoutLarge(operation.value, limitBytes, texts) } : operation,
  ) as Patch;
  return { value, texts };
}

function withoutLarge(value: Json, limitBytes: number, texts: [ArtifactRef, string][]): Json {
  if (typeof value === "string") {
    if (!isAbove(value, limitBytes)) return value;
    const ref = refTo(value, textType);
    texts.push([ref, value]);
    return ref;
  }
  if (Array.isArray(value)) return value.map((part) => withoutLarge(part, limitBytes, texts));
  if (!isObject(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, withoutLarge(part, limitBytes, texts)]));
}

function isAbove(text: string, limitBytes: number): boolean {
  // No character takes more than three bytes of UTF-8 for one of its UTF-16 units. Half of a surrogate pair has no UTF-8: it stays where
  // JSON can hold it.
  return text.length * 3 > limitBytes && Buffer.byteLength(text) > limitBytes && text.isWellFormed();
}

function refTo(text: string, contentType: string): ArtifactRef {
  return { $artifact: sha256(text), contentType, sizeBytes: Buffer.byteLength(text) };
}
