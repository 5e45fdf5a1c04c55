// Runs in a file: out of one store, into another, whole or not at all.
import { createHash } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, describe, expect, onTestFinished, test } from "vitest";
import { createRuntime, type Runtime, type Store, undoMove } from "../../src/index.ts";
import { faultyStore, type TestClock, testClock } from "../../src/testing/index.ts";
import { type Tree, finishTree, type Kind, opened, runtimeOver, startTree, workflows } from "./moving-tree.ts";
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

async function over(store: Store): Promise<Runtime> {
  const runtime = await runtimeOver(store, clock);
  onTestFinished(() => runtime.stop());
  return runtime;
}

/** A tree that has left its store for the file. */
async function exported(kind: Kind = "memory"): Promise<{ from: Store; tree: Tree }> {
  const { store: from } = await opened(kind, clock);
  const tree = await startTree(from, clock);
  const runtime = await over(from);
  expect(await runtime.export([tree.parentId], file, { fence: true })).toMatchObject({
    runIds: [tree.parentId, tree.childId],
    artifacts: 1,
  });
  return { from, tree };
}

/** Nothing but what is not looked at by anybody. */
async function expectNothing(store: Store): Promise<void> {
  expect((await store.query({})).runs).toEqual([]);
  expect(await store.moves()).toEqual([]);
  expect((await store.snapshots({})).snapshots).toEqual([]);
}

/** What a test breaks has no shape. */
type Line = any;

const lines = (): string[] => readFileSync(file, "utf8").split("\n").slice(0, -1);

/** Writes the file anew, with an end that fits. */
function rewrite(change: (lines: string[]) => string[]): void {
  const kept = change(lines().slice(0, -1));
  const text = kept.map((line) => `${line}\n`).join("");
  const end = { end: { lines: kept.length, sha256: createHash("sha256").update(text).digest("hex") } };
  writeFileSync(file, `${text}${JSON.stringify(end)}\n`);
}

describe.each([
  ["memory", "sqlite"],
  ["sqlite", "memory"],
] as const)("from %s to %s", (fromKind, toKind) => {
  test("a live tree leaves for a file, and goes on where it is imported", async () => {
    const { from, tree } = await exported(fromKind);
    const source = await over(from);
    expect((await source.get(tree.parentId)).moving).toMatchObject({ phase: "left", to: `file:${file}` });
    expect(await codeOf(source.signal(tree.parentId, "early"))).toBe("RUN_MOVED");
    const { store: to } = await opened(toKind, clock);
    const target = await over(to);
    expect(await target.import(file)).toMatchObject({ runIds: [tree.parentId, tree.childId], artifacts: 1 });
    for (const runId of [tree.parentId, tree.childId]) expect((await target.verify(runId)).ok).toBe(true);
    expect((await target.snapshots.get("s1"))?.name).toBe("waiting");
    expect(await codeOf(target.import(file))).toBe("RUN_EXISTS");
    expect(await finishTree(to, clock, tree)).toMatchObject({ receipt: { charged: true }, early: { n: 2 } });
    expect(await (await target.artifacts.open(tree.artifact)).text()).toBe("the bytes of a photo");
  });

  test("an ended tree is copied; records come back with their exact texts", async () => {
    const { store: from } = await opened(fromKind, clock);
    const tree = await startTree(from, clock);
    await finishTree(from, clock, tree);
    const source = await over(from);
    await source.export([tree.parentId], file);
    const { store: to } = await opened(toKind, clock);
    await (await over(to)).import(file);
    for (const runId of [tree.parentId, tree.childId])
      expect(await to.records(runId, 0, 100)).toEqual(await from.records(runId, 0, 100));
    expect((await source.get(tree.parentId)).moving).toBeUndefined();
  });
});

test("a copy of a live run says that it is one, is of one moment, and is not imported", async () => {
  const { store: from } = await opened("sqlite", clock);
  const tree = await startTree(from, clock);
  await (await over(from)).export([tree.parentId], file);
  expect(JSON.parse(lines()[0] as string)).toMatchObject({ portable: 1, kind: "copy", from: from.name });
  const { store: to } = await opened("memory", clock);
  await expect((await over(to)).import(file)).rejects.toMatchObject({
    code: "MOVE_REFUSED",
    fields: { problem: expect.stringContaining("would be done twice") },
  });
  await expectNothing(to);
  expect(await finishTree(from, clock, tree)).toMatchObject({ early: { n: 2 } });
});

