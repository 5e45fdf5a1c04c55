/**
 * No wake-up is lost, in whatever order the store calls of those who drive a run and those who send to it come (S5).
 *
 * Actors share nothing but a store. Each of their calls waits for its turn, and the turns are given in every order there is: depth
 * first, each schedule from the beginning with a run of its own. Where there are more orders than are worth the time, they are drawn.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join as joinPath } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  all,
  askUser,
  complete,
  createRuntime,
  defineEffect,
  defineWorkflow,
  fail,
  fanOut,
  join,
  type Runtime,
  type StepPlan,
  type Store,
  subworkflow,
  waitEvent,
  type Workflow,
} from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { sqliteStore } from "../../src/stores/sqlite/index.ts";
import { testClock } from "../../src/testing/index.ts";
import { callStore, wrapStore } from "../../src/testing/wrap-store.ts";
import { deafStore } from "../kept-store.ts";

// ---- Turns ---------------------------------------------------------------------------------------------------------------

interface Waiting {
  actor: string;
  method: string;
  go(): void;
}

/** Gives calls their turns, as a path of choices says, and then the first choice each time. */
class Turns {
  readonly #path: readonly number[];
  readonly #random: (() => number) | undefined;
  readonly #waiting: Waiting[] = [];
  /** At each choice: what was chosen, of how many. */
  readonly chosen: { index: number; of: number }[] = [];
  readonly log: string[] = [];
  #changes = 0;
  /** Calls go through as they come. */
  open = true;
  /** Whether the answers of calls wait for a turn of their own. */
  readonly #answersWait: boolean;

  constructor(path: readonly number[], random?: () => number, answersWait = false) {
    this.#path = path;
    this.#random = random;
    this.#answersWait = answersWait;
  }

  wrap(actor: string, store: Store): Store {
    return wrapStore(store, async (method, args) => {
      if (method === "close") return undefined;
      if (this.open) return callStore(store, method, args);
      await this.#turn(actor, method);
      try {
        return await callStore(store, method, args);
      } finally {
        this.#changes += 1;
        if (this.#answersWait) await this.#turn(`answer to ${actor}`, method);
      }
    });
  }

  async #turn(actor: string, method: string): Promise<void> {
    this.#changes += 1;
    await new Promise<void>((resolve) => this.#waiting.push({ actor, method, go: resolve }));
  }

  /** Lets the actors go until all have ended. */
  async play(actors: readonly Promise<unknown>[]): Promise<void> {
    let ended = 0;
    for (const actor of actors) actor.finally(() => (ended += 1)).catch(() => undefined);
    for (let turns = 0; ; turns++) {
      await this.#quiet();
      if (this.#waiting.length === 0) {
        if (ended === actors.length) return;
        throw new Error(`Somebody waits for nothing: ${this.log.join(", ")}`);
      }
      if (turns > 200) throw new Error(`It goes on for ever: ${this.log.join(", ")}`);
      // The calls of one actor keep their order: only its first may go.
      const first = this.#waiting.filter(({ actor }, i) => this.#waiting.findIndex((other) => other.actor === actor) === i);
      first.sort((a, b) => (a.actor < b.actor ? -1 : 1));
      const index = this.#choose(first.length);
      const next = first[index] as Waiting;
      this.#waiting.splice(this.#waiting.indexOf(next), 1);
      this.log.push(`${next.actor}.${next.method}`);
      next.go();
    }
  }

  /** The path of the next schedule, or undefined when there is none. */
  next(): number[] | undefined {
    for (let i = this.chosen.length - 1; i >= 0; i--) {
      const { index, of } = this.chosen[i] as { index: number; of: number };
      if (index + 1 < of) return [...this.chosen.slice(0, i).map((choice) => choice.index), index + 1];
    }
    return undefined;
  }

  #choose(of: number): number {
    const index = this.#path[this.chosen.length] ?? (this.#random ? Math.floor(this.#random() * of) : 0);
    if (index >= of) throw new Error(`The schedule is not the same as the last time: ${this.log.join(", ")}`);
    this.chosen.push({ index, of });
    return index;
  }

  async #quiet(): Promise<void> {
    for (let calm = 0, before = -1; calm < 4; ) {
      await new Promise((resolve) => setImmediate(resolve));
      calm = this.#changes === before ? calm + 1 : 0;
      before = this.#changes;
    }
  }
}

// ---- Actors --------------------------------------------------------------------------------------------------------------

