import type { Runtime, Verification } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";
import { runsOf } from "../runs-of.ts";
import { verifyWhole } from "../verify-whole.ts";
import { counted } from "../counted.ts";

export const addVerify: AddCommand = (program, act) => {
  program
    .command("verify")
    .description("check ledgers: every hash, the chain, and that the stored state is what the ledger gives")
    .argument("[run]", "id of the run, or its beginning; without it, all runs")
    .option("--lift", "when the run verifies, lift its quarantine, so that workers drive it again")
    .addHelpText(
      "after",
      "\nExits with 1 when anything is wrong.\n\nExamples:\n  $ abstractruntime verify\n  $ abstractruntime verify 3f2a\n  $ abstractruntime verify 3f2a --lift",
    )
    .action(act(verify));
};

async function verify(cli: Cli, given: string | undefined, { lift = false }: { lift?: boolean }): Promise<number> {
  if (given === undefined && lift)
    throw wrongUse("--lift", "--lift is for one run", "Name it: `abstractruntime verify RUN --lift`.");
  return reading(cli, async (runtime) =>
    given === undefined ? verifyAll(cli, runtime) : verifyOne(cli, runtime, await findRun(runtime, given), lift),
  );
}

async function verifyOne(cli: Cli, runtime: Runtime, runId: string, lift: boolean): Promise<number> {
  const { terminal } = cli;
  // What Python left behind is no reason to keep a run from being driven.
  const verification = await (lift ? runtime.verify(runId) : verifyWhole(runtime, runId));
  const lifted = lift && verification.ok && (await runtime.store.lift(runId));
  if (cli.json) {
    terminal.json(lift ? { ...verification, lifted } : verification);
  } else if (verification.ok) {
    terminal.line(
      `Run ${runId} verifies: ${counted(verification.records, "record")}, the chain is whole, and the stored state is what the ledger gives.`,
      "green",
    );
    const { head, archivedBefore: first } = verification;
    terminal.fields([
      ["Head", head],
      ["Archived", first === undefined ? undefined : `records before ${first}; the ledger holds the hash of the last of them`],
    ]);
    if (lift)
      terminal.line(
        lifted
          ? "Its quarantine is lifted: the next worker with its code drives it."
          : "It was not quarantined; nothing was changed.",
      );
  } else {
    tellProblems(cli, verification);
    if (lift) terminal.note("Nothing was lifted.");
  }
  return verification.ok ? 0 : 1;
}

async function verifyAll(cli: Cli, runtime: Runtime): Promise<number> {
  const { terminal } = cli;
  const wrong: Verification[] = [];
  let runs = 0;
  let records = 0;
  for await (const { runId, moving } of runsOf(runtime, {})) {
    // What arrives is verified by its move before it counts.
    if (moving?.phase === "arriving") continue;
    const verification = await verifyWhole(runtime, runId);
    runs += 1;
    records += verification.records;
    if (verification.ok) continue;
    wrong.push(verification);
    if (!cli.json) tellProblems(cli, verification);
  }
  const ok = wrong.length === 0;
  if (cli.json) terminal.json({ ok, runs, records, failed: wrong });
  else if (ok) terminal.line(`${counted(runs, "run")} and ${counted(records, "record")} verify.`, "green");
  else terminal.line(`${wrong.length} of ${counted(runs, "run")} do not verify.`, "red");
  return ok ? 0 : 1;
}

function tellProblems(cli: Cli, { runId, problems, isOld }: Verification & { isOld?: true }): void {
  cli.terminal.line(`Run ${runId} does not verify:`, "red");
  for (const { seq, problem } of problems) cli.terminal.line(`  ${seq === undefined ? "" : `record ${seq}: `}${problem}`);
  if (isOld)
    cli.terminal.line("  It came like that from the Python package, and is kept as it came. What was recorded here verifies.");
  else
    cli.terminal.line(
      `  Restore the store from a backup, or look at what is stored: ${nextCommand(cli, "ledger", [runId], { json: true })}`,
    );
}
