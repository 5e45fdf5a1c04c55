// Any operation of the file system may fail, once or for good, also half-way: what was answered stands, what was refused has not
// happened, and the store goes on, at once or when it is opened again.
import * as fs from "node:fs";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isError } from "../../src/kernel/errors.ts";
import type { Store } from "../../src/kernel/store.ts";
import { openFiles } from "../../src/stores/files/index.ts";
import type { FileSystem } from "../../src/stores/files/journal.ts";
import { testClock } from "../../src/testing/clock.ts";
import { finish, goOn, message, park, stored, taken, World } from "../../src/testing/contract/world.ts";

const clock = testClock();

/** What happens to the n-th operation that changes something, and to those behind it. */
interface Fault {
  at: number;
  code: "EIO" | "ENOSPC";
  /** The process is dead from then on. */
  forGood: boolean;
  /** How much of a write is done. */
  done: number;
}

const changing = ["openSync", "writeSync", "fdatasyncSync", "fsyncSync", "ftruncateSync", "renameSync", "mkdirSync", "rmSync"];

class Faulty {
  operations: string[] = [];
  struck = false;
  readonly fault: Fault | undefined;
  readonly fileSystem: FileSystem;

  constructor(fault?: Fault) {
    this.fault = fault;
    this.fileSystem = new Proxy(fs, {
      get: (target, name: keyof FileSystem) => {
        const member = Reflect.get(target, name);
        if (typeof member !== "function") return member;
        return (...args: unknown[]) => {
          const isChange = changing.includes(name) && !(name === "openSync" && args[1] === fs.constants.O_RDONLY);
          // What the system does for a dead process is let go of its files.
          if (this.struck && this.fault?.forGood && name !== "closeSync") throw this.#error();
          if (isChange) this.operations.push(name);
          if (isChange && this.operations.length === this.fault?.at) {
            this.struck = true;
            if (name === "writeSync") {
              const [fd, bytes, offset, length, at] = args as [number, Buffer, number, number, number];
              fs.writeSync(fd, bytes, offset, Math.floor(length * this.fault.done), at);
            }
            throw this.#error();
          }
          return (member as (...args: unknown[]) => unknown)(...args);
        };
      },
    });
  }

  #error(): Error {
    return Object.assign(new Error(`${this.fault?.code}: a test made it fail`), { code: this.fault?.code });
  }
}

type Step = (store: Store) => Promise<unknown>;

/** Steps that may be made again, and touch every kind of file. The same for every store. */
function steps(): Step[] {
  const world = new World(undefined as never, clock, undefined);
  const lease = { workerId: "w", epoch: 1 };
  const [first, second, third] = [world.newRun(), world.newRun(), world.newRun()] as const;
  const [a, b, c] = [first, second, third].map(({ state }) => world.holder(state, lease)) as [
    ReturnType<World["holder"]>,
    ReturnType<World["holder"]>,
    ReturnType<World["holder"]>,
  ];
  const commits = [
    a.next([goOn(1), goOn(2)], { counters: [{ runId: b.runId, name: "budget", add: 3 }] }),
    b.next([park({ waitKey: "go" })]),
    a.next([goOn("x".repeat(3_000))], { checkpoint: a.checkpoint(1), send: [message(b.runId, { id: "from a" })] }),
  ] as const;
  const both = [
    b.next([taken(message(b.runId, { id: "from a" }))], { take: ["from a"] }),
    c.next([goOn("c")], { start: [stored(world.newRun({ runId: "child" }))] }),
  ];
  const base = a.checkpoint(0);
  const archive = a.next([goOn(3)], { dropBefore: base.seq + 1, checkpoint: base });
  const end = [c.next([finish("c")]), a.next([goOn(4)])];
  return [
    (store) => store.create([stored(first), stored(second)], "w"),
    (store) => store.commit([commits[0]]),
    (store) => store.commit([commits[1]]),
    (store) => store.create([stored(third)], "w"),
    (store) => store.commit([commits[2]]),
    (store) => store.deliver([message(a.runId), message(b.runId, { id: "m2" })]),
    (store) => store.commit(both),
    (store) => store.commit([archive]),
    (store) => store.commit(end),
    (store) => store.purge([c.runId], "it is over"),
  ];
}

async function contentsOf(store: Store): Promise<unknown> {
  const { runs } = await store.query({ order: "oldest" });
  const loaded = await Promise.all(runs.map(({ runId }) => store.load(runId, { whole: true })));
  const checkpoints = await Promise.all(runs.map(({ runId }) => store.checkpoints(runId)));
  const counters = await Promise.all(runs.map(({ runId }) => store.counters(runId)));
  return { runs, loaded, checkpoints, counters, news: await store.news("w", 0) };
}

