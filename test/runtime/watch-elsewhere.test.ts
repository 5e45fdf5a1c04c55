// watch() in another process than the one that drives the run, or through another store object, which is the same to it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { afterEach, describe, expect, test } from "vitest";
import {
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  type RuntimeOptions,
  type Store,
  type WatchItem,
} from "../../src/index.ts";
import { postgresStore } from "../../src/stores/postgres/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { eventually } from "../eventually.ts";
import { dropSchema, newSchema, serverUrl } from "../stores/postgres-server.ts";
import { endless } from "./watch-endless.ts";
import { gate, lines, reading, take, talking, text } from "./watching.ts";

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

type Places = { [name: string]: () => Promise<() => Promise<Store>> };

const places: Places = {
  async sqlite() {
    const file = newFile();
    return () => sqliteStore(file);
  },
  async postgres() {
    const schema = newSchema();
    const pool = new pg.Pool({ connectionString: serverUrl(), max: 6 });
    ends.push(async () => {
      await pool.end();
      await dropSchema(schema);
    });
    return () => postgresStore({ pool, schema });
  },
};

function newFile(): string {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-watch-"));
  ends.push(() => rmSync(directory, { recursive: true }));
  return join(directory, "runs.sqlite");
}

async function open(options: RuntimeOptions) {
  const runtime = await createRuntime(options);
  ends.push(() => runtime.stop({ timeoutMs: 0 }));
  return runtime;
}

/** A workflow that talks once, and what it does then. */
function talkers() {
  const { say, act } = talking();
  const talker = defineWorkflow({
    id: "talker",
    effects: [say],
    entry: "ask",
    nodes: { ask: () => say("go", { nextNode: "end" }), end: () => complete() },
  });
  return { talker, act };
}

describe.each(Object.keys(places))("over %s", (name) => {
  test("what is streamed elsewhere is seen while it is streamed, and every reader goes on anywhere", async () => {
    const openStore = await (places[name] as Places[string])();
    const { talker, act } = talkers();
    const seen = gate();
    const resumed = gate();
    act.now = async ({ stream }) => {
      stream(text("first "));
      await seen.opened;
      stream(text("second "));
      await resumed.opened;
      stream(text("third"));
      return null;
    };
    const here = await open({ store: await openStore(), workflows: [talker] });
    // It has not the code, so it never drives the run.
    const there = await open({ store: await openStore() });
    const { runId } = await here.start(talker);
    const items = await take(there.watch(runId), ({ kind }) => kind === "stream");
    expect(lines(items)).toEqual(["run_started", "effect_started 1 #1", "1 #1 text @0: first "]);
    seen.open();
    // Leaves there, goes on here, and there again, each time in the middle of the stream.
    for (const runtime of [here, there, here]) {
      const more = await take(runtime.watch(runId, { after: items.at(-1)?.cursor }), ({ kind }) => {
        if (kind !== "stream") return false;
        resumed.open();
        return runtime === there || items.length === 3;
      });
      items.push(...more);
    }
    expect(lines(items)).toEqual([
      "run_started",
      "effect_started 1 #1",
      "1 #1 text @0: first second third",
      "effect_completed 1 #1",
      "run_completed",
    ]);
    for (const runtime of [here, there]) {
      expect(lines(await take(runtime.watch(runId)))).toEqual(lines(items));
      for (const [i, { cursor }] of items.entries()) {
        const rest = await take(runtime.watch(runId, { after: cursor }));
        expect(lines([...items.slice(0, i + 1), ...rest])).toEqual(lines(items));
      }
    }
  });

  test("an attempt of a runtime that is gone shows as far as it was kept, and the next one as a reset", async () => {
    const openStore = await (places[name] as Places[string])();
    const { talker, act } = talkers();
    act.now = ({ stream, attempt, signal }) => {
      stream(text(`attempt ${attempt}`));
      return attempt > 1 ? null : new Promise((_, reject) => signal.addEventListener("abort", reject));
    };
    const first = await createRuntime({ store: await openStore(), workflows: [talker] });
    const watcher = await open({ store: await openStore() });
    const { runId } = await first.start(talker);
    const items: WatchItem[] = [];
    const isSeen = gate();
    const reader = take(watcher.watch(runId), (item) => {
      items.push(item);
      if (item.kind === "stream") isSeen.open();
    });
    await isSeen.opened;
    // What is under way is given up, unrecorded.
    await first.stop({ timeoutMs: 0 });
    await open({ store: await openStore(), workflows: [talker] });
    await reader;
    const expected = [
      "run_started",
      "effect_started 1 #1",
      "1 #1 text @0: attempt 1",
      "effect_uncertain 1 #1",
      "effect_started 1 #2",
      "reset 1 #2",
      "1 #2 text @0: attempt 2",
      "effect_completed 1 #2",
      "run_completed",
    ];
    expect(lines(items)).toEqual(expected);
    expect(lines(await take(watcher.watch(runId)))).toEqual(expected);
  });
});

