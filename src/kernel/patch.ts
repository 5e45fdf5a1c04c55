/**
 * How what is stored changes: patches between two states, made by our own code, since a patch must carry every key that a JSON
 * text can.
 *
 * P1. `applyPatch(before, diff(before, after))` deep-equals `toJson(after)`.
 * P2. Values are shared, never changed: a container is copied before its first change (see `Owned`).
 * P3. A long text that stands elsewhere in what is changed, as one that a result has just brought, is copied rather than written again.
 * P4. A container that is shorter written whole than as its changes is written whole. `diff` and `applyPatch` cost n log n of what
 *     they look at, however many elements come and go.
 */
import { AbstractRuntimeError } from "./errors.ts";
import {
  arrayIndex,
  brief,
  checkObject,
  copyJson,
  defaultDepth,
  enter,
  escapeKey,
  getAt,
  isObject,
  type Json,
  type JsonObject,
  member,
  parsePointer,
  refuse,
  refuseUnreadable,
  type Walk,
} from "./json.ts";

/** One change (RFC 6902). `path` is a JSON Pointer (RFC 6901); `-` as an index is never written. What is copied is a text. */
export type PatchOperation =
  | { op: "add" | "replace"; path: string; value: Json }
  | { op: "copy"; from: string; path: string }
  | { op: "remove"; path: string };
export type Patch = PatchOperation[];

/** Containers made by the current sequence of changes, which nobody else holds: these are changed in place. */
export type Owned = Set<object>;

/**
 * The changes that turn `before` into `after`. Parts that are the same object are not looked into, so that the cost
 * follows what was touched; what is new goes through `toJson`.
 *
 * @param what Names the value in errors; paths in the patch are relative to it.
 * @param copies Whether long texts may be copied (P3).
 * @throws NOT_JSON, JSON_TOO_DEEP: as `toJson`, and when `after` is not an object.
 */
export function diff(
  before: JsonObject,
  after: unknown,
  what = "vars",
  depth: number = defaultDepth,
  { copies = false }: { copies?: boolean } = {},
): Patch {
  const patch: Patch = [];
  compare(before, after, "", { what, depth, patch, length: 0, ancestors: [], ...(copies ? { before } : {}) });
  if (patch[0]?.path === "") refuse(what, "it must be an object");
  return patch;
}

interface Comparison extends Walk {
  readonly what: string;
  readonly patch: Patch;
  /** Of the patch's JSON text, about. */
  length: number;
  /** Where long texts may be copied from, and which there are, once somebody asked. */
  readonly before?: JsonObject;
  texts?: Map<string, string>;
}

function compare(before: Json, after: unknown, path: string, to: Comparison): void {
  if (before === after) return;
  const { length } = to;
  const done = to.patch.length;
  if (isContainer(before) && isContainer(after)) {
    enter(after, to.what + path, to);
    try {
      const lists = Array.isArray(after);
      if (lists === Array.isArray(before)) {
        if (lists) compareLists(before as Json[], after, path, to);
        else compareObjects(before as JsonObject, after, path, to);
        const written = to.length - length;
        if (to.patch.length - done <= 1 || path === "" || textLength(after, written) >= written) return;
      }
    } catch (error) {
      refuseUnreadable(to.what + path, error);
    } finally {
      to.ancestors.pop();
    }
  }
  // Another kind of value, or one that is shorter written whole, as a sorted or emptied list is.
  to.patch.length = done;
  to.length = length;
  write({ op: "replace", path, value: copyJson(after, to.what + path, to) }, to);
}

function write(operation: PatchOperation, to: Comparison): void {
  const length = textLength(operation, Number.POSITIVE_INFINITY);
  if (to.before && length > copied.least && "value" in operation) return writeCopying(operation, to);
  to.patch.push(operation);
  to.length += length;
}

/** Texts of this length are copied: a shorter one is not worth an operation, and with longer ones the size of the vars could not be guessed. */
const copied = { least: 512, most: 65_536 };
/** Where texts are looked for: in the vars and in objects there, of so many members. In larger ones the search costs more than it saves. */
const mostMembers = 64;

