/** S5: no wake-up is lost, in whatever order a run parks and messages come. */
import assert from "node:assert/strict";
import { type Case, finish, message, park, same, taken, type World } from "./world.ts";

export const parkingCases: Record<string, Case> = {
  ...parkings(),

  async "S5: nothing is lost when the holder has looked at a message, and takes it as it parks"(world) {
    for (const order of permutations(["b", "c", "park"])) {
      const holder = await world.held();
      const { runId } = holder;
      const a = message(runId, { id: "a" });
      await world.store.deliver([a]);
      holder.mailSeen = (await world.store.mail(runId, 0))[0]?.position ?? 0;
      await world.store.commit([holder.next([park({ waitKey: "go" })])]);
      const transition = holder.next([taken(a), park({ effectId: "2", waitKey: "go" })], { take: ["a"], release: true });
      const [parked] = (
        await Promise.all(
          order.map((act) =>
            act === "park" ? world.store.commit([transition]) : world.store.deliver([message(runId, { id: act })]),
          ),
        )
      ).filter((_, i) => order[i] === "park");
      const [unseen = []] = parked as Awaited<ReturnType<typeof world.store.commit>>;
      const before = order.slice(0, order.indexOf("park"));
      assert.deepEqual(
        unseen.map(({ id }) => id),
        before,
        `order ${order}`,
      );
      const { lease, mail } = await world.load(runId);
      same(lease, before.length > 0 ? holder.lease : undefined);
      assert.deepEqual(
        mail.map(({ id }) => id),
        order.filter((act) => act !== "park"),
      );
    }
  },

  async "S5: mail that keeps a lease is answered for its own transition, in order"(world) {
    const [quiet, loud] = [await world.held(), await world.held()];
    await world.store.deliver([message(loud.runId, { id: "a" }), message(loud.runId, { id: "b" })]);
    const answers = await world.store.commit(
      [quiet, loud].map((holder) => holder.next([park({ waitKey: "go" })], { release: true })),
    );
    assert.deepEqual(
      answers.map((mail) => mail.map(({ id }) => id)),
      [[], ["a", "b"]],
    );
    same((await world.load(quiet.runId)).lease, undefined);
    same((await world.load(loud.runId)).lease, loud.lease);
    loud.mailSeen = answers[1]?.at(-1)?.position ?? 0;
    assert.deepEqual(await world.store.commit([loud.next([], { release: true })]), [[]]);
  },

  async "S5: a message and a release without a commit, in either order, leave the run ready"(world) {
    for (const first of ["message", "release"]) {
      const holder = await world.takeOver(await world.parked());
      const acts = [
        () => world.store.deliver([message(holder.runId)]),
        () => world.store.release(holder.runId, holder.lease, {}),
      ];
      if (first === "release") acts.reverse();
      await Promise.all(acts.map((act) => act()));
      assert.deepEqual(await world.claimable(), [holder.runId]);
    }
  },
};

/** A test for every order of two messages and a park; in each, the calls are awaited or made in one turn, in every combination. */
function parkings(): Record<string, Case> {
  const orders = permutations(["a", "b", "park"]);
  return Object.fromEntries(
    (["deliver", "send"] as const).flatMap((way) =>
      orders.map((order): [string, Case] => [
        `S5: nothing is lost in the order ${order.join(", ")}, by ${way}`,
        async (world) => {
          for (const awaited of [0, 1, 2, 3]) await parkAmidMail(world, way, order, [awaited % 2 === 1, awaited > 1]);
        },
      ]),
    ),
  );
}

/** Parks a run amid messages and checks that somebody knows of each of them, whatever the store makes of the order. */
async function parkAmidMail(
  world: World,
  way: "deliver" | "send",
  order: readonly string[],
  awaited: readonly boolean[],
): Promise<void> {
  const told = `awaited: ${awaited}`;
  const worker = await world.worker();
  const holder = await world.held({}, worker);
  const { runId } = holder;
  const parking = holder.next([park({ waitKey: "go" })], { release: true });
  const acts: Record<string, () => Promise<unknown>> = { park: () => world.store.commit([parking]) };
  for (const id of ["a", "b"]) {
    const sent = message(runId, { id });
    if (way === "deliver") acts[id] = () => world.store.deliver([sent]);
    else {
      // A sender for each: one's commits would have an order of their own.
      const step = (await world.held({}, worker)).next([finish()], { send: [sent] });
      acts[id] = () => world.store.commit([step]);
    }
  }
  const answers: Record<string, unknown> = {};
  const underWay: Promise<unknown>[] = [];
  for (const [i, act] of order.entries()) {
    const answered = (acts[act] as () => Promise<unknown>)().then((answer) => {
      answers[act] = answer;
    });
    underWay.push(answered);
    if (awaited[i]) await answered;
  }
  await Promise.all(underWay);
  const [unseen = []] = answers.park as { id: string }[][];
  const { lease, mail } = await world.load(runId);
  assert.deepEqual(mail.map(({ id }) => id).sort(), ["a", "b"], told);
  if (lease) {
    same(lease, holder.lease, told);
    assert.ok(unseen.length > 0, `${told}: the lease was kept, and its holder not told why`);
    for (const id of ["a", "b"]) {
      const isTold = unseen.some((one) => one.id === id);
      if (way === "deliver" && !isTold) same(answers[id], [{ kind: "stored", holder: lease.workerId }], told);
    }
    await world.store.release(runId, lease, {});
  } else {
    assert.deepEqual(unseen, [], told);
  }
  assert.deepEqual(await world.claimable(), [runId], told);
}

function permutations<T>(of: readonly T[]): T[][] {
  if (of.length === 0) return [[]];
  return of.flatMap((one, i) => permutations([...of.slice(0, i), ...of.slice(i + 1)]).map((rest) => [one, ...rest]));
}
