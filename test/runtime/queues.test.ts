// Queues: how many runs are driven at once, of whom, how fast they begin, and in which order, over all processes of a store.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import {
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  fanOut,
  goto,
  type RunQuery,
  type Runtime,
  type RuntimeOptions,
  type StartOptions,
  sleep,
  type Store,
  subworkflow,
  type Workflow,
} from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { type Fault, faultyStore, type TestClock, testClock } from "../../src/testing/index.ts";
import { refusal } from "../scenarios/harness.ts";

/** What runs do here: each begins, and goes on when the test lets it. */
class Work {
  /** In the order in which they began. */
  readonly begun: string[] = [];
  readonly #open = new Map<string, () => void>();
  mostAtOnce = 0;

  readonly effect = defineEffect("work", {
    onUncertain: "retry",
    run: ({ name }: { name: string }, { signal }) =>
      new Promise<string>((resolve, reject) => {
        this.begun.push(name);
        this.#open.set(name, () => resolve(name));
        this.mostAtOnce = Math.max(this.mostAtOnce, this.#open.size);
        signal.addEventListener("abort", () => {
          this.#open.delete(name);
          reject(signal.reason);
        });
      }),
  });

  get underWay(): string[] {
    return [...this.#open.keys()];
  }

  end(name: string): void {
    const open = this.#open.get(name);
    if (!open) throw new Error(`${name} is not under way: ${this.underWay.join(", ")}`);
    this.#open.delete(name);
    open();
  }

  /** As when its process has died: nobody hears of its end. */
  forget(): void {
    this.#open.clear();
  }
}

interface Bench {
  clock: TestClock;
  work: Work;
  flow: Workflow<any, any, any>;
  /** Opens another runtime over the store. */
  open(options: RuntimeOptions): Promise<Runtime & { kill(): Promise<void> }>;
  settle(): Promise<void>;
  advance(ms: number): Promise<void>;
}

function queued(name: string, play: (bench: Bench) => Promise<void>): void {
  describe(name, () => {
    for (const kind of ["memory", "sqlite"] as const) {
      test(`on ${kind}`, async () => {
        const directory = mkdtempSync(join(tmpdir(), "queues-"));
        const clock = testClock();
        const work = new Work();
        const shared = kind === "memory" ? memoryStore({ clock }) : undefined;
        const opened: Runtime[] = [];
        const inners: Store[] = [];
        let calls = 0;
        const settle = async () => {
          for (let calm = 0, before = -1; calm < 8; ) {
            await new Promise((resolve) => setImmediate(resolve));
            calm = calls === before ? calm + 1 : 0;
            before = calls;
          }
        };
        const flow = defineWorkflow({
          id: "flow",
          entry: "go",
          effects: [work.effect],
          nodes: {
            go: ({ vars }) =>
              work.effect({ name: vars.name as string }, { resultKey: "got", nextNode: vars.asks ? "ask" : "end" }),
            ask: () => askUser({ prompt: "?" }, { nextNode: "again" }),
            again: ({ vars }) => work.effect({ name: `${vars.name} again` }, { nextNode: "end" }),
            end: ({ vars }) => complete(vars.got),
          },
        });
        try {
          await play({
            clock,
            work,
            flow,
            open: async (options) => {
              const inner: Store = shared ?? (await sqliteStore(join(directory, "runs.db"), { clock }));
              inners.push(inner);
              const counted = () => {
                calls += 1;
                return false;
              };
              const faults: Fault[] = [{ kind: "fail", on: counted }];
              const store = faultyStore(inner, faults);
              if (shared) store.close = async () => undefined;
              const runtime = await createRuntime({ workflows: [flow], clock, store, ...options });
              opened.push(runtime);
              return Object.assign(runtime, {
                // Its calls fail from now on, and nobody says that it is dead: its lease has to run out.
                kill: async () => void faults.push({ kind: "fail" }),
              });
            },
            settle,
            advance: async (ms) => {
              await settle();
              await clock.advance(ms);
              await settle();
            },
          });
        } finally {
          for (const runtime of opened) {
            let done = false;
            const stopping = runtime
              .stop({ timeoutMs: 0 })
              .catch(() => undefined)
              .finally(() => (done = true));
            for (let i = 0; !done && i < 200; i++) await clock.advance(100);
            await stopping;
          }
          // Those of processes that died, or that never came to life, too.
          for (const inner of inners) await inner.close();
          rmSync(directory, { recursive: true, force: true });
        }
      });
    }
  });
}

const startMany = async (
  runtime: Runtime,
  flow: Workflow<any, any, any>,
  names: readonly string[],
  options: (name: string, i: number) => StartOptions,
) => {
  const runIds: Record<string, string> = {};
  for (const [i, name] of names.entries()) {
    const { vars, ...rest } = options(name, i);
    runIds[name] = (await runtime.start(flow, { vars: { name, ...(vars ?? {}) }, ...rest })).runId;
  }
  return runIds;
};
const statuses = async (runtime: Runtime, query: RunQuery = {}) =>
  (await runtime.list({ order: "oldest", ...query })).runs.map(({ status }) => status);

// ---- Concurrency ---------------------------------------------------------------------------------------------------------

queued("concurrency holds over two runtimes of one store", async ({ work, flow, open, settle, advance }) => {
  const queues = { q: { concurrency: 2 } };
  const one = await open({ queues });
  const two = await open({ queues });
  const names = ["a", "b", "c", "d", "e"];
  const runIds: Record<string, string> = {};
  for (const [i, name] of names.entries())
    Object.assign(runIds, await startMany(i % 2 ? one : two, flow, [name], () => ({ queue: "q" })));
  await settle();
  const order: string[] = [];
  while (order.length < names.length) {
    await advance(1_000);
    expect(work.underWay.length).toBeGreaterThan(0);
    expect(work.underWay.length).toBeLessThanOrEqual(2);
    const next = work.underWay[0] as string;
    order.push(next);
    work.end(next);
    await settle();
  }
  expect(work.mostAtOnce).toBe(2);
  expect(await statuses(one)).toEqual(names.map(() => "completed"));
  expect(work.begun).toEqual(names);
});

queued("a run without a queue needs no slot", async ({ work, flow, open, settle }) => {
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  await startMany(runtime, flow, ["q1", "q2"], () => ({ queue: "q" }));
  await startMany(runtime, flow, ["free1", "free2"], () => ({}));
  await settle();
  expect(work.underWay.toSorted()).toEqual(["free1", "free2", "q1"]);
});

queued("a slot that becomes free is given at once, without a poll", async ({ work, flow, open, settle }) => {
  const queues = { q: { concurrency: 1 } };
  const runtime = await open({ queues });
  await startMany(runtime, flow, ["a", "b"], () => ({ queue: "q" }));
  await settle();
  expect(work.underWay).toEqual(["a"]);
  work.end("a");
  await settle();
  expect(work.underWay).toEqual(["b"]);
});

queued("a slot is free while its run waits, and needed again when that goes on", async ({ work, flow, open, settle }) => {
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  const runIds = await startMany(runtime, flow, ["a", "b"], (name) => ({ queue: "q", vars: { asks: name === "a" } }));
  await settle();
  work.end("a");
  await settle();
  expect(work.underWay).toEqual(["b"]);
  await runtime.respond(runIds.a as string, "go on");
  await settle();
  expect(work.underWay).toEqual(["b"]);
  // Taken up only when its turn comes.
  expect(await runtime.get(runIds.a as string)).toMatchObject({ status: "waiting" });
  work.end("b");
  await settle();
  expect(work.underWay).toEqual(["a again"]);
  work.end("a again");
  await settle();
  expect(await statuses(runtime)).toEqual(["completed", "completed"]);
});

queued("the slots of a process that died are free when its lease has run out", async ({ work, flow, open, settle, advance }) => {
  const queues = { q: { concurrency: 2 } };
  const one = await open({ queues });
  await startMany(one, flow, ["a", "b"], () => ({ queue: "q" }));
  await settle();
  expect(work.underWay).toEqual(["a", "b"]);
  const two = await open({ queues });
  await startMany(two, flow, ["c", "d"], () => ({ queue: "q" }));
  await advance(2_000);
  expect(work.begun).toEqual(["a", "b"]);
  await one.kill();
  work.forget();
  // Its lease of 30 s, and a poll; attempts that were cut off are made again after their backoff.
  for (let s = 0; s < 40; s++) await advance(1_000);
  expect(work.underWay).toHaveLength(2);
  for (let i = 0; i < 8 && work.underWay.length > 0; i++) {
    expect(work.underWay.length).toBeLessThanOrEqual(2);
    for (const name of work.underWay) work.end(name);
    await advance(2_000);
  }
  expect(await statuses(two)).toEqual(["completed", "completed", "completed", "completed"]);
});

queued(
  "two runtimes that start, end and wait at once never hold more than there are slots",
  async ({ clock, work, flow, open, settle }) => {
    const queues = { q: { concurrency: 3 } };
    const runtimes = [await open({ queues }), await open({ queues })];
    await Promise.all(
      Array.from({ length: 24 }, (_, i) => runtimes[i % 2]!.start(flow, { vars: { name: `r${i}` }, queue: "q" })),
    );
    for (let ended = 0; ended < 24; ) {
      await settle();
      await clock.advance(1_000);
      await settle();
      const { underWay } = work;
      expect(underWay.length).toBeGreaterThan(0);
      // Several in one turn.
      for (const name of underWay.slice(0, 1 + (ended % 3))) {
        work.end(name);
        ended += 1;
      }
    }
    await settle();
    expect(work.mostAtOnce).toBe(3);
    expect(work.begun).toHaveLength(24);
  },
);

// ---- Keys ----------------------------------------------------------------------------------------------------------------

queued(
  "keyConcurrency limits each key, and one tenant's backlog keeps nobody else waiting",
  async ({ work, flow, open, settle }) => {
    const runtime = await open({ queues: { q: { concurrency: 3, keyConcurrency: 1 } } });
    await startMany(runtime, flow, ["a1", "a2", "a3", "b1", "c1", "b2"], (name) => ({ queue: "q", queueKey: name[0] }));
    await settle();
    expect(work.underWay.toSorted()).toEqual(["a1", "b1", "c1"]);
    work.end("b1");
    await settle();
    expect(work.underWay.toSorted()).toEqual(["a1", "b2", "c1"]);
    work.end("a1");
    await settle();
    expect(work.underWay.toSorted()).toEqual(["a2", "b2", "c1"]);
  },
);

queued("a key with hundreds of runs before another's does not starve it", async ({ work, flow, open, settle }) => {
  const runtime = await open({ queues: { q: { keyConcurrency: 1 } }, scheduler: { concurrency: 5 } });
  for (let i = 0; i < 300; i++) await runtime.start(flow, { vars: { name: `a${i}` }, queue: "q", queueKey: "a" });
  await runtime.start(flow, { vars: { name: "b" }, queue: "q", queueKey: "b" });
  await runtime.start(flow, { vars: { name: "nobody's" }, queue: "q" });
  await settle();
  expect(work.underWay).toContain("a0");
  expect(work.underWay).toContain("b");
  expect(work.underWay).toContain("nobody's");
  expect(work.underWay).toHaveLength(3);
});

// ---- Rates ---------------------------------------------------------------------------------------------------------------

queued(
  "rateLimit: no more begin in any window, and the next at the exact moment",
  async ({ clock, work, flow, open, settle, advance }) => {
    const limits = { q: { rateLimit: { limit: 2, periodMs: 10_000 } } };
    const one = await open({ queues: limits });
    await open({ queues: limits });
    const begin = clock.now();
    const times: number[] = [];
    const note = () => {
      while (times.length < work.begun.length) times.push(clock.now() - begin);
    };
    const run = async (ms: number) => {
      for (let passed = 0; passed < ms; passed += 500) {
        await advance(500);
        note();
      }
    };
    await startMany(one, flow, ["a"], () => ({ queue: "q" }));
    await settle();
    note();
    await run(4_000);
    await startMany(one, flow, ["b", "c", "d", "e"], () => ({ queue: "q" }));
    await settle();
    note();
    await run(30_000);
    // A sliding window: a at 0, b at 4,000; c when a is 10 s ago, d when b is, and so on.
    expect(times).toEqual([0, 4_000, 10_000, 14_000, 20_000]);
    expect(work.begun).toEqual(["a", "b", "c", "d", "e"]);
  },
);

queued("rateLimit counts beginnings: who waits and goes on is not held back", async ({ work, flow, open, settle, advance }) => {
  const runtime = await open({ queues: { q: { rateLimit: { limit: 1, periodMs: 60_000 } } } });
  const { a } = await startMany(runtime, flow, ["a", "b"], () => ({ queue: "q", vars: { asks: true } }));
  await settle();
  work.end("a");
  await settle();
  await runtime.respond(a as string, "go on");
  await settle();
  expect(work.underWay).toEqual(["a again"]);
  await advance(59_000);
  expect(work.begun).toEqual(["a", "a again"]);
  await advance(1_000);
  expect(work.begun).toEqual(["a", "a again", "b"]);
});

queued("rateLimit with concurrency and priority: each has its say", async ({ work, flow, open, settle, advance }) => {
  const runtime = await open({ queues: { q: { concurrency: 1, rateLimit: { limit: 2, periodMs: 10_000 } } } });
  await startMany(runtime, flow, ["a", "b", "c"], (_, i) => ({ queue: "q", priority: i }));
  await settle();
  const first = work.underWay[0] as string;
  work.end(first);
  await settle();
  expect(work.underWay).toHaveLength(1);
  work.end(work.underWay[0] as string);
  await settle();
  expect(work.underWay).toEqual([]);
  await advance(9_999);
  expect(work.underWay).toEqual([]);
  await advance(1);
  expect(work.underWay).toHaveLength(1);
});

// ---- Order ---------------------------------------------------------------------------------------------------------------

queued("the highest priority goes first, and within it who has waited longest", async ({ work, flow, open, settle, advance }) => {
  const idle = await open({ queues: { q: { concurrency: 1 } }, scheduler: false });
  const priorities: [string, number][] = [
    ["low", -5],
    ["b", 0],
    ["high", 9],
    ["c", 0],
    ["highest", 100],
    ["high too", 9],
    ["lowest", -100],
  ];
  for (const [name, priority] of priorities) {
    await idle.start(flow, { vars: { name }, queue: "q", priority });
    await advance(1);
  }
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  for (let i = 0; i < priorities.length; i++) {
    await settle();
    expect(work.underWay).toHaveLength(1);
    work.end(work.underWay[0] as string);
  }
  await settle();
  expect(work.begun).toEqual(["highest", "high", "high too", "b", "c", "low", "lowest"]);
  expect(await statuses(runtime)).toEqual(priorities.map(() => "completed"));
});

queued("priorities hold without queues, where a worker has few places", async ({ work, flow, open, settle }) => {
  const idle = await open({ scheduler: false });
  for (const [name, priority] of [
    ["a", 0],
    ["b", 50],
    ["c", -1],
  ] as const)
    await idle.start(flow, { vars: { name }, priority });
  await open({ scheduler: { concurrency: 1 } });
  for (let i = 0; i < 3; i++) {
    await settle();
    work.end(work.underWay[0] as string);
  }
  await settle();
  expect(work.begun).toEqual(["b", "a", "c"]);
});

queued("priorities out of range, fractions and words are refused", async ({ flow, open }) => {
  const runtime = await open({});
  for (const priority of [101, -101, 0.5, Number.NaN, "high"] as any[])
    expect(await refusal(runtime.start(flow, { priority })), String(priority)).toMatch(/^INVALID_OPTION/);
});

queued("delayMs and startAt: not before that moment, in a queue or not", async ({ clock, work, flow, open, advance, settle }) => {
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  const now = clock.now();
  await startMany(runtime, flow, ["delayed"], () => ({ delayMs: 5_000 }));
  await startMany(runtime, flow, ["at"], () => ({ startAt: new Date(now + 7_000) }));
  await startMany(runtime, flow, ["past"], () => ({ startAt: now - 1_000 }));
  await startMany(runtime, flow, ["text"], () => ({ startAt: new Date(now + 9_000).toISOString(), queue: "q" }));
  await settle();
  expect(work.begun).toEqual(["past"]);
  await advance(4_999);
  expect(work.begun).toEqual(["past"]);
  await advance(1);
  expect(work.begun).toEqual(["past", "delayed"]);
  await advance(2_000);
  expect(work.begun).toEqual(["past", "delayed", "at"]);
  await advance(2_000);
  expect(work.begun).toEqual(["past", "delayed", "at", "text"]);
  expect(await refusal(runtime.start(flow, { startAt: now + 1_000, delayMs: 11_000 }))).toMatch(/^INVALID_OPTION.*give one/);
  for (const delayMs of [Number.POSITIVE_INFINITY, 1e20, 9e15])
    expect(await refusal(runtime.start(flow, { delayMs }))).toMatch(/^INVALID_OPTION: delayMs/);
  expect(await refusal(runtime.start(flow, { startAt: "soon" }))).toMatch(/^INVALID_OPTION/);
  expect(await refusal(runtime.start(flow, { delayMs: -1 }))).toMatch(/^INVALID_OPTION/);
});

queued("a delayed run holds no slot, and can be cancelled before it began", async ({ work, flow, open, settle, advance }) => {
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  const { later } = await startMany(runtime, flow, ["later"], () => ({ queue: "q", delayMs: 60_000 }));
  await startMany(runtime, flow, ["now"], () => ({ queue: "q" }));
  await settle();
  expect(work.underWay).toEqual(["now"]);
  work.end("now");
  await settle();
  await runtime.cancel(later as string);
  await advance(100);
  expect(await runtime.get(later as string)).toMatchObject({ status: "cancelled" });
  await advance(60_000);
  expect(work.begun).toEqual(["now"]);
});

queued("a queued run is cancelled though its queue is full", async ({ work, flow, open, settle, advance }) => {
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  const { b } = await startMany(runtime, flow, ["a", "b"], () => ({ queue: "q" }));
  await settle();
  await runtime.cancel(b as string);
  await advance(100);
  expect(await runtime.get(b as string)).toMatchObject({ status: "cancelled" });
  expect(work.underWay).toEqual(["a"]);
  expect(work.begun).toEqual(["a"]);
  work.end("a");
  await advance(100);
});

// ---- Starting ------------------------------------------------------------------------------------------------------------

queued("a queue that nobody named is refused, with what was meant", async ({ flow, open }) => {
  const runtime = await open({ queues: { emails: {}, reports: { concurrency: 1 } } });
  const refused = await refusal(runtime.start(flow, { queue: "email" }));
  expect(refused).toMatch(/^INVALID_OPTION.*"email".*emails, reports.*Did you mean "emails"\?/s);
  expect(await refusal(runtime.run(flow, { queue: "toString" }))).toMatch(/^INVALID_OPTION/);
  expect(await refusal(runtime.start(flow, { queueKey: "x" } as any))).toMatch(/nothing was refused|INVALID_OPTION/);
});

queued("limits that make no sense are refused", async ({ open }) => {
  const bad: any[] = [
    { q: { concurrency: 0 } },
    { q: { concurrency: -1 } },
    { q: { concurrency: 1.5 } },
    { q: { concurrency: Number.POSITIVE_INFINITY } },
    { q: { keyConcurrency: 0 } },
    { q: { rateLimit: { limit: 0, periodMs: 10 } } },
    { q: { rateLimit: { limit: 1, periodMs: 0 } } },
    { q: { rateLimit: { limit: 1 } } },
    { q: { rateLimit: { periodMs: 10 } } },
    { q: { rateLimit: { limit: 1, periodMs: Number.NaN } } },
    { q: { rateLimit: null } },
    { q: { concurency: 1 } },
    { q: null },
    { q: 3 },
    "q",
  ];
  const refused = [];
  for (const queues of bad) if (/^INVALID_OPTION/.test(await refusal(open({ queues })))) refused.push(queues);
  expect(refused).toEqual(bad);
});

queued("run() of a queued run waits for its turn", async ({ work, flow, open, settle, advance }) => {
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  await startMany(runtime, flow, ["first"], () => ({ queue: "q" }));
  await settle();
  let ended: any;
  const running = runtime.run(flow, { vars: { name: "second" }, queue: "q" }).then((run) => (ended = run));
  await advance(5_000);
  expect(work.begun).toEqual(["first"]);
  expect(ended).toBeUndefined();
  work.end("first");
  await settle();
  expect(work.underWay).toEqual(["second"]);
  work.end("second");
  await advance(1_000);
  await running;
  expect(ended).toMatchObject({ status: "completed", output: "second", queue: "q" });
  // Until it waits, too.
  const asks = runtime.run(flow, { vars: { name: "third", asks: true }, queue: "q" });
  await settle();
  work.end("third");
  await advance(1_000);
  expect(await asks).toMatchObject({ status: "waiting" });
});

queued("run() of a queued run found by its id waits for that one", async ({ work, flow, open, settle, advance }) => {
  const runtime = await open({ queues: { q: { concurrency: 1 } } });
  const options = { vars: { name: "x" }, queue: "q", runId: "mine" };
  const both = [runtime.run(flow, options), runtime.run(flow, options)];
  await settle();
  work.end("x");
  await advance(1_000);
  for (const run of await Promise.all(both)) expect(run).toMatchObject({ runId: "mine", status: "completed" });
  expect(work.begun).toEqual(["x"]);
});

// ---- Children ------------------------------------------------------------------------------------------------------------

queued(
  "children stand in their own queue, and a parent that waits for them holds no slot",
  async ({ work, flow, open, advance }) => {
    const parent = defineWorkflow({
      id: "parent",
      entry: "go",
      nodes: {
        go: ({ vars }) =>
          subworkflow(
            flow,
            { vars: { name: vars.name }, queue: "q", queueKey: "k", priority: 3 },
            { resultKey: "got", nextNode: "end" },
          ),
        end: ({ vars }) => complete(vars.got.output),
      },
    });
    // Parent and child in one queue of one slot: it must not lock itself.
    const runtime = await open({ queues: { q: { concurrency: 1 } }, workflows: [parent, flow] });
    const runIds = await startMany(runtime, parent, ["a", "b"], () => ({ queue: "q" }));
    for (const name of ["a", "b"]) {
      await advance(2_000);
      const child = (await runtime.list({ parentRunId: runIds[name] })).runs[0];
      expect(child).toMatchObject({ queue: "q", queueKey: "k", priority: 3 });
      if (!work.underWay.includes(name)) work.end(work.underWay[0] as string);
      await advance(2_000);
      if (work.underWay.includes(name)) work.end(name);
      await advance(2_000);
    }
    expect(await statuses(runtime)).toEqual(["completed", "completed", "completed", "completed"]);
    expect(work.mostAtOnce).toBe(1);
  },
);

queued("a fanOut in a queue begins as many as the queue lets", async ({ work, flow, open, settle, advance }) => {
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: () =>
        fanOut(
          flow,
          { items: Array.from({ length: 6 }, (_, i) => ({ name: `c${i}` })), queue: "q" },
          { resultKey: "got", nextNode: "end" },
        ),
      end: ({ vars }) => complete(vars.got.map(({ output }: any) => output)),
    },
  });
  const runtime = await open({ queues: { q: { concurrency: 2 } }, workflows: [parent, flow] });
  const { runId } = await runtime.start(parent);
  for (let i = 0; i < 6; i++) {
    await settle();
    expect(work.underWay.length).toBe(Math.min(2, 6 - i));
    work.end(work.underWay[0] as string);
  }
  await advance(1_000);
  expect(await runtime.get(runId)).toMatchObject({ status: "completed", output: ["c0", "c1", "c2", "c3", "c4", "c5"] });
});

