/**
 * The store on PostgreSQL: on the server that DATABASE_URL names, or on one of our own beside this process, with its defaults, which
 * are durable (`fsync`, `synchronous_commit`).
 */
import { complete, createRuntime, defineEffect, defineWorkflow, type Store } from "abstractruntime";
import { postgresStore } from "abstractruntime/postgres";
import { testClock } from "abstractruntime/testing";
import { stored, World } from "../src/testing/contract/world.ts";
import { newSchema, sqlOn, startServer } from "../test/stores/postgres-server.ts";
import { atATime } from "./compare.ts";
import { grownOld, watchAge } from "./age.ts";
import { grown, watchGrowth } from "./growth.ts";
import { atLeast, atMost, type Figure, median, spreadOf } from "./figure.ts";
import { replay, traced } from "./postgres-raw.ts";
import type { Settings } from "./settings.ts";

const on = "postgres";
const add = defineEffect("add", { run: ({ n }: { n: number }) => n + 1 });

function chain(id: string, steps: number) {
  return defineWorkflow({
    id,
    effects: [add],
    entry: "next",
    nodes: {
      next: ({ vars }) => (vars.n >= steps ? complete({ n: vars.n }) : add({ n: vars.n }, { resultKey: "n", nextNode: "next" })),
    },
  });
}

const short = chain("short", 5);
const long = chain("long", 500);

export async function postgres(settings: Settings): Promise<Figure[]> {
  const own = process.env.DATABASE_URL ? undefined : await startServer();
  const url = process.env.DATABASE_URL ?? (own?.url as string);
  try {
    return [
      ...(await concurrent(settings, url)),
      ...(await sequential(settings, url)),
      ...(await growing(settings, url)),
      ...(await waiting(settings, url)),
    ];
  } finally {
    await own?.remove();
  }
}

/** A store in a schema of its own, which goes afterwards. */
async function inSchema<T>(url: string, work: (schema: string) => Promise<T>): Promise<T> {
  const schema = newSchema();
  try {
    return await work(schema);
  } finally {
    await sqlOn(`DROP SCHEMA IF EXISTS ${schema} CASCADE`, url);
  }
}

/** The store's own tables, empty. */
async function makeTables(url: string, schema: string): Promise<void> {
  await (await postgresStore({ connectionString: url, schema })).close();
}

interface Turn {
  ours: number;
  raw: number[];
}

/** @param work What is timed, after it was done once to warm up. */
async function turn(url: string, work: (runtime: Awaited<ReturnType<typeof createRuntime>>) => Promise<unknown>): Promise<Turn> {
  const { ours, writes } = await inSchema(url, async (schema) => {
    const { store, writes } = traced(await postgresStore({ connectionString: url, schema }));
    const runtime = await createRuntime({ workflows: [short, long], store });
    await work(runtime);
    writes.length = 0;
    const start = performance.now();
    await work(runtime);
    const ours = performance.now() - start;
    await runtime.stop();
    return { ours, writes };
  });
  const raw = await inSchema(url, async (schema) => {
    await makeTables(url, schema);
    return replay(writes, url, schema);
  });
  return { ours, raw };
}

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

async function concurrent(settings: Settings, url: string): Promise<Figure[]> {
  const runs = settings.scaled(2_000);
  const rates: number[] = [];
  const raws: number[] = [];
  for (let round = 0; round < settings.rounds(5); round++) {
    const { ours, raw } = await turn(url, (runtime) => atATime(100, runs, () => runtime.run(short, { vars: { n: 0 } })));
    rates.push((runs * 5_000) / ours);
    raws.push((raw.length * 1_000) / sum(raw));
  }
  return [
    {
      name: "100 concurrent runs of 5 barrier steps",
      on,
      unit: "steps/s",
      ours: median(rates),
      spread: spreadOf(rates),
      asked: [atLeast(median(rates), 10_000)],
      note: `${runs.toLocaleString("en")} runs; one connection does ${median(raws).toFixed(0)} of their commits a second one by one, bare`,
    },
  ];
}

async function sequential(settings: Settings, url: string): Promise<Figure[]> {
  const rates: number[] = [];
  const raws: number[] = [];
  const ratios: number[] = [];
  for (let round = 0; round < settings.rounds(7); round++) {
    const { ours, raw } = await turn(url, (runtime) => runtime.run(long, { vars: { n: 0 } }));
    rates.push(500_000 / ours);
    raws.push(500_000 / sum(raw));
    ratios.push(sum(raw) / ours);
  }
  return [
    {
      name: "sequential barrier steps",
      on,
      unit: "steps/s",
      ours: median(rates),
      raw: median(raws),
      ratio: median(ratios),
      spread: spreadOf(ratios),
      asked: [atLeast(median(ratios), 0.7, "of raw ")],
      note: "raw: the same rows, a statement for each commit, on one connection",
    },
  ];
}

