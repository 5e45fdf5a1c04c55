/** Moments and spans as people read them. Always UTC, so that two people read the same. */

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
