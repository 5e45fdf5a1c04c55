// `why` in every state there is: what it is, what wakes it, and the command that moves it on.
import { createRuntime, defineWorkflow, complete, type Runtime, type Workflow } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { CommandLine, fixture } from "./command-line.ts";
import * as states from "./fixtures/states.ts";
import { heard } from "./heard.ts";

const file = fixture("states.ts");
const line = new CommandLine();
const workflows = Object.values(states) as Workflow[];
afterAll(() => line.remove());

/** A runtime over the store, stopped afterwards. */
async function within(
  options: Parameters<typeof createRuntime>[0],
  use: (runtime: Runtime) => Promise<unknown>,
  drainMs = 1_000,
): Promise<void> {
  const runtime = await createRuntime({ workflows, scheduler: false, ...options, store: await sqliteStore(line.storePath) });
  try {
    await use(runtime);
  } finally {
    await runtime.stop({ timeoutMs: drainMs });
  }
}

/** Leaves a run as a worker does that could not go on with it. */
async function block(runId: string, blocked: { code: string; problem: string; quarantine: boolean }): Promise<void> {
  const store = await sqliteStore(line.storePath);
  await store.renew("w", 60_000);
  const [claimed] = await store.claim({ workerId: "w", fingerprint: "f" }, { limit: 1, runId });
  await store.release(runId, claimed!.lease!, { blocked: { ...blocked, fingerprint: "f" } });
  await store.retire("w");
  await store.close();
}

const why = async (runId: string, ...more: string[]): Promise<string> => (await line.ar("why", runId, ...more)).out;

/** Driven until they rest. */
const driven = [
  "eventful",
  "sleeping",
  "asking",
  "printing",
  "parent",
  "joining",
  "retrying",
  "doubting",
  "both",
  "either",
  "undoing",
  "undone",
  "failing",
  "completing",
  "disappointed",
];

beforeAll(async () => {
  const { code } = await line.ar("run", file, "--workflow", "completing", "--id", "first");
  expect(code).toBe(0);
  await within({ scheduler: true }, async (runtime) => {
    for (const id of driven) await runtime.run(id, { runId: id });
    await runtime.run("fanning", { runId: "fanning" });
    await eventually(async () => (await runtime.count({ parentRunId: "fanning", status: "waiting" })) === 2);
    for (const id of ["disappointed", "parent"]) await eventually(async () => (await runtime.get(id)).status !== "running");
    await runtime.result("disappointed").catch(() => undefined);
  });
});

test.each<[id: string, said: RegExp]>([
  [
    "eventful",
    /waits at node "a"\.\n {2}Waits for +the event "payment"\n[\s\S]+that event; without it, the wait ends at .+\(in 59 min\), and node "late" runs\nNext: abstractruntime respond eventful PAYLOAD --key payment .+\n +abstractruntime signal eventful payment PAYLOAD /,
  ],
  [
    "sleeping",
    /a moment: [\s\S]+itself, at .+\(in 59 min\), where a worker has its code\nNext: abstractruntime run FILE --id sleeping --wait/,
  ],
  [
    "asking",
    /a person's answer to: Well\?\n {2}Choices +yes, no\n[\s\S]+an answer\nNext: abstractruntime respond asking ANSWER /,
  ],
  [
    "printing",
    /the result of a job, "printer-7"[\s\S]+that result\nNext: abstractruntime respond printing PAYLOAD --key printer-7/,
  ],
  ["parent", /run (\S+) of workflow "asking" \(waiting\)[\s\S]+the end of that run\nNext: abstractruntime respond \1 ANSWER/],
  ["joining", /at node "join"[\s\S]+run (\S+) of workflow "asking" \(waiting\)[\s\S]+Next: abstractruntime respond \1 ANSWER/],
  [
    "fanning",
    /6 runs of workflow "mixed", at most 2 at a time: 2 ended \(1 of them not completed\), 2 under way, 2 not begun\n[\s\S]+the ends of these runs\nNext: abstractruntime tree fanning/,
  ],
  [
    "retrying",
    /waits at node "try" to try an effect again\.\n {2}Waits for +attempt 2 of effect "flaky"\n {2}Failed +attempt 1: no route\n[\s\S]+itself, at .+\(in \d+ min\)/,
  ],
  ["doubting", /may or may not have happened[\s\S]+Next: abstractruntime respond doubting '\{"retry":true\}'/],
  ["both", /all of these \(0 of 3 ended\)\n[\s\S]+the event "first"[\s\S]+answer to: Second\?[\s\S]+the event "third"/],
  ["either", /the first of these to succeed \(0 of 2 ended\)\n[\s\S]+the event "first"[\s\S]+answer to: Second\?/],
  [
    "undoing",
    /ends as failed; before that, what it had done is being undone\.\n {2}Error +RUN_FAILED_BY_PLAN: no money\n {2}Undone next +effect 2: book, of node "flight"\n {2}Then +effect 1: book, of node "hotel"\n[\s\S]+attempt 1: the line is busy/,
  ],
  [
    "undone",
    /failed at node "b"[\s\S]+refused: what it had done was undone[\s\S]+Next: abstractruntime ledger undone.*\n +start a new run/,
  ],
  [
    "failing",
    /failed at node "a"[\s\S]+there is no money[\s\S]+Retry +possible[\s\S]+when the cause is mended: abstractruntime retry failing/,
  ],
  ["completing", /completed\.\n[\s\S]+Output +\{"done":true\}\nNext: abstractruntime show completing/],
])("why %s", async (id, said) => {
  expect(await why(id)).toMatch(said);
});

