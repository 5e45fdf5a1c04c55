/**
 * The files of one run, in a directory of its own:
 *
 * - `ledger.jsonl`: its records, which are only ever added to;
 * - `mailbox.jsonl`: what it was sent and waits for, as a log of changes;
 * - `checkpoint-N.txt`;
 * - `run.json`: the row, and how far the others reach. What is behind that is what a crash has left.
 *
 * Records and checkpoints are read when they are asked for; the rest is in memory.
 */
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { Checkpoint } from "../../kernel/checkpoint.ts";
import { fileError } from "../file-errors.ts";
import type { Ledger, Run } from "../memory/contents.ts";
import { type Change, isMissing, type Journal } from "./journal.ts";
import { nameOf } from "./names.ts";
import { lineOf, recordOf } from "./record-line.ts";
import { allLines, isMostlyPast, LoggedMap, takeLines } from "./tables.ts";

export const runFormat = 1;

/** How far the files of a run reach. */
export interface Reach {
  /** Seqs of the first record that is kept and of the next one. */
  ledger: { first: number; next: number; sizeBytes: number };
  mailboxBytes: number;
  /** Oldest first; `at` is where the records behind it begin in the ledger, where that is known. */
  checkpoints: { seq: number; ordinal: number; at?: number }[];
}

/** What `run.json` shows of the waits and the mail, for people: the mailbox has them all. */
const shown = 20;
const chunkBytes = 262_144;
const largestChunk = 4_194_304;
const leastLookBytes = 1_048_576;

export class RunFiles implements Ledger {
  readonly directory: string;
  readonly #runId: string;
  readonly #journal: Journal;
  /** Seqs of the first record that the files hold and of the one behind the last. */
  #held = { first: 0, next: 0 };
  #sizeBytes = 0;
  #mailboxBytes = 0;
  /** When the mailbox has grown to this, it is looked whether most of it is past: what was streamed, above all. */
  #lookAt = leastLookBytes;
  /** The mailbox without its past, before that is written. */
  #mailbox: string | undefined;
  #checkpoints: Reach["checkpoints"] = [];
  /** Records that the files do not have yet. */
  #fresh: StoredRecord[] = [];
  first = 0;
  /** Where a reader that goes on from the last one begins. */
  #lastRead: { seq: number; at: number } | undefined;
  /** Whether there are files. */
  isKept = false;
  /** Why they may not be changed. */
  unreadable: string | undefined;

  constructor(runId: string, journal: Journal) {
    this.#runId = runId;
    this.#journal = journal;
    this.directory = `runs/${nameOf(runId)}`;
  }

  /** As the files are. */
  restore({ ledger, mailboxBytes, checkpoints }: Reach): void {
    this.#held = { first: ledger.first, next: ledger.next };
    this.first = ledger.first;
    this.#sizeBytes = ledger.sizeBytes;
    this.#mailboxBytes = mailboxBytes;
    this.#checkpoints = checkpoints;
    this.isKept = true;
  }

  get next(): number {
    return this.#held.next + this.#fresh.length;
  }

  hashOf(seq: number): string | undefined {
    return seq >= this.first && seq < this.next ? this.slice(seq, seq + 1)[0]?.hash : undefined;
  }

  push(record: StoredRecord): void {
    this.#fresh.push({ ...record });
  }

  drop(before: number): void {
    if (before <= this.first) return;
    this.first = before;
    if (before < this.next) return;
    // None is left: the next one has that seq.
    this.#fresh = [];
    this.#held.next = before;
  }

  /** @throws RECORD_CORRUPT when a line cannot be read, or is not there. */
  slice(from: number, to: number): StoredRecord[] {
    const { next } = this.#held;
    const start = Math.max(this.first, from);
    const held = start < Math.min(to, next) ? this.#read(start, Math.min(to, next)) : [];
    const fresh = this.#fresh.slice(Math.max(0, start - next), Math.max(0, to - next));
    return [...held, ...fresh.map((record) => ({ ...record }))];
  }

  checkpoint({ seq, ordinal }: { seq: number; ordinal: number }): Checkpoint {
    const read = (): string => this.#readText(this.#checkpointPath(ordinal));
    return {
      seq,
      ordinal,
      get text() {
        return read();
      },
    };
  }

