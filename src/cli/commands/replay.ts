import type { Replay, ReplayDifference } from "../../index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";
import { parseObject } from "./run.ts";
import { parseSeq } from "../run-point.ts";
import { jsonLine } from "../terminal.ts";
import { chooseWorkflow, loadWorkflowFile } from "../workflow-file.ts";

interface ReplayFlags {
  from?: string;
  vars?: string;
  workflow?: string;
  live?: string[];
}

export const addReplay: AddCommand = (program, act) => {
  program
    .command("replay")
    .description("run a run's nodes again on the code of a file, with its recorded results, and show what comes out differently")
    .argument("<run>", "id of the run, or its beginning")
    .argument("<file>", "module (.ts, .js) that exports the workflow")
    .option("--from <seq>", "replay from after this record (default: the whole run)")
    .option("--vars <json>", "begin with these vars, as a JSON object (default: those of the run there)")
    .option("--workflow <id>", "which workflow of the file (default: that of the run)")
    .option("--live <type...>", "call the handlers of these types of effects, instead of playing back what they gave")
    .addHelpText(
      "after",
      `
Nothing is stored, and but for --live nothing is called. Exits with 1 when there are differences.

Examples:
  $ abstractruntime replay 3f2a approval.ts
  $ abstractruntime replay 3f2a agent.ts --live llm_call --json`,
    )
    .action(act(replay));
};

async function replay(cli: Cli, given: string, path: string, { from, vars, workflow, live = [] }: ReplayFlags): Promise<number> {
  const file = await loadWorkflowFile(path);
  const chosen = workflow === undefined ? undefined : chooseWorkflow(file, workflow);
  const replayed = await reading(
    cli,
    async (runtime) => {
      const runId = await findRun(runtime, given);
      const { workflowId } = await runtime.get(runId);
      if (!chosen && !file.workflows.some(({ id }) => id === workflowId))
        throw wrongUse(
          "FILE",
          `${file.path} does not export workflow "${workflowId}", which run ${runId} is one of`,
          "Name the file that exports it, or choose another one with --workflow.",
        );
      return runtime.replay(runId, {
        ...(chosen ? { workflow: chosen } : {}),
        ...(from === undefined ? {} : { fromSeq: parseSeq(from, "--from") }),
        ...(vars === undefined ? {} : { vars: parseObject(vars) }),
        effects: Object.fromEntries(live.map((type) => [type, "live" as const])),
      });
    },
    file,
  );
  if (cli.json) cli.terminal.json(replayed);
  else print(cli, replayed);
  return replayed.differences.length === 0 ? 0 : 1;
}

const endings: Record<Replay["end"], string> = {
  ended: "to its end",
  recorded: "as far as it has come",
  unrecorded: "until an effect was requested of which nothing is recorded",
  maxSteps: "until it was stopped: it goes round and round",
};

function print({ terminal }: Cli, { run, steps, end, differences }: Replay): void {
  const what = `Run ${run.runId} was replayed ${endings[end]}: ${steps} ${steps === 1 ? "node" : "nodes"} ran`;
  if (differences.length === 0) return terminal.line(`${what}, and nothing is different.`, "green");
  terminal.line(`${what}. Differences: ${differences.length}.`, "yellow");
  for (const difference of differences) {
    const { step, node, effectType } = difference as { step?: number; node?: string; effectType?: string };
    const where = [step === undefined ? [] : `step ${step}`, node === undefined ? [] : `node "${node}"`, effectType ?? []].flat();
    terminal.line(`${difference.kind}${where.length > 0 ? `: ${where.join(", ")}` : ""}`, "bold");
    terminal.fields([
      ["Recorded", textOf(difference, "recorded")],
      ["Replayed", textOf(difference, "replayed")],
      ["Payload", textOf(difference, "payload")],
    ]);
  }
}

/** The lines are for looking; `--json` has everything. */
function textOf(difference: ReplayDifference, key: string): string | undefined {
  const value = (difference as unknown as Record<string, unknown>)[key];
  if (value === undefined) return undefined;
  const text = typeof value === "string" ? value : jsonLine(value);
  return text.length > 500 ? `${text.slice(0, 500)}...` : text;
}
