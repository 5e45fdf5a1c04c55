// The real command in processes of its own: what a person does with a run, from start to proof.
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, expect, test } from "vitest";
import { fixture } from "./command-line.ts";

const directory = mkdtempSync(join(tmpdir(), "abstractruntime-flow-"));
const command = [...process.execArgv, resolve("src/cli/main.ts")];
const approval = fixture("approval.ts");
const several = fixture("several.ts");
afterAll(() => rmSync(directory, { recursive: true, force: true }));

function ar(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...command, ...args], { cwd: directory, encoding: "utf8" });
  return { status, stdout, stderr };
}

function start(...args: string[]): ChildProcess & { said: { out: string; err: string } } {
  const child = spawn(process.execPath, [...command, ...args], { cwd: directory });
  const said = { out: "", err: "" };
  child.stdout.on("data", (chunk) => {
    said.out += chunk;
  });
  child.stderr.on("data", (chunk) => {
    said.err += chunk;
  });
  return Object.assign(child, { said });
}

/** Resolves when the child's stderr says so. */
async function says(child: ReturnType<typeof start>, text: string): Promise<void> {
  while (!child.said.err.includes(text)) await once(child.stderr!, "data");
}

test("a run is started, asked about, answered in another process, shown, and proven", () => {
  const run = ar("run", approval, "--vars", '{"topic":"Durability"}');
  expect(run.stdout).toMatch(/^Run (\S+) of workflow "approval" waits at node "ask"\.\n/);
  expect(run.stdout).toContain('Waits for  a person\'s answer to: Publish "Durability"?\n  Choices    yes, no\n');
  expect(run.status).toBe(0);
  const runId = /^Run (\S+)/.exec(run.stdout)![1]!;
  const short = runId.slice(0, 8);
  if (process.platform !== "win32") expect(statSync(join(directory, ".abstractruntime")).mode & 0o777).toBe(0o700);

  const why = ar("why", short);
  expect(why.stdout).toContain("Woken by   an answer");
  expect(why.stdout).toContain(`Next: abstractruntime respond ${runId} ANSWER\n`);

  const wrong = ar("respond", short, "perhaps");
  expect(wrong.stderr).toMatch(/^ANSWER_INVALID: .+"perhaps" is not one of: yes, no\.\nThe run still waits; answer again\.\n$/);
  expect(wrong.status).toBe(1);

  const right = ar("respond", short, "yes", "--file", approval);
  expect(right.stdout).toBe(`Run ${runId} completed.\n{\n  "published": true,\n  "topic": "Durability"\n}\n`);
  expect(right.status).toBe(0);

  expect(JSON.parse(ar("show", short, "--json").stdout)).toMatchObject({
    runId,
    status: "completed",
    output: { published: true },
  });

  // The exact texts: anybody can check the chain with nothing but SHA-256.
  const lines = ar("ledger", short, "--json").stdout.trimEnd().split("\n");
  let prev: string | null = null;
  for (const { header, body, hash } of lines.map((line) => JSON.parse(line))) {
    expect(createHash("sha256").update(header).digest("hex")).toBe(hash);
    const head = JSON.parse(header);
    expect(head.prev).toBe(prev);
    expect(createHash("sha256").update(body).digest("hex")).toBe(head.body);
    prev = hash;
  }
  const verified = ar("verify", short);
  expect(verified.stdout).toContain(`Run ${runId} verifies: ${lines.length} records`);
  expect(verified.stdout).toContain(prev);
  expect(ar("verify", "--json").stdout).toBe(`{"ok":true,"runs":1,"records":${lines.length},"failed":[]}\n`);

  expect(ar("graph", approval, "--run", short).stdout).toBe(
    'flowchart TD\n  n0(["ask"])\n  n1["decide"]\n  n2["publish"]\n  n0 --> n1\n  n1 -.-> n2\n',
  );
});

test("an answer without the code is stored, and the run goes on where the code is", () => {
  ar("run", approval, "--id", "by-mail", "--vars", '{"topic":"Mail"}');
  const answered = ar("respond", "by-mail", "no");
  expect(answered.stdout).toMatch(/^The answer is stored\. .+\nTo go on here: abstractruntime run FILE --id by-mail\n$/);
  expect(ar("why", "by-mail").stdout).toContain("an answer that is in its mailbox");
  const again = ar("respond", "by-mail", "yes", "--json");
  expect(JSON.parse(again.stdout).error.code).toBe("ALREADY_ANSWERED");
  expect(again.status).toBe(1);
  const driven = ar("run", approval, "--id", "by-mail", "--json");
  expect(JSON.parse(driven.stdout)).toMatchObject({ status: "completed", output: { published: false } });
});

test("Ctrl-C lets the effect finish and hands the run back; the command it names goes on with it", async () => {
  const child = start("run", several, "--workflow", "held", "--id", "interrupted");
  await says(child, "info: working");
  child.kill("SIGINT");
  await says(child, "Stopping");
  writeFileSync(join(directory, "gate"), "");
  const [status] = await once(child, "close");
  expect(child.said.err).toContain(`It goes on with:\n  abstractruntime run ${several} --id interrupted\n`);
  expect(status).toBe(130);
  const resumed = ar("run", several, "--id", "interrupted");
  expect(resumed.stdout).toMatch(/^Run interrupted completed\.\n/);
  expect(resumed.stderr).toBe("");
});

test("a second Ctrl-C leaves at once, and nothing is lost by it", async () => {
  const child = start("run", several, "--workflow", "stuck", "--id", "impatient");
  await says(child, "working");
  child.kill("SIGINT");
  await says(child, "Stopping");
  child.kill("SIGINT");
  const [status, signal] = await once(child, "close");
  expect([status, signal]).toEqual([null, "SIGINT"]);
  expect(ar("why", "impatient").stdout).toMatch(
    /is running, at node "work"[\s\S]+Next: .*abstractruntime run FILE --id impatient/,
  );
  expect(ar("verify", "impatient").status).toBe(0);
});

test("a reader that goes away ends the command quietly", async () => {
  ar("run", approval, "--id", "large", "--vars", JSON.stringify({ topic: "long ".repeat(20_000) }));
  const child = start("ledger", "large", "--json");
  child.stdout!.destroy();
  const [status, signal] = await once(child, "close");
  expect({ status, signal, err: child.said.err }).toEqual({ status: 0, signal: null, err: "" });
});

test("a file whose top-level await never settles is refused instead of ending without a word", () => {
  writeFileSync(join(directory, "never.ts"), "await new Promise(() => {});");
  const { status, stderr } = ar("run", "never.ts");
  expect(stderr).toMatch(/^FILE_INVALID: never\.ts .+never settles\.\nTake that await out/);
  expect(status).toBe(2);
});

test("--version and --help are on stdout", () => {
  expect(ar("--version").stdout).toBe(`${JSON.parse(readFileSync("package.json", "utf8")).version}\n`);
  expect(ar("--help").stdout).toMatch(/Exit codes: 0 done, 1 what was asked for failed, 2 wrong use, 130 interrupted\./);
});
