/** Where a store keeps its files. Shared by the stores. */
import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";

/** A new directory is for its owner only; the conventional one also keeps itself out of version control. */
export function prepareDirectory(directory: string): void {
  // One by one: where a directory cannot be made at all, such as in /proc, a recursive mkdir tries for ever.
  const missing: string[] = [];
  let there = directory;
  for (; !existsSync(there); there = dirname(there)) missing.push(there);
  if (!statSync(there).isDirectory()) throw new Error(`${there} is not a directory`);
  if (missing.length === 0) return;
  for (const path of missing.reverse()) {
    mkdirSync(path, { mode: 0o700 });
    if (path.endsWith(".abstractruntime")) writeFileSync(`${path}/.gitignore`, "*\n");
  }
  chmodSync(directory, 0o700);
}
