/**
 * Runs out of a file into a store. They arrive as a move does: nothing of them counts before the whole file was read, its checksum
 * compared, and every run rebuilt from its ledger. An import that was cut off is completed by the same call, or taken back.
 */
import { basename } from "node:path";
import { AbstractRuntimeError, isError } from "../../kernel/errors.ts";
import { type StoredRecord, sha256 } from "../../kernel/record.ts";
import { isEnded } from "../../kernel/run.ts";
import type { ArtifactRow } from "../../kernel/artifact-row.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import type { SnapshotRow } from "../../kernel/snapshot.ts";
import type { Store } from "../../kernel/store.ts";
import { ArtifactArrival, checkArrived, isOutage, type Place, saveSnapshots } from "./carry.ts";
import { type PortableEntry, type PortableHeader, readPortable } from "./portable.ts";
import { rowOf } from "../runs-of.ts";

export interface Imported {
  runIds: string[];
  records: number;
  artifacts: number;
}

/**
 * @throws PORTABLE_INVALID, FORMAT_NEWER, RUN_EXISTS, RUN_PURGED (the file holds an older state), MOVE_REFUSED (a run that was live and
 *   is where it was, or whose ledger does not verify): nothing of the file is there then.
 */
export async function importRuns(place: Place, file: string): Promise<Imported> {
  const lines = readPortable(file);
  try {
    return await importLines(place, file, lines);
  } finally {
    // Where it was given up in the middle, the file is still open.
    await lines.return(undefined);
  }
}

async function importLines(place: Place, file: string, lines: ReturnType<typeof readPortable>): Promise<Imported> {
  const { store } = place;
  const { value: first } = await lines.next();
  if (!first || !("header" in first))
    throw new AbstractRuntimeError("PORTABLE_INVALID", { file, problem: "it has no first line" });
  const arrival = new Arrival(place, first.header, file);
  try {
    await arrival.take(lines as AsyncGenerator<PortableEntry>);
    for (const copy of arrival.copies) await checkArrived(store, copy);
  } catch (error) {
    // A store that cannot be reached takes nothing back either. What else it may be says nothing of the store.
    const back = store.settle(arrival.token, "back");
    await (isOutage(error) ? back.catch(() => undefined) : back);
    throw error;
  }
  await saveSnapshots(store, arrival.snapshots);
  await store.settle(arrival.token, "here");
  const { copies, records, artifacts } = arrival;
  for (const { row } of copies) await checkHere(store, row.runId);
  return { runIds: copies.map(({ row }) => row.runId), records, artifacts };
}

/** @throws MOVE_REFUSED when another import of the same file, at the same time, has taken back what it thought its own. */
async function checkHere(store: Store, runId: string): Promise<void> {
  const run = await rowOf(store, runId);
  if (run ? run.moving?.phase !== "arriving" : await store.tombstone(runId)) return;
  throw new AbstractRuntimeError("MOVE_REFUSED", { runId, problem: "another import of the same file took it back meanwhile" });
}

/** Records that are stored at once. */
const batchRecords = 500;
const batchBytes = 1024 * 1024;

class Arrival {
  readonly token: string;
  readonly copies: Head[] = [];
  readonly snapshots: SnapshotRow[] = [];
  records = 0;
  artifacts = 0;
  readonly #store: Store;
  readonly #artifacts: ArtifactArrival;
  readonly #header: PortableHeader;
  readonly #file: string;
  #batch: StoredRecord[] = [];
  #bytes = 0;

  constructor(place: Place, header: PortableHeader, file: string) {
    this.token = `import:${header.id}`;
    this.#store = place.store;
    this.#artifacts = new ArtifactArrival(place);
    this.#header = header;
    this.#file = file;
  }

