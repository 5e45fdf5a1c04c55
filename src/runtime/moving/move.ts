/**
 * Moving runs from one store to another, in mid-flight.
 *
 * V1. One owner at each moment: the source until it says `left`, which is one commit there, and the target from then on. Between the
 *     two nobody drives the run; what is sent to it is refused with RUN_MOVED, so that its sender tries again.
 * V2. Every step may be made again: whatever was cut off, the same call completes it. The token of a move stands in both stores. One
 *     that was taken back at the source is never used there again: what the target still has of it is nobody's.
 * V3. A tree (a run and all that it started, directly or through others) is moved as a whole, by one token.
 * V4. Before the source says `left`, the run at the target has been rebuilt from its ledger and compared with what came of it.
 */
import { openArtifact } from "../../artifacts/open.ts";
import { type Ids, systemIds } from "../../kernel/clock.ts";
import { AbstractRuntimeError, checkOptions, isError, invalidOption } from "../../kernel/errors.ts";
import { openWaits } from "../../kernel/run.ts";
import type { BlobStore } from "../../kernel/artifact-row.ts";
import type { ListedRun } from "../../kernel/query.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import type { Store } from "../../kernel/store.ts";
import { ArtifactArrival, checkArrived, runsOfTree, isOutage, recordsOf, rootOf, saveSnapshots, snapshotsOf } from "./carry.ts";
import { loadRun, missing, stateOf } from "../read.ts";
import { rowOf } from "../runs-of.ts";

export interface MoveOptions {
  /** Where the artifacts of each side have their bytes, if not in the stores. */
  blobs?: { from?: BlobStore; to?: BlobStore };
  /** Removes what has left from the source. Default: it stays there, driven and reached by nobody, until it is purged. */
  purge?: boolean;
  ids?: Ids;
}

export interface Moved {
  /** Of the trees named, parents before their children. */
  runIds: string[];
  records: number;
  artifacts: number;
}

interface Sides {
  from: Store;
  to: Store;
  options: MoveOptions;
}

/** A tree that is to be moved. */
interface Way {
  rootId: string;
  token: string;
  /** The token is one of a move that stands already. */
  isBegun: boolean;
}

/**
 * Moves whole trees of runs, live or ended, with ledgers, mailboxes, artifacts and snapshots. A worker that drives one of them
 * loses it at its next commit; an effect that was under way is then uncertain at the target, with the same idempotency key.
 *
 * A second call completes one that was cut off, and does nothing for what has arrived.
 *
 * @param runIds First runs of trees: what a run started goes with it.
 * @throws RUN_NOT_FOUND, RUN_PURGED, RUN_EXISTS (at the target), MOVE_REFUSED, RUN_MOVED (to a third store), ARTIFACT_MISSING,
 *   ARTIFACT_CORRUPT: the run then stays where it is. What a store rejects with: the move is cut off, and the same call completes it.
 */
export async function moveRuns(from: Store, to: Store, runIds: readonly string[], options: MoveOptions = {}): Promise<Moved> {
  const sides = sidesOf(from, to, options, "moveRuns()");
  const moved: Moved = { runIds: [], records: 0, artifacts: 0 };
  for (const way of await treesOf(sides, runIds)) {
    const tree = await moveTree(sides, way);
    moved.runIds.push(...tree.runIds);
    moved.records += tree.records;
    moved.artifacts += tree.artifacts;
  }
  return moved;
}

/**
 * Takes back a move that was cut off: the runs go on where they were. Answers their ids.
 *
 * @param to Undefined: an export to a file or an import of one. A file that was completed must then not be imported any more.
 * @throws MOVE_REFUSED when they have left already: the move can only be completed.
 */
export async function undoMove(
  from: Store,
  to: Store | undefined,
  runIds: readonly string[],
  options: MoveOptions = {},
): Promise<string[]> {
  if (!to) return undoFile(from, runIds);
  const sides = sidesOf(from, to, options, "undoMove()");
  const back: string[] = [];
  for (const { rootId, token } of await treesOf(sides, runIds)) back.push(...(await takeBack(sides, rootId, token)));
  return back;
}

async function undoFile(store: Store, runIds: readonly string[]): Promise<string[]> {
  const back: string[] = [];
  for (const runId of new Set(runIds)) {
    const run = await rowOf(store, runId);
    if (!run) throw await missing(store, runId);
    const { moving } = run;
    if (!moving) continue;
    const problem =
      moving.phase === "left"
        ? `it has left for ${moving.to}, and cannot be taken back`
        : `it is on its way ${moving.phase === "leaving" ? "to" : "here from"} ${moving.to}: name that store too`;
    if (moving.phase === "left" || !moving.to.startsWith("file:"))
      throw new AbstractRuntimeError("MOVE_REFUSED", { runId, problem });
    back.push(...(await store.settle(moving.token, "back")));
  }
  return back;
}