/** The operation without the texts that can be copied, and behind it what copies them. */
function writeCopying(operation: PatchOperation & { value: Json }, to: Comparison): void {
  to.texts ??= textsOf(to.before as JsonObject);
  const { path, value } = operation;
  const from = typeof value === "string" && path.lastIndexOf("/") === 0 ? sourceOf(value, path, to) : undefined;
  if (from !== undefined) return write({ op: "copy", from, path }, to);
  const copies: PatchOperation[] = [];
  const find = (text: string): string | undefined => sourceOf(text, path, to);
  const rest = to.texts.size === 0 ? value : withoutTexts(value, path, find, copies);
  for (const one of [{ ...operation, value: rest }, ...copies]) {
    to.patch.push(one);
    to.length += textLength(one, Number.POSITIVE_INFINITY);
  }
}

/** The most by which vars grow through copies in a record, given its body: what users write in one may count as such, too. */
export function copiedLength(body: string): number {
  let length = 0;
  for (let at = body.indexOf(copyMark); at >= 0; at = body.indexOf(copyMark, at + 1)) length += copied.most;
  return length;
}

const copyMark = '{"op":"copy","from":';

function textsOf(vars: JsonObject): Map<string, string> {
  const texts = new Map<string, string>();
  const note = (holder: JsonObject, at: string, next?: (value: JsonObject, at: string) => void): void => {
    const keys = Object.keys(holder);
    for (const key of keys.length > mostMembers ? [] : keys) {
      const value = holder[key] as Json;
      const path = `${at}/${escapeKey(key)}`;
      if (typeof value !== "string") isObject(value) && next?.(value, path);
      else if (value.length >= copied.least && value.length <= copied.most) texts.set(value, path);
    }
  };
  note(vars, "", note);
  return texts;
}

/** Where a text still stands when what is written so far, and at `path`, is done. */
function sourceOf(text: string, path: string, { texts, patch }: Comparison): string | undefined {
  const from = text.length < copied.least ? undefined : texts?.get(text);
  if (from === undefined) return undefined;
  const goes = (at: string): boolean => from === at || from.startsWith(`${at}/`);
  return goes(path) || patch.some((operation) => goes(operation.path)) ? undefined : from;
}

/** Members of objects only: a copy into a list would be one element more. */
function withoutTexts(value: Json, path: string, find: (text: string) => string | undefined, copies: PatchOperation[]): Json {
  if (!isContainer(value)) return value;
  if (Array.isArray(value)) return value.map((element, i) => withoutTexts(element, `${path}/${i}`, find, copies));
  const rest: JsonObject = {};
  for (const key of Object.keys(value)) {
    const at = `${path}/${escapeKey(key)}`;
    const part = value[key] as Json;
    const from = typeof part === "string" ? find(part) : undefined;
    if (from !== undefined) copies.push({ op: "copy", from, path: at });
    rest[key] = from === undefined ? withoutTexts(part, at, find, copies) : "";
  }
  return rest;
}

function isContainer(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}

const { propertyIsEnumerable: isEnumerable } = Object.prototype;

function compareObjects(before: JsonObject, after: object, path: string, to: Comparison): void {
  checkObject(after, to.what + path);
  const members = after as Record<string, unknown>;
  for (const key of Object.keys(after)) {
    const member = members[key]; // read once, since it may be a getter
    if (Object.hasOwn(before, key)) {
      if (before[key] === member) continue;
      const at = `${path}/${escapeKey(key)}`;
      if (member === undefined) write({ op: "remove", path: at }, to);
      else compare(before[key] as Json, member, at, to);
    } else if (member !== undefined) {
      const at = `${path}/${escapeKey(key)}`;
      write({ op: "add", path: at, value: copyJson(member, to.what + at, to) }, to);
    }
  }
  // Last, since what goes may be copied before.
  for (const key of Object.keys(before)) {
    // Enumerable, not just own: what toJson would not copy is not there.
    if (!isEnumerable.call(after, key)) write({ op: "remove", path: `${path}/${escapeKey(key)}` }, to);
  }
}

/**
 * Elements that are the same object, or equal leaves, are kept, as many as can be without moving one. What stands
 * between two of them is compared in place, and the rest of it removed or added: a sliding window, a filter, an
 * insertion write what they changed. Removals and additions come first, with ascending indexes, so that the paths of
 * what is compared are those in `after`, and `applyPatch` needs one pass.
 */
