// How long until the next attempt, and when there is none.
import fc from "fast-check";
import { expect, test } from "vitest";
import { defaultPolicy, readPolicy, retryDelay } from "../../src/kernel/policy.ts";
import "../properties.ts";

test("delays grow by their factor, up to their cap, and end with the attempts", () => {
  const policy = readPolicy({ maxAttempts: 6, backoff: { initialMs: 100, factor: 3, maxMs: 2_000, jitter: 0 } });
  expect([1, 2, 3, 4, 5, 6, 7].map((attempt) => retryDelay(policy, attempt, 0.5))).toEqual([
    100,
    300,
    900,
    2_000,
    2_000,
    undefined,
    undefined,
  ]);
});

test("a delay is a whole number from 0, within its jitter and never above its cap", () => {
  const number = (max: number) => fc.double({ min: 0, max, noNaN: true });
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 5_000 }),
      number(1e6),
      fc.double({ min: 1, max: 1e6, noNaN: true }),
      number(1e9),
      number(1),
      number(0.999_999),
      (attempt, initialMs, factor, maxMs, jitter, random) => {
        const policy = readPolicy({ maxAttempts: attempt + 1, backoff: { initialMs, factor, maxMs, jitter } });
        const delay = retryDelay(policy, attempt, random) as number;
        const middle = initialMs === 0 ? 0 : Math.min(maxMs, initialMs * factor ** (attempt - 1));
        expect(Number.isSafeInteger(delay)).toBe(true);
        expect(delay).toBeGreaterThanOrEqual(Math.min(Math.round(maxMs), Math.floor(middle * (1 - jitter))));
        expect(delay).toBeLessThanOrEqual(Math.min(Math.round(maxMs), Math.ceil(middle * (1 + jitter))));
        expect(retryDelay(policy, attempt + 1, random)).toBeUndefined();
      },
    ),
  );
});

test("what the other side asked for is the least, beyond the longest delay too, and no further attempt", () => {
  const policy = readPolicy({ maxAttempts: 2, backoff: { initialMs: 200, maxMs: 1_000, jitter: 0 } });
  expect([0, 100, 700.5, 90_000].map((leastMs) => retryDelay(policy, 1, 0.5, leastMs))).toEqual([200, 200, 701, 90_000]);
  expect(retryDelay(policy, 2, 0.5, 90_000)).toBeUndefined();
});

test("options are filled in, and refused where they cannot work", () => {
  expect(readPolicy()).toEqual(defaultPolicy);
  expect(readPolicy({ backoff: { jitter: 0 } })).toEqual({ ...defaultPolicy, backoff: { ...defaultPolicy.backoff, jitter: 0 } });
  for (const [options, message] of [
    [{ maxAttempts: 0 }, /policy\.maxAttempts must be a whole number from 1/],
    [{ maxAttempts: 1.5 }, /maxAttempts/],
    [{ timeoutMs: 0 }, /timeoutMs must be a number of milliseconds above 0/],
    [{ timeoutMs: Number.NaN }, /timeoutMs/],
    [{ backoff: { initialMs: -1 } }, /initialMs/],
    [{ backoff: { factor: 0.5 } }, /factor/],
    [{ backoff: { jitter: 2 } }, /jitter/],
    [{ backoff: { maxMs: Number.NaN } }, /maxMs/],
    [{ maxAttempt: 3 }, /Unknown option "maxAttempt" in policy\. Did you mean "maxAttempts"/],
    [{ backoff: { initialMS: 3 } }, /Did you mean "initialMs"/],
  ] as const) {
    expect(() => readPolicy(options as object)).toThrow(message);
  }
});
