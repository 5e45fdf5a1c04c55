/** The workflows of the examples, with what to start them with: the examples themselves run when they are imported. */
import {
  all,
  askUser,
  complete,
  defineEffect,
  defineWorkflow,
  definite,
  fail,
  fanOut,
  goto,
  overBudget,
  permanent,
  sleep,
  subworkflow,
  type,
  wait,
  type Workflow,
} from "abstractruntime";
import type { SimulateOptions, SimulationEnd } from "abstractruntime/testing";
import { z } from "zod";
import { publish } from "../../examples/publish.ts";
import { randomCode, randomStart } from "./random-workflow.ts";

const hello = defineWorkflow({
  id: "hello",
  vars: type<{ name: string; greeting?: string }>(),
  entry: "greet",
  nodes: {
    greet: ({ vars }) => {
      vars.greeting = `Hello, ${vars.name}!`;
      return goto("done");
    },
    done: ({ vars }) => complete({ greeting: vars.greeting }),
  },
});

const charge = defineEffect("charge", {
  input: z.object({ card: z.string(), cents: z.number().int().positive() }),
  policy: { maxAttempts: 5, backoff: { initialMs: 20, factor: 2, maxMs: 1_000, jitter: 0.2 } },
  run: async ({ card, cents }, { attempt, idempotencyKey }) => {
    if (card === "expired") throw permanent(new Error("the card has expired"));
    if (attempt < 3) throw definite(new Error("the bank does not answer"));
    return { receipt: idempotencyKey.slice(0, 8), cents };
  },
});

const order = defineWorkflow({
  id: "order",
  vars: z.object({
    items: z.array(z.object({ name: z.string(), cents: z.number() })),
    card: z.string(),
    total: z.number().default(0),
    payment: z.object({ receipt: z.string(), cents: z.number() }).optional(),
  }),
  entry: "total",
  effects: [charge],
  nodes: {
    total: ({ vars }) => {
      vars.total = vars.items.reduce((sum, { cents }) => sum + cents, 0);
      return vars.total === 0 ? goto("nothing") : goto("pay");
    },
    nothing: () => complete({ shipped: false, why: "nothing to pay" }),
    pay: ({ vars: { card, total } }) =>
      charge({ card, cents: total }, { resultKey: "payment", nextNode: "ship", errorNode: "refused" }),
    ship: ({ vars }) => complete({ shipped: true, paid: vars.payment?.cents }),
    refused: ({ error }) => complete({ shipped: false, why: error?.message }),
  },
});

const reminder = defineWorkflow({
  id: "reminder",
  vars: type<{ about: string; woke?: { until: string } }>(),
  entry: "rest",
  nodes: {
    rest: () => sleep({ days: 30 }, { resultKey: "woke", nextNode: "remind" }),
    remind: ({ vars }) => complete({ remember: vars.about, at: vars.woke?.until }),
  },
});

const post = defineEffect("post", { input: type<{ to: string }>(), onUncertain: "ask", run: () => "posted" });

const letter = defineWorkflow({
  id: "letter",
  vars: type<{ to: string; outcome?: string }>(),
  entry: "send",
  effects: [post],
  nodes: {
    send: ({ vars }) => post({ to: vars.to }, { resultKey: "outcome", nextNode: "done" }),
    done: ({ vars }) => complete({ to: vars.to, outcome: vars.outcome }),
  },
});

const batch = defineWorkflow({
  id: "batch",
  vars: type<{ order?: { subRunId: string; output: { shipped: boolean } } }>(),
  entry: "order",
  nodes: {
    order: () =>
      subworkflow(
        order,
        { vars: { items: [{ name: "book", cents: 1_250 }], card: "good" } },
        { resultKey: "order", nextNode: "done", errorNode: "failed" },
      ),
    done: ({ vars }) => complete({ shipped: vars.order?.output.shipped }),
    failed: () => complete({ shipped: false }),
  },
});

const map = defineWorkflow({
  id: "map",
  vars: type<{ orders?: { status: string }[] }>(),
  entry: "order",
  nodes: {
    order: () =>
      fanOut(
        order,
        {
          items: Array.from({ length: 6 }, (_, i) => ({
            items: i % 3 === 0 ? [] : [{ name: "book", cents: 1_250 }],
            card: i === 4 ? "expired" : "good",
          })),
          concurrency: 3,
          onFailure: "collect",
        },
        { resultKey: "orders", nextNode: "done" },
      ),
    done: ({ vars }) => complete({ ended: vars.orders?.length }),
  },
});

