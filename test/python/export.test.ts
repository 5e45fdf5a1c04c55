// What is exported can be read, verified and gone on with by the Python package.
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import {
  all,
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  goto,
  permanent,
  type Runtime,
  subworkflow,
  waitEvent,
  waitUntil,
  wait,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { computeIdempotencyKey, exportPython, fileText, importPython, readPythonDirectory } from "abstractruntime/python";
import { expected, fixture, textOf } from "./fixtures.ts";

let place: string;
beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), "python-export-"));
});
afterEach(() => rmSync(place, { recursive: true, force: true }));

const textIn = (name: string) => readFileSync(join(place, name), "utf8");
const jsonIn = (name: string) => JSON.parse(textIn(name));
const linesIn = (runId: string): any[] =>
  textIn(`ledger_${runId}.jsonl`)
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line));

async function opened(workflows: any[] = [], effects: any[] = []): Promise<Runtime> {
  return createRuntime({ store: memoryStore(), workflows, effects, scheduler: false });
}

test("what did not move here is exported as it came, character for character", async () => {
  await using runtime = await opened();
  for (const name of ["a-ask-user-waiting", "b-completed-with-retries", "c-subworkflow-waiting"]) {
    const { runs } = await importPython(runtime, fixture(name));
    const report = await exportPython(
      runtime,
      runs.map(({ runId }) => runId),
      place,
    );
    expect(report.problems).toEqual([]);
    const files = readdirSync(fixture(name));
    for (const file of files) expect([file, textIn(file)]).toEqual([file, textOf(name, file)]);
    for (const { runId, oldRecords, records, head } of report.runs) {
      const imported = runs.find((run) => run.runId === runId);
      expect([records, oldRecords, head]).toEqual([imported?.records, records, imported?.report?.head_hash ?? null]);
    }
  }
  expect(readdirSync(place).filter((file) => file.endsWith(".tmp"))).toEqual([]);
});

test("an id may be as long as a file's name can be, and a longer one hides no other run", async () => {
  const work = defineWorkflow({ id: "work", entry: "end", nodes: { end: () => complete({}) } });
  await using runtime = await opened([work]);
  const source = join(place, "source");
  const { run } = expected["a-ask-user-waiting"];
  const long = "y".repeat(240);
  mkdirSync(source);
  const text = textOf("a-ask-user-waiting", run.file).replaceAll(run.run_id, long);
  writeFileSync(join(source, `run_${long}.json`), text);
  await importPython(runtime, source);
  const longer = "é".repeat(150);
  await runtime.start(work, { runId: longer });
  const { runs, problems } = await exportPython(runtime, [longer, long], place);
  expect([runs.map(({ runId }) => runId), problems]).toEqual([
    [long],
    [{ runId: longer, problem: expect.stringContaining("too long") }],
  ]);
  expect(textIn(`run_${long}.json`)).toBe(text);
});

test("an answer that was sent and not taken is told of", async () => {
  await using runtime = await opened();
  await importPython(runtime, fixture("a-ask-user-waiting"));
  const { run, then } = expected["a-ask-user-waiting"];
  await runtime.resume(run.run_id, { waitKey: then.resume.wait_key, payload: then.resume.payload });
  const { runs } = await exportPython(runtime, [run.run_id], place);
  expect(runs).toMatchObject([{ status: "waiting", notes: [expect.stringContaining("1 messages were sent")] }]);
});

test("a torn line is left out, since Python could not read the others for it", async () => {
  await using runtime = await opened();
  const { good_run: runId } = expected["g-damaged-files"];
  await importPython(runtime, fixture("g-damaged-files"));
  const report = await exportPython(runtime, [runId], place);
  expect(report.runs).toMatchObject([
    { records: 1, notes: [expect.stringContaining("1 lines of its old ledger cannot be read")] },
  ]);
  const whole = textOf("g-damaged-files", `ledger_${runId}.jsonl`);
  expect(textIn(`ledger_${runId}.jsonl`)).toBe(whole.slice(0, whole.indexOf("\n") + 1));
  // Where it came from, it takes the place of what could not be read; nothing else is there to be lost.
  writeFileSync(join(place, `ledger_${runId}.jsonl`), whole);
  expect((await exportPython(runtime, [runId], place)).problems).toEqual([]);
});

