/**
 * A record as a line of `ledger.jsonl`. Header and body stand there as they are, so that the line is JSON to anybody, and their sizes
 * before them, so that the exact texts, which are what was hashed, are cut out again without being encoded anew (L6).
 */
import { isObject, parseJson } from "../../kernel/json.ts";
import type { StoredRecord } from "../../kernel/record.ts";

const plainLine = /^\{"seq":(\d+),"sizes":\[(\d+),(\d+|null)\],"hash":"([^"\\]*)","header":/;
const between = ',"body":';

export function lineOf({ seq, hash, header, body }: StoredRecord): string {
  if (!isPlain(hash) || /["\\]/.test(hash) || !isPlain(header) || !isPlain(body ?? ""))
    // No text of ours is like this; what is given is kept exactly all the same.
    return `${JSON.stringify({ seq, hash, header, body })}\n`;
  return `{"seq":${seq},"sizes":[${header.length},${body?.length ?? null}],"hash":"${hash}","header":${header}${between}${body}}\n`;
}

/** Undefined when it is no such line. */
export function recordOf(line: string): StoredRecord | undefined {
  const [start, seq, headerSize, bodySize, hash] = plainLine.exec(line) ?? [];
  if (start === undefined) return quotedRecord(line);
  const headerEnd = start.length + Number(headerSize);
  const bodyStart = headerEnd + between.length;
  const bodyEnd = bodyStart + (bodySize === "null" ? 4 : Number(bodySize));
  if (line.slice(headerEnd, bodyStart) !== between || line.slice(bodyEnd) !== "}") return undefined;
  return {
    seq: Number(seq),
    hash: hash as string,
    header: line.slice(start.length, headerEnd),
    body: bodySize === "null" ? null : line.slice(bodyStart, bodyEnd),
  };
}

function quotedRecord(line: string): StoredRecord | undefined {
  try {
    const value = parseJson(line);
    if (!isObject(value)) return undefined;
    const { seq, hash, header, body } = value;
    const isRecord = typeof seq === "number" && typeof hash === "string" && typeof header === "string";
    return isRecord && (typeof body === "string" || body === null) ? { seq, hash, header, body } : undefined;
  } catch {
    return undefined;
  }
}

/** Whether it can stand in a line of UTF-8. */
function isPlain(text: string): boolean {
  return text.isWellFormed() && !text.includes("\n");
}
