/** Where the files of a measurement live: beside this code, on the disk that is to be measured, and never on a tmpfs. */
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, ".tmp");
const made = new Set<string>();

process.on("exit", removeAll);
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));

/** A new, empty directory. It is gone when the process ends, if not before. */
export function newPlace(): string {
  mkdirSync(root, { recursive: true });
  const path = mkdtempSync(join(root, "bench-"));
  made.add(path);
  return path;
}

export function remove(path: string): void {
  rmSync(path, { recursive: true, force: true });
  made.delete(path);
}

/** Bytes of all files below a directory. */
export function bytesIn(path: string): number {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

function removeAll(): void {
  for (const path of made) remove(path);
  // Another bench may be at work in there.
  if (existsSync(root) && readdirSync(root).length === 0) rmdirSync(root);
}
