/** Moments and spans as people read and write them. Always UTC, so that two people read the same. */

export function moment(at: number): string {
  const date = new Date(at);
  return Number.isNaN(date.getTime()) ? String(at) : date.toISOString().replace("T", " ");
}

/** A moment, and how far it is from `now`. */
export function when(at: number, now: number): string {
  const text = moment(at);
  return at > now ? `${text} (in ${span(at - now)})` : `${text} (${span(now - at)} ago)`;
}

const units = [
  ["d", 86_400_000],
  ["h", 3_600_000],
  ["min", 60_000],
  ["s", 1_000],
] as const;

export function span(ms: number): string {
  for (const [name, size] of units) if (ms >= size) return `${Math.floor(ms / size)} ${name}`;
  return `${Math.max(0, Math.round(ms))} ms`;
}

const spanForm = /^(\d+(?:\.\d+)?)(ms|s|m|min|h|d|w)$/;
const spanMs: Readonly<Record<string, number>> = {
  ms: 1,
  s: 1_000,
  m: 60_000,
  min: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
};
const isoForm = /^\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:?\d\d))?$/i;

/** A span such as `2h`, before or after `now`; a day or time in ISO 8601, also as `moment` writes it. Or a sentence that says what is wrong. */
export function momentFrom(text: string, now: number, way: "ago" | "ahead"): number | string {
  const [, amount, unit = ""] = spanForm.exec(text) ?? [];
  if (amount !== undefined) return now + (way === "ago" ? -1 : 1) * Number(amount) * (spanMs[unit] as number);
  if (/^\d{4}-\d\d-\d\d[T ][\d:.]+$/.test(text)) return `"${text}" has no time zone: add Z or an offset`;
  const at = isoForm.test(text) ? Date.parse(text.replace(" ", "T")) : Number.NaN;
  // Of a day that its month does not have, Date makes one of the next.
  const isDay = !Number.isNaN(at) && new Date(`${text.slice(0, 10)}T00:00:00Z`).toISOString().startsWith(text.slice(0, 10));
  return isDay ? at : `"${text.slice(0, 64)}" is no time`;
}
