/** Runs that ask a person: 1,000 are parked, then 1,000 are answered and end. 100 at a time. */
import { askUser, complete, defineWorkflow } from "abstractruntime";
import { atATime, compare, cpuNote, rates, writesNote } from "./compare.ts";
import { type Asked, median, spreadOf, type Figure } from "./figure.ts";
import type { Settings } from "./settings.ts";

const width = 100;
/** Asked of SQLite, in runs a second. */
const asked = { park: 8_000, "answer and finish": 5_000 };

export const approval = defineWorkflow({
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
    (["park", "answer and finish"] as const).forEach((name, phase) => {
      const ms = compared.ours[phase]!;
      const { ratio, spread } = rates(compared, phase, runs);
      const raw = compared.raw[phase]!.map((replayed) => replayed.ms);
      figures.push({
        name: `${name} ${runs.toLocaleString("en")} runs`,
        on,
        unit: "ms",
        ours: median(ms),
        ...(on === "sqlite" ? { asked: [perSecond(runs, median(ms), asked[name])] } : {}),
        ...(ratio === undefined
          ? { spread: spreadOf(ms) }
          : { raw: median(raw), ratio, spread, note: `${writesNote(compared, phase)}; ${cpuNote(compared, phase, runs)}` }),
      });
    });
  }
  return figures;
}

function perSecond(runs: number, ms: number, limit: number): Asked {
  const reached = (runs * 1_000) / ms;
  return { text: `>= ${limit.toLocaleString("en")}/s (${Math.round(reached).toLocaleString("en")}/s)`, met: reached >= limit };
}
