/** Which elements of a list came, went, or took each other's place: as few as possible, by a longest common subsequence. */

/** Indexes: of an element that is in one list and not in the other, or of two that stand in each other's place. */
interface Edit {
  before?: number;
  after?: number;
}

/** A larger table is not made: what stands between the common beginning and end has then all been replaced. */
const largestTable = 4_000_000;

export function edits(before: readonly string[], after: readonly string[]): Edit[] {
  const shorter = Math.min(before.length, after.length);
  let start = 0;
  while (start < shorter && before[start] === after[start]) start++;
  let end = 0;
  while (end < shorter - start && before.at(-1 - end) === after.at(-1 - end)) end++;
  const found: Edit[] = [];
  const ends = { before: before.length - end, after: after.length - end };
  let at = { before: start, after: start };
  for (const kept of [...keptBetween(before, after, start, ends), ends]) {
    const [went, came] = [kept.before - at.before, kept.after - at.after];
    for (let i = 0; i < Math.max(went, came); i++)
      found.push({ ...(i < went ? { before: at.before + i } : {}), ...(i < came ? { after: at.after + i } : {}) });
    at = { before: kept.before + 1, after: kept.after + 1 };
  }
  return found;
}

/** Pairs of equal elements, as many as can be in order. */
function* keptBetween(
  before: readonly string[],
  after: readonly string[],
  start: number,
  ends: Required<Edit>,
): Generator<Required<Edit>> {
  const [rows, width] = [ends.before - start + 1, ends.after - start + 1];
  if (rows * width > largestTable) return;
  // How many can be kept of what stands from here on.
  const most = new Uint32Array(rows * width);
  const at = (row: number, column: number): number => most[row * width + column] as number;
  const isKept = (row: number, column: number): boolean => before[start + row] === after[start + column];
  for (let row = rows - 2; row >= 0; row--) {
    for (let column = width - 2; column >= 0; column--)
      most[row * width + column] = isKept(row, column)
        ? at(row + 1, column + 1) + 1
        : Math.max(at(row + 1, column), at(row, column + 1));
  }
  for (let row = 0, column = 0; row < rows - 1 && column < width - 1; ) {
    if (isKept(row, column)) yield { before: start + row++, after: start + column++ };
    else if (at(row + 1, column) >= at(row, column + 1)) row++;
    else column++;
  }
}