test("a process that is killed in the middle of a stream: what it kept has no gaps, and the next attempt is a reset", async () => {
  const file = newFile();
  const runId = "killed";
  const watcher = await open({ store: await sqliteStore(file) });
  const script = join(import.meta.dirname, "watch-child.ts");
  const child = spawn(process.execPath, ["--conditions=abstractruntime-source", script, file, runId], { stdio: "inherit" });
  ends.push(() => child.kill("SIGKILL"));
  const isThere = async (): Promise<unknown> => (await watcher.list({ idPrefix: runId })).runs[0];
  await eventually(async () => (await isThere()) !== undefined);
  const items: WatchItem[] = [];
  let isKilled = false;
  const reader = take(watcher.watch(runId), (item) => {
    items.push(item);
    if (item.kind === "stream" && item.offset > 100 && !isKilled) isKilled = child.kill("SIGKILL");
  });
  await once(child, "exit");
  const { heldSay } = await import("./watch-endless.ts");
  heldSay.act.now = ({ stream }) => {
    stream(text("at last"));
    return null;
  };
  await open({ store: await sqliteStore(file), workflows: [endless] });
  await reader;
  const { texts } = reading(items);
  expect(Object.keys(texts)).toEqual(["1 #1", "1 #2"]);
  const first = texts["1 #1"] as string;
  expect(Array.from({ length: 10_000 }, (_, i) => `${i} `).join("")).toContain(first);
  expect(first.startsWith("0 1 2 ")).toBe(true);
  expect(texts["1 #2"]).toBe("at last");
  expect(lines(items).slice(-5)).toEqual([
    "effect_started 1 #2",
    "reset 1 #2",
    "1 #2 text @0: at last",
    "effect_completed 1 #2",
    "run_completed",
  ]);
  expect(reading(await take(watcher.watch(runId))).texts).toEqual(texts);
});

test.each(Object.keys(places))(
  "an effect in a transaction streams over %s, and waits for nothing that waits for it",
  async (name) => {
    const openStore = await (places[name] as Places[string])();
    const { opened, open: go } = gate();
    const book = defineEffect("book", {
      transactional: true,
      run: async (_: unknown, { stream }) => {
        stream(text("booking"));
        await opened;
        stream(text(" done"));
        return null;
      },
    });
    const booking = defineWorkflow({
      id: "booking",
      effects: [book],
      entry: "book",
      nodes: { book: () => book({}, { nextNode: "end" }), end: () => complete() },
    });
    const runtime = await open({ store: await openStore(), workflows: [booking] });
    const { runId } = await runtime.start(booking);
    const items = await take(runtime.watch(runId), ({ kind }) => void (kind === "stream" && go()));
    expect(lines(items)).toEqual([
      "run_started",
      "effect_started 1 #1",
      "1 #1 text @0: booking done",
      "effect_completed 1 #1",
      "run_completed",
    ]);
  },
);