test("a run that was finished here continues its old chain", async () => {
  const ask = defineWorkflow({
    id: "fx_ask",
    entry: "START",
    nodes: {
      START: () => goto("ASK"),
      ASK: () => askUser({ prompt: "?" }, { resultKey: "answers.first.user", nextNode: "DONE" }),
      DONE: ({ vars }) => complete({ answer: vars.answers.first.user }),
    },
  });
  await using runtime = await opened([ask]);
  const { run, then, ledger } = expected["a-ask-user-waiting"];
  await importPython(runtime, fixture("a-ask-user-waiting"));
  await runtime.resume(run.run_id, { waitKey: then.resume.wait_key, payload: then.resume.payload });
  await runtime.tick(run.run_id);
  const report = await exportPython(runtime, [run.run_id], place);
  expect(report).toMatchObject({ problems: [], runs: [{ status: "completed", records: 3, oldRecords: 2, notes: [] }] });
  expect(textIn(`ledger_${run.run_id}.jsonl`).startsWith(textOf("a-ask-user-waiting", `ledger_${run.run_id}.jsonl`))).toBe(true);
  const found = await readPythonDirectory(place);
  expect(found.problems).toEqual([]);
  expect(found.ledgers.get(run.run_id)?.report).toMatchObject({ ok: true, count: then.ledger_records_after });
  const lines = linesIn(run.run_id);
  expect(lines[2]).toMatchObject({
    prev_hash: ledger.upstream_verification_report.head_hash,
    node_id: "DONE",
    status: "completed",
    effect: null,
    result: { completed: true },
  });
  expect(Object.keys(lines[2])).toEqual(Object.keys(lines[1]));
  expect(jsonIn(`run_${run.run_id}.json`)).toMatchObject({
    status: "completed",
    current_node: "DONE",
    waiting: null,
    output: then.output,
    vars: then.vars,
    created_at: "2026-11-22T15:12:29.349732+00:00",
    actor_id: run.actor_id,
  });
});

test("a tree that was finished here is exported whole, and every chain verifies", async () => {
  const workflows = [
    defineWorkflow({ id: "fx_parent", entry: "d", nodes: { d: ({ vars }) => complete({ parent: vars.res.child }) } }),
    defineWorkflow({ id: "fx_child", entry: "d", nodes: { d: ({ vars }) => complete({ child: vars.g }) } }),
    defineWorkflow({
      id: "fx_grandchild",
      entry: "q",
      nodes: { q: () => goto("d"), d: ({ vars }) => complete({ deep: vars.a }) },
    }),
  ];
  await using runtime = await opened(workflows);
  const c = expected["c-subworkflow-waiting"];
  await importPython(runtime, fixture("c-subworkflow-waiting"));
  // Half-way: the grandchild is done, the others wait as they did.
  await runtime.resume(c.grandchild.run_id, { waitKey: "deep", payload: c.then.resume_grandchild.payload });
  await runtime.tick(c.grandchild.run_id);
  const half = await exportPython(runtime, [c.parent.run_id], place);
  expect(Object.fromEntries(half.runs.map(({ runId, status }) => [runId, status]))).toEqual({
    [c.parent.run_id]: "waiting",
    [c.async_child.run_id]: "running",
    [c.child.run_id]: "waiting",
    [c.grandchild.run_id]: "completed",
  });
  const name = "c-subworkflow-waiting";
  expect(jsonIn(`run_${c.parent.run_id}.json`)).toEqual(JSON.parse(textOf(name, `run_${c.parent.run_id}.json`)));
  for (const { run_id } of [c.child, c.parent]) await runtime.tick(run_id);
  const report = await exportPython(runtime, [c.parent.run_id], place);
  expect(report.problems).toEqual([]);
  const found = await readPythonDirectory(place);
  expect(found.problems).toEqual([]);
  for (const [runId, ledger] of found.ledgers) expect([runId, ledger.report?.ok]).toEqual([runId, true]);
  expect(jsonIn(`run_${c.parent.run_id}.json`)).toMatchObject({
    status: "completed",
    output: { parent: c.then.parent_output.parent },
  });
});

