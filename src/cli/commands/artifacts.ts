import { nearest } from "../../index.ts";
import { type AddCommand, type Cli, nextCommand } from "../command.ts";
import { findRun } from "../find-run.ts";
import { moment } from "../moment.ts";
import { reading } from "../open-runtime.ts";
import { wrongUse } from "../problem.ts";
import { sizeText } from "../size-text.ts";

const actions = ["list", "sweep"] as const;

export const addArtifacts: AddCommand = (program, act) => {
  program
    .command("artifacts")
    .description("list artifacts, or delete those that nobody refers to")
    .argument("[action]", `${actions.join(", ")} (default: list)`)
    .argument("[run]", "of list: only what this run refers to")
    .option("--limit <n>", "of list: how many, newest first", "50")
    .addHelpText(
      "after",
      `
sweep deletes the artifacts that no run refers to and that were put more than a day ago, and the bytes that unfinished puts left in the
store. Where a program keeps its bytes in a bucket, let that program call \`runtime.artifacts.sweep()\` instead.

Examples:
  $ abstractruntime artifacts
  $ abstractruntime artifacts list 3f2a --json
  $ abstractruntime artifacts sweep`,
    )
    .action(act(artifacts));
};

function artifacts(cli: Cli, given: string | undefined, run: string | undefined, { limit }: { limit: string }): Promise<number> {
  const action = actions.find((known) => known === (given ?? "list"));
  if (!action) {
    const suggestion = nearest(given ?? "", actions);
    const hint = suggestion ? `Did you mean "${suggestion}"?` : `Use one of ${actions.join(", ")}.`;
    throw wrongUse("ACTION", `"${given}" is nothing to do with artifacts (known: ${actions.join(", ")})`, hint);
  }
  const count = Number(limit);
  if (!Number.isSafeInteger(count) || count < 1)
    throw wrongUse("--limit", `"${limit}" is no whole number from 1`, "Give a number.");
  if (action === "list") return list(cli, run, count);
  if (run !== undefined) throw wrongUse("RUN", "sweep takes no run", "It looks at all artifacts of the store.");
  return sweep(cli);
}

function list(cli: Cli, run: string | undefined, limit: number): Promise<number> {
  return reading(cli, async (runtime) => {
    // One more than is shown says whether there are more.
    const all =
      run === undefined
        ? runtime.artifacts.listAll({ limit: limit + 1 })
        : runtime.artifacts.listByRun(await findRun(runtime, run));
    const found = await all;
    const shown = found.slice(0, limit);
    const { terminal } = cli;
    if (cli.json) {
      terminal.json({ artifacts: shown, more: found.length > limit });
      return 0;
    }
    if (shown.length === 0) terminal.line(run === undefined ? "There are no artifacts." : "The run refers to no artifacts.");
    else
      terminal.table(
        ["ARTIFACT", "PUT (UTC)", "SIZE", "TYPE", "TAGS"],
        shown.map(({ artifactId, createdAt, sizeBytes, contentType, tags }) => [
          artifactId,
          moment(createdAt),
          sizeText(sizeBytes),
          contentType,
          Object.entries(tags)
            .map(([name, value]) => `${name}=${value}`)
            .join(" "),
        ]),
        [4],
      );
    if (found.length > limit) {
      const next = nextCommand(cli, "artifacts", ["list", ...(run === undefined ? [] : [run])], { limit: String(limit * 10) });
      terminal.line(`There are more. Next: ${next}`, "green");
    }
    return 0;
  });
}

function sweep(cli: Cli): Promise<number> {
  return reading(cli, async (runtime) => {
    const swept = await runtime.artifacts.sweep();
    const { artifacts, sizeBytes, leftovers } = swept;
    const { terminal } = cli;
    if (cli.json) terminal.json(swept);
    else {
      const what = `${artifacts} ${artifacts === 1 ? "artifact" : "artifacts"} (${sizeText(sizeBytes)})`;
      const left = leftovers === 0 ? "" : `, and what ${leftovers} unfinished ${leftovers === 1 ? "put" : "puts"} had left`;
      terminal.line(artifacts + leftovers === 0 ? "There was nothing to delete." : `Deleted ${what}${left}.`, "green");
    }
    return 0;
  });
}
