// The contract, held by SQLite on a real file; then what only SQLite does.
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { describe, expect, it, onTestFinished } from "vitest";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { testClock } from "../../src/testing/clock.ts";
import { goOn, idsOf, message, outcomes, refuses, stored, World } from "../../src/testing/contract/world.ts";
import { storeContract } from "../../src/testing/store-contract.ts";

storeContract(
  "sqlite",
  async ({ clock }) => {
    const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
    const path = join(directory, "runs.db");
    let store = await sqliteStore(path, { clock });
    return {
      store,
      async reopen() {
        await store.close();
        store = await sqliteStore(path, { clock });
        return store;
      },
      async close() {
        await store.close();
        rmSync(directory, { recursive: true });
      },
    };
  },
  { describe, it },
);

/** A store, and SQL by another connection. */
async function damageable(): Promise<{ world: World; path: string; sql(text: string): void }> {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  const path = join(directory, "runs.db");
  const clock = testClock();
  const store = await sqliteStore(path, { clock });
  onTestFinished(async () => {
    await store.close();
    rmSync(directory, { recursive: true });
  });
  const sql = (text: string): void => {
    const database = new DatabaseSync(path);
    database.exec(text);
    database.close();
  };
  return { world: new World(store, clock, undefined), path, sql };
}

describe("a run that cannot be read", () => {
  const damages: Record<string, string> = {
    mail: "UPDATE mailbox SET payload = '{broken' WHERE run = 1",
    error: "UPDATE runs SET error = '{broken' WHERE run = 1",
  };
  for (const [what, damage] of Object.entries(damages)) {
    it(`is quarantined alone when its ${what} is damaged; the others are given`, async () => {
      const { world, sql } = await damageable();
      const damaged = await world.parked();
      const others = [await world.parked(), await world.parked()];
      await world.store.deliver([damaged, ...others].map(({ runId }) => message(runId)));
      sql(damage);
      expect(await world.claimable()).toEqual(others.map(({ runId }) => runId));
      await refuses(world.store.load(damaged.runId), "RECORD_CORRUPT");
      const { runs } = await world.store.query({ order: "oldest" });
      expect(runs).toHaveLength(3);
      expect(runs[0]).toMatchObject({ blocked: { code: "RECORD_CORRUPT", quarantine: true } });
      expect(runs[0]?.holder).toBeUndefined();
      expect((await world.store.query({ waitKey: "go" })).runs.length).toBe(3);
      expect(await world.claimable({ fingerprint: "code 2" })).toEqual([]);
      expect(await world.store.lift(damaged.runId)).toBe(true);
    });
  }

  it("stands in the way of nobody when its block is damaged", async () => {
    const { world, sql } = await damageable();
    const damaged = await world.held();
    const block = { code: "EFFECT_UNKNOWN", problem: "", fingerprint: "code 1", quarantine: false };
    await world.store.release(damaged.runId, damaged.lease, { blocked: block });
    sql("UPDATE runs SET blocked = '{broken', tried = '{broken'");
    const other = world.newRun();
    await world.store.create([stored(other)]);
    const worker = await world.worker({ fingerprint: "code 2" });
    expect(await world.store.nextDue(worker)).toEqual({ at: world.clock.now(), now: world.clock.now() });
    expect(await world.store.claim(worker, { limit: 1, runId: damaged.runId })).toEqual([]);
    expect(idsOf(await world.store.claim(worker, { limit: 10 }))).toEqual([other.row.runId]);
    expect((await world.store.query({ order: "oldest" })).runs[0]?.blocked).toMatchObject({ quarantine: true });
  });
});

describe("a turn whose transaction is rolled back", () => {
  it("is made again call by call, and each failure keeps its own reason", async () => {
    const { world, sql } = await damageable();
    const [a, b] = [await world.held(), await world.held()];
    sql(`CREATE TRIGGER fail BEFORE INSERT ON records WHEN new.body LIKE '%too much%'
         BEGIN SELECT RAISE(ABORT, 'it is full'); END`);
    const failing = b.twin();
    const commits = [a.next([goOn()]), failing.next([goOn("too much")]), failing.next([goOn()]), a.next([goOn()])];
    const calls = commits.map((transition) => world.store.commit([transition]));
    expect(await outcomes(calls)).toEqual(["ok", "STORE_UNAVAILABLE", "CONFLICT", "ok"]);
    await world.store.commit([b.next([goOn()])]);
    expect([(await world.load(a.runId)).row.seq, (await world.load(b.runId)).row.seq]).toEqual([2, 1]);
  });
});

