/**
 * From ids to names of directories and back. A name holds lower-case letters, digits, `-` and `_`, everything else as `%` and two hex
 * digits a byte: so that two ids never meet on a file system that ignores case, and no id climbs out of its directory.
 */
import { sha256 } from "../../kernel/record.ts";

/** Names that Windows keeps for devices. */
const reserved = /^(con|prn|aux|nul|com\d|lpt\d)$/;
const longest = 200;

export function nameOf(id: string): string {
  const encoded = id.replace(/[^a-z0-9_-]/gu, percent);
  const name = reserved.test(encoded) ? `${percent(encoded.slice(0, 1))}${encoded.slice(1)}` : encoded;
  // What is too long, empty or no well-formed text goes by its hash; the id stands in the files. No other name has a "=".
  return name !== "" && name.length <= longest && id.isWellFormed() ? name : `=${sha256(JSON.stringify(id))}`;
}

/** Whether a name is the hash of an id. */
export function isHashed(name: string): boolean {
  return /^=[0-9a-f]{64}$/.test(name);
}

/** Undefined when the name does not tell, or is none of ours. */
export function idOf(name: string): string | undefined {
  try {
    const id = decodeURIComponent(name);
    return nameOf(id) === name ? id : undefined;
  } catch {
    return undefined;
  }
}

function percent(text: string): string {
  return [...Buffer.from(text)].map((byte) => `%${byte.toString(16).padStart(2, "0")}`).join("");
}
