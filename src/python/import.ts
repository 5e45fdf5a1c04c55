/**
 * Brings a directory of the Python package into a store of ours, where its runs go on.
 *
 * M1. A family (parents and children) comes in whole, in one commit. A run that is in the store already is left as it is, so that an
 *     import may be repeated.
 * M2. What was in the files is kept, byte for byte, as artifacts of the run: its first record names them and the head of the old
 *     chain.
 * M3. What cannot be used is reported, by file or by run, and hides nothing else.
 */
import { systemIds } from "../kernel/clock.ts";
import { beginRestored, type Begun } from "../kernel/begin.ts";
import { endMessage } from "../kernel/child.ts";
import { AbstractRuntimeError, checkOptions, invalidOption } from "../kernel/errors.ts";
import { defaultLimits } from "../kernel/execute.ts";
import { restoreRun } from "../kernel/restore.ts";
import type { JsonObject } from "../kernel/json.ts";
import type { ArtifactKeeper } from "../kernel/artifact.ts";
import { decodeRecord, type Origin, type ParentLink, sha256 } from "../kernel/record.ts";
import { isEnded, type RunStatus } from "../kernel/run.ts";
import type { Store } from "../kernel/store.ts";
import { type ArtifactIndex, artifactsOf, type ImportedArtifact, importArtifacts, indexOf } from "./import-artifacts.ts";
import { type ImportedSnapshot, importSnapshots } from "./import-snapshots.ts";
import { usingEach } from "./at-once.ts";
import { problemOf } from "./blame.ts";
import type { ChainReport } from "./chain.ts";
import { type PythonDirectory, type PythonProblem, readPythonDirectory } from "./directory.ts";
import type { PythonRun } from "./run-file.ts";
import { awaitedBy, families } from "./families.ts";
import { importedState, type ImportedState } from "./state.ts";

export interface ImportOptions {
  /** Only these runs, and their families, without snapshots. Default: all. */
  runIds?: readonly string[];
  /** The version of the workflows that the runs were made by; migrations lead from it. Default: "1". */
  version?: string;
}

export interface ImportedRun {
  runId: string;
  workflowId: string;
  status: RunStatus;
  /** `exists`: a run with this id is in the store, and was left as it is. */
  result: "imported" | "exists";
  /** Records in its old ledger that can be read. */
  records: number;
  /** The verdict on them; null when there is no ledger, or Python could not give one. */
  report: ChainReport | null;
  /** What is not as it was. */
  notes: string[];
}

export interface ImportReport {
  runs: ImportedRun[];
  artifacts: ImportedArtifact[];
  snapshots: ImportedSnapshot[];
  /** Files that could not be used, or not wholly. */
  problems: PythonProblem[];
}

/** The runs go on in a runtime that has their workflows, under the same ids, with the same names of nodes. */
export interface ImportTarget {
  readonly store: Store;
  readonly artifacts: ArtifactKeeper;
}

/** The tag that names the file which an artifact holds. */
export const fileTag = "python:file";

/** What stands beside the state in its record is shorter. */
const originBytes = 4_096;

/** Until the run is created that refers to them. */
const pinMs = 600_000;

/** @throws PYTHON_DIRECTORY_INVALID, INVALID_OPTION, and what the store rejects with. */
export async function importPython(
  { store, artifacts }: ImportTarget,
  directory: string,
  options: ImportOptions = {},
): Promise<ImportReport> {
  checkOptions(options, ["runIds", "version"], "importPython()");
  const { runIds, version = "1" } = options;
  if (typeof version !== "string") throw invalidOption("version", 'version is a text such as "1"');
  const found = await readPythonDirectory(directory);
  const { now } = await store.nextDue({ workerId: "import", fingerprint: "", workflows: [] });
  const report: ImportReport = { runs: [], artifacts: [], snapshots: [], problems: found.problems };
  for (const [runId, { records, report: verdict }] of found.ledgers) {
    if (found.runs.has(runId)) continue;
    const worth = verdict === null ? "cannot be verified" : verdict.ok ? "verify" : "do not verify";
    const problem = `there is no run that it could be of; its ${records.length} records ${worth}`;
    found.problems.push(invalid(`ledger_${runId}.jsonl`, problem));
  }
  for (const runId of runIds ?? []) {
    const isTold = found.runs.has(runId) || found.problems.some(({ file }) => file === `run_${runId}.json`);
    if (!isTold) found.problems.push(invalid(`run_${runId}.json`, "it is not there"));
  }
  report.artifacts = await importArtifacts(artifacts, found);
  const import_ = new Import(store, artifacts, found, indexOf(report.artifacts, found), version, now);
  const chosen = families(found).filter((family) => runIds === undefined || family.some((runId) => runIds.includes(runId)));
  for (const { runs, problems } of await usingEach(chosen, (family) => import_.family(family))) {
    report.runs.push(...runs);
    report.problems.push(...problems);
  }
  if (runIds === undefined)
    report.snapshots = await importSnapshots({ store, found, version, now, keep: (...file) => import_.keep(...file) });
  return report;
}

