/** What an answer costs a run with 100,000 steps behind it, beside what it costs a new one. */
import { askUser, createRuntime, defineEffect, defineWorkflow, type Runtime } from "abstractruntime";
import { restore } from "../src/kernel/restore.ts";
import { openStore } from "./compare.ts";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import { profiled } from "./profile.ts";
import type { Settings } from "./settings.ts";

const guess = defineEffect("guess", { speculative: true, run: ({ n }: { n: number }) => n + 1 });

/** After so many steps it asks, and whenever it is answered it asks again. */
const asking = defineWorkflow({
  id: "asking",
  effects: [guess],
  entry: "next",
  nodes: {
    next: ({ vars }) =>
      vars.n < vars.steps
        ? guess({ n: vars.n }, { resultKey: "n", nextNode: "next" })
        : askUser({ prompt: "Go on?" }, { resultKey: "answer", nextNode: "next" }),
  },
});

export async function old(settings: Settings): Promise<Figure[]> {
  const figures: Figure[] = [];
  const steps = settings.scaled(100_000);
  for (const on of settings.stores) {
    const directory = newPlace();
    const runtime = await createRuntime({ workflows: [asking], store: await openStore(on, directory) });
    const { runId } = await runtime.run(asking, { vars: { n: 0, steps } });
    const warmUp = settings.scaled(200);
    for (let i = 0; i < warmUp; i++) await answered(runtime, (await freshRun(runtime)).runId);
    const ratios: number[] = [];
    const all: Record<"aged" | "fresh" | "load", number[]> = { aged: [], fresh: [], load: [] };
    for (let round = 0; round < settings.rounds(5); round++) {
      const aged: number[] = [];
      const fresh: number[] = [];
      const load: number[] = [];
      await profiled(async () => {
        for (let i = 0; i < settings.scaled(100); i++) {
          const { runId: freshId } = await freshRun(runtime);
          load.push((await loadMs(runtime, runId)) - (await loadMs(runtime, freshId)));
          fresh.push(await answered(runtime, freshId));
          aged.push(await answered(runtime, runId));
        }
      });
      all.aged.push(median(aged));
      all.fresh.push(median(fresh));
      all.load.push(median(load));
      ratios.push(median(aged) / (median(fresh) + median(load)));
    }
    await runtime.stop();
    remove(directory);
    figures.push({
      name: `answer a run of ${steps.toLocaleString("en")} steps / a new one and the load`,
      on,
      unit: "times",
      ours: median(ratios),
      spread: spreadOf(ratios),
      asked: on === "sqlite" ? [atMost(median(ratios), 1.5)] : undefined,
      note:
        `from the answer to its next question: ${median(all.aged).toFixed(2)} ms; a new run ${median(all.fresh).toFixed(2)} ms; ` +
        `loading the old one takes ${median(all.load).toFixed(2)} ms more, and is done twice: to check the answer, and to go on`,
    });
  }
  return figures;
}

function freshRun(runtime: Runtime): Promise<{ runId: string }> {
  return runtime.run(asking, { vars: { n: 0, steps: 0 } });
}

/** Milliseconds from the answer until the next question is durable. */
async function answered(runtime: Runtime, runId: string): Promise<number> {
  let forget = (): void => undefined;
  const asked = new Promise<void>((resolve) => {
    forget = runtime.on("record", (record) => {
      if (record.runId === runId && record.kind === "parked") resolve();
    });
  });
  const start = performance.now();
  await runtime.respond(runId, "yes");
  await asked;
  const ms = performance.now() - start;
  forget();
  return ms;
}

async function loadMs(runtime: Runtime, runId: string): Promise<number> {
  const start = performance.now();
  const loaded = await runtime.store.load(runId);
  if (!loaded) throw new Error("The run is gone.");
  restore(runId, loaded);
  return performance.now() - start;
}
