/** Artifacts: known by their bytes, kept by runs and pins, forgotten when nobody refers to them. */
import assert from "node:assert/strict";
import { sha256 } from "../../kernel/record.ts";
import type { ArtifactQuery, ArtifactRow } from "../../kernel/artifact-row.ts";
import { type Case, goOn, minute, outcomes, park, refuses, same, stored, type World } from "./world.ts";

const hour = 60 * minute;

export const artifactCases: Record<string, Case> = {
  async "putArtifact: makes an artifact known; what is put again stands as it was, with the tags of both"(world) {
    const { store } = world;
    const first = artifact(world, "a", { tags: { kind: "report", "a\u0000\"'b": "\u2028 \u0000" } });
    same(await store.putArtifact(first, { pinMs: hour }), first);
    await world.clock.advance(10);
    const second = { ...artifact(world, "a", { tags: { kind: "summary", of: "x" } }), contentType: "text/other" };

    const stands = { ...first, tags: { ...first.tags, ...second.tags } };
    same(await store.putArtifact(second, { pinMs: hour }), stands);

    same(await store.artifact(first.id), { ...stands, runIds: [] });
    assert.equal(await store.artifact(sha256("never put")), undefined);
  },

  async "putArtifact: with replace, the new blob takes the place of a damaged one"(world) {
    const { store } = world;
    const first = artifact(world, "a");
    const second = artifact(world, "a");
    await store.putArtifact(first, { pinMs: hour });
    assert.equal((await store.putArtifact(second, { pinMs: hour, replace: true })).blob, second.blob);
    assert.equal((await store.artifact(first.id))?.blob, second.blob);
  },

  async "putArtifact, keepArtifact: for a run, they are kept for as long as the run; RUN_NOT_FOUND leaves nothing"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const [a, b] = [artifact(world, "a"), artifact(world, "b")];
    await refuses(store.putArtifact(a, { pinMs: hour, runId: "nobody" }), "RUN_NOT_FOUND");
    assert.equal(await store.artifact(a.id), undefined);
    await store.putArtifact(a, { pinMs: 0, runId });
    await store.putArtifact(b, { pinMs: 0 });
    await refuses(store.keepArtifact(b.id, { pinMs: hour, runId: "nobody" }), "RUN_NOT_FOUND");
    same(await store.keepArtifact(b.id, { pinMs: 0, runId }), b);
    await world.clock.advance(hour);
    assert.deepEqual(await store.sweepArtifacts(10), []);
    same(await store.artifact(a.id), { ...a, runIds: [runId] });
    same(await store.artifact(b.id), { ...b, runIds: [runId] });
  },

  async "keepArtifact: lengthens a pin and never shortens one; one that is not known stays unknown"(world) {
    const { store, clock } = world;
    const a = artifact(world, "a");
    assert.equal(await store.keepArtifact(a.id, { pinMs: hour }), undefined);
    assert.equal(await store.artifact(a.id), undefined);
    await store.putArtifact(a, { pinMs: 10 });
    same(await store.keepArtifact(a.id, { pinMs: 1_000 }), a);
    await store.keepArtifact(a.id, { pinMs: 5 });
    await store.putArtifact(a, { pinMs: 5 });
    await clock.advance(999);
    assert.deepEqual(await store.sweepArtifacts(10), []);
    await clock.advance(1);
    same(await store.sweepArtifacts(10), [a]);
  },

  async "sweepArtifacts: forgets what no run refers to and no pin keeps, up to the limit, and each is answered once"(world) {
    const { store } = world;
    const rows = ["a", "b", "c", "d"].map((text) => artifact(world, text));
    for (const row of rows) await store.putArtifact(row, { pinMs: row === rows[3] ? hour : 1 });
    await world.clock.advance(1);
    const swept = (await Promise.all([store.sweepArtifacts(1), store.sweepArtifacts(1), store.sweepArtifacts(5)])).flat();
    assert.deepEqual(idsOf(swept).sort(), idsOf(rows.slice(0, 3)).sort());
    same(byId(swept), byId(rows.slice(0, 3)));
    assert.deepEqual(await store.sweepArtifacts(5), []);
    same((await store.artifacts({})).artifacts, rows.slice(3));
  },

  async "sweepArtifacts: with an id, that one, pinned or not, unless a run refers to it"(world) {
    const { store } = world;
    const { runId } = await world.held();
    const [a, b] = [artifact(world, "a"), artifact(world, "b")];
    await store.putArtifact(a, { pinMs: hour });
    await store.putArtifact(b, { pinMs: hour, runId });
    assert.deepEqual(await store.sweepArtifacts(1, b.id), []);
    assert.deepEqual(await store.sweepArtifacts(1, sha256("never put")), []);
    same(await store.sweepArtifacts(1, a.id), [a]);
    assert.deepEqual(await store.sweepArtifacts(1, a.id), []);
  },

  async "sweepArtifacts: what was swept may be put again, with another blob"(world) {
    const { store } = world;
    await store.putArtifact(artifact(world, "a"), { pinMs: 0 });
    await store.sweepArtifacts(1);
    const again = artifact(world, "a");
    same(await store.putArtifact(again, { pinMs: hour }), again);
    same(await store.artifact(again.id), { ...again, runIds: [] });
  },

  async "create: refers to artifacts; one that is not known refuses all runs of the call"(world) {
    const { store } = world;
    const a = artifact(world, "a");
    const [first, second] = [stored(world.newRun()), stored(world.newRun())];
    await refuses(store.create([first, { ...second, artifacts: [a.id] }]), "ARTIFACT_MISSING");
    assert.equal(await store.load(first.row.runId), undefined);
    assert.equal(await store.load(second.row.runId), undefined);
    await store.putArtifact(a, { pinMs: 0 });
    assert.deepEqual(await store.create([first, { ...second, artifacts: [a.id] }]), [true, true]);
    same(await store.artifact(a.id), { ...a, runIds: [second.row.runId] });
    // A run that exists is left as it is.
    assert.deepEqual(await store.create([{ ...first, artifacts: [sha256("never put")] }]), [false]);
  },

  async "commit: refers to artifacts, whose pins may then run out"(world) {
    const { store } = world;
    const holder = await world.held();
    const a = artifact(world, "a");
    await store.putArtifact(a, { pinMs: hour });
    const transition = holder.next([goOn()], { artifacts: [a.id, a.id] });
    await store.commit([transition]);
    await store.commit([transition]);
    await store.commit([holder.next([goOn()], { artifacts: [a.id] })]);
    await world.clock.advance(2 * hour);
    assert.deepEqual(await store.sweepArtifacts(10), []);
    same(await store.artifact(a.id), { ...a, runIds: [holder.runId] });
  },

  async "commit: an artifact that is not known fails it with ARTIFACT_MISSING, and what was sent behind it (S1, S3)"(world) {
    const { store } = world;
    const [holder, other] = [await world.held(), await world.held()];
    const a = artifact(world, "a");
    await store.putArtifact(a, { pinMs: 0 });
    // The pin runs out before the commit.
    await store.sweepArtifacts(1);
    const before = await world.load(holder.runId, { whole: true });
    const twin = holder.twin(holder.lease);
    const child = { ...stored(world.newRun({ parent: { runId: holder.runId, effectId: "1" } })), artifacts: [a.id] };
    const results = await outcomes([
      store.commit([other.next([goOn()])]),
      store.commit([holder.next([goOn()], { artifacts: [a.id] })]),
      store.commit([holder.next([goOn()])]),
      store.commit([other.next([goOn()])]),
    ]);
    assert.deepEqual(results, ["ok", "ARTIFACT_MISSING", "CONFLICT", "ok"]);
    same(await world.load(holder.runId, { whole: true }), before);
    await store.commit([twin.next([goOn()])]);

    const third = await world.held();
    await refuses(store.commit([third.next([goOn()], { start: [child] })]), "ARTIFACT_MISSING");
    assert.equal(await store.load(child.row.runId), undefined);
    assert.equal((await world.load(third.runId)).row.seq, 0);
  },

  async "commit: children refer to artifacts of their own"(world) {
    const { store } = world;
    const holder = await world.held();
    const a = artifact(world, "a");
    await store.putArtifact(a, { pinMs: 0 });
    const child = { ...stored(world.newRun({ parent: { runId: holder.runId, effectId: "1" } })), artifacts: [a.id] };
    await store.commit([holder.next([park({ waitKey: "go" })], { start: [child], release: true })]);
    assert.deepEqual((await store.artifact(a.id))?.runIds, [child.row.runId]);
  },

  async "dropArtifacts: lets go of what one run refers to; what another refers to stays"(world) {
    const { store } = world;
    const [one, two] = [await world.held(), await world.held()];
    const [a, b] = [artifact(world, "a"), artifact(world, "b")];
    for (const row of [a, b]) await store.putArtifact(row, { pinMs: 0, runId: one.runId });
    await store.putArtifact(a, { pinMs: 0, runId: two.runId });
    assert.equal(await store.dropArtifacts(one.runId, sha256("never put")), 0);
    assert.equal(await store.dropArtifacts(one.runId, a.id), 1);
    assert.equal(await store.dropArtifacts(one.runId, a.id), 0);
    assert.equal(await store.dropArtifacts("nobody"), 0);
    await store.putArtifact(a, { pinMs: 0, runId: one.runId });
    assert.equal(await store.dropArtifacts(one.runId), 2);
    same(await store.sweepArtifacts(10), [b]);
    assert.deepEqual((await store.artifact(a.id))?.runIds, [two.runId]);
  },

  async "artifacts: newest first, in pages; by run, by all of the tags, by blob"(world) {
    const { store, clock } = world;
    const { runId } = await world.held();
    const rows: ArtifactRow[] = [];
    for (let i = 0; i < 7; i++) {
      // Some of one moment.
      if (i % 3 === 0) await clock.advance(1);
      const row = artifact(world, `text ${i}`, { tags: { even: String(i % 2 === 0), third: String(i % 3 === 0) } });
      await store.putArtifact(row, i < 4 ? { pinMs: hour, runId } : { pinMs: hour });
      rows.push(row);
    }
    rows.sort((a, b) => b.createdAt - a.createdAt || (a.id < b.id ? 1 : -1));
    const found = async (query: ArtifactQuery): Promise<string[]> => {
      const ids: string[] = [];
      for (let cursor: string | undefined, more = true; more; more = cursor !== undefined) {
        const page = await store.artifacts({ ...query, ...(cursor === undefined ? {} : { cursor }) });
        assert.ok(page.artifacts.length <= (query.limit ?? 100));
        ids.push(...idsOf(page.artifacts));
        cursor = page.next;
      }
      return ids;
    };
    const expected = (keep: (row: ArtifactRow) => boolean): string[] => idsOf(rows.filter(keep));
    same((await store.artifacts({})).artifacts, rows);
    for (const limit of [1, 2, 3, 7, 8]) assert.deepEqual(await found({ limit }), idsOf(rows));
    assert.deepEqual(
      await found({ tags: { even: "true" }, limit: 1 }),
      expected(({ tags }) => tags.even === "true"),
    );
    const both = { even: "true", third: "true" };
    assert.deepEqual(
      await found({ tags: both }),
      expected(({ tags }) => tags.even === "true" && tags.third === "true"),
    );
    assert.deepEqual(await found({ tags: { none: "true" } }), []);
    const held = new Set(["text 0", "text 1", "text 2", "text 3"].map(sha256));
    assert.deepEqual(
      await found({ runId, limit: 2 }),
      expected(({ id }) => held.has(id)),
    );
    assert.deepEqual(await found({ runId: "nobody" }), []);
    const blobs = [rows[1]?.blob ?? "", rows[5]?.blob ?? "", "no such key"];
    assert.deepEqual(
      await found({ blobs, limit: 1 }),
      expected(({ blob }) => blobs.includes(blob)),
    );
    await refuses(store.artifacts({ cursor: "nonsense" }), "INVALID_OPTION");
  },

  async "reopen: artifacts, who refers to them and their pins are there again"(world) {
    const before = world.store;
    const { runId } = await world.held();
    const [a, b] = [artifact(world, "a", { tags: { x: "y" } }), artifact(world, "b")];
    await before.putArtifact(a, { pinMs: 0, runId });
    await before.putArtifact(b, { pinMs: 10 });
    const store = world.reopen ? await world.reopen() : before;
    same(await store.artifact(a.id), { ...a, runIds: [runId] });
    assert.deepEqual(await store.sweepArtifacts(10), []);
    await world.clock.advance(10);
    same(await store.sweepArtifacts(10), [b]);
  },

  async "random puts, commits, drops and sweeps: what a run refers to is never swept, and everything else is"(world) {
    const { store, clock, ids } = world;
    const holders = await Promise.all([world.held(), world.held(), world.held()]);
    const model = new Map<string, { row: ArtifactRow; pinnedUntil: number; runIds: Set<string> }>();
    const pick = <T>(list: readonly T[]): T => list[Math.floor(ids.random() * list.length)] as T;
    for (let i = 0; i < 120; i++) {
      const holder = pick(holders);
      const { runId } = holder;
      const row = artifact(world, pick(["a", "b", "c", "d", "e"]));
      const known = model.get(row.id);
      const action = pick(["put", "put for", "keep", "commit", "drop", "drop all", "sweep", "sweep one", "wait"]);
      if (action === "put" || action === "put for") {
        const entry = known ?? { row, pinnedUntil: 0, runIds: new Set() };
        entry.pinnedUntil = Math.max(entry.pinnedUntil, clock.now() + 10);
        if (action === "put for") entry.runIds.add(runId);
        model.set(row.id, entry);
        same(await store.putArtifact(row, { pinMs: 10, ...(action === "put for" ? { runId } : {}) }), entry.row);
      } else if (action === "keep") {
        if (known) known.pinnedUntil = Math.max(known.pinnedUntil, clock.now() + 5);
        same(await store.keepArtifact(row.id, { pinMs: 5 }), known?.row);
      } else if (action === "commit") {
        const who = known ? holder : holder.twin(holder.lease);
        const committed = store.commit([who.next([goOn()], { artifacts: [row.id] })]);
        known?.runIds.add(runId);
        assert.deepEqual(await outcomes([committed]), [known ? "ok" : "ARTIFACT_MISSING"]);
      } else if (action === "drop") {
        assert.equal(await store.dropArtifacts(runId, row.id), known?.runIds.delete(runId) ? 1 : 0);
      } else if (action === "drop all") {
        const dropped = [...model.values()].filter(({ runIds }) => runIds.delete(runId));
        assert.equal(await store.dropArtifacts(runId), dropped.length);
      } else if (action === "wait") {
        await clock.advance(4);
      } else {
        const isLapsed = ({ pinnedUntil }: { pinnedUntil: number }): boolean =>
          action === "sweep one" || pinnedUntil <= clock.now();
        const wanted = action === "sweep" ? [...model.values()] : known ? [known] : [];
        const gone = wanted.filter((entry) => entry.runIds.size === 0 && isLapsed(entry)).map((entry) => entry.row);
        for (const { id } of gone) model.delete(id);
        const swept = await (action === "sweep" ? store.sweepArtifacts(10) : store.sweepArtifacts(1, row.id));
        same(byId(swept), byId(gone));
      }
    }
    const all = await store.artifacts({});
    same(byId(all.artifacts), byId([...model.values()].map(({ row }) => row)));
    for (const [id, { runIds }] of model) assert.deepEqual((await store.artifact(id))?.runIds.sort(), [...runIds].sort());
  },
};

function artifact(world: World, text: string, { tags = {} }: { tags?: Record<string, string> } = {}): ArtifactRow {
  return {
    id: sha256(text),
    sizeBytes: Buffer.byteLength(text),
    contentType: "text/plain",
    tags,
    createdAt: world.clock.now(),
    blob: world.ids.id(),
  };
}

function idsOf(artifacts: readonly ArtifactRow[]): string[] {
  return artifacts.map(({ id }) => id);
}

function byId(artifacts: readonly ArtifactRow[]): ArtifactRow[] {
  return [...artifacts].sort((a, b) => (a.id < b.id ? -1 : 1));
}
