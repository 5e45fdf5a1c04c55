// Runs that the Python package left behind go on here.
import { randomBytes } from "node:crypto";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  goto,
  join as joinChild,
  type Runtime,
  subworkflow,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import {
  computeArtifactId,
  computeRecordHash,
  exportPython,
  fileText,
  importPython,
  ledgerText,
  readLedger,
  verifyLedgerChain,
} from "abstractruntime/python";
import { testClock } from "abstractruntime/testing";
import { defaultLimits } from "../../src/kernel/execute.ts";
import { expected, fixture, textOf } from "./fixtures.ts";
import { stores } from "./stores.ts";

let place: string;
beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), "python-import-"));
});
afterEach(() => rmSync(place, { recursive: true, force: true }));

const ask = defineWorkflow({
  id: "fx_ask",
  entry: "START",
  nodes: {
    START: () => goto("ASK"),
    ASK: () => askUser({ prompt: "?" }, { resultKey: "answers.first.user", nextNode: "DONE" }),
    DONE: ({ vars }) => complete({ answer: vars.answers.first.user }),
  },
});

const grandchild = defineWorkflow({
  id: "fx_grandchild",
  entry: "q",
  nodes: {
    q: () => askUser({ prompt: "deep question?", waitKey: "deep" }, { resultKey: "a", nextNode: "d" }),
    d: ({ vars }) => complete({ deep: vars.a }),
  },
});
const child = defineWorkflow({
  id: "fx_child",
  entry: "s",
  nodes: {
    s: () => subworkflow(grandchild, { vars: {} }, { resultKey: "g", nextNode: "d" }),
    d: ({ vars }) => complete({ child: vars.g }),
  },
});
const parent = defineWorkflow({
  id: "fx_parent",
  entry: "as",
  nodes: {
    as: () => goto("s"),
    s: () => subworkflow(child, { vars: {} }, { resultKey: "res.child", nextNode: "d" }),
    d: ({ vars }) => complete({ parent: vars.res.child, bg: vars.bg.async }),
  },
});
const workflows = [ask, parent, child, grandchild];

