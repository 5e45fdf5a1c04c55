/** Maps that are kept as a log of their changes, one line each: what a run was sent and waits for, and what belongs to no run. */
import type { Json } from "../../kernel/json.ts";
import { parseJson } from "../../kernel/json.ts";

/** A map that remembers what was changed until that is taken. */
export class LoggedMap<V> extends Map<string, V> {
  readonly #changes: [key: string, value?: V][] = [];

  override set(key: string, value: V): this {
    this.#changes.push([key, value]);
    return super.set(key, value);
  }

  override delete(key: string): boolean {
    const had = super.delete(key);
    if (had) this.#changes.push([key]);
    return had;
  }

  override clear(): void {
    for (const key of [...this.keys()]) this.delete(key);
  }

  /** The changes since this was called last. */
  take(): [key: string, value?: V][] {
    return this.#changes.splice(0);
  }

  get isChanged(): boolean {
    return this.#changes.length > 0;
  }

  /** As it was, without remembering. */
  restore(key: string, value: V | undefined): void {
    if (value === undefined) super.delete(key);
    else super.set(key, value);
  }
}

/** The tables among the members of an object. */
function tablesOf(owner: object): [name: string, table: LoggedMap<Json>][] {
  return Object.entries(owner).filter((entry): entry is [string, LoggedMap<Json>] => entry[1] instanceof LoggedMap);
}

/** The changes of tables, as text. */
export function takeLines(owner: object): string {
  let text = "";
  for (const [name, table] of tablesOf(owner)) {
    if (!table.isChanged) continue;
    for (const [key, value] of table.take()) text += lineOf(name, key, value);
  }
  return text;
}

/** What tables hold, as text: a log without the past. */
export function allLines(owner: object): string {
  return tablesOf(owner)
    .flatMap(([name, table]) => [...table].map(([key, value]) => lineOf(name, key, value)))
    .join("");
}

/** A log is written anew when it is large enough to matter, and most of it is past. */
export function isMostlyPast(sizeBytes: number, present: string): boolean {
  return sizeBytes >= 65_536 && sizeBytes >= 4 * Buffer.byteLength(present);
}

/** Puts the tables of `owner` back from their log. Answers the numbers of the lines that cannot be read. */
export function restoreLines(owner: object, text: string): number[] {
  const tables = new Map(tablesOf(owner));
  const damaged: number[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    if (line === "") continue;
    const change = readLine(line);
    const table = change && tables.get(change.table);
    if (change && table) table.restore(change.key, change.value);
    else damaged.push(i + 1);
  }
  return damaged;
}

function lineOf(table: string, key: string, value: Json | undefined): string {
  return `${JSON.stringify({ table, key, value })}\n`;
}

function readLine(line: string): { table: string; key: string; value?: Json } | undefined {
  try {
    const change = parseJson(line) as { table: string; key: string; value?: Json } | null;
    return typeof change?.table === "string" && typeof change.key === "string" ? change : undefined;
  } catch {
    return undefined;
  }
}
