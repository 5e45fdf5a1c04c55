// Every example is a whole program: it is run as one, in an empty directory, and what it prints is looked at.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

const examples = resolve("examples");
const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/;
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "examples-test-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function start(example: string, ...words: string[]) {
  return spawnSync(process.execPath, [...process.execArgv, join(examples, example), ...words], {
    cwd: directory,
    encoding: "utf8",
    // What examples leave behind in the system's temporary directory is seen in ours.
    env: { ...process.env, TMPDIR: directory, TEMP: directory, TMP: directory, NO_COLOR: "1", FORCE_COLOR: undefined },
    timeout: 60_000,
  });
}

/** Runs an example that ends well, and gives its lines. */
function run(example: string, ...words: string[]): string[] {
  const { status, signal, stdout, stderr } = start(example, ...words);
  expect({ stderr, status, signal }).toEqual({ stderr: "", status: 0, signal: null });
  return stdout.trimEnd().split("\n");
}

const outputOf = (lines: string[]) =>
  lines.filter((line) => line.startsWith("output:")).map((line) => line.slice("output: ".length));

test("each example has fewer than 60 lines, begins with a comment, and has a test here", () => {
  const tested = readFileSync(import.meta.filename, "utf8");
  const files = readdirSync(examples);
  expect(files).toContain("start.ts");
  for (const file of files) {
    const text = readFileSync(join(examples, file), "utf8");
    expect({ file, short: text.trimEnd().split("\n").length < 60 }).toEqual({ file, short: true });
    expect({ file, comment: text.startsWith("// ") }).toEqual({ file, comment: true });
    expect({ file, tested: tested.includes(`"${file}"`) }).toEqual({ file, tested: true });
  }
});

test("hello runs through two nodes", () => {
  const lines = run("hello.ts");
  expect(lines).toEqual([
    "completed { greeting: 'Hello, world!' }",
    "0 run_started greet",
    "1 step greet",
    "2 run_completed done",
  ]);
  expect(readdirSync(directory)).toEqual([]);
});

test("publish is a workflow alone: importing it does nothing, and its graph is known", async () => {
  expect(run("publish.ts")).toEqual([""]);
  const { publish } = await import("../examples/publish.ts");
  expect(publish.edges()).toEqual([
    { from: "ask", to: "decide" },
    { from: "decide", to: "publish" },
  ]);
});

describe("approval", () => {
  test("one process asks and exits, another one answers", () => {
    const asked = run("approval.ts", "ask").join("\n");
    const runId = uuid.exec(asked)?.[0] ?? "";
    expect(asked).toBe(`run ${runId} is waiting: Publish "Durability"?`);
    expect(existsSync(join(directory, ".abstractruntime/runs.db"))).toBe(true);

    const answered = run("approval.ts", "answer", runId, "no");
    expect(outputOf(answered)).toEqual(["{ published: false, topic: 'Durability' }"]);
  });

  test("an answer outside the choices is refused, and the run still takes a right one", () => {
    const runId = uuid.exec(run("approval.ts", "ask").join("\n"))?.[0] ?? "";
    expect(start("approval.ts", "answer", runId, "maybe").stderr).toMatch(/ANSWER_INVALID: .+"maybe" is not one of: yes, no/);
    expect(outputOf(run("approval.ts", "answer", runId, "yes"))).toEqual(["{ published: true, topic: 'Durability' }"]);
  });

  test("without arguments it does both and leaves nothing behind", () => {
    const lines = run("approval.ts");
    expect(lines.filter((line) => line.startsWith("$"))).toHaveLength(2);
    expect(outputOf(lines)).toEqual(["{ published: true, topic: 'Durability' }"]);
    expect(readdirSync(directory)).toEqual([]);
  });
});

test("timer keeps its moment over a restart", () => {
  const [waiting = "", output, woken] = run("timer.ts");
  const moment = /^waiting until (\S+)$/.exec(waiting)?.[1];
  expect(output).toBe(`output: { remember: 'water the plants', at: '${moment}' }`);
  expect(woken).toMatch(/^woken \d+ ms after that moment$/);
  expect(readdirSync(directory)).toEqual([]);
});

test("order retries what may succeed, gives up what cannot, and branches", () => {
  const lines = run("order.ts");
  expect(lines.filter((line) => !line.startsWith(" "))).toEqual([
    "completed { shipped: true, paid: 2500 }",
    "completed { shipped: false, why: 'the card has expired' }",
    "completed { shipped: false, why: 'nothing to pay' }",
  ]);
  const attempts = lines.filter((line) => line.includes("effect_")).map((line) => line.trim());
  expect(attempts).toEqual([
    "effect_started pay attempt 1",
    "effect_failed pay attempt 1",
    "effect_started pay attempt 2",
    "effect_failed pay attempt 2",
    "effect_started pay attempt 3",
    "effect_completed pay attempt 3",
    "effect_started pay attempt 1",
    "effect_failed pay attempt 1",
  ]);
});

test("crash-recovery dies in a payment, goes on, and has paid once", () => {
  expect(run("crash-recovery.ts")).toEqual([
    "-- first start",
    "pay: attempt 1",
    "-- killed by SIGKILL",
    "-- second start",
    "pay: attempt 2, an earlier one may have happened",
    "pay: the bank has this payment already",
    "output: { thanks: true, paid: 4200 }",
    "ledger verifies: true",
    "-- ended by itself",
    "payments at the bank: 1",
  ]);
  expect(readdirSync(directory)).toEqual([]);
});

describe("uncertain", () => {
  test("asks after a crash and takes either answer", () => {
    const lines = run("uncertain.ts");
    expect(lines.filter((line) => line.startsWith("(killed by SIGKILL)"))).toHaveLength(2);
    expect(lines.filter((line) => line.startsWith('waiting: Effect "post" may or may not have happened'))).toHaveLength(2);
    expect(lines.filter((line) => line.startsWith("posting"))).toEqual([
      "posting, attempt 1",
      "posting, attempt 1",
      "posting, attempt 2",
    ]);
    expect(outputOf(lines)).toEqual(["{ to: 'Ada', outcome: 'posted' }", "{ to: 'Ada', outcome: 'posted again' }"]);
    expect(readdirSync(directory)).toEqual([]);
  });

  test("another answer is refused", () => {
    expect(start("uncertain.ts", "send", "letter").signal).toBe("SIGKILL");
    expect(run("uncertain.ts", "send", "letter")[0]).toMatch(/^waiting: /);
    expect(start("uncertain.ts", "answer", "letter", '"yes"').stderr).toMatch(/ANSWER_INVALID/);
    expect(outputOf(run("uncertain.ts", "answer", "letter", '{"result":"lost"}'))).toEqual(["{ to: 'Ada', outcome: 'lost' }"]);
  });
});

test("start, without a terminal, answers itself and shows a ledger that verifies", () => {
  const lines = run("start.ts");
  expect(lines).toContain("There is no terminal to ask in, so this program answers: yes");
  expect(lines).toContain("Output: { published: true, topic: 'Durability' }");
  const rows = lines.filter((line) => line.startsWith("│")).map((line) => line.split("│").map((cell) => cell.trim()));
  expect(rows.map(([, seq, , what, node]) => [seq, what, node])).toEqual([
    ["seq", "what", "node"],
    ["0", "run_started", "ask"],
    ["1", "parked", "ask"],
    ["2", "delivered", "ask"],
    ["3", "step", "decide"],
    ["4", "run_completed", "publish"],
  ]);
  expect(lines.join("\n")).toMatch(/Verified: 5 records/);
  expect(readdirSync(directory)).toEqual([]);
});