function sidesOf(from: Store, to: Store, options: MoveOptions, where: string): Sides {
  checkOptions(options, ["blobs", "purge", "ids"], where);
  if (from === to) throw invalidOption("to", "a run is moved from one store to another");
  return { from, to, options };
}

/** The trees named, and the tokens of their moves: known ones, or new ones. */
async function treesOf({ from, to, options }: Sides, runIds: readonly string[]): Promise<Way[]> {
  const named = new Set(runIds);
  const ways = new Map<string, Way>();
  for (const runId of named) {
    const run = await rowOf(from, runId);
    const root = run && (await rootOf(from, run));
    if (root && !named.has(root.runId))
      throw new AbstractRuntimeError("MOVE_REFUSED", {
        runId,
        problem: `it was started by run ${root.runId}, directly or through others: name that one, and all that it started is moved`,
      });
    const rootId = root?.runId ?? runId;
    const there = await rowOf(to, rootId);
    const arriving = there?.moving?.phase === "arriving" && there.moving.to === from.name ? there.moving.token : undefined;
    // Read behind the target: what arrives there under a token that does not stand here now was taken back here.
    const here = await rowOf(from, rootId);
    if (here && arriving !== undefined && here.moving?.token !== arriving) await to.settle(arriving, "back");
    // What arrives here is the other store's to decide on, and not this move's.
    const begun = here ? here.moving?.phase !== "arriving" && here.moving?.token : arriving;
    ways.set(rootId, { rootId, token: begun || (options.ids ?? systemIds).id(), isBegun: Boolean(begun) });
  }
  return [...ways.values()];
}

async function moveTree(sides: Sides, way: Way): Promise<Moved> {
  const { from, to, options } = sides;
  const { rootId, token } = way;
  const here = await rowOf(from, rootId);
  const hasLeft = here ? here.moving?.phase === "left" : true;
  const left = here ?? (await from.tombstone(rootId));
  if (!left) throw await missing(from, rootId);
  const arriving = (await to.moves()).find((move) => move.token === token)?.runIds;
  let moved: Moved = { runIds: arriving ?? [], records: 0, artifacts: 0 };
  if (here && (!hasLeft || arriving || (await isUnknown(to, rootId)))) {
    if (here.moving && here.moving.to !== to.name) throw elsewhere(here);
    moved = await bring(sides, way);
  } else if (!arriving && !(await hasArrived(to, left))) throw here ? elsewhere(here) : await missing(from, rootId);
  for (const runId of moved.runIds) await saveSnapshots(to, await snapshotsOf(from, runId));
  await to.settle(token, "here");
  if (moved.runIds.length > 0 && !(await hasArrived(to, left)))
    throw refused(rootId, `it is not at ${to.name}, where somebody has removed it meanwhile: make the same call again`);
  if (options.purge) await purgeLeft(from, rootId);
  return moved;
}

/** Whether a store has neither the run nor what is left of it: somebody has removed what arrived, or an older copy of the store is used. */
async function isUnknown(to: Store, runId: string): Promise<boolean> {
  return (await rowOf(to, runId)) === undefined && (await to.tombstone(runId)) === undefined;
}

/** Whether a run has been at the target, and is the one that left. */
async function hasArrived(to: Store, { runId, seq, head }: Pick<ListedRun, "runId" | "seq" | "head">): Promise<boolean> {
  const there = await rowOf(to, runId);
  if (!there || there.moving?.phase === "arriving") return false;
  if (there.seq === seq) return there.head === head;
  try {
    return (await to.records(runId, seq, 1))[0]?.hash === head;
  } catch (error) {
    if (isError(error, "RECORDS_ARCHIVED")) return true;
    throw error;
  }
}

function elsewhere({ runId, moving }: ListedRun): AbstractRuntimeError<"RUN_MOVED"> {
  const { to, phase } = moving as NonNullable<ListedRun["moving"]>;
  return new AbstractRuntimeError("RUN_MOVED", { runId, to, phase });
}

function refused(runId: string, problem: string): AbstractRuntimeError<"MOVE_REFUSED"> {
  return new AbstractRuntimeError("MOVE_REFUSED", { runId, problem });
}

