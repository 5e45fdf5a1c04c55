// Every line of what bad input gets: a code, a fact, a next step; nothing lost, and no run left with nobody to drive it.
import { hash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import {
  type AbstractRuntimeError,
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  goto,
  isError,
  type Runtime,
  type RuntimeOptions,
  sleep,
  type StepPlan,
  waitEvent,
} from "abstractruntime";
import { filesStore } from "abstractruntime/files";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { faultyStore, type TestClock, testClock, testIds } from "abstractruntime/testing";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { z } from "zod";
import { everyRun, expectMovable, moved, stopped } from "../scenarios/harness.ts";

let directory: string;
let clock: TestClock;
const runtimes: Runtime[] = [];

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "bad-input-"));
  clock = testClock();
});

afterEach(async () => {
  vi.restoreAllMocks();
  for (const runtime of runtimes.splice(0)) {
    for (const run of await everyRun(runtime).catch(() => [])) expectMovable(run);
    await stopped(runtime, clock);
  }
  rmSync(directory, { recursive: true, force: true });
});

async function open(options: RuntimeOptions = {}): Promise<Runtime> {
  const runtime = await createRuntime({ store: memoryStore({ clock }), clock, ids: testIds(), scheduler: false, ...options });
  runtimes.push(runtime);
  return runtime;
}

/** Text that no compression makes much smaller. */
function noise(length: number): string {
  let text = "";
  for (let i = 0; text.length < length; i++) text += hash("sha512", `${i}`, "base64url");
  return text.slice(0, length);
}

/** What a call is refused with; its message holds the code, a fact and a next step. */
async function refused(call: Promise<unknown> | (() => unknown)): Promise<{ code: string; message: string; fields: any }> {
  try {
    await (typeof call === "function" ? call() : call);
  } catch (error) {
    if (!isError(error)) throw error;
    const { code, message, hint, fields } = error as AbstractRuntimeError;
    expect(message.startsWith(`${code}: `)).toBe(true);
    expect(hint.length).toBeGreaterThan(10);
    expect(message.endsWith(hint)).toBe(true);
    return { code, message, fields };
  }
  throw new Error("nothing was refused");
}

const asking = defineWorkflow({
  id: "asking",
  entry: "ask",
  nodes: {
    ask: () => askUser({ prompt: "?", choices: ["yes", "no"] }, { resultKey: "answer", nextNode: "end" }),
    end: ({ vars }) => complete(vars.answer),
  },
});
const loosely = (value: unknown) => value as any;

