// One child run for each of 1,000 items, at most 100 of them under way at a time. Each child is a run of its own: it survives a
// crash by itself, and one that fails does not hurt the others. The results come back in the order of the items.
import { complete, createRuntime, defineEffect, defineWorkflow, fanOut, permanent, type } from "abstractruntime";
import { memoryStore } from "abstractruntime/memory";

const resize = defineEffect("resize", {
  input: type<{ name: string; bytes: number }>(),
  run: ({ name, bytes }) => {
    if (bytes === 0) throw permanent(new Error(`${name} is empty`));
    return { bytes: Math.ceil(bytes / 4) };
  },
});

const thumbnail = defineWorkflow({
  id: "thumbnail",
  vars: type<{ name: string; bytes: number; made?: { bytes: number } }>(),
  entry: "resize",
  effects: [resize],
  nodes: {
    resize: ({ vars: { name, bytes } }) => resize({ name, bytes }, { resultKey: "made", nextNode: "done" }),
    done: ({ vars }) => complete({ bytes: vars.made?.bytes ?? 0 }),
  },
});

const album = defineWorkflow({
  id: "album",
  entry: "split",
  nodes: {
    split: () => {
      const items = Array.from({ length: 1_000 }, (_, i) => ({ name: `photo-${i}`, bytes: i % 250 === 0 ? 0 : 1_000 + i }));
      // "collect": failures are among the results. With "fail", the default, the first one would end the whole.
      return fanOut(thumbnail, { items, concurrency: 100, onFailure: "collect" }, { resultKey: "thumbnails", nextNode: "sum" });
    },
    sum: ({ vars }) => {
      const results: { status: string; output?: { bytes: number } }[] = vars.thumbnails;
      return complete({
        made: results.filter(({ status }) => status === "completed").length,
        bytes: results.reduce((sum, { output }) => sum + (output?.bytes ?? 0), 0),
        failed: results.flatMap(({ status }, i) => (status === "failed" ? [`photo-${i}`] : [])),
      });
    },
  },
});

await using runtime = await createRuntime({ workflows: [album, thumbnail], store: memoryStore() });
const { runId } = await runtime.start(album);
console.log(await runtime.result(runId));

const { children } = await runtime.tree(runId);
console.log(children.length, "children, the first one", children[0]?.run.status, "and the second", children[1]?.run.status);
