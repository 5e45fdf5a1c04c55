/** Many runs at once: 1,000 of 5 barrier steps each, 100 at a time. */
import { complete, defineEffect, defineWorkflow } from "abstractruntime";
import { atATime, compare, cpuNote, rates, writesNote } from "./compare.ts";
import { atLeast, type Figure } from "./figure.ts";
import type { Settings } from "./settings.ts";

const stepsPerRun = 5;
const width = 100;

const add = defineEffect("add", { run: ({ n }: { n: number }) => n + 1 });
const addLater = defineEffect("add_later", { run: async ({ n }: { n: number }) => n + 1 });

export async function concurrent(settings: Settings): Promise<Figure[]> {
  const figures: Figure[] = [];
  const runs = settings.scaled(1_000);
  for (const on of settings.stores) {
    for (const effect of [add, addLater]) {
      const workflow = defineWorkflow({
        id: "short",
        effects: [effect],
        entry: "next",
        nodes: {
          next: ({ vars }) =>
            vars.n >= stepsPerRun ? complete({ n: vars.n }) : effect({ n: vars.n }, { resultKey: "n", nextNode: "next" }),
        },
      });
      const compared = await compare(on, settings.rounds(11), {
        workflows: [workflow],
        warmUp: (runtime) => atATime(width, runs / 2, () => runtime.run(workflow, { vars: { n: 0 } })),
        phases: [(runtime) => atATime(width, runs, () => runtime.run(workflow, { vars: { n: 0 } }))],
      });
      const rate = rates(compared, 0, runs * stepsPerRun);
      const asked = on === "sqlite" ? [atLeast(rate.ours, 18_000)] : undefined;
      const name = `${width} concurrent runs of ${stepsPerRun} barrier steps${effect === addLater ? ", async" : ""}`;
      const cpu = cpuNote(compared, 0, runs * stepsPerRun);
      const note = on === "sqlite" ? `${runs.toLocaleString("en")} runs: ${writesNote(compared, 0)}; ${cpu}` : cpu;
      figures.push({ name, on, unit: "steps/s", ...rate, asked, note });
    }
  }
  return figures;
}
