// What becomes of files that are damaged, cut off, missing or in use: the matter of one run, or an error that says what to do.
import {
  appendFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it, onTestFinished } from "vitest";
import type { SnapshotRow } from "../../src/kernel/snapshot.ts";
import type { Store } from "../../src/kernel/store.ts";
import { filesStore } from "../../src/stores/files/index.ts";
import { nameOf } from "../../src/stores/files/names.ts";
import { type TestClock, testClock } from "../../src/testing/clock.ts";
import { finish, goOn, type Holder, message, park, refuses, stored, taken, World } from "../../src/testing/contract/world.ts";

/** A store that is closed to be changed behind its back, and opened again. */
class Bench {
  readonly directory = mkdtempSync(join(tmpdir(), "abstractruntime-"));
  readonly clock: TestClock = testClock();
  store!: Store;
  world!: World;

  async open(): Promise<World> {
    this.store = await filesStore(this.directory, { clock: this.clock });
    const ids = this.world?.ids;
    this.world = new World(this.store, this.clock, undefined);
    if (ids) Object.assign(this.world, { ids });
    return this.world;
  }

  path(runId: string, file: string): string {
    return join(this.directory, "runs", nameOf(runId), file);
  }

  /** Opens the store again after `change`, with nothing left to be made from a write-ahead file. */
  async after(change: () => void): Promise<World> {
    await this.store.close();
    for (const name of readdirSync(this.directory)) if (name.startsWith("ahead-")) rmSync(join(this.directory, name));
    change();
    return this.open();
  }

  edit(path: string, change: (text: string) => string): void {
    writeFileSync(path, change(readFileSync(path, "utf8")));
  }

  ahead(): string[] {
    return readdirSync(this.directory).filter((name) => name.startsWith("ahead-"));
  }
}

async function bench(): Promise<Bench> {
  const made = new Bench();
  await made.open();
  onTestFinished(async () => {
    await made.store.close();
    rmSync(made.directory, { recursive: true });
  });
  return made;
}

/** Three runs that wait, each with two records behind its first, and mail. */
async function threeRuns({ world }: Bench): Promise<[Holder, Holder, Holder]> {
  const holders: Holder[] = [];
  for (let i = 0; i < 3; i++) {
    const holder = await world.held();
    await world.store.commit([holder.next([goOn(i), park({ waitKey: "go" })], { release: true })]);
    holders.push(holder);
  }
  await world.store.deliver(holders.map(({ runId }) => message(runId)));
  return holders as [Holder, Holder, Holder];
}

const idsOf = (holders: readonly Holder[]): string[] => holders.map(({ runId }) => runId);

/** The damaged run is quarantined and nobody's; the others are given. */
async function isAlone(world: World, damaged: Holder, others: readonly Holder[]): Promise<void> {
  expect(await world.claimable()).toEqual(idsOf(others));
  const { runs } = await world.store.query({ order: "oldest" });
  expect(runs.map(({ runId }) => runId).sort()).toEqual(idsOf([damaged, ...others]).sort());
  const row = runs.find(({ runId }) => runId === damaged.runId);
  expect(row).toMatchObject({ blocked: { code: "RECORD_CORRUPT", quarantine: true } });
  expect(row?.holder).toBeUndefined();
  expect(await world.claimable({ fingerprint: "code 2" })).toEqual([]);
}

