import type { Edge, Header, Runtime, Workflow } from "../../index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { findRun } from "../find-run.ts";
import { reading } from "../open-runtime.ts";
import { storeExists } from "../open-store.ts";
import { wrongUse } from "../problem.ts";
import { printable } from "../terminal.ts";
import { chooseWorkflow, loadWorkflowFile } from "../workflow-file.ts";

export const addGraph: AddCommand = (program, act) => {
  program
    .command("graph")
    .description("draw a workflow as a Mermaid flowchart")
    .argument("<file>", "module (.ts, .js) that exports the workflow")
    .option("--workflow <id>", "which workflow, where the file exports several")
    .option("--run <run>", "draw the edges that this run took; default: those of recent runs, where there is a store")
    .addHelpText(
      "after",
      `
Edges that nodes declare with \`to\` are solid; those only seen in ledgers are dotted.

Examples:
  $ abstractruntime graph order.ts > order.mmd
  $ abstractruntime graph order.ts --run 3f2a`,
    )
    .action(act(graph));
};

const recentRuns = 20;
const recordsRead = 1_000;

async function graph(cli: Cli, path: string, options: { workflow?: string; run?: string }): Promise<number> {
  const workflow = chooseWorkflow(await loadWorkflowFile(path), options.workflow);
  // Without --run the store is a help, not a condition.
  const looks = options.run !== undefined || (await storeExists(cli.store));
  const seen = looks ? await reading(cli, (runtime) => seenEdges(runtime, workflow, options.run)) : [];
  const declared = workflow.edges();
  const extra = seen.filter((edge) => !declared.some((known) => known.from === edge.from && known.to === edge.to));
  const mermaid = draw(workflow, declared, extra);
  if (cli.json) {
    const nodes = [...nodeNames(workflow, extra)].map((id) => ({ id, title: workflow.nodes.get(id)?.title }));
    const edges = [
      ...declared.map((edge) => ({ ...edge, declared: true })),
      ...extra.map((edge) => ({ ...edge, declared: false })),
    ];
    cli.terminal.json({ workflowId: workflow.id, entry: workflow.entry, nodes, edges, mermaid });
  } else {
    cli.terminal.block(mermaid);
  }
  return 0;
}

async function seenEdges(runtime: Runtime, workflow: Workflow, given: string | undefined): Promise<Edge[]> {
  const runIds: string[] = [];
  if (given === undefined) {
    const { runs } = await runtime.list({ workflowId: workflow.id, limit: recentRuns });
    runIds.push(...runs.map(({ runId }) => runId));
  } else {
    const runId = await findRun(runtime, given);
    const { workflowId } = await runtime.get(runId);
    if (workflowId !== workflow.id)
      throw wrongUse(
        "--run",
        `run ${runId} is one of workflow "${workflowId}", not of "${workflow.id}"`,
        "Name another run, or the workflow with --workflow.",
      );
    runIds.push(runId);
  }
  const edges = new Map<string, Edge>();
  for (const runId of runIds) {
    for (const edge of await edgesOf(runtime, runId, given === undefined ? recordsRead : Number.MAX_SAFE_INTEGER))
      edges.set(JSON.stringify([edge.from, edge.to]), edge);
  }
  return [...edges.values()];
}

/** Every record says at which node it happened and in which step; one step behind another is an edge, but for a node that a retry runs again. */
async function edgesOf(runtime: Runtime, runId: string, atMost: number): Promise<Edge[]> {
  const edges: Edge[] = [];
  let before: Pick<Header, "node" | "step" | "kind"> | undefined;
  const { archivedBefore = 0 } = await runtime.get(runId);
  for (let from = archivedBefore; from < atMost; from += recordsRead) {
    const page = await runtime.store.records(runId, from, recordsRead);
    for (const { header } of page) {
      const { node, step, kind } = JSON.parse(header) as Header;
      if (before && step === before.step + 1 && before.kind !== "control") edges.push({ from: before.node, to: node });
      before = { node, step, kind };
    }
    if (page.length < recordsRead) break;
  }
  return edges;
}

// ---- Mermaid text --------------------------------------------------------------------------------------------------

function draw(workflow: Workflow, declared: readonly Edge[], seen: readonly Edge[]): string {
  const ids = new Map([...nodeNames(workflow, seen)].map((name, i) => [name, `n${i}`]));
  const lines = ["flowchart TD"];
  for (const [name, id] of ids) {
    const label = `"${mermaidText(workflow.nodes.get(name)?.title ?? name)}"`;
    lines.push(`  ${id}${name === workflow.entry ? `([${label}])` : `[${label}]`}`);
  }
  for (const { from, to, label } of declared)
    lines.push(`  ${ids.get(from)} -->${label ? `|"${mermaidText(label)}"|` : ""} ${ids.get(to)}`);
  for (const { from, to } of seen) lines.push(`  ${ids.get(from)} -.-> ${ids.get(to)}`);
  return lines.join("\n");
}

/** The workflow's nodes, and those that older versions of it had and ledgers still name. */
function nodeNames(workflow: Workflow, seen: readonly Edge[]): Set<string> {
  return new Set([...workflow.nodes.keys(), ...seen.flatMap(({ from, to }) => [from, to])]);
}

/**
 * A label that cannot end its quotes, start markup or be read as Markdown: all but letters, digits, single spaces, and `_` and `-`
 * between two letters becomes an entity of Mermaid's, `#code;`.
 */
export function mermaidText(text: string): string {
  const other = /[^\p{L}\p{M}\p{N} _-]|(?<!\S) | (?!\S)|(?<![\p{L}\p{M}\p{N}])[_-]|[_-](?![\p{L}\p{M}\p{N}])/gu;
  return printable(text).replace(other, (character) => `#${character.codePointAt(0)};`);
}
