// What is told says the fact and the next step, and a command that is printed can be pasted.
import { existsSync, mkdirSync, statSync, writeFileSync } from "node:fs";
import { resolve } from "node:path";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { moveRuns } from "../../src/index.ts";
import { withoutPassword } from "../../src/cli/open-store.ts";
import { postgresStore } from "../../src/stores/postgres/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { faultyStore } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl, sqlOn } from "../stores/postgres-server.ts";
import { CommandLine, fixture } from "./command-line.ts";

const approval = fixture("approval.ts");
const line = new CommandLine();
afterAll(() => line.remove());

const ask = (id: string) => line.ar("run", approval, "--vars", '{"topic":"x"}', "--id", id);

beforeAll(async () => {
  await ask("run-1");
});

test("why of a run that has moved to Postgres names its store as --store takes it", async () => {
  const schema = newSchema();
  onTestFinished(async () => void (await dropSchema(schema)));
  await ask("gone");
  const to = `${serverUrl()}?schema=${schema}`;
  expect((await line.ar("move", "gone", "--to", to)).code).toBe(0);
  const { host, pathname } = new URL(to);
  const address = `postgres://${host}${pathname}?schema=${schema}`;
  expect((await line.ar("why", "gone")).out).toContain(`abstractruntime why gone --store '${address}'`);
});

test("why of a run that has left for a file says to import it", async () => {
  await ask("packed");
  const file = line.path("packed.jsonl");
  expect((await line.ar("export", "packed", "--to", file, "--fence")).code).toBe(0);
  const { out } = await line.ar("why", "packed");
  expect(out).toContain(`import it where it is to go on: abstractruntime import ${file} --store STORE`);
});

test("the option that names no store is named", async () => {
  const to = ["--to", `sqlite:${line.path("b.db")}`];
  expect((await line.ar("move", "run-1", "--from", "x", ...to)).err).toMatch(/^INVALID_OPTION: --from "x"/);
  expect((await line.ar("move", "run-1", "--to", "x")).err).toMatch(/^INVALID_OPTION: --to "x"/);
});

test("a backup that cannot be written is no fault of the store", async () => {
  const { code, err } = await line.ar("backup", line.path("nowhere/copy.db"));
  expect(err).toMatch(/^INVALID_OPTION: \S+nowhere\/copy\.db cannot be written: ENOENT/);
  expect(code).toBe(2);
  await line.ar("backup", line.path("copy.db"));
  expect((await line.ar("backup", line.path("copy.db"))).err).toContain("exists, and is not replaced: name another file");
});

test("import of what is not there, or is nothing to import", async () => {
  const missing = await line.ar("import", line.path("nowhere"));
  expect(missing.err).toMatch(/^INVALID_OPTION: there is no file or directory \S+nowhere\.\nName a file .+ or a directory/);
  expect(missing.code).toBe(2);
  mkdirSync(line.path("other"));
  writeFileSync(line.path("other/readme.md"), "");
  const other = await line.ar("import", line.path("other"));
  expect(other.err).toMatch(/nothing of the Python package .+ in \S+other/);
  expect(other.code).toBe(1);
  expect(existsSync(line.path("nowhere"))).toBe(false);
});

test("a run that is there already is not imported, and no option of another command is named", async () => {
  const file = line.path("ended.jsonl");
  await ask("ended");
  await line.ar("respond", "ended", "yes", "--file", approval);
  await line.ar("export", "ended", "--to", file);
  const { err } = await line.ar("import", file);
  expect(err).toMatch(/^RUN_EXISTS: run ended exists with a ledger of its own/);
  expect(err).not.toContain("--vars");
});

test("a directory is no file, and a file no directory", async () => {
  mkdirSync(line.path("directory"));
  const directory = await line.ar("ls", "--store", `sqlite:${line.path("directory")}`);
  expect(directory.err).toMatch(/^STORE_UNAVAILABLE: .+ it is a directory/);
  writeFileSync(line.path("file"), "");
  for (const store of [`files:${line.path("file")}`, `files:${line.path("file/runs")}`, `sqlite:${line.path("file/runs.db")}`])
    expect((await line.ar("run", approval, "--vars", '{"topic":"x"}', "--store", store)).err).toMatch(
      /^STORE_UNAVAILABLE: .+file is not a directory/,
    );
});

test("a hint goes to the same store", async () => {
  // Nobody drives it, so it does not wait yet.
  await line.ar("fork", "run-1", "--restart", "--id", "forked");
  const { err } = await line.ar("respond", "forked", "no");
  expect(err).toMatch(/^NOT_WAITING/);
  expect(err).toContain(`abstractruntime why forked --store sqlite:${line.storePath}`);
});

test("a server that cannot be reached is no path", async () => {
  const url = new URL(serverUrl());
  url.port = "1";
  const { err, code } = await line.ar("ls", "--store", url.href);
  expect(err).toMatch(/^STORE_UNAVAILABLE: .+check host and port/);
  expect(err).not.toContain("path");
  expect(code).toBe(1);
});

