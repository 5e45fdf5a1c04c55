import type { RunTree } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { statusText } from "../explain-effect.ts";
import { findRun } from "../find-run.ts";
import { parseLimit } from "../ls-query.ts";
import { reading } from "../open-runtime.ts";

export const addTree: AddCommand = (program, act) => {
  program
    .command("tree")
    .description("draw a run with the runs that it started, and those that they started")
    .argument("<run>", "id of the run, or its beginning")
    .option("--limit <number>", "at most so many runs, the deepest left out first", "1000")
    .addHelpText("after", "\nExamples:\n  $ abstractruntime tree 3f2a\n  $ abstractruntime tree 3f2a --limit 20 --json")
    .action(act(tree));
};

async function tree(cli: Cli, given: string, { limit }: { limit: string }): Promise<number> {
  const most = parseLimit(limit);
  const root = await reading(cli, async (runtime) => runtime.tree(await findRun(runtime, given), { limit: most }));
  if (cli.json) {
    cli.terminal.json(root);
    return 0;
  }
  if (!draw(cli, root, "", ""))
    cli.terminal.note(`There are more: ${nextCommand(cli, "tree", [root.run.runId], { limit: String(most * 10) })}`);
  return 0;
}

/** Answers whether all was drawn. */
function draw(cli: Cli, { run, children, more }: RunTree, before: string, below: string): boolean {
  const error = run.error ? `  ${run.error.code ?? run.error.message}` : "";
  cli.terminal.line(`${before}${run.runId}  ${run.workflowId}  ${statusText(run)}  at ${run.node}${error}`);
  let whole = !more;
  children.forEach((child, i) => {
    const isLast = i === children.length - 1 && !more;
    if (!draw(cli, child, `${below}${isLast ? "└─ " : "├─ "}`, `${below}${isLast ? "   " : "│  "}`)) whole = false;
  });
  if (more) cli.terminal.line(`${below}└─ ...`, "dim");
  return whole;
}