  get sizeBytes(): number {
    return this.#sizeBytes + this.#mailboxBytes;
  }

  /** Has the mailbox written without its past, with the next changes, where that is most of it. */
  forgetPast(run: Run, sizeBytes: number): boolean {
    const present = allLines(run);
    if (run.blocked || !isMostlyPast(sizeBytes, present)) return false;
    this.#mailbox = present;
    return true;
  }

  /** What must be changed for the files to have what the run has. Once they were asked for, the changes count as made. */
  changes(run: Run): Change[] {
    if (this.unreadable !== undefined)
      throw new AbstractRuntimeError("STORE_UNAVAILABLE", { store: this.#journal.store, problem: this.unreadable });
    const changes: Change[] = [];
    const add = (path: string, at: number, text: string): number => {
      if (text !== "") changes.push({ write: path, at, text });
      return at + Buffer.byteLength(text);
    };
    // What is left in its place, of a run that was purged, say, is not part of it.
    if (!this.isKept && this.#journal.fs.existsSync(this.#journal.path(this.directory))) changes.push({ remove: this.directory });
    this.isKept = true;

    const isCut = this.first > this.#held.first;
    const records = isCut ? this.slice(this.first, this.next) : this.#fresh;
    const checkpoints: Reach["checkpoints"] = run.checkpoints.map(({ seq, ordinal }) => ({ seq, ordinal }));
    const start = isCut ? 0 : this.#sizeBytes;
    let at = start;
    const lines = records.map((record) => {
      const line = lineOf(record);
      at += Buffer.byteLength(line);
      for (const checkpoint of checkpoints) if (checkpoint.seq === record.seq) checkpoint.at = at;
      return line;
    });
    const ledger = `${this.directory}/ledger.jsonl`;
    if (isCut) changes.push({ replace: ledger, text: lines.join("") });
    else add(ledger, start, lines.join(""));
    this.#sizeBytes = at;
    this.#held = { first: this.first, next: this.next };
    this.#fresh = [];
    if (isCut) this.#lastRead = undefined;
    const mailbox = `${this.directory}/mailbox.jsonl`;
    if (this.#mailbox !== undefined) {
      changes.push({ replace: mailbox, text: this.#mailbox });
      this.#mailboxBytes = Buffer.byteLength(this.#mailbox);
      this.#mailbox = undefined;
    }
    const present = this.#mailboxBytes >= this.#lookAt ? allLines(run) : undefined;
    if (present !== undefined) this.#lookAt = Math.max(leastLookBytes, 4 * Buffer.byteLength(present));
    const news = takeLines(run);
    if (present !== undefined && !run.blocked && isMostlyPast(this.#mailboxBytes, present)) {
      changes.push({ replace: mailbox, text: present });
      this.#mailboxBytes = Buffer.byteLength(present);
    } else this.#mailboxBytes = add(mailbox, this.#mailboxBytes, news);

    const before = new Map(this.#checkpoints.map((checkpoint) => [checkpoint.ordinal, checkpoint]));
    this.#checkpoints = checkpoints.map((checkpoint, i) => {
      const kept = before.get(checkpoint.ordinal);
      if (kept?.seq === checkpoint.seq) return isCut ? checkpoint : kept;
      changes.push({ replace: this.#checkpointPath(checkpoint.ordinal), text: run.checkpoints[i]?.text ?? "" });
      run.checkpoints[i] = this.checkpoint(checkpoint);
      return checkpoint;
    });
    const kept = new Set(checkpoints.map(({ ordinal }) => ordinal));
    for (const ordinal of before.keys()) if (!kept.has(ordinal)) changes.push({ remove: this.#checkpointPath(ordinal) });

    changes.push({ replace: `${this.directory}/run.json`, text: this.#runText(run), often: true });
    return changes;
  }

  #runText({ row, records: _, checkpoints, ...members }: Run): string {
    const plain: Record<string, unknown> = {};
    for (const [name, value] of Object.entries(members)) {
      if (value instanceof LoggedMap) continue;
      if (value instanceof Map) throw new RangeError(`Table "${name}" was not made by \`make.table()\`: it would not be kept.`);
      plain[name] = value instanceof Set ? [...value] : value;
    }
    const reach: Reach = {
      ledger: { ...this.#held, sizeBytes: this.#sizeBytes },
      mailboxBytes: this.#mailboxBytes,
      checkpoints: this.#checkpoints,
    };
    const { waits, mail } = members;
    const look = {
      waits: firstOf(waits.values(), shown),
      openWaits: waits.size,
      mail: firstOf(mail.values(), shown).map(({ payload: _, ...letter }) => letter),
      openMail: mail.size,
    };
    return `${JSON.stringify({ format: runFormat, row, kept: plain, reach, look }, null, 2)}\n`;
  }

  #checkpointPath(ordinal: number): string {
    return `${this.directory}/checkpoint-${ordinal}.txt`;
  }

  /** Empty when it cannot be read: as a checkpoint that is no good, of which the ledger knows better (L7). */
  #readText(path: string): string {
    try {
      return this.#journal.read(path)?.toString("utf8") ?? "";
    } catch {
      return "";
    }
  }

  #read(from: number, to: number): StoredRecord[] {
    this.#journal.settle();
    let { seq, at } = this.#placeBefore(from);
    const records: StoredRecord[] = [];
    for (const line of this.#lines(at, to === this.#held.next ? this.#sizeBytes : undefined)) {
      if (seq === to) break;
      at += line.length + 1;
      if (seq >= from) {
        const record = recordOf(line.toString("utf8"));
        if (record?.seq !== seq) throw this.#corrupt(seq, "its line in ledger.jsonl cannot be read");
        records.push(record);
      }
      seq += 1;
    }
    if (seq < to) throw this.#corrupt(seq, "its line is missing from ledger.jsonl");
    this.#lastRead = { seq, at };
    return records;
  }

  /** Where the nearest record begins of which that is known. */
  #placeBefore(seq: number): { seq: number; at: number } {
    const places = this.#checkpoints.flatMap(({ seq, at }) => (at === undefined ? [] : [{ seq: seq + 1, at }]));
    if (this.#lastRead) places.push(this.#lastRead);
    const nearer = places.filter((place) => place.seq <= seq);
    return nearer.reduce((a, b) => (b.seq > a.seq ? b : a), { seq: this.#held.first, at: 0 });
  }

  /** The lines of the ledger from a byte on, without their ends; a last one that has no end is none. */
  *#lines(from: number, end: number | undefined): Generator<Buffer> {
    const { fs } = this.#journal;
    const fd = this.#guarded(() => fs.openSync(this.#journal.path(`${this.directory}/ledger.jsonl`), fs.constants.O_RDONLY));
    if (fd === undefined) return;
    try {
      let at = from;
      let rest = Buffer.alloc(0);
      for (;;) {
        const left = end === undefined ? chunkBytes : end - at;
        if (left <= 0) return;
        const wanted = Math.min(left, largestChunk);
        const chunk = Buffer.allocUnsafe(wanted);
        const size = this.#guarded(() => fs.readSync(fd, chunk, 0, wanted, at)) ?? 0;
        if (size === 0) return;
        at += size;
        rest = rest.length === 0 ? chunk.subarray(0, size) : Buffer.concat([rest, chunk.subarray(0, size)]);
        let start = 0;
        for (let stop = rest.indexOf(10); stop >= 0; stop = rest.indexOf(10, start)) {
          yield rest.subarray(start, stop);
          start = stop + 1;
        }
        rest = rest.subarray(start);
      }
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Undefined when the file is missing: then so is each of its records. */
  #guarded<T>(action: () => T): T | undefined {
    try {
      return action();
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw fileError(error, this.#journal.store);
    }
  }

  #corrupt(seq: number, problem: string): AbstractRuntimeError<"RECORD_CORRUPT"> {
    return new AbstractRuntimeError("RECORD_CORRUPT", { runId: this.#runId, seq, problem });
  }
}

function firstOf<T>(values: Iterable<T>, count: number): T[] {
  const first: T[] = [];
  for (const value of values) {
    if (first.length === count) break;
    first.push(value);
  }
  return first;
}
