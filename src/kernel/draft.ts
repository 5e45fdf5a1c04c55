/**
 * A node works on a draft of the vars. When it has returned, draft and plan are finalised together (drafts are revoked
 * afterwards): out come the patch, and the plan's payload with its references into the vars.
 */
import { create, isDraft } from "mutative";
import { AbstractRuntimeError } from "./errors.ts";
import { escapeKey, getAt, isPlain, type Json, type JsonObject, toJson } from "./json.ts";
import { diff, type Patch } from "./patch.ts";
import type { Ref } from "./refs.ts";

export interface Finalised<T> {
  patch: Patch;
  /** The vars after the patch: equal to what the fold will hold, not the same objects. */
  vars: JsonObject;
  /** What was given to `close`, free of drafts. */
  value: T;
  /** Where each container that came out of the vars stands in them now. */
  places: ReadonlyMap<object, string>;
}

interface VarsDraft {
  /** The draft: change it in place, or replace it as a whole. */
  vars: JsonObject;
  /** Ends the draft and every draft within it. @throws NOT_JSON, JSON_TOO_DEEP: what it holds cannot be stored. */
  close<T>(value: T): Finalised<T>;
}

/** Texts shorter than this are written again rather than referred to. */
const shortText = 1_024;

/** Opens a draft of `vars`, which are not changed. */
export function openDraft(vars: JsonObject, depth?: number): VarsDraft {
  const [root, finalise] = create<{ vars: unknown; value: unknown }>({ vars, value: undefined });
  return {
    get vars() {
      return root.vars as JsonObject;
    },
    set vars(replacement) {
      root.vars = replacement;
    },
    close<T>(value: T) {
      const links: Link[] = [];
      let result: T;
      let after: { vars: unknown; value: unknown };
      try {
        const copies = new Map<object, unknown>();
        result = withoutSharing(value, links, copies) as T;
        if (links.length > 0) root.value = result;
        if (!isDraft(root.vars)) root.vars = withoutSharing(root.vars, [], copies);
        after = finalise() as typeof after;
      } catch (error) {
        // Something in there cannot be read: found once more, with its path.
        toJson(root.vars, "vars", depth);
        toJson(value, "plan", depth);
        const problem = error instanceof Error ? error.message : String(error);
        throw new AbstractRuntimeError("NOT_JSON", { path: "vars", problem }, error);
      }
      const patch = diff(vars, after.vars, "vars", depth, { copies: true });
      const changed = after.vars as JsonObject;
      if (links.length === 0) return { patch, vars: changed, value: result, places: new Map() };
      return { patch, vars: changed, value: after.value as T, places: placesOf(links, changed) };
    },
  };
}

/**
 * Copies every container except drafts, whose links are noted: finalising replaces drafts within their containers, and
 * plans may be frozen, or be used again. What is not plain JSON is left for `toJson` to refuse.
 */
function withoutSharing(value: unknown, links: Link[], copies: Map<object, unknown>): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (isDraft(value)) {
    const link = (value as Record<symbol, Link | undefined>)[Symbol.for("__MUTATIVE_PROXY_DRAFT__")];
    if (link) links.push(link);
    return value;
  }
  // What stands in several places is copied once, and a cycle stays one.
  const copied = copies.get(value);
  if (copied !== undefined) return copied;
  if (Array.isArray(value)) {
    const list: unknown[] = [];
    copies.set(value, list);
    for (let i = 0; i < value.length; i++) {
      list.push(withoutSharing(value[i], links, copies));
      if (list[i] === undefined) break; // will be refused; a hole may be long
    }
    return list;
  }
  if (!isPlain(value)) return value;
  const copy: Record<string, unknown> = {};
  copies.set(value, copy);
  for (const key of Object.keys(value)) copy[key] = withoutSharing((value as Record<string, unknown>)[key], links, copies);
  return copy;
}

/**
 * How mutative ties a draft to the one it was read from, and what became of it. These are internals, so they only hint
 * where to look: a place is noted with what stands there. A mutative without them would cost bytes, not truth.
 */
interface Link {
  readonly key?: string | number;
  readonly parent?: Link | null;
  readonly operated?: boolean;
  readonly copy?: unknown;
  readonly original?: unknown;
}