describe.each(Object.entries(stores))("on the %s store", (_, openStore) => {
  test("a run paused at a question is answered and finished", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows });
    const { run, then, prompt, choices, ledger } = expected["a-ask-user-waiting"];
    const report = await importPython(runtime, fixture("a-ask-user-waiting"));
    expect(report.problems).toEqual([]);
    expect(report.runs).toEqual([
      {
        runId: run.run_id,
        workflowId: "fx_ask",
        status: "waiting",
        result: "imported",
        records: 2,
        report: ledger.upstream_verification_report,
        notes: [],
      },
    ]);
    expect(await runtime.get(run.run_id)).toMatchObject({
      status: "waiting",
      node: "ASK",
      actorId: run.actor_id,
      createdAt: Date.parse("2026-11-22T15:12:29.349Z"),
      waits: [{ waitKey: run.waiting.wait_key, prompt, choices }],
    });
    await runtime.resume(run.run_id, { waitKey: then.resume.wait_key, payload: then.resume.payload });
    expect(await runtime.result(run.run_id)).toEqual(then.output);
    expect((await runtime.get(run.run_id)).vars).toEqual(then.vars);
    expect(await runtime.verify(run.run_id)).toMatchObject({ ok: true });
  });

  test("a tree is answered at its deepest run, and each end reaches the run above", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows });
    const c = expected["c-subworkflow-waiting"];
    const report = await importPython(runtime, fixture("c-subworkflow-waiting"));
    expect(report.problems).toEqual([]);
    expect(report.runs.map(({ report, notes }) => [report?.ok ?? null, notes])).toContainEqual([true, []]);
    expect(await runtime.tree(c.parent.run_id)).toMatchObject({
      run: { runId: c.parent.run_id },
      children: { length: 2 },
    });
    await runtime.resume(c.grandchild.run_id, { waitKey: "deep", payload: { t: "x" } });
    expect(await runtime.result(c.grandchild.run_id)).toEqual(c.then.grandchild_output);
    expect(await runtime.result(c.child.run_id)).toEqual(c.then.child_output);
    expect(await runtime.result(c.parent.run_id)).toEqual(c.then.parent_output);
    // Nobody drove the detached child there. Here it goes on, and asks.
    await expect.poll(async () => (await runtime.get(c.async_child.run_id)).status).toBe("waiting");
    await runtime.resume(c.async_child.run_id, { waitKey: "deep", payload: 1 });
    expect(await runtime.result(c.async_child.run_id)).toEqual({ deep: 1 });
    for (const { run_id } of [c.parent, c.child, c.grandchild, c.async_child])
      expect(await runtime.verify(run_id)).toMatchObject({ ok: true });
  });

  test("whatever a run was, it is here", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows });
    const runs = [
      python("w-1", { status: "failed", error: "Effect failed after 3 attempts: no" }),
      python("w-2", { status: "cancelled", error: "Cancelled" }),
      python("w-3", { status: "completed", output: { a: [1] } }),
      python("w-4", { status: "completed", output: {} }),
    ];
    expect((await importPython(runtime, write(runs))).problems).toEqual([]);
    expect(await runtime.get("w-1")).toMatchObject({
      status: "failed",
      error: { message: "Effect failed after 3 attempts: no" },
    });
    expect(await runtime.get("w-2")).toMatchObject({ status: "cancelled", cancelling: { reason: "Cancelled" } });
    expect(await runtime.result("w-3")).toEqual({ a: [1] });
    expect(await runtime.result("w-4")).toEqual({});
    for (const { run_id } of runs) expect(await runtime.verify(run_id as string)).toMatchObject({ ok: true });
  });

  test("what the files held is kept with the run, byte for byte, and the first record names the old head", async () => {
    const store = await openStore(place);
    await using runtime = await createRuntime({ store, workflows });
    for (const name of ["b-completed-with-retries", "g-damaged-files"]) {
      const { runs } = await importPython(runtime, fixture(name));
      for (const { runId, records, report } of runs) {
        const [first] = await runtime.ledger(runId);
        const { origin } = first!.data as unknown as { origin: { ledger: string; run: string; head: string; records: number } };
        expect(origin).toMatchObject({ kind: "python", records, head: report?.head_hash, verified: true });
        const text = await runtime.artifacts.loadText(origin.ledger);
        expect(text).toBe(textOf(name, `ledger_${runId}.jsonl`));
        expect(readLedger(text!).report).toEqual(report);
        expect(await runtime.artifacts.loadText(origin.run)).toBe(textOf(name, `run_${runId}.json`));
        expect((await store.artifact(origin.ledger))?.runIds).toEqual([runId]);
      }
      expect(runs).toHaveLength(1);
    }
  });

  test("a second import finds what the first one brought, and changes nothing", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows });
    const directory = join(place, "twice");
    cpSync(fixture("c-subworkflow-waiting"), directory, { recursive: true });
    await importPython(runtime, directory);
    const c = expected["c-subworkflow-waiting"];
    await runtime.resume(c.grandchild.run_id, { waitKey: "deep", payload: 1 });
    const output = await runtime.result(c.parent.run_id);
    cpSync(fixture("a-ask-user-waiting"), directory, { recursive: true });
    const again = await importPython(runtime, directory);
    const results = Object.fromEntries(again.runs.map(({ runId, result }) => [runId, result]));
    expect(results).toEqual({
      [c.parent.run_id]: "exists",
      [c.child.run_id]: "exists",
      [c.grandchild.run_id]: "exists",
      [c.async_child.run_id]: "exists",
      [expected["a-ask-user-waiting"].run.run_id]: "imported",
    });
    expect(await runtime.result(c.parent.run_id)).toEqual(output);
    expect(again.runs.flatMap(({ notes }) => notes)).toEqual([]);
  });

  test("a run that went on there after it was imported, and one that never came from there, are told apart from it", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows, scheduler: false });
    const directory = write([python("w-1"), python("w-2"), python("w-4", { status: "failed" }), python("w-5")]);
    await importPython(runtime, directory);
    await runtime.purge({ runIds: ["w-4"] });
    await runtime.export(["w-5"], join(place, "w-5.jsonl"), { fence: true });
    await runtime.start(ask, { runId: "w-3" });
    write([python("w-2", { vars: { moved: true } }), python("w-3")]);
    const notes = Object.fromEntries((await importPython(runtime, directory)).runs.map((run) => [run.runId, run.notes]));
    expect(notes).toEqual({
      "w-1": [],
      "w-2": [expect.stringContaining("has gone on there")],
      "w-3": [expect.stringContaining("did not come from Python")],
      "w-4": [expect.stringContaining("has been purged")],
      "w-5": [expect.stringContaining("has gone on to file:")],
    });
    expect((await runtime.get("w-2")).vars).toEqual({});
  });

  test("ledgers without a run are told of, with what they are worth", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), scheduler: false });
    const problems: string[] = [];
    for (const name of ["f2-tampered-text", "f5-deleted-record"])
      problems.push(...(await importPython(runtime, fixture(name))).problems.map(({ problem }) => problem));
    expect(problems).toEqual([
      "there is no run that it could be of; its 13 records do not verify",
      "there is no run that it could be of; its 12 records do not verify",
    ]);
  });

  test("artifacts keep their old ids as tags, and those that vars refer to are the run's", async () => {
    const store = await openStore(place);
    await using runtime = await createRuntime({ store, workflows });
    const directory = join(place, "artifacts");
    cpSync(fixture("e-artifacts"), directory, { recursive: true });
    const { json } = expected["e-artifacts"].artifacts;
    write([python("w-1", { status: "completed", vars: { deep: [{ $artifact: json.artifact_id }] } })], {}, directory);
    const { artifacts, problems } = await importPython(runtime, directory);
    expect(problems).toEqual([]);
    expect(artifacts).toHaveLength(expected["e-artifacts"].count);
    for (const { pythonId, id } of artifacts) {
      const bytes = Buffer.from((await runtime.artifacts.load(id))!.content);
      if (/^[0-9a-f]{32}$/.test(pythonId)) expect(computeArtifactId(bytes)).toBe(pythonId);
      const opened = await runtime.artifacts.open({ $artifact: pythonId });
      expect([opened.metadata.artifactId, Buffer.from(await opened.bytes())]).toEqual([id, bytes]);
      expect((await runtime.artifacts.resolveArtifact({ $artifact: pythonId }))?.metadata.artifactId).toBe(id);
    }
    const used = artifacts.find(({ pythonId }) => pythonId === json.artifact_id);
    expect(await store.artifact(used!.id)).toMatchObject({ runIds: ["w-1"], contentType: "application/json" });
    expect(await runtime.artifacts.loadText(used!.id)).toBe(expected["e-artifacts"].json_bytes_utf8);
    // Held by no run, and kept all the same.
    expect(await store.sweepArtifacts(100)).toEqual([]);
  });

  test("texts that are too long for an index, or no text at all, hide nothing else", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows });
    // Of characters that no compression makes shorter.
    const long = randomBytes(6_000)
      .toString("utf16le")
      .replace(/\p{Cs}|\0/gu, "x");
    const effect = { type: "ask_user", payload: { prompt: "?" }, result_key: "r" };
    const attempt = {
      run_id: "key",
      node_id: "here",
      status: "waiting",
      attempt: 1,
      idempotency_key: long,
      effect,
      result: { wait: {} },
    };
    const directory = write(
      [
        waiting("key", { wait_key: "k" }),
        waiting("long-key", { wait_key: long }),
        waiting("half-key", { reason: "subworkflow", wait_key: "subworkflow:\ud800" }),
        python("actor", { actor_id: long }),
        python("parent", { parent_run_id: "\ud800" }),
        python("workflow", { workflow_id: long }),
      ],
      { key: [attempt] },
    );
    mkdirSync(join(directory, "artifacts"));
    const tags = { ["n".repeat(200)]: long.slice(0, 1_000), short: "x", "python:a": "another" };
    const metadata = { artifact_id: "a", content_type: "text/plain", size_bytes: 1, created_at: null, run_id: null, tags };
    writeFileSync(join(directory, "artifacts", "a.meta"), fileText(metadata));
    writeFileSync(join(directory, "artifacts", "a.bin"), "a");
    const report = await importPython(runtime, directory);
    expect(report.runs.map(({ runId }) => runId)).toEqual(["key"]);
    expect(report.problems.map(({ file, problem }) => `${file}: ${problem}`).sort()).toEqual([
      "artifacts/a.meta: 2 of its texts are too long, too many, or named as ours are, to be kept as tags",
      "run_actor.json: actor_id is longer than 500 characters",
      "run_half-key.json: wait_key has half of a surrogate pair",
      "run_long-key.json: wait_key is longer than 500 characters",
      "run_parent.json: parent_run_id has half of a surrogate pair",
      "run_workflow.json: workflow_id is longer than 500 characters",
    ]);
    expect((await runtime.artifacts.open({ $artifact: "a" })).metadata.tags).toMatchObject({ short: "x" });
    await runtime.artifacts.put("tagged", { tags: { ["n".repeat(200)]: long.slice(0, 500) } });
    // The id of the answer is made of the key of the attempt.
    await runtime.resume("key", { waitKey: "k", payload: 1 });
  });
});

