/**
 * A run as it happens: its records, and between them what its effects stream.
 *
 * T1. Records are shown in order, each once, when they are durable (L3).
 * T2. What an attempt streamed is shown in order, each unit of text once, behind the record with which the attempt began and before
 *     the one of its outcome. Both sides hold for this: nothing is kept of an attempt before its beginning is durable, and all of it
 *     is before its outcome is recorded (`streams.ts`). So records are always read first, and chunks after them.
 * T3. A cursor says all that a reader knows: whoever goes on from it, here or elsewhere, sees exactly the rest.
 * T4. What is not there any more is left out: the record of the outcome has the whole.
 */
import type { Clock } from "../kernel/clock.ts";
import type { StreamPart } from "../kernel/effect.ts";
import { AbstractRuntimeError, invalidOption } from "../kernel/errors.ts";
import { decodeRecord, type LedgerRecord } from "../kernel/record.ts";
import { isEnded } from "../kernel/run.ts";
import type { Store } from "../kernel/store.ts";
import type { StreamChunk, StreamFrom } from "../kernel/stream.ts";
import { type LiveStream, type Piece, pieceFrom } from "./live-stream.ts";
import { isRetried, loadRun, missing, stateOf } from "./read.ts";
import { rowOf } from "./runs-of.ts";
import type { LiveStreams, RunReader } from "./streams.ts";
import { type CursorPlace, cursorOf } from "./watch-cursor.ts";

/** Where `watch` goes on: opaque, and good for as long as the run. */
export type Cursor = string;

export type WatchItem =
  /** A record, once it is durable. */
  | { readonly kind: "record"; readonly record: LedgerRecord; readonly cursor: Cursor }
  /** A piece of what an attempt gives, from `offset` (UTF-16 units of the attempt's text) on. */
  | {
      readonly kind: "stream";
      readonly provisional: true;
      readonly effectId: string;
      readonly step: number;
      readonly attempt: number;
      readonly offset: number;
      readonly part: StreamPart;
      readonly cursor: Cursor;
    }
  /** The effect is attempted again, and streams anew: what was shown of it counts no more. */
  | {
      readonly kind: "reset";
      readonly provisional: true;
      readonly effectId: string;
      readonly step: number;
      readonly attempt: number;
      readonly cursor: Cursor;
    };

/** What a reader uses of its runtime. */
interface WatchHost {
  readonly store: Store;
  readonly clock: Clock;
  readonly streams: LiveStreams;
  /** Whether the run is driven in this process, so that all that becomes of it is told here. */
  isDriven(runId: string): boolean;
  /** @throws RUNTIME_STOPPED */
  checkRunning(): void;
}

const recordsPage = 100;
/** How often the store is asked for a run that executes elsewhere: while it streams, and otherwise; for others the time grows to `idleMs`. */
const flowingMs = 25;
const busyMs = 50;
const idleMs = 1_000;

/** Each iteration is a reader of its own, from the same place on. */
export function watchRun(
  host: WatchHost,
  runId: string,
  after: CursorPlace | undefined,
  signal: AbortSignal | undefined,
): AsyncIterable<WatchItem> {
  return {
    [Symbol.asyncIterator](): AsyncIterator<WatchItem> {
      const watch = new Watch(host, runId, after, signal);
      const items = watch.items();
      return {
        next: () => items.next(),
        // A generator that waits would answer only when it has something.
        return: () => {
          watch.leave();
          return items.return(undefined);
        },
      };
    },
  };
}

class Watch {
  readonly #host: WatchHost;
  readonly #runId: string;
  readonly #signal: AbortSignal | undefined;
  /** From the first item that is asked for on. */
  #reader: RunReader | undefined;
  readonly #place: CursorPlace;
  readonly #isNew: boolean;
  /** Attempts that have begun and have no outcome yet; of later steps than what is shown before the first look is through. */
  readonly #open = new Map<string, { step: number; attempt: number }>();
  /** Up to this record, `#open` knows what came of things. */
  #openAt = -1;
  #step = 0;
  #hasEnded = false;
  #hasLeft = false;

  constructor(host: WatchHost, runId: string, after: CursorPlace | undefined, signal: AbortSignal | undefined) {
    this.#host = host;
    this.#runId = runId;
    this.#signal = signal;
    this.#isNew = after === undefined;
    this.#place = after ? { seq: after.seq, shown: new Map(after.shown) } : { seq: 0, shown: new Map() };
  }

  leave(): void {
    this.#hasLeft = true;
    this.#reader?.tell(false);
  }

