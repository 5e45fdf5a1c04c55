/** Under way at the same time: what they write is grouped. */
const atOnce = 16;

/** Uses each item, a few at a time. Answers in their order; when one is rejected, those under way are waited for all the same. */
export async function usingEach<T, R>(items: readonly T[], use: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  for (let i = 0; i < items.length; i += atOnce) {
    // None goes on in a store that is closed when another one has failed.
    for (const settled of await Promise.allSettled(items.slice(i, i + atOnce).map(use))) {
      if (settled.status === "rejected") throw settled.reason;
      results.push(settled.value);
    }
  }
  return results;
}
