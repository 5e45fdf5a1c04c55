// An order that branches, with an effect that fails twice before it succeeds, and one that fails for good.
import { complete, createRuntime, defineEffect, defineWorkflow, definite, goto, permanent } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";
import { z } from "zod";

// Effects are the only place where a run touches the world.
const charge = defineEffect("charge", {
  input: z.object({ card: z.string(), cents: z.number().int().positive() }),
  policy: { maxAttempts: 5, backoff: { initialMs: 20, factor: 2, maxMs: 1_000, jitter: 0.2 } },
  run: async ({ card, cents }, { attempt, idempotencyKey }) => {
    // `permanent`: it has not happened, and another attempt is no use. `definite`: it has not happened, so try again.
    if (card === "expired") throw permanent(new Error("the card has expired"));
    if (attempt < 3) throw definite(new Error("the bank does not answer"));
    // The key is the same for every attempt. A real payment provider takes it and charges once.
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
    // An `errorNode` sees why it was reached. Without one the run would have failed.
    refused: ({ error }) => complete({ shipped: false, why: error?.message }),
  },
});

await using runtime = await createRuntime({ workflows: [order], store: memoryStore() });
const book = { name: "book", cents: 1_250 };
for (const vars of [
  { items: [book, book], card: "good" },
  { items: [book], card: "expired" },
  { items: [], card: "good" },
]) {
  const { runId, status, output } = await runtime.run(order, { vars });
  console.log(status, output);
  for (const { kind, node, attempt } of await runtime.ledger(runId))
    console.log("  ", kind, node, attempt ? `attempt ${attempt}` : "");
}
