// What queries find among thousands of runs, and by which index: the contract's tests have so few that any way would do.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { sqliteStore } from "abstractruntime/sqlite";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { RunStatus } from "../../src/kernel/run.ts";
import type { NewRun } from "../../src/kernel/transition.ts";
import type { RunQuery, Scalar } from "../../src/kernel/query.ts";
import type { Store } from "../../src/kernel/store.ts";
import { testClock } from "../../src/testing/clock.ts";
import { countsIn, foundIn, type ModelRun } from "../../src/testing/contract/query-model.ts";
import { World } from "../../src/testing/contract/world.ts";
import { randomOf } from "../../src/testing/simulate/random.ts";

const count = 9_000;
/** Where a walk of 8,192 rows from either end goes on. */
const edges = [808, 8_193];
const directory = mkdtempSync(join(tmpdir(), "queries-"));
const file = join(directory, "runs.db");
const clock = testClock();
const start = clock.now();
const runs: ModelRun[] = [];
let store: Store;

beforeAll(async () => {
  store = await sqliteStore(file, { clock });
  const world = new World(store, clock, undefined);
  const random = randomOf(1, "many runs");
  const worker = await world.worker();
  const created: { run: NewRun; isHeld: boolean }[] = [];
  for (let i = 0; i < count; i++) {
    const isWaiting = i % 2 === 0;
    const isHeld = i % 100 === 1;
    const begun = world.newRun({ runId: `${i % 5 === 0 ? "five" : "other"}-${i}`, workflowId: `w${i % 3}` });
    const waits = isWaiting
      ? Array.from({ length: 1 + (i % 3) }, (_, n) => ({
          effectId: String(n + 1),
          waitKey: i % 500 === 0 ? `rare-${i}` : `key-${(i + n) % 4}`,
          reason: i % 800 === 0 ? ("job" as const) : i % 5 === 0 ? ("user" as const) : ("event" as const),
          since: start + random.int(0, 5_000),
        }))
      : [];
    const status: RunStatus = isWaiting ? "waiting" : i % 4 === 1 ? "running" : "completed";
    const wakeAt = isWaiting && i % 3 === 0 ? start + random.int(0, 9_000) : status === "running" ? start : null;
    const indexed: Record<string, Scalar> = { "order.id": i, kind: i % 4, ...(i % 900 === 0 ? { flag: true } : {}) };
    const row = {
      ...begun.row,
      status,
      wakeAt,
      version: i % 1_000 === 0 || edges.includes(i + 1) ? "2" : "1",
      createdAt: start + i + (i % 700 === 0 ? 4_000 : 0),
      updatedAt: start + random.int(0, 3_000),
      ...(i % 3 === 1 ? {} : { tags: i % 999 === 0 ? ["many", "few"] : ["many"] }),
      ...(i % 2 === 0 ? { sessionId: `s${i % 2_000}` } : {}),
      ...(i % 2 === 1 ? { actorId: i % 1_001 === 0 ? "rare" : "usual" } : {}),
      ...(i % 7 === 0 ? { queue: "q", parentRunId: `p${i % 210}` } : {}),
    };
    created.push({ run: { row, record: begun.record, waits, indexed, notBefore: start }, isHeld });
    runs.push({ number: i + 1, row, waits, indexed, holder: isHeld ? worker.workerId : undefined });
  }
  // Their numbers are those of their creation, so turns of held and other runs are kept in order.
  for (let from = 0; from < count; ) {
    const { isHeld } = created[from] as (typeof created)[number];
    const next = created.findIndex((one, i) => i > from && one.isHeld !== isHeld);
    const turn = created.slice(from, next === -1 ? count : next);
    await store.create(
      turn.map(({ run }) => run),
      isHeld ? worker.workerId : undefined,
    );
    from += turn.length;
  }
});

afterAll(async () => {
  await store.close();
  rmSync(directory, { recursive: true });
});

async function idsOf(query: RunQuery): Promise<string[]> {
  const found: string[] = [];
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page = await store.query({ limit: 1_000, ...query, ...(cursor === undefined ? {} : { cursor }) });
    found.push(...page.runs.map(({ runId }) => runId));
    cursor = page.next;
  }
  return found;
}

test("among thousands of runs, every filter in every order finds what a plain model finds", async () => {
  const filters: RunQuery[] = [
    {},
    { tags: ["many"] },
    { tags: ["few", "many"] },
    { vars: { kind: 1 } },
    { vars: { flag: true } },
    { vars: { kind: 2, "order.id": 42 } },
    { waitKey: "key-1" },
    { waitKey: "key-1", waitReason: "event" },
    { waitReason: "event" },
    { waitReason: "job" },
    { parentRunId: "p0" },
    { sessionId: "s10" },
    { actorId: "usual" },
    { actorId: "rare" },
    { queue: "q" },
    { workflowId: ["w1", "w2"] },
    { status: ["waiting", "completed"] },
    { status: "running", workflowId: "w1", tags: ["many"] },
    { idPrefix: "other" },
    { idPrefix: "five-12" },
    { createdAfter: start + 1_500, createdBefore: start + 7_500 },
    { createdAfter: start + 1_500, createdBefore: start + 1_600 },
    { createdAfter: start + 100, vars: { kind: 3 } },
    { updatedAfter: start + 500, updatedBefore: start + 2_500 },
    { updatedBefore: start + 20 },
    { dueAfter: start + 10 },
    { dueBefore: start + 1_000, status: "waiting" },
    { version: "2" },
    { createdAfter: start, version: "2" },
  ];
  const orders = ["newest", "oldest", "updated", "waiting", "due"] as const;
  for (const [i, order] of orders.entries()) {
    for (const [j, filter] of filters.entries()) {
      // By default in two of three orders; in all of them with CRASH_SWEEP=full (`npm run crash`).
      if (process.env.CRASH_SWEEP !== "full" && (i + j) % 3 === 0) continue;
      const query = { ...filter, order, limit: 900 };
      expect(await idsOf(query), JSON.stringify(query)).toEqual(foundIn(runs, query));
    }
  }
  const groups = ["status", "tag", "waitReason", "actorId", undefined] as const;
  for (const [i, filter] of [...filters, ...filters].entries()) {
    const by = groups[i % groups.length];
    expect(await store.count(filter, by), JSON.stringify([filter, by])).toEqual(countsIn(runs, filter, by));
  }
});