describe("names that nobody knows", () => {
  test("a workflow", async () => {
    const runtime = await open({ workflows: [asking] });
    for (const call of [runtime.start("askng"), runtime.run("askng")]) {
      const { code, message } = await refused(call);
      expect(code).toBe("WORKFLOW_UNKNOWN");
      expect(message).toMatch(/"askng" is not registered with this runtime \(known: asking\)\. Did you mean "asking"\?/);
    }
    expect((await refused(runtime.start(loosely(undefined)))).code).toBe("WORKFLOW_UNKNOWN");
    expect((await refused(runtime.start(loosely({ id: "other" })))).code).toBe("WORKFLOW_UNKNOWN");
    expect((await runtime.list()).runs).toEqual([]);
  });

  test("a run", async () => {
    const runtime = await open({ workflows: [asking] });
    for (const call of [
      () => runtime.get("nobody"),
      () => runtime.tick("nobody"),
      () => runtime.respond("nobody", "yes"),
      () => runtime.resume("nobody", { waitKey: "k" }),
      () => runtime.result("nobody"),
      () => runtime.ledger("nobody"),
      () => runtime.stateAt("nobody", 0),
      () => runtime.verify("nobody"),
    ]) {
      expect(await refused(call)).toMatchObject({
        code: "RUN_NOT_FOUND",
        message: expect.stringMatching(/no run nobody.*abstractruntime ls/),
      });
    }
  });

  test("no id at all, which a database would take for a failure of its own", async () => {
    const runtime = await open({ store: await sqliteStore(join(directory, "runs.db")) });
    const none = loosely(undefined);
    const calls: ((runId: never) => Promise<unknown>)[] = [
      (runId) => runtime.get(runId),
      (runId) => runtime.ledger(runId),
      (runId) => runtime.verify(runId),
      (runId) => runtime.stateAt(runId, 0),
      (runId) => runtime.diff(runId, 0, 1),
      (runId) => runtime.fork(runId),
      (runId) => runtime.export([runId], join(directory, "file")),
      (runId) => runtime.purge({ runIds: [runId] }),
      (runId) => runtime.archiveLedger(runId, { before: 1, to: join(directory, "file") }),
      (runId) => runtime.snapshots.create(runId, { name: "s" }),
      (runId) => runtime.snapshots.get(runId),
      (runId) => runtime.snapshots.delete(runId),
    ];
    for (const call of calls)
      for (const id of [none, loosely(null), loosely(7)]) expect((await refused(call(id as never))).code).toBe("INVALID_OPTION");
    for (const file of [none, loosely("")])
      for (const call of [runtime.export(["x"], file), runtime.archive({ runIds: ["x"], to: file })])
        expect((await refused(call)).code).toBe("INVALID_OPTION");
  });

  test("an option, wherever one is taken", async () => {
    const runtime = await open({ workflows: [asking] });
    const { runId } = await runtime.start(asking);
    for (const [call, wrong, right] of [
      [() => createRuntime(loosely({ workflow: [asking] })), "workflow", "workflows"],
      [() => createRuntime({ limits: loosely({ varBytes: 1 }) }), "varBytes", "varsBytes"],
      [() => createRuntime({ scheduler: loosely({ pollMS: 1 }) }), "pollMS", "pollMs"],
      [() => runtime.start(asking, loosely({ var: {} })), "var", "vars"],
      [() => runtime.run(asking, loosely({ runID: "x" })), "runID", "runId"],
      [() => runtime.tick(runId, loosely({ maxStep: 1 })), "maxStep", "maxSteps"],
      [() => runtime.resume(runId, loosely({ waitKye: "x" })), "waitKye", "waitKey"],
      [() => runtime.list(loosely({ stauts: "waiting" })), "stauts", "status"],
      [() => runtime.ledger(runId, loosely({ form: 1 })), "form", "from"],
      [() => runtime.result(runId, loosely({ timeout: 1 })), "timeout", "timeoutMs"],
      [() => sqliteStore("x.db", loosely({ busyTimeout: 1 })), "busyTimeout", "busyTimeoutMs"],
      [() => memoryStore(loosely({ clok: clock })), "clok", "clock"],
    ] as const) {
      const { code, message } = await refused(call);
      expect({ code, message }).toEqual({
        code: "INVALID_OPTION",
        message: expect.stringMatching(new RegExp(`Unknown option "${wrong}" in .*\\. Did you mean "${right}"\\?`)),
      });
    }
  });

  test("values of options that cannot work", async () => {
    const runtime = await open({ workflows: [asking] });
    const { runId } = await runtime.start(asking);
    for (const call of [
      () => createRuntime({ store: memoryStore(), workflows: loosely([{}]) }),
      () => createRuntime({ store: memoryStore(), workflows: loosely([undefined]) }),
      () => createRuntime({ store: memoryStore(), effects: loosely([{ type: "x" }]) }),
      () => createRuntime({ store: memoryStore(), workflows: loosely({ asking }) }),
      () => createRuntime({ store: memoryStore(), effects: loosely(3) }),
      () => createRuntime({ store: loosely("runs.db") }),
      () => sqliteStore(loosely(undefined)),
      () => sqliteStore("sqlite:runs.db"),
      () => filesStore(loosely(undefined)),
      () => runtime.purge(loosely(undefined)),
      () => createRuntime({ limits: { recordBytes: Number.NaN } }),
      () => createRuntime({ limits: { varsBytes: -1 } }),
      () => createRuntime({ limits: loosely({ messageBytes: "1" }) }),
      () => createRuntime({ scheduler: { pollMs: Number.NaN } }),
      () => createRuntime({ scheduler: { concurrency: 0 } }),
      () => runtime.tick(runId, { maxSteps: Number.NaN }),
      () => runtime.tick(runId, { maxSteps: -1 }),
      () => runtime.result(runId, { timeoutMs: Number.NaN }),
      () => runtime.start(asking, { runId: "" }),
      () => runtime.start(asking, { runId: "x".repeat(201) }),
      () => runtime.start(asking, loosely({ actorId: 7 })),
      () => runtime.start(asking, loosely({ sessionId: {} })),
      () => runtime.list({ cursor: "here" }),
    ]) {
      expect((await refused(call)).code).toBe("INVALID_OPTION");
    }
    for (const [call, problem] of [
      [
        () => createRuntime({ store: loosely(Promise.resolve(memoryStore())) }),
        "store is a promise: write `store: await sqliteStore(...)`",
      ],
      [() => askUser(loosely("Ready?")), "askUser() takes an object of options, and not a string"],
    ] as const) {
      expect((await refused(async () => call())).message).toContain(problem);
    }
    expect((await runtime.list()).runs).toHaveLength(1);
  });

  test("two workflows of one id", async () => {
    const twin = defineWorkflow({ id: "asking", entry: "a", nodes: { a: () => complete() } });
    expect(await refused(() => createRuntime({ store: memoryStore(), workflows: [asking, twin] }))).toMatchObject({
      code: "WORKFLOW_INVALID",
      message: expect.stringMatching(/"asking".*two workflows have this id/),
    });
  });

  test("a refused createRuntime leaves no store open", async () => {
    const store = await sqliteStore(join(directory, "a.db"));
    await refused(() =>
      createRuntime({ store, workflows: [asking, defineWorkflow({ id: "asking", entry: "a", nodes: { a: () => complete() } })] }),
    );
    expect((await refused(store.stats())).code).toBe("STORE_CLOSED");
  });
});

