/** Small workflows of every kind of step, for processes that share a store. */
import {
  all,
  askUser,
  complete,
  defineEffect,
  defineWorkflow,
  type EffectContext,
  goto,
  type Json,
  sleep,
  type Workflow,
} from "abstractruntime";
import type { Outside } from "./workload.ts";

/** What a run of each ends with, when it was started with `{ n }`. */
export const mixedOutputs: Record<string, (n: number) => Json> = {
  pure: (n) => n + 2,
  speculative: (n) => n + 20,
  barrier: (n) => n + 10,
  timer: (n) => [n, n, n],
  asked: (n) => [n, "yes"],
};

/** @param gates Until then, effects of `gated` do not return. */
export function mixedWorkflows(outside: Outside, gates: Promise<void>): Workflow[] {
  const note = (type: string, event: "start" | "done", context: EffectContext): void => {
    const { idempotencyKey: key, attempt, uncertain, runId } = context;
    outside.note({ event, type, speculative: false, key, attempt, uncertain, runId, pid: process.pid });
  };
  const add = defineEffect("add", { speculative: true, run: ({ n }: { n: number }) => n + 1 });
  const act = defineEffect("act", {
    run: async ({ n }: { n: number }, context) => {
      note("act", "start", context);
      await undefined;
      note("act", "done", context);
      return n;
    },
  });
  const hold = defineEffect("hold", {
    policy: { backoff: { initialMs: 1, jitter: 0 } },
    run: async ({ n }: { n: number }, context) => {
      note("hold", "start", context);
      await Promise.race([gates, new Promise((resolve) => context.signal.addEventListener("abort", resolve))]);
      context.signal.throwIfAborted();
      note("hold", "done", context);
      return n;
    },
  });
  const ask = ({ vars }: { vars: any }) =>
    askUser({ prompt: `Is it ${vars.n}?`, choices: ["yes", "no"] }, { resultKey: "answer", nextNode: "act" });
  return [
    defineWorkflow({
      id: "pure",
      entry: "a",
      nodes: {
        a: ({ vars }) => {
          vars.m = vars.n + 1;
          return goto("b");
        },
        b: ({ vars }) => {
          vars.m += 1;
          return goto("c");
        },
        c: ({ vars }) => complete(vars.m),
      },
    }),
    defineWorkflow({
      id: "speculative",
      effects: [add],
      entry: "a",
      nodes: {
        a: ({ vars }) => add({ n: vars.m ?? vars.n }, { resultKey: "m", nextNode: "b" }),
        b: ({ vars }) => (vars.m < vars.n + 20 ? goto("a") : complete(vars.m)),
      },
    }),
    defineWorkflow({
      id: "barrier",
      effects: [act],
      entry: "a",
      nodes: {
        a: ({ vars }) => act({ n: (vars.m ?? vars.n) + 1 }, { resultKey: "m", nextNode: "b" }),
        b: ({ vars }) => (vars.m < vars.n + 10 ? goto("a") : complete(vars.m)),
      },
    }),
    defineWorkflow({
      id: "timer",
      effects: [act],
      entry: "a",
      nodes: {
        a: () => sleep(30, { nextNode: "b" }),
        b: ({ vars }) => act({ n: vars.n }, { resultKey: "m", nextNode: "c" }),
        c: ({ vars }) => {
          vars.all = [...(vars.all ?? []), vars.m];
          return vars.all.length < 3 ? goto("a") : complete(vars.all);
        },
      },
    }),
    defineWorkflow({
      id: "asked",
      effects: [act],
      entry: "ask",
      nodes: {
        ask,
        act: ({ vars }) => act({ n: vars.n }, { resultKey: "m", nextNode: "end" }),
        end: ({ vars }) => complete([vars.m, vars.answer.text]),
      },
    }),
    defineWorkflow({
      id: "gated",
      effects: [hold, act],
      entry: "a",
      nodes: {
        a: ({ vars }) => all([hold({ n: vars.n }), hold({ n: vars.n + 1 })], { resultKey: "m", nextNode: "b" }),
        b: ({ vars }) => act({ n: vars.n }, { resultKey: "o", nextNode: "c" }),
        c: ({ vars }) => complete([...vars.m, vars.o]),
      },
    }),
  ] as unknown as Workflow[];
}
