// Undo: what was completed is taken back, last first, when its run fails or is cancelled.
import {
  all,
  any,
  askUser,
  complete,
  definite,
  defineEffect,
  defineWorkflow,
  fail,
  goto,
  permanent,
  type StepPlan,
  wait,
} from "abstractruntime";
import { expect } from "vitest";
import { refusal, scenario, type World } from "./harness.ts";

const backoff = (initialMs: number) => ({ initialMs, factor: 2, maxMs: 60_000, jitter: 0 });

interface Undone {
  name: string;
  payload: unknown;
  result: unknown;
  attempt: number;
  uncertain: boolean;
  key: string;
}

/** An effect `book`, what undoes it, and what was done of both. `undo` says what an attempt at undoing does. */
function booking(undo: (given: any, context: any) => unknown = () => "undone", options: Record<string, unknown> = {}) {
  const log: string[] = [];
  const undone: Undone[] = [];
  const unbook = defineEffect("unbook", {
    policy: { maxAttempts: 3, backoff: backoff(5_000) },
    ...options,
    run: ({ payload, result }: any, context) => {
      const { attempt, uncertain, idempotencyKey: key } = context;
      undone.push({ name: payload.name, payload, result, attempt, uncertain, key });
      log.push(`unbook ${payload.name}`);
      return undo({ payload, result }, context) as any;
    },
  });
  const book = defineEffect("book", {
    undo: unbook as any,
    run: async ({ name }: { name: string; list?: unknown }) => {
      log.push(`book ${name}`);
      return { ref: name.toUpperCase() };
    },
  });
  return { log, undone, unbook, book };
}

/** Does the plans one after the other, and then what `last` says. */
function flowOf(plans: ((vars: any) => any)[], last: (run: any) => any, effects: readonly any[], more: Record<string, any> = {}) {
  const { nodes = {}, ...rest } = more;
  const steps = Object.fromEntries(
    plans.map((plan, i) => [
      `s${i}`,
      ({ vars }: any): StepPlan => {
        const { next = i + 1 === plans.length ? "last" : `s${i + 1}`, ...request } = plan(vars);
        return { effect: { ...request, resultKey: `r${i}` }, nextNode: next };
      },
    ]),
  );
  return defineWorkflow({ id: "flow", entry: "s0", effects, nodes: { ...steps, last, ...nodes }, ...rest } as any);
}

const failing = () => fail({ message: "no room", code: "FULL" });
const recorded = async (world: World, runId: string) => (await world.kinds(runId)).filter((kind) => /undo|run_/.test(kind));

scenario("a run that fails is undone, last first, and then failed", async (world) => {
  const { book, log, undone } = booking();
  const flow = flowOf([() => book({ name: "a" }), () => book({ name: "b" }), () => book({ name: "c" })], failing, [book]);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({
    status: "failed",
    error: { code: "FULL", message: "no room" },
    undoing: { error: { code: "FULL" } },
  });
  expect(run.undoFailures).toBeUndefined();
  expect(log).toEqual(["book a", "book b", "book c", "unbook c", "unbook b", "unbook a"]);
  expect(undone.at(-1)).toMatchObject({ payload: { name: "a" }, result: { ref: "A" }, attempt: 1, uncertain: false });
  expect(new Set(undone.map(({ key }) => key)).size).toBe(3);
  expect(run.vars).toMatchObject({ r0: { ref: "A" }, r2: { ref: "C" } });
  expect(await refusal(world.with((runtime) => runtime.retry(run.runId)))).toMatch(/^RETRY_REFUSED: .*undone/);
  expect(await refusal(world.with((runtime) => runtime.result(run.runId)))).toMatch(/^RUN_FAILED: .*no room/);
});

scenario("a run that is cancelled is undone, and then cancelled", async (world) => {
  const { book, log } = booking();
  const flow = flowOf([() => book({ name: "a" }), () => book({ name: "b" }), () => askUser({ prompt: "?" })], failing, [book]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.cancel(runId, { reason: "r" })).toMatchObject({ status: "cancelled", cancelling: { reason: "r" } });
  expect(log).toEqual(["book a", "book b", "unbook b", "unbook a"]);
});

