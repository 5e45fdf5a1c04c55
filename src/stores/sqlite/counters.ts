/** Counters of runs. Inside a transaction of the group, see Q1 and Q2 in `index.ts`. */
import type { CounterChange } from "../../kernel/transition.ts";
import type { Reader } from "./read.ts";

/** Answers what there is no room for, or undefined when all was added. */
export function reserve(reader: Reader, changes: readonly CounterChange[]): CounterChange | undefined {
  const find = reader.prepare(
    "SELECT coalesce(value, 0) AS value FROM runs LEFT JOIN counters ON counters.run = runs.run AND name = ?2 WHERE run_id = ?1",
  );
  const refused = changes.find(({ runId, name, add, limit = Infinity }) => {
    const present = find.get(runId, name)?.value as number | undefined;
    return present !== undefined && present + add > limit;
  });
  if (!refused) addToCounters(reader, changes);
  return refused;
}

/** Those of runs that are not here are not kept. */
export function addToCounters(reader: Reader, changes: readonly CounterChange[]): void {
  const add = reader.prepare(
    `INSERT INTO counters SELECT run, ?2, ?3 FROM runs WHERE run_id = ?1
     ON CONFLICT DO UPDATE SET value = value + excluded.value`,
  );
  for (const change of changes) add.run(change.runId, change.name, change.add);
}

export function writeCounters(reader: Reader, run: number, counters: Readonly<Record<string, number>> = {}): void {
  const insert = reader.prepare("INSERT INTO counters VALUES (?, ?, ?)");
  for (const [name, value] of Object.entries(counters)) insert.run(run, name, value);
}

export function countersOf(reader: Reader, run: number | undefined): Record<string, number> {
  if (run === undefined) return {};
  const rows = reader.prepare("SELECT name, value FROM counters WHERE run = ? AND value <> 0 ORDER BY name").all(run);
  return Object.fromEntries(rows.map(({ name, value }) => [name as string, value as number]));
}