function compareLists(before: readonly Json[], after: readonly unknown[], path: string, to: Comparison): void {
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  let end = 0;
  while (end < shorter - start && before[before.length - 1 - end] === after[after.length - 1 - end]) end++;
  const compared: [element: Json, index: number][] = [];

  // The gap before each kept element, and the one before the shared end.
  let old = start;
  let at = start;
  const gaps = [...keptElements(before, after, start, end), { old: before.length - end, at: after.length - end }];
  for (const { old: oldNext, at: next } of gaps) {
    const common = Math.min(oldNext - old, next - at);
    const uneven = common > 0 && oldNext - old !== next - at;
    // Elements came or went beside those that changed: on their left when the gap's last two are more alike than its first.
    const left = uneven && likeness(before[oldNext - 1], after[next - 1]) > likeness(before[old], after[at]);
    const surplus = left ? at : at + common;
    for (let i = old + common; i < oldNext; i++) write({ op: "remove", path: `${path}/${surplus}` }, to);
    for (let i = surplus; i < surplus + next - at - common; i++) {
      write({ op: "add", path: `${path}/${i}`, value: copyJson(after[i], `${to.what}${path}/${i}`, to) }, to);
    }
    for (let i = 0; i < common; i++) {
      const index = left ? next - common + i : at + i;
      compared.push([before[left ? oldNext - common + i : old + i] as Json, index]);
    }
    old = oldNext + 1;
    at = next + 1;
  }
  for (const [element, index] of compared) compare(element, after[index], `${path}/${index}`, to);
}

/** An element that stays: its index before and after, and the one that stays before it. */
interface Kept {
  readonly old: number;
  readonly at: number;
  readonly previous?: Kept | undefined;
}

/** What can stay outside `start` and `end` without being moved: the longest increasing subsequence, by patience sorting. */
function keptElements(before: readonly Json[], after: readonly unknown[], start: number, end: number): Kept[] {
  if (before.length - end - start <= 1 && after.length - end - start <= 1) return [];
  // Where each element stood; equal leaves are given out in order, and `following` leads from one to the next.
  const places = new Map<unknown, number>();
  const following = new Int32Array(before.length);
  for (let i = before.length - end - 1; i >= start; i--) {
    following[i] = places.get(before[i]) ?? -1;
    places.set(before[i], i);
  }
  // The end of the best run of each length so far: of all of them the one that stood first.
  const ends: Kept[] = [];
  // A hole ends it: a list may be one long hole, and is then refused when it is copied.
  for (let at = start; at < after.length - end && after[at] !== undefined; at++) {
    const old = places.get(after[at]) ?? -1;
    if (old === -1) continue;
    places.set(after[at], following[old] as number);
    let low = 0;
    for (let high = ends.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((ends[middle] as Kept).old < old) low = middle + 1;
      else high = middle;
    }
    ends[low] = { old, at, previous: ends[low - 1] };
  }
  const kept: Kept[] = [];
  for (let last = ends.at(-1); last; last = last.previous) kept.push(last);
  return kept.reverse();
}

/** How many members two containers share. */
function likeness(before: Json | undefined, after: unknown): number {
  if (!isContainer(before) || !isContainer(after)) return 0;
  return Object.keys(before).filter((key) => (before as JsonObject)[key] === (after as JsonObject)[key]).length;
}

/** About the length of a value's JSON text, counted until it is above `limit`. */
function textLength(value: unknown, limit: number): number {
  if (typeof value === "string") return value.length + 2;
  if (!isContainer(value)) return String(value).length;
  let length = 2;
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length && length <= limit; i++) length += textLength(value[i], limit - length) + 1;
    return length;
  }
  for (const key of Object.keys(value)) {
    if (length > limit) break;
    length += key.length + 4 + textLength((value as JsonObject)[key], limit - length);
  }
  return length;
}

/**
 * `root` with the changes made. `root` itself and everything in it stay as they are, except containers in `owned`,
 * which are changed in place: a fold over many records passes one set along and copies each container once.
 *
 * @throws RangeError when an operation does not fit, which only a damaged record can cause.
 */
export function applyPatch(root: JsonObject, patch: readonly PatchOperation[], owned: Owned = new Set()): JsonObject {
  let result = root;
  for (let i = 0; i < patch.length; ) {
    const operation = patch[i] as PatchOperation;
    const segments = parsePointer(operation.path);
    const last = segments.pop();
    if (last === undefined) throw new RangeError("A patch changes members, not the whole.");
    result = own(result, owned);
    let container: Json[] | JsonObject = result;
    for (const segment of segments) {
      const child: Json[] | JsonObject = own(member(container, segment), owned);
      (container as JsonObject)[segment] = child; // an own member, so not a prototype
      container = child;
    }
    if (Array.isArray(container)) i = changeList(container, patch, i);
    else {
      changeMember(container, last, operation.op === "copy" ? copiedText(result, operation) : operation);
      i++;
    }
  }
  return result;
}