describe("the lanes in which runs stand", () => {
  it("are found when another store object has made them", async () => {
    const { world, path } = await damageable();
    const other = await sqliteStore(path, { clock: world.clock });
    onTestFinished(() => other.close());
    for (const workflowId of ["a", "b", "c"]) {
      const [here, there] = [world.newRun({ workflowId }), world.newRun({ workflowId, priority: 1 })];
      expect(await Promise.all([world.store.create([stored(here)]), other.create([stored(there)])])).toEqual([[true], [true]]);
      const claimed = await world.store.claim(await world.worker(), { limit: 9 });
      expect(idsOf(claimed)).toEqual([there.row.runId, here.row.runId]);
    }
  });

  it("are made again when the transaction that made them was rolled back", async () => {
    const { world, sql } = await damageable();
    sql(`CREATE TRIGGER fail BEFORE INSERT ON records WHEN new.body LIKE '%too much%'
         BEGIN SELECT RAISE(ABORT, 'it is full'); END`);
    const bad = world.newRun({ workflowId: "a", vars: { text: "too much" } });
    await refuses(world.store.create([stored(bad)]), "STORE_UNAVAILABLE");
    const runs = ["b", "a"].map((workflowId) => world.newRun({ workflowId }));
    await world.store.create(runs.map((run) => stored(run)));
    expect(await world.claimable({ workflows: ["a"] })).toEqual([runs[1]?.row.runId]);
    expect(await world.claimable({ workflows: ["b"] })).toEqual([runs[0]?.row.runId]);
  });

  it("share the slots of their queue with those of other store objects", async () => {
    const { world, path } = await damageable();
    const other = await sqliteStore(path, { clock: world.clock });
    onTestFinished(() => other.close());
    await world.store.create(["a", "b", "c"].map((workflowId) => stored(world.newRun({ workflowId, queue: "q" }))));
    const queues = { q: { concurrency: 2 } };
    const here = await world.worker({ queues });
    await other.renew("there", 60_000);
    const claims = await Promise.all([
      world.store.claim(here, { limit: 9 }),
      other.claim({ workerId: "there", fingerprint: "code 1", queues }, { limit: 9 }),
    ]);
    expect(claims.flatMap(idsOf)).toHaveLength(2);
  });
});

describe("the key of a record", () => {
  const last = 2 ** 26 - 1;

  it("never leaves the range of its run", async () => {
    const { world, sql } = await damageable();
    const holder = await world.held();
    sql(`UPDATE runs SET seq = ${last - 1}`);
    holder.state.seq = last - 1;
    const other = await world.held();
    const tooMany = world.store.commit([holder.twin().next([goOn(), goOn()])]);
    const [alone] = await Promise.all([outcomes([tooMany]), world.store.commit([other.next([goOn()])])]);
    expect(alone).toEqual(["RUN_TOO_LONG"]);
    await world.store.commit([holder.next([goOn()])]);
    await refuses(world.store.commit([holder.next([goOn()])]), "RUN_TOO_LONG");
    expect(await world.store.create([stored(world.newRun())])).toEqual([true]);
  });

  it("never leaves what a number can hold", async () => {
    const { world, sql } = await damageable();
    await world.held();
    sql(`UPDATE runs SET run = ${2 ** 27 - 2}`);
    const [fits, doesNot] = [world.newRun(), world.newRun()];
    expect(await world.store.create([stored(fits)])).toEqual([true]);
    await refuses(world.store.create([stored(doesNot)]), "STORE_UNAVAILABLE");
    expect(await world.store.load(doesNot.row.runId)).toBeUndefined();
  });
});

describe("the mark of a worker", () => {
  it("goes with the row of a worker that crashed, and stays while its process lives", async () => {
    const { world, path, sql } = await damageable();
    const living = await world.worker();
    const mark = (workerId: string): string => join(`${path}-workers`, workerId);
    writeFileSync(mark("crashed"), "");
    sql("INSERT INTO workers VALUES ('crashed', 9e15)");
    await world.store.claim(await world.worker(), { limit: 1 });
    expect([existsSync(mark("crashed")), existsSync(mark(living.workerId))]).toEqual([false, true]);
  });
});