/** The containers of the vars that drafts became, and where they stand now. */
function placesOf(links: readonly Link[], vars: JsonObject): Map<object, string> {
  const places = new Map<object, string>([[vars, ""]]);
  const found = new Map<Link, object | undefined>();
  const indexes = new Map<object, Map<unknown, number>>();
  const look = (link: Link): object | undefined => {
    if (found.has(link)) return found.get(link);
    // The outermost draft holds the vars, beside the plan.
    if (!link.parent?.parent) return link.key === "vars" ? vars : undefined;
    const container = look(link.parent);
    const there = container && search(container, link);
    found.set(link, there);
    return there;
  };
  const search = (container: object, { key, operated, copy, original }: Link): object | undefined => {
    const became = operated ? copy : original;
    let at = String(key);
    if (Array.isArray(container) && container[key as number] !== became) {
      // An element that moved within its list, as all do after a shift.
      const moved = indexes.get(container) ?? new Map(container.map((element, index) => [element, index]));
      indexes.set(container, moved);
      at = String(moved.get(became) ?? key);
    }
    const there = Object.hasOwn(container, at) ? (container as Record<string, unknown>)[at] : undefined;
    if (typeof there !== "object" || there === null) return undefined;
    places.set(there, `${places.get(container)}/${escapeKey(at)}`);
    return there;
  };
  for (const link of links) look(link);
  return places;
}

/**
 * A payload as it is recorded: plain JSON in which whatever stands in the vars is replaced by null and noted as a
 * reference. Elements that follow each other in the same list become one range.
 */
export function extractRefs(
  payload: unknown,
  places: ReadonlyMap<object, string>,
  vars: JsonObject,
  depth?: number,
): { payload: Json; refs?: Ref[] } {
  const texts = new Map<string, string>();
  for (const key of Object.keys(vars)) {
    const text = vars[key];
    if (typeof text === "string" && text.length >= shortText) texts.set(text, `/${escapeKey(key)}`);
  }
  if (places.size === 0 && texts.size === 0) return { payload: toJson(payload, "payload", depth) };
  const refs: Ref[] = [];
  try {
    const recorded = toJson(extract(payload, "", { places, texts, vars, refs, ancestors: [] }), "payload", depth);
    return refs.length > 0 ? { payload: recorded, refs } : { payload: recorded };
  } catch (error) {
    // A range has moved what stands behind it: the path that people see is the one in their payload.
    toJson(payload, "payload", depth);
    throw error;
  }
}

interface Extraction {
  readonly places: ReadonlyMap<object, string>;
  readonly texts: ReadonlyMap<string, string>;
  readonly vars: JsonObject;
  readonly refs: Ref[];
  readonly ancestors: object[];
}

/** Notes the references in `value` and leaves null where they stand. What is not plain JSON is left for `toJson` to refuse. */
function extract(value: unknown, at: string, to: Extraction): unknown {
  if (typeof value === "string" ? value.length < shortText : typeof value !== "object" || value === null) return value;
  const from = typeof value === "string" ? to.texts.get(value) : to.places.get(value as object);
  if (from !== undefined) {
    to.refs.push({ at, from });
    return null;
  }
  if (typeof value === "string" || to.ancestors.includes(value as object)) return value;
  to.ancestors.push(value as object);
  const copy = Array.isArray(value) ? extractList(value, at, to) : extractObject(value as object, at, to);
  to.ancestors.pop();
  return copy;
}

function extractObject(value: object, at: string, to: Extraction): unknown {
  if (!isPlain(value)) return value;
  const copy: Record<string, unknown> = {};
  for (const [key, member] of Object.entries(value)) copy[key] = extract(member, `${at}/${escapeKey(key)}`, to);
  return copy;
}

function extractList(list: readonly unknown[], at: string, to: Extraction): unknown[] {
  const copy: unknown[] = [];
  for (let i = 0; i < list.length; ) {
    const here = `${at}/${copy.length}`;
    const range = rangeFrom(list, i, to);
    if (range) {
      to.refs.push({ at: here, from: range.from, range: [range.start, range.end] });
      copy.push(null);
      i += range.end - range.start;
    } else {
      copy.push(extract(list[i], here, to));
      if (list[i] === undefined) break; // will be refused; a hole may be long
      i += 1;
    }
  }
  return copy;
}

/** Two or more elements from `list[i]` on that stand one after the other in a list of the vars. */
function rangeFrom(
  list: readonly unknown[],
  i: number,
  to: Extraction,
): { from: string; start: number; end: number } | undefined {
  const first = to.places.get(list[i] as object);
  if (first === undefined) return undefined;
  const slash = first.lastIndexOf("/");
  const from = first.slice(0, Math.max(0, slash));
  const source = getAt(to.vars, from);
  if (!Array.isArray(source)) return undefined;
  const start = Number(first.slice(slash + 1));
  let end = start + 1;
  while (end < source.length && i + end - start < list.length && source[end] === list[i + end - start]) end++;
  return end - start > 1 ? { from, start, end } : undefined;
}