test("a file that was cut off anywhere is refused, and nothing of it is there", async () => {
  await exported();
  const whole = readFileSync(file);
  const { store: to } = await opened("memory", clock);
  const target = await over(to);
  const cuts = Array.from({ length: 25 }, (_, i) => Math.floor((i * whole.length) / 25));
  for (const cut of [...cuts, whole.length - 2]) {
    writeFileSync(file, whole.subarray(0, cut));
    expect(await codeOf(target.import(file)), `cut at ${cut}`).toBe("PORTABLE_INVALID");
    await expectNothing(to);
  }
  writeFileSync(file, whole);
  expect(await codeOf(target.import(file))).toBe("ok");
});

test("a file that was altered anywhere is refused, and nothing of it is there", async () => {
  await exported();
  const whole = readFileSync(file);
  const { store: to } = await opened("memory", clock);
  const target = await over(to);
  for (let i = 0; i < 40; i++) {
    const altered = Buffer.from(whole);
    const at = Math.floor(((i + 0.5) * whole.length) / 40);
    altered[at] = (altered[at] as number) ^ 1;
    writeFileSync(file, altered);
    expect(["PORTABLE_INVALID", "FORMAT_NEWER"], `altered at ${at}`).toContain(await codeOf(target.import(file)));
    await expectNothing(to);
  }
});

test("a file with another content and a fitting checksum is refused by what it says", async () => {
  await exported();
  const original = readFileSync(file);
  const refused = async (change: (all: string[]) => string[], ...codes: string[]): Promise<void> => {
    writeFileSync(file, original);
    rewrite(change);
    // Another one each time: of artifacts that are known, bytes are not looked at.
    const { store: to } = await opened("memory", clock);
    const target = await over(to);
    expect(codes).toContain(await codeOf(target.import(file)));
    await expectNothing(to);
  };
  const edit =
    (kind: string, alter: (line: Line) => unknown) =>
    (all: string[]): string[] => {
      const at = all.findIndex((line) => line.startsWith(`{"${kind}"`));
      expect(at).toBeGreaterThanOrEqual(0);
      const line = JSON.parse(all[at] as string);
      return all.with(at, JSON.stringify(alter(line) ?? line));
    };
  rewrite((all) => all);
  expect(await codeOf((await over((await opened("memory", clock)).store)).import(file))).toBe("ok");
  // A body, a header, a record less, a record twice, no records.
  await refused(
    edit("record", (line) => {
      line.record.body = line.record.body.replace("salt", "sold");
    }),
    "MOVE_REFUSED",
  );
  await refused(
    edit("record", (line) => {
      line.record.hash = "0".repeat(64);
    }),
    "MOVE_REFUSED",
    "PORTABLE_INVALID",
  );
  await refused((all) => all.filter((line) => !line.includes('"seq":3,')), "PORTABLE_INVALID");
  await refused((all) => all.filter((line) => !line.startsWith('{"record"')), "MOVE_REFUSED");
  // What stands beside the ledger is compared with it.
  await refused(
    edit("copy", (line) => {
      line.copy.row.node = "elsewhere";
    }),
    "MOVE_REFUSED",
  );
  await refused(
    edit("copy", (line) => {
      line.copy.row.status = "completed";
    }),
    "MOVE_REFUSED",
  );
  await refused(
    edit("copy", (line) => {
      line.copy.waits = [];
    }),
    "MOVE_REFUSED",
  );
  await refused(
    edit("copy", (line) => {
      line.copy.row.seq -= 1;
    }),
    "PORTABLE_INVALID",
    "MOVE_REFUSED",
  );
  // Things of a wrong shape.
  await refused(
    edit("copy", (line) => {
      line.copy.row.seq = "3";
    }),
    "PORTABLE_INVALID",
  );
  await refused(
    edit("copy", (line) => {
      line.copy.letters[0].state = "lost";
    }),
    "PORTABLE_INVALID",
  );
  await refused(
    edit("copy", (line) => {
      delete line.copy.waits;
    }),
    "PORTABLE_INVALID",
  );
  // What a database would take for a failure of its own, or could not give back.
  const members: ((line: Line) => unknown)[] = [
    ({ copy }) => Object.assign(copy.row, { priority: 2 ** 53 }),
    ({ copy }) => Object.assign(copy.row, { wakeAt: 1.5 }),
    ({ copy }) => Object.assign(copy.row, { actorId: "x".repeat(3_000) }),
    ({ copy }) => Object.assign(copy.row, { parentRunId: "\ud800" }),
    ({ copy }) => Object.assign(copy.indexed, { number: "x".repeat(3_000) }),
    ({ copy }) => Object.assign(copy.indexed, { ["x".repeat(3_000)]: 1 }),
    ({ copy }) => Object.assign(copy, { counters: { "\ud800": 1 } }),
    ({ copy }) => Object.assign(copy.letters[0], { id: "\ud800" }),
  ];
  for (const change of members)
    await refused(
      edit("copy", (line) => {
        change(line);
      }),
      "PORTABLE_INVALID",
    );
  await refused(
    edit("portable", (line) => {
      line.id = "\ud800";
    }),
    "PORTABLE_INVALID",
  );
  await refused((all) => [...all, '{"what":1}'], "PORTABLE_INVALID");
  await refused((all) => [...all, '{"__proto__":{"polluted":1}}'], "PORTABLE_INVALID");
  await refused((all) => [...all, "[]"], "PORTABLE_INVALID");
  await refused((all) => [all[0] as string, all.find((line) => line.startsWith('{"record"')) as string], "PORTABLE_INVALID");
  // An artifact whose bytes are others, and one that is not there.
  await refused(
    edit("bytes", () => ({ bytes: Buffer.from("other bytes").toString("base64") })),
    "PORTABLE_INVALID",
  );
  await refused(
    (all) => all.filter((line) => !line.startsWith('{"artifact"') && !line.startsWith('{"bytes"')),
    "ARTIFACT_MISSING",
  );
  // A newer format, and other files.
  await refused(
    edit("portable", (line) => {
      line.portable = 9;
    }),
    "FORMAT_NEWER",
  );
  const target = await over((await opened("sqlite", clock)).store);
  writeFileSync(file, "");
  expect(await codeOf(target.import(file))).toBe("PORTABLE_INVALID");
  expect(await codeOf(target.import(directory))).toBe("PORTABLE_INVALID");
  expect(await codeOf(target.import(join(directory, "nowhere")))).toBe("PORTABLE_INVALID");
  expect(({} as { polluted?: number }).polluted).toBeUndefined();
});

