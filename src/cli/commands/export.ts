import type { ExportReport } from "../../python/index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { exportToFile } from "../export-file.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";

export const addExport: AddCommand = (program, act) => {
  program
    .command("export")
    .description(
      "write runs, and all that they started, to one file, or as a directory that the Python package AbstractRuntime goes on with",
    )
    .argument("<run...>", "ids of the runs, or their beginnings; at the end the directory, where there is no --to")
    .option("--to <file>", "write one file, which another store can import")
    .option("--fence", "with --to: the runs leave this store for the file, and go on where it is imported")
    .addHelpText(
      "after",
      "\nWithout --fence nothing is changed here: do not let a run go on in both places. Exits with 1 when a run was left out.\n\nExamples:\n  $ abstractruntime export 3f2a --to 3f2a.jsonl\n  $ abstractruntime export 3f2a state/",
    )
    .action(act(exportRuns));
};

async function exportRuns(cli: Cli, given: string[], { to, fence = false }: { to?: string; fence?: boolean }): Promise<number> {
  if (to !== undefined) return exportToFile(cli, given, to, fence);
  if (fence) throw wrongUse("--fence", "--fence is for runs that leave for one file", "Name it with --to.");
  const directory = given.at(-1) as string;
  const runs = given.slice(0, -1);
  if (runs.length === 0)
    throw wrongUse("RUN", `"${directory}" alone does not say what is to go where`, "Give the runs, and then the directory.");
  const { exportPython } = await import("../../python/index.ts");
  return reading(cli, async (runtime) => {
    const runIds: string[] = [];
    for (const run of runs) runIds.push(await findRun(runtime, run));
    return tellExport(cli, await exportPython(runtime, runIds, directory));
  });
}

function tellExport({ terminal, json }: Cli, report: ExportReport): number {
  const { runs, problems, snapshots, artifacts } = report;
  if (json) terminal.json(report);
  else {
    const rows = runs.map(({ runId, status, records, oldRecords, head }) => [
      runId,
      status,
      `${records} (${oldRecords} of them old)`,
      typeof head === "string" ? head.slice(0, 16) : "",
    ]);
    if (rows.length > 0) terminal.table(["RUN", "STATUS", "RECORDS", "HEAD"], rows, []);
    for (const { runId, notes } of runs) for (const note of notes) terminal.line(`Run ${runId}: ${note}`, "yellow");
    terminal.line(
      `${count(runs.length, "run")}, ${count(snapshots.length, "snapshot")} and ${count(artifacts.length, "artifact")} written.`,
    );
    for (const { runId, problem } of problems) terminal.note(`Run ${runId} was left out: ${problem}`, "red");
  }
  return problems.length > 0 ? 1 : 0;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
