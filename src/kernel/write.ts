/**
 * Writes one run's ledger: what is decided is appended and folded at once, then handed to the store as one transition.
 *
 * W1. The state changes by `append` and nothing else.
 * W2. Batches are sent in order and may follow each other before the first is durable (S3). When one fails, the writer is broken:
 *     it sends nothing more, and the run is as the store has it.
 * W3. A checkpoint travels with the batch that makes it due (L4).
 */
import { artifactIdsIn, mayRefer } from "./artifact.ts";
import type { DriveHost } from "./drive-host.ts";
import { AbstractRuntimeError, errorData } from "./errors.ts";
import { fold } from "./fold.ts";
import type { Restored } from "./restore.ts";
import { encodeRecord, type LedgerRecord, type RecordDraft, type StoredRecord } from "./record.ts";
import { endMessage } from "./child.ts";
import { encodeState, indexedOf, isEnded, openWait, type OpenWait, rowOf, type RunState, type WaitState } from "./run.ts";
import { checkpointDue } from "./checkpoint.ts";
import { copiedLength } from "./patch.ts";
import type { CounterChange, Lease, NewRun, Transition } from "./transition.ts";
import type { Mail, Message } from "./message.ts";
import type { Scalar } from "./query.ts";

const maxBatchRecords = 256;
const maxBatchBytes = 1024 * 1024;
const maxBatchMs = 5;

export interface AppendOptions {
  node?: string;
  actorId?: string;
  isSmall?: boolean;
  ifPlain?: boolean;
}

export class Writer {
  readonly #host: DriveHost;
  readonly #lease: Lease;
  #state: RunState;
  #broken: { error: unknown } | undefined;

  // What is appended and not sent.
  #batch: StoredRecord[] = [];
  #records: LedgerRecord[] = [];
  #take: string[] = [];
  /** Ids of the artifacts that the batch refers to. */
  #artifacts = new Set<string>();
  #start: NewRun[] = [];
  #tell: Message[] = [];
  #counters: CounterChange[] = [];
  #archived: { before: number; base: string } | undefined;
  /** The waits that the store knows, and whether there may be others now. */
  readonly #waits = new Map<string, WaitState>();
  #waitsMayDiffer = false;
  /** The indexed vars that the store knows. */
  #indexed: Record<string, Scalar>;
  #endSent = false;
  #sentSeq: number;
  #batchBytes = 0;

  // What is sent and not known to be durable.
  #inFlight: Promise<unknown> | undefined;
  #inFlightRecords = 0;
  #inFlightBytes = 0;

  /** The trace context that the next record is to carry. */
  #trace: string | undefined;

  /** At least the size of the vars; made exact when it passes the limit. */
  #varsBound: number;
  #sizeSinceCheckpoint: number;
  #checkpoint: Restored["checkpoint"];

