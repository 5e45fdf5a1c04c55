// A process that dies in the middle of a turn of three tool calls: at any call of its store, before and after it, and in any tool,
// before and after what it does. Holds that a call whose result was recorded is never carried out again, and that one that was
// under way comes to what its `onUncertain` says.
import {
  type Clock,
  createRuntime,
  isError,
  type OnUncertain,
  type Run,
  type Runtime,
  type Store,
  type Timer,
} from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { type Fault, faultyStore, type TestClock, testClock } from "abstractruntime/testing";
import { localTools, type ToolCall, toolEffect, type ToolExecutor, type ToolResult } from "abstractruntime/tools";
import { describe, expect, test } from "vitest";
import { moved, stopped } from "../../scenarios/harness.ts";
import { batch } from "./batch.ts";
import { keptStore } from "../../kept-store.ts";

interface Death {
  /** At this call of the store, from 1, or in this tool. */
  at: number | string;
  moment: "before" | "after";
}

const names = ["look", "charge", "mail"];
const calls: ToolCall[] = names.map((name, i) => ({ name, callId: `call_${i}`, arguments: {} }));

/** What outlives processes: the store, and what tools did. */
class World {
  readonly clock: TestClock = testClock();
  readonly #store: Store = memoryStore({ clock: this.clock });
  readonly #onUncertain: OnUncertain;
  /** How often each tool did what it does. */
  readonly done = new Map(names.map((name) => [name, 0]));
  /** Calls that had a recorded result when they were carried out. */
  readonly repeated: string[] = [];
  died = false;

  constructor(onUncertain: OnUncertain) {
    this.#onUncertain = onUncertain;
  }

