// Several store objects on one schema, as workers on several machines have them.
import { postgresStore } from "abstractruntime/postgres";
import { expect, it, onTestFinished } from "vitest";
import { finish, goOn, idsOf, message, park, stored, World } from "../../src/testing/contract/world.ts";
import { testClock } from "../../src/testing/index.ts";
import { dropSchema, newSchema, serverUrl, sqlOn } from "./postgres-server.ts";

async function worlds(count: number, schema = newSchema()): Promise<World[]> {
  const clock = testClock();
  onTestFinished(async () => void (await dropSchema(schema)));
  const open = () => postgresStore({ connectionString: serverUrl(), schema, clock, connections: 4 });
  const stores = await Promise.all(Array.from({ length: count }, open));
  onTestFinished(async () => void (await Promise.all(stores.map((store) => store.close()))));
  const [first, ...others] = stores.map((store) => new World(store, clock, undefined));
  // Ids of one series, so that no two are the same.
  for (const other of others) Object.assign(other, { ids: (first as World).ids });
  return [first as World, ...others];
}

it("runs are given once, however many ask at once, and all are given", async () => {
  const four = await worlds(4);
  const [first] = four as [World];
  const runs = Array.from({ length: 200 }, (_, i) => stored(first.newRun({ workflowId: `w${i % 3}`, priority: i % 2 })));
  await first.store.create(runs);
  const claims = four.map(async (world) => {
    const worker = await world.worker();
    const given: string[] = [];
    for (let i = 0; i < 10; i++) given.push(...idsOf(await world.store.claim(worker, { limit: 10 })));
    return given;
  });
  const given = (await Promise.all(claims)).flat();
  // What a claim finds locked it leaves to others.
  given.push(...idsOf(await first.store.claim(await first.worker(), { limit: 200 })));
  expect(new Set(given).size).toBe(given.length);
  expect(given.sort()).toEqual(runs.map(({ row }) => row.runId).sort());
});

it("the slots of a queue are shared, and never exceeded, by claims that are made at once", async () => {
  const four = await worlds(4);
  const [first] = four as [World];
  const limits = { q: { concurrency: 7, keyConcurrency: 2 } };
  const runs = Array.from({ length: 40 }, (_, i) =>
    stored(first.newRun({ queue: "q", workflowId: `w${i % 2}`, ...(i % 4 === 0 ? {} : { queueKey: `k${i % 4}` }) })),
  );
  await first.store.create(runs);
  const workers = await Promise.all(four.map((world) => world.worker({ queues: limits })));
  const claims = await Promise.all(four.map((world, i) => world.store.claim(workers[i] as (typeof workers)[0], { limit: 5 })));
  const rows = claims.flat().map(({ row }) => row);
  expect(rows).toHaveLength(7);
  for (const key of ["k1", "k2", "k3"]) expect(rows.filter(({ queueKey }) => queueKey === key).length).toBeLessThanOrEqual(2);
});

it("a rate holds over all of them", async () => {
  const three = await worlds(3);
  const [first] = three as [World];
  await first.store.create(Array.from({ length: 20 }, () => stored(first.newRun({ queue: "q" }))));
  const queues = { q: { rateLimit: { limit: 5, periodMs: 1_000 } } };
  const claims = three.map(async (world) => world.store.claim(await world.worker({ queues }), { limit: 10 }));
  expect((await Promise.all(claims)).flat()).toHaveLength(5);
});

it("runs that send each other messages crosswise never wait for each other for ever", async () => {
  const two = (await worlds(2)) as [World, World];
  const [here, there] = two;
  const a = await here.held();
  const b = await there.held();
  for (let i = 0; i < 30; i++) {
    await Promise.all([
      here.store.commit([a.next([goOn(i)], { send: [message(b.runId, { id: `a${i}` })] })]),
      there.store.commit([b.next([goOn(i)], { send: [message(a.runId, { id: `b${i}` })] })]),
    ]);
  }
  expect((await here.load(a.runId)).mail).toHaveLength(30);
  expect((await here.load(b.runId)).mail).toHaveLength(30);
});

