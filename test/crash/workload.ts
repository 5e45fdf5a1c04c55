/** What the crash tests run: three workflows, and the outside world that their effects touch. */
import { closeSync, existsSync, fsyncSync, openSync, readFileSync, writeSync } from "node:fs";
import {
  all,
  askUser,
  type Clock,
  complete,
  defineEffect,
  defineWorkflow,
  definite,
  type EffectContext,
  goto,
  isError,
  type Json,
  type Runtime,
  sleep,
  type Workflow,
} from "abstractruntime";

export type WorkloadName = "approval" | "order" | "retry";

/** What the outside world saw of an effect. `done`: its external action has happened; `refused`: it definitely has not. */
export interface Sighting {
  event: "start" | "done" | "refused";
  type: string;
  speculative: boolean;
  key: string;
  attempt: number;
  uncertain: boolean;
  runId: string;
  pid: number;
}

/** Remembers everything, whatever becomes of the process. */
export interface Outside {
  note(sighting: Sighting): void;
  seen(): Sighting[];
}

/** @param durable Over a power cut, too. What a process has written outlives its own death in any case. */
export function fileOutside(path: string, durable = true): Outside {
  return {
    note(sighting) {
      const file = openSync(path, "a");
      writeSync(file, `${JSON.stringify(sighting)}\n`);
      if (durable) fsyncSync(file);
      closeSync(file);
    },
    seen() {
      if (!existsSync(path)) return [];
      // What stands behind the last end of a line is being written.
      const lines = readFileSync(path, "utf8").split("\n").slice(0, -1);
      return lines.map((line) => JSON.parse(line) as Sighting);
    },
  };
}

export function memoryOutside(): Outside {
  const sightings: Sighting[] = [];
  return { note: (sighting) => void sightings.push(sighting), seen: () => sightings };
}

/** Time that runs faster, in step over all processes: durable waits of seconds pass in milliseconds. */
export function fastClock(factor: number): Clock {
  const start = Date.UTC(2025, 0, 1);
  return {
    now: () => start + (Date.now() - start) * factor,
    setTimer(callback, delayMs, hold = false) {
      const timer = setTimeout(callback, Math.max(0, Math.min(delayMs / factor, 2 ** 31 - 1)));
      if (!hold) timer.unref();
      return { cancel: () => clearTimeout(timer) };
    },
  };
}

/** With a fast clock, what is meant to be far away must be farther. */
export const farMs = 100_000_000;

/** The options of every runtime here. */
export const schedulerOptions = { leaseMs: farMs, pollMs: 500 };

export const workloads: Record<WorkloadName, { vars: Record<string, Json>; output: Json; questions: number }> = {
  approval: { vars: { topic: "Durability" }, output: { published: "Durability", said: "yes" }, questions: 1 },
  order: {
    vars: { items: [{ cents: 80 }, { cents: 45 }] },
    output: { total: 115, receipt: { paid: 115 }, sent: [{ shipped: true }, { notified: true }] },
    questions: 0,
  },
  retry: { vars: { want: 3 }, output: { got: { value: 9 }, saved: { saved: 9 } }, questions: 0 },
};

