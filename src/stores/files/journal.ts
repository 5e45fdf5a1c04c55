/**
 * What makes many changes to files one, and durable: they are written to a write-ahead file first.
 *
 * J1. Changes are done as soon as the write-ahead file has them and is synced. Only then are the files themselves changed, without
 *     waiting for the disk.
 * J2. A change says what a file is afterwards, never what to do with what it finds. So whatever a crash has left of the files, doing
 *     all changes of the write-ahead files again, in order, makes them right.
 * J3. A write-ahead file is removed when all files that it names, and their directories, were synced.
 * J4. A file that is replaced again and again is written now and then: between, what it is to be stands in memory, and is what is read.
 * J5. After a sync that failed nobody knows what is on the disk: nothing more is written or read until the store is opened again.
 */
import type * as nodeFs from "node:fs";
import { dirname, join } from "node:path";
import { AbstractRuntimeError } from "../../kernel/errors.ts";
import { parseJson } from "../../kernel/json.ts";
import { sha256 } from "../../kernel/record.ts";
import { fileError } from "../file-errors.ts";

/** The part of node:fs that is used. Replaced by tests in which it fails. */
export type FileSystem = Pick<
  typeof nodeFs,
  | "closeSync"
  | "existsSync"
  | "fdatasyncSync"
  | "fstatSync"
  | "fsyncSync"
  | "ftruncateSync"
  | "mkdirSync"
  | "openSync"
  | "readdirSync"
  | "readFileSync"
  | "readSync"
  | "renameSync"
  | "rmSync"
  | "writeSync"
  | "constants"
  | "promises"
>;

/** Paths are relative to the store's directory. */
export type Change =
  /** This text from this byte on, and then the end of the file. */
  | { write: string; at: number; text: string }
  /** Another file, in one step; one that is replaced often may be so later (J4). */
  | { replace: string; text: string; often?: true }
  /** A file or directory. */
  | { remove: string };

interface Ahead {
  path: string;
  sizeBytes: number;
}

interface OpenAhead extends Ahead {
  fd: number;
}

/** A write-ahead file that is larger is not left when the store is closed, so that opening it again is quick. */
const leftBytes = 131_072;
/** The write-ahead file is removed, once the files are synced, when it has grown to this. */
const largestBytes = 8_388_608;
/** What must fit on a disk that was full, before a turn is tried again. */
const reserveBytes = 65_536;
/** So few files are synced without giving the event loop its turn. */
const syncedAtOnce = 100;
const syncedSideBySide = 8;
/** How far a file that people read may be behind. */
const behindMs = 200;

export class Journal {
  readonly fs: FileSystem;
  readonly #root: string;
  /** Names it in messages. */
  readonly store: string;
  /** The write-ahead file that is written; it is opened with the first write. */
  #ahead: Ahead | OpenAhead | undefined;
  #number = 0;
  /** Older ones, which are not removed yet. */
  #older: string[] = [];
  /** What the write-ahead files name. */
  #touched = new Set<string>();
  /** Done by J1, and not yet made to the files: the disk is full, say. */
  #pending: Change[] = [];
  /** The texts of files that are to be replaced (J4). */
  readonly #behind = new Map<string, string>();
  #catchingUp: NodeJS.Timeout | undefined;
  #flushing: Promise<void> | undefined;
  #wasFull = false;
  #broken: unknown;