  async take(entries: AsyncGenerator<PortableEntry>): Promise<void> {
    if (this.#header.kind === "ledger") throw this.#refuse("it holds the older part of a ledger, and no run");
    let ahead = await entries.next();
    while (!ahead.done) {
      const entry = ahead.value;
      if ("artifact" in entry) {
        ahead = await this.#artifact(entry.artifact, entries);
        continue;
      }
      if ("copy" in entry) await this.#copy(entry.copy);
      else if ("record" in entry) await this.#record(entry.record);
      else if ("snapshot" in entry) this.#snapshot(entry.snapshot);
      else throw this.#refuse("it has bytes that belong to no artifact");
      ahead = await entries.next();
    }
    await this.#flush();
  }

  /** Answers the line behind its bytes. */
  async #artifact(artifact: ArtifactRow, entries: AsyncGenerator<PortableEntry>): Promise<IteratorResult<PortableEntry>> {
    let ahead = await entries.next();
    const bytes = async function* (): AsyncGenerator<Uint8Array> {
      for (; !ahead.done && "bytes" in ahead.value; ahead = await entries.next()) yield Buffer.from(ahead.value.bytes, "base64");
    };
    if (await this.#artifacts.has(artifact)) for await (const _ of bytes());
    else if (!(await this.#artifacts.put(artifact, bytes())))
      throw this.#refuse(`the bytes of artifact ${artifact.id} are not those that were put`);
    this.artifacts += 1;
    return ahead;
  }

  async #copy(copy: RunCopy): Promise<void> {
    await this.#flush();
    const { runId, seq, head, wakeAt } = copy.row;
    const problem = misfitOf(copy);
    if (problem !== undefined) throw this.#refuse(`of run ${runId}, ${problem}`);
    const isLive = !isEnded(copy.row) || (copy.row.status === "failed" && wakeAt !== null);
    if (isLive && this.#header.kind === "copy")
      throw new AbstractRuntimeError("MOVE_REFUSED", {
        runId,
        problem: `${this.#file} holds a copy of it, and it itself lives in ${this.#header.from}: what it does next would be done twice. Move it, or export it with --fence`,
      });
    await this.#store.adopt(copy, { token: this.token, to: `file:${basename(this.#file)}` });
    this.copies.push({ row: { runId, seq, head } });
  }

  async #record(record: StoredRecord): Promise<void> {
    if (this.copies.length === 0) throw this.#refuse("it has a record that belongs to no run");
    if (sha256(record.header) !== record.hash) throw this.#refuse(`the hash of record ${record.seq} is not that of its header`);
    this.records += 1;
    this.#batch.push(record);
    this.#bytes += record.header.length + (record.body?.length ?? 0);
    if (this.#batch.length >= batchRecords || this.#bytes >= batchBytes) await this.#flush();
  }

  async #flush(): Promise<void> {
    const { row } = this.copies.at(-1) ?? {};
    if (!row || this.#batch.length === 0) return;
    try {
      await this.#store.adoptRecords(row.runId, this.token, this.#batch);
    } catch (error) {
      throw isError(error, "CONFLICT") ? this.#refuse(`of run ${row.runId}, ${error.fields.problem}`, error) : error;
    }
    this.#batch = [];
    this.#bytes = 0;
  }

  #snapshot(snapshot: SnapshotRow): void {
    const of = this.copies.find(({ row }) => row.runId === snapshot.runId);
    if (!of || snapshot.seq > of.row.seq) throw this.#refuse(`snapshot ${snapshot.snapshotId} belongs to no run in it`);
    this.snapshots.push(snapshot);
  }

  #refuse(problem: string, cause?: unknown): AbstractRuntimeError {
    return new AbstractRuntimeError("PORTABLE_INVALID", { file: this.#file, problem }, cause);
  }
}

/** What no run can have. A store would take it for something else, or for a failure of its own. */
function misfitOf({ row: { seq }, checkpoints, archivedBefore = 0, letters, waits }: RunCopy): string | undefined {
  if (archivedBefore > seq) return "more records are archived than there were";
  const isOutside = checkpoints.some((checkpoint) => checkpoint.seq > seq || checkpoint.seq < archivedBefore - 1);
  if (isOutside) return "a checkpoint stands where it has no record";
  const twice: unknown[][] = [
    checkpoints.map((one) => one.seq),
    letters.map(({ id }) => id),
    waits.map(({ effectId }) => effectId),
  ];
  if (twice.some((names) => new Set(names).size < names.length)) return "a name stands for two things";
  return letters.every(({ payload }) => canBeWritten(payload)) ? undefined : "a message has values too deep to be stored";
}

function canBeWritten(value: unknown): boolean {
  try {
    JSON.stringify(value);
    return true;
  } catch {
    return false;
  }
}

/** What is kept of a run that arrives. */
interface Head {
  row: Pick<RunCopy["row"], "runId" | "seq" | "head">;
}
