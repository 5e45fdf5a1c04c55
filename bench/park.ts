/** Runs that ask a person: 1,000 are parked, then 1,000 are answered and end. 100 at a time. */
import { askUser, complete, defineWorkflow } from "abstractruntime";
import { atATime, compare, rates, type StoreName, writesNote } from "./compare.ts";
import { median, spreadOf, type Figure } from "./figure.ts";
import type { Settings } from "./settings.ts";

const width = 100;

const approval = defineWorkflow({
  id: "approval",
  entry: "ask",
  nodes: {
    ask: ({ vars }) =>
      askUser({ prompt: `Publish "${vars.topic}"?`, choices: ["yes", "no"] }, { resultKey: "answer", nextNode: "decide" }),
    decide: ({ vars }) => complete({ published: vars.answer.text === "yes" }),
  },
});

export async function park(settings: Settings): Promise<Figure[]> {
  const runs = settings.scaled(1_000);
  const figures: Figure[] = [];
  for (const on of settings.stores) {
    let runIds: string[] = [];
    const compared = await compare(on, settings.rounds(7), {
      workflows: [approval],
      warmUp: (runtime) => atATime(width, runs / 2, () => runtime.run(approval, { vars: { topic: "warm" } })),
      phases: [
        async (runtime) => {
          runIds = [];
          await atATime(width, runs, async (i) => {
            const run = await runtime.run(approval, { vars: { topic: `topic ${i}` } });
            runIds.push(run.runId);
          });
        },
        (runtime) =>
          atATime(width, runs, async (i) => {
            await runtime.respond(runIds[i]!, "yes");
            await runtime.result(runIds[i]!);
          }),
      ],
    });
    ["park", "answer and finish"].forEach((name, phase) => {
      const ms = compared.ours[phase]!;
      const { ratio, spread } = rates(compared, phase, runs);
      const raw = compared.raw[phase]!.map((replayed) => replayed.ms);
      figures.push({
        name: `${name} ${runs.toLocaleString("en")} runs`,
        on,
        unit: "ms",
        ours: median(ms),
        ...(ratio === undefined
          ? { spread: spreadOf(ms) }
          : { raw: median(raw), ratio, spread, note: writesNote(compared, phase) }),
      });
    });
    figures.push(await oneByOne(on, settings));
  }
  return figures;
}

/** From `respond` to the run's output in the caller's hands, with nothing else going on. */
async function oneByOne(on: StoreName, settings: Settings): Promise<Figure> {
  const runs = settings.scaled(300);
  let latencies: number[] = [];
  const compared = await compare(on, settings.rounds(3), {
    workflows: [approval],
    phases: [
      async (runtime) => {
        latencies = [];
        for (let i = 0; i < runs; i++) {
          const { runId } = await runtime.run(approval, { vars: { topic: `topic ${i}` } });
          const start = performance.now();
          await runtime.respond(runId, "yes");
          await runtime.result(runId);
          latencies.push(performance.now() - start);
        }
      },
    ],
  });
  const sorted = latencies.toSorted((a, b) => a - b);
  const p99 = sorted[Math.floor(sorted.length * 0.99)]!;
  const writes = on === "sqlite" ? `; with its parking, ${(compared.transactions[0]! / runs).toFixed(1)} transactions a run` : "";
  return {
    name: "answer to completion, one at a time",
    on,
    unit: "ms, median",
    ours: median(sorted),
    note: `99 % within ${p99.toFixed(2)} ms${writes}`,
  };
}
