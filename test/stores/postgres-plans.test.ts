// How the server finds rows: by an index, whether the tables were empty when it made its plans, or full.
import { postgresStore } from "abstractruntime/postgres";
import pg from "pg";
import { expect, it, onTestFinished } from "vitest";
import type { RunQuery } from "../../src/kernel/query.ts";
import { finish, goOn, message, park, stored, World } from "../../src/testing/contract/world.ts";
import { testClock } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl, sqlOn } from "./postgres-server.ts";

/** Tables that grow with what the store has ever done. */
const growing = "runs|records|checkpoints|mailbox|waits|run_tags|run_vars|artifacts|artifact_runs|snapshots|tombstones";

/** A store that tells how each of its statements was carried out, also those within functions. */
async function explained(): Promise<{ world: World; schema: string; plans: string[]; pool: pg.Pool }> {
  const schema = newSchema();
  const plans: string[] = [];
  const pool = new pg.Pool({
    connectionString: serverUrl(),
    max: 1,
    async onConnect(client: pg.Client) {
      client.on("notice", ({ message: text }) => {
        if (text?.includes("plan:")) plans.push(text);
      });
      await client.query(`LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on;
        SET auto_explain.log_level = 'notice'; SET client_min_messages = 'notice'`);
    },
  } as unknown as pg.PoolConfig);
  const clock = testClock();
  const store = await postgresStore({ pool, schema, clock, listen: false });
  onTestFinished(async () => {
    await store.close();
    await pool.end();
    await dropSchema(schema);
  });
  return { world: new World(store, clock, undefined), schema, plans, pool };
}

/** As many runs as `like`, each with its records, a wait, a message that was taken, a tag and an indexed var. */
async function fill(schema: string, like: string, count: number): Promise<void> {
  const s = `"${schema}"`;
  await sqlOn(`
    INSERT INTO ${s}.runs (run, run_id, workflow_id, version, status, paused, node, step, seq, head, wake_at, lane, priority, epoch,
      session_id, parent_run_id, created_at, updated_at, rested_at)
    SELECT nextval('${s}.run_numbers'), 'filled ' || i, workflow_id, version, 'waiting', false, node, step, 3, head,
      CASE WHEN i % 2 = 0 THEN wake_at + 10000000 + i END, lane, 0, 1, 's' || i % 1000, 'parent ' || i % 1000, created_at + i, updated_at + i, updated_at + i
    FROM ${s}.runs, generate_series(1, ${count}) i WHERE run_id = '${like}';
    INSERT INTO ${s}.records SELECT run, g, 'header', 'body' FROM ${s}.runs, generate_series(0, 3) g WHERE run_id LIKE 'filled%';
    INSERT INTO ${s}.waits SELECT run, '1', 'key ' || run % 1000, 'event', created_at FROM ${s}.runs WHERE run_id LIKE 'filled%';
    INSERT INTO ${s}.mailbox (run, id, kind, key, digest, at) SELECT run, 'm', 'event', 'k', 'd', 0 FROM ${s}.runs WHERE run_id LIKE 'filled%';
    INSERT INTO ${s}.run_tags SELECT run, 't' || run % 1000 FROM ${s}.runs WHERE run_id LIKE 'filled%';
    INSERT INTO ${s}.run_vars SELECT run, 'order', (run % 1000)::text FROM ${s}.runs WHERE run_id LIKE 'filled%';`);
}

