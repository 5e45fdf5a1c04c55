/** Reads the parts of what a file holds, and says which one is not what it should be. */
import { isLosslessNumber } from "lossless-json";
import type { PythonJson, PythonObject } from "./text.ts";

/** Why a file cannot be used: a sentence. The reader of the directory adds the file's name. */
export class Unusable extends Error {}

export function isPythonObject(value: PythonJson | undefined): value is PythonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isLosslessNumber(value);
}

export function objectOf(value: PythonJson, what: string): PythonObject {
  if (isPythonObject(value)) return value;
  throw new Unusable(`${what} is not an object`);
}

export function textAt(object: PythonObject, key: string): string {
  const value = textOrNullAt(object, key);
  if (value === null) throw new Unusable(`${key} is missing`);
  return value;
}

export function textOrNullAt(object: PythonObject, key: string): string | null {
  const value = Object.hasOwn(object, key) ? (object[key] as PythonJson) : null;
  if (value === null || typeof value === "string") return value;
  throw new Unusable(`${key} is no text`);
}

export function objectOrNullAt(object: PythonObject, key: string): PythonObject | null {
  const value = Object.hasOwn(object, key) ? (object[key] as PythonJson) : null;
  return value === null ? null : objectOf(value, key);
}

export function textsOrNullAt(object: PythonObject, key: string): string[] | null {
  const value = Object.hasOwn(object, key) ? (object[key] as PythonJson) : null;
  if (value === null) return null;
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value;
  throw new Unusable(`${key} is no list of texts`);
}

export function oneOf<const Names extends readonly string[]>(text: string, key: string, names: Names): Names[number] {
  if (names.includes(text)) return text;
  throw new Unusable(`${key} is "${text.slice(0, 64)}", and none of: ${names.join(", ")}`);
}