it("no wake-up is lost between one that parks a run and others that send to it (S5)", async () => {
  const [here, there] = (await worlds(2)) as [World, World];
  for (let i = 0; i < 40; i++) {
    const holder = await here.held();
    const parking = holder.next([park({ waitKey: "go" })], { release: true });
    const [[unseen = []]] = (await Promise.all([here.store.commit([parking]), there.store.deliver([message(holder.runId)])])) as [
      { id: string }[][],
      unknown,
    ];
    const { lease } = await here.load(holder.runId);
    if (lease) expect(unseen.map(({ id }) => id)).toEqual(["m1"]);
    else expect(await there.claimable()).toEqual([holder.runId]);
    if (lease) await here.store.retire(lease.workerId);
    for (const runId of await here.claimable()) expect(runId).toBe(holder.runId);
  }
});

it("news of held runs leave nothing out, in whatever order messages are committed", async () => {
  const three = await worlds(3);
  const [here, ...others] = three as [World, World, World];
  const worker = await here.worker();
  const holders = await Promise.all(Array.from({ length: 10 }, () => here.held({}, worker)));
  const parked = await here.parked();
  let position = 0;
  const known = new Set<string>();
  const look = async (): Promise<void> => {
    const news = await here.store.news(worker.workerId, position);
    position = news.position;
    for (const runId of news.runIds) known.add(runId);
  };
  const sending = others.map(async (world, n) => {
    for (const [i, { runId }] of holders.entries()) {
      await Promise.all([
        world.store.deliver([message(runId, { id: `${n} ${i}` })]),
        world.store.deliver([message(parked.runId, { id: `${n} ${i}` })]),
      ]);
    }
  });
  let done = false;
  const looking = (async () => {
    while (!done) await look();
  })();
  await Promise.all(sending);
  done = true;
  await looking;
  await look();
  expect([...known].sort()).toEqual(holders.map(({ runId }) => runId).sort());
});

it("others hear of what there is to do, and of messages to runs that they hold; nobody hears what is not for him", async () => {
  const schema = newSchema();
  const [here, there] = (await worlds(2, schema)) as [World, World];
  const worker = await there.worker();
  await here.worker();
  const held = await there.held({}, worker);
  let rings = 0;
  let wake = Promise.withResolvers<void>();
  const stop = there.store.hear(() => {
    rings += 1;
    wake.resolve();
  });
  onTestFinished(stop);
  // Other test files have listeners of their own on this server.
  const listening = `SELECT count(*)::int AS n FROM pg_stat_activity WHERE query LIKE 'LISTEN%${schema}%' AND state = 'idle'`;
  while ((await sqlOn(listening))[0]?.n === 0);
  const hears = async (act: () => Promise<unknown>): Promise<void> => {
    wake = Promise.withResolvers<void>();
    await act();
    await wake.promise;
  };
  await hears(() => here.store.create([stored(here.newRun())]));
  await hears(() => here.store.deliver([message(held.runId)]));
  const mine = await here.held();
  const count = rings;
  await here.store.deliver([message(mine.runId)]);
  await here.store.commit([mine.next([finish()])]);
  // What comes later is heard, so that what was not told before will not be told any more.
  await hears(() => here.store.create([stored(here.newRun())]));
  expect(rings).toBe(count + 1);
});

it("many who listen do not all rush for each run that is ready, and each hears of it all the same", async () => {
  const [here, ...others] = (await worlds(12)) as [World, ...World[]];
  const heard = others.map(() => 0);
  for (const [i, { store }] of others.entries()) {
    await others[i]?.worker();
    onTestFinished(
      store.hear(() => {
        heard[i] = (heard[i] ?? 0) + 1;
      }),
    );
  }
  const create = () => here.store.create([stored(here.newRun())]);
  // Until all of them listen.
  while (heard.includes(0)) await create();
  const before = [...heard];
  const startedAt = performance.now();
  for (let i = 0; i < 60; i++) await create();
  // Eleven workers: the looks after a ring take up to 36 ms, and the next ring comes when half of that is over.
  const most = 2 + (performance.now() - startedAt) / 17;
  for (const [i, count] of heard.entries()) expect(count - (before[i] ?? 0)).toBeLessThanOrEqual(most);
  while (heard.some((count, i) => count === before[i])) await create();
});
