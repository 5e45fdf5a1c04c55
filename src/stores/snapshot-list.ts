/** What every store's list of snapshots has in common: its order, its cursors, and how texts are compared. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { SnapshotQuery, SnapshotRow } from "../kernel/snapshot.ts";

/** Snapshots per page. */
const defaultPage = 100;
const largestPage = 1_000;

/** Where a snapshot stands: newest first, and of one moment by id, backwards in the order of UTF-8 bytes. */
export type SnapshotPlace = Pick<SnapshotRow, "createdAt" | "snapshotId">;

/** For comparing whatever the case. Done here and not by a database, which would know the case of ASCII alone, or another one's. */
export function folded(text: string): string {
  return text.toLowerCase();
}

export function snapshotPage({ limit = defaultPage }: SnapshotQuery): number {
  return Math.max(1, Math.min(limit, largestPage));
}

/** The page's `next`: given when more than the page was found. */
export function snapshotsNext(page: readonly SnapshotPlace[], found: number): { next?: string } {
  const last = page.at(-1);
  return last && found > page.length ? { next: JSON.stringify([last.createdAt, last.snapshotId]) } : {};
}

/** @throws INVALID_OPTION */
export function snapshotsBehind({ cursor }: SnapshotQuery): SnapshotPlace | undefined {
  if (cursor === undefined) return undefined;
  try {
    const [createdAt, snapshotId] = JSON.parse(cursor) as unknown[];
    if (Number.isSafeInteger(createdAt) && typeof snapshotId === "string") return { createdAt: createdAt as number, snapshotId };
  } catch {
    // Said below.
  }
  throw new AbstractRuntimeError("INVALID_OPTION", {
    option: "cursor",
    problem: `"${String(cursor).slice(0, 64)}" is not a cursor of a list of snapshots`,
  });
}
