import type { Workflow } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";
import { effectsOf, loadWorkflowFile, type WorkflowFile } from "../workflow-file.ts";

export const addCheck: AddCommand = (program, act) => {
  program
    .command("check")
    .description("find the live runs that this code could not go on with; to be asked before it is deployed")
    .argument("<files...>", "modules (.ts, .js) that export the workflows")
    .addHelpText(
      "after",
      `
Nothing is changed. Exits with 1 when there is such a run, so that a deployment can stop.

Examples:
  $ abstractruntime check approval.ts
  $ abstractruntime check workflows/*.ts --store sqlite:/var/lib/app/runs.db --json`,
    )
    .action(act(check));
};

async function check(cli: Cli, paths: string[]): Promise<number> {
  const files: WorkflowFile[] = [];
  for (const path of paths) files.push(await loadWorkflowFile(path));
  const workflows = workflowsOf(files);
  const report = await reading(cli, (runtime) => runtime.check(), { workflows, effects: effectsOf(files) });
  const { terminal } = cli;
  const { checked, incompatible, others } = report;
  const ok = incompatible.length === 0;
  if (cli.json) {
    terminal.json({ ok, ...report });
    return ok ? 0 : 1;
  }
  const live = `${checked} live run${checked === 1 ? "" : "s"} of ${workflows.map(({ id }) => `"${id}"`).join(", ")}`;
  terminal.line(
    ok ? `This code goes on with ${live}.` : `This code breaks ${incompatible.length} of ${live}:`,
    ok ? "green" : "red",
  );
  for (const { runId, workflowId, version, node, code, problem } of incompatible) {
    terminal.line();
    terminal.line(`Run ${runId} of workflow "${workflowId}" (version ${version}), at node "${node}"`, "bold");
    terminal.line(`  ${code}: ${problem}`);
    terminal.line(`  See ${nextCommand(cli, "why", [runId])}`);
  }
  for (const [workflowId, runs] of Object.entries(others))
    terminal.note(
      `Not judged: ${runs} live run${runs === 1 ? "" : "s"} of workflow "${workflowId}", which no file given exports.`,
    );
  return ok ? 0 : 1;
}

/** A workflow may be exported by several files; two workflows must not have one id. */
function workflowsOf(files: readonly WorkflowFile[]): Workflow[] {
  const found = new Map<string, { workflow: Workflow; path: string }>();
  for (const { path, workflows } of files) {
    for (const workflow of workflows) {
      const known = found.get(workflow.id);
      if (known && known.workflow !== workflow)
        throw wrongUse(
          "FILE",
          `${known.path} and ${path} export two workflows with the id "${workflow.id}"`,
          "Check them one after the other, or give one of them another id.",
        );
      found.set(workflow.id, { workflow, path });
    }
  }
  return [...found.values()].map(({ workflow }) => workflow);
}
