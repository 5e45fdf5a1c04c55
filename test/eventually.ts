/** Looks now and then until `look` gives something. @throws After `withinMs`. */
export async function eventually<T>(
  look: () => T | undefined | false | 0 | Promise<T | undefined | false | 0>,
  withinMs = 120_000,
): Promise<T> {
  for (const until = performance.now() + withinMs; ; ) {
    const found = await look();
    if (found !== undefined && found !== false && found !== 0) return found;
    if (performance.now() > until) throw new Error(`Not within ${withinMs} ms: ${look}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
