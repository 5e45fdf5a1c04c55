// Whether the simulator finds what it is there for: each of these bugs is planted in the source, by one exact replacement, and has to be
// found within so many seeds. Without any bug, these seeds pass. By default the seed in which it was found before is tried first; with
// CRASH_SWEEP=full (`npm run crash`) all of them, from the first on.
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { expect, test } from "vitest";
import type { FaultRates } from "abstractruntime/testing";
import type { InvariantName } from "../../src/testing/simulate/violation.ts";
import type { PlantedTask } from "./planted-run.ts";

interface Planted {
  name: string;
  /** Where it was found the last time that somebody looked: looking from the first seed on takes long. */
  seed: number;
  /** Under `src/`. */
  file: string;
  /** Occurs there exactly once. */
  find: string;
  replace: string;
  /** One of `simulated`. */
  code: string;
  /** What goes wrong more often than by default, where that is what the bug needs. */
  faults?: FaultRates;
  /** Any of these is the right one. */
  invariants: readonly InvariantName[];
}

const planted: readonly Planted[] = [
  {
    name: "commit order swapped: an effect begins, and then its intent is made durable",
    seed: 1,
    file: "kernel/attempts.ts",
    find: "return barrier(run).then(() => begin(run, due.effects));",
    replace: "begin(run, due.effects); return barrier(run).then(() => undefined);",
    code: "letter",
    invariants: ["effects-keep-their-kind"],
  },
  {
    name: "epoch check skipped",
    seed: 441,
    file: "stores/memory/transaction.ts",
    find: "return run.holder === workerId && run.epoch === epoch;",
    replace: "return true;",
    code: "random",
    faults: { freeze: 6 },
    invariants: ["effects-keep-their-kind", "every-run-ends", "no-transition-twice", "promises-kept"],
  },
  {
    name: "signal taken outside the commit of what it means",
    seed: 17,
    file: "kernel/write.ts",
    find: "    this.#take.push(messageId);",
    replace: `    void this.#host.store.commit([{
      runId: this.#state.runId, lease: this.#lease, after: this.#sentSeq, records: [], row: { ...rowOf(this.#state), seq: this.#sentSeq },
      take: [messageId], send: [], start: [], release: false, mailSeen: 0,
    }]).catch(() => undefined);`,
    code: "random",
    invariants: ["no-message-lost", "no-message-twice", "every-run-ends"],
  },
  {
    name: "dedup dropped",
    seed: 41,
    file: "stores/memory/transaction.ts",
    find: "if (before !== undefined) return",
    replace: "if (before !== undefined && run.mail.has(id)) return",
    code: "random",
    invariants: ["no-message-twice"],
  },
  {
    name: "timeout record forgotten",
    seed: 1,
    file: "kernel/step.ts",
    find: "return failDrafts(effect, error, error, true);",
    replace: "return [];",
    code: "random",
    invariants: ["every-run-ends", "no-busy-loop", "deadlines-are-kept"],
  },
  {
    name: "outcome coalesced across an await",
    seed: 21,
    file: "kernel/node-turn.ts",
    find: "if (!isPromise(ran)) return finish(ran);\n  run.sendAhead();",
    replace: "if (!isPromise(ran)) return finish(ran);",
    code: "random",
    invariants: ["effects-keep-their-kind"],
  },
  {
    name: "non-idempotent commit",
    seed: 3,
    file: "stores/memory/transaction.ts",
    find: "if (records.length > 0 && records.every(({ seq, hash }) => run.records.hashOf(seq) === hash)) return true;",
    replace: "",
    code: "random",
    faults: { fail: 6 },
    invariants: ["no-transition-twice"],
  },
  {
    name: "park without checking the mailbox",
    seed: 55,
    file: "stores/memory/transaction.ts",
    find: "const unseen = mailBehind(run, mailSeen);",
    replace: "const unseen = mailBehind(run, Number.MAX_SAFE_INTEGER + mailSeen);",
    code: "map",
    invariants: ["every-run-ends"],
  },
  {
    name: "counter not released: a run keeps its slot while it waits",
    seed: 3,
    file: "stores/memory/contents.ts",
    find: "filter((run) => run.holder !== undefined && run.row.queue === queue)",
    replace: "filter((run) => run.epoch > 0 && run.row.queue === queue)",
    code: "random",
    invariants: ["every-run-ends"],
  },
  {
    name: "key reused: a node that comes again asks under the key of the first time",
    seed: 1,
    file: "kernel/fold.ts",
    find: "    key: record.hash,",
    replace: "    key: ((state as any).keys ??= {})[record.node] ??= record.hash,",
    code: "random",
    invariants: ["effects-keep-their-kind"],
  },
  {
    name: "undo in the wrong order",
    seed: 24,
    file: "kernel/drive.ts",
    find: "run.state.undoable?.at(-1)",
    replace: "run.state.undoable?.at(0)",
    code: "random",
    invariants: ["undone-in-order"],
  },
  {
    name: "children left alone: nobody tells them that nobody waits any more",
    seed: 16,
    file: "kernel/run-at-hand.ts",
    find: "for (const cancel of givenUp(this.state, parents, drafts)) this.writer.tell(cancel);",
    replace: "givenUp(this.state, parents, drafts);",
    code: "random",
    invariants: ["children-belong"],
  },
  {
    name: "queue limit by worker and not by store",
    seed: 6,
    file: "stores/memory/transaction.ts",
    find: "|| !slots.hasSlot(queue, queueKey)) continue;",
    replace: ") continue;",
    code: "random",
    invariants: ["queues-keep-limits"],
  },
  {
    name: "lapsed lease overlooked",
    seed: 21,
    file: "kernel/attempts.ts",
    find: "if (run.isHeld) return;",
    replace: "return;",
    code: "random",
    invariants: ["effects-keep-their-kind"],
  },
];

