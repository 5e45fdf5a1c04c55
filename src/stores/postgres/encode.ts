/**
 * Texts as Postgres takes them. It knows no U+0000 and nothing that UTF-8 cannot say, such as half of a surrogate pair; ids, keys
 * and names may have either. U+0001 marks what was put in their place, and stands for itself in the same way.
 */

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it looks for.
const special = /[\u0000\u0001]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what it looks for.
const unfit = /[\u0000\u0001]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

export function encode(text: string): string {
  if (!special.test(text) && text.isWellFormed()) return text;
  return text.replace(unfit, (unit) => `\u0001${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

export function decode(text: string): string {
  if (!text.includes("\u0001")) return text;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: the mark, see above.
  return text.replace(/\u0001(.{4})/g, (_, unit: string) => String.fromCharCode(Number.parseInt(unit, 16)));
}

export type Value = string | number | boolean | null | undefined;

/** An array as Postgres writes it. */
export function arrayOf(values: readonly Value[]): string {
  let text = "{";
  for (const value of values) {
    if (text.length > 1) text += ",";
    if (value === null || value === undefined) text += "NULL";
    else text += typeof value === "string" ? `"${encode(value).replace(/["\\]/g, "\\$&")}"` : value;
  }
  return `${text}}`;
}

/** JSON whose texts Postgres takes. */
export function jsonOf(value: unknown): string {
  return JSON.stringify(value, (_, part) => (typeof part === "string" ? encode(part) : part));
}

/** What such JSON says. */
export function decoded(json: string): unknown {
  return JSON.parse(json, (_, part) => (typeof part === "string" ? decode(part) : part));
}

/** Least first, by the bytes of UTF-8, which is how Postgres compares under COLLATE "C". */
export function byBytes(texts: Iterable<string>): string[] {
  const sorted = [...texts];
  // JavaScript compares units of UTF-16, which is the same for all texts without surrogates.
  if (!sorted.some((text) => /[\ud800-\uffff]/.test(text))) return sorted.sort();
  return sorted.sort((a, b) => Buffer.compare(Buffer.from(encode(a)), Buffer.from(encode(b))));
}
