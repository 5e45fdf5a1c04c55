// Lost connections, lost answers, a server that goes and comes, poolers: nothing is lost, and nothing is done twice.
import { complete, createRuntime, defineEffect, defineWorkflow } from "abstractruntime";
import { type PostgresPool, postgresStore } from "abstractruntime/postgres";
import pg from "pg";
import { describe, expect, it, onTestFinished } from "vitest";
import { foldedOf, goOn, idsOf, message, park, refuses, stored, World } from "../../src/testing/contract/world.ts";
import { testClock } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl, startServer } from "./postgres-server.ts";

type Client = Awaited<ReturnType<PostgresPool["connect"]>>;

interface Lossy {
  pool: PostgresPool;
  /** Statements with this text lose their connection once: before they are sent, or when they were carried out and not answered. */
  lose(text: string, when: "before" | "after"): void;
  lost(): number;
}

/** A pool whose connections break when they are told to, and are new in each transaction, as behind a pooler. */
function lossyPool(url = serverUrl()): Lossy {
  const inner = new pg.Pool({ connectionString: url, max: 4 });
  onTestFinished(() => inner.end());
  let losing: { text: string; when: "before" | "after" } | undefined;
  let lost = 0;
  const broken = (): Error => Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  const connect = async (): Promise<Client> => {
    const client = (await inner.connect()) as unknown as Client;
    return {
      async query(query: { text: string } | string) {
        const text = typeof query === "string" ? query : query.text;
        if (!losing || !text.includes(losing.text)) return client.query(query);
        const { when } = losing;
        losing = undefined;
        lost += 1;
        if (when === "after") await client.query(query);
        throw broken();
      },
      // Whoever comes next finds nothing of what was set on it.
      release(destroy) {
        if (destroy) client.release(true);
        else
          client.query("DISCARD ALL").then(
            () => client.release(),
            () => client.release(true),
          );
      },
      on: (event, listener) => client.on(event, listener),
      off: (event, listener) => client.off(event, listener),
    };
  };
  const pool: PostgresPool = {
    connect,
    end: () => inner.end(),
    on: (event, listener) => inner.on(event, listener),
    off: (event, listener) => inner.off(event, listener),
  };
  return {
    pool,
    lose(text, when) {
      losing = { text, when };
    },
    lost: () => lost,
  };
}

async function lossyWorld(options: { busyTimeoutMs?: number } = {}): Promise<Lossy & { world: World }> {
  const schema = newSchema();
  onTestFinished(async () => void (await dropSchema(schema)));
  const lossy = lossyPool();
  const clock = testClock();
  const store = await postgresStore({ pool: lossy.pool, schema, clock, prepare: false, listen: false, ...options });
  onTestFinished(() => store.close());
  return { ...lossy, world: new World(store, clock, undefined) };
}

describe.each(["before", "after"] as const)("a connection that is lost %s a statement was carried out", (when) => {
  it("does not hide that a run was created", async () => {
    const { world, lose, lost } = await lossyWorld();
    const [run, other] = [world.newRun(), world.newRun()];
    // The same id, by somebody else.
    await world.store.create([stored(world.newRun({ runId: other.row.runId }))]);
    lose(".apply_", when);
    expect(await world.store.create([stored(run), stored(run), stored(other)])).toEqual([true, false, false]);
    expect(lost()).toBe(1);
    expect(await world.store.create([stored(run)])).toEqual([false]);
    expect((await world.claimable()).sort()).toEqual([run.row.runId, other.row.runId].sort());
  });

  it("commits once, alone or with others", async () => {
    const { world, lose, lost } = await lossyWorld();
    const holders = [await world.held(), await world.held()];
    const counters = [{ runId: (holders[0] as (typeof holders)[0]).runId, name: "made", add: 1 }];
    lose(".apply_", when);
    await Promise.all(holders.map((holder) => world.store.commit([holder.next([goOn()], { counters })])));
    lose(".step_", when);
    await world.store.commit([(holders[0] as (typeof holders)[0]).next([goOn()])]);
    expect(lost()).toBe(2);
    expect(await world.store.counters((holders[0] as (typeof holders)[0]).runId)).toEqual({ made: 2 });
    expect((await world.load((holders[0] as (typeof holders)[0]).runId)).row.seq).toBe(2);
  });

  it("delivers once", async () => {
    const { world, lose } = await lossyWorld();
    const parked = await world.parked();
    lose(".apply_", when);
    const [delivery] = await world.store.deliver([message(parked.runId)]);
    expect(["stored", "duplicate"]).toContain(delivery?.kind);
    expect((await world.load(parked.runId)).mail).toHaveLength(1);
    expect(await world.claimable()).toEqual([parked.runId]);
  });

  it("gives the runs that were claimed, and gives them once", async () => {
    const { world, lose, lost } = await lossyWorld();
    const runs = Array.from({ length: 5 }, () => stored(world.newRun()));
    await world.store.create(runs);
    const worker = await world.worker();
    lose(".claim_", when);
    const claimed = await world.store.claim(worker, { limit: 3 });
    expect(lost()).toBe(1);
    expect(claimed).toHaveLength(3);
    for (const { row, lease } of claimed) {
      expect(lease?.epoch).toBe(1);
      await world.store.release(row.runId, lease as NonNullable<typeof lease>, {});
    }
    expect((await world.claimable()).sort()).toEqual(runs.map(({ row }) => row.runId).sort());
  });

  it("purges once, and says so", async () => {
    const { world, lose } = await lossyWorld();
    const parked = await world.parked();
    const holder = await world.takeOver(parked);
    await world.store.commit([holder.next([{ kind: "run_completed", data: { output: null } }], { release: true })]);
    lose("COMMIT", when);
    expect(await world.store.purge([holder.runId])).toEqual({ live: [], purged: [holder.runId] });
    expect((await world.store.tombstone(holder.runId))?.runId).toBe(holder.runId);
  });
});