/** Within how many seeds a bug has to be found. */
const mostSeeds = 600;
const full = process.env.CRASH_SWEEP === "full";

interface Found {
  seed?: number;
  invariant?: InvariantName;
  problem?: string;
}

function simulated(task: PlantedTask): Promise<Found> {
  const args = [...process.execArgv, join(import.meta.dirname, "planted-run.ts"), JSON.stringify(task)];
  return new Promise((answer, refuse) => {
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "pipe"] });
    const out: string[] = [];
    child.stdout.on("data", (part) => out.push(String(part)));
    child.stderr.on("data", (part) => out.push(String(part)));
    child.on("error", refuse);
    child.on("close", (status) => {
      if (status === 0) answer(JSON.parse(out.join("")) as Found);
      else refuse(new Error(`the simulation ended with ${status}: ${out.join("").slice(0, 2_000)}`));
    });
  });
}

async function search({ name, seed, file, find, replace, code, faults = {} }: Planted): Promise<Found> {
  const path = resolve("src", file);
  // A source that has changed: the bug is to be planted otherwise.
  const occurrences = readFileSync(path, "utf8").split(find).length - 1;
  expect({ name, occurrences }).toEqual({ name, occurrences: 1 });
  const task = { code, faults, bug: { path, find, replace } };
  const found = full ? {} : await simulated({ ...task, seeds: [seed] });
  return found.invariant === undefined ? simulated({ ...task, seeds: mostSeeds }) : found;
}

test("every planted bug is found, and none where none is planted", { timeout: 600_000 }, async () => {
  const found: Record<string, unknown> = {};
  const expected: Record<string, unknown> = {};
  /** By what is simulated: the seeds that a bug was found in. */
  const seedsOf = new Map<string, Pick<PlantedTask, "code" | "faults"> & { seeds: number[] }>();
  const bugs = planted.map((bug) => async () => {
    const { name, code, faults = {}, invariants } = bug;
    const { invariant, seed, problem } = await search(bug);
    const isRight = invariant !== undefined && invariants.includes(invariant);
    found[name] = isRight ? "found" : { seed, invariant, problem };
    expected[name] = "found";
    const key = `${code} ${JSON.stringify(faults)}`;
    if (!seedsOf.has(key)) seedsOf.set(key, { code, faults, seeds: [] });
    if (seed !== undefined) seedsOf.get(key)?.seeds.push(seed);
    if (process.env.PLANTED_REPORT) console.log(`${name}: ${invariant} at seed ${seed}: ${problem?.slice(0, 300)}`);
  });
  await inPairs(bugs);
  const plain = [...seedsOf].map(([name, { seeds, ...task }]) => async () => {
    found[name] = await simulated({ ...task, seeds: full ? Math.max(...seeds) : seeds });
    expected[name] = {};
  });
  await inPairs(plain);
  expect(found).toEqual(expected);
});

async function inPairs(tasks: (() => Promise<void>)[]): Promise<void> {
  const work = async (): Promise<void> => {
    for (let task = tasks.shift(); task; task = tasks.shift()) await task();
  };
  await Promise.all([work(), work()]);
}