const acceptable = [
  "RUN_BUSY",
  "RUN_ENDED",
  "CONFLICT",
  "NOT_WAITING",
  "ALREADY_ANSWERED",
  "NOT_FAILED",
  "RETRY_REFUSED",
  "RUN_BLOCKED",
];

interface Cast {
  /** A runtime of its own for this actor, which drives nothing by itself. */
  runtime(actor: string, workflows?: readonly Workflow[]): Promise<Runtime>;
  /** A run that exists before anybody has a turn. */
  runId: string;
  /** Something to do before, by nobody's turn. */
  before(act: (runtime: Runtime) => Promise<unknown>): Promise<void>;
}

interface Play {
  workflows: readonly Workflow[];
  start: Workflow;
  vars?: Record<string, unknown>;
  /** Prepares, and answers with what each actor does: whether what it sent was acknowledged. */
  actors(cast: Cast): Promise<(() => Promise<unknown>)[]>;
  /** What the run ends as when everything was acknowledged that was sent; `sent` says how many were. */
  ends(run: { status: string; output?: unknown }, sent: number, log: string[]): void;
  /** When not everything that was sent arrived (NOT_WAITING, say): what is done afterwards so that the run can end. */
  after?(runtime: Runtime, runId: string): Promise<void>;
}

const kinds = ["memory", "sqlite"] as const;
const full = process.env.CRASH_SWEEP === "full";
/** Schedules tried in order, and drawn where there are more: by default a sample where each takes its time (`npm run crash` takes more). */
const most = full ? { memory: 10_000, sqlite: 250 } : { memory: 900, sqlite: 75 };
const drawn = full ? 200 : 75;

function interleaved(name: string, play: Play): void {
  describe(name, () => {
    for (const kind of kinds) {
      test(`on ${kind}`, async () => {
        let path: number[] | undefined = [];
        let schedules = 0;
        for (; path && schedules < most[kind]; schedules++) {
          const turns: Turns = new Turns(path);
          await inStore(kind, (store) => once(store, play, turns));
          path = turns.next();
        }
        // Too many to try them all: the others are drawn.
        if (path) {
          let seed = 1;
          const random = () => {
            seed = (seed * 48_271) % 2_147_483_647;
            return (seed - 1) / 2_147_483_646;
          };
          for (let i = 0; i < drawn; i++) await inStore(kind, (store) => once(store, play, new Turns([], random)));
        }
        // For whoever wants to know: how many there were.
        if (process.env.INTERLEAVINGS) console.log(`${name} on ${kind}: ${schedules}${path ? ` and ${drawn} drawn` : ", all"}`);
        expect(schedules).toBeGreaterThan(1);
      });
    }
  });
}

const clock = testClock();
const directory = mkdtempSync(joinPath(tmpdir(), "interleavings-"));
let sqlite: Store;
beforeAll(async () => {
  sqlite = await sqliteStore(joinPath(directory, "runs.db"), { clock });
});
afterAll(async () => {
  await sqlite.close();
  rmSync(directory, { recursive: true, force: true });
});

/** In memory, in a store of its own: questions to it are answered by looking at every run that ever was. */
async function inStore<T>(kind: (typeof kinds)[number], act: (store: Store) => Promise<T>): Promise<T> {
  if (kind === "sqlite") return act(sqlite);
  const store = memoryStore({ clock });
  try {
    return await act(store);
  } finally {
    await store.close();
  }
}

async function once(store: Store, play: Play, turns: Turns): Promise<void> {
  const opened: Runtime[] = [];
  const open = async (wrapped: Store, workflows: readonly Workflow[]): Promise<Runtime> => {
    const runtime = await createRuntime({ workflows, store: wrapped, clock, scheduler: false });
    opened.push(runtime);
    return runtime;
  };
  try {
    const helper = await open(turns.wrap("nobody", store), play.workflows);
    const { runId } = await helper.start(play.start, { vars: play.vars ?? {} });
    const acts = await play.actors({
      runtime: (actor, workflows = play.workflows) => open(turns.wrap(actor, store), workflows),
      runId,
      before: async (act) => void (await act(helper)),
    });
    turns.open = false;
    let sent = 0;
    const failures: unknown[] = [];
    const actors = acts.map((act) =>
      act().then(
        (acknowledged) => {
          if (acknowledged === true) sent += 1;
        },
        (error: unknown) => {
          if (!acceptable.includes((error as { code: string }).code)) failures.push(error);
        },
      ),
    );
    await turns.play(actors);
    turns.open = true;
    const where = turns.log.join(", ");
    expect(failures, where).toEqual([]);
    await checkMovable(store, runId, where);
    const worker = await open(deafStore(store), play.workflows);
    await drain(worker, runId);
    await checkMovable(store, runId, where);
    if (play.after) {
      await play.after(worker, runId);
      await drain(worker, runId);
    }
    try {
      play.ends(await worker.get(runId), sent, turns.log);
    } catch (error) {
      throw new Error(`After ${where} (${sent} acknowledged): ${(error as Error).message}`);
    }
    const { ok, problems } = await worker.verify(runId);
    expect(problems, where).toEqual([]);
    expect(ok).toBe(true);
  } finally {
    turns.open = true;
    for (const runtime of opened) await runtime.stop({ timeoutMs: 0 });
  }
}

