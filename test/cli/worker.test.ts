// `abstractruntime worker` as processes of its own: they share a store, one dies, one is stopped.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createRuntime, type Runtime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { filesStore } from "abstractruntime/files";
import { afterEach, beforeEach, expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { failing, gated, work } from "./fixtures/work.ts";
import { dropSchema, newSchema, serverUrl } from "../stores/postgres-server.ts";
import { storeAt } from "../stores/user-database.ts";
import { CommandLine, fixture } from "./command-line.ts";

const command = [...process.execArgv, resolve("src/cli/main.ts")];

let directory: string;
let runtime: Runtime;
const workers = new Set<Worker>();
beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "abstractruntime-worker-"));
  runtime = await createRuntime({
    store: await sqliteStore(join(directory, "runs.db")),
    workflows: [work, gated, failing],
    scheduler: false,
  });
});
afterEach(async () => {
  for (const worker of workers) await worker.end("SIGKILL");
  workers.clear();
  await runtime.stop();
  rmSync(directory, { recursive: true, force: true });
});

class Worker {
  readonly #child: ChildProcess;
  readonly #exit: Promise<unknown>;
  out = "";
  err = "";

  constructor(...args: string[]) {
    this.#child = spawn(process.execPath, [...command, "worker", ...args], {
      cwd: directory,
      env: { ...process.env, WORK_SEEN: join(directory, "seen") },
    });
    this.#child.stdout?.on("data", (chunk) => (this.out += chunk));
    this.#child.stderr?.on("data", (chunk) => (this.err += chunk));
    this.#exit = once(this.#child, "close");
    workers.add(this);
  }

  get pid(): number {
    return this.#child.pid as number;
  }

  kill(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Resolves when it has said so. */
  async says(text: RegExp): Promise<void> {
    while (!text.test(this.out + this.err)) {
      if (this.#child.exitCode !== null || this.#child.signalCode !== null)
        throw new Error(`it ended without saying ${text}: ${this.err}`);
      await Promise.race([once(this.#child.stdout!, "data"), once(this.#child.stderr!, "data"), this.#exit]);
    }
  }

  async end(signal?: NodeJS.Signals): Promise<{ code: number | null; signal: NodeJS.Signals | null }> {
    if (signal && this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    await this.#exit;
    return { code: this.#child.exitCode, signal: this.#child.signalCode };
  }
}

const inFile = (...more: string[]): Worker => new Worker(fixture("work.ts"), "--store", "sqlite:runs.db", ...more);

interface Seen {
  runId: string;
  n: number;
  key: string;
  attempt: number;
  pid: number;
}

function seen(): Seen[] {
  const file = join(directory, "seen");
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8")
    .split("\n")
    .slice(0, -1)
    .map((line) => JSON.parse(line) as Seen);
}

test("two workers share the runs of a file; when one is killed, the other finishes all of them", async () => {
  const [victim, heir] = [inFile("--concurrency", "10"), inFile("--concurrency", "10")];
  await Promise.all([victim.says(/^Worker .+ drives failing, gated, work in sqlite:runs\.db\./), heir.says(/^Worker /)]);
  const runIds: string[] = [];
  // As many as it takes until both of them are in the middle of some.
  while (runIds.length < 60 || new Set(seen().map(({ pid }) => pid)).size < 2) {
    runIds.push(`run-${runIds.length}`);
    await runtime.start(work, { runId: runIds.at(-1) as string });
  }
  await eventually(() => seen().length > 40);
  expect(await victim.end("SIGKILL")).toEqual({ code: null, signal: "SIGKILL" });
  await eventually(async () => (await runtime.list({ status: ["running", "waiting"] })).runs.length === 0);

  for (const runId of runIds) {
    expect(await runtime.get(runId)).toMatchObject({ status: "completed", output: 5 });
    expect((await runtime.verify(runId)).problems).toEqual([]);
  }
  // Every step once, but for those that the kill cut off: these again, with the same key.
  for (const [, attempts] of Map.groupBy(seen(), ({ key }) => key)) {
    if (attempts.length === 1) continue;
    expect(attempts.map(({ pid }) => pid)).toEqual([victim.pid, heir.pid]);
  }
  expect(new Set(seen().map(({ key }) => key)).size).toBe(5 * runIds.length);
  // What is committed is seen here before the line that says so.
  for (const end of ["completed run-0 ", `completed ${runIds.at(-1)} `])
    await eventually(() => (victim.out + heir.out).includes(end));
  expect(await heir.end("SIGTERM")).toEqual({ code: 0, signal: null });
});

test("a worker that is stopped lets finish what is under way, and says so", async () => {
  const worker = inFile();
  await runtime.start(gated, { runId: "held" });
  await eventually(() => seen().length === 1);
  worker.kill("SIGTERM");
  await worker.says(/Stopping: what is under way gets up to 10 seconds to finish\. Ctrl-C again ends it at once\./);
  writeFileSync(join(directory, "seen.gate"), "");
  expect(await worker.end()).toEqual({ code: 0, signal: null });
  expect(worker.err).toContain("Stopped. Runs that have not ended go on in another worker");
  // Its effect was recorded, and nobody holds it.
  expect((await runtime.ledger("held")).map(({ kind }) => kind)).toContain("effect_completed");
  expect((await runtime.store.load("held"))?.lease).toBeUndefined();
});

test("a second signal ends it at once, and another worker goes on with its runs", async () => {
  const worker = inFile("--drain", "60");
  await runtime.start(gated, { runId: "held" });
  await eventually(() => seen().length === 1);
  worker.kill("SIGINT");
  await worker.says(/up to 60 seconds/);
  expect(await worker.end("SIGINT")).toEqual({ code: null, signal: "SIGINT" });
  writeFileSync(join(directory, "seen.gate"), "");
  const next = inFile();
  await next.says(/completed held of "gated"/);
  expect(await next.end("SIGTERM")).toEqual({ code: 0, signal: null });
});

test("it says how runs end: in lines, as JSON, or only where that is not well", async () => {
  const plain = inFile();
  await runtime.start(work, { runId: "one" });
  await runtime.start(failing, { runId: "bad" });
  await plain.says(/completed one of "work"\n/);
  await plain.says(/failed bad of "failing": .*it cannot be done/);
  await plain.end("SIGTERM");

  const json = inFile("--json");
  await runtime.start(work, { runId: "two" });
  await json.says(/"two"/);
  await json.end("SIGTERM");
  const [begin, end] = json.out
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  expect(begin).toMatchObject({ pid: json.pid, store: "sqlite:runs.db", workflows: ["failing", "gated", "work"] });
  expect(end).toMatchObject({ runId: "two", workflowId: "work", status: "completed" });

  const quiet = inFile("--quiet");
  await runtime.start(work, { runId: "three" });
  await runtime.start(failing, { runId: "worse" });
  await eventually(async () => (await runtime.get("three")).status === "completed");
  await quiet.says(/failed worse/);
  await quiet.end("SIGTERM");
  expect(quiet.out).not.toContain("three");
});

test("a worker on Postgres drives what another process has started there, and prints no password", async () => {
  const schema = newSchema();
  const store = `${serverUrl()}?schema=${schema}`;
  const { password } = new URL(store);
  const elsewhere = await createRuntime({ store: await storeAt(store), workflows: [work], scheduler: false });
  try {
    const worker = new Worker(fixture("work.ts"), "--store", store);
    await worker.says(/^Worker .+ in postgres:\/\/.+\?schema=test_/);
    await elsewhere.start(work, { runId: "one" });
    await worker.says(/completed one of "work"\n/);
    expect(await elsewhere.get("one")).toMatchObject({ status: "completed", output: 5 });
    expect(await worker.end("SIGTERM")).toEqual({ code: 0, signal: null });
    if (password !== "") expect(worker.out + worker.err).not.toContain(`:${password}@`);
  } finally {
    await elsewhere.stop();
    await dropSchema(schema);
  }
});

test("a worker keeps its runs in files, too", async () => {
  const store = join(directory, "kept");
  const before = await createRuntime({ store: await filesStore(store), workflows: [work], scheduler: false });
  await before.start(work, { runId: "one" });
  await before.stop();
  const worker = new Worker(fixture("work.ts"), "--store", "files:kept");
  await worker.says(/completed one of "work"\n/);
  expect(await worker.end("SIGTERM")).toEqual({ code: 0, signal: null });
});

test("what it cannot work with ends its process", async () => {
  const worker = inFile("--concurrency", "1.5");
  expect(await worker.end()).toEqual({ code: 2, signal: null });
  expect(worker.err).toMatch(/^INVALID_OPTION: .*concurrency/);
  expect(worker.out).toBe("");
});

test.each([
  [["missing.ts"], 2, /^FILE_INVALID: missing\.ts cannot be used: there is no such file/],
  [[fixture("work.ts"), "--concurrency", "0"], 2, /^INVALID_OPTION: --concurrency "0" is not a number from 1/],
  [[fixture("work.ts"), "--concurrency", "many"], 2, /^INVALID_OPTION: --concurrency "many"/],
  [[fixture("work.ts"), "--drain", "-1"], 2, /^INVALID_OPTION: --drain "-1"/],
  [
    [fixture("work.ts"), "--store", "redis:x"],
    2,
    /^INVALID_OPTION: .*unknown kind of store, "redis" \(known: sqlite, files, postgres\)/,
  ],
  [[fixture("work.ts"), "--store", "postgres:x"], 2, /^INVALID_OPTION: .*names no server/],
  [[fixture("work.ts"), "--store", `sqlite:${fixture("work.ts")}/runs.db`], 1, /^STORE_UNAVAILABLE: /],
  // Nobody listens at a port that was never given away.
  [[fixture("work.ts"), "--store", "postgres://me:hidden@127.0.0.1:1/none"], 1, /^STORE_UNAVAILABLE: (?!.*hidden).*ECONNREFUSED/],
  [[], 2, /missing required argument 'file'/],
])("what cannot work is said at once: %j", async (args, code, said) => {
  const line = new CommandLine();
  try {
    const given = await line.ar("worker", ...args);
    expect({ code: given.code, out: given.out }).toEqual({ code, out: "" });
    expect(given.err).toMatch(said);
  } finally {
    line.remove();
  }
});
