/**
 * Reads a directory that the Python package wrote. One file that cannot be used never hides the others: it becomes an entry among
 * the problems, with its name.
 *
 * D1. Nothing outside the directory is read: a symbolic link is refused, and so is whatever is no plain file.
 * D2. A file counts for the id in its name; one that says another id inside is refused.
 */
import { constants } from "node:fs";
import { type FileHandle, lstat, open, readdir } from "node:fs/promises";
import { join } from "node:path";
import { AbstractRuntimeError } from "../kernel/errors.ts";
import { isArtifactId, type PythonArtifactMetadata, readArtifactMetadata } from "./artifact-file.ts";
import { type PythonLedger, readLedger } from "./ledger-file.ts";
import { parsePythonJson } from "./parse.ts";
import { type PythonRun, readRun } from "./run-file.ts";
import { Unusable } from "./shape.ts";
import { type PythonSnapshot, readSnapshot } from "./snapshot-file.ts";

export interface PythonProblem {
  /** Relative to the directory. */
  file: string;
  /** In a ledger: which line, from 1. */
  line?: number;
  code: "PYTHON_FILE_INVALID";
  problem: string;
}

export interface PythonArtifact {
  metadata: PythonArtifactMetadata;
  /** Of its bytes, which are not read here. */
  path: string;
}

export interface PythonDirectory {
  directory: string;
  /** With the exact text of each file. By run id, in the order of the file names. */
  runs: Map<string, { run: PythonRun; text: string }>;
  /** By run id; also of runs whose own file is missing or cannot be used. */
  ledgers: Map<string, PythonLedger>;
  snapshots: Map<string, { snapshot: PythonSnapshot; text: string }>;
  artifacts: Map<string, PythonArtifact>;
  problems: PythonProblem[];
}

/** @throws PYTHON_DIRECTORY_INVALID when there is no such directory, or it may not be read. */
export async function readPythonDirectory(directory: string): Promise<PythonDirectory> {
  const found: PythonDirectory = {
    directory,
    runs: new Map(),
    ledgers: new Map(),
    snapshots: new Map(),
    artifacts: new Map(),
    problems: [],
  };
  const report = (file: string, problem: string, line?: number): void => {
    found.problems.push({ file, ...(line === undefined ? {} : { line }), code: "PYTHON_FILE_INVALID", problem });
  };
  /** @param use Takes what the file holds, or throws. */
  const readBytes = async (file: string, use: (bytes: Uint8Array) => void): Promise<void> => {
    try {
      use(await contentOf(join(directory, file)));
    } catch (error) {
      report(file, problemOf(error));
    }
  };
  const read = (file: string, use: (text: string) => void): Promise<void> =>
    readBytes(file, (bytes) => use(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)));

  for (const name of await namesIn(directory)) {
    const { kind, id } = kindOf(name);
    if (kind === "run") {
      await read(name, (text) => {
        const run = readRun(parsePythonJson(text));
        checkId(run.run_id, id);
        found.runs.set(id, { run, text });
      });
    } else if (kind === "ledger") {
      await readBytes(name, (bytes) => {
        const ledger = readLedger(bytes);
        found.ledgers.set(id, ledger);
        for (const { line, problem } of ledger.problems) report(name, problem, line === 0 ? undefined : line);
        const stranger = ledger.records.find((record) => record.run_id !== id);
        if (stranger) report(name, `it holds a record of another run: ${String(stranger.run_id).slice(0, 100)}`);
      });
    } else if (kind === "snapshot") {
      await read(name, (text) => {
        const snapshot = readSnapshot(parsePythonJson(text));
        checkId(snapshot.snapshot_id, id);
        found.snapshots.set(id, { snapshot, text });
      });
    } else if (name === "artifacts") await readArtifacts(found, report, read);
  }
  return found;
}