describe("a workflow that a start brings along", () => {
  test("is driven by the scheduler from then on", async () => {
    const runtime = await open({ scheduler: true });
    const quick = defineWorkflow({ id: "late", entry: "a", nodes: { a: () => complete("done") } });
    const { runId } = await runtime.start(quick);
    expect(await moved(runtime.result(runId, { timeoutMs: 5_000 }), clock, 100)).toBe("done");
  });
});

describe("vars", () => {
  test("that are no JSON, no object, too large or too deep start no run", async () => {
    const runtime = await open({ workflows: [asking], limits: { varsBytes: 1_000, jsonDepth: 5 } });
    const cycle: any = {};
    cycle.self = { cycle };
    for (const [vars, code, message] of [
      [{ at: new Date(0) }, "NOT_JSON", /vars\/at.*Date.*Store plain JSON/],
      [{ list: [1, { f: () => 1 }] }, "NOT_JSON", /vars\/list\/1\/f/],
      [{ n: Number.NaN }, "NOT_JSON", /vars\/n.*finite/],
      [cycle, "NOT_JSON", /contains itself/],
      [JSON.parse('{"a":{"__proto__":1}}'), "NOT_JSON", /vars\/a\/__proto__/],
      ["text", "NOT_JSON", /the vars of a run are an object/],
      [[], "NOT_JSON", /the vars of a run are an object/],
      [null, "NOT_JSON", /the vars of a run are an object/],
      [{ text: "x".repeat(1_000) }, "TOO_LARGE", /takes 1\d\d\d bytes; the limit is 1000.*limits/],
      [{ a: { a: { a: { a: { a: {} } } } } }, "JSON_TOO_DEEP", /deeper than 5 levels.*limits\.jsonDepth/],
    ] as const) {
      for (const method of ["start", "run"] as const) {
        const refusal = await refused(runtime[method](asking, { vars: vars as any }));
        expect(refusal).toMatchObject({ code, message: expect.stringMatching(message) });
      }
    }
    expect((await runtime.list()).runs).toEqual([]);
  });

  test("that the schema refuses", async () => {
    const strict = defineWorkflow({
      id: "strict",
      vars: z.object({ order: z.object({ total: z.number() }) }),
      entry: "a",
      nodes: { a: () => complete() },
    });
    const runtime = await open({ workflows: [strict] });
    expect(await refused(runtime.start(strict, { vars: loosely({ order: { total: "5" } }) }))).toMatchObject({
      code: "VARS_INVALID",
      message: expect.stringMatching(/workflow "strict": order\.total: .*no run was started/),
    });
  });

  test("that grow past their limit fail the run", async () => {
    const grow = defineWorkflow({
      id: "grow",
      entry: "a",
      nodes: {
        a: ({ vars }) => {
          vars.list = [...(vars.list ?? []), "x".repeat(300)];
          return goto("a");
        },
      },
    });
    const result = defineEffect("result", { run: () => "x".repeat(3_000) });
    const given = defineWorkflow({
      id: "given",
      entry: "a",
      effects: [result],
      nodes: { a: () => result({}, { resultKey: "x", nextNode: "b" }), b: () => complete() },
    });
    const runtime = await open({ workflows: [grow, given], limits: { varsBytes: 2_000 } });
    for (const workflow of [grow, given]) {
      const run = await runtime.run(workflow);
      expect(run).toMatchObject({ status: "failed", error: { code: "TOO_LARGE" } });
      expect(run.error?.message).toMatch(/the vars of run .* the limit is 2000/);
    }
  });

  test("also where most of them was there from the start", async () => {
    const more = defineWorkflow({
      id: "more",
      entry: "a",
      nodes: {
        a: ({ vars }) => {
          vars.more = "x".repeat(500);
          return goto("b");
        },
        b: () => complete(),
      },
    });
    const runtime = await open({ workflows: [more], limits: { varsBytes: 2_000 } });
    const run = await runtime.run(more, { vars: { given: "x".repeat(1_700) } });
    expect(run).toMatchObject({ status: "failed", error: { code: "TOO_LARGE" } });
  });
});

