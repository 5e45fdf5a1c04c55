// The command line beside workers in other processes: one that died, one that lives; and the queues that a file serves.
import { DatabaseSync } from "node:sqlite";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { complete, createRuntime, defineWorkflow, type Runtime } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CommandLine, fixture } from "./command-line.ts";
import { cleaning, completing } from "./fixtures/states.ts";

let line: CommandLine;
let worker: ChildProcess | undefined;
beforeEach(() => {
  line = new CommandLine();
});
afterEach(async () => {
  if (worker && worker.exitCode === null && worker.signalCode === null) await end("SIGKILL");
  worker = undefined;
  line.remove();
});

/** A worker that executes these runs. */
async function living(...runIds: string[]): Promise<void> {
  worker = spawn(process.execPath, [...process.execArgv, fixture("living.ts"), line.storePath, ...runIds], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(worker.stdout!, "data");
}

async function end(signal: NodeJS.Signals): Promise<void> {
  const ended = once(worker!, "exit");
  worker!.kill(signal);
  await ended;
}

async function within<T>(options: Parameters<typeof createRuntime>[0], use: (runtime: Runtime) => Promise<T>): Promise<T> {
  const runtime = await createRuntime({ scheduler: false, ...options, store: await sqliteStore(line.storePath) });
  try {
    return await use(runtime);
  } finally {
    await runtime.stop();
  }
}

test("a worker that was killed is dead at once, for why and health, long before its lease runs out", async () => {
  await living("e-1", "e-2");
  expect((await line.ar("health")).out).toMatch(/^Everything moves\.[\s\S]+Workers +1 alive/);
  expect((await line.ar("why", "e-1")).out).toMatch(/Woken by +its outcome/);
  expect((await line.ar("why", "e-1", "--json")).json.holderIsDead).toBe(false);
  await end("SIGKILL");
  const { out } = await line.ar("why", "e-1");
  expect(out).toMatch(
    /Woken by +the next worker with its code, which finds out[\s\S]+Holder +worker \S+, which is dead: the next/,
  );
  expect(out).toMatch(/Next: abstractruntime run FILE --id e-1/);
  expect(out).not.toContain("its outcome");
  expect((await line.ar("why", "e-1", "--json")).json.holderIsDead).toBe(true);
  const health = await line.ar("health");
  expect(health.out).toMatch(/2 runs are held by a worker that is dead, and no other lives\n[\s\S]+Workers +0 alive/);
  expect(health.code).toBe(1);
});

test("where a worker lives, a cancel is left to it: what needs its code is not blocked for want of it here", async () => {
  await within({ workflows: [cleaning] }, async (runtime) => {
    for (const runId of ["c-1", "c-2"]) await runtime.run(cleaning, { runId });
  });
  await living();
  const { json } = await line.ar("cancel", "c-1", "c-2", "--json");
  expect(json.runs).toMatchObject([
    { runId: "c-1", status: "waiting", cancelling: true },
    { runId: "c-2", status: "waiting", cancelling: true },
  ]);
  expect(json.runs.some((run: object) => "blocked" in run)).toBe(false);
  expect((await line.ar("why", "c-1")).out).toMatch(/cleaning up after a cancel[\s\S]+All tidy\?/);
});

test("where the worker that lives has other code, the cancel is carried out here, and what needs code stays due", async () => {
  const other = defineWorkflow({
    id: "other",
    onCancel: "tidy",
    entry: "a",
    nodes: { a: () => complete({}), tidy: () => complete({}) },
  });
  await within({ workflows: [completing, other] }, async (runtime) => {
    await runtime.start(completing, { runId: "plain", delayMs: 3_600_000 });
    await runtime.start(other, { runId: "tidy", delayMs: 3_600_000 });
  });
  await living();
  const { json } = await line.ar("cancel", "plain", "tidy", "--json");
  expect(json.runs).toMatchObject([{ status: "cancelled" }, { status: "running", cancelling: true }]);
  expect((await line.ar("show", "tidy", "--json")).json.blocked).toBeUndefined();
  expect((await line.ar("health")).out).not.toContain("blocked: no worker");
});

test("an undo that fails for good keeps nothing else from being undone, and is told", async () => {
  const { out, err, code } = await line.ar("run", fixture("undo.ts"), "--id", "three");
  expect(out).toBe("");
  expect(err).toMatch(/error: effect "break" could not undo what the run had done {2}.*the handle is broken/);
  expect(err).toMatch(/\nRUN_FAILED: run three failed: [\s\S]+\nNot undone: effect 3: break: .*the handle is broken/);
  expect(err).not.toContain("UNEXPECTED");
  expect(code).toBe(1);
  const { json } = await line.ar("why", "three", "--json");
  expect(json).toMatchObject({ status: "failed", undoFailures: [{ effectId: "3" }] });
  expect((await line.ar("ledger", "three")).out.match(/effect_completed +give [12]\.undo/g)).toHaveLength(2);
  const { out: told } = await line.ar("why", "three");
  expect(told).toMatch(/Retry +refused: what it had done was undone/);
  expect(told).not.toContain("retry(");
  expect((await line.ar("cancel", "three")).err).toMatch(
    /^RUN_ENDED: .+\nNothing was changed; `abstractruntime why three --store \S+` says/,
  );
});

test("children in queues: driven as the file's export `queues` says", async () => {
  const { json } = await line.ar("run", fixture("queued.ts"), "--workflow", "fan", "--id", "f", "--json");
  expect(json.status).toBe("completed");
  expect((await line.ar("show", "f", "--json")).json.children.byStatus).toEqual({ completed: 3 });
});

test("children in queues: without an export, and with nobody else about, one at a time", async () => {
  const { json } = await line.ar("run", fixture("queued-freely.ts"), "--workflow", "fan", "--id", "f", "--json");
  expect(json.status).toBe("completed");
});

test.each([[[]], [["--wait"]]])("a queue that the export leaves out is said, and the command leaves %j", async (flags) => {
  const { err, out, code } = await line.ar("run", fixture("queued.ts"), "--workflow", "elsewhere", "--id", "e", ...flags);
  expect(err).toMatch(
    /Waits in queue "other", which is not served here\. To serve it, name it in the `queues` that .+queued\.ts/,
  );
  expect(out).toMatch(/3 runs of workflow "item"/);
  expect(code).toBe(0);
});

test("where a worker lives, a queue that the file says nothing of is left to it", async () => {
  await living();
  const { err, out } = await line.ar("run", fixture("queued-freely.ts"), "--workflow", "fan", "--id", "f");
  expect(err).toContain('may export it: export const queues = {"items":{}}');
  expect(out).toMatch(/3 runs of workflow "item"/);
  expect((await line.ar("show", "f", "--json")).json.children.byStatus).toEqual({ running: 3 });
});

test("health says which queues wait, and that nobody serves one of them", async () => {
  await within({ workflows: [completing], queues: { mail: {} } }, async (runtime) => {
    for (const runId of ["m-1", "m-2"]) await runtime.start(completing, { runId, queue: "mail" });
  });
  const soon = await line.ar("health");
  expect(soon.out).toMatch(/^Everything moves\.[\s\S]+Queued +2 in "mail", the first for \d/);
  // As if five seconds had passed.
  const database = new DatabaseSync(line.storePath);
  database.exec("UPDATE runs SET wake_at = wake_at - 5100");
  database.close();
  const late = await line.ar("health");
  expect(late.out).toMatch(
    /2 runs are due in queue "mail", and none of it is driven, the first for \d+ s: it seems that no worker/,
  );
  expect(late.code).toBe(1);
  const store = await sqliteStore(line.storePath);
  await store.renew("w", 60_000);
  await store.claim({ workerId: "w", fingerprint: "f", queues: { mail: { concurrency: 1 } } }, { limit: 1 });
  expect((await line.ar("health")).out).toMatch(/^Everything moves\.[\s\S]+Queued +1 in "mail"/);
  await store.retire("w");
  await store.close();
});
