// Moving, purging, archiving, exporting and backing up on the command line.
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { moveRuns } from "../../src/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { faultyStore } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl } from "../stores/postgres-server.ts";
import { CommandLine, fixture } from "./command-line.ts";

const approval = fixture("approval.ts");

function setUp(): { here: CommandLine; there: CommandLine; to: string; place: (name: string) => string } {
  const [here, there] = [new CommandLine(), new CommandLine()];
  onTestFinished(() => {
    here.remove();
    there.remove();
  });
  return { here, there, to: `sqlite:${there.storePath}`, place: (name) => join(here.directory, name) };
}

const asking = (line: CommandLine, id: string) => line.ar("run", approval, "--vars", '{"topic":"x"}', "--id", id);

async function ended(line: CommandLine, id: string): Promise<void> {
  await asking(line, id);
  expect((await line.ar("respond", id, "yes", "--file", approval)).code).toBe(0);
}

test("move: a waiting run goes to another store and is answered there; here it says where it is", async () => {
  const { here, there, to } = setUp();
  await asking(here, "run-1");
  const moved = await here.ar("move", "run-1", "--to", to);
  expect(moved.out).toMatch(/^Moved 1 run to sqlite:\S+, with \d records and 0 artifacts\. They verify there\.\n$/);
  expect(moved.code).toBe(0);
  expect((await here.ar("move", "run-1", "--to", to)).out).toContain("Nothing was left to move");
  const why = await here.ar("why", "run-1");
  expect(why.out).toContain(`has moved to ${to}`);
  expect(why.out).toContain(`abstractruntime why run-1 --store ${to}`);
  expect((await here.ar("ls")).out).toContain("moved to");
  expect((await here.ar("show", "run-1")).out).toContain("moved to");
  expect((await here.ar("tree", "run-1")).out).toContain("moved to");
  const refused = await here.ar("respond", "run-1", "yes");
  expect([refused.code, refused.err]).toEqual([1, expect.stringContaining("RUN_MOVED")]);
  const answered = await there.ar("respond", "run-1", "yes", "--file", approval);
  expect([answered.code, answered.out]).toEqual([0, expect.stringContaining("completed")]);
  expect((await there.ar("verify")).code).toBe(0);
  expect((await here.ar("verify")).code).toBe(0);
  const purged = await here.ar("purge", "--left", "--json");
  expect(purged.json).toMatchObject({ runs: 1, trees: 1 });
  const gone = await here.ar("show", "run-1");
  expect([gone.code, gone.err]).toEqual([1, expect.stringContaining(`RUN_PURGED: run run-1 was purged`)]);
  expect(gone.err).toContain(`moved to ${to}`);
});

test("move: all of a store, and what makes no sense", async () => {
  const { here, there, to } = setUp();
  await asking(here, "run-1");
  await ended(here, "run-2");
  for (const args of [
    [],
    ["run-1"],
    ["run-1", "--all", "--to", to],
    ["run-1", "--to", `sqlite:${here.storePath}`],
    ["run-1", "--to", "x"],
  ])
    expect((await here.ar("move", ...args)).code).toBe(2);
  expect((await here.ar("move", "nowhere", "--to", to)).err).toContain("RUN_NOT_FOUND");
  expect((await here.ar("move", "--all", "--to", to, "--purge", "--json")).json).toMatchObject({ runIds: ["run-1", "run-2"] });
  expect((await here.ar("ls", "--json")).json.runs).toEqual([]);
  expect((await there.ar("ls", "--json")).json.runs).toHaveLength(2);
});