  async *items(): AsyncGenerator<WatchItem, undefined> {
    const { clock, store, streams } = this.#host;
    // It listens before it looks, so that nothing is missed between.
    const reader = streams.reader(this.#runId);
    this.#reader = reader;
    const abort = (): void => reader.tell(false);
    this.#signal?.addEventListener("abort", abort);
    try {
      if (this.#isOver()) return;
      await this.#begin();
      let mayHaveRecords = true;
      let seenAt = clock.now();
      for (let quietMs = busyMs; ; ) {
        if (this.#isOver()) return;
        if (mayHaveRecords) {
          const records = await store.records(this.#runId, this.#place.seq, recordsPage);
          yield* this.#records(records.map((stored) => decodeRecord(this.#runId, stored)));
          if (records.length === recordsPage) {
            // A long history takes its time, and others theirs.
            await new Promise((resolve) => setImmediate(resolve));
            continue;
          }
          if (records.length > 0) [quietMs, seenAt] = [busyMs, clock.now()];
          if (this.#hasEnded && (await this.#isAtEnd())) return;
        }
        yield* this.#liveParts();
        const isDriven = this.#host.isDriven(this.#runId);
        // What executes here streams here.
        const isFlowing = mayHaveRecords && !isDriven && (yield* this.#storedParts());
        if (this.#isOver()) return;
        if (!isDriven && clock.now() - seenAt >= idleMs) {
          await this.#checkThere();
          seenAt = clock.now();
        }
        const ms = isDriven ? idleMs : isFlowing ? flowingMs : this.#open.size > 0 ? busyMs : quietMs;
        quietMs = Math.min(idleMs, quietMs * 2);
        mayHaveRecords = await reader.told(ms);
      }
    } finally {
      this.#signal?.removeEventListener("abort", abort);
      reader.leave();
    }
  }

  /** @throws What the signal gives as the reason, or RUNTIME_STOPPED. */
  #isOver(): boolean {
    if (this.#hasLeft) return true;
    this.#signal?.throwIfAborted();
    this.#host.checkRunning();
    return false;
  }

  async #begin(): Promise<void> {
    const { store } = this.#host;
    const loaded = await loadRun(store, this.#runId);
    const state = await stateOf(store, loaded);
    if (this.#isNew) this.#place.seq = loaded.archivedBefore ?? 0;
    if (this.#place.seq > state.seq + 1) {
      const problem = `it stands behind record ${this.#place.seq - 1}, and the last of run ${this.#runId} is ${state.seq}`;
      throw invalidOption("after", problem);
    }
    for (const { id, step, attempt, phase } of state.open.values())
      if (phase === "executing" && attempt > 0) this.#open.set(id, { step, attempt });
    this.#openAt = state.seq;
    this.#hasEnded = isEnded(state);
  }

  /** Whether a run that has ended, and of which everything was shown, stays as it is: one that failed may be tried again. */
  async #isAtEnd(): Promise<boolean> {
    const loaded = await loadRun(this.#host.store, this.#runId);
    return loaded.row.seq < this.#place.seq && !isRetried(loaded);
  }

  /** @throws RUN_NOT_FOUND, RUN_PURGED, RUN_MOVED */
  async #checkThere(): Promise<void> {
    const row = await rowOf(this.#host.store, this.#runId);
    if (!row) throw await missing(this.#host.store, this.#runId);
    if (row.moving?.phase === "left")
      throw new AbstractRuntimeError("RUN_MOVED", { runId: this.#runId, to: row.moving.to, phase: "left" });
  }

  async *#records(records: readonly LedgerRecord[]): AsyncGenerator<WatchItem> {
    const outcomes = records.flatMap((record) => outcomeOf(record) ?? []);
    const stored = this.#stored(outcomes);
    for (const record of records) {
      const outcome = outcomeOf(record);
      if (outcome) {
        const live = this.#reader?.streamOf(outcome);
        if (live) yield* this.#partsOf(live);
        else {
          // One that was at hand when the others were looked for may have been let go of since.
          const parts = stored.has(outcome) ? stored : this.#stored([outcome]);
          for await (const chunk of parts.of(outcome)) yield* this.#chunk(chunk);
        }
      }
      this.#signal?.throwIfAborted();
      this.#note(record);
      yield { kind: "record", record, cursor: cursorOf(this.#place) };
    }
  }

  #stored(attempts: readonly Attempt[]): StoredParts {
    return new StoredParts(this.#host.store, this.#runId, this.#from(attempts));
  }

  /** What a record means for what is open, and for the cursor behind it. */
  #note(record: LedgerRecord): void {
    const { shown } = this.#place;
    this.#place.seq = record.seq + 1;
    const outcome = outcomeOf(record);
    if (outcome && (shown.get(outcome.effectId)?.attempt ?? 0) <= outcome.attempt) shown.delete(outcome.effectId);
    if (record.seq <= this.#openAt) return;
    this.#openAt = record.seq;
    if (record.step > this.#step) {
      // What was still open then was given up.
      this.#step = record.step;
      for (const [effectId, { step }] of this.#open) if (step < record.step) this.#open.delete(effectId);
      for (const effectId of shown.keys()) if (!this.#open.has(effectId)) shown.delete(effectId);
    }
    const { kind, effectId, step, attempt = 0 } = record;
    if (kind === "effect_started" && effectId !== undefined && attempt > 0) this.#open.set(effectId, { step, attempt });
    else if (outcome) this.#open.delete(outcome.effectId);
    if (kind === "run_completed" || kind === "run_failed" || kind === "run_cancelled") {
      this.#hasEnded = true;
      this.#open.clear();
    } else if (kind === "control" && record.data.action === "retry") this.#hasEnded = false;
  }

  *#liveParts(): Generator<WatchItem> {
    for (const [effectId, { attempt }] of [...this.#open]) {
      const live = this.#reader?.streamOf({ effectId, attempt });
      if (live) yield* this.#partsOf(live);
    }
  }

  /** Answers whether there were any. */
  async *#storedParts(): AsyncGenerator<WatchItem, boolean> {
    for (let isFirst = true; ; isFirst = false) {
      const open = [...this.#open].map(([effectId, { step, attempt }]) => ({ effectId, step, attempt }));
      const from = this.#from(open);
      const chunks = from.length === 0 ? [] : await this.#host.store.stream(this.#runId, from);
      let isNews = false;
      for (const chunk of chunks) {
        for (const item of this.#chunk(chunk)) {
          isNews = true;
          yield item;
        }
      }
      if (!isNews) return !isFirst;
    }
  }

  /** Those of these attempts that are not at hand here, from where they have been shown. */
  #from(attempts: readonly Attempt[]): StreamFrom[] {
    return attempts
      .filter((attempt) => !this.#reader?.streamOf(attempt))
      .map((attempt) => ({ ...attempt, offset: this.#offset(attempt) }));
  }

  #offset({ effectId, attempt }: Attempt): number {
    const shown = this.#place.shown.get(effectId);
    if (shown === undefined || shown.attempt < attempt) return 0;
    // Of one that is over, nothing more is shown.
    return shown.attempt === attempt ? shown.offset : Number.MAX_SAFE_INTEGER;
  }

  /** What there is now: one that is read more slowly than it comes is not to keep the reader from the others. */
  *#partsOf(live: LiveStream): Generator<WatchItem> {
    const { units } = live;
    for (let at = this.#offset(live.place); at < units; at = this.#offset(live.place))
      yield* this.#part(live.place, live.at(at) as Piece);
  }

  *#chunk(chunk: StreamChunk): Generator<WatchItem> {
    let { offset } = chunk;
    // Behind a gap nothing is known to be in its place.
    if (offset > this.#offset(chunk)) return;
    for (const part of JSON.parse(chunk.parts) as StreamPart[]) {
      const piece = { offset, part };
      offset += part.text.length;
      if (offset > this.#offset(chunk)) yield* this.#part(chunk, pieceFrom(piece, this.#offset(chunk)));
    }
  }

  *#part({ effectId, step, attempt }: Attempt, { offset, part }: Piece): Generator<WatchItem> {
    this.#signal?.throwIfAborted();
    const { shown } = this.#place;
    const place = { provisional: true, effectId, step, attempt } as const;
    if (attempt > 1 && shown.get(effectId)?.attempt !== attempt) {
      shown.set(effectId, { attempt, offset: 0 });
      yield { kind: "reset", ...place, cursor: cursorOf(this.#place) };
    }
    shown.set(effectId, { attempt, offset: offset + part.text.length });
    yield { kind: "stream", ...place, offset, part: { ...part }, cursor: cursorOf(this.#place) };
  }
}

interface Attempt {
  readonly effectId: string;
  readonly step: number;
  readonly attempt: number;
}

/** The attempt that a record is the outcome of. */
function outcomeOf({ kind, effectId, step, attempt = 0 }: LedgerRecord): Attempt | undefined {
  const isOutcome = kind === "effect_completed" || kind === "effect_failed" || kind === "effect_uncertain" || kind === "parked";
  return isOutcome && effectId !== undefined && attempt > 0 ? { effectId, step, attempt } : undefined;
}

/** What is stored of attempts, asked for together, and given one by one in their order. */
class StoredParts {
  readonly #store: Store;
  readonly #runId: string;
  readonly #attempts: readonly StreamFrom[];
  /** Those of which there may be more. */
  #asked: StreamFrom[];
  #chunks: StreamChunk[] = [];

  constructor(store: Store, runId: string, attempts: StreamFrom[]) {
    this.#store = store;
    this.#runId = runId;
    this.#attempts = this.#asked = attempts;
  }

  has(attempt: Attempt): boolean {
    return this.#attempts.some((one) => isOf(one, attempt));
  }

  async *of(attempt: Attempt): AsyncGenerator<StreamChunk> {
    for (;;) {
      for (let [next] = this.#chunks; next && isOf(next, attempt); [next] = this.#chunks) {
        this.#chunks.shift();
        const rest = { effectId: next.effectId, step: next.step, attempt: next.attempt, offset: next.end };
        this.#asked = [rest, ...this.#asked.slice(this.#indexOf(attempt) + 1)];
        yield next;
      }
      // The next one is of a later attempt, or there are no more.
      if (this.#chunks.length > 0 || this.#indexOf(attempt) < 0) return;
      this.#chunks = await this.#store.stream(this.#runId, this.#asked);
      if (this.#chunks.length === 0) this.#asked = [];
    }
  }

  #indexOf(attempt: Attempt): number {
    return this.#asked.findIndex((asked) => isOf(asked, attempt));
  }
}

function isOf(a: Pick<Attempt, "effectId" | "attempt">, b: Attempt): boolean {
  return a.effectId === b.effectId && a.attempt === b.attempt;
}
