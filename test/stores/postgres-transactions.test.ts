// Transactions on PostgreSQL: those of any database, then what only it does.
import { complete, createRuntime, defineEffect, defineWorkflow } from "abstractruntime";
import { postgresStore } from "abstractruntime/postgres";
import { describe, expect, it } from "vitest";
import { goOn, refuses } from "../../src/testing/contract/world.ts";
import { dropSchema, newSchema, serverUrl, startServer } from "./postgres-server.ts";
import { transactions } from "./transactions.ts";
import { storeAt, userDatabase } from "./user-database.ts";

const given = transactions("postgres", async (clock) => {
  const schema = newSchema();
  const store = await postgresStore({ connectionString: serverUrl(), schema, clock, connections: 4 });
  return {
    store,
    address: `${serverUrl()}?schema=${schema}`,
    async close() {
      await store.close();
      await dropSchema(schema);
    },
  };
});

describe("the user's transaction", () => {
  it(
    "that has failed takes nothing more, and goes on after a rollback",
    given(async ({ world, store, user }) => {
      const run = world.newRun();
      await user.begin();
      await expect(user.query("SELECT 1 / 0")).rejects.toThrow(/division by zero/);
      await refuses(store.within(user.client).create([run]), "TRANSACTION_INVALID");
      await user.rollback();
      await user.begin();
      expect(await store.within(user.client).create([run])).toEqual([true]);
      await user.commit();
    }),
  );

  it(
    "in another schema's database is not this store's",
    given(async ({ world, store }) => {
      const elsewhere = await startServer();
      try {
        await using other = await userDatabase(elsewhere.url);
        await other.begin();
        await refuses(store.within(other.client).create([world.newRun()]), "INVALID_OPTION");
        await other.rollback();
      } finally {
        await elsewhere.remove();
      }
    }),
  );
});

describe("a handler", () => {
  it(
    "whose statement failed unnoticed commits nothing",
    given(async ({ world, store, user }) => {
      const run = await world.held();
      const attempt = store.transact(async (client, commit) => {
        await user.on(client, "INSERT INTO ~bookings VALUES ('a')");
        await user.on(client, "SELECT 1 / 0").catch(() => undefined);
        await commit([]);
        await commit([run.next([goOn()])]);
      });
      await refuses(attempt, "TRANSACTION_INVALID");
      expect(await user.query("SELECT id FROM ~bookings")).toEqual([]);
    }),
  );

  it(
    "leaves connections to the store, however many there are",
    given(async ({ world, store, user }) => {
      // More of them than the pool has connections, all in the middle of their work.
      const runs = await Promise.all(Array.from({ length: 12 }, () => world.held()));
      const gate = Promise.withResolvers<void>();
      const all = runs.map((run, i) =>
        store.transact(async (client, commit) => {
          await user.on(client, "INSERT INTO ~bookings VALUES ($1)", `${i}`);
          await gate.promise;
          // A child of a workflow that this store has not seen: it needs a connection of its own.
          await commit([run.next([goOn()], { start: [world.newRun({ workflowId: `new ${i}` })] })]);
        }),
      );
      await store.renew("w", 60_000);
      const other = await world.held();
      await store.commit([other.next([goOn()])]);
      gate.resolve();
      await Promise.all(all);
      expect(await user.query("SELECT id FROM ~bookings")).toHaveLength(12);
    }),
  );
});

it("a server that is cut off in the middle of a handler uses up no attempt, and what it did is there once", async () => {
  const server = await startServer();
  try {
    await using store = await disposable(server.url);
    await using user = await userDatabase(server.url);
    await user.query("CREATE TABLE bookings (id TEXT NOT NULL)");
    let calls = 0;
    const book = defineEffect("book", {
      transactional: true,
      policy: { maxAttempts: 1 },
      run: async (_: unknown, { transaction }) => {
        calls += 1;
        await user.on(transaction, "INSERT INTO bookings VALUES ('once')");
        if (calls === 1) {
          await server.cutOff();
          await user.on(transaction, "INSERT INTO bookings VALUES ('again')");
        }
        return calls;
      },
    });
    const flow = defineWorkflow({
      id: "flow",
      effects: [book],
      entry: "a",
      nodes: { a: () => book({}, { resultKey: "got", nextNode: "b" }), b: ({ vars }) => complete(vars.got) },
    });
    const runtime = await createRuntime({ store, workflows: [flow], scheduler: { pollMs: 50 } });
    try {
      await runtime.start(flow, { runId: "r" });
      expect(await runtime.result("r", { timeoutMs: 40_000 })).toBe(2);
      await using after = await userDatabase(server.url);
      expect(await after.query("SELECT id FROM bookings")).toEqual([{ id: "once" }]);
      expect((await runtime.verify("r")).problems).toEqual([]);
    } finally {
      await runtime.stop();
    }
  } finally {
    await server.remove();
  }
}, 90_000);

async function disposable(address: string) {
  const store = await storeAt(address);
  return Object.assign(store, { [Symbol.asyncDispose]: () => store.close() });
}

it("transactional effects over one connection are refused, since they would wait for themselves", async () => {
  const schema = newSchema();
  const store = await postgresStore({ connectionString: serverUrl(), schema, connections: 1 });
  try {
    const book = defineEffect("book", { transactional: true, run: async () => 1 });
    const flow = defineWorkflow({ id: "flow", effects: [book], entry: "end", nodes: { end: () => complete() } });
    await refuses(createRuntime({ workflows: [flow], store }), "TRANSACTION_UNSUPPORTED");
  } finally {
    await store.close();
    await dropSchema(schema);
  }
});
