// Calls that meet others half way: what is locked keeps nobody else waiting, and no run is left with a holder who does not know of it.
import { type PostgresPool, postgresStore } from "abstractruntime/postgres";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import { goOn, idsOf, stored, World } from "../../src/testing/contract/world.ts";
import { lockOf } from "../../src/stores/postgres/connection.ts";
import { testClock } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl } from "./postgres-server.ts";

async function schemaOf(): Promise<string> {
  const schema = newSchema();
  onTestFinished(async () => void (await dropSchema(schema)));
  return schema;
}

async function session(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: serverUrl() });
  await client.connect();
  onTestFinished(() => client.end());
  return client;
}

/** A transaction that has a run's row until it ends. */
async function lockRun(schema: string, runId: string): Promise<() => Promise<void>> {
  const client = await session();
  await client.query("BEGIN");
  await client.query(`SELECT FROM "${schema}".runs WHERE run_id = '${runId}' FOR UPDATE`);
  return async () => void (await client.query("COMMIT"));
}

it("while one run is locked, the worker's other runs go on, others are given, and its lease is renewed", async () => {
  const schema = await schemaOf();
  const clock = testClock();
  const store = await postgresStore({ connectionString: serverUrl(), schema, clock, connections: 4 });
  onTestFinished(() => store.close());
  const world = new World(store, clock, undefined);
  const [stuck, other] = [await world.held(), await world.held()];
  const worker = await world.worker();
  const due = stored(world.newRun());
  const unlock = await lockRun(schema, stuck.runId);
  const order: string[] = [];
  const told = <T>(what: string, call: Promise<T>): Promise<T> =>
    call.then((answer) => {
      order.push(what);
      return answer;
    });
  const waiting = told("the locked one", store.commit([stuck.next([goOn()])]));
  await store.create([due]);
  await told("renewed", store.renew(worker.workerId, 30_000));
  expect(idsOf(await told("given", store.claim(worker, { limit: 5 })))).toEqual([due.row.runId]);
  await told("another", store.commit([other.next([goOn()])]));
  expect(order).toEqual(["renewed", "given", "another"]);
  await unlock();
  await waiting;
});

/** A pool of which one statement is treated in a way of its own: the first with this text. */
function poolWith(text: string, treat: (client: pg.PoolClient, query: pg.QueryConfig) => Promise<unknown>): PostgresPool {
  const inner = new pg.Pool({ connectionString: serverUrl(), max: 6 });
  onTestFinished(() => inner.end());
  let isTreated = false;
  return {
    async connect() {
      const client = await inner.connect();
      const treated = {
        query(query: pg.QueryConfig) {
          if (isTreated || !query.text?.includes(text)) return client.query(query);
          isTreated = true;
          return treat(client, query);
        },
        release: (destroy?: boolean) => client.release(destroy),
        on: (event: "error", listener: (error: Error) => void) => client.on(event, listener),
        off: (event: "error", listener: (error: Error) => void) => client.off(event, listener),
      };
      return treated as unknown as Awaited<ReturnType<PostgresPool["connect"]>>;
    },
    end: () => inner.end(),
    on: (event, listener) => inner.on(event, listener),
    off: (event, listener) => inner.off(event, listener),
  };
}

