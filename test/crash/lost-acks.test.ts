// Holds the invariants of invariants.ts over a store that fails: a call that did its part and says it failed, a call that failed,
// and a store that is away for a while. Everything in one process, so that the caller lives on and must cope.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AbstractRuntimeError, type Clock, createRuntime, isError, type Json, type Store } from "abstractruntime";
import { filesStore } from "abstractruntime/files";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type Fault, faultyStore } from "../../src/testing/faulty-store.ts";
import { checkRun } from "./invariants.ts";
import { carryOut, fastClock, memoryOutside, schedulerOptions, type WorkloadName, workflowsOf, workloads } from "./workload.ts";

let directory: string;
beforeAll(() => {
  directory = mkdtempSync(join(tmpdir(), "lost-acks-"));
});
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const clock: Clock = fastClock(500);
let files = 0;
const stores: Record<string, () => Promise<Store>> = {
  memory: async () => memoryStore({ clock }),
  files: () => {
    files += 1;
    return filesStore(join(directory, `${files}`), { clock });
  },
  SQLite: () => {
    files += 1;
    return sqliteStore(join(directory, `${files}.db`), { clock });
  },
};

/** `count` calls fail, beginning with the one numbered `call`; with `after`, they have done their part. */
interface Failure {
  call: number;
  count: number;
  after: boolean;
}

/** Who finishes: the runtime that met the failure, or a new one over the same store. */
type Survivor = "same" | "new";
/** Answers whether the store failed before the work was done. */
async function sweepPoint(
  open: () => Promise<Store>,
  name: WorkloadName,
  { call, count, after }: Failure,
  survivor: Survivor,
): Promise<boolean> {
  const inner = await open();
  const outside = memoryOutside();
  const workflow = workflowsOf(outside)[name];
  const options = { clock, workflows: [workflow], scheduler: schedulerOptions };
  // Runtimes close their store; this one outlives them.
  const kept: Store = { ...forwardedTo(inner), close: async () => undefined };
  let struck = 0;
  let strike = (): void => undefined;
  const firstStrike = new Promise<void>((resolve) => {
    strike = resolve;
  });
  const run = (): never => {
    struck += 1;
    strike();
    throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: inner.name, problem: "a test made it fail" });
  };
  const faults = Array.from({ length: count }, (_, i): Fault => ({ kind: "run", run, call: call + i, after }));
  const failing = faultyStore(kept, faults);
  try {
    let output: Json;
    if (survivor === "same") {
      const runtime = await patient(() => createRuntime({ ...options, store: failing }));
      output = await carryOut(runtime, workflow, name, patient);
      await runtime.stop().catch(expectUnavailable);
    } else {
      const first = await createRuntime({ ...options, store: failing }).catch(expectUnavailable);
      if (first) {
        const carried = carryOut(first, workflow, name, patient).catch((error: unknown) => {
          if (!isError(error, "RUNTIME_STOPPED")) throw error;
        });
        await Promise.race([carried, firstStrike]);
        await first.stop({ timeoutMs: 0 }).catch(expectUnavailable);
        await carried;
      }
      await using second = await createRuntime({ ...options, store: kept });
      output = await carryOut(second, workflow, name);
    }
    expect(output).toEqual(workloads[name].output);
    await using reader = await createRuntime({ ...options, store: kept, scheduler: false });
    // A failed commit of an outcome is like a crash: the attempt is uncertain. Each failure may cost one.
    await checkRun(reader, name, { ...workloads[name], crashes: struck + (survivor === "new" ? 1 : 0) }, outside.seen());
    return struck > 0;
  } catch (error) {
    throw new Error(
      `${name}, ${survivor} runtime, ${JSON.stringify({ call, count, after })} of ${failing.calls.map((call, i) => `${i + 1} ${call}`).join(", ")}`,
      { cause: error },
    );
  } finally {
    await inner.close();
  }
}

/** Bound methods: a store may be a class. */
function forwardedTo(store: Store): Store {
  return faultyStore(store, []);
}

async function patient<T>(call: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries++) {
    try {
      return await call();
    } catch (error) {
      if (tries === 100) throw error;
      expectUnavailable(error);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }
}

function expectUnavailable(error: unknown): undefined {
  if (!isError(error, "STORE_UNAVAILABLE")) throw error;
}

describe.each(Object.keys(stores))("over %s", (kind) => {
  const open = stores[kind] as () => Promise<Store>;
  // By default a sample of the points where each takes its time.
  const stride = kind === "memory" || process.env.CRASH_SWEEP === "full" ? 1 : 3;

  describe.each(Object.keys(workloads) as WorkloadName[])("%s", (name) => {
    test.each([
      ["whose acknowledgement is lost", "same", true],
      ["whose acknowledgement is lost", "new", true],
      ["that fails", "same", false],
      ["that fails", "new", false],
    ] as const)("survives any call %s; the %s runtime finishes", async (_, survivor, after) => {
      let call = 1;
      while (await sweepPoint(open, name, { call, count: 1, after }, survivor)) call += stride;
      expect(call).toBeGreaterThan(10);
    });

    test.each([3, 25])("loses nothing when the store is away for %i calls, from any call on", async (count) => {
      for (let call = 1; await sweepPoint(open, name, { call, count, after: false }, "same"); call += 4 * stride);
    });
  });
});
