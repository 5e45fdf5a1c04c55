// Reading a directory: everything that can be used is there, everything else is named.
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { isError } from "abstractruntime";
import { fileText, ledgerText, parsePythonJson, readPythonDirectory } from "abstractruntime/python";
import { expected, fixture, textOf } from "./fixtures.ts";

let place: string;
beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), "python-directory-"));
});
afterEach(() => rmSync(place, { recursive: true, force: true }));

/** A copy of a fixture, to damage. */
function copied(name: string): string {
  cpSync(fixture(name), place, { recursive: true });
  return place;
}

test("every run, ledger, snapshot and artifact of the fixtures is read, and written again character for character", async () => {
  let files = 0;
  for (const name of Object.keys(expected)) {
    const found = await readPythonDirectory(fixture(name));
    for (const [id, { run, text }] of found.runs) {
      expect(fileText(run)).toBe(textOf(name, `run_${id}.json`));
      expect(text).toBe(textOf(name, `run_${id}.json`));
      files += 1;
    }
    for (const [id, ledger] of found.ledgers) {
      const text = textOf(name, `ledger_${id}.jsonl`);
      expect(ledger.text).toBe(text);
      expect(ledgerText(ledger.records)).toBe(text.slice(0, text.lastIndexOf("\n") + 1));
      files += 1;
    }
    for (const [id, { snapshot }] of found.snapshots) {
      expect(fileText(snapshot)).toBe(textOf(name, `snapshot_${id}.json`));
      files += 1;
    }
    for (const [id, { metadata }] of found.artifacts) {
      expect(fileText(metadata)).toBe(textOf(name, "artifacts", `${id}.meta`));
      files += 1;
    }
  }
  expect(files).toBe(7 + 8 + 4 + 5);
});

test("what stands in the fixtures is what they are said to hold", async () => {
  const a = await readPythonDirectory(fixture("a-ask-user-waiting"));
  const { run } = expected["a-ask-user-waiting"];
  expect(a.runs.get(run.run_id)?.run).toMatchObject({
    workflow_id: run.workflow_id,
    status: run.status,
    current_node: run.current_node,
    waiting: run.waiting,
    actor_id: run.actor_id,
  });
  expect(a.problems).toEqual([]);

  const b = await readPythonDirectory(fixture("b-completed-with-retries"));
  const [retried] = [...b.ledgers.values()];
  const sequence = retried!.records.map(({ node_id, status, attempt, effect }: any) => ({
    node_id,
    status,
    attempt: Number(attempt.value),
    effect_type: effect?.type ?? null,
  }));
  const told = expected["b-completed-with-retries"];
  expect(sequence).toEqual(told.ledger.sequence);
  expect(retried!.records.map(({ idempotency_key }) => idempotency_key)).toEqual(told.idempotency_keys_in_order);
  expect(retried!.records.map(({ error }) => error)).toEqual(told.errors_in_order);
  const { numbers } = [...b.runs.values()][0]!.run.vars as any;
  const spelled = Object.fromEntries(Object.entries<any>(numbers).map(([key, number]) => [key, String(number?.value ?? number)]));
  expect(spelled).toEqual(told.number_lexemes);

  const d = await readPythonDirectory(fixture("d-snapshots"));
  expect([...d.snapshots.keys()].sort()).toEqual(expected["d-snapshots"].ids_in_creation_order);
  expect(d.problems.map(({ file }) => file)).toEqual(["snapshot_corrupt.json"]);

  const e = await readPythonDirectory(fixture("e-artifacts"));
  expect(e.problems).toEqual([]);
  expect([...e.artifacts.values()].map(({ metadata }) => metadata.artifact_id).sort()).toEqual(
    Object.values<any>(expected["e-artifacts"].artifacts)
      .map(({ artifact_id }) => artifact_id)
      .sort(),
  );
});

