// A backup of a store in use: what it holds is the store as it stood at one moment.
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { complete, createRuntime, defineEffect, defineWorkflow, goto, subworkflow, waitEvent } from "../../src/index.ts";
import { backupSqlite, sqliteStore } from "../../src/stores/sqlite/index.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
});

const work = defineEffect("work", { run: async () => ({ done: true }) });
const child = defineWorkflow({
  id: "child",
  effects: [work],
  entry: "work",
  nodes: { work: () => work({}, { resultKey: "r", nextNode: "end" }), end: () => complete() },
});
const busy = defineWorkflow({
  id: "busy",
  effects: [work],
  entry: "step",
  nodes: {
    step: ({ vars }) => {
      vars.n = (vars.n ?? 0) + 1;
      return vars.n > 6 ? goto("child") : work({}, { resultKey: "r", nextNode: "step" });
    },
    child: () => subworkflow(child, { vars: {} }, { nextNode: "wait" }),
    wait: () => waitEvent("go", { nextNode: "end" }),
    end: () => complete(),
  },
});
const workflows = [busy, child];

test("a backup under load opens, every chain verifies, no tree is torn, and its runs go on", async () => {
  const path = join(directory, "runs.db");
  const runtime = await createRuntime({ workflows, store: await sqliteStore(path) });
  const copies: string[] = [];
  let started = 0;
  const load = (async () => {
    while (copies.length < 5) {
      const runIds = await Promise.all(Array.from({ length: 20 }, () => runtime.start(busy)));
      started += runIds.length;
      await Promise.all(runIds.map(({ runId }) => runtime.signal(runId, "go")));
      await Promise.all(runIds.map(({ runId }) => runtime.result(runId)));
    }
  })();
  for (let i = 0; i < 5; i++) {
    const copy = join(directory, `copy ${i}.db`);
    await backupSqlite(path, copy);
    copies.push(copy);
    const before = started;
    while (started === before && i < 4) await new Promise((resolve) => setImmediate(resolve));
  }
  await load;
  await runtime.stop();
  let live = 0;
  for (const copy of copies) {
    const restored = await createRuntime({ workflows, store: await sqliteStore(copy), scheduler: false });
    const { runs } = await restored.list({ limit: 1_000 });
    for (const run of runs) {
      expect(await restored.verify(run.runId)).toMatchObject({ ok: true, problems: [] });
      if (run.parentRunId !== undefined) expect(await restored.store.load(run.parentRunId)).toBeDefined();
      if (run.status !== "completed") live += 1;
    }
    await restored.stop();
  }
  // They were taken in the middle of things; the last is driven to the end of all.
  expect(live).toBeGreaterThan(0);
  const last = await createRuntime({ workflows, store: await sqliteStore(copies[0] as string) });
  for (const { runId, parentRunId } of (await last.list({ limit: 1_000 })).runs) {
    if (parentRunId === undefined && (await last.get(runId)).status !== "completed") {
      await last.signal(runId, "go").catch(() => undefined);
      await last.result(runId);
    }
  }
  await last.stop();
});

test("a backup replaces nothing, and leaves nothing behind when it cannot be made", async () => {
  const path = join(directory, "runs.db");
  await (await sqliteStore(path)).close();
  const mine = join(directory, "mine");
  writeFileSync(mine, "mine");
  await expect(backupSqlite(path, mine)).rejects.toMatchObject({ code: "INVALID_OPTION" });
  await expect(backupSqlite(path, join(directory, "no", "such"))).rejects.toMatchObject({ code: "INVALID_OPTION" });
  await expect(backupSqlite(join(directory, "nowhere"), join(directory, "x"))).rejects.toMatchObject({
    code: "STORE_UNAVAILABLE",
  });
  await expect(backupSqlite(mine, join(directory, "x"))).rejects.toMatchObject({ code: "STORE_CORRUPT" });
  expect(existsSync(join(directory, "x"))).toBe(false);
  await backupSqlite(path, join(directory, "copy"));
  expect(readdirSync(directory).filter((name) => name.startsWith("copy"))).toEqual(["copy"]);
  await (await sqliteStore(join(directory, "copy"))).close();
});
