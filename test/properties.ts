/**
 * How properties are tried: always with the same values, so that no change is refused for a fault that was there before. Others are tried
 * with PROPERTY_SEED=number, and with CRASH_SWEEP=full (`npm run crash`) four times as many.
 */
import fc from "fast-check";

const full = process.env.CRASH_SWEEP === "full";

export const seed = Number(process.env.PROPERTY_SEED ?? 1);
fc.configureGlobal({ seed });

/** @param numRuns By default. */
export function tried(numRuns: number): { numRuns: number } {
  return { numRuns: full ? 4 * numRuns : numRuns };
}
