// Commands and events from the command line: what they do with no worker about, to one run and to many.
import { createRuntime, type Runtime, type Workflow } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { afterAll, beforeAll, expect, test } from "vitest";
import { eventually } from "../eventually.ts";
import { CommandLine, fixture, key } from "./command-line.ts";
import * as states from "./fixtures/states.ts";
import { heard } from "./heard.ts";

const file = fixture("states.ts");
const changed = fixture("states-changed.ts");
const line = new CommandLine();
afterAll(() => line.remove());

async function within<T>(use: (runtime: Runtime) => Promise<T>, options: Parameters<typeof createRuntime>[0] = {}): Promise<T> {
  const store = await sqliteStore(line.storePath);
  const runtime = await createRuntime({ workflows: Object.values(states) as Workflow[], scheduler: false, ...options, store });
  try {
    return await use(runtime);
  } finally {
    await runtime.stop({ timeoutMs: 0 });
  }
}

const start = (workflow: string, ...runIds: string[]): Promise<void> =>
  within(async (runtime) => {
    for (const runId of runIds) await runtime.run(workflow, { runId });
  });
const show = async (runId: string): Promise<any> => (await line.ar("show", runId, "--json")).json;

beforeAll(async () => {
  expect((await line.ar("run", file, "--workflow", "completing", "--id", "done-1")).code).toBe(0);
});

// ---- Events --------------------------------------------------------------------------------------------------------

test("signal reaches one run, and is taken by whoever drives it", async () => {
  await start("eventful", "paid-1");
  const { out, code } = await line.ar("signal", "paid-1", "payment", '{"amount":5}', "--id", "invoice-1");
  expect(out).toMatch(/The event "payment" is stored for run paid-1\.\n.+To go on here: abstractruntime run FILE --id paid-1/);
  expect(code).toBe(0);
  expect((await line.ar("signal", "paid-1", "payment", '{"amount":5}', "--id", "invoice-1")).out).toMatch(/has had this event/);
  expect((await line.ar("signal", "paid-1", "payment", "6", "--id", "invoice-1")).err).toMatch(/^MESSAGE_ID_REUSED: /);
  expect((await line.ar("run", file, "--id", "paid-1", "--json")).json).toMatchObject({ output: { payment: { amount: 5 } } });
});

test("an event that nobody waits for is kept, and a near one is named", async () => {
  await start("eventful", "paid-2");
  const early = await line.ar("signal", "paid-2", "paymnet", "now", "--json");
  expect(early.json).toMatchObject({ runId: "paid-2", key: "paymnet", duplicate: false, awaited: false });
  expect((await line.ar("signal", "paid-2", "paymnet")).out).toMatch(
    /keeps it until it does\. It waits for "payment": did you mean/,
  );
});

test.each<[typed: string[], payload: unknown]>([
  [[], null],
  [["5"], 5],
  [["true"], true],
  [["a text"], "a text"],
  [['"5"'], "5"],
  [["[1]"], [1]],
])("a payload typed as %j is %j", async (typed, payload) => {
  const runId = `typed-${JSON.stringify(typed)}`;
  await start("eventful", runId);
  await line.ar("signal", runId, "payment", ...typed);
  expect((await line.ar("run", file, "--id", runId, "--json")).json.output.payment).toEqual(payload);
});

test("emit reaches every run that waits for it, of one workflow where that is asked for", async () => {
  await start("eventful", "listener-1", "listener-2");
  await start("both", "listener-3");
  expect((await line.ar("emit", "first", "--workflow", "eventful")).err).toMatch(/No run waits for the event "first" now/);
  expect((await line.ar("emit", "first")).out).toMatch(/is stored for 1 run that waits/);
  const { json } = await line.ar("emit", "payment", "1", "--workflow", "eventful", "--id", "e-1", "--json");
  expect(json.reached).toBeGreaterThanOrEqual(2);
  expect((await line.ar("run", file, "--id", "listener-2", "--json")).json.status).toBe("completed");
});

// ---- Cancel, pause, unpause, retry ---------------------------------------------------------------------------------

test("a run that no worker drives is cancelled at once, and its children with it", async () => {
  await within(
    async (runtime) => {
      await runtime.run("grandparent", { runId: "cancelled-1" });
      await eventually(() => runtime.count({ workflowId: "asking", status: "waiting" }));
    },
    { scheduler: true, queues: { family: {} } },
  );
  const { out, code } = await line.ar("cancel", "cancelled-1", "--reason", "ordered twice");
  expect(out).toMatch(/^Run cancelled-1 of workflow "grandparent" was cancelled\.\n[\s\S]+Reason +ordered twice\n/);
  expect(code).toBe(0);
  const { json } = await line.ar("tree", "cancelled-1", "--json");
  const [child] = json.children;
  expect(child.run).toMatchObject({ workflowId: "parent", queue: "family", status: "cancelled" });
  expect(child.children[0].run).toMatchObject({ workflowId: "asking", status: "cancelled" });
  // A second time, it is as it is.
  expect((await line.ar("cancel", "cancelled-1")).code).toBe(0);
});