/** A run as the Python package would write it. */
function python(runId: string, run: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    run_id: runId,
    workflow_id: "work",
    status: "running",
    current_node: "here",
    vars: {},
    waiting: null,
    output: null,
    error: null,
    created_at: "2025-12-13T19:40:52.123456+00:00",
    updated_at: "2025-12-13T19:40:53+00:00",
    actor_id: null,
    parent_run_id: null,
    ...run,
  };
}

function waiting(runId: string, wait: Record<string, unknown>, run: Record<string, unknown> = {}): Record<string, unknown> {
  const none = { wait_key: null, until: null, resume_to_node: null, result_key: null, prompt: null, choices: null };
  return python(runId, {
    status: "waiting",
    waiting: { ...none, reason: "event", allow_free_text: true, details: null, ...wait },
    ...run,
  });
}

/** Writes a directory. Ledgers are chained. */
function write(runs: Record<string, unknown>[], ledgers: Record<string, any[]> = {}, directory = join(place, "written")): string {
  mkdirSync(directory, { recursive: true });
  for (const run of runs) writeFileSync(join(directory, `run_${run.run_id}.json`), fileText(run));
  for (const [runId, records] of Object.entries(ledgers)) {
    let head: string | null = null;
    for (const record of records) {
      record.prev_hash = head;
      record.record_hash = head = computeRecordHash(record, head);
    }
    expect(verifyLedgerChain(records).ok).toBe(true);
    writeFileSync(join(directory, `ledger_${runId}.jsonl`), ledgerText(records));
  }
  return directory;
}

