/** Lists that are newest first, and of one moment by id, backwards: of artifacts and of snapshots. Shared by the stores. */
import { invalidOption } from "../kernel/errors.ts";

/** Where an entry stands. */
export interface Entry {
  createdAt: number;
  id: string;
}

export function entryOf({ createdAt, snapshotId }: { createdAt: number; snapshotId: string }): Entry {
  return { createdAt, id: snapshotId };
}

/** For sorting: negative when `a` stands before `b`. Ids are in the order of their UTF-8 bytes, as databases have them. */
export function compareEntries(a: Entry, b: Entry): number {
  return b.createdAt - a.createdAt || Buffer.compare(Buffer.from(b.id), Buffer.from(a.id));
}

/** The page's `next`: given when more than the page was found. */
export function nextAfter(last: Entry | undefined, isMore: boolean): { next?: string } {
  return last && isMore ? { next: JSON.stringify([last.createdAt, last.id]) } : {};
}

/** Where the page before ended. @param list What is listed, in the plural. @throws INVALID_OPTION */
export function entryBehind(cursor: string | undefined, list: string): Entry | undefined {
  if (cursor === undefined) return undefined;
  try {
    const [createdAt, id] = JSON.parse(cursor) as unknown[];
    if (Number.isSafeInteger(createdAt) && typeof id === "string") return { createdAt: createdAt as number, id };
  } catch {
    // Said below.
  }
  throw invalidOption("cursor", `"${String(cursor).slice(0, 64)}" is not a cursor of a list of ${list}`);
}

/** For comparing texts whatever the case. Done here and not by a database, which would know the case of ASCII alone, or another one's. */
export function folded(text: string): string {
  return text.toLowerCase();
}
