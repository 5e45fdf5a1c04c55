// A process that streams loses its store at its first call, its second, and so on, before the call is done or after it. Another one goes
// on with the run. Whoever watched from the beginning, and whoever comes later, reads what watch() promises; of the attempt that
// completed, all of it.
import { expect, test } from "vitest";
import { complete, createRuntime, defineWorkflow, goto, type RuntimeOptions, type WatchItem } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { faultyStore, testClock } from "../../src/testing/index.ts";
import { reading, take, talking, text, unclosed } from "./watching.ts";

const parts = 8;
const said = (step: number, attempt: number): string =>
  Array.from({ length: parts }, (_, i) => `${step}.${attempt}.${i} `).join("");

function program(speculative: boolean) {
  const { say, act } = talking({ speculative });
  act.now = async ({ stream, step, attempt, clock }) => {
    for (let i = 0; i < parts; i++) {
      stream(text(`${step}.${attempt}.${i} `));
      await new Promise<void>((resolve) => clock.setTimer(resolve, 20));
    }
    return null;
  };
  return defineWorkflow({
    id: "program",
    effects: [say],
    entry: "ask",
    nodes: {
      ask: () => say("once", { nextNode: "between" }),
      between: () => goto("again"),
      again: () => say("twice", { nextNode: "end" }),
      end: () => complete(),
    },
  });
}

/** Answers whether the first process came to the n-th call, and how many attempts the run took at most. */
async function sweep(speculative: boolean, after: boolean, n: number): Promise<{ reached: boolean; attempts: number }> {
  const clock = testClock();
  const inner = memoryStore({ clock });
  const workflow = program(speculative);
  const open = (options: RuntimeOptions) => createRuntime({ store: unclosed(inner), clock, ...options });
  const starter = await open({ workflows: [workflow], scheduler: false });
  await starter.start(workflow, { runId: "r" });
  const watcher = await open({});
  const items: WatchItem[] = [];
  let isOver = false;
  const reader = take(watcher.watch("r"), (item) => void items.push(item)).finally(() => {
    isOver = true;
  });
  // Heard of below.
  reader.catch(() => undefined);
  // What it calls once it has lost the store is not done: another one would never get the run while its leases are renewed.
  const dying = faultyStore(inner, [
    { kind: "fail", call: n, after },
    { kind: "fail", fromCall: n + 1 },
  ]);
  const first = await createRuntime({ store: unclosed(dying), clock, workflows: [workflow] }).catch(() => undefined);
  await clock.advance(200);
  const second = await open({ workflows: [workflow] });
  while (!isOver) await clock.advance(100);
  await reader;
  const later = await take(watcher.watch("r"));
  for (const runtime of [first, second, watcher, starter]) {
    const stopped = runtime?.stop({ timeoutMs: 0 });
    await clock.advance(20_000);
    await stopped;
  }
  const completed = items.flatMap((item) =>
    item.kind === "record" && item.record.kind === "effect_completed" ? [item.record] : [],
  );
  expect(completed).toHaveLength(2);
  for (const shown of [items, later]) {
    const { seqs, texts } = reading(shown);
    expect(seqs).toEqual(reading(items).seqs);
    for (const [name, content] of Object.entries(texts)) {
      const [effectId, attempt] = name.split(" #");
      expect(said(Number(effectId), Number(attempt)).startsWith(content)).toBe(true);
    }
    for (const { step, attempt = 0 } of completed) expect(texts[`${step} #${attempt}`]).toBe(said(step, attempt));
  }
  return { reached: dying.calls.length >= n, attempts: Math.max(...completed.map(({ attempt = 0 }) => attempt)) };
}

test.each([
  [false, false],
  [false, true],
  [true, false],
  [true, true],
])("speculative: %s, after the call: %s", async (speculative, after) => {
  const attempts: number[] = [];
  for (let n = 1, reached = true; reached; n++) {
    const swept = await sweep(speculative, after, n);
    reached = swept.reached;
    attempts.push(swept.attempts);
  }
  expect(attempts.length).toBeGreaterThan(10);
  expect([attempts.at(-1), Math.max(...attempts)]).toEqual([1, 2]);
});