test("move: one that was cut off is seen, completed by the same command, or taken back", async () => {
  const { here, there, to } = setUp();
  await asking(here, "run-1");
  const cut = async (): Promise<void> => {
    const [from, target] = [await sqliteStore(here.storePath), await sqliteStore(there.storePath)];
    // Under the names that the command gives them.
    const faulty = faultyStore(target, [{ kind: "fail", on: "adoptRecords" }]);
    await expect(moveRuns(from, faulty, ["run-1"])).rejects.toMatchObject({ code: "STORE_UNAVAILABLE" });
    await from.close();
    await target.close();
  };
  await cut();
  const why = await here.ar("why", "run-1");
  expect(why.out).toContain(`is on its way to ${to}`);
  expect(why.out).toContain("abstractruntime move run-1");
  expect((await here.ar("health")).out).toContain("1 run is on the way to");
  expect((await there.ar("why", "run-1")).err).toContain("is on its way here from");
  expect((await there.ar("verify")).code).toBe(0);
  const sent = await here.ar("respond", "run-1", "yes");
  expect([sent.code, sent.err]).toEqual([1, expect.stringContaining("RUN_MOVED")]);
  expect((await here.ar("move", "run-1", "--to", to, "--undo")).out).toContain("1 run taken back");
  expect((await here.ar("health")).code).toBe(0);
  await cut();
  expect((await here.ar("move", "run-1", "--to", to)).code).toBe(0);
  expect((await here.ar("move", "run-1", "--to", to, "--undo")).err).toContain("MOVE_REFUSED");
  expect((await there.ar("respond", "run-1", "yes", "--file", approval)).code).toBe(0);
});

test("purge: says what it would remove, asks, and removes", async () => {
  const { here } = setUp();
  await ended(here, "run-1");
  await asking(here, "run-2");
  expect((await here.ar("purge")).code).toBe(2);
  expect((await here.ar("purge", "--status", "running")).code).toBe(2);
  expect((await here.ar("purge", "--older-than", "soon")).code).toBe(2);
  expect((await here.ar("purge", "--older-than", "1d")).out).toBe("0 runs removed.\n");
  expect((await here.ar("purge", "--older-than", "0s", "--dry-run")).out).toBe("1 run would be removed.\n  run-1\n");
  const stays = await here.ar("purge", "run-2");
  expect([stays.code, stays.out]).toEqual([0, expect.stringContaining("1 tree that fits stays")]);
  expect((await here.with({ isTTY: true, keys: ["n"] }, "purge", "run-1")).code).toBe(130);
  expect((await here.ar("ls", "--json")).json.runs).toHaveLength(2);
  expect((await here.with({ isTTY: true, keys: ["y"] }, "purge", "run-1")).out).toContain("1 run removed.");
  expect((await here.ar("purge", "run-1")).err).toContain("RUN_PURGED");
  expect((await here.ar("ls", "--json")).json.runs).toHaveLength(1);
});

test("archive: to a file, and back by import", async () => {
  const { here, there, place } = setUp();
  await ended(here, "run-1");
  expect((await here.ar("archive", "run-1")).code).toBe(2);
  const file = place("old.jsonl");
  expect((await here.ar("archive", "run-1", "--to", file, "--dry-run")).out).toContain("would be removed");
  expect(existsSync(file)).toBe(false);
  expect((await here.ar("archive", "--status", "completed", "--to", file, "--yes")).out).toContain(
    `1 run removed, and kept in ${file}.`,
  );
  expect((await here.ar("show", "run-1")).err).toContain(`archived in ${file}`);
  for (const line of [here, there]) {
    expect((await line.ar("import", file)).out).toMatch(/^1 run imported, with \d records and 0 artifacts\. They verify\.\n$/);
    expect((await line.ar("verify", "run-1")).code).toBe(0);
  }
  expect((await here.ar("import", file)).err).toContain("RUN_EXISTS");
});

