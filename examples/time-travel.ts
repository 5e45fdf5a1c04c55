// Yesterday's run, looked at again: where it stood, what changed, and what would come out with another prompt or another model.
// Nothing is asked of the model for that, but for what is tried: the answers of yesterday are played back from the ledger.
import { complete, createRuntime, defineEffect, defineWorkflow, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

let calls = 0;
const model = defineEffect("llm_call", {
  input: type<{ prompt: string }>(),
  speculative: true,
  run: ({ prompt }): string => {
    calls += 1;
    return prompt.startsWith("Summarise") ? "Rain, later sun." : "Bring an umbrella.";
  },
});

const advise = (ask: string) =>
  defineWorkflow({
    id: "advise",
    vars: type<{ report: string; summary?: string; advice?: string }>(),
    entry: "summarise",
    effects: [model],
    nodes: {
      summarise: ({ vars }) => model({ prompt: `Summarise: ${vars.report}` }, { resultKey: "summary", nextNode: "advise" }),
      advise: ({ vars }) => model({ prompt: `${ask}: ${vars.summary}` }, { resultKey: "advice", nextNode: "done" }),
      done: ({ vars }) => complete({ advice: vars.advice }),
    },
  });

const yesterday = advise("What should I take along");
await using runtime = await createRuntime({ workflows: [yesterday], store: memoryStore() });
const { runId, seq } = await runtime.run(yesterday, { vars: { report: "It will rain until noon." } });
await runtime.snapshots.create(runId, { name: "yesterday", tags: ["weather"] });

// Where it stood after its first answer, and what has changed since.
const [first] = (await runtime.ledger(runId)).filter(({ kind }) => kind === "effect_completed");
const at = first?.seq ?? 0;
console.log("summary then:", (await runtime.stateAt(runId, at)).vars.summary);
for (const { op, path } of (await runtime.diff(runId, at, seq)).vars) console.log("since then:", op, path);

// The same code gives the same; another prompt is one difference, and nothing was called.
calls = 0;
console.log("as it was:", (await runtime.replay(runId)).differences.length, "differences");
const reworded = await runtime.replay(runId, { workflow: advise("One thing to pack") });
console.log("reworded:", reworded.differences.map(({ kind }) => kind).join(), "calls:", calls);

// Another model, tried against yesterday's run.
const other = await runtime.replay(runId, { effects: { llm_call: () => "Stay at home." } });
console.log("another model:", other.run.output);

// A run that really goes on from there, with other vars.
const fork = await runtime.fork(runId, { atSeq: at, vars: { report: "", summary: "Snow." } });
console.log("fork:", await runtime.result(fork.runId));
const { origin } = await runtime.get(fork.runId);
console.log("from record:", origin?.kind === "fork" && origin.runId === runId ? origin.seq : undefined);
