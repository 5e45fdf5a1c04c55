/** Keys and values of headers, cut out of what comes back: servers repeat what they were sent, in errors and some of them in answers. */
import type { StreamPart } from "../../index.ts";
import { Cutter, formsOf, instead } from "../secrets.ts";

/** Anything shorter is a word, and stands in texts by accident. */
const shortestText = 4;
const shortestPiece = 8;
const shortestKey = 12;

export class Secrets {
  /** Cut out of errors. */
  readonly #texts = new Set<string>();
  /** Cut out of answers, too. */
  readonly #keys = new Set<string>();

  /** @param isKey Whether it is to stand in no answer either. Other values, such as a title, are what a model may well say. */
  add(value: string, isKey: boolean): void {
    for (const piece of [value, ...value.split(/[\s,;="]+/)]) {
      const isLong = piece.length >= (piece === value ? shortestText : shortestPiece);
      for (const form of formsOf(piece)) {
        if (isLong) this.#texts.add(form);
        if (isKey && piece.length >= shortestKey) this.#keys.add(form);
      }
    }
  }

  /** A message without any of them. Tokens of common forms go too: of local models, whose keys nobody here knows, they are all that can be recognised. */
  cut(text: string): string {
    return new Cutter(this.#texts).cut(text).replace(tokens, instead);
  }

  /** What a model gave, without keys. */
  cutAnswer<T extends object>(answer: T): T {
    return this.#keys.size === 0 ? answer : new Cutter(this.#keys).cutIn(answer);
  }

  /** As `cutAnswer`, for what comes in parts: what may be the beginning of a key waits for what follows. */
  cutParts(emit: (part: StreamPart) => void): { emit: (part: StreamPart) => void; end: () => void } {
    if (this.#keys.size === 0) return { emit, end: () => undefined };
    const cutter = new Cutter(this.#keys);
    const show = (part: StreamPart): void => {
      if (part.text !== "") emit(cutter.cutIn(part));
    };
    /** By what they are parts of. */
    const held = new Map<string, StreamPart>();
    return {
      emit(part) {
        const whole = `${part.type} ${part.callId ?? ""}`;
        const text = (held.get(whole)?.text ?? "") + part.text;
        const at = cutter.settled(text);
        held.set(whole, { ...part, text: text.slice(at) });
        show({ ...part, text: text.slice(0, at) });
      },
      end: () => held.forEach(show),
    };
  }
}

const tokens = /\b(?:Bearer\s+\S+|(?:sk-|AIza)[\w-]{8,}|(?:xai-|pplx-|gsk_|hf_)[a-z\d]{8,})/gi;
