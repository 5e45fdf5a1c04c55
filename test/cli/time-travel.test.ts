// state, diff, fork, replay and snapshot.
import { afterAll, beforeAll, expect, test } from "vitest";
import { CommandLine, fixture } from "./command-line.ts";

const letter = fixture("letter.ts");
const changed = fixture("letter-changed.ts");
const line = new CommandLine();
afterAll(() => line.remove());

beforeAll(async () => {
  await line.ar("run", letter, "--vars", '{"topic":"rain"}', "--id", "letter");
});

test("state: a run after a record, at a time, and as it is", async () => {
  const first = await line.ar("state", "letter", "--at", "0");
  expect(first.code).toBe(0);
  expect(first.out).toMatch(/^Run letter after record 0\n[\s\S]+running\n[\s\S]+begin \(step 1\)[\s\S]+"topic": "rain"/);
  expect(first.out).not.toContain("begun");
  const { json } = await line.ar("state", "letter", "--json");
  expect(json).toMatchObject({ status: "waiting", node: "ask", vars: { begun: true } });
  const at = await line.ar("state", "letter", "--at", new Date(json.updatedAt).toISOString(), "--json");
  expect(at.json.seq).toBe(json.seq);
  expect((await line.ar("state", "letter")).out).toMatch(/Waits for +user: Send a letter about rain\?/);
  expect(await line.ar("state", "letter", "--at", "99")).toMatchObject({
    code: 1,
    err: expect.stringContaining("SEQ_NOT_FOUND"),
  });
  expect(await line.ar("state", "letter", "--at", "2001-01-01")).toMatchObject({
    code: 1,
    err: expect.stringContaining("BEFORE_START"),
  });
  expect(await line.ar("state", "letter", "--at", "noon")).toMatchObject({
    code: 2,
    err: expect.stringContaining("INVALID_OPTION"),
  });
});

test("diff: what changed between two points", async () => {
  const { out, code } = await line.ar("diff", "letter", "0", "4");
  expect(code).toBe(0);
  expect(out).toMatch(/^Run letter: from record 0 to record 4\n/);
  expect(out).toMatch(/Status +running -> waiting\n/);
  expect(out).toMatch(/Node +begin \(step 1\) -> ask \(step 3\)\n/);
  expect(out).toMatch(/Waits for +user: /);
  expect(out).toMatch(/Records +1 step, 1 effect_started, 1 effect_completed, 1 parked\n/);
  expect(out).toMatch(/add +\/begun +true\n/);
  expect((await line.ar("diff", "letter", "1", "1")).out).toContain("The vars are the same.");
  expect((await line.ar("diff", "letter", "0", "4", "--json")).json).toMatchObject({ to: { status: "waiting" } });
});

test("fork: another run goes on from there, here or in a worker", async () => {
  const refused = await line.ar("fork", "letter");
  expect(refused).toMatchObject({ code: 1, out: "" });
  expect(refused.err).toMatch(/^FORK_OPEN_EFFECTS: .+ask_user[\s\S]+Add --restart, /);
  const stored = await line.ar("fork", "letter", "--at", "1", "--id", "stored", "--tag", "a", "b");
  expect(stored.code).toBe(0);
  expect(stored.out).toMatch(
    /^Run stored is stored\. It goes on from record 1 of run letter\.\n.+abstractruntime run FILE --id stored/,
  );
  expect((await line.ar("show", "stored", "--json")).json).toMatchObject({
    tags: ["a", "b"],
    origin: { kind: "fork", runId: "letter", seq: 1 },
  });
  expect((await line.ar("show", "stored")).out).toMatch(/Tags +a, b\n +From +record 1 of run letter\n/);
  const again = await line.ar("fork", "letter", "--at", "1", "--id", "stored", "--tag", "a", "b", "--json");
  expect(again.json).toMatchObject({ runId: "stored", origin: { seq: 1 } });
  const driven = await line.ar(
    "fork",
    "letter",
    "--restart",
    "--vars",
    '{"topic":"x","text":"mine"}',
    "--file",
    letter,
    "--id",
    "driven",
  );
  expect(driven.out).toMatch(/^Run driven of workflow "letter" waits at node "ask"[\s\S]+Send mine\?/);
  expect((await line.ar("ledger", "driven")).out).toMatch(/run_restored/);
  expect((await line.ar("verify")).code).toBe(0);
  expect(await line.ar("fork", "letter", "--at", "one")).toMatchObject({ code: 2 });
  expect(await line.ar("fork", "letter", "--at", "1", "--vars", "[]")).toMatchObject({ code: 2 });
});

