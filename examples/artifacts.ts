// A report that is too large for the ledger: the effect puts it as an artifact while it is being made, and the run keeps what stands
// for it. Another run makes the same report: its bytes are kept once, and for as long as one of the two refers to them.
import { type ArtifactRef, complete, createRuntime, defineEffect, defineWorkflow, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

/** A stream: at no time is the whole of it in memory. */
async function* lines(count: number): AsyncGenerator<string> {
  for (let n = 1; n <= count; n++) yield `line ${n}: nothing to report\n`;
}

const write = defineEffect("write", {
  input: type<{ lines: number }>(),
  output: type<ArtifactRef>(),
  speculative: true,
  run: (input, { artifacts }) => artifacts.put(lines(input.lines), { contentType: "text/plain", tags: { kind: "report" } }),
});

const count = defineEffect("count", {
  input: type<{ report: ArtifactRef }>(),
  speculative: true,
  run: async ({ report }, { artifacts }) => {
    let newlines = 0;
    for await (const chunk of (await artifacts.open(report)).stream()) for (const byte of chunk) if (byte === 10) newlines += 1;
    return newlines;
  },
});

const report = defineWorkflow({
  id: "report",
  vars: type<{ lines: number; report?: ArtifactRef; counted?: number }>(),
  effects: [write, count],
  entry: "write",
  nodes: {
    write: ({ vars }) => write({ lines: vars.lines }, { resultKey: "report", nextNode: "count" }),
    count: ({ vars }) => count({ report: vars.report as ArtifactRef }, { resultKey: "counted", nextNode: "done" }),
    done: ({ vars }) => complete({ report: vars.report, counted: vars.counted }),
  },
});

await using runtime = await createRuntime({ workflows: [report], store: memoryStore() });
const [one, two] = [
  await runtime.run(report, { runId: "one", vars: { lines: 50_000 } }),
  await runtime.run(report, { runId: "two", vars: { lines: 50_000 } }),
];
console.log("counted:", one.output?.counted, two.output?.counted);
const all = await runtime.artifacts.listAll({ tags: { kind: "report" } });
console.log("artifacts:", all.length, "of", all[0]?.sizeBytes, "bytes");
await runtime.artifacts.deleteByRun("one");
const { metadata } = await runtime.artifacts.open(two.output?.report as ArtifactRef);
console.log("kept by:", metadata.runIds);