test("a child whose end its parent has taken is not tried again, and says so as retry does", async () => {
  const { json } = await line.ar("tree", "disappointed", "--json");
  const childId = json.children[0].run.runId;
  expect(await why(childId)).toMatch(
    /Retry +refused: its parent disappointed has taken its end[\s\S]+abstractruntime why disappointed/,
  );
  expect((await line.ar("retry", childId)).err).toMatch(/^RETRY_REFUSED: .+its parent disappointed has taken its end/);
});

test("with --file, how many attempts there may be, and commands that name the file", async () => {
  const out = await why("retrying", "--file", file);
  expect(out).toMatch(/attempt 2 of 7 of effect "flaky"/);
  expect(out).toContain(`Next: abstractruntime run ${file} --id retrying`);
});

test("a member that ended is counted, and not told of any more", async () => {
  await within({}, async (runtime) => {
    await runtime.run("both", { runId: "both-2" });
    await runtime.signal("both-2", "first");
    await runtime.tick("both-2");
  });
  const out = await why("both-2");
  expect(out).toMatch(/all of these \(1 of 3 ended\)/);
  expect(out).not.toContain('the event "first"');
});

test("what a run cleans up after its cancel is not undone, and not listed as such", async () => {
  await within({}, async (runtime) => {
    await runtime.run("tidy", { runId: "tidy" });
    await runtime.cancel("tidy");
    await runtime.tick("tidy");
  });
  const out = await why("tidy");
  expect(out).toMatch(/ends as cancelled; before that[\s\S]+Undone next +effect 1: book, of node "a"\n/);
  expect(out).not.toContain("Then");
  expect((await line.ar("show", "tidy")).out).toMatch(/Status +waiting, being cancelled, being undone\n/);
});

test("what has arrived and was not taken is told", async () => {
  await within({}, (runtime) => runtime.run("eventful", { runId: "arrived" }));
  await line.ar("signal", "arrived", "payment");
  expect(await why("arrived")).toMatch(
    /that event that is in its mailbox; the next worker[\s\S]+Next: abstractruntime run FILE --id arrived/,
  );
});

test("due, and waiting for a worker", async () => {
  await within({}, (runtime) => runtime.start("completing", { runId: "due" }));
  expect(await why("due")).toMatch(
    /is running, at node "a"\.\n {2}Holder +none: it is due, and the next worker with its code takes it\n[\s\S]+Next: abstractruntime run FILE --id due/,
  );
});

test("held by a worker, dead or alive", async () => {
  await within({}, (runtime) => runtime.start("completing", { runId: "held" }));
  const store = await sqliteStore(line.storePath);
  await store.renew("worker-1", 60_000);
  await store.claim({ workerId: "worker-1", fingerprint: "f" }, { limit: 1, runId: "held" });
  expect(await why("held")).toMatch(
    /is running[\s\S]+Holder +worker worker-1\n[\s\S]+if that worker is dead: abstractruntime run FILE --id held/,
  );
  await store.renew("worker-1", 0);
  expect(await why("held")).toMatch(/Holder +worker worker-1, which is dead: the next worker with its code takes the run over/);
  await store.close();
});

