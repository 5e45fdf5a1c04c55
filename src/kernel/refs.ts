/**
 * References: a payload that contains part of the vars (the message list of a model call) is recorded by pointing at
 * it. Without them a chat that grows by 2 KB a turn would write its whole history again each turn.
 *
 * A reference stands outside the payload, so that nothing inside user data is ever taken for one. It resolves against
 * the vars as they were when the effect was requested.
 */
import { getAt, isObject, type Json, type JsonObject, parsePointer } from "./json.ts";

/** `at` (a JSON Pointer into the payload) holds what stands at `from` in the vars. */
export interface Ref {
  at: string;
  from: string;
  /** Elements `[start, end)` of the list at `from`, which stand in place of the one element at `at`. */
  range?: [start: number, end: number];
}

/**
 * The payload with its references filled in. Filled parts are shared with `vars`, not copied.
 *
 * @throws RangeError when a reference leads nowhere or does not fit, which only a damaged record can cause.
 */
export function resolveRefs(payload: Json, refs: readonly Ref[], vars: JsonObject): Json {
  const root: Branch = {};
  for (const ref of refs) {
    let branch = root;
    for (const segment of parsePointer(ref.at)) {
      branch.members ??= new Map();
      const next: Branch = branch.members.get(segment) ?? {};
      branch.members.set(segment, next);
      branch = next;
    }
    if (branch.ref) misfit(ref);
    branch.ref = ref;
  }
  return fill(payload, root, vars);
}

/** The references by where they stand, so that each container is copied once, however many it holds. */
interface Branch {
  ref?: Ref;
  members?: Map<string, Branch>;
}

function fill(value: Json, { ref, members }: Branch, vars: JsonObject): Json {
  if (ref) {
    const source = getAt(vars, ref.from);
    if (source === undefined || ref.range || members) misfit(ref);
    return source;
  }
  if (!members) return value;
  let filled = 0;
  let made: Json[] | JsonObject;
  if (Array.isArray(value)) {
    made = [];
    for (let i = 0; i < value.length; i++) {
      const inner = members.get(String(i));
      if (inner) filled++;
      if (inner?.ref?.range) for (const element of elements(inner.ref, inner.ref.range, vars)) made.push(element);
      else made.push(inner ? fill(value[i] as Json, inner, vars) : (value[i] as Json));
    }
  } else {
    made = isObject(value) ? { ...value } : {};
    for (const [key, inner] of members) {
      if (key === "__proto__" || !Object.hasOwn(made, key)) break;
      filled++;
      made[key] = fill(made[key] as Json, inner, vars);
    }
  }
  if (filled < members.size)
    throw new RangeError(`References fill what is not there: ${[...members.keys()].join(", ").slice(0, 200)}`);
  return made;
}

function elements(ref: Ref, [start, end]: [number, number], vars: JsonObject): Json[] {
  const list = getAt(vars, ref.from);
  const fits = Number.isInteger(start) && Number.isInteger(end) && 0 <= start && start <= end;
  if (!Array.isArray(list) || !fits || end > list.length) misfit(ref);
  return list.slice(start, end);
}

function misfit({ at, from, range }: Ref): never {
  throw new RangeError(`A reference leads nowhere or does not fit: "${at}" from "${from}"${range ? ` [${range}]` : ""}`);
}
