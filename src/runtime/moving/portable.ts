/**
 * The format of files that carry runs: JSON lines, written and read without holding the whole.
 *
 * P1. The first line says what the file is. The last counts the lines before it and has the SHA-256 of their bytes: a file that was cut
 *     off or altered is found out before anything of it counts.
 * P2. Records stand in it with their exact texts, artifacts with their bytes.
 * P3. A file has its name once it is complete and on the disk, and never replaces another.
 */
import { createHash, randomUUID } from "node:crypto";
import { existsSync } from "node:fs";
import { type FileHandle, link, open, rename, rm } from "node:fs/promises";
import { dirname, resolve } from "node:path";
import { isArtifactTag } from "../../artifacts/artifacts.ts";
import { AbstractRuntimeError, isError } from "../../kernel/errors.ts";
import { isObject, type Json, parseJson } from "../../kernel/json.ts";
import type { StoredRecord } from "../../kernel/record.ts";
import type { ArtifactRow } from "../../kernel/artifact-row.ts";
import type { RunCopy } from "../../kernel/moving.ts";
import type { SnapshotRow } from "../../kernel/snapshot.ts";

const formatVersion = 1;

export interface PortableHeader {
  /** Version of the format. */
  portable: number;
  /** Of this file. */
  id: string;
  /**
   * `moved`: the runs have left their store for this file, and it is they. `copy`: they stay where they are. `ledger`: the older part of
   * the ledger of one run.
   */
  kind: "moved" | "copy" | "ledger";
  /** The store that it was written from. */
  from: string;
  /** Of a `ledger`: whose, and which records, `[first, before)`. */
  ledger?: { runId: string; first: number; before: number; hash: string };
}

/** What stands between the first line and the last. Artifacts stand before the runs that refer to them, records behind their run. */
export type PortableEntry =
  | { artifact: ArtifactRow }
  /** Of the artifact above: Base64. */
  | { bytes: string }
  | { copy: RunCopy }
  | { record: StoredRecord }
  | { snapshot: SnapshotRow };

const writtenAtOnce = 256 * 1024;
const longestLine = 256 * 1024 * 1024;

/** @throws INVALID_OPTION when the file exists; TOO_LARGE; what the disk rejects with. Nothing is left of a file that was not completed. */
export async function writePortable(
  file: string,
  header: Omit<PortableHeader, "portable">,
  entries: AsyncIterable<PortableEntry>,
): Promise<void> {
  const path = pathOf(file);
  checkFree(file);
  // Of its own, since another may write to the same file at this moment.
  const part = `${path}.${randomUUID()}.part`;
  const handle = await open(part, "wx", 0o600).catch((error: unknown) => {
    throw refuseFile(`${file} cannot be written: ${messageOf(error)}`, error);
  });
  try {
    try {
      await writeLines(handle, header, entries);
      await handle.sync();
    } finally {
      await handle.close();
    }
    // Unlike a rename, it replaces nothing that came to be meanwhile. Not every file system has links.
    await link(part, path).catch((error: unknown) => {
      if (isTaken(error)) throw refuseFile(`${file} exists, and is not replaced`, error);
      checkFree(file);
      return rename(part, path);
    });
  } finally {
    await rm(part, { force: true });
  }
  await syncDirectory(dirname(path));
}

/** @throws INVALID_OPTION */
export function pathOf(file: string): string {
  if (typeof file === "string" && file !== "") return resolve(file);
  throw refuseFile("it must be the name of a file");
}

/** @throws INVALID_OPTION */
export function checkFree(file: string): void {
  if (existsSync(file)) throw refuseFile(`${file} exists, and is not replaced`);
}

