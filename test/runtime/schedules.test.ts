// Schedules: when they fire, what becomes of moments that overlap or are missed, and that each moment starts one run and no more.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  askUser,
  complete,
  createRuntime,
  defineWorkflow,
  fail,
  type Runtime,
  type ScheduleOptions,
  type Store,
  type Workflow,
  type,
} from "abstractruntime";
import { filesStore } from "abstractruntime/files";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { testClock } from "abstractruntime/testing";
import fc from "fast-check";
import { afterEach, describe, expect, test } from "vitest";
import { latestMoment, nextMoment, type Timetable } from "../../src/runtime/schedules/moments.ts";
import { everyRun, refusal, scenario, stopped, storeKinds, World } from "../scenarios/harness.ts";
import { tried } from "../properties.ts";

const minute = 60_000;
const hour = 60 * minute;
const day = 24 * hour;
/** Where test clocks begin. */
const start = Date.UTC(2026, 0, 1);
const iso = (at: number | null | undefined) => (typeof at === "number" ? new Date(at).toISOString() : at);
const at = (ms: number) => iso(start + ms);

const report = defineWorkflow({
  id: "report",
  vars: type<{ at?: string; kind?: string; deep?: { at: string } }>(),
  entry: "write",
  nodes: { write: ({ vars }) => complete({ written: vars.at ?? null }) },
});
/** Ends when somebody says so. */
const long = defineWorkflow({
  id: "long",
  vars: type<{ at?: string; answer?: { text: string } }>(),
  entry: "ask",
  nodes: {
    ask: () => askUser({ prompt: "Done?" }, { resultKey: "answer", nextNode: "end" }),
    end: ({ vars }) => (vars.answer?.text === "fail" ? fail("it went wrong") : complete()),
  },
});
const code = { workflows: [report, long] };
const hourly = { id: "s", cron: "0 * * * *", momentKey: "at" } as const;

const create = (world: World, options: ScheduleOptions<any>) => world.with((runtime) => runtime.schedules.create(options));
const get = (world: World, id = "s") => world.with((runtime) => runtime.schedules.get(id));

/** Goes to a moment, counted from the first, stopping at none before it. */
const goTo = (world: World, ms: number) => world.advance(start + ms - world.now());

/** The moments for which runs were started, in the order of their starts. */
async function fired(world: World, workflowId = "report"): Promise<unknown[]> {
  return world.with(async (runtime) => {
    const rows = (await everyRun(runtime)).filter((row) => row.workflowId === workflowId);
    return Promise.all(rows.map(async ({ runId }) => (await runtime.get(runId)).vars.at));
  });
}

/** Answers the run of `long` that is open. */
async function end(world: World, text = "done"): Promise<void> {
  const open = await world.with(async (runtime) =>
    (await everyRun(runtime)).filter((row) => row.workflowId === "long" && row.status === "waiting"),
  );
  expect(open).toHaveLength(1);
  await world.respond(open[0]!.runId, text);
}

