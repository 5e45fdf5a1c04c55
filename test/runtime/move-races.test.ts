// Several at once who move the same run, or take its move back, stopped between any two calls: there is never more than one owner, and
// never none.
import { expect, test } from "vitest";
import { isError, moveRuns, type Store, undoMove } from "../../src/index.ts";
import { memoryStore } from "../../src/stores/memory/index.ts";
import { type TestClock, testClock } from "../../src/testing/index.ts";
import { callStore, wrapStore } from "../../src/testing/wrap-store.ts";
import { finishTree, startTree, type Tree } from "./moving-tree.ts";

type Stores = Record<"a" | "b" | "c", Store>;
type Act = (stores: Stores, tree: Tree) => Promise<unknown>;

const acts = {
  move: ({ a, b }, { parentId }) => moveRuns(a, b, [parentId]),
  "move and purge": ({ a, b }, { parentId }) => moveRuns(a, b, [parentId], { purge: true }),
  "take back": ({ a, b }, { parentId }) => undoMove(a, b, [parentId]),
  "move elsewhere": ({ a, c }, { parentId }) => moveRuns(a, c, [parentId], { purge: true }),
  "move back": ({ a, b }, { parentId }) => moveRuns(b, a, [parentId]),
  "move on": ({ b, c }, { parentId }) => moveRuns(b, c, [parentId], { purge: true }),
  "fail, take back and move again": async ({ a, b }, { parentId }) => {
    await undoMove(a, b, [parentId]).catch(ignore);
    await moveRuns(a, b, [parentId], { purge: true });
  },
} satisfies Record<string, Act>;

const ignore = (): void => undefined;

function opened(clock: TestClock): Stores {
  const stores = { a: memoryStore({ clock }), b: memoryStore({ clock }), c: memoryStore({ clock }) };
  for (const [name, store] of Object.entries(stores)) Object.defineProperty(store, "name", { value: `memory ${name}` });
  return stores;
}

/** One who acts, call by call: it gets so far and waits until it is let on. */
class Actor {
  calls = 0;
  over = false;
  outcome = "";
  #allowed = 0;
  #go: (() => void) | undefined;
  #stopped: (() => void) | undefined;
  readonly #begin: (stores: Stores) => Promise<unknown>;
  readonly #stores: Stores;
  #begun = false;

  constructor(stores: Stores, begin: (stores: Stores) => Promise<unknown>) {
    const through = (store: Store): Store =>
      wrapStore(store, async (method, args) => {
        await this.#turn();
        return callStore(store, method, args);
      });
    this.#stores = { a: through(stores.a), b: through(stores.b), c: through(stores.c) };
    this.#begin = begin;
  }

  async #turn(): Promise<void> {
    if (this.calls >= this.#allowed) {
      this.#stopped?.();
      await new Promise<void>((go) => {
        this.#go = go;
      });
    }
    this.calls += 1;
  }

  /** Lets it make so many more calls, or less where it is done before. */
  async run(calls: number): Promise<void> {
    if (this.over) return;
    this.#allowed = this.calls + calls;
    const stopped = new Promise<void>((resolve) => {
      this.#stopped = resolve;
    });
    if (!this.#begun) {
      this.#begun = true;
      this.#begin(this.#stores)
        .then(
          () => "ok",
          (error: unknown) => (isError(error) ? error.code : String(error)),
        )
        .then((outcome) => {
          this.outcome = outcome;
          this.over = true;
          this.#stopped?.();
        });
    } else this.#go?.();
    await stopped;
  }
}

/** The stores that own the tree: each has it whole, or not at all. */
async function ownersOf(stores: Stores, tree: Tree): Promise<string[]> {
  const owners: string[] = [];
  for (const [name, store] of Object.entries(stores)) {
    const runs = await Promise.all([store.load(tree.parentId), store.load(tree.childId)]);
    const here = runs.filter((run) => run && run.moving === undefined);
    expect([0, 2]).toContain(here.length);
    if (here.length > 0) owners.push(name);
  }
  return owners;
}

/** As ownersOf, after every move that is known of was completed. */
async function settled(stores: Stores, tree: Tree): Promise<string[]> {
  for (let tries = 0; tries < 3; tries++) {
    const owners = await ownersOf(stores, tree);
    if (owners.length > 0) return owners;
    for (const from of Object.values(stores))
      for (const to of Object.values(stores)) if (from !== to) await moveRuns(from, to, [tree.parentId]).catch(ignore);
  }
  return ownersOf(stores, tree);
}

/** A move that somebody began and never completed: so far. */
type Begun = "nothing" | "arriving" | "left";

async function begin(begun: Begun, stores: Stores, tree: Tree): Promise<void> {
  if (begun === "nothing") return;
  const gone = new Actor(stores, (given) => acts.move(given, tree));
  const isSoFar = async (): Promise<boolean> =>
    begun === "left"
      ? (await stores.a.load(tree.parentId))?.moving?.phase === "left"
      : (await stores.b.load(tree.childId))?.moving?.phase === "arriving";
  while (!(await isSoFar())) await gone.run(1);
}

