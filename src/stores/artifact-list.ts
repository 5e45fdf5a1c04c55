/** What every store's list of artifacts has in common: its order and its cursors. */
import { AbstractRuntimeError } from "../kernel/errors.ts";
import type { ArtifactQuery, ArtifactRow } from "../kernel/artifact-row.ts";

/** Artifacts per page. */
const defaultPage = 100;
const largestPage = 1_000;

/** Where an artifact stands: newest first, and of one moment by id, backwards. */
export type ArtifactPlace = Pick<ArtifactRow, "createdAt" | "id">;

export function artifactPage({ limit = defaultPage }: ArtifactQuery): number {
  return Math.max(1, Math.min(limit, largestPage));
}

/** The page's `next`: given when more than the page was found. */
export function artifactsNext(page: readonly ArtifactPlace[], found: number): { next?: string } {
  const last = page.at(-1);
  return last && found > page.length ? { next: JSON.stringify([last.createdAt, last.id]) } : {};
}

/** @throws INVALID_OPTION */
export function artifactsBehind({ cursor }: ArtifactQuery): ArtifactPlace | undefined {
  if (cursor === undefined) return undefined;
  try {
    const [createdAt, id] = JSON.parse(cursor) as unknown[];
    if (Number.isSafeInteger(createdAt) && typeof id === "string") return { createdAt: createdAt as number, id };
  } catch {
    // Said below.
  }
  throw new AbstractRuntimeError("INVALID_OPTION", {
    option: "cursor",
    problem: `"${String(cursor).slice(0, 64)}" is not a cursor of a list of artifacts`,
  });
}