queued(
  "a child for a queue that this process does not name stands in it until a process serves it",
  async ({ work, flow, open, settle, advance }) => {
    const parent = defineWorkflow({
      id: "parent",
      entry: "go",
      nodes: {
        go: () => subworkflow(flow, { vars: { name: "child" }, queue: "theirs" }, { nextNode: "end" }),
        end: () => complete(),
      },
    });
    const runtime = await open({ queues: { q: {} }, workflows: [parent, flow] });
    const { runId } = await runtime.start(parent);
    await advance(10_000);
    expect(await runtime.get(runId)).toMatchObject({ status: "waiting" });
    expect((await runtime.health()).problems.join()).toMatch(/1 run is due in queue "theirs", which this process does not serve/);
    const other = await open({ queues: { theirs: {} }, workflows: [parent, flow] });
    await advance(2_000);
    work.end("child");
    await advance(2_000);
    await settle();
    expect(await other.get(runId)).toMatchObject({ status: "completed" });
  },
);

// ---- Others' trouble -----------------------------------------------------------------------------------------------------

queued("runs that nobody can drive do not starve the others of their queue", async ({ work, flow, open, settle, advance }) => {
  const unknownEffect = defineWorkflow({
    id: "blocked",
    entry: "go",
    nodes: { go: () => ({ effect: { type: "not_here", payload: {} }, nextNode: "end" }) as any, end: () => complete() },
  });
  const elsewhere = defineWorkflow({ id: "elsewhere", entry: "go", nodes: { go: () => complete() } });
  const throws = defineWorkflow({
    id: "throws",
    entry: "go",
    nodes: {
      go: () => {
        throw new Error("broken");
      },
    },
  });
  const queues = { q: { concurrency: 1 } };
  const idle = await open({ queues, scheduler: false, workflows: [unknownEffect, elsewhere, throws, flow] });
  for (let i = 0; i < 30; i++)
    for (const workflow of [unknownEffect, elsewhere, throws]) await idle.start(workflow, { queue: "q", priority: 50 });
  await idle.start(flow, { vars: { name: "good" }, queue: "q" });
  const runtime = await open({ queues, workflows: [unknownEffect, throws, flow], scheduler: { concurrency: 3 } });
  for (let i = 0; i < 10; i++) await advance(1_000);
  expect(work.underWay).toEqual(["good"]);
  work.end("good");
  await settle();
  expect(await statuses(runtime, { workflowId: "flow" })).toEqual(["completed"]);
  expect(new Set(await statuses(runtime, { workflowId: "throws" }))).toEqual(new Set(["failed"]));
  expect(new Set(await statuses(runtime, { workflowId: "elsewhere" }))).toEqual(new Set(["running"]));
  expect((await runtime.list({ workflowId: "blocked", blocked: true })).runs).toHaveLength(30);
  // Whoever has the code drives them.
  await open({ queues, workflows: [elsewhere] });
  for (let i = 0; i < 10; i++) await advance(1_000);
  expect(new Set(await statuses(runtime, { workflowId: "elsewhere" }))).toEqual(new Set(["completed"]));
});