describe("waits", () => {
  const work = defineWorkflow({
    id: "work",
    entry: "here",
    nodes: {
      here: ({ vars }) => (vars.again ? complete({ again: vars.again }) : goto("there")),
      there: ({ vars }) => complete({ ...vars }),
    },
  });
  const one = async (run: Record<string, unknown>, act: (runtime: Runtime) => Promise<void>, effects: any[] = []) => {
    await using runtime = await createRuntime({ store: memoryStore(), workflows: [work], effects });
    const report = await importPython(runtime, write([run]));
    expect(report.problems).toEqual([]);
    await act(runtime);
    return { output: await runtime.result("w"), notes: report.runs.flatMap(({ notes }) => notes) };
  };

  test("an event, by its key", async () => {
    const run = waiting("w", { wait_key: "paid", resume_to_node: "there", result_key: "a..b.c" }, { vars: { a: "text" } });
    const { output } = await one(run, async (runtime) => {
      await runtime.signal("w", "paid", { n: 1.5 });
    });
    // A dotted key makes objects of what is in its way; an empty part is a key.
    expect(output).toEqual({ a: { "": { b: { c: { n: 1.5 } } } } });
  });

  test("a job, by its key, and without one by the key that is shown", async () => {
    for (const wait_key of ["job-7", null]) {
      const run = waiting("w", { reason: "job", wait_key, resume_to_node: "there", result_key: "job" });
      const { output } = await one(run, async (runtime) => {
        const [wait] = (await runtime.get("w")).waits;
        if (wait_key !== null) expect(wait?.waitKey).toBe(wait_key);
        await runtime.resume("w", { waitKey: wait!.waitKey, payload: null });
      });
      expect(output).toEqual({ job: null });
    }
  });

  test("without a node to resume to, the node runs again", async () => {
    const run = waiting("w", { reason: "user", wait_key: "k", prompt: "?", resume_to_node: "", result_key: "again" });
    expect((await one(run, (runtime) => runtime.respond("w", "yes"))).output).toEqual({ again: { text: "yes" } });
  });

  test.each(["user", "event"])("what waits with choices (%s) takes whatever is answered, as in Python", async (reason) => {
    const run = waiting("w", {
      reason,
      wait_key: "k",
      choices: ["a", "b"],
      allow_free_text: false,
      resume_to_node: "there",
      result_key: "r",
    });
    expect((await one(run, (runtime) => runtime.respond("w", [0]))).output).toEqual({ r: [0] });
  });

  test("a moment, which writes no result", async () => {
    const clock = testClock(Date.parse("2026-01-01T00:00:00Z"));
    const store = memoryStore({ clock });
    await using runtime = await createRuntime({ store, clock, workflows: [work], scheduler: false });
    const wait = (until: string) => ({ reason: "until", until, resume_to_node: "there", result_key: "ready" });
    const report = await importPython(
      runtime,
      write([
        waiting("past", wait("2025-12-13T19:40:52.123456+00:00")),
        waiting("naive", wait("2025-12-31T23:59:59")),
        waiting("future", wait("2026-01-01T02:30:00+02:00")),
        waiting("text", wait("2")),
        waiting("never", wait("tomorrow")),
        waiting("empty", wait("")),
      ]),
    );
    expect(report.problems).toEqual([]);
    for (const runId of ["past", "naive"]) expect(await runtime.tick(runId)).toMatchObject({ status: "completed", output: {} });
    expect((await runtime.tick("future")).status).toBe("waiting");
    await clock.advance(30 * 60_000);
    expect(await runtime.tick("future")).toMatchObject({ status: "completed", output: {} });
    // As a text it lies behind the present: it never comes there. Here somebody can say that it has.
    const told = (runId: string) => report.runs.find((run) => run.runId === runId)?.notes;
    expect([told("past"), told("text")?.[0], told("never")?.[0]]).toEqual([
      [],
      undefined,
      expect.stringContaining('until "tomorrow", which is no moment'),
    ]);
    expect((await runtime.tick("text")).status).toBe("completed");
    expect((await runtime.tick("empty")).status).toBe("waiting");
    const [shown] = (await runtime.get("never")).waits;
    await runtime.resume("never", { waitKey: shown!.waitKey, payload: "now" });
    expect((await runtime.tick("never")).output).toEqual({ ready: "now" });
  });
});

