/**
 * What stands first in the lanes that a worker knows. Each lane is a range of one index, in the order in which its runs are due:
 * the cost is that of the lanes and of what is found, not of what waits elsewhere, is blocked, or has no slot.
 */
import type { Capability } from "../../kernel/transition.ts";
import { type SlotCounts, Slots } from "../slots.ts";
import type { Lane, Lanes } from "./lanes.ts";
import type { Reader } from "./read.ts";

export interface Due {
  run: number;
  runId: string;
  queueKey: string | undefined;
  wakeAt: number;
  lane: Lane;
}

/** Those that are free and may be driven; the text that the partial indexes have. */
const free = "wake_at IS NOT NULL AND worker_id IS NULL AND blocked IS NULL";
/** So many runs whose keys have no slot are passed over one by one; then it is cheaper to ask each key. */
const mostPassed = 256;

/**
 * Runs that are due, at most `limit`: higher priorities first, then those due longest, then in the order of their creation. What
 * they take is taken from `slots`.
 */
export function dueRuns(lanes: readonly Lane[], reader: Reader, slots: Slots, now: number, limit: number): Due[] {
  const due: Due[] = [];
  const open = (lane: Lane): boolean => slots.isOpen(lane.queue ?? undefined, beginsIn(lane));
  for (const priority of [...new Set(lanes.map((lane) => lane.priority))].sort((a, b) => b - a)) {
    if (due.length === limit) break;
    let heads = lanes
      .filter((lane) => lane.priority === priority && open(lane))
      .map((lane) => new LaneHead(lane, reader, slots, now, limit));
    while (due.length < limit) {
      heads = heads.filter((head) => open(head.lane) && head.peek());
      const [first, ...others] = heads;
      if (!first) break;
      const next = others.reduce(
        (earliest, head) => (isBefore(head.peek() as Due, earliest.peek() as Due) ? head : earliest),
        first,
      );
      const one = next.take();
      slots.take(one.lane.queue ?? undefined, one.queueKey, beginsIn(one.lane));
      due.push(one);
    }
  }
  return due;
}

/** When the first run is due in any of these lanes that would then be given; undefined when there is none. */
export function firstDue(lanes: readonly Lane[], reader: Reader, slots: Slots, now: number): number | undefined {
  let first: number | undefined;
  for (const lane of lanes) {
    const opensAt = slots.opensAt(lane.queue ?? undefined, beginsIn(lane));
    if (opensAt === undefined) continue;
    const head = new LaneHead(lane, reader, slots, Number.MAX_SAFE_INTEGER, 1).peek();
    if (!head) continue;
    const at = opensAt > now ? Math.max(head.wakeAt, opensAt) : head.wakeAt;
    if (first === undefined || at < first) first = at;
  }
  return first;
}

/** Whether a run of one of these queues is due, with a slot or not. */
export function isAwaited(queues: ReadonlySet<string>, lanes: Lanes, reader: Reader, now: number): boolean {
  const sql = `SELECT 1 FROM runs INDEXED BY runs_due WHERE lane = ? AND wake_at <= ? AND ${free} LIMIT 1`;
  const ofQueues = lanes.all().filter(({ queue }) => queue !== null && queues.has(queue));
  return ofQueues.some(({ lane }) => reader.prepare(sql).get(lane, now) !== undefined);
}

export function slotsFor(worker: Capability, reader: Reader, now: number): Slots {
  return new Slots(worker, new IndexedCounts(reader), now);
}

/** Whether the runs of a lane were never claimed. Of those without a queue nobody asks. */
export function beginsIn({ begun }: Lane): boolean {
  return !begun;
}

function isBefore(a: Due, b: Due): boolean {
  return a.wakeAt < b.wakeAt || (a.wakeAt === b.wakeAt && a.run < b.run);
}

/** The runs of one lane that are due at `until`, in order, but for those whose key has no slot. */
class LaneHead {
  readonly lane: Lane;
  readonly #reader: Reader;
  readonly #slots: Slots;
  readonly #until: number;
  readonly #most: number;
  /** What was read and not yet taken or passed over, from `#next` on. */
  #read: Due[] = [];
  #next = 0;
  #isWhole = false;
  /** Runs read before: those behind them are read next. */
  #offset = 0;
  #passed = 0;
  readonly #taken = new Set<number>();

  /** @param most How many will be taken at most. */
  constructor(lane: Lane, reader: Reader, slots: Slots, until: number, most: number) {
    this.lane = lane;
    this.#reader = reader;
    this.#slots = slots;
    this.#until = until;
    this.#most = most;
  }

