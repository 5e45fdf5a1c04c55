import type { TestClock } from "../../src/testing/index.ts";

/** A clock that, once moved, lets everything settle that needs no time. */
export function patient(clock: TestClock): TestClock {
  const advance = clock.advance.bind(clock);
  clock.advance = async (ms) => {
    await advance(ms);
    await turns(40);
  };
  return clock;
}

export const turns = async (n = 10): Promise<void> => {
  for (let i = 0; i < n; i++) await new Promise((resolve) => setImmediate(resolve));
};
