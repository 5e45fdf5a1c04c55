/** What Node made of a source file is kept for the whole run: the processes that tests start spend most of their time on that. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

/** What vitest calls before the first test and, with what this gives, after the last. */
export default function setup(): (() => void) | undefined {
  if (process.env.NODE_COMPILE_CACHE !== undefined) return undefined;
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-compiled-"));
  // Test files run in processes that inherit it, and so do the processes that they start.
  process.env.NODE_COMPILE_CACHE = directory;
  return () => rmSync(directory, { recursive: true, force: true, maxRetries: 5 });
}

/** For the environment of a process that does not inherit ours. */
export function compiled(): Record<string, string> {
  const { NODE_COMPILE_CACHE } = process.env;
  return NODE_COMPILE_CACHE === undefined ? {} : { NODE_COMPILE_CACHE };
}