test("values that were not touched keep their spelling", async () => {
  const b = "b-completed-with-retries";
  const { run } = expected[b];
  const directory = join(place, "source");
  cpSync(fixture(b), directory, { recursive: true });
  const path = join(directory, `run_${run.run_id}.json`);
  // It was about to end.
  writeFileSync(path, readFileSync(path, "utf8").replace('"status": "completed"', '"status": "running"'));
  const workflow = defineWorkflow({
    id: "fx_retries",
    entry: "fin",
    nodes: {
      fin: ({ vars }) => {
        vars.deep.keep = 2;
        vars.added = { of: 1.5, list: [1e-7, 1e21] };
        vars.numbers.tenth = 0.25;
        return complete({ ok: true });
      },
    },
  });
  await using runtime = await opened([workflow]);
  await importPython(runtime, directory);
  expect((await runtime.tick(run.run_id)).status).toBe("completed");
  await exportPython(runtime, [run.run_id], place);
  const vars = (text: string) => text.slice(text.indexOf('"vars"'), text.indexOf('"waiting"'));
  const added = ',\n    "added": {\n      "of": 1.5,\n      "list": [\n        1e-07,\n        1e+21\n      ]\n    }\n  },\n  ';
  const expectedVars = vars(textOf(b, `run_${run.run_id}.json`))
    .replace('"keep": 1', '"keep": 2')
    .replace('"tenth": 0.1', '"tenth": 0.25')
    .replace(/\n {2}},\n {2}$/, added);
  expect(vars(textIn(`run_${run.run_id}.json`))).toBe(expectedVars);
  expect((await readPythonDirectory(place)).ledgers.get(run.run_id)?.report).toMatchObject({ ok: true, count: 14 });
});

