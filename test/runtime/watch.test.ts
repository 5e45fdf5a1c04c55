// watch(): records and streams in one order, here and elsewhere, live and later.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import {
  all,
  any,
  askUser,
  complete,
  createRuntime,
  defineWorkflow,
  fail,
  goto,
  type RunRow,
  type RuntimeProblem,
  type WatchItem,
} from "../../src/index.ts";
import { LiveStreams } from "../../src/runtime/streams.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { type Fault, faultyStore, testClock } from "../../src/testing/index.ts";
import { eventually } from "../eventually.ts";
import { type Act, gate, lines, reading, take, talking, text } from "./watching.ts";

const opened: { stop(): Promise<void> }[] = [];
afterEach(async () => {
  for (const runtime of opened.splice(0)) await runtime.stop();
});

/** A run of one request, in memory. */
async function talk(now: Act, options: { speculative?: boolean; faults?: Fault[]; clock?: ReturnType<typeof testClock> } = {}) {
  const { say, act } = talking({ speculative: options.speculative === true });
  act.now = now;
  const talker = defineWorkflow({
    id: "talker",
    effects: [say],
    entry: "ask",
    nodes: { ask: () => say("hello", { resultKey: "said", nextNode: "end" }), end: () => complete() },
  });
  const store = faultyStore(memoryStore(options.clock ? { clock: options.clock } : {}), options.faults ?? []);
  const runtime = await createRuntime({ workflows: [talker], store, ...(options.clock ? { clock: options.clock } : {}) });
  opened.push(runtime);
  return { runtime, store, act, talker };
}

const isStream = (item: WatchItem): boolean => item.kind === "stream";