describe("records and messages over their limits", () => {
  test("a patch, a payload, a result and an output fail the run", async () => {
    const text = "x".repeat(3_000);
    const big = defineEffect("big", { run: ({ give }: any) => (give ? text : 1) });
    const flow = defineWorkflow({
      id: "big",
      entry: "a",
      effects: [big],
      nodes: {
        a: ({ vars }): StepPlan => {
          if (vars.what === "patch") vars.text = text;
          if (vars.what === "payload") return big({ text }, { nextNode: "b" });
          if (vars.what === "result") return big({ give: true }, { nextNode: "b" });
          if (vars.what === "question") return askUser({ prompt: text }, { nextNode: "b" });
          return vars.what === "output" ? complete(text) : goto("b");
        },
        b: () => complete(),
      },
    });
    const runtime = await open({ workflows: [flow], limits: { recordBytes: 2_500 } });
    for (const what of ["patch", "payload", "result", "question", "output"]) {
      const run = await runtime.run(flow, { vars: { what } });
      expect(run, what).toMatchObject({ status: "failed", vars: { what }, error: { code: "TOO_LARGE" } });
    }
    expect(await runtime.run(flow, { vars: { what: "nothing" } })).toMatchObject({ status: "completed" });
  });

  test("the failure itself is always recorded, however small the limit", async () => {
    const flow = defineWorkflow({
      id: "tiny",
      entry: "a",
      nodes: {
        a: () => {
          throw new Error("y".repeat(5_000));
        },
      },
    });
    const late = defineWorkflow({ id: "late", entry: "a", nodes: { a: () => complete("x".repeat(200)) } });
    const runtime = await open({ workflows: [flow, late], limits: { recordBytes: 100 } });
    expect(await runtime.run(flow)).toMatchObject({ status: "failed", error: { code: "NODE_FAILED" } });
    expect(await runtime.run(late)).toMatchObject({ status: "failed", error: { code: "TOO_LARGE" } });
  });

  test("an answer is refused to the answerer, and the run waits on", async () => {
    const free = defineWorkflow({
      id: "free",
      entry: "ask",
      nodes: { ask: () => askUser({ prompt: "?" }, { resultKey: "a", nextNode: "end" }), end: ({ vars }) => complete(vars.a) },
    });
    const runtime = await open({ workflows: [free], limits: { messageBytes: 100, jsonDepth: 4 } });
    const { runId } = await runtime.run(free);
    expect(await refused(runtime.respond(runId, "x".repeat(200)))).toMatchObject({
      code: "TOO_LARGE",
      message: expect.stringMatching(/a message to run .* the limit is 100/),
    });
    expect((await refused(runtime.respond(runId, { a: { a: { a: { a: { a: 1 } } } } }))).code).toBe("JSON_TOO_DEEP");
    expect((await refused(runtime.respond(runId, { at: new Date(0) }))).code).toBe("NOT_JSON");
    expect((await refused(runtime.respond(runId, undefined))).code).toBe("NOT_JSON");
    expect(await runtime.get(runId)).toMatchObject({ status: "waiting" });
    await runtime.respond(runId, "short");
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed", output: { text: "short" } });
  });

  test("a message that is no larger than allowed, but larger than a record may be, fails what waited for it", async () => {
    const free = defineWorkflow({
      id: "free",
      entry: "ask",
      nodes: {
        ask: () => askUser({ prompt: "?" }, { resultKey: "a", nextNode: "end", errorNode: "caught" }),
        caught: ({ error }) => complete(error?.code ?? null),
        end: () => complete("end"),
      },
    });
    const runtime = await open({ workflows: [free], limits: { recordBytes: 1_000 } });
    const { runId } = await runtime.run(free);
    await runtime.respond(runId, "x".repeat(2_000));
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed", output: "TOO_LARGE" });
  });

  test("a full mailbox takes no more, and control still gets through", async () => {
    const flow = defineWorkflow({
      id: "event",
      entry: "a",
      nodes: { a: () => waitEvent("go", { nextNode: "b" }), b: () => complete() },
    });
    const runtime = await open({ workflows: [flow], limits: { mailboxMessages: 2 } });
    const { runId } = await runtime.run(flow);
    for (const id of ["1", "2"]) await runtime.store.deliver([{ id, runId, kind: "event", key: "other", payload: id }]);
    expect(await refused(runtime.signal(runId, "another"))).toMatchObject({
      code: "MAILBOX_FULL",
      message: expect.stringMatching(/holds 2 messages.*this message was not stored/),
    });
    expect((await runtime.store.deliver([{ id: "3", runId, kind: "control", key: "pause", payload: {} }], 2))[0]).toMatchObject({
      kind: "stored",
    });
    await runtime.unpause(runId);
    // What the run waits for empties it.
    await runtime.resume(runId, { waitKey: "go" });
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed" });
  });
});

