/** The stream of one attempt that executes in this process: what its readers here see, and what is to be kept of it. */
import type { StreamPart } from "../kernel/effect.ts";
import { type AbstractRuntimeError, invalidOption } from "../kernel/errors.ts";
import type { StreamChunk, StreamPlace } from "../kernel/stream.ts";

/** A part, and where it begins. */
export interface Piece {
  readonly offset: number;
  readonly part: StreamPart;
}

/** UTF-16 units of text in a chunk that is kept, and in a part: a longer one is cut. */
export const chunkUnits = 16_384;

export class LiveStream {
  readonly place: StreamPlace;
  readonly begunAt: number;
  /** Whether that it began is durable, so that nobody else makes an attempt of this number. */
  hasBegun = false;
  /** In order, without gaps. Parts of one kind that were put into a chunk together have become one. */
  readonly #pieces: Piece[] = [];
  /** How many of the pieces stand in chunks. */
  #chunked = 0;
  #chunkedUnits = 0;
  #units = 0;
  /** Chunks that the store has not acknowledged. They are sent again as they are: what stands in the store is not written over. */
  readonly unkept: StreamChunk[] = [];
  isEnded = false;
  /** Called when everything is kept, or is not going to be. */
  settled: (() => void) | undefined;

  constructor(place: StreamPlace, begunAt: number) {
    this.place = place;
    this.begunAt = begunAt;
  }

  /** UTF-16 units of text so far. */
  get units(): number {
    return this.#units;
  }

  /** Those in no chunk yet. */
  get freshUnits(): number {
    return this.#units - this.#chunkedUnits;
  }

  /** A part without text is left out: it has no place. @throws INVALID_OPTION */
  add(given: StreamPart): void {
    const part = checked(given);
    const { text } = part;
    for (let from = 0; from < text.length; from += chunkUnits) {
      const piece = text.length <= chunkUnits ? part : { ...part, text: text.slice(from, from + chunkUnits) };
      this.#pieces.push({ offset: this.#units, part: piece });
      this.#units += piece.text.length;
    }
  }

  /** What stands from an offset on: the rest of the part that it is in, or the next one. Undefined behind the last. */
  at(offset: number): Piece | undefined {
    if (offset >= this.#units) return undefined;
    // Whoever keeps up reads the last one; it is looked at first.
    let [low, high] = [0, this.#pieces.length - 1];
    if ((this.#pieces[high] as Piece).offset <= offset) low = high;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if ((this.#pieces[middle] as Piece).offset <= offset) low = middle;
      else high = middle - 1;
    }
    return pieceFrom(this.#pieces[low] as Piece, offset);
  }

  /** Makes chunks of what stands in none yet. */
  chunk(): void {
    const fresh = this.#pieces.splice(this.#chunked);
    let parts: StreamPart[] = [];
    let offset = this.#chunkedUnits;
    let end = offset;
    const close = (): void => {
      this.unkept.push({ ...this.place, offset, end, parts: JSON.stringify(parts) });
      for (const part of parts) {
        this.#pieces.push({ offset, part });
        offset += part.text.length;
      }
      parts = [];
    };
    for (const { part } of fresh) {
      if (end - offset + part.text.length > chunkUnits && parts.length > 0) close();
      const last = parts.at(-1);
      if (last && isSameKind(last, part)) parts[parts.length - 1] = { ...last, text: last.text + part.text };
      else parts.push(part);
      end += part.text.length;
    }
    if (parts.length > 0) close();
    this.#chunked = this.#pieces.length;
    this.#chunkedUnits = end;
  }
}

/** A piece without what stands before an offset. */
export function pieceFrom(piece: Piece, offset: number): Piece {
  const { part } = piece;
  return piece.offset >= offset ? piece : { offset, part: { ...part, text: part.text.slice(offset - piece.offset) } };
}

/** A copy of our own: what its maker does with it later changes nothing. */
function checked(given: unknown): StreamPart {
  const part: Record<string, string> = {};
  if (typeof given !== "object" || given === null)
    throw refused(`a part is { type, text }, not ${given === null ? "null" : typeof given}`);
  for (const [name, value] of Object.entries(given)) {
    if (value === undefined) continue;
    if (typeof value !== "string")
      throw refused(`"${name.slice(0, 64)}" of a part is a text, not ${value === null ? "null" : typeof value}`);
    if (name === "__proto__") throw refused('a part has no member "__proto__"');
    part[name] = value;
  }
  for (const name of ["type", "text"]) if (part[name] === undefined) throw refused(`a part needs "${name}"`);
  return part as unknown as StreamPart;
}

function refused(problem: string): AbstractRuntimeError<"INVALID_OPTION"> {
  return invalidOption("part", `stream(): ${problem}`);
}

/** Whether two parts differ in nothing but their text. */
function isSameKind(a: StreamPart, b: StreamPart): boolean {
  let members = 0;
  for (const name in a) {
    if (name !== "text" && a[name] !== b[name]) return false;
    members += 1;
  }
  for (const _ in b) members -= 1;
  return members === 0;
}
