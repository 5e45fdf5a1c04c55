/**
 * Random graphs against a small model that knows nothing of records, commits or drivers: it says how a run ends, what it gives, and
 * how often each effect is executed. Then random graphs with crashes at random commits.
 *
 * A failure prints its seed and the graph. MODEL_RUNS=50 makes fifty times as many, PROPERTY_SEED=... others.
 */
import {
  all,
  any,
  askUser,
  complete,
  definite,
  defineEffect,
  defineWorkflow,
  type Effect,
  permanent,
  sleep,
  type StepPlan,
  wait,
} from "abstractruntime";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { type Mode, type StoreKind, World } from "./harness.ts";
import { seed } from "../properties.ts";

// ---- Programs ------------------------------------------------------------------------------------------------------

type AttemptOutcome = "ok" | "definite" | "uncertain" | "permanent" | "wait";

interface EffectRequest {
  kind: "effect";
  outcomes: AttemptOutcome[];
  maxAttempts: number;
  backoffMs: number;
  speculative: boolean;
  fails: boolean;
}

interface GroupRequest {
  kind: "all" | "any";
  members: Request[];
}

type Request = EffectRequest | GroupRequest | { kind: "sleep"; ms: number } | { kind: "ask" };

interface Step {
  /** Undefined: only goes on. */
  request?: Request;
  next: number;
  errorNode?: number;
  ends?: "completes" | "fails";
}

type Program = Step[];

/** A run that is still going after so many steps completes. */
const longest = 12;

function requests(crashes: boolean): fc.Arbitrary<Request> {
  const outcome = fc.constantFrom<AttemptOutcome>("ok", "ok", "definite", "uncertain", "permanent", "wait");
  const effect = fc.record({
    kind: fc.constant("effect" as const),
    outcomes: crashes ? fc.constant<AttemptOutcome[]>(["ok"]) : fc.array(outcome, { minLength: 1, maxLength: 4 }),
    maxAttempts: crashes ? fc.constant(100) : fc.integer({ min: 1, max: 4 }),
    // Uneven, so that moments seldom meet; below and above the second that is waited out in process.
    backoffMs: fc.integer({ min: 1, max: 3_000 }),
    speculative: fc.boolean(),
    fails: crashes ? fc.constant(false) : fc.boolean(),
  });
  const leaf: fc.Arbitrary<Request> = fc.oneof(
    { weight: 4, arbitrary: effect },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("sleep" as const), ms: fc.integer({ min: 1, max: 9_999 }) }) },
    { weight: 1, arbitrary: fc.constant({ kind: "ask" as const }) },
  );
  const { request } = fc.letrec<{ request: Request }>((tie) => ({
    request: fc.oneof(
      { maxDepth: 2, depthSize: "small" },
      { weight: 3, arbitrary: leaf },
      {
        weight: 2,
        arbitrary: fc
          .record({
            kind: fc.constantFrom("all" as const, "any" as const),
            members: fc.array(tie("request"), { minLength: 1, maxLength: 3 }),
          })
          // Which of several wins would depend on where the crash falls.
          .map(({ kind, members }) => ({ kind: crashes && members.length > 1 ? ("all" as const) : kind, members })),
      },
    ),
  }));
  return request;
}

function programs(crashes: boolean): fc.Arbitrary<Program> {
  return fc.integer({ min: 1, max: 5 }).chain((size) => {
    const node = fc.integer({ min: 0, max: size - 1 });
    const step = fc.record({
      request: fc.option(requests(crashes), { nil: undefined, freq: 4 }),
      next: node,
      errorNode: fc.option(node, { nil: undefined }),
      ends: fc.oneof(
        { weight: 6, arbitrary: fc.constant(undefined) },
        { weight: 1, arbitrary: fc.constantFrom("completes" as const, "fails" as const) },
      ),
    });
    return fc.array(step as fc.Arbitrary<Step>, { minLength: size, maxLength: size });
  });
}

// ---- The model -----------------------------------------------------------------------------------------------------

