/**
 * Removing what has ended: by age, status, tags and workflow, a tree as a whole, and never a live run. What is left of each run is a
 * tombstone, which keeps its id taken and says what its last record was.
 */
import { childKey } from "../../kernel/child-id.ts";
import { checkOptions, invalidOption } from "../../kernel/errors.ts";
import { readMoment } from "../../kernel/moment.ts";
import { isEnded, type RunStatus } from "../../kernel/run.ts";
import type { ListedRun } from "../../kernel/query.ts";
import type { Store } from "../../kernel/store.ts";
import { runsOfTree, type Place } from "./carry.ts";
import { entriesOf } from "./export-runs.ts";
import type { Ids } from "../../kernel/clock.ts";
import { checkNumber } from "../options.ts";
import { writePortable } from "./portable.ts";
import { runsOf } from "../runs-of.ts";
import { scheduleWorkflowId } from "../schedules/workflow.ts";
import { rowOf } from "../runs-of.ts";

/** Which runs: all conditions hold for the first run of a tree, and its age for every other one too. */
export interface PurgeQuery {
  /** Ended so long ago. */
  olderThanMs?: number;
  /** Ended before this moment: a Date, ISO text or milliseconds since 1970. */
  endedBefore?: Date | string | number;
  /** Default: every status of an end. */
  status?: EndStatus | readonly EndStatus[];
  /** All of these. */
  tags?: readonly string[];
  workflowId?: string;
  /** These alone. */
  runIds?: readonly string[];
  /** Runs that have left for another store, whatever their status there; nothing else. */
  left?: boolean;
  /** Tells what would be done, and does nothing. */
  dryRun?: boolean;
}

type EndStatus = Extract<RunStatus, "completed" | "failed" | "cancelled">;

export interface Purged {
  /** Runs that were removed, or would be. */
  runs: number;
  trees: number;
  /** Trees that fit and stayed, since a run of theirs is live, or has ended later. */
  kept: number;
  /** First runs of trees that were removed, at most 1,000 of them. */
  runIds: string[];
  /** The file that they were written to. */
  file?: string;
  dryRun: boolean;
}

const queryNames = ["olderThanMs", "endedBefore", "status", "tags", "workflowId", "runIds", "left", "dryRun"];
const ends: readonly EndStatus[] = ["completed", "failed", "cancelled"];
const mostNamed = 1_000;

/** @throws INVALID_OPTION */
export async function purgeRuns(store: Store, query: PurgeQuery, now: number, note?: string): Promise<Purged> {
  const wanted = readQuery(query, now, "purge()");
  const purged = none(wanted.dryRun);
  const going = new Going(store, purged, note);
  for await (const tree of treesTo(store, wanted, purged)) await going.add(idsOf(tree));
  await going.end();
  return purged;
}

/**
 * Writes the runs to a file, and removes them when it is complete and on the disk. One that was tried again meanwhile stays.
 *
 * @throws INVALID_OPTION (the file exists), ARTIFACT_MISSING, ARTIFACT_CORRUPT: nothing is removed then.
 */
export async function archiveRuns(place: Place, query: PurgeQuery & { to: string }, now: number, ids: Ids): Promise<Purged> {
  const { to: file, ...rest } = query;
  if (typeof file !== "string" || file === "") throw invalidOption("to", "to names the file that the runs are written to");
  if (rest.left) throw invalidOption("left", "what has left lives in the other store: archive it there, and purge it here");
  const { store } = place;
  const wanted = readQuery(rest, now, "archive()");
  const purged = none(wanted.dryRun);
  const found: ListedRun[][] = [];
  for await (const tree of treesTo(store, wanted, purged)) {
    // A copy of one that lives elsewhere would keep the whole file from being imported.
    if (tree.some(({ moving }) => moving)) purged.kept += 1;
    else found.push(tree);
  }
  if (wanted.dryRun || found.length === 0) {
    for (const tree of found) count(purged, idsOf(tree));
    return purged;
  }
  const written: ListedRun[][] = [];
  const entries = entriesOf(place, endedOf(store, found, written), { records: 0, artifacts: 0 }, headsOf(found.flat()));
  await writePortable(file, { id: ids.id(), kind: "copy", from: store.name }, entries);
  purged.kept += found.length - written.length;
  // What has lived on since it was written stays.
  const going = new Going(store, purged, `archived in ${file}`, headsOf(written.flat()));
  for (const tree of written) await going.add(idsOf(tree));
  await going.end();
  return { ...purged, file };
}