describe("a damaged file is the matter of its run", () => {
  const damages: Record<string, (bench: Bench, runId: string) => void> = {
    "a line in the middle of its ledger is torn": (bench, runId) =>
      bench.edit(bench.path(runId, "ledger.jsonl"), (text) => text.replace('"kind":"step"', '"kin')),
    "its ledger is cut short": (bench, runId) => bench.edit(bench.path(runId, "ledger.jsonl"), (text) => text.slice(0, -40)),
    "its ledger is missing": (bench, runId) => rmSync(bench.path(runId, "ledger.jsonl")),
    "its mailbox is torn": (bench, runId) =>
      bench.edit(bench.path(runId, "mailbox.jsonl"), (text) => text.replace('"table"', '"ta')),
    "its mailbox is cut short": (bench, runId) => bench.edit(bench.path(runId, "mailbox.jsonl"), (text) => text.slice(0, -9)),
    "its mailbox is missing": (bench, runId) => rmSync(bench.path(runId, "mailbox.jsonl")),
    "its row and a line of its ledger cannot be read": (bench, runId) => {
      writeFileSync(bench.path(runId, "run.json"), "{");
      bench.edit(bench.path(runId, "ledger.jsonl"), (text) => text.replace('"kind":"step"', '"kin'));
    },
    "a record of its ledger was changed, and its row is gone": (bench, runId) => {
      rmSync(bench.path(runId, "run.json"));
      bench.edit(bench.path(runId, "ledger.jsonl"), (text) => text.replace('/note","value":1', '/note","value":7'));
    },
    "nothing in its directory can be read": (bench, runId) => {
      for (const file of ["run.json", "ledger.jsonl", "mailbox.jsonl"]) writeFileSync(bench.path(runId, file), "\0\0\0\n\xff");
    },
    "its row is a directory": (bench, runId) => {
      rmSync(bench.path(runId, "run.json"));
      mkdirSync(bench.path(runId, "run.json"));
      rmSync(bench.path(runId, "ledger.jsonl"));
      mkdirSync(bench.path(runId, "ledger.jsonl"));
    },
  };
  for (const [what, damage] of Object.entries(damages)) {
    it(`when ${what}`, async () => {
      const made = await bench();
      const [first, damaged, last] = await threeRuns(made);
      const world = await made.after(() => damage(made, damaged.runId));
      await isAlone(world, damaged, [first, last]);
    });
  }

  it("when its row was written by newer code, and its files are left as they are", async () => {
    const made = await bench();
    const [first, newer, last] = await threeRuns(made);
    const path = made.path(newer.runId, "run.json");
    const world = await made.after(() => made.edit(path, (text) => text.replace('"format": 1', '"format": 7')));
    const text = readFileSync(path, "utf8");
    expect((await world.load(newer.runId)).blocked).toMatchObject({ code: "FORMAT_NEWER", quarantine: true });
    const given = await world.claimable();
    expect(given).toEqual(expect.arrayContaining([first.runId, last.runId]));
    expect(given).not.toContain(newer.runId);
    await expect(world.store.lift(newer.runId)).rejects.toThrow("STORE_UNAVAILABLE");
    await world.store.close();
    expect(readFileSync(path, "utf8")).toBe(text);
    await made.open();
  });

  it("and files that are not to be read are not written either", async () => {
    const made = await bench();
    const [damaged, other] = await threeRuns(made);
    const path = made.path(damaged.runId, "run.json");
    const world = await made.after(() => {
      rmSync(path);
      mkdirSync(path);
    });
    await refuses(world.store.lift(damaged.runId), "STORE_UNAVAILABLE");
    await refuses(world.store.deliver([message(damaged.runId, { id: "m2" })]), "STORE_UNAVAILABLE");
    expect(await world.store.deliver([message(other.runId, { id: "m2" })])).toEqual([{ kind: "stored" }]);
    const mended = await made.after(() => rmSync(path, { recursive: true }));
    expect(await mended.claimable()).toContain(damaged.runId);
  });

  it("and a ledger that was mended is driven on when the quarantine is lifted", async () => {
    const made = await bench();
    const [first, damaged, last] = await threeRuns(made);
    const path = made.path(damaged.runId, "ledger.jsonl");
    const whole = readFileSync(path, "utf8");
    let world = await made.after(() => writeFileSync(path, whole.replace('"kind":"step"', '"kin')));
    await isAlone(world, damaged, [first, last]);
    await refuses(world.store.records(damaged.runId, 0, 10), "RECORD_CORRUPT");
    expect((await world.store.records(first.runId, 0, 10)).length).toBe(3);
    world = await made.after(() => writeFileSync(path, whole));
    expect(await world.store.lift(damaged.runId)).toBe(true);
    expect(await world.claimable()).toContain(damaged.runId);
  });
});