queued(
  "a worker that does not serve a queue leaves its runs alone, whatever their number",
  async ({ work, flow, open, settle, advance }) => {
    const idle = await open({ queues: { other: {} }, scheduler: false });
    for (let i = 0; i < 150; i++) await idle.start(flow, { vars: { name: `o${i}` }, queue: "other", priority: 100 });
    const runtime = await open({ scheduler: { concurrency: 2 } });
    await startMany(runtime, flow, ["mine"], () => ({}));
    await advance(1_000);
    expect(work.begun).toEqual(["mine"]);
    const serving = await open({ queues: { other: { concurrency: 1 } } });
    await settle();
    expect(work.begun).toEqual(["mine", "o0"]);
    void serving;
  },
);

queued("a full queue with a thousand before it does not starve another queue", async ({ work, flow, open, settle }) => {
  const queues = { full: { concurrency: 1 }, open: { concurrency: 1 } };
  const idle = await open({ queues, scheduler: false });
  await Promise.all(
    Array.from({ length: 1_100 }, (_, i) => idle.start(flow, { vars: { name: `f${i}` }, queue: "full", priority: 10 })),
  );
  await idle.start(flow, { vars: { name: "other" }, queue: "open" });
  await idle.start(flow, { vars: { name: "free" } });
  await open({ queues, scheduler: { concurrency: 3 } });
  await settle();
  expect(work.underWay).toContain("other");
  expect(work.underWay).toContain("free");
  expect(work.underWay).toHaveLength(3);
});

queued("a queued run that sleeps gives its slot away and gets one when it wakes", async ({ clock, open, settle, advance }) => {
  const order: string[] = [];
  const napping = defineWorkflow({
    id: "napping",
    entry: "go",
    nodes: {
      go: ({ vars }) => {
        order.push(`${vars.name} sleeps`);
        return sleep(1_000, { nextNode: "wake" });
      },
      wake: ({ vars }) => {
        order.push(`${vars.name} wakes`);
        return goto("end");
      },
      end: () => complete(),
    },
  });
  const runtime = await open({ queues: { q: { concurrency: 1 } }, workflows: [napping] });
  await startMany(runtime, napping, ["a", "b"], () => ({ queue: "q" }));
  await settle();
  expect(order).toEqual(["a sleeps", "b sleeps"]);
  await advance(1_000);
  expect(order.toSorted()).toEqual(["a sleeps", "a wakes", "b sleeps", "b wakes"]);
  expect(clock.now()).toBeGreaterThan(0);
  expect(await statuses(runtime)).toEqual(["completed", "completed"]);
});