test("a torn ledger, a torn run and a run from the future are named, and the good ones are there", async () => {
  const found = await readPythonDirectory(fixture("g-damaged-files"));
  const { good_run } = expected["g-damaged-files"];
  expect([...found.runs.keys()]).toEqual([good_run]);
  expect(found.ledgers.get(good_run)).toMatchObject({ report: { ok: true, count: 1 } });
  expect(found.problems).toEqual([
    { file: `ledger_${good_run}.jsonl`, line: 2, code: "PYTHON_FILE_INVALID", problem: expect.stringContaining("not a record") },
    {
      file: "run_future.json",
      code: "PYTHON_FILE_INVALID",
      problem: expect.stringMatching(/^status is ".+", and none of: running/),
    },
    { file: "run_torn.json", code: "PYTHON_FILE_INVALID", problem: expect.stringContaining("not JSON") },
  ]);
});

test("links, pipes' places, strange names, ids and bytes are refused one by one", async () => {
  const directory = copied("e-artifacts");
  const [id] = [...(await readPythonDirectory(fixture("a-ask-user-waiting"))).runs.keys()];
  const good = fixture(`a-ask-user-waiting/run_${id}.json`);
  cpSync(good, join(directory, `run_${id}.json`));
  cpSync(good, join(directory, "run_other.json"));
  symlinkSync(good, join(directory, "run_link.json"));
  symlinkSync(join(directory, "nowhere"), join(directory, "ledger_link.jsonl"));
  mkdirSync(join(directory, "snapshot_directory.json"));
  writeFileSync(join(directory, "ledger_bytes.jsonl"), Buffer.from([0x7b, 0xff, 0x7d]));
  writeFileSync(join(directory, "ledger_list.jsonl"), '\n  \n{"run_id": "list", "error": "\\ud800", "record_hash": "0"}\n[1]\n');
  writeFileSync(join(directory, "notes.txt"), "nobody's");
  const artifacts = join(directory, "artifacts");
  symlinkSync(join(artifacts, "my_custom-ID1.bin"), join(artifacts, "linked.bin"));
  cpSync(join(artifacts, "my_custom-ID1.meta"), join(artifacts, "linked.meta"));
  writeFileSync(join(artifacts, "my_custom-ID1.bin"), "other bytes");
  writeFileSync(join(artifacts, "alone.bin"), "");
  writeFileSync(join(artifacts, "lost.meta"), "{}");
  writeFileSync(join(artifacts, "a b.bin"), "");
  const before = (await readPythonDirectory(fixture("e-artifacts"))).artifacts;

  const found = await readPythonDirectory(directory);
  const problems = Object.fromEntries(found.problems.map(({ file, problem }) => [file, problem]));
  expect(found.problems.filter(({ file }) => file === "ledger_list.jsonl")).toMatchObject([
    { line: 4, problem: expect.stringContaining("not an object") },
    { problem: expect.stringContaining("cannot be verified: NOT_JSON") },
  ]);
  expect(problems).toEqual({
    "run_other.json": expect.stringContaining(`of "${id}"`),
    "run_link.json": expect.stringContaining("symbolic link"),
    "ledger_link.jsonl": expect.stringContaining("symbolic link"),
    "snapshot_directory.json": expect.stringContaining("no plain file"),
    "ledger_bytes.jsonl": expect.stringContaining("UTF-8"),
    "ledger_list.jsonl": expect.stringContaining("cannot be verified"),
    "artifacts/linked.meta": expect.stringContaining('of "my_custom-ID1"'),
    "artifacts/linked.bin": expect.stringContaining("symbolic link"),
    "artifacts/my_custom-ID1.bin": expect.stringContaining("it has 11 bytes, and its metadata say 6"),
    "artifacts/alone.bin": expect.stringContaining("(.meta) are missing"),
    "artifacts/lost.meta": expect.stringContaining("(.bin) are missing"),
    "artifacts/a b.bin": expect.stringContaining("no id"),
  });
  expect([...found.runs.keys()]).toEqual([id]);
  expect([...found.artifacts.keys()]).toEqual([...before.keys()].filter((key) => key !== "my_custom-ID1"));

  rmSync(artifacts, { recursive: true });
  symlinkSync(fixture("e-artifacts/artifacts"), artifacts);
  const linked = await readPythonDirectory(directory);
  expect(linked.artifacts.size).toBe(0);
  expect(linked.problems.find(({ file }) => file === "artifacts")?.problem).toContain("symbolic link");
});

