/** Pages of runs: in which order, how long, and where one ends. Shared by the stores. */
import { type AbstractRuntimeError, invalidOption } from "../kernel/errors.ts";
import type { RunCount, RunQuery } from "../kernel/query.ts";

export type Order = NonNullable<RunQuery["order"]>;

/** Where a run stands in an order. */
export interface Place {
  /** What it is ordered by: a moment, or in an order of creation the number. */
  at: number;
  /** Its number in the order in which the store got its runs: what stands at one moment is told apart by it. */
  run: number;
}

const defaultPage = 100;
const largestPage = 1_000;
/** Chunks of streams in a page: at 16 KiB each, not more than is well carried at a time. */
export const chunkPage = 32;

export function pageSize(limit = defaultPage): number {
  return Math.max(1, Math.min(limit, largestPage));
}

export function isByCreation(order: Order): boolean {
  return order === "newest" || order === "oldest";
}

export function isDescending(order: Order): boolean {
  return order === "newest" || order === "updated";
}

/** Negative when `a` stands before `b`. */
export function comparePlaces(a: Place, b: Place, order: Order): number {
  const ascending = a.at - b.at || a.run - b.run;
  return isDescending(order) ? -ascending : ascending;
}

/** As many as fit of what was found, which is one more where there are more; then `next` is the cursor of the next page. */
export function pageOf<Found>(
  found: readonly Found[],
  limit: number,
  cursorOf: (last: Found) => string,
): { page: readonly Found[]; next?: string } {
  const page = found.slice(0, limit);
  const last = page.at(-1);
  return { page, ...(found.length > limit && last !== undefined ? { next: cursorOf(last) } : {}) };
}

/** @param store Names the contents: numbers of another store mean other runs. */
export function cursorAt({ at, run }: Place, order: Order, store: string): string {
  return Buffer.from(JSON.stringify([store, order, at, run])).toString("base64url");
}

/** Where the page before ended. @throws INVALID_OPTION */
export function placeOf(cursor: string | undefined, order: Order, store: string): Place | undefined {
  if (cursor === undefined) return undefined;
  const [madeBy, of, at, run] = decoded(cursor);
  if (typeof madeBy !== "string" || !Number.isSafeInteger(at) || !Number.isSafeInteger(run))
    throw refused(`"${String(cursor).slice(0, 64)}" is no cursor: give the \`next\` of a page`);
  if (madeBy !== store) throw refused("the cursor was made by another store");
  if (of !== order) throw refused(`the cursor is of the order "${String(of)}", and the query asks for "${order}"`);
  return { at: at as number, run: run as number };
}

function decoded(cursor: string): unknown[] {
  try {
    const value: unknown = JSON.parse(Buffer.from(cursor, "base64url").toString());
    return Array.isArray(value) && value.length === 4 ? value : [];
  } catch {
    return [];
  }
}

function refused(problem: string): AbstractRuntimeError<"INVALID_OPTION"> {
  return invalidOption("cursor", problem);
}

/** The largest groups first, then by their values. */
export function sortedCounts(groups: ReadonlyMap<string | null, number>): RunCount[] {
  const counts = [...groups].map(([value, count]) => ({ value, count }));
  const before = (a: string | null, b: string | null): boolean => a !== null && (b === null || a < b);
  return counts.sort((a, b) => b.count - a.count || (before(a.value, b.value) ? -1 : 1));
}
