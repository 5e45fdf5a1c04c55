// What each command says of runs in every state.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CommandLine, fixture, key } from "./command-line.ts";

const approval = fixture("approval.ts");
const several = fixture("several.ts");
const line = new CommandLine();
afterAll(() => line.remove());

beforeAll(async () => {
  for (const id of ["sleeping", "retrying", "doubting", "parent", "many", "paying", "failing"]) {
    await line.ar("run", several, "--workflow", id, "--id", id);
  }
});

test.each<[id: string, said: RegExp]>([
  [
    "sleeping",
    /waits at node "later"[\s\S]+a moment: [\d-]+ [\d:.]+Z\n[\s\S]+itself, at .+\(in 59 min\)[\s\S]+Next: abstractruntime run FILE --id sleeping --wait/,
  ],
  ["retrying", /waits at node "try" to try an effect again[\s\S]+attempt 1: no route\n[\s\S]+itself, at .+\(in \d+ min\)/],
  ["doubting", /may or may not have happened[\s\S]+Next: abstractruntime respond doubting '\{"retry":true\}'/],
  ["parent", /run (\S+) of workflow "child" \(waiting\)[\s\S]+Next: abstractruntime respond \1 ANSWER/],
  [
    "many",
    /answer to: One\?[\s\S]+Choices {4}x, y, or other text[\s\S]+without it, the wait ends at [\s\S]+the event "payment"[\s\S]+respond many ANSWER --key user:many:a:1\.0[^\n]*\n +abstractruntime respond many ANSWER --key user:many:a:1\.1[^\n]*\n +abstractruntime respond many PAYLOAD --key payment/,
  ],
  ["paying", /the event "payment"[\s\S]+Next: abstractruntime respond paying PAYLOAD --key payment/],
  ["failing", /failed at node "a"[\s\S]+there is no money[\s\S]+Next: abstractruntime ledger failing/],
])("why %s", async (id, said) => {
  const { out, code } = await line.ar("why", id);
  expect(out).toMatch(said);
  // Whatever is suggested goes to the same store.
  expect(out).toContain(`--store sqlite:${line.storePath}`);
  expect(code).toBe(0);
});

test("why --json is for programs", async () => {
  const { json } = await line.ar("why", "many", "--json");
  expect(json).toMatchObject({
    runId: "many",
    status: "waiting",
    summary: expect.any(String),
    since: expect.any(Number),
    next: expect.any(Array),
  });
  expect(json.waits).toHaveLength(3);
});

test("why of a run that was left running names no holder and the command to go on with", async () => {
  // A runtime that only starts: nobody drives.
  const { createRuntime } = await import("abstractruntime");
  const { sqliteStore } = await import("abstractruntime/sqlite");
  const { working } = await import("./fixtures/several.ts");
  const runtime = await createRuntime({ workflows: [working], store: await sqliteStore(line.storePath), scheduler: false });
  await runtime.start(working, { runId: "left", vars: { ms: 1 } });
  await runtime.stop();
  expect((await line.ar("why", "left")).out).toMatch(/is running, at node "work"[\s\S]+none: it is due[\s\S]+run FILE --id left/);
  expect((await line.ar("run", several, "--id", "left")).out).toMatch(/^Run left completed/);
  expect((await line.ar("run", several, "--id", "left")).out).toMatch(/^Run left completed/);
});

test("a run that failed is told on stderr with exit code 1, and as a run with --json", async () => {
  const plain = await line.ar("run", several, "--id", "failing");
  expect(plain).toMatchObject({ code: 1, out: "" });
  expect(plain.err).toMatch(
    /^RUN_FAILED: run failing failed: there is no money\.\nSee `abstractruntime ledger failing --store .+`\.\n$/,
  );
  const data = await line.ar("run", several, "--id", "failing", "--json");
  expect(data.json).toMatchObject({ status: "failed", error: { message: "there is no money" } });
  expect(data.code).toBe(1);
});

test("an event is answered with JSON of any kind", async () => {
  const { out } = await line.ar("respond", "paying", "--json-answer", "[1,null]", "--file", several, "--json");
  expect(JSON.parse(out)).toMatchObject({ status: "completed", output: { payment: [1, null] } });
});

test("the answer to a child's question drives the parent on", async () => {
  const { json } = await line.ar("show", "parent", "--json");
  const childId = json.waits[0].details.subRunId;
  await line.ar("respond", childId, "fine");
  const { out } = await line.ar("run", several, "--id", "parent");
  expect(JSON.parse(out.slice(out.indexOf("{")))).toMatchObject({ child: { output: { answer: { text: "fine" } } } });
});

test("what an attempt did is supplied, and is the result", async () => {
  const { json } = await line.ar("respond", "doubting", '{"result":7}', "--file", several, "--json");
  expect(json).toMatchObject({ status: "completed", output: { result: 7 } });
});

test("ls filters, pages and says when there is more", async () => {
  const waiting = await line.ar("ls", "--status", "waiting", "--json");
  expect(waiting.json.runs.every(({ status }: { status: string }) => status === "waiting")).toBe(true);
  const one = await line.ar("ls", "--limit", "1");
  expect(one.out.split("\n")).toHaveLength(3);
  expect(one.err).toMatch(/There are more: abstractruntime ls --limit 1 --cursor \S+ --store/);
  expect((await line.ar("ls", "--workflow", "many")).out).toMatch(/^RUN .+\nmany +many +waiting +a +user, user, event payment/);
  expect((await line.ar("ls", "--workflow", "none")).err).toMatch(/No runs like that/);
});