test("a run that waits for a slot of a queue which nobody serves is cancelled at once", async () => {
  await within((runtime) => runtime.start("completing", { runId: "queued", queue: "mail", queueKey: "k" }), {
    queues: { mail: { concurrency: 1 } },
  });
  expect((await line.ar("cancel", "queued", "--json")).json).toEqual({
    runs: [{ runId: "queued", workflowId: "completing", status: "cancelled", paused: false, cancelling: true }],
  });
});

test("a run that was left in the midst of an effect is cancelled at once", async () => {
  await within(
    async (runtime) => {
      const begun = heard(runtime, "effect_started");
      await runtime.start("executing", { runId: "left" });
      await begun;
    },
    { scheduler: true },
  );
  expect((await line.ar("cancel", "left")).out).toMatch(/was cancelled/);
});

test("what a workflow does at a cancel needs its code, and that is said", async () => {
  await start("cleaning", "cleaning");
  expect((await line.ar("cancel", "cleaning")).out).toMatch(
    /is blocked at node "a", while it is being cancelled[\s\S]+WORKFLOW_UNKNOWN[\s\S]+Next: run it with the file .+run FILE --id cleaning/,
  );
  expect((await line.ar("ls", "--workflow", "cleaning")).out).toMatch(/being cancelled, blocked: WORKFLOW_UNKNOWN/);
  expect((await line.ar("show", "cleaning")).out).toMatch(/Cancelled +asked for\n/);
  expect((await line.ar("run", file, "--id", "cleaning")).out).toMatch(/All tidy\?/);
  await line.ar("respond", "cleaning", "yes", "--file", file);
  expect((await show("cleaning")).status).toBe("cancelled");
});

test("a run that a worker holds is told through its mailbox", async () => {
  await start("eventful", "held");
  const store = await sqliteStore(line.storePath);
  await store.renew("worker-1", 60_000);
  await store.claim({ workerId: "worker-1", fingerprint: "f" }, { limit: 1, runId: "held" });
  expect((await line.ar("cancel", "held")).out).toMatch(/On its way +a cancel; worker worker-1 takes it/);
  await store.retire("worker-1");
  await store.close();
  expect((await line.ar("cancel", "held")).out).toMatch(/was cancelled/);
});

test("a pause holds at once, and answers are kept; an unpause lets the run go on", async () => {
  await start("eventful", "paused");
  expect((await line.ar("pause", "paused", "--reason", "lunch")).out).toMatch(/is paused at node "a"[\s\S]+unpause paused/);
  expect((await line.ar("ls", "--workflow", "eventful")).out).toMatch(/paused +eventful +waiting, paused +a/);
  await line.ar("signal", "paused", "payment", "1");
  expect((await line.ar("run", file, "--id", "paused")).out).toMatch(/is paused/);
  expect((await line.ar("unpause", "paused")).out).toMatch(/On its way +an unpause/);
  expect((await line.ar("run", file, "--id", "paused", "--json")).json).toMatchObject({
    status: "completed",
    output: { payment: 1 },
  });
});

test("retry lets a failed run go on; one that did not fail is refused", async () => {
  await start("failing", "failed-1");
  const { out, code } = await line.ar("retry", "failed-1");
  expect(out).toMatch(/is to be tried again[\s\S]+run FILE --id failed-1/);
  expect(code).toBe(0);
  expect((await line.ar("run", file, "--id", "failed-1")).err).toMatch(/^RUN_FAILED/);
  expect((await show("failed-1")).retries).toBe(1);
  expect((await line.ar("retry", "done-1")).err).toMatch(/^NOT_FAILED: /);
});

