import type { Health } from "../index.ts";
import { type AddCommand, type Cli, nextCommand } from "./command.ts";
import { span } from "./moment.ts";
import { reading } from "./open-runtime.ts";

export const addHealth: AddCommand = (program, act) => {
  program
    .command("health")
    .description("say whether the runs of a store move, and what is in the way")
    .addHelpText(
      "after",
      "\nExits with 1 when something is in the way.\n\nExamples:\n  $ abstractruntime health\n  $ abstractruntime health --json",
    )
    .action(act(health));
};

async function health(cli: Cli): Promise<number> {
  const { ok, problems, store } = outside(await reading(cli, (runtime) => runtime.health()));
  const { terminal } = cli;
  if (cli.json) {
    terminal.json({ ok, problems, store });
    return ok ? 0 : 1;
  }
  const { stats, name, overdueMs } = store;
  terminal.line(
    ok ? "Everything moves." : problems.length === 1 ? "Something is in the way:" : `${problems.length} things are in the way:`,
    ok ? "green" : "red",
  );
  for (const problem of problems) terminal.line(`  ${problem}`);
  const due = stats?.due ?? 0;
  terminal.fields([
    ["Store", name],
    [
      "Runs",
      stats &&
        (Object.entries(stats.byStatus)
          .filter(([, runs]) => runs > 0)
          .map(([status, runs]) => `${runs} ${status}`)
          .join(", ") ||
          "none"),
    ],
    ["Due", stats && `${due}${overdueMs > 0 ? `, the first for ${span(overdueMs)}` : ""}`],
    ["Blocked", stats && `${stats.blocked}, of these ${stats.quarantined} quarantined`],
    ["Workers", stats && `${stats.workers} alive`],
    ["Size", stats?.sizeBytes === undefined ? undefined : sizeText(stats.sizeBytes)],
  ]);
  const next = [
    ...(stats && stats.quarantined > 0 ? [nextCommand(cli, "verify", [])] : []),
    ...(stats && stats.blocked > 0 ? [nextCommand(cli, "ls", [], { blocked: true })] : []),
    ...(!ok && due > 0 ? [nextCommand(cli, "ls", [], { status: "running" })] : []),
  ];
  for (const [i, step] of next.entries()) terminal.line(`${i === 0 ? "Next: " : "      "}${step}`, "green");
  return ok ? 0 : 1;
}

/** What is told of this process, which drives nothing and is about to end, is left out. */
function outside({ problems, store, ok }: Health): Pick<Health, "ok" | "problems" | "store"> {
  const told = problems.map((problem) => problem.replace(/ \(this runtime drives none by itself\)$/, ""));
  return { ok, problems: told, store };
}

function sizeText(bytes: number): string {
  if (bytes < 1_024) return `${bytes} bytes`;
  const units = ["KiB", "MiB", "GiB", "TiB"];
  const power = Math.min(units.length, Math.floor(Math.log2(bytes) / 10));
  return `${(bytes / 1_024 ** power).toFixed(1)} ${units[power - 1]}`;
}
