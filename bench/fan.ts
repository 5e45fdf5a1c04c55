/** A run that starts 10,000 children of one step each and gathers what they came to: how long, and how much memory. */
import { median, atMost, type Figure, spreadOf } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import { finish, heard, startProcess } from "./processes.ts";
import type { Settings } from "./settings.ts";

/** What the process says that has fanned out. */
export interface Fanned {
  ms: number;
  cpuMs: number;
  /** Memory before, and the most of it. */
  beforeMb: number;
  mostMb: number;
}

export async function fan(settings: Settings): Promise<Figure[]> {
  const children = settings.scaled(10_000);
  const figures: Figure[] = [];
  for (const on of settings.stores) {
    const rounds: Fanned[] = [];
    for (let round = 0; round < settings.rounds(3); round++) {
      const directory = newPlace();
      const child = await startProcess("fan-child.ts", [on, directory, String(children)]);
      const fanned = heard<Fanned>(child);
      child.send("go");
      rounds.push(await fanned);
      await finish(child);
      remove(directory);
    }
    const seconds = rounds.map(({ ms }) => ms / 1_000);
    const growth = rounds.map(({ beforeMb, mostMb }) => mostMb - beforeMb);
    const name = `fan out to ${children.toLocaleString("en")} children and gather them`;
    const isAsked = on === "sqlite";
    figures.push(
      {
        name,
        on,
        unit: "s",
        ours: median(seconds),
        spread: spreadOf(seconds),
        asked: isAsked ? [atMost(median(seconds), 5)] : undefined,
        note: `each process new; processor time ${(median(rounds.map(({ cpuMs }) => cpuMs)) / 1_000).toFixed(1)} s`,
      },
      {
        name: `${name}: memory`,
        on,
        unit: "MB more",
        ours: median(growth),
        spread: spreadOf(growth),
        asked: isAsked ? [atMost(median(growth), 200)] : undefined,
        note: `the most of its RSS above ${median(rounds.map(({ beforeMb }) => beforeMb)).toFixed(0)} MB before`,
      },
    );
  }
  return figures;
}
