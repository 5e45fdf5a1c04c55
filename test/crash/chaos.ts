/**
 * Chaos: many workers drive many runs of one store while workers are killed and the database is cut off, again and again.
 *
 * H1. Every run ends, with the output of an undisturbed one.
 * H2. Nothing happens twice: every effect is completed once, no attempt begins twice, and of the transactional one there is one row.
 * H3. A signal whose promise resolved is taken.
 * H4. Every chain verifies, and every state is the fold of its ledger.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRuntime, type Runtime } from "abstractruntime";
import { storeAt, userDatabase } from "../stores/user-database.ts";
import { type Begun, chaosWorkflow, stepsPerRun } from "./chaos-workflow.ts";

export interface ChaosOptions {
  /** As `--store` takes it. */
  address: string;
  workers: number;
  runs: number;
  /** A worker is killed, and another one started, every so many milliseconds. */
  killEveryMs: number;
  /** How often the database is cut off: at equal shares of the runs. */
  outages: number;
  /** Ends the database as a power cut would, and starts it again. */
  cutOff?: () => Promise<void>;
  /** Longest time in all. */
  withinMs: number;
  log?: (line: string) => void;
}

export interface ChaosReport {
  /** From the first start to the last end. */
  tookMs: number;
  kills: number;
  outages: number;
  steps: number;
  /** Attempts that a kill or an outage made necessary. */
  repeated: number;
  /** What does not hold; empty when all is well. */
  problems: string[];
}

export async function chaos(options: ChaosOptions): Promise<ChaosReport> {
  const { address, runs, workers: count, killEveryMs, outages, cutOff, withinMs, log = () => undefined } = options;
  const directory = mkdtempSync(join(tmpdir(), "chaos-"));
  const seen = join(directory, "seen");
  const runIds = Array.from({ length: runs }, (_, i) => `chaos-${i}`);
  const store = await storeAt(address);
  const database = await userDatabase(address);
  await database.query("CREATE TABLE ~chaos_bookings (run_id TEXT NOT NULL)");
  const workflow = chaosWorkflow(seen, database);
  const crowd = new Crowd(address, seen);
  const began = performance.now();
  const deadline = began + withinMs;
  let over = false;
  let kills = 0;
  const runtime = await createRuntime({ store, workflows: [workflow], scheduler: false });
  try {
    await Promise.all(Array.from({ length: count }, () => crowd.start()));
    const killing = (async () => {
      while (!over) {
        await pause(killEveryMs, () => over);
        if (over) return;
        crowd.killOne();
        kills += 1;
        // Where starting takes longer than that, nobody would live long enough to do anything.
        await crowd.start();
      }
    })();
    let cuts = 0;
    // The last runs are kept back until the last outage, so that there is always something to be cut off.
    const keptBack = Math.ceil(runs / (2 * (outages + 1)));
    const user = beTheUser(runtime, runIds.slice(0, -keptBack), deadline).then(async () => {
      await pause(withinMs, () => cuts >= outages || over);
      await beTheUser(runtime, runIds.slice(-keptBack), deadline);
    });
    // Heard of when it is awaited.
    user.catch(() => undefined);
    for (let left = runs; left > 0; ) {
      if (performance.now() > deadline) throw new Error(`${left} runs have not ended: ${await sample(runtime)}`);
      const ended = runs - left;
      if (cutOff && cuts < outages && ended >= (runs * (cuts + 1)) / (outages + 2)) {
        cuts += 1;
        log(`${ended} of ${runs} runs have ended after ${seconds(began)} s; the database is cut off`);
        await cutOff();
      }
      await pause(20);
      left = await persist(async () => runs - (await endedRuns(runtime)), deadline);
    }
    const tookMs = performance.now() - began;
    over = true;
    await Promise.all([killing, user]);
    log(`all ${runs} runs have ended after ${seconds(began)} s, ${kills} kills and ${cuts} outages`);
    const { problems, repeated } = await check(runtime, address, runIds, seen);
    if (cuts < outages) problems.push(`the database was cut off ${cuts} times, and not ${outages}`);
    return { tookMs, kills, outages: cuts, steps: runs * stepsPerRun, repeated, problems };
  } finally {
    over = true;
    await crowd.end();
    await runtime.stop();
    await database[Symbol.asyncDispose]();
    rmSync(directory, { recursive: true, force: true });
  }
}

/** The workers that live. */
class Crowd {
  readonly #args: string[];
  readonly #living = new Set<ChildProcess>();
  #ended = false;

  constructor(...args: string[]) {
    this.#args = args;
  }

