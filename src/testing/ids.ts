/** Ids and randomness that a seed repeats. */
import type { Ids } from "../kernel/clock.ts";

const base64url = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const hex = "0123456789abcdef";

/** The same seed gives the same ids, salts and numbers in the same order. Not for anything that must be hard to guess. */
export function testIds(seed = 1): Ids {
  const random = mulberry32(seed);
  const pick = (characters: string): string => characters.charAt(Math.floor(random() * characters.length));
  return {
    id: () => "xxxxxxxx-xxxx-4xxx-yxxx-xxxxxxxxxxxx".replace(/[xy]/g, (place) => pick(place === "x" ? hex : "89ab")),
    salt: () => Array.from({ length: 22 }, () => pick(base64url)).join(""),
    random,
  };
}

/** Tommy Ettinger's mulberry32 (public domain): 32 bits of state, good enough to vary tests. */
function mulberry32(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