test("several runs: one that refuses is told, and the others are not held up; a slip changes nothing", async () => {
  await start("sleeping", "several-1", "several-2");
  const slip = await line.ar("cancel", "several-1", "sveral-2");
  expect(slip.err).toMatch(/^RUN_NOT_FOUND: .+\nDid you mean "several-2"\?/);
  expect((await show("several-1")).status).toBe("waiting");
  const { out, err, code } = await line.ar("cancel", "several-1", "done-1", "several-2");
  expect(out).toMatch(
    /^Cancel sent to 2 runs\.\nRUN +WORKFLOW +NOW\nseveral-1 +sleeping +cancelled\nseveral-2 +sleeping +cancelled\n$/,
  );
  expect(err).toMatch(/^RUN_ENDED: run done-1 has ended \(completed\)/);
  expect(code).toBe(1);
  const { json } = await line.ar("retry", "several-1", "done-1", "--json");
  expect(json.runs).toMatchObject([
    { runId: "several-1", error: { code: "NOT_FAILED", hint: expect.any(String) } },
    { runId: "done-1", error: { code: "NOT_FAILED" } },
  ]);
});

test("a query is asked about first, in a terminal", async () => {
  await start("asking", "asked-1", "asked-2", "asked-3");
  const no = await line.with({ keys: [key.enter] }, "cancel", "--workflow", "asking", "--status", "waiting");
  expect(no.out).toContain("Cancel ");
  expect(no.err).toMatch(/Nothing was changed/);
  expect(no.code).toBe(130);
  expect((await show("asked-1")).status).toBe("waiting");
  const yes = await line.with({ keys: ["y"] }, "pause", "--workflow", "asking");
  expect(yes.code).toBe(0);
  expect((await show("asked-3")).paused).toBe(true);
  expect((await line.with({ keys: [] }, "unpause", "--workflow", "asking", "--yes")).code).toBe(0);
  const { json } = await line.ar("cancel", "--workflow", "asking", "--json");
  expect(json.runs.length).toBeGreaterThanOrEqual(3);
  expect(json.runs.every(({ status }: { status: string }) => status === "cancelled")).toBe(true);
  expect((await line.ar("cancel", "--workflow", "asking")).err).toMatch(/No runs like that/);
});

test("a query by queue", async () => {
  await within(
    async (runtime) => {
      for (const runId of ["post-1", "post-2"]) await runtime.start("completing", { runId, queue: "post" });
    },
    { queues: { post: {} } },
  );
  const listed = await line.ar("ls", "--queue", "post");
  expect(listed.out).toMatch(/WAITS FOR +QUEUE +UPDATED[\s\S]+post-2 .+ post /);
  expect((await line.ar("show", "post-1")).out).toMatch(/Queue +post\n/);
  expect((await line.ar("pause", "--queue", "post", "--yes")).out).toMatch(/^Pause sent to 2 runs\./);
  expect((await line.ar("ls", "--queue", "post", "--json")).json.runs.map(({ paused }: any) => paused)).toEqual([true, true]);
});

// ---- Looking -------------------------------------------------------------------------------------------------------