const give = defineEffect("give", { input: type<{ payload: unknown; result: unknown }>(), run: () => "given back" });
const book = defineEffect("book", { input: type<{ what: string }>(), run: ({ what }) => `${what}-1`, undo: give });

const trip = defineWorkflow({
  id: "trip",
  entry: "flight",
  effects: [book],
  nodes: {
    flight: () => book({ what: "flight" }, { nextNode: "hotel" }),
    hotel: () => book({ what: "hotel" }, { nextNode: "confirm" }),
    confirm: () => askUser({ prompt: "All right?", choices: ["yes", "no"] }, { resultKey: "all", nextNode: "end" }),
    end: ({ vars }) => (vars.all.text === "yes" ? complete() : fail("somebody said no")),
  },
});

/** Asks a person, hands the work to somebody who reports nothing, and looks how it stands now and then. */
const transfer = defineEffect("transfer", {
  onUncertain: "fail",
  exclusive: () => "the account",
  run: async (_, { answers, timedOut, cancelled }): Promise<unknown> => {
    if (cancelled) return null;
    if (answers.length === 0)
      return wait({
        reason: "user",
        prompt: "Transfer?",
        choices: ["yes", "no"],
        again: true,
        timeoutMs: 60_000,
        onTimeout: "again",
      });
    if ((answers[0] as { payload: { text?: string } }).payload.text === "no") return "denied";
    return timedOut ? "done" : wait({ reason: "job", again: true, timeoutMs: 5_000, onTimeout: "again", onCancel: "again" });
  },
});

const transfers = defineWorkflow({
  id: "transfers",
  entry: "both",
  effects: [transfer],
  nodes: {
    both: () =>
      all([transfer({ to: "Ada" }), transfer({ to: "Bob" })], { onFailure: "collect", resultKey: "got", nextNode: "end" }),
    end: ({ vars }) => complete({ got: vars.got }),
  },
});

/** Reserves, streams, asks once, fails now and then, and says what it did cost. */
const model = defineEffect("model", {
  policy: { maxAttempts: 4, backoff: { initialMs: 50, factor: 2, maxMs: 500, jitter: 0.2 } },
  speculative: (payload) => (payload as { asks: boolean }).asks === false,
  run: async ({ asks }: { asks: boolean }, { attempt, answers, budget, stream }): Promise<unknown> => {
    const over = answers.length === 0 ? await budget.reserve({ calls: 1, tokens: 3 }) : undefined;
    if (over) return overBudget(over);
    for (const text of ["attempt ", String(attempt)]) stream({ type: "text", text });
    if (answers.length === 0) budget.settle({ tokens: 2 });
    if (asks && answers.length === 0) return wait({ reason: "user", prompt: "Really?", choices: ["yes"], again: true });
    if (attempt % 3 === 1) throw definite(new Error("busy"));
    return "said";
  },
});

const talk = defineWorkflow({
  id: "talk",
  entry: "talk",
  effects: [model],
  nodes: {
    talk: () => all([model({ asks: true }), model({ asks: false })], { nextNode: "end", errorNode: "end" }),
    end: () => complete({}),
  },
});

const talks = defineWorkflow({
  id: "talks",
  entry: "talk",
  nodes: {
    talk: () => fanOut(talk, { items: [{}, {}, {}], onFailure: "collect", budget: { tokens: 8 } }, { nextNode: "end" }),
    end: () => complete({}),
  },
});

const frugal = defineWorkflow({
  id: "frugal",
  entry: "go",
  nodes: {
    go: () => subworkflow(talks, { vars: {}, budget: { calls: 5 } }, { nextNode: "end", errorNode: "end" }),
    end: () => complete({}),
  },
});

export interface Simulated {
  code: Parameters<typeof import("abstractruntime/testing").simulate>[0];
  options?: Pick<SimulateOptions, "vars" | "start" | "startWith" | "answer" | "invariants">;
}

