/**
 * Where the attempts of this process stream to: its own readers, at once, and the store, in chunks, for all others.
 *
 * V1. Readers here have no queues: each reads the attempt's own text at its own place. One that is slow holds back nobody.
 * V2. Chunks of all streams go to the store together, one call at a time, so that those of an attempt stand without gaps.
 * V3. Nothing is kept or shown of an attempt before it is durable that it began. A speculative one may begin earlier: if its process
 *     loses the run then, another one makes an attempt of the same number, which may say something else.
 * V4. What cannot be kept fails no attempt. It is tried again while the attempt lasts, and once when it has ended.
 */
import type { Clock, Timer } from "../kernel/clock.ts";
import type { StreamPart } from "../kernel/effect.ts";
import type { RunRow } from "../kernel/run.ts";
import type { Store } from "../kernel/store.ts";
import type { EffectStream, StreamPlace, Streams } from "../kernel/stream.ts";
import { chunkUnits, LiveStream } from "./live-stream.ts";

/** What is streamed goes to the store so often. */
const keepMs = 50;
/** After a failure. */
const retryMs = 500;
/** What the store hints at is passed on so often at most. */
const heardMs = 20;
/** Chunks in one call. */
const largestCall = 128;
/** How long an attempt that has ended waits for the record of its beginning. It is on its way, unless its run is lost. */
const begunMs = 5_000;
/** UTF-16 units of ended streams that stay here for readers that are behind; the store has them, too. */
const readersUnits = 262_144;

interface StreamsHost {
  readonly store: Pick<Store, "appendStream">;
  readonly clock: Clock;
  report(message: string, fields: { error?: unknown; runId?: string }): void;
}

/** A run that is watched, or has streams. */
interface LiveRun {
  /** By effect and attempt. */
  streams: Map<string, LiveStream>;
  readers: Set<RunReader>;
}

export class LiveStreams implements Streams {
  readonly #host: StreamsHost;
  readonly #runs = new Map<string, LiveRun>();
  /** Up to which record the runs that are driven here are durable (V3). */
  readonly #durable = new Map<string, number>();
  /** Those of which something is not kept yet. */
  readonly #unkept = new Set<LiveStream>();
  #timer: Timer | undefined;
  #hearing: Timer | undefined;
  #keeping = false;
  #keepAgain = false;
  #isFailing = false;
  #isEnded = false;

  constructor(host: StreamsHost) {
    this.#host = host;
  }

  open(place: StreamPlace, begunAt: number): EffectStream {
    const stream = new LiveStream(place, begunAt);
    stream.hasBegun = begunAt <= (this.#durable.get(place.runId) ?? -1);
    const run = this.#run(place.runId);
    run.streams.set(keyOf(place), stream);
    return {
      write: (part) => this.#write(stream, run, part),
      end: () => this.#end(stream, run),
    };
  }

  /** Starts to listen to a run. */
  reader(runId: string): RunReader {
    const run = this.#run(runId);
    const reader = new RunReader(
      this.#host.clock,
      (place) => {
        const stream = run.streams.get(keyOf(place));
        return stream?.hasBegun ? stream : undefined;
      },
      () => {
        run.readers.delete(reader);
        this.#forget(runId, run);
      },
    );
    run.readers.add(reader);
    return reader;
  }

  /** This process has moved a run, durably. */
  committed([first]: readonly { seq: number }[], { runId, seq, status }: RunRow): void {
    if (status === "running") this.#durable.set(runId, seq);
    else this.#durable.delete(runId);
    const run = this.#runs.get(runId);
    if (!run) return;
    for (const stream of run.streams.values()) {
      // One that had begun before what this process has just recorded, and was not known to, is of a time when it had lost the run.
      if (stream.hasBegun || !first || stream.begunAt < first.seq || stream.begunAt > seq) continue;
      stream.hasBegun = true;
      // One that has ended already has waited for this.
      if (stream.isEnded) this.#keep();
    }
    for (const reader of run.readers) reader.tell(true);
  }

  /** Something may have become of any run. Said often, it is passed on now and then. */
  heard(): void {
    if (this.#runs.size === 0 || this.#isEnded) return;
    this.#hearing ??= this.#host.clock.setTimer(() => {
      this.#hearing = undefined;
      this.#tellAll();
    }, heardMs);
  }

  #tellAll(): void {
    for (const { readers } of this.#runs.values()) for (const reader of readers) reader.tell(true);
  }

  /** Nothing more is kept, and whoever waits is to look again. */
  end(): void {
    this.#isEnded = true;
    this.#timer?.cancel();
    this.#hearing?.cancel();
    for (const stream of this.#unkept) stream.settled?.();
    this.#tellAll();
  }

  #write(stream: LiveStream, run: LiveRun, part: StreamPart): void {
    stream.add(part);
    if (stream.freshUnits === 0) return;
    for (const reader of run.readers) reader.tell(false);
    this.#unkept.add(stream);
    if (stream.freshUnits >= chunkUnits) this.#keep();
    else this.#keepIn(keepMs);
  }

