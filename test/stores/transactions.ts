/** What stores in databases do in the user's transactions, and in those that they begin for handlers. */
import type { Store } from "abstractruntime";
import { describe, expect, it, onTestFinished } from "vitest";
import { type TestClock, testClock } from "../../src/testing/clock.ts";
import { goOn, message, refuses, World } from "../../src/testing/contract/world.ts";
import { type UserDatabase, userDatabase } from "./user-database.ts";

/** A new store, and how to reach its database. */
export interface Opened {
  store: Store;
  address: string;
  close(): Promise<void>;
}

export interface Given {
  world: World;
  store: Required<Pick<Store, "within" | "transact">> & Store;
  clock: TestClock;
  /** Another connection to the same database. */
  user: UserDatabase;
  address: string;
}

/** @param open Opens a new store. What is opened is closed when the test ends. */
export function transactions(
  name: string,
  open: (clock: TestClock) => Promise<Opened>,
): (test: (given: Given) => Promise<void>) => () => Promise<void> {
  const given =
    (test: (given: Given) => Promise<void>): (() => Promise<void>) =>
    async () => {
      const clock = testClock();
      const { store, address, close } = await open(clock);
      const user = await userDatabase(address);
      onTestFinished(async () => {
        await user[Symbol.asyncDispose]();
        await close();
      });
      await user.query("CREATE TABLE ~bookings (id TEXT NOT NULL)");
      await test({ world: new World(store, clock, undefined), store: store as Given["store"], clock, user, address });
    };

  describe(`${name}, in the user's transaction`, () => {
    it(
      "runs and messages stand exactly if he commits, and nobody hears of them before",
      given(async ({ world, store, user }) => {
        const told: string[] = [];
        const heard = Promise.withResolvers<void>();
        const stop = store.hear(() => {
          told.push("told");
          heard.resolve();
        });
        const run = world.newRun();
        const parked = await world.parked();
        for (const end of ["rollback", "commit"] as const) {
          await user.begin();
          const within = store.within(user.client);
          expect(await within.create([run])).toEqual([true]);
          expect(await within.create([run])).toEqual([false]);
          expect(await within.records(run.row.runId, 0, 1)).toHaveLength(1);
          expect(await within.deliver([message(parked.runId), message(parked.runId), message("none")])).toEqual([
            { kind: "stored" },
            { kind: "duplicate", same: true },
            { kind: "no_run" },
          ]);
          expect(await store.load(run.row.runId)).toBeUndefined();
          expect((await world.load(parked.runId)).mail).toEqual([]);
          told.length = 0;
          await user[end]();
        }
        await heard.promise;
        stop();
        expect((await world.claimable()).sort()).toEqual([run.row.runId, parked.runId].sort());
        expect((await world.load(parked.runId)).mail).toHaveLength(1);
      }),
    );

    it(
      "a call that fails is as if it had not been made, also when he commits",
      given(async ({ world, store, user }) => {
        const [first, second] = [world.newRun(), world.newRun()];
        const broken = { ...second, row: { ...second.row, version: null as unknown as string } };
        await user.begin();
        await user.query("INSERT INTO ~bookings VALUES ('mine')");
        await expect(store.within(user.client).create([first, broken])).rejects.toThrow();
        await user.commit();
        expect(await user.query("SELECT id FROM ~bookings")).toEqual([{ id: "mine" }]);
        expect(await store.load(first.row.runId)).toBeUndefined();
        // It stays of use.
        await user.begin();
        expect(await store.within(user.client).create([first, second])).toEqual([true, true]);
        await user.commit();
        expect((await world.claimable()).sort()).toEqual([first.row.runId, second.row.runId].sort());
      }),
    );

    it(
      "lines that were made in one that he rolled back are made anew",
      given(async ({ world, store, user }) => {
        for (const [workflowId, end] of [
          ["one", "rollback"],
          ["two", "commit"],
          ["one", "commit"],
        ] as const) {
          await user.begin();
          await store.within(user.client).create([world.newRun({ workflowId, runId: workflowId })]);
          await user[end]();
        }
        expect(await world.claimable({ workflows: ["one"] })).toEqual(["one"]);
        expect(await world.claimable({ workflows: ["two"] })).toEqual(["two"]);
      }),
    );

    it(
      "a client that is none, or that has no transaction, is refused",
      given(async ({ world, store, user }) => {
        const attempt = async (client: unknown) => store.within(client).create([world.newRun()]);
        for (const client of [{}, null, "client", () => undefined]) await refuses(attempt(client), "INVALID_OPTION");
        await refuses(attempt(user.client), "TRANSACTION_INVALID");
      }),
    );
  });

  describe(`${name}, in a transaction of its own`, () => {
    it(
      "what is written and what is committed stand together, at once",
      given(async ({ world, store, user }) => {
        const run = await world.held();
        const child = world.newRun();
        const answer = await store.transact(async (client, commit) => {
          await user.on(client, "INSERT INTO ~bookings VALUES ($1)", "a");
          await commit([]);
          await commit([run.next([goOn("a")], { start: [child] })]);
          expect((await world.load(run.runId)).row.seq).toBe(0);
          return "done";
        });
        expect(answer).toBe("done");
        expect((await world.load(run.runId)).row.seq).toBe(1);
        expect(await user.query("SELECT id FROM ~bookings")).toEqual([{ id: "a" }]);
        expect(await world.claimable()).toEqual([child.row.runId]);
        // The run goes on from there, in the ordinary way.
        await store.commit([run.next([goOn("b")])]);
      }),
    );

    it(
      "what rejects is rolled back and answered as it was, and its client is of no use any more",
      given(async ({ world, store, user }) => {
        const run = await world.held();
        const reason = new Error("not this time");
        let client: unknown;
        const next = run.twin().next([goOn()]);
        await expect(
          store.transact(async (given, commit) => {
            client = given;
            await user.on(given, "INSERT INTO ~bookings VALUES ('a')");
            await commit([next]);
            throw reason;
          }),
        ).rejects.toBe(reason);
        await expect(user.on(client, "INSERT INTO ~bookings VALUES ('late')")).rejects.toThrow();
        expect(await user.query("SELECT id FROM ~bookings")).toEqual([]);
        expect((await world.load(run.runId)).row.seq).toBe(0);
        await store.commit([run.next([goOn()])]);
      }),
    );

    it(
      "a commit whose guard fails takes what was written with it",
      given(async ({ world, store, user }) => {
        const run = await world.held();
        const late = run.twin();
        await store.commit([run.next([goOn("first")])]);
        const attempt = store.transact(async (client, commit) => {
          await user.on(client, "INSERT INTO ~bookings VALUES ('a')");
          await commit([late.next([goOn("late")])]);
        });
        await refuses(attempt, "CONFLICT");
        expect(await user.query("SELECT id FROM ~bookings")).toEqual([]);
      }),
    );

    it(
      "one that its handler has ended is noticed before anything is committed",
      given(async ({ world, store, user }) => {
        const run = await world.held();
        for (const end of ["COMMIT", "ROLLBACK"]) {
          const attempt = store.transact(async (client, commit) => {
            await user.on(client, end);
            await commit([]);
          });
          await refuses(attempt, "TRANSACTION_INVALID");
          const another = store.transact(async (client, commit) => {
            await user.on(client, "INSERT INTO ~bookings VALUES ('a')");
            await user.on(client, end);
            await user.on(client, "BEGIN");
            await commit([run.twin().next([goOn()])]);
          });
          await refuses(another, "TRANSACTION_INVALID");
        }
        const attempt = store.transact(async (client, commit) => {
          await user.on(client, "COMMIT");
          await commit([run.twin().next([goOn()])]);
        });
        await refuses(attempt, "TRANSACTION_INVALID");
        expect((await world.load(run.runId)).row.seq).toBe(0);
      }),
    );

    it(
      "many at once, with commits beside them, all come through",
      given(async ({ world, store, user }) => {
        const runs = await Promise.all(Array.from({ length: 20 }, () => world.held()));
        await Promise.all(
          runs.map(async (run, i) => {
            if (i % 2 === 0) return store.commit([run.next([goOn(i)])]);
            return store.transact(async (client, commit) => {
              await user.on(client, "INSERT INTO ~bookings VALUES ($1)", `${i}`);
              await commit([run.next([goOn(i)])]);
            });
          }),
        );
        expect(await user.query("SELECT id FROM ~bookings")).toHaveLength(10);
        for (const run of runs) expect((await world.load(run.runId)).row.seq).toBe(1);
      }),
    );

    it(
      "after it was closed, or while it closes, nothing more is done",
      given(async ({ world, store, user }) => {
        const run = await world.held();
        const entered = Promise.withResolvers<void>();
        const gate = Promise.withResolvers<void>();
        const attempt = store.transact(async (client, commit) => {
          await user.on(client, "INSERT INTO ~bookings VALUES ('a')");
          entered.resolve();
          await gate.promise;
          await commit([run.next([goOn()])]);
        });
        const outcome = attempt.then(
          () => "committed",
          () => "rolled back",
        );
        await entered.promise;
        const closing = store.close();
        gate.resolve();
        await closing;
        expect(await user.query("SELECT id FROM ~bookings")).toHaveLength((await outcome) === "committed" ? 1 : 0);
        await refuses(
          store.transact(async () => undefined),
          "STORE_CLOSED",
        );
      }),
    );
  });
  return given;
}