async function writeLines(
  handle: FileHandle,
  header: Omit<PortableHeader, "portable">,
  entries: AsyncIterable<PortableEntry>,
): Promise<void> {
  const hash = createHash("sha256");
  let lines = 0;
  let waiting: Buffer[] = [];
  let waitingBytes = 0;
  const flush = async (): Promise<void> => {
    if (waiting.length > 0) await handle.writeFile(Buffer.concat(waiting));
    waiting = [];
    waitingBytes = 0;
  };
  const write = async (line: object): Promise<void> => {
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`);
    // Nobody could read it again.
    if (bytes.length > longestLine)
      throw new AbstractRuntimeError("TOO_LARGE", {
        what: "a line of the file",
        sizeBytes: bytes.length,
        limitBytes: longestLine,
      });
    hash.update(bytes);
    lines += 1;
    waiting.push(bytes);
    waitingBytes += bytes.length;
    if (waitingBytes >= writtenAtOnce) await flush();
  };
  await write({ portable: formatVersion, ...header });
  for await (const entry of entries) await write(entry);
  await write({ end: { lines, sha256: hash.copy().digest("hex") } });
  await flush();
}

/** The name of a file is on the disk when its directory is. */
async function syncDirectory(path: string): Promise<void> {
  // Windows has no handles of directories; there the name is on the disk with the file.
  if (process.platform === "win32") return;
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Reads a file to its end, which it checks (P1): what was given before counts only when this ends. Records and runs are checked by
 * whoever stores them.
 *
 * @throws PORTABLE_INVALID, FORMAT_NEWER
 */
export async function* readPortable(file: string): AsyncGenerator<{ header: PortableHeader } | PortableEntry> {
  const refuse = (problem: string, cause?: unknown): AbstractRuntimeError =>
    new AbstractRuntimeError("PORTABLE_INVALID", { file, problem }, cause);
  const hash = createHash("sha256");
  let lines = 0;
  let ended = false;
  for await (const bytes of linesOf(file, refuse)) {
    if (ended) throw refuse(`there is more behind its last line, at line ${lines + 2}`);
    const line = readLine(bytes, lines + 1, refuse);
    if (lines === 0) yield { header: readHeader(file, line, refuse) };
    else if (isObject(line.end)) {
      const { end } = line;
      if (end.lines !== lines || end.sha256 !== hash.digest("hex"))
        throw refuse("it is not as it was written: its checksum differs");
      ended = true;
      continue;
    } else yield readEntry(line, lines + 1, refuse);
    hash.update(bytes).update("\n");
    lines += 1;
  }
  if (!ended) throw refuse(lines === 0 ? "it is empty" : `it was cut off after ${lines} ${lines === 1 ? "line" : "lines"}`);
}

type Refuse = (problem: string, cause?: unknown) => AbstractRuntimeError;

function readLine(bytes: Buffer, number: number, refuse: Refuse): Record<string, Json> {
  try {
    const line = parseJson(bytes.toString("utf8"));
    if (isObject(line)) return line;
  } catch (error) {
    throw refuse(`line ${number} is not JSON`, error);
  }
  throw refuse(`line ${number} is not an object`);
}

function readHeader(file: string, line: Record<string, Json>, refuse: Refuse): PortableHeader {
  const { portable, id, kind, from, ledger } = line;
  if (typeof portable !== "number") throw refuse("it is not a file that runs were exported to");
  if (portable > formatVersion)
    throw new AbstractRuntimeError("FORMAT_NEWER", { what: file, found: portable, known: formatVersion });
  const isKnown = kind === "moved" || kind === "copy" || kind === "ledger";
  if (typeof id !== "string" || !name(id) || !isKnown || typeof from !== "string") throw refuse("its first line is damaged");
  return {
    portable,
    id,
    kind,
    from,
    ...(isObject(ledger) ? { ledger: ledger as unknown as PortableHeader["ledger"] } : {}),
  } as PortableHeader;
}

function readEntry(line: Record<string, Json>, number: number, refuse: Refuse): PortableEntry {
  const [[kind = "", value = null] = [], ...more] = Object.entries(line);
  const fits = more.length === 0 && Object.hasOwn(shapes, kind) && shapes[kind]?.(value) === true;
  if (!fits) throw refuse(`line ${number} is not what was written there`);
  return line as unknown as PortableEntry;
}

// ---- What stands in a line: enough that a store can take it. What it means is verified with the ledger. ------------

type Shape = (value: Json) => boolean;

const text: Shape = (value) => typeof value === "string";
/** What stores find something by: text that they keep as it is, and short enough for their indexes. Longer ones are not made anywhere. */
const name: Shape = (value) => typeof value === "string" && value.length <= 800 && value.isWellFormed();
const number: Shape = (value) => Number.isFinite(value);
/** Moments too. */
const integer: Shape = (value) => Number.isSafeInteger(value);
const whole: Shape = (value) => integer(value) && (value as number) >= 0;
const optional =
  (shape: Shape): Shape =>
  (value) =>
    value === undefined || shape(value);
const nullable =
  (shape: Shape): Shape =>
  (value) =>
    value === null || shape(value);
const oneOf =
  (...values: string[]): Shape =>
  (value) =>
    values.includes(value as string);
const list =
  (shape: Shape): Shape =>
  (value) =>
    Array.isArray(value) && value.every(shape);
const byName =
  (shape: Shape): Shape =>
  (value) =>
    isObject(value) && Object.entries(value).every(([key, one]) => name(key) && shape(one));
const scalar: Shape = (value) => name(value) || number(value) || typeof value === "boolean";
const artifactTags: Shape = (value) => isObject(value) && Object.entries(value).every(isArtifactTag);
const object =
  (members: Record<string, Shape>): Shape =>
  (value) =>
    isObject(value) && Object.entries(members).every(([name, shape]) => shape(value[name] as Json));

const status = oneOf("running", "waiting", "completed", "failed", "cancelled");

const row = object({
  runId: name,
  workflowId: name,
  version: name,
  status,
  paused: (value) => typeof value === "boolean",
  node: name,
  step: whole,
  seq: whole,
  head: name,
  wakeAt: nullable(integer),
  queue: optional(name),
  queueKey: optional(name),
  priority: integer,
  error: optional(object({ code: optional(text), message: text })),
  parentRunId: optional(name),
  tags: optional(list(name)),
  actorId: optional(name),
  sessionId: optional(name),
  createdAt: integer,
  updatedAt: integer,
});

const shapes: Record<string, Shape> = {
  artifact: object({ id: name, sizeBytes: whole, contentType: text, tags: artifactTags, createdAt: integer }),
  bytes: text,
  record: object({ seq: whole, hash: name, header: text, body: nullable(text) }),
  snapshot: object({
    snapshotId: name,
    runId: name,
    workflowId: name,
    version: name,
    seq: whole,
    hash: name,
    node: name,
    status,
    name: text,
    description: optional(text),
    tags: list(name),
    createdAt: integer,
    updatedAt: integer,
  }),
  copy: object({
    row,
    epoch: whole,
    waits: list(
      object({
        effectId: name,
        waitKey: name,
        reason: oneOf("event", "until", "user", "job", "subworkflow"),
        since: integer,
        until: optional(integer),
      }),
    ),
    indexed: byName(scalar),
    checkpoints: list(object({ seq: whole, ordinal: whole, text })),
    archivedBefore: optional(whole),
    blocked: optional(
      object({ code: name, problem: text, fingerprint: text, quarantine: (value) => typeof value === "boolean" }),
    ),
    artifacts: list(name),
    counters: optional(byName(number)),
    letters: list(
      object({
        id: name,
        kind: oneOf("answer", "event", "job", "child_end", "control"),
        key: name,
        actorId: optional(name),
        at: integer,
        digest: name,
        state: oneOf("open", "taken", "recalled"),
      }),
    ),
  }),
};

/** The lines of a file, without their ends; what stands behind the last end too. */
async function* linesOf(file: string, refuse: Refuse): AsyncGenerator<Buffer> {
  const handle = await open(file, "r").catch((error: unknown) => {
    throw refuse(messageOf(error), error);
  });
  try {
    let rest: Buffer[] = [];
    let restBytes = 0;
    for await (const chunk of handle.createReadStream({ autoClose: false, highWaterMark: writtenAtOnce })) {
      let from = 0;
      for (let end = (chunk as Buffer).indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
        yield Buffer.concat([...rest, chunk.subarray(from, end)]);
        rest = [];
        restBytes = 0;
        from = end + 1;
      }
      if (from < chunk.length) rest.push(chunk.subarray(from));
      restBytes += chunk.length - from;
      if (restBytes > longestLine) throw refuse("it has a line of more than 256 MiB");
    }
    if (restBytes > 0) yield Buffer.concat(rest);
  } catch (error) {
    throw isError(error) ? error : refuse(messageOf(error), error);
  } finally {
    await handle.close();
  }
}

function isTaken(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "EEXIST";
}

function refuseFile(problem: string, cause?: unknown): AbstractRuntimeError {
  return new AbstractRuntimeError("INVALID_OPTION", { option: "to", problem }, cause);
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
