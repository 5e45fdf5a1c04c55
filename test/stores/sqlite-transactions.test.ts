// Transactions on a SQLite file: those of any database, then what only SQLite does.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { complete, createRuntime, defineEffect, defineWorkflow } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { describe, expect, it, onTestFinished } from "vitest";
import { beginRun } from "../../src/kernel/begin.ts";
import { systemIds } from "../../src/kernel/clock.ts";
import { defaultLimits } from "../../src/kernel/execute.ts";
import { goOn, refuses } from "../../src/testing/contract/world.ts";
import { transactions } from "./transactions.ts";

const given = transactions("sqlite", async (clock) => {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  const path = join(directory, "runs.db");
  const store = await sqliteStore(path, { clock, busyTimeoutMs: 1_000 });
  return {
    store,
    address: `sqlite:${path}`,
    async close() {
      await store.close();
      rmSync(directory, { recursive: true });
    },
  };
});

describe("the user's connection", () => {
  it(
    "may give rows in any form",
    given(async ({ world, store, address }) => {
      const client = new DatabaseSync(address.slice("sqlite:".length), { readBigInts: true, returnArrays: true });
      onTestFinished(() => client.close());
      const run = world.newRun();
      client.exec("BEGIN IMMEDIATE");
      await store.within(client).create([run]);
      await store.within(client).deliver([{ id: "1", runId: run.row.runId, kind: "event", key: "go", payload: 1 }]);
      expect(await store.within(client).records(run.row.runId, 0, 1)).toEqual([run.record]);
      client.exec("COMMIT");
      expect((await world.load(run.row.runId)).mail).toHaveLength(1);
      expect(client.prepare("SELECT 1").get()).toEqual([1n]);
    }),
  );

  it(
    "must be open, and on the file of the store",
    given(async ({ world, store }) => {
      const client = new DatabaseSync(":memory:");
      client.exec("BEGIN");
      const attempt = async () => store.within(client).create([world.newRun()]);
      await expect(attempt()).rejects.toThrow(
        /INVALID_OPTION: transaction is on a database in memory, and the runs are kept in .*runs\.db/,
      );
      client.close();
      await refuses(attempt(), "TRANSACTION_INVALID");
    }),
  );

  it(
    "that has only read so far may find the file locked, and can begin again",
    given(async ({ world, store, user, address }) => {
      const other = new DatabaseSync(address.slice("sqlite:".length));
      onTestFinished(() => other.close());
      const run = world.newRun();
      await user.query("BEGIN");
      await user.query("SELECT id FROM ~bookings");
      other.exec("BEGIN IMMEDIATE");
      await refuses(store.within(user.client).create([run]), "STORE_BUSY");
      await user.rollback();
      other.exec("COMMIT");
      await user.begin();
      expect(await store.within(user.client).create([run])).toEqual([true]);
      await user.commit();
    }),
  );
});

describe("the store's own writes", () => {
  it(
    "take turns with the transactions of handlers",
    given(async ({ store }) => {
      const order: string[] = [];
      const gate = Promise.withResolvers<void>();
      const each = Array.from({ length: 5 }, (_, i) =>
        store.transact(async () => {
          if (i === 0) await gate.promise;
          order.push(`handler ${i}`);
        }),
      );
      const written = store.renew("w", 1_000).then(() => order.push("write"));
      // The write is asked for in a later turn of the loop than the transactions.
      await new Promise((resolve) => setImmediate(resolve));
      gate.resolve();
      await Promise.all([...each, written]);
      expect(order).toHaveLength(6);
      // It is written before the second begins, and heard of soon after.
      expect(order.indexOf("write")).toBeLessThan(order.indexOf("handler 2"));
    }),
  );

  it(
    "give up on a handler that does not end, and go on when it has",
    given(async ({ store, clock }) => {
      const gate = Promise.withResolvers<void>();
      const held = store.transact(() => gate.promise);
      await new Promise((resolve) => setImmediate(resolve));
      const written = refuses(store.renew("w", 1_000), "STORE_BUSY");
      await new Promise((resolve) => setImmediate(resolve));
      await clock.advance(1_000);
      await written;
      gate.resolve();
      await held;
      await store.renew("w", 1_000);
    }),
  );

  it(
    "are refused to a handler that would wait for itself, and nobody else",
    given(async ({ world, store, user }) => {
      const [run, other] = [await world.held(), await world.held()];
      let later: (() => Promise<unknown>) | undefined;
      await store.transact(async (client, commit) => {
        await refuses(store.commit([run.twin().next([goOn()])]), "TRANSACTION_INVALID");
        // Where the transaction is named, and for looking, there is nothing to wait for.
        await store.within(client).create([world.newRun({ runId: "new" })]);
        expect(await store.load("new")).toBeUndefined();
        await user.on(client, "INSERT INTO ~bookings VALUES ('a')");
        await commit([run.next([goOn()])]);
        later = () => store.commit([other.next([goOn()])]);
      });
      await later?.();
      expect(await user.query("SELECT id FROM ~bookings")).toEqual([{ id: "a" }]);
      expect(await store.load("new")).toBeDefined();
    }),
  );
});

describe("a store without transactions", () => {
  const stores = { memory: () => memoryStore(), "sqlite in memory": () => sqliteStore(":memory:") };
  it.each(Object.entries(stores))("%s refuses what needs them", async (_, open) => {
    const book = defineEffect("book", { transactional: true, run: async () => 1 });
    const booking = defineWorkflow({
      id: "booking",
      effects: [book],
      entry: "a",
      nodes: { a: () => book({}, { nextNode: "b" }), b: () => complete() },
    });
    const plain = defineWorkflow({ id: "plain", entry: "a", nodes: { a: () => complete() } });
    await refuses(createRuntime({ store: await open(), workflows: [booking] }), "TRANSACTION_UNSUPPORTED");
    await refuses(createRuntime({ store: await open(), effects: [book] }), "TRANSACTION_UNSUPPORTED");
    await using runtime = await createRuntime({ store: await open(), workflows: [plain] });
    await refuses(runtime.start(booking), "TRANSACTION_UNSUPPORTED");
    // A run that came into the store by another way waits for a runtime that has what it needs.
    const begun = await beginRun(booking, { runId: "r", vars: {}, now: Date.now() }, systemIds, defaultLimits);
    await runtime.store.create([begun]);
    await expect(runtime.result("r", { timeoutMs: 100_000 })).rejects.toMatchObject({
      code: "RUN_BLOCKED",
      fields: { code: "TRANSACTION_UNSUPPORTED" },
    });
    await refuses(runtime.start(plain, { transaction: {} }), "TRANSACTION_UNSUPPORTED");
    await refuses(runtime.signal("r", "go", 1, { transaction: {} }), "TRANSACTION_UNSUPPORTED");
  });
});