describe("cut off", () => {
  for (const after of [false, true]) {
    test(`an import at every call, ${after ? "its answer lost" : "before it"}: nobody drives it, and the same call completes it`, async () => {
      const { tree } = await exported();
      let cutOff = 0;
      for (let n = 1; ; n++) {
        const { store: to, reopen } = await opened(n % 2 === 0 ? "memory" : "sqlite", clock);
        const faulty = await over(faultyStore(to, [{ kind: "fail", fromCall: n + callsToOpen, after }]));
        const code = await codeOf(faulty.import(file));
        if (code === "ok") break;
        expect(code).toBe("STORE_UNAVAILABLE");
        cutOff += 1;
        const store = await reopen();
        const there = await store.load(tree.parentId);
        const isDone = there !== undefined && there.moving === undefined;
        if (!isDone) await (await over(store)).import(file);
        expect(await finishTree(store, clock, tree)).toMatchObject({ early: { n: 2 } });
      }
      expect(cutOff).toBeGreaterThan(8);
    });

    test(`an export at every call, ${after ? "its answer lost" : "before it"}: the run is in its store or in the file, and the same call completes it`, async () => {
      let cutOff = 0;
      for (let n = 1; ; n++) {
        rmSync(file, { force: true });
        const { store: from, reopen } = await opened(n % 2 === 0 ? "memory" : "sqlite", clock);
        const tree = await startTree(from, clock);
        const faulty = await over(faultyStore(from, [{ kind: "fail", fromCall: n + callsToOpen, after }]));
        const code = await codeOf(faulty.export([tree.parentId], file, { fence: true }));
        const store = await reopen();
        if (code !== "ok") {
          expect(code).toBe("STORE_UNAVAILABLE");
          cutOff += 1;
          const phase = (await store.load(tree.parentId))?.moving?.phase;
          if (phase === "left") expect(existsSync(file)).toBe(true);
          else await (await over(store)).export([tree.parentId], file, { fence: true });
        }
        expect((await store.load(tree.parentId))?.moving?.phase).toBe("left");
        expect(readdirSync(directory)).toEqual(["tree.jsonl"]);
        const { store: to } = await opened("memory", clock);
        await (await over(to)).import(file);
        expect(await finishTree(to, clock, tree)).toMatchObject({ early: { n: 2 } });
        if (code === "ok") break;
      }
      expect(cutOff).toBeGreaterThan(8);
    });
  }
});

