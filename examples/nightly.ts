// A nightly schedule. It is made when the program starts, every time: the first call makes it, the others find it. It is a
// run in the store, so several programs may do this at once, and each night has one run.
import { complete, createRuntime, defineWorkflow, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

const cleanUp = defineWorkflow({
  id: "clean-up",
  vars: type<{ keepDays: number; at: string }>(),
  entry: "clean",
  nodes: {
    // The moment it was started for, not the time it happens to be: after a night without power, that is still the right day.
    clean: ({ vars }) => {
      const before = Date.parse(vars.at) - vars.keepDays * 86_400_000;
      return complete({ cleanedUpTo: new Date(before).toISOString().slice(0, 10) });
    },
  },
});

await using runtime = await createRuntime({ workflows: [cleanUp], store: memoryStore() });
const { schedules } = runtime;

const make = () =>
  schedules.create({
    id: "nightly",
    cron: "30 3 * * *", // At 03:30, by the clock in Athens.
    timezone: "Europe/Athens",
    workflow: cleanUp,
    vars: { keepDays: 30 },
    momentKey: "at",
    overlap: "skip", // A night comes while the last one still runs: leave it out.
    catchUp: "latest", // The machine was off for a week: one run, for the last night.
  });

const { nextAt, runId } = await make();
console.log("nightly fires next at", new Date(nextAt ?? 0).toISOString());
console.log("made twice, it is one:", (await make()).runId === runId);

// Nobody waits for the night here: a run now, outside of the plan.
const triggered = await schedules.trigger("nightly");
console.log("output:", await runtime.result(triggered.runId));

await schedules.pause("nightly");
for (const { id, paused } of await schedules.list()) console.log(`${paused ? "paused" : "active"}: ${id}`);
await schedules.delete("nightly");
console.log("left:", (await schedules.list()).length);
