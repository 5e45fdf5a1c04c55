/**
 * Instants from what people and programs write. A text is ISO 8601: a date, or a time with `Z` or an offset. A time without one
 * would be another moment on another machine, and a day that its month does not have would silently be one of the next: both are
 * refused, as is whatever `Date` could not write back (years outside 0000 to 9999).
 */

const isoForm = /^(\d{4}-\d\d-\d\d)(T\d\d:\d\d(:\d\d([.,]\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?)?$/i;
const firstMoment = Date.parse("0000-01-01T00:00:00Z");
const lastMoment = Date.parse("9999-12-31T23:59:59.999Z");

/** Milliseconds since 1970, whole and rounded up; or a sentence that says what is wrong. */
export function readMoment(value: Date | string | number): number | string {
  const at = typeof value === "string" ? parse(value) : roundedUp(value instanceof Date ? value.getTime() : value);
  if (typeof at === "string") return at;
  if (Number.isNaN(at)) return `${shown(value)} is not a moment`;
  return at >= firstMoment && at <= lastMoment ? at : `${shown(value)} lies outside the years 0000 to 9999`;
}

function parse(text: string): number | string {
  const [, day, time, , , zone] = isoForm.exec(text) ?? [];
  if (day === undefined) return `${shown(text)} is not a date or a time in ISO 8601 form, such as 2026-01-31T09:00:00Z`;
  if (time !== undefined && zone === undefined)
    return `${shown(text)} has no time zone, and means another moment on every machine; add Z or an offset`;
  const midnight = new Date(`${day}T00:00:00Z`);
  if (Number.isNaN(midnight.getTime()) || !midnight.toISOString().startsWith(day))
    return `${shown(text)} is a day that does not exist`;
  return Date.parse(text.replace(",", "."));
}

/** What plain JavaScript passes for a number is none. */
function roundedUp(value: unknown): number {
  return typeof value === "number" ? Math.ceil(value) : Number.NaN;
}

function shown(value: Date | string | number): string {
  return typeof value === "string" ? `"${value.slice(0, 64)}"` : String(value).slice(0, 64);
}
