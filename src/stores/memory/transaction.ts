/** Everything the store writes. Each method is one synchronous piece of code: nobody sees half of it. See M1 to M3 in `index.ts`. */
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { cloneJson } from "../../kernel/json.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import { isEnded, type RunRow } from "../../kernel/run.ts";
import {
  beginsAt,
  type Blocked,
  type Capability,
  type CounterChange,
  type Lease,
  type NewRun,
  type Transition,
} from "../../kernel/transition.ts";
import { checkpointsToDrop } from "../../kernel/checkpoint.ts";
import { countsTowardsLimit, type Delivery, type Mail, type Message, messageDigest } from "../../kernel/message.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import { isOver, isRetried } from "../ended.ts";
import { Wakes } from "../listeners.ts";
import type { Move, Refusal } from "../moving.ts";
import { rateOf, Slots, serves } from "../slots.ts";
import { checkArtifacts, holdArtifacts } from "./artifacts.ts";
import { type Contents, copyRow, knows, mailBehind, newRun, type Run, yieldsTo } from "./contents.ts";
import { adopt, adoptRecords, fence, settle, type Waking } from "./moving.ts";
import { purge } from "./retention.ts";

export class Transaction {
  readonly #contents: Contents;
  readonly #clock: Clock;
  /** The leases whose commits failed in this turn: what was sent behind such a commit fails too (S3). */
  readonly #broken = new Set<string>();
  readonly #wakes = new Wakes();

  constructor(contents: Contents, clock: Clock) {
    this.#contents = contents;
    this.#clock = clock;
  }

  begin(): void {
    this.#broken.clear();
    this.#wakes.clear();
    this.#contents.changed.clear();
  }

