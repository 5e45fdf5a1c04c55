/** Keeps what the memory store holds in files: what a turn has changed becomes one write of the journal. */
import type { Clock } from "../../kernel/clock.ts";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import type { Json } from "../../kernel/json.ts";
import { isObject, parseJson } from "../../kernel/json.ts";
import type { BlobStore } from "../../kernel/artifact-row.ts";
import { Contents, type Making, type Run } from "../memory/contents.ts";
import type { Keeper } from "../memory/index.ts";
import { FileBlobs } from "./blobs.ts";
import type { Change, Journal } from "./journal.ts";
import { loadRun } from "./load-run.ts";
import { RunFiles } from "./run-files.ts";
import { allLines, isMostlyPast, LoggedMap, restoreLines, takeLines } from "./tables.ts";

const storeFormat = 1;
/** What belongs to no run, as a log of changes. */
const storeFile = "store.jsonl";

export class FilesKeeper implements Keeper {
  readonly blobs: BlobStore;
  readonly #journal: Journal;
  readonly #name: string;
  readonly #clock: Clock;
  readonly #make: Making;
  #storeBytes = 0;
  /** The numbers among the members of the contents, as they are kept. */
  #numbers: Record<string, number> = {};
  #kept: Contents | undefined;
  readonly #unlock: () => void;
  #isClosed = false;

  constructor(journal: Journal, name: string, clock: Clock, unlock: () => void) {
    this.#journal = journal;
    this.#name = name;
    this.#clock = clock;
    this.#unlock = unlock;
    this.blobs = new FileBlobs(name, journal.path("blobs"), journal.fs, clock, () => {
      if (this.#isClosed) throw new AbstractRuntimeError("STORE_CLOSED", { store: name });
    });
    this.#make = { table: () => new LoggedMap(), ledger: (runId) => new RunFiles(runId, journal) };
  }

  /** @throws STORE_CORRUPT, FORMAT_NEWER */
  contents(): Contents {
    this.#journal.settle();
    const contents = new Contents(this.#make);
    const changes = this.#loadStore(contents);
    const loaded = this.#journal
      .directories("runs")
      .flatMap((name) => loadRun(name, this.#journal, this.#make, this.#clock.now()) ?? []);
    // A run whose number is lost comes last.
    const place = ({ number }: Run): number => number || Number.POSITIVE_INFINITY;
    loaded.sort((a, b) => place(a.run) - place(b.run) || a.run.row.createdAt - b.run.row.createdAt);
    for (const { run, isChanged } of loaded) {
      run.number ||= contents.lastNumber + 1;
      contents.add(run);
      if (isChanged) changes.push(...(run.records as RunFiles).changes(run));
    }
    if (changes.length > 0) this.#journal.write(changes);
    this.#kept = contents;
    return contents;
  }

  ready(): void {
    this.#journal.ready();
  }

  keep(contents: Contents): void {
    const changes: Change[] = [];
    for (const run of contents.changed) {
      const files = run.records as RunFiles;
      if (contents.runs.get(run.row.runId) === run) changes.push(...files.changes(run));
      else if (files.isKept) changes.push({ remove: files.directory });
    }
    const text = takeLines(contents) + this.#changedNumbers(contents);
    if (text !== "") {
      changes.push({ write: storeFile, at: this.#storeBytes, text });
      this.#storeBytes += Buffer.byteLength(text);
    }
    if (changes.length > 0) this.#journal.write(changes);
  }

  sizeBytes(): number {
    let sizeBytes = this.#journal.sizeBytes() + this.#storeBytes;
    for (const run of this.#kept?.runs.values() ?? []) sizeBytes += (run.records as RunFiles).sizeBytes;
    return sizeBytes;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    try {
      await this.#journal.close();
    } finally {
      this.#unlock();
    }
  }

  /** Answers what must be changed for the store's own file to be in order. */
  #loadStore(contents: Contents): Change[] {
    const first = `${JSON.stringify({ store: "abstractruntime", format: storeFormat })}\n`;
    const bytes = this.#journal.read(storeFile);
    if (!bytes) {
      if (this.#journal.directories("runs").length > 0) throw this.#corrupt(`${storeFile} is missing, and there are runs`);
      this.#storeBytes = Buffer.byteLength(first);
      return [{ write: storeFile, at: 0, text: first }];
    }
    // What has no end was cut off by a crash: it was never answered.
    const text = bytes.toString("utf8", 0, bytes.lastIndexOf(10) + 1);
    const [header = "", ...lines] = text.split("\n");
    const format = formatOf(header);
    if (format === undefined) throw this.#corrupt(`${storeFile} does not begin as one`);
    if (format > storeFormat)
      throw new AbstractRuntimeError("FORMAT_NEWER", { what: `the store ${this.#name}`, found: format, known: storeFormat });
    this.#numbers = {};
    const others = lines.map((line) => {
      const found = numberOf(line);
      if (found) this.#numbers[found.number] = found.value;
      return found ? "" : line;
    });
    const damaged = restoreLines(contents, others.join("\n"));
    if (damaged.length > 0) throw this.#corrupt(`line ${(damaged[0] as number) + 1} of ${storeFile} cannot be read`);
    Object.assign(contents, this.#numbers);
    this.#storeBytes = Buffer.byteLength(text);
    const present = first + allLines(contents) + Object.entries(this.#numbers).map(numberLine).join("");
    if (!isMostlyPast(this.#storeBytes, present)) return [];
    this.#storeBytes = Buffer.byteLength(present);
    return [{ replace: storeFile, text: present }];
  }

  #changedNumbers(contents: Contents): string {
    let text = "";
    for (const [name, value] of Object.entries(contents)) {
      if (typeof value !== "number" || this.#numbers[name] === value) continue;
      this.#numbers[name] = value;
      text += numberLine([name, value]);
    }
    return text;
  }

  #corrupt(problem: string): AbstractRuntimeError<"STORE_CORRUPT"> {
    return new AbstractRuntimeError("STORE_CORRUPT", { store: this.#name, problem });
  }
}

function numberLine([number, value]: [string, number]): string {
  return `${JSON.stringify({ number, value })}\n`;
}

/** Undefined when the line has none. */
function numberOf(line: string): { number: string; value: number } | undefined {
  if (!line.startsWith('{"number":')) return undefined;
  try {
    const found = parseJson(line) as { number: Json; value: Json } | null;
    return typeof found?.number === "string" && typeof found.value === "number"
      ? { number: found.number, value: found.value }
      : undefined;
  } catch {
    return undefined;
  }
}

function formatOf(header: string): number | undefined {
  try {
    const value: Json = parseJson(header);
    return isObject(value) && value.store === "abstractruntime" && typeof value.format === "number" ? value.format : undefined;
  } catch {
    return undefined;
  }
}