async function readArtifacts(
  { directory, artifacts }: PythonDirectory,
  report: (file: string, problem: string) => void,
  read: (file: string, use: (text: string) => void) => Promise<void>,
): Promise<void> {
  const folder = join(directory, "artifacts");
  let names: Set<string>;
  try {
    const stat = await lstat(folder);
    if (stat.isSymbolicLink()) throw new Unusable(isLink);
    if (!stat.isDirectory()) throw new Unusable("it is no directory");
    names = new Set((await readdir(folder)).sort());
  } catch (error) {
    return report("artifacts", problemOf(error));
  }
  for (const name of names) {
    const [, id, kind] = /^(.*)\.(bin|meta)$/s.exec(name) ?? [];
    if (id === undefined) continue;
    const file = `artifacts/${name}`;
    if (!isArtifactId(id)) report(file, "its name is no id of an artifact");
    else if (kind === "bin") {
      if (!names.has(`${id}.meta`)) report(file, "its metadata (.meta) are missing");
    } else if (!names.has(`${id}.bin`)) report(file, "its bytes (.bin) are missing");
    else {
      const path = join(folder, `${id}.bin`);
      await read(file, (text) => {
        const metadata = readArtifactMetadata(parsePythonJson(text));
        checkId(metadata.artifact_id, id);
        artifacts.set(id, { metadata, path });
      });
      const sizeBytes = await sizeOf(path).catch((error: unknown) => problemOf(error));
      const declared = artifacts.get(id)?.metadata.size_bytes;
      const problem =
        typeof sizeBytes === "string"
          ? sizeBytes
          : declared !== undefined && declared !== sizeBytes
            ? `it has ${sizeBytes} bytes, and its metadata say ${declared}`
            : undefined;
      if (problem === undefined) continue;
      report(`artifacts/${id}.bin`, problem);
      artifacts.delete(id);
    }
  }
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return (await readdir(directory)).sort();
  } catch (error) {
    throw new AbstractRuntimeError("PYTHON_DIRECTORY_INVALID", { directory, problem: problemOf(error) }, error);
  }
}

function kindOf(name: string): { kind?: "run" | "ledger" | "snapshot"; id: string } {
  const [, run, ledger, snapshot] = /^(?:run_(.*)\.json|ledger_(.*)\.jsonl|snapshot_(.*)\.json)$/s.exec(name) ?? [];
  if (run !== undefined) return { kind: "run", id: run };
  if (ledger !== undefined) return { kind: "ledger", id: ledger };
  return snapshot === undefined ? { id: "" } : { kind: "snapshot", id: snapshot };
}

function checkId(inside: string, inName: string): void {
  if (inName === "") throw new Unusable("it has no id");
  if (inside !== inName) throw new Unusable(`it says inside that it is of "${inside.slice(0, 100)}"`);
}

async function contentOf(path: string): Promise<Uint8Array> {
  const file = await openPlain(path);
  try {
    return await file.readFile();
  } finally {
    await file.close();
  }
}

async function sizeOf(path: string): Promise<number> {
  const file = await openPlain(path);
  try {
    return (await file.stat()).size;
  } finally {
    await file.close();
  }
}

/** Opens without following a link, and without waiting for the other end of a pipe. */
export async function openPlain(path: string): Promise<FileHandle> {
  // Asked for first, since not every system can refuse to follow one.
  if ((await lstat(path)).isSymbolicLink()) throw new Unusable(isLink);
  const { O_RDONLY, O_NOFOLLOW = 0, O_NONBLOCK = 0 } = constants;
  const file = await open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if ((await file.stat()).isFile()) return file;
  await file.close();
  throw new Unusable("it is no plain file");
}

const isLink = "it is a symbolic link, which is not followed";

function problemOf(error: unknown): string {
  if (error instanceof SyntaxError) return `it is not JSON: ${error.message}`;
  if (error instanceof TypeError) return "it is not UTF-8 text";
  return (error as Error).message;
}
