// Files that several write, read or take back at once, and files that say what no run can have: no run has two owners, and none is lost.
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, onTestFinished, test } from "vitest";
import { complete, createRuntime, defineWorkflow, fail, moveRuns, type Runtime, type Store, undoMove } from "../../src/index.ts";
import { faultyStore, type TestClock, testClock } from "../../src/testing/index.ts";
import { finishTree, opened, runtimeOver, startTree, type Tree, workflows } from "./moving-tree.ts";
import { deafStore } from "../kept-store.ts";
import { codeOf } from "../code-of.ts";

let directory: string;
let file: string;
let clock: TestClock;
beforeEach(() => {
  clock = testClock();
  directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  file = join(directory, "tree.jsonl");
  onTestFinished(() => rmSync(directory, { recursive: true }));
});

const quick = defineWorkflow({
  id: "quick",
  entry: "end",
  nodes: { end: ({ vars }) => (vars.fails ? fail("it was asked to") : complete()) },
});

async function over(store: Store): Promise<Runtime> {
  const kept = deafStore(store);
  const runtime = await createRuntime({ workflows: [...workflows, quick], store: kept, clock, scheduler: false });
  onTestFinished(() => runtime.stop());
  return runtime;
}

async function exported(): Promise<{ from: Store; tree: Tree }> {
  const { store: from } = await opened("sqlite", clock);
  const tree = await startTree(from, clock);
  const runtime = await runtimeOver(from, clock);
  await runtime.export([tree.parentId], file, { fence: true });
  await runtime.stop();
  return { from, tree };
}

/** What a test breaks has no shape. */
type Line = any;

/** Stands for lists in lists that are too deep to be written by recursion. */
const deep = "deep";

/** Writes the file anew, with an end that fits. */
function rewrite(alter: (copy: Line) => void): void {
  const kept = readFileSync(file, "utf8")
    .split("\n")
    .slice(0, -2)
    .map((line) => {
      const read = JSON.parse(line);
      if (read.copy) alter(read.copy);
      return JSON.stringify(read).replaceAll(`"${deep}"`, `${"[".repeat(9_000)}1${"]".repeat(9_000)}`);
    });
  const text = kept.map((line) => `${line}\n`).join("");
  const end = { end: { lines: kept.length, sha256: createHash("sha256").update(text).digest("hex") } };
  writeFileSync(file, `${text}${JSON.stringify(end)}\n`);
}

test("two archives into one file at once: one is made, whole, and what is in no file stays", async () => {
  const { store } = await opened("sqlite", clock);
  const runtime = await over(store);
  const ids = Array.from({ length: 30 }, (_, i) => `run ${i}`);
  for (const [i, runId] of ids.entries()) await runtime.run(quick, { runId, tags: [i % 2 ? "odd" : "even"] });
  const codes = await Promise.all(["odd", "even"].map((tag) => codeOf(runtime.archive({ tags: [tag], to: file }))));
  expect(codes.sort()).toEqual(["INVALID_OPTION", "ok"]);
  expect(readdirSync(directory)).toEqual(["tree.jsonl"]);
  expect((await runtime.list({ limit: 100 })).runs).toHaveLength(15);
  await runtime.import(file);
  expect((await runtime.list({ limit: 100 })).runs).toHaveLength(30);
});

test("an archive of which a run is tried again meanwhile can be imported, and has all that was removed", async () => {
  // Between any two calls of the archive: before its runs are found, written, or removed.
  for (let n = 1; ; n++) {
    const { store } = await opened("memory", clock);
    const runtime = await over(store);
    for (const runId of ["one", "two", "three"]) await runtime.run(quick, { runId, vars: { fails: true } });
    const records = async (of: Runtime, runId: string): Promise<string[]> =>
      (await of.store.records(runId, 0, 100)).map(({ hash }) => hash);
    let told = false;
    const again = async (): Promise<void> => {
      told = true;
      const { seq } = await runtime.get("two");
      await runtime.retry("two");
      // Every other time it lives while the archive is made.
      if (n % 2) await runtime.tick("two");
      expect((await store.load("two"))?.row.seq).toBeGreaterThanOrEqual(seq);
    };
    const meddled = await over(faultyStore(store, [{ kind: "run", call: n, run: again }]));
    const all = new Map<string, string[]>();
    const to = join(directory, `${n}.jsonl`);
    const code = await codeOf(meddled.archive({ status: "failed", to }));
    expect(["ok", "MOVE_REFUSED"]).toContain(code);
    if ((await store.load("two")) !== undefined) {
      await runtime.tick("two");
      all.set("two", await records(runtime, "two"));
    }
    const target = await over((await opened("memory", clock)).store);
    if (existsSync(to)) {
      const { runIds } = await target.import(to);
      expect(runIds.length).toBeGreaterThanOrEqual(2);
      for (const runId of ["one", "two", "three"]) {
        const tombstone = await store.tombstone(runId);
        if (tombstone) expect((await target.get(runId)).seq).toBe(tombstone.seq);
        else expect(await store.load(runId)).toBeDefined();
      }
    }
    if (!told) break;
  }
});