describe("moments", () => {
  const list = (timetable: Timetable, from: string, count: number): string[] => {
    const found: string[] = [];
    for (let last = Date.parse(from); found.length < count; ) {
      last = nextMoment(timetable, Date.parse(from), last)!;
      found.push(new Date(last).toISOString().replace(":00.000Z", "Z"));
    }
    return found;
  };
  const berlin = (cron: string) => ({ cron, timezone: "Europe/Berlin" });

  test("an hour that the clock skips is made up for at its end, once", () => {
    expect(list(berlin("30 2 * * *"), "2026-03-28T00:00Z", 3)).toEqual([
      "2026-03-28T01:30Z",
      "2026-03-29T01:00Z",
      "2026-03-30T00:30Z",
    ]);
    expect(list(berlin("*/30 * * * *"), "2026-03-29T00:20Z", 3)).toEqual([
      "2026-03-29T00:30Z",
      "2026-03-29T01:00Z",
      "2026-03-29T01:30Z",
    ]);
  });

  test("in an hour that comes twice, a time of day fires at the first, and a step or a star at both", () => {
    expect(list(berlin("30 2 * * *"), "2026-10-24T00:00Z", 3)).toEqual([
      "2026-10-24T00:30Z",
      "2026-10-25T00:30Z",
      "2026-10-26T01:30Z",
    ]);
    expect(list(berlin("0 * * * *"), "2026-10-24T23:30Z", 3)).toEqual([
      "2026-10-25T00:00Z",
      "2026-10-25T01:00Z",
      "2026-10-25T02:00Z",
    ]);
    expect(list(berlin("*/30 * * * *"), "2026-10-24T23:50Z", 4)).toEqual([
      "2026-10-25T00:00Z",
      "2026-10-25T00:30Z",
      "2026-10-25T01:00Z",
      "2026-10-25T01:30Z",
    ]);
  });

  test("the same cron is another moment in another time zone", () => {
    expect(list({ cron: "0 9 * * 1-5", timezone: "America/New_York" }, "2026-01-02T00:00Z", 2)).toEqual([
      "2026-01-02T14:00Z",
      "2026-01-05T14:00Z",
    ]);
    expect(list({ cron: "0 9 * * 1-5", timezone: "Asia/Kathmandu" }, "2026-01-02T00:00Z", 2)).toEqual([
      "2026-01-02T03:15Z",
      "2026-01-05T03:15Z",
    ]);
  });

  test("startAt is the first moment of an interval, and endAt may be the last", () => {
    const timetable = { everyMs: hour, startAt: start + 90 * minute, endAt: start + 210 * minute };
    expect(nextMoment(timetable, start, start)).toBe(start + 90 * minute);
    expect(nextMoment(timetable, start, start + 150 * minute)).toBe(start + 210 * minute);
    expect(nextMoment(timetable, start, start + 210 * minute)).toBeUndefined();
    // Made after it, the schedule keeps to the same beat, and fires for nothing that was before.
    expect(nextMoment(timetable, start + 100 * minute, start)).toBe(start + 150 * minute);
    expect(nextMoment({ everyMs: hour }, start, start)).toBe(start + hour);
  });

  test("the next moment never falls as time rises, and the latest is the last of those a walk finds (M1)", () => {
    const crons = ["*/7 * * * *", "30 1-3 * * *", "0 */5 * * *", "15 2 * * 0", "*/20 2 * * *", "0 0 1 * *"];
    const zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "America/Havana", "UTC"];
    const days = [
      Date.UTC(2026, 2, 8),
      Date.UTC(2026, 2, 29),
      Date.UTC(2026, 3, 5),
      Date.UTC(2026, 9, 25),
      Date.UTC(2026, 10, 1),
    ];
    const near = fc
      .tuple(fc.constantFrom(...days), fc.integer({ min: -day, max: 2 * day }))
      .map(([base, offset]) => base + offset);
    fc.assert(
      fc.property(
        fc.constantFrom(...crons),
        fc.constantFrom(...zones),
        near,
        fc.integer({ min: 0, max: 2 * day }),
        (cron, timezone, from, span) => {
          const timetable = { cron, timezone };
          const known = nextMoment(timetable, from, from)!;
          expect(known).toBeGreaterThan(from);
          expect(nextMoment(timetable, from, from + Math.floor((known - from) / 2))).toBe(known);
          const walked = [known];
          for (let next = known; next <= known + span; next = nextMoment(timetable, from, next)!) {
            expect(next).toBeGreaterThanOrEqual(walked.at(-1)!);
            walked.push(next);
          }
          expect(latestMoment(timetable, from, known, known + span)).toBe(walked.at(-1));
        },
      ),
      tried(100),
    );
  });
});

scenario("a cron schedule starts a run at each of its moments", async (world) => {
  await world.use(code);
  const made = await create(world, { ...hourly, workflow: report, vars: { kind: "hourly" } });
  expect(made).toMatchObject({
    id: "s",
    status: "active",
    paused: false,
    running: false,
    nextAt: start + hour,
    createdAt: start,
  });
  await world.settle();
  for (let i = 1; i <= 4; i++) {
    await goTo(world, i * hour - 1);
    expect(await fired(world)).toHaveLength(i - 1);
    await goTo(world, i * hour);
    expect(await fired(world)).toHaveLength(i);
  }
  expect(await fired(world)).toEqual([at(hour), at(2 * hour), at(3 * hour), at(4 * hour)]);
  const schedule = await get(world);
  expect(schedule).toMatchObject({ lastAt: start + 4 * hour, nextAt: start + 5 * hour, running: false });
  const last = await world.get(schedule.lastRunId!);
  expect(last).toMatchObject({ workflowId: "report", vars: { at: at(4 * hour), kind: "hourly" }, parentRunId: "schedule:s" });
});

