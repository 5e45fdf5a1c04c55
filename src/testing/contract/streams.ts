/** What effects stream: chunks beside the runs, kept for a while. */
import assert from "node:assert/strict";
import type { StreamChunk, StreamFrom } from "../../kernel/stream.ts";
import type { Store } from "../../kernel/store.ts";
import { type Case, finish, same } from "./world.ts";

function chunkOf(runId: string, offset: number, text: string, options: Partial<StreamChunk> = {}): StreamChunk {
  const parts = JSON.stringify([{ type: "text", text }]);
  return { runId, step: 1, effectId: "1", attempt: 1, offset, end: offset + text.length, parts, ...options };
}

const from = (offset: number, options: Partial<StreamFrom> = {}): StreamFrom => ({
  step: 1,
  effectId: "1",
  attempt: 1,
  offset,
  ...options,
});

/** All pages, as a reader asks for them. */
async function allOf(store: Store, runId: string, attempts: readonly StreamFrom[]): Promise<StreamChunk[]> {
  const all: StreamChunk[] = [];
  for (let rest = [...attempts]; ; ) {
    const page = await store.stream(runId, rest);
    all.push(...page);
    const last = page.at(-1);
    if (!last) return all;
    const at = rest.findIndex(({ effectId, attempt }) => effectId === last.effectId && attempt === last.attempt);
    rest = [{ ...(rest[at] as StreamFrom), offset: last.end }, ...rest.slice(at + 1)];
  }
}

