/**
 * Large texts, smaller on the disk: a conversation's messages stand in records and in checkpoints, and take half of the space or less.
 * Hashes are of the texts; this is only how the table holds them.
 */
import { deflateRawSync, inflateRawSync } from "node:zlib";

/** Below this there is little to gain for some 15 us. */
const leastLength = 1_024;

/** A text as the table holds it: as it is, or compressed (RFC 1951). */
export function packed<Text extends string | null>(text: Text): Text | Uint8Array {
  if (text === null || text.length < leastLength) return text;
  const bytes = deflateRawSync(text, { level: 1 });
  return bytes.length < text.length ? bytes : text;
}

/** What was packed. Damaged bytes read as an empty text: no hash fits it, and no state can be read from it. */
export function unpacked<Text extends string | null>(stored: Text | Uint8Array): Text | string {
  if (stored === null || typeof stored === "string") return stored;
  try {
    return inflateRawSync(stored).toString();
  } catch {
    return "";
  }
}