interface Predicted {
  status: "completed" | "failed";
  output: unknown;
  /** Executions by `step/leaf`. */
  executions: Record<string, number>;
}

/** A moment, finer than the clock: at one time outcomes come first, in order of the leaves, then answers. */
type Moment = readonly [at: number, turn: 0 | 1, leaf: number];
const before = (a: Moment, b: Moment): boolean => (a[0] !== b[0] ? a[0] < b[0] : a[1] !== b[1] ? a[1] < b[1] : a[2] < b[2]);
const earliest = (moments: Moment[]): Moment => moments.reduce((a, b) => (before(b, a) ? b : a));
const latest = (moments: Moment[]): Moment => moments.reduce((a, b) => (before(b, a) ? a : b));

interface Fate {
  when: Moment;
  ok: boolean;
  value?: unknown;
  /** When each effect below it is begun, if nothing closes it before. */
  begun: { leaf: string; at: number }[];
}

class Model {
  #leaves = 0;
  ties = false;
  #times = new Set<number>();

  predict(program: Program): Predicted {
    const executions: Record<string, number> = {};
    const log: unknown[] = [];
    let at = 0;
    let node = 0;
    for (let step = 1; ; step++) {
      const { request, next, errorNode, ends } = program[node] as Step;
      if (step > longest) return { status: "completed", output: log, executions };
      if (ends === "completes") return { status: "completed", output: [...log, "end"], executions };
      if (ends === "fails") return { status: "failed", output: undefined, executions };
      log.push(node);
      if (!request) {
        node = next;
        continue;
      }
      this.#leaves = 0;
      this.#times = new Set();
      const fate = this.#fate(request, at, "");
      for (const { leaf, at: begun } of fate.begun) {
        if (begun > fate.when[0]) continue;
        const key = `${step}/${leaf}`;
        executions[key] = (executions[key] ?? 0) + 1;
      }
      at = fate.when[0];
      if (fate.ok) {
        log.push(fate.value);
        node = next;
      } else if (errorNode === undefined) return { status: "failed", output: undefined, executions };
      else node = errorNode;
    }
  }