scenario("nothing is undone on success, nor what had failed", async (world) => {
  const { book, unbook, log } = booking();
  const broken = defineEffect("broken", {
    undo: unbook as any,
    run: () => {
      throw permanent(new Error("never done"));
    },
  });
  const good = flowOf([() => book({ name: "a" })], () => complete("fine"), [book]);
  await world.use(good);
  expect(await world.run(good)).toMatchObject({ status: "completed", output: "fine" });
  const bad = flowOf([() => book({ name: "b" }), () => broken({ name: "x" })], failing, [book, broken]);
  await world.use(bad);
  expect(await world.run(bad)).toMatchObject({ status: "failed", error: { code: "EFFECT_FAILED" } });
  expect(log).toEqual(["book a", "book b", "unbook b"]);
});

scenario("the members of groups are undone one by one, in the reverse order of their completion", async (world) => {
  const { book, log } = booking();
  const flow = flowOf(
    [
      () => book({ name: "first" }),
      () => all([book({ name: "a" }), all([book({ name: "b" })]), askUser({ prompt: "?" }), book({ name: "c" })]),
      () => any([book({ name: "only" })]),
    ],
    failing,
    [book],
  );
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.respond(runId, "go")).toMatchObject({ status: "failed", error: { code: "FULL" } });
  const done = log.filter((entry) => entry.startsWith("book")).map((entry) => entry.slice(5));
  const undone = log.filter((entry) => entry.startsWith("unbook")).map((entry) => entry.slice(7));
  expect(done).toHaveLength(5);
  expect(undone).toEqual(done.toReversed());
});

scenario("members completed in a group that failed are undone", async (world) => {
  const { book, log } = booking();
  const broken = defineEffect("broken", {
    policy: { maxAttempts: 2, backoff: backoff(5_000) },
    run: () => {
      throw definite(new Error("broken"));
    },
  });
  const flow = flowOf([() => all([book({ name: "a" }), book({ name: "b" }), broken({})])], failing, [book, broken]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.advance(5_000);
  expect(await world.get(runId)).toMatchObject({ status: "failed", error: { code: "EFFECT_FAILED" } });
  expect(log.slice(2).toSorted()).toEqual(["unbook a", "unbook b"]);
});

scenario("a member that was done although its group was lost is undone, too", async (world) => {
  const { unbook, log } = booking();
  let finish: (value: unknown) => void = () => undefined;
  const slow = defineEffect("slow", {
    undo: unbook as any,
    run: (_: { name: string }) =>
      new Promise((resolve) => {
        finish = resolve;
      }),
  });
  const flow = flowOf([() => any([slow({ name: "loser" }), askUser({ prompt: "?" })])], failing, [slow]);
  await world.use(flow);
  const runId = await world.start(flow);
  await world.settle();
  await world.respond(runId, "win");
  finish({ ref: "it happened" });
  await world.settle();
  expect(await world.get(runId)).toMatchObject({ status: "failed" });
  expect(log).toEqual(["unbook loser"]);
});

scenario("an undo that fails for good is noted, and the others go on", async (world) => {
  const { book, log } = booking(({ payload }) => {
    if (payload.name === "b") throw permanent(new Error("too late"));
  });
  const flow = flowOf([() => book({ name: "a" }), () => book({ name: "b" }), () => book({ name: "c" })], failing, [book]);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "failed", error: { code: "FULL" } });
  expect(run.undoFailures).toMatchObject([{ effectId: "2", type: "unbook", error: { message: "too late" } }]);
  expect(log.slice(3)).toEqual(["unbook c", "unbook b", "unbook a"]);
});

scenario("an undo has its own attempts and backoff", async (world) => {
  const { book, undone } = booking((_, { attempt }) => {
    if (attempt < 3) throw definite(new Error("busy"));
  });
  const flow = flowOf([() => book({ name: "a" }), () => book({ name: "b" })], failing, [book]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.get(runId)).toMatchObject({ status: "waiting", undoing: { error: { code: "FULL" } } });
  for (const ms of [5_000, 10_000, 5_000, 10_000]) await world.advance(ms);
  expect(await world.get(runId)).toMatchObject({ status: "failed" });
  expect(undone.map(({ name, attempt }) => `${name}${attempt}`)).toEqual(["b1", "b2", "b3", "a1", "a2", "a3"]);
  expect(new Set(undone.map(({ key }) => key)).size).toBe(2);
});

scenario("an undo may wait for a person; its question times out like any other", async (world) => {
  const { book, log } = booking(() => wait({ reason: "user", prompt: "Refund?", timeoutMs: 60_000 }));
  const flow = flowOf([() => book({ name: "a" }), () => book({ name: "b" })], failing, [book]);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "waiting", waits: [{ prompt: "Refund?" }] });
  const second = await world.respond(run.runId, "done");
  expect(second).toMatchObject({ status: "waiting", waits: [{ prompt: "Refund?" }] });
  await world.advance(60_000);
  const end = await world.get(run.runId);
  expect(end).toMatchObject({ status: "failed", undoFailures: [{ effectId: "1", error: { code: "WAIT_TIMEOUT" } }] });
  expect(log).toEqual(["book a", "book b", "unbook b", "unbook a"]);
});