test("an export that is taken back while it is written leaves no file, and says so", async () => {
  const { store } = await opened("sqlite", clock);
  const tree = await startTree(store, clock);
  const back = async (): Promise<void> => void (await undoMove(store, undefined, [tree.parentId]));
  const runtime = await over(faultyStore(store, [{ kind: "run", on: "records", run: back, call: 1 }]));
  expect(await codeOf(runtime.export([tree.parentId], file, { fence: true }))).toBe("MOVE_REFUSED");
  expect(readdirSync(directory)).toEqual([]);
  expect(await finishTree(store, clock, tree)).toMatchObject({ early: { n: 2 } });
});

test("a file is not imported again where its runs have been and left, though nothing was recorded since", async () => {
  const { tree } = await exported();
  for (const kind of ["memory", "sqlite"] as const) {
    const [{ store: first }, { store: second }] = [await opened(kind, clock), await opened("memory", clock)];
    const runtime = await over(first);
    await runtime.import(file);
    await moveRuns(first, second, [tree.parentId]);
    expect(await codeOf(runtime.import(file))).toBe("RUN_MOVED");
    expect((await first.load(tree.parentId))?.moving?.phase).toBe("left");
    await moveRuns(second, first, [tree.parentId]);
    // Nor where what has left was purged.
    await moveRuns(first, second, [tree.parentId], { purge: true });
    expect(await codeOf(runtime.import(file))).toBe("RUN_PURGED");
    await moveRuns(second, first, [tree.parentId]);
    expect(await finishTree(first, clock, tree)).toMatchObject({ early: { n: 2 } });
  }
});

test("a file is imported by two at once: whoever says that it is there is right", async () => {
  const { tree } = await exported();
  for (let n = 1; n < 60; n++) {
    const { store } = await opened("memory", clock);
    const runtime = await over(store);
    let other = "";
    const again = async (): Promise<void> => {
      // Another reader of the same file that comes to grief takes back what it finds.
      const failing = await over(faultyStore(store, [{ kind: "fail", on: "checkpoints" }]));
      other = await codeOf(failing.import(file));
      const { moving } = (await store.load(tree.parentId)) ?? {};
      if (moving) await undoMove(store, undefined, [tree.parentId]);
    };
    const one = await over(faultyStore(store, [{ kind: "run", call: n, run: again }]));
    const code = await codeOf(one.import(file));
    if (code === "ok") expect((await runtime.get(tree.parentId)).moving).toBeUndefined();
    else expect(["MOVE_REFUSED", "PORTABLE_INVALID", "RUN_EXISTS", "RUN_NOT_FOUND"], other).toContain(code);
  }
});

test("what no run can have is refused, and the other runs of the store are as they were", async () => {
  await exported();
  const original = readFileSync(file);
  const far = 2 ** 26;
  const wrong: ((copy: Line) => void)[] = [
    // Numbers that stand for records of other runs where run and record make one number.
    (copy) => {
      copy.archivedBefore = far;
      copy.row.seq += far;
    },
    (copy) => {
      copy.row.seq += far;
    },
    (copy) => {
      copy.checkpoints = [{ seq: far, ordinal: 1, text: "{}" }];
    },
    (copy) => {
      copy.checkpoints = [{ seq: copy.row.seq + 1, ordinal: 1, text: "{}" }];
    },
    // The same name twice.
    (copy) => {
      copy.letters.push(...copy.letters);
    },
    (copy) => {
      copy.waits.push(...copy.waits);
    },
    // What is too deep to be written again.
    (copy) => {
      for (const letter of copy.letters) if (letter.state === "open") letter.payload = deep;
    },
  ];
  for (const [i, alter] of wrong.entries()) {
    for (const kind of ["memory", "sqlite"] as const) {
      const { store } = await opened(kind, clock);
      const runtime = await over(store);
      for (const runId of ["before", "after"]) await runtime.run(quick, { runId });
      writeFileSync(file, original);
      rewrite(alter);
      const code = await codeOf(runtime.import(file));
      expect(["PORTABLE_INVALID", "MOVE_REFUSED", "RUN_TOO_LONG", "TOO_LARGE"], `${i} on ${kind}`).toContain(code);
      expect(await store.moves()).toEqual([]);
      for (const runId of ["before", "after"]) expect((await runtime.verify(runId)).ok).toBe(true);
      await runtime.run(quick, { runId: "next" });
      for (const runId of ["before", "after", "next"]) expect((await runtime.verify(runId)).ok).toBe(true);
    }
  }
});
