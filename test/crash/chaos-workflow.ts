/** Ten effects, the last of them transactional, with a signal in the middle. What they do is seen from outside, whoever dies. */
import { appendFileSync } from "node:fs";
import { complete, defineEffect, defineWorkflow, goto, waitEvent, type Workflow } from "abstractruntime";
import type { UserDatabase } from "../stores/user-database.ts";

export const stepsPerRun = 10;

/** An attempt that began. */
export interface Begun {
  runId: string;
  n: number;
  key: string;
  attempt: number;
  pid: number;
}

/** @param seen The file that notes every attempt. */
export function chaosWorkflow(seen: string, database: UserDatabase): Workflow {
  const policy = { maxAttempts: 100, backoff: { initialMs: 10, factor: 1, jitter: 0 } };
  const act = defineEffect("act", {
    policy,
    run: async ({ n }: { n: number }, { runId, idempotencyKey: key, attempt }) => {
      appendFileSync(seen, `${JSON.stringify({ runId, n, key, attempt, pid: process.pid } satisfies Begun)}\n`);
      await undefined;
      return n;
    },
  });
  const book = defineEffect("book", {
    policy,
    transactional: true,
    run: async (_: unknown, { runId, transaction }) => {
      await database.on(transaction, "INSERT INTO ~chaos_bookings VALUES ($1)", runId);
      return "booked";
    },
  });
  return defineWorkflow({
    id: "chaos",
    effects: [act, book],
    entry: "act",
    nodes: {
      act: ({ vars }) => act({ n: vars.n ?? 1 }, { resultKey: "did", nextNode: "next" }),
      next: ({ vars }) => {
        vars.n = vars.did + 1;
        if (vars.n === stepsPerRun / 2 && vars.said === undefined) return goto("wait");
        return vars.n < stepsPerRun ? goto("act") : goto("book");
      },
      wait: () => waitEvent("go", { resultKey: "said", nextNode: "act" }),
      book: () => book({}, { resultKey: "booked", nextNode: "end" }),
      end: ({ vars }) => complete({ steps: vars.n, said: vars.said, booked: vars.booked }),
    },
  }) as unknown as Workflow;
}