const novel = { name: "novel", cents: 1_250 };

/** A task of some seconds, of a schedule that has few moments and fires them all. */
const task = defineWorkflow({
  id: "task",
  vars: type<{ at?: string; slow?: boolean }>(),
  entry: "work",
  effects: [post],
  nodes: {
    work: ({ vars }) => all([post({ to: vars.at ?? "" }), sleep(vars.slow ? 7_000 : 10)], { nextNode: "end" }),
    end: ({ vars }) => (vars.at?.endsWith("7.000Z") ? fail("as it should") : complete({ at: vars.at })),
  },
});

const scheduleStart = Date.UTC(2026, 0, 1);

/** Each moment starts at most one run, which knows it, and where all are to be made up for, exactly one. */
function firesOnce({ runs }: SimulationEnd): void {
  for (const { runId, status, vars } of runs) {
    const { spec, from } = vars as { spec?: { everyMs: number; endAt: number; overlap: string; catchUp: string }; from: number };
    if (!spec) continue;
    const moments = runs.filter(({ parentRunId }) => parentRunId === runId).map((child) => (child.vars as { at: string }).at);
    if (new Set(moments).size < moments.length) throw new Error(`schedule ${runId} has fired twice for a moment: ${moments}`);
    const all = Math.floor((spec.endAt - from) / spec.everyMs);
    if (status === "completed" && spec.catchUp === "all" && spec.overlap !== "skip" && moments.length !== all)
      throw new Error(`schedule ${runId} has fired for ${moments.length} of ${all} moments`);
    if (status === "failed") throw new Error(`schedule ${runId} has failed`);
  }
}

/** A run that went on under the second version was brought there once, and began there otherwise. */
function migratedOnce({ runs, records }: SimulationEnd): void {
  for (const { runId, vars } of runs) {
    const times = records.get(runId)?.filter(({ kind }) => kind === "migrated").length ?? 0;
    if (times !== (vars.migrated ?? 0) || times > 1)
      throw new Error(`run ${runId} was migrated ${times} times: ${vars.migrated}`);
  }
}

/** By name, for `npm run simulate -- --workflow NAME`. */
export const simulated: Record<string, Simulated> = {
  random: { code: (seed) => randomCode(seed), options: { startWith: randomStart } },
  asking: { code: (seed) => randomCode(seed, { asksAgain: true }), options: { startWith: randomStart } },
  transacting: { code: (seed) => randomCode(seed, { transacts: true, asksAgain: true }), options: { startWith: randomStart } },
  upgraded: {
    code: (seed) => ({
      ...randomCode(seed, { asksAgain: seed % 2 === 0 }),
      next: randomCode(seed, { asksAgain: seed % 2 === 0, version: 2 }),
    }),
    options: { startWith: randomStart, invariants: migratedOnce },
  },
  scheduled: {
    code: { workflows: [task] },
    options: {
      start: ["abstractruntime.schedule"],
      vars: (random, { index }) => ({
        spec: {
          id: `s${index}`,
          workflowId: "task",
          everyMs: random.pick([1_000, 5_000, 30_000]),
          endAt: scheduleStart + random.pick([20_000, 100_000]),
          vars: { slow: random.chance(0.5) },
          momentKey: "at",
          overlap: random.pick(["skip", "queue", "allow"]),
          catchUp: random.pick(["latest", "none", "all"]),
        },
        from: scheduleStart,
      }),
      invariants: firesOnce,
    },
  },
  hello: { code: hello, options: { vars: () => ({ name: "world" }) } },
  order: {
    code: order,
    options: {
      vars: (random) => ({ items: random.chance(0.8) ? [novel, novel] : [], card: random.chance(0.7) ? "good" : "expired" }),
    },
  },
  publish: { code: publish as Workflow, options: { vars: () => ({ topic: "Durability" }) } },
  reminder: { code: reminder, options: { vars: () => ({ about: "water the plants" }) } },
  letter: { code: letter, options: { vars: () => ({ to: "Ada" }) } },
  batch: { code: { workflows: [batch, order] } },
  map: { code: { workflows: [map, order] } },
  trip: { code: trip },
  transfers: { code: transfers },
  frugal: { code: { workflows: [frugal, talks, talk] } },
};