/** What a worker asks for all the time. */
async function work(world: World): Promise<void> {
  const { store } = world;
  const worker = await world.worker({
    queues: { q: { concurrency: 50, keyConcurrency: 2, rateLimit: { limit: 50, periodMs: 1 } } },
  });
  const other = await world.parked();
  const runs = Array.from({ length: 6 }, (_, i) =>
    stored(world.newRun(i % 2 === 0 ? {} : { queue: "q", queueKey: "k" }), world.clock.now() - 1),
  );
  await store.create(runs);
  await store.nextDue(worker);
  await store.claim(worker, { limit: 10 });
  const holder = await world.held({}, worker);
  await store.commit([holder.next([goOn()])]);
  await store.commit([holder.next([goOn()], { send: [message(other.runId, { recall: { runId: other.runId, id: "x" } })] })]);
  await store.deliver([message(holder.runId), message(holder.runId, { id: "m2", ifWaiting: true })], 10);
  await store.news(worker.workerId, 0);
  await store.mail(holder.runId, 0);
  const last = holder.next([park({ waitKey: "go" })], { take: ["m1"], release: true, mailSeen: Number.MAX_SAFE_INTEGER });
  last.checkpoint = holder.checkpoint(1);
  last.indexed = { order: 7 };
  await store.commit([last]);
  await store.claim(worker, { limit: 1, runId: holder.runId });
  const { lease } = await world.load(holder.runId);
  if (lease) await store.release(holder.runId, lease, { mailSeen: 0 });
  await store.load(holder.runId);
  await store.records(holder.runId, 0, 10);
  const ended = await world.held({}, worker);
  await store.commit([ended.next([finish()], { release: true })]);
  await store.retire(worker.workerId);
}

/** Narrow questions, as people ask them. */
const questions: RunQuery[] = [
  {},
  { order: "oldest", limit: 10 },
  { order: "due", limit: 10 },
  { order: "updated", limit: 10 },
  { order: "waiting", limit: 10 },
  { waitKey: "key 7" },
  { parentRunId: "parent 7" },
  { sessionId: "s7" },
  { tags: ["t7"] },
  { vars: { order: 7 } },
  { idPrefix: "filled 77" },
  { status: "running" },
  { holder: "nobody" },
  { blocked: true },
];

it("every statement of a worker finds its rows by an index, on tables that were empty when it was planned, and on full ones", async () => {
  const { world, schema, plans } = await explained();
  await world.store.create([stored(world.newRun({ runId: "first" }), world.clock.now() + 1e9)]);
  await work(world);
  await fill(schema, "first", 20_000);
  for (const statistics of ["old", "new"]) {
    if (statistics === "new")
      await sqlOn(`ANALYZE "${schema}".runs, "${schema}".records, "${schema}".waits, "${schema}".mailbox`);
    plans.length = 0;
    await work(world);
    expect(plans.length).toBeGreaterThan(50);
    expect(plans.filter((plan) => new RegExp(`Seq Scan on (${growing})\\b`).test(plan))).toEqual([]);
    // What is due is found at the head of a lane.
    expect(plans.some((plan) => /Index (Only )?Scan using runs_due on/.test(plan))).toBe(true);
  }
});

it("lists of few among many are found by an index", async () => {
  const { world, schema, plans } = await explained();
  await world.store.create([stored(world.newRun({ runId: "first" }), world.clock.now() + 1e9)]);
  await fill(schema, "first", 20_000);
  await sqlOn(`ANALYZE "${schema}".runs, "${schema}".waits, "${schema}".run_tags, "${schema}".run_vars`);
  for (const question of questions) {
    plans.length = 0;
    const { runs } = await world.store.query(question);
    expect(plans.length).toBeGreaterThan(0);
    const scans = plans.filter((plan) => new RegExp(`Seq Scan on (${growing})\\b`).test(plan));
    expect(scans, JSON.stringify(question)).toEqual([]);
    if (question.waitKey ?? question.parentRunId ?? question.sessionId ?? question.tags) expect(runs).toHaveLength(20);
  }
});

it("a step writes no index: its new version stays on the page", async () => {
  const { world, schema, pool } = await explained();
  const holder = await world.held();
  for (let i = 0; i < 50; i++) {
    await world.clock.advance(1);
    await world.store.commit([holder.next([goOn(i)])]);
  }
  // What a connection has counted is told at its next statement.
  await pool.query("SELECT pg_stat_force_next_flush()");
  await pool.query("SELECT 1");
  const counted = `SELECT n_tup_upd::int AS all, n_tup_hot_upd::int AS hot FROM pg_stat_user_tables
    WHERE schemaname = '${schema}' AND relname = 'runs'`;
  expect(await sqlOn(counted)).toEqual([{ all: 50, hot: 50 }]);
});
