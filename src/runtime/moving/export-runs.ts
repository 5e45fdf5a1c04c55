/**
 * Whole trees of runs into one file.
 *
 * A copy leaves the runs where they are, each as it stood at one of its records. With `fence` the runs leave their store for the file:
 * they are fenced first, and gone when the file is complete and on the disk; whatever is cut off, the same call completes it.
 */
import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { openArtifact } from "../../artifacts/open.ts";
import { systemIds } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { ListedRun } from "../../kernel/query.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import type { Store } from "../../kernel/store.ts";
import { runsOfTree, type Place, recordsOf, rootOf, snapshotsOf } from "./carry.ts";
import { missing } from "../read.ts";
import { checkFree, pathOf, type PortableEntry, type PortableHeader, readPortable, writePortable } from "./portable.ts";
import { rowOf } from "../runs-of.ts";

export interface Exported {
  runIds: string[];
  records: number;
  artifacts: number;
}

/** @throws RUN_NOT_FOUND, RUN_PURGED, RUN_MOVED, MOVE_REFUSED, INVALID_OPTION (the file exists), ARTIFACT_MISSING, ARTIFACT_CORRUPT */
export async function exportRuns(
  place: Place,
  runIds: readonly string[],
  file: string,
  { fence = false }: { fence?: boolean } = {},
): Promise<Exported> {
  const { store } = place;
  const to = `file:${pathOf(file)}`;
  const trees: ListedRun[] = [];
  for (const rootId of await rootsOf(store, runIds)) trees.push(...(await runsOfTree(store, rootId)));
  const begun = fence ? trees.find(({ moving }) => moving?.phase === "leaving" && moving.to === to)?.moving?.token : undefined;
  for (const { runId, moving } of trees)
    if (moving && moving.token !== begun)
      throw new AbstractRuntimeError("RUN_MOVED", { runId, to: moving.to, phase: moving.phase });
  const ids = trees.map(({ runId }) => runId);
  const id = begun ?? systemIds.id();
  if (begun === undefined) checkFree(file);
  // Fenced once: what was taken back since has gone on, and is not what the file has.
  if (fence && begun === undefined) {
    const { refused } = await store.fence(ids, { token: id, to });
    if (refused[0]) throw new AbstractRuntimeError("MOVE_REFUSED", refused[0]);
  }
  const header = { id, kind: fence ? ("moved" as const) : ("copy" as const), from: store.name };
  const exported = await written(place, ids, file, header, begun !== undefined).catch(async (error: unknown) => {
    // What could not be written is nobody's but the store's. Where that cannot be said now, the same call goes on.
    if (fence && !existsSync(file)) await store.settle(id, "back").catch(() => undefined);
    throw error;
  });
  if (fence) await leave(store, id, ids, file);
  return exported;
}

/** @throws MOVE_REFUSED when the runs were taken back while the file was written: it is not they any more, and is removed. */
async function leave(store: Store, token: string, runIds: readonly string[], file: string): Promise<void> {
  const left = new Set(await store.settle(token, "left"));
  for (const runId of runIds) {
    if (left.has(runId)) continue;
    const run = await rowOf(store, runId);
    // It has left before, and may be purged since.
    if (!run || (run.moving?.token === token && run.moving.phase === "left")) continue;
    await rm(file, { force: true });
    throw new AbstractRuntimeError("MOVE_REFUSED", { runId, problem: "somebody took the export back meanwhile" });
  }
}

/** A file that the same export has completed before it was cut off is not written again. */
async function written(
  place: Place,
  runIds: readonly string[],
  file: string,
  header: Omit<PortableHeader, "portable">,
  mayStand: boolean,
): Promise<Exported> {
  const exported: Exported = { runIds: [...runIds], records: 0, artifacts: 0 };
  if (!mayStand || !existsSync(file)) {
    await writePortable(file, header, entriesOf(place, runIds, exported));
    return exported;
  }
  for await (const line of readPortable(file)) {
    if ("header" in line && line.header.id !== header.id) checkFree(file);
    if ("record" in line) exported.records += 1;
    if ("artifact" in line) exported.artifacts += 1;
  }
  return exported;
}

async function rootsOf(store: Store, runIds: readonly string[]): Promise<Set<string>> {
  const named = new Set(runIds);
  const roots = new Set<string>();
  for (const runId of named) {
    const run = await rowOf(store, runId);
    if (!run) throw await missing(store, runId);
    const { runId: rootId } = await rootOf(store, run);
    if (!named.has(rootId))
      throw new AbstractRuntimeError("MOVE_REFUSED", {
        runId,
        problem: `it was started by run ${rootId}, directly or through others: name that one, and all that it started goes with it`,
      });
    roots.add(rootId);
  }
  return roots;
}

/**
 * Counts what it gives.
 *
 * @param heads The last records of runs that must not have lived on. @throws MOVE_REFUSED
 */
export async function* entriesOf(
  { store, blobs = store.blobs }: Place,
  runIds: Iterable<string> | AsyncIterable<string>,
  exported: Pick<Exported, "records" | "artifacts">,
  heads?: ReadonlyMap<string, string>,
): AsyncGenerator<PortableEntry> {
  const given = new Set<string>();
  for await (const runId of runIds) {
    const copy = await store.copyOf(runId);
    if (!copy) throw await missing(store, runId);
    if ((heads?.get(runId) ?? copy.row.head) !== copy.row.head)
      throw new AbstractRuntimeError("MOVE_REFUSED", { runId, problem: "it was tried again while its tree was written" });
    for (const artifactId of copy.artifacts) {
      if (given.has(artifactId)) continue;
      given.add(artifactId);
      yield* artifactEntries({ store, blobs }, artifactId, runId);
      exported.artifacts += 1;
    }
    yield { copy };
    for await (const page of recordsOf(store, copy)) {
      for (const record of page) yield { record };
      exported.records += page.length;
    }
    yield* snapshotEntries(store, copy);
  }
}

/** So many bytes to a line; a multiple of three, so that Base64 has no padding inside. */
const bytesPerLine = 48 * 1024;

async function* artifactEntries(
  { store, blobs }: Required<Place>,
  artifactId: string,
  runId: string,
): AsyncGenerator<PortableEntry> {
  const artifact = await store.artifact(artifactId);
  if (!artifact) throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId, runId });
  const { runIds: _, ...row } = artifact;
  yield { artifact: row };
  let rest = Buffer.alloc(0);
  for await (const chunk of openArtifact(blobs, artifact).stream()) {
    rest = rest.length === 0 ? Buffer.from(chunk) : Buffer.concat([rest, chunk]);
    for (; rest.length >= bytesPerLine; rest = rest.subarray(bytesPerLine))
      yield { bytes: rest.subarray(0, bytesPerLine).toString("base64") };
  }
  if (rest.length > 0) yield { bytes: rest.toString("base64") };
}

/** Those that were made since may be of records that are not in the copy. */
async function* snapshotEntries(store: Store, { row }: RunCopy): AsyncGenerator<PortableEntry> {
  for (const snapshot of await snapshotsOf(store, row.runId)) if (snapshot.seq <= row.seq) yield { snapshot };
}