describe("the row of a run", () => {
  for (const [what, damage] of Object.entries({
    torn: (path: string) => writeFileSync(path, readFileSync(path, "utf8").slice(0, 100)),
    missing: (path: string) => rmSync(path),
    "other JSON": (path: string) => writeFileSync(path, "[]"),
  })) {
    it(`is made again from the ledger when run.json is ${what}`, async () => {
      const made = await bench();
      const [run] = await threeRuns(made);
      const before = (await made.store.query({ order: "oldest" })).runs.find(({ runId }) => runId === run.runId);
      const mail = await made.store.mail(run.runId, 0);
      const world = await made.after(() => damage(made.path(run.runId, "run.json")));
      const after = (await world.store.query({ order: "oldest" })).runs.find(({ runId }) => runId === run.runId);
      expect(after).toEqual(before);
      expect(await world.store.mail(run.runId, 0)).toEqual(mail);
      // Known messages are still known, and the run goes on to its end.
      expect(await world.store.deliver([message(run.runId)])).toEqual([{ kind: "duplicate", same: true }]);
      const next = await world.takeOver(run);
      await world.store.commit([next.next([taken(message(run.runId)), finish()], { take: ["m1"] })]);
      const reopened = await made.after(() => undefined);
      expect((await reopened.load(run.runId)).row.status).toBe("completed");
    });
  }

  it("and the rest is read from checkpoints that a ledger of old records was archived behind", async () => {
    const made = await bench();
    const { world } = made;
    const holder = await world.held();
    await world.store.commit([holder.next([goOn(1), goOn(2), goOn(3)])]);
    const base = { ...holder.checkpoint(0) };
    await world.store.commit([
      holder.next([park({ waitKey: "go" })], { dropBefore: base.seq + 1, checkpoint: base, release: true }),
    ]);
    const before = await world.load(holder.runId);
    const again = await made.after(() => rmSync(made.path(holder.runId, "run.json")));
    expect(await again.load(holder.runId)).toEqual(before);
  });
});

describe("a line that was cut off by a crash", () => {
  it("is cut back: it was never answered", async () => {
    const made = await bench();
    const [run] = await threeRuns(made);
    const path = made.path(run.runId, "ledger.jsonl");
    const whole = readFileSync(path, "utf8");
    const world = await made.after(() => appendFileSync(path, whole.slice(0, 200)));
    expect(await world.store.records(run.runId, 0, 10)).toHaveLength(3);
    const next = await world.takeOver(run);
    await world.store.commit([next.next([taken(message(run.runId)), finish()], { take: ["m1"] })]);
    await world.store.close();
    const lines = readFileSync(path, "utf8").split("\n");
    expect(lines.slice(0, 3).join("\n")).toBe(whole.trimEnd());
    expect(lines.filter(Boolean).map((line) => JSON.parse(line).seq)).toEqual([0, 1, 2, 3, 4]);
    await made.open();
  });

  it("is cut back when the row is gone, too", async () => {
    const made = await bench();
    const [run] = await threeRuns(made);
    const world = await made.after(() => {
      rmSync(made.path(run.runId, "run.json"));
      for (const file of ["ledger.jsonl", "mailbox.jsonl"]) appendFileSync(made.path(run.runId, file), '{"seq":3,"siz');
    });
    expect((await world.load(run.runId)).row).toMatchObject({ seq: 2, status: "waiting" });
    const next = await world.takeOver(run);
    await world.store.commit([next.next([taken(message(run.runId))], { take: ["m1"] })]);
  });

  it("is none of the store's changes", async () => {
    const made = await bench();
    const [run] = await threeRuns(made);
    await made.store.close();
    const [name = ""] = made.ahead();
    appendFileSync(join(made.directory, name), `${"0".repeat(64)} [{"remove":"runs"`);
    let world = await made.open();
    await world.store.counters(run.runId);
    const next = await world.takeOver(run);
    await world.store.commit([next.next([taken(message(run.runId))], { take: ["m1"] })]);
    await world.store.close();
    world = await made.open();
    expect((await world.load(run.runId)).row.seq).toBe(3);
  });
});

