/**
 * Writes runs as a directory that the Python package reads, verifies and goes on with.
 *
 * X1. The chain goes on from where it left off: behind the old lines, byte for byte, stand the records that were made here.
 * X2. What is in the directory already is never lost: a ledger there must be a beginning of the one to be written.
 * X3. A ledger is written before its run, each as a new file that takes the old one's place.
 * X4. A run that Python could not go on with is left out, and reported. It hides no other.
 */
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Artifacts } from "../artifacts/artifacts.ts";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { fold } from "../kernel/fold.ts";
import { decodeRecord } from "../kernel/record.ts";
import type { OpenEffect, RunState } from "../kernel/run.ts";
import type { Store } from "../kernel/store.ts";
import { usingEach } from "./at-once.ts";
import { problemOf } from "./blame.ts";
import { continueChain } from "./continue-chain.ts";
import { exportArtifacts } from "./export-artifacts.ts";
import { StepRecords } from "./export-records.ts";
import { pythonRun } from "./export-run.ts";
import { exportHeldSnapshots, snapshotsOf, snapshotText, textAsItCame } from "./export-snapshots.ts";
import { readLedger } from "./ledger-file.ts";
import { type OldFiles, oldFiles } from "./old-files.ts";
import { replaceFile } from "./replace-file.ts";
import type { PythonRun, PythonWait } from "./run-file.ts";
import { Unusable } from "./shape.ts";
import { fileText, type PythonJson, type PythonObject } from "./text.ts";

export interface ExportedRun {
  runId: string;
  status: PythonRun["status"];
  /** Lines of its ledger, and how many of them Python had written. */
  records: number;
  oldRecords: number;
  /** Hash of the last one; null when it has none. */
  head: PythonJson;
  /** What Python has no word for. */
  notes: string[];
}

export interface ExportReport {
  runs: ExportedRun[];
  /** Runs that were left out. */
  problems: { runId: string; problem: string }[];
  snapshots: string[];
  /** Ids as they stand in the directory. */
  artifacts: string[];
}

export interface ExportSource {
  readonly store: Store;
  readonly artifacts: Artifacts;
}

/**
 * Exports runs with all their descendants. Nothing is changed here: whoever lets Python go on with a run should not let it go on here.
 *
 * @throws RUN_NOT_FOUND before anything is written; PYTHON_DIRECTORY_INVALID when the directory cannot be written.
 */
export async function exportPython(source: ExportSource, runIds: readonly string[], directory: string): Promise<ExportReport> {
  const family = await withDescendants(source.store, runIds);
  const report: ExportReport = { runs: [], problems: [], snapshots: [], artifacts: [] };
  try {
    await mkdir(directory, { recursive: true });
    for (const part of await usingEach(family, (runId) => exportRun(source, runId, directory))) {
      report.runs.push(...part.runs);
      report.problems.push(...part.problems);
      report.snapshots.push(...part.snapshots);
    }
    for (const { runId } of report.runs) await exportHeldSnapshots(source, runId, directory, report);
    report.artifacts = await exportArtifacts(
      source,
      report.runs.map(({ runId }) => runId),
      directory,
    );
  } catch (error) {
    if ((error as NodeJS.ErrnoException).syscall === undefined) throw error;
    const problem = (error as Error).message;
    throw new AbstractRuntimeError("PYTHON_DIRECTORY_INVALID", { directory, problem }, error);
  }
  return report;
}

async function withDescendants(store: Store, runIds: readonly string[]): Promise<string[]> {
  const family = new Set(runIds);
  for (const runId of family) if (!(await store.load(runId))) throw new AbstractRuntimeError("RUN_NOT_FOUND", { runId });
  // It grows while it is walked.
  for (const parentRunId of family) {
    for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
      const page = await store.query({ parentRunId, limit: 1_000, ...(cursor === undefined ? {} : { cursor }) });
      for (const { runId } of page.runs) family.add(runId);
      cursor = page.next;
    }
  }
  return [...family];
}

type Part = Pick<ExportReport, "runs" | "problems" | "snapshots">;

