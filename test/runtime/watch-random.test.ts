// Random programs that stream, and readers that come, leave, dawdle and go on elsewhere: each is shown every record once, and of every
// attempt the whole text once, in the order that watch() promises. A failure names its seed.
import { expect, test } from "vitest";
import { all, complete, createRuntime, defineWorkflow, goto, type WatchItem } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { type TestClock, testClock } from "../../src/testing/index.ts";
import { randomOf } from "../../src/testing/simulate/random.ts";
import { reading, talking, unclosed } from "./watching.ts";

const seeds = 40;

test.each(Array.from({ length: seeds }, (_, seed) => seed))("seed %i", async (seed) => {
  const clock = testClock();
  const store = memoryStore({ clock });
  const random = randomOf(seed, "program");
  const { say, act } = talking({ speculative: random.chance(0.5) });
  // More steps than are kept would be more than a slow reader could be promised.
  const steps = random.int(1, 2);
  const written: Record<string, string> = {};
  act.now = async (context, payload) => {
    const { step, attempt } = context;
    const attempts = randomOf(seed, payload, attempt);
    const name = `${step}.${payload.split(" ")[1]} #${attempt}`;
    for (let i = attempts.int(0, 30); i > 0; i--) {
      const content = `${payload}:${i}${"x".repeat(attempts.chance(0.02) ? 40_000 : attempts.int(0, 20))}`;
      written[name] = (written[name] ?? "") + content;
      context.stream({
        type: attempts.chance(0.5) ? "text" : "reasoning",
        text: content,
        ...(attempts.chance(0.2) ? { id: "1" } : {}),
      });
      if (attempts.chance(0.4)) await pause(clock, attempts.int(0, 60));
    }
    if (attempt < 3 && attempts.chance(0.3)) throw new Error("again");
    return payload;
  };
  const program = defineWorkflow({
    id: "program",
    effects: [say],
    entry: "ask",
    nodes: {
      ask: ({ vars }) => {
        const step = (vars.n as number) ?? 0;
        const members = randomOf(seed, "members", step).int(1, 4);
        return all(
          Array.from({ length: members }, (_, i) => say(`${step} ${i}`)),
          { resultKey: "said", nextNode: "next" },
        );
      },
      next: ({ vars }) => {
        vars.n = ((vars.n as number) ?? 0) + 1;
        return (vars.n as number) < steps ? goto("ask") : complete();
      },
    },
  });
  const driver = await createRuntime({ workflows: [program], store, clock });
  const other = await createRuntime({ store: unclosed(store), clock });
  const { runId } = await driver.start(program);

  const reader = async (number: number): Promise<WatchItem[]> => {
    const mine = randomOf(seed, "reader", number);
    const items: WatchItem[] = [];
    await pause(clock, mine.int(0, 300));
    for (;;) {
      const runtime = mine.chance(0.5) ? driver : other;
      let left = mine.chance(0.6) ? mine.int(1, 25) : Number.POSITIVE_INFINITY;
      for await (const item of runtime.watch(runId, { after: items.at(-1)?.cursor })) {
        items.push(item);
        if (mine.chance(0.1)) await pause(clock, mine.int(0, 30));
        left -= 1;
        if (left === 0) break;
      }
      if (left > 0) return items;
    }
  };
  let isOver = false;
  const readers = Promise.all(Array.from({ length: 6 }, (_, i) => reader(i))).finally(() => {
    isOver = true;
  });
  // Heard of below.
  readers.catch(() => undefined);
  while (!isOver) await clock.advance(20);
  const last = (await driver.get(runId)).seq;
  for (const items of await readers) {
    const { seqs, texts } = reading(items);
    expect(seqs).toEqual(Array.from({ length: last + 1 }, (_, i) => i));
    expect(texts).toEqual(Object.fromEntries(Object.entries(written).filter(([, text]) => text !== "")));
  }
  await other.stop({ timeoutMs: 0 });
  await driver.stop();
});

function pause(clock: TestClock, ms: number): Promise<void> {
  return new Promise((resolve) => clock.setTimer(resolve, ms));
}
