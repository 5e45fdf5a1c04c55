/**
 * Values between the two languages. JavaScript has one kind of number, so that reading loses what Python would write again: the
 * spelling of 1.0, the last digits of a large whole number, NaN. It is looked up in the old value when the new one is written, and
 * comes back where nothing was changed.
 */
import { isLosslessNumber } from "lossless-json";
import { escapeKey, isObject, type Json, type JsonObject } from "../kernel/json.ts";
import { isPythonObject } from "./shape.ts";
import { canonicalJson, type PythonJson, type PythonObject } from "./text.ts";

/** @param lossy Is told of each number that is another one now. */
export function toNative(value: PythonJson, path: string, lossy: (path: string, lexeme: string) => void): Json {
  if (isNumber(value)) {
    const number = numberOf(value);
    if (number === null || isInexact(value, number)) lossy(path, canonicalJson(value));
    return number;
  }
  if (typeof value !== "object" || value === null) return value as Json;
  if (Array.isArray(value)) return value.map((item, i) => toNative(item, `${path}/${i}`, lossy));
  const made: JsonObject = {};
  for (const [key, member] of Object.entries(value as PythonObject)) {
    // Defined, since setting `__proto__` would set something else: whoever stores it refuses it by name.
    const native = toNative(member, `${path}/${escapeKey(key)}`, lossy);
    Object.defineProperty(made, key, { value: native, writable: true, enumerable: true, configurable: true });
  }
  return made;
}

/** A value as Python has it: what is as it was in `old`, at the same place, keeps its spelling. */
export function toPython(value: Json, old: PythonJson | undefined): PythonJson {
  if (isNumber(old) && numberOf(old) === (value === 0 ? 0 : value)) return old;
  if (Array.isArray(value)) return value.map((item, i) => toPython(item, Array.isArray(old) ? old[i] : undefined));
  if (!isObject(value)) return value;
  const before: PythonObject = isPythonObject(old) ? old : {};
  // Keys in the order that they had, then the new ones.
  const known = Object.keys(before).filter((key) => Object.hasOwn(value, key));
  const keys = [...known, ...Object.keys(value).filter((key) => !Object.hasOwn(before, key))];
  return Object.fromEntries(
    keys.map((key) => [key, toPython(value[key] as Json, Object.hasOwn(before, key) ? before[key] : undefined)]),
  );
}

type PythonNumber = Exclude<PythonJson, null | boolean | string | PythonJson[] | PythonObject>;

function isNumber(value: PythonJson | undefined): value is PythonNumber {
  return typeof value === "number" || typeof value === "bigint" || isLosslessNumber(value);
}

function spelled(value: PythonNumber): string {
  return isLosslessNumber(value) ? value.value : String(value);
}

/** Null for what is no number in JSON: NaN and infinities. Zero has no sign there. */
function numberOf(value: PythonNumber): number | null {
  const number = Number(spelled(value));
  return Number.isFinite(number) ? (number === 0 ? 0 : number) : null;
}

/** A whole number that is another one as a float. */
function isInexact(value: PythonNumber, number: number): boolean {
  const text = spelled(value);
  return /^-?\d+$/.test(text) && BigInt(text) !== BigInt(number);
}