describe("order", () => {
  test("what an attempt streams comes between its beginning and its outcome, at once and as it was written", async () => {
    const { opened, open } = gate();
    const { runtime, talker } = await talk(async ({ stream }) => {
      stream(text("One"));
      stream({ type: "reasoning", text: "hm" });
      await opened;
      stream(text(" two"));
      stream(text(" three"));
      return "One two three";
    });
    const { runId } = await runtime.start(talker);
    const items = await take(runtime.watch(runId), (item) => {
      // Seen while the attempt is under way: it waits for this.
      if (isStream(item) && item.kind === "stream" && item.part.type === "reasoning") open();
    });
    expect(lines(items)).toEqual([
      "run_started",
      "effect_started 1 #1",
      "1 #1 text @0: One",
      "1 #1 reasoning @3: hm",
      "1 #1 text @5:  two three",
      "effect_completed 1 #1",
      "run_completed",
    ]);
    expect(items.filter(isStream)).toHaveLength(4);
    expect(items[2]).toEqual({
      kind: "stream",
      provisional: true,
      effectId: "1",
      step: 1,
      attempt: 1,
      offset: 0,
      part: { type: "text", text: "One" },
      cursor: expect.any(String),
    });
    // Later, it is the same, in fewer pieces.
    const later = await take(runtime.watch(runId));
    expect(lines(later)).toEqual(lines(items));
    expect(later.filter(isStream)).toHaveLength(3);
    for (const { cursor } of items) expect(cursor).toEqual(expect.any(String));
  });

  test("a handler that answers synchronously streams all the same, also a speculative one", async () => {
    for (const speculative of [false, true]) {
      const { runtime, talker } = await talk(
        ({ stream }) => {
          stream(text("at "));
          stream(text("once"));
          return null;
        },
        { speculative },
      );
      const { runId } = await runtime.start(talker);
      expect(reading(await take(runtime.watch(runId))).texts).toEqual({ "1 #1": "at once" });
      expect(reading(await take(runtime.watch(runId))).texts).toEqual({ "1 #1": "at once" });
    }
  });

  test("an attempt that is made again shows as a reset before its first part, and one that streams nothing does not", async () => {
    const { runtime, talker } = await talk(({ stream, attempt }) => {
      if (attempt === 2) throw Object.assign(new Error("again"), { definite: true });
      stream(text(`attempt ${attempt}`));
      if (attempt === 1) throw new Error("no");
      return null;
    });
    const { runId } = await runtime.start(talker);
    const live = await take(runtime.watch(runId));
    expect(lines(live).filter((line) => !line.startsWith("effect_started"))).toEqual([
      "run_started",
      "1 #1 text @0: attempt 1",
      expect.stringMatching(/^effect_(failed|uncertain) 1 #1$/),
      expect.stringMatching(/^effect_(failed|uncertain) 1 #2$/),
      "reset 1 #3",
      "1 #3 text @0: attempt 3",
      "effect_completed 1 #3",
      "run_completed",
    ]);
    expect(lines(await take(runtime.watch(runId)))).toEqual(lines(live));
  });

  test("nothing is shown or kept of an attempt before its beginning is durable", async () => {
    const clock = testClock();
    const { opened, open } = gate();
    const written = gate();
    const begins = (method: string, [transitions]: readonly unknown[]): boolean =>
      method === "commit" && JSON.stringify(transitions).includes("effect_started");
    const { runtime, store, talker } = await talk(
      async ({ stream }) => {
        stream(text("ahead"));
        written.open();
        await opened;
        return null;
      },
      { speculative: true, clock, faults: [{ kind: "delay", on: begins, until: opened }] },
    );
    const { runId } = await runtime.start(talker);
    const items: WatchItem[] = [];
    const reader = take(runtime.watch(runId), (item) => void items.push(item));
    await written.opened;
    await clock.advance(1_000);
    expect(lines(items)).toEqual(["run_started"]);
    expect(store.calls).not.toContain("appendStream");
    open();
    await runtime.result(runId);
    expect(lines(await reader)).toEqual([
      "run_started",
      "effect_started 1 #1",
      "1 #1 text @0: ahead",
      "effect_completed 1 #1",
      "run_completed",
    ]);
    expect(store.calls.filter((call) => call === "appendStream")).toHaveLength(1);
  });

  test("streams of effects that execute together are each in order", async () => {
    const { say, act } = talking();
    const both = defineWorkflow({
      id: "both",
      effects: [say],
      entry: "ask",
      nodes: {
        ask: () => all([say("a"), say("b"), say("c")], { resultKey: "said", nextNode: "end" }),
        end: () => complete(),
      },
    });
    act.now = async ({ stream }, payload) => {
      for (let i = 0; i < 50; i++) {
        stream(text(`${payload}${i} `));
        if (i % 7 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      return payload;
    };
    const runtime = await createRuntime({ workflows: [both], store: memoryStore() });
    opened.push(runtime);
    const { runId } = await runtime.start(both);
    const all50 = (name: string): string => Array.from({ length: 50 }, (_, i) => `${name}${i} `).join("");
    const expected = { "1.0 #1": all50("a"), "1.1 #1": all50("b"), "1.2 #1": all50("c") };
    expect(reading(await take(runtime.watch(runId))).texts).toEqual(expected);
    expect(reading(await take(runtime.watch(runId))).texts).toEqual(expected);
  });

  test("an effect that its group gives up is shown as far as it came", async () => {
    const { say, act } = talking({ speculative: true });
    const race = defineWorkflow({
      id: "race",
      effects: [say],
      entry: "ask",
      nodes: {
        ask: () => any([say("slow"), say("fast")], { resultKey: "said", nextNode: "end" }),
        end: ({ vars }) => complete(vars.said),
      },
    });
    const { opened: isSeen, open } = gate();
    act.now = async ({ stream, signal }, payload) => {
      stream(text(payload));
      if (payload === "fast") return isSeen.then(() => ({ payload }));
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          stream(text(" and late"));
          reject(new Error("given up"));
        });
      });
    };
    const runtime = await createRuntime({ workflows: [race], store: memoryStore() });
    opened.push(runtime);
    const { runId } = await runtime.start(race);
    const items = await take(runtime.watch(runId), (item) => void (item.kind === "stream" && item.effectId === "1.1" && open()));
    expect(reading(items).texts).toEqual({ "1.0 #1": "slow", "1.1 #1": "fast" });
    expect(lines(items).at(-1)).toBe("run_completed");
  });

  test("of the steps before the last two that streamed, the records are left", async () => {
    const { say, act } = talking();
    const counting = defineWorkflow({
      id: "counting",
      effects: [say],
      entry: "ask",
      nodes: {
        ask: ({ vars }) => say(`step ${(vars.n as number) ?? 0}`, { resultKey: "said", nextNode: "next" }),
        next: ({ vars }) => {
          vars.n = ((vars.n as number) ?? 0) + 1;
          return (vars.n as number) < 4 ? goto("ask") : complete();
        },
      },
    });
    act.now = ({ stream }, payload) => {
      stream(text(payload));
      return payload;
    };
    const runtime = await createRuntime({ workflows: [counting], store: memoryStore() });
    opened.push(runtime);
    const { runId } = await runtime.start(counting);
    const live = await take(runtime.watch(runId));
    const texts = { "1 #1": "step 0", "3 #1": "step 1", "5 #1": "step 2", "7 #1": "step 3" };
    expect(reading(live).texts).toEqual(texts);
    const later = reading(await take(runtime.watch(runId)));
    expect(later.texts).toEqual({ "5 #1": "step 2", "7 #1": "step 3" });
    expect(later.seqs).toEqual(reading(live).seqs);
    // In the middle of a stream that was dropped meanwhile: the record with the whole comes next.
    const first = live.find(isStream) as WatchItem;
    const rest = await take(runtime.watch(runId, { after: first.cursor }));
    expect(lines(rest)[0]).toBe("effect_completed 1 #1");
  });
});