  /**
   * @param created For a run that is being created in this turn: settles when it is durable.
   * @param trace The trace context that the first record carries.
   */
  constructor(
    host: DriveHost,
    lease: Lease,
    { state, checkpoint, tailSize, varsBound }: Restored,
    created?: Promise<unknown>,
    trace?: string,
  ) {
    this.#host = host;
    this.#trace = trace;
    this.#lease = lease;
    this.#state = state;
    this.#inFlight = created;
    this.#sentSeq = state.seq;
    this.#checkpoint = checkpoint;
    this.#sizeSinceCheckpoint = tailSize;
    this.#varsBound = varsBound;
    this.#indexed = indexedOf(this.#state);
    this.#endSent = isEnded(this.#state);
    if (!this.#endSent) for (const { id, wait } of this.#state.open.values()) if (wait) this.#waits.set(id, wait);
  }

  get state(): RunState {
    return this.#state;
  }

  /** What another writer could go on from, once all is durable. */
  get restored(): Restored {
    const varsBound = this.#varsBound;
    return { state: this.#state, checkpoint: this.#checkpoint, tailSize: this.#sizeSinceCheckpoint, varsBound };
  }

  get broken(): { error: unknown } | undefined {
    return this.#broken;
  }

  /** Nothing is sent from now on. The first reason stays. */
  break(error: unknown): void {
    this.#broken ??= { error };
  }

  /**
   * Encodes, checks and folds. Either all drafts are appended or, with TOO_LARGE, none. Answers whether they were.
   *
   * @param as.ifPlain Not when they may refer to artifacts or hold a text that should become one. That is seen by their texts, at no
   *   cost; who wants to know has to look.
   * @param as.actorId Who causes them, where that is not the run's actor.
   * @param as.isSmall The drafts hold nothing from users but an error, which is cut: they are recorded whatever the limit is, since
   *   a run whose failure cannot be recorded would fail again for ever.
   */
  append(drafts: readonly RecordDraft[], as: AppendOptions = {}): boolean {
    const { runId, step, seq, head, open } = this.#state;
    const at = this.#host.now();
    const actorId = as.actorId ?? this.#state.actorId;
    let prev = head;
    const encoded = drafts.map((draft, i) => {
      // All records of an effect stand under the name that its plan gave the step.
      const node = as.node ?? (draft.effectId === undefined ? undefined : open.get(draft.effectId)?.node) ?? this.#state.node;
      const place = { runId, seq: seq + 1 + i, prev, at, step, node, actorId, trace: i === 0 ? this.#trace : undefined };
      const entry = encodeRecord(draft, place, this.#host.ids.salt(), this.#host.hashText);
      prev = entry.stored.hash;
      return entry;
    });
    if (as.ifPlain && !encoded.every(({ stored }) => this.#isPlain(stored.body as string))) return false;
    if (!as.isSmall)
      for (const { record, stored } of encoded)
        checkSize(runId, `a ${record.kind} record`, stored.body as string, this.#host.limits.recordBytes);
    if (encoded.length > 0) this.#trace = undefined;
    for (const { record, stored } of encoded) {
      this.#state = fold(this.#state, record);
      if (record.kind !== "step" && record.kind !== "effect_started") this.#waitsMayDiffer = true;
      if (record.kind === "control" && record.data.action === "retry") this.#endSent = false;
      this.#batch.push(stored);
      for (const id of artifactIdsIn(stored.body as string, record.data)) this.#artifacts.add(id);
      if (this.#host.committed) this.#records.push(record);
      this.#batchBytes += stored.header.length + (stored.body as string).length;
      this.#varsBound += (stored.body as string).length + copiedLength(stored.body as string);
    }
    return true;
  }

  #isPlain(body: string): boolean {
    // No character takes more than three bytes of UTF-8 for one of its UTF-16 units.
    return body.length * 3 <= this.#host.limits.offloadBytes && !mayRefer(body);
  }

  /** A message was taken by what is being appended. */
  take(messageId: string): void {
    this.#take.push(messageId);
  }

  /** A child begins with what is being appended. */
  start(child: NewRun): void {
    this.#start.push(child);
  }

  /** A message to another run goes with what is being appended. */
  tell(message: Message): void {
    this.#tell.push(message);
  }

  /** Counters change with what is being appended. */
  count(changes: readonly CounterChange[]): void {
    this.#counters.push(...changes);
  }

  /** Records before a seq are removed with what is being appended; `base` is the checkpoint that stands for them. */
  archive(before: number, base: string): void {
    this.#archived = { before, base };
  }

  get unsent(): boolean {
    return this.#batch.length > 0 || this.#take.length > 0 || this.#start.length > 0 || this.#tell.length > 0;
  }

  /** Whether run-ahead has reached its bound (L3): 256 records, 1 MiB, or 5 ms of the event loop's time, which all drivers share. */
  get full(): boolean {
    const { length } = this.#batch;
    return (
      length + this.#inFlightRecords >= maxBatchRecords ||
      this.#batchBytes + this.#inFlightBytes >= maxBatchBytes ||
      (length > 0 && this.#host.loopBusyMs() >= maxBatchMs)
    );
  }

  /** Hands the batch to the store. Answers the mail that kept the lease from being released. */
  send(options: { release: boolean; mailSeen: number }): Promise<Mail[]> {
    if (this.#broken) return Promise.reject(this.#broken.error);
    const { transition, durable } = this.handOver(options);
    const sent = this.#host.store.commit([transition]).then(
      ([mail = []]) => {
        durable();
        return mail;
      },
      (error: unknown) => {
        this.break(error);
        throw error;
      },
    );
    // A failure is kept in `broken`; the promise itself may have no reader left.
    sent.catch(() => undefined);
    this.#inFlight = sent;
    return sent;
  }

  /** The batch, for whoever commits it and says once it is durable. */
  handOver(options: { release: boolean; mailSeen: number }): { transition: Transition; durable(): void } {
    const bytes = this.#batchBytes;
    const { transition, records } = this.#transition(options);
    const count = transition.records.length;
    this.#inFlightRecords += count;
    this.#inFlightBytes += bytes;
    return {
      transition,
      durable: () => {
        this.#inFlightRecords -= count;
        this.#inFlightBytes -= bytes;
        if (transition.start.length > 0) this.#host.started?.(transition.start);
        this.#host.committed?.(records, transition.row);
        if (count > 0) this.#host.instrument?.committed(count);
        const reached = [...transition.start.map(({ row }) => row.runId), ...transition.send.map(({ runId }) => runId)];
        if (reached.length > 0) this.#host.reached?.(reached);
      },
    };
  }

  /** Resolves when everything sent is durable; the event loop has had its turn. Rejects when it cannot be. */
  async settled(): Promise<void> {
    await this.#inFlight;
    if (this.#broken) throw this.#broken.error;
  }

  /** The failure to end the run with when its vars have grown past their limit. Their size is computed only when it may have. */
  varsProblem(): RecordDraft | undefined {
    if (this.#varsBound <= this.#host.limits.varsBytes) return undefined;
    const text = JSON.stringify(this.#state.vars);
    this.#varsBound = Buffer.byteLength(text);
    try {
      checkSize(this.#state.runId, "the vars", text, this.#host.limits.varsBytes);
      return undefined;
    } catch (error) {
      return { kind: "run_failed", data: { error: errorData(error) } };
    }
  }

  #changedWaits(): { open: OpenWait[]; close: string[] } | undefined {
    const opened: OpenWait[] = [];
    const closed: string[] = [];
    const { open } = this.#state;
    const ended = isEnded(this.#state);
    for (const [id, wait] of this.#waits) {
      const effect = open.get(id);
      if (!ended && effect?.wait === wait && effect.phase !== "failed") continue;
      this.#waits.delete(id);
      closed.push(id);
    }
    if (!ended) {
      for (const effect of open.values()) {
        if (!effect.wait || effect.phase === "failed" || this.#waits.has(effect.id)) continue;
        this.#waits.set(effect.id, effect.wait);
        opened.push(openWait(effect));
      }
    }
    return opened.length > 0 || closed.length > 0 ? { open: opened, close: closed } : undefined;
  }

  #changedIndexed(): Record<string, Scalar | null> | undefined {
    if (!this.#state.index) return undefined;
    const now = indexedOf(this.#state);
    const changed: Record<string, Scalar | null> = {};
    for (const path of this.#state.index) if (now[path] !== this.#indexed[path]) changed[path] = now[path] ?? null;
    this.#indexed = now;
    return Object.keys(changed).length > 0 ? changed : undefined;
  }

  /** A state too large for one text has no checkpoint; its ledger has everything. */
  #encodeState(): string | undefined {
    try {
      return encodeState(this.#state);
    } catch (error) {
      this.#host.log.warn("a checkpoint could not be written", { runId: this.#state.runId, error });
      return undefined;
    }
  }

  #transition({ release, mailSeen }: { release: boolean; mailSeen: number }): {
    transition: Transition;
    records: LedgerRecord[];
  } {
    const state = this.#state;
    const waits = this.#waitsMayDiffer ? this.#changedWaits() : undefined;
    this.#waitsMayDiffer = false;
    const indexed = this.#changedIndexed();
    const end = isEnded(state) && !this.#endSent ? endMessage(state) : undefined;
    if (end) this.#endSent = true;
    const transition: Transition = {
      runId: state.runId,
      lease: this.#lease,
      after: this.#sentSeq,
      records: this.#batch,
      row: rowOf(state),
      ...(waits ? { waits } : {}),
      ...(indexed ? { indexed } : {}),
      ...(this.#artifacts.size > 0 ? { artifacts: [...this.#artifacts] } : {}),
      take: this.#take,
      send: end ? [...this.#tell, end] : this.#tell,
      start: this.#start,
      release,
      mailSeen,
      ...(this.#counters.length > 0 ? { counters: this.#counters } : {}),
    };
    this.#sizeSinceCheckpoint += this.#batchBytes;
    if (this.#archived) {
      const { before, base } = this.#archived;
      transition.dropBefore = before;
      transition.checkpoint = { seq: before - 1, ordinal: 0, text: base };
      this.#archived = undefined;
    } else if (!isEnded(state) && checkpointDue(this.#sizeSinceCheckpoint, this.#checkpoint.size)) {
      this.#sizeSinceCheckpoint = 0;
      const text = this.#encodeState();
      if (text !== undefined) {
        this.#checkpoint = { size: text.length, ordinal: this.#checkpoint.ordinal + 1 };
        transition.checkpoint = { seq: state.seq, ordinal: this.#checkpoint.ordinal, text };
      }
    }
    const records = this.#records;
    this.#sentSeq = state.seq;
    this.#batch = [];
    this.#records = [];
    this.#take = [];
    if (this.#artifacts.size > 0) this.#artifacts = new Set();
    this.#start = [];
    this.#tell = [];
    if (this.#counters.length > 0) this.#counters = [];
    this.#batchBytes = 0;
    return { transition, records };
  }
}

/** @throws TOO_LARGE */
export function checkSize(runId: string, what: string, text: string, limitBytes: number): void {
  // No character takes more than three bytes of UTF-8 for one of its UTF-16 units.
  if (text.length * 3 <= limitBytes) return;
  const sizeBytes = Buffer.byteLength(text);
  if (sizeBytes > limitBytes)
    throw new AbstractRuntimeError("TOO_LARGE", { what: `${what} of run ${runId}`, sizeBytes, limitBytes });
}
