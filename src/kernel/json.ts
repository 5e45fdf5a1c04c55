/**
 * What may be stored.
 *
 * J1. `toJson` copies a value into plain JSON or refuses it with a path; nothing refused is ever committed.
 * J2. Nothing here reads or writes a prototype: members are looked up as own properties, `__proto__` is refused.
 */
import { hash } from "node:crypto";
import { AbstractRuntimeError } from "./errors.ts";

export type Json = null | boolean | number | string | Json[] | JsonObject;
export interface JsonObject {
  [key: string]: Json;
}

export const defaultDepth = 200;

/**
 * A copy of `value` as plain JSON. Members that are `undefined` are dropped and -0 becomes 0, as JSON.stringify does.
 *
 * @param path Names the value in errors, such as `vars`.
 * @throws NOT_JSON for functions, symbols, bigints, non-finite numbers, `undefined` in arrays, holes, objects that are
 *   not plain (Date, Map, class instances), cycles, own `__proto__` keys and what cannot be read; JSON_TOO_DEEP.
 */
export function toJson(value: unknown, path: string, depth: number = defaultDepth): Json {
  return copyJson(value, path, { depth, ancestors: [] });
}

export interface Walk {
  readonly depth: number;
  /** The containers around the value, outermost first. */
  readonly ancestors: object[];
}

export function copyJson(value: unknown, path: string, walk: Walk): Json {
  if (value === null || typeof value === "string" || typeof value === "boolean") return value;
  if (typeof value === "number") {
    if (!Number.isFinite(value)) refuse(path, `${value} is not a finite number`);
    return value === 0 ? 0 : value;
  }
  if (value === undefined) refuse(path, "undefined, or a hole in a list, is not JSON");
  if (typeof value !== "object") refuse(path, `a ${typeof value} is not JSON`);
  enter(value, path, walk);
  try {
    return Array.isArray(value) ? copyList(value, path, walk) : copyObject(value, path, walk);
  } catch (error) {
    return refuseUnreadable(path, error);
  } finally {
    walk.ancestors.pop();
  }
}

function copyList(value: readonly unknown[], path: string, walk: Walk): Json[] {
  const made = new Array<Json>(value.length);
  for (let i = 0; i < value.length; i++) made[i] = copyJson(value[i], `${path}/${i}`, walk);
  return made;
}

function copyObject(value: object, path: string, walk: Walk): JsonObject {
  checkObject(value, path);
  const made: JsonObject = {};
  for (const key of Object.keys(value)) {
    const member = (value as Record<string, unknown>)[key];
    if (member !== undefined) made[key] = copyJson(member, `${path}/${escapeKey(key)}`, walk);
  }
  return made;
}

/**
 * JSON.parse, made safe. V8 13 (Node 24) takes a key with an escape for another key that it has met before, when that one is the text
 * up to and with the backslash: after `{"C:\\":1}` it reads the key of `{"C:\\temp":1}` as `C:\`. So such keys, which are rare,
 * are read as values, which it reads right.
 *
 * @throws SyntaxError as JSON.parse does.
 */
export function parseJson(text: string): Json {
  if (!hasEscapedKey(text)) return JSON.parse(text) as Json;
  // No text holds its own hash, so the mark is nobody's key.
  const mark = `$${hash("sha256", text, "hex")}.`;
  const names: string[] = [];
  const name = (key: string): string => (key.startsWith(mark) ? (names[Number(key.slice(mark.length))] as string) : key);
  return JSON.parse(withoutEscapedKeys(text, mark, names), (_, value: Json) => {
    if (!isObject(value) || !Object.keys(value).some((key) => key.startsWith(mark))) return value;
    return Object.fromEntries(Object.entries(value).map(([key, part]) => [name(key), part]));
  }) as Json;
}

function hasEscapedKey(text: string): boolean {
  // A backslash stands in a string: to its end, and look whether that is a key. Each string is walked once.
  for (let i = text.indexOf("\\"); i >= 0; i = text.indexOf("\\", i)) {
    i = endOfString(text, i);
    if (isKey(text, i)) return true;
  }
  return false;
}

/** The text with each key that has an escape replaced by the mark and its number. A scanner: a pattern would overflow on long strings. */
function withoutEscapedKeys(text: string, mark: string, names: string[]): string {
  let safe = "";
  let kept = 0;
  for (let start = text.indexOf('"'); start >= 0; ) {
    const end = endOfString(text, start + 1);
    const key = text.slice(start, end);
    if (isKey(text, end) && key.includes("\\")) {
      safe += `${text.slice(kept, start)}"${mark}${names.push(JSON.parse(key)) - 1}"`;
      kept = end;
    }
    start = text.indexOf('"', end);
  }
  return safe + text.slice(kept);
}

