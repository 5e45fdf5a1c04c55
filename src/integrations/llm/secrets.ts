/** Keys and values of headers, cut out of what comes back: servers repeat what they were sent, in errors and some of them in answers. */
import type { StreamPart } from "../../index.ts";

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
    return new Cutter(this.#texts).cut(text).replace(tokens, "***");
  }

  /** What a model gave, without keys. */
  cutAnswer<T extends object>(answer: T): T {
    return this.#keys.size === 0 ? answer : (new Cutter(this.#keys).cutIn(answer) as T);
  }

  /** As `cutAnswer`, for what comes in parts: what may be the beginning of a key waits for what follows. */
  cutParts(emit: (part: StreamPart) => void): { emit: (part: StreamPart) => void; end: () => void } {
    if (this.#keys.size === 0) return { emit, end: () => undefined };
    const cutter = new Cutter(this.#keys);
    const show = (part: StreamPart): void => {
      if (part.text !== "") emit(cutter.cutIn(part) as StreamPart);
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

const tokens = /\b(?:Bearer\s+\S+|sk-[\w-]{8,})/gi;

/** As it is, and as it stands in JSON and in URLs. */
function formsOf(text: string): Set<string> {
  const json = JSON.stringify(text).slice(1, -1);
  return new Set([text, json, json.replaceAll("/", "\\/"), encodeURIComponent(text.toWellFormed())]);
}

class Cutter {
  /** Longest first: one may begin with another. */
  readonly #secrets: readonly string[];
  readonly #pattern: RegExp;

  constructor(secrets: ReadonlySet<string>) {
    this.#secrets = [...secrets].sort((a, b) => b.length - a.length);
    // One that nothing fits, where there are none.
    this.#pattern = new RegExp(
      this.#secrets.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|") || "(?!)",
      "g",
    );
  }

  cut(text: string): string {
    return text.replace(this.#pattern, "***");
  }

  cutIn(value: unknown): unknown {
    if (typeof value === "string") return this.cut(value);
    if (Array.isArray(value)) return value.map((item) => this.cutIn(item));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [this.cut(name), this.cutIn(item)]));
  }

  /** Up to where whatever follows changes nothing. */
  settled(text: string): number {
    for (let from = 0; ; ) {
      const at = this.#beginning(text, from);
      this.#pattern.lastIndex = from;
      const found = this.#pattern.exec(text);
      if (!found || found.index >= at) return at;
      from = found.index + found[0].length;
    }
  }

  /** Where a secret may begin that does not end in `text`. */
  #beginning(text: string, from: number): number {
    let least = text.length;
    for (const secret of this.#secrets)
      for (let at = Math.max(from, text.length - secret.length + 1); at < least; at++)
        if (secret.startsWith(text.slice(at))) least = at;
    return least;
  }
}
