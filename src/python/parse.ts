/**
 * Reads JSON as Python's `json` does, keeping the spelling of numbers: each is a `LosslessNumber` of `lossless-json`, whose own reader
 * takes more memory than there is for a text of many megabytes, and refuses what Python writes. To what JavaScript reads is added here:
 *
 * - the bare words NaN, Infinity and -Infinity, which Python writes and reads;
 * - nesting so deep that the stack overflows.
 *
 * One difference stays: keys that look like whole numbers come first, in their order, as in every JavaScript object.
 */
import { LosslessNumber } from "lossless-json";
import type { PythonJson } from "./text.ts";

/** @throws SyntaxError */
export function parsePythonJson(text: string): PythonJson {
  const words = text.includes("NaN") || text.includes("Infinity") ? withoutWords(text) : { text, nan: undefined };
  /** @param context With the text of the value, where it is none that has parts. */
  const read = (_key: string, value: PythonJson, context?: { source?: string }): PythonJson => {
    if (typeof value !== "number") return value;
    const lexeme = context?.source as string;
    return lexeme === words.nan ? Number.NaN : new LosslessNumber(lexeme);
  };
  try {
    return JSON.parse(words.text, read);
  } catch (error) {
    if (error instanceof RangeError) throw new SyntaxError("it is nested too deeply", { cause: error });
    throw error;
  }
}

/** The bare words become numbers: infinity one that overflows, as Python reads it too, and NaN one that stands nowhere in the text. */
function withoutWords(text: string): { text: string; nan: string } {
  let nan = "0e0";
  while (text.includes(nan)) nan += "0";
  let safe = "";
  let kept = 0;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"') {
      for (i += 1; i < text.length && text[i] !== '"'; i++) if (text[i] === "\\") i += 1;
      continue;
    }
    const word = text.startsWith("NaN", i) ? "NaN" : text.startsWith("Infinity", i) ? "Infinity" : undefined;
    if (word === undefined) continue;
    const before = i === 0 ? "" : (text[i - 1] as string);
    const behind = text[i + word.length] ?? "";
    const isValue = (word === "NaN" ? " \t\r\n:,[" : " \t\r\n:,[-").includes(before) && " \t\r\n,]}".includes(behind);
    if (!isValue) continue;
    safe += text.slice(kept, i) + (word === "NaN" ? nan : "1e999");
    kept = i + word.length;
    i = kept - 1;
  }
  return { text: safe + text.slice(kept), nan };
}
