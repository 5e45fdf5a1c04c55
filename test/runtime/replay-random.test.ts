/** A replay of unchanged code reports nothing: over the simulator's workflows, with everything that goes wrong there. */
import { createRuntime, type LedgerRecord, type Replay, type Store } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { simulate, type SimulatedCode } from "abstractruntime/testing";
import { describe, expect, test } from "vitest";
import { simulated } from "../simulate/workflows.ts";

const factor = Number(process.env.REPLAY_RUNS ?? 1);

/** Simulates, and replays every run of every seed from its beginning and from a record in its middle. */
async function replayAll(name: string, seeds: { from: number; count: number }) {
  const { code, options } = simulated[name]!;
  let store: Store | undefined;
  const seen = { runs: 0, steps: 0, kinds: new Set<string>(), records: new Set<string>() };
  const report = await simulate(code, {
    ...options,
    seeds,
    minimise: false,
    // What was archived is not there to be replayed.
    faults: { archive: false },
    store: ({ clock }) => (store = memoryStore({ clock })),
    invariants: [
      ...[options?.invariants ?? []].flat(),
      async ({ seed, runs, records }) => {
        const made = typeof code === "function" ? (code as any)(seed) : code;
        const { workflows, effects = [] } = ("workflows" in made ? made : { workflows: [made] }) as SimulatedCode;
        let last = Number.POSITIVE_INFINITY;
        const runtime = await createRuntime({ store: cut(store!, () => last), workflows, effects, scheduler: false });
        for (const { runId, seq, workflowId, status, output } of runs) {
          if (!workflows.some(({ id }) => id === workflowId)) continue;
          for (const record of records.get(runId)!) seen.records.add(record.kind);
          const whole = await runtime.replay(runId);
          expectNone(seed, runId, 0, whole);
          expect([whole.end, whole.run.status]).toEqual(["ended", status]);
          expect(whole.run.output).toEqual(output);
          const { vars } = await runtime.stateAt(runId, seq);
          expect(whole.run.vars).toEqual(vars);
          for (const fromSeq of [Math.floor(seq / 3), Math.floor(seq / 2), seq]) {
            const part = await runtime.replay(runId, { fromSeq });
            expectNone(seed, runId, fromSeq, part);
            expect(part.run.vars).toEqual(vars);
          }
          // As if it had come no further.
          for (const end of [1, 2, 3, 4].map((part) => Math.floor((seq * part) / 5))) {
            if (isAmid(records.get(runId)!, end)) continue;
            last = end;
            const part = await runtime.replay(runId);
            expectNone(seed, `${runId} to ${end}`, 0, part);
            expect({ seed, runId, end, part: part.end, status: part.run.status }).toMatchObject({
              part: ["completed", "failed", "cancelled"].includes(part.run.status) ? "ended" : "recorded",
            });
            last = Number.POSITIVE_INFINITY;
          }
          seen.runs += 1;
          seen.steps += whole.steps;
        }
        await runtime.stop();
      },
    ],
  });
  expect(report.problem).toBeUndefined();
  return seen;
}

/** The store, with ledgers that end at a record; it stays open. */
function cut(store: Store, last: () => number): Store {
  const changed: Partial<Store> = {
    close: async () => undefined,
    load: async (runId, { at = Number.POSITIVE_INFINITY, ...options } = {}) => {
      const loaded = await store.load(runId, { ...options, at: Math.min(at, last()) });
      return loaded && { ...loaded, row: { ...loaded.row, seq: Math.min(loaded.row.seq, last()) } };
    },
    records: async (runId, from, limit) => (await store.records(runId, from, limit)).filter(({ seq }) => seq <= last()),
  };
  return new Proxy(store, {
    get(target, key: keyof Store) {
      const member = changed[key] ?? target[key];
      return typeof member === "function" ? member.bind(target) : member;
    },
  });
}

/** Whether a record and the one behind it were decided together: no run ever stood between them. */
function isAmid(records: readonly LedgerRecord[], seq: number): boolean {
  const [record, next] = [records[seq], records[seq + 1]];
  if (!record || !next) return false;
  if ("intent" in next.data && next.data.intent?.parent !== undefined) return true;
  if (next.kind === "effect_failed" && record.effectId === next.effectId && next.attempt === record.attempt) return true;
  return record.effectId !== undefined && ["run_failed", "undoing", "run_cancelled"].includes(next.kind);
}

/** The whole of it in the message, which a matcher would cut. */
function expectNone(seed: number, runId: string, fromSeq: number, { differences }: Replay): void {
  if (differences.length > 0) throw new Error(`seed ${seed}, run ${runId} from ${fromSeq}: ${JSON.stringify(differences)}`);
}

describe("a replay of unchanged code reports nothing", () => {
  for (const name of Object.keys(simulated)) {
    // The one is run by two versions of its code, the other in transactions that a replay does not have.
    if (name === "upgraded" || name === "transacting") continue;
    test(
      `of workflow "${name}"`,
      async () => {
        const seen = await replayAll(name, { from: 1, count: (name === "random" ? 40 : 8) * factor });
        expect(seen.runs).toBeGreaterThan(10);
        expect(seen.steps).toBeGreaterThan(seen.runs / 2);
      },
      120_000 * factor,
    );
  }
});
