/** Runs that begin with a state made elsewhere: where they stand is where they are, from the first moment on. */
import assert from "node:assert/strict";
import { beginRestored, type Begun } from "../../kernel/begin.ts";
import { defaultLimits } from "../../kernel/execute.ts";
import { plainState } from "../../kernel/run.ts";
import { type Case, failing, finish, goOn, type Holder, message, park, same, type World } from "./world.ts";

export const restoredCases: Record<string, Case> = {
  async "a run restored as waiting is due when its wait says, and found by messages"(world) {
    const until = world.clock.now() + 1_000;
    const timed = restored(world, await standing(world, [park({ waitKey: "later", reason: "until", until })]));
    const asked = restored(world, await standing(world, [park({ waitKey: "go" })]));
    assert.deepEqual(await world.store.create([timed, asked]), [true, true]);
    same((await world.store.query({ waitKey: "go" })).runs[0]?.waits, asked.waits);
    assert.deepEqual(await world.claimable(), []);
    same(await world.store.deliver([message(asked.row.runId, { ifWaiting: "1" })]), [{ kind: "stored" }]);
    assert.deepEqual(await world.claimable(), [asked.row.runId]);
    await world.clock.advance(1_000);
    assert.deepEqual(await world.claimable(), [timed.row.runId]);
  },

  async "a run restored as ended is never due, and one that failed can be tried again"(world) {
    const completed = restored(world, await standing(world, [finish()]));
    const failed = restored(world, await standing(world, [failing()]));
    await world.store.create([completed, failed]);
    same((await world.load(failed.row.runId)).row, { ...failed.row });
    assert.deepEqual(await world.claimable(), []);
    const late = message(completed.row.runId);
    same(await world.store.deliver([late]), [{ kind: "ended", status: "completed" }]);
    const retry = message(failed.row.runId, { kind: "control", key: "retry", ifFailed: true });
    same(await world.store.deliver([retry]), [{ kind: "stored" }]);
    assert.deepEqual(await world.claimable(), [failed.row.runId]);
  },

  async "a run restored as running is due at once, or not before the moment given"(world) {
    const running = restored(world, await standing(world, [goOn()]));
    const later = restored(world, await standing(world, [goOn()]));
    await world.store.create([running, { ...later, notBefore: world.clock.now() + 500 }]);
    assert.deepEqual(await world.claimable(), [running.row.runId]);
    await world.clock.advance(500);
    assert.deepEqual(await world.claimable(), [later.row.runId]);
  },
};

async function standing(world: World, drafts: Parameters<Holder["next"]>[0]): Promise<Holder> {
  const { state } = world.newRun();
  const holder = world.holder(state, { workerId: "", epoch: 1 });
  holder.next(drafts);
  return holder;
}

function restored(world: World, { state }: Holder): Omit<Begun, "state"> {
  const origin = { kind: "fork" as const, runId: state.runId, seq: state.seq, hash: state.head };
  const options = { runId: world.ids.id(), state: plainState(state), origin, now: world.clock.now() };
  const { state: _, ...begun } = beginRestored(options, world.ids, defaultLimits);
  return begun;
}