scenario("undo as a function may ask, or request several effects", async (world) => {
  const { book, unbook, log } = booking();
  const asks = defineEffect("asks", {
    undo: ({ payload }: any) => askUser({ prompt: `Undo ${payload.name}?` }),
    run: async (_: any) => 1,
  });
  const twice = defineEffect("twice", {
    undo: ({ payload, result }: any) =>
      all([unbook({ payload: { name: `${payload.name}1` }, result }), unbook({ payload: { name: `${payload.name}2` }, result })]),
    run: async (_: any) => 2,
  });
  const flow = flowOf([() => book({ name: "a" }), () => twice({ name: "t" }), () => asks({ name: "q" })], failing, [
    book,
    unbook,
    asks,
    twice,
  ]);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run.waits).toMatchObject([{ prompt: "Undo q?" }]);
  expect(await world.respond(run.runId, "yes")).toMatchObject({ status: "failed", error: { code: "FULL" } });
  expect(log).toEqual(["book a", "unbook t1", "unbook t2", "unbook a"]);
});

scenario("a failing group of undos is one failure, and the others go on", async (world) => {
  const { book, unbook, log } = booking(({ payload }) => {
    if (payload.name === "bad") throw permanent(new Error("bad"));
  });
  const twice = defineEffect("twice", {
    undo: ({ result }: any) => all([unbook({ payload: { name: "bad" }, result }), unbook({ payload: { name: "ok" }, result })]),
    run: async (_: any) => 2,
  });
  const flow = flowOf([() => book({ name: "a" }), () => twice({})], failing, [book, unbook, twice]);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "failed", error: { code: "FULL" } });
  expect(run.undoFailures).toMatchObject([{ effectId: "2", error: { message: "bad" } }]);
  expect(log.at(-1)).toBe("unbook a");
});

scenario("an undo function that throws, or gives nonsense, is a failure of its own", async (world) => {
  const { book, unbook, log } = booking();
  for (const undo of [
    () => {
      throw new Error("cannot say");
    },
    () => undefined,
    () => ({ type: 7 }),
    () => ({ type: "unbook", payload: { when: new Date(0) } }),
  ]) {
    log.length = 0;
    const odd = defineEffect("odd", { undo: undo as any, run: async (_: any) => 1 });
    const flow = flowOf([() => book({ name: "a" }), () => odd({})], failing, [book, unbook, odd]);
    await world.use(flow);
    const run = await world.run(flow);
    expect(run).toMatchObject({ status: "failed", error: { code: "FULL" }, undoFailures: [{ effectId: "2" }] });
    expect(log).toEqual(["book a", "unbook a"]);
  }
});

scenario("an undo whose effect is not here blocks the run, which goes on where it is", async (world) => {
  const { book, unbook, log } = booking();
  const asked = defineEffect("asked", {
    undo: ({ payload, result }: any) => ({ type: "unbook", payload: { payload, result } }),
    run: async (_: any) => 1,
  });
  const flow = flowOf([() => asked({ name: "x" })], failing, [asked]);
  await world.use(flow);
  const run = await world.run(flow);
  expect(run).toMatchObject({ status: "running", blocked: { code: "EFFECT_UNKNOWN", quarantine: false } });
  expect(run.blocked?.problem).toMatch(/"unbook"/);
  await world.advance(60_000);
  expect((await world.get(run.runId)).seq).toBe(run.seq);
  await world.use({ workflows: [flow], effects: [book, unbook] });
  await world.settle();
  expect(await world.get(run.runId)).toMatchObject({ status: "failed", error: { code: "FULL" } });
  expect(log).toEqual(["unbook x"]);
});

scenario("a failure that an errorNode takes undoes nothing, unless the run fails later", async (world) => {
  for (const later of [false, true]) {
    const { book, log } = booking();
    const broken = defineEffect("broken", {
      run: () => {
        throw permanent(new Error("broken"));
      },
    });
    const flow = flowOf(
      [() => book({ name: "a" })],
      () => ({ ...broken({}, { nextNode: "end" }), errorNode: "caught" }),
      [book, broken],
      {
        nodes: {
          caught: () => book({ name: "b" }, { nextNode: "end" }),
          end: () => (later ? failing() : complete("mended")),
        },
      },
    );
    await world.use(flow);
    expect(await world.run(flow)).toMatchObject(later ? { status: "failed" } : { status: "completed", output: "mended" });
    expect(log).toEqual(later ? ["book a", "book b", "unbook b", "unbook a"] : ["book a", "book b"]);
  }
});

