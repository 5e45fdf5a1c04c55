// A queue with limits: three runs at a time, one of each tenant, and no more than four begun in 20 ms. The limits hold over all
// processes that open the store. A run that has no slot is a row that waits; it costs nothing else.
import { setTimeout } from "node:timers/promises";
import { complete, createRuntime, defineEffect, defineWorkflow, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

const active = new Map<string, number>();
const most = { together: 0, ofOneTenant: 0 };

const send = defineEffect("send", {
  input: type<{ tenant: string }>(),
  run: async ({ tenant }) => {
    active.set(tenant, (active.get(tenant) ?? 0) + 1);
    most.together = Math.max(
      most.together,
      [...active.values()].reduce((sum, n) => sum + n, 0),
    );
    most.ofOneTenant = Math.max(most.ofOneTenant, ...active.values());
    await setTimeout(2);
    active.set(tenant, (active.get(tenant) ?? 0) - 1);
  },
});

const newsletter = defineWorkflow({
  id: "newsletter",
  vars: type<{ tenant: string }>(),
  entry: "send",
  effects: [send],
  nodes: {
    send: ({ vars }) => send({ tenant: vars.tenant }, { nextNode: "done" }),
    done: ({ vars }) => complete({ sentFor: vars.tenant }),
  },
});

await using runtime = await createRuntime({
  workflows: [newsletter],
  store: memoryStore(),
  queues: { mail: { concurrency: 3, keyConcurrency: 1, rateLimit: { limit: 4, periodMs: 20 } } },
});

const runIds: string[] = [];
const begun = Date.now();
for (const tenant of ["ada", "ada", "ada", "bob", "bob", "cleo", "cleo", "dora", "dora"]) {
  const urgent = tenant === "cleo"; // Due runs of higher priority are driven first.
  const { runId } = await runtime.start(newsletter, {
    vars: { tenant },
    queue: "mail",
    queueKey: tenant,
    priority: urgent ? 10 : 0,
  });
  runIds.push(runId);
}
await Promise.all(runIds.map((runId) => runtime.result(runId)));
console.log(`sent: ${runIds.length}`);
console.log("never more than three at a time:", most.together <= 3, "and one of a tenant:", most.ofOneTenant === 1);
console.log("took at least 40 ms:", Date.now() - begun >= 40);
