/** What queries find runs by beside their rows: tags and indexed vars. */
import type { Scalar } from "../../kernel/query.ts";
import type { Reader } from "./read.ts";

/** As created: tags stay. */
export function insertTags(reader: Reader, run: number, tags: readonly string[]): void {
  for (const tag of tags) reader.prepare("INSERT OR IGNORE INTO run_tags VALUES (?, ?)").run(run, tag);
}

/** By path; null: there is none any more. */
export function writeIndexed(reader: Reader, run: number, changes: Readonly<Record<string, Scalar | null>>): void {
  for (const [path, value] of Object.entries(changes)) {
    if (value === null) reader.prepare("DELETE FROM run_vars WHERE run = ? AND path = ?").run(run, path);
    else reader.prepare("INSERT OR REPLACE INTO run_vars VALUES (?, ?, ?)").run(run, path, scalarText(value));
  }
}

export function indexedOf(reader: Reader, run: number): Record<string, Scalar> {
  const rows = reader.prepare("SELECT path, value FROM run_vars WHERE run = ?").all(run);
  return Object.fromEntries(rows.map(({ path, value }) => [path as string, JSON.parse(value as string) as Scalar]));
}

export function forgetIndexed(reader: Reader, run: number): void {
  reader.prepare("DELETE FROM run_tags WHERE run = ?").run(run);
  reader.prepare("DELETE FROM run_vars WHERE run = ?").run(run);
}

/** Its JSON: so 1, "1" and true are three values. */
export function scalarText(value: Scalar): string {
  return JSON.stringify(value);
}
