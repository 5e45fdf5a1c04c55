// Holds the invariants of invariants.ts over a SIGKILL at any point: at each call of the store, before and after it, and inside
// effects. By default a fixed sample of the points; all of them with CRASH_SWEEP=full (`npm run crash`).
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRuntime } from "abstractruntime";
import { describe, expect, test } from "vitest";
import type { ChildReport, ChildTask, CrashPoint } from "./child.ts";
import { checkRun } from "./invariants.ts";
import { type StoreKind, storeAt, storeKinds } from "./store-at.ts";
import { fileOutside, type WorkloadName, workloads } from "./workload.ts";
import { type Ended, runProgram } from "./run-child.ts";

const runChild = (task: ChildTask): Promise<Ended<ChildReport>> => runProgram("child.ts", task);

const full = process.env.CRASH_SWEEP === "full";
const names = Object.keys(workloads) as WorkloadName[];

/** Crashes there, restarts unharmed, checks. Answers whether it did crash. */
async function crashAt(store: StoreKind, workload: WorkloadName, crash: CrashPoint): Promise<boolean> {
  const directory = mkdtempSync(join(tmpdir(), "crash-"));
  try {
    const first = await runChild({ workload, store, directory, crash });
    const crashed = first.signal === "SIGKILL";
    const last = crashed ? await runChild({ workload, store, directory }) : first;
    expect(last.complaint).toBe("");
    expect(last.code).toBe(0);
    expect(last.report?.output).toEqual(workloads[workload].output);
    await using runtime = await createRuntime({ store: await storeAt(store, directory), scheduler: false });
    await checkRun(
      runtime,
      workload,
      { ...workloads[workload], crashes: crashed ? 1 : 0 },
      fileOutside(`${directory}/outside.jsonl`).seen(),
    );
    return crashed;
  } catch (error) {
    throw new Error(`After SIGKILL at ${JSON.stringify(crash)} of ${workload} on ${store}`, { cause: error });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const places = storeKinds.flatMap((store) => names.map((workload) => [workload, store] as const));

describe.each(places)("killed at any call of the store, %s on %s ends as if nothing had happened", (workload, store) => {
  // A sample for each store; that of the files is smaller, since theirs is the same logic.
  const stride = full ? 1 : (workload === "approval" ? 11 : 23) * (store === "files" ? 2 : 1);
  // The two halves run side by side: a process hardly uses more than one core.
  test.concurrent.each([
    ["before", false, 1],
    ["after", true, 3],
  ] as const)("%s the call", async (_, after, first) => {
    let points = 0;
    for (let call = full ? 1 : first; ; call += stride) {
      points += 1;
      if (!(await crashAt(store, workload, { call, after }))) break;
    }
    expect(points).toBeGreaterThan(store === "files" ? 1 : 2);
  });
});

const inside: [WorkloadName, CrashPoint][] = [
  // After the external action, before the handler returns.
  ["approval", { effect: "publish", event: "done", nth: 1 }],
  ["order", { effect: "charge", event: "done", nth: 1 }],
  ["order", { effect: "ship", event: "done", nth: 1 }],
  ["order", { effect: "notify", event: "done", nth: 1 }],
  ["retry", { effect: "fetch", event: "done", nth: 1 }],
  ["retry", { effect: "save", event: "done", nth: 1 }],
  // Before the external action.
  ["approval", { effect: "publish", event: "start", nth: 1 }],
  ["order", { effect: "price", event: "start", nth: 1 }],
  ["order", { effect: "charge", event: "start", nth: 1 }],
  ["retry", { effect: "save", event: "start", nth: 1 }],
  // Between its attempts.
  ["order", { effect: "charge", event: "refused", nth: 2 }],
  ["order", { effect: "notify", event: "refused", nth: 1 }],
  ["retry", { effect: "fetch", event: "refused", nth: 1 }],
  ["retry", { effect: "fetch", event: "start", nth: 3 }],
];

test.concurrent.each(inside.filter((_, i) => full || i % 5 === 0))(
  "killed inside an effect, %s ends as if nothing had happened: %o",
  async (workload, crash) => {
    expect(await crashAt("sqlite", workload, crash)).toBe(true);
  },
);