  peek(): Due | undefined {
    for (;;) {
      const due = this.#read[this.#next];
      if (due && this.#slots.hasSlot(this.lane.queue ?? undefined, due.queueKey)) return due;
      if (due) {
        this.#next += 1;
        this.#passed += 1;
      } else if (this.#isWhole) return undefined;
      else if (this.#passed < mostPassed) this.#readOn();
      else this.#readByKey();
    }
  }

  take(): Due {
    const due = this.peek() as Due;
    this.#next += 1;
    this.#taken.add(due.run);
    return due;
  }

  /** One at first, since most heads are only looked at; then more and more. */
  #readOn(): void {
    const limit = this.#offset === 0 ? 1 : Math.max(16, Math.min(this.#offset * 8, this.#most));
    const sql = `SELECT run, run_id, queue_key, wake_at FROM runs INDEXED BY runs_due
      WHERE lane = ? AND wake_at <= ? AND ${free} ORDER BY wake_at, run LIMIT ? OFFSET ?`;
    const rows = this.#reader.prepareArrays(sql).all(this.lane.lane, this.#until, limit, this.#offset);
    this.#read = rows.map((row) => this.#due(row));
    this.#next = 0;
    this.#offset += rows.length;
    this.#isWhole = rows.length < limit;
  }

  /** All that is left of the lane and may still be taken: of each key as many runs as it has slots. */
  #readByKey(): void {
    const { lane, queue } = this.lane;
    const least = (behind: string): string =>
      `(SELECT min(queue_key) FROM runs INDEXED BY runs_due_keys WHERE lane = ?1 AND queue IS NOT NULL AND ${free} ${behind})`;
    // Each key is found behind the one before it, without a look at the runs in between.
    const keys = `WITH RECURSIVE keys (key) AS (
        SELECT ${least("")} UNION ALL SELECT ${least("AND queue_key > keys.key")} FROM keys WHERE key IS NOT NULL
      ) SELECT key FROM keys`;
    const ofKey = `SELECT run, run_id, queue_key, wake_at FROM runs INDEXED BY runs_due_keys
      WHERE lane = ? AND queue_key IS ? AND wake_at <= ? AND queue IS NOT NULL AND ${free} ORDER BY wake_at, run LIMIT ?`;
    const left: Due[] = [];
    for (const [key] of this.#reader.prepareArrays(keys).all(lane) as unknown as [string | null][]) {
      // The row of no key ends the list of keys; it stands for the runs that have none.
      const slots = Math.min(this.#slots.freeOf(queue ?? undefined, key ?? undefined), this.#most);
      if (slots < 1) continue;
      const rows = this.#reader.prepareArrays(ofKey).all(lane, key, this.#until, slots + this.#taken.size);
      left.push(...rows.map((row) => this.#due(row)).filter(({ run }) => !this.#taken.has(run)));
    }
    this.#read = left.sort((a, b) => (isBefore(a, b) ? -1 : 1));
    this.#next = 0;
    this.#isWhole = true;
  }

  #due(row: unknown): Due {
    const [run, runId, queueKey, wakeAt] = row as [number, string, string | null, number];
    return { run, runId, queueKey: queueKey ?? undefined, wakeAt, lane: this.lane };
  }
}

class IndexedCounts implements SlotCounts {
  readonly #reader: Reader;

  constructor(reader: Reader) {
    this.#reader = reader;
  }

  held(queue: string): number {
    const sql =
      "SELECT count(*) AS n FROM runs INDEXED BY runs_slots WHERE queue = ? AND queue IS NOT NULL AND worker_id IS NOT NULL";
    return this.#reader.prepare(sql).get(queue)?.n as number;
  }

  heldOf(queue: string, queueKey: string): number {
    const sql = `SELECT count(*) AS n FROM runs INDEXED BY runs_slots
      WHERE queue = ? AND queue_key = ? AND queue IS NOT NULL AND worker_id IS NOT NULL`;
    return this.#reader.prepare(sql).get(queue, queueKey)?.n as number;
  }

  begunAfter(queue: string, moment: number): number {
    return this.#reader.prepare("SELECT count(*) AS n FROM begins WHERE queue = ? AND at > ?").get(queue, moment)?.n as number;
  }

  nthLastBegin(queue: string, n: number): number | undefined {
    const sql = "SELECT at FROM begins WHERE queue = ? ORDER BY at DESC, run DESC LIMIT 1 OFFSET ?";
    return this.#reader.prepare(sql).get(queue, n - 1)?.at as number | undefined;
  }
}