test("move --all that is interrupted finishes the tree under way, and says that the same command goes on", async () => {
  const some = new CommandLine();
  onTestFinished(() => some.remove());
  for (const id of ["a", "b", "c"]) await some.ar("run", approval, "--vars", '{"topic":"x"}', "--id", id);
  const args = ["move", "--all", "--to", `sqlite:${some.path("to.db")}`];
  const onInterrupt = (listener: () => void) => {
    listener();
    return () => {};
  };
  // Before the first: nothing has moved.
  const none = await some.with({ onInterrupt }, ...args);
  expect([none.code, none.err]).toEqual([130, expect.stringContaining("the same command moves what is left")]);
  const moving = some.with(
    {
      onInterrupt: (listener) => {
        setImmediate(listener);
        return () => {};
      },
    },
    ...args,
  );
  expect((await moving).code).toBe(130);
  expect((await some.ar("health")).out).not.toContain("on the way");
  expect((await some.ar(...args)).code).toBe(0);
  expect((await some.ar("ls", "--json", "--store", `sqlite:${some.path("to.db")}`)).json.runs).toHaveLength(3);
});

test("a damaged ledger from Python is told as what it is", async () => {
  const state = resolve(import.meta.dirname, "../fixtures/python/g-damaged-files");
  expect((await line.ar("import", state)).code).toBe(1);
  const { out, code } = await line.ar("verify");
  expect(out).toContain("It came like that from the Python package");
  expect(out).not.toContain("Restore the store");
  expect(code).toBe(1);
});

test("what has left for another store is not meant when runs are described", async () => {
  const some = new CommandLine();
  onTestFinished(() => some.remove());
  for (const id of ["stays", "leaves"]) await some.ar("run", approval, "--vars", '{"topic":"x"}', "--id", id);
  expect((await some.ar("move", "leaves", "--to", `sqlite:${some.path("to.db")}`)).code).toBe(0);
  const { out, err, code } = await some.ar("cancel", "--workflow", "approval", "--yes");
  expect(out).toMatch(/^Run stays .*was cancelled/);
  expect({ told: (out + err).includes("leaves"), code }).toEqual({ told: false, code: 0 });
});

test("a backup is for the owner alone", async () => {
  await line.ar("backup", line.path("mine.db"));
  expect(statSync(line.path("mine.db")).mode & 0o777).toBe(0o600);
});

test("looking makes no store on a server either, and says that there is none", async () => {
  const schema = newSchema();
  for (const look of [
    ["ls"],
    ["why", "run-1"],
    ["health"],
    ["cancel", "run-1"],
    ["respond", "run-1", "yes", "--file", approval],
  ]) {
    const { err, code } = await line.ar(...look, "--store", `${serverUrl()}?schema=${schema}`);
    expect(err).toMatch(
      /^STORE_UNAVAILABLE: .+ there is no such schema with a store in it\.\nStart a first run with `abstractruntime run FILE/,
    );
    expect(err).not.toContain(new URL(serverUrl()).password);
    expect(code).toBe(1);
  }
  expect((await line.ar("graph", approval, "--store", `${serverUrl()}?schema=${schema}`)).code).toBe(0);
  expect(await sqlOn(`SELECT 1 FROM pg_namespace WHERE nspname = '${schema}'`)).toEqual([]);
});

test("what a move that was cut off has to say at a server names no password", async () => {
  const schema = newSchema();
  onTestFinished(async () => void (await dropSchema(schema)));
  await ask("cut");
  const [from, target] = [await sqliteStore(line.storePath), await postgresStore({ connectionString: serverUrl(), schema })];
  const faulty = faultyStore(target, [{ kind: "fail", on: "settle" }]);
  await expect(moveRuns(from, faulty, ["cut"])).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
  await from.close();
  await target.close();
  const to = `${serverUrl()}?schema=${schema}`;
  const { out } = await line.ar("why", "cut", "--store", to);
  expect(out).toMatch(/abstractruntime move cut --from sqlite:\S+ --to '?postgres:/);
  expect(out).not.toContain(`:${new URL(serverUrl()).password}@`);
});

test.each([
  ["postgres://me:hidden@h/d", "postgres://me@h/d"],
  ["postgres://me:hid@den@h/d", "postgres://me@h/d"],
  ["postgresql://me:hid/den@h:5432/d?schema=a@b", "postgresql://me@h:5432/d?schema=a@b"],
  ["postgres://h/d?password=hidden&schema=s", "postgres://h/d?schema=s"],
  ["postgres://me@h/d", "postgres://me@h/d"],
])("of %s is printed %s", async (given, printed) => {
  expect(withoutPassword(given)).toBe(printed);
  const { out, err } = await line.ar(
    "ls",
    "--json",
    "--store",
    given.replace("@h", "@127.0.0.1:1").replace("//h", "//127.0.0.1:1"),
  );
  expect(out + err).not.toMatch(/hid|den/);
});
