/** A run that grows old: whether its ten-thousandth step costs more than its tenth, and what loading a very old one takes. */
import { askUser, createRuntime, defineEffect, defineWorkflow, type Runtime, type Store } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { DatabaseSync } from "node:sqlite";
import { restore } from "../src/kernel/restore.ts";
import { compare, fileIn, type StoreName, warmUps } from "./compare.ts";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { newPlace, remove } from "./place.ts";
import type { Settings } from "./settings.ts";
import { Stamps } from "./stamps.ts";
import { settling } from "./steps.ts";

const old = 10_000;
const window = 100;
const stamps = new Stamps();

const run = ({ n }: { n: number }): number => n + 1;
const add = defineEffect("add", { run });
const guess = defineEffect("guess", { speculative: true, run });

function aging(effect: typeof add | typeof guess, steps: number) {
  return defineWorkflow({
    id: "aging",
    effects: [effect],
    entry: "next",
    nodes: {
      next: ({ vars }) => {
        stamps.stamp();
        if (vars.n >= steps) return askUser({ prompt: "Go on?" }, { nextNode: "next" });
        return (effect as typeof add)({ n: vars.n }, { resultKey: "n", nextNode: "next" });
      },
    },
  });
}

type Kind = "speculative" | "barrier";

const workflows = { speculative: aging(guess, old + window), barrier: aging(add, old + window) };

/** Tells which of its steps write a checkpoint: they are kept apart. */
export function watchAge(store: Store): void {
  stamps.watch(store);
}

export async function age(settings: Settings): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const on of settings.stores) {
    figures.push(await ageing("speculative", on, settings.rounds(9)));
    figures.push(await ageing("barrier", on, settings.rounds(on === "sqlite" ? 3 : 9)));
  }
  figures.push(await loading(settings));
  return figures;
}

async function ageing(kind: Kind, on: StoreName, rounds: number): Promise<Figure> {
  const workflow = workflows[kind];
  const young: number[] = [];
  const aged: number[] = [];
  const compared = await compare(on, rounds, {
    workflows: [workflow, settling],
    warmUp: async (runtime) => void (await runtime.run(settling, { vars: { n: 0 } })),
    prepare: watchAge,
    phases: [
      async (runtime) => {
        const run = await grownOld(runtime, kind);
        young.push(run.young);
        aged.push(run.aged);
      },
    ],
    eachRaw: true,
  });
  young.splice(0, warmUps);
  aged.splice(0, warmUps);
  const ratios = aged.map((ms, i) => ms / young[i]!);
  const raw = compared.raw[0]!.map(
    ({ each }) => median(each.slice(old - window / 2, old + window / 2)) / median(each.slice(10, 10 + window)),
  );
  return {
    name: `age, ${kind}: step 10,000 / step 10`,
    on,
    unit: "times",
    ours: median(ratios),
    ...(kind === "barrier" && on === "sqlite" ? { raw: median(raw) } : {}),
    spread: spreadOf(ratios),
    asked: on === "sqlite" ? [atMost(median(ratios), 1.2)] : undefined,
    note: `medians of ${window} steps: ${(median(young) * 1_000).toFixed(1)} us, then ${(median(aged) * 1_000).toFixed(1)} us`,
  };
}

/** Carries out such a run: milliseconds of one of its first steps, and of one of its last. */
export async function grownOld(runtime: Runtime, kind: Kind): Promise<{ young: number; aged: number }> {
  stamps.clear();
  await runtime.run(workflows[kind], { vars: { n: 0 } });
  return { young: stamps.median(10, 10 + window), aged: stamps.median(old - window / 2, old + window / 2) };
}

async function loading(settings: Settings): Promise<Figure> {
  const steps = settings.scaled(100_000);
  const workflow = aging(guess, steps);
  const directory = newPlace();
  const runtime = await createRuntime({ workflows: [workflow], store: await sqliteStore(fileIn(directory)) });
  const { runId } = await runtime.run(workflow, { vars: { n: 0 } });
  await runtime.stop();
  stamps.clear();

  const ours: number[] = [];
  const raw: number[] = [];
  let tail = 0;
  for (let round = 0; round < settings.rounds(15) + 1; round++) {
    let start = performance.now();
    const store = await sqliteStore(fileIn(directory));
    const loaded = await store.load(runId);
    if (!loaded || restore(runId, loaded).state.vars.n !== steps) throw new Error("The run is not what it was.");
    ours.push(performance.now() - start);
    tail = loaded.tail.length;
    await store.close();

    start = performance.now();
    const database = new DatabaseSync(fileIn(directory));
    const row = database.prepare("SELECT * FROM runs WHERE run_id = ?").get(runId)!;
    const checkpoint = database.prepare("SELECT id, state FROM checkpoints ORDER BY id DESC LIMIT 1").get()!;
    const records = database
      .prepare("SELECT id, header, body FROM records WHERE id > ? ORDER BY id")
      .all(checkpoint.id as number);
    raw.push(performance.now() - start);
    if (!row || records.length !== tail) throw new Error("The raw side reads something else.");
    database.close();
  }
  remove(directory);
  ours.shift();
  raw.shift();
  return {
    name: `load a run of ${steps.toLocaleString("en")} steps`,
    on: "sqlite",
    unit: "ms",
    ours: median(ours),
    raw: median(raw),
    ratio: median(raw) / median(ours),
    spread: spreadOf(raw.map((ms, i) => ms / ours[i]!)),
    asked: [atMost(median(ours), 50)],
    note: `opening the store included; its checkpoint and the ${tail} records behind it. Raw: the same rows by bare statements, not parsed`,
  };
}