/** Everything up to the moment from which on the run is the target's. */
async function bring(sides: Sides, { rootId, token, isBegun }: Way): Promise<Moved> {
  const { from, to } = sides;
  const runIds = isBegun ? await fenced(sides, rootId, token) : await fence(sides, rootId, token);
  const moved: Moved = { runIds, records: 0, artifacts: 0 };
  try {
    const copies: RunCopy[] = [];
    for (const runId of runIds) {
      const { copy, records, artifacts } = await carry(sides, runId, token);
      copies.push(copy);
      moved.records += records;
      moved.artifacts += artifacts;
    }
    for (const copy of copies) await checkArrived(to, copy);
    await from.settle(token, "left");
  } catch (error) {
    // A store that cannot be reached may have done what it was asked for: that is found out when it can be.
    if (!isOutage(error)) await takeBack(sides, rootId, token);
    throw error;
  }
  const { moving } = (await rowOf(from, rootId)) ?? {};
  if (moving?.phase === "left" && moving.token === token) return moved;
  await to.settle(token, "back");
  throw refused(rootId, takenBack);
}

const takenBack = "somebody took the move back meanwhile";

/** A tree that was fenced before. Were it fenced again, a move that is being taken back would live again. */
async function fenced({ from }: Sides, rootId: string, token: string): Promise<string[]> {
  const tree = await runsOfTree(from, rootId);
  for (const { runId, moving } of tree) if (moving?.token !== token) throw refused(runId, takenBack);
  return tree.map(({ runId }) => runId);
}

/** Fences a tree, whatever it starts meanwhile. */
async function fence({ from, to }: Sides, rootId: string, token: string): Promise<string[]> {
  for (let tries = 1; ; tries++) {
    const runIds = (await runsOfTree(from, rootId)).map(({ runId }) => runId);
    const { refused } = await from.fence(runIds, { token, to: to.name });
    if (refused.length === 0) return runIds;
    const obstacle = refused.find(({ runId }) => runIds.includes(runId)) ?? (tries >= mostTries ? refused[0] : undefined);
    if (obstacle) throw new AbstractRuntimeError("MOVE_REFUSED", obstacle);
  }
}

/** A tree that starts children faster than they are found is not moved. */
const mostTries = 100;

async function carry(
  { from, to, options: { blobs = {}, ids } }: Sides,
  runId: string,
  token: string,
): Promise<{ copy: RunCopy; records: number; artifacts: number }> {
  const found = await from.copyOf(runId);
  if (!found) throw await missing(from, runId);
  const copy = await withWaits(from, found);
  const arrival = new ArtifactArrival({ store: to, ...(blobs.to ? { blobs: blobs.to } : {}) }, ids);
  let artifacts = 0;
  for (const id of copy.artifacts) {
    const artifact = await from.artifact(id);
    if (await arrival.has(artifact ?? { id, tags: {} })) continue;
    if (!artifact) throw new AbstractRuntimeError("ARTIFACT_MISSING", { artifactId: id, runId });
    await arrival.put(artifact, openArtifact(blobs.from ?? from.blobs, artifact).stream());
    artifacts += 1;
  }
  await to.adopt(copy, { token, to: from.name });
  let records = 0;
  for await (const page of recordsOf(from, copy)) {
    await to.adoptRecords(runId, token, page);
    records += page.length;
  }
  return { copy, records, artifacts };
}

/** A run that has left waits for nothing at the source any more; its state still says what for. */
async function withWaits(from: Store, copy: RunCopy): Promise<RunCopy> {
  const { runId } = copy.row;
  if ((await rowOf(from, runId))?.moving?.phase !== "left") return copy;
  return { ...copy, waits: openWaits(await stateOf(from, await loadRun(from, runId))) };
}

async function takeBack({ from, to }: Sides, rootId: string, token: string): Promise<string[]> {
  const back = await from.settle(token, "back");
  const here = await rowOf(from, rootId);
  // What has left is the target's, and would be nobody's if it were removed there.
  const { moving } = here ?? {};
  if (!here || moving?.token === token || moving?.phase === "arriving") {
    const problem = moving?.phase === "left" ? `it has left for ${moving.to}` : `${from.name} is not where it is`;
    throw new AbstractRuntimeError("MOVE_REFUSED", { runId: rootId, problem: `${problem}, and cannot be taken back` });
  }
  await to.settle(token, "back");
  return back;
}

async function purgeLeft(from: Store, rootId: string): Promise<void> {
  const left = (await runsOfTree(from, rootId)).filter(({ moving }) => moving?.phase === "left");
  await from.purge(left.map(({ runId }) => runId));
}