describe("what was answered", () => {
  it("is there after a power cut that left nothing but the write-ahead file since files were synced last", async () => {
    const made = await bench();
    const [run, other] = await threeRuns(made);
    // As synced: nothing is ahead of the files.
    await made.after(() => undefined);
    const synced = mkdtempSync(join(tmpdir(), "abstractruntime-"));
    onTestFinished(() => rmSync(synced, { recursive: true }));
    cpSync(made.directory, synced, { recursive: true });
    const { world } = made;
    const next = await world.takeOver(run);
    for (let i = 0; i < 5; i++) await world.store.commit([next.next([goOn(i)])]);
    const begun = world.newRun();
    await world.store.create([stored(begun)]);
    await world.store.commit([
      next.next([goOn(6)], { counters: [{ runId: run.runId, name: "c", add: 4 }], checkpoint: next.checkpoint(1) }),
    ]);
    await world.store.deliver([message(other.runId, { id: "m2" })]);
    const expected = {
      loaded: await world.load(run.runId),
      runs: (await world.store.query({})).runs,
      mail: await world.store.mail(other.runId, 0),
    };
    const ahead = made.ahead();
    expect(ahead).toHaveLength(1);
    for (const name of ahead) cpSync(join(made.directory, name), join(synced, name));
    // And half of what was being written beside it.
    writeFileSync(join(synced, "runs", nameOf(run.runId), "run.json"), "");
    writeFileSync(join(synced, "runs", nameOf(run.runId), "run.json.tmp"), "{");
    const store = await filesStore(synced, { clock: made.clock });
    onTestFinished(() => store.close());
    expect(await store.load(run.runId)).toEqual(expected.loaded);
    expect((await store.query({})).runs).toEqual(expected.runs);
    expect(await store.mail(other.runId, 0)).toEqual(expected.mail);
    expect(await store.counters(run.runId)).toEqual({ c: 4 });
    expect((await store.load(begun.row.runId))?.tail).toEqual([begun.record]);
  });

  it("is emptied into the files when the write-ahead file has grown, while the store goes on", async () => {
    const made = await bench();
    const { world } = made;
    const holder = await world.held();
    const text = "x".repeat(1_000_000);
    for (let i = 0; i < 12; i++) await world.store.commit([holder.next([goOn(`${i}${text}`)])]);
    await world.store.close();
    expect(made.ahead()).toEqual([]);
    const again = await made.open();
    expect(await again.store.records(holder.runId, 0, 100)).toHaveLength(13);
  });
});