describe("cursors", () => {
  test("whoever goes on from any cursor sees exactly the rest", async () => {
    const { runtime, talker } = await talk(async ({ stream, attempt }) => {
      for (const word of ["a", "bc", "def", "g"]) {
        stream(text(`${attempt}${word}`));
        stream({ type: "tool-call", callId: "c1", text: "{}" });
        await new Promise((resolve) => setImmediate(resolve));
      }
      if (attempt === 1) throw new Error("once more");
      return null;
    });
    const { runId } = await runtime.start(talker);
    const items = await take(runtime.watch(runId));
    const whole = reading(items);
    expect(Object.keys(whole.texts)).toEqual(["1 #1", "1 #2"]);
    for (const [i, { cursor }] of items.entries()) {
      const before = reading(items.slice(0, i + 1));
      const rest = await take(runtime.watch(runId, { after: cursor }));
      expect(lines([...items.slice(0, i + 1), ...rest])).toEqual(lines(items));
      expect(reading(rest, before.ends).ends).toEqual(whole.ends);
    }
    expect(await take(runtime.watch(runId, { after: items.at(-1)?.cursor }))).toEqual([]);
  });

  test("a cursor that says what never was shows nothing of it, and ends with the run", async () => {
    const { opened, open } = gate();
    const { runtime, talker } = await talk(async ({ stream }) => {
      stream(text("a"));
      await opened;
      stream(text("b"));
      return null;
    });
    const { runId } = await runtime.start(talker);
    await take(runtime.watch(runId), isStream);
    const readers = ["2;1:9:5", "2;1:1:999999999999999", "0;1:2:0;2:1:1"].map((after) => take(runtime.watch(runId, { after })));
    open();
    const ends = ["effect_completed 1 #1", "run_completed"];
    expect((await Promise.all(readers)).map(lines)).toEqual([ends, ends, ["run_started", "effect_started 1 #1", ...ends]]);
    expect(lines(await take(runtime.watch(runId, { after: "2;1:9:5" })))).toEqual(ends);
  });

  test("what is no cursor of this run is refused", async () => {
    const { runtime, talker } = await talk(() => null);
    const { runId } = await runtime.run(talker);
    for (const after of ["", "x", "1;2", "1;2:3", "1;2:3:x", "-1", "1.5", "1;%:1:1", 5, {}, "9".repeat(40)])
      expect(() => runtime.watch(runId, { after: after as string })).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
    await expect(take(runtime.watch(runId, { after: "99" }))).rejects.toMatchObject({ code: "INVALID_OPTION" });
    expect(() => runtime.watch(runId, { form: 1 } as never)).toThrow(expect.objectContaining({ code: "INVALID_OPTION" }));
  });
});

