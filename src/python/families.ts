/** Which runs of a directory come in together. */
import type { PythonDirectory } from "./directory.ts";
import { awaitedOf } from "./state.ts";

/** Runs that belong together, by who started whom and who waits for whom. */
export function families(found: PythonDirectory): string[][] {
  const { runs } = found;
  const relatives = new Map<string, string[]>([...runs.keys()].map((runId) => [runId, []]));
  for (const [runId, { run }] of runs) {
    for (const relative of [run.parent_run_id, awaitedBy(found, runId)]) {
      if (typeof relative !== "string" || !relatives.has(relative)) continue;
      relatives.get(runId)?.push(relative);
      relatives.get(relative)?.push(runId);
    }
  }
  const placed = new Set<string>();
  return [...runs.keys()].flatMap((first) => {
    if (placed.has(first)) return [];
    placed.add(first);
    const family = [first];
    // It grows while it is walked.
    for (const runId of family) {
      for (const relative of relatives.get(runId) ?? []) {
        if (placed.has(relative)) continue;
        placed.add(relative);
        family.push(relative);
      }
    }
    return [family];
  });
}

/** The child that a run waits for. */
export function awaitedBy({ runs, ledgers }: PythonDirectory, runId: string): string | undefined {
  const run = runs.get(runId)?.run;
  return run && awaitedOf(run, ledgers.get(runId)?.records ?? []);
}
