/** What a subject reports: one figure, beside its raw cost where there is one. */
import Table from "cli-table3";

export interface Figure {
  name: string;
  /** Which store, or what else it was measured on. */
  on: string;
  ours: number;
  /** The same by bare means, measured in the same process, in turns with ours. */
  raw?: number;
  unit: string;
  /** Ours as a share of raw speed: 1 is as fast (or as small) as raw. The median of the rounds, each compared with its own neighbours. */
  ratio?: number;
  /** Lowest and highest of the rounds behind `ratio`, or behind `ours` where there is no ratio. */
  spread?: readonly [lowest: number, highest: number];
  asked?: readonly Asked[];
  /** What the number means, where its name does not say it. */
  note?: string;
}

export interface Asked {
  text: string;
  met: boolean;
}

export function atLeast(value: number, limit: number, what = ""): Asked {
  return { text: `${what}>= ${limit.toLocaleString("en")}`, met: value >= limit };
}

export function atMost(value: number, limit: number, what = ""): Asked {
  return { text: `${what}<= ${limit.toLocaleString("en")}`, met: value <= limit };
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  if (sorted.length === 0) return Number.NaN;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export function spreadOf(values: readonly number[]): [number, number] {
  return [Math.min(...values), Math.max(...values)];
}

export function table(figures: readonly Figure[]): string {
  const drawn = new Table({
    head: ["figure", "on", "ours", "raw", "unit", "of raw (lowest - highest)", "asked", "met"],
    colAligns: ["left", "left", "right", "right", "left", "right", "left", "left"],
    style: { head: [], border: [], compact: true },
  });
  for (const { name, on, ours, raw, unit, ratio, spread, asked } of figures) {
    const range = spread ? ` (${short(spread[0])} - ${short(spread[1])})` : "";
    drawn.push([
      name,
      on,
      short(ours),
      raw === undefined ? "" : short(raw),
      unit,
      ratio === undefined ? range.trim() : `${ratio.toFixed(2)}${range}`,
      asked?.map(({ text }) => text).join(", ") ?? "",
      asked?.map(({ met }) => (met ? "yes" : "NO")).join(", ") ?? "",
    ]);
  }
  const notes = figures.flatMap(({ name, on, note }) => (note === undefined ? [] : [`- ${name}, ${on}: ${note}`]));
  return `${drawn.toString()}\n${notes.join("\n")}`;
}

export function short(value: number): string {
  const size = Math.abs(value);
  const digits = size >= 100 || Number.isInteger(value) ? 0 : size >= 10 ? 1 : 2;
  return value.toLocaleString("en", {
    maximumFractionDigits: digits,
    minimumFractionDigits: Number.isInteger(value) ? 0 : digits,
  });
}
