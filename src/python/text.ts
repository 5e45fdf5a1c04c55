/**
 * JSON texts as Python's `json` writes them, character for character: files, ledger lines, and the two canonical forms that are
 * hashed. Those differ: the chain's has raw characters, that of idempotency keys escapes everything above ASCII.
 */
import { isLosslessNumber, type LosslessNumber } from "lossless-json";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { escapeKey, isPlain } from "../kernel/json.ts";
import { numberText, respell } from "./number.ts";

/** JSON with the spelling of its numbers. A plain number is a whole number when it can be one; NaN and infinities are allowed, as in Python. */
export type PythonJson = null | boolean | number | bigint | string | LosslessNumber | PythonJson[] | PythonObject;
export interface PythonObject {
  [key: string]: PythonJson;
}

interface Style {
  betweenItems: string;
  afterKey: string;
  indent?: number;
  sorted?: boolean;
  ascii?: boolean;
  /** What Python cannot encode is refused; otherwise half of a surrogate pair is escaped, which Python reads. */
  wellFormed?: boolean;
}

/** What the hash chain and fingerprints are computed over. @throws NOT_JSON, JSON_TOO_DEEP */
export function canonicalJson(value: unknown): string {
  return write(value, { betweenItems: ",", afterKey: ":", sorted: true, wellFormed: true });
}

/** What idempotency keys are computed over. @throws NOT_JSON, JSON_TOO_DEEP */
export function canonicalJsonAscii(value: unknown): string {
  return write(value, { betweenItems: ",", afterKey: ":", sorted: true, ascii: true });
}

/** The text of a run, snapshot or metadata file, without a line feed at its end. */
export function fileText(value: unknown): string {
  return write(value, { betweenItems: ",", afterKey: ": ", indent: 2 });
}

/** A line of a ledger, without its line feed. */
export function lineText(value: unknown): string {
  return write(value, { betweenItems: ", ", afterKey: ": ", wellFormed: true });
}

/** Python's own limit is about this. */
const deepest = 1_000;

function write(value: unknown, style: Style): string {
  return valueText(value, style, 0, "");
}

function valueText(value: unknown, style: Style, depth: number, path: string): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return stringText(value, style, path);
  if (typeof value === "number" || typeof value === "bigint") return numberText(value);
  if (isLosslessNumber(value)) return losslessText(value, path);
  if (typeof value !== "object") refuse(path, `a ${typeof value} is not JSON`);
  if (depth >= deepest) throw new AbstractRuntimeError("JSON_TOO_DEEP", { path: path.slice(0, 300), limit: deepest });
  if (Array.isArray(value)) {
    const items = value.map((item: unknown, i) => valueText(item, style, depth + 1, `${path}/${i}`));
    return enclosed("[", items, "]", style, depth);
  }
  // An own `__proto__` is a key as any other in Python.
  if (!isPlain(value) && !Object.hasOwn(value, "__proto__")) refuse(path, "it is not a plain object");
  const keys = Object.keys(value).filter((key) => (value as Record<string, unknown>)[key] !== undefined);
  if (style.sorted) keys.sort(byCodePoint);
  const members = keys.map((key) => {
    const at = `${path}/${escapeKey(key)}`;
    const member = (value as Record<string, unknown>)[key];
    return stringText(key, style, at) + style.afterKey + valueText(member, style, depth + 1, at);
  });
  return enclosed("{", members, "}", style, depth);
}

function enclosed(open: string, parts: string[], close: string, { betweenItems, indent }: Style, depth: number): string {
  if (parts.length === 0 || indent === undefined) return open + parts.join(betweenItems) + close;
  const line = `\n${" ".repeat(indent * (depth + 1))}`;
  return `${open}${line}${parts.join(betweenItems + line)}\n${" ".repeat(indent * depth)}${close}`;
}

/** JSON.stringify escapes what Python escapes, and half of a surrogate pair besides. */
function stringText(text: string, { ascii, wellFormed }: Style, path: string): string {
  if (wellFormed && !text.isWellFormed()) refuse(path, "it has half of a surrogate pair, which Python cannot hash");
  const written = JSON.stringify(text);
  return ascii
    ? written.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
    : written;
}

function losslessText(value: LosslessNumber, path: string): string {
  try {
    return respell(value.value);
  } catch (error) {
    refuse(path, (error as Error).message);
  }
}

function byCodePoint(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    if (a.charCodeAt(i) !== b.charCodeAt(i)) return (a.codePointAt(i) as number) - (b.codePointAt(i) as number);
  }
  return a.length - b.length;
}

function refuse(path: string, problem: string): never {
  throw new AbstractRuntimeError("NOT_JSON", { path: path.slice(0, 300) || "the value", problem });
}