scenario("an interval keeps its beat, and ends with endAt", async (world) => {
  await world.use(code);
  await create(world, { id: "s", everyMs: 90_000, workflow: "report", momentKey: "deep.at", endAt: at(5 * minute)! });
  for (let ms = 30_000; ms <= 6 * minute; ms += 30_000) await goTo(world, ms);
  const rows = await world.with(everyRun);
  const runs = [];
  for (const { runId } of rows.filter((row) => row.workflowId === "report")) runs.push(await world.get(runId));
  expect(runs.map(({ vars }) => vars)).toEqual([90_000, 180_000, 270_000].map((ms) => ({ deep: { at: at(ms) } })));
  expect(await get(world)).toMatchObject({ status: "completed", nextAt: null, lastAt: start + 270_000 });
  expect(await world.with((runtime) => refusal(runtime.schedules.pause("s")))).toMatch(
    /^SCHEDULE_NOT_FOUND: .*has ended \(completed\)/,
  );
});

scenario('"skip": what comes while a run is under way is left out', async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long });
  await goTo(world, hour);
  expect(await get(world)).toMatchObject({ running: true, nextAt: null, lastAt: start + hour });
  await goTo(world, 2 * hour);
  await goTo(world, 3.5 * hour);
  expect(await fired(world, "long")).toEqual([at(hour)]);
  await end(world);
  expect(await get(world)).toMatchObject({ running: false, nextAt: start + 4 * hour });
  await goTo(world, 4 * hour);
  expect(await fired(world, "long")).toEqual([at(hour), at(4 * hour)]);
});

scenario('"queue": what comes while a run is under way follows at its end, one by one', async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long, overlap: "queue", catchUp: "none" });
  await goTo(world, hour);
  await goTo(world, 3.5 * hour);
  expect(await fired(world, "long")).toEqual([at(hour)]);
  await end(world);
  expect(await fired(world, "long")).toEqual([at(hour), at(2 * hour)]);
  await goTo(world, 4.5 * hour);
  await end(world);
  await end(world);
  await end(world);
  expect(await fired(world, "long")).toEqual([at(hour), at(2 * hour), at(3 * hour), at(4 * hour)]);
  expect(await get(world)).toMatchObject({ running: false, nextAt: start + 5 * hour });
});

scenario('"allow": runs do not wait for one another', async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long, overlap: "allow" });
  for (const i of [1, 2, 3]) await goTo(world, i * hour);
  expect(await fired(world, "long")).toEqual([at(hour), at(2 * hour), at(3 * hour)]);
  expect(await get(world)).toMatchObject({ running: true, nextAt: start + 4 * hour });
});

for (const overlap of ["skip", "queue", "allow"] as const) {
  const missed = Array.from({ length: 24 }, (_, i) => at((i + 2) * hour));
  for (const [catchUp, expected] of [
    ["none", []],
    ["latest", [at(25 * hour)]],
    ["all", missed],
  ] as const) {
    scenario(`after a day without a process, catchUp "${catchUp}" with overlap "${overlap}"`, async (world) => {
      await world.use(code);
      await create(world, { ...hourly, workflow: report, overlap, catchUp });
      await goTo(world, hour);
      await goTo(world, 25.5 * hour);
      expect(await fired(world)).toEqual([at(hour), ...expected]);
      await goTo(world, 26 * hour);
      expect(await fired(world)).toEqual([at(hour), ...expected, at(26 * hour)]);
    });
  }
}

scenario('"skip" with "all": what was missed is owed, and what comes while a run makes up for it is left out', async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long, catchUp: "all" });
  await world.settle();
  await world.drop();
  await world.clock.advance(2.5 * hour);
  await world.settle();
  await goTo(world, 5.5 * hour);
  expect(await fired(world, "long")).toEqual([at(hour)]);
  await end(world);
  await goTo(world, 8.5 * hour);
  expect(await fired(world, "long")).toEqual([at(hour), at(2 * hour)]);
  await end(world);
  expect(await get(world)).toMatchObject({ running: false, nextAt: start + 9 * hour });
  expect((await world.get("schedule:s")).vars).not.toHaveProperty("owedTo");
  await goTo(world, 9 * hour);
  expect(await fired(world, "long")).toEqual([at(hour), at(2 * hour), at(9 * hour)]);
});

scenario("up to a minute late is on time", async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: report, catchUp: "none" });
  await world.settle();
  await world.drop();
  await world.clock.advance(hour + minute);
  await world.settle();
  await world.drop();
  await world.clock.advance(hour + 1);
  await world.settle();
  expect(await fired(world)).toEqual([at(hour)]);
});

scenario("moments that were missed before the first drive are caught up with", async (world) => {
  await world.use(code);
  await world.manually((runtime) => runtime.schedules.create({ ...hourly, workflow: report }));
  expect(await get(world)).toMatchObject({ nextAt: start + hour });
  await world.drop();
  await world.clock.advance(3.5 * hour);
  await world.settle();
  expect(await fired(world)).toEqual([at(3 * hour)]);
});