function invalid(file: string, problem: string): PythonProblem {
  return { file, code: "PYTHON_FILE_INVALID", problem };
}

interface Imported {
  runs: ImportedRun[];
  problems: PythonProblem[];
}

class Import {
  readonly #store: Store;
  readonly #artifacts: ArtifactKeeper;
  readonly #found: PythonDirectory;
  readonly #kept: ArtifactIndex;
  readonly #version: string;
  readonly #now: number;

  constructor(
    store: Store,
    artifacts: ArtifactKeeper,
    found: PythonDirectory,
    kept: ArtifactIndex,
    version: string,
    now: number,
  ) {
    this.#store = store;
    this.#artifacts = artifacts;
    this.#found = found;
    this.#kept = kept;
    this.#version = version;
    this.#now = now;
  }

  async family(runIds: readonly string[]): Promise<Imported> {
    const there = await this.#there(runIds);
    const unusable = new Map<string, string>();
    for (const runId of runIds) {
      // Once for the error alone: whoever waits for it has to know that it does not come.
      const problem = there.has(runId) ? undefined : this.#problemWith(runId);
      if (problem !== undefined) unusable.set(runId, problem);
    }
    const isThere = (runId: string): boolean => there.has(runId) || (runIds.includes(runId) && !unusable.has(runId));
    const begun: Begun[] = [];
    const usable = runIds.filter((runId) => !unusable.has(runId));
    const runs = await usingEach(usable, async (runId) => {
      const imported = this.#imported(runId, there.has(runId));
      if (there.has(runId)) imported.notes.push(...(await this.#difference(runId)));
      else begun.push(await this.#begin(runId, imported.notes, isThere));
      return imported;
    });
    const created = await this.#store.create(begun.map(({ state: _, ...run }) => run));
    for (const [i, { row }] of begun.entries()) {
      const run = created[i] ? undefined : runs.find(({ runId }) => runId === row.runId);
      if (!run) continue;
      run.result = "exists";
      if (await this.#store.tombstone(row.runId)) run.notes.push("it was here and has been purged: its id is not used again");
    }
    await this.#tellParents(usable);
    return { runs, problems: [...unusable].map(([runId, problem]) => invalid(`run_${runId}.json`, problem)) };
  }

  /** Of a family and those that it waits for: which are in the store. */
  async #there(runIds: readonly string[]): Promise<Set<string>> {
    const there = new Set<string>();
    const awaited = runIds.flatMap((runId) => awaitedBy(this.#found, runId) ?? []);
    for (const runId of new Set([...runIds, ...awaited])) if (await this.#store.load(runId)) there.add(runId);
    return there;
  }

  #problemWith(runId: string): string | undefined {
    try {
      const state = this.#state(
        runId,
        () => undefined,
        () => true,
      );
      const sizeBytes = Buffer.byteLength(JSON.stringify(state)) + originBytes;
      const limitBytes = defaultLimits.varsBytes;
      if (sizeBytes > limitBytes)
        throw new AbstractRuntimeError("TOO_LARGE", { what: `the vars of run ${runId}`, sizeBytes, limitBytes });
      return undefined;
    } catch (error) {
      return problemOf(error);
    }
  }

  /** Python tells nobody of a child's end. Told again, by an import that is repeated, it is a duplicate. */
  async #tellParents(runIds: readonly string[]): Promise<void> {
    for (const runId of runIds) {
      const { parent_run_id: parentId, status } = this.#run(runId);
      if (parentId === null || status === "running" || status === "waiting") continue;
      if (awaitedBy(this.#found, parentId) !== runId) continue;
      const loaded = await this.#store.load(runId);
      const end = loaded && isEnded(loaded.row) ? endMessage((await restoreRun(this.#store, loaded)).state) : undefined;
      if (end) await this.#store.deliver([end]);
    }
  }

  /** Why the run that is here may not be the one in the directory. */
  async #difference(runId: string): Promise<string[]> {
    const loaded = await this.#store.load(runId);
    if (loaded?.moving) return [`it has gone on to ${loaded.moving.to}, and what is left of it here was left as it is`];
    const [stored] = loaded?.archivedBefore ? [] : await this.#store.records(runId, 0, 1);
    const first = stored && decodeRecord(runId, stored);
    if (!first) return [];
    if (first.kind !== "run_restored" || first.data.origin.kind !== "python")
      return ["a run with this id is in the store that did not come from Python; it was left as it is"];
    const { text } = this.#found.runs.get(runId) as { text: string };
    if (first.data.origin.run === sha256(text)) return [];
    return ["the file is another one than that which was imported: it has gone on there, and the run here was left as it is"];
  }

  #run(runId: string): PythonRun {
    return (this.#found.runs.get(runId) as { run: PythonRun }).run;
  }

  #imported(runId: string, exists: boolean): ImportedRun {
    const { workflow_id: workflowId, status } = this.#run(runId);
    const ledger = this.#found.ledgers.get(runId);
    return {
      runId,
      workflowId,
      status,
      result: exists ? "exists" : "imported",
      records: ledger?.records.length ?? 0,
      report: ledger?.report ?? null,
      notes: [],
    };
  }

  /** @throws What is wrong with the run. */
  #state(runId: string, note: (problem: string) => void, isThere: (runId: string) => boolean): ImportedState {
    const run = this.#run(runId);
    const parent = this.#parentOf(run, note);
    return importedState(run, this.#found.ledgers.get(runId)?.records ?? [], {
      version: this.#version,
      ...(parent ? { parent } : {}),
      tells: (id) => isThere(id) && this.#tells(id, runId),
      run: (id) => this.#found.runs.get(id)?.run,
      now: this.#now,
      jsonDepth: defaultLimits.jsonDepth,
      note,
    });
  }

  async #begin(runId: string, notes: string[], isThere: (runId: string) => boolean): Promise<Begun> {
    const { text } = this.#found.runs.get(runId) as { text: string };
    const ledger = this.#found.ledgers.get(runId);
    const state = this.#state(runId, (problem) => notes.push(problem), isThere);
    const file = await this.keep(text, "application/json", `run_${runId}.json`);
    // The artifact of no bytes may be another one.
    const lines = ledger?.text && (await this.keep(ledger.bytes ?? ledger.text, "application/jsonl", `ledger_${runId}.jsonl`));
    const head = ledger?.records.at(-1)?.record_hash;
    const origin: Origin = {
      kind: "python",
      records: ledger?.records.length ?? 0,
      head: typeof head === "string" ? head : null,
      verified: ledger?.report?.ok ?? null,
      step: state.step,
      run: file,
      ...(lines ? { ledger: lines } : {}),
    };
    const plain = JSON.parse(JSON.stringify(state)) as JsonObject;
    const begun = beginRestored({ runId, state: plain, origin, now: this.#now }, systemIds, defaultLimits);
    const referred = artifactsOf(runId, plain, this.#kept);
    return { ...begun, artifacts: [...new Set([file, ...(lines ? [lines] : []), ...referred])] };
  }

  async keep(content: string | Uint8Array, contentType: string, name: string, runId?: string): Promise<string> {
    const options = { contentType, tags: { [fileTag]: name }, ...(runId === undefined ? {} : { runId }) };
    return (await this.#artifacts.putFor(content, options, pinMs)).id;
  }

  /** Whether a run tells another one of its end. Of one that is here and not in the directory, what was imported with it is believed. */
  #tells(childId: string, runId: string): boolean {
    const child = this.#found.runs.get(childId)?.run;
    return child === undefined || this.#parentOf(child, () => undefined)?.runId === runId;
  }

  /** The run that started it. It waits for this one, or has no interest in its end. */
  #parentOf({ run_id: runId, parent_run_id: parentId }: PythonRun, note: (problem: string) => void): ParentLink | undefined {
    if (parentId === null) return undefined;
    const parent = this.#found.runs.get(parentId)?.run;
    let depth = 1;
    const seen = new Set<string>();
    for (let above = parent; above && !seen.has(above.run_id); depth++) {
      seen.add(above.run_id);
      above = above.parent_run_id === null ? undefined : this.#found.runs.get(above.parent_run_id)?.run;
    }
    if (seen.has(runId) || parentId === runId) {
      note("it is said to be its own ancestor: here it has none");
      return undefined;
    }
    const isAwaited = awaitedBy(this.#found, parentId) === runId;
    return { runId: parentId, effectId: "0", depth: Math.max(1, depth - 1), ...(isAwaited ? {} : { detached: true }) };
  }
}
