/** Where a reader of a run stands: the next record, and in the streams of what executes. Opaque to whoever keeps it. */
import { type AbstractRuntimeError, invalidOption } from "../kernel/errors.ts";

/** How far an attempt of an effect has been shown. */
export interface Shown {
  readonly attempt: number;
  /** UTF-16 units of text. */
  readonly offset: number;
}

export interface CursorPlace {
  /** Seq of the next record. */
  seq: number;
  shown: Map<string, Shown>;
}

/** `12;3.0:1:240`: record 12 is next, and 240 units of attempt 1 of effect 3.0 have been shown. */
export function cursorOf({ seq, shown }: CursorPlace): string {
  let cursor = String(seq);
  for (const [effectId, { attempt, offset }] of shown) cursor += `;${encodeURIComponent(effectId)}:${attempt}:${offset}`;
  return cursor;
}

/** @throws INVALID_OPTION */
export function readCursor(cursor: unknown): CursorPlace {
  const [seq = "", ...effects] = typeof cursor === "string" ? cursor.split(";") : [];
  const shown = new Map<string, Shown>();
  for (const effect of effects) {
    const [effectId = "", attempt = "", offset = ""] = effect.split(":");
    shown.set(nameIn(effectId, cursor), { attempt: countIn(attempt, cursor), offset: countIn(offset, cursor) });
  }
  return { seq: countIn(seq, cursor), shown };
}

function countIn(digits: string, cursor: unknown): number {
  const count = /^\d{1,15}$/.test(digits) ? Number(digits) : Number.NaN;
  if (Number.isNaN(count)) throw noCursor(cursor);
  return count;
}

function nameIn(encoded: string, cursor: unknown): string {
  try {
    return decodeURIComponent(encoded);
  } catch {
    throw noCursor(cursor);
  }
}

function noCursor(cursor: unknown): AbstractRuntimeError<"INVALID_OPTION"> {
  const problem = `"${String(cursor).slice(0, 64)}" is no cursor: give the \`cursor\` of an item of watch()`;
  return invalidOption("after", problem);
}