scenario('"queue": while a run has not ended moments queue up, whether or not anything is running', async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long, overlap: "queue", catchUp: "latest" });
  await goTo(world, hour);
  const { lastRunId } = await get(world);
  await world.manually((runtime) => runtime.respond(lastRunId!, "done"));
  await world.clock.advance(day);
  await world.settle();
  expect(await fired(world, "long")).toEqual([at(hour), at(2 * hour)]);
});

scenario('"queue": what stood in the queue when everything stopped was missed', async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long, overlap: "queue", catchUp: "latest" });
  await goTo(world, hour);
  await goTo(world, 3.5 * hour);
  const { lastRunId } = await get(world);
  await world.manually(async (runtime) => {
    await runtime.respond(lastRunId!, "done");
    await runtime.tick(lastRunId!);
    // The end of its run is taken, and 02:00 is next.
    const { vars } = await runtime.tick("schedule:s", { maxSteps: 1 });
    expect(vars).toMatchObject({ nextAt: start + 2 * hour, freeAt: start + 3.5 * hour });
  });
  await world.clock.advance(day);
  await world.settle();
  expect(await fired(world, "long")).toEqual([at(hour), at(27 * hour)]);
  await end(world);
  expect(await get(world)).toMatchObject({ nextAt: start + 28 * hour });
});

scenario("a run that fails does not end its schedule, and is told of", async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long });
  await goTo(world, hour);
  await end(world, "fail");
  expect(await get(world)).toMatchObject({ status: "active", nextAt: start + 2 * hour, lastError: { message: "it went wrong" } });
  await goTo(world, 2 * hour);
  await end(world);
  const schedule = await get(world);
  expect(schedule).toMatchObject({ nextAt: start + 3 * hour });
  expect(schedule.lastError).toBeUndefined();
});

scenario("vars that the workflow no longer takes do not end the schedule", async (world) => {
  const strict = defineWorkflow({
    id: "report",
    vars: {
      "~standard": { version: 1, vendor: "test", validate: () => ({ issues: [{ message: "not like this" }] }) },
    } as never,
    entry: "write",
    nodes: { write: () => complete() },
  });
  await world.use(code);
  await create(world, { ...hourly, workflow: report, overlap: "allow" });
  await world.use(strict);
  await goTo(world, hour);
  const schedule = await get(world);
  expect(schedule).toMatchObject({
    status: "active",
    running: false,
    nextAt: start + 2 * hour,
    lastError: { code: "VARS_INVALID" },
  });
  expect(schedule.lastRunId).toBeUndefined();
  await world.use(code);
  await goTo(world, 2 * hour);
  expect(await fired(world)).toEqual([at(2 * hour)]);
});

scenario("paused, nothing fires; afterwards, what came meanwhile was missed", async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: report });
  await goTo(world, hour);
  for (const _ of [1, 2]) await world.with((runtime) => runtime.schedules.pause("s"));
  expect(await get(world)).toMatchObject({ paused: true, status: "active" });
  await goTo(world, 2 * hour);
  await goTo(world, 4.5 * hour);
  expect(await fired(world)).toEqual([at(hour)]);
  expect(await get(world)).toMatchObject({ paused: true });
  for (const _ of [1, 2]) await world.with((runtime) => runtime.schedules.unpause("s"));
  expect(await get(world)).toMatchObject({ paused: false });
  await world.settle();
  expect(await fired(world)).toEqual([at(hour), at(4 * hour)]);
  await goTo(world, 5 * hour);
  expect(await fired(world)).toEqual([at(hour), at(4 * hour), at(5 * hour)]);
});

scenario("deleted, it fires no more; made again, it is another one", async (world) => {
  await world.use(code);
  const first = await create(world, { ...hourly, workflow: report });
  await goTo(world, hour);
  for (let generation = 2; generation <= 6; generation++) {
    // At once, before any worker has taken the cancel.
    await world.manually(async (runtime) => {
      await runtime.schedules.delete("s");
      await runtime.schedules.delete("s");
      expect(await refusal(runtime.schedules.get("s"))).toMatch(/^SCHEDULE_NOT_FOUND/);
      expect(await runtime.schedules.list()).toEqual([]);
      const again = await runtime.schedules.create({ id: "s", everyMs: hour, workflow: report, momentKey: "at" });
      expect(again.runId).toBe(`schedule:s~${generation}`);
    });
    await world.settle();
  }
  expect(await world.get(first.runId)).toMatchObject({ status: "cancelled" });
  await goTo(world, 2 * hour);
  expect(await fired(world)).toEqual([at(hour), at(2 * hour)]);
  expect(await world.with((runtime) => runtime.schedules.list())).toMatchObject([{ id: "s", lastAt: start + 2 * hour }]);
});

