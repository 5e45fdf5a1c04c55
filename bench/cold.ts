/** Cold start: from the start of a Node process to a completed run of one step on a new SQLite file. */
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { fileIn } from "./compare.ts";
import { newPlace, remove } from "./place.ts";
import type { Settings } from "./settings.ts";

const distIndex = join(import.meta.dirname, "../dist/index.js");

export async function cold(settings: Settings): Promise<Figure[]> {
  const figures: Figure[] = [];
  const built = existsSync(distIndex);
  if (built) figures.push(await starts("dist", [], settings.rounds(15)));
  figures.push(await starts("src", ["--conditions=abstractruntime-source"], settings.rounds(15)));
  // Users run what was built; the source, whose types Node strips at each start, stands in where nothing is.
  const asked = figures[0]!;
  asked.asked = [atMost(asked.ours, 200)];
  if (!built) asked.note += ". There is no dist/: npm run build makes one";
  return figures;
}

async function starts(code: string, args: string[], rounds: number): Promise<Figure> {
  const ours: number[] = [];
  const raw: number[] = [];
  const empty: number[] = [];
  for (let round = 0; round < rounds + 1; round++) {
    ours.push(await start("cold-run.mjs", args));
    raw.push(await start("cold-raw.mjs", []));
    empty.push(await start("cold-empty.mjs", []));
  }
  for (const list of [ours, raw, empty]) list.shift();
  return {
    name: "cold start to a completed run",
    on: `sqlite, ${code}`,
    unit: "ms",
    ours: median(ours),
    raw: median(raw),
    ratio: median(raw) / median(ours),
    spread: spreadOf(raw.map((ms, i) => ms / ours[i]!)),
    note: `raw: the same tables made and the same rows written by bare node:sqlite; a Node process that does nothing: ${median(empty).toFixed(0)} ms`,
  };
}

/** Milliseconds until the script has said "done". */
function start(script: string, args: readonly string[]): Promise<number> {
  const directory = newPlace();
  return new Promise((resolve, reject) => {
    const began = performance.now();
    let ms: number | undefined;
    const child = spawn(process.execPath, [...args, join(import.meta.dirname, script), fileIn(directory)], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    child.stdout.once("data", () => {
      ms = performance.now() - began;
    });
    child.once("error", reject);
    child.once("close", (code) => {
      remove(directory);
      if (code === 0 && ms !== undefined) resolve(ms);
      else reject(new Error(`${script} ended with code ${code}.`));
    });
  });
}
