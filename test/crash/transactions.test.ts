// Exactly once: killed at any point, the user's rows and the run's records are the same in number, at once and in the end. By default
// a fixed sample of the points; all of them with CRASH_SWEEP=full.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRuntime, type Runtime } from "abstractruntime";
import { describe, expect, test } from "vitest";
import { dropSchema, newSchema, serverUrl } from "../stores/postgres-server.ts";
import { storeAt, type UserDatabase, userDatabase } from "../stores/user-database.ts";
import type { TransactionReport, TransactionTask } from "./transactions-child.ts";
import { type Ended, runProgram } from "./run-child.ts";

const runChild = (task: TransactionTask): Promise<Ended<TransactionReport>> => runProgram("transactions-child.ts", task);

const bookings = ["flight", "hotel", "car"];
const full = process.env.CRASH_SWEEP === "full";

/** A database of its own, and what removes it. */
const databases: Record<string, () => Promise<{ address: string; remove(): Promise<void> }>> = {
  sqlite: async () => {
    const directory = mkdtempSync(join(tmpdir(), "crash-"));
    return {
      address: `sqlite:${directory}/runs.db`,
      remove: async () => rmSync(directory, { recursive: true, force: true }),
    };
  },
  postgres: async () => {
    const schema = newSchema();
    return { address: `${serverUrl()}?schema=${schema}`, remove: async () => void (await dropSchema(schema)) };
  },
};

describe.each(Object.keys(databases))("killed at any point on %s", (name) => {
  /** Crashes there, looks, restarts unharmed, looks again. Answers whether it did crash. */
  async function crashAt(crash: NonNullable<TransactionTask["crash"]>): Promise<boolean> {
    const { address, remove } = await (databases[name] as () => Promise<{ address: string; remove(): Promise<void> }>)();
    try {
      await (await storeAt(address)).close();
      await using user = await userDatabase(address);
      await user.query("CREATE TABLE ~orders (id TEXT NOT NULL)");
      await user.query("CREATE TABLE ~bookings (id TEXT NOT NULL, what TEXT NOT NULL)");
      const first = await runChild({ address, crash });
      const crashed = first.signal === "SIGKILL";
      if (crashed) {
        await look(address, user, false);
        // Where nothing but its lease tells that it died: that has run out.
        await user.query("UPDATE ~workers SET expires_at = 0");
      }
      const last = crashed ? await runChild({ address }) : first;
      expect(last.complaint).toBe("");
      expect(last.report?.output).toEqual(bookings);
      await look(address, user, true);
      return crashed;
    } catch (error) {
      throw new Error(`After SIGKILL at ${JSON.stringify(crash)} on ${name}`, { cause: error });
    } finally {
      await remove();
    }
  }

  test.concurrent.each([
    ["before", false, 1],
    ["after", true, 2],
  ] as const)(
    "%s a call of the store, every booking and every record is there once",
    async (_, after, start) => {
      let points = 0;
      for (let call = full ? 1 : start; ; call += full ? 1 : 8) {
        points += 1;
        if (!(await crashAt({ call, after }))) break;
      }
      expect(points).toBeGreaterThan(2);
    },
    300_000,
  );

  test("between what the program and its handlers do, every booking and every record is there once", async () => {
    let points = 0;
    for (let own = 1; await crashAt({ own }); own += full ? 1 : 3) points += 1;
    expect(points).toBeGreaterThan(2);
  });
});

async function look(address: string, user: UserDatabase, isOver: boolean): Promise<void> {
  await using runtime: Runtime = await createRuntime({ store: await storeAt(address), scheduler: false });
  const orders = await user.query("SELECT id FROM ~orders");
  const rows = await user.query("SELECT what FROM ~bookings");
  const { runs } = await runtime.list();
  // The order and its run: both, or neither.
  expect(runs.map(({ runId }) => runId)).toEqual(orders.map(({ id }) => id));
  if (isOver) expect(orders).toHaveLength(1);
  if (runs.length === 0) return expect(rows).toEqual([]);
  const ledger = await runtime.ledger("order");
  const booked = ledger.flatMap((record) =>
    record.kind === "effect_completed" && "result" in record.data ? [record.data.result] : [],
  );
  expect(rows.map(({ what }) => what).sort()).toEqual([...booked].sort());
  if (isOver) expect(booked).toEqual(bookings);
  expect(ledger.filter(({ kind }) => kind === "effect_uncertain")).toEqual([]);
  expect((await runtime.verify("order")).problems).toEqual([]);
}
