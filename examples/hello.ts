// The smallest workflow: two nodes, one variable, one output. Nothing is left behind: the store is in memory.
import { complete, createRuntime, defineWorkflow, goto, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

const hello = defineWorkflow({
  id: "hello",
  // What the run remembers. `type` checks it at compile time only; a zod schema checks it at run time too.
  vars: type<{ name: string; greeting?: string }>(),
  entry: "greet",
  nodes: {
    // A node changes the vars in place and says where to go.
    greet: ({ vars }) => {
      vars.greeting = `Hello, ${vars.name}!`;
      return goto("done");
    },
    done: ({ vars }) => complete({ greeting: vars.greeting }),
  },
});

await using runtime = await createRuntime({ workflows: [hello], store: memoryStore() });
const run = await runtime.run(hello, { vars: { name: "world" } });

console.log(run.status, run.output);
for (const record of await runtime.ledger(run.runId)) console.log(record.seq, record.kind, record.node);