describe("families", () => {
  const work = defineWorkflow({
    id: "work",
    entry: "here",
    nodes: {
      here: () => askUser({ prompt: "?" }, { resultKey: "r", nextNode: "there" }),
      there: ({ vars }) => complete({ ...vars }),
      again: () => subworkflow("work", { vars: {} }, { resultKey: "r", nextNode: "there" }),
      joins: ({ vars }) => joinChild(vars.bg.sub_run_id, { resultKey: "joined", nextNode: "there" }),
    },
  });
  const awaiting = (runId: string, child: string, run: Record<string, unknown> = {}) =>
    waiting(
      runId,
      {
        reason: "subworkflow",
        wait_key: `subworkflow:${child}`,
        resume_to_node: "there",
        result_key: "r",
        details: { sub_run_id: child, sub_workflow_id: "work", sub_waiting: { reason: "user", wait_key: "k" } },
      },
      run,
    );
  const asked = (runId: string, run: Record<string, unknown> = {}) =>
    waiting(runId, { reason: "user", wait_key: "k", prompt: "?", resume_to_node: "there", result_key: "r" }, run);
  const opened = async (runs: Record<string, unknown>[], ledgers: Record<string, any[]> = {}) => {
    const runtime = await createRuntime({ store: memoryStore(), workflows: [work], scheduler: false });
    return { runtime, report: await importPython(runtime, write(runs, ledgers)) };
  };

  test("no run is its own ancestor", async () => {
    await using runtime = await createRuntime({ store: memoryStore(), scheduler: false });
    const parents = { self: "self", a: "b", b: "a", below: "b" };
    const runs = Object.entries(parents).map(([runId, parent_run_id]) => python(runId, { parent_run_id }));
    const report = await importPython(runtime, write(runs));
    const told = Object.fromEntries(report.runs.map(({ runId, notes }) => [runId, notes.length]));
    expect([report.problems, told]).toEqual([[], { self: 1, a: 1, b: 1, below: 0 }]);
    expect((await runtime.list({ parentRunId: "a" })).runs).toEqual([]);
    expect(await runtime.export(["b"], join(place, "b.file"))).toMatchObject({ runIds: { length: 2 } });
  });

  test("a child that had ended before, of which Python told nobody, is told of", async () => {
    const { runtime, report } = await opened([
      awaiting("p1", "c1"),
      python("c1", { status: "completed", output: { x: 1 }, parent_run_id: "p1" }),
      awaiting("p2", "c2"),
      python("c2", { status: "failed", error: "no", parent_run_id: "p2" }),
      awaiting("p3", "c3"),
      python("c3", { status: "cancelled", error: "enough", parent_run_id: "p3" }),
    ]);
    await using _ = runtime;
    expect(report).toMatchObject({ problems: [], runs: Array(6).fill({ result: "imported", notes: [] }) });
    expect((await runtime.tick("p1")).output).toEqual({ r: { sub_run_id: "c1", output: { x: 1 } } });
    expect((await runtime.tick("p2")).error?.message).toContain("no");
    expect((await runtime.tick("p3")).error?.message).toContain("cancelled");
    // Told again, it changes nothing.
    await importPython(runtime, join(place, "written"));
    expect((await runtime.tick("p1")).output).toEqual({ r: { sub_run_id: "c1", output: { x: 1 } } });
  });

  test("without its child, a run can be answered by hand, as there", async () => {
    writeFileSync(join(write([awaiting("p", "lost")]), "run_lost.json"), "{");
    const { runtime, report } = await opened([
      awaiting("q", "refused"),
      python("refused", { parent_run_id: "q", status: "waiting" }),
    ]);
    await using _ = runtime;
    expect(report.problems).toMatchObject([{ file: "run_lost.json" }, { file: "run_refused.json" }]);
    expect(report.runs).toMatchObject([
      { runId: "p", notes: [expect.stringContaining("lost, is not there")] },
      { runId: "q", notes: [expect.stringContaining("refused, is not there")] },
    ]);
    await runtime.resume("p", { waitKey: "subworkflow:lost", payload: { naked: true } });
    expect((await runtime.tick("p")).output).toEqual({ r: { naked: true } });
  });

  test("a run that waits for one which is not its child, or is its own ancestor, can be answered by hand", async () => {
    const { runtime, report } = await opened([
      awaiting("p", "alone"),
      python("alone", { status: "completed", output: 1 }),
      awaiting("x", "y", { parent_run_id: "y" }),
      awaiting("y", "x", { parent_run_id: "x" }),
    ]);
    await using _ = runtime;
    expect(report.problems).toEqual([]);
    const notes = Object.fromEntries(report.runs.map((run) => [run.runId, run.notes.join()]));
    for (const runId of ["p", "x", "y"]) expect(notes[runId]).toContain("or not its own");
    await runtime.resume("p", { waitKey: "subworkflow:alone", payload: { naked: true } });
    expect((await runtime.tick("p")).output).toEqual({ r: { naked: true } });
  });

  test("a parent that is cancelled cancels the child that it waits for, and no other", async () => {
    const { runtime } = await opened([
      awaiting("p", "c"),
      asked("c", { parent_run_id: "p" }),
      asked("detached", { parent_run_id: "p" }),
    ]);
    await using _ = runtime;
    await runtime.cancel("p", { reason: "enough" });
    for (const runId of ["p", "c", "detached"]) await runtime.tick(runId);
    expect((await runtime.get("p")).status).toBe("cancelled");
    expect((await runtime.get("c")).status).toBe("cancelled");
    expect((await runtime.get("detached")).status).toBe("waiting");
  });

  test("a child that fails here fails its parent, whose retry begins another one", async () => {
    const { runtime } = await opened(
      [
        awaiting("p", "c", { current_node: "again" }),
        python("c", { current_node: "nowhere", parent_run_id: "p", status: "failed", error: "x" }),
      ],
      {
        p: [
          {
            run_id: "p",
            node_id: "again",
            status: "waiting",
            attempt: 1,
            effect: { type: "start_subworkflow", payload: { workflow_id: "work", vars: { v: 1 } }, result_key: "r" },
            idempotency_key: "k",
          },
        ],
      },
    );
    await using _ = runtime;
    expect((await runtime.tick("p")).status).toBe("failed");
    await runtime.retry("p");
    expect((await runtime.tick("p")).status).toBe("waiting");
    const [another] = (await runtime.list({ parentRunId: "p", status: ["running", "waiting"] })).runs;
    await runtime.tick(another!.runId);
    await runtime.respond(another!.runId, "yes");
    await runtime.tick(another!.runId);
    expect((await runtime.tick("p")).output).toEqual({
      r: { subRunId: another!.runId, output: { v: 1, r: { text: "yes" } } },
    });
  });

  test("a detached child can be joined, and its parent need not be there", async () => {
    const { runtime, report } = await opened([
      python("p", { current_node: "joins", vars: { bg: { sub_run_id: "c", async: true } } }),
      asked("c", { parent_run_id: "p" }),
      asked("orphan", { parent_run_id: "gone" }),
    ]);
    await using _ = runtime;
    expect(report.problems).toEqual([]);
    expect((await runtime.tick("p")).status).toBe("waiting");
    for (const runId of ["c", "orphan"]) {
      await runtime.respond(runId, "yes");
      expect((await runtime.tick(runId)).status).toBe("completed");
    }
    expect((await runtime.tick("p")).output).toMatchObject({ joined: { subRunId: "c", output: { r: { text: "yes" } } } });
  });
});

