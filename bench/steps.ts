/** Sequential steps of one run: what a step costs when nothing else happens. */
import { complete, defineEffect, defineWorkflow } from "abstractruntime";
import { compare, cpuNote, rates, type StoreName, warmUps, writesNote } from "./compare.ts";
import { atLeast, type Figure, median, spreadOf } from "./figure.ts";
import type { Settings } from "./settings.ts";
import { Stamps } from "./stamps.ts";

const stamps = new Stamps();

type Kind = "speculative" | "speculative async" | "barrier";

const run = ({ n }: { n: number }): number => n + 1;
const effects = {
  speculative: defineEffect("add", { speculative: true, run }),
  "speculative async": defineEffect("add", { speculative: true, run: async (input: { n: number }) => run(input) }),
  barrier: defineEffect("add", { run }),
};

/** One run that requests the effect again and again, `steps` times. */
export function chain(kind: Kind, steps: number) {
  const effect = effects[kind];
  return defineWorkflow({
    id: "chain",
    effects: [effect],
    entry: "next",
    nodes: {
      next: ({ vars }) => {
        stamps.stamp();
        return vars.n >= steps ? complete({ n: vars.n }) : effect({ n: vars.n }, { resultKey: "n", nextNode: "next" });
      },
    },
  });
}

/** The log of a new file grows for its first 1,000 pages, which makes early steps slower: this run takes it past them. */
export const settling = defineWorkflow({
  id: "settling",
  effects: [effects.barrier],
  entry: "next",
  nodes: {
    next: ({ vars }) => (vars.n >= 1_000 ? complete({}) : effects.barrier({ n: vars.n }, { resultKey: "n", nextNode: "next" })),
  },
});

export async function speculative(settings: Settings): Promise<Figure[]> {
  const steps = settings.scaled(20_000);
  const figures: Figure[] = [];
  for (const on of settings.stores) {
    figures.push(...(await sequential("speculative", on, steps, settings.rounds(9))));
    figures.push(...(await sequential("speculative async", on, steps, settings.rounds(5))));
  }
  return figures;
}

export async function barrier(settings: Settings): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const on of settings.stores)
    figures.push(...(await sequential("barrier", on, settings.scaled(1_000), settings.rounds(21))));
  return figures;
}

async function sequential(kind: Kind, on: StoreName, steps: number, rounds: number): Promise<Figure[]> {
  const workflow = chain(kind, steps);
  const typical: number[] = [];
  const compared = await compare(on, rounds, {
    workflows: [workflow],
    warmUp: async (runtime) => void (await runtime.run(workflow, { vars: { n: steps / 2 } })),
    phases: [
      async (runtime) => {
        stamps.clear();
        await runtime.run(workflow, { vars: { n: 0 } });
        typical.push(stamps.median(0, steps));
      },
    ],
    eachRaw: kind === "barrier",
  });
  typical.splice(0, warmUps);
  const rate = rates(compared, 0, steps);
  const name = `sequential ${kind} steps`;
  const figure: Figure = { name, on, unit: "steps/s", ...rate, note: cpuNote(compared, 0, steps) };
  if (on === "memory") return [figure];
  const ratio = rate.ratio ?? Number.NaN;
  figure.note = `${steps.toLocaleString("en")} steps: ${writesNote(compared, 0)}; ${figure.note}`;
  if (kind === "speculative") figure.asked = [atLeast(rate.ours, 25_000), atLeast(ratio, 0.65, "of raw ")];
  if (kind !== "barrier") return [figure];
  figure.asked = [atLeast(ratio, 0.8, "of raw ")];
  // Totals take in whatever else the disk does meanwhile. The typical step beside the typical transaction does not.
  const raw = compared.raw[0]!.map(({ each }) => median(each));
  const ratios = raw.map((ms, i) => ms / ((typical[i]! + typical[i + 1]!) / 2));
  return [
    figure,
    {
      name: `${name}: the median one`,
      on,
      unit: "us",
      ours: median(typical) * 1_000,
      raw: median(raw) * 1_000,
      ratio: median(ratios),
      spread: spreadOf(ratios),
      asked: [atLeast(median(ratios), 0.8, "of raw ")],
    },
  ];
}