/** One run that grows, and one that grows old: what their last steps take beside their first, and what the first leaves on disk. */
async function growing(settings: Settings, url: string): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const kind of ["barrier", "speculative"] as const) {
    const growths: [number, number][] = [];
    const ages: [number, number][] = [];
    const sizes: number[] = [];
    for (let round = 0; round < settings.rounds(5); round++)
      await inSchema(url, async (schema) => {
        const store = await postgresStore({ connectionString: url, schema });
        watchGrowth(store);
        watchAge(store);
        const runtime = await createRuntime({ workflows: [long], store });
        await runtime.run(long, { vars: { n: 0 } });
        const before = await bytesOf(schema, url);
        const { early, late } = await grown(runtime, kind);
        growths.push([early, late]);
        sizes.push(((await bytesOf(schema, url)) - before) / 1e6);
        const { young, aged } = await grownOld(runtime, kind);
        ages.push([young, aged]);
        await runtime.stop();
      });
    figures.push(
      ratioFigure(`growth, ${kind} steps: last 50 of 500 / first 50`, growths, 1.3),
      {
        name: `growth, ${kind} steps: tables and indexes`,
        on,
        unit: "MB",
        ours: median(sizes),
        spread: spreadOf(sizes),
        asked: [atMost(median(sizes), 4)],
        note: "what they take more than before",
      },
      ratioFigure(`age, ${kind}: step 10,000 / step 10`, ages, 1.2),
    );
  }
  return figures;
}

function ratioFigure(name: string, pairs: readonly [number, number][], most: number): Figure {
  const ratios = pairs.map(([early, late]) => late / early);
  const us = (i: 0 | 1): string => (median(pairs.map((pair) => pair[i])) * 1_000).toFixed(0);
  const ours = median(ratios);
  return {
    name,
    on,
    unit: "times",
    ours,
    spread: spreadOf(ratios),
    asked: [atMost(ours, most)],
    note: `a step took ${us(0)} us, then ${us(1)} us`,
  };
}

/** Of all tables of a schema, with their indexes and long values. */
async function bytesOf(schema: string, url: string): Promise<number> {
  const sql = `SELECT sum(pg_total_relation_size(c.oid))::bigint AS bytes FROM pg_class c
    WHERE c.relnamespace = '${schema}'::regnamespace AND c.relkind = 'r'`;
  const [row] = await sqlOn(sql, url);
  return Number((row as { bytes: unknown }).bytes);
}

/** A million runs that wait: claiming those that are due, and steps beside them. */
async function waiting(settings: Settings, url: string): Promise<Figure[]> {
  const count = settings.scaled(1_000_000);
  return inSchema(url, async (schema) => {
    const clock = testClock();
    const store = await postgresStore({ connectionString: url, schema, clock });
    const world = new World(store, clock, undefined);
    await store.create([stored(world.newRun({ runId: "like" }), clock.now() + 1e9)]);
    const before = await stepsOf(store, world, settings.scaled(500));
    await fill(url, schema, count);
    const claims: number[] = [];
    const dues: number[] = [];
    const worker = await world.worker();
    for (let round = 0; round < 2 * settings.rounds(15); round++) {
      await store.create(Array.from({ length: 10 }, () => stored(world.newRun())));
      const start = performance.now();
      await store.nextDue(worker);
      const asked = performance.now();
      const claimed = await store.claim(worker, { limit: 10 });
      claims.push(performance.now() - asked);
      dues.push(asked - start);
      if (claimed.length !== 10) throw new Error(`${claimed.length} runs were claimed.`);
    }
    const beside = await stepsOf(store, world, settings.scaled(500));
    await store.close();
    const title = `${count.toLocaleString("en")} waiting runs`;
    return [
      {
        name: `${title}: claiming and loading 10 due ones`,
        on,
        unit: "ms",
        ours: median(claims),
        spread: spreadOf(claims),
        asked: [atMost(median(claims), 20)],
        note: `asking when the next one is due: ${median(dues).toFixed(2)} ms. Their plans are held by test/stores/postgres-plans.test.ts`,
      },
      {
        name: `${title}: a step beside them, of one in an empty store`,
        on,
        unit: "x",
        ours: median(beside) / median(before),
        asked: [atMost(median(beside) / median(before), 1.3)],
        note: `${(median(beside) * 1_000).toFixed(0)} us, and ${(median(before) * 1_000).toFixed(0)} us in the empty store`,
      },
    ];
  });
}

/** Milliseconds of commits of one run, one after the other. */
async function stepsOf(store: Store, world: World, count: number): Promise<number[]> {
  const holder = await world.held();
  const each: number[] = [];
  for (let i = 0; i < count; i++) {
    const step = holder.next([{ kind: "step", data: { nextNode: "work" } }]);
    const start = performance.now();
    await store.commit([step]);
    each.push(performance.now() - start);
  }
  return each;
}

/** Runs like the one that is there: half of them with a deadline. By SQL, since what is measured is not how they came to be. */
async function fill(url: string, schema: string, count: number): Promise<void> {
  await sqlOn(
    `INSERT INTO ${schema}.runs (run, run_id, workflow_id, version, status, paused, node, step, seq, head, wake_at, lane, priority, epoch,
      created_at, updated_at, rested_at)
    SELECT nextval('${schema}.run_numbers'), md5(i::text), workflow_id, version, 'waiting', false, node, step, 3, head,
      CASE WHEN i % 2 = 0 THEN wake_at + i END, lane, 0, 1, created_at, updated_at, updated_at
    FROM ${schema}.runs, generate_series(1, ${count}) i WHERE run_id = 'like';
    INSERT INTO ${schema}.waits SELECT run, '1', 'key ' || run, 'event', created_at FROM ${schema}.runs WHERE status = 'waiting'`,
    url,
  );
  await sqlOn(`VACUUM ANALYZE ${schema}.runs`, url);
}