describe("a program that died between a record and the state that it led to", () => {
  const calls: unknown[] = [];
  const charge = defineEffect("charge", {
    onUncertain: "retry",
    run: async (payload: any, ctx) => {
      calls.push([payload, ctx.uncertain]);
      return { called: true };
    },
  });
  const work = defineWorkflow({
    id: "work",
    entry: "pay",
    effects: [charge],
    nodes: {
      pay: ({ vars }) => charge({ cents: vars.cents, to: "é" }, { resultKey: "paid", nextNode: "again" }),
      again: ({ vars }) =>
        vars.twice ? charge({ cents: vars.cents, to: "é" }, { resultKey: "more", nextNode: "end" }) : goto("end"),
      sub: () => subworkflow("work", { vars: { x: 1 } }, { resultKey: "sub", nextNode: "end" }),
      end: ({ vars }) => complete({ ...vars }),
      ask: () => askUser({ prompt: "?" }, { resultKey: "r", nextNode: "end" }),
    },
  });
  const record = (more: Record<string, unknown>) => ({
    run_id: "w",
    node_id: "pay",
    effect: { type: "charge", payload: { to: "é", cents: 5.0 }, result_key: "paid" },
    result: null,
    error: null,
    started_at: "2025-12-13T19:40:53.000001+00:00",
    ended_at: "2025-12-13T19:40:53.000002+00:00",
    attempt: 1,
    ...more,
  });
  const started = record({ status: "started", ended_at: null });
  const run = (more: Record<string, unknown> = {}) => python("w", { current_node: "pay", vars: { cents: 5 }, ...more });
  const finished = async (runs: Record<string, unknown>[], ledger: any[], until = "completed") => {
    calls.length = 0;
    await using runtime = await createRuntime({ store: memoryStore(), workflows: [work], scheduler: false });
    expect((await importPython(runtime, write(runs, { w: structuredClone(ledger) }))).problems).toEqual([]);
    const ended = await runtime.tick("w");
    expect(ended.status).toBe(until);
    expect(await runtime.verify("w")).toMatchObject({ ok: true });
    return { ended, calls: [...calls] };
  };

  test("a result that is recorded is taken from there, once", async () => {
    const completed = record({ status: "completed", result: { charged: 5.0 } });
    const first = await finished([run()], [started, completed]);
    expect([first.ended.output, first.calls]).toEqual([{ cents: 5, paid: { charged: 5 } }, []]);
    // The same effect from the next node is another one.
    const twice = await finished([run({ vars: { cents: 5, twice: true } })], [started, completed]);
    expect(twice.ended.output).toMatchObject({ paid: { charged: 5 }, more: { called: true } });
    expect(twice.calls).toEqual([[{ cents: 5, to: "é" }, false]]);
  });

  test("a moment that had come is not waited for again, and what was recorded behind it is taken", async () => {
    const until = "2025-12-13T19:40:52.500000+00:00";
    const wait = waiting("", { reason: "until", until, resume_to_node: "pay", result_key: "at" }).waiting as any;
    const napping = run({ status: "waiting", current_node: "nap", vars: { cents: 5 }, waiting: wait });
    const nap = record({
      node_id: "nap",
      status: "waiting",
      effect: { type: "wait_until", payload: { until }, result_key: "at" },
      result: { wait },
    });
    const completed = record({ status: "completed", result: { charged: 5 } });
    const done = await finished([napping], [nap, started, completed]);
    expect([done.ended.output, done.calls]).toEqual([{ cents: 5, paid: { charged: 5 } }, []]);
    const again = await finished([napping], [nap, started]);
    expect(again.calls).toEqual([[{ cents: 5, to: "é" }, true]]);
  });

  test("the name that a plan gives its node is not looked at, and an export tells of one effect once", async () => {
    const other = [started, record({ status: "completed", result: { charged: 5 } })].map((line) => ({
      ...line,
      node_id: "other",
    }));
    const { ended, calls } = await finished([run()], other);
    expect([ended.output, calls]).toEqual([{ cents: 5, paid: { charged: 5 } }, []]);

    await using runtime = await createRuntime({ store: memoryStore(), workflows: [work], scheduler: false });
    await importPython(runtime, write([run()], { w: structuredClone(other) }));
    await runtime.tick("w");
    const target = join(place, "target");
    await exportPython(runtime, ["w"], target);
    const { records, report } = readLedger(readFileSync(join(target, "ledger_w.jsonl"), "utf8"));
    expect(records.map(({ status }) => status)).toEqual(["started", "completed", "completed"]);
    expect([report?.ok, records[2]?.effect]).toEqual([true, null]);
  });

  test("nothing is taken that the state has already, that is of another effect, or that is no result", async () => {
    const completed = record({ status: "completed", result: { charged: 5 } });
    const saved = { updated_at: "2025-12-13T19:40:53.000002+00:00" };
    for (const [runs, ledger] of [
      [[run(saved)], [started, completed]],
      [[run({ vars: { cents: 6 } })], [started, completed]],
      [[run()], [started, record({ status: "completed", result: null })]],
      [[run()], [started, record({ status: "failed", error: "no" })]],
      [[run()], [started, record({ status: "waiting", result: { wait: { reason: "rain" } } })]],
    ] as const) {
      const { ended, calls } = await finished([...runs], [...ledger]);
      expect(ended.output).toMatchObject({ paid: { called: true } });
      expect(calls).toMatchObject([[{ to: "é" }, false]]);
    }
  });

  test("an attempt without an outcome is made again, and told that it may have happened", async () => {
    // Of a coarse clock, the last one.
    for (const saved of [{}, { updated_at: started.started_at }]) {
      const { calls, ended } = await finished([run(saved)], [started]);
      expect(calls).toEqual([[{ cents: 5, to: "é" }, true]]);
      expect(ended.output).toMatchObject({ paid: { called: true } });
    }
  });

  test("a child that was begun is waited for, and no second one begins", async () => {
    const effect = { type: "start_subworkflow", payload: { workflow_id: "work", vars: { x: 1.0 } }, result_key: "sub" };
    const wait = waiting("", {
      reason: "subworkflow",
      wait_key: "subworkflow:c",
      resume_to_node: "end",
      result_key: "sub",
      details: { sub_run_id: "c", sub_workflow_id: "work", sub_waiting: null },
    }).waiting;
    const ledger = [
      record({ node_id: "sub", effect, status: "started" }),
      record({ node_id: "sub", effect, status: "waiting", result: { wait } }),
    ];
    const parent = run({ current_node: "sub" });
    const child = waiting("c", { reason: "user", wait_key: "k", resume_to_node: "end", result_key: "r" }, { parent_run_id: "w" });
    await using runtime = await createRuntime({ store: memoryStore(), workflows: [work], scheduler: false });
    await importPython(runtime, write([parent, child], { w: ledger }));
    expect(await runtime.tick("w")).toMatchObject({ status: "waiting", waits: [{ waitKey: "subworkflow:c" }] });
    expect((await runtime.list({ parentRunId: "w" })).runs).toHaveLength(1);
    await runtime.respond("c", "yes");
    await runtime.tick("c");
    expect((await runtime.tick("w")).output).toMatchObject({ sub: { sub_run_id: "c", output: { r: { text: "yes" } } } });

    rmSync(join(place, "written"), { recursive: true });
    const done = python("c", { status: "completed", output: { x: 2 }, parent_run_id: "w" });
    const { ended } = await finished([parent, done], ledger);
    expect(ended.output).toMatchObject({ sub: { sub_run_id: "c", output: { x: 2 } } });
  });
});