function copiedText(root: JsonObject, { from, path }: PatchOperation & { op: "copy" }): PatchOperation {
  const value = getAt(root, from);
  if (typeof value !== "string") throw new RangeError(`A patch copies what is no text: ${brief(from)}`);
  return { op: "add", path, value };
}

/** Does `patch[first]` and those after it that go up the same list, in one pass. Returns the index of the next one. */
function changeList(list: Json[], patch: readonly PatchOperation[], first: number): number {
  const { path } = patch[first] as PatchOperation;
  const parent = path.slice(0, path.lastIndexOf("/") + 1);
  // Opened by the first operation that moves elements: what stood from there on, of which `taken` elements are done.
  let rest: Json[] | undefined;
  let taken = 0;
  let i = first;
  for (; i < patch.length; i++) {
    const operation = patch[i] as PatchOperation;
    if (!operation.path.startsWith(parent) || operation.path.includes("/", parent.length)) break;
    checkOperation(operation);
    const length = list.length + (rest ? rest.length - taken : 0);
    const index = arrayIndex(operation.path.slice(parent.length), operation.op === "add" ? length : length - 1);
    if (rest && index < list.length) break;
    if (!rest && operation.op === "replace") {
      list[index] = operation.value;
      continue;
    }
    rest ??= list.splice(index);
    while (list.length < index) list.push(rest[taken++] as Json);
    if (operation.op !== "add") taken++;
    if (operation.op !== "remove") list.push(operation.value);
  }
  while (rest && taken < rest.length) list.push(rest[taken++] as Json);
  return i;
}

function changeMember(container: JsonObject, key: string, operation: PatchOperation): void {
  checkOperation(operation);
  if (key === "__proto__") throw new RangeError("A patch would reach a prototype.");
  if (operation.op !== "add" && !Object.hasOwn(container, key)) {
    throw new RangeError(`A patch names a member that is not there: ${brief(operation.path)}`);
  }
  if (operation.op === "remove") delete container[key];
  else container[key] = operation.value;
}

function checkOperation(operation: PatchOperation): asserts operation is Exclude<PatchOperation, { op: "copy" }> {
  if (operation.op === "remove") return;
  if (operation.op !== "add" && operation.op !== "replace") throw new RangeError("A patch holds an unknown operation.");
  if (operation.value === undefined) throw new RangeError(`A patch has no value for ${brief(operation.path)}.`);
}

/**
 * `root` with `value` under a dotted key (`order.receipt`), as results are stored. Objects are made on the way, and
 * replace whatever else stands there, lists included; an empty part is an ordinary key (AbstractRuntime 0.0.1's rule).
 *
 * @throws RESULT_KEY_INVALID when a part is `__proto__`, or the last one `$artifact`.
 */
export function setAt(root: JsonObject, dottedKey: string, value: Json, owned: Owned = new Set()): JsonObject {
  checkResultKey(dottedKey);
  const parts = dottedKey.split(".");
  const last = parts.pop() as string;
  const result = own(root, owned);
  let container = result;
  for (const part of parts) {
    const there = Object.hasOwn(container, part) ? container[part] : undefined;
    const child: JsonObject = own(isObject(there) ? there : {}, owned);
    container[part] = child;
    container = child;
  }
  container[last] = value;
  return result;
}

/** @throws RESULT_KEY_INVALID */
export function checkResultKey(dottedKey: string): void {
  if (dottedKey.split(".").includes("__proto__")) {
    throw new AbstractRuntimeError("RESULT_KEY_INVALID", {
      key: dottedKey,
      problem: 'the part "__proto__" would reach a prototype',
    });
  }
  // A result that is a mere id would become a reference that no record shows, and its artifact would not be kept.
  if (dottedKey === "$artifact" || dottedKey.endsWith(".$artifact")) {
    throw new AbstractRuntimeError("RESULT_KEY_INVALID", {
      key: dottedKey,
      problem: 'a part "$artifact" at its end would make a reference: let the result be the whole reference',
    });
  }
}

function own<T extends Json | undefined>(value: T, owned: Owned): Extract<T, object> {
  if (typeof value !== "object" || value === null) throw new RangeError("A patch leads into a value that has no members.");
  if (owned.has(value)) return value as Extract<T, object>;
  const made = Array.isArray(value) ? value.slice() : { ...value };
  owned.add(made);
  return made as Extract<T, object>;
}
