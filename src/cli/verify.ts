import type { Runtime, Verification } from "../index.ts";
import { type AddCommand, type Cli, nextCommand } from "./command.ts";
import { findRun } from "./find-run.ts";
import { reading } from "./open-runtime.ts";
import { wrongUse } from "./problem.ts";

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
  const verification = await runtime.verify(runId);
  const lifted = lift && verification.ok && (await runtime.store.lift(runId));
  if (cli.json) {
    terminal.json(lift ? { ...verification, lifted } : verification);
  } else if (verification.ok) {
    terminal.line(
      `Run ${runId} verifies: ${count(verification.records, "record")}, the chain is whole, and the stored state is what the ledger gives.`,
      "green",
    );
    terminal.fields([["Head", verification.head]]);
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
  for (let cursor: string | undefined, first = true; first || cursor !== undefined; first = false) {
    const page = await runtime.list({ limit: 1_000, ...(cursor === undefined ? {} : { cursor }) });
    for (const { runId } of page.runs) {
      const verification = await runtime.verify(runId);
      runs += 1;
      records += verification.records;
      if (verification.ok) continue;
      wrong.push(verification);
      if (!cli.json) tellProblems(cli, verification);
    }
    cursor = page.next;
  }
  const ok = wrong.length === 0;
  if (cli.json) terminal.json({ ok, runs, records, failed: wrong });
  else if (ok) terminal.line(`${count(runs, "run")} and ${count(records, "record")} verify.`, "green");
  else terminal.line(`${wrong.length} of ${count(runs, "run")} do not verify.`, "red");
  return ok ? 0 : 1;
}

function tellProblems(cli: Cli, { runId, problems }: Verification): void {
  cli.terminal.line(`Run ${runId} does not verify:`, "red");
  for (const { seq, problem } of problems) cli.terminal.line(`  ${seq === undefined ? "" : `record ${seq}: `}${problem}`);
  cli.terminal.line(
    `  Restore the store from a backup, or look at what is stored: ${nextCommand(cli, "ledger", [runId], { json: true })}`,
  );
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
