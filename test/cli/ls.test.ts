// Lists and counts of runs, and what `ls` is asked by.
import { afterAll, beforeAll, expect, test } from "vitest";
import { askUser, complete, createRuntime, defineWorkflow, type Runtime, sleep, type } from "../../src/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { testClock } from "../../src/testing/index.ts";
import { CommandLine } from "./command-line.ts";

const line = new CommandLine();
afterAll(() => line.remove());

const hour = 3_600_000;
const now = Date.now();

/** Days of runs, all in one store: three orders that ask, one of them answered, and two that sleep. */
beforeAll(async () => {
  const order = defineWorkflow({
    id: "order",
    index: ["order.id", "note"],
    vars: type<{ order: { id: string | number }; note?: string; answer?: unknown }>(),
    entry: "ask",
    nodes: { ask: () => askUser({ prompt: "Ship?" }, { resultKey: "answer", nextNode: "end" }), end: () => complete({}) },
  });
  const sleeping = defineWorkflow({
    id: "sleeping",
    version: 2,
    entry: "sleep",
    nodes: { sleep: ({ vars }) => sleep(vars.ms, { nextNode: "end" }), end: () => complete({}) },
  });
  // A runtime for each day, since one that stays open would renew its lease all the time.
  const at = async (hoursAgo: number, act: (runtime: Runtime) => Promise<void>): Promise<void> => {
    const clock = testClock(now - hoursAgo * hour);
    const store = await sqliteStore(line.storePath, { clock });
    await using runtime = await createRuntime({ workflows: [order, sleeping], store, clock, scheduler: false });
    await act(runtime);
  };
  await at(72, async (runtime) => {
    await runtime.run(order, { runId: "o1", vars: { order: { id: 17 }, note: "a=b" }, tags: ["vip", "eu"], sessionId: "s" });
    await runtime.run(order, { runId: "o2", vars: { order: { id: "17" } }, tags: ["eu"], actorId: "ada" });
  });
  await at(48, async (runtime) => {
    await runtime.run(sleeping, { runId: "late", vars: { ms: 50 * hour } });
    await runtime.run(sleeping, { runId: "soon", vars: { ms: 49 * hour } });
  });
  await at(12, async (runtime) => {
    await runtime.run(order, { runId: "o3", vars: { order: { id: "abc" } } });
    await runtime.respond("o1", "yes");
    await runtime.tick("o1");
  });
});

async function ids(...args: string[]): Promise<string[]> {
  const { json, code, err } = await line.ar("ls", "--order", "oldest", "--json", ...args);
  expect({ code, err }).toEqual({ code: 0, err: "" });
  return json.runs.map(({ runId }: { runId: string }) => runId);
}

test.each([
  ["--workflow order", ["o1", "o2", "o3"]],
  ["--workflow-version 2", ["late", "soon"]],
  ["--tag eu", ["o1", "o2"]],
  ["--tag eu --tag vip", ["o1"]],
  ["--session s", ["o1"]],
  ["--actor ada", ["o2"]],
  ["--parent o1", []],
  ["--reason user", ["o2", "o3"]],
  ["--reason until --status waiting", ["late", "soon"]],
  ["--wait-key none", []],
  ["--var order.id=17", ["o1"]],
  ['--var order.id="17"', ["o2"]],
  ["--var order.id=abc", ["o3"]],
  ["--var note=a=b", ["o1"]],
  ["--var note=a=b --var order.id=17", ["o1"]],
  ["--var note=c --var order.id=17", []],
  ["--created-after 50h", ["late", "soon", "o3"]],
  ["--created-before 49h", ["o1", "o2"]],
  ["--created-after 50h --created-before 1d", ["late", "soon"]],
  [`--created-after ${new Date(now - 48 * hour).toISOString()}`, ["late", "soon", "o3"]],
  ["--created-after 2020-01-01", ["o1", "o2", "late", "soon", "o3"]],
  ["--created-before 2020-01-01", []],
  ["--updated-after 13h", ["o1", "o3"]],
  ["--updated-before 60h", ["o2"]],
  ["--due-before 90min", ["soon"]],
  ["--due-after 90m", ["late"]],
  ["--due-before 1w --order due", ["soon", "late"]],
  ["--order updated --workflow sleeping", ["soon", "late"]],
  ["--order waiting", ["o2", "late", "soon", "o3"]],
])("ls %s", async (args, found) => {
  expect(await ids(...args.split(" "))).toEqual(found);
});

