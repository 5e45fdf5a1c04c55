/** A process that reads runs which another one drives. */
import { createRuntime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { fileIn } from "./compare.ts";
import { joined, read } from "./stream.ts";

const [, , directory, runIds] = process.argv as [string, string, string, string];
const runtime = await createRuntime({ store: await sqliteStore(fileIn(directory)) });
process.on("message", async () => {
  await runtime.stop();
  process.disconnect();
});
process.send?.("ready");
process.send?.(joined(await Promise.all((JSON.parse(runIds) as string[]).map((runId) => read(runtime, runId)))));
