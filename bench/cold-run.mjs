// One process, one run of one step, on a new file. Plain JavaScript: stripping types here would be counted as ours.
import { complete, createRuntime, defineEffect, defineWorkflow } from "abstractruntime";
import { sqliteStore } from "abstractruntime/sqlite";

const add = defineEffect("add", { run: ({ n }) => n + 1 });
const workflow = defineWorkflow({
  id: "cold",
  effects: [add],
  entry: "add",
  nodes: { add: () => add({ n: 1 }, { resultKey: "n", nextNode: "end" }), end: ({ vars }) => complete({ n: vars.n }) },
});
const runtime = await createRuntime({ workflows: [workflow], store: await sqliteStore(process.argv[2]) });
const run = await runtime.run(workflow);
if (run.status !== "completed") throw new Error(`The run is ${run.status}.`);
console.log("done");
await runtime.stop();
