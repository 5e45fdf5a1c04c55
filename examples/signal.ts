// Events. `signal` goes to one run and is kept until the run waits for it, so it may come early. `emit` goes to every run that waits
// at that moment. With an id, either may be sent again after a lost answer, and counts once.
import { complete, createRuntime, defineWorkflow, isError, type, waitEvent } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

const parcel = defineWorkflow({
  id: "parcel",
  vars: type<{ to: string; payment?: { cents: number }; truck?: { leaves: string } }>(),
  entry: "payment",
  nodes: {
    // The schema names the type of the payload: here without checks. A zod schema would do as well.
    payment: () => waitEvent({ key: "paid", schema: type<{ cents: number }>() }, { resultKey: "payment", nextNode: "truck" }),
    truck: () => waitEvent({ key: "truck", schema: type<{ leaves: string }>() }, { resultKey: "truck", nextNode: "done" }),
    done: ({ vars }) => complete({ to: vars.to, cents: vars.payment?.cents, leaves: vars.truck?.leaves }),
  },
});

await using runtime = await createRuntime({ workflows: [parcel], store: memoryStore() });
const atTruck = new Set<string>();
const { promise: twoWait, resolve } = Promise.withResolvers<void>();
runtime.on("run", ({ runId, status, node }) => {
  if (status === "waiting" && node === "truck" && atTruck.add(runId).size === 2) resolve();
});

// Ada's run begins later, and her payment is there already: it waits for the run.
const ada = await runtime.start(parcel, { vars: { to: "Ada" }, delayMs: 5 });
console.log("early:", await runtime.signal(ada.runId, "paid", { cents: 900 }, { id: "payment-17" }));
console.log("again:", await runtime.signal(ada.runId, "paid", { cents: 900 }, { id: "payment-17" }));
const other = await runtime.signal(ada.runId, "paid", { cents: 1 }, { id: "payment-17" }).catch((error: unknown) => error);
console.log("another under that id:", isError(other) && other.code);

// Two more wait for a payment, and one of them for a truck.
const bob = await runtime.run(parcel, { vars: { to: "Bob" } });
const cleo = await runtime.run(parcel, { vars: { to: "Cleo" } });
await runtime.signal(bob.runId, "paid", { cents: 500 });

// `emit` reaches those that wait for a truck now. It is not kept for Cleo, who has not paid.
await twoWait;
console.log("reached:", await runtime.emit("truck", { leaves: "9:00" }, { id: "truck-1" }));
console.log(await runtime.result(ada.runId));
console.log(await runtime.result(bob.runId));
console.log("Cleo:", (await runtime.get(cleo.runId)).status, "at", (await runtime.get(cleo.runId)).node);