  #end(stream: LiveStream, run: LiveRun): Promise<void> {
    stream.isEnded = true;
    const { place } = stream;
    const settled = (): void => {
      this.#unkept.delete(stream);
      // Whoever comes now reads what is stored.
      if (run.readers.size === 0) run.streams.delete(keyOf(place));
      else dropRead(run.streams);
      this.#forget(place.runId, run);
    };
    if (!this.#unkept.has(stream) || this.#isEnded) return Promise.resolve(settled());
    return new Promise((resolve) => {
      const timer = this.#host.clock.setTimer(() => stream.settled?.(), begunMs);
      stream.settled = () => {
        stream.settled = undefined;
        timer.cancel();
        settled();
        resolve();
      };
      this.#keep();
    });
  }

  #run(runId: string): LiveRun {
    const run = this.#runs.get(runId) ?? { streams: new Map(), readers: new Set() };
    this.#runs.set(runId, run);
    return run;
  }

  #forget(runId: string, run: LiveRun): void {
    if (run.readers.size > 0) return;
    for (const [key, stream] of run.streams) if (stream.isEnded && !this.#unkept.has(stream)) run.streams.delete(key);
    if (run.streams.size === 0 && this.#runs.get(runId) === run) this.#runs.delete(runId);
  }

  #keepIn(ms: number): void {
    if (this.#isEnded || this.#keeping) return;
    this.#timer ??= this.#host.clock.setTimer(() => {
      this.#timer = undefined;
      this.#keep();
    }, ms);
  }

  /** Sends what is not kept yet; while that is under way, once more when it is done (V2). */
  #keep(): void {
    if (this.#isEnded) return;
    this.#keepAgain = this.#keeping;
    if (this.#keeping) return;
    this.#keeping = true;
    this.#timer?.cancel();
    this.#timer = undefined;
    void this.#send().then((isKept) => {
      this.#keeping = false;
      if (this.#keepAgain && isKept) this.#keep();
      else if (this.#unkept.size > 0) this.#keepIn(isKept ? keepMs : retryMs);
    });
  }

  /** Answers whether it was kept. */
  async #send(): Promise<boolean> {
    const ready = [...this.#unkept].filter(({ hasBegun }) => hasBegun);
    for (const stream of ready) stream.chunk();
    // What has been written by then is sent; what comes meanwhile is for the next time.
    const ending = ready.filter(({ isEnded }) => isEnded);
    const chunks = ready.flatMap(({ unkept }) => unkept);
    if (chunks.length === 0) return true;
    try {
      for (let from = 0; from < chunks.length; from += largestCall)
        await this.#host.store.appendStream(chunks.slice(from, from + largestCall));
      this.#isFailing = false;
    } catch (error) {
      if (!this.#isFailing && !this.#isEnded)
        this.#host.report("what effects stream cannot be kept for readers in other processes, and for later", { error });
      this.#isFailing = true;
      // One that has ended holds up its outcome.
      for (const stream of ending) stream.settled?.();
      return false;
    }
    const sent = new Set(chunks);
    for (const stream of ready) {
      stream.unkept.splice(0, stream.unkept.findLastIndex((chunk) => sent.has(chunk)) + 1);
      if (stream.unkept.length > 0 || stream.freshUnits > 0) continue;
      this.#unkept.delete(stream);
      stream.settled?.();
    }
    return true;
  }
}

/** Who reads a run here. What it is told of waits for it until it looks. */
export class RunReader {
  /** The stream of an attempt, if it was made in this process and is still at hand. */
  readonly streamOf: (place: Pick<StreamPlace, "effectId" | "attempt">) => LiveStream | undefined;
  readonly leave: () => void;
  readonly #clock: Clock;
  #told = { any: false, records: false };
  #wake: (() => void) | undefined;

  constructor(clock: Clock, streamOf: RunReader["streamOf"], leave: () => void) {
    this.#clock = clock;
    this.streamOf = streamOf;
    this.leave = leave;
  }

  /** @param records Whether there may be more than parts of streams. */
  tell(records: boolean): void {
    this.#told.any = true;
    this.#told.records ||= records;
    this.#wake?.();
  }

  /** Resolves when it is told something, or after `ms`. Answers whether there may be records. Holds the process open. */
  told(ms: number): Promise<boolean> {
    if (this.#told.any) return Promise.resolve(this.#heed());
    return new Promise((resolve) => {
      const wake = (late: boolean): void => {
        timer.cancel();
        this.#wake = undefined;
        resolve(this.#heed() || late);
      };
      const timer = this.#clock.setTimer(() => wake(true), ms, true);
      this.#wake = () => wake(false);
    });
  }

  #heed(): boolean {
    const { records } = this.#told;
    this.#told = { any: false, records: false };
    return records;
  }
}

function keyOf({ effectId, attempt }: Pick<StreamPlace, "effectId" | "attempt">): string {
  return `${attempt} ${effectId}`;
}

/** Lets go of the oldest streams that have ended when there is too much of them. */
function dropRead(streams: Map<string, LiveStream>): void {
  const ended = [...streams].filter(([, { isEnded }]) => isEnded);
  let units = ended.reduce((sum, [, stream]) => sum + stream.units, 0);
  for (const [key, stream] of ended.slice(0, -1)) {
    if (units <= readersUnits) return;
    streams.delete(key);
    units -= stream.units;
  }
}
