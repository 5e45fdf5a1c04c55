/**
 * What holds of a run however often it was interrupted.
 *
 * C1. It ends with the output of an undisturbed run, and one terminal record, which is its last.
 * C2. Its chain verifies, and the fold of its ledger is what is stored.
 * C3. No attempt of a non-speculative effect starts before it stands in the ledger, or twice.
 * C4. A non-speculative effect starts at most once more for each crash than it would undisturbed.
 * C5. One idempotency key for all attempts of an effect; none for two effects.
 * C6. Each question is asked once and answered once.
 * C7. Nobody holds it.
 */
import type { Json, Runtime } from "abstractruntime";
import { expect } from "vitest";
import type { Sighting } from "./workload.ts";

export async function checkRun(
  runtime: Runtime,
  runId: string,
  expected: { output: Json; questions: number; crashes: number },
  sightings: readonly Sighting[],
): Promise<void> {
  const run = await runtime.get(runId);
  expect({ status: run.status, output: run.output, error: run.error }).toEqual({ status: "completed", output: expected.output }); // C1
  const verification = await runtime.verify(runId);
  expect(verification.problems).toEqual([]); // C2
  expect(verification.ok).toBe(true);

  const ledger = await runtime.ledger(runId);
  const ends = ledger.filter(({ kind }) => ["run_completed", "run_failed", "run_cancelled"].includes(kind));
  expect(ends.map(({ seq }) => seq)).toEqual([ledger.length - 1]); // C1

  const asked = ledger.filter((record) => record.kind === "parked" && record.data.wait.reason === "user");
  const answers = ledger.flatMap((record) =>
    record.kind === "delivered" && record.data.messageKind === "answer" ? [record.data.outcome] : [],
  );
  expect(asked).toHaveLength(expected.questions); // C6
  expect(answers).toEqual(asked.map(() => "result"));

  // By key: the effect that it stands for, and the attempts that were recorded.
  const recorded = new Map<string, { type: string; attempts: number[] }>();
  const keys = new Map<string, string>();
  for (const record of ledger) {
    if (record.kind !== "effect_started") continue;
    const id = record.effectId as string;
    if (record.data.intent) {
      keys.set(id, record.hash);
      recorded.set(record.hash, { type: record.data.intent.type, attempts: [] });
    }
    recorded.get(keys.get(id) as string)?.attempts.push(record.attempt as number);
  }

  const external = sightings.filter((sighting) => !sighting.speculative && sighting.runId === runId);
  for (const [key, seen] of Map.groupBy(external, (sighting) => sighting.key)) {
    const effect = recorded.get(key);
    const count = (event: Sighting["event"]): number => seen.filter((sighting) => sighting.event === event).length;
    const started = seen.filter(({ event }) => event === "start").map(({ attempt }) => attempt);
    const label = `${seen[0]?.type} ${key.slice(0, 8)}`;
    expect(effect, `${label} is in the ledger`).toBeDefined(); // C3
    expect(new Set(seen.map(({ type }) => type)), label).toEqual(new Set([effect?.type])); // C5
    expect(started, `${label}: each attempt once, in order`).toEqual([...new Set(started)].sort((a, b) => a - b)); // C3
    expect(effect?.attempts, `${label}: recorded before it starts`).toEqual(expect.arrayContaining(started)); // C3
    expect(started.length, `${label}: starts`).toBeLessThanOrEqual(1 + count("refused") + expected.crashes); // C4
    expect(count("done"), `${label}: done`).toBeGreaterThanOrEqual(1);
    // Told that an earlier attempt may have happened, whenever one was cut short.
    const firstCut = started.find(
      (attempt) => !seen.some((sighting) => sighting.attempt === attempt && sighting.event === "refused"),
    );
    const unaware = seen.filter(
      ({ event, attempt, uncertain }) => event === "start" && attempt > (firstCut as number) && !uncertain,
    );
    expect(unaware, `${label}: knows that it is uncertain`).toEqual([]);
  }
  // C5: every external effect of the ledger is one key of the outside world.
  const externalTypes = new Set(external.map(({ type }) => type));
  const opened = [...recorded].filter(([, { type }]) => externalTypes.has(type)).map(([key]) => key);
  expect(new Set(external.map(({ key }) => key))).toEqual(new Set(opened));

  const { runs } = await runtime.list();
  expect(runs.filter(({ holder }) => holder !== undefined)).toEqual([]); // C7
}
