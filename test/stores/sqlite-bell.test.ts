// Hints from one store object to another, in this process and from another one.
import { execFile } from "node:child_process";
import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { describe, expect, it, onTestFinished } from "vitest";
import type { Store } from "../../src/kernel/store.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { testClock } from "../../src/testing/clock.ts";
import { goOn, message, stored, World } from "../../src/testing/contract/world.ts";
import { testIds } from "../../src/testing/ids.ts";

const clock = testClock();

function newPath(): string {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  return join(directory, "runs.db");
}

let opened = 0;

async function open(path: string): Promise<World> {
  const store = await sqliteStore(path, { clock });
  onTestFinished(() => store.close());
  opened += 1;
  // Two of the same seed would make workers of the same id.
  return Object.assign(new World(store, clock, undefined), { ids: testIds(opened) });
}

/** Resolves when something is heard; the test's own time limit is the only one. */
function hint(store: Store): { heard: Promise<void>; stop(): void } {
  let stop = (): void => undefined;
  const heard = new Promise<void>((resolve) => {
    stop = store.hear(resolve);
  });
  return { heard, stop };
}

const bells = (path: string): string[] => (existsSync(`${path}-workers`) ? readdirSync(`${path}-workers`) : []);

describe("another store object on the same file", () => {
  it("hears of a run that was created, of one that was woken, and of mail for a run that it holds", async () => {
    const path = newPath();
    const [here, there] = [await open(path), await open(path)];
    const worker = await here.worker();
    const held = await here.held({}, worker);
    const parked = await there.parked();
    const acts = [
      () => there.store.create([stored(there.newRun())]),
      () => there.store.deliver([message(parked.runId)]),
      () => there.store.deliver([message(held.runId)]),
      () => there.store.retire(parked.lease.workerId),
    ];
    for (const act of acts) {
      const { heard, stop } = hint(here.store);
      await Promise.all([heard, act()]);
      stop();
    }
  });

  it("hears those who have no worker of their own", async () => {
    const path = newPath();
    const [here, there] = [await open(path), await open(path)];
    await here.worker();
    const { heard } = hint(here.store);
    await Promise.all([heard, there.store.create([stored(there.newRun())])]);
    expect(bells(path)).toContain("+bell");
  });

  it("hears another process", async () => {
    const path = newPath();
    const here = await open(path);
    const parked = await here.parked();
    const { heard } = hint(here.store);
    const url = pathToFileURL(join(import.meta.dirname, "../../src/stores/sqlite/index.ts")).href;
    const script = `
      const { sqliteStore } = await import(${JSON.stringify(url)});
      const store = await sqliteStore(${JSON.stringify(path)});
      console.log(JSON.stringify(await store.deliver([${JSON.stringify(message(parked.runId))}])));
      await store.close();`;
    const [, { stdout }] = await Promise.all([
      heard,
      promisify(execFile)(process.execPath, ["--input-type=module", "--eval", script]),
    ]);
    expect(JSON.parse(stdout)).toEqual([{ kind: "stored" }]);
  });
});

describe("a store object that is alone with its file", () => {
  it("tells nobody", async () => {
    const path = newPath();
    const here = await open(path);
    const parked = await here.parked();
    const { stop } = hint(here.store);
    await here.store.deliver([message(parked.runId)]);
    const held = await here.held();
    await here.store.commit([held.next([goOn()])]);
    expect(bells(path)).not.toContain("+bell");
    stop();
  });
});

describe("a directory that cannot be watched or written to", () => {
  it("harms nobody", async () => {
    const path = newPath();
    const [here, there] = [await open(path), await open(path)];
    await here.worker();
    const { stop } = hint(there.store);
    rmSync(`${path}-workers`, { recursive: true });
    chmodSync(join(path, ".."), 0o500);
    await there.store.create([stored(there.newRun())]);
    const other = hint(here.store);
    await here.store.create([stored(here.newRun())]);
    chmodSync(join(path, ".."), 0o700);
    other.stop();
    stop();
  });
});

it("a store in memory alone has no bell", async () => {
  const here = await open(":memory:");
  const { stop } = hint(here.store);
  await here.store.create([stored(here.newRun())]);
  stop();
  expect(existsSync(":memory:-workers")).toBe(false);
});
