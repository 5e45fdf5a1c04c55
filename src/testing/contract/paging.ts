/** Lists of runs: their orders and their pages. */
import assert from "node:assert/strict";
import type { ListedRun, RunPage, RunQuery, Scalar } from "../../kernel/query.ts";
import { randomOf, type SimulationRandom } from "../simulate/random.ts";
import { countsIn, foundIn, isFound, keyOf, type ModelRun, modelOf } from "./query-model.ts";
import { type Case, finish, goOn, type Holder, park, refuses, stored, taken, message, type World } from "./world.ts";

const orders = ["newest", "oldest", "updated", "waiting", "due"] as const;

export const pagingCases: Record<string, Case> = {
  async "query: newest first, or oldest first; a page tells how to get the next one"(world) {
    const runIds = ["1", "2", "3", "4", "5", "6", "7"];
    for (const runId of runIds) {
      await world.store.create([stored(world.newRun({ runId }))]);
      await world.clock.advance(1);
    }
    const pages = async (query: RunQuery): Promise<string[][]> => {
      const found: string[][] = [];
      let page: RunPage | undefined;
      do {
        page = await world.store.query({ ...query, cursor: page?.next });
        found.push(page.runs.map(({ runId }) => runId));
      } while (page.next !== undefined);
      return found;
    };
    assert.deepEqual(await pages({ limit: 3 }), [["7", "6", "5"], ["4", "3", "2"], ["1"]]);
    assert.deepEqual(await pages({ limit: 3, order: "oldest" }), [["1", "2", "3"], ["4", "5", "6"], ["7"]]);
    assert.deepEqual(await pages({ limit: 7 }), [[...runIds].reverse()]);
    assert.deepEqual(await pages({ order: "newest", limit: 4, workflowId: "work" }), [
      ["7", "6", "5", "4"],
      ["3", "2", "1"],
    ]);
    const first = await world.store.query({ limit: 2 });
    await world.store.create([stored(world.newRun({ runId: "8" }))]);
    const second = await world.store.query({ limit: 2, cursor: first.next });
    assert.deepEqual(
      second.runs.map(({ runId }) => runId),
      ["5", "4"],
    );
  },

  async "query: runs created at one moment are all on some page, once"(world) {
    const runs = Array.from({ length: 9 }, () => stored(world.newRun()));
    await world.store.create(runs);
    const found: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await world.store.query({ limit: 2, cursor });
      found.push(...page.runs.map(({ runId }) => runId));
      cursor = page.next;
    } while (cursor !== undefined);
    assert.deepEqual(found.sort(), runs.map(({ row }) => row.runId).sort());
  },

  async "query: a page has 100 runs by default, and at most 1,000"(world) {
    await world.store.create(Array.from({ length: 1_001 }, () => stored(world.newRun())));
    const byDefault = await world.store.query({});
    assert.deepEqual([byDefault.runs.length, byDefault.next !== undefined], [100, true]);
    const most = await world.store.query({ limit: 5_000 });
    assert.deepEqual([most.runs.length, most.next !== undefined], [1_000, true]);
    const rest = await world.store.query({ limit: 5_000, cursor: most.next });
    assert.deepEqual([rest.runs.length, rest.next], [1, undefined]);
  },

  async "query: last changed first, held or not"(world) {
    const holders: Holder[] = [];
    for (const runId of ["a", "b", "c", "d"]) {
      holders.push(await world.held({ runId }));
      await world.clock.advance(1);
    }
    const [a, b, c] = holders as [Holder, Holder, Holder];
    const find = async (): Promise<string[]> => (await allOf(world, { order: "updated", limit: 2 })).map(({ runId }) => runId);
    assert.deepEqual(await find(), ["d", "c", "b", "a"]);
    await world.store.commit([a.next([goOn()])]);
    await world.clock.advance(1);
    await world.store.commit([b.next([park({ waitKey: "x" })], { release: true })]);
    await world.clock.advance(1);
    assert.deepEqual(await find(), ["b", "a", "d", "c"]);
    await world.store.commit([c.next([finish()], { release: true })]);
    assert.deepEqual(await find(), ["c", "b", "a", "d"]);
    await world.clock.advance(1);
    // Neither a claim nor a message is a change of the run.
    await world.takeOver(b);
    await world.store.deliver([message("a")]);
    assert.deepEqual(await find(), ["c", "b", "a", "d"]);
  },

  async "query: longest waiting first, by the first wait that is open; runs that do not wait are left out"(world) {
    const holders: Record<string, Holder> = {};
    for (const runId of ["a", "b", "c", "running"]) holders[runId] = await world.held({ runId });
    const { a, b, c } = holders as { a: Holder; b: Holder; c: Holder };
    const parks = [
      c.next([park({ waitKey: "c1", since: 10, reason: "user" }), park({ effectId: "2", waitKey: "c2", since: 30 })]),
      a.next([park({ waitKey: "a1", since: 20 }), park({ effectId: "2", waitKey: "a2", since: 20 })]),
      b.next([park({ waitKey: "b1", since: 40 })]),
    ];
    await world.store.commit(parks);
    const find = async (query: RunQuery = {}): Promise<string[]> =>
      (await allOf(world, { order: "waiting", limit: 1, ...query })).map(({ runId }) => runId);
    assert.deepEqual(await find(), ["c", "a", "b"]);
    assert.deepEqual(await find({ waitReason: "event" }), ["c", "a", "b"]);
    assert.deepEqual(await find({ waitReason: "user" }), ["c"]);
    // Its first wait is over, the second goes on.
    await world.store.commit([c.next([goOn()], { waits: { open: [], close: ["1"] } })]);
    assert.deepEqual(await find(), ["a", "c", "b"]);
    assert.deepEqual(await find({ waitReason: "user" }), []);
    await world.store.commit([a.next([finish()], { release: true })]);
    assert.deepEqual(await find(), ["c", "b"]);
  },

  async "query: first due first; held runs, and those that only a message wakes, are left out"(world) {
    const now = world.clock.now();
    await world.store.create([stored(world.newRun({ runId: "later" }), now + 50), stored(world.newRun({ runId: "now" }))]);
    await world.parked({ runId: "timed", waitKey: "x", until: now + 20 });
    await world.parked({ runId: "untimed", waitKey: "x" });
    await world.held({ runId: "held" });
    const blocked = await world.held({ runId: "blocked" });
    const block = { code: "X", problem: "", fingerprint: "code 1", quarantine: false };
    await world.store.release(blocked.runId, blocked.lease, { blocked: block });
    const find = async (): Promise<string[]> => (await allOf(world, { order: "due", limit: 1 })).map(({ runId }) => runId);
    assert.deepEqual(await find(), ["now", "blocked", "timed", "later"]);
    await world.store.deliver([message("untimed")]);
    await world.claimable({ fingerprint: "code 1" });
    assert.deepEqual(await find(), ["blocked", "timed", "later"]);
  },

  async "query: a cursor is refused where it does not belong"(world) {
    await world.store.create(["1", "2", "3"].map((runId) => stored(world.newRun({ runId }))));
    for (const order of ["newest", "oldest", "updated", "due"] as const) {
      const { next: cursor } = await world.store.query({ order, limit: 1 });
      assert.ok(cursor);
      for (const other of orders) {
        const page = world.store.query({ order: other, cursor });
        if (other === order) assert.equal((await page).runs.length, 2);
        else await refuses(page, "INVALID_OPTION");
      }
    }
    for (const cursor of ["", "2", "here", "null", "W10", Buffer.from('["x","newest",1,1]').toString("base64url"), "\u0000"])
      await refuses(world.store.query({ cursor }), "INVALID_OPTION");
    // Of runs that are gone, or of none, it says where to go on all the same.
    const { next } = await world.store.query({ order: "oldest", limit: 2 });
    assert.deepEqual((await world.store.query({ order: "oldest", cursor: next, tags: ["none"] })).runs, []);
  },

  async "query: in whatever order, and however filtered, pages and counts are those of a plain model"(world) {
    for (const seed of seedsOf(world)) {
      const play = new Play(world, randomOf(seed, "queries"), `${seed} `);
      for (let i = 0; i < 40; i++) await play.write();
      for (const order of orders) {
        const all = { order, idPrefix: play.prefix };
        assert.deepEqual(idsOf(await allOf(world, { ...all, limit: 7 })), foundIn(play.runs, all), `seed ${seed}, ${order}`);
      }
      for (let i = 0; i < (world.isRestless ? 6 : 30); i++) {
        const query = play.query();
        const said = `seed ${seed}, ${JSON.stringify(query)}`;
        assert.deepEqual(idsOf(await allOf(world, query)), foundIn(play.runs, query), said);
        const by = play.random.pick(["status", "workflowId", "queue", "waitReason", "tag", "actorId", undefined] as const);
        assert.deepEqual(await world.store.count(query, by), countsIn(play.runs, query, by), `${said}, by ${by}`);
      }
    }
  },

  async "query: whatever is written between pages, a run that stays in its place is found exactly once"(world) {
    for (const seed of seedsOf(world)) {
      const play = new Play(world, randomOf(seed, "pages"), `${seed} `);
      for (let i = 0; i < 25; i++) await play.write();
      for (const order of orders) {
        const query: RunQuery = {
          ...play.random.pick([{}, play.query()]),
          order,
          limit: play.random.int(1, 4),
          idPrefix: play.prefix,
        };
        const found: string[] = [];
        const views: ModelRun[][] = [];
        for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
          views.push([...play.runs]);
          const page: RunPage = await world.store.query({ ...query, cursor });
          found.push(...idsOf(page.runs));
          cursor = page.next;
          // Written between the pages: what comes behind the cursor for ever would never end.
          for (let i = views.length < 12 ? play.random.int(0, 3) : 0; i > 0; i--) await play.write();
        }
        for (const [i, { row }] of (views[0] as ModelRun[]).entries()) {
          const seen = views.map((view) => view[i] as ModelRun);
          const times = found.filter((runId) => runId === row.runId).length;
          const places = new Set(seen.map((run) => (isFound(run, query) ? keyOf(run, order) : undefined)));
          const said = `seed ${seed}, ${JSON.stringify(query)}, run ${row.runId}, found ${times} times`;
          if (places.size === 1) assert.equal(times, places.has(undefined) ? 0 : 1, said);
        }
      }
    }
  },
};

