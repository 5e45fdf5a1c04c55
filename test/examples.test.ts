// Every example is a whole program: it is run as one, in an empty directory, and what it prints is looked at.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { createInterface } from "node:readline";
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
    timeout: 150_000,
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

/** The agent is the one example that is longer: people copy it. */
const mostLines: Record<string, number> = { "agent.ts": 80 };

test("each example has fewer than 60 lines, begins with a comment, and has a test here", () => {
  const tested = readFileSync(import.meta.filename, "utf8");
  const files = readdirSync(examples).filter((file) => file.endsWith(".ts"));
  expect(files).toContain("start.ts");
  for (const file of files) {
    const text = readFileSync(join(examples, file), "utf8");
    expect({ file, short: text.trimEnd().split("\n").length < (mostLines[file] ?? 60) }).toEqual({ file, short: true });
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

test("nightly makes its schedule once, and runs without waiting for the night", () => {
  const lines = run("nightly.ts");
  expect(lines).toEqual([
    expect.stringMatching(/^nightly fires next at \d{4}-\d\d-\d\dT0[12]:30:00.000Z$/),
    "made twice, it is one: true",
    expect.stringMatching(/^output: \{ cleanedUpTo: '\d{4}-\d\d-\d\d' \}$/),
    "paused: nightly",
    "left: 0",
  ]);
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

test("approval-deadline goes on without an answer", () => {
  expect(run("approval-deadline.ts")).toEqual([
    "Manager: pay 4200 cents? until 86400000 ms later",
    "{ paid: true, by: 'manager' }",
    "{ paid: false, by: 'nobody', why: 'WAIT_TIMEOUT' }",
  ]);
});

test("saga undoes what it has done, the last first", () => {
  const lines = run("saga.ts");
  expect(lines.filter((line) => /^(book|cancel) /.test(line))).toEqual([
    "book flight",
    "book hotel",
    "book bicycle",
    "book flight",
    "book hotel",
    "cancel hotel-1 (hotel)",
    "cancel flight-1 (flight)",
  ]);
  expect(lines.find((line) => line.startsWith("failed:"))).toMatch(/no car is left/);
  expect(lines).toContain("not undone: 0");
  expect(lines.filter((line) => line.startsWith(" ")).map((line) => line.trim().split(" ")[0])).toEqual([
    "undoing",
    "effect_started",
    "effect_completed",
    "effect_started",
    "effect_completed",
    "run_failed",
  ]);
});

test("map runs a child for each item, and collects those that fail", () => {
  const lines = run("map.ts");
  expect(lines.slice(0, -1).join(" ")).toBe(
    "{   made: 996,   bytes: 373874,   failed: [ 'photo-0', 'photo-250', 'photo-500', 'photo-750' ] }",
  );
  expect(lines.at(-1)).toBe("1000 children, the first one failed and the second completed");
});

test("agent-cancel is stopped in the middle of a tool call, and has the last word", () => {
  expect(run("agent-cancel.ts")).toEqual([
    "searching page 3 for a very long time",
    "cancelled: changed my mind",
    "{ toolCalls: 2 }",
  ]);
});

test("queue keeps its limits", () => {
  expect(run("queue.ts")).toEqual([
    "sent: 9",
    "never more than three at a time: true and one of a tenant: true",
    "took at least 40 ms: true",
  ]);
});

test("signal comes early, counts once, and emit reaches those that wait", () => {
  expect(run("signal.ts")).toEqual([
    "early: { duplicate: false }",
    "again: { duplicate: true }",
    "another under that id: MESSAGE_ID_REUSED",
    "reached: 2",
    "{ to: 'Ada', cents: 900, leaves: '9:00' }",
    "{ to: 'Bob', cents: 500, leaves: '9:00' }",
    "Cleo: waiting at payment",
  ]);
});

test("transactions: an order is there exactly if its run is, and the last lamp is reserved once", () => {
  expect(run("transactions.ts")).toEqual([
    expect.stringMatching(/^(first|second) \{ got: 'lamp' \}$|^first \{ got: null, why: 'no lamp is left' \}$/),
    expect.stringMatching(/^second \{ got: ('lamp'|null, why: 'no lamp is left') \}$/),
    "regretted: 0 runs; 2 orders, 1 reservation",
  ]);
  expect(readdirSync(directory)).toEqual([]);
});

test("simulate finds the payment that is made twice, and the faults that it takes", () => {
  const [careful, careless, ...faults] = run("simulate.ts");
  expect(careful).toBe("careful: no problem in 200 seeds");
  expect(careless).toMatch(/^careless: run run-\d has paid \d times$/);
  expect(faults.length).toBeGreaterThan(0);
  expect(faults.length).toBeLessThan(4);
  for (const fault of faults) expect(fault).toMatch(/^ {2}because ./);
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

test("artifacts: the same bytes are kept once, for as long as a run refers to them", () => {
  expect(run("artifacts.ts")).toEqual(["counted: 50000 50000", "artifacts: 1 of 1488894 bytes", "kept by: [ 'two' ]"]);
  expect(readdirSync(directory)).toEqual([]);
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

test("time-travel replays yesterday's run, and forks it", () => {
  const lines = run("time-travel.ts");
  expect(lines).toEqual([
    "summary then: Rain, later sun.",
    "since then: add /advice",
    "as it was: 0 differences",
    "reworded: payload calls: 0",
    "another model: { advice: 'Stay at home.' }",
    "fork: { advice: 'Bring an umbrella.' }",
    "from record: 2",
  ]);
});

describe("agent", () => {
  const paid = ["Ada's Bakery: paid. Bolt Hosting: paid."];
  const payments = () =>
    readFileSync(join(directory, ".abstractruntime/payments.jsonl"), "utf8")
      .trimEnd()
      .split("\n")
      .map((line) => JSON.parse(line) as { to: string; eur: number });

  test("reads the invoices through an MCP server, converts, and pays what it may pay", () => {
    const lines = run("agent.ts", "--allow");
    expect(lines.filter((line) => line.startsWith("  -> ")).map((line) => line.split(" ")[3])).toEqual([
      "list_directory",
      "read_text_file",
      "read_text_file",
      "exchange",
      "pay",
      "pay",
    ]);
    expect(lines).toEqual(expect.arrayContaining(paid));
    expect(payments().map(({ to, eur }) => [to, eur])).toEqual([
      ["Ada's Bakery", 42],
      ["Bolt Hosting", 110.4],
    ]);
  });

  test("without a terminal it waits, is answered on the command line, and goes on", async () => {
    const respond = (...words: string[]) =>
      spawnSync(process.execPath, [...process.execArgv, resolve("src/cli/main.ts"), "respond", ...words], {
        cwd: directory,
        encoding: "utf8",
      });
    const first = spawn(process.execPath, [...process.execArgv, join(examples, "agent.ts")], { cwd: directory });
    const questions: string[] = [];
    for await (const line of createInterface(first.stdout)) {
      questions.push(...(/respond (\S+) allow --key (\S+)$/.exec(line)?.slice(1) ?? []));
      if (questions.length === 4) first.kill("SIGINT");
    }
    const [runId = "", ada = "", , bolt = ""] = questions;
    expect(respond(runId, "allow", "--key", ada)).toMatchObject({ stderr: "", status: 0 });
    const no = '{"decision":"deny","reason":"too dear"}';
    expect(respond(runId, "--json-answer", no, "--key", bolt)).toMatchObject({ stderr: "", status: 0 });
    // What was said before is shown again, from the ledger.
    expect(run("agent.ts")).toEqual(
      expect.arrayContaining(["Let me see which invoices there are.", "Ada's Bakery: paid. Bolt Hosting: not paid."]),
    );
    expect(payments()).toHaveLength(1);
  });
});

test("multi-agent has three agents that answer, and one report", () => {
  const lines = run("multi-agent.ts");
  expect(lines.join(" ").match(/agent: /g)).toHaveLength(3);
  expect(lines).toContain("calls: 11 of 30");
  expect(lines.join(" ")).toMatch(/output: .+Take the train at 8:00/);
  expect(readdirSync(directory)).toEqual([]);
});

test("thin-client has its answer from a model and a tool elsewhere", () => {
  const lines = run("thin-client.ts");
  expect(lines).toContain('  -> look_up {"topic":"weather"}');
  expect(lines).toContain("Saturday: sun in the morning, rain from three o'clock on.");
  expect(readdirSync(directory)).toEqual([]);
});
