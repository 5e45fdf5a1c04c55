/** `import FILE`: runs out of a portable file. */
import type { Cli } from "./command.ts";
import { openRuntime } from "./open-runtime.ts";

export async function importFromFile(cli: Cli, file: string): Promise<number> {
  const runtime = await openRuntime(cli, { scheduler: false });
  try {
    const imported = await runtime.import(file);
    const { runIds, records, artifacts } = imported;
    if (cli.json) cli.terminal.json(imported);
    else
      cli.terminal.line(
        `${count(runIds.length, "run")} imported, with ${count(records, "record")} and ${count(artifacts, "artifact")}. They verify.`,
        "green",
      );
    return 0;
  } finally {
    await runtime.stop();
  }
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
