// What bad input gets: a code, a next step, the right exit code, and never a stack.
import { DatabaseSync } from "node:sqlite";
import { existsSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { CommandLine, fixture } from "./command-line.ts";

const approval = fixture("approval.ts");
const several = fixture("several.ts");
const line = new CommandLine();
const vars = '{"topic":"Durability"}';

beforeAll(async () => {
  await line.ar("run", approval, "--id", "waiting-1", "--vars", vars);
  await line.ar("run", approval, "--id", "waiting-2", "--vars", vars);
  await line.ar("run", approval, "--id", "ended-1", "--vars", vars);
  await line.ar("respond", "ended-1", "yes", "--file", approval);
  await line.ar("run", several, "--workflow", "failing", "--id", "failed-1");
  await line.ar("run", several, "--workflow", "many", "--id", "many-1");
  await line.ar("run", several, "--workflow", "parent", "--id", "parent-1");
  writeFileSync(line.path("text.db"), "This is a text, and not a database at all. ".repeat(30));
  writeFileSync(line.path("empty.ts"), "export const nothing = 1;");
  writeFileSync(line.path("syntax.ts"), "export const x: = 3;");
  writeFileSync(line.path("throws.mjs"), 'throw new Error("not today");');
  writeFileSync(line.path("missing.ts"), 'import "no-such-package-anywhere";');
  writeFileSync(line.path("data.json"), "{}");
});
afterAll(() => line.remove());

const at = (name: string): string => line.path(name);

test.each<[what: string, args: () => string[], exitCode: number, said: RegExp]>([
  ["no command", () => [], 2, /^Usage: abstractruntime/],
  [
    "an unknown command",
    () => ["lss"],
    2,
    /^INVALID_OPTION: unknown command 'lss'\.\nDid you mean ls\? See `abstractruntime --help`\.\n$/,
  ],
  [
    "an unknown option",
    () => ["ls", "--limti", "3"],
    2,
    /^INVALID_OPTION: unknown option '--limti'\.\nDid you mean --limit\? See `abstractruntime ls --help`\.\n$/,
  ],
  [
    "an option without its value",
    () => ["run", approval, "--vars"],
    2,
    /^INVALID_OPTION: option '--vars <json>' argument missing\.\nSee `abstractruntime run --help`/,
  ],
  [
    "a missing argument",
    () => ["show"],
    2,
    /^INVALID_OPTION: missing required argument 'run'\.\nSee `abstractruntime show --help`/,
  ],
  ["too many arguments", () => ["show", "a", "b"], 2, /^INVALID_OPTION: too many arguments for 'show'/],
  ["an unknown status", () => ["ls", "--status", "runing"], 2, /^INVALID_OPTION: --status "runing" .+\nDid you mean "running"\?/],
  ["a limit that is no number", () => ["ls", "--limit", "0x"], 2, /^INVALID_OPTION: --limit "0x" is not a whole number/],
  ["a limit of nothing", () => ["ls", "--limit", "0"], 2, /^INVALID_OPTION: --limit "0"/],

  [
    "an unknown kind of store",
    () => ["ls", "--store", "sqlit:x"],
    2,
    /^INVALID_OPTION: .*unknown kind of store, "sqlit" .*\nDid you mean "sqlite:x"\?/,
  ],
  ["a store of no kind", () => ["ls", "--store", "./x.db"], 2, /^INVALID_OPTION: .*\nDid you mean "sqlite:\.\/x\.db"\?/],
  ["a store without a path", () => ["ls", "--store", "sqlite:"], 2, /^INVALID_OPTION: .*names no file/],
  ["a store in memory", () => ["run", approval, "--store", "sqlite::memory:"], 2, /^INVALID_OPTION: .*names no file/],
  [
    "a store that is not there",
    () => ["ls", "--store", `sqlite:${at("none.db")}`],
    1,
    /^STORE_UNAVAILABLE: .*there is no such file\.\nStart a first run with `abstractruntime run FILE --store sqlite:/,
  ],
  ["a store that is no database", () => ["ls", "--store", `sqlite:${at("text.db")}`], 1, /^STORE_CORRUPT: /],
  ["a store that is a directory", () => ["ls", "--store", `sqlite:${line.directory}`], 1, /^STORE_UNAVAILABLE: /],

  [
    "vars that are not JSON",
    () => ["run", approval, "--vars", "{topic"],
    2,
    /^INVALID_OPTION: --vars is not JSON: .+\nWrite it as one word/,
  ],
  ["vars that are no object", () => ["run", approval, "--vars", "[1]"], 2, /^INVALID_OPTION: --vars is not a JSON object/],
  [
    "vars that do not fit",
    () => ["run", approval, "--vars", '{"topic":1}'],
    1,
    /^VARS_INVALID: .+topic.+\nCorrect the vars; no run was started\.\n$/,
  ],
  [
    "a file that is not there",
    () => ["run", fixture("aproval.ts")],
    2,
    /^FILE_INVALID: .+there is no such file\.\nDid you mean "approval\.ts"\?/,
  ],
  ["a directory for a file", () => ["graph", line.directory], 2, /^FILE_INVALID: .+it is not a file/],
  ["a file that is no module", () => ["run", at("data.json")], 2, /^FILE_INVALID: .+Node loads no "\.json" file/],
  [
    "a file without a workflow",
    () => ["run", at("empty.ts")],
    2,
    /^FILE_INVALID: .+it exports no workflow \(it exports: nothing\)/,
  ],
  ["a file with a wrong syntax", () => ["run", at("syntax.ts")], 2, /^FILE_INVALID: /],
  ["a file that throws", () => ["run", at("throws.mjs")], 2, /^FILE_INVALID: .+Error: not today.*\nMend the file/],
  ["a file that imports what is not installed", () => ["run", at("missing.ts")], 2, /^FILE_INVALID: .+no-such-package-anywhere/],
  [
    "a choice of workflows",
    () => ["run", several],
    2,
    /^INVALID_OPTION: .+exports several workflows: .*child.*\nChoose one with --workflow/,
  ],
  [
    "an unknown workflow",
    () => ["run", several, "--workflow", "parnet"],
    2,
    /^INVALID_OPTION: .+exports no workflow "parnet".+\nDid you mean "parent"\?/,
  ],
  [
    "an id that is too long",
    () => ["run", approval, "--vars", vars, "--id", "x".repeat(201)],
    2,
    /^INVALID_OPTION: runId must be text of 1 to 200/,
  ],
  [
    "a second start with other vars",
    () => ["run", approval, "--id", "waiting-1", "--vars", '{"topic":"x"}'],
    1,
    /^RUN_EXISTS: run waiting-1 exists with other vars\.\nChoose another --id/,
  ],
  [
    "a second start of another workflow",
    () => ["run", several, "--id", "waiting-1"],
    2,
    /^INVALID_OPTION: run waiting-1 is one of workflow "approval", and .+ exports/,
  ],
  [
    "--interactive without a terminal",
    () => ["run", approval, "--interactive"],
    2,
    /^INVALID_OPTION: --interactive needs a terminal/,
  ],

  [
    "an unknown run",
    () => ["show", "nothing-like-it"],
    1,
    /^RUN_NOT_FOUND: there is no run nothing-like-it in this store\.\nList runs with/,
  ],
  ["a mistyped run", () => ["why", "waitnig-1"], 1, /^RUN_NOT_FOUND: .+\nDid you mean "waiting-1"\?/],
  ["a mistyped beginning of a run", () => ["ledger", "endde"], 1, /^RUN_NOT_FOUND: .+\nDid you mean "ended-1"\?/],
  [
    "an ambiguous beginning",
    () => ["verify", "wait"],
    2,
    /^INVALID_OPTION: "wait" is the beginning of several run ids: waiting-2, waiting-1\.\nGive more of the id/,
  ],
  [
    "a beginning that is too short",
    () => ["show", "end"],
    2,
    /^INVALID_OPTION: "end" is too short.+\nGive at least 4 characters/,
  ],

  ["no answer and no terminal", () => ["respond", "waiting-1"], 2, /^INVALID_OPTION: there is no ANSWER, and no terminal/],
  ["two answers", () => ["respond", "waiting-1", "yes", "--json-answer", "{}"], 2, /^INVALID_OPTION: there are two answers/],
  [
    "an answer that is not JSON",
    () => ["respond", "waiting-1", "--json-answer", "{yes"],
    2,
    /^INVALID_OPTION: --json-answer is not JSON/,
  ],
  [
    "an answer that is no choice",
    () => ["respond", "waiting-1", "yess"],
    1,
    /^ANSWER_INVALID: .+"yess" is not one of: yes, no\.\nDid you mean "yes"\? The run still waits/,
  ],
  [
    "a wrong key",
    () => ["respond", "waiting-1", "yes", "--key", "user:x"],
    1,
    /^WAIT_KEY_MISMATCH: .+ it waits under: user:waiting-1:ask:1|^WAIT_KEY_MISMATCH: /,
  ],
  [
    "an ambiguous wait",
    () => ["respond", "many-1", "yes"],
    1,
    /^WAIT_AMBIGUOUS: .+\nName the one to answer with --key, for example --key user:many-1:a:1\.0\.\n$/,
  ],
  ["a run that ended", () => ["respond", "ended-1", "yes"], 1, /^ALREADY_ANSWERED: .+\nThe first answer stands\.\n$/],
  [
    "a run that waits for its child",
    () => ["respond", "parent-1", "yes"],
    1,
    /^NOT_WAITING: .+\nIt waits for something else\. Next: abstractruntime respond \S+ ANSWER/,
  ],
  [
    "an answer with the wrong code",
    () => ["respond", "waiting-1", "yes", "--file", several],
    2,
    /^INVALID_OPTION: .+does not export workflow "approval".+\n.*nothing was answered/,
  ],
  ["--lift for all", () => ["verify", "--lift"], 2, /^INVALID_OPTION: --lift is for one run/],
  [
    "a run of another workflow",
    () => ["graph", several, "--workflow", "child", "--run", "waiting-1"],
    2,
    /^INVALID_OPTION: run waiting-1 is one of workflow "approval"/,
  ],

  ["a run without a key", () => ["signal", "waiting-1"], 2, /^INVALID_OPTION: missing required argument 'key'/],
  ["a key of nothing", () => ["signal", "waiting-1", ""], 2, /^INVALID_OPTION: key must be well-formed text of 1 to 500/],
  ["a key that is too long", () => ["emit", "k".repeat(501)], 2, /^INVALID_OPTION: key must be well-formed text/],
  ["an id of nothing", () => ["signal", "waiting-1", "go", "--id", ""], 2, /^INVALID_OPTION: id must be well-formed text/],
  ["a payload that is not JSON", () => ["signal", "waiting-1", "go", "{amount: 5}"], 2, /^INVALID_OPTION: PAYLOAD is not JSON/],
  [
    "an emitted payload that is not JSON",
    () => ["emit", "go", "[5"],
    2,
    /^INVALID_OPTION: PAYLOAD is not JSON.+\nWrite it as one word/,
  ],
  ["an event for a run that ended", () => ["signal", "ended-1", "go"], 1, /^RUN_ENDED: run ended-1 has ended \(completed\)/],
  [
    "an event for a run that failed",
    () => ["signal", "failed-1", "go"],
    1,
    /^RUN_ENDED: .+\nNothing was changed; `abstractruntime why failed-1 --store \S+` says whether it can be tried again\.\n$/,
  ],
  ["an event for no run", () => ["signal", "no-such-run", "go"], 1, /^RUN_NOT_FOUND: /],
  ["an emit to no store", () => ["emit", "go", "--store", `sqlite:${at("none.db")}`], 1, /^STORE_UNAVAILABLE: /],
  ...["cancel", "pause", "unpause", "retry"].flatMap((name): [string, () => string[], number, RegExp][] => [
    [`${name}: nothing`, () => [name], 2, /^INVALID_OPTION: it is not said which runs are meant\.\nName them, `abstractruntime/],
    [`${name}: no run like that`, () => [name, "no-such-run"], 1, /^RUN_NOT_FOUND: /],
    [`${name}: an empty id`, () => [name, ""], 1, /^RUN_NOT_FOUND: /],
    [`${name}: a short beginning`, () => [name, "end"], 2, /^INVALID_OPTION: "end" is too short/],
    [
      `${name}: both`,
      () => [name, "waiting-1", "--workflow", "approval"],
      2,
      /^INVALID_OPTION: runs are both named and described/,
    ],
    [`${name}: an unknown status`, () => [name, "--status", "wating"], 2, /^INVALID_OPTION: --status "wating" is unknown/],
    [
      `${name}: a wrong status`,
      () => [name, "--status", "completed"],
      2,
      /^INVALID_OPTION: \w+ is not for runs that are completed/,
    ],
    [`${name}: an unknown option`, () => [name, "waiting-1", "--qeue", "x"], 2, /^INVALID_OPTION: unknown option '--qeue'/],
    [`${name}: no store`, () => [name, "--queue", "x", "--store", `sqlite:${at("none.db")}`], 1, /^STORE_UNAVAILABLE: /],
    [`${name}: a run that ended`, () => [name, "ended-1"], 1, /^(RUN_ENDED|NOT_FAILED): run ended-1 has/],
  ]),
  ["a reason that nobody reads", () => ["retry", "failed-1", "--reason", "x"], 2, /^INVALID_OPTION: unknown option '--reason'/],
  ["a retry of a run that waits", () => ["retry", "waiting-1"], 1, /^NOT_FAILED: run waiting-1 has not failed \(status /],

  ["a tree of nothing", () => ["tree"], 2, /^INVALID_OPTION: missing required argument 'run'/],
  ["a tree of no run", () => ["tree", "no-such-run"], 1, /^RUN_NOT_FOUND: /],
  ["a tree of no size", () => ["tree", "waiting-1", "--limit", "-1"], 2, /^INVALID_OPTION: --limit "-1" is not a whole number/],
  ["health of something", () => ["health", "waiting-1"], 2, /^INVALID_OPTION: too many arguments for 'health'/],
  ["health of no store", () => ["health", "--store", `sqlite:${at("none.db")}`], 1, /^STORE_UNAVAILABLE: /],
  ["a check of nothing", () => ["check"], 2, /^INVALID_OPTION: missing required argument 'files'/],
  [
    "a check of no file",
    () => ["check", fixture("severl.ts")],
    2,
    /^FILE_INVALID: .+there is no such file\.\nDid you mean "several\.ts"/,
  ],
  ["a check of one bad file", () => ["check", several, at("empty.ts")], 2, /^FILE_INVALID: .+it exports no workflow/],
  ["a check over no store", () => ["check", several, "--store", `sqlite:${at("none.db")}`], 1, /^STORE_UNAVAILABLE: /],
  ["why with no file", () => ["why", "waiting-1", "--file", at("none.ts")], 2, /^FILE_INVALID: /],

  [
    "an unknown action",
    () => ["schedules", "puase", "x"],
    2,
    /^INVALID_OPTION: "puase" is nothing to do.+\nDid you mean "pause"\?/,
  ],
  ["an action without its schedule", () => ["schedules", "pause"], 2, /^INVALID_OPTION: it is not said which schedule to pause/],
  ["a list of one", () => ["schedules", "list", "x"], 2, /^INVALID_OPTION: list takes no id/],
  [
    "no such schedule",
    () => ["schedules", "show", "x"],
    1,
    /^SCHEDULE_NOT_FOUND: .+\nList them with `abstractruntime schedules /,
  ],
  ["no such schedule to delete", () => ["schedules", "delete", "x"], 1, /^SCHEDULE_NOT_FOUND: /],
  [
    "a schedule of a wrong name",
    () => ["schedules", "unpause", "a~b"],
    1,
    /^SCHEDULE_NOT_FOUND|^SCHEDULE_INVALID|^INVALID_OPTION/,
  ],
  ["a trigger without code", () => ["schedules", "trigger", "x"], 2, /^INVALID_OPTION: a run is started with the code/],
  ["a trigger of no schedule", () => ["schedules", "trigger", "x", "--file", several], 1, /^SCHEDULE_NOT_FOUND: /],
  [
    "a file that is of no use",
    () => ["schedules", "pause", "x", "--file", several],
    2,
    /^INVALID_OPTION: --file and --key are for trigger/,
  ],
])("%s", async (_, args, exitCode, said) => {
  const plain = await line.ar(...args());
  expect(plain.err).toMatch(said);
  expect(plain.err).not.toMatch(/^ {4}at /m);
  expect(plain.out).toBe("");
  expect(plain.code).toBe(exitCode);
  if (args().length === 0) return;

  // The same as data: one JSON value on stdout, nothing else.
  const { code, json, err } = await line.ar(...args(), "--json");
  expect(json.error).toEqual({
    code: expect.stringMatching(/^[A-Z_]+$/),
    message: expect.any(String),
    hint: expect.stringMatching(/./),
    fields: expect.any(Object),
  });
  expect(err).toBe("");
  expect(code).toBe(exitCode);
});

test("what was refused changed nothing", async () => {
  expect((await line.ar("show", "waiting-1", "--json")).json).toMatchObject({ status: "waiting", vars: { topic: "Durability" } });
  expect((await line.ar("show", "failed-1", "--json")).json).toMatchObject({ status: "failed", retries: 0 });
  for (const runId of ["waiting-1", "ended-1", "failed-1"])
    expect((await line.ar("why", runId)).out).not.toMatch(/on its way|mailbox/i);
  expect((await line.ar("verify")).code).toBe(0);
  expect(existsSync(at("none.db"))).toBe(false);
});

test("--debug shows where a problem comes from", async () => {
  const { err, code } = await line.ar("run", at("throws.mjs"), "--debug");
  expect(err).toMatch(/^FILE_INVALID: /);
  expect(err).toMatch(/Caused by: Error: not today\n {4}at /);
  expect(code).toBe(2);
});

test("a damaged record is found, shown as far as it can be read, and never lifted", async () => {
  const damaged = new CommandLine();
  await damaged.ar("run", approval, "--id", "forged", "--vars", vars);
  await damaged.ar("run", approval, "--id", "sound", "--vars", vars);
  const database = new DatabaseSync(damaged.storePath);
  database.exec(`UPDATE records SET body = replace(body, 'Durability', 'Forgery') WHERE header LIKE '%"forged"%run_started%'`);
  database.close();

  const one = await damaged.ar("verify", "forged", "--lift");
  expect(one.out).toMatch(/Run forged does not verify:\n {2}record 0: its body does not match its header\n/);
  expect(one.err).toMatch(/Nothing was lifted/);
  expect(one.code).toBe(1);

  const all = await damaged.ar("verify", "--json");
  expect(all.json).toMatchObject({ ok: false, runs: 2, failed: [{ runId: "forged", ok: false }] });
  expect(all.code).toBe(1);
  expect((await damaged.ar("verify")).out).toMatch(/1 of 2 runs do not verify/);
  expect((await damaged.ar("ledger", "forged")).out).toMatch(/Forgery/);
  damaged.remove();
});

test("a ledger with bodies that are gone or broken shows what is left, and says so", async () => {
  const damaged = new CommandLine();
  await damaged.ar("run", approval, "--id", "holes", "--vars", vars);
  const database = new DatabaseSync(damaged.storePath);
  database.exec(
    "UPDATE records SET body = NULL WHERE header LIKE '%run_started%'; UPDATE records SET body = '{' WHERE header LIKE '%parked%'",
  );
  database.close();
  const table = await damaged.ar("ledger", "holes");
  expect(table.out).toMatch(/^0 .+ run_started .+\(its body was withheld\)\n1 .+ parked .+\(its body is not JSON\)\n$/m);
  const [first] = (await damaged.ar("ledger", "holes", "--json")).out.split("\n");
  expect(JSON.parse(first!)).toMatchObject({ body: null });
  damaged.remove();
});

test("a quarantine is told, and lifted when the run verifies", async () => {
  const quarantined = new CommandLine();
  const { ar } = { ar: quarantined.ar.bind(quarantined) };
  await ar("run", approval, "--id", "sound", "--vars", vars);
  await ar("respond", "sound", "yes");
  const store = await sqliteStore(quarantined.storePath);
  await store.renew("w", 60_000);
  const [claimed] = await store.claim({ workerId: "w", fingerprint: "f" }, { limit: 1 });
  await store.release("sound", claimed!.lease!, {
    blocked: { code: "RECORD_CORRUPT", problem: "a bad day", fingerprint: "f", quarantine: true },
  });
  await store.retire("w");
  await store.close();

  expect((await ar("why", "sound")).out).toMatch(/is quarantined[\s\S]+a bad day[\s\S]+Next: abstractruntime verify sound/);
  const driven = await ar("run", approval, "--id", "sound");
  expect(driven.err).toMatch(/RUN_QUARANTINED: .+\n.+verify RUN --lift/);
  expect(driven.code).toBe(1);
  expect((await ar("verify", "sound", "--lift")).out).toMatch(/Its quarantine is lifted/);
  expect((await ar("verify", "sound", "--lift")).out).toMatch(/It was not quarantined/);
  expect((await ar("run", approval, "--id", "sound", "--json")).json).toMatchObject({ status: "completed" });
  quarantined.remove();
});