/** Opening a store again before each call takes long, and what it could lose here is lost by one seed as by another. */
function seedsOf({ isRestless }: World): number[] {
  return isRestless ? [1] : [1, 2, 3, 4];
}

/** Writes at random, and knows what stands. */
class Play {
  /** In the order of their creation. */
  readonly runs: ModelRun[] = [];
  readonly random: SimulationRandom;
  /** Of the ids of its runs. */
  readonly prefix: string;
  readonly #world: World;
  readonly #holders: Holder[] = [];

  constructor(world: World, random: SimulationRandom, prefix: string) {
    this.#world = world;
    this.random = random;
    this.prefix = prefix;
  }

  async write(): Promise<void> {
    const { random, runs } = this;
    if (random.chance(0.7)) await this.#world.clock.advance(random.int(0, 3));
    const i = random.int(0, runs.length);
    const run = runs[i];
    if (!run || random.chance(0.2)) return this.#create();
    const isOver = run.row.status === "completed";
    if (isOver) return;
    if (run.holder === undefined) return this.#takeOver(i);
    await this.#go(i, this.#holders[i] as Holder, run);
  }

  query(): RunQuery {
    const { random } = this;
    const moment = (): number => this.#world.clock.now() - random.int(-10, 60);
    const some = <T>(make: () => T): T | undefined => (random.chance(0.2) ? make() : undefined);
    const query: RunQuery = {
      idPrefix: this.prefix,
      status: some(() => random.pick(["waiting", ["running", "completed"]])),
      workflowId: some(() => random.pick(["a", ["a", "b"], "c"])),
      queue: some(() => "q"),
      tags: some(() => random.pick([["x"], ["y", "x"], ["z"]])),
      actorId: some(() => random.pick(["ada", "bob"])),
      sessionId: some(() => random.pick(["s", "t"])),
      vars: some(() => random.pick<Record<string, Scalar>>([{ note: 1 }, { note: "1" }, { note: 2, kind: "k" }])),
      waitReason: some(() => random.pick(["event", "user"])),
      waitKey: some(() => random.pick(["k", "l"])),
      createdAfter: some(moment),
      createdBefore: some(moment),
      updatedAfter: some(moment),
      updatedBefore: some(moment),
      dueAfter: some(moment),
      dueBefore: some(moment),
      order: random.pick(orders),
      limit: random.int(1, 6),
    };
    return Object.fromEntries(Object.entries(query).filter(([, value]) => value !== undefined)) as RunQuery;
  }