  /** @throws STORE_CORRUPT */
  constructor(root: string, store: string, fs: FileSystem) {
    this.#root = root;
    this.store = store;
    this.fs = fs;
    const names = fs.readdirSync(root).filter((name) => /^ahead-\d+\.log$/.test(name));
    this.#older = names.sort((a, b) => numberOf(a) - numberOf(b));
    this.#number = numberOf(this.#older.at(-1) ?? "0");
    const found = this.#older.map((name) => this.#read(name));
    this.#pending = found.flatMap(({ changes }) => changes);
    try {
      this.settle();
    } catch (error) {
      clearTimeout(this.#catchingUp);
      throw error;
    }
    // One that has nothing may not be named on the disk either: another is begun then.
    const path = this.#older.at(-1);
    const sizeBytes = found.at(-1)?.sizeBytes ?? 0;
    if (path === undefined || sizeBytes === 0) return;
    this.#older.pop();
    this.#ahead = { path, sizeBytes };
  }

  path(relative: string): string {
    return join(this.#root, relative);
  }

  sizeBytes(): number {
    return this.#ahead?.sizeBytes ?? 0;
  }

  /** @throws STORE_FULL, STORE_UNAVAILABLE */
  ready(): void {
    this.settle();
    if (!this.#wasFull) return;
    this.#guarded(() => {
      const { fd, sizeBytes } = this.#opened();
      try {
        writeAll(this.fs, fd, Buffer.alloc(reserveBytes), sizeBytes);
      } finally {
        this.#cut(fd, sizeBytes);
      }
    });
    this.#wasFull = false;
  }

  /** Makes changes, all or none, and durably. @throws STORE_FULL, STORE_UNAVAILABLE, STORE_READ_ONLY: none was made. */
  write(changes: readonly Change[]): void {
    this.ready();
    const text = JSON.stringify(changes);
    const line = Buffer.from(`${sha256(text)} ${text}\n`);
    this.#guarded(() => {
      const ahead = this.#opened();
      try {
        writeAll(this.fs, ahead.fd, line, ahead.sizeBytes);
      } catch (error) {
        this.#wasFull = true;
        this.#cut(ahead.fd, ahead.sizeBytes);
        throw error;
      }
      this.#lasting(() => {
        this.fs.fdatasyncSync(ahead.fd);
        // What has no name any more is synced as well as ever, and nobody will find it.
        if (this.fs.fstatSync(ahead.fd).nlink === 0) throw new Error(`${ahead.path} was removed`);
      });
      ahead.sizeBytes += line.length;
    });
    this.#pending.push(...changes);
    try {
      this.settle();
    } catch {
      // They stand (J1), and are made before anything else is read or written.
    }
    if (this.sizeBytes() >= largestBytes) {
      this.#flushing ??= this.#flush().finally(() => {
        this.#flushing = undefined;
      });
    }
  }

  /** What a file holds, or undefined where there is none. @throws What reading it throws. */
  read(path: string): Buffer | undefined {
    this.settle();
    const text = this.#behind.get(path);
    if (text !== undefined) return Buffer.from(text);
    try {
      return this.fs.readFileSync(this.path(path));
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw error;
    }
  }

  /** The directories in a directory. */
  directories(path: string): string[] {
    this.settle();
    const behind = [...this.#behind.keys()]
      .filter((file) => file.startsWith(`${path}/`))
      .map((file) => file.split("/")[1] as string);
    try {
      const entries = this.fs.readdirSync(this.path(path), { withFileTypes: true }).filter((entry) => entry.isDirectory());
      return [...new Set([...entries.map(({ name }) => name), ...behind])];
    } catch (error) {
      if (isMissing(error)) return [...new Set(behind)];
      throw error;
    }
  }

  /** Makes the changes that are done (J1) and were not made yet. Whoever reads files calls this first. */
  settle(): void {
    if (this.#broken) throw this.#broken;
    if (this.#pending.length === 0) return;
    this.#guarded(() => {
      let made = 0;
      try {
        for (const change of this.#pending) {
          this.#make(change);
          made += 1;
        }
      } finally {
        this.#pending.splice(0, made);
      }
    });
  }

  async close(): Promise<void> {
    clearTimeout(this.#catchingUp);
    await this.#flushing;
    // What stays in the write-ahead file is durable there, and is made to the files again when the store is opened (J2).
    this.#catchUp();
    if (!this.#broken && this.sizeBytes() >= leftBytes) await this.#flush();
    if (isOpen(this.#ahead)) this.fs.closeSync(this.#ahead.fd);
    this.#ahead = undefined;
  }

  /** The last line may be cut off, by a crash while it was written: nobody was told that its changes were made. */
  #read(name: string): { changes: Change[]; sizeBytes: number } {
    const lines = this.fs.readFileSync(this.path(name), "utf8").split("\n");
    // What has no end was cut off.
    const rest = lines.pop();
    const changes: Change[] = [];
    let sizeBytes = 0;
    for (const [i, line] of lines.entries()) {
      const text = line.slice(65);
      if (line.slice(0, 64) === sha256(text)) {
        changes.push(...(parseJson(text) as unknown as Change[]));
        sizeBytes += Buffer.byteLength(line) + 1;
      } else if (i < lines.length - 1 || rest !== "") {
        const problem = `line ${i + 1} of its write-ahead file ${name} is damaged`;
        throw new AbstractRuntimeError("STORE_CORRUPT", { store: this.store, problem });
      }
    }
    return { changes, sizeBytes };
  }

  #make(change: Change): void {
    if ("replace" in change) {
      this.#touched.add(change.replace);
      if (change.often) {
        this.#behind.set(change.replace, change.text);
        this.#catchingUp ??= setTimeout(() => this.#catchUp(), behindMs).unref();
      } else this.#replace(change.replace, change.text);
    } else if ("write" in change) {
      this.#touched.add(change.write);
      const bytes = Buffer.from(change.text);
      this.#into(this.path(change.write), this.fs.constants.O_RDWR | this.fs.constants.O_CREAT, (fd) => {
        writeAll(this.fs, fd, bytes, change.at);
        this.fs.ftruncateSync(fd, change.at + bytes.length);
      });
    } else {
      this.#touched.add(change.remove);
      for (const path of this.#behind.keys())
        if (path === change.remove || path.startsWith(`${change.remove}/`)) this.#behind.delete(path);
      this.fs.rmSync(this.path(change.remove), { recursive: true, force: true });
    }
  }

  /** Replaces the files that are to be (J4). Answers whether all are; where that fails it is tried again, and they stand all the same (J1). */
  #catchUp(): boolean {
    clearTimeout(this.#catchingUp);
    this.#catchingUp = undefined;
    if (this.#broken) return false;
    try {
      for (const [path, text] of this.#behind) {
        this.#replace(path, text);
        this.#behind.delete(path);
      }
      return true;
    } catch {
      return false;
    }
  }

  #replace(path: string, text: string): void {
    const bytes = Buffer.from(text);
    if (this.#has(path, bytes)) return;
    const { O_RDWR, O_CREAT, O_TRUNC } = this.fs.constants;
    const temporary = `${this.path(path)}.tmp`;
    this.#into(temporary, O_RDWR | O_CREAT | O_TRUNC, (fd) => writeAll(this.fs, fd, bytes, 0));
    this.fs.renameSync(temporary, this.path(path));
  }

  /** Whether a file is so already, as most are when nothing but the store was closed. */
  #has(path: string, bytes: Buffer): boolean {
    try {
      return this.fs.readFileSync(this.path(path)).equals(bytes);
    } catch {
      return false;
    }
  }

  #into(path: string, flags: number, use: (fd: number) => void): void {
    let fd: number;
    try {
      fd = this.fs.openSync(path, flags, 0o600);
    } catch (error) {
      if (!isMissing(error)) throw error;
      this.#makeDirectory(dirname(path));
      fd = this.fs.openSync(path, flags, 0o600);
    }
    try {
      use(fd);
    } finally {
      this.fs.closeSync(fd);
    }
  }

  #makeDirectory(path: string): void {
    try {
      this.fs.mkdirSync(path, { mode: 0o700 });
    } catch (error) {
      if (!isMissing(error)) throw error;
      this.fs.mkdirSync(path, { recursive: true, mode: 0o700 });
    }
  }

  #opened(): OpenAhead {
    const { fs } = this;
    if (isOpen(this.#ahead)) return this.#ahead;
    if (this.#ahead) {
      const { path, sizeBytes } = this.#ahead;
      const ahead = { path, sizeBytes, fd: fs.openSync(this.path(path), fs.constants.O_RDWR) };
      this.#cut(ahead.fd, sizeBytes);
      this.#ahead = ahead;
      return ahead;
    }
    const path = `ahead-${this.#number + 1}.log`;
    const ahead = { path, sizeBytes: 0, fd: fs.openSync(this.path(path), "wx", 0o600) };
    this.#number += 1;
    this.#ahead = ahead;
    // Before its first line: what is not named after a crash is lost.
    this.#lasting(() => syncDirectory(fs, this.#root));
    return ahead;
  }

  /** Removes the present write-ahead files, once what they hold is in the files for good (J3). */
  async #flush(): Promise<void> {
    // Where files cannot be changed at present, the write-ahead files go on to grow.
    if (this.#pending.length > 0 || !this.#catchUp()) return;
    const done = [...this.#older, ...(this.#ahead ? [this.#ahead.path] : [])];
    const touched = this.#touched;
    try {
      if (isOpen(this.#ahead)) this.fs.closeSync(this.#ahead.fd);
      this.#ahead = undefined;
      this.#older = [];
      this.#touched = new Set();
      await this.#sync(touched);
      // The oldest first, each for good before the next: one that came back without those behind it would undo them.
      for (const path of done) {
        this.fs.rmSync(this.path(path), { force: true });
        syncDirectory(this.fs, this.#root);
      }
    } catch (error) {
      // The write-ahead files stay, and with them all that was answered. But what was synced is not known any more (J5).
      this.#break(error);
    }
  }

  /** Nothing goes on from here (J5). */
  #break(error: unknown): unknown {
    const why = error instanceof Error ? error.message : String(error);
    const problem = `what is on the disk is not known since an operation failed (${why}); it must be opened again`;
    this.#broken ??= new AbstractRuntimeError("STORE_UNAVAILABLE", { store: this.store, problem }, error);
    return this.#broken;
  }

  /** Files first, then the directories that name them. */
  async #sync(paths: ReadonlySet<string>): Promise<void> {
    const { O_RDONLY, O_RDWR } = this.fs.constants;
    const directories = new Set<string>(["."]);
    for (const path of paths) for (let up = dirname(path); up !== "."; up = dirname(up)) directories.add(up);
    await this.#syncEach(paths, O_RDWR);
    // A directory cannot be opened on Windows, which does not need it.
    if (process.platform !== "win32") await this.#syncEach(directories, O_RDONLY);
  }

  async #syncEach(paths: ReadonlySet<string>, flags: number): Promise<void> {
    if (paths.size <= syncedAtOnce) {
      for (const path of paths) this.#syncNow(path, flags);
      return;
    }
    // Side by side, which a disk does much faster than one by one, and beside everything else.
    const left = paths[Symbol.iterator]();
    const some = async (): Promise<void> => {
      for (let next = left.next(); !next.done; next = left.next()) await this.#syncLater(next.value, flags);
    };
    await Promise.all(Array.from({ length: syncedSideBySide }, some));
  }

  #syncNow(path: string, flags: number): void {
    let fd: number;
    try {
      fd = this.fs.openSync(this.path(path), flags);
    } catch (error) {
      if (isGone(error)) return;
      throw error;
    }
    try {
      this.fs.fsyncSync(fd);
    } finally {
      this.fs.closeSync(fd);
    }
  }

  async #syncLater(path: string, flags: number): Promise<void> {
    let file: nodeFs.promises.FileHandle;
    try {
      file = await this.fs.promises.open(this.path(path), flags);
    } catch (error) {
      if (isGone(error)) return;
      throw error;
    }
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }

  /** @throws What `action` threw, after which nothing goes on (J5). */
  #lasting(action: () => void): void {
    try {
      action();
    } catch (error) {
      throw this.#break(error);
    }
  }

  #cut(fd: number, sizeBytes: number): void {
    this.#lasting(() => this.fs.ftruncateSync(fd, sizeBytes));
  }

  #guarded(action: () => void): void {
    if (this.#broken) throw this.#broken;
    try {
      action();
    } catch (error) {
      throw fileError(error, this.store);
    }
  }
}

export function isMissing(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return code === "ENOENT" || code === "ENOTDIR";
}

function isOpen(ahead: Ahead | OpenAhead | undefined): ahead is OpenAhead {
  return ahead !== undefined && "fd" in ahead;
}

/** Removed since it was changed; and made again, where it is a directory. */
function isGone(error: unknown): boolean {
  return isMissing(error) || (error as NodeJS.ErrnoException).code === "EISDIR";
}

export function syncDirectory(fs: FileSystem, path: string): void {
  if (process.platform === "win32") return;
  const fd = fs.openSync(path, fs.constants.O_RDONLY);
  try {
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

function writeAll(fs: FileSystem, fd: number, bytes: Buffer, at: number): void {
  for (let done = 0; done < bytes.length; ) done += fs.writeSync(fd, bytes, done, bytes.length - done, at + done);
}

function numberOf(name: string): number {
  return Number(/\d+/.exec(name)?.[0]);
}
