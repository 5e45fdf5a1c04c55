/** A process whose runtime has nothing to do for ten seconds, and then ten runs. */
import { createRuntime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { setTimeout } from "node:timers/promises";
import { fileIn } from "./compare.ts";
import { crowding, lateness, type Rested, restMs } from "./crowd.ts";
import { cpuMs } from "./trace.ts";

const [, , directory, settleMs, bare] = process.argv as [string, string, string, string, string];
const runtime = await createRuntime({ workflows: [crowding], store: await sqliteStore(fileIn(directory)) });
process.on("message", async () => {
  await runtime.stop();
  process.disconnect();
});
process.send?.("ready");
await setTimeout(Number(settleMs));
const used = cpuMs();
const start = performance.now();
await setTimeout(restMs);
const cpuShare = (cpuMs() - used) / (performance.now() - start);
const rssMb = process.memoryUsage().rss / 1e6;
const rawLateness = await Promise.all(
  (JSON.parse(bare) as number[]).map(async (at) => {
    await setTimeout(at - Date.now());
    return Date.now() - at;
  }),
);
while (lateness.length < rawLateness.length) await setTimeout(50);
process.send?.({ cpuShare, rssMb, lateness, rawLateness } satisfies Rested);
