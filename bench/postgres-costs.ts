/**
 * What a step costs the server: the parameters of `npm run scaling`. Processor time of its backends, as the system counts it, so that
 * load on the machine matters less than to a stopwatch. Linux only, on a server of our own.
 */
import { readFileSync } from "node:fs";
import { postgresStore } from "abstractruntime/postgres";
import { testClock } from "abstractruntime/testing";
import type { RunState } from "../src/kernel/run.ts";
import type { Lease } from "../src/kernel/transition.ts";
import { goOn, Holder, park, stored, World } from "../src/testing/contract/world.ts";
import { newSchema, sqlOn, startServer } from "../test/stores/postgres-server.ts";
import type { Figure } from "./figure.ts";
import type { Settings } from "./settings.ts";

/** The system counts in hundredths of a second. */
const tickMs = 10;

export async function costs(settings: Settings): Promise<Figure[]> {
  const server = await startServer();
  const schema = newSchema();
  const clock = testClock();
  // One connection: its backend's time is what is read.
  const store = await postgresStore({ connectionString: server.url, schema, clock, connections: 1, listen: false });
  try {
    const [{ pid } = { pid: 0 }] = (await sqlOn(
      "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY backend_start DESC LIMIT 1",
      server.url,
    )) as { pid: number }[];
    const spent = (): number => {
      const fields = readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]?.split(" ") ?? [];
      return (Number(fields[11]) + Number(fields[12])) * tickMs;
    };
    const world = new World(store, clock, undefined);
    const measure = async (times: number, act: () => Promise<unknown>): Promise<{ cpuMs: number; wallMs: number }> => {
      for (let i = 0; i < Math.min(50, times); i++) await act();
      const [cpu, began] = [spent(), performance.now()];
      for (let i = 0; i < times; i++) await act();
      return { cpuMs: (spent() - cpu) / times, wallMs: (performance.now() - began) / times };
    };
    const holders: Holder[] = [];
    for (let i = 0; i < 64; i++) holders.push(await world.held());
    const group = (size: number) => (): Promise<unknown> =>
      Promise.all(holders.slice(0, size).map((holder) => store.commit([holder.next([goOn("x".repeat(200))])])));
    const times = settings.scaled(2_000);
    const alone = await measure(times, group(1));
    const many = await measure(Math.ceil(times / 8), group(64));
    const transitionMs = (many.cpuMs - alone.cpuMs) / 63;
    const worker = await world.worker();
    const look = await measure(times, () => store.claim(worker, { limit: 50 }));
    let [claimMs, parkMs, total] = [0, 0, 0];
    for (let round = 0; round < settings.rounds(20); round++) {
      const made = Array.from({ length: 50 }, () => world.newRun());
      const states = new Map(made.map(({ state }) => [state.runId, state]));
      await store.create(made.map((run) => stored(run)));
      const before = spent();
      const claimed = await store.claim(worker, { limit: 50 });
      total += claimed.length;
      claimMs += spent() - before;
      const parking = claimed.map(({ row, lease }) => {
        const state = states.get(row.runId) as RunState;
        return new Holder(state, lease as Lease, clock, world.ids).next([park({ waitKey: row.runId })], { release: true });
      });
      const claimedAt = spent();
      await Promise.all(parking.map((transition) => store.commit([transition])));
      parkMs += spent() - claimedAt;
    }
    const cost = (name: string, ours: number, note: string): Figure => ({ name, on: "postgres", unit: "ms", ours, note });
    return [
      cost("server: a group of one step", alone.cpuMs, `${alone.wallMs.toFixed(3)} ms until it is answered`),
      cost("server: each further step of a group", transitionMs, `a group of 64 is answered after ${many.wallMs.toFixed(2)} ms`),
      cost("server: a look that finds nothing", look.cpuMs, `${look.wallMs.toFixed(3)} ms until it is answered`),
      cost("server: each step that parks its run", parkMs / total, "50 in a group, with a wait each"),
      cost("server: each run that is claimed", claimMs / total, "50 at a time, with their records"),
    ];
  } finally {
    await store.close();
    await server.remove();
  }
}