scenario("a run that is under way goes on when its schedule is deleted", async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long });
  await goTo(world, hour);
  const { lastRunId } = await get(world);
  await world.with((runtime) => runtime.schedules.delete("s"));
  await world.settle();
  expect(await world.respond(lastRunId!, "done")).toMatchObject({ status: "completed" });
});

scenario("trigger starts a run outside of the plan, once for each key", async (world) => {
  await world.use(code);
  await create(world, { ...hourly, workflow: long, vars: {} });
  await goTo(world, hour + 5);
  const trigger = (key?: string) => world.with((runtime) => runtime.schedules.trigger("s", key === undefined ? {} : { key }));
  const first = await trigger("a");
  await goTo(world, hour + 10);
  expect(await trigger("a")).toEqual(first);
  expect((await trigger("b")).runId).not.toBe(first.runId);
  expect((await trigger()).runId).not.toBe((await trigger()).runId);
  await world.with((runtime) => runtime.schedules.pause("s"));
  await trigger("while paused");
  await world.with((runtime) => runtime.schedules.unpause("s"));
  await world.settle();
  expect((await world.get(first.runId)).vars).toEqual({ at: at(hour + 5) });
  expect(await fired(world, "long")).toHaveLength(6);
  expect(await get(world)).toMatchObject({ lastAt: start + hour, running: true });
});

scenario("created twice alike, it is found; otherwise it is refused", async (world) => {
  await world.use(code);
  const options = { ...hourly, cron: " 0  * * * * ", workflow: report, vars: { kind: "x" } };
  const first = await create(world, options);
  await goTo(world, 1.5 * hour);
  expect(await create(world, { ...options, overlap: "skip", timezone: "UTC" })).toMatchObject({
    runId: first.runId,
    createdAt: start,
  });
  const other = (changed: object) => refusal(create(world, { ...options, ...changed }));
  expect(await other({ cron: "5 * * * *" })).toMatch(/^SCHEDULE_EXISTS: schedule "s" exists with another cron\./);
  expect(await other({ workflow: long, vars: {} })).toMatch(/^SCHEDULE_EXISTS: .*another workflowId, vars/);
  expect(await other({ endAt: at(day) })).toMatch(/^SCHEDULE_EXISTS: .*another endAt/);
  expect(await fired(world)).toEqual([at(hour)]);
});

test("a schedule that has ended is found by the same create, and makes room for another one", async () => {
  const world = new World("memory", "plainly");
  try {
    await world.use(code);
    const options = { ...hourly, workflow: report, endAt: start + 1.5 * hour };
    await create(world, options);
    await goTo(world, hour);
    await goTo(world, 2 * hour);
    expect(await create(world, options)).toMatchObject({ status: "completed", runId: "schedule:s" });
    expect(await create(world, { ...hourly, workflow: report })).toMatchObject({ status: "active", runId: "schedule:s~2" });
  } finally {
    await world.close();
  }
});

test("each run that a schedule starts has a budget of its own", async () => {
  const world = new World("memory", "plainly");
  try {
    await world.use(code);
    const budget = { tokens: 5 };
    await create(world, { ...hourly, workflow: report, budget });
    const again = { ...hourly, workflow: report, budget: { tokens: 6 } };
    expect(await refusal(create(world, again))).toMatch(/^SCHEDULE_EXISTS: .*budget/);
    expect(await refusal(create(world, { ...again, id: "other", budget: { token: 6 } } as never))).toContain(
      'Did you mean "tokens"?',
    );
    await goTo(world, hour);
    const { runId } = await world.with((runtime) => runtime.schedules.trigger("s"));
    await world.settle();
    const { lastRunId } = await get(world);
    for (const one of [runId, lastRunId as string])
      expect(await world.with((runtime) => runtime.budgets(one))).toMatchObject([
        { scope: one, name: "tokens", used: 0, limit: 5 },
      ]);
  } finally {
    await world.close();
  }
});

test("what the schedule keeps does not grow", async () => {
  const world = new World("memory", "plainly");
  try {
    await world.use(code);
    await create(world, { id: "s", everyMs: minute, workflow: report, overlap: "queue", catchUp: "all" });
    const size = async () => JSON.stringify((await world.get("schedule:s")).vars).length;
    await goTo(world, 3 * minute);
    const before = await size();
    for (let i = 4; i <= 60; i++) await goTo(world, i * minute);
    expect(await fired(world)).toHaveLength(60);
    expect(await size()).toBe(before);
  } finally {
    await world.close();
  }
});