test("archive --before: the older part of a live ledger", async () => {
  const { here, place } = setUp();
  await asking(here, "run-1");
  await here.ar("pause", "run-1");
  await here.ar("unpause", "run-1");
  const file = place("ledger.jsonl");
  const { effects } = (await here.ar("why", "run-1", "--json")).json;
  expect((await here.ar("archive", "run-1", "--before", "x", "--to", file)).code).toBe(2);
  expect((await here.ar("archive", "--before", "1", "--to", file)).code).toBe(2);
  const archived = await here.ar("archive", "run-1", "--before", "2", "--to", file, "--json");
  expect(archived.json).toMatchObject({ runId: "run-1", first: 0, before: 2, taken: true });
  const ledger = await here.ar("ledger", "run-1");
  expect(ledger.out).toContain("records before 2 archived");
  expect(ledger.out).not.toContain("run_started");
  expect((await here.ar("show", "run-1")).out).toMatch(/Archived +records before 2/);
  expect((await here.ar("verify", "run-1")).out).toMatch(/Archived +records before 2/);
  for (const command of ["show", "why", "tree", "verify"]) expect((await here.ar(command, "run-1")).code).toBe(0);
  expect(effects).toMatchObject([{ type: "ask_user", phase: "parked" }]);
  expect((await here.ar("why", "run-1", "--json")).json.effects).toEqual(effects);
  expect((await here.ar("graph", approval, "--run", "run-1")).code).toBe(0);
  expect((await here.ar("respond", "run-1", "yes", "--file", approval)).out).toContain("completed");
  expect((await here.ar("verify", "run-1")).code).toBe(0);
});

test("export and import: a run leaves for a file; a copy of a live one is not imported; a torn file neither", async () => {
  const { here, there, place } = setUp();
  await asking(here, "run-1");
  const [copy, file] = [place("copy.jsonl"), place("run.jsonl")];
  expect((await here.ar("export", "run-1", "--to", copy)).out).toContain("1 run written to");
  const refused = await there.ar("import", copy);
  expect([refused.code, refused.err]).toEqual([1, expect.stringContaining("MOVE_REFUSED")]);
  expect((await here.ar("export", "run-1", "--to", file, "--fence")).out).toContain("They have left this store");
  expect((await here.ar("export", "run-1", "--fence")).code).toBe(2);
  writeFileSync(copy, "not a run");
  expect((await there.ar("import", copy)).err).toContain("PORTABLE_INVALID");
  expect((await there.ar("import", file, "--json")).json).toMatchObject({ runIds: ["run-1"] });
  expect((await there.ar("respond", "run-1", "yes", "--file", approval)).out).toContain("completed");
});

test("backup: a copy that opens, and nothing that is there is replaced", async () => {
  const { here, place } = setUp();
  await asking(here, "run-1");
  const made = await here.ar("backup", place("copy.db"));
  expect([made.code, made.out]).toEqual([0, expect.stringMatching(/^The store is copied to \S+ \(\S+ KiB\)\.\n$/)]);
  expect((await here.ar("backup", place("copy.db"))).code).toBe(2);
  expect((await here.ar("--store", `sqlite:${place("copy.db")}`, "verify")).out).toContain("1 run and");
  expect((await here.ar("--store", `sqlite:${place("nowhere.db")}`, "backup", place("x"))).code).toBe(1);
  expect((await here.ar("--store", "postgres://localhost/x", "backup", place("x"))).err).toContain("pg_dump");
});

test("move: from SQLite to a Postgres server, and what stands here leads there", async () => {
  const { here } = setUp();
  const schema = newSchema();
  onTestFinished(async () => void (await dropSchema(schema)));
  const to = `${serverUrl()}?schema=${schema}`;
  await asking(here, "run-1");
  expect((await here.ar("move", "run-1", "--to", to)).out).toMatch(/^Moved 1 run to postgres/);
  expect((await here.ar("move", "run-1", "--to", to)).out).toContain("Nothing was left to move");
  const answered = await here.ar("respond", "run-1", "yes", "--file", approval, "--store", to);
  expect([answered.code, answered.out]).toEqual([0, expect.stringContaining("completed")]);
  expect((await here.ar("verify", "--store", to)).code).toBe(0);
  // Back, and gone from there.
  expect((await here.ar("move", "--all", "--from", to, "--to", `sqlite:${here.storePath}`, "--purge")).code).toBe(0);
  expect((await here.ar("show", "run-1")).out).toContain("completed");
  expect((await here.ar("show", "run-1", "--store", to)).err).toContain("RUN_PURGED");
});
