/**
 * Runs in files that a person can read: the store in memory, and a journal. One process at a time.
 *
 * F1. Nothing is answered before it is on the disk: what a turn changes is written to a write-ahead file first, with one sync for all of
 *     its calls (see J1 to J4 in `journal.ts`).
 * F2. What could not be written has not happened: the store goes back to what is on the disk.
 * F3. A damaged file is the matter of its run alone.
 * F4. Rows, waits and mail are in memory; records and checkpoints are read from their files when they are asked for.
 */
import * as fs from "node:fs";
import { type Clock, systemClock } from "../../kernel/clock.ts";
import { checkOptions } from "../../kernel/errors.ts";
import type { Store } from "../../kernel/store.ts";
import { pathOf, prepareDirectory } from "../directory.ts";
import { MemoryStore } from "../memory/index.ts";
import { fileError } from "../file-errors.ts";
import { type FileSystem, Journal } from "./journal.ts";
import { FilesKeeper } from "./keeper.ts";
import { lock } from "./lock.ts";

export interface FilesOptions {
  /** Default: the system's. */
  clock?: Clock;
}

/**
 * Opens a store, creating its directory (mode 0700) where it is missing.
 *
 * @throws STORE_LOCKED when another process, or another store object of this one, has it open; STORE_UNAVAILABLE, STORE_READ_ONLY,
 *   STORE_CORRUPT, STORE_FULL, FORMAT_NEWER
 */
export async function filesStore(directory: string, options: FilesOptions = {}): Promise<Store> {
  checkOptions(options, ["clock"], "filesStore()");
  return openFiles(directory, options, fs);
}

/** @param fileSystem Fails in tests. */
export async function openFiles(
  directory: string,
  { clock = systemClock }: FilesOptions,
  fileSystem: FileSystem,
): Promise<Store> {
  const root = pathOf(directory, "files");
  const name = `files:${directory}`;
  let unlock: (() => void) | undefined;
  let journal: Journal | undefined;
  try {
    prepareDirectory(root);
    unlock = lock(root, name);
    journal = new Journal(root, name, fileSystem);
    return new MemoryStore(name, clock, new FilesKeeper(journal, name, clock, unlock));
  } catch (error) {
    await journal?.close();
    unlock?.();
    throw fileError(error, name);
  }
}
