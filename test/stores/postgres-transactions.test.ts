// Transactions on PostgreSQL: those of any database, then what only it does.
import { complete, createRuntime, defineEffect, defineWorkflow } from "abstractruntime";
import { postgresStore } from "abstractruntime/postgres";
import pg from "pg";
import { describe, expect, it } from "vitest";
import { goOn, refuses } from "../../src/testing/contract/world.ts";
import { dropSchema, newSchema, serverUrl, startServer } from "./postgres-server.ts";
import { transactions } from "./transactions.ts";
import { storeAt, type UserDatabase, userDatabase } from "./user-database.ts";

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

/** Somebody waits for a lock of this connection. */
async function untilBlocked(user: UserDatabase): Promise<void> {
  const sql = "SELECT count(*) AS n FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))";
  while (Number((await user.query(sql))[0]?.n) === 0);
}

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
    "is on one client that is connected: a pool, or one that would wait for its connection for ever, is refused",
    given(async ({ store }) => {
      expect(() => store.within(new pg.Pool())).toThrow(/INVALID_OPTION: .*is a pool.*pool\.connect\(\)/);
      expect(() => store.within(new pg.Client())).toThrow(/INVALID_OPTION: .*is not connected/);
    }),
  );

  it(
    "that creates a run keeps another of that id from arriving, also when it commits meanwhile",
    given(async ({ world, store, user }) => {
      const parked = await world.parked();
      const copy = await store.copyOf(parked.runId);
      if (!copy) throw new Error("there is no copy");
      const run = world.newRun();
      await user.begin();
      await store.within(user.client).create([run]);
      // Looked at from the beginning: it is refused as soon as the commit is there, which may be before we hear of that.
      const refused = refuses(
        store.adopt({ ...copy, row: { ...copy.row, runId: run.row.runId } }, { token: "t", to: "elsewhere" }),
        "RUN_EXISTS",
      );
      await untilBlocked(user);
      await user.commit();
      await refused;
      expect(await store.moves()).toEqual([]);
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
      expect(await runtime.result("r", { timeoutMs: 100_000 })).toBe(2);
      await using after = await userDatabase(server.url);
      expect(await after.query("SELECT id FROM bookings")).toEqual([{ id: "once" }]);
      expect((await runtime.verify("r")).problems).toEqual([]);
    } finally {
      await runtime.stop();
    }
  } finally {
    await server.remove();
  }
});

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

describe("a connection that is lost at the commit", () => {
  type Query = (text: string, ...rest: unknown[]) => Promise<unknown>;
  type Lost = (commit: () => Promise<unknown>, client: { query: Query; end(): void }) => Promise<unknown>;

  /** What a run books whose connection is lost, as `lose` says, when the first commit with its booking is on the way. */
  async function bookings(
    lose: Lost,
    prepare: (user: UserDatabase) => Promise<unknown> = async () => undefined,
  ): Promise<unknown[]> {
    const schema = newSchema();
    const store = await postgresStore({ connectionString: serverUrl(), schema, connections: 4 });
    const user = await userDatabase(`${serverUrl()}?schema=${schema}`);
    await user.query("CREATE TABLE ~bookings (id TEXT NOT NULL)");
    await prepare(user);
    let attempts = 0;
    const book = defineEffect("book", {
      transactional: true,
      policy: { maxAttempts: 1 },
      run: async (_, { transaction }) => {
        attempts += 1;
        await user.on(transaction, "INSERT INTO ~bookings VALUES ('a')");
        const client = transaction as { query: Query; connection: { stream: { destroy(): void } } };
        const query = client.query.bind(client) as Query;
        if (attempts === 1)
          client.query = (text, ...rest) => {
            const end = (): void => client.connection.stream.destroy();
            return text === "COMMIT" ? lose(() => query(text), { query, end }) : query(text, ...rest);
          };
      },
    });
    const flow = defineWorkflow({
      id: "flow",
      effects: [book],
      entry: "book",
      nodes: { book: () => book({}, { nextNode: "end" }), end: () => complete() },
    });
    try {
      await using runtime = await createRuntime({ workflows: [flow], store });
      await runtime.start(flow, { runId: "r" });
      await runtime.result("r");
      const completed = (await runtime.ledger("r")).filter(({ kind }) => kind === "effect_completed");
      expect(completed).toHaveLength(1);
      expect((await runtime.verify("r")).problems).toEqual([]);
      return await user.query("SELECT id FROM ~bookings");
    } finally {
      await user[Symbol.asyncDispose]();
      await dropSchema(schema);
    }
  }

  it("before the server heard of it: what was written is there once", async () => {
    const lose: Lost = (commit, { end }) => {
      end();
      return commit();
    };
    expect(await bookings(lose)).toHaveLength(1);
  });

  it("before its answer was heard: what was written is there once", async () => {
    const lose: Lost = async (commit, { query, end }) => {
      await commit();
      end();
      return query("SELECT 1");
    };
    expect(await bookings(lose)).toHaveLength(1);
  });

  it("while the server is still at it: what was written is there once", async () => {
    const slowly = (user: UserDatabase): Promise<unknown> =>
      user.query(`
        CREATE FUNCTION ~slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(1); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON ~bookings DEFERRABLE INITIALLY DEFERRED
          FOR EACH ROW EXECUTE FUNCTION ~slow()`);
    const lose: Lost = async (commit, { end }) => {
      const committed = commit();
      // Sent with the next turn of the loop.
      setImmediate(() => setImmediate(end));
      return committed;
    };
    expect(await bookings(lose, slowly)).toHaveLength(1);
  });
});
