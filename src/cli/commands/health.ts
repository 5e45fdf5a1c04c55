import type { Health, Runtime } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { span } from "../moment.ts";
import { deadWorkers, reading } from "../open-runtime.ts";
import { sizeText } from "../size-text.ts";

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
  const { ok, problems, store, now } = await reading(cli, (runtime) => outside(cli, runtime));
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
    ...Object.entries(stats?.queues ?? {}).map(([queue, waiting]): [string, string] => [
      "Queued",
      `${waiting.due} in "${queue}", the first for ${span(now - waiting.oldestDueAt)}`,
    ]),
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

/** Runs of a queue that are looked at for one that is held. */
const mostLookedAt = 1_000;
/** Due for longer than this, a run of a queue in which nothing is driven waits in vain. */
const overdueMs = 5_000;

/** What is told of this process, which drives nothing and is about to end, is left out, and what it sees from outside is added. */
async function outside(cli: Cli, runtime: Runtime): Promise<Pick<Health, "ok" | "problems" | "store" | "now">> {
  const { problems, store, now } = await runtime.health();
  const told = problems
    .filter((problem) => !problem.endsWith("which this process does not serve"))
    .map((problem) => problem.replace(/ \(this runtime drives none by itself\)$/, ""));
  for (const [queue, { due, oldestDueAt }] of Object.entries(store.stats?.queues ?? {})) {
    if (now - oldestDueAt <= overdueMs || (await isServed(runtime, queue))) continue;
    told.push(
      `${runsAre(due)} due in queue "${queue}", and none of it is driven, the first for ${span(now - oldestDueAt)}: it seems that no worker serves it`,
    );
  }
  const left = await leftBehind(cli, runtime);
  // Where a worker lives, it takes them over at its next look.
  if (left > 0 && store.stats?.workers === 0) told.push(`${runsAre(left)} held by a worker that is dead, and no other lives`);
  return { ok: told.length === 0, problems: told, store, now };
}

/** A queue of which a run is held is served, and may be full. */
async function isServed(runtime: Runtime, queue: string): Promise<boolean> {
  const { runs } = await runtime.list({ queue, status: ["running", "waiting"], order: "oldest", limit: mostLookedAt });
  return runs.some(({ holder }) => holder !== undefined);
}

/** Live runs that dead workers still hold. */
async function leftBehind(cli: Cli, runtime: Runtime): Promise<number> {
  let left = 0;
  for (const holder of deadWorkers(cli)) left += await runtime.count({ holder, status: ["running", "waiting"] });
  return left;
}

function runsAre(count: number): string {
  return count === 1 ? "1 run is" : `${count} runs are`;
}