test("executing, and left in the midst of it", async () => {
  await within(
    { scheduler: true },
    async (runtime) => {
      const begun = heard(runtime, "effect_started");
      await runtime.start("executing", { runId: "executing" });
      await begun;
      expect(await why("executing", "--file", file)).toMatch(
        /is running, at node "work"\.\n {2}Executes +effect "never", attempt 1 of 3\n {2}Since .+\n {2}Woken by +its outcome\n\s+Holder +worker /,
      );
      await line.ar("pause", "executing");
      expect(await why("executing")).toMatch(/is paused|a pause; worker \S+ takes it/);
      await line.ar("unpause", "executing");
      await line.ar("cancel", "executing", "--reason", "enough");
      for (let out = ""; !out.includes("is being cancelled"); ) out = await why("executing");
      expect(await why("executing")).toMatch(
        /is being cancelled, at node "work"\.\n {2}Reason +enough\n {2}Settles +effect "never", told to stop\n {2}Holder +worker /,
      );
    },
    0,
  );
  expect(await why("executing")).toMatch(/is being cancelled[\s\S]+Next: abstractruntime cancel executing/);
  await line.ar("cancel", "executing");
  expect(await why("executing")).toMatch(/was cancelled\.\n[\s\S]+Reason +enough/);

  await within(
    { scheduler: { effectConcurrency: { never: 1 } } },
    async (runtime) => {
      for (const runId of ["left", "behind"]) {
        const begun = heard(runtime, "effect_started");
        await runtime.start("executing", { runId });
        await begun;
      }
      expect(await why("behind")).toMatch(
        /Waits for +its turn: effect "never", not begun\n[^\n]+\n {2}Woken by +a slot, or the end of/,
      );
    },
    0,
  );
  expect(await why("left")).toMatch(/Woken by +the next worker with its code, which finds out what became of the attempt/);
  expect(await why("behind")).toMatch(/not begun\n[^\n]+\n {2}Woken by +the next worker with its code\n/);
  // A command that comes later would begin it, and wait for it when it leaves.
  await within({}, (runtime) => runtime.pause("behind"));
});

test("paused, and a pause on its way", async () => {
  await within({}, (runtime) => runtime.run("eventful", { runId: "paused" }));
  await within({}, (runtime) => runtime.pause("paused"));
  expect(await why("paused")).toMatch(/waits at node "a"[\s\S]+On its way +a pause; the next worker takes it/);
  await line.ar("pause", "paused");
  expect(await why("paused")).toMatch(
    /is paused at node "a"[\s\S]+Waits +payment [\s\S]+an unpause; nothing else moves it, but a cancel\nNext: abstractruntime unpause paused/,
  );
  await line.ar("unpause", "paused");
  expect(await why("paused")).toMatch(
    /On its way +an unpause; the next worker takes it\nNext: abstractruntime run FILE --id paused/,
  );
});

test("cleaning up after a cancel", async () => {
  await within({}, async (runtime) => {
    await runtime.run("cleaning", { runId: "cleaning" });
    await runtime.cancel("cleaning", { reason: "changed our mind" });
    await runtime.tick("cleaning");
  });
  expect(await why("cleaning")).toMatch(
    /waits at node "clean", cleaning up after a cancel\.\n {2}Reason +changed our mind\n[\s\S]+All tidy\?[\s\S]+Next: abstractruntime respond cleaning ANSWER/,
  );
});

test("waiting for a slot of its queue", async () => {
  await within({ queues: { mail: { concurrency: 1 } } }, async (runtime) => {
    await runtime.start("completing", { runId: "queued-1", queue: "mail", priority: 5 });
    await runtime.start("completing", { runId: "queued-2", queue: "mail", queueKey: "k" });
  });
  expect(await why("queued-2")).toMatch(
    /none: it is due, and the next worker with its code that serves its queue, when it has a free slot, takes it\n[\s\S]+Queue +"mail", key "k": 0 of its runs are held, and 1 are due before this one;[\s\S]+Next: start a worker that serves its queue: createRuntime\(\{ queues: \{"mail":\{\}\} \}\)/,
  );
  // A worker that lives may know the limits of the queue: it is left to it.
  const store = await sqliteStore(line.storePath);
  await store.renew("worker-1", 60_000);
  const { out, err } = await line.ar("run", file, "--id", "queued-2");
  expect(out).toMatch(/Queue +"mail"/);
  expect(err).toMatch(/^Waits in queue "mail", which is not served here/);
  await store.retire("worker-1");
  await store.close();
  // With nobody else about, one at a time harms nobody.
  expect(await why("queued-2")).toMatch(/\n +abstractruntime run FILE --id queued-2/);
  expect((await line.ar("run", file, "--id", "queued-2")).out).toMatch(/^Run queued-2 completed/);
});

