/** The format of the Python package AbstractRuntime 0.0.1: its directories, its hash chain, its keys. */
export { type ChainError, type ChainReport, computeRecordHash, verifyLedgerChain } from "./chain.ts";
export { type PythonArtifact, type PythonDirectory, type PythonProblem, readPythonDirectory } from "./directory.ts";
export { ActorFingerprint, type ActorOptions } from "./fingerprint.ts";
export { type ExportedRun, exportPython, type ExportReport, type ExportSource } from "./export.ts";
export { type ImportedRun, type ImportOptions, importPython, type ImportReport, type ImportTarget } from "./import.ts";
export type { ImportedArtifact } from "./import-artifacts.ts";
export type { ImportedSnapshot } from "./import-snapshots.ts";
export { computeArtifactId, computeIdempotencyKey } from "./keys.ts";
export { ledgerText, type LedgerProblem, type PythonLedger, type PythonRecord, readLedger } from "./ledger-file.ts";
export { importedLedger } from "./old-files.ts";
export { parsePythonJson } from "./parse.ts";
export type { PythonRun, PythonStatus, PythonWait } from "./run-file.ts";
export type { PythonSnapshot } from "./snapshot-file.ts";
export type { PythonArtifactMetadata } from "./artifact-file.ts";
export { canonicalJson, canonicalJsonAscii, fileText, type PythonJson, type PythonObject } from "./text.ts";