test("tree draws a run with those that it started", async () => {
  await within(
    async (runtime) => {
      await runtime.run("parent", { runId: "root" });
      await runtime.run("fanning", { runId: "fan" });
      await eventually(async () => (await runtime.count({ parentRunId: "fan", status: "waiting" })) === 2);
    },
    { scheduler: true },
  );
  expect((await line.ar("tree", "root")).out).toMatch(
    /^root {2}parent {2}waiting {2}at a\n└─ \S+ {2}asking {2}waiting {2}at ask\n$/,
  );
  const fan = await line.ar("tree", "fan");
  expect(fan.out).toMatch(/^fan {2}fanning .+\n(├─ .+\n){3}└─ .+\n$/);
  expect(fan.out).toContain("RUN_FAILED_BY_PLAN");
  const cut = await line.ar("tree", "fan", "--limit", "2");
  expect(cut.out).toMatch(/\n├─ .+\n└─ \.\.\.\n$/);
  expect(cut.err).toMatch(/There are more: abstractruntime tree fan --limit 20/);
  expect((await line.ar("show", "fan")).out).toMatch(/Children +4 \(/);
  expect((await show("fan")).children).toMatchObject({ total: 4, byStatus: { waiting: 2, completed: 1, failed: 1 } });
});

test("health says what is in the way", async () => {
  const fresh = new CommandLine();
  await fresh.ar("run", file, "--workflow", "completing", "--id", "done");
  const well = await fresh.ar("health");
  expect(well.out).toMatch(/^Everything moves\.\n {2}Store +sqlite:.+\n {2}Runs +1 completed\n {2}Due +0\n/);
  expect(well.code).toBe(0);
  fresh.remove();

  await start("cleaning", "cleaning-2");
  await line.ar("cancel", "cleaning-2");
  const ill = await line.ar("health");
  expect(ill.out).toMatch(/in the way:\n[\s\S]+blocked: no worker[\s\S]+Next: abstractruntime ls --blocked/);
  expect(ill.out).not.toContain("this runtime");
  expect(ill.code).toBe(1);
  expect((await line.ar("health", "--json")).json).toMatchObject({
    ok: false,
    problems: expect.any(Array),
    store: { reachable: true },
  });
});

test("check finds the live runs that code would break, and changes nothing", async () => {
  const one = new CommandLine();
  await one.ar("run", file, "--workflow", "eventful", "--id", "live");
  await one.ar("run", file, "--workflow", "sleeping", "--id", "other");
  const good = await one.ar("check", file);
  expect(good.out).toMatch(/^This code goes on with 2 live runs of /);
  expect(good.code).toBe(0);
  const bad = await one.ar("check", changed);
  expect(bad.out).toMatch(
    /^This code breaks 1 of 1 live run of "eventful":\n\nRun live of workflow "eventful" \(version 1\), at node "a"\n {2}WORKFLOW_INCOMPATIBLE: /,
  );
  expect(bad.err).toMatch(/Not judged: 1 live run of workflow "sleeping"/);
  expect(bad.code).toBe(1);
  const { json, code } = await one.ar("check", changed, "--json");
  expect(json).toMatchObject({ ok: false, checked: 1, incompatible: [{ runId: "live" }], others: { sleeping: 1 } });
  expect(code).toBe(1);
  expect((await one.ar("show", "live", "--json")).json).toMatchObject({ status: "waiting", version: "1" });
  expect((await one.ar("show", "live", "--json")).json.blocked).toBeUndefined();
  expect((await one.ar("check", file, changed)).err).toMatch(/^INVALID_OPTION: .+export two workflows with the id "eventful"/);
  one.remove();
});

// ---- Schedules -----------------------------------------------------------------------------------------------------

test("schedules are listed, shown, paused, unpaused, triggered and deleted", async () => {
  const one = new CommandLine();
  await one.ar("run", file, "--workflow", "completing", "--id", "first");
  expect((await one.ar("schedules")).err).toMatch(/There are no schedules/);
  const store = await sqliteStore(one.storePath);
  const runtime = await createRuntime({ workflows: [states.completing], store, scheduler: false });
  await runtime.schedules.create({ id: "nightly", cron: "0 3 * * *", timezone: "Europe/Berlin", workflow: "completing" });
  await runtime.schedules.create({ id: "often", everyMs: 60_000, workflow: "completing" });
  await runtime.stop();

  expect((await one.ar("schedules")).out).toMatch(
    /^SCHEDULE .+\nnightly +completing +0 3 \* \* \* \(Europe\/Berlin\) +active +\S+ \S+\noften +completing +every 1 min +active /,
  );
  expect((await one.ar("schedules", "list", "--json")).json.schedules).toHaveLength(2);
  expect((await one.ar("schedules", "show", "often")).out).toMatch(
    /^Schedule "often" of workflow "completing" \(active\)\n[\s\S]+Next: abstractruntime why schedule:often/,
  );

  expect((await one.ar("schedules", "pause", "nightly")).out).toMatch(/is paused[\s\S]+schedules unpause nightly/);
  expect((await one.ar("schedules", "show", "nightly", "--json")).json.paused).toBe(true);
  expect((await one.ar("schedules")).out).toMatch(/nightly .+active, paused/);
  expect((await one.ar("schedules", "unpause", "nightly", "--json")).json).toMatchObject({ id: "nightly", action: "unpause" });
  expect((await one.ar("schedules", "show", "nightly", "--json")).json.paused).toBe(false);

  const triggered = await one.ar("schedules", "trigger", "nightly", "--file", file, "--key", "k", "--json");
  expect(triggered.json.runId).toMatch(/nightly/);
  expect((await one.ar("schedules", "trigger", "nightly", "--file", file, "--key", "k", "--json")).json).toEqual(triggered.json);
  expect((await one.ar("run", file, "--id", triggered.json.runId, "--json")).json.status).toBe("completed");

  expect((await one.ar("schedules", "delete", "nightly")).out).toMatch(/is deleted/);
  expect((await one.ar("schedules", "delete", "nightly")).code).toBe(0);
  expect((await one.ar("schedules", "list", "--json")).json.schedules.map(({ id }: { id: string }) => id)).toEqual(["often"]);
  expect((await one.ar("show", "schedule:nightly", "--json")).json.status).toBe("cancelled");
  expect((await one.ar("schedules", "pause", "oftne")).err).toMatch(/^SCHEDULE_NOT_FOUND: .+\nDid you mean "often"\?/);
  one.remove();
});
