import { describe, expect, it, test } from "vitest";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { storeContract, testClock } from "../../src/testing/index.ts";

storeContract(
  "memory",
  async ({ clock }) => {
    const store = memoryStore({ clock });
    return { store, close: () => store.close() };
  },
  { describe, it },
);

test("an unknown option is refused by name", () => {
  expect(() => memoryStore({ clok: testClock() } as never)).toThrow('Did you mean "clock"?');
});

test("a write answers only after the event loop had its turn", async () => {
  const store = memoryStore();
  let turns = 0;
  setImmediate(() => {
    turns += 1;
  });
  await store.renew("w", 1_000);
  expect(turns).toBe(1);
  await store.close();
});

test("a cursor of another store is refused", async () => {
  const store = memoryStore();
  await expect(store.query({ cursor: "x" })).rejects.toThrow("INVALID_OPTION");
  await store.close();
});