/** @param witness Hears of each sighting after the outside world has it. */
export function workflowsOf(
  outside: Outside,
  witness: (sighting: Sighting) => void = () => undefined,
): Record<WorkloadName, Workflow> {
  const note = (type: string, event: Sighting["event"], context: EffectContext, speculative: boolean): void => {
    const { idempotencyKey: key, attempt, uncertain, runId } = context;
    const sighting: Sighting = { event, type, speculative, key, attempt, uncertain, runId, pid: process.pid };
    outside.note(sighting);
    witness(sighting);
  };
  /** The outside world says no `refusals` times under one key, then does it. */
  const act = (type: string, context: EffectContext, refusals = 0, speculative = false): void => {
    note(type, "start", context, speculative);
    const refused = outside.seen().filter(({ key, event }) => key === context.idempotencyKey && event === "refused").length;
    if (refused < refusals) {
      note(type, "refused", context, speculative);
      throw definite(new Error(`${type} was refused`));
    }
    note(type, "done", context, speculative);
  };
  const policy = { timeoutMs: farMs, maxAttempts: 8, backoff: { initialMs: 1, factor: 1, jitter: 0 } };

  const publish = defineEffect("publish", {
    policy,
    run: async ({ topic }: { topic: string }, context) => {
      act("publish", context);
      return { published: topic };
    },
  });
  const approval = defineWorkflow({
    id: "approval",
    effects: [publish],
    entry: "ask",
    nodes: {
      ask: ({ vars }) =>
        askUser({ prompt: `Publish "${vars.topic}"?`, choices: ["yes", "no"] }, { resultKey: "answer", nextNode: "decide" }),
      decide: ({ vars }) =>
        vars.answer.text === "yes" ? goto("publish") : complete({ published: "nothing", said: vars.answer.text }),
      publish: ({ vars }) => publish({ topic: vars.topic }, { resultKey: "result", nextNode: "end" }),
      end: ({ vars }) => complete({ published: vars.result.published, said: vars.answer.text }),
    },
  });

  const price = defineEffect("price", {
    speculative: true,
    run: ({ items }: { items: { cents: number }[] }, context) => {
      act("price", context, 0, true);
      return items.reduce((sum, { cents }) => sum + cents, 0);
    },
  });
  const charge = defineEffect("charge", {
    policy,
    run: ({ cents }: { cents: number }, context) => {
      act("charge", context, 2);
      return { paid: cents };
    },
  });
  const ship = defineEffect("ship", {
    policy,
    run: async (_: unknown, context) => {
      act("ship", context);
      await undefined;
      return { shipped: true };
    },
  });
  const notify = defineEffect("notify", {
    policy,
    run: async (_: unknown, context) => {
      await undefined;
      act("notify", context, 1);
      return { notified: true };
    },
  });
  const order = defineWorkflow({
    id: "order",
    effects: [price, charge, ship, notify],
    entry: "price",
    nodes: {
      price: ({ vars }) => price({ items: vars.items }, { resultKey: "total", nextNode: "route" }),
      route: ({ vars }) => (vars.total > 100 ? goto("discount") : goto("pay")),
      discount: ({ vars }) => {
        vars.total -= 10;
        return goto("pay");
      },
      pay: ({ vars }) => charge({ cents: vars.total }, { resultKey: "receipt", nextNode: "send" }),
      send: { timeoutMs: farMs, run: async () => all([ship({}), notify({})], { resultKey: "sent", nextNode: "end" }) },
      end: ({ vars }) => complete({ total: vars.total, receipt: vars.receipt, sent: vars.sent }),
    },
  });

  const fetch = defineEffect("fetch", {
    // From one second on a backoff is durable: the run is parked between its attempts.
    policy: { ...policy, backoff: { initialMs: 1_500, factor: 1, jitter: 0 } },
    run: ({ want }: { want: number }, context) => {
      act("fetch", context, 2);
      return { value: want * want };
    },
  });
  const save = defineEffect("save", {
    policy,
    run: async ({ value }: { value: number }, context) => {
      act("save", context);
      return { saved: value };
    },
  });
  const retry = defineWorkflow({
    id: "retry",
    effects: [fetch, save],
    entry: "fetch",
    nodes: {
      fetch: ({ vars }) => fetch({ want: vars.want }, { resultKey: "got", nextNode: "rest" }),
      rest: () => sleep(1_500, { nextNode: "save" }),
      save: ({ vars }) => save({ value: vars.got.value }, { resultKey: "saved", nextNode: "end" }),
      end: ({ vars }) => complete({ got: vars.got, saved: vars.saved }),
    },
  });
  return { approval, order, retry } as unknown as Record<WorkloadName, Workflow>;
}

/**
 * What a user's program does: starts the run or finds it, answers it when it asks, and gives its output. Run again after a crash, it
 * goes on.
 *
 * @param attempt Calls the runtime; a test in which the store fails tries again here.
 * @throws When the run has not ended after a minute: it is stuck.
 */
export async function carryOut(
  runtime: Runtime,
  workflow: Workflow,
  name: WorkloadName,
  attempt: <T>(call: () => Promise<T>) => Promise<T> = (call) => call(),
): Promise<Json> {
  const runId = name;
  const given = { runId, vars: workloads[name].vars };
  const stuckAt = performance.now() + 60_000;
  // Both ways to begin: driven here at once, and left to the scheduler.
  await attempt<unknown>(() => (name === "approval" ? runtime.run(workflow, given) : runtime.start(workflow, given))).catch(
    (error: unknown) => {
      // Somebody drives it already, this runtime's own scheduler perhaps.
      if (!isError(error, "RUN_BUSY")) throw error;
    },
  );
  for (let answered = false; ; ) {
    const run = await attempt(() => runtime.get(runId));
    if (!answered && run.waits.some(({ reason }) => reason === "user")) {
      await attempt(() => runtime.respond(runId, "yes")).catch((error: unknown) => {
        if (!isError(error, "ALREADY_ANSWERED")) throw error;
      });
      answered = true;
    }
    try {
      // Short only while the question may still come.
      const timeoutMs = answered || workloads[name].questions === 0 ? 60_000 : 1_000;
      return await attempt(() => runtime.result(runId, { timeoutMs }));
    } catch (error) {
      if (!isError(error, "RESULT_TIMEOUT")) throw error;
      if (performance.now() < stuckAt) continue;
      const { runs } = await runtime.list();
      throw new Error(`The run is stuck: ${JSON.stringify(runs)}`, { cause: error });
    }
  }
}