it("a claim whose connection is lost while the server still works at it leaves no run with a holder who never heard of it", async () => {
  const schema = await schemaOf();
  const clock = testClock();
  const blocker = await session();
  const classid = lockOf(`${schema} lock_queues`);
  let done: Promise<unknown> = Promise.resolve();
  // Its answer goes nowhere, and it takes its time.
  const pool = poolWith(".claim_", (_, query) => {
    const lost = new pg.Client({ connectionString: serverUrl() });
    done = lost
      .connect()
      .then(() => lost.query(query))
      .then(() => lost.end());
    return Promise.reject(Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" }));
  });
  const store = await postgresStore({ pool, schema, clock, listen: false });
  onTestFinished(() => store.close());
  const world = new World(store, clock, undefined);
  await store.create([stored(world.newRun({ queue: "q" })), stored(world.newRun({ queue: "q" }))]);
  const worker = await world.worker({ queues: { q: { concurrency: 10 } } });
  await blocker.query(`SELECT pg_advisory_lock(${classid}, ('x' || substr(md5('q'), 1, 8))::bit(32)::int)`);
  const claiming = store.claim(worker, { limit: 1 });
  await until(async () => (await waitingIn(blocker, schema)) === 2);
  await blocker.query("SELECT pg_advisory_unlock_all()");
  const given = idsOf(await claiming);
  await done;
  expect(given).toHaveLength(1);
  const { runs } = await store.query({ holder: worker.workerId });
  expect(runs.map(({ runId }) => runId)).toEqual(given);
});

/** Claims that wait for a lock. */
async function waitingIn(client: pg.Client, schema: string): Promise<number> {
  const { rows } = await client.query(
    `SELECT count(*)::int AS count FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%"${schema}".claim_%'`,
  );
  return rows[0].count;
}

async function until(is: () => Promise<boolean>): Promise<void> {
  while (!(await is()));
}

it("a worker that is claiming is not forgotten by one who takes it for dead, or nobody would find what it holds when it dies", async () => {
  const schema = await schemaOf();
  const clock = testClock();
  let commit: () => void = () => undefined;
  let claimed: () => void = () => undefined;
  const isClaimed = new Promise<void>((resolve) => {
    claimed = resolve;
  });
  const mayCommit = new Promise<void>((resolve) => {
    commit = resolve;
  });
  // Its transaction takes its time to commit.
  const pool = poolWith(".claim_", async (client, query) => {
    await client.query("BEGIN");
    const answer = await client.query(query);
    claimed();
    await mayCommit;
    await client.query("COMMIT");
    return answer;
  });
  const slow = await postgresStore({ pool, schema, clock, listen: false });
  onTestFinished(() => slow.close());
  const other = await postgresStore({ connectionString: serverUrl(), schema, clock, connections: 2 });
  onTestFinished(() => other.close());
  const world = new World(slow, clock, undefined);
  const worker = await world.worker();
  await clock.advance(120_000);
  const run = stored(world.newRun());
  await slow.create([run]);
  const claiming = slow.claim(worker, { limit: 1 });
  await isClaimed;
  const next = new World(other, clock, undefined);
  Object.assign(next, { ids: world.ids });
  expect(await next.claimable()).toEqual([]);
  commit();
  expect(idsOf(await claiming)).toEqual([run.row.runId]);
  // It dies, and was never heard of again.
  await clock.advance(120_000);
  expect(await next.claimable()).toEqual([run.row.runId]);
});

it("users who have all connections of a shared pool may begin runs in their transactions, all at once", async () => {
  const schema = await schemaOf();
  const pool = new pg.Pool({ connectionString: serverUrl(), max: 3 });
  onTestFinished(() => pool.end());
  const store = await postgresStore({ pool: pool as unknown as PostgresPool, schema, listen: false });
  onTestFinished(() => store.close());
  const world = new World(store, testClock(), undefined);
  const clients = [await pool.connect(), await pool.connect(), await pool.connect()];
  for (const client of clients) await client.query("BEGIN");
  const begun = clients.map(async (client, i) => {
    // Two of them have a workflow that nobody has seen before in common.
    const run = stored(world.newRun({ workflowId: `new ${i % 2}` }));
    const created = await store.within?.(client).create([run]);
    await client.query(i === 1 ? "ROLLBACK" : "COMMIT");
    client.release();
    return created;
  });
  expect(await Promise.all(begun)).toEqual([[true], [true], [true]]);
  expect((await store.query({})).runs).toHaveLength(2);
  // What was rolled back is not taken for made.
  const late = stored(world.newRun({ workflowId: "new 1" }));
  await store.create([late]);
  expect(await world.claimable()).toContain(late.row.runId);
});

it("a pool of one connection serves the store and whoever else uses it; handlers have no transactions then", async () => {
  const schema = await schemaOf();
  const pool = new pg.Pool({ connectionString: serverUrl(), max: 1 });
  onTestFinished(() => pool.end());
  const store = await postgresStore({ pool: pool as unknown as PostgresPool, schema, listen: false });
  onTestFinished(() => store.close());
  const world = new World(store, testClock(), undefined);
  expect(store.transact).toBe(undefined);
  // Whoever else uses the pool gets its connection, however busy the store is.
  let isBusy = true;
  const busy = (async () => {
    while (isBusy) await store.load("nobody");
  })();
  for (let i = 0; i < 3; i++) (await pool.connect()).release();
  isBusy = false;
  await busy;
  const run = stored(world.newRun());
  await store.create([run]);
  expect(await world.claimable()).toEqual([run.row.runId]);
});

it("of calls that are made at once in one transaction, one that fails takes no other with it", async () => {
  const schema = await schemaOf();
  const store = await postgresStore({ connectionString: serverUrl(), schema, connections: 4 });
  onTestFinished(() => store.close());
  const world = new World(store, testClock(), undefined);
  const [blocker, client] = [await session(), await session()];
  const [taken, fresh] = [stored(world.newRun()), stored(world.newRun())];
  await blocker.query("BEGIN");
  await store.within?.(blocker).create([taken]);
  await client.query("BEGIN");
  const within = store.within?.(client);
  const settled = await Promise.allSettled([within?.create([taken]), within?.create([fresh])]);
  expect(settled).toMatchObject([
    { status: "rejected", reason: { code: "STORE_BUSY" } },
    { status: "fulfilled", value: [true] },
  ]);
  await client.query("COMMIT");
  await blocker.query("ROLLBACK");
  expect((await store.query({})).runs.map(({ runId }) => runId)).toEqual([fresh.row.runId]);
});

it("a schema with the longest name there is rings and is heard, also from within a transaction", async () => {
  const schema = newSchema().padEnd(63, "x");
  onTestFinished(async () => void (await dropSchema(schema)));
  const open = () => postgresStore({ connectionString: serverUrl(), schema, connections: 2 });
  const [here, there] = [await open(), await open()];
  onTestFinished(() => here.close());
  onTestFinished(() => there.close());
  const world = new World(here, testClock(), undefined);
  const client = await session();
  for (const _ of [1, 2]) {
    const heard = new Promise<void>((resolve) => onTestFinished(there.hear(resolve)));
    await until(async () => {
      // Until it listens, nothing is heard.
      await client.query("BEGIN");
      await here.within?.(client).create([stored(world.newRun())]);
      await client.query("COMMIT");
      return Promise.race([heard.then(() => true), new Promise<boolean>((resolve) => setImmediate(resolve, false))]);
    });
  }
});
