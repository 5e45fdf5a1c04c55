/** What the files of an imported run held, from the artifacts that its first record names. */
import type { Artifacts } from "../artifacts/artifacts.ts";
import { restoreRun } from "../kernel/restore.ts";
import type { Origin } from "../kernel/record.ts";
import type { Store } from "../kernel/store.ts";
import { type PythonLedger, readLedger } from "./ledger-file.ts";
import { parsePythonJson } from "./parse.ts";
import { type PythonRun, readRun } from "./run-file.ts";
import { Unusable } from "./shape.ts";

export interface OldFiles {
  run: PythonRun;
  /** Of the run's file. */
  text: string;
  /** Undefined where it had none. */
  ledger: PythonLedger | undefined;
}

/** @throws Unusable, ARTIFACT_CORRUPT, ARTIFACT_MISSING */
export async function oldFiles(artifacts: Artifacts, origin: Origin & { kind: "python" }): Promise<OldFiles> {
  const bytesOf = async (id: unknown): Promise<Uint8Array> => {
    const loaded = typeof id === "string" ? await artifacts.load(id) : null;
    if (!loaded) throw new Unusable("its old files are not in this store any more");
    return loaded.content;
  };
  if (origin.snapshot !== undefined) throw new Unusable("it only holds a snapshot");
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(await bytesOf(origin.run));
  const ledger = origin.ledger === undefined ? undefined : readLedger(await bytesOf(origin.ledger));
  return { run: readRun(parsePythonJson(text)), text, ledger };
}

/**
 * The ledger that a run brought along, with the verdict of the Python package on it. Undefined for a run that was not imported.
 *
 * @throws ARTIFACT_CORRUPT, ARTIFACT_MISSING: it was changed or lost since. RECORD_CORRUPT, FORMAT_NEWER
 */
export async function importedLedger(
  { store, artifacts }: { store: Store; artifacts: Artifacts },
  runId: string,
): Promise<PythonLedger | undefined> {
  const loaded = await store.load(runId);
  const origin = loaded && (await restoreRun(store, loaded)).state.origin;
  if (origin?.kind !== "python" || origin.run === undefined) return undefined;
  return (await oldFiles(artifacts, origin)).ledger ?? readLedger("");
}