test("tables fit the screen, cutting what nobody copies", async () => {
  const id = "a-rather-long-run-id-that-is-copied";
  await line.ar("run", approval, "--id", id, "--vars", JSON.stringify({ topic: "long ".repeat(50) }));
  const { out } = await line.with({ columns: 80 }, "ledger", id);
  for (const row of out.split("\n")) expect(row.length).toBeLessThanOrEqual(80);
  expect(out).toContain("…");
  const wide = await line.with({ columns: 400 }, "ls");
  expect(wide.out).not.toContain("…");
  expect((await line.with({ columns: 70 }, "ls")).out).toContain(id);
});

test("colours are for screens only", async () => {
  expect((await line.with({ colours: true }, "ls")).out).toContain("\u001b[1mRUN");
  expect((await line.ar("ls")).out).not.toContain("\u001b");
});

test("an interrupted run is handed back, and says as data how to go on", async () => {
  const { promise: working, resolve } = Promise.withResolvers<void>();
  let interrupt = (): void => {};
  const onInterrupt = (listener: () => void) => {
    interrupt = listener;
    return () => {};
  };
  const options = ["--workflow", "working", "--id", "stopped", "--vars", '{"ms":100}', "--wait", "--json"];
  const interrupted = line.with({ onInterrupt, heard: () => resolve() }, "run", several, ...options);
  await working;
  interrupt();
  const { code, json } = await interrupted;
  expect(json).toEqual({
    interrupted: true,
    runId: "stopped",
    next: expect.stringMatching(/^abstractruntime run .+several\.ts --id stopped --store /),
  });
  expect(code).toBe(130);
});

const commands = readdirSync("src/cli/commands")
  .filter((name) => readFileSync(`src/cli/commands/${name}`, "utf8").includes(": AddCommand"))
  .map((name) => name.replace(".ts", ""));

test("docs/cli.md names every command and every option", async () => {
  expect(commands.length).toBeGreaterThan(15);
  const text = readFileSync("docs/cli.md", "utf8");
  const listed = [...text.matchAll(/^\| `([\w-]+)/gm)].map(([, name]) => name);
  // One that takes a file or a directory has a row for each.
  expect([...new Set(listed)].sort()).toEqual(commands.sort());
  const help = (await line.ar("--help")).out;
  for (const name of commands) {
    expect(help).toMatch(new RegExp(`^  ${name} `, "m"));
    const own = (await line.ar(name, "--help")).out.split("Global Options:")[0] ?? "";
    for (const [, option = ""] of own.matchAll(/^ {2}(--[a-z-]+)/gm))
      expect({ name, option, told: text.includes(option) }).toEqual({ name, option, told: true });
  }
});

test.each(commands)("%s --help has an example", async (name) => {
  const { out, code } = await line.ar(name, "--help");
  expect(out).toMatch(
    new RegExp(
      `^Usage: abstractruntime ${name}[\\s\\S]+--store[\\s\\S]+--json[\\s\\S]+Examples:\\n  \\$ abstractruntime ${name}`,
    ),
  );
  expect(code).toBe(0);
});

test("looking leaves the store as it is, byte for byte", async () => {
  const before = readFileSync(line.storePath);
  const looks = [
    ["ls"],
    ["ls", "--blocked"],
    ["show", "many"],
    ["why", "many"],
    ["why", "many", "--file", several],
    ["tree", "parent"],
    ["health"],
    ["check", several],
    ["schedules"],
    ["ledger", "many"],
    ["verify"],
    ["graph", approval],
  ];
  for (const look of looks) expect((await line.ar(...look)).code).toBe(0);
  expect(readFileSync(line.storePath).equals(before)).toBe(true);
  expect(existsSync(`${line.storePath}-wal`)).toBe(false);
});

// ---- Asking in a terminal ------------------------------------------------------------------------------------------

test("a choice is made with the arrow keys", async () => {
  await line.ar("run", approval, "--id", "asked", "--vars", '{"topic":"Keys"}');
  const { out, code } = await line.with({ keys: [key.down + key.enter] }, "respond", "asked", "--file", approval);
  expect(out).toContain('Publish "Keys"?');
  expect(out).toContain('"published": false');
  expect(code).toBe(0);
});

test("leaving a question leaves the run waiting", async () => {
  await line.ar("run", approval, "--id", "left-alone", "--vars", '{"topic":"Keys"}');
  for (const more of [[], ["--file", approval]]) {
    const { err, code } = await line.with({ keys: [key.ctrlC] }, "respond", "left-alone", ...more);
    expect(err).toMatch(/No answer was given; the run waits on/);
    expect(code).toBe(130);
  }
  expect((await line.ar("show", "left-alone", "--json")).json.status).toBe("waiting");
});

test("several questions: which one, then its answer; other text where that is allowed", async () => {
  const keys = [key.down + key.enter, key.down + key.down + key.enter, `maybe${key.enter}`];
  const { out, code } = await line.with({ keys }, "respond", "many");
  expect(out).toContain("Several questions are open");
  expect(code).toBe(0);
  const { out: lines } = await line.ar("why", "many");
  expect(lines).toContain("in its mailbox");
});

test("run --interactive asks at once, and goes on", async () => {
  const { out, code } = await line.with({ keys: [key.enter] }, "run", approval, "--vars", '{"topic":"Now"}', "--interactive");
  expect(out).toContain('Publish "Now"?');
  expect(out).toContain('"published": true');
  expect(code).toBe(0);
});
