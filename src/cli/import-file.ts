/** `import FILE`: runs out of a portable file. */
import type { Cli } from "./command.ts";
import { openRuntime } from "./open-runtime.ts";
import { counted } from "./counted.ts";

export async function importFromFile(cli: Cli, file: string): Promise<number> {
  const runtime = await openRuntime(cli, { scheduler: false });
  try {
    const imported = await runtime.import(file);
    const { runIds, records, artifacts } = imported;
    if (cli.json) cli.terminal.json(imported);
    else
      cli.terminal.line(
        `${counted(runIds.length, "run")} imported, with ${counted(records, "record")} and ${counted(artifacts, "artifact")}. They verify.`,
        "green",
      );
    return 0;
  } finally {
    await runtime.stop();
  }
}