describe("a claim that was given up", () => {
  it("keeps nothing from anybody: what it may have leased is freed by the next one", async () => {
    const { world, lose } = await lossyWorld({ busyTimeoutMs: 0 });
    await world.store.create([stored(world.newRun({ runId: "one" }))]);
    const worker = await world.worker();
    lose(".claim_", "after");
    await refuses(world.store.claim(worker, { limit: 1 }), "STORE_UNAVAILABLE");
    expect((await world.load("one")).lease?.workerId).toBe(worker.workerId);
    expect(idsOf(await world.store.claim(worker, { limit: 1 }))).toEqual(["one"]);
    // And not for a second time.
    expect(await world.store.claim(worker, { limit: 1 })).toEqual([]);
  });

  it("likewise when the runs could not be read afterwards", async () => {
    const { world, lose } = await lossyWorld({ busyTimeoutMs: 0 });
    await world.store.create([stored(world.newRun({ runId: "one" }))]);
    const worker = await world.worker();
    lose(".load_", "before");
    await refuses(world.store.claim(worker, { limit: 1 }), "STORE_UNAVAILABLE");
    expect(idsOf(await world.store.claim(worker, { limit: 1 }))).toEqual(["one"]);
  });
});

describe("a store on connections that keep nothing", () => {
  it("drives runs to their end", async () => {
    const schema = newSchema();
    onTestFinished(async () => void (await dropSchema(schema)));
    const { pool } = lossyPool();
    const store = await postgresStore({ pool, schema, prepare: false, listen: false });
    const add = defineEffect("add", { run: ({ n }: { n: number }) => n + 1 });
    const workflow = defineWorkflow({
      id: "work",
      effects: [add],
      entry: "next",
      nodes: {
        next: ({ vars }) => (vars.n >= 5 ? complete({ n: vars.n }) : add({ n: vars.n }, { resultKey: "n", nextNode: "next" })),
      },
    });
    const runtime = await createRuntime({ workflows: [workflow], store });
    const ends = await Promise.all(Array.from({ length: 20 }, (_, n) => runtime.run(workflow, { vars: { n: n % 5 } })));
    expect(ends.map(({ output }) => output)).toEqual(ends.map(() => ({ n: 5 })));
    await runtime.stop();
  });
});

describe("statements that were prepared on a connection which a pooler has given to others", () => {
  it("are sent again without a name", async () => {
    const schema = newSchema();
    onTestFinished(async () => void (await dropSchema(schema)));
    const { pool } = lossyPool();
    const clock = testClock();
    // The wrapper throws them away behind the driver's back, as PgBouncer before 1.21 does.
    const store = await postgresStore({ pool, schema, clock, listen: false });
    onTestFinished(() => store.close());
    const world = new World(store, clock, undefined);
    const holder = await world.held();
    for (let i = 0; i < 5; i++) await store.commit([holder.next([goOn(i)])]);
    expect((await world.load(holder.runId)).row.seq).toBe(5);
  });
});

describe("a server that goes and comes", () => {
  it("loses nothing that was acknowledged, and what was under way is done when it is back", async () => {
    const server = await startServer();
    const clock = testClock();
    const open = () => postgresStore({ connectionString: server.url, clock });
    const [store, other] = [await open(), await open()];
    onTestFinished(async () => {
      await store.close();
      await other.close();
      await server.remove();
    });
    const world = new World(store, clock, undefined);
    const worker = await world.worker();
    const holders = await Promise.all(Array.from({ length: 8 }, () => world.held({}, worker)));
    let heard = 0;
    const hearing = Promise.withResolvers<void>();
    const stop = other.hear(() => {
      heard += 1;
      hearing.resolve();
    });
    for (const cut of [() => server.cutOff(), () => server.stop().then(() => server.start())]) {
      const acknowledged = holders.map(({ state }) => state.seq);
      const commits = holders.map((holder, i) =>
        store.commit([holder.next([goOn()])]).then(() => {
          acknowledged[i] = holder.state.seq;
        }),
      );
      const claims = store.claim(worker, { limit: 10 });
      await Promise.all([cut(), ...commits, claims]);
      for (const [i, holder] of holders.entries()) {
        const loaded = await world.load(holder.runId);
        expect(loaded.row.seq).toBe(acknowledged[i]);
        expect(foldedOf(loaded)).toEqual(holder.state);
      }
    }
    // Whoever listened listens again, and was told to look meanwhile.
    await hearing.promise;
    expect(heard).toBeGreaterThan(0);
    stop();
    const parked = holders[0] as (typeof holders)[0];
    await store.commit([parked.next([park({ waitKey: "go" })], { release: true })]);
    expect(await other.deliver([message(parked.runId)])).toEqual([{ kind: "stored" }]);
  });

  it("is told to whoever asks, when it stays away for too long", async () => {
    const server = await startServer();
    const store = await postgresStore({ connectionString: server.url, busyTimeoutMs: 200 });
    await server.stop();
    await expect(store.stats()).rejects.toThrow(/^STORE_UNAVAILABLE: .*tried for \d+ ms/);
    await refuses(store.renew("worker", 1_000), "STORE_UNAVAILABLE");
    await store.close();
    await server.remove();
  });
});
