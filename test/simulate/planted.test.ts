// Whether the simulator finds what it is there for: each of these bugs is planted in a copy of the source, by one exact replacement, and
// has to be found within so many seeds. The copy without any bug passes as many.
import { spawn } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { FaultRates } from "abstractruntime/testing";
import type { InvariantName } from "../../src/testing/simulate/violation.ts";

interface Planted {
  name: string;
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
    file: "kernel/drive.ts",
    find: "return this.#barrier().then(() => this.#begin(due.effects));",
    replace: "this.#begin(due.effects); return this.#barrier().then(() => undefined);",
    code: "letter",
    invariants: ["effects-keep-their-kind"],
  },
  {
    name: "epoch check skipped",
    file: "stores/memory/transaction.ts",
    find: "return run.holder === workerId && run.epoch === epoch;",
    replace: "return true;",
    code: "random",
    faults: { freeze: 6 },
    invariants: ["effects-keep-their-kind", "every-run-ends", "no-transition-twice", "promises-kept"],
  },
  {
    name: "signal taken outside the commit of what it means",
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
    file: "stores/memory/transaction.ts",
    find: "if (before !== undefined) return",
    replace: "if (before !== undefined && run.mail.has(id)) return",
    code: "random",
    invariants: ["no-message-twice"],
  },
  {
    name: "timeout record forgotten",
    file: "kernel/step.ts",
    find: "return failDrafts(effect, error, error, true);",
    replace: "return [];",
    code: "random",
    invariants: ["every-run-ends", "no-busy-loop", "deadlines-are-kept"],
  },
  {
    name: "outcome coalesced across an await",
    file: "kernel/drive.ts",
    find: "if (!isPromise(ran)) return finish(ran);\n    this.#sendAhead();",
    replace: "if (!isPromise(ran)) return finish(ran);",
    code: "random",
    invariants: ["effects-keep-their-kind"],
  },
  {
    name: "non-idempotent commit",
    file: "stores/memory/transaction.ts",
    find: "if (records.length > 0 && records.every(({ seq, hash }) => run.records.hashOf(seq) === hash)) return true;",
    replace: "",
    code: "random",
    faults: { fail: 6 },
    invariants: ["no-transition-twice"],
  },
  {
    name: "park without checking the mailbox",
    file: "stores/memory/transaction.ts",
    find: "const unseen = mailBehind(run, mailSeen);",
    replace: "const unseen = mailBehind(run, Number.MAX_SAFE_INTEGER + mailSeen);",
    code: "map",
    invariants: ["every-run-ends"],
  },
  {
    name: "counter not released: a run keeps its slot while it waits",
    file: "stores/memory/contents.ts",
    find: "filter((run) => run.holder !== undefined && run.row.queue === queue)",
    replace: "filter((run) => run.epoch > 0 && run.row.queue === queue)",
    code: "random",
    invariants: ["every-run-ends"],
  },
  {
    name: "key reused: a node that comes again asks under the key of the first time",
    file: "kernel/fold.ts",
    find: "    key: record.hash,",
    replace: "    key: ((state as any).keys ??= {})[record.node] ??= record.hash,",
    code: "random",
    invariants: ["effects-keep-their-kind"],
  },
  {
    name: "undo in the wrong order",
    file: "kernel/drive.ts",
    find: "this.#state.undoable?.at(-1)",
    replace: "this.#state.undoable?.at(0)",
    code: "random",
    invariants: ["undone-in-order"],
  },
  {
    name: "children left alone: nobody tells them that nobody waits any more",
    file: "kernel/drive.ts",
    find: "for (const cancel of givenUp(this.#state, parents, drafts)) this.#writer.tell(cancel);",
    replace: "givenUp(this.#state, parents, drafts);",
    code: "random",
    invariants: ["children-belong"],
  },
  {
    name: "queue limit by worker and not by store",
    file: "stores/memory/transaction.ts",
    find: "|| !slots.hasSlot(queue, queueKey)) continue;",
    replace: ") continue;",
    code: "random",
    invariants: ["queues-keep-limits"],
  },
  {
    name: "lapsed lease overlooked",
    file: "kernel/drive.ts",
    find: "if (this.#host.holdsLeases() && this.#host.leaseLapses() === this.#lapses) return;",
    replace: "return;",
    code: "random",
    invariants: ["effects-keep-their-kind"],
  },
];

/** Within how many seeds a bug has to be found. */
const mostSeeds = 600;
let place: string;

beforeAll(() => {
  place = mkdtempSync(join(tmpdir(), "planted-"));
});
afterAll(() => rmSync(place, { recursive: true, force: true }));

/** A package of the same name: there "abstractruntime" means the source beside it. */
function copyOf(name: string): string {
  const copy = join(place, name);
  mkdirSync(copy);
  for (const part of ["src", "test/simulate", "examples", "package.json"]) cpSync(part, join(copy, part), { recursive: true });
  symlinkSync(resolve("node_modules"), join(copy, "node_modules"), "junction");
  return copy;
}

function plant(copy: string, { name, file, find, replace }: Planted): void {
  const path = join(copy, "src", file);
  const text = readFileSync(path, "utf8");
  // A source that has changed: the bug is to be planted otherwise.
  expect({ name, occurrences: text.split(find).length - 1 }).toEqual({ name, occurrences: 1 });
  writeFileSync(
    path,
    text.replace(find, () => replace),
  );
}

interface Found {
  seeds: number;
  invariant?: InvariantName;
  problem?: string;
}

function simulateIn(copy: string, code: string, faults: FaultRates, seeds: number): Promise<Found> {
  const args = [
    "--conditions=abstractruntime-source",
    join(copy, "test/simulate/planted-run.ts"),
    code,
    String(seeds),
    JSON.stringify(faults),
  ];
  return new Promise((answer, refuse) => {
    const child = spawn(process.execPath, args, { cwd: copy, stdio: ["ignore", "pipe", "pipe"] });
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

test("every planted bug is found, and none where none is planted", { timeout: 300_000 }, async () => {
  const found: Record<string, unknown> = {};
  const expected: Record<string, unknown> = {};
  /** By what is simulated: the last seed that a bug was found with. */
  const seedsOf = new Map<string, { code: string; faults: FaultRates; seeds: number }>();
  const bugs = planted.map((bug, i) => async () => {
    const { name, code, faults = {}, invariants } = bug;
    const copy = copyOf(`bug-${i}`);
    plant(copy, bug);
    const { invariant, seeds, problem } = await simulateIn(copy, code, faults, mostSeeds);
    const isRight = invariant !== undefined && invariants.includes(invariant);
    found[name] = isRight ? "found" : { seeds, invariant, problem };
    expected[name] = "found";
    const key = `${code} ${JSON.stringify(faults)}`;
    seedsOf.set(key, { code, faults, seeds: Math.max(seeds, seedsOf.get(key)?.seeds ?? 0) });
    if (process.env.PLANTED_REPORT) console.log(`${name}: ${invariant} at seed ${seeds}: ${problem?.slice(0, 300)}`);
  });
  await inPairs(bugs);
  const plain = [...seedsOf].map(([name, { code, faults, seeds }], i) => async () => {
    found[name] = await simulateIn(copyOf(`plain-${i}`), code, faults, seeds);
    expected[name] = { seeds };
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
