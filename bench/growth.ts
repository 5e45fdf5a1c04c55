/** A run whose vars grow by 2 KB a step, 500 times: whether late steps cost more than early ones, and what it leaves on disk. */
import { complete, createRuntime, defineEffect, defineWorkflow, type Runtime, type Store } from "abstractruntime";
import { randomBytes } from "node:crypto";
import { compare, openStore, type StoreName, warmUps } from "./compare.ts";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { bytesIn, newPlace, remove } from "./place.ts";
import type { Settings } from "./settings.ts";
import { Stamps } from "./stamps.ts";
import { settling } from "./steps.ts";

const steps = 500;
const window = 50;
const stamps = new Stamps();
/** 2 KB that no compression or sharing makes smaller, one for each step. */
const texts = Array.from({ length: steps }, () => randomBytes(1_024).toString("hex"));

/** How its steps come to be. */
export type Kind = "barrier" | "speculative" | "chat";

const log = defineEffect("log", { run: ({ count }: { count: number }) => count });
const guess = defineEffect("guess", { speculative: true, run: ({ count }: { count: number }) => count });
/** A model call as it is usual: its payload is the whole conversation. */
const reply = defineEffect("reply", { run: ({ messages }: { messages: unknown[] }) => messages.length });

const workflows = {
  barrier: defineWorkflow({
    id: "grow",
    effects: [log],
    entry: "grow",
    nodes: {
      grow: ({ vars }) => {
        stamps.stamp();
        if (vars.items.length === steps) return complete({ count: steps });
        vars.items.push({ text: texts[vars.items.length] });
        return log({ count: vars.items.length }, { resultKey: "count", nextNode: "grow" });
      },
    },
  }),
  speculative: defineWorkflow({
    id: "grow_ahead",
    effects: [guess],
    entry: "grow",
    nodes: {
      grow: ({ vars }) => {
        stamps.stamp();
        if (vars.items.length === steps) return complete({ count: steps });
        vars.items.push({ text: texts[vars.items.length] });
        return guess({ count: vars.items.length }, { resultKey: "count", nextNode: "grow" });
      },
    },
  }),
  chat: defineWorkflow({
    id: "chat",
    effects: [reply],
    entry: "talk",
    nodes: {
      talk: ({ vars }) => {
        stamps.stamp();
        if (vars.items.length === steps) return complete({ count: steps });
        vars.items.push({ text: texts[vars.items.length] });
        return reply({ messages: vars.items }, { resultKey: "count", nextNode: "talk" });
      },
    },
  }),
};

/** Tells which of its steps write a checkpoint: they are kept apart. */
export function watchGrowth(store: Store): void {
  stamps.watch(store);
}

export async function growth(settings: Settings): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const on of settings.stores) {
    for (const kind of ["barrier", "speculative", "chat"] as const) figures.push(...(await grow(kind, on, settings.rounds(7))));
  }
  return figures;
}

async function grow(kind: Kind, on: StoreName, rounds: number): Promise<Figure[]> {
  const workflow = workflows[kind];
  const early: number[] = [];
  const late: number[] = [];
  const growths: number[] = [];
  const checkpoints: number[][] = [];
  const compared = await compare(on, rounds, {
    workflows: [workflow, settling],
    warmUp: async (runtime) => void (await runtime.run(settling, { vars: { n: 0 } })),
    prepare: watchGrowth,
    phases: [
      async (runtime) => {
        const run = await grown(runtime, kind);
        early.push(run.early);
        late.push(run.late);
        growths.push(run.late / run.early);
        checkpoints.push(stamps.checkpointSteps());
      },
    ],
    eachRaw: true,
  });
  for (const list of [early, late, growths, checkpoints]) list.splice(0, warmUps);
  const rawGrowth = compared.raw[0]!.map(({ each }) => median(each.slice(-window)) / median(each.slice(1, window + 1)));
  const growing = median(growths);
  const atCheckpoints = checkpoints.flat();
  const what = kind === "chat" ? "growth, the whole list in each payload" : `growth, ${kind} steps`;
  const figures: Figure[] = [
    {
      name: `${what}: last 50 of 500 / first 50`,
      on,
      unit: "times",
      ours: growing,
      ...(kind === "barrier" && on === "sqlite" ? { raw: median(rawGrowth) } : {}),
      spread: spreadOf(growths),
      asked: on === "sqlite" && kind !== "chat" ? [atMost(growing, 1.3)] : undefined,
      note:
        `a step took ${(median(early) * 1_000).toFixed(0)} us, then ${(median(late) * 1_000).toFixed(0)} us; ` +
        `the ${median(checkpoints.map(({ length }) => length))} steps with a checkpoint ${median(atCheckpoints).toFixed(2)} ms (median), ${Math.max(...atCheckpoints).toFixed(2)} ms (most)`,
    },
  ];
  if (on === "memory") return figures;
  const bytes = await filesOf(workflow);
  const state = texts.reduce((sum, text) => sum + JSON.stringify({ text }).length + 1, 0) / 1e6;
  figures.push({
    name: `${what}: files after close`,
    on,
    unit: "MB",
    ours: bytes / 1e6,
    raw: state,
    ratio: state / (bytes / 1e6),
    asked: [atMost(bytes / 1e6, 4)],
    note: "raw: the final vars as JSON",
  });
  return figures;
}

/** Carries out such a run: milliseconds of one of its first steps, and of one of its last. */
export async function grown(runtime: Runtime, kind: Kind): Promise<{ early: number; late: number }> {
  stamps.clear();
  await runtime.run(workflows[kind], { vars: { items: [] } });
  return { early: stamps.median(0, window), late: stamps.median(steps - window, steps) };
}

/** Bytes that the run leaves in a new store. */
async function filesOf(workflow: (typeof workflows)[Kind]): Promise<number> {
  const directory = newPlace();
  const runtime = await createRuntime({ workflows: [workflow], store: await openStore("sqlite", directory) });
  await runtime.run(workflow, { vars: { items: [] } });
  await runtime.stop();
  const bytes = bytesIn(directory);
  remove(directory);
  return bytes;
}