/** Every way in which SQLite reads for a query, as it explains it. */
async function planOf(query: RunQuery): Promise<string[]> {
  const texts: string[] = [];
  const prepare = DatabaseSync.prototype.prepare;
  const spy = vi.spyOn(DatabaseSync.prototype, "prepare").mockImplementation(function (this: DatabaseSync, sql, ...rest) {
    texts.push(sql);
    return prepare.call(this, sql, ...rest);
  });
  // Opened for this: statements that the other has prepared before would not be seen.
  const another = await sqliteStore(file, { clock });
  try {
    texts.length = 0;
    await another.query({ limit: 10, ...query });
  } finally {
    await another.close();
    spy.mockRestore();
  }
  const database = new DatabaseSync(file, { readOnly: true });
  const reading = texts.filter((text) => text.startsWith("SELECT") && text.includes("runs") && !text.includes("json_each"));
  const plans = reading.flatMap((text) => database.prepare(`EXPLAIN QUERY PLAN ${text}`).all());
  database.close();
  return plans.map(({ detail }) => String(detail));
}

const selective: [query: RunQuery, index: string][] = [
  [{ tags: ["few"] }, "run_tags_tag"],
  [{ tags: ["many", "few"], order: "updated" }, "run_tags_tag"],
  [{ vars: { flag: true } }, "run_vars_value"],
  [{ vars: { "order.id": 5 }, tags: ["many"], order: "waiting" }, "run_vars_value"],
  [{ sessionId: "s10" }, "runs_session"],
  [{ sessionId: "s10", status: "waiting" }, "runs_session"],
  [{ actorId: "rare", workflowId: "w1" }, "runs_actor"],
  [{ waitKey: "rare-500" }, "waits_key"],
  [{ waitKey: "key-1" }, "waits_key"],
  [{ waitReason: "job" }, "waits_reason"],
  [{ waitReason: "job", order: "waiting" }, "waits_reason"],
  [{ parentRunId: "p7" }, "runs_parent"],
  [{ holder: "nobody" }, "runs_held"],
  [{ queue: "q" }, "runs_queue"],
  [{ blocked: true }, "runs_blocked"],
  [{ workflowId: "none" }, "runs_workflow"],
  [{ status: "failed" }, "runs_status"],
  [{ idPrefix: "five-12" }, "sqlite_autoindex_runs_1"],
  [{ createdAfter: start + 8_000, createdBefore: start + 8_100 }, "runs_created"],
  [{ createdAfter: start + 1_000, createdBefore: start + 8_000, order: "oldest" }, "runs_created"],
  [{ updatedBefore: start + 20 }, "runs_updated"],
  [{ updatedAfter: start + 2_000, order: "updated" }, "runs_updated"],
  [{ dueBefore: start + 100 }, "runs_wake"],
  [{ dueAfter: start, order: "due" }, "runs_wake"],
];

test.each(selective)("%j is a search of %s", async (query, index) => {
  const plan = await planOf(query);
  expect(plan.join("\n")).toContain(`INDEX ${index}`);
  // Whatever is blocked is the whole of its index.
  const scans = plan.filter((line) => /^SCAN (runs|waits|run_tags|run_vars)\b/.test(line) && !line.endsWith(" runs_blocked"));
  expect(scans).toEqual([]);
});

test.each([
  ["updated", "runs_updated"],
  ["waiting", "waits_since"],
  ["due", "runs_wake"],
] as const)("the order %s is that of the index %s: nothing but held runs is sorted", async (order, index) => {
  const plan = (await planOf({ order, tags: ["many"] })).join("\n");
  expect(plan).toContain(index);
  const [, held = ""] = plan.split("runs_held");
  expect(plan.replace(held, "")).not.toContain("TEMP B-TREE");
  expect(plan).not.toMatch(/^SCAN runs$/m);
});

test("the order of creation walks the table itself, or the index of a filter that many runs fit", async () => {
  expect(await planOf({ status: "waiting", order: "oldest" })).toContain(
    "SEARCH runs USING COVERING INDEX runs_status (status=?)",
  );
  for (const order of ["newest", "oldest"] as const) {
    const plan = (await planOf({ order, tags: ["many"], status: "waiting" })).join("\n");
    expect(plan).toContain("run_tags_tag");
    expect(plan).not.toContain("TEMP B-TREE");
  }
});
