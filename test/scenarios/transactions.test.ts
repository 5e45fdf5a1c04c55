// What the user's own tables and a run have in common: both stand, or neither.
import {
  all,
  complete,
  defineEffect,
  defineWorkflow,
  type EffectContext,
  permanent,
  type Run,
  sleep,
  wait,
  waitEvent,
} from "abstractruntime";
import { expect } from "vitest";
import type { Row, UserDatabase } from "../stores/user-database.ts";
import { refusal, scenario as scenarioOn, type StoreKind, storeKinds, type World } from "./harness.ts";

/** Stores that live in a database. */
const databases = storeKinds.filter((kind) => kind !== "memory" && kind !== "files");
const scenario = (
  name: string,
  play: (world: World, database: UserDatabase) => Promise<void>,
  kinds: readonly StoreKind[] = databases,
): void => {
  if (kinds.length === 0) return;
  scenarioOn(
    name,
    async (world) => {
      await using database = await world.database();
      await database.query("CREATE TABLE IF NOT EXISTS ~bookings (id TEXT NOT NULL)");
      await play(world, database);
    },
    kinds,
  );
};

const booked = async (database: UserDatabase): Promise<unknown[]> =>
  (await database.query("SELECT id FROM ~bookings ORDER BY id")).map(({ id }: Row) => id);
const insert = (database: UserDatabase, id: string, client: unknown = database.client): Promise<Row[]> =>
  database.on(client, "INSERT INTO ~bookings VALUES ($1)", id);
const countOf = async (database: UserDatabase, client: unknown = database.client): Promise<number> =>
  Number((await database.on(client, "SELECT count(*) AS n FROM ~bookings"))[0]?.n);

/** Waits for `go`, and completes with what came. */
const listener = defineWorkflow({
  id: "listener",
  entry: "wait",
  nodes: { wait: () => waitEvent("go", { resultKey: "got", nextNode: "end" }), end: ({ vars }) => complete(vars.got) },
});

const backoff = { initialMs: 0, jitter: 0 };
/** Books under its run's id, as `then` says. */
function booking(database: UserDatabase, then: (context: EffectContext, attempt: number) => unknown = () => "booked") {
  let attempts = 0;
  const book = defineEffect("book", {
    transactional: true,
    // Less than the time after which a worker looks again, which it cannot while a handler has a SQLite file to itself.
    policy: { backoff, timeoutMs: 500 },
    run: async (_: unknown, context) => {
      attempts += 1;
      await insert(database, `${context.runId} ${attempts}`, context.transaction);
      return (await then(context, attempts)) as string;
    },
  });
  const flow = defineWorkflow({
    id: "flow",
    effects: [book],
    entry: "book",
    nodes: { book: () => book({}, { resultKey: "got", nextNode: "end" }), end: ({ vars }) => complete(vars.got ?? null) },
  });
  return { book, flow, attempts: () => attempts };
}

/** A worker hears of what was committed; where it does not listen, it looks now and then. */
const heard = (world: World): Promise<void> => world.advance(world.kind === "sqlite" ? 0 : 1_000);

async function play(world: World, flow: Parameters<World["run"]>[0]): Promise<Run<any, any>> {
  await world.use(flow);
  const runId = await world.start(flow, { runId: "r" });
  await world.settle();
  return world.get(runId);
}

// ---- In the user's transaction ---------------------------------------------------------------------------------------------

scenario(
  "a run that is started in a transaction is there once that is committed, and goes on by itself",
  async (world, database) => {
    await world.use(listener);
    await world.with(async (runtime) => {
      await database.begin();
      await insert(database, "mine");
      await runtime.start(listener, { runId: "r", transaction: database.client });
      expect(await runtime.store.load("r")).toBeUndefined();
      await database.commit();
    });
    await heard(world);
    expect(await world.get("r")).toMatchObject({ status: "waiting" });
    expect((await world.signal("r", "go", 1)).output).toBe(1);
    expect(await booked(database)).toEqual(["mine"]);
  },
);

