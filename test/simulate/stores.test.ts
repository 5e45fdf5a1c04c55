// The simulator's faults strike every store: those that write to a disk or a server hold the same promises as the reference in memory.
import { simulate } from "abstractruntime/testing";
import { describe, expect, test } from "vitest";
import { placeNames, simulatedPlace } from "./places.ts";
import { simulated } from "./workflows.ts";

const factor = Number(process.env.SIMULATE_RUNS ?? 1);

describe("under faults, every promise holds", () => {
  for (const name of placeNames) {
    // The others of the memory store are in simulate.test.ts.
    if (name === "memory") continue;
    test(
      `on ${name}`,
      async () => {
        const place = simulatedPlace(name);
        try {
          const { code, options } = simulated.random!;
          const report = await simulate(code, {
            ...options,
            store: place.store,
            seeds: { from: 50_001, count: (name === "postgres" ? 5 : 10) * factor },
          });
          expect(report.problem).toBeUndefined();
          expect(report.totals.records).toBeGreaterThan(5 * factor);
        } finally {
          await place.remove();
        }
      },
      300_000 * factor,
    );
  }
});