/** What opening a runtime calls of the store. */
const callsToOpen = 2;

test("an export or import that was cut off is taken back; one that was completed is not", async () => {
  const { store: from } = await opened("sqlite", clock);
  const tree = await startTree(from, clock);
  const ids = [tree.parentId, tree.childId];
  const cut = await over(faultyStore(from, [{ kind: "fail", on: "settle" }]));
  expect(await codeOf(cut.export([tree.parentId], file, { fence: true }))).toBe("STORE_UNAVAILABLE");
  expect((await from.load(tree.parentId))?.moving?.phase).toBe("leaving");
  expect((await undoMove(from, undefined, ids)).sort()).toEqual(ids.sort());
  expect(await undoMove(from, undefined, ids)).toEqual([]);
  expect((await from.load(tree.parentId))?.moving).toBeUndefined();
  rmSync(file);
  await (await over(from)).export([tree.parentId], file, { fence: true });
  expect(await codeOf(undoMove(from, undefined, ids))).toBe("MOVE_REFUSED");
  const { store: to } = await opened("sqlite", clock);
  const torn = await over(faultyStore(to, [{ kind: "fail", on: "settle" }]));
  expect(await codeOf(torn.import(file))).toBe("STORE_UNAVAILABLE");
  expect((await undoMove(to, undefined, [tree.parentId])).sort()).toEqual(ids.sort());
  expect((await to.query({})).runs).toEqual([]);
  // And it comes back to where it left.
  await (await over(from)).import(file);
  expect(await finishTree(from, clock, tree)).toMatchObject({ early: { n: 2 } });
});

test("an export that cannot be written leaves the run where it is, and nothing behind", async () => {
  const { store: from } = await opened("memory", clock);
  const tree = await startTree(from, clock);
  const runtime = await over(from);
  writeFileSync(file, "mine");
  expect(await codeOf(runtime.export([tree.parentId], file, { fence: true }))).toBe("INVALID_OPTION");
  expect(readFileSync(file, "utf8")).toBe("mine");
  expect(await codeOf(runtime.export([tree.parentId], join(directory, "no", "such"), { fence: true }))).toBe("INVALID_OPTION");
  const artifact = await from.artifact(tree.artifact);
  await from.blobs.delete(artifact?.blob as string);
  expect(await codeOf(runtime.export([tree.parentId], join(directory, "x"), { fence: true }))).toBe("ARTIFACT_MISSING");
  expect(readdirSync(directory)).toEqual(["tree.jsonl"]);
  expect(await codeOf(runtime.export([tree.childId], join(directory, "x")))).toBe("MOVE_REFUSED");
  expect(await codeOf(runtime.export(["nowhere"], join(directory, "x")))).toBe("RUN_NOT_FOUND");
  expect(await from.moves()).toEqual([]);
  expect(await finishTree(from, clock, tree)).toMatchObject({ early: { n: 2 } });
});

test("an older copy is not imported over what was done since", async () => {
  const { tree } = await exported();
  const { store: to } = await opened("memory", clock);
  const target = await over(to);
  await target.import(file);
  await finishTree(to, clock, tree);
  await target.purge({ runIds: [tree.parentId] });
  expect(await codeOf(target.import(file))).toBe("RUN_PURGED");
  expect((await to.query({})).runs).toEqual([]);
});

test("artifacts of many lines come through exactly, and a large one is not held", async () => {
  const { store: from } = await opened("sqlite", clock);
  const runtime = await createRuntime({ workflows, store: from, clock, scheduler: false });
  const bytes = Buffer.alloc(3 * 1024 * 1024, "0123456789 é\u0000");
  const photo = await runtime.artifacts.put(bytes);
  await runtime.start("child", { runId: "r", vars: { photo } });
  await runtime.export(["r"], file, { fence: true });
  expect(lines().every((line) => line.length < 70_000)).toBe(true);
  const { store: to } = await opened("memory", clock);
  const target = await over(to);
  await target.import(file);
  expect(Buffer.from(await (await target.artifacts.open(photo)).bytes()).equals(bytes)).toBe(true);
  await runtime.stop();
});