  /** One process: it drives the run until it waits or ends, or dies. */
  async live(death?: Death): Promise<void> {
    const recorded = await this.recorded();
    const timers = new Set<Timer>();
    const faults: Fault[] = [];
    let workerId = "";
    let die = (): Promise<never> => new Promise(() => undefined);
    const dead = new Promise<void>((resolve) => {
      die = () => {
        this.died = true;
        faults.push({ kind: "fail" });
        resolve();
        return new Promise(() => undefined);
      };
    });
    const hear: Fault["on"] = (method, args) => {
      if (method === "renew") workerId = args[0] as string;
      return false;
    };
    faults.push({ kind: "fail", on: hear });
    if (typeof death?.at === "number") faults.push({ kind: "run", run: die, call: death.at, after: death.moment === "after" });
    const act = async (name: string): Promise<string> => {
      if (recorded.has(name)) this.repeated.push(name);
      if (death?.at === name && death.moment === "before") return die();
      this.done.set(name, (this.done.get(name) ?? 0) + 1);
      return death?.at === name ? die() : `${name} done`;
    };
    const clock: Clock = {
      now: () => this.clock.now(),
      setTimer: (...given) => {
        const timer = this.clock.setTimer(...given);
        timers.add(timer);
        return timer;
      },
    };
    const lived = async (): Promise<void> => {
      const effects = [toolEffect(this.#tools(act))];
      const store = faultyStore(this.#kept(), faults);
      const runtime = await createRuntime({ workflows: [batch], effects, store, clock, scheduler: false });
      const { runId } = await runtime.start(batch, { runId: "batch", vars: { calls } });
      await runtime.tick(runId);
      await runtime.stop({ timeoutMs: 0 });
    };
    const life = lived().catch((error: unknown) => (this.died ? dead : Promise.reject(error)));
    await moved(Promise.race([life, dead]), this.clock, 50);
    for (const timer of timers) timer.cancel();
    // Its host knows that the process is gone.
    if (workerId !== "") await this.#store.retire(workerId);
  }

  #tools(act: (name: string) => Promise<string>): ToolExecutor {
    const forms = names.map((name) => [name, { run: () => act(name), speculative: name === "look" }]);
    return localTools(Object.fromEntries(forms), { onUncertain: this.#onUncertain });
  }

  /** Looks at what is stored. */
  async with<T>(ask: (runtime: Runtime) => Promise<T>): Promise<T> {
    const runtime = await createRuntime({ workflows: [batch], store: this.#kept(), clock: this.clock, scheduler: false });
    try {
      return await moved(ask(runtime), this.clock, 10);
    } finally {
      await stopped(runtime, this.clock);
    }
  }

  /** Runtimes close their store; this one outlives them. */
  #kept(): Store {
    return keptStore(this.#store);
  }

  get(): Promise<Run> {
    return this.with((runtime) => runtime.get("batch"));
  }

  /** The calls whose results stand in the ledger. */
  async recorded(): Promise<Set<string>> {
    const records = await this.with((runtime) => runtime.ledger("batch")).catch((error: unknown) => {
      if (isError(error, "RUN_NOT_FOUND")) return [];
      throw error;
    });
    const completed = records.filter(({ kind, effectId }) => kind === "effect_completed" && effectId?.startsWith("1."));
    return new Set(completed.map(({ effectId = "" }) => names[Number(effectId.slice(2))] as string));
  }
}

/** Dies there, lets others go on, and looks at what the calls came to. Answers whether it died. */
async function diesAt(death: Death, onUncertain: OnUncertain): Promise<boolean> {
  const world = new World(onUncertain);
  await world.live(death);
  for (let lives = 0; lives < 5; lives++) {
    await world.clock.advance(60_000);
    await world.live();
    const run = await world.get();
    if (run.status !== "waiting") break;
    for (const { waitKey, details } of run.waits) {
      const { toolCall } = details as unknown as { toolCall: ToolCall };
      // The person looks where the tool left its traces.
      const payload = world.done.get(toolCall.name) === 1 ? { result: `${toolCall.name} done` } : { retry: true };
      await world.with((runtime) => runtime.resume("batch", { waitKey, payload }));
    }
  }
  const where = `${onUncertain}, ${death.moment} ${death.at}`;
  expect(world.repeated, where).toEqual([]);
  const run = await world.get();
  expect([where, run.status, run.error]).toEqual([where, "completed", undefined]);
  const { results } = run.output as unknown as { results: ToolResult[] };
  for (const [i, { name, callId }] of calls.entries()) {
    const result = results[i] as ToolResult;
    const done = world.done.get(name) as number;
    expect(result, where).toMatchObject({ name, callId });
    if (result.success) {
      expect(result.output, where).toBe(`${name} done`);
      // Only what may be carried out again was.
      if (onUncertain === "retry" || name === "look") expect(done, where).toBeGreaterThan(0);
      else expect(done, where).toBe(1);
      expect(done, where).toBeLessThan(3);
    } else {
      expect([where, onUncertain, result.error?.code]).toEqual([where, "fail", "EFFECT_UNCERTAIN"]);
      expect(done, where).toBeLessThan(2);
      expect(name, where).not.toBe("look");
      expect(world.died, where).toBe(true);
    }
  }
  expect((await world.with((runtime) => runtime.verify("batch"))).ok, where).toBe(true);
  return world.died;
}

describe.each(["fail", "ask", "retry"] as const)("with onUncertain %s", (onUncertain) => {
  test.each(["before", "after"] as const)("a death %s any call of the store is overcome", async (moment) => {
    let at = 1;
    while (await diesAt({ at, moment }, onUncertain)) at += 1;
    expect(at).toBeGreaterThan(6);
  });

  test.each(names.flatMap((name) => (["before", "after"] as const).map((moment) => [moment, name] as const)))(
    "a death %s what tool %s does is overcome",
    async (moment, name) => {
      expect(await diesAt({ at: name, moment }, onUncertain)).toBe(true);
    },
  );
});

test("a tool that ends its process every time comes to an end", async () => {
  for (const name of ["look", "mail"]) {
    const world = new World("retry");
    for (let lives = 0; lives < 20 && (lives === 0 || (await world.get()).status !== "completed"); lives++) {
      await world.live({ at: name, moment: "after" });
      await world.clock.advance(60_000);
    }
    const run = await world.get();
    const results = (run.output as unknown as { results: ToolResult[] } | undefined)?.results ?? [];
    expect(results.find((result) => result.name === name)).toMatchObject({ success: false, error: { code: "EFFECT_UNCERTAIN" } });
    // What is carried out beside it dies with it every time, and comes to the same end.
    if (name === "mail") expect(results.filter(({ success }) => success)).toHaveLength(2);
    expect(world.repeated).toEqual([]);
  }
});