  #fate(request: Request, at: number, leaf: string): Fate {
    if ("members" in request) return this.#group(request, at, leaf);
    this.#leaves += 1;
    const order = this.#leaves;
    if (request.kind === "ask") return { when: [at, 1, order], ok: true, value: { text: "answer" }, begun: [] };
    if (request.kind === "sleep") return { when: [this.#time(at + request.ms), 0, order], ok: true, value: "slept", begun: [] };
    const begun: Fate["begun"] = [];
    for (let attempt = 1; ; attempt++) {
      begun.push({ leaf, at });
      const outcome = request.outcomes[Math.min(attempt, request.outcomes.length) - 1] as AttemptOutcome;
      if (outcome === "ok") return { when: [at, 0, order], ok: true, value: `done ${leaf}`, begun };
      if (outcome === "wait") return { when: [at, 1, order], ok: true, value: { text: "answer" }, begun };
      const isUncertain = outcome === "uncertain" && !request.speculative;
      const isFinal = outcome === "permanent" || attempt >= request.maxAttempts || (isUncertain && request.fails);
      if (isFinal) return { when: [at, 0, order], ok: false, begun };
      at = this.#time(at + Math.min(30_000, request.backoffMs * 2 ** (attempt - 1)));
    }
  }

  #group({ kind, members }: GroupRequest, at: number, leaf: string): Fate {
    const fates = members.map((member, i) => this.#fate(member, at, leaf === "" ? String(i) : `${leaf}.${i}`));
    const [good, bad] = [fates.filter(({ ok }) => ok), fates.filter(({ ok }) => !ok)];
    const moments = (of: Fate[]) => of.map(({ when }) => when);
    const ok = kind === "all" ? bad.length === 0 : good.length > 0;
    const when =
      kind === "all"
        ? ok
          ? latest(moments(good))
          : earliest(moments(bad))
        : ok
          ? earliest(moments(good))
          : latest(moments(bad));
    const index = fates.findIndex((fate) => fate.ok && fate.when === when);
    const value = kind === "all" ? fates.map((fate) => fate.value) : { index, result: fates[index]?.value };
    // What was to begin after the group's end never does. What begins at that very moment is what ends it.
    const begun = fates.flatMap((fate) => fate.begun).filter((begin) => begin.at <= when[0]);
    return { when, ok, value, begun };
  }

  /** Two things at one moment come in an order that the model does not predict. */
  #time(at: number): number {
    if (this.#times.has(at)) this.ties = true;
    this.#times.add(at);
    return at;
  }
}

// ---- The real thing ------------------------------------------------------------------------------------------------

interface Handled {
  executions: Record<string, number>;
  /** By `step/leaf`, of effects that are not speculative. */
  keys: Record<string, Set<string>>;
}

function build(program: Program, handled: Handled) {
  const defined = new Map<string, any>();
  const effectFor = (request: EffectRequest) => {
    const { speculative, fails, maxAttempts, backoffMs } = request;
    const name = `e-${speculative}-${fails}-${maxAttempts}-${backoffMs}`;
    const made =
      defined.get(name) ??
      defineEffect(name, {
        speculative,
        onUncertain: fails ? "fail" : "retry",
        policy: { maxAttempts, backoff: { initialMs: backoffMs, factor: 2, maxMs: 30_000, jitter: 0 } },
        run: ({ leaf, outcomes }: { leaf: string; outcomes: AttemptOutcome[] }, { step, attempt, idempotencyKey }) => {
          const key = `${step}/${leaf}`;
          handled.executions[key] = (handled.executions[key] ?? 0) + 1;
          if (!speculative) {
            handled.keys[key] ??= new Set();
            handled.keys[key].add(idempotencyKey);
          }
          const outcome = outcomes[Math.min(attempt, outcomes.length) - 1];
          if (outcome === "definite") throw definite(new Error("definite"));
          if (outcome === "permanent") throw permanent(new Error("permanent"));
          if (outcome === "uncertain") throw new Error("uncertain");
          return outcome === "wait" ? wait({ reason: "user", prompt: "?" }) : `done ${leaf}`;
        },
      });
    defined.set(name, made);
    return made;
  };
  const requestOf = (request: Request, leaf: string): Effect => {
    if (request.kind === "sleep") return sleep(request.ms);
    if (request.kind === "ask") return askUser({ prompt: "?" });
    if (request.kind === "effect") return effectFor(request)({ leaf, outcomes: request.outcomes });
    const members = request.members.map((member, i) => requestOf(member, leaf === "" ? String(i) : `${leaf}.${i}`));
    return request.kind === "all" ? all(members) : any(members);
  };
  const plain = (value: any): unknown => {
    if (typeof value !== "object" || value === null) return value;
    if (value.ready === true) return "slept";
    if (Array.isArray(value)) return value.map(plain);
    return Object.fromEntries(Object.entries(value).map(([key, member]) => [key, plain(member)]));
  };
  const nodes = Object.fromEntries(
    program.map(({ request, next, errorNode, ends }, i) => [
      `n${i}`,
      ({ vars, step, error }: any): StepPlan => {
        vars.log ??= [];
        if (vars.last !== undefined && !error) vars.log.push(plain(vars.last));
        delete vars.last;
        if (step > longest) return complete(vars.log);
        if (ends === "completes") return complete([...vars.log, "end"]);
        if (ends === "fails") return { failure: { message: "as it should" } };
        vars.log.push(i);
        if (!request) return { nextNode: `n${next}` };
        return {
          effect: { ...requestOf(request, ""), resultKey: "last" },
          nextNode: `n${next}`,
          ...(errorNode === undefined ? {} : { errorNode: `n${errorNode}` }),
        };
      },
    ]),
  );
  // The effects are made while the graph is walked once, so that the workflow can name them all.
  for (const { request } of program) if (request) requestOf(request, "");
  return defineWorkflow({ id: "random", entry: "n0", nodes: nodes as any, effects: [...defined.values()] } as any);
}

/** Drives a run to its end: answers what is asked, and otherwise moves time to the next moment. `crash` ends the process now and then. */
async function finish(world: World, runId: string, kill?: () => void): Promise<void> {
  for (let turns = 0; turns < 2_000; turns++) {
    try {
      await world.settle();
      const run = await world.get(runId);
      if (!world.killed) {
        if (["completed", "failed"].includes(run.status)) return;
        const asked = run.waits.find(({ reason }) => reason === "user");
        if (asked) await world.with((runtime) => runtime.resume(runId, { waitKey: asked.waitKey, payload: "answer" }));
        else await world.advance(Math.max(1, (run.wakeAt ?? world.now()) - world.now()));
      }
    } catch (error) {
      if (!world.killed) throw error;
    }
    if (world.killed) {
      await world.crash();
      kill?.();
    }
  }
  throw new Error("It does not end.");
}

async function inWorld(kind: StoreKind, mode: Mode, play: (world: World) => Promise<void>): Promise<void> {
  const world = new World(kind, mode);
  try {
    await play(world);
    await world.check();
  } finally {
    await world.close();
  }
}

const factor = Number(process.env.MODEL_RUNS ?? 1);

describe(`random graphs (seed ${seed})`, () => {
  for (const [kind, mode, numRuns] of [
    ["memory", "plainly", 40],
    ["memory", "abandoned", 40],
    ["sqlite", "plainly", 10],
    ["sqlite", "abandoned", 4],
  ] as const) {
    test(`on ${kind}, ${mode}: end as the model says`, { timeout: 180_000 * factor }, async () => {
      await fc.assert(
        fc.asyncProperty(programs(false), async (program) => {
          const model = new Model();
          const predicted = model.predict(program);
          fc.pre(!model.ties);
          await inWorld(kind, mode, async (world) => {
            const handled: Handled = { executions: {}, keys: {} };
            const workflow = build(program, handled);
            await world.use(workflow);
            const runId = await world.start(workflow);
            await finish(world, runId);
            const { status, output } = await world.get(runId);
            expect({ status, output, executions: handled.executions }).toEqual(predicted);
          });
        }),
        { numRuns: numRuns * factor },
      );
    });

    test(`on ${kind}, ${mode}: survive crashes at any commit`, { timeout: 180_000 * factor }, async () => {
      const kills = fc.array(fc.record({ commits: fc.integer({ min: 1, max: 8 }), after: fc.boolean() }), { maxLength: 4 });
      await fc.assert(
        fc.asyncProperty(programs(true), kills, async (program, planned) => {
          const { status: predictedStatus, output: predictedOutput } = new Model().predict(program);
          await inWorld(kind, mode, async (world) => {
            const handled: Handled = { executions: {}, keys: {} };
            const workflow = build(program, handled);
            await world.use(workflow);
            const runId = await world.start(workflow);
            const left = [...planned];
            const arm = () => {
              const kill = left.shift();
              if (kill) world.killAt(kill.commits, kill.after);
            };
            arm();
            await finish(world, runId, arm);
            const { status, output } = await world.get(runId);
            expect({ status, output }).toEqual({ status: predictedStatus, output: predictedOutput });
            const ledger = await world.with((runtime) => runtime.ledger(runId));
            const ended = new Set<string>();
            const starts: Record<string, number> = {};
            for (const { kind, effectId, step, data } of ledger) {
              if (effectId === undefined) continue;
              expect(ended.has(effectId), `effect ${effectId} goes on after its end`).toBe(false);
              if (kind === "effect_completed") ended.add(effectId);
              const intent = (data as any).intent;
              if (kind === "effect_started" && intent?.members === undefined) {
                const key = `${step}/${effectId.split(".").slice(1).join(".")}`;
                starts[key] = (starts[key] ?? 0) + 1;
              }
            }
            // Nothing that harms is done without its intent on record, and always under one key.
            for (const [key, known] of Object.entries(handled.keys)) {
              expect(known.size).toBe(1);
              expect(handled.executions[key]).toBeLessThanOrEqual(starts[key] ?? 0);
            }
          });
        }),
        { numRuns: numRuns * factor },
      );
    });
  }
});
