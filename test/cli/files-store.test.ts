// The command over a files store, in processes of its own: one at a time, and what each leaves is there for the next, and for people.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, expect, test } from "vitest";
import { fixture } from "./command-line.ts";

const directory = mkdtempSync(join(tmpdir(), "abstractruntime-files-"));
const command = [...process.execArgv, resolve("src/cli/main.ts"), "--store", "files:.abstractruntime/files"];
const approval = fixture("approval.ts");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function ar(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...command, ...args], { cwd: directory, encoding: "utf8" });
  return { status, stdout, stderr };
}

const rowOf = (runId: string) =>
  JSON.parse(readFileSync(join(directory, ".abstractruntime/files/runs", runId, "run.json"), "utf8")).row;

test("a run goes from process to process, can be read in between, and is not to be had by two", async () => {
  const missing = ar("ls");
  expect(missing.stderr).toMatch(/^STORE_UNAVAILABLE: .*there is no such directory\./);

  // A process that holds the store until it is killed.
  const holding = spawn(
    process.execPath,
    [...command, "run", approval, "--vars", '{"topic":"Files"}', "--id", "first", "--wait"],
    {
      cwd: directory,
    },
  );
  let said = "";
  for await (const text of holding.stderr) {
    said += text;
    if (said.includes("Run first")) break;
  }
  const refused = ar("ls");
  expect(refused.stderr).toMatch(/^STORE_LOCKED: the store files:\S+ is open already.*\n?.*Stop the one that has it open/);
  expect(refused.status).toBe(1);
  const died = once(holding, "exit");
  holding.kill("SIGKILL");
  await died;

  expect(ar("run", approval, "--id", "first").stdout).toContain('Publish "Files"?');
  expect(rowOf("first")).toMatchObject({ status: "waiting", node: "ask" });
  const answered = ar("respond", "first", "yes", "--file", approval);
  expect(answered.stdout).toContain("Run first completed.");
  expect(rowOf("first")).toMatchObject({ status: "completed" });
  expect(ar("verify", "first").status).toBe(0);
  expect(ar("ledger", "first").stdout).toContain("run_completed");
});
