/** Where a store keeps its files. Shared by the stores. */
import { chmodSync, existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { invalidOption } from "../kernel/errors.ts";

/** The absolute path of a store of `kind` ("sqlite", "files"). @throws INVALID_OPTION for what is no path, or one as the command line has it. */
export function pathOf(path: string, kind: string): string {
  const isPath = typeof path === "string" && path !== "" && !path.startsWith(`${kind}:`);
  if (isPath) return resolve(path);
  const example = kind === "files" ? ".abstractruntime/files" : ".abstractruntime/runs.db";
  throw invalidOption("path", `${kind}Store() takes a path, such as "${example}", and not ${JSON.stringify(path)}`);
}

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