describe("killed at any commit, before or after it", () => {
  for (const overlap of ["skip", "allow"] as const) {
    for (const after of [false, true]) {
      test(`overlap "${overlap}", ${after ? "after" : "before"}`, async () => {
        for (let commits = 1, survived = false; !survived; commits++) {
          const world = new World("memory", "plainly");
          try {
            await world.use(code);
            await world.manually((runtime) => runtime.schedules.create({ ...hourly, workflow: report, overlap }));
            world.killAt(commits, after);
            const settle = async () => {
              await world.settle();
              if (!world.killed) return;
              await world.crash();
              survived = false;
              await world.settle();
            };
            survived = true;
            await settle();
            for (let i = 1; i <= 2; i++) {
              await world.drop();
              await world.clock.advance(start + i * hour - world.now());
              await settle();
            }
            expect(await fired(world)).toEqual([at(hour), at(2 * hour)]);
            expect(commits).toBeLessThan(50);
            if (survived) expect(commits).toBeGreaterThan(4);
            await world.check();
          } finally {
            await world.close();
          }
        }
      });
    }
  }
});

describe("several processes", () => {
  const closing: (() => unknown)[] = [];
  afterEach(async () => {
    for (const close of closing.splice(0).reverse()) await close();
  });

  async function open(kind: (typeof storeKinds)[number], workflows: (typeof report | typeof long)[][]) {
    const clock = testClock();
    const directory = mkdtempSync(join(tmpdir(), "schedules-"));
    closing.push(() => rmSync(directory, { recursive: true, force: true }));
    // Of a store that takes one process at a time, the workers share one object.
    const shared = kind === "files" ? await filesStore(directory, { clock }) : memoryStore({ clock });
    closing.push(() => shared.close());
    const runtimes: Runtime[] = [];
    for (const known of workflows) {
      const store: Store =
        kind === "sqlite"
          ? await sqliteStore(join(directory, "runs.db"), { clock })
          : new Proxy(shared, {
              get: (target, name) => {
                const value = Reflect.get(target, name);
                return name === "close" ? async () => undefined : typeof value === "function" ? value.bind(target) : value;
              },
            });
      const runtime = await createRuntime({ workflows: known, store, clock, scheduler: { pollMs: 200 } });
      closing.push(() => stopped(runtime, clock));
      runtimes.push(runtime);
    }
    return { clock, runtimes };
  }

  describe.each(storeKinds)("on %s", (kind) => {
    const momentsOf = async (runtime: Runtime): Promise<string[]> => {
      const rows = (await everyRun(runtime)).filter((row) => row.workflowId === "report");
      return (await Promise.all(rows.map(async ({ runId }) => (await runtime.get(runId)).vars.at as string))).sort();
    };
    const everySecond = { id: "s", everyMs: 1_000, workflow: report, momentKey: "at", overlap: "allow" } as const;
    const seconds = (count: number) => Array.from({ length: count }, (_, i) => at((i + 1) * 1_000));

    test("two of them fire each of 100 moments once, though one stops half-way", async () => {
      const { clock, runtimes } = await open(kind, [[report], [report]]);
      const made = await Promise.all(runtimes.map((runtime) => runtime.schedules.create(everySecond)));
      expect(new Set(made.map(({ runId }) => runId)).size).toBe(1);
      for (let i = 0; i < 50 * 4; i++) await clock.advance(250);
      await stopped(runtimes[0]!, clock);
      for (let i = 0; i < 50 * 4 + 3; i++) await clock.advance(250);
      expect(await momentsOf(runtimes[1]!)).toEqual(seconds(100));
      const { records } = await runtimes[1]!.verify("schedule:s");
      // docs/schedules.md says how many a moment takes.
      expect(records).toBeLessThanOrEqual(5 * 100 + 5);
    });

    test("one without the workflow leaves the schedule to one that has it", async () => {
      const { clock, runtimes } = await open(kind, [[long], [report]]);
      expect(await refusal(runtimes[0]!.schedules.create(everySecond))).toMatch(/^WORKFLOW_UNKNOWN: .*\(known: long\)/);
      await runtimes[1]!.schedules.create(everySecond);
      for (let i = 0; i < 20 * 4 + 3; i++) await clock.advance(250);
      expect(await momentsOf(runtimes[0]!)).toEqual(seconds(20));
    });
  });

  test("a schedule says when no worker has its workflow", async () => {
    const world = new World("memory", "plainly");
    try {
      await world.use(code);
      await create(world, { ...hourly, workflow: report });
      await world.use({ workflows: [long] });
      await goTo(world, hour);
      expect(await get(world)).toMatchObject({ status: "active", blocked: { code: "WORKFLOW_UNKNOWN" } });
      await world.use(code);
      await world.settle();
      expect(await fired(world)).toEqual([at(hour)]);
      expect((await get(world)).blocked).toBeUndefined();
    } finally {
      await world.close();
    }
  });
});