export const streamCases: Record<string, Case> = {
  async "appendStream: keeps chunks exactly, and stream gives those that reach beyond an offset"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const text = 'Äpfel "quoted"\n\u0000\ud800😀';
    const chunks = [chunkOf(runId, 0, text), chunkOf(runId, text.length, "more"), chunkOf(runId, text.length + 4, "end")];
    await store.appendStream(chunks);
    same(await store.stream(runId, [from(0)]), chunks);
    same(await store.stream(runId, [from(text.length - 1)]), chunks);
    same(await store.stream(runId, [from(text.length)]), chunks.slice(1));
    same(await store.stream(runId, [from(text.length + 3)]), chunks.slice(1));
    same(await store.stream(runId, [from(text.length + 4)]), chunks.slice(2));
    same(await store.stream(runId, [from(text.length + 7)]), []);
    same(await store.stream(runId, []), []);
    same(await store.stream("nobody", [from(0)]), []);
  },

  async "appendStream: a second call does nothing, and what stands is not written over"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const first = chunkOf(runId, 0, "first");
    await store.appendStream([first]);
    await store.appendStream([first, chunkOf(runId, 0, "other and longer"), chunkOf(runId, 5, "second")]);
    same(await store.stream(runId, [from(0)]), [first, chunkOf(runId, 5, "second")]);
    await store.appendStream([]);
  },

  async "appendStream: drops chunks of runs that are not there, and keeps the others of the call"(world) {
    const { store } = world;
    const { runId } = await world.held();
    await store.appendStream([chunkOf("nobody", 0, "lost"), chunkOf(runId, 0, "kept"), chunkOf("nobody either", 0, "lost")]);
    same(await store.stream(runId, [from(0)]), [chunkOf(runId, 0, "kept")]);
    same(await store.stream("nobody", [from(0)]), []);
  },

  async "stream: gives attempts in the order asked for, each by offset, and no others"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const { runId: other } = await world.held();
    const again = chunkOf(runId, 0, "again", { attempt: 2 });
    const beside = [chunkOf(runId, 0, "b", { effectId: "1.10" }), chunkOf(runId, 1, "c", { effectId: "1.10" })];
    // Offsets are numbers, and 9 comes before 10.
    const long = [chunkOf(runId, 0, "123456789"), chunkOf(runId, 9, "0"), chunkOf(runId, 10, "1")];
    await store.appendStream([
      long[2],
      beside[1],
      again,
      chunkOf(other, 0, "theirs"),
      long[0],
      beside[0],
      long[1],
    ] as StreamChunk[]);
    same(await store.stream(runId, [from(0, { effectId: "1.10" }), from(0), from(0, { effectId: "1.9" })]), [...beside, ...long]);
    same(await store.stream(runId, [from(0, { attempt: 2 }), from(9), from(1, { effectId: "1.10" })]), [
      again,
      ...long.slice(1),
      ...beside.slice(1),
    ]);
  },

  async "stream: gives pages, which together are everything"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const text = "x".repeat(10);
    const chunks = ["1.0", "1.1"].flatMap((effectId) =>
      Array.from({ length: 100 }, (_, i) => chunkOf(runId, i * text.length, text, { effectId })),
    );
    for (let at = 0; at < chunks.length; at += 25) await store.appendStream(chunks.slice(at, at + 25));
    const attempts = [from(0, { effectId: "1.0" }), from(0, { effectId: "1.1" })];
    const first = await store.stream(runId, attempts);
    assert.ok(first.length > 0 && first.length < chunks.length, `a page had ${first.length} of ${chunks.length} chunks`);
    same(await allOf(store, runId, attempts), chunks);
    same(await allOf(store, runId, [from(995, { effectId: "1.0" }), from(985, { effectId: "1.1" })]), [
      ...chunks.slice(99, 100),
      ...chunks.slice(198),
    ]);
  },

  async "appendStream: keeps the last two steps that streamed, and nothing that comes late for others"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const { runId: other } = await world.held();
    const of = (step: number): StreamChunk => chunkOf(runId, 0, `step ${step}`, { step, effectId: String(step) });
    const kept = async (): Promise<number[]> => {
      const attempts = [3, 5, 9, 10, 11].map((step) => from(0, { step, effectId: String(step) }));
      return (await store.stream(runId, attempts)).map(({ step }) => step);
    };
    await store.appendStream([chunkOf(other, 0, "theirs")]);
    await store.appendStream([of(3)]);
    await store.appendStream([of(9)]);
    same(await kept(), [3, 9]);
    await store.appendStream([of(10)]);
    same(await kept(), [9, 10]);
    await store.appendStream([of(5)]);
    same(await kept(), [9, 10]);
    await store.appendStream([of(9), of(11)]);
    same(await kept(), [10, 11]);
    same(await store.stream(other, [from(0)]), [chunkOf(other, 0, "theirs")]);
  },

  async "appendStream: is guarded by no lease, and moves nothing of the run"(world) {
    const { store } = world;
    const holder = await world.held();
    await store.commit([holder.next([finish()], { release: true })]);
    const before = await world.load(holder.runId);
    await store.appendStream([chunkOf(holder.runId, 0, "late")]);
    same(await world.load(holder.runId), before);
    same(await store.stream(holder.runId, [from(0)]), [chunkOf(holder.runId, 0, "late")]);
  },

  async "purge: removes chunks, and one that comes later is dropped"(world) {
    const { store } = world;
    const holder = await world.held();
    const { runId } = holder;
    await store.appendStream([chunkOf(runId, 0, "text")]);
    await store.commit([holder.next([finish()], { release: true })]);
    same(await store.purge([runId]), { live: [], purged: [runId] });
    same(await store.stream(runId, [from(0)]), []);
    await store.appendStream([chunkOf(runId, 4, "late")]);
    same(await store.stream(runId, [from(0)]), []);
    // Where numbers of runs are used again, the next one has nothing of it.
    const next = await world.held();
    same(await store.stream(next.runId, [from(0)]), []);
  },

  async "appendStream: what is given, and what is answered, is a copy"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const chunk = { ...chunkOf(runId, 0, "text") };
    await store.appendStream([chunk]);
    (chunk as { parts: string }).parts = "changed";
    const [found] = await store.stream(runId, [from(0)]);
    (found as { parts: string }).parts = "changed";
    same(await store.stream(runId, [from(0)]), [chunkOf(runId, 0, "text")]);
  },
};