test("only the runs that are named come in, and one that is not there is told of", async () => {
  await using runtime = await createRuntime({ store: memoryStore(), scheduler: false });
  const directory = write([python("one"), python("two")]);
  await expect(importPython(runtime, directory, { runids: ["one"] } as never)).rejects.toThrow('Did you mean "runIds"?');
  await expect(importPython(runtime, directory, { version: 2 as never })).rejects.toMatchObject({ code: "INVALID_OPTION" });
  const { runs, problems } = await importPython(runtime, directory, { runIds: ["one", "nobody"] });
  expect(runs.map(({ runId }) => runId)).toEqual(["one"]);
  expect(problems).toMatchObject([{ file: "run_nobody.json", problem: "it is not there" }]);
});

test("a run that is too large hides no other", async () => {
  await using runtime = await createRuntime({ store: memoryStore(), scheduler: false });
  const { varsBytes } = defaultLimits;
  try {
    Object.assign(defaultLimits, { varsBytes: 20_000 });
    const large = python("large", { vars: { text: "x".repeat(16_000) } });
    const report = await importPython(runtime, write([large, python("child", { parent_run_id: "large" })]));
    expect(report.runs.map(({ runId }) => runId)).toEqual(["child"]);
    expect(report.problems).toMatchObject([{ file: "run_large.json", problem: expect.stringMatching(/^TOO_LARGE/) }]);
  } finally {
    Object.assign(defaultLimits, { varsBytes });
  }
});