test("the compiler knows the vars of the workflow", () => {
  const typed = (runtime: Runtime, needy: Workflow<{ name: string; at: string }, unknown, { name: string; at: string }>) => [
    runtime.schedules.create({ id: "s", cron: "* * * * *", workflow: needy, vars: { name: "Ada", at: "now" } }),
    runtime.schedules.create({ id: "s", cron: "* * * * *", workflow: needy, vars: { name: "Ada" }, momentKey: "at" }),
    runtime.schedules.create({ id: "s", everyMs: 1_000, workflow: "by id", vars: { anything: 1 } }),
    // @ts-expect-error No momentKey gives the member that is missing.
    runtime.schedules.create({ id: "s", cron: "* * * * *", workflow: needy, vars: { name: "Ada" } }),
    // @ts-expect-error A member of another type.
    runtime.schedules.create({ id: "s", cron: "* * * * *", workflow: needy, vars: { name: 5 }, momentKey: "at" }),
    // @ts-expect-error Both.
    runtime.schedules.create({ id: "s", cron: "* * * * *", everyMs: 1_000, workflow: "by id" }),
    // @ts-expect-error Neither.
    runtime.schedules.create({ id: "s", workflow: "by id" }),
  ];
  expect(typed).toBeTypeOf("function");
});

describe("bad input", () => {
  const good = { id: "s", cron: "0 * * * *", workflow: "report" };
  const table: [what: string, changed: Record<string, unknown>, message: RegExp][] = [
    ["a misspelt option", { overlaps: "skip" }, /^INVALID_OPTION: .*"overlaps".*Did you mean "overlap"\?/],
    ["no id", { id: undefined }, /^SCHEDULE_INVALID: .*its id is not text/],
    ["an empty id", { id: "" }, /^SCHEDULE_INVALID: .*its id is not text, or empty/],
    ["a long id", { id: "x".repeat(121) }, /^SCHEDULE_INVALID: .*121 characters/],
    ["an id with ~", { id: "s~2" }, /^SCHEDULE_INVALID: .*has a "~"/],
    ["half a surrogate pair", { id: "\ud800" }, /^SCHEDULE_INVALID: .*surrogate/],
    ["neither cron nor interval", { cron: undefined }, /^SCHEDULE_INVALID: .*cron or everyMs/],
    ["both", { everyMs: 5_000 }, /^SCHEDULE_INVALID: .*not both/],
    ["too few fields", { cron: "* *" }, /^SCHEDULE_INVALID: .*has 2 fields, not 5 or 6/],
    ["too many fields", { cron: "* * * * * * *" }, /^SCHEDULE_INVALID: .*has 7 fields/],
    ["an empty cron", { cron: "  " }, /^SCHEDULE_INVALID: .*has 0 fields/],
    ["a nickname", { cron: "@daily" }, /^SCHEDULE_INVALID: .*Did you mean "0 0 \* \* \*"\?/],
    ["a minute that there is not", { cron: "61 * * * *" }, /^SCHEDULE_INVALID: .*Invalid value for minute: 61\. Correct cron/],
    ["letters", { cron: "a b c d e" }, /^SCHEDULE_INVALID: .*cannot be read/],
    ["a cron that never comes", { cron: "0 0 30 2 *" }, /^SCHEDULE_INVALID: .*never comes/],
    ["a cron that is no text", { cron: 5 }, /^SCHEDULE_INVALID: .*cron is not text/],
    ["a time zone that there is not", { timezone: "Europe/Berln" }, /^SCHEDULE_INVALID: .*Did you mean "Europe\/Berlin"\?/],
    ["an offset", { timezone: "+02:00" }, /^SCHEDULE_INVALID: .*not an IANA time zone/],
    ["a time zone that is no text", { timezone: 2 }, /^SCHEDULE_INVALID: .*timezone is not text/],
    [
      "a time zone for an interval",
      { cron: undefined, everyMs: 5_000, timezone: "UTC" },
      /^SCHEDULE_INVALID: .*timezone is for cron/,
    ],
    ["a short interval", { cron: undefined, everyMs: 999 }, /^SCHEDULE_INVALID: .*everyMs is 999, not a whole number/],
    ["an interval of none", { cron: undefined, everyMs: Number.NaN }, /^SCHEDULE_INVALID: .*everyMs is NaN/],
    ["a broken interval", { cron: undefined, everyMs: 1_000.5 }, /^SCHEDULE_INVALID/],
    ["a misspelt overlap", { overlap: "skp" }, /^SCHEDULE_INVALID: .*"skp".*Did you mean "skip"\?/],
    ["a misspelt catchUp", { catchUp: "lastest" }, /^SCHEDULE_INVALID: .*Did you mean "latest"\?/],
    ["no moment", { startAt: "tomorrow" }, /^SCHEDULE_INVALID: .*startAt: "tomorrow" is not a date/],
    ["a moment without a zone", { endAt: "2027-01-01T00:00" }, /^SCHEDULE_INVALID: .*has no time zone/],
    ["an end before the start", { startAt: start + day, endAt: start }, /^SCHEDULE_INVALID: .*endAt lies before startAt/],
    ["an end before the first moment", { endAt: start + 1 }, /^SCHEDULE_INVALID: .*no moment comes before endAt/],
    ["a momentKey to a prototype", { momentKey: "a.__proto__.b" }, /^SCHEDULE_INVALID: .*would reach a prototype/],
    ["an empty momentKey", { momentKey: "" }, /^SCHEDULE_INVALID: .*momentKey is not text/],
    ["a misspelt workflow", { workflow: "reprot" }, /^WORKFLOW_UNKNOWN: .*\(known: report, picky\)\. Did you mean "report"\?/],
    ["no workflow", { workflow: undefined }, /^WORKFLOW_UNKNOWN/],
    ["vars that do not fit", { workflow: "picky" }, /^VARS_INVALID: .*no name/],
    ["vars that are no JSON", { vars: { f: () => 1 } }, /^NOT_JSON/],
    ["vars that are a list", { vars: [] }, /^NOT_JSON/],
  ];
  const picky = defineWorkflow({
    id: "picky",
    vars: {
      "~standard": {
        version: 1,
        vendor: "test",
        validate: (value: any) => ("name" in value ? { value } : { issues: [{ message: "no name" }] }),
      },
    } as never,
    entry: "end",
    nodes: { end: () => complete() },
  });

  test.each(table)("%s", async (_, changed, message) => {
    const clock = testClock();
    const runtime = await createRuntime({ workflows: [report, picky], store: memoryStore({ clock }), clock });
    try {
      expect(await refusal(runtime.schedules.create({ ...good, ...changed } as never))).toMatch(message);
      expect((await runtime.list()).runs).toEqual([]);
    } finally {
      await stopped(runtime, clock);
    }
  });

  test("options that are none, ids that nobody has, and ids that belong to another run", async () => {
    const clock = testClock();
    const runtime = await createRuntime({ workflows: [report, picky], store: memoryStore({ clock }), clock });
    try {
      const { schedules } = runtime;
      expect(await refusal(schedules.create(undefined as never))).toMatch(/^INVALID_OPTION/);
      await schedules.create({ id: "nightly", cron: "0 3 * * *", workflow: report });
      for (const name of ["get", "pause", "unpause", "delete", "trigger"] as const) {
        expect(await refusal(schedules[name]("nihgtly"))).toMatch(/^SCHEDULE_NOT_FOUND: .*Did you mean "nightly"\?/);
        expect(await refusal(schedules[name](5 as never))).toMatch(/^SCHEDULE_INVALID/);
      }
      expect(await refusal(schedules.trigger("nightly", { key: "" }))).toMatch(/^INVALID_OPTION/);
      expect(await refusal(runtime.start("abstractruntime.schedule"))).toMatch(/^VARS_INVALID: .*schedules\.create/);
      await runtime.start(report, { runId: "schedule:mine" });
      expect(await refusal(schedules.create({ id: "mine", cron: "0 3 * * *", workflow: report }))).toMatch(/^RUN_EXISTS/);
      expect(
        await refusal(
          createRuntime({
            workflows: [defineWorkflow({ id: "abstractruntime.schedule", entry: "a", nodes: { a: () => complete() } })],
            store: memoryStore(),
          }),
        ),
      ).toMatch(/^WORKFLOW_INVALID: .*two workflows have this id/);
    } finally {
      await stopped(runtime, clock);
    }
  });
});
