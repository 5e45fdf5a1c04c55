/** `kill -9` of the only worker with 500 runs under way: how long until the next process on the host has all of them moving. */
import { setTimeout } from "node:timers/promises";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import { heard, hostMs, kill, startProcess } from "./processes.ts";
import type { Settings } from "./settings.ts";

/** When the process that took over had its runtime, and when the next record of every run was durable. */
export interface TakenOver {
  opened: number;
  moved: number;
}

export async function crash(settings: Settings): Promise<Figure[]> {
  if (!settings.stores.includes("sqlite")) return [];
  const runs = settings.scaled(500);
  const after: number[] = [];
  const opened: number[] = [];
  const standby: number[] = [];
  for (let round = 0; round < settings.rounds(5); round++) {
    const began = await takenOver(runs, false);
    after.push(began.moved - began.killed);
    opened.push(began.opened - began.killed);
    const stood = await takenOver(runs, true);
    standby.push(stood.moved - stood.killed);
  }
  const on = "sqlite";
  const name = `kill -9 with ${runs} runs under way: all move again`;
  return [
    {
      name,
      on,
      unit: "ms",
      ours: median(after),
      spread: spreadOf(after),
      asked: [atMost(median(after), 1_000)],
      note: `from the kill to the next durable record of every run, the start of the next process (${median(opened).toFixed(0)} ms) included`,
    },
    {
      name: `${name}, by a process that stood by`,
      on,
      unit: "ms",
      ours: median(standby),
      spread: spreadOf(standby),
      note: "nobody rings when a process is killed, so it finds out at its next look, within a second",
    },
  ];
}

async function takenOver(runs: number, standsBy: boolean): Promise<TakenOver & { killed: number }> {
  const directory = newPlace();
  const worker = await startProcess("crash-child.ts", [directory, String(runs), "work"]);
  // Where it looks itself, it looks at any moment between two.
  const next = standsBy ? await startProcess("crash-child.ts", [directory, String(runs), "next"]) : undefined;
  if (next) await setTimeout(500 + Math.random() * 1_000);
  const killed = hostMs();
  await kill(worker);
  const successor = next ?? (await startProcess("crash-child.ts", [directory, String(runs), "next"]));
  const taken = await heard<TakenOver>(successor);
  await kill(successor);
  remove(directory);
  return { ...taken, killed };
}
