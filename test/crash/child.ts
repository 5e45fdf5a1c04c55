/** A process of the crash sweep: carries a workload out, and kills itself where it is told to. */
import { createRuntime } from "abstractruntime";
import { type Fault, faultyStore } from "../../src/testing/faulty-store.ts";
import { type StoreKind, storeAt } from "./store-at.ts";
import { carryOut, fastClock, fileOutside, schedulerOptions, type Sighting, type WorkloadName, workflowsOf } from "./workload.ts";

/** Before or after the n-th call of the store, or when the outside world has seen an event of an effect for the n-th time. */
export type CrashPoint = { call: number; after: boolean } | { effect: string; event: Sighting["event"]; nth: number };

export interface ChildTask {
  workload: WorkloadName;
  store: StoreKind;
  directory: string;
  crash?: CrashPoint;
}

export interface ChildReport {
  output: unknown;
  calls: string[];
}

const { workload, store: kind, directory, crash } = JSON.parse(process.argv[2] as string) as ChildTask;

const die = (): void => void process.kill(process.pid, "SIGKILL");

const faults: Fault[] = crash && "call" in crash ? [{ kind: "run", run: die, call: crash.call, after: crash.after }] : [];
let seen = 0;
const witness = ({ type, event }: Sighting): void => {
  if (!crash || "call" in crash || type !== crash.effect || event !== crash.event) return;
  seen += 1;
  if (seen === crash.nth) die();
};

const clock = fastClock(50);
const store = faultyStore(await storeAt(kind, directory, { clock }), faults);
const workflows = workflowsOf(fileOutside(`${directory}/outside.jsonl`), witness);
const runtime = await createRuntime({ store, clock, workflows: Object.values(workflows), scheduler: schedulerOptions });
const output = await carryOut(runtime, workflows[workload], workload);
await runtime.stop();
process.stdout.write(JSON.stringify({ output, calls: [...store.calls] } satisfies ChildReport));
