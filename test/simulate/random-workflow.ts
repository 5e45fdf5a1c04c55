/**
 * Workflows made by a seed: nodes that branch and loop, effects of every kind and policy with and without something that undoes them,
 * waits with and without deadlines, groups of all these, children and grandchildren, alone, fanned out, and detached with and without a
 * join, nodes for a cancel, and queues. Every run ends after a bounded number of steps.
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
  fanOut,
  join,
  permanent,
  sleep,
  type StepPlan,
  subworkflow,
  wait,
  waitEvent,
  type Workflow,
} from "abstractruntime";
import { type SimulatedCode, type SimulationRandom, type StartWith, testIds } from "abstractruntime/testing";

type Behaviour = "ok" | "later" | "definite" | "uncertain" | "permanent" | "asks" | "job" | "stuck" | "again" | "looks";

interface EffectNode {
  kind: "effect";
  type: string;
  behaviours: Behaviour[];
}

type Request =
  | EffectNode
  | { kind: "all" | "any"; members: Request[]; collect: boolean }
  | { kind: "sleep"; ms: number }
  | { kind: "ask"; form: "choices" | "schema" | "text"; timeoutMs?: number }
  | { kind: "event"; key: string; timeoutMs?: number }
  | { kind: "child"; detached: boolean; queue?: string; timeoutMs?: number }
  | { kind: "fan"; count: number; concurrency: number; collect: boolean; queue?: string; timeoutMs?: number }
  | { kind: "join"; timeoutMs?: number };

interface NodePlan {
  request?: Request;
  /** Changes the vars before it goes on: sets, grows, or removes something. */
  change: "nothing" | "counts" | "grows" | "removes";
  next: number;
  otherwise: number;
  errorNode?: number;
  timeoutNode?: number;
  async: boolean;
  ends?: "completes" | "fails" | "throws";
}

/** Steps of a run after which it completes, by its depth: a tree of runs stays small. */
const longest = [10, 5, 3];
const ids = ["random", "child", "grandchild"];

/** In a queue or in none, sooner or later. */
export function randomStart(random: SimulationRandom): StartWith {
  return {
    ...(random.chance(0.3) ? { queue: random.pick(["narrow", "keyed", "slow"]), queueKey: random.pick(["a", "b"]) } : {}),
    ...(random.chance(0.2) ? { priority: random.int(-2, 2) } : {}),
    ...(random.chance(0.1) ? { delayMs: random.pick([1, 5_000]) } : {}),
  };
}

/**
 * The code of a seed: a parent, and the children and grandchildren that it may start.
 *
 * @param with.version Of the second, nodes have other names, and the vars say how often they were migrated.
 * @param with.transacts With handlers that write in a transaction of the store.
 * @param with.asksAgain With handlers that ask and are called again, that exclude each other, and that are speculative by their payload.
 */
