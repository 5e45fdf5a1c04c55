/** 100,000 runs that wait: what each costs on disk, what opening their store and finding the due ones takes, and what memory. */
import { askUser, complete, createRuntime, defineWorkflow, waitUntil } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { execFileSync } from "node:child_process";
import { DatabaseSync } from "node:sqlite";
import { setTimeout } from "node:timers/promises";
import { atATime, fileIn } from "./compare.ts";
import { atMost, type Figure, median, spreadOf } from "./figure.ts";
import { bytesIn, newPlace, remove } from "./place.ts";
import type { Settings } from "./settings.ts";

const due = 10;

export const patience = defineWorkflow({
  id: "patience",
  entry: "wait",
  nodes: {
    // Half of them have a deadline, and so a place in the index that due runs are found by.
    wait: ({ vars }) =>
      vars.until === undefined
        ? askUser(
            { prompt: `Publish "${vars.topic}"?`, choices: ["yes", "no"], ...(vars.patient ? {} : { timeoutMs: 86_400_000 }) },
            { resultKey: "answer", nextNode: "end" },
          )
        : waitUntil(vars.until, { nextNode: "end" }),
    end: () => complete({ done: true }),
  },
});

export async function waiting(settings: Settings): Promise<Figure[]> {
  const runs = settings.scaled(100_000);
  const full = newPlace();
  const few = newPlace();
  const start = performance.now();
  await build(full, runs);
  const perSecond = (runs * 1_000) / (performance.now() - start);
  await build(few, due);
  await setTimeout(1_500);

  const on = "sqlite";
  const title = `${runs.toLocaleString("en")} waiting runs`;
  const texts = textBytes(full);
  const bytes = bytesIn(full) / runs;
  const figures: Figure[] = [
    {
      name: `${title}: bytes per run`,
      on,
      unit: "bytes",
      ours: bytes,
      raw: texts / runs,
      ratio: texts / runs / bytes,
      note: `raw: the texts and numbers of its run row, its wait and two records. They were parked at ${perSecond.toFixed(0)} a second, 100 at a time`,
    },
  ];

  const ours = { open: [] as number[], claim: [] as number[], all: [] as number[] };
  const raw: number[] = [];
  for (let round = 0; round < settings.rounds(15) + 1; round++) {
    const took = await openAndClaim(full);
    ours.open.push(took.open);
    ours.claim.push(took.claim);
    ours.all.push(took.open + took.claim);
    raw.push(rawFind(full));
  }
  for (const list of [ours.open, ours.claim, ours.all, raw]) list.shift();
  figures.push({
    name: `${title}: open, find and load ${due} due`,
    on,
    unit: "ms",
    ours: median(ours.all),
    raw: median(raw),
    ratio: median(raw) / median(ours.all),
    spread: spreadOf(raw.map((ms, i) => ms / ours.all[i]!)),
    asked: [atMost(median(ours.all), 50)],
    note: `opening ${median(ours.open).toFixed(2)} ms, with the worker's lease and its mark of life; claiming ${median(ours.claim).toFixed(2)} ms. Raw: open, select by the index, lease and read the same rows`,
  });

  const rss = { full: [] as number[], few: [] as number[] };
  for (let round = 0; round < settings.rounds(5); round++) {
    rss.full.push(rssMb(full));
    rss.few.push(rssMb(few));
  }
  const growth = median(rss.full) - median(rss.few);
  figures.push({
    name: `${title}: memory of a runtime over them`,
    on,
    unit: "MB more",
    ours: growth,
    spread: spreadOf(rss.full.map((mb, i) => mb - rss.few[i]!)),
    asked: [{ text: "does not grow", met: growth <= 4 }],
    note: `RSS ${median(rss.full).toFixed(1)} MB beside ${median(rss.few).toFixed(1)} MB with ${due} waiting runs, each in a process of its own, two seconds after its start. "Does not grow" is read as: by no more than 4 MB (40 bytes a run), of which SQLite's page cache may take 2`,
  });
  remove(full);
  remove(few);
  return figures;
}

/** The last ten come due a second after they were parked; the runtime that parked them drives nothing by itself. */
async function build(directory: string, runs: number): Promise<void> {
  const runtime = await createRuntime({ workflows: [patience], store: await sqliteStore(fileIn(directory)), scheduler: false });
  await atATime(100, runs - due, (i) => runtime.run(patience, { vars: { topic: `topic ${i}`, patient: i % 2 === 0 } }));
  await atATime(due, due, () => runtime.run(patience, { vars: { until: Date.now() + 1_000 } }));
  await runtime.stop();
}

async function openAndClaim(directory: string): Promise<{ open: number; claim: number }> {
  const start = performance.now();
  const store = await sqliteStore(fileIn(directory));
  await store.renew("bench", 30_000);
  const opened = performance.now();
  const claimed = await store.claim({ workerId: "bench", workflows: [patience.id], fingerprint: "bench" }, { limit: 100 });
  const end = performance.now();
  if (claimed.length !== due) throw new Error(`${claimed.length} runs were due instead of ${due}.`);
  await store.retire("bench");
  await store.close();
  return { open: opened - start, claim: end - opened };
}

function rawFind(directory: string): number {
  const start = performance.now();
  const database = new DatabaseSync(fileIn(directory));
  database.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; BEGIN IMMEDIATE");
  const rows = database
    .prepare(
      `SELECT run, wake_at FROM runs WHERE lane = 1 AND wake_at <= ? AND wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL
       ORDER BY wake_at LIMIT 100`,
    )
    .all(Date.now());
  const lease = database.prepare("UPDATE runs SET worker_id = 'raw', epoch = epoch + 1 WHERE run = ?");
  for (const { run } of rows) lease.run(run as number);
  database.exec("COMMIT");
  const read = database.prepare("SELECT header, body FROM records WHERE id BETWEEN ?1 * 67108864 AND ?1 * 67108864 + 67108863");
  const records = rows.flatMap(({ run }) => read.all(run as number));
  const ms = performance.now() - start;
  if (records.length !== 2 * due) throw new Error("The raw side reads something else.");
  const free = database.prepare("UPDATE runs SET worker_id = NULL WHERE run = ?");
  for (const { run } of rows) free.run(run as number);
  database.close();
  return ms;
}

/** What is written, without the pages it stands on and the indexes beside it; numbers as eight bytes. */
function textBytes(directory: string): number {
  const database = new DatabaseSync(fileIn(directory), { readOnly: true });
  const sum = (table: string): number => {
    const columns = database.prepare(`SELECT name FROM pragma_table_info('${table}')`).all();
    const sizes = columns.map(
      ({ name }) =>
        `CASE typeof(${name}) WHEN 'text' THEN length(${name}) WHEN 'blob' THEN length(${name}) WHEN 'null' THEN 0 ELSE 8 END`,
    );
    return database.prepare(`SELECT sum(${sizes.join(" + ")}) AS bytes FROM ${table}`).get()!.bytes as number;
  };
  const bytes = sum("runs") + sum("waits") + sum("records");
  database.close();
  return bytes;
}

function rssMb(directory: string): number {
  const args = [...process.execArgv, "--expose-gc", `${import.meta.dirname}/waiting-child.ts`, fileIn(directory)];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: "utf8" })).rss / 1e6;
}