test("a run that was made here is one that Python can go on with", async () => {
  let calls = 0;
  const flaky = defineEffect("flaky", {
    policy: { maxAttempts: 3, backoff: { initialMs: 1, factor: 1, maxMs: 1 } },
    run: async (payload: any) => {
      calls += 1;
      if (calls < 3) throw new Error(`échec ${calls}`);
      return { got: payload.what };
    },
  });
  const child = defineWorkflow({
    id: "child",
    entry: "c",
    nodes: { c: () => waitEvent("go", { nextNode: "e" }), e: () => complete({}) },
  });
  const work = defineWorkflow({
    id: "work",
    entry: "try",
    effects: [flaky],
    nodes: {
      try: () => flaky({ what: "é\u2028😀" }, { resultKey: "tried", nextNode: "sub" }),
      sub: () => subworkflow(child, { vars: {} }, { resultKey: "sub", nextNode: "rest" }),
      rest: () => waitUntil("2099-01-01T00:00:00.5Z", { nextNode: "end" }),
      end: () => complete({ done: 1 }),
    },
  });
  await using runtime = await createRuntime({ store: memoryStore(), workflows: [work, child] });
  const { runId } = await runtime.start(work, { actorId: "ar_me", runId: "mine" });
  await expect.poll(async () => (await runtime.list({ parentRunId: runId })).runs[0]?.status).toBe("waiting");
  const [childRun] = (await runtime.list({ parentRunId: runId })).runs;
  const first = await exportPython(runtime, [runId], place);
  expect(first.problems).toEqual([]);
  expect(first.runs.map((run) => run.runId)).toEqual([runId, childRun!.runId]);
  const lines = linesIn(runId);
  const payload = { what: "é\u2028😀" };
  expect(lines.map(({ node_id, status, attempt, error }) => [node_id, status, attempt, error])).toEqual([
    ["try", "started", 1, null],
    ["try", "failed", 1, "échec 1"],
    ["try", "started", 2, null],
    ["try", "failed", 2, "échec 2"],
    ["try", "started", 3, null],
    ["try", "completed", 3, null],
    ["sub", "started", 1, null],
    ["sub", "waiting", 1, null],
  ]);
  expect(lines[0]).toMatchObject({
    run_id: runId,
    effect: { type: "flaky", payload, result_key: "tried" },
    actor_id: "ar_me",
    idempotency_key: computeIdempotencyKey(runId, "try", { type: "flaky", payload }),
    prev_hash: null,
    ended_at: null,
  });
  expect(lines[1]).toMatchObject({ step_id: lines[0].step_id, started_at: lines[0].started_at });
  expect(new Set(lines.map(({ step_id }) => step_id)).size).toBe(4);
  expect(lines[0].step_id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(lines[5].result).toEqual({ got: payload.what });
  const wait = {
    reason: "subworkflow",
    wait_key: `subworkflow:${childRun!.runId}`,
    until: null,
    resume_to_node: "rest",
    result_key: "sub",
    prompt: null,
    choices: null,
    allow_free_text: true,
    details: { sub_run_id: childRun!.runId, sub_workflow_id: "child", sub_waiting: { reason: "event", wait_key: "go" } },
  };
  expect(jsonIn(`run_${runId}.json`)).toMatchObject({
    status: "waiting",
    current_node: "sub",
    waiting: wait,
    vars: { tried: lines[5].result },
  });
  expect(jsonIn(`run_${childRun!.runId}.json`)).toMatchObject({
    parent_run_id: runId,
    actor_id: "ar_me",
    waiting: { reason: "event", wait_key: "go", resume_to_node: "e" },
  });
  // It goes on here; a second export carries the same chain on.
  const before = textIn(`ledger_${runId}.jsonl`);
  await runtime.signal(childRun!.runId, "go");
  await expect.poll(async () => (await runtime.get(runId)).node).toBe("rest");
  const second = await exportPython(runtime, [runId], place);
  expect(second.problems).toEqual([]);
  expect(textIn(`ledger_${runId}.jsonl`).startsWith(before)).toBe(true);
  expect(jsonIn(`run_${runId}.json`).waiting).toMatchObject({
    reason: "until",
    wait_key: null,
    until: "2099-01-01T00:00:00.500000+00:00",
  });
  const found = await readPythonDirectory(place);
  expect(found.problems).toEqual([]);
  expect([...found.ledgers.values()].map(({ report }) => report?.ok)).toEqual([true, true]);
  // And back: another store takes it from there.
  await using other = await opened([work, child]);
  expect(await importPython(other, place)).toMatchObject({ problems: [], runs: { length: 2 } });
  expect((await other.get(runId)).waits).toMatchObject([{ reason: "until", until: Date.parse("2099-01-01T00:00:00.500Z") }]);
});

test("failures, cancels and deadlines are told in Python's words, or noted", async () => {
  const bad = defineEffect("bad", {
    run: async () => {
      throw permanent(new Error("no"));
    },
  });
  const asks = defineEffect("asks", { run: () => wait({ reason: "user", prompt: "?", again: true }) });
  const work = defineWorkflow({
    id: "work",
    entry: "go",
    effects: [bad, asks],
    nodes: {
      go: ({ vars }) => goto(vars.to),
      again: () => asks({}, { nextNode: "end" }),
      bad: () => bad({}, { nextNode: "end" }),
      ask: () => askUser({ prompt: "?", timeoutMs: 1_000_000 }, { nextNode: "end" }),
      both: () =>
        all(
          [
            { type: "wait_event", payload: { waitKey: "a" } },
            { type: "wait_event", payload: { waitKey: "b" } },
          ],
          { nextNode: "end" },
        ),
      end: () => complete({}),
    },
  });
  await using runtime = await opened([work]);
  for (const to of ["bad", "ask", "both", "again"]) await runtime.start(work, { runId: to, vars: { to } });
  await runtime.start(work, { runId: "cancelled", vars: { to: "ask" } });
  for (const runId of ["bad", "ask", "both", "again"]) await runtime.tick(runId);
  await runtime.cancel("cancelled", { reason: "enough" });
  await runtime.tick("cancelled");
  const report = await exportPython(runtime, ["bad", "ask", "both", "again", "cancelled"], place);
  expect(report.problems).toMatchObject([
    { runId: "both", problem: expect.stringContaining("several things at once") },
    { runId: "again", problem: expect.stringContaining("waits to be called again") },
  ]);
  expect(existsSync(join(place, "run_both.json"))).toBe(false);
  expect(jsonIn("run_bad.json")).toMatchObject({ status: "failed", error: expect.stringContaining("no"), waiting: null });
  expect(linesIn("bad").map(({ status, error }) => [status, error])).toEqual([
    ["started", null],
    ["failed", "no"],
  ]);
  expect(report.runs.find(({ runId }) => runId === "ask")?.notes).toEqual([expect.stringContaining("deadline")]);
  expect(jsonIn("run_ask.json").waiting).toMatchObject({ reason: "user", prompt: "?", until: null });
  expect(jsonIn("run_cancelled.json")).toMatchObject({ status: "cancelled", error: "enough" });
});

test("a ledger that is not a beginning of the one to be written is left as it is", async () => {
  const work = defineWorkflow({ id: "work", entry: "end", nodes: { end: () => complete({}) } });
  await using runtime = await opened([work]);
  for (const runId of ["a", "b", "c/d"]) {
    await runtime.start(work, { runId });
    await runtime.tick(runId);
  }
  writeFileSync(join(place, "ledger_a.jsonl"), "somebody else's\n");
  const report = await exportPython(runtime, ["a", "b", "c/d"], place);
  expect(report.runs.map(({ runId }) => runId)).toEqual(["b"]);
  expect(report.problems).toMatchObject([
    { runId: "a", problem: expect.stringContaining("records that this run does not have") },
    { runId: "c/d", problem: expect.stringContaining("file's name") },
  ]);
  expect(textIn("ledger_a.jsonl")).toBe("somebody else's\n");
  await expect(exportPython(runtime, ["a", "nobody"], place)).rejects.toThrow(/^RUN_NOT_FOUND/);
  await expect(exportPython(runtime, ["a"], join(place, "ledger_a.jsonl"))).rejects.toThrow(/^PYTHON_DIRECTORY_INVALID/);
});

test("artifacts go back under their old ids with their old metadata, and new ones under theirs", async () => {
  await using runtime = await opened();
  const directory = join(place, "source");
  cpSync(fixture("e-artifacts"), directory, { recursive: true });
  cpSync(fixture("a-ask-user-waiting"), directory, { recursive: true });
  const { run } = expected["a-ask-user-waiting"];
  const path = join(directory, `run_${run.run_id}.json`);
  // One that no value names, stored for the run, under a type that is none.
  const bytes = createHash("sha256").update("its").digest("hex").slice(0, 32);
  const odd = fileText({
    artifact_id: bytes,
    content_type: "é",
    size_bytes: 3,
    created_at: "2025-12-13T19:40:52.123456+00:00",
    run_id: run.run_id,
    tags: {},
  });
  writeFileSync(join(directory, "artifacts", `${bytes}.bin`), "its");
  writeFileSync(join(directory, "artifacts", `${bytes}.meta`), odd);
  // An empty ledger is no artifact: one of no bytes is there already.
  writeFileSync(join(directory, "ledger_other.jsonl"), "");
  writeFileSync(join(directory, "run_other.json"), readFileSync(path, "utf8").replaceAll(run.run_id, "other"));
  const ids = Object.values<any>(expected["e-artifacts"].artifacts).map(({ artifact_id }) => artifact_id);
  const refs = ids.map((id) => ({ $artifact: id }));
  writeFileSync(path, readFileSync(path, "utf8").replace('"count": 2', `"count": ${JSON.stringify(refs)}`));
  expect((await importPython(runtime, directory)).problems).toEqual([]);
  const { $artifact } = await runtime.artifacts.put("new", { runId: run.run_id, tags: { k: "v" } });
  const target = join(place, "target");
  const report = await exportPython(runtime, [run.run_id], target);
  expect([...report.artifacts].sort()).toEqual([...new Set([...ids, $artifact, bytes])].sort());
  expect(readFileSync(join(target, "artifacts", `${bytes}.meta`), "utf8")).toBe(odd);
  for (const id of new Set(ids)) {
    for (const file of [`${id}.bin`, `${id}.meta`])
      expect(readFileSync(join(target, "artifacts", file))).toEqual(readFileSync(fixture(`e-artifacts/artifacts/${file}`)));
  }
  expect(readFileSync(join(target, "artifacts", `${$artifact}.bin`), "utf8")).toBe("new");
  expect(JSON.parse(readFileSync(join(target, "artifacts", `${$artifact}.meta`), "utf8"))).toMatchObject({
    artifact_id: createHash("sha256").update("new").digest("hex"),
    size_bytes: 3,
    run_id: run.run_id,
    tags: { k: "v" },
  });
  expect((await readPythonDirectory(target)).problems).toEqual([]);
});

test("no id and no tag leads out of the directory", async () => {
  const work = defineWorkflow({ id: "work", entry: "end", nodes: { end: () => complete({}) } });
  await using runtime = await opened([work]);
  await runtime.start(work, { runId: "a" });
  await runtime.tick("a");
  await runtime.snapshots.create("a", { name: "n", snapshotId: "x/../../out" });
  const { $artifact } = await runtime.artifacts.put("x", { runId: "a", tags: { "python:../../out": "artifact" } });
  const target = join(place, "deep", "target");
  const report = await exportPython(runtime, ["a"], target);
  expect(report).toMatchObject({ problems: [], snapshots: [], artifacts: [$artifact] });
  expect(report.runs[0]?.notes).toEqual([expect.stringContaining("snapshot x/../../out is left out")]);
  expect([readdirSync(place), readdirSync(join(place, "deep")), readdirSync(target).sort()]).toEqual([
    ["deep"],
    ["target"],
    ["artifacts", "ledger_a.jsonl", "run_a.json"],
  ]);
});