describe("ends", () => {
  test("a run that is not there, or was purged", async () => {
    const { runtime, talker } = await talk(() => null);
    await expect(take(runtime.watch("nobody"))).rejects.toMatchObject({ code: "RUN_NOT_FOUND" });
    const { runId } = await runtime.run(talker);
    await runtime.purge({ runIds: [runId] });
    await expect(take(runtime.watch(runId))).rejects.toMatchObject({ code: "RUN_PURGED" });
  });

  test("a run that is purged while somebody reads it", async () => {
    const clock = testClock();
    const { runtime, store, talker } = await talk(() => null, { clock });
    const { runId } = await runtime.run(talker);
    const reader = runtime.watch(runId)[Symbol.asyncIterator]();
    await reader.next();
    await store.purge([runId]);
    const rest = (async () => {
      while (!(await reader.next()).done);
    })();
    await expect(rest).rejects.toMatchObject({ code: "RUN_PURGED" });
  });

  test("a run that waits is watched on, and its answer shows", async () => {
    const asking = defineWorkflow({
      id: "asking",
      entry: "ask",
      nodes: { ask: () => askUser({ prompt: "Yes?" }, { resultKey: "answer", nextNode: "end" }), end: () => complete() },
    });
    const clock = testClock();
    const runtime = await createRuntime({ workflows: [asking], store: memoryStore({ clock }), clock });
    opened.push(runtime);
    const { runId } = await runtime.start(asking);
    const items = await take(runtime.watch(runId), (item) => {
      if (item.kind === "record" && item.record.kind === "parked") void runtime.respond(runId, "yes");
    });
    expect(lines(items)).toEqual(["run_started", "parked 1", "delivered 1", "run_completed"]);
  });

  test("a run whose first records were archived begins with what is kept", async () => {
    const waiting = defineWorkflow({
      id: "waiting",
      entry: "first",
      nodes: {
        first: () => goto("second"),
        second: () => askUser({ prompt: "Yes?" }, { nextNode: "end" }),
        end: () => complete(),
      },
    });
    const clock = testClock();
    const runtime = await createRuntime({ workflows: [waiting], store: memoryStore({ clock }), clock });
    opened.push(runtime);
    const { runId } = await runtime.run(waiting);
    const [first] = await take(runtime.watch(runId), () => true);
    const directory = mkdtempSync(join(tmpdir(), "abstractruntime-watch-"));
    await runtime.archiveLedger(runId, { before: 2, to: join(directory, "archived") });
    const isArchived = (item: WatchItem): boolean => item.kind === "record" && item.record.kind === "control";
    const items = await take(runtime.watch(runId, { after: "2" }), isArchived);
    expect(lines(items)).toEqual(["parked 2", "control"]);
    expect(lines(await take(runtime.watch(runId), isArchived))).toEqual(lines(items));
    await expect(take(runtime.watch(runId, { after: first?.cursor }))).rejects.toMatchObject({ code: "RECORDS_ARCHIVED" });
    rmSync(directory, { recursive: true });
  });

  test("a failed run ends it; once the run is tried again, its history goes on", async () => {
    let times = 0;
    const failing = defineWorkflow({
      id: "failing",
      entry: "try",
      nodes: { try: () => (++times === 1 ? fail({ message: "no" } as never) : complete()) },
    });
    const runtime = await createRuntime({ workflows: [failing], store: memoryStore() });
    opened.push(runtime);
    const { runId } = await runtime.start(failing);
    const first = await take(runtime.watch(runId));
    expect(lines(first)).toEqual(["run_started", "run_failed"]);
    await runtime.retry(runId);
    const rest = await take(runtime.watch(runId, { after: first.at(-1)?.cursor }));
    expect(lines(rest)).toEqual(["control", "run_completed"]);
    expect(lines(await take(runtime.watch(runId)))).toEqual(["run_started", "run_failed", "control", "run_completed"]);
  });

  test("a run that is cancelled in the middle of a stream", async () => {
    const { runtime, talker } = await talk(({ stream, signal }) => {
      stream(text("so far"));
      return new Promise((_, reject) => {
        signal.addEventListener("abort", () => {
          stream(text(" and not this"));
          reject(new Error("stopped"));
        });
      });
    });
    const { runId } = await runtime.start(talker);
    const items = await take(runtime.watch(runId), (item) => void (isStream(item) && runtime.cancel(runId)));
    expect(reading(items).texts).toEqual({ "1 #1": "so far" });
    expect(lines(items).at(-1)).toBe("run_cancelled");
    expect(reading(await take(runtime.watch(runId)))).toEqual(reading(items));
  });

  test("a reader that leaves while it waits is let go at once, and holds nothing", async () => {
    const clock = testClock();
    const { opened, open } = gate();
    const { runtime, talker } = await talk(() => opened, { clock });
    const { runId } = await runtime.start(talker);
    const reader = runtime.watch(runId)[Symbol.asyncIterator]();
    await reader.next();
    await reader.next();
    const waiting = reader.next();
    await clock.advance(10);
    expect(clock.pending.some(({ hold }) => hold)).toBe(true);
    const left = reader.return?.();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await left).toEqual({ done: true, value: undefined });
    const held = clock.pending.filter(({ hold }) => hold).length;
    const other = runtime.watch(runId)[Symbol.asyncIterator]();
    // One that was never begun needs no leaving, and one that was left has nothing more.
    expect(await other.return?.()).toEqual({ done: true, value: undefined });
    expect(await other.next()).toEqual({ done: true, value: undefined });
    expect(clock.pending.filter(({ hold }) => hold)).toHaveLength(held);
    open();
    await runtime.result(runId);
  });

  test("a signal ends it with its reason", async () => {
    const { opened, open } = gate();
    const { runtime, talker } = await talk(() => opened);
    const { runId } = await runtime.start(talker);
    const controller = new AbortController();
    const reader = runtime.watch(runId, { signal: controller.signal })[Symbol.asyncIterator]();
    await reader.next();
    await reader.next();
    const waiting = reader.next();
    controller.abort(new Error("enough"));
    await expect(waiting).rejects.toThrow("enough");
    expect(await reader.next()).toEqual({ done: true, value: undefined });
    await expect(take(runtime.watch(runId, { signal: AbortSignal.abort(new Error("before")) }))).rejects.toThrow("before");
    const inPage = new AbortController();
    const items: WatchItem[] = [];
    const leaving = take(runtime.watch(runId, { signal: inPage.signal }), (item) => {
      items.push(item);
      inPage.abort(new Error("at once"));
    });
    await expect(leaving).rejects.toThrow("at once");
    expect(items).toHaveLength(1);
    open();
  });

  test("a runtime that stops", async () => {
    const { runtime, talker } = await talk(({ signal }) => new Promise((_, no) => signal.addEventListener("abort", no)));
    const { runId } = await runtime.start(talker);
    const reader = runtime.watch(runId)[Symbol.asyncIterator]();
    await reader.next();
    await reader.next();
    const waiting = expect(reader.next()).rejects.toMatchObject({ code: "RUNTIME_STOPPED" });
    await runtime.stop({ timeoutMs: 0 });
    await waiting;
  });
});

