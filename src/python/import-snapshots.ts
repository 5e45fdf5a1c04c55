/**
 * Snapshots of the Python package. One is a whole state there and a bookmark here, so each is given a run to mark: the imported one,
 * where that is in the same state, and otherwise a run that holds the state and is never driven.
 *
 * N1. A holder is paused when it is created and cancelled at once: whatever happens in between, nobody drives it. The snapshot marks
 *     its first record, and what is restored from there is neither paused nor cancelled.
 */
import { beginRestored, type Begun } from "../kernel/begin.ts";
import { systemIds } from "../kernel/clock.ts";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { defaultLimits } from "../kernel/execute.ts";
import { fold } from "../kernel/fold.ts";
import { restore } from "../kernel/restore.ts";
import type { JsonObject } from "../kernel/json.ts";
import { decodeRecord, encodeRecord } from "../kernel/record.ts";
import { fromPlain, isEnded, rowOf, statusOf } from "../kernel/run.ts";
import type { SnapshotRow } from "../kernel/snapshot.ts";
import type { Store } from "../kernel/store.ts";
import { problemOf } from "./blame.ts";
import type { PythonDirectory } from "./directory.ts";
import type { PythonSnapshot } from "./snapshot-file.ts";
import { importedState } from "./state.ts";
import { canonicalJson } from "./text.ts";
import { momentOf } from "./time.ts";

export interface ImportedSnapshot {
  snapshotId: string;
  /** As in Python. */
  runId: string;
  result: "imported" | "exists";
  notes: string[];
}

/** The tag of a snapshot whose run, under this id, is not in the state that it marks. */
export function snapshotOfTag(runId: string): string {
  return `run:${runId}`;
}

interface SnapshotImport {
  store: Store;
  found: PythonDirectory;
  version: string;
  now: number;
  /** Keeps the text of a file, with `runId` for as long as the run, and answers the artifact's id. */
  keep(text: string, contentType: string, name: string, runId?: string): Promise<string>;
}

export async function importSnapshots(host: SnapshotImport): Promise<ImportedSnapshot[]> {
  const imported: ImportedSnapshot[] = [];
  for (const [snapshotId, { snapshot, text }] of host.found.snapshots) {
    const file = `snapshot_${snapshotId}.json`;
    try {
      const notes: string[] = [];
      const exists = (await host.store.snapshot(snapshotId)) !== undefined;
      if (!exists) await importSnapshot(host, snapshot, text, file, notes);
      imported.push({ snapshotId, runId: snapshot.run_id, result: exists ? "exists" : "imported", notes });
    } catch (error) {
      host.found.problems.push({ file, code: "PYTHON_FILE_INVALID", problem: problemOf(error) });
    }
  }
  return imported;
}

async function importSnapshot(
  host: SnapshotImport,
  snapshot: PythonSnapshot,
  text: string,
  file: string,
  notes: string[],
): Promise<void> {
  const same = await sameRun(host, snapshot);
  if (same) await host.keep(text, "application/json", file, same.runId);
  const marked = same ?? (await holder(host, snapshot, text, file, notes));
  const createdAt = momentOf(snapshot.created_at ?? "") ?? host.now;
  await host.store.saveSnapshot({
    ...marked,
    snapshotId: snapshot.snapshot_id,
    name: snapshot.name,
    ...(snapshot.description === null ? {} : { description: snapshot.description }),
    tags: [...new Set([...snapshot.tags, ...(marked.runId === snapshot.run_id ? [] : [snapshotOfTag(snapshot.run_id)])])],
    createdAt,
    updatedAt: momentOf(snapshot.updated_at ?? "") ?? createdAt,
  });
}

type Marked = Pick<SnapshotRow, "runId" | "workflowId" | "version" | "seq" | "hash" | "node" | "status">;

/** The run itself, where it was imported in this very state. */
async function sameRun(
  { store, found }: SnapshotImport,
  { run_id: runId, run_state }: PythonSnapshot,
): Promise<Marked | undefined> {
  const run = found.runs.get(runId);
  if (!run || canonicalJson(run.run) !== canonicalJson(run_state)) return undefined;
  const [stored] = await store.records(runId, 0, 1);
  const first = stored && decodeRecord(runId, stored);
  if (first?.kind !== "run_restored" || first.data.origin.kind !== "python") return undefined;
  return markedAt(runId, first.hash, first.data.state, first.at);
}

function markedAt(runId: string, hash: string, state: JsonObject, at: number): Marked {
  const restored = fromPlain(state, { runId, seq: 0, head: hash, updatedAt: at });
  const { workflowId, version, node } = restored;
  return { runId, workflowId, version, seq: 0, hash, node, status: statusOf(restored) };
}

async function holder(
  host: SnapshotImport,
  snapshot: PythonSnapshot,
  text: string,
  file: string,
  notes: string[],
): Promise<Marked> {
  const { store, version, now } = host;
  const state = importedState(snapshot.run_state, [], {
    version,
    tells: () => true,
    run: () => undefined,
    now,
    jsonDepth: defaultLimits.jsonDepth,
    note: (problem) => notes.push(problem),
  });
  const runId = `snapshot-${snapshot.snapshot_id}`;
  const kept = await host.keep(text, "application/json", file);
  const plain = JSON.parse(JSON.stringify({ ...state, paused: true })) as JsonObject;
  const origin = { kind: "python" as const, records: 0, head: null, snapshot: kept, step: state.step };
  const begun = beginRestored({ runId, state: plain, origin, now }, systemIds, defaultLimits);
  await hold(store, begun, kept, now);
  const [stored] = await store.records(runId, 0, 1);
  // Of an import that was cut off, it is the one made then.
  const first = stored && decodeRecord(runId, stored);
  if (first?.kind !== "run_restored") throw new Error(`run ${runId} is something else`);
  return markedAt(runId, first.hash, first.data.state, first.at);
}

/** Long enough for two calls, short enough for whoever imports again when they were cut off in between. */
const leaseMs = 5_000;

/** @throws RUN_BUSY when an import of the same snapshot was cut off a moment ago. */
async function hold(store: Store, { state, ...run }: Begun, kept: string, now: number): Promise<void> {
  const { runId } = state;
  // Without its waits: nothing that is sent to the real run should find this one.
  await store.create([{ ...run, waits: [], artifacts: [kept] }]);
  const standing = await store.load(runId);
  if (!standing || isEnded(standing.row)) return;
  const workerId = systemIds.id();
  await store.renew(workerId, leaseMs);
  try {
    const [loaded] = await store.claim({ workerId, fingerprint: "", workflows: [] }, { limit: 1, runId });
    if (!loaded?.lease) throw new AbstractRuntimeError("RUN_BUSY", { runId, workerId: standing.lease?.workerId ?? "unknown" });
    const { state: restored } = restore(runId, loaded);
    const place = { runId, seq: 1, prev: restored.head, at: now, step: restored.step, node: restored.node };
    const draft = { kind: "run_cancelled" as const, data: { reason: "it only holds a snapshot" } };
    const { record, stored } = encodeRecord(draft, place, systemIds.salt());
    const row = rowOf(fold(restored, record));
    const nothing = { take: [], send: [], start: [], release: true, mailSeen: 0 };
    await store.commit([{ runId, lease: loaded.lease, after: 0, records: [stored], row, ...nothing }]);
  } finally {
    await store.retire(workerId);
  }
}
