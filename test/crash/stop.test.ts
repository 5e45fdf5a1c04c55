// A stop loses nothing: what executes is finished or handed back, and whoever comes next goes on.
import { createRuntime, isError, type Store } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { sqliteStore } from "abstractruntime/sqlite";
import { describe, expect, test } from "vitest";
import { checkRun } from "./invariants.ts";
import { eventually } from "../eventually.ts";
import { liveRuns, observer, Peer, scratch, startsByKey } from "./processes.ts";
import { carryOut, farMs, fastClock, fileOutside, memoryOutside, schedulerOptions, workflowsOf, workloads } from "./workload.ts";
import { keptStore } from "../kept-store.ts";

test.each(["SIGTERM", "SIGINT"] as const)(
  "on %s a process finishes the effects under way, begins nothing, and the next goes on",
  async (signal) => {
    using directory = scratch();
    await using parent = await observer(directory.path);
    const outside = fileOutside(`${directory.path}/outside.jsonl`);
    await using first = await Peer.start({ directory: directory.path, drainMs: 120_000 });
    await parent.start("gated", { runId: "gated", vars: { n: 1 } });
    await eventually(() => startsByKey(outside.seen()).size === 2);

    first.kill(signal);
    await first.told("stopping");
    first.send({ do: "open gates" });
    expect(await first.exit()).toEqual({ code: 0, signal: null });
    const left = (await parent.list()).runs[0];
    // Ready for anybody, and its row says so.
    expect([left?.node, left?.status, left?.holder]).toEqual(["b", "running", undefined]);
    expect(left?.wakeAt).not.toBeNull();
    expect(outside.seen().filter(({ type }) => type === "act")).toEqual([]);

    await using next = await Peer.start({ directory: directory.path });
    expect(await parent.result("gated", { timeoutMs: 100_000 })).toEqual([1, 2, 1]);
    expect((await parent.verify("gated")).problems).toEqual([]);
    expect([...startsByKey(outside.seen()).values()]).toEqual([1, 1, 1]);
    next.send({ do: "stop" });
    expect(await next.exit()).toEqual({ code: 0, signal: null });
  },
);

test("on SIGTERM a process aborts effects that do not end in time; the next knows that they are uncertain", async () => {
  using directory = scratch();
  await using parent = await observer(directory.path);
  const outside = fileOutside(`${directory.path}/outside.jsonl`);
  await using first = await Peer.start({ directory: directory.path, drainMs: 20 });
  await parent.start("gated", { runId: "gated", vars: { n: 1 } });
  await parent.start("asked", { runId: "asked", vars: { n: 2 } });
  await eventually(async () => startsByKey(outside.seen()).size === 2 && (await parent.get("asked")).status === "waiting");
  first.kill("SIGTERM");
  expect(await first.exit()).toEqual({ code: 0, signal: null });
  expect((await parent.list()).runs.map(({ holder }) => holder)).toEqual([undefined, undefined]);

  await using next = await Peer.start({ directory: directory.path });
  next.send({ do: "open gates" });
  await parent.respond("asked", "yes");
  await eventually(async () => (await liveRuns(parent)).length === 0);
  expect((await parent.get("gated")).output).toEqual([1, 2, 1]);
  expect((await parent.get("asked")).output).toEqual([2, "yes"]);
  const holds = outside.seen().filter(({ type, event }) => type === "hold" && event === "start");
  expect(holds.map(({ pid, attempt, uncertain }) => [pid, attempt, uncertain])).toEqual([
    [first.pid, 1, false],
    [first.pid, 1, false],
    [next.pid, 2, true],
    [next.pid, 2, true],
  ]);
  expect([...startsByKey(holds).values()]).toEqual([2, 2]);
  for (const runId of ["gated", "asked"]) expect((await parent.verify(runId)).problems).toEqual([]);
});

const clock = fastClock(500);
const stores: Record<string, () => Promise<Store>> = {
  memory: async () => memoryStore({ clock }),
  SQLite: () => sqliteStore(":memory:", { clock }),
};

describe.each(Object.keys(stores))("over %s", (kind) => {
  test.each(Object.keys(workloads) as (keyof typeof workloads)[])(
    "stopped at any moment, %s loses nothing and its caller hears why",
    async (name) => {
      let points = 0;
      // Turns of the event loop before the stop: each of the first ones, then fewer and fewer.
      for (let done = false, turns = 0; !done; turns += 1 + Math.floor(turns / 4), points += 1) {
        const inner = await (stores[kind] as () => Promise<Store>)();
        const kept: Store = keptStore(inner);
        const outside = memoryOutside();
        const workflow = workflowsOf(outside)[name];
        const options = { clock, store: kept, workflows: [workflow], scheduler: schedulerOptions };
        const first = await createRuntime(options);
        const carried = carryOut(first, workflow, name).then(
          () => true,
          (error: unknown) => {
            if (!isError(error, "RUNTIME_STOPPED")) throw new Error(`Stopped after ${turns} turns`, { cause: error });
            return false;
          },
        );
        for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
        // On this clock the time that a stop gives by default is over in a moment.
        await first.stop({ timeoutMs: farMs });
        done = await carried;
        await using second = await createRuntime(options);
        expect(await carryOut(second, workflow, name)).toEqual(workloads[name].output);
        // Drained: no attempt was cut short.
        await checkRun(second, name, { ...workloads[name], crashes: 0 }, outside.seen());
        await second.stop();
        await inner.close();
      }
      expect(points).toBeGreaterThan(5);
    },
  );
});