/** By default every fourth call of the first, another one of four in each pair; all of them with CRASH_SWEEP=full (`npm run crash`). */
const stride = process.env.CRASH_SWEEP === "full" ? 1 : 4;

async function explore(begun: Begun, first: Act, second: Act, from: number): Promise<void> {
  for (let k = from % stride; ; k += stride) {
    let wasOver = false;
    for (let m = 1; ; m++) {
      const clock = testClock();
      const stores = opened(clock);
      const tree = await startTree(stores.a, clock);
      await begin(begun, stores, tree);
      const one = new Actor(stores, (given) => first(given, tree));
      const other = new Actor(stores, (given) => second(given, tree));
      const where = `${k} calls, then ${m} of the other`;
      const check = async (): Promise<void> => expect((await ownersOf(stores, tree)).length, where).toBeLessThan(2);
      await one.run(k);
      await check();
      await other.run(m);
      await check();
      wasOver = one.over;
      const isLast = other.over;
      await one.run(Number.POSITIVE_INFINITY);
      await check();
      await other.run(Number.POSITIVE_INFINITY);
      const owners = await settled(stores, tree);
      expect(owners, `${where}: ${one.outcome}, ${other.outcome}`).toHaveLength(1);
      const owner = stores[owners[0] as keyof Stores];
      expect(await finishTree(owner, clock, tree)).toMatchObject({ early: { n: 2 } });
      for (const store of Object.values(stores)) await store.close();
      if (isLast) break;
    }
    if (wasOver) break;
  }
}

const pairs: [Begun, keyof typeof acts, keyof typeof acts][] = [
  ["nothing", "move", "move"],
  ["nothing", "move and purge", "take back"],
  ["nothing", "take back", "move and purge"],
  ["nothing", "move and purge", "fail, take back and move again"],
  ["nothing", "fail, take back and move again", "move and purge"],
  ["nothing", "move and purge", "move elsewhere"],
  ["nothing", "move and purge", "move back"],
  ["nothing", "move and purge", "move on"],
  ["arriving", "take back", "move and purge"],
  ["arriving", "move and purge", "take back"],
  ["arriving", "take back", "fail, take back and move again"],
  ["arriving", "fail, take back and move again", "move and purge"],
  ["arriving", "take back", "move elsewhere"],
  ["left", "take back", "move and purge"],
  ["left", "move and purge", "move and purge"],
  ["left", "move and purge", "move back"],
  ["left", "move and purge", "move on"],
];

test.each(pairs.map((pair, i) => [...pair, i] as const))(
  "a move begun before: %s; one: %s; the other: %s",
  async (begun, first, second, i) => {
    await explore(begun, acts[first], acts[second], i);
  },
);

test("a move that was cut off is not taken back, nor made, with its sides exchanged", async () => {
  for (const begun of ["arriving", "left"] as const) {
    const clock = testClock();
    const stores = opened(clock);
    const tree = await startTree(stores.a, clock);
    await begin(begun, stores, tree);
    for (const wrong of [undoMove(stores.b, stores.a, [tree.parentId]), moveRuns(stores.b, stores.a, [tree.parentId])])
      await expect(wrong).rejects.toMatchObject({ code: "MOVE_REFUSED" });
    await moveRuns(stores.a, stores.b, [tree.parentId]);
    expect(await finishTree(stores.b, clock, tree)).toMatchObject({ early: { n: 2 } });
  }
});

test("a target that has lost what arrived is given it again, by the same call, while the source keeps it", async () => {
  const clock = testClock();
  const stores = opened(clock);
  const tree = await startTree(stores.a, clock);
  await moveRuns(stores.a, stores.b, [tree.parentId]);
  const restored = opened(clock).b;
  expect(await moveRuns(stores.a, restored, [tree.parentId])).toMatchObject({ runIds: [tree.parentId, tree.childId] });
  expect(await finishTree(restored, clock, tree)).toMatchObject({ early: { n: 2 } });
  // One that went on from there is not made twice.
  await moveRuns(restored, stores.c, [tree.parentId], { purge: true });
  await expect(moveRuns(stores.a, restored, [tree.parentId])).rejects.toMatchObject({ code: "RUN_MOVED" });
});

test("a run that was purged is not taken for one that has moved, though the target has another of its id", async () => {
  const clock = testClock();
  const { a, b } = opened(clock);
  for (const store of [a, b]) await startTree(store, clock);
  const tree = { parentId: "parent", childId: (await a.query({ parentRunId: "parent" })).runs[0]?.runId as string, artifact: "" };
  await finishTree(a, clock, tree);
  await a.purge([tree.parentId, tree.childId]);
  await expect(moveRuns(a, b, [tree.parentId])).rejects.toMatchObject({ code: "RUN_PURGED" });
});
