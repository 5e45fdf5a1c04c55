/** A million runs that wait: what a scheduler costs that has nothing to do, and whether ten of them that are due start on time. */
import { askUser, complete, createRuntime, defineWorkflow, waitUntil } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { DatabaseSync } from "node:sqlite";
import { fileIn } from "./compare.ts";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { bytesIn, newPlace, remove } from "./place.ts";
import { finish, heard, startProcess } from "./processes.ts";
import type { Settings } from "./settings.ts";

const due = 10;
/** How long the scheduler is watched while it has nothing to do, and how far apart those that are due come. */
export const restMs = 10_000;
const settleMs = 2_000;
const apartMs = 130;

export const crowding = defineWorkflow({
  id: "crowding",
  entry: "wait",
  nodes: {
    // Half of them have a deadline, and so a place in the index that due runs are found by.
    wait: ({ vars }) =>
      vars.until === undefined
        ? askUser(
            { prompt: "Publish it?", choices: ["yes", "no"], ...(vars.patient ? {} : { timeoutMs: 86_400_000 }) },
            { resultKey: "answer", nextNode: "end" },
          )
        : waitUntil(vars.until, { nextNode: "end" }),
    end: ({ vars }) => {
      lateness.push(Date.now() - vars.until);
      return complete({ done: true });
    },
  },
});
/** How long after its moment each run went on, in the process that drove it. */
export const lateness: number[] = [];

/** What the process with the scheduler says. */
export interface Rested {
  cpuShare: number;
  rssMb: number;
  lateness: number[];
  /** Of bare timers in the same process, at moments in between. */
  rawLateness: number[];
}

export async function crowd(settings: Settings): Promise<Figure[]> {
  if (!settings.stores.includes("sqlite")) return [];
  const runs = settings.scaled(1_000_000);
  const directory = newPlace();
  const start = performance.now();
  await build(directory, runs);
  const took = (performance.now() - start) / 1_000;
  const rounds: Rested[] = [];
  for (let round = 0; round < settings.rounds(3); round++) {
    const from = Date.now() + settleMs + restMs + 2_000;
    const moments = Array.from({ length: due }, (_, i) => from + Math.max(0, i - 2) * apartMs);
    await addDue(directory, moments);
    const child = await startProcess("crowd-child.ts", [
      directory,
      String(settleMs),
      JSON.stringify(moments.map((at) => at + apartMs / 2)),
    ]);
    rounds.push(await heard<Rested>(child));
    await finish(child);
  }
  const gigabytes = bytesIn(directory) / 1e9;
  remove(directory);

  const title = `${runs.toLocaleString("en")} waiting runs`;
  const on = "sqlite";
  const cpu = rounds.map(({ cpuShare }) => cpuShare * 100);
  const rss = rounds.map(({ rssMb }) => rssMb);
  const late = rounds.map((rested) => Math.max(...rested.lateness));
  const raw = rounds.map(({ rawLateness }) => Math.max(...rawLateness));
  return [
    {
      name: `${title}: a scheduler at rest`,
      on,
      unit: "% of a core",
      ours: median(cpu),
      spread: spreadOf(cpu),
      asked: [{ text: "< 1", met: median(cpu) < 1 }],
      note: `over ${restMs / 1_000} s, in a process of its own; the file has ${gigabytes.toFixed(2)} GB and was made in ${took.toFixed(0)} s by copying rows`,
    },
    {
      name: `${title}: memory of that process`,
      on,
      unit: "MB RSS",
      ours: median(rss),
      spread: spreadOf(rss),
      asked: [{ text: "< 150", met: median(rss) < 150 }],
    },
    {
      name: `${title}: ${due} due, the last to start`,
      on,
      unit: "ms late",
      ours: median(late),
      raw: median(raw),
      spread: spreadOf(late),
      asked: [atMost(median(late), 20)],
      note: `the median one ${median(rounds.flatMap((rested) => rested.lateness))} ms; one every ${apartMs} ms, and three at the same moment. Raw: bare timers in the same process, in between`,
    },
  ];
}

/** Two runs are parked by a runtime; the rows of the others are copies of theirs under other ids. */
async function build(directory: string, runs: number): Promise<void> {
  const runtime = await createRuntime({ workflows: [crowding], store: await sqliteStore(fileIn(directory)), scheduler: false });
  for (const patient of [true, false]) await runtime.run(crowding, { vars: { patient } });
  await runtime.stop();
  const database = new DatabaseSync(fileIn(directory));
  database.exec("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144");
  const columns = (table: string): string[] =>
    database
      .prepare(`SELECT name FROM pragma_table_info('${table}')`)
      .all()
      .map(({ name }) => name as string);
  const others = columns("runs").filter((name) => name !== "run" && name !== "run_id");
  const batch = 50_000;
  const copy = [
    // Run ids are UUIDs: their index is filled in no order.
    `INSERT INTO runs (run, run_id, ${others}) SELECT n, printf('%s-%d', lower(hex(randomblob(14))), n), ${others}
       FROM numbers JOIN runs ON runs.run = 1 + n % 2`,
    "INSERT INTO waits SELECT n, effect_id, wait_key || n, reason, since, until FROM numbers JOIN waits ON waits.run = 1 + n % 2",
    `INSERT INTO records SELECT n * 67108864 + id % 67108864, header, body
       FROM numbers JOIN records ON id BETWEEN (1 + n % 2) * 67108864 AND (1 + n % 2) * 67108864 + 67108863 ORDER BY 1`,
  ].map((sql) => {
    const [, into, rest] = /^(INSERT INTO \w+(?: \([^)]*\))?) (.*)$/s.exec(sql)!;
    return database.prepare(
      `WITH RECURSIVE numbers (n) AS (SELECT ?1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?2) ${into} ${rest}`,
    );
  });
  for (let from = 3; from <= runs; from += batch) {
    database.exec("BEGIN");
    for (const statement of copy) statement.run(from, Math.min(runs, from + batch - 1));
    database.exec("COMMIT");
  }
  database.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  database.close();
}

async function addDue(directory: string, moments: readonly number[]): Promise<void> {
  const runtime = await createRuntime({ workflows: [crowding], store: await sqliteStore(fileIn(directory)), scheduler: false });
  for (const until of moments) await runtime.run(crowding, { vars: { until } });
  await runtime.stop();
}