scenario("onCancel comes before undo, and what it does is not undone", async (world) => {
  const { book, log } = booking();
  const flow = flowOf([() => book({ name: "a" }), () => askUser({ prompt: "?" })], failing, [book], {
    onCancel: "clean",
    nodes: {
      clean: () => book({ name: "cleaning" }, { nextNode: "cleaned" }),
      cleaned: ({ vars }: any) => (vars.r0 ? complete({ cleaned: true }) : goto("cleaned")),
    },
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled", output: { cleaned: true } });
  expect(log).toEqual(["book a", "book cleaning", "unbook a"]);
});

scenario("a cleaning that fails is undone all the same, and its error kept", async (world) => {
  const { book, log } = booking();
  const flow = flowOf([() => book({ name: "a" }), () => askUser({ prompt: "?" })], failing, [book], {
    onCancel: "last",
  });
  await world.use(flow);
  const { runId } = await world.run(flow);
  expect(await world.cancel(runId)).toMatchObject({ status: "cancelled" });
  expect(log).toEqual(["book a", "unbook a"]);
  const last = (await world.with((runtime) => runtime.ledger(runId))).at(-1);
  expect(last).toMatchObject({ kind: "run_cancelled", data: { error: { code: "FULL" } } });
});

scenario("an effect that completes after the cancel is undone; one that may have happened is not", async (world) => {
  const { unbook, log } = booking();
  const calls: { settle: (value: unknown) => void; reject: (error: unknown) => void }[] = [];
  const slow = defineEffect("slow", {
    undo: unbook as any,
    run: (_: { name: string }) => new Promise((settle, reject) => void calls.push({ settle, reject })),
  });
  for (const [settle, expected] of [
    [() => calls[0]!.settle("done"), ["unbook x"]],
    [() => calls[0]!.reject(new Error("reset")), []],
  ] as const) {
    calls.length = 0;
    log.length = 0;
    const flow = flowOf([() => slow({ name: "x" })], failing, [slow]);
    await world.use(flow);
    const { runId } = await world.run(flow);
    await world.cancel(runId);
    settle();
    await world.settle();
    expect(await world.get(runId)).toMatchObject({ status: "cancelled" });
    expect(log).toEqual(expected);
  }
});

scenario("cancel and pause while a run is undone", async (world) => {
  const { book, log } = booking((_, { attempt }) => {
    if (attempt === 1) throw definite(new Error("busy"));
  });
  const flow = flowOf([() => book({ name: "a" }), () => book({ name: "b" })], failing, [book]);
  await world.use(flow);
  const { runId } = await world.run(flow);
  await world.pause(runId);
  await world.advance(60_000);
  expect(log).toHaveLength(3);
  expect(await world.unpause(runId)).toMatchObject({ status: "waiting" });
  await world.cancel(runId, { reason: "while failing" });
  await world.advance(60_000);
  const end = await world.get(runId);
  expect(["failed", "cancelled"]).toContain(end.status);
  // Nothing is left done, and nothing undone twice.
  expect(log).toEqual(["book a", "book b", "unbook b", "unbook b", "unbook a", "unbook a"]);
});

scenario("a parent hears of its child's failure once that is undone", async (world) => {
  const { book, log } = booking((_, { attempt }) => {
    if (attempt === 1) throw definite(new Error("busy"));
  });
  const child = flowOf([() => book({ name: "a" })], failing, [book], { id: "child" });
  const parent = defineWorkflow({
    id: "parent",
    entry: "go",
    nodes: {
      go: (): StepPlan => ({
        effect: { type: "start_subworkflow", payload: { workflowId: "child", vars: {} } },
        nextNode: "end",
        errorNode: "caught",
      }),
      caught: ({ error }) => complete({ caught: error?.code ?? null }),
      end: () => complete(),
    },
  });
  await world.use({ workflows: [parent, child] });
  const { runId } = await world.run(parent);
  expect(await world.get(runId)).toMatchObject({ status: "waiting" });
  await world.advance(5_000);
  expect(await world.get(runId)).toMatchObject({ status: "completed", output: { caught: "FULL" } });
  expect(log).toEqual(["book a", "unbook a", "unbook a"]);
});

scenario("payloads by reference are undone with what they were", async (world) => {
  const { book, undone } = booking();
  const flow = flowOf(
    [
      (vars) => {
        vars.list = [{ n: 1 }, { n: 2 }];
        return { ...book({ name: "a", list: vars.list }) };
      },
      (vars) => {
        vars.list.push({ n: 3 });
        return book({ name: "b", list: vars.list });
      },
    ],
    ({ vars }) => {
      vars.list = ["gone"];
      return failing();
    },
    [book],
  );
  await world.use(flow);
  expect(await world.run(flow)).toMatchObject({ status: "failed" });
  expect(undone.map(({ payload }: any) => payload.list)).toEqual([
    [{ n: 1 }, { n: 2 }, { n: 3 }],
    [{ n: 1 }, { n: 2 }],
  ]);
});

scenario("a loop is undone turn by turn", async (world) => {
  const { book, log } = booking();
  const flow = defineWorkflow({
    id: "loop",
    entry: "turn",
    effects: [book],
    nodes: {
      turn: ({ vars }): StepPlan => {
        vars.n = (vars.n ?? 0) + 1;
        return vars.n > 3 ? (failing() as any) : (book({ name: `t${vars.n}` }, { nextNode: "turn" }) as any);
      },
    },
  });
  await world.use(flow);
  expect(await world.run(flow)).toMatchObject({ status: "failed" });
  expect(log.slice(3)).toEqual(["unbook t3", "unbook t2", "unbook t1"]);
});

for (const end of ["fails", "is cancelled"] as const) {
  scenario(`a crash at any commit while a run that ${end} is undone`, async (world) => {
    for (const after of [false, true]) {
      for (let commits = 1; commits <= 9; commits += world.stride) {
        const { book, undone } = booking(async () => "undone", { policy: { maxAttempts: 10, backoff: backoff(10) } });
        const flow = flowOf(
          [() => book({ name: "a" }), () => all([book({ name: "b" }), book({ name: "c" })]), () => askUser({ prompt: "?" })],
          failing,
          [book],
        );
        await world.use(flow);
        const { runId } = await world.run(flow);
        await world.manually((runtime) => (end === "fails" ? runtime.respond(runId, "go") : runtime.cancel(runId)));
        world.killAt(commits, after);
        await world.settle().catch((error) => {
          if (!world.killed) throw error;
        });
        const died = world.killed;
        world.disarm();
        await world.crash();
        for (let i = 0; i < 4; i++) await world.advance(1_000);
        const where = `commit ${commits}, ${after ? "after" : "before"}`;
        const run = await world.get(runId);
        expect(run.status, where).toBe(end === "fails" ? "failed" : "cancelled");
        expect(run.undoFailures, where).toBeUndefined();
        const byName = Map.groupBy(undone, ({ name }) => name);
        expect([...byName.keys()].toSorted(), where).toEqual(["a", "b", "c"]);
        for (const attempts of byName.values()) {
          // Once; where the process died, perhaps again, under the same key, and told so.
          expect(attempts.length, where).toBeLessThanOrEqual(died ? 2 : 1);
          expect(new Set(attempts.map(({ key }) => key)).size, where).toBe(1);
          if (attempts.length === 2) expect(attempts[1], where).toMatchObject({ uncertain: true, attempt: 2 });
        }
        expect(undone.filter(({ attempt }) => attempt === 2).length, where).toBeLessThanOrEqual(1);
        expect(
          (await recorded(world, runId)).filter((kind) => /^effect_completed .*undo$/.test(kind)),
          where,
        ).toHaveLength(3);
      }
    }
  });
}

scenario("a run that is undone goes on under a newer version whose nodes are others", async (world) => {
  const { book, log } = booking((_, { attempt }) => {
    if (attempt === 1) throw definite(new Error("busy"));
  });
  const old = flowOf([() => book({ name: "a" }), () => book({ name: "b" })], failing, [book]);
  await world.use(old);
  const { runId } = await world.run(old);
  expect(await world.get(runId)).toMatchObject({ status: "waiting", undoing: {} });
  await world.use(defineWorkflow({ id: "flow", version: 2, entry: "x", effects: [book], nodes: { x: () => complete() } }));
  for (let i = 0; i < 3; i++) await world.advance(5_000);
  // What is left to do needs the effects and none of the nodes.
  expect(await world.get(runId)).toMatchObject({ status: "failed", error: { code: "FULL" } });
  expect(log).toEqual(["book a", "book b", "unbook b", "unbook b", "unbook a", "unbook a"]);
});