/** What a worker would do with this run and its children: whatever is due is driven. */
async function drain(runtime: Runtime, runId: string): Promise<void> {
  for (let moved = true, turns = 0; moved; turns++) {
    if (turns > 20) throw new Error("It is due for ever.");
    moved = false;
    const { children, run } = await runtime.tree(runId);
    for (const row of [...children.map((child) => child.run), run]) {
      if (row.wakeAt === null || row.wakeAt > clock.now() || row.blocked) continue;
      await runtime.tick(row.runId);
      moved = true;
    }
  }
}

/** A run that has mail which it can take is due; nobody holds a run when nobody drives one. */
async function checkMovable(store: Store, runId: string, where: string): Promise<void> {
  const loaded = await store.load(runId);
  const { row, mail, lease, blocked } = loaded as NonNullable<typeof loaded>;
  expect(lease, `${where}: held by nobody who knows`).toBeUndefined();
  const ended = ["completed", "cancelled"].includes(row.status);
  if (ended || blocked) return;
  const wanted = mail.filter(({ kind, key }) =>
    row.status === "failed" ? kind === "control" && key === "retry" : !row.paused || kind === "control",
  );
  if (wanted.length > 0) expect(row.wakeAt, `${where}: mail, and nobody is to look at it`).not.toBeNull();
  if (row.status === "running") expect(row.wakeAt, `${where}: running, and nobody is to drive it`).not.toBeNull();
}

// ---- Plays ---------------------------------------------------------------------------------------------------------------

const to = { resultKey: "got", nextNode: "end" };
const flowOf = (plan: (vars: any) => any, id = "flow", effects: readonly any[] = []) =>
  defineWorkflow({
    id,
    entry: "go",
    effects,
    nodes: {
      go: ({ vars }: any): StepPlan => plan(vars),
      end: ({ vars }: any) => complete(vars.got ?? null),
    },
  } as any) as Workflow;
const acknowledged = (promise: Promise<unknown>) => promise.then(() => true);

const waiting = flowOf(() => waitEvent("e", to as any));
const ended = (output: unknown) => (run: { status: string; output?: unknown }) =>
  expect(run).toMatchObject({ status: "completed", output });

interleaved("a driver parks, and an event comes", {
  workflows: [waiting],
  start: waiting,
  actors: async ({ runtime, runId }) => {
    const [driver, sender] = [await runtime("driver"), await runtime("sender")];
    return [() => driver.tick(runId), () => acknowledged(sender.signal(runId, "e", 1))];
  },
  ends: ended(1),
});

interleaved("a driver parks, an event comes, and another worker claims", {
  workflows: [waiting],
  start: waiting,
  actors: async ({ runtime, runId }) => {
    const [driver, sender, claimer] = [await runtime("driver"), await runtime("sender"), await runtime("claimer")];
    return [() => driver.tick(runId), () => acknowledged(sender.signal(runId, "e", 1)), () => claimer.tick(runId)];
  },
  ends: ended(1),
});

const twice = flowOf(() => all([waitEvent("e"), waitEvent("e")], to as any));

interleaved("two senders at once, and a driver that parks", {
  workflows: [twice],
  start: twice,
  actors: async ({ runtime, runId }) => {
    const [driver, one, two] = [await runtime("driver"), await runtime("one"), await runtime("two")];
    return [
      () => driver.tick(runId),
      () => acknowledged(one.signal(runId, "e", 1)),
      () => acknowledged(two.signal(runId, "e", 2)),
    ];
  },
  ends: (run) => {
    expect(run.status).toBe("completed");
    expect((run.output as number[]).toSorted()).toEqual([1, 2]);
  },
});