/** The runs of trees that are as they were found: of one that lives again, a copy would keep the whole file from being imported. */
async function* endedOf(store: Store, found: readonly ListedRun[][], written: ListedRun[][]): AsyncGenerator<string> {
  for (const tree of found) {
    if (!(await hasStayed(store, tree))) continue;
    written.push(tree);
    for (const { runId } of tree) yield runId;
  }
}

async function hasStayed(store: Store, tree: readonly ListedRun[]): Promise<boolean> {
  for (const { runId, head } of tree) {
    const run = await rowOf(store, runId);
    if (run?.head !== head || run.moving || !hasEnded(run)) return false;
  }
  return true;
}

function headsOf(runs: readonly ListedRun[]): Map<string, string> {
  return new Map(runs.map(({ runId, head }) => [runId, head]));
}

/** So many runs are removed by one call. */
const atOnce = 200;

/** Trees on their way out: many by one call, which costs what one does. */
class Going {
  readonly #store: Store;
  readonly #purged: Purged;
  readonly #note: string | undefined;
  readonly #heads: ReadonlyMap<string, string> | undefined;
  #trees: string[][] = [];
  #runs = 0;

  /** @param heads The last records of the runs: one that has another by now stays. */
  constructor(store: Store, purged: Purged, note?: string, heads?: ReadonlyMap<string, string>) {
    this.#store = store;
    this.#purged = purged;
    this.#note = note;
    this.#heads = heads;
  }

