import { statSync } from "node:fs";
import type { ImportReport } from "../../python/index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { importFromFile } from "../import-file.ts";
import { openRuntime } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";

export const addImport: AddCommand = (program, act) => {
  program
    .command("import")
    .description("bring in the runs of a file that was exported, or of a directory that the Python package AbstractRuntime wrote")
    .argument("<place>", "the file, or the directory with its run_*.json and ledger_*.jsonl")
    .option("--workflow-version <version>", "the version of the workflows that its runs were made by", "1")
    .addHelpText(
      "after",
      "\nRuns that are in the store already are left as they are. Exits with 1 when a file could not be used, or an old ledger does not verify.\n\nExamples:\n  $ abstractruntime import state/\n  $ abstractruntime import state/ --store postgres://localhost/runs",
    )
    .action(act(importDirectory));
};

async function importDirectory(cli: Cli, directory: string, { workflowVersion }: { workflowVersion: string }): Promise<number> {
  const found = statSync(directory, { throwIfNoEntry: false });
  if (!found)
    throw wrongUse(
      "place",
      `there is no file or directory ${directory}`,
      "Name a file that `export --to` or `archive` wrote, or a directory of the Python package.",
    );
  if (found.isFile()) return importFromFile(cli, directory);
  const { importPython } = await import("../../python/index.ts");
  const runtime = await openRuntime(cli, { scheduler: false });
  try {
    return tellImport(cli, await importPython(runtime, directory, { version: workflowVersion }), directory);
  } finally {
    await runtime.stop();
  }
}

function tellImport({ terminal, json }: Cli, report: ImportReport, directory: string): number {
  const { runs, artifacts, snapshots, problems } = report;
  const isNothing = [runs, artifacts, snapshots, problems].every((found) => found.length === 0);
  const isWrong = isNothing || problems.length > 0 || runs.some((run) => run.report !== null && !run.report.ok);
  if (json) terminal.json(report);
  else {
    const rows = runs.map(({ runId, workflowId, status, result, records, report: verdict }) => [
      runId,
      workflowId,
      status,
      result === "exists" ? "was here" : "imported",
      verdict === null ? "no verdict" : `${count(records, "record")}${verdict.ok ? " verified" : ", NOT verified"}`,
    ]);
    if (rows.length > 0) terminal.table(["RUN", "WORKFLOW", "STATUS", "RESULT", "OLD LEDGER"], rows, [1]);
    for (const { runId, notes } of runs) for (const note of notes) terminal.line(`Run ${runId}: ${note}`, "yellow");
    terminal.line(
      `${count(runs.length, "run")}, ${count(snapshots.length, "snapshot")} and ${count(artifacts.length, "artifact")} read.`,
    );
    for (const { file, line, problem } of problems)
      terminal.note(`${file}${line === undefined ? "" : `, line ${line}`}: ${problem}`, "red");
    if (isNothing) terminal.note(`There is nothing of the Python package (run_*.json, ledger_*.jsonl) in ${directory}.`, "red");
  }
  return isWrong ? 1 : 0;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
