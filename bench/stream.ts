/** 50 runs at once whose effects stream 500 parts a second each: how far their readers are behind, here and in another process. */
import { complete, createRuntime, defineEffect, defineWorkflow, type EffectContext, type Runtime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileIn } from "./compare.ts";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import { finish, heard, hostMs, startProcess } from "./processes.ts";
import type { Settings } from "./settings.ts";
import { cpuMs } from "./trace.ts";

const runs = 50;
const partsPerSecond = 500;
/** In another process. */
const readersElsewhere = 50;

/** What readers of a process have seen. */
export interface Read {
  /** How long after it was streamed each part was seen, in milliseconds. */
  lags: number[];
  /** Parts that were not the next one of their run. */
  misplaced: number;
}

interface Round {
  here: Read;
  elsewhere: Read;
  loopP99: number;
  loopMost: number;
  cpuShare: number;
  partsPerSecond: number;
}

export async function stream(settings: Settings): Promise<Figure[]> {
  const on = "sqlite";
  if (!settings.stores.includes(on)) return [];
  const streamMs = settings.scaled(20_000);
  const rounds: Round[] = [];
  for (let round = 0; round < settings.rounds(3); round++) rounds.push(await streamFor(streamMs));

  const title = `${runs} runs, ${partsPerSecond} parts/s each`;
  const of = (value: (round: Round) => number) => {
    const values = rounds.map(value);
    return { ours: median(values), spread: spreadOf(values) };
  };
  const here = of(({ here }) => p99(here.lags));
  const elsewhere = of(({ elsewhere }) => p99(elsewhere.lags));
  const loop = of(({ loopP99 }) => loopP99);
  const said = (streamMs * partsPerSecond) / 1_000;
  const missing = ({ here, elsewhere }: Round): number =>
    Math.abs(runs * said - here.lags.length) + Math.abs(readersElsewhere * said - elsewhere.lags.length);
  const misplaced = of((round) => round.here.misplaced + round.elsewhere.misplaced + missing(round));
  const seconds = streamMs / 1_000;
  return [
    {
      name: `${title}: behind, ${runs} readers in the process, p99`,
      on,
      unit: "ms",
      ...here,
      asked: [atMost(here.ours, 200)],
      note: `for ${seconds} s with every record and chunk durable; all figures of one run of the process, at ${Math.round(of((round) => round.partsPerSecond).ours).toLocaleString("en")} parts/s`,
    },
    {
      name: `${title}: behind, ${readersElsewhere} readers in another process, p99`,
      on,
      unit: "ms",
      ...elsewhere,
      asked: [atMost(elsewhere.ours, 200)],
    },
    { name: `${title}: parts out of order or missing`, on, unit: "parts", ...misplaced, asked: [atMost(misplaced.ours, 0)] },
    {
      name: `${title}: delay of the event loop, p99`,
      on,
      unit: "ms",
      ...loop,
      asked: [atMost(loop.ours, 30)],
      note: `by monitorEventLoopDelay, of which ${resolutionMs} ms is how often it looks; the longest: ${of((round) => round.loopMost).ours.toFixed(0)} ms`,
    },
    {
      name: `${title}: processor time`,
      on,
      unit: "% of a core",
      ...of(({ cpuShare }) => cpuShare * 100),
      note: "with the readers",
    },
  ];
}

const resolutionMs = 1;

async function streamFor(streamMs: number): Promise<Round> {
  const directory = newPlace();
  const begin = Promise.withResolvers<void>();
  const speak = defineEffect("speak", {
    speculative: true,
    run: async (_: unknown, context) => {
      await begin.promise;
      return speakFor(streamMs, context);
    },
  });
  const speaking = defineWorkflow({
    id: "speaking",
    effects: [speak],
    entry: "speak",
    nodes: { speak: () => speak({}, { resultKey: "said", nextNode: "end" }), end: () => complete() },
  });
  const runtime = await createRuntime({ store: await sqliteStore(fileIn(directory)), workflows: [speaking] });
  const runIds: string[] = [];
  for (let i = 0; i < runs; i++) runIds.push((await runtime.start(speaking)).runId);
  const child = await startProcess("stream-child.ts", [directory, JSON.stringify(runIds.slice(0, readersElsewhere))]);
  const readers = Promise.all(runIds.map((runId) => read(runtime, runId)));
  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  const used = cpuMs();
  const start = performance.now();
  delay.enable();
  begin.resolve();
  const here = joined(await readers);
  delay.disable();
  const tookMs = performance.now() - start;
  const cpuShare = (cpuMs() - used) / tookMs;
  const elsewhere = await heard<Read>(child);
  await finish(child);
  await runtime.stop();
  remove(directory);
  const loopP99 = delay.percentile(99) / 1e6;
  return { here, elsewhere, loopP99, loopMost: delay.max / 1e6, cpuShare, partsPerSecond: here.lags.length / (tookMs / 1_000) };
}

/** By a timer; what a late one has missed comes with the next. */
function speakFor(streamMs: number, { stream }: EffectContext): Promise<null> {
  const start = performance.now();
  let number = 0;
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      const passedMs = Math.min(performance.now() - start, streamMs);
      for (; number < (passedMs * partsPerSecond) / 1_000; number++)
        stream({ type: "text", text: `${number}@${hostMs().toFixed(2)} ` });
      if (passedMs < streamMs) return;
      clearInterval(timer);
      resolve(null);
    }, 1_000 / partsPerSecond);
  });
}

/** Reads a run to its end, and compares what each part says of itself. */
export async function read(runtime: Runtime, runId: string): Promise<Read> {
  const lags: number[] = [];
  let misplaced = 0;
  let next = 0;
  let begun = "";
  for await (const item of runtime.watch(runId)) {
    if (item.kind !== "stream") continue;
    const words = (begun + item.part.text).split(" ");
    begun = words.pop() as string;
    const now = hostMs();
    for (const word of words) {
      const [number, at] = word.split("@").map(Number) as [number, number];
      if (number !== next) misplaced += 1;
      next = number + 1;
      lags.push(now - at);
    }
  }
  return { lags, misplaced };
}

export function joined(read: readonly Read[]): Read {
  return { lags: read.flatMap(({ lags }) => lags), misplaced: read.reduce((sum, { misplaced }) => sum + misplaced, 0) };
}

function p99(values: readonly number[]): number {
  return Float64Array.from(values).sort()[Math.floor(values.length * 0.99)] ?? Number.NaN;
}
