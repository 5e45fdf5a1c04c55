/** Bookmarks of ours as snapshots of the Python package, which hold a whole state. */
import { join } from "node:path";
import { equalJson } from "../kernel/json.ts";
import { decodeRecord } from "../kernel/record.ts";
import type { RunState } from "../kernel/run.ts";
import type { SnapshotRow } from "../kernel/snapshot.ts";
import type { Store } from "../kernel/store.ts";
import type { ExportReport, ExportSource } from "./export.ts";
import { pythonRun } from "./export-run.ts";
import { fileTag } from "./import.ts";
import { snapshotOfTag } from "./import-snapshots.ts";
import { parsePythonJson } from "./parse.ts";
import { replaceFile } from "./replace-file.ts";
import type { PythonRun } from "./run-file.ts";
import { readSnapshot } from "./snapshot-file.ts";
import { fileText } from "./text.ts";
import { pythonTime } from "./time.ts";

/** Snapshots that Python had made of other states of the run: as they came. */
export async function exportHeldSnapshots(
  { store, artifacts }: ExportSource,
  runId: string,
  directory: string,
  report: ExportReport,
): Promise<void> {
  for (const mark of await snapshotsOf(store, { tag: snapshotOfTag(runId) })) {
    const [stored] = await store.records(mark.runId, 0, 1);
    const first = stored && decodeRecord(mark.runId, stored);
    if (first?.kind !== "run_restored" || first.data.origin.kind !== "python") continue;
    const text = await artifacts.loadText(String(first.data.origin.snapshot));
    if (text === null) continue;
    await replaceFile(join(directory, `snapshot_${mark.snapshotId}.json`), text);
    report.snapshots.push(mark.snapshotId);
  }
}

export async function snapshotsOf(store: Store, query: { runId: string } | { tag: string }): Promise<SnapshotRow[]> {
  const rows: SnapshotRow[] = [];
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page = await store.snapshots({ ...query, limit: 1_000, ...(cursor === undefined ? {} : { cursor }) });
    rows.push(...page.snapshots);
    cursor = page.next;
  }
  return rows;
}

/** The text that a snapshot of the run as it was imported came with, while it says the same. */
export async function textAsItCame({ artifacts }: ExportSource, mark: SnapshotRow): Promise<string | undefined> {
  if (mark.seq !== 0) return undefined;
  const file = (await artifacts.listByRun(mark.runId)).find(({ tags }) => tags[fileTag] === `snapshot_${mark.snapshotId}.json`);
  const text = file && (await artifacts.loadText(file.artifactId));
  if (!text) return undefined;
  const { name, description, tags } = readSnapshot(parsePythonJson(text));
  const isSame = name === mark.name && description === (mark.description ?? null) && equalJson([...new Set(tags)], mark.tags);
  return isSame ? text : undefined;
}

/** @throws Unusable */
export function snapshotText(mark: SnapshotRow, state: RunState, old: PythonRun | undefined): string {
  return fileText({
    snapshot_id: mark.snapshotId,
    run_id: mark.runId,
    step_id: null,
    name: mark.name,
    description: mark.description ?? null,
    tags: mark.tags,
    created_at: pythonTime(mark.createdAt),
    updated_at: pythonTime(mark.updatedAt),
    run_state: old && state.seq === 0 ? old : pythonRun(state, old, () => undefined),
  });
}