describe("answers", () => {
  test("with several waits open one must be named", async () => {
    const { all } = await import("abstractruntime");
    const two = defineWorkflow({
      id: "two",
      entry: "a",
      nodes: {
        a: () => all([askUser({ prompt: "1", waitKey: "one" }), askUser({ prompt: "2", waitKey: "two" })], { nextNode: "b" }),
        b: () => complete(),
      },
    });
    const runtime = await open({ workflows: [two] });
    const { runId } = await runtime.run(two);
    expect(await refused(runtime.respond(runId, "x"))).toMatchObject({
      code: "WAIT_AMBIGUOUS",
      message: expect.stringMatching(/several open waits: one, two\. Name one with resume/),
    });
    await runtime.resume(runId, { waitKey: "two", payload: "x" });
    // Before it is taken as well as after.
    expect((await refused(runtime.resume(runId, { waitKey: "two", payload: "x" }))).code).toBe("ALREADY_ANSWERED");
    await runtime.tick(runId);
    await runtime.respond(runId, "y");
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed" });
    expect((await refused(runtime.resume(runId, { waitKey: "two", payload: "x" }))).code).not.toBe("RUN_NOT_FOUND");
  });

  test("to a run that never waited", async () => {
    const flow = defineWorkflow({ id: "f", entry: "a", nodes: { a: () => complete() } });
    const runtime = await open({ workflows: [flow] });
    const { runId } = await runtime.start(flow);
    expect(await refused(runtime.respond(runId, "x"))).toMatchObject({
      code: "NOT_WAITING",
      message: expect.stringMatching(/not waiting for an answer \(status running\).*abstractruntime why/),
    });
    await runtime.tick(runId);
    expect((await refused(runtime.resume(runId, { waitKey: "k" }))).message).toMatch(/status completed/);
  });

  test("a pattern that backtracks for ever does not stop the process", async () => {
    const flow = defineWorkflow({
      id: "regex",
      entry: "a",
      nodes: {
        a: () =>
          askUser(
            { prompt: "?", schema: { type: "object", properties: { code: { type: "string", pattern: "^(a+)+$" } } } },
            { nextNode: "b" },
          ),
        b: () => complete(),
      },
    });
    const runtime = await open({ workflows: [flow] });
    const { runId } = await runtime.run(flow);
    expect(await refused(runtime.respond(runId, { code: `${"a".repeat(40)}!` }))).toMatchObject({
      code: "ANSWER_INVALID",
      message: expect.stringMatching(/cannot be checked against its schema.*timed out/),
    });
    expect(await runtime.get(runId)).toMatchObject({ status: "waiting" });
  });
});