scenario("a run whose start is rolled back never was", async (world, database) => {
  await world.use(listener);
  await world.with(async (runtime) => {
    await database.begin();
    await insert(database, "mine");
    await runtime.start(listener, { runId: "r", vars: { n: 1 }, transaction: database.client });
    await database.rollback();
    expect(await runtime.store.load("r")).toBeUndefined();
    // Its id is free, also for something else.
    await runtime.start(listener, { runId: "r", vars: { n: 2 } });
  });
  await world.settle();
  expect((await world.get("r")).vars).toEqual({ n: 2 });
  expect(await booked(database)).toEqual([]);
});

scenario(
  "a second start in the same transaction finds the first, and one with other vars is refused",
  async (world, database) => {
    await world.use(listener);
    await world.with(async (runtime) => {
      const transaction = database.client;
      await database.begin();
      await runtime.start(listener, { runId: "r", vars: { n: 1 }, transaction });
      await runtime.start(listener, { runId: "r", vars: { n: 1 }, transaction });
      expect(await refusal(runtime.start(listener, { runId: "r", vars: { n: 2 }, transaction }))).toMatch(/^RUN_EXISTS: /);
      await insert(database, "all the same");
      await database.commit();
    });
    expect((await world.get("r")).vars).toEqual({ n: 1 });
    expect(await booked(database)).toEqual(["all the same"]);
  },
);

scenario("a signal counts exactly if the transaction does, also one to a run that was started in it", async (world, database) => {
  await world.use(listener);
  const transaction = database.client;
  await world.start(listener, { runId: "r" });
  await world.settle();
  await world.with(async (runtime) => {
    await database.begin();
    expect(await runtime.signal("r", "go", "lost", { id: "1", transaction })).toEqual({ duplicate: false });
    await database.rollback();
    await database.begin();
    await runtime.start(listener, { runId: "new", transaction });
    await runtime.signal("new", "go", "early", { transaction });
    expect(await runtime.signal("r", "go", "came", { id: "1", transaction })).toEqual({ duplicate: false });
    expect(await runtime.signal("r", "go", "came", { id: "1", transaction })).toEqual({ duplicate: true });
    expect(await refusal(runtime.signal("none", "go", 1, { transaction }))).toMatch(/^RUN_NOT_FOUND: /);
    await database.commit();
  });
  await heard(world);
  expect((await world.get("r")).output).toBe("came");
  expect((await world.get("new")).output).toBe("early");
});

scenario("an answer counts exactly if the transaction does", async (world, database) => {
  await world.use(listener);
  await world.start(listener, { runId: "r" });
  await world.settle();
  await world.with(async (runtime) => {
    await database.begin();
    await runtime.respond("r", "no", { transaction: database.client });
    await database.rollback();
    await database.begin();
    await runtime.resume("r", { waitKey: "go", payload: "yes", transaction: database.client });
    expect(await refusal(runtime.respond("r", "late", { transaction: database.client }))).toMatch(/^ALREADY_ANSWERED: /);
    await database.commit();
  });
  await heard(world);
  expect((await world.get("r")).output).toBe("yes");
});

scenario("without a transaction, or with something else, calls are refused and nothing is stored", async (world, database) => {
  await world.use(listener);
  await world.with(async (runtime) => {
    for (const transaction of [database.client, {}, "BEGIN", null]) {
      const code = transaction === database.client ? /^TRANSACTION_INVALID: / : /^INVALID_OPTION: /;
      expect(await refusal(runtime.start(listener, { runId: "r", transaction }))).toMatch(code);
      expect(await refusal(runtime.signal("r", "go", 1, { transaction }))).toMatch(code);
    }
    await database.begin();
    expect(await refusal(runtime.run(listener, { transaction: database.client }))).toMatch(/^INVALID_OPTION: /);
    await database.rollback();
    expect(await runtime.store.load("r")).toBeUndefined();
  });
});

// ---- Transactional effects -------------------------------------------------------------------------------------------------

