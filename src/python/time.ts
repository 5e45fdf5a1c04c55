/** Moments as Python prints them: UTC, microseconds, no `Z`. */
import { readMoment } from "../kernel/moment.ts";

/** Milliseconds since 1970, or undefined for what is no moment. Without an offset it is UTC: Python compared texts in UTC. */
export function momentOf(text: string): number | undefined {
  const given = /[T ]\d\d:\d\d(:\d\d(\.\d+)?)?$/.test(text) ? `${text.replace(" ", "T")}Z` : text;
  const at = readMoment(given);
  return typeof at === "number" ? at : undefined;
}

/** Microseconds since 1970. */
export function microsOf(text: unknown): number | undefined {
  const at = typeof text === "string" ? momentOf(text) : undefined;
  if (at === undefined) return undefined;
  const [, digits = ""] = /\.(\d{1,6})/.exec(text as string) ?? [];
  return at * 1_000 + Number(digits.padEnd(6, "0").slice(3));
}

/** As `datetime.isoformat()`: no fraction at all on a whole second. */
export function pythonTime(at: number): string {
  const iso = new Date(at).toISOString();
  return iso.endsWith(".000Z") ? `${iso.slice(0, -5)}+00:00` : `${iso.slice(0, -1)}000+00:00`;
}