test("a start that was put off", async () => {
  await within({}, (runtime) => runtime.start("completing", { runId: "delayed", delayMs: 3_600_000 }));
  expect(await why("delayed")).toMatch(
    /has not begun\.\n {2}Waits for +its start: [\s\S]+itself, at .+\(in 59 min\)[\s\S]+--id delayed --wait/,
  );
});

test.each<[code: string, make: (runId: string) => Promise<unknown>, said: RegExp]>([
  [
    "WORKFLOW_UNKNOWN",
    (runId) => within({ workflows: [] }, (runtime) => runtime.tick(runId)),
    /run it with the file that exports workflow "completing": abstractruntime run FILE --id/,
  ],
  [
    "EFFECT_UNKNOWN",
    (runId) => block(runId, { code: "EFFECT_UNKNOWN", problem: "no handler", quarantine: false }),
    /put the effect among the workflow's effects, or its handler into the file's export `effects`, then abstractruntime run FILE --id/,
  ],
  [
    "WORKFLOW_INCOMPATIBLE",
    (runId) => {
      const other = defineWorkflow({ id: "completing", version: 2, entry: "b", nodes: { b: () => complete({}) } });
      return within({ workflows: [other] }, (runtime) => runtime.tick(runId));
    },
    /add what is missing, or a migration; see `abstractruntime check FILE/,
  ],
  [
    "FORMAT_NEWER",
    (runId) => block(runId, { code: "FORMAT_NEWER", problem: "format 99", quarantine: false }),
    /upgrade abstractruntime/,
  ],
])("blocked: %s", async (code, make, said) => {
  const runId = `blocked-${code}`;
  await within({}, (runtime) => runtime.start("completing", { runId }));
  await make(runId).catch((error) => expect(error.code).toBe("RUN_BLOCKED"));
  const out = await why(runId);
  expect(out).toMatch(
    new RegExp(`is blocked at node "a"\\.\\n {2}Code +${code}\\n[\\s\\S]+Woken by +a worker with other code\\nNext: `),
  );
  expect(out).toMatch(said);
  expect((await line.ar("ls", "--blocked")).out).toContain(runId);
});

test("quarantined", async () => {
  await within({}, (runtime) => runtime.start("completing", { runId: "damaged" }));
  await block("damaged", { code: "RECORD_CORRUPT", problem: "a bad day", quarantine: true });
  expect(await why("damaged")).toMatch(
    /is quarantined[\s\S]+nothing: it was found damaged, and waits for you\nNext: abstractruntime verify damaged.*\n +when it verifies: .+--lift/,
  );
});

test("failed, and to be tried again", async () => {
  await within({}, (runtime) => runtime.run("failing", { runId: "again" }));
  await line.ar("retry", "again");
  expect(await why("again")).toMatch(
    /failed at node "a", and is to be tried again[\s\S]+a retry that is in its mailbox; the next worker[\s\S]+Next: abstractruntime run FILE --id again/,
  );
  const { err, code } = await line.ar("run", file, "--id", "again");
  expect(err).toMatch(/^RUN_FAILED/);
  expect(code).toBe(1);
  expect((await line.ar("show", "again", "--json")).json.retries).toBe(1);
});

test("every record of these runs is told in words", async () => {
  for (const { runId } of (await line.ar("ls", "--limit", "1000", "--json")).json.runs) {
    const { out, code } = await line.ar("ledger", runId);
    expect({ runId, code, undefined: out.includes("undefined") }).toEqual({ runId, code: 0, undefined: false });
  }
  const { out } = await line.ar("ledger", "undoing");
  expect(out).toMatch(/ undoing .+what was done is undone after RUN_FAILED_BY_PLAN: no money\n/);
  expect(out).toMatch(/ effect_started .+undoes effect 2: /);
  expect((await line.ar("ledger", "cleaning")).out).toMatch(/goes to clean, to clean up after the cancel/);
  expect((await line.ar("ledger", "fanning")).out).toMatch(/2 begun; waits for subworkflow[\s\S]+\(member 0\)/);
});
