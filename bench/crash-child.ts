/** A worker that has so many runs under way, or the one that takes them over. It works until it is killed. */
import { complete, createRuntime, defineEffect, defineWorkflow } from "abstractruntime";
import { openStore } from "./compare.ts";
import type { TakenOver } from "./crash.ts";
import { hostMs } from "./processes.ts";

const [, , directory, count, role] = process.argv as [string, string, string, string, string];
const runs = Number(count);
let underWay = 0;
const call = defineEffect("call", {
  run: async () => {
    underWay += 1;
    if (underWay === runs && role === "work") process.send?.("ready");
    await new Promise((resolve) => setTimeout(resolve, 600_000));
    return null;
  },
});
const workflow = defineWorkflow({
  id: "calling",
  effects: [call],
  entry: "call",
  nodes: { call: () => call({}, { nextNode: "end" }), end: () => complete({}) },
});

// A runtime with nothing to do holds no process.
setInterval(() => undefined, 60_000);
const runtime = await createRuntime({
  workflows: [workflow],
  store: await openStore("sqlite", directory),
  scheduler: { concurrency: runs },
});
if (role === "work") {
  for (let i = 0; i < runs; i++) await runtime.start(workflow);
} else {
  const opened = hostMs();
  const moved = new Set<string>();
  runtime.on("record", ({ runId }) => {
    moved.add(runId);
    if (moved.size === runs) process.send?.({ opened, moved: hostMs() } satisfies TakenOver);
  });
  process.send?.("ready");
}
