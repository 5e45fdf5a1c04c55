import type { QueueLimits, RunRow, Runtime, Workflow } from "../../index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { openRuntime } from "../open-runtime.ts";
import { withoutPassword } from "../open-store.ts";
import { wrongUse } from "../problem.ts";
import { effectsOf, loadWorkflowFile, type WorkflowFile } from "../workflow-file.ts";

interface WorkerOptions {
  concurrency?: string;
  drain: string;
  quiet?: boolean;
}

export const addWorker: AddCommand = (program, act) => {
  program
    .command("worker")
    .description("drive runs of the files' workflows until it is stopped; any number of workers share a store")
    .argument("<file...>", "modules (.ts, .js) that export the workflows")
    .option("--concurrency <n>", "runs driven here at the same time (default: 100)")
    .option("--drain <seconds>", "how long what is under way may take when it is stopped", "10")
    .option("--quiet", "say nothing of runs that end well")
    .addHelpText(
      "after",
      `
It prints a line for each run that ends here; with --json, a JSON object. Queues are served as the files' exports "queues" say.
Ctrl-C or SIGTERM lets what is under way finish and hands the rest back (exit code 0); a second one ends it at once. Nothing is lost by
either, nor by a kill: other workers go on with its runs. While the store cannot be reached it waits, and goes on by itself.

Examples:
  $ abstractruntime worker order.ts --store sqlite:runs.db
  $ abstractruntime worker order.ts mail.ts --store postgres://app@db/app --concurrency 50 --drain 30`,
    )
    .action(act(worker));
};

async function worker(cli: Cli, paths: string[], options: WorkerOptions): Promise<number> {
  const concurrency = options.concurrency === undefined ? undefined : readNumber("--concurrency", options.concurrency, 1);
  const drainMs = readNumber("--drain", options.drain, 0) * 1_000;
  const files: WorkflowFile[] = [];
  for (const path of paths) files.push(await loadWorkflowFile(path));
  const workflows = [...new Set(files.flatMap((file) => file.workflows))];
  const runtime = await openRuntime(cli, {
    workflows,
    effects: effectsOf(files),
    telemetry: files.find((file) => file.telemetry !== undefined)?.telemetry,
    queues: queuesOf(files),
    scheduler: concurrency === undefined ? true : { concurrency },
  });
  const { terminal } = cli;
  const stopped = Promise.withResolvers<void>();
  const ignore = terminal.io.onInterrupt(() => {
    terminal.note(`Stopping: what is under way gets up to ${drainMs / 1_000} seconds to finish. Ctrl-C again ends it at once.`);
    stopped.resolve();
  });
  // Everything else that goes on in a runtime lets the process end.
  const hold = setInterval(() => undefined, 2 ** 30);
  try {
    const off = runtime.on("run", (row) => tellEnd(cli, row, options.quiet === true));
    await tellBegin(cli, runtime, workflows);
    await stopped.promise;
    await runtime.stop({ timeoutMs: drainMs });
    off();
    terminal.note("Stopped. Runs that have not ended go on in another worker, or when one is started.");
    return 0;
  } finally {
    clearInterval(hold);
    await runtime.stop();
    ignore();
  }
}

async function tellBegin(cli: Cli, runtime: Runtime, workflows: readonly Workflow[]): Promise<void> {
  const { workerId } = await runtime.health();
  const workflowIds = workflows.map(({ id }) => id);
  if (cli.json)
    cli.terminal.json({ worker: workerId, pid: process.pid, store: withoutPassword(cli.store), workflows: workflowIds });
  else
    cli.terminal.line(
      `Worker ${workerId} (process ${process.pid}) drives ${workflowIds.join(", ")} in ${withoutPassword(cli.store)}. Ctrl-C stops it.`,
    );
}

/** Rows are told after each commit: of one that goes on there is nothing to say. */
function tellEnd({ terminal, json }: Cli, { runId, workflowId, status, step, error }: RunRow, quiet: boolean): void {
  if (status === "running" || status === "waiting" || (quiet && status === "completed")) return;
  if (json) return terminal.json({ runId, workflowId, status, step, ...(error ? { error } : {}) });
  const colour = status === "completed" ? "green" : status === "failed" ? "red" : "yellow";
  terminal.line(`${status} ${runId} of "${workflowId}"${error ? `: ${error.message}` : ""}`, colour);
}

/** @throws INVALID_OPTION when two files say different things of one queue. */
function queuesOf(files: readonly WorkflowFile[]): Record<string, QueueLimits> {
  const queues: Record<string, QueueLimits> = {};
  for (const { path, queues: given = {} } of files) {
    for (const [name, limits] of Object.entries(given)) {
      if (Object.hasOwn(queues, name) && JSON.stringify(queues[name]) !== JSON.stringify(limits))
        throw wrongUse(
          "queues",
          `${path} exports other limits for queue "${name}" than a file before it`,
          "Limits hold over all workers: let the files import them from one place.",
        );
      queues[name] = limits;
    }
  }
  return queues;
}

function readNumber(option: string, text: string, least: number): number {
  const number = Number(text);
  if (text.trim() !== "" && Number.isFinite(number) && number >= least) return number;
  throw wrongUse(option, `${option} "${text}" is not a number from ${least}`, `Write it as ${option} ${Math.max(least, 10)}.`);
}
