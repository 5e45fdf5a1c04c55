/** Texts that begin alike, in the order of code points, which is that of the databases. */

/** The least text behind all that begin with a prefix; undefined when there is none. */
export function behind(prefix: string): string | undefined {
  const points = [...prefix].map((character) => character.codePointAt(0) as number);
  while (points.at(-1) === 0x10ffff) points.pop();
  const last = points.pop();
  if (last === undefined) return undefined;
  // What stands between is no character.
  return String.fromCodePoint(...points, last + 1 === 0xd800 ? 0xe000 : last + 1);
}
