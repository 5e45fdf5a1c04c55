/**
 * What a store was asked to write, and the same rows without the store: each call as one statement, which is one transaction, one after
 * the other on one connection, prepared, in tables with the same indexes. It neither encodes, nor hashes, nor checks.
 */
import type { Store } from "abstractruntime";
import pg from "pg";
import type { NewRun, Transition } from "../src/kernel/transition.ts";

type Write = { run: NewRun } | { transition: Transition };

export interface Trace {
  store: Store;
  writes: Write[];
}

/** A store that notes what is created and committed. */
export function traced(inner: Store): Trace {
  const writes: Write[] = [];
  const store = new Proxy(inner, {
    get(target, name) {
      const value = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      if (name === "create")
        return (runs: readonly NewRun[], workerId?: string) => {
          for (const run of runs) writes.push({ run });
          return target.create(runs, workerId);
        };
      if (name === "commit")
        return (transitions: readonly Transition[]) => {
          for (const transition of transitions) writes.push({ transition });
          return target.commit(transitions);
        };
      return value.bind(target);
    },
  });
  return { store, writes };
}

interface Statement {
  name: string;
  text: string;
  values: unknown[];
}

function insertOf({ row, record }: NewRun, schema: string, number: number): Statement {
  const text = `WITH run AS (INSERT INTO ${schema}.runs (run, run_id, workflow_id, version, status, paused, node, step, seq, head, wake_at,
      lane, priority, worker_id, epoch, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 1, 0, 'raw', 1, $12, $13))
    INSERT INTO ${schema}.records VALUES ($1, 0, $14, $15)`;
  const { runId, workflowId, version, status, paused, node, step, seq, head, wakeAt, createdAt, updatedAt } = row;
  const values = [number, runId, workflowId, version, status, paused, node, step, seq, head, wakeAt, createdAt, updatedAt];
  return { name: `create ${schema}`, text, values: [...values, record.header, record.body] };
}

function updateOf({ row, records }: Transition, schema: string, number: number): Statement {
  const isOver = row.status === "completed";
  const places = records.map((_, i) => `($1, $${11 + 3 * i}, $${12 + 3 * i}, $${13 + 3 * i})`);
  const values = [number, row.version, row.status, row.paused, row.node, row.step, row.seq, row.head, row.updatedAt, row.wakeAt];
  const text = `WITH run AS (UPDATE ${schema}.runs SET version = $2, status = $3, paused = $4, node = $5, step = $6, seq = $7, head = $8,
      updated_at = $9, wake_at = ${isOver ? "$10" : "coalesce(wake_at, $10)"}${isOver ? ", worker_id = NULL, rested_at = $9" : ""} WHERE run = $1)
    INSERT INTO ${schema}.records VALUES ${places.join(", ")}`;
  return {
    name: `commit ${records.length} ${isOver} ${schema}`.slice(0, 60),
    text,
    values: [...values, ...records.flatMap(({ seq, header, body }) => [seq, header, body])],
  };
}

/** Milliseconds of each transaction. */
export async function replay(writes: readonly Write[], url: string, schema: string): Promise<number[]> {
  const numbers = new Map<string, number>();
  const statements = writes.flatMap((write) => {
    if ("run" in write) {
      numbers.set(write.run.row.runId, numbers.size + 1);
      return [insertOf(write.run, schema, numbers.size)];
    }
    const number = numbers.get(write.transition.runId);
    return number === undefined || write.transition.records.length === 0 ? [] : [updateOf(write.transition, schema, number)];
  });
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const each: number[] = [];
  for (const statement of statements) {
    const start = performance.now();
    await client.query(statement);
    each.push(performance.now() - start);
  }
  await client.end();
  return each;
}
