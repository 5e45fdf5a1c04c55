/** The machine that the numbers belong to. */
import { closeSync, fdatasyncSync, openSync, writeSync } from "node:fs";
import { cpus, loadavg, release, totalmem } from "node:os";
import { join } from "node:path";
import { median } from "./figure.ts";
import { newPlace, remove } from "./place.ts";

export interface Machine {
  cores: number;
  cpu: string;
  memoryGb: number;
  system: string;
  node: string;
  sqlite: string;
  /** Whether `src/` or `dist/` was measured. */
  code: string;
  /** Appends of 500 bytes, each followed by fdatasync, per second: the bound of whatever is durable one by one. */
  syncsPerSecond: number;
  /** Processes that wanted a core, on average over the last minute. Above 1 before a start, others were at work. */
  load: number;
}

export function machine(): Machine {
  return {
    cores: cpus().length,
    cpu: cpus()[0]?.model ?? "unknown",
    memoryGb: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
    node: process.version,
    sqlite: process.versions.sqlite ?? "unknown",
    code: import.meta.resolve("abstractruntime").endsWith("/src/index.ts") ? "src" : "dist",
    syncsPerSecond: Math.round(syncsPerSecond()),
    load: loadavg()[0] ?? 0,
  };
}

export function syncsPerSecond(): number {
  const place = newPlace();
  const file = openSync(join(place, "append"), "a");
  const text = "x".repeat(500);
  const rates: number[] = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    for (let i = 0; i < 400; i++) {
      writeSync(file, text);
      fdatasyncSync(file);
    }
    rates.push(400_000 / (performance.now() - start));
  }
  closeSync(file);
  remove(place);
  return median(rates);
}
