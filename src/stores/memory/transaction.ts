/** Everything the store writes. Each method is one synchronous piece of code: nobody sees half of it. See M1 to M3 in `index.ts`. */
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { cloneJson } from "../../kernel/json.ts";
import { isEnded } from "../../kernel/run.ts";
import {
  type Blocked,
  type Capability,
  checkpointsToDrop,
  type CounterChange,
  countsTowardsLimit,
  type Delivery,
  type Lease,
  type Mail,
  type Message,
  messageDigest,
  type NewRun,
  type Transition,
} from "../../kernel/store.ts";
import { type Contents, copyRow, knows, mailBehind, type Run, yieldsTo } from "./contents.ts";

export class Transaction {
  readonly #contents: Contents;
  readonly #clock: Clock;
  /** The leases whose commits failed in this turn: what was sent behind such a commit fails too (S3). */
  readonly #broken = new Set<string>();

  constructor(contents: Contents, clock: Clock) {
    this.#contents = contents;
    this.#clock = clock;
  }

  begin(): void {
    this.#broken.clear();
  }

  renew(workerId: string, ttlMs: number): number {
    const now = this.#clock.now();
    this.#contents.workers.set(workerId, now + ttlMs);
    return now;
  }

  retire(workerId: string): void {
    this.#contents.workers.delete(workerId);
    for (const run of this.#contents.live) if (run.holder === workerId) this.#free(run);
  }

  create({ row, record, notBefore }: NewRun, workerId?: string): boolean {
    const { runs, live } = this.#contents;
    if (runs.has(row.runId)) return false;
    const run: Run = {
      number: runs.size + 1,
      row: { ...copyRow(row), wakeAt: notBefore ?? this.#clock.now() },
      epoch: workerId === undefined ? 0 : 1,
      holder: workerId,
      records: [{ ...record }],
      checkpoints: [],
      mail: new Map(),
      mailCount: 0,
      known: new Map(),
      tried: new Set(),
    };
    runs.set(row.runId, run);
    live.add(run);
    return true;
  }

  deliver({ id, runId, kind, key, payload, ifWaiting }: Message, limit = Number.POSITIVE_INFINITY): Delivery {
    const run = this.#contents.runs.get(runId);
    if (!run) return { kind: "no_run" };
    const digest = messageDigest({ kind, key, payload });
    const before = run.known.get(id);
    // First: whoever sends a message again is told that it arrived, whatever has become of the run.
    if (before !== undefined) return { kind: "duplicate", same: before === digest };
    if (isEnded(run.row)) return { kind: "ended", status: run.row.status };
    if (ifWaiting !== undefined && !run.row.waits.some(({ effectId }) => effectId === ifWaiting)) return { kind: "not_waiting" };
    if (countsTowardsLimit(kind)) {
      if (run.mailCount >= limit) return { kind: "full", limit };
      run.mailCount += 1;
    }
    this.#contents.lastPosition += 1;
    run.known.set(id, digest);
    run.mail.set(id, {
      id,
      kind,
      key,
      payload: cloneJson(payload),
      position: this.#contents.lastPosition,
      at: this.#clock.now(),
    });
    // A holder sees it when it parks, at the latest; should the holder die, its run is made ready (S5). So the row stays as it is.
    if (run.holder !== undefined) return { kind: "stored", holder: run.holder };
    // A cancel, say, needs none of the code that is missing.
    if (kind === "control" && run.blocked && !run.blocked.quarantine) {
      run.tried.clear();
      run.blocked = undefined;
    }
    this.#wake(run);
    return { kind: "stored" };
  }

  // ---- Leases ------------------------------------------------------------------------------------------------------

  /** Answers the ids of the runs that are now the worker's. */
  claim(worker: Capability, { limit, runId }: { limit: number; runId?: string }): string[] {
    const now = this.#clock.now();
    for (const run of this.#contents.live) {
      if (this.#isOrphan(run, worker, now)) this.#free(run);
      if (yieldsTo(run, worker) && (knows(worker, run) || run.row.runId === runId)) this.#unblock(run);
    }
    const wanted = (run: Run): boolean =>
      runId === undefined ? run.row.wakeAt !== null && run.row.wakeAt <= now && knows(worker, run) : run.row.runId === runId;
    const claimed = [...this.#contents.live]
      .filter((run) => run.holder === undefined && !run.blocked && wanted(run))
      .sort((a, b) => (a.row.wakeAt ?? now) - (b.row.wakeAt ?? now) || a.number - b.number)
      .slice(0, limit);
    for (const run of claimed) {
      run.holder = worker.workerId;
      run.epoch += 1;
    }
    return claimed.map(({ row }) => row.runId);
  }

  release(runId: string, lease: Lease, { blocked, mailSeen }: { blocked?: Blocked; mailSeen?: number }): void {
    const run = this.#contents.runs.get(runId);
    if (!run || !isHeld(run, lease)) return;
    run.holder = undefined;
    // Mail that the holder has not seen may be what the run needs, a cancel say: it is looked at before the run is blocked (S5).
    const unseen = mailSeen !== undefined && mailBehind(run, mailSeen).length > 0;
    if (blocked && (blocked.quarantine || !unseen)) {
      run.blocked = { ...blocked };
      run.tried.add(blocked.fingerprint);
    } else run.row.wakeAt = this.#clock.now();
  }

  lift(runId: string): boolean {
    const run = this.#contents.runs.get(runId);
    if (!run?.blocked) return false;
    run.tried.clear();
    this.#unblock(run);
    return true;
  }

  /** A claimer is alive, whatever its row says: what it holds is being driven, and is not given to it a second time. */
  #isOrphan({ holder }: Run, claimer: Capability, now: number): boolean {
    return holder !== undefined && holder !== claimer.workerId && (this.#contents.workers.get(holder) ?? now) <= now;
  }

  #free(run: Run): void {
    run.holder = undefined;
    this.#wake(run);
  }

  #unblock(run: Run): void {
    run.blocked = undefined;
    this.#wake(run);
  }

  /** Due now, unless it has been due for longer: it keeps its place among those that wait. */
  #wake({ row }: Run): void {
    const now = this.#clock.now();
    row.wakeAt = Math.min(row.wakeAt ?? now, now);
  }

  // ---- Commits -----------------------------------------------------------------------------------------------------

  commit(transitions: readonly Transition[]): Mail[][] {
    try {
      const stand = this.#check(transitions);
      return transitions.map((transition, i) => (stand[i] ? this.#repeat(transition) : this.#write(transition)));
    } catch (error) {
      for (const transition of transitions) this.#broken.add(leaseKey(transition));
      throw error;
    }
  }

  /** Whether each transition stands already. @throws CONFLICT when one of them neither does nor may be written. */
  #check(transitions: readonly Transition[]): boolean[] {
    const runIds = new Set<string>();
    const counted = new Map<string, number>();
    return transitions.map((transition) => {
      const { runId, counters = [] } = transition;
      if (this.#broken.has(leaseKey(transition))) throw conflict(runId, "the commit before it failed");
      // The second would be checked against a state that the first is about to change.
      if (runIds.has(runId)) throw conflict(runId, "one commit names it twice");
      runIds.add(runId);
      const stands = this.#stands(transition);
      if (!stands) for (const change of counters) this.#count(change, runId, counted);
      return stands;
    });
  }

  #stands({ runId, lease, after, records, take, send, start, release, counters = [] }: Transition): boolean {
    const run = this.#contents.runs.get(runId);
    if (!run) throw conflict(runId, "there is no such run");
    // Before everything else: a lost acknowledgement is not a conflict, even if the run has moved on since (S2).
    if (records.length > 0 && records.every(({ seq, hash }) => run.records[seq]?.hash === hash)) return true;
    if (after !== run.row.seq) throw conflict(runId, `its last record is ${run.row.seq}, not ${after}`);
    if (isHeld(run, lease)) return false;
    // Nothing but a release, of a run that is released: the acknowledgement was lost here, too.
    const isBare = release && [records, take, send, start, counters].every(({ length }) => length === 0);
    if (isBare && run.holder === undefined && run.epoch === lease.epoch) return true;
    throw conflict(
      runId,
      run.holder === undefined ? "its lease was given up" : `it is leased to worker ${run.holder}, epoch ${run.epoch}`,
    );
  }

  #count({ name, add, limit }: CounterChange, runId: string, counted: Map<string, number>): void {
    const value = (counted.get(name) ?? this.#contents.counters.get(name) ?? 0) + add;
    if (limit !== undefined && value > limit) throw conflict(runId, `counter "${name}" would pass its limit of ${limit}`);
    counted.set(name, value);
  }

  #write(transition: Transition): Mail[] {
    const { counters, runs, live } = this.#contents;
    const run = runs.get(transition.runId) as Run;
    run.row = copyRow(transition.row);
    for (const record of transition.records) run.records.push({ ...record });
    if (transition.records.length > 0) run.tried.clear();
    if (transition.checkpoint) {
      const dropped = checkpointsToDrop(transition.checkpoint.ordinal);
      run.checkpoints = run.checkpoints.filter(({ ordinal }) => !dropped.includes(ordinal));
      run.checkpoints.push({ ...transition.checkpoint });
    }
    for (const id of transition.take) {
      const mail = run.mail.get(id);
      if (mail && countsTowardsLimit(mail.kind)) run.mailCount -= 1;
      run.mail.delete(id);
    }
    for (const child of transition.start) this.create(child);
    for (const message of transition.send) this.deliver(message);
    for (const { name, add } of transition.counters ?? []) counters.set(name, (counters.get(name) ?? 0) + add);
    if (isEnded(run.row)) {
      live.delete(run);
      run.holder = undefined;
    }
    return transition.release ? handBack(run, transition.mailSeen) : [];
  }

  /**
   * What stands is not written again. Its answer is given again, though: a holder that never heard of the mail which kept its
   * lease would take the run for released, and nobody would drive it.
   */
  #repeat({ runId, lease, records, release, mailSeen }: Transition): Mail[] {
    const run = this.#contents.runs.get(runId) as Run;
    const isLast = run.row.seq === records.at(-1)?.seq;
    return release && isLast && isHeld(run, lease) ? handBack(run, mailSeen) : [];
  }
}

/** Gives up the lease, unless there is mail that the holder has not looked at. */
function handBack(run: Run, mailSeen: number): Mail[] {
  const unseen = isEnded(run.row) ? [] : mailBehind(run, mailSeen);
  if (unseen.length === 0) run.holder = undefined;
  return unseen;
}

function isHeld(run: Run, { workerId, epoch }: Lease): boolean {
  return run.holder === workerId && run.epoch === epoch;
}

function leaseKey({ runId, lease }: Transition): string {
  return JSON.stringify([runId, lease.workerId, lease.epoch]);
}

function conflict(runId: string, problem: string): AbstractRuntimeError<"CONFLICT"> {
  return new AbstractRuntimeError("CONFLICT", { runId, problem });
}