  async add(tree: string[]): Promise<void> {
    if (this.#purged.dryRun) return count(this.#purged, tree);
    this.#trees.push(tree);
    this.#runs += tree.length;
    if (this.#runs >= atOnce) await this.end();
  }

  async end(): Promise<void> {
    const trees = this.#trees;
    this.#trees = [];
    this.#runs = 0;
    if (trees.length === 0 || (await this.#remove(trees))) return;
    // One of them lives again: the others go all the same.
    for (const tree of trees) if (!(await this.#remove([tree]))) this.#purged.kept += 1;
  }

  async #remove(trees: readonly string[][]): Promise<boolean> {
    const { live, purged } = await this.#store.purge(trees.flat(), this.#note, this.#heads);
    if (live.length > 0) return false;
    const gone = new Set(purged);
    for (const tree of trees)
      count(
        this.#purged,
        tree.filter((runId) => gone.has(runId)),
      );
    return true;
  }
}

function idsOf(runs: readonly ListedRun[]): string[] {
  return runs.map(({ runId }) => runId);
}

function none(dryRun: boolean): Purged {
  return { runs: 0, trees: 0, kept: 0, runIds: [], dryRun };
}

function count(purged: Purged, tree: readonly string[]): void {
  const [rootId] = tree;
  if (rootId === undefined) return;
  purged.trees += 1;
  purged.runs += tree.length;
  if (purged.runIds.length < mostNamed) purged.runIds.push(rootId);
}

interface Wanted extends Pick<PurgeQuery, "tags" | "workflowId" | "runIds"> {
  statuses: readonly EndStatus[];
  /** Ended before. */
  before: number;
  left: boolean;
  dryRun: boolean;
}

function readQuery(query: PurgeQuery, now: number, where: string): Wanted {
  checkOptions(query, queryNames, where);
  const { olderThanMs, endedBefore, status = ends, tags, workflowId, runIds, left = false, dryRun = false } = query;
  const refuse = (option: string, problem: string): never => {
    throw invalidOption(option, problem);
  };
  checkNumber("olderThanMs", olderThanMs, 0);
  const moment = endedBefore === undefined ? Number.POSITIVE_INFINITY : readMoment(endedBefore);
  if (typeof moment !== "number") return refuse("endedBefore", `endedBefore: ${moment}`);
  const statuses = [status].flat();
  for (const one of statuses)
    if (!ends.includes(one))
      refuse("status", `status is one of ${ends.join(", ")}, not "${String(one)}": live runs are not removed`);
  // A call without a condition is more likely a slip than a wish.
  if (
    [olderThanMs, endedBefore, tags, workflowId, runIds].every((one) => one === undefined) &&
    query.status === undefined &&
    !left
  )
    refuse(where, `${where} needs to be told which runs: by age, status, tags, workflow or id`);
  return {
    statuses,
    before: Math.min(moment, olderThanMs === undefined ? Number.POSITIVE_INFINITY : now - olderThanMs),
    left,
    dryRun,
    ...(tags === undefined ? {} : { tags }),
    ...(workflowId === undefined ? {} : { workflowId }),
    ...(runIds === undefined ? {} : { runIds }),
  };
}

/** Trees of which every run may go. Others that fit are counted as kept. */
async function* treesTo(store: Store, wanted: Wanted, purged: Purged): AsyncGenerator<ListedRun[]> {
  const mayGo = (run: ListedRun): boolean =>
    run.moving ? run.moving.phase === "left" : !wanted.left && hasEnded(run) && run.updatedAt < wanted.before;
  for await (const run of candidates(store, wanted)) {
    // Others of a tree go with its first run, and may have gone with it since the page was read.
    const isFirst = !(await hasParent(store, run));
    const tree = isFirst ? await runsOfTree(store, run.runId) : [];
    if (tree.length > 0 && tree.every(mayGo)) yield tree;
    else if (isFirst ? tree.length > 0 : wanted.runIds) purged.kept += 1;
  }
}

/** Whether the run that started it is here; for one that is here, whether that one has not left. A run of a schedule goes by itself. */
async function hasParent(store: Store, { runId, parentRunId, moving }: ListedRun): Promise<boolean> {
  const parent = parentRunId === undefined ? undefined : await rowOf(store, parentRunId);
  if (!parent || (!moving && parent.moving?.phase === "left")) return false;
  // It lives for years, and looks at none of them but the one that it waits for, which it may be about to do when it does not rest.
  const isSchedule = !moving && parent.workflowId === scheduleWorkflowId && !isEnded(parent);
  return !(isSchedule && parent.status === "waiting" && parent.waits.every(({ waitKey }) => waitKey !== childKey(runId)));
}

function hasEnded(run: ListedRun): boolean {
  return isEnded(run) && run.holder === undefined && !(run.status === "failed" && run.wakeAt !== null);
}

async function* candidates(
  store: Store,
  { statuses, before, tags, workflowId, runIds, left }: Wanted,
): AsyncGenerator<ListedRun> {
  const fits = (run: ListedRun): boolean =>
    left
      ? run.moving?.phase === "left"
      : run.moving === undefined && (statuses as readonly RunStatus[]).includes(run.status) && run.updatedAt < before;
  const query = { ...(tags ? { tags } : {}), ...(workflowId === undefined ? {} : { workflowId }), order: "oldest" as const };
  if (!runIds) {
    const ended = left ? {} : { status: statuses, ...(Number.isFinite(before) ? { updatedBefore: before } : {}) };
    for await (const run of runsOf(store, { ...query, ...ended })) if (fits(run)) yield run;
    return;
  }
  for (const runId of new Set(runIds)) {
    const run = await rowOf(store, runId);
    const hasTags = run && (tags ?? []).every((tag) => run.tags?.includes(tag));
    if (run && hasTags && (workflowId === undefined || run.workflowId === workflowId)) yield run;
  }
}
