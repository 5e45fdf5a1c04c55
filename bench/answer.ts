/** From an answer to the completion of the run that waited for it, one at a time: in one process, and from another on the same file. */
import { createRuntime, type Runtime } from "abstractruntime";
import { openStore, type StoreName } from "./compare.ts";
import { type Asked, atMost, type Figure, median, spreadOf } from "./figure.ts";
import { approval } from "./park.ts";
import { newPlace, remove } from "./place.ts";
import { finish, heard, hostMs, startProcess } from "./processes.ts";
import { profiled } from "./profile.ts";
import type { Settings } from "./settings.ts";
import { settling } from "./steps.ts";

/** What the answering process says of one answer, by the clock of the host. */
export interface Answered {
  began: number;
  /** When its own `result` had the output. */
  known: number;
}

export async function answer(settings: Settings): Promise<Figure[]> {
  const runs = settings.scaled(500);
  const figures: Figure[] = [];
  for (const on of settings.stores) {
    const rounds = await inRounds(on, settings.rounds(5), (runtime) => oneByOne(runtime, runs));
    figures.push(figureOf("answer to completion, one at a time", on, rounds, on === "sqlite" ? [1.5, 5] : undefined));
  }
  if (!settings.stores.includes("sqlite")) return figures;
  const done: number[][] = [];
  const known: number[][] = [];
  for (let round = 0; round < settings.rounds(5); round++) {
    const all = await acrossProcesses(settings.scaled(200));
    done.push(all.map(({ end, began }) => end - began));
    known.push(all.map((one) => one.known - one.began));
  }
  figures.push(
    figureOf("answer from another process to completion", "sqlite", done, [10]),
    figureOf("answer from another process to its result there", "sqlite", known),
  );
  figures[figures.length - 2]!.note += "; the process that answers does not have the workflow, so that the other one hears of it";
  return figures;
}

async function inRounds(on: StoreName, rounds: number, work: (runtime: Runtime) => Promise<number[]>): Promise<number[][]> {
  const all: number[][] = [];
  for (let round = 0; round < rounds + 1; round++) {
    const directory = newPlace();
    const runtime = await createRuntime({ workflows: [approval, settling], store: await openStore(on, directory) });
    await runtime.run(settling, { vars: { n: 0 } });
    all.push(await profiled(() => work(runtime)));
    await runtime.stop();
    remove(directory);
  }
  return all.slice(1);
}

async function oneByOne(runtime: Runtime, runs: number): Promise<number[]> {
  const latencies: number[] = [];
  for (let i = 0; i < runs; i++) {
    const { runId } = await runtime.run(approval, { vars: { topic: `topic ${i}` } });
    const start = performance.now();
    await runtime.respond(runId, "yes");
    await runtime.result(runId);
    latencies.push(performance.now() - start);
  }
  return latencies;
}

async function acrossProcesses(runs: number): Promise<(Answered & { end: number })[]> {
  const directory = newPlace();
  const runtime = await createRuntime({ workflows: [approval, settling], store: await openStore("sqlite", directory) });
  await runtime.run(settling, { vars: { n: 0 } });
  const child = await startProcess("answer-child.ts", [directory]);
  const answers: (Answered & { end: number })[] = [];
  for (let i = 0; i < runs; i++) {
    const { runId } = await runtime.run(approval, { vars: { topic: `topic ${i}` } });
    let forget = (): void => undefined;
    const completed = new Promise<number>((resolve) => {
      forget = runtime.on("run", (row) => {
        if (row.runId === runId && row.status === "completed") resolve(hostMs());
      });
    });
    const answered = heard<Answered>(child);
    child.send(runId);
    const [end, said] = await Promise.all([completed, answered]);
    forget();
    answers.push({ ...said, end });
  }
  await finish(child);
  await runtime.stop();
  remove(directory);
  return answers;
}

/** @param limits Of the median, and of the 99th of a hundred. */
function figureOf(name: string, on: StoreName, rounds: readonly number[][], limits?: readonly number[]): Figure {
  const medians = rounds.map(median);
  const p99s = rounds.map((all) => all.toSorted((a, b) => a - b)[Math.floor(all.length * 0.99)]!);
  const [p50, p99] = [median(medians), median(p99s)];
  const asked: Asked[] | undefined = limits && [
    atMost(p50, limits[0]!),
    ...(limits[1] === undefined ? [] : [atMost(p99, limits[1], "99 % ")]),
  ];
  const [least, most] = spreadOf(p99s);
  return {
    name,
    on,
    unit: "ms, median",
    ours: p50,
    spread: spreadOf(medians),
    asked,
    note: `99 % within ${p99.toFixed(2)} ms (${least.toFixed(2)} - ${most.toFixed(2)} by round); ${rounds[0]!.length} answers a round`,
  };
}