  /** Whether something was done since `begin` that somebody may want to hear of. */
  wakes(): boolean {
    const { ready, holders, freed } = this.#wakes;
    const isAwaited = ({ row, holder, blocked }: Run): boolean =>
      row.queue !== undefined && freed.has(row.queue) && holder === undefined && !blocked && this.#isDue(row);
    return ready || holders.size > 0 || (freed.size > 0 && [...this.#contents.live].some(isAwaited));
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

  /** @throws ARTIFACT_MISSING */
  checkNew({ row, artifacts }: NewRun): void {
    if (!this.#exists(row.runId)) checkArtifacts(this.#contents, row.runId, artifacts);
  }

  create(begun: NewRun, workerId?: string): boolean {
    const { row, record, waits = [], indexed = {} } = begun;
    const { lastNumber, changed, make } = this.#contents;
    if (this.#exists(row.runId)) return false;
    const run = newRun({ ...copyRow(row), wakeAt: beginsAt(begun, this.#clock.now()) }, lastNumber + 1, make);
    run.epoch = workerId === undefined ? 0 : 1;
    run.holder = workerId;
    run.records.push(record);
    for (const wait of waits) run.waits.set(wait.effectId, { ...wait });
    for (const [path, value] of Object.entries(indexed)) run.indexed.set(path, value);
    this.#contents.add(run);
    holdArtifacts(this.#contents, row.runId, begun.artifacts);
    changed.add(run);
    if (workerId === undefined) this.#wakes.ready = true;
    return true;
  }

  /** What was purged leaves its id taken. */
  #exists(runId: string): boolean {
    return this.#contents.runs.has(runId) || this.#contents.tombstones.has(runId);
  }

  deliver(message: Message, limit = Number.POSITIVE_INFINITY): Delivery {
    const { id, runId, kind, key, payload, ifWaiting, ifFailed, recall } = message;
    const run = this.#contents.runs.get(runId);
    if (!run) return { kind: "no_run" };
    const digest = messageDigest({ kind, key, payload });
    const before = run.known.get(id);
    // First: whoever sends a message again is told that it arrived, whatever has become of the run.
    if (before !== undefined) return { kind: "duplicate", same: before.digest === digest };
    const recalled = recall && this.#contents.runs.get(recall.runId);
    const moving = run.moving ?? recalled?.moving;
    if (moving) return { kind: "moved", to: moving.to };
    const { status } = run.row;
    if (ifFailed && status !== "failed") return { kind: "not_failed", status };
    if (!ifFailed && isEnded(run.row) && !isRetried(run.row)) return { kind: "ended", status };
    if (ifWaiting !== undefined && !isWaiting(run, ifWaiting, key)) return { kind: "not_waiting" };
    if (recall && recalled && isTaken(recalled, recall.id)) return { kind: "taken" };
    if (countsTowardsLimit(kind)) {
      if (run.mailCount >= limit && !isAwaited(run, key)) return { kind: "full", limit };
      run.mailCount += 1;
    }
    if (recall && recalled?.mail.has(recall.id)) {
      remove(recalled, recall.id);
      recalled.recalled.set(recall.id, true);
      this.#contents.changed.add(recalled);
    }
    this.#contents.changed.add(run);
    this.#contents.lastPosition += 1;
    const { actorId } = message;
    const letter = { id, kind, key, ...(actorId === undefined ? {} : { actorId }), at: this.#clock.now() };
    run.known.set(id, { ...letter, digest });
    run.mail.set(id, { ...letter, payload: cloneJson(payload), position: this.#contents.lastPosition });
    // A holder sees it when it parks, at the latest; should the holder die, its run is made ready (S5). So the row stays as it is.
    if (run.holder !== undefined) {
      this.#wakes.holders.add(run.holder);
      return { kind: "stored", holder: run.holder };
    }
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
      if (yieldsTo(run, worker) && (knows(worker, run) || (run.row.runId === runId && serves(worker, run.row.queue))))
        this.#unblock(run);
    }
    // A run that failed and that nobody wants to try again is not due, and not given by name either.
    const isNamed = ({ row }: Run): boolean => row.runId === runId && (!isEnded(row) || row.wakeAt !== null);
    const isWanted = (run: Run): boolean => (runId === undefined ? this.#isDue(run.row) && knows(worker, run) : isNamed(run));
    const wanted = [...this.#contents.live]
      .filter((run) => run.holder === undefined && !run.blocked && isWanted(run))
      .sort((a, b) => b.row.priority - a.row.priority || (a.row.wakeAt ?? now) - (b.row.wakeAt ?? now) || a.number - b.number);
    const slots = new Slots(worker, this.#contents.slotCounts(), now);
    const claimed: string[] = [];
    for (const run of wanted) {
      const { queue, queueKey } = run.row;
      if (claimed.length === limit) break;
      if (!slots.isOpen(queue, run.epoch === 0) || !slots.hasSlot(queue, queueKey)) continue;
      slots.take(queue, queueKey, run.epoch === 0);
      const rate = run.epoch === 0 ? rateOf(worker, queue) : undefined;
      if (queue !== undefined && rate) this.#begin(queue, now, rate.periodMs);
      run.holder = worker.workerId;
      run.epoch += 1;
      this.#contents.changed.add(run);
      claimed.push(run.row.runId);
    }
    return claimed;
  }

  /** Remembers when a run began, for as long as that counts. */
  #begin(queue: string, now: number, periodMs: number): void {
    const begins = (this.#contents.begins.get(queue) ?? []).filter((at) => at > now - periodMs);
    this.#contents.begins.set(queue, [...begins, now]);
  }

  release(runId: string, lease: Lease, { blocked, mailSeen }: { blocked?: Blocked; mailSeen?: number }): void {
    const run = this.#contents.runs.get(runId);
    if (!run || !isHeld(run, lease)) return;
    this.#handBack(run);
    // Mail that the holder has not seen may be what the run needs, a cancel say: it is looked at before the run is blocked (S5).
    const unseen = mailSeen !== undefined && mailBehind(run, mailSeen).length > 0;
    if (blocked && (blocked.quarantine || !unseen)) {
      run.blocked = { ...blocked };
      run.tried.add(blocked.fingerprint);
    } else this.#wakeAgain(run, mailSeen);
  }

  lift(runId: string): boolean {
    const run = this.#contents.runs.get(runId);
    if (!run?.blocked || run.moving) return false;
    run.tried.clear();
    this.#unblock(run);
    return true;
  }

  /** A claimer is alive, whatever its row says: what it holds is being driven, and is not given to it a second time. */
  #isOrphan({ holder }: Run, claimer: Capability, now: number): boolean {
    return holder !== undefined && holder !== claimer.workerId && (this.#contents.workers.get(holder) ?? now) <= now;
  }

  #free(run: Run): void {
    this.#handBack(run);
    this.#wakeAgain(run);
  }

  #handBack(run: Run): void {
    run.holder = undefined;
    this.#contents.changed.add(run);
    if (run.row.queue !== undefined) this.#wakes.freed.add(run.row.queue);
  }

  /** A run whose holder did not finish with it goes on at once; one that failed, only if there is mail which may want that. */
  #wakeAgain(run: Run, mailSeen = 0): void {
    if (isEnded(run.row) && mailBehind(run, mailSeen).length === 0) run.row.wakeAt = null;
    else this.#wake(run);
  }

  #unblock(run: Run): void {
    run.blocked = undefined;
    this.#wake(run);
  }

  #isDue({ wakeAt }: RunRow): boolean {
    return wakeAt !== null && wakeAt <= this.#clock.now();
  }

  /** Due now, unless it has been due for longer: it keeps its place among those that wait. */
  #wake(run: Run): void {
    const now = this.#clock.now();
    run.row.wakeAt = Math.min(run.row.wakeAt ?? now, now);
    this.#contents.changed.add(run);
    this.#wakes.ready = true;
  }

  // ---- Moving and retention ----------------------------------------------------------------------------------------

  fence(runIds: readonly string[], move: Move): Refusal[] {
    return fence(this.#contents, runIds, move, this.#waking);
  }

  adopt(copy: RunCopy, move: Move): void {
    adopt(this.#contents, copy, move, this.#clock.now());
  }

  adoptRecords(runId: string, token: string, records: readonly StoredRecord[]): void {
    adoptRecords(this.#contents, runId, token, records);
  }

  settle(token: string, to: "left" | "here" | "back"): string[] {
    return settle(this.#contents, token, to, this.#waking);
  }

  purge(
    runIds: readonly string[],
    note: string | undefined,
    heads: ReadonlyMap<string, string> | undefined,
  ): { live: string[]; purged: string[] } {
    return purge(this.#contents, runIds, note, this.#clock.now(), heads);
  }

  get #waking(): Waking {
    return {
      free: (run) => this.#free(run),
      wake: (run) => this.#wake(run),
      ring: () => {
        this.#wakes.ready = true;
      },
    };
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
    return transitions.map((transition) => {
      const { runId } = transition;
      if (this.#broken.has(leaseKey(transition))) throw conflict(runId, "the commit before it failed");
      // The second would be checked against a state that the first is about to change.
      if (runIds.has(runId)) throw conflict(runId, "one commit names it twice");
      runIds.add(runId);
      const stands = this.#stands(transition);
      if (!stands) {
        this.#checkMail(transition);
        checkArtifacts(this.#contents, runId, transition.artifacts);
        for (const child of transition.start) this.checkNew(child);
      }
      return stands;
    });
  }

  #stands({ runId, lease, after, records, take, send, start, release, counters = [] }: Transition): boolean {
    const run = this.#contents.runs.get(runId);
    if (!run) throw conflict(runId, "there is no such run");
    // Before everything else: a lost acknowledgement is not a conflict, even if the run has moved on since (S2).
    if (records.length > 0 && records.every(({ seq, hash }) => run.records.hashOf(seq) === hash)) return true;
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

  #checkMail({ runId, take }: Transition): void {
    const run = this.#contents.runs.get(runId) as Run;
    for (const id of take) if (!run.mail.has(id)) throw conflict(runId, notThere(run.recalled.has(id), id));
  }

  /** What there is no room for, or undefined when all was added. */
  reserve(changes: readonly CounterChange[]): CounterChange | undefined {
    const refused = changes.find(({ runId, name, add, limit = Infinity }) => {
      const run = this.#contents.runs.get(runId);
      return run !== undefined && (run.counters.get(name) ?? 0) + add > limit;
    });
    if (!refused) this.#count(changes);
    return refused;
  }

  #count(changes: readonly CounterChange[]): void {
    for (const { runId, name, add } of changes) {
      const run = this.#contents.runs.get(runId);
      if (!run) continue;
      this.#contents.changed.add(run);
      run.counters.set(name, (run.counters.get(name) ?? 0) + add);
    }
  }

  #write(transition: Transition): Mail[] {
    const { runs, live, changed } = this.#contents;
    const run = runs.get(transition.runId) as Run;
    changed.add(run);
    const { queue, queueKey, priority, tags } = run.row;
    // As created: where a run stands in line, and its tags.
    run.row = { ...copyRow(transition.row), queue, queueKey, priority, ...(tags ? { tags } : {}) };
    for (const effectId of transition.waits?.close ?? []) run.waits.delete(effectId);
    for (const wait of transition.waits?.open ?? []) run.waits.set(wait.effectId, { ...wait });
    if (isEnded(run.row)) run.waits.clear();
    for (const [path, value] of Object.entries(transition.indexed ?? {})) {
      if (value === null) run.indexed.delete(path);
      else run.indexed.set(path, value);
    }
    for (const record of transition.records) run.records.push(record);
    if (transition.records.length > 0) run.tried.clear();
    const { checkpoint, dropBefore } = transition;
    if (dropBefore !== undefined) {
      run.records.drop(dropBefore);
      run.checkpoints = run.checkpoints.filter(({ seq }) => seq >= dropBefore);
    }
    if (checkpoint) {
      const dropped = checkpointsToDrop(checkpoint.ordinal);
      const kept = run.checkpoints.filter(({ ordinal }) => !dropped.includes(ordinal));
      run.checkpoints = [...kept, { ...checkpoint }].sort((a, b) => a.seq - b.seq);
    }
    holdArtifacts(this.#contents, transition.runId, transition.artifacts);
    for (const id of transition.take) remove(run, id);
    for (const child of transition.start) this.create(child);
    for (const message of transition.send) this.deliver(message);
    this.#count(transition.counters ?? []);
    if (isOver(run.row)) {
      live.delete(run);
      this.#handBack(run);
      return [];
    }
    return transition.release ? this.#release(run, transition.mailSeen) : [];
  }

  /**
   * What stands is not written again. Its answer is given again, though: a holder that never heard of the mail which kept its
   * lease would take the run for released, and nobody would drive it.
   */
  #repeat({ runId, lease, records, release, mailSeen }: Transition): Mail[] {
    const run = this.#contents.runs.get(runId) as Run;
    const isLast = run.row.seq === records.at(-1)?.seq;
    return release && isLast && isHeld(run, lease) ? this.#release(run, mailSeen) : [];
  }

  /** Gives up the lease, unless there is mail that the holder has not looked at. */
  #release(run: Run, mailSeen: number): Mail[] {
    const unseen = mailBehind(run, mailSeen);
    if (unseen.length === 0) {
      this.#handBack(run);
      if (this.#isDue(run.row)) this.#wakes.ready = true;
    }
    return unseen;
  }
}

/** Whether the run waits for this very message: a full mailbox must not keep it from going on, which is what empties it. */
function isAwaited(run: Run, key: string): boolean {
  return isWaiting(run, true, key) && ![...run.mail.values()].some((mail) => mail.key === key);
}

function isWaiting({ waits }: Run, effect: string | true, key: string): boolean {
  return effect === true ? [...waits.values()].some(({ waitKey }) => waitKey === key) : waits.get(effect)?.waitKey === key;
}

function isTaken({ known, mail, recalled }: Run, id: string): boolean {
  return known.has(id) && !mail.has(id) && !recalled.has(id);
}

function remove(run: Run, id: string): void {
  const mail = run.mail.get(id);
  if (mail && countsTowardsLimit(mail.kind)) run.mailCount -= 1;
  run.mail.delete(id);
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

function notThere(recalled: boolean, id: string): string {
  return `message "${id}" is not there to be taken${recalled ? ": its sender has recalled it" : ""}`;
}