describe("trouble", () => {
  test("an attempt that this process began before it lost the run is neither kept nor shown when it has it again", async () => {
    const clock = testClock();
    const store = faultyStore(memoryStore({ clock }), []);
    const streams = new LiveStreams({ store, clock, report: () => undefined });
    const row = (seq: number) => ({ runId: "r", seq, status: "running" }) as RunRow;
    streams.committed([{ seq: 49 }, { seq: 50 }], row(50));
    const place = { runId: "r", effectId: "7", step: 7, attempt: 1 };
    const lost = streams.open(place, 51);
    lost.write(text("of nobody"));
    const reader = streams.reader("r");
    streams.committed([{ seq: 61 }], row(61));
    await clock.advance(1_000);
    expect([store.calls, reader.streamOf(place)]).toEqual([[], undefined]);
    // Its end is waited for no longer than it takes.
    const ended = lost.end();
    await clock.advance(5_000);
    await ended;
    const other = streams.open({ ...place, attempt: 2 }, 61);
    other.write(text("recorded"));
    expect(reader.streamOf({ ...place, attempt: 2 })?.at(0)).toEqual({ offset: 0, part: text("recorded") });
    await other.end();
    expect(store.calls).toEqual(["appendStream"]);
    reader.leave();
    streams.end();
  });

  test("chunks that cannot be kept fail no attempt: it is reported once, and readers here see everything", async () => {
    const problems: RuntimeProblem[] = [];
    const clock = testClock();
    const { opened, open } = gate();
    const { runtime, talker } = await talk(
      async ({ stream }) => {
        stream(text("not "));
        await opened;
        stream(text("kept"));
        return null;
      },
      { clock, faults: [{ kind: "fail", on: "appendStream" }] },
    );
    runtime.on("error", (problem) => problems.push(problem));
    const { runId } = await runtime.start(talker);
    const items: WatchItem[] = [];
    const reader = take(runtime.watch(runId), (item) => {
      items.push(item);
      if (isStream(item)) void clock.advance(3_000).then(open);
    });
    await runtime.result(runId);
    await reader;
    expect(reading(items).texts).toEqual({ "1 #1": "not kept" });
    expect(problems).toMatchObject([{ code: "STORE_UNAVAILABLE" }]);
    expect(lines(await take(runtime.watch(runId)))).toEqual([
      "run_started",
      "effect_started 1 #1",
      "effect_completed 1 #1",
      "run_completed",
    ]);
  });

  test("a store that is back has everything, without gaps", async () => {
    const clock = testClock();
    const { opened, open } = gate();
    const faults: Fault[] = [
      { kind: "fail", on: "appendStream", call: 1 },
      // Done, and not acknowledged.
      { kind: "fail", on: "appendStream", call: 3, after: true },
    ];
    const { runtime, talker } = await talk(
      async ({ stream, clock: time }) => {
        for (let i = 0; i < 20; i++) {
          stream(text(`${i} `));
          await new Promise<void>((resolve) => time.setTimer(resolve, 50));
        }
        await opened;
        return null;
      },
      { clock, faults },
    );
    const { runId } = await runtime.start(talker);
    await clock.advance(3_000);
    open();
    await runtime.result(runId);
    const said = Array.from({ length: 20 }, (_, i) => `${i} `).join("");
    expect(reading(await take(runtime.watch(runId))).texts).toEqual({ "1 #1": said });
  });

  test("a slow reader holds up nobody, and sees everything in order", async () => {
    const { runtime, talker } = await talk(async ({ stream }) => {
      for (let i = 0; i < 1_000; i++) {
        stream(text(`${i} `));
        if (i % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      return null;
    });
    const { runId } = await runtime.start(talker);
    const slow = runtime.watch(runId)[Symbol.asyncIterator]();
    const items = [(await slow.next()).value as WatchItem, (await slow.next()).value as WatchItem];
    const fast = take(runtime.watch(runId));
    await runtime.result(runId);
    for (let next = await slow.next(); !next.done; next = await slow.next()) items.push(next.value);
    const said = Array.from({ length: 1_000 }, (_, i) => `${i} `).join("");
    expect(reading(items).texts).toEqual({ "1 #1": said });
    expect(reading(await fast).texts).toEqual({ "1 #1": said });
  });

  test("a slow reader finds in the store what this process has let go of meanwhile", async () => {
    const { say, act } = talking();
    const gates = { a: gate(), b: gate(), c: gate(), d: gate(), tick: gate() };
    const names = ["a", "b", "c", "d", "tick"] as const;
    act.now = async ({ stream }, payload) => {
      if (payload === "tick") stream(text(payload));
      await gates[payload as (typeof names)[number]].opened;
      if (payload !== "tick") stream(text(payload.repeat(100_000)));
      return null;
    };
    const many = defineWorkflow({
      id: "many",
      effects: [say],
      entry: "ask",
      nodes: {
        ask: () => all(names.map((name) => say(name)) as [], { resultKey: "said", nextNode: "end" }),
        end: () => complete(),
      },
    });
    const runtime = await createRuntime({ workflows: [many], store: memoryStore() });
    opened.push(runtime);
    const { runId } = await runtime.start(many);
    const reader = runtime.watch(runId)[Symbol.asyncIterator]();
    const items: WatchItem[] = [];
    const upTo = async (effectId: string): Promise<void> => {
      for (let item = (await reader.next()).value; ; item = (await reader.next()).value) {
        items.push(item as WatchItem);
        if (item?.kind === "stream" && item.effectId === effectId) return;
      }
    };
    const ended = (count: number): Promise<unknown> =>
      eventually(async () => (await runtime.ledger(runId)).filter(({ kind }) => kind === "effect_completed").length === count);
    await upTo("1.4");
    gates.a.open();
    gates.b.open();
    await ended(2);
    await upTo("1.0");
    gates.c.open();
    gates.d.open();
    await ended(4);
    gates.tick.open();
    for (let next = await reader.next(); !next.done; next = await reader.next()) items.push(next.value);
    const { texts } = reading(items);
    const long = names.slice(0, 4).map((name, i) => [`1.${i} #1`, name.repeat(100_000)]);
    expect(texts).toEqual(Object.fromEntries([...long, ["1.4 #1", "tick"]]));
  });

  test("what is no part is refused, and what is one arrives as it is", async () => {
    const refused: unknown[] = [];
    const huge = "😀x".repeat(400_000);
    const odd = { type: "te\u0000xt", text: "\ud800\u0000\n", callId: "\udfff", constructor: "c" };
    const { runtime, talker } = await talk(({ stream }) => {
      for (const part of [
        null,
        5,
        "text",
        [],
        { text: "a" },
        { type: "text" },
        { type: "text", text: 5 },
        { type: 5, text: "a" },
      ]) {
        try {
          stream(part as never);
        } catch (error) {
          refused.push((error as { code: string }).code);
        }
      }
      for (const more of [{ n: 1 }, { n: null }, { n: {} }, JSON.parse('{"__proto__":"x"}')]) {
        try {
          stream(Object.defineProperties({ type: "text", text: "a" }, Object.getOwnPropertyDescriptors(more)) as never);
        } catch (error) {
          refused.push((error as { code: string }).code);
        }
      }
      const mine = { ...odd, left: undefined };
      stream(mine as never);
      mine.text = "changed later";
      stream({ type: "nothing", text: "" });
      stream(text(huge));
      return null;
    });
    const { runId } = await runtime.start(talker);
    const items = await take(runtime.watch(runId));
    expect(refused).toEqual(Array.from({ length: 12 }, () => "INVALID_OPTION"));
    for (const shown of [items, await take(runtime.watch(runId))]) {
      expect(reading(shown).texts).toEqual({ "1 #1": odd.text + huge });
      const parts = shown.flatMap((item) => (item.kind === "stream" ? [item.part] : []));
      expect(parts[0]).toEqual(odd);
      expect(new Set(parts.map(({ type }) => type))).toEqual(new Set([odd.type, "text"]));
      for (const part of parts) {
        expect(part.text.length).toBeLessThanOrEqual(16_384);
        (part as { text: string }).text = "a reader's own copy";
      }
    }
  });
});