scenario("what a handler writes stands with its record", async (world, database) => {
  const { flow, attempts } = booking(database, async ({ transaction }) => {
    // Nobody else sees it before the record is there.
    expect(await countOf(database, transaction)).toBe(1);
    expect(await booked(database)).toEqual([]);
    return "booked";
  });
  const run = await play(world, flow);
  expect(run.output).toBe("booked");
  expect(await booked(database)).toEqual(["r 1"]);
  expect(attempts()).toBe(1);
  expect(await world.kinds("r")).toEqual(["run_started", "effect_started 1", "effect_completed 1", "run_completed"]);
});

scenario("what a handler that throws has written is gone, and the next attempt begins anew", async (world, database) => {
  const { flow } = booking(database, ({ uncertain, attempt }) => {
    expect(uncertain).toBe(false);
    if (attempt < 3) throw new Error("not definite, and certain all the same");
    return "booked";
  });
  const run = await play(world, flow);
  expect(run.output).toBe("booked");
  expect(await booked(database)).toEqual(["r 3"]);
  expect((await world.kinds("r")).filter((kind) => kind.startsWith("effect_"))).toEqual([
    "effect_started 1",
    "effect_failed 1",
    "effect_started 1",
    "effect_failed 1",
    "effect_started 1",
    "effect_completed 1",
  ]);
});

scenario("an effect that fails for good leaves nothing but its failure", async (world, database) => {
  const { flow, attempts } = booking(database, () => {
    throw permanent(new Error("sold out"));
  });
  const run = await play(world, flow);
  expect(run).toMatchObject({ status: "failed", error: { code: "EFFECT_FAILED" } });
  expect(attempts()).toBe(1);
  expect(await booked(database)).toEqual([]);
});

scenario("a result that cannot be stored rolls back what came with it", async (world, database) => {
  const { flow, attempts } = booking(database, () => ({ at: new Date() }));
  expect(await play(world, flow)).toMatchObject({ status: "failed" });
  expect(attempts()).toBe(1);
  expect(await booked(database)).toEqual([]);
});

scenario("a handler that does not end in time is rolled back, and what it writes later goes nowhere", async (world, database) => {
  const hangs = Promise.withResolvers<void>();
  let late: Promise<unknown> | undefined;
  const { flow } = booking(database, async ({ transaction, signal }, attempt) => {
    if (attempt > 1) return "booked";
    await hangs.promise;
    expect(signal.aborted).toBe(true);
    late = insert(database, "late", transaction);
    return late;
  });
  await world.use(flow);
  await world.start(flow, { runId: "r" });
  await world.advance(499);
  expect(await booked(database)).toEqual([]);
  await world.advance(1);
  expect((await world.get("r")).output).toBe("booked");
  hangs.resolve();
  await world.settle();
  await expect(late).rejects.toThrow();
  expect(await booked(database)).toEqual(["r 2"]);
});

scenario(
  "a run that is cancelled while its handler works has done nothing",
  async (world, database) => {
    const { flow } = booking(database, async ({ signal }) => {
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
    });
    await world.use(flow);
    await world.start(flow, { runId: "r" });
    await world.settle();
    await world.with((runtime) => runtime.cancel("r"));
    await world.settle();
    expect(await world.get("r")).toMatchObject({ status: "cancelled" });
    expect(await booked(database)).toEqual([]);
  },
  // SQLite lets nobody write meanwhile, so that nobody can be cancelled.
  databases.filter((kind) => kind !== "sqlite"),
);

scenario(
  "what is sent while a handler has the file to itself is stored when it is done",
  async (world, database) => {
    const gate = Promise.withResolvers<void>();
    const { flow } = booking(database, async () => {
      await gate.promise;
      return "booked";
    });
    await world.use(flow);
    await world.start(flow, { runId: "r" });
    await world.settle();
    const sent = world.with((runtime) => runtime.cancel("r"));
    gate.resolve();
    await sent;
    await world.settle();
    // It came before the cancel, or behind it.
    expect(["cancelled", "completed"]).toContain((await world.get("r")).status);
    expect(await booked(database)).toEqual(["r 1"]);
  },
  databases.filter((kind) => kind === "sqlite"),
);