export function randomCode(
  seed: number,
  { asksAgain = false, transacts = false, version = 1 }: { asksAgain?: boolean; transacts?: boolean; version?: number } = {},
): SimulatedCode {
  const { random } = testIds(seed * 7_919 + 13);
  const int = (least: number, most: number): number => least + Math.floor(random() * (most - least + 1));
  const chance = (probability: number): boolean => random() < probability;
  const pick = <T>(list: readonly T[]): T => list[int(0, list.length - 1)]!;

  const undoings: Behaviour[] = ["ok", "ok", "later", "definite", "uncertain", "permanent", "asks"];
  const undo = defineEffect("undo", {
    onUncertain: pick(["retry", "fail", "ask"] as const),
    policy: { maxAttempts: pick([1, 3]), backoff: { initialMs: pick([10, 2_000]) } },
    run: async (_: unknown, { attempt, step, idempotencyKey }): Promise<any> =>
      behave(undoings[(step * 5 + attempt + seed) % undoings.length], idempotencyKey),
  });
  // As it stands, by a function, several at once, one that has something to undo itself, and one that cannot say.
  const undos: ((done: any) => Effect)[] = [
    undo as any,
    undo as any,
    ({ result }) => undo({ of: result }),
    () => all([undo({ one: 1 }), sleep(100), undo({ two: 2 })]),
    () => all([{ type: "effect-0", payload: { behaviours: ["ok"] } }]),
    () => {
      throw new Error("it cannot be said");
    },
  ];

  const definitions = Array.from({ length: int(2, 4) }, (_, i) => {
    const transactional = transacts && chance(0.6);
    const speculative = chance(0.3) && !transactional;
    return defineEffect(`effect-${i}`, {
      ...(chance(0.4) ? { undo: pick(undos) } : {}),
      transactional,
      speculative:
        asksAgain && !transactional && chance(0.2)
          ? (payload) => (payload as { behaviours: Behaviour[] }).behaviours[0] !== "ok"
          : speculative,
      ...(asksAgain && chance(0.3)
        ? { exclusive: (payload) => String((payload as { behaviours: Behaviour[] }).behaviours.length % 2) }
        : {}),
      ...uncertainty(transactional, pick(["retry", "fail", "ask"] as const)),
      policy: {
        maxAttempts: pick([1, 2, 3, 5]),
        backoff: { initialMs: pick([0, 10, 300, 2_000]), factor: 2, maxMs: 5_000, jitter: pick([0, 0.2]) },
        timeoutMs: pick([600_000, 600_000, 20_000, 300]),
      },
      run: async (
        { behaviours }: { behaviours: Behaviour[] },
        { answers, attempt, cancelled, idempotencyKey, runId, step, signal, timedOut },
      ): Promise<any> => {
        const behaviour = behaviours[Math.min(attempt, behaviours.length) - 1];
        const deadline = hasDeadline(runId, step);
        if (cancelled) return behave(deadline ? "later" : "uncertain", idempotencyKey);
        if (behaviour === "again" && answers.length < 2)
          return wait({ reason: "user", prompt: "?", choices: ["a"], again: true, ...(deadline ? { timeoutMs: 30_000 } : {}) });
        if (behaviour === "looks" && attempt < 4 && !(timedOut && deadline))
          return wait({
            reason: "job",
            again: true,
            timeoutMs: 3_000,
            onTimeout: "again",
            onCancel: "again",
            details: { attempt },
          });
        if (behaviour === "job") return wait({ reason: "job", ...(hasDeadline(runId, step) ? { timeoutMs: 30_000 } : {}) });
        if (behaviour !== "stuck") return behave(behaviour, idempotencyKey);
        // Until it is told to stop.
        signal.throwIfAborted();
        return new Promise((_, reject) => signal.addEventListener("abort", () => reject(new Error("stopped"))));
      },
    });
  });

  const request = (depth: number, level: number): Request => {
    const kind = int(0, 14);
    if (kind <= 4 || (depth > 1 && kind > 9)) {
      const limited = definitions
        .map((definition, i) => [definition, i] as const)
        .filter(([{ definition }]) => definition.policy.timeoutMs < 600_000);
      const usual: Behaviour[] = ["ok", "ok", "ok", "later", "definite", "uncertain", "permanent", "asks", "job"];
      const behaviour = (): Behaviour => pick(asksAgain ? [...usual, "again", "looks"] : usual);
      if (limited.length > 0 && chance(0.1))
        return { kind: "effect", type: `effect-${pick(limited)[1]}`, behaviours: ["stuck", "ok"] };
      return {
        kind: "effect",
        type: `effect-${int(0, definitions.length - 1)}`,
        behaviours: Array.from({ length: int(1, 3) }, behaviour),
      };
    }
    const timeoutMs = chance(0.4) ? { timeoutMs: pick([100, 5_000, 30_000, 86_400_000]) } : {};
    const queue = chance(0.2) ? { queue: pick(["narrow", "keyed", "slow"]) } : {};
    if (kind === 5) return { kind: "sleep", ms: pick([0, 1, 500, 3_000, 20_000, 86_400_000]) };
    if (kind === 6 || kind === 7) return { kind: "ask", form: pick(["choices", "schema", "text"] as const), ...timeoutMs };
    if (kind === 8) return { kind: "event", key: pick(["go", "stop"]), ...timeoutMs };
    if (kind <= 11) {
      if (level === ids.length - 1) return { kind: "sleep", ms: 50 };
      if (kind === 10)
        return { kind: "fan", count: int(0, 3), concurrency: int(1, 3), collect: chance(0.5), ...queue, ...timeoutMs };
      return kind === 9 ? { kind: "child", detached: chance(0.3), ...queue, ...timeoutMs } : { kind: "join", ...timeoutMs };
    }
    const members = Array.from({ length: int(1, 3) }, () => request(depth + 1, level));
    return { kind: chance(0.5) ? "all" : "any", members, collect: chance(0.3) };
  };

  const nodePlans = (level: number): NodePlan[] => {
    const size = int(1, level > 0 ? 3 : 6);
    const target = (): number => int(0, size - 1);
    return Array.from({ length: size }, () => {
      const wanted = chance(0.85) ? request(0, level) : undefined;
      return {
        ...(wanted ? { request: wanted } : {}),
        change: pick(["nothing", "counts", "grows", "removes"] as const),
        next: target(),
        otherwise: target(),
        ...(chance(0.5) ? { errorNode: target() } : {}),
        ...(chance(0.5) ? { timeoutNode: target() } : {}),
        async: chance(0.2),
        ...(chance(0.12) ? { ends: pick(["completes", "completes", "fails", "throws"] as const) } : {}),
      };
    });
  };

  const name = (i: number): string => `${version === 1 ? "n" : "m"}${i}`;
  const renamed = (size: number) => Object.fromEntries(Array.from({ length: size }, (_, i) => [`n${i}`, `m${i}`]));
  const migrated = (vars: any) => {
    vars.migrated = (vars.migrated ?? 0) + 1;
  };

  const workflow = (level: number, plans: NodePlan[]): Workflow => {
    const id = ids[level];
    const decide = ({ vars, step }: { vars: any; step: number }, plan: NodePlan): StepPlan => {
      vars.log ??= [];
      if (vars.last !== undefined) vars.log.push(vars.last);
      delete vars.last;
      if (plan.change === "counts") vars.count = (vars.count ?? 0) + 1;
      if (plan.change === "grows") vars.text = `${vars.text ?? ""}${"x".repeat(300)}`;
      if (plan.change === "removes") vars.log.shift();
      if (step > longest[level]! || plan.ends === "completes") return complete({ log: vars.log, step });
      if (plan.ends === "fails") return { failure: { message: "as it should" } };
      if (plan.ends === "throws") throw new Error("as it should");
      const next = (vars.count ?? 0) % 2 === 0 ? plan.next : plan.otherwise;
      if (!plan.request) return { nextNode: name(next) };
      const hasDeadline = "timeoutMs" in plan.request;
      return {
        effect: { ...effectOf(plan.request, vars, level), resultKey: "last" },
        nextNode: name(next),
        ...(plan.errorNode === undefined ? {} : { errorNode: name(plan.errorNode) }),
        ...(plan.timeoutNode === undefined || !hasDeadline ? {} : { timeoutNode: name(plan.timeoutNode) }),
      };
    };
    const nodes = plans.map((plan, i) => [
      name(i),
      plan.async
        ? async (run: { vars: any; step: number }) => {
            await null;
            return decide(run, plan);
          }
        : (run: { vars: any; step: number }) => decide(run, plan),
    ]);
    return defineWorkflow({
      id,
      entry: name(0),
      version,
      ...(version > 1 ? { migrations: { 1: { nodes: renamed(plans.length), vars: migrated } } } : {}),
      nodes: Object.fromEntries(nodes),
      effects: [...definitions, undo],
      ...(chance(0.3) ? { onCancel: name(int(0, plans.length - 1)) } : {}),
    } as any);
  };

  const effectOf = (wanted: Request, vars: any, level: number): Effect => {
    const timeoutMs = "timeoutMs" in wanted ? { timeoutMs: wanted.timeoutMs } : {};
    const child = ids[level + 1]!;
    switch (wanted.kind) {
      case "effect":
        // The log travels along: as a reference, since it stands in the vars.
        return { type: wanted.type, payload: { behaviours: wanted.behaviours, log: vars.log } };
      case "sleep":
        return sleep(wanted.ms);
      case "ask": {
        if (wanted.form === "choices") return askUser({ prompt: "?", choices: ["yes", "no"], ...timeoutMs });
        if (wanted.form === "schema") return askUser({ prompt: "?", schema: answerSchema, ...timeoutMs });
        return askUser({ prompt: "?", ...timeoutMs });
      }
      case "event":
        return waitEvent({ key: wanted.key, ...timeoutMs });
      case "child": {
        const { detached, queue } = wanted;
        return subworkflow(child, { vars: { from: "parent" }, detached, ...(queue ? { queue } : {}), ...timeoutMs });
      }
      case "fan": {
        const { count, concurrency, collect, queue } = wanted;
        const items = Array.from({ length: count }, (_, i) => ({ count: i }));
        const onFailure = collect ? "collect" : "fail";
        return fanOut(child, { items, concurrency, onFailure, ...(queue ? { queue, queueKey: "a" } : {}), ...timeoutMs });
      }
      case "join": {
        // The last detached child that is known of.
        const detached = vars.log.findLast((entry: any) => entry?.async === true);
        return detached ? join({ subRunId: detached.subRunId, ...timeoutMs }) : sleep(1);
      }
      default: {
        const members = wanted.members.map((member) => effectOf(member, vars, level));
        if (wanted.kind === "any") return any(members);
        return wanted.collect ? (all(members, { onFailure: "collect" } as any) as any) : all(members);
      }
    }
  };

  return {
    workflows: ids.map((_, level) => workflow(level, nodePlans(level))),
    queues: {
      narrow: { concurrency: int(1, 2) },
      keyed: { concurrency: int(2, 3), keyConcurrency: 1 },
      slow: { rateLimit: { limit: int(1, 3), periodMs: pick([100, 5_000, 20_000]) } },
    },
  };
}

async function behave(behaviour: Behaviour | undefined, idempotencyKey: string): Promise<any> {
  switch (behaviour) {
    case "definite":
      throw definite(new Error("definite"));
    case "uncertain":
      throw new Error("uncertain");
    case "permanent":
      throw permanent(new Error("permanent"));
    case "asks":
      return wait({ reason: "user", prompt: "?", choices: ["a", "b"] });
    case "later":
      await null;
      return { later: true };
    default:
      return { done: idempotencyKey.slice(0, 8) };
  }
}

function uncertainty(transactional: boolean, onUncertain: "retry" | "fail" | "ask") {
  return transactional ? {} : { onUncertain };
}

const answerSchema = {
  type: "object",
  properties: { score: { type: "integer", minimum: 1, maximum: 5 }, note: { type: "string" } },
  required: ["score"],
};

/** Half of all steps: by what does not change when something else goes wrong. */
function hasDeadline(runId: string, step: number): boolean {
  return (runId.charCodeAt(runId.length - 1) + step) % 2 === 0;
}
