// `artifacts`: what is there, and deleting what nobody refers to.
import { complete, createRuntime, defineWorkflow } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { testClock } from "abstractruntime/testing";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CommandLine } from "./command-line.ts";

const line = new CommandLine();
afterAll(() => line.remove());

const plain = defineWorkflow({ id: "plain", entry: "end", nodes: { end: () => complete() } });
const hostile = "\u001b[31mred";
const ids: Record<string, string> = {};

beforeAll(async () => {
  // Put so long ago that nothing but a run keeps it.
  const clock = testClock(Date.UTC(2025, 0, 1));
  const runtime = await createRuntime({
    workflows: [plain],
    store: await sqliteStore(line.storePath, { clock }),
    clock,
    scheduler: false,
  });
  ids.held = (await runtime.artifacts.put("a document", { tags: { name: hostile } })).$artifact;
  await runtime.start(plain, { runId: "holding", vars: { ref: { $artifact: ids.held } } });
  await clock.advance(1_000);
  ids.loose = (await runtime.artifacts.put(Buffer.alloc(3_000), { contentType: "image/png" })).$artifact;
  await runtime.stop();
});

test("list: newest first, and says when there are more", async () => {
  const { out, code } = await line.ar("artifacts");
  expect(code).toBe(0);
  expect(out.indexOf(ids.loose!)).toBeGreaterThan(0);
  expect(out.indexOf(ids.held!)).toBeGreaterThan(out.indexOf(ids.loose!));
  expect(out).toMatch(/2025-01-01 00:00:01\.000Z\s+2\.9 KiB\s+image\/png/);
  expect(out).not.toContain("\u001b[31m");
  expect((await line.ar("artifacts", "--limit", "1")).out).toMatch(
    /There are more. Next: abstractruntime artifacts list .*--limit 10/,
  );
});

test("list of a run, and as JSON", async () => {
  const { json } = await line.ar("artifacts", "list", "hold", "--json");
  expect(json).toMatchObject({ artifacts: [{ artifactId: ids.held, sizeBytes: 10, tags: { name: hostile } }], more: false });
});

test("wrong use", async () => {
  expect((await line.ar("artifacts", "swep")).err).toContain('Did you mean "sweep"?');
  expect((await line.ar("artifacts", "sweep", "hold")).err).toContain("sweep takes no run");
  expect((await line.ar("artifacts", "--limit", "x")).code).toBe(2);
});

test("sweep: deletes what no run refers to", async () => {
  expect((await line.ar("artifacts", "sweep")).out).toBe("Deleted 1 artifact (2.9 KiB).\n");
  expect((await line.ar("artifacts", "sweep")).out).toBe("There was nothing to delete.\n");
  expect((await line.ar("artifacts", "--json")).json.artifacts).toMatchObject([{ artifactId: ids.held }]);
});
