// Large texts are compressed in the table, and what is damaged there is found.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { complete, createRuntime, defineWorkflow, goto, waitEvent } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";
import { expect, onTestFinished, test } from "vitest";
import { packed, unpacked } from "../../src/stores/sqlite/packed.ts";

const text = (length: number): string => Array.from({ length }, (_, i) => "abcdefghij klmnop"[(i * i + 7) % 17]).join("");

test("what is packed reads as it was, and is no longer than that", () => {
  for (const given of ["", "short", text(1_024), text(200_000), "\u0000\u20ac\u{1f600}".repeat(1_000), "x".repeat(1_023)]) {
    expect(unpacked(packed(given))).toBe(given);
    expect(packed(given).length).toBeLessThanOrEqual(Buffer.byteLength(given));
  }
  expect(unpacked(packed(null))).toBe(null);
  expect(unpacked(new Uint8Array([1, 2, 3]))).toBe("");
});

test("a damaged body is found, and a damaged checkpoint is made anew", async () => {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const path = join(directory, "runs.db");
  const flow = defineWorkflow({
    id: "grows",
    entry: "grow",
    nodes: {
      grow: ({ vars }) => {
        vars.notes = [...(vars.notes ?? []), text(4_000) + (vars.notes ?? []).length];
        return goto(vars.notes.length < 30 ? "grow" : "wait");
      },
      wait: () => waitEvent("go", { nextNode: "end" }),
      end: ({ vars }) => complete({ notes: vars.notes.length }),
    },
  });
  const open = async () => createRuntime({ workflows: [flow], store: await sqliteStore(path) });
  let runtime = await open();
  const { runId } = await runtime.run(flow);
  await runtime.stop();

  const database = new DatabaseSync(path);
  const kinds = (sql: string) =>
    database
      .prepare(sql)
      .all()
      .map((row) => Object.values(row)[0]);
  expect(kinds("SELECT DISTINCT typeof(state) FROM checkpoints")).toEqual(["blob"]);
  expect(kinds("SELECT DISTINCT typeof(body) FROM records ORDER BY 1")).toEqual(["blob", "text"]);
  database.exec("UPDATE checkpoints SET state = x'00ff00'");
  database.close();
  runtime = await open();
  expect(await runtime.verify(runId)).toMatchObject({ ok: false });
  await runtime.signal(runId, "go");
  expect(await runtime.result(runId)).toEqual({ notes: 30 });
  await runtime.stop();

  const again = new DatabaseSync(path);
  again.exec("UPDATE records SET body = x'00ff00' WHERE typeof(body) = 'blob' AND id % 67108864 = 5");
  again.close();
  runtime = await open();
  expect(await runtime.verify(runId)).toMatchObject({ ok: false });
  await expect(runtime.stateAt(runId, 5)).rejects.toMatchObject({ code: "RECORD_CORRUPT" });
  await runtime.stop();
});
