// A trip of three bookings. The third one fails, so the first two are undone, the last one first. No node does that: each effect
// says how it is undone, and the run remembers what it has completed, over restarts too.
import { complete, createRuntime, defineEffect, defineWorkflow, isError, permanent, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

type Booked = { booking: string };

// What undoes an effect is an effect: with attempts, an idempotency key, and records of its own.
const cancelBooking = defineEffect("cancel_booking", {
  input: type<{ payload: { what: string }; result: Booked }>(),
  run: ({ payload, result }) => console.log(`cancel ${result.booking} (${payload.what})`),
});

const book = defineEffect("book", {
  input: type<{ what: string }>(),
  run: ({ what }): Booked => {
    // `permanent`: it has certainly not happened. An effect that failed is not undone: there is nothing to undo.
    if (what === "car") throw permanent(new Error("no car is left"));
    console.log(`book ${what}`);
    return { booking: `${what}-1` };
  },
  undo: cancelBooking, // Called with { payload, result } of what is undone. It stands behind `run`, whose result it takes.
});

const trip = defineWorkflow({
  id: "trip",
  vars: type<{ third: string }>(),
  entry: "flight",
  effects: [book], // What undoes them comes along.
  nodes: {
    flight: () => book({ what: "flight" }, { nextNode: "hotel" }),
    hotel: () => book({ what: "hotel" }, { nextNode: "third" }),
    third: ({ vars }) => book({ what: vars.third }, { nextNode: "done" }),
    done: () => complete({ booked: true }),
  },
});

await using runtime = await createRuntime({ workflows: [trip], store: memoryStore() });
console.log((await runtime.run(trip, { vars: { third: "bicycle" } })).output);

const { runId } = await runtime.start(trip, { vars: { third: "car" } });
const failure = await runtime.result(runId).catch((error: unknown) => error);
if (isError(failure, "RUN_FAILED")) console.log("failed:", failure.fields.problem);
const { undoFailures = [] } = await runtime.get(runId);
console.log("not undone:", undoFailures.length);
for (const { kind, node } of (await runtime.ledger(runId)).slice(-6)) console.log("  ", kind, node);