interleaved("two senders under one id, and a driver that parks", {
  workflows: [twice],
  start: twice,
  actors: async ({ runtime, runId }) => {
    const [driver, one, two] = [await runtime("driver"), await runtime("one"), await runtime("two")];
    const id = { id: "same" };
    return [
      () => driver.tick(runId),
      () => acknowledged(one.signal(runId, "e", 1, id)),
      () => acknowledged(two.signal(runId, "e", 1, id)),
    ];
  },
  ends: (run) => expect(run).toMatchObject({ status: "waiting", waits: [{ waitKey: "e" }] }),
});

const asking = flowOf(() => askUser({ prompt: "?" }, to as any));

interleaved("a driver parks a question, and two people answer", {
  workflows: [asking],
  start: asking,
  actors: async ({ runtime, runId }) => {
    const [driver, ada, bob] = [await runtime("driver"), await runtime("ada"), await runtime("bob")];
    return [
      () => driver.tick(runId),
      () => acknowledged(ada.respond(runId, "ada")),
      () => acknowledged(bob.respond(runId, "bob")),
    ];
  },
  ends: (run, sent) => {
    expect(sent).toBeLessThanOrEqual(1);
    expect(run.status).toBe(sent === 1 ? "completed" : "waiting");
  },
});

interleaved("two drivers, and a person who answers what was asked before", {
  workflows: [asking],
  start: asking,
  actors: async ({ runtime, runId, before }) => {
    await before((helper) => helper.tick(runId));
    const [driver, claimer, ada] = [await runtime("driver"), await runtime("claimer"), await runtime("ada")];
    return [() => driver.tick(runId), () => claimer.tick(runId), () => acknowledged(ada.respond(runId, "ada"))];
  },
  ends: ended({ text: "ada" }),
});

interleaved("a driver parks, and a cancel comes", {
  workflows: [waiting],
  start: waiting,
  actors: async ({ runtime, runId }) => {
    const [driver, operator, claimer] = [await runtime("driver"), await runtime("operator"), await runtime("claimer")];
    return [() => driver.tick(runId), () => acknowledged(operator.cancel(runId)), () => claimer.tick(runId)];
  },
  ends: (run) => expect(run.status).toBe("cancelled"),
});

interleaved("a driver parks, a cancel comes, and an event", {
  workflows: [waiting],
  start: waiting,
  actors: async ({ runtime, runId }) => {
    const [driver, operator, sender] = [await runtime("driver"), await runtime("operator"), await runtime("sender")];
    return [
      () => driver.tick(runId),
      () => acknowledged(operator.cancel(runId)),
      () => acknowledged(sender.signal(runId, "e", 1)),
    ];
  },
  ends: (run) => expect(["cancelled", "completed"]).toContain(run.status),
});

interleaved("a driver parks, a pause and an unpause come, and an event", {
  workflows: [waiting],
  start: waiting,
  actors: async ({ runtime, runId }) => {
    const [driver, operator, sender] = [await runtime("driver"), await runtime("operator"), await runtime("sender")];
    const pauses = async () => {
      await operator.pause(runId);
      await operator.unpause(runId);
      return true;
    };
    return [() => driver.tick(runId), pauses, () => acknowledged(sender.signal(runId, "e", 1))];
  },
  ends: ended(1),
});

const asked = flowOf(() => askUser({ prompt: "?" }, to as any), "asked");
const parent = flowOf(() => all([subworkflow("asked", {}), subworkflow("asked", {})], to as any), "parent");

/** Two children have been answered: the end of one is on its way, and the other is driven beside its parent. */
const endsOfTwo: Play["actors"] = async ({ runtime, runId, before }) => {
  const children: string[] = [];
  await before(async (helper) => {
    await helper.tick(runId);
    const { runs } = await helper.list({ parentRunId: runId, order: "oldest" });
    children.push(...runs.map((run) => run.runId));
    for (const child of children) {
      await helper.tick(child);
      await helper.respond(child, "ok");
    }
    await helper.tick(children[0] as string);
  });
  const [driver, other] = [await runtime("driver"), await runtime("other")];
  return [() => driver.tick(runId), () => other.tick(children[1] as string)];
};

interleaved("a parent takes one child's end, and the other child ends", {
  workflows: [parent, asked],
  start: parent,
  actors: endsOfTwo,
  ends: ended([{ output: { text: "ok" } }, { output: { text: "ok" } }]),
});

const fan = flowOf(() => fanOut("asked", { items: [{}, {}, {}], concurrency: 2 }, to as any), "fan");

