import { expect, test } from "vitest";
import { testClock, testIds } from "../../src/testing/index.ts";

test("time stands still until it is advanced", async () => {
  const clock = testClock(1_000);
  expect(clock.now()).toBe(1_000);
  await clock.advance(5);
  await clock.advance(0);
  expect(clock.now()).toBe(1_005);
});

test("timers are called in the order of their moments, each at its own, those of one moment as they were set", async () => {
  const clock = testClock(0);
  const called: [string, number][] = [];
  const set = (name: string, delayMs: number) => clock.setTimer(() => called.push([name, clock.now()]), delayMs);
  set("c", 30);
  set("a", 10);
  set("b1", 20);
  set("b2", 20);
  set("late", 41);
  await clock.advance(40);
  expect(called).toEqual([
    ["a", 10],
    ["b1", 20],
    ["b2", 20],
    ["c", 30],
  ]);
  expect(clock.now()).toBe(40);
  expect(clock.pending).toEqual([{ at: 41, hold: false }]);
});

test("what a timer causes happens before the next one: promises, immediates, timers set and cancelled", async () => {
  const clock = testClock(0);
  const log: string[] = [];
  const cancelled = clock.setTimer(() => log.push("cancelled"), 30);
  clock.setTimer(() => {
    log.push("first");
    setImmediate(() => {
      clock.setTimer(() => log.push(`second at ${clock.now()}`), 5);
      cancelled.cancel();
    });
  }, 10);
  clock.setTimer(() => log.push("third"), 20);
  await clock.advance(100);
  expect(log).toEqual(["first", "second at 15", "third"]);
  expect(clock.pending).toEqual([]);
});

test("advances follow one another", async () => {
  const clock = testClock(0);
  const moments: number[] = [];
  await Promise.all([10, 20, 30].map((ms) => clock.advance(ms).then(() => moments.push(clock.now()))));
  expect(moments).toEqual([10, 30, 60]);
});

test("a callback that throws rejects the advance, and the clock goes on", async () => {
  const clock = testClock(0);
  clock.setTimer(() => {
    throw new Error("thrown");
  }, 10);
  await expect(clock.advance(20)).rejects.toThrow("thrown");
  expect(clock.now()).toBe(10);
  await clock.advance(5);
  expect(clock.now()).toBe(15);
});

test("time does not go back, delays are at least 0 and cut as Node's are", async () => {
  const clock = testClock(0);
  await expect(clock.advance(-1)).rejects.toThrow(RangeError);
  clock.setTimer(() => undefined, -5, true);
  clock.setTimer(() => undefined, 2 ** 40);
  expect(clock.pending).toEqual([
    { at: 0, hold: true },
    { at: 2 ** 31 - 1, hold: false },
  ]);
});

test("a seed repeats ids, salts and numbers", () => {
  const draw = (seed: number) => {
    const ids = testIds(seed);
    return Array.from({ length: 50 }, () => [ids.id(), ids.salt(), ids.random()]).flat();
  };
  expect(draw(7)).toEqual(draw(7));
  expect(new Set([...draw(7), ...draw(8)]).size).toBe(300);
  expect(testIds(1).id()).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(testIds(1).salt()).toMatch(/^[A-Za-z0-9_-]{22}$/);
});
