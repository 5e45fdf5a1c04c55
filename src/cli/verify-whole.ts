import { isError, type Runtime, type Verification } from "../index.ts";

/** As `runtime.verify`, with the ledger that a run brought along from the Python package: by the verdict that it gets there. `isOld`: nothing else is wrong. */
export async function verifyWhole(runtime: Runtime, runId: string): Promise<Verification & { isOld?: true }> {
  const verification = await runtime.verify(runId);
  if (!verification.ok) return verification;
  const problems = await oldProblems(runtime, runId);
  if (problems.length === 0) return verification;
  return { ...verification, ok: false, isOld: true, problems: problems.map((problem) => ({ problem })) };
}

async function oldProblems(runtime: Runtime, runId: string): Promise<string[]> {
  const { importedLedger } = await import("../python/index.ts");
  try {
    const ledger = await importedLedger(runtime, runId);
    const lines = (ledger?.problems ?? []).map(({ line, problem }) =>
      line === 0 ? `its old ledger: ${problem}` : `line ${line} of its old ledger: ${problem}`,
    );
    const errors = (ledger?.report?.errors ?? []).map(({ index, type }) => `record ${index} of its old ledger: ${type}`);
    return [...lines, ...errors];
  } catch (error) {
    if (isError(error)) return [`its old ledger cannot be read: ${error.message}`];
    throw error;
  }
}