test("separators of other languages stand inside lines", async () => {
  const record = { run_id: "r", text: "a\u2028b\u2029c\u0085d", record_hash: null };
  writeFileSync(join(place, "ledger_r.jsonl"), ledgerText([record]).replace("\n", "\r\n\n"));
  const { ledgers, problems } = await readPythonDirectory(place);
  expect([problems, ledgers.get("r")?.records]).toEqual([[], [record]]);
});

test("a line that ends within a character, or holds what is none, hides no other, and its bytes are kept", async () => {
  const lines = [
    { run_id: "r", text: "é" },
    { run_id: "r", text: "ok" },
    { run_id: "r", text: "é" },
  ].map((record) => Buffer.from(ledgerText([record])));
  const [first, second, third] = lines as [Buffer, Buffer, Buffer];
  const torn = third.subarray(0, third.indexOf("é") + 1);
  const bytes = Buffer.concat([Buffer.from(first.toString("latin1").replace("\u00c3", "\u00ff"), "latin1"), second, torn]);
  writeFileSync(join(place, "ledger_r.jsonl"), bytes);
  const { ledgers, problems } = await readPythonDirectory(place);
  expect(problems).toMatchObject([1, 3].map((line) => ({ line, problem: "it is not a record: it is not UTF-8 text" })));
  expect(ledgers.get("r")).toMatchObject({ records: [{ text: "ok" }], bytes });
});

test("a file that names no run is told of", async () => {
  writeFileSync(
    join(place, "run_.json"),
    textOf("a-ask-user-waiting", expected["a-ask-user-waiting"].run.file).replaceAll(
      expected["a-ask-user-waiting"].run.run_id,
      "",
    ),
  );
  expect((await readPythonDirectory(place)).problems).toMatchObject([{ file: "run_.json", problem: "it has no id" }]);
});

test("a run that the Python package would not read is said to be wrong, and why", async () => {
  const [[id, { text }]] = [...(await readPythonDirectory(fixture("a-ask-user-waiting"))).runs] as any;
  const { allow_free_text: _, ...wait } = (parsePythonJson(text) as any).waiting;
  const cases: [changed: (run: any) => unknown, problem: string | undefined][] = [
    [(run) => ({ ...run, vars: null }), undefined],
    [(run) => ({ ...run, waiting: wait }), undefined],
    [(run) => ({ ...run, status: "resting" }), 'status is "resting", and none of'],
    [(run) => ({ ...run, waiting: { ...wait, reason: "rain" } }), "reason of the wait"],
    [(run) => ({ ...run, waiting: { prompt: "?" } }), "reason is missing"],
    [(run) => ({ ...run, workflow_id: undefined }), "workflow_id is missing"],
    [(run) => ({ ...run, current_node: ["x"] }), "current_node is no text"],
    [(run) => ({ ...run, vars: [] }), "vars is not an object"],
    [() => [], "it is not an object"],
  ];
  for (const [changed, problem] of cases) {
    writeFileSync(join(place, `run_${id}.json`), fileText(changed(parsePythonJson(text))));
    const found = await readPythonDirectory(place);
    if (problem === undefined) expect(found.problems).toEqual([]);
    else expect(found.problems).toMatchObject([{ problem: expect.stringContaining(problem) }]);
  }
});

test("no directory, no guess", async () => {
  const file = join(place, "file");
  writeFileSync(file, "");
  for (const wrong of [join(place, "missing"), file]) {
    const error = await readPythonDirectory(wrong).catch((reason: unknown) => reason);
    expect(isError(error, "PYTHON_DIRECTORY_INVALID")).toBe(true);
  }
  expect(await readPythonDirectory(place)).toMatchObject({ problems: [] });
});
