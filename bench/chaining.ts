/** The price of the hash chain: the same steps with a hash that does nothing. Only here; the runtime has no such option. */
import { sqliteStore } from "abstractruntime/sqlite";
import { memoryStore } from "abstractruntime/memory";
import { hash } from "node:crypto";
import { Artifacts } from "../src/artifacts/artifacts.ts";
import { beginRun } from "../src/kernel/begin.ts";
import { systemClock, systemIds } from "../src/kernel/clock.ts";
import { Driver } from "../src/kernel/drive.ts";
import type { DriveHost } from "../src/kernel/drive-host.ts";
import { defaultLimits } from "../src/kernel/execute.ts";
import { firstRestored } from "../src/kernel/fold.ts";
import { encodeRecord } from "../src/kernel/record.ts";
import { fileIn, type StoreName } from "./compare.ts";
import { type Figure, median, spreadOf } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import type { Settings } from "./settings.ts";
import { chain } from "./steps.ts";

const silent = { debug() {}, info() {}, warn() {}, error() {} };
const nothing = "0".repeat(64);
const nullHash = (): string => nothing;

export async function chaining(settings: Settings): Promise<Figure[]> {
  const steps = settings.scaled(20_000);
  const rounds = settings.rounds(9);
  const figures: Figure[] = [];
  for (const on of settings.stores) {
    const chained: number[] = [];
    const unchained: number[] = [];
    await turn(on, steps);
    await turn(on, steps, nullHash);
    for (let round = 0; round < rounds; round++) {
      chained.push(await turn(on, steps));
      unchained.push(await turn(on, steps, nullHash));
    }
    chained.push(await turn(on, steps));
    const shares = unchained.map((ms, i) => 1 - ms / ((chained[i]! + chained[i + 1]!) / 2));
    const perStep = (ms: readonly number[]): number => (median(ms) * 1_000) / steps;
    figures.push({
      name: "price of chaining, speculative steps",
      on,
      unit: "% of the step",
      ours: median(shares) * 100,
      spread: spreadOf(shares.map((share) => share * 100)),
      note: `${perStep(chained).toFixed(1)} us a step with, ${perStep(unchained).toFixed(1)} us without; four hashes a step, ${hashUs().toFixed(2)} us each for 400 bytes by themselves`,
    });
  }
  figures.push({
    name: "encoding and hashing the two records of a step, alone",
    on: "nothing",
    unit: "us",
    ours: encodingUs(),
    note: "what a chained ledger costs beside the raw insertion of its rows, if everything else cost nothing",
  });
  return figures;
}

function encodingUs(): number {
  const count = 50_000;
  const place = { runId: systemIds.id(), prev: nothing, at: Date.now(), node: "next" };
  const times: number[] = [];
  for (let round = 0; round < 7; round++) {
    const start = performance.now();
    for (let n = 0; n < count; n++) {
      const intent = { type: "add", payload: { n }, resultKey: "n", nextNode: "next" };
      const at = { ...place, seq: 2 * n, step: n };
      encodeRecord({ kind: "effect_started", effectId: String(n), attempt: 1, data: { intent } }, at, systemIds.salt());
      encodeRecord({ kind: "effect_completed", effectId: String(n), attempt: 1, data: { result: n } }, at, systemIds.salt());
    }
    times.push(((performance.now() - start) * 1_000) / count);
  }
  return median(times);
}

/** Milliseconds of one run, driven without a runtime, since only the driver knows of another hash. */
async function turn(on: StoreName, steps: number, hashText?: (text: string) => string): Promise<number> {
  const directory = newPlace();
  const store = on === "memory" ? memoryStore() : await sqliteStore(fileIn(directory));
  const workflow = chain("speculative", steps);
  const host: DriveHost = {
    store,
    clock: systemClock,
    ids: systemIds,
    log: silent,
    limits: defaultLimits,
    artifacts: new Artifacts({
      store,
      blobs: store.blobs,
      ids: systemIds,
      now: () => Date.now(),
      jsonDepth: defaultLimits.jsonDepth,
      report: () => undefined,
      checkRunning: () => undefined,
    }),
    loopBusyMs: () => 0,
    now: () => Date.now(),
    holdsLeases: () => true,
    leaseLapses: () => 0,
    renewLeases: async () => undefined,
    fingerprint: "bench",
    workflow: () => workflow,
    effect: (type) => workflow.effects.get(type),
    ...(hashText ? { hashText } : {}),
  };
  const start = performance.now();
  const begun = await beginRun(workflow, { runId: "bench", vars: { n: 0 }, now: Date.now() }, systemIds, defaultLimits);
  const creating = store.create([begun], "worker");
  const loaded = { row: begun.row, tail: [begun.record], mail: [], lease: { workerId: "worker", epoch: 1 }, now: Date.now() };
  await new Driver(host, loaded, firstRestored(begun.state, begun.record), creating).drive();
  const ms = performance.now() - start;
  await store.close();
  remove(directory);
  return ms;
}

function hashUs(): number {
  const text = "x".repeat(400);
  const start = performance.now();
  for (let i = 0; i < 100_000; i++) hash("sha256", `${text}${i}`, "hex");
  return (performance.now() - start) / 100;
}