  async #create(): Promise<void> {
    const { random } = this;
    const begun = this.#world.newRun({
      runId: `${this.prefix}${this.runs.length}`,
      workflowId: random.pick(["a", "b", "c"]),
      index: ["note", "kind"],
      vars: { kind: random.pick(["k", "l"]) },
      ...(random.chance(0.3) ? { queue: "q" } : {}),
      ...(random.chance(0.5) ? { tags: random.pick([["x"], ["x", "y"], ["z"]]) } : {}),
      ...(random.chance(0.5) ? { actorId: random.pick(["ada", "bob"]) } : {}),
      ...(random.chance(0.5) ? { sessionId: random.pick(["s", "t"]) } : {}),
    });
    const isHeld = random.chance(0.5);
    const { workerId } = await this.#world.worker();
    await this.#world.store.create([stored(begun)], isHeld ? workerId : undefined);
    this.#keep(this.runs.length, this.#world.holder(begun.state, { workerId, epoch: 1 }), isHeld);
  }

  async #takeOver(i: number): Promise<void> {
    const worker = await this.#world.worker({ queues: { q: {} } });
    this.#keep(i, await this.#world.takeOver(this.#holders[i] as Holder, worker), true);
  }

  async #go(i: number, holder: Holder, { waits }: ModelRun): Promise<void> {
    const { random } = this;
    const release = random.chance(0.5);
    const note = random.pick([1, "1", 2, null, [1]]);
    const key = random.pick(["k", "l"]);
    const effectId = String(random.int(1, 3));
    const parking = park({
      effectId,
      waitKey: key,
      reason: random.pick(["event", "user"]),
      since: this.#world.clock.now() - random.int(0, 5),
      ...(random.chance(0.4) ? { until: this.#world.clock.now() + random.int(0, 20) } : {}),
    });
    const isOpen = waits.some((wait) => wait.effectId === effectId);
    const drafts = isOpen ? [taken(message(holder.runId, { key }), effectId)] : [random.pick([goOn(note), parking])];
    if (random.chance(0.1)) drafts.push(finish());
    await this.#world.store.commit([holder.next(drafts, { release })]);
    const isOver = holder.state.status === "completed";
    this.#keep(i, holder, !isOver && !release);
  }

  #keep(i: number, holder: Holder, isHeld: boolean): void {
    this.#holders[i] = holder;
    const run = modelOf(i + 1, holder, isHeld);
    // When it was created it was due at once.
    this.runs[i] = run.row.seq === 0 ? { ...run, row: { ...run.row, wakeAt: run.row.createdAt } } : run;
  }
}

async function allOf(world: World, query: RunQuery): Promise<ListedRun[]> {
  const found: ListedRun[] = [];
  for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
    const page: RunPage = await world.store.query({ ...query, cursor });
    found.push(...page.runs);
    cursor = page.next;
    assert.equal(page.runs.length <= (query.limit ?? 100), true);
    if (cursor !== undefined) assert.equal(page.runs.length, query.limit);
  }
  return found;
}

function idsOf(runs: readonly ListedRun[]): string[] {
  return runs.map(({ runId }) => runId);
}