scenario("beside other effects of a group it has the run to itself, and all of them count once", async (world, database) => {
  const { book } = booking(database);
  const plain = defineEffect("plain", { run: async ({ n }: { n: number }) => n });
  const quick = defineEffect("quick", { speculative: true, run: ({ n }: { n: number }) => n });
  const flow = defineWorkflow({
    id: "group",
    effects: [book, plain, quick],
    entry: "a",
    nodes: {
      a: () => all([plain({ n: 1 }), book({}), quick({ n: 2 }), book({}), plain({ n: 3 })], { resultKey: "got", nextNode: "b" }),
      b: () => sleep(1_000, { nextNode: "c" }),
      c: ({ vars }) => complete(vars.got),
    },
  });
  await play(world, flow);
  await world.advance(1_000);
  expect((await world.get("r")).output).toEqual([1, "booked", 2, "booked", 3]);
  expect(await countOf(database)).toBe(2);
});

scenario("a handler that waits commits what it wrote with the wait", async (world, database) => {
  const { flow } = booking(database, () => wait({ reason: "job", waitKey: "printed" }));
  expect(await play(world, flow)).toMatchObject({ status: "waiting", waits: [{ waitKey: "printed" }] });
  expect(await booked(database)).toEqual(["r 1"]);
  expect((await world.resume("r", "printed", "done")).output).toBe("done");
  expect(await booked(database)).toEqual(["r 1"]);
});

scenario("a run that a handler starts in its transaction is there exactly if the effect is", async (world, database) => {
  let ask: ((context: EffectContext, attempt: number) => Promise<unknown>) | undefined;
  const { flow } = booking(database, (context, attempt) => ask?.(context, attempt));
  await world.use({ workflows: [flow, listener] });
  ask = (context, attempt) =>
    world.with(async (runtime) => {
      await runtime.start(listener, { runId: `child ${attempt}`, transaction: context.transaction });
      if (attempt === 1) throw new Error("once more");
      return "booked";
    });
  await world.start(flow, { runId: "r" });
  await world.settle();
  expect((await world.get("r")).output).toBe("booked");
  await world.with(async (runtime) => {
    expect(await runtime.store.load("child 1")).toBeUndefined();
    expect(await runtime.store.load("child 2")).toBeDefined();
  });
  expect(await booked(database)).toEqual(["r 2"]);
});

scenario("a handler that ends the transaction itself has failed, and is not called again", async (world, database) => {
  const { flow, attempts } = booking(database, async ({ transaction }) => {
    await database.on(transaction, "COMMIT");
    return "booked";
  });
  const run = await play(world, flow);
  expect(run).toMatchObject({ status: "failed", error: { code: "TRANSACTION_INVALID" } });
  expect(attempts()).toBe(1);
});

for (const after of [false, true]) {
  scenario(
    `a process that dies ${after ? "after" : "before"} any commit leaves one booking for one record`,
    async (world, database) => {
      const { book } = booking(database);
      const flow = defineWorkflow({
        id: "twice",
        effects: [book],
        entry: "a",
        nodes: {
          a: () => book({}, { resultKey: "a", nextNode: "b" }),
          b: () => book({}, { resultKey: "b", nextNode: "c" }),
          c: ({ vars }) => complete([vars.a, vars.b]),
        },
      });
      await world.use(flow);
      let points = 0;
      for (let commits = 1; ; commits++) {
        const runId = `r${commits}`;
        world.killAt(commits, after);
        await world.start(flow, { runId }).catch(() => undefined);
        await world.settle().catch(() => undefined);
        const died = world.killed;
        await world.crash();
        world.disarm();
        if (!died) break;
        points += 1;
        // At once: no more rows than records, and no fewer.
        const completed = (await world.kinds(runId)).filter((kind) => kind.startsWith("effect_completed")).length;
        expect((await booked(database)).filter((id) => String(id).startsWith(`${runId} `))).toHaveLength(completed);
        await world.advance(60_000);
        expect((await world.get(runId)).output).toEqual(["booked", "booked"]);
        expect((await booked(database)).filter((id) => String(id).startsWith(`${runId} `))).toHaveLength(2);
        expect((await world.kinds(runId)).filter((kind) => kind.startsWith("effect_uncertain"))).toEqual([]);
      }
      expect(points).toBeGreaterThan(3);
    },
  );
}