test("replay: exit code 0 without differences, 1 with them, and nothing is stored", async () => {
  const before = (await line.ar("ledger", "letter", "--json")).out;
  const same = await line.ar("replay", "letter", letter);
  expect(same).toMatchObject({ code: 0, err: "" });
  expect(same.out).toBe("Run letter was replayed as far as it has come: 3 nodes ran, and nothing is different.\n");
  const other = await line.ar("replay", "letter", changed);
  expect(other.code).toBe(1);
  expect(other.out).toMatch(
    /Differences: 1\.\npayload: step 2, node "draft", write\n +Recorded +\{"about":"rain"\}\n +Replayed +\{"about":"rain, at length"\}\n$/,
  );
  const live = await line.ar("replay", "letter", changed, "--live", "write", "--json");
  expect(live.json.differences.map(({ kind }: any) => kind)).toEqual(["payload", "result", "payload"]);
  expect(live.json.differences[1].replayed).toEqual({ result: "a letter about rain, at length" });
  expect(
    (await line.ar("replay", "letter", letter, "--from", "2", "--vars", '{"topic":"y"}', "--json")).json.run.vars.topic,
  ).toBe("y");
  expect(await line.ar("replay", "letter", letter, "--live", "writ")).toMatchObject({
    code: 2,
    err: expect.stringContaining('"write"'),
  });
  const wrong = await line.ar("replay", "letter", fixture("several.ts"));
  expect(wrong).toMatchObject({ code: 2, err: expect.stringContaining('does not export workflow "letter"') });
  expect((await line.ar("ledger", "letter", "--json")).out).toBe(before);
});

test("snapshot: made, listed, restored, removed", async () => {
  expect((await line.ar("snapshot")).err).toContain("No snapshots yet.");
  const made = await line.ar("snapshot", "create", "letter", "--name", "Drafted", "--tag", "Gold", "--at", "1", "--id", "mine");
  expect(made.out).toBe('Snapshot mine marks record 1 of run letter, at node "draft".\n');
  const { json } = await line.ar("snapshot", "create", "letter", "--name", "asked", "--description", "the End", "--json");
  expect(json).toMatchObject({ runId: "letter", seq: 4, node: "ask", description: "the End" });
  expect((await line.ar("snapshot")).out).toMatch(
    /^SNAPSHOT +RUN +RECORD[\s\S]+asked[\s\S]+mine +letter +1 +draft +running +Drafted +Gold/,
  );
  const found = async (...args: string[]) =>
    (await line.ar("snapshot", "list", ...args, "--json")).json.snapshots.map(({ name }: any) => name);
  expect(await found("--tag", "gold")).toEqual(["Drafted"]);
  expect(await found("--text", "END")).toEqual(["asked"]);
  expect(await found("--run", "letter", "--limit", "1")).toEqual(["asked"]);
  expect((await line.ar("snapshot", "list", "--limit", "1")).err).toMatch(/There are more: abstractruntime snapshot --limit 10/);
  const restored = await line.ar("snapshot", "restore", "mine", "--file", letter, "--id", "restored");
  expect(restored.out).toMatch(/^Run restored of workflow "letter" waits at node "ask"/);
  expect((await line.ar("show", "restored", "--json")).json.origin).toMatchObject({ snapshotId: "mine", seq: 1 });
  const other = await line.ar("snapshot", "restore", "mine", "--file", fixture("several.ts"));
  expect(other).toMatchObject({ code: 1, err: expect.stringContaining("WORKFLOW_INCOMPATIBLE") });
  expect((await line.ar("snapshot", "delete", "mine")).out).toBe("Snapshot mine is deleted. Its run stays as it is.\n");
  expect(await line.ar("snapshot", "delete", "mine")).toMatchObject({
    code: 1,
    err: expect.stringContaining("SNAPSHOT_NOT_FOUND"),
  });
});

test.each<[args: string[], said: RegExp]>([
  [["remove", "x"], /nothing to do with snapshots/],
  [["lst"], /Did you mean "list"/],
  [["create"], /Name it: `abstractruntime snapshot create ID`/],
  [["create", "letter"], /needs a name/],
  [["create", "letter", "--name", "a", "--file", letter], /takes no --file/],
  [["list", "letter"], /snapshot --run letter/],
  [["list", "--tag", "a", "b"], /one tag/],
  [["restore", "x"], /Name the file that exports it with --file/],
  [["delete", "x", "--restart"], /takes no --restart/],
])("snapshot %j is refused, saying how it is done", async (args, said) => {
  const { code, err } = await line.ar("snapshot", ...args);
  expect(code).toBe(2);
  expect(err).toMatch(said);
});
