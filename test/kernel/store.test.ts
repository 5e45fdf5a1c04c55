// When checkpoints are written and which stay (L4).
import { expect, test } from "vitest";
import { checkpointDue, checkpointsToDrop } from "../../src/kernel/checkpoint.ts";

test("a state is written again only after as many bytes of records, and never before 64 KiB", () => {
  expect(checkpointDue(65_535, 0)).toBe(false);
  expect(checkpointDue(65_536, 0)).toBe(true);
  expect(checkpointDue(65_536, 65_536)).toBe(true);
  expect(checkpointDue(999_999, 1_000_000)).toBe(false);
  expect(checkpointDue(1_000_000, 1_000_000)).toBe(true);
});

test("of n checkpoints a few for each power of two stay, and looking back stays near", () => {
  const kept = new Set<number>();
  for (let ordinal = 1; ordinal <= 4_096; ordinal++) {
    for (const old of checkpointsToDrop(ordinal)) {
      expect(old).toBeLessThan(ordinal);
      expect(old).toBeGreaterThan(0);
      expect(kept.delete(old), `${old} is dropped once, by ${ordinal}`).toBe(true);
    }
    kept.add(ordinal);
    expect(kept.size).toBeLessThanOrEqual(4 * (Math.floor(Math.log2(ordinal)) + 2));
    if (ordinal % 37 !== 0) continue;
    // From any point in the past, the next kept checkpoint before it is at most about twice as far as the point is from the end.
    const sorted = [...kept].sort((a, b) => a - b);
    for (let at = 1; at <= ordinal; at += 3) {
      const before = sorted.findLast((kept) => kept <= at) ?? 0;
      expect(at - before).toBeLessThanOrEqual(2 * (ordinal - at) + 2);
    }
  }
});
