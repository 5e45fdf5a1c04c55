/** What runs are carried in, from store to store and into files: pages of records, artifacts with their bytes, and a last look. */
import { Artifacts, pinMs } from "../../artifacts/artifacts.ts";
import { type Ids, systemIds } from "../../kernel/clock.ts";
import { AbstractRuntimeError, isError } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { ArtifactRow, BlobStore } from "../../kernel/artifact-row.ts";
import type { ListedRun } from "../../kernel/query.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import type { SnapshotRow } from "../../kernel/snapshot.ts";
import type { Store } from "../../kernel/store.ts";
import { runsOf } from "../runs-of.ts";
import { rowOf } from "../runs-of.ts";
import { verifyRun } from "../verify.ts";

/** A store, and where its artifacts have their bytes. */
export interface Place {
  store: Store;
  /** Default: those of the store. */
  blobs?: BlobStore;
}

const largestPage = 1_000;
const pageBytes = 1024 * 1024;

/** The records of a copy, in pages of about a mebibyte. @throws RECORD_CORRUPT when one is missing; RECORDS_ARCHIVED when they go meanwhile. */
export async function* recordsOf(
  store: Pick<Store, "records">,
  copy: Pick<RunCopy, "row" | "archivedBefore">,
): AsyncGenerator<StoredRecord[]> {
  const { runId, seq: last } = copy.row;
  let limit = 16;
  for (let seq = copy.archivedBefore ?? 0; seq <= last; ) {
    const page = await store.records(runId, seq, Math.min(limit, last + 1 - seq));
    if (page[0]?.seq !== seq) throw new AbstractRuntimeError("RECORD_CORRUPT", { runId, seq, problem: "it is missing" });
    yield page;
    seq += page.length;
    const bytes = page.reduce((sum, { header, body }) => sum + header.length + (body?.length ?? 0), 0);
    limit = Math.max(1, Math.min(largestPage, Math.floor((pageBytes / bytes) * page.length)));
  }
}

/** A run with all that it started, directly or through its children: itself first, parents before children. */
export async function runsOfTree(store: Store, rootId: string): Promise<ListedRun[]> {
  const root = await rowOf(store, rootId);
  const tree = root ? [root] : [];
  for (const { runId } of tree)
    for await (const child of runsOf(store, { parentRunId: runId, order: "oldest" })) tree.push(child);
  return tree;
}

/** The run that a run was started by, directly or through others, of those that this store has and that have not left it. */
export async function rootOf(store: Store, run: ListedRun): Promise<ListedRun> {
  const parent = run.parentRunId === undefined ? undefined : await rowOf(store, run.parentRunId);
  return parent && parent.moving?.phase !== "left" ? rootOf(store, parent) : run;
}

export async function snapshotsOf(store: Store, runId: string): Promise<SnapshotRow[]> {
  const found: SnapshotRow[] = [];
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page = await store.snapshots({ runId, ...(cursor === undefined ? {} : { cursor }) });
    found.push(...page.snapshots);
    cursor = page.next;
  }
  return found;
}

/** A snapshot whose id stands for one of another run gets another id. */
export async function saveSnapshots(store: Store, snapshots: readonly SnapshotRow[]): Promise<void> {
  for (const snapshot of snapshots) {
    const { snapshotId, runId } = snapshot;
    const known = await store.snapshot(snapshotId);
    const isTaken = known !== undefined && known.runId !== runId;
    await store.saveSnapshot(isTaken ? { ...snapshot, snapshotId: `${snapshotId} of ${runId}` } : snapshot);
  }
}

/** Where artifacts arrive. They are kept for a day, in which the runs that refer to them arrive. */
export class ArtifactArrival {
  readonly #store: Store;
  readonly #artifacts: Artifacts;

  constructor({ store, blobs = store.blobs }: Place, ids: Ids = systemIds) {
    this.#store = store;
    const quiet = { report: () => undefined, checkRunning: () => undefined };
    this.#artifacts = new Artifacts({ store, blobs, ids, now: () => Date.now(), jsonDepth: 200, ...quiet });
  }

  /** Whether it is known here, and thereby kept. */
  async has({ id, tags }: Pick<ArtifactRow, "id" | "tags">): Promise<boolean> {
    const known = await this.#store.keepArtifact(id, { pinMs });
    if (known) await this.#tag(known, tags);
    return known !== undefined;
  }

  /** Answers whether the bytes are those of the artifact. Others are not made known under its id. */
  async put({ id, contentType, tags }: ArtifactRow, bytes: AsyncIterable<Uint8Array>): Promise<boolean> {
    const put = await this.#artifacts.putFor(bytes, { contentType }, pinMs);
    if (put.id === id) await this.#tag(put, tags);
    return put.id === id;
  }

  /** Several puts may have given it more tags than one put can. */
  async #tag(known: ArtifactRow, tags: ArtifactRow["tags"]): Promise<void> {
    if (Object.keys(tags).length > 0) await this.#store.putArtifact({ ...known, tags }, { pinMs });
  }
}

/** A run that has arrived is what it was there, and its ledger proves it. @throws MOVE_REFUSED */
export async function checkArrived(
  store: Store,
  { row: { runId, seq, head } }: { row: Pick<RunCopy["row"], "runId" | "seq" | "head"> },
): Promise<void> {
  const verification = await verifyRun(store, runId);
  const problem =
    verification === undefined
      ? "it is not there"
      : (verification.problems[0]?.problem ?? (verification.head === head ? undefined : "its last record is another one"));
  if (problem === undefined) return;
  const at = verification?.problems[0]?.seq;
  throw new AbstractRuntimeError("MOVE_REFUSED", {
    runId,
    problem: `its ledger does not verify${at === undefined ? "" : ` at record ${at}`} (of ${seq + 1}): ${problem}`,
  });
}

/** What is thrown when a store cannot be asked at present: whoever asks again goes on from where it stands. */
export function isOutage(error: unknown): boolean {
  return !isError(error) || error.code.startsWith("STORE_");
}
