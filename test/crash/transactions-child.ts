/** A process that starts a run in a transaction of its own and drives it, and kills itself where it is told to. */
import { complete, createRuntime, defineEffect, defineWorkflow, type EffectContext, goto } from "abstractruntime";
import { type Fault, faultyStore } from "../../src/testing/faulty-store.ts";
import { storeAt, userDatabase } from "../stores/user-database.ts";

export interface TransactionTask {
  /** Of the database, as `--store` takes it. */
  address: string;
  /** Before or after the n-th call of the store, or at the n-th thing that this program does itself. */
  crash?: { call: number; after: boolean } | { own: number };
}

export interface TransactionReport {
  output: unknown;
  calls: string[];
  own: number;
}

export const bookings = ["flight", "hotel", "car"];

const { address, crash } = JSON.parse(process.argv[2] as string) as TransactionTask;
const die = (): void => void process.kill(process.pid, "SIGKILL");
let own = 0;
/** A point between two things that this program does. */
const point = (): void => {
  own += 1;
  if (crash && "own" in crash && crash.own === own) die();
};

const book = defineEffect("book", {
  transactional: true,
  policy: { maxAttempts: 8, backoff: { initialMs: 0, jitter: 0 } },
  run: async ({ what }: { what: string }, { transaction, attempt, runId, uncertain }: EffectContext) => {
    if (uncertain) throw new Error("a transactional effect was uncertain");
    point();
    await user.on(transaction, "INSERT INTO ~bookings VALUES ($1, $2)", runId, what);
    point();
    if (what === "hotel" && attempt === 1) throw new Error("call again");
    return what;
  },
});
const trip = defineWorkflow({
  id: "trip",
  effects: [book],
  entry: "book",
  nodes: {
    book: ({ vars }) => book({ what: vars.left[0] }, { resultKey: "last", nextNode: "next" }),
    next: ({ vars }) => {
      vars.done = [...(vars.done ?? []), vars.last];
      vars.left = vars.left.slice(1);
      return vars.left.length > 0 ? goto("book") : goto("end");
    },
    end: ({ vars }) => complete(vars.done),
  },
});

const faults: Fault[] = crash && "call" in crash ? [{ kind: "run", run: die, call: crash.call, after: crash.after }] : [];
const store = faultyStore(await storeAt(address), faults);
const user = await userDatabase(address);
const runtime = await createRuntime({ store, workflows: [trip], scheduler: { pollMs: 200 } });
const [ordered] = await user.query("SELECT id FROM ~orders");
if (!ordered) {
  await user.begin();
  await user.query("INSERT INTO ~orders VALUES ('order')");
  point();
  await runtime.start(trip, { runId: "order", vars: { left: bookings }, transaction: user.client });
  point();
  await user.commit();
  point();
}
const output = await runtime.result("order", { timeoutMs: 100_000 });
await runtime.stop();
await user[Symbol.asyncDispose]();
process.stdout.write(JSON.stringify({ output, calls: [...store.calls], own } satisfies TransactionReport));