  async start(): Promise<void> {
    if (this.#ended) return;
    const child = fork(join(import.meta.dirname, "chaos-worker.ts"), this.#args, {
      execArgv: process.execArgv,
      stdio: "inherit",
    });
    this.#living.add(child);
    child.once("exit", (code) => {
      this.#living.delete(child);
      // One that could not open a store which is cut off is replaced; one that was killed has been already.
      if (code !== null && code !== 0) setTimeout(() => void this.start(), 200);
    });
    await Promise.race([once(child, "message"), once(child, "exit")]);
  }

  killOne(): void {
    const living = [...this.#living];
    living[Math.floor(Math.random() * living.length)]?.kill("SIGKILL");
  }

  async end(): Promise<void> {
    this.#ended = true;
    await Promise.all(
      [...this.#living].map(async (child) => {
        const exit = once(child, "exit");
        child.kill("SIGKILL");
        await exit;
      }),
    );
  }
}

/** Starts every run and signals it, each again until it was heard. */
async function beTheUser(runtime: Runtime, runIds: readonly string[], deadline: number): Promise<void> {
  const left = [...runIds];
  const one = async (): Promise<void> => {
    for (let runId = left.shift(); runId !== undefined; runId = left.shift()) {
      const id = runId;
      await persist(() => runtime.start("chaos", { runId: id }), deadline);
      await persist(() => runtime.signal(id, "go", id, { id: "once" }), deadline);
    }
  };
  await Promise.all(Array.from({ length: 20 }, one));
}

async function endedRuns(runtime: Runtime): Promise<number> {
  return (await runtime.store.stats()).byStatus.completed ?? 0;
}

async function check(
  runtime: Runtime,
  address: string,
  runIds: readonly string[],
  seen: string,
): Promise<{ problems: string[]; repeated: number }> {
  const problems: string[] = [];
  const begun = readFileSync(seen, "utf8")
    .split("\n")
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Begun);
  const keys = Map.groupBy(begun, ({ key }) => key);
  for (const [key, attempts] of keys) {
    const numbers = attempts.map(({ attempt }) => attempt);
    if (new Set(numbers).size < numbers.length)
      problems.push(`H2: an attempt of effect ${key} began twice: ${numbers.join(", ")}`);
  }
  const acts = stepsPerRun - 1;
  if (keys.size !== runIds.length * acts) problems.push(`H2: ${keys.size} effects began, and not ${runIds.length * acts}`);
  await using database = await userDatabase(address);
  const rows = await database.query("SELECT run_id FROM ~chaos_bookings");
  const booked = new Set(rows.map(({ run_id }) => run_id));
  if (rows.length !== runIds.length || booked.size !== runIds.length)
    problems.push(`H2: ${rows.length} bookings of ${booked.size} runs, and not one of each of ${runIds.length}`);
  for (const runId of runIds) {
    const { status, output, error } = await runtime.get(runId);
    const expected = { steps: stepsPerRun, said: runId, booked: "booked" };
    if (status !== "completed" || JSON.stringify(output) !== JSON.stringify(expected))
      problems.push(`H1, H3: ${runId} is ${status} with ${JSON.stringify(output ?? error)}`);
    const verification = await runtime.verify(runId);
    if (!verification.ok) problems.push(`H4: ${runId}: ${JSON.stringify(verification.problems)}`);
    const ledger = await runtime.ledger(runId);
    const done = ledger.flatMap(({ kind, effectId }) => (kind === "effect_completed" ? [effectId] : []));
    if (done.length !== stepsPerRun || new Set(done).size !== stepsPerRun)
      problems.push(`H2: ${runId} has completed effects ${done.join(", ")}`);
    const taken = ledger.filter((record) => record.kind === "delivered" && record.data.outcome === "result");
    if (taken.length !== 1) problems.push(`H3: ${runId} has taken ${taken.length} signals`);
  }
  return { problems, repeated: begun.length - keys.size };
}

/** Tries again while the store cannot be reached. What was acknowledged is not asked for again. */
async function persist<T>(call: () => Promise<T>, deadline: number): Promise<T> {
  for (;;) {
    try {
      return await call();
    } catch (error) {
      const { code } = error as { code?: string };
      if (!code?.startsWith("STORE_") || performance.now() > deadline) throw error;
      await pause(50);
    }
  }
}

async function sample(runtime: Runtime): Promise<string> {
  const { runs } = await runtime.list({ status: ["running", "waiting"], limit: 3 });
  return JSON.stringify(runs);
}

async function pause(ms: number, enough: () => boolean = () => false): Promise<void> {
  for (const until = performance.now() + ms; performance.now() < until && !enough(); )
    await new Promise((wake) => setTimeout(wake, Math.min(50, ms)));
}

function seconds(since: number): string {
  return ((performance.now() - since) / 1_000).toFixed(1);
}