/** Behind the closing quote of the string that `from` stands in. */
function endOfString(text: string, from: number): number {
  let i = from;
  while (i < text.length && text.charCodeAt(i) !== quote) i += text.charCodeAt(i) === backslash ? 2 : 1;
  return i + 1;
}

function isKey(text: string, behind: number): boolean {
  let i = behind;
  while (text[i] === " " || text[i] === "\n" || text[i] === "\t" || text[i] === "\r") i += 1;
  return text[i] === ":";
}

const quote = 34;
const backslash = 92;

/** A deep copy that shares texts. For handing stored values to code that may change what it is given. */
export function cloneJson<T extends Json | undefined>(value: T): T {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(cloneJson) as T;
  // Spread first: a member that is there already is written as an own one, even `__proto__` in a damaged record.
  const copy: JsonObject = { ...value };
  for (const key of Object.keys(copy)) copy[key] = cloneJson(copy[key] as Json);
  return copy as T;
}

/** Structural equality; the order of keys does not count. */
export function equalJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return false;
  if (Array.isArray(a) || Array.isArray(b)) {
    return Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((element, i) => equalJson(element, b[i]));
  }
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && equalJson(a[key], b[key]));
}

/** What stands at a JSON Pointer, or undefined. */
export function getAt(root: Json, pointer: string): Json | undefined {
  let value: Json | undefined = root;
  for (const segment of parsePointer(pointer)) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, segment)) return undefined;
    if (Array.isArray(value) && segment === "length") return undefined;
    value = (value as JsonObject)[segment];
  }
  return value;
}

export function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

export function escapeKey(key: string): string {
  return key.includes("~") || key.includes("/") ? key.replaceAll("~", "~0").replaceAll("/", "~1") : key;
}

/** @throws RangeError when `pointer` is not empty and does not start with a slash. */
export function parsePointer(pointer: string): string[] {
  if (pointer === "") return [];
  if (!pointer.startsWith("/")) throw new RangeError(`Not a JSON Pointer: ${pointer.slice(0, 40)}`);
  const segments = pointer.slice(1).split("/");
  return pointer.includes("~") ? segments.map((segment) => segment.replaceAll("~1", "/").replaceAll("~0", "~")) : segments;
}

export function member(container: Json[] | JsonObject, key: string): Json | undefined {
  if (Array.isArray(container)) return container[arrayIndex(key, container.length - 1)];
  return Object.hasOwn(container, key) ? container[key] : undefined;
}

export function arrayIndex(segment: string, highest: number): number {
  const index = Number(segment);
  if (String(index) !== segment || !Number.isInteger(index) || index < 0 || index > highest) {
    throw new RangeError(`A patch names element "${segment.slice(0, 40)}" of a list that ends at ${highest}.`);
  }
  return index;
}

/** Looked for at every level: a cycle noticed only at the depth limit would have copied what stands beside it at each turn. */
export function enter(value: object, path: string, { depth, ancestors }: Walk): void {
  if (ancestors.includes(value)) refuse(path, "it contains itself");
  if (ancestors.length >= depth) throw new AbstractRuntimeError("JSON_TOO_DEEP", { path: brief(path), limit: depth });
  ancestors.push(value);
}

export function checkObject(value: object, path: string): void {
  if (isPlain(value)) return;
  if (Object.hasOwn(value, "__proto__")) refuse(`${path}/__proto__`, 'a member named "__proto__" is not allowed');
  if (hasPlainPrototype(value)) refuse(path, "it has members named by symbols");
  refuse(path, `a ${Object.getPrototypeOf(value).constructor?.name || "class instance"} is not plain JSON`);
}

/** Whether an object that is no list may be stored, as far as can be told without looking at its members. */
export function isPlain(value: object): boolean {
  return hasPlainPrototype(value) && !Object.hasOwn(value, "__proto__") && Object.getOwnPropertySymbols(value).length === 0;
}

function hasPlainPrototype(value: object): boolean {
  const prototype = Object.getPrototypeOf(value);
  // A prototype without a prototype of its own is Object.prototype, of this realm or another one.
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

export function refuse(path: string, problem: string, cause?: unknown): never {
  throw new AbstractRuntimeError("NOT_JSON", { path: brief(path), problem }, cause);
}

/** For what reading threw: a getter, or a revoked proxy. Refusals pass. */
export function refuseUnreadable(path: string, error: unknown): never {
  if (error instanceof AbstractRuntimeError) throw error;
  const message = error instanceof Error ? error.message : String(error);
  refuse(path, message.includes("revoked") ? `${endedDraft} (${message})` : `it cannot be read: ${message}`, error);
}

/** What a revoked proxy nearly always is. */
const endedDraft = "it is a draft of the vars that has ended; drafts last for one step, and cannot stand in frozen objects";

/** Depth and long keys make long paths; an error shows their start. */
export function brief(path: string): string {
  return path.length > 300 ? `${path.slice(0, 300)}...` : path;
}