interleaved("a fanOut takes one end and begins the next child, and another child ends", {
  workflows: [fan, asked],
  start: fan,
  actors: endsOfTwo,
  after: async (runtime, runId) => {
    const { runs } = await runtime.list({ parentRunId: runId, order: "newest", status: "waiting" });
    for (const child of runs) await runtime.respond(child.runId, "ok");
  },
  ends: ended([{ output: { text: "ok" } }, { output: { text: "ok" } }, { output: { text: "ok" } }]),
});

const joiner = defineWorkflow({
  id: "joiner",
  entry: "begin",
  nodes: {
    begin: () => subworkflow("asked", { detached: true }, { resultKey: "begun", nextNode: "wait" }),
    wait: () => waitEvent("join", { nextNode: "join" }),
    join: ({ vars }) => join(vars.begun.subRunId, to as any) as any,
    end: ({ vars }) => complete(vars.got.output),
  },
}) as Workflow;

interleaved("a parent parks on a join and looks, and its detached child ends", {
  workflows: [joiner, asked],
  start: joiner,
  actors: async ({ runtime, runId, before }) => {
    let child = "";
    await before(async (helper) => {
      await helper.tick(runId);
      const { runs } = await helper.list({ parentRunId: runId });
      child = runs[0]?.runId as string;
      await helper.tick(child);
      await helper.respond(child, "ok");
      await helper.signal(runId, "join");
    });
    const [driver, other] = [await runtime("driver"), await runtime("other")];
    return [() => driver.tick(runId), () => other.tick(child)];
  },
  ends: ended({ text: "ok" }),
});

interleaved("a parent parks on a join and looks, its child ends, and another worker claims the parent", {
  workflows: [joiner, asked],
  start: joiner,
  actors: async ({ runtime, runId, before }) => {
    let child = "";
    await before(async (helper) => {
      await helper.tick(runId);
      const { runs } = await helper.list({ parentRunId: runId });
      child = runs[0]?.runId as string;
      await helper.tick(child);
      await helper.respond(child, "ok");
      await helper.signal(runId, "join");
    });
    const [driver, other, claimer] = [await runtime("driver"), await runtime("other"), await runtime("claimer")];
    return [() => driver.tick(runId), () => other.tick(child), () => claimer.tick(runId)];
  },
  ends: ended({ text: "ok" }),
});

interleaved("the lease is lost while an event comes, and another worker claims", {
  workflows: [waiting],
  start: waiting,
  actors: async ({ runtime, runId }) => {
    const [driver, sender, claimer, reaper] = [
      await runtime("driver"),
      await runtime("sender"),
      await runtime("claimer"),
      await runtime("reaper"),
    ];
    const { workerId } = await driver.health();
    return [
      () => driver.tick(runId),
      () => acknowledged(sender.signal(runId, "e", 1)),
      // What a mark of life says at once: the driver is dead, as far as anybody knows.
      async () => {
        await reaper.store.retire(workerId);
        await claimer.tick(runId);
      },
    ];
  },
  ends: ended(1),
});

interleaved("the lease is lost while a question is answered, and the answer is taken by one of two drivers", {
  workflows: [asking],
  start: asking,
  actors: async ({ runtime, runId, before }) => {
    await before(async (helper) => {
      await helper.tick(runId);
      await helper.respond(runId, "ada");
    });
    const [driver, claimer, reaper] = [await runtime("driver"), await runtime("claimer"), await runtime("reaper")];
    const { workerId } = await driver.health();
    return [() => driver.tick(runId), () => reaper.store.retire(workerId), () => claimer.tick(runId)];
  },
  ends: ended({ text: "ada" }),
});

const broken = new Set<string>();
const failing = defineWorkflow({
  id: "failing",
  entry: "go",
  nodes: {
    go: ({ runId }): StepPlan => {
      const first = !broken.has(runId);
      broken.add(runId);
      return first ? (fail("once") as StepPlan) : (complete("mended") as StepPlan);
    },
  },
}) as Workflow;

interleaved("a run fails, and somebody wants it tried again", {
  workflows: [failing],
  start: failing,
  actors: async ({ runtime, runId }) => {
    const [driver, operator, claimer] = [await runtime("driver"), await runtime("operator"), await runtime("claimer")];
    return [() => driver.tick(runId), () => acknowledged(operator.retry(runId)), () => claimer.tick(runId)];
  },
  ends: (run, sent) => expect(run.status).toBe(sent === 1 ? "completed" : "failed"),
});