describe("the store's own files", () => {
  it("a write-ahead file with a damaged line before others is STORE_CORRUPT", async () => {
    const made = await bench();
    await threeRuns(made);
    await made.store.close();
    const path = join(made.directory, made.ahead()[0] as string);
    const whole = readFileSync(path, "utf8");
    writeFileSync(path, whole.replace('"write"', '"wrote"'));
    await refuses(made.open(), "STORE_CORRUPT");
    writeFileSync(path, whole);
    await made.open();
  });

  it("a damaged line of store.jsonl is STORE_CORRUPT and named; a newer format is FORMAT_NEWER", async () => {
    const made = await bench();
    const { world } = made;
    const holder = await world.held();
    await world.store.saveSnapshot(snapshotOf(holder.runId, "kept"));
    const path = join(made.directory, "store.jsonl");
    const whole = readFileSync(path, "utf8");
    const broken = (change: (text: string) => string) => made.after(() => writeFileSync(path, change(whole)));
    await expect(broken((text) => text.replace('"table":"snapshots"', '"tab'))).rejects.toThrow(
      /STORE_CORRUPT.* line \d of store.jsonl/,
    );
    const number = (text: string) => text.replace(/^(\{"number":"\w+",)"value"/m, '$1value"');
    expect(number(whole)).not.toBe(whole);
    await expect(broken(number)).rejects.toThrow(/STORE_CORRUPT.* line \d of store.jsonl/);
    await expect(broken((text) => text.replace('"format":1', '"format":2'))).rejects.toThrow("FORMAT_NEWER");
    await expect(broken(() => "")).rejects.toThrow("STORE_CORRUPT");
    await expect(made.after(() => rmSync(path))).rejects.toThrow(/STORE_CORRUPT.*store.jsonl is missing/);
    await broken((text) => `${text}{"table":"snap`);
    expect(await made.store.snapshot("kept")).toEqual(snapshotOf(holder.runId, "kept"));
  });

  it("is rewritten without its past when that is most of it", async () => {
    const made = await bench();
    const { world } = made;
    const holder = await world.held();
    for (let i = 0; i < 30; i++)
      await Promise.all(
        Array.from({ length: 100 }, (_, n) => world.store.saveSnapshot(snapshotOf(holder.runId, `${n}`, `at ${i}`))),
      );
    const before = statSync(join(made.directory, "store.jsonl")).size;
    const again = await made.after(() => undefined);
    expect(statSync(join(made.directory, "store.jsonl")).size).toBeLessThan(before / 10);
    expect(await again.store.snapshot("99")).toEqual(snapshotOf(holder.runId, "99", "at 29"));
  });
});

describe("the directory", () => {
  it("that is removed while it is open takes nothing any more that nobody would find", async () => {
    const made = await bench();
    const { world } = made;
    const holder = await world.held();
    const transition = holder.next([goOn()]);
    rmSync(made.directory, { recursive: true });
    await expect(world.store.commit([transition])).rejects.toThrow("STORE_UNAVAILABLE");
    await expect(world.store.create([stored(world.newRun())])).rejects.toThrow("STORE_UNAVAILABLE");
    await world.store.close();
    mkdirSync(made.directory);
    await made.open();
  });

  it("takes one store at a time, and is free when that is closed", async () => {
    const made = await bench();
    const error = await filesStore(made.directory).catch((error: unknown) => error);
    expect(String(error)).toMatch(/STORE_LOCKED: the store files:.* is open already.*Stop the one/);
    await made.store.close();
    await made.open();
  });

  it("is its owner's only; the conventional one keeps itself out of version control", async () => {
    const parent = mkdtempSync(join(tmpdir(), "abstractruntime-"));
    onTestFinished(() => rmSync(parent, { recursive: true }));
    const directory = join(parent, ".abstractruntime", "files");
    await (await filesStore(directory)).close();
    expect(readFileSync(join(parent, ".abstractruntime", ".gitignore"), "utf8")).toBe("*\n");
    if (process.platform !== "win32") {
      expect(statSync(directory).mode & 0o777).toBe(0o700);
      expect(statSync(join(directory, "store.jsonl")).mode & 0o777).toBe(0o600);
    }
  });

  it("says what is wrong with a place that cannot be one", async () => {
    const made = await bench();
    const file = join(made.directory, "store.jsonl");
    await refuses(filesStore(file), "STORE_UNAVAILABLE");
    await expect(filesStore(made.directory, { clok: made.clock } as never)).rejects.toThrow('Did you mean "clock"?');
  });

  it("names runs so that no two meet where case is ignored, and none is a device or climbs out", () => {
    const ids = [
      "a",
      "A",
      "con",
      "CON",
      "com1",
      "..",
      ".",
      "a/b",
      "a\\b",
      "a b",
      "a.",
      "%41",
      "ä",
      "é",
      "e\u0301",
      "x".repeat(300),
    ];
    const names = ids.map(nameOf);
    expect(new Set(names.map((name) => name.toLowerCase())).size).toBe(ids.length);
    for (const name of names) expect(name).toMatch(/^(?!(con|nul|com1)$)[a-z0-9_%=-]{1,255}$/);
  });

  it("can be read by people and their tools", async () => {
    const made = await bench();
    const [run] = await threeRuns(made);
    await made.store.close();
    const row = JSON.parse(readFileSync(made.path(run.runId, "run.json"), "utf8"));
    expect(row.row).toMatchObject({ runId: run.runId, status: "waiting", node: "work", seq: 2 });
    expect(row.look).toMatchObject({
      openWaits: 1,
      waits: [{ waitKey: "go" }],
      openMail: 1,
      mail: [{ id: "m1", kind: "event" }],
    });
    const ledger = readFileSync(made.path(run.runId, "ledger.jsonl"), "utf8").trimEnd().split("\n");
    expect(ledger.map((line) => JSON.parse(line).header.kind)).toEqual(["run_started", "step", "parked"]);
    const { store } = await made.open();
    for (const { seq, header, body } of await store.records(run.runId, 0, 10)) {
      expect(ledger[seq]).toContain(header);
      expect(ledger[seq]).toContain(body);
    }
  });

  it("forgets the past of a mailbox when it is opened, and knows what came", async () => {
    const made = await bench();
    const { world } = made;
    const holder = await world.held();
    for (let i = 0; i < 100; i++) {
      await world.store.deliver([message(holder.runId, { id: `m${i}`, payload: "x".repeat(2_000) })]);
      await world.store.commit([holder.next([goOn(i)], { take: [`m${i}`] })]);
    }
    await world.store.deliver([message(holder.runId, { id: "last" })]);
    const before = { ...(await world.load(holder.runId)), now: 0 };
    const path = made.path(holder.runId, "mailbox.jsonl");
    const { size } = statSync(path);
    await made.after(() => undefined);
    const again = await made.after(() => undefined);
    expect(statSync(path).size).toBeLessThan(size / 4);
    expect({ ...(await again.load(holder.runId)), now: 0 }).toEqual(before);
    const [twice] = await again.store.deliver([message(holder.runId, { id: "m0", payload: "x".repeat(2_000) })]);
    expect(twice).toEqual({ kind: "duplicate", same: true });
  });

  it("forgets what was streamed long ago also while it is open", async () => {
    const made = await bench();
    const { world } = made;
    const { runId } = await world.held();
    await world.store.deliver([message(runId, { id: "kept" })]);
    const chunk = (step: number, offset: number) => {
      const parts = JSON.stringify([{ type: "text", text: `${step}`.padEnd(10_000, "x") }]);
      return { runId, effectId: `${step}`, step, attempt: 1, offset, end: offset + 10_000, parts };
    };
    for (let step = 1; step <= 500; step++) await world.store.appendStream([chunk(step, 0), chunk(step, 10_000)]);
    const path = made.path(runId, "mailbox.jsonl");
    const last = [{ step: 500, effectId: "500", attempt: 1, offset: 0 }];
    const before = await world.store.stream(runId, last);
    const again = await made.after(() => expect(statSync(path).size).toBeLessThan(3_000_000));
    expect(await again.store.stream(runId, last)).toEqual(before);
    expect(before).toEqual([chunk(500, 0), chunk(500, 10_000)]);
    expect((await again.load(runId)).mail.map(({ id }) => id)).toEqual(["kept"]);
  });

  it("may hold what is not the store's", async () => {
    const made = await bench();
    const runs = idsOf(await threeRuns(made));
    const world = await made.after(() => {
      mkdirSync(join(made.directory, "runs", "My Notes"));
      mkdirSync(join(made.directory, "runs", "empty"));
      writeFileSync(join(made.directory, "runs", "README"), "");
      cpSync(join(made.directory, "runs", runs[0] as string), join(made.directory, "runs", "A copy"), { recursive: true });
      cpSync(join(made.directory, "runs", runs[0] as string), join(made.directory, "runs", "copy"), { recursive: true });
    });
    expect(await world.claimable()).toEqual(runs);
    const listed = (await world.store.query({})).runs.map(({ runId, blocked }) => [runId, blocked?.code]);
    // What stands where a run would and cannot be it is told of.
    expect(listed).toEqual([["copy", "RECORD_CORRUPT"], ...runs.toReversed().map((runId) => [runId, undefined])]);
  });

  it("has files of a run whose size follows what is open, not what was (L4)", async () => {
    const made = await bench();
    const { world } = made;
    const holder = await world.held();
    const sizes: number[] = [];
    for (let i = 0; i < 300; i++) {
      await world.store.deliver([message(holder.runId, { id: `m${i}`, payload: "x".repeat(1_000) })]);
      await world.store.commit([holder.next([goOn(i)], { take: [`m${i}`] })]);
      if (i === 9 || i === 299) {
        await made.after(() => undefined);
        await made.world.store.renew(holder.lease.workerId, 60_000);
        Object.assign(world, { store: made.store });
        sizes.push(statSync(made.path(holder.runId, "run.json")).size);
      }
    }
    expect(sizes[1]).toBeLessThan((sizes[0] as number) + 100);
    expect(existsSync(made.path(holder.runId, "mailbox.jsonl"))).toBe(true);
  });
});

function snapshotOf(runId: string, snapshotId: string, name = "a bookmark"): SnapshotRow {
  const about = { workflowId: "w", version: "1", seq: 0, hash: "0".repeat(64), node: "a", status: "running" as const, name };
  return { snapshotId, runId, ...about, tags: [], createdAt: 0, updatedAt: 0 };
}
