/** What was said in confidence, cut out of what comes back: servers repeat what they were sent, in errors, and some of them in answers. */

/** What stands where one stood. */
export const instead = "[secret]";

/** As it is, and as it stands in JSON and in URLs. */
export function formsOf(text: string): Set<string> {
  const json = JSON.stringify(text).slice(1, -1);
  return new Set([text, json, json.replaceAll("/", "\\/"), encodeURIComponent(text.toWellFormed())]);
}

/** Takes them out of texts, and of all texts in a value. */
export class Cutter {
  /** Longest first: one may begin with another. */
  readonly #secrets: readonly string[];
  readonly #pattern: RegExp;

  constructor(secrets: Iterable<string>) {
    this.#secrets = [...secrets].filter((text) => text !== "").sort((a, b) => b.length - a.length);
    // One that nothing fits, where there are none.
    this.#pattern = new RegExp(
      this.#secrets.map((text) => text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&")).join("|") || "(?!)",
      "g",
    );
  }

  cut(text: string): string {
    return text.replace(this.#pattern, instead);
  }

  /** Of names of members too. */
  cutIn<T>(value: T): T {
    return this.#cutIn(value) as T;
  }

  #cutIn(value: unknown): unknown {
    if (typeof value === "string") return this.cut(value);
    if (typeof value === "number") return this.#secrets.includes(String(value)) ? instead : value;
    if (Array.isArray(value)) return value.map((item) => this.#cutIn(item));
    if (typeof value !== "object" || value === null) return value;
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [this.cut(name), this.#cutIn(item)]));
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
