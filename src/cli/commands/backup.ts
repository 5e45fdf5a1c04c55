import { statSync } from "node:fs";
import { backupSqlite } from "../../stores/sqlite/index.ts";
import type { AddCommand, Cli } from "../command.ts";
import { requireStore } from "../open-runtime.ts";
import { storePlace } from "../open-store.ts";
import { wrongUse } from "../problem.ts";
import { sizeText } from "../size-text.ts";

export const addBackup: AddCommand = (program, act) => {
  program
    .command("backup")
    .description("copy a SQLite store to a file, while it is in use")
    .argument("<file>", "the file, which must not exist")
    .addHelpText(
      "after",
      `
The copy is the store as it stood at one moment, artifacts included. To restore it, stop all workers and put it where the store was: a
copy that is driven beside the original does again what that does.

Examples:
  $ abstractruntime backup backups/2026-01-31.db`,
    )
    .action(act(backup));
};

const others = {
  postgres: "Use pg_dump, or the continuous archiving of the server: both are consistent while workers run.",
  files: "Stop the process that has it open and copy the directory, or take a snapshot of the file system.",
};

async function backup(cli: Cli, file: string): Promise<number> {
  const place = storePlace(cli.store);
  if (place.kind !== "sqlite")
    throw wrongUse("--store", `a ${place.kind} store is not backed up by this command`, others[place.kind]);
  await requireStore(cli);
  await backupSqlite(place.path, file);
  const { size } = statSync(file);
  if (cli.json) cli.terminal.json({ file, sizeBytes: size });
  else cli.terminal.line(`The store is copied to ${file} (${sizeText(size)}).`, "green");
  return 0;
}
