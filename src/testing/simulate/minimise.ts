/** Makes a failing schedule smaller: Zeller's delta debugging, "Simplifying and Isolating Failure-Inducing Input" (2002). */

/**
 * The smallest list that is found to fail still: leaving out any one of its elements, it would not.
 *
 * @param fails Whether a part of the list fails. Called at most `budget` times; the best list so far is then the answer.
 */
export async function minimise<T>(
  list: readonly T[],
  fails: (part: readonly T[]) => Promise<boolean>,
  budget = 300,
): Promise<readonly T[]> {
  let best = list;
  let left = budget;
  const test = async (part: readonly T[]): Promise<boolean> => {
    left -= 1;
    return fails(part);
  };
  if (best.length > 0 && (await test([]))) return [];
  for (let parts = 2; best.length > 1 && left > 0; ) {
    const size = Math.ceil(best.length / parts);
    let smaller: readonly T[] | undefined;
    for (let from = 0; from < best.length && left > 0; from += size) {
      const rest = [...best.slice(0, from), ...best.slice(from + size)];
      if (await test(rest)) {
        smaller = rest;
        break;
      }
    }
    if (smaller) {
      best = smaller;
      parts = Math.max(2, parts - 1);
    } else if (size === 1) break;
    else parts = Math.min(best.length, parts * 2);
  }
  return best;
}
