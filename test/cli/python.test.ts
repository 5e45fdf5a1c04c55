// `import` and `export`: directories of the Python package, in and out.
import { cpSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { CommandLine } from "./command-line.ts";

const fixtures = join(import.meta.dirname, "../fixtures/python");
const asked = "a040010c-ba2a-436e-b247-a4ec794977ff";

let line: CommandLine;
beforeEach(() => {
  line = new CommandLine();
});
afterEach(() => line.remove());

test("a directory is brought in, looked at, and written again", async () => {
  const imported = await line.ar("import", join(fixtures, "a-ask-user-waiting"));
  expect(imported).toMatchObject({ code: 0, err: "" });
  expect(imported.out).toContain(asked);
  expect(imported.out).toMatch(/imported +2 records verified/);
  expect(imported.out).toContain("1 run, 0 snapshots and 0 artifacts read.");
  expect((await line.ar("import", join(fixtures, "a-ask-user-waiting"))).out).toContain("was here");
  expect((await line.ar("why", asked.slice(0, 8))).out).toContain("Pick one");
  expect((await line.ar("ledger", asked)).out).toContain("run_restored");
  expect((await line.ar("verify")).code).toBe(0);

  const directory = line.path("out");
  const exported = await line.ar("export", asked.slice(0, 8), directory);
  expect(exported).toMatchObject({ code: 0, err: "" });
  expect(exported.out).toMatch(/waiting +2 \(2 of them old\) +1c063f8190b51801/);
  for (const file of readdirSync(join(fixtures, "a-ask-user-waiting")))
    expect(readFileSync(join(directory, file), "utf8")).toBe(readFileSync(join(fixtures, "a-ask-user-waiting", file), "utf8"));
});

test("verify has the old ledger's verdict, and finds what was changed in it since", async () => {
  await line.ar("import", join(fixtures, "a-ask-user-waiting"));
  expect((await line.ar("verify", asked)).code).toBe(0);
  // As fixture f5: a record is missing in the middle.
  const bad = line.path("bad");
  cpSync(join(fixtures, "b-completed-with-retries"), bad, { recursive: true });
  cpSync(join(fixtures, "f5-deleted-record"), bad, { recursive: true });
  const imported = await line.ar("import", bad);
  expect([imported.code, imported.out]).toEqual([1, expect.stringContaining("12 records, NOT verified")]);
  const retried = "1f62270a-d3dc-42bd-963a-aa4c57a1524d";
  const one = await line.ar("verify", retried, "--json");
  expect([one.code, one.json.problems]).toEqual([1, [{ problem: "record 4 of its old ledger: prev_hash_mismatch" }]]);
  expect((await line.ar("verify", "--json")).json).toMatchObject({ ok: false, runs: 2, failed: [{ runId: retried }] });
});

test("what cannot be used is named, and the exit code says so", async () => {
  const damaged = await line.ar("import", join(fixtures, "g-damaged-files"));
  expect(damaged.code).toBe(1);
  expect(damaged.out).toContain("1 run,");
  for (const part of ["run_future.json: status", "run_torn.json: it is not JSON", "line 2: it is not a record"])
    expect(damaged.err).toContain(part);
  symlinkSync("/etc/passwd", line.path("run_x.json"));
  expect((await line.ar("import", line.directory, "--json")).json).toMatchObject({
    runs: [],
    problems: [{ file: "run_x.json", code: "PYTHON_FILE_INVALID" }],
  });
  expect((await line.ar("import", line.path("nowhere"))).err).toMatch(/^INVALID_OPTION: there is no file or directory/);
  expect(await line.ar("export", line.path("out"))).toMatchObject({ code: 2, err: expect.stringContaining("Give the runs") });
  expect((await line.ar("export", "nobody", line.path("out"))).err).toMatch(/^RUN_NOT_FOUND/);
});
