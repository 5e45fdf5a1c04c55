// An import that is cut off at any call of the store, and made again, has done it once.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createRuntime, type Store } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { fileText, importPython } from "abstractruntime/python";
import { type Fault, faultyStore, testClock } from "abstractruntime/testing";
import { expected, fixture } from "./fixtures.ts";

let place: string;
beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), "python-faults-"));
  for (const name of ["a-ask-user-waiting", "c-subworkflow-waiting", "d-snapshots", "e-artifacts", "g-damaged-files"])
    cpSync(fixture(name), place, { recursive: true });
  // Its parent was not told.
  const { run_id } = expected["c-subworkflow-waiting"].grandchild;
  const ended = JSON.parse(readFileSync(join(place, `run_${run_id}.json`), "utf8"));
  writeFileSync(join(place, `run_${run_id}.json`), fileText({ ...ended, status: "completed", waiting: null, output: { x: 1 } }));
  // These are of another state than the run was imported in: each needs a run that holds it.
  for (const id of expected["d-snapshots"].ids_in_creation_order.slice(0, 2)) {
    const file = join(place, `snapshot_${id}.json`);
    writeFileSync(file, readFileSync(file, "utf8").replace('"async": true', '"async": false'));
  }
});
afterEach(() => rmSync(place, { recursive: true, force: true }));

/** Leaves the inner store open. */
const lent = (store: Store): Store =>
  new Proxy(store, { get: (target, key) => (key === "close" ? async () => {} : bound(target, key as keyof Store)) });
const bound = (target: Store, key: keyof Store): unknown => {
  const member = target[key];
  return typeof member === "function" ? member.bind(target) : member;
};

async function importInto(store: Store) {
  await using runtime = await createRuntime({ store, scheduler: false });
  return await importPython(runtime, place);
}

/** Everything that counts, without what is drawn anew each time. */
async function contents(store: Store) {
  await using runtime = await createRuntime({ store: lent(store), scheduler: false });
  const { runs } = await runtime.list({ limit: 1_000 });
  for (const { runId } of runs) expect([runId, (await runtime.verify(runId)).ok]).toEqual([runId, true]);
  return {
    runs: (
      await Promise.all(runs.map(async (run) => ({ ...shown(run), mail: (await store.load(run.runId))?.mail.length })))
    ).sort(by("runId")),
    snapshots: (await runtime.snapshots.list()).snapshots.map(({ snapshotId, runId, seq, tags }) => ({
      snapshotId,
      runId,
      seq,
      tags,
    })),
    artifacts: (await runtime.artifacts.listAll()).map(({ artifactId, tags }) => ({ artifactId, tags })).sort(by("artifactId")),
  };
}
const shown = ({ runId, status, paused, waits, parentRunId }: any) => ({ runId, status, paused, waits, parentRunId });
const by = (key: string) => (a: any, b: any) => (a[key] < b[key] ? -1 : 1);

test("cut off at any call, before or after it is done, an import can be made again", async () => {
  const clean = memoryStore();
  await importInto(lent(clean));
  const whole = await contents(clean);
  expect(whole.runs.length).toBe(1 + 4 + 2 + 1);
  expect(whole.runs.map(({ mail }) => mail).sort()).toEqual([0, 0, 0, 0, 0, 0, 0, 1]);
  await clean.close();
  let struck = 0;
  for (const after of [false, true]) {
    for (let call = 1; ; call++) {
      const clock = testClock();
      const inner = memoryStore({ clock });
      const fault: Fault = { kind: "fail", fromCall: call, after, on: (method) => method !== "close" };
      const store = faultyStore(lent(inner), [fault]);
      const failed = await importInto(store).then(
        () => undefined,
        (error: unknown) => error,
      );
      if (failed) {
        struck += 1;
        expect(failed).toMatchObject({ code: "STORE_UNAVAILABLE" });
        // A lease of the import that died runs out.
        await clock.advance(5_000);
        const again = await importInto(lent(inner));
        expect(again.problems.map(({ file }) => file)).toEqual([
          expect.stringMatching(/^ledger_.*\.jsonl$/),
          "run_future.json",
          "run_torn.json",
          "snapshot_corrupt.json",
        ]);
      }
      expect(await contents(inner)).toEqual(whole);
      await inner.close();
      if (!failed) break;
    }
  }
  expect(struck).toBeGreaterThan(60);
});