test("what JavaScript has no number for is noted, and one run that cannot be here hides no other", async () => {
  const runtime = await createRuntime({ store: memoryStore(), scheduler: false });
  await using _ = runtime;
  const directory = write([
    python("numbers", { status: "completed" }),
    python("proto", { status: "completed" }),
    python("deep", { status: "completed", vars: JSON.parse(`${'{"a":'.repeat(300)}1${"}".repeat(300)}`) }),
    python("waits", { status: "waiting" }),
    waiting("key", { wait_key: "k", result_key: "a.__proto__.b" }),
    python("half", { workflow_id: "\ud800" }),
  ]);
  const vars = (runId: string, text: string) =>
    writeFileSync(
      join(directory, `run_${runId}.json`),
      fileText(python(runId, { status: "completed" })).replace('"vars": {}', `"vars": ${text}`),
    );
  vars("numbers", '{"a": [9007199254740993, NaN, 1.0, 1e-07], "b/c": -Infinity}');
  vars("proto", '{"__proto__": {"x": 1}}');
  const report = await importPython(runtime, directory);
  expect(report.runs).toMatchObject([
    {
      runId: "numbers",
      notes: [
        "/vars/a/0 is 9007199254740993, which JavaScript has no number for",
        "/vars/a/1 is NaN, which JavaScript has no number for",
        "/vars/b~1c is -Infinity, which JavaScript has no number for",
      ],
    },
  ]);
  expect((await runtime.get("numbers")).vars).toEqual({ a: [9007199254740992, null, 1, 1e-7], "b/c": null });
  expect(report.problems.map(({ file, problem }) => [file, problem.split(":")[0]])).toEqual([
    ["run_deep.json", "JSON_TOO_DEEP"],
    ["run_half.json", expect.stringContaining("workflow_id has half")],
    ["run_key.json", "RESULT_KEY_INVALID"],
    ["run_proto.json", "NOT_JSON"],
    ["run_waits.json", expect.stringContaining("does not say for what")],
  ]);
});
