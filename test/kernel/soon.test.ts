// Which moments a driver waits for in process.
import { expect, test } from "vitest";
import type { OpenEffect, RunState } from "../../src/kernel/run.ts";
import { nextMoment, soonest } from "../../src/kernel/soon.ts";

const backingOff = (id: string, retryAt: number): OpenEffect => ({ id, phase: "backing_off", retryAt }) as OpenEffect;
const stateWith = (...effects: OpenEffect[]): RunState =>
  ({ open: new Map(effects.map((effect) => [effect.id, effect])) }) as unknown as RunState;

test("a backoff that has fallen due since it was looked at is a moment, whatever waits for a slot beside it", () => {
  const state = stateWith(backingOff("tried", 1_000), backingOff("queued", 500));
  const lackSlots = new Set(["queued"]);
  for (const now of [999, 1_000, 1_001])
    for (const first of [soonest, nextMoment]) expect(first(state, { now, lingersUntil: 0, lackSlots })).toBe(1_000);
  expect(soonest(stateWith(backingOff("queued", 500)), { now: 900, lingersUntil: 0, lackSlots })).toBeUndefined();
});
