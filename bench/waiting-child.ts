/** A process that does nothing but have a runtime over the store given, for two seconds; then it prints the memory it takes. */
import { createRuntime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { setTimeout } from "node:timers/promises";

const runtime = await createRuntime({ workflows: [], store: await sqliteStore(process.argv[2]!) });
await setTimeout(2_000);
globalThis.gc?.();
console.log(JSON.stringify({ rss: process.memoryUsage().rss }));
await runtime.stop();