/** Makes all steps, through whatever happens, and answers whether something did. */
async function survive(plan: readonly Step[], expected: unknown, fault: Fault): Promise<boolean> {
  const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  const faulty = new Faulty(fault);
  let store: Store | undefined;
  try {
    store = await openFiles(directory, { clock }, faulty.fileSystem).catch(expectStoreError);
    store ??= await openFiles(directory, { clock }, fs);
    for (const [i, step] of plan.entries()) {
      for (let tries = 1; ; tries++) {
        try {
          await step(store);
          break;
        } catch (error) {
          expectStoreError(error);
          expect(tries, `step ${i + 1}: ${error}`).toBeLessThan(4);
          // What stands is all steps before, and nothing of this one, or all of it.
          if (isError(error, "STORE_FULL")) expect(await store.query({ limit: 1 })).toBeDefined();
          if (tries === 1 && !fault.forGood && isError(error, "STORE_FULL")) continue;
          await store.close().catch(() => undefined);
          store = await openFiles(directory, { clock }, fs);
        }
      }
    }
    // A process that died after its last answer tells nothing any more.
    if (!(faulty.struck && fault.forGood)) expect(await contentsOf(store)).toEqual(expected);
    await store.close().catch(() => undefined);
    store = await openFiles(directory, { clock }, fs);
    expect(await contentsOf(store)).toEqual(expected);
    return faulty.struck;
  } catch (error) {
    throw new Error(`after ${JSON.stringify(fault)}, ${faulty.operations[fault.at - 1]}`, { cause: error });
  } finally {
    await store?.close().catch(() => undefined);
    rmSync(directory, { recursive: true });
  }
}

function expectStoreError(error: unknown): undefined {
  if (!isError(error, "STORE_FULL") && !isError(error, "STORE_UNAVAILABLE")) throw error;
}

describe("when an operation of the file system fails", () => {
  const faults: Record<string, Omit<Fault, "at">> = {
    "because the disk is full, once": { code: "ENOSPC", forGood: false, done: 0 },
    "because the disk is full, half-way": { code: "ENOSPC", forGood: false, done: 0.5 },
    "because the disk fails, once": { code: "EIO", forGood: false, done: 0.5 },
    "for good: the process dies": { code: "EIO", forGood: true, done: 0 },
    "for good, half-way": { code: "EIO", forGood: true, done: 0.7 },
    "for good, at its end": { code: "EIO", forGood: true, done: 1 },
  };
  // By default a third of the operations for each, and each operation for two; all of them with CRASH_SWEEP=full (`npm run crash`).
  const stride = process.env.CRASH_SWEEP === "full" ? 1 : 3;
  for (const [i, [what, fault]] of Object.entries(faults).entries()) {
    it(`${what}, nothing is lost, whichever it is`, async () => {
      const plan = steps();
      const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
      const calm = new Faulty();
      const reference = await openFiles(directory, { clock }, calm.fileSystem);
      for (const step of plan) await step(reference);
      const expected = await contentsOf(reference);
      await reference.close();
      rmSync(directory, { recursive: true });
      let at = 1 + (i % stride);
      while (await survive(plan, expected, { at, ...fault })) at += stride;
      expect(at).toBeGreaterThan(30);
    });
  }
});

describe("a disk that is full", () => {
  it("refuses writes with STORE_FULL, answers reads, and takes writes again when there is space", async () => {
    const directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
    let full = false;
    const refusing = new Proxy(fs, {
      get(target, name) {
        const member = Reflect.get(target, name);
        if (name !== "writeSync") return member;
        return (...args: unknown[]) => {
          if (full) throw Object.assign(new Error("full"), { code: "ENOSPC" });
          return member(...args);
        };
      },
    });
    const store = await openFiles(directory, { clock }, refusing);
    try {
      const world = new World(store, clock, undefined);
      const holder = await world.held();
      const next = holder.twin().next([goOn()]);
      await store.commit([holder.next([goOn(1)])]);
      const before = await contentsOf(store);
      full = true;
      for (let i = 0; i < 3; i++) {
        await expect(store.deliver([message(holder.runId)])).rejects.toThrow("STORE_FULL");
        await expect(store.commit([next])).rejects.toThrow("STORE_FULL");
        expect(await contentsOf(store)).toEqual(before);
      }
      full = false;
      expect(await store.deliver([message(holder.runId)])).toMatchObject([{ kind: "stored" }]);
      await store.commit([holder.next([goOn(2)])]);
      expect((await store.load(holder.runId))?.row.seq).toBe(2);
    } finally {
      await store.close();
      rmSync(directory, { recursive: true });
    }
  });
});