async function exportRun(source: ExportSource, runId: string, directory: string): Promise<Part> {
  const part: Part = { runs: [], problems: [], snapshots: [] };
  try {
    if (!isNamePart(runId)) throw new Unusable("its id cannot be part of a file's name");
    const exported = await translate(source, runId);
    const ledgerPath = join(directory, `ledger_${runId}.jsonl`);
    await checkBegins(ledgerPath, exported);
    if (exported.ledger !== "") await replaceFile(ledgerPath, exported.ledger);
    await replaceFile(join(directory, `run_${runId}.json`), exported.runText);
    for (const [snapshotId, text] of exported.snapshots) {
      await replaceFile(join(directory, `snapshot_${snapshotId}.json`), text);
      part.snapshots.push(snapshotId);
    }
    part.runs.push(exported.run);
  } catch (error) {
    const isTooLong = (error as NodeJS.ErrnoException).code === "ENAMETOOLONG";
    part.problems.push({ runId, problem: isTooLong ? "its id is too long for a file's name" : problemOf(error) });
  }
  return part;
}

/** Ids are whatever their makers chose: none may lead out of the directory. */
function isNamePart(id: string): boolean {
  return !/[/\\\0]/.test(id);
}

interface Translated {
  run: ExportedRun;
  ledger: string;
  /** As it was imported. */
  oldLedger: string;
  runText: string;
  snapshots: Map<string, string>;
}

/** @throws Unusable, and what reading the run rejects with. */
async function translate(source: ExportSource, runId: string): Promise<Translated> {
  const { store, artifacts } = source;
  const notes: string[] = [];
  const marks = await snapshotsOf(store, { runId });
  const snapshots = new Map<string, string>();
  let old: OldFiles | undefined;
  let records = new StepRecords();
  let state: RunState | undefined;
  for (let next = 0, more = true; more; ) {
    const page = await store.records(runId, next, 1_000);
    for (const stored of page) {
      const record = decodeRecord(runId, stored);
      const effect = record.effectId === undefined ? undefined : copied(state?.open.get(record.effectId));
      state = fold(state, record);
      if (record.kind === "run_restored" && record.data.origin.kind === "python") {
        old = await oldFiles(artifacts, record.data.origin);
        const waiting = old.ledger?.records.findLast(({ status }) => status === "waiting");
        const [parked] = state.open.keys();
        if (waiting && parked !== undefined) records = new StepRecords({ effectId: parked, record: waiting });
      } else records.add(record, effect, state);
      for (const mark of marks.filter(({ seq }) => seq === record.seq)) {
        try {
          if (!isNamePart(mark.snapshotId)) throw new Unusable("its id cannot be part of a file's name");
          snapshots.set(mark.snapshotId, (old && (await textAsItCame(source, mark))) ?? snapshotText(mark, state, old?.run));
        } catch (error) {
          notes.push(`snapshot ${mark.snapshotId} is left out: ${problemOf(error)}`);
        }
      }
    }
    next += page.length;
    more = page.length === 1_000;
  }
  if (!state) throw new Unusable("it has no records");
  const { text, head, count, oldCount } = continueChain(old?.ledger ?? readLedger(""), records.all as PythonObject[], notes);
  const run = pythonRun(state, old?.run, (problem) => notes.push(problem));
  // Ends of children stand in the children's files.
  const sent = (await store.load(runId))?.mail.filter(({ kind }) => kind !== "child_end").length;
  if (sent) notes.push(`${sent} messages were sent to it that it has not taken yet: Python does not get them`);
  if (run.waiting?.reason === "subworkflow") await addChildsWait(store, run.waiting);
  return {
    run: { runId, status: run.status, records: count, oldRecords: oldCount, head, notes },
    ledger: text,
    oldLedger: old?.ledger?.text ?? "",
    // A run that has not moved is what it was, to the last character.
    runText: old && state.seq === 0 ? old.text : fileText(run),
    snapshots,
  };
}

/** What the awaited child waits for, where it does. */
async function addChildsWait(store: Store, { details }: PythonWait): Promise<void> {
  const subRunId = details?.sub_run_id;
  if (!details || typeof subRunId !== "string" || details.sub_waiting !== null) return;
  const child = (await store.query({ idPrefix: subRunId, limit: 1 })).runs.find(({ runId }) => runId === subRunId);
  const [wait] = child?.waits ?? [];
  if (wait) details.sub_waiting = { reason: wait.reason, wait_key: wait.waitKey };
}

/** Folding changes what is open in place. */
function copied(effect: OpenEffect | undefined): OpenEffect | undefined {
  return effect && { ...effect, ...(effect.results ? { results: [...effect.results] } : {}) };
}

/** @throws Unusable */
async function checkBegins(path: string, { ledger, oldLedger }: Translated): Promise<void> {
  let there: string;
  try {
    there = await readFile(path, "utf8");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  // What it brought along may end in a line that nobody can read.
  if (!ledger.startsWith(there) && there !== oldLedger)
    throw new Unusable(`${path} holds records that this run does not have; it was left as it is`);
}
