/**
 * Measures phases of work with the runtime and, on SQLite, the bare writes that it came down to, in turns: ours, raw, ours, raw,
 * ours. Each raw turn replays the writes of the turn before it and is compared with the turns on both sides of it, so that a
 * machine that grows slower meanwhile does not favour either.
 *
 * Garbage is not collected by force between turns: V8 would throw compiled code away with it, and ours would be measured while it
 * is compiled again.
 */
import { createRuntime, type Runtime, type Store, type Workflow } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { median } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import { profiled } from "./profile.ts";
import { cpuMs, fill, replay, type Replayed, trace, type Writes } from "./trace.ts";

export type StoreName = "memory" | "sqlite";
export const storeNames: readonly StoreName[] = ["memory", "sqlite"];

export type Phase = (runtime: Runtime) => Promise<void>;

export interface Work {
  workflows: Workflow<any, any, any>[];
  /** Carried out in this order, on one new store, each timed for itself. Whatever it keeps for later phases, it keeps itself. */
  phases: readonly Phase[];
  /** Carried out before the phases on the same store, by both sides, and not counted. */
  warmUp?: Phase;
  /** Default: as a user gets it, with the scheduler on. */
  scheduler?: boolean;
  /** Called with the store before the runtime has it. */
  prepare?(store: Store): void;
  /** Whether raw transactions are timed one by one. */
  eachRaw?: boolean;
}

export interface Compared {
  /** Milliseconds of each of our rounds, by phase. */
  ours: number[][];
  /** The rounds of raw, by phase; none in memory. */
  raw: Replayed[][];
  /** Ours as a share of raw speed in each round, by phase. */
  ratios: number[][];
  /** Milliseconds of processor time of our rounds, all threads together, by phase. Others at work on the machine do not change them much. */
  cpu: number[][];
  /** In the last round, by phase. */
  transactions: number[];
  rows: number[];
}

/** Turns that are not counted: Node goes on compiling what is then measured for some ten thousand steps. */
export const warmUps = 10;

/** @param rounds Pairs of turns that are counted. */
export async function compare(on: StoreName, rounds: number, work: Work): Promise<Compared> {
  const phases = work.phases.length;
  const compared: Compared = {
    ours: lists(phases),
    raw: lists(phases),
    ratios: lists(phases),
    cpu: lists(phases),
    transactions: [],
    rows: [],
  };
  for (let turn = 0; turn < warmUps; turn++) {
    const warm = await takeTurn(on, work);
    if (turn < 2) replayTurn(on, warm, false);
  }
  let last: Turn = { ms: [], cpu: [], writes: [] };
  for (let round = 0; round <= rounds; round++) {
    last = await takeTurn(on, work, profiled);
    last.ms.forEach((ms, phase) => void compared.ours[phase]!.push(ms));
    last.cpu.forEach((ms, phase) => void compared.cpu[phase]!.push(ms));
    if (round === rounds) break;
    replayTurn(on, last, work.eachRaw ?? false).forEach((replayed, phase) => void compared.raw[phase]!.push(replayed));
  }
  for (let phase = 0; phase < phases; phase++) {
    const ours = compared.ours[phase]!;
    compared.ratios[phase] = compared.raw[phase]!.map(({ ms }, i) => ms / ((ours[i]! + ours[i + 1]!) / 2));
    const writes = last.writes[phase + 1] ?? [];
    compared.transactions.push(writes.length);
    compared.rows.push(writes.flat().length);
  }
  return compared;
}

/** The usual figure of a phase: how many a second, ours and raw. */
export function rates(
  compared: Compared,
  phase: number,
  count: number,
): { ours: number; raw?: number; ratio?: number; spread: [number, number] } {
  const perSecond = (ms: readonly number[]): number => (count * 1_000) / median(ms);
  const ours = perSecond(compared.ours[phase]!);
  const ratios = compared.ratios[phase]!;
  if (ratios.length === 0) {
    const all = compared.ours[phase]!.map((ms) => (count * 1_000) / ms);
    return { ours, spread: [Math.min(...all), Math.max(...all)] };
  }
  const raw = perSecond(compared.raw[phase]!.map(({ ms }) => ms));
  return { ours, raw, ratio: median(ratios), spread: [Math.min(...ratios), Math.max(...ratios)] };
}

export function writesNote({ transactions, rows }: Compared, phase: number): string {
  return `${rows[phase]!.toLocaleString("en")} writes in ${transactions[phase]!.toLocaleString("en")} transactions, on both sides`;
}

/** Processor time of one of `count`, ours and raw. */
export function cpuNote({ cpu, raw }: Compared, phase: number, count: number): string {
  const each = (ms: readonly number[]): string => ((median(ms) * 1_000) / count).toFixed(1);
  const bare = raw[phase]!.length > 0 ? `; raw ${each(raw[phase]!.map((replayed) => replayed.cpu))} us` : "";
  return `processor time ${each(cpu[phase]!)} us each${bare}`;
}

/** Runs `work(0)` to `work(count - 1)`, `width` at a time. */
export async function atATime(width: number, count: number, work: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

export async function openStore(on: StoreName, directory: string): Promise<Store> {
  return on === "memory" ? memoryStore() : sqliteStore(fileIn(directory));
}

export function fileIn(directory: string): string {
  return `${directory}/runs.db`;
}

async function nothing(): Promise<void> {}

interface Turn {
  ms: number[];
  cpu: number[];
  /** Of the warm-up, then of each phase. */
  writes: Writes[];
}

/** @param around Is handed the timed part of each phase. */
async function takeTurn(on: StoreName, work: Work, around = (phase: () => Promise<void>) => phase()): Promise<Turn> {
  const directory = newPlace();
  const store = await openStore(on, directory);
  work.prepare?.(store);
  const runtime = await createRuntime({ workflows: work.workflows, store, scheduler: work.scheduler ?? true });
  const turn: Turn = { ms: [], cpu: [], writes: [] };
  for (const phase of [work.warmUp ?? nothing, ...work.phases]) {
    await around(async () => {
      const traced = on === "sqlite" ? trace() : undefined;
      const used = cpuMs();
      const start = performance.now();
      await phase(runtime);
      turn.ms.push(performance.now() - start);
      turn.cpu.push(cpuMs() - used);
      if (traced) turn.writes.push(traced.stop());
    });
  }
  await runtime.stop();
  if (on === "sqlite") for (const writes of turn.writes) fill(writes, fileIn(directory));
  remove(directory);
  turn.ms.shift();
  turn.cpu.shift();
  return turn;
}

function replayTurn(on: StoreName, { writes }: Turn, each: boolean): Replayed[] {
  if (on === "memory") return [];
  const directory = newPlace();
  const replayed = replay(writes, fileIn(directory), each);
  remove(directory);
  return replayed.slice(1);
}

function lists<T>(count: number): T[][] {
  return Array.from({ length: count }, () => []);
}
