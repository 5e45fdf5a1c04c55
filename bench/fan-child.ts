/** Fans out once, in a process of its own: memory and compiled code are those of a new one. */
import { complete, createRuntime, defineEffect, defineWorkflow, fanOut } from "abstractruntime";
import type { StoreName } from "./compare.ts";
import { openStore } from "./compare.ts";
import type { Fanned } from "./fan.ts";
import { cpuMs } from "./trace.ts";

const [, , on, directory, count] = process.argv as [string, string, StoreName, string, string];
const add = defineEffect("add", { run: ({ n }: { n: number }) => n + 1 });
const one = defineWorkflow({
  id: "one",
  effects: [add],
  entry: "add",
  nodes: {
    add: ({ vars }) => add({ n: vars.n }, { resultKey: "sum", nextNode: "end" }),
    end: ({ vars }) => complete({ sum: vars.sum }),
  },
});
const many = defineWorkflow({
  id: "many",
  entry: "out",
  nodes: {
    out: ({ vars }) => {
      const items = Array.from({ length: vars.count }, (_, n) => ({ n }));
      return fanOut(one, { items, onFailure: "collect" }, { resultKey: "ends", nextNode: "end" });
    },
    end: ({ vars }) => complete({ count: vars.ends.filter(({ status }: { status: string }) => status === "completed").length }),
  },
});

const runtime = await createRuntime({ workflows: [many, one], store: await openStore(on, directory) });
process.on("message", async (message: string) => {
  if (message === "end") {
    await runtime.stop();
    process.disconnect();
    return;
  }
  const beforeMb = process.memoryUsage().rss / 1e6;
  const used = cpuMs();
  const start = performance.now();
  const { runId } = await runtime.start(many, { vars: { count: Number(count) } });
  const output = await runtime.result<{ count: number }>(runId);
  const fanned: Fanned = {
    ms: performance.now() - start,
    cpuMs: cpuMs() - used,
    beforeMb,
    mostMb: (process.resourceUsage().maxRSS * 1_024) / 1e6,
  };
  if (output.count !== Number(count)) throw new Error(`${output.count} children have completed.`);
  process.send?.(fanned);
});
process.send?.("ready");
