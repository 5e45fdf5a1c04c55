/** News for those who hold runs, and hints for those who look for them. */
import assert from "node:assert/strict";
import { type Case, finish, foldedOf, goOn, message, park, stored, type World } from "./world.ts";

/** Two who listen at this store. */
function ears(world: World) {
  const counts = [0, 0];
  const stops = counts.map((_, i) =>
    world.store.hear(() => {
      counts[i] = (counts[i] as number) + 1;
    }),
  );
  return {
    /** How often each heard something since this was asked the last time. A store that is reopened may have given hints in vain. */
    async hear(first: number, second = first): Promise<void> {
      // Hints of the same store object come within a turn of the event loop.
      await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setImmediate(resolve));
      const heard = counts.splice(0, 2, 0, 0);
      if (!world.isRestless) assert.deepEqual(heard, [first, second]);
      else
        assert.ok(
          heard.every((count, i) => count > 0 || [first, second][i] === 0),
          `${heard}`,
        );
    },
    stop(): void {
      for (const stop of stops) stop();
    },
    stopFirst: () => stops[0]?.(),
  };
}

export const hearingCases: Record<string, Case> = {
  async "news: which of the runs that a worker holds got mail behind a position, and the last position of the store"(world) {
    const worker = await world.worker();
    const news = (after: number) => world.store.news(worker.workerId, after);
    assert.deepEqual(await news(0), { runIds: [], position: 0 });
    const [mine, too, quiet] = [await world.held({}, worker), await world.held({}, worker), await world.held({}, worker)];
    const [others, nobodys] = [await world.held(), await world.parked()];
    await world.store.deliver([mine, others, nobodys].map(({ runId }) => message(runId)));
    const first = await news(0);
    assert.deepEqual(first.runIds, [mine.runId]);
    assert.deepEqual(await news(first.position), { runIds: [], position: first.position });
    await world.store.deliver([message(too.runId), message(mine.runId, { id: "m2" }), message(mine.runId, { id: "m3" })]);
    const second = await news(first.position);
    assert.deepEqual([second.runIds.sort(), second.position], [[mine.runId, too.runId].sort(), first.position + 3]);
    assert.deepEqual((await news(first.position + 1)).runIds, [mine.runId]);
    // What was taken is no news.
    await world.store.commit([
      too.next([goOn()], { take: ["m1"] }),
      quiet.next([goOn()], { send: [message(nobodys.runId, { id: "s" })] }),
    ]);
    assert.deepEqual(await news(first.position), { runIds: [mine.runId], position: second.position + 1 });
    assert.deepEqual(await world.store.news("nobody", 0), { runIds: [], position: second.position + 1 });
  },

  async "news: also behind very many messages"(world) {
    const worker = await world.worker();
    const [mine, other] = [await world.held({}, worker), await world.parked()];
    const many = Array.from({ length: 1_500 }, (_, i) => message(other.runId, { id: `m${i}` }));
    await world.store.deliver([message(mine.runId), ...many]);
    assert.deepEqual((await world.store.news(worker.workerId, 0)).runIds, [mine.runId]);
    const { position } = await world.store.news(worker.workerId, 1);
    assert.deepEqual(await world.store.news(worker.workerId, position - 1_400), { runIds: [], position });
  },

  async "hear: others at the same store hear of runs that were created, woken, or got mail while they are held"(world) {
    const parked = await world.parked();
    const holder = await world.held();
    const blocked = await world.held();
    const block = { code: "X", problem: "", fingerprint: "code 1", quarantine: true };
    await world.store.release(blocked.runId, blocked.lease, { blocked: block });
    const { hear, stop } = ears(world);
    const loud: (() => Promise<unknown>)[] = [
      () => world.store.create([stored(world.newRun())]),
      () => world.store.deliver([message(parked.runId)]),
      () => world.store.deliver([message(holder.runId)]),
      () => world.store.commit([holder.next([goOn()], { start: [stored(world.newRun())] })]),
      () => world.store.commit([holder.next([goOn()], { send: [message(parked.runId, { id: "m2" })] })]),
      () => world.store.lift(blocked.runId),
      () => world.store.release(holder.runId, holder.lease, {}),
    ];
    for (const act of loud) {
      await act();
      await hear(1);
    }
    stop();
  },

  async "hear: nobody hears of what gives nobody anything to do"(world) {
    const holder = await world.held();
    const { hear, stop } = ears(world);
    await world.store.commit([holder.next([goOn()])]);
    await world.store.commit([holder.next([park({ waitKey: "go" })], { release: true })]);
    await world.store.deliver([message("nowhere")]);
    await world.store.load(holder.runId);
    await hear(0);
    stop();
  },

  async "hear: calls of one turn are one hint; who has stopped hears nothing, and neither does who is alone"(world) {
    const { hear, stop, stopFirst } = ears(world);
    await Promise.all([1, 2, 3].map(() => world.store.create([stored(world.newRun())])));
    await hear(1);
    stopFirst();
    await world.store.create([stored(world.newRun())]);
    await hear(0);
    stop();
    stop();
  },

  async "hear: of a slot that is free again while others of the queue are due"(world) {
    const worker = await world.worker({ queues: { q: { concurrency: 1 } } });
    await world.store.create(["a", "b"].map((runId) => stored(world.newRun({ runId, queue: "q" }))));
    const [loaded] = await world.store.claim(worker, { limit: 2 });
    assert.ok(loaded?.lease);
    const { hear, stop } = ears(world);
    const first = world.holder(foldedOf(loaded), loaded.lease);
    await world.store.commit([first.next([finish()])]);
    await hear(1);
    const [second] = await world.store.claim(worker, { limit: 2 });
    assert.ok(second?.lease);
    await hear(0);
    await world.store.commit([world.holder(foldedOf(second), second.lease).next([finish()])]);
    await hear(0);
    stop();
  },
};
