/** `export RUN... --to FILE`: runs in one portable file. */
import type { Cli } from "./command.ts";
import { findRun } from "./find-run.ts";
import { reading } from "./open-runtime.ts";
import { counted } from "./counted.ts";

export async function exportToFile(cli: Cli, given: readonly string[], to: string, fence: boolean): Promise<number> {
  return reading(cli, async (runtime) => {
    const ids: string[] = [];
    for (const text of given) ids.push(await findRun(runtime, text));
    const exported = await runtime.export(ids, to, { fence });
    const { runIds, records, artifacts } = exported;
    if (cli.json) cli.terminal.json({ ...exported, file: to });
    else {
      cli.terminal.line(
        `${counted(runIds.length, "run")} written to ${to}, with ${counted(records, "record")} and ${counted(artifacts, "artifact")}.`,
        "green",
      );
      if (fence) cli.terminal.line("They have left this store: where the file is imported, they go on.");
    }
    return 0;
  });
}
