/**
 * How one process tells the others on this host that there may be something to do: it touches a file in a directory that they
 * watch. A hint, and no more: where files cannot be watched or touched nobody hears anything, and everybody still looks now and then.
 */
import { type FSWatcher, mkdirSync, utimesSync, watch, writeFileSync } from "node:fs";
import { join } from "node:path";

/** Of those who have no file of their own. No mark has this name, since a worker's id is encoded. */
export const sharedBell = "+bell";

export class Bell {
  readonly #directory: string;
  readonly #isOwn: (file: string) => boolean;
  readonly #heard: () => void;
  #watcher: FSWatcher | undefined;
  #rings = 0;

  /** @param isOwn Whether a file is rung by this store object alone, which need not hear itself. */
  constructor(directory: string, isOwn: (file: string) => boolean, heard: () => void) {
    this.#directory = directory;
    this.#isOwn = isOwn;
    this.#heard = heard;
  }

  /** A second call does nothing. */
  listen(): void {
    if (this.#watcher) return;
    try {
      mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
      // The directory, not a file in it, which might be removed and made again.
      this.#watcher = watch(this.#directory, { persistent: false }, (_, file) => {
        if (file === null || !this.#isOwn(file)) this.#heard();
      });
      this.#watcher.on("error", () => this.close());
    } catch {
      this.close();
    }
  }

  /** @param file By its times alone: a mark is locked, and opening and closing it here would undo its lock. */
  ring(file: string, now: number): void {
    // Never the same time twice, or some systems would see no change.
    this.#rings += 1;
    const seconds = now / 1000 + (this.#rings % 1000) / 1000;
    try {
      touch(join(this.#directory, file), seconds);
    } catch {
      this.#ringShared(seconds);
    }
  }

  #ringShared(seconds: number): void {
    const path = join(this.#directory, sharedBell);
    try {
      mkdirSync(this.#directory, { recursive: true, mode: 0o700 });
      writeFileSync(path, "", { flag: "a", mode: 0o600 });
      touch(path, seconds);
    } catch {
      // Nobody hears of it; see above.
    }
  }

  close(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }
}

function touch(path: string, seconds: number): void {
  utimesSync(path, seconds, seconds);
}
