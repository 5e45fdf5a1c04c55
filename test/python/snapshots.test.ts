// Snapshots of the Python package are snapshots here, and go back as they came.
import { cpSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { complete, createRuntime, defineWorkflow, waitEvent } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { exportPython, fileText, importPython, readPythonDirectory } from "abstractruntime/python";
import { expected, fixture } from "./fixtures.ts";
import { stores } from "./stores.ts";

let place: string;
beforeEach(() => {
  place = mkdtempSync(join(tmpdir(), "python-snapshots-"));
});
afterEach(() => rmSync(place, { recursive: true, force: true }));

const parent = defineWorkflow({
  id: "fx_parent",
  entry: "s",
  nodes: {
    s: ({ vars }) => waitEvent("again", { resultKey: "answer", nextNode: vars.bg.async ? "d" : "s" }),
    d: ({ vars }) => complete({ answer: vars.answer }),
  },
});
const { ids_in_creation_order: ids, queries } = expected["d-snapshots"];
const parentId: string = expected["c-subworkflow-waiting"].parent.run_id;

describe.each(Object.entries(stores))("on the %s store", (_, openStore) => {
  test("each holds its state, is found as in Python, and can be restored", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows: [parent], scheduler: false });
    const report = await importPython(runtime, fixture("d-snapshots"));
    expect(report.problems.map(({ file }) => file)).toEqual(["snapshot_corrupt.json"]);
    expect(report.snapshots.map(({ snapshotId, runId, result }) => [snapshotId, runId, result]).sort()).toEqual(
      ids.map((id: string) => [id, parentId, "imported"]),
    );
    const found = async (query: object) => (await runtime.snapshots.list(query)).snapshots.map(({ snapshotId }) => snapshotId);
    expect(await found({})).toEqual(queries.all_newest_first);
    expect(await found({ tag: "prod" })).toEqual(queries["tag=prod"]);
    expect(await found({ tag: "INVOICE" })).toEqual(queries["tag=INVOICE"]);
    expect(await found({ text: "invoice" })).toEqual(queries["query=invoice"]);
    expect(await found({ text: "étape" })).toEqual(queries["query=étape"]);
    expect(await found({ tag: `run:${parentId}` })).toEqual(queries.all_newest_first);
    const [id] = ids;
    expect(await runtime.snapshots.get(id)).toMatchObject({
      name: "invoice:1",
      description: "Première étape",
      node: "s",
      status: "waiting",
      createdAt: Date.parse("2026-11-22T15:12:30.786Z"),
      run: { node: "s", vars: { bg: { async: true } }, waits: [{ reason: "subworkflow" }] },
    });
    // What holds it never moves, hears nothing, and is over.
    const { runs } = await runtime.list({ status: ["running", "waiting"] });
    expect(runs).toEqual([]);
    expect(await runtime.emit("again")).toBe(0);
    for (const snapshotId of ids) expect(await runtime.verify(`snapshot-${snapshotId}`)).toMatchObject({ ok: true });

    await expect(runtime.snapshots.restore(id)).rejects.toThrow(/^FORK_OPEN_EFFECTS/);
    const { runId } = await runtime.snapshots.restore(id, { open: "restart" });
    expect(await runtime.tick(runId)).toMatchObject({ status: "waiting", paused: false, waits: [{ waitKey: "again" }] });
    await runtime.signal(runId, "again", 7);
    expect((await runtime.tick(runId)).output).toEqual({ answer: 7 });

    const again = await importPython(runtime, fixture("d-snapshots"));
    expect(again.snapshots.map(({ result }) => result)).toEqual(ids.map(() => "exists"));
    expect(await found({})).toEqual(queries.all_newest_first);
  });

  test("one of a run in the state that it was imported in marks that run; all go back as they came", async () => {
    await using runtime = await createRuntime({ store: await openStore(place), workflows: [parent], scheduler: false });
    const directory = join(place, "source");
    cpSync(fixture("c-subworkflow-waiting"), directory, { recursive: true });
    const states = await readPythonDirectory(fixture("d-snapshots"));
    const { run } = (await readPythonDirectory(directory)).runs.get(parentId)!;
    const { writeFileSync } = await import("node:fs");
    const [same, other] = [...states.snapshots.values()].map(({ snapshot }) => snapshot);
    writeFileSync(join(directory, `snapshot_${same!.snapshot_id}.json`), fileText({ ...same, step_id: "s", run_state: run }));
    const earlier = { ...run, status: "running", waiting: null, vars: { bg: { async: false } } };
    writeFileSync(join(directory, `snapshot_${other!.snapshot_id}.json`), fileText({ ...other, run_state: earlier }));
    expect((await importPython(runtime, directory)).problems).toEqual([]);
    expect((await runtime.snapshots.get(same!.snapshot_id)).runId).toBe(parentId);
    expect((await runtime.snapshots.get(other!.snapshot_id)).runId).toBe(`snapshot-${other!.snapshot_id}`);
    const { runId } = await runtime.snapshots.restore(other!.snapshot_id);
    expect(await runtime.tick(runId)).toMatchObject({ status: "waiting", vars: { bg: { async: false } } });

    const target = join(place, "target");
    const report = await exportPython(runtime, [parentId], target);
    expect([...report.snapshots].sort()).toEqual([same!.snapshot_id, other!.snapshot_id].sort());
    const text = (folder: string, id: string) => readFileSync(join(folder, `snapshot_${id}.json`), "utf8");
    for (const { snapshot_id: id } of [same!, other!]) expect(text(target, id)).toBe(text(directory, id));
    // Named anew here, it says so.
    await runtime.snapshots.create(parentId, { name: "another", snapshotId: same!.snapshot_id, seq: 0 });
    await exportPython(runtime, [parentId], target);
    const { snapshots, problems } = await readPythonDirectory(target);
    expect(problems).toEqual([]);
    const written = snapshots.get(same!.snapshot_id)!.snapshot;
    expect(written).toMatchObject({ name: "another", tags: [], run_id: parentId, run_state: run });
  });
});

test("imports at once hinder each other in no more than a snapshot that both hold", async () => {
  await using runtime = await createRuntime({ store: memoryStore(), scheduler: false });
  const reports = await Promise.all([1, 2].map(() => importPython(runtime, fixture("d-snapshots"))));
  for (const { problems } of reports)
    for (const { file, problem } of problems) if (file !== "snapshot_corrupt.json") expect(problem).toMatch(/^RUN_BUSY/);
  expect((await runtime.snapshots.list()).snapshots.map(({ snapshotId }) => snapshotId).sort()).toEqual([...ids].sort());
});