describe("who may drive", () => {
  test("a tick beside a scheduler, a run that another worker holds, and a runtime that was stopped", async () => {
    const flow = defineWorkflow({
      id: "f",
      entry: "a",
      nodes: { a: () => sleep(1_000, { nextNode: "b" }), b: () => complete() },
    });
    const store = memoryStore({ clock });
    const runtime = await open({ workflows: [flow], scheduler: true, store });
    const { runId } = await runtime.start(flow, { runId: "r" });
    expect(await refused(runtime.tick(runId))).toMatchObject({
      code: "INVALID_OPTION",
      message: expect.stringMatching(/scheduler: false/),
    });
    await moved(Promise.resolve(), clock, 0);
    await store.renew("somebody", 30_000);
    await store.claim({ workerId: "somebody", fingerprint: "f" }, { limit: 1, runId });
    const manual = await createRuntime({ workflows: [flow], scheduler: false, store: faultyStore(store, []), clock });
    expect(await refused(manual.tick(runId))).toMatchObject({
      code: "RUN_BUSY",
      message: expect.stringMatching(/driven by worker somebody/),
    });
    expect((await refused(manual.run(flow, { runId: "r" }))).code).toBe("RUN_BUSY");
    await store.retire("somebody");
    await stopped(manual, clock);
    for (const call of [
      () => manual.tick(runId),
      () => manual.start(flow),
      () => manual.run(flow),
      () => manual.respond(runId, 1),
    ]) {
      expect(await refused(call)).toMatchObject({ code: "RUNTIME_STOPPED", message: expect.stringMatching(/Create a new one/) });
    }
    runtimes.splice(0);
  });
});