interleaved("two operators want a failed run tried again, and two workers look", {
  workflows: [failing],
  start: failing,
  actors: async ({ runtime, runId, before }) => {
    await before((helper) => helper.tick(runId));
    const [driver, one, two] = [await runtime("driver"), await runtime("one"), await runtime("two")];
    return [() => driver.tick(runId), () => acknowledged(one.retry(runId)), () => acknowledged(two.retry(runId))];
  },
  ends: (run, sent) => {
    expect(sent).toBeGreaterThan(0);
    expect(run).toMatchObject({ status: "completed", retries: 1 });
  },
});

// A child's failure reaches its parent, unless the child is to be tried again first: never both, never neither.
const failingChild = defineWorkflow({
  id: "failingChild",
  entry: "go",
  nodes: {
    go: ({ runId }): StepPlan => {
      const first = !broken.has(runId);
      broken.add(runId);
      return first ? (fail("once") as StepPlan) : (complete("mended") as StepPlan);
    },
  },
}) as Workflow;
const overFailing = defineWorkflow({
  id: "overFailing",
  entry: "go",
  nodes: {
    go: (): any => ({ ...subworkflow("failingChild", {}, to as any), errorNode: "caught" }),
    caught: () => complete("caught"),
    end: ({ vars }: any) => complete(vars.got.output),
  },
} as any) as Workflow;

interleaved("a child's failure is taken by its parent, or recalled by a retry: one of the two", {
  workflows: [overFailing, failingChild],
  start: overFailing,
  actors: async ({ runtime, runId, before }) => {
    let child = "";
    await before(async (helper) => {
      await helper.tick(runId);
      child = (await helper.list({ parentRunId: runId })).runs[0]?.runId as string;
      await helper.tick(child);
    });
    const [driver, operator] = [await runtime("driver"), await runtime("operator")];
    return [() => driver.tick(runId), () => acknowledged(operator.retry(child))];
  },
  ends: (run, sent) => expect(run).toMatchObject({ status: "completed", output: sent === 1 ? "mended" : "caught" }),
});

const work = defineEffect("work", { run: async () => 1 });
const working = flowOf(() => work({}, to as any), "working", [work]);
const elsewhere = defineWorkflow({ id: "elsewhere", entry: "a", nodes: { a: () => complete() } }) as Workflow;
const workingWithout = defineWorkflow({
  id: "working",
  entry: "go",
  nodes: { go: () => ({ effect: { type: "work", payload: {} }, nextNode: "end" }) as StepPlan, end: () => complete() },
}) as Workflow;

interleaved("a worker without the code blocks a run, and a cancel comes", {
  workflows: [working, elsewhere],
  start: working,
  actors: async ({ runtime, runId }) => {
    const [driver, operator] = [await runtime("driver", [workingWithout]), await runtime("operator")];
    return [() => driver.tick(runId), () => acknowledged(operator.cancel(runId))];
  },
  ends: (run) => expect(run.status).toBe("cancelled"),
});

test("with a scheduler in one process: calls of one runtime in any order, and a signal sent through it, end the run", async () => {
  for (const kind of kinds) {
    // Each method's calls queue for themselves, so that a claim may overtake a delivery, and so on.
    let path: number[] | undefined = [];
    let count = 0;
    const one = async (store: Store, turns: Turns): Promise<void> => {
      const methods = new Map<string, Store>();
      const through = wrapStore(store, (method, args) => {
        const own = methods.get(method) ?? turns.wrap(method, store);
        methods.set(method, own);
        return callStore(own, method, args);
      });
      const runtime = await createRuntime({ workflows: [waiting], store: through, clock });
      const { runId } = await runtime.start(waiting);
      turns.open = false;
      await turns.play([runtime.signal(runId, "e", 1)]);
      turns.open = true;
      // Nothing else moves it than turns of the event loop: their number is only there to end a test that fails.
      let { status } = await runtime.get(runId);
      for (let i = 0; i < 10_000 && status !== "completed"; i++) {
        await new Promise((resolve) => setImmediate(resolve));
        ({ status } = await runtime.get(runId));
      }
      expect(status, `${kind}: ${turns.log.join(", ")}`).toBe("completed");
      await runtime.stop({ timeoutMs: 0 });
    };
    for (; path && count < most[kind]; count++) {
      const turns: Turns = new Turns(path, undefined, true);
      await inStore(kind, (store) => one(store, turns));
      path = turns.next();
    }
    expect(count).toBeGreaterThan(1);
  }
});