test("a page says that there is more, and the command that it names gives the next", async () => {
  const first = await line.ar("ls", "--limit", "2", "--order", "oldest", "--created-after", "9w", "--tag", "eu", "--limit", "1");
  expect(first.out).toMatch(/^o1 .* vip, eu /m);
  const [, command = ""] = /There are more: abstractruntime (.*)/.exec(first.err) ?? [];
  expect(command).toMatch(/^ls --tag eu --created-after \d{4}-\S+Z --order oldest --limit 1 --cursor \S+ --store /);
  const second = await line.ar(...command.split(" "));
  expect(second.out).toMatch(/^o2 /m);
  expect(second.out).not.toMatch(/^o1 /m);
  expect(second.err).toBe("");
  const { json } = await line.ar("ls", "--limit", "3", "--json");
  expect(json).toMatchObject({ more: true, next: expect.any(String) });
  const rest = await line.ar("ls", "--cursor", json.next, "--json");
  expect(rest.json.more).toBe(false);
  expect([...json.runs, ...rest.json.runs].map(({ runId }) => runId)).toEqual(["o3", "soon", "late", "o2", "o1"]);
  expect((await line.ar("ls", "--all", "--limit", "1", "--json")).json.runs).toHaveLength(5);
});

test("counts", async () => {
  expect((await line.ar("ls", "--count")).out).toBe("5\n");
  expect((await line.ar("ls", "--tag", "eu", "--count", "--json")).json).toEqual({ count: 2 });
  expect((await line.ar("ls", "--count", "workflow")).out).toBe("WORKFLOW  RUNS\norder     3\nsleeping  2\n");
  expect((await line.ar("ls", "--count", "tag", "--json")).json).toEqual({
    by: "tag",
    counts: [
      { value: null, count: 3 },
      { value: "eu", count: 2 },
      { value: "vip", count: 1 },
    ],
  });
  expect((await line.ar("ls", "--count", "tag")).out).toContain("(none)  3");
  expect((await line.ar("ls", "--tag", "none", "--count", "status")).err).toMatch(/No runs like that/);
});

test("the last column is what the order is about", async () => {
  expect((await line.ar("ls", "--order", "due")).out).toMatch(/DUE \(UTC\)\nsoon/);
  expect((await line.ar("ls", "--order", "waiting")).out).toMatch(/WAITS SINCE \(UTC\)\no2/);
  expect((await line.ar("ls")).out).toMatch(/UPDATED \(UTC\)\no3/);
});

test("nothing found by a var says what vars runs are found by", async () => {
  expect((await line.ar("ls", "--var", "answer.text=yes")).err).toMatch(/No runs like that[\s\S]+names in `index`/);
});

test.each([
  [["--order", "newst"], /--order "newst" is unknown .*\nDid you mean "newest"\?/],
  [["--reason", "users"], /--reason "users" is unknown .*\nDid you mean "user"\?/],
  [["--count", "workflows"], /--count "workflows" is unknown .*\nDid you mean "workflow"\?/],
  [["--created-after", "yesterday"], /--created-after "yesterday" is no time\.\nWrite it like .*2h for two hours ago/],
  [["--due-before", "2026-02-31"], /--due-before "2026-02-31" is no time\.\n.*in two hours/],
  [["--updated-before", "2026-01-31T09:00"], /has no time zone: add Z or an offset/],
  [["--created-after", "1h", "--created-before", "2h"], /createdBefore is not after createdAfter/],
  [["--var", "order.id"], /--var "order\.id" is no path and value/],
  [["--var", "=5"], /--var "=5" is no path and value/],
  [["--tag", ""], /tags is a list of/],
  [["--limit", "0"], /--limit "0" is not a whole number from 1/],
  [["--cursor", "5"], /"5" is no cursor/],
  [["--cursor", "x", "--count"], /--count has no pages/],
])("wrong use: ls %j", async (args, said) => {
  const { err, out, code } = await line.ar("ls", ...args);
  expect({ out, code }).toEqual({ out: "", code: 2 });
  expect(err).toMatch(said);
});
