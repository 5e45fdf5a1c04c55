import type { RunDiff } from "../../index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { findRun } from "../find-run.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import { parsePoint } from "../run-point.ts";
import { jsonLine } from "../terminal.ts";

export const addDiff: AddCommand = (program, act) => {
  program
    .command("diff")
    .description("show what changed in a run between two points: vars, node, status, waits")
    .argument("<run>", "id of the run, or its beginning")
    .argument("<from>", "number of a record, or a time with its zone")
    .argument("<to>", "the same")
    .addHelpText(
      "after",
      "\nExamples:\n  $ abstractruntime diff 3f2a 0 12\n  $ abstractruntime diff 3f2a 2026-01-31T09:00:00Z 2026-02-01T09:00:00Z --json",
    )
    .action(act(diff));
};

async function diff(cli: Cli, given: string, from: string, to: string): Promise<number> {
  const found = await reading(cli, async (runtime) =>
    runtime.diff(await findRun(runtime, given), parsePoint(from), parsePoint(to)),
  );
  if (cli.json) cli.terminal.json(found);
  else print(cli, found);
  return 0;
}

function print({ terminal }: Cli, { runId, from, to, vars, waitsOpened, waitsClosed, records }: RunDiff): void {
  const changed = (before: string | number, after: string | number): string | undefined =>
    before === after ? undefined : `${before} -> ${after}`;
  const kinds = Object.entries(records).map(([kind, count]) => `${count} ${kind}`);
  terminal.line(`Run ${runId}: from record ${from.seq} to record ${to.seq}`, "bold");
  terminal.fields([
    ["At", changed(moment(from.at), moment(to.at)) ?? moment(from.at)],
    ["Status", changed(from.status, to.status)],
    ["Node", changed(`${from.node} (step ${from.step})`, `${to.node} (step ${to.step})`)],
    ["Version", changed(from.version, to.version)],
    ...waitsOpened.map(({ reason, waitKey }): [string, string] => ["Waits for", `${reason}: ${waitKey}`]),
    ...waitsClosed.map(({ reason, waitKey }): [string, string] => ["Waited for", `${reason}: ${waitKey}`]),
    ["Records", kinds.length > 0 ? kinds.join(", ") : "none"],
  ]);
  if (vars.length === 0) return terminal.line("The vars are the same.");
  terminal.table(
    ["CHANGE", "PATH", "VALUE"],
    vars.map((one) => [one.op, one.path, "value" in one ? short(jsonLine(one.value)) : ""]),
    [2, 1],
  );
}

/** The table is for looking; `--json` has everything. */
function short(text: string): string {
  return text.length > 200 ? `${text.slice(0, 200)}...` : text;
}