describe("stores that cannot be opened", () => {
  const path = () => join(directory, "runs.db");

  test("a damaged file: random bytes, a text, somebody else's database; it is not touched", async () => {
    const other = new DatabaseSync(join(directory, "other.db"));
    other.exec("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)");
    other.close();
    const contents: [Buffer, RegExp][] = [
      [Buffer.from(Array.from({ length: 8_192 }, (_, i) => (i * 7_919) % 251)), /not a database/],
      [Buffer.from("Dear diary,\n".repeat(200)), /not a database/],
      [readFileSync(join(directory, "other.db")), /another program's database/],
    ];
    for (const [bytes, message] of contents) {
      writeFileSync(path(), bytes);
      expect(await refused(sqliteStore(path()))).toMatchObject({
        code: "STORE_CORRUPT",
        message: expect.stringMatching(message),
      });
      expect(readFileSync(path()).equals(bytes)).toBe(true);
    }
    expect((await refused(createRuntime({ store: await sqliteStore(":memory:"), workflows: loosely([1]) }))).code).toBe(
      "INVALID_OPTION",
    );
  });

  test("a store whose pages are damaged says so when it is read", async () => {
    const flow = defineWorkflow({ id: "f", entry: "a", nodes: { a: ({ vars }) => (vars.n++ < 200 ? goto("a") : complete()) } });
    const runtime = await open({ workflows: [flow], store: await sqliteStore(path(), { clock }) });
    const { runId } = await runtime.run(flow, { vars: { n: 0, text: "x".repeat(50_000) } });
    await stopped(runtime, clock);
    runtimes.splice(0);
    const bytes = readFileSync(path());
    // The header and the schema stay, and the first page of each table; the rest is noise.
    const database = new DatabaseSync(path());
    const { last } = database.prepare("SELECT max(rootpage) AS last FROM sqlite_schema").get() as { last: number };
    database.close();
    for (let i = (last + 1) * 4_096; i < bytes.length; i++) bytes[i] = (i * 31) % 256;
    writeFileSync(path(), bytes);
    const store = await sqliteStore(path(), { clock });
    const { code } = await refused(() => store.load(runId, { whole: true }).then((loaded) => expect(loaded).toBeUndefined()));
    expect(code).toBe("STORE_CORRUPT");
    await store.close();
  });

  test("a newer schema", async () => {
    await (await sqliteStore(path())).close();
    const database = new DatabaseSync(path());
    const { user_version: version } = database.prepare("PRAGMA user_version").get() as { user_version: number };
    database.exec(`PRAGMA user_version = ${version + 1}`);
    database.close();
    const before = readFileSync(path());
    expect(await refused(sqliteStore(path()))).toMatchObject({
      code: "FORMAT_NEWER",
      message: expect.stringMatching(new RegExp(`has format ${version + 1}; this version reads up to ${version}\\. Upgrade`)),
    });
    expect(readFileSync(path()).equals(before)).toBe(true);
  });

  test("a path that is a directory, or lies below a file", async () => {
    mkdirSync(path());
    writeFileSync(join(directory, "file"), "");
    for (const wrong of [path(), join(directory, "file", "runs.db"), join(directory, "file", "deeper", "runs.db")]) {
      expect(await refused(sqliteStore(wrong))).toMatchObject({
        code: "STORE_UNAVAILABLE",
        message: expect.stringMatching(/cannot be opened or written.*Check that the path exists and may be written/),
      });
    }
  });

  test.runIf(process.platform === "linux")("a directory in which nobody may create a file", async () => {
    // Not even the superuser may, in /proc.
    expect(["STORE_UNAVAILABLE", "STORE_READ_ONLY"]).toContain((await refused(sqliteStore("/proc/runs.db"))).code);
  });
});

/** A SQLite store with the connection below it, to set what only that connection can be told. */
async function withConnection(path: string): Promise<{ store: Awaited<ReturnType<typeof sqliteStore>>; database: DatabaseSync }> {
  const exec = vi.spyOn(DatabaseSync.prototype, "exec");
  const store = await sqliteStore(path, { clock });
  const database = exec.mock.contexts[0] as unknown as DatabaseSync;
  exec.mockRestore();
  return { store, database };
}

describe("stores that stop taking writes", () => {
  const work = () => {
    const done: number[] = [];
    const effect = defineEffect("work", {
      run: ({ n }: { n: number }) => {
        done.push(n);
        return noise(3_000);
      },
    });
    const flow = defineWorkflow({
      id: "filling",
      entry: "a",
      effects: [effect],
      nodes: {
        a: ({ vars }): StepPlan => {
          vars.n = (vars.n ?? 0) + 1;
          return vars.n > 30 ? complete(vars.n) : effect({ n: vars.n }, { resultKey: `r${vars.n}`, nextNode: "a" });
        },
      },
    });
    return { done, flow };
  };

  test("a store that may only be read", async () => {
    const { store, database } = await withConnection(join(directory, "a.db"));
    const runtime = await open({ workflows: [asking], store });
    const { runId } = await runtime.run(asking);
    database.exec("PRAGMA query_only = ON");
    for (const call of [
      () => runtime.start(asking),
      () => runtime.run(asking),
      () => runtime.respond(runId, "yes"),
      () => runtime.tick(runId),
    ]) {
      expect(await refused(call)).toMatchObject({
        code: "STORE_READ_ONLY",
        message: expect.stringMatching(/may not be written.*Give this user write permission/),
      });
    }
    expect(await runtime.get(runId)).toMatchObject({ status: "waiting" });
    database.exec("PRAGMA query_only = OFF");
    await runtime.respond(runId, "yes");
    expect(await runtime.tick(runId)).toMatchObject({ status: "completed" });
  });

  for (const scheduler of [false, true]) {
    test(`a full disk: nothing acknowledged is lost, and runs go on when there is room (scheduler: ${scheduler})`, async () => {
      const { store, database } = await withConnection(join(directory, "a.db"));
      const { done, flow } = work();
      const runtime = await open({ workflows: [flow], store, scheduler });
      const { runId } = await runtime.start(flow);
      const { page_count: pages } = database.prepare("PRAGMA page_count").get() as { page_count: number };
      database.exec(`PRAGMA max_page_count = ${pages + 12}`);
      if (scheduler) await clock.advance(1_500);
      else
        expect(await refused(runtime.tick(runId))).toMatchObject({
          code: "STORE_FULL",
          message: expect.stringMatching(/disk .* is full.*nothing that was acknowledged is lost/),
        });
      const before = await runtime.ledger(runId);
      expect(before.length).toBeGreaterThan(2);
      expect(before.length).toBeLessThan(60);
      expect(await runtime.get(runId)).toMatchObject({ status: "running" });
      expect((await runtime.verify(runId)).ok).toBe(true);
      const completed = before.filter(({ kind }) => kind === "effect_completed").length;
      expect(done.length).toBeLessThanOrEqual(completed + 1);

      database.exec("PRAGMA max_page_count = 100000");
      if (scheduler) expect(await moved(runtime.result(runId), clock, 100)).toBe(31);
      else expect(await moved(runtime.tick(runId), clock, 100)).toMatchObject({ status: "completed", output: 31 });
      expect((await runtime.ledger(runId)).slice(0, before.length)).toEqual(before);
      expect((await runtime.verify(runId)).ok).toBe(true);
      // Once each, but for the one whose outcome did not fit: that one may have been done twice.
      expect(done.length).toBeLessThanOrEqual(31);
      expect(new Set(done).size).toBe(30);
    });
  }

  test("a start on a full disk is refused whole", async () => {
    const { store, database } = await withConnection(join(directory, "a.db"));
    const { flow } = work();
    const runtime = await open({ workflows: [flow], store });
    const { page_count: pages } = database.prepare("PRAGMA page_count").get() as { page_count: number };
    database.exec(`PRAGMA max_page_count = ${pages}`);
    const vars = { text: noise(50_000) };
    expect((await refused(runtime.start(flow, { vars }))).code).toBe("STORE_FULL");
    expect((await refused(runtime.run(flow, { vars }))).code).toBe("STORE_FULL");
    expect((await runtime.list()).runs).toEqual([]);
    database.exec("PRAGMA max_page_count = 100000");
    expect(await moved(runtime.run(flow, { vars }), clock, 100)).toMatchObject({ status: "completed" });
  });

  test("a store that does not answer fails the caller, and the run goes on later", async () => {
    const { done, flow } = work();
    const faults: any[] = [{ kind: "fail", on: "commit", fromCall: 5 }];
    const runtime = await open({ workflows: [flow], store: faultyStore(memoryStore({ clock }), faults), scheduler: true });
    expect((await refused(runtime.run(flow, { runId: "r" }))).code).toBe("STORE_UNAVAILABLE");
    faults.splice(0);
    expect(await moved(runtime.result("r"), clock, 100)).toBe(31);
    expect(new Set(done).size).toBe(30);
  });
});

describe("handlers and nodes that never settle", () => {
  test("leave no run behind: each ends when its time is over", async () => {
    const never = new Promise<never>(() => undefined);
    const stuck = defineEffect("stuck", { policy: { maxAttempts: 1, timeoutMs: 1_000 }, run: () => never });
    const flow = defineWorkflow({
      id: "stuck",
      entry: "a",
      effects: [stuck],
      nodes: {
        a: ({ vars }): StepPlan | Promise<StepPlan> => (vars.node ? never : stuck({}, { nextNode: "b" })),
        b: () => complete(),
      },
    });
    const runtime = await open({ workflows: [flow], scheduler: true });
    const effect = await moved(runtime.run(flow), clock, 500);
    expect(effect).toMatchObject({ status: "failed", error: { code: "EFFECT_UNCERTAIN" } });
    const node = await moved(runtime.run(flow, { vars: { node: true } }), clock, 5_000);
    expect(node).toMatchObject({ status: "failed", error: { code: "NODE_TIMEOUT" } });
  });

  test("do not keep a runtime from stopping, nor its timers the process", async () => {
    const never = new Promise<never>(() => undefined);
    const stuck = defineEffect("stuck", {
      run: (_: any, context) => {
        // Hangs on, whatever it is told.
        context.signal.addEventListener("abort", () => {
          const again = () => {
            context.progress();
            context.clock.setTimer(again, 10);
          };
          again();
        });
        return never;
      },
    });
    const flow = defineWorkflow({
      id: "stuck",
      entry: "a",
      effects: [stuck],
      nodes: {
        a: ({ vars }): StepPlan | Promise<StepPlan> => (vars.node ? never : stuck({}, { nextNode: "b" })),
        b: () => complete(),
      },
    });
    for (const vars of [{}, { node: true }]) {
      const runtime = await createRuntime({ workflows: [flow], store: memoryStore({ clock }), clock });
      await runtime.start(flow, { vars });
      await clock.advance(100);
      await stopped(runtime, clock);
      expect(clock.pending.filter(({ hold }) => hold)).toEqual([]);
    }
  });
});
